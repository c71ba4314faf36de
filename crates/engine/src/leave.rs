//! How control leaves a kernel call without returning to the driver that made it.

/// Why a call did not return: handed on with `?` through every kernel function up to the engine, which discards the
/// driver frames between.
///
/// It carries no payload: what stopped the machine is the guest's to remember, so that results stay two registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Leave {
    /// An exception goes to the driver frame that was entered under this number (see [`crate::Engine::depth`]).
    Unwind(u32),
    /// The machine stops: a verdict was reached, or it is being torn down.
    Stop,
}

/// What everything returns that can block, call a driver or end the run.
pub type Flow<T> = Result<T, Leave>;
