/*
 * plxwarp: four yarn feeders behind a PLX PCI 9052, each switched by one of the bridge's user pins. A program sets a feeder's tension, switches it, and
 * exchanges two feeders' settings at once, so that no other sees one of them half exchanged.
 *
 * The bug: an exchange takes the two feeders' locks in the order in which the program names them. Two programs that exchange the same two the other way round wait
 * for each other at raised IRQL.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: deadlock, spin-lock-deadlock, lock-order-inversion
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID WarpInterface = { 0x6a1f0d44, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x24 } };

#define IOCTL_WARP_SET      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* a SETTING */
#define IOCTL_WARP_GET      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D2, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* feeder; answers a SETTING */
#define IOCTL_WARP_EXCHANGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D3, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* two feeders */

#define CNTRL 0x50
#define CNTRL_OUT(n)  (2u << 3 * (n))
#define CNTRL_DATA(n) (4u << 3 * (n))

#define FEEDERS 4

typedef struct _SETTING {
    ULONG Feeder;
    ULONG Tension;
    ULONG On;
} SETTING;

typedef struct _FEEDER {
    KSPIN_LOCK Lock;
    ULONG Tension;
    BOOLEAN On;
} FEEDER;

typedef struct _WARP {
    STATION Station;
    CARD Card;
    KSPIN_LOCK PinLock;    /* inside a feeder's */
    FEEDER Feeder[FEEDERS];
} WARP;

/* With the feeder's lock held. */
static VOID Switch(WARP *W, ULONG Feeder)
{
    CARD_WINDOW *r = &W->Card.Window[0];
    ULONG v;
    KeAcquireSpinLockAtDpcLevel(&W->PinLock);
    v = CardRead(r, CNTRL);
    if (v != 0xFFFFFFFF) {
        v = (v & ~CNTRL_DATA(Feeder)) | CNTRL_OUT(Feeder) | (W->Feeder[Feeder].On ? CNTRL_DATA(Feeder) : 0);
        CardWrite(r, CNTRL, v);
    }
    KeReleaseSpinLockFromDpcLevel(&W->PinLock);
}

static VOID SwitchAll(WARP *W)
{
    ULONG i;
    KIRQL irql;
    for (i = 0; i < FEEDERS; i++) {
        KeAcquireSpinLock(&W->Feeder[i].Lock, &irql);
        Switch(W, i);
        KeReleaseSpinLock(&W->Feeder[i].Lock, irql);
    }
}

static VOID Set(WARP *W, const SETTING *To)
{
    FEEDER *f = &W->Feeder[To->Feeder];
    KIRQL irql;
    KeAcquireSpinLock(&f->Lock, &irql);
    f->Tension = To->Tension;
    f->On = To->On != 0;
    Switch(W, To->Feeder);
    KeReleaseSpinLock(&f->Lock, irql);
}

static VOID Exchange(WARP *W, ULONG A, ULONG B)
{
    FEEDER *a, *b;
    ULONG tension;
    BOOLEAN on;
    KIRQL irql;
#ifdef FIXED
    if (A > B) {
        ULONG c = A;
        A = B;
        B = c;
    }
#endif
    a = &W->Feeder[A];
    b = &W->Feeder[B];
    KeAcquireSpinLock(&a->Lock, &irql);
    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    tension = a->Tension;
    on = a->On;
    a->Tension = b->Tension;
    a->On = b->On;
    b->Tension = tension;
    b->On = on;
    Switch(W, A);
    Switch(W, B);
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    KeReleaseSpinLock(&a->Lock, irql);
}

static NTSTATUS WarpAdded(STATION *S)
{
    WARP *w = (WARP *)S;
    ULONG i;
    KeInitializeSpinLock(&w->PinLock);
    for (i = 0; i < FEEDERS; i++) {
        KeInitializeSpinLock(&w->Feeder[i].Lock);
        w->Feeder[i].Tension = 100;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS WarpStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    WARP *w = (WARP *)S;
    NTSTATUS status = CardClaim(&w->Card, Translated);
    if (!NT_SUCCESS(status))
        return status;
    if (!CardHas(&w->Card, 0, 0x54)) {
        CardRelease(&w->Card);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    SwitchAll(w);
    return STATUS_SUCCESS;
}

/* The feeders stand still while no one looks after them; their settings are kept for the next start. */
static VOID WarpStop(STATION *S, BOOLEAN Reachable)
{
    WARP *w = (WARP *)S;
    CARD_WINDOW *r = &w->Card.Window[0];
    if (Reachable) {
        ULONG v = CardRead(r, CNTRL), i;
        for (i = 0; i < FEEDERS; i++)
            v &= ~CNTRL_DATA(i);
        if (CardRead(r, CNTRL) != 0xFFFFFFFF)
            CardWrite(r, CNTRL, v);
    }
    CardRelease(&w->Card);
}

static VOID WarpWake(STATION *S)
{
    SwitchAll((WARP *)S);
}

static NTSTATUS WarpIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    WARP *w = (WARP *)S;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    SETTING *setting = buffer;
    ULONG in, out, *two = buffer;
    KIRQL irql;
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WARP_SET:
        if (in < sizeof *setting || setting->Feeder >= FEEDERS || setting->Tension > 1000)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        Set(w, setting);
        return StationEnd(S, Irp, STATUS_SUCCESS, 0);
    case IOCTL_WARP_GET: {
        FEEDER *f;
        if (in < sizeof(ULONG) || out < sizeof *setting || two[0] >= FEEDERS)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        f = &w->Feeder[two[0]];
        KeAcquireSpinLock(&f->Lock, &irql);
        setting->Tension = f->Tension;
        setting->On = f->On;
        KeReleaseSpinLock(&f->Lock, irql);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof *setting);
    }
    case IOCTL_WARP_EXCHANGE:
        if (in < 2 * sizeof(ULONG) || two[0] >= FEEDERS || two[1] >= FEEDERS)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        if (two[0] != two[1])
            Exchange(w, two[0], two[1]);
        return StationEnd(S, Irp, STATUS_SUCCESS, 0);
    default:
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const STATION_OPS StationOps = {
    .Size = sizeof(WARP),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &WarpInterface,
    .Added = WarpAdded,
    .Start = WarpStart,
    .Stop = WarpStop,
    .Wake = WarpWake,
    .Io = WarpIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
