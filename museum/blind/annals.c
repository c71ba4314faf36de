/*
 * annals: lets the card compute numbers and keeps a chronicle of the last 24 of them, which a program can read, and forget up to a number.
 * The chronicle is answered as a header and as many entries as there are, or as there is room for.
 *
 * The bug: the length of the answer is that of all entries for which there was room, not of those that were written: behind the last one the program gets
 * what was in the pool before.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_edu.h"

#define IOCTL_ANNALS_RECKON CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_ANNALS_TELL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ANNALS_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define YEARS 24

static const GUID AnnClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x05}};

typedef struct ENTRY {
    ULONG64 Time;
    ULONG Number;
    ULONG Result;
} ENTRY;

typedef struct CHRONICLE {
    ULONG Kept;
    ULONG Ever;
    ENTRY Entry[1];
} CHRONICLE;

#define HEAD ((ULONG)FIELD_OFFSET(CHRONICLE, Entry))

typedef struct ANN {
    HULL Hull;
    SUM Sum;
    KSPIN_LOCK Lock;            /* for all below */
    ENTRY Year[YEARS];          /* the oldest first */
    ULONG Kept, Ever;
} ANN;

static VOID AnnDone(HULL *h, PIRP Irp, ULONG Number, ULONG Result)
{
    ANN *x = (ANN *)h;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Kept == YEARS) {
        RtlMoveMemory(&x->Year[0], &x->Year[1], (YEARS - 1) * sizeof(ENTRY));
        x->Kept--;
    }
    x->Year[x->Kept].Time = KeQueryInterruptTime();
    x->Year[x->Kept].Number = Number;
    x->Year[x->Kept].Result = Result;
    x->Kept++;
    x->Ever++;
    KeReleaseSpinLock(&x->Lock, irql);
    if (Irp) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Result;
        HullReply(h, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID AnnBegin(HULL *h, PIRP Irp)
{
    SumStart(&((ANN *)h)->Sum, Irp, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
}

/* What is kept, as far as it has room. */
static ULONG AnnTell(ANN *x, CHRONICLE *Out, ULONG Room)
{
    ULONG room = min((Room - HEAD) / (ULONG)sizeof(ENTRY), YEARS), i;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    for (i = 0; i < room && i < x->Kept; i++)
        Out->Entry[i] = x->Year[i];
    Out->Kept = x->Kept;
    Out->Ever = x->Ever;
    KeReleaseSpinLock(&x->Lock, irql);
#ifndef FIXED
    return HEAD + room * (ULONG)sizeof(ENTRY);
#else
    return HEAD + i * (ULONG)sizeof(ENTRY);
#endif
}

static VOID AnnForget(ANN *x, ULONG Count)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    Count = min(Count, x->Kept);
    x->Kept -= Count;
    RtlMoveMemory(&x->Year[0], &x->Year[Count], x->Kept * sizeof(ENTRY));
    KeReleaseSpinLock(&x->Lock, irql);
}

static NTSTATUS AnnAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    ANN *x = (ANN *)h;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, room;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = Sl->Parameters.DeviceIoControl.InputBufferLength;
    room = Sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ANNALS_RECKON:
        if (in < sizeof(ULONG) || room < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*(PULONG)buffer > 1000)
            return STATUS_INVALID_PARAMETER;
        return HullSail(h, Irp);
    case IOCTL_ANNALS_TELL:
        if (room < HEAD)
            return STATUS_BUFFER_TOO_SMALL;
        *Info = AnnTell(x, buffer, room);
        return STATUS_SUCCESS;
    case IOCTL_ANNALS_FORGET:
        if (in < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        AnnForget(x, *(PULONG)buffer);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS AnnLay(HULL *h)
{
    ANN *x = (ANN *)h;

    KeInitializeSpinLock(&x->Lock);
    SumLay(&x->Sum, h, AnnDone);
    return STATUS_SUCCESS;
}

static NTSTATUS AnnRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    ANN *x = (ANN *)h;

    return EduRise(&x->Sum.Edu, Resources, SumAnswer, &x->Sum);
}

static VOID AnnStill(HULL *h, BOOLEAN touch)
{
    SumStill(&((ANN *)h)->Sum, touch);
}

static VOID AnnSink(HULL *h, BOOLEAN touch)
{
    EduSink(&((ANN *)h)->Sum.Edu, touch);
}

static VOID AnnDoze(HULL *h)
{
    BellMute(&((ANN *)h)->Sum.Edu.Bell);
}

static VOID AnnWake(HULL *h)
{
    BellUnmute(&((ANN *)h)->Sum.Edu.Bell);
}

static const HULL_PLAN AnnPlan = {
    .Room = sizeof(ANN), .Class = &AnnClass, .Patience = 500,
    .Lay = AnnLay, .Rise = AnnRise, .Sink = AnnSink, .Still = AnnStill, .Doze = AnnDoze, .Wake = AnnWake,
    .Ask = AnnAsk, .Begin = AnnBegin,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &AnnPlan);
}
