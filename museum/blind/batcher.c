/*
 * A software device that takes records: writes are queued and put into a journal in memory by a work item, in batches, and reads give the journal back.
 *
 * The bug: the work item finds the queue empty and takes back the flag that it is scheduled in two steps, so that a write that comes in between is never carried out.
 * Shows by: a second write is queued just when the work item has looked at the empty queue; it stays there, unless another one follows.
 *
 * Device: Root\BATCHER
 * Rule: request-forgotten, request-pending-after-surprise-removal
 * Needs: ioctl, schedule
 */
#define KIT_FREE BatchFree
#include "../include/hold_frame.h"

#define BATCH_TAG 'hctB'
#define BATCH_JOURNAL 4096u

typedef struct _BATCH {
    KIT Kit;
    PIO_WORKITEM Item;
    KSPIN_LOCK Lock;                            /* Writes, Scheduled */
    LIST_ENTRY Writes;
    BOOLEAN Scheduled;                          /* the work item is queued or at work, and looks at the queue again */
    FAST_MUTEX Mutex;                           /* Journal, Used */
    ULONG Used;
    UCHAR Journal[BATCH_JOURNAL];
} BATCH, *PBATCH;

DRIVER_INITIALIZE DriverEntry;

static const GUID BatchInterface = { 0x1f6bd2c1, 0x6a0e, 0x4d2b, { 0x9c, 0x11, 0x60, 0x2e, 0x7a, 0x55, 0x01, 0x02 } };

/* The oldest write that was not cancelled. Lock held. */
static PIRP BatchNext(PBATCH Batch)
{
    while (!IsListEmpty(&Batch->Writes)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&Batch->Writes), IRP, Tail.Overlay.ListEntry);

        if (IoSetCancelRoutine(irp, NULL) != NULL)
            return irp;
        InitializeListHead(&irp->Tail.Overlay.ListEntry);       /* its cancel routine is on its way */
    }
    return NULL;
}

static VOID NTAPI BatchCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBATCH batch = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&batch->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&batch->Lock, irql);
    KitDone(&batch->Kit, Irp, STATUS_CANCELLED, 0);
}

/* Puts one record into the journal. */
static NTSTATUS BatchAppend(PBATCH Batch, PIRP Irp, ULONG Length)
{
    NTSTATUS status = STATUS_SUCCESS;

    ExAcquireFastMutex(&Batch->Mutex);
    if (Length > BATCH_JOURNAL - Batch->Used)
        status = STATUS_DISK_FULL;
    else {
        RtlCopyMemory(Batch->Journal + Batch->Used, Irp->AssociatedIrp.SystemBuffer, Length);
        Batch->Used += Length;
    }
    ExReleaseFastMutex(&Batch->Mutex);
    return status;
}

static VOID NTAPI BatchWork(PDEVICE_OBJECT Device, PVOID Context)
{
    PBATCH batch = Context;
    NTSTATUS status;
    ULONG length;
    KIRQL irql;
    PIRP irp;

    UNREFERENCED_PARAMETER(Device);
    for (;;) {
        KeAcquireSpinLock(&batch->Lock, &irql);
        irp = BatchNext(batch);
#ifdef FIXED
        if (irp == NULL)
            batch->Scheduled = FALSE;
#endif
        KeReleaseSpinLock(&batch->Lock, irql);
        if (irp == NULL)
            break;
        length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
        status = BatchAppend(batch, irp, length);
        KitDone(&batch->Kit, irp, status, NT_SUCCESS(status) ? length : 0);
    }
#ifndef FIXED
    KeAcquireSpinLock(&batch->Lock, &irql);
    batch->Scheduled = FALSE;
    KeReleaseSpinLock(&batch->Lock, irql);
#endif
    IoReleaseRemoveLock(&batch->Kit.RemoveLock, batch);
}

static NTSTATUS NTAPI BatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBATCH batch = Device->DeviceExtension;
    BOOLEAN schedule = FALSE;
    NTSTATUS status;
    KIRQL irql;

    status = KitEnter(&batch->Kit, Irp);
    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length == 0)
        return KitFinish(&batch->Kit, Irp, STATUS_SUCCESS, 0);

    KeAcquireSpinLock(&batch->Lock, &irql);
    IoSetCancelRoutine(Irp, BatchCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&batch->Lock, irql);
        return KitFinish(&batch->Kit, Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&batch->Writes, &Irp->Tail.Overlay.ListEntry);
    if (!batch->Scheduled && NT_SUCCESS(IoAcquireRemoveLock(&batch->Kit.RemoveLock, batch)))   /* succeeds, removal waits for this routine */
        batch->Scheduled = schedule = TRUE;
    KeReleaseSpinLock(&batch->Lock, irql);
    if (schedule)
        IoQueueWorkItem(batch->Item, BatchWork, DelayedWorkQueue, batch);
    KitLeave(&batch->Kit);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI BatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBATCH batch = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG at = sp->Parameters.Read.ByteOffset.QuadPart;
    NTSTATUS status;
    ULONG n = 0;

    status = KitEnter(&batch->Kit, Irp);
    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    ExAcquireFastMutex(&batch->Mutex);
    if (at < 0)
        status = STATUS_INVALID_PARAMETER;
    else if (at < batch->Used) {
        n = min(sp->Parameters.Read.Length, batch->Used - (ULONG)at);
        if (n != 0)
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, batch->Journal + at, n);
    } else if (sp->Parameters.Read.Length != 0)
        status = STATUS_END_OF_FILE;
    ExReleaseFastMutex(&batch->Mutex);
    return KitFinish(&batch->Kit, Irp, status, n);
}

/* What is queued is carried out soon, and removal waits for it by the remove lock. */
static void KitDrain(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated)
{
    PBATCH batch = CONTAINING_RECORD(Kit, BATCH, Kit);

    UNREFERENCED_PARAMETER(Translated);
    if (batch->Item == NULL)
        batch->Item = IoAllocateWorkItem(Kit->Self);
    return batch->Item != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static void KitStop(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitSuspend(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitResume(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void BatchFree(PKIT Kit)
{
    PBATCH batch = CONTAINING_RECORD(Kit, BATCH, Kit);

    if (batch->Item != NULL)
        IoFreeWorkItem(batch->Item);
}

static NTSTATUS NTAPI BatchAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PBATCH batch;
    NTSTATUS status = KitAttach(Driver, Pdo, sizeof(BATCH), BATCH_TAG, &BatchInterface, &device);

    if (!NT_SUCCESS(status))
        return status;
    batch = device->DeviceExtension;
    KeInitializeSpinLock(&batch->Lock);
    InitializeListHead(&batch->Writes);
    ExInitializeFastMutex(&batch->Mutex);
    device->Flags |= DO_BUFFERED_IO;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI BatchUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitInitialize(Driver, BatchAddDevice, BatchUnload);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_READ] = BatchRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = BatchWrite;
    return STATUS_SUCCESS;
}
