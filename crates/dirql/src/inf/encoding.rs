//! The bytes of an INF file as text: UTF-16 or UTF-8 with their marks, else UTF-8, else Windows-1252.
//!
//! Windows reads a file without a mark in the system's ANSI code page; it is taken as Windows-1252 here, everywhere.

use super::MAX_FILE;
use super::error::{Outcome, Spot, fault};

/// The file's text.
pub(super) fn decode(bytes: &[u8]) -> Outcome<String> {
    if bytes.is_empty() {
        return fault(None, "the file is empty".to_owned());
    }
    if bytes.len() > MAX_FILE {
        let size = bytes.len();
        return fault(None, format!("the file has {size} bytes; an INF has at most {MAX_FILE}: is it one?"));
    }
    text_of(bytes)
}

/// What bytes say that are not known to be text: with a mark as that says, else UTF-8, else Windows-1252.
pub(crate) fn text_of(bytes: &[u8]) -> Outcome<String> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        [0xef, 0xbb, 0xbf, rest @ ..] => match std::str::from_utf8(rest) {
            Ok(text) => text.to_owned(),
            Err(error) => {
                let spot = spot_behind(&rest[..error.valid_up_to()]);
                return fault(Some(spot), "this line is not UTF-8, though the file is marked so".to_owned());
            }
        },
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|&byte| kernel::rtl::text::ansi_to_char(byte)).collect(),
        },
    };
    match text.find('\0') {
        Some(at) => fault(
            Some(spot_behind(&text.as_bytes()[..at])),
            "there is a NUL in the text; is it a text file? A UTF-16 file needs its byte order mark"
                .to_owned(),
        ),
        // A Ctrl-Z at the end is how DOS editors ended a text.
        None => Ok(text.trim_end_matches('\u{1a}').to_owned()),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Outcome<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|&pair| unit(pair)).collect();
    match String::from_utf16(&units) {
        Ok(text) if rest.is_empty() => Ok(text),
        _ => fault(
            None,
            "the file is marked as UTF-16, but is not; save it again as UTF-8 or UTF-16".to_owned(),
        ),
    }
}

/// The place of what stands behind these bytes of UTF-8.
fn spot_behind(before: &[u8]) -> Spot {
    let mut lines = before.split(|&byte| byte == b'\n');
    let last = lines.next_back().unwrap_or_default();
    // A character's other bytes begin with the bits 10.
    let column = last.iter().filter(|&&byte| byte & 0xc0 != 0x80).count() + 1;
    Spot { line: lines.count() + 1, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_in_five_encodings_is_the_same() {
        let text = "[Version] ; é\r\n";
        let utf16: Vec<u8> =
            [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let marked: Vec<u8> = [0xef, 0xbb, 0xbf].into_iter().chain(text.bytes()).collect();
        let swapped: Vec<u8> =
            [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        assert_eq!(decode(&utf16).unwrap(), text);
        assert_eq!(decode(&swapped).unwrap(), text);
        assert_eq!(decode(&marked).unwrap(), text);
        assert_eq!(decode(text.as_bytes()).unwrap(), text);
        assert_eq!(decode(b"[Version] ; \xe9\r\n").unwrap(), text);
    }

    #[test]
    fn what_is_no_text_is_refused_in_words() {
        for (bytes, says) in [
            (&b""[..], "empty"),
            (b"MZ\x90\x00\x03\x00", "NUL"),
            (b"[\0V\0]\0", "byte order mark"),
            (b"\xff\xfe\x00\xd8", "UTF-16"),
            (b"\xff\xfeabc", "UTF-16"),
            (b"\xef\xbb\xbfa\n\xff", "not UTF-8"),
        ] {
            let message = decode(bytes).unwrap_err().message;
            assert!(message.contains(says), "{bytes:?}: {message}");
        }
        assert_eq!(
            decode(b"\xef\xbb\xbfa\n\xc3\xa9\xff").unwrap_err().spot,
            Some(Spot { line: 2, column: 2 })
        );
    }
}
