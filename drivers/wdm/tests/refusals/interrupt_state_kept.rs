//! The state of a service routine does not leave its lock.
use wdm::*;

struct Isr(u32);

impl Service for Isr {
    fn service(&mut self, _dirql: &mut Dirql) -> Claim {
        Claim::Mine
    }
}

fn keep<'a>(interrupt: &'a Interrupt<Isr>, dispatch: &mut Dispatch) -> &'a mut Isr {
    interrupt.synchronize(dispatch, |isr, _dirql| isr)
}

fn main() {}
