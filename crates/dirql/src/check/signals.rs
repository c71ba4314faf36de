//! What a script can do to the cards of a machine: what the surroundings of a model do to it, and to those of which nothing is known (model `pci`) raise their
//! pin, set registers of their windows, and raise a cause in all of them.
//!
//! The latter are asked, as a script is held against them: what is refused is not there.

use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::play::ScriptText;

/// So many such cards are looked for.
const CARDS: u32 = 4;
/// So many windows a card has at most.
const WINDOWS: u32 = 6;

/// What raises causes of the interrupt of which it is not known where they are shown.
const CAUSE: &str = "cause";

/// The signals of the `pci` cards, as `poke` has them: `pci#0 pulse`, `pci#0 bar2`.
#[must_use]
pub fn signals(bench: &Bench) -> Vec<String> {
    let takes = |command: String| {
        let play = ScriptText::typed(&command).play();
        play.is_ok_and(|play| bench.check(&play).is_ok())
    };
    let mut found = Vec::new();
    for card in 0..CARDS {
        if !takes(format!("poke pci#{card} bar0+0 0")) && !takes(format!("poke pci#{card} irq 0")) {
            continue;
        }
        let windows = (0..WINDOWS).filter(|window| takes(format!("poke pci#{card} bar{window}+0 0")));
        found.extend(windows.map(|window| format!("pci#{card} bar{window}")));
        if takes(format!("poke pci#{card} irq 0")) {
            found.push(format!("pci#{card} pulse"));
        }
    }
    found
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

/// Causes of the interrupts of cards of which nothing is known: one bit each, which goes by itself if it is not taken back.
pub(super) fn guessed_causes(signals: &[String]) -> Vec<Outside> {
    let cards = signals.iter().filter_map(|signal| signal.strip_suffix(" pulse"));
    let bits = |card: &str| {
        let cause = |bit: u32| Outside {
            device: card.to_owned(),
            signal: CAUSE.to_owned(),
            values: vec![1 << bit, 0],
        };
        (0..u32::BITS).map(cause).collect::<Vec<_>>()
    };
    cards.flat_map(bits).collect()
}

impl Outside {
    /// Whether that is what such a card does. One that is guessed at may be taken back by what the driver writes for another purpose.
    pub(super) fn is_sure(&self) -> bool {
        self.signal != CAUSE
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

/// What the surroundings do to these devices.
#[must_use]
pub fn outside(devices: &[String]) -> Vec<Outside> {
    let mut found = Vec::new();
    for device in devices {
        let model = device.split('#').next();
        let Some(entry) = devices::catalog().iter().find(|entry| Some(entry.name) == model) else { continue };
        for signal in entry.signals.iter().filter(|signal| signal.usual.len() > 1) {
            let (signal, values) = (signal.name.to_owned(), signal.usual.to_vec());
            found.push(Outside { device: device.clone(), signal, values });
        }
    }
    found
}
