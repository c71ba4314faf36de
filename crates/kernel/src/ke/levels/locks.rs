//! Spin locks that are held, and by which processor: while one holds any, its level must not fall below DISPATCH_LEVEL.
//!
//! How they are acquired is in `spinlock`, and in `ex::spinlock` for those of readers and writers.

use crate::event::LockKind;

/// How a lock is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// A `KSPIN_LOCK`.
    Plain,
    /// An `EX_SPIN_LOCK`, with others.
    Shared,
    /// An `EX_SPIN_LOCK`.
    Alone,
}

impl Mode {
    /// As events have it.
    pub(crate) const fn kind(self) -> LockKind {
        match self {
            Self::Plain => LockKind::Spin,
            Self::Shared => LockKind::SharedSpin,
            Self::Alone => LockKind::ExclusiveSpin,
        }
    }
}

/// Who holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) processor: u32,
    pub(crate) mode: Mode,
    /// What its memory holds: 1, or the queue handle of an in-stack queued acquire.
    pub(in crate::ke) value: u64,
    /// The clock when it was acquired.
    pub(crate) since: u64,
    /// Where the driver goes on after that; for an interrupt's own lock, what it interrupted.
    pub(crate) place: u64,
    /// The moment of that.
    pub(crate) taken: u64,
}

/// All locks that are held.
#[derive(Default)]
pub(crate) struct Locks {
    /// By address, one for each that shares it. There are few, and they come and go: a tree would allocate for each.
    held: Vec<(u64, Held)>,
    /// Reader/writer locks, and the processors that wait to have them alone.
    wanted: Vec<(u64, u32)>,
}

impl Locks {
    /// Who holds the lock; the first of those that share it.
    pub(crate) fn holder(&self, lock: u64) -> Option<Held> {
        self.holders(lock).next()
    }

    /// All who hold the lock.
    pub(crate) fn holders(&self, lock: u64) -> impl Iterator<Item = Held> {
        self.held.iter().filter(move |(at, _)| *at == lock).map(|(_, held)| *held)
    }

    /// How this processor holds the lock, if it does.
    pub(crate) fn of_processor(&self, lock: u64, processor: u32) -> Option<Held> {
        self.holders(lock).find(|held| held.processor == processor)
    }

    pub(in crate::ke) fn insert(&mut self, lock: u64, held: Held) {
        let at = self.held.partition_point(|(other, _)| *other <= lock);
        self.held.insert(at, (lock, held));
    }

    /// This processor holds the lock once less.
    pub(crate) fn remove(&mut self, lock: u64, processor: u32, mode: Mode) {
        let is_it =
            |(at, held): &(u64, Held)| *at == lock && held.processor == processor && held.mode == mode;
        if let Some(at) = self.held.iter().rposition(is_it) {
            self.held.remove(at);
        }
    }

    /// Whether a processor waits to have the reader/writer lock alone.
    pub(crate) fn is_wanted(&self, lock: u64) -> bool {
        self.wanting(lock).next().is_some()
    }

    /// The processors that wait to have the reader/writer lock alone.
    pub(in crate::ke) fn wanting(&self, lock: u64) -> impl Iterator<Item = u32> {
        self.wanted.iter().filter(move |(at, _)| *at == lock).map(|(_, processor)| *processor)
    }

    /// This processor begins to wait to have it alone.
    pub(crate) fn want(&mut self, lock: u64, processor: u32) {
        self.wanted.push((lock, processor));
    }

    /// It waits no longer.
    pub(crate) fn want_no_more(&mut self, lock: u64, processor: u32) {
        self.wanted.retain(|wanted| *wanted != (lock, processor));
    }

    /// Whether one more may share the reader/writer lock.
    pub(crate) fn can_be_shared(&self, lock: u64) -> bool {
        self.holders(lock).all(|held| held.mode == Mode::Shared) && !self.is_wanted(lock)
    }

    /// The locks this processor holds.
    pub(crate) fn of(&self, processor: u32) -> impl Iterator<Item = (u64, Held)> {
        let own = self.held.iter().filter(move |(_, held)| held.processor == processor);
        own.copied()
    }

    /// Whether the lock is held.
    pub(crate) fn is_held(&self, lock: u64) -> bool {
        self.holder(lock).is_some()
    }

    /// Whether this processor holds the lock.
    pub(crate) fn is_held_by(&self, lock: u64, processor: u32) -> bool {
        self.of_processor(lock, processor).is_some()
    }

    /// Whether this processor has acquired the plain lock, whose memory should hold `value`.
    pub(in crate::ke) fn is_own(&self, lock: u64, processor: u32, value: u64) -> bool {
        let own = |held: Held| held.processor == processor && held.value == value && held.mode == Mode::Plain;
        self.holder(lock).is_some_and(own)
    }

    /// The lock that is held with this handle, and the processor that holds it.
    pub(in crate::ke) fn acquired_by(&self, handle: u64) -> Option<(u64, u32)> {
        let with_it = |(_, held): &&(u64, Held)| held.value == handle && held.mode == Mode::Plain;
        self.held.iter().find(with_it).map(|(lock, held)| (*lock, held.processor))
    }

    /// A lock this processor holds: the one it acquired last.
    pub(crate) fn held_by(&self, processor: u32) -> Option<u64> {
        let own = self.held.iter().filter(|(_, held)| held.processor == processor);
        own.max_by_key(|(_, held)| held.since).map(|(lock, _)| *lock)
    }

    /// The hold of this processor that began last.
    pub(crate) fn last_of(&self, processor: u32) -> Option<Held> {
        self.held_by(processor).and_then(|lock| self.holder(lock))
    }

    /// The locks of `base..base+length` are held no longer.
    pub(crate) fn forget(&mut self, base: u64, length: u64) {
        self.held.retain(|(lock, _)| lock.wrapping_sub(base) >= length);
    }

    /// Whether none is held.
    #[inline]
    pub(in crate::ke) fn is_none_held(&self) -> bool {
        self.held.is_empty()
    }

    /// How many locks this processor holds.
    pub(crate) fn count(&self, processor: u32) -> usize {
        // Mostly none is held.
        if self.held.is_empty() {
            return 0;
        }
        self.held.iter().filter(|(_, held)| held.processor == processor).count()
    }

    /// A lock of `base..base+length` that is held.
    pub(in crate::ke) fn any_in(&self, base: u64, length: u64) -> Option<u64> {
        self.held.iter().map(|(lock, _)| *lock).find(|lock| lock.wrapping_sub(base) < length)
    }
}
