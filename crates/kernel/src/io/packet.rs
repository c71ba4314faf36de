//! A new IRP before it has an owner: its header and its first driver's stack location, written to its memory at once.
//!
//! Page: *IRP structure*. What goes into it is the business of `transfer`, `build` and `buffers`.

use abi::{DriverPtr, Field, IO_STACK_LOCATION, IO_TYPE_IRP, IRP, LIST_ENTRY};
use engine::Flow;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::irp;
use super::parameters::Fill;
use crate::cx::Cx;

/// An IRP whose memory is zeroed and which has no owner yet.
pub(crate) struct Packet {
    /// Where it lies.
    pub(crate) irp: DriverPtr<IRP>,
    stack_size: u8,
    header: IRP,
    location: IO_STACK_LOCATION,
}

impl Packet {
    /// With `stack_size` locations in `size` bytes at `irp`.
    pub(crate) fn new(irp: DriverPtr<IRP>, size: u16, stack_size: u8) -> Self {
        let mut header = IRP::zeroed();
        let list = irp + IRP::ThreadListEntry;
        let mut itself = LIST_ENTRY::zeroed();
        itself.set(LIST_ENTRY::Flink, list);
        itself.set(LIST_ENTRY::Blink, list);
        header.set(IRP::Type, IO_TYPE_IRP);
        header.set(IRP::Size, size);
        header.set(IRP::StackCount, stack_size);
        header.set(IRP::CurrentLocation, stack_size + 1);
        header.set(IRP::ThreadListEntry, itself);
        header.set(IRP::Tail_Overlay_CurrentStackLocation, irp::location(irp, stack_size + 1));
        Self { irp, stack_size, header, location: IO_STACK_LOCATION::zeroed() }
    }

    /// What a field of the header is set to.
    pub(crate) fn header<F: FromBytes>(&self, field: Field<IRP, F>) -> F {
        self.header.get(field)
    }

    /// Sets bits of the header's flags.
    pub(crate) fn add_flags(&mut self, flags: u32) {
        self.header.set(IRP::Flags, self.header.get(IRP::Flags) | flags);
    }

    /// Into its memory.
    ///
    /// # Errors
    /// A verdict if that is a driver's own, and bad.
    pub(crate) fn write(&self, cx: &mut Cx<'_>) -> Flow<DriverPtr<IRP>> {
        cx.write_bytes(self.irp.address, self.header.as_bytes())?;
        cx.write_bytes(irp::location(self.irp, self.stack_size).address, self.location.as_bytes())?;
        Ok(self.irp)
    }

    /// Only its header: no stack location is filled in.
    ///
    /// # Errors
    /// As [`Packet::write`].
    pub(crate) fn write_header(&self, cx: &mut Cx<'_>) -> Flow<()> {
        cx.write_bytes(self.irp.address, self.header.as_bytes())
    }
}

/// A field of the header.
impl Fill<IRP> for Packet {
    fn put<F: IntoBytes + Immutable>(&mut self, field: Field<IRP, F>, value: F) {
        self.header.set(field, value);
    }
}

/// A field of what the first driver will find.
impl Fill<IO_STACK_LOCATION> for Packet {
    fn put<F: IntoBytes + Immutable>(&mut self, field: Field<IO_STACK_LOCATION, F>, value: F) {
        self.location.set(field, value);
    }
}
