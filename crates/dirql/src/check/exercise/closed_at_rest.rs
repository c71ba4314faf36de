//! A handle that is closed while its device does not serve: what the driver does for it then must not touch the card.

use super::super::survey::Survey;
use super::steps::{PAUSE, asks, opened, words};

/// So many requests are made before, each for itself.
const REQUESTS: usize = 12;

/// How a device comes to rest, in words and as a script has it; and how it serves again, if it can.
const RESTS: [(&str, &str, &str); 3] = [
    ("without power", "power d3", "; power d0"),
    ("while the device is stopped", "stop-device", "; start-device"),
    ("of a device that was pulled", "surprise-remove", ""),
];

/// Behind each request: one that has left something for the handle, or one that is still under way.
pub(super) fn closed_at_rest(survey: &Survey, name: &str) -> Vec<(String, String)> {
    let rests = RESTS.into_iter().filter(|(_, rest, _)| survey.knows_power || !rest.starts_with("power"));
    let each = |operation| {
        let asked = format!("{}; {}; {PAUSE}", opened(survey, name, &[operation]), asks("a", operation));
        rests.clone().map(move |(what, rest, serve)| {
            let title = format!("{} and its handle closed {what}", words(operation));
            (title, format!("{asked}; {rest}; close h; {PAUSE}{serve}; {PAUSE}"))
        })
    };
    survey.operations.iter().take(REQUESTS).flat_map(each).collect()
}
