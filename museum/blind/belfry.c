/*
 * belfry: a bell for programs. Some wait for the next stroke with a pending request (they tell the last stroke they have noticed), others strike;
 * a stroke ends all waits.
 *
 * The bug: the routine that makes the list of waiters empty is called at every start of the device, not only when the device is made. After a
 * stop and restart (rebalance of resources) the waits from before are in no list any more: no stroke ends them, and their cancel routine
 * unlinks entries from a list that does not know them.
 *
 * Device: ROOT\BELFRY
 * Rule: request-forgotten
 * Needs: nothing
 */
#include "../include/gated_queue.h"

#define WAITERS_MAX 64

#define IOCTL_BELFRY_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BELFRY_STRIKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BELFRY_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID BelfryGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x02}};

typedef struct _BELFRY_STATE {
    ULONG Strokes;
    ULONG Waiting;
    ULONG Starts;
} BELFRY_STATE, *PBELFRY_STATE;

typedef struct _BELFRY {
    AK Ak;
    IO_CSQ Csq;
    KSPIN_LOCK Lock; /* guards all below */
    LIST_ENTRY Waiters;
    ULONG Waiting;
    ULONG Strokes;
    ULONG Starts;
} BELFRY, *PBELFRY;

#define BELFRY_OF(Csq_) CONTAINING_RECORD(Csq_, BELFRY, Csq)

/* what IoCsqRemoveNextIrp looks for; NULL instead: any */
typedef struct _SOUGHT {
    PFILE_OBJECT File; /* of this handle, or NULL: that have not noticed the stroke */
    ULONG Stroke;
} SOUGHT, *PSOUGHT;

#define RUNG(Irp_) ((ULONG)(ULONG_PTR)(Irp_)->Tail.Overlay.DriverContext[0])

/* Context is the last stroke the waiter has noticed. */
static NTSTATUS WaiterInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PBELFRY b = BELFRY_OF(Csq);

    if (b->Ak.Gates & AG_REFUSE)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (b->Strokes != *(PULONG)Context)
        return STATUS_ALREADY_COMMITTED; /* it has missed one already */
    if (b->Waiting >= WAITERS_MAX)
        return STATUS_QUOTA_EXCEEDED;
    Irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR) * (PULONG)Context;
    InsertTailList(&b->Waiters, &Irp->Tail.Overlay.ListEntry);
    b->Waiting++;
    return STATUS_SUCCESS;
}

static VOID WaiterRemove(PIO_CSQ Csq, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    BELFRY_OF(Csq)->Waiting--;
}

static PIRP WaiterPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PLIST_ENTRY head = &BELFRY_OF(Csq)->Waiters;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : head->Flink;
    PSOUGHT sought = Context;

    for (; e != head; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!sought || (sought->File ? IoGetCurrentIrpStackLocation(irp)->FileObject == sought->File : RUNG(irp) != sought->Stroke))
            return irp;
    }
    return NULL;
}

static VOID WaiterAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&BELFRY_OF(Csq)->Lock, Irql);
}

static VOID WaiterRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&BELFRY_OF(Csq)->Lock, Irql);
}

static VOID WaiterEnd(PBELFRY b, PIRP Irp, NTSTATUS Status, ULONG Stroke)
{
    if (NT_SUCCESS(Status))
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Stroke;
    AkComplete(Irp, Status, NT_SUCCESS(Status) ? sizeof Stroke : 0);
    IoReleaseRemoveLock(&b->Ak.Lock, Irp);
}

static VOID WaiterCancelled(PIO_CSQ Csq, PIRP Irp)
{
    WaiterEnd(BELFRY_OF(Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID WaitersEnd(PBELFRY b, PSOUGHT sought, NTSTATUS status, ULONG stroke)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&b->Csq, sought)) != NULL)
        WaiterEnd(b, irp, status, stroke);
}

static VOID Fresh(PBELFRY b)
{
    InitializeListHead(&b->Waiters);
    b->Waiting = 0;
}

static NTSTATUS BelfryInit(PAK k)
{
    PBELFRY b = (PBELFRY)k;

    KeInitializeSpinLock(&b->Lock);
    Fresh(b);
    return IoCsqInitializeEx(&b->Csq, WaiterInsert, WaiterRemove, WaiterPeek, WaiterAcquire, WaiterRelease, WaiterCancelled);
}

static NTSTATUS BelfryStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PBELFRY b = (PBELFRY)k;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Raw);
    UNREFERENCED_PARAMETER(Translated);
    KeAcquireSpinLock(&b->Lock, &irql);
#ifndef FIXED
    Fresh(b);
#endif
    b->Starts++;
    KeReleaseSpinLock(&b->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID BelfryGone(PAK k)
{
    WaitersEnd((PBELFRY)k, NULL, STATUS_DEVICE_NOT_CONNECTED, 0);
}

static VOID BelfryCleanup(PAK k, PFILE_OBJECT File)
{
    SOUGHT sought = {File, 0};

    WaitersEnd((PBELFRY)k, &sought, STATUS_CANCELLED, 0);
}

static NTSTATUS Wait(PBELFRY b, PIRP Irp, PIO_STACK_LOCATION s)
{
    NTSTATUS status;
    ULONG noticed, stroke;
    KIRQL irql;

    if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof noticed || s->Parameters.DeviceIoControl.OutputBufferLength < sizeof noticed)
        return STATUS_INVALID_PARAMETER;
    noticed = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    status = IoAcquireRemoveLock(&b->Ak.Lock, Irp);
    if (!NT_SUCCESS(status))
        return status;
    IoMarkIrpPending(Irp);
    status = IoCsqInsertIrpEx(&b->Csq, Irp, NULL, &noticed);
    if (status == STATUS_ALREADY_COMMITTED) {
        KeAcquireSpinLock(&b->Lock, &irql);
        stroke = b->Strokes;
        KeReleaseSpinLock(&b->Lock, irql);
        WaiterEnd(b, Irp, STATUS_SUCCESS, stroke);
    } else if (!NT_SUCCESS(status)) {
        WaiterEnd(b, Irp, status, 0);
    }
    return STATUS_PENDING;
}

static NTSTATUS BelfryIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    PBELFRY b = (PBELFRY)k;
    PBELFRY_STATE state = Irp->AssociatedIrp.SystemBuffer;
    SOUGHT sought = {NULL, 0};
    ULONG stroke;
    KIRQL irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BELFRY_WAIT:
        return Wait(b, Irp, s);

    case IOCTL_BELFRY_STRIKE:
        KeAcquireSpinLock(&b->Lock, &irql);
        stroke = ++b->Strokes;
        KeReleaseSpinLock(&b->Lock, irql);
        sought.Stroke = stroke;
        WaitersEnd(b, &sought, STATUS_SUCCESS, stroke);
        return STATUS_SUCCESS;

    case IOCTL_BELFRY_STATE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *state)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&b->Lock, &irql);
        state->Strokes = b->Strokes;
        state->Waiting = b->Waiting;
        state->Starts = b->Starts;
        KeReleaseSpinLock(&b->Lock, irql);
        Irp->IoStatus.Information = sizeof *state;
        return STATUS_SUCCESS;

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const AK_OPS AkOps = {
    .Interface = &BelfryGuid,
    .ExtSize = sizeof(BELFRY),
    .DeviceFlags = DO_BUFFERED_IO,
    .Init = BelfryInit,
    .Start = BelfryStart,
    .Gone = BelfryGone,
    .Cleanup = BelfryCleanup,
    .Io = BelfryIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
