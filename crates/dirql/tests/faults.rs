//! Each bug of `faults.sys` ends in its verdict, at its instruction, and leaves the process able to start the next machine.

use std::ops::RangeInclusive;

use dirql::{Bench, Outcome, Report};
use kernel::verdict::Verdict;

use super::rig::{driver, run, start, try_play};

/// What is to come of a bug.
struct Bug {
    number: u32,
    rule: &'static str,
    /// Bug check code, and parameter 1 where that tells the kind.
    check: Option<(u32, Option<u64>)>,
    /// The routine on the verdict's stack, if the driver still stands in it.
    routine: &'static str,
}

const fn bug(
    number: u32,
    rule: &'static str,
    check: Option<(u32, Option<u64>)>,
    routine: &'static str,
) -> Bug {
    Bug { number, rule, check, routine }
}

const ACCESS_VIOLATION: Option<(u32, Option<u64>)> = Some((0x3B, Some(0xC000_0005)));

const BUGS: &[Bug] = &[
    bug(1, "wild-write", Some((0x50, Some(0xFFFF_F880_DEAD_0000))), "WildWrite"),
    bug(2, "wild-read", ACCESS_VIOLATION, "NullRead"),
    bug(3, "wild-call", ACCESS_VIOLATION, "NullCall"),
    bug(4, "stack-overflow", Some((0x7F, Some(8))), "Recurse"),
    bug(5, "divide-error", Some((0x3B, Some(0xC000_0094))), "DivideByZero"),
    bug(6, "livelock", None, "EndlessLoop"),
    bug(7, "write-to-read-only", Some((0xBE, None)), "WriteReadOnly"),
    bug(8, "execute-of-data", Some((0xFC, None)), "ExecutePool"),
    bug(9, "invalid-opcode", Some((0x3B, Some(0xC000_001D))), "UndefinedInstruction"),
    bug(10, "wild-pointer", ACCESS_VIOLATION, "NonCanonical"),
    bug(11, "wild-call", Some((0x50, Some(0x4141_4141_4141_4141))), "SmashStack"),
    bug(13, "driver-bug-check", Some((0xDEAD_DEAD, Some(1))), "BugCheck"),
    bug(14, "double-completion", Some((0x44, None)), "DoubleCompletion"),
    bug(15, "cancel-routine-set", Some((0x48, None)), "CompleteCancelable"),
    bug(16, "completed-with-pending", Some((0xC9, Some(6))), "CompleteWithPending"),
    bug(17, "pending-not-marked", Some((0xC9, Some(0x23D))), ""),
    bug(18, "pending-marked", Some((0xC9, Some(0x23E))), ""),
    bug(19, "irp-never-completed", None, ""),
    bug(21, "information-too-large", Some((0xC9, Some(0x312))), "TooMuchInformation"),
    bug(22, "irql-changed-by-routine", Some((0xC9, Some(5))), ""),
    bug(23, "spin-lock-held-on-return", Some((0xC4, Some(0x4_0009))), ""),
    bug(24, "spin-lock-recursion", Some((0xF, None)), "AcquireTwice"),
    bug(25, "spin-lock-not-held", Some((0x10, None)), "ReleaseUnowned"),
    bug(26, "irql-too-high", None, "SetEventTooHigh"),
    bug(27, "wait-at-raised-irql", Some((0xC4, Some(0x122))), "WaitAtDispatch"),
    bug(28, "irql-too-high", None, "PagedCallAtDispatch"),
    bug(31, "irp-never-completed", None, ""),
    bug(32, "pool-overrun", Some((0x19, Some(0x21))), "PoolOverrun"),
    bug(33, "pool-underrun", Some((0xC1, None)), "PoolUnderrun"),
    bug(35, "double-free", Some((0xC2, Some(7))), "DoubleFree"),
    bug(36, "pool-tag-mismatch", Some((0xC2, Some(0xA))), "FreeWrongTag"),
    bug(37, "pool-leak", None, ""),
    bug(38, "unload-still-called", Some((0xCE, None)), ""),
    bug(39, "spin-lock-damaged", None, "UninitialisedLock"),
    bug(40, "stack-pointer-changed-on-return", None, ""),
];

/// Bugs that nothing here sees yet: what they touch is not watched byte by byte. 30 leaves no trace at all, because the
/// compiler makes one `mov cr8` of KeLowerIrql and KeRaiseIrql alike.
const UNSEEN: [u32; 4] = [20, 29, 30, 34];

/// Number 21 says too much of an output buffer, which it must have.
const fn output(number: u32) -> &'static str {
    if number == 21 { " out 4" } else { "" }
}

fn commit(number: u32) -> Report {
    let code = 0x0022_2800 + number * 4;
    let machine = start(|| Bench::new().driver(driver("faults.sys")).instruction_budget(20_000_000));
    // What goes wrong stands in the report.
    let _ = try_play(&machine, &format!("open \\\\.\\DirqlFaults as f; ioctl f {code:#x}{}", output(number)));
    machine.finish()
}

#[test]
fn a_request_that_nothing_can_end_is_told_instead_of_hanging() {
    let report = commit(31);
    let failure = report.failure.as_ref().expect("the ioctl does not end");
    assert_eq!((failure.place.as_str(), failure.command.as_str()), ("test:1", "ioctl f 0x22287c"));
    assert!(failure.message.contains("nothing can run any more"), "{report}");
}

/// An address in a driver's image that a message does not tell by its name.
fn bare(message: &str) -> Option<&str> {
    let number = |text: &str| {
        let digits = text.trim_start_matches("0x").trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        let address = u64::from_str_radix(digits, 16).unwrap_or(0);
        text.starts_with("0x") && (0x2000_0000_0000..0x2000_6000_0000).contains(&address)
    };
    message.split([' ', '(']).find(|text| number(text))
}

fn check(bug: &Bug) {
    let report = commit(bug.number);
    let number = bug.number;
    assert_eq!(report.outcome(), Outcome::Broken, "fault {number}\n{report}");
    let verdict = report.verdict.as_ref().or(report.findings.first()).expect("broken, by something");
    assert_eq!(verdict.rule, bug.rule, "fault {number}\n{report}");
    let code = verdict.bug_check.map(|check| check.code);
    assert_eq!(code, bug.check.map(|(code, _)| code), "fault {number}\n{report}");
    if let (Some((_, Some(first))), Some(check)) = (bug.check, verdict.bug_check) {
        assert_eq!(check.parameters[0], first, "fault {number}\n{report}");
    }
    assert_eq!(bare(&verdict.message), None, "fault {number} tells code by its address\n{report}");
    let routine =
        verdict.stack.first().and_then(|line| report.symbols.name(line.address)).unwrap_or_default();
    assert!(routine.contains(bug.routine), "fault {number} stops in {routine}\n{report}");
    if !bug.routine.is_empty() {
        let place =
            place_of(&report, verdict).unwrap_or_else(|| panic!("fault {number} has no line\n{report}"));
        let (file, line) = place.rsplit_once(':').unwrap();
        // What the compiler has inlined out of a header is reported as where the driver calls it; `Complete` is the driver's own.
        let inlined = lines_of("Complete").contains(&line.parse().unwrap());
        let of_routine = lines_of(bug.routine).contains(&line.parse().unwrap());
        let in_place = file == "drivers/c/faulty/faults.c" && of_routine;
        assert!(inlined || in_place, "fault {number} stops at {place}\n{report}");
    }
}

#[test]
fn a_stack_overflow_tells_what_fills_the_stack() {
    let report = commit(4);
    let message = &report.expect_verdict().message;
    let (_, shares) = message.split_once("the stack overflowed (").unwrap_or_else(|| panic!("{report}"));
    let (routine, shares) = shares.split_once("): ").unwrap_or_else(|| panic!("{report}"));
    assert!(routine.starts_with("faults.sys!Recurse (faults.c:"), "{report}");
    let mut numbers = shares.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
    let (frames, bytes) = (numbers.next().unwrap(), numbers.next().unwrap());
    // All of the stack but the frames of the routines that lead to it; each frame holds the array of 512 bytes.
    assert!((0x5C00..=0x6000 + 512).contains(&bytes), "{report}");
    assert!(frames >= 40 && (512..640).contains(&(bytes / frames)), "{report}");
    assert!(message.contains("faults.sys!DispatchDeviceControl (faults.c:"), "{report}");
    assert!(message.contains("): 1 frame, "), "{report}");
    let deepest = report.sums.stacks["the thread main"];
    assert!((0x5800..=0x6000).contains(&deepest), "the high-water mark is that thread's\n{report}");
}

#[test]
fn a_stacks_high_water_mark_says_whose_it_is() {
    let report = run("faults.sys", r"open \\.\DirqlFaults as f; ioctl f 0x222800 out 4 expect u32:40");
    let stacks = &report.sums.stacks;
    assert!(stacks.values().all(|depth| (8..0x6000).contains(depth)), "{report}");
    assert!(stacks.contains_key("the thread main"), "{report}");
    assert!(!stacks.contains_key("the DPC stack of processor 0"), "it has no DPC\n{report}");
}

/// The source line that a verdict's first line is shown with.
fn place_of(report: &Report, verdict: &Verdict) -> Option<String> {
    let first = verdict.stack.first()?;
    let frames = report.symbols.frames(first.address - u64::from(first.is_return));
    frames.into_iter().find(|frame| frame.is_own)?.source
}

/// From which line to which a routine of `faults.c` stands, counted from 1.
fn lines_of(routine: &str) -> RangeInclusive<usize> {
    let lines: Vec<&str> = include_str!("../../../drivers/c/faulty/faults.c").lines().collect();
    let head = format!("{routine}(");
    let starts = |line: &&str| !line.starts_with(' ') && !line.ends_with(';') && line.contains(&head);
    let first = lines.iter().position(starts).unwrap_or_else(|| panic!("{routine} is in faults.c"));
    let length = lines[first..].iter().position(|line| *line == "}").unwrap();
    first + 1..=first + 1 + length
}

/// Not: not-implemented
#[test]
fn each_bug_has_its_verdict_and_the_process_lives_on() {
    for bug in BUGS {
        check(bug);
    }
    run("faults.sys", r"open \\.\DirqlFaults as f; ioctl f 0x222800 out 4 expect u32:40").expect_clean();
}

#[test]
fn every_bug_of_the_driver_is_in_the_table_or_known_to_be_unseen() {
    let mut numbers: Vec<u32> = BUGS.iter().map(|bug| bug.number).chain(UNSEEN).chain([12]).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
}

#[test]
fn a_missing_import_is_named_and_the_driver_is_not_blamed() {
    let report = commit(12);
    assert_eq!(report.outcome(), Outcome::NotImplemented, "{report}");
    let verdict = report.expect_verdict();
    assert!(verdict.message.contains("ZwDirqlDoesNotExist"), "{report}");
    assert!(verdict.message.contains("faults.sys!"), "it names the caller\n{report}");
}

#[test]
fn the_report_shows_code_parameters_instruction_and_stack() {
    let text = commit(1).to_string();
    for part in [
        "verdict: the driver broke a rule",
        "wild-write",
        "PAGE_FAULT_IN_NONPAGED_AREA (0x50)",
        "0xfffff880dead0000  address that was referenced",
        "faults!WildWrite+0xa  (drivers/c/faulty/faults.c:",
        "rax=fffff880dead0000",
        "faults!DispatchDeviceControl",
    ] {
        assert!(text.contains(part), "`{part}` is missing\n{text}");
    }
}
