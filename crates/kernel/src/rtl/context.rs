//! `RtlCaptureContext`, `RtlRestoreContext`, and a `CONTEXT` in driver memory as the registers it stands for.
//!
//! Pages: *CONTEXT structure (winnt.h)*, *RtlCaptureContext function*, *RtlRestoreContext function*. In the context of an exception, what
//! the calling convention leaves undefined at a call (`rax`, `r10`, `r11`, `xmm0`–`xmm5`, flags) is 0 in callers; debug
//! registers and the x87 state are not kept.

use abi::{CONTEXT, CONTEXT_FULL, CONTEXT_SEGMENTS, DriverPtr, EXCEPTION_RECORD, NtStatus, XSAVE_FORMAT};
use engine::{BadAddress, Context, Engine, Flow};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::frames;
use crate::cx::Cx;
use crate::verdict::Verdict;

/// The number of `rcx` among the registers.
const RCX: usize = 1;
/// The number of the overflow flag's bit.
const OVERFLOW: u32 = 11;

/// The selectors that x64 Windows loads in kernel mode: cs ds es fs gs ss.
const SELECTORS: [u16; 6] = [0x10, 0x2B, 0x2B, 0x53, 0x2B, 0x18];

fn put<T, F: IntoBytes + Immutable>(bytes: &mut [u8], field: abi::Field<T, F>, value: F) {
    let at = offset(field);
    bytes[at..at + size_of::<F>()].copy_from_slice(value.as_bytes());
}

fn take<T, F: FromBytes>(bytes: &[u8], field: abi::Field<T, F>) -> F {
    let at = offset(field);
    F::read_from_bytes(&bytes[at..at + size_of::<F>()]).expect("a field lies inside its type")
}

fn offset<T, F>(field: abi::Field<T, F>) -> usize {
    usize::try_from(field.offset()).expect("small")
}

/// A part of a `CONTEXT` that several of its fields make up.
const fn part<F>(offset: u64) -> abi::Field<CONTEXT, F> {
    abi::Field::at(offset)
}

/// As a `CONTEXT`.
pub(crate) fn laid_out(context: &Context) -> CONTEXT {
    let mut record = CONTEXT::zeroed();
    let bytes = record.as_mut_bytes();
    put(bytes, CONTEXT::ContextFlags, CONTEXT_FULL | CONTEXT_SEGMENTS);
    put(bytes, CONTEXT::MxCsr, context.mxcsr);
    put(bytes, part(CONTEXT::SegCs.offset()), SELECTORS);
    let [a, b, c, d, ..] = context.registers.flags.to_le_bytes();
    put(bytes, CONTEXT::EFlags, u32::from_le_bytes([a, b, c, d]));
    put(bytes, part(CONTEXT::Rax.offset()), context.registers.general);
    put(bytes, CONTEXT::Rip, context.rip);
    let legacy = CONTEXT::FltSave.offset();
    put(bytes, part(legacy + XSAVE_FORMAT::ControlWord.offset()), 0x27Fu16);
    put(bytes, part(legacy + XSAVE_FORMAT::MxCsr.offset()), context.mxcsr);
    put(bytes, part(legacy + XSAVE_FORMAT::MxCsr_Mask.offset()), 0xFFFFu32);
    put(bytes, part(CONTEXT::Xmm0.offset()), context.xmm);
    record
}

/// What a `CONTEXT` says. The engine decides which flags driver code may have.
pub(crate) fn meaning(record: &CONTEXT) -> Context {
    let bytes = record.as_bytes();
    let general = take(bytes, part(CONTEXT::Rax.offset()));
    Context {
        rip: take(bytes, CONTEXT::Rip),
        registers: engine::Registers { general, flags: take(bytes, CONTEXT::EFlags).into() },
        xmm: take(bytes, part(CONTEXT::Xmm0.offset())),
        mxcsr: take(bytes, CONTEXT::MxCsr),
    }
}

/// Reads a `CONTEXT` of the driver's.
pub(crate) fn read(engine: Engine, at: DriverPtr<CONTEXT>) -> Result<Context, BadAddress> {
    engine.read(at).map(|record| meaning(&record))
}

/// `RtlCaptureContext`: the caller's registers, as after the call. Those that a call does not keep are there already, and in `EFlags`
/// the flags in pieces (`ldr::code`). What is neither control, integer, segments nor floating point stays.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn capture(cx: &mut Cx<'_>, at: DriverPtr<CONTEXT>) -> Flow<()> {
    let mut caller = cx.engine().contexts().first().copied().unwrap_or_default();
    let mut record = cx.read(at)?;
    let [overflow, low, ..] = take(record.as_bytes(), CONTEXT::EFlags).to_le_bytes();
    caller.registers.flags |= u64::from(low) | u64::from(overflow) << OVERFLOW;
    caller.registers.general[RCX] = at.address;
    let whole = laid_out(&caller);
    let parts = [
        CONTEXT::ContextFlags.offset()..CONTEXT::Dr0.offset(),
        CONTEXT::Rcx.offset()..CONTEXT::Rdx.offset(),
        CONTEXT::Rbx.offset()..CONTEXT::R8.offset(),
        CONTEXT::R12.offset()..CONTEXT::Xmm0.offset(),
        CONTEXT::Xmm0.offset() + 6 * 16..CONTEXT::Xmm15.offset() + 16,
    ];
    for part in parts {
        let part = usize::try_from(part.start).expect("small")..usize::try_from(part.end).expect("small");
        record.as_mut_bytes()[part.clone()].copy_from_slice(&whole.as_bytes()[part]);
    }
    cx.write(at, record)
}

/// `RtlRestoreContext`: driver code goes on with these registers, in whichever of the calls that are on this stack.
///
/// # Errors
/// It does not return. A verdict on a bad pointer, or where the stack pointer is on no stack in use.
pub(crate) fn restore(
    cx: &mut Cx<'_>,
    at: DriverPtr<CONTEXT>,
    record: DriverPtr<EXCEPTION_RECORD>,
) -> Flow<()> {
    if !record.is_null() {
        let code = cx.read(record + EXCEPTION_RECORD::ExceptionCode)?;
        if matches!(code, NtStatus::UNWIND_CONSOLIDATE | NtStatus::LONGJUMP) {
            let what = format!("RtlRestoreContext with an exception record of {code}");
            return Err(cx.stop(Verdict::not_implemented(&what)));
        }
    }
    let context = meaning(&cx.read(at)?);
    match frames::depth_of(cx, context.registers.rsp()) {
        Some(depth) => Err(cx.engine().resume_at(depth, &context)),
        None => {
            let message = format!(
                "RtlRestoreContext was given the stack pointer {:#x}, which is on no stack of this thread's calls",
                context.registers.rsp()
            );
            Err(cx.stop(Verdict::error("context-off-stack", message)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_stand_where_microsoft_says_and_come_back() {
        let mut context = Context { rip: 0x1234_5678_9ABC, mxcsr: 0x1F80, ..Context::default() };
        for (index, register) in context.registers.general.iter_mut().enumerate() {
            *register = 0xAB00 + index as u64;
        }
        for (index, register) in context.xmm.iter_mut().enumerate() {
            *register = 0xCD00 + index as u128;
        }
        context.registers.flags = 0x246;
        let record = laid_out(&context);
        assert_eq!(take(record.as_bytes(), CONTEXT::R15), 0xAB0F);
        assert_eq!(take(record.as_bytes(), CONTEXT::Rsp), 0xAB04);
        assert_eq!(take(record.as_bytes(), CONTEXT::SegSs), 0x18);
        let last: u128 = take(record.as_bytes(), part(CONTEXT::Xmm15.offset()));
        assert_eq!(last, 0xCD0F);
        assert_eq!(meaning(&record), context);
    }
}
