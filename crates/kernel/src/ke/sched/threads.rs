//! All threads that have not been reaped, found by their strand.
//!
//! What a thread is, is in `thread`.

use std::ops::Index;

use engine::{ByStrand, StrandId};

use super::thread_record::Thread;

/// The threads. It goes through them in the order in which they were made.
#[derive(Default)]
pub(crate) struct Threads(ByStrand<Thread>);

impl Threads {
    /// The thread that is this strand.
    pub(crate) fn get(&self, strand: StrandId) -> Option<&Thread> {
        self.0.get(strand)
    }

    /// As [`Threads::get`], to change it.
    pub(crate) fn get_mut(&mut self, strand: StrandId) -> Option<&mut Thread> {
        self.0.get_mut(strand)
    }

    /// There is a new thread.
    pub(crate) fn insert(&mut self, thread: Thread) {
        self.0.insert(thread.strand, thread);
    }

    /// The thread is over.
    pub(crate) fn remove(&mut self, strand: StrandId) -> Option<Thread> {
        self.0.remove(strand)
    }

    /// The thread whose object this is.
    pub(in crate::ke) fn of_object(&self, object: u64) -> Option<&Thread> {
        self.iter().find(|thread| thread.object.address == object)
    }

    /// As [`Threads::iter`], to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Thread> {
        self.0.iter_mut()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Thread> {
        self.0.iter()
    }
}

impl Index<StrandId> for Threads {
    type Output = Thread;

    fn index(&self, strand: StrandId) -> &Thread {
        self.get(strand).expect("a thread that is named exists")
    }
}
