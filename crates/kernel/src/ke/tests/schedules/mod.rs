//! `docs/schedules.md`, line by line: what is possible is found by searching a small machine, what is impossible is
//! found neither so nor by hundreds of random policies.
//!
//! A scenario is a compiled driver whose routines leave letters in a log. The search tries up to two answers that are not
//! the default, a preemption at every instruction (with one further answer), and a device that asserts its line at every
//! instruction. A thread of the system's own takes no part.

mod dpcs;
mod interrupts;
mod policy;
mod threads;
mod times;
mod watch;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use abi::DriverPtr;
use image::Image;

use super::interrupts::connection;
use crate::Cx;
use crate::event::Role;
use crate::ke::calls::callout;
use crate::ke::irq::interrupt::{self, Connection, irql_of_line, vector_of_line};
use crate::ke::rig::{Driver, Line, Rig, SECOND_LINE, compile, message, settle, spawn};
use crate::ke::sched::scheduler;
use policy::{Plan, Policy};
use watch::Watch;

/// What the drivers of these scenarios have in common.
const PROLOGUE: &str = "
    void KeSetTargetProcessorDpc(void *, char); void KeAcquireSpinLockAtDpcLevel(u64 *); void KeReleaseSpinLockFromDpcLevel(u64 *);
    char log[64]; volatile int used; u64 event[2][3], dpc[2][8], timer[8]; i64 zero; void *object;
    static void say(char letter) { log[__sync_fetch_and_add(&used, 1) & 63] = letter; }
    static inline void out(unsigned short p, u32 v) { __asm__ volatile(\"outl %0, %1\" :: \"a\"(v), \"d\"(p)); }
    ROUTINE char *text(void) { return log; } ROUTINE void connected(void *interrupt) { object = interrupt; }
";

/// Seeds that are tried.
const SEEDS: u64 = 150;

/// A thread of a scenario: routine, argument, priority, processors.
type Part = (&'static str, u64, u8, u64);

/// Anywhere.
const ALL: u64 = u64::MAX;

/// A driver, and what runs of it at once.
struct Scenario {
    image: Image,
    processors: u32,
    threads: Vec<Part>,
    /// Runs before everything else.
    first: Option<&'static str>,
    /// The routine of the device's line, and where it runs.
    isr: Option<(&'static str, u64)>,
    /// The routine of the second line.
    second_isr: Option<&'static str>,
    /// As [`Watch::new`] has it.
    drains: bool,
}

/// What came of one run.
struct Outcome {
    log: String,
    /// How many answers each question had.
    asked: Vec<u32>,
    /// Nanoseconds from the start to the end.
    length: u64,
}

impl Scenario {
    fn new(source: &str, threads: &[Part]) -> Self {
        let image = compile("scenario", &format!("{PROLOGUE}{source}"));
        let threads = threads.to_vec();
        Self { image, processors: 1, threads, first: None, isr: None, second_isr: None, drains: true }
    }

    fn on(self, processors: u32) -> Self {
        Self { processors, ..self }
    }

    fn first(self, routine: &'static str) -> Self {
        Self { first: Some(routine), ..self }
    }

    fn interrupted_by(self, routine: &'static str, affinity: u64) -> Self {
        Self { isr: Some((routine, affinity)), ..self }
    }

    fn and_by(self, routine: &'static str) -> Self {
        Self { second_isr: Some(routine), ..self }
    }

    /// DPCs go to other processors, or are held back by `cli`.
    fn undrained(self) -> Self {
        Self { drains: false, ..self }
    }

    fn run(&self, policy: &Policy, rise: Option<u64>) -> Outcome {
        let line = Rc::new(RefCell::new(Line::default()));
        let rig =
            Rig { line: line.clone(), chooser: Box::new(policy.clone()), ..Rig::processors(self.processors) };
        let outcome = rig.run(|cx| {
            let image = engine::outside(|| self.image.clone());
            let driver = Driver::load_image(cx, "scenario", image);
            if let Some(first) = self.first {
                driver.run(cx, first, &[]);
            }
            if let Some((routine, affinity)) = self.isr {
                let connection = Connection { affinity, ..connection(driver.at(routine)) };
                let object = interrupt::connect(cx, &connection).unwrap().unwrap();
                driver.run(cx, "connected", &[object.address]);
            }
            if let Some(routine) = self.second_isr {
                let (vector, irql) = (vector_of_line(SECOND_LINE), irql_of_line(SECOND_LINE));
                let second =
                    Connection { vector, irql, synchronize_irql: irql, ..connection(driver.at(routine)) };
                interrupt::connect(cx, &second).unwrap().unwrap();
            }
            let watch = self.begin(cx, &driver);
            let start = cx.engine().now();
            line.borrow_mut().at = rise.map(|after| start + after);
            policy.activate();
            settle(cx);
            let length = cx.engine().now() - start;
            assert_eq!(cx.nt().verdict().map(|verdict| verdict.rule), None, "{}", message(cx));
            let log = text(cx, &driver);
            engine::outside(|| {
                assert_eq!(watch.complaints(), Vec::<String>::new(), "of {log}");
                (log.clone(), length)
            })
        });
        Outcome { log: outcome.0, asked: policy.asked(), length: outcome.1 }
    }

    /// Makes the threads, all of them ready.
    fn begin(&self, cx: &mut Cx<'_>, driver: &Driver) -> Watch {
        let watch = engine::outside(|| Watch::new(self.drains));
        for (name, argument, priority, affinity) in self.threads.clone() {
            let routine = DriverPtr::new(driver.at(name));
            let strand = spawn(cx, name, move |cx| {
                callout::call_routine(cx, Role::Test, routine, 0, &[argument]).map(|_| ())
            });
            cx.with(|k| {
                k.ke.sched.take_from_ready(strand);
                let thread = k.ke.sched.threads_mut().get_mut(strand).expect("just made");
                (thread.base_priority, thread.own_affinity) = (priority, affinity);
                scheduler::make_ready(k, strand);
            });
            engine::outside(|| watch.thread(strand, priority, affinity));
        }
        let reader = engine::outside(|| Box::new(watch.clone()));
        cx.nt().subscribe(reader);
        watch
    }

    /// The logs of all runs that deviate from the defaults in little; the line rises at each instruction, if it has a
    /// routine.
    fn search(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut plans = self.plans();
        while let Some((plan, left)) = plans.pop() {
            let policy = Policy::plan(plan.clone());
            let outcome = self.run(&policy, plan.rise);
            found.insert(outcome.log);
            if left == 0 || (plan.preempt.is_some() && !policy.reached()) {
                continue;
            }
            let from = plan.answers.last_key_value().map_or(0, |(last, _)| last + 1);
            for (number, n) in outcome.asked.into_iter().enumerate().skip(from) {
                for answer in 1..n {
                    let mut further = plan.clone();
                    further.answers.insert(number, answer);
                    plans.push((further, left - 1));
                }
            }
        }
        found
    }

    /// Where the search begins, with how many further answers.
    fn plans(&self) -> Vec<(Plan, u32)> {
        let policy = Policy::plan(Plan::default());
        let whole = self.run(&policy, None).length;
        assert!(whole <= 2_000, "a scenario is short: {whole} instructions");
        let rise = |at| Plan { rise: Some(at), ..Plan::default() };
        let mut plans = match self.isr {
            Some(_) => (1..=whole + 1).map(|at| (rise(at), 1)).collect(),
            None => vec![(Plan::default(), 2)],
        };
        for strand in policy.strands() {
            for at in 1..=whole {
                let preempt = Some((strand, at));
                if self.isr.is_none() {
                    plans.push((Plan { preempt, ..Plan::default() }, 1));
                } else if self.processors > 1 {
                    // Another processor takes the interrupt when it gets its turn.
                    plans.push((Plan { preempt, ..rise(1) }, 1));
                }
            }
        }
        plans
    }

    /// The logs of random policies.
    fn sample(&self) -> BTreeSet<String> {
        let run = |seed: u64| {
            let mut state = seed + 1;
            let rise = self.isr.map(|_| 1 + policy::next(&mut state) % 300);
            self.run(&Policy::random(seed), rise).log
        };
        (0..SEEDS).map(run).collect()
    }

    /// The search finds all of these; neither it nor random policies find any other, but `rare` ones.
    fn is(&self, possible: &[&str], rare: &[&str]) {
        let found = self.search();
        let lost: Vec<_> = possible.iter().filter(|log| !found.contains(**log)).collect();
        assert!(lost.is_empty(), "possible, and not found: {lost:?}; found {found:?}");
        let seen = |log: &&String| !possible.contains(&log.as_str()) && !rare.contains(&log.as_str());
        let sampled = self.sample();
        let wrong: Vec<_> = found.union(&sampled).filter(seen).collect();
        assert!(wrong.is_empty(), "impossible, and found: {wrong:?}");
    }

    /// What holds of every log, found by the search or by random policies.
    fn always(&self, holds: impl Fn(&str) -> bool) {
        let wrong: Vec<_> = self.search().union(&self.sample()).filter(|log| !holds(log)).cloned().collect();
        assert!(wrong.is_empty(), "impossible, and found: {wrong:?}");
    }
}

fn text(cx: &mut Cx<'_>, driver: &Driver) -> String {
    let at = driver.run(cx, "text", &[]).expect("it answers where the log is");
    let bytes = cx.read_bytes(at, 64).unwrap();
    String::from_utf8(bytes.into_iter().take_while(|byte| *byte != 0).collect()).unwrap()
}
