//! What can be asked of an open file, and what a request of each kind needs.
//!
//! Pages: *ReadFile function*, *WriteFile function*, *DeviceIoControl function*, *Defining I/O Control Codes*. Sending it is in
//! `transfer`.

use abi::{
    FILE_READ_DATA, FILE_WRITE_DATA, IRP_MJ_DEVICE_CONTROL, IRP_MJ_FLUSH_BUFFERS,
    IRP_MJ_INTERNAL_DEVICE_CONTROL, IRP_MJ_QUERY_INFORMATION, IRP_MJ_READ, IRP_MJ_SET_INFORMATION,
    IRP_MJ_WRITE,
};

use super::buffers::Buffer;

/// What an application asks of an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `ReadFile`: into the buffer, from the offset or the file's current position.
    Read(Buffer, Option<i64>),
    /// `WriteFile`.
    Write(Buffer, Option<i64>),
    /// `DeviceIoControl` with a control code, input and output.
    Control(u32, Buffer, Buffer),
    /// As `Control`, as an internal one; drivers only.
    InternalControl(u32, Buffer, Buffer),
    /// `FlushFileBuffers`.
    Flush,
    /// What is known of the file, of this class; drivers only.
    Query(u32, Buffer),
    /// As `Query`, to be set.
    Set(u32, Buffer),
}

impl Operation {
    /// The function as applications know it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Read(..) => "ReadFile",
            Self::Write(..) => "WriteFile",
            Self::Control(..) | Self::InternalControl(..) => "DeviceIoControl",
            Self::Flush => "FlushFileBuffers",
            Self::Query(..) => "ZwQueryInformationFile",
            Self::Set(..) => "ZwSetInformationFile",
        }
    }

    pub(crate) fn detail(&self, file: &str) -> String {
        match self {
            Self::Read(buffer, offset) | Self::Write(buffer, offset) => match offset {
                Some(offset) => format!("{file}, {} bytes at {offset}", buffer.length),
                None => format!("{file}, {} bytes", buffer.length),
            },
            Self::Control(code, input, output) | Self::InternalControl(code, input, output) => {
                format!("{file}, code {code:#010x}, {} bytes in, {} out", input.length, output.length)
            }
            Self::Flush => file.to_owned(),
            Self::Query(class, buffer) | Self::Set(class, buffer) => {
                format!("{file}, class {class}, {} bytes", buffer.length)
            }
        }
    }

    pub(crate) const fn major(&self) -> u8 {
        match self {
            Self::Read(..) => IRP_MJ_READ,
            Self::Write(..) => IRP_MJ_WRITE,
            Self::Control(..) => IRP_MJ_DEVICE_CONTROL,
            Self::InternalControl(..) => IRP_MJ_INTERNAL_DEVICE_CONTROL,
            Self::Flush => IRP_MJ_FLUSH_BUFFERS,
            Self::Query(..) => IRP_MJ_QUERY_INFORMATION,
            Self::Set(..) => IRP_MJ_SET_INFORMATION,
        }
    }

    /// The access a handle must have.
    pub(crate) fn access(&self) -> u32 {
        match self {
            Self::Read(..) => FILE_READ_DATA,
            Self::Write(..) | Self::Flush => FILE_WRITE_DATA,
            // `FILE_READ_ACCESS` is 1, `FILE_WRITE_ACCESS` 2: the same bits.
            Self::Control(code, ..) | Self::InternalControl(code, ..) => *code >> 14 & 3,
            Self::Query(..) | Self::Set(..) => 0,
        }
    }

    pub(crate) const fn offset(&self) -> Option<Option<i64>> {
        match self {
            Self::Read(_, offset) | Self::Write(_, offset) => Some(*offset),
            _ => None,
        }
    }

    /// Bytes that the driver may fill.
    pub(crate) const fn output(&self) -> Option<u32> {
        match self {
            Self::Read(buffer, _)
            | Self::Control(_, _, buffer)
            | Self::InternalControl(_, _, buffer)
            | Self::Query(_, buffer) => Some(buffer.length),
            _ => None,
        }
    }
}
