//! The export table: the one place where an export is a name, an IRQL contract, an event and a choice point.
//!
//! `functions.rs` has one line an export, sorted; adding an export edits no second place. [`dispatch`] is where every
//! call of a driver arrives.

pub(crate) mod arguments;
pub mod data;
pub mod documented;
mod functions;
mod internal;
mod refusals;
mod se_exports;
#[cfg(test)]
mod tests;

use engine::{Args, Flow};

pub use arguments::{FromArgument, IntoResult};
pub use functions::FUNCTIONS;
pub use internal::INTERNAL;

use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::hal;
use crate::ke::budget;
use crate::ke::history::{self, Operation};
use crate::ke::scheduler;
use crate::ke::settle::Gate;
use crate::ldr::STUBBED;
use crate::ldr::between::callback::{self, Moment};
use crate::verdict::{Tier, Verdict};
use crate::wdf::ddis::DDIS;
use crate::wdf::{callbacks, table};

/// One exported function.
pub struct Export {
    /// `KeSetEvent`.
    pub name: &'static str,
    /// The module whose documentation it stands in; a driver may import what is in one of `ntoskrnl.exe` and
    /// `hal.dll` from the other, too.
    pub module: &'static str,
    /// The lowest legal IRQL.
    pub irql_min: u8,
    /// The highest legal IRQL.
    pub irql_max: u8,
    /// What a call at another IRQL is: an error, unless the routine is harmless there.
    pub irql_tier: Tier,
    /// The lowest and the highest IRQL that Windows survives: what lies outside the legal ones is Driver Verifier's alone to stop for.
    pub survives: (u8, u8),
    /// A wait as a routine with Wait TRUE promises that one comes next.
    pub is_wait: bool,
    /// What it returns where it fails though its arguments are right, if it may: see `refusals.rs`.
    pub refusal: Option<u64>,
    /// A `Zw` routine: see `ke::system_service`.
    pub system_service: bool,
    /// Decodes the arguments and calls the service.
    pub call: fn(&mut Cx<'_>, &Args) -> Flow<u64>,
}

impl Export {
    #[inline]
    fn allows(&self, irql: u8) -> bool {
        (self.irql_min..=self.irql_max).contains(&irql)
    }

    const fn survives(&self, irql: u8) -> bool {
        self.survives.0 <= irql && irql <= self.survives.1
    }

    /// Whether Windows would go on where this is called at APC_LEVEL instead of PASSIVE_LEVEL: pages come in there, but files and their volumes are
    /// waited for by APCs.
    fn runs_at_apc_level(&self, irql: u8) -> bool {
        const FILES: [&str; 4] = ["File", "ZwLoadDriver", "ZwUnloadDriver", "VolumeDevice"];
        irql == 1 && self.irql_max == 0 && !FILES.iter().any(|part| self.name.contains(part))
    }
}

/// How many rows there are; their numbers begin at 0.
#[must_use]
pub const fn rows() -> usize {
    own_rows() + DDIS.len()
}

/// The rows of [`FUNCTIONS`] and [`INTERNAL`].
pub(crate) const fn own_rows() -> usize {
    FUNCTIONS.len() + INTERNAL.len()
}

/// The row with this number: those of [`FUNCTIONS`], then those of [`INTERNAL`], then those of [`DDIS`].
#[must_use]
pub fn row(number: u32) -> Option<&'static Export> {
    own_row(number).or_else(|| DDIS.get(ddi(number)?))
}

/// The number of a framework's function, by its index in clients' tables.
pub(crate) fn number_of_ddi(index: usize) -> u32 {
    u32::try_from(own_rows() + index).expect("the tables are far smaller")
}

/// The index of the framework's function that has this number, if it is one's.
fn ddi(number: u32) -> Option<usize> {
    let index = (number as usize).checked_sub(own_rows())?;
    (index < DDIS.len()).then_some(index)
}

#[inline]
fn own_row(number: u32) -> Option<&'static Export> {
    match FUNCTIONS.get(number as usize) {
        Some(export) => Some(export),
        None => internal(number),
    }
}

#[cold]
#[inline(never)]
fn internal(number: u32) -> Option<&'static Export> {
    INTERNAL.get((number as usize).checked_sub(FUNCTIONS.len())?)
}

/// A driver called row `number`. What seldom happens stands in functions of its own: room for it on the stack and in registers
/// would cost each call more than the services that are called most.
#[inline]
pub(crate) fn dispatch(cx: &mut Cx<'_>, number: u32, args: &Args) -> Flow<u64> {
    match FUNCTIONS.get(number as usize) {
        Some(export) => dispatch_to(cx, number, export, args),
        None => dispatch_behind(cx, number, args),
    }
}

/// The same, of what lies behind the exports.
#[inline(never)]
fn dispatch_behind(cx: &mut Cx<'_>, number: u32, args: &Args) -> Flow<u64> {
    if let Some(index) = ddi(number) {
        return dispatch_ddi(cx, number, index, args);
    }
    match callback::moment(number) {
        Some(Moment::Before(slot)) => callbacks::enter(cx, slot, args),
        Some(Moment::Behind(slot)) => callbacks::leave(cx, slot, args),
        None => match internal(number) {
            Some(export) => dispatch_to(cx, number, export, args),
            None => dispatch_other(cx, number, args),
        },
    }
}

#[inline]
fn dispatch_to(cx: &mut Cx<'_>, number: u32, export: &Export, args: &Args) -> Flow<u64> {
    scheduler::before_call(cx)?;
    note_call(cx, number, args);
    look(cx, export)?;
    history::operates(cx, Operation::Call, number.into());
    let value = match export.refusal {
        None => serve(cx, export, args)?,
        Some(failure) => refusals::call(cx, export, failure, |cx| serve(cx, export, args))?,
    };
    if cx.count_event(Kind::Return) {
        tell_return(cx, number, value);
    }
    Ok(value)
}

/// Has the service do it.
#[inline]
fn serve(cx: &mut Cx<'_>, export: &Export, args: &Args) -> Flow<u64> {
    if export.system_service {
        crate::ke::system_service::call(cx, export, args)
    } else {
        (export.call)(cx, args)
    }
}

/// A client called a function of its framework: it goes on at the address that is returned.
#[inline]
fn dispatch_ddi(cx: &mut Cx<'_>, number: u32, index: usize, args: &Args) -> Flow<u64> {
    scheduler::before_call(cx)?;
    cx.nt().count_call(number);
    let caller = table::return_address(cx, args)?;
    if cx.count_event(Kind::Ddi) {
        cx.emit_counted(Event::Ddi { export: number, arguments: args.registers, caller });
    }
    look(cx, &DDIS[index])?;
    history::goes_on(cx, number.into());
    table::target(cx, index, caller, args)
}

/// What is to be seen to before a call.
#[inline]
fn look(cx: &mut Cx<'_>, export: &Export) -> Flow<()> {
    if !cx.engine().calls_are_free() {
        return admit(cx, export);
    }
    let irql = cx.engine().level();
    if export.allows(irql) { Ok(()) } else { refuse(cx, export, irql) }
}

/// A driver called what no row stands for: an export in whose place a stub stands, or one that dirql does not have.
#[cold]
#[inline(never)]
fn dispatch_other(cx: &mut Cx<'_>, number: u32, args: &Args) -> Flow<u64> {
    let Some((number, export)) =
        number.checked_sub(STUBBED).and_then(|number| Some((number, own_row(number)?)))
    else {
        cx.nt().count_call(u32::MAX);
        return crate::ldr::imports::call_missing(cx, number);
    };
    note_call(cx, number, args);
    admit(cx, export)?;
    if cx.count_event(Kind::Return) {
        tell_return(cx, number, 0);
    }
    Ok(0)
}

/// A driver has called row `number`.
#[inline]
fn note_call(cx: &mut Cx<'_>, number: u32, args: &Args) {
    cx.nt().count_call(number);
    if cx.count_event(Kind::Call) {
        tell_call(cx, number, args);
    }
}

/// What is to be seen to before a call, unless the kernel has said that there is nothing.
#[inline(never)]
fn admit(cx: &mut Cx<'_>, export: &Export) -> Flow<()> {
    let Gate { irql, waits_next, others, look } = crate::ke::settle::at_gate(cx);
    if look {
        budget::look(cx)?;
    }
    if waits_next && !export.is_wait {
        return Err(cx.stop(must_wait(export)));
    }
    if !export.allows(irql) {
        refuse(cx, export, irql)?;
    }
    if others {
        scheduler::at_call(cx)?;
    }
    hal::empty_buffers_for_call(cx, export.name)
}

#[inline(never)]
fn tell_call(cx: &mut Cx<'_>, number: u32, args: &Args) {
    let caller = cx.engine().caller_rip();
    cx.emit_counted(Event::Call { export: number, arguments: args.registers, caller });
}

#[inline(never)]
fn tell_return(cx: &mut Cx<'_>, number: u32, value: u64) {
    cx.emit_counted(Event::Return { export: number, value });
}

#[cold]
#[inline(never)]
fn refuse(cx: &mut Cx<'_>, export: &Export, irql: u8) -> Flow<()> {
    let verdict = wrong_irql(export, irql);
    match export.irql_tier {
        Tier::Error if !export.survives(irql) && !export.runs_at_apc_level(irql) => Err(cx.stop(verdict)),
        Tier::Error => cx.verify(verdict.as_verifier()),
        tier => {
            cx.report(Verdict { tier, ..verdict });
            Ok(())
        }
    }
}

fn must_wait(export: &Export) -> Verdict {
    let message = format!(
        "{} was called after a routine with Wait TRUE, which promised that a wait comes next",
        export.name
    );
    Verdict::error("wait-promised", message)
}

fn wrong_irql(export: &Export, irql: u8) -> Verdict {
    let Export { name, irql_min, irql_max, .. } = export;
    let region = match *name {
        "KeEnterCriticalRegion" => Some(0x11A),
        "KeLeaveCriticalRegion" => Some(0x11B),
        _ => None,
    };
    if let Some(code) = region {
        let message =
            format!("{name} was called at IRQL {irql}; it may be called at IRQL {irql_max} at most");
        let verdict = Verdict::verifier("critical-region-at-dispatch", message);
        return verdict.bug_check(0xC4, [code, irql.into(), 0, 0]);
    }
    if let Some(routine) = name.strip_prefix("Halp") {
        let expected = if irql > *irql_max { irql_max } else { irql_min };
        let message = format!(
            "{routine} of DMA_OPERATIONS was called at IRQL {irql}; it may be called at IRQL {irql_min} to {irql_max}"
        );
        let parameters = [0x13, if irql_min == irql_max { 1 } else { 2 }, (*expected).into(), irql.into()];
        return Verdict::error("dma-wrong-irql", message).bug_check(0xE6, parameters);
    }
    let (rule, range) = if irql > *irql_max {
        ("irql-too-high", format!("{irql_max} at most"))
    } else {
        ("irql-too-low", format!("{irql_min} at least"))
    };
    Verdict::error(rule, format!("{name} was called at IRQL {irql}; it may be called at IRQL {range}"))
}
