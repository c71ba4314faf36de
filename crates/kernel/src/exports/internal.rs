//! Kernel routines that driver structures point to but nobody imports by name: dispatch routines of built-in drivers,
//! functions of interfaces, DMA operations. One line each, sorted, as in `functions.rs`.
//!
//! Their addresses are [`crate::ldr::internal_address`]'s.

use super::arguments::exports;

exports! { INTERNAL:
}
