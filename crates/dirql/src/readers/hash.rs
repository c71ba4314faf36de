//! One number for a whole run: two runs with the same inputs have the same, on every machine and under every address
//! randomisation of the host.
//!
//! FNV-1a of 128 bits over the events' JSON lines, symbols left out. It compares runs; it is no defence against forgery.

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;

use kernel::event::{Event, Kind, Reader, Stamp};

use super::json::line;

const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// FNV-1a, 128 bits, of `bytes` after what `hash` stands for already; begin with `None`.
#[must_use]
pub fn fnv128(hash: Option<u128>, bytes: &[u8]) -> u128 {
    bytes.iter().fold(hash.unwrap_or(BASIS), |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

/// Hashes every event. A clone is the same hash.
#[derive(Clone, Default)]
pub struct TraceHash(Rc<Cell<Option<u128>>>);

impl TraceHash {
    /// The hash of all events so far.
    #[must_use]
    pub fn value(&self) -> u128 {
        self.0.get().unwrap_or(BASIS)
    }
}

impl Reader for TraceHash {
    fn wants(&self, _kind: Kind) -> bool {
        true
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        let text = line(stamp, event, None);
        self.0.set(Some(fnv128(Some(fnv128(self.0.get(), text.as_bytes())), b"\n")));
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.0.get()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        if let Some(hash) = saved.downcast_ref() {
            self.0.set(*hash);
        }
    }
}
