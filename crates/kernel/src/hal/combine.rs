//! Write combining: what a processor keeps of stores to device memory that is mapped so (`MmWriteCombined`), until it sends them.
//!
//! Pages: *MEMORY_CACHING_TYPE enumeration*, *MmMapIoSpace function*; Intel SDM volume 3A, *Buffering of Write Combining Memory Locations* and
//! *Methods of Caching Available*; AMD64 Software Optimization Guide, *Write-Combining Completion Events*. What device memory is mapped as `MmCached` is
//! not cached: the MTRRs of a PC say that it is uncacheable, and with that its effective type is so, whatever the page table says.
//!
//! A processor has eight buffers of 64 bytes, as Intel's optimization manual counts them from Nehalem on (the architecture leaves it open). Stores
//! to one line are merged: of two to one byte the device sees the later. A line that is written full is sent at once, and one must go where all buffers
//! are in use. All go before an access to uncached device memory or a port, a load from combined memory, `sfence`, `mfence`, an interlocked or a serializing instruction,
//! an interrupt and its end, a call of the kernel and the return to it, except calls that surely have no such instruction (`keeps`).
//! If none of these comes, the clock's interrupt sends them: at the next tick, or at once where a loop is found to wait for memory to change.
//!
//! What the architecture leaves open is chosen: whether a line goes earlier (`bus.evicted`: one that is begun while another is open, and one of which a
//! byte is overwritten; by default it stays), which line goes first (`bus.order`: by default the oldest), and in which order the chunks of 8 bytes of a line that is not full
//! go (`bus.chunks`: upwards by default). A chunk goes in the widest accesses that are aligned and were written all; where the device refuses one, in
//! halves (`Hardware::memory_combined`). Not here: combining of stores by `movnt` to other memory; mappings of one page that disagree, which
//! Windows may not give.

use engine::Flow;

use super::access;
use super::hardware::Width;
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ke::history;
use crate::ke::{interrupt_delivery, irql, slice};
use crate::mm::io_space;

/// Bytes of a buffer.
const LINE: usize = 64;
/// Bytes that go together.
const CHUNK: usize = 8;
/// Buffers of a processor.
const BUFFERS: usize = 8;

/// Whether a line goes before it must.
const EVICTED: &str = "bus.evicted";
/// Which line goes first.
const ORDER: &str = "bus.order";
/// Whether the chunks of a line go downwards.
const CHUNKS: &str = "bus.chunks";

/// A line of which a processor keeps bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Line {
    processor: u32,
    /// Bus address of its first byte.
    base: u64,
    bytes: [u8; LINE],
    /// A bit for each byte that was written.
    written: u64,
}

/// A write that a device sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    address: u64,
    width: Width,
    value: u64,
}

impl Line {
    const fn new(processor: u32, base: u64) -> Self {
        Self { processor, base, bytes: [0; LINE], written: 0 }
    }

    /// Bits of so many bytes from the `first` on.
    const fn mask(first: usize, bytes: usize) -> u64 {
        (u64::MAX >> (LINE - bytes)) << first
    }

    fn write(&mut self, first: usize, data: &[u8]) {
        self.bytes[first..first + data.len()].copy_from_slice(data);
        self.written |= Self::mask(first, data.len());
    }

    const fn is_full(&self) -> bool {
        self.written == u64::MAX
    }

    const fn chunk(&self, chunk: usize) -> u64 {
        self.written >> (chunk * CHUNK) & 0xFF
    }

    /// Whether the order of its chunks is open.
    fn is_open_in_order(&self) -> bool {
        !self.is_full() && (0..LINE / CHUNK).filter(|chunk| self.chunk(*chunk) != 0).count() > 1
    }

    /// What its device sees, in this order.
    fn pieces(&self, downwards: bool) -> Vec<Piece> {
        let chunks = 0..LINE / CHUNK;
        let mut pieces = Vec::new();
        for chunk in chunks {
            let chunk = if downwards { LINE / CHUNK - 1 - chunk } else { chunk };
            self.pieces_of(chunk, &mut pieces);
        }
        pieces
    }

    fn pieces_of(&self, chunk: usize, pieces: &mut Vec<Piece>) {
        let (mut at, end) = (chunk * CHUNK, (chunk + 1) * CHUNK);
        while at < end {
            let is_whole = |width: &Width| {
                let mask = Self::mask(at, *width as usize);
                at.is_multiple_of(*width as usize) && self.written & mask == mask
            };
            let widths = [Width::Qword, Width::Dword, Width::Word, Width::Byte];
            let Some(width) = widths.into_iter().find(is_whole) else {
                at += 1;
                continue;
            };
            let bytes = width as usize;
            let mut value = [0; 8];
            value[..bytes].copy_from_slice(&self.bytes[at..at + bytes]);
            pieces.push(Piece { address: self.base + at as u64, width, value: u64::from_le_bytes(value) });
            at += bytes;
        }
    }
}

/// The line of an address, and the byte in it.
fn split(address: u64) -> (u64, usize) {
    let first = address % LINE as u64;
    (address - first, usize::try_from(first).expect("a line is short"))
}

/// What all processors keep.
#[derive(Default)]
pub(crate) struct Combining {
    /// Each processor's in the order in which it began them.
    lines: Vec<Line>,
    /// When the clock interrupts the processors next, if there is any.
    tick: u64,
}

impl Combining {
    /// Whether no processor keeps anything.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// When the clock interrupts a processor that keeps something.
    #[inline]
    pub(crate) fn deadline(&self, processor: u32) -> Option<u64> {
        if self.is_empty() { None } else { (self.count(processor) > 0).then_some(self.tick) }
    }

    fn of(&self, processor: u32) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().filter(move |(_, line)| line.processor == processor)
    }

    fn count(&self, processor: u32) -> usize {
        self.of(processor).count()
    }

    fn find(&self, processor: u32, base: u64) -> Option<&Line> {
        self.of(processor).map(|(_, line)| line).find(|line| line.base == base)
    }

    /// Puts bytes of one line into its buffer, which may have to be begun; answers whether it is full.
    fn put(&mut self, processor: u32, address: u64, data: &[u8]) -> bool {
        let (base, first) = split(address);
        let known = self.lines.iter().position(|line| (line.processor, line.base) == (processor, base));
        let index = known.unwrap_or_else(|| {
            self.lines.push(Line::new(processor, base));
            self.lines.len() - 1
        });
        let line = &mut self.lines[index];
        line.write(first, data);
        line.is_full()
    }

    /// Takes the processor's `which`th oldest line.
    fn take(&mut self, processor: u32, which: usize) -> Option<Line> {
        let index = self.of(processor).nth(which)?.0;
        Some(self.lines.remove(index))
    }
}

fn processor(k: &Kernel) -> u32 {
    k.ke.processor().number
}

/// Driver code stores to device memory at `bus` that it has mapped to be combined.
///
/// # Errors
/// A verdict if a device refuses what goes to it for that.
pub(super) fn store(cx: &mut Cx<'_>, bus: u64, data: &[u8]) -> Flow<()> {
    cx.with(|k| access::begin(k, 0));
    if cx.count_event(Kind::Combined) {
        let mut value = [0; 8];
        value[..data.len()].copy_from_slice(data);
        let (bytes, value) = (u8::try_from(data.len()).unwrap_or(8), u64::from_le_bytes(value));
        cx.emit(Event::Combined { address: bus, bytes, value });
    }
    let in_line = data.len().min(LINE - split(bus).1);
    store_in_line(cx, bus, &data[..in_line])?;
    if in_line < data.len() { store_in_line(cx, bus + in_line as u64, &data[in_line..]) } else { Ok(()) }
}

fn store_in_line(cx: &mut Cx<'_>, address: u64, data: &[u8]) -> Flow<()> {
    let (base, first) = split(address);
    let (known, others) = cx.with(|k| {
        let (own, kept) = (processor(k), &k.hal.combining);
        let known = kept.find(own, base).map(|line| line.written & Line::mask(first, data.len()) != 0);
        (known, kept.count(own) - usize::from(known.is_some()))
    });
    let begins = known.is_none();
    match known {
        Some(true) if cx.choose(EVICTED, 2) == 1 => send_line(cx, base)?,
        None if others == BUFFERS => send_one(cx, others)?,
        _ => {}
    }
    let is_full = cx.with(|k| {
        if k.hal.combining.is_empty() {
            history::reads_clock(k);
            k.hal.combining.tick = k.ke.timing.timers().clock.next_tick(k.engine.now());
            // From now on every access and every call comes to the kernel.
            io_space::forget_last(k);
            k.ke.rearm();
        }
        k.hal.combining.put(processor(k), address, data)
    });
    if is_full || begins && others > 0 && cx.choose(EVICTED, 2) == 1 {
        return send_line(cx, base);
    }
    Ok(())
}

/// One of the processor's `count` lines goes.
fn send_one(cx: &mut Cx<'_>, count: usize) -> Flow<()> {
    let which = match u32::try_from(count) {
        Ok(count) if count > 1 => cx.choose(ORDER, count),
        _ => 0,
    };
    send(cx, which as usize)
}

fn send_line(cx: &mut Cx<'_>, base: u64) -> Flow<()> {
    let which = cx.with(|k| k.hal.combining.of(processor(k)).position(|(_, line)| line.base == base));
    which.map_or(Ok(()), |which| send(cx, which))
}

fn send(cx: &mut Cx<'_>, which: usize) -> Flow<()> {
    let line = cx.with(|k| {
        let line = k.hal.combining.take(processor(k), which);
        if k.hal.combining.is_empty() {
            k.ke.invalidate_levels();
        }
        line
    });
    let Some(line) = line else { return Ok(()) };
    let downwards = line.is_open_in_order() && cx.choose(CHUNKS, 2) == 1;
    let mut cost = access::WRITE_COST;
    for Piece { address, width, value } in line.pieces(downwards) {
        access::arrive_combined(cx, address, width, value, cost)?;
        cost = 0; // one transaction
    }
    Ok(())
}

/// All that the current processor keeps goes to its devices. What that causes comes before the driver's next instruction.
///
/// # Errors
/// A verdict if a device refuses it.
#[inline]
pub(crate) fn drain(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.with(|k| k.hal.combining.is_empty()) { Ok(()) } else { drain_own(cx).map(drop) }
}

/// The same; whether there was anything.
#[cold]
#[inline(never)]
pub(crate) fn drain_own(cx: &mut Cx<'_>) -> Flow<bool> {
    let after = cx.with(|k| k.hal.after);
    let mut any = false;
    loop {
        let count = cx.with(|k| k.hal.combining.count(processor(k)));
        if count == 0 {
            break;
        }
        any = true;
        send_one(cx, count)?;
    }
    if any {
        // The access under way keeps its own.
        cx.with(|k| k.hal.after = after);
        interrupt_delivery::observe(cx);
        cx.with(|k| {
            k.ke.sched.made_progress();
            slice::end_soon(k);
        });
    }
    Ok(any)
}

/// The clock's interrupt comes to the current processor, if it keeps anything and the time is over.
///
/// # Errors
/// As [`drain`].
#[inline]
pub(crate) fn tick(cx: &mut Cx<'_>) -> Flow<()> {
    let due = cx.with(|k| k.hal.combining.deadline(processor(k)).is_some_and(|tick| tick <= k.engine.now()));
    if due { drain(cx) } else { Ok(()) }
}

/// A driver calls this export.
///
/// # Errors
/// As [`drain`].
#[inline]
pub(crate) fn before_call(cx: &mut Cx<'_>, export: &str) -> Flow<()> {
    if cx.with(|k| k.hal.combining.is_empty()) || keeps(export) { Ok(()) } else { drain_own(cx).map(drop) }
}

/// Whether an export has surely no instruction that empties the buffers: the plain copies and fills, and moves to and from CR8, which the SDM
/// names as not serializing.
fn keeps(export: &str) -> bool {
    let copies = ["RtlCompareMemory", "RtlCopyMemory", "RtlFillMemory", "RtlMoveMemory", "RtlZeroMemory"];
    export.starts_with("mem") || copies.contains(&export) || irql::moves_level(export)
}

#[cfg(test)]
mod tests {
    use engine::Access;
    use fastrand::Rng;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;
    use crate::hal::rig::{MEMORY, PORTS, machine};
    use crate::ke::rig::{message, rule};

    /// Bytes of the card's window.
    const WINDOW: u64 = 2 * LINE as u64;

    fn combined(cx: &mut Cx<'_>) -> u64 {
        io_space::map(cx, MEMORY, WINDOW, abi::MmWriteCombined).unwrap()
    }

    fn write(cx: &mut Cx<'_>, address: u64, data: &[u8]) -> Flow<()> {
        let bytes = u8::try_from(data.len()).unwrap();
        access::device_write(cx, Access { address, bytes }, data)?;
        access::accessed(cx)
    }

    fn pieces(written: &[(usize, usize)], downwards: bool) -> Vec<(u64, u8)> {
        let mut line = Line::new(0, 0x1000);
        written.iter().for_each(|(at, bytes)| line.write(*at, &[0xA5; 8][..*bytes]));
        let pieces = line.pieces(downwards).into_iter();
        pieces.map(|piece| (piece.address - 0x1000, piece.width as u8)).collect()
    }

    #[test]
    fn a_line_goes_in_the_widest_aligned_accesses_by_chunks_of_8_bytes() {
        assert_eq!(pieces(&[(8, 4), (12, 4)], false), [(8, 8)]);
        assert_eq!(pieces(&[(4, 8)], false), [(4, 4), (8, 4)]);
        assert_eq!(pieces(&[(1, 8)], false), [(1, 1), (2, 2), (4, 4), (8, 1)]);
        assert_eq!(pieces(&[(1, 8)], true), [(8, 1), (1, 1), (2, 2), (4, 4)]);
        assert_eq!(pieces(&[(56, 8), (3, 2)], false), [(3, 1), (4, 1), (56, 8)]);
    }

    /// As many cases as are wanted, the same in every run; none is kept in a file.
    fn cases(cases: u32) -> ProptestConfig {
        ProptestConfig {
            cases,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        }
    }

    proptest! {
        #![proptest_config(cases(2_000))]

        #[test]
        fn pieces_cover_what_was_written_once_and_nothing_else(
            stores in proptest::collection::vec((0..LINE, 1..=8_usize, any::<u8>()), 1..=12),
            downwards: bool,
        ) {
            let (mut line, mut plain) = (Line::new(0, 0), [None; LINE]);
            for (at, bytes, value) in stores {
                let bytes = bytes.min(LINE - at);
                line.write(at, &[value; 8][..bytes]);
                plain[at..at + bytes].fill(Some(value));
            }
            let mut seen = [None; LINE];
            for Piece { address, width, value } in line.pieces(downwards) {
                let (_, first) = split(address);
                assert!(first.is_multiple_of(width as usize));
                for (at, byte) in (first..).zip(value.to_le_bytes()).take(width as usize) {
                    assert_eq!(seen[at].replace(byte), None, "byte {at} twice");
                }
            }
            assert_eq!(seen, plain);
        }
    }

    #[test]
    fn nothing_arrives_before_the_line_is_full_and_then_all_of_it_does_at_once() {
        machine(|cx, card| {
            let window = combined(cx);
            for word in (0..16u8).rev() {
                assert!(card.borrow().accesses.is_empty());
                write(cx, window + 4 * u64::from(word), &[word; 4]).unwrap();
            }
            let expected: Vec<String> = (0..8).map(|chunk| format!("w8 +{:x}", chunk * 8)).collect();
            assert_eq!(card.borrow().accesses, expected);
            assert!(cx.with(|k| k.hal.combining.is_empty()));
        });
    }

    #[test]
    fn of_two_stores_to_one_register_the_card_sees_the_later_and_both_in_order_of_addresses() {
        machine(|cx, card| {
            let window = combined(cx);
            write(cx, window + 0x4C, &[1; 4]).unwrap();
            write(cx, window + 0x40, &[2; 2]).unwrap();
            write(cx, window + 0x4C, &[3; 4]).unwrap();
            assert!(card.borrow().accesses.is_empty());
            drain(cx).unwrap();
            assert_eq!(card.borrow().accesses, ["w2 +40", "w4 +4c"]);
            assert_eq!(card.borrow().registers[0x4C], 3);
        });
    }

    #[test]
    fn loads_other_mappings_and_ports_come_behind_what_was_combined() {
        let others: [fn(&mut Cx<'_>, u64, u64); 4] = [
            |cx, window, _| {
                access::device_read(cx, Access { address: window + 0x60, bytes: 4 }, &mut [0; 4]).unwrap()
            },
            |cx, _, other| access::device_store(cx, Access { address: other + 0x60, bytes: 4 }, 7).unwrap(),
            |cx, _, other| {
                access::device_load(cx, Access { address: other + 0x60, bytes: 4 }).unwrap();
            },
            |cx, _, _| {
                access::port_read(cx, PORTS + 0x60, 4).unwrap();
            },
        ];
        for (index, access) in others.into_iter().enumerate() {
            machine(|cx, card| {
                let (window, other) =
                    (combined(cx), io_space::map(cx, MEMORY, WINDOW, abi::MmCached).unwrap());
                write(cx, other, &[0; 4]).unwrap();
                card.borrow_mut().accesses.clear();
                write(cx, window + 0x10, &[1; 4]).unwrap();
                write(cx, window + 0x50, &[1; 4]).unwrap();
                access(cx, window, other);
                let last = ["r4 +60", "w4 +60", "r4 +60", "r4 +60"][index];
                assert_eq!(card.borrow().accesses, ["w4 +10", "w4 +50", last]);
            });
        }
    }

    #[test]
    fn after_all_drains_the_card_has_what_was_stored_last() {
        machine(|cx, card| {
            let (window, mut rng, mut plain) = (combined(cx), Rng::with_seed(42), [0; 2 * LINE]);
            for _ in 0..3_000 {
                let at = rng.usize(..plain.len());
                let bytes = (1 << rng.usize(..4)).min(plain.len() - at);
                let value = rng.u64(..).to_le_bytes();
                write(cx, window + at as u64, &value[..bytes]).unwrap();
                plain[at..at + bytes].copy_from_slice(&value[..bytes]);
                if rng.usize(..10) == 0 {
                    drain(cx).unwrap();
                    assert_eq!(card.borrow().registers, plain);
                }
            }
        });
    }

    #[test]
    fn a_store_beyond_the_mapping_is_told_at_once() {
        machine(|cx, _| {
            let window = combined(cx);
            assert!(write(cx, window + WINDOW - 2, &[0; 4]).is_err());
            assert_eq!(rule(cx), Some("device-access-past-mapping"));
            assert!(message(cx).contains("outside its mapping"));
        });
    }

    #[test]
    fn the_ninth_line_has_the_oldest_go() {
        machine(|cx, _| {
            // No device is there, and that is no error.
            let window = io_space::map(cx, 0xD_0000, 0x1000, abi::MmWriteCombined).unwrap();
            for line in 0..8 {
                write(cx, window + line * LINE as u64, &[1; 4]).unwrap();
            }
            assert_eq!(cx.with(|k| k.hal.combining.count(0)), BUFFERS);
            write(cx, window + 8 * LINE as u64, &[1; 4]).unwrap();
            let kept: Vec<u64> = cx.with(|k| k.hal.combining.lines.iter().map(|line| line.base).collect());
            assert_eq!(kept, (1..=8).map(|line| 0xD_0000 + line * LINE as u64).collect::<Vec<_>>());
        });
    }
}
