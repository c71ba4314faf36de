//! One suite for two drivers of one card: `pci9052.sys`, in Rust, and `pci9052_c.sys`, in C, have the same names, control codes, settings,
//! WMI blocks and entries of the event log, and so each story runs with both. A story that is a test of one driver only stands elsewhere.
//!
//! In scripts `DEV` is the first card's device, and `WAIT`, `COUNTERS`, `READ_LCR`, `WRITE_LCR`, `READ_EEPROM`, `WRITE_EEPROM`, `STATISTICS` and
//! `TIMED_OUT` are its control codes and blocks.

/// Makes each story a test of both drivers: `story::c` and `story::rust`.
macro_rules! stories {
    ($($(#[$meta:meta])* fn $name:ident($twin:ident) $body:block)*) => {$(
        mod $name {
            $(#[$meta])* #[test] fn c() { super::$name(super::C) }
            $(#[$meta])* #[test] fn rust() { super::$name(super::RUST) }
        }
        fn $name($twin: super::Twin) $body
    )*};
}

mod control;
mod eeprom;
mod failures;
mod handles;
mod interrupts;
mod log;
mod plug_and_play;
mod power;
mod races;
mod starts;
mod surprises;
mod transfers;
mod twin;
mod wmi;

use twin::{C, RUST, Twin};
