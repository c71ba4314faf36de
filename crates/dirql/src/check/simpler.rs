//! A request of a script made simpler as long as it still shows the same: without its input or its output, with fewer bytes, with zeros for those
//! that do not matter.
//!
//! What a mistake depends on is then seen at once: `in zero:8` says that it is the length, `in zero:4 + u32:0x40` where the number stands.

use std::ops::Range;

use crate::error::Error;
use crate::script::{Data, written};

/// What makes a request of a command.
const REQUESTS: [&str; 3] = ["ioctl", "read", "write"];

/// What a word of a request says that may be simpler.
enum Part {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The simplest form of a command of which `shows` says that it shows the same. What is no request, or expects an answer, stays as it is.
///
/// # Errors
/// Those of `shows`.
pub(super) fn simpler(
    command: &str,
    mut shows: impl FnMut(&str) -> Result<bool, Error>,
) -> Result<String, Error> {
    let mut words = words(command);
    // From the last one on: what is taken out moves none that is still to come.
    for at in (1..words.len()).rev() {
        let Some((part, may_go)) = part(&words, at) else { continue };
        let without = || [&words[..at - 1], &words[at + 1..]].concat();
        if may_go && shows(&without().join(" "))? {
            words = without();
            continue;
        }
        let mut shows_with = |part: &Part| {
            let mut words = words.clone();
            words[at] = spelled(part);
            shows(&words.join(" "))
        };
        let simplest = match part {
            Part::Number(number) => {
                Part::Number(least(number, &mut |fewer| shows_with(&Part::Number(fewer)))?)
            }
            Part::Bytes(mut bytes) => {
                let first =
                    |count: u64| bytes.iter().copied().take(count.try_into().unwrap_or(usize::MAX)).collect();
                let count = least(bytes.len() as u64, &mut |count| shows_with(&Part::Bytes(first(count))))?;
                bytes = first(count);
                let all = 0..bytes.len();
                zeros(&mut bytes, all, &mut |bytes| shows_with(&Part::Bytes(bytes.to_vec())))?;
                Part::Bytes(bytes)
            }
        };
        let is_same = part_of(&words[at]).is_some_and(|part| spelled(&part) == spelled(&simplest));
        if !is_same {
            words[at] = spelled(&simplest);
        }
    }
    Ok(words.join(" "))
}

/// The words of a command; bytes with `+` between them are one.
fn words(command: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut goes_on = false;
    for word in command.split(' ') {
        match words.last_mut().filter(|_| goes_on || word == "+") {
            Some(last) => *last += &format!(" {word}"),
            None => words.push(word.to_owned()),
        }
        goes_on = word == "+";
    }
    words
}

/// What the word at this place of a request says, and whether it may be left out together with the one before it.
fn part(words: &[String], at: usize) -> Option<(Part, bool)> {
    let is_request = words.iter().any(|word| REQUESTS.contains(&&**word));
    if !is_request || words.iter().any(|word| word == "expect" || word.contains('"')) {
        return None;
    }
    let may_go = match (&*words[at - 1], at.checked_sub(2).map(|verb| &*words[verb])) {
        ("in" | "out" | "at", _) => true,
        (_, Some("read" | "write")) => false,
        _ => return None,
    };
    Some((part_of(words.get(at)?)?, may_go))
}

fn part_of(word: &str) -> Option<Part> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    };
    number.map(Part::Number).or_else(|| Data::literal(word).map(Part::Bytes))
}

/// As a script has it.
fn spelled(part: &Part) -> String {
    match part {
        Part::Number(number) => number.to_string(),
        Part::Bytes(bytes) => written(bytes),
    }
}

/// The least number for which it shows, of those up to `most`, for which it does.
fn least(most: u64, shows: &mut dyn FnMut(u64) -> Result<bool, Error>) -> Result<u64, Error> {
    let (mut low, mut least) = (0, most);
    while low < least {
        let middle = low + (least - low) / 2;
        if shows(middle)? {
            least = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(least)
}

/// Makes zeros of what does not matter in this range: of all of it, or else of each half.
fn zeros(
    bytes: &mut Vec<u8>,
    range: Range<usize>,
    shows: &mut dyn FnMut(&[u8]) -> Result<bool, Error>,
) -> Result<(), Error> {
    if bytes[range.clone()].iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let mut zeroed = bytes.clone();
    zeroed[range.clone()].fill(0);
    if shows(&zeroed)? {
        *bytes = zeroed;
        return Ok(());
    }
    if range.len() <= 1 {
        return Ok(());
    }
    // Where numbers of 32 bits begin, as long as there is more than one.
    let half = (range.len() / 2).next_multiple_of(if range.len() > 4 { 4 } else { 1 });
    let middle = range.start + half.min(range.len() - 1);
    zeros(bytes, range.start..middle, shows)?;
    zeros(bytes, middle..range.end, shows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The simplest form of which this holds.
    fn simplest(command: &str, shows: impl Fn(&str) -> bool) -> String {
        simpler(command, |form| Ok(shows(form))).unwrap()
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        let has_code = |form: &str| form.contains("0x222004");
        assert_eq!(
            simplest("t: async a ioctl h 0x222004 in u32:0x1 + zero:60 out 64", has_code),
            "t: async a ioctl h 0x222004"
        );
        assert_eq!(simplest("read h 64 at 0x10", |_| true), "read h 0");
        assert_eq!(simplest("write h fill:0x1:16 at 4294967296", |_| true), "write h zero:0");
    }

    #[test]
    fn a_length_is_as_small_as_it_can_be() {
        let more = |form: &str| {
            let bytes =
                form.split_once(" in ").and_then(|(_, bytes)| Data::literal(bytes.split(" out").next()?));
            bytes.is_some_and(|bytes| bytes.len() > 8)
        };
        assert_eq!(
            simplest("ioctl h 0x2 in hex:ffffffffffffffffffffffffffffffff out 4", more),
            "ioctl h 0x2 in zero:9"
        );
        assert_eq!(simplest("read h 4096", |form| form != "read h 0"), "read h 1");
    }

    #[test]
    fn bytes_that_matter_stay_where_they_are() {
        let matters = |form: &str| {
            let bytes = form.split_once(" in ").and_then(|(_, bytes)| Data::literal(bytes));
            bytes.is_some_and(|bytes| bytes.len() >= 12 && bytes[5] == 0x40)
        };
        let command = "ioctl h 0x2 in hex:010203044040414243444546 + fill:0x7:8";
        assert_eq!(simplest(command, matters), "ioctl h 0x2 in zero:4 + u32:0x4000 + zero:4");
    }

    #[test]
    fn what_is_no_request_or_not_known_yet_stays_as_it_is() {
        for command in
            ["poke pci#0 pulse 3", "open x as h", "ioctl h 0x2 in handle:h", "read h 4 expect hex:01020304"]
        {
            assert_eq!(simplest(command, |_| true), command);
        }
        // Nothing of it can go: it stays as it was written.
        let command = "ioctl h 0x2 in u32:0x1 + zero:60 out 64";
        assert_eq!(simplest(command, |form| form == command), command);
    }
}
