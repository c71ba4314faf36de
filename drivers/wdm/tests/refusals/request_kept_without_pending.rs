//! A request that is kept is marked pending first.
use wdm::*;

struct Card {
    kept: Slot<Irp<'static>>,
}

fn keep(card: &Card, irp: Irp<'_>) {
    let _ = card.kept.put(irp);
}

fn main() {}
