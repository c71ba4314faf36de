//! How control leaves a kernel call without returning to the driver that made it.

/// Why a call did not return: handed on with `?` through every kernel function up to the engine, which discards the
/// driver frames between.
///
/// It carries no payload: what stopped the machine is the guest's to remember, and where an exception goes is the engine's. As
/// wide as a result, so that a [`Flow<u64>`] comes back in two registers: written to the stack it would be read again in one
/// piece, and wait for the processor's store buffer at every import.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
#[must_use]
pub enum Leave {
    /// The machine stops: a verdict was reached, or it is being torn down.
    Stop = 1,
    /// An exception goes to a driver frame further out.
    Unwind = 2,
}

/// What everything returns that can block, call a driver or end the run.
pub type Flow<T> = Result<T, Leave>;
