/*
 * fanbank: eight fans in a rack: a periodic timer reads their speeds and writes the power that programs have asked for; the card's own watchdog runs
 * them at full power when no program writes for five seconds.
 *
 * The bug: the timer is stopped when the device is put to sleep and when it is removed, but not when the device is stopped: its DPC goes on with
 * registers that have been unmapped.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: wild-write, device-memory-not-mapped
 * Needs: nothing
 *
 * The card: BAR0, 128 bytes of memory; an interrupt (shared) that this driver does not use.
 *   0x00 ID       0x0FA40003
 *   0x04 CONTROL  bit 0: automatic (powers below count), bit 1: interrupt enable
 *   0x08 WATCHDOG write 1: five more seconds
 *   0x20 + 4 * i  POWER of fan i, 0 to 255
 *   0x40 + 4 * i  SPEED of fan i in revolutions per minute, 0 to 20000
 */
#include <ddk/wdm.h>
#define EE_PNP
#define EE_HW
#include "../include/framed_by_calls.h"

#define IOCTL_FAN_SPEEDS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_FAN_POWER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define R_ID 0x00
#define CARD_ID 0x0FA40003u
#define R_CONTROL 0x04
#define R_WATCHDOG 0x08
#define R_POWER 0x20
#define R_SPEED 0x40
#define CARD_BYTES 0x80u
#define GONE 0xFFFFFFFFu
#define FANS 8u
#define MAX_SPEED 20000u
#define PERIOD_MS 500

static const GUID FanGuid = { 0x7b1c0e83, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x0e } };

typedef struct _SPEEDS {
    ULONG Valid;                /* a bit for each fan whose Speed has been measured */
    ULONG Stalled;              /* a bit for each fan that has power and does not turn */
    ULONG Speed[FANS];
    ULONG Power[FANS];
} SPEEDS;

typedef struct _FANPOWER {
    ULONG Fan;
    ULONG Power;
} FANPOWER;

typedef struct _DEV {
    EE Ee;                      /* first */
    PUCHAR Regs;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    SPEEDS Now;
} DEV;

static ULONG Get(DEV *d, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(d->Regs + reg));
}

static VOID Set(DEV *d, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(d->Regs + reg), value);
}

static VOID NTAPI FanDpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    DEV *d = ctx;
    ULONG i, v;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    Set(d, R_WATCHDOG, 1);
    for (i = 0; i < FANS; i++) {
        Set(d, R_POWER + i * 4, d->Now.Power[i]);
        v = Get(d, R_SPEED + i * 4);
        if (v > MAX_SPEED) {            /* nonsense, or the card has been pulled */
            d->Now.Valid &= ~(1u << i);
            d->Now.Stalled &= ~(1u << i);
            d->Now.Speed[i] = 0;
            continue;
        }
        d->Now.Valid |= 1u << i;
        d->Now.Speed[i] = v;
        if (!v && d->Now.Power[i] >= 32)
            d->Now.Stalled |= 1u << i;
        else
            d->Now.Stalled &= ~(1u << i);
    }
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
}

static VOID TimerOn(DEV *d)
{
    LARGE_INTEGER due;

    due.QuadPart = -(LONGLONG)PERIOD_MS * 10000;
    KeSetTimerEx(&d->Timer, due, PERIOD_MS, &d->Dpc);
}

static VOID TimerOff(DEV *d)
{
    KeCancelTimer(&d->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS DrvStart(EE *ee, PCM_RESOURCE_LIST list)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    EERES r;

    EeResources(list, &r);
    if (!r.Mems || r.MemLen[0] < CARD_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Regs = MmMapIoSpace(r.Mem[0], CARD_BYTES, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Get(d, R_ID) != CARD_ID) {
        MmUnmapIoSpace(d->Regs, CARD_BYTES);
        d->Regs = NULL;
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    Set(d, R_CONTROL, 1);
    TimerOn(d);
    return STATUS_SUCCESS;
}

/* Without us the card runs its fans at full power. */
static VOID DrvStop(EE *ee, BOOLEAN touch)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);

#ifdef FIXED
    TimerOff(d);
#endif
    if (touch)
        Set(d, R_CONTROL, 0);
    MmUnmapIoSpace(d->Regs, CARD_BYTES);
    d->Regs = NULL;
}

static VOID DrvSleep(EE *ee)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);

    TimerOff(d);
    Set(d, R_CONTROL, 0);
    d->Now.Valid = d->Now.Stalled = 0;
}

static VOID DrvWake(EE *ee)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);

    Set(d, R_CONTROL, 1);
    TimerOn(d);
}

static VOID DrvGone(EE *ee)
{
    TimerOff(CONTAINING_RECORD(ee, DEV, Ee));
}

static NTSTATUS FanSpeeds(DEV *d, PIRP irp, PIO_STACK_LOCATION sp, PULONG_PTR info)
{
    SPEEDS now;
    KIRQL irql;

    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(now))
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&d->Lock, &irql);
    now = d->Now;
    KeReleaseSpinLock(&d->Lock, irql);
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &now, sizeof(now));
    *info = sizeof(now);
    return STATUS_SUCCESS;
}

/* The next run of the timer writes it to the card. */
static NTSTATUS FanPower(DEV *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    FANPOWER p;
    KIRQL irql;

    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(p))
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(&p, irp->AssociatedIrp.SystemBuffer, sizeof(p));
    if (p.Fan >= FANS || p.Power > 255)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&d->Lock, &irql);
    d->Now.Power[p.Fan] = p.Power;
    KeReleaseSpinLock(&d->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    DEV *d = dev->DeviceExtension;
    ULONG_PTR info = 0;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (!d->Ee.Live) {
        st = STATUS_DEVICE_NOT_READY;
    } else {
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_FAN_SPEEDS:
            st = FanSpeeds(d, irp, sp, &info);
            break;
        case IOCTL_FAN_POWER:
            st = FanPower(d, irp, sp);
            break;
        default:
            st = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    EeDone(irp, st, info);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    NTSTATUS st;
    ULONG i;
    EE *ee;
    DEV *d;

    st = EeNew(drv, pdo, sizeof(DEV), &ee);
    if (!NT_SUCCESS(st))
        return st;
    d = CONTAINING_RECORD(ee, DEV, Ee);
    KeInitializeSpinLock(&d->Lock);
    KeInitializeTimer(&d->Timer);
    KeInitializeDpc(&d->Dpc, FanDpc, d);
    for (i = 0; i < FANS; i++)
        d->Now.Power[i] = 255;              /* until a program says otherwise */
    return EeAttach(ee, &FanGuid, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
