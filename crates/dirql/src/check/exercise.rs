//! The exercises: scripts for a driver of which only a [`Survey`] is known, and how often each is carried out.
//!
//! They begin with the simplest, so that a mistake which several show is reported by the shortest script. A request is overlapped and cancelled after a
//! while, so none waits for a device that says nothing. No script expects anything: what a driver ought to answer is not known, but that what has ended by
//! itself alone must do so in company, too.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::signals::Outside;
use super::stories::with_words;
use super::survey::{Ended, Operation, Survey};

/// How often an exercise is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Effort {
    /// So many calls fail at most, one in each attempt.
    pub failing: usize,
    /// What is tried departs from the usual while the driver is loaded and started, too, and not from the script on only.
    pub from_start: bool,
    /// So many seeds are tried.
    pub seeds: u64,
    /// So many schedules are searched.
    pub schedules: u64,
    /// So many inputs are tried first; what is carried out are those that came to new code, and not the script.
    pub inputs: u64,
    /// Stories are made up; they are carried out, and not the script.
    pub stories: Stories,
}

/// Which stories are made up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Stories {
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// So many sequences are tried before: the requests of those that came to new code take part.
    pub behind: u64,
}

/// A script, and how often it is carried out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Exercise {
    /// What is done, in a few words.
    pub title: String,
    /// As `--do` has it; empty: the machine is left alone.
    pub script: String,
    /// Virtual processors.
    pub processors: u32,
    /// Options of the command line that it needs besides: of another computer, or more cards.
    pub more: Vec<String>,
    /// How often.
    pub effort: Effort,
}

impl Exercise {
    /// Whether it takes as long as many others; or begins with inputs that come to code which nothing has come to before.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.effort.inputs > 0 || self.effort.stories.count > 0
    }
}

/// So many names of devices are tried.
const NAMES: usize = 3;
/// So many requests take part in what is done at once.
const AT_ONCE: usize = 6;
/// The lengths of reads and writes: some of several pages, which lie wherever memory is free.
const LENGTHS: [u32; 13] = [0, 1, 3, 4, 16, 100, 4095, 4096, 4097, 4112, 8192, SEVERAL_PAGES, 65_536];
const SEVERAL_PAGES: u32 = 12_288;
/// The lengths of the buffers of device control requests, of one of them and of both.
const SIZES: [u32; 14] = [1, 2, 3, 4, 6, 7, 8, 12, 16, 24, 32, 64, 256, 4096];
/// What is in the input buffers: words of 4 bytes, repeated.
pub(super) const WORDS: [u32; 7] = [0xFFFF_FFFF, 1, 2, 0x10, 0x1000, 0x7FFF_FFFF, 0x8000_0000];
/// Numbers of records of 4 to 64 bytes each whose size in bytes does not fit into 32 bits: what is left of it is small.
pub(super) const OVERFLOWS: [u32; 8] =
    [0x4000_0001, 0x2000_0001, 0x1555_5556, 0x1000_0001, 0x0CCC_CCCD, 0x0AAA_AAAB, 0x0800_0001, 0x0400_0001];
/// Lengths of buffers that hold such values, and where in them these stand.
const VALUE_SIZES: [u32; 5] = [8, 16, 32, 64, 256];
const VALUE_PLACES: [u32; 4] = [0, 4, 8, 12];
/// Words that stand beside each other, as an offset and a length do, and the sizes of the buffers that hold them.
const PAIRED: [u32; 9] = [0, 1, 8, 16, 0x40, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF0, 0xFFFF_FFFF];
const PAIR_SIZES: [u32; 2] = [16, 64];
/// From this budget on as many calls fail, one in each attempt, as by the usual one.
const ALL_FAILING: usize = 10;
/// So many requests of one kind are under way at once.
pub(super) const MANY: u32 = 64;
/// What a quick card does comes at the first access, and so on up to this one; and so many pairs of requests are made of one.
const QUICK: u32 = 3;
const QUICK_PAIRS: usize = 12;
/// And so many requests are made alone.
const QUICK_ALONE: usize = 10;
/// So many are made one after the other: more than what counts in four or five bits.
const IN_A_ROW: usize = 40;
/// So many requests are prepared by others.
const PREPARED: usize = 4;
/// What an application's memory begins with, and what is stored there while a driver looks at it: lengths, and a count with the length of the first.
const CHANGES: [(&str, &str); 4] = [
    ("u32:8", "u32:0x10000"),
    ("u32:1", "u32:0xffffffff"),
    ("u32:64", "u32:0x7fffffff"),
    ("u32:1 + u32:4", "u32:1 + u32:0xffff"),
];
/// Words that are not those of the survey.
const OTHER_WORDS: [u32; 2] = [5, 7];
/// So many requests come before others at once.
const FIRST: usize = 3;
/// So many pairs of requests are made on a handle that is closed, and so many follow.
const OF_ONE_HANDLE: usize = 6;
const AFTERWARDS: usize = 12;
/// So many requests that wait until another is made are given up as that is.
const ENDED_BY: usize = 8;
/// So many stories are one exercise, of so many; behind these come those of sequences, which are found by so many attempts; and so many seeds each
/// story has.
const STORIES: u64 = 200;
const STORY_EXERCISES: u64 = 6;
const SEQUENCE_EXERCISES: u64 = 2;
const SEQUENCES: u64 = 2_000;
const STORY_SEEDS: u64 = 3;
/// The option that looks for data races: where two threads ask at once.
pub const RACES: &str = "--races";
/// The option of cards that answer when a time limit of the driver's ends.
pub(super) const LATE_CARDS: &str = "--platform=late-cards";
/// The option of a computer where the order of stores and loads of two processors shows.
const LATE_STORES: &str = "--platform=late-stores";
/// The method of a code whose buffers the system copies.
const METHOD_BUFFERED: u32 = 0;
/// The method of a code whose buffers the driver reaches by the application's own addresses.
const METHOD_NEITHER: u32 = 3;
/// So many registers of each window of an unknown card get values, from its beginning.
const REGISTERS: u32 = 16;
/// An address of the kernel's: where drivers' pool lies.
const KERNEL_ADDRESS: u64 = 0x2020_0000_1000;

/// What is to be tried, in this order. `budget` is how much of each, in hundredths of the usual.
#[must_use]
pub fn exercises(survey: &Survey, budget: u64) -> Vec<Exercise> {
    let mut plan = Plan { all: Vec::new(), budget, more: Vec::new() };
    plan.add("load, start, stop, remove and unload", "", Kind::Start);
    plan.add("the same on two processors", "", Kind::StartOnTwo);
    if survey.is_hardware {
        plan.more = vec!["--platform=shifted-bus".to_owned()];
        plan.add("load and start where raw addresses are not the translated ones", "", Kind::StartElsewhere);
        plan.more.clear();
    }
    if !survey.ready {
        return plan.all;
    }
    for (at, name) in survey.names.iter().take(NAMES).enumerate() {
        let of = if at == 0 { String::new() } else { format!(" of {name}") };
        plan.add(format!("open and close handles{of}"), opens(name), Kind::Plain);
    }
    let has_device = !survey.devices.is_empty();
    if has_device {
        plan.add("a question to the bus driver by WMI", "tolerate; ask-bus", Kind::Plain);
        for (title, script) in lives(survey) {
            plan.add(title, script, Kind::Plain);
        }
    }
    let interrupts = interrupts(&survey.signals);
    if let Some(steps) = &interrupts {
        plan.add("interrupts", format!("tolerate; {steps}"), Kind::Requests);
    }
    let Some(name) = survey.names.first() else { return plan.all };
    let open = open(name);
    let operations = || survey.operations.iter().filter(|operation| !operation.variant);
    for operation in operations().filter(|_| interrupts.is_some()) {
        let script = two_under_way(&open, operation, interrupts.as_deref().unwrap_or_default());
        plan.add(format!("{} and interrupts", words(operation)), script, Kind::Requests);
    }
    from_outside(survey, &open, &mut plan);
    plan.add("requests that drivers seldom handle", format!("{open}; {}", seldom()), Kind::Plain);
    for operation in operations() {
        let what = words(operation);
        let open = opened(survey, name, &[operation]);
        let is_plain = operation.word().is_none()
            || operations().all(|other| other.code != operation.code || other == operation);
        if is_plain {
            plan.add(format!("{what} of all sizes"), format!("{open}; {}", sizes(operation)), Kind::Sizes);
            if let Some(code) = operation.code {
                let steps = values(operation, code, &survey.values);
                plan.add(format!("{what} of telling values"), format!("{open}; {steps}"), Kind::Sizes);
            }
            plan.add(
                format!("{what} with pointers of all kinds"),
                format!("{open}; {}", pointers(operation)),
                Kind::Sizes,
            );
        }
        plan.add(
            format!("{what}, cancelled and left"),
            format!("{open}; {}", left(survey, operation, name)),
            Kind::Requests,
        );
        let of_another = format!(
            "{open}; inherit h; process c inheriting; c: async x {command}; c: wait 1ms; join c; exit c; wait 1ms; \
             async y {command}; {PAUSE}; cancel h; join y; close h",
            command = operation.command
        );
        plan.add(
            format!("{what} of a process that exits before one that has its handle"),
            of_another,
            Kind::Little,
        );
        let own = place(survey, operation);
        if survey.self_ending.contains(&(own, own)) {
            let one = format!("async a {}; wait 20ms; must-end a; cancel a; join a", operation.command);
            let script = format!("{open}; {}; close h", vec![one; IN_A_ROW].join("; "));
            plan.add(format!("{what}, {IN_A_ROW} in a row"), script, Kind::Little);
        }
        for (_, by) in survey.ended_by.iter().filter(|(waits, _)| *waits == own) {
            let ends = &survey.operations[*by];
            let one = format!(
                "async a {}; async b {}; wait 30ms; must-end a if b; cancel h; join a; join b",
                operation.command, ends.command
            );
            let script = format!("{open}; {}; close h", vec![one; IN_A_ROW].join("; "));
            plan.add(format!("{what} ended by {}, {IN_A_ROW} in a row", words(ends)), script, Kind::Little);
            if survey.ended_before.contains(&(own, *by)) {
                let then = format!("must-end a b; {ENDED}");
                let script = two_at_once(&open, &asks("a", operation), &asks("b", ends), &then);
                let title = format!("{what} at once with {}, which ends it in either order", words(ends));
                plan.add(title, script, Kind::AtOnce);
            }
        }
        for (second, script) in of_a_closed_handle(survey, operation, name) {
            let title = format!("{what} and {second} of a handle that is closed before all else");
            plan.add(title, script, Kind::Little);
        }
        if has_device {
            for (title, script) in within_lives(survey, operation, name) {
                plan.add(format!("{what} {title}"), format!("{open}; {script}"), Kind::Requests);
            }
        }
    }
    at_once(survey, name, has_device, &mut plan);
    answered_soon(survey, name, &mut plan);
    answered_late(survey, name, &mut plan);
    if !survey.operations.is_empty() {
        plan.add("sequences of requests by what code they reach", "", Kind::Inputs);
        for part in 0..STORY_EXERCISES + SEQUENCE_EXERCISES {
            // Looking for races takes as long as the rest.
            plan.more = if part % 2 == 1 { vec![RACES.to_owned()] } else { Vec::new() };
            let (of, number, count, behind) = match part.checked_sub(STORY_EXERCISES) {
                None => ("requests", part, STORY_EXERCISES, 0),
                Some(number) => ("sequences", number, SEQUENCE_EXERCISES, SEQUENCES),
            };
            let title = format!("stories made up of {of}, part {} of {count}", number + 1);
            plan.add(title, "", Kind::Stories { part, behind });
        }
        plan.more.clear();
    }
    plan.all
}

/// What is tried with two devices more, cards that share an interrupt line or devices on no bus: `survey` is of a machine that has them, by the options `more`.
#[must_use]
pub fn exercises_of_neighbours(survey: &Survey, more: &[String], budget: u64) -> Vec<Exercise> {
    let mut plan = Plan { all: Vec::new(), budget, more: more.to_vec() };
    let [_, one, other, ..] = survey.names.as_slice() else { return plan.all };
    let (of_two, beside, another) = match survey.is_hardware {
        true => ("of two cards that share a line", "beside a card of the line that", "card"),
        false => ("of two devices", "beside a device that", "device"),
    };
    // What is done to the other card, and what is undone in the end: it is not removed without power.
    let mut resting = vec![("is stopped", "stop-device", None), ("is pulled", "surprise-remove", None)];
    resting.extend(survey.knows_power.then_some(("has no power", "power d3", Some("power d0"))));
    // A word may be another device's number.
    let takes_part =
        |operation: &&Operation| operation.is_usual() || operation.succeeds && !survey.is_hardware;
    for operation in survey.operations.iter().filter(takes_part).take(AT_ONCE) {
        let (command, on_other) = (&operation.command, on(operation, "i"));
        let what = words(operation);
        if let Some(device) = second_card(survey) {
            disabled_and_enabled(survey, operation, (device, another), (one, other), &mut plan);
        }
        if operation.variant {
            continue;
        }
        let owed = owed(survey, (operation, operation), "a b c");
        let script = format!(
            "tolerate; open \"{one}\" as h overlapped; open \"{other}\" as i overlapped; async a {command}; async b {on_other}; async c {on_other}; \
             wait 50ms; {owed}cancel h; cancel i; join a; join b; join c; close h; close i"
        );
        plan.add(format!("{what} {of_two}"), script, Kind::Requests);
        let Some(device) = second_card(survey) else { continue };
        // The first card's service routine is asked first.
        for (state, step, undone) in &resting {
            let undone = undone.map(|step| format!("{step} {device}; ")).unwrap_or_default();
            let script = format!(
                "tolerate; open \"{one}\" as i overlapped; open \"{other}\" as h overlapped; async b {on_other}; {step} {device}; async a {command}; \
                 wait 50ms; {undone}cancel h; cancel i; join a; join b; close h; close i"
            );
            plan.add(format!("{what} {beside} {state}"), script, Kind::Plain);
        }
    }
    plan.all
}

/// A device of two, of the first of these names, is removed and started again, as when a user disables and enables it. While the driver has another one it is
/// not unloaded: what it knew of the device must be gone.
fn disabled_and_enabled(
    survey: &Survey,
    operation: &Operation,
    (device, kind): (&str, &str),
    (name, other): (&str, &str),
    plan: &mut Plan,
) {
    let what = words(operation);
    let owed = owed(survey, (operation, operation), "a b");
    let again = format!("remove-device {device}; start-device {device}");
    let asked = format!("{}; {}; wait 50ms", open_other(name), asks_other("b", operation));
    let script = format!(
        "{}; {asked}; cancel i; join b; close i; {again}; {}; {asked}; {owed}{ENDED_OF_TWO}; {again}",
        open(other),
        asks("a", operation)
    );
    plan.add(format!("{what} of a {kind} that is disabled and enabled beside another"), script, Kind::Plain);
    let script = two_at_once(
        &open(other),
        &format!("{}; t: {}", asks("a", operation), asks("b", operation)),
        &format!("{again}; {again}").replace("; ", "; u: "),
        &format!("{owed}{ENDED}"),
    );
    plan.add(format!("{what} while another {kind} is disabled and enabled"), script, Kind::Behind);
}

/// What follows a while after these two were asked for: the requests of these names must end, if the operations do so by themselves in either order.
fn owed(survey: &Survey, (one, other): (&Operation, &Operation), names: &str) -> String {
    let (one, other) = (place(survey, one), place(survey, other));
    let is_known = survey.self_ending.contains(&(one.min(other), one.max(other)));
    if is_known { format!("must-end {names}; ") } else { String::new() }
}

/// As [`owed`], of `a` and `b`, which are these two: the one alone, if only that ends beside the other.
fn owed_of_two(survey: &Survey, (one, other): (&Operation, &Operation)) -> String {
    let (first, second) = (place(survey, one), place(survey, other));
    if survey.ending_beside.contains(&(first, second)) {
        "must-end a; ".to_owned()
    } else if survey.ending_beside.contains(&(second, first)) {
        "must-end b; ".to_owned()
    } else {
        owed(survey, (one, other), "a b")
    }
}

/// The place of an operation of the survey's.
fn place(survey: &Survey, wanted: &Operation) -> usize {
    let place = survey.operations.iter().position(|operation| operation == wanted);
    place.expect("it is the survey's")
}

/// These steps while two requests are under way, which are cancelled then.
fn two_under_way(open: &str, operation: &Operation, steps: &str) -> String {
    let command = &operation.command;
    format!("{open}; async a {command}; async b {command}; {steps}; cancel h; join a; join b; close h")
}

/// What the surroundings of the cards do: to an idle driver, while requests wait, and at once what ends two of them.
fn from_outside(survey: &Survey, open: &str, plan: &mut Plan) {
    let Survey { outside, operations, .. } = survey;
    if outside.is_empty() {
        return;
    }
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
    for Ended { operations: waiting, by } in &survey.ended {
        let requests = waiting.iter().map(|at| &operations[*at]).zip(by.iter().map(|at| &outside[*at]));
        let named: Vec<_> = requests.zip([("a", "t"), ("b", "u")]).collect();
        let each = |between: &str, text: &dyn Fn(&Operation, &Outside, &str, &str) -> String| {
            let texts = named.iter().map(|((one, event), (name, thread))| text(one, event, name, thread));
            texts.collect::<Vec<_>>().join(between)
        };
        // A level that falls before it is seen is lost, and no driver's fault: it stays until the requests have ended.
        let script = format!(
            "{open}; {}; wait 1ms; {}; {}; wait 50ms; must-end {}; cancel h; {}; {}; close h",
            each("; ", &|one, _, name, _| format!("async {name} {}", one.command)),
            each("; ", &|_, event, _, thread| format!("{thread}: {}", event.first())),
            each("; ", &|_, _, _, thread| format!("join {thread}")),
            each(" ", &|_, _, name, _| name.to_owned()),
            each("; ", &|_, _, name, _| format!("join {name}")),
            each("; ", &|_, event, _, _| event.rest()),
        );
        let title = format!(
            "{} ended by {}",
            each(" and ", &|one, _, _, _| words(one)),
            each(" and ", &|_, event, _, _| event.signal.clone())
        );
        plan.add(title, script, Kind::AtOnce);
    }
    beside_what_ends(survey, open, plan);
}

/// A request that ends by itself is made as something outside of the card ends another.
fn beside_what_ends(survey: &Survey, open: &str, plan: &mut Plan) {
    let Survey { outside, operations, .. } = survey;
    for Ended { operations: waiting, by } in &survey.ended {
        let ([one], [event]) = (waiting.as_slice(), by.as_slice()) else { continue };
        let (waits, event) = (&operations[*one], &outside[*event]);
        for (other, _) in survey.self_ending.iter().filter(|(first, second)| first == second).take(AT_ONCE) {
            let owed = if survey.ending_beside.contains(&(*other, *one)) { "a b" } else { "a" };
            let asked = &operations[*other];
            let before = format!("{open}; {}; wait 1ms", asks("a", waits));
            let then = format!("must-end {owed}; cancel h; join a; join b; {}; close h", event.rest());
            let script = two_at_once(&before, &event.first(), &asks("b", asked), &then);
            let title =
                format!("{} at once with {}, which ends {}", words(asked), event.signal, words(waits));
            plan.add(title, script, Kind::AtOnce);
        }
    }
}

/// The second of the driver's devices: of cards, the first is on a line of its own.
fn second_card(survey: &Survey) -> Option<&str> {
    let mut devices = survey.devices.iter();
    let (kind, _) = devices.next()?.split_once('#')?;
    let is_alike = |device: &&String| device.split_once('#').is_some_and(|(other, _)| other == kind);
    devices.find(is_alike).map(String::as_str)
}

/// What is tried where another card interrupts all the time on the line of the driver's: `survey` is of a machine that has a second card of the
/// driver's and that other one, by the options `more`.
#[must_use]
pub fn exercises_on_busy_line(survey: &Survey, more: &[String], budget: u64) -> Vec<Exercise> {
    let mut plan = Plan { all: Vec::new(), budget, more: more.to_vec() };
    let Some(device) = second_card(survey) else { return plan.all };
    let beside = |what: &str| format!("{what} beside a card that interrupts on its line");
    plan.add(beside("load, start, stop, remove and unload"), "", Kind::Start);
    let mut lives = vec![
        ("stop and start", format!("stop-device {device}; wait 2ms; start-device {device}; wait 2ms")),
        ("sleep and wake", "power s3; wait 2ms; power s0; wait 20ms".to_owned()),
        ("pulled", format!("surprise-remove {device}; wait 20ms")),
    ];
    if survey.knows_power {
        lives.push((
            "power down and up",
            format!("power d3 {device}; wait 20ms; power d0 {device}; wait 20ms"),
        ));
    }
    for (title, steps) in lives {
        plan.add(beside(title), format!("tolerate; {steps}"), Kind::Plain);
    }
    let Some(name) = survey.names.get(1) else { return plan.all };
    for operation in survey.operations.iter().filter(|operation| operation.is_usual()).take(AT_ONCE) {
        let (open, command) = (open(name), &operation.command);
        let owed = owed(survey, (operation, operation), "a b");
        let script = format!(
            "{open}; async a {command}; async b {command}; wait 50ms; {owed}cancel h; join a; join b; close h"
        );
        plan.add(beside(&words(operation)), script, Kind::Requests);
    }
    plan.all
}

/// What sort of exercise it is: by that it is carried out so often.
#[derive(Clone, Copy)]
enum Kind {
    Start,
    StartOnTwo,
    StartElsewhere,
    Plain,
    Little,
    Sizes,
    Requests,
    AtOnce,
    Behind,
    LateStores,
    Quick,
    Inputs,
    /// Behind so many sequences.
    Stories {
        part: u64,
        behind: u64,
    },
}

struct Plan {
    all: Vec<Exercise>,
    budget: u64,
    /// Of what is added next.
    more: Vec<String>,
}

impl Plan {
    fn add(&mut self, title: impl Into<String>, script: impl Into<String>, kind: Kind) {
        let share = |usual: u64| usual * self.budget / 100;
        // All of them, but for a look so short that they would be nearly all of it.
        let failing = |usual: usize| {
            let shared = usual * usize::try_from(self.budget).unwrap_or(usize::MAX).min(ALL_FAILING);
            shared.div_ceil(ALL_FAILING)
        };
        let none = Effort::default();
        let effort = match kind {
            Kind::Start => Effort { failing: failing(400), from_start: true, seeds: share(48), ..none },
            Kind::StartOnTwo => Effort { from_start: true, seeds: share(160), ..none },
            Kind::StartElsewhere => Effort { from_start: true, seeds: share(16), ..none },
            Kind::Plain => Effort { failing: failing(60), seeds: share(16), ..none },
            Kind::Little => Effort { seeds: share(4), ..none },
            Kind::Sizes => Effort { failing: failing(20), seeds: share(2), ..none },
            Kind::Requests => Effort { failing: failing(60), seeds: share(20), ..none },
            Kind::AtOnce => Effort { seeds: share(80), schedules: share(120), ..none },
            Kind::Behind | Kind::LateStores => Effort { seeds: share(24), schedules: share(40), ..none },
            Kind::Quick => Effort { seeds: share(8), schedules: share(80), ..none },
            Kind::Stories { part, behind } => {
                let stories = Stories { first: part * STORIES, count: share(STORIES), behind: share(behind) };
                Effort { seeds: STORY_SEEDS, stories, ..none }
            }
            Kind::Inputs => Effort { failing: failing(10), seeds: share(2), inputs: share(10_000), ..none },
        };
        let processors = match kind {
            Kind::AtOnce
            | Kind::Behind
            | Kind::LateStores
            | Kind::Quick
            | Kind::StartOnTwo
            | Kind::Stories { .. } => 2,
            _ => 1,
        };
        let mut more = self.more.clone();
        if matches!(kind, Kind::AtOnce) {
            more.push(RACES.to_owned());
        }
        self.all.push(Exercise { title: title.into(), script: script.into(), processors, more, effort });
    }
}

/// What people call a request.
fn words(operation: &Operation) -> String {
    match operation.code {
        Some(code) => match operation.word() {
            Some(word) => format!("ioctl {code:#x} of {word}"),
            None => format!("ioctl {code:#x}"),
        },
        None => operation.command.split(' ').next().unwrap_or_default().to_owned(),
    }
}

pub(super) fn open(name: &str) -> String {
    format!("tolerate; open \"{name}\" as h overlapped")
}

/// A second handle: `i`.
pub(super) fn open_other(name: &str) -> String {
    format!("open \"{name}\" as i overlapped")
}

/// Two handles: `h` and `i`.
fn open_two(name: &str) -> String {
    format!("{}; {}", open(name), open_other(name))
}

/// A request on this handle.
pub(super) fn on(operation: &Operation, handle: &str) -> String {
    operation.command.replacen(" h", &format!(" {handle}"), 1)
}

/// A request of this name on the first handle, and one on the second.
fn asks(request: &str, operation: &Operation) -> String {
    format!("async {request} {}", operation.command)
}
fn asks_other(request: &str, operation: &Operation) -> String {
    format!("async {request} {}", on(operation, "i"))
}

/// Two threads that do a step each, behind what comes before; and what follows a while later.
fn two_at_once(before: &str, one: &str, other: &str, then: &str) -> String {
    format!("{before}; t: {one}; u: {other}; join t; join u; wait 50ms; {then}")
}
/// How requests `a` and `b` end, and their handle, or both handles.
const ENDED: &str = "cancel h; join a; join b; close h";
const ENDED_ALONE: &str = "cancel h; join a; close h";
const ENDED_OF_TWO: &str = "cancel h; cancel i; join a; join b; close h; close i";

/// The device opened, and what these need asked for.
fn opened(survey: &Survey, name: &str, operations: &[&Operation]) -> String {
    let needed: BTreeSet<usize> = operations.iter().filter_map(|operation| operation.needs).collect();
    let mut steps = open(name);
    for place in needed {
        steps += &format!("; async p{place} {}", survey.operations[place].command);
    }
    steps
}

fn opens(name: &str) -> String {
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

/// Cards of which nothing is known interrupt, and their registers hold nothing, all ones, or one bit each. None if there is none.
fn interrupts(signals: &[String]) -> Option<String> {
    let (pins, windows): (Vec<&String>, Vec<&String>) =
        signals.iter().partition(|signal| signal.ends_with(" pulse"));
    let mut steps = Vec::new();
    for value in [0, u32::MAX, 1, 2, 4, 0x80] {
        for window in &windows {
            steps.extend((0..REGISTERS).map(|at| format!("poke {window}+{:x} {value}", 4 * at)));
        }
        for (pin, accesses) in pins.iter().flat_map(|pin| [1, 2, 3].map(|accesses| (pin, accesses))) {
            steps.push(format!("poke {pin} {accesses}; wait 1ms"));
        }
    }
    (!pins.is_empty()).then(|| steps.join("; "))
}

/// What happens to the device while an application has a handle, or none. A device goes to a power state of its own only where its driver knows of them,
/// and is removed there only where it goes there while the system works.
fn lives(survey: &Survey) -> Vec<(String, String)> {
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

fn seldom() -> String {
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

/// How long a request may take before it is cancelled: [`PATIENCE`](crate::machine::sequences::PATIENCE).
pub(super) const PAUSE: &str = "wait 20ms";

/// Makes a request, and cancels it if it takes long. `n` numbers it.
pub(super) fn tried(n: usize, command: &str) -> String {
    format!("async r{n} {command}; {PAUSE}; cancel r{n}; join r{n}")
}

fn sizes(operation: &Operation) -> String {
    let mut steps = Vec::new();
    let mut add = |command: String| steps.push(tried(steps.len(), &command));
    match operation.code {
        None if operation.command.starts_with("read") => {
            LENGTHS.iter().for_each(|length| add(format!("read h {length}")));
            LENGTHS.iter().for_each(|length| add(format!("read h {length} at 0x7fffffff0")));
            [1, 0xFFF, 0xFFFF, 0x7FFF_FFFF].iter().for_each(|at| add(format!("read h 16 at {at}")));
        }
        None => {
            LENGTHS.iter().for_each(|length| add(format!("write h {}", filled(*length, u32::MAX))));
            LENGTHS.iter().for_each(|length| add(format!("write h {} at 0x7fffffff0", filled(*length, 1))));
            [1, 0xFFF, 0xFFFF, 0x7FFF_FFFF]
                .iter()
                .for_each(|at| add(format!("write h {} at {at}", filled(16, 1))));
        }
        Some(code) => {
            add(format!("ioctl h {code:#x}"));
            if code & 3 != METHOD_BUFFERED {
                add(format!("ioctl h {code:#x} in zero:64 out {SEVERAL_PAGES}"));
            }
            for size in SIZES {
                add(format!("ioctl h {code:#x} in zero:{size} out {size}"));
                add(format!("ioctl h {code:#x} in zero:{size}"));
                add(format!("ioctl h {code:#x} out {size}"));
                add(format!("ioctl h {code:#x} in zero:{size} out 4096"));
                add(format!("ioctl h {code:#x} in zero:4096 out {size}"));
                add(format!("ioctl h {code:#x} in {} out {size}", filled(size, u32::MAX)));
                add(format!("ioctl h {code:#x} in {}", filled(size, u32::MAX)));
                add(format!("ioctl h {code:#x} in {}", filled(size, 0x4141_4141)));
            }
            for word in WORDS {
                for size in [4, 8, 16, 32, 64, 256] {
                    add(format!("ioctl h {code:#x} in {} out {size}", filled(size, word)));
                    add(format!("ioctl h {code:#x} in u32:{word:#x} + zero:{} out 64", size - 4));
                    add(format!("ioctl h {code:#x} in zero:{} + u32:{word:#x} out 64", size - 4));
                }
            }
        }
    }
    steps.join("; ") + "; close h"
}

/// Input with numbers in it at which drivers go wrong: limits of their own, and what overflows.
fn values(operation: &Operation, code: u32, limits: &[u32]) -> String {
    let near = limits.iter().flat_map(|limit| [limit.wrapping_sub(1), *limit, limit.wrapping_add(1)]);
    let all: BTreeSet<u32> = near.chain(WORDS).chain(OVERFLOWS).collect();
    let mut steps = Vec::new();
    for size in VALUE_SIZES {
        for place in VALUE_PLACES.into_iter().filter(|place| place + 4 <= size) {
            for value in &all {
                let rest = size - place - 4;
                let command =
                    format!("ioctl h {code:#x} in zero:{place} + u32:{value:#x} + zero:{rest} out {size}");
                steps.push(if operation.waits { tried(steps.len(), &command) } else { command });
            }
        }
    }
    for size in PAIR_SIZES {
        for place in VALUE_PLACES.into_iter().filter(|place| place + 8 <= size) {
            for (first, second) in PAIRED.iter().flat_map(|first| PAIRED.map(|second| (first, second))) {
                let rest = size - place - 8;
                let command = format!(
                    "ioctl h {code:#x} in zero:{place} + u32:{first:#x} + u32:{second:#x} + zero:{rest} out {size}"
                );
                steps.push(if operation.waits { tried(steps.len(), &command) } else { command });
            }
        }
    }
    steps.join("; ") + "; close h"
}

/// Bytes made of one word.
fn filled(length: u32, word: u32) -> String {
    format!("fill:{word:#x}:{length}")
}

/// Buffers that are not there, are taken away, lie in the kernel, or end at a page.
fn pointers(operation: &Operation) -> String {
    let mut steps = vec![
        "memory gone zero:4096; unmap gone".to_owned(),
        format!("memory kernel at {KERNEL_ADDRESS:#x} 64"),
        "memory null at 0x10 64".to_owned(),
        "memory odd at 0x100000000001 64".to_owned(),
        "memory good zero:64".to_owned(),
    ];
    let mut add = |command: String| steps.push(tried(steps.len(), &command));
    for bad in ["gone", "kernel", "null", "odd"] {
        match operation.code {
            Some(code) => {
                add(format!("ioctl h {code:#x} in memory {bad} out memory {bad}"));
                add(format!("ioctl h {code:#x} in memory good out memory {bad}"));
                add(format!("ioctl h {code:#x} in memory {bad} out memory good"));
                add(format!("ioctl h {code:#x} in memory {bad}"));
                add(format!("ioctl h {code:#x} out memory {bad}"));
            }
            None if operation.command.starts_with("read") => add(format!("read h memory {bad}")),
            None => add(format!("write h memory {bad}")),
        }
    }
    steps.join("; ") + "; close h"
}

/// Requests that are cancelled at once, one by one and all together, and left when their handle or their process goes.
fn left(survey: &Survey, operation: &Operation, name: &str) -> String {
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

/// So many of a request at once.
fn many(command: &str) -> String {
    let each = |what: &dyn Fn(u32) -> String| (0..MANY).map(what).collect::<Vec<_>>().join("; ");
    let (begin, end) = (each(&|at| format!("async m{at} {command}")), each(&|at| format!("join m{at}")));
    format!("{begin}; wait 50ms; cancel h; {end}")
}

/// Requests while something happens to the device.
fn within_lives(survey: &Survey, operation: &Operation, name: &str) -> Vec<(String, String)> {
    let command = &operation.command;
    let under_way = format!("async a {command}; async b {command}");
    let ended = "wait 50ms; cancel h; join a; join b";
    let owed = |names: &str| owed(survey, (operation, operation), names);
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
            format!(
                "power d3; {under_way}; wait 1ms; surprise-remove; wait 2s; cancel h; join a; join b; close h"
            ),
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

/// Two threads at once.
fn at_once(survey: &Survey, name: &str, has_device: bool, plan: &mut Plan) {
    let open = open(name);
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
    for one in operations.iter().take(PREPARED) {
        let opened = format!("{}; {}; {}; wait 1ms", open_two(name), asks("p", one), asks_other("q", one));
        let closes = format!("{opened}; t: close h; u: close i; join t; join u");
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
    for code in operations.iter().filter_map(|operation| operation.code) {
        // The driver sees the application's own memory, which another thread changes meanwhile.
        if code & 3 != METHOD_BUFFERED {
            let input = if code & 3 == METHOD_NEITHER { "memory m" } else { "zero:64" };
            for (first, then) in CHANGES {
                let opened = format!("{open}; memory m {first} + zero:248");
                let asked = format!("async a ioctl h {code:#x} in {input} out memory m");
                let script = two_at_once(&opened, &asked, &format!("store m {then}"), ENDED_ALONE);
                let title = format!("ioctl {code:#x} whose buffer changes from {first} to {then} meanwhile");
                plan.add(title, script, Kind::AtOnce);
            }
        }
    }
    prepared(&operations, name, plan);
    behind_what_it_needs(survey, &open, plan);
    for &(waits, ends) in survey.ended_by.iter().take(ENDED_BY) {
        let (waits, ends) = (&survey.operations[waits], &survey.operations[ends]);
        let opened = opened(survey, name, &[waits, ends]);
        // What has ended it may not be done with it.
        let script =
            format!("{opened}; {}; wait 1ms; {}; join a; close h", asks("a", waits), asks("b", ends));
        let title = format!("{} whose handle is closed as {} ends it", words(waits), words(ends));
        plan.add(title, script, Kind::Behind);
    }
    let both = format!(
        "tolerate; t: open \"{name}\" as a; u: open \"{name}\" as b; t: close a; u: close b; join t; join u"
    );
    plan.add("opens and closes at once", both, Kind::AtOnce);
}

/// Two requests of one code on a handle, which is closed then; and all that there is on another one: what the driver keeps of both must be gone with their handle.
/// The second one in words, and the script.
fn of_a_closed_handle(survey: &Survey, operation: &Operation, name: &str) -> Vec<(String, String)> {
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

/// Two different requests at once on two handles, of which the first has made one before.
fn prepared(operations: &[&Operation], name: &str, plan: &mut Plan) {
    let first = operations.iter().filter(|one| one.succeeds && !one.waits).take(FIRST);
    let pairs = || {
        let some = operations.iter().take(PREPARED);
        some.clone().flat_map(move |one| some.clone().map(move |other| (one, other)))
    };
    for before in first {
        let opened = format!("{}; {}; wait 1ms", open_two(name), asks("p", before));
        for (one, other) in pairs().filter(|(one, other)| one.command != other.command) {
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

/// Two requests at once that succeed behind a third only, which has been made twice: with another word, too.
fn behind_what_it_needs(survey: &Survey, open: &str, plan: &mut Plan) {
    let needing = || survey.operations.iter().filter_map(|one| Some((one, one.needs?))).take(AT_ONCE);
    for (at, (one, needed)) in needing().enumerate() {
        for (other, _) in needing().skip(at).filter(|(_, of_other)| *of_other == needed) {
            let before = &survey.operations[needed];
            let again = with_words(&before.command, OTHER_WORDS, false);
            let opened = format!("{open}; {}; async q {again}", asks("p", before));
            let script = two_at_once(&opened, &asks("a", one), &asks("b", other), ENDED);
            let title =
                format!("{} and {} at once behind two of {}", words(one), words(other), words(before));
            plan.add(title, script, Kind::AtOnce);
        }
    }
}

/// Whether a card of the machine does something by itself: one of which only the ids are known does nothing.
fn has_model(survey: &Survey) -> bool {
    survey.is_hardware && survey.devices.iter().any(|device| !device.starts_with("pci#"))
}

/// Two requests that the card answers while the driver accesses it, and one alone: where all that it begins is over at once, its interrupts and DPCs meet.
fn answered_soon(survey: &Survey, name: &str, plan: &mut Plan) {
    if !has_model(survey) {
        return;
    }
    let open = open(name);
    for access in 1..=QUICK {
        plan.more = vec![format!("--platform=quick-cards={access}")];
        for &(one, other) in survey.self_ending.iter().take(QUICK_PAIRS) {
            let (one, other) = (&survey.operations[one], &survey.operations[other]);
            let script =
                format!("{open}; {}; {}; wait 50ms; must-end a b; {ENDED}", asks("a", one), asks("b", other));
            let title =
                format!("{} and {} where the card answers at access {access}", words(one), words(other));
            plan.add(title, script, Kind::Little);
        }
        let (usual, variants): (Vec<&Operation>, Vec<&Operation>) =
            survey.operations.iter().filter(|one| one.succeeds).partition(|one| one.is_usual());
        for one in usual.into_iter().chain(variants).take(QUICK_ALONE) {
            let opened = opened(survey, name, &[one]);
            let script = format!("{opened}; {}; wait 50ms; {ENDED_ALONE}", asks("a", one));
            plan.add(
                format!("{} alone where the card answers at access {access}", words(one)),
                script,
                Kind::Quick,
            );
        }
    }
    plan.more.clear();
}

/// Requests that a card answers in the moment in which the driver's own time limit for them ends, or long after it.
fn answered_late(survey: &Survey, name: &str, plan: &mut Plan) {
    let open = open(name);
    for (place, limit) in &survey.limited {
        let one = &survey.operations[*place];
        let (what, command) = (words(one), &one.command);
        // The limit may be that of the first request or of the second.
        for limit in [*limit, limit.saturating_sub(1)].into_iter().filter(|limit| *limit > 0) {
            plan.more = vec![format!("{LATE_CARDS}={limit}")];
            let script = format!(
                "{open}; t: async a {command}; u: async b {command}; join t; join u; wait 11s; {ENDED}"
            );
            plan.add(
                format!("{what} where the card answers as time limit {limit} ends"),
                script,
                Kind::AtOnce,
            );
        }
    }
    if has_model(survey) {
        plan.more = vec!["--platform=silent-cards".to_owned()];
        for one in survey.operations.iter().filter(|one| one.is_usual()).take(AT_ONCE) {
            let (what, command) = (words(one), &one.command);
            let script = format!(
                "{open}; async a {command}; wait 50ms; cancel a; join a; async a {command}; async b {command}; wait 11s; {ENDED}"
            );
            plan.add(format!("{what} where the card is silent"), script, Kind::Requests);
        }
    }
    plan.more.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(code: u32, waits: bool, variant: bool) -> Operation {
        let command = format!("ioctl h {code:#x} in u32:{}", u32::from(variant));
        Operation { command, code: Some(code), succeeds: true, waits, variant, needs: None }
    }

    /// One that ends by itself, that with another word, and one that waits until the first is made.
    fn surveyed(device: &str, is_hardware: bool) -> Survey {
        let (code, waiting) = (0x0022_2000, 0x0022_2004);
        Survey {
            ready: true,
            names: (0..3).map(|number| format!(r"\\.\Unit{number}")).collect(),
            devices: (0..3).map(|number| format!("{device}#{number}")).collect(),
            operations: vec![
                operation(code, false, false),
                operation(code, false, true),
                operation(waiting, true, false),
            ],
            ended_by: vec![(2, 0)],
            is_hardware,
            ..Survey::default()
        }
    }

    fn titled<'e>(all: &'e [Exercise], part: &str) -> Vec<&'e Exercise> {
        all.iter().filter(|exercise| exercise.title.contains(part)).collect()
    }

    #[test]
    fn a_request_of_a_quick_card_is_searched_alone_on_two_processors() {
        let all = exercises(&surveyed("edu", true), 100);
        let alone = titled(&all, "alone where the card answers");
        assert_eq!(alone.len(), 9, "three requests, each at the first three accesses");
        for exercise in alone {
            assert!(exercise.processors == 2 && exercise.effort.schedules > 0, "{}", exercise.title);
            assert!(exercise.more[0].starts_with("--platform=quick-cards="), "{:?}", exercise.more);
        }
        assert!(titled(&exercises(&surveyed("unit", false), 100), "the card answers").is_empty());
    }

    #[test]
    fn a_handle_is_closed_as_its_request_ends_and_before_all_else() {
        let all = exercises(&surveyed("unit", false), 100);
        let [ends] = titled(&all, "whose handle is closed as")[..] else { panic!() };
        let (waits, made) =
            (ends.script.find("async a ioctl h 0x222004"), ends.script.find("async b ioctl h 0x222000"));
        assert!(
            waits.is_some() && waits < made && ends.script.ends_with("join a; close h"),
            "{}",
            ends.script
        );
        let closed = titled(&all, "of a handle that is closed before all else");
        assert_eq!(closed.len(), 2, "in either order");
        for exercise in closed {
            let (before, after) = exercise.script.split_once("close i").unwrap();
            assert!(before.contains("async a ioctl i") && before.contains("async b ioctl i"), "{before}");
            assert_eq!(after.matches("async r").count(), 3, "{after}");
        }
    }

    #[test]
    fn words_take_part_where_a_device_on_no_bus_is_removed_beside_another() {
        let more = vec!["--device=root".to_owned(); 3];
        let all = exercises_of_neighbours(&surveyed("unit", false), &more, 100);
        let removed = titled(&all, "while another device is disabled and enabled");
        assert_eq!(removed.len(), 3);
        let with_word = removed.iter().filter(|exercise| exercise.script.contains("in u32:1")).count();
        assert!(
            with_word == 1 && removed.iter().all(|exercise| exercise.script.contains("remove-device unit#1"))
        );
        let of_cards = exercises_of_neighbours(&surveyed("edu", true), &more, 100);
        assert_eq!(titled(&of_cards, "while another card is disabled and enabled").len(), 2, "no word");
    }
}
