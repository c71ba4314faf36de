//! Cancelling IRPs, and the system's cancel spin lock.
//!
//! Pages: *IoCancelIrp function*, *IoAcquireCancelSpinLock function*, *Canceling IRPs*. `IoSetCancelRoutine` is inlined:
//! the routine is read from the IRP.

use abi::{DriverPtr, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, KEVENT, KTHREAD, NtStatus};
use engine::Flow;

use super::allocate::not_an_irp;
use super::cancel_routine;
use super::found::{self, Place};
use super::irp::{self, Origin};
use super::pending;
use super::routine;
use super::start_packet;
use super::violation::{self, request_name};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind, Role};
use crate::ke;
use crate::ke::user_apc::WaitMode;
use crate::mm::pool;
use crate::ob;
use crate::pnp;
use crate::verdict::Verdict;

/// The cancel spin lock.
#[derive(Default)]
pub(crate) struct State {
    lock: u64,
}

fn lock(cx: &mut Cx<'_>) -> Flow<DriverPtr<u64>> {
    let known = cx.with(|k| k.io.cancel.lock);
    if known != 0 {
        return Ok(DriverPtr::new(known));
    }
    let lock: DriverPtr<u64> = pool::allocate(cx, pool::Kind::NonPaged, 8, pool::tag(b"IoCn"))?;
    cx.with(|k| k.io.cancel.lock = lock.address);
    Ok(lock)
}

/// Whether a spin lock is this one.
pub(crate) fn is_lock(k: &Kernel, address: u64) -> bool {
    k.io.cancel.lock == address
}

/// `IoAcquireCancelSpinLock`, with the previous IRQL as result.
///
/// # Errors
/// As acquiring a spin lock.
pub fn acquire(cx: &mut Cx<'_>) -> Flow<u8> {
    let lock = lock(cx)?;
    ke::spinlock::acquire_raise(cx, lock)
}

/// `IoAcquireCancelSpinLock`.
///
/// # Errors
/// As acquiring a spin lock; a verdict if `irql` cannot be written.
pub fn acquire_into(cx: &mut Cx<'_>, irql: DriverPtr<u8>) -> Flow<()> {
    let old = acquire(cx)?;
    cx.write(irql, old)
}

/// `IoReleaseCancelSpinLock`.
///
/// # Errors
/// As releasing a spin lock.
pub fn release(cx: &mut Cx<'_>, irql: u8) -> Flow<()> {
    let lock = lock(cx)?;
    ke::spinlock::release_lower(cx, lock, irql)
}

/// `IoSetCancelRoutine(irp, NULL)` for the kernel's own use: the routine that was set.
pub(crate) fn take_routine(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<DriverPtr<abi::Code>> {
    let routine = cx.read(irp + IRP::CancelRoutine)?;
    if !routine.is_null() {
        cancel_routine::set(cx, irp, DriverPtr::NULL)?;
    }
    Ok(routine)
}

/// `IoCancelIrp`: sets `Cancel` and calls the cancel routine, if one is set. Whether one was.
///
/// # Errors
/// A verdict on the driver, e.g. if its routine keeps the cancel spin lock.
pub fn cancel(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<bool> {
    if !cx.with(|k| k.io.irps.live.contains(irp.address)) {
        return Err(not_an_irp(cx, irp, 0x1, "IoCancelIrp"));
    }
    let old = acquire(cx)?;
    cancel_locked(cx, irp, old)
}

/// Cancels an IRP of a requester's, if it is still the one that is meant when the cancel spin lock is held: until then it may have ended.
fn cancel_if(cx: &mut Cx<'_>, irp: u64, is_meant: &dyn Fn(&Kernel, u64) -> bool) -> Flow<()> {
    if !cx.with(|k| is_meant(k, irp)) {
        return Ok(());
    }
    let old = acquire(cx)?;
    if !cx.with(|k| is_meant(k, irp)) {
        return release(cx, old);
    }
    cancel_locked(cx, DriverPtr::new(irp), old).map(|_| ())
}

/// With the cancel spin lock held, which is released to `old`.
fn cancel_locked(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, old: u8) -> Flow<bool> {
    let was_cancelled = cx.read(irp + IRP::Cancel)? != 0;
    cx.write(irp + IRP::Cancel, 1)?;
    let routine = cx.read(irp + IRP::CancelRoutine)?;
    judge_missed(cx, irp, was_cancelled && !routine.is_null());
    pnp::remove_check::cancelled(cx, irp.address);
    cx.detail(Kind::IrpCancelled, || Event::IrpCancelled { irp: irp.address, routine: routine.address });
    found::tell(cx, irp, Place::Cancelled);
    if routine.is_null() {
        release(cx, old)?;
        return Ok(false);
    }
    cancel_routine::set(cx, irp, DriverPtr::NULL)?;
    call_routine(cx, irp, routine, old)?;
    Ok(true)
}

/// A request that is cancelled: if it was before, and its cancel routine was set after that (`is_late`), no driver code has looked since whether it was.
fn judge_missed(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, is_late: bool) {
    let missed = cx.with(|k| {
        let now = k.engine.now();
        let record = k.io.irps.live.get_mut(irp.address)?;
        let first = record.cancelled;
        if first == 0 {
            record.cancelled = now;
        }
        // Code that has set the routine may be about to look.
        let is_long_ago = first != 0 && now - first >= LOOKS_WITHIN;
        (is_late && is_long_ago && !ke::scheduler::drivers_run(k)).then_some(now - first)
    });
    let Some(ago) = missed else { return };
    let (_, name) = violation::holder(cx, irp);
    let message = format!(
        "the IRP {:#x} of {name} was cancelled {} us ago, its cancel routine was set after that, and the IRP is pending still: the driver has not looked \
         at Irp->Cancel behind IoSetCancelRoutine",
        irp.address,
        ago / 1000
    );
    let verdict = pending::of_irp(cx, irp.address, Verdict::warning("cancellation-missed", message));
    cx.report(verdict);
}

/// So long after a cancellation a driver that looks for it has looked, unless its code runs still: 5 ms.
const LOOKS_WITHIN: u64 = 5_000_000;

/// Calls a cancel routine with the cancel spin lock held; it releases it to `irql`.
pub(crate) fn call_routine(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    cancel: DriverPtr<abi::Code>,
    irql: u8,
) -> Flow<()> {
    let location = irp::current(cx, irp)?;
    if location.is_null() {
        let message = format!(
            "the IRP {:#x} was cancelled when no driver had it, and the cancel routine {:#x} was set",
            irp.address, cancel.address
        );
        let verdict = Verdict::error("cancel-after-completion", message)
            .bug_check(0x48, [irp.address, cancel.address, 0, 0]);
        let verdict = pending::of_irp(cx, irp.address, verdict);
        return Err(cx.stop(verdict));
    }
    let device = cx.read(location + IO_STACK_LOCATION::DeviceObject)?;
    cx.write(irp + IRP::CancelIrql, irql)?;
    let arguments = [device.address, irp.address];
    routine::call_changing(cx, Role::Cancel, cancel, irp.address, &arguments, None)?;
    let lock = lock(cx)?;
    if ke::spinlock::is_held_here(cx, lock) {
        let message =
            format!("the cancel routine {:#x} returned with the cancel spin lock held", cancel.address);
        let verdict =
            Verdict::error("cancel-lock-held", message).bug_check(0x11B, [irp.address, cancel.address, 0, 0]);
        return Err(cx.stop(verdict));
    }
    routine::expect_level(cx, Role::Cancel, cancel, irql)
}

/// How long the end of a thread waits for its cancelled requests: 5 minutes, in 100 ns.
const PATIENCE: i64 = 5 * 60 * 10_000_000;
/// How often it looks: 100 ms, in 100 ns.
const PAUSE: i64 = 1_000_000;

/// Cancels everything the running thread has asked for, and waits until it is complete: what the end of a thread does.
///
/// # Errors
/// A verdict that names the request, if one does not complete.
pub fn rundown_thread(cx: &mut Cx<'_>) -> Flow<()> {
    let thread = ke::thread::current_object(cx).address;
    rundown(cx, &|record| record.thread == thread)
}

/// Cancels every request on an open file, of all threads, and waits until it is complete: what the end of the
/// process does, before it closes its handles.
///
/// # Errors
/// As [`rundown_thread`].
pub fn rundown_file(cx: &mut Cx<'_>, handle: ob::Handle) -> Flow<()> {
    match ob::handle::entry(cx, handle, ob::handle::Mode::User) {
        Ok(entry) => rundown(cx, &|record| is_of_file(record, entry.object)),
        Err(_) => Ok(()),
    }
}

fn rundown(cx: &mut Cx<'_>, is_one: &dyn Fn(&irp::Record) -> bool) -> Flow<()> {
    let left = |k: &Kernel| k.io.irps.live.keys_where(is_one);
    for irp in cx.with(|k| left(k)) {
        // An earlier one's completion may have completed this one.
        cancel_if(cx, irp, &|k, irp| k.io.irps.live.get(irp).is_some_and(is_one))?;
    }
    let mut patience = PATIENCE;
    loop {
        let Some(irp) = cx.with(|k| left(k).first().copied()) else {
            return Ok(());
        };
        if patience <= 0 {
            return Err(never_completes(cx, DriverPtr::new(irp)));
        }
        // The system waits so long by itself, and then reports it.
        ke::patience::renew(cx);
        let until = ke::wait::Timeout::At(cx.with(|k| ke::time::due(k, -PAUSE)));
        let _ = ke::wait::wait(cx, &[], false, until, DriverPtr::NULL, "the end of a thread")?;
        patience -= PAUSE;
    }
}

/// Whether it is an application's request on a file.
fn is_of_file(record: &irp::Record, file: u64) -> bool {
    record.issue.as_ref().is_some_and(|issue| issue.file == file)
}

/// What `CancelSynchronousIo` does: cancels what another thread waits for.
///
/// # Errors
/// A verdict on the driver.
pub fn cancel_thread(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<NtStatus> {
    let irps = cx.with(|k| k.io.irps.of_thread(thread.address));
    let is_meant =
        |k: &Kernel, irp: u64| k.io.irps.live.get(irp).is_some_and(|record| record.thread == thread.address);
    cancel_all(cx, &irps, &is_meant)
}

/// What `CancelIoEx` does with an `OVERLAPPED`: cancels the request that tells its end in this status block.
///
/// # Errors
/// A verdict on the driver.
pub fn cancel_request(cx: &mut Cx<'_>, status_block: DriverPtr<IO_STATUS_BLOCK>) -> Flow<NtStatus> {
    let irps = ending_in(cx, status_block)?;
    let is_meant = |k: &Kernel, irp: u64| {
        let block = k.engine.read(DriverPtr::<IRP>::new(irp) + IRP::UserIosb);
        k.io.irps.live.contains(irp) && block.is_ok_and(|block| block == status_block)
    };
    cancel_all(cx, &irps, &is_meant)
}

/// The IRPs whose end will be written to `status_block`.
pub(super) fn ending_in(cx: &mut Cx<'_>, status_block: DriverPtr<IO_STATUS_BLOCK>) -> Flow<Vec<u64>> {
    // What a driver has made an IRP of may have been freed since.
    let live = cx.with(|k| k.io.irps.live.keys_where(|record| record.origin != Origin::DriverMemory));
    let mut irps = Vec::new();
    for irp in live {
        if cx.read(DriverPtr::<IRP>::new(irp) + IRP::UserIosb)? == status_block {
            irps.push(irp);
        }
    }
    Ok(irps)
}

/// The wait of this mode for the end of a request that sets `event`. What interrupts it (the end of the thread; a user APC, where it
/// is alertable) has the request cancelled, and its end is waited for.
///
/// # Errors
/// A verdict if the machine ends meanwhile.
pub(super) fn wait_for_end(
    cx: &mut Cx<'_>,
    event: DriverPtr<KEVENT>,
    mode: WaitMode,
    cancel: impl FnOnce(&mut Cx<'_>) -> Flow<NtStatus>,
) -> Flow<NtStatus> {
    match ke::wait::for_request(cx, event, mode)? {
        NtStatus::USER_APC => {
            let _ = cancel(cx)?;
            ke::wait::for_object(cx, event)
        }
        status => Ok(status),
    }
}

fn cancel_all(cx: &mut Cx<'_>, irps: &[u64], is_meant: &dyn Fn(&Kernel, u64) -> bool) -> Flow<NtStatus> {
    for irp in irps {
        cancel_if(cx, *irp, is_meant)?;
    }
    Ok(if irps.is_empty() { NtStatus::NOT_FOUND } else { NtStatus::SUCCESS })
}

fn never_completes(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> engine::Leave {
    let verdict = not_completed(cx, irp);
    let awaited = cx.with(|k| ke::who_waits::awaited(k));
    cx.stop(verdict.acquired(awaited))
}

/// Where nothing can run any more: the application's request that was cancelled and that a driver has not completed, if there is one, and no thread waits in
/// a driver, which would be the reason.
pub(crate) fn left_cancelled(cx: &mut Cx<'_>) -> Option<Verdict> {
    let irp = cx.with(|k| {
        let in_a_driver = k.ke.sched.threads().iter().any(|thread| !thread.callouts.is_empty());
        let cancelled = |irp: &u64| {
            k.engine.read(DriverPtr::<IRP>::new(*irp) + IRP::Cancel).is_ok_and(|cancelled| cancelled != 0)
        };
        let live = k.io.irps.live.keys_where(|record| record.issue.is_some());
        live.into_iter().find(cancelled).filter(|_| !in_a_driver)
    })?;
    Some(not_completed(cx, DriverPtr::new(irp)))
}

fn not_completed(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Verdict {
    let (device, name) = violation::holder(cx, irp);
    let request = match irp::current(cx, irp) {
        Ok(location) if !location.is_null() => {
            let major = cx.read(location + IO_STACK_LOCATION::MajorFunction).unwrap_or(u8::MAX);
            request_name(major, 0)
        }
        _ => "request".to_owned(),
    };
    if start_packet::waits_for_nothing(cx, irp, device) {
        let message = format!(
            "the {request} IRP {:#x} waits in the queue of {name}, whose StartIo has completed the packet before it without IoStartNextPacket: it is never started",
            irp.address
        );
        return pending::of_irp(cx, irp.address, Verdict::error("next-packet-not-started", message));
    }
    // One that waits in a driver may be the reason.
    let waiting = ke::who_waits::threads(cx, |thread| !thread.callouts.is_empty());
    let why = waiting.iter().fold(String::new(), |why, line| format!("{why}; {line}"));
    let message = format!(
        "the {request} IRP {:#x} of {name} was cancelled, as when the thread that sent it ends, and is not completed{why}",
        irp.address
    );
    pending::of_irp(cx, irp.address, Verdict::error("irp-never-completed", message))
}

/// Cancels the requests for `file` of the running thread (or of all, if `every`); how it ended.
///
/// # Errors
/// A verdict on the driver.
pub(crate) fn cancel_file(cx: &mut Cx<'_>, file: u64, every: bool) -> Flow<NtStatus> {
    let thread = ke::thread::current_object(cx).address;
    let is_one = |record: &irp::Record| is_of_file(record, file) && (every || record.thread == thread);
    let irps: Vec<u64> = cx.with(|k| k.io.irps.live.keys_where(is_one));
    let found = !irps.is_empty();
    for irp in irps {
        cancel_if(cx, irp, &|k, irp| k.io.irps.live.get(irp).is_some_and(is_one))?;
    }
    Ok(if found || !every { NtStatus::SUCCESS } else { NtStatus::NOT_FOUND })
}
