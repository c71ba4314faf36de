//! What happens to a device or a handle, with nothing under way, and what a card of which nothing is known does by itself.

use super::super::signals::guessed_causes;
use super::super::survey::Survey;
use super::registers::hold;
use super::steps::{first_operations, open, tried_in_turn};

pub(super) fn opens(name: &str) -> String {
    let open = |more: &str| format!("open \"{name}\" as {more}");
    [
        "tolerate".to_owned(),
        open("a"),
        "close a".to_owned(),
        open("a read-only"),
        open("b"),
        "close a; close b".to_owned(),
        open("a exclusive"),
        open("b"),
        "close b; close a".to_owned(),
        format!("open \"{name}\\inside\" as a"),
        "close a; user plain".to_owned(),
        open("a"),
        "close a; user administrator".to_owned(),
        open("a"),
        "duplicate a as b; close a; close b".to_owned(),
        // The process exits with this one.
        open("a"),
    ]
    .join("; ")
}

/// Cards of which nothing is known interrupt, by title: their registers hold nothing, all ones, or one bit each, which stays or which the driver can clear.
/// Empty if there is none.
pub(super) fn interrupts(survey: &Survey) -> Vec<(&'static str, String)> {
    let signals = &survey.signals;
    let pins = || signals.iter().filter(|signal| signal.ends_with(" pulse"));
    let mut steps = Vec::new();
    for value in [0, u32::MAX, 1, 2, 4, 0x80] {
        steps.extend(hold(survey, value));
        for (pin, accesses) in pins().flat_map(|pin| [1, 2, 3].map(|accesses| (pin, accesses))) {
            steps.push(format!("poke {pin} {accesses}; wait 1ms"));
        }
    }
    if pins().next().is_none() {
        return Vec::new();
    }
    let causes: Vec<String> =
        guessed_causes(signals).iter().map(|cause| format!("{}; wait 1ms", cause.first())).collect();
    let mut all =
        vec![("interrupts", steps.join("; ")), ("interrupts that can be cleared", causes.join("; "))];
    if !survey.messages.is_empty() {
        all.push(("messages", messages(&survey.messages)));
    }
    all
}

/// Each message, once by itself, once as registers show a cause, and twice in a row.
fn messages(messages: &[String]) -> String {
    let of_one = |message: &String| {
        let card = message.split(' ').next().unwrap_or_default();
        format!(
            "poke {message}; wait 1ms; poke {card} cause 1; poke {message}; wait 1ms; poke {message}; poke {message}; wait 1ms"
        )
    };
    messages.iter().map(of_one).collect::<Vec<_>>().join("; ")
}

/// A special file is made on the device, and goes again. Whether the device may be stopped meanwhile is not asked: a filter, as Microsoft's samples have it, leaves that answer to
/// others, and who has to give it is not known.
macro_rules! of_file {
    ($file:literal) => {
        concat!(
            "usage ",
            $file,
            " on; wait 1ms; power s3; wait 1ms; power s0; wait 20ms; usage ",
            $file,
            " off; wait 1ms"
        )
    };
}

/// What happens to the device while an application has a handle, or none. A device goes to a power state of its own only where its driver knows of them,
/// and is removed there only where it goes there while the system works.
pub(super) fn lives(survey: &Survey) -> Vec<(String, String)> {
    let mut steps = vec![
        ("questions taken back", "query-stop; cancel-stop; query-remove; cancel-remove; wait 1ms"),
        (
            "stop and start",
            "stop-device; wait 1ms; start-device; wait 1ms; stop-device; start-device elsewhere; wait 1ms",
        ),
        ("sleep and wake", "power s3; wait 1ms; power s0; wait 20ms"),
        ("hibernate", "power s4; wait 1ms; power s0; wait 20ms"),
    ];
    if survey.knows_power {
        steps.push(("power down and up", "power d3; wait 20ms; power d0; wait 20ms"));
        steps.push(("lower power states", "power d1; wait 1ms; power d0; power d2; wait 1ms; power d0"));
    }
    if survey.idles {
        steps.push(("removed while it is powered down", "power d3; remove-device"));
        steps.push(("pulled while it is powered down", "power d3; surprise-remove; wait 20ms"));
    }
    if survey.directed {
        let down_and_up = "power directed-down; wait 20ms; power directed-up; wait 20ms";
        steps.push(("directed to power down and up", down_and_up));
        steps.push(("directed to power down while the system sleeps", "power directed-down; wait 20ms; power s3; wait 1ms; power s0; wait 20ms; power directed-up; wait 20ms"));
        steps.push(("removed while it is directed down", "power directed-down; wait 20ms; remove-device"));
        steps.push((
            "pulled while it is directed down",
            "power directed-down; wait 20ms; surprise-remove; wait 20ms",
        ));
    }
    if survey.special_files {
        steps.push(("a paging file", of_file!("paging")));
        steps.push(("a hibernation file", of_file!("hibernation")));
        steps.push(("a crash dump file", of_file!("dump")));
        steps.push(("pulled with a paging file", "usage paging on; surprise-remove; wait 20ms"));
    }
    steps.extend([
        ("removed", "remove-device"),
        ("pulled", "surprise-remove; wait 20ms"),
        ("removed after a stop", "stop-device; remove-device"),
        ("pulled after a stop", "stop-device; surprise-remove; wait 1ms"),
        ("shut down", "power s5"),
    ]);
    let mut lives = Vec::new();
    for (title, steps) in steps {
        lives.push((title.to_owned(), format!("tolerate; {steps}")));
        if let Some(name) = survey.names.first() {
            let open = open(name);
            lives.push((format!("{title}, with a handle open"), format!("{open}; {steps}; close h")));
        }
    }
    lives
}

/// All that a program can ask of a block of data that is offered by WMI: with numbers of instances, items and methods that there may be or not, and data of
/// several sizes.
pub(super) fn managed(block: &str) -> String {
    let mut steps = vec!["tolerate; wait 1ms".to_owned(), format!("wmi query {block}")];
    for instance in [0, 1, 7] {
        steps.push(format!("wmi query {block} instance {instance}"));
    }
    for data in ["u32:0x1", "zero:0", "zero:1", "zero:64", "fill:0xffffffff:4096"] {
        steps.push(format!("wmi set {block} instance 0 {data}"));
        steps.extend([1, 2, 9, 17, 0].map(|item| format!("wmi set {block} instance 0 item {item} {data}")));
        for (method, room) in [(0, 0), (1, 64), (2, 4), (9, 4096)] {
            steps.push(format!("wmi execute {block} instance 0 method {method} in {data} out {room}"));
        }
    }
    steps.push(format!("wmi query {block}; wmi enable {block}; wait 1ms; wmi disable {block}"));
    steps.join("; ")
}

/// What a block of data is behind requests, which may have made it longer.
pub(super) fn managed_behind(survey: &Survey, name: &str, block: &str) -> String {
    let with_text = |code: u32| format!("ioctl h {code:#x} in fill:0x41414141:128 out 128");
    let commands =
        first_operations(survey).flat_map(|one| [Some(one.command.clone()), one.code.map(with_text)]);
    let requests = tried_in_turn(commands.flatten());
    let query = format!("wmi query {block}; wmi query {block} instance 0");
    format!("{}; wait 1ms; {query}; {requests}; {query}; {query}; close h", open(name))
}

pub(super) fn seldom() -> String {
    let steps = [
        "flush h",
        "query h FileStandardInformation 24",
        "query h FilePositionInformation 8",
        "set h FileEndOfFileInformation u64:16",
        "ioctl h 0x7a5c2f44 in zero:16 out 16",
        "ioctl h 0x7a5c2f47 in zero:16 out 16",
        "async r read h 64",
        "wait 1ms",
        "cancel r",
        "join r",
        "async w write h zero:64",
        "wait 1ms",
        "cancel w",
        "join w",
        "wmi blocks",
        "close h",
    ];
    steps.join("; ")
}
