//! No thread makes progress: who waits for whom, as a verdict. Follows *Preventing Errors and Deadlocks While Using Spin Locks*.
//!
//! Processors that wait for spin locks in a circle are judged at once: nothing that interrupts them can release a lock. So are those
//! that wait for others in `KeIpiGenericCall`.
//! Other waits are judged when nothing is due any more that could change anything.

use super::irq::watchdog;
use super::levels::{irql::DISPATCH_LEVEL, locks::Held, locks::Mode};
use super::sched::{
    patience, processor::Processor, processor::WaitsFor, scheduler, slice, spin, thread_record::State,
    thread_record::Thread,
};
use super::waits::wait;
use super::who_waits;
use crate::addresses;
use crate::cx::{Cx, Kernel};
use crate::io::cancel;
use crate::ldr::symbols;
use crate::verdict::{Related, Verdict};

/// The verdict if no thread can go on by itself and no time that passes will help, and the processor whose strand is to report
/// it. `None` if something is due, or no thread waits busily: then all is quiet.
pub(crate) fn verdict(k: &Kernel) -> Option<(usize, Verdict)> {
    if let Some(found) = in_a_circle(k) {
        return Some(found);
    }
    let mut busy = (0..k.ke.processors.len()).filter(|index| waits_busily(k, *index));
    if let Some(found) = busy.clone().find_map(|index| Some((index, slice::endless_on(k, index)?))) {
        return Some(found);
    }
    if scheduler::next_event(k).is_some() {
        return None;
    }
    // The processor at the highest level keeps the others from going on.
    let worst = busy.clone().max_by_key(|index| (k.level_of(*index), usize::MAX - index))?;
    let locks = busy.all(|index| waits_for_lock(&k.ke.processors[index]));
    Some((worst, if locks { of_locks(k, everybody(k)) } else { livelock(k, worst) }))
}

/// All threads wait and nothing is due that could wake one; or nothing that happens ends a wait, and the run was given up.
pub(crate) fn deadlock(cx: &mut Cx<'_>) -> Verdict {
    if let Some(verdict) = cancel::left_cancelled(cx) {
        return verdict;
    }
    let (rule, Why { words, moments }) = match patience::lost(cx) {
        Some(lost) => ("stuck", lost),
        None => ("deadlock", quiet(cx)),
    };
    Verdict { related: moments, ..Verdict::error(rule, words) }
}

/// Why a run has ended though what it was for has not come about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Why {
    /// In words.
    pub words: String,
    /// When what is waited for came to be as it is.
    pub moments: Vec<Related>,
}

/// Why a run has ended though what it was for has not come about.
pub fn why(cx: &mut Cx<'_>) -> Why {
    patience::lost(cx).unwrap_or_else(|| quiet(cx))
}

/// Nothing can run any more, in words.
fn quiet(cx: &mut Cx<'_>) -> Why {
    let lines = who_waits::all(cx);
    let who = if lines.is_empty() { "no thread is left to go on".to_owned() } else { lines.join("; ") };
    let words = format!("nothing can run any more, and no timer or device is due: {who}");
    Why { words: addresses::explain(cx, &words), moments: cx.with(|k| who_waits::moments(k)) }
}

/// What happens has ended nothing for so many nanoseconds, in words.
pub(crate) fn lost(cx: &mut Cx<'_>, waited: u64) -> Why {
    let seconds = waited / 1_000_000_000;
    let mut text = format!("{seconds} s of virtual time have passed, and nothing that happens has ended it");
    for (what, lines) in [("", who_waits::all(cx)), ("what goes on meanwhile: ", who_waits::alive(cx))] {
        if !lines.is_empty() {
            text += &format!(". {}", sentence(&format!("{what}{}", lines.join("; "))));
        }
    }
    text += ". If it is to take longer, the script may say so (expect within 300s)";
    Why { words: addresses::explain(cx, &text), moments: cx.with(|k| who_waits::moments(k)) }
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn waits_for_lock(processor: &Processor) -> bool {
    let what = processor.waits_for;
    matches!(what, Some(WaitsFor::Lock(_) | WaitsFor::LockShared(_) | WaitsFor::LockAlone(_)))
}

fn waits_busily(k: &Kernel, index: usize) -> bool {
    k.ke.processors[index].waits_for.is_some() || spin::holds_processor(k, index)
}

/// Processors that wait for each other: for locks that only they hold, or at a barrier that only they keep from opening.
fn in_a_circle(k: &Kernel) -> Option<(usize, Verdict)> {
    (0..k.ke.processors.len()).find_map(|start| {
        let mut circle = vec![start];
        if !closes(k, &mut circle, &mut 0) {
            return None;
        }
        let lines = circle.iter().map(|index| of_processor(k, &k.ke.processors[*index]));
        let lines = lines.collect::<Vec<_>>().join("; ");
        let locks = circle.iter().all(|index| waits_for_lock(&k.ke.processors[*index]));
        Some((start, if locks { of_locks(k, lines) } else { of_broadcast(k, lines) }))
    })
}

/// Whether the way of waiting that `path` is leads back to its beginning; then it is that circle.
fn closes(k: &Kernel, path: &mut Vec<usize>, seen: &mut u64) -> bool {
    let last = *path.last().expect("it begins somewhere");
    for next in waits_for(k, last) {
        if next == path[0] {
            return true;
        }
        if *seen & 1 << next == 0 {
            *seen |= 1 << next;
            path.push(next);
            if closes(k, path, seen) {
                return true;
            }
            path.pop();
        }
    }
    false
}

/// The processors that must all do something before processor `index` goes on.
fn waits_for(k: &Kernel, index: usize) -> Vec<usize> {
    let holders = |lock| k.ke.levels.locks().holders(lock).map(|held| held.processor as usize);
    let of_mask = |mask: u64| (0..k.ke.processors.len()).filter(|other| mask & 1 << other != 0).collect();
    match (k.ke.processors[index].waits_for, k.ke.irq.broadcast()) {
        (Some(WaitsFor::Lock(lock) | WaitsFor::LockAlone(lock)), _) => holders(lock).collect(),
        (Some(WaitsFor::LockShared(lock)), _) => {
            let wanting = k.ke.levels.locks().wanting(lock).map(|processor| processor as usize);
            let alone = k.ke.levels.locks().holders(lock).filter(|held| held.mode == Mode::Alone);
            alone.map(|held| held.processor as usize).chain(wanting).collect()
        }
        (Some(WaitsFor::IpiBarrier), Some(broadcast)) => of_mask(broadcast.away),
        (Some(WaitsFor::IpiEnd | WaitsFor::IpiTurn), Some(broadcast)) => of_mask(broadcast.busy),
        _ => Vec::new(),
    }
}

/// Windows' watchdog sees a processor that does not let the clock's interrupt in.
fn of_broadcast(k: &Kernel, lines: String) -> Verdict {
    let worst = k.ke.processors.iter().max_by_key(|processor| k.level_of(processor.number as usize));
    let (block, number) = worst.map_or((0, 0), |worst| (worst.control_block().address, worst.number));
    let message = format!("processors wait for each other: {lines}");
    let verdict = Verdict { related: who_waits::moments(k), ..Verdict::error("ipi-deadlock", message) };
    verdict.bug_check(0x101, [watchdog::SINGLE, 0, block, number.into()])
}

fn of_locks(k: &Kernel, lines: String) -> Verdict {
    let verdict = Verdict::error("spin-lock-deadlock", lines).bug_check(0xC4, [0x1001, 0, 0, 0]);
    Verdict { related: who_waits::moments(k), ..verdict }
}

fn livelock(k: &Kernel, worst: usize) -> Verdict {
    let message = format!("nothing can end the busy waits, and no timer or device is due: {}", everybody(k));
    let verdict = Verdict { related: who_waits::moments(k), ..Verdict::error("livelock", message) };
    let processor = &k.ke.processors[worst];
    if k.level_of(worst) < DISPATCH_LEVEL {
        return verdict;
    }
    verdict.bug_check(0x133, watchdog(processor))
}

/// The verdict on a loop of the current routine's that reads nothing, so that nothing can end it.
pub(crate) fn of_a_loop(k: &Kernel) -> Option<Verdict> {
    let thread = k.ke.thread()?;
    let stuck = thread.stuck.as_ref().filter(|stuck| !stuck.reads)?;
    let (who, at, processor) = (routine_of(k, thread), symbols::code(k, stuck.rip), k.ke.processor());
    let message = format!(
        "{who} loops at {at} at IRQL {}, reads no memory there and calls nothing: it never ends",
        k.level()
    );
    let verdict = Verdict::error("endless-loop", message);
    let raised = k.level() >= DISPATCH_LEVEL;
    Some(if raised { verdict.bug_check(0x133, watchdog(processor)) } else { verdict })
}

/// The parameters of Windows' watchdog: 0 for one DPC or interrupt, 1 for a thread that stays at the level.
fn watchdog(processor: &Processor) -> [u64; 4] {
    [processor.floors.is_empty().into(), watchdog::SINGLE, watchdog::SINGLE, 0]
}

/// Which thread waits for what, all of them.
fn everybody(k: &Kernel) -> String {
    let processors = k.ke.processors.iter().filter(|p| waits_busily(k, p.number as usize));
    let mut lines: Vec<String> = processors.map(|processor| of_processor(k, processor)).collect();
    let of_thread = |thread: &Thread| match thread.state {
        State::Ready => Some(format!(
            "{} at priority {}, is ready and gets no processor",
            routine_of(k, thread),
            thread.priority()
        )),
        _ => wait::describe_wait(k, thread),
    };
    lines.extend(who_waits::counted(k.ke.sched.threads().iter().filter_map(of_thread), "threads"));
    lines.join("; ")
}

/// What a processor waits for, what it holds, and what it keeps from running.
fn of_processor(k: &Kernel, processor: &Processor) -> String {
    let number = processor.number;
    let thread = k.ke.sched.threads().get(processor.thread);
    let who = thread.map_or("code".to_owned(), |thread| routine_of(k, thread));
    let mut line = match processor.waits_for {
        Some(WaitsFor::Lock(lock) | WaitsFor::LockAlone(lock) | WaitsFor::LockShared(lock)) => {
            format!("{who} on processor {number} spins on lock {lock:#x}, which {}", held_by(k, lock))
        }
        Some(WaitsFor::IpiTurn) => {
            format!("{who} on processor {number} waits in KeIpiGenericCall for the end of another one's")
        }
        Some(WaitsFor::IpiBarrier) => {
            format!(
                "{who} on processor {number} waits in KeIpiGenericCall for all processors to take the interrupt"
            )
        }
        Some(WaitsFor::IpiEnd) => {
            format!(
                "{who} on processor {number} waits in KeIpiGenericCall for the routine to return on all processors"
            )
        }
        Some(WaitsFor::Dpcs) => format!("{who} on processor {number} waits in KeFlushQueuedDpcs"),
        Some(WaitsFor::Dpc(object) | WaitsFor::Routine(object)) => {
            format!("{who} on processor {number} waits for the routine of DPC or timer {object:#x} to end")
        }
        Some(WaitsFor::Isr(object)) => {
            format!("{who} on processor {number} waits for the routine of interrupt {object:#x} to end")
        }
        None => format!(
            "{who} on processor {number} at IRQL {} {}",
            k.level_of(number as usize),
            polls(k, thread)
        ),
    };
    for (lock, held) in k.ke.levels.locks().of(number) {
        line += &format!(", holding lock {lock:#x} since {}", symbols::code(k, held.place));
    }
    if let Some(thread) = thread {
        for under in thread.callouts.iter().rev().skip(1) {
            line += &format!(", over its {} routine {}", under.role, symbols::code(k, under.routine.address));
        }
    }
    if !processor.dpcs.is_empty() {
        line += &format!(", with {} DPC(s) queued that its level holds back", processor.dpcs.len());
    }
    line
}

/// Who holds a lock, and who waits to have it alone.
fn held_by(k: &Kernel, lock: u64) -> String {
    let holder =
        |held: Held| format!("processor {} holds since {}", held.processor, symbols::code(k, held.place));
    let mut all: Vec<String> = k.ke.levels.locks().holders(lock).map(holder).collect();
    if all.is_empty() {
        all.push("no processor holds".to_owned());
    }
    all.extend(
        k.ke.levels
            .locks()
            .wanting(lock)
            .map(|processor| format!("processor {processor} waits to have alone")),
    );
    all.join(" and ")
}

/// What a busy wait looks at.
fn polls(k: &Kernel, thread: Option<&Thread>) -> String {
    let Some(stuck) = thread.and_then(|thread| thread.stuck.as_ref()) else { return "waits".to_owned() };
    let at = symbols::code(k, stuck.rip);
    if stuck.polled.is_empty() {
        return format!("loops at {at} and reads its own stack only");
    }
    let values = stuck.polled.iter().map(|touch| {
        let mut bytes = [0; 8];
        let length = usize::from(touch.bytes.min(8));
        let value = match k.engine.read_bytes(touch.address, &mut bytes[..length]) {
            Ok(()) => format!("{:#x}", u64::from_le_bytes(bytes)),
            Err(_) => "not readable".to_owned(),
        };
        format!("{} ({value})", symbols::code(k, touch.address))
    });
    format!("polls {} at {at}", values.collect::<Vec<_>>().join(" and "))
}

/// The innermost routine of a driver that a thread is in, and the thread.
pub(crate) fn routine_of(k: &Kernel, thread: &Thread) -> String {
    let name = &thread.name;
    thread.callouts.last().map_or_else(
        || format!("the {name},"),
        |call| {
            let routine = symbols::code(k, call.routine.address);
            format!("the {} routine {routine}, on the {name},", call.role)
        },
    )
}
