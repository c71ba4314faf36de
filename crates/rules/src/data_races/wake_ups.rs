//! `wake-up-lost`: a thread looks at something, finds no work, clears the event that announces work, and waits for it; between the look and the clearing another
//! flow of control has made work and signalled the event. The signal is gone, and the thread waits although there is what it waits for. What it has looked at
//! before its wait before that does not count: it looks anew then, and need not come to the same words.
//!
//! Pages: *KeClearEvent function*, *KeResetEvent function*, *Event Objects*. Only what has happened counts: words that the thread has read before the other
//! flow stored them, and not since; an event that was signalled behind these stores; and nothing between the clearing and the wait by which the thread may have
//! begun what it waits for: no store but to its stack, no register, no call but of locks and clocks. A thread that waits for several objects is not judged.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use engine::{AccessKind, MemoryAccess};
use kernel::exports;
use kernel::verdict::{Related, Verdict};

use super::clock::Slot;
use super::flows::{Flows, Here};

/// The rule's name.
const RULE: &str = "wake-up-lost";
/// Words are looked at whole.
const WORD: u64 = 8;
/// So many of the words that a flow has loaded, and so many of those that it has stored, are known: of those of one remainder the last.
const LAST: usize = 64;

/// Calls by which nothing is begun.
const BEGIN_NOTHING: &[&str] = &[
    "ExAcquireFastMutex",
    "ExAcquireFastMutexUnsafe",
    "ExReleaseFastMutex",
    "ExReleaseFastMutexUnsafe",
    "KeAcquireSpinLockRaiseToDpc",
    "KeAcquireSpinLockAtDpcLevel",
    "KeAcquireInStackQueuedSpinLock",
    "KeEnterCriticalRegion",
    "KeLeaveCriticalRegion",
    "KeQueryPerformanceCounter",
    "KeReadStateEvent",
    "KeReleaseInStackQueuedSpinLock",
    "KeReleaseSpinLock",
    "KeReleaseSpinLockFromDpcLevel",
    "KeWaitForSingleObject",
];

/// Words and the numbers of the events at which they were last accessed.
#[derive(Clone)]
struct Words {
    /// No word of drivers' memory is 0, so that is none.
    all: [(u64, u64); LAST],
}

impl Default for Words {
    fn default() -> Self {
        Self { all: [(0, 0); LAST] }
    }
}

impl Words {
    fn note(&mut self, word: u64, event: u64) {
        self.all[Self::place(word)] = (word, event);
    }

    fn of(&self, word: u64) -> Option<u64> {
        let (known, event) = self.all[Self::place(word)];
        (known == word).then_some(event)
    }

    /// Words of one structure lie apart.
    fn place(word: u64) -> usize {
        usize::try_from(word % LAST as u64).expect("they are few")
    }

    fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        self.all.into_iter().filter(|(word, _)| *word != 0)
    }
}

/// What a flow has accessed last.
#[derive(Clone, Default)]
struct Accessed {
    loads: Words,
    stores: Words,
}

/// An event was signalled by a flow that had stored this.
#[derive(Clone)]
struct Signal {
    by: Here,
    event: u64,
    stores: Words,
}

/// A flow has cleared it, and done nothing else since.
#[derive(Clone)]
struct Cleared {
    object: u64,
    signal: Signal,
    code: u64,
}

/// Who has signalled and cleared which events.
#[derive(Clone, Default)]
pub(super) struct WakeUps {
    /// By slot.
    accessed: Vec<Accessed>,
    signalled: BTreeMap<u64, Signal>,
    /// The events that flows are about to clear, and what those calls return to.
    clearing: BTreeMap<Slot, (u64, u64)>,
    cleared: BTreeMap<Slot, Cleared>,
}

/// What a call does to wake-ups.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Clears,
    Nothing,
    /// It may begin what the thread waits for.
    Begins,
}

/// What calls of this row do.
pub(super) fn does(export: u32) -> Does {
    static BY_ROW: OnceLock<Vec<Does>> = OnceLock::new();
    let named = |name: &str| match name {
        "KeClearEvent" | "KeResetEvent" => Does::Clears,
        _ if BEGIN_NOTHING.contains(&name) => Does::Nothing,
        _ => Does::Begins,
    };
    let by_row = BY_ROW.get_or_init(|| (0..).map_while(exports::row).map(|row| named(row.name)).collect());
    by_row.get(export as usize).copied().unwrap_or(Does::Begins)
}

/// Whether dispatcher objects of this type are events: `NotificationEvent`, `SynchronizationEvent`.
pub(super) const fn is_event(kind: u8) -> bool {
    kind <= 1
}

impl WakeUps {
    /// A flow loads or stores memory of the driver's.
    pub(super) fn access(&mut self, slot: Slot, event: u64, made: &MemoryAccess) {
        if made.bytes > WORD {
            return;
        }
        let word = made.address / WORD;
        let accessed = self.accessed(slot);
        if made.kind == AccessKind::Load {
            accessed.loads.note(word, event);
            // It looks again.
            if self.cleared.get(&slot).is_some_and(|cleared| cleared.signal.stores.of(word).is_some()) {
                self.cleared.remove(&slot);
            }
        } else {
            accessed.stores.note(word, event);
            self.begins(slot);
        }
    }

    fn accessed(&mut self, slot: Slot) -> &mut Accessed {
        let place = slot as usize;
        if place >= self.accessed.len() {
            self.accessed.resize_with(place + 1, Accessed::default);
        }
        &mut self.accessed[place]
    }

    /// An event is signalled.
    pub(super) fn signal(&mut self, object: u64, by: Here, event: u64) {
        let stores = self.accessed(by.slot).stores.clone();
        self.signalled.insert(object, Signal { by, event, stores });
    }

    /// An event has ended a wait, and is not signalled any more, or the flow knows that it was: it looks anew at what there is.
    pub(super) fn woke(&mut self, slot: Slot, object: u64) {
        self.signalled.remove(&object);
        self.accessed(slot).loads = Words::default();
    }

    /// A flow is about to clear an event, by a call that returns to `code`: others may come between.
    pub(super) fn begin_clearing(&mut self, slot: Slot, object: u64, code: u64) {
        self.clearing.insert(slot, (object, code));
    }

    /// It has cleared it.
    pub(super) fn clear(&mut self, slot: Slot) {
        self.cleared.remove(&slot);
        let Some((object, code)) = self.clearing.remove(&slot) else { return };
        if let Some(signal) = self.signalled.remove(&object).filter(|signal| signal.by.slot != slot) {
            self.cleared.insert(slot, Cleared { object, signal, code });
        }
    }

    /// A flow may have begun what it waits for.
    pub(super) fn begins(&mut self, slot: Slot) {
        self.cleared.remove(&slot);
    }

    /// Memory is another's from now on.
    pub(super) fn forget(&mut self, address: u64, bytes: u64) {
        let gone = address..address.saturating_add(bytes);
        self.signalled.retain(|object, _| !gone.contains(object));
    }

    /// A flow waits for an object, the first of so many: what has been lost.
    pub(super) fn wait(&mut self, flows: &Flows, here: Here, (object, count): (u64, u32)) -> Option<Verdict> {
        // What it has looked at before this wait says nothing of the next.
        let loads = std::mem::take(&mut self.accessed(here.slot).loads);
        let cleared =
            self.cleared.remove(&here.slot).filter(|cleared| cleared.object == object && count == 1)?;
        let Signal { by, event, stores } = &cleared.signal;
        let seen = stores.all().filter_map(|(word, stored)| Some((word, stored, loads.of(word)?)));
        let (unseen, again): (Vec<_>, Vec<_>) = seen.partition(|(_, stored, loaded)| loaded < stored);
        let (word, ..) = unseen.into_iter().min().filter(|_| again.is_empty())?;
        let message = format!(
            "{} clears the event {object:#x} by the call that returns to {:#x}, and waits for it; {} had signalled it, having stored at {:#x} what the \
             thread has read before that and not since: the signal is lost, and the thread waits although there is what it waits for",
            flows.who(here.routine),
            cleared.code,
            flows.who(by.routine),
            word * WORD
        );
        let related = vec![Related { what: "signalled", event: *event }];
        Some(Verdict { instruction: Some(cleared.code), related, ..Verdict::warning(RULE, message) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_by_which_nothing_is_begun_is_an_exports() {
        let is_named = |name: &str| (0..).map_while(exports::row).any(|row| row.name == name);
        let missing: Vec<&&str> = BEGIN_NOTHING.iter().filter(|name| !is_named(name)).collect();
        assert_eq!(missing, [&""; 0]);
    }
}
