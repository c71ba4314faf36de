/*
 * A virtual tap: what one program writes as a message another one reads; reads wait until there is a message.
 *
 * The bug: a read that is cancelled while it waits is completed without giving its remove lock back, so the removal of the device never ends.
 * Shows by: cancelling a waiting read then removing the device.
 *
 * Device: Root\VTAP
 * Rule: deadlock, stuck
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>
#include "../include/pnp_frame.h"

#define VTAP_TAG       'patV'
#define VTAP_MAX_BYTES 2048
#define VTAP_MAX_QUEUE 16

static const GUID VtapInterface = { 0x7b1d3a60, 0x2c45, 0x4f0e, { 0x9a, 0x11, 0x3e, 0x5d, 0x77, 0x02, 0x41, 0xc1 } };

typedef struct _MESSAGE {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Data[1];
} MESSAGE, *PMESSAGE;

typedef struct _DEVICE {
    FDO Fdo;
    KSPIN_LOCK Lock;            /* Messages, Queued; taken before QueueLock */
    LIST_ENTRY Messages;
    ULONG Queued;
    IO_CSQ Readers;
    KSPIN_LOCK QueueLock;       /* Waiting, Gone */
    LIST_ENTRY Waiting;
    BOOLEAN Gone;
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH VtapRead, VtapWrite, VtapCleanup;
static DRIVER_ADD_DEVICE VtapAddDevice;
static DRIVER_UNLOAD VtapUnload;
DRIVER_INITIALIZE DriverEntry;

static NTSTATUS NTAPI VtapCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PDEVICE dev = CONTAINING_RECORD(Csq, DEVICE, Readers);

    UNREFERENCED_PARAMETER(Context);
    if (dev->Gone)
        return STATUS_DELETE_PENDING;
    InsertTailList(&dev->Waiting, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI VtapCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI VtapCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID PeekContext)
{
    PDEVICE dev = CONTAINING_RECORD(Csq, DEVICE, Readers);
    PLIST_ENTRY entry = Irp ? Irp->Tail.Overlay.ListEntry.Flink : dev->Waiting.Flink;

    for (; entry != &dev->Waiting; entry = entry->Flink) {
        PIRP next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        if (!PeekContext || IoGetCurrentIrpStackLocation(next)->FileObject == (PFILE_OBJECT)PeekContext)
            return next;
    }
    return NULL;
}

static VOID NTAPI VtapCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, DEVICE, Readers)->QueueLock, Irql);
}

static VOID NTAPI VtapCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, DEVICE, Readers)->QueueLock, Irql);
}

static VOID VtapEndRead(PDEVICE Dev, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    FdoComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Dev->Fdo.RemoveLock, Irp);
}

static VOID NTAPI VtapCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
#ifdef FIXED
    VtapEndRead(CONTAINING_RECORD(Csq, DEVICE, Readers), Irp, STATUS_CANCELLED, 0);
#else
    UNREFERENCED_PARAMETER(Csq);
    FdoComplete(Irp, STATUS_CANCELLED, 0);
#endif
}

/* Brings messages and readers together. */
static VOID VtapPump(PDEVICE Dev)
{
    for (;;) {
        PMESSAGE message = NULL;
        PIRP irp = NULL;
        ULONG length;
        KIRQL irql;

        KeAcquireSpinLock(&Dev->Lock, &irql);
        if (!IsListEmpty(&Dev->Messages)) {
            irp = IoCsqRemoveNextIrp(&Dev->Readers, NULL);
            if (irp) {
                message = CONTAINING_RECORD(RemoveHeadList(&Dev->Messages), MESSAGE, Link);
                Dev->Queued--;
            }
        }
        KeReleaseSpinLock(&Dev->Lock, irql);
        if (!irp)
            return;

        length = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
        if (length > message->Length)
            length = message->Length;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, message->Data, length);
        ExFreePoolWithTag(message, VTAP_TAG);
        VtapEndRead(Dev, irp, STATUS_SUCCESS, length);
    }
}

static NTSTATUS NTAPI VtapRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0) {
        VtapEndRead(dev, Irp, STATUS_INVALID_PARAMETER, 0);
        return STATUS_INVALID_PARAMETER;
    }
    /* The read may end as soon as it is queued: this routine holds a reference of its own. */
    status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, VtapRead);
    if (!NT_SUCCESS(status)) {
        VtapEndRead(dev, Irp, status, 0);
        return status;
    }
    status = IoCsqInsertIrpEx(&dev->Readers, Irp, NULL, NULL);
    if (NT_SUCCESS(status)) {
        VtapPump(dev);
        status = STATUS_PENDING;
    } else {
        VtapEndRead(dev, Irp, status, 0);
    }
    IoReleaseRemoveLock(&dev->Fdo.RemoveLock, VtapRead);
    return status;
}

static NTSTATUS NTAPI VtapWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PMESSAGE message = NULL;
    BOOLEAN full = FALSE;
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    if (length == 0 || length > VTAP_MAX_BYTES) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        message = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(MESSAGE, Data) + length, VTAP_TAG);
        if (!message)
            status = STATUS_INSUFFICIENT_RESOURCES;
    }
    if (NT_SUCCESS(status)) {
        message->Length = length;
        RtlCopyMemory(message->Data, Irp->AssociatedIrp.SystemBuffer, length);
        KeAcquireSpinLock(&dev->Lock, &irql);
        full = dev->Queued >= VTAP_MAX_QUEUE;
        if (!full) {
            InsertTailList(&dev->Messages, &message->Link);
            dev->Queued++;
        }
        KeReleaseSpinLock(&dev->Lock, irql);
        if (full) {
            ExFreePoolWithTag(message, VTAP_TAG);
            status = STATUS_DEVICE_BUSY;
        } else {
            VtapPump(dev);
        }
    }
    FdoComplete(Irp, status, NT_SUCCESS(status) ? length : 0);
    IoReleaseRemoveLock(&dev->Fdo.RemoveLock, Irp);
    return status;
}

static VOID VtapEndAll(PDEVICE Dev, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&Dev->Readers, File)) != NULL)
        VtapEndRead(Dev, irp, Status, 0);
}

static NTSTATUS NTAPI VtapCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;

    VtapEndAll(dev, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FdoComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS HwStart(PFDO F, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(F);
    UNREFERENCED_PARAMETER(Raw);
    UNREFERENCED_PARAMETER(Translated);
    return STATUS_SUCCESS;
}

static VOID HwStop(PFDO F) { UNREFERENCED_PARAMETER(F); }
static VOID HwUp(PFDO F) { UNREFERENCED_PARAMETER(F); }
static VOID HwDown(PFDO F) { UNREFERENCED_PARAMETER(F); }

static VOID HwFlush(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);
    LIST_ENTRY old;
    KIRQL irql;

    KeAcquireSpinLock(&dev->QueueLock, &irql);
    dev->Gone = TRUE;
    KeReleaseSpinLock(&dev->QueueLock, irql);
    VtapEndAll(dev, NULL, STATUS_DELETE_PENDING);

    InitializeListHead(&old);
    KeAcquireSpinLock(&dev->Lock, &irql);
    dev->Queued = VTAP_MAX_QUEUE;
    while (!IsListEmpty(&dev->Messages))
        InsertTailList(&old, RemoveHeadList(&dev->Messages));
    KeReleaseSpinLock(&dev->Lock, irql);
    while (!IsListEmpty(&old))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&old), MESSAGE, Link), VTAP_TAG);
}

static NTSTATUS NTAPI VtapAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO f;
    PDEVICE dev;
    NTSTATUS status = FdoCreate(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO, &VtapInterface, &f);

    if (!NT_SUCCESS(status))
        return status;
    dev = CONTAINING_RECORD(f, DEVICE, Fdo);
    KeInitializeSpinLock(&dev->Lock);
    KeInitializeSpinLock(&dev->QueueLock);
    InitializeListHead(&dev->Messages);
    InitializeListHead(&dev->Waiting);
    IoCsqInitializeEx(&dev->Readers, VtapCsqInsert, VtapCsqRemove, VtapCsqPeek, VtapCsqAcquire, VtapCsqRelease, VtapCsqCancelled);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI VtapUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoTable(Driver);
    Driver->MajorFunction[IRP_MJ_READ] = VtapRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = VtapWrite;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = VtapCleanup;
    Driver->DriverExtension->AddDevice = VtapAddDevice;
    Driver->DriverUnload = VtapUnload;
    return STATUS_SUCCESS;
}
