//! "Did you mean …?": the known word that is nearest to a mistyped one.

/// The word of `known` that differs from `typed` by the fewest slips (a letter added, left out, replaced, or two
/// neighbours swapped), if they are few for its length; the first one of several. Case does not count.
#[must_use]
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed: Vec<char> = typed.chars().take(80).flat_map(char::to_lowercase).collect();
    let allowed = match typed.len() {
        0..=2 => 1,
        3..=7 => 2,
        longer => longer / 3,
    };
    let mut best: Option<(usize, &str)> = None;
    for word in known {
        let letters: Vec<char> = word.chars().flat_map(char::to_lowercase).collect();
        let slips = distance(&typed, &letters);
        if slips <= allowed && slips < letters.len() && best.is_none_or(|(least, _)| slips < least) {
            best = Some((slips, word));
        }
    }
    best.map(|(_, word)| word)
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(x != y);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = above;
        above = row;
    }
    above[b.len()]
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
}
