//! Objects of the kinds that few drivers use, as a compiled driver does it (`drivers/c/objects.c`): timers with handles, waits for several
//! handles, mutants.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use dirql::Bench;
use rig::{driver, start};

/// One story of the driver's table, with so many checks at least.
fn tell(index: u32, checks: u32) {
    let machine = start(|| Bench::new().driver(driver("objects.sys")).processors(2));
    rig::tell(machine, r"\\.\DirqlObjects", 0x0022_2000 + 4 * index, checks, &format!("story {index}"));
}

#[test]
fn a_timer_with_a_handle_is_set_cancelled_and_waited_for_by_its_name_too() {
    tell(0, 19);
}

#[test]
fn any_or_all_of_several_handles_are_waited_for() {
    tell(1, 20);
}

#[test]
fn a_mutant_has_an_owner_that_goes_on_to_get_procedure_calls() {
    tell(2, 9);
}

#[test]
fn what_is_initialized_once_is_waited_for_by_the_others() {
    tell(3, 7);
}
