//! Views: where a section is shown, to a process or in system space.
//!
//! Pages: *Section Objects and Views*, *Managing Memory Sections*, *ZwMapViewOfSection function*, *MmMapViewInSystemSpace function*. A view
//! keeps its section. One of physical memory shows RAM page by page; one that reaches anything else is device memory, of which each
//! access is asked for (`hal::access`), RAM in it too. What a driver asks for is looked at in `view_exports`. Not here: copies on writing.

use std::collections::BTreeMap;
use std::ops::Range;

use abi::DriverPtr;
use engine::windows::{DEVICE, PAGE, USER_DEVICE};
use engine::{Flow, Protection};

use super::io_space::{self, Mapping};
use super::map::{self, Page};
use super::section::{self, Backing, Section};
use super::space::Zone;
use super::{memory, physical, pool, shadow, user};
use crate::cx::{Cx, Kernel};
use crate::{ldr, ob};

/// One view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// The section's object.
    pub(crate) section: u64,
    /// Whose it is; none: in system space.
    pub(crate) process: Option<u64>,
    pub(crate) pages: u64,
    /// Of its first byte in the section.
    offset: u64,
    protection: Protection,
    /// In a window of devices.
    device: bool,
    areas: usize,
    owner: Option<u64>,
    caller: u64,
}

impl View {
    /// What can be done with its pages.
    pub(crate) const fn protection(&self) -> Protection {
        self.protection
    }

    /// Whether its section has pages that are not committed yet.
    pub(crate) fn is_reserved(&self, k: &Kernel) -> bool {
        k.mm.section.get(self.section).is_some_and(Section::is_reserved)
    }
}

/// Views by address.
#[derive(Default)]
pub struct State {
    views: BTreeMap<u64, View>,
}

impl State {
    /// The view that `address` lies in, and where it begins.
    pub(crate) fn containing(&self, address: u64) -> Option<(u64, View)> {
        let (&base, view) = self.views.range(..=address).next_back()?;
        (address - base < view.pages * PAGE).then_some((base, *view))
    }
}

/// A view that is to be.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) section: u64,
    pub(crate) process: Option<u64>,
    /// The address that is asked for.
    pub(crate) at: Option<u64>,
    /// A multiple of the granularity.
    pub(crate) offset: u64,
    pub(crate) pages: u64,
    /// Nothing: its addresses are only taken.
    pub(crate) protection: Protection,
    /// Processors combine stores to what of it is a device's.
    pub(crate) combined: bool,
}

/// Shows a section; its address, or none if there is no room.
///
/// # Errors
/// A verdict if the section is none.
pub(crate) fn map(cx: &mut Cx<'_>, wanted: Wanted) -> Flow<Option<u64>> {
    let (owner, caller) = pool::caller(cx);
    let Some((address, device, areas)) = cx.with(|k| place(k, wanted)) else {
        memory::tell(cx);
        return Ok(None);
    };
    ob::object::reference(cx, DriverPtr::<()>::new(wanted.section))?;
    let Wanted { section, process, pages, offset, protection, .. } = wanted;
    let view = View { section, process, pages, offset, protection, device, areas, owner, caller };
    cx.with(|k| {
        k.mm.view.views.insert(address, view);
        if let Some(process) = process.filter(|_| !device) {
            user::own_view(k, address, pages, process);
            // Pages of the page file have their marks from the map: they may also be paged out.
            if is_physical(k, section) {
                k.engine.mark(address, pages * PAGE, shadow::RESIDENT);
            }
        }
    });
    Ok(Some(address))
}

fn is_physical(k: &Kernel, section: u64) -> bool {
    k.mm.section.get(section).is_some_and(|section| matches!(section.backing, Backing::Physical))
}

/// Where a view lies now, whether that is in a window of devices, and the host's areas.
fn place(k: &mut Kernel, wanted: Wanted) -> Option<(u64, bool, usize)> {
    let Wanted { section, process, at, offset, pages, protection, combined } = wanted;
    let zone = match (process, at) {
        (None, _) => Zone::SystemViews,
        (Some(_), None) => Zone::Views,
        (Some(_), Some(at)) => Zone::of(at).filter(|zone| matches!(zone, Zone::User | Zone::Views))?,
    };
    let bytes = pages.checked_mul(PAGE).filter(|bytes| *bytes <= zone.window().size)?;
    let (shown, pageable) = match &k.mm.section.get(section)?.backing {
        Backing::PageFile(frames) => {
            (committed(frames, offset / PAGE..offset / PAGE + pages, protection), true)
        }
        Backing::Physical if is_all_ram(offset, bytes) => {
            ((0..pages).map(|page| Some(offset + page * PAGE)).collect(), false)
        }
        Backing::Physical => {
            let window = if process.is_some() { USER_DEVICE } else { DEVICE };
            let bus = k.hal.platform.to_bus(offset);
            let process = process.and_then(|process| u32::try_from(process).ok());
            let read_only = !protection.write;
            let view = Mapping { bus, bytes, read_only, process, combined, ..Mapping::default() };
            let address = if at.is_none() { io_space::add_view(k, window, view) } else { None };
            return address.map(|address| (address, true, 0));
        }
    };
    let page = Page { physical: 0, protection, pageable };
    map::place_sparse(k, zone, at, &shown, page).map(|(address, areas)| (address, false, areas))
}

/// The pages of a section that a view shows.
fn committed(frames: &BTreeMap<u64, u64>, pages: Range<u64>, protection: Protection) -> Vec<Option<u64>> {
    pages.map(|page| frames.get(&page).copied().filter(|_| protection.read)).collect()
}

fn is_all_ram(offset: u64, bytes: u64) -> bool {
    (offset..offset.saturating_add(bytes)).step_by(0x1000).all(physical::is_ram)
}

/// Takes the view that begins at `base` away.
///
/// # Errors
/// What deleting its section meets.
pub(crate) fn unmap(cx: &mut Cx<'_>, base: u64) -> Flow<()> {
    let section = cx.with(|k| {
        let view = k.mm.view.views.remove(&base)?;
        if view.device {
            io_space::remove(k, base);
        } else {
            user::disown_view(k, base);
            map::remove_sparse(k, zone(&view, base), base, view.pages, view.areas);
        }
        Some(view.section)
    });
    match section {
        Some(section) => ob::object::dereference(cx, DriverPtr::<()>::new(section)).map(|_| ()),
        None => Ok(()),
    }
}

fn zone(view: &View, base: u64) -> Zone {
    if view.process.is_some() { Zone::of(base).unwrap_or(Zone::Views) } else { Zone::SystemViews }
}

/// Takes all views of a process away, when it ends.
///
/// # Errors
/// As [`unmap`].
pub(crate) fn unmap_process(cx: &mut Cx<'_>, process: u64) -> Flow<()> {
    let own: Vec<u64> = cx.with(|k| {
        let views = k.mm.view.views.iter().filter(|(_, view)| view.process == Some(process));
        views.map(|(base, _)| *base).collect()
    });
    own.into_iter().try_for_each(|base| unmap(cx, base))
}

/// Commits `pages` pages from page `first` of the view at `base` on, of a section that has them reserved: all views of it show them.
/// False if there is not so much memory.
pub(crate) fn commit(cx: &mut Cx<'_>, base: u64, first: u64, pages: u64) -> bool {
    let Some((_, view)) = cx.with(|k| k.mm.view.containing(base)) else { return false };
    let first = view.offset / PAGE + first;
    let Some(fresh) = section::commit(cx, view.section, first..first + pages) else { return false };
    cx.with(|k| {
        let all: Vec<(u64, View)> = k.mm.view.views.iter().map(|(base, view)| (*base, *view)).collect();
        for (base, view) in all.into_iter().filter(|(_, other)| other.section == view.section) {
            for (page, frame) in &fresh {
                show(k, base, view, *page, *frame);
            }
        }
    });
    true
}

/// Shows a page of the section in a view, if that has it.
fn show(k: &mut Kernel, base: u64, view: View, page: u64, frame: u64) {
    let first = view.offset / PAGE;
    if !(first..first + view.pages).contains(&page) || !view.protection.read {
        return;
    }
    let shown = Page { physical: 0, protection: view.protection, pageable: true };
    k.mm.map.map(k.engine, base + (page - first) * PAGE, &[frame], shown);
    if k.mm.physical.memory.take_areas(1)
        && let Some(view) = k.mm.view.views.get_mut(&base)
    {
        view.areas += 1;
    }
}

/// A view that its driver has left.
pub(crate) struct Left {
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    pub(crate) process: Option<u64>,
    pub(crate) mapped_by: String,
}

/// Views that the image at `driver` has mapped and left.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<Left> {
    let own: Vec<(u64, View)> = cx.with(|k| {
        let views = k.mm.view.views.iter().filter(|(_, view)| view.owner == Some(driver));
        views.map(|(base, view)| (*base, *view)).collect()
    });
    own.into_iter()
        .map(|(address, view)| {
            let mapped_by = ldr::symbols::describe(cx, view.caller);
            Left { address, bytes: view.pages * PAGE, process: view.process, mapped_by }
        })
        .collect()
}
