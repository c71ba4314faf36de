//! What a check has come to: each cause once, with the shortest thing that shows it and the line that makes it again.

use dirql::check::{Cause, Exercise, Survey};
use serde_json::{Value, json};

use super::JobResult;
use super::worker::Shown;
use crate::again::{self, quoted};
use crate::arguments::Check;
use crate::out::say;
use crate::{NO_ANSWER, terminal};

/// Options of `dirql check` that other commands do not have, each with a value.
const IN_CHECK_ONLY: [&str; 6] = ["budget", "workers", "do", "script", "processors", "verifier"];
/// The same, without.
const FLAGS: [&str; 2] = ["--json", "--quiet"];

/// Something that is wrong, and what shows it.
pub(super) struct Found {
    pub(super) cause: Cause,
    /// What makes an attempt again that has shown it.
    pub(super) shown: Shown,
    /// The exercise of that attempt.
    pub(super) exercise: usize,
    /// How many attempts of its job have shown it.
    pub(super) attempts: u64,
}

/// What the check has come to.
pub(super) struct Report<'a> {
    arguments: &'a Check,
    /// What dirql has chosen for the driver, as options.
    device: Option<String>,
    survey: &'a Survey,
    exercises: &'a [Exercise],
    found: Vec<Found>,
    attempts: u64,
    failed: u64,
    no_answers: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        arguments: &'a Check,
        device: Option<String>,
        survey: &'a Survey,
        exercises: &'a [Exercise],
        results: Vec<JobResult>,
    ) -> Self {
        let (mut found, mut no_answers): (Vec<Found>, Vec<String>) = (Vec::new(), Vec::new());
        let (mut attempts, mut failed) = (0, 0);
        for result in results {
            attempts += result.attempts;
            failed += result.failed;
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
        if let Some(why) = survey.failure.as_ref().filter(|_| found.is_empty()) {
            no_answers
                .push(format!("the driver is not ready after its start, so only that was tried: {why}"));
        }
        Self { arguments, device, survey, exercises, found, attempts, failed, no_answers }
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

    /// The command that makes the first attempt again which has shown it.
    fn replay(&self, found: &Found) -> String {
        let exercise = &self.exercises[found.exercise];
        let command = if found.shown.option.starts_with("--policy") { "run" } else { "explore" };
        let mut more = vec!["--verifier".to_owned(), "--rules=all".to_owned()];
        let setup = &self.arguments.setup;
        let words = again::command(&IN_CHECK_ONLY, &[]);
        let given =
            |option: &str| words.iter().any(|word| word == option || word.starts_with(&format!("{option}=")));
        if !given("--inf") {
            more.extend(setup.inf.iter().map(|inf| format!("--inf={}", inf.display())));
        }
        if !given("--device") {
            more.extend(setup.devices.iter().chain(&self.device).map(|device| format!("--device={device}")));
        }
        let processors = exercise.processors.max(setup.processors);
        if processors > 1 {
            more.push(format!("--processors={processors}"));
        }
        if found.shown.option != "--policy=default" {
            more.push(found.shown.option.clone());
        }
        if !found.shown.script.is_empty() {
            more.push(format!("--do={}", found.shown.script));
        }
        let words = words.iter().filter(|word| !FLAGS.contains(&word.as_str())).cloned();
        let mut words: Vec<String> = words.chain(more).collect();
        command.clone_into(&mut words[1]);
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }

    fn as_text(&self) -> String {
        let line = |label: &str, text: &str| format!("  {label:<13}{text}\n");
        let mut text = String::new();
        for found in &self.found {
            let finding: Value = serde_json::from_str(&found.cause.finding).unwrap_or_default();
            let field = |name: &str| finding[name].as_str().map(str::to_owned);
            text += &format!("{}: {}\n", found.cause.tier, found.cause.rule);
            text += &line("what", &field("message").unwrap_or_default());
            if let Some(check) = finding["bug_check"]["name"].as_str() {
                let code = finding["bug_check"]["code"].as_str().unwrap_or_default();
                text += &line("bug check", &format!("{check} ({code})"));
            }
            for (label, name) in [("page", "page"), ("mend", "remedy")] {
                text += &field(name).map(|value| line(label, &value)).unwrap_or_default();
            }
            let place = &finding["stack"][0];
            if let Some(symbol) = place["symbol"].as_str() {
                let source =
                    place["source"].as_str().map(|source| format!("  ({source})")).unwrap_or_default();
                text += &line("instruction", &format!("{symbol}{source}"));
            }
            text += &line(
                "shown by",
                &format!("{}{}", self.exercises[found.exercise].title, how(&found.shown.option)),
            );
            text += &line("attempts", &format!("{} of {}", found.attempts, self.attempts));
            text += &line("replay", &self.replay(found));
            text.push('\n');
        }
        for why in &self.no_answers {
            text += &format!("no answer: {why}\n");
        }
        text + &self.summary()
    }

    fn summary(&self) -> String {
        let Self { survey, exercises, found, attempts, failed, .. } = self;
        let driver = self.arguments.setup.driver.display();
        let offers = format!(
            "{} name{}, {} request{}, {} device{}",
            survey.names.len(),
            plural(survey.names.len()),
            survey.operations.len(),
            plural(survey.operations.len()),
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
            0 => format!("; --budget {} tries more schedules of each", self.arguments.budget * 10),
            _ => String::new(),
        };
        format!(
            "{driver}: {offers}; {} exercises, {attempts} attempts, in {failed} of which a call failed that may: {verdict}{longer}\n",
            exercises.len()
        )
    }

    fn as_json(&self) -> Value {
        let causes = self.found.iter().map(|found| {
            let mut finding: Value = serde_json::from_str(&found.cause.finding).unwrap_or_default();
            finding["exercise"] = self.exercises[found.exercise].title.clone().into();
            finding["attempts"] = found.attempts.into();
            finding["script"] = found.shown.script.clone().into();
            finding["replay"] = self.replay(found).into();
            finding
        });
        let exercises =
            self.exercises.iter().map(|exercise| json!({"title": exercise.title, "script": exercise.script}));
        json!({
            "driver": self.arguments.setup.driver,
            "exit_code": self.exit_code(),
            "findings": causes.collect::<Value>(),
            "no_answers": self.no_answers,
            "attempts": self.attempts,
            "calls_failed": self.failed,
            "survey": self.survey,
            "exercises": exercises.collect::<Value>(),
        })
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// By what an attempt departs from the usual.
fn how(replay: &str) -> String {
    let Some(policy) = replay.strip_prefix("--policy=") else {
        return ", in a schedule that a search has found".to_owned();
    };
    match policy.split_once(':') {
        None => String::new(),
        Some(("fail", numbers)) => match numbers.split_once(',') {
            None => format!(", where call {numbers} of those that may fail does"),
            Some((first, _)) => {
                format!(", where all calls that may fail do from the one of number {first} on")
            }
        },
        Some(_) => format!(", in the order of {policy}"),
    }
}
