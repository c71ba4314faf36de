/*
 * thermwat: a thermostat in software, for programs that have the sensor and others that wait for a
 * temperature: IOCTL_THERM_REPORT takes a reading, IOCTL_THERM_WAIT is answered when a reading is
 * at or above the threshold that it names. The requests wait in the driver's own queue.
 *
 * The bug: the routine that queues a request sets the cancel routine, but does not look whether the
 * request had been cancelled before: such a request stays in the queue.
 *
 * Device: ROOT\THERMWAT
 * Rule: cancellation-missed, irp-never-completed
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID ThermInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x01 } };

#define IOCTL_THERM_REPORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_THERM_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_THERM_LAST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_READ_ACCESS)

#define THERM_LOW  (-27315) /* hundredths of a degree */
#define THERM_HIGH 200000
#define THERM_MAX_WAITING 64

typedef struct _THERM_STATE {
    LONG Last;
    ULONG Readings;
} THERM_STATE;

typedef struct _THERM_EXT {
    FR_DEV Frame;
    KSPIN_LOCK Lock; /* what follows */
    LIST_ENTRY Waiting;
    ULONG Count;
    THERM_STATE State;
} THERM_EXT, *PTHERM_EXT;

static VOID NTAPI ThermCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTHERM_EXT x = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    x->Count--;
    KeReleaseSpinLock(&x->Lock, irql);
    FrDone(&x->Frame, Irp, STATUS_CANCELLED, 0);
}

static LONG ThermThreshold(PIRP Irp)
{
    return *(LONG *)Irp->AssociatedIrp.SystemBuffer;
}

/*
 * Takes a request from the queue: the first one of File (NULL: any) whose threshold is reached.
 * One whose cancel routine has been called is left to it. With the lock held.
 */
static PIRP ThermTake(PTHERM_EXT x, PFILE_OBJECT File, LONG Reached)
{
    PLIST_ENTRY l;

    for (l = x->Waiting.Flink; l != &x->Waiting; l = l->Flink) {
        PIRP irp = CONTAINING_RECORD(l, IRP, Tail.Overlay.ListEntry);
        if (File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        if (ThermThreshold(irp) > Reached)
            continue;
        if (!IoSetCancelRoutine(irp, NULL))
            continue;
        RemoveEntryList(l);
        x->Count--;
        return irp;
    }
    return NULL;
}

static VOID ThermFlush(PTHERM_EXT x, PFILE_OBJECT File, NTSTATUS Status)
{
    KIRQL irql;
    PIRP irp;

    do {
        KeAcquireSpinLock(&x->Lock, &irql);
        irp = ThermTake(x, File, MAXLONG);
        KeReleaseSpinLock(&x->Lock, irql);
        if (irp)
            FrDone(&x->Frame, irp, Status, 0);
    } while (irp);
}

static NTSTATUS ThermWait(PTHERM_EXT x, PIRP Irp)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Count >= THERM_MAX_WAITING) {
        KeReleaseSpinLock(&x->Lock, irql);
        return FrDone(&x->Frame, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, ThermCancel);
#ifdef FIXED
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&x->Lock, irql);
        FrDone(&x->Frame, Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
#endif
    /* The cancel routine waits for the lock, and finds the request in the queue. */
    InsertTailList(&x->Waiting, &Irp->Tail.Overlay.ListEntry);
    x->Count++;
    KeReleaseSpinLock(&x->Lock, irql);
    return STATUS_PENDING;
}

static VOID ThermReport(PTHERM_EXT x, LONG Reading)
{
    THERM_STATE state;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->State.Last = Reading;
    x->State.Readings++;
    state = x->State;
    KeReleaseSpinLock(&x->Lock, irql);
    do {
        KeAcquireSpinLock(&x->Lock, &irql);
        irp = ThermTake(x, NULL, Reading);
        KeReleaseSpinLock(&x->Lock, irql);
        if (irp) {
            *(THERM_STATE *)irp->AssociatedIrp.SystemBuffer = state;
            FrDone(&x->Frame, irp, STATUS_SUCCESS, sizeof(state));
        }
    } while (irp);
}

static NTSTATUS NTAPI ThermControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTHERM_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = FrBeginHeld(d, Irp);
    KIRQL irql;
    LONG value;

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (!NT_SUCCESS(status)) {
        FrDone(d, Irp, status, 0);
        FrEnd(d);
        return status;
    }
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_THERM_REPORT:
        if (inLength < sizeof(LONG)) {
            status = FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
            break;
        }
        value = *(LONG *)buffer;
        if (value < THERM_LOW || value > THERM_HIGH) {
            status = FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
            break;
        }
        ThermReport(x, value);
        status = FrDone(d, Irp, STATUS_SUCCESS, 0);
        break;
    case IOCTL_THERM_WAIT:
        if (inLength < sizeof(LONG) || outLength < sizeof(THERM_STATE))
            status = FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        else if (*(LONG *)buffer > THERM_HIGH)
            status = FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        else
            status = ThermWait(x, Irp);
        break;
    case IOCTL_THERM_LAST:
        if (outLength < sizeof(THERM_STATE)) {
            status = FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
            break;
        }
        KeAcquireSpinLock(&x->Lock, &irql);
        *(THERM_STATE *)buffer = x->State;
        KeReleaseSpinLock(&x->Lock, irql);
        status = FrDone(d, Irp, STATUS_SUCCESS, sizeof(THERM_STATE));
        break;
    default:
        status = FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        break;
    }
    FrLeave(d);
    FrEnd(d);
    return status;
}

static NTSTATUS NTAPI ThermCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTHERM_EXT x = Device->DeviceExtension;
    NTSTATUS status = FrBegin(&x->Frame, Irp);

    if (!NT_SUCCESS(status))
        return status;
    ThermFlush(x, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrDone(&x->Frame, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS ThermInit(PFR_DEV d)
{
    PTHERM_EXT x = (PTHERM_EXT)d;
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Waiting);
    return STATUS_SUCCESS;
}

static NTSTATUS ThermStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    FR_UNUSED(d);
    FR_UNUSED(Resources);
    return STATUS_SUCCESS;
}

static VOID ThermFlushAll(PFR_DEV d, NTSTATUS Status)
{
    ThermFlush((PTHERM_EXT)d, NULL, Status);
}

static const FR_OPS ThermOps = {
    sizeof(THERM_EXT), &ThermInterface, DO_BUFFERED_IO, ThermInit, ThermStart, FrNothing, ThermFlushAll,
    FrNothing, FrNothing, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ThermControl;
    FrInit(Driver, &ThermOps);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = ThermCleanup;
    return STATUS_SUCCESS;
}
