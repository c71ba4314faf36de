//! Several processors: who runs where, spinning, affinity.

use abi::DriverPtr;

use super::threads::new_event;
use crate::Cx;
use crate::ke::processor::DISPATCH_LEVEL;
use crate::ke::rig::{Log, Rig, bug_check, machine, message, rule, settle, spawn};
use crate::ke::scheduler::{self, End};
use crate::ke::spinlock::{self, SpinLock};
use crate::ke::{affinity, event, irql, wait};
use crate::mm::pool;

fn new_lock(cx: &mut Cx<'_>) -> SpinLock {
    pool::allocate(cx, pool::Kind::NonPaged, 8, pool::tag(b"Test")).unwrap()
}

fn here(cx: &mut Cx<'_>) -> u32 {
    cx.with(|k| k.ke.where_now().0)
}

#[test]
fn threads_spread_over_idle_processors_each_with_its_own_level() {
    Rig::processors(4).run(|cx| {
        let log = Log::default();
        for _ in 0..4 {
            let log = log.clone();
            spawn(cx, "worker", move |cx| {
                assert_eq!(irql::current(cx), 0);
                irql::raise(cx, DISPATCH_LEVEL)?;
                scheduler::end_turn(cx)?;
                assert_eq!(irql::current(cx), DISPATCH_LEVEL);
                let number = here(cx);
                log.say(number.to_string());
                irql::lower(cx, 0)
            });
        }
        settle(cx);
        assert_eq!(log.words(), "0 1 2 3");
    });
}

#[test]
fn a_thread_runs_where_its_affinity_says() {
    Rig::processors(3).run(|cx| {
        spawn(cx, "mover", |cx| {
            for number in [2, 0, 1] {
                affinity::set_system(cx, 1 << number)?;
                assert_eq!(here(cx), number);
            }
            assert_eq!(affinity::set_system(cx, 0b100)?, 0b010, "what was set before");
            affinity::revert(cx, 0)
        });
        assert_eq!(settle(cx), End::Quiet);
    });
}

#[test]
fn a_processor_that_finds_a_lock_held_spins_until_it_is_free() {
    Rig::processors(2).run(|cx| {
        let lock = new_lock(cx);
        let log = Log::default();
        for name in ["a", "b"] {
            let log = log.clone();
            spawn(cx, name, move |cx| {
                let old = spinlock::acquire_raise(cx, lock)?;
                assert_eq!(cx.read(lock)?, 1);
                log.say(format!("{name}+"));
                scheduler::end_turn(cx)?;
                log.say(format!("{name}-"));
                spinlock::release_lower(cx, lock, old)
            });
        }
        assert_eq!(settle(cx), End::Quiet);
        assert_eq!(log.words(), "a+ a- b+ b-");
        assert_eq!(cx.read(lock), Ok(0));
    });
}

#[test]
fn two_processors_that_take_two_locks_in_different_order_deadlock() {
    Rig::processors(2).run(|cx| {
        let (one, two) = (new_lock(cx), new_lock(cx));
        for (first, second) in [(one, two), (two, one)] {
            spawn(cx, "taker", move |cx| {
                spinlock::acquire_raise(cx, first)?;
                scheduler::end_turn(cx)?;
                spinlock::acquire_at_dispatch(cx, second)
            });
        }
        assert_eq!((settle(cx), rule(cx)), (End::Stopped, Some("spin-lock-deadlock")));
        let text = message(cx);
        assert!(
            text.contains(&format!("processor 0 spins on lock {:#x}, which processor 1 holds", two.address)),
            "{text}"
        );
    });
}

#[test]
fn misuse_of_a_spin_lock_is_told() {
    type Misuse = fn(&mut Cx<'_>, SpinLock) -> engine::Flow<()>;
    let cases: [(&str, Option<u32>, Misuse); 5] = [
        ("spin-lock-recursion", Some(0xF), |cx, lock| {
            spinlock::acquire_raise(cx, lock)?;
            spinlock::acquire_at_dispatch(cx, lock)
        }),
        ("spin-lock-not-held", Some(0x10), |cx, lock| {
            irql::raise(cx, DISPATCH_LEVEL)?;
            spinlock::release_lower(cx, lock, 0)
        }),
        ("spin-lock-damaged", None, |cx, lock| {
            cx.write(lock, 0xFEED)?;
            spinlock::acquire_raise(cx, lock).map(|_| ())
        }),
        ("spin-lock-held-below-dispatch", None, |cx, lock| {
            let old = spinlock::acquire_raise(cx, lock)?;
            irql::lower(cx, old)
        }),
        ("irql-lower-raises", Some(0xC4), |cx, lock| {
            spinlock::acquire_raise(cx, lock)?;
            spinlock::release_lower(cx, lock, 5)
        }),
    ];
    for (expected, code, misuse) in cases {
        machine(|cx| {
            let lock = new_lock(cx);
            spawn(cx, "driver", move |cx| misuse(cx, lock));
            assert_eq!(settle(cx), End::Stopped);
            assert_eq!((rule(cx), bug_check(cx)), (Some(expected), code), "{}", message(cx));
        });
    }
}

#[test]
fn a_queued_lock_is_released_by_its_handle_only() {
    machine(|cx| {
        let lock = new_lock(cx);
        let handle = pool::allocate(cx, pool::Kind::NonPaged, 0x18, pool::tag(b"Test")).unwrap();
        spawn(cx, "driver", move |cx| {
            spinlock::acquire_queued(cx, lock, handle)?;
            assert_eq!((irql::current(cx), cx.read(lock)?), (DISPATCH_LEVEL, handle.address));
            spinlock::release_queued(cx, handle)?;
            assert_eq!((irql::current(cx), cx.read(lock)?), (0, 0));
            spinlock::acquire_queued(cx, lock, handle)?;
            spinlock::release_lower(cx, lock, 0)
        });
        settle(cx);
        assert_eq!(rule(cx), Some("spin-lock-not-held"));
    });
}

#[test]
fn a_woken_thread_takes_an_idle_processor_and_both_go_on() {
    Rig::processors(2).run(|cx| {
        let go = new_event(cx, 1, false);
        let log = Log::default();
        let (a, b) = (log.clone(), log.clone());
        spawn(cx, "woken", move |cx| {
            let _ = wait::for_object(cx, go)?;
            let number = here(cx);
            a.say(format!("woken on {number}"));
            Ok(())
        });
        spawn(cx, "waker", move |cx| {
            event::set(cx, go, 0, false)?;
            scheduler::end_turn(cx)?;
            let number = here(cx);
            b.say(format!("waker on {number}"));
            Ok(())
        });
        settle(cx);
        assert_eq!(log.words(), "woken on 0 waker on 1");
        let _ = DriverPtr::<u8>::NULL;
    });
}
