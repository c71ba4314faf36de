//! Whether requests may go to the card now.
//!
//! Three things close the way, independently: there is no card, the device is to be stopped, it has no power. It holds no
//! requests itself.

/// What becomes of a request that arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// It goes to the card.
    Open,
    /// It waits: the card will be back.
    Held,
    /// It fails: there is no card.
    Closed,
}

/// The reasons; they change under the card's lock.
pub(crate) struct Gate {
    /// The device is not started, or its card is gone.
    pub(crate) closed: bool,
    /// The device is to be stopped or removed, or is stopped.
    pub(crate) paused: bool,
    /// The device is not in D0.
    pub(crate) asleep: bool,
}

impl Gate {
    /// Before the first start.
    pub(crate) const fn new() -> Self {
        Self { closed: true, paused: false, asleep: false }
    }

    pub(crate) const fn way(&self) -> Way {
        match self {
            Self { closed: true, .. } => Way::Closed,
            Self { paused: false, asleep: false, .. } => Way::Open,
            _ => Way::Held,
        }
    }
}
