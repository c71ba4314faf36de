/*
 * corbel: a line printer's raster card. A program writes up to 64 KiB; the card's bus master takes it directly from the program's pages, one piece of the
 * scatter/gather list after the other. What comes while it is busy waits in a queue.
 *
 * The bug: a write that finds the card free is marked pending and begun at once. If no scatter/gather list can be had for it, it is completed with the error and the
 * error is returned, although a request that has been marked pending must be answered with STATUS_PENDING.
 *
 * Device: PCI\VEN_1D0E&DEV_4410
 * Rule: pending-marked, completed-with-pending, dispatch-status-differs
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID CorbelFace = { 0x5d0c1c43, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x14, 0x03 } };

#define REG_LOW     0x00
#define REG_HIGH    0x04
#define REG_LENGTH  0x08
#define REG_COMMAND 0x0C
#define   START       1u
#define   ABORT       2u
#define REG_STATUS  0x10                      /* a one written clears its bit */
#define   DONE        1u
#define   FAILED      2u
#define REG_ENABLE  0x14

#define MOST     0x10000u
#define LIMIT_MS 2000

typedef struct _CORBEL {
    CRAFT Craft;
    QUAY Queue;
    PDMA_ADAPTER Adapter;
    KSPIN_LOCK Lock;                          /* of what follows, to Hold; before that of Queue */
    PIRP Current;
    PSCATTER_GATHER_LIST List;
    ULONG Next;
    ULONGLONG Due;
    BOOLEAN Hold;
    KTIMER Limit;
    KDPC LimitDpc;
    volatile LONG Cause;
} CORBEL;

typedef struct _PIECE {
    CORBEL *Corbel;
    SCATTER_GATHER_ELEMENT *Element;
} PIECE;

/* In step with the service routine, so that no cause of the last piece is taken for one of this. */
static BOOLEAN NTAPI StartPiece(PVOID context)
{
    PIECE *p = context;
    const WINDOW *w = &p->Corbel->Craft.Window[0];
    Wr(w, REG_STATUS, DONE | FAILED);
    p->Corbel->Cause = 0;
    Wr(w, REG_LOW, p->Element->Address.LowPart);
    Wr(w, REG_HIGH, (ULONG)p->Element->Address.HighPart);
    Wr(w, REG_LENGTH, p->Element->Length);
    Wr(w, REG_COMMAND, START);
    return TRUE;
}

/* With the lock. */
static void Push(CORBEL *c)
{
    LARGE_INTEGER limit;
    PIECE p;
    p.Corbel = c;
    p.Element = &c->List->Elements[c->Next++];
    c->Due = KeQueryInterruptTime() + LIMIT_MS * 10000ull;
    CraftSync(&c->Craft, StartPiece, &p);
    limit.QuadPart = -LIMIT_MS * 10000ll;
    KeSetTimer(&c->Limit, limit, &c->LimitDpc);
}

/* With the lock: the card lets the memory go, whatever it was at. */
static void Abort(CORBEL *c)
{
    const WINDOW *w = &c->Craft.Window[0];
    Wr(w, REG_COMMAND, ABORT);
    (void)Rd(w, REG_COMMAND);
}

static VOID NTAPI ListReady(PDEVICE_OBJECT device, PIRP irp, PSCATTER_GATHER_LIST list, PVOID context)
{
    CORBEL *c = context;
    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(irp);
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    c->List = list;
    c->Next = 0;
    Push(c);
    KeReleaseSpinLockFromDpcLevel(&c->Lock);
}

/* Current is this request, which is no one else's. If it fails Current is free again, and the request is the caller's. */
static NTSTATUS Launch(CORBEL *c, PIRP irp)
{
    NTSTATUS status;
    KIRQL irql;
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    status = c->Adapter->DmaOperations->GetScatterGatherList(c->Adapter, c->Craft.Fdo, irp->MdlAddress, MmGetMdlVirtualAddress(irp->MdlAddress),
        IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length, ListReady, c, TRUE);
    if (!NT_SUCCESS(status)) {
        KeAcquireSpinLockAtDpcLevel(&c->Lock);
        c->Current = NULL;
        KeReleaseSpinLockFromDpcLevel(&c->Lock);
    }
    KeLowerIrql(irql);
    return status;
}

/* Begins what waits in the queue, if the card is free. */
static void Begin(CORBEL *c)
{
    for (;;) {
        PIRP irp = NULL;
        NTSTATUS status;
        KIRQL irql;
        KeAcquireSpinLock(&c->Lock, &irql);
        if (!c->Hold && !c->Current) {
            irp = QuayTake(&c->Queue, NULL);
            c->Current = irp;
            c->List = NULL;
        }
        KeReleaseSpinLock(&c->Lock, irql);
        if (!irp)
            return;
        status = Launch(c, irp);
        if (NT_SUCCESS(status))
            return;
        CraftFinish(&c->Craft, irp, status, 0);
    }
}

/* At DISPATCH_LEVEL: what has been taken out of Current ends. */
static void End(CORBEL *c, PIRP irp, PSCATTER_GATHER_LIST list, NTSTATUS status)
{
    ULONG bytes = NT_SUCCESS(status) ? IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length : 0;
    c->Adapter->DmaOperations->PutScatterGatherList(c->Adapter, list, TRUE);
    CraftFinish(&c->Craft, irp, status, bytes);
}

/* With the lock. */
static PIRP TakeCurrent(CORBEL *c, PSCATTER_GATHER_LIST *list)
{
    PIRP irp = c->Current;
    *list = c->List;
    c->Current = NULL;
    c->List = NULL;
    return irp;
}

static VOID NTAPI LimitEnds(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    CORBEL *c = context;
    PSCATTER_GATHER_LIST list = NULL;
    PIRP irp = NULL;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    if (c->Current && c->List && KeQueryInterruptTime() >= c->Due) {
        Abort(c);
        irp = TakeCurrent(c, &list);
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);
    if (irp) {
        End(c, irp, list, STATUS_IO_TIMEOUT);
        Begin(c);
    }
}

static BOOLEAN CorbelIsr(CRAFT *s)
{
    CORBEL *c = (CORBEL *)s;
    ULONG cause = Rd(&s->Window[0], REG_STATUS);
    if (cause == ~0u || !(cause & (DONE | FAILED)))
        return FALSE;
    Wr(&s->Window[0], REG_STATUS, cause & (DONE | FAILED));
    InterlockedOr(&c->Cause, (LONG)(cause & (DONE | FAILED)));
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

static void CorbelDpc(CRAFT *s)
{
    CORBEL *c = (CORBEL *)s;
    PSCATTER_GATHER_LIST list = NULL;
    NTSTATUS status = STATUS_SUCCESS;
    PIRP irp = NULL;
    ULONG cause;
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    cause = (ULONG)InterlockedExchange(&c->Cause, 0);
    if (cause && c->Current && c->List) {
        if (cause & FAILED) {
            Abort(c);
            status = STATUS_IO_DEVICE_ERROR;
            irp = TakeCurrent(c, &list);
        } else if (c->Next < c->List->NumberOfElements)
            Push(c);
        else
            irp = TakeCurrent(c, &list);
        if (irp)
            KeCancelTimer(&c->Limit);
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);
    if (irp) {
        End(c, irp, list, status);
        Begin(c);
    }
}

static NTSTATUS CorbelServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    CORBEL *c = (CORBEL *)s;
    BOOLEAN now;
    NTSTATUS status;
    KIRQL irql;
    if (sp->MajorFunction != IRP_MJ_WRITE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (sp->Parameters.Write.Length == 0)
        return STATUS_SUCCESS;
    if (sp->Parameters.Write.Length > MOST)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&c->Lock, &irql);
    now = !c->Hold && !c->Current;
    if (now) {
        IoMarkIrpPending(irp);
        c->Current = irp;
        c->List = NULL;
    }
    KeReleaseSpinLock(&c->Lock, irql);
    if (!now) {
        QuayPut(&c->Queue, irp);
        Begin(c);
        return STATUS_PENDING;
    }
    status = Launch(c, irp);
    if (!NT_SUCCESS(status)) {
        Begin(c);
#ifndef FIXED
        return status;
#else
        CraftFinish(s, irp, status, 0);
#endif
    }
    return STATUS_PENDING;
}

static NTSTATUS CorbelStart(CRAFT *s)
{
    CORBEL *c = (CORBEL *)s;
    DEVICE_DESCRIPTION about;
    ULONG registers;
    Wr(&s->Window[0], REG_ENABLE, 0);
    RtlZeroMemory(&about, sizeof about);
    about.Version = DEVICE_DESCRIPTION_VERSION2;
    about.Master = TRUE;
    about.ScatterGather = TRUE;
    about.Dma32BitAddresses = TRUE;
    about.Dma64BitAddresses = TRUE;
    about.InterfaceType = PCIBus;
    about.MaximumLength = MOST;
    c->Adapter = IoGetDmaAdapter(s->Pdo, &about, &registers);
    return c->Adapter ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static void CorbelStop(CRAFT *s)
{
    CORBEL *c = (CORBEL *)s;
    c->Adapter->DmaOperations->PutDmaAdapter(c->Adapter);
    c->Adapter = NULL;
}

static void CorbelArm(CRAFT *s)
{
    Wr(&s->Window[0], REG_STATUS, DONE | FAILED);
    Wr(&s->Window[0], REG_ENABLE, DONE | FAILED);
}

static void CorbelRun(CRAFT *s)
{
    CORBEL *c = (CORBEL *)s;
    KIRQL irql;
    KeAcquireSpinLock(&c->Lock, &irql);
    c->Hold = FALSE;
    KeReleaseSpinLock(&c->Lock, irql);
    Begin(c);
}

/* What the card is at comes to its end, by itself or by its limit. */
static void CorbelDrain(CRAFT *s)
{
    CORBEL *c = (CORBEL *)s;
    LARGE_INTEGER bit;
    bit.QuadPart = -5 * 10000;
    for (;;) {
        PSCATTER_GATHER_LIST list = NULL;
        PIRP irp = NULL;
        BOOLEAN busy;
        KIRQL irql;
        KeAcquireSpinLock(&c->Lock, &irql);
        c->Hold = TRUE;
        if (s->Gone && c->Current && c->List)
            irp = TakeCurrent(c, &list);
        busy = c->Current != NULL;
        KeReleaseSpinLock(&c->Lock, irql);
        if (irp) {
            KeRaiseIrql(DISPATCH_LEVEL, &irql);
            End(c, irp, list, STATUS_NO_SUCH_DEVICE);
            KeLowerIrql(irql);
        }
        if (!busy)
            return;
        KeDelayExecutionThread(KernelMode, FALSE, &bit);
    }
}

static void CorbelDisarm(CRAFT *s)
{
    Wr(&s->Window[0], REG_ENABLE, 0);
}

static void CorbelIdle(CRAFT *s)
{
    CORBEL *c = (CORBEL *)s;
    KeCancelTimer(&c->Limit);
    KeFlushQueuedDpcs();
    InterlockedExchange(&c->Cause, 0);
}

static void CorbelScuttle(CRAFT *s)
{
    QuayFlush(&((CORBEL *)s)->Queue, NULL, STATUS_DELETE_PENDING);
}

static void CorbelCleanup(CRAFT *s, PFILE_OBJECT file)
{
    QuayFlush(&((CORBEL *)s)->Queue, file, STATUS_CANCELLED);
}

static NTSTATUS CorbelOutfit(CRAFT *s)
{
    CORBEL *c = (CORBEL *)s;
    KeInitializeSpinLock(&c->Lock);
    KeInitializeTimer(&c->Limit);
    KeInitializeDpc(&c->LimitDpc, LimitEnds, c);
    return QuayInit(&c->Queue, &s->Lock);
}

static const PLAN CorbelPlan = {
    .Size = sizeof(CORBEL),
    .Face = &CorbelFace,
    .Buffering = DO_DIRECT_IO,
    .Windows = 1,
    .Least = { 0x18 },
    .Line = TRUE,
    .Outfit = CorbelOutfit,
    .Start = CorbelStart,
    .Stop = CorbelStop,
    .Arm = CorbelArm,
    .Run = CorbelRun,
    .Drain = CorbelDrain,
    .Disarm = CorbelDisarm,
    .Idle = CorbelIdle,
    .Scuttle = CorbelScuttle,
    .Isr = CorbelIsr,
    .Dpc = CorbelDpc,
    .Serve = CorbelServe,
    .Cleanup = CorbelCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &CorbelPlan);
}
