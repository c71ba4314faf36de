/*
 * ramvol: a scratch volume of 1 MB in memory that tools read and write at any offset with direct
 * I/O; it counts the transfers and can be wiped.
 *
 * The bug: offset and length are added in 32 bits, so that an offset near 4 GB passes the check and memory far beyond
 * the volume is read or written.
 *
 * Device: none
 * Rule: bad-pointer
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define VOLUME 0x100000u
#define TAG 'vmaR'
typedef struct { ULONG Size, Reads, Writes, Reserved; ULONGLONG BytesIn, BytesOut; } VOL_STATE;
#define IOCTL_VOL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_VOL_WIPE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct {
    PUCHAR Base;
    KMUTEX Mutex;
    VOL_STATE State;
} VOL, *PVOL;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\RamVol");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\RamVol");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, NT_SUCCESS(Status) ? IO_DISK_INCREMENT : IO_NO_INCREMENT);
    return Status;
}

static BOOLEAN InVolume(LARGE_INTEGER Offset, ULONG Length)
{
#ifdef FIXED
    return Offset.QuadPart >= 0 && Offset.QuadPart <= VOLUME && Length <= VOLUME - Offset.LowPart;
#else
    return Offset.HighPart == 0 && Offset.LowPart + Length <= VOLUME;
#endif
}

static NTSTATUS NTAPI VolReadWrite(PDEVICE_OBJECT D, PIRP Irp)
{
    PVOL V = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = sp->MajorFunction == IRP_MJ_WRITE;
    LARGE_INTEGER offset = write ? sp->Parameters.Write.ByteOffset : sp->Parameters.Read.ByteOffset;
    ULONG length = write ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
    PUCHAR mem;

    if (length == 0)
        return Finish(Irp, STATUS_SUCCESS, 0);
    if (!InVolume(offset, length))
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    mem = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!mem)
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    KeWaitForSingleObject(&V->Mutex, Executive, KernelMode, FALSE, NULL);
    if (write) {
        RtlCopyMemory(V->Base + offset.LowPart, mem, length);
        V->State.Writes++;
        V->State.BytesIn += length;
    } else {
        RtlCopyMemory(mem, V->Base + offset.LowPart, length);
        V->State.Reads++;
        V->State.BytesOut += length;
    }
    KeReleaseMutex(&V->Mutex, FALSE);
    return Finish(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI VolControl(PDEVICE_OBJECT D, PIRP Irp)
{
    PVOL V = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VOL_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(VOL_STATE))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeWaitForSingleObject(&V->Mutex, Executive, KernelMode, FALSE, NULL);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &V->State, sizeof(VOL_STATE));
        KeReleaseMutex(&V->Mutex, FALSE);
        return Finish(Irp, STATUS_SUCCESS, sizeof(VOL_STATE));
    case IOCTL_VOL_WIPE:
        KeWaitForSingleObject(&V->Mutex, Executive, KernelMode, FALSE, NULL);
        RtlZeroMemory(V->Base, VOLUME);
        KeReleaseMutex(&V->Mutex, FALSE);
        return Finish(Irp, STATUS_SUCCESS, 0);
    }
    return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}
static NTSTATUS NTAPI VolOpenClose(PDEVICE_OBJECT D, PIRP Irp)
{
    UNREFERENCED_PARAMETER(D);
    return Finish(Irp, STATUS_SUCCESS, 0);
}
static VOID NTAPI VolUnload(PDRIVER_OBJECT Drv)
{
    PVOL V = Drv->DeviceObject->DeviceExtension;
    IoDeleteSymbolicLink(&LinkName);
    ExFreePoolWithTag(V->Base, TAG);
    IoDeleteDevice(Drv->DeviceObject);
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT d;
    PVOL V;
    NTSTATUS st;
    UNREFERENCED_PARAMETER(Path);
    st = IoCreateDevice(Drv, sizeof(VOL), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &d);
    if (!NT_SUCCESS(st))
        return st;
    d->Flags |= DO_DIRECT_IO;
    V = d->DeviceExtension;
    RtlZeroMemory(V, sizeof(VOL));
    KeInitializeMutex(&V->Mutex, 0);
    V->State.Size = VOLUME;
    V->Base = ExAllocatePoolWithTag(PagedPool, VOLUME, TAG);
    if (!V->Base) {
        IoDeleteDevice(d);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(V->Base, VOLUME);
    Drv->DriverUnload = VolUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = VolOpenClose;
    Drv->MajorFunction[IRP_MJ_CLOSE] = VolOpenClose;
    Drv->MajorFunction[IRP_MJ_READ] = VolReadWrite;
    Drv->MajorFunction[IRP_MJ_WRITE] = VolReadWrite;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = VolControl;
    st = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(st)) {
        ExFreePoolWithTag(V->Base, TAG);
        IoDeleteDevice(d);
    }
    return st;
}
