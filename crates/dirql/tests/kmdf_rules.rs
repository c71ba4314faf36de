//! Stories of the judges of KMDF's clients: mistakes are found where they are made, in the client's line, and what clients do right is never accused.

use std::collections::BTreeSet;
use std::io::Write;

use dirql::explore::Policy;
use dirql::rules::{Judge, judges};
use dirql::{Bench, Report, Verifier};
use kernel::event::{Event, Kind, Reader, Stamp};
use kernel::verdict::{Tier, Verdict};

use super::rig::failures::{Failing, whichever_fails};
use super::rig::kmdf::{
    CLASSED_LIFE, ECHO_LIFE, ECHO_PULLED_OUT, ECHOES, EDU_LIFE, EDU_PULLED_OUT, EDUS, FAULTIES, OPEN_ECHO,
    SELF_CHECKED, classed, echo, edu, inf, mistake_before, mistake_on, on_each_framework, run, stand_in,
};
use super::rig::{self, Buffer, driver, play, start};

const REQUESTS: &str = "kmdf-requests";
const CANCELABLE: &str = "kmdf-cancelable";
const LOCKS: &str = "kmdf-locks";
const INIT: &str = "kmdf-device-init";
const WAITS: &str = "kmdf-waits";
const BUFFERS: &str = "kmdf-buffers";

/// A mistake of `kmdf_faulty.sys` before a judge: its number, the judge's rule and tier, the function that made it, and what the message says.
const MISTAKES: [(usize, &str, Tier, &str, &str); 15] = [
    (0, REQUESTS, Tier::Error, "CompletesTwice", "has been completed already"),
    (2, CANCELABLE, Tier::Error, "CompletesWhileCancelable", "can be canceled still"),
    (14, LOCKS, Tier::Error, "ReleasesWhatItDoesNotHold", "is not held by this thread"),
    (15, LOCKS, Tier::Error, "WaitsForItself", "it waits for itself"),
    (19, REQUESTS, Tier::Error, "UsesCompletedRequest", "is gone with that"),
    (20, CANCELABLE, Tier::Error, "MarksTwice", "WdfRequestMarkCancelable: the request"),
    (21, CANCELABLE, Tier::Error, "ForwardsWhileCancelable", "WdfRequestForwardToIoQueue: the request"),
    (22, CANCELABLE, Tier::Verifier, "AsksWhetherCanceled", "WdfRequestIsCanceled: the request"),
    (23, "kmdf-stops", Tier::Verifier, "AcknowledgesNoStop", "EvtIoDeviceControl acknowledges the stop"),
    (24, WAITS, Tier::Warning, "WaitsForQueue", "EvtIoDeviceControl waits for the requests"),
    (25, WAITS, Tier::Verifier, "OnTimer", "EvtTimerFunc of"),
    (26, WAITS, Tier::Verifier, "OnWork", "EvtWorkItem of"),
    (27, BUFFERS, Tier::Advice, "AsksForFile", "has no file"),
    (28, INIT, Tier::Error, "UsesFreedInit", "WdfDeviceInitSetExclusive: the WDFDEVICE_INIT"),
    (29, INIT, Tier::Error, "FreesInitTwice", "WdfDeviceInitFree: the WDFDEVICE_INIT"),
];

fn all() -> Vec<Judge> {
    judges("all").unwrap()
}

/// The only finding of a run, in a verdict or beside it.
fn only_finding(report: &Report) -> &Verdict {
    let all: Vec<&Verdict> = report.verdict.iter().chain(&report.findings).collect();
    let [found] = all[..] else { panic!("one finding was expected: {report}") };
    found
}

#[test]
fn mistakes_are_found_at_the_call_that_makes_them() {
    for (number, rule, tier, function, says) in MISTAKES {
        for checked in [false, true] {
            let report = mistake_before(&judges(rule).unwrap(), number, true, checked);
            let found = only_finding(&report);
            assert_eq!((found.rule, found.tier), (rule, tier), "{report}");
            assert_eq!(report.verdict.is_some(), tier == Tier::Error, "{report}");
            assert!(found.message.contains(says), "{report}");
            let first = &found.stack[0];
            assert!(first.symbol.starts_with(&format!("kmdf_faulty.sys!{function}+")), "{report}");
            assert!(report.to_string().contains("(drivers/c/kmdf_faulty.c:"), "{report}");
        }
    }
}

/// What `docs/kmdf-rules.md` says that no judge is needed for, and no story of `kmdf.rs` tells.
#[test]
fn what_the_kernel_and_the_framework_find_needs_no_judge() {
    for (number, rule) in [(31, "use-after-free"), (32, "critical-region-unpaired"), (33, "driver-bug-check")]
    {
        mistake_before(&[], number, false, true).expect_clean();
        let report = mistake_before(&[], number, true, true);
        assert_eq!(report.expect_verdict().rule, rule, "{report}");
    }
}

/// A run of `kmdf_faulty.sys` before all judges.
fn faulty(script: &str) -> Report {
    let bench = || Bench::new().driver(driver("kmdf_faulty.sys")).framework(stand_in()).rules(&all());
    let machine = start(bench);
    play(&machine, script);
    machine.finish()
}

/// Not: kmdf-buffers
#[test]
fn a_read_has_no_input_and_a_write_no_output() {
    let script = |access: &str| format!(r"open \\.\KmdfFaulty as f; {access} expect any; close f");
    for (right, wrong, function) in
        [("read f 1", "read f 2", "OnRead"), ("write f text:a", "write f text:ab", "OnWrite")]
    {
        faulty(&script(right)).expect_clean();
        let report = faulty(&script(wrong));
        let found = only_finding(&report);
        assert_eq!((found.rule, found.tier), (BUFFERS, Tier::Warning), "{report}");
        assert!(found.stack[0].symbol.starts_with(&format!("kmdf_faulty.sys!{function}+")), "{report}");
    }
}

/// Not: kmdf-device-init
#[test]
fn a_control_device_that_is_never_finished_is_found_when_its_driver_goes() {
    const LEAVES_UNFINISHED: usize = 30;
    mistake_before(&all(), LEAVES_UNFINISHED, false, true).expect_clean();
    let report = mistake_before(&all(), LEAVES_UNFINISHED, true, true);
    let found = only_finding(&report);
    assert_eq!((found.rule, found.tier), (INIT, Tier::Warning), "{report}");
}

/// Not: kmdf-bare-device
#[test]
fn a_device_that_a_client_creates_without_its_framework_is_advised_against() {
    const CREATES_BARE_DEVICE: usize = 35;
    for (framework, of) in on_each_framework(&FAULTIES, &FAULTIES) {
        for checked in [false, true] {
            let create = |wrong| mistake_on(&framework, of, &all(), CREATES_BARE_DEVICE, wrong, checked);
            let report = create(false);
            report.expect_clean();
            assert!(report.findings.is_empty(), "{report}");
            let report = create(true);
            let found = only_finding(&report);
            assert_eq!((found.rule, found.tier), ("kmdf-bare-device", Tier::Advice), "{report}");
            assert!(
                found.stack[0].symbol.starts_with(&format!("{}.sys!CreatesBareDevice+", of.0)),
                "{report}"
            );
        }
    }
}

/// What waits in its manual queue, the one ends in `EvtDeviceSurpriseRemoval`, the other leaves to its cancellation.
///
/// Not: kmdf-surprise-removal
#[test]
fn requests_that_a_surprise_removal_ends_are_advised_against() {
    let script = format!(
        "{OPEN_ECHO}; async m ioctl e 0x222008 out 8; wait 1ms; surprise-remove dirqlkmdfecho#0
        cancel m; join m expect any; close e"
    );
    run(|| echo(ECHOES[1]).rules(&all()), &script);
    let machine = start(|| echo(("kmdf_echo_faulty", "1.15")).rules(&all()));
    play(&machine, &script);
    let report = machine.finish();
    let calls: Vec<&str> =
        report.findings.iter().map(|found| &found.message[..found.message.find(':').unwrap()]).collect();
    assert_eq!(calls, ["WdfIoQueueStop", "WdfRequestComplete"], "{report}");
    for found in &report.findings {
        assert_eq!((found.rule, found.tier), ("kmdf-surprise-removal", Tier::Advice), "{report}");
        assert!(found.stack[0].symbol.starts_with("kmdf_echo_faulty.sys!OnSurpriseRemoval+"), "{report}");
    }
}

#[test]
fn a_verdict_shows_what_the_framework_has_logged_of_its_client() {
    let report = mistake_before(&judges(REQUESTS).unwrap(), 0, true, true);
    assert_eq!(report.expect_verdict().rule, REQUESTS);
    let [log] = &report.framework_logs[..] else { panic!("one client has one log: {report}") };
    assert_eq!(log.client, "kmdf_faulty");
    let numbers: Vec<u32> = log.messages.iter().map(|(number, _)| *number).collect();
    let count = u32::try_from(numbers.len()).unwrap();
    assert!(count >= 4 && numbers.into_iter().eq(1..=count), "{log:?}");
    // The driver is created, one without Plug and Play, and then its device, which is FILE_DEVICE_UNKNOWN.
    let text = report.to_string();
    let (_, shown) = text.split_once("  the framework's log of kmdf_faulty\n").unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[1], "       2  {7D1F0C52-3A64-4B0E-9C11-5E206B8F41D3} 11: 01000000", "{text}");
    assert_eq!(lines[2], "       3  {7D1F0C52-3A64-4B0E-9C11-5E206B8F41D3} 12: 22000000", "{text}");
    assert!(
        report.json_end().contains(r#""framework_logs":[{"client":"kmdf_faulty","messages":[{"number":1,"#)
    );
    let clean = mistake_before(&judges(REQUESTS).unwrap(), 0, false, true);
    assert_eq!(clean.framework_logs, []);
}

/// Not: kmdf-requests, kmdf-cancelable, kmdf-locks, kmdf-device-init, kmdf-waits, kmdf-stops, kmdf-buffers
#[test]
fn what_is_done_right_by_the_same_calls_is_not_accused() {
    for (number, ..) in MISTAKES {
        for checked in [false, true] {
            mistake_before(&all(), number, false, checked).expect_clean();
        }
    }
}

/// Not: kmdf-locks
#[test]
fn a_request_is_sent_without_a_spin_lock() {
    let script = format!("{OPEN_ECHO}; ioctl e 0x22201c in text:down expect any; close e");
    run(|| echo(ECHOES[1]).rules(&all()), &script);
    let machine = start(|| echo(("kmdf_echo_faulty", "1.15")).rules(&all()));
    play(&machine, &script);
    let report = machine.finish();
    let found = only_finding(&report);
    assert_eq!((found.rule, found.tier), (LOCKS, Tier::Warning), "{report}");
    assert!(found.stack[0].symbol.starts_with("kmdf_echo_faulty.sys!"), "{report}");
}

/// Each of these in random schedules, with all judges: clean.
fn lives(bench: impl Fn(usize) -> Bench, script: &str) {
    for seed in rig::seeds(6) {
        let at = usize::try_from(seed).unwrap();
        let how = |bench: Bench| bench.processors(2).policy(Policy::random(seed)).checked(at % 2 == 0);
        run(|| how(bench(at)).rules(&all()), script);
    }
}

#[test]
fn whole_lives_are_not_accused() {
    lives(|at| echo(ECHOES[at % ECHOES.len()]), ECHO_LIFE);
    lives(|at| edu(EDUS[at % EDUS.len()]), EDU_LIFE);
    lives(|_| classed("kmdf_classed"), CLASSED_LIFE);
}

#[test]
fn clients_that_are_pulled_out_are_not_accused() {
    lives(|at| echo(ECHOES[at % ECHOES.len()]), ECHO_PULLED_OUT);
    lives(|at| edu(EDUS[at % EDUS.len()]), EDU_PULLED_OUT);
}

/// A failure may also hide callbacks from the judges.
#[test]
fn clients_whose_calls_fail_are_not_accused() {
    let script = format!(
        "{OPEN_ECHO}
        async r ioctl e 0x222004 in u32:1; async m ioctl e 0x222008 out 8; write e text:abc; ioctl e 0x222010 in text:work out 8
        ioctl e 0x22200c in text:go; power s3; power s0; ioctl e 0x22201c in text:down expect any; join r; join m; close e"
    );
    for which in [Failing::One, Failing::All] {
        assert!(whichever_fails(|| echo(ECHOES[1]).rules(&all()), which, &script) > 20);
    }
}

#[test]
fn stories_that_a_client_checks_itself_are_not_accused() {
    let bench = || Bench::new().driver(driver("kmdf_stories.sys")).framework(stand_in());
    for seed in rig::seeds(2) {
        let how = |bench: Bench| bench.processors(2).policy(Policy::random(seed)).checked(seed % 2 == 0);
        for story in SELF_CHECKED {
            let machine = start(|| how(bench()).rules(&all()));
            play(&machine, r"open \\.\KmdfStories as first; close first");
            rig::tell(machine, r"\\.\KmdfStories", story, 1, &format!("with seed {seed}"));
        }
    }
}

#[test]
fn two_clients_at_once_are_not_accused() {
    let script = format!(
        r"{OPEN_ECHO}; open \\.\KmdfEdu as c
        a: ioctl c 0x223000 in u32:5 out 4 expect u32:120; a: ioctl c 0x223000 in u32:6 out 4 expect u32:720
        b: ioctl e 0x222000 in text:back out 8 expect text:back; b: ioctl e 0x222010 in text:work out 8 expect text:work
        async r ioctl e 0x222004 in u32:1; async m ioctl e 0x222008 out 8
        ioctl e 0x22200c in text:go; power s3; power s0
        join a; join b; join r; join m expect text:go; close c; close e"
    );
    let echo = || inf("kmdf_echo", "kmdf_echo_1_33", "1.33");
    lives(|_| edu(EDUS[0]).device("root").with(driver("kmdf_echo_1_33.sys")).inf(echo()), &script);
}

/// Writes down which requests are completed, one in a line.
struct Completed(Buffer);

impl Reader for Completed {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Ddi
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        if let Event::Ddi { export, arguments, .. } = event
            && kernel::exports::row(*export).is_some_and(|row| row.name.starts_with("WdfRequestComplete"))
        {
            writeln!(self.0, "{:#x}", arguments[1]).unwrap();
        }
    }
}

/// Requests that come by callbacks, and from a manual queue: more than the blocks of pool that are kept back before memory is used again.
#[test]
fn requests_at_the_addresses_of_earlier_ones_are_not_accused() {
    const MANY: usize = 1600;
    let by_callbacks = "write e text:a; ioctl e 0x222000 in text:back out 8\n".repeat(MANY / 2);
    let from_a_queue =
        "async m ioctl e 0x222008 out 8; ioctl e 0x22200c in text:go; join m\n".repeat(MANY / 2);
    for (script, checked) in [(&by_callbacks, false), (&by_callbacks, true), (&from_a_queue, false)] {
        let lines = Buffer::default();
        run(
            || echo(ECHOES[1]).checked(checked).rules(&all()).reader(Completed(lines.clone())),
            &format!("{OPEN_ECHO}\n{script}\nclose e"),
        );
        let text = lines.text();
        let different: BTreeSet<&str> = text.lines().collect();
        assert_eq!(text.lines().count(), MANY);
        assert!(checked || different.len() < MANY, "memory is used again");
    }
}

/// Requests that wait in a manual queue, taken by `WdfIoQueueRetrieveNextRequest` in several threads.
#[test]
fn requests_of_a_manual_queue_are_not_accused() {
    let take = "ioctl e 0x22200c in text:go expect any";
    let script = format!(
        "{OPEN_ECHO}; open interface:{{6D1C2B6E-7E0A-4C1B-9D37-3A54C0F2E815}} as f overlapped
        async m ioctl e 0x222008 out 8; async n ioctl e 0x222008 out 8; async o ioctl e 0x222008 out 8
        a: {take}; a: {take}; a: {take}; b: {take}; b: {take}; cancel n
        join a; join b; {take}; {take}; {take}
        join m expect any; join n expect any; join o expect any
        async p ioctl f 0x222008 out 8; wait 1ms; {take}; join p expect any
        close e; close f"
    );
    lives(|_| echo(ECHOES[1]), &script);
}

#[test]
fn judges_are_attached_by_their_names() {
    let report = |judges: &[Judge]| -> Report { mistake_before(judges, 2, true, false) };
    assert_eq!(report(&[]).expect_verdict().rule, "cancel-routine-set");
    assert_eq!(report(&judges(LOCKS).unwrap()).expect_verdict().rule, "cancel-routine-set");
    assert_eq!(report(&judges(CANCELABLE).unwrap()).expect_verdict().rule, CANCELABLE);
}

/// As Microsoft's framework does, by a lookaside list. Where Driver Verifier watches, a request that is used after its end is found by its memory.
#[test]
fn the_memory_of_a_request_is_the_next_ones_unless_verifier_watches() {
    const MANY: usize = 10;
    let script = format!("{OPEN_ECHO}\n{}\nclose e", "ioctl e 0x222000 in text:back out 8\n".repeat(MANY));
    for (verifier, expected) in [(Verifier::NONE, 1), (Verifier::ALL, MANY)] {
        let lines = Buffer::default();
        run(|| echo(ECHOES[1]).verifier(verifier).reader(Completed(lines.clone())), &script);
        let text = lines.text();
        let different: BTreeSet<&str> = text.lines().collect();
        assert_eq!((text.lines().count(), different.len()), (MANY, expected), "{verifier:?}");
    }
}
