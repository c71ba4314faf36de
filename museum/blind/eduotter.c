/*
 * eduotter: a small calculator on the educational card, without interrupts. It inverts numbers by the card's liveness register and
 * has it compute factorials, for which the thread that asks waits up to half a second.
 *
 * The bug: the registers are mapped when the driver has no mapping yet, but the pointer is not forgotten when they are unmapped at
 * a stop. Started again, e.g. with other addresses, the driver goes on with the mapping that is no more.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: device-memory-not-mapped, stale-resource-used, io-space-unmap, wild-read, wild-write, bad-pointer
 * Needs: removal
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_edu.h"

static const GUID OtterFace = { 0x2e9570fa, 0x0c64, 0x4bd3, { 0xa3, 0x1f, 0x58, 0xe0, 0x96, 0x4b, 0x7d, 0x22 } };

#define IOCTL_OTTER_INVERT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_OTTER_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_OTTER_VERSION   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define OTTER_LARGEST 32
#define OTTER_LOOKS 500

typedef struct _OTTER {
    STATION St;
    FAST_MUTEX Turn;            /* of the card's users; stop and power wait for them */
    BOOLEAN Mapped;             /* with Awake under the lane's lock: both, and registers may be touched */
    BOOLEAN Awake;
    PUCHAR Regs;
    ULONG Ident;
} OTTER;

static BOOLEAN OtterGet(OTTER *o, ULONG Register, ULONG *Value)
{
    BOOLEAN ready;
    KIRQL irql;

    KeAcquireSpinLock(&o->St.Lane.Lock, &irql);
    ready = o->Mapped && o->Awake;
    if (ready)
        *Value = edu_get(o->Regs, Register);
    KeReleaseSpinLock(&o->St.Lane.Lock, irql);
    return ready;
}

static BOOLEAN OtterSet(OTTER *o, ULONG Register, ULONG Value)
{
    BOOLEAN ready;
    KIRQL irql;

    KeAcquireSpinLock(&o->St.Lane.Lock, &irql);
    ready = o->Mapped && o->Awake;
    if (ready)
        edu_set(o->Regs, Register, Value);
    KeReleaseSpinLock(&o->St.Lane.Lock, irql);
    return ready;
}

static NTSTATUS OtterInvert(OTTER *o, ULONG *Value)
{
    if (!OtterSet(o, EDU_LIVE, *Value) || !OtterGet(o, EDU_LIVE, Value))
        return STATUS_DEVICE_NOT_READY;
    return STATUS_SUCCESS;
}

/* Until the card does not compute; each look is a millisecond later than the one before. */
static NTSTATUS OtterSettle(OTTER *o)
{
    LARGE_INTEGER ms;
    ULONG i, status;

    ms.QuadPart = -10000LL;
    for (i = 0; i < OTTER_LOOKS; i++) {
        if (!OtterGet(o, EDU_STATUS, &status) || status == EDU_ABSENT)
            return STATUS_DEVICE_NOT_READY;
        if ((status & EDU_COMPUTING) == 0)
            return STATUS_SUCCESS;
        KeDelayExecutionThread(KernelMode, FALSE, &ms);
    }
    return STATUS_IO_TIMEOUT;
}

static NTSTATUS OtterFactorial(OTTER *o, ULONG *Value)
{
    NTSTATUS status;

    if (*Value > OTTER_LARGEST)
        return STATUS_INVALID_PARAMETER;
    status = OtterSettle(o);            /* one that was given up */
    if (!NT_SUCCESS(status))
        return status;
    if (!OtterSet(o, EDU_FACT, *Value))
        return STATUS_DEVICE_NOT_READY;
    status = OtterSettle(o);
    if (!NT_SUCCESS(status))
        return status;
    return OtterGet(o, EDU_FACT, Value) ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
}

static VOID OtterState(OTTER *o, BOOLEAN Mapped, BOOLEAN Awake)
{
    KIRQL irql;

    KeAcquireSpinLock(&o->St.Lane.Lock, &irql);
    o->Mapped = Mapped;
    o->Awake = Awake;
    KeReleaseSpinLock(&o->St.Lane.Lock, irql);
}

static NTSTATUS OtterPrepare(STATION *St)
{
    OTTER *o = CONTAINING_RECORD(St, OTTER, St);

    ExInitializeFastMutex(&o->Turn);
    return STATUS_SUCCESS;
}

static NTSTATUS OtterEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    OTTER *o = CONTAINING_RECORD(St, OTTER, St);
    NTSTATUS status;

    if (o->Regs == NULL) {
        status = edu_map(Translated, &o->Regs);
        if (!NT_SUCCESS(status))
            return status;
    }
    o->Ident = edu_get(o->Regs, EDU_IDENT);
    OtterState(o, TRUE, TRUE);
    return STATUS_SUCCESS;
}

static VOID OtterRelease(STATION *St, BOOLEAN Present)
{
    OTTER *o = CONTAINING_RECORD(St, OTTER, St);

    UNREFERENCED_PARAMETER(Present);
    OtterState(o, FALSE, FALSE);
    MmUnmapIoSpace(o->Regs, EDU_BYTES);
#ifdef FIXED
    o->Regs = NULL;
#endif
}

static VOID OtterSleep(STATION *St)
{
    OTTER *o = CONTAINING_RECORD(St, OTTER, St);

    ExAcquireFastMutex(&o->Turn);       /* not while someone is at a factorial */
    OtterState(o, o->Mapped, FALSE);
    ExReleaseFastMutex(&o->Turn);
}

static VOID OtterWake(STATION *St)
{
    OTTER *o = CONTAINING_RECORD(St, OTTER, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    o->Awake = o->Mapped;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static NTSTATUS OtterServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    OTTER *o = CONTAINING_RECORD(St, OTTER, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = Sp->Parameters.DeviceIoControl.IoControlCode;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (code) {
    case IOCTL_OTTER_INVERT:
    case IOCTL_OTTER_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&o->Turn);
        status = code == IOCTL_OTTER_INVERT ? OtterInvert(o, buffer) : OtterFactorial(o, buffer);
        ExReleaseFastMutex(&o->Turn);
        break;
    case IOCTL_OTTER_VERSION:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *buffer = o->Ident >> 16;
        status = STATUS_SUCCESS;
        break;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (NT_SUCCESS(status))
        Irp->IoStatus.Information = sizeof(ULONG);
    return status;
}

static const DUTIES OtterDuties = {
    .Bytes = sizeof(OTTER), .Face = &OtterFace, .Prepare = OtterPrepare, .Engage = OtterEngage, .Release = OtterRelease,
    .Sleep = OtterSleep, .Wake = OtterWake, .Serve = OtterServe,
};

STATION_DRIVER(OtterDuties)
