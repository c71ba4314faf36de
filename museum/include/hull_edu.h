/*
 * edu.h: QEMU's educational card behind a hull: its registers, its interrupt, a common buffer for its DMA, and its unit that computes factorials.
 */
#ifndef EDU_H
#define EDU_H

#define EDU_ID          0x00
#define EDU_LIVE        0x04
#define EDU_NUMBER      0x08
#define EDU_STATUS      0x20
#define EDU_STATUS_BUSY     0x01
#define EDU_STATUS_RING     0x80
#define EDU_CAUSES      0x24
#define EDU_RAISE       0x60
#define EDU_TAKE_BACK   0x64
#define EDU_DMA_FROM    0x80
#define EDU_DMA_TO      0x88
#define EDU_DMA_COUNT   0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_GO          0x01
#define EDU_DMA_TO_HOST     0x02
#define EDU_DMA_RING        0x04

#define EDU_CAUSE_NUMBER 0x001
#define EDU_CAUSE_DMA    0x100

#define EDU_MEMORY      0x40000
#define EDU_MEMORY_SIZE 4096
#define EDU_REACH       (1ull << 28)

typedef struct EDU {
    PORTHOLE Regs;
    BELL Bell;
    KDPC Dpc;
    LONG Causes;
    VOID (*Answer)(PVOID Owner, ULONG Causes);          /* DISPATCH_LEVEL */
    PVOID Owner;
} EDU;

static inline BOOLEAN EduRing(PVOID Edu)
{
    EDU *e = Edu;
    ULONG causes = HoleGet(&e->Regs, EDU_CAUSES);

    if (!causes || causes == ~0u)
        return FALSE;
    HolePut(&e->Regs, EDU_TAKE_BACK, causes);
    HoleGet(&e->Regs, EDU_CAUSES);              /* the write is there */
    InterlockedOr(&e->Causes, (LONG)causes);
    KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

static inline VOID NTAPI EduDpc(PKDPC Dpc, PVOID Edu, PVOID A, PVOID B)
{
    EDU *e = Edu;
    ULONG causes = (ULONG)InterlockedExchange(&e->Causes, 0);

    (void)Dpc;
    (void)A;
    (void)B;
    if (causes)
        e->Answer(e->Owner, causes);
}

static inline NTSTATUS EduRise(EDU *e, PCM_RESOURCE_LIST List, VOID (*Answer)(PVOID, ULONG), PVOID Owner)
{
    NTSTATUS status;
    ULONG causes;

    e->Answer = Answer;
    e->Owner = Owner;
    e->Causes = 0;
    KeInitializeDpc(&e->Dpc, EduDpc, e);
    status = HoleOpen(&e->Regs, List, 0x100);
    if (!NT_SUCCESS(status))
        return status;
    if ((HoleGet(&e->Regs, EDU_ID) & 0xff) != 0xed) {
        HoleShut(&e->Regs);
        return STATUS_NO_SUCH_DEVICE;
    }
    HolePut(&e->Regs, EDU_STATUS, 0);
    causes = HoleGet(&e->Regs, EDU_CAUSES);
    if (causes && causes != ~0u)
        HolePut(&e->Regs, EDU_TAKE_BACK, causes);
    status = BellHang(&e->Bell, List, EduRing, e);
    if (!NT_SUCCESS(status))
        HoleShut(&e->Regs);
    return status;
}

static inline VOID EduSink(EDU *e, BOOLEAN touch)
{
    if (touch)
        HolePut(&e->Regs, EDU_STATUS, 0);
    BellTake(&e->Bell);
    KeFlushQueuedDpcs();
    if (touch) {
        ULONG causes = HoleGet(&e->Regs, EDU_CAUSES);

        if (causes && causes != ~0u)
            HolePut(&e->Regs, EDU_TAKE_BACK, causes);
    }
    HoleShut(&e->Regs);
}

static inline BOOLEAN NTAPI EduTakeBack(PVOID Edu)
{
    EDU *e = Edu;
    ULONG causes = HoleGet(&e->Regs, EDU_CAUSES);

    if (causes && causes != ~0u) {
        HolePut(&e->Regs, EDU_TAKE_BACK, causes);
        HoleGet(&e->Regs, EDU_CAUSES);
    }
    return TRUE;
}

/* PASSIVE_LEVEL, awake: what has interrupted until now has been answered, or never will be. */
static inline VOID EduHush(EDU *e)
{
    KeSynchronizeExecution(e->Bell.Object, EduTakeBack, e);
    KeFlushQueuedDpcs();
}

static inline VOID EduRest(ULONG Milliseconds)
{
    LARGE_INTEGER t;

    t.QuadPart = -10000LL * Milliseconds;
    KeDelayExecutionThread(KernelMode, FALSE, &t);
}

/* ---- a common buffer of a page ---- */

typedef struct PLATE {
    PDMA_ADAPTER Adapter;
    PUCHAR At;
    PHYSICAL_ADDRESS Bus;
} PLATE;

static inline VOID PlateFree(PLATE *p)
{
    if (p->At)
        p->Adapter->DmaOperations->FreeCommonBuffer(p->Adapter, EDU_MEMORY_SIZE, p->Bus, p->At, TRUE);
    if (p->Adapter)
        p->Adapter->DmaOperations->PutDmaAdapter(p->Adapter);
    p->At = NULL;
    p->Adapter = NULL;
}

/* The card has 28 address lines. There is no such number in the description, so we ask for 24 and look. */
static inline NTSTATUS PlateMake(PLATE *p, PDEVICE_OBJECT Pdo)
{
    DEVICE_DESCRIPTION d;
    ULONG registers;

    RtlZeroMemory(&d, sizeof d);
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = EDU_MEMORY_SIZE;
    p->Adapter = IoGetDmaAdapter(Pdo, &d, &registers);
    if (!p->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    p->At = p->Adapter->DmaOperations->AllocateCommonBuffer(p->Adapter, EDU_MEMORY_SIZE, &p->Bus, TRUE);
    if (p->At && (ULONG64)p->Bus.QuadPart + EDU_MEMORY_SIZE <= EDU_REACH) {
        RtlZeroMemory(p->At, EDU_MEMORY_SIZE);
        return STATUS_SUCCESS;
    }
    PlateFree(p);
    return STATUS_INSUFFICIENT_RESOURCES;
}

static inline VOID EduMove(EDU *e, ULONG From, ULONG To, ULONG Count, BOOLEAN ToHost)
{
    HolePut(&e->Regs, EDU_DMA_FROM, From);
    HolePut(&e->Regs, EDU_DMA_TO, To);
    HolePut(&e->Regs, EDU_DMA_COUNT, Count);
    HolePut(&e->Regs, EDU_DMA_COMMAND, EDU_DMA_GO | EDU_DMA_RING | (ToHost ? EDU_DMA_TO_HOST : 0));
}

/* ---- one number after the other: the request waits with the hull's crane ---- */

typedef struct SUM {
    EDU Edu;
    HULL *Hull;
    KSPIN_LOCK Lock;
    BOOLEAN Running;
    ULONG Number;
    VOID (*Done)(HULL *h, PIRP Irp, ULONG Number, ULONG Result);        /* has to answer; Irp is NULL if it was cancelled */
} SUM;

static inline VOID SumEnd(SUM *s, BOOLEAN Good)
{
    ULONG number, result = 0;
    BOOLEAN was;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&s->Lock, &irql);
    was = s->Running;
    s->Running = FALSE;
    number = s->Number;
    if (was && Good)
        result = HoleGet(&s->Edu.Regs, EDU_NUMBER);
    KeReleaseSpinLock(&s->Lock, irql);
    if (!was)
        return;
    irp = PenTake(&s->Hull->Crane, NULL);
    if (Good)
        s->Done(s->Hull, irp, number, result);
    else if (irp)
        HullReply(s->Hull, irp, STATUS_IO_DEVICE_ERROR, 0);
    HullReady(s->Hull);
}

static inline VOID SumAnswer(PVOID Sum, ULONG Causes)
{
    if (Causes & EDU_CAUSE_NUMBER)
        SumEnd(Sum, TRUE);
}

/* From Begin */
static inline VOID SumStart(SUM *s, PIRP Irp, ULONG Number)
{
    KIRQL irql;

    if (HoleGet(&s->Edu.Regs, EDU_STATUS) & EDU_STATUS_BUSY) {
        HullReply(s->Hull, Irp, STATUS_DEVICE_BUSY, 0);
        HullReady(s->Hull);
        return;
    }
    HullHang(s->Hull, Irp);
    KeAcquireSpinLock(&s->Lock, &irql);
    s->Running = TRUE;
    s->Number = Number;
    HolePut(&s->Edu.Regs, EDU_STATUS, EDU_STATUS_RING);
    HolePut(&s->Edu.Regs, EDU_NUMBER, Number);
    KeReleaseSpinLock(&s->Lock, irql);
}

static inline VOID SumStill(SUM *s, BOOLEAN touch)
{
    if (touch) {
        HolePut(&s->Edu.Regs, EDU_STATUS, 0);
        EduHush(&s->Edu);
    }
    SumEnd(s, FALSE);
}

static inline VOID SumLay(SUM *s, HULL *h, VOID (*Done)(HULL *, PIRP, ULONG, ULONG))
{
    KeInitializeSpinLock(&s->Lock);
    s->Hull = h;
    s->Done = Done;
}

#endif
