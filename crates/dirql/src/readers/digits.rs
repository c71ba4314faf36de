//! Numbers as the readers write them, without what formatting by a description costs: a trace has many.

/// In decimal.
pub(super) fn decimal(to: &mut String, value: u64) {
    to.push_str(itoa::Buffer::new().format(value));
}

/// In decimal, behind as many spaces as make it `width` columns; a larger one takes more.
pub(super) fn column(to: &mut String, value: u64, width: usize) {
    filled(to, value, width, b' ');
}

/// In decimal, behind as many zeros as make it `width` digits.
pub(super) fn padded(to: &mut String, value: u64, width: usize) {
    filled(to, value, width, b'0');
}

fn filled(to: &mut String, value: u64, width: usize, fill: u8) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value);
    to.extend((digits.len()..width).map(|_| char::from(fill)));
    to.push_str(digits);
}

/// In lower-case hexadecimal.
pub(super) fn hexadecimal(to: &mut String, mut value: u64) {
    let mut digits = [b'0'; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[usize::try_from(value % 16).unwrap_or(0)];
        value /= 16;
        if value == 0 {
            break;
        }
    }
    to.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut text = String::new();
        write(&mut text);
        text
    }

    #[test]
    fn numbers_are_written_as_formatting_writes_them() {
        let numbers = (0..64).flat_map(|bits| [u64::MAX >> bits, 1 << bits, 0x9E37_79B9_7F4A_7C15 >> bits]);
        for value in numbers.chain(0..=1000) {
            assert_eq!(written(|to| decimal(to, value)), value.to_string());
            assert_eq!(written(|to| hexadecimal(to, value)), format!("{value:x}"));
            for width in 0..12 {
                assert_eq!(written(|to| column(to, value, width)), format!("{value:>width$}"));
                assert_eq!(written(|to| padded(to, value, width)), format!("{value:0width$}"));
            }
        }
    }
}
