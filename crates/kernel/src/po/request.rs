//! `PoRequestPowerIrp`: the power manager sends a device power IRP for a driver and calls it back.
//!
//! Pages: *PoRequestPowerIrp function*, *REQUEST_POWER_COMPLETE callback function*, rule *RequestedPowerIrp*. Each request is sent from a
//! thread of the power manager, one at a time for each stack; one to wait for a wake signal beside them (*Wait/Wake IRP Requests*). At which level drivers
//! get it is in [`super::level`], and why one may have to wait for another stack's in [`super::inrush`].

use abi::{
    Code, DEVICE_OBJECT, DevicePowerState, DriverPtr, IO_STATUS_BLOCK, IRP, IRP_MJ_POWER, IRP_MN_QUERY_POWER,
    IRP_MN_SET_POWER, IRP_MN_WAIT_WAKE, KEVENT, NtStatus, PowerDeviceD0, PowerDeviceMaximum,
    PowerDeviceUnspecified, PowerSystemMaximum, PowerSystemWorking,
};
use engine::Flow;

use super::level::PowerFlags;
use super::{fx, inrush, watchdog};
use crate::cx::Cx;
use crate::event::Role;
use crate::io::system_request::{Answer, Made, Request, send};
use crate::ke::wait;
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::{io, ke, pnp};

/// So often in a row a wait/wake IRP is cancelled, and its callback requests the next.
const REARMED: u32 = 32;
/// In units of 100 ns.
const A_MINUTE: i64 = 60 * 10_000_000;

/// A request that has not been answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    device: DriverPtr<DEVICE_OBJECT>,
    minor: u8,
    state: u32,
    completion: DriverPtr<Code>,
    context: u64,
    /// Signaled at its end, with its status behind the event; null if no thread waits.
    waiter: DriverPtr<KEVENT>,
}

impl Pending {
    /// One whose end is not reported: no thread waits, and there is no completion routine.
    const fn new(device: DriverPtr<DEVICE_OBJECT>, minor: u8, state: u32) -> Self {
        let (completion, waiter) = (DriverPtr::NULL, DriverPtr::NULL);
        Self { device, minor, state, completion, context: 0, waiter }
    }
}

/// Asks the device's stack whether it can go to a device state (`PowerDevice*`), and if so sends it there, as the owner of its power
/// policy does, while it cannot be removed. On a system thread, at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver.
pub fn set_device(cx: &mut Cx<'_>, id: pnp::NodeId, state: u32) -> Flow<NtStatus> {
    pnp::exclusively_asleep_too(cx, |cx| {
        // It may have gone before its turn came.
        if !cx.with(|k| pnp::is_physical(k, id.pdo())) {
            return Ok(NtStatus::NO_SUCH_DEVICE);
        }
        let mut status = NtStatus::SUCCESS;
        for minor in [IRP_MN_QUERY_POWER, IRP_MN_SET_POWER] {
            if status.is_success() {
                status = wait_for(cx, id.pdo(), minor, state)?;
            }
        }
        if status.is_success() && state > PowerDeviceD0 {
            cx.with(|k| k.po.lowered_from_outside.insert(id.0));
        }
        Ok(status)
    })
}

fn wait_for(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, minor: u8, state: u32) -> Flow<NtStatus> {
    let plain = Pending::new(device, minor, state);
    let bottom = cx.with(|k| io::stack::bottom(k, device)).address;
    if cx.with(|k| !k.po.requests.contains_key(&bottom)) {
        // This thread is the power manager's own: it sends the request itself.
        cx.with(|k| k.po.requests.insert(bottom, vec![plain]));
        let (answer, is_more) = carry_out(cx, bottom, plain)?;
        if is_more {
            ke::thread::spawn(cx, "power manager", Box::new(move |cx| drain(cx, bottom)))?;
        }
        return Ok(answer.status);
    }
    let size = size_of::<KEVENT>() as u64;
    let waiter: DriverPtr<KEVENT> = pool::allocate(cx, pool::Kind::NonPaged, size + 8, pool::tag(b"PoWt"))?;
    if waiter.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    ke::event::initialize(cx, waiter, abi::NotificationEvent, false)?;
    enqueue(cx, Pending { waiter, ..plain })?;
    let _ = ke::wait::for_object(cx, waiter)?;
    let status = cx.read(waiter.index(1).cast::<NtStatus>())?;
    pool::free(cx, waiter)?;
    Ok(status)
}

/// Has a thread of the power manager send a device to a state. Its end is not reported.
pub(super) fn send_later(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    minor: u8,
    state: u32,
) -> Flow<()> {
    enqueue(cx, Pending::new(device, minor, state))
}

/// `PoRequestPowerIrp`: `PENDING` once the request is on its way. Whether there is no memory for one is the choice `fault.call`, but for one to power a device up:
/// no driver can do without that.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn request(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    minor: u8,
    state: u32,
    completion: DriverPtr<Code>,
    context: u64,
    irp: DriverPtr<DriverPtr<IRP>>,
) -> Flow<NtStatus> {
    match minor {
        IRP_MN_SET_POWER | IRP_MN_QUERY_POWER => {}
        IRP_MN_WAIT_WAKE => return wait_wake(cx, device, state, completion, context, irp),
        _ => return Ok(NtStatus::INVALID_PARAMETER_2),
    }
    if state == PowerDeviceUnspecified || state >= PowerDeviceMaximum {
        let message =
            format!("PoRequestPowerIrp was called for device power state {state}, which does not exist");
        // It is sent as it is: no page says that Windows looks.
        cx.report(Verdict::warning("bad-power-state", message));
    }
    if !irp.is_null() {
        let message = "PoRequestPowerIrp was given an Irp parameter, which is for IRP_MN_WAIT_WAKE only: the IRP may be gone when it returns";
        let verdict = Verdict::verifier("requested-power-irp", message);
        cx.verify(verdict.bug_check(0xC4, [0x4_100B, 0, 0, 0]))?;
        cx.write(irp, DriverPtr::NULL)?;
    }
    let bottom = cx.with(|k| io::stack::bottom(k, device));
    // One that is refused is asked for, too: its driver has done what it could.
    cx.with(|k| fx::directed::note_request(k, bottom));
    let may_fail = minor == IRP_MN_QUERY_POWER || state > PowerDeviceD0;
    if may_fail && cx.choose("fault.call", 2) == 1 {
        if minor == IRP_MN_SET_POWER {
            cx.with(|k| k.po.refused.insert(bottom.address));
        }
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    enqueue(cx, Pending { completion, context, ..Pending::new(device, minor, state) })?;
    Ok(NtStatus::PENDING)
}

/// A request to wait for a wake signal, down to a state of the system. It stays under way while others come and go; `irp` gets it, so that it can
/// be cancelled.
fn wait_wake(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    state: u32,
    completion: DriverPtr<Code>,
    context: u64,
    irp: DriverPtr<DriverPtr<IRP>>,
) -> Flow<NtStatus> {
    if !(PowerSystemWorking..PowerSystemMaximum).contains(&state) {
        let message = format!(
            "PoRequestPowerIrp was called with IRP_MN_WAIT_WAKE for system power state {state}, which does not exist"
        );
        cx.report(Verdict::warning("bad-power-state", message));
    }
    let Some(made) = Made::new(cx, device)? else { return Ok(NtStatus::INSUFFICIENT_RESOURCES) };
    if !irp.is_null() {
        cx.write(irp, made.irp)?;
    }
    cx.with(|k| k.po.wakes_asked += 1);
    let pending =
        Pending { device, minor: IRP_MN_WAIT_WAKE, state, completion, context, waiter: DriverPtr::NULL };
    let request = Request {
        parameters: [state.into(), 0, 0, 0],
        status: NtStatus::NOT_SUPPORTED,
        ..Request::new(IRP_MJ_POWER, IRP_MN_WAIT_WAKE)
    };
    let wait = move |cx: &mut Cx<'_>| {
        let irp = made.irp;
        let pdo = cx.with(|k| io::stack::bottom(k, pending.device));
        fx::system::before_lower(cx, pdo, true)?;
        let answer = made.send(cx, &request)?;
        fx::system::after_wait(cx, pdo)?;
        cx.with(|k| k.po.woken.remove(&irp.address));
        call_back_awake(cx, pending, answer)
    };
    ke::thread::spawn(cx, "power manager", Box::new(wait))?;
    Ok(NtStatus::PENDING)
}

/// A thread of the outside world's sleeps until a device is to be powered down, at most a minute: a driver asks for it, or its device is idle. Whether one is.
///
/// # Errors
/// [`engine::Leave`] if the machine ends meanwhile.
pub fn sleep_to_lowering(cx: &mut Cx<'_>) -> Flow<bool> {
    let strand = cx.engine().strand();
    cx.with(|k| k.po.lowering_awaited.push(strand));
    wait::sleep_until_granted(cx, A_MINUTE, "a sleep")?;
    Ok(cx.with(|k| {
        let before = k.po.lowering_awaited.len();
        k.po.lowering_awaited.retain(|other| *other != strand);
        k.po.lowering_awaited.len() == before
    }))
}

/// Has a thread of the power manager send the request when those before it for the same stack have ended.
fn enqueue(cx: &mut Cx<'_>, pending: Pending) -> Flow<()> {
    let bottom = cx.with(|k| io::stack::bottom(k, pending.device)).address;
    if pending.minor == IRP_MN_SET_POWER && pending.state > PowerDeviceD0 {
        cx.with(|k| {
            for strand in std::mem::take(&mut k.po.lowering_awaited) {
                wait::grant(k, strand);
            }
        });
    }
    let first = cx.with(|k| {
        let queue = k.po.requests.entry(bottom).or_default();
        queue.push(pending);
        queue.len() == 1
    });
    if first {
        ke::thread::spawn(cx, "power manager", Box::new(move |cx| drain(cx, bottom)))?;
    }
    Ok(())
}

/// Sends the requests for a stack, in order, until there are none.
fn drain(cx: &mut Cx<'_>, bottom: u64) -> Flow<()> {
    while let Some(pending) = cx.with(|k| k.po.requests.get(&bottom).and_then(|queue| queue.first().copied()))
    {
        if let (_, false) = carry_out(cx, bottom, pending)? {
            break;
        }
    }
    Ok(())
}

/// Sends the first request for a stack, and takes it from the queue when it has ended: its answer, and whether there is another one, which
/// the caller must carry out next. If there is none, the queue is gone.
fn carry_out(cx: &mut Cx<'_>, bottom: u64, pending: Pending) -> Flow<(Answer, bool)> {
    // With a system request under way its reason goes along.
    let action = cx.with(|k| k.po.action);
    let request = Request {
        parameters: [0, DevicePowerState.into(), pending.state.into(), action.into()],
        status: NtStatus::NOT_SUPPORTED,
        ..Request::new(IRP_MJ_POWER, pending.minor)
    };
    if pending.minor == IRP_MN_SET_POWER && pending.state > PowerDeviceD0 {
        fx::system::before_lower(cx, DriverPtr::new(bottom), false)?;
    }
    let pdo = cx.with(|k| io::stack::bottom(k, pending.device));
    let flags = PowerFlags::of(cx, pdo)?;
    let send = |cx: &mut Cx<'_>| {
        let level = flags.level(cx, pending.minor);
        watchdog::watch(cx, bottom, |cx| send(cx, pending.device, &Request { level, ..request }))
    };
    let powers_up = pending.minor == IRP_MN_SET_POWER && pending.state == PowerDeviceD0;
    if powers_up {
        cx.with(|k| {
            k.po.refused.remove(&bottom);
            k.po.lowered_from_outside.remove(&bottom);
        });
    }
    cx.with(|k| pnp::node::power_asked(k, pnp::NodeId(bottom), DevicePowerState));
    let answer = match powers_up && flags.is_inrush() {
        true => inrush::alone(cx, pdo, send)?,
        false => send(cx)?,
    };
    judge(cx, bottom, pending, answer)?;
    pnp::judge::power_answer(cx, pnp::NodeId(bottom), pending.minor, DevicePowerState, answer.status)?;
    call_back(cx, pending, answer)?;
    let is_more = cx.with(|k| {
        let queue = k.po.requests.get_mut(&bottom).expect("its first one is under way");
        queue.remove(0);
        let is_more = !queue.is_empty();
        if !is_more {
            k.po.requests.remove(&bottom);
        }
        is_more
    });
    if !pending.waiter.is_null() {
        cx.write(pending.waiter.index(1).cast(), answer.status)?;
        ke::event::set(cx, pending.waiter, 0, false)?;
    }
    Ok((answer, is_more))
}

/// A device must not fail to be powered down, nor up; but for one that is gone, or whose drivers have been sent IRP_MN_REMOVE_DEVICE and wait for their
/// last request.
fn judge(cx: &mut Cx<'_>, bottom: u64, pending: Pending, answer: Answer) -> Flow<()> {
    if pending.minor != IRP_MN_SET_POWER || answer.status.is_success() {
        return Ok(());
    }
    let node = pnp::NodeId(bottom);
    let gone = cx.with(|k| {
        k.pnp.nodes.get(&node).is_none_or(|node| {
            node.told_to_go
                || matches!(node.state, pnp::node::State::SurpriseRemoved | pnp::node::State::Deleted)
        })
    });
    if gone {
        return Ok(());
    }
    let message = format!(
        "a device IRP_MN_SET_POWER for D{} was completed with {}; a driver may fail IRP_MN_QUERY_POWER, not this",
        pending.state - 1,
        answer.status
    );
    cx.report(Verdict::warning("set-power-failed", message));
    Ok(())
}

/// The request to wait for a wake signal has ended. Whether the callback asks for another one each time that one is cancelled, which then never ends.
fn call_back_awake(cx: &mut Cx<'_>, pending: Pending, answer: Answer) -> Flow<()> {
    let device = pending.device;
    let asked = cx.with(|k| k.po.wakes_asked);
    call_back(cx, pending, answer)?;
    let times = cx.with(|k| {
        let again = answer.status == NtStatus::CANCELLED && k.po.wakes_asked > asked;
        let times = k.po.rearmed.entry(device.address).or_default();
        *times = if again { *times + 1 } else { 0 };
        *times
    });
    if times < REARMED {
        return Ok(());
    }
    let message = format!(
        "the callback of a wait/wake IRP has requested the next one though the last one was cancelled, {times} times in a row: who cancels it waits for its end for ever"
    );
    Err(cx.stop(Verdict::error("wait-wake-repeated", message)))
}

fn call_back(cx: &mut Cx<'_>, pending: Pending, answer: Answer) -> Flow<()> {
    let Pending { device, minor, state, completion, context, .. } = pending;
    if completion.is_null() {
        return Ok(());
    }
    let size = size_of::<IO_STATUS_BLOCK>() as u64;
    let block: DriverPtr<IO_STATUS_BLOCK> =
        pool::allocate(cx, pool::Kind::NonPaged, size, pool::tag(b"PoSt"))?;
    if block.is_null() {
        return Err(cx.stop(Verdict::not_implemented("running out of memory for a power completion")));
    }
    cx.write(block + IO_STATUS_BLOCK::Status, answer.status)?;
    cx.write(block + IO_STATUS_BLOCK::Information, answer.information)?;
    let arguments = [device.address, minor.into(), state.into(), context, block.address];
    let called = io::routine::call(cx, Role::PowerCompletion, completion, device.address, &arguments);
    pool::free(cx, block)?;
    called.map(|_| ())
}
