//! The resources a device was given, translated, in the order of its base address registers.
//!
//! Pages: *CM_PARTIAL_RESOURCE_DESCRIPTOR*, *Using Interrupt Resource Descriptors*. Lists of several buses, large memory and
//! DMA channels are not read: a PCI card with small windows has none. What belongs to a message its connection says.

use abi::{
    CM_FULL_RESOURCE_DESCRIPTOR, CM_PARTIAL_RESOURCE_DESCRIPTOR, CM_PARTIAL_RESOURCE_LIST, CM_RESOURCE_LIST,
};

use crate::raw;

/// Memory space that is the device's: what can be mapped comes from the system only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRange {
    start: u64,
    length: u32,
}

/// Port space that is the device's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    start: u64,
    length: u32,
}

/// The device's interrupt line, translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptLine {
    pub(crate) irql: u8,
    pub(crate) vector: u32,
    pub(crate) affinity: u64,
    pub(crate) latched: bool,
    pub(crate) shared: bool,
}

/// One resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// Memory space.
    Memory(MemoryRange),
    /// Port space.
    Ports(PortRange),
    /// The interrupt line.
    Interrupt(InterruptLine),
    /// Message-signaled interrupts: all of MSI, or one of MSI-X. [`crate::Messages::connect`] needs nothing from here.
    Messages,
    /// What a PCI card with small windows does not use.
    Other,
}

impl MemoryRange {
    /// The physical address.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Bytes.
    #[must_use]
    pub const fn length(&self) -> u32 {
        self.length
    }
}

impl PortRange {
    #[cfg(test)]
    pub(crate) const fn new(start: u64, length: u32) -> Self {
        Self { start, length }
    }

    /// The first port.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// How many ports.
    #[must_use]
    pub const fn length(&self) -> u32 {
        self.length
    }
}

impl InterruptLine {
    /// The interrupt vector.
    #[must_use]
    pub const fn vector(&self) -> u32 {
        self.vector
    }

    /// The level its service routine runs at.
    #[must_use]
    pub const fn irql(&self) -> u8 {
        self.irql
    }
}

/// The resources of one device, for as long as the request that brings them.
pub struct Resources<'irp> {
    descriptors: &'irp [CM_PARTIAL_RESOURCE_DESCRIPTOR],
}

impl<'irp> Resources<'irp> {
    /// The first list of `AllocatedResourcesTranslated`; none if there is no list.
    ///
    /// # Safety
    /// `list` is null or a resource list that lives and is not written for `'irp`.
    pub(crate) unsafe fn of(list: *mut CM_RESOURCE_LIST) -> Self {
        // SAFETY: the caller's promise.
        if list.is_null() || unsafe { raw::get(list, CM_RESOURCE_LIST::Count) } == 0 {
            return Self { descriptors: &[] };
        }
        let partial = CM_FULL_RESOURCE_DESCRIPTOR::PartialResourceList.of(CM_RESOURCE_LIST::List.of(list));
        // SAFETY: the list has its count of descriptors behind it.
        let descriptors = unsafe {
            let count = raw::get(partial, CM_PARTIAL_RESOURCE_LIST::Count) as usize;
            core::slice::from_raw_parts(CM_PARTIAL_RESOURCE_LIST::PartialDescriptors.of(partial), count)
        };
        Self { descriptors }
    }

    /// Each resource, in order.
    pub fn iter(&self) -> impl Iterator<Item = Resource> + 'irp {
        self.descriptors.iter().map(resource)
    }
}

fn resource(descriptor: &CM_PARTIAL_RESOURCE_DESCRIPTOR) -> Resource {
    type Descriptor = CM_PARTIAL_RESOURCE_DESCRIPTOR;
    let mut copy = *descriptor;
    let at = &raw mut copy;
    // SAFETY: the copy is ours; which members count, its type says.
    unsafe {
        match raw::get(at, Descriptor::Type) {
            abi::CmResourceTypeMemory => Resource::Memory(MemoryRange {
                start: raw::get(at, Descriptor::u_Memory_Start),
                length: raw::get(at, Descriptor::u_Memory_Length),
            }),
            abi::CmResourceTypePort => Resource::Ports(PortRange {
                start: raw::get(at, Descriptor::u_Port_Start),
                length: raw::get(at, Descriptor::u_Port_Length),
            }),
            abi::CmResourceTypeInterrupt
                if raw::get(at, Descriptor::Flags) & abi::CM_RESOURCE_INTERRUPT_MESSAGE != 0 =>
            {
                Resource::Messages
            }
            abi::CmResourceTypeInterrupt => Resource::Interrupt(InterruptLine {
                irql: raw::get(at, Descriptor::u_Interrupt_Level).to_le_bytes()[0],
                vector: raw::get(at, Descriptor::u_Interrupt_Vector),
                affinity: raw::get(at, Descriptor::u_Interrupt_Affinity),
                latched: raw::get(at, Descriptor::Flags) & abi::CM_RESOURCE_INTERRUPT_LATCHED != 0,
                shared: raw::get(at, Descriptor::ShareDisposition) == abi::CmResourceShareShared,
            }),
            _ => Resource::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of `N` descriptors, as it lies in memory.
    #[repr(C, align(8))]
    struct List<const N: usize> {
        head: [u32; 5],
        descriptors: [[u32; 5]; N],
    }

    fn all<const N: usize>(descriptors: [[u32; 5]; N]) -> std::vec::Vec<Resource> {
        let mut list = List { head: [1, 5, 0, 0x0001_0001, u32::try_from(N).unwrap()], descriptors };
        // SAFETY: the list lives until the end.
        unsafe { Resources::of((&raw mut list).cast()) }.iter().collect()
    }

    #[test]
    fn resources_are_told_by_kind() {
        let memory = [0x0000_0003, 0xFEB0_0000, 0, 0x80, 0];
        let ports = [0x0001_0101, 0xC000, 0, 0x100, 0];
        let line = [0x0000_0302, 6, 0x63, 3, 0];
        let message = [0x0003_0302, 5, 0x51, 3, 0];
        let nothing = [0x0000_0081, 0, 0, 0, 0];
        assert_eq!(
            all([memory, ports, line, message, nothing]),
            [
                Resource::Memory(MemoryRange { start: 0xFEB0_0000, length: 0x80 }),
                Resource::Ports(PortRange { start: 0xC000, length: 0x100 }),
                Resource::Interrupt(InterruptLine {
                    irql: 6,
                    vector: 0x63,
                    affinity: 3,
                    latched: false,
                    shared: true
                }),
                Resource::Messages,
                Resource::Other,
            ]
        );
    }

    #[test]
    fn a_device_without_resources_has_none() {
        // SAFETY: null is allowed.
        assert_eq!(unsafe { Resources::of(core::ptr::null_mut()) }.iter().count(), 0);
    }
}
