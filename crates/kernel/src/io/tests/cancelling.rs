//! Cancelled requests, threads that end, remove locks.

use abi::{
    DO_BUFFERED_IO, DriverPtr, FILE_SYNCHRONOUS_IO_ALERT, IO_REMOVE_LOCK_COMMON_BLOCK, IRP, IRP_MJ_CREATE,
    IRP_MJ_READ, NtStatus,
};
use engine::Flow;

use super::rig::*;
use crate::cx::Cx;
use crate::io::file::{self, Buffer, OpenOptions, Operation, Overlapped};
use crate::io::{cancel, irp, remove_lock};
use crate::ke;
use crate::ob::Handle;

fn keep(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    mark_pending(cx, arguments(given).1)?;
    Ok(NtStatus::PENDING.0.into())
}

/// Keeps the request with a cancel routine that completes it.
fn keep_cancelable(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    fn cancelled(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (_, irp) = arguments(given);
        let irql = cx.read(irp + IRP::CancelIrql)?;
        cancel::release(cx, irql)?;
        complete(cx, irp, NtStatus::CANCELLED, 0)
    }
    let (_, irp) = arguments(given);
    let cancelled = routine(cx, cancelled);
    cx.write(irp + IRP::CancelRoutine, cancelled)?;
    keep(cx, given)
}

fn reading(cx: &mut Cx<'_>, dispatch: crate::io::routine::RustRoutine) -> Flow<(Handle, Overlapped)> {
    let driver = driver(cx, "keeper", &[(IRP_MJ_CREATE, succeed), (IRP_MJ_READ, dispatch)])?;
    device(cx, driver, "\\Device\\Keeper", DO_BUFFERED_IO)?;
    let handle = file::open(cx, "\\Device\\Keeper", &OpenOptions::overlapped())?.unwrap();
    let overlapped = Overlapped::new(cx)?.unwrap();
    let buffer = Buffer { address: user_bytes(cx, b"x"), length: 1 };
    let answer = file::start(cx, handle, Operation::Read(buffer, None), &overlapped)?;
    assert_eq!(answer.status, NtStatus::PENDING);
    Ok((handle, overlapped))
}

#[test]
fn a_thread_that_ends_cancels_what_it_asked_for() {
    story(|cx| {
        let (handle, overlapped) = reading(cx, keep_cancelable)?;
        cancel::rundown_thread(cx)?;
        assert_eq!(overlapped.result(cx)?.status, NtStatus::CANCELLED);
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn a_user_apc_ends_the_wait_for_the_request_of_an_alertable_file() {
    story(|cx| {
        let driver = driver(cx, "keeper", &[(IRP_MJ_CREATE, succeed), (IRP_MJ_READ, keep_cancelable)])?;
        device(cx, driver, "\\Device\\Keeper", DO_BUFFERED_IO)?;
        let options = OpenOptions { options: FILE_SYNCHRONOUS_IO_ALERT, ..OpenOptions::default() };
        let handle = file::open(cx, "\\Device\\Keeper", &options)?.unwrap();
        let thread = ke::thread::current_object(cx);
        let alert = move |cx: &mut Cx<'_>| {
            let due = cx.with(|k| ke::time::due(k, -10_000));
            let _ = ke::wait::wait(cx, &[], false, ke::wait::Timeout::At(due), DriverPtr::NULL, "a test")?;
            ke::user_apc::queue(cx, thread)
        };
        ke::thread::spawn(cx, "who alerts", Box::new(alert))?;
        let buffer = Buffer { address: user_bytes(cx, b"x"), length: 1 };
        assert_eq!(file::read(cx, handle, buffer, None)?.status, NtStatus::CANCELLED);
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn a_request_that_cannot_be_cancelled_is_named_when_its_thread_ends() {
    let outcome = story(|cx| {
        reading(cx, keep)?;
        cancel::rundown_thread(cx)
    });
    let verdict = outcome.verdict.as_ref().unwrap();
    assert_eq!(verdict.rule, "irp-never-completed");
    assert!(verdict.message.contains("IRP_MJ_READ"), "{}", verdict.message);
    assert!(verdict.message.contains("\\Device\\Keeper (keeper)"), "{}", verdict.message);
}

#[test]
fn a_cancel_routine_that_keeps_the_lock_is_stopped_with_11b() {
    fn keeps_lock(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (_, irp) = arguments(given);
        let routine = routine(cx, |_, _| Ok(0));
        cx.write(irp + IRP::CancelRoutine, routine)?;
        keep(cx, given)
    }
    let outcome = story(|cx| {
        let (handle, _) = reading(cx, keeps_lock)?;
        file::cancel_io(cx, handle).map(|_| ())
    });
    let (rule, code, _) = outcome.verdict();
    assert_eq!((rule, code), ("cancel-lock-held", 0x11B));
}

#[test]
fn completing_with_a_cancel_routine_set_stops_windows_and_sending_driver_verifier() {
    fn completes(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (_, irp) = arguments(given);
        let routine = routine(cx, |_, _| Ok(0));
        cx.write(irp + IRP::CancelRoutine, routine)?;
        complete(cx, irp, NtStatus::SUCCESS, 0)
    }
    fn sends(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (device, irp) = arguments(given);
        let routine = routine(cx, |_, _| Ok(0));
        cx.write(irp + IRP::CancelRoutine, routine)?;
        Ok(irp::call_driver(cx, device, irp)?.0.into())
    }
    let outcome = story(move |cx| reading(cx, completes).map(|_| ()));
    let (rule, code, _) = outcome.verdict();
    assert_eq!((rule, code), ("cancel-routine-set", 0x48));
    let outcome = story(move |cx| reading(cx, sends).map(|_| ()));
    let finding = outcome.findings.iter().find(|finding| finding.rule == "cancel-routine-set").unwrap();
    assert_eq!(
        (finding.tier, finding.bug_check.unwrap().parameters[0]),
        (crate::verdict::Tier::Verifier, 0x203)
    );
}

#[test]
fn closing_a_handle_leaves_its_pended_request_with_the_driver_and_the_file_with_the_request() {
    story(|cx| {
        let (handle, overlapped) = reading(cx, keep_cancelable)?;
        let _ = file::close(cx, handle)?;
        assert_eq!(cx.with(|k| k.io.files.len()), 1, "IRP_MJ_CLOSE waits for the request");
        cancel::rundown_thread(cx)?;
        assert_eq!(overlapped.result(cx)?.status, NtStatus::CANCELLED);
        assert_eq!(cx.with(|k| k.io.files.len()), 0);
        Ok(())
    })
    .clean();
}

type Lock = DriverPtr<IO_REMOVE_LOCK_COMMON_BLOCK>;

fn remove_lock(cx: &mut Cx<'_>) -> Flow<Lock> {
    let lock = crate::mm::pool::allocate(cx, crate::mm::pool::Kind::NonPaged, 0x20, 0)?;
    remove_lock::initialize(cx, lock, 0, 0, 0, 0x20)?;
    Ok(lock)
}

#[test]
fn release_and_wait_returns_when_the_last_holder_has_left() {
    story(|cx| {
        let lock = remove_lock(cx)?;
        assert_eq!(remove_lock::acquire(cx, lock, 1, 0, 0, 0x20)?, NtStatus::SUCCESS);
        assert_eq!(remove_lock::acquire(cx, lock, 2, 0, 0, 0x20)?, NtStatus::SUCCESS);
        let holder = move |cx: &mut Cx<'_>| {
            let due = cx.with(|k| ke::time::due(k, -10_000));
            let _ = ke::wait::wait(cx, &[], false, ke::wait::Timeout::At(due), DriverPtr::NULL, "a test")?;
            assert_eq!(remove_lock::acquire(cx, lock, 3, 0, 0, 0x20)?, NtStatus::DELETE_PENDING);
            remove_lock::release(cx, lock, 1, 0x20)
        };
        ke::thread::spawn(cx, "holder", Box::new(holder))?;
        let before = cx.engine().now();
        remove_lock::release_and_wait(cx, lock, 2, 0x20)?;
        assert!(cx.engine().now() - before >= 1_000_000);
        Ok(())
    })
    .clean();
}

#[test]
fn releasing_with_a_tag_that_was_not_acquired_is_told() {
    let outcome = story(|cx| {
        let lock = remove_lock(cx)?;
        let _ = remove_lock::acquire(cx, lock, 1, 0, 0, 0x20)?;
        remove_lock::release(cx, lock, 2, 0x20)
    });
    assert_eq!(outcome.verdict(), ("remove-lock-tag", 0xC4, 0xD5));
    let outcome = story(|cx| {
        let lock = remove_lock(cx)?;
        remove_lock::release_and_wait(cx, lock, 1, 0x20)
    });
    assert_eq!(outcome.verdict(), ("remove-lock-tag", 0xC4, 0xD6));
}
