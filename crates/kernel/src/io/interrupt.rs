//! Connecting interrupts, in every documented form.
//!
//! Pages: *IoConnectInterruptEx function*, *IO_CONNECT_INTERRUPT_PARAMETERS structure*, *Using the
//! CONNECT_MESSAGE_BASED Version of IoConnectInterruptEx*, *IoConnectInterrupt function*. No device has messages here:
//! the message-based form falls back to the line, or finds nothing. What a connection does is `ke::interrupt`.

use abi::{
    Code, DEVICE_OBJECT, DriverPtr, IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS as FULL,
    IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS as LINE,
    IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS as MESSAGE, IO_CONNECT_INTERRUPT_PARAMETERS,
    IO_DISCONNECT_INTERRUPT_PARAMETERS, KINTERRUPT, NtStatus,
};
use engine::Flow;

use super::driver;
use crate::cx::Cx;
use crate::ke::affinity;
use crate::ke::interrupt::{self, Connection};
use crate::pnp;
use crate::witness;

/// `Version` of the forms.
mod version {
    pub(super) const FULLY_SPECIFIED: u32 = 1;
    pub(super) const LINE_BASED: u32 = 2;
    pub(super) const MESSAGE_BASED: u32 = 3;
    pub(super) const FULLY_SPECIFIED_GROUP: u32 = 4;
}

/// Who connected an interrupt object, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connected {
    /// The driver.
    pub(crate) owner: Option<u64>,
    /// The moment.
    pub(crate) at: u64,
}

/// `Latched` of `KINTERRUPT_MODE`.
const LATCHED: u32 = 1;

/// `IoConnectInterrupt`.
///
/// # Errors
/// A verdict if `object` cannot be written.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn connect_old(
    cx: &mut Cx<'_>,
    object: DriverPtr<DriverPtr<KINTERRUPT>>,
    routine: DriverPtr<Code>,
    context: u64,
    spin_lock: u64,
    vector: u32,
    irql: u8,
    synchronize_irql: u8,
    mode: u32,
    shared: bool,
    affinity: u64,
    _floating_save: bool,
) -> Flow<NtStatus> {
    let connection = Connection {
        routine: routine.address,
        context,
        spin_lock,
        vector,
        irql,
        synchronize_irql,
        latched: mode == LATCHED,
        shared,
        affinity: cx.with(|k| affinity::in_group(k, 0, affinity)),
    };
    connect(cx, object, &connection)
}

/// `IoConnectInterruptEx`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn connect_ex(cx: &mut Cx<'_>, parameters: DriverPtr<IO_CONNECT_INTERRUPT_PARAMETERS>) -> Flow<NtStatus> {
    match cx.read(parameters + IO_CONNECT_INTERRUPT_PARAMETERS::Version)? {
        version::FULLY_SPECIFIED => fully_specified(cx, parameters, false),
        version::FULLY_SPECIFIED_GROUP => fully_specified(cx, parameters, true),
        version::LINE_BASED => line_based(cx, parameters),
        version::MESSAGE_BASED => message_based(cx, parameters),
        _ => Ok(NtStatus::INVALID_PARAMETER),
    }
}

fn fully_specified(
    cx: &mut Cx<'_>,
    parameters: DriverPtr<IO_CONNECT_INTERRUPT_PARAMETERS>,
    with_group: bool,
) -> Flow<NtStatus> {
    let full = parameters + IO_CONNECT_INTERRUPT_PARAMETERS::FullySpecified;
    let group = if with_group { cx.read(full + FULL::Group)? } else { 0 };
    let mask = cx.read(full + FULL::ProcessorEnableMask)?;
    let connection = Connection {
        routine: cx.read(full + FULL::ServiceRoutine)?.address,
        context: cx.read(full + FULL::ServiceContext)?.address,
        spin_lock: cx.read(full + FULL::SpinLock)?.address,
        vector: cx.read(full + FULL::Vector)?,
        irql: cx.read(full + FULL::Irql)?,
        synchronize_irql: cx.read(full + FULL::SynchronizeIrql)?,
        latched: cx.read(full + FULL::InterruptMode)? == LATCHED,
        shared: cx.read(full + FULL::ShareVector)? != 0,
        affinity: cx.with(|k| affinity::in_group(k, group, mask)),
    };
    let object = cx.read(full + FULL::InterruptObject)?;
    connect(cx, object, &connection)
}

fn line_based(cx: &mut Cx<'_>, parameters: DriverPtr<IO_CONNECT_INTERRUPT_PARAMETERS>) -> Flow<NtStatus> {
    let line = parameters + IO_CONNECT_INTERRUPT_PARAMETERS::LineBased;
    let request = Line {
        device: cx.read(line + LINE::PhysicalDeviceObject)?,
        routine: cx.read(line + LINE::ServiceRoutine)?,
        context: cx.read(line + LINE::ServiceContext)?.address,
        spin_lock: cx.read(line + LINE::SpinLock)?.address,
        synchronize_irql: cx.read(line + LINE::SynchronizeIrql)?,
    };
    let object = cx.read(line + LINE::InterruptObject)?;
    connect_line(cx, object, &request)
}

/// The device has no messages: its line is connected to the fall-back routine, if there are both.
fn message_based(cx: &mut Cx<'_>, parameters: DriverPtr<IO_CONNECT_INTERRUPT_PARAMETERS>) -> Flow<NtStatus> {
    let message = parameters + IO_CONNECT_INTERRUPT_PARAMETERS::MessageBased;
    let request = Line {
        device: cx.read(message + MESSAGE::PhysicalDeviceObject)?,
        routine: cx.read(message + MESSAGE::FallBackServiceRoutine)?,
        context: cx.read(message + MESSAGE::ServiceContext)?.address,
        spin_lock: cx.read(message + MESSAGE::SpinLock)?.address,
        synchronize_irql: cx.read(message + MESSAGE::SynchronizeIrql)?,
    };
    if request.routine.is_null() {
        return Ok(NtStatus::NOT_FOUND);
    }
    let object = cx.read(message + MESSAGE::ConnectionContext_InterruptObject)?;
    let status = connect_line(cx, object, &request)?;
    if status.is_success() {
        cx.write(parameters + IO_CONNECT_INTERRUPT_PARAMETERS::Version, version::LINE_BASED)?;
    }
    Ok(status)
}

/// A connection to the line that Plug and Play gave a device.
struct Line {
    device: DriverPtr<DEVICE_OBJECT>,
    routine: DriverPtr<Code>,
    context: u64,
    spin_lock: u64,
    /// 0: that of the line.
    synchronize_irql: u8,
}

fn connect_line(cx: &mut Cx<'_>, object: DriverPtr<DriverPtr<KINTERRUPT>>, line: &Line) -> Flow<NtStatus> {
    let Some(resource) = cx.with(|k| pnp::interrupt_of(k, line.device)) else {
        return Ok(NtStatus::NOT_FOUND);
    };
    let connection = Connection {
        routine: line.routine.address,
        context: line.context,
        spin_lock: line.spin_lock,
        vector: resource.vector,
        irql: resource.irql,
        synchronize_irql: line.synchronize_irql.max(resource.irql),
        latched: false,
        shared: true,
        affinity: resource.affinity,
    };
    connect(cx, object, &connection)
}

fn connect(
    cx: &mut Cx<'_>,
    object: DriverPtr<DriverPtr<KINTERRUPT>>,
    connection: &Connection,
) -> Flow<NtStatus> {
    let owner = driver::calling(cx);
    match interrupt::connect(cx, connection)? {
        Ok(connected) => {
            let connection = Connected { owner, at: witness::moment(cx) };
            cx.with(|k| k.io.interrupts.insert(connected.address, connection));
            cx.write(object, connected)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// `IoDisconnectInterrupt`: when it returns, the service routine does not run and will not.
///
/// # Errors
/// A verdict if the object is not connected.
pub fn disconnect_old(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>) -> Flow<()> {
    cx.with(|k| k.io.interrupts.remove(&object.address));
    interrupt::disconnect(cx, object)
}

/// `IoDisconnectInterruptEx`.
///
/// # Errors
/// As [`disconnect_old`].
pub fn disconnect_ex(cx: &mut Cx<'_>, parameters: DriverPtr<IO_DISCONNECT_INTERRUPT_PARAMETERS>) -> Flow<()> {
    let object =
        cx.read(parameters + IO_DISCONNECT_INTERRUPT_PARAMETERS::ConnectionContext_InterruptObject)?;
    disconnect_old(cx, object)
}
