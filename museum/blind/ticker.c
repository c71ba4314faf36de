/*
 * ticker.sys: a watchdog for an application. IOCTL_TICKER_START (a time in milliseconds) starts it; then IOCTL_TICKER_PET has to come
 * within that time again and again; if it does not the watchdog bites once, which is counted, and is off. IOCTL_TICKER_STOP
 * turns it off, IOCTL_TICKER_READ yields the number of bites.
 *
 * The bug: Pet asks under the lock whether the watchdog is on, but sets the timer after it has let go of the lock. If it is stopped
 * in between, its timer is set while it is off. Stop does nothing if it is off, at unload too: the timer stays in the system's
 * list when the driver has gone.
 *
 * How it shows: one thread pets the watchdog while another one stops it (or while it bites), the application ends, and the driver
 * is unloaded within the time.
 *
 * Device: none
 * Rule: freed-active-timer, unload-still-called, use-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_TICKER_START CTL_CODE(0x8001, 0xA00, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TICKER_STOP CTL_CODE(0x8001, 0xA01, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TICKER_READ CTL_CODE(0x8001, 0xA02, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TICKER_PET CTL_CODE(0x8001, 0xA03, METHOD_BUFFERED, FILE_ANY_ACCESS)

DRIVER_INITIALIZE DriverEntry;
static DRIVER_UNLOAD TickerUnload;
static DRIVER_DISPATCH TickerOpenClose;
static DRIVER_DISPATCH TickerDeviceControl;
static KDEFERRED_ROUTINE TickerBite;

typedef struct _TICKER_EXTENSION {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;    // of what follows
    BOOLEAN On;         // the timer is set, or its DPC on its way
    ULONG Period;       // milliseconds
    ULONGLONG Deadline; // when the timer ends
    ULONGLONG Bites;
} TICKER_EXTENSION, *PTICKER_EXTENSION;

static const WCHAR NtName[] = L"\\Device\\Ticker";
static const WCHAR DosName[] = L"\\DosDevices\\Ticker";

static void
Arm(PTICKER_EXTENSION Ext)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * Ext->Period;
    Ext->Deadline = KeQueryInterruptTime() + 10000ULL * Ext->Period;
    KeSetTimer(&Ext->Timer, Due, &Ext->Dpc);
}

static VOID NTAPI
TickerBite(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PTICKER_EXTENSION Ext = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);

    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    if (Ext->On && KeQueryInterruptTime() >= Ext->Deadline) { // else it was petted just now, and the timer is set again
        Ext->On = FALSE;
        Ext->Bites++;
    }
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
}

static void
Start(PTICKER_EXTENSION Ext, ULONG Period)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Ext->Period = Period;
    Ext->On = TRUE;
    Arm(Ext);
    KeReleaseSpinLock(&Ext->Lock, Irql);
}

static NTSTATUS
Pet(PTICKER_EXTENSION Ext)
{
    BOOLEAN On;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    On = Ext->On;
#ifdef FIXED
    if (On) {
        Arm(Ext);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
#else
    KeReleaseSpinLock(&Ext->Lock, Irql);
    if (On) {
        Arm(Ext);
    }
#endif
    return On ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
}

static void
Stop(PTICKER_EXTENSION Ext)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (Ext->On) {
        Ext->On = FALSE;
        KeCancelTimer(&Ext->Timer);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
}

static NTSTATUS NTAPI
TickerOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI
TickerDeviceControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTICKER_EXTENSION Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION IrpSp = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = IrpSp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = IrpSp->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG_PTR Information = 0;
    ULONG Period;
    KIRQL Irql;

    switch (IrpSp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TICKER_START:
        if (InLength < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Period = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        if (Period == 0 || Period > 60 * 1000) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Start(Ext, Period);
        break;

    case IOCTL_TICKER_STOP:
        Stop(Ext);
        break;

    case IOCTL_TICKER_PET:
        Status = Pet(Ext);
        break;

    case IOCTL_TICKER_READ:
        if (OutLength < sizeof(ULONGLONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        *(PULONGLONG)Irp->AssociatedIrp.SystemBuffer = Ext->Bites;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        Information = sizeof(ULONGLONG);
        break;

    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }

    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI
TickerUnload(PDRIVER_OBJECT DriverObject)
{
    PDEVICE_OBJECT DeviceObject = DriverObject->DeviceObject;
    UNICODE_STRING Link;

    RtlInitUnicodeString(&Link, DosName);
    IoDeleteSymbolicLink(&Link);
    Stop(DeviceObject->DeviceExtension);
    KeFlushQueuedDpcs();
    IoDeleteDevice(DeviceObject);
}

NTSTATUS NTAPI
DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT DeviceObject;
    PTICKER_EXTENSION Ext;
    UNICODE_STRING Name, Link;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    RtlInitUnicodeString(&Name, NtName);
    RtlInitUnicodeString(&Link, DosName);

    Status = IoCreateDevice(DriverObject, sizeof(TICKER_EXTENSION), &Name, 0x8001, FILE_DEVICE_SECURE_OPEN, FALSE,
                            &DeviceObject);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Ext = DeviceObject->DeviceExtension;
    KeInitializeSpinLock(&Ext->Lock);
    KeInitializeTimer(&Ext->Timer);
    KeInitializeDpc(&Ext->Dpc, TickerBite, Ext);

    DriverObject->MajorFunction[IRP_MJ_CREATE] = TickerOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = TickerOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TickerDeviceControl;
    DriverObject->DriverUnload = TickerUnload;

    Status = IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(DeviceObject);
    }
    return Status;
}
