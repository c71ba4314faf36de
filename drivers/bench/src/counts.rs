//! What the service routines count, and the answer that holds it.
//!
//! Counters of the chip's are shared by all routines. Each routine also counts in a state of its own, by plain numbers: both agree
//! only if no other routine is in that state meanwhile.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use wdm::zerocopy;

use crate::MESSAGES;

/// What all routines count together.
#[derive(Default)]
pub(crate) struct Counts {
    /// Calls that served something, by source.
    served: [AtomicU32; MESSAGES],
    inside: AtomicU32,
    /// The most routines that ran at once.
    most: AtomicU32,
    /// Calls that found nothing to do.
    passed: AtomicU32,
}

impl Counts {
    /// A routine begins.
    pub(crate) fn begin(&self) {
        let inside = self.inside.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(inside, Relaxed);
    }

    /// A routine ends; it served these sources.
    pub(crate) fn end(&self, sources: u32) {
        for (source, count) in self.served.iter().enumerate() {
            if sources & 1 << source != 0 {
                count.fetch_add(1, Relaxed);
            }
        }
        if sources == 0 {
            self.passed.fetch_add(1, Relaxed);
        }
        self.inside.fetch_sub(1, Relaxed);
    }

    /// How often this source was served.
    pub(crate) fn served(&self, source: u32) -> u32 {
        self.served.get(source as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// With how the interrupts are connected: version, how many connections, level, and what the routines' own states say.
    pub(crate) fn tell(&self, version: u32, connections: u32, level: u8, own: u32) -> Counted {
        let served = core::array::from_fn(|source| self.served(source.try_into().unwrap_or(u32::MAX)));
        let (most, passed) = (self.most.load(Relaxed), self.passed.load(Relaxed));
        Counted { version, connections, level: level.into(), most, passed, own, served }
    }
}

/// What function 901h tells.
#[derive(zerocopy::IntoBytes, zerocopy::Immutable)]
#[zerocopy(crate = "wdm::zerocopy")]
#[repr(C)]
pub(crate) struct Counted {
    /// `CONNECT_*`.
    version: u32,
    connections: u32,
    /// Of the routine; of several the highest.
    level: u32,
    /// The most routines that ran at once.
    most: u32,
    passed: u32,
    /// Calls that served something, as the routines' own states have them.
    own: u32,
    served: [u32; MESSAGES],
}
