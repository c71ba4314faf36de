/*
 * Exceptions that end the run: Windows asks no handler, or none takes them. Each stands in a __try all the same.
 */
#ifndef SEH_FAULTY_H
#define SEH_FAULTY_H

#include "nested.h"

/* An invalid kernel address is no exception. */
static ULONG KernelAddress(void)
{
    __try {
        Sink = ReadAt((PULONG)0xFFFFF880DEAD0000ull);
    } __except (1) {
    }
    return 0;
}

/* Nor is any bad address at DISPATCH_LEVEL. */
static ULONG UserAddressAtDispatch(void)
{
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    __try {
        Sink = ReadAt(NoPlace);
    } __except (1) {
    }
    KeLowerIrql(Old);
    return 0;
}

/* No handler takes it. */
static ULONG NobodyTakesIt(void)
{
    __try {
        ExRaiseStatus(STATUS_DEVICE_BUSY);
    } __except (Filter('f', EXCEPTION_CONTINUE_SEARCH)) {
    }
    return 0;
}

/* ExRaiseStatus may be called up to APC_LEVEL. */
static ULONG RaiseAtDispatch(void)
{
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    __try {
        ExRaiseStatus(STATUS_DEVICE_BUSY);
    } __except (1) {
    }
    KeLowerIrql(Old);
    return 0;
}

static VOID NTAPI DpcThatFaults(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Sink = Divide(Zero);
}

/* The thread that a DPC interrupts has nothing to do with its exceptions. */
static ULONG DpcFaults(void)
{
    static KDPC Dpc;

    KeInitializeDpc(&Dpc, DpcThatFaults, NULL);
    __try {
        KeInsertQueueDpc(&Dpc, NULL, NULL);
    } __except (1) {
    }
    return 0;
}

/* What ExRaiseStatus raises cannot be gone on from. */
static ULONG GoesOn(void)
{
    __try {
        ExRaiseStatus(STATUS_DEVICE_BUSY);
    } __except (GetExceptionCode() == STATUS_DEVICE_BUSY ? EXCEPTION_CONTINUE_EXECUTION : EXCEPTION_CONTINUE_SEARCH) {
    }
    return 0;
}

static NOINLINE int FilterThatFaults(void)
{
    return (int)ReadAt(NoPlace) + 1;
}

/* A filter that faults is asked about its own fault, which it answers with another. */
static ULONG FilterFaults(void)
{
    __try {
        ExRaiseStatus(STATUS_DEVICE_BUSY);
    } __except (FilterThatFaults()) {
    }
    return 0;
}

/* An exception does not put the level back. */
static ULONG LevelStays(void)
{
    __try {
        KIRQL Old;

        KeRaiseIrql(DISPATCH_LEVEL, &Old);
        Sink = Divide(Zero);
        KeLowerIrql(Old);
    } __except (1) {
    }
    return 0;
}

/* A frame that is not there. */
static ULONG UnwindNowhere(void)
{
    RtlUnwindEx((PVOID)0x1000, (PVOID)UnwindNowhere, NULL, NULL, NULL, NULL);
    return 0;
}

static volatile LONG Asked;

/* A filter that lets the instruction go on, and has mended nothing. */
static ULONG MendsNothing(void)
{
    __try {
        Sink = ReadAt(NoPlace);
    } __except (InterlockedIncrement(&Asked) > 0 ? EXCEPTION_CONTINUE_EXECUTION : EXCEPTION_EXECUTE_HANDLER) {
    }
    return 0;
}

/* The same, until it has been asked a thousand times; then the handler runs, and all is well. */
static ULONG MendsNothingForLong(void)
{
    __try {
        Sink = ReadAt(NoPlace);
    } __except (InterlockedIncrement(&Asked) < 1000 ? EXCEPTION_CONTINUE_EXECUTION : EXCEPTION_EXECUTE_HANDLER) {
    }
    return 0;
}

static VOID NTAPI FaultOnExpanded(PVOID Parameter)
{
    UNREFERENCED_PARAMETER(Parameter);
    Sink = ReadAt(NoPlace);
}

NTKERNELAPI NTSTATUS NTAPI KeExpandKernelStackAndCallout(VOID(NTAPI *Routine)(PVOID), PVOID Parameter, SIZE_T Size);

/* An exception of a routine on an expanded stack, which must handle all of its own. */
static ULONG ExpandedRaises(VOID)
{
    __try {
        KeExpandKernelStackAndCallout(FaultOnExpanded, NULL, 0x10000);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
    }
    return 0;
}

static VOID NTAPI HandlesOnExpanded(PVOID Parameter)
{
    __try {
        FaultOnExpanded(NULL);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        *(PULONG)Parameter += 1;
    }
}

/* A story: an exception on an expanded stack and its handler. */
static ULONG HandledOnExpanded(VOID)
{
    ULONG Handled = 0;

    CHECK(NT_SUCCESS(KeExpandKernelStackAndCallout(HandlesOnExpanded, &Handled, 0x10000)));
    CHECK(Handled == 1);
    return 0;
}

#endif
