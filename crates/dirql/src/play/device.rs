//! What the user's hand and the outside world do: Plug and Play, power, signals.

use abi::{NtStatus, PowerDeviceD0, PowerSystemShutdown, PowerSystemWorking};
use engine::Flow;
use kernel::Cx;
use kernel::io::driver;
use kernel::ke::{interrupt, thread};
use kernel::mm::pool_check;
use kernel::ob::handle;
use kernel::pnp::usage::Special;
use kernel::{pnp, po, ps};

use super::Stage;
use super::carry::Outcome;
use super::expect::{judge, status};
use crate::machine::transfer::Completion;
use crate::machine::{Device, Step, step};
use crate::script::{Expectations, PnpEvent, PowerState, SpecialFile};

/// The outside world acts on a card.
pub(crate) fn poke(cx: &mut Cx<'_>, device: &str, signal: &str, value: u64) -> Flow<Outcome> {
    let poked = set(cx, device, signal, value);
    if poked.is_ok() {
        interrupt::deliver(cx)?;
        pnp::wake::look(cx)?;
    }
    Ok(poked)
}

/// The same, of which no processor hears yet.
pub(crate) fn set(cx: &mut Cx<'_>, device: &str, signal: &str, value: u64) -> Outcome {
    let text = value.to_string();
    cx.with(|k| {
        let now = k.engine.now();
        k.hardware(now, |hardware, at| hardware.poke(at, device, signal, &text))
    })
}

/// A look at a register, which its card does not notice.
pub(crate) fn peek(cx: &mut Cx<'_>, device: &str, register: &str) -> Result<u32, String> {
    cx.with(|k| {
        let now = k.engine.now();
        k.hardware(now, |hardware, at| hardware.peek(at, device, register))
    })
}

/// The same, for what a script expects to see.
pub(super) fn look(
    stage: &Stage,
    cx: &mut Cx<'_>,
    (device, register): (&str, &str),
    expect: &Expectations,
) -> Outcome {
    let data = peek(cx, device, register)?.to_le_bytes().to_vec();
    let end = Completion { information: 4, data, ..Completion::status(NtStatus::SUCCESS) };
    judge(&stage.play, &end, expect)
}

/// What drivers hold of pool, for what a script expects to see: the bytes, or the numbers of blocks and of bytes, 8 bytes each.
pub(super) fn pool(stage: &Stage, cx: &mut Cx<'_>, tag: &str, expect: &Expectations) -> Outcome {
    let (blocks, bytes) = cx.with(|k| pool_check::held(k, tag));
    let data = [blocks.to_le_bytes(), bytes.to_le_bytes()].concat();
    let end = Completion { information: bytes, data, ..Completion::status(NtStatus::SUCCESS) };
    judge(&stage.play, &end, expect)
}

/// The device of this name; without one, the first.
fn which(name: Option<&str>) -> Device {
    name.map_or(Device::First, |name| Device::Named(name.to_owned()))
}

/// The PnP manager, or the user's hand, does something to a device.
pub(super) fn pnp(
    cx: &mut Cx<'_>,
    event: PnpEvent,
    device: Option<&str>,
    expect: &Expectations,
) -> Flow<Outcome> {
    let what = match event {
        PnpEvent::Start => Step::Start,
        PnpEvent::StartElsewhere => Step::StartElsewhere,
        PnpEvent::Stop => Step::Stop,
        PnpEvent::QueryStop => Step::QueryStop,
        PnpEvent::CancelStop => Step::CancelStop,
        PnpEvent::Remove => Step::Remove,
        PnpEvent::QueryRemove => Step::QueryRemove,
        PnpEvent::CancelRemove => Step::CancelRemove,
        PnpEvent::SurpriseRemove => Step::SurpriseRemove,
        PnpEvent::Eject => Step::Eject,
        PnpEvent::Lock(lock) => Step::Lock(lock),
        PnpEvent::Usage(file, there) => Step::Usage(special(file), there),
        PnpEvent::AskBus => Step::AskBus,
    };
    let device = which(device);
    match step(cx, device, what)? {
        Ok(seen) => Ok(status(seen.0, &expect.status)),
        Err(why) => Ok(Err(why)),
    }
}

const fn special(file: SpecialFile) -> Special {
    match file {
        SpecialFile::Paging => Special::Paging,
        SpecialFile::Hibernation => Special::Hibernation,
        SpecialFile::Dump => Special::Dump,
    }
}

/// A program has the driver unloaded.
pub(super) fn unload(stage: &Stage, cx: &mut Cx<'_>, expect: &Expectations) -> Flow<Outcome> {
    let Some(driver) = stage.driver else { return Ok(Err("no driver is loaded".to_owned())) };
    Ok(status(driver::unload_for_program(cx, driver)?.0, &expect.status))
}

/// Sleeps until a device is to be powered down.
pub(super) fn wait_for_power_down(cx: &mut Cx<'_>) -> Flow<Outcome> {
    let comes = po::request::sleep_to_lowering(cx)?;
    Ok(if comes { Ok(()) } else { Err("for a minute no device was to be powered down".to_owned()) })
}

/// A device or the system goes to a power state. Before the system is shut down its applications have ended.
pub(super) fn power(
    cx: &mut Cx<'_>,
    state: PowerState,
    device: Option<&str>,
    expect: &Expectations,
) -> Flow<Outcome> {
    let seen = match state {
        PowerState::Device(number) => {
            let device = which(device);
            step(cx, device, Step::Power(PowerDeviceD0 + u32::from(number)))?
        }
        PowerState::Directed(down) => step(cx, which(device), Step::Direct(down))?,
        PowerState::System(number) => {
            let wanted = PowerSystemWorking + u32::from(number);
            if wanted == PowerSystemShutdown {
                let process = ps::current_process(cx);
                handle::close_all(cx, process)?;
            }
            Ok(thread::wait_for_system(cx, "the power manager", move |cx| po::system::set(cx, wanted))?)
        }
        PowerState::Idle => Ok(thread::wait_for_system(cx, "the power manager", po::awake::idle)?),
        PowerState::Setting(setting, value) => {
            po::setting::set(cx, setting, value)?;
            Ok(NtStatus::SUCCESS)
        }
    };
    match seen {
        Ok(seen) => Ok(status(seen.0, &expect.status)),
        Err(why) => Ok(Err(why)),
    }
}
