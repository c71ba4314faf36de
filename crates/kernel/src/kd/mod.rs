//! `Kd*`, `DbgPrint`: text for the debugger.
//!
//! There is no debugger: `KdDebuggerEnabled` says so, breakpoints end the run. What drivers print is emitted line by line.

pub(crate) mod breakpoint;
pub mod print;

use std::collections::BTreeMap;

use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// What was printed of a line that has not ended.
    pub(crate) line: String,
    /// Bytes of all lines that were printed.
    pub(crate) printed: usize,
    /// Levels that a component prints, where they were changed.
    pub(crate) masks: BTreeMap<u32, u32>,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }
}
