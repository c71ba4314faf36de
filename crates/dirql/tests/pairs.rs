//! Each rule of `pairs.sys` done wrong, which it must fire for, and done right, where it passes the same calls and must not.
//!
//! A pair is measured, not claimed: its two halves are one routine of the driver's, the half that is right must call every export that the
//! wrong one has called, and its report must be clean. `cargo xtask rules` takes the names of the pairs for tests of both kinds.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use dirql::{Bench, Report, Verifier};
use kernel::event::{Event, Kind, Reader, Stamp};
use kernel::rules;
use kernel::verdict::{Tier, Verdict};

use super::rig::{self, NoRoom, driver, start, try_play};

/// Of `pairs.c`.
const TELL: u32 = 0x0022_2000;

/// The exports that a run has called, by their numbers. A clone is the same memory.
#[derive(Clone, Default)]
struct Called(Rc<RefCell<BTreeSet<u32>>>);

impl Reader for Called {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Call
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        if let Event::Call { export, .. } = event {
            self.0.borrow_mut().insert(*export);
        }
    }
}

/// How a half of a pair is run: what came of it, and what it has called.
type Half = fn(&'static str, bool) -> (Report, BTreeSet<u32>);

/// On the card: the place of the pair in its header and the half are settings of the device.
fn half_on_card(rule: &'static str, wrong: bool) -> (Report, BTreeSet<u32>) {
    let place = pairs_of(CARD).position(|known| known == rule).unwrap() + 1;
    let inf = rig::changed_inf(&format!("pairs-{rule}"), "pairs_pnp.inf", |text| {
        let set = |text: String, name: &str, value: usize| {
            text.replace(&format!("{name},0x00010001,0 "), &format!("{name},0x00010001,{value} "))
        };
        set(set(text, "Pair", place), "Wrong", usize::from(wrong))
    });
    let called = Called::default();
    let bench = || {
        let bench = Bench::new().driver(driver("pairs_pnp.sys")).inf(&inf).device("bench").checked(true);
        let bench = bench.platform("uptime=2d".parse().expect("it is one"));
        bench.processors(1).reader(called.clone())
    };
    let machine = start(bench);
    // Some never get as far.
    let script = match rule {
        "deleted-in-surprise-removal" | "detached-in-surprise-removal" => "surprise-remove",
        "interrupt-still-connected" | "pnp-request-failed" | "pnp-request-not-passed-down" => "stop-device",
        "request-pending-after-surprise-removal" => {
            r"tolerate; open \\.\PairsPnp as p overlapped; async k ioctl p 0x222000; surprise-remove; wait 2s; cancel k; join k; close p"
        }
        "request-forgotten" | "request-timed-out" => {
            r"tolerate; open \\.\PairsPnp as p overlapped; async k ioctl p 0x222000; must-end k; cancel k; join k; close p"
        }
        "answer-of-another" => {
            r"tolerate; open \\.\PairsPnp as p overlapped; async k ioctl p 0x222000 in u32:5 out 4; must-answer k u32:120 not u32:4 or u32:24; close p"
        }
        "request-ended-early" => {
            r"tolerate; open \\.\PairsPnp as p overlapped; async k ioctl p 0x222000; must-last k 1s as 0; join k; close p"
        }
        "request-depends-on-uptime" => {
            r"tolerate; open \\.\PairsPnp as p overlapped; async k ioctl p 0x222000; must-be k 0; join k; close p"
        }
        "number-given-twice" => {
            r"tolerate; open \\.\PairsPnp as p; number m ioctl p 0x222000 out 4; number n ioctl p 0x222000 out 4; must-differ n m; close p"
        }
        "request-refused" => {
            r"tolerate; open \\.\PairsPnp as p overlapped; async k ioctl p 0x222000; must-succeed k; join k; close p"
        }
        _ => r"open \\.\PairsPnp as p; ioctl p 0x222000; close p",
    };
    let _ = try_play(&machine, script);
    let report = machine.finish();
    let called = called.0.borrow().clone();
    (report, called)
}

/// Verifier, if a rule is looked at with its option only; it stops nothing.
fn watching(rule: &str) -> Verifier {
    match rules::find(rule).and_then(|row| row.option()).filter(|option| option.is_only_by_name()) {
        Some(option) => Verifier::NONE.with(option).logging(),
        None => Verifier::NONE,
    }
}

fn half(rule: &'static str, wrong: bool) -> (Report, BTreeSet<u32>) {
    let called = Called::default();
    let bench = || {
        let bench =
            Bench::new().driver(driver("pairs.sys")).checked(rule != "write-after-free").processors(1);
        let bench = bench.memory(64 << 20).reader(called.clone()).verifier(watching(rule));
        if rule == "no-more-system-ptes" { bench.chooser(NoRoom) } else { bench }
    };
    let machine = start(bench);
    let script = format!(r"open \\.\DirqlPairs as p; {}", asked(rule, wrong));
    let played = try_play(&machine, &script);
    let report = machine.finish();
    assert!(wrong || played.is_ok() || report.verdict.is_some(), "{rule}, done right: {played:?}");
    let called = called.0.borrow().clone();
    (report, called)
}

/// The request for a half, through the handle `p`.
fn asked(rule: &str, wrong: bool) -> String {
    let rule: String = rule.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("ioctl p {TELL:#x} in hex:{:02x}{rule} out 64", u8::from(wrong))
}

/// Memory of a driver's own that was an IRP and is freed is not looked at when requests are cancelled.
/// Not: use-after-free
#[test]
fn what_was_an_irp_of_the_drivers_own_memory_may_be_freed() {
    let machine = start(|| Bench::new().driver(driver("pairs.sys")).checked(true).processors(1));
    let script = format!(
        r"open \\.\DirqlPairs as p overlapped; async r {}; cancel r; join r; close p",
        asked("irp-free", false)
    );
    try_play(&machine, &script).unwrap();
    let report = machine.finish();
    assert!(found(&report).is_empty() && report.failure.is_none(), "{report}");
}

/// What a run has found, the worst first, and of the same tier in the order of finding.
fn found(report: &Report) -> Vec<&Verdict> {
    let mut found: Vec<&Verdict> = report.findings.iter().chain(&report.verdict).collect();
    found.sort_by_key(|found| found.tier);
    found
}

fn rules_of(report: &Report) -> Vec<&'static str> {
    found(report).iter().map(|found| found.rule).collect()
}

fn both_halves(half: Half, rule: &'static str) -> Result<(), String> {
    let row = rules::find(rule).ok_or_else(|| format!("{rule} is no rule"))?;
    let (right, passed) = half(rule, false);
    let is_advice = |finding: &&Verdict| finding.tier == Tier::Advice && finding.rule != rule;
    if found(&right).iter().any(|finding| !is_advice(finding)) {
        return Err(format!("{rule}, done right, fires {:?}\n{right}", rules_of(&right)));
    }
    // A device that cannot be added, rightly or wrongly, cannot be opened either.
    assert!(right.failure.is_none() || rule.starts_with("add-device-"), "{rule}\n{right}");
    let (wrong, called) = half(rule, true);
    let Some(first) = found(&wrong).first().copied().filter(|first| first.rule == rule) else {
        return Err(format!("{rule}, done wrong, fires {:?}\n{wrong}", rules_of(&wrong)));
    };
    // What Verifier watches for is an error.
    let tier = if watching(rule).is_on() { Tier::Verifier } else { first.tier };
    if !row.allows(tier) {
        return Err(format!("{rule} fires in tier {}; its row says {}", tier.name(), row.tiers));
    }
    let missed =
        called.difference(&passed).map(|export| kernel::exports::row(*export).map_or("?", |row| row.name));
    let missed: Vec<&str> = missed.filter(|name| *name != "KeBugCheckEx").collect();
    if missed.is_empty() { Ok(()) } else { Err(format!("{rule}, done right, does not call {missed:?}")) }
}

/// The rules of the pairs in a header of the driver.
fn pairs_of(header: &'static str) -> impl Iterator<Item = &'static str> {
    header.split("PAIR(\"").skip(1).filter_map(|rest| rest.split('"').next())
}

fn hold(half: Half, header: &'static str) {
    let only = std::env::var("DIRQL_PAIR").unwrap_or_default();
    let wrong: Vec<String> = pairs_of(header)
        .filter(|rule| rule.contains(&only))
        .filter_map(|rule| both_halves(half, rule).err())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

macro_rules! pairs {
    ($($test:ident: $header:literal,)*) => {
        $(#[test]
        fn $test() {
            hold(half, include_str!(concat!("../../../drivers/c/pairs/", $header)));
        })*
    };
}

/// The pairs that need a card.
const CARD: &str = include_str!("../../../drivers/c/pairs/card.h");

#[test]
fn devices_on_a_card() {
    hold(half_on_card, CARD);
}

pairs! {
    controller_objects: "controllers.h",
    devices_and_their_queues: "devices.h",
    dispatcher_objects: "dispatcher.h",
    dma_adapters: "dma.h",
    instructions: "processor.h",
    levels_and_spin_locks: "levels.h",
    locks_of_threads: "exclusion.h",
    mappings: "mapping.h",
    memory_descriptor_lists: "mdl.h",
    objects_of_the_system: "system.h",
    pool: "pool.h",
    requests: "requests.h",
    requests_of_the_drivers_own: "own_irps.h",
    reserved_addresses: "reserved.h",
    sections_and_handles: "sections.h",
    security: "security.h",
    stacks: "stacks.h",
    windows_management: "wmi.h",
    zones: "zones.h",
}

#[test]
fn a_request_that_is_failed_and_passed_on_is_one_of_plug_and_play_or_of_power() {
    const RULE: &str = "failed-request-passed-on";
    let (report, _) = half_on_card(RULE, true);
    let fired = found(&report).into_iter().filter(|finding| finding.rule == RULE);
    let codes: BTreeSet<_> = fired.filter_map(|finding| Some(finding.bug_check?.parameters[0])).collect();
    assert_eq!(codes, BTreeSet::from([0x215, 0x219]), "{report}");
}

/// Windows goes on behind a stop; behind the removal the routine would be called with what is gone.
#[test]
fn an_interrupt_that_stays_connected_is_a_warning_at_the_stop_and_an_error_at_the_removal() {
    const RULE: &str = "interrupt-still-connected";
    let (report, _) = half_on_card(RULE, true);
    let fired = report.findings.iter().chain(&report.verdict).filter(|finding| finding.rule == RULE);
    let fired: Vec<_> =
        fired.map(|finding| (finding.tier, finding.message.contains("IRP_MN_STOP_DEVICE"))).collect();
    assert_eq!(fired, [(Tier::Warning, true), (Tier::Error, false)], "{report}");
}
