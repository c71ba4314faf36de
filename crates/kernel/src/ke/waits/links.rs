//! Doubly linked lists in driver memory, as `LIST_ENTRY` macros leave them.
//!
//! Before an entry is taken out, its neighbours must point back at it, as the macros' own security check has it; a list
//! that does not hold together is a verdict. It keeps no private copy.

use abi::{DriverPtr, LIST_ENTRY};
use engine::{BadAddress, Engine};

/// Why a list cannot be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Broken {
    /// An entry lies where no memory is.
    Memory(BadAddress),
    /// The neighbours of this entry do not point at it.
    Links(u64),
}

impl From<BadAddress> for Broken {
    fn from(bad: BadAddress) -> Self {
        Self::Memory(bad)
    }
}

/// `InitializeListHead`.
///
/// # Errors
/// If `head` is not memory.
pub(crate) fn initialize(engine: Engine, head: DriverPtr<LIST_ENTRY>) -> Result<(), BadAddress> {
    engine.write(head + LIST_ENTRY::Flink, head)?;
    engine.write(head + LIST_ENTRY::Blink, head)
}

/// `InsertTailList`.
///
/// # Errors
/// [`Broken`] if the list's end does not hold together.
pub(crate) fn insert_tail(
    engine: Engine,
    head: DriverPtr<LIST_ENTRY>,
    entry: DriverPtr<LIST_ENTRY>,
) -> Result<(), Broken> {
    let last = engine.read(head + LIST_ENTRY::Blink)?;
    if engine.read(last + LIST_ENTRY::Flink)? != head {
        return Err(Broken::Links(head.address));
    }
    engine.write(entry + LIST_ENTRY::Flink, head)?;
    engine.write(entry + LIST_ENTRY::Blink, last)?;
    engine.write(last + LIST_ENTRY::Flink, entry)?;
    Ok(engine.write(head + LIST_ENTRY::Blink, entry)?)
}

/// `RemoveEntryList`.
///
/// # Errors
/// [`Broken`] if a neighbour does not point back.
pub(crate) fn remove(engine: Engine, entry: DriverPtr<LIST_ENTRY>) -> Result<(), Broken> {
    let next = engine.read(entry + LIST_ENTRY::Flink)?;
    let previous = engine.read(entry + LIST_ENTRY::Blink)?;
    if engine.read(next + LIST_ENTRY::Blink)? != entry || engine.read(previous + LIST_ENTRY::Flink)? != entry
    {
        return Err(Broken::Links(entry.address));
    }
    engine.write(previous + LIST_ENTRY::Flink, next)?;
    Ok(engine.write(next + LIST_ENTRY::Blink, previous)?)
}
