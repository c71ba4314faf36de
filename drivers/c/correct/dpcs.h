/* DPCs: queued, targeted, threaded, removed before they run, and flushed before their memory goes. */
#ifndef DPCS_H
#define DPCS_H

#include "gallery.h"

typedef struct _COUNTED {
    KDPC Dpc;
    KSPIN_LOCK Lock;
    LONG Runs;
    LONG More;
    KIRQL Level;
    ULONG Processor;
    KEVENT Ran;
} COUNTED;

static VOID NTAPI Counts(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    COUNTED *Counted = Context;

    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeAcquireSpinLockAtDpcLevel(&Counted->Lock);
    Counted->Runs++;
    Counted->Level = KeGetCurrentIrql();
    Counted->Processor = KeGetCurrentProcessorNumberEx(NULL);
    KeReleaseSpinLockFromDpcLevel(&Counted->Lock);
    if (Counted->More > 0) {
        Counted->More--;
        KeInsertQueueDpc(Dpc, NULL, NULL);
        return;
    }
    KeSetEvent(&Counted->Ran, IO_NO_INCREMENT, FALSE);
}

static VOID PrepareCounted(COUNTED *Counted, LONG More)
{
    RtlZeroMemory(Counted, sizeof(*Counted));
    KeInitializeSpinLock(&Counted->Lock);
    KeInitializeEvent(&Counted->Ran, SynchronizationEvent, FALSE);
    KeInitializeDpc(&Counted->Dpc, Counts, Counted);
    Counted->More = More;
}

static ULONG DpcOnceForEachQueueing(VOID)
{
    COUNTED Counted;
    KIRQL Old;

    PrepareCounted(&Counted, 0);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(KeInsertQueueDpc(&Counted.Dpc, NULL, NULL));
    CHECK(!KeInsertQueueDpc(&Counted.Dpc, NULL, NULL) || Counted.Runs > 0);
    KeLowerIrql(Old);
    CHECK(WaitFor(&Counted.Ran) == STATUS_SUCCESS);
    KeFlushQueuedDpcs();
    CHECK(Counted.Runs >= 1 && Counted.Level == DISPATCH_LEVEL);
    return 0;
}

/* Not: dpc-watchdog */
static ULONG DpcQueuesItself(VOID)
{
    COUNTED *Counted = Nonpaged(sizeof(*Counted));

    CHECK(Counted != NULL);
    PrepareCounted(Counted, 6);
    CHECK(KeInsertQueueDpc(&Counted->Dpc, NULL, NULL));
    CHECK(WaitFor(&Counted->Ran) == STATUS_SUCCESS);
    KeFlushQueuedDpcs();
    CHECK(Counted->Runs == 7);
    ExFreePoolWithTag(Counted, TAG);
    return 0;
}

static ULONG DpcForEachProcessor(VOID)
{
    for (ULONG Index = 0; Index < KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS); Index++) {
        PROCESSOR_NUMBER Number;
        COUNTED Counted;

        PrepareCounted(&Counted, 0);
        CHECK(NT_SUCCESS(KeGetProcessorNumberFromIndex(Index, &Number)));
        CHECK(NT_SUCCESS(KeSetTargetProcessorDpcEx(&Counted.Dpc, &Number)));
        KeSetImportanceDpc(&Counted.Dpc, HighImportance);
        CHECK(KeInsertQueueDpc(&Counted.Dpc, NULL, NULL));
        CHECK(WaitFor(&Counted.Ran) == STATUS_SUCCESS);
        KeFlushQueuedDpcs();
        CHECK(Counted.Processor == Index);
    }
    return 0;
}

/* A thread that takes a DPC out of the queue knows that it will not run; one that comes too late waits for it. */
static ULONG DpcRemoved(VOID)
{
    for (ULONG Round = 0; Round < 3; Round++) {
        COUNTED Counted;
        KIRQL Old;
        BOOLEAN Removed;

        PrepareCounted(&Counted, 0);
        KeRaiseIrql(DISPATCH_LEVEL, &Old);
        KeInsertQueueDpc(&Counted.Dpc, NULL, NULL);
        Removed = KeRemoveQueueDpc(&Counted.Dpc);
        KeLowerIrql(Old);
        KeFlushQueuedDpcs();
        CHECK(Counted.Runs == (Removed ? 0 : 1));
    }
    return 0;
}

static VOID NTAPI ThreadedCounts(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    COUNTED *Counted = Context;
    KIRQL Old;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    Old = KeAcquireSpinLockForDpc(&Counted->Lock); /* right at both levels that it may run at */
    Counted->Runs++;
    KeReleaseSpinLockForDpc(&Counted->Lock, Old);
    KeSetEvent(&Counted->Ran, IO_NO_INCREMENT, FALSE);
}

static ULONG DpcThreaded(VOID)
{
    COUNTED Counted;

    PrepareCounted(&Counted, 0);
    KeInitializeThreadedDpc(&Counted.Dpc, ThreadedCounts, &Counted);
    CHECK(KeInsertQueueDpc(&Counted.Dpc, NULL, NULL));
    CHECK(WaitFor(&Counted.Ran) == STATUS_SUCCESS);
    KeFlushQueuedDpcs();
    CHECK(Counted.Runs == 1);
    return 0;
}

static VOID NTAPI DpcOfDevice(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
}

/* The device object's own DPC. */
static ULONG DpcForIsrOfTheDevice(VOID)
{
    KEVENT Ran;

    KeInitializeEvent(&Ran, NotificationEvent, FALSE);
    IoInitializeDpcRequest(TheDevice, DpcOfDevice);
    IoRequestDpc(TheDevice, NULL, &Ran);
    CHECK(WaitFor(&Ran) == STATUS_SUCCESS);
    KeFlushQueuedDpcs();
    return 0;
}

typedef LOGICAL(NTAPI *IS_EXECUTING_DPC)(VOID);
static IS_EXECUTING_DPC IsExecutingDpc; /* newer Windows has it */

static VOID NTAPI AsksWhereItIs(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    *(volatile LONG *)Context = IsExecutingDpc() ? 1 : 2;
}

/* A routine that both threads and DPCs call asks which it is in. */
static ULONG DpcOrNot(VOID)
{
    KDPC Dpc;
    volatile LONG Answer = 0;
    UNICODE_STRING Name;

    RtlInitUnicodeString(&Name, L"KeIsExecutingDpc");
    IsExecutingDpc = (IS_EXECUTING_DPC)MmGetSystemRoutineAddress(&Name);
    CHECK(KeGetCurrentIrql() == PASSIVE_LEVEL);
    if (IsExecutingDpc == NULL) {
        return 0;
    }
    CHECK(!IsExecutingDpc());
    KeInitializeDpc(&Dpc, AsksWhereItIs, (PVOID)&Answer);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeFlushQueuedDpcs();
    CHECK(Answer == 1);
    return 0;
}

#define DPC_IDIOMS                                                                                                     \
    IDIOM(DpcOrNot)                                                                                                    \
    IDIOM(DpcOnceForEachQueueing)                                                                                      \
    IDIOM(DpcQueuesItself)                                                                                             \
    IDIOM(DpcForEachProcessor)                                                                                         \
    IDIOM(DpcRemoved)                                                                                                  \
    IDIOM(DpcThreaded)                                                                                                 \
    IDIOM(DpcForIsrOfTheDevice)

#endif
