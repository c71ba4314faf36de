//! "Did you mean …?": the known word that is nearest to a mistyped one. What counts as near enough is said here alone, for cards, scripts,
//! INF files and the command line.

/// How many characters of a word are compared: nothing longer is mistyped for something known.
const LONGEST: usize = 80;

/// The word of `known` that differs from `typed` by the fewest slips (a letter added, left out, replaced, or two
/// neighbours swapped), if they are few for its length; the first one of several. Case does not count.
#[must_use]
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed: String = typed.chars().take(LONGEST).flat_map(char::to_lowercase).collect();
    let allowed = match typed.chars().count() {
        0..=2 => 1,
        3..=7 => 2,
        longer => longer / 3,
    };
    let mut best: Option<(usize, &str)> = None;
    for word in known {
        let slips = strsim::osa_distance(&typed, &word.to_lowercase());
        if slips <= allowed && slips < word.chars().count() && best.is_none_or(|(least, _)| slips < least) {
            best = Some((slips, word));
        }
    }
    best.map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_word_that_was_meant() {
        let known = ["open", "read", "write", "surprise-remove"];
        assert_eq!(nearest("opne", known), Some("open"));
        assert_eq!(nearest("wirte", known), Some("write"));
        assert_eq!(nearest("suprise-remove", known), Some("surprise-remove"));
        assert_eq!(nearest("READ", known), Some("read"));
    }

    #[test]
    fn a_quite_different_word_is_not_guessed_at() {
        assert_eq!(nearest("frobnicate", ["open", "read", "write"]), None);
        assert_eq!(nearest("", ["open"]), None);
        assert_eq!(nearest("xy", ["a"]), None);
    }

    #[test]
    fn a_typo_in_a_cards_keys_finds_what_was_meant() {
        assert_eq!(nearest("latncy", ["eeprom", "latency", "rev"]), Some("latency"));
        assert_eq!(nearest("pci9051", ["pci", "pci9052"]), Some("pci9052"));
        assert_eq!(nearest("zebra", ["eeprom", "rev"]), None);
    }
}
