//! Resources of an image: found by type, name and language; and the texts of its message tables.
//!
//! Page: *PE Format* (*The .rsrc Section*), *MESSAGE_RESOURCE_DATA structure*, *FindResourceEx function*; the `Ldr` routines have none of their own. Types
//! and names are numbers or texts; language 0 is any. Levels of less than three give no data, and are not here.

use abi::{DriverPtr, NtStatus};
use engine::Flow;

use super::{crt, image, text, tree};
use crate::cx::Cx;
use crate::ke::budget;
use crate::mm::pool;
use crate::verdict::Verdict;

/// `IMAGE_DIRECTORY_ENTRY_RESOURCE`.
const RESOURCES: u16 = 2;
/// Of a directory: how many entries have names, and how many numbers; they follow.
const NAMED: u64 = 0xC;
const NUMBERED: u64 = 0xE;
const ENTRIES: u64 = 0x10;
/// An entry's name is a text, or it leads to a directory.
const HIGH: u32 = 1 << 31;
/// Type, name and language.
const LEVELS: u32 = 3;

/// The status if there is no entry, by level.
const NOT_FOUND: [NtStatus; 3] =
    [NtStatus::RESOURCE_TYPE_NOT_FOUND, NtStatus::RESOURCE_NAME_NOT_FOUND, NtStatus::RESOURCE_LANG_NOT_FOUND];

/// Where the resources of the image at `base` begin; 0 if it has none.
fn root(cx: &mut Cx<'_>, base: u64) -> Flow<u64> {
    let size: DriverPtr<u32> = pool::allocate(cx, pool::Kind::NonPaged, 4, pool::tag(b"LdRs"))?;
    if size.is_null() {
        return Ok(0);
    }
    let root = image::directory_entry_to_data(cx, DriverPtr::new(base), true, RESOURCES, size)?;
    pool::free(cx, size)?;
    Ok(root)
}

/// What a name in a directory is: a number, or a text in capitals.
#[derive(PartialEq, Eq)]
enum Name {
    Number(u32),
    Text(Vec<u16>),
}

fn wanted(cx: &mut Cx<'_>, id: u64) -> Flow<Name> {
    if let Ok(number) = u16::try_from(id) {
        return Ok(Name::Number(number.into()));
    }
    let units = crt::read::<2>(cx, id, crt::ALL)?;
    Ok(Name::Text(units.into_iter().map(text::upcase).collect()))
}

fn name_of(cx: &mut Cx<'_>, root: u64, entry: u32) -> Flow<Name> {
    if entry & HIGH == 0 {
        return Ok(Name::Number(entry));
    }
    let at = root + u64::from(entry & !HIGH);
    let length: u16 = cx.read(DriverPtr::new(at))?;
    let bytes = cx.read_bytes(at + 2, 2 * u64::from(length))?;
    Ok(Name::Text(text::units(&bytes).into_iter().map(text::upcase).collect()))
}

/// The entry of a directory with this name, or its first where any will do: what it leads to.
fn entry(cx: &mut Cx<'_>, root: u64, directory: u64, name: &Name, any: bool) -> Flow<Option<u32>> {
    let named = cx.read(DriverPtr::<u16>::new(directory + NAMED))?;
    let numbered = cx.read(DriverPtr::<u16>::new(directory + NUMBERED))?;
    for index in 0..u64::from(named) + u64::from(numbered) {
        budget::spend(cx, tree::STEP)?;
        let at = DriverPtr::<u32>::new(directory + ENTRIES + 8 * index);
        let (own, leads_to) = (cx.read(at)?, cx.read(at.index(1))?);
        if any || name_of(cx, root, own)? == *name {
            return Ok(Some(leads_to));
        }
    }
    Ok(None)
}

/// Where the `IMAGE_RESOURCE_DATA_ENTRY` of these three lies.
fn find(cx: &mut Cx<'_>, base: u64, ids: [u64; 3]) -> Flow<Result<u64, NtStatus>> {
    let root = root(cx, base)?;
    if root == 0 {
        return Ok(Err(NtStatus::RESOURCE_DATA_NOT_FOUND));
    }
    let mut directory = root;
    for (level, (id, missing)) in ids.into_iter().zip(NOT_FOUND).enumerate() {
        let name = wanted(cx, id)?;
        let any = level == 2 && id == 0;
        let Some(leads_to) = entry(cx, root, directory, &name, any)? else { return Ok(Err(missing)) };
        let is_directory = leads_to & HIGH != 0;
        if is_directory == (level == 2) {
            return Ok(Err(NtStatus::INVALID_IMAGE_FORMAT));
        }
        directory = root + u64::from(leads_to & !HIGH);
    }
    Ok(Ok(directory))
}

/// `LdrFindResource_U`: `path` is the type, the name and the language.
///
/// # Errors
/// A verdict on a bad pointer, here and below, or on less than three levels.
pub(crate) fn find_resource(
    cx: &mut Cx<'_>,
    base: u64,
    path: DriverPtr<u64>,
    level: u32,
    entry: DriverPtr<u64>,
) -> Flow<NtStatus> {
    if level != LEVELS {
        let what = format!("LdrFindResource_U of {level} levels");
        return Err(cx.stop(Verdict::not_implemented(&what)));
    }
    let ids = [cx.read(path)?, cx.read(path.index(1))?, cx.read(path.index(2))?];
    match find(cx, base & !3, ids)? {
        Ok(found) => {
            cx.write(entry, found)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// `LdrAccessResource`: where the data of an entry lies, and how many bytes it has.
///
/// # Errors
/// As [`find_resource`].
pub(crate) fn access(
    cx: &mut Cx<'_>,
    base: u64,
    entry: DriverPtr<u32>,
    data: DriverPtr<u64>,
    size: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let (rva, bytes) = (cx.read(entry)?, cx.read(entry.index(1))?);
    if !data.is_null() {
        // Nothing is read from the base here: it may be any number.
        cx.write(data, (base & !3).wrapping_add(rva.into()))?;
    }
    if !size.is_null() {
        cx.write(size, bytes)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// `RtlFindMessage`: the `MESSAGE_RESOURCE_ENTRY` of a message; the tables' type is 11, their name 1.
///
/// # Errors
/// As [`find_resource`].
pub(crate) fn find_message(
    cx: &mut Cx<'_>,
    base: u64,
    table: u32,
    language: u32,
    message: u32,
    entry: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let ids = [u64::from(table), 1, u64::from(language)];
    let found = match find(cx, base & !3, ids)? {
        Ok(found) => found,
        Err(status) => return Ok(status),
    };
    let data = (base & !3) + u64::from(cx.read(DriverPtr::<u32>::new(found))?);
    let blocks = cx.read(DriverPtr::<u32>::new(data))?;
    for block in 0..u64::from(blocks) {
        budget::spend(cx, tree::STEP)?;
        let at = DriverPtr::<u32>::new(data + 4 + 12 * block);
        let (low, high, offset) = (cx.read(at)?, cx.read(at.index(1))?, cx.read(at.index(2))?);
        if !(low..=high).contains(&message) {
            continue;
        }
        let mut own = data + u64::from(offset);
        for _ in low..message {
            budget::spend(cx, tree::STEP)?;
            own += u64::from(cx.read(DriverPtr::<u16>::new(own))?).max(4);
        }
        cx.write(entry, own)?;
        return Ok(NtStatus::SUCCESS);
    }
    Ok(NtStatus::MESSAGE_NOT_FOUND)
}
