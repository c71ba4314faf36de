//! Which requests that wait end as the handle is closed through which they were made.
//!
//! Page: *DispatchCleanup Routines*.

use super::super::exercise::closed_with;
use super::asking::Asking;
use super::company::waiting;
use super::known::Known;
use super::{needed_before, usual};
use crate::error::Error;
use crate::machine::Machine;
use crate::play::ScriptText;

/// The rule about one that does not end.
const FORGOTTEN: &str = "request-forgotten";

impl Asking<'_> {
    /// Which do, each made alone.
    pub(super) fn ended_by_closing(&mut self, known: &[Known]) -> Result<Vec<usize>, Error> {
        let mut ended = Vec::new();
        for (place, _) in waiting(known) {
            let needed = needed_before([place], |place| known[place].operation.needs);
            let command = |place: usize| known[place].operation.command.as_str();
            let needed: Vec<&str> = needed.into_iter().map(command).collect();
            let script = closed_with(&self.name, &needed, &[command(place)]);
            let play = ScriptText::typed(&script).play().expect("it is a script");
            let perform = |machine: &Machine| machine.perform(Some(play));
            let (_, report) = self.boots.boot_to_script(usual(), perform)?;
            let is_forgotten = report.findings.iter().any(|finding| finding.rule == FORGOTTEN);
            if !is_forgotten && report.verdict.is_none() {
                ended.push(place);
            }
        }
        Ok(ended)
    }
}
