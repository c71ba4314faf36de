/*
 * A spooler: jobs (text) are queued by the programs that submit them, and a work item makes them upper case and hands them back one by one.
 *
 * The bug: the work item says that it does not run any more only after it has left the queue's lock, so a job that comes in between is left in the queue which nothing takes.
 * Shows by: submitting a job at the moment when the work item has found the queue empty and has not yet cleared its flag; the job waits for ever (or for the next one).
 *
 * Device: none
 * Rule: irp-never-completed, request-forgotten
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/control_device.h"

#define IOCTL_SPOOL_SUBMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SPOOL_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define SPOOL_MAX_BYTES 4096
#define SPOOL_LINK      L"\\DosDevices\\Spool"

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    LIST_ENTRY Jobs;
    BOOLEAN Running;
    ULONG Done;
    PIO_WORKITEM Item;
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH SpoolCreateClose, SpoolControl;
static IO_WORKITEM_ROUTINE SpoolWork;
static DRIVER_UNLOAD SpoolUnload;
DRIVER_INITIALIZE DriverEntry;

static VOID SpoolDoJob(PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PUCHAR text = Irp->AssociatedIrp.SystemBuffer;
    ULONG length = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG i;

    for (i = 0; i < length; i++)
        if (text[i] >= 'a' && text[i] <= 'z')
            text[i] -= 'a' - 'A';
    CtlComplete(Irp, STATUS_SUCCESS, length);
}

static VOID NTAPI SpoolWork(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PDEVICE dev = Context;
    PLIST_ENTRY entry;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    for (;;) {
        KeAcquireSpinLock(&dev->Lock, &irql);
        if (IsListEmpty(&dev->Jobs)) {
#ifdef FIXED
            dev->Running = FALSE;
#endif
            KeReleaseSpinLock(&dev->Lock, irql);
            break;
        }
        entry = RemoveHeadList(&dev->Jobs);
        dev->Done++;
        KeReleaseSpinLock(&dev->Lock, irql);
        SpoolDoJob(CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry));
    }
#ifndef FIXED
    dev->Running = FALSE;
#endif
}

static NTSTATUS SpoolSubmit(PDEVICE_OBJECT DeviceObject, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    ULONG length = Sp->Parameters.DeviceIoControl.InputBufferLength;
    BOOLEAN start;
    KIRQL irql;

    if (length == 0 || length > SPOOL_MAX_BYTES)
        return CtlComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    if (Sp->Parameters.DeviceIoControl.OutputBufferLength < length)
        return CtlComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);

    /* A job takes microseconds once the work item has it: no need to cancel one. */
    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&dev->Lock, &irql);
    InsertTailList(&dev->Jobs, &Irp->Tail.Overlay.ListEntry);
    start = !dev->Running;
    dev->Running = TRUE;
    KeReleaseSpinLock(&dev->Lock, irql);
    if (start)
        IoQueueWorkItem(dev->Item, SpoolWork, DelayedWorkQueue, dev);
    return STATUS_PENDING;
}

static NTSTATUS SpoolCount(PDEVICE Dev, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    KIRQL irql;

    if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return CtlComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&Dev->Lock, &irql);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Dev->Done;
    KeReleaseSpinLock(&Dev->Lock, irql);
    return CtlComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI SpoolCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SpoolControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SPOOL_SUBMIT:
        return SpoolSubmit(DeviceObject, Irp, sp);
    case IOCTL_SPOOL_COUNT:
        return SpoolCount(DeviceObject->DeviceExtension, Irp, sp);
    default:
        return CtlComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI SpoolUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE dev = Driver->DeviceObject->DeviceExtension;

    IoFreeWorkItem(dev->Item);
    CtlDelete(Driver->DeviceObject, SPOOL_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PDEVICE dev;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = SpoolCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = SpoolCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SpoolControl;
    Driver->DriverUnload = SpoolUnload;

    status = CtlCreate(Driver, L"\\Device\\Spool", SPOOL_LINK, sizeof(DEVICE), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    dev = device->DeviceExtension;
    KeInitializeSpinLock(&dev->Lock);
    InitializeListHead(&dev->Jobs);
    dev->Item = IoAllocateWorkItem(device);
    if (!dev->Item) {
        CtlDelete(device, SPOOL_LINK);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
