//! Time-outs, timers and delays in virtual time.

use abi::{DriverPtr, KTIMER, KUSER_SHARED_DATA, NtStatus};

use super::threads::new_event;
use crate::Cx;
use crate::ke::irq::stall;
use crate::ke::rig::{Log, machine, rule, settle, spawn};
use crate::ke::timing::shared_data;
use crate::ke::timing::time::{self, INCREMENT, MILLISECOND, TICK};
use crate::ke::waits::timer;
use crate::ke::waits::wait::{self, Timeout};
use crate::mm::pool;

fn new_timer(cx: &mut Cx<'_>, kind: u32) -> DriverPtr<KTIMER> {
    let timer = pool::allocate(cx, pool::Kind::NonPaged, 0x40, pool::tag(b"Test")).unwrap();
    timer::initialize_ex(cx, timer, kind).unwrap();
    timer
}

fn milliseconds(cx: &Cx<'_>) -> u64 {
    cx.engine().now() / 1_000_000
}

#[test]
fn a_wait_times_out_at_the_first_clock_tick_after_its_time_and_never_before() {
    machine(|cx| {
        let event = new_event(cx, 1, false);
        spawn(cx, "waiter", move |cx| {
            let until = Timeout::At(cx.with(|k| time::due(k, -20 * MILLISECOND.cast_signed())));
            let status = wait::wait(cx, &[event.cast()], false, until, DriverPtr::NULL, "test")?;
            assert_eq!(status, NtStatus::TIMEOUT);
            assert_eq!(cx.engine().now(), 2 * TICK, "20 ms lie between the first tick and the second");
            Ok(())
        });
        settle(cx);
        assert_eq!(rule(cx), None);
    });
}

#[test]
fn a_time_out_that_comes_too_late_changes_nothing() {
    machine(|cx| {
        let event = new_event(cx, 1, true);
        spawn(cx, "waiter", move |cx| {
            let until = Timeout::At(cx.with(|k| time::due(k, -20 * MILLISECOND.cast_signed())));
            let status = wait::wait(cx, &[event.cast()], false, until, DriverPtr::NULL, "test")?;
            assert_eq!(status, NtStatus::SUCCESS);
            Ok(())
        });
        settle(cx);
        assert_eq!(milliseconds(cx), 0, "no timer is left that would move the clock");
    });
}

#[test]
fn delays_end_in_the_order_of_their_lengths() {
    machine(|cx| {
        let log = Log::default();
        for (name, length) in [("long", 100_i64), ("short", 10), ("middle", 50)] {
            let log = log.clone();
            spawn(cx, name, move |cx| {
                let interval = pool::allocate(cx, pool::Kind::NonPaged, 8, pool::tag(b"Test"))?;
                cx.write(interval, -length * MILLISECOND.cast_signed())?;
                let status = wait::delay(cx, 0, false, interval)?;
                assert_eq!(status, NtStatus::SUCCESS);
                log.say(format!("{name}@{}", milliseconds(cx)));
                Ok(())
            });
        }
        settle(cx);
        assert_eq!(log.words(), "short@15 middle@62 long@109");
    });
}

#[test]
fn an_absolute_due_time_is_system_time() {
    machine(|cx| {
        let timer = new_timer(cx, 0);
        spawn(cx, "waiter", move |cx| {
            let due = (time::BOOT + 3 * INCREMENT).cast_signed();
            assert_eq!(timer::set(cx, timer, due, DriverPtr::NULL), Ok(false));
            let _ = wait::for_object(cx, timer)?;
            assert_eq!(cx.engine().now(), 3 * TICK);
            assert_eq!(timer::read_state(cx, timer), Ok(true), "a notification timer stays signaled");
            Ok(())
        });
        settle(cx);
        assert_eq!(rule(cx), None);
    });
}

#[test]
fn a_computer_that_has_been_running_for_long_has_another_uptime_and_the_same_time_of_day() {
    machine(|cx| {
        let system = |cx: &mut Cx<'_>| {
            let bytes = shared_data::bytes(cx, KUSER_SHARED_DATA::SystemTime.offset(), 8);
            u64::from_le_bytes(bytes.try_into().unwrap())
        };
        let ticks = |cx: &mut Cx<'_>| {
            let bytes = shared_data::bytes(cx, KUSER_SHARED_DATA::TickCount.offset(), 8);
            u64::from_le_bytes(bytes.try_into().unwrap())
        };
        let (time_of_day, before) = (system(cx), ticks(cx));
        cx.with(|k| k.hal.platform.uptime = 1_000 * TICK);
        let looks = cx.with(|k| k.ke.looks_at_uptime());
        assert_eq!(
            time::query_interrupt_precise(cx, DriverPtr::NULL),
            Ok(cx.engine().now() / 100 + 1_000 * INCREMENT)
        );
        assert_eq!(ticks(cx), before + 1_000);
        assert_eq!(cx.with(|k| k.ke.looks_at_uptime()), looks + 2);
        assert_eq!((system(cx), cx.with(|k| k.ke.looks_at_uptime())), (time_of_day, looks + 2));
    });
}

#[test]
fn a_periodic_synchronization_timer_wakes_its_thread_each_time() {
    machine(|cx| {
        let timer = new_timer(cx, 1);
        let log = Log::default();
        let ticks = log.clone();
        spawn(cx, "waiter", move |cx| {
            timer::set_ex(cx, timer, -10 * MILLISECOND.cast_signed(), 100, DriverPtr::NULL)?;
            for _ in 0..3 {
                let _ = wait::for_object(cx, timer)?;
                ticks.say(format!("{}", milliseconds(cx)));
            }
            assert_eq!(timer::cancel(cx, timer), Ok(true));
            assert_eq!(timer::cancel(cx, timer), Ok(false));
            Ok(())
        });
        settle(cx);
        assert_eq!(log.words(), "15 125 218", "due at 10, 110, 210, found at the next tick");
    });
}

#[test]
fn setting_a_timer_again_cancels_what_it_was_set_to() {
    machine(|cx| {
        let timer = new_timer(cx, 0);
        spawn(cx, "waiter", move |cx| {
            assert_eq!(timer::set(cx, timer, -10 * MILLISECOND.cast_signed(), DriverPtr::NULL), Ok(false));
            assert_eq!(timer::set(cx, timer, -200 * MILLISECOND.cast_signed(), DriverPtr::NULL), Ok(true));
            let _ = wait::for_object(cx, timer)?;
            assert_eq!(milliseconds(cx), 203);
            Ok(())
        });
        settle(cx);
        assert_eq!(rule(cx), None);
    });
}

#[test]
fn a_timer_due_in_the_past_is_signaled_at_once() {
    machine(|cx| {
        let timer = new_timer(cx, 1);
        assert_eq!(timer::set(cx, timer, 0, DriverPtr::NULL), Ok(false));
        assert_eq!(timer::read_state(cx, timer), Ok(true));
        assert_eq!(cx.with(|k| timer::set_in(k, timer.address, 0x40)), None);
    });
}

#[test]
fn a_timer_that_is_set_must_not_be_initialised_again() {
    machine(|cx| {
        let timer = new_timer(cx, 0);
        timer::set(cx, timer, -100, DriverPtr::NULL).unwrap();
        assert_eq!(cx.with(|k| timer::set_in(k, timer.address, 0x40)), Some(timer.address));
        assert!(timer::initialize(cx, timer).is_err());
        assert_eq!(rule(cx), Some("timer-initialized-while-set"));
    });
}

#[test]
fn a_stall_lets_time_pass_and_a_long_one_is_advised_against() {
    machine(|cx| {
        spawn(cx, "busy", |cx| {
            stall::stall(cx, 50)?;
            assert_eq!(cx.engine().now(), 50_000);
            stall::stall(cx, 100_000)
        });
        settle(cx);
        assert_eq!(milliseconds(cx), 100);
        let findings = cx.nt().findings();
        assert_eq!(findings.iter().map(|finding| finding.rule).collect::<Vec<_>>(), ["long-stall"]);
    });
}
