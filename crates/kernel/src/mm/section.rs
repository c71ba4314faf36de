//! Section objects: memory that several address spaces see at once, and all physical memory as one section.
//!
//! Pages: *Section Objects and Views*, *Managing Memory Sections*, *ZwCreateSection function*, *ZwOpenSection function*,
//! *NtQuerySection*, *Device\PhysicalMemory Object*. Memory of the page file's is taken when it is committed: of SEC_COMMIT at once, of
//! SEC_RESERVE with its views. What maps them is `view`. Not here: sections of files and of images, large pages, extending.

use std::collections::BTreeMap;

use abi::{
    DriverPtr, FILE_OBJECT, NtStatus, OBJECT_ATTRIBUTES, PAGE_EXECUTE, PAGE_EXECUTE_READ,
    PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY, PAGE_READONLY, PAGE_READWRITE, PAGE_WRITECOPY, SEC_BASED,
    SEC_COMMIT, SEC_FILE, SEC_IMAGE, SEC_LARGE_PAGES, SEC_NO_CHANGE, SEC_NOCACHE, SEC_RESERVE,
    SEC_WRITECOMBINE,
};
use engine::Flow;
use engine::windows::PAGE;

use super::{code_integrity, pool, zeroed};
use crate::cx::Cx;
use crate::exports::data;
use crate::ob::attributes::{self, Attributes};
use crate::ob::handle::{self, Handle, Mode};
use crate::ob::{self, Kind, Procedures};
use crate::verdict::Verdict;

/// The name of the section that is all physical memory.
const PHYSICAL_MEMORY: &str = "\\Device\\PhysicalMemory";
/// Physical addresses have so many bits.
const PHYSICAL_BITS: u32 = 40;
/// The largest section: its bytes.
const LARGEST: u64 = 1 << 43;
/// Bytes of a section object; drivers see nothing of it.
const OBJECT_SIZE: u64 = 0x40;

/// Where a section's bytes are.
pub(crate) enum Backing {
    /// Physical pages by their number in the section, as far as they are committed.
    PageFile(BTreeMap<u64, u64>),
    /// An offset is a physical address.
    Physical,
}

/// A section.
pub(crate) struct Section {
    pub(crate) backing: Backing,
    /// Whole pages.
    pub(crate) bytes: u64,
    /// `PAGE_…`, of its pages.
    pub(crate) protection: u32,
    /// `SEC_…`.
    attributes: u32,
}

impl Section {
    /// Whether its pages are committed one by one.
    pub(crate) const fn is_reserved(&self) -> bool {
        self.attributes & SEC_RESERVE != 0
    }
}

/// All sections, by their objects.
#[derive(Default)]
pub struct State {
    sections: BTreeMap<u64, Section>,
}

impl State {
    pub(crate) fn get(&self, object: u64) -> Option<&Section> {
        self.sections.get(&object)
    }
}

/// The name goes with the last handle; views keep the object.
static PROCEDURES: Procedures = Procedures { close, delete };
static PERMANENT: Procedures = Procedures { close: Procedures::nothing, delete: |_, _| Ok(()) };

fn close(cx: &mut Cx<'_>, object: u64, _: u64, _: u32, handles: u32) -> Flow<()> {
    if handles == 0 {
        ob::object::make_temporary(cx, object);
    }
    Ok(())
}

fn delete(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    cx.with(|k| {
        let Some(Section { backing: Backing::PageFile(frames), .. }) = k.mm.section.sections.remove(&object)
        else {
            return;
        };
        zeroed::give(k, frames.into_values());
    });
    Procedures::free(cx, object)
}

/// Makes the section of all physical memory. Once, when there are names.
pub(crate) fn boot(cx: &mut Cx<'_>) {
    let object = data::physical_memory();
    ob::object::create(cx, object, Kind::Section, PHYSICAL_MEMORY, &PERMANENT)
        .expect("the name is free at boot");
    let (protection, attributes) = (PAGE_EXECUTE_READWRITE, SEC_COMMIT);
    let section = Section { backing: Backing::Physical, bytes: 1 << PHYSICAL_BITS, protection, attributes };
    cx.with(|k| k.mm.section.sections.insert(object, section));
}

/// `ZwCreateSection`.
///
/// # Errors
/// A verdict if a pointer is bad, or on what dirql lacks.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn zw_create(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    maximum_size: DriverPtr<i64>,
    protection: u32,
    allocation: u32,
    file: u64,
) -> Flow<NtStatus> {
    let named = match attributes::read(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(status),
    };
    if let Err(status) = judge(cx, protection, allocation, file)? {
        return Ok(status);
    }
    code_integrity::protection(cx, "ZwCreateSection", protection)?;
    let asked = if maximum_size.is_null() { 0 } else { cx.read(maximum_size)? };
    if asked == 0 {
        return Ok(NtStatus::INVALID_PARAMETER_4);
    }
    let Some(bytes) = u64::try_from(asked).ok().filter(|bytes| *bytes <= LARGEST) else {
        return Ok(NtStatus::SECTION_TOO_BIG);
    };
    if let Some(status) = attributes::open_existing(cx, &named, Kind::Section, access, handle)? {
        return Ok(status);
    }
    let bytes = bytes.next_multiple_of(PAGE);
    let count = if allocation & SEC_COMMIT != 0 { bytes / PAGE } else { 0 };
    let Some(frames) = zeroed::take(cx, count) else {
        return Ok(NtStatus::COMMITMENT_LIMIT);
    };
    let frames = (0..).zip(frames).collect();
    let section = Section { backing: Backing::PageFile(frames), bytes, protection, attributes: allocation };
    hand_out(cx, section, &named, access, handle)
}

/// Looks at what the section is to be.
fn judge(cx: &mut Cx<'_>, protection: u32, allocation: u32, file: u64) -> Flow<Result<(), NtStatus>> {
    let kinds =
        [SEC_COMMIT, SEC_RESERVE, SEC_IMAGE].into_iter().filter(|kind| allocation & kind != 0).count();
    let known = SEC_COMMIT
        | SEC_RESERVE
        | SEC_IMAGE
        | SEC_BASED
        | SEC_FILE
        | SEC_NO_CHANGE
        | SEC_NOCACHE
        | SEC_WRITECOMBINE
        | SEC_LARGE_PAGES;
    let caching = SEC_NOCACHE | SEC_WRITECOMBINE;
    if kinds != 1 || allocation & !known != 0 || allocation & caching == caching {
        return Ok(Err(NtStatus::INVALID_PARAMETER_6));
    }
    if !is_protection(protection) {
        return Ok(Err(NtStatus::INVALID_PAGE_PROTECTION));
    }
    if file != 0 {
        return judge_file(cx, file).map(Err);
    }
    if allocation & (SEC_IMAGE | SEC_FILE) != 0 {
        return Ok(Err(NtStatus::INVALID_FILE_FOR_SECTION));
    }
    if allocation & (SEC_LARGE_PAGES | SEC_BASED) != 0 {
        return Err(cx.stop(Verdict::not_implemented("a section of large pages, or one at a fixed address")));
    }
    Ok(Ok(()))
}

/// One of those that pages of a section can have.
const fn is_protection(protection: u32) -> bool {
    matches!(
        protection,
        PAGE_READONLY
            | PAGE_READWRITE
            | PAGE_WRITECOPY
            | PAGE_EXECUTE
            | PAGE_EXECUTE_READ
            | PAGE_EXECUTE_READWRITE
            | PAGE_EXECUTE_WRITECOPY
    )
}

/// A file of a device's has nothing that could be a section.
fn judge_file(cx: &mut Cx<'_>, file: u64) -> Flow<NtStatus> {
    let entry = match handle::reference(cx, Handle(file), Some(Kind::File), 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let object = DriverPtr::<FILE_OBJECT>::new(entry.object);
    let pointers = cx.read(object + FILE_OBJECT::SectionObjectPointer)?;
    ob::object::dereference(cx, object)?;
    if pointers.is_null() {
        return Ok(NtStatus::INVALID_FILE_FOR_SECTION);
    }
    Err(cx.stop(Verdict::not_implemented("a section of a file")))
}

/// Makes the object, and its first handle.
fn hand_out(
    cx: &mut Cx<'_>,
    section: Section,
    named: &Attributes,
    access: u32,
    to: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let body: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, OBJECT_SIZE, pool::tag(b"Sect"))?;
    let made = if body.is_null() {
        Err(NtStatus::INSUFFICIENT_RESOURCES)
    } else {
        ob::object::create(cx, body.address, Kind::Section, &named.name, &PROCEDURES)
    };
    if let Err(status) = made {
        if let Backing::PageFile(frames) = section.backing {
            cx.with(|k| zeroed::give(k, frames.into_values()));
        }
        if !body.is_null() {
            pool::free(cx, body)?;
        }
        return Ok(status);
    }
    cx.with(|k| k.mm.section.sections.insert(body.address, section));
    handle::open_made(cx, body, access, named.kernel_handle(), to)
}

/// `ZwOpenSection`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_open(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
) -> Flow<NtStatus> {
    attributes::open_named(cx, handle, access, attributes, Kind::Section)
}

/// `ZwQuerySection`: `SectionBasicInformation` (0); of `SectionImageInformation` (1) no section here has any.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_query(
    cx: &mut Cx<'_>,
    section: u64,
    class: u32,
    buffer: DriverPtr<u8>,
    length: u64,
    returned: DriverPtr<u64>,
) -> Flow<NtStatus> {
    /// `BaseAddress`, `AllocationAttributes`, `MaximumSize`.
    const BASIC: u64 = 0x18;
    /// `SECTION_IMAGE_INFORMATION`.
    const IMAGE: u64 = 0x40;
    let needed = match class {
        0 => BASIC,
        1 => IMAGE,
        _ => return Ok(NtStatus::INVALID_INFO_CLASS),
    };
    if length < needed {
        return Ok(NtStatus::INFO_LENGTH_MISMATCH);
    }
    let entry = match handle::reference(cx, Handle(section), Some(Kind::Section), 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let known = cx.with(|k| k.mm.section.get(entry.object).map(|known| (known.attributes, known.bytes)));
    ob::object::dereference(cx, DriverPtr::<()>::new(entry.object))?;
    let Some((attributes, bytes)) = known.filter(|_| class == 0) else {
        return Ok(NtStatus::SECTION_NOT_IMAGE);
    };
    let mut basic = [0; 3 * 8];
    basic[8..12].copy_from_slice(&attributes.to_le_bytes());
    basic[16..].copy_from_slice(&bytes.to_le_bytes());
    cx.write_bytes(buffer.address, &basic)?;
    if !returned.is_null() {
        cx.write(returned, BASIC)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// Commits pages of a section that has them reserved: those of `pages` that are not yet; none if there is not so much memory.
pub(crate) fn commit(cx: &mut Cx<'_>, object: u64, pages: std::ops::Range<u64>) -> Option<Vec<(u64, u64)>> {
    let missing: Vec<u64> = cx.with(|k| match k.mm.section.get(object) {
        Some(Section { backing: Backing::PageFile(frames), .. }) => {
            pages.filter(|page| !frames.contains_key(page)).collect()
        }
        _ => Vec::new(),
    });
    let frames = zeroed::take(cx, missing.len() as u64)?;
    let fresh: Vec<(u64, u64)> = missing.into_iter().zip(frames).collect();
    cx.with(|k| {
        if let Some(Section { backing: Backing::PageFile(known), .. }) =
            k.mm.section.sections.get_mut(&object)
        {
            known.extend(fresh.iter().copied());
        }
    });
    Some(fresh)
}
