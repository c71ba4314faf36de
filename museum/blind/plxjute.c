/*
 * plxjute: logs with times what comes by the board's line LINTi1. To show that the way to the processor is sound, the log begins, each time
 * that the board gets its power, with an interrupt that the driver has the chip make by software.
 *
 * The bug: when it starts, the driver connects the interrupt and has the chip make that first one at once, before it has allocated
 * the log into which its DPC then writes.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: bad-pointer, wild-write, wild-pointer
 * Needs: nothing
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_plx.h"

#define JUTE_TAG 'etuJ'
#define JUTE_ENTRIES 128
#define IOCTL_JUTE_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E0, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_JUTE_KEPT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(JUTE_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x13);

typedef struct _JUTE_ENTRY {
    LARGE_INTEGER Time;
    ULONG Edges;
    ULONG Tests;
} JUTE_ENTRY, *PJUTE_ENTRY;

typedef struct _JUTE {
    BOARD Board;
    PLX Plx;
    KSPIN_LOCK Lock;
    PJUTE_ENTRY Log;            /* it is there while the device is started */
    ULONG First;
    ULONG Kept;
} JUTE, *PJUTE;

static VOID NTAPI JuteDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PJUTE j = Context;
    ULONG edges, tests;
    PJUTE_ENTRY e;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    edges = PlxFetch(&j->Plx, &tests);
    if (edges == 0 && tests == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&j->Lock);
    e = &j->Log[(j->First + j->Kept) % JUTE_ENTRIES];
    KeQuerySystemTime(&e->Time);
    e->Edges = edges;
    e->Tests = tests;
    if (j->Kept < JUTE_ENTRIES)
        j->Kept++;
    else
        j->First = (j->First + 1) % JUTE_ENTRIES;
    KeReleaseSpinLockFromDpcLevel(&j->Lock);
}

/* The oldest entries that there is room for; they are taken out. */
static NTSTATUS JuteRead(PJUTE j, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    ULONG room = Stack->Parameters.Read.Length / sizeof(JUTE_ENTRY);
    PJUTE_ENTRY to = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;
    ULONG i;

    if (!GateEnter(&j->Board.Run))
        return BoardFinish(&j->Board, Irp, STATUS_DEVICE_NOT_READY, 0);
    KeAcquireSpinLock(&j->Lock, &irql);
    for (i = 0; i < room && j->Kept != 0; i++) {
        to[i] = j->Log[j->First];
        j->First = (j->First + 1) % JUTE_ENTRIES;
        j->Kept--;
    }
    KeReleaseSpinLock(&j->Lock, irql);
    GateLeave(&j->Board.Run);
    return BoardFinish(&j->Board, Irp, STATUS_SUCCESS, i * sizeof(JUTE_ENTRY));
}

static NTSTATUS JuteIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PJUTE j = CONTAINING_RECORD(Board, JUTE, Board);
    KIRQL irql;

    if (Stack->MajorFunction == IRP_MJ_READ)
        return JuteRead(j, Irp, Stack);
    if (Stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_JUTE_FORGET:
        KeAcquireSpinLock(&j->Lock, &irql);
        j->First = j->Kept = 0;
        KeReleaseSpinLock(&j->Lock, irql);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, 0);

    case IOCTL_JUTE_KEPT:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&j->Lock, &irql);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = j->Kept;
        KeReleaseSpinLock(&j->Lock, irql);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID JuteWake(PBOARD Board)
{
    PlxLive(&CONTAINING_RECORD(Board, JUTE, Board)->Plx, TRUE, TRUE, PLX_SOFTWARE);
}

static VOID JuteQuiet(PBOARD Board, BOOLEAN Present)
{
    PlxLive(&CONTAINING_RECORD(Board, JUTE, Board)->Plx, FALSE, Present, 0);
    KeFlushQueuedDpcs();
}

static VOID JuteDrain(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static NTSTATUS JuteStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    PJUTE j = CONTAINING_RECORD(Board, JUTE, Board);
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&j->Lock, &irql);
    j->First = j->Kept = 0;
    KeReleaseSpinLock(&j->Lock, irql);
#ifndef FIXED
    status = PlxGain(&j->Plx, List, 0);
    if (!NT_SUCCESS(status))
        return status;
    PlxLive(&j->Plx, TRUE, TRUE, PLX_SOFTWARE);
    j->Log = ExAllocatePoolWithTag(POOL_DATA, JUTE_ENTRIES * sizeof(JUTE_ENTRY), JUTE_TAG);
    if (j->Log == NULL) {
        JuteQuiet(Board, TRUE);
        PlxLose(&j->Plx);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
#else
    j->Log = ExAllocatePoolWithTag(POOL_DATA, JUTE_ENTRIES * sizeof(JUTE_ENTRY), JUTE_TAG);
    if (j->Log == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = PlxGain(&j->Plx, List, 0);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(j->Log, JUTE_TAG);
        j->Log = NULL;
    }
    return status;
#endif
}

static VOID JuteStop(PBOARD Board)
{
    PJUTE j = CONTAINING_RECORD(Board, JUTE, Board);

    PlxLose(&j->Plx);
    ExFreePoolWithTag(j->Log, JUTE_TAG);
    j->Log = NULL;
}

static NTSTATUS JuteBegin(PBOARD Board)
{
    PJUTE j = CONTAINING_RECORD(Board, JUTE, Board);

    KeInitializeSpinLock(&j->Lock);
    KeInitializeDpc(&j->Plx.Dpc, JuteDpc, j);
    return STATUS_SUCCESS;
}

static VOID JuteEnd(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static const BOARD_KIND JuteKind = {
    .Bytes = sizeof(JUTE), .Flags = DO_BUFFERED_IO, .Class = &JUTE_CLASS,
    .Begin = JuteBegin, .End = JuteEnd, .Start = JuteStart, .Stop = JuteStop, .Wake = JuteWake, .Quiet = JuteQuiet,
    .Drain = JuteDrain, .Io = JuteIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &JuteKind);
}
