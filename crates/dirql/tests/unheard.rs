//! What drivers do by themselves while no reader listens (levels, spin locks) is what they do when one reads every call: the
//! same verdicts with the same moments, the same time, the same numbers of events.

use dirql::readers::Sums;
use dirql::{Bench, Machine, Report};
use kernel::event::{Event, Kind, Reader, Stamp};

use super::rig::kmdf::{ECHOES, OPEN_ECHO, commit, echo, stand_in};
use super::rig::{self, driver, play, start_unheard, try_play};

/// Gets each call and each change of level.
struct Listener;

impl Reader for Listener {
    fn wants(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Call | Kind::Return | Kind::Irql)
    }

    fn event(&mut self, _stamp: &Stamp, _event: &Event) {}
}

fn with_listener(bench: Bench, listened: bool) -> Bench {
    let bench = bench.unobserved();
    if listened { bench.reader(Listener) } else { bench }
}

/// All findings about the driver, with the moments they refer to.
fn findings(report: &Report) -> Vec<String> {
    let verdicts = report.verdict.iter().chain(&report.findings);
    verdicts.map(|verdict| format!("{verdict:?}")).collect()
}

/// The requests with these control codes.
fn codes(codes: impl Iterator<Item = u32>) -> Vec<String> {
    codes.map(|code| format!("ioctl f {code:#x}")).collect()
}

/// What comes of the driver's misdeeds, which these commands ask for, with a listener and without.
fn compare(sys: &str, device: &str, commands: Vec<String>) {
    for command in commands {
        let [unheard, listened] = [false, true].map(|listened| {
            let machine = start_unheard(|| with_listener(Bench::new().driver(driver(sys)), listened));
            // What goes wrong stands in the report.
            let _ = try_play(&machine, &format!(r"open \\.\{device} as f; {command}"));
            findings(&machine.finish())
        });
        assert_eq!(unheard, listened, "{command}");
    }
}

#[test]
fn verdicts_on_locks_and_levels_are_the_same_unheard() {
    compare("faults.sys", "DirqlFaults", codes((0..40).map(|number| 0x0022_2800 + 4 * number)));
    let machine = start_unheard(|| Bench::new().driver(driver("locks.sys")));
    let misuses = rig::stories(&machine, r"\\.\DirqlLocks").unwrap();
    machine.finish().expect_clean();
    let misuses = misuses.iter().skip_while(|name| *name != "AloneTwice").map(|name| rig::command("f", name));
    compare("locks.sys", "DirqlLocks", misuses.collect());
}

#[test]
fn what_is_left_behind_refers_to_the_same_moments_unheard() {
    compare("leaves.sys", "DirqlLeaves", codes((0..15).map(|number| 0x0022_3400 + 4 * number)));
}

/// Where a machine stands: time, instructions, calls, the number of the next event; and how many calls were short.
fn standing(machine: &Machine) -> ([u64; 4], u64) {
    machine
        .with_kernel(|cx| {
            let engine = cx.engine();
            let standing = [engine.now(), engine.retired(), engine.calls(), cx.next_event()];
            Ok((standing, engine.short_calls()))
        })
        .unwrap()
}

#[test]
fn time_calls_and_events_go_on_alike_unheard() {
    const IRQL_CALL: u32 = 0x0022_2C18;
    const SPIN: u32 = 0x0022_2C1C;
    const ROUNDS: u32 = 1000;
    let [(unheard, short), (listened, none)] = [false, true].map(|listened| {
        let bench = || with_listener(Bench::new().driver(driver("bench.sys")).device("pci9052"), listened);
        let machine = start_unheard(bench);
        let file = machine.open(r"\\.\DirqlBench").unwrap();
        for code in [SPIN, IRQL_CALL] {
            file.device_control(code, &ROUNDS.to_le_bytes(), 0).unwrap();
        }
        file.close().unwrap();
        let (standing, short) = standing(&machine);
        let report = machine.finish();
        report.expect_clean();
        let Sums { exports, irql_high_water, time, .. } = report.sums;
        assert!(exports["KfRaiseIrql"] >= u64::from(ROUNDS), "{exports:?}");
        ((standing, exports, irql_high_water, time), short)
    });
    assert_eq!(unheard, listened);
    assert_eq!(none, 0);
    // But for the first of each place, where a call by a register leads is not known yet. `cargo xtask coverage` hears all.
    let all_heard = std::env::var_os("DIRQL_COVERAGE").is_some();
    assert!(all_heard || short > u64::from(4 * ROUNDS - 10), "{short} calls were short");
}

/// Gets nothing but these.
struct Kinds(&'static [Kind]);

impl Reader for Kinds {
    fn wants(&self, kind: Kind) -> bool {
        self.0.contains(&kind)
    }

    fn event(&mut self, _stamp: &Stamp, _event: &Event) {}
}

/// Requests of a framework's client: what it calls and what is called of it goes on without the kernel where no reader reads it.
#[test]
fn calls_between_a_framework_and_its_client_go_on_alike_unheard() {
    const REQUESTS: usize = 100;
    let readers: [&'static [Kind]; 6] = [
        &[],
        &[Kind::Ddi],
        &[Kind::Enter],
        &[Kind::Leave],
        &[Kind::Ddi, Kind::Enter, Kind::Leave],
        &[Kind::Call, Kind::Return, Kind::Irql],
    ];
    let requests = "ioctl e 0x222000 in text:back out 8 expect text:back; write e text:kept; read e 4 expect text:kept\n";
    let runs = readers.map(|kinds| {
        let machine = start_unheard(|| echo(ECHOES[1]).unobserved().reader(Kinds(kinds)));
        play(&machine, &format!("{OPEN_ECHO}\n{}close e", requests.repeat(REQUESTS)));
        let (standing, _) = standing(&machine);
        let answered = machine.with_kernel(|cx| Ok(cx.engine().answered_calls())).unwrap();
        let report = machine.finish();
        report.expect_clean();
        let functions =
            ["WdfRequestRetrieveInputBuffer", "WdfRequestRetrieveOutputBuffer", "WdfIoQueueGetDevice"];
        let called = functions.map(|name| report.sums.exports[name]);
        assert_eq!(called[0], 2 * REQUESTS as u64);
        ((standing, report.sums.exports, report.sums.time), answered)
    });
    for (run, kinds) in runs.iter().zip(readers) {
        assert_eq!(run.0, runs[0].0, "{kinds:?}");
    }
    if std::env::var_os("DIRQL_COVERAGE").is_some() {
        return; // all is read
    }
    let [none, ddis, before, behind, all, calls] = runs.map(|(_, answered)| answered);
    let callbacks = 2 * 3 * REQUESTS as u64;
    assert!(none > callbacks + 15 * REQUESTS as u64, "{none} were answered");
    assert!((callbacks..callbacks + 10).contains(&ddis), "only callbacks are answered: {ddis}");
    assert_eq!((none - before) + (none - behind), ddis);
    assert_eq!((all, calls), (0, 0));
}

/// The function of the framework that a verdict names is known by a note that host code has made.
#[test]
fn verdicts_name_the_frameworks_function_unheard() {
    for (number, function) in
        [(3, "WdfWaitLockAcquire"), (16, "WdfVerifierDbgBreakPoint"), (17, "WdfVerifierKeBugCheck")]
    {
        let [unread, read] = [&[][..], &[Kind::Ddi]].map(|kinds| {
            let bench = || Bench::new().driver(driver("kmdf_faulty.sys")).framework(stand_in());
            let machine = start_unheard(|| bench().unobserved().reader(Kinds(kinds)));
            let _ = try_play(&machine, &commit(number, true));
            let report = machine.finish();
            format!("{:?}", report.verdict)
        });
        assert!(unread.contains(&format!("ddi: Some(\"{function}\")")), "{function}: {unread}");
        assert_eq!(unread, read, "{function}");
    }
}
