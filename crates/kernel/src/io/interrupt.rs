//! Connecting interrupts, in every documented form.
//!
//! Pages: *IoConnectInterruptEx function*, *IO_CONNECT_INTERRUPT_PARAMETERS structure*, *Using the
//! CONNECT_MESSAGE_BASED Version of IoConnectInterruptEx*, *IO_INTERRUPT_MESSAGE_INFO structure*, *IoConnectInterrupt
//! function*. Service routines at PASSIVE_LEVEL are not there. What a connection does is `ke::interrupt`; the table of a
//! device's messages is `io::message_table`.

use abi::{
    Code, DEVICE_OBJECT, DriverPtr, IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS as FULL,
    IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS as LINE,
    IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS as MESSAGE, IO_CONNECT_INTERRUPT_PARAMETERS,
    IO_DISCONNECT_INTERRUPT_PARAMETERS, KINTERRUPT, NtStatus,
};
use engine::Flow;

use super::{driver, message_table};
use crate::cx::{Cx, Kernel};
use crate::ke::interrupt::{self, Connection};
use crate::ke::{affinity, line};
use crate::pnp;
use crate::pnp::message::set_masked;
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
        message: None,
    };
    connect(cx, object, &connection)
}

/// `IoConnectInterruptEx`: `INVALID_PARAMETER_1` for an unknown version, `INVALID_PARAMETER` without a physical device object,
/// `INVALID_PARAMETER_10` without a processor, `NOT_FOUND` if the device has no such interrupt, `INVALID_DEVICE_REQUEST` for
/// one line of a device with several messages; else as [`interrupt::connect`].
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn connect_ex(cx: &mut Cx<'_>, parameters: DriverPtr<IO_CONNECT_INTERRUPT_PARAMETERS>) -> Flow<NtStatus> {
    match cx.read(parameters + IO_CONNECT_INTERRUPT_PARAMETERS::Version)? {
        version::FULLY_SPECIFIED => fully_specified(cx, parameters, false),
        version::FULLY_SPECIFIED_GROUP => fully_specified(cx, parameters, true),
        version::LINE_BASED => line_based(cx, parameters),
        version::MESSAGE_BASED => message_based(cx, parameters),
        _ => Ok(NtStatus::INVALID_PARAMETER_1),
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
        message: None,
    };
    let device = cx.read(full + FULL::PhysicalDeviceObject)?;
    if device.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    if mask == 0 {
        return Ok(NtStatus::INVALID_PARAMETER_10);
    }
    if !cx.with(|k| has_vector(k, device, connection.vector)) {
        return Ok(NtStatus::NOT_FOUND);
    }
    let object = cx.read(full + FULL::InterruptObject)?;
    connect(cx, object, &connection)
}

/// Whether a device was given a vector.
fn has_vector(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>, vector: u32) -> bool {
    pnp::interrupt_of(k, device).is_some_and(|interrupt| interrupt.vector == vector)
        || pnp::messages_of(k, device).iter().any(|message| message.vector == vector)
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

/// The device's messages are connected, all of them; or, if it has none, its line to the fall-back routine, if there are both.
fn message_based(cx: &mut Cx<'_>, parameters: DriverPtr<IO_CONNECT_INTERRUPT_PARAMETERS>) -> Flow<NtStatus> {
    let message = parameters + IO_CONNECT_INTERRUPT_PARAMETERS::MessageBased;
    let fall_back = Line {
        device: cx.read(message + MESSAGE::PhysicalDeviceObject)?,
        routine: cx.read(message + MESSAGE::FallBackServiceRoutine)?,
        context: cx.read(message + MESSAGE::ServiceContext)?.address,
        spin_lock: cx.read(message + MESSAGE::SpinLock)?.address,
        synchronize_irql: cx.read(message + MESSAGE::SynchronizeIrql)?,
    };
    if fall_back.device.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    if !cx.with(|k| pnp::messages_of(k, fall_back.device)).is_empty() {
        let routine = cx.read(message + MESSAGE::MessageServiceRoutine)?;
        let table = cx.read(message + MESSAGE::ConnectionContext_InterruptMessageTable)?;
        return message_table::connect(cx, table, &Line { routine, ..fall_back });
    }
    if fall_back.routine.is_null() {
        return Ok(NtStatus::NOT_FOUND);
    }
    let object = cx.read(message + MESSAGE::ConnectionContext_InterruptObject)?;
    let status = connect_line(cx, object, &fall_back)?;
    if status.is_success() {
        cx.write(parameters + IO_CONNECT_INTERRUPT_PARAMETERS::Version, version::LINE_BASED)?;
    }
    Ok(status)
}

/// A connection to what Plug and Play gave a device, whatever its vectors.
pub(super) struct Line {
    pub(super) device: DriverPtr<DEVICE_OBJECT>,
    pub(super) routine: DriverPtr<Code>,
    pub(super) context: u64,
    pub(super) spin_lock: u64,
    /// 0: that of the line, or the highest of the messages.
    pub(super) synchronize_irql: u8,
}

fn connect_line(cx: &mut Cx<'_>, object: DriverPtr<DriverPtr<KINTERRUPT>>, line: &Line) -> Flow<NtStatus> {
    if line.device.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let (resource, messages) =
        cx.with(|k| (pnp::interrupt_of(k, line.device), pnp::messages_of(k, line.device)));
    let (vector, irql, affinity, latched) = match (resource, messages.as_slice()) {
        (Some(line), _) => (line.vector, line.irql, line.affinity, false),
        (None, [only]) => (only.vector, only.irql, only.affinity, true),
        (None, []) => return Ok(NtStatus::NOT_FOUND),
        (None, _) => return Ok(NtStatus::INVALID_DEVICE_REQUEST),
    };
    let connection = Connection {
        routine: line.routine.address,
        context: line.context,
        spin_lock: line.spin_lock,
        vector,
        irql,
        synchronize_irql: line.synchronize_irql.max(irql),
        latched,
        shared: true,
        affinity,
        message: None,
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
            remember(cx, connected, owner);
            let_through(cx, connection.vector)?;
            cx.write(object, connected)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// Somebody is connected to `vector`: if it is a message's, its function may send it. What pended comes now, maybe before the
/// caller knows that it is connected.
pub(super) fn let_through(cx: &mut Cx<'_>, vector: u32) -> Flow<()> {
    if interrupt::line_of_vector(vector).is_none() {
        cx.with(|k| set_masked(k, vector, false));
        line::observe(cx);
        interrupt::come_early(cx, vector)?;
    }
    Ok(())
}

/// A driver has connected `object`.
pub(super) fn remember(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>, owner: Option<u64>) {
    let connected = Connected { owner, at: witness::moment(cx) };
    cx.with(|k| k.io.interrupts.insert(object.address, connected));
}

/// `IoDisconnectInterrupt`: when it returns, the service routine does not run and will not.
///
/// # Errors
/// A verdict if the object is not connected.
pub fn disconnect_old(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>) -> Flow<()> {
    cx.with(|k| {
        k.io.interrupts.remove(&object.address);
        // The last one on a message's vector.
        if let Some(vector) = interrupt::vector_of(k, object.address)
            && interrupt::is_alone_on(k, vector)
        {
            set_masked(k, vector, true);
        }
    });
    interrupt::disconnect(cx, object)
}

/// `IoDisconnectInterruptEx`.
///
/// # Errors
/// As [`disconnect_old`]; a verdict for a table of messages that is none.
pub fn disconnect_ex(cx: &mut Cx<'_>, parameters: DriverPtr<IO_DISCONNECT_INTERRUPT_PARAMETERS>) -> Flow<()> {
    let context = parameters + IO_DISCONNECT_INTERRUPT_PARAMETERS::ConnectionContext_InterruptMessageTable;
    let context = cx.read(context)?;
    if cx.read(parameters + IO_DISCONNECT_INTERRUPT_PARAMETERS::Version)? == version::MESSAGE_BASED {
        return message_table::disconnect(cx, context);
    }
    disconnect_old(cx, DriverPtr::new(context.address))
}
