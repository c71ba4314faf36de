//! What a search has not tried, and how far it has come, in words: for its report, and for the line on a terminal.

use dirql::explore::{NotTried, SoFar};
use serde_json::{Value, json};

use crate::explore::schedules;

/// For the report; nothing if nothing is left. `by_cost`: those with 0, 1, … preemptions are told apart.
pub(crate) fn as_text(not_tried: &NotTried, by_cost: bool) -> Option<String> {
    if !not_tried.is_any() {
        return None;
    }
    let known = not_tried.known.iter().enumerate().filter(|(_, count)| **count > 0);
    let known: Vec<String> = known
        .map(|(cost, count)| match cost {
            _ if !by_cost => format!("{count}"),
            0 => format!("{count} without a preemption"),
            cost => format!("{count} with {cost}"),
        })
        .collect();
    let known = if known.is_empty() { "none of those that are known".to_owned() } else { known.join(", ") };
    let further = if by_cost { ", and those that depart further from them" } else { "" };
    let again = if not_tried.begins_again {
        "; and all of them again, with instructions that were learned to touch what others touch"
    } else {
        ""
    };
    Some(format!("not tried: {known}{further}{again}"))
}

/// As JSON.
pub(crate) fn as_json(not_tried: &NotTried) -> Value {
    json!({"known": not_tried.known, "begins_again": not_tried.begins_again})
}

/// How far it has come, for a line on a terminal.
pub(crate) fn in_a_line(so_far: &SoFar, a_second: Option<u64>) -> String {
    let mut line = format!("{} explored", schedules(so_far.tried));
    if let Some(rate) = a_second {
        line += &format!(", {rate} a second");
    }
    if so_far.remarks > 0 {
        line += &format!(", {} finding{}", so_far.remarks, if so_far.remarks == 1 { "" } else { "s" });
    }
    if so_far.not_tried.known.len() > 1 {
        line += &format!("; now with {} preemption{}", so_far.cost, if so_far.cost == 1 { "" } else { "s" });
    }
    let left: u64 = so_far.not_tried.known.iter().sum();
    line + &format!("; at least {left} left")
}
