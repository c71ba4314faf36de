//! Addresses of the Internet as text.
//!
//! Pages: *RtlIpv4StringToAddressW function*, *RtlIpv4AddressToStringW function*. One function serves both widths of characters, `W` bytes each. A strict
//! address has four decimal parts; else there may be fewer, the last one of which fills what is left, and octal and hexadecimal ones.

use abi::{DriverPtr, NtStatus};
use engine::Flow;

use super::crt;
use crate::cx::Cx;

/// More characters than any address has.
const MOST: u64 = 48;

/// The address, and how many characters it takes; on failure, where it stopped.
fn parse(text: &[u16], strict: bool) -> Result<(u32, usize), usize> {
    let at = |index: usize| text.get(index).and_then(|&unit| char::from_u32(unit.into())).unwrap_or('\0');
    let (mut parts, mut index) = (Vec::new(), 0);
    loop {
        let start = index;
        let (base, skip) = match (at(index), at(index + 1)) {
            ('0', 'x' | 'X') if !strict => (16, 2),
            ('0', '0'..='7') if !strict => (8, 1),
            _ => (10, 0),
        };
        index += skip;
        let mut value = 0_u64;
        let first = index;
        while let Some(digit) = at(index).to_digit(base) {
            value = value * u64::from(base) + u64::from(digit);
            if value > u64::from(u32::MAX) {
                return Err(start);
            }
            index += 1;
        }
        if index == first {
            return Err(index);
        }
        parts.push(value);
        if at(index) != '.' || parts.len() == 4 {
            break;
        }
        index += 1;
    }
    let count = u32::try_from(parts.len()).unwrap_or(4);
    let (last, before) = parts.split_last().expect("there is one");
    let fits = before.iter().all(|part| *part < 256) && *last < 1 << (8 * (5 - count));
    if !fits || strict && count != 4 {
        return Err(index);
    }
    let high = before.iter().zip([24, 16, 8]).map(|(part, shift)| part << shift).sum::<u64>();
    Ok((u32::try_from(high + last).unwrap_or(0), index))
}

/// `RtlIpv4StringToAddress`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub fn from_text<const W: u64>(
    cx: &mut Cx<'_>,
    text: u64,
    strict: bool,
    end: DriverPtr<u64>,
    address: DriverPtr<[u8; 4]>,
) -> Flow<NtStatus> {
    let units = crt::read::<W>(cx, text, MOST)?;
    let parsed = parse(&units, strict);
    let stopped = match parsed {
        Ok((_, stopped)) | Err(stopped) => stopped,
    };
    cx.write(end, text + stopped as u64 * W)?;
    match parsed {
        Ok((value, _)) => {
            cx.write(address, value.to_be_bytes())?;
            Ok(NtStatus::SUCCESS)
        }
        Err(_) => Ok(NtStatus::INVALID_PARAMETER),
    }
}

/// `RtlIpv4AddressToString`: where its zero is.
///
/// # Errors
/// As [`from_text`].
pub fn to_text<const W: u64>(cx: &mut Cx<'_>, address: DriverPtr<[u8; 4]>, to: u64) -> Flow<u64> {
    let [a, b, c, d] = cx.read(address)?;
    let mut units: Vec<u16> = format!("{a}.{b}.{c}.{d}").encode_utf16().collect();
    let length = units.len() as u64;
    units.push(0);
    crt::write::<W>(cx, to, &units)?;
    Ok(to + length * W)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_up_to_four_parts() {
        let of = |text: &str, strict| parse(&text.encode_utf16().collect::<Vec<u16>>(), strict);
        assert_eq!(of("192.168.1.2:80", true), Ok((0xC0A8_0102, 11)));
        assert_eq!(of("0x7f.1", false), Ok((0x7F00_0001, 6)));
        assert_eq!(of("010.0.0.1", false), Ok((0x0800_0001, 9)));
        assert_eq!(of("3232235778", false), Ok((0xC0A8_0102, 10)));
        assert!(of("1.2.3", true).is_err() && of("1.2.3.256", true).is_err() && of("1..2", false).is_err());
        assert!(of("", false).is_err() && of("4294967296", false).is_err());
    }
}
