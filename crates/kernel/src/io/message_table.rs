//! A device's messages, connected to one routine: the `IO_INTERRUPT_MESSAGE_INFO` that a driver gets, and what stands behind it.
//!
//! Pages: *IO_INTERRUPT_MESSAGE_INFO structure*, *IO_INTERRUPT_MESSAGE_INFO_ENTRY structure*, *Using the
//! CONNECT_MESSAGE_BASED Version of IoConnectInterruptEx*. Each message has an interrupt object; all have one spin lock and
//! one level, `UnifiedIrql`, so that the routine never overlaps itself; at PASSIVE_LEVEL they have one event.

use abi::{
    DriverPtr, IO_INTERRUPT_MESSAGE_INFO as TABLE, IO_INTERRUPT_MESSAGE_INFO_ENTRY as ENTRY,
    InterruptRisingEdge, KEVENT, KINTERRUPT, Latched, NtStatus,
};
use engine::Flow;

use super::driver;
use super::interrupt::{self, Line};
use crate::cx::Cx;
use crate::ke;
use crate::ke::interrupt::Connection;
use crate::ke::irql::PASSIVE_LEVEL;
use crate::mm::pool;
use crate::pnp;
use crate::pnp::message::Message;
use crate::verdict::Verdict;

/// Connects all messages of the device, of which there are some, and stores the table's address at `to`.
///
/// # Errors
/// A verdict if `to` cannot be written; [`engine::Leave`] of what interrupts meanwhile.
pub(super) fn connect(cx: &mut Cx<'_>, to: DriverPtr<DriverPtr<TABLE>>, request: &Line) -> Flow<NtStatus> {
    let messages = cx.with(|k| pnp::messages_of(k, request.device));
    let highest = messages.iter().map(|message| message.irql).max().unwrap_or(0);
    let unified = if request.passive { PASSIVE_LEVEL } else { request.synchronize_irql.max(highest) };
    let entries = TABLE::MessageInfo.offset() + messages.len() as u64 * size_of::<ENTRY>() as u64;
    // Behind the entries there is the lock, or event, of a driver that has none of its own.
    let bytes = entries + size_of::<KEVENT>() as u64;
    let table: DriverPtr<TABLE> = pool::allocate(cx, pool::Kind::NonPaged, bytes, pool::tag(b"IoMs"))?;
    if table.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let own = table.address + entries;
    if request.passive {
        ke::passive_isr::make_lock(cx, own)?;
    } else {
        cx.write(DriverPtr::<u64>::new(own), 0)?;
    }
    let spin_lock = if request.spin_lock == 0 { own } else { request.spin_lock };
    let set = Line { spin_lock, synchronize_irql: unified, ..*request };
    let objects = match connect_each(cx, &set, &messages)? {
        Ok(objects) => objects,
        Err(status) => {
            pool::free(cx, table)?;
            return Ok(status);
        }
    };
    fill(cx, table, &set, &messages, &objects)?;
    cx.with(|k| k.io.message_tables.insert(table.address, objects.iter().map(|o| o.address).collect()));
    for message in &messages {
        interrupt::let_through(cx, message.vector)?;
    }
    cx.write(to, table)?;
    Ok(NtStatus::SUCCESS)
}

impl Line {
    /// The level of one of its messages.
    const fn level_of(&self, message: &Message) -> u8 {
        if self.passive { PASSIVE_LEVEL } else { message.irql }
    }
}

/// An interrupt object for each message; none if one of them cannot be had.
fn connect_each(
    cx: &mut Cx<'_>,
    set: &Line,
    messages: &[Message],
) -> Flow<Result<Vec<DriverPtr<KINTERRUPT>>, NtStatus>> {
    let owner = driver::calling(cx);
    let mut objects = Vec::new();
    for message in messages {
        let connection = Connection {
            routine: set.routine.address,
            context: set.context,
            lock: set.spin_lock,
            vector: message.vector,
            irql: set.level_of(message),
            synchronize_irql: set.synchronize_irql,
            latched: true,
            shared: true,
            affinity: message.affinity,
            message: Some(message.number),
        };
        match ke::interrupt::connect(cx, &connection)? {
            Ok(object) => {
                interrupt::remember(cx, object, owner);
                objects.push(object);
            }
            Err(status) => {
                for object in objects {
                    interrupt::disconnect_old(cx, object)?;
                }
                return Ok(Err(status));
            }
        }
    }
    Ok(Ok(objects))
}

fn fill(
    cx: &mut Cx<'_>,
    table: DriverPtr<TABLE>,
    set: &Line,
    messages: &[Message],
    objects: &[DriverPtr<KINTERRUPT>],
) -> Flow<()> {
    cx.write(table + TABLE::UnifiedIrql, set.synchronize_irql)?;
    cx.write(table + TABLE::MessageCount, u32::try_from(messages.len()).unwrap_or(u32::MAX))?;
    let first: DriverPtr<ENTRY> = table + TABLE::MessageInfo;
    for (index, (message, object)) in (0_u64..).zip(messages.iter().zip(objects)) {
        let entry: DriverPtr<ENTRY> = DriverPtr::new(first.address + index * size_of::<ENTRY>() as u64);
        cx.write(entry + ENTRY::MessageAddress, message.address())?;
        cx.write(entry + ENTRY::TargetProcessorSet, message.affinity)?;
        cx.write(entry + ENTRY::InterruptObject, *object)?;
        cx.write(entry + ENTRY::MessageData, message.data())?;
        cx.write(entry + ENTRY::Vector, message.vector)?;
        cx.write(entry + ENTRY::Irql, set.level_of(message))?;
        cx.write(entry + ENTRY::Mode, Latched)?;
        cx.write(entry + ENTRY::Polarity, InterruptRisingEdge)?;
    }
    Ok(())
}

/// Disconnects all messages of a table, which is gone then: when this returns, the routine does not run and will not.
///
/// # Errors
/// A verdict if it is no table of connected messages.
pub(super) fn disconnect(cx: &mut Cx<'_>, table: DriverPtr<TABLE>) -> Flow<()> {
    let Some(objects) = cx.with(|k| k.io.message_tables.remove(&table.address)) else {
        let message = format!(
            "IoDisconnectInterruptEx was called with CONNECT_MESSAGE_BASED for {:#x}, which is no table of connected messages",
            table.address
        );
        return Err(cx.stop(Verdict::error("interrupt-not-connected", message)));
    };
    for object in objects {
        interrupt::disconnect_old(cx, DriverPtr::new(object))?;
    }
    pool::free(cx, table)
}
