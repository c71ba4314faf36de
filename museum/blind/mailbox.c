/*
 * A mailbox: programs wait in it for a message with a time limit, others post messages to the one that has waited longest.
 *
 * The bug: the expiry DPC takes a waiting request whose cancel routine has been called already, so the request is unlinked and completed twice.
 * Shows by: cancelling a waiting request in the moment in which its time limit ends, with the cancel routine begun but not yet holding the queue's lock.
 *
 * Device: none
 * Rule: use-after-free, double-completion
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/control_device.h"

#define IOCTL_MAIL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_MAIL_POST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define MAIL_PERIOD_MS 10
#define MAIL_MAX_MS    60000
#define MAIL_LINK      L"\\DosDevices\\Mailbox"

/* The place of a request's time limit in its driver context */
#define MAIL_DEADLINE(irp) ((irp)->Tail.Overlay.DriverContext[0])

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiting;
    KTIMER Timer;
    KDPC Dpc;
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH MailCreateClose, MailCleanup, MailControl;
static DRIVER_CANCEL MailCancel;
static DRIVER_UNLOAD MailUnload;
static KDEFERRED_ROUTINE MailExpire;
DRIVER_INITIALIZE DriverEntry;

static VOID NTAPI MailCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&dev->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&dev->Lock, irql);
    CtlComplete(Irp, STATUS_CANCELLED, 0);
}

static VOID MailCompleteList(PLIST_ENTRY List, NTSTATUS Status)
{
    while (!IsListEmpty(List)) {
        PLIST_ENTRY entry = RemoveHeadList(List);
        CtlComplete(CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry), Status, 0);
    }
}

static VOID NTAPI MailExpire(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE dev = Context;
    LIST_ENTRY expired;
    PLIST_ENTRY entry, next;
    ULONGLONG now = KeQueryInterruptTime();

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);

    InitializeListHead(&expired);
    KeAcquireSpinLockAtDpcLevel(&dev->Lock);
    for (entry = dev->Waiting.Flink; entry != &dev->Waiting; entry = next) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        next = entry->Flink;
        if ((ULONG_PTR)MAIL_DEADLINE(irp) > now)
            continue;
#ifdef FIXED
        if (!IoSetCancelRoutine(irp, NULL))
            continue;
#else
        IoSetCancelRoutine(irp, NULL);
#endif
        RemoveEntryList(entry);
        InsertTailList(&expired, entry);
    }
    KeReleaseSpinLockFromDpcLevel(&dev->Lock);
    MailCompleteList(&expired, STATUS_IO_TIMEOUT);
}

static NTSTATUS MailWait(PDEVICE Dev, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    ULONG milliseconds;
    KIRQL irql;

    if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONGLONG))
        return CtlComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    milliseconds = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (milliseconds > MAIL_MAX_MS)
        return CtlComplete(Irp, STATUS_INVALID_PARAMETER, 0);

    MAIL_DEADLINE(Irp) = (PVOID)(ULONG_PTR)(KeQueryInterruptTime() + 10000ULL * milliseconds);
    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&Dev->Lock, &irql);
    IoSetCancelRoutine(Irp, MailCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&Dev->Lock, irql);
        CtlComplete(Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    InsertTailList(&Dev->Waiting, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Dev->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS MailPost(PDEVICE Dev, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PLIST_ENTRY entry;
    PIRP waiter = NULL;
    KIRQL irql;

    if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONGLONG))
        return CtlComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);

    KeAcquireSpinLock(&Dev->Lock, &irql);
    for (entry = Dev->Waiting.Flink; entry != &Dev->Waiting; entry = entry->Flink) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        if (IoSetCancelRoutine(irp, NULL)) {
            RemoveEntryList(entry);
            waiter = irp;
            break;
        }
    }
    KeReleaseSpinLock(&Dev->Lock, irql);

    if (!waiter)
        return CtlComplete(Irp, STATUS_NOT_FOUND, 0);
    *(PULONGLONG)waiter->AssociatedIrp.SystemBuffer = *(PULONGLONG)Irp->AssociatedIrp.SystemBuffer;
    CtlComplete(waiter, STATUS_SUCCESS, sizeof(ULONGLONG));
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MailCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LIST_ENTRY mine;
    PLIST_ENTRY entry, next;
    KIRQL irql;

    InitializeListHead(&mine);
    KeAcquireSpinLock(&dev->Lock, &irql);
    for (entry = dev->Waiting.Flink; entry != &dev->Waiting; entry = next) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        next = entry->Flink;
        if (IoGetCurrentIrpStackLocation(irp)->FileObject == file && IoSetCancelRoutine(irp, NULL)) {
            RemoveEntryList(entry);
            InsertTailList(&mine, entry);
        }
    }
    KeReleaseSpinLock(&dev->Lock, irql);
    MailCompleteList(&mine, STATUS_CANCELLED);
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MailCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MailControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MAIL_WAIT:
        return MailWait(dev, Irp, sp);
    case IOCTL_MAIL_POST:
        return MailPost(dev, Irp, sp);
    default:
        return CtlComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI MailUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE dev = Driver->DeviceObject->DeviceExtension;

    KeCancelTimer(&dev->Timer);
    KeFlushQueuedDpcs();
    CtlDelete(Driver->DeviceObject, MAIL_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PDEVICE dev;
    LARGE_INTEGER due;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = MailCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = MailCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = MailCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MailControl;
    Driver->DriverUnload = MailUnload;

    status = CtlCreate(Driver, L"\\Device\\Mailbox", MAIL_LINK, sizeof(DEVICE), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    dev = device->DeviceExtension;
    KeInitializeSpinLock(&dev->Lock);
    InitializeListHead(&dev->Waiting);
    KeInitializeTimerEx(&dev->Timer, NotificationTimer);
    KeInitializeDpc(&dev->Dpc, MailExpire, dev);
    due.QuadPart = -10000LL * MAIL_PERIOD_MS;
    KeSetTimerEx(&dev->Timer, due, MAIL_PERIOD_MS, &dev->Dpc);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
