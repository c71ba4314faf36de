//! Stories of kernel services that a compiled driver tells and checks itself (`drivers/c/services`): each test is one
//! control code, which must find nothing that differs from the documentation, and must leave a clean report.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use dirql::{Bench, Report};
use rig::{driver, start};

/// How many stories the driver's table has.
const STORIES: u32 = 35;

/// Carries out one story of the driver's table; at least `checks` of its checks must have been made, all with success.
fn tell(index: u32, checks: u32) -> Report {
    let machine = start(|| Bench::new().driver(driver("services.sys")));
    rig::tell(machine, r"\\.\DirqlServices", 0x0022_2000 + 4 * index, checks, &format!("story {index}"))
}

#[test]
fn an_event_stays_set_or_lets_one_wait_through() {
    tell(0, 20);
}

#[test]
fn a_semaphore_lets_as_many_through_as_it_counts() {
    tell(1, 8);
}

#[test]
fn a_mutex_belongs_to_one_thread_as_often_as_it_takes_it() {
    tell(2, 12);
}

#[test]
fn a_timer_is_set_once_cancelled_once_and_periodic_if_asked() {
    tell(3, 19);
}

#[test]
fn a_wait_for_several_takes_any_or_all_of_them() {
    tell(4, 10);
}

#[test]
fn a_system_thread_runs_beside_the_request_until_it_ends_itself() {
    tell(5, 17);
}

#[test]
fn a_process_is_found_by_its_number() {
    tell(6, 5);
}

#[test]
fn a_dpc_runs_once_at_dispatch_level_in_the_order_of_importance() {
    tell(7, 18);
}

#[test]
fn a_work_item_runs_in_a_system_thread_at_passive_level() {
    tell(8, 23);
}

#[test]
fn a_level_is_raised_and_lowered_and_read_the_same_everywhere() {
    tell(9, 8);
}

#[test]
fn a_spin_lock_is_held_at_dispatch_level_by_one() {
    tell(10, 7);
}

#[test]
fn regions_say_which_procedure_calls_they_hold_off() {
    tell(11, 6);
}

#[test]
fn a_fast_or_guarded_mutex_is_refused_to_a_second_thread() {
    tell(12, 11);
}

#[test]
fn a_resource_is_shared_or_had_alone() {
    tell(13, 26);
}

#[test]
fn every_kind_of_pool_gives_memory_as_documented() {
    tell(14, 9);
}

#[test]
fn a_lookaside_list_gives_entries_and_keeps_what_is_freed() {
    tell(15, 13);
}

#[test]
fn interlocked_lists_answer_with_the_neighbour() {
    tell(16, 18);
}

#[test]
fn a_sequenced_list_is_a_stack_that_knows_its_depth() {
    tell(17, 10);
}

#[test]
fn a_bit_map_finds_runs_of_bits() {
    tell(18, 13);
}

#[test]
fn bytes_are_copied_moved_filled_and_compared() {
    tell(19, 9);
}

#[test]
fn every_clock_counts_the_same_time() {
    tell(20, 11);
}

#[test]
fn a_time_is_a_date_and_back() {
    tell(21, 8);
}

#[test]
fn processors_are_counted_numbered_and_chosen() {
    tell(22, 17);
}

#[test]
fn every_question_for_the_version_has_the_same_answer() {
    tell(23, 11);
}

#[test]
fn random_numbers_follow_from_the_seed() {
    tell(24, 4);
}

#[test]
fn the_debugger_is_told_what_the_filter_lets_through() {
    let report = tell(25, 12);
    assert_eq!(report.prints, ["services: told 1", "in a list 2", "services: in a list 2"]);
}

#[test]
fn counted_strings_are_made_compared_and_appended() {
    tell(26, 26);
}

#[test]
fn strings_cross_from_ansi_to_unicode_and_back() {
    tell(27, 17);
}

#[test]
fn integers_are_written_and_read_in_any_base() {
    tell(28, 11);
}

#[test]
fn a_guid_is_text_and_back() {
    tell(29, 7);
}

#[test]
fn the_c_library_works_on_both_kinds_of_character() {
    tell(30, 25);
}

#[test]
fn every_printf_counts_cuts_and_ends_as_documented() {
    tell(31, 20);
}

#[test]
fn pages_are_described_locked_mapped_and_found_together() {
    tell(32, 22);
}

#[test]
fn who_yields_lets_others_go_first_and_is_told_when_something_waits() {
    tell(33, 4);
}

#[test]
fn a_routine_that_ends_in_ret_0_returns_to_whoever_called_it() {
    tell(34, 10);
}

#[test]
fn every_story_holds_on_two_four_and_sixty_four_processors() {
    for processors in [2, 4, 64] {
        let machine = start(|| Bench::new().driver(driver("services.sys")).processors(processors));
        let file = machine.open(r"\\.\DirqlServices").unwrap();
        // Story 7 names a processor that a machine with fewer than 64 has not.
        for index in (0..STORIES).filter(|index| processors < 64 || *index != 7) {
            let told = file.device_control(0x0022_2000 + 4 * index, &[], 8).unwrap();
            let prints = machine.prints().join("\n  ");
            assert_eq!(told[..4], [0; 4], "story {index} on {processors} processors:\n  {prints}");
        }
        file.close().unwrap();
        machine.finish().expect_clean();
    }
}

#[test]
fn a_story_that_is_not_in_the_table_is_refused() {
    let machine = start(|| Bench::new().driver(driver("services.sys")));
    let file = machine.open(r"\\.\DirqlServices").unwrap();
    assert!(file.device_control(0x0022_2000 + 4 * STORIES, &[], 8).is_err());
    machine.finish().expect_clean();
}
