//! Requests that pass through several drivers.

use abi::{
    DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_MJ_CREATE, IRP_MJ_READ, KEVENT,
    NtStatus, SL_PENDING_RETURNED,
};
use engine::Flow;

use super::rig::*;
use crate::cx::Cx;
use crate::io::file::{self, OpenOptions};
use crate::io::{allocate, build, device as devices, irp, stack};
use crate::ke;

/// Below `device`, as `IoAttachDeviceToDeviceStack` returned it; kept in the extension.
fn lower(cx: &mut Cx<'_>, device: Device) -> Flow<Device> {
    let at = extension(cx, device, 0)?;
    Ok(DriverPtr::new(cx.read(at)?))
}

/// A device on top of another, each of its own driver.
fn two(
    cx: &mut Cx<'_>,
    upper: crate::io::routine::RustRoutine,
    below: crate::io::routine::RustRoutine,
) -> Flow<(Device, Device)> {
    let bottom = driver(cx, "bottom", &[(IRP_MJ_CREATE, below)])?;
    let bottom = device(cx, bottom, "\\Device\\Stack", 0)?;
    let top = driver(cx, "top", &[(IRP_MJ_CREATE, upper)])?;
    let top = device(cx, top, "", 0)?;
    let attached = stack::attach_to_stack(cx, top, bottom)?;
    let at = extension(cx, top, 0)?;
    cx.write(at, attached.address)?;
    Ok((top, bottom))
}

fn pass_on(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (device, irp) = arguments(given);
    skip(cx, irp)?;
    let lower = lower(cx, device)?;
    Ok(irp::call_driver(cx, lower, irp)?.0.into())
}

/// Completes from another thread.
fn pend(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (_, irp) = arguments(given);
    mark_pending(cx, irp)?;
    let work = Box::new(move |cx: &mut Cx<'_>| complete(cx, irp, NtStatus::SUCCESS, 0).map(|_| ()));
    ke::thread::spawn(cx, "completes later", work)?;
    Ok(NtStatus::PENDING.0.into())
}

#[test]
fn a_skipped_location_is_the_lower_drivers() {
    for below in [succeed as crate::io::routine::RustRoutine, pend] {
        story(move |cx| {
            let (top, bottom) = two(cx, pass_on, below)?;
            assert_eq!(cx.read(top + DEVICE_OBJECT::StackSize)?, 2);
            assert_eq!(stack::attached(cx, bottom)?, top);
            let handle = file::open(cx, "\\Device\\Stack", &OpenOptions::default())?.unwrap();
            file::close(cx, handle).map(|_| ())
        })
        .clean();
    }
}

/// The classic: forward, wait, go on.
fn forward_and_wait(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    fn wake(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        ke::event::set(cx, DriverPtr::new(given[2]), 0, false)?;
        Ok(NtStatus::MORE_PROCESSING_REQUIRED.0.into())
    }
    let (device, irp) = arguments(given);
    let event: DriverPtr<KEVENT> = extension(cx, device, 4)?.cast();
    ke::event::initialize(cx, event, 0, false)?;
    let wake = routine(cx, wake);
    copy_to_next(cx, irp, wake, event.address)?;
    let lower = lower(cx, device)?;
    if irp::call_driver(cx, lower, irp)? == NtStatus::PENDING {
        let _ = ke::wait::for_object(cx, event)?;
    }
    assert_eq!(cx.read((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Status)?, NtStatus::SUCCESS);
    complete(cx, irp, NtStatus::SUCCESS, 0)
}

#[test]
fn a_driver_may_forward_wait_and_complete() {
    for below in [succeed as crate::io::routine::RustRoutine, pend] {
        story(move |cx| {
            two(cx, forward_and_wait, below)?;
            let handle = file::open(cx, "\\Device\\Stack", &OpenOptions::default())?.unwrap();
            file::close(cx, handle).map(|_| ())
        })
        .clean();
    }
}

/// Copies the location, sets `completion`, returns what the driver below returns.
fn forward_with(cx: &mut Cx<'_>, given: &[u64], completion: crate::io::routine::RustRoutine) -> Flow<u64> {
    let (device, irp) = arguments(given);
    let completion = routine(cx, completion);
    copy_to_next(cx, irp, completion, 0)?;
    let lower = lower(cx, device)?;
    Ok(irp::call_driver(cx, lower, irp)?.0.into())
}

#[test]
fn a_completion_routine_passes_the_pending_mark_on() {
    fn good(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (device, irp) = arguments(given);
        let location = location(cx, irp)?;
        assert_eq!(
            cx.read(location + IO_STACK_LOCATION::DeviceObject)?,
            device,
            "our own location is current"
        );
        if cx.read(irp + IRP::PendingReturned)? != 0 {
            mark_pending(cx, irp)?;
        }
        Ok(0)
    }
    fn bad(_: &mut Cx<'_>, _: &[u64]) -> Flow<u64> {
        Ok(0)
    }
    story(|cx| {
        two(cx, |cx, given| forward_with(cx, given, good), pend)?;
        let handle = file::open(cx, "\\Device\\Stack", &OpenOptions::default())?.unwrap();
        file::close(cx, handle).map(|_| ())
    })
    .clean();
    let outcome = story(|cx| {
        two(cx, |cx, given| forward_with(cx, given, bad), pend)?;
        file::open(cx, "\\Device\\Stack", &OpenOptions::default()).map(|_| ())
    });
    assert_eq!(outcome.verdict(), ("pending-not-marked", 0xC9, 0x228));
    assert!(outcome.message().contains("its completion routine passes the mark on"), "{}", outcome.message());
}

#[test]
fn who_skips_its_location_and_returns_pending_is_accused_of_no_completion_routine() {
    let outcome = story(|cx| {
        let upper = |cx: &mut Cx<'_>, given: &[u64]| {
            let (device, irp) = arguments(given);
            skip(cx, irp)?;
            let lower = lower(cx, device)?;
            let _ = irp::call_driver(cx, lower, irp)?;
            Ok(NtStatus::PENDING.0.into())
        };
        let lower = |cx: &mut Cx<'_>, given: &[u64]| complete(cx, arguments(given).1, NtStatus::SUCCESS, 0);
        two(cx, upper, lower)?;
        file::open(cx, "\\Device\\Stack", &OpenOptions::default()).map(|_| ())
    });
    assert_eq!(outcome.verdict(), ("pending-not-marked", 0xC9, 0x23D));
    let said = outcome.message();
    assert!(
        said.contains("(IoSkipCurrentIrpStackLocation)") && !said.contains("completion routine"),
        "{said}"
    );
}

#[test]
fn without_a_completion_routine_the_mark_goes_up_by_itself() {
    story(|cx| {
        let upper = |cx: &mut Cx<'_>, given: &[u64]| {
            let (device, irp) = arguments(given);
            copy_to_next(cx, irp, DriverPtr::NULL, 0)?;
            let lower = lower(cx, device)?;
            Ok(irp::call_driver(cx, lower, irp)?.0.into())
        };
        two(cx, upper, pend)?;
        let handle = file::open(cx, "\\Device\\Stack", &OpenOptions::default())?.unwrap();
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn an_irp_without_a_location_left_is_stopped_with_35() {
    let outcome = story(|cx| {
        let forwards = |cx: &mut Cx<'_>, given: &[u64]| {
            let (device, irp) = arguments(given);
            Ok(irp::call_driver(cx, device, irp)?.0.into())
        };
        let driver = driver(cx, "loop", &[(IRP_MJ_CREATE, forwards)])?;
        device(cx, driver, "\\Device\\Loop", 0)?;
        file::open(cx, "\\Device\\Loop", &OpenOptions::default()).map(|_| ())
    });
    let (rule, code, _) = outcome.verdict();
    assert_eq!((rule, code), ("no-stack-location", 0x35));
}

#[test]
fn a_driver_allocates_sends_takes_back_and_frees_an_irp() {
    fn take_back(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        assert_eq!(given[0], 0, "the sender has no location of its own, so no device");
        allocate::free(cx, DriverPtr::new(given[1]))?;
        Ok(NtStatus::MORE_PROCESSING_REQUIRED.0.into())
    }
    story(|cx| {
        let driver = driver(cx, "reader", &[(IRP_MJ_READ, succeed)])?;
        let device = device(cx, driver, "", 0)?;
        let irp = allocate::allocate(cx, 1, false)?;
        let next = irp::next(cx, irp)?;
        cx.write(next + IO_STACK_LOCATION::MajorFunction, IRP_MJ_READ)?;
        let completion = routine(cx, take_back);
        cx.write(next + IO_STACK_LOCATION::CompletionRoutine, completion)?;
        cx.write(next + IO_STACK_LOCATION::Control, 0xE0)?;
        assert_eq!(irp::call_driver(cx, device, irp)?, NtStatus::SUCCESS);
        assert!(cx.with(|k| k.io.irps.live.is_empty()));
        Ok(())
    })
    .clean();
}

#[test]
fn an_allocated_irp_that_nobody_takes_back_is_a_verdict() {
    let outcome = story(|cx| {
        let driver = driver(cx, "reader", &[(IRP_MJ_READ, succeed)])?;
        let device = device(cx, driver, "", 0)?;
        let irp = allocate::allocate(cx, 1, false)?;
        let next = irp::next(cx, irp)?;
        cx.write(next + IO_STACK_LOCATION::MajorFunction, IRP_MJ_READ)?;
        irp::call_driver(cx, device, irp).map(|_| ())
    });
    assert_eq!(outcome.verdict(), ("allocated-irp-completed", 0xA, 0));
}

#[test]
fn freeing_an_irp_twice_or_while_a_driver_has_it_is_told() {
    let outcome = story(|cx| {
        let irp = allocate::allocate(cx, 1, false)?;
        allocate::free(cx, irp)?;
        allocate::free(cx, irp)
    });
    assert_eq!(outcome.verdict(), ("not-an-irp", 0xC9, 1));
    let outcome = story(|cx| {
        let keeps = |cx: &mut Cx<'_>, given: &[u64]| {
            mark_pending(cx, arguments(given).1)?;
            Ok(NtStatus::PENDING.0.into())
        };
        let driver = driver(cx, "keeper", &[(IRP_MJ_READ, keeps)])?;
        let device = device(cx, driver, "", 0)?;
        let irp = allocate::allocate(cx, 1, false)?;
        let next = irp::next(cx, irp)?;
        cx.write(next + IO_STACK_LOCATION::MajorFunction, IRP_MJ_READ)?;
        let _ = irp::call_driver(cx, device, irp)?;
        allocate::free(cx, irp)
    });
    assert_eq!(outcome.verdict(), ("irp-in-use", 0xC9, 0x20A));
}

#[test]
fn the_last_associated_irp_completes_the_master() {
    fn split(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (device, master) = arguments(given);
        mark_pending(cx, master)?;
        cx.write((master + IRP::IoStatus) + IO_STATUS_BLOCK::Status, NtStatus::SUCCESS)?;
        cx.write(master + IRP::AssociatedIrp_IrpCount, 2)?;
        let lower = lower(cx, device)?;
        for _ in 0..2 {
            let part = build::associated(cx, master, 1)?;
            let next = irp::next(cx, part)?;
            cx.write(next + IO_STACK_LOCATION::MajorFunction, IRP_MJ_CREATE)?;
            let _ = irp::call_driver(cx, lower, part)?;
        }
        Ok(NtStatus::PENDING.0.into())
    }
    for below in [succeed as crate::io::routine::RustRoutine, pend] {
        story(move |cx| {
            two(cx, split, below)?;
            let handle = file::open(cx, "\\Device\\Stack", &OpenOptions::default())?.unwrap();
            file::close(cx, handle).map(|_| ())
        })
        .clean();
    }
}

#[test]
fn detaching_and_deleting_in_the_wrong_order_is_told() {
    let outcome = story(|cx| {
        let (top, _) = two(cx, pass_on, succeed)?;
        devices::delete(cx, top)
    });
    assert_eq!(outcome.verdict(), ("device-not-detached", 0xC9, 0x201));
    let outcome = story(|cx| {
        let (_, bottom) = two(cx, pass_on, succeed)?;
        stack::detach(cx, bottom)?;
        stack::detach(cx, bottom)
    });
    assert_eq!(outcome.verdict(), ("device-not-attached", 0xC9, 0x202));
}

#[test]
fn a_stack_that_would_lie_on_itself_is_told_where_it_is_made() {
    let alone = story(|cx| {
        let driver = driver(cx, "alone", &[])?;
        let device = device(cx, driver, "", 0)?;
        stack::attach_to_stack(cx, device, device).map(|_| ())
    });
    assert_eq!(alone.verdict().0, "list-cycle");
    let bottom_on_top = story(|cx| {
        let (top, bottom) = two(cx, pass_on, succeed)?;
        stack::attach_to_stack(cx, bottom, top).map(|_| ())
    });
    assert_eq!(bottom_on_top.verdict().0, "list-cycle");
}

#[test]
fn a_device_being_initialised_cannot_be_attached_to() {
    story(|cx| {
        let driver = driver(cx, "fresh", &[])?;
        let fresh = device(cx, driver, "", abi::DO_DEVICE_INITIALIZING)?;
        let top = device(cx, driver, "", 0)?;
        assert!(stack::attach_to_stack(cx, top, fresh)?.is_null());
        Ok(())
    })
    .clean();
}

#[test]
fn forwarding_by_the_kernels_own_routine_waits_and_gives_the_irp_back() {
    fn forward(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (device, irp) = arguments(given);
        let lower = lower(cx, device)?;
        assert!(crate::io::query::forward_synchronously(cx, lower, irp)?);
        let location = location(cx, irp)?;
        assert_eq!(cx.read(location + IO_STACK_LOCATION::Control)? & SL_PENDING_RETURNED, 0);
        complete(cx, irp, NtStatus::SUCCESS, 0)
    }
    story(|cx| {
        two(cx, forward, pend)?;
        let handle = file::open(cx, "\\Device\\Stack", &OpenOptions::default())?.unwrap();
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}
