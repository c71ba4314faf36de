/*
 * edupulse: watches over the edu card: five times a second a timer writes a token to the liveness register and looks whether it comes
 * back inverted; three misses in a row and the card is declared dead until it is started anew. Programs may ask the register, too.
 *
 * The bug: the pulse goes on beating while the card is in D3; it finds all ones, declares the card dead, and after the machine has
 * slept no request is served any more.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power
 */
#define CK_HAS_POWER
#include "../include/kept_in_order.h"

#define EP_ID     0x00
#define EP_LIVE   0x04
#define EP_STATUS 0x20
#define EP_ISTAT  0x24
#define EP_IACK   0x64

#define EP_BEAT   200                       /* milliseconds */
#define EP_MISSES 3

#define IOCTL_EP_ASK   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9d0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EP_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9d1, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID EpGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x08 } };

typedef struct _EP_STATE {
    ULONG Beats, Missed, Asked, Dead;
} EP_STATE, *PEP_STATE;

typedef struct _EP_EXT {
    CK K;
    PUCHAR Regs;
    ULONG RegsLen;
    KTIMER Beat;
    KDPC BeatDpc;
    KSPIN_LOCK Lock;                        /* a token and its answer belong together; and the rest */
    ULONG Token, InARow;
    EP_STATE S;
} EP_EXT, *PEP_EXT;

static ULONG EpIn(PEP_EXT x, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + reg));
}

static VOID EpOut(PEP_EXT x, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + reg), value);
}

static VOID NTAPI EpBeat(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PEP_EXT x = context;
    ULONG token;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    x->Token = x->Token * 1103515245u + 12345u;
    token = x->Token | 1;                   /* never 0: its answer would be all ones */
    EpOut(x, EP_LIVE, token);
    if (EpIn(x, EP_LIVE) == ~token) {
        x->S.Beats++;
        x->InARow = 0;
    } else {
        x->S.Missed++;
        if (++x->InARow == EP_MISSES)
            x->S.Dead = TRUE;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
}

static VOID EpStartPulse(PEP_EXT x)
{
    LARGE_INTEGER due;

    due.QuadPart = -(LONGLONG)EP_BEAT * 10000;
    KeSetTimerEx(&x->Beat, due, EP_BEAT, &x->BeatDpc);
}

static VOID EpStopPulse(PEP_EXT x)
{
    KeCancelTimer(&x->Beat);
    KeFlushQueuedDpcs();
}

static VOID HwSleep(PCK k)
{
#ifdef FIXED
    EpStopPulse((PEP_EXT)k);
#else
    UNREFERENCED_PARAMETER(k);
#endif
}

static VOID HwWake(PCK k)
{
#ifdef FIXED
    EpStartPulse((PEP_EXT)k);
#else
    UNREFERENCED_PARAMETER(k);
#endif
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    PEP_EXT x = (PEP_EXT)k;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EP_ASK:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return STATUS_PENDING;
    case IOCTL_EP_STATE:                    /* needs no card */
        if (out < sizeof(EP_STATE))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&x->Lock, &irql);
        *(PEP_STATE)irp->AssociatedIrp.SystemBuffer = x->S;
        KeReleaseSpinLock(&x->Lock, irql);
        *info = sizeof(EP_STATE);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PEP_EXT x = (PEP_EXT)k;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG asked = *buffer, answer;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->S.Dead) {
        status = STATUS_IO_DEVICE_ERROR;
    } else {
        EpOut(x, EP_LIVE, asked);
        answer = EpIn(x, EP_LIVE);
        if (answer == 0xffffffff && EpIn(x, EP_ID) == 0xffffffff) {
            status = STATUS_DEVICE_NOT_CONNECTED;
        } else {
            x->S.Asked++;
            *buffer = answer;
            *info = sizeof(ULONG);
        }
    }
    KeReleaseSpinLock(&x->Lock, irql);
    return status;
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PEP_EXT x = (PEP_EXT)k;
    KIRQL irql;

    x->Regs = CkMap(r, 0, 0x100);
    if (x->Regs == NULL)
        return r->Mems != 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLen = r->Mem[0].Len;
    if ((EpIn(x, EP_ID) & 0xffff) != 0x00ed) {
        MmUnmapIoSpace(x->Regs, x->RegsLen);
        x->Regs = NULL;
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    EpOut(x, EP_STATUS, 0);                 /* no interrupts are used */
    EpOut(x, EP_IACK, EpIn(x, EP_ISTAT));
    KeAcquireSpinLock(&x->Lock, &irql);
    x->InARow = 0;
    x->S.Dead = FALSE;
    KeReleaseSpinLock(&x->Lock, irql);
    EpStartPulse(x);
    return STATUS_SUCCESS;
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    PEP_EXT x = (PEP_EXT)k;

    UNREFERENCED_PARAMETER(touch);
    EpStopPulse(x);
    MmUnmapIoSpace(x->Regs, x->RegsLen);
    x->Regs = NULL;
}

static NTSTATUS EpInit(PCK k)
{
    PEP_EXT x = (PEP_EXT)k;

    KeInitializeSpinLock(&x->Lock);
    KeInitializeTimer(&x->Beat);
    KeInitializeDpc(&x->BeatDpc, EpBeat, x);
    x->Token = 1;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EpAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(EP_EXT), &EpGuid, DO_BUFFERED_IO, EpInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, EpAdd);
    return STATUS_SUCCESS;
}
