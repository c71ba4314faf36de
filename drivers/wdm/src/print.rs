//! Lines for the debugger.
//!
//! Page: *DbgPrint*. A line is put together here, without Rust's formatting, and printed as one `%s`; what does not fit is cut off.

use crate::sys;

/// `DbgPrint` takes at most 512 bytes; a line of a driver needs less.
const CAPACITY: usize = 128;

/// A line under construction.
///
/// ```no_run
/// wdm::Line::new("card: ").hex(0x53).text(" after ").decimal(7).print();
/// ```
pub struct Line {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl Line {
    /// A line that begins with `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { bytes: [0; CAPACITY], length: 0 }.text(text)
    }

    /// More of it.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            self.push(byte);
        }
        self
    }

    /// A number, in decimal.
    #[must_use]
    pub fn decimal(self, number: u32) -> Self {
        self.digits(number, 10, 1)
    }

    /// A number, as eight hexadecimal digits.
    #[must_use]
    pub fn hex(self, number: u32) -> Self {
        self.digits(number, 16, 8)
    }

    /// Prints it. May be called at any level.
    pub fn print(mut self) {
        self.push(b'\n');
        // SAFETY: both strings end in NUL: `push` leaves the last byte zero.
        unsafe { sys::DbgPrint(c"%s".as_ptr().cast(), self.bytes.as_ptr()) };
    }

    fn digits(mut self, mut number: u32, base: u32, least: usize) -> Self {
        let mut digits = [b'0'; 10];
        let mut count = 0;
        while number != 0 || count < least {
            digits[count] = b"0123456789abcdef"[(number % base) as usize];
            number /= base;
            count += 1;
        }
        for digit in digits[..count].iter().rev() {
            self.push(*digit);
        }
        self
    }

    /// The last two bytes stay free, for the end of the line and NUL.
    fn push(&mut self, byte: u8) {
        let room = if byte == b'\n' { CAPACITY - 1 } else { CAPACITY - 2 };
        if self.length < room {
            self.bytes[self.length] = byte;
            self.length += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &Line) -> &str {
        core::str::from_utf8(&line.bytes[..line.length]).unwrap()
    }

    #[test]
    fn numbers_come_out_as_people_write_them() {
        assert_eq!(shown(&Line::new("n ").decimal(0).text(" ").decimal(4_294_967_295)), "n 0 4294967295");
        assert_eq!(shown(&Line::new("").hex(0x53)), "00000053");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_still_ends() {
        let mut line = Line::new(core::str::from_utf8(&[b'x'; 500]).unwrap());
        line.push(b'\n');
        assert_eq!((line.length, line.bytes[126], line.bytes[127]), (127, b'\n', 0));
    }
}
