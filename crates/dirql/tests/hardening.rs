//! Stories of a driver that clang has hardened (`drivers/c/hardened`): `/GS` cookies, control flow guard, stack probes, and
//! `__fastfail`, by which all of them end.

use dirql::{Bench, Outcome, Report, windows};

use super::rig::{self, driver, start, try_play};

/// Carries out one story of the driver's table; at least `checks` of its checks must have been made, all with success.
fn tell(story: &str, checks: u32) {
    let machine = start(|| Bench::new().driver(driver("hardened.sys")).instruction_budget(20_000_000));
    rig::tell(machine, r"\\.\DirqlHardened", story, checks, "");
}

#[test]
fn the_loader_gives_the_cookie_a_value_and_buffers_within_their_bounds_keep_it() {
    tell("CookieHolds", 3);
}

#[test]
fn a_guarded_call_keeps_every_argument_and_reaches_imports() {
    tell("GuardedCalls", 5);
}

#[test]
fn the_guards_check_lets_functions_pass() {
    tell("GuardChecks", 2);
}

#[test]
fn a_frame_of_three_pages_is_probed_and_works() {
    tell("BigFrames", 2);
}

#[test]
fn a_jump_table_needs_no_leave_of_the_guard() {
    tell("JumpTable", 9);
}

/// The run ends with this rule, bug check and first parameter, and the routine stands on the stack.
fn ends(bug: &str, rule: &str, check: (u32, u64), routine: &str) -> Report {
    ends_on("11-24h2", bug, rule, check, routine)
}

/// Commits one bug of the driver's table.
fn commit(version: &str, bug: &str) -> Report {
    let bench = || Bench::new().driver(driver("hardened.sys")).windows(windows::parse(version).unwrap());
    let machine = start(|| bench().instruction_budget(20_000_000));
    // What goes wrong stands in the report.
    let _ = try_play(&machine, &format!(r"open \\.\DirqlHardened as f; {}", rig::command("f", bug)));
    machine.finish()
}

fn ends_on(version: &str, bug: &str, rule: &str, check: (u32, u64), routine: &str) -> Report {
    let report = commit(version, bug);
    assert_eq!(report.outcome(), Outcome::Broken, "{report}");
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, rule, "{report}");
    assert_eq!(verdict.bug_check.map(|check| (check.code, check.parameters[0])), Some(check), "{report}");
    let stands = verdict.stack.iter().any(|line| line.symbol.contains(routine));
    assert!(stands, "{routine} is not on the stack\n{report}");
    report
}

#[test]
fn an_overrun_buffer_is_fast_fail_2() {
    ends("Overrun", "fast-fail", (0x139, 2), "Buffered");
}

#[test]
fn an_overrun_buffer_of_an_old_driver_is_bug_check_0xf7() {
    let report = ends("OverrunReportedOldWay", "driver-bug-check", (0xF7, 0x1F1E_3D34_1B18_0638), "Buffered");
    assert!(report.to_string().contains("DRIVER_OVERRAN_STACK_BUFFER"), "{report}");
}

#[test]
fn a_call_into_a_functions_middle_is_fast_fail_10_and_names_the_place() {
    let report = ends("CallIntoMiddle", "fast-fail", (0x139, 10), "CallAt");
    assert!(report.to_string().contains("hardened.sys!Four+0x4"), "{report}");
}

#[test]
fn a_guarded_call_by_a_null_pointer_is_fast_fail_10() {
    let report = ends("CallNull", "fast-fail", (0x139, 10), "CallAt");
    assert!(report.to_string().contains("valid target: 0x0"), "{report}");
}

#[test]
fn a_guarded_call_of_data_is_fast_fail_10() {
    ends("CallData", "fast-fail", (0x139, 10), "CallAt");
}

#[test]
fn a_guarded_call_to_behind_the_start_of_a_kernel_routine_is_fast_fail_10() {
    ends("CallIntoKernel", "fast-fail", (0x139, 10), "CallAt");
}

#[test]
fn the_guards_check_finds_an_invalid_target_too() {
    let report = ends("CheckMiddle", "fast-fail", (0x139, 10), "CheckMiddle");
    assert!(report.to_string().contains("hardened.sys!Four+0x8"), "{report}");
}

#[test]
fn windows_10_lets_an_unguarded_call_go_where_it_goes() {
    let report = ends_on("10-22h2", "CallNull", "wild-call", (0x3B, 0xC000_0005), "CallAt");
    assert!(report.to_string().contains("null"), "{report}");
}

#[test]
fn a_probe_finds_that_the_stack_has_no_room_for_a_big_frame() {
    let report = ends("ProbeOverflows", "stack-overflow", (0x7F, 8), "Deeper");
    assert!(report.to_string().contains("__chkstk"), "{report}");
}

#[test]
fn a_fast_fail_has_its_code_as_first_parameter() {
    ends("ListCorrupt", "fast-fail", (0x139, 3), "DispatchDeviceControl");
    ends("CookieNotInitialised", "fast-fail", (0x139, 6), "DispatchDeviceControl");
    ends("OwnCode", "fast-fail", (0x139, 0x1234), "DispatchDeviceControl");
}

#[test]
fn a_direction_flag_left_set_is_a_verdict_on_whoever_set_it() {
    let report = commit("11-24h2", "LeavesDirection");
    assert_eq!(report.expect_verdict().rule, "direction-flag-set-on-return", "{report}");
    assert!(report.to_string().contains("DpcThatGoesBackwards"), "{report}");
}

#[test]
fn an_mxcsr_left_changed_is_a_warning_that_names_who_changed_it() {
    let report = commit("11-24h2", "LeavesControl");
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    let text = report.to_string();
    assert!(text.contains("mxcsr-changed-on-return") && text.contains("DpcThatFlushesToZero"), "{text}");
}

#[test]
fn a_routine_that_puts_both_back_is_not_blamed() {
    let report = commit("11-24h2", "PutsBoth");
    report.expect_clean();
    assert!(!report.to_string().contains("mxcsr"), "{report}");
}
