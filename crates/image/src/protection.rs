//! Page protections of an image.
//!
//! Section flags as the Microsoft page "PE Format" gives them. It sets no protection: `engine` maps by these ranges.

use std::fmt;
use std::ops::BitOr;

/// Bytes in a page.
pub const PAGE: u32 = 0x1000;

/// What may be done with a range of memory.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Protection {
    /// May be read. Everything that is written or executed may be, on x64.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
}

impl Protection {
    /// Read only, as the headers are.
    pub const READ: Self = Self { read: true, write: false, execute: false };
}

impl BitOr for Protection {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            read: self.read | other.read,
            write: self.write | other.write,
            execute: self.execute | other.execute,
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |set: bool, letter: char| if set { letter } else { '-' };
        write!(f, "{}{}{}", letter(self.read, 'r'), letter(self.write, 'w'), letter(self.execute, 'x'))
    }
}

/// Whole pages of one protection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRange {
    /// Where it begins; a multiple of [`PAGE`].
    pub rva: u32,
    /// Bytes; a multiple of [`PAGE`], not 0.
    pub size: u32,
    /// What may be done with it.
    pub protection: Protection,
}
