//! The driver's call stack in original addresses, by unwind data, with symbols.
//!
//! Page: *x64 exception handling*. Each call of the kernel into a driver that is waiting gives a stretch of frames;
//! kernel routines between them are not shown.

use abi::DriverPtr;
use engine::Caller;
use image::unwind::{self, UnwindRegisters};

use super::symbols;
use crate::cx::Cx;
use crate::verdict::StackLine;

/// Lines of one verdict: a recursion that overflowed its stack need not be told whole.
const MOST_LINES: usize = 64;

/// The stack of what runs now, innermost first: the driver's instruction, then return addresses.
pub fn lines(cx: &mut Cx<'_>) -> Vec<StackLine> {
    let mut addresses = Vec::new();
    for caller in cx.engine().callers() {
        walk(cx, &caller, &mut addresses);
    }
    let line = |address| StackLine { address, symbol: symbols::describe(cx, address) };
    addresses.into_iter().map(line).collect()
}

/// The frames of one stretch: from where the driver waits for the kernel up to where the kernel called it.
fn walk(cx: &mut Cx<'_>, caller: &Caller, addresses: &mut Vec<u64>) {
    let mut registers =
        UnwindRegisters { rip: caller.rip, general: caller.registers.general, ..UnwindRegisters::default() };
    let engine = cx.engine();
    let mut read = |address| engine.read::<u64>(DriverPtr::new(address)).ok();
    if read(registers.rsp()) == Some(registers.rip) {
        // It stands in a call of the kernel: the return address is still on the stack.
        registers.general[unwind::RSP] += 8;
    }
    while addresses.len() < MOST_LINES {
        addresses.push(registers.rip);
        let up = cx.with(|k| {
            let (base, loaded) = k.ldr.image_at(registers.rip)?;
            unwind::step(&loaded.image, base, &registers, &mut read)
        });
        // The stack pointer grows with every frame, or the unwind data lie.
        let Some(next) = up.filter(|next| next.rsp() > registers.rsp()) else { return };
        if cx.with(|k| k.ldr.image_at(next.rip).is_none()) {
            return;
        }
        registers = next;
    }
}
