//! Physical memory as bus masters reach it: which page is meant, whether a driver has given it to its device, and where it is
//! shown. Pages: *Bug Check 0xE6: DRIVER_VERIFIER_DMA_VIOLATION* (26h), *Kernel DMA Protection*.
//!
//! A device reaches memory that is locked (`MmProbeAndLockPages`), contiguous, or cannot be paged out. Anything else is a wild
//! transfer, which an IOMMU would have stopped, and is none; a checked machine sees freed pool and the bytes around blocks, too.
//! There is no IOMMU, and no transfer from card to card.

use std::ops::Range;

use engine::windows::PAGE;
use engine::{BadAddress, Engine};

use super::State;
use super::map::Page;
use super::physical::is_ram;
use super::{physical_access, shadow};
use crate::cx::Cx;
use crate::event::Event;
use crate::hal::hardware::Memory;
use crate::verdict::Verdict;

/// `DRIVER_VERIFIER_DMA_VIOLATION`.
const DMA_VIOLATION: u32 = 0xE6;
/// Its first parameter where an IOMMU saw it.
const SEEN_BY_IOMMU: u64 = 0x26;

/// What a bus master did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Transfer {
    device: String,
    address: u64,
    bytes: u64,
    /// To memory.
    write: bool,
    /// The first address that it must not reach, and why.
    wild: Option<(u64, &'static str)>,
}

/// The machine's memory, for the time of one call of the hardware's.
pub(crate) struct Reach<'k> {
    pub(crate) engine: Engine,
    pub(crate) mm: &'k mut State,
    pub(crate) transfers: &'k mut Vec<Transfer>,
}

impl Memory for Reach<'_> {
    fn read(&mut self, master: &str, address: u64, into: &mut [u8]) -> bool {
        let bytes = into.len();
        self.transfer(master, address, bytes, false, |engine, at, part| {
            engine.read_bytes(at, &mut into[part])
        })
    }

    fn write(&mut self, master: &str, address: u64, from: &[u8]) -> bool {
        self.transfer(master, address, from.len(), true, |engine, at, part| {
            engine.write_bytes(at, &from[part])
        })
    }
}

impl Reach<'_> {
    fn transfer(
        &mut self,
        master: &str,
        address: u64,
        bytes: usize,
        write: bool,
        mut copy: impl FnMut(Engine, u64, Range<usize>) -> Result<(), BadAddress>,
    ) -> bool {
        let mut wild = None;
        for (physical, part) in pieces(address, bytes) {
            match self.judge(physical, part.len() as u64, write) {
                Err(why) => {
                    wild = Some((physical, why));
                    break;
                }
                Ok(shown) => {
                    physical_access::at(self.engine, self.mm, physical, &shown, write, |engine, at| {
                        copy(engine, at, part.clone()).expect("a page that was found can be accessed");
                    });
                    if write && self.engine.is_checked() {
                        // Whichever way they are looked at, these bytes were stored.
                        let shown = shown.iter().map(|(at, _)| at + physical % PAGE);
                        shown.for_each(|at| self.engine.stored(at, part.len() as u64));
                    }
                }
            }
        }
        let device = master.to_owned();
        self.transfers.push(Transfer { device, address, bytes: bytes as u64, write, wild });
        wild.is_none()
    }

    /// Where a part of a page is shown, if a device may reach it.
    fn judge(&self, physical: u64, bytes: u64, write: bool) -> Result<Vec<(u64, Page)>, &'static str> {
        if !is_ram(physical) {
            return Err("where there is no memory");
        }
        let (page, offset) = (physical & !(PAGE - 1), physical % PAGE);
        let shown = self.mm.map.showing(page);
        if !self.mm.physical.is_locked(page) {
            let resident = |(_, page): &&(u64, Page)| !page.pageable;
            let Some(_) = shown.first() else { return Err("in memory that is not allocated") };
            let Some(_) = shown.iter().find(resident) else {
                return Err("in memory that can be paged out and is not locked");
            };
            let writable = |shown: &&(u64, Page)| resident(shown) && shown.1.protection.write;
            if write && !shown.iter().any(|place| writable(&place)) {
                return Err("in memory that cannot be written");
            }
        }
        let marked = |(at, _): &(u64, Page)| {
            self.engine.first_marked(at + offset, bytes).is_some_and(|(_, mark)| shadow::is_bad(mark))
        };
        if self.engine.is_checked() && shown.iter().any(marked) {
            return Err("in pool that is freed, or outside of a block");
        }
        Ok(shown)
    }
}

/// A range of physical memory page by page, and the part of the whole that lies there.
fn pieces(address: u64, bytes: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let physical = address.wrapping_add(done as u64);
        let room = usize::try_from(PAGE - physical % PAGE).unwrap_or(usize::MAX);
        let part = done..bytes.min(done + room);
        done = part.end;
        (!part.is_empty()).then_some((physical, part))
    })
}

/// Tells what bus masters have done since this was asked last.
pub(crate) fn tell(cx: &mut Cx<'_>) {
    if cx.with(|k| k.hal.transfers.is_empty()) {
        return;
    }
    for transfer in cx.with(|k| std::mem::take(&mut k.hal.transfers)) {
        let Transfer { device, address, bytes, write, wild } = transfer;
        if let Some((at, why)) = wild {
            let what = if write { "wrote" } else { "read" };
            let message = format!(
                "{device} {what} {bytes:#x} bytes by DMA at the physical address {address:#x}: {at:#x} lies {why}"
            );
            let verdict = Verdict::error("wild-dma", message);
            // Whoever runs next finds that the machine has ended.
            let _ended = cx.stop(verdict.bug_check(DMA_VIOLATION, [SEEN_BY_IOMMU, 0, at, 0]));
            return;
        }
        cx.emit(Event::Transfer { device, address, bytes, write });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_cut_at_pages() {
        let cut: Vec<_> = pieces(0x1FFE, 0x1004).collect();
        assert_eq!(cut, [(0x1FFE, 0..2), (0x2000, 2..0x1002), (0x3000, 0x1002..0x1004)]);
        assert_eq!(pieces(0x1000, 0).count(), 0);
    }
}
