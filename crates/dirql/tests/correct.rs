//! The gallery of correct drivers (`drivers/c/correct`): what drivers do that break no rule is never accused, by default, checked,
//! as an older Windows, in random and PCT schedules on several processors.
//!
//! Each idiom is a test in which its checks must hold and the report must be clean, without a finding even of the tier
//! that only Driver Verifier has. `DIRQL_SEEDS` says in how many schedules of each policy and number of processors, from
//! `DIRQL_FIRST_SEED` on; and `DIRQL_SCHEDULES` in how many of those with at most two preemptions, where few are enough in CI. All
//! schedules of one kind of machine are those of one that is booted again and again (`Bench::boots`).

use dirql::explore::{Bounds, Policy};
use dirql::{Bench, Machine, Outcome, Report, ScriptText, windows};
use kernel::verdict::{Tier, Verdict};

use super::rig::{self, driver, seeds, start};

/// So many schedules of each policy, on each number of processors, by default.
const SEEDS: u64 = 2;
const PROCESSORS: [u32; 3] = [1, 2, 4];
/// So many schedules with at most two preemptions, by default.
const SCHEDULES: u64 = 20;

/// What is documented as wrong, and drivers do nevertheless: two idioms are about it.
const DONE_NEVERTHELESS: [&str; 2] = ["affinity-without-effect", "pool-zero-bytes"];

fn is_no_accusation(finding: &Verdict) -> bool {
    finding.tier == Tier::Advice || DONE_NEVERTHELESS.contains(&finding.rule)
}

/// Nothing may have been found that `dirql check` tells.
fn expect_no_accusation(report: &Report, circumstances: &str) {
    assert!(report.verdict.is_none() && report.our_fault.is_none(), "{circumstances}:\n{report}");
    for finding in &report.findings {
        assert!(is_no_accusation(finding), "{circumstances}:\n{report}");
    }
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{circumstances}:\n{report}");
}

/// Has the driver tell an idiom: how many checks it has made.
fn tell(machine: &Machine, idiom: &str) -> Result<u32, String> {
    rig::checks_made(machine, r"\\.\DirqlCorrect", idiom, &[])
}

/// What came of that.
fn hold(made: Result<u32, String>, report: &Report, circumstances: &str) {
    match made {
        Ok(0) => panic!("{circumstances}: it looked at nothing"),
        Ok(_) => expect_no_accusation(report, circumstances),
        Err(why) => panic!("{circumstances}: {why}\n{report}"),
    }
}

/// Tells an idiom in a machine of its own.
fn alone(machine: Machine, idiom: &str, circumstances: &str) {
    let made = tell(&machine, idiom);
    hold(made, &machine.finish(), &format!("{idiom}, {circumstances}"));
}

fn bench() -> Bench {
    Bench::new().driver(driver("correct.sys"))
}

/// Tells an idiom in every schedule with at most two preemptions, or in so many of them.
fn explored(idiom: &str, processors: u32) {
    let bounds = Bounds { schedules: rig::wanted("DIRQL_SCHEDULES", SCHEDULES), ..Bounds::default() };
    let command = rig::command("c", idiom);
    let story = format!("open \\\\.\\DirqlCorrect as c\n{command} expect bytes 8 and prefix u32:0");
    let play = ScriptText::typed(&story).play().unwrap();
    let accused =
        |report: &Report| report.outcome() != Outcome::Clean || !report.findings.iter().all(is_no_accusation);
    let searched = bench().processors(processors).unobserved().search(&play, &bounds, accused).unwrap();
    let found = searched.found.map(|(choices, report)| format!("{choices:#?}\n{report}"));
    assert!(found.is_none(), "{idiom} on {processors} processors:\n{}", found.unwrap_or_default());
    let made = searched.repeated + searched.schedules.iter().sum::<u64>();
    assert!(searched.complete || made == bounds.schedules, "{idiom} on {processors} processors: {made}");
}

/// Tells an idiom in all circumstances.
fn never_accused(idiom: &str) {
    alone(start(bench), idiom, "by default");
    alone(start(|| bench().checked(true)), idiom, "checked");
    let seven = windows::parse("7").unwrap();
    alone(start(|| bench().windows(seven)), idiom, "Windows 7");
    for processors in [1, 2] {
        alone(
            start(|| bench().checked(true).races(true).processors(processors)),
            idiom,
            "with races looked for",
        );
    }
    // Where nothing is tested, the same happens, and less is seen: one seed of that kind.
    let (fast, checked): (Vec<u64>, Vec<u64>) = seeds(SEEDS).partition(|seed| *seed == 2);
    for processors in PROCESSORS {
        explored(idiom, processors);
        for (is_checked, seeds) in [(true, &checked), (false, &fast)] {
            let mut boots = rig::boots(bench().checked(is_checked).processors(processors));
            for seed in seeds.iter().copied() {
                for policy in [Policy::random(seed), Policy::pct(seed, 3, 2_000)] {
                    let (made, report) =
                        boots.boot(policy.chooser(), |machine| tell(machine, idiom)).unwrap();
                    hold(made, &report, &format!("{idiom}, {policy} on {processors} processors"));
                }
            }
        }
    }
}

macro_rules! gallery {
    ($($test:ident: $idiom:literal,)*) => {
        /// The idioms that have a test.
        const IDIOMS: &[&str] = &[$($idiom),*];

        $(#[test]
        fn $test() {
            never_accused($idiom);
        })*
    };
}

gallery! {
    addresses_that_are_valid: "AddressesThatAreValid",
    affinity_of_absent_processors: "AffinityOfAbsentProcessors",
    cancel_routine_of_two_threads: "CancelRoutineOfTwoThreads",
    cancel_safe_queue_cancelled: "CancelSafeQueueCancelled",
    cancel_safe_queue_in_order: "CancelSafeQueueInOrder",
    cancel_safe_queue_of_two_threads: "CancelSafeQueueOfTwoThreads",
    cancelled_before_it_is_queued: "CancelledBeforeItIsQueued",
    cancelled_in_the_device_queue: "CancelledInTheDeviceQueue",
    cancelled_when_it_is_done: "CancelledWhenItIsDone",
    contiguous_memory: "ContiguousMemory",
    device_queue_of_two_threads: "DeviceQueueOfTwoThreads",
    device_without_a_name: "DeviceWithoutAName",
    dpc_defers_to_work_item: "DpcDefersToWorkItem",
    dpc_for_each_processor: "DpcForEachProcessor",
    dpc_for_isr_of_the_device: "DpcForIsrOfTheDevice",
    dpc_once_for_each_queueing: "DpcOnceForEachQueueing",
    dpc_or_not: "DpcOrNot",
    dpc_queues_itself: "DpcQueuesItself",
    dpc_removed: "DpcRemoved",
    dpc_threaded: "DpcThreaded",
    event_as_lock: "EventAsLock",
    event_by_handle: "EventByHandle",
    event_by_name: "EventByName",
    fast_mutex: "FastMutex",
    fast_mutex_in_critical_region: "FastMutexInCriticalRegion",
    fast_mutex_tried: "FastMutexTried",
    firmware_through_physical_memory: "FirmwareThroughPhysicalMemory",
    guarded_mutex: "GuardedMutex",
    interlocked: "Interlocked",
    link_that_comes_and_goes: "LinkThatComesAndGoes",
    lookaside_list_of_own_routines: "LookasideListOfOwnRoutines",
    lookaside_lists: "LookasideLists",
    mdl_in_own_memory: "MdlInOwnMemory",
    mdl_of_paged_pool: "MdlOfPagedPool",
    mdl_of_pool: "MdlOfPool",
    memory_of_the_caller: "MemoryOfTheCaller",
    mutex_taken_twice: "MutexTakenTwice",
    noncached_memory: "NoncachedMemory",
    page_for_application_and_thread: "PageForApplicationAndThread",
    pages_for_mdl: "PagesForMdl",
    parts_of_locked_buffer: "PartsOfLockedBuffer",
    passed_on: "PassedOn",
    passed_on_and_observed: "PassedOnAndObserved",
    passed_on_and_observed_late: "PassedOnAndObservedLate",
    passed_on_and_observed_on_error: "PassedOnAndObservedOnError",
    passed_on_and_waited_for: "PassedOnAndWaitedFor",
    passed_on_as_pending: "PassedOnAsPending",
    passed_on_as_pending_in_one_location: "PassedOnAsPendingAndSkipped",
    passed_on_by_another_packet: "PassedOnByAnotherPacket",
    passed_on_by_work_item: "PassedOnByWorkItem",
    passed_on_synchronously: "PassedOnSynchronously",
    passed_on_twice: "PassedOnTwice",
    passed_on_under_remove_lock: "PassedOnUnderRemoveLock",
    passed_on_without_location: "PassedOnWithoutLocation",
    pool_for_application_to_read: "PoolForApplicationToRead",
    pool_of_each_kind: "PoolOfEachKind",
    pool_of_whole_pages: "PoolOfWholePages",
    pool_of_zero_bytes: "PoolOfZeroBytes",
    pool_with_quota: "PoolWithQuota",
    process_of_this_thread: "ProcessOfThisThread",
    pulsed_at_dispatch_level: "PulsedAtDispatchLevel",
    registry_value_asked_twice: "RegistryValueAskedTwice",
    registry_value_with_default: "RegistryValueWithDefault",
    remove_lock_held_by_work_item: "RemoveLockHeldByWorkItem",
    remove_lock_of_one_tag: "RemoveLockOfOneTag",
    request_at_once: "RequestAtOnce",
    request_by_timer: "RequestByTimer",
    request_by_work_item: "RequestByWorkItem",
    request_in_own_memory: "RequestInOwnMemory",
    request_of_its_own: "RequestOfItsOwn",
    request_that_frees_itself: "RequestThatFreesItself",
    request_that_is_cancelled: "RequestThatIsCancelled",
    request_without_buffers: "RequestWithoutBuffers",
    resource: "Resource",
    routine_that_may_be_missing: "RoutineThatMayBeMissing",
    rundown_protection: "RundownProtection",
    section_shared_with_a_thread: "SectionSharedWithAThread",
    semaphore_as_lock: "SemaphoreAsLock",
    semaphore_beyond_its_limit: "SemaphoreBeyondItsLimit",
    sequenced_list: "SequencedList",
    spin_lock: "SpinLock",
    spin_lock_at_dispatch_level: "SpinLockAtDispatchLevel",
    spin_lock_in_stack_queued: "SpinLockInStackQueued",
    spin_lock_of_readers_and_writers: "SpinLockOfReadersAndWriters",
    spin_lock_of_thread_and_dpc: "SpinLockOfThreadAndDpc",
    status_that_is_raised: "StatusThatIsRaised",
    text_of_numbers: "TextOfNumbers",
    texts_that_end_early: "TextsThatEndEarly",
    thread_by_handle: "ThreadByHandle",
    thread_fed_by_a_queue: "ThreadFedByAQueue",
    thread_made_when_needed: "ThreadMadeWhenNeeded",
    thread_raises_its_priority: "ThreadRaisesItsPriority",
    thread_stopped: "ThreadStopped",
    thread_that_has_ended: "ThreadThatHasEnded",
    thread_that_polls: "ThreadThatPolls",
    time_out: "TimeOut",
    time_that_passes: "TimeThatPasses",
    timer_as_watchdog: "TimerAsWatchdog",
    timer_at_a_time: "TimerAtATime",
    timer_cancelled_by_its_dpc: "TimerCancelledByItsDpc",
    timer_of_the_device: "TimerOfTheDevice",
    timer_once: "TimerOnce",
    timer_periodic: "TimerPeriodic",
    timer_sets_itself_again: "TimerSetsItselfAgain",
    timer_to_wait_for: "TimerToWaitFor",
    user_address_that_is_not_there: "UserAddressThatIsNotThere",
    version_of_windows: "VersionOfWindows",
    wait_for_any_and_all: "WaitForAnyAndAll",
    window_for_application: "WindowForApplication",
    work_item_frees_itself: "WorkItemFreesItself",
    work_item_in_own_memory: "WorkItemInOwnMemory",
    work_item_is_handed_over: "WorkItemIsHandedOver",
    work_item_of_old: "WorkItemOfOld",
    work_item_queues_itself: "WorkItemQueuesItself",
}

#[test]
fn every_idiom_of_the_gallery_has_its_test() {
    let machine = start(bench);
    let mut listed = rig::stories(&machine, r"\\.\DirqlCorrect").unwrap();
    let mut tested = IDIOMS.to_vec();
    listed.sort_unstable();
    tested.sort_unstable();
    assert_eq!(listed, tested);
    expect_no_accusation(&machine.finish(), "the list");
}
