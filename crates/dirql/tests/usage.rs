//! Paging, hibernation and crash dump files on devices, what devices say of their state, and the problem codes of those that do not run. The
//! devices are children of `drivers/c/busdriver.c`, driven by `drivers/c/soft.c`.

use dirql::{Machine, Outcome, Report};

use super::rig::{self, bus, finish, play, rules, start, try_play};

const OPEN: &str = r"open \\.\DirqlBus0 as b";
const HUB: u32 = 0x200;
const RAW: u32 = 0x100;
const DISABLED: u32 = 0x400;
const BOX: u32 = 0x500;

/// A command for the driver of the device in a slot of the first bus.
fn on(slot: u32, command: &str) -> String {
    let child = format!(r"\\?\DIRQLBUS#Child#4&e9672841&0&{slot}#{{5a0f7b52-3c1e-4b6f-9e57-0d1b8a2c4e61}}");
    format!("open {child} as s\nioctl s {command}\nclose s\nwait 1ms\n")
}

/// The driver refuses, or makes mistakes.
fn manners(slot: u32, bits: u32) -> String {
    on(slot, &format!("0x222004 in u32:{bits}"))
}

/// How many paging, hibernation and dump files the driver counts, and whether its device has `DO_POWER_PAGABLE`.
fn counts(slot: u32, paging: u32, hibernation: u32, dump: u32, pagable: bool) -> String {
    let flag = if pagable { 0x2000 } else { 0 };
    on(slot, &format!("0x222018 out 16 expect u32:{paging} + u32:{hibernation} + u32:{dump} + u32:{flag}"))
}

fn plug(what: u32) -> String {
    format!("{OPEN}\nioctl b 0x222000 in u32:{what}\nclose b\nwait 1ms\n")
}

/// A machine whose bus has these children.
fn plugged(children: &[u32]) -> Machine {
    let machine = start(bus);
    children.iter().for_each(|what| play(&machine, &plug(*what)));
    machine
}

fn run(children: &[u32], script: &str) -> Report {
    let machine = plugged(children);
    play(&machine, script);
    machine.finish()
}

fn tree(machine: &Machine) -> String {
    machine.tree().unwrap().join("\n")
}

/// Holds: irps/usage-stays, irps/usage-pagable, irps/usage-state, irps/not-disableable
/// Not: usage-end-failed, usage-not-heeded, usage-power-pagable
#[test]
fn a_device_with_a_paging_file_stays_until_it_is_gone_and_so_does_its_bus() {
    let machine = plugged(&[0]);
    play(
        &machine,
        &format!(
            "{}usage child#0 paging on\nusage child#0 dump on\nwait 1ms\n{}",
            counts(0, 0, 0, 0, true),
            counts(0, 1, 0, 1, false)
        ),
    );
    let text = tree(&machine);
    assert!(text.contains("cannot be disabled (1), has 1 paging file, has 1 crash dump file"), "{text}");
    assert_eq!(text.matches("cannot be disabled (1)").count(), 2, "the bus because of its child: {text}");
    play(
        &machine,
        &format!(
            "remove-device child#0 expect STATUS_INVALID_DEVICE_REQUEST
            remove-device dirqlbus#0 expect STATUS_INVALID_DEVICE_REQUEST
            stop-device child#0 expect STATUS_DEVICE_BUSY
            stop-device dirqlbus#0 expect STATUS_DEVICE_BUSY
            eject-device child#0 expect STATUS_INVALID_DEVICE_REQUEST
            usage child#0 paging off
            {}usage child#0 dump off
            usage child#0 dump off expect STATUS_INVALID_DEVICE_STATE
            wait 1ms
            {}stop-device child#0
            start-device child#0
            remove-device dirqlbus#0",
            counts(0, 0, 0, 1, false),
            counts(0, 0, 0, 0, true)
        ),
    );
    finish(machine);
}

/// Holds: irps/usage-asked
#[test]
fn a_driver_that_cannot_have_a_paging_file_refuses_and_nobody_counts_it() {
    let machine = plugged(&[0]);
    play(
        &machine,
        &format!(
            "{}usage child#0 paging on expect STATUS_UNSUCCESSFUL\nusage child#0 paging off expect STATUS_INVALID_DEVICE_STATE\n{}",
            manners(0, 4),
            counts(0, 0, 0, 0, true)
        ),
    );
    assert!(!tree(&machine).contains("cannot be disabled"));
    play(&machine, "remove-device dirqlbus#0");
    finish(machine);
}

/// Holds: irps/usage-to-the-bus
#[test]
fn a_bus_driver_asks_its_bus_for_each_of_its_children() {
    // The raw child has no other driver; below the hub the question goes up two buses.
    let machine = plugged(&[RAW, HUB + 2]);
    play(&machine, &plug(3).replace("DirqlBus0", "DirqlBus1"));
    play(
        &machine,
        "usage raw#0 hibernation on\nstop-device dirqlbus#0 expect STATUS_DEVICE_BUSY\nusage raw#0 hibernation off\nwait 1ms",
    );
    play(
        &machine,
        "usage child#0 paging on\nwait 1ms\nstop-device hub#0 expect STATUS_DEVICE_BUSY\nstop-device dirqlbus#0 expect STATUS_DEVICE_BUSY",
    );
    assert_eq!(tree(&machine).matches("cannot be disabled (1)").count(), 3, "{}", tree(&machine));
    play(&machine, "usage child#0 paging off\nwait 1ms\nstop-device dirqlbus#0\nstart-device dirqlbus#0");
    finish(machine);
}

#[test]
fn a_run_that_ends_with_a_paging_file_ends_clean() {
    let report = run(
        &[0, 1],
        "usage child#0 paging on\nusage child#1 paging on\nusage child#1 hibernation on\nwait 1ms",
    );
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

#[test]
fn a_device_with_a_paging_file_can_be_pulled_out() {
    let report = run(
        &[0],
        &format!(
            "usage child#0 paging on\nwait 1ms\n{OPEN}\nioctl b 0x222004 in u32:0\nwait 1ms\nclose b\nremove-device dirqlbus#0"
        ),
    );
    report.expect_clean();
}

#[test]
fn special_files_that_go_with_a_device_below_a_hub_are_taken_back_from_all_above() {
    let machine = plugged(&[HUB]);
    play(&machine, &plug(1).replace("DirqlBus0", "DirqlBus1"));
    play(
        &machine,
        "usage child#0 dump on\nusage child#0 paging on\nwait 1ms\nstop-device dirqlbus#0 expect STATUS_DEVICE_BUSY",
    );
    play(&machine, "surprise-remove child#0\nwait 1ms\nstop-device dirqlbus#0\nstart-device dirqlbus#0");
    finish(machine);
}

/// Holds: irps/usage-end, irps/usage-stays, irps/usage-pagable
#[test]
fn what_a_driver_must_do_about_a_special_file_is_told() {
    for (bits, script, rule) in [
        (0x08, "usage child#0 paging on", "usage-power-pagable"),
        (
            0x10,
            "usage child#0 paging on\nwait 1ms\nquery-stop child#0\ncancel-stop child#0",
            "usage-not-heeded",
        ),
        (0x20, "usage child#0 paging on\nusage child#0 paging off expect failure", "usage-end-failed"),
    ] {
        let report = run(&[0], &format!("{}{script}", manners(0, bits)));
        assert_eq!(report.outcome(), Outcome::Clean, "{report}");
        assert_eq!(rules(&report), [rule], "{report}");
    }
}

#[test]
fn what_a_device_says_of_its_state_is_shown() {
    let machine = plugged(&[0, BOX + 1]);
    play(&machine, &on(0, "0x222010 in u32:0x42"));
    let text = tree(&machine);
    assert!(text.contains("not displayed, not connected"), "{text}");
    assert!(text.contains("container {D1B0C0DE-0005-4000-8000-000000000001}"), "{text}");
    play(&machine, &on(0, "0x222010 in u32:0"));
    assert!(!tree(&machine).contains("not connected"));
    // DevicePropertyContainerID: the bus driver's, none of a removable device whose bus driver says nothing.
    let own = "utf16:\"{D1B0C0DE-0005-4000-8000-000000000001}\" + zero:2";
    play(&machine, &on(1, &format!("0x222000 in u32:22 out 100 expect {own}")));
    play(&machine, &on(0, "0x222000 in u32:22 out 100 expect STATUS_OBJECT_NAME_NOT_FOUND"));
    finish(machine);
}

/// Holds: irps/not-disableable
#[test]
fn reasons_why_a_bus_cannot_be_disabled_are_counted_by_its_children() {
    let machine = plugged(&[0, 1]);
    play(&machine, &format!("{}{}", on(0, "0x222010 in u32:0x20"), on(1, "0x222010 in u32:0x20")));
    let text = tree(&machine);
    assert!(
        text.contains("cannot be disabled (2)") && text.matches("cannot be disabled (1)").count() == 2,
        "{text}"
    );
    play(&machine, "remove-device child#0 expect STATUS_INVALID_DEVICE_REQUEST");
    play(&machine, &format!("{}remove-device child#0", on(0, "0x222010 in u32:0")));
    play(&machine, &on(1, "0x222010 in u32:0"));
    finish(machine);
}

#[test]
fn a_device_that_nobody_can_take_away_is_in_the_computers_container() {
    let soft = || dirql::Bench::new().driver(rig::driver("soft.sys")).inf(rig::driver("soft.inf"));
    let machine = start(soft);
    play(
        &machine,
        "open interface:{5A0F7B52-3C1E-4B6F-9E57-0D1B8A2C4E61} as s
        ioctl s 0x222000 in u32:22 out 100 expect utf16:\"{00000000-0000-0000-FFFF-FFFFFFFFFFFF}\" + zero:2
        close s",
    );
    finish(machine);
}

/// The problem of `child#0` after a script.
fn problem(machine: &Machine) -> String {
    let lines = machine.tree().unwrap();
    let at = lines.iter().position(|line| line.contains("child#0")).unwrap();
    lines[at..]
        .iter()
        .find(|line| line.contains("problem"))
        .map_or_else(String::new, |line| line.trim().to_owned())
}

/// Holds: irps/failed-start
#[test]
fn each_way_in_which_a_device_does_not_run_has_its_problem_code() {
    for (next, expected) in [
        (1, "problem 31 (CM_PROB_FAILED_ADD): AddDevice failed with STATUS_INSUFFICIENT_RESOURCES"),
        (2, "problem 10 (CM_PROB_FAILED_START): IRP_MN_START_DEVICE failed with STATUS_UNSUCCESSFUL"),
        (3, "problem 43 (CM_PROB_FAILED_POST_START): it answered PNP_DEVICE_FAILED"),
        (4, "problem 29 (CM_PROB_HARDWARE_DISABLED): it answered PNP_DEVICE_DISABLED"),
    ] {
        // The device in slot 7 says what the next one does.
        let machine = plugged(&[7]);
        play(&machine, &on(7, &format!("0x222014 in u32:{next}")));
        play(&machine, &plug(0));
        let lines = machine.tree().unwrap();
        let text = lines.join("\n");
        assert!(text.contains(expected), "{next}: {text}");
        assert!(text.contains("without a driver"), "{next}: {text}");
        machine.finish().expect_clean();
    }
}

/// Holds: irps/failed-device
#[test]
fn a_device_that_fails_while_it_runs_has_code_43_and_one_that_does_not_start_again_code_10() {
    let machine = plugged(&[0]);
    play(&machine, &on(0, "0x222010 in u32:4"));
    assert_eq!(problem(&machine), "problem 43 (CM_PROB_FAILED_POST_START): it answered PNP_DEVICE_FAILED");
    finish(machine);
    let machine = plugged(&[0]);
    play(&machine, &on(0, "0x222010 in u32:1"));
    assert_eq!(problem(&machine), "problem 29 (CM_PROB_HARDWARE_DISABLED): it answered PNP_DEVICE_DISABLED");
    finish(machine);
    let machine = plugged(&[0]);
    play(
        &machine,
        &format!("{}stop-device child#0\nstart-device child#0 expect STATUS_UNSUCCESSFUL", manners(0, 0x100)),
    );
    assert_eq!(
        problem(&machine),
        "problem 10 (CM_PROB_FAILED_START): IRP_MN_START_DEVICE failed with STATUS_UNSUCCESSFUL"
    );
    finish(machine);
}

/// Holds: irps/hardware-disabled
#[test]
fn a_device_whose_hardware_is_disabled_when_it_is_found_is_not_started() {
    let machine = plugged(&[DISABLED]);
    assert_eq!(problem(&machine), "problem 29 (CM_PROB_HARDWARE_DISABLED): HardwareDisabled");
    let lines = machine.prints();
    assert!(lines.iter().all(|line| !line.contains("soft 1")), "no driver was added: {lines:?}");
    let _ = try_play(&machine, "remove-device dirqlbus#0");
    finish(machine);
}
