//! What nothing can end any more is reported though something of the driver's is alive (`stuck.sys`): within a virtual minute, by every
//! policy alike, with who waits for what; and what ends late, by the same activity, is left alone.

use std::path::Path;

use dirql::explore::{Bounds, Policy, Searched};
use dirql::record::{Record, Recording};
use dirql::{Bench, Outcome, Play, Report, ScriptText, script as language};

use super::rig::{self, Buffer, driver, start_unheard, try_play};

/// The activities of `stuck.sys` by their numbers.
const ACTIVITIES: [&str; 20] = [
    "a periodic timer",
    "the fastest periodic timer",
    "a timer that its DPC sets again",
    "a DPC that queues itself",
    "a threaded DPC that queues itself",
    "a periodic timer whose DPC prints",
    "a timer of ExAllocateTimer",
    "an IoTimer",
    "a thread that sleeps",
    "a thread that waits with a time-out",
    "a periodic timer and a thread that it wakes",
    "two threads that wake each other",
    "a work item that queues itself",
    "a periodic timer whose DPC queues work",
    "a thread that yields",
    "nothing at all",
    "the request's thread, which sleeps",
    "the request's thread, which stalls",
    "the request's thread, which calls the kernel",
    "the request's thread, which polls memory",
];

/// What costs much to make a minute of: the budget is small there, and so is what makes the clock go faster.
const COSTLY: [usize; 6] = [3, 4, 11, 12, 14, 18];
const MINUTE: u64 = 60_000_000_000;
const UNCANCELLABLE: usize = 0x40;

fn bench(activity: usize) -> Bench {
    let bench = Bench::new().driver(driver("stuck.sys")).unobserved();
    if COSTLY.contains(&(activity & !UNCANCELLABLE)) { bench.instruction_budget(110_000_000) } else { bench }
}

/// A request that ends after so many seconds by an activity, or never.
fn script(activity: usize, seconds: u64) -> String {
    format!(r"open \\.\DirqlStuck as s; ioctl s {:#x} in u32:{seconds}", 0x0022_2000 + activity * 4)
}

/// The same in a machine that `bench` makes; and its time when the script was over.
fn ask(bench: impl Fn() -> Bench, activity: usize, seconds: u64) -> (Report, u64) {
    let machine = start_unheard(bench);
    // What goes wrong stands in the report.
    let _ = try_play(&machine, &script(activity, seconds));
    let now = machine.now();
    (machine.finish(), now)
}

/// The sentence of a script that does not end.
fn why(report: &Report) -> &str {
    assert!(report.our_fault.is_none(), "{report}");
    let failure = report.failure.as_ref().unwrap_or_else(|| panic!("it does not end\n{report}"));
    assert!(failure.message.starts_with("does not end: "), "{report}");
    &failure.message
}

fn is_stuck(activity: usize) {
    let (report, now) = ask(|| bench(activity), activity, 0);
    let name = ACTIVITIES[activity];
    // No thread runs any more, which Windows' watchdog sees.
    if activity == 3 {
        let rule = report.expect_verdict().rule;
        assert!(rule == "dpc-watchdog" && now < 3 * MINUTE, "{report}");
        return;
    }
    let why = why(&report);
    // The process exits then, and a driver that is alive may take its time.
    assert!(now < 3 * MINUTE, "{name}: {now} ns\n{report}");
    assert!(
        why.contains(r"is with \Device\DirqlStuck (stuck), which alone can complete it"),
        "{name}\n{report}"
    );
    let alive = activity != 15;
    assert_eq!(why.contains(" s of virtual time have passed"), alive, "{name}\n{report}");
    assert_eq!(why.contains("nothing can run any more"), !alive, "{name}\n{report}");
}

fn ends(activity: usize, seconds: u64) {
    let (report, _) = ask(|| bench(activity), activity, seconds);
    assert_eq!(report.outcome(), Outcome::Clean, "{} for {seconds} s\n{report}", ACTIVITIES[activity]);
}

macro_rules! activities {
    ($($name:ident $number:literal)*) => {
        $(mod $name {
            #[test]
            fn it_keeps_a_request_for_ever_and_is_told() {
                super::is_stuck($number);
            }

            #[test]
            fn it_ends_a_request_after_five_seconds_or_thirty() {
                if !super::COSTLY.contains(&$number) {
                    super::ends($number, 5);
                }
                super::ends($number, 30);
            }
        })*
    };
}

activities! {
    periodic_timer 0
    fast_timer 1
    rearmed_timer 2
    requeued_dpc 3
    requeued_threaded_dpc 4
    printing_timer 5
    ex_timer 6
    device_timer 7
    sleeping_thread 8
    timed_thread 9
    timer_and_thread 10
    ping_pong 11
    requeued_work_item 12
    timer_and_work 13
    yielding_thread 14
    quiet 15
    poll_sleeping 16
    poll_stalling 17
    poll_state 18
    poll_memory 19
}

fn policy(text: &str) -> Policy {
    text.parse().unwrap_or_else(|_| panic!("{text} is a policy"))
}

#[test]
fn every_seed_and_every_number_of_processors_tells_the_same() {
    for activity in [0, 8, 10, 13] {
        for seed in rig::seeds(2) {
            for (processors, text) in
                [(1, format!("random:{seed}")), (2, format!("pct:{seed},3")), (4, format!("random:{seed}"))]
            {
                let bench = || bench(activity).processors(processors).policy(policy(&text));
                let (report, _) = ask(bench, activity, 0);
                let why = why(&report);
                assert!(why.contains("60 s of virtual time"), "{text} on {processors}: {why}");
                let (report, _) = ask(bench, activity, 5);
                assert_eq!(report.outcome(), Outcome::Clean, "{text} on {processors}\n{report}");
            }
        }
    }
}

/// So many events of the default budget's six million are a minute, by any of them: two thirds of a second of the host's, or less.
#[test]
fn a_minute_of_what_costs_the_host_much_is_as_many_events() {
    for activity in COSTLY {
        let machine = start_unheard(|| bench(activity));
        let _ = try_play(&machine, &script(activity, 0));
        let events = machine.with_kernel(|cx| Ok(cx.next_event())).unwrap_or_default();
        assert!(events < 900_000, "{}: {events} events", ACTIVITIES[activity]);
        drop(machine.finish());
    }
}

#[test]
fn a_record_says_how_long_a_request_may_take() {
    let text = ScriptText::typed(&script(0, 0));
    let buffer = Buffer::default();
    let patient = Bench::new().driver(driver("stuck.sys")).patience(5_000_000_000);
    let started =
        Recording::start(patient, Policy::random(3).chooser(), "random:3", Some(&text), buffer.clone());
    let (patient, recording) = started.unwrap();
    let first = patient.run(Some(text.play().unwrap())).unwrap();
    recording.finish(&first).unwrap();
    let record = Record::parse("stuck", &buffer.text()).unwrap();
    assert!(why(&first).contains("5 s of virtual time have passed"), "{first}");
    let (bench, play, comparison) = record.bench(None, None, None).unwrap();
    let again = bench.run(play).unwrap();
    assert_eq!(why(&again), why(&first));
    assert!(comparison.difference(&again).is_none(), "{again}");
}

#[test]
fn a_search_finds_it_in_its_first_schedule() {
    let text = script(0, 0);
    let play = || Play::new(language::parse("test", &text).unwrap(), Path::new("")).unwrap();
    let broken = |report: &Report| report.outcome() != Outcome::Clean;
    let searched: Searched<Report> = bench(0).search(&play(), &Bounds::default(), broken).unwrap();
    assert_eq!(searched.total(), 1);
    let (_, report) = searched.found.expect("it never ends");
    assert!(why(&report).contains("60 s of virtual time"), "{report}");
}

#[test]
fn a_script_says_how_long_a_request_may_take() {
    let machine = start_unheard(|| bench(0));
    let error = try_play(&machine, &format!("{} expect within 2s", script(0, 5))).unwrap_err().to_string();
    assert!(error.contains("2 s of virtual time have passed"), "{error}");
    drop(machine.finish());
    let machine = start_unheard(|| bench(0));
    rig::play(&machine, &format!("{} expect success and within 200s", script(0, 150)));
    machine.finish().expect_clean();
    let (report, _) = ask(|| bench(0), 0, 150);
    assert!(why(&report).contains("60 s of virtual time have passed"), "{report}");
}

/// Not: stuck
#[test]
fn a_timer_that_was_set_once_gets_its_chance_however_late() {
    // Nothing periodic, and with something periodic beside it: the thread's time-out is three seconds.
    for (activity, seconds) in [(15, 600), (9, 50)] {
        ends(activity, seconds);
    }
}

#[test]
fn a_request_that_cannot_be_cancelled_keeps_the_process_from_its_end() {
    let (report, _) = ask(|| bench(0), UNCANCELLABLE, 0);
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "irp-never-completed", "{report}");
    assert!(why(&report).contains("it has no cancel routine"), "{report}");
}

/// What a deadlock's report says of who waits for what.
fn deadlock(number: usize) -> String {
    let machine = start_unheard(|| Bench::new().driver(driver("stuck.sys")));
    let code = 0x0022_2400 + number * 4;
    let _ = try_play(&machine, &format!(r"open \\.\DirqlStuck as s; ioctl s {code:#x}"));
    let report = machine.finish();
    why(&report).to_owned()
}

fn says(number: usize, words: &[&str]) {
    let message = deadlock(number);
    for word in words {
        assert!(message.contains(word), "deadlock {number} lacks `{word}`: {message}");
    }
    assert!(!message.contains("the the"), "{message}");
}

#[test]
fn an_event_is_told_by_the_device_extension_that_it_is_in_and_the_stack_of_who_waits() {
    says(
        0,
        &[
            "the thread main waits for the notification event",
            r"in the device extension of \Device\DirqlStuck (stuck) at +0x10",
            "in stuck.sys!WaitsForEvent+",
            "called from stuck.sys!DispatchDeviceControl+",
        ],
    );
}

#[test]
fn two_fast_mutexes_in_opposite_order_are_told_with_both_owners_and_both_stacks() {
    says(
        1,
        &[
            "the thread main waits for the fast mutex",
            "in stuck.sys!Inverts+",
            "which the system thread stuck.sys!TakesBackwards owns;",
            "in stuck.sys!TakesBackwards+",
            "which the thread main owns;",
        ],
    );
}

#[test]
fn a_remove_lock_is_told_with_its_tag_and_who_acquired_it() {
    says(
        2,
        &[
            "the release of the remove lock",
            "with the tag 0x1234 (acquired once in stuck.sys!WaitsForRemoval+",
        ],
    );
}

#[test]
fn a_request_that_is_awaited_is_told_with_who_has_it() {
    says(
        3,
        &[
            "the thread main waits for the end of IRP_MJ_DEVICE_CONTROL (IRP",
            "in stuck.sys!WaitsForRequest+",
            r"is with \Device\DirqlStuck (stuck), which alone can complete it (it has no cancel routine; its dispatch routine returned STATUS_PENDING at event",
        ],
    );
}

#[test]
fn a_mutex_is_told_with_its_owner_and_what_that_waits_for() {
    says(
        4,
        &[
            "the thread main waits for the mutex",
            "which the system thread stuck.sys!KeepsMutex owns;",
            "the system thread stuck.sys!KeepsMutex waits for the notification event",
        ],
    );
}
