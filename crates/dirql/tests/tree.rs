//! The device tree: root-enumerated devices, and the children that `drivers/c/busdriver.c` reports, driven by `drivers/c/soft.c`: who is
//! found, started, asked, stopped and removed in which order, and what a bus driver must not report.

use dirql::explore::{Bounds, Policy};
use dirql::record::{Record, Recording};
use dirql::{Bench, Machine, Outcome, Report, ScriptText};
use kernel::verdict::Tier;

use super::rig::{self, bus, driver, finish, play, printed, rules, start, try_play};

/// The interface of `soft.sys`.
const SOFT: &str = "interface:{5A0F7B52-3C1E-4B6F-9E57-0D1B8A2C4E61}";

/// The interface of one child, by its device and instance id.
fn interface(child: &str) -> String {
    format!(r"\\?\DIRQLBUS#{child}#{{5a0f7b52-3c1e-4b6f-9e57-0d1b8a2c4e61}}")
}

/// The device that `soft.inf` installs, without any hardware.
fn soft() -> Bench {
    Bench::new().driver(driver("soft.sys")).inf(driver("soft.inf"))
}

/// Control codes of the bus.
const PLUG: &str = "ioctl b 0x222000 in u32:";
const UNPLUG: &str = "ioctl b 0x222004 in u32:";
const MISTAKE: &str = "ioctl b 0x222008 in u32:";
const AGAIN: &str = "ioctl b 0x222010";
/// The bus is opened as `b`.
const OPEN: &str = r"open \\.\DirqlBus0 as b";

/// What `raw`, a hub and a stranger are: the second byte of what is plugged in.
const RAW: u32 = 0x100;
const HUB: u32 = 0x200;
const STRANGER: u32 = 0x300;

/// What is done, and time for the PnP manager to follow.
fn then(commands: &[String]) -> String {
    commands.iter().map(|command| format!("{command}\nwait 1ms\n")).collect()
}

fn plug(what: u32) -> String {
    format!("{PLUG}{what}")
}

fn unplug(slot: u32) -> String {
    format!("{UNPLUG}{slot}")
}

/// A run of a script on the bus, which is open as `b`.
fn on_bus(commands: &[String]) -> Report {
    let machine = start(bus);
    let _ = try_play(&machine, &format!("{OPEN}\n{}", then(commands)));
    machine.finish()
}

/// A machine whose bus has had these commands, and is closed.
fn plugged(commands: &[String]) -> Machine {
    let machine = start(bus);
    play(&machine, &format!("{OPEN}\n{}close b", then(commands)));
    machine
}

fn tree(machine: &Machine) -> String {
    machine.tree().unwrap().join("\n")
}

#[test]
fn a_driver_without_hardware_is_started_on_the_device_that_its_inf_names() {
    let machine = start(soft);
    assert_eq!(
        tree(&machine),
        "the root\n  dirqlsoft#0  ROOT\\DIRQLSOFT\\0000\n    started; drivers: PnpManager, DirqlSoft; resources: none"
    );
    // DevicePropertyHardwareID, DevicePropertyEnumeratorName.
    play(
        &machine,
        &format!(
            "open {SOFT} as s
            ioctl s 0x222000 in u32:1 out 100 expect utf16:\"Root\\\\DirqlSoft\" + zero:4
            ioctl s 0x222000 in u32:15 out 100 expect utf16:ROOT + zero:2
            close s"
        ),
    );
    finish(machine);
}

#[test]
fn a_device_on_no_bus_can_be_named_beside_cards_and_twice() {
    let two = || soft().device("root").device(r"root,id=Root\DirqlSoft").device("edu");
    let machine = start(two);
    let text = tree(&machine);
    assert!(text.starts_with("the root\n  edu#0  PCI\\VEN_1234"), "{text}");
    assert!(text.contains("dirqlsoft#0  ROOT\\DIRQLSOFT\\0000\n    started"), "{text}");
    assert!(text.contains("dirqlsoft#1  ROOT\\DIRQLSOFT\\0001\n    started"), "{text}");
    machine.remove_device("dirqlsoft#0").unwrap();
    let text = tree(&machine);
    assert!(
        text.contains("dirqlsoft#0  ROOT\\DIRQLSOFT\\0000\n    without a driver; drivers: PnpManager;"),
        "{text}"
    );
    finish(machine);
}

#[test]
fn a_root_device_sleeps_wakes_stops_and_is_removed_like_any_other() {
    let machine = start(soft);
    play(
        &machine,
        "power s3\npower s0\nstop-device dirqlsoft#0\nstart-device dirqlsoft#0\nsurprise-remove dirqlsoft#0\ntree",
    );
    assert_eq!(tree(&machine), "the root");
    finish(machine);
}

/// Holds: irps/children-by-relations
/// Not: child-is-no-device, child-not-referenced, child-reported-twice, duplicate-child, null-child
#[test]
fn children_that_a_bus_driver_reports_get_their_drivers_by_inf() {
    let machine = plugged(&[plug(0), plug(RAW + 1), plug(HUB + 2), plug(STRANGER + 3)]);
    let expected = r"the root
  dirqlbus#0  ROOT\DIRQLBUS\0000
    started; drivers: PnpManager, DirqlBus; resources: none
    child#0  DIRQLBUS\Child\4&e9672841&0&0  (A device on dirql's bus, Slot 0)
      started; drivers: DirqlBus, DirqlSoft; resources: none
    raw#0  DIRQLBUS\Raw\4&e9672841&0&1  (A device on dirql's bus, Slot 1)
      started; drivers: DirqlBus; resources: none
    hub#0  DIRQLBUS\Hub\4&e9672841&0&2  (A device on dirql's bus, Slot 2)
      started; drivers: DirqlBus, DirqlBus; resources: none
    stranger#0  DIRQLBUS\Stranger\4&e9672841&0&3  (A device on dirql's bus, Slot 3)
      without a driver; drivers: DirqlBus; resources: none
      problem 28 (CM_PROB_FAILED_INSTALL)";
    assert_eq!(tree(&machine), expected);
    // DevicePropertyDeviceDescription is the INF's, DevicePropertyLocationInformation the bus driver's; DevicePropertyCompatibleIDs.
    play(
        &machine,
        &format!(
            "open {SOFT} as s
            ioctl s 0x222000 in u32:0 out 100 expect utf16:\"A child of dirql's bus\" + zero:2
            ioctl s 0x222000 in u32:10 out 100 expect utf16:\"Slot 0\" + zero:2
            ioctl s 0x222000 in u32:2 out 100 expect utf16:\"DIRQLBUS\\\\Generic\" + zero:4
            close s"
        ),
    );
    let report = finish(machine);
    assert!(report.notes.iter().any(|note| note.starts_with("stranger#0: no INF")), "{:?}", report.notes);
}

#[test]
fn a_child_whose_drivers_file_is_missing_is_told_of() {
    let alone =
        || Bench::new().driver(driver("busdriver.sys")).inf(driver("busdriver.inf")).inf(driver("soft.inf"));
    let machine = start(alone);
    play(&machine, &format!("{OPEN}\n{}close b", then(&[plug(0)])));
    let report = finish(machine);
    let noted = report.notes.iter().any(|note| {
        note.contains("child#0: the INF names the driver DirqlSoft") && note.contains("--with soft.sys")
    });
    assert!(noted, "{:?}", report.notes);
}

/// Holds: irps/not-reported
/// Not: child-deleted-early, child-not-deleted, child-reused, deleted-child
#[test]
fn a_child_that_is_pulled_out_is_surprise_removed_and_its_device_object_goes() {
    let report = on_bus(&[plug(0), unplug(0), "ioctl b 0x22200c out 4 expect u32:0".to_owned(), plug(0)]);
    report.expect_clean();
    let lines = printed(&report, "soft 1 is gone");
    assert_eq!(
        lines[..6],
        [
            "soft 1 is gone",
            "slot 0 is gone",
            "slot 0 is removed for good",
            "soft 1 is removed",
            "soft 2 is added",
            "slot 0 is started"
        ],
        "a device that comes again is a new one"
    );
}

/// Holds: irps/surprise-then-remove
#[test]
fn a_child_that_is_open_goes_when_it_is_closed() {
    let machine = plugged(&[plug(0)]);
    let child = machine.open(&interface("Child#4&e9672841&0&0")).unwrap();
    play(&machine, &format!("{OPEN}\n{}close b", then(&[unplug(0)])));
    let text = tree(&machine);
    assert!(
        text.contains("child#0  DIRQLBUS\\Child\\4&e9672841&0&0  (A device on dirql's bus, Slot 0)\n      gone, with files still open"),
        "{text}"
    );
    let lines = machine.prints();
    assert!(lines.iter().all(|line| line.trim_end() != "soft 1 is removed"), "{lines:?}");
    child.close().unwrap();
    machine.wait(1_000_000).unwrap();
    assert!(!tree(&machine).contains("child"));
    let report = finish(machine);
    assert!(printed(&report, "slot 0 is removed for good").contains(&"soft 1 is removed".to_owned()));
}

/// Holds: irps/children-first
#[test]
fn a_bus_is_asked_and_removed_after_all_that_hangs_on_it() {
    let machine = plugged(&[plug(HUB + 2)]);
    play(&machine, &format!("open \\\\.\\DirqlBus1 as b\n{}close b", then(&[plug(3)])));
    play(&machine, "remove-device dirqlbus#0");
    let report = finish(machine);
    assert_eq!(
        printed(&report, "soft 1 is asked"),
        [
            "soft 1 is asked",
            "bus 1 hears 1",
            "bus 0 hears 1",
            "slot 3 is removed",
            "soft 1 is removed",
            "bus 1 is removed",
            "slot 2 is removed",
            "bus 0 is removed"
        ]
    );
}

/// Holds: irps/surprise-children-first
#[test]
fn a_bus_that_is_pulled_out_takes_all_that_hangs_on_it_along() {
    let machine = plugged(&[plug(HUB + 2)]);
    play(&machine, &format!("open \\\\.\\DirqlBus1 as b\n{}close b", then(&[plug(3)])));
    play(&machine, &format!("{OPEN}\n{}close b", then(&[unplug(2)])));
    let lines: Vec<String> = machine.prints().iter().map(|line| line.trim_end().to_owned()).collect();
    let at = |wanted: &str| {
        lines.iter().position(|line| line == wanted).unwrap_or_else(|| panic!("{wanted}: {lines:?}"))
    };
    let order = [
        "soft 1 is gone",
        "bus 1 hears 23",
        "slot 2 is gone",
        "soft 1 is removed",
        "bus 1 is removed",
        "slot 2 is removed for good",
    ];
    // The bottom driver of a stack is the last to hear: a bus says so before its own physical device does.
    let places: Vec<usize> = order.iter().map(|line| at(line)).collect();
    assert!(places.is_sorted(), "{lines:?}");
    assert!(!tree(&machine).contains("hub#0"));
    finish(machine);
}

#[test]
fn a_pulled_out_bus_waits_for_its_children_that_are_open() {
    let machine = plugged(&[plug(HUB + 2)]);
    play(&machine, &format!("open \\\\.\\DirqlBus1 as b\n{}close b", then(&[plug(3)])));
    let child = machine.open(&interface("Child#5&c16106de&0&3")).unwrap();
    play(&machine, &format!("{OPEN}\n{}close b", then(&[unplug(2)])));
    let text = tree(&machine);
    assert_eq!(text.matches("gone, with files still open").count(), 2, "the hub, and the child: {text}");
    child.close().unwrap();
    machine.wait(1_000_000).unwrap();
    assert!(!tree(&machine).contains("hub#0"));
    finish(machine);
}

/// Holds: irps/refused, irps/stop-refused, irps/stop-children-first
#[test]
fn a_child_that_refuses_keeps_its_bus_and_those_that_have_agreed_are_told() {
    let machine = plugged(&[plug(0), plug(1)]);
    play(
        &machine,
        &format!(
            "open {SOFT} as s
            ioctl s 0x222004 in u32:3
            close s
            remove-device dirqlbus#0 expect STATUS_DEVICE_BUSY
            stop-device dirqlbus#0 expect STATUS_DEVICE_BUSY
            open {SOFT} as s
            ioctl s 0x222004 in u32:0
            close s
            stop-device dirqlbus#0
            start-device dirqlbus#0
            query-remove dirqlbus#0
            cancel-remove dirqlbus#0"
        ),
    );
    assert_eq!(tree(&machine).matches("started").count(), 3);
    let report = finish(machine);
    let lines = printed(&report, "soft 1 is asked");
    assert_eq!(
        lines[..4],
        ["soft 1 is asked", "soft 1 stays", "soft 1 is asked", "soft 1 stays"],
        "{lines:?}"
    );
}

#[test]
fn a_bus_driver_that_waits_finds_its_new_child_started() {
    let machine = plugged(&[]);
    // Nothing comes between: no time passes after the bus driver's request has ended.
    play(
        &machine,
        "open \\\\.\\DirqlBus0 as b\nioctl b 0x222020 in u32:0\nioctl b 0x22200c out 4 expect u32:1\nclose b",
    );
    assert_eq!(tree(&machine).matches("started").count(), 2, "{}", tree(&machine));
    finish(machine);
}

#[test]
fn a_child_that_was_removed_is_enabled_again_with_a_driver_and_without() {
    let machine = plugged(&[plug(0), plug(1), plug(2 + RAW)]);
    for child in ["child#0", "raw#0"] {
        play(
            &machine,
            &format!(
                "remove-device {child}\nstart-device {child}\nstop-device {child}\nstart-device {child}"
            ),
        );
    }
    assert_eq!(tree(&machine).matches("started; drivers").count(), 4, "{}", tree(&machine));
    finish(machine);
}

/// Holds: irps/open-files
#[test]
fn an_open_child_keeps_its_bus() {
    let machine = plugged(&[plug(0), plug(1)]);
    play(
        &machine,
        &format!(
            "open {SOFT} as s\nremove-device dirqlbus#0 expect STATUS_DEVICE_BUSY\nclose s\nremove-device dirqlbus#0"
        ),
    );
    assert!(tree(&machine).contains("without a driver; drivers: PnpManager;"), "{}", tree(&machine));
    finish(machine);
}

/// Holds: irps/remove-then-eject
#[test]
fn a_child_whose_button_is_pressed_is_removed_ejected_and_reported_no_more() {
    let machine = plugged(&[plug(0)]);
    play(&machine, &format!("open {SOFT} as s\nioctl s 0x222008\nclose s\nwait 1ms"));
    assert!(!tree(&machine).contains("child"), "{}", tree(&machine));
    let report = finish(machine);
    assert_eq!(
        printed(&report, "soft 1 is asked"),
        [
            "soft 1 is asked",
            "slot 0 is removed",
            "soft 1 is removed",
            "slot 0 is ejected",
            "slot 0 is removed for good",
            "bus 0 hears 5",
            "bus 0 hears 4",
            "bus 0 hears 1",
            "bus 0 is removed"
        ]
    );
}

#[test]
fn a_tree_sleeps_from_below_and_wakes_from_above() {
    let machine = plugged(&[plug(0), plug(HUB + 2)]);
    play(&machine, "power s3\npower s0");
    finish(machine);
}

#[test]
fn a_device_on_no_bus_goes_to_a_device_state_and_back() {
    let machine = plugged(&[plug(0), plug(RAW + 1)]);
    play(
        &machine,
        "power d3 dirqlbus#0\npower d0 dirqlbus#0\npower d2 child#0\npower d0 child#0\npower d3 raw#0\npower d0 raw#0",
    );
    finish(machine);
}

#[test]
fn what_a_bus_driver_must_not_report_stops_as_on_windows() {
    for (mistake, rule, code) in [
        (2, "null-child", 8),
        (3, "child-is-no-device", 0),
        (4, "child-is-no-device", 2),
        (5, "child-not-referenced", 5),
        (6, "duplicate-child", 1),
    ] {
        let report = on_bus(&[format!("{MISTAKE}{mistake}"), plug(0), plug(1)]);
        let verdict = report.verdict.clone().unwrap_or_else(|| panic!("{mistake}: {report}"));
        assert_eq!((verdict.rule, verdict.tier), (rule, Tier::Error), "{mistake}");
        if code != 0 {
            let bug_check = verdict.bug_check.unwrap();
            assert_eq!((bug_check.code, bug_check.parameters[0]), (0xCA, code), "{mistake}");
        }
    }
}

#[test]
fn two_buses_whose_children_have_the_same_ids_are_both_named() {
    let machine = plugged(&[plug(HUB + 2), format!("{MISTAKE}14")]);
    let unique = then(&[format!("{MISTAKE}14"), plug(3)]);
    play(&machine, &format!("open \\\\.\\DirqlBus1 as b\n{unique}close b"));
    let _ = try_play(&machine, &format!("{OPEN}\n{}", then(&[plug(3)])));
    let report = machine.finish();
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "duplicate-child", "{report}");
    let (one, other) = verdict.message.split_once("are those of").unwrap_or_else(|| panic!("{report}"));
    assert!(one.contains("relations of dirqlbus#0)") && other.contains("relations of hub#0)"), "{report}");
}

#[test]
fn a_child_that_is_reported_twice_is_told_once_and_is_one() {
    let report = on_bus(&[format!("{MISTAKE}1"), plug(0), format!("{MISTAKE}0")]);
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    assert_eq!(rules(&report), ["child-reported-twice"]);
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

#[test]
fn a_device_object_that_is_left_behind_or_used_again_is_told() {
    let report = on_bus(&[format!("{MISTAKE}7"), plug(0), unplug(0)]);
    assert!(rules(&report).contains(&"child-not-deleted"), "{report}");
    let report = on_bus(&[format!("{MISTAKE}11"), plug(0), unplug(0), plug(0)]);
    assert!(rules(&report).contains(&"child-reused"), "{report}");
}

#[test]
fn a_device_object_that_goes_too_early_is_told() {
    let report = on_bus(&[format!("{MISTAKE}8"), plug(0), unplug(0)]);
    assert!(rules(&report).contains(&"child-deleted-early"), "{report}");
}

#[test]
fn a_child_that_was_deleted_at_a_removal_must_not_be_reported_again() {
    let machine = start(bus);
    let _ = try_play(
        &machine,
        &format!("{OPEN}\n{MISTAKE}9\n{}remove-device child#0\n{AGAIN}\nwait 1ms", then(&[plug(0)])),
    );
    let report = machine.finish();
    let verdict = report.verdict.clone().unwrap_or_else(|| panic!("{report}"));
    assert_eq!((verdict.rule, verdict.bug_check.unwrap().parameters[0]), ("deleted-child", 4));
}

#[test]
fn a_bus_driver_that_does_not_answer_a_removal_is_the_verifiers() {
    let report = on_bus(&[format!("{MISTAKE}10"), plug(RAW), unplug(0)]);
    let found = report.findings.iter().find(|finding| finding.rule == "pnp-request-failed");
    assert!(matches!(found.map(|found| found.tier), Some(Tier::Verifier)), "{report}");
}

#[test]
fn a_reference_that_was_not_its_own_takes_a_child_out_of_the_tree() {
    let report = on_bus(&[format!("{MISTAKE}12"), plug(RAW), unplug(0)]);
    let verdict = report.verdict.clone().unwrap_or_else(|| panic!("{report}"));
    assert_eq!(
        (verdict.rule, verdict.bug_check.unwrap().parameters[0]),
        ("child-not-referenced", 5),
        "{report}"
    );
}

/// Plugs, pulls out, opens and removes while requests are under way.
const STORY: &str = r"open \\.\DirqlBus0 as b
    ioctl b 0x222000 in u32:0
    ioctl b 0x222000 in u32:0x202
    t: ioctl b 0x222004 in u32:0 expect success
    u: ioctl b 0x222000 in u32:1
    ioctl b 0x222004 in u32:2
    join t; join u
    ioctl b 0x222010
    close b";

#[test]
fn children_come_and_go_at_any_moment_in_random_schedules() {
    for seed in rig::seeds(12) {
        let machine = start(|| bus().processors(2).policy(Policy::random(seed)));
        let _ = try_play(&machine, STORY);
        let report = machine.finish();
        assert_eq!(report.outcome(), Outcome::Clean, "seed {seed}: {report}");
        assert!(report.findings.is_empty(), "seed {seed}: {report}");
        assert_eq!(report.sums.still_allocated(), 0, "seed {seed}: {report}");
    }
}

#[test]
fn children_come_and_go_at_any_moment_in_schedules_with_two_preemptions() {
    let bounds = Bounds { schedules: rig::wanted("DIRQL_SCHEDULES", 30), ..Bounds::default() };
    let play = ScriptText::typed(STORY).play().unwrap();
    let accused = |report: &Report| report.outcome() != Outcome::Clean || !report.findings.is_empty();
    let searched = bus().processors(2).unobserved().search(&play, &bounds, accused).unwrap();
    let found = searched.found.map(|(choices, report)| format!("{choices:#?}\n{report}"));
    assert!(found.is_none(), "{}", found.unwrap_or_default());
}

#[test]
fn a_run_with_several_infs_and_a_tree_is_recorded_and_replayed() {
    let script = ScriptText::typed(STORY);
    for seed in 1..4 {
        let buffer = rig::Buffer::default();
        let policy = Policy::random(seed);
        let started =
            Recording::start(bus(), policy.chooser(), &policy.to_string(), Some(&script), buffer.clone());
        let (bench, recording) = started.unwrap();
        let report = bench.run(Some(script.play().unwrap())).unwrap();
        recording.finish(&report).unwrap();
        let record = Record::parse("tree", &buffer.text()).unwrap_or_else(|error| panic!("{error}"));
        let (bench, play, comparison) = record.bench(None, None, None).unwrap();
        let report = bench.run(play).unwrap();
        assert!(comparison.difference(&report).is_none(), "seed {seed}: {report}");
    }
}

/// A bus and a hub with filters above both and above each child: `layer.sys` by its service's name.
fn filtered() -> Bench {
    let filters = "HKR,,UpperFilters,0x00010000,\"TreeX\"\n";
    let with_filter = |inf: &str, section: &str| {
        rig::changed_inf("tree", inf, |text| {
            let at = format!("[{section}]\n");
            assert!(text.contains(&at), "{text}");
            text.replace(&at, &format!("[{section}.HW]\nAddReg = Above\n[Above]\n{filters}{at}"))
        })
    };
    let file = rig::folder("tree-filter").join("TreeX.sys");
    std::fs::copy(driver("layer.sys"), &file).unwrap();
    Bench::new()
        .driver(driver("busdriver.sys"))
        .inf(with_filter("busdriver.inf", "Bus"))
        .with(driver("soft.sys"))
        .inf(with_filter("soft.inf", "Soft"))
        .with(file)
}

#[test]
fn filters_above_children_are_added_and_removed_with_them() {
    let machine = start(filtered);
    play(&machine, &format!("{OPEN}\n{}close b", then(&[plug(0)])));
    let text = tree(&machine);
    assert!(text.contains("drivers: PnpManager, DirqlBus, TreeX;"), "{text}");
    assert!(text.contains("drivers: DirqlBus, DirqlSoft, TreeX;"), "{text}");
    play(&machine, &format!("{OPEN}\n{}close b", then(&[unplug(0)])));
    let report = finish(machine);
    assert_eq!(
        report.prints.iter().filter(|line| line.trim_end() == "X is removed").count(),
        2,
        "{:?}",
        report.prints
    );
}
