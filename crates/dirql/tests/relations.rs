//! Devices that name others: who is asked and removed with whom, in which order, what goes when a device is ejected, and what must be on before a
//! device is. The children are those of `drivers/c/busdriver.c`, driven by `drivers/c/soft.c`, which print the requests that they get.

use dirql::{Machine, Outcome, Report};
use kernel::verdict::Tier;

use super::rig::{bus, finish, play, printed, rules, start, try_play};

const OPEN: &str = r"open \\.\DirqlBus0 as b";

/// `DEVICE_RELATION_TYPE`.
const EJECTION: u32 = 1;
const POWER: u32 = 2;
const REMOVAL: u32 = 3;

/// A hub, and a box that stays in its slot.
const HUB: u32 = 0x200;
const BOX: u32 = 0x500;

/// A command for the driver of the device in a slot, or below a hub in slot 2.
fn on(slot: u32, command: &str) -> String {
    let child = format!(r"\\?\DIRQLBUS#Child#4&e9672841&0&{slot}#{{5a0f7b52-3c1e-4b6f-9e57-0d1b8a2c4e61}}");
    format!("open {child} as s\nioctl s {command}\nclose s\nwait 1ms\n")
}

/// The driver of the device in a slot names its device with this number.
fn names(slot: u32, kind: u32, number: u32) -> String {
    on(slot, &format!("0x22200c in u32:{kind} + u32:{number}"))
}

/// The driver refuses, or makes mistakes.
fn manners(slot: u32, bits: u32) -> String {
    on(slot, &format!("0x222004 in u32:{bits}"))
}

/// The bus driver has the device in one slot name that in another; `how` is 1 for the right way.
fn bus_names(slot: u32, kind: u32, other: u32, how: u32) -> String {
    let what = slot + (other << 8) + (kind << 16) + (how << 24);
    format!("{OPEN}\nioctl b 0x22201c in u32:{what}\nclose b\n")
}

/// A machine whose bus has these children.
fn plugged(children: &[u32]) -> Machine {
    let machine = start(bus);
    let plugs: String =
        children.iter().map(|what| format!("ioctl b 0x222000 in u32:{what}\nwait 1ms\n")).collect();
    play(&machine, &format!("{OPEN}\n{plugs}close b"));
    machine
}

/// As [`plugged`], and what came of a script.
fn run(children: &[u32], script: &str) -> Report {
    let machine = plugged(children);
    let _ = try_play(&machine, script);
    machine.finish()
}

fn clean(children: &[u32], script: &str) -> Report {
    let machine = plugged(children);
    play(&machine, script);
    finish(machine)
}

/// The lines from `from` on, as many as are expected.
fn expect(report: &Report, from: &str, lines: &[&str]) {
    let printed = printed(report, from);
    assert_eq!(printed[..lines.len().min(printed.len())], *lines, "{report}");
}

/// Holds: irps/removal-relations
/// Not: related-is-child, related-is-no-device, related-not-referenced
#[test]
fn removal_relations_are_asked_and_removed_before_the_device_whose_driver_names_them() {
    let report = clean(&[0, 1], &format!("{}remove-device child#0", names(0, REMOVAL, 2)));
    expect(
        &report,
        "soft 1 names soft 2",
        &[
            "soft 1 names soft 2",
            "soft 2 is asked",
            "soft 1 is asked",
            "slot 1 is removed",
            "soft 2 is removed",
            "slot 0 is removed",
            "soft 1 is removed",
        ],
    );
}

/// Holds: irps/relation-refuses
#[test]
fn a_removal_relation_that_refuses_keeps_the_device_that_names_it() {
    let script = format!(
        "{}{}remove-device child#0 expect STATUS_DEVICE_BUSY\ntree",
        names(0, REMOVAL, 2),
        manners(1, 1)
    );
    let machine = plugged(&[0, 1]);
    play(&machine, &format!("{script}\n{}", manners(1, 0)));
    assert_eq!(machine.tree().unwrap().join("\n").matches("started").count(), 3);
    let report = finish(machine);
    expect(&report, "soft 1 names soft 2", &["soft 1 names soft 2", "soft 2 is asked", "soft 2 stays"]);
}

/// Holds: irps/relation-refuses, irps/refused
#[test]
fn a_device_that_refuses_keeps_its_removal_relations() {
    let script = format!(
        "{}{}remove-device child#0 expect STATUS_DEVICE_BUSY\n{}",
        names(0, REMOVAL, 2),
        manners(0, 1),
        manners(0, 0)
    );
    let report = clean(&[0, 1], &script);
    expect(
        &report,
        "soft 1 names soft 2",
        &["soft 1 names soft 2", "soft 2 is asked", "soft 1 is asked", "soft 1 stays", "soft 2 stays"],
    );
}

#[test]
fn a_removal_that_was_agreed_to_is_taken_back_for_all_and_whoever_asks_for_it() {
    for device in ["child#0", "child#1"] {
        let machine = plugged(&[0, 1]);
        play(&machine, &format!("{}query-remove child#0\ncancel-remove {device}", names(0, REMOVAL, 2)));
        assert_eq!(machine.tree().unwrap().join("\n").matches("started").count(), 3);
        let report = finish(machine);
        expect(
            &report,
            "soft 1 names soft 2",
            &["soft 1 names soft 2", "soft 2 is asked", "soft 1 is asked", "soft 1 stays", "soft 2 stays"],
        );
    }
}

#[test]
fn devices_that_name_each_other_are_removed_together_once() {
    let script = format!("{}{}remove-device child#0\ntree", names(0, REMOVAL, 2), names(1, REMOVAL, 1));
    let report = clean(&[0, 1], &script);
    let lines = printed(&report, "soft 2 is asked");
    assert_eq!(lines.iter().filter(|line| *line == "soft 2 is removed").count(), 1, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| *line == "soft 1 is removed").count(), 1, "{lines:?}");
}

/// Holds: irps/removal-relations, irps/children-first
#[test]
fn the_children_of_a_removal_relation_go_before_it_even_if_one_of_them_names_it() {
    // The child in slot 0 names the hub, below which another child names the first one.
    let script = format!(
        "open \\\\.\\DirqlBus1 as b\nioctl b 0x222000 in u32:3\nwait 1ms\nclose b\n{}remove-device child#0\ntree",
        bus_names(0, REMOVAL, 2, 1)
    );
    let report = clean(&[0, HUB + 2], &script);
    expect(
        &report,
        "soft 2 is asked",
        &[
            "soft 2 is asked",
            "bus 1 hears 1",
            "soft 1 is asked",
            "slot 3 is removed",
            "soft 2 is removed",
            "bus 1 is removed",
            "slot 2 is removed",
            "slot 0 is removed",
            "soft 1 is removed",
        ],
    );
}

/// Holds: irps/surprise-relations
#[test]
fn what_is_pulled_out_takes_its_removal_relations_along() {
    let machine = plugged(&[0, 1]);
    play(&machine, &names(0, REMOVAL, 2));
    play(&machine, &format!("{OPEN}\nioctl b 0x222004 in u32:0\nwait 1ms\nclose b"));
    let text = machine.tree().unwrap().join("\n");
    assert!(!text.contains("child#0") && text.contains("child#1"), "{text}");
    assert!(text.contains("without a driver"), "it is there, and its drivers are not: {text}");
    let report = finish(machine);
    let lines = printed(&report, "soft 1 names soft 2");
    let at = |wanted: &str| lines.iter().position(|line| line == wanted).unwrap();
    let order = ["soft 2 is gone", "soft 1 is gone", "soft 2 is removed", "soft 1 is removed"];
    assert!(order.map(at).is_sorted(), "{lines:?}");
}

/// Holds: irps/ejection-relations, irps/remove-then-eject, irps/held-for-eject
#[test]
fn an_ejected_device_takes_its_ejection_relations_along_which_are_removed_and_not_ejected() {
    let machine = plugged(&[0, 1]);
    play(&machine, &format!("{}eject-device child#0\nwait 1ms", bus_names(0, EJECTION, 1, 1)));
    let text = machine.tree().unwrap().join("\n");
    assert!(!text.contains("child#0"), "{text}");
    assert!(
        text.contains("problem 47 (CM_PROB_HELD_FOR_EJECT)"),
        "the other one is still in its slot: {text}"
    );
    let report = finish(machine);
    expect(
        &report,
        "soft 2 is asked",
        &[
            "soft 2 is asked",
            "soft 1 is asked",
            "slot 1 is removed",
            "soft 2 is removed",
            "slot 0 is removed",
            "soft 1 is removed",
            "slot 0 is ejected",
            "slot 0 is removed for good",
        ],
    );
}

/// Holds: irps/ejection-relations
#[test]
fn an_ejection_relation_that_refuses_keeps_the_device() {
    let script = format!(
        "{}{}eject-device child#0 expect STATUS_DEVICE_BUSY\n{}",
        bus_names(0, EJECTION, 1, 1),
        manners(1, 1),
        manners(1, 0)
    );
    let report = clean(&[0, 1], &script);
    expect(&report, "soft 2 is asked", &["soft 2 is asked", "soft 2 stays"]);
    assert!(!report.prints.iter().any(|line| line.contains("ejected")), "{report}");
}

/// Holds: irps/ejection-only
#[test]
fn ejection_relations_stay_when_the_device_is_only_removed() {
    let machine = plugged(&[0, 1]);
    play(&machine, &format!("{}remove-device child#0", bus_names(0, EJECTION, 1, 1)));
    assert_eq!(
        machine.tree().unwrap().join("\n").matches("started").count(),
        2,
        "the bus and the other child"
    );
    finish(machine);
}

/// Holds: irps/held-for-eject
#[test]
fn a_device_that_stays_in_its_slot_is_held_for_its_ejection() {
    let machine = plugged(&[BOX]);
    play(&machine, "eject-device child#0\nwait 1ms");
    let text = machine.tree().unwrap().join("\n");
    assert!(
        text.contains("without a driver") && text.contains("problem 47 (CM_PROB_HELD_FOR_EJECT)"),
        "{text}"
    );
    finish(machine);
}

/// Holds: irps/locked
#[test]
fn a_locked_device_is_not_ejected_until_it_is_unlocked() {
    let machine = plugged(&[0]);
    play(&machine, "lock-device child#0\neject-device child#0 expect STATUS_DEVICE_BUSY");
    assert!(machine.tree().unwrap().join("\n").contains("locked"));
    play(&machine, "unlock-device child#0\neject-device child#0\nwait 1ms");
    assert!(!machine.tree().unwrap().join("\n").contains("child"));
    // A bus driver that says nothing of locks is not asked.
    play(&machine, "lock-device dirqlbus#0 expect STATUS_NOT_SUPPORTED");
    let report = finish(machine);
    expect(&report, "slot 0 is locked", &["slot 0 is locked", "slot 0 is unlocked", "soft 1 is asked"]);
}

/// Holds: irps/no-opens
#[test]
fn a_device_that_has_agreed_to_be_removed_is_not_opened_any_more() {
    let child = r"\\?\DIRQLBUS#Child#4&e9672841&0&0#{5a0f7b52-3c1e-4b6f-9e57-0d1b8a2c4e61}";
    let script = format!(
        "query-remove child#0\nopen {child} as s expect STATUS_NO_SUCH_DEVICE\ncancel-remove child#0\n{}",
        on(0, "0x222004 in u32:0")
    );
    clean(&[0], &script);
}

/// Holds: irps/sleep-from-below
#[test]
fn a_tree_is_sent_to_sleep_from_below_and_waked_from_above() {
    let plug = r"open \\.\DirqlBus1 as b; ioctl b 0x222000 in u32:3; wait 1ms; close b";
    let report = clean(&[HUB + 2], &format!("{plug}\npower s3\npower s0"));
    expect(
        &report,
        "soft 1 goes to S3",
        &[
            "soft 1 goes to S3",
            "bus 1 goes to S3",
            "bus 0 goes to S3",
            "bus 0 goes to S0",
            "bus 1 goes to S0",
            "soft 1 goes to S0",
        ],
    );
}

/// Holds: irps/power-relations
#[test]
fn the_system_wakes_what_a_device_needs_before_it_and_sends_it_to_sleep_after_it() {
    let plain = clean(&[0, 1], "power s3\npower s0");
    let order = |report: &Report| {
        let mut lines = printed(report, "soft 2 goes to S3");
        lines.retain(|line| line.starts_with("soft") && line.contains("goes to"));
        lines
    };
    assert_eq!(
        order(&plain),
        ["soft 2 goes to S3", "soft 1 goes to S3", "soft 1 goes to S0", "soft 2 goes to S0"]
    );
    let related = clean(&[0, 1], &format!("{}power s3\npower s0", names(0, POWER, 2)));
    let before = printed(&related, "soft 1 goes to S3");
    assert!(before.contains(&"soft 2 goes to S3".to_owned()), "{before:?}");
    assert_eq!(order(&related), ["soft 2 goes to S3", "soft 2 goes to S0", "soft 1 goes to S0"]);
    // A device that is gone has no power relations any more, in either direction.
    let gone = format!("{}surprise-remove child#1\npower s3\npower s0", names(0, POWER, 2));
    clean(&[0, 1], &gone);
}

#[test]
fn what_a_driver_must_not_name_stops_as_on_windows() {
    let removed = "remove-device child#0 expect any";
    let function = format!("{}{}{removed}", names(0, REMOVAL, 2), manners(0, 0x80));
    let bare = format!("{}{}{removed}", names(0, REMOVAL, 2), manners(0, 0x40));
    let by_bus = |how| format!("{}{removed}", bus_names(0, REMOVAL, 1, how));
    for (script, rule, parameter) in [
        (function, "related-is-no-device", 2),
        (bare, "related-not-referenced", 5),
        (by_bus(2), "related-not-referenced", 5),
        (by_bus(3), "related-is-no-device", 2),
    ] {
        let report = run(&[0, 1], &script);
        let verdict = report.verdict.clone().unwrap_or_else(|| panic!("{rule}: {report}"));
        assert_eq!((verdict.rule, verdict.tier), (rule, Tier::Error), "{report}");
        let bug_check = verdict.bug_check.unwrap();
        assert_eq!((bug_check.code, bug_check.parameters[0]), (0xCA, parameter), "{report}");
    }
}

#[test]
fn a_bus_that_names_its_own_child_is_told_and_removed_all_the_same() {
    let report = run(&[0], &format!("{OPEN}\nioctl b 0x222008 in u32:13\nclose b\nremove-device dirqlbus#0"));
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    assert_eq!(rules(&report), ["related-is-child"], "{report}");
    expect(
        &report,
        "soft 1 is asked",
        &["soft 1 is asked", "bus 0 hears 1", "slot 0 is removed", "soft 1 is removed"],
    );
}

/// Not: related-is-child
#[test]
fn a_device_that_names_itself_says_nothing() {
    let report = clean(&[0], &format!("{}remove-device child#0", bus_names(0, REMOVAL, 0, 1)));
    assert!(rules(&report).is_empty(), "{report}");
}

#[test]
fn a_list_that_comes_with_a_failure_is_lost_with_it() {
    let report = run(&[0, 1], &format!("{}remove-device child#0", bus_names(0, REMOVAL, 1, 4)));
    assert_eq!(rules(&report), ["pool-leak"], "{report}");
}
