//! Stories: scripts made up at random of what a driver is known to offer, for what no exercise was thought of: several requests behind, beside and across
//! each other on two handles, cancelled, left, with pauses between them, while the device is powered down, stopped or pulled.
//!
//! A story is a function of its number and of the survey. Half of its requests go to two threads, which the policies of its attempts mix; what shows
//! something is made shorter by the shrinker, as any script. What must end in a story are requests that do so in any company that the survey has seen:
//! of each pair of kinds in it, in either order. Some are made of requests behind others as sequences have found them by the code that they came to:
//! a survey makes two requests behind each other at most, and does not know what is to stand in them. Of two kinds of which the one ends the other, as many of the one are made in the end as there are of the
//! other.

use std::fmt::Write as _;

use explore::Rng;

use super::exercise::{on, open, open_other};
use super::survey::Survey;

/// Of how many kinds a story's requests are at most.
const KINDS: u64 = 4;
/// So many steps come before two threads begin, and so many has each of them, at most.
const BEFORE: u64 = 5;
const OF_A_THREAD: u64 = 3;
/// So many requests one after the other, at most.
const IN_A_ROW: u64 = 20;
/// What stands in input instead of the survey's words: as numbers of something they may be another one, or the same once more.
const WORDS: [u32; 5] = [0, 1, 2, 3, 5];
/// Pauses between steps.
const PAUSES: [&str; 7] = ["500ns", "2us", "20us", "200us", "1ms", "5ms", "20ms"];
/// In this time what has been begun is over, and a bus driver has reported what has come.
const SETTLING: &str = "100ms";
/// What happens to a device while requests are under way, and what ends it.
const CHANGES: [(&str, &str); 6] = [
    ("query-stop", "cancel-stop"),
    ("query-remove", "cancel-remove"),
    ("stop-device", "start-device"),
    ("remove-device", "start-device"),
    ("surprise-remove", "start-device"),
    // A driver that knows nothing of power states is spared this.
    ("power d3", D0),
];
const D0: &str = "power d0";
/// So long the Plug and Play manager leaves a device that is about to be stopped, or is.
const PATIENCE: &str = "1s";
/// The system sleeps: applications do not run then.
const SLEEPS: [&str; 2] = ["power s3; wait 1ms; power s0", "power s4; wait 1ms; power s0"];

/// So many stories, from the one of this number on.
#[must_use]
pub fn stories(survey: &Survey, first: u64, count: u64) -> Vec<String> {
    let Some(name) = survey.names.first().filter(|_| !survey.operations.is_empty()) else {
        return Vec::new();
    };
    (first..first + count).map(|number| Story::new(survey, name, number).text()).collect()
}

/// A story that is made up.
struct Story<'s> {
    survey: &'s Survey,
    name: &'s str,
    rng: Rng,
    /// The kinds of its requests, by their places.
    kinds: Vec<usize>,
    /// Whether it has one handle only.
    one_handle: bool,
    /// The device that the second one is of.
    other: &'s str,
    /// Words that its requests have at times: nothing is known of what ends these.
    words: Option<[u32; 2]>,
    /// What surrounds the card does what it can meanwhile: a driver may shut off an input that is active for long, and what else then ends is not known.
    is_disturbed: bool,
    /// Its requests so far, by number.
    requests: Vec<Made>,
    /// The second handle is closed in the middle.
    is_closed: bool,
    steps: Vec<String>,
}

/// A request of a story.
struct Made {
    kind: usize,
    handle: &'static str,
}

/// What is done to the device while two threads make requests.
enum Change {
    None,
    /// A step of one of them; what ends it comes after a while, too, whether they have come to their ends or wait for just that.
    Repeatable {
        step: String,
        taken_back: String,
    },
    /// Steps of a thread of their own, since the others may wait for the last one, which puts the device into D0 and comes only once: a driver may set its card
    /// up at each request for that. Where the card is there already, what it was doing is lost, and no page forbids it.
    Once(Vec<String>),
}

impl Change {
    /// This step, and `end` if it is another one.
    fn of(step: String, end: &str) -> Self {
        let end = end.to_owned();
        match (end.starts_with(D0), step == end) {
            (false, _) => Self::Repeatable { step, taken_back: end },
            (true, true) => Self::Once(vec![end]),
            (true, false) => Self::Once(vec![step, end]),
        }
    }
}

impl<'s> Story<'s> {
    fn new(survey: &'s Survey, name: &'s str, number: u64) -> Self {
        let mut rng = Rng::new(number + 1);
        // Each pair of which one ends the other has its stories, too.
        let pairs = &survey.ended_by;
        let pair = pairs.get(index(rng.below(pairs.len() as u64))).filter(|_| rng.one_in(3));
        let all = survey.operations.len() as u64;
        let mut kinds: Vec<usize> = match pair {
            Some(&(waits, ends)) => vec![waits, ends],
            None => (0..=rng.below(KINDS.min(all))).map(|_| index(rng.below(all))).collect(),
        };
        // What is about one handle may not be about another.
        let one_handle = pair.is_some() || rng.one_in(2);
        // Where there are several, that of another device in every second story.
        let other = survey.names.get(1).filter(|_| number.is_multiple_of(2)).map_or(name, String::as_str);
        // What another one needs is made, too.
        let needed: Vec<usize> = kinds.iter().flat_map(|kind| survey.needed(*kind)).collect();
        kinds.extend(needed);
        kinds.sort_unstable();
        kinds.dedup();
        let own = survey.operations.iter().filter_map(|operation| first_word(&operation.command));
        let all: Vec<u32> = own.chain(WORDS).collect();
        let words = [(); 2].map(|()| all[index(rng.below(all.len() as u64))]);
        let words = (pair.is_none() && rng.one_in(2)).then_some(words);
        let is_disturbed = !survey.outside.is_empty() && rng.one_in(2);
        Self {
            survey,
            name,
            rng,
            kinds,
            one_handle,
            other,
            words,
            is_disturbed,
            requests: Vec::new(),
            is_closed: false,
            steps: Vec::new(),
        }
    }

    fn text(mut self) -> String {
        self.steps.push(open(self.name));
        if !self.one_handle {
            self.steps.push(open_other(self.other));
        }
        for _ in 0..self.rng.below(BEFORE + 1) {
            let step = if self.rng.one_in(4) { self.in_a_row() } else { self.step() };
            self.steps.push(step);
        }
        if self.rng.one_in(4) {
            self.steps.push(format!("wait {SETTLING}"));
        }
        if !self.survey.devices.is_empty() && self.rng.one_in(8) {
            self.steps.push(SLEEPS[index(self.rng.below(2))].to_owned());
        }
        let change = self.change();
        let end = change.as_ref().map(|(_, end)| end.clone());
        match change {
            Some((begin, end)) if self.rng.one_in(2) => self.at_once(Change::of(begin, &end)),
            Some((begin, end)) => {
                self.steps.push(begin);
                let between = self.step();
                self.steps.push(of_thread("t", &between).join("; "));
                self.at_once(Change::of(end.clone(), &end));
            }
            None => self.at_once(Change::None),
        }
        // Taken back once more, if it has been: that is refused, which a story tolerates.
        self.steps.extend(end.filter(|end| !end.starts_with(D0)));
        self.end();
        self.steps.join("; ")
    }

    /// What happens to the device meanwhile, if anything does.
    fn change(&mut self) -> Option<(String, String)> {
        let Survey { devices, children, knows_power, .. } = self.survey;
        if devices.is_empty() || self.rng.one_in(2) {
            return None;
        }
        let known = CHANGES.len() - usize::from(!knows_power);
        let (begin, end) = CHANGES[index(self.rng.below(known as u64))];
        // The driver's own device, or a child of it.
        let child = children.get(index(self.rng.below(children.len() as u64))).filter(|_| self.rng.one_in(2));
        let of = child.map(|child| format!(" {child}")).unwrap_or_default();
        let elsewhere = if begin == "stop-device" && self.rng.one_in(2) { " elsewhere" } else { "" };
        Some((format!("{begin}{of}"), format!("{end}{of}{elsewhere}")))
    }

    /// Steps of two threads, and what is done to the device meanwhile.
    fn at_once(&mut self, change: Change) {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for thread in [&mut left, &mut right] {
            for _ in 0..=self.rng.below(OF_A_THREAD) {
                thread.push(self.step());
            }
        }
        if let Change::Repeatable { step, .. } = &change {
            let at = index(self.rng.below(right.len() as u64 + 1));
            right.insert(at, step.clone());
        }
        self.steps.extend(left.iter().flat_map(|step| of_thread("t", step)));
        self.steps.extend(right.iter().flat_map(|step| of_thread("u", step)));
        let joined = match change {
            Change::None => "join t; join u".to_owned(),
            Change::Repeatable { taken_back, .. } => {
                format!("wait {PATIENCE}; {taken_back}; join t; join u")
            }
            Change::Once(steps) => {
                let pause = PAUSES[index(self.rng.below(PAUSES.len() as u64))];
                let steps = steps.join(&format!("; v: wait {pause}; v: "));
                format!("v: {steps}; join t; join u; join v")
            }
        };
        self.steps.push(joined);
    }

    fn step(&mut self) -> String {
        match self.rng.below(8) {
            0 => format!("wait {}", PAUSES[index(self.rng.below(PAUSES.len() as u64))]),
            1 if !self.requests.is_empty() => {
                format!("cancel r{}", self.rng.below(self.requests.len() as u64))
            }
            2 if self.rng.one_in(3) => format!("cancel {}", self.handle()),
            2 if !self.one_handle && !self.is_closed => {
                self.is_closed = true;
                "close i".to_owned()
            }
            3 if self.is_disturbed => {
                let all = &self.survey.outside;
                all[index(self.rng.below(all.len() as u64))].steps()
            }
            _ => {
                let kind = self.kinds[index(self.rng.below(self.kinds.len() as u64))];
                self.request(kind)
            }
        }
    }

    /// A request more, behind those that it needs and that have not been made.
    fn request(&mut self, kind: usize) -> String {
        let mut kinds: Vec<usize> =
            self.survey.needed(kind).take_while(|needed| !self.has_made(*needed)).collect();
        kinds.reverse();
        kinds.push(kind);
        kinds.into_iter().map(|kind| self.one_request(kind)).collect::<Vec<_>>().join("; ")
    }

    fn has_made(&self, kind: usize) -> bool {
        self.requests.iter().any(|made| made.kind == kind)
    }

    fn one_request(&mut self, kind: usize) -> String {
        let handle = self.handle();
        let mut command = on(&self.survey.operations[kind], handle);
        if let Some(words) = self.words.filter(|_| !self.rng.one_in(4)) {
            let chosen = [(); 2].map(|()| words[index(self.rng.below(2))]);
            command = with_words(&command, chosen, self.rng.one_in(2));
        }
        self.requests.push(Made { kind, handle });
        format!("async r{} {command}", self.requests.len() - 1)
    }

    fn handle(&mut self) -> &'static str {
        if !self.one_handle && !self.is_closed && self.rng.one_in(2) { "i" } else { "h" }
    }

    /// Many of a kind that ends by itself, one after the other.
    fn in_a_row(&mut self) -> String {
        let kind = self.kinds[index(self.rng.below(self.kinds.len() as u64))];
        if !self.ends_with(kind, kind) {
            return self.request(kind);
        }
        let command = on(&self.survey.operations[kind], "h");
        let one = format!("async n {command}; wait 1ms; cancel n; join n");
        vec![one; index(self.rng.below(IN_A_ROW) + 1)].join("; ")
    }

    /// Whether the survey has seen both end by themselves in company.
    fn ends_with(&self, one: usize, other: usize) -> bool {
        self.survey.self_ending.contains(&(one.min(other), one.max(other)))
            || self.survey.ending_beside.contains(&(one, other))
    }

    /// How it ends.
    fn end(&mut self) {
        let has_device = !self.survey.devices.is_empty();
        let mut end = String::new();
        match self.rng.below(8) {
            // The process exits with all.
            0 => return,
            1 => end.push_str("close h"),
            2 if has_device => {
                let pause = PAUSES[index(self.rng.below(PAUSES.len() as u64))];
                let _ = write!(end, "wait {pause}; surprise-remove; wait 50ms; cancel h");
            }
            _ => {
                end.push_str("wait 50ms");
                self.owed(&mut end);
                end.push_str("; cancel h");
                if !self.one_handle && !self.is_closed {
                    end.push_str("; cancel i");
                }
                for number in self.numbers(|_| true) {
                    let _ = write!(end, "; join r{number}");
                }
                end.push_str("; close h");
            }
        }
        self.steps.push(end);
    }

    /// What must end.
    fn owed(&self, end: &mut String) {
        // Nothing is known of what two devices do to each other.
        let of_two = !self.one_handle && self.other != self.name;
        if self.words.is_some() || self.is_disturbed || of_two {
            return;
        }
        let must = |kind: &usize| self.kinds.iter().all(|other| self.ends_with(*kind, *other));
        let owed: Vec<String> = self.numbers(must).map(|number| format!("r{number}")).collect();
        if !owed.is_empty() {
            let _ = write!(end, "; must-end {}", owed.join(" "));
        }
        // What ends a request of one handle may not end that of another.
        let ([one, other], true) = (self.kinds.as_slice(), self.one_handle) else { return };
        let pairs = [(*one, *other), (*other, *one)];
        let Some((waits, ends)) = pairs.into_iter().find(|pair| self.survey.ended_by.contains(pair)) else {
            return;
        };
        let waiting: Vec<String> =
            self.numbers(|kind| *kind == waits).map(|number| format!("r{number}")).collect();
        if waiting.is_empty() {
            return;
        }
        let command = &self.survey.operations[ends].command;
        let made: Vec<String> = (0..waiting.len()).map(|number| format!("e{number}")).collect();
        for name in &made {
            let _ = write!(end, "; async {name} {command}; wait 30ms");
        }
        let _ = write!(end, "; must-end {} if {}", waiting.join(" "), made.join(" "));
    }

    /// The numbers of its requests of such kinds whose handle is open in the end.
    fn numbers(&self, is_meant: impl Fn(&usize) -> bool) -> impl Iterator<Item = usize> {
        let is_open = |made: &Made| !(self.is_closed && made.handle == "i");
        let all = self.requests.iter().enumerate();
        all.filter(move |(_, made)| is_open(made) && is_meant(&made.kind)).map(|(number, _)| number)
    }
}

/// The commands of a step, on this thread.
fn of_thread(thread: &str, step: &str) -> Vec<String> {
    step.split("; ").map(|part| format!("{thread}: {part}")).collect()
}

/// The command with the first of these words at the beginning of its input, or both, if there is room.
pub(super) fn with_words(command: &str, [first, second]: [u32; 2], both: bool) -> String {
    let Some((before, at, rest)) = input(command) else { return command.to_owned() };
    let (data, behind) = rest.split_at(rest.find([' ']).unwrap_or(rest.len()));
    let mut parts = data.split(':');
    let (kind, value, length) = (parts.next(), parts.next().unwrap_or_default(), parts.next());
    let words = |length: u32, filled: &dyn Fn(u32) -> String| match length {
        8.. if both => format!("u32:{first} + u32:{second}{}", filled(length - 8)),
        4.. => format!("u32:{first}{}", filled(length - 4)),
        _ => data.to_owned(),
    };
    let changed = match (kind, value.parse(), length.map(str::parse)) {
        (Some("zero"), Ok(length), _) => {
            words(length, &|left| if left > 0 { format!(" + zero:{left}") } else { String::new() })
        }
        (Some("fill"), _, Some(Ok(length))) => {
            words(length, &|left| if left > 0 { format!(" + fill:{value}:{left}") } else { String::new() })
        }
        (Some("u32"), ..) => format!("u32:{first}"),
        _ => data.to_owned(),
    };
    format!("{before}{at}{changed}{behind}")
}

/// The word that its input begins with, if that is none of zeroes.
fn first_word(command: &str) -> Option<u32> {
    let (_, _, data) = input(command)?;
    let digits = data.strip_prefix("u32:0x").or_else(|| data.strip_prefix("fill:0x"))?;
    let end = digits.find(|letter: char| !letter.is_ascii_hexdigit()).unwrap_or(digits.len());
    u32::from_str_radix(&digits[..end], 16).ok()
}

/// A command's input: what stands before it, by which word, and it with what is behind.
fn input(command: &str) -> Option<(&str, &str, &str)> {
    let of = |at: &'static str| command.split_once(at).map(|(before, rest)| (before, at, rest));
    of(" in ").or_else(|| of("write h ")).or_else(|| of("write i "))
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("it is below a length")
}

#[cfg(test)]
mod tests {
    use super::super::survey::Operation;
    use super::*;
    use crate::check::signals::Outside;
    use crate::play::ScriptText;

    fn operation(code: u32, waits: bool) -> Operation {
        let command = format!("ioctl h {code:#x}");
        Operation { command, code: Some(code), succeeds: true, waits, variant: false, needs: None }
    }

    /// One that ends by itself, and one that waits until that is made.
    fn surveyed() -> Survey {
        Survey {
            names: vec![r"\\.\Bell".to_owned()],
            devices: vec!["bell#0".to_owned()],
            operations: vec![operation(0x0022_2000, false), operation(0x0022_2004, true)],
            self_ending: vec![(0, 0)],
            ended_by: vec![(1, 0)],
            ..Survey::default()
        }
    }

    #[test]
    fn a_number_decides_a_story_and_each_is_a_script() {
        let (survey, count) = (surveyed(), 500);
        let all = stories(&survey, 0, count);
        assert_eq!(all[10..], stories(&survey, 10, count - 10));
        for story in &all {
            ScriptText::typed(story).play().unwrap_or_else(|error| panic!("{story}: {error}"));
        }
        let has = |what: &str| all.iter().any(|story| story.contains(what));
        for what in [
            "must-end r",
            "; close i; ",
            ": close i; ",
            " if e0",
            "surprise-remove",
            "elsewhere",
            "power s0",
            "cancel r",
            " as i ",
            "join n",
            "u: ",
        ] {
            assert!(has(what), "{what}");
        }
        assert!(!has("power d3"), "the driver knows of no power states");
    }

    #[test]
    fn a_question_is_taken_back_though_the_threads_that_asked_wait_for_that() {
        let all = stories(&surveyed(), 0, 300);
        let asked = all.iter().filter(|story| story.contains("query-stop"));
        assert!(asked.clone().count() > 5);
        assert!(asked.clone().all(|story| story.contains("wait 1s; cancel-stop; join t; join u")));
    }

    #[test]
    fn a_device_in_d0_is_not_put_there_once_more() {
        let all = stories(&Survey { knows_power: true, ..surveyed() }, 0, 300);
        let powered = all.iter().filter(|story| story.contains("power d3"));
        assert!(powered.clone().count() > 5);
        assert!(powered.clone().all(|story| story.matches("power d0").count() == 1));
    }

    #[test]
    fn a_thread_that_waits_for_power_does_not_keep_it_from_coming() {
        let all = stories(&Survey { knows_power: true, ..surveyed() }, 0, 300);
        let powered = all.iter().filter(|story| story.contains("power d3"));
        assert!(powered.clone().any(|story| story.contains("; v: power d3; v: wait ")));
        assert!(powered.clone().any(|story| story.contains("; power d3; ")));
        assert!(powered.clone().all(|story| story.contains("v: power d0; join t; join u; join v")));
    }

    #[test]
    fn nothing_must_end_where_the_cards_surroundings_do_something() {
        let linti1 = Outside { device: "bell#0".to_owned(), signal: "linti1".to_owned(), values: vec![1, 0] };
        let all = stories(&Survey { outside: vec![linti1], ..surveyed() }, 0, 300);
        let [disturbed, owed] =
            ["poke", "must-end"].map(|word| all.iter().filter(|story| story.contains(word)).count());
        assert!(disturbed > 20 && owed > 20, "{disturbed} {owed}");
        assert!(!all.iter().any(|story| story.contains("poke") && story.contains("must-end")));
    }

    #[test]
    fn what_ends_a_request_of_one_handle_need_not_end_that_of_another() {
        let all = stories(&surveyed(), 0, 500);
        assert!(all.iter().any(|story| story.contains(" as i ")));
        assert!(!all.iter().any(|story| story.contains(" as i ") && story.contains(" if e0")));
    }

    #[test]
    fn words_stand_where_input_begins() {
        let with = |command, both| with_words(command, [7, 9], both);
        assert_eq!(
            with("ioctl h 0x222000 in zero:64 out 64", false),
            "ioctl h 0x222000 in u32:7 + zero:60 out 64"
        );
        assert_eq!(with("ioctl h 0x222000 in zero:8 out 4", true), "ioctl h 0x222000 in u32:7 + u32:9 out 4");
        assert_eq!(
            with("ioctl i 0x222000 in fill:0x1:16", true),
            "ioctl i 0x222000 in u32:7 + u32:9 + fill:0x1:8"
        );
        assert_eq!(
            with("ioctl h 0x222000 in u32:0x1 + zero:60", true),
            "ioctl h 0x222000 in u32:7 + zero:60"
        );
        assert_eq!(with("write i zero:64", false), "write i u32:7 + zero:60");
        for unchanged in ["read h 64", "ioctl h 0x222000 out 8", "ioctl h 0x222000 in zero:2"] {
            assert_eq!(with(unchanged, true), unchanged);
        }
    }

    #[test]
    fn what_a_request_needs_is_made_before_it() {
        let needy = Operation { succeeds: false, needs: Some(0), ..operation(0x0022_2008, false) };
        let survey = Survey { operations: vec![operation(0x0022_2000, false), needy], ..surveyed() };
        let survey = Survey { ended_by: Vec::new(), ..survey };
        let all = stories(&survey, 0, 300);
        let of = |story: &&String| story.contains("ioctl h 0x222008") || story.contains("ioctl i 0x222008");
        let first = |story: &String, code: &str| story.find(code);
        let needing: Vec<&String> = all.iter().filter(of).collect();
        assert!(needing.len() > 100);
        let early = needing.iter().find(|story| first(story, "0x222000") > first(story, "0x222008"));
        assert_eq!(early, None);
    }

    #[test]
    fn a_sequence_comes_in_its_order_and_what_two_have_in_common_is_one() {
        let behind = |code| Operation { succeeds: true, ..operation(code, false) };
        let [one, two, three] = [0x0022_2000, 0x0022_2010, 0x0022_2014].map(behind);
        let survey = Survey { ended_by: Vec::new(), ..surveyed() };
        let survey =
            survey.with_sequences(vec![vec![one.clone(), two.clone(), three.clone()], vec![one, two]]);
        let needs: Vec<Option<usize>> = survey.operations.iter().map(|operation| operation.needs).collect();
        assert_eq!(needs, [None, None, Some(0), Some(2)], "the survey's own is the first of both");
        let all = stories(&survey, 0, 300);
        let deep: Vec<&String> = all.iter().filter(|story| story.contains("0x222014")).collect();
        assert!(deep.len() > 50);
        for story in deep {
            let places = ["0x222000", "0x222010", "0x222014"].map(|code| story.find(code));
            assert!(places.is_sorted() && places[0].is_some(), "{places:?}");
        }
    }

    #[test]
    fn nothing_must_end_that_was_not_seen_to_end_in_company() {
        let survey = Survey { self_ending: Vec::new(), ended_by: Vec::new(), ..surveyed() };
        assert!(stories(&survey, 0, 200).iter().all(|story| !story.contains("must-end")));
        // Who waits beside it may keep the other from ending.
        let of_both = |story: &String| {
            story.contains("r0 ioctl h 0x222000") && story.contains("0x222004") && !story.contains(" if ")
        };
        let alone = Survey { ended_by: Vec::new(), ..surveyed() };
        let mixed: Vec<String> = stories(&alone, 0, 500).into_iter().filter(of_both).collect();
        assert!(!mixed.is_empty() && mixed.iter().all(|story| !story.contains("must-end")));
    }
}
