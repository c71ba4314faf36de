//! Windows Management Instrumentation: blocks of data, methods and events that a device offers by GUIDs.
//!
//! Pages: *Implementing WMI*, *Registering as a WMI Data Provider*, *WMILIB_CONTEXT structure*, *WmiFireEvent function*. A device lists what it offers in
//! [`Function::WMI`]; it is registered when it has started, and not any more before it is removed. Requests of IRP_MJ_SYSTEM_CONTROL that are for another device go down. Instances are
//! named after the device, with their numbers. A request is answered at once, at `PASSIVE_LEVEL`. There is no binary MOF resource: an administrator registers the
//! class of a block by `mofcomp`. A device that offers nothing imports nothing of `wmilib.sys` and passes such requests on.
//!
//! ```
//! use core::sync::atomic::{AtomicU32, Ordering};
//! use wdm::zerocopy::{FromBytes, Immutable, IntoBytes};
//! use wdm::*;
//! # struct Demo;
//! # impl Driver for Demo {
//! #     type Function = Card;
//! #     fn load(_registry: &RegistryPath<'_>, _passive: &mut Passive) -> Result<Self> { Ok(Self) }
//! # }
//!
//! struct Card {
//!     transfers: AtomicU32,
//!     limit: AtomicU32,
//! }
//!
//! /// What an administrator reads: any bytes are good for it, and it has no padding.
//! #[derive(FromBytes, IntoBytes, Immutable)]
//! #[zerocopy(crate = "wdm::zerocopy")]
//! #[repr(C)]
//! struct Counters {
//!     transfers: u32,
//!     limit: u32,
//! }
//!
//! impl DataBlock for Counters {
//!     type Function = Card;
//!     type Data = Self;
//!     const GUID: GUID = GUID::new(0xd1b0_c0de, 0, 0x4000, 0x8000_0000_0000_0031);
//!
//!     fn query(device: &Device<Card>, _instance: u32, _passive: &mut Passive) -> Result<Self> {
//!         let read = |number: &AtomicU32| number.load(Ordering::Relaxed);
//!         Ok(Self { transfers: read(&device.transfers), limit: read(&device.limit) })
//!     }
//!
//!     fn set_item(device: &Device<Card>, _instance: u32, item: Item<'_>, _passive: &mut Passive) -> Result<()> {
//!         match item.id() {
//!             2 => Ok(device.limit.store(item.value()?, Ordering::Relaxed)),
//!             _ => Err(NtStatus::WMI_READ_ONLY),
//!         }
//!     }
//! }
//!
//! /// An event: a transfer was too long.
//! struct TooLong;
//!
//! impl EventBlock for TooLong {
//!     type Function = Card;
//!     type Data = u32;
//!     const GUID: GUID = GUID::new(0xd1b0_c0de, 0, 0x4000, 0x8000_0000_0000_0032);
//! }
//!
//! fn transfer(device: &Device<Card>, bytes: u32, dispatch: &mut Dispatch) {
//!     device.transfers.fetch_add(1, Ordering::Relaxed);
//!     if bytes > device.limit.load(Ordering::Relaxed) {
//!         let _no_memory = device.fire::<TooLong>(0, &bytes, dispatch);
//!     }
//! }
//!
//! impl Function for Card {
//!     const WMI: &'static [Offered<Self>] = &[Offered::data::<Counters>(), Offered::event::<TooLong>()];
//! #     type Driver = Demo;
//! #     const TAG: Tag = Tag::new(b"Demo");
//! #     fn add(_: &Demo, _: &Pdo, _: &mut Passive) -> Result<(Name, Self)> { Err(NtStatus::UNSUCCESSFUL) }
//! #     fn start(_: &Device<Self>, _: &Resources<'_>, _: &mut Passive) -> Result<()> { Ok(()) }
//! #     fn pause(_: &Device<Self>, _: &mut Passive) -> Result<()> { Ok(()) }
//! #     fn resume(_: &Device<Self>, _: &mut Passive) {}
//! #     fn stop(_: &Device<Self>, _: Stop, _: &mut Passive) {}
//!     // …
//! }
//! ```

mod library;

use core::ptr::null_mut;
use core::sync::atomic::Ordering;

use abi::{GUID, NtStatus};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::device::Device;
use crate::driver::Function;
use crate::irql::{AtMostDispatch, Passive};
use crate::{Result, sys};

pub(crate) use library::{KeptPath, control};

/// Instances begin at such places.
const ALIGNMENT: usize = 8;

/// A block of data, and maybe methods, of a device. All its routines run at `PASSIVE_LEVEL`, and as many at a time as administrators ask.
pub trait DataBlock: 'static {
    /// The device that offers it.
    type Function: Function;
    /// An instance's data. Numbers are little endian; MOF's alignment of properties is that of C.
    type Data: FromBytes + IntoBytes + Immutable;
    /// The class.
    const GUID: GUID;
    /// How many instances there are, numbered from 0.
    const INSTANCES: u32 = 1;
    /// Its data are collected only while a consumer wants them: see [`DataBlock::collect`].
    const EXPENSIVE: bool = false;

    /// The data of an instance.
    ///
    /// # Errors
    /// Why there are none.
    fn query(device: &Device<Self::Function>, instance: u32, passive: &mut Passive) -> Result<Self::Data>;

    /// New data for a whole instance.
    ///
    /// # Errors
    /// `STATUS_WMI_READ_ONLY` if they cannot be set, `STATUS_WMI_SET_FAILURE` if not to these.
    fn set(
        _device: &Device<Self::Function>,
        _instance: u32,
        _data: Self::Data,
        _passive: &mut Passive,
    ) -> Result<()> {
        Err(NtStatus::WMI_READ_ONLY)
    }

    /// A new value for one item (a property of the class, by its `WmiDataId`).
    ///
    /// # Errors
    /// As [`DataBlock::set`]; `STATUS_WMI_ITEMID_NOT_FOUND` if there is no such item.
    fn set_item(
        _device: &Device<Self::Function>,
        _instance: u32,
        _item: Item<'_>,
        _passive: &mut Passive,
    ) -> Result<()> {
        Err(NtStatus::WMI_READ_ONLY)
    }

    /// A method.
    ///
    /// # Errors
    /// `STATUS_WMI_ITEMID_NOT_FOUND` if there is no such method; what [`Method::output`] says.
    fn execute(
        _device: &Device<Self::Function>,
        _instance: u32,
        _method: &mut Method<'_>,
        _passive: &mut Passive,
    ) -> Result<()> {
        Err(NtStatus::WMI_ITEMID_NOT_FOUND)
    }

    /// Data that are [`DataBlock::EXPENSIVE`] are wanted from now on, or not any more.
    ///
    /// # Errors
    /// Why they cannot be collected.
    fn collect(_device: &Device<Self::Function>, _on: bool, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }
}

/// An event of a device.
pub trait EventBlock: 'static {
    /// The device that offers it.
    type Function: Function;
    /// What comes with it; `()` if that is nothing.
    type Data: IntoBytes + Immutable;
    /// The class.
    const GUID: GUID;
    /// How many instances there are, numbered from 0.
    const INSTANCES: u32 = 1;

    /// The first consumer listens, or the last has left. Events may be fired at any time; without a consumer they are lost.
    ///
    /// # Errors
    /// Why they cannot be had.
    fn listen(_device: &Device<Self::Function>, _on: bool, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }
}

/// A new value for an item of an instance: a view of the request's buffer.
#[derive(Clone, Copy)]
pub struct Item<'request> {
    id: u32,
    bytes: &'request [u8],
}

impl Item<'_> {
    /// Which item, as the class numbers it (`WmiDataId`): from 1.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// The value, copied.
    ///
    /// # Errors
    /// `STATUS_WMI_SET_FAILURE` if it has another size.
    pub fn value<T: FromBytes>(self) -> Result<T> {
        T::read_from_bytes(self.bytes).map_err(|_| NtStatus::WMI_SET_FAILURE)
    }
}

/// A method that is to be run: its input, and the room for its output, which is where the input is.
pub struct Method<'request> {
    id: u32,
    buffer: &'request mut [u8],
    input: usize,
    room: usize,
    used: usize,
}

impl Method<'_> {
    /// Which method, as the class numbers it (`WmiMethodId`): from 1.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The input, copied; to be asked for before [`Method::output`].
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` if it has fewer bytes.
    pub fn input<T: FromBytes>(&self) -> Result<T> {
        let given = self.buffer.get(..self.input).unwrap_or_default();
        T::read_from_prefix(given).map(|(value, _rest)| value).map_err(|_| NtStatus::INVALID_PARAMETER)
    }

    /// To be asked before the method changes anything: whether there is room for an output of this type.
    ///
    /// # Errors
    /// `STATUS_BUFFER_TOO_SMALL`: to be returned, so that the system asks again with a larger buffer.
    pub fn expect_room<T>(&mut self) -> Result<()> {
        self.used = size_of::<T>();
        if self.room < self.used { Err(NtStatus::BUFFER_TOO_SMALL) } else { Ok(()) }
    }

    /// Puts the output there.
    ///
    /// # Errors
    /// `STATUS_BUFFER_TOO_SMALL` if there is no room for all of it: to be returned, so that the system asks again with a larger buffer.
    pub fn output<T: IntoBytes + Immutable + ?Sized>(&mut self, output: &T) -> Result<()> {
        self.used = size_of_val(output);
        let room = self.buffer.get_mut(..self.room).unwrap_or_default();
        output.write_to_prefix(room).map_err(|_| NtStatus::BUFFER_TOO_SMALL)
    }
}

/// A block that a device offers: an element of [`Function::WMI`].
pub struct Offered<F> {
    guid: &'static GUID,
    instances: u32,
    flags: u32,
    /// Bytes of an instance.
    size: usize,
    query: fn(&Device<F>, u32, &mut [u8], &mut Passive) -> Result<()>,
    set: fn(&Device<F>, u32, &[u8], &mut Passive) -> Result<()>,
    set_item: fn(&Device<F>, u32, Item<'_>, &mut Passive) -> Result<()>,
    execute: fn(&Device<F>, u32, &mut Method<'_>, &mut Passive) -> Result<()>,
    switch: fn(&Device<F>, bool, &mut Passive) -> Result<()>,
}

impl<F> Offered<F> {
    /// A block of data.
    #[must_use]
    pub const fn data<B: DataBlock<Function = F>>() -> Self {
        Self {
            guid: const { &B::GUID },
            instances: B::INSTANCES,
            flags: if B::EXPENSIVE { abi::WMIREG_FLAG_EXPENSIVE } else { 0 },
            size: size_of::<B::Data>(),
            query: |device, instance, room, passive| {
                let data = B::query(device, instance, passive)?;
                data.write_to(room).map_err(|_| NtStatus::BUFFER_TOO_SMALL)
            },
            set: |device, instance, bytes, passive| {
                let data = B::Data::read_from_bytes(bytes).map_err(|_| NtStatus::WMI_SET_FAILURE)?;
                B::set(device, instance, data, passive)
            },
            set_item: B::set_item,
            execute: B::execute,
            switch: B::collect,
        }
    }

    /// An event.
    #[must_use]
    pub const fn event<E: EventBlock<Function = F>>() -> Self {
        Self {
            guid: const { &E::GUID },
            instances: E::INSTANCES,
            flags: abi::WMIREG_FLAG_EVENT_ONLY_GUID,
            size: 0,
            query: |_, _, _, _| Err(NtStatus::WMI_GUID_NOT_FOUND),
            set: |_, _, _, _| Err(NtStatus::WMI_GUID_NOT_FOUND),
            set_item: |_, _, _, _| Err(NtStatus::WMI_GUID_NOT_FOUND),
            execute: |_, _, _, _| Err(NtStatus::WMI_GUID_NOT_FOUND),
            switch: E::listen,
        }
    }
}

/// Whether a device offers a block of this GUID.
const fn offers<F: Function>(guid: &GUID) -> bool {
    let mut index = 0;
    while index < F::WMI.len() {
        if F::WMI[index].guid.is(guid) {
            return true;
        }
        index += 1;
    }
    false
}

impl<F: Function> Device<F> {
    /// Fires an event (`WmiFireEvent`), which all its consumers get. One that is not in [`Function::WMI`] does not compile.
    ///
    /// # Errors
    /// `STATUS_WMI_GUID_DISCONNECTED` while the device has not started yet, and once it is being removed; `STATUS_WMI_INSTANCE_NOT_FOUND`;
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn fire<E: EventBlock<Function = F>>(
        &self,
        instance: u32,
        data: &E::Data,
        _level: &mut impl AtMostDispatch,
    ) -> Result<()> {
        const { assert!(offers::<F>(&E::GUID), "an event that is fired stands in Function::WMI") };
        if !self.is_wmi_provider.load(Ordering::Acquire) {
            return Err(NtStatus::WMI_GUID_DISCONNECTED);
        }
        if instance >= E::INSTANCES {
            return Err(NtStatus::WMI_INSTANCE_NOT_FOUND);
        }
        let bytes = data.as_bytes();
        let length = u32::try_from(bytes.len()).map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
        let mut block = null_mut();
        if length > 0 {
            // SAFETY: nonpaged pool may be had up to DISPATCH_LEVEL, above which there is no such proof.
            block = unsafe { sys::ExAllocatePoolWithTag(abi::NonPagedPoolNx, bytes.len(), F::TAG.number()) };
            if block.is_null() {
                return Err(NtStatus::INSUFFICIENT_RESOURCES);
            }
            // SAFETY: the block is new, and as long.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), block.cast(), bytes.len()) };
        }
        // SAFETY: the device object is ours; the GUID lies in the image; the block is the library's from here on, whatever it answers.
        let status = unsafe { sys::WmiFireEvent(self.object(), const { &E::GUID }, instance, length, block) };
        if status.is_success() { Ok(()) } else { Err(status) }
    }
}

/// Registers the device, which has started. Where that fails the device works all the same, and offers nothing.
pub(crate) fn register<F: Function>(device: &Device<F>, _passive: &mut Passive) {
    if const { F::WMI.is_empty() } || device.is_wmi_provider.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the device object is ours, and is not deleted before it is deregistered; at PASSIVE_LEVEL.
    let status = unsafe { sys::IoWMIRegistrationControl(device.object(), abi::WMIREG_ACTION_REGISTER) };
    if !status.is_success() {
        device.is_wmi_provider.store(false, Ordering::Release);
    }
}

/// Deregisters the device if it is registered, and waits for the requests that are under way.
pub(crate) fn deregister<F: Function>(device: &Device<F>, _passive: &mut Passive) {
    if const { F::WMI.is_empty() } || !device.is_wmi_provider.swap(false, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the device object is ours and registered; at PASSIVE_LEVEL, in a request of Plug and Play and none of WMI.
    let _status = unsafe { sys::IoWMIRegistrationControl(device.object(), abi::WMIREG_ACTION_DEREGISTER) };
}
