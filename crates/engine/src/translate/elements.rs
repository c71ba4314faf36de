//! Masked moves and gathers: which elements of memory one will touch, by the mask and the index in its vector registers.
//!
//! The host's processor runs these instructions itself, and leaves alone what the mask leaves out. Here is only what a check
//! or a fault's story needs. On device memory they are refused by name: Intel's manual says of both kinds that they should
//! not be used there, because how they access memory is each processor's own affair.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::frame::Frame;
use super::site;
use crate::page_table;

/// One that the mask names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Element {
    pub(super) address: u64,
    pub(super) bytes: u64,
}

/// What a masked instruction that is about to run will touch, lowest element first; nothing if the mask is empty.
pub(super) fn elements(frame: &Frame, instruction: &Instruction) -> Vec<Element> {
    let Some(shape) = Shape::of(instruction) else { return Vec::new() };
    let mask = frame.vector(shape.mask);
    let named = |element: &usize| mask[(element + 1) * shape.bytes - 1] & 0x80 != 0;
    let address = |element: usize| {
        let (index, behind) = if instruction.is_vsib() { (element, 0) } else { (0, element * shape.bytes) };
        let first = instruction.virtual_address(shape.operand, index, |register, lane, bytes| {
            if register.is_vector_register() {
                let lane = &frame.vector(register)[lane * bytes..][..bytes];
                return Some(lane.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)));
            }
            site::register(frame, register)
        })?;
        Some(Element { address: first.wrapping_add(behind as u64), bytes: shape.bytes as u64 })
    };
    (0..shape.count).filter(named).filter_map(address).collect()
}

/// The first of them that is not there to be loaded or stored: processors differ in which byte they say a fault was at.
pub(super) fn missing(frame: &Frame, instruction: &Instruction, write: bool) -> Option<u64> {
    let there = |address: u64| {
        let protection = page_table::get(address).protection();
        if write { protection.write } else { protection.read }
    };
    let bytes = |element: &Element| [element.address, element.address.wrapping_add(element.bytes - 1)];
    elements(frame, instruction).iter().flat_map(bytes).find(|address| !there(*address))
}

/// What an instruction's elements are.
struct Shape {
    /// The number of the memory operand.
    operand: u32,
    mask: Register,
    /// Of an element.
    bytes: usize,
    count: usize,
}

impl Shape {
    fn of(instruction: &Instruction) -> Option<Self> {
        use Mnemonic as M;
        let operand = (0..instruction.op_count()).find(|i| {
            let kind = instruction.op_kind(*i);
            matches!(kind, OpKind::Memory | OpKind::MemorySegRDI | OpKind::MemorySegEDI)
        })?;
        let (mask, bytes) = match instruction.mnemonic() {
            M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu => (instruction.op2_register(), 1),
            M::Vmaskmovps | M::Vpmaskmovd => (instruction.op1_register(), 4),
            M::Vmaskmovpd | M::Vpmaskmovq => (instruction.op1_register(), 8),
            _ => (instruction.op2_register(), instruction.memory_size().size()),
        };
        let mut count = mask.size() / bytes;
        if let Some(wide) = instruction.vsib() {
            count = count.min(instruction.memory_index().size() / if wide { 8 } else { 4 });
        }
        Some(Self { operand, mask, bytes, count })
    }
}
