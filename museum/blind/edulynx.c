/*
 * edulynx: challenges for the educational card. A program hands in up to 16 numbers and gets the card's answer to each from its liveness
 * register. While the card sleeps, or is stopped, challenges wait until it can answer again.
 *
 * The bug: whether the card is awake is looked at before the lock is taken under which its registers are used. The card can be put to
 * sleep, or its registers unmapped, between the two.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power, device-memory-not-mapped, data-race, wild-write, wild-read, bad-pointer
 * Needs: ioctl, power, schedule
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_edu.h"

static const GUID LynxFace = { 0x60d7b52e, 0x9e1a, 0x4387, { 0xbd, 0x0c, 0xe4, 0x23, 0x5a, 0x18, 0x6f, 0x94 } };

#define IOCTL_LYNX_CHALLENGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8d0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LYNX_ANSWERED  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8d1, METHOD_BUFFERED, FILE_READ_ACCESS)

#define LYNX_MOST 16

typedef struct _LYNX {
    STATION St;
    BOOLEAN volatile Awake;     /* registers may be touched; changes under the lane's lock */
    BOOLEAN Mapped;
    ULONG Answered;
    PUCHAR Regs;
} LYNX;

/* Has the card answer all of a request's numbers, in place. FALSE: it cannot just now. */
static BOOLEAN LynxAnswer(LYNX *x, ULONG *Numbers, ULONG Count)
{
    KIRQL irql;
    ULONG i;

#ifndef FIXED
    if (!x->Awake)
        return FALSE;
    KeAcquireSpinLock(&x->St.Lane.Lock, &irql);
#else
    KeAcquireSpinLock(&x->St.Lane.Lock, &irql);
    if (!x->Awake) {
        KeReleaseSpinLock(&x->St.Lane.Lock, irql);
        return FALSE;
    }
#endif
    for (i = 0; i < Count; i++) {
        edu_set(x->Regs, EDU_LIVE, Numbers[i]);
        Numbers[i] = edu_get(x->Regs, EDU_LIVE);
    }
    x->Answered++;
    KeReleaseSpinLock(&x->St.Lane.Lock, irql);
    return TRUE;
}

static BOOLEAN LynxAwake(LYNX *x)
{
    BOOLEAN awake;
    KIRQL irql;

    KeAcquireSpinLock(&x->St.Lane.Lock, &irql);
    awake = x->Awake;
    KeReleaseSpinLock(&x->St.Lane.Lock, irql);
    return awake;
}

/* All that wait. What cannot be answered goes back, and is looked at again if the card has woken meanwhile. */
static VOID LynxDrain(LYNX *x)
{
    ULONG bytes;
    PIRP irp;

    while ((irp = lane_take(&x->St.Lane, PICK_ANY, NULL)) != NULL) {
        bytes = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength;
        if (LynxAnswer(x, irp->AssociatedIrp.SystemBuffer, bytes / sizeof(ULONG))) {
            lane_finish(&x->St.Lane, irp, STATUS_SUCCESS, bytes);
        } else {
            lane_return(&x->St.Lane, irp);
            if (!LynxAwake(x))
                break;
        }
    }
}

static VOID LynxWake(STATION *St)
{
    LYNX *x = CONTAINING_RECORD(St, LYNX, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    x->Awake = x->Mapped;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    LynxDrain(x);
}

static VOID LynxSleep(STATION *St)
{
    LYNX *x = CONTAINING_RECORD(St, LYNX, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    x->Awake = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static NTSTATUS LynxEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    LYNX *x = CONTAINING_RECORD(St, LYNX, St);
    NTSTATUS status = edu_map(Translated, &x->Regs);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    x->Mapped = TRUE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    LynxWake(St);
    return STATUS_SUCCESS;
}

static VOID LynxRelease(STATION *St, BOOLEAN Present)
{
    LYNX *x = CONTAINING_RECORD(St, LYNX, St);
    KIRQL irql;

    UNREFERENCED_PARAMETER(Present);
    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    x->Awake = FALSE;
    x->Mapped = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    MmUnmapIoSpace(x->Regs, EDU_BYTES);
    x->Regs = NULL;
}

static NTSTATUS LynxServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    LYNX *x = CONTAINING_RECORD(St, LYNX, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL irql;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LYNX_CHALLENGE:
        if (in == 0 || in % sizeof(ULONG) != 0 || in > LYNX_MOST * sizeof(ULONG) || out < in)
            return STATUS_INVALID_PARAMETER;
        lane_park(&St->Lane, Irp);
        LynxDrain(x);
        return STATUS_PENDING;
    case IOCTL_LYNX_ANSWERED:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&St->Lane.Lock, &irql);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = x->Answered;
        KeReleaseSpinLock(&St->Lane.Lock, irql);
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const DUTIES LynxDuties = {
    .Bytes = sizeof(LYNX), .Face = &LynxFace, .Engage = LynxEngage, .Release = LynxRelease, .Sleep = LynxSleep, .Wake = LynxWake,
    .Serve = LynxServe,
};

STATION_DRIVER(LynxDuties)
