//! `counters`: what a program that shows performance counters asks.

use abi::NtStatus;
use engine::Flow;
use kernel::Cx;
use kernel::pcw::query::{self, Question, Seen};

use super::Stage;
use super::carry::Outcome;
use super::expect::judge;
use crate::machine::Completion;
use crate::script::Counters;

/// Asks the counter sets of a name on the running thread, and holds what comes against what is expected.
pub(super) fn ask(stage: &Stage, cx: &mut Cx<'_>, asked: &Counters) -> Flow<Outcome> {
    let mask = asked.mask.clone().unwrap_or_else(|| "*".to_owned());
    let question = Question { mask, id: asked.id, names_only: asked.names };
    let end = match query::ask(cx, &asked.set, &question)? {
        Ok(seen) => {
            let data: Vec<u8> = seen.iter().flat_map(|one| shown(one, asked.names)).collect();
            Completion { information: data.len() as u64, data, ..Completion::status(NtStatus::SUCCESS) }
        }
        Err(status) => Completion::status(status),
    };
    Ok(judge(&stage.play, &end, &asked.expect))
}

/// An instance in bytes: the values of its counters, or its number and its name with a zero behind it.
fn shown(seen: &Seen, name: bool) -> Vec<u8> {
    if !name {
        return seen.counters.iter().flat_map(|(_, value)| value.clone()).collect();
    }
    let units = seen.name.encode_utf16().chain([0]);
    seen.id.to_le_bytes().into_iter().chain(units.flat_map(u16::to_le_bytes)).collect()
}
