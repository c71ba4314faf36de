//! SIGINT and SIGTERM in processes that run no driver code: one that has others make its runs notes the first of them, so that it can end these and
//! say what was done; and the others, which get what is sent to their group (by a terminal, or `timeout`), ignore it, and end when they are ended.
//!
//! A later one ends the process as it does any other. `timeout` sends one to its command, and at once another to the group that both are in: what follows so soon is the
//! same. What is ignored when the process starts (`nohup`) stays ignored.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

const SIGNALS: [i32; 2] = [libc::SIGINT, libc::SIGTERM];

/// Whether one has come.
// tidy: a handler can reach nothing else.
static CAME: AtomicBool = AtomicBool::new(false);

/// When the first came, in milliseconds of the host's clock.
// tidy: as above.
static FIRST: AtomicI64 = AtomicI64::new(0);

/// So many milliseconds behind the first, another is the same.
const THE_SAME: i64 = 500;

extern "C" fn on_interrupt(signal: i32) {
    if !CAME.load(Ordering::Relaxed) {
        FIRST.store(now(), Ordering::Relaxed);
        CAME.store(true, Ordering::Relaxed);
    } else if now() - FIRST.load(Ordering::Relaxed) > THE_SAME {
        // SAFETY: both may be called by a handler. It is delivered when this one is over.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}

fn now() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it may be called by a handler, and writes to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// While it lives, the first interrupt is noted.
#[derive(Debug)]
pub struct Interrupts(());

impl Interrupts {
    /// From now on.
    ///
    /// # Errors
    /// The host's.
    pub fn note() -> io::Result<Self> {
        CAME.store(false, Ordering::Relaxed);
        set(on_interrupt as *const () as usize, libc::SA_RESTART)?;
        Ok(Self(()))
    }

    /// Set once one has come.
    #[must_use]
    pub fn came(&self) -> &'static AtomicBool {
        &CAME
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // What could be set once can be set again.
        let _ = set(libc::SIG_DFL, 0);
    }
}

/// From now on they do nothing to this process.
///
/// # Errors
/// The host's.
pub fn ignore() -> io::Result<()> {
    set(libc::SIG_IGN, 0)
}

fn set(handler: usize, flags: i32) -> io::Result<()> {
    SIGNALS.into_iter().try_for_each(|signal| change(signal, handler, flags))
}

fn change(signal: i32, handler: usize, flags: i32) -> io::Result<()> {
    // SAFETY: all-zero is a valid sigaction, and the handler, if it is one, has the signature that goes without SA_SIGINFO: it stores a flag and a time.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &raw mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        if before.sa_sigaction == libc::SIG_IGN {
            return Ok(());
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        if libc::sigaction(signal, &raw const action, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_interrupt_is_noted() {
        let interrupts = Interrupts::note().unwrap();
        assert!(!interrupts.came().load(Ordering::Relaxed));
        // SAFETY: a handler is installed for it.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
        assert!(interrupts.came().load(Ordering::Relaxed));
        // SAFETY: as above; this one is the same, or the test ends here.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
        drop(interrupts);
        let again = Interrupts::note().unwrap();
        assert!(!again.came().load(Ordering::Relaxed), "what came before is forgotten");
    }

    #[test]
    fn a_later_interrupt_ends_the_process() {
        let _interrupts = Interrupts::note().unwrap();
        let (soon, later) = (THE_SAME / 10, THE_SAME + 100);
        for (pause, expected) in [(soon, None), (later, Some(libc::SIGTERM))] {
            // SAFETY: the child calls what a handler may call, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let pause = libc::timespec { tv_sec: 0, tv_nsec: pause * 1_000_000 };
                // SAFETY: as above; the first is the one that is noted.
                unsafe {
                    libc::raise(libc::SIGTERM);
                    libc::nanosleep(&raw const pause, std::ptr::null_mut());
                    libc::raise(libc::SIGTERM);
                    libc::_exit(0);
                }
            }
            let mut status = 0;
            // SAFETY: it writes to a local.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            let ended_by = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
            assert_eq!(ended_by, expected, "after {pause} ms");
        }
    }
}
