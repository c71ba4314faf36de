//! Stories of performance counters: a compiled provider (`drivers/c/counters.c`) with instances that stay open and with a callback, what a program
//! that shows counters sees of both, and what the provider does wrong.

use dirql::{Bench, CounterInstance, CounterQuestion, Error, Report};

use super::rig::{self, driver, play, start, try_play};

fn bench() -> Bench {
    Bench::new().driver(driver("counters.sys")).checked(true)
}

/// A script in which `story NAME` has the driver tell that story.
fn commands(text: &str) -> String {
    let line = |line: &str| match line.trim().strip_prefix("story ") {
        Some(name) => format!("{} expect prefix u32:0\n", rig::command("c", name)),
        None => format!("{line}\n"),
    };
    let body: String = text.lines().map(line).collect();
    format!("open \\\\.\\DirqlCounters as c\n{body}")
}

/// Carried out, clean, with nothing left.
fn run(text: &str) {
    let machine = start(bench);
    play(&machine, &commands(text));
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

fn report_of(text: &str) -> Report {
    let machine = start(bench);
    let _ = try_play(&machine, &commands(text));
    machine.finish()
}

#[test]
fn instances_that_are_open_are_read_where_the_driver_counts() {
    run("counters \"Dirql Ports\" expect STATUS_NOT_FOUND
         story OpensPorts
         counters \"Dirql Ports\" expect u32:7 + u64:12 + u32:8 + u64:13
         story CountsOn
         counters \"dirql ports\" expect u32:7 + u64:12 + u32:9 + u64:0x10000000d
         counters \"Dirql Ports\" instance \"*1\" expect u32:9 + u64:0x10000000d
         counters \"Dirql Ports\" instance port0 expect u32:7 + u64:12
         counters \"Dirql Ports\" id 1 names expect u32:1 + utf16:\"Port1\" + u16:0
         counters \"Dirql Ports\" instance \"Disk?\" expect bytes 0
         story ClosesPort
         counters \"Dirql Ports\" names expect u32:1 + utf16:\"Port1\" + u16:0
         story ClosesAll
         counters \"Dirql Ports\" expect STATUS_NOT_FOUND");
}

#[test]
fn a_callback_adds_instances_when_somebody_asks() {
    run("story RegistersQueues
         counters \"Dirql Queues\" expect u32:100 + u32:200
         counters \"Dirql Queues\" instance queue1 expect u32:200
         counters \"Dirql Queues\" names expect u32:10 + utf16:\"Queue0\" + u16:0 + u32:11 + utf16:\"Queue1\" + u16:0
         story WasAsked");
}

#[test]
fn a_program_sees_names_numbers_and_each_counter() {
    let machine = start(bench);
    play(&machine, &commands("story RegistersQueues"));
    let all = CounterQuestion { mask: "*".into(), id: None, names_only: false };
    let seen = machine.counters("Dirql Queues", &all).unwrap();
    let one = |name: &str, id, value: u32| CounterInstance {
        name: name.into(),
        id,
        counters: vec![(5, value.to_le_bytes().to_vec())],
    };
    assert_eq!(seen, [one("Queue0", 10, 100), one("Queue1", 11, 200)]);
    let only = CounterQuestion { id: Some(11), ..all.clone() };
    assert_eq!(machine.counters("Dirql Queues", &only).unwrap(), seen[1..]);
    let missing = machine.counters("Missing", &all);
    assert!(matches!(missing, Err(Error::Status { status: 0xC000_0225, .. })), "{missing:?}");
    machine.finish().expect_clean();
}

#[test]
fn a_handle_of_counters_is_used_until_it_is_closed() {
    for (script, ddi) in [
        ("story ClosesTwice", "PcwCloseInstance"),
        ("story ClosesBehind", "PcwCloseInstance"),
        ("story RegistersQueues\ncounters \"Dirql Queues\"\nstory AddsLater", "PcwAddInstance"),
        ("story UnregistersTwice", "PcwUnregister"),
    ] {
        let report = report_of(script);
        let verdict = report.expect_verdict();
        assert_eq!(verdict.rule, "not-a-counter-handle", "{report}");
        assert!(verdict.message.starts_with(ddi), "{report}");
    }
}

#[test]
fn values_that_are_freed_while_their_instance_is_open_are_told_when_they_are_read() {
    let report = report_of("story FreesValues\ncounters \"Dirql Ports\"");
    assert_eq!(report.expect_verdict().rule, "use-after-free", "{report}");
}

#[test]
fn a_counter_set_that_is_left_registered_is_told_and_its_callback_ends_the_run() {
    let report = report_of("story LeavesPorts");
    let leak = report.findings.iter().find(|finding| finding.rule == "counter-set-leak");
    assert!(leak.is_some_and(|leak| leak.message.contains("Dirql Ports")), "{report}");
    let report = report_of("story LeavesQueues");
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "unload-still-called", "{report}");
    assert!(verdict.message.contains("PcwCallback"), "{report}");
}
