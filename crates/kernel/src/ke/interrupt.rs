//! Interrupt objects: connecting, delivery by level, the shared chain of a line. Follows *IoConnectInterruptEx function*,
//! *KSERVICE_ROUTINE callback function*, *Servicing Interrupts*, *Bug Check 0xF2 HARDWARE_INTERRUPT_STORM*.
//!
//! Lines only: messages come later. A line is served while it is asserted, or at its rising edge if it was connected as
//! latched. A line nobody is connected to stays pending.

use std::collections::BTreeMap;

use abi::{DriverPtr, KINTERRUPT, NtStatus};
use engine::Flow;

use super::callout::Callout;
use super::spinlock::{self, SpinLock};
use super::{affinity, callout, irql, scheduler, slice, stack, time};
use crate::cx::{Cx, Kernel};
use crate::event::Event;
use crate::mm::pool;
use crate::verdict::Verdict;

/// Bytes of an interrupt object; drivers see none of them.
const OBJECT_SIZE: u64 = 0x120;
/// Where its own spin lock is.
const LOCK_AT: u64 = 0x60;
/// So many passes in a row that nobody claims, with the line still asserted, are a storm.
const UNCLAIMED_PASSES: u32 = 1_000;
/// So many passes without the line ever falling are one, even if somebody claims them.
const CLAIMED_PASSES: u32 = 100_000;
/// What taking an interrupt costs, in nanoseconds.
const LATENCY: u64 = 200;

/// What it takes to connect a service routine, decoded from any of the documented forms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// `ServiceRoutine`.
    pub routine: u64,
    /// `ServiceContext`.
    pub context: u64,
    /// The caller's spin lock, or 0: the interrupt object's own.
    pub spin_lock: u64,
    /// Vector, as in the translated resources.
    pub vector: u32,
    /// DIRQL of the vector.
    pub irql: u8,
    /// IRQL at which the routine runs; at least `irql`.
    pub synchronize_irql: u8,
    /// Latched if true, else level sensitive.
    pub latched: bool,
    /// May share the vector.
    pub shared: bool,
    /// Processors.
    pub affinity: u64,
}

/// The lines and who is connected to them. Bit n of a mask is line n.
#[derive(Default)]
pub(crate) struct Interrupts {
    objects: BTreeMap<u64, Connection>,
    /// Interrupt objects in the order they were connected, by line.
    chains: BTreeMap<u32, Vec<u64>>,
    /// Levels as they were seen last.
    levels: u64,
    /// Rising edges that were not served yet.
    edges: u64,
    /// Lines with level-sensitive and with latched connections.
    level_sensitive: u64,
    latched: u64,
    /// Lines that are being served: they wait for the end of it.
    in_service: u64,
    /// Service routines that run now.
    running: Vec<u64>,
}

impl Interrupts {
    /// The lines that want service.
    fn wanting(&self) -> u64 {
        ((self.levels & self.level_sensitive) | (self.edges & self.latched)) & !self.in_service
    }

    fn update_masks(&mut self) {
        (self.level_sensitive, self.latched) = (0, 0);
        for (line, chain) in &self.chains {
            match chain.first().map(|object| self.objects[object].latched) {
                Some(true) => self.latched |= 1 << line,
                Some(false) => self.level_sensitive |= 1 << line,
                None => {}
            }
        }
    }

    fn chain(&self, line: u32) -> Vec<u64> {
        self.chains.get(&line).cloned().unwrap_or_default()
    }

    fn allows(&self, line: u32, processor: u64) -> bool {
        self.chain(line).iter().any(|object| self.objects[object].affinity & processor != 0)
    }

    /// Whether a further connection to the line can live with those there are.
    fn accepts(&self, line: u32, new: &Connection) -> bool {
        let chain = self.chain(line);
        chain.is_empty()
            || (new.shared
                && chain.iter().all(|object| {
                    let old = &self.objects[object];
                    old.shared && old.latched == new.latched
                }))
    }
}

/// Device levels are 3–11.
const LEVELS: u32 = 9;
const LOWEST_LEVEL: u32 = 3;

/// The vector of line `line` (0–63); its level is the vector's upper half.
#[must_use]
pub const fn vector_of_line(line: u32) -> u32 {
    ((LOWEST_LEVEL + line % LEVELS) << 4) | (line / LEVELS)
}

/// The line of a vector, if it is one of a line.
#[must_use]
pub const fn line_of_vector(vector: u32) -> Option<u32> {
    let level = vector >> 4;
    if level < LOWEST_LEVEL || level >= LOWEST_LEVEL + LEVELS {
        return None;
    }
    let line = (vector & 0xF) * LEVELS + level - LOWEST_LEVEL;
    if line < 64 { Some(line) } else { None }
}

/// The vector that an interrupt object is connected to.
#[must_use]
pub fn vector_of(k: &Kernel, object: u64) -> Option<u32> {
    k.ke.interrupts.objects.get(&object).map(|connection| connection.vector)
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
/// (inner) `INVALID_PARAMETER` for a null routine, a vector that is no line's, a level that is not the vector's, a
/// synchronize level below it, no processor, or a line that is not shared alike; `INSUFFICIENT_RESOURCES`.
pub fn connect(cx: &mut Cx<'_>, connection: &Connection) -> Flow<Result<DriverPtr<KINTERRUPT>, NtStatus>> {
    let Some(line) = cx.with(|k| acceptable(k, connection)) else {
        return Ok(Err(NtStatus::INVALID_PARAMETER));
    };
    let object: DriverPtr<KINTERRUPT> =
        pool::allocate(cx, pool::Kind::NonPaged, OBJECT_SIZE, pool::tag(b"KInt"))?;
    if object.is_null() {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    let own = object.address + LOCK_AT;
    cx.with(|k| {
        let mut connection = *connection;
        connection.affinity &= affinity::all(k);
        if connection.spin_lock == 0 {
            connection.spin_lock = own;
        }
        let interrupts = &mut k.ke.interrupts;
        interrupts.objects.insert(object.address, connection);
        interrupts.chains.entry(line).or_default().push(object.address);
        interrupts.update_masks();
        k.ke.rearm = true;
    });
    if cx.with(|k| k.ke.interrupts.wanting() & 1 << line != 0)
        && cx.choose("ke.interrupt_before_connect_returns", 2) == 1
    {
        deliver(cx)?;
    }
    slice::tighten(cx);
    Ok(Ok(object))
}

/// The line of a connection that can be made.
fn acceptable(k: &Kernel, new: &Connection) -> Option<u32> {
    let line = line_of_vector(new.vector)?;
    let levels = new.irql == irql_of_line(line) && (new.irql..=15).contains(&new.synchronize_irql);
    let possible = new.routine != 0 && levels && new.affinity & affinity::all(k) != 0;
    (possible && k.ke.interrupts.accepts(line, new)).then_some(line)
}

/// Disconnects: when this returns, the routine does not run and will not.
///
/// # Errors
/// A verdict if the object is not connected; [`engine::Leave`] if the machine ends meanwhile.
pub fn disconnect(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>) -> Flow<()> {
    let removed = cx.with(|k| {
        let interrupts = &mut k.ke.interrupts;
        let connection = interrupts.objects.get(&object.address)?;
        let line = line_of_vector(connection.vector)?;
        let chain = interrupts.chains.get_mut(&line)?;
        chain.retain(|other| *other != object.address);
        if chain.is_empty() {
            interrupts.chains.remove(&line);
        }
        interrupts.update_masks();
        Some(())
    });
    if removed.is_none() {
        return Err(not_connected(cx, object, "IoDisconnectInterrupt"));
    }
    while cx.with(|k| k.ke.interrupts.running.contains(&object.address)) {
        scheduler::end_turn(cx)?;
    }
    cx.with(|k| k.ke.interrupts.objects.remove(&object.address));
    pool::free(cx, object)
}

/// Interrupt objects whose routine lies in `base..base+length`: for `Ldr` before it takes that code away.
#[must_use]
pub fn connected_to(k: &Kernel, base: u64, length: u64) -> Option<u64> {
    let mut objects = k.ke.interrupts.objects.iter();
    objects.find(|(_, c)| c.routine.wrapping_sub(base) < length).map(|(object, _)| *object)
}

fn not_connected(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>, what: &str) -> engine::Leave {
    let message =
        format!("{what} was called for {:#x}, which is no connected interrupt object", object.address);
    cx.stop(Verdict::error("interrupt-not-connected", message))
}

// ---- delivery ----

/// Lets the hardware catch up with the time, and looks at its lines.
pub(crate) fn observe(cx: &mut Cx<'_>) {
    let (before, now) = cx.with(|k| {
        k.hal.hardware.advance(k.engine.now());
        let now = k.hal.hardware.lines();
        let before = std::mem::replace(&mut k.ke.interrupts.levels, now);
        k.ke.interrupts.edges |= now & !before;
        k.ke.rearm |= now != before;
        (before, now)
    });
    let mut changed = before ^ now;
    while changed != 0 {
        let line = changed.trailing_zeros();
        changed &= changed - 1;
        cx.emit(Event::Line { line, asserted: now & 1 << line != 0 });
    }
}

/// After a device was accessed or time has passed: what the hardware asks for and the level allows happens now.
///
/// # Errors
/// [`engine::Leave`] of what was let in.
pub fn deliver(cx: &mut Cx<'_>) -> Flow<()> {
    observe(cx);
    irql::settle(cx)
}

/// The line that processor `index` would be interrupted by now: the highest level first.
pub(crate) fn deliverable(k: &Kernel, index: usize) -> Option<u32> {
    let mut wanting = k.ke.interrupts.wanting();
    let processor = &k.ke.processors[index];
    let mut best: Option<(u32, u32)> = None;
    while wanting != 0 {
        let line = wanting.trailing_zeros();
        wanting &= wanting - 1;
        let vector = vector_of_line(line);
        if irql_of_line(line) > processor.irql
            && k.ke.interrupts.allows(line, processor.mask())
            && best.is_none_or(|(highest, _)| vector > highest)
        {
            best = Some((vector, line));
        }
    }
    best.map(|(_, line)| line)
}

/// The current processor takes the interrupt of `line`.
pub(crate) fn service(cx: &mut Cx<'_>, line: u32) -> Flow<()> {
    let old = irql::current(cx);
    cx.with(|k| {
        k.ke.interrupts.in_service |= 1 << line;
        k.ke.interrupts.edges &= !(1 << line);
    });
    irql::set(cx, irql_of_line(line));
    time::charge(cx, LATENCY);
    let result = passes(cx, line);
    irql::set(cx, old);
    cx.with(|k| k.ke.interrupts.in_service &= !(1 << line));
    result
}

/// Calls the chain until the line wants no more.
fn passes(cx: &mut Cx<'_>, line: u32) -> Flow<()> {
    let (mut unclaimed, mut claimed) = (0, 0);
    loop {
        if call_chain(cx, line)? {
            (unclaimed, claimed) = (0, claimed + 1);
        } else {
            unclaimed += 1;
        }
        observe(cx);
        let again = cx.with(|k| {
            let interrupts = &mut k.ke.interrupts;
            let wanting =
                (interrupts.levels & interrupts.level_sensitive) | (interrupts.edges & interrupts.latched);
            interrupts.edges &= !(1 << line);
            wanting & 1 << line != 0
        });
        if !again {
            return Ok(());
        }
        if unclaimed >= UNCLAIMED_PASSES || claimed >= CLAIMED_PASSES {
            let verdict = cx.with(|k| storm(k, line, unclaimed != 0));
            return Err(cx.stop(verdict));
        }
        time::charge(cx, LATENCY);
        irql::settle(cx)?;
    }
}

fn storm(k: &Kernel, line: u32, unclaimed: bool) -> Verdict {
    let chain = k.ke.interrupts.chain(line);
    let devices = k.hal.hardware.asserting(line).join(", ");
    let what = if unclaimed {
        format!("none of its {} service routine(s) claimed it in {UNCLAIMED_PASSES} passes", chain.len())
    } else {
        format!("it stays asserted though it was claimed {CLAIMED_PASSES} times")
    };
    let message = format!("interrupt storm on line {line}, asserted by {devices}: {what}");
    let verdict = Verdict::error("interrupt-storm", message);
    let Some(first) = chain.first() else { return verdict };
    let connection = &k.ke.interrupts.objects[first];
    let chained = if chain.len() > 1 { 2 } else { 1 };
    verdict.bug_check(0xF2, [connection.routine, connection.context, *first, chained])
}

/// One pass: each routine in the order of connection; a level-sensitive line's ends at the first that claims.
fn call_chain(cx: &mut Cx<'_>, line: u32) -> Flow<bool> {
    let mut claimed = false;
    for object in cx.with(|k| k.ke.interrupts.chain(line)) {
        let connection = cx.with(|k| k.ke.interrupts.objects.get(&object).copied());
        let Some(connection) = connection else { continue };
        if call_routine(cx, object, &connection)? {
            claimed = true;
            if !connection.latched {
                break;
            }
        }
    }
    Ok(claimed)
}

fn call_routine(cx: &mut Cx<'_>, object: u64, connection: &Connection) -> Flow<bool> {
    let level = irql::current(cx);
    let lock = SpinLock::new(connection.spin_lock);
    irql::set(cx, connection.synchronize_irql);
    spinlock::spin(cx, lock, 1)?;
    let base = cx.with(|k| {
        k.ke.interrupts.running.push(object);
        k.ke.processor().interrupt_stack
    });
    let call = Callout {
        role: "Isr",
        routine: DriverPtr::new(connection.routine),
        object,
        floor: connection.synchronize_irql,
    };
    let arguments = [object, connection.context];
    let result = stack::on(cx, base, |cx| callout::asynchronous(cx, &call, &arguments));
    cx.with(|k| k.ke.interrupts.running.retain(|running| *running != object));
    let claimed = result? & 0xFF != 0;
    spinlock::give_back(cx, lock, 1, "the interrupt's end")?;
    irql::set(cx, level);
    cx.emit(Event::Interrupt { vector: connection.vector, object, claimed });
    Ok(claimed)
}

// ---- synchronisation with the service routine ----

fn connection(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>, what: &str) -> Flow<Connection> {
    match cx.with(|k| k.ke.interrupts.objects.get(&object.address).copied()) {
        Some(connection) => Ok(connection),
        None => Err(not_connected(cx, object, what)),
    }
}

/// `KeAcquireInterruptSpinLock`: raises to the synchronize level and acquires; returns the old level.
///
/// # Errors
/// A verdict if the object is not connected or the level is higher already; as [`spinlock::spin`].
pub fn acquire_spin_lock(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>) -> Flow<u8> {
    let connection = connection(cx, object, "KeAcquireInterruptSpinLock")?;
    let old = irql::raise(cx, connection.synchronize_irql)?;
    spinlock::spin(cx, SpinLock::new(connection.spin_lock), 1)?;
    Ok(old)
}

/// `KeReleaseInterruptSpinLock`.
///
/// # Errors
/// A verdict if the object is not connected or its lock not held; whatever the lower level lets in.
pub fn release_spin_lock(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>, level: u8) -> Flow<()> {
    const NAME: &str = "KeReleaseInterruptSpinLock";
    let connection = connection(cx, object, NAME)?;
    spinlock::give_back(cx, SpinLock::new(connection.spin_lock), 1, NAME)?;
    irql::lower(cx, level)
}

/// `KeSynchronizeExecution`: calls the routine at the synchronize level with the interrupt's lock; returns its answer.
///
/// # Errors
/// As [`acquire_spin_lock`] and [`callout::call_routine`].
pub fn synchronize(
    cx: &mut Cx<'_>,
    object: DriverPtr<KINTERRUPT>,
    routine: DriverPtr<abi::Code>,
    context: u64,
) -> Flow<bool> {
    let connection = connection(cx, object, "KeSynchronizeExecution")?;
    let old = irql::raise(cx, connection.synchronize_irql)?;
    let lock = SpinLock::new(connection.spin_lock);
    spinlock::spin(cx, lock, 1)?;
    cx.with(|k| k.ke.processor_mut().floors.push(connection.synchronize_irql));
    let answer = callout::call_routine(cx, "SynchCritSection", routine, object.address, &[context]);
    cx.with(|k| k.ke.processor_mut().floors.pop());
    let answer = answer? & 0xFF != 0;
    spinlock::give_back(cx, lock, 1, "KeSynchronizeExecution")?;
    irql::lower(cx, old)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(line: u32) -> Connection {
        Connection {
            routine: 0x1000,
            context: 0,
            spin_lock: 0,
            vector: vector_of_line(line),
            irql: irql_of_line(line),
            synchronize_irql: irql_of_line(line),
            latched: false,
            shared: true,
            affinity: 1,
        }
    }

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

    #[test]
    fn a_line_is_shared_only_by_those_who_all_say_so_and_agree_on_the_mode() {
        let mut interrupts = Interrupts::default();
        interrupts.objects.insert(0x10, connection(5));
        interrupts.chains.insert(5, vec![0x10]);
        assert!(interrupts.accepts(5, &connection(5)));
        assert!(!interrupts.accepts(5, &Connection { shared: false, ..connection(5) }));
        assert!(!interrupts.accepts(5, &Connection { latched: true, ..connection(5) }));
        assert!(interrupts.accepts(6, &Connection { shared: false, ..connection(6) }));
        interrupts.objects.insert(0x10, Connection { shared: false, ..connection(5) });
        assert!(!interrupts.accepts(5, &connection(5)), "the first one did not share");
    }

    #[test]
    fn a_level_wants_service_while_it_is_asserted_and_an_edge_once() {
        let mut interrupts = Interrupts::default();
        interrupts.objects.insert(0x10, connection(5));
        interrupts.objects.insert(0x20, Connection { latched: true, ..connection(6) });
        interrupts.chains.insert(5, vec![0x10]);
        interrupts.chains.insert(6, vec![0x20]);
        interrupts.update_masks();
        interrupts.levels = 1 << 5 | 1 << 6 | 1 << 7;
        assert_eq!(interrupts.wanting(), 1 << 5, "nobody is connected to 7, and 6 has had no edge");
        interrupts.edges = 1 << 6;
        assert_eq!(interrupts.wanting(), 1 << 5 | 1 << 6);
        interrupts.in_service = 1 << 5;
        assert_eq!(interrupts.wanting(), 1 << 6);
    }
}
