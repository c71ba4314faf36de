//! Connecting interrupts, in every documented form.
//!
//! Pages: *IoConnectInterruptEx function*, *IO_CONNECT_INTERRUPT_PARAMETERS structure*, *Using the
//! CONNECT_MESSAGE_BASED Version of IoConnectInterruptEx*, *IO_INTERRUPT_MESSAGE_INFO structure*, *IoConnectInterrupt
//! function*, *Using Passive-Level Interrupt Service Routines*, *Using IoConnectInterruptEx Prior to Windows Vista*,
//! *Making an ISR Active or Inactive*. What a connection does is `ke::interrupt`; the table of a device's messages is
//! `io::message_table`. *Ours*, where the pages say nothing: the status of a platform that knows only `CONNECT_FULLY_SPECIFIED`,
//! and that a routine at PASSIVE_LEVEL with another SynchronizeIrql is refused.

use abi::{
    CONNECT_FULLY_SPECIFIED, CONNECT_FULLY_SPECIFIED_GROUP, CONNECT_LINE_BASED, CONNECT_MESSAGE_BASED,
    CONNECT_MESSAGE_BASED_PASSIVE, Code, DEVICE_OBJECT, DriverPtr,
    IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS as FULL,
    IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS as LINE,
    IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS as MESSAGE, IO_CONNECT_INTERRUPT_PARAMETERS,
    IO_DISCONNECT_INTERRUPT_PARAMETERS, IO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS, KINTERRUPT, Latched,
    NtStatus,
};
use engine::Flow;

use super::{driver, message_table};
use crate::cx::{Cx, Kernel};
use crate::ke::interrupt::{self, Connection};
use crate::ke::irql::PASSIVE_LEVEL;
use crate::ke::vectors::of_processors;
use crate::ke::{affinity, interrupt_delivery};
use crate::nt::WindowsVersion;
use crate::pnp;
use crate::pnp::message::set_masked;
use crate::verdict::Verdict;
use crate::witness;

/// Who connected an interrupt object, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connected {
    /// The driver.
    pub(crate) owner: Option<u64>,
    /// The moment.
    pub(crate) at: u64,
}

/// `IoConnectInterrupt`.
///
/// # Errors
/// A verdict if `object` cannot be written.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn connect_old(
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
    floating_save: bool,
) -> Flow<NtStatus> {
    advise(cx, floating_save);
    if synchronize_irql == PASSIVE_LEVEL {
        // Only IoConnectInterruptEx has those.
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let connection = Connection {
        routine: routine.address,
        context,
        lock: spin_lock,
        vector,
        irql,
        synchronize_irql,
        latched: mode == Latched,
        shared,
        affinity: cx.with(|k| affinity::in_group(k, 0, affinity)),
        message: None,
    };
    connect(cx, object, &connection)
}

/// `IoConnectInterruptEx`: `INVALID_PARAMETER_1` for an unknown version, `INVALID_PARAMETER` without a physical device object,
/// `INVALID_PARAMETER_10` without a processor, `NOT_FOUND` if the device has no such interrupt, `INVALID_DEVICE_REQUEST` for
/// one line of a device with several messages, `NOT_SUPPORTED` and `CONNECT_FULLY_SPECIFIED` in `Version` for any other on a
/// platform that knows only that; else as [`interrupt::connect`].
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn connect_ex(
    cx: &mut Cx<'_>,
    parameters: DriverPtr<IO_CONNECT_INTERRUPT_PARAMETERS>,
) -> Flow<NtStatus> {
    let version = parameters + IO_CONNECT_INTERRUPT_PARAMETERS::Version;
    match cx.read(version)? {
        CONNECT_FULLY_SPECIFIED => fully_specified(cx, parameters, false),
        CONNECT_FULLY_SPECIFIED_GROUP => fully_specified(cx, parameters, true),
        _ if cx.with(|k| k.hal.platform.fully_specified) => {
            cx.write(version, CONNECT_FULLY_SPECIFIED)?;
            Ok(NtStatus::NOT_SUPPORTED)
        }
        CONNECT_LINE_BASED => line_based(cx, parameters),
        CONNECT_MESSAGE_BASED => message_based(cx, parameters, false),
        CONNECT_MESSAGE_BASED_PASSIVE if cx.with(|k| has_passive(k)) => message_based(cx, parameters, true),
        _ => Ok(NtStatus::INVALID_PARAMETER_1),
    }
}

/// `FloatingSave` TRUE changes nothing on x64, and is wrong in a driver that is built for x86 too.
fn advise(cx: &mut Cx<'_>, floating_save: bool) {
    if floating_save {
        let message =
            "an interrupt was connected with FloatingSave TRUE: x64 ignores it, and on x86 it must be FALSE";
        cx.report(Verdict::advice("floating-save", message));
    }
}

/// A line of a PCI device that cannot be shared: another device of the line cannot be used then.
fn advise_to_share(cx: &mut Cx<'_>, connection: &Connection) {
    if !connection.shared && interrupt::line_of_vector(connection.vector).is_some() {
        let message =
            "an interrupt line was connected with ShareVector FALSE: a line of the PCI bus must be shareable";
        cx.report(Verdict::advice("line-not-shared", message));
    }
}

/// A vector that no device of the driver's was given: what its devices signal does not come here. A raw one is mostly none that can be connected at all.
fn warn_of_others(cx: &mut Cx<'_>, connection: &Connection, owner: Option<u64>) {
    let vector = connection.vector;
    let Some(given) = owner.and_then(|owner| cx.with(|k| pnp::node::other_vectors(k, owner, vector))) else {
        return;
    };
    let message = format!(
        "the driver connects to the interrupt vector {vector:#x}, which was given to none of its devices: {given}"
    );
    cx.report(Verdict::warning("interrupt-not-assigned", message));
}

/// Whether this Windows has service routines at PASSIVE_LEVEL: from Windows 8 on.
fn has_passive(k: &Kernel) -> bool {
    k.ke.windows > WindowsVersion::Win7
}

fn fully_specified(
    cx: &mut Cx<'_>,
    parameters: DriverPtr<IO_CONNECT_INTERRUPT_PARAMETERS>,
    with_group: bool,
) -> Flow<NtStatus> {
    let full = parameters + IO_CONNECT_INTERRUPT_PARAMETERS::FullySpecified;
    let group = if with_group { cx.read(full + FULL::Group)? } else { 0 };
    let floating_save = cx.read(full + FULL::FloatingSave)? != 0;
    advise(cx, floating_save);
    let mask = cx.read(full + FULL::ProcessorEnableMask)?;
    let vector = cx.read(full + FULL::Vector)?;
    let connection = Connection {
        routine: cx.read(full + FULL::ServiceRoutine)?.address,
        context: cx.read(full + FULL::ServiceContext)?.address,
        lock: cx.read(full + FULL::SpinLock)?.address,
        vector: of_processors(vector),
        irql: cx.read(full + FULL::Irql)?,
        synchronize_irql: cx.read(full + FULL::SynchronizeIrql)?,
        latched: cx.read(full + FULL::InterruptMode)? == Latched,
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
    let Some(level) = cx.with(|k| level_of(k, device, vector)) else {
        return Ok(NtStatus::NOT_FOUND);
    };
    let wrong = if connection.is_passive() {
        connection.lock != 0 || !cx.with(|k| has_passive(k))
    } else {
        level == PASSIVE_LEVEL
    };
    if wrong {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let object = cx.read(full + FULL::InterruptObject)?;
    connect(cx, object, &connection)
}

/// The level of a vector that a device was given.
fn level_of(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>, vector: u32) -> Option<u8> {
    let line = pnp::interrupt_of(k, device).map(|interrupt| (interrupt.vector, interrupt.irql));
    let messages = pnp::messages_of(k, device);
    let mut all = line.into_iter().chain(messages.iter().map(|message| (message.vector, message.irql)));
    all.find(|(given, _)| *given == vector).map(|(_, level)| level)
}

fn line_based(cx: &mut Cx<'_>, parameters: DriverPtr<IO_CONNECT_INTERRUPT_PARAMETERS>) -> Flow<NtStatus> {
    let line = parameters + IO_CONNECT_INTERRUPT_PARAMETERS::LineBased;
    let request = Line {
        device: cx.read(line + LINE::PhysicalDeviceObject)?,
        routine: cx.read(line + LINE::ServiceRoutine)?,
        context: cx.read(line + LINE::ServiceContext)?.address,
        spin_lock: cx.read(line + LINE::SpinLock)?.address,
        synchronize_irql: cx.read(line + LINE::SynchronizeIrql)?,
        passive: false,
    };
    let floating_save = cx.read(line + LINE::FloatingSave)? != 0;
    advise(cx, floating_save);
    let object = cx.read(line + LINE::InterruptObject)?;
    connect_line(cx, object, &request)
}

/// The device's messages are connected, all of them; or, if it has none, its line to the fall-back routine, if there are both.
fn message_based(
    cx: &mut Cx<'_>,
    parameters: DriverPtr<IO_CONNECT_INTERRUPT_PARAMETERS>,
    passive: bool,
) -> Flow<NtStatus> {
    let message = parameters + IO_CONNECT_INTERRUPT_PARAMETERS::MessageBased;
    let fall_back = Line {
        device: cx.read(message + MESSAGE::PhysicalDeviceObject)?,
        routine: cx.read(message + MESSAGE::FallBackServiceRoutine)?,
        context: cx.read(message + MESSAGE::ServiceContext)?.address,
        spin_lock: cx.read(message + MESSAGE::SpinLock)?.address,
        synchronize_irql: cx.read(message + MESSAGE::SynchronizeIrql)?,
        passive,
    };
    let floating_save = cx.read(message + MESSAGE::FloatingSave)? != 0;
    advise(cx, floating_save);
    if fall_back.device.is_null() || !fall_back.is_possible() {
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
        cx.write(parameters + IO_CONNECT_INTERRUPT_PARAMETERS::Version, CONNECT_LINE_BASED)?;
    }
    Ok(status)
}

/// A connection to what Plug and Play gave a device, whatever its vectors.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub(super) device: DriverPtr<DEVICE_OBJECT>,
    pub(super) routine: DriverPtr<Code>,
    pub(super) context: u64,
    pub(super) spin_lock: u64,
    /// 0: that of the line, or the highest of the messages.
    pub(super) synchronize_irql: u8,
    /// The routine is to run at PASSIVE_LEVEL.
    pub(super) passive: bool,
}

impl Line {
    /// Whether a routine at PASSIVE_LEVEL, if it is one, has no lock and no level of its own.
    fn is_possible(&self) -> bool {
        !self.passive || (self.spin_lock == 0 && self.synchronize_irql == PASSIVE_LEVEL)
    }
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
    // The level of a line that is relayed: nothing else can be done for it.
    let line = Line { passive: line.passive || irql == PASSIVE_LEVEL, ..*line };
    if !line.is_possible() || (line.passive && !cx.with(|k| has_passive(k))) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let irql = if line.passive { PASSIVE_LEVEL } else { irql };
    let connection = Connection {
        routine: line.routine.address,
        context: line.context,
        lock: line.spin_lock,
        vector: of_processors(vector),
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
            advise_to_share(cx, connection);
            warn_of_others(cx, connection, owner);
            remember(cx, connected, owner);
            let_through(cx, connection.vector)?;
            cx.write(object, connected)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => {
            if status == NtStatus::INVALID_PARAMETER {
                warn_of_others(cx, connection, owner);
            }
            Ok(status)
        }
    }
}

/// A routine is connected to `vector`: if it is a message's, its function may send it. What pended comes now, maybe before the
/// caller knows that it is connected.
pub(super) fn let_through(cx: &mut Cx<'_>, vector: u32) -> Flow<()> {
    if interrupt::line_of_vector(vector).is_none() {
        cx.with(|k| set_masked(k, vector, false));
        interrupt_delivery::observe(cx);
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
pub(crate) fn disconnect_old(cx: &mut Cx<'_>, object: DriverPtr<KINTERRUPT>) -> Flow<()> {
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
pub(crate) fn disconnect_ex(
    cx: &mut Cx<'_>,
    parameters: DriverPtr<IO_DISCONNECT_INTERRUPT_PARAMETERS>,
) -> Flow<()> {
    let context = parameters + IO_DISCONNECT_INTERRUPT_PARAMETERS::ConnectionContext_InterruptMessageTable;
    let context = cx.read(context)?;
    if of_table(cx.read(parameters + IO_DISCONNECT_INTERRUPT_PARAMETERS::Version)?) {
        return message_table::disconnect(cx, context);
    }
    disconnect_old(cx, DriverPtr::new(context.address))
}

/// Whether the context of a connection of this version is a table of messages.
const fn of_table(version: u32) -> bool {
    matches!(version, CONNECT_MESSAGE_BASED | CONNECT_MESSAGE_BASED_PASSIVE)
}

/// `IoReportInterruptActive`: the routine is called again; what its device asks for comes now.
///
/// # Errors
/// A verdict if the context is none of the version's kind; whatever comes.
pub(crate) fn report_active(
    cx: &mut Cx<'_>,
    parameters: DriverPtr<IO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS>,
) -> Flow<()> {
    report(cx, parameters, "IoReportInterruptActive", true)
}

/// `IoReportInterruptInactive`: the routine is not called until [`report_active`]; it may be running.
///
/// # Errors
/// A verdict if the context is none of the version's kind.
pub(crate) fn report_inactive(
    cx: &mut Cx<'_>,
    parameters: DriverPtr<IO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS>,
) -> Flow<()> {
    report(cx, parameters, "IoReportInterruptInactive", false)
}

fn report(
    cx: &mut Cx<'_>,
    parameters: DriverPtr<IO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS>,
    name: &str,
    active: bool,
) -> Flow<()> {
    let version = cx.read(parameters + IO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS::Version)?;
    let context =
        cx.read(parameters + IO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS::ConnectionContext_Generic)?.address;
    let objects = cx.with(|k| match of_table(version) {
        true => k.io.message_tables.get(&context).cloned(),
        false => k.io.interrupts.contains_key(&context).then(|| vec![context]),
    });
    let Some(objects) = objects else {
        let kind =
            if of_table(version) { "table of connected messages" } else { "connected interrupt object" };
        let message =
            format!("{name} was called with version {version} for {context:#x}, which is no {kind}");
        return Err(cx.stop(Verdict::error("interrupt-not-connected", message)));
    };
    for object in objects {
        let vector = cx.with(|k| {
            interrupt::set_active(k, object, active);
            interrupt::vector_of(k, object).filter(|vector| interrupt::line_of_vector(*vector).is_none())
        });
        if let Some(vector) = vector {
            cx.with(|k| set_masked(k, vector, !interrupt::is_active(k, vector)));
        }
    }
    interrupt::deliver(cx)
}
