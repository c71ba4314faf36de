//! Checked machines: every story of the sound drivers once more, with the same events; then what only a checked machine tells.

#![allow(
    clippy::duplicate_mod,
    reason = "the other files are taken in whole, with a rig of checked machines"
)]

#[path = "card.rs"]
mod card;
#[path = "legacy.rs"]
mod legacy;
#[path = "libraries.rs"]
mod libraries;
#[path = "policies.rs"]
mod policies;
#[path = "queue.rs"]
mod queue;
#[path = "requests.rs"]
mod requests;
#[path = "rewinds.rs"]
mod rewinds;
#[path = "rig/mod.rs"]
mod rig;
#[path = "services.rs"]
mod services;

use dirql::{Bench, Outcome, Report};
use kernel::verdict::Tier;
use rig::{driver, try_play};

const _: () = assert!(rig::CHECKED, "this rig makes checked machines");

fn alone(name: &str) -> Bench {
    Bench::new().driver(driver(&format!("{name}.sys")))
}

fn with_card(name: &str) -> Bench {
    alone(name).inf(driver(&format!("{name}.inf"))).device("pci9052")
}

fn played(bench: Bench, script: &str) -> Report {
    let machine = bench.start().expect("one test, one process: run them by cargo nextest");
    // What goes wrong stands in the report.
    let _ = try_play(&machine, script);
    machine.finish()
}

#[test]
fn a_checked_run_has_the_same_events_and_leaves_the_same_memory() {
    const TRANSFER: &str =
        "open DEV as f; write f hex:3c_a5_00_ff at 0x10; read f 4 at 0x10; ioctl f 0x222000 out 64; close f";
    let runs = [
        (alone as fn(&str) -> Bench, "legacy", r"\\.\DirqlLegacy", TRANSFER),
        (alone, "queue", r"\\.\DirqlQueue", TRANSFER),
        (alone, "faults", r"\\.\DirqlFaults", "open DEV as f; ioctl f 0x222800 out 4"),
        (alone, "faults", r"\\.\DirqlFaults", "open DEV as f; ioctl f 0x222804"),
        (with_card, "pciline", r"\\.\PciLine0", TRANSFER),
        (with_card, "pci9052", r"\\.\Pci9052-0", TRANSFER),
    ];
    for (bench, name, device, script) in runs {
        let script = script.replace("DEV", device);
        let fast = played(bench(name), &script);
        let checked = played(bench(name).checked(true), &script);
        assert_eq!(fast.outcome(), checked.outcome(), "{name}\n{fast}\n{checked}");
        assert_eq!(fast.prints, checked.prints, "{name}");
        assert!(fast.trace_hash == checked.trace_hash, "{name}: the events differ\n{fast}\n{checked}");
        assert!(fast.memory_hash == checked.memory_hash, "{name}: the memory differs");
    }
}

/// What is to come of a touch.
struct Wrong {
    driver: &'static str,
    number: u32,
    /// The application's own memory is meant.
    neither: bool,
    rule: &'static str,
    /// Bug check code, and its third parameter's kind: what the instruction did.
    check: Option<u32>,
    /// The routine that did it.
    routine: &'static str,
    /// What the message says.
    says: &'static str,
}

const fn wrong(
    number: u32,
    rule: &'static str,
    check: u32,
    routine: &'static str,
    says: &'static str,
) -> Wrong {
    Wrong { driver: "touches", number, neither: false, rule, check: Some(check), routine, says }
}

const WRONG: &[Wrong] = &[
    wrong(1, "pool-overrun", 0xD6, "ReadBehind", "read a byte at"),
    wrong(
        2,
        "pool-overrun",
        0xD6,
        "WriteBehind",
        "0 bytes behind the end of a 45-byte nonpaged block 'Touc'",
    ),
    Wrong {
        check: None,
        ..wrong(3, "pool-underrun", 0, "ReadBefore", "2 bytes before a 64-byte paged block")
    },
    wrong(4, "use-after-free", 0xD5, "ReadFreed", "0x3c bytes into a 64-byte nonpaged block"),
    wrong(5, "pool-overrun", 0xD6, "WriteBehindLarge", "behind the end of a 5000-byte nonpaged block"),
    wrong(6, "use-after-free", 0xD5, "ReadKept", "given back to a lookaside list"),
    wrong(7, "use-after-free", 0xCC, "CopyFreed", "freed by touches.sys!"),
    wrong(8, "pool-overrun", 0xCD, "CompareBehind", "read 48 bytes"),
    wrong(11, "paged-at-raised-irql", 0xD1, "Paged", "in a pageable section, at IRQL 2"),
    wrong(12, "paged-at-raised-irql", 0xD1, "CountPaged", "pageable: touches.sys"),
    wrong(13, "paged-at-raised-irql", 0xD1, "ReadIt", "0x0 bytes into a 64-byte paged block"),
    wrong(14, "paged-at-raised-irql", 0xA, "CopyPagedPool", "read 16 bytes"),
    Wrong { neither: true, ..wrong(15, "paged-at-raised-irql", 0xD1, "ReadIt", "an application's memory") },
    Wrong {
        neither: true,
        ..wrong(16, "user-memory-elsewhere", 0x7E, "ReadIt", "in the context of a system thread")
    },
    wrong(30, "user-memory-elsewhere", 0x7E, "ReadIt", "an application's memory (process"),
    wrong(31, "user-memory-elsewhere", 0x7E, "ReadIt", "in the context of a system thread"),
    wrong(32, "pool-overrun", 0xD6, "ClearTooMuch", "wrote 72 bytes"),
    Wrong { driver: "faults", ..wrong(20, "use-after-free", 0xD5, "TouchCompleted", "freed") },
    Wrong { driver: "faults", ..wrong(29, "paged-at-raised-irql", 0xD1, "PagedPoolAtDispatch", "IRQL 2") },
    Wrong { driver: "faults", ..wrong(32, "pool-overrun", 0xD6, "PoolOverrun", "wrote a byte") },
    Wrong { driver: "faults", ..wrong(33, "pool-underrun", 0xC1, "PoolUnderrun", "1 bytes before") },
    Wrong { driver: "faults", ..wrong(34, "use-after-free", 0xD5, "UseAfterFree", "(event ") },
];

fn touch(driver: &str, number: u32, neither: bool, rest: &str) -> Report {
    let (device, first) = if driver == "touches" {
        (r"\\.\DirqlTouches", 0x0022_2C00)
    } else {
        (r"\\.\DirqlFaults", 0x0022_2800)
    };
    let code = first + number * 4 + if neither { 3 } else { 0 };
    played(alone(driver).checked(true), &format!("open {device} as f; ioctl f {code:#x} {rest}; close f"))
}

#[test]
fn each_wrong_touch_is_told_at_its_instruction() {
    for wrong in WRONG {
        let report = touch(wrong.driver, wrong.number, wrong.neither, "in hex:0102030405060708");
        let number = wrong.number;
        assert_eq!(report.outcome(), Outcome::Broken, "{number}\n{report}");
        let verdict = report.expect_verdict();
        assert_eq!(verdict.rule, wrong.rule, "{number}\n{report}");
        assert_eq!(verdict.bug_check.map(|check| check.code), wrong.check, "{number}\n{report}");
        assert!(verdict.message.contains(wrong.says), "{number}\n{report}");
        let line = verdict.stack.first().expect("a driver stands there");
        let routine = report.symbols.name(line.address).unwrap_or_default();
        assert!(routine.contains(wrong.routine), "{number} stops in {routine}\n{report}");
    }
}

#[test]
fn what_may_be_touched_is_not_told() {
    for number in [0, 18, 19] {
        touch("touches", number, false, "expect STATUS_SUCCESS").expect_clean();
    }
}

#[test]
fn a_driver_cannot_write_to_what_dirql_itself_is_made_of() {
    // The engine's heap, host stacks, code cache, scratch page, dispatch table; its shadow; where host programs lie.
    let ours = [
        0x2040_0000_1000_u64,
        0x2050_0004_0000,
        0x2000_6000_0000,
        0x2000_7000_0000,
        0x2001_8000_0000,
        0x2A20_0000_0000,
        0x5555_5555_4000,
        0x7FFF_FFFF_0000,
    ];
    for address in ours {
        for (number, rule, how) in [(9, "wild-write", 2), (10, "wild-read", 0)] {
            let report = touch("touches", number, false, &format!("in u64:{address:#x}"));
            let verdict = report.expect_verdict();
            assert_eq!(verdict.rule, rule, "{address:#x}\n{report}");
            let check = verdict.bug_check.expect("Windows has nothing there either");
            assert_eq!(
                (check.code, check.parameters[0], check.parameters[1]),
                (0x50, address, how),
                "{report}"
            );
        }
    }
}

#[test]
fn an_output_buffer_that_is_only_half_filled_is_a_warning() {
    let report = touch("touches", 17, false, "out 32");
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    let finding = report.findings.first().expect("a finding");
    assert_eq!((finding.rule, finding.tier), ("output-never-stored", Tier::Warning));
    assert!(finding.message.contains("byte 0x10 of"), "{report}");
    assert!(touch("touches", 17, false, "in zero:32 out 32").findings.is_empty(), "the input lay there");
}

/// Before it had eight bytes of its own, fresh pool was filled with this one.
#[test]
fn an_answer_of_one_byte_that_repeats_is_the_drivers_own() {
    for method in [BUFFERED, OUT_DIRECT, NEITHER] {
        let code = code(34, method);
        let script =
            format!(r"open \\.\DirqlTouches as f; ioctl f {code:#x} out 32 expect STATUS_SUCCESS; close f");
        played(alone("touches").checked(true), &script).expect_clean();
    }
}

#[test]
fn what_pool_held_in_an_applications_own_buffer_is_a_warning() {
    for method in [OUT_DIRECT, NEITHER] {
        let found = |out: &str| {
            let code = code(33, method);
            let script = format!(
                r"open \\.\DirqlTouches as f; ioctl f {code:#x} {out} expect STATUS_SUCCESS; close f"
            );
            let report = played(alone("touches").checked(true), &script);
            report.findings.into_iter().find(|finding| finding.rule == "output-never-stored")
        };
        let said = found("out 32").map(|finding| finding.message).unwrap_or_default();
        assert!(said.contains("from byte 0x10 on"), "{said}");
        assert!(found("out 6").is_none(), "three bytes may be anything");
    }
}

#[test]
fn a_fast_run_that_ends_in_damage_asks_for_a_checked_one_which_blames_the_store() {
    let script = r"open \\.\DirqlFaults as f; ioctl f 0x222880"; // 32: a byte behind a block, seen when it is freed
    let fast = played(alone("faults"), script);
    assert!(fast.wants_checked_run(), "{fast}");
    let checked = played(alone("faults").checked(true), script);
    let at = |report: &Report| report.expect_verdict().stack.first().map(|line| line.address);
    assert!(at(&checked) < at(&fast), "the store comes before the call that frees\n{fast}\n{checked}");
    assert!(!played(alone("faults"), r"open \\.\DirqlFaults as f; ioctl f 0x222838").wants_checked_run());
}

/// `\\.\DirqlTouches`' control code for a touch.
const fn code(number: u32, method: u32) -> u32 {
    0x0022_2C00 + number * 4 + method
}

const BUFFERED: u32 = 0;
const OUT_DIRECT: u32 = 2;
const NEITHER: u32 = 3;

/// A request that leaves its buffer's address behind; some others; then the one that uses it.
fn touch_completed(keep: u32, others: usize, touch: u32) -> Report {
    let mut script = String::from(r"open \\.\DirqlTouches as f; ");
    script += &format!("ioctl f {keep:#x} in hex:0102030405060708 out 8 expect STATUS_SUCCESS; ");
    for _ in 0..others {
        script += &format!(
            "ioctl f {:#x} in hex:0102030405060708 out 8 expect STATUS_SUCCESS; ",
            code(0, keep & 3)
        );
    }
    script += &format!("ioctl f {touch:#x}; close f");
    played(alone("touches").checked(true), &script)
}

#[test]
fn a_buffer_that_is_touched_after_its_request_is_complete_is_told() {
    let cases = [
        (code(20, BUFFERED), "use-after-free", "use-after-free"),
        (code(20, NEITHER), "wild-write", "bad-pointer"),
        (code(20, OUT_DIRECT), "wild-write", "bad-pointer"),
        (code(21, OUT_DIRECT), "use-after-free", "use-after-free"),
    ];
    for (keep, by_driver, by_kernel) in cases {
        for others in [0, 1, 7] {
            for (touch, rule) in [(code(22, BUFFERED), by_driver), (code(23, BUFFERED), by_kernel)] {
                let report = touch_completed(keep, others, touch);
                assert_eq!(report.expect_verdict().rule, rule, "{keep:#x} {others} {touch:#x}\n{report}");
            }
        }
    }
}

#[test]
fn a_completed_requests_buffer_is_told_as_what_the_application_has_taken_back() {
    let report = touch_completed(code(20, NEITHER), 0, code(22, BUFFERED));
    let verdict = report.expect_verdict();
    assert!(verdict.message.contains("which its application has taken back"), "{report}");
    let asked = touch_completed(code(20, NEITHER), 0, code(27, BUFFERED)).to_string();
    assert!(asked.contains("saw STATUS_ACCESS_VIOLATION"), "MmIsAddressValid finds no page there\n{asked}");
}

#[test]
fn among_so_many_blocks_that_the_host_has_them_side_by_side_the_same_is_told() {
    for number in [28, 29] {
        let [few, many] = [0, 9_000].map(|blocks| {
            let report = touch("touches", number, false, &format!("in u32:{blocks}"));
            let verdict = report.expect_verdict();
            (
                verdict.rule,
                verdict.bug_check.map(|check| (check.code, check.parameters[1])),
                report.to_string(),
            )
        });
        assert_eq!((few.0, few.1), (many.0, many.1), "{}\n{}", few.2, many.2);
    }
}

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn requests_by_the_thousand_use_the_same_memory_again() {
    let machine = alone("legacy").checked(true).start().unwrap();
    let batch = "write f hex:3c_a5_00_ff at 0; read f 4 at 0; ".repeat(500);
    let script = format!(r"open \\.\DirqlLegacy as f; {batch} close f");
    try_play(&machine, &script).unwrap();
    let before = peak();
    for _ in 0..4 {
        try_play(&machine, &script).unwrap();
    }
    let more = peak() - before;
    assert!(more < 2 << 10, "4,000 requests more took {more} KiB more");
    machine.finish().expect_clean();
}

#[test]
fn a_page_that_a_driver_has_locked_is_no_other_requests_buffer() {
    let mut script = String::from(r"open \\.\DirqlTouches as f; ");
    script += &format!("ioctl f {:#x} in hex:01020304 expect STATUS_SUCCESS; ", code(24, NEITHER));
    for _ in 0..80 {
        script += &format!("ioctl f {:#x} in hex:01020304 expect STATUS_SUCCESS; ", code(25, NEITHER));
    }
    script += &format!("ioctl f {:#x} expect STATUS_SUCCESS; close f", code(26, NEITHER));
    for checked in [false, true] {
        played(alone("touches").checked(checked), &script).expect_clean();
    }
}

#[test]
fn a_local_variable_of_a_thread_that_has_ended_is_not_there() {
    let script = r"open \\.\DirqlLeaves as f; ioctl f 0x22345c";
    let report = played(alone("leaves").checked(true), script);
    let verdict = report.expect_verdict();
    assert_eq!((verdict.rule, verdict.tier), ("wild-read", Tier::Error), "{report}");
    assert!(verdict.message.contains("ReadLocalOfEndedThread"), "{report}");
    // The host has the stack mapped for the next thread.
    played(alone("leaves"), script).expect_clean();
}
