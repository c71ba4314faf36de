//! Names that stand for several: `*.sys`.
//!
//! Page: *FsRtlIsNameInExpression function*: `*` and `?`, and what Win32 makes of them for names as DOS had them, `<` (`DOS_STAR`),
//! `>` (`DOS_QM`) and `"` (`DOS_DOT`). Both texts are in capitals.

use std::collections::BTreeSet;

/// Whether the name is one that the pattern stands for.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let last_dot = name.iter().rposition(|c| *c == '.');
    // Where in the pattern one may be, having come so far in the name.
    let mut states = closed(&pattern, BTreeSet::from([0]), name.first());
    for (at, c) in name.iter().enumerate() {
        let step = |state: usize| match pattern.get(state)? {
            '*' => Some(state),
            '<' if Some(at) != last_dot => Some(state),
            '?' => Some(state + 1),
            '>' if *c != '.' => Some(state + 1),
            '"' if *c == '.' => Some(state + 1),
            same if same == c => Some(state + 1),
            _ => None,
        };
        states = closed(&pattern, states.into_iter().filter_map(step).collect(), name.get(at + 1));
    }
    states.contains(&pattern.len())
}

/// The states, and those that are reached from them before the name's next character; there is none at its end.
fn closed(pattern: &[char], mut states: BTreeSet<usize>, next: Option<&char>) -> BTreeSet<usize> {
    let mut open: Vec<usize> = states.iter().copied().collect();
    while let Some(state) = open.pop() {
        let goes_on = match pattern.get(state) {
            Some('*' | '<') => true,
            Some('>') => matches!(next, None | Some('.')),
            Some('"') => next.is_none(),
            _ => false,
        };
        if goes_on && states.insert(state + 1) {
            open.push(state + 1);
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks_stand_for_what_they_stand_for() {
        for (pattern, name, is_one) in [
            ("*", "A.B", true),
            ("*.SYS", "A.SYS", true),
            ("*.SYS", "A.SYSX", false),
            ("A?C", "ABC", true),
            ("A?C", "AC", false),
            ("A*B*C", "AXXBYC", true),
            ("A*B*C", "AXXBY", false),
            ("ABC", "ABC", true),
            ("*A", "BAAB", false),
        ] {
            assert_eq!(matches(pattern, name), is_one, "{pattern} {name}");
        }
    }

    #[test]
    fn what_win32_makes_of_patterns_matches_as_in_dos() {
        for (pattern, name, is_one) in [
            // `*.` of Win32: names without an extension.
            ("<", "README", true),
            ("<", "READ.ME", false),
            ("<.TXT", "A.B.TXT", true),
            // `????.TXT`
            (">>>>.TXT", "AB.TXT", true),
            (">>>>.TXT", "ABCDE.TXT", false),
            // `A.*`
            ("A\"*", "A", true),
            ("A\"*", "A.B", true),
        ] {
            assert_eq!(matches(pattern, name), is_one, "{pattern} {name}");
        }
    }
}
