//! What a script can do to the cards of a machine to be of which nothing is known (model `pci`): raise their pin, and set registers of their windows.
//!
//! The cards are asked, as a script is held against them: what is refused is not there.

use crate::bench::Bench;
use crate::play::ScriptText;

/// So many such cards are looked for.
const CARDS: u32 = 4;
/// So many windows a card has at most.
const WINDOWS: u32 = 6;

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
