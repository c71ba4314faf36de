/*
 * plxfir: four door contacts at the user pins of a PLX PCI 9052. The chip gives no interrupt for them, so the driver looks at the pins ten times a second. A program
 * asks for their state, or waits for the next change.
 *
 * The bug: the timer that looks at the pins is stopped when the device is stopped or removed, but not when it goes to sleep: it reads registers of a card that has no
 * power, and takes what comes for the state of the doors.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power
 * Needs: power
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID FirFace = { 0x5d0c1c32, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x13, 0x02 } };

#define IOCTL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CNTRL        0x50
#define   PINS         4
#define   PIN_SELECT(n) (1u << (3 * (n)))     /* another function than that of a user pin */
#define   PIN_OUTPUT(n) (2u << (3 * (n)))
#define   PIN_DATA(n)   (4u << (3 * (n)))

#define PERIOD_MS 100
#define AT_ONCE   64

typedef struct _STATE {
    ULONG Doors;                              /* a bit each, set while it is open */
    ULONG Changes;
} STATE;

typedef struct _FIR {
    CRAFT Craft;
    QUAY Waiting;
    KSPIN_LOCK Lock;                          /* of State and Known */
    STATE State;
    BOOLEAN Known;
    KTIMER Tick;
    KDPC TickDpc;
} FIR;

static VOID NTAPI Look(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    FIR *f = context;
    ULONG value = Rd(&f->Craft.Window[0], CNTRL);
    ULONG doors = 0, n;
    BOOLEAN changed;
    STATE state;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    if (value == ~0u)
        return;                               /* the card has been pulled */
    for (n = 0; n < PINS; n++)
        if (value & PIN_DATA(n))
            doors |= 1u << n;
    KeAcquireSpinLockAtDpcLevel(&f->Lock);
    changed = f->Known && doors != f->State.Doors;
    if (changed)
        f->State.Changes++;
    f->State.Doors = doors;
    f->Known = TRUE;
    state = f->State;
    KeReleaseSpinLockFromDpcLevel(&f->Lock);
    if (!changed)
        return;
    for (n = 0; n < AT_ONCE && (irp = QuayTake(&f->Waiting, NULL)) != NULL; n++) {
        *(STATE *)irp->AssociatedIrp.SystemBuffer = state;
        CraftFinish(&f->Craft, irp, STATUS_SUCCESS, sizeof state);
    }
}

static void StopLooking(CRAFT *s)
{
    KeCancelTimer(&((FIR *)s)->Tick);
    KeFlushQueuedDpcs();
}

static NTSTATUS FirServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    FIR *f = (FIR *)s;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&f->Lock, &irql);
        if (f->Known) {
            *(STATE *)irp->AssociatedIrp.SystemBuffer = f->State;
            irp->IoStatus.Information = sizeof(STATE);
        } else
            status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&f->Lock, irql);
        return status;
    case IOCTL_WAIT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE))
            return STATUS_BUFFER_TOO_SMALL;
        return QuayPut(&f->Waiting, irp);
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

/* Behind D3, too: the chip has forgotten what its pins are. */
static void FirArm(CRAFT *s)
{
    ULONG value = Rd(&s->Window[0], CNTRL), n;
    for (n = 0; n < PINS; n++)
        value &= ~(PIN_SELECT(n) | PIN_OUTPUT(n));
    Wr(&s->Window[0], CNTRL, value);
}

static void FirRun(CRAFT *s)
{
    FIR *f = (FIR *)s;
    LARGE_INTEGER first;
    first.QuadPart = -PERIOD_MS * 10000ll;
    KeSetTimerEx(&f->Tick, first, PERIOD_MS, &f->TickDpc);
}

static void FirScuttle(CRAFT *s)
{
    QuayFlush(&((FIR *)s)->Waiting, NULL, STATUS_DELETE_PENDING);
}

static void FirCleanup(CRAFT *s, PFILE_OBJECT file)
{
    QuayFlush(&((FIR *)s)->Waiting, file, STATUS_CANCELLED);
}

static NTSTATUS FirOutfit(CRAFT *s)
{
    FIR *f = (FIR *)s;
    KeInitializeSpinLock(&f->Lock);
    KeInitializeTimer(&f->Tick);
    KeInitializeDpc(&f->TickDpc, Look, f);
    return QuayInit(&f->Waiting, &s->Lock);
}

static const PLAN FirPlan = {
    .Size = sizeof(FIR),
    .Face = &FirFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { 0x54 },
    .Outfit = FirOutfit,
#ifndef FIXED
    .Stop = StopLooking,
#else
    .Idle = StopLooking,
#endif
    .Arm = FirArm,
    .Run = FirRun,
    .Scuttle = FirScuttle,
    .Serve = FirServe,
    .Cleanup = FirCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &FirPlan);
}
