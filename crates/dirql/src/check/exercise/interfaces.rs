//! Device interfaces that the driver listens for come and go: alone, between requests, at once with them, and as its own device goes.

use super::super::survey::Survey;
use super::effort::{Kind, Plan};
use super::steps::{ENDED_ALONE, asks, first_operations, opened, tried, words};

const COMES: &str = "interface-arrives";
const GOES: &str = "interface-leaves";
/// What may happen to the device meanwhile; nothing: the driver is unloaded.
const MEANWHILE: [(&str, &str); 4] = [
    ("the device is stopped", "stop-device"),
    ("the device is removed", "remove-device"),
    ("the device is pulled", "surprise-remove"),
    ("the driver is unloaded", ""),
];

/// Adds all that for a driver that listens for interfaces.
pub(super) fn come_and_go(survey: &Survey, plan: &mut Plan) {
    if !survey.listens_for_interfaces {
        return;
    }
    let changes = [COMES, GOES, COMES, GOES].join("; wait 1ms; ");
    plan.add("device interfaces come and go", format!("tolerate; {changes}; wait 1ms"), Kind::Requests);
    for (what, step) in MEANWHILE {
        let there = format!("{COMES}; wait 1ms; ");
        for (change, before) in [(COMES, ""), (GOES, there.as_str())] {
            let step = if step.is_empty() { String::new() } else { format!("; u: {step}; join u") };
            let script = format!("tolerate; {before}t: {change}{step}; join t");
            plan.add(format!("{change} while {what}"), script, Kind::AtOnce);
        }
    }
    let Some(name) = survey.names.first() else { return };
    for operation in first_operations(survey) {
        let opened = opened(survey, name, &[operation]);
        let [first, second, third] = [1, 2, 3].map(|n| tried(n, &operation.command));
        let what = words(operation);
        let script = format!(
            "{opened}; {first}; {COMES}; wait 1ms; {second}; {GOES}; wait 1ms; {third}; {changes}; close h"
        );
        plan.add(format!("{what} between device interfaces that come and go"), script, Kind::Requests);
        let others = survey.operations.iter().filter(|other| !other.waits && !other.variant);
        for before in others.filter(|other| *other != operation) {
            let command = &before.command;
            let script = format!(
                "{opened}; async p {command}; wait 1ms; t: {COMES}; u: {}; join t; join u; wait 50ms; {GOES}; \
                 join p; {ENDED_ALONE}",
                asks("a", operation)
            );
            let title = format!("{what} behind {} at once with device interfaces", words(before));
            plan.add(title, script, Kind::AtOnce);
        }
    }
}
