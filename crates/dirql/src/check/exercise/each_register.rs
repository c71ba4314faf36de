//! Registers of a card of which nothing is known hold different words, each for a while and at an interrupt: one says that the card is ready, or is not, and
//! another one counts or measures. What a driver takes from the second it takes only if the first allows it, which no word in all of them does.

use engine::mixed;

use super::super::signals::cards_with_pins;
use super::super::survey::Survey;
use super::effort::{Kind, Plan};
use super::registers::{REGISTERS, hold_by};
use super::steps::{asks, first_operations, opened, words};

/// What a register holds: nothing, one low bit, counts, and much without one bit or another.
const WORDS: [u32; 8] = [0, 1, 2, 0x100, 0xFFFF, 0x7FFF_FFFE, 0x7FFF_FFFF, 0x8000_0000];
/// So many states of all registers, one after the other.
const STATES: u64 = 12;
/// An interrupt stays for so many accesses of the driver.
const ACCESSES: u32 = 8;

/// Each request under way in each of these states.
pub(super) fn each_register_holds(survey: &Survey, name: &str, plan: &mut Plan) {
    let interrupts = interrupts(survey);
    if interrupts.is_empty() {
        return;
    }
    for one in first_operations(survey) {
        let states = (0..STATES).map(|state| {
            let before = hold_all(survey, state);
            format!(
                "{before}; {}; wait 1ms; {interrupts}; wait 1ms; cancel h; join r{state}",
                asks(&format!("r{state}"), one)
            )
        });
        let states: Vec<String> = states.collect();
        let script = format!("{}; {}; close h", opened(survey, name, &[one]), states.join("; "));
        plan.add(format!("{} while registers hold different words", words(one)), script, Kind::Little);
    }
}

/// An interrupt of each card, and of each board.
fn interrupts(survey: &Survey) -> String {
    let of_cards = cards_with_pins(&survey.signals).map(|card| format!("poke {card} pulse {ACCESSES}"));
    let of_boards =
        survey.boards.iter().map(|board| format!("poke {board} cause1 1; wait 1ms; poke {board} cause1 0"));
    of_cards.chain(of_boards).collect::<Vec<_>>().join("; ")
}

/// How all registers come to hold what they do in this state.
fn hold_all(survey: &Survey, state: u64) -> String {
    let word_at = |at: u32| WORDS[usize::try_from(mixed(state, at.into()) % 8).unwrap_or(0)];
    let of_boards = survey.boards.iter().flat_map(|board| {
        let all = (0..REGISTERS).map(|place| 4 * place);
        all.map(move |at| format!("poke {board} local+{at:x} {}", word_at(at)))
    });
    let of_cards = hold_by(survey, &|at| word_at(at)).into_iter();
    of_cards.chain(of_boards).collect::<Vec<_>>().join("; ")
}
