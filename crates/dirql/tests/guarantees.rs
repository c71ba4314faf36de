//! The reader that all stories' machines are held by (`rig/guarantees.rs`) complains of what it is there for, and of nothing else.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use engine::StrandId;
use kernel::event::{Event, Reader, Stamp};
use rig::Guarantees;

const INTERRUPT: u64 = 0x1000;
const DPC: u64 = 0x2000;

/// An event on this processor at this level, by the strand of the processor's number.
type Told = (u32, u8, Event);

fn enter(role: &'static str, object: u64) -> Event {
    Event::Enter { role, routine: 0x5000, object }
}

fn leave(role: &'static str) -> Event {
    Event::Leave { role, routine: 0x5000, value: 0 }
}

const fn level(from: u8, to: u8) -> Event {
    Event::Irql { from, to }
}

const fn connection(made: bool) -> Event {
    Event::Connection { object: INTERRUPT, vector: 0x50, level: 5, made }
}

const fn queued(inserted: bool) -> Event {
    Event::DpcQueued { dpc: DPC, inserted }
}

/// What is complained of, without the events themselves.
fn complaints(events: &[Told]) -> Vec<String> {
    let mut reader = Guarantees::default();
    for (number, (processor, irql, event)) in (0..).zip(events) {
        let strand = StrandId(processor + 1);
        reader.event(&Stamp { number, time: number, processor: *processor, irql: *irql, strand }, event);
    }
    let all = reader.take_complaints();
    all.iter().map(|complaint| complaint.split(": Stamp").next().unwrap_or_default().to_owned()).collect()
}

/// An interrupt that queues a DPC, on processor 0.
fn ordinary() -> Vec<Told> {
    vec![
        (0, 0, connection(true)),
        (0, 0, level(0, 5)),
        (0, 5, enter("Isr", INTERRUPT)),
        (0, 5, queued(true)),
        (0, 5, leave("Isr")),
        (0, 5, level(5, 2)),
        (0, 2, enter("CustomDpc", DPC)),
        (0, 2, level(2, 5)),
        (0, 5, enter("SynchCritSection", INTERRUPT)),
        (0, 5, leave("SynchCritSection")),
        (0, 5, level(5, 2)),
        (0, 2, leave("CustomDpc")),
        (0, 2, level(2, 0)),
        (0, 0, connection(false)),
    ]
}

#[test]
fn what_is_as_it_should_be_is_not_complained_of() {
    assert_eq!(complaints(&ordinary()), [] as [&str; 0]);
}

/// Complained of when this comes in front of event `at` of what is ordinary.
fn with(at: usize, events: &[Told]) -> String {
    let mut all = ordinary();
    all.splice(at..at, events.iter().cloned());
    complaints(&all).first().cloned().unwrap_or_default()
}

#[test]
fn each_broken_guarantee_is_complained_of() {
    let isr = |processor| [(processor, 0, level(0, 5)), (processor, 5, enter("Isr", INTERRUPT))];
    let not_connected = "the routine of an interrupt object that is not connected is called";
    assert_eq!(with(0, &isr(0)), not_connected);
    assert_eq!(with(14, &isr(0)), not_connected);
    let twice = "what is synchronized with one interrupt runs twice at once";
    assert_eq!(with(3, &isr(1)), twice);
    assert_eq!(with(3, &[(1, 5, enter("SynchCritSection", INTERRUPT))]), twice);
    let ended = "a service routine runs when it has been disconnected";
    assert_eq!(with(4, &[(1, 0, connection(false))]), ended);
    assert_eq!(with(1, &[(1, 0, connection(true))]), "an interrupt object is connected twice");
    let masked = [(1, 5, level(5, 6)), (1, 5, enter("Isr", INTERRUPT))];
    assert_eq!(with(1, &masked), "a service routine interrupts its own level or a higher one");
    let not_over = "something else runs where a service routine or DPC has not returned";
    assert_eq!(with(4, &[(0, 0, Event::Print { text: "below".to_owned() })]), not_over);
    let another = Event::Switch { from: StrandId(1), to: StrandId(9) };
    assert_eq!(with(7, &[(0, 2, another)]), "threads are switched at DISPATCH_LEVEL or above");
    let in_none = "a DPC runs that is in no queue";
    assert_eq!(with(12, &[(0, 2, enter("CustomDpc", DPC))]), in_none);
    assert_eq!(with(6, &[(0, 5, Event::DpcRemoved { dpc: DPC })]), in_none);
    assert_eq!(with(1, &[(0, 0, Event::DpcRemoved { dpc: DPC })]), "a DPC is removed that was not queued");
    assert_eq!(with(14, &[(0, 0, queued(false))]), "a DPC is in a queue twice, or in none");
    let inside = [(0, 2, queued(true)), (0, 2, enter("CustomTimerDpc", DPC))];
    assert_eq!(with(11, &inside), "a DPC runs inside another on the same processor");
    let low = [(1, 0, queued(true)), (1, 0, enter("DpcForIsr", DPC))];
    assert_eq!(with(13, &low), "a DPC begins at another level than 2");
    assert_eq!(with(1, &[(0, 0, leave("Isr"))]), "a routine returns that was not called");
}

#[test]
fn time_that_runs_backwards_is_complained_of() {
    let mut reader = Guarantees::default();
    for time in [2, 1] {
        let stamp = Stamp { number: 0, time, processor: 0, irql: 0, strand: StrandId(1) };
        reader.event(&stamp, &queued(true));
    }
    assert!(reader.take_complaints()[0].starts_with("time runs backwards"));
}
