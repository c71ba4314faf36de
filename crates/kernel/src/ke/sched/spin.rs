//! Driver code that waits busily: a loop that polls memory, or fails to get a lock of the driver's own. It is recognised,
//! gives its turn away, and goes on once anything has happened.
//!
//! What counts: the routine comes back to the same instruction with the same registers, has called nothing, touched no
//! device, and every store on the way left memory as it was (pushes need only do so by the end of the round). Such a
//! routine goes round for ever unless another changes memory or interrupts it, whatever the schedule; so taking it
//! off its processor hides nothing. It is found by stepping, instruction by instruction, a routine that has run for long.
//!
//! A loop that counts, calls an export, or polls a device is none of these: it has its quantum and its budget (`slice`).

use std::collections::BTreeMap;

use engine::{DriverState, Flow, Reference, Step, StrandId};

use super::ready::Candidates;
use super::thread_record::HIGHEST_DYNAMIC;
use super::{scheduler, slice};
use crate::cx::{Cx, Kernel};
use crate::hal::combine;
use crate::ke::irq::interrupt_delivery;
use crate::ke::levels::irql::{self, DISPATCH_LEVEL};
use crate::ke::stuck;
use crate::ke::waits::timer;

/// A routine that has run so many instructions is looked at for the first time; then whenever they have doubled.
pub(in crate::ke) const FIRST_LOOK: u64 = 20_000;
/// So many instructions are stepped through at the first look; twice as many at each further one.
const FIRST_STEPS: u32 = 64;
const DOUBLED_AT_MOST: u32 = 6;
/// If the look is cut short by a deadline, the next one comes so many instructions later.
const SOON: u64 = 200;
/// So many polled addresses are remembered for people.
const POLLED: usize = 4;
/// A round that reads memory in at most so many places can be recognised as idle by what they hold.
const READ: usize = 16;

/// What a busy wait is known to do.
#[derive(Clone, Debug)]
pub(crate) struct Stuck {
    /// `State::progress` when it was seen to get nowhere.
    progress: u64,
    /// Where it reads, its own stack aside.
    pub(crate) polled: Vec<Reference>,
    /// Whether it reads any memory: if not, nothing can end it.
    pub(crate) reads: bool,
    /// An instruction of the loop.
    pub(crate) rip: u64,
    /// All that a round reads, and what was there; nothing if that is much. While it is still there, every further round
    /// goes the same way.
    seen: Option<Vec<(Reference, Vec<u8>)>>,
}

/// Driver code that is being stepped through.
pub(crate) struct Probe {
    strand: StrandId,
    depth: u32,
    progress: u64,
    /// When it ends at the latest.
    until: u64,
    /// Driver instructions since boot when the last step began.
    retired: u64,
    left: u32,
    /// What later states are compared with; taken anew after 1, 2, 4, … steps, so that it comes to lie in the loop.
    reference: DriverState,
    age: u32,
    lifetime: u32,
    /// What was on the stack before each push since then.
    pushed: BTreeMap<u64, Vec<u8>>,
    polled: Vec<Reference>,
    /// Where it reads, its own stack included; one more than is of use.
    read: Vec<Reference>,
    running: Option<Running>,
}

/// The instruction that runs now.
struct Running {
    stores: [Option<(Reference, Vec<u8>)>; 2],
    pushes: bool,
    lands: Option<u64>,
}

/// What [`look`] found.
pub(crate) enum Seen {
    /// Nothing, or nothing yet worth looking for: the slice ends as usual.
    Nothing,
    /// The next instruction is to be looked at.
    Going,
    /// The routine waits busily.
    Stuck,
}

// ---- looking ----

/// The slice has ended: goes on stepping through the routine, or begins to if it has run for long.
pub(crate) fn look(cx: &mut Cx<'_>) -> Seen {
    let seen = cx.with(|k| {
        let now = k.engine.now();
        if k.ke.sched.probe.is_some() {
            step(k, now)
        } else if is_due(k, now) {
            begin(k, now)
        } else {
            Seen::Nothing
        }
    });
    if matches!(seen, Seen::Going) {
        cx.engine().set_slice(1);
    }
    seen
}

fn is_due(k: &mut Kernel, now: u64) -> bool {
    k.ke.account(now);
    k.ke.thread().is_some_and(|thread| thread.account.stepped >= thread.account.look_at)
}

fn begin(k: &mut Kernel, now: u64) -> Seen {
    let Some(reference) = k.engine.driver_state() else { return Seen::Nothing };
    let until = slice::deadline(k, now);
    let looks = k.ke.thread().map_or(0, |thread| thread.account.looks);
    k.ke.sched.probe = Some(Probe {
        strand: k.engine.strand(),
        depth: k.engine.depth(),
        progress: k.ke.sched.progress,
        until,
        retired: k.ke.retired(now),
        left: FIRST_STEPS << looks.min(DOUBLED_AT_MOST),
        reference,
        age: 0,
        lifetime: 1,
        pushed: BTreeMap::new(),
        polled: Vec::new(),
        read: Vec::new(),
        running: None,
    });
    go_on(k)
}

/// Judges the instruction that has just run, and looks at the next one.
fn step(k: &mut Kernel, now: u64) -> Seen {
    let Some(mut probe) = k.ke.sched.probe.take() else { return Seen::Nothing };
    let same = probe.strand == k.engine.strand()
        && probe.depth == k.engine.depth()
        && probe.progress == k.ke.sched.progress;
    let Some(state) = k.engine.driver_state().filter(|_| same) else { return give_up(k, SOON) };
    if probe.retired + 1 != k.ke.retired(now) {
        // It has called the kernel: a loop that does so gets somewhere, or the budget ends it.
        return give_up(k, 0);
    }
    let Some(running) = probe.running.take() else { return give_up(k, SOON) };
    if running.lands.is_some_and(|rsp| rsp != state.registers.rsp()) || !keeps(k, &mut probe, &running) {
        return give_up(k, 0);
    }
    probe.age += 1;
    if state == probe.reference && probe.pushed.iter().all(|(at, old)| holds(k, *at, old)) {
        let Probe { polled, read, .. } = probe;
        let seen = if read.len() <= READ { remember(k, &read) } else { None };
        let stuck =
            Stuck { progress: k.ke.sched.progress, polled, reads: !read.is_empty(), rip: state.rip, seen };
        k.ke.change_thread(|thread| thread.stuck = Some(stuck));
        return Seen::Stuck;
    }
    if now >= probe.until {
        return give_up(k, SOON);
    }
    if probe.left <= 1 {
        return give_up(k, 0);
    }
    if probe.age == probe.lifetime {
        (probe.reference, probe.age, probe.lifetime) = (state, 0, probe.lifetime * 2);
        probe.pushed.clear();
        probe.polled.clear();
        probe.read.clear();
    }
    (probe.left, probe.retired) = (probe.left - 1, probe.retired + 1);
    k.ke.sched.probe = Some(probe);
    go_on(k)
}

/// Notes what the next instruction is going to do.
fn go_on(k: &mut Kernel) -> Seen {
    let Step::Inside { loads, stores, pushes, lands } = k.engine.next_step() else { return give_up(k, 0) };
    let own = k.ke.thread().map_or(0, super::thread_record::Thread::stack_base);
    let Some(probe) = k.ke.sched.probe.as_mut() else { return Seen::Nothing };
    for load in loads.into_iter().flatten() {
        if probe.read.len() <= READ && !probe.read.contains(&load) {
            probe.read.push(load);
        }
        let local = load.address < own && own - load.address <= crate::mm::stack::KERNEL_STACK;
        if !local && probe.polled.len() < POLLED && !probe.polled.contains(&load) {
            probe.polled.push(load);
        }
    }
    let engine = k.engine;
    let before = |touch: Reference| {
        let mut bytes = vec![0; touch.bytes.into()];
        engine.read_bytes(touch.address, &mut bytes).ok().map(|()| (touch, bytes))
    };
    probe.running = Some(Running { stores: stores.map(|store| store.and_then(before)), pushes, lands });
    Seen::Going
}

/// Whether the instruction that has run left memory as it was, pushes aside.
fn keeps(k: &Kernel, probe: &mut Probe, running: &Running) -> bool {
    running.stores.iter().flatten().all(|(touch, old)| {
        if running.pushes {
            probe.pushed.entry(touch.address).or_insert_with(|| old.clone());
            return true;
        }
        holds(k, touch.address, old)
    })
}

/// What is there now, all of it.
fn remember(k: &Kernel, read: &[Reference]) -> Option<Vec<(Reference, Vec<u8>)>> {
    let bytes = |touch: &Reference| {
        let mut bytes = vec![0; touch.bytes.into()];
        k.engine.read_bytes(touch.address, &mut bytes).ok().map(|()| (*touch, bytes))
    };
    read.iter().map(bytes).collect()
}

fn holds(k: &Kernel, address: u64, expected: &[u8]) -> bool {
    // A touch is of at most 32 bytes.
    let mut bytes = [0; 32];
    let now = &mut bytes[..expected.len()];
    k.engine.read_bytes(address, now).is_ok() && now == expected
}

/// The routine makes progress, or that cannot be decided: the next look comes after `soon` instructions, or when it has run
/// twice as long.
fn give_up(k: &mut Kernel, soon: u64) -> Seen {
    k.ke.sched.probe = None;
    k.ke.sched.turn_is_idle = false;
    k.ke.change_thread(|thread| {
        let account = &mut thread.account;
        thread.stuck = None;
        if soon == 0 {
            account.looks += 1;
            account.look_at = (account.stepped * 2).max(FIRST_LOOK);
        } else {
            account.look_at = account.stepped + soon;
        }
    });
    Seen::Nothing
}

// ---- waiting ----

/// The routine that runs now waits busily: it gives its turn away until something has happened.
///
/// # Errors
/// [`engine::Leave`] of what comes meanwhile; a verdict if nothing ever can.
pub(crate) fn wait(cx: &mut Cx<'_>) -> Flow<()> {
    if !cx.with(|k| k.hal.combining.is_empty()) && combine::drain_own(cx)? {
        // The clock soon interrupts a thread that waits busily: what has arrived may be what it waits for.
        cx.with(|k| k.ke.change_thread(|thread| thread.stuck = None));
        return begin_slice(cx);
    }
    if let Some(verdict) = cx.with(|k| stuck::of_a_loop(k)) {
        return Err(cx.stop(verdict));
    }
    scheduler::end_turn(cx)?;
    // It may go on now, and see the same again somewhere else.
    cx.with(|k| k.ke.change_thread(|thread| thread.stuck.iter_mut().for_each(|stuck| stuck.seen = None)));
    let now = cx.engine().now();
    if let Some(verdict) = cx.with(|k| slice::endless(k, now)) {
        return Err(cx.stop(verdict));
    }
    cx.with(|k| slice::end_of_quantum(k, now, false));
    interrupt_delivery::observe(cx);
    timer::ring(cx);
    irql::settle(cx)?;
    if cx.nt().is_given_up() {
        scheduler::end_turn(cx)?;
    }
    begin_slice(cx)
}

/// From the first instruction on, so that nothing it does is missed.
fn begin_slice(cx: &mut Cx<'_>) -> Flow<()> {
    if matches!(cx.with(begin_again), Seen::Going) {
        cx.engine().set_slice(1);
    } else {
        slice::arm(cx);
    }
    Ok(())
}

fn begin_again(k: &mut Kernel) -> Seen {
    let now = k.engine.now();
    k.ke.sched.probe = None;
    begin(k, now)
}

/// Whether the thread waits busily, and nothing has happened since that could end it, or nothing that it would see.
pub(crate) fn is_stuck(k: &Kernel, strand: StrandId) -> bool {
    let stuck = k.ke.sched.threads.get(strand).and_then(|thread| thread.stuck.as_ref());
    stuck.is_some_and(|stuck| stuck.progress == k.ke.sched.progress || sees_the_same(k, stuck))
}

fn sees_the_same(k: &Kernel, stuck: &Stuck) -> bool {
    let seen = stuck.seen.as_ref();
    seen.is_some_and(|seen| seen.iter().all(|(touch, old)| holds(k, touch.address, old)))
}

/// Whether the thread that processor `index` runs does.
pub(in crate::ke) fn holds_processor(k: &Kernel, index: usize) -> bool {
    is_stuck(k, k.ke.processors[index].thread)
}

/// When the thread that waits busily on processor `index` gives way by itself: at the end of its quantum to an equal that
/// could get anywhere, or to a lower one that has starved for so long that it is boosted. A real-time thread never gives
/// way to a lower one.
pub(super) fn gives_way_at(k: &Kernel, index: usize) -> Option<u64> {
    let processor = &k.ke.processors[index];
    let held = k.level_of(index) >= DISPATCH_LEVEL || processor.is_idle() || !processor.interrupts_enabled;
    if held || !holds_processor(k, index) {
        return None;
    }
    let thread = k.ke.sched.threads.get(processor.thread)?;
    let mut equals = Candidates::default();
    k.ke.sched.ready.candidates(thread.priority(), processor.mask(), &mut equals);
    let equal = equals.iter().any(|strand| !is_stuck(k, *strand)).then_some(thread.quantum_end);
    let dynamic = thread.priority() <= HIGHEST_DYNAMIC;
    let alive = |strand| !is_stuck(k, strand);
    let starved = dynamic.then(|| k.ke.sched.ready.starving_since(processor.mask(), alive)).flatten();
    equal.into_iter().chain(starved.map(|since| since + scheduler::STARVED)).min()
}
