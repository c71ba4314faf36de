//! Plug and Play steps, asked for from outside: each runs on a system thread, as the PnP manager's own.

use abi::NtStatus;
use engine::{Flow, outside};
use kernel::Cx;
use kernel::ke::thread;
use kernel::pnp::start::Started;
use kernel::pnp::usage::Special;
use kernel::pnp::{self, NodeId, elsewhere};
use kernel::{po, wdf, wmi};

use super::Machine;
use crate::error::Error;
use crate::play;

/// Which device is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Device {
    /// The first one on the bus.
    First,
    /// By its name: `pci9052#0`.
    Named(String),
}

/// What happens to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Start,
    StartElsewhere,
    Stop,
    QueryStop,
    CancelStop,
    Remove,
    QueryRemove,
    CancelRemove,
    SurpriseRemove,
    Eject,
    Lock(bool),
    Usage(Special, bool),
    /// Its physical device is asked for a block of data by WMI.
    AskBus,
    /// To a device power state, `PowerDevice*`.
    Power(u32),
    /// By directed power: down if true, else up again.
    Direct(bool),
}

/// Why a device is sent to no power state.
const NOT_BY_OTHERS: &str = "the device is of a driver framework's client: the framework owns its power policy, and Windows changes its power \
     state for no other; have the system sleep, `power s3`";

/// Carries a step out from a thread of the application's, and waits for its end.
pub(crate) fn step(cx: &mut Cx<'_>, device: Device, step: Step) -> Flow<Result<NtStatus, String>> {
    let node = match find(cx, &device) {
        Ok(node) => node,
        Err(why) => return Ok(Err(why)),
    };
    if matches!(step, Step::Power(_)) && cx.with(|k| wdf::power_policy::is_frameworks(k, node)) {
        return Ok(Err(NOT_BY_OTHERS.to_owned()));
    }
    let in_any_state = matches!(step, Step::Power(_) | Step::Direct(_) | Step::SurpriseRemove);
    if !in_any_state && cx.with(|k| po::system::sleeps(k)) {
        return Ok(Ok(NtStatus::POWER_STATE_INVALID));
    }
    thread::wait_for_system(cx, "PnP manager", move |cx| carry_out(cx, node, step)).map(Ok)
}

fn find(cx: &mut Cx<'_>, device: &Device) -> Result<NodeId, String> {
    match device {
        Device::First => {
            let first = pnp::devices(cx).into_iter().next().map(|device| device.id);
            first.ok_or_else(|| "there is no device (any more)".to_owned())
        }
        Device::Named(name) => {
            pnp::named(cx, name).ok_or_else(|| format!("device {name} is not there (any more)"))
        }
    }
}

fn carry_out(cx: &mut Cx<'_>, node: NodeId, step: Step) -> Flow<NtStatus> {
    match step {
        Step::Start => pnp::restart(cx, node).map(status),
        Step::StartElsewhere => elsewhere::restart(cx, node).map(status),
        Step::Stop => pnp::stop(cx, node),
        Step::QueryStop => pnp::query_stop(cx, node),
        Step::CancelStop => pnp::stop::cancel_stop(cx, node),
        Step::Remove => pnp::remove(cx, node),
        Step::QueryRemove => pnp::query_remove(cx, node),
        Step::CancelRemove => pnp::remove::cancel_remove(cx, node),
        Step::SurpriseRemove => pnp::surprise_remove(cx, node),
        Step::Eject => pnp::eject::eject(cx, node),
        Step::Lock(lock) => pnp::eject::set_lock(cx, node, lock),
        Step::Usage(file, there) => pnp::usage::notify(cx, node, file, there),
        Step::AskBus => wmi::consumer::ask_bus(cx, node.pdo()),
        Step::Power(state) => po::request::set_device(cx, node, state),
        Step::Direct(down) => po::fx::directed::direct(cx, node, down),
    }
}

fn status(started: Started) -> NtStatus {
    started.map_or_else(|failure| failure.status, |()| NtStatus::SUCCESS)
}

impl Machine {
    fn device_step(&self, name: &str, what: &str, wanted: Step) -> Result<(), Error> {
        let device = Device::Named(name.to_owned());
        let what = format!("{what} of {name}");
        match self.on_thread(&what, move |cx| step(cx, device, wanted))? {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(Error::Status { what, status: status.0 }),
            Err(why) => Err(Error::Absent(why.clone())),
        }
    }

    /// Stops a device (`pci9052#0`) as the PnP manager does to rebalance resources.
    ///
    /// # Errors
    /// [`Error::Status`] if the driver refuses; [`Error::Absent`], [`Error::Stuck`], [`Error::Stopped`].
    pub fn stop_device(&self, device: &str) -> Result<(), Error> {
        self.device_step(device, "the stop", Step::Stop)
    }

    /// Starts a stopped device again, or enables one that was removed, while each of its drivers has another device.
    ///
    /// # Errors
    /// As [`Machine::stop_device`].
    pub fn start_device(&self, device: &str) -> Result<(), Error> {
        self.device_step(device, "the start", Step::Start)
    }

    /// Starts a stopped device again with other resources: other bus addresses, another interrupt line, other messages, as far as its
    /// drivers' requirements allow.
    ///
    /// # Errors
    /// As [`Machine::stop_device`].
    pub fn start_device_elsewhere(&self, device: &str) -> Result<(), Error> {
        self.device_step(device, "the start elsewhere", Step::StartElsewhere)
    }

    /// Removes a device in order: asked first, then removed.
    ///
    /// # Errors
    /// As [`Machine::stop_device`].
    pub fn remove_device(&self, device: &str) -> Result<(), Error> {
        self.device_step(device, "the removal", Step::Remove)
    }

    /// Ejects a device, as its user asks for it.
    ///
    /// # Errors
    /// As [`Machine::stop_device`].
    pub fn eject_device(&self, device: &str) -> Result<(), Error> {
        self.device_step(device, "the ejection", Step::Eject)
    }

    /// The device tree, line by line: as `tree` in a script.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn tree(&self) -> Result<Vec<String>, Error> {
        self.on_thread("the look", |cx| {
            let lines = pnp::tree::text(cx)?;
            Ok(outside(|| lines.clone()))
        })
    }

    /// The outside world acts on a card: as `poke` in a script. `dirql devices` lists the signals of models.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is no such device, signal or value; [`Error::Stopped`].
    pub fn poke(&self, device: &str, signal: &str, value: u64) -> Result<(), Error> {
        let (device, signal) = (device.to_owned(), signal.to_owned());
        let poked = self.on_thread("the poke", move |cx| {
            let poked = play::poke(cx, &device, &signal, value)?;
            Ok(outside(|| poked.clone()))
        })?;
        poked.map_err(Error::Absent)
    }

    /// What a register of a card holds, without a read's side effects: as `peek` in a script.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is no such device or register; [`Error::Stopped`].
    pub fn peek(&self, device: &str, register: &str) -> Result<u32, Error> {
        let (device, register) = (device.to_owned(), register.to_owned());
        let seen = self.on_thread("the look", move |cx| {
            let seen = play::peek(cx, &device, &register);
            Ok(outside(|| seen.clone()))
        })?;
        seen.map_err(Error::Absent)
    }

    /// Pulls the card out.
    ///
    /// # Errors
    /// As [`Machine::stop_device`].
    pub fn surprise_remove(&self, device: &str) -> Result<(), Error> {
        self.device_step(device, "the surprise removal", Step::SurpriseRemove)
    }
}
