//! The fast paths of a wait, its signal and its switch (`wait_fast`, `switch_fast`) beside the general ones. A learner of shared memory has
//! only the general wait and signal, a reader of switches only the general switch, and a policy that may depart is asked about all: each
//! way, the same story must leave the same memory, and the same time, instructions and events must have gone by.

use std::cell::Cell;
use std::rc::Rc;

use abi::DriverPtr;
use engine::Progress;

use super::threads::new_event;
use crate::Cx;
use crate::event::Event;
use crate::ke::rig::{Driver, Rig, Scripted, Trace, machine, message, settle, spawn};
use crate::ke::sched::scheduler::End;
use crate::ke::sched::switch_fast;
use crate::ke::waits::{wait, wait_fast};

/// Two threads that ask and answer, and three that wait for a gate: with and without a boost, from DISPATCH_LEVEL, before a thread waits, twice
/// in a row, and with a time-out. All they see goes to `Seen`.
const STORY: &str = "
    static u64 Asked[3], Answered[3], Gate[3], Lock, Seen[8192]; static u32 Count;
    static void say(u64 value) { Seen[Count++] = value; }
    static void look(u64 *event) { say(event[0]); say(event[1]); say(event[2]); say(cr8()); }
    static void wait(u64 *event) { say(KeWaitForSingleObject(event, 0, 0, 0, 0)); look(event); }
    static void set(u64 *event, int boost) { say(KeSetEvent(event, boost, 0)); look(event); }
    ROUTINE u64 Begin(void) {
        KeInitializeEvent(Asked, 1, 0); KeInitializeEvent(Answered, 1, 0); KeInitializeEvent(Gate, 0, 0);
        return (u64)Seen;
    }
    ROUTINE u64 Answers(void) {
        for (u32 i = 0; i < 60; i++) {
            wait(Asked);
            say(0x1000 + i);
            if (i % 3 == 0) { u8 old = KeAcquireSpinLockRaiseToDpc(&Lock); look(Answered); KeReleaseSpinLock(&Lock, old); }
            if (i % 5 == 0) { i64 delay = -20000; say(KeDelayExecutionThread(0, 0, &delay)); }
            if (i % 7 == 0) { set(Answered, 0); }
            set(Answered, i % 4);
        }
        return Count;
    }
    ROUTINE u64 Asks(void) {
        for (u32 i = 0; i < 60; i++) {
            if (i % 6 == 0) { set(Gate, i % 4); }
            if (i % 4 == 0) {
                u8 old = KfRaiseIrql(2);
                set(Asked, i % 3);
                KeLowerIrql(old);
            } else {
                set(Asked, i % 3);
            }
            say(0x2000 + i);
            wait(Answered);
            if (i % 9 == 0) { i64 soon = -50000; say(KeWaitForSingleObject(Answered, 0, 0, 0, &soon)); }
        }
        KeSetEvent(Gate, 0, 0);
        return Count;
    }
    ROUTINE u64 Passes(u64 number) {
        for (u32 i = 0; i < 5; i++) { say(number + i); wait(Gate); for (volatile u32 j = 0; j < 30000; j++) {} }
        return Count;
    }
";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Short,
    Learns,
    Watched,
    Asked,
    AskedAndWatched,
}

/// What the story leaves: all that its threads saw, with the clock, instructions, calls and events; and the events a reader got.
fn story_left(way: Way) -> (Vec<u64>, Vec<String>) {
    let mut rig = Rig::default();
    if matches!(way, Way::Asked | Way::AskedAndWatched) {
        // A policy that does not say that it gives defaults only, though it does.
        rig.chooser = Box::new(Scripted { answers: Vec::new(), slice: u64::MAX });
    }
    rig.run(|cx| {
        let watched = matches!(way, Way::Watched | Way::AskedAndWatched);
        let trace = watched.then(|| Trace::of(cx));
        cx.engine().learn_shared(way == Way::Learns);
        let driver = Driver::load(cx, "story", STORY);
        let seen = driver.run(cx, "Begin", &[]).unwrap();
        let result = Rc::new(Cell::new(None));
        for number in 0..3 {
            driver.start(cx, "Passes", &[0x3000 + 0x100 * number], &result);
        }
        driver.start(cx, "Answers", &[], &result);
        driver.start(cx, "Asks", &[], &result);
        assert_eq!(settle(cx), End::Quiet, "{}", message(cx));
        let count = result.get().expect("the story has come to its end");
        assert!((1000..8192).contains(&count), "{count}");
        let mut words: Vec<u64> =
            (0..count).map(|at| cx.read(DriverPtr::<u64>::new(seen + 8 * at)).unwrap()).collect();
        let engine = cx.engine();
        words.extend([engine.now(), engine.retired(), engine.calls(), cx.next_event()]);
        engine.learn_shared(false);
        (engine::outside(|| words.clone()), trace.map(|trace| trace.lines()).unwrap_or_default())
    })
}

#[test]
fn a_story_of_waits_is_the_same_whichever_way_they_go() {
    let (short, _) = story_left(Way::Short);
    for way in [Way::Learns, Way::Watched, Way::Asked] {
        let (words, _) = story_left(way);
        let differs = short.iter().zip(&words).position(|(short, long)| short != long);
        assert_eq!((differs, words.len()), (None, short.len()), "{way:?}");
    }
    assert_eq!(story_left(Way::Watched).1, story_left(Way::AskedAndWatched).1);
}

#[test]
fn an_ordinary_switch_is_one_look() {
    machine(|cx| {
        assert_eq!(switch_fast::next(cx), None, "no thread is ready");
        let event = new_event(cx, 1, false);
        let strand = spawn(cx, "waiter", move |cx| {
            wait::single(cx, event.cast(), 0, 0, false, DriverPtr::NULL).map(|_| ())
        });
        assert_eq!(switch_fast::next(cx), None, "nothing was promised yet, so something may wait");
        settle(cx);
        let signal = |cx: &mut Cx<'_>| cx.with(|k| wait_fast::signal(k, event.cast(), 0));
        let before = cx.next_event();
        assert_eq!(signal(cx), Some(0), "one thread waits");
        assert_eq!(switch_fast::next(cx), Some(strand));
        assert_eq!(cx.next_event(), before + 1, "the switch counts");
        assert_eq!(cx.engine().resume(strand), Progress::Finished);
    });
}

#[test]
fn who_reads_of_switches_and_waits_is_told_of_them() {
    let (_, lines) = story_left(Way::Watched);
    for event in [Event::Wait { object: 0, count: 1 }, Event::Woken { status: 0 }] {
        let name = format!("{event:?}");
        let name = name.split(' ').next().unwrap();
        assert!(lines.iter().filter(|line| line.contains(name)).count() > 100, "{name}");
    }
    assert!(lines.iter().filter(|line| line.contains("Switch {")).count() > 100);
}
