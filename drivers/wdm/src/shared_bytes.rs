//! Memory that others write at any moment: an application, a card. Bytes go in and out by copying, each once.
//!
//! It follows no page. All accesses are volatile; words of 8 bytes are used where this side is aligned, so nothing is known of the order of
//! bytes.

use abi::NtStatus;

use crate::register::Width;

/// An access would not lie in the request's pages, or in the buffer; or it is not aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfBuffer;

impl From<OutOfBuffer> for NtStatus {
    fn from(_: OutOfBuffer) -> Self {
        Self::INVALID_BUFFER_SIZE
    }
}

type Result<T> = core::result::Result<T, OutOfBuffer>;

/// Bytes at an address of the driver's.
#[derive(Clone, Copy)]
pub(crate) struct SharedBytes {
    address: *mut u8,
    length: usize,
}

impl SharedBytes {
    /// # Safety
    /// The bytes can be read for as long as this is used, and written where `copy_to` or `write` is.
    pub(crate) unsafe fn new(address: *mut u8, length: usize) -> Self {
        Self { address, length }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Where `length` bytes at `offset` lie.
    fn at(&self, offset: usize, length: usize) -> Result<*mut u8> {
        let fits = offset.checked_add(length).is_some_and(|end| end <= self.length);
        fits.then(|| self.address.wrapping_add(offset)).ok_or(OutOfBuffer)
    }

    pub(crate) fn copy_from(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        let mut at = self.at(offset, to.len())?.cast_const();
        let (head, rest) = to.split_at_mut(bytes_to_alignment(at).min(to.len()));
        let (words, tail) = rest.as_chunks_mut::<8>();
        // SAFETY: `at` and all that follows lie in the memory, as `self.at` has seen; words are aligned. Others may write meanwhile:
        // each access is volatile, and any bytes are good.
        unsafe {
            for byte in head {
                *byte = at.read_volatile();
                at = at.wrapping_add(1);
            }
            for word in words {
                *word = at.cast::<u64>().read_volatile().to_ne_bytes();
                at = at.wrapping_add(8);
            }
            for byte in tail {
                *byte = at.read_volatile();
                at = at.wrapping_add(1);
            }
        }
        Ok(())
    }

    pub(crate) fn copy_to(&self, offset: usize, from: &[u8]) -> Result<()> {
        let mut at = self.at(offset, from.len())?;
        let (head, rest) = from.split_at(bytes_to_alignment(at).min(from.len()));
        let (words, tail) = rest.as_chunks::<8>();
        // SAFETY: `at` and all that follows lie in the memory, as `self.at` has seen, which can be written, as `new` was promised; words
        // are aligned. Others may read and write meanwhile: each access is volatile.
        unsafe {
            for byte in head {
                at.write_volatile(*byte);
                at = at.wrapping_add(1);
            }
            for word in words {
                at.cast::<u64>().write_volatile(u64::from_ne_bytes(*word));
                at = at.wrapping_add(8);
            }
            for byte in tail {
                at.write_volatile(*byte);
                at = at.wrapping_add(1);
            }
        }
        Ok(())
    }

    /// Where a `T` at `offset` lies, aligned.
    fn place<T: Width>(&self, offset: usize) -> Result<usize> {
        let at = self.at(offset, T::BYTES as usize)?;
        if at.addr().is_multiple_of(T::BYTES as usize) {
            Ok(at.expose_provenance())
        } else {
            Err(OutOfBuffer)
        }
    }

    pub(crate) fn read<T: Width>(&self, offset: usize) -> Result<T> {
        // SAFETY: it lies in the memory, aligned; one volatile access.
        self.place::<T>(offset).map(|at| unsafe { T::read_memory(at) })
    }

    pub(crate) fn write<T: Width>(&self, offset: usize, value: T) -> Result<()> {
        // SAFETY: it lies in the memory, aligned, which can be written, as `new` was promised; one volatile access.
        self.place::<T>(offset).map(|at| unsafe { T::write_memory(at, value) })
    }
}

/// Bytes up to the next multiple of 8.
fn bytes_to_alignment(address: *const u8) -> usize {
    address.addr().wrapping_neg() & 7
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(memory: &mut [u64; 4]) -> SharedBytes {
        // SAFETY: the memory is the test's own, and outlives this.
        unsafe { SharedBytes::new(memory.as_mut_ptr().cast(), 32) }
    }

    #[test]
    fn bytes_at_any_alignment_come_back_as_they_went_and_no_others_change() {
        for offset in 0..12 {
            for length in 0..20 {
                let mut memory = [u64::MAX; 4];
                let pages = pages(&mut memory);
                let sent: std::vec::Vec<u8> = (1..=20).take(length).collect();
                pages.copy_to(offset, &sent).unwrap();
                let mut received = [0; 20];
                pages.copy_from(offset, &mut received[..length]).unwrap();
                assert_eq!(&received[..length], sent, "{length} bytes at {offset}");
                let mut all = [0; 32];
                pages.copy_from(0, &mut all).unwrap();
                let others = all[..offset].iter().chain(&all[offset + length..]);
                assert!(others.copied().all(|byte| byte == 0xFF), "{length} bytes at {offset}");
            }
        }
    }

    #[test]
    fn what_does_not_lie_in_the_pages_is_not_copied() {
        let mut memory = [7; 4];
        let pages = pages(&mut memory);
        assert_eq!(pages.copy_to(25, &[1; 8]), Err(OutOfBuffer));
        assert_eq!(pages.copy_to(usize::MAX, &[1]), Err(OutOfBuffer));
        assert_eq!(pages.copy_from(33, &mut []), Err(OutOfBuffer));
        assert_eq!(pages.copy_to(32, &[]), Ok(()));
        assert_eq!(memory, [7; 4]);
    }

    #[test]
    fn a_word_is_read_and_written_whole_where_it_is_aligned() {
        let mut memory = [0; 4];
        let pages = pages(&mut memory);
        assert_eq!(pages.write(4, 0x0403_0201_u32), Ok(()));
        assert_eq!((pages.read::<u8>(4), pages.read::<u16>(6)), (Ok(1), Ok(0x0403)));
        assert_eq!((pages.read::<u32>(2), pages.read::<u32>(29)), (Err(OutOfBuffer), Err(OutOfBuffer)));
    }
}
