//! All threads that have not been reaped, found by their strand.
//!
//! Strands are numbered from 1 on and never again, so a thread lies at its strand's number. What a thread is, is in
//! `thread`.

use std::ops::Index;

use engine::StrandId;

use super::thread::Thread;

/// The threads. It goes through them in the order in which they were made.
#[derive(Default)]
pub(crate) struct Threads {
    by_strand: Vec<Option<Box<Thread>>>,
}

impl Threads {
    /// The thread that is this strand.
    pub(crate) fn get(&self, strand: StrandId) -> Option<&Thread> {
        self.by_strand.get(strand.0 as usize)?.as_deref()
    }

    /// As [`Threads::get`], to change it.
    pub(crate) fn get_mut(&mut self, strand: StrandId) -> Option<&mut Thread> {
        self.by_strand.get_mut(strand.0 as usize)?.as_deref_mut()
    }

    /// There is a new thread.
    pub(crate) fn insert(&mut self, thread: Thread) {
        let place = thread.strand.0 as usize;
        if self.by_strand.len() <= place {
            self.by_strand.resize_with(place + 1, || None);
        }
        self.by_strand[place] = Some(Box::new(thread));
    }

    /// The thread is over.
    pub(crate) fn remove(&mut self, strand: StrandId) -> Option<Thread> {
        self.by_strand.get_mut(strand.0 as usize)?.take().map(|thread| *thread)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Thread> {
        self.by_strand.iter().flatten().map(|thread| &**thread)
    }
}

impl Index<StrandId> for Threads {
    type Output = Thread;

    fn index(&self, strand: StrandId) -> &Thread {
        self.get(strand).expect("a thread that is named exists")
    }
}
