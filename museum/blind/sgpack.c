/*
 * A store of 64 KiB from which programs collect any number of pieces with one request: the list of pieces comes in, the bytes go out.
 *
 * The bug: the size of the list is computed in 32 bits, so a number of pieces that wraps around passes the check and the driver reads far behind the input buffer.
 * Shows by: IOCTL_PACK_COLLECT with 0x20000000 or more pieces in the header (e.g. 0x20000001) and a short input buffer.
 *
 * Device: none
 * Rule: pool-overrun, wild-read
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/control_device.h"

#define IOCTL_PACK_COLLECT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_OUT_DIRECT, FILE_READ_ACCESS)
#define IOCTL_PACK_ERASE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define PACK_TAG   'kcaP'
#define PACK_BYTES 65536
#define PACK_LINK  L"\\DosDevices\\SgPack"

typedef struct _PACK_PIECE {
    ULONG Offset;
    ULONG Length;
} PACK_PIECE, *PPACK_PIECE;

typedef struct _PACK_LIST {
    ULONG Count;
    ULONG Reserved;
    PACK_PIECE Pieces[1];
} PACK_LIST, *PPACK_LIST;

#define PACK_HEADER ((ULONG)FIELD_OFFSET(PACK_LIST, Pieces))

typedef struct _DEVICE {
    FAST_MUTEX Lock;
    PUCHAR Store;
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH PackCreateClose, PackWrite, PackControl;
static DRIVER_UNLOAD PackUnload;
DRIVER_INITIALIZE DriverEntry;

static BOOLEAN PackListFits(PPACK_LIST List, ULONG InLength)
{
    if (InLength < PACK_HEADER)
        return FALSE;
#ifdef FIXED
    return List->Count <= (InLength - PACK_HEADER) / sizeof(PACK_PIECE);
#else
    return PACK_HEADER + List->Count * (ULONG)sizeof(PACK_PIECE) <= InLength;
#endif
}

static NTSTATUS PackCollect(PDEVICE Dev, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Information)
{
    PPACK_LIST list = Irp->AssociatedIrp.SystemBuffer;
    ULONG room = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG done = 0;
    ULONG i;
    PUCHAR to;
    NTSTATUS status = STATUS_SUCCESS;

    if (!list || !PackListFits(list, Sp->Parameters.DeviceIoControl.InputBufferLength))
        return STATUS_INVALID_PARAMETER;
    if (!Irp->MdlAddress)
        return STATUS_BUFFER_TOO_SMALL;
    to = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!to)
        return STATUS_INSUFFICIENT_RESOURCES;

    ExAcquireFastMutex(&Dev->Lock);
    for (i = 0; i < list->Count; i++) {
        ULONG offset = list->Pieces[i].Offset;
        ULONG length = list->Pieces[i].Length;

        if (offset > PACK_BYTES || length > PACK_BYTES - offset) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        if (length > room - done) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        RtlCopyMemory(to + done, Dev->Store + offset, length);
        done += length;
    }
    ExReleaseFastMutex(&Dev->Lock);

    if (NT_SUCCESS(status))
        *Information = done;
    return status;
}

static NTSTATUS NTAPI PackWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = sp->Parameters.Write.Length;
    LONGLONG offset = sp->Parameters.Write.ByteOffset.QuadPart;

    if (length == 0)
        return CtlComplete(Irp, STATUS_SUCCESS, 0);
    if (offset < 0 || offset > PACK_BYTES || length > PACK_BYTES - (ULONG)offset)
        return CtlComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    ExAcquireFastMutex(&dev->Lock);
    RtlCopyMemory(dev->Store + (ULONG)offset, Irp->AssociatedIrp.SystemBuffer, length);
    ExReleaseFastMutex(&dev->Lock);
    return CtlComplete(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI PackCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PackControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PACK_COLLECT:
        status = PackCollect(dev, Irp, sp, &information);
        break;
    case IOCTL_PACK_ERASE:
        ExAcquireFastMutex(&dev->Lock);
        RtlZeroMemory(dev->Store, PACK_BYTES);
        ExReleaseFastMutex(&dev->Lock);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return CtlComplete(Irp, status, information);
}

static VOID NTAPI PackUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE dev = Driver->DeviceObject->DeviceExtension;

    ExFreePoolWithTag(dev->Store, PACK_TAG);
    CtlDelete(Driver->DeviceObject, PACK_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PDEVICE dev;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = PackCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = PackCreateClose;
    Driver->MajorFunction[IRP_MJ_WRITE] = PackWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PackControl;
    Driver->DriverUnload = PackUnload;

    status = CtlCreate(Driver, L"\\Device\\SgPack", PACK_LINK, sizeof(DEVICE), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    dev = device->DeviceExtension;
    ExInitializeFastMutex(&dev->Lock);
    dev->Store = ExAllocatePoolWithTag(PagedPool, PACK_BYTES, PACK_TAG);
    if (!dev->Store) {
        CtlDelete(device, PACK_LINK);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(dev->Store, PACK_BYTES);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
