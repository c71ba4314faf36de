//! Pages do not stay when their request has gone elsewhere.
use wdm::*;

struct Card {
    pages: Slot<Destination<'static>>,
}

fn keep(card: &Card, irp: &PendingIrp, level: &mut DispatchOrBelow) {
    let Ok(pages) = irp.destination(level) else { return };
    let _ = card.pages.put(pages);
}

fn main() {}
