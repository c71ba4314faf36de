/*
 * packbox: stores packed arrays of items for its clients.  IOCTL_STORE (METHOD_NEITHER, to save the copy of big
 * arrays) takes a header and the items that follow it; IOCTL_LOAD gives a stored array back; IOCTL_DROP forgets it.
 *
 * The bug: the header in the application's buffer is read again behind its check.
 *
 * Device: none
 * Rule: bad-pointer, pool-overrun
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_LOAD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DROP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'bPoB'
#define MAGIC 0x4B434150
#define MAX_BOXES 64
#define MAX_INPUT (256 * 1024)

typedef struct _PACK_HEADER {
    ULONG Magic;
    ULONG Id;
    USHORT Count;
    USHORT ItemSize;
} PACK_HEADER;

typedef struct _BOX {
    LIST_ENTRY Link;
    ULONG Id;
    ULONG Bytes;
    UCHAR Data[];
} BOX, *PBOX;

typedef struct _STORE {
    FAST_MUTEX Mutex;
    LIST_ENTRY Boxes;
    ULONG Count;
} STORE, *PSTORE;

DRIVER_INITIALIZE DriverEntry;
static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\PackBox");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\PackBox");

#include "../include/guarded.h"

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static PBOX Find(PSTORE S, ULONG Id)
{
    PLIST_ENTRY E;
    for (E = S->Boxes.Flink; E != &S->Boxes; E = E->Flink) {
        PBOX B = CONTAINING_RECORD(E, BOX, Link);
        if (B->Id == Id)
            return B;
    }
    return NULL;
}

static NTSTATUS Keep(PSTORE S, PBOX New)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ExAcquireFastMutex(&S->Mutex);
    if (Find(S, New->Id))
        Status = STATUS_OBJECT_NAME_COLLISION;
    else if (S->Count >= MAX_BOXES)
        Status = STATUS_QUOTA_EXCEEDED;
    else {
        InsertTailList(&S->Boxes, &New->Link);
        S->Count++;
    }
    ExReleaseFastMutex(&S->Mutex);
    return Status;
}

static NTSTATUS Unpack(PSTORE S, PUCHAR Mapped, ULONG Length)
{
    volatile PACK_HEADER *Header = (volatile PACK_HEADER *)Mapped;
    ULONG Bytes;
    NTSTATUS Status;
    PBOX Box;
#ifdef FIXED
    volatile PACK_HEADER Snapshot;
    Snapshot.Magic = Header->Magic;
    Snapshot.Id = Header->Id;
    Snapshot.Count = Header->Count;
    Snapshot.ItemSize = Header->ItemSize;
    Header = &Snapshot;
#endif

    if (Header->Magic != MAGIC || Header->Count == 0 || Header->ItemSize == 0)
        return STATUS_INVALID_PARAMETER;
    Bytes = (ULONG)Header->Count * Header->ItemSize;
    if (Bytes > Length - sizeof(PACK_HEADER))
        return STATUS_INVALID_BUFFER_SIZE;

    Box = ExAllocatePoolWithTag(PagedPool, sizeof(BOX) + Bytes, TAG);
    if (!Box)
        return STATUS_INSUFFICIENT_RESOURCES;
    Box->Id = Header->Id;
    Box->Bytes = (ULONG)Header->Count * Header->ItemSize;
    RtlCopyMemory(Box->Data, Mapped + sizeof(PACK_HEADER), Box->Bytes);

    Status = Keep(S, Box);
    if (!NT_SUCCESS(Status))
        ExFreePoolWithTag(Box, TAG);
    return Status;
}

/* Runs in the caller's context: no driver lies above this one. */
static NTSTATUS Store(PSTORE S, PIRP Irp, PVOID User, ULONG Length)
{
    PMDL Mdl;
    PUCHAR Mapped;
    NTSTATUS Status;

    if (!User || Length < sizeof(PACK_HEADER) || Length > MAX_INPUT)
        return STATUS_INVALID_PARAMETER;
    Mdl = IoAllocateMdl(User, Length, FALSE, FALSE, NULL);
    if (!Mdl)
        return STATUS_INSUFFICIENT_RESOURCES;
    Status = GuardedLock(Mdl, Irp->RequestorMode, IoReadAccess);
    if (NT_SUCCESS(Status)) {
        Mapped = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
        Status = Mapped ? Unpack(S, Mapped, Length) : STATUS_INSUFFICIENT_RESOURCES;
        MmUnlockPages(Mdl);
    }
    IoFreeMdl(Mdl);
    return Status;
}

static NTSTATUS Load(PSTORE S, PVOID Buffer, ULONG Room, PULONG Got)
{
    ULONG Id = *(PULONG)Buffer;
    NTSTATUS Status;
    PBOX Box;

    ExAcquireFastMutex(&S->Mutex);
    Box = Find(S, Id);
    if (!Box) {
        Status = STATUS_NOT_FOUND;
    } else if (Box->Bytes > Room) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        RtlCopyMemory(Buffer, Box->Data, Box->Bytes);
        *Got = Box->Bytes;
        Status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&S->Mutex);
    return Status;
}

static NTSTATUS Drop(PSTORE S, ULONG Id)
{
    PBOX Box;
    ExAcquireFastMutex(&S->Mutex);
    Box = Find(S, Id);
    if (Box) {
        RemoveEntryList(&Box->Link);
        S->Count--;
    }
    ExReleaseFastMutex(&S->Mutex);
    if (!Box)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(Box, TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSTORE S = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Got = 0;
    NTSTATUS Status;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STORE:
        Status = Store(S, Irp, Sp->Parameters.DeviceIoControl.Type3InputBuffer, In);
        break;
    case IOCTL_LOAD:
        Status = In < sizeof(ULONG) ? STATUS_INVALID_PARAMETER
                                    : Load(S, Irp->AssociatedIrp.SystemBuffer,
                                           Sp->Parameters.DeviceIoControl.OutputBufferLength, &Got);
        break;
    case IOCTL_DROP:
        Status = In < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : Drop(S, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Finish(Irp, Status, Got);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PSTORE S = Driver->DeviceObject->DeviceExtension;
    IoDeleteSymbolicLink(&LinkName);
    while (!IsListEmpty(&S->Boxes))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&S->Boxes), BOX, Link), TAG);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT Device;
    PSTORE S;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    Status = IoCreateDevice(Driver, sizeof(STORE), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    S = Device->DeviceExtension;
    ExInitializeFastMutex(&S->Mutex);
    InitializeListHead(&S->Boxes);
    S->Count = 0;
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
