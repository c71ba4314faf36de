//! What happens just as a timer of the driver's runs out: a request is cancelled or made, its handle is closed, the device goes.
//!
//! Where a request has a time limit of its own, that is the timer which is set last, and it is cancelled as it is given up.

use super::super::survey::{Operation, Survey};
use super::RACES;
use super::effort::{Kind, Plan};
use super::steps::{ENDED, ENDED_ALONE, asks, first_operations, happens, opened, words};

/// Just then.
const LIMIT: &str = "wait limit";
/// So many of a driver's limits are waited for.
const LIMITS: [usize; 2] = [1, 2];
/// So many requests are made with another input, too.
const VARIANTS: usize = 4;

/// Adds that for a driver that sets timers.
pub(super) fn as_timers_run_out(survey: &Survey, name: &str, plan: &mut Plan) {
    if !survey.sets_timers {
        return;
    }
    let has_device = !survey.devices.is_empty();
    for operation in first_operations(survey) {
        let opened = opened(survey, name, &[operation]);
        let (what, begun) = (words(operation), asks("a", operation));
        for limit in LIMITS {
            let limits = vec![LIMIT; limit].join("; ");
            let ordinal = if limit == 1 { "a timer runs" } else { "the next timer runs" };
            let mut all = vec![
                ("it is cancelled", format!("cancel h; {ENDED_ALONE}")),
                ("its handle is closed", "close h; join a".to_owned()),
            ];
            if has_device {
                all.extend(
                    happens(survey).map(|(what, step)| (what, format!("{step}; wait 20ms; {ENDED_ALONE}"))),
                );
            }
            for (event, step) in all {
                let script = format!("{opened}; {begun}; {limits}; {step}");
                plan.add(format!("{what}: {event} as {ordinal} out"), script, Kind::Behind);
            }
            // The timer's routine has run on one processor, and the request is made on another one.
            plan.more = vec![RACES.to_owned()];
            for other in first_operations(survey).filter(|other| !other.waits) {
                let script = format!("{opened}; {begun}; {limits}; {}; wait 50ms; {ENDED}", asks("b", other));
                plan.add(format!("{} behind {what} as {ordinal} out", words(other)), script, Kind::Behind);
            }
            plan.more.clear();
        }
        event_is_closed(survey, name, operation, plan);
    }
    // With another input the timer's routine may do more, as set it again.
    let variants = survey.operations.iter().filter(|one| one.variant && one.succeeds);
    for operation in variants.take(VARIANTS) {
        let (opened, begun) = (opened(survey, name, &[operation]), asks("a", operation));
        let script = format!("{opened}; {begun}; {LIMIT}; close h; join a");
        let title = format!("{}: its handle is closed as a timer runs out", words(operation));
        plan.add(title, script, Kind::Behind);
    }
}

/// The event that a program has handed over is the driver's alone, as a timer runs out by which that sets it.
fn event_is_closed(survey: &Survey, name: &str, operation: &Operation, plan: &mut Plan) {
    let Some((_, behind)) = operation.command.split_once("event:") else { return };
    let event = behind.split([' ', ';']).next().unwrap_or_default();
    let (opened, begun) = (opened(survey, name, &[operation]), asks("a", operation));
    let others = first_operations(survey).filter(|other| !other.waits);
    let steps = others.map(|other| (words(other), asks("b", other)));
    for (what, step) in steps.chain([("its handle is closed".to_owned(), "close h".to_owned())]) {
        let end = if step == "close h" { "join a" } else { ENDED };
        let script =
            format!("{opened}; {begun}; wait 1ns; close event:{event}; {LIMIT}; {step}; wait 50ms; {end}");
        plan.add(
            format!("{} whose event is closed: {what} as a timer runs out", words(operation)),
            script,
            Kind::AtOnce,
        );
    }
}
