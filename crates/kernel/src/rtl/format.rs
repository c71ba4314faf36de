//! `printf` as the kernel has it, for `DbgPrint`, `_snprintf`, `RtlStringCbPrintf` and their wide sisters.
//!
//! Follows *Format specification syntax: printf and wprintf functions* and, for `%Z` and what is not allowed above
//! `PASSIVE_LEVEL`, *DbgPrint function*. It checks no IRQL: it reports in [`Uses`] what a rule would ask. `%n` writes
//! nothing, `%a` is not known, and a precision of floating point ends at 512 digits.

mod number;
mod spec;
#[cfg(test)]
mod tests;

use self::spec::{Length, Spec};
use super::text::{ansi_to_unicode, unicode_to_ansi};

/// Memory that the driver named and that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadPointer {
    /// The first address that cannot be read.
    pub address: u64,
}

/// Where arguments, and the strings they point at, come from.
pub(crate) trait Arguments {
    /// The next 8-byte slot of the `va_list`.
    fn next(&mut self) -> u64;

    /// Bytes of driver memory from `address` on: at least one and at most `most`, as many as can be read in one piece.
    ///
    /// # Errors
    /// The first byte cannot be read.
    fn bytes(&mut self, address: u64, most: usize) -> Result<Vec<u8>, BadPointer>;

    /// So many of the bytes that [`Arguments::bytes`] gave are of a text.
    ///
    /// # Errors
    /// The driver must not read them.
    fn looked_at(&mut self, _address: u64, _bytes: usize) -> Result<(), BadPointer> {
        Ok(())
    }
}

/// What a format made use of that is not allowed everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Uses {
    /// A Unicode conversion (`%C %S %lc %ls %wc %ws %wZ`), which `DbgPrint` allows only at `PASSIVE_LEVEL`.
    pub unicode: bool,
    /// A floating point conversion, which `DbgPrint` does not support.
    pub floating: bool,
    /// The first conversion letter that is not known (`%n` counts), as a code unit.
    pub unknown: Option<u16>,
}

/// What came out: `T` is `u8` or `u16`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Formatted<T> {
    /// The text, without a zero at its end.
    pub text: Vec<T>,
    /// Whether there was more than the limit; nothing behind the limit was looked at.
    pub truncated: bool,
    /// What the format made use of, up to the limit.
    pub uses: Uses,
}

/// Formats ANSI text of at most `limit` bytes; `%s` is an ANSI string, `%S` a Unicode one.
///
/// # Errors
/// A string, or the `UNICODE_STRING` in front of it, cannot be read.
pub(crate) fn format(
    format: &[u8],
    args: &mut dyn Arguments,
    limit: usize,
) -> Result<Formatted<u8>, BadPointer> {
    let format: Vec<u16> = format.iter().map(|&byte| u16::from(byte)).collect();
    let mut output = Output::new(limit, false);
    output.run(&format, args)?;
    let text = output.text.into_iter().map(|unit| u8::try_from(unit).unwrap_or(b'?')).collect();
    Ok(Formatted { text, truncated: output.truncated, uses: output.uses })
}

/// Formats Unicode text of at most `limit` code units; `%s` is a Unicode string, `%S` an ANSI one.
///
/// # Errors
/// A string, or the `UNICODE_STRING` in front of it, cannot be read.
pub(crate) fn format_wide(
    format: &[u16],
    args: &mut dyn Arguments,
    limit: usize,
) -> Result<Formatted<u16>, BadPointer> {
    let mut output = Output::new(limit, true);
    output.run(format, args)?;
    Ok(Formatted { text: output.text, truncated: output.truncated, uses: output.uses })
}

/// The longest string that is read, in characters, where more would only decide how far to indent.
const LONGEST: usize = 1 << 16;

/// The text as it grows: units are UTF-16, or ANSI bytes.
struct Output {
    text: Vec<u16>,
    limit: usize,
    wide: bool,
    truncated: bool,
    uses: Uses,
}

impl Output {
    fn new(limit: usize, wide: bool) -> Self {
        Self { text: Vec::new(), limit, wide, truncated: false, uses: Uses::default() }
    }

    fn run(&mut self, format: &[u16], args: &mut dyn Arguments) -> Result<(), BadPointer> {
        let mut rest = format;
        while let Some((&unit, after)) = rest.split_first() {
            if self.truncated {
                break;
            }
            rest = after;
            if unit != u16::from(b'%') {
                self.repeat(unit, 1);
                continue;
            }
            let (spec, after) = Spec::parse(rest, args);
            rest = after;
            self.convert(&spec, args)?;
        }
        Ok(())
    }

    fn convert(&mut self, spec: &Spec, args: &mut dyn Arguments) -> Result<(), BadPointer> {
        match spec.conversion {
            None => {}
            Some(b'd' | b'i' | b'u' | b'x' | b'X' | b'o' | b'p') => self.integer(spec, args.next()),
            Some(b'c' | b'C') => self.character(spec, args.next()),
            Some(b's' | b'S') => {
                let wide = self.is_wide_string(spec);
                let address = args.next();
                self.string(spec, address, wide, None, args)?;
            }
            Some(b'Z') => self.counted_string(spec, args)?,
            Some(b'e' | b'E' | b'f' | b'F' | b'g' | b'G') => {
                self.uses.floating = true;
                let number = number::floating(spec, f64::from_bits(args.next()));
                self.number(spec, &number, true);
            }
            Some(other) => {
                // A letter without a meaning stands for itself; `%n` takes its argument and writes nowhere.
                if other != b'%' {
                    self.uses.unknown.get_or_insert(u16::from(other));
                }
                if other == b'n' {
                    args.next();
                } else {
                    self.repeat(u16::from(other), 1);
                }
            }
        }
        if let Some(unit) = spec.foreign {
            self.uses.unknown.get_or_insert(unit);
            self.repeat(unit, 1);
        }
        Ok(())
    }

    fn integer(&mut self, spec: &Spec, slot: u64) {
        let number = number::integer(spec, slot);
        self.number(spec, &number, spec.precision.is_none());
    }

    /// Sign or prefix, zeros and digits, filled up to the width; `zero_fill`: whether the flag `0` has its effect.
    fn number(&mut self, spec: &Spec, number: &number::Number, zero_fill: bool) {
        let length = number.prefix.len() + number.zeros + number.digits.len();
        let fill = spec.width.saturating_sub(length);
        let zeros = spec.zero && zero_fill && !spec.left;
        if !spec.left && !zeros {
            self.repeat(u16::from(b' '), fill);
        }
        self.ascii(&number.prefix);
        self.repeat(u16::from(b'0'), number.zeros + if zeros { fill } else { 0 });
        self.ascii(&number.digits);
        if spec.left {
            self.repeat(u16::from(b' '), fill);
        }
    }

    fn character(&mut self, spec: &Spec, slot: u64) {
        let unit = low_unit(slot);
        let units = if self.is_wide_string(spec) {
            self.uses.unicode |= !self.wide;
            self.unicode_units(&[unit])
        } else {
            self.ansi_units(&[low_byte(unit)])
        };
        self.padded(spec, &units);
    }

    /// Whether `%s` or `%c`, with its size prefix, is about Unicode.
    fn is_wide_string(&self, spec: &Spec) -> bool {
        match spec.length {
            Length::Long | Length::Wide => true,
            Length::Short => false,
            _ => self.wide == matches!(spec.conversion, Some(b's' | b'c')),
        }
    }

    /// A string that ends at a zero, or after `length` characters.
    fn string(
        &mut self,
        spec: &Spec,
        address: u64,
        wide: bool,
        length: Option<usize>,
        args: &mut dyn Arguments,
    ) -> Result<(), BadPointer> {
        self.uses.unicode |= wide && !self.wide;
        let precision = spec.precision.unwrap_or(usize::MAX);
        if address == 0 {
            let null: Vec<u16> = b"(null)".iter().take(precision).map(|&byte| u16::from(byte)).collect();
            self.padded(spec, &null);
            return Ok(());
        }
        let room = self.limit.saturating_sub(self.text.len()).saturating_add(1);
        let most =
            precision.min(length.unwrap_or(usize::MAX)).min(room.max(spec.width).min(LONGEST.max(room)));
        let size = if wide { 2 } else { 1 };
        let bytes = read(address, most, size, length.is_none(), args)?;
        let units = if wide {
            let (pairs, _) = bytes.as_chunks::<2>();
            let units: Vec<u16> = pairs.iter().map(|&pair| u16::from_le_bytes(pair)).collect();
            self.unicode_units(&units)
        } else {
            self.ansi_units(&bytes)
        };
        self.padded(spec, &units);
        Ok(())
    }

    /// `%Z`: an `ANSI_STRING`; `%wZ`: a `UNICODE_STRING` (`Length` in bytes at 0, `Buffer` at 8).
    fn counted_string(&mut self, spec: &Spec, args: &mut dyn Arguments) -> Result<(), BadPointer> {
        let wide = matches!(spec.length, Length::Wide | Length::Long);
        let address = args.next();
        if address == 0 {
            return self.string(spec, 0, wide, None, args);
        }
        let header = read(address, 16, 1, false, args)?;
        let field = |at: usize, size: usize| {
            header.iter().skip(at).take(size).rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte))
        };
        let bytes = usize::try_from(field(0, 2)).unwrap_or(0);
        let length = if wide { bytes / 2 } else { bytes };
        self.string(spec, field(8, 8), wide, Some(length), args)
    }

    fn unicode_units(&self, units: &[u16]) -> Vec<u16> {
        if self.wide {
            return units.to_vec();
        }
        unicode_to_ansi(units).into_iter().map(u16::from).collect()
    }

    fn ansi_units(&self, bytes: &[u8]) -> Vec<u16> {
        if self.wide { ansi_to_unicode(bytes) } else { bytes.iter().map(|&byte| u16::from(byte)).collect() }
    }

    /// Text filled up to the width; the flag `0` fills with zeros here too.
    fn padded(&mut self, spec: &Spec, units: &[u16]) {
        let fill = spec.width.saturating_sub(units.len());
        if !spec.left {
            self.repeat(u16::from(if spec.zero { b'0' } else { b' ' }), fill);
        }
        units.iter().for_each(|&unit| self.repeat(unit, 1));
        if spec.left {
            self.repeat(u16::from(b' '), fill);
        }
    }

    fn ascii(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.repeat(u16::from(byte), 1));
    }

    fn repeat(&mut self, unit: u16, count: usize) {
        let room = self.limit.saturating_sub(self.text.len());
        self.truncated |= count > room;
        let end = self.text.len() + count.min(room);
        self.text.resize(end, unit);
    }
}

/// Up to `most` characters of `size` bytes, up to a zero if `ends_at_zero`. Nothing behind them is touched.
fn read(
    address: u64,
    most: usize,
    size: usize,
    ends_at_zero: bool,
    args: &mut dyn Arguments,
) -> Result<Vec<u8>, BadPointer> {
    let wanted = most.saturating_mul(size);
    let mut bytes = Vec::new();
    let mut scanned = 0;
    while bytes.len() < wanted {
        let at = address.wrapping_add(bytes.len() as u64);
        // In pieces, so that a short string does not ask for memory far behind it.
        let piece = args.bytes(at, (wanted - bytes.len()).min(256))?;
        if piece.is_empty() {
            return Err(BadPointer { address: at });
        }
        bytes.extend(piece.into_iter().take(wanted - bytes.len()));
        if !ends_at_zero {
            continue;
        }
        let mut fresh = bytes[scanned..].chunks_exact(size);
        if let Some(end) = fresh.position(|unit| unit.iter().all(|&byte| byte == 0)) {
            args.looked_at(address, scanned + (end + 1) * size)?;
            bytes.truncate(scanned + end * size);
            return Ok(bytes);
        }
        scanned = bytes.len() / size * size;
    }
    args.looked_at(address, bytes.len())?;
    Ok(bytes)
}

fn low_unit(slot: u64) -> u16 {
    let [a, b, ..] = slot.to_le_bytes();
    u16::from_le_bytes([a, b])
}

fn low_byte(unit: u16) -> u8 {
    unit.to_le_bytes()[0]
}
