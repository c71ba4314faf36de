//! Objects of the kinds that few drivers use, as a compiled driver does it (`drivers/c/objects.c`): timers with handles, waits for several
//! handles, mutants.

use dirql::Bench;

use super::rig::{self, driver, start};

/// One story of the driver's table, with so many checks at least.
fn tell(story: &str, checks: u32) {
    let machine = start(|| Bench::new().driver(driver("objects.sys")).processors(2));
    rig::tell(machine, r"\\.\DirqlObjects", story, checks, "");
}

#[test]
fn a_timer_with_a_handle_is_set_cancelled_and_waited_for_by_its_name_too() {
    tell("TimersHaveHandles", 19);
}

#[test]
fn any_or_all_of_several_handles_are_waited_for() {
    tell("SeveralHandlesAreWaitedFor", 20);
}

#[test]
fn a_mutant_has_an_owner_that_goes_on_to_get_procedure_calls() {
    tell("MutantsHaveOwners", 9);
}

#[test]
fn what_is_initialized_once_is_waited_for_by_the_others() {
    tell("OneInitializesForAll", 7);
}

#[test]
fn a_process_tells_of_itself_by_its_object_and_by_its_handle() {
    tell("ProcessesTellOfThemselves", 19);
}

#[test]
fn a_thread_has_its_priority_set_by_its_handle_and_remembers_its_activity() {
    tell("ThreadsAreChanged", 13);
}

#[test]
fn a_token_is_opened_by_the_handle_of_a_process_or_of_a_thread_that_acts_for_another() {
    tell("TokensHaveHandles", 14);
}

#[test]
fn memory_that_may_not_be_there_is_copied_and_what_is_there_found_by_its_physical_address() {
    tell("MemoryIsCopiedSafely", 18);
}

#[test]
fn a_resource_of_an_image_is_found_by_type_name_and_language() {
    tell("ResourcesAreFound", 10);
}

#[test]
fn a_routine_of_a_drivers_is_found_by_its_modules_name() {
    tell("RoutinesOfModules", 5);
}

#[test]
fn checks_are_made_for_drivers_and_the_screen_is_theirs_once_they_have_taken_it() {
    let machine = start(|| Bench::new().driver(driver("objects.sys")).processors(2));
    let file = machine.open(r"\\.\DirqlObjects").unwrap();
    let answer = file.device_control(rig::TELL_STORY, b"ChecksAreMade", 8);
    let prints = machine.prints();
    let Ok(answer) = answer else { panic!("{}", machine.finish()) };
    assert_eq!(answer[..4], [0; 4], "{prints:?}");
    let shown = |text: &str| prints.iter().any(|line| line == text);
    assert!(shown("objects: on the screen") && !shown("objects: not on the screen"), "{prints:?}");
    file.close().unwrap();
    machine.finish().expect_clean();
}

#[test]
fn a_table_of_prefixes_that_leads_in_a_circle_is_a_loop_without_end() {
    let machine = start(|| Bench::new().driver(driver("objects.sys")));
    let _ = rig::try_play(
        &machine,
        r"open \\.\DirqlObjects as o; ioctl o 0x223ff8 in text:PrefixesInACircle out 8",
    );
    let report = machine.finish();
    assert_eq!(report.expect_verdict().rule, "endless-loop", "{report}");
}
