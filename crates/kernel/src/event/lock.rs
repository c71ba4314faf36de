//! What kind of lock an event is about.

/// A kind of lock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LockKind {
    /// A `KSPIN_LOCK`, queued or not, or that of an interrupt object.
    Spin,
    /// An `EX_SPIN_LOCK` that is shared.
    SharedSpin,
    /// An `EX_SPIN_LOCK` that one has alone.
    ExclusiveSpin,
    /// A `FAST_MUTEX` or `KGUARDED_MUTEX`.
    FastMutex,
    /// A `KMUTEX`.
    Mutex,
    /// An `EX_PUSH_LOCK` that one has alone.
    PushLock,
    /// An `EX_PUSH_LOCK` that is shared.
    SharedPushLock,
    /// An `ERESOURCE` that one has alone.
    Resource,
    /// An `ERESOURCE` that is shared.
    SharedResource,
    /// The event of an interrupt whose routines run at PASSIVE_LEVEL.
    PassiveInterrupt,
}

impl LockKind {
    /// Its name, as traces have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin lock",
            Self::SharedSpin => "shared spin lock",
            Self::ExclusiveSpin => "exclusive spin lock",
            Self::FastMutex => "fast mutex",
            Self::Mutex => "mutex",
            Self::PushLock => "push lock",
            Self::SharedPushLock => "shared push lock",
            Self::Resource => "resource",
            Self::SharedResource => "shared resource",
            Self::PassiveInterrupt => "passive interrupt",
        }
    }
}
