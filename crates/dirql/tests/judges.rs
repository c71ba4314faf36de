//! Readers that judge: what they conclude is a finding like the kernel's own, stops the machine, or is a fault of dirql's; and a machine with
//! all of them goes the way it goes without.

use std::cell::Cell;
use std::rc::Rc;

use dirql::explore::Bounds;
use dirql::{Bench, Outcome, Report, ScriptText, rules as known};
use kernel::event::{Event, Judgement, Kind, Reader, Stamp};
use kernel::verdict::{Tier, Verdict};

use super::rig::{self, driver, start, start_unheard, try_play};

const NAME: &str = r"\\.\DirqlClocks";

/// Concludes the same from each call of this export.
struct Of(&'static str, fn() -> Judgement, bool);

impl Reader for Of {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Call || kind == Kind::Finding
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        let is_called = |row: u32| kernel::exports::row(row).is_some_and(|row| row.name == self.0);
        // A finding is one of the events it reads: that would have no end, if it were asked about those too.
        self.2 = match event {
            Event::Call { export, .. } => is_called(*export),
            _ => true,
        };
    }

    fn judges(&self) -> bool {
        true
    }

    fn judgement(&mut self) -> Option<Judgement> {
        std::mem::take(&mut self.2).then(self.1)
    }
}

/// What comes of the driver's misdeed of this name, with a reader of its own.
fn of(export: &'static str, judgement: fn() -> Judgement, misdeed: &str) -> Report {
    let machine = start(|| Bench::new().driver(driver("clocks.sys")).reader(Of(export, judgement, false)));
    commit(&machine, misdeed);
    machine.finish()
}

/// Has the driver do the misdeed of this name; what goes wrong stands in the report.
fn commit(machine: &dirql::Machine, misdeed: &str) {
    let _ = try_play(machine, &format!("open {NAME} as f; {}", rig::command("f", misdeed)));
}

fn finding(tier: Tier) -> Judgement {
    Judgement::Finding(Box::new(Verdict {
        tier,
        ..Verdict::error("dpc-stalls", "the story's reader says so")
    }))
}

#[test]
fn an_error_stops_a_driver_in_a_loop_that_calls_nothing() {
    const CALLS_NOTHING: &str = "CallsNothing";
    let report = of("KeEnterCriticalRegion", || finding(Tier::Error), CALLS_NOTHING);
    assert_eq!(report.outcome(), Outcome::Broken, "{report}");
    let verdict = report.expect_verdict();
    assert_eq!((verdict.rule, verdict.message.as_str()), ("dpc-stalls", "the story's reader says so"));
    assert!(report.to_string().contains("CallsNothing"), "the stack is that of the moment: {report}");
    assert!(report.sums.time < 1_000_000_000, "a loop would have gone on: {report}");
}

/// Concludes, when the run is over, from how many of its loads there was no unload.
struct AtTheEnd {
    loaded: i32,
    tier: Tier,
}

impl Reader for AtTheEnd {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Image
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        if let Event::Image { name, loaded, .. } = event
            && name == "clocks.sys"
        {
            self.loaded += if *loaded { 1 } else { -1 };
        }
    }

    fn judges(&self) -> bool {
        true
    }

    fn conclusions(&mut self) -> Vec<Judgement> {
        let message = format!("{} images are left", self.loaded);
        let verdict = Verdict { tier: self.tier, ..Verdict::error("dpc-stalls", message) };
        vec![Judgement::Finding(Box::new(verdict))]
    }
}

/// What comes of a run that does this, with a reader that concludes at its end.
fn at_the_end(tier: Tier, what: &str) -> Report {
    let reader = || AtTheEnd { loaded: 0, tier };
    let machine = start(|| Bench::new().driver(driver("clocks.sys")).reader(reader()));
    let _ = try_play(&machine, what);
    machine.finish()
}

#[test]
fn what_is_concluded_when_the_run_is_over_is_a_finding_or_its_verdict() {
    let quiet = format!("open {NAME} as f; close f");
    let report = at_the_end(Tier::Warning, &quiet);
    let [finding] = report.findings.as_slice() else { panic!("{report}") };
    assert_eq!(finding.message, "0 images are left", "the driver was unloaded before");
    let report = at_the_end(Tier::Error, &quiet);
    assert_eq!(report.outcome(), Outcome::Broken, "{report}");
    assert_eq!(report.expect_verdict().message, "0 images are left");
}

#[test]
fn nothing_is_concluded_of_a_run_that_was_stopped() {
    let breaks = format!("open {NAME} as f; {}", rig::command("f", "OneDpcForever"));
    let report = at_the_end(Tier::Error, &breaks);
    assert_ne!(report.expect_verdict().message, "0 images are left", "{report}");
}

#[test]
fn what_is_no_error_is_a_finding_and_the_run_goes_on() {
    const STALLS: &str = "StallsInTime";
    for tier in [Tier::Verifier, Tier::Warning, Tier::Advice] {
        let judgement = match tier {
            Tier::Verifier => || finding(Tier::Verifier),
            Tier::Warning => || finding(Tier::Warning),
            _ => || finding(Tier::Advice),
        };
        let report = of("KeFlushQueuedDpcs", judgement, STALLS);
        assert_eq!(report.outcome(), Outcome::Clean, "{report}");
        let tiers: Vec<Tier> = report.findings.iter().map(|finding| finding.tier).collect();
        assert_eq!(tiers, [tier], "{report}");
    }
}

#[test]
fn a_fault_of_dirqls_own_is_no_drivers() {
    let report =
        of("KeFlushQueuedDpcs", || Judgement::Fault("the story's reader says so".to_owned()), "StallsInTime");
    assert_eq!(report.outcome(), Outcome::OurFault, "{report}");
    assert_eq!(report.our_fault.as_deref(), Some("the story's reader says so"));
    assert!(report.verdict.is_none(), "{report}");
}

#[test]
fn a_search_goes_on_behind_a_schedule_that_a_reader_has_stopped() {
    let reader = Of("KeFlushQueuedDpcs", || finding(Tier::Error), false);
    let bench = Bench::new().driver(driver("clocks.sys")).unobserved().reader(reader);
    let play = ScriptText::typed(&format!("open {NAME} as f; ioctl f 0x223ff8 in text:StallsInTime out 8"))
        .play()
        .unwrap();
    let bounds = Bounds { schedules: 4, ..Bounds::default() };
    let stopped = Rc::new(Cell::new(0));
    let count = Rc::clone(&stopped);
    let looks = move |report: &Report| {
        assert_eq!(report.expect_verdict().message, "the story's reader says so", "{report}");
        count.set(count.get() + 1);
        false
    };
    let searched = bench.search(&play, &bounds, looks).unwrap();
    let made: u64 = searched.schedules.iter().sum();
    assert!(made >= 1 && stopped.get() >= 1, "{made} schedules, {} of them stopped", stopped.get());
}

/// The driver's misdeed with these readers attached.
fn with(rules: &str, misdeed: &str) -> Report {
    let judges = known::judges(rules).unwrap();
    let machine = start_unheard(|| Bench::new().driver(driver("clocks.sys")).rules(&judges));
    commit(&machine, misdeed);
    machine.finish()
}

#[test]
fn stalls_of_a_dpc_that_are_too_long_in_all_are_told_if_that_is_asked_for() {
    const TOO_OFTEN: &str = "StallsTooOften";
    let report = with("dpc-stalls", TOO_OFTEN);
    assert_eq!(rig::rules(&report), ["dpc-stalls"], "{report}");
    let text = report.to_string();
    assert!(
        text.contains("clocks.sys!Stalls (clocks.c")
            && text.contains("stalled its processor for 125 microseconds in 5 calls"),
        "{text}"
    );
    assert_eq!(report.outcome(), Outcome::Clean, "a warning fails no run");
    assert!(rig::rules(&with("none", TOO_OFTEN)).is_empty());
}

/// Not: long-dpc, long-service-routine
#[test]
fn a_dpc_that_takes_long_by_what_it_does_is_advised_of() {
    let report = with("dpc-stalls", "ComputesLong");
    assert_eq!(rig::rules(&report), ["long-dpc"], "{report}");
    let text = report.to_string();
    assert!(text.contains("the DPC routine clocks.sys!Computes (clocks.c"), "{text}");
    assert!(rig::rules(&with("dpc-stalls", "ComputesInTime")).is_empty());
}

/// Not: dpc-stalls
#[test]
fn a_dpc_that_stalls_as_long_as_it_may_is_not_told_and_all_readers_change_nothing() {
    const IN_TIME: &str = "StallsInTime";
    let [none, all] = ["none", "all"].map(|rules| with(rules, IN_TIME));
    assert!(rig::rules(&all).is_empty(), "{all}");
    assert_eq!(
        (none.trace_hash, none.memory_hash, none.sums.time),
        (all.trace_hash, all.memory_hash, all.sums.time)
    );
}

#[test]
fn a_name_that_none_has_is_refused_with_those_there_are() {
    let error = known::judges("guarantee").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("`guarantee`") && error.contains("dpc-stalls, guarantees"), "{error}");
}
