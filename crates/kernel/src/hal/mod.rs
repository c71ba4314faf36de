//! `Hal*` and what stands below it: hardware, interrupt lines, bus data.

pub mod hardware;
