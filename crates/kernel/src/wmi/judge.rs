//! What the drivers of a stack may do with a WMI request, and what a provider may say of its buffer.
//!
//! Pages: *WMI Minor IRPs* ("must forward the request to the next-lower driver"), rules *WmiForward* and *WmiComplete*, *Bug Check 0xC9* (220). A request
//! that is neither completed nor passed on is `io::pending`'s to tell.

use abi::{
    DEVICE_OBJECT, DriverPtr, IRP_MN_CHANGE_SINGLE_INSTANCE, IRP_MN_CHANGE_SINGLE_ITEM,
    IRP_MN_DISABLE_COLLECTION, IRP_MN_DISABLE_EVENTS, IRP_MN_ENABLE_COLLECTION, IRP_MN_ENABLE_EVENTS,
    IRP_MN_EXECUTE_METHOD, IRP_MN_QUERY_ALL_DATA, IRP_MN_QUERY_SINGLE_INSTANCE, IRP_MN_REGINFO,
    IRP_MN_REGINFO_EX,
};
use engine::{Flow, Leave};

use crate::cx::Cx;
use crate::io::system_request;
use crate::io::violation::device_name;
use crate::verdict::Verdict;

/// The name of a minor function of IRP_MJ_SYSTEM_CONTROL.
pub(super) const fn name(minor: u8) -> &'static str {
    match minor {
        IRP_MN_QUERY_ALL_DATA => "IRP_MN_QUERY_ALL_DATA",
        IRP_MN_QUERY_SINGLE_INSTANCE => "IRP_MN_QUERY_SINGLE_INSTANCE",
        IRP_MN_CHANGE_SINGLE_INSTANCE => "IRP_MN_CHANGE_SINGLE_INSTANCE",
        IRP_MN_CHANGE_SINGLE_ITEM => "IRP_MN_CHANGE_SINGLE_ITEM",
        IRP_MN_ENABLE_EVENTS => "IRP_MN_ENABLE_EVENTS",
        IRP_MN_DISABLE_EVENTS => "IRP_MN_DISABLE_EVENTS",
        IRP_MN_ENABLE_COLLECTION => "IRP_MN_ENABLE_COLLECTION",
        IRP_MN_DISABLE_COLLECTION => "IRP_MN_DISABLE_COLLECTION",
        IRP_MN_REGINFO => "IRP_MN_REGINFO",
        IRP_MN_EXECUTE_METHOD => "IRP_MN_EXECUTE_METHOD",
        IRP_MN_REGINFO_EX => "IRP_MN_REGINFO_EX",
        _ => "IRP_MJ_SYSTEM_CONTROL",
    }
}

/// Judges which devices a request has passed.
///
/// # Errors
/// With Driver Verifier's I/O option, a verdict on one that has kept it from the provider.
pub(super) fn way(
    cx: &mut Cx<'_>,
    provider: DriverPtr<DEVICE_OBJECT>,
    minor: u8,
    passed: &[u64],
) -> Flow<()> {
    let Some(&last) = passed.last() else { return Ok(()) };
    if last == provider.address {
        return Ok(());
    }
    let is_bottom = cx.with(|k| k.io.devices.get(last).is_none_or(|device| device.below == 0));
    let (name, own) = (name(minor), device_name(cx, provider));
    if !passed.contains(&provider.address) {
        if is_bottom {
            return Ok(()); // the provider is not in this stack any more
        }
        let other = device_name(cx, DriverPtr::new(last));
        let message = format!(
            "{other} completed {name}, which is for {own} (Parameters.WMI.ProviderId): a driver passes down what is not for its own device"
        );
        let verdict = Verdict::verifier("wmi-request-not-forwarded", message);
        return cx.verify(verdict.bug_check(0xC9, [0x220, 0, last, 0]));
    }
    if minor == IRP_MN_REGINFO_EX {
        let message = format!(
            "{own} is registered as a WMI data provider, and its driver passed {name} down, which is for it (Parameters.WMI.ProviderId): it offers nothing"
        );
        cx.report(Verdict::warning("wmi-registration-passed-down", message));
    }
    Ok(())
}

/// Judges how many bytes a provider says that it has written.
///
/// # Errors
/// A verdict if these are more than there was room for.
pub(super) fn amount(
    cx: &mut Cx<'_>,
    provider: DriverPtr<DEVICE_OBJECT>,
    minor: u8,
    answer: system_request::Answer,
    room: usize,
) -> Flow<()> {
    if !answer.status.is_success() || answer.information <= room as u64 {
        return Ok(());
    }
    let what = format!("{:#x} bytes (IoStatus.Information) in a buffer of {room:#x}", answer.information);
    Err(bad_node(cx, provider.address, minor, &what))
}

/// The verdict on a provider that has answered a block in which something is wrong.
#[cold]
pub(super) fn bad_node(cx: &mut Cx<'_>, provider: u64, minor: u8, what: &str) -> Leave {
    let own = device_name(cx, DriverPtr::new(provider));
    let message = format!("{own} answered {} with {what}", name(minor));
    cx.stop(Verdict::error("wmi-bad-block", message))
}
