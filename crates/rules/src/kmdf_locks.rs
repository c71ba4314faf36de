//! `kmdf-locks`: a client of KMDF releases a lock that it does not hold, or waits for a wait lock that it holds.
//!
//! Pages: *Using Framework Locks*, *WdfWaitLockAcquire function*, *WdfWaitLockRelease function*, *WdfSpinLockRelease function*. A wait lock that is acquired with a
//! time-out may not have been: of that lock nothing is said any more.

use std::any::Any;
use std::collections::BTreeSet;

use engine::StrandId;
use kernel::event::{Event, Judgement, Kind, Reader, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

/// The rule's name.
pub(super) const RULE: &str = "kmdf-locks";

/// The reader.
#[derive(Clone, Default)]
pub struct KmdfLocks {
    /// Who has called to acquire each lock, and not to release it: by handle and thread.
    taken: BTreeSet<(u64, StrandId)>,
    /// Wait locks of which it is not known who holds them.
    unknown: BTreeSet<u64>,
    found: Option<String>,
}

impl KmdfLocks {
    fn called(&mut self, name: &str, strand: StrandId, lock: u64, timeout: u64) {
        match name {
            "WdfSpinLockAcquire" => {
                self.taken.insert((lock, strand));
            }
            "WdfSpinLockRelease" => self.release(name, strand, lock),
            "WdfWaitLockAcquire" if timeout != 0 => {
                self.unknown.insert(lock);
            }
            "WdfWaitLockAcquire" if self.unknown.contains(&lock) => {}
            "WdfWaitLockAcquire" if self.taken.insert((lock, strand)) => {}
            "WdfWaitLockAcquire" => {
                self.found = Some(format!(
                    "{name}: the wait lock {lock:#x} is held by this thread: it waits for itself"
                ));
            }
            "WdfWaitLockRelease" if self.unknown.contains(&lock) => {}
            "WdfWaitLockRelease" => self.release(name, strand, lock),
            "WdfObjectDelete" => {
                self.taken.retain(|(taken, _)| *taken != lock);
                self.unknown.remove(&lock);
            }
            _ => {}
        }
    }

    fn release(&mut self, name: &str, strand: StrandId, lock: u64) {
        if !self.taken.remove(&(lock, strand)) {
            self.found = Some(format!("{name}: the lock {lock:#x} is not held by this thread"));
        }
    }
}

impl Reader for KmdfLocks {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Ddi
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        if let Event::Ddi { export, arguments, .. } = event
            && let Some(row) = exports::row(*export)
        {
            self.called(row.name, stamp.strand, arguments[1], arguments[2]);
        }
    }

    fn judges(&self) -> bool {
        true
    }

    fn judgement(&mut self) -> Option<Judgement> {
        let message = self.found.take()?;
        Some(Judgement::Finding(Box::new(Verdict::error("kmdf-locks", message))))
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.clone()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        self.clone_from(saved.downcast_ref().expect("it gave its state"));
    }
}
