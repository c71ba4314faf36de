//! Interrupts are connected at PASSIVE_LEVEL.
use wdm::*;

struct Isr;

impl Service for Isr {
    fn service(&mut self, _dirql: &mut Dirql) -> Claim {
        Claim::Mine
    }
}

fn dpc<T>(device: &Device<T>, line: &InterruptLine, dispatch: &mut Dispatch) {
    let _ = Interrupt::connect(device, line, Isr, Tag::new(b"line"), dispatch);
}

fn main() {}
