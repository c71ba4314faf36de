//! `kmdf-locks`: a client of KMDF releases a lock that it does not hold, waits for a wait lock that it holds, or sends a request with a spin lock held.
//!
//! Pages: *Using Framework Locks*, *WdfWaitLockAcquire function*, *WdfWaitLockRelease function*, *WdfSpinLockRelease function*, *ReqSendWhileSpinlock rule (kmdf)*. A wait lock that is acquired with a
//! time-out may not have been: of that lock nothing is said any more.

use std::collections::{BTreeMap, BTreeSet};

use engine::StrandId;
use kernel::event::{Event, Kind, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::follower::Follower;

/// The rule's name.
pub(super) const RULE: &str = "kmdf-locks";

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct KmdfLocks {
    /// Who has called to acquire each lock, and not to release it: by handle and thread. A spin lock more than once where a DPC has interrupted the
    /// call of a thread that has not got it yet.
    taken: BTreeMap<(u64, StrandId), u32>,
    /// Wait locks of which it is not known who holds them.
    unknown: BTreeSet<u64>,
    spin_locks: BTreeSet<u64>,
    found: Option<Verdict>,
}

impl KmdfLocks {
    fn called(&mut self, name: &str, strand: StrandId, lock: u64, timeout: u64) {
        match name {
            "WdfSpinLockAcquire" => {
                self.spin_locks.insert(lock);
                *self.taken.entry((lock, strand)).or_default() += 1;
            }
            "WdfRequestSend" => self.send(name, strand),
            "WdfSpinLockRelease" => self.release(name, strand, lock),
            "WdfWaitLockAcquire" if timeout != 0 => {
                self.unknown.insert(lock);
            }
            "WdfWaitLockAcquire" if self.unknown.contains(&lock) => {}
            "WdfWaitLockAcquire" if self.taken.insert((lock, strand), 1).is_none() => {}
            "WdfWaitLockAcquire" => {
                self.wrong(format!(
                    "{name}: the wait lock {lock:#x} is held by this thread: it waits for itself"
                ));
            }
            "WdfWaitLockRelease" if self.unknown.contains(&lock) => {}
            "WdfWaitLockRelease" => self.release(name, strand, lock),
            "WdfObjectDelete" => {
                self.taken.retain(|(taken, _), _| *taken != lock);
                self.unknown.remove(&lock);
                self.spin_locks.remove(&lock);
            }
            _ => {}
        }
    }

    fn release(&mut self, name: &str, strand: StrandId, lock: u64) {
        match self.taken.get_mut(&(lock, strand)) {
            Some(times) if *times > 1 => *times -= 1,
            Some(_) => drop(self.taken.remove(&(lock, strand))),
            None => self.wrong(format!("{name}: the lock {lock:#x} is not held by this thread")),
        }
    }

    /// Who gets the request may complete it at once, and what then runs may want the lock.
    fn send(&mut self, name: &str, strand: StrandId) {
        let is_held = |lock: &&u64| self.taken.contains_key(&(**lock, strand));
        if let Some(lock) = self.spin_locks.iter().find(is_held) {
            let message = format!("{name}: the spin lock {lock:#x} is held by this thread");
            self.found = Some(Verdict::warning("kmdf-locks", message));
        }
    }

    fn wrong(&mut self, message: String) {
        self.found = Some(Verdict::error("kmdf-locks", message));
    }
}

impl Follower for KmdfLocks {
    const OF_FRAMEWORK: bool = true;

    fn wants(kind: Kind) -> bool {
        kind == Kind::Ddi
    }

    fn follow(&mut self, stamp: &Stamp, event: &Event) {
        if let Event::Ddi { export, arguments, .. } = event
            && let Some(row) = exports::row(*export)
        {
            self.called(row.name, stamp.strand, arguments[1], arguments[2]);
        }
    }

    fn shows(&self) -> bool {
        self.found.is_some()
    }

    fn found(&mut self) -> Option<Verdict> {
        self.found.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follower::Following;
    use crate::rig::call;

    const LOCK: u64 = 0x1000;
    const TIMEOUT: u64 = 0x2000;

    /// What is said after these calls: the strand, the function, the time-out's address.
    fn said(calls: &[(u32, &str, u64)]) -> Option<String> {
        let events = calls.iter().map(|(strand, name, timeout)| (*strand, call(name, LOCK, *timeout)));
        crate::rig::said(&mut Following(KmdfLocks::default()), events)
    }

    const ACQUIRE: (u32, &str, u64) = (1, "WdfWaitLockAcquire", 0);
    const ACQUIRE_IN_TIME: (u32, &str, u64) = (1, "WdfWaitLockAcquire", TIMEOUT);
    const RELEASE: (u32, &str, u64) = (1, "WdfWaitLockRelease", 0);
    const OTHERS_ACQUIRE: (u32, &str, u64) = (2, "WdfWaitLockAcquire", 0);
    const OTHERS_RELEASE: (u32, &str, u64) = (2, "WdfWaitLockRelease", 0);
    const SPIN: (u32, &str, u64) = (1, "WdfSpinLockAcquire", 0);
    const DELETE: (u32, &str, u64) = (1, "WdfObjectDelete", 0);

    #[test]
    fn a_wait_lock_is_acquired_by_one_thread_once_and_released_by_it() {
        assert_eq!(said(&[ACQUIRE, RELEASE, ACQUIRE, RELEASE]), None);
        assert_eq!(said(&[ACQUIRE, OTHERS_ACQUIRE, RELEASE, OTHERS_RELEASE]), None, "the other waits");
        assert!(said(&[ACQUIRE, ACQUIRE]).unwrap().contains("it waits for itself"));
        assert!(said(&[ACQUIRE, OTHERS_RELEASE]).unwrap().contains("is not held by this thread"));
        assert!(said(&[ACQUIRE, RELEASE, RELEASE]).unwrap().contains("is not held by this thread"));
    }

    #[test]
    fn of_a_wait_lock_that_may_not_have_been_acquired_in_time_nothing_is_said() {
        assert_eq!(said(&[ACQUIRE_IN_TIME, ACQUIRE, ACQUIRE]), None);
        assert_eq!(said(&[ACQUIRE, ACQUIRE_IN_TIME, RELEASE, RELEASE]), None);
        assert_eq!(said(&[ACQUIRE_IN_TIME, OTHERS_RELEASE]), None);
        assert!(said(&[ACQUIRE_IN_TIME, DELETE, ACQUIRE, ACQUIRE]).is_some(), "a lock at the same address");
    }

    #[test]
    fn a_spin_lock_is_released_by_its_holder() {
        assert_eq!(said(&[SPIN, (1, "WdfSpinLockRelease", 0)]), None);
        assert!(said(&[SPIN, (2, "WdfSpinLockRelease", 0)]).is_some());
        assert_eq!(said(&[SPIN, DELETE, SPIN, (1, "WdfSpinLockRelease", 0)]), None);
        let release = (1, "WdfSpinLockRelease", 0);
        assert_eq!(said(&[SPIN, SPIN, release, release]), None, "a DPC had interrupted the first call");
        assert!(said(&[SPIN, SPIN, release, release, release]).is_some());
    }

    #[test]
    fn a_request_is_not_sent_with_a_spin_lock_held() {
        const SEND: (u32, &str, u64) = (1, "WdfRequestSend", 0);
        assert!(said(&[SPIN, SEND]).unwrap().contains("is held by this thread"));
        assert_eq!(said(&[SPIN, (1, "WdfSpinLockRelease", 0), SEND]), None);
        assert_eq!(said(&[SPIN, (2, "WdfRequestSend", 0)]), None, "another thread");
        assert_eq!(said(&[ACQUIRE, SEND]), None, "a wait lock");
    }
}
