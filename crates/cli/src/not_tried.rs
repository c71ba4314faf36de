//! What a search has not tried, and how far it has come, in words: for its report, and for the line on a terminal.
//!
//! What is known is said to the last schedule; what is estimated with two digits (`docs/exploration.md` says what is assumed).

use dirql::explore::{NotTried, SoFar};
use serde_json::{Value, json};

use crate::explore::schedules;

/// No search makes so many.
const USELESS: u64 = 1_000_000_000_000_000;

/// For the report; nothing if nothing is left. `by_cost`: schedules have preemptions, and others depart from them.
pub(crate) fn as_text(not_tried: &NotTried, by_cost: bool) -> Option<String> {
    if !not_tried.is_any() {
        return None;
    }
    let NotTried { known, estimated, begins_again } = not_tried;
    let all = known.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
    if !by_cost {
        return Some(format!("not tried: {}", schedules(all)));
    }
    let mut text = format!("not tried: {}", left(known, estimated.as_deref(), "schedules"));
    let of_each: Vec<String> = (0..known.len()).filter_map(|cost| with(cost, not_tried)).collect();
    if !of_each.is_empty() {
        text += &format!(" ({})", of_each.join(", "));
    }
    if estimated.is_none() {
        text += ", and those that depart further from them";
    }
    if *begins_again {
        text += "; and all of them again, with instructions that were learned to touch what others touch";
    }
    Some(text)
}

/// How many there are with so many preemptions, if there are any.
fn with(cost: usize, NotTried { known, estimated, .. }: &NotTried) -> Option<String> {
    let kind = match cost {
        0 => "without a preemption".to_owned(),
        cost => format!("with {cost}"),
    };
    let (known, about) = (known[cost], estimated.as_ref().map_or(0, |all| all[cost]));
    match (known, about) {
        (0, 0) => None,
        (0, about) => Some(format!("{} {kind}", estimate(about, 0))),
        (known, about) if about > known => {
            Some(format!("{known} known {kind}, {} in all", estimate(about, known)))
        }
        (known, _) => Some(format!("{known} known {kind}")),
    }
}

/// `at least 12 schedules, about 100`.
fn left(known: &[u64], estimated: Option<&[u64]>, what: &str) -> String {
    let sum = |all: &[u64]| all.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
    let known = sum(known);
    let about = estimated.map(|all| format!(", {}", estimate(sum(all), known)));
    format!("at least {known} {what}{}", about.unwrap_or_default())
}

/// An estimate, of at least so many. Where it is of no use as a number, only that it is large.
fn estimate(count: u64, known: u64) -> String {
    if count >= USELESS {
        "more than 10^15".to_owned()
    } else {
        format!("about {}", rounded(count).max(known))
    }
}

/// With two digits that count.
fn rounded(count: u64) -> u64 {
    let digits = count.checked_ilog10().unwrap_or(0);
    let unit = 10_u64.pow(digits.saturating_sub(1));
    count.saturating_add(unit / 2) / unit * unit
}

/// As JSON.
pub(crate) fn as_json(not_tried: &NotTried) -> Value {
    let NotTried { known, estimated, begins_again } = not_tried;
    json!({"known": known, "estimated": estimated, "begins_again": begins_again})
}

/// How far it has come, for a line on a terminal.
pub(crate) fn in_a_line(so_far: &SoFar, a_second: Option<u64>) -> String {
    let SoFar { tried, cost, remarks, not_tried } = so_far;
    let mut line = format!("{} explored", schedules(*tried));
    if let Some(rate) = a_second {
        line += &format!(", {rate} a second");
    }
    if *remarks > 0 {
        line += &format!(", {remarks} finding{}", if *remarks == 1 { "" } else { "s" });
    }
    if not_tried.known.len() > 1 {
        line += &format!("; now with {cost} preemption{}", if *cost == 1 { "" } else { "s" });
    }
    let again = if not_tried.begins_again { ", then all again" } else { "" };
    line + &format!("; {}{again}", left(&not_tried.known, not_tried.estimated.as_deref(), "left"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_tried(known: [u64; 3], estimated: Option<[u64; 3]>, begins_again: bool) -> NotTried {
        NotTried { known: known.to_vec(), estimated: estimated.map(|all| all.to_vec()), begins_again }
    }

    #[test]
    fn what_is_known_is_exact_and_what_is_estimated_has_two_digits() {
        let text = |it: &NotTried| as_text(it, true).unwrap_or_default();
        assert_eq!(text(&not_tried([0; 3], Some([0; 3]), false)), "");
        assert_eq!(
            text(&not_tried([0, 210, 4017], Some([0, 261, 31_415]), false)),
            "not tried: at least 4227 schedules, about 32000 (210 known with 1, about 260 in all, 4017 known with 2, about 31000 in all)"
        );
        assert_eq!(
            text(&not_tried([0, 0, 431], Some([0, 0, 431]), false)),
            "not tried: at least 431 schedules, about 431 (431 known with 2)"
        );
        assert_eq!(
            text(&not_tried([3, 12, 0], None, true)),
            "not tried: at least 15 schedules (3 known without a preemption, 12 known with 1), and those that depart further from them; \
             and all of them again, with instructions that were learned to touch what others touch"
        );
        assert_eq!(estimate(u64::MAX, 3), "more than 10^15");
        let seeds = NotTried { known: vec![1], estimated: Some(vec![1]), begins_again: false };
        assert_eq!(as_text(&seeds, false).unwrap(), "not tried: 1 schedule");
        assert_eq!([0, 9, 99, 104, 105, 995, u64::MAX].map(rounded)[..6], [0, 9, 99, 100, 110, 1000]);
    }

    #[test]
    fn a_line_says_how_fast_it_goes_and_what_is_left() {
        let so_far = |remarks, not_tried| SoFar { tried: 512, cost: 1, remarks, not_tried };
        assert_eq!(
            in_a_line(&so_far(2, not_tried([0, 210, 4017], Some([0, 261, 31_415]), false)), Some(950)),
            "512 schedules explored, 950 a second, 2 findings; now with 1 preemption; at least 4227 left, about 32000"
        );
        assert_eq!(
            in_a_line(&so_far(0, not_tried([0, 7, 20], None, true)), None),
            "512 schedules explored; now with 1 preemption; at least 27 left, then all again"
        );
    }
}
