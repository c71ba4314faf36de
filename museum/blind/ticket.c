/*
 * ticket: a waiting room. Clients wait at one of sixteen desks (a pending request); the clerk's program calls the next one of its
 * desk, which completes that request with the running number of the call.
 *
 * The bug: who calls the next client takes its request out of the list and completes it although the request's cancel routine has
 * already been started and waits for the list's lock: the request is unlinked and completed twice.
 *
 * Device: none
 * Rule: use-after-free, double-completion
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_TICKET_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* desk -> number */
#define IOCTL_TICKET_NEXT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* desk -> number */
#define IOCTL_TICKET_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x943, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* -> TICKET_STATE */

#define DESKS 16

typedef struct _TICKET_STATE {
    ULONG Waiting, Called;
} TICKET_STATE, *PTICKET_STATE;

typedef struct _ROOM {
    KSPIN_LOCK Guard;                       /* guards all below */
    LIST_ENTRY Waiting;                     /* of requests; their desk is in DriverContext[0] */
    TICKET_STATE State;
} ROOM, *PROOM;

static const WCHAR DeviceText[] = L"\\Device\\Ticket";
static const WCHAR LinkText[] = L"\\DosDevices\\Ticket";

static NTSTATUS TicketEnd(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI TicketCancel(PDEVICE_OBJECT dev, PIRP irp)
{
    PROOM room = dev->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&room->Guard, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    room->State.Waiting--;
    KeReleaseSpinLock(&room->Guard, irql);
    TicketEnd(irp, STATUS_CANCELLED, 0);
}

static NTSTATUS TicketWait(PROOM room, PIRP irp, ULONG desk)
{
    KIRQL irql;

    irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)desk;
    IoMarkIrpPending(irp);
    KeAcquireSpinLock(&room->Guard, &irql);
    IoSetCancelRoutine(irp, TicketCancel);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {         /* cancelled before, and no one else ends it */
        KeReleaseSpinLock(&room->Guard, irql);
        TicketEnd(irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    InsertTailList(&room->Waiting, &irp->Tail.Overlay.ListEntry);
    room->State.Waiting++;
    KeReleaseSpinLock(&room->Guard, irql);
    return STATUS_PENDING;
}

static NTSTATUS TicketNext(PROOM room, ULONG desk, PULONG number)
{
    PIRP found = NULL;
    PLIST_ENTRY e;
    KIRQL irql;

    KeAcquireSpinLock(&room->Guard, &irql);
    for (e = room->Waiting.Flink; e != &room->Waiting; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if ((ULONG)(ULONG_PTR)irp->Tail.Overlay.DriverContext[0] != desk)
            continue;
#ifdef FIXED
        if (IoSetCancelRoutine(irp, NULL) == NULL)          /* its cancel routine unlinks and ends it */
            continue;
#else
        IoSetCancelRoutine(irp, NULL);
#endif
        RemoveEntryList(e);
        room->State.Waiting--;
        *number = ++room->State.Called;
        found = irp;
        break;
    }
    KeReleaseSpinLock(&room->Guard, irql);
    if (found == NULL)
        return STATUS_NO_MORE_ENTRIES;
    RtlCopyMemory(found->AssociatedIrp.SystemBuffer, number, sizeof(ULONG));
    TicketEnd(found, STATUS_SUCCESS, sizeof(ULONG));
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI TicketCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return TicketEnd(irp, STATUS_SUCCESS, 0);
}

/* The handle is closed: its clients leave the room. */
static NTSTATUS NTAPI TicketCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    PROOM room = dev->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    PLIST_ENTRY e, next;
    LIST_ENTRY leaving;
    KIRQL irql;

    InitializeListHead(&leaving);
    KeAcquireSpinLock(&room->Guard, &irql);
    for (e = room->Waiting.Flink; e != &room->Waiting; e = next) {
        PIRP waiting = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (IoGetCurrentIrpStackLocation(waiting)->FileObject != file || IoSetCancelRoutine(waiting, NULL) == NULL)
            continue;
        RemoveEntryList(e);
        room->State.Waiting--;
        InsertTailList(&leaving, e);
    }
    KeReleaseSpinLock(&room->Guard, irql);
    while (!IsListEmpty(&leaving))
        TicketEnd(CONTAINING_RECORD(RemoveHeadList(&leaving), IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    return TicketEnd(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TicketControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PROOM room = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG desk, number = 0;
    TICKET_STATE state;
    NTSTATUS status;
    KIRQL irql;

    switch (code) {
    case IOCTL_TICKET_WAIT:
    case IOCTL_TICKET_NEXT:
        if (in != sizeof desk || out < sizeof number)
            return TicketEnd(irp, STATUS_INVALID_PARAMETER, 0);
        RtlCopyMemory(&desk, buffer, sizeof desk);
        if (desk >= DESKS)
            return TicketEnd(irp, STATUS_INVALID_PARAMETER, 0);
        if (code == IOCTL_TICKET_WAIT)
            return TicketWait(room, irp, desk);
        status = TicketNext(room, desk, &number);
        if (!NT_SUCCESS(status))
            return TicketEnd(irp, status, 0);
        RtlCopyMemory(buffer, &number, sizeof number);
        return TicketEnd(irp, STATUS_SUCCESS, sizeof number);
    case IOCTL_TICKET_STATE:
        if (out < sizeof state)
            return TicketEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&room->Guard, &irql);
        state = room->State;
        KeReleaseSpinLock(&room->Guard, irql);
        RtlCopyMemory(buffer, &state, sizeof state);
        return TicketEnd(irp, STATUS_SUCCESS, sizeof state);
    default:
        return TicketEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI TicketUnload(PDRIVER_OBJECT drv)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, LinkText);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(drv->DeviceObject);                      /* no handles, so none waits */
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    PROOM room;

    UNREFERENCED_PARAMETER(path);
    RtlInitUnicodeString(&name, DeviceText);
    RtlInitUnicodeString(&link, LinkText);
    status = IoCreateDevice(drv, sizeof(ROOM), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    room = dev->DeviceExtension;
    RtlZeroMemory(room, sizeof *room);
    KeInitializeSpinLock(&room->Guard);
    InitializeListHead(&room->Waiting);
    drv->MajorFunction[IRP_MJ_CREATE] = TicketCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = TicketCreateClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = TicketCleanup;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TicketControl;
    drv->DriverUnload = TicketUnload;
    dev->Flags |= DO_BUFFERED_IO;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
