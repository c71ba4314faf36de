//! A DPC that runs without having been queued, and an interrupt's routine that is entered and left in one look, beside the general paths,
//! which a machine that learns who touches what always takes: the same events, whatever readers want.

use abi::{Code, DriverPtr, KDPC, KEVENT, NtStatus};
use engine::Flow;

use crate::Cx;
use crate::event::{Event, Kind};
use crate::ke::irq::dpc;
use crate::ke::levels::irql::{self, DISPATCH_LEVEL};
use crate::ke::rig::{self, Driver, LINE, Rig, Trace, settle};
use crate::ke::sched::scheduler::End;
use crate::ke::sched::spinlock;
use crate::ke::waits::{event, thread, wait};
use crate::mm::pool;

/// Changes of level are not traced where driver code makes them by itself.
const UNTRACED: &[Kind] = &[Kind::Irql];

/// Which path a story takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Short,
    /// The machine learns who touches what.
    Learning,
    /// All events are read.
    AllRead,
}

const WAYS: [Way; 3] = [Way::Short, Way::Learning, Way::AllRead];

/// The events of a story.
fn events_of(way: Way, rig: Rig, story: impl FnOnce(&mut Cx<'_>)) -> Vec<String> {
    let mut lines = Vec::new();
    rig.run(|cx| {
        let trace = Trace::without(cx, if way == Way::Short { UNTRACED } else { &[] });
        cx.engine().learn_shared(way == Way::Learning);
        story(cx);
        cx.engine().learn_shared(false);
        lines = trace.lines();
    });
    lines
}

fn same([short, learning, all_read]: [Vec<String>; 3]) {
    let others = all_read.iter().filter(|line| !line.contains(" Irql {")).cloned().collect::<Vec<_>>();
    for (one, other) in [(&learning, &all_read), (&short, &others)] {
        let first = one.iter().zip(other).find(|(one, other)| one != other);
        assert_eq!(first, None);
        assert_eq!(one.len(), other.len());
    }
}

// ---- DPCs ----

/// What a DPC does, as its context says.
const NOTHING: u64 = 0;
const QUEUE_ANOTHER: u64 = 1;
const WAKE: u64 = 2;
const LOCK: u64 = 3;
const QUEUE_ITSELF: u64 = 4;
const DEEDS: [u64; 5] = [NOTHING, QUEUE_ANOTHER, WAKE, LOCK, QUEUE_ITSELF];

/// Where things lie in the story's memory.
const ANOTHER: u64 = 0x100;
const EVENT: u64 = 0x200;
const A_LOCK: u64 = 0x300;
/// How many ran without having been queued.
const SHORTS: u64 = 0x400;

fn at<T>(memory: u64, offset: u64) -> DriverPtr<T> {
    DriverPtr::new(memory + offset)
}

fn routine(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let &[object, context, memory, round] = given else { panic!("a DPC has four arguments") };
    let (level, runs, lock) =
        cx.with(|k| (k.level(), k.ke.processor().running_dpc, k.ke.levels.locks().is_none_held()));
    cx.emit(Event::Print {
        text: format!("{object:#x} does {context} at {level}, runs {runs:x?}, no lock {lock}"),
    });
    let shorts = cx.read(at::<u64>(memory, SHORTS))?;
    let is_short = cx.with(|k| !k.ke.may_pend_at(DISPATCH_LEVEL - 1));
    cx.write(at::<u64>(memory, SHORTS), shorts + u64::from(is_short))?;
    match context {
        QUEUE_ANOTHER => {
            dpc::insert(cx, at(memory, ANOTHER), DriverPtr::new(memory), DriverPtr::NULL)?;
        }
        WAKE => {
            event::set(cx, at::<KEVENT>(memory, EVENT), 0, false)?;
        }
        LOCK => {
            spinlock::acquire_at_dispatch(cx, at(memory, A_LOCK))?;
            spinlock::release_from_dispatch(cx, at(memory, A_LOCK))?;
        }
        QUEUE_ITSELF if round < 2 => {
            dpc::insert(cx, DriverPtr::new(object), DriverPtr::new(memory), DriverPtr::new(round + 1))?;
        }
        _ => {}
    }
    Ok(0)
}

/// A thread that is better than the one that queues: it runs as soon as it is woken and the level lets it.
fn better(cx: &mut Cx<'_>, memory: u64) -> Flow<()> {
    let work = move |cx: &mut Cx<'_>| {
        loop {
            assert_eq!(wait::for_object(cx, at::<KEVENT>(memory, EVENT))?, NtStatus::SUCCESS);
            cx.emit(Event::Print { text: "the better thread".to_owned() });
        }
    };
    let strand = thread::spawn_quietly(cx, "better".to_owned(), Box::new(work))?;
    cx.with(|k| {
        k.ke.sched.take_from_ready(strand);
        k.ke.sched.threads_mut().get_mut(strand).expect("just made").base_priority = 15;
        crate::ke::sched::scheduler::make_ready(k, strand);
    });
    irql::settle(cx)
}

fn queue_all(cx: &mut Cx<'_>, address: DriverPtr<Code>) -> Flow<u64> {
    let memory: DriverPtr<u64> = pool::allocate(cx, pool::Kind::NonPaged, 0x800, pool::tag(b"Test"))?;
    let memory = memory.address;
    event::initialize(cx, at(memory, EVENT), 1, false)?;
    dpc::initialize(cx, at(memory, ANOTHER), address.address, NOTHING)?;
    better(cx, memory)?;
    let object: DriverPtr<KDPC> = at(memory, 0);
    for deed in DEEDS {
        for level in 0..3 {
            for _ in 0..2 {
                dpc::initialize(cx, object, address.address, deed)?;
                let old = irql::raise(cx, level)?;
                assert!(dpc::insert(cx, object, DriverPtr::new(memory), DriverPtr::NULL)?);
                cx.emit(Event::Print { text: format!("queued at {level}, {}", cx.engine().level()) });
                irql::lower(cx, old)?;
                assert_eq!(cx.engine().level(), 0);
                assert!(!cx.with(|k| dpc::any(k)));
            }
        }
    }
    cx.read(at(memory, SHORTS))
}

#[test]
fn a_dpc_that_is_not_queued_at_all_is_as_one_that_is() {
    let mut shorts = [0; 3];
    let all = WAYS.map(|way| {
        let count = &mut shorts[way as usize];
        events_of(way, Rig::default(), |cx| {
            let address = DriverPtr::<Code>::new(0x7000_0000);
            cx.with(|k| k.io.rust_routines.insert(address.address, routine));
            let seen = std::rc::Rc::new(std::cell::Cell::new(0));
            let seen_by = seen.clone();
            rig::spawn(cx, "caller", move |cx| {
                seen_by.set(queue_all(cx, address)?);
                Ok(())
            });
            assert_eq!(settle(cx), End::Quiet, "{}", rig::message(cx));
            *count = seen.get();
        })
    });
    let below_dispatch = 2 * 2 * DEEDS.len() as u64;
    assert_eq!(shorts, [below_dispatch, 0, below_dispatch], "those took the fast path, and no others");
    same(all);
}

// ---- interrupts ----

const CARD: &str = "
    u64 event[3], dpc[8], lock; int calls, drained;
    static inline u32 in(unsigned short p) { u32 v; __asm__ volatile(\"inl %1, %0\" : \"=a\"(v) : \"d\"(p)); return v; }
    static inline void out(unsigned short p, u32 v) { __asm__ volatile(\"outl %0, %1\" :: \"a\"(v), \"d\"(p)); }
    ROUTINE u8 isr(void *interrupt, void *context) {
        if (!in(0x300)) return 0;
        if (calls++ % 3) out(0x300, 0);
        KeInsertQueueDpc(dpc, 0, 0); return 1;
    }
    void bottom_half(void *d, void *context, void *a, void *b) {
        KeAcquireSpinLockAtDpcLevel(&lock); drained++; KeReleaseSpinLockFromDpcLevel(&lock);
        KeSetEvent(event, 0, 0);
    }
    ROUTINE int setup(void) { KeInitializeEvent(event, 1, 0); KeInitializeDpc(dpc, bottom_half, 0); return 0; }
    ROUTINE int work(void) {
        for (int i = 0; i < 20; i++) {
            u8 old = KfRaiseIrql(i % 3); out(0x300, 1); KeLowerIrql(old);
            KeWaitForSingleObject(event, 0, 0, 0, 0);
        }
        return calls << 8 | drained;
    }
";

#[test]
fn an_interrupt_that_is_not_heard_of_is_as_one_that_is() {
    let mut answers = [0; 3];
    let all = WAYS.map(|way| {
        let answer = &mut answers[way as usize];
        events_of(way, Rig::default(), |cx| {
            let driver = Driver::load(cx, "card", CARD);
            assert_eq!(driver.run(cx, "setup", &[]), Some(0));
            super::interrupts::connect(cx, driver.at("isr"));
            *answer = driver.run(cx, "work", &[]).unwrap_or_else(|| panic!("{}", rig::message(cx)));
        })
    });
    assert!(all[0].iter().any(|line| line.contains(&format!("line: {LINE}"))));
    assert_eq!(answers[0] & 0xFF, 20, "each interrupt had its DPC");
    assert_eq!(answers, [answers[0]; 3]);
    same(all);
}
