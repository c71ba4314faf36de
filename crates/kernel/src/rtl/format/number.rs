//! The digits of integers and floating point numbers.
//!
//! Follows *Format specification syntax*: exponents have at least two digits, `inf` and `nan` stand for what is no
//! number. Digits are exact: a `double` is printed as the number it is.

use super::spec::{Length, Spec};

/// A number as text, before it is filled up to its width.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Number {
    /// Sign, or `0x`.
    pub(super) prefix: String,
    /// Zeros that the precision asks for.
    pub(super) zeros: usize,
    pub(super) digits: String,
}

/// `%d %i %u %x %X %o %p` of an argument's slot.
pub(super) fn integer(spec: &Spec, slot: u64) -> Number {
    let conversion = spec.conversion.unwrap_or(b'd');
    if conversion == b'p' {
        return Number { prefix: String::new(), zeros: 0, digits: format!("{slot:016X}") };
    }
    let signed = matches!(conversion, b'd' | b'i');
    let bits = match spec.length {
        Length::Char => 8,
        Length::Short => 16,
        Length::LongLong => 64,
        Length::Plain | Length::Long | Length::Wide => 32,
    };
    let value = slot << (64 - bits) >> (64 - bits);
    let negative = signed && value >> (bits - 1) == 1;
    let magnitude = if negative { (value | !0 << (bits - 1)).wrapping_neg() } else { value };
    let mut digits = match conversion {
        b'x' => format!("{magnitude:x}"),
        b'X' => format!("{magnitude:X}"),
        b'o' => format!("{magnitude:o}"),
        _ => magnitude.to_string(),
    };
    if magnitude == 0 && spec.precision == Some(0) {
        digits.clear();
    }
    let mut zeros = spec.precision.unwrap_or(1).saturating_sub(digits.len());
    let prefix = match conversion {
        b'x' if spec.alternate && magnitude != 0 => "0x",
        b'X' if spec.alternate && magnitude != 0 => "0X",
        b'o' if spec.alternate && zeros == 0 && !digits.starts_with('0') => {
            zeros = 1;
            ""
        }
        _ if signed => sign(spec, negative),
        _ => "",
    };
    Number { prefix: prefix.to_owned(), zeros, digits }
}

fn sign(spec: &Spec, negative: bool) -> &'static str {
    match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    }
}

/// The most digits after the point.
const MOST_DIGITS: usize = 512;

/// `%f %e %g`, and in upper case.
pub(super) fn floating(spec: &Spec, value: f64) -> Number {
    let conversion = spec.conversion.unwrap_or(b'f');
    let precision = spec.precision.unwrap_or(6).min(MOST_DIGITS);
    let magnitude = value.abs();
    let mut digits = if magnitude.is_nan() {
        "nan".to_owned()
    } else if magnitude.is_infinite() {
        "inf".to_owned()
    } else {
        match conversion.to_ascii_lowercase() {
            b'f' => fixed(magnitude, precision, spec.alternate),
            b'e' => exponential(magnitude, precision, spec.alternate),
            _ => general(magnitude, precision.max(1), spec.alternate),
        }
    };
    if conversion.is_ascii_uppercase() {
        digits.make_ascii_uppercase();
    }
    let prefix = sign(spec, value.is_sign_negative() && !value.is_nan()).to_owned();
    Number { prefix, zeros: 0, digits }
}

fn fixed(value: f64, precision: usize, point: bool) -> String {
    let point = if point && precision == 0 { "." } else { "" };
    format!("{value:.precision$}{point}")
}

fn exponential(value: f64, precision: usize, point: bool) -> String {
    let (digits, exponent) = scientific(value, precision);
    let point = if point && precision == 0 { "." } else { "" };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}{point}e{sign}{:02}", exponent.unsigned_abs())
}

/// The digits before and after the point, and the power of ten.
fn scientific(value: f64, precision: usize) -> (String, i32) {
    let text = format!("{value:.precision$e}");
    match text.split_once('e') {
        Some((digits, exponent)) => (digits.to_owned(), exponent.parse().unwrap_or(0)),
        None => (text, 0),
    }
}

/// `%g`: `precision` significant digits, in the shorter form, zeros at the end cut off unless `#`.
fn general(value: f64, precision: usize, keep_zeros: bool) -> String {
    let (_, exponent) = scientific(value, precision - 1);
    let significant = i32::try_from(precision).unwrap_or(i32::MAX);
    let (text, tail) = if exponent < -4 || exponent >= significant {
        let whole = exponential(value, precision - 1, keep_zeros);
        match whole.split_once('e') {
            Some((digits, exponent)) => (digits.to_owned(), format!("e{exponent}")),
            None => (whole, String::new()),
        }
    } else {
        let after_point = usize::try_from(significant - 1 - exponent).unwrap_or(0);
        (fixed(value, after_point, keep_zeros), String::new())
    };
    let text = if keep_zeros || !text.contains('.') {
        text.as_str()
    } else {
        text.trim_end_matches('0').trim_end_matches('.')
    };
    format!("{text}{tail}")
}
