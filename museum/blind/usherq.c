/*
 * usherq: an usher who lets waiting programs in. A program waits with WAIT until another one grants places with GRANT; places that none waits for are
 * kept for later, up to a limit.
 *
 * The bug: GRANT takes a waiting request off the list and completes it without looking whether IoSetCancelRoutine still gave the cancel routine back;
 * if the request is being cancelled at that moment, both complete it.
 *
 * Device: none
 * Rule: double-completion, use-after-free
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define MAX_PLACES 1000

#define IOCTL_USHER_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_USHER_GRANT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_USHER_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _USHER_STATE {
    ULONG Waiting;
    ULONG Places;
    ULONG Served;
} USHER_STATE, *PUSHER_STATE;

typedef struct _USHER {
    KSPIN_LOCK Lock; /* everything below */
    LIST_ENTRY Waiters;
    ULONG Waiting;
    ULONG Places;
    ULONG Served;
} USHER, *PUSHER;

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\UsherQ");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* A request whose cancel routine is on its way is out of the list already, but its links lead to itself, so that it may be taken off again. */
static VOID NTAPI CancelWait(PDEVICE_OBJECT device, PIRP irp)
{
    PUSHER usher = device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&usher->Lock, &irql);
    if (!IsListEmpty(&irp->Tail.Overlay.ListEntry)) {
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        usher->Waiting--;
    }
    KeReleaseSpinLock(&usher->Lock, irql);
    Finish(irp, STATUS_CANCELLED, 0);
}

/* Under Lock: takes the request off the list; FALSE if its cancel routine completes it. */
static BOOLEAN Claim(PUSHER usher, PIRP irp)
{
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    InitializeListHead(&irp->Tail.Overlay.ListEntry);
    usher->Waiting--;
#ifdef FIXED
    return IoSetCancelRoutine(irp, NULL) != NULL;
#else
    (void)IoSetCancelRoutine(irp, NULL);
    return TRUE;
#endif
}

static NTSTATUS Wait(PUSHER usher, PIRP irp)
{
    KIRQL irql;
    ULONG ticket;

    KeAcquireSpinLock(&usher->Lock, &irql);
    if (usher->Places > 0) {
        usher->Places--;
        ticket = ++usher->Served;
        KeReleaseSpinLock(&usher->Lock, irql);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = ticket;
        return Finish(irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    IoMarkIrpPending(irp);
    InitializeListHead(&irp->Tail.Overlay.ListEntry);
    (void)IoSetCancelRoutine(irp, CancelWait);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
        KeReleaseSpinLock(&usher->Lock, irql);
        Finish(irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    InsertTailList(&usher->Waiters, &irp->Tail.Overlay.ListEntry);
    usher->Waiting++;
    KeReleaseSpinLock(&usher->Lock, irql);
    return STATUS_PENDING;
}

/* Returns how many were let in at once; the rest of the places is kept. */
static NTSTATUS Grant(PUSHER usher, ULONG places, PULONG letIn)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    *letIn = 0;
    KeAcquireSpinLock(&usher->Lock, &irql);
    while (places > 0 && !IsListEmpty(&usher->Waiters)) {
        PIRP irp = CONTAINING_RECORD(usher->Waiters.Flink, IRP, Tail.Overlay.ListEntry);

        if (!Claim(usher, irp))
            continue;
        places--;
        (*letIn)++;
        *(PULONG)irp->AssociatedIrp.SystemBuffer = ++usher->Served;
        KeReleaseSpinLock(&usher->Lock, irql);
        Finish(irp, STATUS_SUCCESS, sizeof(ULONG));
        KeAcquireSpinLock(&usher->Lock, &irql);
    }
    if (places > MAX_PLACES - usher->Places)
        status = STATUS_QUOTA_EXCEEDED;
    else
        usher->Places += places;
    KeReleaseSpinLock(&usher->Lock, irql);
    return status;
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT device, PIRP irp)
{
    PUSHER usher = device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    PLIST_ENTRY entry, next;
    LIST_ENTRY mine;
    KIRQL irql;

    InitializeListHead(&mine);
    KeAcquireSpinLock(&usher->Lock, &irql);
    for (entry = usher->Waiters.Flink; entry != &usher->Waiters; entry = next) {
        PIRP waiter = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        next = entry->Flink;
        if (IoGetCurrentIrpStackLocation(waiter)->FileObject != file)
            continue;
        RemoveEntryList(entry);
        InitializeListHead(entry);
        usher->Waiting--;
        if (IoSetCancelRoutine(waiter, NULL) != NULL)
            InsertTailList(&mine, entry);
    }
    KeReleaseSpinLock(&usher->Lock, irql);
    while (!IsListEmpty(&mine)) {
        entry = RemoveHeadList(&mine);
        Finish(CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    }
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT device, PIRP irp)
{
    PUSHER usher = device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG inLength = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    USHER_STATE state;
    ULONG letIn;
    NTSTATUS status;
    KIRQL irql;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_USHER_WAIT:
        if (outLength < sizeof(ULONG))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Wait(usher, irp);

    case IOCTL_USHER_GRANT:
        if (inLength < sizeof(ULONG) || outLength < sizeof(ULONG))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*(PULONG)buffer == 0 || *(PULONG)buffer > MAX_PLACES)
            return Finish(irp, STATUS_INVALID_PARAMETER, 0);
        status = Grant(usher, *(PULONG)buffer, &letIn);
        *(PULONG)buffer = letIn;
        return Finish(irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);

    case IOCTL_USHER_STATE:
        if (outLength < sizeof(state))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&usher->Lock, &irql);
        state.Waiting = usher->Waiting;
        state.Places = usher->Places;
        state.Served = usher->Served;
        KeReleaseSpinLock(&usher->Lock, irql);
        RtlCopyMemory(buffer, &state, sizeof(state));
        return Finish(irp, STATUS_SUCCESS, sizeof(state));
    }
    return Finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\UsherQ");
    PDEVICE_OBJECT device;
    PUSHER usher;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(driver, sizeof(USHER), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    usher = device->DeviceExtension;
    RtlZeroMemory(usher, sizeof(*usher));
    KeInitializeSpinLock(&usher->Lock);
    InitializeListHead(&usher->Waiters);
    driver->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    status = IoCreateSymbolicLink(&LinkName, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
