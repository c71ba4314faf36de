/*
 * opentrak: a filter for a support team: keeps a list of who has the device below open, since when,
 * and how many requests each has sent. A private control code, answered here, reads the list; all
 * else goes down.
 *
 * The bug: a handle is put into the list before IRP_MJ_CREATE is sent down, and stays in it when the
 * device below refuses to be opened: nothing closes such a handle.
 *
 * Device: ROOT\OPENTRAK
 * Rule: pool-leak
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#include "../include/entered_gate.h"

#define IOCTL_TRAK_LIST CTL_CODE(0x8F21u, 0xA10, METHOD_BUFFERED, FILE_READ_ACCESS)

#define TRAK_TAG 'krTK'

typedef struct _TRAK_ENTRY { /* LIST */
    ULONG64 Process;
    LONG64 Since;
    ULONG64 Requests;
} TRAK_ENTRY;

typedef struct _NODE {
    LIST_ENTRY Link;
    PFILE_OBJECT File;
    TRAK_ENTRY Entry;
} NODE, *PNODE;

typedef struct _TRAK_EXT {
    PDEVICE_OBJECT Self, Lower;
    IO_REMOVE_LOCK Remove;
    LONG SpecialFiles; /* paging, dump and hibernation files; PnP requests only */
    KSPIN_LOCK Lock; /* what follows */
    LIST_ENTRY Opens;
} TRAK_EXT, *PTRAK_EXT;

HANDLE NTAPI PsGetCurrentProcessId(VOID);

/* With the lock held */
static PNODE TrakFind(PTRAK_EXT x, PFILE_OBJECT File)
{
    PLIST_ENTRY l;
    for (l = x->Opens.Flink; l != &x->Opens; l = l->Flink) {
        PNODE node = CONTAINING_RECORD(l, NODE, Link);
        if (node->File == File)
            return node;
    }
    return NULL;
}

static VOID TrakForget(PTRAK_EXT x, PFILE_OBJECT File)
{
    PNODE node;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    node = TrakFind(x, File);
    if (node)
        RemoveEntryList(&node->Link);
    KeReleaseSpinLock(&x->Lock, irql);
    if (node)
        ExFreePoolWithTag(node, TRAK_TAG);
}

static NTSTATUS NTAPI TrakBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    FR_UNUSED(Device);
    if (Irp->PendingReturned)
        KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* At PASSIVE_LEVEL; the IRP is the filter's again when it returns. */
static NTSTATUS TrakDownAndBack(PTRAK_EXT x, PIRP Irp)
{
    NTSTATUS status;
    KEVENT event;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, TrakBack, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(x->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

/* Completes a request that came back, with what it came back with. */
static NTSTATUS TrakFinish(PTRAK_EXT x, PIRP Irp, NTSTATUS Status)
{
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->Remove, Irp);
    return Status;
}

static NTSTATUS TrakRefuse(PTRAK_EXT x, PIRP Irp, NTSTATUS Status)
{
    FrComplete(Irp, Status, 0);
    IoReleaseRemoveLock(&x->Remove, Irp);
    return Status;
}

static NTSTATUS TrakDown(PTRAK_EXT x, PIRP Irp)
{
    NTSTATUS status;
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->Remove, Irp);
    return status;
}

static NTSTATUS TrakList(PTRAK_EXT x, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    TRAK_ENTRY *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG room = s->Parameters.DeviceIoControl.OutputBufferLength / sizeof(TRAK_ENTRY), n = 0;
    PLIST_ENTRY l;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    for (l = x->Opens.Flink; l != &x->Opens && n < room; l = l->Flink)
        out[n++] = CONTAINING_RECORD(l, NODE, Link)->Entry;
    KeReleaseSpinLock(&x->Lock, irql);
    FrComplete(Irp, STATUS_SUCCESS, n * sizeof(TRAK_ENTRY));
    IoReleaseRemoveLock(&x->Remove, Irp);
    return STATUS_SUCCESS;
}

static NTSTATUS TrakCreate(PTRAK_EXT x, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LARGE_INTEGER now;
    NTSTATUS status;
    PNODE node;
    KIRQL irql;

    node = ExAllocatePoolWithTag(NonPagedPool, sizeof(NODE), TRAK_TAG);
    if (!node)
        return TrakRefuse(x, Irp, STATUS_INSUFFICIENT_RESOURCES);
    KeQuerySystemTime(&now);
    node->File = file;
    node->Entry.Process = (ULONG_PTR)PsGetCurrentProcessId();
    node->Entry.Since = now.QuadPart;
    node->Entry.Requests = 0;
    KeAcquireSpinLock(&x->Lock, &irql);
    InsertTailList(&x->Opens, &node->Link);
    KeReleaseSpinLock(&x->Lock, irql);
    status = TrakDownAndBack(x, Irp);
#ifdef FIXED
    if (!NT_SUCCESS(status))
        TrakForget(x, file);
#endif
    return TrakFinish(x, Irp, status);
}

static NTSTATUS NTAPI TrakDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRAK_EXT x = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&x->Remove, Irp);
    PNODE node;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return FrComplete(Irp, status, 0);
    switch (s->MajorFunction) {
    case IRP_MJ_CREATE:
        return TrakCreate(x, Irp);
    case IRP_MJ_CLOSE:
        TrakForget(x, s->FileObject);
        break;
    case IRP_MJ_DEVICE_CONTROL:
        if (s->Parameters.DeviceIoControl.IoControlCode == IOCTL_TRAK_LIST)
            return TrakList(x, Irp);
        /* fall through */
    case IRP_MJ_READ:
    case IRP_MJ_WRITE:
        KeAcquireSpinLock(&x->Lock, &irql);
        node = TrakFind(x, s->FileObject);
        if (node)
            node->Entry.Requests++;
        KeReleaseSpinLock(&x->Lock, irql);
        break;
    default:
        break;
    }
    return TrakDown(x, Irp);
}

static NTSTATUS NTAPI TrakPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRAK_EXT x = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&x->Remove, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status))
        return FrComplete(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->Remove, Irp);
    return status;
}

static NTSTATUS TrakUsage(PTRAK_EXT x, PIRP Irp)
{
    BOOLEAN in = IoGetCurrentIrpStackLocation(Irp)->Parameters.UsageNotification.InPath;
    NTSTATUS status = TrakDownAndBack(x, Irp);

    if (NT_SUCCESS(status)) {
        x->SpecialFiles += in ? 1 : -1;
        if (x->SpecialFiles > 0)
            x->Self->Flags &= ~DO_POWER_PAGABLE;
        else if (x->Lower->Flags & DO_POWER_PAGABLE)
            x->Self->Flags |= DO_POWER_PAGABLE;
    }
    return TrakFinish(x, Irp, status);
}

static NTSTATUS NTAPI TrakPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRAK_EXT x = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&x->Remove, Irp);

    if (!NT_SUCCESS(status))
        return FrComplete(Irp, status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = TrakDownAndBack(x, Irp);
        if (NT_SUCCESS(status) && (x->Lower->Characteristics & FILE_REMOVABLE_MEDIA))
            x->Self->Characteristics |= FILE_REMOVABLE_MEDIA;
        return TrakFinish(x, Irp, status);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (x->SpecialFiles > 0)
            return TrakRefuse(x, Irp, STATUS_DEVICE_BUSY);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return TrakDown(x, Irp);
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return TrakDown(x, Irp);
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        return TrakUsage(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoReleaseRemoveLockAndWait(&x->Remove, Irp);
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(x->Lower, Irp);
        IoDetachDevice(x->Lower);
        IoDeleteDevice(Device);
        return status;
    default:
        return TrakDown(x, Irp);
    }
}

static NTSTATUS NTAPI TrakAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PTRAK_EXT x;
    NTSTATUS status = IoCreateDevice(Driver, sizeof(TRAK_EXT), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);

    if (!NT_SUCCESS(status))
        return status;
    x = device->DeviceExtension;
    x->Self = device;
    IoInitializeRemoveLock(&x->Remove, TRAK_TAG, 0, 0);
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Opens);
    x->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!x->Lower) {
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->DeviceType = x->Lower->DeviceType;
    device->Characteristics |= x->Lower->Characteristics;
    device->Flags |= x->Lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE | DO_POWER_INRUSH);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI TrakUnload(PDRIVER_OBJECT Driver)
{
    FR_UNUSED(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    ULONG i;

    FR_UNUSED(RegistryPath);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++)
        Driver->MajorFunction[i] = TrakDispatch;
    Driver->MajorFunction[IRP_MJ_PNP] = TrakPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = TrakPower;
    Driver->DriverExtension->AddDevice = TrakAddDevice;
    Driver->DriverUnload = TrakUnload;
    return STATUS_SUCCESS;
}
