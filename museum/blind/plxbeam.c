/*
 * plxbeam: the beam guard of a machine tool, whose lamps hang on the user pins of a PLX PCI 9052. USER1 to USER3 are lamps
 * that a program switches, USER0 is a heartbeat that the driver toggles four times a second as long as it works.
 *
 * The bug: the heartbeat's DPC reads, changes and writes the register of all pins without the lock under which the
 * control codes do the same: what a program switches meanwhile on another processor is lost.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost, data-race
 * Needs: ioctl, schedule
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_BEAM_SWITCH   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BEAM_SHOW     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CNTRL   0x50
#define   SELECT(n)     (1u << (3 * (n)))           /* 0: a user pin */
#define   OUTPUT(n)     (1u << (3 * (n) + 1))
#define   DATA(n)       (1u << (3 * (n) + 2))

#define PINS    4
#define BEAT_MS 250

typedef struct BEAM_SWITCH {
    ULONG on;           /* bit 0: the lamp of USER1 ... bit 2: USER3 */
    ULONG off;
} BEAM_SWITCH;

typedef struct BEAM {
    FR_DEV fr;
    FR_WIN regs;
    KTIMER timer;
    KDPC dpc;
    KSPIN_LOCK lock;        /* of the pins */
    ULONG lit;              /* kept for the return from D3 */
} BEAM;

static ULONG Lamps(ULONG mask)
{
    ULONG n, bits = 0;
    for (n = 1; n < PINS; n++)
        if (mask & (1u << (n - 1)))
            bits |= DATA(n);
    return bits;
}

static VOID NTAPI Beat(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    BEAM *m = context;
    ULONG pins;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&m->lock);
#endif
    pins = FrRd(&m->regs, CNTRL);
    if (pins != ~0u)
        FrWr(&m->regs, CNTRL, pins ^ DATA(0));
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&m->lock);
#endif
}

static NTSTATUS Make(FR_DEV *dev)
{
    BEAM *m = (BEAM *)dev;
    KeInitializeSpinLock(&m->lock);
    KeInitializeTimer(&m->timer);
    KeInitializeDpc(&m->dpc, Beat, m);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    return FrMap(&((BEAM *)dev)->regs, list, 0, CNTRL + 4);
}

static void Release(FR_DEV *dev)
{
    FrUnmap(&((BEAM *)dev)->regs);
}

static void Run(FR_DEV *dev)
{
    BEAM *m = (BEAM *)dev;
    ULONG n, pins;
    KIRQL irql;
    KeAcquireSpinLock(&m->lock, &irql);
    pins = FrRd(&m->regs, CNTRL);
    for (n = 0; n < PINS; n++)
        pins = (pins & ~(SELECT(n) | DATA(n))) | OUTPUT(n);
    FrWr(&m->regs, CNTRL, pins | Lamps(m->lit));
    KeReleaseSpinLock(&m->lock, irql);
    KeSetTimerEx(&m->timer, FrMs(BEAT_MS), BEAT_MS, &m->dpc);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    BEAM *m = (BEAM *)dev;
    KIRQL irql;
    KeCancelTimer(&m->timer);
    KeFlushQueuedDpcs();
    if (present) {
        KeAcquireSpinLock(&m->lock, &irql);
        FrWr(&m->regs, CNTRL, FrRd(&m->regs, CNTRL) & ~(DATA(0) | Lamps(7)));
        KeReleaseSpinLock(&m->lock, irql);
    }
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    BEAM *m = (BEAM *)dev;
    BEAM_SWITCH *change = irp->AssociatedIrp.SystemBuffer;
    ULONG pins;
    KIRQL irql;
    if (at->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BEAM_SWITCH:
        if (at->Parameters.DeviceIoControl.InputBufferLength < sizeof *change)
            return STATUS_BUFFER_TOO_SMALL;
        if ((change->on | change->off) & ~7u || (change->on & change->off))
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&m->lock, &irql);
        m->lit = (m->lit & ~change->off) | change->on;
        pins = FrRd(&m->regs, CNTRL);
        if (pins != ~0u) {
            pins &= ~Lamps(change->off);
            pins |= Lamps(change->on);
            FrWr(&m->regs, CNTRL, pins);
        }
        KeReleaseSpinLock(&m->lock, irql);
        return STATUS_SUCCESS;
    case IOCTL_BEAM_SHOW:
        if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&m->lock, &irql);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = m->lit;
        KeReleaseSpinLock(&m->lock, irql);
        *info = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x08 } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(BEAM), .flags = DO_BUFFERED_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
