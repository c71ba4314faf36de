//! Two requests at once as a search by coverage has found that they follow each other: what stands in them, and what they come behind, no survey knows. The
//! last one comes together with one of those before it made again: as it was, with twice as much, with half of it; and with other requests. What a driver has measured
//! or looked up for the one is another thing by the time that it is used.

use std::collections::BTreeSet;

use super::exercise::{ENDED, around_input, open, tried, two_at_once};
use super::survey::{Operation, Survey};
use crate::script::written;

/// So many of those before the last one come with it, and so many other requests.
const BEFORE: usize = 3;
const OTHERS: usize = 3;
/// Bytes that an input is made longer by, at the least.
const LONGER: usize = 16;

/// Scripts of these sequences of a search: so many at most, those of the last sequences first.
#[must_use]
pub fn at_once_as_found(survey: &Survey, sequences: &[Vec<Operation>], count: u64) -> Vec<String> {
    let Some(name) = survey.names.first() else { return Vec::new() };
    let mut known = BTreeSet::new();
    let mut scripts = Vec::new();
    for sequence in sequences.iter().rev() {
        for (at, pair) in sequence.windows(2).enumerate() {
            let [first, second] = pair else { continue };
            let succeed = first.succeeds && second.succeeds;
            if !succeed || kind(first) == kind(second) || !known.insert([kind(first), kind(second)]) {
                continue;
            }
            let all_before = &sequence[..=at];
            let before = all_before.iter().enumerate().map(|(n, one)| tried(n, &one.command));
            let before = format!("{}; {}", open(name), before.collect::<Vec<_>>().join("; "));
            let others = survey.operations.iter().filter(|other| other.succeeds && !other.variant);
            let others = others.filter(|other| kind(other) != kind(first)).take(OTHERS);
            let made = all_before.iter().rev().take(BEFORE).flat_map(of_other_lengths);
            let mut again: Vec<String> = made.chain(others.map(|other| other.command.clone())).collect();
            let mut met = BTreeSet::new();
            again.retain(|command| met.insert(command.clone()));
            let asked = format!("async a {}", second.command);
            scripts.extend(
                again.iter().map(|other| two_at_once(&before, &asked, &format!("async b {other}"), ENDED)),
            );
        }
    }
    scripts.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    scripts
}

/// What it is that is asked for.
fn kind(operation: &Operation) -> &str {
    let words = if operation.code.is_some() { 3 } else { 1 };
    let end = operation.command.match_indices(' ').nth(words - 1);
    end.map_or(&operation.command, |(end, _)| &operation.command[..end])
}

/// The request as it is, with an input twice as long, and with half of it.
fn of_other_lengths(operation: &Operation) -> Vec<String> {
    let mut all = vec![operation.command.clone()];
    let bytes = operation.input();
    if let Some((head, _, output)) = around_input(&operation.command).filter(|_| !bytes.is_empty()) {
        let mut longer = bytes.clone();
        longer.resize((2 * bytes.len()).max(bytes.len() + LONGER), 0);
        let changed = [longer.as_slice(), &bytes[..bytes.len() / 2]];
        let changed = changed.into_iter().filter(|bytes| !bytes.is_empty());
        all.extend(changed.map(|bytes| format!("{head}{}{output}", written(bytes))));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::play::ScriptText;

    fn operation(command: &str, succeeds: bool) -> Operation {
        let code = command.contains("ioctl").then_some(1);
        Operation { command: command.to_owned(), code, succeeds, waits: false, variant: false, needs: None }
    }

    #[test]
    fn the_last_comes_with_those_before_it_of_all_lengths_and_with_others() {
        let survey = Survey {
            names: vec![r"\\.\D".to_owned()],
            operations: vec![operation("ioctl h 0x4 in zero:4", true), operation("ioctl h 0x8", false)],
            ..Survey::default()
        };
        let set = operation("ioctl h 0x10 in u32:0x1 + zero:20", true);
        let get = operation("ioctl h 0x14 in zero:1 out 64", true);
        let fails = operation("ioctl h 0x18", false);
        let sequences = [vec![set.clone(), set.clone(), get.clone(), fails.clone()], vec![fails, set, get]];
        let scripts = at_once_as_found(&survey, &sequences, 100);
        let with = |what: &str| {
            format!(
                "t: async a ioctl h 0x14 in zero:1 out 64; u: async b {what}; join t; join u; wait 50ms; {ENDED}"
            )
        };
        let others = [
            "ioctl h 0x10 in u32:0x1 + zero:20",
            "ioctl h 0x10 in u32:0x1 + zero:44",
            "ioctl h 0x10 in u32:0x1 + zero:8",
            "ioctl h 0x18",
            "ioctl h 0x4 in zero:4",
        ];
        assert_eq!(scripts.len(), others.len(), "{scripts:#?}");
        for (script, other) in scripts.iter().zip(others) {
            assert!(script.ends_with(&with(other)), "{script}");
            assert_eq!(script.matches("async r1 ioctl h 0x10 in u32:0x1 + zero:20;").count(), 1, "{script}");
            assert!(ScriptText::typed(script).play().is_ok(), "{script}");
        }
        assert_eq!(at_once_as_found(&survey, &sequences, 2), scripts[..2]);
    }
}
