//! Which requests that wait end as the handle is closed through which they were made.
//!
//! Page: *DispatchCleanup Routines*.

use super::super::exercise::{closed_with, opened_behind};
use super::asking::Asking;
use super::company::waiting;
use super::known::Known;
use super::{needed_before, usual};
use crate::error::Error;
use crate::machine::Machine;
use crate::play::ScriptText;

/// What takes longer does not end by the closing, but by a time limit or not at all: 50 ms, in nanoseconds.
const SOON: u64 = 50_000_000;

impl Asking<'_> {
    /// Which do, each made alone.
    pub(super) fn ended_by_closing(&mut self, known: &[Known]) -> Result<Vec<usize>, Error> {
        let mut ended = Vec::new();
        for (place, _) in waiting(known) {
            let needed = needed_before([place], |place| known[place].operation.needs);
            let command = |place: usize| known[place].operation.command.as_str();
            let opened = opened_behind(&self.name, needed.into_iter().map(|place| (place, command(place))));
            let script = closed_with(&opened, &[command(place)]);
            let play = ScriptText::typed(&script).play().expect("it is a script");
            let perform = |machine: &Machine| {
                let begun = machine.now();
                machine.perform(Some(play));
                machine.now() - begun
            };
            let (took, report) = self.boots.boot_to_script(usual(), perform)?;
            if took < SOON && report.verdict.is_none() {
                ended.push(place);
            }
        }
        Ok(ended)
    }
}
