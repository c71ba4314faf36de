//! Mistakes with levels, and with memory that is in use.

use abi::DriverPtr;

use crate::ke::levels::irql;
use crate::ke::rig::{Rig, bug_check, machine, rule, settle, spawn};
use crate::ke::sched::scheduler::{self, End};
use crate::ke::sched::spinlock;
use crate::ke::waits::{event, timer, wait};
use crate::mm::pool;
use crate::verdict::{Tier, Verdict};
use crate::verifier::Verifier;
use crate::{Cx, Settings};

/// Holds: irql/raise-and-lower
#[test]
fn a_raise_that_lowers_and_a_lower_that_raises_are_told() {
    type Mistake = fn(&mut Cx<'_>) -> engine::Flow<()>;
    let cases: [(&str, u32, Mistake); 3] = [
        ("irql-raise-lowers", 0xC4, |cx| {
            irql::raise(cx, 5)?;
            irql::raise(cx, 2).map(|_| ())
        }),
        ("irql-lower-raises", 0xC4, |cx| irql::lower(cx, 2)),
        ("irql-invalid", 0x1E, |cx| irql::set_by_cr8(cx, 16)),
    ];
    for (expected, code, mistake) in cases {
        machine(move |cx| {
            spawn(cx, "driver", mistake);
            assert_eq!(settle(cx), End::Stopped);
            assert_eq!((rule(cx), bug_check(cx)), (Some(expected), Some(code)));
        });
    }
}

/// Holds: irql/same-everywhere
#[test]
fn the_level_is_the_same_by_call_by_cr8_and_in_the_control_region() {
    machine(|cx| {
        spawn(cx, "driver", |cx| {
            assert_eq!(irql::raise(cx, 7)?, 0);
            let region = cx.with(|k| k.ke.processor().region);
            assert_eq!(cx.read(region + abi::KPCR::Irql)?, 7);
            irql::set_by_cr8(cx, 3)?;
            assert_eq!(irql::get(cx), Ok(3));
            irql::lower(cx, 0)
        });
        assert_eq!(settle(cx), End::Quiet);
    });
}

#[test]
fn memory_that_the_kernel_still_uses_cannot_be_freed() {
    type Use = fn(&mut Cx<'_>, DriverPtr<()>) -> engine::Flow<()>;
    let cases: [(&str, Use); 2] = [
        ("freed-active-timer", |cx, block| {
            timer::initialize(cx, block.cast())?;
            timer::set(cx, block.cast(), -100, DriverPtr::NULL).map(|_| ())
        }),
        ("freed-while-waited-for", |cx, block| {
            event::initialize(cx, block.cast(), 0, false)?;
            let waiter = move |cx: &mut Cx<'_>| wait::for_object(cx, block).map(|_| ());
            spawn(cx, "waiter", waiter);
            scheduler::yield_now(cx).map(|_| ())
        }),
    ];
    for (expected, put_to_use) in cases {
        machine(move |cx| {
            let block = pool::allocate(cx, pool::Kind::NonPaged, 0x40, pool::tag(b"Test")).unwrap();
            spawn(cx, "driver", move |cx| {
                put_to_use(cx, block)?;
                pool::free(cx, block)
            });
            assert_eq!((settle(cx), rule(cx)), (End::Stopped, Some(expected)));
        });
    }
}

/// A spin lock is a word of memory: Windows cannot know that it is freed. Another processor that holds it releases it, and writes there.
#[test]
fn a_lock_that_is_freed_by_who_holds_it_is_drivers_verifiers_and_one_of_another_processor_an_error() {
    machine(|cx: &mut Cx<'_>| {
        let block: DriverPtr<u64> =
            pool::allocate(cx, pool::Kind::NonPaged, 0x40, pool::tag(b"Test")).unwrap();
        spawn(cx, "driver", move |cx| {
            irql::raise(cx, 2)?;
            spinlock::acquire_at_dispatch(cx, block)?;
            pool::free(cx, block)?;
            assert!(
                cx.with(|k| k.ke.levels.locks().is_none_held()),
                "a lock in freed memory is held by no processor"
            );
            irql::lower(cx, 0)
        });
        assert_eq!((settle(cx), rule(cx), bug_check(cx)), (End::Quiet, Some("freed-held-lock"), Some(0xC4)));
        assert!(cx.nt().verdict().is_none());
    });
    Rig::processors(2).run(|cx: &mut Cx<'_>| {
        let block: DriverPtr<u64> =
            pool::allocate(cx, pool::Kind::NonPaged, 0x40, pool::tag(b"Test")).unwrap();
        spawn(cx, "holder", move |cx| {
            spinlock::acquire_raise(cx, block)?;
            scheduler::end_turn(cx)
        });
        spawn(cx, "driver", move |cx| {
            assert!(cx.with(|k| k.ke.levels.locks().is_held(block.address)));
            pool::free(cx, block)
        });
        assert_eq!((settle(cx), rule(cx)), (End::Stopped, Some("freed-held-lock")));
        assert_eq!(cx.nt().verdict().map(|verdict| verdict.tier), Some(Tier::Error));
    });
}

#[test]
fn what_only_verifier_objects_to_is_told_once_and_ends_a_run_only_with_its_option() {
    let verify = |cx: &mut Cx<'_>| cx.verify(Verdict::verifier("critical-region-at-dispatch", "a sentence"));
    machine(|cx: &mut Cx<'_>| {
        assert_eq!((verify(cx), verify(cx)), (Ok(()), Ok(())));
        assert!(cx.nt().verdict().is_none());
        let findings = cx.nt().findings();
        assert_eq!(findings.iter().map(|finding| finding.tier).collect::<Vec<_>>(), [Tier::Verifier]);
    });
    let settings = Settings { verifier: Verifier::ALL, ..Settings::default() };
    Rig { settings, ..Rig::default() }.run(|cx: &mut Cx<'_>| {
        assert!(verify(cx).is_err());
        assert_eq!(rule(cx), Some("critical-region-at-dispatch"));
        assert_eq!(cx.nt().verdict().unwrap().tier, Tier::Error);
    });
}
