/*
 * edumast: reads and writes the 4 KiB of memory on QEMU's educational card by the card's bus master. Requests wait in a queue and are done one at a time, each
 * directly from or to the pages of the program.
 *
 * The bug: the card is given the address of the first element of the scatter/gather list together with the length of the whole request. Where the buffer lies in two
 * pages that are not neighbours, the card transfers beyond the first, from or to memory that is someone else's.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-length-of-whole, dma-behind-mapping, wild-dma, dma-after-unmap
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID MastFace = { 0x5d0c1c22, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x12, 0x02 } };

/* DEVICE_DESCRIPTION of version 3, which mingw does not have */
typedef struct _DESCRIPTION3 {
    DEVICE_DESCRIPTION Old;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DESCRIPTION3;

#define REG_ID        0x00
#define REG_STATUS    0x20
#define REG_CAUSE     0x24
#define   CAUSE_DMA     0x100
#define REG_ACK       0x64
#define REG_SOURCE    0x80
#define REG_TARGET    0x88
#define REG_COUNT     0x90
#define REG_COMMAND   0x98
#define   START         1
#define   FROM_CARD     2
#define   INTERRUPT     4
#define CARD_MEMORY   0x40000
#define CARD_BYTES    4096

#define LIMIT_MS 5000

typedef struct _MAST {
    CRAFT Craft;
    QUAY Queue;
    PDMA_ADAPTER Adapter;
    KSPIN_LOCK Lock;                          /* of what follows, to Hold; before that of Queue */
    PIRP Current;
    PSCATTER_GATHER_LIST List;                /* of Current, once it is there */
    ULONG Next;                               /* its element that comes next */
    ULONG Offset;                             /* in the card's memory */
    ULONG Length;
    BOOLEAN ToCard;
    ULONGLONG Due;
    BOOLEAN Hold;
    KTIMER Limit;
    KDPC LimitDpc;
    volatile LONG Cause;
} MAST;

static const WINDOW *Regs(MAST *m)
{
    return &m->Craft.Window[0];
}

static void Begin(MAST *m);

/* With the lock: the next element is transferred. */
static void Push(MAST *m)
{
    SCATTER_GATHER_ELEMENT *e = &m->List->Elements[m->Next];
    ULONG there = CARD_MEMORY + m->Offset;
    LARGE_INTEGER limit;
    ULONG count;

#ifndef FIXED
    count = m->Length;
    m->Next = m->List->NumberOfElements;
#else
    count = e->Length;
    m->Next++;
#endif
    m->Offset += count;
    Wr(Regs(m), REG_SOURCE, m->ToCard ? e->Address.LowPart : there);
    Wr(Regs(m), REG_TARGET, m->ToCard ? there : e->Address.LowPart);
    Wr(Regs(m), REG_COUNT, count);
    m->Due = KeQueryInterruptTime() + LIMIT_MS * 10000ull;
    Wr(Regs(m), REG_COMMAND, START | INTERRUPT | (m->ToCard ? 0 : FROM_CARD));
    limit.QuadPart = -LIMIT_MS * 10000ll;
    KeSetTimer(&m->Limit, limit, &m->LimitDpc);
}

/* At DISPATCH_LEVEL, without the lock: what has been taken out of Current ends. */
static void End(MAST *m, PIRP irp, PSCATTER_GATHER_LIST list, BOOLEAN toCard, NTSTATUS status, ULONG bytes)
{
    m->Adapter->DmaOperations->PutScatterGatherList(m->Adapter, list, toCard);
    CraftFinish(&m->Craft, irp, status, bytes);
}

static VOID NTAPI ListReady(PDEVICE_OBJECT device, PIRP irp, PSCATTER_GATHER_LIST list, PVOID context)
{
    MAST *m = context;
    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(irp);
    KeAcquireSpinLockAtDpcLevel(&m->Lock);
    m->List = list;
    m->Next = 0;
    Push(m);
    KeReleaseSpinLockFromDpcLevel(&m->Lock);
}

static void Begin(MAST *m)
{
    for (;;) {
        NTSTATUS status = STATUS_SUCCESS;
        PIO_STACK_LOCATION sp;
        PIRP irp = NULL;
        KIRQL irql;

        KeAcquireSpinLock(&m->Lock, &irql);
        if (!m->Hold && !m->Current)
            irp = QuayTake(&m->Queue, NULL);
        if (irp) {
            sp = IoGetCurrentIrpStackLocation(irp);
            if (Rd(Regs(m), REG_COMMAND) & START)
                status = STATUS_DEVICE_BUSY;  /* still at one whose time has run out */
            else {
                m->Current = irp;
                m->List = NULL;
                m->ToCard = sp->MajorFunction == IRP_MJ_WRITE;
                m->Offset = sp->Parameters.Write.ByteOffset.LowPart;
                m->Length = sp->Parameters.Write.Length;
            }
        }
        KeReleaseSpinLock(&m->Lock, irql);
        if (!irp)
            return;
        if (NT_SUCCESS(status)) {
            KeRaiseIrql(DISPATCH_LEVEL, &irql);
            status = m->Adapter->DmaOperations->GetScatterGatherList(m->Adapter, m->Craft.Fdo, irp->MdlAddress, MmGetMdlVirtualAddress(irp->MdlAddress),
                m->Length, ListReady, m, m->ToCard);
            KeLowerIrql(irql);
            if (NT_SUCCESS(status))
                return;
            KeAcquireSpinLock(&m->Lock, &irql);
            m->Current = NULL;
            KeReleaseSpinLock(&m->Lock, irql);
        }
        CraftFinish(&m->Craft, irp, status, 0);
    }
}

static VOID NTAPI LimitEnds(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    MAST *m = context;
    PSCATTER_GATHER_LIST list = NULL;
    BOOLEAN toCard = FALSE;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&m->Lock);
    if (m->Current && m->List && KeQueryInterruptTime() >= m->Due) {
        irp = m->Current;
        list = m->List;
        toCard = m->ToCard;
        m->Current = NULL;
        m->List = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&m->Lock);
    if (irp) {
        End(m, irp, list, toCard, STATUS_IO_TIMEOUT, 0);
        Begin(m);
    }
}

static BOOLEAN MastIsr(CRAFT *s)
{
    MAST *m = (MAST *)s;
    ULONG cause = Rd(Regs(m), REG_CAUSE);
    if (cause == 0 || cause == ~0u)
        return FALSE;
    Wr(Regs(m), REG_ACK, cause);
    if (cause & CAUSE_DMA) {
        InterlockedExchange(&m->Cause, 1);
        KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    }
    return TRUE;
}

static void MastDpc(CRAFT *s)
{
    MAST *m = (MAST *)s;
    PSCATTER_GATHER_LIST list = NULL;
    BOOLEAN toCard = FALSE;
    ULONG bytes = 0;
    PIRP irp = NULL;

    if (InterlockedExchange(&m->Cause, 0) == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&m->Lock);
    if (m->Current && m->List && !(Rd(Regs(m), REG_COMMAND) & START)) {
        if (m->Next < m->List->NumberOfElements)
            Push(m);
        else {
            KeCancelTimer(&m->Limit);
            irp = m->Current;
            list = m->List;
            toCard = m->ToCard;
            bytes = m->Length;
            m->Current = NULL;
            m->List = NULL;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&m->Lock);
    if (irp) {
        End(m, irp, list, toCard, STATUS_SUCCESS, bytes);
        Begin(m);
    }
}

static NTSTATUS MastServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    MAST *m = (MAST *)s;
    LONGLONG offset = sp->Parameters.Write.ByteOffset.QuadPart;
    ULONG length = sp->Parameters.Write.Length;
    if (sp->MajorFunction != IRP_MJ_READ && sp->MajorFunction != IRP_MJ_WRITE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (length == 0)
        return STATUS_SUCCESS;
    if (offset < 0 || offset >= CARD_BYTES || length > CARD_BYTES - (ULONG)offset)
        return STATUS_INVALID_PARAMETER;
    QuayPut(&m->Queue, irp);
    Begin(m);
    return STATUS_PENDING;
}

static NTSTATUS MastStart(CRAFT *s)
{
    MAST *m = (MAST *)s;
    DESCRIPTION3 about;
    ULONG registers;

    if ((Rd(Regs(m), REG_ID) & 0xFFFF) != 0x00ED)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Wr(Regs(m), REG_STATUS, 0);
    Wr(Regs(m), REG_ACK, Rd(Regs(m), REG_CAUSE));
    RtlZeroMemory(&about, sizeof about);
    about.Old.Version = 3;
    about.Old.Master = TRUE;
    about.Old.ScatterGather = TRUE;
    about.Old.Dma32BitAddresses = TRUE;
    about.Old.InterfaceType = PCIBus;
    about.Old.MaximumLength = CARD_BYTES;
    about.DmaAddressWidth = 28;
    m->Adapter = IoGetDmaAdapter(s->Pdo, &about.Old, &registers);
    return m->Adapter ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static void MastStop(CRAFT *s)
{
    MAST *m = (MAST *)s;
    m->Adapter->DmaOperations->PutDmaAdapter(m->Adapter);
    m->Adapter = NULL;
}

static void MastArm(CRAFT *s)
{
    Wr(&s->Window[0], REG_ACK, Rd(&s->Window[0], REG_CAUSE));
}

static void MastRun(CRAFT *s)
{
    MAST *m = (MAST *)s;
    KIRQL irql;
    KeAcquireSpinLock(&m->Lock, &irql);
    m->Hold = FALSE;
    KeReleaseSpinLock(&m->Lock, irql);
    Begin(m);
}

/* The transfer that is under way comes to its end; of a card that has gone it has none. */
static void MastDrain(CRAFT *s)
{
    MAST *m = (MAST *)s;
    LARGE_INTEGER bit;
    ULONG tries;
    bit.QuadPart = -5 * 10000;
    for (;;) {
        PSCATTER_GATHER_LIST list = NULL;
        BOOLEAN toCard, busy;
        PIRP irp = NULL;
        KIRQL irql;
        KeAcquireSpinLock(&m->Lock, &irql);
        m->Hold = TRUE;
        toCard = m->ToCard;
        if (s->Gone && m->Current && m->List) {
            irp = m->Current;
            list = m->List;
            m->Current = NULL;
            m->List = NULL;
        }
        busy = m->Current != NULL;
        KeReleaseSpinLock(&m->Lock, irql);
        if (irp) {
            KeRaiseIrql(DISPATCH_LEVEL, &irql);
            End(m, irp, list, toCard, STATUS_NO_SUCH_DEVICE, 0);
            KeLowerIrql(irql);
        }
        if (!busy)
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &bit);
    }
    /* one that has been given up may still be under way; the card cannot be informed to leave it */
    for (tries = 0; tries < 200 && !s->Gone && Rd(Regs(m), REG_COMMAND) & START; tries++)
        KeDelayExecutionThread(KernelMode, FALSE, &bit);
}

static void MastDisarm(CRAFT *s)
{
    Wr(&s->Window[0], REG_ACK, Rd(&s->Window[0], REG_CAUSE));
}

static void MastIdle(CRAFT *s)
{
    MAST *m = (MAST *)s;
    KeCancelTimer(&m->Limit);
    KeFlushQueuedDpcs();
    InterlockedExchange(&m->Cause, 0);
}

static void MastScuttle(CRAFT *s)
{
    QuayFlush(&((MAST *)s)->Queue, NULL, STATUS_DELETE_PENDING);
}

static void MastCleanup(CRAFT *s, PFILE_OBJECT file)
{
    QuayFlush(&((MAST *)s)->Queue, file, STATUS_CANCELLED);
}

static NTSTATUS MastOutfit(CRAFT *s)
{
    MAST *m = (MAST *)s;
    KeInitializeSpinLock(&m->Lock);
    KeInitializeTimer(&m->Limit);
    KeInitializeDpc(&m->LimitDpc, LimitEnds, m);
    return QuayInit(&m->Queue, &s->Lock);
}

static const PLAN MastPlan = {
    .Size = sizeof(MAST),
    .Face = &MastFace,
    .Buffering = DO_DIRECT_IO,
    .Windows = 1,
    .Least = { 0x100 },
    .Line = TRUE,
    .Outfit = MastOutfit,
    .Start = MastStart,
    .Stop = MastStop,
    .Arm = MastArm,
    .Run = MastRun,
    .Drain = MastDrain,
    .Disarm = MastDisarm,
    .Idle = MastIdle,
    .Scuttle = MastScuttle,
    .Isr = MastIsr,
    .Dpc = MastDpc,
    .Serve = MastServe,
    .Cleanup = MastCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &MastPlan);
}
