//! An image into the machine's memory, and out of it again.
//!
//! Sections keep their own protections; text is never writable. Pages: *PE Format*, *Making Drivers Pageable*
//! (discardable `INIT`), *Specifying Driver Load Order*. It calls nothing in the image.

use std::collections::BTreeMap;

use abi::{Code, DriverPtr, KLDR_DATA_TABLE_ENTRY};
use engine::windows::{IMAGES, PAGE};
use engine::{Flow, Protection};
use image::{Image, ImageError, PageRange, Symbols};

use super::imports::{self, Bound};
use super::{Loaded, State, guard, modules, pseudo, stem};
use crate::cx::{Cx, Kernel};
use crate::event::Event;
use crate::mm::code_integrity;
use crate::mm::map::{PAGE_BYTES, Page};
use crate::ps;

/// An image to be loaded.
pub struct Module {
    /// Its file name, e.g. `pciline.sys`; by it other images import from it, and people know it.
    pub name: String,
    /// The image.
    pub image: Image,
    /// The names of its routines, of its PDB; else those that it has itself.
    pub symbols: Option<Symbols>,
}

/// Where an image is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadedImage {
    /// Its base; names it to the other routines of this prefix.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Its entry point; none for an export library that has none.
    pub entry: Option<DriverPtr<Code>>,
    /// What `DRIVER_OBJECT::DriverSection` points to.
    pub section: DriverPtr<KLDR_DATA_TABLE_ENTRY>,
}

/// Why an image cannot be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// It cannot be laid out.
    Image(ImageError),
    /// One of that name is there.
    AlreadyLoaded(String),
    /// The window of images has no place for it.
    NoRoom(String),
    /// No physical pages, or no mappings of the host, are left.
    NoMemory(String),
    /// More imports that no module has than there are thunks for.
    TooManyMissing(String),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::AlreadyLoaded(name) => write!(f, "{name}: an image of this name is loaded already"),
            Self::NoRoom(name) => write!(f, "{name}: no room among the loaded images (1 GiB in all)"),
            Self::NoMemory(name) => write!(f, "{name}: the machine has no memory for it; unload something"),
            Self::TooManyMissing(name) => {
                write!(f, "{name}: too many imports that neither dirql nor a driver given beside it has")
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Bases are multiples of the allocation granularity.
const GRANULARITY: u64 = 0x1_0000;

/// Puts an image into the machine: pages, relocations, imports. The first load lays out the pseudo-image.
///
/// # Errors
/// [`engine::Leave`] if the machine stops; inside, why it cannot be loaded.
pub fn load(cx: &mut Cx<'_>, module: Module) -> Flow<Result<LoadedImage, LoadError>> {
    pseudo::boot(cx)?;
    match place(cx, &module) {
        Ok((base, mut bytes)) => {
            code_integrity::image(cx, &module.name, &module.image)?;
            if cx.with(|k| guard::is_on(k)) {
                guard::point(&module.image, &mut bytes);
            }
            let libraries = match bind(cx, &module, &mut bytes) {
                Ok(libraries) => libraries,
                Err(error) => return Ok(Err(error)),
            };
            if !cx.with(|k| map(k, base, &module.image, &bytes) && enter_targets(k, base, &module.image)) {
                return Ok(Err(LoadError::NoMemory(module.name)));
            }
            let loaded = enter(cx, module, base, libraries)?;
            ps::notify::tell_of_image(cx, base)?;
            Ok(Ok(loaded))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// A base for the image, and its bytes there.
fn place(cx: &mut Cx<'_>, module: &Module) -> Result<(u64, Vec<u8>), LoadError> {
    let base = cx.with(|k| {
        if k.ldr.image_named(&module.name).is_some() {
            return Err(LoadError::AlreadyLoaded(module.name.clone()));
        }
        free_base(&mut k.ldr, module.image.size().into())
            .ok_or_else(|| LoadError::NoRoom(module.name.clone()))
    })?;
    let bytes = module.image.load_at(base).map_err(LoadError::Image)?;
    Ok((base, bytes))
}

/// Fresh addresses while there are any, then the first gap: an address of an unloaded driver tells whose it was.
fn free_base(ldr: &mut State, size: u64) -> Option<u64> {
    let need = (size + PAGE).next_multiple_of(GRANULARITY);
    if ldr.next_base + need <= IMAGES.end() {
        let base = ldr.next_base;
        ldr.next_base += need;
        return Some(base);
    }
    let mut at = pseudo::FIRST_IMAGE;
    for (&base, loaded) in &ldr.images {
        if at + need <= base {
            return Some(at);
        }
        at = base + (u64::from(loaded.image.size()) + PAGE).next_multiple_of(GRANULARITY);
    }
    (at + need <= IMAGES.end()).then_some(at)
}

/// Writes every import slot; the bases of the images it now depends on.
fn bind(cx: &mut Cx<'_>, module: &Module, bytes: &mut [u8]) -> Result<Vec<u64>, LoadError> {
    let mut libraries = Vec::new();
    for import in module.image.imports() {
        let address = match cx.with(|k| imports::resolve(k, &import.module, &import.selector)) {
            Bound::Kernel(address) => address,
            Bound::Image(base, address) => {
                if !libraries.contains(&base) {
                    libraries.push(base);
                }
                address
            }
            Bound::Missing => imports::missing(cx, &import.module, &import.selector.to_string())
                .ok_or_else(|| LoadError::TooManyMissing(module.name.clone()))?,
        };
        if let Some(slot) = bytes.get_mut(import.slot as usize..).and_then(<[u8]>::first_chunk_mut) {
            *slot = address.to_le_bytes();
        }
    }
    Ok(libraries)
}

/// Maps the image's pages with its bytes in them; false if there is no memory.
fn map(k: &mut Kernel, base: u64, image: &Image, bytes: &[u8]) -> bool {
    let ranges = image.protections();
    let Some(frames) = frames_of(k, &ranges) else { return false };
    for (range, frames) in ranges.iter().zip(frames) {
        let (start, end) = (range.rva as usize, (range.rva + range.size) as usize);
        let image::Protection { read, write, execute } = range.protection;
        let pageable = image.section_at(range.rva).is_some_and(image::Section::is_pageable);
        let page = Page { physical: 0, protection: Protection { read, write, execute }, pageable };
        let at = base + u64::from(range.rva);
        k.mm.map.map_filled(k.engine, at, &frames, page, |engine| {
            engine.write_bytes(at, &bytes[start..end.min(bytes.len())])
        });
    }
    true
}

/// Pages for each range, and the host's areas for them: one a page, so that any part of an image can be given back.
fn frames_of(k: &mut Kernel, ranges: &[PageRange]) -> Option<Vec<Vec<u64>>> {
    let count = |range: &PageRange| u64::from(range.size) / PAGE;
    let mut frames = k.mm.physical.take_pages(ranges.iter().map(count).sum())?;
    if !k.mm.physical.memory.take_areas(frames.len()) {
        frames.into_iter().for_each(|frame| k.mm.physical.give_page(frame));
        return None;
    }
    let each = |range: &PageRange| frames.drain(..range.size as usize / PAGE_BYTES).collect();
    Some(ranges.iter().map(each).collect())
}

/// What indirect calls may reach in the image, as soon as there is one that asks.
fn enter_targets(k: &mut Kernel, base: u64, image: &Image) -> bool {
    if !guard::is_on(k) || (k.ldr.guarded == 0 && !image.load_config().is_guarded()) {
        return true;
    }
    let first = k.ldr.guarded == 0;
    let others: Vec<(u64, Image)> = if first {
        k.ldr.images.iter().map(|(&base, loaded)| (base, loaded.image.clone())).collect()
    } else {
        Vec::new()
    };
    guard::enter(k, base, image) && others.iter().all(|(base, image)| guard::enter(k, *base, image))
}

/// Takes mapped pages of an image away.
fn give(k: &mut Kernel, at: u64, count: u64) {
    let pages = k.mm.map.unmap(k.engine, at, count);
    k.mm.physical.memory.give_areas(pages.len());
    for page in pages {
        k.mm.physical.give_page(page);
    }
}

/// The loader's own record of it, and the driver's view of that.
fn enter(cx: &mut Cx<'_>, module: Module, base: u64, libraries: Vec<u64>) -> Flow<LoadedImage> {
    let Module { name, image, symbols } = module;
    let size = u64::from(image.size());
    let entry = image.entry_point().map(|rva| DriverPtr::new(base + u64::from(rva)));
    let (section, path) = modules::add(cx, &name, &image, base)?;
    let symbols = symbols
        .unwrap_or_else(|| Symbols::new(&image, None).expect("without a PDB nothing can be wrong with one"));
    cx.with(|k| {
        let loaded = Loaded {
            name: name.clone(),
            image,
            symbols,
            entry: section.address,
            path,
            libraries,
            locked_sections: BTreeMap::new(),
            paged_entirely: false,
        };
        k.ldr.unloaded.remove(&base);
        k.ldr.images.insert(base, loaded);
    });
    cx.emit(Event::Image { name, base, loaded: true });
    Ok(LoadedImage { base, size, entry, section })
}

/// Gives the pages of `INIT…` sections back, once `DriverEntry` has succeeded: whatever runs or reads them faults.
pub fn discard_init(cx: &mut Cx<'_>, base: u64) {
    cx.with(|k| {
        let Some(loaded) = k.ldr.images.get(&base) else { return };
        let sections = loaded.image.sections().iter().filter(|section| section.is_init());
        let whole_pages = |s: &&image::Section| u64::from(s.rva).is_multiple_of(PAGE) && s.virtual_size > 0;
        let ranges: Vec<(u64, u64)> = sections
            .filter(whole_pages)
            .map(|s| (base + u64::from(s.rva), u64::from(s.virtual_size).div_ceil(PAGE)))
            .collect();
        let own_pages = loaded.image.protections().len() > 1;
        for (at, count) in ranges.into_iter().filter(|_| own_pages) {
            give(k, at, count);
        }
    });
}

/// Takes an image out of the machine. What others still point to in it faults, and is known by name.
///
/// # Errors
/// [`engine::Leave`] if the loader's record of it was damaged by a driver.
pub fn unload(cx: &mut Cx<'_>, base: u64) -> Flow<()> {
    let Some(loaded) = cx.with(|k| k.ldr.images.remove(&base)) else { return Ok(()) };
    let size = u64::from(loaded.image.size());
    modules::remove(cx, loaded.entry, loaded.path)?;
    let Loaded { name, image, symbols, .. } = loaded;
    cx.with(|k| {
        give(k, base, size / PAGE);
        guard::leave(k, base, size);
        k.ke.lock_order.forget(base, size);
        k.ldr.unloaded.insert(base, (size, name.clone()));
        k.ldr.disk.insert(stem(&name), Module { name: name.clone(), image, symbols: Some(symbols) });
    });
    cx.emit(Event::Image { name, base, loaded: false });
    Ok(())
}

/// Takes the file of this name from the disk, to be loaded.
pub(crate) fn from_disk(k: &mut Kernel, name: &str) -> Option<Module> {
    k.ldr.disk.remove(&stem(name))
}
