//! A card interrupts as a request is made, or as something happens to its device: the service routine and its DPC are on the way then.

use super::super::signals::{Outside, interrupt_of_each};
use super::super::survey::{Operation, Survey};
use super::effort::{Kind, Plan};
use super::steps::{ENDED, ENDED_ALONE, asks, first_operations, happens, opened, two_at_once, words};

/// So many things outside of a model's card are done at once with what they do not end.
const OUTSIDE: usize = 4;
/// So many requests are made again that give the driver an event.
const WITH_EVENTS: usize = 2;
/// So many requests are cancelled before the card does what ends them.
const CANCELLED: usize = 4;
/// So many interrupts come as something happens to the device.
const AS_IT_HAPPENS: usize = 3;

/// A request that ends by itself is made as a card or a board of which nothing is known interrupts, or as something outside of a model's card happens.
pub(super) fn at_once_with_interrupts(survey: &Survey, open: &str, plan: &mut Plan) {
    let interrupts = interrupts(survey);
    for operation in first_operations(survey).filter(|operation| operation.succeeds && !operation.waits) {
        for interrupt in &interrupts {
            // What the first one has left is there for the request.
            let before = format!("{open}; {interrupt}");
            let script = two_at_once(&before, &by("t", interrupt), &asks("a", operation), ENDED_ALONE);
            plan.add(format!("{} at once with {interrupt}", words(operation)), script, Kind::AtOnce);
        }
    }
}

/// The driver is given another event of the application's as the interrupt comes that has it set the one it has: the application keeps no handle of that.
pub(super) fn event_exchanged(survey: &Survey, name: &str, plan: &mut Plan) {
    let ends = |one: &&Operation| one.succeeds && !one.waits;
    let with_event = survey.operations.iter().filter(ends).filter_map(|one| {
        let (head, behind) = one.command.split_once("event:")?;
        let (event, rest) = behind.split_at(behind.find(' ').unwrap_or(behind.len()));
        Some((one, event, Operation { command: format!("{head}event:other{rest}"), ..one.clone() }))
    });
    for (one, event, other) in with_event.take(WITH_EVENTS) {
        let before =
            format!("{}; {}; wait 1ms; close event:{event}", opened(survey, name, &[one]), asks("b", one));
        for interrupt in interrupts(survey) {
            let script = two_at_once(&before, &by("t", &interrupt), &asks("a", &other), ENDED);
            let title = format!("{} again, with another event, at once with {interrupt}", words(one));
            plan.add(title, script, Kind::AtOnce);
        }
    }
}

/// What ends a request at a card or on a board of which nothing is known comes with another cause at once, when the request has been cancelled and the driver may have
/// asked for that other cause.
pub(super) fn causes_as_cancelled(survey: &Survey, name: &str, plan: &mut Plan) {
    for (place, by) in survey.ended_by_outside().filter(|(_, by)| !by.is_sure()).take(CANCELLED) {
        let operation = &survey.operations[place];
        let opened = opened(survey, name, &[operation]);
        for both in by.with_others() {
            let title = format!("{}, cancelled before {}", words(operation), both.first());
            let script = format!(
                "{opened}; {}; wait 1ms; cancel a; {}; wait 1ms; {}; wait 1ms; close h",
                asks("a", operation),
                both.steps(),
                by.steps()
            );
            plan.add(title, script, Kind::Usual);
        }
    }
}

/// The device is stopped, or goes, as it interrupts: while an application has a handle, and with none, so that nothing of it is left behind its removal.
pub(super) fn interrupted_as_it_goes(survey: &Survey, open: &str, plan: &mut Plan) {
    for interrupt in interrupts(survey).iter().take(AS_IT_HAPPENS) {
        for (what, steps) in happens(survey) {
            let title = format!("{what} at once with {interrupt}");
            let script =
                |before: &str, then: &str| two_at_once(before, &by("t", interrupt), &by("u", steps), then);
            plan.add(format!("{title}, and no handle is open"), script("tolerate", "wait 1ms"), Kind::Behind);
            plan.add(title, script(open, "close h"), Kind::Behind);
        }
    }
}

/// What makes cards interrupt, as a script has it.
fn interrupts(survey: &Survey) -> Vec<String> {
    let guessed = interrupt_of_each(&survey.signals, &survey.boards, &survey.stirring);
    let known = survey.outside.iter().filter(|outside| !survey.boards.contains(&outside.device));
    guessed.into_iter().chain(known.take(OUTSIDE).map(Outside::steps)).collect()
}

/// Steps behind `THREAD: ` that this thread all does.
fn by(thread: &str, steps: &str) -> String {
    steps.replace("; ", &format!("; {thread}: "))
}
