//! Files without a name: memory that is mapped to several places, or that two processes share.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// A file of so many zeros, called `name` where the host lists the process's files. No other process inherits it.
///
/// # Errors
/// The host's.
pub(crate) fn file(name: &str, bytes: u64) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, bytes)?;
    Ok(file)
}

/// Maps all of a file that another process has made, where the host finds room for it. Nothing unmaps it by itself.
///
/// # Errors
/// The host's; the file has another size.
pub(crate) fn map(file: &File, bytes: usize, access: ProtFlags) -> io::Result<NonNull<u8>> {
    if file.metadata()?.len() != bytes as u64 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a new mapping, at no address that anything else has.
    let memory = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, access, MapFlags::SHARED, file, 0) }?;
    NonNull::new(memory.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
