/*
 * waitbell - a bell that programs can wait for
 *
 * IOCTL_BELL_WAIT stays pending until it is rung (IOCTL_BELL_RING) and
 * then returns the number of the ring.  Any number of waits may be
 * outstanding; a ring wakes all of them.
 *
 * The bug: nothing looks whether the request was cancelled before its cancel routine was set.
 *
 * Device: ROOT\WAITBELL
 * Rule: cancellation-missed, irp-never-completed
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_BELL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BELL_RING  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID bell_guid =
    { 0xc8e67d11, 0x0b9e, 0x4d3b, { 0x9c, 0x2a, 0x4e, 0x90, 0x6a, 0x1f, 0x83, 0x5b } };

struct bell {
    PDEVICE_OBJECT  self;
    PDEVICE_OBJECT  next;
    UNICODE_STRING  ifname;

    /* requests and pending IRPs that use this device; biased by one until removal */
    LONG            users;
    LONG            removed;
    KEVENT          idle;

    KSPIN_LOCK      lock;
    BOOLEAN         open_for_waits;     /* lock */
    LIST_ENTRY      waiters;            /* lock */
    ULONG           rings;              /* lock */
};

/* --- use count ---------------------------------------------------------- */

static void bell_put(struct bell *b)
{
    if (InterlockedDecrement(&b->users) == 0)
        KeSetEvent(&b->idle, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN bell_get(struct bell *b)
{
    InterlockedIncrement(&b->users);
    if (b->removed) {
        bell_put(b);
        return FALSE;
    }
    return TRUE;
}

static NTSTATUS bell_finish(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* --- waiters ------------------------------------------------------------ */

static VOID NTAPI bell_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    struct bell *b = dev->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);

    KeAcquireSpinLock(&b->lock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&b->lock, irql);

    bell_finish(irp, STATUS_CANCELLED, 0);
    bell_put(b);
}

/* Takes a use count over if it returns STATUS_PENDING. */
static NTSTATUS bell_wait(struct bell *b, PIRP irp)
{
    NTSTATUS status = STATUS_PENDING;
    KIRQL irql;

    KeAcquireSpinLock(&b->lock, &irql);
    if (!b->open_for_waits) {
        status = STATUS_DEVICE_NOT_READY;
    } else {
        IoSetCancelRoutine(irp, bell_cancel);
#ifdef FIXED
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL)
            status = STATUS_CANCELLED;
        else
#endif
        {
            IoMarkIrpPending(irp);
            InsertTailList(&b->waiters, &irp->Tail.Overlay.ListEntry);
        }
    }
    KeReleaseSpinLock(&b->lock, irql);
    return status;
}

/*
 * Moves the waiters (of one file, or all) to a private list.  Those that are
 * being cancelled right now are left to their cancel routine.
 */
static void bell_collect(struct bell *b, PFILE_OBJECT file, PLIST_ENTRY out)
{
    PLIST_ENTRY e, n;

    InitializeListHead(out);
    for (e = b->waiters.Flink; e != &b->waiters; e = n) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        n = e->Flink;
        if (file && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
            continue;
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;
        RemoveEntryList(e);
        InsertTailList(out, e);
    }
}

static void bell_complete_all(struct bell *b, PLIST_ENTRY list, NTSTATUS status, ULONG ring)
{
    while (!IsListEmpty(list)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(list), IRP, Tail.Overlay.ListEntry);

        if (NT_SUCCESS(status))
            *(PULONG)irp->AssociatedIrp.SystemBuffer = ring;
        bell_finish(irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);
        bell_put(b);
    }
}

static void bell_ring(struct bell *b)
{
    LIST_ENTRY list;
    ULONG ring;
    KIRQL irql;

    KeAcquireSpinLock(&b->lock, &irql);
    ring = ++b->rings;
    bell_collect(b, NULL, &list);
    KeReleaseSpinLock(&b->lock, irql);
    bell_complete_all(b, &list, STATUS_SUCCESS, ring);
}

static void bell_shut(struct bell *b, NTSTATUS status)
{
    LIST_ENTRY list;
    KIRQL irql;

    KeAcquireSpinLock(&b->lock, &irql);
    b->open_for_waits = FALSE;
    bell_collect(b, NULL, &list);
    KeReleaseSpinLock(&b->lock, irql);
    bell_complete_all(b, &list, status, 0);
}

/* --- dispatch ----------------------------------------------------------- */

static NTSTATUS NTAPI bell_create_close(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return bell_finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI bell_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    struct bell *b = dev->DeviceExtension;
    LIST_ENTRY list;
    KIRQL irql;

    if (bell_get(b)) {
        KeAcquireSpinLock(&b->lock, &irql);
        bell_collect(b, IoGetCurrentIrpStackLocation(irp)->FileObject, &list);
        KeReleaseSpinLock(&b->lock, irql);
        bell_complete_all(b, &list, STATUS_CANCELLED, 0);
        bell_put(b);
    }
    return bell_finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI bell_ioctl(PDEVICE_OBJECT dev, PIRP irp)
{
    struct bell *b = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status;

    if (!bell_get(b))
        return bell_finish(irp, STATUS_DELETE_PENDING, 0);

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BELL_WAIT:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = bell_wait(b, irp);
        if (status == STATUS_PENDING)
            return status;
        break;
    case IOCTL_BELL_RING:
        bell_ring(b);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    bell_finish(irp, status, 0);
    bell_put(b);
    return status;
}

static NTSTATUS NTAPI bell_system_control(PDEVICE_OBJECT dev, PIRP irp)
{
    struct bell *b = dev->DeviceExtension;
    NTSTATUS status;

    if (!bell_get(b))
        return bell_finish(irp, STATUS_DELETE_PENDING, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(b->next, irp);
    bell_put(b);
    return status;
}

static NTSTATUS NTAPI bell_power(PDEVICE_OBJECT dev, PIRP irp)
{
    struct bell *b = dev->DeviceExtension;
    NTSTATUS status;

    PoStartNextPowerIrp(irp);
    if (!bell_get(b))
        return bell_finish(irp, STATUS_DELETE_PENDING, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(b->next, irp);
    bell_put(b);
    return status;
}

static NTSTATUS NTAPI bell_started(PDEVICE_OBJECT dev, PIRP irp, PVOID event)
{
    UNREFERENCED_PARAMETER(dev);
    if (irp->PendingReturned)
        KeSetEvent(event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS bell_start(struct bell *b, PIRP irp)
{
    KEVENT event;
    NTSTATUS status;
    KIRQL irql;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, bell_started, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(b->next, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = irp->IoStatus.Status;
    }
    if (!NT_SUCCESS(status))
        return status;

    status = IoSetDeviceInterfaceState(&b->ifname, TRUE);
    if (!NT_SUCCESS(status))
        return status;

    KeAcquireSpinLock(&b->lock, &irql);
    b->open_for_waits = TRUE;
    KeReleaseSpinLock(&b->lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI bell_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
    struct bell *b = dev->DeviceExtension;
    NTSTATUS status;

    if (!bell_get(b)) {
        irp->IoStatus.Status = STATUS_DELETE_PENDING;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return STATUS_DELETE_PENDING;
    }

    switch (IoGetCurrentIrpStackLocation(irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = bell_start(b, irp);
        bell_finish(irp, status, 0);
        bell_put(b);
        return status;

    case IRP_MN_STOP_DEVICE:
        /* waits do not need resources; they stay where they are */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&b->ifname, FALSE);
        bell_shut(b, STATUS_DELETE_PENDING);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&b->ifname, FALSE);
        InterlockedExchange(&b->removed, TRUE);
        bell_shut(b, STATUS_DELETE_PENDING);
        bell_put(b);                    /* ours */
        bell_put(b);                    /* the bias */
        KeWaitForSingleObject(&b->idle, Executive, KernelMode, FALSE, NULL);

        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(b->next, irp);
        RtlFreeUnicodeString(&b->ifname);
        IoDetachDevice(b->next);
        IoDeleteDevice(dev);
        return status;
    }

    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(b->next, irp);
    bell_put(b);
    return status;
}

static NTSTATUS NTAPI bell_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    struct bell *b;
    NTSTATUS status;

    status = IoCreateDevice(drv, sizeof(*b), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    b = dev->DeviceExtension;
    RtlZeroMemory(b, sizeof(*b));
    b->self = dev;
    b->users = 1;
    KeInitializeEvent(&b->idle, NotificationEvent, FALSE);
    KeInitializeSpinLock(&b->lock);
    InitializeListHead(&b->waiters);

    status = IoRegisterDeviceInterface(pdo, &bell_guid, NULL, &b->ifname);
    if (!NT_SUCCESS(status))
        goto fail;
    b->next = IoAttachDeviceToDeviceStack(dev, pdo);
    if (!b->next) {
        RtlFreeUnicodeString(&b->ifname);
        status = STATUS_NO_SUCH_DEVICE;
        goto fail;
    }
    dev->Flags |= DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

fail:
    IoDeleteDevice(dev);
    return status;
}

static VOID NTAPI bell_unload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    drv->MajorFunction[IRP_MJ_CREATE] = bell_create_close;
    drv->MajorFunction[IRP_MJ_CLEANUP] = bell_cleanup;
    drv->MajorFunction[IRP_MJ_CLOSE] = bell_create_close;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = bell_ioctl;
    drv->MajorFunction[IRP_MJ_PNP] = bell_pnp;
    drv->MajorFunction[IRP_MJ_POWER] = bell_power;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = bell_system_control;
    drv->DriverExtension->AddDevice = bell_add;
    drv->DriverUnload = bell_unload;
    return STATUS_SUCCESS;
}
