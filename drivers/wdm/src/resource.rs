//! The resources a device was given, translated, in the order of its base address registers.
//!
//! Pages: *CM_PARTIAL_RESOURCE_DESCRIPTOR*, *Using Interrupt Resource Descriptors*. Lists of several buses, large memory and
//! DMA channels are not read: a PCI card with small windows has none. How many messages a descriptor stands for its raw half
//! says; their vectors follow each other, because a function with MSI sends each by the low bits of one word.

use core::marker::PhantomData;

use abi::{
    CM_FULL_RESOURCE_DESCRIPTOR, CM_PARTIAL_RESOURCE_DESCRIPTOR, CM_PARTIAL_RESOURCE_LIST, CM_RESOURCE_LIST,
};

use crate::raw;

/// Memory space that is the device's: what can be mapped comes from the system only, and while the device is being started: it may
/// be another's after a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRange<'irp> {
    start: u64,
    length: u32,
    request: PhantomData<&'irp ()>,
}

/// Port space that is the device's, as [`MemoryRange`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange<'irp> {
    start: u64,
    length: u32,
    request: PhantomData<&'irp ()>,
}

/// What belongs to one vector: all that `CONNECT_FULLY_SPECIFIED` wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Vector {
    pub(crate) irql: u8,
    pub(crate) vector: u32,
    pub(crate) affinity: u64,
    pub(crate) latched: bool,
    pub(crate) shared: bool,
}

/// The device's interrupt line, translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptLine(pub(crate) Vector);

/// The vector of one message-signaled interrupt, translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageVector(pub(crate) Vector);

/// Message-signaled interrupts of one resource, translated: all of MSI, or one of MSI-X.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageVectors {
    first: Vector,
    count: u32,
}

/// One resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource<'irp> {
    /// Memory space.
    Memory(MemoryRange<'irp>),
    /// Port space.
    Ports(PortRange<'irp>),
    /// The interrupt line.
    Interrupt(InterruptLine),
    /// Message-signaled interrupts. [`crate::Messages::connect`] needs nothing from here.
    Messages(MessageVectors),
    /// What a PCI card with small windows does not use.
    Other,
}

impl MemoryRange<'_> {
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

impl PortRange<'_> {
    #[cfg(test)]
    pub(crate) const fn new(start: u64, length: u32) -> Self {
        Self { start, length, request: PhantomData }
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
        self.0.vector
    }

    /// The level its service routine runs at.
    #[must_use]
    pub const fn irql(&self) -> u8 {
        self.0.irql
    }
}

impl MessageVector {
    /// The interrupt vector.
    #[must_use]
    pub const fn vector(&self) -> u32 {
        self.0.vector
    }

    /// The level its service routine runs at.
    #[must_use]
    pub const fn irql(&self) -> u8 {
        self.0.irql
    }
}

impl MessageVectors {
    /// Each message's, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = MessageVector> + use<> {
        let Self { first, count } = *self;
        (0..count).map(move |number| MessageVector(Vector { vector: first.vector + number, ..first }))
    }
}

/// The resources of one device, for as long as the request that brings them.
pub struct Resources<'irp> {
    raw: &'irp [CM_PARTIAL_RESOURCE_DESCRIPTOR],
    translated: &'irp [CM_PARTIAL_RESOURCE_DESCRIPTOR],
}

impl<'irp> Resources<'irp> {
    /// The first lists of `AllocatedResources` and `AllocatedResourcesTranslated`; none if there is no list.
    ///
    /// # Safety
    /// Each is null or a resource list that lives and is not written for `'irp`.
    pub(crate) unsafe fn of(raw: *mut CM_RESOURCE_LIST, translated: *mut CM_RESOURCE_LIST) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { raw: descriptors(raw), translated: descriptors(translated) } }
    }

    /// The first memory window, if there is one.
    #[must_use]
    pub fn memory(&self) -> Option<MemoryRange<'irp>> {
        self.iter().find_map(|resource| match resource {
            Resource::Memory(range) => Some(range),
            _ => None,
        })
    }

    /// The interrupt line, if there is one.
    #[must_use]
    pub fn line(&self) -> Option<InterruptLine> {
        self.iter().find_map(|resource| match resource {
            Resource::Interrupt(line) => Some(line),
            _ => None,
        })
    }

    /// Each resource, in order.
    pub fn iter(&self) -> impl Iterator<Item = Resource<'irp>> + 'irp {
        let raw = self.raw;
        self.translated.iter().enumerate().map(move |(index, descriptor)| {
            let messages = raw.get(index).map_or(1, message_count);
            resource(descriptor, messages)
        })
    }
}

/// The descriptors of a list's first bus.
///
/// # Safety
/// `list` is null or a resource list that lives and is not written for `'irp`.
unsafe fn descriptors<'irp>(list: *mut CM_RESOURCE_LIST) -> &'irp [CM_PARTIAL_RESOURCE_DESCRIPTOR] {
    // SAFETY: the caller's promise.
    if list.is_null() || unsafe { raw::get(list, CM_RESOURCE_LIST::Count) } == 0 {
        return &[];
    }
    let partial = CM_FULL_RESOURCE_DESCRIPTOR::PartialResourceList.of(CM_RESOURCE_LIST::List.of(list));
    // SAFETY: the list has its count of descriptors behind it.
    unsafe {
        let count = raw::get(partial, CM_PARTIAL_RESOURCE_LIST::Count) as usize;
        core::slice::from_raw_parts(CM_PARTIAL_RESOURCE_LIST::PartialDescriptors.of(partial), count)
    }
}

/// How many messages a raw descriptor of some stands for.
fn message_count(raw: &CM_PARTIAL_RESOURCE_DESCRIPTOR) -> u32 {
    let mut copy = *raw;
    // SAFETY: the copy is ours; no caller asks for the number of another kind of resource.
    let count = unsafe {
        raw::get(&raw mut copy, CM_PARTIAL_RESOURCE_DESCRIPTOR::u_MessageInterrupt_Raw_MessageCount)
    };
    count.max(1).into()
}

fn resource<'irp>(descriptor: &'irp CM_PARTIAL_RESOURCE_DESCRIPTOR, messages: u32) -> Resource<'irp> {
    type Descriptor = CM_PARTIAL_RESOURCE_DESCRIPTOR;
    let mut copy = *descriptor;
    let at = &raw mut copy;
    // SAFETY: the copy is ours; which members count, its type says.
    unsafe {
        match raw::get(at, Descriptor::Type) {
            abi::CmResourceTypeMemory => Resource::Memory(MemoryRange {
                start: raw::get(at, Descriptor::u_Memory_Start),
                length: raw::get(at, Descriptor::u_Memory_Length),
                request: PhantomData,
            }),
            abi::CmResourceTypePort => Resource::Ports(PortRange {
                start: raw::get(at, Descriptor::u_Port_Start),
                length: raw::get(at, Descriptor::u_Port_Length),
                request: PhantomData,
            }),
            abi::CmResourceTypeInterrupt => {
                let flags = raw::get(at, Descriptor::Flags);
                // the members of a message have the same places
                let first = Vector {
                    irql: raw::get(at, Descriptor::u_Interrupt_Level).to_le_bytes()[0],
                    vector: raw::get(at, Descriptor::u_Interrupt_Vector),
                    affinity: raw::get(at, Descriptor::u_Interrupt_Affinity),
                    latched: flags & abi::CM_RESOURCE_INTERRUPT_LATCHED != 0,
                    shared: raw::get(at, Descriptor::ShareDisposition) == abi::CmResourceShareShared,
                };
                if flags & abi::CM_RESOURCE_INTERRUPT_MESSAGE == 0 {
                    Resource::Interrupt(InterruptLine(first))
                } else {
                    Resource::Messages(MessageVectors { first, count: messages })
                }
            }
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

    fn list<const N: usize>(descriptors: [[u32; 5]; N]) -> List<N> {
        List { head: [1, 5, 0, 0x0001_0001, u32::try_from(N).unwrap()], descriptors }
    }

    fn all<const N: usize>(raw: &mut List<N>, translated: &mut List<N>) -> std::vec::Vec<Resource<'static>> {
        let (raw, translated) = (core::ptr::from_mut(raw).cast(), core::ptr::from_mut(translated).cast());
        // SAFETY: the lists live until the end of the test, and what is returned points nowhere.
        unsafe { Resources::of(raw, translated) }.iter().collect()
    }

    #[test]
    fn resources_are_told_by_kind() {
        let memory = [0x0000_0003, 0xFEB0_0000, 0, 0x80, 0];
        let ports = [0x0001_0101, 0xC000, 0, 0x100, 0];
        let line = [0x0000_0302, 6, 0x63, 3, 0];
        let message = [0x0003_0302, 5, 0x51, 3, 0];
        let nothing = [0x0000_0081, 0, 0, 0, 0];
        let raw_message = [0x0003_0302, 4 << 16, 0, 3, 0];
        let first = Vector { irql: 5, vector: 0x51, affinity: 3, latched: true, shared: true };
        let translated = [memory, ports, line, message, nothing];
        let mut raw = list([memory, ports, line, raw_message, nothing]);
        let all = all(&mut raw, &mut list(translated));
        assert_eq!(
            all,
            [
                Resource::Memory(MemoryRange { start: 0xFEB0_0000, length: 0x80, request: PhantomData }),
                Resource::Ports(PortRange { start: 0xC000, length: 0x100, request: PhantomData }),
                Resource::Interrupt(InterruptLine(Vector {
                    irql: 6,
                    vector: 0x63,
                    affinity: 3,
                    latched: false,
                    shared: true
                })),
                Resource::Messages(MessageVectors { first, count: 4 }),
                Resource::Other,
            ]
        );
        let Resource::Messages(messages) = all[3] else { panic!("{:?}", all[3]) };
        let vectors: std::vec::Vec<u32> = messages.iter().map(|message| message.vector()).collect();
        assert_eq!(vectors, [0x51, 0x52, 0x53, 0x54]);
        assert!(messages.iter().all(|message| message.irql() == 5));
    }

    #[test]
    fn a_device_without_resources_has_none() {
        // SAFETY: null is allowed.
        assert_eq!(unsafe { Resources::of(core::ptr::null_mut(), core::ptr::null_mut()) }.iter().count(), 0);
    }
}
