//! Plug and Play steps, asked for from outside: each runs on a system thread, as the PnP manager's own.

use abi::NtStatus;
use engine::Flow;
use kernel::Cx;
use kernel::pnp::{self, NodeId};
use kernel::po;

use super::{Machine, on_system_thread};
use crate::error::Error;

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
    Stop,
    QueryStop,
    CancelStop,
    Remove,
    QueryRemove,
    CancelRemove,
    SurpriseRemove,
    /// To a device power state, `PowerDevice*`.
    Power(u32),
}

/// Carries a step out from a thread of the application's, and waits for its end.
pub(crate) fn step(cx: &mut Cx<'_>, device: Device, step: Step) -> Flow<Result<NtStatus, String>> {
    let node = match find(cx, &device) {
        Ok(node) => node,
        Err(why) => return Ok(Err(why)),
    };
    on_system_thread(cx, "PnP manager", move |cx| carry_out(cx, node, step)).map(Ok)
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
        Step::Start => Ok(match pnp::restart(cx, node)? {
            Ok(()) => NtStatus::SUCCESS,
            Err(failure) => failure.status,
        }),
        Step::Stop => pnp::stop(cx, node),
        Step::QueryStop => pnp::query_stop(cx, node),
        Step::CancelStop => pnp::stop::cancel_stop(cx, node),
        Step::Remove => pnp::remove(cx, node),
        Step::QueryRemove => pnp::query_remove(cx, node),
        Step::CancelRemove => pnp::remove::cancel_remove(cx, node),
        Step::SurpriseRemove => pnp::surprise_remove(cx, node),
        Step::Power(state) => po::request::set_device(cx, node.pdo(), state),
    }
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

    /// Starts a stopped device again.
    ///
    /// # Errors
    /// As [`Machine::stop_device`].
    pub fn start_device(&self, device: &str) -> Result<(), Error> {
        self.device_step(device, "the start", Step::Start)
    }

    /// Removes a device in order: asked first, then removed.
    ///
    /// # Errors
    /// As [`Machine::stop_device`].
    pub fn remove_device(&self, device: &str) -> Result<(), Error> {
        self.device_step(device, "the removal", Step::Remove)
    }

    /// Pulls the card out.
    ///
    /// # Errors
    /// As [`Machine::stop_device`].
    pub fn surprise_remove(&self, device: &str) -> Result<(), Error> {
        self.device_step(device, "the surprise removal", Step::SurpriseRemove)
    }
}
