//! Interrupt objects: connecting them, and synchronising with their routines. Follows *IoConnectInterruptEx function*,
//! *KeSynchronizeExecution function*, *KeAcquireInterruptSpinLock function*.
//!
//! A line's vector and a message's are connected alike. When and how routines are called is the business of `interrupt_delivery` and
//! `message`.

use abi::{DriverPtr, KINTERRUPT, NtStatus};
use engine::Flow;

use super::passive_isr;
use super::vectors::{irql_of_vector, is_message};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Role};
use crate::ke::calls::callout;
use crate::ke::levels::irql::{self, HIGH_LEVEL, PASSIVE_LEVEL};
use crate::ke::sched::processor::WaitsFor;
use crate::ke::sched::spinlock::{self, SpinLock};
use crate::ke::sched::{affinity, scheduler, slice};
use crate::mm::pool;
use crate::verdict::Verdict;

pub use super::interrupt_delivery::deliver;

/// Bytes of an interrupt object; drivers see none of them.
const OBJECT_SIZE: u64 = 0x120;
/// Where its own spin lock is.
const LOCK_AT: u64 = 0x60;

/// What it takes to connect a service routine, decoded from any of the documented forms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// `ServiceRoutine`.
    pub routine: u64,
    /// `ServiceContext`.
    pub context: u64,
    /// The caller's spin lock, or 0: the interrupt object's own. A passive-level routine has an event in its place.
    pub lock: u64,
    /// Vector, as in the translated resources.
    pub vector: u32,
    /// DIRQL of the vector.
    pub irql: u8,
    /// IRQL at which the routine runs; at least `irql`. PASSIVE_LEVEL: on a thread, see `passive_isr`.
    pub synchronize_irql: u8,
    /// Latched if true, else level sensitive.
    pub latched: bool,
    /// May share the vector.
    pub shared: bool,
    /// Processors.
    pub affinity: u64,
    /// The message's number, if the routine is an `InterruptMessageService`, which gets it as an argument.
    pub message: Option<u32>,
}

impl Connection {
    /// Whether the routine runs on a thread.
    #[must_use]
    pub(crate) const fn is_passive(&self) -> bool {
        self.synchronize_irql == PASSIVE_LEVEL
    }

    /// What the routine is called with for `object`, and how much of it: only a message's has a third parameter.
    pub(in crate::ke) fn arguments(&self, object: u64) -> ([u64; 3], usize) {
        let count = if self.message.is_some() { 3 } else { 2 };
        ([object, self.context, self.message.unwrap_or(0).into()], count)
    }
}

/// The levels of lines are 3–11.
const LEVELS: u32 = 9;
const LOWEST_LEVEL: u32 = 3;

/// The vector of line `line` (0–63); its level is the vector's upper half.
#[must_use]
pub const fn vector_of_line(line: u32) -> u32 {
    ((LOWEST_LEVEL + line % LEVELS) << 4) | (line / LEVELS)
}

/// The line of a vector, if it is one of a line.
#[must_use]
pub(crate) const fn line_of_vector(vector: u32) -> Option<u32> {
    let level = vector >> 4;
    if level < LOWEST_LEVEL || level >= LOWEST_LEVEL + LEVELS {
        return None;
    }
    let line = (vector & 0xF) * LEVELS + level - LOWEST_LEVEL;
    if line < 64 { Some(line) } else { None }
}

/// The vector that an interrupt object is connected to.
#[must_use]
pub(crate) fn vector_of(k: &Kernel, object: u64) -> Option<u32> {
    k.ke.irq.interrupts.objects.get(&object).map(|connection| connection.vector)
}

/// The level of a line's vector.
#[must_use]
pub const fn irql_of_line(line: u32) -> u8 {
    // 3 to 11: nothing is cut off.
    (vector_of_line(line) >> 4).to_le_bytes()[0]
}

// ---- connecting ----

/// Connects: from now on the routine is called, maybe before this returns.
///
/// # Errors
/// (inner) `INVALID_PARAMETER` for a null routine, a vector that is no device's, a level that is not the vector's, a
/// synchronize level below it, no processor, a vector that is not shared alike, or a message that is not latched;
/// `INSUFFICIENT_RESOURCES`.
pub fn connect(cx: &mut Cx<'_>, connection: &Connection) -> Flow<Result<DriverPtr<KINTERRUPT>, NtStatus>> {
    if !cx.with(|k| acceptable(k, connection)) {
        return Ok(Err(NtStatus::INVALID_PARAMETER));
    }
    let vector = connection.vector;
    let object: DriverPtr<KINTERRUPT> =
        pool::allocate(cx, pool::Kind::NonPaged, OBJECT_SIZE, pool::tag(b"KInt"))?;
    if object.is_null() {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    let own = object.address + LOCK_AT;
    if connection.is_passive() && connection.lock == 0 {
        passive_isr::make_lock(cx, own)?;
    }
    cx.with(|k| {
        let mut connection = *connection;
        connection.affinity &= affinity::all(k);
        if connection.lock == 0 {
            connection.lock = own;
        }
        let interrupts = &mut k.ke.irq.interrupts;
        interrupts.objects.insert(object.address, connection);
        let chain = interrupts.chain(vector);
        let all = chain.iter().flat_map(|chain| chain.iter().copied()).chain([object.address]);
        interrupts.chains.insert(vector, all.collect());
        interrupts.update_masks();
        k.ke.rearm();
    });
    tell(cx, object, connection, true);
    come_early(cx, vector)?;
    Ok(Ok(object))
}

fn tell(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>, connection: &Connection, made: bool) {
    let Connection { vector, synchronize_irql: level, .. } = *connection;
    cx.emit(Event::Connection { object: object.address, vector, level, made });
}

/// A routine is connected to `vector`, and the call that connects it has not returned: it may run before, if the vector wants service.
///
/// # Errors
/// [`engine::Leave`] of what was let in.
pub(crate) fn come_early(cx: &mut Cx<'_>, vector: u32) -> Flow<()> {
    let wanting = cx.with(|k| match line_of_vector(vector) {
        Some(line) => k.ke.irq.interrupts.wanting() & 1 << line != 0,
        None => k.ke.irq.interrupts.messages.wanting().any(|wanting| wanting == vector),
    });
    if wanting && cx.choose("ke.interrupt_before_connect_returns", 2) == 1 {
        deliver(cx)?;
    }
    if slice::tighten(cx) {
        cx.with(Kernel::publish_levels);
    }
    if wanting {
        // If not before, then with the driver's next instruction.
        cx.with(slice::end_soon);
    }
    Ok(())
}

/// Whether a connection can be made.
fn acceptable(k: &Kernel, new: &Connection) -> bool {
    let Connection { vector, irql, synchronize_irql, .. } = *new;
    let known = line_of_vector(vector).is_some() || (is_message(vector) && new.latched);
    let levels = match irql {
        PASSIVE_LEVEL => new.is_passive(),
        _ => irql == irql_of_vector(vector) && (irql..=HIGH_LEVEL).contains(&synchronize_irql),
    };
    let possible = new.routine != 0 && levels && new.affinity & affinity::all(k) != 0;
    known && possible && k.ke.irq.interrupts.accepts(new)
}

/// Disconnects: when this returns, the routine does not run and will not.
///
/// # Errors
/// A verdict if the object is not connected; [`engine::Leave`] if the machine ends meanwhile.
pub fn disconnect(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>) -> Flow<()> {
    let removed = cx.with(|k| {
        let interrupts = &mut k.ke.irq.interrupts;
        let connection = *interrupts.objects.get(&object.address)?;
        let vector = connection.vector;
        let chain = interrupts.chains.remove(&vector)?;
        if chain.len() > 1 {
            let others = chain.iter().copied().filter(|other| *other != object.address);
            interrupts.chains.insert(vector, others.collect());
        } else {
            interrupts.messages.forget(vector);
        }
        interrupts.update_masks();
        k.ke.invalidate_levels();
        Some(connection)
    });
    let Some(removed) = removed else {
        return Err(not_connected(cx, object, "IoDisconnectInterrupt"));
    };
    if removed.is_passive() {
        passive_isr::wait_for_end(cx, object.address)?;
    }
    while cx.with(|k| k.ke.irq.interrupts.running.contains(&object.address)) {
        scheduler::wait_for(cx, WaitsFor::Isr(object.address))?;
    }
    cx.with(|k| {
        k.ke.irq.interrupts.objects.remove(&object.address);
        k.ke.irq.interrupts.inactive.remove(&object.address);
    });
    tell(cx, object, &removed, false);
    cx.with(|k| k.ke.lock_order.forget(object.address, OBJECT_SIZE));
    pool::free(cx, object)
}

/// Whether the routine of `object` is to be called: it is, until this says otherwise. The code that connected it calls this.
pub(crate) fn set_active(k: &mut Kernel, object: u64, active: bool) {
    let interrupts = &mut k.ke.irq.interrupts;
    if active {
        interrupts.inactive.remove(&object);
    } else {
        interrupts.inactive.insert(object);
    }
    interrupts.update_masks();
    k.ke.rearm();
}

/// Whether the routine of some object on `vector` is to be called.
#[must_use]
pub(crate) fn is_active(k: &Kernel, vector: u32) -> bool {
    k.ke.irq.interrupts.active_on(vector).next().is_some()
}

/// Whether one object, and no more, is connected to `vector`.
#[must_use]
pub(crate) fn is_alone_on(k: &Kernel, vector: u32) -> bool {
    k.ke.irq.interrupts.chains.get(&vector).is_some_and(|chain| chain.len() == 1)
}

/// The object that was connected to `vector` first of those that still are.
#[must_use]
pub(crate) fn first_on(k: &Kernel, vector: u32) -> Option<u64> {
    k.ke.irq.interrupts.chains.get(&vector).and_then(|chain| chain.first().copied())
}

fn not_connected(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>, what: &str) -> engine::Leave {
    let message =
        format!("{what} was called for {:#x}, which is no connected interrupt object", object.address);
    cx.stop(Verdict::error("interrupt-not-connected", message))
}

// ---- synchronisation with the service routine ----

fn connection(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>, what: &str) -> Flow<Connection> {
    match cx.with(|k| k.ke.irq.interrupts.objects.get(&object.address).copied()) {
        Some(connection) => Ok(connection),
        None => Err(not_connected(cx, object, what)),
    }
}

/// What a routine of `KeSynchronizeExecution`'s is called.
pub(super) const SYNCHRONIZED: Role = Role::SynchCritSection;

/// As [`connection`], of a routine that runs at a level.
fn with_spin_lock(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>, what: &str) -> Flow<Connection> {
    let connection = connection(cx, object, what)?;
    if connection.is_passive() {
        let message = format!(
            "{what} was called for interrupt {:#x}, whose routine runs at PASSIVE_LEVEL: it has no spin lock, KeSynchronizeExecution takes its event",
            object.address
        );
        let verdict = Verdict::error("passive-interrupt-spin-lock", message);
        return Err(cx.stop(verdict.bug_check(0x13B, [1, object.address, 0, 0])));
    }
    Ok(connection)
}

/// `KeAcquireInterruptSpinLock`: raises to the synchronize level and acquires; returns the old level.
///
/// # Errors
/// A verdict if the object is not connected, its routine runs at PASSIVE_LEVEL, or the level is higher already; as
/// [`spinlock::spin`].
pub(crate) fn acquire_spin_lock(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>) -> Flow<u8> {
    let connection = with_spin_lock(cx, object, "KeAcquireInterruptSpinLock")?;
    let old = irql::raise(cx, connection.synchronize_irql)?;
    spinlock::spin(cx, SpinLock::new(connection.lock), 1)?;
    Ok(old)
}

/// `KeReleaseInterruptSpinLock`.
///
/// # Errors
/// A verdict if the object is not connected or its lock not held; whatever the lower level lets in.
pub(crate) fn release_spin_lock(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>, level: u8) -> Flow<()> {
    const NAME: &str = "KeReleaseInterruptSpinLock";
    let connection = with_spin_lock(cx, object, NAME)?;
    spinlock::give_back(cx, SpinLock::new(connection.lock), 1, NAME)?;
    irql::lower(cx, level)
}

/// `KeSynchronizeExecution`: calls the routine at the synchronize level with the interrupt's lock; returns its answer.
///
/// # Errors
/// As [`acquire_spin_lock`] and [`callout::call_routine`].
pub(crate) fn synchronize(
    cx: &mut Cx<'_>,
    object: DriverPtr<KINTERRUPT>,
    routine: DriverPtr<abi::Code>,
    context: u64,
) -> Flow<bool> {
    let connection = connection(cx, object, "KeSynchronizeExecution")?;
    if connection.is_passive() {
        return passive_isr::synchronize(cx, object, &connection, routine, context);
    }
    let old = irql::raise(cx, connection.synchronize_irql)?;
    let lock = SpinLock::new(connection.lock);
    spinlock::spin(cx, lock, 1)?;
    cx.with(|k| k.ke.push_floor(connection.synchronize_irql));
    let answer = callout::call_routine(cx, SYNCHRONIZED, routine, object.address, &[context]);
    cx.with(|k| k.ke.pop_floor());
    let answer = answer? & 0xFF != 0;
    spinlock::give_back(cx, lock, 1, "KeSynchronizeExecution")?;
    irql::lower(cx, old)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: irql/of-a-device
    #[test]
    fn every_line_has_a_vector_of_a_device_level_and_back() {
        for line in 0..64 {
            let vector = vector_of_line(line);
            assert!((3..=11).contains(&(vector >> 4)));
            assert_eq!(line_of_vector(vector), Some(line));
        }
        assert_eq!(line_of_vector(0x20), None);
        assert_eq!(line_of_vector(0xD1), None);
        assert_eq!(line_of_vector(0x3F), None);
    }
}
