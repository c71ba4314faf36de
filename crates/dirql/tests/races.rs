//! Data races: `races.sys` has pairs of what two flows of control do to the same memory, wrong and right. In none do the two meet in the run; the wrong
//! ones are found all the same, and the right ones are not accused.

use dirql::explore::{Bounds, Policy, Rng};
use dirql::{Bench, Outcome, Report, ScriptText, rules as known};
use kernel::verdict::{Tier, Verdict};

use super::rig::traffic::{self, Traffic};
use super::rig::{self, driver, start};

const NAME: &str = r"\\.\DirqlRaces";
const RACE: &str = "data-race";
const UNORDERED: &str = "unordered-access";

fn bench() -> Bench {
    Bench::new().driver(driver("races.sys")).checked(true).races(true)
}

/// What is found while the driver tells a story.
fn report_of(story: &str, processors: u32) -> Report {
    let machine = start(|| bench().processors(processors));
    let made = rig::checks_made(&machine, NAME, story, &[]);
    let report = machine.finish();
    assert!(made.is_ok(), "{made:?}: {report}");
    report
}

/// Findings of this rule.
fn of<'a>(report: &'a Report, rule: &'static str) -> impl Iterator<Item = &'a Verdict> {
    report.findings.iter().filter(move |finding| finding.rule == rule)
}

/// A race is reported, and its run goes on to its end.
fn is_wrong(story: &str, processors: u32) {
    let report = report_of(story, processors);
    assert_eq!(report.outcome(), Outcome::Clean, "{story} on {processors}: {report}");
    assert!(of(&report, RACE).all(|finding| finding.tier == Tier::Warning));
    assert_eq!(of(&report, RACE).count(), 1, "{story} on {processors}: {report}");
}

/// A mixture may be there: advice, since only the author knows what belongs together.
fn is_torn(story: &str, processors: u32) {
    let report = report_of(story, processors);
    assert_eq!(of(&report, RACE).count(), 1, "{story} on {processors}: {report}");
    assert!(of(&report, RACE).all(|finding| finding.tier == Tier::Advice));
}

/// Nothing is said, not even as advice.
fn is_right(story: &str, processors: u32) {
    let report = report_of(story, processors);
    assert_eq!(report.outcome(), Outcome::Clean, "{story} on {processors}: {report}");
    assert_eq!(rig::rules(&report), [""; 0], "{story} on {processors}: {report}");
}

/// What is said is advice.
fn is_left_to_chance(story: &str, processors: u32) {
    let report = report_of(story, processors);
    let is_advice = |finding: &Verdict| finding.rule == UNORDERED && finding.tier == Tier::Advice;
    assert!(!report.findings.is_empty() && report.findings.iter().all(is_advice), "{story}: {report}");
}

macro_rules! stories {
    ($($test:ident: $judge:ident $story:literal,)*) => {
        /// Those that have a test here.
        const STORIES: &[&str] = &[$($story),*];

        $(#[test]
        fn $test() {
            for processors in [1, 2] {
                $judge($story, processors);
            }
        })*
    };
}

stories! {
    a_flag_is_advice: is_left_to_chance "AdviceFlag",
    a_flag_that_hands_over_is_advice_and_orders_what_it_hands_over: is_left_to_chance "AdviceHandOver",
    a_lock_orders_a_dpc_and_a_thread: is_right "RightDpc",
    a_dpc_that_is_queued_below_dispatch_level_is_over_when_the_call_returns: is_right "RightDpcAtOnce",
    a_signal_is_before_the_end_of_the_wait: is_right "RightEvent",
    a_fast_mutex_orders: is_right "RightFastMutex",
    interlocked_instructions_on_both_sides_do_not_race: is_right "RightInterlocked",
    a_list_under_a_lock_does_not_race: is_right "RightList",
    a_list_of_the_kernels_does_not_race: is_right "RightListInterlocked",
    a_mutex_orders: is_right "RightMutex",
    neighbours_in_one_word_do_not_race: is_right "RightOwnBytes",
    what_was_before_a_dpc_is_queued_and_what_comes_behind_the_flush_is_ordered: is_right "RightQueueAndFlush",
    a_queued_spin_lock_orders: is_right "RightQueuedLock",
    a_resource_orders: is_right "RightResource",
    a_spin_lock_orders: is_right "RightSpinLock",
    the_begin_and_the_end_of_a_thread_are_ordered_with_who_makes_it_and_waits_for_it: is_right "RightThread",
    what_was_before_a_timer_is_set_is_before_its_dpc: is_right "RightTimer",
    what_was_before_a_work_item_is_queued_is_before_it_runs: is_right "RightWorkItem",
    nothing_orders_two_threads: is_wrong "WrongCount",
    one_instruction_without_lock_is_no_better: is_wrong "WrongCountInOne",
    nothing_orders_a_dpc_and_a_thread_at_passive_level: is_wrong "WrongDpc",
    what_comes_behind_a_signal_is_not_before_the_end_of_the_wait: is_wrong "WrongEvent",
    whichever_of_the_two_comes_first: is_wrong "WrongEventLate",
    an_interlocked_instruction_on_one_side_is_not_enough: is_wrong "WrongInterlocked",
    a_list_without_a_lock_loses_entries: is_wrong "WrongList",
    two_locks_are_none: is_wrong "WrongLock",
    a_shared_lock_orders_none_of_those_that_share_it: is_wrong "WrongSharedResource",
    a_structure_that_both_store_is_torn: is_torn "WrongStructure",
    a_timers_signal_is_not_the_end_of_its_dpc: is_wrong "WrongTimer",
    nothing_orders_a_work_item_and_what_comes_behind_its_queueing: is_wrong "WrongWorkItem",
}

/// Not: data-race
#[test]
fn a_raised_level_keeps_a_dpc_off_its_own_processor_only() {
    is_right("LevelAgainstDpc", 1);
    is_wrong("LevelAgainstDpc", 2);
}

#[test]
fn each_story_has_a_test() {
    let machine = start(bench);
    let mut all = rig::stories(&machine, NAME).unwrap();
    drop(machine);
    all.retain(|story| story != "LevelAgainstDpc");
    assert_eq!(all, STORIES);
}

#[test]
fn a_race_is_reported_with_both_instructions_both_routines_and_the_moment_of_the_first() {
    let report = report_of("WrongDpc", 2);
    let finding = of(&report, RACE).next().unwrap();
    for said in
        ["DispatchDeviceControl", "CustomTimerDpc", "WrongDpc+", "Count+", "IRQL 0", "IRQL 2", "races.c:"]
    {
        assert!(finding.message.contains(said), "{said}: {}", finding.message);
    }
    assert!(finding.stack.iter().any(|line| line.symbol.contains("DispatchDeviceControl")), "{report}");
    let [moment] = finding.related[..] else { panic!("{report}") };
    assert_eq!(moment.what, "updated");
}

#[test]
fn races_are_looked_for_only_where_it_is_asked() {
    let machine = start(|| Bench::new().driver(driver("races.sys")).checked(true));
    rig::checks_made(&machine, NAME, "WrongCount", &[]).unwrap();
    assert_eq!(rig::rules(&machine.finish()), [""; 0]);
    assert!(known::judges("all").unwrap().iter().all(|judge| judge.name != RACE), "they are slow");
    assert_eq!(known::judges(RACE).unwrap().len(), 1);
}

#[test]
fn a_run_in_which_races_are_looked_for_is_the_run_without() {
    for story in ["RightTimer", "RightList", "RightThread"] {
        let hashes = |races: bool| {
            let bench = || Bench::new().driver(driver("races.sys")).checked(true).processors(2).races(races);
            let machine = start(bench);
            rig::checks_made(&machine, NAME, story, &[]).unwrap();
            let report = machine.finish();
            (report.trace_hash, report.memory_hash, report.sums.time)
        };
        assert_eq!(hashes(true), hashes(false), "{story}");
    }
}

/// What comes of a script.
fn played(bench: impl Fn() -> Bench, script: &str) -> Report {
    let machine = start(bench);
    rig::play(&machine, script);
    machine.finish()
}

const TWO_FILES: &str = r"open \\.\DirqlRaces as a; open \\.\DirqlRaces as b;";
const COUNT: &str = "0x222000";
const COUNT_LOCKED: &str = "0x222004";

#[test]
fn requests_of_two_threads_are_not_ordered_though_one_comes_after_the_other() {
    let of_two = |code| format!("{TWO_FILES} t: ioctl a {code}; u: ioctl b {code}; join t; join u");
    let report = played(bench, &of_two(COUNT));
    assert_eq!(rig::rules(&report), [RACE], "{report}");
    let report = played(bench, &of_two(COUNT_LOCKED));
    assert_eq!(rig::rules(&report), [""; 0], "{report}");
}

#[test]
fn requests_are_ordered_that_the_application_itself_orders() {
    let script = format!("{TWO_FILES} t: ioctl a {COUNT}; join t; u: ioctl b {COUNT}; join u");
    let report = played(bench, &script);
    assert_eq!(rig::rules(&report), [""; 0], "{report}");
}

/// Not: data-race, unordered-access
#[test]
fn requests_of_one_thread_are_ordered() {
    let report = played(bench, &format!("{TWO_FILES} ioctl a {COUNT}; ioctl b {COUNT}; ioctl a {COUNT}"));
    assert_eq!(rig::rules(&report), [""; 0], "{report}");
}

#[test]
fn a_request_and_its_buffer_are_handed_on_from_thread_to_dpc_and_back() {
    let pend = "ioctl a 0x222008 in u32:0 out 4 expect u32:2;";
    let report = played(bench, &format!("{TWO_FILES} {pend} {pend} t: {pend} join t"));
    assert_eq!(rig::rules(&report), [""; 0], "{report}");
}

/// Two transfers at once, by a driver that counts them where its service routine does.
const TRANSFERS: &str = r"open \\.\PciLine0 as a overlapped
open \\.\PciLine0 as b overlapped
t: write a text:aaaa at 0
u: write b text:bbbb at 8
join t; join u";

fn pciline(name: &str, processors: u32) -> Bench {
    let bench = Bench::new().driver(driver(name)).inf(driver("pciline.inf")).device("pci9052");
    bench.checked(true).races(true).processors(processors)
}

#[test]
fn a_service_routine_and_a_thread_are_not_ordered() {
    for processors in [1, 2] {
        let report = played(|| pciline("pciline_lost.sys", processors), TRANSFERS);
        let found: Vec<&Verdict> = of(&report, RACE).collect();
        assert!(!found.is_empty(), "{report}");
        assert!(found.iter().any(|finding| finding.message.contains("Isr ")), "{report}");
    }
}

#[test]
fn a_service_routine_that_counts_by_interlocked_instructions_does_not_race() {
    for processors in [1, 2] {
        let report = played(|| pciline("pciline.sys", processors), TRANSFERS);
        assert_eq!(of(&report, RACE).count(), 0, "{report}");
    }
}

#[test]
fn a_machine_that_is_booted_again_has_forgotten_what_it_has_seen() {
    let mut boots = rig::boots(bench().processors(2));
    for policy in [Policy::random(1), Policy::pct(2, 3, 2_000), Policy::random(1)] {
        for (story, races) in [("WrongWorkItem", 1), ("RightWorkItem", 0), ("WrongCount", 1)] {
            let (made, report) =
                boots.boot(policy.chooser(), |machine| rig::checks_made(machine, NAME, story, &[])).unwrap();
            made.unwrap();
            assert_eq!(of(&report, RACE).count(), races, "{story}, {policy}: {report}");
        }
    }
}

#[test]
fn a_search_finds_a_race_in_its_first_schedule_and_none_in_any_where_a_lock_orders() {
    let searched = |code: &str| {
        let script = format!("{TWO_FILES} t: ioctl a {code}; u: ioctl b {code}; join t; join u");
        let play = ScriptText::typed(&script).play().unwrap();
        let bounds = Bounds { schedules: 300, ..Bounds::default() };
        let is_found = |report: &Report| of(report, RACE).next().is_some();
        bench().processors(2).unobserved().search(&play, &bounds, is_found).unwrap()
    };
    let with = searched(COUNT);
    let (choices, _) = with.found.unwrap();
    assert!(choices.is_empty(), "the first schedule departs nowhere: {choices:?}");
    let without = searched(COUNT_LOCKED);
    assert!(without.found.is_none());
    assert!(without.schedules.iter().sum::<u64>() > 10, "it has tried some");
}

/// Random traffic to a driver that is right, in three schedules: no race is reported.
fn does_not_race(traffic: Traffic) {
    for (seed, processors) in [(1, 1), (2, 2), (3, 4)] {
        let bench = || traffic.bench(processors).checked(true).races(true);
        let machine =
            start(|| bench().policy(if seed == 1 { Policy::default() } else { Policy::random(seed) }));
        let play = ScriptText::typed(&traffic.round(&mut Rng::new(seed))).play().unwrap();
        machine.perform(Some(play));
        let report = machine.finish();
        assert_eq!(of(&report, RACE).count(), 0, "{} on {processors}: {report}", traffic.sys);
    }
}

macro_rules! shipped {
    ($($test:ident: $traffic:ident,)*) => {
        $(#[test]
        fn $test() {
            does_not_race(traffic::$traffic);
        })*
    };
}

shipped! {
    the_c_driver_of_the_pci_9052_does_not_race: PCILINE,
    the_rust_driver_of_the_pci_9052_does_not_race: PCI9052,
    the_rust_driver_of_the_educational_device_does_not_race: EDU_RUST,
    the_c_driver_of_the_educational_device_does_not_race: EDU,
    the_driver_of_a_card_does_not_race: CARD,
    the_queue_does_not_race: QUEUE,
}
