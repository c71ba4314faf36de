//! String instructions with a device on either side, element by element: `movs`, `stos`, `lods`, `cmps`, `scas`. On memory the
//! original runs. Registers are updated after each element, so that a fault leaves them as the processor would. Those of ports are in
//! `callout`.
//!
//! Intel SDM volume 2, *MOVS*, *STOS*, *LODS*, *CMPS*, *SCAS*, *REP*, *CMP*.

use iced_x86::{Instruction, Mnemonic};

use super::callout::{load, step, store};
use super::exit::{go_on, refuse};
use super::frame::Frame;
use super::site::{body, is_device};
use crate::guest::{Access, FaultKind};
use crate::leave::Flow;
use crate::machine::state;
use crate::registers::number::{RCX, RDI, RSI};

/// What is done with an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Move,
    Store,
    Load,
    Compare,
    Scan,
}

impl Kind {
    /// And how wide one is.
    fn of(instruction: &Instruction) -> Option<(Self, u8)> {
        use Mnemonic as M;
        let kind = match instruction.mnemonic() {
            M::Movsb | M::Movsw | M::Movsd | M::Movsq => Self::Move,
            M::Stosb | M::Stosw | M::Stosd | M::Stosq => Self::Store,
            M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => Self::Load,
            M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => Self::Compare,
            M::Scasb | M::Scasw | M::Scasd | M::Scasq => Self::Scan,
            _ => return None,
        };
        Some((kind, u8::try_from(instruction.memory_size().size()).ok()?))
    }

    /// Whether it reads where RSI points.
    const fn has_source(self) -> bool {
        matches!(self, Self::Move | Self::Load | Self::Compare)
    }

    /// Whether it touches what RDI points to.
    const fn has_destination(self) -> bool {
        !matches!(self, Self::Load)
    }

    const fn compares(self) -> bool {
        matches!(self, Self::Compare | Self::Scan)
    }
}

/// A learned string instruction is about to run.
pub(super) fn perform(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    let Some((kind, bytes)) = Kind::of(instruction) else {
        return refuse(frame, instruction, FaultKind::NotImplemented);
    };
    let near = |register: usize| is_device(frame.registers.general[register]);
    if !(kind.has_source() && near(RSI) || kind.has_destination() && near(RDI)) {
        return Ok(body(instruction, false));
    }
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    while !repeated || frame.registers.general[RCX] != 0 {
        element(frame, kind, bytes)?;
        if !repeated {
            break;
        }
        frame.registers.general[RCX] -= 1;
        let is_equal = frame.registers.flags & ZERO != 0;
        if kind.compares() && is_equal == instruction.has_repne_prefix() {
            break;
        }
    }
    go_on(frame, instruction.next_ip())
}

fn element(frame: &mut Frame, kind: Kind, bytes: u8) -> Flow<()> {
    let width = usize::from(bytes);
    let accumulator = frame.registers.general[0].to_le_bytes();
    let mut data = accumulator;
    if kind.has_source() {
        read(frame, frame.registers.general[RSI], &mut data[..width])?;
    }
    if kind.compares() {
        let mut other = [0; 8];
        read(frame, frame.registers.general[RDI], &mut other[..width])?;
        compare(frame, u64::from_le_bytes(data), u64::from_le_bytes(other), bytes);
    } else if kind.has_destination() {
        let address = frame.registers.general[RDI];
        if is_device(address) {
            state().guest().device_write(Access { address, bytes }, &data[..width])?;
        } else {
            store(frame, address, &data[..width])?;
        }
    } else {
        let value = u64::from_le_bytes(data);
        // A 32-bit result clears the upper half, as everywhere; `data` kept the rest of `rax` for the narrow ones.
        frame.registers.general[0] = if bytes == 4 { value & 0xFFFF_FFFF } else { value };
    }
    if kind.has_source() {
        step(frame, RSI, bytes);
    }
    if kind.has_destination() {
        step(frame, RDI, bytes);
    }
    state().guest().accessed()
}

/// Reads an element from memory or a device.
pub(super) fn read(frame: &mut Frame, address: u64, into: &mut [u8]) -> Flow<()> {
    if !is_device(address) {
        return load(frame, address, into);
    }
    let bytes = u8::try_from(into.len()).expect("an element is small");
    state().guest().device_read(Access { address, bytes }, into)
}

const CARRY: u64 = 1;
const PARITY: u64 = 1 << 2;
const ADJUST: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
const OVERFLOW: u64 = 1 << 11;

/// Sets the flags as `cmp left, right` of so many bytes does.
fn compare(frame: &mut Frame, left: u64, right: u64, bytes: u8) {
    let unused = 64 - 8 * u32::from(bytes);
    // At the upper end of the word, where carry, sign and overflow are those of 64 bits.
    let (left, right) = (left << unused, right << unused);
    let (difference, borrows) = left.overflowing_sub(right);
    let (_, overflows) = left.cast_signed().overflowing_sub(right.cast_signed());
    let low = difference >> unused;
    let is_adjusted = (left ^ right ^ difference) >> unused & 0x10 != 0;
    let set = [
        (CARRY, borrows),
        (PARITY, (low & 0xFF).count_ones().is_multiple_of(2)),
        (ADJUST, is_adjusted),
        (ZERO, difference == 0),
        (SIGN, difference >> 63 != 0),
        (OVERFLOW, overflows),
    ];
    for (flag, is_set) in set {
        let flags = frame.registers.flags & !flag;
        frame.registers.flags = if is_set { flags | flag } else { flags };
    }
}
