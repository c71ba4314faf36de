//! Stories of kernel services that a compiled driver tells and checks itself (`drivers/c/services`): each test is one
//! story, which must find nothing that differs from the documentation, and must leave a clean report.

use dirql::{Bench, Report};

use super::rig::{self, driver, start};

/// Carries out one story of the driver's table; at least `checks` of its checks must have been made, all with success.
fn tell(story: &str, checks: u32) -> Report {
    let machine = start(|| Bench::new().driver(driver("services.sys")));
    rig::tell(machine, r"\\.\DirqlServices", story, checks, "")
}

#[test]
fn an_event_stays_set_or_lets_one_wait_through() {
    tell("Events", 20);
}

#[test]
fn a_semaphore_lets_as_many_through_as_it_counts() {
    tell("Semaphores", 8);
}

#[test]
fn a_mutex_belongs_to_one_thread_as_often_as_it_takes_it() {
    tell("Mutexes", 12);
}

#[test]
fn a_timer_is_set_once_cancelled_once_and_periodic_if_asked() {
    tell("Timers", 19);
}

#[test]
fn a_wait_for_several_takes_any_or_all_of_them() {
    tell("Waits", 10);
}

#[test]
fn a_system_thread_runs_beside_the_request_until_it_ends_itself() {
    tell("Threads", 17);
}

#[test]
fn a_process_is_found_by_its_number() {
    tell("Processes", 5);
}

#[test]
fn a_dpc_runs_once_at_dispatch_level_in_the_order_of_importance() {
    tell("Dpcs", 18);
}

#[test]
fn a_work_item_runs_in_a_system_thread_at_passive_level() {
    tell("WorkItemsOfDevice", 23);
}

#[test]
fn a_level_is_raised_and_lowered_and_read_the_same_everywhere() {
    tell("Levels", 8);
}

#[test]
fn a_spin_lock_is_held_at_dispatch_level_by_one() {
    tell("SpinLocks", 7);
}

#[test]
fn regions_say_which_procedure_calls_they_hold_off() {
    tell("Regions", 6);
}

#[test]
fn a_fast_or_guarded_mutex_is_refused_to_a_second_thread() {
    tell("FastMutexes", 11);
}

#[test]
fn a_resource_is_shared_or_had_alone() {
    tell("Resources", 26);
}

#[test]
fn every_kind_of_pool_gives_memory_as_documented() {
    tell("Pool", 9);
}

#[test]
fn a_lookaside_list_gives_entries_and_keeps_what_is_freed() {
    tell("Lookaside", 13);
}

#[test]
fn interlocked_lists_answer_with_the_neighbour() {
    tell("Lists", 18);
}

#[test]
fn a_sequenced_list_is_a_stack_that_knows_its_depth() {
    tell("SequencedLists", 10);
}

#[test]
fn a_bit_map_finds_runs_of_bits() {
    tell("BitMaps", 13);
}

#[test]
fn bytes_are_copied_moved_filled_and_compared() {
    tell("Bytes", 9);
}

#[test]
fn every_clock_counts_the_same_time() {
    tell("Clocks", 11);
}

#[test]
fn a_time_is_a_date_and_back() {
    tell("Calendars", 8);
}

#[test]
fn processors_are_counted_numbered_and_chosen() {
    tell("Processors", 17);
}

#[test]
fn every_question_for_the_version_has_the_same_answer() {
    tell("Versions", 11);
}

#[test]
fn random_numbers_follow_from_the_seed() {
    tell("Randoms", 4);
}

#[test]
fn the_debugger_is_told_what_the_filter_lets_through() {
    let report = tell("Debugger", 12);
    assert_eq!(report.prints, ["services: sent 1", "in a list 2", "services: in a list 2"]);
}

#[test]
fn counted_strings_are_made_compared_and_appended() {
    tell("UnicodeStrings", 26);
}

#[test]
fn strings_cross_from_ansi_to_unicode_and_back() {
    tell("AnsiStrings", 17);
}

#[test]
fn integers_are_written_and_read_in_any_base() {
    tell("Integers", 11);
}

#[test]
fn a_guid_is_text_and_back() {
    tell("Guids", 7);
}

#[test]
fn the_c_library_works_on_both_kinds_of_character() {
    tell("CLibrary", 25);
}

#[test]
fn every_printf_counts_cuts_and_ends_as_documented() {
    tell("Prints", 20);
}

#[test]
fn pages_are_described_locked_mapped_and_found_together() {
    tell("Pages", 22);
}

#[test]
fn who_yields_lets_others_go_first_and_is_told_when_something_waits() {
    tell("YieldsAndShould", 4);
}

#[test]
fn a_routine_that_ends_in_ret_0_returns_to_whoever_called_it() {
    tell("ReturnsOfDevice", 10);
}

#[test]
fn a_thread_that_has_ended_has_its_object_and_its_priority_as_long_as_somebody_holds_it() {
    tell("EndedThreads", 7);
}

#[test]
fn an_affinity_with_processors_that_are_not_there_has_no_effect() {
    let report = tell("AbsentProcessors", 8);
    let findings = report.findings.iter().filter(|finding| finding.rule == "affinity-without-effect");
    assert_eq!(findings.count(), 4, "{report}");
}

#[test]
fn whether_a_dpc_runs_may_be_asked_at_passive_level() {
    let report = tell("HarmlessQuestions", 1);
    let tiers: Vec<_> = report.findings.iter().map(|finding| (finding.rule, finding.tier)).collect();
    assert_eq!(tiers, [("irql-too-low", kernel::verdict::Tier::Advice)], "{report}");
}

#[test]
fn texts_that_differ_early_are_not_read_behind_that() {
    tell("UntidyTexts", 10);
    let machine = start(|| Bench::new().driver(driver("services.sys")).checked(true));
    rig::tell(machine, r"\\.\DirqlServices", "UntidyTexts", 10, "checked");
}

#[test]
fn a_resource_that_is_made_a_shared_one_lets_in_all_who_wait_to_share_it() {
    tell("ConvertedResource", 8);
}

#[test]
fn a_wait_or_timer_centuries_away_is_for_ever() {
    tell("FarAway", 16);
}

#[test]
fn a_lock_that_was_set_by_hand_may_be_tested() {
    tell("HandMadeLocks", 3);
}

#[test]
fn a_thread_of_a_drivers_is_a_system_thread_in_whatever_process() {
    tell("SystemThreads", 8);
}

#[test]
fn a_device_queue_that_is_not_busy_is_told_when_something_is_taken_from_it() {
    let report = tell("IdleQueues", 3);
    assert!(report.findings.iter().any(|finding| finding.rule == "device-queue-not-busy"), "{report}");
}

#[test]
fn features_are_those_of_the_shared_page() {
    tell("Features", 14);
    for cpu in [engine::Cpu::X86_64V2, engine::Cpu::X86_64V3] {
        let machine = start(|| Bench::new().driver(driver("services.sys")).processor(cpu));
        rig::tell(machine, r"\\.\DirqlServices", "Features", 14, "another processor");
    }
}

/// The exports whose names say that they work on plain data, and that the driver's list does not have: they reach none.
const NO_DATA: &[&str] = &[
    "DbgBreakPoint",
    "DbgBreakPointWithStatus",
    "DbgQueryDebugFilterState",
    "DbgSetDebugFilterState",
    "RtlAssert",           // its texts are the driver's own
    "RtlCaptureContext",   // on the stack, as all that unwinds
    "RtlCheckRegistryKey", // names of the registry are the driver's own
    "RtlCreateRegistryKey",
    "RtlDeleteRegistryValue",
    "RtlDowncaseUnicodeChar",
    "RtlFreeAnsiString",
    "RtlFreeUnicodeString", // what RtlCreateUnicodeString and RtlStringFromGUID have made
    "RtlGetEnabledExtendedFeatures",
    "RtlFindMessage", // of an image
    "RtlLookupFunctionEntry",
    "RtlPcToFileHeader",
    "RtlQueryRegistryValues",
    "RtlRaiseException",
    "RtlRestoreContext",
    "RtlUnwind",
    "RtlUnwindEx",
    "RtlUpcaseUnicodeChar",
    "RtlVirtualUnwind",
    "RtlVolumeDeviceToDosName", // its string is the driver's own
    "RtlWriteRegistryValue",
    "__C_specific_handler",
    "tolower",
    "toupper",
    "towlower",
    "towupper",
];

/// Whether an export is one of the run-time library's or prints. The trace recorder's (`imp_…`) are neither.
fn is_plain(name: &str) -> bool {
    if name.starts_with("imp_") {
        return false;
    }
    let first = name.trim_start_matches("vDbg").chars().next().unwrap_or('v');
    name.starts_with("Rtl") || name.contains("Dbg") || first.is_lowercase() || first == '_'
}

/// Has the driver work on plain data in one place by each export of its list, whose names come back.
fn reach(story: &str, checked: bool) -> Vec<String> {
    let bench = || Bench::new().driver(driver("services.sys")).device("pci,id=1234:5678,bar0=mem:4K");
    let machine = start(|| bench().checked(checked));
    let file = machine.open(r"\\.\DirqlServices").unwrap();
    let answer = file.device_control(rig::TELL_STORY, story.as_bytes(), 0x1000);
    let prints = machine.prints();
    let answer = answer.unwrap_or_else(|error| panic!("{story}: {error}\n  {}", prints.join("\n  ")));
    assert_eq!(answer[..4], [0; 4], "{story}:\n  {}", prints.join("\n  "));
    file.close().unwrap();
    machine.finish().expect_clean();
    prints.iter().filter_map(|line| line.strip_prefix("reaching ")).map(str::to_owned).collect()
}

#[test]
fn every_export_of_plain_data_reaches_pool_device_windows_and_user_memory_alike() {
    for checked in [false, true] {
        let names = reach("ReachPool", checked);
        assert_eq!(reach("ReachDevice", checked), names, "a card's memory");
        assert_eq!(reach("ReachUser", checked), names, "an application's");
        let exports = kernel::exports::FUNCTIONS.iter().map(|export| export.name);
        let missing: Vec<_> = exports
            .filter(|name| is_plain(name) && !NO_DATA.contains(name) && !names.iter().any(|n| n == name))
            .collect();
        assert_eq!(missing, [""; 0], "not in the driver's list");
        assert!(names.len() > 125, "{}", names.len());
    }
}

/// Its id belongs to the object, so it is found by it until the last reference is gone.
#[test]
fn a_process_is_over_with_its_application_and_its_object_stays_as_long_as_somebody_holds_it() {
    let report = tell("HeldProcess", 2);
    assert_eq!(report.prints.last().unwrap(), "process over: 1, found: 1, same id: 1");
}

#[test]
fn a_dpc_whose_processor_number_was_overwritten_is_told_and_indexes_nothing() {
    let machine = start(|| Bench::new().driver(driver("services.sys")));
    let _ =
        rig::try_play(&machine, r"open \\.\DirqlServices as f; ioctl f 0x223ff8 in text:DamagedDpc out 8");
    let report = machine.finish();
    let verdict = report.expect_verdict();
    assert_eq!((verdict.rule, verdict.bug_check.unwrap().code), ("dpc-damaged", 0xC7), "{report}");
    assert_eq!(verdict.bug_check.unwrap().parameters[0], 3);
}

#[test]
fn a_mutex_waited_for_in_user_mode_and_a_wait_promised_at_apc_level_are_warnings() {
    let report = tell("UserModeMutex", 3);
    let rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["mutex-wait-mode", "irql-too-high"], "{report}");
}

#[test]
fn every_story_holds_on_two_four_and_sixty_four_processors() {
    let bench = || Bench::new().driver(driver("services.sys"));
    // Behind them come those that need a card or that say something.
    let stories = rig::stories_before(start(bench), r"\\.\DirqlServices", "ReachPool");
    for processors in [2, 4, 64] {
        let machine = start(|| bench().processors(processors));
        let file = machine.open(r"\\.\DirqlServices").unwrap();
        // Dpcs names a processor that a machine with fewer than 64 has not.
        for story in stories.iter().filter(|story| processors < 64 || *story != "Dpcs") {
            let answer = file.device_control(rig::TELL_STORY, story.as_bytes(), 8).unwrap();
            let prints = machine.prints().join("\n  ");
            assert_eq!(answer[..4], [0; 4], "{story} on {processors} processors:\n  {prints}");
        }
        file.close().unwrap();
        machine.finish().expect_clean();
    }
}

#[test]
fn a_story_that_is_not_in_the_table_is_refused() {
    let machine = start(|| Bench::new().driver(driver("services.sys")));
    let file = machine.open(r"\\.\DirqlServices").unwrap();
    assert!(file.device_control(rig::TELL_STORY, b"Event", 8).is_err(), "there is one called Events");
    assert!(file.device_control(rig::TELL_STORY, b"Eventss", 8).is_err());
    assert!(file.device_control(rig::TELL_STORY, b"", 8).is_err());
    machine.finish().expect_clean();
}

#[test]
#[should_panic(expected = "has no story `Event`; it has Events, Semaphores, ")]
fn a_story_that_was_renamed_is_missed_by_its_name() {
    tell("Event", 1);
}

#[test]
fn routines_of_a_callback_object_are_called_in_their_order() {
    tell("Callbacks", 13);
}

#[test]
fn a_callback_routine_that_is_taken_back_does_not_run_any_more() {
    tell("CallbackUnderWay", 7);
}

#[test]
fn a_back_trace_leads_to_the_callers_through_calls_of_the_kernel() {
    tell("BackTraces", 14);
}

#[test]
fn requests_are_sent_and_completed_by_the_names_of_the_exports_too() {
    tell("CallsByExport", 3);
}

#[test]
fn a_driver_is_told_when_the_system_leaves_its_working_state_and_when_it_is_back() {
    let machine = start(|| Bench::new().driver(driver("services.sys")));
    rig::play(
        &machine,
        r"open \\.\DirqlServices as s; ioctl s 0x223ff8 in text:PowerStates out 8; close s; power s3; power s0",
    );
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.prints, ["services: power 3 0 at 0", "services: power 3 1 at 0"]);
}

#[test]
fn a_cards_configuration_space_is_read_and_written_by_the_hal() {
    let bench = || Bench::new().driver(driver("services.sys")).device("pci,id=1234:5678,bar0=mem:4K");
    rig::tell(start(bench), r"\\.\DirqlServices", "BusData", 7, "with a card");
}
