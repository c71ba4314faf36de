//! What ends a request that waits still does so when something has happened to the device, before the request was made or while it waited.

use super::super::signals::Outside;
use super::super::survey::Survey;
use super::steps::{ENDED_ALONE, asks, opened, words};

/// So many pairs of a request and of another that ends it are tried, and so many of a request and of something outside of the card.
const PAIRS: usize = 4;

/// What happens to the device, which serves again then.
const LIVES: [(&str, &str); 5] = [
    ("was stopped and started", "stop-device; wait 1ms; start-device"),
    ("was asked whether it may be stopped", "query-stop; cancel-stop"),
    ("was asked whether it may be removed", "query-remove; cancel-remove"),
    ("was powered down and up", "power d3; wait 20ms; power d0"),
    ("slept", "power s3; wait 1ms; power s0"),
];

/// A request `a` that waits.
struct Waits<'s> {
    place: usize,
    /// What ends it, in words and as a script has it; what must have ended then; what follows.
    by: String,
    ends: String,
    owed: &'s str,
    rest: String,
}

/// All of them.
pub(super) fn behind_lives(survey: &Survey, name: &str) -> Vec<(String, String)> {
    // What a card has lost in sleep, a driver that leaves its power to others does not know of.
    let lives = LIVES.into_iter().filter(|(_, steps)| survey.knows_power || !takes_power(steps));
    let ends_in_any = by_requests(survey).chain(by_outside(survey, |event| !event.ends_by_accesses()));
    // With its power a board loses what its registers hold: what they show besides has to be enough.
    let ends_with_power = by_outside(survey, Outside::ends_by_accesses);
    let bits = survey.ended_by_bits.iter().take(PAIRS);
    let ends_without = bits.map(|(place, event)| by_event(*place, event));
    let any = ends_in_any.map(|waits| (waits, [true, true]));
    let all = any.chain(ends_with_power.map(|waits| (waits, [true, false])));
    let all = all.chain(ends_without.map(|waits| (waits, [false, true])));
    all.flat_map(|(waits, is_in)| {
        let own = lives.clone().filter(move |(_, steps)| is_in[usize::from(takes_power(steps))]);
        own.flat_map(move |life| of(survey, name, &waits, life))
    })
    .collect()
}

/// Whether the device loses its power by these steps.
fn takes_power(steps: &str) -> bool {
    steps.contains("power ")
}

/// A request that another one has made end by itself is under way while the device is stopped, or asked about, and serves again: what the other one has set going
/// goes on, since an application does not notice that a device was stopped. What a card was doing may be over.
pub(super) fn kept_over_lives(survey: &Survey, name: &str) -> Vec<(String, String)> {
    if survey.is_hardware {
        return Vec::new();
    }
    let lives = LIVES.iter().filter(|(_, steps)| !takes_power(steps));
    let kept = survey.ended_before.iter().take(PAIRS);
    kept.flat_map(|(waits, ends)| lives.clone().map(move |life| (waits, ends, life)))
        .map(|(waits, ends, (what, steps))| {
            let [waits, ends] = [waits, ends].map(|place| &survey.operations[*place]);
            let title = format!("{} behind {} before the device {what}", words(waits), words(ends));
            let (opened, begun, asked) = (opened(survey, name, &[waits, ends]), asks("b", ends), asks("a", waits));
            let script =
                format!("{opened}; {begun}; {asked}; {steps}; wait 50ms; must-end a if b; cancel h; join a; join b; close h");
            (title, script)
        })
        .collect()
}

fn by_requests(survey: &Survey) -> impl Iterator<Item = Waits<'_>> {
    survey.ended_by.iter().take(PAIRS).map(|(place, ends)| {
        let ends = &survey.operations[*ends];
        Waits {
            place: *place,
            by: words(ends),
            ends: asks("b", ends),
            // What is not answered itself owes nothing.
            owed: "must-end a if b",
            rest: "; cancel h; join b".to_owned(),
        }
    })
}

fn by_outside(survey: &Survey, is_one: fn(&Outside) -> bool) -> impl Iterator<Item = Waits<'_>> {
    let sure = survey.ended_by_outside().filter(|(_, event)| event.is_sure());
    sure.take(PAIRS).filter(move |(_, event)| is_one(event)).map(|(place, event)| by_event(place, event))
}

fn by_event(place: usize, event: &Outside) -> Waits<'static> {
    Waits {
        place,
        by: event.signal.clone(),
        ends: event.first(),
        owed: "must-end a",
        rest: format!("; {}", event.rest()),
    }
}

/// The request made before that, and made behind it.
fn of(survey: &Survey, name: &str, waits: &Waits<'_>, (what, steps): (&str, &str)) -> [(String, String); 2] {
    let Waits { place, by, ends, owed, rest } = waits;
    let operation = &survey.operations[*place];
    let (opened, asked) = (opened(survey, name, &[operation]), asks("a", operation));
    // What the device has lost by that, it is given anew.
    let again: String = survey
        .needed_before([*place])
        .into_iter()
        .map(|place| format!("; async q{place} {}", survey.operations[place].command))
        .collect();
    let steps = format!("{steps}{again}");
    let then = format!("wait 50ms; {ends}; wait 50ms; {owed}{rest}; {ENDED_ALONE}");
    let title = format!("{} ended by {by} after the device {what}", words(operation));
    [
        (title.clone(), format!("{opened}; {steps}; wait 50ms; {asked}; {then}")),
        (format!("{title} meanwhile"), format!("{opened}; {asked}; wait 1ms; {steps}; {then}")),
    ]
}
