//! Function tables as drivers ask for them: `RtlLookupFunctionEntry`, `RtlVirtualUnwind`, `RtlPcToFileHeader`.
//!
//! Pages: *RtlLookupFunctionEntry function*, *RtlVirtualUnwind function*, *RtlPcToFileHeader*. Only images that were
//! loaded have tables; the pointers to where registers were saved (`ContextPointers`) are not filled in.

use abi::{CONTEXT, Code, DriverPtr, RUNTIME_FUNCTION, UNWIND_HISTORY_TABLE};
use engine::Flow;

use super::{context, frames};
use crate::cx::Cx;
use crate::verdict::Verdict;

/// `HandlerType` bits of `RtlVirtualUnwind`.
const EXCEPTION_HANDLER: u32 = 1;
const TERMINATION_HANDLER: u32 = 2;

/// `RtlLookupFunctionEntry`: the entry of the function that `control` is in, and its image; null for a leaf.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn lookup(
    cx: &mut Cx<'_>,
    control: u64,
    image_base: DriverPtr<u64>,
    _history: DriverPtr<UNWIND_HISTORY_TABLE>,
) -> Flow<DriverPtr<RUNTIME_FUNCTION>> {
    let found = cx.with(|k| {
        let (base, loaded) = k.ldr.image_at(control)?;
        let function = loaded.image.function_at(u32::try_from(control - base).ok()?);
        let entry = function.and_then(|function| loaded.image.function_entry(function));
        Some((base, entry))
    });
    let Some((base, entry)) = found else { return Ok(DriverPtr::NULL) };
    cx.write(image_base, base)?;
    Ok(entry.map_or(DriverPtr::NULL, |entry| DriverPtr::new(base + u64::from(entry))))
}

/// `RtlPcToFileHeader`: the base of the image that an address is in, or null.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn pc_to_file_header(cx: &mut Cx<'_>, address: u64, base: DriverPtr<u64>) -> Flow<u64> {
    let found = cx.with(|k| k.ldr.image_at(address).map_or(0, |(base, _)| base));
    cx.write(base, found)?;
    Ok(found)
}

/// `RtlVirtualUnwind`: the caller's registers in place of those in `record`; the handler of the frame that is left, if it
/// has one of the kind asked for.
///
/// # Errors
/// A verdict on a bad pointer, or on unwind data or a stack that make no sense.
#[allow(clippy::too_many_arguments, reason = "as many as the documented function has")]
pub(crate) fn virtual_unwind(
    cx: &mut Cx<'_>,
    kind: u32,
    _image_base: u64,
    control: u64,
    _entry: DriverPtr<RUNTIME_FUNCTION>,
    record: DriverPtr<CONTEXT>,
    data: DriverPtr<u64>,
    establisher: DriverPtr<u64>,
    pointers: DriverPtr<()>,
) -> Flow<DriverPtr<Code>> {
    if !pointers.is_null() {
        return Err(cx.stop(Verdict::not_implemented("RtlVirtualUnwind with ContextPointers")));
    }
    let mut before = context::meaning(&cx.read(record)?);
    before.rip = control;
    let frame = frames::frame(cx, &before);
    let Some(after) = frames::caller(cx, &before) else {
        let who = crate::ldr::symbols::describe(cx, control);
        let message = format!(
            "RtlVirtualUnwind was called for {who} with a context that its unwind data cannot lead on from"
        );
        return Err(cx.stop(Verdict::error("unwind-data-damaged", message)));
    };
    cx.write(record, context::laid_out(&after))?;
    cx.write(establisher, frame.map_or(before.registers.rsp(), |frame| frame.establisher))?;
    let handler = frame.and_then(|frame| frame.handler).filter(|handler| {
        (kind & EXCEPTION_HANDLER != 0 && handler.exceptions)
            || (kind & TERMINATION_HANDLER != 0 && handler.termination)
    });
    let Some(handler) = handler else { return Ok(DriverPtr::NULL) };
    cx.write(data, handler.data)?;
    Ok(DriverPtr::new(handler.routine))
}
