//! What memory holds that is given to driver code without any content of its own.

/// Eight bytes that repeat: the first lies where an address is a multiple of eight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill(pub u64);

impl Fill {
    /// Pool, stacks and pages that hold nothing yet. No byte is there twice, so that a row of them in a driver's answer is no coincidence: drivers
    /// have counters and patterns of their own. Each lies above 7Fh: a word of them is a huge length, a negative number and no address.
    pub const FRESH: Self = Self(u64::from_le_bytes([0xCD, 0x9B, 0xD7, 0xA5, 0xE3, 0x8D, 0xB9, 0xC5]));

    /// One byte that repeats.
    #[inline]
    #[must_use]
    pub const fn of(byte: u8) -> Self {
        Self(u64::from_ne_bytes([byte; 8]))
    }

    /// What lies from `address` on.
    #[inline]
    #[must_use]
    pub const fn from(self, address: u64) -> [u8; 8] {
        self.0.rotate_right(8 * (address % 8) as u32).to_le_bytes()
    }

    /// Whether it is one byte.
    #[inline]
    pub(crate) const fn is_one_byte(self) -> bool {
        self.0 == self.0.rotate_right(8)
    }
}

impl From<u8> for Fill {
    #[inline]
    fn from(byte: u8) -> Self {
        Self::of(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_at_an_address_does_not_depend_on_where_filling_began() {
        let begun = |address: u64| Fill::FRESH.from(address);
        assert_eq!(begun(0x1000)[3..], begun(0x1003)[..5]);
        assert_eq!(begun(0x1008), begun(0x1000));
        assert_eq!(Fill::of(0xEE).from(5), [0xEE; 8]);
        assert!(Fill::of(0xEE).is_one_byte() && !Fill::FRESH.is_one_byte());
    }

    #[test]
    fn no_row_of_fresh_bytes_is_an_address_or_a_small_number() {
        for at in 0..8 {
            let bytes = Fill::FRESH.from(at);
            assert!(bytes.iter().all(|byte| *byte > 0x7F), "a small number");
            let top = u64::from_le_bytes(bytes) >> 47;
            assert!(top != 0 && top != 0x1_FFFF, "an address");
            assert_eq!(bytes.iter().filter(|byte| **byte == bytes[0]).count(), 1, "twice");
        }
    }
}
