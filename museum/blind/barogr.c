/*
 * barogr: a barograph in software. One program sets the pressure, others wait until it has reached a level, for so many
 * milliseconds at most. Each wait has a timer of its own.
 *
 * The bug: the cancel routine of a wait stops its timer and frees the wait with the timer and DPC in it, without looking
 * whether the timer was still set; if it has just run out, its DPC is queued or running on another processor and uses freed memory.
 *
 * Device: Root\BAROGR
 * Rule: use-after-free, freed-queued-dpc, write-after-free, freed-while-in-use, wild-call
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define IOCTL_BARO_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BARO_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BARO_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x883, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _BARO_WAIT {
    ULONG Level;                /* pascal */
    ULONG Milliseconds;         /* 1 to 60000 */
} BARO_WAIT;

typedef struct _BAROGR {
    PLUG Plug;
    KSPIN_LOCK Lock;            /* of what follows */
    LIST_ENTRY Waits;
    ULONG Pressure;
} BAROGR;

typedef struct _WAIT {
    LIST_ENTRY Link;
    BAROGR *Baro;
    PIRP Irp;                   /* while it stands in Waits */
    LONG Holders;               /* the request, and the timer until it is stopped or its DPC has run */
    ULONG Level;
    KTIMER Timer;
    KDPC Dpc;
} WAIT;

static const GUID BaroInterface = { 0x6a3f5b02, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x02 } };

static VOID WaitPut(WAIT *Wait)
{
    if (InterlockedDecrement(&Wait->Holders) == 0)
        ExFreePoolWithTag(Wait, QQ_TAG);
}

/* Takes the wait and its request out, unless its cancel routine is about to. */
static PIRP WaitTakeLocked(WAIT *Wait)
{
    PIRP irp = Wait->Irp;

    if (irp == NULL || IoSetCancelRoutine(irp, NULL) == NULL)
        return NULL;
    RemoveEntryList(&Wait->Link);
    Wait->Irp = NULL;
    return irp;
}

/* For who has taken the request, or cancels it: the timer's share is put here, or by its DPC. */
static VOID WaitDone(WAIT *Wait)
{
    if (KeCancelTimer(&Wait->Timer))
        WaitPut(Wait);
    WaitPut(Wait);
}

static VOID NTAPI WaitExpired(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    WAIT *wait = Context;
    BAROGR *baro = wait->Baro;
    PIRP irp;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&baro->Lock, &irql);
    irp = WaitTakeLocked(wait);
    KeReleaseSpinLock(&baro->Lock, irql);
    if (irp != NULL) {
        WaitPut(wait);
        PlugFinish(&baro->Plug, irp, STATUS_IO_TIMEOUT, 0);
    }
    WaitPut(wait);
}

static VOID NTAPI WaitCancelled(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    WAIT *wait = Irp->Tail.Overlay.DriverContext[0];
    BAROGR *baro = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&baro->Lock, &irql);
    RemoveEntryList(&wait->Link);
    wait->Irp = NULL;
    KeReleaseSpinLock(&baro->Lock, irql);
#ifndef FIXED
    KeCancelTimer(&wait->Timer);
    ExFreePoolWithTag(wait, QQ_TAG);
#else
    WaitDone(wait);
#endif
    PlugFinish(&baro->Plug, Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS BaroWait(BAROGR *Baro, PIRP Irp)
{
    BARO_WAIT asked = *(BARO_WAIT *)Irp->AssociatedIrp.SystemBuffer;
    LARGE_INTEGER due;
    ULONG pressure;
    WAIT *wait;
    KIRQL irql;

    if (asked.Milliseconds == 0 || asked.Milliseconds > 60000)
        return PlugEnd(&Baro->Plug, Irp, STATUS_INVALID_PARAMETER, 0);
    wait = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(WAIT), QQ_TAG);
    if (wait == NULL)
        return PlugEnd(&Baro->Plug, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    wait->Baro = Baro;
    wait->Irp = Irp;
    wait->Holders = 2;
    wait->Level = asked.Level;
    KeInitializeTimer(&wait->Timer);
    KeInitializeDpc(&wait->Dpc, WaitExpired, wait);
    due.QuadPart = -10000LL * asked.Milliseconds;

    KeAcquireSpinLock(&Baro->Lock, &irql);
    pressure = Baro->Pressure;
    if (pressure >= asked.Level) {
        KeReleaseSpinLock(&Baro->Lock, irql);
        ExFreePoolWithTag(wait, QQ_TAG);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = pressure;
        return PlugEnd(&Baro->Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    IoMarkIrpPending(Irp);
    Irp->Tail.Overlay.DriverContext[0] = wait;
    InsertTailList(&Baro->Waits, &wait->Link);
    (VOID)IoSetCancelRoutine(Irp, WaitCancelled);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        RemoveEntryList(&wait->Link);
        KeReleaseSpinLock(&Baro->Lock, irql);
        ExFreePoolWithTag(wait, QQ_TAG);
        PlugFinish(&Baro->Plug, Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    /* before the lock is released: who takes the wait stops its timer */
    KeSetTimer(&wait->Timer, due, &wait->Dpc);
    KeReleaseSpinLock(&Baro->Lock, irql);
    return STATUS_PENDING;
}

/* Takes all waits out that a level ends or (with Status) that are of a file, or all. */
static VOID BaroEnd(BAROGR *Baro, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY ended;
    PLIST_ENTRY link;
    ULONG pressure;
    KIRQL irql;

    InitializeListHead(&ended);
    KeAcquireSpinLock(&Baro->Lock, &irql);
    pressure = Baro->Pressure;
    link = Baro->Waits.Flink;
    while (link != &Baro->Waits) {
        WAIT *wait = CONTAINING_RECORD(link, WAIT, Link);
        PIRP irp;

        link = link->Flink;
        if (NT_SUCCESS(Status) && wait->Level > pressure)
            continue;
        if (File != NULL && IoGetCurrentIrpStackLocation(wait->Irp)->FileObject != File)
            continue;
        irp = WaitTakeLocked(wait);
        if (irp != NULL) {
            /* the timer's DPC leaves it alone from now on */
            InsertTailList(&ended, &irp->Tail.Overlay.ListEntry);
        }
    }
    KeReleaseSpinLock(&Baro->Lock, irql);
    while (!IsListEmpty(&ended)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&ended), IRP, Tail.Overlay.ListEntry);

        WaitDone(irp->Tail.Overlay.DriverContext[0]);
        if (NT_SUCCESS(Status)) {
            *(ULONG *)irp->AssociatedIrp.SystemBuffer = pressure;
            PlugFinish(&Baro->Plug, irp, Status, sizeof(ULONG));
        } else {
            PlugFinish(&Baro->Plug, irp, Status, 0);
        }
    }
}

static NTSTATUS BaroRequest(PLUG *Plug, PIRP Irp)
{
    BAROGR *baro = (BAROGR *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BARO_SET:
        if (in < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&baro->Lock, &irql);
        baro->Pressure = *buffer;
        KeReleaseSpinLock(&baro->Lock, irql);
        BaroEnd(baro, NULL, STATUS_SUCCESS);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
    case IOCTL_BARO_GET:
        if (out < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&baro->Lock, &irql);
        *buffer = baro->Pressure;
        KeReleaseSpinLock(&baro->Lock, irql);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_BARO_WAIT:
        if (in < sizeof(BARO_WAIT))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        if (out < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return BaroWait(baro, Irp);
    default:
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID BaroFlush(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status)
{
    BaroEnd((BAROGR *)Plug, File, Status);
}

static NTSTATUS BaroAdded(PLUG *Plug)
{
    BAROGR *baro = (BAROGR *)Plug;

    KeInitializeSpinLock(&baro->Lock);
    InitializeListHead(&baro->Waits);
    baro->Pressure = 95000;
    return STATUS_SUCCESS;
}

static VOID BaroDiscarded(PLUG *Plug)
{
    UNREFERENCED_PARAMETER(Plug);
    /* no request is left, but timers that had run out by then have DPCs, which use the device's lock */
    KeFlushQueuedDpcs();
}

static NTSTATUS BaroBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Plug);
    UNREFERENCED_PARAMETER(Translated);
    return STATUS_SUCCESS;
}

static VOID BaroHalt(PLUG *Plug, BOOLEAN Reachable)
{
    UNREFERENCED_PARAMETER(Plug);
    UNREFERENCED_PARAMETER(Reachable);
}

static const PLUG_ROLE BaroRole = {
    .Size = sizeof(BAROGR),
    .Flags = DO_BUFFERED_IO,
    .Interface = &BaroInterface,
    .Added = BaroAdded,
    .Discarded = BaroDiscarded,
    .Begin = BaroBegin,
    .Halt = BaroHalt,
    .Request = BaroRequest,
    .Flush = BaroFlush,
};

static NTSTATUS NTAPI BaroAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &BaroRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, BaroAdd);
}
