//! What scripts are made of: handles that are opened, requests on them, two threads at once, and what must have ended behind them.

use super::super::survey::{Operation, Survey};
use super::AT_ONCE;

/// What people call a request.
pub(super) fn words(operation: &Operation) -> String {
    match operation.code {
        Some(code) => match operation.word() {
            Some(word) => format!("ioctl {code:#x} of {word}"),
            None => format!("ioctl {code:#x}"),
        },
        None => operation.command.split(' ').next().unwrap_or_default().to_owned(),
    }
}

pub(in super::super) fn open(name: &str) -> String {
    format!("tolerate; open \"{name}\" as h overlapped")
}

/// A second handle: `i`.
pub(in super::super) fn open_other(name: &str) -> String {
    open_as("i", name)
}

/// Another handle.
pub(super) fn open_as(handle: &str, name: &str) -> String {
    format!("open \"{name}\" as {handle} overlapped")
}

/// Two handles: `h` and `i`.
pub(super) fn open_two(name: &str) -> String {
    format!("{}; {}", open(name), open_other(name))
}

/// A request on this handle.
pub(in super::super) fn on(operation: &Operation, handle: &str) -> String {
    on_handle(&operation.command, handle)
}

/// The same of a command.
pub(super) fn on_handle(command: &str, handle: &str) -> String {
    command.replacen(" h", &format!(" {handle}"), 1)
}

/// A request of this name on the first handle, and one on the second.
pub(super) fn asks(request: &str, operation: &Operation) -> String {
    format!("async {request} {}", operation.command)
}
pub(super) fn asks_other(request: &str, operation: &Operation) -> String {
    format!("async {request} {}", on(operation, "i"))
}

/// Two threads that do a step each, behind what comes before; and what follows a while later.
pub(in super::super) fn two_at_once(before: &str, one: &str, other: &str, then: &str) -> String {
    format!("{before}; t: {one}; u: {other}; join t; join u; wait 50ms; {then}")
}
/// How requests `a` and `b` end, and their handle, or both handles.
pub(in super::super) const ENDED: &str = "cancel h; join a; join b; close h";
pub(super) const ENDED_ALONE: &str = "cancel h; join a; close h";
pub(super) const ENDED_OF_TWO: &str = "cancel h; cancel i; join a; join b; close h; close i";

/// The device opened, and what these need asked for, each time what that needs before it.
pub(super) fn opened(survey: &Survey, name: &str, operations: &[&Operation]) -> String {
    let needed = survey.needed_before(operations.iter().map(|operation| place(survey, operation)));
    opened_behind(name, needed.into_iter().map(|place| (place, survey.operations[place].command.as_str())))
}

/// The device opened, and these asked for, by their places.
pub(in super::super) fn opened_behind<'c>(
    name: &str,
    needed: impl IntoIterator<Item = (usize, &'c str)>,
) -> String {
    let needed = needed.into_iter().map(|(place, command)| format!("; async p{place} {command}"));
    open(name) + &needed.collect::<String>()
}

/// How long a request may take before it is cancelled: [`PATIENCE`](crate::machine::sequences::PATIENCE).
pub(in super::super) const PAUSE: &str = "wait 20ms";

/// Makes a request, and cancels it if it takes long. `n` numbers it.
pub(in super::super) fn tried(n: usize, command: &str) -> String {
    format!("async r{n} {command}; {PAUSE}; cancel r{n}; join r{n}")
}

/// The same of several, one after the other.
pub(super) fn tried_in_turn(commands: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let each = commands.into_iter().enumerate().map(|(n, command)| tried(n, command.as_ref()));
    each.collect::<Vec<_>>().join("; ")
}

/// How a write begins.
pub(super) const WRITE: &str = "write h ";

/// A command in three parts: what stands before its data or its input, these, and what stands behind. None if it has none.
pub(in super::super) fn around_input(command: &str) -> Option<(&str, &str, &str)> {
    const IN: &str = " in ";
    let before = if command.starts_with(WRITE) { WRITE.len() } else { command.find(IN)? + IN.len() };
    let (head, rest) = command.split_at(before);
    let (input, output) = rest.split_at(rest.find(" out ").unwrap_or(rest.len()));
    Some((head, input, output))
}

/// Bytes made of one word.
pub(super) fn filled(length: u32, word: u32) -> String {
    format!("fill:{word:#x}:{length}")
}

/// These steps, which end with the closing of the handle, and before that the request as it is usually made: it must still end, if it does so by itself.
pub(super) fn still_ends(survey: &Survey, operation: &Operation, steps: &str) -> String {
    let own = place(survey, operation);
    match steps.strip_suffix(CLOSED).filter(|_| survey.self_ending.contains(&(own, own))) {
        Some(before) => format!("{before}; {}; must-end z; join z{CLOSED}", asks("z", operation)),
        None => steps.to_owned(),
    }
}

/// How steps with one handle end.
const CLOSED: &str = "; close h";

/// What follows a while after these two were asked for: the requests of these names must end, if the operations do so by themselves in either order.
pub(super) fn owed(survey: &Survey, (one, other): (&Operation, &Operation), names: &str) -> String {
    let (one, other) = (place(survey, one), place(survey, other));
    let is_known = survey.self_ending.contains(&(one.min(other), one.max(other)));
    if is_known { format!("must-end {names}; ") } else { String::new() }
}

/// As [`owed`], of `a` and `b`, which are these two: the one alone, if only that ends beside the other.
pub(super) fn owed_of_two(survey: &Survey, (one, other): (&Operation, &Operation)) -> String {
    let (first, second) = (place(survey, one), place(survey, other));
    if survey.ending_beside.contains(&(first, second)) {
        "must-end a; ".to_owned()
    } else if survey.ending_beside.contains(&(second, first)) {
        "must-end b; ".to_owned()
    } else {
        owed(survey, (one, other), "a b")
    }
}

/// The first requests that are no variants: as many as take part in what is done at once.
pub(super) fn first_operations(survey: &Survey) -> impl Iterator<Item = &Operation> {
    survey.operations.iter().filter(|operation| !operation.variant).take(AT_ONCE)
}

/// The place of an operation of the survey's.
pub(super) fn place(survey: &Survey, wanted: &Operation) -> usize {
    let place = survey.operations.iter().position(|operation| operation == wanted);
    place.expect("it is the survey's")
}

/// These steps while two requests are under way, which are cancelled then.
pub(super) fn two_under_way(open: &str, operation: &Operation, steps: &str) -> String {
    let command = &operation.command;
    format!("{open}; async a {command}; async b {command}; {steps}; cancel h; join a; join b; close h")
}

/// What may happen to a device at any moment, in words and as a script has it.
const HAPPENS: [(&str, &str); 4] = [
    ("the device is stopped", "stop-device"),
    ("the device is removed", "remove-device"),
    ("the device is pulled", "surprise-remove"),
    ("the device is powered down", "power d3; power d0"),
];

/// That, of a device whose driver knows of so much.
pub(super) fn happens(survey: &Survey) -> impl Iterator<Item = (&'static str, &'static str)> {
    HAPPENS.into_iter().filter(|(_, steps)| survey.knows_power || !steps.starts_with("power"))
}
