//! Hard errors: whether a thread has them shown, and which device one was about.
//!
//! Pages: *IoSetThreadHardErrorMode function*, *IoSetHardErrorOrVerifyDevice function*; the `Ps` routines have none and do the same for any
//! thread. No error is shown here: what is remembered is what drivers ask for, and a request that is to wait for an answer is complete at once
//! (*IoRaiseHardError function*, *IoRaiseInformationalHardError function*).

use abi::{DEVICE_OBJECT, DriverPtr, IRP, KTHREAD, NtStatus};
use engine::Flow;

use crate::cx::Cx;
use crate::ke;
use crate::ke::thread::Thread;

/// What `of` makes of the thread whose object this is, if it runs.
fn with_thread<R: Default>(
    cx: &mut Cx<'_>,
    thread: DriverPtr<KTHREAD>,
    of: impl FnOnce(&mut Thread) -> R,
) -> R {
    cx.with(|k| {
        let strand = k.ke.thread_of(thread.address).map(|thread| thread.strand);
        strand.and_then(|strand| k.ke.sched.threads_mut().get_mut(strand)).map(of).unwrap_or_default()
    })
}

/// `IoSetThreadHardErrorMode`: of the current thread; what it was before.
///
/// # Errors
/// None.
pub(crate) fn set_mode(cx: &mut Cx<'_>, enabled: bool) -> Flow<bool> {
    let thread = ke::thread::current_object(cx);
    Ok(!with_thread(cx, thread, |thread| std::mem::replace(&mut thread.hard_errors_disabled, !enabled)))
}

/// `PsGetThreadHardErrorsAreDisabled`.
///
/// # Errors
/// None.
pub(crate) fn are_disabled(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<bool> {
    Ok(with_thread(cx, thread, |thread| thread.hard_errors_disabled))
}

/// `PsSetThreadHardErrorsAreDisabled`.
///
/// # Errors
/// None.
pub(crate) fn set_disabled(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>, disabled: bool) -> Flow<()> {
    with_thread(cx, thread, |thread| thread.hard_errors_disabled = disabled);
    Ok(())
}

/// `IoSetHardErrorOrVerifyDevice`: the device that the IRP's hard error is about, for the thread that made it.
///
/// # Errors
/// A verdict if the IRP is bad.
pub(crate) fn set_device_of_irp(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    device: DriverPtr<DEVICE_OBJECT>,
) -> Flow<()> {
    let thread: DriverPtr<KTHREAD> = cx.read(irp + IRP::Tail_Overlay_Thread)?;
    set_device(cx, thread, device)
}

/// `IoSetDeviceToVerify`.
///
/// # Errors
/// None.
pub(crate) fn set_device(
    cx: &mut Cx<'_>,
    thread: DriverPtr<KTHREAD>,
    device: DriverPtr<DEVICE_OBJECT>,
) -> Flow<()> {
    with_thread(cx, thread, |thread| thread.device_to_verify = device.address);
    Ok(())
}

/// `IoGetDeviceToVerify`: null if there is none.
///
/// # Errors
/// None.
pub(crate) fn device(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<u64> {
    Ok(with_thread(cx, thread, |thread| thread.device_to_verify))
}

/// `IoRaiseHardError`: the request is complete, as where the user has said that it is not to be tried again.
///
/// # Errors
/// As completing it.
pub(crate) fn raise(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    _volume: u64,
    _device: DriverPtr<DEVICE_OBJECT>,
) -> Flow<()> {
    super::irp::complete(cx, irp, 0)
}

/// `IoRaiseInformationalHardError`: whether the thread, or the current one, has such errors shown.
///
/// # Errors
/// None.
pub(crate) fn inform(
    cx: &mut Cx<'_>,
    _status: NtStatus,
    _text: u64,
    thread: DriverPtr<KTHREAD>,
) -> Flow<bool> {
    let thread = if thread.is_null() { ke::thread::current_object(cx) } else { thread };
    are_disabled(cx, thread).map(|disabled| !disabled)
}
