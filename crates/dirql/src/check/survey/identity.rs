//! What a card of which nothing is known has in its registers, or a board behind a bridge in its memory, so that the driver starts with it: an identification, a
//! version, a bit that says that it is ready.
//!
//! Each register holds a number of its own, so a number that the driver compares tells which register it comes from, and what it is compared with is put
//! there, as with the input of requests ([`super::super::wanted`]). What has the driver start is kept; or what leads it to most comparisons that it has not
//! come to before, behind which the next is looked for.

use std::collections::BTreeSet;

use engine::{Asked, Compare};

use super::Survey;
use crate::error::Error;
use crate::machine::Boots;

/// The only card of which nothing is known that is looked at, and the only bridge.
const CARD: &str = "pci#0";
const BRIDGE: &str = "pci9052#0";
/// So many registers of each window, of four bytes, are looked at.
const REGISTERS: u64 = 256;
/// The memory of the bridge's board, as `poke` has it: where its first window shows it, and its second one (64 words, of which the last two are not memory).
const LOCAL: &str = "local";
const SECOND: (u64, u64) = (0xFF00, 62);
/// So much more or less than what a register holds may be what is compared.
const BESIDE: u32 = 16;
/// So many are found, and so many values are tried for each.
const ROUNDS: usize = 4;
const TRIALS: usize = 16;
/// By so much times its number from 1 on, one register's number differs from the next one's: the lower halves of all of them do, too.
const APART: u32 = 0x9E37_79B1;

/// A register, or a word of memory, and what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Register {
    /// As `poke` has it: `bar0`, `local`.
    window: String,
    offset: u64,
    value: u32,
}

impl Register {
    fn is_same(&self, other: &Self) -> bool {
        (&self.window, self.offset) == (&other.window, other.offset)
    }
}

/// The keys of the only card of which nothing is known, or of the only bridge, by which its driver starts, as in `reg0=0:57415645+10:1`; none if there is no such
/// card, or none is found.
///
/// # Errors
/// As [`Boots::boot`].
pub(super) fn identity(boots: &mut Boots, survey: &Survey) -> Result<Vec<String>, Error> {
    let named = survey.signals.iter().filter_map(|signal| signal.split_once(' '));
    let windows: Vec<(&str, &str)> = named.filter(|(_, window)| window.starts_with("bar")).collect();
    let places: Vec<(&str, u64)> = match survey.devices.as_slice() {
        [card] if card == CARD => {
            windows.iter().flat_map(|(_, window)| (0..REGISTERS).map(move |at| (*window, 4 * at))).collect()
        }
        [card] if card == BRIDGE => {
            let (second, words) = SECOND;
            let first = (0..REGISTERS).map(|at| 4 * at);
            first.chain((0..words).map(|at| second + 4 * at)).map(|at| (LOCAL, at)).collect()
        }
        _ => return Ok(Vec::new()),
    };
    let card = &survey.devices[0];
    let numbered: Vec<Register> = (1..)
        .zip(places)
        .map(|(number, (window, offset))| {
            let value = APART.wrapping_mul(number);
            Register { window: window.to_owned(), offset, value }
        })
        .collect();
    let mut held: Vec<Register> = Vec::new();
    boots.note_compares(true);
    for _ in 0..ROUNDS {
        let is_free = |one: &&Register| !held.iter().any(|other| other.is_same(one));
        let free: Vec<Register> = numbered.iter().filter(is_free).cloned().collect();
        let (_, compared) = boots.boot_holding(card, &pokes(held.iter().chain(&free)))?;
        let (_, usual) = boots.boot_holding(card, &pokes(&held))?;
        let known: BTreeSet<u64> = usual.iter().map(|compare| compare.rip).collect();
        let mut furthest: Option<(usize, Register)> = None;
        let mut tried: Vec<Register> = Vec::new();
        for register in compared.iter().rev().flat_map(|compare| wanted(compare, &free)) {
            if tried.len() == TRIALS {
                break;
            }
            if tried.contains(&register) {
                continue;
            }
            tried.push(register.clone());
            let (is_ready, compared) = boots.boot_holding(card, &pokes(held.iter().chain([&register])))?;
            if is_ready {
                held.push(register);
                boots.note_compares(false);
                return Ok(keys(&held));
            }
            let sites: BTreeSet<u64> = compared.iter().map(|compare| compare.rip).collect();
            let fresh = sites.difference(&known).count();
            if fresh > furthest.as_ref().map_or(0, |(most, _)| *most) {
                furthest = Some((fresh, register));
            }
        }
        let Some((_, register)) = furthest else { break };
        held.push(register);
    }
    boots.note_compares(false);
    Ok(Vec::new())
}

/// What may be wanted in a register for a comparison to come out otherwise: the number itself, or where it is only limited, one beside it.
fn wanted(compare: &Compare, numbered: &[Register]) -> Vec<Register> {
    let mut found = Vec::new();
    for (own, other) in [(compare.left, compare.right), (compare.right, compare.left)] {
        let Ok(own) = u32::try_from(own) else { continue };
        let values = match compare.asked {
            Asked::Order => vec![other, other.wrapping_add(1), other.wrapping_sub(1)],
            Asked::Bits => vec![other],
            Asked::DueTime | Asked::Handle | Asked::Address => continue,
        };
        let half = |one: &&Register| one.value & 0xFFFF == own || one.value >> 16 == own;
        // A little is added before a comparison with two limits.
        let beside = |one: &&Register| one.value.wrapping_sub(own).wrapping_add(BESIDE) <= 2 * BESIDE;
        let whole = numbered.iter().find(|one| one.value == own);
        let one = whole.or_else(|| numbered.iter().find(half)).or_else(|| numbered.iter().find(beside));
        let Some(one) = one else { continue };
        let is_upper = one.value != own && one.value >> 16 == own;
        let is_half = is_upper || one.value & 0xFFFF == own;
        let added = if is_half { 0 } else { one.value.wrapping_sub(own) };
        found.extend(values.into_iter().filter_map(|value| {
            let value = u32::try_from(value & u64::from(u32::MAX)).ok()?.wrapping_add(added);
            let value = if is_upper { value << 16 } else { value };
            (value != 0).then(|| Register { value, ..one.clone() })
        }));
    }
    found
}

/// What is poked: which register, and what it holds then.
fn pokes<'r>(registers: impl IntoIterator<Item = &'r Register>) -> Vec<(String, u32)> {
    registers.into_iter().map(|one| (format!("{}+{:x}", one.window, one.offset), one.value)).collect()
}

/// As a card's description has it.
fn keys(registers: &[Register]) -> Vec<String> {
    let windows: BTreeSet<&String> = registers.iter().map(|one| &one.window).collect();
    let key = |window: &&String| {
        let own = registers.iter().filter(|one| one.window == **window);
        let held = own.map(|one| format!("{:x}:{:x}", one.offset, one.value)).collect::<Vec<_>>().join("+");
        if *window == LOCAL {
            return Some(format!("holds={held}"));
        }
        let number = window.strip_prefix("bar")?;
        Some(format!("reg{number}={held}"))
    };
    windows.iter().filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_known_by_its_number_and_by_half_of_it() {
        let of = |offset, number: u32| Register {
            window: "bar2".to_owned(),
            offset,
            value: APART.wrapping_mul(number),
        };
        let numbered = [of(0, 1), of(4, 2), of(8, 3)];
        let compare =
            |asked, left: u32, right: u64| Compare { rip: 1, bytes: 4, asked, left: left.into(), right };
        let first = |asked, left, right| {
            wanted(&compare(asked, left, right), &numbered).first().map(|one| (one.offset, one.value))
        };
        let second = APART.wrapping_mul(2);
        assert_eq!(first(Asked::Order, second, 0x5741_5645), Some((4, 0x5741_5645)));
        assert_eq!(first(Asked::Order, second & 0xFFFF, 0x77), Some((4, 0x77)));
        assert_eq!(first(Asked::Order, second >> 16, 0x77), Some((4, 0x77_0000)));
        assert_eq!(first(Asked::Bits, second, 8), Some((4, 8)));
        assert_eq!(first(Asked::Order, second.wrapping_sub(1), 15), Some((4, 16)));
        assert_eq!(first(Asked::Order, 12, 8), None);
        assert_eq!(keys(&[of(0, 1), of(8, 1)]), ["reg2=0:9e3779b1+8:9e3779b1"]);
    }
}
