//! Breakpoints and debugger state. Follows *DbgBreakPoint function*, *KdRefreshDebuggerNotPresent function*.
//!
//! Without a debugger a breakpoint is an exception that nobody handles: KMODE_EXCEPTION_NOT_HANDLED.

use abi::{KMODE_EXCEPTION_NOT_HANDLED, NtStatus};
use engine::Flow;

use crate::cx::Cx;
use crate::verdict::Verdict;

/// `DbgBreakPoint`.
///
/// # Errors
/// Always.
pub fn dbg_break_point(cx: &mut Cx<'_>) -> Flow<()> {
    stop(cx, "DbgBreakPoint was called".to_owned())
}

/// `DbgBreakPointWithStatus`.
///
/// # Errors
/// Always.
pub fn dbg_break_point_with_status(cx: &mut Cx<'_>, status: u32) -> Flow<()> {
    stop(cx, format!("DbgBreakPointWithStatus was called with {status:#x}"))
}

fn stop(cx: &mut Cx<'_>, what: String) -> Flow<()> {
    let address = cx.engine().caller().map_or(0, |caller| caller.rip);
    let parameters = [NtStatus::BREAKPOINT.0.into(), address, 0, 0];
    let verdict = Verdict::error("breakpoint", format!("{what}, and there is no debugger"));
    Err(cx.stop(verdict.bug_check(KMODE_EXCEPTION_NOT_HANDLED, parameters)))
}

/// `KdRefreshDebuggerNotPresent`: there is none.
///
/// # Errors
/// None.
pub fn refresh_not_present(_cx: &mut Cx<'_>) -> Flow<bool> {
    Ok(true)
}

/// `STATUS_DEBUGGER_INACTIVE`.
const DEBUGGER_INACTIVE: NtStatus = NtStatus(0xC000_0354);

/// `KdDisableDebugger`, `KdEnableDebugger`: there is none to disable.
///
/// # Errors
/// None.
pub fn debugger_inactive(_cx: &mut Cx<'_>) -> Flow<NtStatus> {
    Ok(DEBUGGER_INACTIVE)
}
