//! Interrupt routines that run at PASSIVE_LEVEL, on a thread. Follows *Using Passive-Level Interrupt Service Routines*,
//! *Passive-Level ISRs*, *KeSynchronizeExecution function*.
//!
//! The processor that takes the interrupt calls the routines that run at a level, then wakes the thread of the vector, and the line
//! stays masked (a further message pends) until that thread has called the others; if the line is asserted still, it all begins
//! anew. *Ours*, where the pages say nothing: one thread a vector, of normal priority; routines of both kinds may share a line.

use std::collections::BTreeMap;

use abi::{Code, DriverPtr, KEVENT, KINTERRUPT};
use engine::{Flow, StrandId};

use super::interrupt::{Connection, SYNCHRONIZED};
use super::interrupt_delivery::{self, Passes};
use super::kernel_worker::{self, KernelWorker};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind, LockKind, Role};
use crate::ke::calls::callout;
use crate::ke::levels::irql::{self, PASSIVE_LEVEL};
use crate::ke::lock_order::{self, Hold};
use crate::ke::waits::{event, thread, wait};
use crate::verdict::Verdict;
use crate::witness;

/// `SynchronizationEvent`.
const SYNCHRONIZATION: u32 = 1;

/// What serves a vector at PASSIVE_LEVEL.
#[derive(Default)]
pub(crate) struct Server {
    worker: KernelWorker,
    /// The interrupt came, and has not been served.
    wanted: bool,
    /// Since the line was last seen to fall.
    passes: Passes,
}

/// The servers by vector, and the threads that wait for a routine's end to disconnect it, by interrupt object.
#[derive(Default)]
pub(crate) struct Servers {
    by_vector: BTreeMap<u32, Server>,
    disconnecting: BTreeMap<u64, StrandId>,
}

fn server_of(vector: u32) -> impl Fn(&mut Kernel) -> &mut Server {
    move |k| k.ke.irq.interrupts.servers.by_vector.entry(vector).or_default()
}

fn worker_of(vector: u32) -> impl Fn(&mut Kernel) -> &mut KernelWorker {
    move |k| &mut server_of(vector)(k).worker
}

/// The event at `at`, in an interrupt object or behind a table of messages, keeps routines apart.
pub(crate) fn make_lock(cx: &mut Cx<'_>, at: u64) -> Flow<()> {
    event::initialize(cx, DriverPtr::new(at), SYNCHRONIZATION, true)
}

/// Whether routines on `vector` run on its thread.
pub(in crate::ke) fn serves(k: &Kernel, vector: u32) -> bool {
    k.ke.irq.interrupts.active_on(vector).any(|(_, connection)| connection.is_passive())
}

/// The interrupt of `vector` was taken, and waits for the thread.
pub(in crate::ke) fn hand_over(cx: &mut Cx<'_>, vector: u32) -> Flow<()> {
    cx.with(|k| server_of(vector)(k).wanted = true);
    let name = format!("thread of interrupt vector {vector:#x}");
    kernel_worker::wake(cx, worker_of(vector), |cx| {
        thread::spawn_quietly(cx, name, Box::new(move |cx| serve_all(cx, vector)))
    })
}

/// What the thread of `vector` does, for ever.
fn serve_all(cx: &mut Cx<'_>, vector: u32) -> Flow<()> {
    loop {
        if cx.with(|k| std::mem::take(&mut server_of(vector)(k).wanted)) {
            serve(cx, vector)?;
        } else {
            kernel_worker::rest(cx, "a thread that serves interrupts", worker_of(vector))?;
        }
    }
}

/// One pass, after which the interrupt may come again.
fn serve(cx: &mut Cx<'_>, vector: u32) -> Flow<()> {
    let claimed = call_chain(cx, vector)?;
    interrupt_delivery::leave_to_others(cx, vector, claimed);
    interrupt_delivery::observe(cx);
    if let Some(verdict) = cx.with(|k| {
        let asserted = interrupt_delivery::is_asserted(k, vector);
        let only_of_others = interrupt_delivery::is_only_of_others(k, vector);
        let passes = &mut server_of(vector)(k).passes;
        if !asserted {
            *passes = Passes::default();
            return None;
        }
        passes.count(claimed, only_of_others);
        let passes = *passes;
        passes.are_a_storm().then(|| interrupt_delivery::storm(k, vector, passes))
    }) {
        return Err(cx.stop(verdict));
    }
    cx.with(|k| {
        interrupt_delivery::unmask(k, vector);
        // Any processor may take it again.
        k.ke.rearm();
    });
    irql::settle(cx)
}

fn call_chain(cx: &mut Cx<'_>, vector: u32) -> Flow<bool> {
    let mut claimed = false;
    let Some(chain) = cx.with(|k| k.ke.irq.interrupts.chain(vector)) else { return Ok(false) };
    for &object in &*chain {
        let of_thread = |k: &mut Kernel| {
            let mut active = k.ke.irq.interrupts.active_on(vector);
            active.find(|(other, connection)| *other == object && connection.is_passive()).map(|(_, c)| c)
        };
        let Some(connection) = cx.with(of_thread) else { continue };
        cx.with(|k| k.ke.irq.interrupts.running.push(object));
        let result = call_routine(cx, object, &connection);
        cx.with(|k| {
            k.ke.irq.interrupts.has_run(object);
            if let Some(strand) = k.ke.irq.interrupts.servers.disconnecting.remove(&object) {
                wait::grant(k, strand);
            }
        });
        if result? {
            claimed = true;
            if !connection.latched {
                break;
            }
        }
    }
    Ok(claimed)
}

/// Waits for the event of a connection, which keeps others out until [`give`].
fn take(cx: &mut Cx<'_>, connection: &Connection) -> Flow<()> {
    let lock = connection.lock;
    let _ = wait::for_object(cx, DriverPtr::<KEVENT>::new(lock))?;
    let acquired = witness::moment(cx);
    cx.detail(Kind::LockAcquired, || Event::LockAcquired { lock, kind: LockKind::PassiveInterrupt });
    lock_order::acquired(cx, Hold { lock, kind: LockKind::PassiveInterrupt, acquired }, true)
}

fn give(cx: &mut Cx<'_>, connection: &Connection) -> Flow<()> {
    let lock = connection.lock;
    lock_order::released(cx, lock);
    cx.detail(Kind::LockReleased, || Event::LockReleased { lock, kind: LockKind::PassiveInterrupt });
    event::set(cx, DriverPtr::new(lock), 0, false).map(|_| ())
}

/// Calls a routine under its event; false if it was disconnected while the event was another's.
fn call_routine(cx: &mut Cx<'_>, object: u64, connection: &Connection) -> Flow<bool> {
    take(cx, connection)?;
    if !cx.with(|k| k.ke.irq.interrupts.active_on(connection.vector).any(|(other, _)| other == object)) {
        give(cx, connection)?;
        return Ok(false);
    }
    let (all, count) = connection.arguments(object);
    let routine = DriverPtr::new(connection.routine);
    let result = callout::call_routine(cx, Role::PassiveIsr, routine, object, &all[..count]);
    let claimed = result? & 0xFF != 0;
    give(cx, connection)?;
    cx.emit(Event::Interrupt { vector: connection.vector, object, claimed });
    Ok(claimed)
}

/// Waits until the routine of `object`, on no chain any more, does not run.
pub(in crate::ke) fn wait_for_end(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    if !cx.with(|k| k.ke.irq.interrupts.running.contains(&object)) {
        return Ok(());
    }
    cx.with(|k| {
        let strand = k.ke.processor().thread;
        k.ke.irq.interrupts.servers.disconnecting.insert(object, strand);
    });
    wait::for_grant(cx, object, "IoDisconnectInterruptEx")
}

/// `KeSynchronizeExecution` with a routine at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict above PASSIVE_LEVEL; as [`callout::call_routine`].
pub(in crate::ke) fn synchronize(
    cx: &mut Cx<'_>,
    object: DriverPtr<KINTERRUPT>,
    connection: &Connection,
    routine: DriverPtr<Code>,
    context: u64,
) -> Flow<bool> {
    let level = irql::current(cx);
    if level > PASSIVE_LEVEL {
        let message = format!(
            "KeSynchronizeExecution was called at IRQL {level} for interrupt {:#x}, whose routine runs at PASSIVE_LEVEL",
            object.address
        );
        return Err(cx.stop(Verdict::error("irql-too-high", message)));
    }
    take(cx, connection)?;
    let answer = callout::call_routine(cx, SYNCHRONIZED, routine, object.address, &[context])? & 0xFF != 0;
    give(cx, connection)?;
    Ok(answer)
}

/// The interrupt object whose routine's end the thread waits for, for people.
pub(crate) fn describe(k: &Kernel, object: u64) -> Option<String> {
    k.ke.irq.interrupts.servers.disconnecting.get(&object)?;
    Some(format!("the routine of interrupt {object:#x} to end, to disconnect it"))
}
