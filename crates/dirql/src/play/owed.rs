//! `must-end`: requests that are to end by themselves, and to succeed unless they fail at once.

use abi::NtStatus;
use engine::Flow;
use kernel::Cx;
use kernel::io::owed;
use kernel::ke::wait;

use super::Stage;
use super::carry::Outcome;
use crate::script::{Command, Name};

/// So long they are waited for, in seconds.
const LONGEST: u64 = 10;
/// A request that was under way so long and then failed has met a time limit: 100 ms, in nanoseconds.
const LATE: u64 = 100_000_000;
/// The first pause between two looks; each is twice as long as the one before.
const PAUSE: u64 = 10_000_000;

/// A request that is waited for.
struct Watched<'n> {
    name: &'n str,
    /// Until when it was seen under way.
    under_way: u64,
    end: Option<NtStatus>,
}

/// Waits until they have ended, and judges those that do not, or late.
pub(super) fn must_end(stage: &Stage, cx: &mut Cx<'_>, names: &[Name]) -> Flow<Outcome> {
    let mut watched: Vec<Watched<'_>> =
        names.iter().map(|name| Watched { name, under_way: 0, end: None }).collect();
    let (mut left, mut pause) = (LONGEST * 1_000_000_000, PAUSE);
    loop {
        look(stage, cx, &mut watched)?;
        if left == 0 || watched.iter().all(|one| one.end.is_some()) {
            break;
        }
        pause = pause.min(left);
        wait::sleep(cx, pause)?;
        left -= pause;
        pause *= 2;
    }
    if !owed::nothing_hinders(cx) {
        return Ok(Ok(()));
    }
    for one in watched {
        judge(stage, cx, &one)?;
    }
    Ok(Ok(()))
}

/// A request that is not there any more, or not yet, has ended for all that is known.
fn look(stage: &Stage, cx: &mut Cx<'_>, watched: &mut [Watched<'_>]) -> Flow<()> {
    let now = owed::time(cx);
    for one in watched.iter_mut().filter(|one| one.end.is_none()) {
        let Some(begun) = stage.with(|state| state.requests.remove(one.name)) else {
            one.end = Some(NtStatus::SUCCESS);
            continue;
        };
        one.end = begun.status(cx)?;
        one.under_way = if one.end.is_none() { now } else { one.under_way.max(begun.returned()) };
        stage.with(|state| state.requests.insert(one.name.to_owned(), begun));
    }
    Ok(())
}

fn judge(stage: &Stage, cx: &mut Cx<'_>, one: &Watched<'_>) -> Flow<()> {
    let found = stage.with(|state| {
        let begun = state.requests.get(one.name)?;
        Some((begun.asked(), begun.overlapped()?.status_block, state.changed))
    });
    let Some((asked, status_block, changed)) = found else { return Ok(()) };
    let what = words(stage, one.name);
    match one.end {
        None => owed::forgotten(cx, status_block, &what, LONGEST)?,
        // What a device was doing when its state changed may well be lost.
        Some(status) if has_failed(status) && one.under_way > asked + LATE && asked >= changed => {
            owed::timed_out(cx, &what, status);
        }
        Some(_) => {}
    }
    Ok(())
}

fn has_failed(status: NtStatus) -> bool {
    status.is_error() || status == NtStatus::TIMEOUT
}

/// The request as the script has it.
fn words(stage: &Stage, name: &str) -> String {
    let script = &stage.play.script;
    let begins =
        |command: &Command| matches!(command, Command::Async { name: known, .. } if **known == *name);
    let statement = script.statements.iter().rev().find(|statement| begins(&statement.command));
    let text = statement.map_or(name, |statement| script.text_of(statement));
    text.split_once(&format!("async {name} ")).map_or(text, |(_, request)| request).to_owned()
}
