//! What a request says to its driver: who asks, in the header; what for, in the first stack location and in the header's flags.
//!
//! Pages: *IO_STACK_LOCATION structure*, *IRP structure*. The general path fills a [`Packet`](super::packet::Packet), the fast path the IRP's own
//! memory: both by these functions.

use abi::{
    DriverPtr, FILE_OBJECT, Field, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_DEFER_IO_COMPLETION,
    IRP_MN_QUERY_DIRECTORY, IRP_READ_OPERATION, IRP_WRITE_OPERATION, KEVENT, KTHREAD,
};
use engine::View;
use zerocopy::{Immutable, IntoBytes};

use super::operation::Operation;
use crate::ob::handle::Mode;

/// A structure that is filled field by field.
pub(crate) trait Fill<S> {
    /// Sets a field of it.
    fn put<F: IntoBytes + Immutable>(&mut self, field: Field<S, F>, value: F);
}

impl<S> Fill<S> for View<S> {
    #[inline]
    fn put<F: IntoBytes + Immutable>(&mut self, field: Field<S, F>, value: F) {
        self.set(field, value);
    }
}

/// Who asks, and where the end is reported.
pub(crate) struct Requester {
    pub(crate) mode: Mode,
    pub(crate) thread: DriverPtr<KTHREAD>,
    pub(crate) file: DriverPtr<FILE_OBJECT>,
    pub(crate) event: DriverPtr<KEVENT>,
    pub(crate) status_block: DriverPtr<IO_STATUS_BLOCK>,
}

impl Requester {
    /// Says so in an IRP.
    #[inline]
    pub(crate) fn fill(&self, header: &mut impl Fill<IRP>) {
        header.put(IRP::RequestorMode, self.mode.value());
        header.put(IRP::UserIosb, self.status_block);
        header.put(IRP::UserEvent, self.event);
        header.put(IRP::Tail_Overlay_Thread, self.thread);
        header.put(IRP::Tail_Overlay_OriginalFileObject, self.file.cast());
    }
}

/// The operation with its parameters, at `offset`; `key` is for locks of byte ranges. Fields that are not set are zero.
#[inline]
pub(crate) fn fill(
    location: &mut impl Fill<IO_STACK_LOCATION>,
    operation: &Operation,
    offset: i64,
    key: u32,
) {
    location.put(IO_STACK_LOCATION::MajorFunction, operation.major());
    match *operation {
        Operation::Read(buffer, _) => {
            location.put(IO_STACK_LOCATION::Parameters_Read_Length, buffer.length);
            location.put(IO_STACK_LOCATION::Parameters_Read_Key, key);
            location.put(IO_STACK_LOCATION::Parameters_Read_ByteOffset, offset);
        }
        Operation::Scatter(segments, _) | Operation::Gather(segments, _) => {
            // Reads and writes have the same parameters.
            location.put(IO_STACK_LOCATION::Parameters_Read_Length, segments.length);
            location.put(IO_STACK_LOCATION::Parameters_Read_Key, key);
            location.put(IO_STACK_LOCATION::Parameters_Read_ByteOffset, offset);
        }
        Operation::Write(buffer, _) => {
            location.put(IO_STACK_LOCATION::Parameters_Write_Length, buffer.length);
            location.put(IO_STACK_LOCATION::Parameters_Write_Key, key);
            location.put(IO_STACK_LOCATION::Parameters_Write_ByteOffset, offset);
        }
        Operation::Control(code, input, output)
        | Operation::InternalControl(code, input, output)
        | Operation::FsControl(code, input, output) => {
            fill_control(location, code, input.length, output.length);
        }
        Operation::Query(class, buffer) => {
            location.put(IO_STACK_LOCATION::Parameters_QueryFile_Length, buffer.length);
            location.put(IO_STACK_LOCATION::Parameters_QueryFile_FileInformationClass, class);
        }
        Operation::Set(class, buffer) => {
            location.put(IO_STACK_LOCATION::Parameters_SetFile_Length, buffer.length);
            location.put(IO_STACK_LOCATION::Parameters_SetFile_FileInformationClass, class);
        }
        Operation::QueryVolume(class, buffer) => {
            location.put(IO_STACK_LOCATION::Parameters_QueryVolume_Length, buffer.length);
            location.put(IO_STACK_LOCATION::Parameters_QueryVolume_FsInformationClass, class);
        }
        Operation::List(listing) => {
            location.put(IO_STACK_LOCATION::MinorFunction, IRP_MN_QUERY_DIRECTORY);
            location.put(IO_STACK_LOCATION::Flags, listing.flags);
            location.put(IO_STACK_LOCATION::Parameters_QueryDirectory_Length, listing.buffer.length);
            location.put(IO_STACK_LOCATION::Parameters_QueryDirectory_FileName, listing.pattern);
            let class = IO_STACK_LOCATION::Parameters_QueryDirectory_FileInformationClass;
            location.put(class, listing.class);
        }
        Operation::SetVolume(class, buffer) => {
            location.put(IO_STACK_LOCATION::Parameters_SetVolume_Length, buffer.length);
            location.put(IO_STACK_LOCATION::Parameters_SetVolume_FsInformationClass, class);
        }
        Operation::Lock(range) => {
            location.put(IO_STACK_LOCATION::MinorFunction, range.minor);
            location.put(IO_STACK_LOCATION::Flags, range.flags);
            location.put(IO_STACK_LOCATION::Parameters_LockControl_Key, key);
            location.put(IO_STACK_LOCATION::Parameters_LockControl_ByteOffset, range.offset);
        }
        Operation::Flush(minor) => location.put(IO_STACK_LOCATION::MinorFunction, minor),
    }
}

/// What `IRP::Flags` says of the operation, before its buffers.
#[inline]
pub(crate) fn flags(operation: &Operation) -> u32 {
    match operation {
        Operation::Read(..) | Operation::Scatter(..) => IRP_READ_OPERATION | IRP_DEFER_IO_COMPLETION,
        Operation::Write(..) | Operation::Gather(..) => IRP_WRITE_OPERATION | IRP_DEFER_IO_COMPLETION,
        Operation::Query(..)
        | Operation::Set(..)
        | Operation::List(_)
        | Operation::QueryVolume(..)
        | Operation::SetVolume(..) => IRP_DEFER_IO_COMPLETION,
        Operation::Control(..)
        | Operation::InternalControl(..)
        | Operation::FsControl(..)
        | Operation::Lock(_)
        | Operation::Flush(_) => 0,
    }
}

/// `Parameters.DeviceIoControl`.
#[inline]
pub(crate) fn fill_control(location: &mut impl Fill<IO_STACK_LOCATION>, code: u32, input: u32, output: u32) {
    location.put(IO_STACK_LOCATION::Parameters_DeviceIoControl_OutputBufferLength, output);
    location.put(IO_STACK_LOCATION::Parameters_DeviceIoControl_InputBufferLength, input);
    location.put(IO_STACK_LOCATION::Parameters_DeviceIoControl_IoControlCode, code);
}
