//! Whether the process was started without a standard output: Rust's run-time library opens `/dev/null` in its place before `main`,
//! and what is printed would be lost without a word. So it is looked at before that, as a constructor of the program.

use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: AtomicBool = AtomicBool::new(false);

extern "C" fn look() {
    // SAFETY: it asks for the flags of a file that need not be open, and changes nothing.
    let closed = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } == -1;
    CLOSED.store(closed, Ordering::Relaxed);
}

// SAFETY: the section is a list of such functions, which the loader calls one after the other; this one needs nothing of the run-time.
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK: extern "C" fn() = look;

/// Whether there was none.
#[must_use]
pub fn was_closed() -> bool {
    // So that the constructor is part of every program that asks.
    std::hint::black_box(&LOOK);
    CLOSED.load(Ordering::Relaxed)
}
