/*
 * incubat: a laboratory incubator on a root-enumerated device: a timer's DPC moves a simulated chamber towards its set
 * point five times a second and keeps a log of the last 256 temperatures, which READ and IOCTLs give out.
 *
 * The bug: removal cancels the timer but does not wait for a DPC already queued or running before the log is freed
 * and the device deleted.
 *
 * Device: ROOT\INCUBAT
 * Rule: freed-queued-dpc, use-after-free, freed-held-lock
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define IOCTL_INC_SETPOINT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_INC_NOW      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_READ_ACCESS)

#define LOG 256
#define TAG 'ucnI'

static const GUID IncubatorInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x01 } };

typedef struct INC_NOW { LONG SetPoint, Temperature; ULONG Ticks, Heating; } INC_NOW;   /* in hundredths of a degree */

typedef struct INCUBATOR {
    PDEVICE_OBJECT Self, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    KSPIN_LOCK Lock;            /* guards all below but the timer */
    BOOLEAN Running;
    INC_NOW Now;
    LONG *Log;
    ULONG Next, Count;
    KTIMER Timer;
    KDPC Dpc;
} INCUBATOR;

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI IncTick(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    INCUBATOR *inc = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&inc->Lock);
    inc->Now.Heating = inc->Now.Temperature < inc->Now.SetPoint;
    inc->Now.Temperature += inc->Now.Heating ? 7 : -2;
    inc->Now.Ticks++;
    inc->Log[inc->Next] = inc->Now.Temperature;
    inc->Next = (inc->Next + 1) % LOG;
    if (inc->Count < LOG)
        inc->Count++;
    KeReleaseSpinLockFromDpcLevel(&inc->Lock);
}

static VOID IncStart(INCUBATOR *inc)
{
    LARGE_INTEGER due;
    KIRQL irql;

    KeAcquireSpinLock(&inc->Lock, &irql);
    inc->Running = TRUE;
    KeReleaseSpinLock(&inc->Lock, irql);
    due.QuadPart = -2000000;
    KeSetTimerEx(&inc->Timer, due, 200, &inc->Dpc);
}

static VOID IncHalt(INCUBATOR *inc)
{
    KIRQL irql;

    KeAcquireSpinLock(&inc->Lock, &irql);
    inc->Running = FALSE;
    KeReleaseSpinLock(&inc->Lock, irql);
    KeCancelTimer(&inc->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
}

static NTSTATUS NTAPI IncCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return Finish(irp, STATUS_SUCCESS, 0);
}

/* Gives the log, the oldest value first. */
static NTSTATUS NTAPI IncRead(PDEVICE_OBJECT dev, PIRP irp)
{
    INCUBATOR *inc = dev->DeviceExtension;
    ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(LONG);
    LONG *to = irp->AssociatedIrp.SystemBuffer;
    ULONG i, n;
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&inc->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Finish(irp, status, 0);
    KeAcquireSpinLock(&inc->Lock, &irql);
    n = inc->Count < room ? inc->Count : room;
    for (i = 0; i < n; i++)
        to[i] = inc->Log[(inc->Next + LOG - inc->Count + i) % LOG];
    KeReleaseSpinLock(&inc->Lock, irql);
    status = Finish(irp, STATUS_SUCCESS, n * sizeof(LONG));
    IoReleaseRemoveLock(&inc->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI IncControl(PDEVICE_OBJECT dev, PIRP irp)
{
    INCUBATOR *inc = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG_PTR info = 0;
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&inc->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Finish(irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_INC_SETPOINT: {
        LONG wanted;
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(LONG)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        wanted = *(LONG *)irp->AssociatedIrp.SystemBuffer;
        if (wanted < 500 || wanted > 6000) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&inc->Lock, &irql);
        if (inc->Running)
            inc->Now.SetPoint = wanted;
        else
            status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&inc->Lock, irql);
        break;
    }
    case IOCTL_INC_NOW:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(INC_NOW)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&inc->Lock, &irql);
        *(INC_NOW *)irp->AssociatedIrp.SystemBuffer = inc->Now;
        KeReleaseSpinLock(&inc->Lock, irql);
        info = sizeof(INC_NOW);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    Finish(irp, status, info);
    IoReleaseRemoveLock(&inc->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI IncPass(PDEVICE_OBJECT dev, PIRP irp)
{
    INCUBATOR *inc = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&inc->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Finish(irp, status, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(inc->Lower, irp);
    IoReleaseRemoveLock(&inc->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI IncPower(PDEVICE_OBJECT dev, PIRP irp)
{
    INCUBATOR *inc = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&inc->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Finish(irp, status, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(inc->Lower, irp);
    IoReleaseRemoveLock(&inc->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI IncPnp(PDEVICE_OBJECT dev, PIRP irp)
{
    INCUBATOR *inc = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&inc->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Finish(irp, status, 0);
    switch (IoGetCurrentIrpStackLocation(irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(inc->Lower, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status)) {
            IncStart(inc);
            IoSetDeviceInterfaceState(&inc->Link, TRUE);
        }
        Finish(irp, status, 0);
        IoReleaseRemoveLock(&inc->RemoveLock, irp);
        return status;
    case IRP_MN_STOP_DEVICE:
        IncHalt(inc);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&inc->Link, FALSE);
        IncHalt(inc);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&inc->Link, FALSE);
        IoReleaseRemoveLockAndWait(&inc->RemoveLock, irp);
        IncHalt(inc);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(inc->Lower, irp);
        ExFreePoolWithTag(inc->Log, TAG);
        RtlFreeUnicodeString(&inc->Link);
        IoDetachDevice(inc->Lower);
        IoDeleteDevice(dev);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(inc->Lower, irp);
    IoReleaseRemoveLock(&inc->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI IncAddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    INCUBATOR *inc;
    NTSTATUS status = IoCreateDevice(drv, sizeof(INCUBATOR), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(status))
        return status;
    inc = dev->DeviceExtension;
    RtlZeroMemory(inc, sizeof(*inc));
    inc->Self = dev;
    inc->Now.SetPoint = 3700;
    inc->Now.Temperature = 2100;
    IoInitializeRemoveLock(&inc->RemoveLock, TAG, 0, 0);
    KeInitializeSpinLock(&inc->Lock);
    KeInitializeTimer(&inc->Timer);
    KeInitializeDpc(&inc->Dpc, IncTick, inc);
    inc->Log = ExAllocatePoolWithTag(NonPagedPool, LOG * sizeof(LONG), TAG);
    if (!inc->Log) {
        IoDeleteDevice(dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    status = IoRegisterDeviceInterface(pdo, &IncubatorInterface, NULL, &inc->Link);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(inc->Log, TAG);
        IoDeleteDevice(dev);
        return status;
    }
    inc->Lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (!inc->Lower) {
        RtlFreeUnicodeString(&inc->Link);
        ExFreePoolWithTag(inc->Log, TAG);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI IncUnload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    drv->DriverExtension->AddDevice = IncAddDevice;
    drv->DriverUnload = IncUnload;
    drv->MajorFunction[IRP_MJ_CREATE] = IncCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = IncCreateClose;
    drv->MajorFunction[IRP_MJ_READ] = IncRead;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = IncControl;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = IncPass;
    drv->MajorFunction[IRP_MJ_POWER] = IncPower;
    drv->MajorFunction[IRP_MJ_PNP] = IncPnp;
    return STATUS_SUCCESS;
}
