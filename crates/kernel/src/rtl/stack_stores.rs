//! Whether a routine that moves bytes overwrites where a function of the driver's returns to: a local buffer that is too short. In a checked machine,
//! and in functions with unwind data, which tell where that is.
//!
//! Pages: *x64 exception handling*, *Bug Check 0xF7 DRIVER_OVERRAN_STACK_BUFFER*, which is what Windows does when the function returns, if it was compiled
//! with `/GS`; else it goes on wherever the bytes say.

use engine::{Flow, RETURN_TO_KERNEL};

use super::frames;
use crate::cx::Cx;
use crate::verdict::Verdict;

/// A stack of the kernel's is no longer, in bytes, expanded ones included.
const LONGEST: u64 = 0x2_0000;
/// A return address, in bytes.
const SLOT: u64 = 8;

/// Before `bytes` bytes are stored from `to` on.
///
/// # Errors
/// The verdict that they would overwrite a return address.
pub(super) fn check(cx: &mut Cx<'_>, to: u64, bytes: u64) -> Flow<()> {
    let engine = cx.engine();
    if !engine.is_checked() || to.wrapping_sub(frames::stack_top(cx)) > LONGEST {
        return Ok(());
    }
    let Some(mut context) = engine.contexts().first().copied() else { return Ok(()) };
    while context.rip != RETURN_TO_KERNEL && frames::frame(cx, &context).is_some() {
        let Some(outer) = frames::caller(cx, &context) else { break };
        let slot = outer.registers.rsp().wrapping_sub(SLOT);
        if slot >= to.saturating_add(bytes) {
            break;
        }
        if slot + SLOT > to {
            let room = slot.saturating_sub(to);
            let message = format!(
                "the driver has {bytes} bytes stored at {to:#x}; {room} bytes behind that lies the return address of the function whose local variable this is: they overwrite it"
            );
            let verdict = Verdict::error("stack-overrun", message);
            return Err(cx.stop(verdict.bug_check(0xF7, [0; 4])));
        }
        context = outer;
    }
    Ok(())
}
