//! Requests of one kind that are under way while they are cancelled, left, or while something happens to the device.

use super::super::survey::{Operation, Survey};
use super::inputs_and_lengths::of_a_page;
use super::steps::{ENDED, asks, asks_other, on, open, open_two, opened, owed, place, tried, words};
use super::{AT_ONCE, MANY, METHOD_BUFFERED, METHOD_NEITHER};

/// So many pairs of requests are made on a handle that is closed, and so many follow.
const OF_ONE_HANDLE: usize = 6;
const AFTERWARDS: usize = 12;

/// What becomes of a child, and how long it takes until the system has learnt what the driver reports: contacts bounce.
const DEEDS: [&str; 3] = ["remove-device", "surprise-remove", "query-remove"];
const REPORTED: &str = "200ms";

/// Requests that are cancelled at once, one by one and all together, and left when their handle or their process goes.
pub(super) fn left(survey: &Survey, operation: &Operation, name: &str) -> String {
    let command = &operation.command;
    let owed = |name: &str| owed(survey, (operation, operation), name);
    let mut steps = vec![
        format!("async a {command}; cancel a; join a"),
        format!(
            "async a {command}; async b {command}; async c {command}; cancel b; join b; wait 1us; cancel h; join a; join c"
        ),
        format!("async a {command}; async b {command}; wait 50ms; cancel h; join a; join b"),
        many(command),
        format!("async a {command}; wait 50ms; {}cancel a; join a", owed("a")),
        format!(
            "async a {command}; async b {command}; cancel a; join a; wait 50ms; {}cancel b; join b",
            owed("b")
        ),
        // What is under way stays so until its thread ends: closing a handle does not cancel it.
        format!("async c {command}; async d {command}; close h"),
        format!("open \"{name}\" as i"),
        format!("t: {}", on(operation, "i")),
        "wait 1us; terminate t; join t; close i".to_owned(),
        format!("open \"{name}\" as h overlapped"),
    ];
    // The process exits with these.
    steps.push(format!("async x {command}; async y {command}"));
    steps.join("; ")
}

/// The request of an ordinary user, on an administrator's handle and on one of its own, if the device lets it have one.
pub(super) fn of_ordinary_user(operation: &Operation, name: &str) -> String {
    let command = &operation.command;
    let own = format!("open \"{name}\" as i overlapped");
    let on_own = on(operation, "i");
    format!("user plain; {}; {own}; {}; close i; close h", tried(0, command), tried(1, &on_own))
}

/// So many of a request at once.
fn many(command: &str) -> String {
    let each = |what: &dyn Fn(u32) -> String| (0..MANY).map(what).collect::<Vec<_>>().join("; ");
    let (begin, end) = (each(&|at| format!("async m{at} {command}")), each(&|at| format!("join m{at}")));
    format!("{begin}; wait 50ms; cancel h; {end}")
}

/// So many requests are cancelled before one that must succeed: more than there are places for them.
const CANCELLED: usize = 72;

/// Requests that wait, are cancelled, and must leave their places to those that come.
pub(super) fn behind_cancelled(survey: &Survey, name: &str) -> Vec<(String, String)> {
    let of = |&(waits, ends): &(usize, usize)| {
        let (waits, ends) = (&survey.operations[waits], &survey.operations[ends]);
        let one = format!("{}; wait 1ms; cancel a; join a", asks("a", waits));
        let script = format!(
            "{}; {}; {}; must-succeed b; cancel h; join b; close h",
            open(name),
            vec![one; CANCELLED].join("; "),
            asks("b", ends)
        );
        (format!("{} behind {CANCELLED} of {} that are cancelled", words(ends), words(waits)), script)
    };
    survey.behind_cancelled.iter().map(of).collect()
}

/// Requests through one handle, `opened` with what they need, and the handle is closed: each must end.
pub(in super::super) fn closed_with(opened: &str, commands: &[&str]) -> String {
    let names: Vec<String> = (0..commands.len()).map(|number| format!("a{number}")).collect();
    let made: String =
        names.iter().zip(commands).map(|(name, command)| format!("; async {name} {command}")).collect();
    format!("{opened}{made}; wait 1ms; close h; must-end {}", names.join(" "))
}

/// Three requests through one handle that is closed, of one kind or of two, each of which ends so if it is alone.
pub(super) fn of_one_closed_handle(survey: &Survey, name: &str) -> Vec<(String, String)> {
    let ended = &survey.ended_by_closing;
    let pairs =
        ended.iter().enumerate().flat_map(|(at, one)| ended[at..].iter().map(move |other| (*one, *other)));
    let of = |(one, other): (usize, usize)| {
        let (one, other) = (&survey.operations[one], &survey.operations[other]);
        let commands = [one, other, one].map(|operation| operation.command.as_str());
        let script = closed_with(&opened(survey, name, &[one, other]), &commands);
        (
            format!("{}, {} and the first again through a handle that is closed", words(one), words(other)),
            script,
        )
    };
    pairs.take(OF_ONE_HANDLE).map(of).collect()
}

/// What becomes of a device that the driver reports, just behind a request which may have taken it away, and what comes behind that.
pub(super) fn of_children(survey: &Survey, name: &str) -> Vec<(String, String)> {
    let Some(child) = survey.children.first() else { return Vec::new() };
    let operations = survey.operations.iter().filter(|one| !one.variant && !one.waits).take(AT_ONCE);
    let of = |operation: &Operation, deed: &str| {
        let needed = survey.needed_before([place(survey, operation)]);
        let before: Vec<&str> = match needed.as_slice() {
            [] => vec![&operation.command],
            needed => needed.iter().map(|place| survey.operations[*place].command.as_str()).collect(),
        };
        let (begin, before, command) = (open(name), before.join("; "), &operation.command);
        let title = format!("{deed} of a child behind {}", words(operation));
        let script = format!(
            "{begin}; {before}; wait {REPORTED}; {command}; {deed} {child}; wait {REPORTED}; {before}; wait {REPORTED}; close h"
        );
        (title, script)
    };
    operations.flat_map(|operation| DEEDS.map(|deed| of(operation, deed))).collect()
}

/// Requests while something happens to the device.
pub(super) fn within_lives(survey: &Survey, operation: &Operation, name: &str) -> Vec<(String, String)> {
    let owed = |names: &str| owed(survey, (operation, operation), names);
    of_command_within_lives(survey, &operation.command, &owed, name)
}

/// The same of a request as a script has it, and what it is `owed`: what must have come to its end by then.
fn of_command_within_lives(
    survey: &Survey,
    command: &str,
    owed: &dyn Fn(&str) -> String,
    name: &str,
) -> Vec<(String, String)> {
    let under_way = format!("async a {command}; async b {command}");
    // A driver may keep a thread waiting while its device does not serve.
    let asked_for = format!("t: async a {command}; u: async b {command}; wait 1ms");
    let all_ended = format!("join t; join u; {ENDED}");
    let ended = "wait 50ms; cancel h; join a; join b";
    let (both, last) = (owed("a b"), owed("c"));
    let after = format!("async c {command}; wait 50ms; {last}cancel h; join c");
    let again = format!("open \"{name}\" as i overlapped; close i");
    let each = [
        (
            "while the device is pulled",
            format!("{under_way}; surprise-remove; {ended}; {after}; {again}; close h"),
        ),
        (
            "left for long when the device is pulled",
            format!("{under_way}; surprise-remove; wait 2s; cancel h; join a; join b; close h"),
        ),
        (
            "asked for without power when the device is pulled",
            format!("power d3; {asked_for}; surprise-remove; wait 2s; {all_ended}"),
        ),
        (
            "asked for while the device is stopped when it is removed",
            format!("stop-device; {asked_for}; remove-device; wait 50ms; {all_ended}; remove-device"),
        ),
        (
            "asked for while the device is stopped when it is pulled",
            format!("stop-device; {asked_for}; surprise-remove; wait 2s; {all_ended}"),
        ),
        ("after the device is pulled", format!("surprise-remove; {under_way}; {ended}; close h; {again}")),
        (
            "while the device is stopped",
            format!(
                "{under_way}; stop-device; async c {command}; start-device; wait 50ms; {}{ended}; cancel c; join c; close h",
                owed("a b c")
            ),
        ),
        (
            "while the device is powered down",
            format!(
                "{under_way}; power d3; async c {command}; wait 50ms; power d0; wait 50ms; {last}{ended}; cancel c; join c; {after}; close h"
            ),
        ),
        (
            "while the system sleeps",
            format!("{under_way}; power s3; wait 1ms; power s0; wait 50ms; {both}{ended}; {after}; close h"),
        ),
        (
            "while the device is removed",
            format!("{under_way}; remove-device; {ended}; close h; remove-device; {again}"),
        ),
        (
            "after a question of stopping is taken back",
            format!(
                "query-stop; t: async a {command}; wait 1ms; cancel-stop; join t; wait 50ms; {}async b {command}; {ended}; close h",
                owed("a")
            ),
        ),
        (
            "after a question of removal",
            format!("query-remove; {under_way}; cancel-remove; wait 50ms; {both}{ended}; {after}; close h"),
        ),
        (
            "after the device is started again",
            format!("stop-device; start-device elsewhere; {under_way}; wait 50ms; {both}{ended}; close h"),
        ),
    ];
    let is_possible = |script: &str| survey.knows_power || !script.contains("power d");
    let each = each.into_iter().filter(|(_, script)| is_possible(script));
    each.map(|(title, script)| (title.to_owned(), script)).collect()
}

/// Reads, writes and requests with direct buffers, of so much that a card may take more than one transfer for it, while something happens to the device.
pub(super) fn of_a_page_within_lives(
    survey: &Survey,
    operation: &Operation,
    name: &str,
) -> Vec<(String, String)> {
    let is_small = operation.code.is_some_and(|code| matches!(code & 3, METHOD_BUFFERED | METHOD_NEITHER));
    if is_small || !survey.is_hardware {
        return Vec::new();
    }
    let all = of_command_within_lives(survey, &of_a_page(operation), &|_| String::new(), name).into_iter();
    all.filter(|(title, _)| title.starts_with("while the device is")).collect()
}

/// Two requests of one code on a handle, which is closed then; and all that there is on another one: what the driver keeps of both must be gone with their handle.
/// The second one in words, and the script.
pub(super) fn of_a_closed_handle(
    survey: &Survey,
    operation: &Operation,
    name: &str,
) -> Vec<(String, String)> {
    let Survey { operations, .. } = survey;
    let all = operations.iter().take(AFTERWARDS).enumerate();
    let all: Vec<String> = all.map(|(number, one)| asks(&format!("r{number}"), one)).collect();
    let script = |one: &Operation, other: &Operation| {
        format!(
            "{}; {}; {}; wait 1ms; close i; {}; wait 50ms; cancel h; close h",
            open_two(name),
            asks_other("a", one),
            asks_other("b", other),
            all.join("; wait 1ms; ")
        )
    };
    let alike = operations.iter().filter(|other| other.variant && other.code == operation.code);
    let in_either_order = |other: &Operation| {
        let what = words(other);
        [(what.clone(), script(operation, other)), (format!("{what} before it"), script(other, operation))]
    };
    alike.flat_map(in_either_order).take(OF_ONE_HANDLE).collect()
}
