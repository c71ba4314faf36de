/*
 * larder: scratch space in the kernel for programs that hand data from one of their phases to the next. Each handle has a shelf of
 * its own; a program reserves room on it, appends to what lies there, and fetches pieces of it.
 *
 * The bug: reserving less room than is in use cuts the contents off at the new size, but the count of bytes in use stays what it was.
 * Fetching and appending then run beyond the smaller block.
 *
 * Device: none
 * Rule: wild-read, wild-write, pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/booth_or_shell.h"

#define LARDER_RESERVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: ULONG, the room */
#define LARDER_APPEND   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: the bytes */
#define LARDER_FETCH    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_READ_ACCESS)     /* in: ULONG, from where; out: the bytes */
#define LARDER_MEASURE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A3, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: LARDER_SIZE */
#define LARDER_SWEEP    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A4, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define LARDER_TAG      'draL'
#define LARDER_MOST     0x10000

typedef struct LARDER_SIZE {
    ULONG Room;
    ULONG Used;
} LARDER_SIZE;

typedef struct SHELF {
    FAST_MUTEX Mutex;
    PUCHAR Bytes;
    ULONG Room;
    ULONG Used;
} SHELF;

static PDEVICE_OBJECT LarderDevice;

static NTSTATUS ShelfReserve(SHELF *Shelf, ULONG Room)
{
    PUCHAR bytes = NULL;
    ULONG keep = Shelf->Used < Room ? Shelf->Used : Room;

    if (Room > LARDER_MOST)
        return STATUS_INVALID_PARAMETER;
    if (Room != 0) {
        bytes = ExAllocatePoolWithTag(PagedPool, Room, LARDER_TAG);
        if (bytes == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
        if (keep != 0)
            RtlCopyMemory(bytes, Shelf->Bytes, keep);
    }
    if (Shelf->Bytes != NULL)
        ExFreePoolWithTag(Shelf->Bytes, LARDER_TAG);
    Shelf->Bytes = bytes;
    Shelf->Room = Room;
#ifdef FIXED
    Shelf->Used = keep;
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS ShelfAppend(SHELF *Shelf, const VOID *Bytes, ULONG Length)
{
    if (Length > Shelf->Room - Shelf->Used)
        return STATUS_DISK_FULL;
    if (Length != 0)
        RtlCopyMemory(Shelf->Bytes + Shelf->Used, Bytes, Length);
    Shelf->Used += Length;
    return STATUS_SUCCESS;
}

static NTSTATUS ShelfFetch(SHELF *Shelf, ULONG From, PVOID Bytes, ULONG Length, ULONG *Fetched)
{
    if (From > Shelf->Used)
        return STATUS_INVALID_PARAMETER;
    if (Length > Shelf->Used - From)
        Length = Shelf->Used - From;
    if (Length != 0)
        RtlCopyMemory(Bytes, Shelf->Bytes + From, Length);
    *Fetched = Length;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI LarderCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    SHELF *shelf;

    UNREFERENCED_PARAMETER(Device);
    shelf = ExAllocatePoolWithTag(NonPagedPool, sizeof *shelf, LARDER_TAG);
    if (shelf == NULL)
        return Settle(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    ExInitializeFastMutex(&shelf->Mutex);
    shelf->Bytes = NULL;
    shelf->Room = 0;
    shelf->Used = 0;
    file->FsContext = shelf;
    return Settle(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LarderClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    SHELF *shelf = file->FsContext;

    UNREFERENCED_PARAMETER(Device);
    file->FsContext = NULL;
    if (shelf->Bytes != NULL)
        ExFreePoolWithTag(shelf->Bytes, LARDER_TAG);
    ExFreePoolWithTag(shelf, LARDER_TAG);
    return Settle(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LarderControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    SHELF *shelf = at->FileObject->FsContext;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = at->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = at->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG information = 0, from;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Device);
    ExAcquireFastMutex(&shelf->Mutex);
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case LARDER_RESERVE:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : ShelfReserve(shelf, *(ULONG *)buffer);
        break;

    case LARDER_APPEND:
        status = ShelfAppend(shelf, buffer, in);
        break;

    case LARDER_FETCH:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        from = *(ULONG *)buffer;
        status = ShelfFetch(shelf, from, buffer, out, &information);
        break;

    case LARDER_MEASURE:
        if (out < sizeof(LARDER_SIZE)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ((LARDER_SIZE *)buffer)->Room = shelf->Room;
        ((LARDER_SIZE *)buffer)->Used = shelf->Used;
        information = sizeof(LARDER_SIZE);
        status = STATUS_SUCCESS;
        break;

    case LARDER_SWEEP:
        shelf->Used = 0;
        status = STATUS_SUCCESS;
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&shelf->Mutex);
    return Settle(Irp, status, information);
}

static VOID NTAPI LarderUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    BoothStrike(LarderDevice, L"\\DosDevices\\Larder");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->DriverUnload = LarderUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = LarderCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = LarderClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BoothNod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LarderControl;
    return BoothRaise(Driver, L"\\Device\\Larder", L"\\DosDevices\\Larder", 0, 0, &LarderDevice);
}
