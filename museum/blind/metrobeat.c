/*
 * metrobeat: a pulse once a second for programs that have to do something regularly without
 * drifting apart: requests wait for the next beat, and the times of the last beats can be read.
 * Beats come from the device object's timer (IoStartTimer).
 *
 * The bug: the timer is stopped when programs switch the beat off, or the device sleeps, but not
 * when the device is stopped or removed, where the history that the timer routine fills is freed.
 *
 * Device: ROOT\METROBEAT
 * Rule: io-timer, write-after-free, use-after-free, wild-write
 * Needs: schedule
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID MetroInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x03 } };

#define IOCTL_METRO_SWITCH  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_METRO_WAIT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_METRO_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_READ_ACCESS)

#define METRO_BEATS 64
#define METRO_TAG   'teMK'

typedef struct _METRO_HISTORY {
    ULONG Beats;
    ULONG Reserved;
    LONG64 Times[METRO_BEATS]; /* a ring: beat n is at n % METRO_BEATS */
} METRO_HISTORY, *PMETRO_HISTORY;

typedef struct _METRO_EXT {
    FR_DEV Frame;
    FR_QUEUE Waiting;
    FAST_MUTEX Switch; /* Running, and the calls that start and stop the timer */
    BOOLEAN Running;
    BOOLEAN Resume; /* it ran when the device went to sleep */
    KSPIN_LOCK Lock;
    PMETRO_HISTORY History; /* what it points to: under Lock */
} METRO_EXT, *PMETRO_EXT;

static VOID NTAPI MetroBeat(PDEVICE_OBJECT Device, PVOID Context)
{
    PMETRO_EXT x = Context;
    LARGE_INTEGER now;
    ULONG beat, left;
    KIRQL irql;
    PIRP irp;

    FR_UNUSED(Device);
    KeQuerySystemTime(&now);
    KeAcquireSpinLock(&x->Lock, &irql);
    beat = x->History->Beats++;
    x->History->Times[beat % METRO_BEATS] = now.QuadPart;
    KeReleaseSpinLock(&x->Lock, irql);
    for (left = 256; left && (irp = FrQueueGet(&x->Waiting)) != NULL; left--) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = beat;
        FrDone(&x->Frame, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID MetroSwitch(PMETRO_EXT x, BOOLEAN On)
{
    ExAcquireFastMutex(&x->Switch);
    if (On && !x->Running)
        IoStartTimer(x->Frame.Self);
    if (!On && x->Running)
        IoStopTimer(x->Frame.Self);
    x->Running = On;
    ExReleaseFastMutex(&x->Switch);
}

static NTSTATUS MetroControl(PMETRO_EXT x, PIRP Irp)
{
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_METRO_SWITCH:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        MetroSwitch(x, *(ULONG *)buffer != 0);
        return FrDone(d, Irp, STATUS_SUCCESS, 0);
    case IOCTL_METRO_WAIT:
        if (outLength < sizeof(ULONG))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return FrQueuePut(&x->Waiting, Irp);
    case IOCTL_METRO_HISTORY:
        if (outLength < sizeof(METRO_HISTORY))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&x->Lock, &irql);
        RtlCopyMemory(buffer, x->History, sizeof(METRO_HISTORY));
        KeReleaseSpinLock(&x->Lock, irql);
        return FrDone(d, Irp, STATUS_SUCCESS, sizeof(METRO_HISTORY));
    default:
        return FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI MetroRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMETRO_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    NTSTATUS status = FrBeginHeld(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (NT_SUCCESS(status)) {
        status = MetroControl(x, Irp);
        FrLeave(d);
    } else
        FrDone(d, Irp, status, 0);
    FrEnd(d);
    return status;
}

static NTSTATUS NTAPI MetroCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMETRO_EXT x = Device->DeviceExtension;
    NTSTATUS status = FrBegin(&x->Frame, Irp);

    if (!NT_SUCCESS(status))
        return status;
    FrQueueFlush(&x->Waiting, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrDone(&x->Frame, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS MetroInit(PFR_DEV d)
{
    PMETRO_EXT x = (PMETRO_EXT)d;

    ExInitializeFastMutex(&x->Switch);
    KeInitializeSpinLock(&x->Lock);
    FrQueueInit(&x->Waiting, d);
    return IoInitializeTimer(d->Self, MetroBeat, x);
}

static NTSTATUS MetroStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PMETRO_EXT x = (PMETRO_EXT)d;

    FR_UNUSED(Resources);
    x->History = ExAllocatePoolWithTag(NonPagedPool, sizeof(METRO_HISTORY), METRO_TAG);
    if (!x->History)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(x->History, sizeof(METRO_HISTORY));
    MetroSwitch(x, TRUE);
    return STATUS_SUCCESS;
}

static VOID MetroStop(PFR_DEV d)
{
    PMETRO_EXT x = (PMETRO_EXT)d;

#ifdef FIXED
    MetroSwitch(x, FALSE);
    KeFlushQueuedDpcs();
#endif
    if (x->History) {
        ExFreePoolWithTag(x->History, METRO_TAG);
        x->History = NULL;
    }
}

static VOID MetroFlush(PFR_DEV d, NTSTATUS Status)
{
    FrQueueFlush(&((PMETRO_EXT)d)->Waiting, NULL, Status);
}

static VOID MetroPowerDown(PFR_DEV d)
{
    PMETRO_EXT x = (PMETRO_EXT)d;
    x->Resume = x->Running;
    MetroSwitch(x, FALSE);
}

/* It may be called at DISPATCH_LEVEL; no one else switches while the gate is closed. */
static VOID MetroPowerUp(PFR_DEV d)
{
    PMETRO_EXT x = (PMETRO_EXT)d;
    if (x->Resume) {
        IoStartTimer(d->Self);
        x->Running = TRUE;
    }
}

static const FR_OPS MetroOps = {
    sizeof(METRO_EXT), &MetroInterface, DO_BUFFERED_IO, MetroInit, MetroStart, MetroStop, MetroFlush,
    MetroPowerDown, MetroPowerUp, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &MetroOps);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = MetroCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MetroRequest;
    return STATUS_SUCCESS;
}
