//! Registers beyond the integer ones and SSE's: who may use them. Follows *Using extended processor features in Windows
//! drivers*, *KeSaveExtendedProcessorState function*, *KeRestoreExtendedProcessorState function* and
//! *RtlGetEnabledExtendedFeatures function*.
//!
//! What is saved belongs to the interrupted code or the system call's maker: nothing that can be seen here. So saving and
//! restoring is only written down, in the driver's buffer and for the judgement; registers keep what they hold.

use abi::{DriverPtr, KTHREAD, NtStatus, XSTATE_CONTEXT, XSTATE_SAVE};
use engine::{Cpu, Extended, Flow};

use crate::cx::{Cx, Kernel};
use crate::verdict::Verdict;

/// `XSTATE_MASK_LEGACY_FLOATING_POINT`: x87 and MMX.
const X87: u32 = 1;
/// `XSTATE_MASK_LEGACY`: with SSE.
pub(crate) const LEGACY: u32 = 3;
/// `XSTATE_MASK_GSSE`: AVX.
pub(crate) const AVX: u32 = 4;

/// A state that was saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Saved {
    /// The driver's `XSTATE_SAVE`.
    buffer: DriverPtr<XSTATE_SAVE>,
    mask: u64,
    irql: u8,
}

fn all(k: &Kernel) -> u64 {
    match k.ke.cpu {
        Cpu::X86_64V2 => LEGACY.into(),
        Cpu::X86_64V3 => (LEGACY | AVX).into(),
    }
}

/// `RtlGetEnabledExtendedFeatures`: which of `mask` the system has enabled by XSAVE, as `KUSER_SHARED_DATA` says: none where the processor
/// has no XSAVE, although x87 and SSE are there.
///
/// # Errors
/// None.
pub(crate) fn enabled(cx: &mut Cx<'_>, mask: u64) -> Flow<u64> {
    Ok(cx.with(|k| by_xsave(k.ke.cpu) & mask))
}

/// The features that XSAVE manages.
pub(in crate::ke) fn by_xsave(cpu: Cpu) -> u64 {
    match cpu {
        Cpu::X86_64V2 => 0,
        Cpu::X86_64V3 => (LEGACY | AVX).into(),
    }
}

/// `KeSaveExtendedProcessorState`. It succeeds: memory for the state is never short here.
///
/// # Errors
/// A verdict if `mask` has what is not enabled, if a save around this one was at a higher level, or if the buffer is bad.
pub(crate) fn save(cx: &mut Cx<'_>, mask: u64, buffer: DriverPtr<XSTATE_SAVE>) -> Flow<NtStatus> {
    let (irql, enabled) = (crate::ke::levels::irql::current(cx), cx.with(|k| all(k)));
    if mask & !enabled != 0 {
        let message = format!(
            "KeSaveExtendedProcessorState was asked for features {:#x}, which are not enabled: \
             RtlGetEnabledExtendedFeatures tells that {enabled:#x} are",
            mask & !enabled
        );
        return Err(cx.stop(Verdict::error("extended-state-not-enabled", message)));
    }
    let (outer, thread) = cx.with(|k| {
        let thread = k.ke.thread();
        let outer = thread.and_then(|thread| thread.extended.last().copied());
        (outer, thread.map_or(DriverPtr::<KTHREAD>::NULL, |thread| thread.object))
    });
    if let Some(outer) = outer.filter(|outer| outer.irql > irql) {
        let message = format!(
            "KeSaveExtendedProcessorState was called at IRQL {irql}, within a save at IRQL {}: nested calls must not be \
             at a lower one",
            outer.irql
        );
        return Err(cx.stop(Verdict::error("extended-state-unnested", message)));
    }
    cx.write(buffer + XSTATE_SAVE::Prev, outer.map_or(DriverPtr::NULL, |outer| outer.buffer))?;
    cx.write(buffer + XSTATE_SAVE::Thread, thread)?;
    cx.write(buffer + XSTATE_SAVE::Level, irql)?;
    cx.write(buffer + XSTATE_SAVE::XStateContext + XSTATE_CONTEXT::Mask, mask)?;
    cx.with(|k| k.ke.change_thread(|thread| thread.extended.push(Saved { buffer, mask, irql })));
    Ok(NtStatus::SUCCESS)
}

/// `KeRestoreExtendedProcessorState`.
///
/// # Errors
/// A verdict if it is not the innermost save of this thread that is taken back, or at another level.
pub(crate) fn restore(cx: &mut Cx<'_>, buffer: DriverPtr<XSTATE_SAVE>) -> Flow<()> {
    let irql = crate::ke::levels::irql::current(cx);
    let saved = cx.with(|k| k.ke.thread_mut().and_then(|thread| thread.extended.pop()));
    cx.engine().extended_changed();
    let problem = match saved {
        Some(saved) if saved.buffer == buffer && saved.irql == irql => return Ok(()),
        Some(saved) if saved.buffer == buffer => {
            format!("at IRQL {irql}; the state was saved at IRQL {}", saved.irql)
        }
        Some(saved) => format!(
            "with {:#x}, but the innermost state that this thread has saved is in {:#x}",
            buffer.address, saved.buffer.address
        ),
        None => format!("with {:#x}, but there is no state that this thread has saved", buffer.address),
    };
    let message = format!("KeRestoreExtendedProcessorState was called {problem}");
    Err(cx.stop(Verdict::error("extended-state-unnested", message)))
}

/// Driver code is about to use these registers.
///
/// # Errors
/// A verdict if it has not saved what they held, here and now: a DPC or an interrupt service routine has to by itself.
pub(in crate::ke) fn use_of(cx: &mut Cx<'_>, registers: Extended) -> Flow<()> {
    let bit = match registers {
        Extended::X87 => X87,
        Extended::Avx => AVX,
    };
    let covers = |saved: &Saved| saved.mask & u64::from(bit) != 0;
    if cx.with(|k| k.ke.thread().is_some_and(|thread| thread.extended.iter().any(covers))) {
        return Ok(());
    }
    let (rip, irql) =
        (cx.engine().caller().map_or(0, |caller| caller.rip), crate::ke::levels::irql::current(cx));
    let name = match registers {
        Extended::X87 => "x87 or MMX",
        Extended::Avx => "AVX",
    };
    let remedy = if irql > crate::ke::levels::irql::DISPATCH_LEVEL {
        "an interrupt service routine cannot"
    } else {
        "see KeSaveExtendedProcessorState"
    };
    let at = crate::ldr::symbols::describe(cx, rip);
    let message = format!(
        "{at} uses {name} registers without having saved them: they belong to whatever ran before, an application perhaps \
         ({remedy})"
    );
    Err(cx.stop(Verdict::error("extended-state-not-saved", message)))
}
