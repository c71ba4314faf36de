//! Two threads at once: two requests, or a request and what ends it or happens to the device; and what the surroundings of a card do.

use super::super::signals::Outside;
use super::super::stories::with_words;
use super::super::survey::{Ended, Operation, Survey};
use super::effort::{Kind, Plan};
use super::inputs_and_lengths::{of_other_length, sizes};
use super::steps::{
    ENDED, ENDED_ALONE, ENDED_OF_TWO, PAUSE, WRITE, around_input, asks, asks_other, on, open, open_as,
    open_two, opened, owed, owed_of_two, place, two_at_once, two_under_way, words,
};
use super::{AT_ONCE, METHOD_BUFFERED, METHOD_NEITHER};

/// So many requests are prepared by others.
const PREPARED: usize = 4;
/// What an application's memory begins with, and what is stored there while a driver looks at it: lengths, and a count with the length of the first.
const CHANGES: [(&str, &str); 4] = [
    ("u32:8", "u32:0x10000"),
    ("u32:1", "u32:0xffffffff"),
    ("u32:64", "u32:0x7fffffff"),
    ("u32:1 + u32:4", "u32:1 + u32:0xffff"),
];
/// What a word of an input becomes, and so many of its words do.
const GREAT: [u32; 2] = [0x1_0000, u32::MAX];
const CHANGED: usize = 6;
/// What becomes of the beginning of memory that a driver keeps for longer.
const OVERWRITTEN: [&str; 2] = ["zero:64", "fill:0xffffffff:64"];
const ENDED_WITH_MEMORY: &str = "cancel h; join a; join p; close h";
/// So many devices besides the first are asked with it.
const OTHER_DEVICES: usize = 2;
/// Words that are not those of the survey.
const OTHER_WORDS: [u32; 2] = [5, 7];
/// For how long a request may be asked to wait, in whatever unit its driver has.
const TIMES: [u32; 2] = [1, 100];
/// So many requests come before others at once.
const FIRST: usize = 3;
/// So many requests that wait until another is made are given up as that is.
const ENDED_BY: usize = 8;
/// So many of one kind come in a row where another waits for the last.
const IN_A_ROW: usize = 3;
/// Bytes that are no multiple of what a card may do at once, and as many times as they may be parts.
const PARTS: [(u32, usize); 3] = [(1_100, 3), (5_000, 6), (70_000, 18)];
/// At the first time limits only, what ends a request comes as it is given up.
const FIRST_LIMITS: u32 = 4;
/// The option of a computer where the order of stores and loads of two processors shows.
const LATE_STORES: &str = "--platform=late-stores";

/// Two threads at once.
pub(super) fn at_once(survey: &Survey, name: &str, has_device: bool, plan: &mut Plan) {
    let (variants, plain): (Vec<&Operation>, Vec<&Operation>) =
        survey.operations.iter().partition(|operation| operation.variant);
    let (succeeding, others): (Vec<&Operation>, Vec<&Operation>) =
        plain.into_iter().partition(|operation| operation.succeeds);
    let operations: Vec<&Operation> = succeeding.into_iter().chain(others).take(AT_ONCE).collect();
    let plain = operations
        .iter()
        .enumerate()
        .flat_map(|(at, one)| operations[at..].iter().map(move |other| (*one, *other)));
    let with_variants = variants.into_iter().filter_map(|other| {
        let before = &survey.operations[..place(survey, other)];
        Some((before.iter().rfind(|one| !one.variant)?, other))
    });
    let both = |one: &Operation, other: &Operation| {
        let owed = owed_of_two(survey, (one, other));
        let open = opened(survey, name, &[one, other]);
        two_at_once(&open, &asks("a", one), &asks("b", other), &format!("{owed}{ENDED}"))
    };
    let title = |one, other| format!("{} and {} at once", words(one), words(other));
    for (one, other) in plain.clone().chain(with_variants) {
        plan.add(title(one, other), both(one, other), Kind::AtOnce);
    }
    plan.more = vec![LATE_STORES.to_owned()];
    for (one, other) in plain {
        let title = format!("{} where stores are seen late", title(one, other));
        plan.add(title, both(one, other), Kind::LateStores);
    }
    for (title, script) in in_a_row(survey, name, &operations) {
        plan.add(title, script, Kind::LateStores);
    }
    plan.more.clear();
    for one in &operations {
        let command = &one.command;
        let open = opened(survey, name, &[one]);
        let owed = |name: &str| owed(survey, (one, one), name);
        // What is done meanwhile, and how it ends after a while.
        let ended = ENDED_ALONE.to_owned();
        let again = format!("async b {command}; wait 50ms; {}cancel h; join b", owed("b"));
        let mut against = vec![
            ("cancelled", "cancel h", format!("cancel h; join a; {again}; close h")),
            ("and its handle closed", "close h", String::new()),
        ];
        if has_device {
            let answered = format!("{}{ended}", owed("a"));
            against.extend([
                ("and the device pulled", "surprise-remove", ended.clone()),
                ("and the device removed", "remove-device", ended.clone()),
                ("and the device stopped", "stop-device", ended.clone()),
                ("and a question of stopping taken back", "query-stop; u: cancel-stop", answered.clone()),
                ("and a question of removal refused", "query-remove; u: cancel-remove", answered),
            ]);
            let powered = ("and the device powered down", "power d3; u: power d0", ended);
            against.extend(survey.knows_power.then_some(powered));
        }
        for (what, step, ended) in against {
            let title = format!("{} at once {what}", words(one));
            plan.add(title, two_at_once(&open, &asks("a", one), step, &ended), Kind::AtOnce);
        }
    }
    cancelled_as_it_goes(survey, name, &operations, has_device, plan);
    for one in operations.iter().take(PREPARED) {
        let opened = format!("{}; {}; {}; wait 1ms", open_two(name), asks("p", one), asks_other("q", one));
        let closes = format!("{opened}; t: close h; u: close i; join t; join u{}", anew(survey, name, one));
        plan.add(format!("two handles closed at once after {}", words(one)), closes, Kind::AtOnce);
        for other in operations.iter().take(PREPARED).filter(|other| other.command != one.command) {
            let title = format!("{} on two handles at once after {}", words(other), words(one));
            let script = two_at_once(&opened, &asks("a", other), &asks_other("b", other), ENDED_OF_TWO);
            plan.add(title, script, Kind::AtOnce);
        }
    }
    for one in operations.iter().filter(|operation| operation.waits).take(PREPARED) {
        for other in operations.iter().filter(|other| other.command != one.command) {
            let opened = format!("{}; {}; wait 1ms", open_two(name), asks("p", one));
            for (what, step, ended) in
                [("is cancelled", "cancel h", "; close h"), ("and its handle go", "close h", "")]
            {
                let title = format!("{} while {} {what}", words(other), words(one));
                let ended = format!("cancel i; join a; close i{ended}");
                plan.add(title, two_at_once(&opened, &asks_other("a", other), step, &ended), Kind::AtOnce);
            }
        }
    }
    memory_changes(survey, name, &operations, plan);
    prepared(&operations, name, plan);
    on_two_devices(survey, name, &operations, plan);
    behind_what_it_needs(survey, name, plan);
    as_what_it_needs_is_made(survey, name, plan);
    for &(waits, ends) in survey.ended_by.iter().take(ENDED_BY) {
        let (waits, ends) = (&survey.operations[waits], &survey.operations[ends]);
        let opened = opened(survey, name, &[waits, ends]);
        // What has ended it may not be done with it.
        let script =
            format!("{opened}; {}; wait 1ms; {}; join a; close h", asks("a", waits), asks("b", ends));
        let title = format!("{} whose handle is closed as {} ends it", words(waits), words(ends));
        plan.add(title, script, Kind::Behind);
    }
    for (title, script) in ended_in_company(survey, name) {
        plan.add(title, script, Kind::AtOnce);
    }
    let both = format!(
        "tolerate; t: open \"{name}\" as a; u: open \"{name}\" as b; t: close a; u: close b; join t; join u"
    );
    plan.add("opens and closes at once", both, Kind::AtOnce);
}

/// A request that waits is cancelled while its handle is closed, or while its device goes.
fn cancelled_as_it_goes(
    survey: &Survey,
    name: &str,
    operations: &[&Operation],
    has_device: bool,
    plan: &mut Plan,
) {
    for one in operations.iter().filter(|operation| operation.waits).take(PREPARED) {
        let opened = format!("{}; {}; wait 1ms", opened(survey, name, &[one]), asks("a", one));
        let joined = "join a; close h";
        let mut against = vec![("its handle closed", "close h", "")];
        if has_device {
            against.extend([
                ("the device pulled", "surprise-remove", joined),
                ("the device removed", "remove-device", joined),
                ("the device stopped", "stop-device", joined),
            ]);
            against.extend(survey.knows_power.then_some((
                "the device powered down",
                "power d3; u: power d0",
                joined,
            )));
        }
        for (what, step, ended) in against {
            let title = format!("{} cancelled and {what} at once", words(one));
            plan.add(title, two_at_once(&opened, "cancel a", step, ended), Kind::AtOnce);
        }
    }
}

/// A request again and again, of which another one waits for the last: a thread of the driver's, on another processor, may be about to go to sleep each time.
fn in_a_row(survey: &Survey, name: &str, operations: &[&Operation]) -> Vec<(String, String)> {
    let ends = |one: &&&Operation| {
        let place = place(survey, one);
        survey.self_ending.contains(&(place, place))
    };
    let some = operations.iter().filter(ends).take(PREPARED);
    let pairs = some.clone().flat_map(|one| some.clone().map(move |other| (*one, *other)));
    let of = |(one, other): (&Operation, &Operation)| {
        let script = format!(
            "{}; {}; {}; {}{ENDED_ALONE}",
            open(name),
            [one.command.as_str(); IN_A_ROW].join("; "),
            asks("a", other),
            owed(survey, (one, other), "a")
        );
        let title =
            format!("{} behind {IN_A_ROW} of {} where stores are seen late", words(other), words(one));
        (title, script)
    };
    pairs.filter(|(one, other)| one.command != other.command).map(of).collect()
}

/// Two requests that wait, while what ends the one and what ends the other are made at once; and one that waits, while what ends it and what leaves that to it are.
/// None may be missed.
pub(super) fn ended_in_company(survey: &Survey, name: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for pairs in &survey.ended_together {
        let [(waits, ends), (other, ends_other)] =
            pairs.map(|(waits, ends)| (&survey.operations[waits], &survey.operations[ends]));
        let opened = opened(survey, name, &[waits, other, ends, ends_other]);
        let opened = format!("{opened}; {}; {}; wait 1ms", asks("a", waits), asks("b", other));
        let ended = format!("must-end a b; {ENDED}");
        let script = two_at_once(&opened, &asks("x", ends), &asks("y", ends_other), &ended);
        let title = format!(
            "{} and {} ended by {} and {} at once",
            words(waits),
            words(other),
            words(ends),
            words(ends_other)
        );
        all.push((title, script));
    }
    for one in &survey.ended_beside {
        let [waits, ends, beside] = [one.waits, one.ends, one.beside].map(|place| &survey.operations[place]);
        let opened = opened(survey, name, &[waits, ends, beside]);
        let opened = format!("{opened}; {}; wait 1ms", asks("a", waits));
        let script = two_at_once(
            &opened,
            &asks("x", beside),
            &asks("y", ends),
            &format!("must-end a if y; {ENDED_ALONE}"),
        );
        let title = format!("{} ended by {} at once with {}", words(waits), words(ends), words(beside));
        all.push((title, script));
    }
    all
}

/// The driver sees the application's own memory, which another thread changes meanwhile: that of a request, or that of one which waits while the driver does
/// another one.
fn memory_changes(survey: &Survey, name: &str, operations: &[&Operation], plan: &mut Plan) {
    let seen = |operation: &&&Operation| operation.code.is_some_and(|code| code & 3 != METHOD_BUFFERED);
    for code in operations.iter().filter(seen).filter_map(|operation| operation.code) {
        let input = if code & 3 == METHOD_NEITHER { "memory m" } else { "zero:64" };
        for (first, then) in CHANGES {
            let opened = format!("{}; memory m {first} + zero:248", open(name));
            let asked = format!("async a ioctl h {code:#x} in {input} out memory m");
            let script = two_at_once(&opened, &asked, &format!("store m {then}"), ENDED_ALONE);
            let title = format!("ioctl {code:#x} whose buffer changes from {first} to {then} meanwhile");
            plan.add(title, script, Kind::AtOnce);
        }
    }
    let neither = |operation: &&&Operation| operation.code.is_some_and(|code| code & 3 == METHOD_NEITHER);
    let writes = |operation: &&&Operation| survey.maps_buffers && operation.command.starts_with(WRITE);
    for operation in operations.iter().filter(|one| neither(one) || writes(one)).take(PREPARED) {
        input_changes(survey, name, operation, plan);
    }
    for waits in operations.iter().filter(seen).filter(|operation| operation.waits).take(PREPARED) {
        let Some((asked, length)) = waits.command.rsplit_once(" out ") else { continue };
        let opened = opened(survey, name, &[waits]);
        let opened = format!("{opened}; memory m zero:{length}; async p {asked} out memory m; wait 1ms");
        let needs_it = |other: &Operation| {
            other.needs.is_some_and(|needed| survey.operations[needed].command == waits.command)
        };
        let succeeds = |other: &&&Operation| !other.waits && (other.succeeds || needs_it(other));
        let others = operations.iter().filter(succeeds).take(PREPARED);
        for (other, then) in others.flat_map(|other| OVERWRITTEN.map(|then| (other, then))) {
            let script =
                two_at_once(&opened, &asks("a", other), &format!("store m {then}"), ENDED_WITH_MEMORY);
            let title = format!("{} while the buffer of {} becomes {then}", words(other), words(waits));
            plan.add(title, script, Kind::AtOnce);
        }
    }
}

/// The input that a request succeeds with, or the data of a write whose driver maps them, lies in the application's memory, and one word of it after the other
/// becomes a great number while the driver looks at it. What it took may show by what else is asked then.
fn input_changes(survey: &Survey, name: &str, operation: &Operation, plan: &mut Plan) {
    let Some((head, input, output)) = around_input(&operation.command) else { return };
    let bytes = operation.input();
    if ["event:", "page:"].iter().any(|own| input.contains(own)) || bytes.is_empty() {
        return;
    }
    let numbers: Vec<u32> = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let said = numbers.iter().rposition(|number| *number != 0).map_or(1, |last| last + 1);
    let others =
        survey.operations.iter().filter(|other| !other.waits && !other.variant && *other != operation);
    let then: Vec<String> = others.take(PREPARED).map(|other| other.command.clone()).collect();
    let opened = format!("{}; memory m {input}", opened(survey, name, &[operation]));
    let asked = format!("async a {head}memory m{output}");
    for (at, great) in (0..said.min(CHANGED).min(numbers.len())).flat_map(|at| GREAT.map(|great| (at, great)))
    {
        let mut changed = numbers[..=at].to_vec();
        changed[at] = great;
        let changed: Vec<String> = changed.iter().map(|word| format!("u32:{word:#x}")).collect();
        let ended = format!("cancel h; join a; {}; close h", then.join("; "));
        let script = two_at_once(&opened, &asked, &format!("store m {}", changed.join(" + ")), &ended);
        let title = format!("{} whose input becomes {great:#x} at {} meanwhile", words(operation), 4 * at);
        plan.add(title, script, Kind::Behind);
    }
}

/// Two different requests at once on two handles, of which the first has made one before.
fn prepared(operations: &[&Operation], name: &str, plan: &mut Plan) {
    let first = operations.iter().filter(|one| one.succeeds && !one.waits).take(FIRST);
    for before in first {
        let opened = format!("{}; {}; wait 1ms", open_two(name), asks("p", before));
        for (one, other) in pairs(operations).filter(|(one, other)| one.command != other.command) {
            let title = format!(
                "{} and {} on two handles at once behind {}",
                words(one),
                words(other),
                words(before)
            );
            let script = two_at_once(&opened, &asks("a", one), &asks_other("b", other), ENDED_OF_TWO);
            plan.add(title, script, Kind::Behind);
        }
    }
}

/// Requests to two devices of the driver's, what one of them is asked to do may be for the other: the one behind the other, and at once.
fn on_two_devices(survey: &Survey, name: &str, operations: &[&Operation], plan: &mut Plan) {
    for other_name in survey.names.iter().skip(1).take(OTHER_DEVICES) {
        let opened = format!("{}; open \"{other_name}\" as i overlapped", open(name));
        for (one, other) in pairs(operations) {
            let title = format!("{} of {name} and {} of {other_name}", words(one), words(other));
            let (here, there) = (asks("a", one), asks_other("b", other));
            let again = [asks("c", one), asks_other("d", other)].join("; ");
            let script = format!(
                "{opened}; {there}; {PAUSE}; {here}; {PAUSE}; cancel h; cancel i; join a; join b; {again}; \
                 {PAUSE}; cancel i; cancel h; join c; join d; close i; close h"
            );
            plan.add(title.clone(), script, Kind::Requests);
            plan.add(
                format!("{title}, at once"),
                two_at_once(&opened, &here, &there, ENDED_OF_TWO),
                Kind::Behind,
            );
        }
    }
}

/// Of the first of them each with each.
fn pairs<'s>(operations: &'s [&'s Operation]) -> impl Iterator<Item = (&'s Operation, &'s Operation)> {
    let some = operations.iter().take(PREPARED);
    some.clone().flat_map(move |one| some.clone().map(move |other| (*one, *other)))
}

/// Two requests at once that succeed behind a third only, which has been made twice: with another word, too.
fn behind_what_it_needs(survey: &Survey, name: &str, plan: &mut Plan) {
    let needing = || survey.operations.iter().filter_map(|one| Some((one, one.needs?))).take(AT_ONCE);
    for (at, (one, needed)) in needing().enumerate() {
        for (other, _) in needing().skip(at).filter(|(_, of_other)| *of_other == needed) {
            let before = &survey.operations[needed];
            let again = with_words(&before.command, OTHER_WORDS, false);
            let opened =
                format!("{}; {}; async q {again}", opened(survey, name, &[before]), asks("p", before));
            let script = two_at_once(&opened, &asks("a", one), &asks("b", other), ENDED);
            let title =
                format!("{} and {} at once behind two of {}", words(one), words(other), words(before));
            plan.add(title, script, Kind::AtOnce);
        }
    }
}

/// A request that succeeds behind another only, as that is made: it may wait for it in its thread, for a time that its input says.
fn as_what_it_needs_is_made(survey: &Survey, name: &str, plan: &mut Plan) {
    let needing = survey.operations.iter().filter_map(|one| Some((one, &survey.operations[one.needs?])));
    for (one, needed) in needing.filter(|(one, _)| !one.waits).take(PREPARED) {
        let opened = opened(survey, name, &[needed]);
        let mut commands = vec![one.command.clone()];
        commands.extend(TIMES.map(|time| with_words(&one.command, [time; 2], false)));
        commands.dedup();
        for command in commands {
            let asked = Operation { command, ..one.clone() };
            let title = format!("{} as {} is made", words(&asked), words(needed));
            let script = two_at_once(&opened, &asks("a", &asked), &asks("b", needed), ENDED);
            plan.add(title, script, Kind::AtOnce);
        }
    }
}

/// What the surroundings of the cards do: to an idle driver, while requests wait, and at once what ends two of them.
pub(super) fn from_outside(survey: &Survey, name: &str, plan: &mut Plan) {
    let Survey { outside, operations, .. } = survey;
    if outside.is_empty() {
        return;
    }
    let open = &open(name);
    let steps = outside.iter().map(Outside::steps).collect::<Vec<_>>().join("; wait 1ms; ");
    plan.add(
        "what happens outside of the card",
        format!("{open}; {steps}; wait 1ms; close h"),
        Kind::Requests,
    );
    for operation in operations.iter().filter(|operation| !operation.variant) {
        let script = two_under_way(open, operation, &format!("wait 1ms; {steps}; wait 1ms"));
        plan.add(
            format!("{} and what happens outside of the card", words(operation)),
            script,
            Kind::Requests,
        );
    }
    for ended in &survey.ended {
        ended_from_outside(survey, name, ended, plan);
    }
    beside_what_ends(survey, name, plan);
    ended_as_its_limit_ends(survey, open, plan);
}

/// Requests that wait, and what ends them: that comes at once, part by part, in either order, behind calls that fail, and as they begin.
fn ended_from_outside(survey: &Survey, name: &str, ended: &Ended, plan: &mut Plan) {
    let Survey { outside, operations, .. } = survey;
    let Ended { operations: waiting, by, before, twice } = ended;
    let requests = waiting.iter().map(|at| &operations[*at]).zip(by.iter().map(|at| &outside[*at]));
    let requests: Vec<_> = requests.collect();
    let waiting_for: Vec<_> = requests.iter().map(|(one, _)| *one).collect();
    let open = &opened(survey, name, &waiting_for);
    let named: Vec<_> = requests.iter().copied().zip([("a", "t"), ("b", "u")]).collect();
    let each = |between: &str, text: &dyn Fn(&Operation, &Outside, &str, &str) -> String| {
        let texts = named.iter().map(|((one, event), (name, thread))| text(one, event, name, thread));
        texts.collect::<Vec<_>>().join(between)
    };
    let is_sure = named.iter().all(|((_, event), _)| event.is_sure());
    // What comes together may be one event for the driver, which ends one request of a kind.
    let is_one_event = waiting.windows(2).any(|two| two[0] == two[1]);
    let must_end = match is_sure && !is_one_event {
        true => format!("must-end {}; ", each(" ", &|_, _, name, _| name.to_owned())),
        false => String::new(),
    };
    // A level that falls before it is seen is lost, and no driver's fault: it stays until the requests have ended.
    let script = format!(
        "{open}; {}; wait 1ms; {}; {}; wait 50ms; {must_end}cancel h; {}; {}; close h",
        each("; ", &|one, _, name, _| format!("async {name} {}", one.command)),
        each("; ", &|_, event, _, thread| format!("{thread}: {}", event.first())),
        each("; ", &|_, _, _, thread| format!("join {thread}")),
        each("; ", &|_, _, name, _| format!("join {name}")),
        each("; ", &|_, event, _, _| event.rest()),
    );
    let title = format!(
        "{} ended by {}",
        each(" and ", &|one, _, _, _| words(one)),
        each(" and ", &|_, event, _, _| event.signal.clone())
    );
    plan.add(title, script, Kind::AtOnce);
    if let [(one, event)] = requests[..] {
        in_parts(open, one, event, plan);
        let ended = format!("; wait 1ms; {}; {PAUSE}; cancel", event.steps());
        let sizes = sizes(survey, one).replace(&format!("; {PAUSE}; cancel"), &ended);
        let title = format!("{} of all sizes, each ended by {}", words(one), event.signal);
        plan.add(title, format!("{open}; {sizes}"), Kind::Sizes);
        if *before && event.is_sure() {
            in_either_order(open, one, event, plan);
        }
        if *twice && event.is_sure() {
            begun_as_one_ends(open, one, event, plan);
        }
    }
    // What it needs may have to be done anew for each.
    if let [(one @ Operation { needs: None, .. }, event)] = requests[..] {
        let title = format!("{} ended by {} behind a call that fails", words(one), event.signal);
        let ends = format!("{}; wait 5ms; {}", event.first(), event.rest());
        plan.add(title, behind_failure(open, one, &ends, event.is_sure()), Kind::Requests);
    }
    begun_as_another_ends(open, &requests, plan);
}

/// A request that need not wait for what comes before it is made as that comes.
fn in_either_order(open: &str, operation: &Operation, event: &Outside, plan: &mut Plan) {
    // What ends by accesses, or by itself before the request is made, comes once more.
    let again = match event.ends_by_accesses() {
        true => format!("{}; wait 50ms; ", event.first()),
        false => String::new(),
    };
    let then = format!("{again}must-end a; cancel h; join a; {}; close h", event.rest());
    let script = two_at_once(open, &asks("a", operation), &event.first(), &then);
    let title = format!("{} at once with {}, which ends it in either order", words(operation), event.signal);
    plan.add(title, script, Kind::AtOnce);
}

/// A request is made as what comes from outside ends the one before it; when that comes once more it must end, too.
fn begun_as_one_ends(open: &str, operation: &Operation, event: &Outside, plan: &mut Plan) {
    let before = format!("{open}; {}; wait 1ms", asks("a", operation));
    let (first, rest) = (event.first(), event.rest());
    let then = format!(
        "{rest}; wait 1ms; {first}; wait 50ms; must-end a b; cancel h; join a; join b; {rest}; close h"
    );
    let script = two_at_once(&before, &first, &asks("b", operation), &then);
    plan.add(format!("{} again as {} ends it", words(operation), event.signal), script, Kind::AtOnce);
}

/// A request with much data, which a driver may have its card do part by part: what ends the one part comes again and again.
fn in_parts(open: &str, operation: &Operation, event: &Outside, plan: &mut Plan) {
    for (length, times) in PARTS {
        let Some(command) = of_other_length(operation, length) else { continue };
        let parts = vec![format!("{}; wait 1ms", event.steps()); times].join("; ");
        let script = format!("{open}; async a {command}; wait 1ms; {parts}; {ENDED_ALONE}");
        let title = format!("{} of {length} bytes in parts, ended by {}", words(operation), event.signal);
        plan.add(title, script, Kind::Sizes);
    }
}

/// Two requests in one of which a call may fail, and behind them one that must end by what `ends` it: what a failure leaves behind keeps nothing back. Where it is not `sure`
/// that it does, it must have ended the first.
pub(super) fn behind_failure(open: &str, operation: &Operation, ends: &str, sure: bool) -> String {
    let [a, b, c] = ["a", "b", "c"].map(|name| asks(name, operation));
    let given = if sure { "" } else { " if a" };
    let joined = "cancel b; join b; cancel h";
    format!(
        "{open}; {a}; {b}; wait 1ms; {ends}; wait 1ms; {ends}; wait 50ms; {joined}; {c}; wait 1ms; {ends}; wait 50ms; must-recover c{given}; cancel h; join a; join c; close h"
    )
}

/// What ends a request comes as the time limit ends at which the driver gives it up: two may end it.
fn ended_as_its_limit_ends(survey: &Survey, open: &str, plan: &mut Plan) {
    let Survey { outside, operations, .. } = survey;
    for (place, limit) in survey.limited.iter().filter(|(_, limit)| *limit <= FIRST_LIMITS) {
        let ends = survey.ended.iter().filter(|ended| ended.operations == [*place]);
        for event in ends.flat_map(|ended| &ended.by).map(|by| &outside[*by]) {
            let one = &operations[*place];
            let limits = vec!["wait limit"; *limit as usize].join("; ");
            let script = format!(
                "{open}; {}; {limits}; {}; wait 50ms; {}; cancel h; join a; close h",
                asks("a", one),
                event.first(),
                event.rest()
            );
            plan.add(
                format!("{} ended by {} as its time limit ends", words(one), event.signal),
                script,
                Kind::AtOnce,
            );
        }
    }
}

/// Of two requests that are ended by two things outside of a card, one begins to wait as the other one is ended: what it waits for comes behind that.
fn begun_as_another_ends(open: &str, requests: &[(&Operation, &Outside)], plan: &mut Plan) {
    let &[one, other] = requests else { return };
    if ![one, other].iter().all(|(_, event)| event.is_sure()) {
        return;
    }
    for ((first, ends), (second, ends_second)) in [(one, other), (other, one)] {
        let before = format!("{open}; {}; wait 1ms", asks("a", first));
        let then = format!(
            "wait 1ms; {}; wait 50ms; must-end a b; cancel h; join a; join b; {}; {}; close h",
            ends_second.first(),
            ends.rest(),
            ends_second.rest()
        );
        let script = two_at_once(&before, &ends.first(), &asks("b", second), &then);
        let title = format!("{} begins as {} ends {}", words(second), ends.signal, words(first));
        plan.add(title, script, Kind::AtOnce);
    }
}

/// A request that ends by itself is made as something outside of the card ends another.
fn beside_what_ends(survey: &Survey, name: &str, plan: &mut Plan) {
    let operations = &survey.operations;
    for (one, event) in survey.ended_by_outside() {
        let waits = &operations[one];
        let open = opened(survey, name, &[waits]);
        for (other, _) in survey.self_ending.iter().filter(|(first, second)| first == second).take(AT_ONCE) {
            // A request's accesses may end it before the service routine has looked.
            let owed = if !event.stays() {
                String::new()
            } else if survey.ending_beside.contains(&(*other, one)) {
                "must-end a b; ".to_owned()
            } else {
                "must-end a; ".to_owned()
            };
            let asked = &operations[*other];
            let before = format!("{open}; {}; wait 1ms", asks("a", waits));
            let then = format!("{owed}cancel h; join a; join b; {}; close h", event.rest());
            let script = two_at_once(&before, &event.first(), &asks("b", asked), &then);
            let title =
                format!("{} at once with {}, which ends {}", words(asked), event.signal, words(waits));
            plan.add(title, script, Kind::AtOnce);
        }
    }
}

/// The request on a new handle, when all others are closed: it must end as it does when those are closed one after the other.
fn anew(survey: &Survey, name: &str, operation: &Operation) -> String {
    let ends = survey.anew.contains(&place(survey, operation));
    let asked = format!("; {}; async c {}; wait 50ms; ", open_as("k", name), on(operation, "k"));
    if ends { format!("{asked}must-end c; cancel k; join c; close k") } else { String::new() }
}

/// Of two that wait one is ended by another request, of which there is enough then for a third: the second, which came before that, must not wait on.
pub(super) fn passed_over(survey: &Survey, name: &str, plan: &mut Plan) {
    for &(waits, ends) in survey.passed_over.iter().take(AT_ONCE) {
        let (waits, ends) = (&survey.operations[waits], &survey.operations[ends]);
        let script = format!(
            "{}; {}; {}; wait 1ms; {}; wait 50ms; {}; wait 50ms; must-end b if c; cancel h; join a; join b; join c; join e; close h",
            opened(survey, name, &[ends]),
            asks("a", waits),
            asks("b", waits),
            asks("e", ends),
            asks("c", waits)
        );
        let title = format!("{} twice, and once more behind {}", words(waits), words(ends));
        plan.add(title, script, Kind::Little);
    }
}
