//! `RtlAssert`: an assertion of a debug build failed.
//!
//! Page: *RtlAssert*. Without a debugger Windows stops at the breakpoint behind the message; so does the run.

use engine::Flow;

use super::crt;
use crate::cx::Cx;
use crate::verdict::Verdict;

/// `RtlAssert`.
///
/// # Errors
/// Always: the verdict tells the condition, the file and the line.
pub(crate) fn failed(cx: &mut Cx<'_>, condition: u64, file: u64, line: u32, message: u64) -> Flow<()> {
    let mut text = |address| -> Flow<String> {
        let units = if address == 0 { Vec::new() } else { crt::read::<1>(cx, address, 512)? };
        Ok(String::from_utf16_lossy(&units))
    };
    let (condition, file, message) = (text(condition)?, text(file)?, text(message)?);
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    let sentence = format!("an assertion of the driver's failed{message}: {condition} ({file}, line {line})");
    const STATUS_ASSERTION_FAILURE: u64 = 0xC000_0420;
    let verdict = Verdict::error("assertion-failed", sentence);
    Err(cx.stop(verdict.bug_check(abi::KMODE_EXCEPTION_NOT_HANDLED, [STATUS_ASSERTION_FAILURE, 0, 0, 0])))
}
