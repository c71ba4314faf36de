//! Random traffic to shipped drivers, by every path that the kernel has for it: the fast paths that a run takes, with the default readers
//! and with none; the same with readers of all events; and the general paths, which a checked machine takes. All must come to the same:
//! events, sums, prints, findings, the memory of drivers, the clock.
//!
//! `DIRQL_TRAFFIC` says how many scripts are made for each driver, `DIRQL_FIRST_SEED` from which seed on.

use dirql::explore::{Policy, Rng};
use dirql::readers::{Json, Sink, SymbolBook};
use dirql::{Bench, Outcome, Report, ScriptText};

use super::rig::traffic::{self, Traffic};
use super::rig::{Buffer, wanted};

/// Scripts for each driver.
const SCRIPTS: u64 = 12;

/// What came of a run, as far as no reader is needed for it.
fn seen((memory, report): &(u128, Report)) -> String {
    let sums = &report.sums;
    let verdicts = report.verdict.iter().chain(&report.findings).collect::<Vec<_>>();
    format!(
        "memory {memory:032x} {:?} {verdicts:?} {:?}\n{} ns, level {}, {:?}\n{:?}",
        report.failure, report.our_fault, sums.time, sums.irql_high_water, sums.exports, report.prints
    )
}

/// The same with what the default readers say.
fn observed(run: &(u128, Report)) -> String {
    let Report { trace_hash, memory_hash, sums, .. } = &run.1;
    format!("{}\ntrace {trace_hash:032x}, memory {memory_hash:032x}\n{}", seen(run), sums.json())
}

/// A machine on which a script is played by a policy.
struct Story<'s> {
    traffic: Traffic,
    script: &'s str,
    policy: Policy,
    processors: u32,
}

impl Story<'_> {
    /// What came of it, and the hash of memory before the handles are closed.
    fn run(&self, change: impl FnOnce(Bench) -> Bench) -> (u128, Report) {
        let bench = change(self.traffic.bench(self.processors).policy(self.policy));
        let machine = bench.start().unwrap();
        machine.perform(Some(ScriptText::typed(self.script).play().unwrap()));
        (machine.memory_hash(), machine.finish())
    }

    /// With a reader of all events: their lines, and the report.
    fn traced(&self, checked: bool) -> (String, (u128, Report)) {
        let lines = Buffer::default();
        let json = Json::new(Sink::new(lines.clone()), SymbolBook::default());
        let report =
            self.run(|bench| bench.checked(checked).rules(&rules::named("all").unwrap()).reader(json));
        (lines.text(), report)
    }

    fn compare(&self) {
        let Self { traffic: Traffic { sys, .. }, script, policy, processors } = self;
        let what = format!("{sys}, {policy}, {processors} processors");
        let plain = self.run(|bench| bench);
        assert_eq!(
            (&plain.1.failure, plain.1.outcome()),
            (&None, Outcome::Clean),
            "{what}\n{script}\n{}",
            plain.1
        );
        let unobserved = self.run(Bench::unobserved);
        let (fast_lines, fast) = self.traced(false);
        let (general_lines, general) = self.traced(true);
        let differs = fast_lines.lines().zip(general_lines.lines()).find(|(fast, general)| fast != general);
        assert_eq!(differs, None, "{what}: an event differs\n{script}");
        assert_eq!(fast_lines.lines().count(), general_lines.lines().count(), "{what}\n{script}");
        assert_eq!(observed(&fast), observed(&general), "{what}: fast and general paths\n{script}");
        assert_eq!(observed(&plain), observed(&fast), "{what}: default readers and all\n{script}");
        assert_eq!(seen(&plain), seen(&unobserved), "{what}: default readers and none\n{script}");
    }
}

fn both_ways(traffic: Traffic) {
    let first = wanted("DIRQL_FIRST_SEED", 1);
    for seed in first..first + wanted("DIRQL_TRAFFIC", SCRIPTS) {
        let mut rng = Rng::new(seed);
        let script = traffic.round(&mut rng);
        let policy = match seed % 3 {
            0 => Policy::default(),
            1 => Policy::random(seed),
            _ => Policy::pct(seed, 3, 1000),
        };
        let processors = [1, 2, 8][usize::try_from(seed / 3 % 3).unwrap()];
        Story { traffic, script: &script, policy, processors }.compare();
    }
}

#[test]
fn the_rust_driver_of_the_pci_9052() {
    both_ways(traffic::PCI9052);
}

#[test]
fn the_c_driver_of_the_pci_9052() {
    both_ways(traffic::PCILINE);
}

#[test]
fn the_rust_driver_of_the_educational_device() {
    both_ways(traffic::EDU_RUST);
}

#[test]
fn the_c_driver_of_the_educational_device() {
    both_ways(traffic::EDU);
}

#[test]
fn the_c_driver_of_the_bench_card() {
    both_ways(traffic::CARD);
}

#[test]
fn the_rust_driver_of_the_bench_card() {
    both_ways(traffic::BENCH_RUST);
}

#[test]
fn a_frameworks_client_of_the_educational_device() {
    both_ways(traffic::KMDF_EDU);
}

#[test]
fn a_frameworks_client_without_hardware() {
    both_ways(traffic::KMDF_ECHO);
}

#[test]
fn the_driver_with_messages() {
    both_ways(traffic::MESSAGE);
}

#[test]
fn the_driver_with_a_queue() {
    both_ways(traffic::QUEUE);
}

#[test]
fn the_driver_of_the_benchmarks() {
    both_ways(traffic::BENCH);
}
