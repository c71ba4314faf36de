//! Output of a process that may die at any instruction: what it has written and not yet handed to its pipe lies in memory that it
//! shares with the process that watches it, which prints the rest.
//!
//! So output needs a system call for each 64 KiB and not for each line, and lines that were written before a death are printed after it. Of a
//! death while bytes go to the pipe, some may be printed twice. A driver on a machine that is not checked can write over the memory, as
//! over all of its process; a process that is not watched has no outbox.
//!
//! The memory is a file without a name: two words, where the rest begins and where it ends, and then the bytes. The reader believes neither.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::ProtFlags;

use crate::nameless;

/// Bytes that wait at most.
const ROOM: usize = 1 << 16;
/// Before them: where they begin and where they end.
const WORDS: usize = 16;

/// Bytes on their way to `out`.
pub struct Outbox<W: Write> {
    memory: NonNull<u8>,
    out: W,
    /// What is on its way is handed on from here: another outbox of the same file may change the memory meanwhile.
    handed: Vec<u8>,
}

// SAFETY: the mapping is its own, and lies there for every thread.
unsafe impl<W: Write + Send> Send for Outbox<W> {}

/// A file for [`Outbox::new`] in one process and [`rest`] in the other.
///
/// # Errors
/// The host's.
pub fn file() -> io::Result<File> {
    Ok(nameless::file("dirql-outbox", (WORDS + ROOM) as u64)?.into())
}

impl<W: Write> Outbox<W> {
    /// Collects in `file` what goes to `out`.
    ///
    /// # Errors
    /// The host's; the file is not such a one.
    pub fn new(file: &File, out: W) -> io::Result<Self> {
        let memory = nameless::map(file, WORDS + ROOM, ProtFlags::READ | ProtFlags::WRITE)?;
        Ok(Self { memory, out, handed: Vec::with_capacity(ROOM) })
    }

    /// Where the rest begins (0) and where it ends (1).
    fn word(&self, which: usize) -> &AtomicU64 {
        // SAFETY: in the mapping and aligned; nothing else refers to these words but as atomics.
        unsafe { &*self.memory.as_ptr().cast::<AtomicU64>().add(which) }
    }

    fn rest(&self) -> (usize, usize) {
        let place =
            |which| usize::try_from(self.word(which).load(Ordering::Relaxed)).unwrap_or(ROOM).min(ROOM);
        (place(0), place(1))
    }

    fn set(&self, which: usize, place: usize) {
        // Bytes first: a signal may end the process between two instructions.
        self.word(which).store(place as u64, Ordering::Release);
    }
}

impl<W: Write> Write for Outbox<W> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > ROOM - self.rest().1 {
            self.flush()?;
            if bytes.len() > ROOM {
                return self.out.write(bytes);
            }
        }
        let (_, end) = self.rest();
        // SAFETY: it ends within the mapping, and there is no other reference to bytes of it.
        unsafe {
            let to = self.memory.as_ptr().add(WORDS + end);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.set(1, end + bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        loop {
            let (begin, end) = self.rest();
            if begin >= end {
                break;
            }
            self.handed.resize(end - begin, 0);
            // SAFETY: both places are within the mapping, to which there is no reference, and the buffer is as long.
            unsafe {
                let from = self.memory.as_ptr().add(WORDS + begin);
                std::ptr::copy_nonoverlapping(from, self.handed.as_mut_ptr(), end - begin);
            }
            match self.out.write(&self.handed) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.set(0, begin + written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // In this order: a rest that ends before it begins is none.
        self.set(1, 0);
        self.set(0, 0);
        self.out.flush()
    }
}

impl<W: Write> Drop for Outbox<W> {
    fn drop(&mut self) {
        let _ = self.flush();
        // SAFETY: the mapping that `new` made; nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), WORDS + ROOM) };
    }
}

/// What a process that has ended has left in `file`.
///
/// # Errors
/// The host's.
pub fn rest(file: &File) -> io::Result<Vec<u8>> {
    let mut words = [0; WORDS];
    file.read_exact_at(&mut words, 0)?;
    let ([begin, end], _) = words.as_chunks::<8>() else { return Ok(Vec::new()) };
    let place = |word: &[u8; 8]| usize::try_from(u64::from_le_bytes(*word)).unwrap_or(ROOM).min(ROOM);
    let (begin, end) = (place(begin), place(end));
    let mut bytes = vec![0; end.saturating_sub(begin)];
    file.read_exact_at(&mut bytes, (WORDS + begin) as u64)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_handed_on_is_found_by_another_and_the_rest_is_in_order() {
        let file = super::file().unwrap();
        let mut outbox = Outbox::new(&file, Vec::new()).unwrap();
        outbox.write_all(b"one\n").unwrap();
        assert_eq!((rest(&file).unwrap().as_slice(), outbox.out.len()), (b"one\n".as_slice(), 0));
        outbox.flush().unwrap();
        assert_eq!((rest(&file).unwrap().len(), outbox.out.as_slice()), (0, b"one\n".as_slice()));
        for number in 0..40_000 {
            outbox.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        outbox.write_all(&vec![b'.'; 2 * ROOM]).unwrap();
        let mut all = std::mem::take(&mut outbox.out);
        all.extend(rest(&file).unwrap());
        let numbers: String = (0..40_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(all.len(), 4 + numbers.len() + 2 * ROOM);
        assert!(all[4..].starts_with(numbers.as_bytes()));
    }

    /// Hands nothing on before it has written to another outbox of the same file.
    struct Meddling(File, Vec<u8>);

    impl Write for Meddling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let before = bytes.to_vec();
            self.0.write_all_at(b"other", WORDS as u64)?;
            assert_eq!(bytes, before, "bytes that are handed on cannot change");
            self.1.extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_handed_on_stays_whatever_another_outbox_of_the_file_does() {
        let file = super::file().unwrap();
        let mut outbox = Outbox::new(&file, Meddling(file.try_clone().unwrap(), Vec::new())).unwrap();
        outbox.write_all(b"first").unwrap();
        outbox.flush().unwrap();
        assert_eq!(outbox.out.1, b"first");
    }

    #[test]
    fn a_file_that_says_nonsense_of_itself_is_read_within_its_bounds() {
        let file = super::file().unwrap();
        file.write_all_at(&u64::MAX.to_le_bytes(), 8).unwrap();
        assert_eq!(rest(&file).unwrap().len(), ROOM);
        file.write_all_at(&u64::MAX.to_le_bytes(), 0).unwrap();
        assert_eq!(rest(&file).unwrap().len(), 0);
    }
}
