//! Code that `executes.sys` makes at run time: it runs where memory may be executed, and is stopped at the call where not,
//! reported with instruction, symbol, address and the block of pool.

use dirql::{Bench, Outcome, Report};

use super::rig::{driver, start};

const LENGTH: u32 = 24;

/// Makes code in the memory of this index of the driver's table, and calls it.
fn execute(index: u32, checked: bool) -> (Report, Option<Vec<u64>>) {
    let machine = start(|| Bench::new().driver(driver("executes.sys")).checked(checked));
    let file = machine.open(r"\\.\DirqlExecutes").unwrap();
    let answer = file.device_control(0x0022_3000 + 4 * index, &[], LENGTH);
    let words = answer
        .ok()
        .map(|bytes| bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect::<Vec<_>>());
    drop(file);
    (machine.finish(), words)
}

/// It runs, calls code of the image, and runs as it was changed.
fn runs(index: u32) {
    for checked in [false, true] {
        let (report, words) = execute(index, checked);
        report.expect_clean();
        let words = words.unwrap_or_else(|| panic!("no answer\n{report}"));
        // 3 + 5 + 7 + 11, 1 and then 2 for each, and 1000 by the routine it ends in.
        assert_eq!(words[..2], [1030, 1034], "{report}");
    }
}

#[test]
fn code_in_executable_pool_runs_and_runs_as_it_is_changed() {
    runs(0);
}

#[test]
fn pool_of_type_0_is_executable_as_drivers_of_before_windows_8_expect() {
    runs(1);
}

#[test]
fn code_in_executable_pool_of_the_new_routine_runs_across_pages() {
    runs(2);
}

/// Where the copy is called first.
fn line_of_the_call() -> String {
    let source = include_str!("../../../drivers/c/faulty/executes.c");
    let line = source.lines().position(|line| line.contains("Answer->Sum = Sum(")).unwrap();
    format!("(drivers/c/faulty/executes.c:{})", line + 1)
}

/// The call stops the machine; the report, as people read it.
fn stops(index: u32) -> String {
    let mut texts = Vec::new();
    for checked in [false, true] {
        let (report, words) = execute(index, checked);
        assert_eq!((report.outcome(), words), (Outcome::Broken, None), "{report}");
        let verdict = report.expect_verdict();
        let check = verdict.bug_check.unwrap();
        assert_eq!((verdict.rule, check.code), ("execute-of-data", 0xFC), "{report}");
        let target = check.parameters[0];
        let call = &verdict.stack[0];
        assert_eq!(verdict.caller.map(|caller| caller.rip), Some(call.address), "{report}");
        assert!(!call.is_return && call.symbol.starts_with("executes.sys!CallCopy+"), "{report}");
        let text = report.to_string();
        for part in ["ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY (0xFC)", &line_of_the_call()] {
            assert!(text.contains(part), "`{part}` is missing\n{text}");
        }
        assert!(verdict.message.contains(&format!("{target:#x}")), "{report}");
        texts.push(text);
    }
    texts.swap_remove(0)
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing\n{text}");
    }
}

#[test]
fn code_in_pool_that_is_not_executable_stops_windows_and_the_block_is_named() {
    for index in [3, 4] {
        contains(
            &stops(index),
            &["0x0 bytes into a 256-byte nonpaged block 'Exec' at 0x2", "allocated at event"],
        );
    }
    contains(&stops(5), &["0x0 bytes into a 256-byte paged block 'Exec' at 0x2", "allocated at event"]);
}

#[test]
fn code_on_a_drivers_stack_stops_windows_and_the_stack_is_named() {
    contains(&stops(6), &["where memory is not executable: in the stack of the application's thread"]);
}

#[test]
fn code_in_a_data_section_stops_windows_and_the_variable_is_named() {
    contains(&stops(7), &["executes.sys!DataSection"]);
}
