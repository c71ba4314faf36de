//! SIGINT and SIGTERM in processes that run no driver code: one that has others make its runs notes the first of them, so that it can end these and
//! say what was done; and the others, which get what is sent to their group (by a terminal, or `timeout`), ignore it, and end when they are ended.
//!
//! A second one ends the process as it does any other. What is ignored when the process starts (`nohup`) stays ignored.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

const SIGNALS: [i32; 2] = [libc::SIGINT, libc::SIGTERM];

/// Whether one has come.
// tidy: a handler can reach nothing else.
static CAME: AtomicBool = AtomicBool::new(false);

extern "C" fn on_interrupt(_signal: i32) {
    CAME.store(true, Ordering::Relaxed);
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
        set(on_interrupt as *const () as usize, libc::SA_RESTART | libc::SA_RESETHAND)?;
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
    // SAFETY: all-zero is a valid sigaction, and the handler, if it is one, has the signature that goes without SA_SIGINFO: it stores a flag.
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
        drop(interrupts);
        let again = Interrupts::note().unwrap();
        assert!(!again.came().load(Ordering::Relaxed), "what came before is forgotten");
    }
}
