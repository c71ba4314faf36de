//! A request begins: handles, buffers, the IRP and its first location. Pages: *DeviceIoControl function*, *ReadFile function*.

use abi::{
    Code, DEVICE_OBJECT, DO_BUFFERED_IO, DRIVER_OBJECT, DriverPtr, FILE_OBJECT, FO_SYNCHRONOUS_IO,
    IO_STACK_LOCATION, IO_TYPE_IRP, IRP, IRP_BUFFERED_IO, IRP_DEALLOCATE_BUFFER, IRP_INPUT_OPERATION, KEVENT,
    KTHREAD, LIST_ENTRY, METHOD_BUFFERED, METHOD_NEITHER,
};
use engine::{Engine, View};

use super::super::buffers::{self, Buffer, Way};
use super::super::file::Issue;
use super::super::irp::{self, Blocks, Origin, Record};
use super::super::operation::Operation;
use super::super::parameters::{self, Requester};
use super::super::transfer::Request;
use super::super::violation::MOST_DEVICES;
use super::super::{allocate, asked};
use super::{at_or_null, is_event, set_state};
use crate::cx::Kernel;
use crate::mm::pool_own;
use crate::ob::handle::{self, Mode};
use crate::ob::{Handle, Kind};
use crate::witness::Noted;

/// The most bytes of a buffer.
const MOST_BYTES: u32 = 1024;
const NOTHING: Buffer = Buffer { address: 0, length: 0 };
/// The most stack locations.
const MOST_LOCATIONS: u8 = 16;

/// A request whose driver is to be asked now.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    pub(super) irp: DriverPtr<IRP>,
    pub(super) device: DriverPtr<DEVICE_OBJECT>,
    pub(super) file: DriverPtr<FILE_OBJECT>,
    pub(super) dispatch: DriverPtr<Code>,
    pub(super) major: u8,
    /// The number of the call of its dispatch routine.
    pub(super) frame: u64,
    pub(super) synchronous: bool,
    /// The file's number among objects.
    pub(super) number: u32,
}

/// All that beginning a request needs.
struct Plan<'o> {
    file: View<FILE_OBJECT>,
    event: Option<View<KEVENT>>,
    device: DriverPtr<DEVICE_OBJECT>,
    dispatch: DriverPtr<Code>,
    thread: DriverPtr<KTHREAD>,
    stack_size: u8,
    synchronous: bool,
    /// Where a read or write begins.
    offset: i64,
    input: &'o Buffer,
    output: &'o Buffer,
}

/// Begins a request of an application's, up to the call of its driver. None: nothing is done.
pub(crate) fn begin(k: &mut Kernel, handle: Handle, request: &Request<'_>) -> Option<Begun> {
    if k.has_details {
        return None;
    }
    let plan = k.engine.peek(|| plan(k, handle, request))?;
    let length = u64::from(plan.input.length.max(plan.output.length));
    let size = irp::size(plan.stack_size);
    let packet = (u64::from(size), allocate::TAG);
    let [packet, buffer] = pool_own::take_two(k, packet, (length > 0).then_some((length, buffers::TAG)))?;
    let objects = hold(k, &plan);
    let blocks = Blocks { packet, buffer: (length > 0).then_some(buffer), objects };
    if !fill_buffer(k.engine, &plan, &blocks) {
        unreachable!("it was read a moment ago, and no driver ran since");
    }
    k.engine.peek_own("pool pages are mapped", || write(k.engine, &plan, &blocks, request, size));
    let (irp, device) = (DriverPtr::<IRP>::new(packet.address), plan.device);
    let (number, event) = (asked::current(k), at_or_null(plan.event));
    let issue = request.issue(number, plan.file.at(), event, plan.thread.address, plan.synchronous);
    let issue = k.io.irps.boxed(Issue { blocks: Some(blocks), ..issue });
    // Construct in place: moving a freshly written record stalls on store forwarding.
    *k.io.irps.live.slot(irp.address) = Some(Record {
        thread: plan.thread.address,
        issue: Some(issue),
        output: request.operation.output(),
        ..Record::new(Origin::System, None)
    });
    let major = request.operation.major();
    let frame =
        k.io.frames.enter(irp.address, device.address, plan.stack_size, (major, 0), false, Noted::NONE);
    let (file, dispatch, synchronous) = (plan.file.at(), plan.dispatch, plan.synchronous);
    Some(Begun { irp, device, file, dispatch, major, frame, synchronous, number: objects[0] })
}

/// Checks everything, and changes nothing.
#[inline]
fn plan<'o>(k: &Kernel, handle: Handle, request: &Request<'o>) -> Option<Plan<'o>> {
    let engine = k.engine;
    if !engine.is_plain() || engine.depth() != 0 || request.apc {
        return None;
    }
    let operation = request.operation;
    let thread = k.ke.thread()?;
    let [file] = handle::own_entries(k, thread.process, [handle])?;
    let event = match request.event {
        Some(event) => Some(event_of(k, thread.process, event)?),
        None => None,
    };
    if file.kind != Kind::File || operation.access() & !file.access != 0 {
        return None;
    }
    let file = engine.view(DriverPtr::<FILE_OBJECT>::new(file.object))?;
    let synchronous = file.get(FILE_OBJECT::Flags) & FO_SYNCHRONOUS_IO != 0;
    let is_free = !synchronous || file.get(FILE_OBJECT::Busy) == 0;
    // Without an event, one that is not synchronous tells its end by the file's.
    let is_waited_for = synchronous || event.is_some();
    if !is_free || !is_waited_for || !is_event(file.part(FILE_OBJECT::Event)) {
        return None;
    }
    let device = top(engine, file)?;
    let driver = engine.view(device.get(DEVICE_OBJECT::DriverObject))?;
    let (input, output) = transfer(device, driver, operation)?;
    let is_there = k.io.devices.get(device.at().address).is_some_and(|device| !device.deleted);
    if !is_there || !are_usable(k, input, output) {
        return None;
    }
    let dispatch = driver.element(DRIVER_OBJECT::MajorFunction, operation.major().into())?;
    let stack_size = device.get(DEVICE_OBJECT::StackSize);
    let offset = offset(file, operation, synchronous)?;
    let fits = (1..=MOST_LOCATIONS).contains(&stack_size);
    let (device, thread) = (device.at(), thread.object);
    let plan = Plan { file, event, device, dispatch, thread, stack_size, synchronous, offset, input, output };
    fits.then_some(plan)
}

/// The event of a handle of this process.
#[inline]
fn event_of(k: &Kernel, process: u64, handle: Handle) -> Option<View<KEVENT>> {
    let [entry] = handle::own_entries(k, process, [handle])?;
    let event = k.engine.view(DriverPtr::<KEVENT>::new(entry.object))?;
    (entry.kind == Kind::Event && is_event(event)).then_some(event)
}

/// The top of the stack that the file was opened on.
#[inline]
fn top(engine: Engine, file: View<FILE_OBJECT>) -> Option<View<DEVICE_OBJECT>> {
    let mut device = engine.view(file.get(FILE_OBJECT::DeviceObject))?;
    for _ in 0..MOST_DEVICES {
        let above = device.get(DEVICE_OBJECT::AttachedDevice);
        if engine.has_faulted() {
            return None;
        }
        if above.is_null() {
            return Some(device);
        }
        device = engine.view(above)?;
    }
    None
}

/// The input and the output, if both go through a system buffer and an IRP is needed.
#[inline]
fn transfer(
    device: View<DEVICE_OBJECT>,
    driver: View<DRIVER_OBJECT>,
    operation: &Operation,
) -> Option<(&Buffer, &Buffer)> {
    let is_buffered = || device.get(DEVICE_OBJECT::Flags) & DO_BUFFERED_IO != 0;
    match operation {
        Operation::Control(code, input, output) if code & METHOD_NEITHER == METHOD_BUFFERED => {
            driver.get(DRIVER_OBJECT::FastIoDispatch).is_null().then_some((input, output))
        }
        Operation::Read(buffer, _) if is_buffered() => Some((&NOTHING, buffer)),
        Operation::Write(buffer, _) if is_buffered() => Some((buffer, &NOTHING)),
        _ => None,
    }
}

/// Whether the application may read the input and write the output.
#[inline]
fn are_usable(k: &Kernel, input: &Buffer, output: &Buffer) -> bool {
    let in_user_half = buffers::in_user_half(input) && buffers::in_user_half(output);
    let are_small = input.length <= MOST_BYTES && output.length <= MOST_BYTES;
    // Two pages at the most.
    let is_readable = || k.engine.are_ends_readable(input.address, input.length.into());
    in_user_half && are_small && (input.length == 0 || is_readable()) && buffers::writable(k, output)
}

/// Where it begins.
#[inline]
fn offset(file: View<FILE_OBJECT>, operation: &Operation, synchronous: bool) -> Option<i64> {
    operation.start(synchronous, Mode::User).map(|start| super::offset(file, start))
}

/// The input, in the system buffer.
#[inline]
fn fill_buffer(engine: Engine, plan: &Plan<'_>, blocks: &Blocks) -> bool {
    let Some(buffer) = blocks.buffer else { return true };
    let Buffer { address, length } = *plan.input;
    length == 0 || engine.copy_plain(buffer.address, address, length.into())
}

/// The IRP as its driver finds it. Its memory is zeroed.
#[inline]
fn write(engine: Engine, plan: &Plan<'_>, blocks: &Blocks, request: &Request<'_>, size: u16) {
    let at = DriverPtr::<IRP>::new(blocks.packet.address);
    let (location_at, device) = (irp::location(at, plan.stack_size), plan.device);
    let views = engine.view(at).zip(engine.view(location_at));
    let (mut header, mut location) = views.expect("plain access was possible a moment ago");
    let list = at + IRP::ThreadListEntry;
    let links = header.part(IRP::ThreadListEntry);
    header.set(IRP::Type, IO_TYPE_IRP);
    header.set(IRP::Size, size);
    links.set(LIST_ENTRY::Flink, list);
    links.set(LIST_ENTRY::Blink, list);
    header.set(IRP::StackCount, plan.stack_size);
    header.set(IRP::CurrentLocation, plan.stack_size);
    header.set(IRP::Tail_Overlay_CurrentStackLocation, location_at);
    let (thread, file, event) = (plan.thread, plan.file.at(), at_or_null(plan.event));
    let status_block = request.status_block;
    Requester { mode: Mode::User, thread, file, event, status_block }.fill(&mut header);
    let mut all = parameters::flags(request.operation);
    if let Some(buffer) = blocks.buffer {
        all |= IRP_BUFFERED_IO | IRP_DEALLOCATE_BUFFER;
        header.set(IRP::AssociatedIrp_SystemBuffer, DriverPtr::new(buffer.address));
        if plan.output.length > 0 {
            all |= IRP_INPUT_OPERATION;
            header.set(IRP::UserBuffer, DriverPtr::new(plan.output.address));
        }
    }
    all |= match request.operation {
        Operation::Read(buffer, _) => buffers::nothing_to_copy(buffer.length, Way::In),
        Operation::Write(buffer, _) => buffers::nothing_to_copy(buffer.length, Way::Out),
        _ => 0,
    };
    header.set(IRP::Flags, all);
    parameters::fill(&mut location, request.operation, plan.offset, request.key);
    location.set(IO_STACK_LOCATION::DeviceObject, device);
    location.set(IO_STACK_LOCATION::FileObject, plan.file.at().cast());
}

/// References, and the file's lock; both events are not signaled from now on. Where the two objects are known.
#[inline]
fn hold(k: &mut Kernel, plan: &Plan<'_>) -> [u32; 2] {
    // The caller's reference, and the IRP's.
    let [of_file, of_event] = k.io.near;
    let of_file = more(k, of_file, plan.file.at().address, 2);
    let of_event = plan.event.map_or(of_event, |event| more(k, of_event, event.at().address, 1));
    k.io.near = [of_file, of_event];
    k.engine.peek_own("files and events are objects", || {
        if plan.synchronous {
            plan.file.set(FILE_OBJECT::Busy, 1);
        }
        set_state(plan.file.part(FILE_OBJECT::Event), 0);
        if let Some(event) = plan.event {
            set_state(event, 0);
        }
    });
    [of_file, of_event]
}

/// More references to an object that has a handle. Its number.
#[inline]
fn more(k: &mut Kernel, near: u32, body: u64, references: i64) -> u32 {
    let number = k.ob.objects.number(near, body).expect("what a handle stands for is an object");
    if let Some(object) = k.ob.objects.at_mut(number) {
        object.references += references;
    }
    number
}
