//! Requests in a computer that has been running for so long that a count of time begins anew.

use super::super::survey::Survey;
use super::effort::{Kind, Plan};
use super::steps::{on, open_two, words};

/// Adds those that the survey has seen end otherwise there.
pub(super) fn in_the_long_run(survey: &Survey, name: &str, plan: &mut Plan) {
    for aged in &survey.aged {
        let requests: Vec<_> = aged.made.iter().map(|made| (&survey.operations[made.place], made)).collect();
        let Some((last, _)) = requests.last() else { continue };
        let asked = requests.iter().enumerate().map(|(n, (operation, made))| {
            let asked = format!("async r{n} {}", on(operation, if made.second { "i" } else { "h" }));
            match n + 1 == requests.len() {
                true => format!("{asked}; {WHILE}; must-be r{n} {:#x}; cancel r{n}; join r{n}", made.status),
                false if made.waits => format!("{asked}; {WHILE}; cancel r{n}; join r{n}"),
                false => format!("{asked}; join r{n}"),
            }
        });
        let steps: Vec<String> = asked.collect();
        plan.more = vec![format!("--platform=uptime={}", aged.uptime)];
        let days = aged.uptime / DAY;
        let title =
            format!("{} behind others, {days} days and more after the computer was started", words(last));
        plan.add(title, format!("{}; {}; close h; close i", open_two(name), steps.join("; ")), Kind::Usual);
        plan.more.clear();
    }
}

/// So long a request may take.
const WHILE: &str = "wait 300ms";
/// In nanoseconds.
const DAY: u64 = 86_400_000_000_000;
