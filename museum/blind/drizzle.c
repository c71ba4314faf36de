/*
 * drizzle: samples the length of the timer's real intervals ("jitter") into a ring, at a period which programs
 * set; reads take the samples out.
 *
 * The bug: the unload routine cancels the timer and frees the ring without waiting for the timer's DPC, which may be
 * queued or running on another processor.
 *
 * Device: none
 * Rule: freed-held-lock, use-after-free, freed-queued-dpc
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define IOCTL_DRIZZLE_RATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_DRIZZLE_LOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_READ_DATA)
#define TAG 'zzrD'
#define RING 512        /* samples */

typedef struct _DRIZZLE {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    LARGE_INTEGER Last;
    ULONG Head, Fill, Lost;
    PULONGLONG Ring;
} DRIZZLE, *PDRIZZLE;

static VOID NTAPI DrizzleDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PDRIZZLE d = context;
    LARGE_INTEGER now;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    now = KeQueryPerformanceCounter(NULL);
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    if (d->Last.QuadPart != 0) {
        if (d->Fill == RING) {
            d->Lost++;
        } else {
            d->Ring[(d->Head + d->Fill) % RING] = (ULONGLONG)(now.QuadPart - d->Last.QuadPart);
            d->Fill++;
        }
    }
    d->Last = now;
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
}

static NTSTATUS SetRate(PDRIZZLE d, PIRP irp, ULONG in)
{
    LARGE_INTEGER due;
    ULONG ms;
    KIRQL irql;

    if (in < sizeof ms)
        return STATUS_BUFFER_TOO_SMALL;
    ms = *(PULONG)irp->AssociatedIrp.SystemBuffer;
    if (ms > 10000)
        return STATUS_INVALID_PARAMETER;
    KeCancelTimer(&d->Timer);
    KeAcquireSpinLock(&d->Lock, &irql);
    d->Last.QuadPart = 0;
    KeReleaseSpinLock(&d->Lock, irql);
    if (ms != 0) {
        due.QuadPart = -10000LL * ms;
        KeSetTimerEx(&d->Timer, due, (LONG)ms, &d->Dpc);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DrizzleControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PDRIZZLE d = dev->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG_PTR info = 0;
    KIRQL irql;
    NTSTATUS status;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DRIZZLE_RATE:
        status = SetRate(d, irp, stack->Parameters.DeviceIoControl.InputBufferLength);
        break;
    case IOCTL_DRIZZLE_LOST:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&d->Lock, &irql);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = d->Lost;
        d->Lost = 0;
        KeReleaseSpinLock(&d->Lock, irql);
        info = sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI DrizzleRead(PDEVICE_OBJECT dev, PIRP irp)
{
    PDRIZZLE d = dev->DeviceExtension;
    ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONGLONG), n = 0;
    PULONGLONG out = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    KeAcquireSpinLock(&d->Lock, &irql);
    while (n < room && d->Fill != 0) {
        out[n++] = d->Ring[d->Head];
        d->Head = (d->Head + 1) % RING;
        d->Fill--;
    }
    KeReleaseSpinLock(&d->Lock, irql);
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = n * sizeof(ULONGLONG);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DrizzleCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI DrizzleUnload(PDRIVER_OBJECT driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Drizzle");
    PDRIZZLE d = driver->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&link);
    KeCancelTimer(&d->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    ExFreePoolWithTag(d->Ring, TAG);
    IoDeleteDevice(driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Drizzle"), link = RTL_CONSTANT_STRING(L"\\DosDevices\\Drizzle");
    PDEVICE_OBJECT dev;
    PDRIZZLE d;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(driver, sizeof(DRIZZLE), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    d = dev->DeviceExtension;
    RtlZeroMemory(d, sizeof *d);
    d->Ring = ExAllocatePoolWithTag(NonPagedPoolNx, RING * sizeof(ULONGLONG), TAG);
    if (d->Ring == NULL) {
        IoDeleteDevice(dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    KeInitializeSpinLock(&d->Lock);
    KeInitializeTimer(&d->Timer);
    KeInitializeDpc(&d->Dpc, DrizzleDpc, d);
    driver->MajorFunction[IRP_MJ_CREATE] = DrizzleCreateClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = DrizzleCreateClose;
    driver->MajorFunction[IRP_MJ_READ] = DrizzleRead;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DrizzleControl;
    driver->DriverUnload = DrizzleUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(d->Ring, TAG);
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}
