//! The screen as the boot has left it.
//!
//! No page describes `Inbv…` and `HalDisplayString`: the system owns the screen until a display driver says that it has taken it. What is written on it is
//! traced as what a driver prints is.

use abi::DriverPtr;
use engine::Flow;

use crate::cx::Cx;
use crate::kd;
use crate::rtl::{crt, text};

/// More characters than the screen has.
const MOST: u64 = 80 * 50;

/// `InbvCheckDisplayOwnership`.
///
/// # Errors
/// None.
pub(crate) fn is_owned(cx: &mut Cx<'_>) -> Flow<bool> {
    Ok(!cx.with(|k| k.io.display_lost))
}

/// `InbvNotifyDisplayOwnershipLost`. Its routine, which would give the screen back for a blue one, is not called.
///
/// # Errors
/// None.
pub(crate) fn lost(cx: &mut Cx<'_>, _reset: DriverPtr<abi::Code>) -> Flow<()> {
    cx.with(|k| k.io.display_lost = true);
    Ok(())
}

/// `HalDisplayString`: nothing where a display driver has the screen.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn display(cx: &mut Cx<'_>, text: u64) -> Flow<()> {
    let units = crt::read::<1>(cx, text, MOST)?;
    if is_owned(cx)? {
        let shown: String = units.iter().map(|unit| text::ansi_to_char(unit.to_le_bytes()[0])).collect();
        kd::print::put(cx, &shown);
    }
    Ok(())
}
