//! The exercises: scripts for a driver of which only a [`Survey`] is known, and how often each is carried out.
//!
//! They begin with the simplest, so that a mistake which several show is reported by the shortest script. A request is overlapped and cancelled after a
//! while, so none waits for a device that says nothing. No script expects anything: what a driver ought to answer is not known, but that what has ended by
//! itself alone must do so in company, too.

mod at_once;
mod behind_lives;
mod card_timing;
mod closed_at_rest;
mod durations;
mod each_register;
mod effort;
mod idle;
mod inputs_and_lengths;
mod interfaces;
mod interrupted;
mod lives;
mod loose;
mod neighbours;
mod numbered;
mod own_answers;
mod registers;
mod steps;
mod surroundings;
mod system;
#[cfg(test)]
mod tests;
mod time_limits;
mod under_way;
mod uptime;
mod values;

use serde::{Deserialize, Serialize};

use super::survey::{Operation, Survey};
use at_once::{at_once, behind_failure, from_outside, passed_over};
use behind_lives::{behind_lives, kept_over_lives};
use card_timing::{answered_late, answered_soon, posted};
use closed_at_rest::closed_at_rest;
use durations::last_as_long_as_they_say;
use each_register::each_register_holds;
use effort::{Kind, Plan};
use idle::powered_down;
use inputs_and_lengths::{
    as_long_as_said, changing, gives_or_takes, great, pointers, products, sizes, values,
};
use interfaces::come_and_go;
use interrupted::{at_once_with_interrupts, causes_as_cancelled, event_exchanged, interrupted_as_it_goes};
use lives::{interrupts, lives, managed, managed_behind, opens, seldom};
use loose::comes_loose;
pub use neighbours::{exercises_of_neighbours, exercises_on_busy_line};
use numbered::numbered;
use own_answers::own_answers;
use registers::registers_show;
pub(super) use steps::opened_behind;
pub(super) use steps::{ENDED, PAUSE, around_input, on, open, open_other, tried, two_at_once};
use steps::{ENDED_ALONE, asks, opened, place, still_ends, two_under_way, words};
pub use surroundings::exercises_beyond_reach;
use surroundings::{of_32_bit_programs, of_stuck_eeprom, refused_later};
use system::watched;
use time_limits::as_timers_run_out;
pub(super) use under_way::closed_with;
use under_way::{
    behind_cancelled, left, of_a_closed_handle, of_a_page_within_lives, of_children, of_one_closed_handle,
    of_ordinary_user, within_lives,
};
use uptime::in_the_long_run;
use values::START;
pub use values::{WithValues, exercises_with_values, registry_options};

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
    /// Not made up, but two requests at once as those sequences have them.
    pub as_found: bool,
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
    /// It has a card of which nothing is known, and which so answers no request by itself.
    pub card_is_unknown: bool,
}

impl Effort {
    /// About how many attempts that are: as many as there are at most, of which a driver that has few calls that may fail needs fewer.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        let of_each = 1 + 2 * self.failing as u64 + self.seeds;
        self.inputs + self.stories.behind + of_each * self.stories.count.max(1)
    }
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
/// What is in the input buffers: words of 4 bytes, repeated.
pub(super) const WORDS: [u32; 7] = [0xFFFF_FFFF, 1, 2, 0x10, 0x1000, 0x7FFF_FFFF, 0x8000_0000];
/// Numbers of records of 4 to 64 bytes each whose size in bytes does not fit into 32 bits: what is left of it is small.
pub(super) const OVERFLOWS: [u32; 8] =
    [0x4000_0001, 0x2000_0001, 0x1555_5556, 0x1000_0001, 0x0CCC_CCCD, 0x0AAA_AAAB, 0x0800_0001, 0x0400_0001];
/// So many requests of one kind are under way at once.
pub(super) const MANY: u32 = 64;
/// So many are made one after the other: more than what counts in four or five bits.
const IN_A_ROW: usize = 40;
/// So many pairs of requests that give data and take it are made thousands of times.
const CHANGING_PAIRS: usize = 6;
/// More than what counts in eight bits.
const MORE_THAN_A_BYTE: usize = 258;
/// So many exercises are stories; behind these come those of sequences, which are found by so many attempts.
const STORY_EXERCISES: u64 = 6;
const SEQUENCE_EXERCISES: u64 = 2;
const SEQUENCES: u64 = 2_000;
const SEQUENCES_AT_ONCE: u64 = 5_000;
/// The option that looks for data races: where two threads ask at once.
pub const RACES: &str = "--races";
/// The options of cards that answer when a time limit of the driver's ends, and of those that do long after it.
pub(super) const LATE_CARDS: &str = "--platform=late-cards";
pub(super) const SILENT_CARDS: &str = "--platform=silent-cards";
/// The option of bus drivers that answer later.
const LATER_BUS: &str = "--platform=later-bus";
/// The method of a code whose buffers the system copies.
const METHOD_BUFFERED: u32 = 0;
const METHOD_NEITHER: u32 = 3;

/// A sequence of requests that has come to new code, in an earlier check.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct KeptSequence {
    /// What it is called.
    pub name: String,
    /// As `--do` has it.
    pub script: String,
}

/// These sequences.
#[must_use]
pub fn exercises_of_kept(survey: &Survey, kept: &[KeptSequence], budget: u64) -> Vec<Exercise> {
    let mut plan = Plan::new(survey, budget, Vec::new());
    for KeptSequence { name, script } in kept {
        plan.add(format!("kept sequence {name}"), script, Kind::Sizes);
    }
    plan.all
}

/// What is to be tried, in this order. `budget` is how much of each, in hundredths of the usual.
#[must_use]
pub fn exercises(survey: &Survey, budget: u64) -> Vec<Exercise> {
    let mut plan = Plan::new(survey, budget, Vec::new());
    plan.add(START, "", Kind::Start);
    plan.add("the same on two processors", "", Kind::StartOnTwo);
    if survey.is_hardware {
        plan.more = vec!["--platform=shifted-bus".to_owned()];
        plan.add("load and start where raw addresses are not the translated ones", "", Kind::StartElsewhere);
        plan.more.clear();
    }
    if survey.plug_and_play {
        plan.more = vec![LATER_BUS.to_owned()];
        plan.add("load and start where the bus driver answers later", "", Kind::StartElsewhere);
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
        for block in &survey.blocks {
            plan.add(
                format!("what an administrator does with the WMI {block}"),
                managed(block),
                Kind::Requests,
            );
            if let Some(name) = survey.names.first().filter(|_| !survey.operations.is_empty()) {
                plan.add(
                    format!("the WMI {block} behind requests"),
                    managed_behind(survey, name, block),
                    Kind::Requests,
                );
            }
        }
        for (title, script) in lives(survey) {
            plan.add(title, script, Kind::Plain);
        }
        if survey.plug_and_play {
            plan.more = vec![LATER_BUS.to_owned()];
            for (title, script) in lives(survey).into_iter().filter(|(_, script)| script.contains("power ")) {
                plan.add(format!("{title} where the bus driver answers later"), script, Kind::Little);
            }
            let title = "left alone for half a minute where the bus driver answers later";
            plan.add(title, "wait 30s; power s3; wait 30s; power s0; wait 30s", Kind::Little);
            plan.more.clear();
        }
    }
    watched(survey, &mut plan);
    come_and_go(survey, &mut plan);
    comes_loose(survey, &mut plan);
    let interrupts = interrupts(survey);
    for (title, steps) in &interrupts {
        plan.add(*title, format!("tolerate; {steps}"), Kind::Requests);
    }
    let Some(name) = survey.names.first() else { return plan.all };
    let open = open(name);
    let operations = || survey.operations.iter().filter(|operation| !operation.variant);
    for (operation, (title, steps)) in operations().flat_map(|one| interrupts.iter().map(move |by| (one, by)))
    {
        let script = two_under_way(&open, operation, steps);
        plan.add(format!("{} and {title}", words(operation)), script, Kind::Requests);
    }
    // The thread has gone when the card answers what it was asked for.
    for (operation, (title, steps)) in
        operations().filter(|one| !one.waits).flat_map(|one| interrupts.iter().map(move |by| (one, by)))
    {
        let opened = opened(survey, name, &[operation]);
        let script =
            format!("{opened}; t: {}; join t; {PAUSE}; {steps}; {ENDED_ALONE}", asks("a", operation));
        plan.add(
            format!("{} of a thread that has ended, and {title}", words(operation)),
            script,
            Kind::Little,
        );
    }
    from_outside(survey, name, &mut plan);
    passed_over(survey, name, &mut plan);
    at_once_with_interrupts(survey, &open, &mut plan);
    event_exchanged(survey, name, &mut plan);
    causes_as_cancelled(survey, name, &mut plan);
    if has_device {
        interrupted_as_it_goes(survey, &open, &mut plan);
    }
    plan.add("requests that drivers seldom handle", format!("{open}; {}", seldom()), Kind::Plain);
    for operation in operations() {
        let what = words(operation);
        let open = opened(survey, name, &[operation]);
        let mut of_code = operations().filter(|other| other.code == operation.code);
        let have_words = of_code.clone().all(|other| other.word().is_some());
        let is_plain = operation.word().is_none() || have_words && of_code.next() == Some(operation);
        if is_plain {
            let of = |steps: &str| format!("{open}; {}", still_ends(survey, operation, steps));
            plan.add(format!("{what} of all sizes"), of(&sizes(survey, operation)), Kind::Sizes);
            if let Some(code) = operation.code {
                let steps = values(operation, code, &survey.values);
                plan.add(format!("{what} of telling values"), of(&steps), Kind::Sizes);
            }
            if let Some(steps) = as_long_as_said(operation, &survey.values) {
                plan.add(format!("{what} of lengths that its words say"), of(&steps), Kind::Usual);
            }
            if let Some(steps) = products(operation) {
                plan.add(
                    format!("{what} of numbers whose products do not fit into 32 bits"),
                    of(&steps),
                    Kind::Sizes,
                );
            }
            plan.add(format!("{what} with pointers of all kinds"), of(&pointers(operation)), Kind::Sizes);
        }
        let script = format!("{open}; {}", of_ordinary_user(operation, name));
        plan.add(format!("{what} of an ordinary user"), script, Kind::Little);
        plan.add(
            format!("{what}, cancelled and left"),
            format!("{open}; {}", left(survey, operation, name)),
            Kind::Requests,
        );
        let own = place(survey, operation);
        if survey.self_ending.contains(&(own, own)) {
            let title = format!("{what} behind a call that fails");
            plan.add(title, behind_failure(&open, operation, "wait 5ms", true), Kind::Requests);
        }
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
            let others = operations().filter(|other| !other.waits && *other != operation);
            let others: Vec<&str> = others.map(|other| other.command.as_str()).collect();
            let all = vec![operation.command.as_str(); MORE_THAN_A_BYTE];
            // A count of 258 in a byte is 2: what undoes a request twice has it be 0, and what comes then finds what it counted gone.
            let others = vec![others.join("; "); MORE_THAN_A_BYTE - 256 + 1].join("; ");
            let script = format!("{open}; {}; {others}; close h", all.join("; "));
            let title = format!("{what}, {MORE_THAN_A_BYTE} in a row, and what else there is");
            plan.add(title, script, Kind::Usual);
        }
        if let Some((_, refused)) = survey.stuck.iter().find(|(stuck, _)| *stuck == own) {
            let one = format!("async a {}; wait 300ms; cancel a; join a", operation.command);
            let script = format!(
                "{open}; {}; {}; must-end z; cancel z; join z; close h",
                vec![one; *refused].join("; "),
                asks("z", operation)
            );
            plan.add(format!("{what} behind one of {refused} in a row that fails"), script, Kind::Little);
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
            for (title, script) in of_a_page_within_lives(survey, operation, name) {
                plan.add(format!("{what} of a page {title}"), format!("{open}; {script}"), Kind::Little);
            }
        }
    }
    let ends = |operation: &&Operation| !operation.waits && operation.word().is_none();
    let gives = operations().filter(ends).filter(|one| gives_or_takes(one).0);
    let takes = || operations().filter(ends).filter(|one| gives_or_takes(one).1);
    let pairs = gives.flat_map(|one| takes().map(move |other| (one, other)));
    for (gives, takes) in pairs.filter(|(one, other)| one != other).take(CHANGING_PAIRS) {
        let title = format!("{} and {} of changing lengths", words(gives), words(takes));
        plan.add(title, format!("{open}; {}", changing(gives, takes)), Kind::Usual);
    }
    // Those that need data are ahead of codes that succeed without, which may take them, too.
    let takes_data = |one: &&Operation| gives_or_takes(one).0;
    let mut taking: Vec<&Operation> =
        operations().filter(|one| takes_data(one) || one.code.is_some()).collect();
    taking.sort_by_key(|one| !takes_data(one));
    if !taking.is_empty() {
        plan.add("very long data behind very long ones", format!("{open}; {}", great(&taking)), Kind::Little);
    }
    let of_one_handle = behind_cancelled(survey, name).into_iter().chain(of_one_closed_handle(survey, name));
    for (title, script) in of_one_handle.chain(of_children(survey, name)) {
        plan.add(title, script, Kind::Little);
    }
    if has_device {
        let lives = behind_lives(survey, name).into_iter().chain(kept_over_lives(survey, name));
        for (title, script) in lives.chain(closed_at_rest(survey, name)) {
            plan.add(title, script, Kind::Little);
        }
    }
    numbered(survey, name, &mut plan);
    own_answers(survey, name, &mut plan);
    last_as_long_as_they_say(survey, name, &mut plan);
    in_the_long_run(survey, name, &mut plan);
    at_once(survey, name, has_device, &mut plan);
    answered_soon(survey, name, &mut plan);
    answered_late(survey, name, &mut plan);
    posted(survey, name, &mut plan);
    registers_show(survey, name, &mut plan);
    each_register_holds(survey, name, &mut plan);
    refused_later(survey, name, &mut plan);
    powered_down(survey, name, &mut plan);
    as_timers_run_out(survey, name, &mut plan);
    of_32_bit_programs(survey, name, &mut plan);
    of_stuck_eeprom(survey, name, &mut plan);
    if !survey.operations.is_empty() {
        plan.add("sequences of requests by what code they reach", "", Kind::Inputs);
        plan.more = vec![RACES.to_owned()];
        plan.add("sequences of requests, looked at for races", "", Kind::InputsAtOnce);
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
        plan.add(
            "two requests at once as sequences have them",
            "",
            Kind::AsFound { behind: SEQUENCES_AT_ONCE },
        );
    }
    plan.all
}
