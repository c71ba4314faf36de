//! The fewest departures from the usual by which a script still shows a cause: of those that a policy's run has made, as many are left out as can be.
//!
//! A seed of `random` departs from the usual a hundred times, and two of these may matter: those say why it happens. They are found as commands are
//! ([`super::shrink`]), but for the numbers: what is left out changes what is asked behind it, so what a shorter run has departed by is what is left.

use std::cell::RefCell;
use std::rc::Rc;

use engine::Chooser;
use explore::{Choice, Choices, Recorder, Replay};

use super::shrink::{Decided, Shown, boots_worth, has, play};
use crate::error::Error;
use crate::machine::Boots;
use crate::play::Play;
use crate::report::HANGS;

/// So many boots at most for one cause.
const MOST_BOOTS: u32 = 120;
/// A line with more departures than these says no more than the policy's name.
const FEW: usize = 8;

/// Those of `shown`, if they are few. None where there is nothing to be left out: no script, one call that fails, the usual, what a search has found.
///
/// # Errors
/// As [`Boots::boot`].
pub fn fewest_departures(boots: &mut Boots, shown: &Shown, key: &str) -> Result<Option<Choices>, Error> {
    let Shown { script, decided: Decided::By(policy) } = shown else { return Ok(None) };
    let is_one_call = policy.failing_calls().is_some_and(|(_, count)| count == 1);
    // A driver that hangs takes seconds each time.
    if script.is_empty() || shown.decided.is_usual() || is_one_call || key.starts_with(HANGS) {
        return Ok(None);
    }
    let Ok(Some(play)) = play(script) else { return Ok(None) };
    let mut runs = Runs { boots, play, key, left: MOST_BOOTS };
    let Some(mut kept) = runs.departures(policy.chooser())? else { return Ok(None) };
    let mut chunk = kept.len().div_ceil(2);
    while chunk > 0 && runs.left > 0 {
        let mut at = 0;
        while at < kept.len() && runs.left > 0 {
            let rest = kept.iter().take(at).chain(kept.iter().skip(at + chunk));
            let fewer = runs.departures(following(rest.cloned()))?.filter(|made| made.len() < kept.len());
            match fewer {
                Some(fewer) => kept = fewer,
                None => at += chunk,
            }
        }
        chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
    }
    Ok((kept.len() <= FEW).then(|| collected(kept)))
}

/// Departs from the usual by these, where they are asked.
fn following(choices: impl Iterator<Item = Choice>) -> Box<dyn Chooser> {
    Box::new(Replay::new(collected(choices)))
}

fn collected(all: impl IntoIterator<Item = Choice>) -> Choices {
    all.into_iter().fold(Choices::default(), |mut choices, choice| {
        choices.insert(choice);
        choices
    })
}

struct Runs<'r> {
    boots: &'r mut Boots,
    play: Play,
    key: &'r str,
    left: u32,
}

impl Runs<'_> {
    /// What a run has departed by that decides so. None if it does not show the cause.
    fn departures(&mut self, chooser: Box<dyn Chooser>) -> Result<Option<Vec<Choice>>, Error> {
        let made = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&made);
        let recorder = Recorder::new(chooser, move |choice| log.borrow_mut().push(choice));
        let play = Some(self.play.clone());
        let ((), report) = self.boots.boot(Box::new(recorder), |machine| machine.perform(play))?;
        self.left = self.left.saturating_sub(boots_worth(&report));
        Ok(has(&report, self.key).then(|| made.take()))
    }
}
