/*
 * cabinet: numbered drawers of 256 bytes which programs share. A handle attaches itself to a drawer (as often as it likes, as a
 * library may do it for each of its users), reads and writes it and detaches as often; a drawer lives while it has users.
 *
 * The bug: the drawer's number of users is counted in a byte. The 257th user makes it 1, and the next detach frees the drawer under
 * all the others.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_CABINET_ATTACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* input: a number */
#define IOCTL_CABINET_DETACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* no input */

#define TAG 'nibC'
#define DRAWER_SIZE 256
#define MAX_DRAWERS 1024

typedef struct _DRAWER {
    LIST_ENTRY Entry;
    ULONG Number;
    ULONG Length;                           /* bytes used */
#ifdef FIXED
    LONG64 Users;
#else
    UCHAR Users;
#endif
    UCHAR Data[DRAWER_SIZE];
} DRAWER, *PDRAWER;

typedef struct _HANDLE_STATE {
    PDRAWER Drawer;                         /* both under the guard */
    ULONG Times;
} HANDLE_STATE, *PHANDLE_STATE;

typedef struct _CABINET {
    KSPIN_LOCK Guard;                       /* guards the list, the drawers and all handles' states */
    LIST_ENTRY Drawers;
    ULONG Count;
} CABINET, *PCABINET;

static const WCHAR DeviceText[] = L"\\Device\\Cabinet";
static const WCHAR LinkText[] = L"\\DosDevices\\Cabinet";

static NTSTATUS CabinetEnd(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static PDRAWER CabinetFind(PCABINET c, ULONG number)
{
    PLIST_ENTRY e;

    for (e = c->Drawers.Flink; e != &c->Drawers; e = e->Flink) {
        PDRAWER d = CONTAINING_RECORD(e, DRAWER, Entry);

        if (d->Number == number)
            return d;
    }
    return NULL;
}

static NTSTATUS CabinetAttach(PCABINET c, PHANDLE_STATE h, ULONG number)
{
    NTSTATUS status = STATUS_SUCCESS;
    PDRAWER fresh, d;
    KIRQL irql;

    fresh = ExAllocatePoolWithTag(NonPagedPool, sizeof *fresh, TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(fresh, sizeof *fresh);
    fresh->Number = number;

    KeAcquireSpinLock(&c->Guard, &irql);
    d = CabinetFind(c, number);
    if (h->Drawer && h->Drawer != d) {
        status = STATUS_INVALID_DEVICE_STATE;               /* one drawer at a time */
    } else if (h->Times == MAXULONG || (d == NULL && c->Count >= MAX_DRAWERS)) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        if (d == NULL) {
            d = fresh;
            fresh = NULL;
            InsertTailList(&c->Drawers, &d->Entry);
            c->Count++;
        }
        d->Users++;
        h->Drawer = d;
        h->Times++;
    }
    KeReleaseSpinLock(&c->Guard, irql);
    if (fresh)
        ExFreePoolWithTag(fresh, TAG);
    return status;
}

/* Once, or as often as it was attached. */
static NTSTATUS CabinetDetach(PCABINET c, PHANDLE_STATE h, BOOLEAN all)
{
    NTSTATUS status = STATUS_SUCCESS;
    PDRAWER dead = NULL, d;
    ULONG times;
    KIRQL irql;

    KeAcquireSpinLock(&c->Guard, &irql);
    d = h->Drawer;
    if (d == NULL) {
        status = STATUS_INVALID_DEVICE_STATE;
    } else {
        times = all ? h->Times : 1;
        h->Times -= times;
        if (h->Times == 0)
            h->Drawer = NULL;
        d->Users -= times;
        if (d->Users == 0) {
            RemoveEntryList(&d->Entry);
            c->Count--;
            dead = d;
        }
    }
    KeReleaseSpinLock(&c->Guard, irql);
    if (dead)
        ExFreePoolWithTag(dead, TAG);
    return status;
}

static NTSTATUS NTAPI CabinetCreate(PDEVICE_OBJECT dev, PIRP irp)
{
    PHANDLE_STATE h = ExAllocatePoolWithTag(NonPagedPool, sizeof *h, TAG);

    UNREFERENCED_PARAMETER(dev);
    if (h == NULL)
        return CabinetEnd(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(h, sizeof *h);
    IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext = h;
    return CabinetEnd(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI CabinetCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return CabinetEnd(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI CabinetClose(PDEVICE_OBJECT dev, PIRP irp)            /* no other request of the handle is left */
{
    PHANDLE_STATE h = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;

    CabinetDetach(dev->DeviceExtension, h, TRUE);
    ExFreePoolWithTag(h, TAG);
    return CabinetEnd(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI CabinetRead(PDEVICE_OBJECT dev, PIRP irp)
{
    PCABINET c = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PHANDLE_STATE h = sp->FileObject->FsContext;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG length = 0;
    KIRQL irql;

    KeAcquireSpinLock(&c->Guard, &irql);
    if (h->Drawer == NULL) {
        status = STATUS_INVALID_DEVICE_STATE;
    } else {
        length = min(sp->Parameters.Read.Length, h->Drawer->Length);
        if (length)
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, h->Drawer->Data, length);
    }
    KeReleaseSpinLock(&c->Guard, irql);
    return CabinetEnd(irp, status, length);
}

static NTSTATUS NTAPI CabinetWrite(PDEVICE_OBJECT dev, PIRP irp)
{
    PCABINET c = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PHANDLE_STATE h = sp->FileObject->FsContext;
    ULONG length = sp->Parameters.Write.Length;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (length > DRAWER_SIZE)
        return CabinetEnd(irp, STATUS_INVALID_BUFFER_SIZE, 0);
    KeAcquireSpinLock(&c->Guard, &irql);
    if (h->Drawer == NULL) {
        status = STATUS_INVALID_DEVICE_STATE;
        length = 0;
    } else {
        if (length)
            RtlCopyMemory(h->Drawer->Data, irp->AssociatedIrp.SystemBuffer, length);
        h->Drawer->Length = length;
    }
    KeReleaseSpinLock(&c->Guard, irql);
    return CabinetEnd(irp, status, length);
}

static NTSTATUS NTAPI CabinetControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PHANDLE_STATE h = sp->FileObject->FsContext;
    NTSTATUS status;
    ULONG number;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CABINET_ATTACH:
        if (sp->Parameters.DeviceIoControl.InputBufferLength != sizeof number) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        RtlCopyMemory(&number, irp->AssociatedIrp.SystemBuffer, sizeof number);
        status = CabinetAttach(dev->DeviceExtension, h, number);
        break;
    case IOCTL_CABINET_DETACH:
        status = CabinetDetach(dev->DeviceExtension, h, FALSE);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return CabinetEnd(irp, status, 0);
}

static VOID NTAPI CabinetUnload(PDRIVER_OBJECT drv)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, LinkText);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(drv->DeviceObject);                      /* no handles, so no drawers */
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    PCABINET c;

    UNREFERENCED_PARAMETER(path);
    RtlInitUnicodeString(&name, DeviceText);
    RtlInitUnicodeString(&link, LinkText);
    status = IoCreateDevice(drv, sizeof(CABINET), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    c = dev->DeviceExtension;
    KeInitializeSpinLock(&c->Guard);
    InitializeListHead(&c->Drawers);
    c->Count = 0;
    drv->MajorFunction[IRP_MJ_CREATE] = CabinetCreate;
    drv->MajorFunction[IRP_MJ_CLEANUP] = CabinetCleanup;
    drv->MajorFunction[IRP_MJ_CLOSE] = CabinetClose;
    drv->MajorFunction[IRP_MJ_READ] = CabinetRead;
    drv->MajorFunction[IRP_MJ_WRITE] = CabinetWrite;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CabinetControl;
    drv->DriverUnload = CabinetUnload;
    dev->Flags |= DO_BUFFERED_IO;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
