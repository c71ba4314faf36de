//! The image checksum in the optional header.
//!
//! As the Microsoft page "MapFileAndCheckSum function" has it: 16-bit words added with the carry folded in, the field itself
//! taken as zero, plus the file's length. It refuses nothing: a wrong checksum matters for boot drivers only.

/// The checksum a file states and the one it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checksum {
    /// In the optional header; 0 if the linker wrote none.
    pub stored: u32,
    /// Of the bytes of the file.
    pub computed: u32,
}

impl Checksum {
    /// `field` is the file offset of the four bytes of `CheckSum`.
    pub(crate) fn of(file: &[u8], field: usize, stored: u32) -> Self {
        let byte = |offset: usize| match file.get(offset) {
            Some(&byte) if !(field..field + 4).contains(&offset) => u32::from(byte),
            _ => 0,
        };
        let mut sum = 0u32;
        for offset in (0..file.len()).step_by(2) {
            sum += byte(offset) | byte(offset + 1) << 8;
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let length = u32::try_from(file.len()).unwrap_or(u32::MAX);
        Self { stored, computed: sum.wrapping_add(length) }
    }

    /// Whether the file is as the linker left it; false too if it wrote no checksum.
    #[must_use]
    pub fn matches(self) -> bool {
        self.stored == self.computed
    }
}
