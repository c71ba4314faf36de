//! Interrupt lines: their levels, and the service routines that are called for them. Follows *Servicing Interrupts*,
//! *KSERVICE_ROUTINE callback function*, *Bug Check 0xF2 HARDWARE_INTERRUPT_STORM*.
//!
//! A line is served while it is asserted, or at its rising edge if it was connected as latched. A line without a
//! connected routine stays pending. Who is connected is decided in `interrupt`.

use std::collections::BTreeSet;
use std::rc::Rc;

use abi::DriverPtr;
use engine::Flow;

use super::interrupt::{Connection, irql_of_line, line_of_vector, vector_of_line};
use super::message::{self, Messages};
use super::passive_isr::{self, Servers};
use super::vectors::{Vectors, irql_of_vector};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind, Role};
use crate::hal::hardware::Question;
use crate::hal::pulled;
use crate::ke::calls::callout::{self, Begun, Callout};
use crate::ke::levels::irql;
use crate::ke::sched::spinlock::{self, SpinLock};
use crate::ke::sched::{history, slice};
use crate::ldr;
use crate::mm::bus_master;
use crate::sorted_map::SortedMap;
use crate::verdict::Verdict;
use crate::witness;

/// So many passes in a row that no routine claims, with the line still asserted, are a storm; and so many that routines claim while none of their cards does.
const UNCLAIMED_PASSES: u32 = 1_000;
/// So many passes without the line ever falling are one, even if routines claim them; and so many messages in a row.
pub(super) const CLAIMED_PASSES: u32 = 20_000;
/// What taking an interrupt costs, in nanoseconds.
pub(crate) const LATENCY: u64 = 200;

/// The lines and messages, and who is connected to them. Bit n of a mask is line n.
#[derive(Default)]
pub(crate) struct Interrupts {
    pub(crate) objects: SortedMap<u64, Connection>,
    /// Interrupt objects in the order they were connected, by vector.
    pub(crate) chains: SortedMap<u32, Rc<[u64]>>,
    /// Levels as they were seen last.
    levels: u64,
    /// Rising edges that were not served yet.
    edges: u64,
    /// Lines with level-sensitive and with latched connections.
    level_sensitive: u64,
    latched: u64,
    /// The processors that may serve each line, by line; none before the first connection.
    affinities: Vec<u64>,
    /// Lines that are being served, by a processor or a thread: they wait for the end of it.
    in_service: u64,
    /// Service routines that run now, or wait for their lock to run: once for each processor.
    pub(crate) running: Vec<u64>,
    /// What came by messages.
    pub(crate) messages: Messages,
    /// Objects whose routine is not to be called now.
    pub(crate) inactive: BTreeSet<u64>,
    /// What calls routines at PASSIVE_LEVEL.
    pub(crate) servers: Servers,
}

impl Interrupts {
    /// A service routine that was to run has returned. Another processor may wait for the lock to run it, too.
    pub(super) fn has_run(&mut self, object: u64) {
        if let Some(at) = self.running.iter().rposition(|running| *running == object) {
            self.running.remove(at);
        }
    }

    /// The lines that want service.
    #[inline]
    pub(in crate::ke) fn wanting(&self) -> u64 {
        ((self.levels & self.level_sensitive) | (self.edges & self.latched)) & !self.in_service
    }

    /// Whether any vector may want service.
    #[inline]
    pub(in crate::ke) fn is_any_wanted(&self) -> bool {
        self.wanting() != 0 || !self.messages.pending.is_empty()
    }

    /// The highest vector that wants service and may have it by a processor of `mask`, above `level`.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a few comparisons, of which each processor is asked at each timer"
    )]
    pub(crate) fn highest(&self, mask: u64, level: u8) -> Option<u32> {
        if self.is_any_wanted() { self.find(mask, level) } else { None }
    }

    fn find(&self, mask: u64, level: u8) -> Option<u32> {
        let (mut lines, mut best) = (self.wanting(), None);
        while lines != 0 {
            let line = lines.trailing_zeros();
            lines &= lines - 1;
            let vector = vector_of_line(line);
            if irql_of_line(line) > level && self.affinities[line as usize] & mask != 0 {
                best = best.max(Some(vector));
            }
        }
        if !self.messages.pending.is_empty() {
            let possible = |vector: &u32| irql_of_vector(*vector) > level && self.allows(*vector, mask);
            best = best.max(self.messages.wanting().find(possible));
        }
        best
    }

    pub(super) fn update_masks(&mut self) {
        (self.level_sensitive, self.latched) = (0, 0);
        self.messages.connected = Vectors::default();
        self.affinities.clear();
        self.affinities.resize(64, 0);
        for (&vector, chain) in self.chains.iter() {
            let Some(first) = chain.iter().find(|object| !self.inactive.contains(object)) else { continue };
            let Some(line) = line_of_vector(vector) else {
                self.messages.connected.insert(vector);
                continue;
            };
            let affinities = self.connections(vector).map(|connection| connection.affinity);
            self.affinities[line as usize] = affinities.fold(0, std::ops::BitOr::bitor);
            if self.objects.get(first).is_some_and(|first| first.latched) {
                self.latched |= 1 << line;
            } else {
                self.level_sensitive |= 1 << line;
            }
        }
    }

    /// The objects of a vector; the caller keeps the list as it was while it calls their routines.
    pub(crate) fn chain(&self, vector: u32) -> Option<Rc<[u64]>> {
        self.chains.get(&vector).cloned()
    }

    /// The objects of a vector whose routines are to be called now, in the order they were connected.
    pub(super) fn active_on(&self, vector: u32) -> impl Iterator<Item = (u64, Connection)> {
        let active = self.objects_of(vector).iter().filter(|object| !self.inactive.contains(object));
        active.filter_map(|object| Some((*object, *self.objects.get(object)?)))
    }

    fn objects_of(&self, vector: u32) -> &[u64] {
        self.chains.get(&vector).map_or(&[], |chain| &**chain)
    }

    fn connections(&self, vector: u32) -> impl Iterator<Item = &Connection> {
        self.objects_of(vector).iter().filter_map(|object| self.objects.get(object))
    }

    pub(crate) fn allows(&self, vector: u32, processor: u64) -> bool {
        self.connections(vector).any(|connection| connection.affinity & processor != 0)
    }

    /// Whether a further connection to a vector can live with those there are.
    pub(crate) fn accepts(&self, new: &Connection) -> bool {
        self.objects_of(new.vector).is_empty()
            || (new.shared
                && self.connections(new.vector).all(|old| old.shared && old.latched == new.latched))
    }
}

/// Lets the hardware catch up with the time, and looks at its lines and messages.
#[inline]
pub(crate) fn observe(cx: &mut Cx<'_>) {
    if !cx.with(|k| is_unchanged(k)) {
        look(cx);
    }
}

/// Whether [`look`] would find all as it was seen last.
#[inline]
fn is_unchanged(k: &Kernel) -> bool {
    is_unchanged_before(k, k.engine.now() + 1)
}

/// As [`is_unchanged`], and nothing comes by itself before `until`.
#[inline]
pub(in crate::ke) fn is_unchanged_before(k: &Kernel, until: u64) -> bool {
    k.hal.transfers.is_empty() && k.hal.is_quiet(k.ke.irq.interrupts.levels, until)
}

/// What devices leave open is decided.
#[cold]
fn answer_devices(cx: &mut Cx<'_>) {
    while let Some(Question { point, answers }) = cx.with(|k| k.hal.hardware.question()) {
        let answer = cx.choose(point, answers);
        cx.with(|k| k.hal.hardware.answer(answer));
    }
}

fn look(cx: &mut Cx<'_>) {
    // An answer that arrives at a device may raise the next question.
    while cx.with(|k| k.hal.hardware.question().is_some()) {
        answer_devices(cx);
        cx.with(|k| k.hardware(k.engine.now(), |hardware, at| hardware.advance(at)));
    }
    let (before, now, more) = cx.with(|k| {
        k.hardware(k.engine.now(), |hardware, at| hardware.advance(at));
        let now = k.hal.hardware.lines();
        let wanted = k.ke.irq.interrupts.wanting();
        let before = std::mem::replace(&mut k.ke.irq.interrupts.levels, now);
        k.ke.irq.interrupts.edges |= now & !before;
        if now != before && k.ke.processors.len() > 1 {
            // Another one may wait for its turn now.
            k.ke.rearm();
        } else {
            wait(k, k.ke.irq.interrupts.wanting() & !wanted);
        }
        (before, now, !k.hal.transfers.is_empty() || k.hal.hardware.has_messages())
    });
    if more || now != before {
        cx.with(|k| history::reads_clock(k));
    }
    // Events of transfers come before the interrupt that signals them.
    if more {
        bus_master::tell(cx);
    }
    let mut changed = before ^ now;
    while changed != 0 {
        let line = changed.trailing_zeros();
        changed &= changed - 1;
        if cx.count_event(Kind::Line) {
            cx.emit(Event::Line { line, asserted: now & 1 << line != 0 });
        }
    }
    if more && cx.with(|k| k.hal.hardware.has_messages()) {
        for message in cx.with(|k| k.hal.hardware.take_messages()) {
            message::arrive(cx, message);
        }
    }
}

/// These lines want service from now on.
#[inline]
fn wait(k: &mut Kernel, mut lines: u64) {
    while lines != 0 {
        k.ke.raise_pending(irql_of_line(lines.trailing_zeros()));
        lines &= lines - 1;
    }
}

/// Whether there is nothing to do after an access: as [`Kernel::is_nothing_pending`], and the lines are as [`observe`] saw them
/// last. The hardware is asked once for both.
#[inline]
pub(crate) fn nothing_came(k: &Kernel) -> bool {
    let until = k.ke.sched.slice_end();
    !k.ke.may_pend_at(k.level())
        && k.engine.now() < until
        && k.ke.timing.timers().deadline().is_none_or(|deadline| deadline >= until)
        && k.hal.transfers.is_empty()
        && k.hal.is_quiet(k.ke.irq.interrupts.levels, until)
}

/// After a device was accessed or time has passed: what the hardware asks for and the level allows happens now.
///
/// # Errors
/// [`engine::Leave`] of what was let in.
pub fn deliver(cx: &mut Cx<'_>) -> Flow<()> {
    observe(cx);
    irql::settle(cx)
}

/// The vector that processor `index` would be interrupted by now: the highest level first.
pub(in crate::ke) fn deliverable(k: &Kernel, index: usize) -> Option<u32> {
    k.ke.irq.interrupts.highest(k.ke.processors[index].mask(), k.level_of(index))
}

/// The current processor takes the interrupt of `vector`.
pub(crate) fn service(cx: &mut Cx<'_>, vector: u32) -> Flow<()> {
    match line_of_vector(vector) {
        Some(line) => service_line(cx, line),
        None => message::service(cx, vector),
    }
}

fn service_line(cx: &mut Cx<'_>, line: u32) -> Flow<()> {
    let (vector, level) = (vector_of_line(line), irql_of_line(line));
    let old = cx.with(|k| {
        k.ke.irq.interrupts.in_service |= 1 << line;
        k.ke.irq.interrupts.edges &= !(1 << line);
        k.set_level(k.ke.current, level)
    });
    irql::tell(cx, old, level);
    slice::charge(cx, LATENCY);
    let result = match passes(cx, line, old) {
        Ok(Left::Nothing) => {
            irql::tell(cx, level, old);
            return Ok(());
        }
        Ok(Left::ToTheThread) => passive_isr::hand_over(cx, vector),
        Err(leave) => Err(leave),
    };
    irql::set(cx, old);
    result
}

/// The interrupt of `vector` has been served, and may come again.
pub(in crate::ke) fn unmask(k: &mut Kernel, vector: u32) {
    match line_of_vector(vector) {
        Some(line) => {
            k.ke.irq.interrupts.in_service &= !(1 << line);
            wait(k, k.ke.irq.interrupts.wanting() & 1 << line);
        }
        None => {
            k.ke.irq.interrupts.messages.served(vector);
            k.ke.invalidate_levels();
        }
    }
}

/// Whether a line is asserted, as it was seen last; a message never is.
pub(super) fn is_asserted(k: &Kernel, vector: u32) -> bool {
    line_of_vector(vector).is_some_and(|line| k.ke.irq.interrupts.levels & 1 << line != 0)
}

/// Whether only cards of other drivers assert a line.
pub(super) fn is_only_of_others(k: &Kernel, vector: u32) -> bool {
    line_of_vector(vector).is_some_and(|line| k.hal.hardware.is_only_of_others(line))
}

/// What passes have left.
enum Left {
    /// Nothing: the line may interrupt again, and the level is what it was.
    Nothing,
    /// Routines that run at PASSIVE_LEVEL.
    ToTheThread,
}

/// Passes without the line ever falling.
#[derive(Clone, Copy, Default)]
pub(in crate::ke) struct Passes {
    /// Passes in a row that no routine claimed.
    unclaimed: u32,
    claimed: u32,
    /// Passes in a row that a routine claimed though no card asserted the line then but those of other drivers.
    for_others: u32,
}

impl Passes {
    /// One behind which the line is still asserted; only by cards of other drivers, or not.
    pub(in crate::ke) fn count(&mut self, claimed: bool, only_of_others: bool) {
        (self.unclaimed, self.claimed) =
            if claimed { (0, self.claimed + 1) } else { (self.unclaimed + 1, self.claimed) };
        self.for_others = if claimed && only_of_others { self.for_others + 1 } else { 0 };
    }

    pub(super) fn are_a_storm(self) -> bool {
        self.unclaimed >= UNCLAIMED_PASSES || self.are_for_others() || self.claimed >= CLAIMED_PASSES
    }

    fn are_for_others(self) -> bool {
        self.for_others >= UNCLAIMED_PASSES
    }
}

/// Calls the chain until the line wants no more, and sets the level to `old` then; or only routines on a thread are left to be called.
fn passes(cx: &mut Cx<'_>, line: u32, old: u8) -> Flow<Left> {
    let vector = vector_of_line(line);
    let mut passes = Passes::default();
    loop {
        let writes = cx.with(|k| k.register_writes());
        let claimed = call_chain(cx, vector)?;
        if claimed && cx.with(|k| is_unchanged(k) && ends_claimed(k, line, old)) {
            return Ok(Left::Nothing);
        }
        let by_thread = cx.with(|k| {
            let latched = k.ke.irq.interrupts.latched & 1 << line != 0;
            (!claimed || latched) && passive_isr::serves(k, vector)
        });
        if by_thread {
            return Ok(Left::ToTheThread);
        }
        leave_to_others(cx, vector, claimed);
        observe(cx);
        if cx.with(|k| ends(k, line, old)) {
            if !claimed {
                judge_unclaimed(cx, line, writes);
            }
            return Ok(Left::Nothing);
        }
        passes.count(claimed, cx.with(|k| k.hal.hardware.is_only_of_others(line)));
        if passes.are_a_storm() {
            let verdict = cx.with(|k| storm(k, vector, passes));
            return Err(cx.stop(verdict));
        }
        slice::charge(cx, LATENCY);
        irql::settle(cx)?;
    }
}

/// A pass over the routines of a vector has ended; those of other drivers come behind them, unless one has claimed a level.
pub(super) fn leave_to_others(cx: &mut Cx<'_>, vector: u32, claimed: bool) {
    let Some(line) = line_of_vector(vector) else { return };
    cx.with(|k| {
        if !claimed || k.ke.irq.interrupts.latched & 1 << line != 0 {
            k.hal.hardware.left_unclaimed(line);
        }
    });
}

/// A line has ended that no routine claimed. Where there is one routine, nothing else runs, it has written to a device since there were so many
/// `writes`, and no card of the line ends its interrupts by itself, it was the routine that ended it.
#[cold]
fn judge_unclaimed(cx: &mut Cx<'_>, line: u32, writes: u64) {
    let vector = vector_of_line(line);
    let only = cx.with(|k| {
        let objects = k.ke.irq.interrupts.objects_of(vector);
        let is_its_own = k.register_writes() > writes
            && k.ke.processors.len() == 1
            && !k.hal.hardware.ends_by_itself(line);
        let object = objects.first().filter(|_| objects.len() == 1 && is_its_own)?;
        k.ke.irq.interrupts.objects.get(object).copied().filter(|connection| !connection.latched)
    });
    let Some(connection) = only else { return };
    let routine = ldr::stack::line_of(cx, connection.routine);
    let message = format!(
        "the service routine {} has returned FALSE, and line {line} fell by what it had written to its device: the interrupt was its own, and \
         Windows counts it as one that nothing claims",
        routine.symbol
    );
    // What was interrupted has nothing to do with it.
    cx.report(Verdict { stack: vec![routine], ..Verdict::warning("interrupt-not-claimed", message) });
}

/// As [`ends`], of a line that a routine has claimed: if nothing is left for one on a thread.
#[inline]
fn ends_claimed(k: &mut Kernel, line: u32, old: u8) -> bool {
    k.ke.irq.interrupts.latched & 1 << line == 0 && ends(k, line, old)
}

/// Whether the line wants no more. Then its interrupt is over.
#[inline]
fn ends(k: &mut Kernel, line: u32, old: u8) -> bool {
    let interrupts = &mut k.ke.irq.interrupts;
    let wanting = (interrupts.levels & interrupts.level_sensitive) | (interrupts.edges & interrupts.latched);
    interrupts.edges &= !(1 << line);
    let over = wanting & 1 << line == 0;
    if over {
        unmask(k, vector_of_line(line));
        k.set_level(k.ke.current, old);
    }
    over
}

pub(in crate::ke) fn storm(k: &Kernel, vector: u32, passes: Passes) -> Verdict {
    let chain = k.ke.irq.interrupts.objects_of(vector);
    let line = line_of_vector(vector).unwrap_or_default();
    let devices = k.hal.hardware.asserting(line).join(", ");
    let what = if passes.unclaimed != 0 {
        format!("none of its {} service routine(s) claimed it in {UNCLAIMED_PASSES} passes", chain.len())
    } else if passes.are_for_others() {
        format!(
            "it was claimed {UNCLAIMED_PASSES} times for cards that do not interrupt, so that the routine of the one that does, which comes behind \
             theirs on the line, is never called"
        )
    } else {
        format!("it stays asserted though it was claimed {CLAIMED_PASSES} times")
    };
    let message = format!("interrupt storm on line {line}, asserted by {devices}: {what}");
    let verdict = Verdict { by_hardware: true, ..Verdict::error("interrupt-storm", message) };
    let Some(first) = chain.first() else { return verdict };
    let Some(connection) = k.ke.irq.interrupts.objects.get(first) else { return verdict };
    let chained = if chain.len() > 1 { 2 } else { 1 };
    // Which of several cards it is, and on which line, does not count.
    let identity = Some(format!("{:#x} claims it: {}", connection.routine, passes.unclaimed == 0));
    let verdict = Verdict { identity, ..verdict };
    verdict.bug_check(0xF2, [connection.routine, connection.context, *first, chained])
}

/// One pass: each routine that runs at a level, in the order of connection; a level-sensitive line's ends at the first that claims.
pub(super) fn call_chain(cx: &mut Cx<'_>, vector: u32) -> Flow<bool> {
    let chain = cx.with(|k| {
        let chain = k.ke.irq.interrupts.chains.get(&vector)?;
        Some(match **chain {
            [only] => Chain::Only(only, callable(k, only)),
            _ => Chain::Many(chain.clone()),
        })
    });
    match chain {
        None | Some(Chain::Only(_, None)) => Ok(false),
        Some(Chain::Only(object, Some(connection))) => call_routine(cx, object, &connection),
        Some(Chain::Many(chain)) => call_in_turn(cx, &chain),
    }
}

/// The objects of a vector.
enum Chain {
    /// One, and its connection if its routine is to be called.
    Only(u64, Option<Connection>),
    Many(Rc<[u64]>),
}

/// The connection of an object whose routine is to be called now, at a level.
#[inline]
fn callable(k: &Kernel, object: u64) -> Option<Connection> {
    let interrupts = &k.ke.irq.interrupts;
    let connection = interrupts.objects.get(&object).copied()?;
    let is_active = interrupts.inactive.is_empty() || !interrupts.inactive.contains(&object);
    (!connection.is_passive() && is_active).then_some(connection)
}

fn call_in_turn(cx: &mut Cx<'_>, chain: &[u64]) -> Flow<bool> {
    let mut claimed = false;
    for &object in chain {
        let Some(connection) = cx.with(|k| callable(k, object)) else { continue };
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
    let (lock, floor) = (SpinLock::new(connection.lock), connection.synchronize_irql);
    let call = Callout { role: Role::Isr, routine: DriverPtr::new(connection.routine), object, floor };
    let (moment, place) = (witness::plain_moment(cx), cx.engine().caller_rip());
    let (now, depth) = (cx.engine().now(), cx.engine().depth());
    let reads = cx.with(|k| pulled::reads(k));
    let mut begun = Begun::default();
    let mut begin = |k: &mut Kernel, now| {
        let base = k.ke.processor().interrupt_stack;
        callout::begin(k, &mut begun, &call, base, (now, depth));
    };
    let (level, taken) = cx.with(|k| {
        let level = k.set_level(k.ke.current, floor);
        // While this processor waits for the lock, too: the object must not go meanwhile.
        k.ke.irq.interrupts.running.push(object);
        let taken = moment.is_some_and(|moment| spinlock::take_free(k, lock, place, moment));
        if taken {
            begin(k, now);
        }
        (level, taken)
    });
    irql::tell(cx, level, floor);
    if !taken {
        spinlock::spin(cx, lock, 1)?;
        let now = cx.engine().now();
        cx.with(|k| begin(k, now));
    }
    let (all, count) = connection.arguments(object);
    let (result, given_back) = callout::called(cx, &call, &mut begun, &all[..count], |k, went_well| {
        k.ke.irq.interrupts.has_run(object);
        let given_back = went_well && spinlock::give_back_plainly(k, lock);
        if given_back {
            k.set_level(k.ke.current, level);
        }
        given_back
    });
    let claimed = result? & 0xFF != 0;
    if let Some(before) = reads.filter(|_| claimed && !connection.latched) {
        pulled::judge_claimed(cx, before, connection.routine);
    }
    if given_back {
        irql::tell(cx, floor, level);
    } else {
        spinlock::give_back(cx, lock, 1, "the interrupt's end")?;
        irql::set(cx, level);
    }
    if cx.count_event(Kind::Interrupt) {
        cx.emit(Event::Interrupt { vector: connection.vector, object, claimed });
    }
    Ok(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(line: u32) -> Connection {
        Connection {
            routine: 0x1000,
            context: 0,
            lock: 0,
            vector: vector_of_line(line),
            irql: irql_of_line(line),
            synchronize_irql: irql_of_line(line),
            latched: false,
            shared: true,
            affinity: 1,
            message: None,
        }
    }

    /// Holds: interrupts/full-share
    #[test]
    fn a_line_is_shared_only_by_those_who_all_say_so_and_agree_on_the_mode() {
        let mut interrupts = Interrupts::default();
        interrupts.objects.insert(0x10, connection(5));
        interrupts.chains.insert(vector_of_line(5), [0x10].into());
        assert!(interrupts.accepts(&connection(5)));
        assert!(!interrupts.accepts(&Connection { shared: false, ..connection(5) }));
        assert!(!interrupts.accepts(&Connection { latched: true, ..connection(5) }));
        assert!(interrupts.accepts(&Connection { shared: false, ..connection(6) }));
        interrupts.objects.insert(0x10, Connection { shared: false, ..connection(5) });
        assert!(!interrupts.accepts(&connection(5)), "the first one did not share");
    }

    /// Holds: interrupts/full-mode
    #[test]
    fn a_level_wants_service_while_it_is_asserted_and_an_edge_once() {
        let mut interrupts = Interrupts::default();
        interrupts.objects.insert(0x10, connection(5));
        interrupts.objects.insert(0x20, Connection { latched: true, ..connection(6) });
        interrupts.chains.insert(vector_of_line(5), [0x10].into());
        interrupts.chains.insert(vector_of_line(6), [0x20].into());
        interrupts.update_masks();
        interrupts.levels = 1 << 5 | 1 << 6 | 1 << 7;
        assert_eq!(interrupts.wanting(), 1 << 5, "no routine is connected to 7, and 6 has had no edge");
        interrupts.edges = 1 << 6;
        assert_eq!(interrupts.wanting(), 1 << 5 | 1 << 6);
        interrupts.in_service = 1 << 5;
        assert_eq!(interrupts.wanting(), 1 << 6);
    }
}
