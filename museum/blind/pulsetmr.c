/*
 * pulsetmr: gives trains of pulses. A program starts a train (period, number), and others wait for its next pulse,
 * in requests that are held pending; the timer is set anew from its DPC, pulse by pulse.
 *
 * The bug: the DPC sets the timer again without a look whether the train has been ended in the meantime. Where the
 * device is stopped or removed while it runs, the timer stays set in a device extension that goes.
 *
 * Device: ROOT\PULSETMR
 * Rule: freed-active-timer, unload-still-called, use-after-free
 * Needs: ioctl, schedule, removal
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define IOCTL_PT_BEGIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PT_END   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PT_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PT_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x883, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID GUID_PULSETMR = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x02 } };

typedef struct _PT_TRAIN {
    ULONG Period;                       /* milliseconds, 1 to 10000 */
    ULONG Pulses;                       /* 0: until it is ended */
} PT_TRAIN, *PPT_TRAIN;

typedef struct _PT_STATE {
    ULONG Running;
    ULONG Given;                        /* pulses, of all trains */
} PT_STATE, *PPT_STATE;

typedef struct _PT_EXT {
    FR_EXT Frame;
    FR_QUEUE Waits;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;                    /* all below, and setting the timer */
    BOOLEAN Running;
    PT_TRAIN Train;
    ULONG Left;
    ULONG Given;
} PT_EXT, *PPT_EXT;

static VOID PtWaitDone(PVOID Context, PIRP Irp, NTSTATUS Status)
{
    PPT_EXT Ext = Context;
    FrComplete(Irp, Status, 0);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static VOID PtSet(PPT_EXT Ext)
{
    LARGE_INTEGER Due;
    Due.QuadPart = -10000LL * Ext->Train.Period;
    KeSetTimer(&Ext->Timer, Due, &Ext->Dpc);
}

static VOID NTAPI PtDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PPT_EXT Ext = Context;
    ULONG Given;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
#ifdef FIXED
    if (!Ext->Running) {
        KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
        return;
    }
#endif
    Given = ++Ext->Given;
    if (Ext->Train.Pulses && --Ext->Left == 0)
        Ext->Running = FALSE;
    else
        PtSet(Ext);
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);

    while ((Irp = FrQueueTake(&Ext->Waits, NULL)) != NULL) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Given;
        FrComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
        IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
    }
}

static NTSTATUS PtBegin(PPT_EXT Ext, PPT_TRAIN Train)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (Train->Period < 1 || Train->Period > 10000)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (Ext->Running) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        Ext->Running = TRUE;
        Ext->Train = *Train;
        Ext->Left = Train->Pulses;
        PtSet(Ext);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return Status;
}

static VOID PtEnd(PPT_EXT Ext)
{
    KIRQL Irql;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Ext->Running = FALSE;
    KeCancelTimer(&Ext->Timer);
    KeReleaseSpinLock(&Ext->Lock, Irql);
}

static NTSTATUS PtControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPT_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    KIRQL Irql;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PT_BEGIN:
        Status = InLength < sizeof(PT_TRAIN) ? STATUS_INVALID_PARAMETER : PtBegin(Ext, Buffer);
        break;

    case IOCTL_PT_END:
        PtEnd(Ext);
        break;

    case IOCTL_PT_WAIT:
        if (OutLength < sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Irp);
        if (!NT_SUCCESS(Status))
            break;
        Status = FrQueuePut(&Ext->Waits, Irp);
        FrLeave(&Ext->Frame);
        return Status;

    case IOCTL_PT_STATE:
        if (OutLength < sizeof(PT_STATE)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        ((PPT_STATE)Buffer)->Running = Ext->Running;
        ((PPT_STATE)Buffer)->Given = Ext->Given;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        Information = sizeof(PT_STATE);
        break;

    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, Information);
}

static NTSTATUS PtCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPT_EXT Ext = DeviceObject->DeviceExtension;
    FrQueueFlush(&Ext->Waits, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID PtStop(PFR_EXT Frame)
{
    PPT_EXT Ext = (PPT_EXT)Frame;
    PtEnd(Ext);
    KeFlushQueuedDpcs();
    FrQueueFlush(&Ext->Waits, NULL, STATUS_DEVICE_NOT_READY);
}

static VOID PtAbort(PFR_EXT Frame)
{
    FrQueueFlush(&((PPT_EXT)Frame)->Waits, NULL, STATUS_DELETE_PENDING);
}

static const FR_OPS PtOps = { .Stop = PtStop, .Abort = PtAbort };

static VOID PtInit(PFR_EXT Frame)
{
    PPT_EXT Ext = (PPT_EXT)Frame;
    KeInitializeSpinLock(&Ext->Lock);
    KeInitializeTimer(&Ext->Timer);
    KeInitializeDpc(&Ext->Dpc, PtDpc, Ext);
    FrQueueInit(&Ext->Waits, PtWaitDone, Ext);
}

static NTSTATUS NTAPI PtAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(PT_EXT), DO_BUFFERED_IO, &GUID_PULSETMR, &PtOps, PtInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, PtAddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PtCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PtControl;
    return STATUS_SUCCESS;
}
