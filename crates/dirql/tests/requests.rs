//! Stories of a driver that checks the kernel's answers itself: one for each family of routines it asks.

use dirql::Bench;

use super::rig::{driver, start};

/// Lets the driver make the checks of a family, which are so many; none may fail, and nothing be left behind.
#[track_caller]
fn holds(family: u32, checks: u32) {
    let machine = start(|| Bench::new().driver(driver("requests.sys")));
    let file = machine.open(r"\\.\DirqlRequests").unwrap();
    let answer = file.device_control(0x0022_2000 + 4 * family, &[], 16);
    let prints = machine.prints().join("\n");
    let Ok(answer) = answer else { panic!("{answer:?}\n{prints}\n{}", machine.finish()) };
    let words: Vec<u32> =
        answer.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words[1..], [0, 0, 0], "failures, first, line:\n{prints}");
    assert_eq!(words[0], checks, "a family that leaves early has not looked at everything");
    file.close().unwrap();
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

/// Not: list-cycle, device-not-attached, device-attached-twice
#[test]
fn a_filter_stands_on_a_stack_until_it_is_detached() {
    holds(0, 25);
}

#[test]
fn requests_of_the_drivers_own_come_back_as_they_were_asked_for() {
    holds(1, 85);
}

#[test]
fn queues_give_back_what_was_put_into_them_and_work_is_done_once() {
    holds(2, 56);
}

#[test]
fn memory_is_described_locked_and_mapped_page_by_page() {
    holds(3, 61);
}

#[test]
fn handles_lead_to_objects_of_their_type_only() {
    holds(4, 73);
}

#[test]
fn the_registry_keeps_what_is_written_and_tells_how_long_it_is() {
    holds(5, 59);
}

#[test]
fn the_system_keeps_extensions_links_and_share_access() {
    holds(6, 48);
}
