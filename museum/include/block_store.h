/*
 * A device that keeps blocks in memory of its own, for drivers of which special files may be on the device (paging, hibernation and crash dump files): adding it, reads and writes, and power
 * requests, which may come at DISPATCH_LEVEL as soon as there is such a file. The driver has a GUID BlockInterface and says with routines of its own what it does about such files.
 */
#ifndef BLOCK_STORE_H
#define BLOCK_STORE_H

#include "plain_pnp.h"

#define BLOCK_TAG 'clBS'
#define BLOCK_BYTES 0x10000
#define SPECIAL_KINDS 3

typedef struct _STORE {
    SOFT Soft;
    FAST_MUTEX Mutex; /* of Memory: reads and writes come at APC_LEVEL at most */
    PUCHAR Memory;    /* in non-paged pool: it may be written while nothing can be paged in */
    KEVENT Turn;      /* one request at a time changes Special and the flags of the device object */
    LONG Special[SPECIAL_KINDS]; /* files of each kind that are on the device, by DEVICE_USAGE_NOTIFICATION_TYPE - 1 */
} STORE, *PSTORE;

static const GUID BlockInterface;

/* All are called by whose turn it is. A file of this kind is to be on the device, or is no longer on it: STATUS_SUCCESS, or why the driver refuses that. */
static NTSTATUS BlockAsked(PSTORE Store, DEVICE_USAGE_NOTIFICATION_TYPE Type, BOOLEAN There);
/* It is, and the drivers below have agreed. */
static VOID BlockChanged(PSTORE Store, DEVICE_USAGE_NOTIFICATION_TYPE Type, BOOLEAN There);
/* Whether the device may be neither stopped nor removed. */
static BOOLEAN BlockMustStay(PSTORE Store);

static inline VOID StoreEnter(PSTORE Store)
{
    KeWaitForSingleObject(&Store->Turn, Executive, KernelMode, FALSE, NULL);
}

static inline VOID StoreLeave(PSTORE Store)
{
    KeSetEvent(&Store->Turn, IO_NO_INCREMENT, FALSE);
}

static inline LONG StoreFiles(PSTORE Store)
{
    return Store->Special[0] + Store->Special[1] + Store->Special[2];
}

static NTSTATUS SoftStart(PSOFT Soft)
{
    UNREFERENCED_PARAMETER(Soft);
    return STATUS_SUCCESS;
}

static VOID SoftStop(PSOFT Soft)
{
    UNREFERENCED_PARAMETER(Soft);
}

static VOID SoftFinal(PSOFT Soft)
{
    ExFreePoolWithTag(CONTAINING_RECORD(Soft, STORE, Soft)->Memory, BLOCK_TAG);
}

static NTSTATUS NTAPI StoreFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSTORE Store = Device->DeviceExtension;

    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && !SoftOpenable(&Store->Soft)) {
        return SoftDone(Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
    return SoftDone(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS StoreCopy(PSTORE Store, PIRP Irp, PIO_STACK_LOCATION Stack, PULONG Copied)
{
    LONGLONG Offset = Stack->Parameters.Read.ByteOffset.QuadPart; /* writes have it at the same place */
    ULONG Length = Stack->Parameters.Read.Length;

    if (Offset < 0) {
        return STATUS_INVALID_PARAMETER;
    }
    if (Length == 0) {
        return STATUS_SUCCESS;
    }
    if (Offset >= BLOCK_BYTES) {
        return Stack->MajorFunction == IRP_MJ_READ ? STATUS_END_OF_FILE : STATUS_DISK_FULL;
    }
    Length = min(Length, BLOCK_BYTES - (ULONG)Offset);
    ExAcquireFastMutex(&Store->Mutex);
    if (Stack->MajorFunction == IRP_MJ_READ) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Store->Memory + Offset, Length);
    } else {
        RtlCopyMemory(Store->Memory + Offset, Irp->AssociatedIrp.SystemBuffer, Length);
    }
    ExReleaseFastMutex(&Store->Mutex);
    *Copied = Length;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI StoreReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSTORE Store = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Store->Soft.RemoveLock, Irp);
    ULONG Copied = 0;

    if (!NT_SUCCESS(Status)) {
        return SoftDone(Irp, Status, 0);
    }
    Status = Store->Soft.Stopped ? STATUS_DEVICE_NOT_CONNECTED : StoreCopy(Store, Irp, IoGetCurrentIrpStackLocation(Irp), &Copied);
    SoftDone(Irp, Status, Copied);
    IoReleaseRemoveLock(&Store->Soft.RemoveLock, Irp);
    return Status;
}

/* ---- special files --------------------------------------------------------------------------------------------------------------------- */

/* The drivers below are asked before the device is changed. */
static NTSTATUS StoreUsage(PSTORE Store, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    DEVICE_USAGE_NOTIFICATION_TYPE Type = Stack->Parameters.UsageNotification.Type;
    BOOLEAN There = Stack->Parameters.UsageNotification.InPath;
    NTSTATUS Status = IoAcquireRemoveLock(&Store->Soft.RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return SoftDone(Irp, Status, 0);
    }
    StoreEnter(Store);
    Status = There && !SoftOpenable(&Store->Soft) ? STATUS_DEVICE_NOT_READY : BlockAsked(Store, Type, There);
    if (NT_SUCCESS(Status)) {
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = SoftLowerFirst(&Store->Soft, Irp);
        if (NT_SUCCESS(Status)) {
            BlockChanged(Store, Type, There);
        }
    }
    StoreLeave(Store);
    if (NT_SUCCESS(Status)) {
        IoInvalidateDeviceState(Store->Soft.Pdo);
    }
    SoftDone(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&Store->Soft.RemoveLock, Irp);
    return Status;
}

/* Asked by who does not have the turn. */
static BOOLEAN StoreAsk(PSTORE Store, BOOLEAN (*Question)(PSTORE Store))
{
    BOOLEAN Answer;

    StoreEnter(Store);
    Answer = Question(Store);
    StoreLeave(Store);
    return Answer;
}

static BOOLEAN StoreHasFiles(PSTORE Store)
{
    return StoreFiles(Store) != 0;
}

static NTSTATUS NTAPI StorePnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSTORE Store = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (Stack->MinorFunction) {
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (Stack->Parameters.UsageNotification.Type < DeviceUsageTypePaging || Stack->Parameters.UsageNotification.Type > DeviceUsageTypeDumpFile) {
            return SoftPnp(Device, Irp); /* for the drivers below */
        }
        return StoreUsage(Store, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        return StoreAsk(Store, BlockMustStay) ? SoftDone(Irp, STATUS_DEVICE_BUSY, 0) : SoftPnp(Device, Irp);
    case IRP_MN_QUERY_PNP_DEVICE_STATE: /* asked behind IoInvalidateDeviceState */
        if (StoreAsk(Store, StoreHasFiles)) {
            Irp->IoStatus.Information |= PNP_DEVICE_NOT_DISABLEABLE;
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return SoftPnp(Device, Irp);
    default:
        return SoftPnp(Device, Irp);
    }
}

/* ---- the device and the driver --------------------------------------------------------------------------------------------------------- */

static NTSTATUS NTAPI StoreAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PSOFT Soft;
    PSTORE Store;
    PUCHAR Memory;
    NTSTATUS Status = SoftCreate(Driver, Pdo, sizeof(STORE), &BlockInterface, &Soft);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Store = CONTAINING_RECORD(Soft, STORE, Soft);
    Memory = ExAllocatePoolWithTag(NonPagedPool, BLOCK_BYTES, BLOCK_TAG);
    if (Memory == NULL) {
        RtlFreeUnicodeString(&Soft->Link);
        IoDeleteDevice(Soft->Self);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Memory, BLOCK_BYTES);
    Store->Memory = Memory;
    ExInitializeFastMutex(&Store->Mutex);
    KeInitializeEvent(&Store->Turn, SynchronizationEvent, TRUE);
    Status = SoftAttach(Soft, DO_BUFFERED_IO);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Memory, BLOCK_TAG); /* the device object is deleted */
    }
    return Status;
}

static VOID NTAPI StoreUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

static inline VOID StoreDriver(PDRIVER_OBJECT Driver)
{
    Driver->MajorFunction[IRP_MJ_CREATE] = StoreFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = StoreFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = StoreFile;
    Driver->MajorFunction[IRP_MJ_READ] = StoreReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = StoreReadWrite;
    Driver->MajorFunction[IRP_MJ_PNP] = StorePnp;
    Driver->MajorFunction[IRP_MJ_POWER] = SoftPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SoftPass;
    Driver->DriverExtension->AddDevice = StoreAdd;
    Driver->DriverUnload = StoreUnload;
}

#endif
