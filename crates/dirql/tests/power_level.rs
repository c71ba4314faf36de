//! At which level power requests come, and devices that draw a surge of current when they are powered up. The devices are children of
//! `drivers/c/busdriver.c`, driven by `drivers/c/soft.c`.

use dirql::explore::Policy;
use dirql::record::{Record, Recording};
use dirql::{Bench, Report, ScriptText};
use engine::{Chooser, Point};

use super::rig::{Buffer, bus, finish, play, rules, seeds, start, try_play};

/// Kinds of children: one that says `DO_POWER_PAGABLE`; and four that are slow to come up, the first two without it.
const PLAIN: u32 = 0;
const RESIDENT: u32 = 6;
const INRUSH: u32 = 7;
const PAGED_INRUSH: u32 = 8;
const INRUSH_HUB: u32 = 9;

/// The driver waits for power requests in its dispatch routine, or calls a routine there that may be paged out.
const WAITS: u32 = 0x200;
const PAGED: u32 = 0x400;

/// Power requests come at `DISPATCH_LEVEL` wherever they may.
struct AtDispatchLevel;

impl Chooser for AtDispatchLevel {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        u32::from(point == Point("po.dispatch_level"))
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

/// Plugs a child of this kind into a slot of a bus.
fn plug(bus: u32, slot: u32, kind: u32) -> String {
    format!(
        "open \\\\.\\DirqlBus{bus} as b\nioctl b 0x222000 in u32:{}\nclose b\nwait 1ms\n",
        kind << 8 | slot
    )
}

/// Opens the device in a slot of the first bus by this name.
fn open(slot: u32, name: &str) -> String {
    let path = format!(r"\\?\DIRQLBUS#Child#4&e9672841&0&{slot}#{{5a0f7b52-3c1e-4b6f-9e57-0d1b8a2c4e61}}");
    format!("open {path} as {name}\n")
}

/// A machine in which a child of this kind, whose driver has these manners, goes down and up, with the system and alone.
fn trip(kind: u32, manners: u32) -> String {
    format!(
        "{}{}ioctl s 0x222004 in u32:{manners}\npower d3 child#0\npower d0 child#0\npower s3\npower s0\nclose s",
        plug(0, 0, kind),
        open(0, "s")
    )
}

fn run(bench: impl Fn() -> Bench, script: &str) -> Report {
    let machine = start(bench);
    // What goes wrong stands in the report.
    let _ = try_play(&machine, script);
    machine.finish()
}

fn at_dispatch_level() -> Bench {
    bus().chooser(AtDispatchLevel)
}

/// What the drivers have printed of power, without what the bus's own does.
fn power_lines(report: &Report) -> Vec<&str> {
    let lines = report.prints.iter().map(|line| line.trim_end());
    lines
        .filter(|line| {
            [" D0", " D3", "rises", "is up"].iter().any(|what| line.contains(what)) && !line.contains("bus")
        })
        .collect()
}

/// Holds: irps/power-level
#[test]
fn where_no_device_object_is_pageable_power_requests_may_come_at_dispatch_level() {
    let script = trip(RESIDENT, 0);
    let usual = run(bus, &script);
    usual.expect_clean();
    let levels = |level| {
        [
            "soft 1 is asked for D3 at level 0".to_owned(),
            format!("soft 1 goes to D3 at level {level}"),
            "soft 1 is asked for D0 at level 0".to_owned(),
            format!("soft 1 goes to D0 at level {level}"),
            format!("slot 0 rises at level {level}"),
            "slot 0 is up".to_owned(),
        ]
    };
    assert_eq!(power_lines(&usual), levels(0));
    let early = run(at_dispatch_level, &script);
    early.expect_clean();
    assert_eq!(power_lines(&early), levels(2));
}

/// Holds: irps/power-level
#[test]
fn one_that_draws_a_surge_may_be_asked_at_dispatch_level_too() {
    let report = run(at_dispatch_level, &trip(INRUSH, 0));
    report.expect_clean();
    assert_eq!(
        power_lines(&report)[..2],
        ["soft 1 is asked for D3 at level 2", "soft 1 goes to D3 at level 2"]
    );
}

/// Holds: irps/power-level
#[test]
fn a_stack_with_one_pageable_device_object_gets_power_requests_at_passive_level() {
    for kind in [PLAIN, PAGED_INRUSH] {
        let report = run(at_dispatch_level, &trip(kind, WAITS | PAGED));
        report.expect_clean();
        assert!(power_lines(&report).iter().all(|line| !line.contains("level 2")), "{report}");
    }
    // Its driver leaves the flag as it was, which is a finding, while that of the bus clears it for a paging file.
    let script = format!(
        "{}{}ioctl s 0x222004 in u32:0x08\nusage child#0 paging on\npower d3 child#0\npower d0 child#0\nclose s",
        plug(0, 0, PLAIN),
        open(0, "s")
    );
    let report = run(at_dispatch_level, &script);
    assert_eq!(rules(&report), ["usage-power-pagable"], "{report}");
    assert!(power_lines(&report).iter().all(|line| line.contains("at level 0")), "{report}");
}

/// Holds: irps/power-level-files
/// Not: usage-power-pagable
#[test]
fn a_paging_file_brings_power_requests_to_dispatch_level_until_it_is_gone() {
    let down_and_up = "power d3 child#0\npower d0 child#0";
    let script = format!(
        "{}{down_and_up}\nusage child#0 paging on\n{down_and_up}\nusage child#0 paging off\n{down_and_up}",
        plug(0, 0, PLAIN)
    );
    let report = run(at_dispatch_level, &script);
    report.expect_clean();
    let levels: Vec<_> = power_lines(&report)
        .iter()
        .filter_map(|line| line.split_once("goes to ")?.1.split_once(" at level "))
        .collect();
    assert_eq!(levels, [("D3", "0"), ("D0", "0"), ("D3", "2"), ("D0", "2"), ("D3", "0"), ("D0", "0")]);
}

/// Not: wait-at-raised-irql, paged-at-raised-irql
#[test]
fn a_driver_for_both_levels_is_clean_in_every_schedule() {
    let mut levels = [0, 0];
    for seed in seeds(24) {
        let script = trip(if seed % 2 == 0 { RESIDENT } else { INRUSH }, 0);
        let report = run(|| bus().checked(seed % 4 == 0).processors(2).policy(Policy::random(seed)), &script);
        report.expect_clean();
        for line in power_lines(&report).iter().filter(|line| line.contains("goes to")) {
            levels[usize::from(line.ends_with('2'))] += 1;
        }
    }
    assert!(levels.iter().all(|count| *count > 5), "{levels:?}");
}

#[test]
fn a_driver_that_waits_for_power_requests_in_its_dispatch_routine_is_found_and_replayed() {
    for kind in [RESIDENT, INRUSH] {
        run(bus, &trip(kind, WAITS)).expect_clean();
    }
    let script = ScriptText::typed(&trip(RESIDENT, WAITS));
    let found = seeds(24).find_map(|seed| {
        let buffer = Buffer::default();
        let policy = Policy::random(seed).chooser();
        let (bench, recording) =
            Recording::start(bus(), policy, &format!("random:{seed}"), Some(&script), buffer.clone())
                .unwrap();
        let report = bench.run(Some(script.play().unwrap())).unwrap();
        recording.finish(&report).unwrap();
        let is_told = report.verdict.as_ref().is_some_and(|verdict| verdict.rule == "wait-at-raised-irql");
        is_told.then_some((report, buffer))
    });
    let (report, buffer) = found.expect("a schedule has it come at DISPATCH_LEVEL");
    let record = Record::parse("found", &buffer.text()).unwrap();
    let (bench, play, comparison) = record.bench(None, None, None).unwrap();
    let again = bench.run(play).unwrap();
    assert_eq!(comparison.difference(&again), None);
    assert_eq!(again.failure, report.failure);
}

#[test]
fn a_driver_that_calls_what_may_be_paged_out_is_told_when_power_requests_come_at_dispatch_level() {
    let script = trip(RESIDENT, PAGED);
    run(|| bus().checked(true), &script).expect_clean();
    let report = run(|| at_dispatch_level().checked(true), &script);
    assert_eq!(rules(&report), ["paged-at-raised-irql"], "{report}");
}

/// Two children of a kind that are sent down and asked up at once; what is printed from then on.
fn two_come_up(bench: impl Fn() -> Bench, kind: u32) -> Vec<String> {
    let both =
        |state: u32| format!("ioctl s 0x22201c in u32:{state}\nioctl t 0x22201c in u32:{state}\nwait 50ms\n");
    let script = format!(
        "{}{}{}{}{}{}close s\nclose t",
        plug(0, 0, kind),
        plug(0, 1, kind),
        open(0, "s"),
        open(1, "t"),
        both(4),
        both(1)
    );
    let machine = start(bench);
    play(&machine, &script);
    let report = finish(machine);
    power_lines(&report).iter().filter(|line| line.contains("slot")).map(|line| (*line).to_owned()).collect()
}

/// Holds: irps/inrush
#[test]
fn devices_that_draw_a_surge_come_up_one_after_the_other() {
    let serial = |level| {
        [
            format!("slot 0 rises at level {level}"),
            "slot 0 is up".to_owned(),
            format!("slot 1 rises at level {level}"),
            "slot 1 is up".to_owned(),
        ]
    };
    for kind in [INRUSH, PAGED_INRUSH] {
        assert_eq!(two_come_up(bus, kind), serial(0));
    }
    assert_eq!(two_come_up(at_dispatch_level, INRUSH), serial(2));
    for seed in seeds(12) {
        let lines = two_come_up(|| bus().processors(2).policy(Policy::random(seed)), INRUSH);
        let steps: Vec<_> = lines.iter().map(|line| (&line[..6], line.contains("rises"))).collect();
        let [(first, true), (up, false), (second, true), (last, false)] = steps[..] else {
            panic!("{lines:?}")
        };
        assert!(first == up && second == last && first != second, "{lines:?}");
    }
}

/// Holds: irps/inrush
#[test]
fn devices_that_draw_none_come_up_together() {
    let lines = two_come_up(bus, RESIDENT);
    assert_eq!(lines, ["slot 0 rises at level 0", "slot 1 rises at level 0", "slot 0 is up", "slot 1 is up"]);
}

/// Holds: irps/inrush
/// Not: power-irp-overdue
#[test]
fn what_a_device_hangs_on_comes_up_for_it() {
    // The child waits for its hub, which does not wait for the child.
    let script = format!(
        "{}{}open interface:{{5A0F7B52-3C1E-4B6F-9E57-0D1B8A2C4E61}} as s\nioctl s 0x22201c in u32:4\nwait 1ms\nioctl s 0x22201c in u32:1\nwait 50ms\nclose s",
        plug(0, 0, INRUSH_HUB),
        plug(1, 3, INRUSH)
    );
    let report = run(bus, &script);
    report.expect_clean();
    let power_lines = power_lines(&report);
    assert!(
        power_lines.ends_with(&[
            "slot 3 rises at level 0",
            "slot 0 rises at level 0",
            "slot 0 is up",
            "slot 3 is up",
            "soft 1 is in D0"
        ]),
        "{power_lines:?}"
    );
}
