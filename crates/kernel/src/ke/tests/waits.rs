//! What waiting does to each kind of object.

use abi::{DISPATCHER_HEADER, DriverPtr, KEVENT, KMUTANT, KSEMAPHORE, LIST_ENTRY, NtStatus};

use super::threads::new_event;
use crate::Cx;
use crate::ke::levels::irql::{self, DISPATCH_LEVEL};
use crate::ke::rig::{Log, Rig, bug_check, machine, message, rule, settle, spawn};
use crate::ke::sched::region;
use crate::ke::sched::scheduler::End;
use crate::ke::timing::time::Due;
use crate::ke::waits::wait::{self, Timeout};
use crate::ke::waits::{dispatcher, event, mutex, semaphore};
use crate::mm::pool;
use crate::verdict::Tier;

fn allocate<T>(cx: &mut Cx<'_>) -> DriverPtr<T> {
    pool::allocate(cx, pool::Kind::NonPaged, size_of::<T>() as u64, pool::tag(b"Test")).unwrap()
}

fn poll(cx: &mut Cx<'_>, objects: &[DriverPtr<DISPATCHER_HEADER>], all: bool) -> NtStatus {
    wait::wait(cx, objects, all, Timeout::Poll, DriverPtr::NULL, "test").unwrap()
}

fn state<T>(cx: &mut Cx<'_>, object: DriverPtr<T>) -> i32 {
    cx.read(object.cast::<DISPATCHER_HEADER>() + DISPATCHER_HEADER::SignalState).unwrap()
}

#[test]
fn a_notification_event_stays_signaled_and_a_synchronization_event_lets_one_thread_go() {
    machine(|cx| {
        for (kind, freed) in [(0, "woken woken woken"), (1, "woken")] {
            let event = new_event(cx, kind, false);
            let log = Log::default();
            for _ in 0..3 {
                let log = log.clone();
                spawn(cx, "waiter", move |cx| {
                    let _ = wait::for_object(cx, event)?;
                    log.say("woken");
                    Ok(())
                });
            }
            settle(cx);
            assert_eq!(event::set(cx, event, 0, false), Ok(0));
            settle(cx);
            assert_eq!(log.words(), freed);
            assert_eq!(state(cx, event), i32::from(kind == 0));
        }
    });
}

#[test]
fn the_wait_list_in_memory_holds_who_waits() {
    machine(|cx| {
        let event = new_event(cx, 1, false);
        let head = (event + KEVENT::Header) + DISPATCHER_HEADER::WaitListHead;
        assert_eq!(cx.read(head + LIST_ENTRY::Flink).unwrap(), head, "empty");
        spawn(cx, "waiter", move |cx| wait::for_object(cx, event).map(|_| ()));
        settle(cx);
        assert_ne!(cx.read(head + LIST_ENTRY::Flink).unwrap(), head);
        event::set(cx, event, 0, false).unwrap();
        assert_eq!(cx.read(head + LIST_ENTRY::Flink).unwrap(), head);
    });
}

#[test]
fn an_event_that_was_overwritten_while_a_thread_waits_is_told_when_it_is_set() {
    machine(|cx| {
        let event = new_event(cx, 1, false);
        spawn(cx, "waiter", move |cx| wait::for_object(cx, event).map(|_| ()));
        settle(cx);
        let other = new_event(cx, 1, false);
        let head = (event + KEVENT::Header) + DISPATCHER_HEADER::WaitListHead;
        let wrong = (other + KEVENT::Header) + DISPATCHER_HEADER::WaitListHead;
        cx.write(head + LIST_ENTRY::Flink, wrong).unwrap();
        assert!(event::set(cx, event, 0, false).is_err());
        assert_eq!((rule(cx), bug_check(cx)), (Some("wait-list-damaged"), Some(0x139)));
    });
}

/// Two threads that wait for an event each, by wait blocks that are the same or not.
fn two_waits(cx: &mut Cx<'_>, shared: bool) {
    let bytes = 2 * size_of::<abi::KWAIT_BLOCK>() as u64;
    let blocks: DriverPtr<abi::KWAIT_BLOCK> =
        pool::allocate(cx, pool::Kind::NonPaged, bytes, pool::tag(b"Test")).unwrap();
    for index in 0..2 {
        let event = new_event(cx, 0, false);
        let array = allocate::<DriverPtr<DISPATCHER_HEADER>>(cx);
        cx.write(array, event.cast()).unwrap();
        let blocks = blocks.index(if shared { 0 } else { index });
        spawn(cx, "waiter", move |cx| {
            wait::multiple(cx, 1, array, 1, 0, 0, false, DriverPtr::NULL, blocks).map(|_| ())
        });
    }
    settle(cx);
}

#[test]
fn wait_blocks_by_which_a_thread_waits_are_no_others() {
    machine(|cx| {
        two_waits(cx, true);
        assert_eq!(rule(cx), Some("wait-blocks-in-use"), "{}", message(cx));
    });
}

/// Not: wait-blocks-in-use
#[test]
fn neighbouring_wait_blocks_serve_two_waits() {
    machine(|cx| {
        two_waits(cx, false);
        assert_eq!(rule(cx), None);
    });
}

/// An event in the middle of the stack of a thread that runs no driver code.
fn event_on_stack(cx: &mut Cx<'_>, strand: engine::StrandId) -> DriverPtr<KEVENT> {
    let stack = cx.with(|k| k.ke.sched.threads().get(strand).unwrap().stacks().next()).unwrap();
    let event = DriverPtr::new(stack.limit.midpoint(stack.base) & !15);
    event::initialize(cx, event, 0, false).unwrap();
    event
}

#[test]
fn an_event_of_a_routine_that_has_returned_is_not_set() {
    machine(|cx| {
        let go = new_event(cx, 1, false);
        let strand = spawn(cx, "sleeper", move |cx| wait::for_object(cx, go).map(|_| ()));
        settle(cx);
        let event = event_on_stack(cx, strand);
        assert!(event::set(cx, event, 0, false).is_err());
        assert_eq!(rule(cx), Some("event-on-dead-stack"), "{}", message(cx));
    });
}

/// Not: event-on-dead-stack
#[test]
fn an_event_on_a_stack_is_set_while_its_thread_waits_for_it() {
    machine(|cx| {
        let place = std::rc::Rc::new(std::cell::Cell::new(0));
        let shown = std::rc::Rc::clone(&place);
        spawn(cx, "waiter", move |cx| {
            let strand = cx.engine().strand();
            let event = event_on_stack(cx, strand);
            shown.set(event.address);
            wait::for_object(cx, event).map(|_| ())
        });
        settle(cx);
        event::set(cx, DriverPtr::new(place.get()), 0, false).unwrap();
        settle(cx);
        assert_eq!(rule(cx), None);
    });
}

#[test]
fn an_object_that_nobody_initialised_cannot_be_waited_for() {
    machine(|cx| {
        let event = allocate::<KEVENT>(cx);
        assert!(event::set(cx, event, 0, false).is_err());
        assert_eq!(rule(cx), Some("object-not-initialized"));
    });
}

#[test]
fn waiting_for_any_takes_the_first_signaled_one_and_waiting_for_all_takes_all_or_none() {
    machine(|cx| {
        let (a, b) = (new_event(cx, 1, false), new_event(cx, 1, true));
        let objects = [a.cast(), b.cast()];
        assert_eq!(poll(cx, &objects, true), NtStatus::TIMEOUT);
        assert_eq!(state(cx, b), 1, "nothing was taken");
        assert_eq!(poll(cx, &objects, false), NtStatus::WAIT_1);
        assert_eq!(state(cx, b), 0);
        event::set(cx, b, 0, false).unwrap();
        event::set(cx, a, 0, false).unwrap();
        assert_eq!(poll(cx, &objects, true), NtStatus::SUCCESS);
        assert_eq!((state(cx, a), state(cx, b)), (0, 0));
    });
}

#[test]
fn a_thread_that_waits_for_all_goes_on_with_the_last_of_them() {
    machine(|cx| {
        let (a, b) = (new_event(cx, 1, false), new_event(cx, 0, false));
        let log = Log::default();
        let seen = log.clone();
        spawn(cx, "waiter", move |cx| {
            let objects = [a.cast(), b.cast()];
            let status = wait::wait(cx, &objects, true, Timeout::Never, DriverPtr::NULL, "test")?;
            seen.say(format!("{}", status.0));
            Ok(())
        });
        settle(cx);
        event::set(cx, a, 0, false).unwrap();
        settle(cx);
        assert_eq!((log.words().as_str(), state(cx, a)), ("", 1));
        event::set(cx, b, 0, false).unwrap();
        settle(cx);
        assert_eq!((log.words().as_str(), state(cx, a), state(cx, b)), ("0", 0, 1));
        assert_eq!(cx.with(|k| dispatcher::waited_for_in(k, a.address, 0x18)), None);
    });
}

#[test]
fn a_semaphore_lets_as_many_go_as_it_counts_and_not_above_its_limit() {
    machine(|cx| {
        let semaphore = allocate::<KSEMAPHORE>(cx);
        semaphore::initialize(cx, semaphore, 1, 3).unwrap();
        let log = Log::default();
        for name in ["a", "b", "c"] {
            let log = log.clone();
            spawn(cx, name, move |cx| {
                let _ = wait::for_object(cx, semaphore)?;
                log.say(name);
                Ok(())
            });
        }
        settle(cx);
        assert_eq!(log.words(), "a");
        assert_eq!(semaphore::release(cx, semaphore, 0, 2, false), Ok(0));
        settle(cx);
        assert_eq!(log.words(), "a b c");
        semaphore::release(cx, semaphore, 0, 3, false).unwrap();
        assert!(semaphore::release(cx, semaphore, 0, 1, false).is_err());
        assert_eq!(rule(cx), Some("semaphore-limit-exceeded"));
    });
}

#[test]
fn a_mutex_is_its_owners_as_often_as_it_likes_and_disables_apcs_meanwhile() {
    machine(|cx| {
        let mutex = allocate::<KMUTANT>(cx);
        mutex::initialize(cx, mutex, 0).unwrap();
        let log = Log::default();
        let (first, second) = (log.clone(), log.clone());
        let go = new_event(cx, 1, false);
        spawn(cx, "owner", move |cx| {
            let _ = wait::for_object(cx, mutex)?;
            let _ = wait::for_object(cx, mutex)?;
            assert_eq!(region::are_apcs_disabled(cx), Ok(true));
            let _ = wait::for_object(cx, go)?;
            assert_eq!(mutex::release(cx, mutex, false), Ok(-1));
            first.say("still mine");
            assert_eq!(mutex::release(cx, mutex, false), Ok(0));
            assert_eq!(region::are_apcs_disabled(cx), Ok(false));
            Ok(())
        });
        spawn(cx, "next", move |cx| {
            let _ = wait::for_object(cx, mutex)?;
            second.say("mine");
            mutex::release(cx, mutex, false).map(|_| ())
        });
        settle(cx);
        event::set(cx, go, 0, false).unwrap();
        settle(cx);
        assert_eq!(log.words(), "still mine mine");
        assert_eq!(mutex::read_state(cx, mutex), Ok(1));
    });
}

#[test]
fn a_mutex_is_released_by_its_owner_only() {
    machine(|cx| {
        let mutex = allocate::<KMUTANT>(cx);
        mutex::initialize(cx, mutex, 0).unwrap();
        let never = new_event(cx, 1, false);
        spawn(cx, "owner", move |cx| {
            let _ = wait::for_object(cx, mutex)?;
            wait::for_object(cx, never).map(|_| ())
        });
        spawn(cx, "thief", move |cx| mutex::release(cx, mutex, false).map(|_| ()));
        assert_eq!(settle(cx), End::Stopped);
        assert_eq!((rule(cx), bug_check(cx)), (Some("mutex-not-owned"), Some(0x3B)));
        assert!(message(cx).contains("the thief released") && message(cx).contains("the owner owns"));
    });
}

/// Holds: irql/wait
#[test]
fn at_dispatch_level_a_wait_may_only_poll() {
    for (timeout, legal) in [
        (Timeout::Poll, true),
        (Timeout::At(Due { time: 5, absolute: false }), false),
        (Timeout::Never, false),
    ] {
        machine(move |cx| {
            let event = new_event(cx, 1, true);
            spawn(cx, "raised", move |cx| {
                irql::raise(cx, DISPATCH_LEVEL)?;
                let status = wait::wait(cx, &[event.cast()], false, timeout, DriverPtr::NULL, "a wait")?;
                assert_eq!(status, NtStatus::SUCCESS);
                irql::lower(cx, 0)
            });
            let end = settle(cx);
            assert_eq!(end == End::Quiet, legal, "{}", message(cx));
            assert_eq!(rule(cx), (!legal).then_some("wait-at-raised-irql"));
        });
    }
}

#[test]
fn set_event_with_wait_lets_nobody_in_before_the_wait() {
    Rig::default().run(|cx| {
        let (go, back) = (new_event(cx, 1, false), new_event(cx, 1, false));
        let log = Log::default();
        let (server, client) = (log.clone(), log.clone());
        spawn(cx, "server", move |cx| {
            let me = crate::ke::sched::thread_record::current_object(cx);
            crate::ke::sched::priority::set(cx, me, 20)?;
            let _ = wait::for_object(cx, go)?;
            server.say("served");
            event::set(cx, back, 0, false).map(|_| ())
        });
        spawn(cx, "client", move |cx| {
            event::set(cx, go, 0, true)?;
            client.say("asked");
            let _ = wait::for_object(cx, back)?;
            client.say("answered");
            Ok(())
        });
        settle(cx);
        assert_eq!(log.words(), "asked served answered");
    });
}

#[test]
fn a_semaphore_with_impossible_counts_is_told_and_works_as_far_as_it_goes() {
    machine(|cx| {
        let semaphore: DriverPtr<KSEMAPHORE> = allocate(cx);
        for (count, limit) in [(3, 2), (0, 0), (-1, 1)] {
            semaphore::initialize(cx, semaphore, count, limit).unwrap();
            assert_eq!(
                (state(cx, semaphore), cx.read(semaphore + KSEMAPHORE::Limit).unwrap()),
                (count, limit)
            );
        }
        let found: Vec<_> = cx.nt().findings().iter().map(|finding| (finding.rule, finding.tier)).collect();
        assert_eq!(found, [("semaphore-count", Tier::Warning); 3]);
        semaphore::initialize(cx, semaphore, 0, 2).unwrap();
        assert_eq!(cx.nt().findings().len(), 3, "these are possible");
    });
}

#[test]
fn a_wait_that_is_promised_at_dispatch_level_may_take_no_time_after_a_pulse_and_is_told_after_a_set() {
    machine(|cx| {
        let (event, free) = (new_event(cx, 0, false), new_event(cx, 1, true));
        let semaphore: DriverPtr<KSEMAPHORE> = allocate(cx);
        semaphore::initialize(cx, semaphore, 0, 2).unwrap();
        spawn(cx, "driver", move |cx| {
            irql::raise(cx, DISPATCH_LEVEL)?;
            assert_eq!(event::pulse(cx, event, 0, true)?, 0);
            assert_eq!(poll(cx, &[free.cast()], false), NtStatus::SUCCESS);
            assert!(cx.nt().findings().is_empty());
            assert_eq!(event::set(cx, event, 0, true)?, 0);
            assert_eq!(poll(cx, &[free.cast()], false), NtStatus::TIMEOUT);
            assert_eq!(semaphore::release(cx, semaphore, 0, 1, true)?, 0);
            assert_eq!(poll(cx, &[free.cast()], false), NtStatus::TIMEOUT);
            irql::lower(cx, 0)
        });
        assert_eq!(settle(cx), End::Quiet, "{}", message(cx));
        let found: Vec<_> = cx.nt().findings().iter().map(|finding| (finding.rule, finding.tier)).collect();
        assert_eq!(found, [("irql-too-high", Tier::Verifier), ("irql-too-high", Tier::Warning)]);
        assert_eq!(bug_check(cx), Some(0xC4));
    });
}
