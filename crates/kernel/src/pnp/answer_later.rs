//! Requests that a driver of ours refuses later, where the platform has it so (`--platform later-bus`): what bus drivers do not know, and what stand-ins
//! ([`super::super::io::stand_in`]) are asked. Where the answer is late (`late-cards=N`, `silent-cards`), one that is cancelled ends at once; else it ends in its own
//! time, as drivers may leave what they are about to answer.
//!
//! Pages: *Canceling IRPs*, *IoSetCompletionRoutineNonPnpDriver rule*. *Ours*: how long each takes.

use std::collections::BTreeMap;

use abi::{
    DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IRP, IRP_MJ_DEVICE_CONTROL, IRP_MJ_FLUSH_BUFFERS,
    IRP_MJ_INTERNAL_DEVICE_CONTROL, IRP_MJ_READ, IRP_MJ_WRITE, NtStatus,
};
use engine::Flow;

use super::bus;
use super::node::{Node, NodeId, Origin};
use crate::cx::{Cx, Kernel};
use crate::hal::platform::Promptness;
use crate::hal::promptness::{MOMENT, SILENCE};
use crate::{io, ke};

/// How long it takes to refuse what other drivers ask of it (`IRP_MJ_INTERNAL_DEVICE_CONTROL`), in ns: as a device that does not answer for that long.
const ASKED: u64 = 10_000_000_000;

/// The requests that are kept.
#[derive(Default)]
pub(crate) struct State {
    /// By address: which of those that were there it is.
    kept: BTreeMap<u64, u64>,
    made: u64,
}

/// How long a request is kept.
enum Wait {
    Time(u64),
    /// Until so many time limits of drivers have ended.
    Limits(u32),
}

impl Wait {
    fn of(k: &Kernel, major: u8) -> Option<Self> {
        let usual = match major {
            IRP_MJ_READ | IRP_MJ_WRITE | IRP_MJ_DEVICE_CONTROL | IRP_MJ_FLUSH_BUFFERS => 0,
            IRP_MJ_INTERNAL_DEVICE_CONTROL => ASKED,
            _ => return None,
        };
        Some(match k.hal.platform.cards {
            Promptness::AtLimit(limits) => Self::Limits(limits),
            Promptness::Silent => Self::Time(SILENCE),
            Promptness::InTime
            | Promptness::Behind
            | Promptness::OnceAtLimit(_)
            | Promptness::AtAccess(_)
            | Promptness::AtRoutine(_) => Self::Time(usual),
        })
    }

    fn pass(self, cx: &mut Cx<'_>) -> Flow<()> {
        match self {
            Self::Time(0) => Ok(()),
            Self::Time(time) => ke::wait::sleep(cx, time),
            Self::Limits(limits) => {
                for limit in 1..=limits {
                    ke::wait::sleep_to_limit(cx)?;
                    if limit < limits {
                        // A timer that is set again when it has run out has not been yet.
                        ke::wait::sleep(cx, MOMENT)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Whether a driver of ours that may answer later is asked: not a driver's own child, which has the driver's dispatch routines.
fn is_ours(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> bool {
    let is_own = |node: &Node| !matches!(node.origin, Origin::Child);
    k.pnp.nodes.get(&NodeId(device.address)).is_some_and(is_own) || io::stand_in::is_one(k, device)
}

/// Where the platform has it so, a request (read, write, flush, device control) is kept and refused later. None: it is to be refused at once.
///
/// # Errors
/// As completing.
pub(crate) fn refuse(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Flow<Option<NtStatus>> {
    if !cx.with(|k| k.hal.platform.later_bus && is_ours(k, device)) {
        return Ok(None);
    }
    let location = io::irp::current(cx, irp)?;
    let major = cx.read(location + IO_STACK_LOCATION::MajorFunction)?;
    let Some(wait) = cx.with(|k| Wait::of(k, major)) else { return Ok(None) };
    let stay = bus::stay(cx, location)?;
    let number = cx.with(|k| {
        k.pnp.answers.made += 1;
        k.pnp.answers.made
    });
    let keep = move |k: &mut Kernel| {
        k.pnp.answers.kept.insert(irp.address, number);
    };
    if cx.with(|k| k.hal.platform.cards.is_late()) {
        bus::hold(cx, irp, location, "PciCancelAnswer", keep)?;
    } else {
        io::complete::mark_pending(cx, location)?;
        cx.with(keep);
    }
    bus::work(cx, stay, move |cx| {
        wait.pass(cx)?;
        if take(cx, irp, number)? {
            let refused = Some(NtStatus::INVALID_DEVICE_REQUEST);
            let _ = bus::complete(cx, irp, refused, Some(0))?;
        }
        Ok(())
    })?;
    Ok(Some(NtStatus::PENDING))
}

/// Takes a request that it may be completed, unless it was cancelled.
fn take(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, number: u64) -> Flow<bool> {
    let irql = io::cancel::acquire(cx)?;
    let is_there = cx.with(|k| k.pnp.answers.kept.get(&irp.address) == Some(&number));
    if is_there {
        cx.with(|k| k.pnp.answers.kept.remove(&irp.address));
        io::cancel_routine::set(cx, irp, DriverPtr::NULL)?;
    }
    io::cancel::release(cx, irql)?;
    Ok(is_there)
}

/// The cancel routine of a request that is kept.
///
/// # Errors
/// As completing.
pub(crate) fn cancel(cx: &mut Cx<'_>, _device: DriverPtr<DEVICE_OBJECT>, irp: DriverPtr<IRP>) -> Flow<()> {
    cx.with(|k| k.pnp.answers.kept.remove(&irp.address));
    let irql = cx.read(irp + IRP::CancelIrql)?;
    io::cancel::release(cx, irql)?;
    bus::complete(cx, irp, Some(NtStatus::CANCELLED), Some(0)).map(|_| ())
}
