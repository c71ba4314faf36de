//! Requests of one code with two inputs, each of which gives an answer of its own: the card, or what requests share, holds one of them at a time.

use super::super::survey::{Answered, Survey};
use super::effort::{Kind, Plan};
use super::steps::{around_input, asks, open, two_at_once, words};
use crate::record::hex;

/// Adds that each of them gives its own, one waiting behind the other and two at once.
pub(super) fn own_answers(survey: &Survey, name: &str, plan: &mut Plan) {
    for [one, other] in &survey.answered {
        let (open, both) = (open(name), format!("{} and {}", words(&one.operation), words(&other.operation)));
        let (ask, ask_other) = (asks("a", &one.operation), asks("b", &other.operation));
        let own = format!("cancel h; {}; {}", must_answer("a", one, other), must_answer("b", other, one));
        let script = format!(
            "{open}; {ask}; {ask_other}; {}; wait 50ms; {own}; {}; close h",
            asks("c", &one.operation),
            must_answer("c", one, other)
        );
        plan.add(format!("the answers of {both} that wait behind each other"), script, Kind::Behind);
        let script = two_at_once(&open, &ask, &ask_other, &format!("{own}; close h"));
        plan.add(format!("the answers of {both} at once"), script, Kind::AtOnce);
    }
}

/// The request of this name gives its answer, and neither the other's nor what that was sent with.
fn must_answer(name: &str, one: &Answered, other: &Answered) -> String {
    let sent = around_input(&other.operation.command).map_or("", |(_, input, _)| input);
    format!("must-answer {name} hex:{} not hex:{} or {sent}", hex(&one.answer), hex(&other.answer))
}
