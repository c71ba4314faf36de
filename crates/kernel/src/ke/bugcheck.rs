//! The driver stops the system itself. Follows *KeBugCheckEx function*, *Bug Check Codes*.

use engine::Flow;

use crate::cx::Cx;
use crate::verdict::Verdict;
use crate::wdf;

/// `KeBugCheck`.
///
/// # Errors
/// Always: the verdict with the driver's code.
pub(crate) fn stop(cx: &mut Cx<'_>, code: u32) -> Flow<()> {
    stop_with(cx, code, 0, 0, 0, 0)
}

/// `KeBugCheckEx`.
///
/// # Errors
/// Always: the verdict with the driver's code and parameters.
pub(crate) fn stop_with(cx: &mut Cx<'_>, code: u32, p1: u64, p2: u64, p3: u64, p4: u64) -> Flow<()> {
    let who = match wdf::calling_framework(cx) {
        Some(framework) if framework.ends_with("called") => format!("{framework},"),
        Some(framework) => framework,
        None => "the driver".to_owned(),
    };
    let message = format!("{who} called KeBugCheckEx({code:#x}, {p1:#x}, {p2:#x}, {p3:#x}, {p4:#x})");
    Err(cx.stop(Verdict::error("driver-bug-check", message).bug_check(code, [p1, p2, p3, p4])))
}
