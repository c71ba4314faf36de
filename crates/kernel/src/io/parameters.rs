//! What a request says to its driver: the parameters in the first stack location, the flags in the header.
//!
//! Pages: *IO_STACK_LOCATION structure*, *IRP structure*. The general path fills a [`Packet`](super::packet::Packet), the fast path the IRP's own memory: both
//! by [`fill`].

use abi::{
    Field, IO_STACK_LOCATION, IRP_DEFER_IO_COMPLETION, IRP_MN_QUERY_DIRECTORY, IRP_READ_OPERATION,
    IRP_WRITE_OPERATION,
};
use engine::View;
use zerocopy::{Immutable, IntoBytes};

use super::operation::Operation;

/// A stack location that is filled for the first driver.
pub(crate) trait Location {
    /// Sets a field of it.
    fn put<F: IntoBytes + Immutable>(&mut self, field: Field<IO_STACK_LOCATION, F>, value: F);
}

impl Location for View<IO_STACK_LOCATION> {
    #[inline]
    fn put<F: IntoBytes + Immutable>(&mut self, field: Field<IO_STACK_LOCATION, F>, value: F) {
        self.set(field, value);
    }
}

/// The operation with its parameters, at `offset`; `key` is for locks of byte ranges. Fields that are not set are zero.
#[inline]
pub(crate) fn fill(location: &mut impl Location, operation: &Operation, offset: i64, key: u32) {
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
pub(crate) fn fill_control(location: &mut impl Location, code: u32, input: u32, output: u32) {
    location.put(IO_STACK_LOCATION::Parameters_DeviceIoControl_OutputBufferLength, output);
    location.put(IO_STACK_LOCATION::Parameters_DeviceIoControl_InputBufferLength, input);
    location.put(IO_STACK_LOCATION::Parameters_DeviceIoControl_IoControlCode, code);
}
