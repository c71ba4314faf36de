/*
 * GIMBAL: a camera card that copies its picture into memory by itself.
 * ReadFile takes a picture of up to 64 KiB into the caller's buffer (direct
 * I/O); IOCTL_GIMBAL_LAST answers, for the field service, of which pieces the
 * last transfer consisted.
 *
 * The card: BAR0, 4 KiB, all registers of 32 bits.
 *   000 ID      47494D42h
 *   004 CTRL    bit 0: raise the interrupt while STATUS has DONE
 *   008 STATUS  bit 0 DONE, bit 1 ERROR (comes with DONE), both cleared by
 *               writing 1; bit 2 RUNNING, read only
 *   00C COUNT   how many pieces the transfer has, 1 to 32
 *   010 GO      writing 1 begins a transfer
 *   014 STOP    writing 1 ends it; the card writes no more to memory once the
 *               next read from it has been answered
 *   100 + 8*n   address of piece n (32 bits), 104 + 8*n its length in bytes
 *
 * The bug: the driver keeps a copy of the pieces for as many as 64 KiB have
 * pages, but a buffer that does not begin on a page touches one page more;
 * the seventeenth piece is written behind the end of the copy, in the pool.
 *
 * Device: PCI\VEN_1DA7&DEV_0101
 * Rule: pool-overrun
 * Needs: ioctl, device
 */
#include "../include/wharf_card.h"

DEFINE_GUID(GUID_GIMBAL, 0x6d1c0b11, 0x2f0a, 0x4c55, 0x91, 0x07, 0x33, 0x5e, 0xd0, 0x18, 0x7a, 0x09);

#define IOCTL_GIMBAL_LAST \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define G_ID      0x000
#define   G_MAGIC   0x47494D42
#define G_CTRL    0x004
#define G_STATUS  0x008
#define   G_DONE    1
#define   G_ERROR   2
#define G_COUNT   0x00C
#define G_GO      0x010
#define G_STOP    0x014
#define G_PIECE   0x100
#define G_PIECES  32
#define G_GONE    0xFFFFFFFFu

#define GIMBAL_MAX 0x10000
#ifdef FIXED
#define PIECES (GIMBAL_MAX / PAGE_SIZE + 1)
#else
#define PIECES (GIMBAL_MAX / PAGE_SIZE)
#endif
#define TICK_MS 100
#define LIMIT   20              /* ticks */

typedef struct _PIECE {
    ULONG Address;
    ULONG Length;
} PIECE;

typedef struct _GIMBAL_LAST {
    ULONG Used;
    ULONG Length[G_PIECES];
} GIMBAL_LAST;

typedef struct _CARD {
    WHARF W;
    WHARF_QUEUE Queue;
    PIRP Current;               /* Spin */
    BOOLEAN Busy;               /* Spin: from getting the list to giving it back */
    PSCATTER_GATHER_LIST Sg;    /* Spin: the card works on it */
    ULONG Ticks;                /* Spin */
    BOOLEAN Broken;             /* Spin */
    PIECE *Pieces;              /* Spin: of the last transfer */
    ULONG Used;                 /* Spin */
    ULONG Result;               /* interrupt lock */
    KEVENT Idle;                /* set while !Busy */
    PDMA_ADAPTER Adapter;
    KDPC Dpc, TickDpc;
    KTIMER Tick;
} CARD;

#define CARD_GUID GUID_GIMBAL
#define CARD_IO   DO_DIRECT_IO

static VOID GimbalKick(CARD *e);

static BOOLEAN NTAPI GimbalIsr(PKINTERRUPT intr, PVOID ctx)
{
    CARD *e = ctx;
    ULONG st;

    (void)intr;
    if (!e->W.IsrOn)
        return FALSE;
    st = WharfRd(&e->W, G_STATUS);
    if (st == G_GONE || !(st & G_DONE))
        return FALSE;
    WharfWr(&e->W, G_STATUS, st & (G_DONE | G_ERROR));
    e->Result |= st & (G_DONE | G_ERROR);
    KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

/* Spin is held */
static VOID GimbalFree(CARD *e)
{
    e->Busy = FALSE;
    KeSetEvent(&e->Idle, IO_NO_INCREMENT, FALSE);
}

/* the request with its list has been taken off the card; DISPATCH_LEVEL */
static VOID GimbalEnd(CARD *e, PIRP irp, PSCATTER_GATHER_LIST sg, NTSTATUS st)
{
    ULONG len = MmGetMdlByteCount(irp->MdlAddress);
    KIRQL q;

    e->Adapter->DmaOperations->PutScatterGatherList(e->Adapter, sg, FALSE);
    WharfDone(&e->W, irp, st, NT_SUCCESS(st) ? len : 0);
    KeAcquireSpinLock(&e->W.Spin, &q);
    GimbalFree(e);
    KeReleaseSpinLock(&e->W.Spin, q);
    GimbalKick(e);
}

/* the system has a list for the current request; DISPATCH_LEVEL */
static VOID NTAPI GimbalList(PDEVICE_OBJECT d, PIRP unused,
                             PSCATTER_GATHER_LIST sg, PVOID ctx)
{
    CARD *e = ctx;
    PIRP irp = NULL;
    ULONG i;
    KIRQL q;

    (void)d; (void)unused;
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (!e->W.Live) {
        irp = e->Current;
        e->Current = NULL;
    } else {
        e->Sg = sg;
        e->Ticks = LIMIT;
        e->Used = sg->NumberOfElements;
        for (i = 0; i < e->Used; i++) {
            e->Pieces[i].Address = sg->Elements[i].Address.LowPart;
            e->Pieces[i].Length = sg->Elements[i].Length;
            WharfWr(&e->W, G_PIECE + 8 * i, e->Pieces[i].Address);
            WharfWr(&e->W, G_PIECE + 8 * i + 4, e->Pieces[i].Length);
        }
        WharfWr(&e->W, G_COUNT, e->Used);
        WharfWr(&e->W, G_GO, 1);
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    if (irp)
        GimbalEnd(e, irp, sg, STATUS_NO_SUCH_DEVICE);
}

static VOID GimbalKick(CARD *e)
{
    NTSTATUS st;
    PMDL mdl;
    PIRP irp;
    KIRQL q;

    for (;;) {
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->W.Live && !e->Broken && (e->Busy || !e->W.Awake))
            irp = NULL;
        else
            irp = WharfQueueNext(&e->Queue, NULL);
        if (!irp) {
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        if (!e->W.Live || e->Broken) {
            st = e->W.Live ? STATUS_IO_DEVICE_ERROR : STATUS_NO_SUCH_DEVICE;
            KeReleaseSpinLock(&e->W.Spin, q);
            WharfDone(&e->W, irp, st, 0);
            continue;
        }
        e->Busy = TRUE;
        e->Current = irp;
        KeClearEvent(&e->Idle);
        KeReleaseSpinLockFromDpcLevel(&e->W.Spin);
        mdl = irp->MdlAddress;
        KeFlushIoBuffers(mdl, TRUE, TRUE);
        st = e->Adapter->DmaOperations->GetScatterGatherList(e->Adapter,
                e->W.Self, mdl, MmGetMdlVirtualAddress(mdl),
                MmGetMdlByteCount(mdl), GimbalList, e, FALSE);
        if (NT_SUCCESS(st)) {
            KeLowerIrql(q);
            return;
        }
        KeAcquireSpinLockAtDpcLevel(&e->W.Spin);
        e->Current = NULL;
        GimbalFree(e);
        KeReleaseSpinLock(&e->W.Spin, q);
        WharfDone(&e->W, irp, st, 0);
    }
}

static VOID NTAPI GimbalDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    PSCATTER_GATHER_LIST sg;
    ULONG result;
    PIRP irp;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    q = KeAcquireInterruptSpinLock(e->W.Interrupt);
    result = e->Result;
    e->Result = 0;
    KeReleaseInterruptSpinLock(e->W.Interrupt, q);
    if (!(result & G_DONE))
        return;
    KeAcquireSpinLock(&e->W.Spin, &q);
    sg = e->Sg;
    irp = e->Current;
    if (sg) {
        e->Sg = NULL;
        e->Current = NULL;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    if (sg)
        GimbalEnd(e, irp, sg, result & G_ERROR ? STATUS_IO_DEVICE_ERROR
                                               : STATUS_SUCCESS);
}

static VOID NTAPI GimbalTick(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    PSCATTER_GATHER_LIST sg = NULL;
    PIRP irp = NULL;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->Sg && --e->Ticks == 0) {
        WharfWr(&e->W, G_STOP, 1);
        WharfRd(&e->W, G_STATUS);       /* after that it writes no more */
        e->Broken = TRUE;
        sg = e->Sg;
        irp = e->Current;
        e->Sg = NULL;
        e->Current = NULL;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    if (sg)
        GimbalEnd(e, irp, sg, STATUS_IO_TIMEOUT);
}

static NTSTATUS CardIo(CARD *e, PIRP irp, PIO_STACK_LOCATION s)
{
    GIMBAL_LAST *last = irp->AssociatedIrp.SystemBuffer;
    ULONG i;
    KIRQL q;

    switch (s->MajorFunction) {
    case IRP_MJ_READ:
        if (!s->Parameters.Read.Length)
            return STATUS_SUCCESS;
        if (s->Parameters.Read.Length > GIMBAL_MAX)
            return STATUS_INVALID_PARAMETER;
        WharfQueuePut(&e->Queue, irp);
        GimbalKick(e);
        return STATUS_PENDING;
    case IRP_MJ_DEVICE_CONTROL:
        if (s->Parameters.DeviceIoControl.IoControlCode != IOCTL_GIMBAL_LAST)
            break;
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*last))
            return STATUS_BUFFER_TOO_SMALL;
        RtlZeroMemory(last, sizeof(*last));
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->Pieces) {
            last->Used = e->Used;
            for (i = 0; i < e->Used; i++)
                last->Length[i] = e->Pieces[i].Length;
        }
        KeReleaseSpinLock(&e->W.Spin, q);
        irp->IoStatus.Information = sizeof(*last);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID CardCleanup(CARD *e, PFILE_OBJECT file)
{
    WharfQueueFail(&e->Queue, file, STATUS_CANCELLED);
}

static VOID CardInit(CARD *e)
{
    WharfQueueInit(&e->Queue, &e->W);
    KeInitializeEvent(&e->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&e->Dpc, GimbalDpc, e);
    KeInitializeDpc(&e->TickDpc, GimbalTick, e);
    KeInitializeTimer(&e->Tick);
}

/* gives back what CardStart has got, except the interrupt */
static VOID GimbalUndo(CARD *e)
{
    PIECE *pieces;
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    pieces = e->Pieces;
    e->Pieces = NULL;
    e->Used = 0;
    KeReleaseSpinLock(&e->W.Spin, q);
    if (pieces)
        ExFreePoolWithTag(pieces, 'igAW');
    if (e->Adapter)
        e->Adapter->DmaOperations->PutDmaAdapter(e->Adapter);
    e->Adapter = NULL;
    WharfUnmap(&e->W);
}

static VOID GimbalSwitch(CARD *e, BOOLEAN on, BOOLEAN touch)
{
    KIRQL q = KeAcquireInterruptSpinLock(e->W.Interrupt);

    e->W.IsrOn = on;
    if (touch)
        WharfWr(&e->W, G_CTRL, on);
    KeReleaseInterruptSpinLock(e->W.Interrupt, q);
}

static NTSTATUS CardStart(CARD *e, PCM_RESOURCE_LIST list)
{
    DEVICE_DESCRIPTION desc;
    LARGE_INTEGER due;
    ULONG regs = 0;
    WHARF_RES r;
    KIRQL q;
    NTSTATUS st = WharfResources(list, &r);

    if (!NT_SUCCESS(st))
        return st;
    st = WharfMap(&e->W, &r, G_PIECE + 8 * G_PIECES);
    if (!NT_SUCCESS(st))
        return st;
    if (WharfRd(&e->W, G_ID) != G_MAGIC) {
        GimbalUndo(e);
        return STATUS_NO_SUCH_DEVICE;
    }
    WharfWr(&e->W, G_CTRL, 0);
    WharfWr(&e->W, G_STOP, 1);
    WharfWr(&e->W, G_STATUS, G_DONE | G_ERROR);
    WharfRd(&e->W, G_STATUS);

    RtlZeroMemory(&desc, sizeof(desc));
    desc.Version = DEVICE_DESCRIPTION_VERSION;
    desc.Master = TRUE;
    desc.ScatterGather = TRUE;
    desc.Dma32BitAddresses = TRUE;
    desc.InterfaceType = PCIBus;
    desc.MaximumLength = GIMBAL_MAX;
    e->Adapter = IoGetDmaAdapter(e->W.Pdo, &desc, &regs);
    e->Pieces = ExAllocatePoolWithTag(NonPagedPool, PIECES * sizeof(PIECE),
                                      'igAW');
    if (!e->Adapter || !e->Pieces) {
        GimbalUndo(e);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    e->Used = 0;
    e->Result = 0;
    e->Broken = FALSE;
    e->W.IsrOn = FALSE;
    st = WharfConnect(&e->W, &r, GimbalIsr);
    if (!NT_SUCCESS(st)) {
        e->W.Interrupt = NULL;
        GimbalUndo(e);
        return st;
    }
    GimbalSwitch(e, TRUE, TRUE);
    due.QuadPart = -TICK_MS * 10000;
    KeSetTimerEx(&e->Tick, due, TICK_MS, &e->TickDpc);
    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Live = TRUE;
    e->W.Awake = TRUE;
    KeReleaseSpinLock(&e->W.Spin, q);
    return STATUS_SUCCESS;
}

static VOID CardStop(CARD *e, BOOLEAN present)
{
    BOOLEAN touch;
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Live = FALSE;
    touch = present && e->W.Awake;
    e->W.Awake = FALSE;
    KeReleaseSpinLock(&e->W.Spin, q);
    /* a transfer ends by its interrupt or by the time limit */
    KeWaitForSingleObject(&e->Idle, Executive, KernelMode, FALSE, NULL);
    GimbalSwitch(e, FALSE, touch);
    KeCancelTimer(&e->Tick);
    KeFlushQueuedDpcs();
    WharfDisconnect(&e->W);
    GimbalUndo(e);
    WharfQueueFail(&e->Queue, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID CardSleep(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Awake = FALSE;
    KeReleaseSpinLock(&e->W.Spin, q);
    KeWaitForSingleObject(&e->Idle, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live)
        GimbalSwitch(e, FALSE, TRUE);
    KeReleaseSpinLock(&e->W.Spin, q);
}

static VOID CardWake(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live) {
        GimbalSwitch(e, TRUE, TRUE);
        e->W.Awake = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    GimbalKick(e);
}

#include "../include/wharf_pnp.h"
