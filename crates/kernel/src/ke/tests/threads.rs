//! Who runs when: priorities, ping-pong, quanta, ends of threads, determinism.

use abi::{DriverPtr, KEVENT, KTHREAD, NtStatus};
use engine::{Flow, Leave};

use crate::Cx;
use crate::ke::rig::{Log, Rig, Scripted, Trace, machine, message, rule, settle, spawn};
use crate::ke::sched::priority;
use crate::ke::sched::scheduler::{self, End};
use crate::ke::waits::{event, thread, wait};
use crate::mm::pool;
use crate::verdict::Tier;

/// An event in nonpaged pool.
pub(super) fn new_event(cx: &mut Cx<'_>, kind: u32, signaled: bool) -> DriverPtr<KEVENT> {
    let event = pool::allocate(cx, pool::Kind::NonPaged, 0x18, pool::tag(b"Test")).unwrap();
    event::initialize(cx, event, kind, signaled).unwrap();
    event
}

fn ping_pong(cx: &mut Cx<'_>, log: &Log) {
    let (ping, pong) = (new_event(cx, 1, false), new_event(cx, 1, false));
    let (a, b) = (log.clone(), log.clone());
    spawn(cx, "ping", move |cx| {
        for _ in 0..3 {
            a.say("ping");
            event::set(cx, pong, 0, false)?;
            let _ = wait::for_object(cx, ping)?;
        }
        Ok(())
    });
    spawn(cx, "pong", move |cx| {
        for _ in 0..3 {
            let _ = wait::for_object(cx, pong)?;
            b.say("pong");
            event::set(cx, ping, 0, false)?;
        }
        Ok(())
    });
}

#[test]
fn two_threads_hand_each_other_the_turn_by_events() {
    machine(|cx| {
        let log = Log::default();
        ping_pong(cx, &log);
        assert_eq!(settle(cx), End::Quiet);
        assert_eq!(log.words(), "ping pong ping pong ping pong");
    });
}

#[test]
fn the_same_machine_leaves_the_same_trace() {
    let run = || {
        Rig::processors(2).run(|cx| {
            let trace = Trace::of(cx);
            ping_pong(cx, &Log::default());
            settle(cx);
            trace.lines()
        })
    };
    let (first, second) = (run(), run());
    assert!(first.len() > 15 && first.iter().any(|line| line.contains("Switch")));
    assert_eq!(first, second);
}

#[test]
fn a_thread_of_higher_priority_runs_at_once_and_its_maker_goes_on_after_it() {
    machine(|cx| {
        let log = Log::default();
        let (low, high) = (log.clone(), log.clone());
        let go = new_event(cx, 1, false);
        let waiting = spawn(cx, "high", move |cx| {
            let me = thread::current_object(cx);
            assert_eq!(priority::set(cx, me, 16)?, 8);
            let _ = wait::for_object(cx, go)?;
            high.say("high");
            Ok(())
        });
        spawn(cx, "low", move |cx| {
            low.say("before");
            event::set(cx, go, 0, false)?;
            low.say("after");
            Ok(())
        });
        settle(cx);
        assert_eq!(log.words(), "before high after");
        assert!(cx.with(|k| k.ke.sched.threads().get(waiting).is_none()), "it has ended");
    });
}

#[test]
fn a_priority_that_is_the_systems_is_told_and_one_that_does_not_exist_an_error() {
    for (wanted, tier, ends) in
        [(0, Some(Tier::Warning), false), (31, None, false), (32, None, true), (-1, None, true)]
    {
        machine(move |cx: &mut Cx<'_>| {
            spawn(cx, "driver", move |cx| {
                let me = thread::current_object(cx);
                priority::set(cx, me, wanted)?;
                assert_eq!(priority::query(cx, me)?, wanted);
                priority::set(cx, me, 8).map(|_| ())
            });
            let _ = settle(cx);
            assert_eq!(cx.nt().verdict().map(|it| it.rule), ends.then_some("thread-priority"), "{wanted}");
            let findings = cx.nt().findings();
            assert_eq!(findings.first().map(|finding| finding.tier), tier, "{wanted}");
        });
    }
}

#[test]
fn equals_run_in_the_order_of_arrival_and_a_policy_may_choose_another() {
    let order = |answers: Vec<(&'static str, u32)>| {
        let rig = Rig { chooser: Box::new(Scripted { answers, slice: u64::MAX }), ..Rig::default() };
        rig.run(|cx| {
            let log = Log::default();
            for name in ["a", "b", "c"] {
                let log = log.clone();
                spawn(cx, name, move |_| {
                    log.say(name);
                    Ok(())
                });
            }
            settle(cx);
            engine::outside(|| log.words().as_str().to_owned())
        })
    };
    assert_eq!(order(Vec::new()), "a b c");
    assert_eq!(order(vec![("ke.next_thread", 2)]), "c a b");
}

#[test]
fn a_thread_object_is_signaled_when_its_thread_has_ended() {
    machine(|cx| {
        let log = Log::default();
        let first = log.clone();
        let go = new_event(cx, 0, false);
        let strand = spawn(cx, "short", move |cx| {
            let _ = wait::for_object(cx, go)?;
            first.say("ends");
            Ok(())
        });
        let object = cx.with(|k| k.ke.sched.threads()[strand].object);
        crate::ob::object::reference(cx, object).unwrap();
        let second = log.clone();
        spawn(cx, "waiter", move |cx| {
            event::set(cx, go, 0, false)?;
            let status = wait::for_object(cx, object)?;
            second.say(format!("{:#x}", status.0));
            crate::ob::object::dereference(cx, object).map(|_| ())
        });
        settle(cx);
        assert_eq!(log.words(), "ends 0x0");
    });
}

#[test]
fn everybody_waiting_for_ever_is_a_deadlock_that_names_who_waits_for_what() {
    machine(|cx| {
        let never = new_event(cx, 1, false);
        spawn(cx, "application thread", move |cx| wait::for_object(cx, never).map(|_| ()));
        let end = scheduler::run_until(cx.nt(), &mut |_| false);
        assert_eq!((end, rule(cx)), (End::Stopped, Some("deadlock")));
        let expected =
            format!("the application thread waits for the synchronization event {:#x}", never.address);
        assert!(message(cx).contains(&expected), "{}", message(cx));
    });
}

#[test]
fn a_stopped_machine_unwinds_every_thread_that_waits() {
    machine(|cx| {
        let log = Log::default();
        let never = new_event(cx, 1, false);
        for name in ["a", "b"] {
            let log = log.clone();
            spawn(cx, name, move |cx| {
                let left = wait::for_object(cx, never);
                log.say(format!("{name}:{left:?}"));
                left.map(|_| ())
            });
        }
        settle(cx);
        cx.nt().teardown();
        assert_eq!(log.words(), "a:Err(Stop) b:Err(Stop)");
        let left: Flow<NtStatus> = Err(Leave::Stop);
        assert!(left.is_err());
    });
}

#[test]
fn drivers_find_the_current_thread_at_gs_188h() {
    machine(|cx| {
        spawn(cx, "reader", |cx| {
            let region = cx.with(|k| k.ke.processor().region);
            let at = DriverPtr::<DriverPtr<KTHREAD>>::new(region.address + 0x188);
            let seen = cx.read(at)?;
            assert_eq!(seen, thread::current_object(cx));
            let own = DriverPtr::<u64>::new(region.address + 0x18);
            assert_eq!(cx.read(own)?, region.address);
            Ok(())
        });
        settle(cx);
    });
}

#[test]
fn a_thread_that_ends_in_a_critical_region_is_told() {
    machine(|cx| {
        spawn(cx, "careless", crate::ke::sched::region::enter_critical);
        assert_eq!(settle(cx), End::Stopped);
        assert_eq!(rule(cx), Some("thread-ended-in-critical-region"));
    });
}
