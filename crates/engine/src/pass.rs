//! A number that a process gets once its machine is gone, and that lies nowhere in the process before: with it the process that watches
//! distinguishes the final report from one that driver code has forged.
//!
//! A jailed process can read no pipe: the number comes through memory that both share, a file without a name. First a word that says
//! whether it is there, then the number. It does not say what the number is for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::ProtFlags;

use crate::nameless;

/// Bytes of the file: a page.
const BYTES: usize = 0x1000;

/// A file for [`Pass::new`] in one process and [`grant`] in the other.
///
/// # Errors
/// The host's.
pub fn file() -> io::Result<File> {
    Ok(nameless::file("dirql-pass", BYTES as u64)?.into())
}

/// Gives the number.
///
/// # Errors
/// The host's.
pub fn grant(file: &File, number: u64) -> io::Result<()> {
    file.write_all_at(&number.to_ne_bytes(), 8)?;
    file.write_all_at(&1_u64.to_ne_bytes(), 0)
}

/// Where the number will be, as its receiver sees it.
#[derive(Debug)]
pub struct Pass(NonNull<AtomicU64>);

impl Pass {
    /// In `file`.
    ///
    /// # Errors
    /// The host's; the file is not such a one.
    pub fn new(file: &File) -> io::Result<Self> {
        // It stays as long as the process.
        Ok(Self(nameless::map(file, BYTES, ProtFlags::READ)?.cast()))
    }

    /// Waits for the number.
    #[must_use]
    pub fn wait(&self) -> u64 {
        // SAFETY: two words of the mapping, which both processes use as atomics or by the host's calls.
        let [given, number] = unsafe { [self.0.as_ref(), self.0.add(1).as_ref()] };
        while given.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        number.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_comes_when_it_is_granted() {
        let file = super::file().unwrap();
        let pass = Pass::new(&file).unwrap();
        grant(&file, 0x1234_5678_9ABC_DEF0).unwrap();
        assert_eq!(pass.wait(), 0x1234_5678_9ABC_DEF0);
    }
}
