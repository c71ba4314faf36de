//! Stories of the executive's locks, lists and work items, on a machine with threads.

use abi::{
    DriverPtr, ERESOURCE, FAST_MUTEX, GENERAL_LOOKASIDE, KEVENT, LIST_ENTRY, SINGLE_LIST_ENTRY, SLIST_ENTRY,
    SLIST_HEADER, WORK_QUEUE_ITEM,
};
use engine::{Flow, Leave};

use super::{fast_mutex, list, lookaside, mode, push_lock, resource, rundown, slist, spinlock};
use crate::Cx;
use crate::ke::rig::{Driver, Log, Rig, bug_check, machine, message, rule, settle, spawn};
use crate::ke::scheduler::{self, End};
use crate::ke::{event, guarded_mutex, irql, region};
use crate::mm::pool_exports;
use crate::mm::rig::bytes;

fn mutex(cx: &mut Cx<'_>) -> DriverPtr<FAST_MUTEX> {
    let mutex: DriverPtr<FAST_MUTEX> = DriverPtr::new(bytes(cx, &[0; 0x38]));
    cx.write(mutex + FAST_MUTEX::Count, 1).unwrap();
    event::initialize(cx, mutex + FAST_MUTEX::Event, 1, false).unwrap();
    mutex
}

/// Runs `work` on a thread of its own until the machine is quiet.
fn on_thread(cx: &mut Cx<'_>, work: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static) {
    spawn(cx, "story", work);
    settle(cx);
}

#[test]
fn a_fast_mutex_is_owned_by_one_at_apc_level() {
    machine(|cx| {
        let mutex = mutex(cx);
        let gate: DriverPtr<KEVENT> = DriverPtr::new(bytes(cx, &[0; 0x18]));
        event::initialize(cx, gate, 1, false).unwrap();
        let log = Log::default();
        for name in ["one", "two"] {
            let log = log.clone();
            spawn(cx, name, move |cx| {
                fast_mutex::acquire(cx, mutex)?;
                log.say(format!("{name}@{}", irql::current(cx)));
                let _ = crate::ke::wait::for_object(cx, gate)?;
                fast_mutex::release(cx, mutex)?;
                log.say(format!("out@{}", irql::current(cx)));
                Ok(())
            });
        }
        settle(cx);
        assert_eq!(log.words(), "one@1");
        assert_eq!(cx.read(mutex + FAST_MUTEX::Contention), Ok(1));
        event::set(cx, gate, 0, false).unwrap();
        settle(cx);
        event::set(cx, gate, 0, false).unwrap();
        settle(cx);
        assert_eq!(log.words(), "one@1 out@0 two@1 out@0");
        assert_eq!(cx.read(mutex + FAST_MUTEX::Count), Ok(1));
    });
}

#[test]
fn a_mutex_taken_twice_released_by_another_or_never_initialized_is_a_verdict() {
    machine(|cx| {
        let mutex = mutex(cx);
        on_thread(cx, move |cx| {
            fast_mutex::acquire(cx, mutex)?;
            assert_eq!(fast_mutex::try_acquire(cx, mutex), Ok(false));
            fast_mutex::acquire(cx, mutex)
        });
        assert_eq!(rule(cx), Some("fast-mutex-recursive"));
    });
    machine(|cx| {
        let mutex = mutex(cx);
        on_thread(cx, move |cx| fast_mutex::release(cx, mutex));
        assert_eq!(rule(cx), Some("fast-mutex-not-owned"));
    });
    machine(|cx| {
        let zeroes = DriverPtr::new(bytes(cx, &[0; 0x38]));
        on_thread(cx, move |cx| fast_mutex::acquire(cx, zeroes));
        assert_eq!(rule(cx), Some("fast-mutex-uninitialized"));
    });
    machine(|cx| {
        let mutex = mutex(cx);
        on_thread(cx, move |cx| {
            region::enter_critical(cx)?;
            fast_mutex::acquire_unsafe(cx, mutex)?;
            fast_mutex::release_unsafe(cx, mutex)?;
            region::leave_critical(cx)?;
            fast_mutex::acquire_unsafe(cx, mutex)
        });
        assert_eq!((rule(cx), bug_check(cx)), (Some("fast-mutex-apcs"), Some(0xC4)));
    });
}

#[test]
fn a_guarded_mutex_is_a_guarded_region_too() {
    machine(|cx| {
        let mutex = DriverPtr::new(bytes(cx, &[0xCD; 0x38]));
        on_thread(cx, move |cx| {
            guarded_mutex::initialize(cx, mutex)?;
            guarded_mutex::acquire(cx, mutex)?;
            assert_eq!((irql::current(cx), region::are_all_apcs_disabled(cx)), (0, Ok(true)));
            assert_eq!(guarded_mutex::try_acquire(cx, mutex), Ok(false));
            guarded_mutex::release(cx, mutex)?;
            assert_eq!(region::are_all_apcs_disabled(cx), Ok(false));
            assert_eq!(guarded_mutex::try_acquire(cx, mutex), Ok(true));
            guarded_mutex::release(cx, mutex)
        });
        assert_eq!(rule(cx), None, "{}", message(cx));
    });
}

fn lock(cx: &mut Cx<'_>) -> DriverPtr<ERESOURCE> {
    let lock = DriverPtr::new(bytes(cx, &[0; 0x68]));
    let _ = resource::initialize(cx, lock).unwrap();
    lock
}

/// Threads that acquire `lock` in turn, say so, wait for the gate and release.
fn owners(
    cx: &mut Cx<'_>,
    lock: DriverPtr<ERESOURCE>,
    modes: &[(&'static str, bool)],
) -> (Log, DriverPtr<KEVENT>) {
    let gate: DriverPtr<KEVENT> = DriverPtr::new(bytes(cx, &[0; 0x18]));
    event::initialize(cx, gate, 1, false).unwrap();
    let log = Log::default();
    for &(name, exclusive) in modes {
        let log = log.clone();
        spawn(cx, name, move |cx| {
            let acquire = if exclusive { resource::enter_exclusive } else { resource::enter_shared };
            acquire(cx, lock)?;
            log.say(name);
            let _ = crate::ke::wait::for_object(cx, gate)?;
            resource::release_and_leave(cx, lock)
        });
        settle(cx);
    }
    (log, gate)
}

#[test]
fn readers_share_writers_do_not_and_nobody_overtakes_a_writer() {
    machine(|cx| {
        let lock = lock(cx);
        let (log, gate) = owners(cx, lock, &[("r1", false), ("r2", false), ("w", true), ("r3", false)]);
        assert_eq!(log.words(), "r1 r2");
        assert_eq!(resource::exclusive_waiters(cx, lock), Ok(1));
        assert_eq!(resource::shared_waiters(cx, lock), Ok(1));
        for expected in ["r1 r2", "r1 r2 w", "r1 r2 w r3", "r1 r2 w r3"] {
            event::set(cx, gate, 0, false).unwrap();
            settle(cx);
            assert_eq!(log.words(), expected);
        }
        assert_eq!(cx.read(lock + ERESOURCE::ActiveCount), Ok(0));
        assert_eq!(cx.read(lock + ERESOURCE::ContentionCount), Ok(2));
        let _ = resource::delete(cx, lock).unwrap();
        assert_eq!(rule(cx), None);
    });
}

#[test]
fn a_writer_that_becomes_a_reader_lets_readers_in() {
    machine(|cx| {
        let lock = lock(cx);
        let log = Log::default();
        let inner = log.clone();
        spawn(cx, "writer", move |cx| {
            resource::enter_exclusive(cx, lock)?;
            assert_eq!(resource::acquire_exclusive(cx, lock, true), Ok(true), "once more");
            assert_eq!(resource::acquired_count(cx, lock), Ok(2));
            inner.say("writing");
            crate::ke::wait::zw_yield(cx).map(|_| ())?;
            resource::convert(cx, lock)?;
            inner.say("reading");
            resource::release(cx, lock)?;
            resource::release_and_leave(cx, lock)
        });
        let inner = log.clone();
        spawn(cx, "reader", move |cx| {
            resource::enter_shared(cx, lock)?;
            inner.say("in");
            resource::release_and_leave(cx, lock)
        });
        settle(cx);
        assert_eq!(log.words().split(' ').next(), Some("writing"));
        assert!(log.words().ends_with("in") || log.words().ends_with("reading"), "{}", log.words());
        assert_eq!(rule(cx), None);
    });
}

#[test]
fn what_can_be_wrong_with_a_resource_is_told() {
    type Story = fn(&mut Cx<'_>, DriverPtr<ERESOURCE>) -> Flow<()>;
    let stories: [(&str, Option<u32>, Story); 5] = [
        ("resource-apcs-enabled", Some(0xC4), |cx, lock| {
            resource::acquire_shared(cx, lock, true).map(|_| ())
        }),
        ("resource-not-owned", Some(0xE3), |cx, lock| {
            region::enter_critical(cx)?;
            resource::release(cx, lock)
        }),
        ("resource-self-deadlock", None, |cx, lock| {
            resource::enter_shared(cx, lock)?;
            resource::acquire_exclusive(cx, lock, true).map(|_| ())
        }),
        ("resource-deleted-while-owned", None, |cx, lock| {
            resource::enter_exclusive(cx, lock)?;
            resource::delete(cx, lock).map(|_| ())
        }),
        ("resource-initialized-twice", None, |cx, lock| resource::initialize(cx, lock).map(|_| ())),
    ];
    for (expected, code, story) in stories {
        machine(|cx| {
            let lock = lock(cx);
            on_thread(cx, move |cx| story(cx, lock));
            assert_eq!((rule(cx), bug_check(cx)), (Some(expected), code));
        });
    }
}

#[test]
fn interlocked_lists_tell_what_was_there_and_see_damage() {
    machine(|cx| {
        let memory = bytes(cx, &[0; 0x100]);
        let at = |n: u64| DriverPtr::<LIST_ENTRY>::new(memory + 16 * n);
        let (head, lock) = (at(0), DriverPtr::new(memory + 0xF0));
        cx.write(head + LIST_ENTRY::Flink, head).unwrap();
        cx.write(head + LIST_ENTRY::Blink, head).unwrap();
        assert_eq!(list::insert_tail(cx, head, at(1), lock), Ok(DriverPtr::NULL));
        assert_eq!(list::insert_tail(cx, head, at(2), lock), Ok(at(1)));
        assert_eq!(list::insert_head(cx, head, at(3), lock), Ok(at(1)));
        for expected in [at(3), at(1), at(2), DriverPtr::NULL] {
            assert_eq!(list::remove_head(cx, head, lock), Ok(expected));
        }
        let single = |n: u64| DriverPtr::<SINGLE_LIST_ENTRY>::new(memory + 0x80 + 8 * n);
        assert_eq!(list::push(cx, single(0), single(1), lock), Ok(DriverPtr::NULL));
        assert_eq!(list::push(cx, single(0), single(2), lock), Ok(single(1)));
        assert_eq!(list::pop(cx, single(0), lock), Ok(single(2)));
        assert_eq!(list::add_ulong(cx, DriverPtr::new(memory + 0xC0), 5, lock), Ok(0));
        assert_eq!(cx.read(lock), Ok(0), "the lock is free again");

        list::insert_tail(cx, head, at(1), lock).unwrap();
        cx.write(at(1) + LIST_ENTRY::Blink, at(5)).unwrap();
        assert_eq!(list::remove_head(cx, head, lock), Err(Leave::Stop));
        assert_eq!((rule(cx), bug_check(cx)), (Some("list-corrupt"), Some(0x139)));
    });
}

fn aligned(cx: &mut Cx<'_>, length: u64) -> u64 {
    pool_exports::allocate_pool2(
        cx,
        abi::POOL_FLAG_NON_PAGED | abi::POOL_FLAG_CACHE_ALIGNED,
        length,
        0x7473_694C,
    )
    .unwrap()
    .address
}

#[test]
fn a_sequenced_list_counts_its_depth_and_its_changes() {
    machine(|cx| {
        let memory = aligned(cx, 0x100);
        let (head, at) =
            (DriverPtr::<SLIST_HEADER>::new(memory), |n: u64| DriverPtr::<SLIST_ENTRY>::new(memory + 16 * n));
        slist::initialize(cx, head).unwrap();
        assert_eq!(slist::pop(cx, head), Ok(DriverPtr::NULL));
        slist::push(cx, head, at(1)).unwrap();
        assert_eq!(slist::push(cx, head, at(2)), Ok(at(1)));
        assert_eq!(slist::depth(cx, head), Ok(2));
        assert_eq!(slist::pop(cx, head), Ok(at(2)));
        slist::push(cx, head, at(3)).unwrap();
        assert_eq!(slist::flush(cx, head), Ok(at(3)));
        assert_eq!(cx.read(at(3) + SLIST_ENTRY::Next), Ok(at(1)));
        assert_eq!(slist::depth(cx, head), Ok(0));
        assert_eq!(cx.read(head + SLIST_HEADER::Alignment).unwrap() >> 16, 5, "five changes");
        assert_eq!(slist::push(cx, DriverPtr::new(memory + 8), at(1)), Err(Leave::Stop));
        assert!(message(cx).contains("DATATYPE_MISALIGNMENT"), "{}", message(cx));
    });
}

#[test]
fn a_lookaside_list_keeps_four_blocks_and_frees_them_when_it_goes() {
    machine(|cx| {
        let list: DriverPtr<GENERAL_LOOKASIDE> = DriverPtr::new(aligned(cx, 0x80));
        let none = DriverPtr::NULL;
        lookaside::initialize_nonpaged(cx, list, none, none, 0x200, 100, 0x4B4F_4F4C, 0).unwrap();
        let blocks: Vec<u64> = (0..6).map(|_| lookaside::allocate(cx, list).unwrap()).collect();
        for &block in &blocks {
            lookaside::free(cx, list, block).unwrap();
        }
        assert_eq!(lookaside::allocate(cx, list), Ok(blocks[3]), "the one kept last");
        let counters = [
            GENERAL_LOOKASIDE::TotalAllocates,
            GENERAL_LOOKASIDE::AllocateMisses,
            GENERAL_LOOKASIDE::FreeMisses,
        ];
        let counters: Vec<u32> = counters.iter().map(|&counter| cx.read(list + counter).unwrap()).collect();
        assert_eq!(counters, [7, 6, 2]);
        lookaside::free(cx, list, blocks[3]).unwrap();
        lookaside::delete(cx, list).unwrap();
        let live = cx.with(|k| {
            k.mm.pool.all().iter().filter(|(_, block)| block.tag == 0x4B4F_4F4C && !block.is_freed()).count()
        });
        assert_eq!(live, 0);
        assert_eq!(lookaside::delete(cx, list), Err(Leave::Stop));
        assert_eq!((rule(cx), bug_check(cx)), (Some("lookaside-uninitialized"), Some(0xC4)));
    });
}

#[test]
fn freeing_a_block_with_a_live_list_or_lock_in_it_is_a_verdict() {
    machine(|cx| {
        let block = aligned(cx, 0x100);
        let none = DriverPtr::NULL;
        lookaside::initialize_nonpaged(cx, DriverPtr::new(block + 0x40), none, none, 0, 8, 0x4B4F_4F4C, 0)
            .unwrap();
        assert_eq!(pool_exports::free_pool(cx, DriverPtr::new(block)), Err(Leave::Stop));
        assert_eq!(rule(cx), Some("freed-while-in-use"));
        assert!(message(cx).contains("an initialized lookaside list in it"), "{}", message(cx));
    });
}

const WORK: &str = r"
    struct Item { void *Flink, *Blink; void (*Routine)(void *); void *Parameter; };
    void ExQueueWorkItem(struct Item *, int);
    static struct Item item; static int ran;
    static void work(void *parameter) { ran += *(int *)parameter; }
    ROUTINE int ran_so_far(void) { return ran; }
    ROUTINE void queue(int times, int *by) {
        item.Flink = 0; item.Routine = work; item.Parameter = by;
        while (times--) ExQueueWorkItem(&item, 1);
    }";

#[test]
fn a_work_item_runs_once_on_a_system_thread() {
    machine(|cx| {
        let driver = Driver::load(cx, "worker", WORK);
        let by = bytes(cx, &5_u32.to_le_bytes());
        driver.run(cx, "queue", &[1, by]);
        settle(cx);
        driver.run(cx, "queue", &[1, by]);
        settle(cx);
        assert_eq!(driver.run(cx, "ran_so_far", &[]).map(|ran| ran & 0xFFFF_FFFF), Some(10));
        assert_eq!(rule(cx), None);
    });
}

#[test]
fn a_work_item_queued_twice_at_once_is_bug_check_96() {
    machine(|cx| {
        let item: DriverPtr<WORK_QUEUE_ITEM> = DriverPtr::new(bytes(cx, &[0; 0x20]));
        cx.write(item + WORK_QUEUE_ITEM::WorkerRoutine, DriverPtr::new(0x2000_0000_1000)).unwrap();
        on_thread(cx, move |cx| {
            let old = irql::raise(cx, 2)?;
            super::work_item::queue(cx, item, 1)?;
            super::work_item::queue(cx, item, 1)?;
            irql::lower(cx, old)
        });
        assert_eq!((rule(cx), bug_check(cx)), (Some("work-item"), Some(0x96)));
        assert!(message(cx).contains("queued already"), "{}", message(cx));
    });
}

#[test]
fn an_applications_thread_has_user_mode_behind_it() {
    machine(|cx| {
        on_thread(cx, |cx| {
            assert_eq!(mode::previous_mode(cx), Ok(1));
            Ok(())
        });
        assert_eq!(mode::previous_mode(cx), Ok(0));
        assert_eq!(mode::is_feature_present(cx, 10), Ok(true));
        assert_eq!(mode::is_feature_present(cx, 39), Ok(false), "AVX");
    });
}

/// The verdict's message when threads wait and nothing can end it.
fn deadlock(cx: &mut Cx<'_>) -> String {
    let nt = cx.nt();
    assert_eq!(scheduler::run_until(nt, &mut |_| false), End::Stopped);
    assert_eq!(rule(cx), Some("deadlock"));
    message(cx)
}

#[test]
fn a_rundown_wait_that_nothing_ends_says_how_many_references_there_are() {
    machine(|cx| {
        let reference: DriverPtr<u64> = DriverPtr::new(bytes(cx, &[0; 8]));
        spawn(cx, "owner", move |cx| {
            rundown::initialize(cx, reference)?;
            assert!(rundown::acquire_many(cx, reference, 3)?);
            rundown::release(cx, reference)?;
            rundown::wait_for_release(cx, reference)
        });
        let message = deadlock(cx);
        assert!(message.contains("owner waits for the release of run-down protection"), "{message}");
        assert!(message.contains("which has 2 reference(s)"), "{message}");
    });
}

#[test]
fn a_push_lock_that_is_never_given_back_says_who_holds_it() {
    machine(|cx| {
        let lock: DriverPtr<u64> = DriverPtr::new(bytes(cx, &[0; 8]));
        let gate: DriverPtr<KEVENT> = DriverPtr::new(bytes(cx, &[0; 0x18]));
        event::initialize(cx, gate, 1, false).unwrap();
        spawn(cx, "keeper", move |cx| {
            region::enter_critical(cx)?;
            push_lock::acquire_exclusive(cx, lock, 0)?;
            let _never = crate::ke::wait::for_object(cx, gate)?;
            Ok(())
        });
        settle(cx);
        spawn(cx, "waiter", move |cx| {
            region::enter_critical(cx)?;
            push_lock::acquire_shared(cx, lock, 0)
        });
        let message = deadlock(cx);
        assert!(message.contains("waiter waits for the push lock 0x"), "{message}");
        assert!(message.contains("which the keeper holds"), "{message}");
    });
}

#[test]
fn sharing_a_spin_lock_twice_spins_for_ever_once_a_writer_waits() {
    Rig::processors(2).run(|cx| {
        let lock: DriverPtr<u32> = DriverPtr::new(bytes(cx, &[0; 8]));
        spawn(cx, "reader", move |cx| {
            spinlock::acquire_shared(cx, lock)?;
            // The other processor comes to wait.
            scheduler::end_turn(cx)?;
            spinlock::acquire_shared_at_dispatch(cx, lock)
        });
        spawn(cx, "writer", move |cx| spinlock::acquire_exclusive(cx, lock).map(|_| ()));
        settle(cx);
        assert_eq!((rule(cx), bug_check(cx)), (Some("spin-lock-recursion"), Some(0xF)), "{}", message(cx));
    });
}
