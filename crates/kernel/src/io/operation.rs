//! What can be asked of an open file, and what a request of each kind needs.
//!
//! Pages: *ReadFile function*, *WriteFile function*, *DeviceIoControl function*, *Defining I/O Control Codes*. Sending it is in
//! `transfer`.

use abi::{
    DriverPtr, FILE_LIST_DIRECTORY, FILE_READ_DATA, FILE_WRITE_DATA, IRP_MJ_DEVICE_CONTROL,
    IRP_MJ_DIRECTORY_CONTROL, IRP_MJ_FILE_SYSTEM_CONTROL, IRP_MJ_FLUSH_BUFFERS,
    IRP_MJ_INTERNAL_DEVICE_CONTROL, IRP_MJ_LOCK_CONTROL, IRP_MJ_QUERY_INFORMATION,
    IRP_MJ_QUERY_VOLUME_INFORMATION, IRP_MJ_READ, IRP_MJ_SET_INFORMATION, IRP_MJ_SET_VOLUME_INFORMATION,
    IRP_MJ_WRITE, IRP_MN_LOCK, UNICODE_STRING,
};

use super::asked::About;
use super::buffers::Buffer;
use crate::ob::handle::Mode;

/// `ByteOffset` of a write that means the file's end.
pub(super) const FILE_WRITE_TO_END_OF_FILE: i64 = -1;
/// `ByteOffset` that means the file's current position.
const FILE_USE_FILE_POINTER_POSITION: i64 = -2;

/// Where an operation begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// At the file's current position.
    Position,
    /// At this offset, or [`FILE_WRITE_TO_END_OF_FILE`].
    At(i64),
}

/// What an application asks of an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `ReadFile`: into the buffer, from the offset or the file's current position.
    Read(Buffer, Option<i64>),
    /// `WriteFile`.
    Write(Buffer, Option<i64>),
    /// `ReadFileScatter`: so many bytes to the pages of an array of addresses.
    Scatter(Segments, Option<i64>),
    /// `WriteFileGather`: from them.
    Gather(Segments, Option<i64>),
    /// `DeviceIoControl` with a control code, input and output.
    Control(u32, Buffer, Buffer),
    /// As `Control`, as an internal one; drivers only.
    InternalControl(u32, Buffer, Buffer),
    /// As `Control`, to a file system; drivers only.
    FsControl(u32, Buffer, Buffer),
    /// `FlushFileBuffers`: the minor function says how much is to be flushed.
    Flush(u8),
    /// What is known of the file, of this class.
    Query(u32, Buffer),
    /// As `Query`, to be set.
    Set(u32, Buffer),
    /// What the directory has; drivers only.
    List(Listing),
    /// What is known of the volume, of this class.
    QueryVolume(u32, Buffer),
    /// As `QueryVolume`, to be set; drivers only.
    SetVolume(u32, Buffer),
    /// A range of bytes is locked or unlocked; drivers only.
    Lock(ByteRange),
}

/// A range of bytes that is to be locked or unlocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    /// `IRP_MN_LOCK` or `IRP_MN_UNLOCK_SINGLE`.
    pub minor: u8,
    /// `SL_FAIL_IMMEDIATELY`, `SL_EXCLUSIVE_LOCK`.
    pub flags: u8,
    /// Where it begins.
    pub offset: i64,
    /// Where the requester says how many bytes it has, 8 bytes.
    pub length: u64,
}

/// Pages that need not lie beside each other: an array of `FILE_SEGMENT_ELEMENT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segments {
    /// Where the array is.
    pub array: u64,
    /// Bytes of the transfer.
    pub length: u32,
}

/// What `ZwQueryDirectoryFile` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listing {
    /// What is to be returned of each entry.
    pub class: u32,
    /// Where it goes.
    pub buffer: Buffer,
    /// The pattern, a counted string of the requester's; null: all.
    pub pattern: DriverPtr<UNICODE_STRING>,
    /// `SL_RESTART_SCAN`, `SL_RETURN_SINGLE_ENTRY`.
    pub flags: u8,
}

impl Operation {
    /// The function as applications know it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Read(..) => "ReadFile",
            Self::Write(..) => "WriteFile",
            Self::Scatter(..) => "ReadFileScatter",
            Self::Gather(..) => "WriteFileGather",
            Self::Control(..) | Self::InternalControl(..) => "DeviceIoControl",
            Self::FsControl(..) => "ZwFsControlFile",
            Self::Flush(_) => "FlushFileBuffers",
            Self::Query(..) => "NtQueryInformationFile",
            Self::Set(..) => "NtSetInformationFile",
            Self::List(_) => "ZwQueryDirectoryFile",
            Self::QueryVolume(..) => "ZwQueryVolumeInformationFile",
            Self::SetVolume(..) => "ZwSetVolumeInformationFile",
            Self::Lock(ByteRange { minor: IRP_MN_LOCK, .. }) => "ZwLockFile",
            Self::Lock(_) => "ZwUnlockFile",
        }
    }

    /// The routine by which a driver asks for it.
    pub(crate) const fn ddi(&self) -> &'static str {
        match self {
            Self::Read(..) => "ZwReadFile",
            Self::Write(..) => "ZwWriteFile",
            Self::Control(..) | Self::InternalControl(..) => "ZwDeviceIoControlFile",
            Self::Flush(0) => "ZwFlushBuffersFile",
            Self::Flush(_) => "ZwFlushBuffersFileEx",
            _ => self.name(),
        }
    }

    /// What traces say of it, for this file.
    pub(crate) fn about(&self, file: String) -> About {
        let about = About { file, ..About::default() };
        match self {
            Self::Read(buffer, offset) => About { output: Some(buffer.length), ..about.at(*offset) },
            Self::Write(buffer, offset) => About { input: Some(buffer.length), ..about.at(*offset) },
            Self::Scatter(segments, offset) => {
                About { output: Some(segments.length), ..about.at(Some(offset.unwrap_or(0))) }
            }
            Self::Gather(segments, offset) => {
                About { input: Some(segments.length), ..about.at(Some(offset.unwrap_or(0))) }
            }
            Self::Control(code, input, output)
            | Self::InternalControl(code, input, output)
            | Self::FsControl(code, input, output) => {
                About { code: Some(*code), input: Some(input.length), output: Some(output.length), ..about }
            }
            Self::Flush(_) => about,
            Self::Lock(range) => about.at(Some(range.offset)),
            Self::List(listing) => {
                About { class: Some(listing.class), output: Some(listing.buffer.length), ..about }
            }
            Self::Query(class, buffer) | Self::QueryVolume(class, buffer) => {
                About { class: Some(*class), output: Some(buffer.length), ..about }
            }
            Self::Set(class, buffer) | Self::SetVolume(class, buffer) => {
                About { class: Some(*class), input: Some(buffer.length), ..about }
            }
        }
    }

    pub(crate) const fn major(&self) -> u8 {
        match self {
            Self::Read(..) | Self::Scatter(..) => IRP_MJ_READ,
            Self::Write(..) | Self::Gather(..) => IRP_MJ_WRITE,
            Self::Control(..) => IRP_MJ_DEVICE_CONTROL,
            Self::InternalControl(..) => IRP_MJ_INTERNAL_DEVICE_CONTROL,
            Self::FsControl(..) => IRP_MJ_FILE_SYSTEM_CONTROL,
            Self::Flush(_) => IRP_MJ_FLUSH_BUFFERS,
            Self::Query(..) => IRP_MJ_QUERY_INFORMATION,
            Self::Set(..) => IRP_MJ_SET_INFORMATION,
            Self::List(_) => IRP_MJ_DIRECTORY_CONTROL,
            Self::QueryVolume(..) => IRP_MJ_QUERY_VOLUME_INFORMATION,
            Self::SetVolume(..) => IRP_MJ_SET_VOLUME_INFORMATION,
            Self::Lock(_) => IRP_MJ_LOCK_CONTROL,
        }
    }

    /// The access a handle must have.
    pub(crate) fn access(&self) -> u32 {
        match self {
            Self::Read(..) | Self::Scatter(..) => FILE_READ_DATA,
            Self::Write(..) | Self::Gather(..) | Self::Flush(_) | Self::SetVolume(..) => FILE_WRITE_DATA,
            // `FILE_READ_ACCESS` is 1, `FILE_WRITE_ACCESS` 2: the same bits.
            Self::Control(code, ..) | Self::InternalControl(code, ..) | Self::FsControl(code, ..) => {
                *code >> 14 & 3
            }
            Self::Query(..) | Self::Set(..) | Self::QueryVolume(..) | Self::Lock(_) => 0,
            Self::List(_) => FILE_LIST_DIRECTORY,
        }
    }

    const fn offset(&self) -> Option<Option<i64>> {
        match self {
            Self::Read(_, offset)
            | Self::Write(_, offset)
            | Self::Scatter(_, offset)
            | Self::Gather(_, offset) => Some(*offset),
            _ => None,
        }
    }

    /// Where it begins, on a file that is synchronous or not; none if it does not say so as it must.
    #[inline]
    pub(super) fn start(&self, synchronous: bool, mode: Mode) -> Option<Start> {
        match self.offset() {
            None => Some(Start::At(0)),
            Some(None | Some(FILE_USE_FILE_POINTER_POSITION)) if synchronous => Some(Start::Position),
            // A file that is not synchronous has no position. An OVERLAPPED always has an offset; a driver has to give one.
            Some(None) => (mode == Mode::User).then_some(Start::At(0)),
            Some(Some(FILE_WRITE_TO_END_OF_FILE)) if matches!(self, Self::Write(..)) => {
                Some(Start::At(FILE_WRITE_TO_END_OF_FILE))
            }
            Some(Some(offset)) => (offset >= 0).then_some(Start::At(offset)),
        }
    }

    /// From where a synchronous file's position moves on by what was transferred; none if it does not move.
    #[inline]
    pub(super) fn moves_from(&self) -> Option<Start> {
        match self.offset()? {
            // Only the driver knows where the end was: it has set the position.
            Some(FILE_WRITE_TO_END_OF_FILE) => None,
            None | Some(FILE_USE_FILE_POINTER_POSITION) => Some(Start::Position),
            Some(offset) => Some(Start::At(offset)),
        }
    }

    /// Bytes that the driver may fill.
    pub(crate) const fn output(&self) -> Option<u32> {
        match self {
            Self::Read(buffer, _)
            | Self::Control(_, _, buffer)
            | Self::InternalControl(_, _, buffer)
            | Self::FsControl(_, _, buffer)
            | Self::Query(_, buffer)
            | Self::QueryVolume(_, buffer) => Some(buffer.length),
            Self::List(listing) => Some(listing.buffer.length),
            _ => None,
        }
    }
}
