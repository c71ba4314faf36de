/*
 * passlog - request statistics filter
 *
 * Sits on top of a device and counts what goes through: number of requests,
 * bytes, failures, requests under way.  When nothing but the PDO is below it,
 * it also takes care of opening and closing.  IOCTL_PASSLOG_GET returns the
 * counters to who has the device open.
 *
 * The bug: the completion routine does not pass on that the driver below has marked the request pending.
 *
 * Device: ROOT\PASSLOG
 * Rule: pending-not-marked
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>

#define PL_TAG 'glaP'
#define IOCTL_PASSLOG_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xF01, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID PlGuid =
    { 0xa3c4d1ee, 0x7f24, 0x4f0a, { 0x93, 0x5d, 0x0e, 0x1b, 0x77, 0xc2, 0x48, 0xd9 } };

typedef struct _PL_COUNTERS {
    LONG64 Requests;
    LONG64 Bytes;
    LONG64 Failures;
    LONG64 UnderWay;
} PL_COUNTERS;

typedef struct _PL_FILTER {
    PDEVICE_OBJECT Self, Pdo, Next;
    IO_REMOVE_LOCK Lock;
    UNICODE_STRING Link;
    BOOLEAN        Alone;               /* no function driver below us */
    volatile LONG64 Requests, Bytes, Failures, UnderWay;
} PL_FILTER, *PPL_FILTER;

static NTSTATUS NTAPI PlPassed(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PPL_FILTER f = Context;

    UNREFERENCED_PARAMETER(DeviceObject);

#ifdef FIXED
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
#endif
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction != IRP_MJ_PNP)
            InterlockedExchangeAdd64(&f->Bytes, (LONG64)Irp->IoStatus.Information);
    } else {
        InterlockedIncrement64(&f->Failures);
    }
    InterlockedDecrement64(&f->UnderWay);
    IoReleaseRemoveLock(&f->Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* Remove lock held with the IRP as tag; it is given back on completion. */
static NTSTATUS PlPassCounted(PPL_FILTER f, PIRP Irp)
{
    InterlockedIncrement64(&f->Requests);
    InterlockedIncrement64(&f->UnderWay);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, PlPassed, f, TRUE, TRUE, TRUE);
    return IoCallDriver(f->Next, Irp);
}

static NTSTATUS PlFail(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI PlAny(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPL_FILTER f = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->Lock, Irp);

    if (!NT_SUCCESS(status))
        return PlFail(Irp, status);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Next, Irp);
    IoReleaseRemoveLock(&f->Lock, Irp);
    return status;
}

static NTSTATUS NTAPI PlOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPL_FILTER f = DeviceObject->DeviceExtension;

    if (f->Alone)
        return PlFail(Irp, STATUS_SUCCESS);
    return PlAny(DeviceObject, Irp);
}

static NTSTATUS NTAPI PlTransfer(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPL_FILTER f = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->Lock, Irp);

    if (!NT_SUCCESS(status))
        return PlFail(Irp, status);
    return PlPassCounted(f, Irp);
}

static NTSTATUS NTAPI PlControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPL_FILTER f = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PL_COUNTERS *c = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&f->Lock, Irp);

    if (!NT_SUCCESS(status))
        return PlFail(Irp, status);

    if (sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_PASSLOG_GET)
        return PlPassCounted(f, Irp);

    if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*c)) {
        status = PlFail(Irp, STATUS_BUFFER_TOO_SMALL);
    } else {
        c->Requests = InterlockedExchangeAdd64(&f->Requests, 0);
        c->Bytes = InterlockedExchangeAdd64(&f->Bytes, 0);
        c->Failures = InterlockedExchangeAdd64(&f->Failures, 0);
        c->UnderWay = InterlockedExchangeAdd64(&f->UnderWay, 0);
        Irp->IoStatus.Status = status = STATUS_SUCCESS;
        Irp->IoStatus.Information = sizeof(*c);
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
    IoReleaseRemoveLock(&f->Lock, Irp);
    return status;
}

static NTSTATUS NTAPI PlPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPL_FILTER f = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->Lock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status))
        return PlFail(Irp, status);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(f->Next, Irp);
    IoReleaseRemoveLock(&f->Lock, Irp);
    return status;
}

static NTSTATUS NTAPI PlPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPL_FILTER f = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&f->Lock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }

    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        if (!IoForwardIrpSynchronously(f->Next, Irp))
            Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        status = Irp->IoStatus.Status;
        if (NT_SUCCESS(status)) {
            DeviceObject->Characteristics |= f->Next->Characteristics & FILE_REMOVABLE_MEDIA;
            if (f->Link.Buffer)
                IoSetDeviceInterfaceState(&f->Link, TRUE);
        }
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&f->Lock, Irp);
        return status;

    case IRP_MN_SURPRISE_REMOVAL:
        if (f->Link.Buffer)
            IoSetDeviceInterfaceState(&f->Link, FALSE);
        if (f->Alone)
            Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        if (f->Link.Buffer)
            IoSetDeviceInterfaceState(&f->Link, FALSE);
        IoReleaseRemoveLockAndWait(&f->Lock, Irp);
        if (f->Alone)
            Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(f->Next, Irp);
        RtlFreeUnicodeString(&f->Link);
        IoDetachDevice(f->Next);
        IoDeleteDevice(DeviceObject);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        if (f->Alone)
            Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Next, Irp);
    IoReleaseRemoveLock(&f->Lock, Irp);
    return status;
}

static NTSTATUS NTAPI PlAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PPL_FILTER f;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(PL_FILTER), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;

    f = dev->DeviceExtension;
    RtlZeroMemory(f, sizeof(*f));
    f->Self = dev;
    f->Pdo = Pdo;
    IoInitializeRemoveLock(&f->Lock, PL_TAG, 0, 0);

    /* Statistics are a convenience: do without the interface if need be. */
    if (!NT_SUCCESS(IoRegisterDeviceInterface(Pdo, &PlGuid, NULL, &f->Link)))
        RtlInitUnicodeString(&f->Link, NULL);

    f->Next = IoAttachDeviceToDeviceStack(dev, Pdo);
    if (!f->Next) {
        RtlFreeUnicodeString(&f->Link);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    f->Alone = f->Next == Pdo;
    dev->DeviceType = f->Next->DeviceType;
    dev->Characteristics |= f->Next->Characteristics;
    dev->Flags |= f->Next->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE | DO_POWER_INRUSH);
    if (f->Alone)
        dev->Flags |= DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI PlUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++)
        DriverObject->MajorFunction[i] = PlAny;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = PlOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = PlOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = PlOpenClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = PlTransfer;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = PlTransfer;
    DriverObject->MajorFunction[IRP_MJ_FLUSH_BUFFERS] = PlTransfer;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PlControl;
    DriverObject->MajorFunction[IRP_MJ_POWER] = PlPower;
    DriverObject->MajorFunction[IRP_MJ_PNP] = PlPnp;
    DriverObject->DriverExtension->AddDevice = PlAddDevice;
    DriverObject->DriverUnload = PlUnload;
    return STATUS_SUCCESS;
}
