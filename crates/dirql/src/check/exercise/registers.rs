//! What the registers of cards show of which nothing is known: bits in all of them, as they interrupt. Counts, addresses and lengths that a driver takes from
//! its card are great then, and what it takes for an error or for an overrun is said.

use super::super::signals::{WIDE, cards_with_pins};
use super::super::survey::Survey;
use super::RACES;
use super::effort::{Kind, Plan};
use super::inputs_and_lengths::{ODD_MEMORY, of_a_page, of_odd_length, of_other_length, of_several_pages};
use super::steps::{asks, first_operations, open, opened, tried_in_turn, words};

/// What all registers hold before requests are made: counts and states, and no interrupt.
const HELD: [u32; 4] = [0x7FFF_FFFF, 0xFFFF, 0x100, 1];
/// What they hold for a while, as of a card that is ready or has data then, by its lower bits or by its highest, and has nothing more afterwards. What takes some
/// of that has not all that it was asked for when its time is over.
const HELD_SHORTLY: [u32; 2] = [0x7FFF_FFFF, 0x8000_FFFF];
const SHORTLY: &str = "20ms";
/// Bytes that are more than a driver hands its card at once.
const LONG: u32 = 0x2_8000;
/// So many registers of each window.
pub(super) const REGISTERS: u32 = 16;

/// So many interrupts come in a row.
const INTERRUPTS: usize = 6;

/// Each of these, to an idle driver and while a request is under way.
pub(super) fn registers_show(survey: &Survey, name: &str, plan: &mut Plan) {
    for board in &survey.boards {
        let shows = |word: u32| {
            format!("poke {board} shows {word:#x}; poke {board} cause1 1; wait 1ms; poke {board} cause1 0")
        };
        let bits: Vec<String> = (0..u32::BITS).map(|bit| shows(1 << bit)).collect();
        let script = format!("{}; {}; close h", open(name), bits.join("; "));
        plan.add(
            format!("interrupts of {board} with one bit in all registers of its board"),
            script,
            Kind::Little,
        );
        with_requests(survey, name, plan, &shows);
    }
    for card in cards_with_pins(&survey.signals) {
        with_requests(survey, name, plan, &|word| format!("poke {card} cause {word:#x}; wait 1ms"));
    }
    let held = |word: u32| {
        let shown = survey.boards.iter().map(|board| format!("poke {board} shows {word:#x}"));
        hold(survey, word).into_iter().chain(shown).collect::<Vec<String>>().join("; ")
    };
    if held(0).is_empty() {
        return;
    }
    for (one, word) in
        first_operations(survey).flat_map(|one| HELD_SHORTLY.into_iter().map(move |word| (one, word)))
    {
        let [hold, release] = [word, 0].map(&held);
        // One is as long as drivers take, the other longer than most.
        let each = |command: &str| {
            format!("{hold}; async a {command}; wait {SHORTLY}; {release}; wait 3s; cancel h; join a")
        };
        let script = format!(
            "{}; {}; {}; close h",
            opened(survey, name, &[one]),
            each(&of_a_page(one)),
            each(&of_several_pages(one))
        );
        plan.add(
            format!("{} while all registers hold {word:#x} for a while", words(one)),
            script,
            Kind::Little,
        );
    }
    for word in HELD {
        // Each comes behind each: one may start what another one needs.
        let others = || first_operations(survey).flat_map(|one| [of_several_pages(one), of_odd_length(one)]);
        let requests =
            first_operations(survey).flat_map(|one| std::iter::once(one.command.clone()).chain(others()));
        let requests = tried_in_turn(requests);
        let script = format!("{}; {ODD_MEMORY}; {}; {requests}; close h", open(name), held(word));
        plan.add(format!("requests while all registers hold {word:#x}"), script, Kind::Little);
        let long = tried_in_turn(first_operations(survey).filter_map(|one| of_other_length(one, LONG)));
        if !long.is_empty() {
            let script = format!("{}; {}; {long}; close h", open(name), held(word));
            plan.add(format!("long requests while all registers hold {word:#x}"), script, Kind::Usual);
        }
    }
}

/// How all registers of the cards of which nothing is known come to hold this word, one after the other; the driver may change it. Those by which the driver
/// knows its card stay as they are, but where all are ones, as of a card that has gone.
pub(super) fn hold(survey: &Survey, word: u32) -> Vec<String> {
    hold_by(survey, &|_| word)
}

/// As [`hold`], each the word of its place in its window.
pub(super) fn hold_by(survey: &Survey, word_at: &dyn Fn(u32) -> u32) -> Vec<String> {
    let windows = survey.signals.iter().filter(|signal| !signal.ends_with(" pulse"));
    let registers = windows.flat_map(|window| (0..REGISTERS).map(move |at| (window, 4 * at)));
    let words = registers.map(|(window, at)| (window, at, word_at(at)));
    let held = words.filter(|(window, at, word)| *word == u32::MAX || !is_identity(survey, window, *at));
    held.map(|(window, at, word)| format!("poke {window}+{at:x} {word}")).collect()
}

/// Whether it is one of [`Survey::identity`], which has its window's number and its place, as in `reg0=0:57415645+10:1`.
fn is_identity(survey: &Survey, window: &str, at: u32) -> bool {
    let keys = survey.identity.iter().filter_map(|key| key.strip_prefix("reg")?.split_once('='));
    let mut own = keys.filter(|(number, _)| window.ends_with(&format!(" bar{number}")));
    own.any(|(_, held)| held.split('+').any(|one| one.starts_with(&format!("{at:x}:"))))
}

fn with_requests(survey: &Survey, name: &str, plan: &mut Plan, shows: &dyn Fn(u32) -> String) {
    for word in WIDE {
        let shown = shows(word);
        let title = format!("interrupts with {word:#x} in all registers");
        plan.add(title.clone(), format!("{}; {shown}; close h", open(name)), Kind::Little);
        for one in first_operations(survey) {
            let opened = opened(survey, name, &[one]);
            // What a board's registers show stays: the second time it is there before the request, and before one whose data fill several pages.
            let script = format!(
                "{opened}; {}; wait 1ms; {shown}; cancel h; join a; {}; wait 1ms; {shown}; cancel h; join b; async c {}; wait 1ms; {shown}; cancel h; join c; close h",
                asks("a", one),
                asks("b", one),
                of_several_pages(one)
            );
            plan.add(format!("{} and {title}", words(one)), script, Kind::Little);
            // One comes while what is done about that before it goes on, on another processor.
            let many = [shown.as_str(); INTERRUPTS].join("; ");
            let script = format!(
                "{opened}; {}; {}; wait 1ms; {many}; cancel h; join a; join b; close h",
                asks("a", one),
                asks("b", one)
            );
            plan.more = vec![RACES.to_owned()];
            plan.add(format!("{} and {INTERRUPTS} {title}", words(one)), script, Kind::Quick);
            plan.more.clear();
        }
    }
}
