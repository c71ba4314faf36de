/*
 * flyleaf: reads what the board's maker wrote into the configuration EEPROM (a 93CS46 of 64 words) behind the PLX chip, up to 16 bytes at a time. The pins of
 * the EEPROM are bits of CNTRL; a work item clocks the words out, as that takes its time.
 *
 * The bug: an odd number of bytes is rounded up to words, and all words are stored, so the last byte goes behind the caller's buffer.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_plx.h"

#define IOCTL_FLYLEAF_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_FLYLEAF_SIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define WORDS 64
#define MOST 16                 /* bytes in one request */

static const GUID FlyClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x09}};

typedef struct FLY {
    HULL Hull;
    PLX Plx;
    PIO_WORKITEM Work;
    ULONG Word;                 /* what the worker reads */
    ULONG Bytes;
} FLY;

/* One clock: a bit in, a bit out. */
static ULONG FlyClock(FLY *x, ULONG Pins, BOOLEAN In)
{
    ULONG out;

    Pins |= PLX_EE_SELECT | (In ? PLX_EE_IN : 0);
    HolePut(&x->Plx.Regs, PLX_CNTRL, Pins);
    KeStallExecutionProcessor(1);
    HolePut(&x->Plx.Regs, PLX_CNTRL, Pins | PLX_EE_CLOCK);
    KeStallExecutionProcessor(1);
    out = HoleGet(&x->Plx.Regs, PLX_CNTRL);
    return (out & PLX_EE_OUT) ? 1 : 0;
}

static USHORT FlyWord(FLY *x, ULONG Word)
{
    ULONG pins = HoleGet(&x->Plx.Regs, PLX_CNTRL) & ~(PLX_EE_CLOCK | PLX_EE_SELECT | PLX_EE_IN);
    ULONG order = 0x180 | (Word & 0x3f), value = 0;         /* start bit, read, address */
    int i;

    for (i = 8; i >= 0; i--)
        FlyClock(x, pins, (order >> i) & 1);
    for (i = 0; i < 16; i++)
        value = value << 1 | FlyClock(x, pins, FALSE);
    HolePut(&x->Plx.Regs, PLX_CNTRL, pins);
    HoleGet(&x->Plx.Regs, PLX_CNTRL);
    KeStallExecutionProcessor(1);
    return (USHORT)value;
}

static VOID NTAPI FlyWorker(PDEVICE_OBJECT Device, PVOID Context)
{
    FLY *x = Context;
    HULL *h = &x->Hull;
    ULONG words = (x->Bytes + 1) / 2, bytes = x->Bytes, i;
    USHORT word[MOST / 2];
    PIRP irp;

    (void)Device;
    for (i = 0; i < words; i++)
        word[i] = FlyWord(x, x->Word + i);
    irp = PenTake(&h->Crane, NULL);
    if (irp) {
#ifndef FIXED
        for (i = 0; i < words; i++)
            ((PUSHORT)irp->AssociatedIrp.SystemBuffer)[i] = word[i];
#else
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, word, bytes);
#endif
        HullReply(h, irp, STATUS_SUCCESS, bytes);
    }
    HullReady(h);
    IoReleaseRemoveLock(&h->Lock, x->Work);
}

static VOID FlyBegin(HULL *h, PIRP Irp)
{
    FLY *x = (FLY *)h;
    NTSTATUS status = IoAcquireRemoveLock(&h->Lock, x->Work);

    if (!NT_SUCCESS(status)) {
        HullReply(h, Irp, status, 0);
        HullReady(h);
        return;
    }
    x->Word = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    x->Bytes = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength;
    HullHang(h, Irp);                   /* it may be gone now */
    IoQueueWorkItem(x->Work, FlyWorker, DelayedWorkQueue, x);
}

static NTSTATUS FlyAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    ULONG room, word;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    room = Sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FLYLEAF_READ:
        if (Sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        word = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        if (!room || room > MOST || word >= WORDS || word + (room + 1) / 2 > WORDS)
            return STATUS_INVALID_PARAMETER;
        return HullSail(h, Irp);
    case IOCTL_FLYLEAF_SIZE:
        if (room < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = WORDS * 2;
        *Info = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS FlyLay(HULL *h)
{
    FLY *x = (FLY *)h;

    x->Work = IoAllocateWorkItem(h->Self);
    return x->Work ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID FlyScrap(HULL *h)
{
    IoFreeWorkItem(((FLY *)h)->Work);
}

static NTSTATUS FlyRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    return PlxMap(&((FLY *)h)->Plx, Resources);
}

static VOID FlySink(HULL *h, BOOLEAN touch)
{
    (void)touch;
    HoleShut(&((FLY *)h)->Plx.Regs);
}

static const HULL_PLAN FlyPlan = {
    .Room = sizeof(FLY), .Class = &FlyClass,
    .Lay = FlyLay, .Scrap = FlyScrap, .Rise = FlyRise, .Sink = FlySink,
    .Ask = FlyAsk, .Begin = FlyBegin,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &FlyPlan);
}
