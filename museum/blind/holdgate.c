/*
 * holdgate: hands out blocks of serial numbers to programs. From the moment that the PnP manager asks whether the
 * device may be stopped or removed it holds new requests, and serves them when that has been called off or is over.
 *
 * The bug: the end of the holding is seen to for IRP_MN_CANCEL_STOP_DEVICE and a new start, but not for
 * IRP_MN_CANCEL_REMOVE_DEVICE: what came behind a removal's query is held for good.
 *
 * Device: ROOT\HOLDGATE
 * Rule: request-forgotten, irp-never-completed, stuck
 * Needs: removal, ioctl
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define HG_MOST 1000000                 /* numbers at a time */

#define IOCTL_HG_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_HG_NEXT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_HG_SKIP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID GUID_HOLDGATE = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x0D } };

typedef struct _HG_BLOCK {
    ULONGLONG First;
    ULONGLONG Count;
} HG_BLOCK, *PHG_BLOCK;

typedef struct _HG_EXT {
    FR_EXT Frame;
    volatile LONG Holding;
    FR_QUEUE Held;
    KSPIN_LOCK Lock;                    /* all below */
    ULONGLONG Next;
} HG_EXT, *PHG_EXT;

static VOID HgEnd(PVOID Context, PIRP Irp, NTSTATUS Status)
{
    PHG_EXT Ext = Context;
    FrComplete(Irp, Status, 0);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static NTSTATUS HgTake(PHG_EXT Ext, ULONGLONG Count, PHG_BLOCK Out)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (Count == 0 || Count > HG_MOST)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (Ext->Next > ~0ULL - Count) {
        Status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        if (Out) {
            Out->First = Ext->Next;
            Out->Count = Count;
        }
        Ext->Next += Count;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return Status;
}

/* Serves and completes a request. */
static VOID HgServe(PHG_EXT Ext, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status;
    KIRQL Irql;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HG_TAKE:
        if (InLength < sizeof(ULONGLONG) || OutLength < sizeof(HG_BLOCK)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = HgTake(Ext, *(PULONGLONG)Buffer, Buffer);
        if (NT_SUCCESS(Status))
            Information = sizeof(HG_BLOCK);
        break;
    case IOCTL_HG_SKIP:
        Status = InLength < sizeof(ULONGLONG) ? STATUS_INVALID_PARAMETER : HgTake(Ext, *(PULONGLONG)Buffer, NULL);
        break;
    case IOCTL_HG_NEXT:
        if (OutLength < sizeof(ULONGLONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        *(PULONGLONG)Buffer = Ext->Next;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        Status = STATUS_SUCCESS;
        Information = sizeof(ULONGLONG);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static BOOLEAN HgHolds(PHG_EXT Ext)
{
    return InterlockedCompareExchange(&Ext->Holding, 0, 0) != 0;
}

static VOID HgServeHeld(PHG_EXT Ext)
{
    PIRP Irp;
    while (!HgHolds(Ext) && (Irp = FrQueueTake(&Ext->Held, NULL)) != NULL)
        HgServe(Ext, Irp);
}

/* All requests are marked pending and queued; where nothing is held they are served at once. */
static NTSTATUS HgControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PHG_EXT Ext = DeviceObject->DeviceExtension;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Irp);
    if (!NT_SUCCESS(Status)) {
        FrLeave(&Ext->Frame);
        return FrComplete(Irp, Status, 0);
    }
    Status = FrQueuePut(&Ext->Held, Irp);
    HgServeHeld(Ext);
    FrLeave(&Ext->Frame);
    return Status;
}

static NTSTATUS HgCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PHG_EXT Ext = DeviceObject->DeviceExtension;
    FrQueueFlush(&Ext->Held, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

/* ---- PnP: what concerns the holding; the rest does the frame ---- */

static NTSTATUS HgPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PHG_EXT Ext = DeviceObject->DeviceExtension;
    UCHAR Minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS Status;

    switch (Minor) {
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        InterlockedExchange(&Ext->Holding, 1);
        return FrPnp(DeviceObject, Irp);

    case IRP_MN_START_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
#ifdef FIXED
    case IRP_MN_CANCEL_REMOVE_DEVICE:
#endif
        Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, (PVOID)HgPnp);     /* until what was held is served */
        if (!NT_SUCCESS(Status))
            return FrComplete(Irp, Status, 0);
        Status = FrPnp(DeviceObject, Irp);
        if (Minor != IRP_MN_START_DEVICE || NT_SUCCESS(Status)) {
            InterlockedExchange(&Ext->Holding, 0);
            HgServeHeld(Ext);
        }
        IoReleaseRemoveLock(&Ext->Frame.RemoveLock, (PVOID)HgPnp);
        return Status;
    }
    return FrPnp(DeviceObject, Irp);
}

static VOID HgAbort(PFR_EXT Frame)
{
    FrQueueFlush(&((PHG_EXT)Frame)->Held, NULL, STATUS_DELETE_PENDING);
}

static const FR_OPS HgOps = { .Abort = HgAbort };

static VOID HgInit(PFR_EXT Frame)
{
    PHG_EXT Ext = (PHG_EXT)Frame;
    KeInitializeSpinLock(&Ext->Lock);
    FrQueueInit(&Ext->Held, HgEnd, Ext);
    Ext->Next = 1;
}

static NTSTATUS NTAPI HgAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(HG_EXT), DO_BUFFERED_IO, &GUID_HOLDGATE, &HgOps, HgInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, HgAddDevice);
    Driver->MajorFunction[IRP_MJ_PNP] = HgPnp;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = HgCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = HgControl;
    return STATUS_SUCCESS;
}
