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
    let mut lines = Vec::new();
    for (address, is_return) in addresses {
        let describe = if is_return { symbols::describe_return } else { symbols::describe };
        lines.push(StackLine { address, symbol: describe(cx, address) });
    }
    lines
}

/// The frames of one stretch, from where the driver waits for the kernel up to where the kernel called it, and whether
/// each is a return address.
fn walk(cx: &mut Cx<'_>, caller: &Caller, addresses: &mut Vec<(u64, bool)>) {
    let mut registers =
        UnwindRegisters { rip: caller.rip, general: caller.registers.general, ..UnwindRegisters::default() };
    let engine = cx.engine();
    let mut read = |address| engine.read::<u64>(DriverPtr::new(address)).ok();
    let mut is_return = read(registers.rsp()) == Some(registers.rip);
    if is_return {
        // It stands in a call of the kernel: the return address is still on the stack.
        registers.general[unwind::RSP] += 8;
    }
    while addresses.len() < MOST_LINES {
        addresses.push((registers.rip, is_return));
        let up = cx.with(|k| {
            let (base, loaded) = k.ldr.image_at(registers.rip)?;
            unwind::step(&loaded.image, base, &registers, &mut read)
        });
        // The stack pointer grows with every frame, or the unwind data lie.
        let Some(next) = up.filter(|next| next.rsp() > registers.rsp()) else { return };
        if cx.with(|k| k.ldr.image_at(next.rip).is_none()) {
            return;
        }
        (registers, is_return) = (next, true);
    }
}
