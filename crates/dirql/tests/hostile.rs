//! Each attack of `hostile.sys` ends in correct execution or in a verdict of its own, at the instruction, reported with its line.

use dirql::{Bench, Outcome, Report};
use kernel::verdict::Tier;

use super::rig::{driver, start, try_play};

/// What is to come of an attack: number, rule, bug check, and the routine it happens in, if that is the driver's.
type Attack = (u32, &'static str, Option<u32>, &'static str);

const ATTACKS: &[Attack] = &[
    (1, "instruction-refused", Some(0x7F), "Syscall"),
    (2, "instruction-refused", Some(0x3B), "Int80"),
    (3, "protection-fault", Some(0x3B), "Sysenter"),
    (4, "instruction-refused", None, "Iretq"),
    (5, "instruction-refused", Some(0x109), "SetGdt"),
    (6, "instruction-refused", Some(0x109), "Wrmsr"),
    (7, "invalid-opcode", Some(0x3B), "Vmcall"),
    (8, "protection-fault", Some(0x3B), "FarJump"),
    (9, "instruction-refused", None, "FarReturn"),
    (10, "invalid-opcode", Some(0x3B), "GsBase"),
    (11, "instruction-refused", Some(0x7F), "GsSelector"),
    (12, "wild-write", Some(0x3B), "FsWrite"),
    (13, "wild-pointer", Some(0x7F), "StackPivotNowhere"),
    (15, "trap", Some(0x3B), "Flags"),
    (16, "floating-point-exception", Some(0x3B), "FloatingPoint"),
    (17, "instruction-refused", None, "Cr3"),
    (18, "halted", Some(0x101), "Halt"),
    (19, "livelock", None, "SpinWithoutInterrupts"),
    (20, "instruction-refused", Some(0x7F), "MiddleOfInstruction"),
    (21, "wild-call", Some(0x3B), ""),
    (22, "wild-call", Some(0x50), ""),
    (23, "wild-call", Some(0x50), ""),
    (24, "write-to-read-only", Some(0xBE), "ChangeText"),
    (25, "pool-leak", None, ""),
    (26, "endless-loop", None, "PrintForEver"),
    (27, "wild-write", Some(0x50), "Overwrite"),
    (28, "wild-write", Some(0x50), "Overwrite"),
    (29, "wild-write", Some(0x50), "Overwrite"),
    (31, "wild-write", Some(0x50), "OverwriteCodeCache"),
    (32, "stack-overflow", Some(0x7F), ""),
    (38, "wild-write", Some(0x7F), "StackPivotShared"),
    (36, "wild-write", Some(0x50), "RedirectTable"),
];

fn attack(number: u32) -> Report {
    let code = 0x0022_0000 + (0xB00 + number) * 4;
    let machine = start(|| Bench::new().driver(driver("hostile.sys")).instruction_budget(100_000_000));
    let _ = try_play(&machine, &format!("open \\\\.\\DirqlHostile as f; ioctl f {code:#x}"));
    machine.finish()
}

#[test]
fn each_attack_has_its_verdict_and_none_is_said_to_be_missing_from_dirql() {
    for &(number, rule, check, routine) in ATTACKS {
        let report = attack(number);
        assert_eq!(report.outcome(), Outcome::Broken, "attack {number}\n{report}");
        let error = || report.findings.iter().find(|finding| finding.tier == Tier::Error);
        let verdict = report.verdict.as_ref().or_else(error).expect("broken, by something");
        let code = verdict.bug_check.map(|check| check.code);
        assert_eq!((verdict.rule, code), (rule, check), "attack {number}\n{report}");
        let first = verdict.stack.first();
        let name = first.and_then(|line| report.symbols.name(line.address)).unwrap_or_default();
        assert!(name.contains(routine), "attack {number} ends in {name}\n{report}");
        if !routine.is_empty() {
            let place = report.symbols.line(first.unwrap().address).unwrap_or_default();
            let in_source = place.starts_with("drivers/c/hostile/hostile.c:") || place.starts_with("/usr/");
            assert!(in_source, "attack {number} at {place}\n{report}");
        }
    }
}

#[test]
fn a_stack_in_pool_is_no_attack() {
    attack(14).expect_clean();
}
