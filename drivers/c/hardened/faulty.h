/*
 * What hardening is for: each of these ends the run.
 */
#ifndef HARDENED_FAULTY_H
#define HARDENED_FAULTY_H

#include "stories.h"

static volatile ULONG TooMany = 40;

/* A buffer is overrun. */
static ULONG Overrun(void)
{
    return Buffered(TooMany);
}

/* The same, reported as old drivers do. */
static ULONG OverrunReportedOldWay(void)
{
    OldReport = TRUE;
    return Buffered(TooMany);
}

static volatile ULONG_PTR Distance;

static volatile ULONG64 Result;

static NOINLINE ULONG CallAt(ULONG_PTR Target)
{
    ULONG64 (*volatile Pointer)(ULONG A, ULONG64 B, const char *C, ULONG D) = (PVOID)(Target + Distance);

    Result = Pointer(1, 2, "a", 3);
    return 0;
}

/* A call into a function's middle. */
static ULONG CallIntoMiddle(void)
{
    Distance = 4;
    return CallAt((ULONG_PTR)FourPointer);
}

/* A call by a null pointer. */
static ULONG CallNull(void)
{
    return CallAt(0);
}

/* A call of data. */
static ULONG CallData(void)
{
    return CallAt((ULONG_PTR)&Distance);
}

/* A call to behind the start of a routine of the kernel's. */
static ULONG CallIntoKernel(void)
{
    Distance = 4;
    return CallAt((ULONG_PTR)KeAcquireSpinLockRaiseToDpc);
}

/* The check alone finds it too. */
NO_GUARD static ULONG CheckMiddle(void)
{
    GUARD_CHECK Check = __guard_check_icall_fptr;

    Check((ULONG_PTR)Four + 8);
    return 0;
}

static NOINLINE ULONG Deeper(ULONG Level);
static ULONG (*volatile DeeperPointer)(ULONG Level) = Deeper;

static NOINLINE ULONG Deeper(ULONG Level)
{
    char Buffer[10000];
    ULONG Count = Fill(Buffer, 4);

    return Level == 0 ? Count : DeeperPointer(Level - 1) + Fill(Buffer, 4);
}

/* A big frame that the stack has no room for is found by its probe, whatever it would have used. */
static ULONG ProbeOverflows(void)
{
    return Deeper(TooMany);
}

/* A removed entry that is removed again ends in RemoveEntryList's own check. */
static ULONG ListCorrupt(void)
{
    FastFail(3);
}

/* A cookie that was never initialised. */
static ULONG CookieNotInitialised(void)
{
    FastFail(6);
}

/* A code of the driver's own. */
static ULONG OwnCode(void)
{
    FastFail(0x1234);
}

static NOINLINE void RunAsDpc(PKDEFERRED_ROUTINE Routine)
{
    static KDPC Dpc;

    KeInitializeDpc(&Dpc, Routine, NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
}

static VOID NTAPI DpcThatGoesBackwards(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    __asm__ volatile("std");
}

/* The direction flag is left set. */
static ULONG LeavesDirection(void)
{
    RunAsDpc(DpcThatGoesBackwards);
    return 0;
}

static VOID NTAPI DpcThatFlushesToZero(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    ULONG Control = 0x9FC0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    __asm__ volatile("ldmxcsr %0" : : "m"(Control));
}

/* MXCSR is left changed, which Windows lets pass. */
static ULONG LeavesControl(void)
{
    RunAsDpc(DpcThatFlushesToZero);
    return 0;
}

static VOID NTAPI DpcThatKeepsTheConvention(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    ULONG Before, Control = 0x9FC0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    __asm__ volatile("stmxcsr %0" : "=m"(Before));
    __asm__ volatile("ldmxcsr %0" : : "m"(Control));
    __asm__ volatile("std; cld");
    __asm__ volatile("ldmxcsr %0" : : "m"(Before));
}

/* Both are changed and put back: nothing is wrong. */
static ULONG PutsBoth(void)
{
    RunAsDpc(DpcThatKeepsTheConvention);
    return 0;
}

#endif
