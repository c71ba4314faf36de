//! What `guarantees` holds a machine to where it reads details too: locks whose holders the kernel itself remembers, and APCs.
//!
//! - A spin lock or push lock that one has alone no other has, and it is given back where it is held: a spin lock on the processor, a push
//!   lock in the thread that acquired it (*Introduction to Spin Locks*, *Reader/Writer Spin Locks*, *ExAcquirePushLockExclusive macro*).
//! - A thread carries out the APCs that were queued for it, each once and in their order (*Types of APCs*).
//!
//! Who owns a mutex, a fast mutex or a remove lock stands in memory of drivers, which may have overwritten it: nothing is promised of those.

use std::collections::{BTreeMap, VecDeque};

use engine::StrandId;
use kernel::event::{Event, Kind, LockKind, Stamp};

/// One that has a lock: its processor or its strand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    Processor(u32),
    Thread(StrandId),
}

/// Who would have a lock of this kind now, and whether alone; none where the kernel does not remember it.
const fn holder(stamp: &Stamp, kind: LockKind) -> Option<(Holder, bool)> {
    let (processor, thread) = (Holder::Processor(stamp.processor), Holder::Thread(stamp.strand));
    match kind {
        LockKind::Spin | LockKind::ExclusiveSpin => Some((processor, true)),
        LockKind::SharedSpin => Some((processor, false)),
        LockKind::PushLock => Some((thread, true)),
        LockKind::SharedPushLock => Some((thread, false)),
        _ => None,
    }
}

/// What is held and queued.
#[derive(Clone, Default)]
pub(crate) struct Promises {
    locks: BTreeMap<u64, Vec<(Holder, bool)>>,
    apcs: BTreeMap<StrandId, VecDeque<u64>>,
}

impl Promises {
    /// Whether it looks at details of this kind.
    pub(crate) const fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::LockAcquired | Kind::LockReleased | Kind::ApcQueued | Kind::ApcRun)
    }

    /// What is wrong with an event, if anything is.
    pub(crate) fn follow(&mut self, stamp: &Stamp, event: &Event) -> Option<&'static str> {
        match *event {
            Event::LockAcquired { lock, kind } => {
                let (holder, alone) = holder(stamp, kind)?;
                let holders = self.locks.entry(lock).or_default();
                let had = if alone { !holders.is_empty() } else { holders.iter().any(|(_, alone)| *alone) };
                holders.push((holder, alone));
                had.then_some("a lock that one has alone is acquired once more")
            }
            Event::LockReleased { lock, kind } => {
                let own = holder(stamp, kind)?;
                let holders = self.locks.entry(lock).or_default();
                let place = holders.iter().rposition(|holder| *holder == own);
                place.map(|place| holders.remove(place));
                if holders.is_empty() {
                    self.locks.remove(&lock);
                }
                place.is_none().then_some("a lock is given back where it is not held")
            }
            Event::ApcQueued { object, thread } => {
                self.apcs.entry(thread).or_default().push_back(object);
                None
            }
            Event::ApcRun { object } => {
                let queued = self.apcs.get_mut(&stamp.strand).and_then(VecDeque::pop_front);
                (queued != Some(object)).then_some("an APC runs that is not the next of its thread")
            }
            _ => None,
        }
    }
}
