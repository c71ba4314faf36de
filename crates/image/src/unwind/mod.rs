//! One frame up: the registers a function's caller had, from the registers inside the function.
//!
//! As the Microsoft page "x64 exception handling" has it under "Unwind procedure": an epilog is carried through, a prolog
//! undone as far as it ran, chained entries followed. It calls no handler and walks no whole stack: the caller bounds that.

mod entry;
mod epilog;
mod info;

pub use entry::FunctionEntry;
pub use info::Handler;

use crate::image::Image;
use crate::runtime_functions::RuntimeFunction;
use epilog::Epilog;
use info::{Operation, UnwindInfo};

/// The register number of RSP.
pub const RSP: usize = 4;

/// The registers an unwind reads and restores.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UnwindRegisters {
    /// The instruction pointer.
    pub rip: u64,
    /// RAX RCX RDX RBX RSP RBP RSI RDI R8–R15.
    pub general: [u64; 16],
    /// XMM0–XMM15.
    pub xmm: [u128; 16],
}

impl UnwindRegisters {
    /// The stack pointer.
    #[must_use]
    pub fn rsp(&self) -> u64 {
        self.general[RSP]
    }
}

/// Driver memory, read at an address; `None` where it cannot be.
type Read<'r> = dyn FnMut(u64) -> Option<u64> + 'r;

/// The registers of the caller of the function that `registers.rip` is in, an address within `image` loaded at `base`.
///
/// A function without unwind data is a leaf: its return address is on top of the stack. Volatile registers stay as they
/// were. `read` gives eight bytes at an address of the machine.
///
/// `None` if the instruction pointer is outside the image, the unwind data are damaged, or the stack cannot be read.
pub fn step(
    image: &Image,
    base: u64,
    registers: &UnwindRegisters,
    read: &mut dyn FnMut(u64) -> Option<u64>,
) -> Option<UnwindRegisters> {
    let rva = u32::try_from(registers.rip.checked_sub(base)?).ok().filter(|&rva| rva < image.size())?;
    let mut frame = Frame { registers: *registers, returned: false };
    if let Some(function) = image.function_at(rva) {
        let entry = FunctionEntry::of(image, function)?;
        match Epilog::at(image, &entry, rva, registers) {
            Some(epilog) => frame.finish(epilog, read)?,
            None => frame.undo(&entry, rva - function.begin, read)?,
        }
    }
    if !frame.returned {
        frame.registers.rip = frame.pop(read)?;
    }
    Some(frame.registers)
}

/// What exception handling asks of the frame that an instruction is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Establisher {
    /// The function, or its fragment, in the exception directory.
    pub function: RuntimeFunction,
    /// The handler to be asked: none in a prolog or an epilog, whose frame is not whole.
    pub handler: Option<Handler>,
    /// What the handler calls the frame: the stack pointer after the prolog's allocation.
    pub frame: u64,
}

/// The frame that `registers.rip` is in, an address within `image` loaded at `base`.
///
/// `None` if the function has no unwind data, and so no frame of its own, or damaged ones.
#[must_use]
pub fn establisher(image: &Image, base: u64, registers: &UnwindRegisters) -> Option<Establisher> {
    let rva = u32::try_from(registers.rip.checked_sub(base)?).ok().filter(|&rva| rva < image.size())?;
    let entry = FunctionEntry::find(image, rva)?;
    let whole = !entry.in_prolog(rva) && Epilog::at(image, &entry, rva, registers).is_none();
    Some(Establisher {
        function: entry.function,
        handler: entry.handler().filter(|_| whole),
        frame: if whole { entry.establisher_frame(registers) } else { registers.rsp() },
    })
}

/// The frame as it is undone.
struct Frame {
    registers: UnwindRegisters,
    /// A machine frame gave RIP and RSP: there is no return address to pop.
    returned: bool,
}

impl Frame {
    fn pop(&mut self, read: &mut Read<'_>) -> Option<u64> {
        let value = read(self.registers.rsp())?;
        self.registers.general[RSP] = self.registers.rsp().wrapping_add(8);
        Some(value)
    }

    /// Carries an epilog through, up to its return.
    fn finish(&mut self, epilog: Epilog, read: &mut Read<'_>) -> Option<()> {
        self.registers.general[RSP] = epilog.rsp;
        for register in epilog.pops {
            self.registers.general[register] = self.pop(read)?;
        }
        Some(())
    }

    /// Undoes what the prolog did by `offset` bytes into the function, and all that chained entries did.
    fn undo(&mut self, entry: &FunctionEntry, offset: u32, read: &mut Read<'_>) -> Option<()> {
        for (index, info) in entry.chain.iter().enumerate() {
            let ran = if index == 0 { offset } else { u32::MAX };
            self.undo_one(info, ran, read)?;
        }
        Some(())
    }

    fn undo_one(&mut self, info: &UnwindInfo, ran: u32, read: &mut Read<'_>) -> Option<()> {
        let fixed = info.frame_base(&self.registers, ran);
        for (at, operation) in &info.operations {
            if u32::from(*at) <= ran {
                self.undo_operation(info, *operation, fixed, read)?;
            }
        }
        Some(())
    }

    /// `fixed` is the stack pointer after the prolog's allocation, which saves are relative to.
    fn undo_operation(
        &mut self,
        info: &UnwindInfo,
        operation: Operation,
        fixed: u64,
        read: &mut Read<'_>,
    ) -> Option<()> {
        match operation {
            Operation::Push(register) => self.registers.general[register] = self.pop(read)?,
            Operation::Allocate(bytes) => {
                self.registers.general[RSP] = self.registers.rsp().wrapping_add(bytes.into());
            }
            Operation::SetFrame => self.registers.general[RSP] = info.frame_pointer_base(&self.registers)?,
            Operation::Save { register, offset } => {
                self.registers.general[register] = read(fixed.wrapping_add(offset.into()))?;
            }
            Operation::SaveXmm { register, offset } => {
                let at = fixed.wrapping_add(offset.into());
                let (low, high) = (read(at)?, read(at.wrapping_add(8))?);
                self.registers.xmm[register] = u128::from(high) << 64 | u128::from(low);
            }
            Operation::MachineFrame { error_code } => {
                let at = self.registers.rsp().wrapping_add(if error_code { 8 } else { 0 });
                self.registers.rip = read(at)?;
                self.registers.general[RSP] = read(at.wrapping_add(24))?;
                self.returned = true;
            }
            Operation::Nothing => {}
        }
        Some(())
    }
}
