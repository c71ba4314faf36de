//! Loading: images in the machine, imports, symbols, stacks.
//!
//! An image's pages are mapped with its sections' own protections; its imports mean thunks of the kernel's
//! pseudo-image, variables there, or entries of other images. Pages: *DllInitialize and DllUnload*,
//! *MmGetSystemRoutineAddress function*. It starts no driver: calling `DriverEntry` is the I/O manager's.

pub(crate) mod between;
pub(crate) mod code;
mod guard;
pub mod imports;
pub(crate) mod kernel_image;
mod load;
mod modules;
mod pseudo;
mod routine;
pub(crate) mod stack;
pub(crate) mod symbols;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use load::from_disk;
pub use load::{LoadError, LoadedImage, Module, discard_init, load, unload};
pub(crate) use modules::FOLDER;
pub use modules::{initializer, libraries, uninitializer};
pub(crate) use pseudo::STUBBED;
pub use pseudo::{boot, export_address, exports_base, internal_address};
pub use routine::{routine_of_module, system_routine_address};

use abi::DriverPtr;
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::nt::{Settings, WindowsVersion};

/// State of this prefix.
pub struct State {
    /// The version whose exports exist.
    pub(crate) windows: WindowsVersion,
    /// The export in whose place a stub stands.
    pub(crate) stubbed: Option<String>,
    /// The pseudo-image is laid out.
    pub(crate) booted: bool,
    /// A client of a framework has been bound.
    pub(crate) has_clients: bool,
    /// Images by base.
    pub(crate) images: BTreeMap<u64, Loaded>,
    /// Imports that no module has.
    pub(crate) missing: imports::Missing,
    /// The files of images that are gone, by the stems of their names.
    pub(crate) disk: BTreeMap<String, Module>,
    /// Images that are gone, by base: size and name.
    pub(crate) unloaded: BTreeMap<u64, (u64, String)>,
    /// Bytes of images that the guard has bits for; 0 as long as there is no guarded image.
    pub(crate) guarded: u64,
    /// Where the next image may lie.
    pub(crate) next_base: u64,
}

/// An image in the machine.
pub(crate) struct Loaded {
    /// File name, e.g. `pciline.sys`.
    pub(crate) name: String,
    pub(crate) image: image::Image,
    /// Names of its routines.
    pub(crate) symbols: image::Symbols,
    /// Its `KLDR_DATA_TABLE_ENTRY`.
    pub(crate) entry: u64,
    /// The path in it.
    pub(crate) path: u64,
    /// Bases of the images it imports from.
    pub(crate) libraries: Vec<u64>,
    /// How often each pageable section is locked (`MmLockPagableDataSection`), by RVA.
    pub(crate) locked_sections: BTreeMap<u32, u32>,
    /// All of it may be paged out (`MmPageEntireDriver`).
    pub(crate) paged_entirely: bool,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            windows: settings.windows,
            stubbed: settings.stubbed.clone(),
            booted: false,
            has_clients: false,
            images: BTreeMap::new(),
            missing: imports::Missing::default(),
            disk: BTreeMap::new(),
            unloaded: BTreeMap::new(),
            guarded: 0,
            next_base: pseudo::FIRST_IMAGE,
        }
    }

    /// The base and the image that `address` lies in.
    pub(crate) fn image_at(&self, address: u64) -> Option<(u64, &Loaded)> {
        let (&base, loaded) = self.images.range(..=address).next_back()?;
        (address - base < u64::from(loaded.image.size())).then_some((base, loaded))
    }

    /// The image of this file name, whatever its case, with or without `.sys`.
    pub(crate) fn image_named(&self, name: &str) -> Option<(u64, &Loaded)> {
        let stem = stem(name);
        let mut images = self.images.iter();
        images.find(|(_, loaded)| self::stem(&loaded.name) == stem).map(|(&base, loaded)| (base, loaded))
    }
}

/// A module's name without extension, in lower case: what two spellings of one module share.
pub(crate) fn stem(name: &str) -> String {
    without_extension(name).to_ascii_lowercase()
}

fn without_extension(name: &str) -> &str {
    const EXTENSIONS: [&str; 3] = ["sys", "exe", "dll"];
    let parts = name.rsplit_once('.');
    let parts = parts.filter(|(_, last)| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(last)));
    parts.map_or(name, |(stem, _)| stem)
}

/// Whether a module's name means the kernel or the HAL, whose exports resolve from either.
pub(crate) fn is_kernel(module: &str) -> bool {
    // Asked for each export at each boot: it allocates nothing.
    let stem = without_extension(module);
    ["ntoskrnl", "hal"].iter().any(|known| known.eq_ignore_ascii_case(stem))
}

/// How far above the stack pointer the return address is at `address`, in code of the kernel's own.
pub(crate) fn pushed_at(address: u64) -> Option<u64> {
    code::pushed_at(address).or_else(|| between::pushed_at(address))
}

/// The base of the image whose code called the kernel, if that was an image's.
pub fn calling_image(cx: &mut Cx<'_>) -> Option<u64> {
    let rip = cx.engine().caller()?.rip;
    cx.with(|k| image_containing(k, rip))
}

/// The base of the image that `address` lies in.
#[must_use]
pub fn image_containing(k: &Kernel, address: u64) -> Option<u64> {
    Some(k.ldr.image_at(address)?.0)
}

/// Whether the image that contains `address` asks for its signature to be checked (`/INTEGRITYCHECK`): what filters processes has to.
///
/// # Errors
/// None of its own.
pub(crate) fn is_signature_checked(cx: &mut Cx<'_>, address: u64) -> Flow<bool> {
    /// Of the optional header, and `IMAGE_DLLCHARACTERISTICS_FORCE_INTEGRITY` in it.
    const CHARACTERISTICS: u64 = 0x18 + 0x46;
    const FORCE_INTEGRITY: u16 = 0x80;
    let Some(base) = cx.with(|k| image_containing(k, address)) else { return Ok(false) };
    let headers = u64::from(cx.read(DriverPtr::<u32>::new(base + 0x3C))?);
    let characteristics = cx.read(DriverPtr::<u16>::new(base + headers + CHARACTERISTICS))?;
    Ok(characteristics & FORCE_INTEGRITY != 0)
}

/// The file name of the image at `base`.
#[must_use]
pub fn image_name(k: &Kernel, base: u64) -> Option<&str> {
    Some(&k.ldr.images.get(&base)?.name)
}
