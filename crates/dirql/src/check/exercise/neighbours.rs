//! What is tried beside other devices: two of the driver's own, or a foreign card on the line of its card.

use super::super::signals::interrupt_of_each;
use super::super::survey::{Operation, Survey};
use super::effort::{Kind, Plan};
use super::steps::{
    ENDED, ENDED_ALONE, ENDED_OF_TWO, asks, asks_other, on, open, open_other, owed, two_at_once, words,
};
use super::values::START;
use super::{AT_ONCE, Exercise};

/// So many requests are made on a busy line before the card is pulled.
const PULLED_BEHIND: usize = 12;

/// What is tried with two devices more, cards that share an interrupt line or devices on no bus: `survey` is of a machine that has them, by the options `more`.
#[must_use]
pub fn exercises_of_neighbours(survey: &Survey, more: &[String], budget: u64) -> Vec<Exercise> {
    let mut plan = Plan::new(survey, budget, more.to_vec());
    let [_, one, other, ..] = survey.names.as_slice() else { return plan.all };
    let (of_two, beside, another) = match survey.is_hardware {
        true => ("of two cards that share a line", "beside a card of the line that", "card"),
        false => ("of two devices", "beside a device that", "device"),
    };
    let interrupts = interrupt_of_each(&survey.signals, &survey.boards, &survey.stirring);
    if !interrupts.is_empty() {
        let script = format!("tolerate; {}", interrupts.join("; "));
        plan.add(format!("interrupts {of_two}"), script, Kind::Requests);
    }
    if let Some(device) = second_card(survey) {
        disconnected(survey, device, &mut plan);
        not_started(survey, device, &mut plan);
        interrupts_as_it_starts(survey, device, &mut plan);
    }
    // What is done to the other card, and what is undone in the end: it is not removed without power.
    let mut resting = vec![("is stopped", "stop-device", None), ("is pulled", "surprise-remove", None)];
    resting.extend(survey.knows_power.then_some(("has no power", "power d3", Some("power d0"))));
    // A word may be another device's number.
    let takes_part =
        |operation: &&Operation| operation.is_usual() || operation.succeeds && !survey.is_hardware;
    for operation in survey.operations.iter().filter(takes_part).take(AT_ONCE) {
        let (command, on_other) = (&operation.command, on(operation, "i"));
        let what = words(operation);
        if let Some(device) = second_card(survey) {
            disabled_and_enabled(survey, operation, (device, another), (one, other), &mut plan);
            beside_not_added(survey, operation, (device, another), other, &mut plan);
        }
        if operation.variant {
            continue;
        }
        let owed = owed(survey, (operation, operation), "a b c");
        let script = format!(
            "tolerate; open \"{one}\" as h overlapped; open \"{other}\" as i overlapped; async a {command}; async b {on_other}; async c {on_other}; \
             wait 50ms; {owed}cancel h; cancel i; join a; join b; join c; close h; close i"
        );
        plan.add(format!("{what} {of_two}"), script, Kind::Requests);
        let Some(device) = second_card(survey) else { continue };
        // The first card's service routine is asked first.
        for (state, step, undone) in &resting {
            let undone = undone.map(|step| format!("{step} {device}; ")).unwrap_or_default();
            let script = format!(
                "tolerate; open \"{one}\" as i overlapped; open \"{other}\" as h overlapped; async b {on_other}; {step} {device}; async a {command}; \
                 wait 50ms; {undone}cancel h; cancel i; join a; join b; close h; close i"
            );
            plan.add(format!("{what} {beside} {state}"), script, Kind::Plain);
        }
    }
    plan.all
}

/// A device of two, of the first of these names, is removed and started again, as when a user disables and enables it. While the driver has another one it is
/// not unloaded: what it knew of the device must be gone.
fn disabled_and_enabled(
    survey: &Survey,
    operation: &Operation,
    (device, kind): (&str, &str),
    (name, other): (&str, &str),
    plan: &mut Plan,
) {
    let what = words(operation);
    let owed = owed(survey, (operation, operation), "a b");
    let again = format!("remove-device {device}; start-device {device}");
    let asked = format!("{}; {}; wait 50ms", open_other(name), asks_other("b", operation));
    let script = format!(
        "{}; {asked}; cancel i; join b; close i; {again}; {}; {asked}; {owed}{ENDED_OF_TWO}; {again}",
        open(other),
        asks("a", operation)
    );
    plan.add(format!("{what} of a {kind} that is disabled and enabled beside another"), script, Kind::Plain);
    let script = two_at_once(
        &open(other),
        &format!("{}; t: {}", asks("a", operation), asks("b", operation)),
        &format!("{again}; {again}").replace("; ", "; u: "),
        &format!("{owed}{ENDED}"),
    );
    plan.add(format!("{what} while another {kind} is disabled and enabled"), script, Kind::Behind);
}

/// The last of the driver's devices serves on when another one may not be added again, which each call in that may be the reason for: what they share is not
/// given back for the one that never had it.
fn beside_not_added(
    survey: &Survey,
    operation: &Operation,
    (device, kind): (&str, &str),
    name: &str,
    plan: &mut Plan,
) {
    let Some(first) = survey.devices.first() else { return };
    let script = format!(
        "{}; remove-device {first}; remove-device {device}; start-device {device}; {}; wait 50ms; {ENDED_ALONE}",
        open(name),
        asks("a", operation)
    );
    plan.add(format!("{} beside a {kind} that may not be added", words(operation)), script, Kind::Plain);
}

/// What would have a card interrupt happens when its driver has disconnected it, and another card's routine is connected to the line. A card of which nothing
/// is known would interrupt in any case.
fn disconnected(survey: &Survey, device: &str, plan: &mut Plan) {
    let boards = of_device(&survey.boards, device);
    for (state, step) in [("stopped", "stop-device"), ("removed", "remove-device")] {
        for interrupt in interrupt_of_each(&[], &boards, &[]) {
            let title = format!("an interrupt of a card that is {state}, beside another one of its line");
            plan.add(title, format!("tolerate; {step} {device}; {interrupt}; wait 5ms"), Kind::Little);
        }
    }
}

/// The same where its driver has failed to start it, which each call in it may be the reason for: what it has switched on by then must be off.
fn not_started(survey: &Survey, device: &str, plan: &mut Plan) {
    for interrupt in interrupt_of_each(&[], &of_device(&survey.boards, device), &[]) {
        let title = "an interrupt of a card that may not be started, beside another one of its line";
        let script =
            format!("tolerate; remove-device {device}; start-device {device}; {interrupt}; wait 5ms");
        plan.add(title, script, Kind::Plain);
    }
}

/// A card interrupts, or what is on its board does, while its driver starts it: from when its routine is connected it must find all that it needs. The card is
/// removed before: what a device leaves that is stopped, and is there when it starts again, is not there at its first start.
fn interrupts_as_it_starts(survey: &Survey, device: &str, plan: &mut Plan) {
    let [signals, boards] = [&survey.signals, &survey.boards].map(|all| of_device(all, device));
    let before = format!("tolerate; remove-device {device}");
    let start = format!("start-device {device}");
    for interrupt in interrupt_of_each(&signals, &boards, &[]) {
        let interrupt = interrupt.replace("; ", "; u: ");
        plan.add(
            format!("a start beside another card of the line, at once with {interrupt}"),
            two_at_once(&before, &start, &interrupt, "wait 1ms"),
            Kind::Behind,
        );
    }
}

/// Of these signals or boards, those of this card.
fn of_device(all: &[String], device: &str) -> Vec<String> {
    all.iter().filter(|one| one.split(' ').next() == Some(device)).cloned().collect()
}

/// The second of the driver's devices: of cards, the first is on a line of its own.
fn second_card(survey: &Survey) -> Option<&str> {
    let mut devices = survey.devices.iter();
    let (kind, _) = devices.next()?.split_once('#')?;
    let is_alike = |device: &&String| device.split_once('#').is_some_and(|(other, _)| other == kind);
    devices.find(is_alike).map(String::as_str)
}

/// What is tried where another card interrupts all the time on the line of the driver's: `survey` is of a machine that has a second card of the
/// driver's and that other one, by the options `more`.
#[must_use]
pub fn exercises_on_busy_line(survey: &Survey, more: &[String], budget: u64) -> Vec<Exercise> {
    let mut plan = Plan::new(survey, budget, more.to_vec());
    let Some(device) = second_card(survey) else { return plan.all };
    let beside = |what: &str| format!("{what} beside a card that interrupts on its line");
    plan.add(beside(START), "", Kind::Start);
    let mut lives = vec![
        ("stop and start", format!("stop-device {device}; wait 2ms; start-device {device}; wait 2ms")),
        ("sleep and wake", "power s3; wait 2ms; power s0; wait 20ms".to_owned()),
        ("pulled", format!("surprise-remove {device}; wait 20ms")),
    ];
    if survey.knows_power {
        lives.push((
            "power down and up",
            format!("power d3 {device}; wait 20ms; power d0 {device}; wait 20ms"),
        ));
    }
    for (title, steps) in lives {
        plan.add(beside(title), format!("tolerate; {steps}"), Kind::Plain);
    }
    let [signals, boards] = [&survey.signals, &survey.boards].map(|all| of_device(all, device));
    let interrupts = interrupt_of_each(&signals, &boards, &[]);
    for interrupt in &interrupts {
        plan.add(beside("an interrupt"), format!("tolerate; {interrupt}; wait 1ms"), Kind::Plain);
    }
    let Some(name) = survey.names.get(1) else { return plan.all };
    for operation in survey.operations.iter().filter(|operation| operation.is_usual()).take(AT_ONCE) {
        let (open, command) = (open(name), &operation.command);
        for interrupt in &interrupts {
            let script = format!("{open}; async a {command}; {interrupt}; wait 1ms; {ENDED_ALONE}");
            plan.add(beside(&format!("{} and an interrupt", words(operation))), script, Kind::Plain);
        }
        let owed = owed(survey, (operation, operation), "a b");
        let script = format!(
            "{open}; async a {command}; async b {command}; wait 50ms; {owed}cancel h; join a; join b; close h"
        );
        plan.add(beside(&words(operation)), script, Kind::Requests);
    }
    // With another word a request may be what has the card interrupt.
    for operation in survey.operations.iter().filter(|operation| operation.succeeds).take(PULLED_BEHIND) {
        let script = format!(
            "{}; {}; wait 1ms; surprise-remove {device}; wait 20ms; {ENDED_ALONE}",
            open(name),
            asks("a", operation)
        );
        plan.add(beside(&format!("{}, and pulled,", words(operation))), script, Kind::Little);
    }
    plan.all
}
