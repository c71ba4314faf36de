/*
 * gravim: a gravimeter whose arithmetic is done by the card (QEMU's edu: the number that is measured is a factorial). Requests are
 * served one after the other; each has two seconds, after which it fails and the card is left to finish in its own time.
 *
 * The bug: when the time is over the timer's DPC looks at the current request under the lock but clears it only after it has
 * completed it; if the card's answer comes just then, the interrupt's DPC completes the same request again.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, use-after-free, irp-damaged, not-an-irp
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define REG_FACTORIAL 0x08
#define REG_STATUS 0x20
#define REG_CAUSE 0x24
#define REG_ACK 0x64
#define STATUS_COMPUTING 0x01
#define STATUS_INTERRUPTS 0x80
#define ALL_ONES 0xFFFFFFFF

#define PATIENCE 20000000LL         /* 2 s in units of 100 ns */

#define IOCTL_GRAV_MEASURE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GRAV_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _GRAV_COUNTS {
    ULONG Measured;
    ULONG Late;
} GRAV_COUNTS;

typedef struct _GRAVIM {
    PLUG Plug;
    CARD Card;
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock;            /* of what follows */
    RACK Waiting;
    BOOLEAN Down;               /* the card must not be touched */
    BOOLEAN Busy;               /* it has a number to work at, maybe of a request that was given up */
    PIRP Current;
    ULONGLONG Deadline;
    GRAV_COUNTS Counts;
} GRAVIM;

static const GUID GravInterface = { 0x6a3f5b03, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x03 } };

static BOOLEAN GravServe(PVOID Owner)
{
    GRAVIM *grav = Owner;
    ULONG cause = CardRead(&grav->Card, REG_CAUSE);

    if (cause == 0 || cause == ALL_ONES)
        return FALSE;
    CardWrite(&grav->Card, REG_ACK, cause);
    (VOID)CardRead(&grav->Card, REG_CAUSE);
    KeInsertQueueDpc(&grav->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI GravMute(PVOID Context)
{
    GRAVIM *grav = Context;

    CardWrite(&grav->Card, REG_STATUS, 0);
    CardWrite(&grav->Card, REG_ACK, CardRead(&grav->Card, REG_CAUSE));
    (VOID)CardRead(&grav->Card, REG_CAUSE);
    grav->Card.Live = FALSE;
    return TRUE;
}

/* A card that was given up may have finished since. */
static BOOLEAN GravBusyLocked(GRAVIM *Grav)
{
    if (Grav->Busy && Grav->Current == NULL && !(CardRead(&Grav->Card, REG_STATUS) & STATUS_COMPUTING))
        Grav->Busy = FALSE;
    return Grav->Busy;
}

static VOID GravWatchLocked(GRAVIM *Grav, LONGLONG Time)
{
    LARGE_INTEGER due;

    due.QuadPart = -Time;
    Grav->Deadline = KeQueryInterruptTime() + Time;
    KeSetTimer(&Grav->Timer, due, &Grav->TimerDpc);
}

static VOID GravNext(GRAVIM *Grav)
{
    KIRQL irql;

    KeAcquireSpinLock(&Grav->Lock, &irql);
    if (!Grav->Down && Grav->Current == NULL && !GravBusyLocked(Grav)) {
        PIRP irp = RackTakeLocked(&Grav->Waiting, NULL);

        if (irp != NULL) {
            Grav->Current = irp;
            Grav->Busy = TRUE;
            CardWrite(&Grav->Card, REG_FACTORIAL, *(ULONG *)irp->AssociatedIrp.SystemBuffer);
            GravWatchLocked(Grav, PATIENCE);
        }
    }
    KeReleaseSpinLock(&Grav->Lock, irql);
}

/* What the card has computed goes to the current request, if it was not given up. */
static VOID GravCollect(GRAVIM *Grav)
{
    PIRP irp = NULL;
    ULONG value = 0;
    KIRQL irql;

    KeAcquireSpinLock(&Grav->Lock, &irql);
    if (!Grav->Down && Grav->Busy && !(CardRead(&Grav->Card, REG_STATUS) & STATUS_COMPUTING)) {
        irp = Grav->Current;
        Grav->Current = NULL;
        Grav->Busy = FALSE;
        KeCancelTimer(&Grav->Timer);
        value = CardRead(&Grav->Card, REG_FACTORIAL);
        if (irp != NULL)
            Grav->Counts.Measured++;
    }
    KeReleaseSpinLock(&Grav->Lock, irql);
    if (irp != NULL) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = value;
        PlugFinish(&Grav->Plug, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    GravNext(Grav);
}

static VOID NTAPI GravDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    GravCollect(Context);
}

static VOID NTAPI GravTimer(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    GRAVIM *grav = Context;
    BOOLEAN over = FALSE, late = FALSE;
    PIRP irp = NULL;
    LONGLONG rest;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&grav->Lock, &irql);
    if (!grav->Down && grav->Busy) {
        /* the timer may have been set for another request while this DPC was queued */
        rest = (LONGLONG)(grav->Deadline - KeQueryInterruptTime());
        if (rest > 0)
            GravWatchLocked(grav, rest);
        else
            over = TRUE;
    }
    if (over)
        late = (CardRead(&grav->Card, REG_STATUS) & STATUS_COMPUTING) != 0;
    if (late) {
        irp = grav->Current;
#ifdef FIXED
        grav->Current = NULL;
#endif
        if (irp != NULL)
            grav->Counts.Late++;
    }
    KeReleaseSpinLock(&grav->Lock, irql);
    if (irp != NULL) {
        PlugFinish(&grav->Plug, irp, STATUS_IO_TIMEOUT, 0);
#ifndef FIXED
        KeAcquireSpinLock(&grav->Lock, &irql);
        if (grav->Current == irp)
            grav->Current = NULL;
        KeReleaseSpinLock(&grav->Lock, irql);
#endif
    }
    if (late)
        RackClear(&grav->Waiting, NULL, STATUS_IO_TIMEOUT);
    else if (over)
        GravCollect(grav);
}

static NTSTATUS GravRequest(PLUG *Plug, PIRP Irp)
{
    GRAVIM *grav = (GRAVIM *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    GRAV_COUNTS counts;
    BOOLEAN stands;
    KIRQL irql;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GRAV_MEASURE:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*(ULONG *)Irp->AssociatedIrp.SystemBuffer > 4096)
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&grav->Lock, &irql);
        if (grav->Current == NULL && GravBusyLocked(grav) && KeQueryInterruptTime() >= grav->Deadline) {
            KeReleaseSpinLock(&grav->Lock, irql);
            return PlugEnd(Plug, Irp, STATUS_DEVICE_BUSY, 0);
        }
        stands = RackAddLocked(&grav->Waiting, Irp, FALSE);
        KeReleaseSpinLock(&grav->Lock, irql);
        if (!stands)
            PlugFinish(Plug, Irp, STATUS_CANCELLED, 0);
        GravNext(grav);
        return STATUS_PENDING;
    case IOCTL_GRAV_COUNTS:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(GRAV_COUNTS))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&grav->Lock, &irql);
        counts = grav->Counts;
        KeReleaseSpinLock(&grav->Lock, irql);
        *(GRAV_COUNTS *)Irp->AssociatedIrp.SystemBuffer = counts;
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(GRAV_COUNTS));
    default:
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* The current request goes back to the head of those that wait. */
static VOID GravQuiet(GRAVIM *Grav, BOOLEAN Reachable)
{
    BOOLEAN stands = TRUE;
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&Grav->Lock, &irql);
    Grav->Down = TRUE;
    Grav->Busy = FALSE;
    irp = Grav->Current;
    Grav->Current = NULL;
    if (irp != NULL)
        stands = RackAddLocked(&Grav->Waiting, irp, TRUE);
    KeReleaseSpinLock(&Grav->Lock, irql);
    if (!stands)
        PlugFinish(&Grav->Plug, irp, STATUS_CANCELLED, 0);
    if (Reachable)
        KeSynchronizeExecution(Grav->Card.Line, GravMute, Grav);
    else
        CardLive(&Grav->Card, FALSE);
    KeCancelTimer(&Grav->Timer);
    KeFlushQueuedDpcs();
}

static VOID GravAwake(GRAVIM *Grav)
{
    KIRQL irql;

    CardLive(&Grav->Card, TRUE);
    CardWrite(&Grav->Card, REG_STATUS, STATUS_INTERRUPTS);
    KeAcquireSpinLock(&Grav->Lock, &irql);
    Grav->Down = FALSE;
    /* a card that was not switched off may still be at work */
    Grav->Busy = (CardRead(&Grav->Card, REG_STATUS) & STATUS_COMPUTING) != 0;
    if (Grav->Busy)
        GravWatchLocked(Grav, PATIENCE);
    KeReleaseSpinLock(&Grav->Lock, irql);
}

static NTSTATUS GravAdded(PLUG *Plug)
{
    GRAVIM *grav = (GRAVIM *)Plug;

    KeInitializeSpinLock(&grav->Lock);
    RackInit(&grav->Waiting, &grav->Lock, PlugDrop, Plug);
    KeInitializeDpc(&grav->Dpc, GravDpc, grav);
    KeInitializeDpc(&grav->TimerDpc, GravTimer, grav);
    KeInitializeTimer(&grav->Timer);
    grav->Down = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS GravBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    GRAVIM *grav = (GRAVIM *)Plug;
    NTSTATUS status = CardMap(&grav->Card, Translated, 0x100);

    if (!NT_SUCCESS(status))
        return status;
    CardWrite(&grav->Card, REG_STATUS, 0);
    CardWrite(&grav->Card, REG_ACK, CardRead(&grav->Card, REG_CAUSE));
    (VOID)CardRead(&grav->Card, REG_CAUSE);
    status = CardConnect(&grav->Card, Translated, GravServe, grav);
    if (!NT_SUCCESS(status)) {
        CardUnmap(&grav->Card);
        return status;
    }
    GravAwake(grav);
    return STATUS_SUCCESS;
}

static VOID GravHalt(PLUG *Plug, BOOLEAN Reachable)
{
    GRAVIM *grav = (GRAVIM *)Plug;

    GravQuiet(grav, Reachable);
    CardDisconnect(&grav->Card);
    CardUnmap(&grav->Card);
}

static VOID GravDoze(PLUG *Plug)
{
    GravQuiet((GRAVIM *)Plug, TRUE);
}

static VOID GravRouse(PLUG *Plug)
{
    GravAwake((GRAVIM *)Plug);
}

static VOID GravGo(PLUG *Plug)
{
    GravNext((GRAVIM *)Plug);
}

static VOID GravFlush(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status)
{
    RackClear(&((GRAVIM *)Plug)->Waiting, File, Status);
}

static const PLUG_ROLE GravRole = {
    .Size = sizeof(GRAVIM), .Flags = DO_BUFFERED_IO, .Interface = &GravInterface,
    .Added = GravAdded, .Begin = GravBegin, .Halt = GravHalt, .Doze = GravDoze, .Rouse = GravRouse, .Go = GravGo,
    .Request = GravRequest, .Flush = GravFlush,
};

static NTSTATUS NTAPI GravAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &GravRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, GravAdd);
}
