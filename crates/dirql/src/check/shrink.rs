//! The shortest script that still shows a cause: commands are left out, and requests made simpler, as long as what is left shows the same.
//!
//! Delta debugging (Zeller, Hildebrandt: *Simplifying and Isolating Failure-Inducing Input*): first halves are left out, then quarters, and in the end
//! single commands. A call that fails has an earlier number in a shorter script, a seed says something else there, and what a search has departed by is
//! asked elsewhere: all are looked for anew. What is left is made simpler last: a request without bytes that do not matter ([`super::simpler`]).

use explore::{Bounds, Choices, Policy, Replay};

use super::campaign::{NEVER_ENDS, PULLED};
use super::simpler::simpler;
use crate::error::{Error, InputError};
use crate::machine::{Boots, Machine};
use crate::play::{Play, ScriptText};
use crate::report::{HANGS, Report};

/// So many boots at most for one cause.
const MOST_BOOTS: u32 = 400;
/// A boot of so many events counts as two, and so on.
const EVENTS: u64 = 25_000;
/// So many boots at most for a driver that hangs: each takes seconds.
const MOST_HANGS: u32 = 12;
/// So many other seeds are tried with a shorter script.
const SEEDS: u64 = 6;
/// So many numbers of calls that fail are tried with a shorter script.
const CALLS: u64 = 24;
/// So many schedules of a shorter script are searched for what a search has found.
const SEARCHED: u64 = 40;
/// How many preemptions a schedule of a search has at most.
const PREEMPTIONS: usize = 2;
/// So many boots more at most to make requests simpler.
const MOST_SIMPLER: u32 = 200;

/// Rules of requests that must have ended, succeeded in time, or given their own answers, and of those that must last.
const OWED: [&str; 7] = [
    "answer-of-another",
    "number-given-twice",
    "request-depends-on-uptime",
    "request-ended-early",
    "request-forgotten",
    "request-refused",
    "request-timed-out",
];

/// The rule of requests that end otherwise than behind the same ones in another computer: without one of them they may do so in either.
const BEHIND_THE_SAME: &str = "request-depends-on-uptime";

/// What shows a cause.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The script, as `--do` has it.
    pub script: String,
    /// What departs from the usual.
    pub decided: Decided,
}

/// How the choices of a run are made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decided {
    /// By a policy.
    By(Policy),
    /// As usual but for these, as a search has found them.
    But(Choices),
}

impl Decided {
    pub(super) fn is_usual(&self) -> bool {
        *self == Self::By(Policy::default())
    }
}

/// Makes `shown` as short as it can be while a run of it has the cause of this key. With no script there is nothing to be left out.
///
/// # Errors
/// As [`Boots::boot`].
pub fn shrink(boots: &mut Boots, shown: &Shown, key: &str) -> Result<Shown, Error> {
    if key.starts_with(BEHIND_THE_SAME) {
        return Ok(shown.clone());
    }
    let left = if key.starts_with(HANGS) { MOST_HANGS } else { MOST_BOOTS };
    let mut shrinking = Shrinking { boots, key, left };
    let mut best = shown.clone();
    // What needs no departure is made shorter sooner: each try is one boot.
    shrinking.leave_policy_out(&mut best)?;
    // Requests one after the other first, and then what they are made of: there may be hundreds.
    let requests = shrinking.left_out(&mut best, requests(commands(&shown.script)))?;
    let single = requests.into_iter().flatten().map(|command| vec![command]).collect();
    let commands = shrinking.left_out(&mut best, single)?;
    shrinking.leave_policy_out(&mut best)?;
    // With other inputs a request may be one that need not end.
    let may_wait = OWED.iter().chain(&NEVER_ENDS).any(|rule| key.starts_with(rule));
    if !may_wait && !key.starts_with(HANGS) {
        shrinking.left = MOST_SIMPLER;
        shrinking.simpler(&mut best, commands.concat())?;
    }
    Ok(best)
}

struct Shrinking<'s> {
    boots: &'s mut Boots,
    key: &'s str,
    left: u32,
}

impl Shrinking<'_> {
    /// What stays of these parts of `best`'s script, which becomes the script of those.
    fn left_out(&mut self, best: &mut Shown, parts: Vec<Vec<String>>) -> Result<Vec<Vec<String>>, Error> {
        let mut parts = parts;
        let mut chunk = parts.len().div_ceil(2);
        while chunk > 0 && self.left > 0 {
            let mut at = 0;
            while at < parts.len() && self.left > 0 {
                let end = (at + chunk).min(parts.len());
                let fewer: Vec<Vec<String>> = parts[..at].iter().chain(&parts[end..]).cloned().collect();
                let shorter = match self.may_go(&parts[at..end]) {
                    true => self.shows(&fewer.concat().join("; "), &best.decided)?,
                    false => None,
                };
                match shorter {
                    Some(shorter) => {
                        *best = shorter;
                        parts = fewer;
                    }
                    None => at = end,
                }
            }
            chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
        }
        Ok(parts)
    }

    /// Whether these may be left out: without what happens outside of a card, or a card that is pulled, a request may have nothing to end by.
    fn may_go(&self, parts: &[Vec<String>]) -> bool {
        let has =
            |word: &str| parts.iter().flatten().any(|command| command.split(' ').any(|one| one == word));
        let is_one = |rules: &[&str]| rules.iter().any(|rule| self.key.starts_with(rule));
        !(is_one(&OWED) && has("poke") || is_one(&NEVER_ENDS) && has(PULLED))
    }

    /// Without a policy, if that shows it, too.
    fn leave_policy_out(&mut self, best: &mut Shown) -> Result<(), Error> {
        if !best.decided.is_usual()
            && let Some(usual) = self.shows(&best.script, &Decided::By(Policy::default()))?
        {
            *best = usual;
        }
        Ok(())
    }

    /// Each of these commands, of which `best` consists, in its simplest form.
    fn simpler(&mut self, best: &mut Shown, commands: Vec<String>) -> Result<(), Error> {
        let mut commands = commands;
        for at in 0..commands.len() {
            let simplest = simpler(&commands[at], |form| {
                let (before, behind) = (&commands[..at], &commands[at + 1..]);
                let script = [before, &[form.to_owned()], behind].concat().join("; ");
                let Ok(play) = play(&script) else { return Ok(false) };
                let is_shown = self.is_shown(&play, &best.decided)?;
                if is_shown {
                    best.script = script;
                }
                Ok(is_shown)
            })?;
            commands[at] = simplest;
        }
        Ok(())
    }

    /// The script with what departs from the usual so that it has the cause, if there is something near `decided`.
    fn shows(&mut self, script: &str, decided: &Decided) -> Result<Option<Shown>, Error> {
        // What cannot be read any more is no script: a name is used that is given nowhere.
        let Ok(play) = play(script) else { return Ok(None) };
        let decided = match decided {
            Decided::By(policy) => self.shows_near(&play, *policy)?.map(Decided::By),
            Decided::But(choices) => self.is_found(&play, choices)?.map(Decided::But),
        };
        Ok(decided.map(|decided| Shown { script: script.to_owned(), decided }))
    }

    /// The first of the policies near this one by which it has the cause.
    fn shows_near(&mut self, play: &Option<Play>, policy: Policy) -> Result<Option<Policy>, Error> {
        for policy in near(policy) {
            if self.is_shown(play, &Decided::By(policy))? {
                return Ok(Some(policy));
            }
        }
        Ok(None)
    }

    /// What a search departs by that finds the cause, if not these do.
    fn is_found(&mut self, play: &Option<Play>, choices: &Choices) -> Result<Option<Choices>, Error> {
        if self.is_shown(play, &Decided::But(choices.clone()))? {
            return Ok(Some(choices.clone()));
        }
        let Some(play) = play else { return Ok(None) };
        let bounds = search_bounds(SEARCHED.min(self.left.into()));
        if bounds.schedules == 0 {
            return Ok(None);
        }
        let key = self.key;
        let searched = self.boots.search(play, &bounds, |report| has(report, key))?;
        self.left = self.left.saturating_sub(u32::try_from(searched.total()).unwrap_or(u32::MAX));
        Ok(searched.found.map(|(choices, _)| choices))
    }

    /// Whether it has the cause where it is decided so. It has not if nothing more may be tried.
    fn is_shown(&mut self, play: &Option<Play>, decided: &Decided) -> Result<bool, Error> {
        if self.left == 0 {
            return Ok(false);
        }
        let act = |machine: &Machine| machine.perform(play.clone());
        let ((), report) = match decided {
            Decided::By(policy) => self.boots.boot_by(*policy, act)?,
            Decided::But(choices) => self.boots.boot(Box::new(Replay::new(choices.clone())), act)?,
        };
        self.left = self.left.saturating_sub(boots_worth(&report));
        Ok(has(&report, self.key))
    }
}

/// So many usual boots have taken as long as this run.
pub(super) fn boots_worth(report: &Report) -> u32 {
    u32::try_from(1 + report.events / EVENTS).unwrap_or(u32::MAX)
}

/// The bounds of a search of so many schedules, of an exercise or of what is left of one.
#[must_use]
pub fn search_bounds(schedules: u64) -> Bounds {
    Bounds {
        preemptions: PREEMPTIONS,
        schedules,
        faults: false,
        shared: true,
        cuts: true,
        instructions: false,
        policy: None,
    }
}

pub(super) fn has(report: &Report, key: &str) -> bool {
    report.causes().iter().any(|cause| cause.key == key)
}

/// A policy, and others that may do the same to a shorter script.
fn near(policy: Policy) -> Vec<Policy> {
    if let Some((call, _)) = policy.failing_calls() {
        let first = call.saturating_sub(CALLS).max(1);
        return (first..=call).rev().filter_map(|call| policy.with_call(call)).collect();
    }
    let others = (1..=SEEDS).filter_map(|seed| policy.with_seed(seed)).filter(|other| *other != policy);
    std::iter::once(policy).chain(others).collect()
}

/// What a script says, as `--do` has it. None if it is empty: the line that makes it again has no script then.
///
/// # Errors
/// As [`ScriptText::play`].
pub fn play(script: &str) -> Result<Option<Play>, InputError> {
    (!script.is_empty()).then(|| ScriptText::typed(script).play()).transpose()
}

/// A script taken apart where `;` stands between commands.
#[must_use]
pub fn commands(script: &str) -> Vec<String> {
    let (mut all, mut command, mut quoted) = (Vec::new(), String::new(), false);
    for letter in script.chars() {
        quoted ^= letter == '"';
        if letter == ';' && !quoted {
            all.push(std::mem::take(&mut command));
        } else {
            command.push(letter);
        }
    }
    all.push(command);
    all.iter().map(|command| command.trim().to_owned()).filter(|command| !command.is_empty()).collect()
}

/// Each request with what ends it (`async r1 …; wait 20ms; cancel r1; join r1`), and all other commands alone.
fn requests(commands: Vec<String>) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    // The request whose part is the last one and has not come to its end.
    let mut open: Option<String> = None;
    for command in commands {
        let mut words = command.split(' ');
        let (verb, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let is_its = open.as_deref().is_some_and(|request| match verb {
            "wait" => true,
            "cancel" | "join" | "must-end" => name == request,
            _ => false,
        });
        let next = match verb {
            "async" => Some(name.to_owned()),
            "join" => None,
            _ if is_its => open.clone(),
            _ => None,
        };
        match parts.last_mut().filter(|_| is_its) {
            Some(part) => part.push(command),
            None => parts.push(vec![command]),
        }
        open = next;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_taken_apart_between_its_commands() {
        let script = r#"tolerate; open "\\.\a;b" as h;; read h 4"#;
        assert_eq!(commands(script), ["tolerate", r#"open "\\.\a;b" as h"#, "read h 4"]);
        assert_eq!(commands(""), Vec::<String>::new());
    }

    #[test]
    fn a_request_and_what_ends_it_are_left_out_together() {
        let script = "open x as h; async a read h 4; wait 1ms; cancel a; join a; async b read h 4; async c read h 4; \
                      join b; join c; close h";
        let parts = requests(commands(script));
        let parts: Vec<String> = parts.iter().map(|part| part.join("; ")).collect();
        let first = "async a read h 4; wait 1ms; cancel a; join a";
        assert_eq!(
            parts,
            ["open x as h", first, "async b read h 4", "async c read h 4", "join b", "join c", "close h"]
        );
    }

    #[test]
    fn earlier_calls_and_other_seeds_are_near() {
        assert_eq!(near(Policy::failing(3)), [3, 2, 1].map(Policy::failing));
        assert_eq!(near(Policy::failing_in_row(2, 2)), [2, 1].map(|call| Policy::failing_in_row(call, 2)));
        let late = |call| Policy::failing(call).at_script();
        assert_eq!(near(late(2)), [2, 1].map(late));
        assert_eq!(near(Policy::default()), [Policy::default()]);
        assert_eq!(near(Policy::random(9))[..2], [Policy::random(9), Policy::random(1)]);
    }
}
