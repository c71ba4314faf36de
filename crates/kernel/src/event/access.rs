//! What an access does to memory.

use super::declaration::word_of;

/// What is done to bytes of memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AccessKind {
    /// They are loaded.
    Load,
    /// They are loaded, and then stored to.
    Update,
    /// They are stored to.
    Store,
}

impl AccessKind {
    /// What hashes have for it.
    pub(super) const fn word(self) -> u64 {
        word_of(self.name())
    }

    /// Its name, as traces have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Update => "update",
            Self::Store => "store",
        }
    }
}

impl From<engine::AccessKind> for AccessKind {
    fn from(kind: engine::AccessKind) -> Self {
        match kind {
            engine::AccessKind::Load => Self::Load,
            engine::AccessKind::Update => Self::Update,
            engine::AccessKind::Store => Self::Store,
        }
    }
}
