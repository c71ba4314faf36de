//! How much of its memory a machine has given out, and what happens when there is no more.
//!
//! Page: *MmGetPhysicalMemoryRanges function*, for how much a real one has. What counts is whatever a driver or an application can
//! make grow: pages, and besides them what the host must remember of each small block, the registry's values, and names. Beyond the
//! limit the call that asked fails, as Windows' does, and that is reported once. A second limit is the host's: it has 65,530 areas of
//! memory in a process, and pages that do not follow each other are an area each; beyond that a call fails, too, and the run says
//! that it is dirql's limit.

use super::dense::CROWDED;
use crate::cx::Cx;
use crate::verdict::Verdict;

/// The bytes of a machine that is given no other number.
pub const USUAL: u64 = 192 << 20;
/// The areas that memory of the machine may have; the rest of the host's are its own, and for stacks of strands: two each, of as many
/// as have a guard (`engine`'s `strand`).
const MOST_AREAS: usize = 42_000;
/// Strands that there is room for.
const MOST_STRANDS: usize = 30_000;

/// What of each only the system's own threads get, without which nothing could end in order: applications' and workers'.
const RESERVE: (u64, usize, usize) = (1 << 20, 1_000, 1_000);

/// What of a machine's memory is given out.
pub struct Memory {
    limit: u64,
    used: u64,
    /// A call has failed for it, and that is not reported yet; it is reported.
    refused: bool,
    reported: bool,
    areas: usize,
    strands: usize,
    /// What of the host's there is too little of.
    lacks: Option<&'static str>,
    /// The system asks for itself.
    for_system: bool,
}

impl Memory {
    /// With so many bytes.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            refused: false,
            reported: false,
            areas: 0,
            strands: 0,
            lacks: None,
            for_system: false,
        }
    }

    /// Takes so many bytes; false, and nothing is taken, if there are not so many.
    #[must_use]
    pub fn take(&mut self, bytes: u64) -> bool {
        let reserve = if self.for_system { 0 } else { RESERVE.0 };
        let enough = bytes <= self.limit.saturating_sub(self.used).saturating_sub(reserve);
        self.used += if enough { bytes } else { 0 };
        self.refused |= !enough;
        enough
    }

    /// Whether less than `1 / 2^share` of it is left besides the reserve; noted as refused, then. None: never.
    pub(super) fn is_scarce(&mut self, share: Option<u32>) -> bool {
        let scarce = share
            .is_some_and(|share| self.limit.saturating_sub(self.used) < RESERVE.0 + (self.limit >> share));
        self.refused |= scarce;
        scarce
    }

    /// Whether so many bytes and areas, and a strand, could be taken; noted as refused if not.
    #[must_use]
    pub(crate) fn has(&mut self, bytes: u64, areas: usize) -> bool {
        let enough = self.take(bytes) && self.take_areas(areas) && self.take_strand();
        if enough {
            self.give(bytes);
            self.give_areas(areas);
            self.give_strand();
        }
        enough
    }

    /// What is taken from here on is the system's own (or not any more), which has some in reserve.
    pub(crate) fn set_for_system(&mut self, on: bool) {
        self.for_system = on;
    }

    /// Whether more than half of it is left.
    pub(super) const fn is_plenty(&self) -> bool {
        self.used < self.limit / 2
    }

    /// Gives back what was taken.
    pub fn give(&mut self, bytes: u64) {
        // Memory of the boot was never counted as used.
        self.used = self.used.saturating_sub(bytes);
    }

    /// Takes so many of the host's areas; false, and none is taken, if it has not so many.
    #[must_use]
    pub(crate) fn take_areas(&mut self, areas: usize) -> bool {
        let reserve = if self.for_system { 0 } else { RESERVE.1 };
        let enough = self.areas + areas + reserve <= MOST_AREAS;
        self.areas += if enough { areas } else { 0 };
        if !enough {
            self.lacks = Some(
                "more than 42,000 areas of memory at once (pages that do not follow each other are one each)",
            );
        }
        enough
    }

    /// Whether there are so many areas that memory is to have few.
    pub(super) const fn is_crowded(&self) -> bool {
        self.areas >= CROWDED
    }

    /// Takes the host's stack of a strand; false if there are too many.
    #[must_use]
    pub(super) fn take_strand(&mut self) -> bool {
        let reserve = if self.for_system { 0 } else { RESERVE.2 };
        let enough = self.strands + reserve < MOST_STRANDS;
        self.strands += usize::from(enough);
        if !enough {
            self.lacks = Some("more than 30,000 threads at once");
        }
        enough
    }

    /// Gives it back.
    pub(super) fn give_strand(&mut self) {
        self.strands -= 1;
    }

    /// Gives areas back.
    pub(crate) fn give_areas(&mut self, areas: usize) {
        self.areas -= areas;
    }
}

/// Something could not be given: if memory is the reason, that is reported, once.
#[cold]
pub(crate) fn tell(cx: &mut Cx<'_>) {
    let (refused, limit, lacks) = cx.with(|k| {
        let memory = &mut k.mm.physical.memory;
        let refused = memory.refused && !memory.reported;
        memory.reported |= refused;
        (refused, memory.limit, memory.lacks.take())
    });
    if refused {
        let message = format!(
            "the machine's memory of {} MiB is used up, so a call failed that asked for more; --memory gives the machine another size",
            limit >> 20
        );
        cx.report(Verdict::advice("memory-used-up", message));
    }
    if let Some(what) = lacks {
        cx.report(Verdict::not_implemented(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let mut memory = Memory::new(100 + RESERVE.0);
        assert!(memory.take(60) && !memory.take(41) && memory.take(40) && memory.refused);
        memory.give(60);
        assert!(!memory.take(u64::MAX) && memory.take(60));
        memory.set_for_system(true);
        assert!(memory.take(RESERVE.0) && !memory.take(1));
    }
}
