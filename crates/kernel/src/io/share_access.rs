//! Share access: a driver's count of who opened what for what.
//!
//! Pages: *IoCheckShareAccess function*, *IoSetShareAccess function*, *IoUpdateShareAccess function*,
//! *IoRemoveShareAccess function*. The counts are the driver's memory; the caller holds its own lock.
//!
//! *Ours*: whose opens the counts are made of is kept beside them, so that it shows where one is left of a file object that is gone. It is said where the counts are asked next:
//! a driver may set them anew instead (`IoSetShareAccess`).

use std::collections::BTreeMap;

use abi::{
    DELETE, DriverPtr, FILE_APPEND_DATA, FILE_EXECUTE, FILE_OBJECT, FILE_READ_DATA, FILE_WRITE_DATA, Field,
    NtStatus, SHARE_ACCESS,
};
use engine::Flow;

use crate::cx::Cx;
use crate::verdict::Verdict;

/// An opener that is counted.
#[derive(Clone, Copy)]
struct Opener {
    file: u64,
    /// Its file object is gone.
    gone: bool,
}

/// Whose opens counts are made of, by the counts' addresses.
#[derive(Default)]
pub(crate) struct Openers(BTreeMap<u64, Vec<Opener>>);

impl Openers {
    fn come(&mut self, counts: u64, file: u64) {
        self.0.entry(counts).or_default().push(Opener { file, gone: false });
    }

    fn leave(&mut self, counts: u64, file: u64) {
        let Some(openers) = self.0.get_mut(&counts) else { return };
        if let Some(place) = openers.iter().position(|opener| opener.file == file && !opener.gone) {
            openers.remove(place);
        }
        if openers.is_empty() {
            self.0.remove(&counts);
        }
    }

    /// The counts are made anew.
    fn forget(&mut self, counts: u64) {
        self.0.remove(&counts);
    }

    /// A file object is gone.
    pub(crate) fn gone(&mut self, file: u64) {
        for opener in self.0.values_mut().flatten().filter(|opener| opener.file == file) {
            opener.gone = true;
        }
    }

    /// The counts say that there are so many: a file object that is gone and is still one of them, if they are made of nothing else than is known.
    fn left_of(&mut self, counts: u64, count: u32) -> Option<u64> {
        let openers = self.0.get(&counts)?;
        if u32::try_from(openers.len()) != Ok(count) {
            self.forget(counts);
            return None;
        }
        openers.iter().find(|opener| opener.gone).map(|opener| opener.file)
    }
}

/// Reading, writing, deleting: wanted by an opener, and granted to the others.
#[derive(Clone, Copy)]
pub(crate) struct Wishes {
    access: [bool; 3],
    share: [bool; 3],
}

const ACCESS_FIELDS: [Field<FILE_OBJECT, u8>; 3] =
    [FILE_OBJECT::ReadAccess, FILE_OBJECT::WriteAccess, FILE_OBJECT::DeleteAccess];
const SHARE_FIELDS: [Field<FILE_OBJECT, u8>; 3] =
    [FILE_OBJECT::SharedRead, FILE_OBJECT::SharedWrite, FILE_OBJECT::SharedDelete];
const OPENERS: [Field<SHARE_ACCESS, u32>; 3] =
    [SHARE_ACCESS::Readers, SHARE_ACCESS::Writers, SHARE_ACCESS::Deleters];
const SHARERS: [Field<SHARE_ACCESS, u32>; 3] =
    [SHARE_ACCESS::SharedRead, SHARE_ACCESS::SharedWrite, SHARE_ACCESS::SharedDelete];

impl Wishes {
    pub(crate) fn new(access: u32, share: u32) -> Self {
        Self {
            access: [FILE_EXECUTE | FILE_READ_DATA, FILE_WRITE_DATA | FILE_APPEND_DATA, DELETE]
                .map(|bits| access & bits != 0),
            // FILE_SHARE_READ, _WRITE, _DELETE.
            share: [1, 2, 4].map(|bit| share & bit != 0),
        }
    }

    fn of_file(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>) -> Flow<Self> {
        let mut wishes = Self { access: [false; 3], share: [false; 3] };
        for index in 0..3 {
            wishes.access[index] = cx.read(file + ACCESS_FIELDS[index])? != 0;
            wishes.share[index] = cx.read(file + SHARE_FIELDS[index])? != 0;
        }
        Ok(wishes)
    }

    /// Into the fields of a file object.
    ///
    /// # Errors
    /// A verdict on a damaged file object.
    pub(crate) fn write(&self, cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>) -> Flow<()> {
        for index in 0..3 {
            cx.write(file + ACCESS_FIELDS[index], self.access[index].into())?;
            cx.write(file + SHARE_FIELDS[index], self.share[index].into())?;
        }
        Ok(())
    }

    /// Whether one who wants this is refused while another has the file.
    pub(crate) fn conflict_with(&self, other: &Self) -> bool {
        let refused = |index: usize| self.access[index] && !other.share[index];
        let used = |index: usize| other.access[index] && !self.share[index];
        self.counts() && other.counts() && (0..3).any(|index| refused(index) || used(index))
    }

    /// An opener that wants no data is not counted.
    fn counts(&self) -> bool {
        self.access.contains(&true)
    }

    fn add(&self, cx: &mut Cx<'_>, counts: DriverPtr<SHARE_ACCESS>, change: i32) -> Flow<()> {
        if !self.counts() {
            return Ok(());
        }
        bump(cx, counts, SHARE_ACCESS::OpenCount, change)?;
        for index in 0..3 {
            if self.access[index] {
                bump(cx, counts, OPENERS[index], change)?;
            }
            if self.share[index] {
                bump(cx, counts, SHARERS[index], change)?;
            }
        }
        Ok(())
    }
}

fn bump(
    cx: &mut Cx<'_>,
    counts: DriverPtr<SHARE_ACCESS>,
    field: Field<SHARE_ACCESS, u32>,
    change: i32,
) -> Flow<()> {
    let value = cx.read(counts + field)?;
    cx.write(counts + field, value.wrapping_add_signed(change))
}

/// `IoCheckShareAccess`: `SHARING_VIOLATION` if others do not share what is wanted, or use what is not shared.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn check(
    cx: &mut Cx<'_>,
    access: u32,
    share: u32,
    file: DriverPtr<FILE_OBJECT>,
    counts: DriverPtr<SHARE_ACCESS>,
    update: bool,
) -> Flow<NtStatus> {
    let wishes = Wishes::new(access, share);
    wishes.write(cx, file)?;
    if !wishes.counts() {
        return Ok(NtStatus::SUCCESS);
    }
    let openers = cx.read(counts + SHARE_ACCESS::OpenCount)?;
    if let Some(gone) = cx.with(|k| k.io.openers.left_of(counts.address, openers)) {
        let message = format!(
            "IoCheckShareAccess was given counts at {:#x} that count the opener with the file object {gone:#x}, which is gone: its share was not given back, and those that do not share with it are refused",
            counts.address
        );
        cx.report(Verdict::warning("share-access-kept", message));
    }
    for index in 0..3 {
        let refused = wishes.access[index] && cx.read(counts + SHARERS[index])? < openers;
        let used = !wishes.share[index] && cx.read(counts + OPENERS[index])? != 0;
        if refused || used {
            return Ok(NtStatus::SHARING_VIOLATION);
        }
    }
    if update {
        count(cx, &wishes, file, counts)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// An opener with these wishes is counted from here on, if it is one that is.
fn count(
    cx: &mut Cx<'_>,
    wishes: &Wishes,
    file: DriverPtr<FILE_OBJECT>,
    counts: DriverPtr<SHARE_ACCESS>,
) -> Flow<()> {
    if wishes.counts() {
        cx.with(|k| k.io.openers.come(counts.address, file.address));
    }
    wishes.add(cx, counts, 1)
}

/// `IoSetShareAccess`: the first opener.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn set(
    cx: &mut Cx<'_>,
    access: u32,
    share: u32,
    file: DriverPtr<FILE_OBJECT>,
    counts: DriverPtr<SHARE_ACCESS>,
) -> Flow<()> {
    let wishes = Wishes::new(access, share);
    wishes.write(cx, file)?;
    cx.write(counts, SHARE_ACCESS::zeroed())?;
    cx.with(|k| k.io.openers.forget(counts.address));
    count(cx, &wishes, file, counts)
}

/// `IoUpdateShareAccess`: counts a file that [`check`] has let through.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn update(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    counts: DriverPtr<SHARE_ACCESS>,
) -> Flow<()> {
    let wishes = Wishes::of_file(cx, file)?;
    count(cx, &wishes, file, counts)
}

/// `IoRemoveShareAccess`: a file is closed.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn remove(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    counts: DriverPtr<SHARE_ACCESS>,
) -> Flow<()> {
    let wishes = Wishes::of_file(cx, file)?;
    cx.with(|k| k.io.openers.leave(counts.address, file.address));
    wishes.add(cx, counts, -1)
}
