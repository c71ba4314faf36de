/*
 * A port that delivers ticks, and a metering filter above it that counts the requests and bytes which pass; both device objects are this driver's.
 *
 * The bug: the filter's completion routine does not mark the request pending when the port has pended it, so its end is not carried to the waiting thread.
 * Shows by: any read, since the port ends reads a few milliseconds later.
 *
 * Device: none
 * Rule: pending-not-marked
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/control_device.h"

#define IOCTL_METER_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define METER_PERIOD_MS 5
#define METER_LINK      L"\\DosDevices\\Meter"

typedef struct _METER_REPORT {
    ULONG Requests;
    ULONG Failed;
    ULONGLONG Bytes;
} METER_REPORT, *PMETER_REPORT;

typedef struct _COMMON {
    BOOLEAN IsFilter;
} COMMON, *PCOMMON;

typedef struct _PORT {
    COMMON Common;
    IO_CSQ Queue;
    KSPIN_LOCK Lock;
    LIST_ENTRY Reads;
    ULONGLONG Ticks;            /* the DPC's own */
    KTIMER Timer;
    KDPC Dpc;
} PORT, *PPORT;

typedef struct _FILTER {
    COMMON Common;
    PDEVICE_OBJECT Lower;
    KSPIN_LOCK Lock;
    METER_REPORT Report;
} FILTER, *PFILTER;

static DRIVER_DISPATCH MeterPass, MeterRead, MeterControl;
static IO_COMPLETION_ROUTINE MeterReadDone;
static DRIVER_UNLOAD MeterUnload;
static KDEFERRED_ROUTINE PortTick;
DRIVER_INITIALIZE DriverEntry;

/* The port */

static VOID NTAPI PortInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, PORT, Queue)->Reads, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI PortRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI PortPeek(PIO_CSQ Csq, PIRP Irp, PVOID PeekContext)
{
    PPORT port = CONTAINING_RECORD(Csq, PORT, Queue);
    PLIST_ENTRY entry = Irp ? Irp->Tail.Overlay.ListEntry.Flink : port->Reads.Flink;

    for (; entry != &port->Reads; entry = entry->Flink) {
        PIRP next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        if (!PeekContext || IoGetCurrentIrpStackLocation(next)->FileObject == (PFILE_OBJECT)PeekContext)
            return next;
    }
    return NULL;
}

static VOID NTAPI PortAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, PORT, Queue)->Lock, Irql);
}

static VOID NTAPI PortRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, PORT, Queue)->Lock, Irql);
}

static VOID NTAPI PortCancelled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    CtlComplete(Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI PortTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PPORT port = Context;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);

    port->Ticks++;
    irp = IoCsqRemoveNextIrp(&port->Queue, NULL);
    if (irp) {
        *(PULONGLONG)irp->AssociatedIrp.SystemBuffer = port->Ticks;
        CtlComplete(irp, STATUS_SUCCESS, sizeof(ULONGLONG));
    }
}

static NTSTATUS PortRead(PPORT Port, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(ULONGLONG))
        return CtlComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    IoCsqInsertIrp(&Port->Queue, Irp, NULL);
    return STATUS_PENDING;
}

static NTSTATUS PortOther(PPORT Port, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PIRP irp;

    if (Sp->MajorFunction == IRP_MJ_CLEANUP) {
        while ((irp = IoCsqRemoveNextIrp(&Port->Queue, Sp->FileObject)) != NULL)
            CtlComplete(irp, STATUS_CANCELLED, 0);
    }
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

/* The filter */

static NTSTATUS NTAPI MeterReadDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PFILTER filter = Context;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
#ifdef FIXED
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
#endif
    KeAcquireSpinLock(&filter->Lock, &irql);
    filter->Report.Requests++;
    if (NT_SUCCESS(Irp->IoStatus.Status))
        filter->Report.Bytes += Irp->IoStatus.Information;
    else
        filter->Report.Failed++;
    KeReleaseSpinLock(&filter->Lock, irql);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI MeterRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILTER filter = DeviceObject->DeviceExtension;

    if (!filter->Common.IsFilter)
        return PortRead(DeviceObject->DeviceExtension, Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, MeterReadDone, filter, TRUE, TRUE, TRUE);
    return IoCallDriver(filter->Lower, Irp);
}

static NTSTATUS NTAPI MeterPass(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILTER filter = DeviceObject->DeviceExtension;

    if (!filter->Common.IsFilter)
        return PortOther(DeviceObject->DeviceExtension, Irp, IoGetCurrentIrpStackLocation(Irp));
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(filter->Lower, Irp);
}

static NTSTATUS NTAPI MeterControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILTER filter = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    KIRQL irql;

    if (!filter->Common.IsFilter || sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_METER_QUERY)
        return CtlComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(METER_REPORT))
        return CtlComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&filter->Lock, &irql);
    *(PMETER_REPORT)Irp->AssociatedIrp.SystemBuffer = filter->Report;
    KeReleaseSpinLock(&filter->Lock, irql);
    return CtlComplete(Irp, STATUS_SUCCESS, sizeof(METER_REPORT));
}

static VOID NTAPI MeterUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT device = Driver->DeviceObject;
    PDEVICE_OBJECT lower;
    PPORT port;

    /* The filter was made last and is the first of the list. */
    lower = ((PFILTER)device->DeviceExtension)->Lower;
    port = lower->DeviceExtension;
    KeCancelTimer(&port->Timer);
    KeFlushQueuedDpcs();
    IoDetachDevice(lower);
    IoDeleteDevice(device);
    CtlDelete(lower, METER_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT lower, upper;
    PPORT port;
    PFILTER filter;
    LARGE_INTEGER due;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = MeterPass;
    Driver->MajorFunction[IRP_MJ_CLOSE] = MeterPass;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = MeterPass;
    Driver->MajorFunction[IRP_MJ_READ] = MeterRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MeterControl;
    Driver->DriverUnload = MeterUnload;

    status = CtlCreate(Driver, L"\\Device\\MeterPort", METER_LINK, sizeof(PORT), DO_BUFFERED_IO, &lower);
    if (!NT_SUCCESS(status))
        return status;
    port = lower->DeviceExtension;
    KeInitializeSpinLock(&port->Lock);
    InitializeListHead(&port->Reads);
    KeInitializeTimerEx(&port->Timer, NotificationTimer);
    KeInitializeDpc(&port->Dpc, PortTick, port);
    IoCsqInitialize(&port->Queue, PortInsert, PortRemove, PortPeek, PortAcquire, PortRelease, PortCancelled);

    status = IoCreateDevice(Driver, sizeof(FILTER), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &upper);
    if (!NT_SUCCESS(status)) {
        CtlDelete(lower, METER_LINK);
        return status;
    }
    filter = upper->DeviceExtension;
    RtlZeroMemory(filter, sizeof(FILTER));
    filter->Common.IsFilter = TRUE;
    KeInitializeSpinLock(&filter->Lock);
    lower->Flags &= ~DO_DEVICE_INITIALIZING;
    filter->Lower = IoAttachDeviceToDeviceStack(upper, lower);
    if (!filter->Lower) {
        IoDeleteDevice(upper);
        CtlDelete(lower, METER_LINK);
        return STATUS_NO_SUCH_DEVICE;
    }
    upper->Flags |= filter->Lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO);
    upper->Flags &= ~DO_DEVICE_INITIALIZING;

    due.QuadPart = -10000LL * METER_PERIOD_MS;
    KeSetTimerEx(&port->Timer, due, METER_PERIOD_MS, &port->Dpc);
    return STATUS_SUCCESS;
}
