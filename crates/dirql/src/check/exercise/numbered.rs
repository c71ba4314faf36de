//! Numbers that one request hands out and another takes: of sessions, buffers, timers. One stays while many others come and go; one is taken twice, of another
//! handle, of a handle that has been closed, and by two threads at once.

use super::super::survey::{Operation, Survey};
use super::effort::{Kind, Plan};
use super::steps::{ENDED, ENDED_OF_TWO, around_input, on, on_handle, open, open_two, two_at_once, words};

/// More than numbers of eight bits.
const COME_AND_GO: usize = 300;
/// More than fit into a small table.
const AT_A_TIME: usize = 40;
/// Bytes of a number.
const NUMBER: usize = 4;

/// The exercises of such pairs.
pub(super) fn numbered(survey: &Survey, name: &str, plan: &mut Plan) {
    let pairs = survey.numbered.iter().map(|(gives, takes)| {
        let [gives, takes] = [gives, takes].map(|place| &survey.operations[*place]);
        (gives, takes)
    });
    for (gives, takes) in pairs {
        let give = |number: &str| format!("number {number} {}", gives.command);
        let Some(take) = taking(takes) else { continue };
        let title = |what: &str| format!("{} with a number of {}, {what}", words(takes), words(gives));
        if !takes.waits {
            let others = format!("{}; must-differ m n; {}", give("m"), take("h", "m"));
            let script = format!(
                "{}; {}; {}; {}; close h",
                open(name),
                give("n"),
                vec![others; COME_AND_GO].join("; "),
                take("h", "n")
            );
            plan.add(
                title(&format!("of which one stays while {COME_AND_GO} come and go")),
                script,
                Kind::Usual,
            );
            let numbers: Vec<String> = (0..AT_A_TIME).map(|n| format!("n{n}")).collect();
            let given: Vec<String> = numbers.iter().map(|number| give(number)).collect();
            let taken: Vec<String> = numbers.iter().rev().map(|number| take("h", number)).collect();
            let script = format!(
                "{}; {}; {}; {}; close h",
                open(name),
                given.join("; "),
                taken.join("; "),
                given.join("; ")
            );
            plan.add(title(&format!("{AT_A_TIME} at a time")), script, Kind::Little);
        }
        let asks =
            |request: &str, handle: &str, number: &str| format!("async {request} {}", take(handle, number));
        let twice = format!(
            "{}; {}; {}; {}; {}; {}; wait 20ms; {ENDED}",
            open(name),
            give("n"),
            asks("a", "h", "n"),
            asks("b", "h", "n"),
            give("m"),
            asks("c", "h", "m")
        );
        plan.add(title("twice"), twice, Kind::Plain);
        let of_another = |closing: &str, ended: &str| {
            format!(
                "{}; {}; {closing}{}; wait 20ms; cancel i; join a; {}; close i{ended}",
                open_two(name),
                give("n"),
                asks("a", "i", "n"),
                give_on(gives, "i")
            )
        };
        plan.add(title("of another handle"), of_another("", "; close h"), Kind::Plain);
        plan.add(title("of a handle that is closed"), of_another("close h; ", ""), Kind::Plain);
        let opened = format!("{}; {}; {}", open_two(name), give("n"), give("m"));
        let at_once = |other: &str, then: &str| two_at_once(&opened, &asks("a", "h", "n"), other, then);
        plan.add(title("two at once"), at_once(&asks("b", "i", "n"), ENDED_OF_TWO), Kind::AtOnce);
        plan.add(title("of two at once"), at_once(&asks("b", "h", "m"), ENDED_OF_TWO), Kind::AtOnce);
        let again = format!("async b {}", gives.command);
        plan.add(title("as another is handed out"), at_once(&again, ENDED_OF_TWO), Kind::AtOnce);
        let closed = two_at_once(&opened, &asks("a", "i", "n"), "close h", "cancel i; join a; close i");
        plan.add(title("of another handle that is closed at once"), closed, Kind::AtOnce);
    }
}

/// A request on another handle whose answer no one needs.
fn give_on(gives: &Operation, handle: &str) -> String {
    format!("number m {}", on(gives, handle))
}

/// A request on this handle that takes the number of this name, in front of its input or, where that is one word again and again, in all of it.
fn taking(takes: &Operation) -> Option<impl Fn(&str, &str) -> String> {
    let (head, input, output) = around_input(&takes.command)?;
    let length = takes.input().len();
    let behind = length.checked_sub(NUMBER)?;
    let is_filled = input.starts_with("fill:");
    let rest = match input.strip_prefix("u32:") {
        Some(word) => word.split_once(" + ").map(|(_, rest)| rest.to_owned()),
        None => (behind > 0).then(|| format!("zero:{behind}")),
    };
    Some(move |handle: &str, number: &str| {
        let number = format!("number:{number}");
        let input = match &rest {
            _ if is_filled => vec![number; length / NUMBER].join(" + "),
            Some(rest) => format!("{number} + {rest}"),
            None => number,
        };
        on_handle(&format!("{head}{input}{output}"), handle)
    })
}
