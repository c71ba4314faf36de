//! Stories of structured exception handling that a driver compiled by clang for the msvc target tells and checks itself
//! (`drivers/c/seh`), and the exceptions of its that end the run.

use dirql::{Bench, Outcome, Report};

use super::rig::{self, driver, start, try_play};

/// Carries out one story of the driver's table; at least `checks` of its checks must have been made, all with success.
fn tell(story: &str, checks: u32) {
    for sys in ["seh.sys", "seh_unoptimized.sys"] {
        let machine = start(|| Bench::new().driver(driver(sys)).instruction_budget(20_000_000));
        rig::tell(machine, r"\\.\DirqlSeh", story, checks, &format!("of {sys}"));
    }
}

#[test]
fn a_fault_is_caught_by_the_function_that_guards_it() {
    tell("Caught", 7);
}

#[test]
fn termination_handlers_run_from_inside_outwards_after_all_filters() {
    tell("FinallyOrder", 3);
}

#[test]
fn a_filter_that_declines_leaves_it_to_the_next_one_out() {
    tell("ContinuedSearch", 4);
}

#[test]
fn a_filter_that_mends_a_register_has_the_instruction_tried_again() {
    tell("ContinuedExecution", 4);
}

#[test]
fn a_captured_context_has_the_registers_that_a_call_does_not_keep_and_leaves_the_rest() {
    tell("CapturesAll", 11);
}

#[test]
fn every_kind_of_fault_has_its_exception_code() {
    tell("Kinds", 1);
}

#[test]
fn what_the_kernel_raises_is_caught_and_a_probe_touches_no_kernel_memory() {
    tell("Raised", 6);
}

#[test]
fn an_exception_inside_a_handler_may_be_handled_there() {
    tell("HandledInside", 1);
}

#[test]
fn an_exception_in_a_termination_handler_collides_with_the_unwind() {
    tell("FinallyRaises", 4);
}

#[test]
fn an_exception_in_a_filter_is_looked_for_a_handler_outwards_from_there() {
    tell("FilterRaises", 2);
}

#[test]
fn a_completion_routines_exception_is_caught_beyond_io_complete_request() {
    tell("ThroughTheKernel", 4);
}

#[test]
fn a_dpc_catches_its_own_division_by_zero() {
    tell("InADpc", 1);
}

#[test]
fn a_driver_can_walk_its_own_stack() {
    tell("OwnWalk", 5);
}

#[test]
fn a_captured_context_can_be_restored_again_and_again() {
    tell("Restored", 1);
}

#[test]
fn a_language_handler_of_the_drivers_own_is_called_as_documented() {
    tell("OwnLanguageHandler", 7);
}

#[test]
fn a_language_handler_unwinds_plainly_too() {
    tell("UnwindsPlainly", 3);
}

#[test]
fn an_irp_whose_dispatch_routine_raised_is_for_whoever_caught_that() {
    tell("DispatchRaises", 3);
}

#[test]
fn a_start_io_that_an_exception_left_is_not_running_any_more() {
    tell("StartIoRaises", 3);
}

#[test]
fn what_a_registry_query_routine_raises_is_caught_beyond_the_query() {
    tell("QueryRaises", 1);
}

#[test]
fn in_a_zw_routine_the_previous_mode_is_the_kernels() {
    tell("ModeOfZw", 5);
}

#[test]
fn whatever_a_page_says_is_raised_is_raised_and_can_be_handled() {
    tell("WhatPagesRaise", 58);
    let machine = start(|| Bench::new().driver(driver("seh.sys")).instruction_budget(20_000_000));
    rig::tell(machine, r"\\.\DirqlSeh", "WhatPagesRaise", 58, "what pages raise").prints.iter().for_each(
        |line| {
            let routine = line.strip_prefix("raising by ").unwrap();
            assert!(kernel::exports::FUNCTIONS.iter().any(|export| export.name == routine), "{routine}");
        },
    );
}

#[test]
fn a_semaphore_beyond_its_limit_and_a_mutex_of_another_are_told_if_nobody_handles_that() {
    ends("SemaphoreUnhandled", "semaphore-limit-exceeded", Some((0x3B, 0xC000_0047)), "SemaphoreUnhandled");
    ends("MutexUnhandled", "mutex-not-owned", Some((0x3B, 0xC000_0046)), "MutexUnhandled");
}

fn commit(bug: &str) -> Report {
    commit_within(20_000_000, bug)
}

fn commit_within(budget: u64, bug: &str) -> Report {
    let machine = start(|| Bench::new().driver(driver("seh.sys")).instruction_budget(budget));
    // What goes wrong stands in the report.
    let _ = try_play(&machine, &format!(r"open \\.\DirqlSeh as f; {}", rig::command("f", bug)));
    machine.finish()
}

/// The run ends with this rule, bug check and first parameter, and the routine stands on the stack.
fn ends(bug: &str, rule: &str, check: Option<(u32, u64)>, routine: &str) -> Report {
    let report = commit(bug);
    assert_eq!(report.outcome(), Outcome::Broken, "{report}");
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, rule, "{report}");
    assert_eq!(verdict.bug_check.map(|check| (check.code, check.parameters[0])), check, "{report}");
    let stands = verdict.stack.iter().any(|line| line.symbol.contains(routine));
    assert!(routine.is_empty() || stands, "{routine} is not on the stack\n{report}");
    report
}

#[test]
fn an_invalid_kernel_address_is_a_page_fault_even_inside_a_try() {
    ends("KernelAddress", "wild-read", Some((0x50, 0xFFFF_F880_DEAD_0000)), "KernelAddress");
}

#[test]
fn no_bad_address_is_an_exception_at_dispatch_level() {
    ends("UserAddressAtDispatch", "wild-read", Some((0xD1, 0)), "UserAddressAtDispatch");
}

#[test]
fn an_exception_nobody_takes_is_a_bug_check_with_its_code() {
    let report = ends("NobodyTakesIt", "unhandled-exception", Some((0x3B, 0x8000_0011)), "NobodyTakesIt");
    assert!(report.to_string().contains("STATUS_DEVICE_BUSY"), "{report}");
}

#[test]
fn ex_raise_status_may_not_be_called_at_dispatch_level() {
    ends("RaiseAtDispatch", "irql-too-high", None, "RaiseAtDispatch");
}

#[test]
fn the_thread_a_dpc_interrupts_does_not_get_its_exceptions() {
    let report = ends("DpcFaults", "divide-error", Some((0x1E, 0xFFFF_FFFF_C000_0094)), "DpcThatFaults");
    let stack = &report.expect_verdict().stack;
    assert!(stack.iter().any(|line| !line.interrupted && line.symbol.contains("DpcThatFaults")), "{report}");
    let below: Vec<_> = stack.iter().filter(|line| line.interrupted).collect();
    assert!(!below.is_empty() && below.iter().all(|line| !line.symbol.contains("DpcThatFaults")), "{report}");
    assert!(report.to_string().contains("    which had interrupted\n"), "{report}");
}

#[test]
fn an_exception_of_ex_raise_status_cannot_be_gone_on_from() {
    ends("GoesOn", "unhandled-exception", Some((0x3B, 0xC000_0025)), "GoesOn");
}

#[test]
fn a_filter_that_faults_is_asked_about_itself_until_the_stack_ends() {
    ends("FilterFaults", "stack-overflow", Some((0x7F, 8)), "FilterThatFaults");
}

#[test]
fn an_exception_does_not_put_the_level_back() {
    ends("LevelStays", "irql-changed-by-routine", Some((0xC9, 5)), "");
}

#[test]
fn an_unwind_to_a_frame_that_is_not_there_is_an_exception() {
    ends("UnwindNowhere", "unhandled-exception", Some((0x3B, 0xC000_0029)), "UnwindNowhere");
}

#[test]
fn no_exception_leaves_a_zw_routine() {
    ends("ZwRaises", "unhandled-exception", Some((0x3B, 0xC000_00A3)), "ZwRaises");
}

#[test]
fn an_exception_in_a_cancel_routine_leaves_the_cancel_spin_lock_held() {
    ends("CancelRaises", "spin-lock-held-on-return", Some((0xC4, 0x4_0009)), "");
}

#[test]
fn who_makes_a_thread_does_not_get_its_exceptions() {
    ends("ThreadRaises", "unhandled-exception", Some((0x7E, 0xFFFF_FFFF_C000_00A3)), "Raise");
}

#[test]
fn a_routine_on_an_expanded_stack_must_handle_its_exceptions_itself() {
    tell("HandledOnExpanded", 2);
    ends("ExpandedRaises", "wild-read", Some((0x1E, 0xFFFF_FFFF_C000_0005)), "FaultOnExpanded");
}

#[test]
fn an_exception_that_is_gone_on_from_and_comes_again_and_again_is_told() {
    let report = commit_within(200_000_000, "MendsNothing");
    let verdict = report.expect_verdict();
    assert_eq!((report.outcome(), verdict.rule), (Outcome::Broken, "endless-exceptions"), "{report}");
    assert!(verdict.message.contains("10000 times in a row"), "{report}");
    // Whatever they are, a call has no more of them than that.
    assert_eq!(commit("MendsNothing").expect_verdict().rule, "endless-loop");
}

/// Not: endless-exceptions
#[test]
fn a_filter_may_try_again_a_thousand_times() {
    commit("MendsNothingForLong").expect_clean();
}
