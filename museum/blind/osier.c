/*
 * osier: the 4096 bytes of memory on the edu card as a file. ReadFile and WriteFile at an offset are queued and moved
 * by the card's DMA, through one buffer below 256 MiB; the interrupt (or a slow tick) ends them.
 *
 * The bug: at stop the driver waits for the card only if a request is still on it. A request that was cancelled has
 * left, while its DMA goes on; the buffer is freed and the card writes into it (or reads from it) afterwards.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-dma
 * Needs: ioctl, cancel, removal
 */
#include "../include/reed_wdm.h"

NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID BaseAddress);

/* {0F3D9C11-58D2-4B7B-9A0E-8A3B9E5F7702} */
static const GUID OsierGuid = { 0x0f3d9c11, 0x58d2, 0x4b7b, { 0x9a, 0x0e, 0x8a, 0x3b, 0x9e, 0x5f, 0x77, 0x02 } };

#define EDU_IRQ       0x24
#define EDU_ACK       0x64
#define EDU_DMA_SRC   0x80
#define EDU_DMA_DST   0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_CMD   0x98
#define EDU_SIZE      0x100

#define EDU_CAUSE_DMA   0x100u
#define EDU_CMD_START   0x01u
#define EDU_CMD_TO_HOST 0x02u
#define EDU_CMD_IRQ     0x04u
#define EDU_GONE        0xFFFFFFFFu

#define EDU_BUFFER      0x40000u        /* the card's own address of its memory */
#define OSIER_SIZE      4096u
#define OSIER_HIGHEST   0x0FFFFFFFll    /* the card has 28 address bits */
#define OSIER_TICK_MS   250
#define OSIER_STEP_MS   10
#define OSIER_PATIENCE  1000            /* steps: a transfer takes 100 ms, we grant 10 s */

typedef struct _OSIER {
    REED R;
    LIST_ENTRY Queue;
    LIST_ENTRY OnCard;                  /* the request of the transfer; empty if it was cancelled meanwhile */
    BOOLEAN Busy;                       /* the card transfers */
    BOOLEAN Hold;                       /* going to sleep: start nothing */
    PUCHAR Buffer;
    ULONG Physical;
    KTIMER Timer;
    KDPC Tick;
} OSIER, *POSIER;

static ULONG OsierLength(PIO_STACK_LOCATION Sp)
{
    return Sp->MajorFunction == IRP_MJ_READ ? Sp->Parameters.Read.Length : Sp->Parameters.Write.Length;
}

static ULONG OsierOffset(PIO_STACK_LOCATION Sp)
{
    return Sp->MajorFunction == IRP_MJ_READ ? Sp->Parameters.Read.ByteOffset.LowPart
                                            : Sp->Parameters.Write.ByteOffset.LowPart;
}

/* Lock held. Gives the card its next transfer. */
static VOID OsierNext(POSIER o)
{
    PIO_STACK_LOCATION sp;
    PLIST_ENTRY e;
    PIRP irp;

    if (!o->R.Live || !o->R.Awake || o->Hold || o->Busy || IsListEmpty(&o->Queue))
        return;
    /* Its cancel routine stays set: it takes the request out of either list. */
    e = RemoveHeadList(&o->Queue);
    InsertTailList(&o->OnCard, e);
    irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
    sp = IoGetCurrentIrpStackLocation(irp);
    o->Busy = TRUE;
    if (sp->MajorFunction == IRP_MJ_READ) {
        RtlZeroMemory(o->Buffer, OsierLength(sp));
        ReedSet(&o->R, 0, EDU_DMA_SRC, EDU_BUFFER + OsierOffset(sp));
        ReedSet(&o->R, 0, EDU_DMA_DST, o->Physical);
        ReedSet(&o->R, 0, EDU_DMA_COUNT, OsierLength(sp));
        ReedSet(&o->R, 0, EDU_DMA_CMD, EDU_CMD_START | EDU_CMD_TO_HOST | EDU_CMD_IRQ);
    } else {
        RtlCopyMemory(o->Buffer, irp->AssociatedIrp.SystemBuffer, OsierLength(sp));
        ReedSet(&o->R, 0, EDU_DMA_SRC, o->Physical);
        ReedSet(&o->R, 0, EDU_DMA_DST, EDU_BUFFER + OsierOffset(sp));
        ReedSet(&o->R, 0, EDU_DMA_COUNT, OsierLength(sp));
        ReedSet(&o->R, 0, EDU_DMA_CMD, EDU_CMD_START | EDU_CMD_IRQ);
    }
}

/* Lock held. If the card has finished, its request goes to Done with status and length. */
static VOID OsierFinish(POSIER o, PLIST_ENTRY Done)
{
    ULONG cmd;
    PIRP irp;

    if (!o->Busy || o->R.Bar[0].Va == NULL)
        return;
    cmd = ReedGet(&o->R, 0, EDU_DMA_CMD);
    if (cmd != EDU_GONE && (cmd & EDU_CMD_START) != 0)
        return;
    o->Busy = FALSE;
    irp = ReedTake(&o->OnCard);
    if (irp == NULL)
        return;
    if (cmd == EDU_GONE) {
        irp->IoStatus.Status = STATUS_DEVICE_NOT_CONNECTED;
        irp->IoStatus.Information = 0;
    } else {
        PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);

        if (sp->MajorFunction == IRP_MJ_READ)
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, o->Buffer, OsierLength(sp));
        irp->IoStatus.Status = STATUS_SUCCESS;
        irp->IoStatus.Information = OsierLength(sp);
    }
    InsertTailList(Done, &irp->Tail.Overlay.ListEntry);
}

static BOOLEAN NTAPI OsierIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    POSIER o = Context;
    ULONG cause;

    (VOID)Interrupt;
    if (!o->R.Awake)
        return FALSE;
    cause = ReedGet(&o->R, 0, EDU_IRQ);
    if (cause == 0 || cause == EDU_GONE)
        return FALSE;
    ReedSet(&o->R, 0, EDU_ACK, cause);
    InterlockedOr(&o->R.Pending, (LONG)cause);
    KeInsertQueueDpc(&o->R.Dpc, NULL, NULL);
    return TRUE;
}

/* For the interrupt and for the tick: both only look whether the card has finished. */
static VOID NTAPI OsierDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    POSIER o = Context;
    LIST_ENTRY done;
    KIRQL irql;

    (VOID)Dpc;
    (VOID)A;
    (VOID)B;
    InitializeListHead(&done);
    KeAcquireSpinLock(&o->R.Lock, &irql);
    if (o->R.Live && o->R.Awake) {
        OsierFinish(o, &done);
        OsierNext(o);
    }
    KeReleaseSpinLock(&o->R.Lock, irql);
    ReedEndEach(&o->R, &done);
}

/* Waits until the card has finished; FALSE: it still transfers. PASSIVE_LEVEL, nothing new is started. */
static BOOLEAN OsierDrain(POSIER o)
{
    LARGE_INTEGER step;
    LIST_ENTRY done;
    BOOLEAN busy;
    ULONG i;
    KIRQL irql;

    step.QuadPart = -OSIER_STEP_MS * 10000LL;
    for (i = 0;; i++) {
        InitializeListHead(&done);
        KeAcquireSpinLock(&o->R.Lock, &irql);
        OsierFinish(o, &done);
        busy = o->Busy;
        KeReleaseSpinLock(&o->R.Lock, irql);
        ReedEndEach(&o->R, &done);
        if (!busy || i == OSIER_PATIENCE)
            return !busy;
        KeDelayExecutionThread(KernelMode, FALSE, &step);
    }
}

static NTSTATUS NTAPI OsierTransfer(PDEVICE_OBJECT Device, PIRP Irp)
{
    POSIER o = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG offset = sp->MajorFunction == IRP_MJ_READ ? sp->Parameters.Read.ByteOffset.QuadPart
                                                       : sp->Parameters.Write.ByteOffset.QuadPart;
    ULONG length = OsierLength(sp);
    NTSTATUS st = ReedEnter(&o->R, Irp);
    BOOLEAN put;
    KIRQL irql;

    if (!NT_SUCCESS(st))
        return st;
    if (offset < 0 || offset > OSIER_SIZE || length > OSIER_SIZE - (ULONG)offset) {
        ReedEnd(&o->R, Irp, STATUS_INVALID_PARAMETER, 0);
        return ReedLeave(&o->R, STATUS_INVALID_PARAMETER);
    }
    if (length == 0) {
        ReedEnd(&o->R, Irp, STATUS_SUCCESS, 0);
        return ReedLeave(&o->R, STATUS_SUCCESS);
    }
    KeAcquireSpinLock(&o->R.Lock, &irql);
    if (!o->R.Live || sp->FileObject == NULL || sp->FileObject->FsContext2 != NULL) {
        KeReleaseSpinLock(&o->R.Lock, irql);
        ReedEnd(&o->R, Irp, STATUS_DEVICE_NOT_READY, 0);
        return ReedLeave(&o->R, STATUS_DEVICE_NOT_READY);
    }
    put = ReedPut(&o->Queue, Irp);
    OsierNext(o);
    KeReleaseSpinLock(&o->R.Lock, irql);
    if (!put)
        ReedEnd(&o->R, Irp, STATUS_CANCELLED, 0);
    return ReedLeave(&o->R, STATUS_PENDING);
}

static NTSTATUS NTAPI OsierCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    POSIER o = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&o->R.Lock, &irql);
    file->FsContext2 = o;               /* closed: takes no more requests */
    ReedSift(&o->Queue, file, &done);
    ReedSift(&o->OnCard, file, &done);
    KeReleaseSpinLock(&o->R.Lock, irql);
    ReedEndAll(&o->R, &done, STATUS_CANCELLED);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID OsierSetup(PREED x)
{
    POSIER o = (POSIER)x;

    InitializeListHead(&o->Queue);
    InitializeListHead(&o->OnCard);
    KeInitializeDpc(&x->Dpc, OsierDpc, o);
    KeInitializeDpc(&o->Tick, OsierDpc, o);
    KeInitializeTimerEx(&o->Timer, NotificationTimer);
}

/* Lock held. The card has power; it may still be in a transfer of an earlier life. */
static VOID OsierCardOn(POSIER o)
{
    ULONG cmd = ReedGet(&o->R, 0, EDU_DMA_CMD);

    o->Busy = cmd != EDU_GONE && (cmd & EDU_CMD_START) != 0;
}

static NTSTATUS OsierStart(PREED x, PCM_RESOURCE_LIST Resources)
{
    static const ULONG need[1] = { EDU_SIZE };
    POSIER o = (POSIER)x;
    PHYSICAL_ADDRESS low, high, none;
    LARGE_INTEGER due;
    NTSTATUS st;
    KIRQL irql;

    st = ReedMap(x, Resources, need, 1);
    if (!NT_SUCCESS(st))
        return st;
    low.QuadPart = 0;
    high.QuadPart = OSIER_HIGHEST;
    none.QuadPart = 0;
    o->Buffer = MmAllocateContiguousMemorySpecifyCache(OSIER_SIZE, low, high, none, MmCached);
    if (o->Buffer == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(o->Buffer, OSIER_SIZE);
    o->Physical = MmGetPhysicalAddress(o->Buffer).LowPart;
    ReedSet(x, 0, EDU_ACK, 0xFFFFFFFFu);
    st = ReedConnect(x, OsierIsr);
    if (!NT_SUCCESS(st))
        return st;
    KeAcquireSpinLock(&x->Lock, &irql);
    o->Hold = FALSE;
    x->Live = TRUE;
    x->Awake = 1;
    OsierCardOn(o);
    KeReleaseSpinLock(&x->Lock, irql);
    due.QuadPart = -OSIER_TICK_MS * 10000LL;
    KeSetTimerEx(&o->Timer, due, OSIER_TICK_MS, &o->Tick);
    return STATUS_SUCCESS;
}

static VOID OsierStop(PREED x)
{
    POSIER o = (POSIER)x;
    BOOLEAN flying, idle = TRUE;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeCancelTimer(&o->Timer);
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Live = FALSE;
#ifdef FIXED
    flying = o->Busy;
#else
    flying = !IsListEmpty(&o->OnCard);
#endif
    ReedSift(&o->Queue, NULL, &done);
    ReedSift(&o->OnCard, NULL, &done);
    KeReleaseSpinLock(&x->Lock, irql);
    ReedEndAll(x, &done, STATUS_DEVICE_NOT_READY);
    /* The card cannot be stopped. Busy while asleep: it did not even end before, do not trust it. */
    if (flying)
        idle = x->Awake && OsierDrain(o);
    if (x->Awake && x->Bar[0].Va != NULL) {
        ReedSet(x, 0, EDU_ACK, 0xFFFFFFFFu);
        (VOID)ReedGet(x, 0, EDU_IRQ);
    }
    ReedRelease(x);
    if (o->Buffer != NULL && idle)
        MmFreeContiguousMemorySpecifyCache(o->Buffer, OSIER_SIZE, MmCached);
    o->Buffer = NULL;                   /* not idle: a broken card owns the page for good */
    o->Busy = FALSE;
}

/* A transfer under way is let finish; if its request is still there, it is done again after waking. */
static VOID OsierSleep(PREED x)
{
    POSIER o = (POSIER)x;
    BOOLEAN live;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    live = x->Live && x->Awake;
    if (live)
        o->Hold = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    if (!live)
        return;
    OsierDrain(o);
    KeAcquireSpinLock(&x->Lock, &irql);
    ReedSet(x, 0, EDU_ACK, 0xFFFFFFFFu);
    (VOID)ReedGet(x, 0, EDU_IRQ);
    x->Awake = 0;
    if (!IsListEmpty(&o->OnCard)) {
        PLIST_ENTRY e = RemoveHeadList(&o->OnCard);

        InsertHeadList(&o->Queue, e);
    }
    KeReleaseSpinLock(&x->Lock, irql);
    ReedFence(x);
}

static VOID OsierWake(PREED x)
{
    POSIER o = (POSIER)x;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && !x->Awake) {
        x->Awake = 1;
        o->Hold = FALSE;
        OsierCardOn(o);
        OsierNext(o);
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

static const REED_OPS OsierOps = {
    sizeof(OSIER), &OsierGuid, OsierSetup, OsierStart, OsierStop, OsierSleep, OsierWake
};

static NTSTATUS NTAPI OsierAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ReedAdd(Driver, Pdo, &OsierOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (VOID)Path;
    ReedDriver(Driver, OsierAdd);
    Driver->MajorFunction[IRP_MJ_READ] = OsierTransfer;
    Driver->MajorFunction[IRP_MJ_WRITE] = OsierTransfer;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = OsierCleanup;
    return STATUS_SUCCESS;
}
