//! What the exception directory knows of the function an address is in.
//!
//! As the Microsoft page "x64 exception handling" has it. It reads no scope table: a handler's data are the handler's.

use super::UnwindRegisters;
use super::info::{Handler, Rest, UnwindInfo};
use crate::image::Image;
use crate::runtime_functions::RuntimeFunction;

/// Entries that lead from one to the next; more are taken for a loop.
const MAX_CHAIN: usize = 32;

/// The function with unwind data that an address is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionEntry {
    /// The fragment the address is in.
    pub function: RuntimeFunction,
    /// The fragment the function begins with: its `begin` is the function's.
    pub primary: RuntimeFunction,
    /// The unwind data of `function`, then of each it is chained to, the primary's last.
    pub(super) chain: Vec<UnwindInfo>,
}

impl FunctionEntry {
    /// The function that `rva` is in; `None` if it has no unwind data, and so is a leaf, or damaged ones.
    #[must_use]
    pub fn find(image: &Image, rva: u32) -> Option<Self> {
        Self::of(image, image.function_at(rva)?)
    }

    /// What is known of a function of the directory; `None` if its unwind data are damaged.
    #[must_use]
    pub fn of(image: &Image, function: RuntimeFunction) -> Option<Self> {
        let mut primary = function;
        let mut chain = Vec::new();
        for _ in 0..MAX_CHAIN {
            if primary.unwind & 1 != 0 {
                primary = RuntimeFunction::read(&image.memory, image.size(), primary.unwind - 1)?;
                continue;
            }
            let info = UnwindInfo::read(&image.memory, image.size(), primary.unwind)?;
            let rest = info.rest;
            chain.push(info);
            match rest {
                Rest::Chained(next) => primary = next,
                Rest::Nothing | Rest::Handler(_) => return Some(Self { function, primary, chain }),
            }
        }
        None
    }

    /// Whether `rva`, within the fragment, is in its prolog: then no handler of the function is asked.
    #[must_use]
    pub fn in_prolog(&self, rva: u32) -> bool {
        let prolog = self.chain.first().map_or(0, |info| info.prolog);
        rva.wrapping_sub(self.function.begin) < u32::from(prolog)
    }

    /// The language-specific handler.
    #[must_use]
    pub fn handler(&self) -> Option<Handler> {
        match self.chain.last()?.rest {
            Rest::Handler(handler) => Some(handler),
            _ => None,
        }
    }

    /// The frame that a handler is called with (`EstablisherFrame`), for registers in the function's body: the stack pointer
    /// after the prolog's allocation.
    #[must_use]
    pub fn establisher_frame(&self, registers: &UnwindRegisters) -> u64 {
        let base = self.chain.iter().find_map(|info| info.frame_pointer_base(registers));
        base.unwrap_or(registers.rsp())
    }

    /// The register that an epilog may restore RSP from.
    pub(super) fn frame_register(&self) -> Option<usize> {
        self.chain.iter().find_map(|info| info.frame).map(|(register, _)| register)
    }
}
