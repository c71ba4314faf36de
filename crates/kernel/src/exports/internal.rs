//! Kernel routines that driver structures point to but nobody imports by name: dispatch routines of built-in drivers,
//! functions of interfaces, DMA operations. One line each, sorted, as in `functions.rs`.
//!
//! Their addresses are [`crate::ldr::internal_address`]'s.

use super::arguments::{IntoResult, exports};

exports! { INTERNAL:
    : IopCsqCancelRoutine(2) @ 2..=2 => io::csq::cancel_routine;
    : IopForwardCompletion(3) @ 0..=2 => io::query::forward_completion;
    : IopInvalidDeviceRequest(2) @ 0..=2 => io::driver::invalid_device_request;
    : IopTimerDispatch(2) @ 2..=2 => io::timer::tick;
}
