//! Accesses of driver code to ports, device memory and `KUSER_SHARED_DATA`: routed to the hardware, emitted as events,
//! and charged to the clock, with what their device takes beyond the usual (`Moment::takes`). Pages: *Accessing Device Memory and Registers*, *MmMapIoSpace function*.
//!
//! What an access causes (a line that rises, a clock that was polled) happens in [`accessed`], after the driver's
//! instruction: nothing here runs driver code before. Writes arrive at once, unless the platform posts them (`posted`), or the driver has
//! mapped what it writes to be combined (`combine`).

use engine::windows::{SHARED_DATA, USER_DEVICE, is_call_out};
use engine::{Access, Fault, FaultKind, Flow, Leave};

use super::dma::programmed;
use super::hardware::{Refusal, Width};
use super::polls::Polls;
use super::{combine, loose, lost_updates, pulled, stale};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::mm::io_space::{self, Mapping};
use crate::mm::{accessed, physical_access, shadow};
use crate::verdict::Verdict;
use crate::{ke, ps};

/// What a port access takes, in ns: an I/O cycle on the bus is never posted.
pub(crate) const PORT_COST: u64 = 1_000;
/// What a read of device memory takes, in ns.
pub(crate) const READ_COST: u64 = 250;
/// What a write to device memory takes the processor, in ns: it is posted.
pub(crate) const WRITE_COST: u64 = 50;

/// What is left to do when the instruction has retired.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum After {
    /// Nothing.
    #[default]
    Nothing,
    /// A device was accessed: its line may have changed.
    Device,
    /// The shared clock was read: a loop that only does that must see time pass.
    Clock,
}

/// One access, as verdicts and events need it.
#[derive(Clone, Copy)]
pub(super) struct RegisterAccess {
    pub(super) port: bool,
    pub(super) write: bool,
    pub(super) address: u64,
    width: Width,
}

/// `in`.
///
/// # Errors
/// A verdict if a device refuses the access.
pub(crate) fn port_read(cx: &mut Cx<'_>, port: u16, bytes: u8) -> Flow<u64> {
    super::empty_buffers(cx)?;
    let width = width(bytes);
    let known = cx.with(|k| k.hal.stale.is_known(port).then(|| read_port(k, port, width)));
    let Some(read) = known else { return read_new_port(cx, port, bytes) };
    let access = RegisterAccess { port: true, write: false, address: port.into(), width };
    match read {
        Ok(value) => {
            tell(cx, access, value);
            Ok(value)
        }
        Err(refusal) => Err(refused(cx, access, &refusal)),
    }
}

/// What a device answers, in two registers: in memory it would wait for the stores of its own pieces.
type Answer<T> = Result<T, Box<Refusal>>;

#[cold]
fn no(refusal: Refusal) -> Box<Refusal> {
    Box::new(refusal)
}

#[inline(always)]
fn read_port(k: &mut Kernel, port: u16, width: Width) -> Answer<u64> {
    let place = u64::from(port) | Polls::PORT;
    let now = begin(k, k.hal.polls.cost(place, PORT_COST, k.ke.sched.is_tired()));
    match k.accesses(now, |hardware, at| hardware.port_read(at, port, width)) {
        Ok(value) => {
            let value = value.into();
            k.hal.polls.saw(place, value);
            Ok(value)
        }
        Err(refusal) => Err(no(refusal)),
    }
}

/// From a port that was not accessed since windows were given out.
#[cold]
fn read_new_port(cx: &mut Cx<'_>, port: u16, bytes: u8) -> Flow<u64> {
    stale::check_port(cx, port, bytes)?;
    port_read(cx, port, bytes)
}

/// `out`.
///
/// # Errors
/// A verdict if a device refuses the access.
pub(crate) fn port_write(cx: &mut Cx<'_>, port: u16, bytes: u8, value: u32) -> Flow<()> {
    super::empty_buffers(cx)?;
    let access = RegisterAccess { port: true, write: true, address: port.into(), width: width(bytes) };
    stale::check_port(cx, port, bytes)?;
    let written = cx.with(|k| {
        let now = begin(k, PORT_COST);
        k.hal.polls.writes(u64::from(port) | Polls::PORT, value.into());
        k.hal.writes.note(u64::from(port) | Polls::PORT, value.into());
        k.accesses(now, |hardware, at| hardware.port_write(at, port, access.width, value)).map_err(no)
    });
    stored_at(cx, access, value.into(), written)
}

/// A load of 1, 2, 4 or 8 bytes from device memory or shared data: what nearly all accesses are.
///
/// # Errors
/// As [`device_read`].
#[inline]
pub(crate) fn device_load(cx: &mut Cx<'_>, access: Access) -> Flow<u64> {
    let width = width(access.bytes);
    match cx.with(|k| resolve_again(k, access).map(|bus| (bus, read(k, bus, width)))) {
        Some((bus, read)) => loaded(cx, bus, width, read),
        None => load_elsewhere(cx, access),
    }
}

/// From what is not the mapping that was used last.
#[cold]
fn load_elsewhere(cx: &mut Cx<'_>, access: Access) -> Flow<u64> {
    if SHARED_DATA.contains(access.address) {
        let mut data = [0; 8];
        shared_data_read(cx, access, &mut data[..access.bytes.into()])?;
        return Ok(u64::from_le_bytes(data));
    }
    let (bus, _) = resolve(cx, access, false)?;
    load(cx, bus, width(access.bytes))
}

/// A store of 1, 2, 4 or 8 bytes to device memory.
///
/// # Errors
/// As [`device_write`].
#[inline]
pub(crate) fn device_store(cx: &mut Cx<'_>, access: Access, value: u64) -> Flow<()> {
    let width = width(access.bytes);
    let value = cut(value, width);
    match cx.with(|k| resolve_again(k, access).map(|bus| (bus, write(k, bus, width, value)))) {
        Some((bus, written)) => stored(cx, bus, width, value, written),
        None => store_elsewhere(cx, access, value),
    }
}

/// To what is not the mapping that was used last.
#[cold]
fn store_elsewhere(cx: &mut Cx<'_>, access: Access, value: u64) -> Flow<()> {
    if SHARED_DATA.contains(access.address) {
        return Err(shared_data_written(cx, access));
    }
    match resolve(cx, access, true)? {
        (bus, true) => combine::store(cx, bus, &value.to_le_bytes()[..access.bytes.into()]),
        (bus, false) => store(cx, bus, width(access.bytes), value),
    }
}

/// A load from device memory or shared data.
///
/// # Errors
/// A verdict if nothing is mapped there, the access runs past the mapping, or the device refuses it.
pub(crate) fn device_read(cx: &mut Cx<'_>, access: Access, data: &mut [u8]) -> Flow<()> {
    if SHARED_DATA.contains(access.address) {
        return shared_data_read(cx, access, data);
    }
    let (bus, _) = resolve(cx, access, false)?;
    for (offset, width) in pieces(data.len()) {
        let value = load(cx, bus + offset as u64, width)?;
        data[offset..offset + width as usize].copy_from_slice(&value.to_le_bytes()[..width as usize]);
    }
    Ok(())
}

/// A store to device memory.
///
/// # Errors
/// As [`device_read`]; shared data is read only.
pub(crate) fn device_write(cx: &mut Cx<'_>, access: Access, data: &[u8]) -> Flow<()> {
    if SHARED_DATA.contains(access.address) {
        return Err(shared_data_written(cx, access));
    }
    let (bus, combines) = resolve(cx, access, true)?;
    for (offset, width) in pieces(data.len()) {
        if combines {
            combine::store(cx, bus + offset as u64, &data[offset..offset + width as usize])?;
            continue;
        }
        let mut value = [0; 8];
        value[..width as usize].copy_from_slice(&data[offset..offset + width as usize]);
        store(cx, bus + offset as u64, width, u64::from_le_bytes(value))?;
    }
    Ok(())
}

/// Whether what lies at an address is no memory but a device's, or the shared page: the kernel reaches it by [`fetch`] and [`put`].
#[inline]
pub(crate) const fn answers(address: u64) -> bool {
    is_call_out(address)
}

/// A routine of the kernel's reads where a driver pointed it: as the driver's own code would, each access as wide as its address allows.
/// What that causes comes before the driver's next instruction.
///
/// # Errors
/// As [`device_read`].
pub(crate) fn fetch(cx: &mut Cx<'_>, address: u64, data: &mut [u8]) -> Flow<()> {
    let mut rest = data;
    let mut at = address;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at_mut(natural(at, rest.len()));
        device_read(cx, access_to(at, piece.len()), piece)?;
        at = at.wrapping_add(piece.len() as u64);
        rest = behind;
    }
    look_soon(cx);
    Ok(())
}

/// As [`fetch`], of a write.
///
/// # Errors
/// As [`device_write`].
pub(crate) fn put(cx: &mut Cx<'_>, address: u64, data: &[u8]) -> Flow<()> {
    let mut rest = data;
    let mut at = address;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(natural(at, rest.len()));
        device_write(cx, access_to(at, piece.len()), piece)?;
        at = at.wrapping_add(piece.len() as u64);
        rest = behind;
    }
    look_soon(cx);
    Ok(())
}

/// Bytes of the widest access that is aligned at `address`: 1, 2, 4 or 8.
fn natural(address: u64, most: usize) -> usize {
    let widths = [8, 4, 2];
    widths.into_iter().find(|&width| width <= most && address.is_multiple_of(width as u64)).unwrap_or(1)
}

fn access_to(address: u64, bytes: usize) -> Access {
    Access { address, bytes: u8::try_from(bytes).unwrap_or(8) }
}

/// There is no instruction of the driver's that retires: the slice ends at its next one, and with that the lines are looked at.
fn look_soon(cx: &mut Cx<'_>) {
    cx.with(|k| {
        k.hal.after = After::Nothing;
        ke::slice::end_soon(k);
    });
}

fn load(cx: &mut Cx<'_>, bus: u64, width: Width) -> Flow<u64> {
    if let Some(value) = cx.with(|k| physical_access::load(k, k.hal.platform.to_system(bus), width as usize))
    {
        return Ok(value);
    }
    let read = cx.with(|k| read(k, bus, width));
    loaded(cx, bus, width, read)
}

#[inline]
fn read(k: &mut Kernel, bus: u64, width: Width) -> Answer<u64> {
    let now = begin(k, k.hal.polls.cost(bus, READ_COST, k.ke.sched.is_tired()));
    match k.accesses(now, |hardware, at| hardware.memory_read(at, bus, width)) {
        Ok(value) => {
            k.hal.polls.saw(bus, value);
            Ok(value)
        }
        Err(refusal) => Err(no(refusal)),
    }
}

#[inline]
fn loaded(cx: &mut Cx<'_>, bus: u64, width: Width, read: Answer<u64>) -> Flow<u64> {
    let access = RegisterAccess { port: false, write: false, address: bus, width };
    match read {
        Ok(value) => {
            tell(cx, access, value);
            Ok(value)
        }
        Err(refusal) => Err(refused(cx, access, &refusal)),
    }
}

fn store(cx: &mut Cx<'_>, bus: u64, width: Width, value: u64) -> Flow<()> {
    let value = cut(value, width);
    if cx.with(|k| physical_access::store(k, k.hal.platform.to_system(bus), width as usize, value)) {
        return Ok(());
    }
    let written = cx.with(|k| write(k, bus, width, value));
    stored(cx, bus, width, value, written)
}

/// The low bytes that an access of this width moves.
const fn cut(value: u64, width: Width) -> u64 {
    value & u64::MAX >> (64 - 8 * width as u32)
}

#[inline]
fn write(k: &mut Kernel, bus: u64, width: Width, value: u64) -> Answer<()> {
    let now = begin(k, WRITE_COST);
    k.hal.polls.writes(bus, value);
    k.hal.writes.note(bus, value);
    k.accesses(now, |hardware, at| hardware.memory_write(at, bus, width, value)).map_err(no)
}

/// A write of combined bytes arrives at its device, which takes the processor so long.
pub(super) fn arrive_combined(cx: &mut Cx<'_>, bus: u64, width: Width, value: u64, cost: u64) -> Flow<()> {
    let written = cx.with(|k| {
        let now = begin(k, cost);
        k.hal.polls.writes(bus, value);
        let written = k.accesses(now, |hardware, at| hardware.memory_combined(at, bus, width, value));
        written.map_err(|refusal| no(refusal.by("of combined stores,")))
    });
    stored(cx, bus, width, value, written)
}

#[inline]
fn stored(cx: &mut Cx<'_>, bus: u64, width: Width, value: u64, written: Answer<()>) -> Flow<()> {
    stored_at(cx, RegisterAccess { port: false, write: true, address: bus, width }, value, written)
}

/// What a write has come to.
#[inline]
fn stored_at(cx: &mut Cx<'_>, access: RegisterAccess, value: u64, written: Answer<()>) -> Flow<()> {
    if let Err(refusal) = written {
        not_taken(cx, access, &refusal)?;
    }
    tell(cx, access, value);
    Ok(())
}

/// A write that was refused ends the run; one that the device ignores is reported.
#[cold]
fn not_taken(cx: &mut Cx<'_>, access: RegisterAccess, refusal: &Refusal) -> Flow<()> {
    if !refusal.is_ignored() {
        return Err(refused(cx, access, refusal));
    }
    let message = refusal_text(access, refusal);
    cx.report(Verdict::warning("register-write-ignored", message));
    Ok(())
}

/// A device is about to be accessed, which takes so long; the time at which the access arrives.
#[inline]
pub(super) fn begin(k: &mut Kernel, cost: u64) -> u64 {
    // Computed, not read back after `shorten`: that would wait for its store.
    let now = k.engine.now() + cost;
    // Once the instruction has retired, what is due is let in.
    let _ = ke::slice::shorten(k, cost);
    k.ke.sched.count_access();
    k.hal.after = After::Device;
    debug_assert_eq!(now, k.engine.now());
    now
}

/// The device keeps the processor waiting: so much later its instruction retires, and what is due by then is let in.
#[cold]
#[inline(never)]
pub(super) fn wait(k: &mut Kernel, nanoseconds: u64) {
    let _ = ke::slice::shorten(k, nanoseconds);
}

/// The instruction that accessed a device has retired.
///
/// # Errors
/// [`Leave`] of what is let in now.
#[inline]
pub(crate) fn accessed(cx: &mut Cx<'_>) -> Flow<()> {
    let after = cx.with(|k| match std::mem::take(&mut k.hal.after) {
        // Most accesses change no line and no deadline.
        After::Device if k.hal.touched.is_none() && ke::interrupt_delivery::nothing_came(k) => After::Nothing,
        after => after,
    });
    if after == After::Nothing { Ok(()) } else { follow(cx, after) }
}

#[cold]
fn follow(cx: &mut Cx<'_>, after: After) -> Flow<()> {
    match after {
        After::Nothing => Ok(()),
        After::Device => {
            loose::may_go(cx)?;
            ke::interrupt::deliver(cx)
        }
        After::Clock => ke::shared_data::polled(cx),
    }
}

#[cold]
fn shared_data_written(cx: &mut Cx<'_>, access: Access) -> Leave {
    let message =
        format!("the driver wrote to KUSER_SHARED_DATA at {:#x}, which is read only", access.address);
    let verdict = Verdict::error("shared-data-written", message);
    cx.stop(verdict.bug_check(0xBE, [access.address, 0, 0, 0xA]))
}

fn shared_data_read(cx: &mut Cx<'_>, access: Access, data: &mut [u8]) -> Flow<()> {
    let offset = access.address - SHARED_DATA.base;
    let bytes = ke::shared_data::bytes(cx, offset, data.len() as u64);
    data.copy_from_slice(&bytes);
    cx.with(|k| k.hal.after = After::Clock);
    Ok(())
}

/// The bus address of an access to the mapping that was used last, if nothing about it need be looked at.
#[inline]
fn resolve_again(k: &Kernel, access: Access) -> Option<u64> {
    let bus = io_space::resolve_again(k, access.address, access.bytes)?;
    k.hal.stale.nothing_released().then_some(bus)
}

/// The bus address behind a virtual address of device memory, and whether it is a store that the processor combines with others: before any
/// other access, what it has combined has arrived.
fn resolve(cx: &mut Cx<'_>, access: Access, write: bool) -> Flow<(u64, bool)> {
    let Access { address, bytes } = access;
    if let Some(bus) = cx.with(|k| resolve_again(k, access)) {
        return Ok((bus, false));
    }
    let Some((bus, mapping)) = cx.with(|k| io_space::resolve(k, address)) else {
        return Err(unmapped(cx, access, write));
    };
    // The mapping's last page is mapped to its end, and the bytes there are not the driver's to use.
    let offset = address.checked_sub(mapping.address);
    if offset.is_none_or(|offset| offset + u64::from(bytes) > mapping.bytes) {
        let message = format!(
            "the driver {} {bytes} byte(s) at {address:#x}, outside its mapping of {:#x} bytes at {:#x} (bus address {:#x})",
            verb(write),
            mapping.bytes,
            mapping.address,
            mapping.bus,
        );
        return Err(cx.stop(Verdict::error("device-access-past-mapping", message)));
    }
    if let Some(owner) = mapping.process
        && ps::current_process(cx) != owner.into()
    {
        return Err(elsewhere(cx, access, write, owner));
    }
    if write && mapping.read_only {
        return Err(written_though_read_only(cx, address));
    }
    stale::check_memory(cx, bus)?;
    let combines = write && mapping.combined && !mapping.has_ram;
    if !combines {
        super::empty_buffers(cx)?;
    }
    // Read-only mappings, those of one process, with RAM or write-combined are resolved each time; while a processor may keep stores, all are.
    if !mapping.read_only && mapping.process.is_none() && !mapping.has_ram && !mapping.combined {
        cx.with(|k| {
            let keeps_none = k.hal.combining.is_empty() && !k.hal.platform.late_stores;
            keeps_none.then(|| io_space::remember(k, mapping))
        });
    }
    Ok((bus, combines))
}

/// A process's view, and another process is current.
fn elsewhere(cx: &mut Cx<'_>, access: Access, write: bool, owner: u32) -> Leave {
    let Access { address, bytes } = access;
    let did = format!("the driver {} {bytes} byte(s) at {address:#x}", verb(write));
    let rip = cx.engine().caller().map_or(0, |caller| caller.rip);
    let verdict = shadow::elsewhere(cx, &did, owner, (address, write.into(), rip));
    cx.stop(verdict)
}

/// A write to a mapping that may only be read: of the application's half an exception, of the kernel's the end.
fn written_though_read_only(cx: &mut Cx<'_>, address: u64) -> Leave {
    if let Some(leave) = of_application(cx, address, true) {
        return leave;
    }
    let message =
        format!("the driver wrote to device memory at {address:#x}, which it has mapped to be read only");
    cx.stop(Verdict::error("write-to-read-only", message).bug_check(0xBE, [address, 0, 0, 0xA]))
}

/// The exception that driver code gets at an address of applications.
fn of_application(cx: &mut Cx<'_>, address: u64, write: bool) -> Option<Leave> {
    let caller = cx.engine().caller().filter(|_| USER_DEVICE.contains(address))?;
    let kind = if write { FaultKind::Write } else { FaultKind::Read };
    Some(ke::exception::fault(cx, &Fault { kind, address, caller, what: "" }))
}

/// Device memory that is not mapped (any more), or never was.
fn unmapped(cx: &mut Cx<'_>, access: Access, write: bool) -> Leave {
    let Access { address, bytes } = access;
    debug_assert!(is_call_out(address), "the engine sends device memory here, and nothing else");
    if let Some(leave) = of_application(cx, address, write) {
        return leave;
    }
    let rip = cx.engine().caller().map_or(0, |caller| caller.rip);
    let what = format!("the driver {} {bytes} bytes of device memory at {address:#x}", verb(write));
    let (message, accessed) = match cx.with(|k| io_space::unmapped_at(k, address)) {
        Some(Mapping { address: start, bus, bytes, .. }) => (
            format!(
                "{what}, in a mapping of {bytes:#x} bytes at {start:#x} (bus address {bus:#x}) that MmUnmapIoSpace has removed"
            ),
            Some(accessed::of_window(cx, bus, rip)),
        ),
        None => (format!("{what}, where nothing was mapped"), None),
    };
    let irql = ke::irql::current(cx);
    let verdict = Verdict { accessed, ..Verdict::error("device-memory-not-mapped", message) };
    cx.stop(if irql >= 2 {
        verdict.bug_check(0xD1, [address, irql.into(), write.into(), rip])
    } else {
        verdict.bug_check(0x50, [address, if write { 2 } else { 0 }, rip, 0])
    })
}

/// What a card does with an access that its data sheet excludes is not said anywhere: a value that is read is none, and what is written is
/// lost.
#[cold]
fn refused(cx: &mut Cx<'_>, access: RegisterAccess, refusal: &Refusal) -> Leave {
    cx.stop(Verdict::error("register-refused", refusal_text(access, refusal)))
}

fn refusal_text(access: RegisterAccess, refusal: &Refusal) -> String {
    let space = if access.port { "port" } else { "bus address" };
    let (verb, bytes) = (verb(access.write), access.width as u8);
    format!("the driver {verb} {bytes} byte(s) at {space} {:#x}; {refusal}", access.address)
}

#[inline]
fn tell(cx: &mut Cx<'_>, access: RegisterAccess, value: u64) {
    lost_updates::accessed(cx, access, value);
    cx.with(|k| {
        loose::accessed(k, access.port, access.address);
        pulled::accessed(k, access);
    });
    if access.write {
        programmed::written(cx, access.width, value);
    }
    if cx.count_event(Kind::Device) {
        tell_in_full(cx, access, value);
    }
}

#[cold]
fn tell_in_full(cx: &mut Cx<'_>, access: RegisterAccess, value: u64) {
    let RegisterAccess { port, write, address, width } = access;
    let register = if cx.reads_names() { cx.with(|k| k.hal.hardware.describe(port, address)) } else { None };
    cx.emit(Event::Device { port, address, bytes: width as u8, write, value, register });
}

const fn verb(write: bool) -> &'static str {
    if write { "wrote" } else { "read" }
}

const fn width(bytes: u8) -> Width {
    match bytes {
        1 => Width::Byte,
        2 => Width::Word,
        8 => Width::Qword,
        _ => Width::Dword,
    }
}

/// An access of so many bytes as the bus sees it: pieces of 8 bytes, and the rest by halves.
fn pieces(bytes: usize) -> impl Iterator<Item = (usize, Width)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let width = match bytes - at {
            0 => return None,
            1 => Width::Byte,
            2 | 3 => Width::Word,
            4..=7 => Width::Dword,
            _ => Width::Qword,
        };
        let offset = at;
        at += width as usize;
        Some((offset, width))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sse_move_is_two_accesses_of_eight_bytes() {
        let cut = |bytes| pieces(bytes).map(|(at, width)| (at, width as u8)).collect::<Vec<_>>();
        assert_eq!(cut(16), [(0, 8), (8, 8)]);
        assert_eq!(cut(10), [(0, 8), (8, 2)]);
        assert_eq!(cut(4), [(0, 4)]);
        assert_eq!(cut(7), [(0, 4), (4, 2), (6, 1)]);
    }
}
