/*
 * newsdesk: a bulletin board. Writers post a bulletin; readers wait (inverted call) for the first one that
 * is newer than the one they know.
 *
 * The bug: a request that was cancelled just before its cancel routine was set is queued for ever, since Irp->Cancel
 * is not looked at.
 *
 * Device: none
 * Rule: cancellation-missed
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_NEWS_POST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_NEWS_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _BULLETIN {
    ULONG Number;
    CHAR Text[124];
} BULLETIN;

typedef struct _DESK {
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiting;
    BULLETIN Latest;
} DESK;

static UNICODE_STRING g_link = RTL_CONSTANT_STRING(L"\\DosDevices\\NewsDesk");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI NewsCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    DESK *desk = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&desk->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&desk->Lock, irql);
    Finish(Irp, STATUS_CANCELLED, 0);
}

/* Under the lock: moves the waiting requests (of one file, or all) to a list of the caller's. */
static VOID TakeWaiting(DESK *Desk, PFILE_OBJECT File, PLIST_ENTRY Taken)
{
    PLIST_ENTRY e, next;

    InitializeListHead(Taken);
    for (e = Desk->Waiting.Flink; e != &Desk->Waiting; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(irp, NULL))
            InsertTailList(Taken, e);
        else
            InitializeListHead(e);      /* its cancel routine runs already, and completes it */
    }
}

static NTSTATUS NewsPost(DESK *Desk, PIRP Irp, ULONG Length)
{
    PCHAR text = Irp->AssociatedIrp.SystemBuffer;
    LIST_ENTRY taken;
    PLIST_ENTRY e;
    KIRQL irql;

    if (Length == 0 || Length >= sizeof(Desk->Latest.Text))
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&Desk->Lock, &irql);
    Desk->Latest.Number++;
    RtlZeroMemory(Desk->Latest.Text, sizeof(Desk->Latest.Text));
    RtlCopyMemory(Desk->Latest.Text, text, Length);
    TakeWaiting(Desk, NULL, &taken);
    for (e = taken.Flink; e != &taken; e = e->Flink)
        RtlCopyMemory(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry)->AssociatedIrp.SystemBuffer,
                      &Desk->Latest, sizeof(BULLETIN));
    KeReleaseSpinLock(&Desk->Lock, irql);
    while (!IsListEmpty(&taken)) {
        e = RemoveHeadList(&taken);
        Finish(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry), STATUS_SUCCESS, sizeof(BULLETIN));
    }
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NewsWait(DESK *Desk, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    ULONG known;
    KIRQL irql;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(BULLETIN))
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    known = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    KeAcquireSpinLock(&Desk->Lock, &irql);
    if (Desk->Latest.Number > known) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Desk->Latest, sizeof(BULLETIN));
        KeReleaseSpinLock(&Desk->Lock, irql);
        return Finish(Irp, STATUS_SUCCESS, sizeof(BULLETIN));
    }
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, NewsCancel);
#ifdef FIXED
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&Desk->Lock, irql);
        Finish(Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
#endif
    InsertTailList(&Desk->Waiting, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Desk->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI NewsControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_NEWS_POST:
        return NewsPost(Device->DeviceExtension, Irp, stack->Parameters.DeviceIoControl.InputBufferLength);
    case IOCTL_NEWS_WAIT:
        return NewsWait(Device->DeviceExtension, Irp, stack);
    }
    return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI NewsOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI NewsCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DESK *desk = Device->DeviceExtension;
    LIST_ENTRY taken;
    KIRQL irql;

    KeAcquireSpinLock(&desk->Lock, &irql);
    TakeWaiting(desk, IoGetCurrentIrpStackLocation(Irp)->FileObject, &taken);
    KeReleaseSpinLock(&desk->Lock, irql);
    while (!IsListEmpty(&taken)) {
        PLIST_ENTRY e = RemoveHeadList(&taken);

        Finish(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    }
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI NewsUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&g_link);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\NewsDesk");
    PDEVICE_OBJECT device;
    NTSTATUS status;
    DESK *desk;

    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = NewsOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = NewsOpenClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = NewsCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = NewsControl;
    Driver->DriverUnload = NewsUnload;
    status = IoCreateDevice(Driver, sizeof(DESK), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    desk = device->DeviceExtension;
    RtlZeroMemory(desk, sizeof(*desk));
    KeInitializeSpinLock(&desk->Lock);
    InitializeListHead(&desk->Waiting);
    status = IoCreateSymbolicLink(&g_link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
