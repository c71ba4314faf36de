//! Physical memory as bus masters reach it: which page is meant, whether a driver has given it to its device, and where it is
//! shown. Pages: *Bug Check 0xE6: DRIVER_VERIFIER_DMA_VIOLATION* (26h), *Kernel DMA Protection*.
//!
//! A device reaches memory that is locked (`MmProbeAndLockPages`), contiguous, or cannot be paged out. Anything else is a wild
//! transfer; a checked machine sees freed pool and the bytes around blocks, too. Once its driver has a DMA adapter, a device is behind an IOMMU:
//! it puts out logical addresses (`hal::dma`). One that goes on with physical addresses reaches what it reached, as on a computer
//! without an IOMMU, and is reported. There is no transfer from card to card.

use std::ops::Range;

use engine::windows::PAGE;
use engine::{BadAddress, Engine};

use super::State;
use super::map::Page;
use super::physical::is_ram;
use super::{physical_access, shadow};
use crate::cx::Cx;
use crate::event::Event;
use crate::hal::dma;
use crate::hal::dma::domain::{Direction, Way, Wrong};
use crate::hal::hardware::Memory;
use crate::verdict::{Tier, Verdict};

/// `DRIVER_VERIFIER_DMA_VIOLATION`.
const DMA_VIOLATION: u32 = 0xE6;
/// Its first parameter where an IOMMU saw it.
const SEEN_BY_IOMMU: u64 = 0x26;

/// What a bus master did.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    device: String,
    address: u64,
    bytes: u64,
    /// To memory.
    write: bool,
    /// The first address that it must not reach, and why: it was not reached.
    wild: Option<(u64, Why)>,
    /// One that it should not reach, and why: it was.
    doubt: Option<(u64, Why)>,
}

/// Why an address is not for the device.
#[derive(Clone, Debug)]
enum Why {
    /// Where a physical address lies.
    Memory(&'static str),
    /// A logical address leads nowhere, or the other way.
    Mapping(Wrong),
    /// It is a physical address, and the driver has a DMA adapter for the device.
    Physical,
}

/// The machine's memory, for the time of one call of the hardware's.
pub(crate) struct Reach<'k> {
    pub(crate) engine: Engine,
    pub(crate) mm: &'k mut State,
    pub(crate) transfers: &'k mut Vec<Transfer>,
    pub(crate) dma: &'k dma::State,
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
        let (mut wild, mut doubt) = (None, None);
        let mut done = 0;
        while done < bytes {
            let at = address.wrapping_add(done as u64);
            let (physical, room) = match self.resolve(master, at, write, &mut doubt) {
                Ok(resolved) => resolved,
                Err(why) => {
                    wild = Some((at, why));
                    break;
                }
            };
            let room = usize::try_from(room.min(PAGE - physical % PAGE)).unwrap_or(usize::MAX);
            let part = done..bytes.min(done.saturating_add(room));
            match self.judge(physical, part.len() as u64, write) {
                Err(why) => {
                    wild = Some((at, Why::Memory(why)));
                    break;
                }
                Ok(shown) => {
                    physical_access::at(self.engine, self.mm, physical, &shown, write, |engine, at| {
                        copy(engine, at, part.clone()).expect("a page that was found can be accessed");
                    });
                    if write && self.engine.is_checked() {
                        // At every address that shows them, these bytes count as stored.
                        let shown = shown.iter().map(|(at, _)| at + physical % PAGE);
                        shown.for_each(|at| self.engine.stored(at, part.len() as u64));
                    }
                }
            }
            done = part.end;
        }
        let device = master.to_owned();
        let is_done = wild.is_none();
        self.transfers.push(Transfer { device, address, bytes: bytes as u64, write, wild, doubt });
        is_done
    }

    /// Where the address that a device puts out leads, and for how many bytes.
    fn resolve(
        &self,
        master: &str,
        at: u64,
        write: bool,
        doubt: &mut Option<(u64, Why)>,
    ) -> Result<(u64, u64), Why> {
        match self.dma.domain.find(at, write) {
            Some(Ok(Way { physical, bytes, wrong })) => {
                match wrong {
                    // A write to a copy for reading is lost; a read from a copy for writing gets bytes that were never put there.
                    Some(Wrong::Direction(mapping)) if mapping.is_copy => {
                        return Err(Why::Mapping(Wrong::Direction(mapping)));
                    }
                    Some(wrong) => _ = doubt.get_or_insert((at, Why::Mapping(wrong))),
                    None => {}
                }
                Ok((physical, bytes))
            }
            Some(Err(wrong)) => Err(Why::Mapping(wrong)),
            None => {
                if self.dma.is_mapped(master) && is_ram(at) {
                    doubt.get_or_insert((at, Why::Physical));
                }
                Ok((at, PAGE))
            }
        }
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

/// Tells what bus masters have done since this was asked last.
pub(crate) fn tell(cx: &mut Cx<'_>) {
    if cx.with(|k| k.hal.transfers.is_empty()) {
        return;
    }
    for transfer in cx.with(|k| std::mem::take(&mut k.hal.transfers)) {
        // The thread that runs next finds that the machine has ended.
        if let Some((at, why)) = &transfer.doubt {
            let verdict = verdict(cx, &transfer, *at, why);
            if cx.verify(verdict.as_verifier()).is_err() {
                return;
            }
        }
        if let Some((at, why)) = &transfer.wild {
            let verdict = verdict(cx, &transfer, *at, why);
            if verdict.tier == Tier::Advice {
                cx.report(verdict);
                continue;
            }
            let _ended = cx.stop(verdict);
            return;
        }
        let Transfer { device, address, bytes, write, .. } = transfer;
        cx.emit(Event::Transfer { device, address, bytes, write });
    }
}

/// What is to be said about an address that is not for the device, with who mapped it.
fn verdict(cx: &mut Cx<'_>, transfer: &Transfer, at: u64, why: &Why) -> Verdict {
    let Transfer { device, address, bytes, write, .. } = transfer;
    let what = if *write { "wrote" } else { "read" };
    let kind = if matches!(why, Why::Mapping(_)) { "logical" } else { "physical" };
    let did = format!("{device} {what} {bytes:#x} bytes by DMA at the {kind} address {address:#x}");
    let verdict = match why {
        Why::Memory(why) => Verdict::error("wild-dma", format!("{did}: {at:#x} lies {why}")),
        Why::Physical => Verdict::verifier(
            "dma-by-physical-address",
            format!(
                "{did}: {at:#x} is no address that was mapped for it, and its driver has a DMA adapter, which maps"
            ),
        ),
        Why::Mapping(Wrong::Unmapped(gone)) => {
            let (mapping, routine, by) = gone.as_ref();
            let (mapped, unmapped) = (mapping.by.name(cx), by.name(cx));
            let message = format!(
                "{did}: {at:#x} was mapped by {} of {mapped}, and {unmapped} has unmapped it ({routine})",
                mapping.routine
            );
            let verdict = if cx.with(|k| k.hal.platform.cards.is_late()) {
                // Not every card can be kept from going on.
                Verdict::advice(
                    "dma-after-time-limit",
                    format!("{message}, in a machine whose cards are late"),
                )
            } else {
                Verdict::error("dma-after-unmap", message)
            };
            verdict.related("mapped", mapping.by.moment).related("unmapped", by.moment)
        }
        Why::Mapping(Wrong::Behind(mapping, behind)) => {
            let who = mapping.by.name(cx);
            let message = format!(
                "{did}: {at:#x} lies {behind:#x} bytes behind the end of the {:#x} bytes that {} of {who} mapped",
                mapping.bytes, mapping.routine
            );
            Verdict::error("dma-behind-mapping", message).related("mapped", mapping.by.moment)
        }
        Why::Mapping(Wrong::Direction(mapping)) => {
            let who = mapping.by.name(cx);
            let way = match mapping.direction {
                Direction::ToDevice => "from memory to the device",
                _ => "from the device to memory",
            };
            let message = format!("{did}: {} of {who} mapped {at:#x} for a transfer {way}", mapping.routine);
            Verdict::error("dma-wrong-direction", message).related("mapped", mapping.by.moment)
        }
    };
    let verdict = verdict.bug_check(DMA_VIOLATION, [SEEN_BY_IOMMU, 0, at, 0]);
    Verdict { by_hardware: true, ..verdict }
}
