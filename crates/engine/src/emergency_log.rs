//! The last message of a process whose state cannot be trusted: a line written without allocating, from a signal handler too.
//!
//! It goes to standard error, or where [`crate::Jail::emergency_log`] says, for the process that watches this one.

use std::sync::atomic::{AtomicI32, Ordering};

const STANDARD_ERROR: i32 = 2;
/// Where the words go.
static TO: AtomicI32 = AtomicI32::new(STANDARD_ERROR);

/// From now on messages go to this open file, without prefix and suffix: its reader adds whose fault it is.
pub(crate) fn send_to(file: i32) {
    TO.store(file, Ordering::Relaxed);
}

/// One sentence in parts, about a fault of ours.
pub(crate) fn say(parts: &[Words<'_>]) {
    let to = TO.load(Ordering::Relaxed);
    let (before, after): (&[u8], &[u8]) = match to {
        STANDARD_ERROR => (b"dirql: ", b"; this is a fault of dirql, please report it\n"),
        _ => (b"", b"\n"),
    };
    write(to, before);
    for part in parts {
        match part {
            Words::Text(text) => write(to, text.as_bytes()),
            Words::Hex(value) => write(to, &hex(*value)),
            Words::Number(value) => decimal(to, *value),
        }
    }
    write(to, after);
}

/// A part of a sentence.
pub(crate) enum Words<'a> {
    /// As it is.
    Text(&'a str),
    /// Sixteen digits.
    Hex(u64),
    /// Decimal.
    Number(u64),
}

fn hex(value: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (index, digit) in digits.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (60 - 4 * index) & 15) as usize];
    }
    digits
}

fn decimal(to: i32, value: u64) {
    if value >= 10 {
        decimal(to, value / 10);
    }
    write(to, &b"0123456789"[(value % 10) as usize..][..1]);
}

fn write(to: i32, bytes: &[u8]) {
    // SAFETY: the bytes are a slice of ours; if the file is gone, the error cannot be reported anywhere.
    unsafe { libc::write(to, bytes.as_ptr().cast(), bytes.len()) };
}
