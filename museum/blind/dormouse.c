/*
 * dormouse: keeps account of when the machine sleeps and wakes, for a power meter: the last 16 sleeps, and
 * requests that wait for the next time it wakes. It answers system power requests itself.
 *
 * The bug: the completion routine of a system power request asks for the device's one and keeps the system's
 * until that has come back, but where PoRequestPowerIrp fails nothing comes back: the request is never completed.
 *
 * Device: ROOT\DORMOUSE
 * Rule: power-irp-overdue, irp-never-completed, stuck
 * Needs: failure, power
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define DM_SLEEPS 16

#define IOCTL_DM_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DM_WAIT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DM_FORGET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID GUID_DORMOUSE = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x03 } };

typedef struct _DM_SLEEP {
    LARGE_INTEGER From;
    LARGE_INTEGER To;                   /* 0 while the device sleeps */
} DM_SLEEP, *PDM_SLEEP;

typedef struct _DM_EXT {
    FR_EXT Frame;
    FR_QUEUE Waits;
    KSPIN_LOCK Lock;                    /* all below */
    BOOLEAN Asleep;
    ULONG Count;                        /* of all sleeps; the latest is Sleep[(Count - 1) % DM_SLEEPS] */
    DM_SLEEP Sleep[DM_SLEEPS];
} DM_EXT, *PDM_EXT;

static VOID DmWaitDone(PVOID Context, PIRP Irp, NTSTATUS Status)
{
    PDM_EXT Ext = Context;
    FrComplete(Irp, Status, 0);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static VOID DmPowerDown(PFR_EXT Frame)
{
    PDM_EXT Ext = (PDM_EXT)Frame;
    LARGE_INTEGER Now;
    KIRQL Irql;

    KeQuerySystemTime(&Now);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (!Ext->Asleep) {
        PDM_SLEEP Sleep = &Ext->Sleep[Ext->Count++ % DM_SLEEPS];
        Sleep->From = Now;
        Sleep->To.QuadPart = 0;
        Ext->Asleep = TRUE;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
}

static VOID DmPowerUp(PFR_EXT Frame)
{
    PDM_EXT Ext = (PDM_EXT)Frame;
    LARGE_INTEGER Now;
    KIRQL Irql;

    KeQuerySystemTime(&Now);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (Ext->Asleep) {
        Ext->Sleep[(Ext->Count - 1) % DM_SLEEPS].To = Now;
        Ext->Asleep = FALSE;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
}

/* ---- system power ---- */

static VOID DmWake(PDM_EXT Ext)
{
    PIRP Irp;
    while ((Irp = FrQueueTake(&Ext->Waits, NULL)) != NULL) {
        PDM_SLEEP Out = Irp->AssociatedIrp.SystemBuffer;
        KIRQL Irql;
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        if (Ext->Count)
            *Out = Ext->Sleep[(Ext->Count - 1) % DM_SLEEPS];
        else
            RtlZeroMemory(Out, sizeof(*Out));
        KeReleaseSpinLock(&Ext->Lock, Irql);
        FrComplete(Irp, STATUS_SUCCESS, sizeof(DM_SLEEP));
        IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
    }
}

/* The device has come to its state: the system's request ends. */
static VOID NTAPI DmDeviceDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Io)
{
    PIRP Irp = Context;
    PDM_EXT Ext = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Pdo);
    UNREFERENCED_PARAMETER(Minor);
    if (State.DeviceState == PowerDeviceD0 && NT_SUCCESS(Io->Status))
        DmWake(Ext);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

/* The lower drivers are done with the system's request. */
static NTSTATUS NTAPI DmSystemDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PDM_EXT Ext = Context;
    SYSTEM_POWER_STATE System = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;
    POWER_STATE Power;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    Power.DeviceState = System == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
    Status = PoRequestPowerIrp(Ext->Frame.Pdo, IRP_MN_SET_POWER, Power, DmDeviceDone, Irp, NULL);
#ifdef FIXED
    if (Status != STATUS_PENDING) {                         /* the device stays as it is */
        IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
#else
    UNREFERENCED_PARAMETER(Status);
#endif
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS DmPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDM_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    if (Stack->MinorFunction != IRP_MN_SET_POWER)
        return FrPassDown(&Ext->Frame, Irp);
    if (Stack->Parameters.Power.Type == DevicePowerState)
        return FrDeviceSet(&Ext->Frame, Irp);
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, DmSystemDone, Ext, TRUE, TRUE, TRUE);
    IoCallDriver(Ext->Frame.Lower, Irp);
    return STATUS_PENDING;
}

/* ---- requests ---- */

static ULONG DmHistory(PDM_EXT Ext, PDM_SLEEP Out, ULONG Room)
{
    ULONG n, i;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    n = Ext->Count < DM_SLEEPS ? Ext->Count : DM_SLEEPS;
    if (n > Room)
        n = Room;
    for (i = 0; i < n; i++)                                 /* the latest first */
        Out[i] = Ext->Sleep[(Ext->Count - 1 - i) % DM_SLEEPS];
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return n * sizeof(DM_SLEEP);
}

static NTSTATUS DmControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDM_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR Information = 0;
    KIRQL Irql;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DM_HISTORY:
        Information = DmHistory(Ext, Irp->AssociatedIrp.SystemBuffer, OutLength / sizeof(DM_SLEEP));
        break;

    case IOCTL_DM_WAIT:
        if (OutLength < sizeof(DM_SLEEP)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Irp);
        if (!NT_SUCCESS(Status))
            break;
        Status = FrQueuePut(&Ext->Waits, Irp);
        FrLeave(&Ext->Frame);
        return Status;

    case IOCTL_DM_FORGET:
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        if (!Ext->Asleep)
            Ext->Count = 0;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        break;

    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, Information);
}

static NTSTATUS DmCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDM_EXT Ext = DeviceObject->DeviceExtension;
    FrQueueFlush(&Ext->Waits, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID DmStop(PFR_EXT Frame)
{
    FrQueueFlush(&((PDM_EXT)Frame)->Waits, NULL, STATUS_DEVICE_NOT_READY);
}

static VOID DmAbort(PFR_EXT Frame)
{
    FrQueueFlush(&((PDM_EXT)Frame)->Waits, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS DmStart(PFR_EXT Frame, PFR_RES Resources)
{
    PDM_EXT Ext = (PDM_EXT)Frame;
    KIRQL Irql;
    UNREFERENCED_PARAMETER(Resources);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Ext->Asleep = FALSE;
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return STATUS_SUCCESS;
}

static const FR_OPS DmOps = { .Start = DmStart, .Stop = DmStop, .Abort = DmAbort, .PowerDown = DmPowerDown, .PowerUp = DmPowerUp };

static VOID DmInit(PFR_EXT Frame)
{
    PDM_EXT Ext = (PDM_EXT)Frame;
    KeInitializeSpinLock(&Ext->Lock);
    FrQueueInit(&Ext->Waits, DmWaitDone, Ext);
}

static NTSTATUS NTAPI DmAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(DM_EXT), DO_BUFFERED_IO, &GUID_DORMOUSE, &DmOps, DmInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, DmAddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DmCleanup;
    Driver->MajorFunction[IRP_MJ_POWER] = DmPower;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DmControl;
    return STATUS_SUCCESS;
}
