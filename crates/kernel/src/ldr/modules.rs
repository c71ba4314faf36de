//! The list of loaded modules as drivers see it, and export libraries' own start and end.
//!
//! Each image has a `KLDR_DATA_TABLE_ENTRY` in `PsLoadedModuleList`; `DRIVER_OBJECT::DriverSection` points to it.
//! Page: *DllInitialize and DllUnload*.

use abi::{Code, DriverPtr, KLDR_DATA_TABLE_ENTRY, LIST_ENTRY, UNICODE_STRING};
use engine::Flow;
use image::{ExportTarget, Image, Selector};

use crate::cx::Cx;
use crate::exports::data;
use crate::mm::pool;

const TAG: u32 = pool::tag(b"MmLd");

/// Where Windows keeps drivers.
pub(crate) const FOLDER: &str = "\\SystemRoot\\System32\\drivers\\";

/// What an entry says of an image.
pub(super) struct Module<'m> {
    /// Where the file is kept, with a `\\` at the end.
    pub(super) folder: &'m str,
    /// Its file name.
    pub(super) name: &'m str,
    pub(super) base: u64,
    /// Bytes.
    pub(super) size: u32,
    /// `DriverEntry`, or null.
    pub(super) entry_point: DriverPtr<Code>,
    pub(super) checksum: u32,
}

impl Module<'_> {
    /// The most units that a counted string holds are enough for a path.
    fn path(&self) -> Vec<u16> {
        self.folder.encode_utf16().chain(self.name.encode_utf16()).take(0x7FFE).collect()
    }
}

/// Appends an entry for an image; its address, and that of the path it names.
pub(crate) fn add(
    cx: &mut Cx<'_>,
    name: &str,
    image: &Image,
    base: u64,
) -> Flow<(DriverPtr<KLDR_DATA_TABLE_ENTRY>, u64)> {
    let entry_point =
        image.entry_point().map_or(DriverPtr::NULL, |rva| DriverPtr::new(base + u64::from(rva)));
    let checksum = image.checksum().stored;
    let module = Module { folder: FOLDER, name, base, size: image.size(), entry_point, checksum };
    let bytes = 2 * module.path().len() as u64 + 2;
    let text: DriverPtr<u16> = pool::allocate(cx, pool::Kind::NonPaged, bytes, TAG)?;
    let size = size_of::<KLDR_DATA_TABLE_ENTRY>() as u64;
    let entry: DriverPtr<KLDR_DATA_TABLE_ENTRY> = pool::allocate(cx, pool::Kind::NonPaged, size, TAG)?;
    if text.is_null() || entry.is_null() {
        // The entry is for drivers to look at; without memory for it they see none.
        return Ok((DriverPtr::NULL, 0));
    }
    add_at(cx, &module, entry, text)?;
    Ok((entry, text.address))
}

/// Fills the entry at `entry`, its path at `text`, and appends it.
pub(super) fn add_at(
    cx: &mut Cx<'_>,
    module: &Module<'_>,
    entry: DriverPtr<KLDR_DATA_TABLE_ENTRY>,
    text: DriverPtr<u16>,
) -> Flow<()> {
    type Entry = KLDR_DATA_TABLE_ENTRY;
    let path = module.path();
    let folder = module.folder.encode_utf16().count();
    let bytes: Vec<u8> = path.iter().flat_map(|unit| unit.to_le_bytes()).chain([0, 0]).collect();
    cx.write_bytes(text.address, &bytes)?;
    cx.write(entry + Entry::DllBase, DriverPtr::new(module.base))?;
    cx.write(entry + Entry::EntryPoint, module.entry_point)?;
    cx.write(entry + Entry::SizeOfImage, module.size)?;
    cx.write(entry + Entry::SizeOfImageNotRounded, module.size)?;
    cx.write(entry + Entry::CheckSum, module.checksum)?;
    cx.write(entry + Entry::LoadCount, 1)?;
    write_string(cx, entry + Entry::FullDllName, text, path.len())?;
    write_string(cx, entry + Entry::BaseDllName, text.index(folder as u64), path.len() - folder)?;
    append(cx, entry + Entry::InLoadOrderLinks)
}

fn write_string(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    text: DriverPtr<u16>,
    units: usize,
) -> Flow<()> {
    let bytes = u16::try_from(units * 2).unwrap_or(u16::MAX - 1);
    cx.write(to + UNICODE_STRING::Length, bytes)?;
    cx.write(to + UNICODE_STRING::MaximumLength, bytes)?;
    cx.write(to + UNICODE_STRING::Buffer, text)
}

fn append(cx: &mut Cx<'_>, entry: DriverPtr<LIST_ENTRY>) -> Flow<()> {
    let head: DriverPtr<LIST_ENTRY> = DriverPtr::new(data::address("PsLoadedModuleList"));
    let last = cx.read(head + LIST_ENTRY::Blink)?;
    cx.write(entry + LIST_ENTRY::Flink, head)?;
    cx.write(entry + LIST_ENTRY::Blink, last)?;
    cx.write(last + LIST_ENTRY::Flink, entry)?;
    cx.write(head + LIST_ENTRY::Blink, entry)
}

/// Takes an image's entry out of the list.
pub(crate) fn remove(cx: &mut Cx<'_>, entry: u64, path: u64) -> Flow<()> {
    let entry: DriverPtr<KLDR_DATA_TABLE_ENTRY> = DriverPtr::new(entry);
    if entry.is_null() {
        return Ok(());
    }
    let links = entry + KLDR_DATA_TABLE_ENTRY::InLoadOrderLinks;
    let (next, last) = (cx.read(links + LIST_ENTRY::Flink)?, cx.read(links + LIST_ENTRY::Blink)?);
    cx.write(last + LIST_ENTRY::Flink, next)?;
    cx.write(next + LIST_ENTRY::Blink, last)?;
    pool::free(cx, entry)?;
    pool::free(cx, DriverPtr::<u16>::new(path))
}

/// The images that the one at `base` imports from: they are initialised before its `DriverEntry` runs.
pub fn libraries(cx: &mut Cx<'_>, base: u64) -> Vec<u64> {
    cx.with(|k| k.ldr.images.get(&base).map(|loaded| loaded.libraries.clone()).unwrap_or_default())
}

/// `DllInitialize` of the image at `base`, if it exports one: `NTSTATUS DllInitialize(PUNICODE_STRING RegistryPath)`.
pub fn initializer(cx: &mut Cx<'_>, base: u64) -> Option<DriverPtr<Code>> {
    routine(cx, base, "DllInitialize")
}

/// `DllUnload` of the image at `base`, if it exports one: `NTSTATUS DllUnload(void)`.
pub fn uninitializer(cx: &mut Cx<'_>, base: u64) -> Option<DriverPtr<Code>> {
    routine(cx, base, "DllUnload")
}

fn routine(cx: &mut Cx<'_>, base: u64, name: &str) -> Option<DriverPtr<Code>> {
    cx.with(|k| {
        let image = &k.ldr.images.get(&base)?.image;
        match image.export(&Selector::Name(name.to_owned()))?.target {
            ExportTarget::Rva(rva) => Some(DriverPtr::new(base + u64::from(rva))),
            ExportTarget::Forward(_) => None,
        }
    })
}
