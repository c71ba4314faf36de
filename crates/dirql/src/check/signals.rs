//! What a script can do to the cards of a machine: what the surroundings of a model do to it, and to those of which nothing is known (model `pci`) raise their
//! pin, set registers of their windows, and raise a cause in all of them.
//!
//! The latter are asked, as a script is held against them: what is refused is not there.

use serde::{Deserialize, Serialize};

use super::survey::Extent;
use crate::bench::Bench;
use crate::play::ScriptText;

/// So many such cards are looked for.
const CARDS: u32 = 4;
/// So many messages of a card are tried.
const MESSAGES: u32 = 8;
/// So many windows a card has at most.
const WINDOWS: u32 = 6;

/// What raises causes of the interrupt of which it is not known where they are shown, and how they are taken back.
const CAUSE: &str = "cause";
/// The same of a card that has done what it was asked for.
const DONE: &str = "done";
/// The interrupt inputs of a bridge to a board of which nothing is known.
const INPUTS: [&str; 2] = ["cause1", "cause2"];
/// What all registers of a card or such a board show as it interrupts, besides one bit: no ones in all bits, which a card that is gone shows.
pub(super) const WIDE: [u32; 3] = [0x7FFF_FFFF, 0xFFFF, 0x8000_FFFF];

/// The bits that causes mostly have.
const LOW_BITS: u32 = 8;

/// What has the EEPROM of a bridge answer nothing, or ones alone, and how it is then.
pub(super) const STUCK_EEPROM: [(&str, &str); 2] = [("eeprom-silent", "silent"), ("eeprom-erased", "erased")];

/// What has the registers of a board of which nothing is known show bits.
const SHOWS: &str = "shows";

/// What a script can do to the cards of a machine.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Signals {
    /// Those of `pci` cards, as `poke` has them: `pci#0 pulse`, `pci#0 bar2`.
    pub of_unknown: Vec<String>,
    /// Messages of such cards: `pci#0 message 3`.
    pub messages: Vec<String>,
    /// Bridges behind which a board stands of which nothing is known: `pci9052#0`.
    pub boards: Vec<String>,
    /// What the surroundings of the others do; only where everything is surveyed.
    pub outside: Vec<Outside>,
}

impl Signals {
    /// Those of the machine to be, as far as such a survey looks at them.
    #[must_use]
    pub fn of(bench: &Bench, extent: Extent) -> Self {
        let takes = |command: &str| {
            let play = ScriptText::typed(command).play();
            play.is_ok_and(|play| bench.check(&play).is_ok())
        };
        let models = devices::catalog().iter();
        let cards: Vec<_> = models.flat_map(|entry| (0..CARDS).map(move |card| (entry, card))).collect();
        let names = cards.iter().filter(|(entry, _)| entry.signals.iter().any(|signal| signal.name == SHOWS));
        let names = names.map(|(entry, card)| format!("{}#{card}", entry.name));
        let outside = cards.iter().filter(|_| extent == Extent::Everything);
        Self {
            of_unknown: of_unknown(&takes),
            messages: messages(&takes),
            boards: names.filter(|name| takes(&format!("poke {name} {SHOWS} 0"))).collect(),
            outside: outside.flat_map(|(entry, card)| of_known(entry, *card, &takes)).collect(),
        }
    }
}

fn of_unknown(takes: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for card in 0..CARDS {
        let has_pin = takes(&format!("poke pci#{card} irq 0"));
        if !has_pin && !takes(&format!("poke pci#{card} bar0+0 0")) {
            continue;
        }
        let windows = (0..WINDOWS).filter(|window| takes(&format!("poke pci#{card} bar{window}+0 0")));
        found.extend(windows.map(|window| format!("pci#{card} bar{window}")));
        if has_pin {
            found.push(format!("pci#{card} pulse"));
        }
    }
    found
}

fn messages(takes: &dyn Fn(&str) -> bool) -> Vec<String> {
    let all =
        (0..CARDS).flat_map(|card| (0..MESSAGES).map(move |number| format!("pci#{card} message {number}")));
    all.filter(|message| takes(&format!("poke {message}"))).collect()
}

fn of_known(entry: &devices::Entry, card: u32, takes: &dyn Fn(&str) -> bool) -> Vec<Outside> {
    let signals = entry.signals.iter().filter(|signal| signal.usual.len() > 1);
    let all = signals.map(|signal| Outside {
        device: format!("{}#{card}", entry.name),
        signal: signal.name.to_owned(),
        values: signal.usual.to_vec(),
    });
    all.filter(|outside| takes(&outside.first())).collect()
}

/// What a card's surroundings do to it while all is well.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Outside {
    /// The card: `pci9052#0`.
    pub device: String,
    /// As `poke` has it: `linti1`.
    pub signal: String,
    /// Its values, one after the other: two or more.
    pub values: Vec<u64>,
}

/// Whether registers show what is guessed at in a script: no card takes it back that a driver waits for.
pub(super) fn raises_a_guess(script: &str) -> bool {
    let pokes = script.split(';').filter_map(|command| command.split_once("poke "));
    let mut signals = pokes.filter_map(|(_, poke)| poke.split(' ').nth(1));
    let is_guess = |signal: &str| [CAUSE, DONE, SHOWS].contains(&signal) || INPUTS.contains(&signal);
    signals.any(|signal| is_guess(signal) || signal.starts_with("bar"))
}

/// Those of these cards that have an interrupt pin.
pub(super) fn cards_with_pins(signals: &[String]) -> impl Iterator<Item = &str> {
    signals.iter().filter_map(|signal| signal.strip_suffix(" pulse"))
}

/// Causes of the interrupts of cards of which nothing is known: one bit each, which goes by itself if it is not taken back.
pub(super) fn guessed_causes(signals: &[String]) -> Vec<Outside> {
    of_one_bit_each(signals, CAUSE).collect()
}

/// As these, and what a card raises that has done what it was asked for, and what a board of which nothing is known does while its registers show bits.
pub(super) fn all_guessed_causes(signals: &[String], boards: &[String]) -> Vec<Outside> {
    let of_boards = boards.iter().flat_map(|board| {
        let words = WIDE.into_iter().chain((1..u32::BITS).map(|bit| 1 << bit));
        let of_first = words.map(move |bits| Outside::cause(board, INPUTS[0], bits));
        of_first.chain(WIDE.map(|bits| Outside::cause(board, INPUTS[1], bits)))
    });
    let of_cards = of_one_bit_each(signals, CAUSE).chain(of_one_bit_each(signals, DONE));
    of_cards.chain(of_boards).collect()
}

fn of_one_bit_each<'s>(signals: &'s [String], signal: &'s str) -> impl Iterator<Item = Outside> + 's {
    let of = move |card| (0..u32::BITS).map(move |bit| Outside::cause(card, signal, 1 << bit));
    cards_with_pins(signals).flat_map(of)
}

/// An interrupt of each of these cards, and by each input of these boards, one after the other, at which all registers show one bit; and these.
pub(super) fn interrupt_of_each(signals: &[String], boards: &[String], more: &[Outside]) -> Vec<String> {
    let of_cards = cards_with_pins(signals).map(|card| format!("poke {card} {CAUSE} 1; wait 1ms"));
    let of_boards = boards.iter().flat_map(|board| {
        INPUTS.map(|input| format!("poke {board} {input} 1; wait 1ms; poke {board} {input} 0"))
    });
    of_cards.chain(of_boards).chain(more.iter().map(Outside::steps)).collect()
}

/// Causes of the interrupts of each of these cards and boards: the first at which all registers show one bit, and others by which a driver may do more.
pub(super) fn causes_of_each(signals: &[String], boards: &[String]) -> Vec<Vec<Outside>> {
    let words = || [1].into_iter().chain(WIDE).chain((1..u32::BITS).map(|bit| 1 << bit));
    let of = |device: &str, signal: &str| words().map(|bits| Outside::cause(device, signal, bits)).collect();
    let of_cards = cards_with_pins(signals).map(|card| of(card, CAUSE));
    of_cards.chain(boards.iter().map(|board| of(board, INPUTS[0]))).collect()
}

impl Outside {
    /// A cause of an interrupt that is guessed at: bits that registers show, and that go.
    fn cause(device: &str, signal: &str, bits: u32) -> Self {
        Self { device: device.to_owned(), signal: signal.to_owned(), values: vec![bits.into(), 0] }
    }

    /// The same with one bit more of the low ones, or with many.
    pub(super) fn with_others(&self) -> Vec<Self> {
        let own = self.values.first().copied().unwrap_or_default();
        let more = (0..LOW_BITS).map(|bit| 1 << bit).chain(WIDE.map(u64::from));
        let others = more.filter(|bits| bits & !own != 0);
        others.map(|bits| Self { values: vec![own | bits, 0], ..self.clone() }).collect()
    }

    /// Whether that is what such a card does. One that is guessed at may be taken back by what the driver writes for another purpose.
    pub(super) fn is_sure(&self) -> bool {
        let is_guessed = self.ends_by_accesses() && self.values[0] > 1;
        ![CAUSE, DONE].contains(&self.signal.as_str()) && !is_guessed
    }

    /// The same input of a board of which nothing is known, while its registers show many bits besides.
    pub(super) fn with_bits(&self) -> Option<Self> {
        self.ends_by_accesses().then(|| Self::cause(&self.device, &self.signal, WIDE[0]))
    }

    /// Whether accesses to the board end it, whatever they are made for.
    pub(super) fn ends_by_accesses(&self) -> bool {
        INPUTS.contains(&self.signal.as_str())
    }

    /// Whether it is what such a card does, and goes by nothing that the driver accesses for another purpose: what it ends is owed beside other requests, too.
    pub(super) fn stays(&self) -> bool {
        self.is_sure() && !self.ends_by_accesses()
    }

    /// As a script has it, value by value.
    #[must_use]
    pub fn steps(&self) -> String {
        self.pokes(&self.values, "; wait 1ms; ")
    }

    /// The first value alone.
    #[must_use]
    pub fn first(&self) -> String {
        self.pokes(&self.values[..1], "")
    }

    /// The values behind the first; there is at least one.
    #[must_use]
    pub fn rest(&self) -> String {
        self.pokes(&self.values[1..], "; ")
    }

    fn pokes(&self, values: &[u64], between: &str) -> String {
        let Self { device, signal, .. } = self;
        let pokes = values.iter().map(|value| format!("poke {device} {signal} {value}"));
        pokes.collect::<Vec<_>>().join(between)
    }
}
