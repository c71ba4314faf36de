/*
 * centrif: a centrifuge on a root-enumerated device: programs start a run (speed and seconds) and wait for its end;
 * a timer's DPC counts the run down. While the rotor spins, the driver refuses queries to sleep and to be removed.
 *
 * The bug: refusing a query-power request does not give back the remove lock, so the device can never be removed
 * afterwards.
 *
 * Device: ROOT\CENTRIF
 * Rule: deadlock
 * Needs: power
 */
#include <ddk/wdm.h>
#include "../include/waiting_requests.h"

#define IOCTL_ROTOR_RUN   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ROTOR_BRAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ROTOR_AWAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID CentrifugeInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x02 } };

typedef struct ROTOR_RUN { ULONG Speed, Seconds; } ROTOR_RUN;

typedef struct CENTRIFUGE {
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    KSPIN_LOCK Lock;            /* guards the four below */
    BOOLEAN Started, Gone;
    ULONG Left;                 /* seconds; 0: the rotor is still */
    ULONG Runs;
    KTIMER Timer;
    KDPC Dpc;
    WAITQ Waiting;              /* for the end of the run */
} CENTRIFUGE;

static NTSTATUS Complete(CENTRIFUGE *c, PIRP irp, NTSTATUS status)
{
    irp->IoStatus.Status = status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    if (c)
        IoReleaseRemoveLock(&c->RemoveLock, irp);
    return status;
}

/* Ends the run: the number of runs goes to all that wait. */
static VOID RotorEnd(CENTRIFUGE *c, ULONG runs)
{
    PIRP irp;

    while ((irp = WaitqTake(&c->Waiting, NULL)) != NULL) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = runs;
        WaitqFinish(&c->Waiting, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI RotorTick(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    CENTRIFUGE *c = context;
    BOOLEAN end = FALSE;
    ULONG runs;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    if (c->Left && --c->Left == 0) {
        KeCancelTimer(&c->Timer);
        c->Runs++;
        end = TRUE;
    }
    runs = c->Runs;
    KeReleaseSpinLockFromDpcLevel(&c->Lock);
    if (end)
        RotorEnd(c, runs);
}

static NTSTATUS RotorRun(CENTRIFUGE *c, const ROTOR_RUN *run)
{
    LARGE_INTEGER due = { .QuadPart = -10000000 };
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (run->Speed < 100 || run->Speed > 20000 || run->Seconds == 0 || run->Seconds > 3600)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&c->Lock, &irql);
    if (!c->Started || c->Gone) {
        status = STATUS_DEVICE_NOT_READY;
    } else if (c->Left) {
        status = STATUS_DEVICE_BUSY;
    } else {
        c->Left = run->Seconds;
        KeSetTimerEx(&c->Timer, due, 1000, &c->Dpc);
    }
    KeReleaseSpinLock(&c->Lock, irql);
    return status;
}

/* Stops the rotor; at PASSIVE_LEVEL, no tick runs any more afterwards. */
static VOID RotorHalt(CENTRIFUGE *c, BOOLEAN gone)
{
    KIRQL irql;

    KeAcquireSpinLock(&c->Lock, &irql);
    c->Started = FALSE;
    c->Gone |= gone;
    c->Left = 0;
    KeCancelTimer(&c->Timer);
    KeReleaseSpinLock(&c->Lock, irql);
    KeFlushQueuedDpcs();
}

static BOOLEAN RotorSpins(CENTRIFUGE *c)
{
    BOOLEAN spins;
    KIRQL irql;

    KeAcquireSpinLock(&c->Lock, &irql);
    spins = c->Left != 0;
    KeReleaseSpinLock(&c->Lock, irql);
    return spins;
}

static NTSTATUS NTAPI CenCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    CENTRIFUGE *c = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);

    irp->IoStatus.Information = 0;
    if (sp->MajorFunction == IRP_MJ_CLEANUP && NT_SUCCESS(IoAcquireRemoveLock(&c->RemoveLock, irp))) {
        WaitqDrain(&c->Waiting, sp->FileObject, STATUS_CANCELLED);
        return Complete(c, irp, STATUS_SUCCESS);
    }
    return Complete(NULL, irp, STATUS_SUCCESS);
}

static NTSTATUS NTAPI CenControl(PDEVICE_OBJECT dev, PIRP irp)
{
    CENTRIFUGE *c = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, irp);
    ULONG runs;
    KIRQL irql;

    irp->IoStatus.Information = 0;
    if (!NT_SUCCESS(status))
        return Complete(NULL, irp, status);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROTOR_RUN:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ROTOR_RUN))
            return Complete(c, irp, STATUS_INVALID_PARAMETER);
        return Complete(c, irp, RotorRun(c, irp->AssociatedIrp.SystemBuffer));
    case IOCTL_ROTOR_BRAKE:
        KeAcquireSpinLock(&c->Lock, &irql);
        if (c->Left) {
            c->Left = 0;
            KeCancelTimer(&c->Timer);
            c->Runs++;
        }
        runs = c->Runs;
        KeReleaseSpinLock(&c->Lock, irql);
        RotorEnd(c, runs);
        return Complete(c, irp, STATUS_SUCCESS);
    case IOCTL_ROTOR_AWAIT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return Complete(c, irp, STATUS_BUFFER_TOO_SMALL);
        status = WaitqPut(&c->Waiting, irp);
        if (status != STATUS_PENDING)
            return Complete(c, irp, status);
        /* the run may have ended before the request was in the queue */
        KeAcquireSpinLock(&c->Lock, &irql);
        status = c->Left ? STATUS_PENDING : STATUS_SUCCESS;
        runs = c->Runs;
        KeReleaseSpinLock(&c->Lock, irql);
        if (status == STATUS_SUCCESS)
            RotorEnd(c, runs);
        IoReleaseRemoveLock(&c->RemoveLock, irp);
        return STATUS_PENDING;
    default:
        return Complete(c, irp, STATUS_INVALID_DEVICE_REQUEST);
    }
}

static NTSTATUS NTAPI CenPower(PDEVICE_OBJECT dev, PIRP irp)
{
    CENTRIFUGE *c = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Complete(NULL, irp, status);
    if (IoGetCurrentIrpStackLocation(irp)->MinorFunction == IRP_MN_QUERY_POWER
            && IoGetCurrentIrpStackLocation(irp)->Parameters.Power.Type == SystemPowerState
            && IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State.SystemState != PowerSystemWorking
            && RotorSpins(c)) {
#ifdef FIXED
        return Complete(c, irp, STATUS_DEVICE_BUSY);
#else
        return Complete(NULL, irp, STATUS_DEVICE_BUSY);
#endif
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(c->Lower, irp);
    IoReleaseRemoveLock(&c->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI CenSystemControl(PDEVICE_OBJECT dev, PIRP irp)
{
    CENTRIFUGE *c = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Complete(NULL, irp, status);
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(c->Lower, irp);
    IoReleaseRemoveLock(&c->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI CenPnp(PDEVICE_OBJECT dev, PIRP irp)
{
    CENTRIFUGE *c = dev->DeviceExtension;
    UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return Complete(NULL, irp, status);
    switch (minor) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(c->Lower, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status)) {
            KeAcquireSpinLock(&c->Lock, &irql);
            c->Started = TRUE;
            KeReleaseSpinLock(&c->Lock, irql);
            IoSetDeviceInterfaceState(&c->Link, TRUE);
        }
        return Complete(c, irp, status);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (RotorSpins(c))
            return Complete(c, irp, STATUS_DEVICE_BUSY);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        RotorHalt(c, FALSE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&c->Link, FALSE);
        RotorHalt(c, TRUE);
        WaitqClose(&c->Waiting, STATUS_DEVICE_NOT_CONNECTED);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&c->Link, FALSE);
        RotorHalt(c, TRUE);
        WaitqClose(&c->Waiting, STATUS_DEVICE_NOT_CONNECTED);
        IoReleaseRemoveLockAndWait(&c->RemoveLock, irp);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(c->Lower, irp);
        RtlFreeUnicodeString(&c->Link);
        IoDetachDevice(c->Lower);
        IoDeleteDevice(dev);
        return status;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(c->Lower, irp);
    IoReleaseRemoveLock(&c->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI CenAddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    CENTRIFUGE *c;
    NTSTATUS status = IoCreateDevice(drv, sizeof(CENTRIFUGE), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(status))
        return status;
    c = dev->DeviceExtension;
    RtlZeroMemory(c, sizeof(*c));
    IoInitializeRemoveLock(&c->RemoveLock, 'rneC', 0, 0);
    KeInitializeSpinLock(&c->Lock);
    KeInitializeTimer(&c->Timer);
    KeInitializeDpc(&c->Dpc, RotorTick, c);
    WaitqInit(&c->Waiting, &c->RemoveLock);
    status = IoRegisterDeviceInterface(pdo, &CentrifugeInterface, NULL, &c->Link);
    if (NT_SUCCESS(status)) {
        c->Lower = IoAttachDeviceToDeviceStack(dev, pdo);
        if (!c->Lower) {
            RtlFreeUnicodeString(&c->Link);
            status = STATUS_NO_SUCH_DEVICE;
        }
    }
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI CenUnload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    drv->DriverExtension->AddDevice = CenAddDevice;
    drv->DriverUnload = CenUnload;
    drv->MajorFunction[IRP_MJ_CREATE] = CenCreateClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = CenCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = CenCreateClose;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CenControl;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CenSystemControl;
    drv->MajorFunction[IRP_MJ_POWER] = CenPower;
    drv->MajorFunction[IRP_MJ_PNP] = CenPnp;
    return STATUS_SUCCESS;
}
