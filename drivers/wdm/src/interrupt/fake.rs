//! A platform's interrupts for the tests of this crate: one device, connected or not, and what was asked in which order.
//!
//! It takes what it is given; what Windows refuses, dirql refuses.

use core::ffi::c_void;
use std::boxed::Box;
use std::cell::RefCell;
use std::vec::Vec;

use abi::{
    DriverPtr, IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS as FullySpecified,
    IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS as LineBased,
    IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS as MessageBased,
    IO_CONNECT_INTERRUPT_PARAMETERS as Connect, IO_DISCONNECT_INTERRUPT_PARAMETERS as Disconnect,
    IO_INTERRUPT_MESSAGE_INFO as Table, IO_INTERRUPT_MESSAGE_INFO_ENTRY as Entry, KDPC, KINTERRUPT, NtStatus,
};

use crate::fake::{irql, raise};
use crate::{raw, sys};

/// The level of the device's interrupts.
pub(super) const LEVEL: u8 = 7;

/// What the platform has for the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Platform {
    /// So many messages.
    Messages(u32),
    /// A line.
    Line,
    /// A line, and no form of connecting but the fully specified one.
    Old,
    /// Nothing.
    Nothing,
}

/// What the kernel was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Connect(u32),
    Disconnect(u32),
    Flush,
    Dpc,
    Synchronize,
}

struct Connected {
    version: u32,
    routine: u64,
    context: u64,
    /// The interrupt object, or the table.
    object: u64,
    /// Of the routine.
    level: u8,
}

std::thread_local! {
    static PLATFORM: RefCell<Platform> = const { RefCell::new(Platform::Nothing) };
    static CONNECTED: RefCell<Option<Connected>> = const { RefCell::new(None) };
    static ASKED: RefCell<Vec<Asked>> = const { RefCell::new(Vec::new()) };
}

/// The next device has this.
pub(super) fn set(platform: Platform) {
    PLATFORM.replace(platform);
}

/// What was asked since the last call.
pub(super) fn asked() -> Vec<Asked> {
    ASKED.take()
}

fn ask(what: Asked) {
    ASKED.with_borrow_mut(|asked| asked.push(what));
}

/// The device interrupts, by this message or by its line; whether a routine is connected, and claims it.
pub(super) fn interrupt(message: Option<u32>) -> bool {
    let connected =
        CONNECTED.with_borrow(|connected| connected.as_ref().map(|it| (it.routine, it.context, it.level)));
    let Some((routine, context, level)) = connected else { return false };
    let (routine, context) = (code(routine), raw::pointer::<c_void>(DriverPtr::new(context)));
    let before = raise(level);
    // SAFETY: the routine is of the kind that was asked for, and still connected with its context.
    let claimed = unsafe {
        match message {
            Some(number) => core::mem::transmute::<*mut c_void, sys::MessageServiceRoutine>(routine)(
                core::ptr::null_mut(),
                context,
                number,
            ),
            None => core::mem::transmute::<*mut c_void, sys::ServiceRoutine>(routine)(
                core::ptr::null_mut(),
                context,
            ),
        }
    };
    raise(before);
    claimed != 0
}

fn code(address: u64) -> *mut c_void {
    raw::pointer(DriverPtr::new(address))
}

/// The object of a message; the line's is that of message 0.
fn object(message: u32) -> DriverPtr<KINTERRUPT> {
    DriverPtr::new(0x1_0000 + u64::from(message))
}

/// A table of so many messages, which stays.
fn table(count: u32, level: u8) -> u64 {
    let bytes = size_of::<Table>() + size_of::<Entry>() * count as usize;
    let words = Box::leak(std::vec![0_u128; bytes.div_ceil(16)].into_boxed_slice());
    let table = words.as_mut_ptr().cast::<Table>();
    // SAFETY: the memory is ours, with room for all entries.
    unsafe {
        raw::set(table, Table::UnifiedIrql, level);
        raw::set(table, Table::MessageCount, count);
        for number in 0..count {
            let entry = Table::MessageInfo.of(table).wrapping_add(number as usize);
            raw::set(entry, Entry::InterruptObject, object(number));
        }
    }
    raw::stored::<_, ()>(table).address
}

#[unsafe(no_mangle)]
extern "C" fn IoConnectInterruptEx(parameters: *mut Connect) -> NtStatus {
    assert_eq!(irql(), abi::PASSIVE_LEVEL);
    let platform = PLATFORM.with_borrow(|platform| *platform);
    // SAFETY: the parameters are the caller's, for this version.
    unsafe {
        let version = raw::get(parameters, Connect::Version);
        ask(Asked::Connect(version));
        let full = Connect::FullySpecified.of(parameters);
        let line = Connect::LineBased.of(parameters);
        let messages = Connect::MessageBased.of(parameters);
        let level = if version == abi::CONNECT_MESSAGE_BASED_PASSIVE { abi::PASSIVE_LEVEL } else { LEVEL };
        let (receiver, connected) = match (version, platform) {
            (abi::CONNECT_FULLY_SPECIFIED, Platform::Old | Platform::Messages(_)) => {
                let level = raw::get(full, FullySpecified::Irql);
                assert_eq!(raw::get(full, FullySpecified::SynchronizeIrql), level);
                assert!([LEVEL, abi::PASSIVE_LEVEL].contains(&level), "{level}");
                let routine = raw::get(full, FullySpecified::ServiceRoutine).address;
                let context = raw::get(full, FullySpecified::ServiceContext).address;
                let receiver = raw::get(full, FullySpecified::InterruptObject).cast();
                (receiver, Connected { version, routine, context, object: object(0).address, level })
            }
            (_, Platform::Old) => {
                raw::set(parameters, Connect::Version, abi::CONNECT_FULLY_SPECIFIED);
                return NtStatus::NOT_SUPPORTED;
            }
            (abi::CONNECT_LINE_BASED, Platform::Line) => {
                let routine = raw::get(line, LineBased::ServiceRoutine).address;
                let context = raw::get(line, LineBased::ServiceContext).address;
                let receiver = raw::get(line, LineBased::InterruptObject).cast();
                (receiver, Connected { version, routine, context, object: object(0).address, level })
            }
            (abi::CONNECT_MESSAGE_BASED | abi::CONNECT_MESSAGE_BASED_PASSIVE, Platform::Line) => {
                let version = abi::CONNECT_LINE_BASED;
                raw::set(parameters, Connect::Version, version);
                let routine = raw::get(messages, MessageBased::FallBackServiceRoutine).address;
                let context = raw::get(messages, MessageBased::ServiceContext).address;
                let receiver = raw::get(messages, MessageBased::ConnectionContext_Generic);
                (receiver, Connected { version, routine, context, object: object(0).address, level })
            }
            (abi::CONNECT_MESSAGE_BASED | abi::CONNECT_MESSAGE_BASED_PASSIVE, Platform::Messages(count)) => {
                let routine = raw::get(messages, MessageBased::MessageServiceRoutine).address;
                let context = raw::get(messages, MessageBased::ServiceContext).address;
                let receiver = raw::get(messages, MessageBased::ConnectionContext_Generic);
                (receiver, Connected { version, routine, context, object: table(count, level), level })
            }
            _ => return NtStatus::NOT_FOUND,
        };
        raw::pointer(receiver).write(DriverPtr::<()>::new(connected.object));
        CONNECTED.replace(Some(connected));
    }
    NtStatus::SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn IoDisconnectInterruptEx(parameters: *mut Disconnect) {
    assert_eq!(irql(), abi::PASSIVE_LEVEL);
    // SAFETY: the parameters are the caller's.
    let (version, object) = unsafe {
        let object = raw::get(parameters, Disconnect::ConnectionContext_Generic).address;
        (raw::get(parameters, Disconnect::Version), object)
    };
    ask(Asked::Disconnect(version));
    let connected = CONNECTED.take().expect("it was connected");
    assert_eq!((version, object), (connected.version, connected.object), "as it was connected");
}

#[unsafe(no_mangle)]
extern "C" fn KeFlushQueuedDpcs() {
    ask(Asked::Flush);
}

#[unsafe(no_mangle)]
extern "C" fn KeInsertQueueDpc(_dpc: *mut KDPC, _one: *mut c_void, _two: *mut c_void) -> u8 {
    ask(Asked::Dpc);
    1
}

#[unsafe(no_mangle)]
extern "C" fn KeSynchronizeExecution(
    interrupt: *mut KINTERRUPT,
    routine: sys::SynchronizeRoutine,
    context: *mut c_void,
) -> u8 {
    assert!(irql() <= abi::DISPATCH_LEVEL);
    assert_eq!(interrupt.addr() as u64, object(0).address, "an interrupt object of the device");
    ask(Asked::Synchronize);
    let level = CONNECTED.with_borrow(|connected| connected.as_ref().map_or(LEVEL, |it| it.level));
    assert!(level != abi::PASSIVE_LEVEL || irql() == level, "that waits for an event");
    let before = raise(level);
    // SAFETY: the routine is for this context.
    let answer = unsafe { routine(context) };
    raise(before);
    answer
}
