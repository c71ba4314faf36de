//! Stories of registers beyond SSE's (`drivers/c/extended.c`): AVX, x87 and MMX with and without
//! `KeSaveExtendedProcessorState`, and the two processors a machine can have.

#![allow(clippy::print_stderr, reason = "a story that is left out is named")]

use dirql::{Bench, Outcome, Report, processor};

use super::rig::{self, driver, start, try_play};

fn bench(cpu: &str) -> Bench {
    Bench::new()
        .driver(driver("extended.sys"))
        .processor(processor::parse(cpu).unwrap())
        .instruction_budget(20_000_000)
}

/// Whether this host can be an x86-64-v3; says so if not.
fn has_v3() -> bool {
    let missing = processor::parse("x86-64-v3").unwrap().missing();
    if !missing.is_empty() {
        eprintln!("left out: this host lacks {missing:?}");
    }
    missing.is_empty()
}

/// Carries out one story of the driver's table; at least `checks` of its checks must have been made, all with success.
fn tell(bench: impl Fn() -> Bench, story: &str, checks: u32) {
    rig::tell(start(bench), r"\\.\DirqlExtended", story, checks, "");
}

/// Tells a story in a fast machine, in a checked one, and in some where others come in between.
fn tell_every_way(cpu: &str, story: &str, checks: u32) {
    tell(|| bench(cpu), story, checks);
    tell(|| bench(cpu).checked(true), story, checks);
    for seed in 1..=5 {
        let policy = format!("random:{seed}");
        tell(|| bench(cpu).policy(policy.parse().unwrap()), story, checks);
    }
}

/// Not: extended-state-not-saved
#[test]
fn avx_between_save_and_restore_computes_what_it_should() {
    if has_v3() {
        tell_every_way("x86-64-v3", "SavedAvx", 7);
    }
}

#[test]
fn upper_halves_outlive_a_dpc_that_uses_them_too() {
    if has_v3() {
        tell_every_way("x86-64-v3", "AcrossDpc", 4);
    }
}

#[test]
fn x87_between_save_and_restore_computes_what_it_should() {
    tell_every_way("x86-64-v2", "SavedX87", 4);
}

#[test]
fn without_lzcnt_and_bmi_their_encodings_are_bsr_and_bsf_whatever_the_host_has() {
    tell_every_way("x86-64-v2", "CountsOfV2", 5);
}

#[test]
fn the_other_processor_counts_zeros_swaps_bytes_and_extracts_bits() {
    if has_v3() {
        tell_every_way("x86-64-v3", "CountsOfV3", 6);
    }
}

/// Commits one bug of the driver's table.
fn commit(cpu: &str, bug: &str) -> Report {
    let machine = start(|| bench(cpu));
    // What goes wrong stands in the report.
    let _ = try_play(&machine, &format!(r"open \\.\DirqlExtended as f; {}", rig::command("f", bug)));
    machine.finish()
}

/// The run ends with this rule, and its message names what is to blame.
fn ends(cpu: &str, bug: &str, rule: &str, names: &str) {
    let report = commit(cpu, bug);
    assert_eq!(report.outcome(), Outcome::Broken, "{report}");
    assert_eq!(report.expect_verdict().rule, rule, "{report}");
    assert!(report.to_string().contains(names), "{report}");
}

#[test]
fn avx_without_a_save_is_a_verdict_on_who_used_it() {
    if has_v3() {
        ends("x86-64-v3", "UnsavedAvx", "extended-state-not-saved", "Products");
        ends("x86-64-v3", "UsedAfterRestore", "extended-state-not-saved", "UsedAfterRestore");
        ends("x86-64-v3", "SavedOtherRegisters", "extended-state-not-saved", "SavedOtherRegisters");
    }
}

#[test]
fn a_dpc_has_to_save_by_itself_whatever_it_interrupts_has_saved() {
    if has_v3() {
        ends("x86-64-v3", "UnsavedInDpc", "extended-state-not-saved", "DpcThatDoesNotSave");
    }
}

#[test]
fn x87_and_mmx_without_a_save_are_a_verdict_on_every_processor() {
    ends("x86-64-v2", "UnsavedX87", "extended-state-not-saved", "Fifth");
    ends("x86-64-v2", "UnsavedMmx", "extended-state-not-saved", "UnsavedMmx");
}

#[test]
fn avx_on_a_processor_without_it_is_an_invalid_opcode() {
    ends("x86-64-v2", "UnsavedAvx", "invalid-opcode", "Products");
}

#[test]
fn a_routine_restores_what_it_saves() {
    ends("x86-64-v2", "NeverRestored", "extended-state-not-restored", "DispatchDeviceControl");
}

#[test]
fn saves_and_restores_are_nested_and_at_one_level() {
    ends("x86-64-v2", "RestoredOutOfOrder", "extended-state-unnested", "RestoredOutOfOrder");
    ends("x86-64-v2", "RestoredAtOtherLevel", "extended-state-unnested", "RestoredAtOtherLevel");
}

#[test]
fn only_what_is_enabled_can_be_saved() {
    ends("x86-64-v2", "SavedWhatIsNotEnabled", "extended-state-not-enabled", "SavedWhatIsNotEnabled");
}
