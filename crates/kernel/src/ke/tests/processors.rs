//! Several processors: who runs where, spinning, affinity.

use abi::DriverPtr;

use super::threads::new_event;
use crate::Cx;
use crate::ke::levels::irql::{self, DISPATCH_LEVEL};
use crate::ke::rig::{Driver, Log, Rig, bug_check, machine, message, rule, settle, spawn};
use crate::ke::sched::affinity;
use crate::ke::sched::scheduler::{self, End};
use crate::ke::sched::spinlock::{self, SpinLock};
use crate::ke::waits::{event, wait};
use crate::mm::pool;
use crate::nt::WindowsVersion;

fn new_lock(cx: &mut Cx<'_>) -> SpinLock {
    pool::allocate(cx, pool::Kind::NonPaged, 8, pool::tag(b"Test")).unwrap()
}

fn here(cx: &mut Cx<'_>) -> u32 {
    cx.with(|k| k.where_now().0)
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
            text.contains(&format!("processor 0 spins on lock {:#x} (an 8-byte nonpaged block", two.address))
                && text.contains("), which processor 1 holds"),
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
fn a_handle_with_which_a_lock_is_held_acquires_no_other() {
    machine(|cx| {
        let (lock, other) = (new_lock(cx), new_lock(cx));
        let handle = pool::allocate(cx, pool::Kind::NonPaged, 0x18, pool::tag(b"Test")).unwrap();
        spawn(cx, "driver", move |cx| {
            spinlock::acquire_queued(cx, lock, handle)?;
            spinlock::acquire_queued_at_dispatch(cx, other, handle)
        });
        assert_eq!(settle(cx), End::Stopped);
        assert_eq!(rule(cx), Some("lock-handle-in-use"), "{}", message(cx));
    });
}

/// Not: lock-handle-in-use
#[test]
fn a_handle_is_used_again_behind_its_release() {
    machine(|cx| {
        let (lock, other) = (new_lock(cx), new_lock(cx));
        let [first, second] =
            [0; 2].map(|_| pool::allocate(cx, pool::Kind::NonPaged, 0x18, pool::tag(b"Test")).unwrap());
        spawn(cx, "driver", move |cx| {
            for _ in 0..2 {
                spinlock::acquire_queued(cx, lock, first)?;
                spinlock::acquire_queued_at_dispatch(cx, other, second)?;
                spinlock::release_queued_from_dispatch(cx, second)?;
                spinlock::release_queued(cx, first)?;
            }
            Ok(())
        });
        settle(cx);
        assert_eq!(rule(cx), None);
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

/// Reads, on each processor in turn, what inlined macros read behind GS, and what the exports say of it.
const NUMBERS: &str = "
    typedef struct { u64 mask; unsigned short group, reserved[3]; } affinity; typedef struct { unsigned short group; u8 number, x; } number;
    void KeSetSystemGroupAffinityThread(affinity *, affinity *); void KeRevertToUserGroupAffinityThread(affinity *);
    int KeGetProcessorNumberFromIndex(u32, number *); u32 KeGetProcessorIndexFromNumber(number *);
    u32 KeGetCurrentProcessorNumberEx(number *); u32 KeQueryActiveProcessorCountEx(unsigned short);
    u32 KeQueryActiveProcessorCount(u64 *); u64 KeQueryGroupAffinity(unsigned short); unsigned short KeQueryActiveGroupCount(void);
    #define GS(type, at) ({ type v; __asm__ volatile(\"mov %%gs:%c1, %0\" : \"=r\"(v) : \"i\"(at)); v; })
    #define CHECK(x) if (!(x)) return __LINE__;
    ROUTINE int numbers(u32 count, u32 size) {
        affinity before, first = { 1, 0 }; number n, m; u64 mask;
        CHECK(KeQueryActiveProcessorCountEx(0xFFFF) == count && KeQueryActiveGroupCount() == (count + size - 1) / size);
        CHECK(KeQueryActiveProcessorCount(&mask) == (count < size ? count : size) && mask == KeQueryGroupAffinity(0));
        CHECK(KeQueryGroupAffinity(KeQueryActiveGroupCount()) == 0 && KeQueryActiveProcessorCountEx(64) == 0);
        KeSetSystemGroupAffinityThread(&first, &before); CHECK(before.mask == 0);
        for (u32 i = 0; i < count; i++) {
            CHECK(KeGetProcessorNumberFromIndex(i, &n) == 0 && n.group == i / size && n.number == i % size);
            CHECK(KeGetProcessorIndexFromNumber(&n) == i);
            affinity one = { 1ull << n.number, n.group }, last;
            KeSetSystemGroupAffinityThread(&one, &last); CHECK(last.mask != 0);
            CHECK(KeGetCurrentProcessorNumberEx(&m) == i && m.group == n.group && m.number == n.number);
            CHECK(GS(u8, 0x184) == n.number && GS(u32, 0x1A4) == i && GS(u8, 0x50) == 0);
            CHECK(GS(u64, 0x20) == GS(u64, 0x18) + 0x180 && *(u64 *)(GS(u64, 0x20) + 8) == GS(u64, 0x188));
            u8 old = KfRaiseIrql(2); CHECK(GS(u8, 0x50) == 2); KeLowerIrql(old);
        }
        n.number = size; n.group = 0; CHECK(KeGetProcessorIndexFromNumber(&n) == 0xFFFFFFFF);
        KeRevertToUserGroupAffinityThread(&before);
        return 0;
    }
    unsigned short KeGetCurrentNodeNumber(void), KeQueryHighestNodeNumber(void), KeQueryNodeMaximumProcessorCount(unsigned short);
    void KeQueryNodeActiveAffinity(unsigned short, affinity *, unsigned short *);
    ROUTINE int nodes(u32 count, u32 size) {
        unsigned short highest = KeQueryHighestNodeNumber(), n; u32 sum = 0; affinity a;
        CHECK(highest == KeQueryActiveGroupCount() - 1);
        for (unsigned short node = 0; node <= highest; node++) {
            KeQueryNodeActiveAffinity(node, &a, &n); sum += n;
            CHECK(n == KeQueryActiveProcessorCountEx(node) && n == KeQueryNodeMaximumProcessorCount(node));
            CHECK(a.group == node && a.mask == KeQueryGroupAffinity(node));
            KeSetSystemGroupAffinityThread(&a, 0); CHECK(KeGetCurrentNodeNumber() == node);
        }
        KeQueryNodeActiveAffinity(highest + 1, &a, &n); CHECK(n == 0 && a.mask == 0 && sum == count);
        KeQueryNodeActiveAffinity(0, 0, 0); CHECK(KeQueryNodeMaximumProcessorCount(highest + 1) == 0);
        return 0;
    }
    int KeSetPriorityThread(void *, int); int KeSetBasePriorityThread(void *, int); int KeQueryPriorityThread(void *);
    ROUTINE int priorities(void) {
        void *me = (void *)GS(u64, 0x188);
        CHECK(KeSetBasePriorityThread(me, 3) == 0 && KeQueryPriorityThread(me) == 11);
        CHECK(KeSetBasePriorityThread(me, -2) == 3 && KeQueryPriorityThread(me) == 6);
        CHECK(KeSetBasePriorityThread(me, 100) == -2 && KeQueryPriorityThread(me) == 15);
        CHECK(KeSetBasePriorityThread(me, -2147483647) == 7 && KeQueryPriorityThread(me) == 1);
        CHECK(KeSetPriorityThread(me, 16) == 1 && KeSetBasePriorityThread(me, 0) == 8 && KeQueryPriorityThread(me) == 8);
        return 0;
    }
    ROUTINE int nowhere(void) { affinity a = { 1, 7 }; KeSetSystemGroupAffinityThread(&a, 0); return 0; }
";

#[test]
fn a_driver_visits_every_processor_and_finds_its_number_group_level_and_thread_behind_gs() {
    for (count, size) in [(1, 64), (2, 64), (4, 2), (64, 64), (64, 16), (7, 4), (3, 1)] {
        let mut rig = Rig::processors(count);
        rig.settings.group_size = size;
        rig.run(|cx| {
            let driver = Driver::load(cx, "numbers", NUMBERS);
            let line = driver.run(cx, "numbers", &[count.into(), size.into()]);
            assert_eq!(line, Some(0), "{count} processors in groups of {size}: {}", message(cx));
        });
    }
}

#[test]
fn before_windows_11_a_thread_stays_in_the_group_it_was_made_in() {
    for (windows, where_to) in [(WindowsVersion::Win10, "0 1 0 1"), (WindowsVersion::Win11, "0 1 2 3")] {
        let mut rig = Rig::processors(4);
        (rig.settings.group_size, rig.settings.windows) = (2, windows);
        rig.run(|cx| {
            let log = Log::default();
            for _ in 0..4 {
                let log = log.clone();
                spawn(cx, "worker", move |cx| {
                    let number = here(cx);
                    log.say(number.to_string());
                    irql::raise(cx, DISPATCH_LEVEL)?;
                    scheduler::end_turn(cx)?;
                    irql::lower(cx, 0)
                });
            }
            settle(cx);
            assert_eq!(log.words(), where_to);
        });
    }
}

#[test]
fn a_group_that_does_not_exist_is_no_place_for_a_thread() {
    machine(|cx| {
        let driver = Driver::load(cx, "numbers", NUMBERS);
        assert_eq!(driver.run(cx, "nowhere", &[]), Some(0));
        let findings = cx.nt().findings();
        assert_eq!(findings.first().map(|finding| finding.rule), Some("affinity-without-effect"));
    });
}

#[test]
fn each_group_of_processors_is_a_node() {
    for (count, size) in [(1, 64), (4, 2), (7, 4), (64, 16)] {
        let mut rig = Rig::processors(count);
        rig.settings.group_size = size;
        rig.run(|cx| {
            let driver = Driver::load(cx, "numbers", NUMBERS);
            let line = driver.run(cx, "nodes", &[count.into(), size.into()]);
            assert_eq!(line, Some(0), "{count} processors in groups of {size}: {}", message(cx));
        });
    }
}

#[test]
fn a_base_priority_is_relative_to_the_processs_and_never_real_time() {
    machine(|cx| {
        let driver = Driver::load(cx, "numbers", NUMBERS);
        assert_eq!(driver.run(cx, "priorities", &[]), Some(0), "{}", message(cx));
    });
}
