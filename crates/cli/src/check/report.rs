//! What a check has come to: each cause once, with the shortest thing that shows it and the line that makes it again.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use dirql::check::{self, Aside, Awaited, Cause, Coverage, Effort, Exercise, Survey};
use dirql::files::DriverFile;
use dirql::{Dismissal, Error, Platform};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::campaign::{self, Job, JobResult};
use super::confirm::confirm;
use super::things::{Place, Thing, things};
use super::worker::Shown;
use crate::again::{self, quoted};
use crate::arguments::Check;
use crate::out::say;
use crate::remote_runner::SEPARATOR;
use crate::{NO_ANSWER, terminal};

/// Options of `dirql check` that a line for other commands does not have, or has in another form, each with a value.
const IN_CHECK_ONLY: [&str; 19] = [
    "budget",
    "exercise",
    "until",
    "workers",
    "do",
    "script",
    "processors",
    "platform",
    "verifier",
    "rules",
    "keep",
    "corpus",
    "state",
    "sarif",
    "source-root",
    "junit",
    "html",
    "lcov",
    "color",
];
/// The same, without.
const FLAGS: [&str; 2] = ["--json", "--quiet"];

/// So many functions that were never come to are named.
const SHOWN_MISSED: usize = 12;

/// Something that is wrong, and what shows it.
#[derive(Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) cause: Cause,
    /// What makes an attempt again that has shown it.
    pub(super) shown: Shown,
    /// The exercise of that attempt.
    pub(super) exercise: usize,
    /// How many attempts of its job have shown it.
    pub(super) attempts: u64,
    /// How often the run that was made again for it has departed from the usual: orders, and calls that failed.
    #[serde(skip)]
    pub(super) departures: usize,
}

/// What the check has come to.
pub(super) struct Report<'a> {
    arguments: &'a Check,
    /// What dirql has chosen for the driver, as options.
    device: Option<String>,
    survey: &'a Survey,
    exercises: &'a [Exercise],
    found: Vec<Thing>,
    /// What does not count: advice, and what is dismissed;
    aside: Vec<Found>,
    /// and what dismisses nothing that was found.
    idle: Vec<Dismissal>,
    attempts: u64,
    failed: u64,
    /// Jobs that were not done, as `--until` has it.
    left_out: usize,
    extent: Extent,
    no_answers: Vec<String>,
    coverage: Coverage,
}

/// How far it has gone.
#[derive(Default)]
struct Extent {
    /// Searches, and how many of them have not tried all that there is within their bound.
    searches: usize,
    cut: usize,
    /// Exercises of which a longer check tries more seeds.
    seeded: usize,
    /// Calls that may fail and did not, in exercises in which others did: there are too many.
    spared: u64,
}

impl Extent {
    /// What came of this job of it.
    fn add(&mut self, job: &Job, effort: &Effort, result: &JobResult) {
        if job.search {
            self.searches += 1;
            self.cut += usize::from(!result.complete);
            return;
        }
        self.seeded += usize::from(effort.seeds > 0);
        if effort.failing > 0 {
            self.spared += result.could_fail.saturating_sub(effort.failing as u64);
        }
    }

    /// What one with this budget would add, and what not.
    fn longer(&self, budget: u64) -> String {
        let Self { searches, cut, seeded, spared } = self;
        let spared = match spared {
            0 => String::new(),
            1 => ", but not the failure of 1 call that was not tried".to_owned(),
            count => format!(", but not the failure of {count} calls that were not tried"),
        };
        format!(
            "--budget {budget} adds schedules to {cut} of {searches} searches (the others have tried all within their bound) and seeds to {seeded} exercises{spared}"
        )
    }
}

/// A finding, as all forms of the report have it.
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) rule: &'a str,
    pub(super) tier: &'a str,
    pub(super) message: String,
    /// The number of the exercise that was the first to show it.
    pub(super) exercise: usize,
    pub(super) shown_by: String,
    /// The command that makes that attempt again, as a shell takes it, and its words.
    pub(super) replay: String,
    pub(super) words: Vec<String>,
    /// As `finding-in-full` has it.
    pub(super) finding: Value,
    /// How many attempts have shown it, here or elsewhere.
    attempts: u64,
    departures: usize,
    script: String,
    awaited: Option<&'a Awaited>,
    /// What the same place shows as in other attempts.
    pub(super) also: Vec<Entry<'a>>,
    /// The other places of the same kind.
    pub(super) more: Vec<Entry<'a>>,
}

impl Entry<'_> {
    /// What is wrong, where else, what shows it, and how that is made again: a line each.
    pub(super) fn text(&self) -> String {
        let elsewhere: String =
            self.elsewhere().iter().map(|(label, text)| format!("\n{label}: {text}")).collect();
        format!("{}{elsewhere}\nshown by: {}\nreplay: {}", self.message, self.shown_by, self.replay)
    }

    /// What else shows it, with what that is.
    pub(super) fn elsewhere(&self) -> Vec<(&'static str, String)> {
        let all =
            [("also as", self.also_as()), ("more places", self.more_places()), ("also by", self.also_by())];
        all.into_iter().filter_map(|(label, text)| Some((label, text?))).collect()
    }

    /// Of a request that does not end though another one was made: the others that end it and did not.
    fn also_by(&self) -> Option<String> {
        let ends: Vec<&str> = self.more.iter().filter_map(|more| Some(more.awaited?.ends.as_str())).collect();
        (!ends.is_empty()).then(|| ends.join(", "))
    }

    /// The other rules that its first place breaks.
    fn also_as(&self) -> Option<String> {
        let rules: Vec<&str> = self.also.iter().map(|also| also.rule).collect();
        (!rules.is_empty()).then(|| rules.join(", "))
    }

    /// `2 in Dispatch: card.c:12, 15`, and the distance in the routine of what has no line.
    fn more_places(&self) -> Option<String> {
        let symbol = self.place().filter(|_| !self.more.is_empty())?;
        let routine = symbol.rsplit_once("+0x").map_or(symbol, |(routine, _)| routine);
        let mut files: Vec<(String, BTreeSet<u64>)> = Vec::new();
        let mut without: Vec<String> = Vec::new();
        for place in &self.more {
            match place.source() {
                Some((file, line)) => match files.iter_mut().find(|(known, _)| *known == file) {
                    Some((_, lines)) => drop(lines.insert(line)),
                    None => files.push((file, BTreeSet::from([line]))),
                },
                None => without.extend(place.place().map(|symbol| symbol.replacen(routine, "", 1))),
            }
        }
        let of_file = |(file, lines): &(String, BTreeSet<u64>)| {
            format!("{file}:{}", lines.iter().map(u64::to_string).collect::<Vec<_>>().join(", "))
        };
        let all = files.iter().map(of_file).chain(without);
        Some(format!("{} in {routine}: {}", self.more.len(), all.collect::<Vec<_>>().join(", ")))
    }

    /// The moments that it names, the number of the event of each, and where the driver was then.
    pub(super) fn moments(&self) -> Vec<(String, Option<u64>, String)> {
        let moments = self.finding["moments"].as_array().into_iter().flatten();
        let moment = |moment: &Value| {
            Some((moment["what"].as_str()?.to_owned(), moment["number"].as_u64(), innermost(moment)?))
        };
        moments.filter_map(moment).collect()
    }

    /// Its instruction, as people name it.
    fn place(&self) -> Option<&str> {
        self.finding["stack"][0]["symbol"].as_str()
    }

    /// ` at ` and the routine, or nothing.
    fn at(&self) -> String {
        self.place().map(|place| format!(" at {place}")).unwrap_or_default()
    }

    /// The file and the line that it is at.
    pub(super) fn source(&self) -> Option<(String, u64)> {
        // `…, allocated by card.sys!Start+0x12 (card.c:33)`
        let is_place = |(file, _): &(String, u64)| file.contains('.') && !file.contains(' ');
        let of_words = || self.message.split(['(', ')']).rev().filter_map(place).find(is_place);
        source(&self.finding).or_else(of_words)
    }

    /// The moments that it names, and the file and line where the driver was then.
    pub(super) fn sources_of_moments(&self) -> Vec<(&str, (String, u64))> {
        let moments = self.finding["moments"].as_array().into_iter().flatten();
        moments.filter_map(|moment| Some((moment["what"].as_str()?, source(moment)?))).collect()
    }
}

/// The innermost line of a stack that has a source.
fn source(of: &Value) -> Option<(String, u64)> {
    of["stack"].as_array()?.iter().find_map(|line| place(line["source"].as_str()?))
}

/// Where the stack of a finding or of a moment begins: `card!Start+0x12  (card.c:33)`.
fn innermost(of: &Value) -> Option<String> {
    let line = &of["stack"][0];
    let source = line["source"].as_str().map(|source| format!("  ({source})")).unwrap_or_default();
    Some(format!("{}{source}", line["symbol"].as_str()?))
}

/// `card.c:33`.
fn place(text: &str) -> Option<(String, u64)> {
    let (file, line) = text.rsplit_once(':')?;
    Some((file.to_owned(), line.parse().ok()?))
}

impl<'a> Report<'a> {
    pub(super) fn new(
        arguments: &'a Check,
        device: Option<String>,
        survey: &'a Survey,
        exercises: &'a [Exercise],
        results: Vec<Option<JobResult>>,
    ) -> Result<Self> {
        let mut reached = BTreeSet::new();
        let (mut found, mut no_answers): (Vec<Found>, Vec<String>) = (Vec::new(), Vec::new());
        let (mut attempts, mut failed) = (0, 0);
        let all = campaign::jobs(exercises);
        let mut extent = Extent::default();
        for (job, result) in all.iter().zip(&results) {
            let effort = &exercises[job.exercise].effort;
            result.iter().for_each(|result| extent.add(job, effort, result));
        }
        let (jobs, missing) = (results.len(), results.iter().filter(|result| result.is_none()).count());
        for result in results.into_iter().flatten() {
            attempts += result.attempts;
            failed += result.failed;
            reached.extend(result.reached);
            for one in result.found {
                match found.iter_mut().find(|known| known.cause.key == one.cause.key) {
                    Some(known) => known.attempts += one.attempts,
                    None => found.push(one),
                }
            }
            for why in result.no_answers {
                if !no_answers.contains(&why) {
                    no_answers.push(why);
                }
            }
        }
        // Behind what was to be found nothing more was to be tried.
        let is_cut =
            arguments.until.as_ref().is_some_and(|until| found.iter().any(|found| until.names(&found.cause)));
        if missing > 0 && !is_cut {
            let go_on = if arguments.state.is_some() { "; the same command goes on" } else { "" };
            no_answers.push(format!("it was interrupted; not done: {missing} of {jobs} jobs{go_on}"));
        }
        if let Some(why) = survey.failure.as_ref().filter(|_| found.is_empty()) {
            no_answers
                .push(format!("the driver is not ready after its start, so only that was tried: {why}"));
        }
        let (found, aside) = things(found);
        let mut idle = crate::run::dismissals(&arguments.setup)?;
        let is_idle = |one: &Dismissal| aside.iter().all(|found| dismissal(found) != Some(one));
        idle.retain(is_idle);
        let driver = DriverFile::read(&arguments.setup.driver).map_err(Error::Input)?;
        let coverage = check::coverage(&driver, &reached);
        Ok(Self {
            arguments,
            device,
            survey,
            exercises,
            found,
            aside,
            idle,
            attempts,
            failed,
            left_out: if is_cut { missing } else { 0 },
            extent,
            no_answers,
            coverage,
        })
    }

    /// Has each finding's own line carried out once more, from a machine's start, by so many processes at a time: what it shows is what is reported, and what
    /// it does not show is not the driver's.
    pub(super) fn confirm(&mut self, workers: u32) {
        let mut found = std::mem::take(&mut self.found);
        let why =
            confirm(&mut found, workers, |found| self.replay(found, &check::folded(&found.shown.script)));
        self.found = found;
        self.no_answers.extend(why);
    }

    /// The folder of its source, as its debug information names it, if the user has said so.
    pub(super) fn source_root(&self) -> Option<&str> {
        self.arguments.source_root.as_deref()
    }

    /// The driver, as the user named it.
    pub(super) fn driver(&self) -> String {
        self.arguments.setup.driver.display().to_string()
    }

    /// What each exercise does, in their order.
    pub(super) fn titles(&self) -> Vec<String> {
        self.exercises.iter().map(|exercise| exercise.title.clone()).collect()
    }

    pub(super) fn no_answers(&self) -> &[String] {
        &self.no_answers
    }

    pub(super) fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Everything that is wrong.
    pub(super) fn entries(&self) -> Vec<Entry<'_>> {
        self.found.iter().filter_map(|thing| self.entry_of_thing(thing)).collect()
    }

    fn entry_of_thing<'f>(&'f self, thing: &'f Thing) -> Option<Entry<'f>> {
        let mut places = thing.iter().map(|place| self.entry_of_place(place));
        let first = places.next()?;
        let attempts = thing.iter().flat_map(|place| [&place.found].into_iter().chain(&place.also));
        let attempts = attempts.map(|found| found.attempts).sum();
        Some(Entry { attempts, more: places.collect(), ..first })
    }

    fn entry_of_place<'f>(&'f self, place: &'f Place) -> Entry<'f> {
        let also = place.also.iter().map(|found| self.entry(found)).collect();
        Entry { also, ..self.entry(&place.found) }
    }

    /// What is dismissed, each with what says so.
    pub(super) fn dismissed(&self) -> impl Iterator<Item = (Entry<'_>, &Dismissal)> {
        self.aside.iter().filter_map(|found| Some((self.entry(found), dismissal(found)?)))
    }

    /// Advice.
    pub(super) fn advice(&self) -> impl Iterator<Item = Entry<'_>> {
        let is_advice = |found: &&Found| found.cause.aside == Some(Aside::Advice);
        self.aside.iter().filter(is_advice).map(|found| self.entry(found))
    }

    fn entry<'f>(&'f self, found: &'f Found) -> Entry<'f> {
        let finding: Value = serde_json::from_str(&found.cause.finding).unwrap_or_default();
        let script = check::folded(&found.shown.script);
        let words = self.replay(found, &script);
        Entry {
            key: &found.cause.key,
            rule: &found.cause.rule,
            tier: &found.cause.tier,
            message: finding["message"].as_str().unwrap_or_default().to_owned(),
            exercise: found.exercise,
            shown_by: format!("{}{}", self.exercises[found.exercise].title, how(&found.shown.option)),
            replay: words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
            words,
            finding,
            attempts: found.attempts,
            departures: found.departures,
            script,
            awaited: found.cause.awaited.as_ref(),
            also: Vec::new(),
            more: Vec::new(),
        }
    }

    /// 1 with something wrong, 3 without an answer, else 0.
    pub(super) fn exit_code(&self) -> u8 {
        match (self.found.is_empty(), self.no_answers.is_empty()) {
            (false, _) => 1,
            (true, false) => NO_ANSWER,
            (true, true) => 0,
        }
    }

    pub(super) fn tell(&self) {
        if self.arguments.json {
            say!("{}", self.as_json());
        } else {
            say!("{}", terminal::dress(self.arguments.color).on(self.as_text().trim_end()));
        }
    }

    /// The command that makes the first attempt again which has shown it, by this script.
    fn replay(&self, found: &Found, script: &str) -> Vec<String> {
        let exercise = &self.exercises[found.exercise];
        let command = if found.shown.option.starts_with("--policy") { "run" } else { "explore" };
        let setup = &self.arguments.setup;
        let mut more =
            vec![format!("--verifier={}", setup.verifier), format!("--rules={}", setup.rules.list)];
        let words = again::command(&IN_CHECK_ONLY, &[]);
        let given =
            |option: &str| words.iter().any(|word| word == option || word.starts_with(&format!("{option}=")));
        if !given("--inf") {
            more.extend(setup.inf.iter().map(|inf| format!("--inf={}", inf.display())));
        }
        if !given("--device") {
            more.extend(setup.devices.iter().chain(&self.device).map(|device| format!("--device={device}")));
        }
        let platform = setup.platform();
        if platform != Platform::default() {
            more.push(format!("--platform={platform}"));
        }
        more.extend(exercise.more.iter().cloned());
        let processors = exercise.processors.max(setup.processors);
        if processors > 1 {
            more.push(format!("--processors={processors}"));
        }
        if found.shown.option != "--policy=default" {
            more.push(found.shown.option.clone());
        }
        if !script.is_empty() {
            more.push(format!("--do={script}"));
        }
        let words = words.iter().filter(|word| !FLAGS.contains(&word.as_str())).cloned();
        let mut words: Vec<String> = words.chain(more).collect();
        command.clone_into(&mut words[1]);
        words
    }

    fn as_text(&self) -> String {
        let line = |label: &str, text: &str| format!("  {label:<13}{text}\n");
        let mut text = String::new();
        for entry in self.entries() {
            let field = |name: &str| entry.finding[name].as_str();
            text += &format!("{}: {}\n", entry.tier, entry.rule);
            text += &line("what", &entry.message);
            if let Some(check) = entry.finding["bug_check"]["name"].as_str() {
                let code = entry.finding["bug_check"]["code"].as_str().unwrap_or_default();
                text += &line("bug check", &format!("{check} ({code})"));
            }
            for (label, name) in [("page", "page"), ("mend", "remedy")] {
                text += &field(name).map(|value| line(label, value)).unwrap_or_default();
            }
            text += &innermost(&entry.finding).map(|place| line("instruction", &place)).unwrap_or_default();
            for (what, _, place) in entry.moments() {
                text += &line("moment", &format!("{what}: {place}"));
            }
            for (label, elsewhere) in entry.elsewhere() {
                text += &line(label, &elsewhere);
            }
            text += &line("shown by", &entry.shown_by);
            text += &line("attempts", &format!("{} of {}", entry.attempts, self.attempts));
            text += &line("replay", &entry.replay);
            text.push('\n');
        }
        for (entry, by) in self.dismissed() {
            text += &format!("dismissed: {}{}: {}  ({})\n", entry.rule, entry.at(), by.reason, by.source);
        }
        text += &self.advice_by_rule();
        for one in self.idle.iter().filter(|one| one.place.is_some()) {
            text += &format!("note: {}: nothing was found that this dismisses\n", one.source);
        }
        for why in &self.no_answers {
            text += &format!("no answer: {why}\n");
        }
        text + &self.summary() + &self.reached()
    }

    /// A line for each rule of which there is advice, with the first of its places: advice makes nothing fail, and a driver may have much of it.
    fn advice_by_rule(&self) -> String {
        let mut places: BTreeMap<&str, Vec<Entry<'_>>> = BTreeMap::new();
        for entry in self.advice() {
            places.entry(entry.rule).or_default().push(entry);
        }
        let line = |(rule, entries): (&str, Vec<Entry<'_>>)| {
            let mend = entries[0].finding["remedy"].as_str().unwrap_or_default();
            let more = match entries.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more place{}", plural(more)),
            };
            format!("advice: {rule}{}{more}: {mend}\n", entries[0].at())
        };
        places.into_iter().map(line).collect()
    }

    /// How much of the driver's code was reached, and which functions were not.
    fn reached(&self) -> String {
        let (reached, all) = self.coverage.instructions();
        if all == 0 {
            return String::new();
        }
        let missed: Vec<&str> = self.coverage.missed().map(|function| function.name.as_str()).collect();
        let more = missed.len().saturating_sub(SHOWN_MISSED);
        let names = missed.iter().take(SHOWN_MISSED).copied().collect::<Vec<_>>().join(", ");
        let never = match (missed.len(), more) {
            (0, _) => "every function was come to".to_owned(),
            (_, 0) => format!("never come to: {names}"),
            _ => format!("never come to: {names} and {more} more (--html, --lcov)"),
        };
        let with_reasons =
            self.coverage.missed().filter_map(|function| Some((&function.name, function.why.as_ref()?)));
        let reasons: String =
            with_reasons.take(SHOWN_MISSED).map(|(name, why)| format!("  {name}: {why}\n")).collect();
        format!("code reached: {reached} of {all} instructions; {never}\n{reasons}")
    }

    pub(super) fn summary(&self) -> String {
        let Self { survey, exercises, found, attempts, failed, .. } = self;
        let driver = self.arguments.setup.driver.display();
        let requests = survey.operations.iter().filter(|one| !one.variant).count();
        let offers = format!(
            "{} name{}, {} request{}, {} device{}",
            survey.names.len(),
            plural(survey.names.len()),
            requests,
            plural(requests),
            survey.devices.len(),
            plural(survey.devices.len()),
        );
        let verdict = match found.len() {
            0 if self.no_answers.is_empty() => "nothing is wrong by these".to_owned(),
            0 => "no answer".to_owned(),
            1 => "1 thing is wrong".to_owned(),
            n => format!("{n} things are wrong"),
        };
        let longer = match self.exit_code() {
            0 => format!("; {}", self.extent.longer(self.arguments.budget * 10)),
            _ => self.left_out(),
        };
        let chosen = if self.arguments.exercise.is_empty() { "" } else { " (--exercise)" };
        let ready = match survey.ready {
            true => "",
            false => "the driver is not ready after its start, so nothing was tried but that; ",
        };
        format!(
            "{driver}: {offers}; {ready}{} exercise{}{chosen}, {attempts} attempts, in {failed} of which a call failed that may: {verdict}{longer}\n",
            exercises.len(),
            plural(exercises.len())
        )
    }

    fn left_out(&self) -> String {
        match self.left_out {
            0 => String::new(),
            count => format!("; {count} job{} left out (--until)", plural(count)),
        }
    }

    /// A place, and in `also` what it shows as besides.
    fn entry_json(&self, entry: &Entry<'_>) -> Value {
        let mut finding = entry.finding.clone();
        finding["exercise"] = self.exercises[entry.exercise].title.clone().into();
        finding["attempts"] = entry.attempts.into();
        finding["script"] = entry.script.clone().into();
        finding["replay"] = entry.replay.clone().into();
        finding["departures"] = entry.departures.into();
        finding["also"] = entry.also.iter().map(|also| self.entry_json(also)).collect();
        finding
    }

    fn as_json(&self) -> Value {
        let entries = self.entries();
        let causes = entries.iter().map(|entry| {
            let mut finding = self.entry_json(entry);
            let places = entry.more.iter().map(|place| self.entry_json(place));
            finding["places"] = places.collect();
            finding
        });
        let dismissed = self.dismissed().map(|(entry, by)| {
            let Entry { finding, replay, .. } = entry;
            json!({"reason": by.reason, "by": by.source, "finding": finding, "replay": replay})
        });
        let advice = self.advice().map(|entry| self.entry_json(&entry));
        let idle = self.idle.iter().map(|one| one.source.as_str());
        let (reached, instructions) = self.coverage.instructions();
        let missed: Vec<&str> = self.coverage.missed().map(|function| function.name.as_str()).collect();
        let why = self
            .coverage
            .missed()
            .filter_map(|function| Some((function.name.clone(), function.why.clone()?.into())));
        let why: serde_json::Map<String, Value> = why.collect();
        let exercises =
            self.exercises.iter().map(|exercise| json!({"title": exercise.title, "script": exercise.script}));
        json!({
            "driver": self.arguments.setup.driver,
            "exit_code": self.exit_code(),
            "findings": causes.collect::<Value>(),
            "dismissed": dismissed.collect::<Value>(),
            "advice": advice.collect::<Value>(),
            "dismisses_nothing": idle.collect::<Value>(),
            "no_answers": self.no_answers,
            "attempts": self.attempts,
            "jobs_left_out": self.left_out,
            "extent": {
                "searches": self.extent.searches,
                "searches_cut": self.extent.cut,
                "exercises_with_seeds": self.extent.seeded,
                "calls_not_failed": self.extent.spared,
            },
            "calls_failed": self.failed,
            "coverage": {"reached": reached, "instructions": instructions, "functions_missed": missed, "why_missed": why},
            "survey": self.survey,
            "exercises": exercises.collect::<Value>(),
        })
    }
}

fn dismissal(found: &Found) -> Option<&Dismissal> {
    match &found.cause.aside {
        Some(Aside::Dismissed(by)) => Some(by),
        _ => None,
    }
}

fn times(count: usize) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// By what an attempt departs from the usual.
fn how(replay: &str) -> String {
    let Some(policy) = replay.strip_prefix("--policy=") else {
        let departures = replay.split(SEPARATOR).count();
        return format!(", in an order that departs from the usual {}", times(departures));
    };
    match policy.split_once(':') {
        None => String::new(),
        Some(("fail", numbers)) => match numbers.split_once(',') {
            None => format!(", where call {numbers} of those that may fail does"),
            Some((first, "2")) => format!(", where calls {first} and the next of those that may fail do"),
            Some((first, _)) => {
                format!(", where all calls that may fail do from the one of number {first} on")
            }
        },
        Some(("pair", numbers)) => {
            let (one, other) = numbers.split_once(',').unwrap_or((numbers, ""));
            format!(", where calls {one} and {other} of those that may fail do")
        }
        Some(("scarce", _)) => format!(", where calls fail at random ({policy})"),
        Some(_) => format!(", in the order of {policy}"),
    }
}
