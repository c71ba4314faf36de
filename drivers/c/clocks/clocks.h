/*
 * What the parts of clocks.sys share: declarations that mingw's wdm.h lacks, times, and a record of what ran.
 */
#ifndef CLOCKS_H
#define CLOCKS_H

#include <ddk/wdm.h>

#define STORIES "clocks"
#include "../control.h"

#define CLOCKS_TAG 0x6B6F6C43u /* "Clok" in pool listings */
#define MILLISECOND 10000ll    /* in units of 100 ns */
#define TICK 156250ll          /* between two ticks of the clock at its coarsest */
#define FINEST 10000ll         /* and at its finest */

NTSYSAPI VOID NTAPI ExQueryTimerResolution(PULONG Maximum, PULONG Minimum, PULONG Current);
NTSYSAPI BOOLEAN NTAPI KeRemoveQueueDpcEx(PKDPC Dpc, BOOLEAN WaitIfActive);
PKTHREAD NTAPI CurrentThread(VOID) __asm__("KeGetCurrentThread"); /* mingw's reads the processor's block inline */
ULONGLONG NTAPI InterruptTimePrecise(PULONG64 Counter) __asm__("KeQueryInterruptTimePrecise");
VOID NTAPI SystemTimePrecise(PLARGE_INTEGER Time) __asm__("KeQuerySystemTimePrecise");

/* Interrupt time, to the unit. */
static ULONGLONG Now(VOID)
{
    ULONG64 Counter;

    return InterruptTimePrecise(&Counter);
}

static VOID Sleep(LONGLONG Units)
{
    LARGE_INTEGER Interval = {.QuadPart = -Units};

    KeDelayExecutionThread(KernelMode, FALSE, &Interval);
}

/* Passes time without giving the processor away, as a driver should not. */
static VOID Busy(LONGLONG Units)
{
    ULONGLONG Until = Now() + (ULONGLONG)Units;

    while (Now() < Until) {
        KeStallExecutionProcessor(50);
    }
}

/* What ran: a letter each, when, at which level and where. */
typedef struct _RAN {
    CHAR Letter;
    KIRQL Irql;
    UCHAR Processor;
    ULONGLONG At;
    LONG Rounds; /* of HeldRounds */
} RAN;

static RAN Ran[256];
static volatile LONG RanCount;
static volatile LONG HeldRounds; /* how often the thread that holds a processor has gone round: that processor's own time */

static VOID RunAt(CHAR Letter)
{
    LONG Index = InterlockedIncrement(&RanCount) - 1;

    if (Index < (LONG)RTL_NUMBER_OF(Ran)) {
        Ran[Index].Irql = KeGetCurrentIrql();
        Ran[Index].Processor = (UCHAR)KeGetCurrentProcessorNumberEx(NULL);
        Ran[Index].At = Now();
        Ran[Index].Rounds = HeldRounds;
        Ran[Index].Letter = Letter;
    }
}

static VOID NTAPI Record(PKDPC Dpc, PVOID Letter, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    RunAt((CHAR)(ULONG_PTR)Letter);
}

static VOID Forget(VOID)
{
    RtlZeroMemory(Ran, sizeof(Ran));
    RanCount = 0;
}

/* Whether exactly these letters ran, in this order. */
static BOOLEAN RanAre(PCSTR Letters)
{
    LONG Index;

    for (Index = 0; Letters[Index] != 0; Index++) {
        if (Index >= RanCount || Ran[Index].Letter != Letters[Index]) {
            return FALSE;
        }
    }
    return RanCount == Index;
}

static PVOID Letter(CHAR Which)
{
    return (PVOID)(ULONG_PTR)Which;
}

#endif
