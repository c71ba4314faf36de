/*
 * regionbx - numbered memory regions for cooperating programs.
 *
 * Every open of \\.\RegionBox has up to eight regions of its own.  A region is
 * made with a size and answers with its number; a program lays a view
 * (offset, length) on it, and STORE and FETCH move bytes through the view.
 * A region can be resized while it exists; what it held stays, as far as it
 * fits.
 *
 * All requests are METHOD_BUFFERED.  Every input begins with BOX_REQ.
 *
 * The bug: a view that begins within the new size of a region and ends beyond it stays.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define BOX_TAG      'xoBR'
#define MAX_REGIONS  8
#define MAX_BYTES    (64 * 1024)

#define BOX_CTL(n) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BOX_MAKE    BOX_CTL(0)    /* A = size; out: ULONG number */
#define IOCTL_BOX_RESIZE  BOX_CTL(1)    /* Number, A = new size */
#define IOCTL_BOX_VIEW    BOX_CTL(2)    /* Number, A = offset, B = length */
#define IOCTL_BOX_STORE   BOX_CTL(3)    /* Number; bytes behind BOX_REQ go to the start of the view */
#define IOCTL_BOX_FETCH   BOX_CTL(4)    /* Number; out: bytes from the start of the view */
#define IOCTL_BOX_DROP    BOX_CTL(5)    /* Number */

typedef struct _BOX_REQ {
    ULONG Number;
    ULONG A;
    ULONG B;
} BOX_REQ, *PBOX_REQ;

typedef struct _REGION {
    PUCHAR Bytes;       /* NULL: no such region */
    ULONG  Size;
    ULONG  ViewAt;      /* view: ViewAt + ViewLength <= Size */
    ULONG  ViewLength;  /* 0: no view */
} REGION, *PREGION;

/* FsContext of an open. */
typedef struct _BOX_OPEN {
    FAST_MUTEX Lock;
    REGION     Region[MAX_REGIONS];
} BOX_OPEN, *PBOX_OPEN;

static NTSTATUS BoxDone(PIRP Irp, NTSTATUS Status, ULONG_PTR Bytes)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Bytes;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS BoxMake(PBOX_OPEN o, ULONG size, PULONG number)
{
    ULONG i;

    if (size == 0 || size > MAX_BYTES)
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < MAX_REGIONS && o->Region[i].Bytes != NULL; i++)
        ;
    if (i == MAX_REGIONS)
        return STATUS_TOO_MANY_NAMES;

    o->Region[i].Bytes = ExAllocatePoolWithTag(PagedPool, size, BOX_TAG);
    if (o->Region[i].Bytes == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(o->Region[i].Bytes, size);
    o->Region[i].Size = size;
    o->Region[i].ViewAt = 0;
    o->Region[i].ViewLength = size;
    *number = i;
    return STATUS_SUCCESS;
}

static NTSTATUS BoxResize(PREGION r, ULONG size)
{
    PUCHAR bytes;
    ULONG keep;

    if (size == 0 || size > MAX_BYTES)
        return STATUS_INVALID_PARAMETER;
    if (size == r->Size)
        return STATUS_SUCCESS;

    bytes = ExAllocatePoolWithTag(PagedPool, size, BOX_TAG);
    if (bytes == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;

    keep = size < r->Size ? size : r->Size;
    RtlCopyMemory(bytes, r->Bytes, keep);
    RtlZeroMemory(bytes + keep, size - keep);
    ExFreePoolWithTag(r->Bytes, BOX_TAG);
    r->Bytes = bytes;
    r->Size = size;

    /* A view that lies outside now is taken away. */
#ifdef FIXED
    if (r->ViewAt >= size || r->ViewLength > size - r->ViewAt) {
#else
    if (r->ViewAt >= size) {
#endif
        r->ViewAt = 0;
        r->ViewLength = 0;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS BoxView(PREGION r, ULONG at, ULONG length)
{
    if (at > r->Size || length > r->Size - at)
        return STATUS_INVALID_PARAMETER;
    r->ViewAt = at;
    r->ViewLength = length;
    return STATUS_SUCCESS;
}

static NTSTATUS BoxControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLen = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLen = sl->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = sl->Parameters.DeviceIoControl.IoControlCode;
    PUCHAR buf = Irp->AssociatedIrp.SystemBuffer;
    PBOX_OPEN o;
    PREGION r = NULL;
    BOX_REQ req;
    NTSTATUS status;
    ULONG n = 0;

    UNREFERENCED_PARAMETER(Device);
    if (sl->FileObject == NULL || sl->FileObject->FsContext == NULL)
        return BoxDone(Irp, STATUS_INVALID_HANDLE, 0);
    o = sl->FileObject->FsContext;
    if (inLen < sizeof(req))
        return BoxDone(Irp, STATUS_INFO_LENGTH_MISMATCH, 0);
    RtlCopyMemory(&req, buf, sizeof(req));

    ExAcquireFastMutex(&o->Lock);
    if (code != IOCTL_BOX_MAKE) {
        if (req.Number >= MAX_REGIONS || o->Region[req.Number].Bytes == NULL) {
            ExReleaseFastMutex(&o->Lock);
            return BoxDone(Irp, STATUS_NOT_FOUND, 0);
        }
        r = &o->Region[req.Number];
    }

    switch (code) {
    case IOCTL_BOX_MAKE:
        if (outLen < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = BoxMake(o, req.A, &n);
        if (NT_SUCCESS(status)) {
            RtlCopyMemory(buf, &n, sizeof(ULONG));
            n = sizeof(ULONG);
        } else {
            n = 0;
        }
        break;

    case IOCTL_BOX_RESIZE:
        status = BoxResize(r, req.A);
        break;

    case IOCTL_BOX_VIEW:
        status = BoxView(r, req.A, req.B);
        break;

    case IOCTL_BOX_STORE:
        n = inLen - sizeof(req);
        if (n > r->ViewLength) {
            n = 0;
            status = STATUS_INVALID_BUFFER_SIZE;
            break;
        }
        RtlCopyMemory(r->Bytes + r->ViewAt, buf + sizeof(req), n);
        n = 0;
        status = STATUS_SUCCESS;
        break;

    case IOCTL_BOX_FETCH:
        n = outLen < r->ViewLength ? outLen : r->ViewLength;
        RtlCopyMemory(buf, r->Bytes + r->ViewAt, n);
        status = STATUS_SUCCESS;
        break;

    case IOCTL_BOX_DROP:
        ExFreePoolWithTag(r->Bytes, BOX_TAG);
        RtlZeroMemory(r, sizeof(*r));
        status = STATUS_SUCCESS;
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&o->Lock);
    return BoxDone(Irp, status, n);
}

static NTSTATUS BoxCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PBOX_OPEN o;

    UNREFERENCED_PARAMETER(Device);
    o = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*o), BOX_TAG);
    if (o == NULL)
        return BoxDone(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(o, sizeof(*o));
    ExInitializeFastMutex(&o->Lock);
    sl->FileObject->FsContext = o;
    return BoxDone(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS BoxCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return BoxDone(Irp, STATUS_SUCCESS, 0);
}

/* Every request of the open has finished. */
static NTSTATUS BoxClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT fo = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PBOX_OPEN o = fo->FsContext;
    ULONG i;

    UNREFERENCED_PARAMETER(Device);
    if (o != NULL) {
        for (i = 0; i < MAX_REGIONS; i++)
            if (o->Region[i].Bytes != NULL)
                ExFreePoolWithTag(o->Region[i].Bytes, BOX_TAG);
        ExFreePoolWithTag(o, BOX_TAG);
        fo->FsContext = NULL;
    }
    return BoxDone(Irp, STATUS_SUCCESS, 0);
}

static VOID BoxUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\RegionBox");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\RegionBox");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\RegionBox");
    PDEVICE_OBJECT dev;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = BoxCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BoxCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BoxClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BoxControl;
    Driver->DriverUnload = BoxUnload;

    status = IoCreateDevice(Driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
