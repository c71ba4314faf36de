/*
 * A control device that carries short messages between programs: IOCTL_RECEIVE waits for a message to a box, IOCTL_SEND
 * gives one to the program that has waited longest for that box.
 *
 * The bug: IRP_MJ_CLEANUP keeps the next entry of the list in a variable while it drops the lock to complete a request.
 * Shows by: a handle with two or more waiting requests is closed while another program sends to (or another thread
 * cancels) the second of them.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl, cancel, schedule
 */
#include "../include/shared_frame.h"

#define DEVICE_NAME L"\\Device\\MailSlots"
#define LINK_NAME   L"\\DosDevices\\MailSlots"

#define IOCTL_RECEIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_READ_ACCESS)  /* in: ULONG box; out: the message */
#define IOCTL_SEND    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG box, the message */
#define IOCTL_WAITING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: ULONG */

typedef struct _EXTENSION {
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiting; /* requests, by Tail.Overlay.ListEntry */
    ULONG Sent;
} EXTENSION;

static PIRP IrpOf(PLIST_ENTRY Entry)
{
    return CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
}

static VOID NTAPI CancelReceive(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&ext->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&ext->Lock, irql);
    KitComplete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Receive(PDEVICE_OBJECT Device, PIRP Irp, ULONG InLength)
{
    EXTENSION *ext = Device->DeviceExtension;
    KIRQL irql;

    if (InLength < sizeof(ULONG)) {
        return KitComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    KeAcquireSpinLock(&ext->Lock, &irql);
    (void)IoSetCancelRoutine(Irp, CancelReceive);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&ext->Lock, irql);
        return KitComplete(Irp, STATUS_CANCELLED, 0);
    }
    /* If the cancel routine is already on its way, it waits for the lock and finds the request in the list. */
    IoMarkIrpPending(Irp);
    InsertTailList(&ext->Waiting, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&ext->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS Send(EXTENSION *Ext, PVOID Buffer, ULONG InLength)
{
    ULONG box, length, room;
    PIRP irp = NULL;
    PLIST_ENTRY e;
    KIRQL irql;

    if (InLength < sizeof(ULONG)) {
        return STATUS_INVALID_PARAMETER;
    }
    box = *(PULONG)Buffer;
    length = InLength - sizeof(ULONG);

    KeAcquireSpinLock(&Ext->Lock, &irql);
    for (e = Ext->Waiting.Flink; e != &Ext->Waiting; e = e->Flink) {
        PIRP candidate = IrpOf(e);
        if (*(PULONG)candidate->AssociatedIrp.SystemBuffer != box) {
            continue;
        }
        if (IoSetCancelRoutine(candidate, NULL) == NULL) {
            continue; /* being cancelled: its cancel routine takes it off */
        }
        RemoveEntryList(e);
        irp = candidate;
        Ext->Sent++;
        break;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    if (irp == NULL) {
        return STATUS_NOT_FOUND;
    }

    room = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength;
    if (room < length) {
        KitComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return STATUS_BUFFER_TOO_SMALL;
    }
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, (PUCHAR)Buffer + sizeof(ULONG), length);
    KitComplete(irp, STATUS_SUCCESS, length);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PLIST_ENTRY e, next;
    KIRQL irql;
#ifdef FIXED
    LIST_ENTRY mine;

    InitializeListHead(&mine);
    KeAcquireSpinLock(&ext->Lock, &irql);
    for (e = ext->Waiting.Flink; e != &ext->Waiting; e = next) {
        PIRP irp = IrpOf(e);
        next = e->Flink;
        if (IoGetCurrentIrpStackLocation(irp)->FileObject == file && IoSetCancelRoutine(irp, NULL) != NULL) {
            RemoveEntryList(e);
            InsertTailList(&mine, e);
        }
    }
    KeReleaseSpinLock(&ext->Lock, irql);
    while (!IsListEmpty(&mine)) {
        KitComplete(IrpOf(RemoveHeadList(&mine)), STATUS_CANCELLED, 0);
    }
#else
    KeAcquireSpinLock(&ext->Lock, &irql);
    for (e = ext->Waiting.Flink; e != &ext->Waiting; e = next) {
        PIRP irp = IrpOf(e);
        next = e->Flink;
        if (IoGetCurrentIrpStackLocation(irp)->FileObject == file && IoSetCancelRoutine(irp, NULL) != NULL) {
            RemoveEntryList(e);
            KeReleaseSpinLock(&ext->Lock, irql);
            KitComplete(irp, STATUS_CANCELLED, 0);
            KeAcquireSpinLock(&ext->Lock, &irql);
        }
    }
    KeReleaseSpinLock(&ext->Lock, irql);
#endif
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Waiting(EXTENSION *Ext, PULONG Out, ULONG OutLength, ULONG_PTR *Information)
{
    PLIST_ENTRY e;
    ULONG n = 0;
    KIRQL irql;

    if (OutLength < sizeof(ULONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    KeAcquireSpinLock(&Ext->Lock, &irql);
    for (e = Ext->Waiting.Flink; e != &Ext->Waiting; e = e->Flink) {
        n++;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    *Out = n;
    *Information = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RECEIVE:
        return Receive(Device, Irp, in);
    case IOCTL_SEND:
        status = Send(ext, Irp->AssociatedIrp.SystemBuffer, in);
        break;
    case IOCTL_WAITING:
        status = Waiting(ext, Irp->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.OutputBufferLength, &information);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitComplete(Irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KitDeleteControl(Driver->DeviceObject, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    status = KitCreateControl(Driver, DEVICE_NAME, LINK_NAME, sizeof(EXTENSION), &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Waiting);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
