//! The image as the loader would lay it out, read by RVA, without allocating its whole size.
//!
//! Headers and sections are kept as the file holds them, each zero-filled to the end of its last page. Every read is
//! checked; none crosses from one part into another. It does not relocate: see `load`.

use object::pod::{Pod, from_bytes};

use crate::protection::PAGE;

/// One contiguous part of the image: the headers or a section.
#[derive(Clone)]
pub(crate) struct Part {
    /// Where it begins.
    pub(crate) rva: u32,
    /// Bytes it occupies in memory; what `bytes` does not cover is zero.
    pub(crate) size: u32,
    /// Its first bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Part {
    /// A part of `size` bytes that begins with `raw`. What of `raw` is beyond `size` is dropped.
    pub(crate) fn new(rva: u32, size: u32, raw: &[u8]) -> Self {
        let kept = raw.get(..size as usize).unwrap_or(raw);
        let mut bytes = kept.to_vec();
        bytes.resize(kept.len().next_multiple_of(PAGE as usize).min(size as usize), 0);
        Self { rva, size, bytes }
    }
}

/// The parts in ascending order; none overlaps another.
#[derive(Clone)]
pub(crate) struct Memory {
    parts: Vec<Part>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| part.rva..part.rva + part.size)).finish()
    }
}

impl Memory {
    /// `parts` must be sorted and apart: `headers` has checked it.
    pub(crate) fn new(parts: Vec<Part>) -> Self {
        Self { parts }
    }

    /// The parts, in ascending order; the first is the headers.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The kept bytes from `rva` to the end of its part; empty if `rva` is in none.
    pub(crate) fn tail(&self, rva: u32) -> &[u8] {
        let after = self.parts.partition_point(|part| part.rva <= rva);
        let Some(part) = after.checked_sub(1).and_then(|index| self.parts.get(index)) else { return &[] };
        part.bytes.get((rva - part.rva) as usize..).unwrap_or(&[])
    }

    /// `length` bytes at `rva`, if one part keeps them all.
    pub(crate) fn bytes(&self, rva: u32, length: u32) -> Option<&[u8]> {
        self.tail(rva).get(..length as usize)
    }

    /// A structure of the file format at `rva`.
    pub(crate) fn read<T: Pod + Copy>(&self, rva: u32) -> Option<T> {
        from_bytes::<T>(self.tail(rva)).ok().map(|(value, _)| *value)
    }

    /// A little-endian `u16`.
    pub(crate) fn u16(&self, rva: u32) -> Option<u16> {
        self.tail(rva).first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
    }

    /// A little-endian `u32`.
    pub(crate) fn u32(&self, rva: u32) -> Option<u32> {
        self.tail(rva).first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// A little-endian `u64`.
    pub(crate) fn u64(&self, rva: u32) -> Option<u64> {
        self.tail(rva).first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The text before the first NUL at `rva`, if that is 1 to [`MAX_NAME`] bytes; what is not UTF-8 is replaced.
    pub(crate) fn name(&self, rva: u32) -> Option<String> {
        let tail = self.tail(rva);
        let window = tail.get(..=MAX_NAME).unwrap_or(tail);
        let length = window.iter().position(|&byte| byte == 0)?;
        (length > 0).then(|| String::from_utf8_lossy(&window[..length]).into_owned())
    }
}

/// Bytes in the longest name that is read from a file, without its NUL.
pub(crate) const MAX_NAME: usize = 1024;
