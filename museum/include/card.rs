//! A function driver of a card in Rust that does nothing wrong: Plug and Play, power, a device interface, registers in the first memory window, and the line. An exhibit has the
//! card's service routine and its requests ([`Function`]).
//!
//! A request passes the gate, which is closed while the device is not started or has no power, and ends before its dispatch routine returns.
#![allow(non_snake_case)]

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::{null, null_mut, with_exposed_provenance};

use crate::ddk::*;

const STATUS_DEVICE_NOT_READY: NTSTATUS = 0xC000_00A3_u32.cast_signed();
const STATUS_DEVICE_CONFIGURATION_ERROR: NTSTATUS = 0xC000_0182_u32.cast_signed();
const STATUS_UNSUCCESSFUL: NTSTATUS = 0xC000_0001_u32.cast_signed();
const STATUS_NO_SUCH_DEVICE: NTSTATUS = 0xC000_000E_u32.cast_signed();

const IRP_MJ_POWER: usize = 0x16;
const IRP_MJ_SYSTEM_CONTROL: usize = 0x17;
const IRP_MJ_PNP: usize = 0x1B;

const IRP_MN_START_DEVICE: u8 = 0x00;
const IRP_MN_QUERY_REMOVE_DEVICE: u8 = 0x01;
const IRP_MN_REMOVE_DEVICE: u8 = 0x02;
const IRP_MN_CANCEL_REMOVE_DEVICE: u8 = 0x03;
const IRP_MN_STOP_DEVICE: u8 = 0x04;
const IRP_MN_QUERY_STOP_DEVICE: u8 = 0x05;
const IRP_MN_CANCEL_STOP_DEVICE: u8 = 0x06;
const IRP_MN_SURPRISE_REMOVAL: u8 = 0x17;
const IRP_MN_SET_POWER: u8 = 0x02;

const DEVICE_POWER_STATE: u64 = 1;
const POWER_DEVICE_D0: u64 = 1;
const DO_POWER_PAGABLE: u32 = 0x2000;
const DO_POWER_INRUSH: u32 = 0x4000;
const SL_INVOKE_ALWAYS: u8 = 0xE0;
const CM_RESOURCE_TYPE_MEMORY: u8 = 3;
const CONNECT_LINE_BASED: u32 = 2;
const REMOVE_LOCK_BYTES: u32 = 0x20;
const REMOVE_LOCK_TAG: u32 = u32::from_le_bytes(*b"draC");

#[repr(C)]
pub struct GUID(pub u32, pub u16, pub u16, pub [u8; 8]);

#[repr(C)]
struct Connect {
    version: u32,
    physical_device_object: *mut DEVICE_OBJECT,
    interrupt_object: *mut *mut c_void,
    service_routine: Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> u8>,
    service_context: *mut c_void,
    spin_lock: *mut usize,
    synchronize_irql: KIRQL,
    floating_save: u8,
    rest: [u64; 4],
}

#[repr(C)]
struct Disconnect {
    version: u32,
    interrupt_object: *mut c_void,
}

#[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    fn IoAcquireRemoveLockEx(
        lock: *mut c_void,
        tag: *mut c_void,
        file: *const u8,
        line: u32,
        bytes: u32,
    ) -> NTSTATUS;
    fn IoAttachDeviceToDeviceStack(device: *mut DEVICE_OBJECT, to: *mut DEVICE_OBJECT) -> *mut DEVICE_OBJECT;
    fn IoConnectInterruptEx(parameters: *mut Connect) -> NTSTATUS;
    fn IoDetachDevice(lower: *mut DEVICE_OBJECT);
    fn IoDisconnectInterruptEx(parameters: *mut Disconnect);
    fn IoForwardIrpSynchronously(lower: *mut DEVICE_OBJECT, irp: *mut IRP) -> u8;
    fn IoInitializeRemoveLockEx(lock: *mut c_void, tag: u32, minutes: u32, high: u32, bytes: u32);
    fn IoRegisterDeviceInterface(
        pdo: *mut DEVICE_OBJECT,
        class: *const GUID,
        reference: *const UNICODE_STRING,
        name: *mut UNICODE_STRING,
    ) -> NTSTATUS;
    fn IoReleaseRemoveLockAndWaitEx(lock: *mut c_void, tag: *mut c_void, bytes: u32);
    fn IoReleaseRemoveLockEx(lock: *mut c_void, tag: *mut c_void, bytes: u32);
    fn IoSetDeviceInterfaceState(name: *mut UNICODE_STRING, enable: u8) -> NTSTATUS;
    fn IofCallDriver(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS;
    fn KeClearEvent(event: *mut Event);
    fn KeInitializeEvent(event: *mut Event, kind: u32, signaled: u8);
    fn KeSetEvent(event: *mut Event, boost: i32, wait: u8) -> i32;
    fn KeSynchronizeExecution(
        interrupt: *mut c_void,
        routine: unsafe extern "C" fn(*mut c_void) -> u8,
        context: *mut c_void,
    ) -> u8;
    fn KeWaitForSingleObject(
        object: *mut Event,
        reason: u32,
        mode: u8,
        alertable: u8,
        limit: *const i64,
    ) -> NTSTATUS;
    fn MmMapIoSpace(physical: u64, bytes: usize, caching: u32) -> *mut c_void;
    fn MmUnmapIoSpace(address: *mut c_void, bytes: usize);
    fn PoCallDriver(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS;
    fn PoStartNextPowerIrp(irp: *mut IRP);
    fn RtlFreeUnicodeString(string: *mut UNICODE_STRING);
}

/// What a driver does of its own.
pub trait Function: Sized {
    /// The class of its device interface.
    const INTERFACE: GUID;

    /// Before the card is touched.
    fn new() -> Self;

    /// The service routine: whether the interrupt was the card's.
    fn serve(card: &Card<Self>) -> bool;

    /// The card is not to interrupt any more.
    fn quiet(card: &Card<Self>);

    /// A device control with its buffer, and how long input and output are: how many bytes are its answer.
    ///
    /// # Safety
    /// The buffer is as long as the longer of the two.
    unsafe fn control(
        card: &Card<Self>,
        code: u32,
        buffer: *mut u8,
        input: usize,
        output: usize,
    ) -> Result<usize, NTSTATUS>;
}

#[repr(C)]
struct Event([u64; 3]);

struct Gate {
    is_open: bool,
    users: u32,
}

/// A device's extension.
pub struct Card<T> {
    this: *mut DEVICE_OBJECT,
    pdo: *mut DEVICE_OBJECT,
    lower: *mut DEVICE_OBJECT,
    interface: UNICODE_STRING,
    remove_lock: [u64; 4],
    gate: SpinLock<Gate>,
    /// No request is behind the gate.
    idle: Event,
    registers: *mut u8,
    length: usize,
    interrupt: *mut c_void,
    /// The service routine may touch the card; changed in step with it.
    is_awake: UnsafeCell<bool>,
    is_started: bool,
    is_powered: bool,
    pub own: T,
}

impl<T: Function> Card<T> {
    pub fn read(&self, offset: usize) -> u32 {
        // SAFETY: the window is mapped for as long as requests and the service routine run.
        unsafe { self.registers.add(offset).cast::<u32>().read_volatile() }
    }

    pub fn write(&self, offset: usize, value: u32) {
        // SAFETY: as above.
        unsafe { self.registers.add(offset).cast::<u32>().write_volatile(value) }
    }

    /// Does something while the service routine does not run; between start and stop.
    pub fn in_step<R>(&self, does: impl FnOnce() -> R) -> R {
        struct Call<F, R>(Option<F>, Option<R>);

        unsafe extern "C" fn call<F: FnOnce() -> R, R>(context: *mut c_void) -> u8 {
            let call = unsafe { &mut *context.cast::<Call<F, R>>() };
            call.1 = call.0.take().map(|does| does());
            1
        }

        fn routine<F: FnOnce() -> R, R>(_of: &Call<F, R>) -> unsafe extern "C" fn(*mut c_void) -> u8 {
            call::<F, R>
        }

        let mut one = Call(Some(does), None);
        let routine = routine(&one);
        unsafe { KeSynchronizeExecution(self.interrupt, routine, (&raw mut one).cast()) };
        match one.1 {
            Some(done) => done,
            None => unreachable!(),
        }
    }

    fn set_awake(&self, is_awake: bool) {
        self.in_step(|| unsafe { *self.is_awake.get() = is_awake });
    }

    fn enter(&self) -> bool {
        let mut gate = self.gate.lock();
        if gate.is_open {
            gate.users += 1;
            unsafe { KeClearEvent((&raw const self.idle).cast_mut()) };
        }
        gate.is_open
    }

    fn leave(&self) {
        let mut gate = self.gate.lock();
        gate.users -= 1;
        if gate.users == 0 {
            unsafe { KeSetEvent((&raw const self.idle).cast_mut(), 0, 0) };
        }
    }

    fn open_gate(&self) {
        self.gate.lock().is_open = true;
    }

    /// No request is behind it when this returns.
    fn close_gate(&self) {
        self.gate.lock().is_open = false;
        unsafe { KeWaitForSingleObject((&raw const self.idle).cast_mut(), 0, 0, 0, null()) };
    }

    unsafe fn start(&mut self, resources: *const u8) -> NTSTATUS {
        let Some((address, bytes)) = (unsafe { first_memory(resources) }) else {
            return STATUS_DEVICE_CONFIGURATION_ERROR;
        };
        self.registers = unsafe { MmMapIoSpace(address, bytes, 0) }.cast();
        if self.registers.is_null() {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        self.length = bytes;
        *self.is_awake.get_mut() = true;
        let mut parameters = Connect {
            version: CONNECT_LINE_BASED,
            physical_device_object: self.pdo,
            interrupt_object: &raw mut self.interrupt,
            service_routine: Some(service::<T>),
            service_context: (&raw mut *self).cast(),
            spin_lock: null_mut(),
            synchronize_irql: 0,
            floating_save: 0,
            rest: [0; 4],
        };
        let status = unsafe { IoConnectInterruptEx(&mut parameters) };
        if status < 0 {
            self.unmap();
            return status;
        }
        (self.is_started, self.is_powered) = (true, true);
        self.open_gate();
        status
    }

    fn unmap(&mut self) {
        unsafe { MmUnmapIoSpace(self.registers.cast(), self.length) };
        self.registers = null_mut();
    }

    /// The card is there, or has gone.
    fn stop(&mut self, is_there: bool) {
        if !self.is_started {
            return;
        }
        self.is_started = false;
        self.close_gate();
        if is_there && self.is_powered {
            T::quiet(self);
        }
        let mut parameters = Disconnect { version: CONNECT_LINE_BASED, interrupt_object: self.interrupt };
        unsafe { IoDisconnectInterruptEx(&mut parameters) };
        self.unmap();
    }

    fn lock(&self) -> *mut c_void {
        (&raw const self.remove_lock).cast_mut().cast()
    }

    unsafe fn acquire(&self, irp: *mut IRP) -> NTSTATUS {
        unsafe { IoAcquireRemoveLockEx(self.lock(), irp.cast(), c"".as_ptr().cast(), 1, REMOVE_LOCK_BYTES) }
    }

    unsafe fn release(&self, irp: *mut IRP) {
        unsafe { IoReleaseRemoveLockEx(self.lock(), irp.cast(), REMOVE_LOCK_BYTES) }
    }
}

/// The first memory window of a resource list.
unsafe fn first_memory(resources: *const u8) -> Option<(u64, usize)> {
    if resources.is_null() {
        return None;
    }
    // CM_RESOURCE_LIST: the count of the first list at 10h, its descriptors from 14h on, 14h bytes each.
    unsafe {
        let count = resources.add(0x10).cast::<u32>().read() as usize;
        let each = (0..count).map(|index| resources.add(0x14 + index * 0x14));
        let memory = each.into_iter().find(|one| one.read() == CM_RESOURCE_TYPE_MEMORY)?;
        Some((memory.add(4).cast::<u64>().read_unaligned(), memory.add(12).cast::<u32>().read() as usize))
    }
}

unsafe extern "C" fn service<T: Function>(_interrupt: *mut c_void, context: *mut c_void) -> u8 {
    let card = unsafe { &*context.cast::<Card<T>>() };
    (unsafe { *card.is_awake.get() } && T::serve(card)).into()
}

unsafe fn skip(irp: *mut IRP) {
    unsafe {
        (*irp).CurrentLocation += 1;
        (*irp).CurrentStackLocation = (*irp).CurrentStackLocation.add(1);
    }
}

unsafe extern "C" fn pnp<T: Function>(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    unsafe {
        let card = &mut *extension_of::<Card<T>>(device);
        let status = card.acquire(irp);
        if status < 0 {
            return complete(irp, status, 0);
        }
        match (*stack(irp)).MinorFunction {
            IRP_MN_START_DEVICE => {
                let is_forwarded = IoForwardIrpSynchronously(card.lower, irp) != 0;
                let mut status = if is_forwarded { (*irp).Status } else { STATUS_UNSUCCESSFUL };
                if status >= 0 {
                    // AllocatedResourcesTranslated
                    let resources = with_exposed_provenance((*stack(irp)).InputBufferLength as usize);
                    status = card.start(resources);
                }
                if status >= 0 {
                    IoSetDeviceInterfaceState(&mut card.interface, 1);
                }
                complete(irp, status, 0);
                card.release(irp);
                return status;
            }
            IRP_MN_REMOVE_DEVICE => return remove(card, irp),
            minor @ (IRP_MN_STOP_DEVICE | IRP_MN_SURPRISE_REMOVAL) => {
                card.stop(minor == IRP_MN_STOP_DEVICE);
                if minor == IRP_MN_SURPRISE_REMOVAL {
                    IoSetDeviceInterfaceState(&mut card.interface, 0);
                }
                (*irp).Status = STATUS_SUCCESS;
            }
            IRP_MN_QUERY_STOP_DEVICE
            | IRP_MN_CANCEL_STOP_DEVICE
            | IRP_MN_QUERY_REMOVE_DEVICE
            | IRP_MN_CANCEL_REMOVE_DEVICE => (*irp).Status = STATUS_SUCCESS,
            _ => {}
        }
        skip(irp);
        let status = IofCallDriver(card.lower, irp);
        card.release(irp);
        status
    }
}

unsafe fn remove<T: Function>(card: &mut Card<T>, irp: *mut IRP) -> NTSTATUS {
    unsafe {
        card.stop(true);
        IoSetDeviceInterfaceState(&mut card.interface, 0);
        IoReleaseRemoveLockAndWaitEx(card.lock(), irp.cast(), REMOVE_LOCK_BYTES);
        RtlFreeUnicodeString(&mut card.interface);
        let (this, lower) = (card.this, card.lower);
        (*irp).Status = STATUS_SUCCESS;
        skip(irp);
        let status = IofCallDriver(lower, irp);
        IoDetachDevice(lower);
        IoDeleteDevice(this);
        status
    }
}

unsafe extern "C" fn is_up<T: Function>(
    _device: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    context: *mut c_void,
) -> NTSTATUS {
    unsafe {
        let card = &mut *context.cast::<Card<T>>();
        if (*irp).Status >= 0 && card.is_started && !card.is_powered {
            card.is_powered = true;
            card.set_awake(true);
            card.open_gate();
        }
        PoStartNextPowerIrp(irp);
        card.release(irp);
    }
    STATUS_SUCCESS
}

unsafe extern "C" fn power<T: Function>(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    unsafe {
        let card = &mut *extension_of::<Card<T>>(device);
        let status = card.acquire(irp);
        if status < 0 {
            PoStartNextPowerIrp(irp);
            return complete(irp, status, 0);
        }
        let here = stack(irp);
        // Parameters.Power.Type and State.
        let (kind, state) = ((*here).InputBufferLength & 0xFFFF_FFFF, (*here).IoControlCode & 0xFFFF_FFFF);
        if (*here).MinorFunction == IRP_MN_SET_POWER && kind == DEVICE_POWER_STATE {
            if state == POWER_DEVICE_D0 {
                mark_pending(irp);
                let next = here.sub(1);
                here.cast::<u8>().copy_to_nonoverlapping(next.cast(), 0x38);
                (*next).Control = SL_INVOKE_ALWAYS;
                (*next).CompletionRoutine = Some(is_up::<T>);
                (*next).Context = (&raw mut *card).cast();
                PoCallDriver(card.lower, irp);
                return STATUS_PENDING;
            }
            if card.is_started && card.is_powered {
                card.close_gate();
                T::quiet(card);
                card.set_awake(false);
                card.is_powered = false;
            }
        }
        PoStartNextPowerIrp(irp);
        skip(irp);
        let status = PoCallDriver(card.lower, irp);
        card.release(irp);
        status
    }
}

unsafe extern "C" fn system_control<T: Function>(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    unsafe {
        let card = &*extension_of::<Card<T>>(device);
        let status = card.acquire(irp);
        if status < 0 {
            return complete(irp, status, 0);
        }
        skip(irp);
        let status = IofCallDriver(card.lower, irp);
        card.release(irp);
        status
    }
}

unsafe extern "C" fn control<T: Function>(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    unsafe {
        let card = &*extension_of::<Card<T>>(device);
        let status = card.acquire(irp);
        if status < 0 {
            return complete(irp, status, 0);
        }
        let answer = if card.enter() {
            let (code, input, output) = control_of(irp);
            let answer = T::control(card, code, (*irp).SystemBuffer.cast(), input, output);
            card.leave();
            answer
        } else {
            Err(STATUS_DEVICE_NOT_READY)
        };
        let status = answer.err().unwrap_or(STATUS_SUCCESS);
        complete(irp, status, answer.unwrap_or(0));
        card.release(irp);
        status
    }
}

unsafe extern "C" fn add<T: Function>(driver: *mut DRIVER_OBJECT, pdo: *mut DEVICE_OBJECT) -> NTSTATUS {
    unsafe {
        let mut this = null_mut();
        let bytes = size_of::<Card<T>>() as u32;
        let status = IoCreateDevice(
            driver,
            bytes,
            null_mut(),
            FILE_DEVICE_UNKNOWN,
            FILE_DEVICE_SECURE_OPEN,
            0,
            &mut this,
        );
        if status < 0 {
            return status;
        }
        let card = extension_of::<Card<T>>(this);
        card.write(Card {
            this,
            pdo,
            lower: null_mut(),
            interface: UNICODE_STRING { Length: 0, MaximumLength: 0, Buffer: null() },
            remove_lock: [0; 4],
            gate: SpinLock::new(Gate { is_open: false, users: 0 }),
            idle: Event([0; 3]),
            registers: null_mut(),
            length: 0,
            interrupt: null_mut(),
            is_awake: UnsafeCell::new(false),
            is_started: false,
            is_powered: false,
            own: T::new(),
        });
        let card = &mut *card;
        IoInitializeRemoveLockEx(card.lock(), REMOVE_LOCK_TAG, 0, 0, REMOVE_LOCK_BYTES);
        KeInitializeEvent(&mut card.idle, 0, 1);
        let mut status = IoRegisterDeviceInterface(pdo, &T::INTERFACE, null(), &mut card.interface);
        if status >= 0 {
            card.lower = IoAttachDeviceToDeviceStack(this, pdo);
            if card.lower.is_null() {
                RtlFreeUnicodeString(&mut card.interface);
                status = STATUS_NO_SUCH_DEVICE;
            }
        }
        if status < 0 {
            IoDeleteDevice(this);
            return status;
        }
        (*this).Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE | (*card.lower).Flags & DO_POWER_INRUSH;
        (*this).Flags &= !DO_DEVICE_INITIALIZING;
    }
    STATUS_SUCCESS
}

unsafe extern "C" fn unload(_driver: *mut DRIVER_OBJECT) {}

/// What `DriverEntry` does.
///
/// # Safety
/// It is called by that.
pub unsafe fn load<T: Function>(driver: *mut DRIVER_OBJECT) -> NTSTATUS {
    unsafe {
        (*driver).DriverUnload = Some(unload);
        (*(*driver).DriverExtension).AddDevice = Some(add::<T>);
        for major in [IRP_MJ_CREATE, IRP_MJ_CLEANUP, IRP_MJ_CLOSE] {
            (*driver).MajorFunction[major] = Some(succeed);
        }
        (*driver).MajorFunction[IRP_MJ_DEVICE_CONTROL] = Some(control::<T>);
        (*driver).MajorFunction[IRP_MJ_PNP] = Some(pnp::<T>);
        (*driver).MajorFunction[IRP_MJ_POWER] = Some(power::<T>);
        (*driver).MajorFunction[IRP_MJ_SYSTEM_CONTROL] = Some(system_control::<T>);
    }
    STATUS_SUCCESS
}
