/*
 * A legacy driver of two layers: a store whose reads wait for the next write, and above it a layer that counts what goes through and can be switched off. It stays loaded.
 *
 * The bug: the upper layer's completion routine does not pass the lower one's pending mark on, so that a read that pended is completed while its caller does not know that it has pended.
 * Shows by: a read waits in the store and is completed later, by a write or by cancel.
 *
 * Device: none
 * Rule: pending-not-marked
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_STORE_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* out: STORE_COUNTS; answered by the upper layer */
#define IOCTL_STORE_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* in: ULONG, 1 or 0: whether it counts */

typedef struct _STORE_COUNTS {
    LONGLONG Reads, BytesRead, Failed;
} STORE_COUNTS, *PSTORE_COUNTS;

typedef struct _LAYER {
    PDEVICE_OBJECT Lower;                       /* NULL: this is the store itself */
} LAYER, *PLAYER;

typedef struct _STORE {
    LAYER Layer;
    IO_CSQ Queue;
    KSPIN_LOCK Lock;
    LIST_ENTRY Readers;
} STORE, *PSTORE;

typedef struct _TALLY {
    LAYER Layer;
    volatile LONG Counting;
    volatile LONGLONG Reads, BytesRead, Failed;
} TALLY, *PTALLY;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\PassStore");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\PassStore");

static NTSTATUS StoreComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* The store's queue of readers. */
static VOID NTAPI StoreInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, STORE, Queue)->Readers, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI StoreRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI StorePeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PSTORE store = CONTAINING_RECORD(Csq, STORE, Queue);
    PLIST_ENTRY entry = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : store->Readers.Flink;

    for (; entry != &store->Readers; entry = entry->Flink) {
        PIRP next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (Context == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == Context)
            return next;
    }
    return NULL;
}

static VOID NTAPI StoreAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, STORE, Queue)->Lock, Irql);
}

static VOID NTAPI StoreRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, STORE, Queue)->Lock, Irql);
}

static VOID NTAPI StoreCancelled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    StoreComplete(Irp, STATUS_CANCELLED, 0);
}

/* A write goes to all that wait; if none does it is lost. */
static NTSTATUS StoreWrite(PSTORE Store, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    LIST_ENTRY ready;
    PIRP reader;

    InitializeListHead(&ready);
    while ((reader = IoCsqRemoveNextIrp(&Store->Queue, NULL)) != NULL)
        InsertTailList(&ready, &reader->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&ready)) {
        ULONG n;

        reader = CONTAINING_RECORD(RemoveHeadList(&ready), IRP, Tail.Overlay.ListEntry);
        n = min(length, IoGetCurrentIrpStackLocation(reader)->Parameters.Read.Length);
        RtlCopyMemory(reader->AssociatedIrp.SystemBuffer, Irp->AssociatedIrp.SystemBuffer, n);
        StoreComplete(reader, STATUS_SUCCESS, n);
    }
    return StoreComplete(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS StoreDispatch(PSTORE Store, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIRP reader;

    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
    case IRP_MJ_CLOSE:
        return StoreComplete(Irp, STATUS_SUCCESS, 0);

    case IRP_MJ_CLEANUP:
        while ((reader = IoCsqRemoveNextIrp(&Store->Queue, sp->FileObject)) != NULL)
            StoreComplete(reader, STATUS_CANCELLED, 0);
        return StoreComplete(Irp, STATUS_SUCCESS, 0);

    case IRP_MJ_READ:
        if (sp->Parameters.Read.Length == 0)
            return StoreComplete(Irp, STATUS_SUCCESS, 0);
        IoCsqInsertIrp(&Store->Queue, Irp, NULL);
        return STATUS_PENDING;

    case IRP_MJ_WRITE:
        if (sp->Parameters.Write.Length == 0)
            return StoreComplete(Irp, STATUS_SUCCESS, 0);
        return StoreWrite(Store, Irp);
    }
    return StoreComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI TallyReadDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PTALLY tally = Context;

    UNREFERENCED_PARAMETER(Device);
    InterlockedIncrement64(&tally->Reads);
    if (NT_SUCCESS(Irp->IoStatus.Status))
        InterlockedAdd64(&tally->BytesRead, (LONGLONG)Irp->IoStatus.Information);
    else
        InterlockedIncrement64(&tally->Failed);
#ifdef FIXED
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
#endif
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS TallyDispatch(PTALLY Tally, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PSTORE_COUNTS counts = Irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_STORE_COUNTS:
            if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*counts))
                return StoreComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
            counts->Reads = InterlockedCompareExchange64(&Tally->Reads, 0, 0);
            counts->BytesRead = InterlockedCompareExchange64(&Tally->BytesRead, 0, 0);
            counts->Failed = InterlockedCompareExchange64(&Tally->Failed, 0, 0);
            return StoreComplete(Irp, STATUS_SUCCESS, sizeof(*counts));

        case IOCTL_STORE_COUNT:
            if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
                return StoreComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
            InterlockedExchange(&Tally->Counting, *(PULONG)Irp->AssociatedIrp.SystemBuffer != 0);
            return StoreComplete(Irp, STATUS_SUCCESS, 0);
        }
    }
    if (sp->MajorFunction == IRP_MJ_READ && Tally->Counting) {
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, TallyReadDone, Tally, TRUE, TRUE, TRUE);
    } else
        IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Tally->Layer.Lower, Irp);
}

static NTSTATUS NTAPI LayerDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER layer = Device->DeviceExtension;

    if (layer->Lower == NULL)
        return StoreDispatch(Device->DeviceExtension, Irp);
    return TallyDispatch(Device->DeviceExtension, Irp);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device, filter;
    PSTORE store;
    PTALLY tally;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++)
        Driver->MajorFunction[i] = LayerDispatch;

    status = IoCreateDevice(Driver, sizeof(STORE), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    device->Flags |= DO_BUFFERED_IO;
    store = device->DeviceExtension;
    RtlZeroMemory(store, sizeof(*store));
    KeInitializeSpinLock(&store->Lock);
    InitializeListHead(&store->Readers);
    status = IoCsqInitialize(&store->Queue, StoreInsert, StoreRemove, StorePeek, StoreAcquire, StoreRelease, StoreCancelled);
    if (NT_SUCCESS(status))
        status = IoCreateDevice(Driver, sizeof(TALLY), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &filter);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    tally = filter->DeviceExtension;
    RtlZeroMemory(tally, sizeof(*tally));
    tally->Counting = 1;
    device->Flags &= ~DO_DEVICE_INITIALIZING;   /* else nothing can be attached to it */
    tally->Layer.Lower = IoAttachDeviceToDeviceStack(filter, device);
    if (tally->Layer.Lower == NULL) {
        IoDeleteDevice(filter);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    filter->Flags |= tally->Layer.Lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO);
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        IoDetachDevice(device);
        IoDeleteDevice(filter);
        IoDeleteDevice(device);
    }
    return status;
}
