//! Exceptions and unwinding: records, contexts, function tables.
//!
//! Pages: *x64 exception handling*, *CONTEXT structure (winnt.h)*, *EXCEPTION_RECORD*; `ntddk.h` and `winnt.h`.
//! The bytes of unwind codes are read by the image reader, not here.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr, KTHREAD, NtStatus};

layouts! {
    /// What happened and where.
    EXCEPTION_RECORD [size 0x98, align 8] {
        0x00 ExceptionCode: NtStatus,
        0x04 ExceptionFlags: u32,
        0x08 ExceptionRecord: DriverPtr<EXCEPTION_RECORD>,
        0x10 ExceptionAddress: DriverPtr<()>,
        0x18 NumberParameters: u32,
        0x20 ExceptionInformation: [u64; 15],
    }

    /// What a filter is given.
    EXCEPTION_POINTERS [size 0x10, align 8] {
        0x00 ExceptionRecord: DriverPtr<EXCEPTION_RECORD>,
        0x08 ContextRecord: DriverPtr<CONTEXT>,
    }

    /// 128 bits of an XMM register.
    M128A [size 0x10, align 16] {
        0x00 Low: u64,
        0x08 High: i64,
    }

    /// The legacy area of `FXSAVE`/`XSAVE`.
    XSAVE_FORMAT [size 0x200, align 16] {
        0x000 ControlWord: u16,
        0x002 StatusWord: u16,
        0x004 TagWord: u8,
        0x005 Reserved1: u8,
        0x006 ErrorOpcode: u16,
        0x008 ErrorOffset: u32,
        0x00c ErrorSelector: u16,
        0x00e Reserved2: u16,
        0x010 DataOffset: u32,
        0x014 DataSelector: u16,
        0x016 Reserved3: u16,
        0x018 MxCsr: u32,
        0x01c MxCsr_Mask: u32,
        0x020 FloatRegisters: [M128A; 8],
        0x0a0 XmmRegisters: [M128A; 16],
        0x1a0 Reserved4: [u8; 96],
    }

    /// A thread's registers.
    CONTEXT [size 0x4d0, align 16] {
        0x000 P1Home: u64,
        0x008 P2Home: u64,
        0x010 P3Home: u64,
        0x018 P4Home: u64,
        0x020 P5Home: u64,
        0x028 P6Home: u64,
        0x030 ContextFlags: u32,
        0x034 MxCsr: u32,
        0x038 SegCs: u16,
        0x03a SegDs: u16,
        0x03c SegEs: u16,
        0x03e SegFs: u16,
        0x040 SegGs: u16,
        0x042 SegSs: u16,
        0x044 EFlags: u32,
        0x048 Dr0: u64,
        0x050 Dr1: u64,
        0x058 Dr2: u64,
        0x060 Dr3: u64,
        0x068 Dr6: u64,
        0x070 Dr7: u64,
        0x078 Rax: u64,
        0x080 Rcx: u64,
        0x088 Rdx: u64,
        0x090 Rbx: u64,
        0x098 Rsp: u64,
        0x0a0 Rbp: u64,
        0x0a8 Rsi: u64,
        0x0b0 Rdi: u64,
        0x0b8 R8: u64,
        0x0c0 R9: u64,
        0x0c8 R10: u64,
        0x0d0 R11: u64,
        0x0d8 R12: u64,
        0x0e0 R13: u64,
        0x0e8 R14: u64,
        0x0f0 R15: u64,
        0x0f8 Rip: u64,
        0x100 FltSave: XSAVE_FORMAT,
        0x100 Header: [M128A; 2],
        0x120 Legacy: [M128A; 8],
        0x1a0 Xmm0: M128A,
        0x1b0 Xmm1: M128A,
        0x1c0 Xmm2: M128A,
        0x1d0 Xmm3: M128A,
        0x1e0 Xmm4: M128A,
        0x1f0 Xmm5: M128A,
        0x200 Xmm6: M128A,
        0x210 Xmm7: M128A,
        0x220 Xmm8: M128A,
        0x230 Xmm9: M128A,
        0x240 Xmm10: M128A,
        0x250 Xmm11: M128A,
        0x260 Xmm12: M128A,
        0x270 Xmm13: M128A,
        0x280 Xmm14: M128A,
        0x290 Xmm15: M128A,
        0x300 VectorRegister: [M128A; 26],
        0x4a0 VectorControl: u64,
        0x4a8 DebugControl: u64,
        0x4b0 LastBranchToRip: u64,
        0x4b8 LastBranchFromRip: u64,
        0x4c0 LastExceptionToRip: u64,
        0x4c8 LastExceptionFromRip: u64,
    }

    /// Extended processor state, as `KeSaveExtendedProcessorState` keeps it.
    XSTATE_CONTEXT [size 0x20, align 8] {
        0x00 Mask: u64,
        0x08 Length: u32,
        0x0c Reserved1: u32,
        0x10 Area: DriverPtr<()>,
        0x18 Buffer: DriverPtr<()>,
    }

    /// What the caller of `KeSaveExtendedProcessorState` provides.
    XSTATE_SAVE [size 0x38, align 8] {
        0x00 Prev: DriverPtr<XSTATE_SAVE>,
        0x08 Thread: DriverPtr<KTHREAD>,
        0x10 Level: u8,
        0x18 XStateContext: XSTATE_CONTEXT,
    }

    /// A function's entry in `.pdata`, in offsets from the image base.
    RUNTIME_FUNCTION [size 0xc, align 4] {
        0x0 BeginAddress: u32,
        0x4 EndAddress: u32,
        0x8 UnwindData: u32,
    }

    /// One remembered lookup.
    UNWIND_HISTORY_TABLE_ENTRY [size 0x10, align 8] {
        0x00 ImageBase: u64,
        0x08 FunctionEntry: DriverPtr<RUNTIME_FUNCTION>,
    }

    /// Lookups remembered during one unwind.
    UNWIND_HISTORY_TABLE [size 0xd8, align 8] {
        0x00 Count: u32,
        0x04 LocalHint: u8,
        0x05 GlobalHint: u8,
        0x06 Search: u8,
        0x07 Once: u8,
        0x08 LowAddress: u64,
        0x10 HighAddress: u64,
        0x18 Entry: [UNWIND_HISTORY_TABLE_ENTRY; 12],
    }

    /// What a language handler is given about the frame it stands for.
    DISPATCHER_CONTEXT [size 0x50, align 8] {
        0x00 ControlPc: u64,
        0x08 ImageBase: u64,
        0x10 FunctionEntry: DriverPtr<RUNTIME_FUNCTION>,
        0x18 EstablisherFrame: u64,
        0x20 TargetIp: u64,
        0x28 ContextRecord: DriverPtr<CONTEXT>,
        0x30 LanguageHandler: DriverPtr<Code>,
        0x38 HandlerData: DriverPtr<()>,
        0x40 HistoryTable: DriverPtr<UNWIND_HISTORY_TABLE>,
        0x48 ScopeIndex: u32,
    }
}

constants! {
    u32 {
        // `CONTEXT::ContextFlags`.
        CONTEXT_AMD64 = 0x0010_0000;
        CONTEXT_CONTROL = 0x0010_0001;
        CONTEXT_INTEGER = 0x0010_0002;
        CONTEXT_SEGMENTS = 0x0010_0004;
        CONTEXT_FLOATING_POINT = 0x0010_0008;
        CONTEXT_DEBUG_REGISTERS = 0x0010_0010;
        CONTEXT_FULL = 0x0010_000b;
        CONTEXT_ALL = 0x0010_001f;
        CONTEXT_XSTATE = 0x0010_0020;
    }
    i32 {
        // What a filter answers.
        EXCEPTION_EXECUTE_HANDLER = 1;
        EXCEPTION_CONTINUE_SEARCH = 0;
        EXCEPTION_CONTINUE_EXECUTION = -1;
    }
    u32 {
        // `EXCEPTION_RECORD::ExceptionFlags`.
        EXCEPTION_NONCONTINUABLE = 1;
    }
    u32, not_in_mingw "mingw declares them for applications only" {
        EXCEPTION_UNWINDING = 0x2;
        EXCEPTION_EXIT_UNWIND = 0x4;
        EXCEPTION_STACK_INVALID = 0x8;
        EXCEPTION_NESTED_CALL = 0x10;
        EXCEPTION_TARGET_UNWIND = 0x20;
        EXCEPTION_COLLIDED_UNWIND = 0x40;
    }
    u32, not_in_mingw "mingw declares them for applications only" {
        // What a language handler answers.
        ExceptionContinueExecution = 0;
        ExceptionContinueSearch = 1;
        ExceptionNestedException = 2;
        ExceptionCollidedUnwind = 3;
    }
    u32 {
        // Limits.
        EXCEPTION_MAXIMUM_PARAMETERS = 15;
    }
}
