//! Reads little-endian values one after another; past the end there is `None`.
//!
//! It knows nothing of what it reads.

/// Bytes yet to be read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'b>(pub(super) &'b [u8]);

impl<'b> Reader<'b> {
    /// The next `length` bytes.
    pub(super) fn bytes(&mut self, length: usize) -> Option<&'b [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_le_bytes(*head))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*head))
    }

    /// A 32-bit length, then as many bytes.
    pub(super) fn sized(&mut self) -> Option<&'b [u8]> {
        let length = self.u32()?;
        self.bytes(length as usize)
    }

    /// The bytes before the next NUL, which is passed over.
    pub(super) fn text(&mut self) -> Option<&'b [u8]> {
        let length = self.0.iter().position(|&byte| byte == 0)?;
        let text = self.bytes(length)?;
        self.bytes(1)?;
        Some(text)
    }

    /// Passes over what fills `whole`, of which this is the end, up to a multiple of four; at its end, nothing.
    pub(super) fn align(&mut self, whole: &[u8]) {
        let read = whole.len() - self.0.len();
        let padding = read.next_multiple_of(4) - read;
        self.0 = self.0.get(padding..).unwrap_or_default();
    }
}
