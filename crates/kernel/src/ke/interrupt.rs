//! Interrupt objects: connecting, delivery by level, the shared chain of a line.

/// What it takes to connect a service routine, decoded from any of the documented forms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// `ServiceRoutine`.
    pub routine: u64,
    /// `ServiceContext`.
    pub context: u64,
    /// The caller's spin lock, or 0: the interrupt object's own.
    pub spin_lock: u64,
    /// Vector, as in the translated resources.
    pub vector: u32,
    /// DIRQL of the vector.
    pub irql: u8,
    /// IRQL at which the routine runs; at least `irql`.
    pub synchronize_irql: u8,
    /// Latched if true, else level sensitive.
    pub latched: bool,
    /// May share the vector.
    pub shared: bool,
    /// Processors.
    pub affinity: u64,
}
