//! Access control lists: who may and who may not, entry by entry, in their order.
//!
//! Pages: *ACL structure*, *ACE*, *RtlCreateAcl function*, *RtlAddAccessAllowedAce function*, *RtlAddAce function*, *RtlGetAce function*,
//! *RtlDeleteAce function*. A list is read entry by entry: what lies behind the last one is room, which is never looked at.

use abi::{
    ACCESS_ALLOWED_ACE, ACCESS_ALLOWED_ACE_TYPE, ACCESS_ALLOWED_OBJECT_ACE_TYPE, ACE_HEADER, ACL,
    ACL_REVISION, ACL_REVISION_DS, DriverPtr, GENERIC_ALL, GENERIC_EXECUTE, GENERIC_MAPPING, GENERIC_READ,
    GENERIC_WRITE, INHERIT_ONLY_ACE, NtStatus, SID, SYSTEM_ALARM_ACE_TYPE, SYSTEM_ALARM_OBJECT_ACE_TYPE,
    VALID_INHERIT_FLAGS,
};
use engine::Flow;

use super::sid::{self, Sid};
use crate::cx::Cx;
use crate::ke::budget;
use crate::rtl::memory;

/// Bytes of a list without entries.
pub(crate) const HEAD: u16 = 8;
/// Bytes of an entry before its identifier.
const ENTRY_HEAD: usize = 8;

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// All its bytes.
    bytes: Vec<u8>,
}

impl Entry {
    /// An entry of one of the simple types: what it is, `…_ACE` flags, rights, whose.
    #[must_use]
    pub fn new(kind: u8, flags: u8, mask: u32, sid: &Sid) -> Self {
        let sid = sid.bytes();
        let size = u16::try_from(ENTRY_HEAD + sid.len()).unwrap_or(0);
        let mut bytes = vec![kind, flags];
        bytes.extend(size.to_le_bytes());
        bytes.extend(mask.to_le_bytes());
        bytes.extend(sid);
        Self { bytes }
    }

    /// `ACCESS_ALLOWED_ACE_TYPE` and others.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.bytes[0]
    }

    /// `INHERIT_ONLY_ACE` and others.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.bytes[1]
    }

    /// The rights, of an entry that has some.
    #[must_use]
    pub fn mask(&self) -> u32 {
        self.bytes.get(4..8).and_then(|mask| mask.try_into().ok()).map_or(0, u32::from_le_bytes)
    }

    /// Whose rights, of an entry of a simple type.
    #[must_use]
    pub fn sid(&self) -> Option<Sid> {
        if self.kind() > SYSTEM_ALARM_ACE_TYPE {
            return None;
        }
        Sid::from_bytes(self.bytes.get(ENTRY_HEAD..)?)
    }

    /// The same with other flags.
    #[must_use]
    pub fn with_flags(&self, flags: u8) -> Self {
        let mut bytes = self.bytes.clone();
        bytes[1] = flags;
        Self { bytes }
    }

    /// The same with its generic rights replaced by what they mean, unless it only is to be handed on.
    fn mapped(mut self, mapping: &GENERIC_MAPPING) -> Self {
        let rights = mapped(self.mask(), mapping);
        if self.flags() & INHERIT_ONLY_ACE == 0
            && let Some(mask) = self.bytes.get_mut(4..8)
        {
            mask.copy_from_slice(&rights.to_le_bytes());
        }
        self
    }

    fn is_valid(&self) -> bool {
        let size = self.bytes.len();
        size.is_multiple_of(4) && (self.kind() > SYSTEM_ALARM_ACE_TYPE || self.sid().is_some())
    }

    fn is_for_objects(&self) -> bool {
        (ACCESS_ALLOWED_OBJECT_ACE_TYPE..=SYSTEM_ALARM_OBJECT_ACE_TYPE).contains(&self.kind())
    }
}

/// A list as a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acl {
    /// `ACL_REVISION` or `ACL_REVISION_DS`.
    pub revision: u8,
    /// Bytes that it has, room included.
    pub size: u16,
    /// Its entries.
    pub entries: Vec<Entry>,
}

impl Acl {
    /// A list that has room for its entries and no more.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut acl = Self { revision: ACL_REVISION, size: 0, entries };
        acl.size = u16::try_from(acl.used()).unwrap_or(u16::MAX);
        acl
    }

    /// The same with generic rights replaced by what they mean.
    #[must_use]
    pub fn mapped(mut self, mapping: &GENERIC_MAPPING) -> Self {
        self.entries = self.entries.into_iter().map(|entry| entry.mapped(mapping)).collect();
        self
    }

    /// Bytes up to the end of the last entry.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.offset(self.entries.len())
    }

    /// Where the entry of this index begins, or would begin.
    fn offset(&self, index: usize) -> u32 {
        let bytes: usize = self.entries[..index].iter().map(|entry| entry.bytes.len()).sum();
        u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(HEAD.into())
    }

    fn head(&self) -> Vec<u8> {
        let count = u16::try_from(self.entries.len()).unwrap_or(u16::MAX);
        let mut bytes = vec![self.revision, 0];
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend([0; 2]);
        bytes
    }

    /// The bytes of the entries from this index on.
    fn tail(&self, index: usize) -> Vec<u8> {
        self.entries[index..].iter().flat_map(|entry| entry.bytes.clone()).collect()
    }

    /// As it lies in memory, its room zeroes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend(self.tail(0));
        bytes.resize(bytes.len().max(self.size.into()), 0);
        bytes
    }
}

const fn is_revision(revision: u8) -> bool {
    ACL_REVISION <= revision && revision <= ACL_REVISION_DS
}

/// The list at `at`; none if it is not properly formed.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn read(cx: &mut Cx<'_>, at: DriverPtr<ACL>) -> Flow<Option<Acl>> {
    let head = cx.read(at)?;
    let mut acl =
        Acl { revision: head.get(ACL::AclRevision), size: head.get(ACL::AclSize), entries: Vec::new() };
    if !is_revision(acl.revision) || acl.size < HEAD {
        return Ok(None);
    }
    let mut left = acl.size - HEAD;
    let mut entry = at.cast::<ACE_HEADER>().byte_add(HEAD.into());
    for _ in 0..head.get(ACL::AceCount) {
        budget::spend(cx, budget::SERVICE)?;
        if left < 4 {
            return Ok(None);
        }
        let size = cx.read(entry + ACE_HEADER::AceSize)?;
        if size < 4 || size > left {
            return Ok(None);
        }
        let read = Entry { bytes: memory::load(cx, entry.address, size.into())? };
        if !read.is_valid() {
            return Ok(None);
        }
        acl.entries.push(read);
        left -= size;
        entry = entry.byte_add(size.into());
    }
    Ok(Some(acl))
}

/// Whether there is a properly formed list.
///
/// # Errors
/// As [`read`].
pub(crate) fn valid(cx: &mut Cx<'_>, at: DriverPtr<ACL>) -> Flow<bool> {
    Ok(read(cx, at)?.is_some())
}

/// Writes the head and the entries from `first` on.
fn write(cx: &mut Cx<'_>, at: DriverPtr<ACL>, acl: &Acl, first: usize) -> Flow<()> {
    memory::store(cx, at.address, &acl.head())?;
    memory::store(cx, at.address.wrapping_add(acl.offset(first).into()), &acl.tail(first))
}

/// `RtlCreateAcl`: a list without entries, in as many bytes as are a multiple of 4.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn create(cx: &mut Cx<'_>, acl: DriverPtr<ACL>, length: u32, revision: u32) -> Flow<NtStatus> {
    if length < HEAD.into() {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    let (Ok(size), Ok(revision)) = (u16::try_from(length), u8::try_from(revision)) else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    if !is_revision(revision) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    write(cx, acl, &Acl { revision, size: size & !3, entries: Vec::new() }, 0)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlAddAccessAllowedAce`: at the end.
///
/// # Errors
/// As [`create`].
pub(crate) fn add_access_allowed(
    cx: &mut Cx<'_>,
    acl: DriverPtr<ACL>,
    revision: u32,
    mask: u32,
    sid: DriverPtr<SID>,
) -> Flow<NtStatus> {
    add_access_allowed_ex(cx, acl, revision, 0, mask, sid)
}

/// `RtlAddAccessAllowedAceEx`: with flags of inheritance.
///
/// # Errors
/// As [`create`].
pub(crate) fn add_access_allowed_ex(
    cx: &mut Cx<'_>,
    at: DriverPtr<ACL>,
    revision: u32,
    flags: u32,
    mask: u32,
    sid: DriverPtr<SID>,
) -> Flow<NtStatus> {
    let Some(sid) = sid::read(cx, sid)? else { return Ok(NtStatus::INVALID_SID) };
    let held = cx.read(at + ACL::AclRevision)?;
    let Some(revision) = u8::try_from(revision).ok().filter(|&revision| is_revision(revision)) else {
        return Ok(NtStatus::REVISION_MISMATCH);
    };
    if held > ACL_REVISION_DS {
        return Ok(NtStatus::REVISION_MISMATCH);
    }
    let Some(flags) = u8::try_from(flags).ok().filter(|flags| flags & !VALID_INHERIT_FLAGS == 0) else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    let Some(mut acl) = read(cx, at)? else { return Ok(NtStatus::INVALID_ACL) };
    acl.revision = held.max(revision);
    acl.entries.push(Entry::new(ACCESS_ALLOWED_ACE_TYPE, flags, mask, &sid));
    if acl.used() > acl.size.into() {
        return Ok(NtStatus::ALLOTTED_SPACE_EXCEEDED);
    }
    write(cx, at, &acl, acl.entries.len() - 1)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlAddAce`: entries as they are, in front of the one of this index; `MAXULONG` and whatever there is none of: at the end.
///
/// # Errors
/// As [`create`].
pub(crate) fn add(
    cx: &mut Cx<'_>,
    at: DriverPtr<ACL>,
    revision: u32,
    index: u32,
    list: u64,
    length: u32,
) -> Flow<NtStatus> {
    let Some(mut acl) = read(cx, at)? else { return Ok(NtStatus::INVALID_PARAMETER) };
    let Some(revision) = u8::try_from(revision).ok().filter(|&revision| is_revision(revision)) else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    if length > u16::MAX.into() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let bytes = memory::load(cx, list, length.into())?;
    let Some(added) = split(&bytes) else { return Ok(NtStatus::INVALID_PARAMETER) };
    if revision < ACL_REVISION_DS && added.iter().any(Entry::is_for_objects) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    acl.revision = acl.revision.max(revision);
    let first = (index as usize).min(acl.entries.len());
    acl.entries.splice(first..first, added);
    if acl.used() > acl.size.into() {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    write(cx, at, &acl, first)?;
    Ok(NtStatus::SUCCESS)
}

/// Entries that lie one behind the other, to the last byte.
fn split(mut bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let size = usize::from(u16::from_le_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        let (entry, rest) = bytes.split_at_checked(size).filter(|_| size >= 4)?;
        entries.push(Entry { bytes: entry.to_vec() });
        bytes = rest;
    }
    entries.iter().all(Entry::is_valid).then_some(entries)
}

/// `RtlGetAce`: where the entry of this index lies.
///
/// # Errors
/// As [`create`].
pub(crate) fn get(cx: &mut Cx<'_>, at: DriverPtr<ACL>, index: u32, ace: DriverPtr<u64>) -> Flow<NtStatus> {
    match read(cx, at)? {
        Some(acl) if (index as usize) < acl.entries.len() => {
            cx.write(ace, at.address.wrapping_add(acl.offset(index as usize).into()))?;
            Ok(NtStatus::SUCCESS)
        }
        _ => Ok(NtStatus::INVALID_PARAMETER),
    }
}

/// `RtlDeleteAce`: those behind it move up.
///
/// # Errors
/// As [`create`].
pub(crate) fn delete(cx: &mut Cx<'_>, at: DriverPtr<ACL>, index: u32) -> Flow<NtStatus> {
    let index = index as usize;
    let Some(mut acl) = read(cx, at)?.filter(|acl| index < acl.entries.len()) else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    let before = acl.used();
    acl.entries.remove(index);
    write(cx, at, &acl, index)?;
    let free = at.address.wrapping_add(acl.used().into());
    memory::store(cx, free, &vec![0; (before - acl.used()) as usize])?;
    Ok(NtStatus::SUCCESS)
}

/// Rights with the generic ones replaced by what they mean.
#[must_use]
pub(crate) fn mapped(mask: u32, mapping: &GENERIC_MAPPING) -> u32 {
    type M = GENERIC_MAPPING;
    let generic = [
        (GENERIC_READ, M::GenericRead),
        (GENERIC_WRITE, M::GenericWrite),
        (GENERIC_EXECUTE, M::GenericExecute),
        (GENERIC_ALL, M::GenericAll),
    ];
    let asked = generic.into_iter().filter(|(right, _)| mask & right != 0);
    let specific = asked.fold(mask, |rights, (_, means)| rights | mapping.get(means));
    specific & !(GENERIC_READ | GENERIC_WRITE | GENERIC_EXECUTE | GENERIC_ALL)
}

/// `RtlMapGenericMask`.
///
/// # Errors
/// As [`create`].
pub(crate) fn map_generic(
    cx: &mut Cx<'_>,
    mask: DriverPtr<u32>,
    mapping: DriverPtr<GENERIC_MAPPING>,
) -> Flow<()> {
    let (rights, mapping) = (cx.read(mask)?, cx.read(mapping)?);
    cx.write(mask, mapped(rights, &mapping))
}

const _: () = assert!(ACCESS_ALLOWED_ACE::SidStart.offset() == ENTRY_HEAD as u64);
