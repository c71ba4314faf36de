//! Kernel strings: counted UTF-16.
//!
//! Page: *UNICODE_STRING*. Names that a driver makes are short and held in place; it converts nothing but ASCII.

use abi::UNICODE_STRING;

use crate::raw;

/// Most code units a [`Name`] holds, its closing NUL included.
const CAPACITY: usize = 64;

/// A name of the object manager or the registry, made by the driver: `\Device\Card0`.
#[derive(Clone)]
pub struct Name {
    units: [u16; CAPACITY],
    length: usize,
}

impl Name {
    /// A name of ASCII characters.
    ///
    /// # Panics
    /// If it is longer than 63 characters or not ASCII: where it is a constant, when the driver is compiled.
    #[must_use]
    pub const fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        assert!(bytes.len() < CAPACITY && text.is_ascii(), "a name is at most 63 ASCII characters");
        let mut units = [0; CAPACITY];
        let mut length = 0;
        while length < bytes.len() {
            units[length] = bytes[length] as u16;
            length += 1;
        }
        Self { units, length }
    }

    /// The name with a decimal number behind it; what does not fit is cut off.
    #[must_use]
    pub const fn with_number(mut self, number: u32) -> Self {
        let mut divisor = 1_000_000_000;
        while divisor > 0 {
            let digit = b'0' as u16 + (number / divisor % 10) as u16;
            if (number >= divisor || divisor == 1) && self.length < CAPACITY - 1 {
                self.units[self.length] = digit;
                self.length += 1;
            }
            divisor /= 10;
        }
        self
    }

    /// The name as the kernel takes it; valid while the name stays where it is.
    pub(crate) fn unicode_string(&self) -> UNICODE_STRING {
        unicode_string(self.units())
    }

    /// Its code units, without the NUL.
    pub(crate) const fn units(&self) -> &[u16] {
        self.units.split_at(self.length).0
    }

    /// The first of its code units, which a NUL ends.
    pub(crate) fn as_wide(&self) -> *const u16 {
        self.units.as_ptr()
    }
}

/// `units` as the kernel takes them; at most 32,767 count.
pub(crate) fn unicode_string(units: &[u16]) -> UNICODE_STRING {
    let bytes = u16::try_from(size_of_val(units)).unwrap_or(u16::MAX - 1);
    let mut string = UNICODE_STRING::zeroed();
    // SAFETY: the structure is ours.
    unsafe {
        raw::set(&raw mut string, UNICODE_STRING::Length, bytes);
        raw::set(&raw mut string, UNICODE_STRING::MaximumLength, bytes);
        raw::set(&raw mut string, UNICODE_STRING::Buffer, raw::stored(units.as_ptr().cast_mut()));
    }
    string
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &Name) -> std::string::String {
        std::string::String::from_utf16(&name.units[..name.length]).unwrap()
    }

    #[test]
    fn instances_of_a_device_are_numbered() {
        assert_eq!(shown(&Name::new(r"\Device\Card").with_number(0)), r"\Device\Card0");
        assert_eq!(shown(&Name::new("C").with_number(1070)), "C1070");
        assert_eq!(shown(&Name::new("").with_number(u32::MAX)), "4294967295");
    }

    #[test]
    fn a_name_always_ends_in_nul() {
        let longest =
            Name::new("0123456789012345678901234567890123456789012345678901234567890123".get(1..).unwrap());
        assert_eq!(longest.with_number(7).units[CAPACITY - 1], 0);
    }
}
