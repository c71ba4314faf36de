//! Cards that answer sooner than any page says, as a time limit of the driver's ends, or not at all; and that get late what is written to them.

use super::super::survey::{Operation, Survey};
use super::at_once::ended_in_company;
use super::effort::{Kind, Plan};
use super::lives::lives;
use super::steps::{ENDED, ENDED_ALONE, asks, open, opened, two_at_once, words};
use super::{AT_ONCE, LATE_CARDS, LATER_BUS, SILENT_CARDS};

/// What a quick card does comes behind the access that begins it, at the first access after that, and so on up to this one; and so many pairs of requests are made of one.
const QUICK: u32 = 3;
const QUICK_PAIRS: usize = 12;
/// And so many requests are made alone.
const QUICK_ALONE: usize = 10;
/// So much later than one request another is made that waits behind it: longer than what is judged behind its end takes, so its own time limit ends later.
const LATER: &str = "100ms";
/// Longer than a silent card is.
const BEHIND_SILENCE: &str = "210s";
/// The option of a bridge that takes writes, and so many pairs of requests are made behind it.
const POSTED: &str = "--platform=posted=2us";
const POSTED_PAIRS: usize = 6;

/// Whether a card of the machine does something by itself: one of which only the ids are known does nothing.
fn has_model(survey: &Survey) -> bool {
    survey.is_hardware && survey.devices.iter().any(|device| !device.starts_with("pci#"))
}

/// Two requests that the card answers while the driver accesses it, and one alone: where all that it begins is over at once, its interrupts and DPCs meet.
pub(super) fn answered_soon(survey: &Survey, name: &str, plan: &mut Plan) {
    if !has_model(survey) {
        return;
    }
    let open = open(name);
    let both = |&(one, other): &(usize, usize)| {
        let (one, other) = (&survey.operations[one], &survey.operations[other]);
        let (begin, begin_other) = (asks("a", one), asks("b", other));
        let script = format!("{open}; {begin}; {begin_other}; wait 50ms; must-end a b; {ENDED}");
        (format!("{} and {}", words(one), words(other)), script)
    };
    for access in 1..=QUICK {
        plan.more = vec![format!("--platform=meeting-cards={access}")];
        let pairs = survey.self_ending.iter().filter(|(one, other)| one != other).take(QUICK_PAIRS);
        for (what, script) in pairs.map(both) {
            let title =
                format!("{what} where the card answers the other at access {access} of a service routine");
            plan.add(title, script, Kind::Little);
        }
    }
    for access in 0..=QUICK {
        plan.more = vec![format!("--platform=quick-cards={access}")];
        for (what, script) in survey.self_ending.iter().take(QUICK_PAIRS).map(both) {
            plan.add(format!("{what} where the card answers at access {access}"), script, Kind::Little);
        }
        let (usual, variants): (Vec<&Operation>, Vec<&Operation>) =
            survey.operations.iter().filter(|one| one.succeeds).partition(|one| one.is_usual());
        for one in usual.into_iter().chain(variants).take(QUICK_ALONE) {
            let opened = opened(survey, name, &[one]);
            let script = format!("{opened}; {}; wait 50ms; {ENDED_ALONE}", asks("a", one));
            plan.add(
                format!("{} alone where the card answers at access {access}", words(one)),
                script,
                Kind::Quick,
            );
        }
    }
    plan.more.clear();
}

/// What the driver writes to its card is on its way for a while: what it has begun or switched off by it has not begun, or is not off.
pub(super) fn posted(survey: &Survey, name: &str, plan: &mut Plan) {
    if !has_model(survey) {
        return;
    }
    let title = |what: &str| format!("{what} where writes are on their way to the card");
    plan.more = vec![POSTED.to_owned()];
    for (what, script) in lives(survey).into_iter().filter(|(_, script)| script.contains("open ")) {
        plan.add(title(&what), script, Kind::Little);
    }
    for (what, script) in ended_in_company(survey, name) {
        plan.add(title(&what), script, Kind::Posted);
    }
    for &(one, other) in survey.self_ending.iter().take(POSTED_PAIRS) {
        let (one, other) = (&survey.operations[one], &survey.operations[other]);
        let opened = opened(survey, name, &[one, other]);
        let script =
            two_at_once(&opened, &asks("a", one), &asks("b", other), &format!("must-end a b; {ENDED}"));
        plan.add(title(&format!("{} and {}", words(one), words(other))), script, Kind::Behind);
    }
    plan.more.clear();
}

/// A request is made while the card is silent, and what the driver has done about that keeps the next one from nothing.
fn behind_silence(survey: &Survey, name: &str, plan: &mut Plan) {
    let alone = survey.self_ending.iter().filter(|(one, other)| one == other).take(AT_ONCE);
    for one in alone.map(|(place, _)| &survey.operations[*place]) {
        let script = format!(
            "{}; cards silent; {}; wait {BEHIND_SILENCE}; cards answer; cancel a; join a; {}; wait 50ms; must-end b; cancel b; join b; close h",
            opened(survey, name, &[one]),
            asks("a", one),
            asks("b", one)
        );
        plan.add(
            format!("{} behind one that a silent card has not answered", words(one)),
            script,
            Kind::Little,
        );
    }
}

/// Requests that a card, or a driver below, answers in the moment in which the driver's own time limit for them ends, or that the card answers long after it.
pub(super) fn answered_late(survey: &Survey, name: &str, plan: &mut Plan) {
    let open = open(name);
    let cards = survey.limited.iter().map(|limited| (limited, "card", None));
    let below = survey.limited_below.iter().map(|limited| (limited, "driver below", Some(LATER_BUS)));
    for ((place, limit), answering, more) in cards.chain(below) {
        let one = &survey.operations[*place];
        let (what, command) = (words(one), &one.command);
        // The limit may be that of the first request or of the second.
        for limit in [*limit, limit.saturating_sub(1)].into_iter().filter(|limit| *limit > 0) {
            plan.more =
                more.map(str::to_owned).into_iter().chain([format!("{LATE_CARDS}={limit}")]).collect();
            let script = format!(
                "{open}; t: async a {command}; u: async b {command}; join t; join u; wait 11s; {ENDED}"
            );
            plan.add(
                format!("{what} where the {answering} answers as time limit {limit} ends"),
                script,
                Kind::AnsweredLate,
            );
        }
    }
    if has_model(survey) {
        plan.more = vec![SILENT_CARDS.to_owned()];
        for one in survey.operations.iter().filter(|one| one.is_usual()).take(AT_ONCE) {
            let (what, command) = (words(one), &one.command);
            let script = format!(
                "{open}; async a {command}; wait 50ms; cancel a; join a; async a {command}; async b {command}; wait 11s; {ENDED}"
            );
            plan.add(format!("{what} where the card is silent"), script, Kind::Requests);
            let script = format!("{open}; async a {command}; wait {BEHIND_SILENCE}; {ENDED_ALONE}");
            plan.add(format!("{what} where the card is silent and answers in the end"), script, Kind::Little);
        }
    }
    plan.more.clear();
    behind_late_answer(survey, name, plan);
    if has_model(survey) {
        behind_silence(survey, name, plan);
    }
}

/// The card answers one request as its time limit ends, and the next one in time: what the limit's routine does then is not about that.
fn behind_late_answer(survey: &Survey, name: &str, plan: &mut Plan) {
    for (place, limit) in
        survey.limited.iter().filter(|(place, _)| survey.self_ending.contains(&(*place, *place)))
    {
        let one = &survey.operations[*place];
        for limit in [*limit, limit.saturating_sub(1)].into_iter().filter(|limit| *limit > 0) {
            let script = format!(
                "{}; cards late {limit}; {}; wait {LATER}; {}; must-succeed b if a; {ENDED}",
                opened(survey, name, &[one]),
                asks("a", one),
                asks("b", one)
            );
            let title =
                format!("{0} behind one that the card answers as time limit {limit} ends", words(one));
            plan.add(title, script, Kind::Behind);
        }
    }
}
