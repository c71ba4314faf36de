//! How long accesses through the local address spaces take, with `lclk=`: what LASxBRD says of the local bus, in its clocks.
//!
//! A transaction is an address cycle of one clock and data phases of one clock each, with NRAD (a write: NWAD) wait states in front of the first
//! one, NRDD (NWDD) in front of each other one of a burst, and NXDA before the next address cycle. An access that is wider than the local bus
//! has several data phases: with burst enabled in one transaction, else each in one of its own; I/O space does not burst. Where READY# is
//! enabled a data phase has at least the wait states that the board asks for (`ready=`), and one to a register
//! of a board's sheet that `takes` time lasts so much longer; where it is not the chip does not look.
//!
//! No public source at hand says all of it. Decided here:
//! - The write FIFO holds 16 Lwords (64 bytes). A write to memory takes the processor nothing while there is room, and the time until there is
//!   room otherwise. A write to I/O space, which PCI does not post, takes until its data is on the local bus.
//! - A read waits until what was written before it, and what was prefetched, is through. It ends with its own data.
//! - Prefetch: bits 4:3 are 0, 4, 8 or 16 Lwords, bit 5 says that they count; without it a prefetch ends with the read on PCI, which is at
//!   once. Lwords behind the read's own keep the local bus busy, and are thrown away: read-ahead (CNTRL bit 16) is not modelled.
//! - A write's effect is there when the access begins, and a read's value is what is there then: only time differs. Accesses do not wait for
//!   an edge of the clock; a fraction of a nanosecond counts as one.
//!
//! Not modelled: BTERM#, strobes and hold (bits 31:26), retries on PCI and their delay (CNTRL 22:19), which show as one wait.

use std::collections::VecDeque;

use super::fields::Descriptor;

/// Lwords in the write FIFO.
const FIFO: usize = 16;
/// The fastest and the slowest local clock, in ps a clock: 40 MHz and 1 kHz.
const PERIODS: std::ops::RangeInclusive<u64> = 25_000..=1_000_000_000;

/// What `lclk=` accepts, for messages.
pub(super) const CLOCK: &str = "a local clock of at most 40MHz, e.g. 33MHz, 8250kHz or 40ns a clock";

/// The local bus as time passes on it.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    clock: Clock,
    /// When the next address cycle can be, ns.
    free_at: u64,
    /// When each Lword that is in the write FIFO leaves it, ns; in their order.
    writes: VecDeque<u64>,
}

/// What the user chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Clock {
    /// Picoseconds.
    pub(super) period: u64,
    /// Wait states that the board asks for by READY#.
    pub(super) ready: u64,
}

/// An access, as far as its time depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    pub(super) now: u64,
    /// On the local bus.
    pub(super) address: u32,
    /// 1–8.
    pub(super) bytes: u64,
    pub(super) write: bool,
    /// To I/O space.
    pub(super) port: bool,
    /// How long its registers hold READY# back in all, ns.
    pub(super) held: u64,
}

/// Clocks on the local bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Clocks {
    /// From the address cycle to the end of the last data phase of the access.
    access: u64,
    /// From there to the next address cycle.
    behind: u64,
}

impl Timing {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, free_at: 0, writes: VecDeque::with_capacity(FIFO) }
    }

    /// Nothing is on the bus, nothing in the FIFO.
    pub(super) fn reset(&mut self) {
        let Self { clock: _, free_at, writes } = self;
        *free_at = 0;
        writes.clear();
    }

    /// How long the processor waits for an access to a space with this descriptor, ns.
    pub(super) fn takes(&mut self, descriptor: Descriptor, access: &Timed) -> u64 {
        let clocks = Clocks::of(descriptor, access, self.clock.ready);
        let taken_at = if access.write && !access.port { self.room(access) } else { access.now };
        let held = if descriptor.is(Descriptor::READY) { access.held } else { 0 };
        let begun = taken_at.max(self.free_at);
        let done = begun.saturating_add(self.nanoseconds(clocks.access)).saturating_add(held);
        self.free_at = done.saturating_add(self.nanoseconds(clocks.behind));
        if access.write && !access.port {
            self.writes.extend((0..access.words(4)).map(|_| done));
            return taken_at - access.now;
        }
        done - access.now
    }

    /// When the write FIFO has room for a write.
    fn room(&mut self, access: &Timed) -> u64 {
        while self.writes.front().is_some_and(|left| *left <= access.now) {
            self.writes.pop_front();
        }
        let lacking = (self.writes.len() + low(access.words(4))).saturating_sub(FIFO);
        self.writes.drain(..lacking).next_back().unwrap_or(access.now)
    }

    fn nanoseconds(&self, clocks: u64) -> u64 {
        clocks.saturating_mul(self.clock.period).div_ceil(1_000)
    }
}

/// At most 8: what an access has of anything.
const fn low(few: u64) -> usize {
    (few & 0xF) as usize
}

impl Timed {
    /// How many words of so many bytes it touches.
    fn words(&self, bytes: u64) -> u64 {
        let first = u64::from(self.address);
        (first + self.bytes - 1) / bytes - first / bytes + 1
    }
}

impl Clocks {
    fn of(descriptor: Descriptor, access: &Timed, ready: u64) -> Self {
        let get = |field| u64::from(descriptor.get(field));
        let (first, next) = if access.write {
            (get(Descriptor::NWAD), get(Descriptor::NWDD))
        } else {
            (get(Descriptor::NRAD), get(Descriptor::NRDD))
        };
        let ready = if descriptor.is(Descriptor::READY) { ready } else { 0 };
        let (first, next) = (2 + first.max(ready), 1 + next.max(ready));
        let recovery = get(Descriptor::NXDA);
        let further = if descriptor.is(Descriptor::BURST) && !access.port { next } else { recovery + first };
        let width = bus_bytes(descriptor);
        let words = access.words(width);
        let prefetched = (prefetch_bytes(descriptor, access) / width).saturating_sub(words);
        Self { access: first + (words - 1) * further, behind: prefetched * further + recovery }
    }
}

/// Bytes of the local bus; what is reserved is taken for 32 bits.
fn bus_bytes(descriptor: Descriptor) -> u64 {
    1 << descriptor.get(Descriptor::BUS_WIDTH).min(2)
}

/// How many bytes the chip reads for a read, if it is more than the read asks for.
fn prefetch_bytes(descriptor: Descriptor, access: &Timed) -> u64 {
    let count = descriptor.get(Descriptor::PREFETCH);
    if access.write || access.port || count == 0 || !descriptor.is(Descriptor::PREFETCH_COUNTS) {
        return 0;
    }
    8 << count
}

/// The period of a local clock, in ps: `33MHz`, `8250kHz`, or a time.
pub(super) fn period(text: &str) -> Option<u64> {
    let number = |digits: &str| digits.trim().parse::<u64>().ok().filter(|number| *number > 0);
    let of = |frequency: u64, one: u64| (one + frequency / 2) / frequency;
    let period = if let Some(digits) = text.strip_suffix("MHz") {
        of(number(digits)?, 1_000_000)
    } else if let Some(digits) = text.strip_suffix("kHz") {
        of(number(digits)?, 1_000_000_000)
    } else if let Some(digits) = text.strip_suffix("us") {
        number(digits)?.checked_mul(1_000_000)?
    } else {
        number(text.strip_suffix("ns")?)?.checked_mul(1_000)?
    };
    Some(period).filter(|period| PERIODS.contains(period))
}
