//! Devices that a driver finds by itself (`drivers/c/detect.c`): reported with the resources by which it has found them, or on no bus.

use dirql::Bench;

use super::rig::{self, driver, finish, start};

fn bench() -> Bench {
    let edu = Bench::new().driver(driver("edu.sys")).inf(driver("edu.inf")).device("edu");
    edu.with(driver("detect.sys")).inf(driver("detect.inf"))
}

/// One story of the driver's table, with so many checks at least.
fn tell(story: &str, checks: u32) {
    let machine = start(bench);
    rig::tell(machine, r"\\.\DirqlDetect", story, checks, "");
}

#[test]
fn a_driver_reports_a_device_that_it_has_found_and_has_its_resources() {
    tell("Reported", 8);
}

#[test]
fn what_a_detected_device_has_nobody_else_gets() {
    tell("Claimed", 6);
}

#[test]
fn a_driver_reports_a_device_on_no_bus_and_gets_it_like_any_other() {
    tell("AddedOnce", 3);
}

#[test]
fn what_a_driver_has_reported_hangs_on_the_root_and_is_removed_at_the_end() {
    let machine = start(bench);
    let text = machine.tree().unwrap().join("\n");
    let detected = "ROOT\\DETECT\\0000\n    started; drivers: PnpManager, detect; resources: none";
    assert!(text.contains(detected), "{text}");
    assert!(
        text.contains("ROOT\\DETECT\\0003\n    started; drivers: PnpManager, detect"),
        "the device on no bus: {text}"
    );
    let report = finish(machine);
    let removed = report.prints.iter().filter(|line| line.trim_end().ends_with("is removed")).count();
    assert_eq!(removed, 4, "{:?}", report.prints);
    let started = report.prints.iter().filter(|line| line.trim_end().ends_with("is started")).count();
    assert_eq!(started, 2, "the device on no bus alone, and again behind its stop: {:?}", report.prints);
}
