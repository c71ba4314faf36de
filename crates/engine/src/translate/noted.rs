//! Accesses that driver code notes by itself, in a machine that only learns who touches what, or whose guest hears of them afterwards: their addresses
//! are written into a log, which is read when the kernel is entered. Until then nothing but this flow runs, and what it touches stays where it is.
//!
//! The log is open between the first inspection after an entry and the next entry. It lies in the scratch page, where driver code could write to it:
//! what is read there is taken for addresses and nothing else.

use smallvec::SmallVec;

use super::scratch::scratch;
use super::{inspect, reporting};
use crate::guest::{MemoryAccess, Runner};
use crate::machine::state;
use crate::windows::SCRATCH;

/// Where the log begins, and the first address behind it.
const BEGIN: u64 = SCRATCH.base + 0x800;
pub(super) const END: u64 = SCRATCH.end();
/// In [`super::scratch::Scratch::log`]: nothing is written into it. Anything else there is where the next entry goes.
const CLOSED: u64 = u64::MAX;
/// Bytes of an entry: an address and an [`Access`].
pub(super) const ENTRY: u8 = 16;

const BYTES: u32 = 48;
const STORES: u32 = 56;
const LEARNED: u32 = 57;

/// So many fit in.
const ENTRIES: usize = 128;
const _: () = assert!(BEGIN + ENTRIES as u64 * ENTRY as u64 == END, "the log is as long as it is said to be");

/// An access that an instruction makes, wherever it lies, in one word: what it does, or in a machine that reports, which of those it is that the cache
/// keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access(pub(super) u64);

impl Access {
    /// By the instruction at `rip`. It can be learned, or is the other side of one that is. None if it has too many bytes.
    pub(super) fn new(rip: u64, bytes: u64, stores: bool, can_be_learned: bool) -> Option<Self> {
        let bytes = u64::from(u8::try_from(bytes).ok()?);
        (rip >> BYTES == 0).then_some(Self(
            rip | bytes << BYTES | u64::from(stores) << STORES | u64::from(can_be_learned) << LEARNED,
        ))
    }

    pub(super) const fn bytes(self) -> u64 {
        self.0 >> BYTES & 0xFF
    }

    pub(super) const fn stores(self) -> bool {
        self.0 >> STORES & 1 != 0
    }

    /// The instruction, if it can be learned.
    pub(super) fn instruction(self) -> Option<u64> {
        (self.0 >> LEARNED & 1 != 0).then_some(self.0 & ((1 << BYTES) - 1))
    }
}

/// What driver code touches from here on may be written down.
pub(super) fn open() {
    scratch().log.set(BEGIN);
}

/// The same, but for what it does on the stack that it runs on.
pub(super) fn open_on_stack() {
    open();
    spare(&state().guest().runner());
}

/// What this runner does on its own stack is not written down.
pub(super) fn spare(runner: &Runner) {
    scratch().own_stack.set(runner.stack.start);
    scratch().own_stack_bytes.set(runner.stack.end - runner.stack.start);
}

/// Nothing is written down, and it is not known which stack driver code runs on.
pub(crate) fn close() {
    scratch().log.set(CLOSED);
    scratch().own_stack_bytes.set(0);
}

/// The kernel is entered: what was written down is noted, and the log is closed.
#[inline]
pub(super) fn settle() {
    if scratch().log.get() != CLOSED {
        settle_all();
    }
}

#[cold]
fn settle_all() {
    let behind = scratch().log.get();
    close();
    if !(BEGIN..=END).contains(&behind) {
        return;
    }
    // SAFETY: it lies in the scratch page, which is mapped as long as a machine is alive.
    let entries = (BEGIN..behind).step_by(ENTRY.into()).map(|at| unsafe { (at as *const [u64; 2]).read() });
    if state().sharing.is_on() {
        let runner = state().guest().runner();
        entries.for_each(|[address, access]| inspect::note_access(&runner, address, Access(access)));
    } else if state().reporting.is_noted() {
        report(entries);
    }
}

/// Tells the guest of all of them at once.
fn report(entries: impl Iterator<Item = [u64; 2]>) {
    let mut all = SmallVec::<[MemoryAccess; ENTRIES]>::new();
    state().translator.with(|cache| {
        for [address, number] in entries {
            if let Some(made) = cache.reported(number)
                && reporting::is_memory(address)
            {
                all.push(MemoryAccess { address, ..*made });
            }
        }
    });
    if !all.is_empty() {
        state().guest().noted(&all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_is_one_word() {
        let access = Access::new(0x2000_1234_5678, 64, true, true).unwrap();
        assert_eq!((access.bytes(), access.stores()), (64, true));
        assert_eq!(access.instruction(), Some(0x2000_1234_5678));
        let other = Access::new(0x2000_1234_5678, 1, false, false).unwrap();
        assert_eq!((other.bytes(), other.stores(), other.instruction()), (1, false, None));
        assert_eq!(Access::new(0x2000_1234_5678, 256, true, true), None);
        assert_eq!(Access::new(1 << 48, 1, true, true), None);
    }
}
