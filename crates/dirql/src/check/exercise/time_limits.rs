//! What happens just as a timer of the driver's runs out: a request is cancelled or made, its handle is closed, the device goes.
//!
//! Where a request has a time limit of its own, that is the timer which is set last, and it is cancelled as it is given up.

use super::super::survey::Survey;
use super::effort::{Kind, Plan};
use super::steps::{ENDED, ENDED_ALONE, asks, first_operations, happens, opened, words};

/// Just then.
const LIMIT: &str = "wait limit";
/// So many of a driver's limits are waited for.
const LIMITS: [usize; 2] = [1, 2];

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
            for other in first_operations(survey).filter(|other| !other.waits) {
                let script = format!("{opened}; {begun}; {limits}; {}; wait 50ms; {ENDED}", asks("b", other));
                plan.add(format!("{} behind {what} as {ordinal} out", words(other)), script, Kind::Behind);
            }
        }
    }
}
