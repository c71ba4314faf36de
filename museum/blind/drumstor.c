/*
 * drumstor: a magnetic drum kept in memory: 64 tracks of 4 KB, read and written at byte offsets, with erasing of
 * track ranges and a count of the traffic.
 *
 * The bug: offset and length of a read or write are added in 32 bits, so a sum that wraps passes the check of the
 * drum's end.
 *
 * Device: none
 * Rule: bad-pointer
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define TRACK_BYTES 4096
#define TRACKS      64
#define DRUM_BYTES  (TRACK_BYTES * TRACKS)

#define IOCTL_DRUM_GEOMETRY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DRUM_ERASE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DRUM_TRAFFIC  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct DRUM_GEOMETRY { ULONG TrackBytes, Tracks; } DRUM_GEOMETRY;
typedef struct DRUM_RANGE { ULONG First, Count; } DRUM_RANGE;
typedef struct DRUM_TRAFFIC { ULONGLONG Reads, Writes, BytesRead, BytesWritten; } DRUM_TRAFFIC;

typedef struct DRUM {
    PUCHAR Surface;             /* paged */
    FAST_MUTEX Head;            /* guards the surface and the traffic */
    DRUM_TRAFFIC Traffic;
} DRUM;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DrumStor");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DrumStor");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, status == STATUS_SUCCESS ? IO_DISK_INCREMENT : IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI DrumCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DrumReadWrite(PDEVICE_OBJECT dev, PIRP irp)
{
    DRUM *drum = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    BOOLEAN writing = sp->MajorFunction == IRP_MJ_WRITE;
    ULONG length = writing ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
    LARGE_INTEGER where = writing ? sp->Parameters.Write.ByteOffset : sp->Parameters.Read.ByteOffset;
    ULONG offset = where.LowPart;
    PUCHAR data;

    if (length == 0)
        return Finish(irp, STATUS_SUCCESS, 0);
    if (where.HighPart != 0)
        return Finish(irp, STATUS_END_OF_FILE, 0);
#ifdef FIXED
    if (offset > DRUM_BYTES || length > DRUM_BYTES - offset)
#else
    if (offset + length > DRUM_BYTES)
#endif
        return Finish(irp, STATUS_END_OF_FILE, 0);
    data = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
    if (!data)
        return Finish(irp, STATUS_INSUFFICIENT_RESOURCES, 0);

    ExAcquireFastMutex(&drum->Head);
    if (writing) {
        RtlCopyMemory(drum->Surface + offset, data, length);
        drum->Traffic.Writes++;
        drum->Traffic.BytesWritten += length;
    } else {
        RtlCopyMemory(data, drum->Surface + offset, length);
        drum->Traffic.Reads++;
        drum->Traffic.BytesRead += length;
    }
    ExReleaseFastMutex(&drum->Head);
    return Finish(irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI DrumControl(PDEVICE_OBJECT dev, PIRP irp)
{
    DRUM *drum = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DRUM_GEOMETRY: {
        DRUM_GEOMETRY *g = buffer;
        if (out < sizeof(*g))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        g->TrackBytes = TRACK_BYTES;
        g->Tracks = TRACKS;
        return Finish(irp, STATUS_SUCCESS, sizeof(*g));
    }
    case IOCTL_DRUM_ERASE: {
        DRUM_RANGE r;
        if (in < sizeof(r))
            return Finish(irp, STATUS_INVALID_PARAMETER, 0);
        r = *(DRUM_RANGE *)buffer;
        if (r.First >= TRACKS || r.Count > TRACKS - r.First)
            return Finish(irp, STATUS_INVALID_PARAMETER, 0);
        ExAcquireFastMutex(&drum->Head);
        RtlFillMemory(drum->Surface + r.First * TRACK_BYTES, r.Count * TRACK_BYTES, 0xE5);
        ExReleaseFastMutex(&drum->Head);
        return Finish(irp, STATUS_SUCCESS, 0);
    }
    case IOCTL_DRUM_TRAFFIC:
        if (out < sizeof(DRUM_TRAFFIC))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&drum->Head);
        *(DRUM_TRAFFIC *)buffer = drum->Traffic;
        ExReleaseFastMutex(&drum->Head);
        return Finish(irp, STATUS_SUCCESS, sizeof(DRUM_TRAFFIC));
    default:
        return Finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI DrumUnload(PDRIVER_OBJECT drv)
{
    DRUM *drum = drv->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&LinkName);
    ExFreePoolWithTag(drum->Surface, 'murD');
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    DRUM *drum;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(drv, sizeof(DRUM), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    drum = dev->DeviceExtension;
    RtlZeroMemory(drum, sizeof(*drum));
    ExInitializeFastMutex(&drum->Head);
    drum->Surface = ExAllocatePoolWithTag(PagedPool, DRUM_BYTES, 'murD');
    if (!drum->Surface) {
        IoDeleteDevice(dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(drum->Surface, DRUM_BYTES);
    drv->MajorFunction[IRP_MJ_CREATE] = DrumCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = DrumCreateClose;
    drv->MajorFunction[IRP_MJ_READ] = DrumReadWrite;
    drv->MajorFunction[IRP_MJ_WRITE] = DrumReadWrite;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DrumControl;
    drv->DriverUnload = DrumUnload;
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(drum->Surface, 'murD');
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags |= DO_DIRECT_IO;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
