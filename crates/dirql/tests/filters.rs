//! Drivers that filter the registry, and handles of processes and threads, as a compiled driver does it (`drivers/c/filters.c`).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use dirql::Bench;
use rig::{driver, start};

/// One story of the driver's table, with so many checks at least.
fn tell(index: u32, checks: u32) {
    let machine = start(|| Bench::new().driver(driver("filters.sys")));
    rig::tell(machine, r"\\.\DirqlFilters", 0x0022_2000 + 4 * index, checks, &format!("story {index}"));
}

#[test]
fn a_filter_of_the_registry_is_told_before_and_after_from_the_highest_altitude_down_and_back() {
    tell(0, 30);
}

#[test]
fn a_filter_of_the_registry_blocks_a_call_carries_it_out_itself_or_changes_what_comes_of_it() {
    tell(1, 17);
}

#[test]
fn a_filter_of_the_registry_associates_contexts_with_keys_and_knows_their_names() {
    tell(2, 22);
}

#[test]
fn a_filter_of_handles_takes_rights_away_when_they_are_made_or_passed_on() {
    tell(3, 25);
}

#[test]
fn a_filter_of_handles_is_refused_to_an_image_whose_signature_is_not_checked() {
    let machine = start(|| Bench::new().driver(driver("filters_unchecked.sys")));
    rig::tell(machine, r"\\.\DirqlFilters", 0x0022_2000 + 4 * 4, 1, "an image without /INTEGRITYCHECK");
}

#[test]
fn a_driver_that_unloads_while_it_filters_is_still_called() {
    for (index, who) in [(5, "ObRegisterCallbacks"), (6, "RegistryCallback")] {
        let machine = start(|| Bench::new().driver(driver("filters.sys")));
        let code = 0x0022_2000 + 4 * index;
        let _ = rig::try_play(
            &machine,
            &format!(r"open \\.\DirqlFilters as f; ioctl f {code:#x} out 8; close f"),
        );
        let report = machine.finish();
        let verdict = report.expect_verdict();
        assert_eq!(verdict.rule, "unload-still-called", "{report}");
        assert!(verdict.message.contains(who), "{report}");
    }
}
