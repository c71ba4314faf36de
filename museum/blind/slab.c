/*
 * Scratch memory in the kernel for a test tool: a handle reserves a slab of up to a megabyte, and stores and fetches
 * parts of it by offset and length.
 *
 * The bug: the range of IOCTL_SLAB_STORE is checked by a sum of two 32-bit numbers that can wrap.
 * Shows by: a store with an offset so near to 4 GB that offset plus length is a small number.
 *
 * Device: none
 * Rule: bad-pointer, wild-write
 * Needs: ioctl
 */
#include "../include/shared_frame.h"

#define DEVICE_NAME L"\\Device\\Slab"
#define LINK_NAME   L"\\DosDevices\\Slab"

#define IOCTL_SLAB_RESERVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG size */
#define IOCTL_SLAB_STORE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: SLAB_RANGE, data */
#define IOCTL_SLAB_FETCH   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_READ_ACCESS)  /* in: SLAB_RANGE; out: data */
#define IOCTL_SLAB_FREE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x873, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define SLAB_MAXIMUM 0x100000

typedef struct _SLAB_RANGE {
    ULONG Offset;
    ULONG Length;
} SLAB_RANGE;

typedef struct _SLAB {
    FAST_MUTEX Mutex;
    PUCHAR Memory;
    ULONG Size;
} SLAB;

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Device, PIRP Irp)
{
    SLAB *slab;

    UNREFERENCED_PARAMETER(Device);
    slab = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*slab), KIT_TAG);
    if (slab == NULL) {
        return KitComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    ExInitializeFastMutex(&slab->Mutex);
    slab->Memory = NULL;
    slab->Size = 0;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = slab;
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    SLAB *slab = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(Device);
    if (slab->Memory != NULL) {
        ExFreePoolWithTag(slab->Memory, KIT_TAG);
    }
    ExFreePoolWithTag(slab, KIT_TAG);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Reserve(SLAB *Slab, ULONG Size)
{
    PUCHAR memory, old;

    if (Size == 0 || Size > SLAB_MAXIMUM) {
        return STATUS_INVALID_PARAMETER;
    }
    memory = ExAllocatePoolWithTag(PagedPool, Size, KIT_TAG);
    if (memory == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(memory, Size);
    ExAcquireFastMutex(&Slab->Mutex);
    old = Slab->Memory;
    Slab->Memory = memory;
    Slab->Size = Size;
    ExReleaseFastMutex(&Slab->Mutex);
    if (old != NULL) {
        ExFreePoolWithTag(old, KIT_TAG);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Store(SLAB *Slab, const SLAB_RANGE *Range, ULONG InLength)
{
    NTSTATUS status = STATUS_SUCCESS;

    if (InLength < sizeof(*Range) || Range->Length > InLength - sizeof(*Range)) {
        return STATUS_INVALID_PARAMETER;
    }
    ExAcquireFastMutex(&Slab->Mutex);
#ifdef FIXED
    if (Range->Length > Slab->Size || Range->Offset > Slab->Size - Range->Length) {
#else
    if (Range->Offset + Range->Length > Slab->Size) {
#endif
        status = STATUS_INVALID_PARAMETER;
    } else if (Slab->Memory != NULL) {
        RtlCopyMemory(Slab->Memory + Range->Offset, Range + 1, Range->Length);
    }
    ExReleaseFastMutex(&Slab->Mutex);
    return status;
}

static NTSTATUS Fetch(SLAB *Slab, PVOID Buffer, ULONG InLength, ULONG OutLength, ULONG_PTR *Information)
{
    NTSTATUS status = STATUS_SUCCESS;
    SLAB_RANGE range;

    if (InLength < sizeof(range)) {
        return STATUS_INVALID_PARAMETER;
    }
    range = *(SLAB_RANGE *)Buffer;
    if (range.Length > OutLength) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    ExAcquireFastMutex(&Slab->Mutex);
    if (range.Length > Slab->Size || range.Offset > Slab->Size - range.Length) {
        status = STATUS_INVALID_PARAMETER;
    } else if (range.Length != 0) {
        RtlCopyMemory(Buffer, Slab->Memory + range.Offset, range.Length);
        *Information = range.Length;
    }
    ExReleaseFastMutex(&Slab->Mutex);
    return status;
}

static NTSTATUS Free(SLAB *Slab)
{
    PUCHAR old;

    ExAcquireFastMutex(&Slab->Mutex);
    old = Slab->Memory;
    Slab->Memory = NULL;
    Slab->Size = 0;
    ExReleaseFastMutex(&Slab->Mutex);
    if (old == NULL) {
        return STATUS_NOT_FOUND;
    }
    ExFreePoolWithTag(old, KIT_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    SLAB *slab = sp->FileObject->FsContext;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Device);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SLAB_RESERVE:
        status = in < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : Reserve(slab, *(PULONG)buffer);
        break;
    case IOCTL_SLAB_STORE:
        status = Store(slab, buffer, in);
        break;
    case IOCTL_SLAB_FETCH:
        status = Fetch(slab, buffer, in, sp->Parameters.DeviceIoControl.OutputBufferLength, &information);
        break;
    case IOCTL_SLAB_FREE:
        status = Free(slab);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitComplete(Irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KitDeleteControl(Driver->DeviceObject, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    status = KitCreateControl(Driver, DEVICE_NAME, LINK_NAME, 0, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
