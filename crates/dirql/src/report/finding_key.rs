//! What the same finding of two runs has in common.
//!
//! Two runs have found the same if it is the same rule at the same instruction of the driver's: the words differ by addresses that
//! depend on the schedule. What belongs to no instruction is the same if the words are, but for such numbers, for who waits, and for how often; or if those
//! are that the finding says make it the same: what one place of the driver's has allocated and left.

use std::collections::BTreeSet;

use kernel::verdict::Verdict;

/// The instruction that a finding belongs to, if there is one: code that was only interrupted is not it, nor is what runs while a card acts.
pub(crate) fn instruction(finding: &Verdict) -> Option<u64> {
    let first = finding.stack.first().filter(|line| !line.interrupted && !finding.by_hardware);
    first.map(|line| line.address)
}

/// The rule of a driver that hangs, to see which takes as long as thousands of other runs.
pub const HANGS: &str = "endless-loop";

/// Equal for the same findings of two runs.
pub(crate) fn key(finding: &Verdict) -> String {
    match (&finding.identity, instruction(finding)) {
        (Some(identity), _) => format!("{}:{identity}", finding.rule),
        (None, Some(address)) => format!("{}@{address:x}", finding.rule),
        (None, None) => format!("{}:{}", finding.rule, gist(&finding.message)),
    }
}

/// What the words of two runs have in common that find the same: no addresses, no counts, no moments, no names of threads or of devices that have
/// numbers for names, and not which of several cards it is; of a script's command which request it is; of what waits where in the driver it does, and for what; and each part once.
fn gist(text: &str) -> String {
    let parts: BTreeSet<String> =
        text.split("; ").map(|part| waiting(part).unwrap_or_else(|| gist_of_part(part))).collect();
    parts.into_iter().collect::<Vec<_>>().join("; ")
}

/// Where something waits in the driver, if it does, and for what, if this is of that.
fn waiting(part: &str) -> Option<String> {
    let (who, what) = part.split_once(" waits for ")?;
    let up_to_details = |text: &str| gist_of_part(text.split([',', '(']).next().unwrap_or_default());
    let place =
        who.split_once("in ").filter(|(_, place)| place.contains('!')).map(|(_, place)| up_to_details(place));
    Some(format!("{} waits for {}", place.unwrap_or_default(), up_to_details(what)))
}

fn gist_of_part(text: &str) -> String {
    let mut all = String::new();
    for (at, piece) in text.split('`').enumerate() {
        all += &if at % 2 == 1 { request(piece) } else { without_numbers(piece) };
    }
    all
}

/// Which request a command is: `ioctl 0x222000`, `read`.
pub(crate) fn request(command: &str) -> String {
    let mut words = command.split(' ');
    // The handle stands between the two.
    match (words.next(), words.nth(1)) {
        (Some("ioctl"), Some(code)) => format!("ioctl {code}"),
        (what, _) => what.unwrap_or_default().to_owned(),
    }
}

fn without_numbers(text: &str) -> String {
    let text = without_addresses(text);
    let words: Vec<&str> = text.split(' ').collect();
    let counted = |at: usize| {
        let before = at.checked_sub(1).map_or("", |before| words[before]);
        before == "event"
            || before == "thread"
            || words.get(at + 1).is_some_and(|next| next.starts_with("times"))
    };
    let shown = |(at, word): (usize, &&str)| match word {
        word if counted(at) => {
            word.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric()).to_owned()
        }
        word => without_instance(&without_device_number(&without_long_numbers(word))),
    };
    words.iter().enumerate().map(shown).collect::<Vec<_>>().join(" ")
}

/// A device's name without the number at its end: which of several of one kind it is.
fn without_device_number(word: &str) -> String {
    let is_name =
        [r"\Device\", r"\DosDevices\", r"\??\", r"\GLOBAL??\"].iter().any(|folder| word.contains(folder));
    if !is_name {
        return word.to_owned();
    }
    let name = word.trim_end_matches(|letter: char| letter.is_ascii_punctuation() && letter != '\\');
    let behind = &word[name.len()..];
    name.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_owned() + behind
}

/// A word whose parts of eight digits are gone, as devices have for names.
fn without_long_numbers(word: &str) -> String {
    let is_number = |part: &&str| part.len() == 8 && part.chars().all(|letter| letter.is_ascii_hexdigit());
    let parts = word.split('\\').map(|part| if is_number(&part) { "" } else { part });
    parts.collect::<Vec<_>>().join("\\")
}

/// A card's name without which of its kind it is: `pci#1`.
fn without_instance(word: &str) -> String {
    match word.split_once('#') {
        Some((model, number)) => {
            format!("{model}#{}", number.trim_start_matches(|digit: char| digit.is_ascii_digit()))
        }
        None => word.to_owned(),
    }
}

/// A text whose numbers in hexadecimal are only `0x`.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split("0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        all + "0x" + part.trim_start_matches(|letter: char| letter.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use kernel::verdict::StackLine;

    use super::*;

    #[test]
    fn the_same_finding_of_two_runs_has_one_key_whatever_its_addresses_are() {
        let found = |message: &str| key(&Verdict::verifier("some-rule", message));
        assert_eq!(found("a block at 0x20200010 of 8 bytes"), found("a block at 0xabc of 8 bytes"));
        assert_ne!(found("a block at 0x20200010 of 8 bytes"), found("a block at 0x20200010 of 9 bytes"));
        assert_eq!(without_addresses("0x1f, 0x2"), "0x, 0x");
        assert_eq!(found("acquired 2 times, last in a"), found("acquired 14 times, last in a"));
        assert_eq!(gist("12 blocks, 3 times and 4 times, 2 times."), "12 blocks,  times and  times,  times.");
    }

    #[test]
    fn all_that_one_place_has_left_is_one_finding() {
        let left = |what: &str, place: &str| {
            key(&Verdict {
                identity: Some(place.to_owned()),
                ..Verdict::error("pool-leak", format!("{what}{place}"))
            })
        };
        let by = |place: &str| format!(", allocated by a.sys!{place}");
        assert_eq!(left("left 8 bytes at 0x2020", &by("A+0x12")), left("left 14 more blocks", &by("A+0x12")));
        assert_ne!(
            left("left 8 bytes at 0x2020", &by("A+0x12")),
            left("left 8 bytes at 0x2020", &by("A+0x14"))
        );
    }

    #[test]
    fn which_request_it_is_counts_and_not_its_handle_or_its_input() {
        let found = |command: &str| key(&Verdict::warning("some-rule", format!("`{command}` has not ended")));
        assert_eq!(found("ioctl h 0x222000 in zero:64 out 64"), found("ioctl i 0x222000 in u32:0x1"));
        assert_ne!(found("ioctl h 0x222000"), found("ioctl h 0x222004"));
        assert_eq!(found("read h 64"), found("read i 4"));
        assert_ne!(found("read h 64"), found("write h zero:64"));
    }

    #[test]
    fn which_of_several_cards_it_is_does_not_count() {
        let found =
            |card: &str| key(&Verdict::warning("some-rule", format!("stopped {card}, and still mapped")));
        assert_eq!(found("pci#0"), found("pci#12"));
        assert_ne!(found("pci#0"), found("edu#0"));
        assert_eq!(found(r"\Device\Card-0"), found(r"\Device\Card-12"));
        assert_ne!(found(r"\Device\Card0"), found(r"\Device\Other0"));
    }

    #[test]
    fn who_waits_for_the_same_how_often_and_since_when_does_not_count() {
        let alone = "the thread main waits for the end of a request (pended at event 214)";
        let both = "the thread main waits for the end of a request (pended at event 4); the thread t waits for the end of a request (pended at event 7)";
        assert_eq!(gist(alone), gist(both));
        assert_ne!(gist(alone), gist("the thread main waits for an event"));
        let removal = |who: &str, held: &str| {
            gist(&format!(
                "nothing can run: in a.sys!Pnp+0x1b2 (a.c:142), {who} waits for the release of the remove lock 0x20 (at +0x18), which is held {held}"
            ))
        };
        assert_eq!(
            removal("the PnP manager", "with the tag 0x1"),
            removal("the system's shutdown", "with several tags (acquired 3 times)")
        );
        let child = |device: &str| {
            gist(&format!("it reported the child 0x2020 ({device} (bus)) without a reference"))
        };
        assert_eq!(child(r"\Device\00000002"), child(r"\Device\0000003d"));
        assert_eq!(child(r"\Device\Port2"), child(r"\Device\Port3"));
        assert_ne!(child(r"\Device\Port2"), child(r"\Device\Link2"));
    }

    #[test]
    fn code_that_was_interrupted_is_not_where_a_finding_belongs() {
        let line = |interrupted| StackLine {
            address: 0x1000,
            is_return: false,
            symbol: String::new(),
            interrupted,
            ddi: None,
        };
        let found = |interrupted| {
            key(&Verdict { stack: vec![line(interrupted)], ..Verdict::error("some-rule", "words") })
        };
        assert_eq!((found(false), found(true)), ("some-rule@1000".to_owned(), "some-rule:words".to_owned()));
        let by_card = Verdict {
            stack: vec![line(false)],
            by_hardware: true,
            ..Verdict::error("some-rule", "wrote 0x40 bytes at 0x8000000")
        };
        assert_eq!(key(&by_card), "some-rule:wrote 0x bytes at 0x");
    }
}
