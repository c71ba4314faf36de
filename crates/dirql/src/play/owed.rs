//! `must-end`: requests that are to end by themselves, and to succeed unless they fail at once; or that are to end because others were made.
//! `must-succeed`: requests that are to succeed, soon or late. `must-recover`: requests that are to end though a call was made to fail before they were asked for.
//! `must-answer`: a request that is to give its own answer, and not another one's. `must-last`: a request that waits for a time that it is given. `must-be`: a request that ends in
//! the same way however long the computer has been running. `must-differ`: a number that is handed out while another one is in use.

use abi::NtStatus;
use engine::Flow;
use kernel::Cx;
use kernel::io::owed::{self, Ends};
use kernel::ke::wait;

use super::Stage;
use super::carry::Outcome;
use super::request::{self, State};
use crate::script::{Data, Demand, Name};

/// So long they are waited for, in nanoseconds (10 s),
const LONGEST: u64 = 10_000_000_000;
/// and until the timers and waits are over that a driver has set by then, so often, if they are no longer than that (10 min): one of them may end it.
const LIMITS: usize = 3;
const LONGEST_LIMIT: u64 = 600_000_000_000;
/// A request that was under way so long and then failed has met a time limit: 90 ms, in nanoseconds, for limits are 100 ms and more.
const LATE: u64 = 90_000_000;
/// Two ticks of the clock, in nanoseconds.
const TICKS: u64 = 32_000_000;
/// The pause between two looks, so often; then each is twice as long as the one before.
const PAUSE: u64 = 10_000_000;
const FINE_LOOKS: u32 = 50;

/// A request that is waited for.
struct Watched<'n> {
    name: &'n str,
    /// Until when it was seen under way.
    under_way: u64,
    state: State,
}

/// A device or the system was made to change its state.
pub(super) fn changed(stage: &Stage, cx: &mut Cx<'_>) {
    let now = owed::time(cx);
    stage.with(|state| state.changed = now);
}

/// Requests are cancelled.
pub(super) fn cancelled(stage: &Stage, cx: &mut Cx<'_>) {
    let now = owed::time(cx);
    stage.with(|state| state.cancelled = now);
}

/// A handle is closed.
pub(super) fn closed(stage: &Stage, cx: &mut Cx<'_>, handle: &str) {
    let now = owed::time(cx);
    stage.with(|state| state.closed = Some((now, handle.to_owned())));
}

/// The outside world has acted on a card.
pub(super) fn happened(stage: &Stage, cx: &mut Cx<'_>, what: &str) {
    let now = owed::time(cx);
    stage.with(|state| state.happened = Some((now, what.to_owned())));
}

/// Waits until they have ended, and judges those that do not, or late. The outcome names one that has not been made.
///
/// What is to end because those of `behind` were made, or to succeed behind them, is judged if each of them has succeeded. If it is to succeed, it may not fail at once
/// either; behind others that is judged of what ends as they do, and not by a time limit of its own.
pub(super) fn must_end(
    stage: &Stage,
    cx: &mut Cx<'_>,
    requests: &[Name],
    behind: &[Name],
    demand: Demand,
) -> Flow<Outcome> {
    let (mut watched, mut outcome) = (Vec::new(), Ok(()));
    for name in requests {
        match request::state(stage, cx, name)? {
            Ok(state) => watched.push(Watched { name, under_way: state.returned, state }),
            Err(why) => outcome = outcome.and(Err(why)),
        }
    }
    let begun = owed::time(cx);
    let (mut left, mut pause, mut looks) = (LONGEST, PAUSE, 0);
    loop {
        look(stage, cx, &mut watched)?;
        if left == 0 || have_ended(&watched) {
            break;
        }
        pause = pause.min(left);
        wait::sleep(cx, pause)?;
        left -= pause;
        looks += 1;
        pause *= if looks < FINE_LOOKS { 1 } else { 2 };
    }
    for _ in 0..LIMITS {
        if have_ended(&watched) || !wait::sleep_to_last_limit(cx, LONGEST_LIMIT)? {
            break;
        }
        wait::sleep(cx, PAUSE)?;
        look(stage, cx, &mut watched)?;
    }
    let seconds = (owed::time(cx) - begun) / 1_000_000_000;
    let mut succeeded = true;
    for name in behind {
        match request::state(stage, cx, name)? {
            Ok(state) => succeeded &= state.end.is_some_and(|status| !has_failed(status)),
            Err(why) => outcome = outcome.and(Err(why)),
        }
    }
    if succeeded && outcome.is_ok() && owed::nothing_hinders(cx) {
        let ends = behind.last().map(|name| words(stage, name));
        let last_end = last_end(stage, cx, behind)?;
        let refusals = owed::refusals(cx);
        for one in &watched {
            let (first, asked) =
                stage.with(|state| (state.refusals, state.refusals_before.get(one.name).copied()));
            let is_judged = match demand {
                Demand::End => refusals == 0,
                Demand::Succeed => refusals == 0 && (behind.is_empty() || is_soon_behind(cx, one, last_end)),
                // Where the script began without one, and none has failed since it was asked for.
                Demand::Recover => first == 0 && refusals > 0 && asked == Some(refusals),
            };
            if is_judged {
                judge(stage, cx, (one, seconds), ends.as_deref(), demand)?;
            }
        }
    }
    Ok(outcome)
}

/// When the last of these ended, if that is known.
fn last_end(stage: &Stage, cx: &mut Cx<'_>, requests: &[Name]) -> Flow<Option<u64>> {
    let mut last = None;
    for name in requests {
        if let Ok(State { status_block: Some(block), .. }) = request::state(stage, cx, name)? {
            last = last.max(owed::ended_at(cx, block));
        }
    }
    Ok(last)
}

/// Whether it has not ended, or as those before it had, sooner than by any time limit of its own.
fn is_soon_behind(cx: &mut Cx<'_>, one: &Watched<'_>, last_end: Option<u64>) -> bool {
    if one.state.end.is_none() {
        return true;
    }
    let ended = one.state.status_block.and_then(|block| owed::ended_at(cx, block));
    ended.zip(last_end).is_some_and(|(ended, last)| (last..last + LATE).contains(&ended))
}

/// Waits until it has completed, and judges whether what it gave is of one of the others, where it is not its own `answer`.
pub(super) fn must_answer(
    stage: &Stage,
    cx: &mut Cx<'_>,
    name: &str,
    answer: &Data,
    others: &[Data],
) -> Flow<Outcome> {
    let end = match request::taken(stage, cx, name)? {
        Ok(end) => end,
        Err(why) => return Ok(Err(why)),
    };
    let answer = stage.sent(cx, answer);
    let is_of = |other: &Data| is_of_another(&end.data, &answer, &stage.sent(cx, other));
    if end.is_success() && others.iter().any(is_of) {
        owed::mixed_up(cx, &words(stage, name), &answer, &end.data);
    }
    Ok(Ok(()))
}

/// Whether bytes that were given differ from the answer's, and only by what the other one has there.
fn is_of_another(given: &[u8], answer: &[u8], other: &[u8]) -> bool {
    let longest = given.len().max(answer.len());
    let mut differing = (0..longest).filter(|at| given.get(*at) != answer.get(*at)).peekable();
    // One that is only shorter is no other's.
    differing.peek().is_some_and(|at| *at < given.len()) && differing.all(|at| given.get(at) == other.get(at))
}

/// Waits until it has ended or is as old as it `least` becomes, and judges whether it has ended sooner, and as it does when its time is over. Times are as timers
/// have them: so much of one may be over when it begins.
pub(super) fn must_last(
    stage: &Stage,
    cx: &mut Cx<'_>,
    name: &str,
    least: u64,
    status: NtStatus,
) -> Flow<Outcome> {
    let state = loop {
        let state = match request::state(stage, cx, name)? {
            Ok(state) => state,
            Err(why) => return Ok(Err(why)),
        };
        if state.end.is_some() || owed::time(cx) >= state.asked + least {
            break state;
        }
        wait::sleep(cx, PAUSE)?;
    };
    let ended = state.status_block.and_then(|block| owed::ended_at(cx, block)).unwrap_or(state.returned);
    let lasted = ended.saturating_sub(state.asked);
    let is_from_outside = stage.with(|stage| state.asked <= stage.changed.max(stage.cancelled));
    let is_judged = !is_from_outside && is_as_usual(cx);
    if is_judged && state.end == Some(status) && lasted + TICKS < least {
        owed::ended_early(cx, &words(stage, name), status, (lasted, least));
    }
    Ok(Ok(()))
}

/// Judges whether it has this status now, as it has in a computer that was started lately.
pub(super) fn must_be(stage: &Stage, cx: &mut Cx<'_>, name: &str, status: NtStatus) -> Flow<Outcome> {
    let state = match request::state(stage, cx, name)? {
        Ok(state) => state,
        Err(why) => return Ok(Err(why)),
    };
    let end = state.end.unwrap_or(NtStatus::PENDING);
    if end != status && owed::uptime(cx) > 0 && is_as_usual(cx) {
        owed::depends_on_uptime(cx, &words(stage, name), [end, status]);
    }
    Ok(Ok(()))
}

/// Judges whether the numbers of these names, if both are there, differ.
pub(super) fn must_differ(stage: &Stage, cx: &mut Cx<'_>, name: &str, other: &str) -> Outcome {
    let of = |name| stage.with(|state| state.answered.get(name).copied());
    if let Some(number) = of(name).filter(|number| of(other) == Some(*number))
        && is_as_usual(cx)
    {
        owed::given_twice(cx, &words(stage, name), number);
    }
    Ok(())
}

/// Whether nothing keeps drivers from doing what they usually do.
fn is_as_usual(cx: &mut Cx<'_>) -> bool {
    owed::refusals(cx) == 0 && owed::nothing_hinders(cx)
}

/// A request is asked for by this name.
pub(super) fn asked(stage: &Stage, cx: &mut Cx<'_>, name: &str) {
    let refusals = owed::refusals(cx);
    stage.with(|state| state.refusals_before.insert(name.to_owned(), refusals));
}

/// Sees how far they have come. One that another thread joins meanwhile, as a script may that tolerates it, is not judged.
fn look(stage: &Stage, cx: &mut Cx<'_>, watched: &mut Vec<Watched<'_>>) -> Flow<()> {
    let now = owed::time(cx);
    for mut one in std::mem::take(watched) {
        if one.state.end.is_none() {
            let Ok(state) = request::state(stage, cx, one.name)? else { continue };
            one.under_way = if state.end.is_none() { now } else { one.under_way };
            one.state = state;
        }
        watched.push(one);
    }
    Ok(())
}

/// What was asked for by this name, as the script has it.
fn words(stage: &Stage, name: &str) -> String {
    let words = stage.with(|state| state.asked.get(name).cloned()).unwrap_or_else(|| name.to_owned());
    let request = words.split_once(&format!(" {name} ")).map(|(_, request)| request.to_owned());
    request.unwrap_or(words)
}

/// Whether all have come to their end.
fn have_ended(watched: &[Watched<'_>]) -> bool {
    watched.iter().all(|one| one.state.end.is_some())
}

/// What was waited for so many seconds. `behind`: what was asked for before it, which ends it if it does not do so by itself.
fn judge(
    stage: &Stage,
    cx: &mut Cx<'_>,
    (one, seconds): (&Watched<'_>, u64),
    behind: Option<&str>,
    demand: Demand,
) -> Flow<()> {
    let State { end, asked, status_block, .. } = one.state;
    let (what, changed) = (words(stage, one.name), stage.with(|state| state.changed));
    // What a card is busy with ends late then, too.
    let is_cancelled = end == Some(NtStatus::CANCELLED) && asked < stage.with(|state| state.cancelled);
    let happened = stage.with(|state| state.happened.clone().filter(|(at, _)| *at > asked));
    let closed = stage
        .with(|state| state.closed.clone())
        .is_some_and(|(at, handle)| at > asked && what.split(' ').nth(1) == Some(handle.as_str()));
    let ends = match (behind.filter(|_| demand == Demand::End), &happened) {
        (Some(ends), _) => Ends::Behind(ends),
        _ if closed => Ends::Closed,
        (None, Some((_, happened))) => Ends::Besides(happened),
        (None, None) => Ends::Alone,
    };
    match (end, status_block) {
        _ if is_cancelled => {}
        (None, Some(block)) => owed::forgotten(cx, block, &what, &ends, seconds)?,
        _ if demand == Demand::Recover => {}
        (Some(status), _)
            if demand == Demand::Succeed && behind.is_some() && !status.is_success() && asked >= changed =>
        {
            owed::refused(cx, &what, status, behind);
        }
        // What a device was doing when its state changed may well be lost.
        (Some(status), _)
            if !matches!(ends, Ends::Behind(_) | Ends::Closed)
                && has_failed(status)
                && one.under_way > asked + LATE
                && asked >= changed =>
        {
            owed::timed_out(cx, &what, status);
        }
        (Some(status), _) if demand == Demand::Succeed && !status.is_success() && asked >= changed => {
            owed::refused(cx, &what, status, None);
        }
        _ => {}
    }
    Ok(())
}

fn has_failed(status: NtStatus) -> bool {
    status.is_error() || status == NtStatus::TIMEOUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_an_answer_by_the_other_ones_bytes_alone_is_of_that_one() {
        let (own, other) = ([1, 2, 3, 4], [1, 7, 3, 8]);
        assert!(is_of_another(&other, &own, &other));
        assert!(is_of_another(&[1, 7, 3, 4], &own, &other), "one byte of it came in time");
        assert!(!is_of_another(&own, &own, &other));
        assert!(!is_of_another(&[1, 7, 3, 9], &own, &other), "something else");
        assert!(!is_of_another(&[1, 2], &own, &[1, 7]), "only shorter");
        assert!(is_of_another(&[1, 7], &own, &[1, 7]));
    }
}
