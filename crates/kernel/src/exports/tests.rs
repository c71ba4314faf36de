//! The table against the documentation: order, levels, and why a level differs where it does.

use super::{FUNCTIONS, INTERNAL, data, documented};
use crate::event::Kind;
use crate::ke::rig::{Driver, Rig, bug_check, machine, rule};
use crate::verdict::Tier;
use crate::{Cx, Settings};

/// Rows whose levels are not their page's, or have no page, and why: name, level, reason.
const EXCEPTIONS: &str = include_str!("exceptions.tsv");

/// The highest device level.
const DIRQL: u8 = 12;

/// `0`, `0..2`, `2..`, `any`, `dirql`, `0..dirql` as lowest and highest level.
fn range(text: &str) -> Option<(u8, u8)> {
    let level = |text: &str| if text == "dirql" { Some(DIRQL) } else { text.parse().ok() };
    match text.split_once("..") {
        None if text == "any" => Some((0, 15)),
        None => Some((level(text)?, level(text)?)),
        Some((low, "")) => Some((level(low)?, 15)),
        Some((low, high)) => Some((level(low)?, level(high)?)),
    }
}

#[test]
fn rows_are_sorted_and_named_once() {
    assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
    assert!(INTERNAL.is_sorted_by(|a, b| a.name < b.name));
    assert!(INTERNAL.iter().all(|row| FUNCTIONS.iter().all(|other| other.name != row.name)));
}

/// What may follow a routine with Wait TRUE: `KeSetEvent function` says a call of one of the KeWaitXxx routines.
#[test]
fn the_waits_that_can_be_promised_are_those_of_ke_wait() {
    let waits: Vec<&str> = FUNCTIONS.iter().filter(|row| row.is_wait).map(|row| row.name).collect();
    assert_eq!(waits, ["KeWaitForMultipleObjects", "KeWaitForMutexObject", "KeWaitForSingleObject"]);
    assert!(INTERNAL.iter().all(|row| !row.is_wait));
}

#[test]
fn every_level_is_the_documented_one_or_says_why_not() {
    let mut lines = EXCEPTIONS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, level, why] = fields[..] else { panic!("{line}") };
        assert!(!why.is_empty(), "{line}");
        (name, range(level).unwrap_or_else(|| panic!("{line}")))
    });
    let (mut compared, mut expected) = (0, lines.next());
    for row in FUNCTIONS {
        let level = (row.irql_min, row.irql_max);
        let known = documented::find(row.name).and_then(|known| known.irql);
        let documented = known.map(|text| range(text).unwrap_or_else(|| panic!("{}: {text}", row.name)));
        compared += usize::from(documented.is_some());
        if documented == Some(level) {
            continue;
        }
        let message = format!("{} has {level:?}; its page {documented:?}", row.name);
        assert_eq!(expected, Some((row.name, level)), "{message}, and the next of exceptions.tsv is another");
        expected = lines.next();
    }
    assert_eq!(expected, None, "this one needs no reason, or comes too late");
    assert!(compared > 450, "only {compared} rows have a documented level");
}

#[test]
fn what_is_left_out_is_not_there_and_says_why() {
    let rows = include_str!("left_out.tsv").lines().filter(|line| !line.starts_with('#'));
    let rows: Vec<(&str, &str)> = rows.map(|line| line.split_once('\t').expect(line)).collect();
    assert!(rows.is_sorted_by(|a, b| a.0 < b.0));
    for (name, why) in rows {
        assert!(!why.is_empty(), "{name}");
        let is_it = |row: &str| name.strip_suffix('*').map_or(row == name, |start| row.starts_with(start));
        let there = FUNCTIONS.iter().find(|row| is_it(row.name));
        assert!(there.is_none(), "{name} is there: {}", there.map_or("", |row| row.name));
    }
}

#[test]
fn what_drivers_import_is_there_or_says_why_not() {
    let left: Vec<&str> =
        include_str!("left_out.tsv").lines().filter_map(|line| line.split('\t').next()).collect();
    let is_left = |name: &str| {
        left.iter().any(|row| row.strip_suffix('*').map_or(*row == name, |start| name.starts_with(start)))
    };
    let is_there = |name: &str| FUNCTIONS.iter().any(|row| row.name == name) || data::find(name).is_some();
    let demanded = include_str!("demanded.tsv").lines().filter(|name| !name.starts_with('#'));
    let demanded: Vec<&str> = demanded.collect();
    assert!(demanded.is_sorted() && demanded.len() > 250);
    let lost: Vec<&&str> = demanded.iter().filter(|name| !is_there(name) && !is_left(name)).collect();
    assert!(lost.is_empty(), "neither there nor left out with a reason: {lost:?}");
}

#[test]
fn what_acquires_or_releases_says_which_event_does_or_why_none_does() {
    let rows = include_str!("acquires.tsv").lines().filter(|line| !line.starts_with('#')).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, emits, about] = fields[..] else { panic!("{line}") };
        assert!(!about.is_empty(), "{line}");
        let is_detail = |kind: &str| Kind::ALL.iter().any(|known| known.is_detail() && known.name() == kind);
        assert!(emits == "-" || emits.split(' ').all(is_detail), "{line}");
        assert!(FUNCTIONS.iter().any(|row| row.name == name), "{name} is no export");
        name
    });
    let rows: Vec<&str> = rows.collect();
    assert!(rows.is_sorted_by(|a, b| a < b));
    let telling = ["Acquire", "Release", "Lock", "Unlock", "Mutex", "Mutant", "Rundown", "Synchronize"];
    let is_telling = |name: &str| telling.iter().any(|word| name.contains(word));
    let named = FUNCTIONS.iter().map(|row| row.name).filter(|name| is_telling(name));
    let lost: Vec<&str> = named.filter(|name| !rows.contains(name)).collect();
    assert!(lost.is_empty(), "neither emits a detail nor says why not: {lost:?}");
}

const ASKS: &str = "
    unsigned KeIsExecutingDpc(void);
    unsigned char KfRaiseIrql(unsigned char);
    void KeLowerIrql(unsigned char);
    void KeEnterCriticalRegion(void);
    void KeLeaveCriticalRegion(void);
    unsigned char ExAcquireFastMutex(void *);
    u64 mutex[8];
    ROUTINE int asks(void) { return KeIsExecutingDpc() ? 2 : 1; }
    ROUTINE int region(void) {
        unsigned char was = KfRaiseIrql(2);
        KeEnterCriticalRegion();
        KeLeaveCriticalRegion();
        KeLowerIrql(was);
        return 1;
    }
    ROUTINE int waits(void) { KfRaiseIrql(2); ExAcquireFastMutex(mutex); return 1; }
";

#[test]
fn a_level_that_windows_survives_is_told_and_an_error_for_verifier_alone() {
    let rules = |cx: &Cx<'_>| -> Vec<(&str, Tier)> {
        cx.nt().findings().iter().map(|finding| (finding.rule, finding.tier)).collect()
    };
    machine(|cx: &mut Cx<'_>| {
        let driver = Driver::load(cx, "asks", ASKS);
        assert_eq!(driver.run(cx, "asks", &[]), Some(1), "KeIsExecutingDpc at PASSIVE_LEVEL answers");
        assert_eq!(driver.run(cx, "region", &[]), Some(1));
        assert_eq!(
            rules(cx),
            [
                ("irql-too-low", Tier::Advice),
                ("critical-region-at-dispatch", Tier::Verifier),
                ("critical-region-at-dispatch", Tier::Verifier)
            ]
        );
        assert_eq!(driver.run(cx, "waits", &[]), None, "a wait at DISPATCH_LEVEL");
        assert_eq!(rule(cx), Some("irql-too-high"));
    });
    let only = |option: &str| Settings { verifier: option.parse().unwrap(), ..Settings::default() };
    Rig { settings: only("irql"), ..Rig::default() }.run(|cx: &mut Cx<'_>| {
        let driver = Driver::load(cx, "asks", ASKS);
        assert_eq!(driver.run(cx, "asks", &[]), Some(1), "that is another option's");
        assert_eq!(driver.run(cx, "region", &[]), None);
        assert_eq!((rule(cx), bug_check(cx)), (Some("critical-region-at-dispatch"), Some(0xC4)));
    });
}

#[test]
fn what_windows_survives_includes_what_is_legal() {
    for row in FUNCTIONS.iter().chain(INTERNAL) {
        let (from, to) = row.survives;
        assert!(from <= row.irql_min && row.irql_max <= to && to <= 15, "{}", row.name);
    }
}
