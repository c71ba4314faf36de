//! Whose turn it is: one machine is alive in a process at a time, because it lies at constant addresses.
//!
//! A thread that wants a machine waits until the one that has it has finished it: so the tests of one program may each make a machine,
//! however many threads they run on. *It does not* notice two threads that wait for each other by other means.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

static HOLDER: Mutex<Option<ThreadId>> = Mutex::new(None);
static GIVEN_BACK: Condvar = Condvar::new();

fn holder() -> MutexGuard<'static, Option<ThreadId>> {
    HOLDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no other thread has a machine, and takes the turn. False at once if this thread has one itself: it would wait for ever.
pub(crate) fn take() -> bool {
    let own = thread::current().id();
    let mut holder = holder();
    while let Some(thread) = *holder {
        if thread == own {
            return false;
        }
        holder = GIVEN_BACK.wait(holder).unwrap_or_else(PoisonError::into_inner);
    }
    *holder = Some(own);
    true
}

/// Gives the turn back; one of the threads that wait gets it.
pub(crate) fn give_back() {
    *holder() = None;
    GIVEN_BACK.notify_one();
}
