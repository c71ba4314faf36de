/*
 * eduquern: computes factorials on QEMU's educational card. Programs hand in a number each and wait; the card grinds one at a time and
 * interrupts when it is done.
 *
 * The bug: when the device is stopped the registers are unmapped, but the pointer stays, and the next start takes the pointer for a mapping that
 * is still there: everything behind a stop and start goes to addresses that are no longer mapped.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: device-memory-not-mapped, wild-read, wild-write, bad-pointer, io-space-unmap
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_QUERN_GRIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_SIZE       0x1000                /* what we use of the megabyte */
#define EDU_FACTORIAL  0x08
#define EDU_STATUS     0x20
#define EDU_BUSY       0x01
#define EDU_IRQ_WANTED 0x80
#define EDU_CAUSE      0x24
#define EDU_ACK        0x64

typedef struct QUERN {
    DEPOT *Depot;
    PUCHAR Regs;
    WIRE Wire;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    SIDING Waiting;                          /* not begun */
    SIDING Active;                           /* the one that the card computes, if it was not cancelled */
    BOOLEAN Lit;                             /* the card may be asked */
    BOOLEAN Busy;                            /* a request is being begun, or the card computes */
    BOOLEAN Started;                         /* the card has the number */
} QUERN;

static const GUID QuernGuid = { 0x5a3d9c10, 0x61f2, 0x4c1b, { 0x9e, 0x21, 0x3b, 0x70, 0x11, 0xe8, 0x0a, 0x01 } };

static ULONG QuernGet(QUERN *q, ULONG at)
{
    return READ_REGISTER_ULONG((PULONG)(q->Regs + at));
}

static VOID QuernPut(QUERN *q, ULONG at, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(q->Regs + at), value);
}

static BOOLEAN QuernIsr(PVOID context)
{
    QUERN *q = context;
    ULONG cause = QuernGet(q, EDU_CAUSE);

    if (cause == 0 || cause == 0xFFFFFFFF)
        return FALSE;
    QuernPut(q, EDU_ACK, cause);
    KeInsertQueueDpc(&q->Dpc, NULL, NULL);
    return TRUE;
}

/* Gives the card the next number, unless it has one. */
static VOID QuernPump(QUERN *q)
{
    PIRP irp = NULL;
    ULONG number;
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    if (q->Lit && !q->Busy) {
        irp = SidingTake(&q->Waiting, NULL);
        q->Busy = irp != NULL;
        q->Started = FALSE;
    }
    KeReleaseSpinLock(&q->Lock, irql);
    if (irp == NULL)
        return;

    number = *(PULONG)irp->AssociatedIrp.SystemBuffer;
    SidingPut(&q->Active, irp);
    KeAcquireSpinLock(&q->Lock, &irql);
    if (q->Lit) {
        QuernPut(q, EDU_FACTORIAL, number);
        q->Started = TRUE;
    }
    KeReleaseSpinLock(&q->Lock, irql);
}

static VOID NTAPI QuernDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    QUERN *q = context;
    PIRP irp = NULL;
    ULONG result = 0;
    BOOLEAN over = FALSE;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&q->Lock);
    if (q->Lit && q->Busy && q->Started && !(QuernGet(q, EDU_STATUS) & EDU_BUSY)) {
        result = QuernGet(q, EDU_FACTORIAL);
        irp = SidingTake(&q->Active, NULL);  /* none, if it was cancelled meanwhile */
        q->Busy = FALSE;
        over = TRUE;
    }
    KeReleaseSpinLockFromDpcLevel(&q->Lock);
    if (over)
        QuernPump(q);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
        DepotEnd(q->Depot, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

/* The card computes on although no program asks any more: it takes no new number meanwhile. */
static VOID QuernSettle(QUERN *q)
{
    LARGE_INTEGER ms;
    ULONG i, status;

    ms.QuadPart = -10000;
    for (i = 0; i < 20; i++) {
        status = QuernGet(q, EDU_STATUS);
        if (!(status & EDU_BUSY) || status == 0xFFFFFFFF)
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &ms);
    }
}

static VOID QuernLight(QUERN *q)
{
    KIRQL irql;

    QuernSettle(q);
    QuernPut(q, EDU_ACK, QuernGet(q, EDU_CAUSE));
    KeAcquireSpinLock(&q->Lock, &irql);
    q->Lit = TRUE;
    KeReleaseSpinLock(&q->Lock, irql);
    WireLive(&q->Wire, TRUE);
    QuernPut(q, EDU_STATUS, EDU_IRQ_WANTED);
    QuernPump(q);
}

/* The opposite. What the card was at waits for its return. */
static VOID QuernDark(QUERN *q, BOOLEAN reach)
{
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&q->Lock, &irql);
    q->Lit = FALSE;
    KeReleaseSpinLock(&q->Lock, irql);
    if (reach) {
        QuernPut(q, EDU_STATUS, 0);
        QuernSettle(q);
    }
    WireLive(&q->Wire, FALSE);
    if (reach)
        QuernPut(q, EDU_ACK, QuernGet(q, EDU_CAUSE));
    KeRemoveQueueDpc(&q->Dpc);
    KeFlushQueuedDpcs();
    irp = SidingTake(&q->Active, NULL);
    if (irp != NULL)
        SidingPut(&q->Waiting, irp);
    KeAcquireSpinLock(&q->Lock, &irql);
    q->Busy = FALSE;
    KeReleaseSpinLock(&q->Lock, irql);
}

static VOID QuernUnmap(QUERN *q)
{
    MmUnmapIoSpace(q->Regs, EDU_SIZE);
#ifdef FIXED
    q->Regs = NULL;
#endif
}

static NTSTATUS QuernUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    QUERN *q = d->Own;
    const RES *r = ChartNth(list, TRUE, 0);
    NTSTATUS st;

    if (r == NULL || r->Type != CmResourceTypeMemory || r->u.Generic.Length < EDU_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (q->Regs == NULL)
        q->Regs = MmMapIoSpace(r->u.Generic.Start, EDU_SIZE, MmNonCached);
    if (q->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    QuernPut(q, EDU_STATUS, 0);
    QuernPut(q, EDU_ACK, QuernGet(q, EDU_CAUSE));
    st = WireConnect(&q->Wire, ChartNth(list, FALSE, 0), QuernIsr, q);
    if (!NT_SUCCESS(st)) {
        QuernUnmap(q);
        return st;
    }
    QuernLight(q);
    return STATUS_SUCCESS;
}

static VOID QuernDown(DEPOT *d, BOOLEAN reach)
{
    QUERN *q = d->Own;

    QuernDark(q, reach);
    WireCut(&q->Wire);
    QuernUnmap(q);
}

static VOID QuernSleep(DEPOT *d)
{
    QuernDark(d->Own, TRUE);
}

static VOID QuernWake(DEPOT *d)
{
    QuernLight(d->Own);
}

static NTSTATUS QuernPrepare(DEPOT *d)
{
    QUERN *q = d->Own;

    q->Depot = d;
    KeInitializeSpinLock(&q->Lock);
    KeInitializeDpc(&q->Dpc, QuernDpc, q);
    SidingInit(&q->Waiting, &d->Lock, q);
    SidingInit(&q->Active, &d->Lock, q);
    return STATUS_SUCCESS;
}

static VOID QuernPurge(DEPOT *d, PFILE_OBJECT file, NTSTATUS st)
{
    QUERN *q = d->Own;

    SidingClear(&q->Waiting, file, st);
    SidingClear(&q->Active, file, st);
}

static NTSTATUS QuernControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    QUERN *q = d->Own;

    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_QUERN_GRIND)
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
        return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
    SidingPut(&q->Waiting, irp);
    QuernPump(q);
    return STATUS_PENDING;
}

static const PLAN QuernPlan = {
    .Interface = &QuernGuid,
    .OwnSize = sizeof(QUERN),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = QuernPrepare,
    .Up = QuernUp,
    .Down = QuernDown,
    .Sleep = QuernSleep,
    .Wake = QuernWake,
    .Purge = QuernPurge,
    .Control = QuernControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &QuernPlan);
}
