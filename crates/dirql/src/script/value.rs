//! Single values in a script: numbers, times, interface GUIDs and I/O control codes.
//!
//! Control codes follow *Defining I/O Control Codes*; device types are those of *Specifying Device Types*.

use super::error::{Outcome, fault, unknown};
use super::lexer::Word;

/// A number, decimal or `0x…`, with `_` allowed between digits.
pub(super) fn parse_number(written: &str) -> Option<u64> {
    let digits = written.replace('_', "");
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (digits.as_str(), 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// A time in nanoseconds: a whole number and its unit.
pub(super) fn parse_time(word: &Word) -> Outcome<u64> {
    let written = word.text();
    let digits = written.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &written[digits.len()..] {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => {
            return fault(
                word.at,
                format!("`{written}` is not a time; write a number and ns, us, ms or s: 10ms"),
            );
        }
    };
    match parse_number(digits) {
        None => fault(word.at, format!("`{written}` is not a time; write a whole number and its unit: 10ms")),
        Some(count) => match count.checked_mul(unit).filter(|&ns| ns <= 3_600_000_000_000) {
            Some(nanoseconds) => Ok(nanoseconds),
            None => fault(word.at, format!("`{written}` is longer than an hour; wait for at most 3600s")),
        },
    }
}

/// A GUID in braces, in upper case.
pub(super) fn parse_guid(word: &Word, written: &str) -> Outcome<String> {
    let inside = written.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let groups: Vec<&str> = inside.map(|inside| inside.split('-').collect()).unwrap_or_default();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = groups.iter().all(|group| group.chars().all(|c| c.is_ascii_hexdigit()));
    if hex && lengths == [8, 4, 4, 4, 12] {
        return Ok(written.to_ascii_uppercase());
    }
    fault(
        word.at,
        format!("`{written}` is not an interface class; write {{XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}}"),
    )
}

const METHODS: [(&str, u32); 6] = [
    ("METHOD_BUFFERED", 0),
    ("METHOD_IN_DIRECT", 1),
    ("METHOD_OUT_DIRECT", 2),
    ("METHOD_NEITHER", 3),
    ("METHOD_DIRECT_TO_HARDWARE", 1),
    ("METHOD_DIRECT_FROM_HARDWARE", 2),
];

const ACCESSES: [(&str, u32); 6] = [
    ("FILE_ANY_ACCESS", 0),
    ("FILE_SPECIAL_ACCESS", 0),
    ("FILE_READ_ACCESS", 1),
    ("FILE_READ_DATA", 1),
    ("FILE_WRITE_ACCESS", 2),
    ("FILE_WRITE_DATA", 2),
];

const DEVICE_TYPES: [(&str, u32); 24] = [
    ("FILE_DEVICE_BEEP", 0x01),
    ("FILE_DEVICE_CD_ROM", 0x02),
    ("FILE_DEVICE_CONTROLLER", 0x04),
    ("FILE_DEVICE_DISK", 0x07),
    ("FILE_DEVICE_KEYBOARD", 0x0b),
    ("FILE_DEVICE_MOUSE", 0x0f),
    ("FILE_DEVICE_NAMED_PIPE", 0x11),
    ("FILE_DEVICE_NULL", 0x15),
    ("FILE_DEVICE_PARALLEL_PORT", 0x16),
    ("FILE_DEVICE_PHYSICAL_NETCARD", 0x17),
    ("FILE_DEVICE_PRINTER", 0x18),
    ("FILE_DEVICE_SCANNER", 0x19),
    ("FILE_DEVICE_SERIAL_PORT", 0x1b),
    ("FILE_DEVICE_SCREEN", 0x1c),
    ("FILE_DEVICE_SOUND", 0x1d),
    ("FILE_DEVICE_STREAMS", 0x1e),
    ("FILE_DEVICE_TAPE", 0x1f),
    ("FILE_DEVICE_TRANSPORT", 0x21),
    ("FILE_DEVICE_UNKNOWN", 0x22),
    ("FILE_DEVICE_VIDEO", 0x23),
    ("FILE_DEVICE_BUS_EXTENDER", 0x2a),
    ("FILE_DEVICE_BATTERY", 0x29),
    ("FILE_DEVICE_MASS_STORAGE", 0x2d),
    ("FILE_DEVICE_KS", 0x2f),
];

/// An I/O control code: a number, or `CTL_CODE(DeviceType, Function, Method, Access)`.
pub(super) fn parse_control_code(word: &Word) -> Outcome<u32> {
    let written = word.text();
    if let Some(parts) = written.strip_prefix("CTL_CODE(").and_then(|rest| rest.strip_suffix(')')) {
        let parts: Vec<&str> = parts.split(',').map(str::trim).collect();
        let [device_type, function, method, access] = parts[..] else {
            return fault(
                word.at,
                "CTL_CODE takes four parts: CTL_CODE(DeviceType, Function, Method, Access)",
            );
        };
        let device_type = part(word, "device type", device_type, &DEVICE_TYPES, 0xffff)?;
        let function = part(word, "function", function, &[], 0xfff)?;
        let method = part(word, "method", method, &METHODS, 3)?;
        let mut granted = 0;
        for right in access.split('|') {
            granted |= part(word, "access", right.trim(), &ACCESSES, 3)?;
        }
        return Ok(device_type << 16 | granted << 14 | function << 2 | method);
    }
    match parse_number(&written).and_then(|code| u32::try_from(code).ok()) {
        Some(code) => Ok(code),
        None => fault(
            word.at,
            format!(
                "`{written}` is not a control code; write a 32-bit number (0x222004) or \
                 CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)"
            ),
        ),
    }
}

/// One part of `CTL_CODE`: a number up to `most`, or one of `names`.
fn part(word: &Word, what: &str, written: &str, names: &[(&'static str, u32)], most: u32) -> Outcome<u32> {
    if let Some(&(_, value)) = names.iter().find(|(name, _)| *name == written) {
        return Ok(value);
    }
    match parse_number(written) {
        Some(value) => match u32::try_from(value) {
            Ok(value) if value <= most => Ok(value),
            _ => fault(word.at, format!("{what} {written} of CTL_CODE is above {most:#x}")),
        },
        None if names.is_empty() => fault(word.at, format!("{what} `{written}` of CTL_CODE is not a number")),
        None => fault(word.at, unknown(what, written, names.iter().map(|(name, _)| *name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Word<'_> {
        Word::alone(text, None)
    }

    #[test]
    fn a_control_code_is_put_together_as_the_headers_do() {
        let code = |text: &str| parse_control_code(&word(text));
        assert_eq!(code("CTL_CODE(0x8000,0x801,METHOD_BUFFERED,FILE_ANY_ACCESS)"), Ok(0x8000_2004));
        assert_eq!(code("CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, 0, 0)"), Ok(0x0022_2004));
        assert_eq!(
            code("CTL_CODE(0x22,2049,METHOD_NEITHER,FILE_READ_ACCESS|FILE_WRITE_ACCESS)"),
            Ok(0x0022_e007)
        );
        assert_eq!(code("0x222004"), Ok(0x0022_2004));
    }

    #[test]
    fn a_wrong_control_code_says_which_part_is_wrong() {
        for (text, says) in [
            ("CTL_CODE(0x22,0x801,METHOD_BUFERED,0)", "did you mean `METHOD_BUFFERED`"),
            ("CTL_CODE(0x22,0x1000,0,0)", "function 0x1000 of CTL_CODE is above 0xfff"),
            ("CTL_CODE(0x22,1,0)", "four parts"),
            ("CTL_CODE(FILE_DEVICE_UNKNWON,1,0,0)", "did you mean `FILE_DEVICE_UNKNOWN`"),
            ("CTL_CODE(1,x,0,0)", "function `x` of CTL_CODE is not a number"),
            ("0x1_0000_0000", "32-bit"),
            ("IOCTL_FOO", "is not a control code"),
        ] {
            let message = parse_control_code(&word(text)).unwrap_err().message;
            assert!(message.contains(says), "{text}: {message}");
        }
    }

    #[test]
    fn times_need_their_unit() {
        assert_eq!(parse_time(&word("10ms")), Ok(10_000_000));
        assert_eq!(parse_time(&word("3us")), Ok(3_000));
        assert!(parse_time(&word("10")).unwrap_err().message.contains("10ms"));
        assert!(parse_time(&word("1.5s")).is_err());
        assert!(parse_time(&word("99999999999999999999s")).is_err());
        assert!(parse_time(&word("7200s")).unwrap_err().message.contains("hour"));
    }

    #[test]
    fn guids_are_checked() {
        let guid = "{4d36e97d-e325-11ce-bfc1-08002be10318}";
        assert_eq!(parse_guid(&word(guid), guid).unwrap(), "{4D36E97D-E325-11CE-BFC1-08002BE10318}");
        assert!(parse_guid(&word("x"), "{4d36e97d}").is_err());
    }
}
