//! Routines that drivers want called when the system stops.
//!
//! Pages: *KeRegisterBugCheckCallback function*, *KeRegisterBugCheckReasonCallback function*, *KBUGCHECK_CALLBACK_ROUTINE callback function*,
//! *Writing a Bug Check Callback Routine*. They run at HIGH_LEVEL on the processor that stopped, the others stand still, and what they
//! report is in memory and in the trace; no dump is written. Of the reasons only secondary dump data and added pages are called. A run that ends
//! without a bug check calls none. An error in one is reported with the verdict, and no other is called then.
#![allow(non_upper_case_globals, reason = "the reasons are Microsoft's, under Microsoft's names")]

use abi::{
    Code, DriverPtr, KBUGCHECK_ADD_PAGES, KBUGCHECK_CALLBACK_RECORD, KBUGCHECK_REASON_CALLBACK_RECORD,
    KBUGCHECK_SECONDARY_DUMP_DATA, KbCallbackAddPages, KbCallbackSecondaryDumpData,
};
use engine::Flow;
use engine::windows::PAGE;

use super::calls::{callout::call_routine, stack};
use crate::cx::Cx;
use crate::event::Role;
use crate::exports::data;
use crate::mm::pool;

/// `BUGCHECK_CALLBACK_RECORD::State`.
const EMPTY: u8 = abi::BufferEmpty;
const INSERTED: u8 = abi::BufferInserted;
const STARTED: u8 = abi::BufferStarted;
const FINISHED: u8 = abi::BufferFinished;
/// The highest level.
const HIGH_LEVEL: u8 = 15;
/// `KB_ADD_PAGES_FLAG_ADDITIONAL_RANGES_EXIST`.
const MORE_RANGES: u32 = 0x8000_0000;
/// So many ranges a routine may add.
const MOST_RANGES: u32 = 1 << 16;

/// A record that is registered.
#[derive(Clone, Copy)]
pub(crate) struct Registered {
    at: u64,
    pub(crate) routine: DriverPtr<Code>,
    /// None for [`register`].
    reason: Option<u32>,
}

/// Registered records, in their order.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) records: Vec<Registered>,
}

type Record = DriverPtr<KBUGCHECK_CALLBACK_RECORD>;
type ReasonRecord = DriverPtr<KBUGCHECK_REASON_CALLBACK_RECORD>;

/// `KeRegisterBugCheckCallback`: false if the record is in use.
///
/// # Errors
/// A verdict if the record is bad.
pub(crate) fn register(
    cx: &mut Cx<'_>,
    record: Record,
    routine: DriverPtr<Code>,
    buffer: DriverPtr<()>,
    length: u32,
    component: DriverPtr<u8>,
) -> Flow<bool> {
    if cx.read(record + KBUGCHECK_CALLBACK_RECORD::State)? != EMPTY {
        return Ok(false);
    }
    let sum = routine.address.wrapping_add(buffer.address).wrapping_add(length.into());
    cx.write(record + KBUGCHECK_CALLBACK_RECORD::CallbackRoutine, routine)?;
    cx.write(record + KBUGCHECK_CALLBACK_RECORD::Buffer, buffer)?;
    cx.write(record + KBUGCHECK_CALLBACK_RECORD::Length, length)?;
    cx.write(record + KBUGCHECK_CALLBACK_RECORD::Component, component)?;
    cx.write(record + KBUGCHECK_CALLBACK_RECORD::Checksum, sum.wrapping_add(component.address))?;
    cx.write(record + KBUGCHECK_CALLBACK_RECORD::State, INSERTED)?;
    let registered = Registered { at: record.address, routine, reason: None };
    cx.with(|k| k.ke.bug_check.records.push(registered));
    Ok(true)
}

/// `KeRegisterBugCheckReasonCallback`: false if the record is in use.
///
/// # Errors
/// A verdict if the record is bad.
pub(crate) fn register_reason(
    cx: &mut Cx<'_>,
    record: ReasonRecord,
    routine: DriverPtr<Code>,
    reason: u32,
    component: DriverPtr<u8>,
) -> Flow<bool> {
    if cx.read(record + KBUGCHECK_REASON_CALLBACK_RECORD::State)? != EMPTY {
        return Ok(false);
    }
    let sum = routine.address.wrapping_add(reason.into()).wrapping_add(component.address);
    cx.write(record + KBUGCHECK_REASON_CALLBACK_RECORD::CallbackRoutine, routine)?;
    cx.write(record + KBUGCHECK_REASON_CALLBACK_RECORD::Component, component)?;
    cx.write(record + KBUGCHECK_REASON_CALLBACK_RECORD::Checksum, sum)?;
    cx.write(record + KBUGCHECK_REASON_CALLBACK_RECORD::Reason, reason)?;
    cx.write(record + KBUGCHECK_REASON_CALLBACK_RECORD::State, INSERTED)?;
    let registered = Registered { at: record.address, routine, reason: Some(reason) };
    cx.with(|k| k.ke.bug_check.records.push(registered));
    Ok(true)
}

/// Takes a record off the list; whether it was there.
fn forget(cx: &mut Cx<'_>, at: u64) -> bool {
    cx.with(|k| {
        let records = &mut k.ke.bug_check.records;
        let before = records.len();
        records.retain(|record| record.at != at);
        records.len() < before
    })
}

/// `KeDeregisterBugCheckCallback`: false if it is not registered.
///
/// # Errors
/// A verdict if the record is bad.
pub(crate) fn deregister(cx: &mut Cx<'_>, record: Record) -> Flow<bool> {
    let was = forget(cx, record.address);
    if was {
        cx.write(record + KBUGCHECK_CALLBACK_RECORD::State, EMPTY)?;
    }
    Ok(was)
}

/// `KeDeregisterBugCheckReasonCallback`: false if it is not registered.
///
/// # Errors
/// A verdict if the record is bad.
pub(crate) fn deregister_reason(cx: &mut Cx<'_>, record: ReasonRecord) -> Flow<bool> {
    let was = forget(cx, record.address);
    if was {
        cx.write(record + KBUGCHECK_REASON_CALLBACK_RECORD::State, EMPTY)?;
    }
    Ok(was)
}

/// The machine has stopped, and this strand with it, which has left all of its routines: if Windows would stop with a bug check, the
/// routines run now.
pub(crate) fn call_all(cx: &mut Cx<'_>) {
    let records = cx.with(|k| std::mem::take(&mut k.ke.bug_check.records));
    if records.is_empty() || !cx.nt().reopen_for_callbacks() {
        return;
    }
    let base = cx.with(|k| {
        k.ke.processor_mut().interrupts_enabled = false;
        k.set_level(k.ke.current, HIGH_LEVEL);
        k.ke.processor().interrupt_stack
    });
    if let Some(check) = cx.nt().verdict().and_then(|verdict| verdict.bug_check) {
        data::set_bug_check(cx, check.code, check.parameters);
    }
    for record in records {
        // The error of a routine that fails is reported with the verdict.
        let called = stack::on(cx, base, |cx| match record.reason {
            None => call(cx, record),
            Some(KbCallbackSecondaryDumpData) => secondary_dump_data(cx, record),
            Some(KbCallbackAddPages) => add_pages(cx, record),
            Some(_) => Ok(()),
        });
        if called.is_err() {
            break;
        }
    }
    cx.nt().close_after_callbacks();
}

fn call(cx: &mut Cx<'_>, registered: Registered) -> Flow<()> {
    let record = Record::new(registered.at);
    let buffer = cx.read(record + KBUGCHECK_CALLBACK_RECORD::Buffer)?;
    let length = cx.read(record + KBUGCHECK_CALLBACK_RECORD::Length)?;
    cx.write(record + KBUGCHECK_CALLBACK_RECORD::State, STARTED)?;
    let arguments = [buffer.address, length.into()];
    call_routine(cx, Role::BugCheckCallback, registered.routine, registered.at, &arguments)?;
    cx.write(record + KBUGCHECK_CALLBACK_RECORD::State, FINISHED)
}

fn call_for_reason(cx: &mut Cx<'_>, registered: Registered, data: u64, bytes: usize) -> Flow<()> {
    let reason = registered.reason.unwrap_or_default();
    let arguments = [reason.into(), registered.at, data, bytes as u64];
    call_routine(cx, Role::BugCheckReasonCallback, registered.routine, registered.at, &arguments).map(|_| ())
}

/// A page for what the driver has to say. Without memory it is not asked.
fn secondary_dump_data(cx: &mut Cx<'_>, registered: Registered) -> Flow<()> {
    type Data = KBUGCHECK_SECONDARY_DUMP_DATA;
    let page: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, PAGE, pool::tag(b"Dump"))?;
    let data: DriverPtr<Data> =
        pool::allocate(cx, pool::Kind::NonPaged, size_of::<Data>() as u64, pool::tag(b"Dump"))?;
    if page.is_null() || data.is_null() {
        return Ok(());
    }
    let length = u32::try_from(PAGE).unwrap_or(0);
    cx.write(data + Data::InBuffer, page)?;
    cx.write(data + Data::InBufferLength, length)?;
    cx.write(data + Data::MaximumAllowed, length)?;
    call_for_reason(cx, registered, data.address, size_of::<Data>())
}

fn add_pages(cx: &mut Cx<'_>, registered: Registered) -> Flow<()> {
    type Data = KBUGCHECK_ADD_PAGES;
    let data: DriverPtr<Data> =
        pool::allocate(cx, pool::Kind::NonPaged, size_of::<Data>() as u64, pool::tag(b"Dump"))?;
    if data.is_null() {
        return Ok(());
    }
    let code = cx.nt().verdict().and_then(|verdict| verdict.bug_check).map_or(0, |check| check.code);
    cx.write(data + Data::BugCheckCode, code)?;
    for _ in 0..MOST_RANGES {
        call_for_reason(cx, registered, data.address, size_of::<Data>())?;
        if cx.read(data + Data::Flags)? & MORE_RANGES == 0 {
            break;
        }
    }
    Ok(())
}
