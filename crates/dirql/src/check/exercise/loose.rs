//! A card comes out of its slot at each access of the driver's to it, one at a time: in its start, in a request, as its power goes and comes, as it is stopped.

use super::super::survey::Survey;
use super::effort::{Kind, Plan};
use super::lives::lives;
use super::steps::{ENDED_ALONE, asks, first_operations, opened, words};

/// The option of such cards.
const LOOSE_CARDS: &str = "--platform=loose-cards";

/// What is done with a card that may be gone at any access.
pub(super) fn comes_loose(survey: &Survey, plan: &mut Plan) {
    if !survey.is_hardware || survey.devices.is_empty() {
        return;
    }
    plan.more = vec![LOOSE_CARDS.to_owned()];
    let title = |what: &str| format!("{what} with a card that comes loose");
    plan.add(title("load and start"), "", Kind::LooseFromStart);
    for (what, script) in lives(survey) {
        plan.add(title(&what), script, Kind::Loose);
    }
    let Some(name) = survey.names.first() else { return plan.more.clear() };
    for operation in first_operations(survey) {
        let script = format!(
            "{}; {}; wait 50ms; {ENDED_ALONE}",
            opened(survey, name, &[operation]),
            asks("a", operation)
        );
        plan.add(title(&words(operation)), script, Kind::Loose);
    }
    plan.more.clear();
}
