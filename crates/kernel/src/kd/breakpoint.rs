//! Breakpoints and debugger state. Follows *DbgBreakPoint function*, *KdRefreshDebuggerNotPresent function*.
//!
//! Without a debugger a breakpoint is an exception as any other: for the driver's handlers, if it has some.

use abi::NtStatus;
use engine::Flow;

use crate::cx::Cx;
use crate::ke::exception;
use crate::verdict::Verdict;
use crate::wdf;

/// `DbgBreakPoint`.
///
/// # Errors
/// Always.
pub(crate) fn dbg_break_point(cx: &mut Cx<'_>) -> Flow<()> {
    stop(cx, "DbgBreakPoint was called".to_owned())
}

/// `DbgBreakPointWithStatus`.
///
/// # Errors
/// Always.
pub(crate) fn dbg_break_point_with_status(cx: &mut Cx<'_>, status: u32) -> Flow<()> {
    stop(cx, format!("DbgBreakPointWithStatus was called with {status:#x}"))
}

fn stop(cx: &mut Cx<'_>, what: String) -> Flow<()> {
    let by = wdf::calling_framework(cx).map_or_else(String::new, |framework| format!(" by {framework}"));
    let verdict = Verdict::error("breakpoint", format!("{what}{by}, and there is no debugger"));
    // One parameter of the exception: that nothing was asked of the debugger.
    Err(exception::raise_here(cx, NtStatus::BREAKPOINT, vec![0], verdict))
}

/// `KdRefreshDebuggerNotPresent`: there is none.
///
/// # Errors
/// None.
pub(crate) fn refresh_not_present(_cx: &mut Cx<'_>) -> Flow<bool> {
    Ok(true)
}

/// `STATUS_DEBUGGER_INACTIVE`.
const DEBUGGER_INACTIVE: NtStatus = NtStatus(0xC000_0354);

/// `KdDisableDebugger`, `KdEnableDebugger`: there is none to disable.
///
/// # Errors
/// None.
pub(crate) fn debugger_inactive(_cx: &mut Cx<'_>) -> Flow<NtStatus> {
    Ok(DEBUGGER_INACTIVE)
}

/// `KdChangeOption`: there is no debugger.
///
/// # Errors
/// None.
pub(crate) fn change_option(
    _cx: &mut Cx<'_>,
    _option: u32,
    _input_bytes: u32,
    _input: u64,
    _output_bytes: u32,
    _output: u64,
    _needed: u64,
) -> Flow<NtStatus> {
    Ok(DEBUGGER_INACTIVE)
}

/// `KdSystemDebugControl`: as [`change_option`].
///
/// # Errors
/// None.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn system_debug_control(
    _cx: &mut Cx<'_>,
    _command: u32,
    _input: u64,
    _input_bytes: u32,
    _output: u64,
    _output_bytes: u32,
    _returned: u64,
    _mode: u8,
) -> Flow<NtStatus> {
    Ok(DEBUGGER_INACTIVE)
}
