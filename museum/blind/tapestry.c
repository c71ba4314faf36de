/*
 * tapestry: an event service. Clients wait for events with a pending request each; a producer posts events, which go to the oldest waiter or,
 * if no one waits, into a small backlog.
 *
 * The bug: when a post takes a waiter out of the list whose cancellation has already begun, it leaves the entry's old links in it. The cancel
 * routine unlinks the entry a second time and tears the list: a waiter that came in between is lost for ever, or freed memory is written.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define BACKLOG 16

#define IOCTL_TAPESTRY_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TAPESTRY_POST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TAPESTRY_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _EVENT {
    ULONG Serial;
    ULONG Code;
} EVENT, *PEVENT;

typedef struct _TAPESTRY_STATE {
    ULONG Waiters;
    ULONG Backlog;
    ULONG Serial;
} TAPESTRY_STATE, *PTAPESTRY_STATE;

typedef struct _TAPESTRY {
    KSPIN_LOCK Lock; /* guards all */
    LIST_ENTRY Waiters;
    ULONG Serial;
    ULONG First, Count; /* in Backlog */
    EVENT Event[BACKLOG];
} TAPESTRY, *PTAPESTRY;

static const UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Tapestry");
static const UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Tapestry");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* The one that has made IoSetCancelRoutine(Irp, NULL) return something owns the request; if it returned NULL this routine owns it. */
static VOID TapestryCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTAPESTRY t = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&t->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&t->Lock, irql);
    Finish(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Wait(PTAPESTRY t, PIRP Irp, PIO_STACK_LOCATION s)
{
    PEVENT out = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *out)
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&t->Lock, &irql);
    if (t->Count) {
        *out = t->Event[t->First];
        t->First = (t->First + 1) % BACKLOG;
        t->Count--;
        KeReleaseSpinLock(&t->Lock, irql);
        return Finish(Irp, STATUS_SUCCESS, sizeof *out);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&t->Waiters, &Irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(Irp, TapestryCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        /* it was cancelled before, and the routine will not be called */
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        KeReleaseSpinLock(&t->Lock, irql);
        Finish(Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&t->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS Post(PTAPESTRY t, PIRP Irp, PIO_STACK_LOCATION s)
{
    NTSTATUS status = STATUS_SUCCESS;
    PIRP waiter = NULL;
    EVENT event;
    KIRQL irql;

    if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof event.Code)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    event.Code = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    KeAcquireSpinLock(&t->Lock, &irql);
    event.Serial = t->Serial + 1;
    while (!IsListEmpty(&t->Waiters)) {
        PLIST_ENTRY e = RemoveHeadList(&t->Waiters);
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (IoSetCancelRoutine(irp, NULL)) {
            waiter = irp;
            break;
        }
        /* its cancel routine waits for our lock and will complete it */
#ifdef FIXED
        InitializeListHead(e);
#endif
    }
    if (waiter) {
        t->Serial++;
    } else if (t->Count < BACKLOG) {
        t->Serial++;
        t->Event[(t->First + t->Count) % BACKLOG] = event;
        t->Count++;
    } else {
        status = STATUS_DEVICE_BUSY;
    }
    KeReleaseSpinLock(&t->Lock, irql);
    if (waiter) {
        *(PEVENT)waiter->AssociatedIrp.SystemBuffer = event;
        Finish(waiter, STATUS_SUCCESS, sizeof event);
    }
    return Finish(Irp, status, 0);
}

static NTSTATUS State(PTAPESTRY t, PIRP Irp, PIO_STACK_LOCATION s)
{
    PTAPESTRY_STATE out = Irp->AssociatedIrp.SystemBuffer;
    PLIST_ENTRY e;
    KIRQL irql;

    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *out)
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    out->Waiters = 0;
    KeAcquireSpinLock(&t->Lock, &irql);
    for (e = t->Waiters.Flink; e != &t->Waiters; e = e->Flink)
        out->Waiters++;
    out->Backlog = t->Count;
    out->Serial = t->Serial;
    KeReleaseSpinLock(&t->Lock, irql);
    return Finish(Irp, STATUS_SUCCESS, sizeof *out);
}

static NTSTATUS TapestryControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTAPESTRY t = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TAPESTRY_WAIT:
        return Wait(t, Irp, s);
    case IOCTL_TAPESTRY_POST:
        return Post(t, Irp, s);
    case IOCTL_TAPESTRY_STATE:
        return State(t, Irp, s);
    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS TapestryOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* The last handle is closed: the file's waiters are given back. */
static NTSTATUS TapestryCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTAPESTRY t = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LIST_ENTRY mine;
    PLIST_ENTRY e, next;
    KIRQL irql;

    InitializeListHead(&mine);
    KeAcquireSpinLock(&t->Lock, &irql);
    for (e = t->Waiters.Flink; e != &t->Waiters; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (IoGetCurrentIrpStackLocation(irp)->FileObject == file && IoSetCancelRoutine(irp, NULL)) {
            RemoveEntryList(e);
            InsertTailList(&mine, e);
        }
    }
    KeReleaseSpinLock(&t->Lock, irql);
    while (!IsListEmpty(&mine)) {
        e = RemoveHeadList(&mine);
        Finish(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    }
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID TapestryUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink((PUNICODE_STRING)&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PTAPESTRY t;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverUnload = TapestryUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = TapestryOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = TapestryOpenClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TapestryCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TapestryControl;
    status = IoCreateDevice(Driver, sizeof *t, (PUNICODE_STRING)&DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    t = device->DeviceExtension;
    RtlZeroMemory(t, sizeof *t);
    KeInitializeSpinLock(&t->Lock);
    InitializeListHead(&t->Waiters);
    status = IoCreateSymbolicLink((PUNICODE_STRING)&LinkName, (PUNICODE_STRING)&DeviceName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
