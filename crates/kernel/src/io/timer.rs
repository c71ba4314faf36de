//! The timer that every device can have: its routine is called once a second.
//!
//! Pages: *IoInitializeTimer function*, *IoStartTimer function*, *IoStopTimer function*, *IO_TIMER_ROUTINE callback
//! function*. One second is counted from `IoStartTimer`; Windows calls all devices' routines at one common tick.

use abi::{Code, DEVICE_OBJECT, DriverPtr, IO_TYPE_TIMER, KDPC, KTIMER, NtStatus};
use engine::Flow;

use super::change;
use super::routine;
use super::violation::{device_name, io_manager};
use crate::cx::Cx;
use crate::event::Role;
use crate::ke::irql::DISPATCH_LEVEL;
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::{ke, ldr, witness};

/// What hangs on `DEVICE_OBJECT::Timer`: an opaque head, then the kernel's timer and DPC.
const TIMER_AT: u64 = 0x40;
const DPC_AT: u64 = TIMER_AT + size_of::<KTIMER>() as u64;
const SIZE: u64 = DPC_AT + size_of::<KDPC>() as u64;
/// One second, in 100 ns.
const SECOND: i64 = 10_000_000;
/// The same, in milliseconds.
const PERIOD: i32 = 1000;

/// A device's timer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    block: u64,
    routine: DriverPtr<Code>,
    context: u64,
    pub(crate) running: bool,
    /// The moment when it was started last.
    pub(crate) started: u64,
    /// The processor that its routine runs on.
    called_on: Option<u32>,
}

/// `IoInitializeTimer`.
///
/// # Errors
/// A verdict if the device has one already.
pub(crate) fn initialize(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    routine: DriverPtr<Code>,
    context: u64,
) -> Flow<NtStatus> {
    if cx.with(|k| k.io.timers.contains_key(&device.address)) {
        let name = device_name(cx, device);
        let message = format!("IoInitializeTimer on {name}, whose timer is initialised already");
        let verdict = io_manager("io-timer-initialized-again", 0xA, message, device, DriverPtr::NULL);
        cx.verify(verdict.as_verifier())?;
        let again = |timer: &mut Timer| (timer.routine, timer.context) = (routine, context);
        cx.with(|k| k.io.timers.get_mut(&device.address).map(again));
        return Ok(NtStatus::SUCCESS);
    }
    let block: DriverPtr<i16> = pool::allocate(cx, pool::Kind::NonPaged, SIZE, pool::tag(b"IoTm"))?;
    if block.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.write(block, IO_TYPE_TIMER)?;
    ke::timer::initialize(cx, DriverPtr::new(block.address + TIMER_AT))?;
    let tick = ldr::internal_address("IopTimerDispatch").address;
    ke::dpc::initialize(cx, DriverPtr::new(block.address + DPC_AT), tick, device.address)?;
    cx.write(device + DEVICE_OBJECT::Timer, block.cast())?;
    let timer = Timer { block: block.address, routine, context, running: false, started: 0, called_on: None };
    cx.with(|k| k.io.timers.insert(device.address, timer));
    Ok(NtStatus::SUCCESS)
}

fn of(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, ddi: &str) -> Flow<Timer> {
    match cx.with(|k| k.io.timers.get(&device.address).copied()) {
        Some(timer) => Ok(timer),
        None => {
            let name = device_name(cx, device);
            let message = format!("{ddi} on {name}, which has no timer: IoInitializeTimer comes first");
            Err(cx.stop(Verdict::error("io-timer", message)))
        }
    }
}

/// `IoStartTimer`.
///
/// # Errors
/// A verdict if the device has none.
pub(crate) fn start(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let timer = of(cx, device, "IoStartTimer")?;
    if timer.running {
        return Ok(());
    }
    set_running(cx, device, true);
    let (clock, dpc) = (DriverPtr::new(timer.block + TIMER_AT), DriverPtr::new(timer.block + DPC_AT));
    ke::timer::set_ex(cx, clock, -SECOND, PERIOD, dpc).map(|_| ())
}

/// `IoStopTimer`. From within the routine it is a warning: Windows may wait there for the routine to return. Its page says that the routine is not called
/// any more, and drivers delete their device behind it: so below DISPATCH_LEVEL it returns when a call on another processor has.
///
/// # Errors
/// A verdict if the device has none.
pub(crate) fn stop(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let timer = of(cx, device, "IoStopTimer")?;
    if timer.called_on.is_some() && timer.called_on == Some(cx.with(|k| k.ke.processor().number)) {
        let name = device_name(cx, device);
        let message = format!("IoStopTimer on {name} from within its own IoTimer routine");
        cx.report(Verdict::warning("io-timer-stopped-in-routine", message));
    }
    set_running(cx, device, false);
    ke::timer::cancel(cx, DriverPtr::new(timer.block + TIMER_AT))?;
    let is_called =
        cx.with(|k| k.io.timers.get(&device.address).is_some_and(|timer| timer.called_on.is_some()));
    if is_called && ke::irql::current(cx) < DISPATCH_LEVEL { ke::dpc::flush(cx) } else { Ok(()) }
}

fn set_running(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, running: bool) {
    let moment = witness::moment(cx);
    cx.with(|k| {
        change(&mut k.io.timers, device.address, |timer| {
            timer.running = running;
            timer.started = if running { moment } else { timer.started };
        });
    });
}

/// The DPC of every device's timer.
///
/// # Errors
/// A verdict on the driver's routine.
pub(crate) fn tick(cx: &mut Cx<'_>, _dpc: DriverPtr<KDPC>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    match cx.with(|k| k.io.timers.get(&device.address).copied()) {
        Some(timer) if timer.running => {
            let arguments = [device.address, timer.context];
            set_called(cx, device, true);
            routine::call(cx, Role::IoTimer, timer.routine, device.address, &arguments)?;
            set_called(cx, device, false);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn set_called(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, called: bool) {
    cx.with(|k| {
        let here = called.then(|| k.ke.processor().number);
        change(&mut k.io.timers, device.address, |timer| timer.called_on = here);
    });
}

/// The device goes: its timer, too.
pub(crate) fn stop_for_deletion(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let Some(timer) = cx.with(|k| k.io.timers.remove(&device.address)) else {
        return Ok(());
    };
    ke::timer::cancel(cx, DriverPtr::new(timer.block + TIMER_AT))?;
    ke::dpc::remove(cx, DriverPtr::new(timer.block + DPC_AT))?;
    cx.write(device + DEVICE_OBJECT::Timer, DriverPtr::NULL)?;
    pool::free(cx, DriverPtr::<()>::new(timer.block))
}
