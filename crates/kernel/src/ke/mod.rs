//! `Ke*`: processors, IRQL, threads, waits, timers, DPCs, interrupts.

pub mod event;
pub mod interrupt;
pub mod irql;
pub mod processor;
pub mod scheduler;
pub mod thread;
pub mod wait;

use engine::Stack;

use crate::cx::Cx;
use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }

    /// The processor that runs now, and its IRQL.
    #[must_use]
    pub fn where_now(&self) -> (u32, u8) {
        todo!("ke helper")
    }

    /// The virtual interrupt flag of the processor that runs now.
    #[must_use]
    pub fn interrupt_flag(&self) -> bool {
        todo!("ke helper")
    }
}

/// The stack for a call into a driver from here: below the driver frame that called us, else the thread's own.
pub(crate) fn stack_for_call(_cx: &mut Cx<'_>) -> Stack {
    todo!("ke helper")
}
