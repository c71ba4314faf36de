//! A live machine.

use crate::bench::{Bench, Inputs};
use crate::error::Error;
use crate::report::Report;

/// A machine that runs a driver.
pub struct Machine;

impl Machine {
    pub(crate) fn start(_bench: Bench, _inputs: Inputs) -> Result<Self, Error> {
        Ok(Self)
    }

    /// Ends it.
    pub fn finish(self) -> Report {
        unimplemented!()
    }
}
