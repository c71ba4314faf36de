/*
 * corncob: an acquisition card with a FIFO of 64 samples. The card interrupts at half full, the service routine notes the FIFO's level, the DPC
 * empties it in one burst into a block, and from there samples of 24 bits go into a ring that programs read.
 *
 * The bug: the level field has seven bits, and what it says is believed: a card that reads as ones (pulled, or without power), or with a glitch in
 * the field, has the burst write up to 127 samples into the block of 64.
 *
 * Device: PCI\VEN_1CAB&DEV_0730
 * Rule: pool-overrun, wild-write
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_COB_POLL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC41, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COB_TALLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC42, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define COB_TAG       'boCc'
#define COB_FIFO      64
#define COB_RING      2048
#define REG_STATUS    0x00                   /* a one written clears its bit */
#define STATUS_HALF   0x01
#define STATUS_SPILT  0x02
#define REG_CONTROL   0x04
#define CONTROL_IRQ   0x01
#define CONTROL_RUN   0x02
#define CONTROL_CLEAR 0x04
#define REG_LEVEL     0x08
#define LEVEL_MASK    0x7F
#define REG_FIFO      0x0C

typedef struct COB_TALLY {
    ULONG Samples, Lost, Bursts;
} COB_TALLY;

typedef struct COB {
    DEPOT *Depot;
    WINDOW Regs;
    WIRE Wire;
    KDPC Dpc;
    volatile LONG Level;                     /* from the service routine to the DPC */
    KSPIN_LOCK Lock;                         /* all below, and the FIFO */
    BOOLEAN Lit;
    PULONG Block;
    LONG Ring[COB_RING];
    ULONG First, Count;
    COB_TALLY Tally;
    SIDING Readers;
} COB;

static const GUID CobGuid = { 0xd17a54e6, 0x0b92, 0x4e83, { 0x85, 0x1f, 0x3c, 0xab, 0x07, 0x30, 0x14, 0x0f } };

static BOOLEAN CobIsr(PVOID context)
{
    COB *c = context;
    ULONG status = WindowGet(&c->Regs, REG_STATUS);

    if (status == 0xFFFFFFFF || (status & (STATUS_HALF | STATUS_SPILT)) == 0)
        return FALSE;
    InterlockedExchange(&c->Level, (LONG)WindowGet(&c->Regs, REG_LEVEL));
    WindowPut(&c->Regs, REG_STATUS, status & (STATUS_HALF | STATUS_SPILT));
    KeInsertQueueDpc(&c->Dpc, NULL, NULL);
    return TRUE;
}

/* Empties the FIFO, with the lock. */
static VOID CobBurst(COB *c, ULONG level)
{
    ULONG n = level & LEVEL_MASK, i;

    if (!c->Lit)
        return;
#ifdef FIXED
    if (level == 0xFFFFFFFF)
        return;
    if (n > COB_FIFO)
        n = COB_FIFO;
#endif
    for (i = 0; i < n; i++)
        c->Block[i] = WindowGet(&c->Regs, REG_FIFO);
    for (i = 0; i < n; i++) {
        LONG sample = (LONG)(c->Block[i] << 8) >> 8;

        if (c->Count < COB_RING)
            c->Ring[(c->First + c->Count++) % COB_RING] = sample;
        else
            c->Tally.Lost++;
    }
    c->Tally.Samples += n;
    c->Tally.Bursts++;
}

/* Gives the readers what there is. */
static VOID CobServe(COB *c)
{
    LIST_ENTRY done;
    PIRP irp;
    ULONG n, i;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&c->Lock, &irql);
    while (c->Count != 0 && (irp = SidingTake(&c->Readers, NULL)) != NULL) {
        PLONG to = irp->AssociatedIrp.SystemBuffer;

        n = IrpHere(irp)->Parameters.Read.Length / sizeof(LONG);
        if (n > c->Count)
            n = c->Count;
        for (i = 0; i < n; i++)
            to[i] = c->Ring[(c->First + i) % COB_RING];
        c->First = (c->First + n) % COB_RING;
        c->Count -= n;
        irp->IoStatus.Information = n * sizeof(LONG);
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&c->Lock, irql);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        DepotEnd(c->Depot, irp, STATUS_SUCCESS, irp->IoStatus.Information);
    }
}

static VOID NTAPI CobDpc(PKDPC dpc, PVOID context, PVOID x, PVOID y)
{
    COB *c = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(y);
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    CobBurst(c, (ULONG)InterlockedExchange(&c->Level, 0));
    KeReleaseSpinLockFromDpcLevel(&c->Lock);
    CobServe(c);
}

static NTSTATUS CobRead(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    COB *c = d->Own;

    if (sp->Parameters.Read.Length == 0)
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    if (sp->Parameters.Read.Length < sizeof(LONG))
        return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
    SidingPut(&c->Readers, irp);
    CobServe(c);
    return STATUS_PENDING;
}

static NTSTATUS CobControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    COB *c = d->Own;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_COB_POLL:                     /* the last samples, fewer than half a FIFO */
        KeAcquireSpinLock(&c->Lock, &irql);
        CobBurst(c, WindowGet(&c->Regs, REG_LEVEL));
        InterlockedExchange(&c->Level, 0);   /* a DPC that is on its way finds nothing left */
        KeReleaseSpinLock(&c->Lock, irql);
        CobServe(c);
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    case IOCTL_COB_TALLY:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COB_TALLY))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&c->Lock, &irql);
        *(COB_TALLY *)irp->AssociatedIrp.SystemBuffer = c->Tally;
        KeReleaseSpinLock(&c->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(COB_TALLY));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID CobLight(COB *c)
{
    KIRQL irql;

    KeAcquireSpinLock(&c->Lock, &irql);
    c->Lit = TRUE;
    KeReleaseSpinLock(&c->Lock, irql);
    WindowPut(&c->Regs, REG_CONTROL, CONTROL_CLEAR);
    WindowPut(&c->Regs, REG_STATUS, STATUS_HALF | STATUS_SPILT);
    WireLive(&c->Wire, TRUE);
    WindowPut(&c->Regs, REG_CONTROL, CONTROL_IRQ | CONTROL_RUN);
}

/* Samples that are on their way are lost, the ring and its readers stay. */
static VOID CobDark(COB *c, BOOLEAN reach)
{
    KIRQL irql;

    if (reach)
        WindowPut(&c->Regs, REG_CONTROL, 0);
    WireLive(&c->Wire, FALSE);
    KeAcquireSpinLock(&c->Lock, &irql);
    c->Lit = FALSE;
    KeReleaseSpinLock(&c->Lock, irql);
    KeRemoveQueueDpc(&c->Dpc);
    KeFlushQueuedDpcs();
    InterlockedExchange(&c->Level, 0);
}

static NTSTATUS CobUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    COB *c = d->Own;
    const RES *r = ChartNth(list, TRUE, 0);
    NTSTATUS st;

    if (r == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!WindowOpen(&c->Regs, r, 0x10))
        return STATUS_INSUFFICIENT_RESOURCES;
    c->Block = Alloc(COB_FIFO * sizeof(ULONG), COB_TAG);
    if (c->Block == NULL) {
        WindowShut(&c->Regs);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    WindowPut(&c->Regs, REG_CONTROL, 0);
    st = WireConnect(&c->Wire, ChartNth(list, FALSE, 0), CobIsr, c);
    if (!NT_SUCCESS(st)) {
        ExFreePoolWithTag(c->Block, COB_TAG);
        WindowShut(&c->Regs);
        return st;
    }
    CobLight(c);
    return STATUS_SUCCESS;
}

static VOID CobDown(DEPOT *d, BOOLEAN reach)
{
    COB *c = d->Own;

    CobDark(c, reach);
    WireCut(&c->Wire);
    ExFreePoolWithTag(c->Block, COB_TAG);
    WindowShut(&c->Regs);
}

static VOID CobSleep(DEPOT *d)
{
    CobDark(d->Own, TRUE);
}

static VOID CobWake(DEPOT *d)
{
    CobLight(d->Own);
}

static NTSTATUS CobPrepare(DEPOT *d)
{
    COB *c = d->Own;

    c->Depot = d;
    KeInitializeSpinLock(&c->Lock);
    KeInitializeDpc(&c->Dpc, CobDpc, c);
    SidingInit(&c->Readers, &d->Lock, c);
    return STATUS_SUCCESS;
}

static VOID CobPurge(DEPOT *d, PFILE_OBJECT file, NTSTATUS st)
{
    COB *c = d->Own;

    SidingClear(&c->Readers, file, st);
}

static const PLAN CobPlan = {
    .Interface = &CobGuid,
    .OwnSize = sizeof(COB),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = CobPrepare,
    .Up = CobUp,
    .Down = CobDown,
    .Sleep = CobSleep,
    .Wake = CobWake,
    .Purge = CobPurge,
    .Read = CobRead,
    .Control = CobControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &CobPlan);
}
