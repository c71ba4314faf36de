//! The PnP manager asks a device stack: one request, sent and waited for, with Windows' presets.
//!
//! Pages: *Plug and Play Minor IRPs*, *Rules for Handling PnP IRPs*. What an answer may be is `judge`'s business. Strings and lists
//! that come back in `Information` are read here, and freed.

use abi::{
    BusQueryCompatibleIDs, BusQueryDeviceID, BusQueryHardwareIDs, BusQueryInstanceID, DriverPtr, IRP_MJ_PNP,
    IRP_MN_QUERY_CAPABILITIES, NtStatus,
};
use engine::Flow;

use super::capabilities;
use super::judge;
use super::node::NodeId;
use crate::cx::Cx;
use crate::io::system_request::{Answer, Request, send};
use crate::ke::patience;
use crate::mm::pool;
use crate::verdict::Verdict;

/// Sends `IRP_MJ_PNP`/`minor` to the top of the device's stack, at PASSIVE_LEVEL, with `STATUS_NOT_SUPPORTED` in it, and judges
/// the answer.
///
/// # Errors
/// A verdict on a driver of the stack.
pub(super) fn ask(cx: &mut Cx<'_>, id: NodeId, minor: u8, parameters: [u64; 4]) -> Flow<Answer> {
    ask_about(cx, id, minor, parameters, 0)
}

/// As [`ask`], with `information` in `IoStatus.Information` to begin with.
///
/// # Errors
/// As [`ask`].
pub(super) fn ask_about(
    cx: &mut Cx<'_>,
    id: NodeId,
    minor: u8,
    parameters: [u64; 4],
    information: u64,
) -> Flow<Answer> {
    cx.with(|k| {
        patience::asks(k);
        k.pnp.node_mut(id).seen = false;
    });
    let status = NtStatus::NOT_SUPPORTED;
    let request = Request { parameters, status, information, ..Request::new(IRP_MJ_PNP, minor) };
    let answer = send(cx, id.pdo(), &request)?;
    judge::answer(cx, id, minor, answer)?;
    Ok(answer)
}

/// The longest string a bus driver may answer, in characters; a list of ids is 64 KiB at most.
const LONGEST: usize = 0x8000;

/// The single-string ids and texts that `minor` with `kind` asks for; empty if the stack has none.
///
/// # Errors
/// As [`ask`], or if the string cannot be read.
pub(super) fn text(cx: &mut Cx<'_>, id: NodeId, minor: u8, kind: u32) -> Flow<String> {
    Ok(strings(cx, id, minor, kind)?.into_iter().next().unwrap_or_default())
}

/// The strings that `minor` with `kind` asks for.
///
/// # Errors
/// As [`text`].
pub(super) fn strings(cx: &mut Cx<'_>, id: NodeId, minor: u8, kind: u32) -> Flow<Vec<String>> {
    let answer = ask(cx, id, minor, [kind.into(), 0x409, 0, 0])?;
    if !answer.status.is_success() || answer.information == 0 {
        return Ok(Vec::new());
    }
    let many =
        minor == abi::IRP_MN_QUERY_ID && (kind == BusQueryHardwareIDs || kind == BusQueryCompatibleIDs);
    let strings = read_strings(cx, answer.information, many)?;
    pool::free(cx, DriverPtr::<()>::new(answer.information))?;
    if minor == abi::IRP_MN_QUERY_ID
        && (kind == BusQueryDeviceID || kind == BusQueryInstanceID)
        && !strings.iter().all(|id| super::identity::is_valid(id))
    {
        let message =
            format!("a driver answered the id {strings:?}, which has characters that no id may have");
        return Err(
            cx.stop(Verdict::error("bad-device-id", message).bug_check(0xCA, [3, id.0, 0, kind.into()]))
        );
    }
    Ok(strings)
}

fn read_strings(cx: &mut Cx<'_>, address: u64, many: bool) -> Flow<Vec<String>> {
    let (mut strings, mut units) = (Vec::new(), Vec::new());
    for index in 0..LONGEST as u64 {
        let unit = cx.read(DriverPtr::<u16>::new(address).index(index))?;
        if unit != 0 {
            units.push(unit);
            continue;
        }
        if units.is_empty() && many {
            return Ok(strings);
        }
        strings.push(String::from_utf16_lossy(&units));
        units.clear();
        if !many {
            return Ok(strings);
        }
    }
    let message =
        format!("a driver answered a string at {address:#x} that has no end within {LONGEST} characters");
    Err(cx.stop(Verdict::error("bad-device-id", message).bug_check(0xCA, [3, 0, address, 0])))
}

/// The block that `minor` asks for, of the length that `length` finds in its first 64 bytes; empty if the stack has none.
///
/// # Errors
/// As [`ask`], or if the block cannot be read.
pub(super) fn block(
    cx: &mut Cx<'_>,
    id: NodeId,
    minor: u8,
    parameters: [u64; 4],
    length: BlockLength,
) -> Flow<Vec<u8>> {
    let answer = ask(cx, id, minor, parameters)?;
    if !answer.status.is_success() || answer.information == 0 {
        return Ok(Vec::new());
    }
    let length = length(cx, answer.information)?;
    let bytes = cx.read_bytes(answer.information, length)?;
    pool::free(cx, DriverPtr::<()>::new(answer.information))?;
    Ok(bytes)
}

/// Finds the length of a block from what stands in it.
pub(super) type BlockLength = fn(&mut Cx<'_>, u64) -> Flow<u64>;

/// `PNP_BUS_INFORMATION`.
pub(super) fn bus_information_length(_cx: &mut Cx<'_>, _at: u64) -> Flow<u64> {
    Ok(size_of::<abi::PNP_BUS_INFORMATION>() as u64)
}

/// A `CM_RESOURCE_LIST` of one full descriptor, or of none.
pub(super) fn resource_list_length(cx: &mut Cx<'_>, at: u64) -> Flow<u64> {
    let full = cx.read(DriverPtr::<u32>::new(at))?;
    let mut length = 4_u64;
    for _ in 0..full.min(16) {
        let count = cx.read(DriverPtr::<u32>::new(at + length + 12))?;
        length += 16 + 0x14 * u64::from(count);
    }
    Ok(length)
}

/// An `IO_RESOURCE_REQUIREMENTS_LIST`.
pub(super) fn requirements_length(cx: &mut Cx<'_>, at: u64) -> Flow<u64> {
    Ok(cx.read(DriverPtr::<u32>::new(at))?.into())
}

/// `IRP_MN_QUERY_CAPABILITIES`, preset as every asker must; empty if the stack fails it.
///
/// # Errors
/// As [`ask`].
pub(super) fn capabilities(cx: &mut Cx<'_>, id: NodeId) -> Flow<Vec<u8>> {
    let size = capabilities::SIZE;
    let block: DriverPtr<abi::DEVICE_CAPABILITIES> =
        pool::allocate(cx, pool::Kind::NonPaged, size.into(), pool::tag(b"PnpC"))?;
    if block.is_null() {
        return Ok(Vec::new());
    }
    cx.write(block + abi::DEVICE_CAPABILITIES::Size, size)?;
    cx.write(block + abi::DEVICE_CAPABILITIES::Version, 1)?;
    cx.write(block + abi::DEVICE_CAPABILITIES::Address, u32::MAX)?;
    cx.write(block + abi::DEVICE_CAPABILITIES::UINumber, u32::MAX)?;
    let answer = ask(cx, id, IRP_MN_QUERY_CAPABILITIES, [block.address, 0, 0, 0])?;
    let bytes = cx.read_bytes(block.address, size.into())?;
    pool::free(cx, block)?;
    Ok(if answer.status.is_success() { bytes } else { Vec::new() })
}
