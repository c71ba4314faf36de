//! What is the device's now may be another's after a stop.
use wdm::*;

struct Card {
    range: Slot<MemoryRange<'static>>,
}

fn start(card: &Card, resources: &Resources<'_>) {
    if let Some(range) = resources.memory() {
        let _ = card.range.put(range);
    }
}

fn main() {}
