//! One request at a time: StartIo and device queues, cancel-safe queues.

use abi::{
    DEVICE_OBJECT, DO_BUFFERED_IO, DRIVER_OBJECT, DriverPtr, IO_CSQ, IO_STACK_LOCATION, IRP, IRP_MJ_CREATE,
    IRP_MJ_READ, IRP_MJ_WRITE, KDEVICE_QUEUE, NtStatus,
};
use engine::Flow;

use super::rig::*;
use crate::cx::Cx;
use crate::io::file::{self, Buffer, OpenOptions, Operation, Overlapped};
use crate::io::{cancel, csq, device_queue, irp, start_packet};
use crate::ke;
use crate::ob::Handle;

/// Pends the request and gives it to the queue; it can be cancelled there.
fn queue_it(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (device, irp) = arguments(given);
    mark_pending(cx, irp)?;
    let cancel = routine(cx, cancel_packet);
    start_packet::start(cx, device, irp, DriverPtr::NULL, cancel)?;
    Ok(NtStatus::PENDING.0.into())
}

/// Cancels a packet that waits, as documented for drivers with StartIo.
fn cancel_packet(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (device, irp) = arguments(given);
    let irql = cx.read(irp + IRP::CancelIrql)?;
    assert_ne!(cx.read(device + DEVICE_OBJECT::CurrentIrp)?, irp, "the current one is not cancelled here");
    let entry = irp + IRP::Tail_Overlay_DeviceQueueEntry;
    assert!(device_queue::remove_entry(cx, device + DEVICE_OBJECT::DeviceQueue, entry)?);
    cancel::release(cx, irql)?;
    complete(cx, irp, NtStatus::CANCELLED, 0)
}

/// Takes the packet; the test completes it.
fn start_io(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (device, irp) = arguments(given);
    assert_eq!(ke::irql::current(cx), 2);
    assert_eq!(cx.read(device + DEVICE_OBJECT::CurrentIrp)?, irp);
    let old = cancel::acquire(cx)?;
    cx.write(irp + IRP::CancelRoutine, DriverPtr::NULL)?;
    cancel::release(cx, old)?;
    let count = extension(cx, device, 1)?;
    let started = cx.read(count)? + 1;
    cx.write(count, started)?;
    Ok(0)
}

fn queueing(cx: &mut Cx<'_>) -> Flow<(Device, Handle)> {
    let driver = driver(cx, "queue", &[(IRP_MJ_CREATE, succeed), (IRP_MJ_WRITE, queue_it)])?;
    let start_io = routine(cx, start_io);
    cx.write(driver + DRIVER_OBJECT::DriverStartIo, start_io)?;
    let device = device(cx, driver, "\\Device\\Queue", DO_BUFFERED_IO)?;
    Ok((device, file::open(cx, "\\Device\\Queue", &OpenOptions::overlapped())?.unwrap()))
}

fn write(cx: &mut Cx<'_>, handle: Handle, offset: i64) -> Flow<Overlapped> {
    let buffer = Buffer { address: user_bytes(cx, b"x"), length: 1 };
    let overlapped = Overlapped::new(cx)?.unwrap();
    let answer = file::start(cx, handle, Operation::Write(buffer, Some(offset)), &overlapped)?;
    assert_eq!(answer.status, NtStatus::PENDING);
    Ok(overlapped)
}

/// What a DpcForIsr does: next packet, then completion.
fn finish_current(cx: &mut Cx<'_>, device: Device) -> Flow<i64> {
    let old = ke::irql::raise(cx, 2)?;
    let irp = cx.read(device + DEVICE_OBJECT::CurrentIrp)?;
    let location = location(cx, irp)?;
    let offset = cx.read(location + IO_STACK_LOCATION::Parameters_Write_ByteOffset)?;
    start_packet::start_next(cx, device, true)?;
    complete(cx, irp, NtStatus::SUCCESS, 1)?;
    ke::irql::lower(cx, old)?;
    Ok(offset)
}

#[test]
fn packets_are_started_one_at_a_time_in_order() {
    story(|cx| {
        let (device, handle) = queueing(cx)?;
        let writes = [write(cx, handle, 10)?, write(cx, handle, 11)?, write(cx, handle, 12)?];
        let count = extension(cx, device, 1)?;
        assert_eq!(cx.read(count)?, 1);
        assert_eq!(finish_current(cx, device)?, 10);
        assert_eq!(cx.read(count)?, 2);
        assert_eq!([finish_current(cx, device)?, finish_current(cx, device)?], [11, 12]);
        assert!(cx.read(device + DEVICE_OBJECT::CurrentIrp)?.is_null());
        assert_eq!(cx.read((device + DEVICE_OBJECT::DeviceQueue) + KDEVICE_QUEUE::Busy)?, 0);
        for write in writes {
            assert_eq!(write.wait(cx)?.information, 1);
        }
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn a_waiting_packet_can_be_cancelled_and_the_current_one_is_not() {
    story(|cx| {
        let (device, handle) = queueing(cx)?;
        let first = write(cx, handle, 10)?;
        let second = write(cx, handle, 11)?;
        assert_eq!(file::cancel_io(cx, handle)?, NtStatus::SUCCESS);
        assert_eq!(second.wait(cx)?.status, NtStatus::CANCELLED);
        assert_eq!(finish_current(cx, device)?, 10);
        assert_eq!(first.wait(cx)?.status, NtStatus::SUCCESS);
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn a_start_io_that_starts_the_next_packet_is_entered_again_only_when_it_returns_if_deferred() {
    fn at_once(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (device, irp) = arguments(given);
        let depth = extension(cx, device, 2)?;
        let deepest = extension(cx, device, 3)?;
        let now = cx.read(depth)? + 1;
        cx.write(depth, now)?;
        let most = cx.read(deepest)?.max(now);
        cx.write(deepest, most)?;
        start_io(cx, given)?;
        start_packet::start_next(cx, device, true)?;
        complete(cx, irp, NtStatus::SUCCESS, 1)?;
        cx.write(depth, now - 1)?;
        Ok(0)
    }
    for (deferred, depth) in [(true, 1), (false, 3)] {
        story(move |cx| {
            let (device, handle) = queueing(cx)?;
            start_packet::set_attributes(cx, device, deferred, false)?;
            let writes =
                [write(cx, handle, 0)?, write(cx, handle, 1)?, write(cx, handle, 2)?, write(cx, handle, 3)?];
            let driver = cx.read(device + DEVICE_OBJECT::DriverObject)?;
            let at_once = routine(cx, at_once);
            cx.write(driver + DRIVER_OBJECT::DriverStartIo, at_once)?;
            finish_current(cx, device)?;
            for write in writes {
                assert_eq!(write.wait(cx)?.status, NtStatus::SUCCESS);
            }
            let deepest = extension(cx, device, 3)?;
            assert_eq!(cx.read(deepest)?, depth);
            file::close(cx, handle).map(|_| ())
        })
        .clean();
    }
}

#[test]
fn the_cancel_routine_of_a_packet_that_was_cancelled_before_is_called_and_it_is_started() {
    /// As documented: `StartIo` ends what has become the current one.
    fn leave_it(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (device, irp) = arguments(given);
        assert_eq!(cx.read(device + DEVICE_OBJECT::CurrentIrp)?, irp);
        assert!(cx.read(irp + IRP::CancelRoutine)?.is_null());
        let noted = extension(cx, device, 2)?;
        cx.write(noted, 1)?;
        let irql = cx.read(irp + IRP::CancelIrql)?;
        cancel::release(cx, irql).map(|()| 0)
    }
    fn cancelled_on_the_way(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (device, irp) = arguments(given);
        mark_pending(cx, irp)?;
        assert!(!cancel::cancel(cx, irp)?, "no routine yet");
        let cancel = routine(cx, leave_it);
        start_packet::start(cx, device, irp, DriverPtr::NULL, cancel)?;
        Ok(NtStatus::PENDING.0.into())
    }
    fn ends_cancelled(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (device, irp) = arguments(given);
        let noted = extension(cx, device, 2)?;
        assert_eq!(cx.read(noted)?, 1, "the cancel routine first");
        start_packet::start_next(cx, device, true)?;
        complete(cx, irp, NtStatus::CANCELLED, 0)
    }
    story(|cx| {
        let driver = driver(cx, "queue", &[(IRP_MJ_CREATE, succeed), (IRP_MJ_WRITE, cancelled_on_the_way)])?;
        let start_io = routine(cx, ends_cancelled);
        cx.write(driver + DRIVER_OBJECT::DriverStartIo, start_io)?;
        device(cx, driver, "\\Device\\Queue", DO_BUFFERED_IO)?;
        let handle = file::open(cx, "\\Device\\Queue", &OpenOptions::overlapped())?.unwrap();
        assert_eq!(write(cx, handle, 0)?.wait(cx)?.status, NtStatus::CANCELLED);
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn entries_with_keys_are_kept_in_order_of_their_keys() {
    story(|cx| {
        let block = crate::mm::pool::allocate::<()>(cx, crate::mm::pool::Kind::NonPaged, 0x200, 0)?.address;
        let queue = DriverPtr::new(block);
        let entry = |index: u64| DriverPtr::new(block + 0x40 + 0x20 * index);
        device_queue::initialize(cx, queue)?;
        assert!(!device_queue::insert_by_key(cx, queue, entry(0), 9)?, "the device was idle");
        for (index, key) in [(1, 5), (2, 1), (3, 5), (4, 9)] {
            assert!(device_queue::insert_by_key(cx, queue, entry(index), key)?);
        }
        assert_eq!(device_queue::remove_by_key(cx, queue, 5)?, entry(1));
        assert_eq!(device_queue::remove(cx, queue)?, entry(2));
        assert!(device_queue::remove_entry(cx, queue, entry(4))?);
        assert!(!device_queue::remove_entry(cx, queue, entry(4))?);
        assert_eq!(device_queue::remove_by_key(cx, queue, 100)?, entry(3), "none so great: the first");
        assert!(device_queue::remove(cx, queue)?.is_null());
        assert_eq!(cx.read(queue + KDEVICE_QUEUE::Busy)?, 0);
        Ok(())
    })
    .clean();
}

/// A cancel-safe queue that holds one IRP, kept in the queue's driver's memory behind it.
mod one_place {
    use super::*;

    fn place(given: &[u64]) -> DriverPtr<u64> {
        DriverPtr::new(given[0] + size_of::<IO_CSQ>() as u64)
    }

    pub(super) fn insert(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        cx.write(place(given), given[1])?;
        Ok(0)
    }

    pub(super) fn remove(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        cx.write(place(given), 0)?;
        Ok(0)
    }

    pub(super) fn peek(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        if given[1] == 0 { cx.read(place(given)) } else { Ok(0) }
    }

    /// Begins anew whatever it is asked to go on behind.
    pub(super) fn peek_anew(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        cx.read(place(given))
    }

    pub(super) fn acquire(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let old = ke::irql::raise(cx, 2)?;
        cx.write(DriverPtr::<u8>::new(given[1]), old)?;
        Ok(0)
    }

    pub(super) fn release(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        ke::irql::lower(cx, given[1].to_le_bytes()[0])?;
        Ok(0)
    }

    pub(super) fn cancelled(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        complete(cx, DriverPtr::new(given[1]), NtStatus::CANCELLED, 0)
    }
}

fn cancel_safe(cx: &mut Cx<'_>) -> Flow<(Device, Handle, DriverPtr<IO_CSQ>)> {
    cancel_safe_with(cx, one_place::peek)
}

fn cancel_safe_with(
    cx: &mut Cx<'_>,
    peek: crate::io::routine::RustRoutine,
) -> Flow<(Device, Handle, DriverPtr<IO_CSQ>)> {
    fn insert(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (device, irp) = arguments(given);
        let queue = extension(cx, device, 0)?.cast();
        csq::insert(cx, queue, irp, DriverPtr::NULL)?;
        Ok(NtStatus::PENDING.0.into())
    }
    let driver = driver(cx, "csq", &[(IRP_MJ_CREATE, succeed), (IRP_MJ_READ, insert)])?;
    let device = device(cx, driver, "\\Device\\Csq", DO_BUFFERED_IO)?;
    let queue: DriverPtr<IO_CSQ> = extension(cx, device, 0)?.cast();
    let routines = [
        one_place::insert as crate::io::routine::RustRoutine,
        one_place::remove,
        peek,
        one_place::acquire,
        one_place::release,
        one_place::cancelled,
    ];
    let [a, b, c, d, e, f] = routines.map(|rust| routine(cx, rust));
    assert_eq!(csq::initialize(cx, queue, a, b, c, d, e, f)?, NtStatus::SUCCESS);
    let handle = file::open(cx, "\\Device\\Csq", &OpenOptions::overlapped())?.unwrap();
    Ok((device, handle, queue))
}

fn read(cx: &mut Cx<'_>, handle: Handle) -> Flow<Overlapped> {
    let buffer = Buffer { address: user_bytes(cx, b"x"), length: 1 };
    let overlapped = Overlapped::new(cx)?.unwrap();
    let answer = file::start(cx, handle, Operation::Read(buffer, Some(0)), &overlapped)?;
    assert_eq!(answer.status, NtStatus::PENDING);
    Ok(overlapped)
}

#[test]
fn an_irp_in_a_cancel_safe_queue_is_taken_out_once() {
    story(|cx| {
        let (_, handle, queue) = cancel_safe(cx)?;
        let read = read(cx, handle)?;
        let irp: Irp = csq::remove_next(cx, queue, 0)?;
        assert!(!irp.is_null() && cx.read(irp + IRP::CancelRoutine)?.is_null());
        assert!(csq::remove_next(cx, queue, 0)?.is_null());
        complete(cx, irp, NtStatus::SUCCESS, 1)?;
        assert_eq!(read.wait(cx)?.status, NtStatus::SUCCESS);
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

/// The next IRP is asked for while the only one is being cancelled.
fn asked_while_cancelled(peek: crate::io::routine::RustRoutine) -> Outcome {
    story(move |cx| {
        let (_, handle, queue) = cancel_safe_with(cx, peek)?;
        let read = read(cx, handle)?;
        let irp: Irp = one_place::peek(cx, &[queue.address, 0]).map(DriverPtr::new)?;
        assert!(!cancel::take_routine(cx, irp)?.is_null());
        assert!(csq::remove_next(cx, queue, 0)?.is_null());
        complete(cx, irp, NtStatus::CANCELLED, 0)?;
        assert_eq!(read.wait(cx)?.status, NtStatus::CANCELLED);
        file::close(cx, handle).map(|_| ())
    })
}

#[test]
fn a_peek_routine_that_begins_anew_is_asked_for_ever() {
    let outcome = asked_while_cancelled(one_place::peek_anew);
    assert_eq!(outcome.verdict.as_ref().map(|verdict| verdict.rule), Some("csq-peek-repeated"));
}

/// Not: csq-peek-repeated
#[test]
fn a_peek_routine_that_goes_on_behind_the_irp_finds_no_other() {
    asked_while_cancelled(one_place::peek).clean();
}

#[test]
fn an_irp_in_a_cancel_safe_queue_is_cancelled_through_the_drivers_routines() {
    story(|cx| {
        let (_, handle, queue) = cancel_safe(cx)?;
        let read = read(cx, handle)?;
        assert_eq!(file::cancel_io_ex(cx, handle)?, NtStatus::SUCCESS);
        assert_eq!(read.wait(cx)?.status, NtStatus::CANCELLED);
        assert!(csq::remove_next(cx, queue, 0)?.is_null());
        assert_eq!(file::cancel_io_ex(cx, handle)?, NtStatus::NOT_FOUND);
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn a_request_cancelled_before_it_reaches_a_start_packet_queue_is_not_queued() {
    story(|cx| {
        let (device, handle) = queueing(cx)?;
        let first = write(cx, handle, 10)?;
        let driver = cx.read(device + DEVICE_OBJECT::DriverObject)?;
        let early = routine(cx, |cx, given| {
            cx.write(arguments(given).1 + IRP::Cancel, 1)?;
            queue_it(cx, given)
        });
        cx.write((driver + DRIVER_OBJECT::MajorFunction).element(IRP_MJ_WRITE.into()), early)?;
        let second = write(cx, handle, 11)?;
        assert_eq!(second.wait(cx)?.status, NtStatus::CANCELLED);
        finish_current(cx, device)?;
        assert_eq!(first.wait(cx)?.status, NtStatus::SUCCESS);
        assert!(irp::current(cx, DriverPtr::NULL).is_err(), "a null IRP is a verdict, not a location");
        Ok(())
    });
}
