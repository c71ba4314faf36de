/*
 * Stories of the routines underneath: contexts, function tables, and a language handler of the driver's own.
 */
#ifndef SEH_UNWINDING_H
#define SEH_UNWINDING_H

#include "seh.h"

static NOINLINE ULONG WalkFrom(PVOID *Found, ULONG Limit)
{
    CONTEXT Context;
    ULONG64 Base, Frame, Before;
    PVOID Data;
    ULONG Count = 0;

    RtlCaptureContext(&Context);
    while (Count < Limit) {
        RUNTIME_FUNCTION *Entry = RtlLookupFunctionEntry(Context.Rip, &Base, NULL);

        if (Entry == NULL) {
            break;
        }
        Found[Count++] = (PVOID)(ULONG_PTR)(Base + Entry->BeginAddress);
        Before = Context.Rsp;
        RtlVirtualUnwind(0, Base, Context.Rip, Entry, &Context, &Data, &Frame, NULL);
        if (Context.Rsp <= Before) {
            return 0;
        }
    }
    return Count;
}

static NOINLINE ULONG WalkDeeper(PVOID *Found, ULONG Limit)
{
    ULONG Count = WalkFrom(Found, Limit);

    Sink = Count;
    return Count;
}

/* A driver walks its own stack, as crash handlers and tracers do. */
static ULONG OwnWalk(void)
{
    PVOID Found[8];
    PVOID Base = NULL;
    ULONG Count = WalkDeeper(Found, 8);

    CHECK(Count >= 4); /* itself, WalkDeeper, this story, the dispatch routine */
    CHECK(Found[0] == (PVOID)WalkFrom && Found[1] == (PVOID)WalkDeeper && Found[2] == (PVOID)OwnWalk);
    CHECK(RtlPcToFileHeader((PVOID)OwnWalk, &Base) == Base && Base != NULL);
    CHECK(*(PUSHORT)Base == 0x5A4D); /* "MZ" */
    Base = (PVOID)1;
    CHECK(RtlPcToFileHeader((PVOID)0x1000, &Base) == NULL && Base == NULL);
    return 0;
}

/* RtlCaptureContext returns once more each time that its context is restored. */
static ULONG Restored(void)
{
    static CONTEXT Context;
    volatile ULONG Times = 0;

    RtlCaptureContext(&Context);
    Times = Times + 1;
    if (Times < 3) {
        RtlRestoreContext(&Context, NULL);
    }
    CHECK(Times == 3);
    return 0;
}

/* Captures the context behind Seen with known values in all registers that a call does not keep. */
static NOINLINE VOID CaptureKnown(PCONTEXT Seen)
{
    static const ULONG64 Vectors[12] = {0x10, 0x11, 0x20, 0x21, 0x30, 0x31, 0x40, 0x41, 0x50, 0x51, 0x60, 0x61};

    __asm__ volatile("movups (%1), %%xmm0\n\tmovups 16(%1), %%xmm1\n\tmovups 32(%1), %%xmm2\n\t"
                     "movups 48(%1), %%xmm3\n\tmovups 64(%1), %%xmm4\n\tmovups 80(%1), %%xmm5\n\t"
                     "mov %0, %%rcx\n\tmov %2, %%rbx\n\tmov %%rsp, %%rsi\n\tsub $48, %%rsp\n\tand $-16, %%rsp\n\t"
                     "movabs $0x1111111122222222, %%rax\n\tmovabs $0x3333333344444444, %%rdx\n\t"
                     "mov $8, %%r8d\n\tmov $9, %%r9d\n\tmov $10, %%r10d\n\tmov $11, %%r11d\n\t"
                     "stc\n\tcall *%%rbx\n\tmov %%rsi, %%rsp"
                     :
                     : "r"(Seen), "r"(Vectors), "r"(RtlCaptureContext)
                     : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
                       "xmm5", "memory", "cc");
}

/* RtlCaptureContext has what a call does not keep, too, and leaves what is neither registers nor flags. */
static ULONG CapturesAll(void)
{
    static CONTEXT Seen;
    PUCHAR Bytes = (PUCHAR)&Seen;
    ULONG Index;

    for (Index = 0; Index < sizeof(Seen); Index++) {
        Bytes[Index] = 0xA5;
    }
    CaptureKnown(&Seen);
    CHECK(Seen.Rax == 0x1111111122222222ull && Seen.Rdx == 0x3333333344444444ull);
    CHECK(Seen.R8 == 8 && Seen.R9 == 9 && Seen.R10 == 10 && Seen.R11 == 11);
    CHECK(Seen.Rcx == (ULONG64)(ULONG_PTR)&Seen && Seen.Rbx == (ULONG64)(ULONG_PTR)RtlCaptureContext);
    CHECK((Seen.EFlags & 1) != 0 && (Seen.EFlags & 0xA50000) == 0);
    for (Index = 0; Index < 6; Index++) {
        M128A *Vector = &Seen.Xmm0 + Index;

        CHECK(Vector->Low == 0x10 * (Index + 1) && Vector->High == 0x10 * (Index + 1) + 1);
    }
    CHECK((Seen.ContextFlags & 0x10000B) == 0x10000B && Seen.SegCs == 0x10);
    for (Index = 0; Index < sizeof(Seen); Index++) {
        BOOLEAN Left = Index < 0x30 || (Index >= 0x48 && Index < 0x78) || Index >= 0x300;

        if (Left && Bytes[Index] != 0xA5) {
            return __LINE__;
        }
    }
    return 0;
}

static ULONG64 HandlerSaw[8];
static BOOLEAN Plainly; /* the handler unwinds by RtlUnwind */

/* The language handler of Guarded: sends exceptions to its landing place, and counts unwinds. */
EXCEPTION_DISPOSITION NTAPI OwnHandler(PEXCEPTION_RECORD Record, PVOID Frame, PCONTEXT Context,
                                       DISPATCHER_CONTEXT *Dispatcher)
{
    if (Record->ExceptionFlags & EXCEPTION_UNWINDING) {
        HandlerSaw[0]++;
        HandlerSaw[1] = Record->ExceptionFlags & EXCEPTION_TARGET_UNWIND;
        return ExceptionContinueSearch;
    }
    HandlerSaw[2] = (ULONG64)(ULONG_PTR)Frame;
    HandlerSaw[3] = Dispatcher->ControlPc;
    HandlerSaw[4] = *(PULONG)Dispatcher->HandlerData;
    HandlerSaw[5] = Context->Rip;
    HandlerSaw[6] = Dispatcher->EstablisherFrame;
    HandlerSaw[7] = Dispatcher->ImageBase + Dispatcher->FunctionEntry->BeginAddress;
    if (Plainly) {
        RtlUnwind(Frame, (PVOID)(ULONG_PTR)(Dispatcher->ImageBase + HandlerSaw[4]), Record, (PVOID)0x55);
    }
    RtlUnwindEx(Frame, (PVOID)(ULONG_PTR)(Dispatcher->ImageBase + HandlerSaw[4]), Record, (PVOID)0x77, Context, NULL);
    return ExceptionContinueSearch;
}

/* Calls Routine(Argument) and returns its answer; or, after an exception, rsp in Frame, and 0x77 + rbx. */
ULONG64 Guarded(ULONG64 (*Routine)(ULONG64), ULONG64 Argument, ULONG64 *Frame);
extern char GuardedCall[], GuardedLanding[];
__asm__(".text\n"
        ".globl Guarded, GuardedCall, GuardedLanding\n"
        ".seh_proc Guarded\n"
        "Guarded:\n"
        "push %rbx\n"
        ".seh_pushreg %rbx\n"
        "push %rsi\n"
        ".seh_pushreg %rsi\n"
        "sub $0x28, %rsp\n"
        ".seh_stackalloc 0x28\n"
        ".seh_endprologue\n"
        ".seh_handler OwnHandler, @except, @unwind\n"
        ".seh_handlerdata\n"
        ".long GuardedLanding@IMGREL\n"
        ".text\n"
        "mov %rcx, %rax\n"
        "mov %rdx, %rcx\n"
        "mov %r8, %rsi\n"
        "mov %rsp, (%rsi)\n"
        "mov $0x100, %ebx\n"
        "call *%rax\n"
        "GuardedCall:\n"
        "nop\n"
        "jmp 1f\n"
        "GuardedLanding:\n"
        "add %rbx, %rax\n"
        "cmp %rsp, (%rsi)\n"
        "je 1f\n"
        "xor %eax, %eax\n"
        "1: add $0x28, %rsp\n"
        "pop %rsi\n"
        "pop %rbx\n"
        "ret\n"
        ".seh_endproc\n");

static NOINLINE ULONG64 Faults(ULONG64 Address)
{
    return ReadAt((PULONG)(ULONG_PTR)Address);
}

/* A handler that is not the compiler's is called with what is documented, and its registers come back. */
static ULONG OwnLanguageHandler(void)
{
    ULONG64 Frame = 0;
    ULONG Value = 5;

    RtlZeroMemory(HandlerSaw, sizeof(HandlerSaw));
    CHECK(Guarded(Faults, (ULONG64)(ULONG_PTR)&Value, &Frame) == 5);
    CHECK(HandlerSaw[0] == 0 && HandlerSaw[2] == 0);
    CHECK(Guarded(Faults, 0x30, &Frame) == 0x177);
    CHECK(HandlerSaw[0] == 1 && HandlerSaw[1] == EXCEPTION_TARGET_UNWIND);
    CHECK(HandlerSaw[2] == Frame && HandlerSaw[6] == Frame);
    CHECK(HandlerSaw[3] == (ULONG64)(ULONG_PTR)GuardedCall);
    CHECK(HandlerSaw[5] >= (ULONG64)(ULONG_PTR)ReadAt && HandlerSaw[5] < (ULONG64)(ULONG_PTR)ReadAt + 16);
    CHECK(HandlerSaw[7] == (ULONG64)(ULONG_PTR)Guarded);
    return 0;
}

/* RtlUnwind goes to the same place, with the value that it is given. */
static ULONG UnwindsPlainly(void)
{
    ULONG64 Frame = 0, Answer;

    RtlZeroMemory(HandlerSaw, sizeof(HandlerSaw));
    Plainly = TRUE;
    Answer = Guarded(Faults, 0x30, &Frame);
    Plainly = FALSE;
    CHECK(Answer == 0x155);
    CHECK(HandlerSaw[0] == 1 && HandlerSaw[1] == EXCEPTION_TARGET_UNWIND);
    CHECK(HandlerSaw[2] == Frame && HandlerSaw[6] == Frame);
    return 0;
}

#endif
