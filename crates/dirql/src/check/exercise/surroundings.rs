//! What is tried in other surroundings: above a bus driver that answers later, and with programs of 32 bits.

use super::super::signals::STUCK_EEPROM;
use super::super::survey::Survey;
use super::effort::{Kind, Plan};
use super::inputs_and_lengths::sizes;
use super::lives::seldom;
use super::steps::{ENDED, asks, first_operations, open, opened, tried_in_turn, words};
use super::under_way::left;
use super::values::START;
use super::{Exercise, LATER_BUS, METHOD_NEITHER};

const PROGRAMS_OF_32_BITS: &str = "--platform=32-bit-programs";

/// Requests where the bus driver answers what it is sent later, be it that it does not know it.
pub(super) fn refused_later(survey: &Survey, name: &str, plan: &mut Plan) {
    if !survey.plug_and_play && !survey.asks_others {
        return;
    }
    plan.more = vec![LATER_BUS.to_owned()];
    let title = |what: &str| format!("{what} where the bus driver answers later");
    plan.add(
        title("requests that drivers seldom handle"),
        format!("{}; {}", open(name), seldom()),
        Kind::Little,
    );
    for one in first_operations(survey) {
        let opened = opened(survey, name, &[one]);
        let script = format!("{opened}; {}; wait 2s; cancel h; join a; close h", asks("a", one));
        plan.add(title(&words(one)), script, Kind::Little);
        if survey.asks_others {
            let script = format!("{opened}; {}", left(survey, one, name));
            plan.add(title(&format!("{}, cancelled and left", words(one))), script, Kind::Little);
        }
    }
    plan.more.clear();
}

/// Requests to a bridge whose EEPROM answers nothing, or ones alone.
pub(super) fn of_stuck_eeprom(survey: &Survey, name: &str, plan: &mut Plan) {
    let Some(board) = survey.boards.first() else { return };
    let ending = first_operations(survey).filter(|one| one.succeeds && !one.waits);
    for (one, (signal, how)) in ending.flat_map(|one| STUCK_EEPROM.map(|stuck| (one, stuck))) {
        let opened = opened(survey, name, &[one]);
        let script = format!(
            "{opened}; poke {board} {signal} 1; t: {}; wait 10s; cancel h; join t; join a; poke {board} {signal} 0; close h",
            asks("a", one)
        );
        plan.add(format!("{} where the EEPROM is {how}", words(one)), script, Kind::Usual);
    }
}

const HIGH_MEMORY: &str = "--platform=high-memory";

/// Requests on a computer with so much memory that a card does not reach all of it, where the others are made on one with little.
#[must_use]
pub fn exercises_beyond_reach(survey: &Survey, budget: u64) -> Vec<Exercise> {
    let mut plan = Plan::new(survey, budget, vec![HIGH_MEMORY.to_owned()]);
    let title = |what: &str| format!("{what} where memory lies beyond the card's reach");
    plan.add(title(START), "", Kind::Plain);
    let Some(name) = survey.names.first() else { return plan.all };
    for one in first_operations(survey) {
        let opened = opened(survey, name, &[one]);
        let script =
            format!("{opened}; {}; wait 50ms; {}; wait 50ms; {ENDED}", asks("a", one), asks("b", one));
        plan.add(title(&words(one)), script, Kind::Requests);
    }
    plan.all
}

/// So often each request is made before: of what they leave several are listed.
const BEFORE: usize = 6;

/// Requests of a program of 32 bits, whose structures are shorter than others': each of all sizes behind all that need nothing before them. Where a driver
/// gets a program's address (`METHOD_NEITHER`) it would be one that such a program does not have.
pub(super) fn of_32_bit_programs(survey: &Survey, name: &str, plan: &mut Plan) {
    if !survey.serves_32_bits {
        return;
    }
    plan.more = vec![PROGRAMS_OF_32_BITS.to_owned()];
    let of_32_bits = || {
        let is_apart = |code: u32| code & 3 == METHOD_NEITHER;
        first_operations(survey).filter(move |operation| !operation.code.is_some_and(is_apart))
    };
    let first = of_32_bits().filter(|one| one.needs.is_none()).flat_map(|one| [one; BEFORE]);
    let first = tried_in_turn(first.map(|one| &one.command));
    for one in of_32_bits() {
        let script = format!("{}; {}; {}", opened(survey, name, &[one]), first, sizes(survey, one));
        plan.add(format!("{} of all sizes by a program of 32 bits", words(one)), script, Kind::Sizes);
    }
    plan.more.clear();
}
