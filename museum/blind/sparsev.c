/*
 * sparsev: a sparse volume in memory for an installer's tests: 1 MiB, of which only the blocks that were written take memory.
 *
 * The bug: reading a block that has never been written leaves that part of the system buffer as it came from the pool and still
 * counts it as read, so that old kernel memory goes to the user.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define SV_TAG     'vpsS'
#define SV_BLOCK   2048u
#define SV_BLOCKS  512u
#define SV_SIZE    ((LONGLONG)SV_BLOCK * SV_BLOCKS)
#define SV_MOST    256u                     /* blocks that may be in memory at once */

#define IOCTL_SV_INFO    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SV_DISCARD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SV_SEALED  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _SV_INFO {
    ULONG BlockSize, Blocks, Used, Sealed;
} SV_INFO, *PSV_INFO;

typedef struct _SV_RANGE {
    ULONG First, Count;                     /* blocks */
} SV_RANGE, *PSV_RANGE;

typedef struct _SV_DEV {
    FAST_MUTEX Lock;
    PUCHAR Block[SV_BLOCKS];
    ULONG Used;
    BOOLEAN Sealed;                         /* no more writes */
} SV_DEV, *PSV_DEV;

static const WCHAR SvLinkName[] = L"\\DosDevices\\SparseVolume";
static const WCHAR SvDeviceName[] = L"\\Device\\SparseVolume";

static NTSTATUS SvComplete(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* How much of the request lies on the volume. */
static NTSTATUS SvClip(LONGLONG offset, ULONG length, PULONG clipped)
{
    if (offset < 0)
        return STATUS_INVALID_PARAMETER;
    if (offset >= SV_SIZE)
        return STATUS_END_OF_FILE;
    *clipped = (LONGLONG)length > SV_SIZE - offset ? (ULONG)(SV_SIZE - offset) : length;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI SvRead(PDEVICE_OBJECT dev, PIRP irp)
{
    PSV_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    LONGLONG offset = s->Parameters.Read.ByteOffset.QuadPart;
    PUCHAR to = irp->AssociatedIrp.SystemBuffer;
    ULONG left, total, at, part, block;
    NTSTATUS status;

    if (s->Parameters.Read.Length == 0)
        return SvComplete(irp, STATUS_SUCCESS, 0);
    status = SvClip(offset, s->Parameters.Read.Length, &total);
    if (!NT_SUCCESS(status))
        return SvComplete(irp, status, 0);

    ExAcquireFastMutex(&d->Lock);
    for (left = total; left != 0; left -= part, to += part, offset += part) {
        block = (ULONG)(offset / SV_BLOCK);
        at = (ULONG)(offset % SV_BLOCK);
        part = SV_BLOCK - at < left ? SV_BLOCK - at : left;
        if (d->Block[block] != NULL)
            RtlCopyMemory(to, d->Block[block] + at, part);
#ifdef FIXED
        else
            RtlZeroMemory(to, part);
#endif
    }
    ExReleaseFastMutex(&d->Lock);
    return SvComplete(irp, STATUS_SUCCESS, total);
}

static NTSTATUS NTAPI SvWrite(PDEVICE_OBJECT dev, PIRP irp)
{
    PSV_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    LONGLONG offset = s->Parameters.Write.ByteOffset.QuadPart;
    const UCHAR *from = irp->AssociatedIrp.SystemBuffer;
    ULONG left, total, at, part, block;
    NTSTATUS status;

    if (s->Parameters.Write.Length == 0)
        return SvComplete(irp, STATUS_SUCCESS, 0);
    status = SvClip(offset, s->Parameters.Write.Length, &total);
    if (!NT_SUCCESS(status))
        return SvComplete(irp, status == STATUS_END_OF_FILE ? STATUS_DISK_FULL : status, 0);

    ExAcquireFastMutex(&d->Lock);
    left = total;
    if (d->Sealed)
        status = STATUS_MEDIA_WRITE_PROTECTED;
    while (left != 0 && NT_SUCCESS(status)) {
        block = (ULONG)(offset / SV_BLOCK);
        at = (ULONG)(offset % SV_BLOCK);
        part = SV_BLOCK - at < left ? SV_BLOCK - at : left;
        if (d->Block[block] == NULL) {
            PUCHAR fresh;

            if (d->Used == SV_MOST) {
                status = STATUS_DISK_FULL;
                break;
            }
            fresh = ExAllocatePoolWithTag(PagedPool, SV_BLOCK, SV_TAG);
            if (fresh == NULL) {
                status = STATUS_INSUFFICIENT_RESOURCES;
                break;
            }
            RtlZeroMemory(fresh, SV_BLOCK);
            d->Block[block] = fresh;
            d->Used++;
        }
        RtlCopyMemory(d->Block[block] + at, from, part);
        left -= part;
        from += part;
        offset += part;
    }
    ExReleaseFastMutex(&d->Lock);
    if (left != total)                      /* what was written is written */
        status = STATUS_SUCCESS;
    return SvComplete(irp, status, NT_SUCCESS(status) ? total - left : 0);
}

static NTSTATUS SvDiscard(PSV_DEV d, const SV_RANGE *range)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG first = range->First, count = range->Count;

    if (first >= SV_BLOCKS || count > SV_BLOCKS - first)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&d->Lock);
    if (d->Sealed)
        status = STATUS_MEDIA_WRITE_PROTECTED;
    for (; NT_SUCCESS(status) && count != 0; count--, first++) {
        if (d->Block[first] != NULL) {
            ExFreePoolWithTag(d->Block[first], SV_TAG);
            d->Block[first] = NULL;
            d->Used--;
        }
    }
    ExReleaseFastMutex(&d->Lock);
    return status;
}

static NTSTATUS NTAPI SvControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PSV_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    PSV_INFO info;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SV_INFO:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SV_INFO))
            return SvComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        info = buffer;
        info->BlockSize = SV_BLOCK;
        info->Blocks = SV_BLOCKS;
        ExAcquireFastMutex(&d->Lock);
        info->Used = d->Used;
        info->Sealed = d->Sealed;
        ExReleaseFastMutex(&d->Lock);
        return SvComplete(irp, STATUS_SUCCESS, sizeof(SV_INFO));
    case IOCTL_SV_DISCARD:
        if (in < sizeof(SV_RANGE))
            return SvComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return SvComplete(irp, SvDiscard(d, buffer), 0);
    case IOCTL_SV_SEALED:
        if (in < sizeof(ULONG))
            return SvComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&d->Lock);
        d->Sealed = *(PULONG)buffer != 0;
        ExReleaseFastMutex(&d->Lock);
        return SvComplete(irp, STATUS_SUCCESS, 0);
    }
    return SvComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI SvCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return SvComplete(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI SvUnload(PDRIVER_OBJECT drv)
{
    PDEVICE_OBJECT dev = drv->DeviceObject;
    PSV_DEV d = dev->DeviceExtension;
    UNICODE_STRING link;
    ULONG i;

    RtlInitUnicodeString(&link, SvLinkName);
    IoDeleteSymbolicLink(&link);
    for (i = 0; i < SV_BLOCKS; i++) {
        if (d->Block[i] != NULL)
            ExFreePoolWithTag(d->Block[i], SV_TAG);
    }
    IoDeleteDevice(dev);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    PSV_DEV d;

    UNREFERENCED_PARAMETER(path);
    RtlInitUnicodeString(&name, SvDeviceName);
    RtlInitUnicodeString(&link, SvLinkName);
    status = IoCreateDevice(drv, sizeof(SV_DEV), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    d = dev->DeviceExtension;
    RtlZeroMemory(d, sizeof *d);
    ExInitializeFastMutex(&d->Lock);
    dev->Flags |= DO_BUFFERED_IO;
    drv->MajorFunction[IRP_MJ_CREATE] = SvCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = SvCreateClose;
    drv->MajorFunction[IRP_MJ_READ] = SvRead;
    drv->MajorFunction[IRP_MJ_WRITE] = SvWrite;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SvControl;
    drv->DriverUnload = SvUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(dev);
    return status;
}
