//! What drivers ask the system about itself, as a compiled driver does (`drivers/c/system.c`): processes, modules, the kernel's own image,
//! objects by their names.

use std::cell::RefCell;
use std::rc::Rc;

use dirql::{Bench, Report};
use kernel::event::{Class, Event, Kind, Reader, Stamp};

use super::rig::{self, driver, start};

fn bench() -> Bench {
    Bench::new().driver(driver("system.sys")).processors(2)
}

/// One story of the driver's table, with so many checks at least.
fn tell(story: &str, checks: u32) {
    let machine = start(bench);
    rig::tell(machine, r"\\.\DirqlSystem", story, checks, "");
}

/// How a story ends that does not.
fn stopped_on(bench: impl Fn() -> Bench, story: &str) -> Report {
    let machine = start(bench);
    let _ = rig::try_play(&machine, &format!(r"open \\.\DirqlSystem as s; {}", rig::command("s", story)));
    machine.finish()
}

/// The same, on the usual machine.
fn stopped(story: &str) -> Report {
    stopped_on(bench, story)
}

#[test]
fn the_system_tells_its_size_its_time_and_its_debugger() {
    tell("Information", 19);
}

#[test]
fn processes_are_listed_with_their_threads_and_names() {
    tell("ListOfProcesses", 18);
}

#[test]
fn modules_are_listed_the_kernel_first_as_in_the_list_that_drivers_walk() {
    tell("Modules", 15);
}

#[test]
fn the_kernels_image_has_headers_and_exports_that_a_driver_finds_by_itself() {
    tell("KernelImage", 13);
}

#[test]
fn a_directory_of_an_image_is_found_in_memory_and_as_in_a_file() {
    tell("OwnImage", 8);
}

#[test]
fn an_export_that_dirql_has_not_is_found_and_says_its_name_when_it_is_called() {
    let report = stopped("WhatIsNotThere");
    let verdict = report.expect_verdict();
    assert!(verdict.message.starts_with("ntoskrnl.exe!ZwCommitTransaction"), "{report}");
    assert!(verdict.message.contains("not implemented by dirql"), "{report}");
}

#[test]
fn a_class_of_information_that_is_not_here_is_told_by_its_number() {
    let report = stopped("UnknownClass");
    let verdict = report.expect_verdict();
    assert!(verdict.message.contains("class 64 of ZwQuerySystemInformation"), "{report}");
}

#[test]
fn an_object_is_found_by_its_name_and_says_it() {
    tell("NamesOfObjects", 12);
}

#[test]
fn a_directory_holds_names_and_goes_with_its_last_handle_unless_it_is_permanent() {
    tell("Directories", 20);
}

#[test]
fn a_symbolic_link_says_where_it_leads() {
    tell("Links", 18);
}

#[test]
fn a_handle_tells_the_counts_the_type_and_the_name_of_its_object() {
    tell("WhatHandlesAre", 10);
}

#[test]
fn a_thread_has_a_process_which_is_found_by_either_number() {
    tell("OwnersOfThreads", 19);
}

#[test]
fn a_thread_remembers_whether_hard_errors_are_shown_and_for_which_device() {
    tell("HardErrors", 10);
}

#[test]
fn memory_is_told_in_ranges_and_a_stack_where_it_begins() {
    tell("Ranges", 8);
}

#[test]
fn a_driver_that_verifier_watches_can_ask_so() {
    let machine = start(|| bench().verifier(kernel::verifier::Verifier::ALL));
    rig::tell(machine, r"\\.\DirqlSystem", "Watched", 2, "");
}

#[test]
fn a_driver_is_told_of_threads_where_they_begin_and_end() {
    tell("ToldOfThreads", 10);
}

#[test]
fn a_driver_is_told_of_processes_until_it_asks_to_be_no_more() {
    let machine = start(bench);
    let say = |story: &str| {
        let handle = machine.open(r"\\.\DirqlSystem").unwrap();
        let result = handle.device_control(rig::TELL_STORY, story.as_bytes(), 8).unwrap();
        assert_eq!(result[..4], [0; 4], "{:?}", machine.prints());
    };
    say("ToldOfProcesses");
    let other = machine.begin_process("other.exe").unwrap();
    let id = machine.process_id(other);
    machine.end_process(other);
    say("NoLongerToldOfProcesses");
    let quiet = machine.begin_process("quiet.exe").unwrap();
    machine.end_process(quiet);
    let prints: Vec<String> = machine.prints();
    let lines: Vec<&String> = prints.iter().filter(|line| line.contains("process")).collect();
    let first =
        machine.prints().iter().find_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0].trim(), format!("system: process {id} of {first} begins, seen in {first}"));
    assert!(lines[1].starts_with(&format!("system: process {id} of {first} ends, seen in ")), "{lines:?}");
    machine.finish().expect_clean();
}

#[test]
fn a_driver_is_told_of_the_image_of_another() {
    let machine = start(|| Bench::new().with(driver("system.sys")).driver(driver("tables.sys")));
    let prints = machine.prints();
    let line = r"system: image \SystemRoot\System32\drivers\tables.sys in 0, properties 103, MZ 1";
    assert!(prints.iter().any(|printed| printed.trim() == line), "{prints:?}");
    machine.finish().expect_clean();
}

#[test]
fn a_routine_that_is_still_told_when_its_driver_is_gone_ends_the_run() {
    let report = stopped("ToldOfProcesses");
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "unload-still-called", "{report}");
    assert!(verdict.message.contains("CreateProcessNotifyRoutine"), "{report}");
}

/// With tables.sys beside it.
fn beside_another() -> Bench {
    bench().with(driver("tables.sys"))
}

#[test]
fn a_driver_has_another_loaded_and_unloaded() {
    let machine = start(beside_another);
    rig::tell(machine, r"\\.\DirqlSystem", "Loading", 13, "");
}

#[test]
fn a_driver_that_another_has_loaded_is_unloaded_at_the_end() {
    let machine = start(beside_another);
    rig::tell(machine, r"\\.\DirqlSystem", "LoadedAgain", 11, "");
}

#[test]
fn a_driver_whose_file_is_not_there_is_not_loaded_and_that_is_said() {
    let machine = start(bench);
    let report = rig::tell(machine, r"\\.\DirqlSystem", "NotOnDisk", 2, "");
    assert!(report.findings.iter().any(|finding| finding.rule == "no-disk"), "{report}");
}

#[test]
fn a_driver_that_has_itself_unloaded_has_a_file_open_on_its_device_and_goes_later() {
    let machine = start(bench);
    rig::tell(machine, r"\\.\DirqlSystem", "UnloadsItself", 1, "");
}

#[test]
fn a_record_of_a_routine_for_bug_checks_is_registered_once() {
    tell("RecordsOfBugChecks", 9);
}

/// The routines for bug checks that were called. A clone is the same memory.
#[derive(Clone, Default)]
struct Called(Rc<RefCell<Vec<&'static str>>>);

impl Reader for Called {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Enter
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        if let Event::Enter { role, .. } = event
            && role.is(Class::BugCheck)
        {
            self.0.borrow_mut().push(role.name());
        }
    }
}

/// How a story ends that stops the system, and what is called then.
fn called_at_the_end(story: &str) -> (Report, Vec<&'static str>) {
    let called = Called::default();
    let report = stopped_on(|| bench().reader(called.clone()), story);
    let called = called.0.take();
    (report, called)
}

const ALL: [&str; 5] = [
    "BugCheckCallback",
    "BugCheckReasonCallback",
    "BugCheckReasonCallback",
    "BugCheckReasonCallback",
    "BugCheckReasonCallback",
];

#[test]
fn routines_for_bug_checks_are_called_at_high_level_when_the_driver_stops_the_system() {
    let (report, called) = called_at_the_end("StopsWithCallbacks");
    let verdict = report.expect_verdict();
    assert_eq!((verdict.rule, called), ("driver-bug-check", ALL.to_vec()), "{report}");
    assert!(!verdict.message.contains("failed"), "{report}");
}

#[test]
fn a_routine_for_bug_checks_that_fails_is_told_with_the_verdict_and_is_the_last() {
    let (report, called) = called_at_the_end("StopsAndFails");
    let verdict = report.expect_verdict();
    assert_eq!((verdict.rule, called.len()), ("driver-bug-check", 1), "{report}");
    assert!(verdict.message.contains("; then its routine for bug checks failed: "), "{report}");
}

#[test]
fn routines_for_bug_checks_are_called_wherever_the_system_stops_and_alike_each_time() {
    let (report, called) = called_at_the_end("StopsInDpc");
    let verdict = report.expect_verdict();
    assert!(verdict.bug_check.is_some() && !verdict.message.contains("failed"), "{report}");
    assert_eq!(called, ALL, "{report}");
    let (again, _) = called_at_the_end("StopsInDpc");
    assert_eq!((report.trace_hash, report.memory_hash), (again.trace_hash, again.memory_hash));
}

#[test]
fn a_driver_is_called_again_behind_its_entry_and_behind_the_boot() {
    tell("CalledAgain", 2);
}

#[test]
fn a_device_that_wants_to_be_told_of_the_shutdown_last_is_told_behind_the_others() {
    let machine = start(bench);
    rig::play(
        &machine,
        r"open \\.\DirqlSystem as s; ioctl s 0x223ff8 in text:WantsShutdown out 8; close s; power s5",
    );
    let report = machine.finish();
    let order: Vec<&str> = report
        .prints
        .iter()
        .filter_map(|line| line.trim().split_once("shut down, "))
        .map(|(_, when)| when)
        .collect();
    assert_eq!(order, ["with the others", "at last"], "{report}");
}

#[test]
fn a_file_is_asked_of_itself_by_its_handle_and_its_driver_of_what_only_that_knows() {
    tell("FilesTellOfThemselves", 20);
}

#[test]
fn a_driver_is_told_of_processors_and_that_there_is_no_firmware_to_ask_and_no_debugger() {
    tell("ToldOfTheMachine", 12);
}

#[test]
fn a_provider_of_events_is_registered_and_nobody_traces() {
    tell("NobodyTraces", 16);
}

#[test]
fn each_routine_that_stops_the_system_is_told_by_its_rule() {
    for (story, rule) in [
        ("StopsPlainly", "driver-bug-check"),
        ("Asserts", "assertion-failed"),
        ("Breaks", "breakpoint"),
        ("BreaksWithStatus", "breakpoint"),
    ] {
        let report = stopped(story);
        assert_eq!(report.expect_verdict().rule, rule, "{report}");
    }
}

#[test]
fn the_system_says_how_large_it_is_and_which_devices_it_has() {
    tell("WordsOfTheSystem", 3);
}
