/*
 * scratchp - per-handle scratch pads
 *
 * Every open of \\.\ScratchPad owns a pad of bytes.  IOCTL_PAD_RESIZE gives it
 * a size, ReadFile and WriteFile work at the offset given, and IOCTL_PAD_FILL
 * sets a range to a value.  Cleanup wipes the pad, as it may hold key material.
 *
 * The bug: what belongs to a handle is freed in its cleanup, while requests still use it.
 *
 * Device: none
 * Rule: use-after-free, resource-uninitialized, resource-deleted-while-owned
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define PAD_TAG      'daPS'
#define PAD_LIMIT    (64 * 1024)

#define IOCTL_PAD_RESIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PAD_FILL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PAD_SIZE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)

struct pad_fill {
    ULONG offset;
    ULONG length;
    ULONG value;
};

struct pad {
    ERESOURCE lock;
    PUCHAR    bytes;
    ULONG     size;
};

static struct pad *pad_of(PIO_STACK_LOCATION sl)
{
    return sl->FileObject ? sl->FileObject->FsContext : NULL;
}

static NTSTATUS finish(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static void pad_lock(struct pad *p)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&p->lock, TRUE);
}

static void pad_lock_shared(struct pad *p)
{
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&p->lock, TRUE);
}

static void pad_unlock(struct pad *p)
{
    ExReleaseResourceLite(&p->lock);
    KeLeaveCriticalRegion();
}

/* Wipes and drops the contents. */
static void pad_wipe(struct pad *p)
{
    pad_lock(p);
    if (p->bytes) {
        RtlZeroMemory(p->bytes, p->size);
        ExFreePoolWithTag(p->bytes, PAD_TAG);
        p->bytes = NULL;
        p->size = 0;
    }
    pad_unlock(p);
}

static void pad_destroy(struct pad *p)
{
    pad_wipe(p);
    ExDeleteResourceLite(&p->lock);
    ExFreePoolWithTag(p, PAD_TAG);
}

static NTSTATUS NTAPI pad_create(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    struct pad *p;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(dev);

    if (!sl->FileObject)
        return finish(irp, STATUS_INVALID_PARAMETER, 0);

    p = ExAllocatePoolWithTag(NonPagedPool, sizeof(*p), PAD_TAG);
    if (!p)
        return finish(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(p, sizeof(*p));
    status = ExInitializeResourceLite(&p->lock);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(p, PAD_TAG);
        return finish(irp, status, 0);
    }
    sl->FileObject->FsContext = p;
    return finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI pad_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    struct pad *p = pad_of(sl);

    UNREFERENCED_PARAMETER(dev);
    if (p) {
#ifdef FIXED
        pad_wipe(p);
#else
        sl->FileObject->FsContext = NULL;
        pad_destroy(p);
#endif
    }
    return finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI pad_close(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    struct pad *p = pad_of(sl);

    UNREFERENCED_PARAMETER(dev);
    if (p) {
        sl->FileObject->FsContext = NULL;
        pad_destroy(p);
    }
    return finish(irp, STATUS_SUCCESS, 0);
}

/* METHOD_DIRECT style reads and writes: the MDL describes the caller's buffer. */
static NTSTATUS NTAPI pad_read_write(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    BOOLEAN writing = sl->MajorFunction == IRP_MJ_WRITE;
    ULONG length = writing ? sl->Parameters.Write.Length : sl->Parameters.Read.Length;
    LONGLONG offset = writing ? sl->Parameters.Write.ByteOffset.QuadPart
                              : sl->Parameters.Read.ByteOffset.QuadPart;
    struct pad *p = pad_of(sl);
    NTSTATUS status = STATUS_SUCCESS;
    PUCHAR user;
    ULONG done = 0;

    UNREFERENCED_PARAMETER(dev);

    if (!p)
        return finish(irp, STATUS_FILE_CLOSED, 0);
    if (length == 0)
        return finish(irp, STATUS_SUCCESS, 0);
    if (offset < 0 || offset > PAD_LIMIT)
        return finish(irp, STATUS_INVALID_PARAMETER, 0);
    user = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
    if (!user)
        return finish(irp, STATUS_INSUFFICIENT_RESOURCES, 0);

    if (writing)
        pad_lock(p);
    else
        pad_lock_shared(p);

    if ((ULONG)offset >= p->size) {
        status = writing ? STATUS_DISK_FULL : STATUS_END_OF_FILE;
    } else {
        done = p->size - (ULONG)offset;
        if (done > length)
            done = length;
        if (writing)
            RtlCopyMemory(p->bytes + offset, user, done);
        else
            RtlCopyMemory(user, p->bytes + offset, done);
    }
    pad_unlock(p);
    return finish(irp, status, done);
}

static NTSTATUS pad_resize(struct pad *p, ULONG size)
{
    PUCHAR fresh = NULL, old;
    ULONG oldsize;

    if (size > PAD_LIMIT)
        return STATUS_INVALID_PARAMETER;
    if (size) {
        fresh = ExAllocatePoolWithTag(PagedPool, size, PAD_TAG);
        if (!fresh)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlZeroMemory(fresh, size);
    }

    pad_lock(p);
    old = p->bytes;
    oldsize = p->size;
    if (old && fresh)
        RtlCopyMemory(fresh, old, oldsize < size ? oldsize : size);
    p->bytes = fresh;
    p->size = size;
    pad_unlock(p);

    if (old) {
        RtlZeroMemory(old, oldsize);
        ExFreePoolWithTag(old, PAD_TAG);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS pad_fill(struct pad *p, const struct pad_fill *f)
{
    NTSTATUS status = STATUS_SUCCESS;

    pad_lock(p);
    if (f->offset > p->size || f->length > p->size - f->offset)
        status = STATUS_INVALID_PARAMETER;
    else if (f->length)
        RtlFillMemory(p->bytes + f->offset, f->length, (UCHAR)f->value);
    pad_unlock(p);
    return status;
}

static NTSTATUS NTAPI pad_control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    ULONG inlen = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outlen = sl->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    struct pad *p = pad_of(sl);

    UNREFERENCED_PARAMETER(dev);
    if (!p)
        return finish(irp, STATUS_FILE_CLOSED, 0);

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PAD_RESIZE:
        if (inlen < sizeof(ULONG))
            return finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return finish(irp, pad_resize(p, *(PULONG)buffer), 0);
    case IOCTL_PAD_FILL:
        if (inlen < sizeof(struct pad_fill))
            return finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return finish(irp, pad_fill(p, buffer), 0);
    case IOCTL_PAD_SIZE:
        if (outlen < sizeof(ULONG))
            return finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        pad_lock_shared(p);
        *(PULONG)buffer = p->size;
        pad_unlock(p);
        return finish(irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static UNICODE_STRING pad_device = RTL_CONSTANT_STRING(L"\\Device\\ScratchPad");
static UNICODE_STRING pad_link = RTL_CONSTANT_STRING(L"\\DosDevices\\ScratchPad");

static VOID NTAPI pad_unload(PDRIVER_OBJECT driver)
{
    IoDeleteSymbolicLink(&pad_link);
    IoDeleteDevice(driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registry)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(registry);

    status = IoCreateDevice(driver, 0, &pad_device, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    dev->Flags |= DO_DIRECT_IO;

    driver->MajorFunction[IRP_MJ_CREATE] = pad_create;
    driver->MajorFunction[IRP_MJ_CLEANUP] = pad_cleanup;
    driver->MajorFunction[IRP_MJ_CLOSE] = pad_close;
    driver->MajorFunction[IRP_MJ_READ] = pad_read_write;
    driver->MajorFunction[IRP_MJ_WRITE] = pad_read_write;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = pad_control;
    driver->DriverUnload = pad_unload;

    status = IoCreateSymbolicLink(&pad_link, &pad_device);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(dev);
    return status;
}
