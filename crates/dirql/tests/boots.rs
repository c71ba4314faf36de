//! One machine booted again and again (`Bench::boots`): what comes of each policy is what comes of a machine of its own, whatever was
//! run in it before: events, memory, choices, and every word of the report.

use std::cell::RefCell;
use std::rc::Rc;

use dirql::explore::{Choices, Policy, Recorder};
use dirql::{Bench, Machine, Outcome, Play, Report, ScriptText};
use engine::{Chooser, Tracking};

use super::rig::{self, QUEUE, driver, start};

/// Seeds of each policy, in each kind of machine.
const SEEDS: u64 = 2;

/// Who writes last is a matter of who goes first.
const RACE: &str = r#"open \\.\DirqlLegacy as one
    open \\.\DirqlLegacy as two
    a: write one text:"aaaa" at 0
    b: write two text:"bbbb" at 0
    join a; join b
    read one 4 at 0 expect text:"bbbb""#;

/// What a run has come to: its report in words, its hashes, and the choices of its record.
#[derive(PartialEq, Eq, Debug)]
struct Came {
    report: String,
    trace: u128,
    memory: u128,
    choices: Choices,
}

/// A policy, and where its choices are noted.
fn noted(policy: Policy) -> (Box<dyn Chooser>, Rc<RefCell<Choices>>) {
    let choices = Rc::new(RefCell::new(Choices::default()));
    let log = Rc::clone(&choices);
    let recorder = Recorder::new(policy.chooser(), move |choice| {
        log.borrow_mut().insert(choice);
    });
    (Box::new(recorder), choices)
}

/// The choices of a policy that decides from the script on are left out: a recorder that comes there with it has not counted what was asked before.
fn came(policy: Policy, report: &Report, choices: &RefCell<Choices>) -> Came {
    let choices = if policy.is_at_script() { Choices::default() } else { choices.take() };
    let Report { trace_hash: trace, memory_hash: memory, notes, prints, departures, .. } = report;
    let report = format!("{report}\n{notes:?}\n{prints:#?}\n{departures:#?}");
    Came { report, trace: *trace, memory: *memory, choices }
}

/// Runs of the script by many policies, each in a machine of its own, and all of them in one, in the other order and once more: in checked
/// machines and fast ones. How they ended, the worst first.
fn alike(bench: impl Fn() -> Bench, script: &str) -> Vec<Outcome> {
    let play: Play = ScriptText::typed(script).play().unwrap();
    let policies: Vec<Policy> = (1..=SEEDS)
        .flat_map(|seed| [Policy::random(seed), Policy::pct(seed, 3, 1000)])
        .flat_map(|policy| [policy, policy.at_script()])
        .chain([Policy::default(), Policy::failing(1).at_script(), Policy::early().at_script()])
        .collect();
    let mut outcomes = Vec::new();
    for (checked, processors) in [(true, 2), (false, 4)] {
        let bench = || bench().checked(checked).processors(processors).narrated();
        let own = policies.iter().map(|policy| {
            let (chooser, choices) = noted(*policy);
            let report = bench().decided_by(chooser).run(Some(play.clone())).unwrap();
            if policy.failing_calls().is_none() {
                outcomes.push(report.outcome());
            }
            came(*policy, &report, &choices)
        });
        let own: Vec<Came> = own.collect();
        let mut boots = bench().boots().unwrap();
        for (policy, own) in policies.iter().zip(&own).rev().chain(policies.iter().zip(&own)) {
            let (chooser, choices) = noted(*policy);
            let perform = |machine: &Machine| machine.perform(Some(play.clone()));
            let ((), report) = match policy.is_at_script() {
                true => boots.boot_to_script(chooser, perform).unwrap(),
                false => boots.boot(chooser, perform).unwrap(),
            };
            assert_eq!(
                &came(*policy, &report, &choices),
                own,
                "{policy}, checked: {checked}, processors: {processors}"
            );
        }
    }
    outcomes.sort_unstable();
    outcomes.dedup();
    outcomes
}

#[test]
fn a_race_ends_as_it_does_in_a_machine_of_its_own() {
    let outcomes = alike(|| Bench::new().driver(driver("legacy.sys")), RACE);
    assert_eq!(
        outcomes,
        [Outcome::Unexpected, Outcome::Clean],
        "one order is expected, and there is the other"
    );
}

#[test]
fn a_seed_of_a_search_is_the_run_of_the_same_policy_from_the_script_on() {
    let play: Play = ScriptText::typed(RACE).play().unwrap();
    let policies = || (1..=6).flat_map(|seed| [Policy::random(seed), Policy::pct(seed, 3, 100)]);
    let bench = || Bench::new().driver(driver("legacy.sys")).processors(2);
    let whole = policies().map(|policy| {
        let report = bench().policy(policy.at_script()).run(Some(play.clone())).unwrap();
        (report.outcome(), report.trace_hash, report.memory_hash)
    });
    let whole: Vec<_> = whole.collect();
    let machine = start(bench);
    let searched = machine.explore(&play, Tracking::Faults, |exploration| {
        let report = policies().map(|policy| exploration.run(policy.at_script().chooser()));
        report.map(|report| (report.outcome(), report.trace_hash, report.memory_hash)).collect::<Vec<_>>()
    });
    assert_eq!(whole, searched.unwrap());
}

#[test]
fn a_verdict_leaves_nothing_behind() {
    let script = r"open \\.\DirqlFaults as f; ioctl f 0x222804";
    assert_eq!(alike(|| Bench::new().driver(driver("faults.sys")), script), [Outcome::Broken]);
}

#[test]
fn a_driver_and_the_one_that_holds_it_are_loaded_anew() {
    let bench = || Bench::new().driver(driver("legacy.sys")).with(driver("holder.sys"));
    let script = r"open \\.\DirqlHolder as holder; ioctl holder 0x222000; close holder";
    assert_eq!(alike(bench, script), [Outcome::Clean]);
}

#[test]
fn a_card_is_as_it_was_delivered() {
    let bench = || Bench::new().driver(driver("pciline.sys")).inf(driver("pciline.inf")).device("pci9052");
    let script = r"open \\.\PciLine0 as a
        open \\.\PciLine0 as b
        t: write a text:hello at 0; t: read a 5 at 0
        u: write b hex:07 at 9
        write a hex:08 at 20
        join t; join u
        surprise-remove";
    assert_eq!(alike(bench, script), [Outcome::Clean]);
}

#[test]
fn a_bus_master_and_its_memory_are_as_they_were() {
    let bench = || Bench::new().driver(driver("edu.sys")).inf(driver("edu.inf")).device("edu");
    let script = r"open \\.\Edu as one
        open \\.\Edu as two
        t: ioctl one 0x223000 in u32:5 out 4 expect u32:120
        u: write two text:abcdefgh at 16; u: read two 8 at 16 expect text:abcdefgh
        join t; join u
        surprise-remove";
    assert_eq!(alike(bench, script), [Outcome::Clean]);
}

#[test]
fn messages_of_a_card_come_as_they_did() {
    let bench =
        || Bench::new().driver(driver("message.sys")).inf(driver("message.inf")).device("bench,msix=4");
    let script = r"open \\.\Message as one; open \\.\Message as two
        a: ioctl one 0x226400 in hex:0f000000
        b: ioctl two 0x226400 in hex:06000000
        join a; join b
        stop-device; start-device";
    assert_eq!(alike(bench, script), [Outcome::Clean]);
}

#[test]
fn queues_timers_and_cancelled_requests_are_as_new() {
    assert_eq!(alike(|| Bench::new().driver(driver("queue.sys")), QUEUE), [Outcome::Clean]);
}

#[test]
fn a_machine_without_a_script_and_a_driver_in_rust_are_as_new() {
    let bench = || Bench::new().driver(driver("pci9052.sys")).inf(driver("pci9052.inf")).device("pci9052");
    assert_eq!(alike(bench, "wait 1ms"), [Outcome::Clean]);
}

#[test]
fn processes_and_handles_that_a_run_leaves_are_none_of_the_next() {
    let leaves = |machine: &Machine| {
        let other = machine.begin_process("other").unwrap();
        machine.within(other, || machine.open(r"\\.\DirqlLegacy").unwrap().write(b"left open").unwrap());
    };
    let own = start(|| Bench::new().driver(driver("legacy.sys")));
    leaves(&own);
    let own = own.finish();
    own.expect_clean();
    let mut boots = rig::boots(Bench::new().driver(driver("legacy.sys")));
    for _ in 0..3 {
        let ((), report) = boots.boot(Policy::default().chooser(), leaves).unwrap();
        assert_eq!((report.trace_hash, report.memory_hash), (own.trace_hash, own.memory_hash), "{report}");
    }
}
