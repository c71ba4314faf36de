//! The reader that all stories' machines are held by complains of what it is there for, and of nothing else.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

use engine::StrandId;
use kernel::event::{Event, Judgement, Kind, LockKind, Reader, Role, Stamp};
use rules::Guarantees;

const INTERRUPT: u64 = 0x1000;
const DPC: u64 = 0x2000;

/// An event on this processor at this level, by the strand of the processor's number.
type Seen = (u32, u8, Event);

fn enter(role: Role, object: u64) -> Event {
    Event::Enter { role, routine: 0x5000, object }
}

fn leave(role: Role) -> Event {
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

/// What it concludes behind an event, without the event itself.
fn conclusion(reader: &mut Guarantees, stamp: &Stamp, event: &Event) -> Option<String> {
    reader.event(stamp, event);
    match reader.judgement()? {
        Judgement::Fault(message) => Some(message.split(": Stamp").next().unwrap_or_default().to_owned()),
        Judgement::Finding(verdict) => panic!("no driver is to blame: {verdict:?}"),
    }
}

/// What `reader` complains of.
fn complaints_of(reader: &mut Guarantees, events: &[Seen]) -> Vec<String> {
    let one = |(number, (processor, irql, event)): (u64, &Seen)| {
        let strand = StrandId(processor + 1);
        let stamp = Stamp { number, time: number, processor: *processor, irql: *irql, strand };
        conclusion(reader, &stamp, event)
    };
    (0..).zip(events).filter_map(one).collect()
}

/// What is complained of.
fn complaints(events: &[Seen]) -> Vec<String> {
    complaints_of(&mut Guarantees::default(), events)
}

/// An interrupt that queues a DPC, on processor 0.
fn ordinary() -> Vec<Seen> {
    vec![
        (0, 0, connection(true)),
        (0, 0, level(0, 5)),
        (0, 5, enter(Role::Isr, INTERRUPT)),
        (0, 5, queued(true)),
        (0, 5, leave(Role::Isr)),
        (0, 5, level(5, 2)),
        (0, 2, enter(Role::CustomDpc, DPC)),
        (0, 2, level(2, 5)),
        (0, 5, enter(Role::SynchCritSection, INTERRUPT)),
        (0, 5, leave(Role::SynchCritSection)),
        (0, 5, level(5, 2)),
        (0, 2, leave(Role::CustomDpc)),
        (0, 2, level(2, 0)),
        (0, 0, connection(false)),
    ]
}

#[test]
fn what_is_as_it_should_be_is_not_complained_of() {
    assert_eq!(complaints(&ordinary()), [] as [&str; 0]);
}

/// Complained of when this comes in front of event `at` of what is ordinary.
fn with(at: usize, events: &[Seen]) -> String {
    let mut all = ordinary();
    all.splice(at..at, events.iter().cloned());
    complaints(&all).first().cloned().unwrap_or_default()
}

#[test]
fn each_broken_guarantee_is_complained_of() {
    let isr = |processor| [(processor, 0, level(0, 5)), (processor, 5, enter(Role::Isr, INTERRUPT))];
    let not_connected = "the routine of an interrupt object that is not connected is called";
    assert_eq!(with(0, &isr(0)), not_connected);
    assert_eq!(with(14, &isr(0)), not_connected);
    let twice = "what is synchronized with one interrupt runs twice at once";
    assert_eq!(with(3, &isr(1)), twice);
    assert_eq!(with(3, &[(1, 5, enter(Role::SynchCritSection, INTERRUPT))]), twice);
    let ended = "a service routine runs when it has been disconnected";
    assert_eq!(with(4, &[(1, 0, connection(false))]), ended);
    assert_eq!(with(1, &[(1, 0, connection(true))]), "an interrupt object is connected twice");
    let masked = [(1, 5, level(5, 6)), (1, 5, enter(Role::Isr, INTERRUPT))];
    assert_eq!(with(1, &masked), "a service routine interrupts its own level or a higher one");
    let not_over = "something else runs where a service routine or DPC has not returned";
    assert_eq!(with(4, &[(0, 0, Event::Print { text: "below".to_owned() })]), not_over);
    let another = Event::Switch { from: StrandId(1), to: StrandId(9) };
    assert_eq!(with(7, &[(0, 2, another)]), "threads are switched at DISPATCH_LEVEL or above");
    let in_none = "a DPC runs that is in no queue";
    assert_eq!(with(12, &[(0, 2, enter(Role::CustomDpc, DPC))]), in_none);
    assert_eq!(with(6, &[(0, 5, Event::DpcRemoved { dpc: DPC })]), in_none);
    assert_eq!(with(1, &[(0, 0, Event::DpcRemoved { dpc: DPC })]), "a DPC is removed that was not queued");
    assert_eq!(with(14, &[(0, 0, queued(false))]), "a DPC is in a queue twice, or in none");
    let inside = [(0, 2, queued(true)), (0, 2, enter(Role::CustomTimerDpc, DPC))];
    assert_eq!(with(11, &inside), "a DPC runs inside another on the same processor");
    let low = [(1, 0, queued(true)), (1, 0, enter(Role::DpcForIsr, DPC))];
    assert_eq!(with(13, &low), "a DPC begins at another level than 2");
    assert_eq!(with(1, &[(0, 0, leave(Role::Isr))]), "a routine returns that was not called");
}

const LOCK: u64 = 0x3000;

const fn acquired(kind: LockKind) -> Event {
    Event::LockAcquired { lock: LOCK, kind }
}

const fn released(kind: LockKind) -> Event {
    Event::LockReleased { lock: LOCK, kind }
}

#[test]
fn a_lock_that_one_has_alone_no_other_has_and_it_comes_back_from_where_it_is() {
    const TWICE: &str = "a lock that one has alone is acquired once more";
    const ELSEWHERE: &str = "a lock is given back where it is not held";
    let none: [&str; 0] = [];
    for (alone, shared) in
        [(LockKind::ExclusiveSpin, LockKind::SharedSpin), (LockKind::PushLock, LockKind::SharedPushLock)]
    {
        let in_turn = [(0, 2, acquired(alone)), (0, 2, released(alone)), (1, 2, acquired(alone))];
        assert_eq!(complaints(&in_turn), none);
        let together = [(0, 2, acquired(shared)), (1, 2, acquired(shared)), (0, 2, released(shared))];
        assert_eq!(complaints(&together), none);
        for first in [alone, shared] {
            assert_eq!(complaints(&[(0, 2, acquired(first)), (1, 2, acquired(alone))]), [TWICE]);
        }
        assert_eq!(complaints(&[(0, 2, acquired(alone)), (1, 2, acquired(shared))]), [TWICE]);
        assert_eq!(complaints(&[(0, 2, acquired(alone)), (1, 2, released(alone))]), [ELSEWHERE]);
        assert_eq!(complaints(&[(0, 2, acquired(shared)), (0, 2, released(alone))]), [ELSEWHERE]);
    }
    let of_memory = [(0, 2, acquired(LockKind::FastMutex)), (1, 2, acquired(LockKind::FastMutex))];
    assert_eq!(complaints(&of_memory), none, "its owner stands in memory of the driver's");
}

#[test]
fn a_thread_carries_out_the_apcs_that_were_queued_for_it_in_their_order() {
    const WRONG: &str = "an APC runs that is not the next of its thread";
    let queue = |object| (1, 2, Event::ApcQueued { object, thread: StrandId(1) });
    let run = |processor, object| (processor, 0, Event::ApcRun { object });
    assert_eq!(complaints(&[queue(7), queue(8), run(0, 7), queue(7), run(0, 8), run(0, 7)]), [] as [&str; 0]);
    assert_eq!(complaints(&[queue(7), queue(8), run(0, 8)]), [WRONG]);
    assert_eq!(complaints(&[queue(7), run(0, 7), run(0, 7)]), [WRONG]);
    assert_eq!(complaints(&[queue(7), run(1, 7)]), [WRONG]);
}

#[test]
fn details_are_read_where_that_is_asked_for() {
    let asked = |reader: &Guarantees| Kind::ALL.iter().any(|kind| reader.wants_detail(*kind));
    assert!(asked(&Guarantees::with_details()) && !asked(&Guarantees::default()));
}

/// What is concluded when the run is over behind these events.
fn left_behind(events: &[Seen]) -> Vec<Judgement> {
    let mut reader = Guarantees::default();
    assert_eq!(complaints_of(&mut reader, events), [] as [&str; 0]);
    reader.conclusions()
}

#[test]
fn a_run_is_not_over_before_its_routines_have_returned_and_its_dpcs_have_run() {
    let ordinary = ordinary();
    assert!(left_behind(&ordinary).is_empty());
    let fault = |events: &[Seen]| match left_behind(events).as_slice() {
        [Judgement::Fault(message)] => message.clone(),
        other => panic!("{other:?}"),
    };
    let in_a_dpc = fault(&ordinary[..7]);
    assert!(in_a_dpc.starts_with("a routine has not returned when the run is over"), "{in_a_dpc}");
    let again = [ordinary.as_slice(), &[(0, 0, queued(true))]].concat();
    assert_eq!(fault(&again), format!("the DPC {DPC:#x} was queued and has not run when the run is over"));
    // A threaded one that waits for ever keeps those behind it.
    let waits = (1, 0, enter(Role::CustomThreadedDpc, DPC));
    let behind = [again.as_slice(), &[waits, (0, 0, queued(true))]].concat();
    assert!(left_behind(&behind).is_empty());
}

#[test]
fn time_that_runs_backwards_is_complained_of() {
    let mut reader = Guarantees::default();
    let [first, second] = [2, 1].map(|time| {
        let stamp = Stamp { number: 0, time, processor: 0, irql: 0, strand: StrandId(1) };
        conclusion(&mut reader, &stamp, &queued(true))
    });
    assert_eq!((first, second.as_deref()), (None, Some("time runs backwards")));
}

#[test]
fn what_it_has_read_goes_back_with_the_machine() {
    let mut reader = Guarantees::default();
    let stamp = |time| Stamp { number: 0, time, processor: 0, irql: 0, strand: StrandId(1) };
    conclusion(&mut reader, &stamp(1), &connection(true));
    let saved = reader.save().unwrap();
    assert_eq!(conclusion(&mut reader, &stamp(2), &connection(false)), None);
    reader.restore(&*saved);
    assert_eq!(conclusion(&mut reader, &stamp(1), &connection(false)), None);
    assert!(conclusion(&mut reader, &stamp(1), &leave(Role::Isr)).is_some());
}
