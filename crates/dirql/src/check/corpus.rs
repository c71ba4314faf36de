//! What a search by coverage has kept for later ones: scripts read back as the sequences of requests that they were, and which of a search's are worth
//! keeping beside those that are known.

use super::exercise::KeptSequence;
use super::inputs;
use super::survey::Survey;
use crate::error::Error;
use crate::machine::Boots;
use crate::machine::sequences::{Deed, Poke, Step};
use crate::machine::transfer::Transfer;
use crate::script::{self, Command, Operation, Request, Statement, WmiQuestion};

/// A script as [`super::inputs`] writes them, as the sequence that it was; none if it does what these do not.
pub(super) fn sequence(script: &str) -> Option<Vec<Step>> {
    let script = script::parse("a kept sequence", script).ok()?;
    let mut steps = Vec::new();
    // Of which request the last one was left: `l2` of `l2x0`.
    let mut left = None;
    for Statement { thread, command, .. } in &script.statements {
        let same = left.take();
        match command {
            _ if thread.is_some() => return None,
            Command::Open(open) => drop(is_other(&open.handle)?),
            Command::Request { request, .. } => steps.push(step(request)?),
            Command::Async { name, request, apc: false } => {
                let one = step(request)?;
                left = name.split_once('x').map(|(of, _)| of.to_owned()).filter(|of| of.starts_with('l'));
                match (&left, steps.last_mut(), one.deed) {
                    (None, _, deed) => steps.push(Step { deed, ..one }),
                    (Some(_), Some(Step { deed: Deed::Leave(_, times), .. }), _) if left == same => {
                        *times += 1
                    }
                    (Some(_), _, Deed::Ask(request)) => {
                        steps.push(Step { deed: Deed::Leave(request, 1), ..one });
                    }
                    _ => return None,
                }
            }
            Command::Close { handle } => steps.push(Step { on_other: is_other(handle)?, deed: Deed::Close }),
            Command::Poke { device, signal, value } => {
                let poke = Poke { device: device.clone(), signal: signal.clone(), value: *value };
                steps.push(Step { on_other: false, deed: Deed::Poke(vec![poke]) });
            }
            Command::Wmi(wmi) if wmi.question == WmiQuestion::Enable => {}
            Command::Tolerate | Command::Wait { .. } | Command::Cancel(_) | Command::JoinRequest { .. } => {}
            _ => return None,
        }
    }
    // The handles are closed in any case.
    let end = steps.iter().rposition(|step| step.deed != Deed::Close)?;
    steps.truncate(end + 1);
    Some(steps)
}

/// Whether that is the second handle.
fn is_other(handle: &str) -> Option<bool> {
    inputs::HANDLES.iter().position(|name| *name == handle).map(|at| at == 1)
}

fn step(Request { handle, operation, input, output }: &Request) -> Option<Step> {
    if input.is_some() || output.is_some() {
        return None;
    }
    let request = match operation {
        Operation::Read { length, offset } => Transfer::Read { length: *length, offset: *offset },
        Operation::Write { data, offset } => {
            Transfer::Write { data: data.known()?.to_vec().into(), offset: *offset }
        }
        Operation::Ioctl { code, input, output } => {
            let input = match input {
                Some(data) => data.known()?.to_vec(),
                None => Vec::new(),
            };
            Transfer::Control { code: *code, input: input.into(), output: *output }
        }
        _ => return None,
    };
    Some(Step { on_other: is_other(handle)?, deed: Deed::Ask(request) })
}

/// Of the scripts that a search has kept, those that are to be kept beside what is known: from the last one on, each that comes to code to which neither
/// what is known nor a request alone nor one kept before has come, and each that shows something wrong.
///
/// # Errors
/// As [`Boots::boot`].
pub fn worth_keeping(
    boots: &mut Boots,
    survey: &Survey,
    known: &[KeptSequence],
    scripts: &[String],
) -> Result<Vec<String>, Error> {
    let Some(name) = survey.names.first().filter(|_| !scripts.is_empty()) else { return Ok(Vec::new()) };
    let found = boots.try_sequences(name, &survey.blocks, |trial| {
        for steps in known.iter().filter_map(|known| sequence(&known.script)).chain(inputs::alone(survey)) {
            trial.run(&steps)?;
        }
        let mut kept = Vec::new();
        for script in scripts.iter().rev() {
            let Some(steps) = sequence(script) else { continue };
            let came = trial.run(&steps)?;
            if came.new_code || !came.wrong.is_empty() {
                kept.push(script.clone());
            }
        }
        kept.reverse();
        Ok(kept)
    })?;
    Ok(found.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_search_has_written_is_read_back() {
        let ask = |length| Transfer::Control { code: 0x22_2000, input: vec![1; length].into(), output: 8 };
        let step = |on_other, deed| Step { on_other, deed };
        let poke = Poke { device: "edu#0".to_owned(), signal: "late".to_owned(), value: 1 };
        let steps = [
            step(false, Deed::Ask(ask(0))),
            step(true, Deed::Ask(Transfer::Read { length: 4, offset: Some(16) })),
            step(true, Deed::Leave(Transfer::Write { data: vec![7; 3].into(), offset: None }, 3)),
            step(true, Deed::Leave(ask(2), 1)),
            step(true, Deed::Close),
            step(false, Deed::Poke(vec![poke])),
            step(false, Deed::Ask(Transfer::Write { data: Vec::new().into(), offset: Some(u64::MAX) })),
        ];
        let script = inputs::script(r"\\.\D", &[], &steps, &[]);
        assert_eq!(sequence(&script).as_deref(), Some(&steps[..]), "{script}");
        let closed_first = inputs::script(r"\\.\D", &[], &steps[..5], &[]);
        assert_eq!(sequence(&closed_first).as_deref(), Some(&steps[..4]), "{closed_first}");
    }

    #[test]
    fn what_a_sequence_does_not_do_is_none() {
        for script in
            ["start pci#0", "t: close h", "open D as j; read j 4", "read h 4 into memory m", "clock +1s"]
        {
            assert_eq!(sequence(script), None, "{script}");
        }
    }
}
