/* Pairs of instructions: pointers, calls, flags, exceptions, stacks. */
#ifndef PAIRS_PROCESSOR_H
#define PAIRS_PROCESSOR_H

#include "pairs.h"

NTSYSAPI VOID NTAPI RtlRaiseException(PEXCEPTION_RECORD Record);
NTSYSAPI VOID NTAPI RtlCaptureContext(PCONTEXT Context);
NTSYSAPI VOID NTAPI RtlRestoreContext(PCONTEXT Context, PEXCEPTION_RECORD Record);

static const ULONG ReadOnly[] = {1, 2};
static volatile ULONG ReadWrite[] = {1, 2};

static VOID NTAPI Return(VOID)
{
}

static VOID WildRead(BOOLEAN Wrong)
{
    Sink = *(volatile ULONG *)(Wrong ? (PVOID)0xFFFFF880DEAD0000 : (PVOID)&ReadWrite[1]);
}

static VOID WildWrite(BOOLEAN Wrong)
{
    *(volatile ULONG *)(Wrong ? (PVOID)0xFFFFF880DEAD0000 : (PVOID)&ReadWrite[1]) = 7;
}

static VOID WildPointer(BOOLEAN Wrong)
{
    Sink = *(volatile ULONG *)(Wrong ? (PVOID)0x8000000000001000 : (PVOID)&ReadWrite[1]);
}

static VOID WildCall(BOOLEAN Wrong)
{
    VOID (NTAPI *volatile Routine)(VOID) = Return;

    if (Wrong) {
        Routine = (PVOID)0xFFFFF880DEAD0000;
    }
    Routine();
}

static VOID ExecuteOfData(BOOLEAN Wrong)
{
    VOID (NTAPI *volatile Routine)(VOID) = Return;
    PUCHAR Block = ExAllocatePoolWithTag(NonPagedPoolNx, 16, TAG);

    if (Block == NULL) {
        return;
    }
    Block[0] = 0xC3; /* ret */
    if (Wrong) {
        Routine = (PVOID)Block;
    }
    Routine();
    Free(Block);
}

static VOID WriteToReadOnly(BOOLEAN Wrong)
{
    Sink = ReadOnly[Zero];
    *(volatile ULONG *)(ULONG_PTR)(Wrong ? (PVOID)&ReadOnly[Zero] : (PVOID)&ReadWrite[Zero]) = 2;
}

static VOID DivideError(BOOLEAN Wrong)
{
    ULONG Divisor = Wrong ? 0 : 3, Quotient = 12, Rest = 0;

    __asm__ volatile("divl %2" : "+a"(Quotient), "+d"(Rest) : "r"(Divisor) : "cc");
    Sink = Quotient;
}

static VOID InvalidOpcode(BOOLEAN Wrong)
{
    if (Wrong) {
        __asm__ volatile("ud2");
    } else {
        __asm__ volatile("nop");
    }
}

/* A misaligned operand of an instruction that wants it aligned. */
static VOID ProtectionFault(BOOLEAN Wrong)
{
    static UCHAR Room[48] __attribute__((aligned(16)));

    __asm__ volatile("movaps (%0), %%xmm0" : : "r"(Room + (Wrong ? 4 : 16)) : "xmm0", "memory");
}

static VOID Breakpoint(BOOLEAN Wrong)
{
    if (!KdRefreshDebuggerNotPresent() || Wrong) {
        __asm__ volatile("int3");
    }
}

static VOID AssertionFailed(BOOLEAN Wrong)
{
    if (Wrong) {
        __asm__ volatile("int $0x2c");
    }
}

static VOID FastFail(BOOLEAN Wrong)
{
    LIST_ENTRY Head;

    InitializeListHead(&Head);
    if (Wrong) {
        Head.Flink = NULL;
    }
    if (Head.Flink != &Head) { /* what wdm.h's list routines do */
        __asm__ volatile("int $0x29" : : "c"(3));
    }
}

static VOID InstructionRefused(BOOLEAN Wrong)
{
    ULONG64 Value;

    __asm__ volatile("mov %%cr0, %0" : "=r"(Value));
    if (Wrong) {
        __asm__ volatile("mov %0, %%cr0" : : "r"(Value & ~0x10000ull)); /* the write protection off */
    }
}

static VOID Halted(BOOLEAN Wrong)
{
    static KTIMER Timer;

    KeInitializeTimer(&Timer);
    KeSetTimer(&Timer, After(MILLISECONDS(2)), NULL);
    if (Wrong) {
        __asm__ volatile("cli");
    }
    __asm__ volatile("hlt");
    __asm__ volatile("sti");
    KeCancelTimer(&Timer);
}

static VOID EndlessLoop(BOOLEAN Wrong)
{
    ULONG Left = Wrong ? 0 : 10;

    __asm__ volatile("1: dec %0; jz 2f; test %1, %1; jnz 1b; jmp 1b; 2:" : "+r"(Left) : "r"(Wrong) : "cc");
    while (Wrong) {
        __asm__ volatile("");
    }
}

static volatile ULONG Flag;

static VOID NTAPI SetFlag(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    Flag = 1;
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID Livelock(BOOLEAN Wrong)
{
    PKTHREAD Thread = NULL;

    Flag = 0;
    if (!Wrong) {
        Thread = StartThread(SetFlag, NULL);
        if (Thread == NULL) {
            return;
        }
    }
    while (Flag == 0) {
        __asm__ volatile("pause");
    }
    JoinThread(Thread);
}

static NOINLINE ULONG Recurse(ULONG Depth)
{
    volatile UCHAR Frame[512];

    Frame[Depth % sizeof(Frame)] = (UCHAR)Depth;
    if (Depth == 0) {
        return 0;
    }
    return Recurse(Depth - 1) + Frame[(Depth + Zero) % sizeof(Frame)];
}

static VOID StackOverflow(BOOLEAN Wrong)
{
    Sink = Recurse(Wrong ? 1000 : 10);
}

static VOID SharedDataWritten(BOOLEAN Wrong)
{
    volatile ULONG *Shared = (volatile ULONG *)0xFFFFF78000000320; /* TickCount */

    if (Wrong) {
        *Shared = 1;
    }
    Sink = *Shared;
}

static VOID BadPointer(BOOLEAN Wrong)
{
    static KEVENT Event;

    KeInitializeEvent(Wrong ? (PVOID)0xFFFFF880DEAD0000 : &Event, NotificationEvent, FALSE);
}

static VOID UnhandledException(BOOLEAN Wrong)
{
    if (Wrong) {
        ExRaiseStatus(STATUS_ACCESS_DENIED);
    }
    __try {
        ExRaiseStatus(STATUS_ACCESS_DENIED);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Sink = 1;
    }
}

static VOID EndlessExceptions(BOOLEAN Wrong)
{
    __try {
        ProbeForRead((PVOID)(ULONG_PTR)Zero, sizeof(ULONG), 1);
        Sink = *(volatile ULONG *)(ULONG_PTR)Zero;
    } __except (Wrong ? EXCEPTION_CONTINUE_EXECUTION : EXCEPTION_EXECUTE_HANDLER) {
        Sink = 1;
    }
}

static VOID ExceptionParameters(BOOLEAN Wrong)
{
    EXCEPTION_RECORD Record;

    RtlZeroMemory(&Record, sizeof(Record));
    Record.ExceptionCode = STATUS_ACCESS_DENIED;
    Record.NumberParameters = Wrong ? 16 : 15;
    __try {
        RtlRaiseException(&Record);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Sink = 1;
    }
}

static VOID ContextOffStack(BOOLEAN Wrong)
{
    static CONTEXT Context __attribute__((aligned(16)));
    static volatile ULONG Came;

    Came = 0;
    RtlCaptureContext(&Context);
    if (Came++ == 0) {
        if (Wrong) {
            Context.Rsp = (ULONG64)(ULONG_PTR)&Context;
        }
        RtlRestoreContext(&Context, NULL);
    }
}

/* ---- what a routine leaves behind, in a DPC -------------------------------------------------------------------- */

static VOID NTAPI LeaveDirection(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    __asm__ volatile("std");
    if (Context == NULL) {
        __asm__ volatile("cld");
    }
}

static VOID NTAPI LeaveMxcsr(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    static const ULONG Down = 0x3F80, Usual = 0x1F80;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    __asm__ volatile("ldmxcsr %0" : : "m"(Down));
    if (Context == NULL) {
        __asm__ volatile("ldmxcsr %0" : : "m"(Usual));
    }
}

extern VOID NTAPI ReturnByCount(VOID);
__asm__(".globl ReturnByCount\nReturnByCount:\n ret $16\n");

static VOID InDpc(PKDEFERRED_ROUTINE Routine, BOOLEAN Wrong)
{
    static KDPC Dpc;

    KeInitializeDpc(&Dpc, Routine, Wrong ? &Dpc : NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeFlushQueuedDpcs();
}

static VOID DirectionFlagSetOnReturn(BOOLEAN Wrong)
{
    InDpc(LeaveDirection, Wrong);
}

static VOID MxcsrChangedOnReturn(BOOLEAN Wrong)
{
    InDpc(LeaveMxcsr, Wrong);
}

static VOID NTAPI KeepStack(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
}

static VOID StackPointerChangedOnReturn(BOOLEAN Wrong)
{
    InDpc(Wrong ? (PKDEFERRED_ROUTINE)(PVOID)ReturnByCount : KeepStack, Wrong);
}

/* ---- floating point, extended state, single steps ---------------------------------------------------------------- */

static VOID FloatingPointException(BOOLEAN Wrong)
{
    ULONG Control = Wrong ? 0x1D80 : 0x1F80, Usual = 0x1F80; /* a division by zero raises an exception, or not */
    ULONG One = 0x3F800000, Nought = 0; /* as floats */

    __asm__ volatile("ldmxcsr %0\n movss %2, %%xmm0\n divss %3, %%xmm0\n ldmxcsr %1"
                     :
                     : "m"(Control), "m"(Usual), "m"(One), "m"(Nought)
                     : "xmm0");
}

static VOID Trap(BOOLEAN Wrong)
{
    ULONG64 Flag = Wrong ? 0x100 : 0;

    __asm__ volatile("pushfq\n orq %0, (%%rsp)\n popfq\n nop\n nop" : : "r"(Flag) : "cc", "memory");
}

#define LEGACY 3ull /* x87 and SSE, which every processor has */

static VOID ExtendedStateNotEnabled(BOOLEAN Wrong)
{
    XSTATE_SAVE Save;

    if (NT_SUCCESS(KeSaveExtendedProcessorState(Wrong ? 1ull << 60 : LEGACY, &Save))) {
        KeRestoreExtendedProcessorState(&Save);
    }
}

static VOID ExtendedStateNotRestored(BOOLEAN Wrong)
{
    static XSTATE_SAVE Save;

    if (NT_SUCCESS(KeSaveExtendedProcessorState(LEGACY, &Save)) && !Wrong) {
        KeRestoreExtendedProcessorState(&Save);
    }
}

static VOID ExtendedStateUnnested(BOOLEAN Wrong)
{
    XSTATE_SAVE Outer, Inner;

    if (!NT_SUCCESS(KeSaveExtendedProcessorState(LEGACY, &Outer))) {
        return;
    }
    if (NT_SUCCESS(KeSaveExtendedProcessorState(LEGACY, &Inner))) {
        KeRestoreExtendedProcessorState(Wrong ? &Outer : &Inner);
    }
    KeRestoreExtendedProcessorState(Wrong ? &Inner : &Outer);
}

/* ---- handlers and unwinding --------------------------------------------------------------------------------------- */

static EXCEPTION_DISPOSITION Disposition;

EXCEPTION_DISPOSITION NTAPI LanguageHandler(PEXCEPTION_RECORD Record, PVOID Frame,
                                           PCONTEXT Context, DISPATCHER_CONTEXT *Walk)
{
    UNREFERENCED_PARAMETER(Record);
    UNREFERENCED_PARAMETER(Frame);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Walk);
    return Disposition;
}

extern ULONG NTAPI ReadUnderHandler(volatile ULONG *Address);
__asm__(".globl ReadUnderHandler\n"
        ".seh_proc ReadUnderHandler\n"
        "ReadUnderHandler:\n"
        " subq $40, %rsp\n"
        " .seh_stackalloc 40\n"
        " .seh_handler LanguageHandler, @except\n"
        " .seh_endprologue\n"
        " movl (%rcx), %eax\n"
        " nop\n"
        " addq $40, %rsp\n"
        " ret\n"
        ".seh_endproc\n");

static VOID HandlerDisposition(BOOLEAN Wrong)
{
    Disposition = Wrong ? (EXCEPTION_DISPOSITION)7 : ExceptionContinueSearch;
    __try {
        ProbeForRead((PVOID)(ULONG_PTR)Zero, sizeof(ULONG), 1);
        Sink = ReadUnderHandler((volatile ULONG *)(ULONG_PTR)Zero);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Sink = 1;
    }
}

NTSYSAPI RUNTIME_FUNCTION *NTAPI RtlLookupFunctionEntry(ULONG64 ControlPc, PULONG64 ImageBase, PVOID History);
NTSYSAPI PVOID NTAPI RtlVirtualUnwind(ULONG Kind, ULONG64 ImageBase, ULONG64 ControlPc, RUNTIME_FUNCTION *Function,
                                      PCONTEXT Context, PVOID *HandlerData, PULONG64 EstablisherFrame, PVOID Pointers);

static VOID UnwindDataDamaged(BOOLEAN Wrong)
{
    static CONTEXT Context __attribute__((aligned(16)));
    ULONG64 Base, Frame;
    RUNTIME_FUNCTION *Function;
    PVOID Data;

    RtlCaptureContext(&Context);
    Function = RtlLookupFunctionEntry(Context.Rip, &Base, NULL);
    if (Wrong) {
        Context.Rsp = 0xFFFFF880DEAD0000;
        Context.Rbp = 0xFFFFF880DEAD0000;
    }
    RtlVirtualUnwind(0, Base, Context.Rip, Function, &Context, &Data, &Frame, NULL);
}

#define PROCESSOR_PAIRS                                                                                                \
    PAIR("assertion-failed", AssertionFailed)                                                                          \
    PAIR("bad-pointer", BadPointer)                                                                                    \
    PAIR("breakpoint", Breakpoint)                                                                                     \
    PAIR("context-off-stack", ContextOffStack)                                                                         \
    PAIR("direction-flag-set-on-return", DirectionFlagSetOnReturn)                                                     \
    PAIR("divide-error", DivideError)                                                                                  \
    PAIR("endless-exceptions", EndlessExceptions)                                                                      \
    PAIR("endless-loop", EndlessLoop)                                                                                  \
    PAIR("exception-parameters", ExceptionParameters)                                                                  \
    PAIR("execute-of-data", ExecuteOfData)                                                                             \
    PAIR("extended-state-not-enabled", ExtendedStateNotEnabled)                                                        \
    PAIR("extended-state-not-restored", ExtendedStateNotRestored)                                                      \
    PAIR("extended-state-unnested", ExtendedStateUnnested)                                                             \
    PAIR("fast-fail", FastFail)                                                                                        \
    PAIR("floating-point-exception", FloatingPointException)                                                           \
    PAIR("halted", Halted)                                                                                             \
    PAIR("handler-disposition", HandlerDisposition)                                                                    \
    PAIR("instruction-refused", InstructionRefused)                                                                    \
    PAIR("invalid-opcode", InvalidOpcode)                                                                              \
    PAIR("livelock", Livelock)                                                                                         \
    PAIR("mxcsr-changed-on-return", MxcsrChangedOnReturn)                                                              \
    PAIR("protection-fault", ProtectionFault)                                                                          \
    PAIR("shared-data-written", SharedDataWritten)                                                                     \
    PAIR("stack-overflow", StackOverflow)                                                                              \
    PAIR("stack-pointer-changed-on-return", StackPointerChangedOnReturn)                                               \
    PAIR("trap", Trap)                                                                                                 \
    PAIR("unhandled-exception", UnhandledException)                                                                    \
    PAIR("unwind-data-damaged", UnwindDataDamaged)                                                                     \
    PAIR("wild-call", WildCall)                                                                                        \
    PAIR("wild-pointer", WildPointer)                                                                                  \
    PAIR("wild-read", WildRead)                                                                                        \
    PAIR("wild-write", WildWrite)                                                                                      \
    PAIR("write-to-read-only", WriteToReadOnly)

#endif
