/*
 * plxcedar: the PLX PCI 9052's own means for a board: its four user pins, which programs set as outputs, and the words of its serial
 * EEPROM, which is clocked by hand. Pins and EEPROM's lines share the chip's register CNTRL.
 *
 * The bug: reading the EEPROM reads CNTRL once at its beginning and makes every clock from that value. A pin that is set by another
 * thread meanwhile gets its old level back with the next clock.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-lost, register-update-race
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_plx.h"

static const GUID CedarFace = { 0x47a0e9b5, 0x61cc, 0x4b82, { 0x8e, 0xf4, 0x5d, 0x30, 0xc9, 0x17, 0xa2, 0x6b } };

#define IOCTL_CEDAR_PIN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8f0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CEDAR_PINS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8f1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CEDAR_WORD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8f2, METHOD_BUFFERED, FILE_READ_ACCESS)

#define CEDAR_PINS 4
#define CEDAR_WORDS 64
#define CEDAR_EE (PLX_EE_CLOCK | PLX_EE_SELECT | PLX_EE_OUT)

typedef struct _CEDAR_PIN {
    ULONG Pin;
    ULONG Level;
} CEDAR_PIN;

typedef struct _CEDAR {
    STATION St;
    FAST_MUTEX Eeprom;          /* one at a time reads it */
    BOOLEAN Ready;              /* these, and CNTRL, under the lane's lock */
    BOOLEAN Mapped;
    ULONG Epoch;                /* counts the times the chip has come to power */
    ULONG Pins;                 /* as programs have set them, to be put back behind D3 */
    ULONG PinsSet;
    PUCHAR Regs;
} CEDAR;

/* While the EEPROM is read. */
typedef struct _CEDAR_READ {
    CEDAR *Cedar;
    ULONG Epoch;
#ifndef FIXED
    ULONG Rest;                 /* of CNTRL */
#endif
} CEDAR_READ;

/* Sets the EEPROM's lines, and waits for as long as it wants it. FALSE: the chip went to sleep. */
static BOOLEAN CedarLines(CEDAR_READ *r, ULONG Lines)
{
    CEDAR *c = r->Cedar;
    BOOLEAN ok;
    KIRQL irql;

    KeAcquireSpinLock(&c->St.Lane.Lock, &irql);
    ok = c->Ready && c->Epoch == r->Epoch;
    if (ok) {
#ifndef FIXED
        plx_set(c->Regs, PLX_CNTRL, r->Rest | Lines);
#else
        plx_set(c->Regs, PLX_CNTRL, (plx_get(c->Regs, PLX_CNTRL) & ~CEDAR_EE) | Lines);
#endif
    }
    KeReleaseSpinLock(&c->St.Lane.Lock, irql);
    if (ok)
        KeStallExecutionProcessor(1);
    return ok;
}

static BOOLEAN CedarSend(CEDAR_READ *r, ULONG Bits, ULONG Count)
{
    while (Count-- != 0) {
        ULONG bit = ((Bits >> Count) & 1) != 0 ? PLX_EE_OUT : 0;

        if (!CedarLines(r, PLX_EE_SELECT | bit) || !CedarLines(r, PLX_EE_SELECT | PLX_EE_CLOCK | bit))
            return FALSE;
    }
    return CedarLines(r, PLX_EE_SELECT);
}

static BOOLEAN CedarBegin(CEDAR_READ *r, CEDAR *c)
{
    BOOLEAN ok;
    KIRQL irql;

    r->Cedar = c;
    KeAcquireSpinLock(&c->St.Lane.Lock, &irql);
    ok = c->Ready;
    r->Epoch = c->Epoch;
#ifndef FIXED
    if (ok)
        r->Rest = plx_get(c->Regs, PLX_CNTRL) & ~CEDAR_EE;
#endif
    KeReleaseSpinLock(&c->St.Lane.Lock, irql);
    return ok && CedarLines(r, 0);
}

/* READ of a 93CS46: a one, 10, six bits of address; then sixteen bits come, the first behind a zero. */
static NTSTATUS CedarWord(CEDAR *c, ULONG Index, USHORT *Word)
{
    CEDAR_READ r;
    ULONG i, word = 0;
    KIRQL irql;
    BOOLEAN ok;

    if (!CedarBegin(&r, c) || !CedarSend(&r, 0x180 | Index, 9))
        return STATUS_DEVICE_NOT_READY;
    for (i = 0; i < 16; i++) {
        if (!CedarLines(&r, PLX_EE_SELECT | PLX_EE_CLOCK) || !CedarLines(&r, PLX_EE_SELECT))
            return STATUS_DEVICE_NOT_READY;
        KeAcquireSpinLock(&c->St.Lane.Lock, &irql);
        ok = c->Ready && c->Epoch == r.Epoch;
        if (ok)
            word = word << 1 | ((plx_get(c->Regs, PLX_CNTRL) & PLX_EE_IN) != 0);
        KeReleaseSpinLock(&c->St.Lane.Lock, irql);
        if (!ok)
            return STATUS_DEVICE_NOT_READY;
    }
    if (!CedarLines(&r, 0))
        return STATUS_DEVICE_NOT_READY;
    *Word = (USHORT)word;
    return STATUS_SUCCESS;
}

static NTSTATUS CedarPin(CEDAR *c, const CEDAR_PIN *P)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    ULONG mask, bits;
    KIRQL irql;

    if (P->Pin >= CEDAR_PINS || P->Level > 1)
        return STATUS_INVALID_PARAMETER;
    mask = 7u << (3 * P->Pin);
    bits = (2u | P->Level << 2) << (3 * P->Pin);        /* an output */
    KeAcquireSpinLock(&c->St.Lane.Lock, &irql);
    if (c->Ready) {
        plx_set(c->Regs, PLX_CNTRL, (plx_get(c->Regs, PLX_CNTRL) & ~mask) | bits);
        c->Pins = (c->Pins & ~mask) | bits;
        c->PinsSet |= mask;
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&c->St.Lane.Lock, irql);
    return status;
}

static NTSTATUS CedarPins(CEDAR *c, ULONG *Pins)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    KeAcquireSpinLock(&c->St.Lane.Lock, &irql);
    if (c->Ready) {
        *Pins = plx_get(c->Regs, PLX_CNTRL) & PLX_PINS;
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&c->St.Lane.Lock, irql);
    return status;
}

static NTSTATUS CedarPrepare(STATION *St)
{
    ExInitializeFastMutex(&CONTAINING_RECORD(St, CEDAR, St)->Eeprom);
    return STATUS_SUCCESS;
}

static VOID CedarWake(STATION *St)
{
    CEDAR *c = CONTAINING_RECORD(St, CEDAR, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    if (c->Mapped) {
        if (c->PinsSet != 0)
            plx_set(c->Regs, PLX_CNTRL, (plx_get(c->Regs, PLX_CNTRL) & ~c->PinsSet) | c->Pins);
        c->Epoch++;
        c->Ready = TRUE;
    }
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static VOID CedarSleep(STATION *St)
{
    CEDAR *c = CONTAINING_RECORD(St, CEDAR, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    c->Ready = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static NTSTATUS CedarEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    CEDAR *c = CONTAINING_RECORD(St, CEDAR, St);
    NTSTATUS status = plx_map(Translated, &c->Regs);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    c->Mapped = TRUE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    CedarWake(St);
    return STATUS_SUCCESS;
}

static VOID CedarRelease(STATION *St, BOOLEAN Present)
{
    CEDAR *c = CONTAINING_RECORD(St, CEDAR, St);
    KIRQL irql;

    UNREFERENCED_PARAMETER(Present);
    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    c->Ready = FALSE;
    c->Mapped = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    MmUnmapIoSpace(c->Regs, PLX_BYTES);
    c->Regs = NULL;
}

static NTSTATUS CedarServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    CEDAR *c = CONTAINING_RECORD(St, CEDAR, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    USHORT word = 0;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CEDAR_PIN:
        return in == sizeof(CEDAR_PIN) ? CedarPin(c, buffer) : STATUS_INVALID_PARAMETER;
    case IOCTL_CEDAR_PINS:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        status = CedarPins(c, buffer);
        if (NT_SUCCESS(status))
            Irp->IoStatus.Information = sizeof(ULONG);
        return status;
    case IOCTL_CEDAR_WORD:
        if (in < sizeof(ULONG) || out < sizeof(USHORT) || *(ULONG *)buffer >= CEDAR_WORDS)
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&c->Eeprom);
        status = CedarWord(c, *(ULONG *)buffer, &word);
        ExReleaseFastMutex(&c->Eeprom);
        if (NT_SUCCESS(status)) {
            *(USHORT *)buffer = word;
            Irp->IoStatus.Information = sizeof(USHORT);
        }
        return status;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const DUTIES CedarDuties = {
    .Bytes = sizeof(CEDAR), .Face = &CedarFace, .Prepare = CedarPrepare, .Engage = CedarEngage, .Release = CedarRelease,
    .Sleep = CedarSleep, .Wake = CedarWake, .Serve = CedarServe,
};

STATION_DRIVER(CedarDuties)
