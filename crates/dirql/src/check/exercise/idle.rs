//! What happens to a device as its driver powers it down because it is idle, and when it is down.

use super::super::survey::Survey;
use super::LATER_BUS;
use super::effort::{Kind, Plan};
use super::steps::{ENDED_ALONE, asks, first_operations, open, opened, owed, words};

const DOWN: &str = "wait power-down";
/// What happens to the device, besides requests.
const LIVES: [(&str, &str); 6] = [
    ("stopped and started", "stop-device; start-device"),
    ("removed", "remove-device"),
    ("pulled", "surprise-remove"),
    ("put to sleep", "power s3; wait 20ms; power s0"),
    ("powered down once more", "power d3; wait 20ms; power d0"),
    ("closed", "close h"),
];
/// When: just as it is to be powered down, while it is on its way, or when it is down.
const MOMENTS: [(&str, &str); 3] = [("as", ""), ("while", "wait 100ns; "), ("after", "wait 20ms; ")];

/// Adds that for a driver which powers its device down by itself.
pub(super) fn powered_down(survey: &Survey, name: &str, plan: &mut Plan) {
    if !survey.powers_down {
        return;
    }
    for bus in [None, Some(LATER_BUS)] {
        plan.more = bus.map(str::to_owned).into_iter().collect();
        let where_later = if bus.is_some() { " where the bus driver answers later" } else { "" };
        for (when, pause) in MOMENTS {
            for (what, step) in LIVES {
                let script = format!("{}; {DOWN}; {pause}{step}; wait 50ms", open(name));
                let title = format!("{what} {when} the driver powers the device down{where_later}");
                plan.add(title, script, Kind::Behind);
            }
            for operation in first_operations(survey) {
                let opened = opened(survey, name, &[operation]);
                let owed = owed(survey, (operation, operation), "a");
                let script = format!(
                    "{opened}; {DOWN}; {pause}{}; wait 30s; {owed}{ENDED_ALONE}",
                    asks("a", operation)
                );
                let title =
                    format!("{} {when} the driver powers the device down{where_later}", words(operation));
                plan.add(title, script, Kind::Behind);
            }
        }
    }
    plan.more.clear();
}
