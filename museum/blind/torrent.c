/*
 * torrent: the output side of a software radio card, a bus master. Writes of up to 32 KiB go out by a chain of descriptors, one for each piece of
 * the program's buffer; the card fetches the chain from a common buffer, and interrupts at its end.
 *
 * The bug: the chain has room for as many descriptors as 32 KiB have pages; a buffer of that size that does not begin at a page's beginning
 * lies in one page more, and the last descriptor is written behind the chain.
 *
 * Device: PCI\VEN_1CAB&DEV_0844
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_TORRENT_TALLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC51, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TORRENT_TAG   'rroT'
#define TORRENT_MOST  0x8000
#ifndef FIXED
#define TORRENT_CHAIN (TORRENT_MOST / PAGE_SIZE)
#else
#define TORRENT_CHAIN (TORRENT_MOST / PAGE_SIZE + 1)
#endif

#define REG_STATUS    0x00                   /* a one written clears its bit */
#define STATUS_DONE   0x01
#define STATUS_FAILED 0x02
#define STATUS_BOTH   0x03
#define REG_CONTROL   0x04
#define CONTROL_RUN   0x01
#define CONTROL_ABORT 0x02
#define CONTROL_IRQ   0x04
#define REG_CHAIN     0x08                   /* address, low and high */
#define REG_COUNT     0x10

typedef struct LINK {
    ULONGLONG Address;
    ULONG Length;
    ULONG Last;
} LINK;

typedef struct TORRENT {
    DEPOT *Depot;
    WINDOW Regs;
    WIRE Wire;
    KDPC Dpc;
    volatile LONG Status;                    /* from the service routine to the DPC */
    PDMA_ADAPTER Adapter;
    LINK *Chain;                             /* made here, and copied to the common buffer */
    LINK *Common;
    PHYSICAL_ADDRESS CommonAt;
    SIDING Waiting;
    SIDING Active;                           /* the one whose pages the card has */
    KSPIN_LOCK Lock;                         /* all below */
    BOOLEAN Lit;
    BOOLEAN Busy;                            /* from a request's leaving Waiting to its end */
    BOOLEAN Started;
    BOOLEAN Pumping;
    ULONG Number;                            /* of the request that is active */
    PSCATTER_GATHER_LIST List;               /* its pages */
    ULONG Done, Failed;
} TORRENT;

static const GUID TorrentGuid = { 0x60b8ef3a, 0xc715, 0x4dc9, { 0x92, 0xe4, 0x3c, 0xab, 0x08, 0x44, 0x15, 0x10 } };

static BOOLEAN TorrentIsr(PVOID context)
{
    TORRENT *t = context;
    ULONG status = WindowGet(&t->Regs, REG_STATUS);

    if (status == 0xFFFFFFFF || (status & STATUS_BOTH) == 0)
        return FALSE;
    WindowPut(&t->Regs, REG_STATUS, status & STATUS_BOTH);
    InterlockedOr(&t->Status, (LONG)(status & STATUS_BOTH));
    KeInsertQueueDpc(&t->Dpc, NULL, NULL);
    return TRUE;
}

/* With the interrupt's lock: the card touches memory no more, and what it has said is forgotten. */
static BOOLEAN NTAPI TorrentAbort(PVOID context)
{
    TORRENT *t = context;

    WindowPut(&t->Regs, REG_CONTROL, CONTROL_ABORT);
    WindowGet(&t->Regs, REG_CONTROL);
    WindowPut(&t->Regs, REG_STATUS, STATUS_BOTH);
    WindowPut(&t->Regs, REG_CONTROL, 0);
    InterlockedExchange(&t->Status, 0);
    return TRUE;
}

/* The pages are there. At DISPATCH_LEVEL. */
static VOID NTAPI TorrentList(PDEVICE_OBJECT fdo, PIRP current, PSCATTER_GATHER_LIST list, PVOID context)
{
    TORRENT *t = ((DEPOT *)fdo->DeviceExtension)->Own;
    PIRP irp = context;
    ULONG i, number, count = list->NumberOfElements;

    UNREFERENCED_PARAMETER(current);
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    for (i = 0; i < count; i++) {
        t->Chain[i].Address = (ULONGLONG)list->Elements[i].Address.QuadPart;
        t->Chain[i].Length = list->Elements[i].Length;
        t->Chain[i].Last = i + 1 == count;
    }
    RtlCopyMemory(t->Common, t->Chain, count * sizeof(LINK));
    t->List = list;
    t->Started = FALSE;
    number = ++t->Number;
    KeReleaseSpinLockFromDpcLevel(&t->Lock);

    SidingPut(&t->Active, irp);              /* from here it can be cancelled; it may be over on return */
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    if (t->Lit && t->List != NULL && t->Number == number) {
        WindowPut(&t->Regs, REG_CHAIN, t->CommonAt.LowPart);
        WindowPut(&t->Regs, REG_CHAIN + 4, (ULONG)t->CommonAt.HighPart);
        WindowPut(&t->Regs, REG_COUNT, count);
        WindowPut(&t->Regs, REG_CONTROL, CONTROL_RUN | CONTROL_IRQ);
        t->Started = TRUE;
    }
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
}

/* Begins the next request, if none is under way. One at a time: who comes meanwhile leaves it to the one who is here, who looks again. */
static VOID TorrentPump(TORRENT *t)
{
    KIRQL irql;
    NTSTATUS st;
    PIRP irp;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    if (t->Pumping) {
        KeReleaseSpinLockFromDpcLevel(&t->Lock);
        KeLowerIrql(irql);
        return;
    }
    t->Pumping = TRUE;
    while (t->Lit && !t->Busy && (irp = SidingTake(&t->Waiting, NULL)) != NULL) {
        t->Busy = TRUE;
        KeReleaseSpinLockFromDpcLevel(&t->Lock);
        st = t->Adapter->DmaOperations->GetScatterGatherList(t->Adapter, t->Depot->Fdo, irp->MdlAddress,
                                                             MmGetMdlVirtualAddress(irp->MdlAddress),
                                                             IrpHere(irp)->Parameters.Write.Length, TorrentList, irp, TRUE);
        if (!NT_SUCCESS(st))
            DepotEnd(t->Depot, irp, st, 0);
        KeAcquireSpinLockAtDpcLevel(&t->Lock);
        if (!NT_SUCCESS(st))
            t->Busy = FALSE;
    }
    t->Pumping = FALSE;
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
    KeLowerIrql(irql);
}

/* Gives the pages of a request back that was taken from Active. At DISPATCH_LEVEL. */
static VOID TorrentRelease(TORRENT *t)
{
    PSCATTER_GATHER_LIST list;

    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    list = t->List;
    t->List = NULL;
    t->Started = FALSE;
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
    t->Adapter->DmaOperations->PutScatterGatherList(t->Adapter, list, TRUE);
}

static VOID TorrentFree(TORRENT *t)
{
    KIRQL irql;

    KeAcquireSpinLock(&t->Lock, &irql);
    t->Busy = FALSE;
    KeReleaseSpinLock(&t->Lock, irql);
}

static VOID TorrentCancelled(SIDING *s, PIRP irp, PVOID owner)
{
    TORRENT *t = owner;
    KIRQL irql;

    UNREFERENCED_PARAMETER(s);
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    if (t->Lit)
        KeSynchronizeExecution(t->Wire.Object, TorrentAbort, t);
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
    TorrentRelease(t);
    TorrentFree(t);
    TorrentPump(t);
    KeLowerIrql(irql);
    DepotEnd(t->Depot, irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI TorrentDpc(PKDPC dpc, PVOID context, PVOID x, PVOID y)
{
    TORRENT *t = context;
    ULONG status;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(y);
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    status = (ULONG)InterlockedExchange(&t->Status, 0);
    if (t->Lit && t->Started && status != 0) {
        irp = SidingTake(&t->Active, NULL);          /* none: it is being cancelled */
        if (irp != NULL)
            KeSynchronizeExecution(t->Wire.Object, TorrentAbort, t);     /* idle, or it is now */
        if (irp != NULL && (status & STATUS_FAILED))
            t->Failed++;
        else if (irp != NULL)
            t->Done++;
    }
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
    if (irp == NULL)
        return;
    TorrentRelease(t);
    TorrentFree(t);
    TorrentPump(t);
    if (status & STATUS_FAILED)
        DepotEnd(t->Depot, irp, STATUS_IO_DEVICE_ERROR, 0);
    else
        DepotEnd(t->Depot, irp, STATUS_SUCCESS, IrpHere(irp)->Parameters.Write.Length);
}

static NTSTATUS TorrentWrite(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    TORRENT *t = d->Own;

    if (sp->Parameters.Write.Length == 0)
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    if (sp->Parameters.Write.Length > TORRENT_MOST)
        return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
    SidingPut(&t->Waiting, irp);
    TorrentPump(t);
    return STATUS_PENDING;
}

static NTSTATUS TorrentControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    TORRENT *t = d->Own;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_TORRENT_TALLY)
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG))
        return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&t->Lock, &irql);
    buffer[0] = t->Done;
    buffer[1] = t->Failed;
    KeReleaseSpinLock(&t->Lock, irql);
    return DepotEnd(d, irp, STATUS_SUCCESS, 2 * sizeof(ULONG));
}

static VOID TorrentLight(TORRENT *t)
{
    KIRQL irql;

    WireLive(&t->Wire, TRUE);
    KeAcquireSpinLock(&t->Lock, &irql);
    KeSynchronizeExecution(t->Wire.Object, TorrentAbort, t);
    t->Lit = TRUE;
    KeReleaseSpinLock(&t->Lock, irql);
    TorrentPump(t);
}

/* What is under way is stopped, and begins anew when the card is back. */
static VOID TorrentDark(TORRENT *t, BOOLEAN reach)
{
    LARGE_INTEGER ms;
    BOOLEAN still;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&t->Lock, &irql);
    t->Lit = FALSE;
    if (reach)
        KeSynchronizeExecution(t->Wire.Object, TorrentAbort, t);
    KeReleaseSpinLock(&t->Lock, irql);
    WireLive(&t->Wire, FALSE);
    KeRemoveQueueDpc(&t->Dpc);
    KeFlushQueuedDpcs();
    InterlockedExchange(&t->Status, 0);
    ms.QuadPart = -10000;
    for (;;) {
        irp = SidingTake(&t->Active, NULL);
        if (irp != NULL) {
            KeRaiseIrql(DISPATCH_LEVEL, &irql);
            TorrentRelease(t);
            KeLowerIrql(irql);
            SidingPut(&t->Waiting, irp);
            TorrentFree(t);
        }
        KeAcquireSpinLock(&t->Lock, &irql);
        still = t->Busy || t->Pumping;
        KeReleaseSpinLock(&t->Lock, irql);
        if (!still)
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &ms);      /* a cancellation, or the pages of the last request, are on their way */
    }
}

static VOID TorrentUndo(TORRENT *t)
{
    if (t->Chain != NULL)
        ExFreePoolWithTag(t->Chain, TORRENT_TAG);
    if (t->Common != NULL)
        t->Adapter->DmaOperations->FreeCommonBuffer(t->Adapter, TORRENT_CHAIN * sizeof(LINK), t->CommonAt, t->Common, TRUE);
    if (t->Adapter != NULL)
        t->Adapter->DmaOperations->PutDmaAdapter(t->Adapter);
    t->Chain = NULL;
    t->Common = NULL;
    t->Adapter = NULL;
    WindowShut(&t->Regs);
}

static NTSTATUS TorrentUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    TORRENT *t = d->Own;
    DEVICE_DESCRIPTION about;
    const RES *r = ChartNth(list, TRUE, 0);
    ULONG registers;
    NTSTATUS st;

    if (r == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!WindowOpen(&t->Regs, r, 0x20))
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(&about, sizeof(about));
    about.Version = DEVICE_DESCRIPTION_VERSION;
    about.Master = TRUE;
    about.ScatterGather = TRUE;
    about.Dma32BitAddresses = TRUE;
    about.Dma64BitAddresses = TRUE;
    about.InterfaceType = PCIBus;
    about.MaximumLength = TORRENT_MOST;
    t->Adapter = IoGetDmaAdapter(d->Pdo, &about, &registers);
    if (t->Adapter != NULL)
        t->Common = t->Adapter->DmaOperations->AllocateCommonBuffer(t->Adapter, TORRENT_CHAIN * sizeof(LINK), &t->CommonAt, TRUE);
    if (t->Common != NULL)
        t->Chain = Alloc(TORRENT_CHAIN * sizeof(LINK), TORRENT_TAG);
    if (t->Chain == NULL) {
        TorrentUndo(t);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    WindowPut(&t->Regs, REG_CONTROL, CONTROL_ABORT);
    WindowPut(&t->Regs, REG_STATUS, STATUS_BOTH);
    WindowPut(&t->Regs, REG_CONTROL, 0);
    st = WireConnect(&t->Wire, ChartNth(list, FALSE, 0), TorrentIsr, t);
    if (!NT_SUCCESS(st)) {
        TorrentUndo(t);
        return st;
    }
    TorrentLight(t);
    return STATUS_SUCCESS;
}

static VOID TorrentDown(DEPOT *d, BOOLEAN reach)
{
    TORRENT *t = d->Own;

    TorrentDark(t, reach);
    WireCut(&t->Wire);
    TorrentUndo(t);
}

static VOID TorrentSleep(DEPOT *d)
{
    TorrentDark(d->Own, TRUE);
}

static VOID TorrentWake(DEPOT *d)
{
    TorrentLight(d->Own);
}

static NTSTATUS TorrentPrepare(DEPOT *d)
{
    TORRENT *t = d->Own;

    t->Depot = d;
    KeInitializeSpinLock(&t->Lock);
    KeInitializeDpc(&t->Dpc, TorrentDpc, t);
    SidingInit(&t->Waiting, &d->Lock, t);
    SidingInit(&t->Active, &d->Lock, t);
    t->Active.Cancelled = TorrentCancelled;
    return STATUS_SUCCESS;
}

static VOID TorrentPurge(DEPOT *d, PFILE_OBJECT file, NTSTATUS st)
{
    TORRENT *t = d->Own;
    PIRP irp;

    SidingClear(&t->Waiting, file, st);
    irp = SidingTake(&t->Active, file);
    if (irp != NULL)
        TorrentCancelled(&t->Active, irp, t);
}

static const PLAN TorrentPlan = {
    .Interface = &TorrentGuid,
    .OwnSize = sizeof(TORRENT),
    .IoFlags = DO_DIRECT_IO,
    .Prepare = TorrentPrepare,
    .Up = TorrentUp,
    .Down = TorrentDown,
    .Sleep = TorrentSleep,
    .Wake = TorrentWake,
    .Purge = TorrentPurge,
    .Write = TorrentWrite,
    .Control = TorrentControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &TorrentPlan);
}
