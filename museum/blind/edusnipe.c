/*
 * edusnipe: reads and writes the buffer of the edu device by DMA through a common buffer, one request at a time, with a limit of a second.
 *
 * The bug: the interrupt's DPC looks at the request under way but does not take it away while it holds the lock, so if the limit is
 * reached at that moment, both complete the request.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, use-after-free
 * Needs: ioctl, schedule, device
 */
#include "../include/bay_edu.h"

typedef struct CARD {
    AF_EDU edu;
    AF_BUS bus;
    PDMA_ADAPTER adapter;
    PUCHAR buffer;
    PHYSICAL_ADDRESS logical;
    AF_QUEUE queue;                             /* those in it count as active */
    KDPC nextDpc, watchDpc;
    KTIMER watch;
    KSPIN_LOCK lock;                            /* of what follows */
    BOOLEAN busy, dead;
    IRP *current;
    ULONGLONG deadline;
} CARD;

static const GUID Guid = { 0xaf01000b, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x0b } };

static void Cancelled(void *context, IRP *irp)
{
    AfFinish(context, irp, STATUS_CANCELLED, 0);
}

static BOOLEAN Writes(IRP *irp)
{
    return IoGetCurrentIrpStackLocation(irp)->MajorFunction == IRP_MJ_WRITE;
}

static ULONG Length(IRP *irp)
{
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);

    return Writes(irp) ? stack->Parameters.Write.Length : stack->Parameters.Read.Length;
}

static LONGLONG Offset(IRP *irp)
{
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);

    return Writes(irp) ? stack->Parameters.Write.ByteOffset.QuadPart : stack->Parameters.Read.ByteOffset.QuadPart;
}

/* With the lock held. */
static void Begin(CARD *card, IRP *irp)
{
    BOOLEAN writes = Writes(irp);
    PUCHAR regs = card->edu.regs;
    LARGE_INTEGER due;

    if (writes)
        RtlCopyMemory(card->buffer, irp->AssociatedIrp.SystemBuffer, Length(irp));
    card->current = irp;
    AfWrite32(regs, writes ? EDU_SOURCE : EDU_TARGET, card->logical.LowPart);
    AfWrite32(regs, (writes ? EDU_SOURCE : EDU_TARGET) + 4, 0);
    AfWrite32(regs, writes ? EDU_TARGET : EDU_SOURCE, EDU_BUFFER + (ULONG)Offset(irp));
    AfWrite32(regs, (writes ? EDU_TARGET : EDU_SOURCE) + 4, 0);
    AfWrite32(regs, EDU_LENGTH, Length(irp));
    AfWrite32(regs, EDU_LENGTH + 4, 0);
    AfBarrier();
    AfWrite32(regs, EDU_COMMAND, DMA_START | DMA_NOTIFY | (writes ? 0 : DMA_FROM));
    card->deadline = KeQueryInterruptTime() + 10000000;
    due.QuadPart = -10100000LL;
    KeSetTimer(&card->watch, due, &card->watchDpc);
}

static VOID NTAPI Next(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    for (;;) {
        BOOLEAN dead;
        IRP *irp;

        KeAcquireSpinLockAtDpcLevel(&card->lock);
        dead = card->dead;
        irp = card->busy ? NULL : AfQueueGet(&card->queue, NULL);
        if (irp && !dead) {
            card->busy = TRUE;
            Begin(card, irp);
        }
        KeReleaseSpinLockFromDpcLevel(&card->lock);
        if (!irp || !dead)
            return;
        AfFinish(&card->edu.af, irp, STATUS_DEVICE_HARDWARE_ERROR, 0);
    }
}

static void Done(CARD *card, IRP *irp, NTSTATUS status, ULONG information)
{
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    KeCancelTimer(&card->watch);
    card->current = NULL;
    card->busy = FALSE;
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    KeInsertQueueDpc(&card->nextDpc, NULL, NULL);
    AfFinish(&card->edu.af, irp, status, information);
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;
    IRP *irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    if (!(AfEduRaised(&card->edu) & RAISED_DMA))
        return;
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    if (card->current && !(AfRead32(card->edu.regs, EDU_COMMAND) & DMA_START)) {
        irp = card->current;
#ifdef FIXED
        card->current = NULL;
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    if (!irp)
        return;
    if (!Writes(irp))
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, card->buffer, Length(irp));
    Done(card, irp, STATUS_SUCCESS, Length(irp));
}

/* The device has taken too long: the common buffer remains, so the request need not wait until the device is done with it. */
static VOID NTAPI Watch(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;
    IRP *irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    if (card->current && KeQueryInterruptTime() >= card->deadline) {
        irp = card->current;
        card->current = NULL;
        card->dead = TRUE;
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    if (irp)
        Done(card, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    KeInitializeDpc(&card->edu.dpc, Dpc, card);
    KeInitializeDpc(&card->nextDpc, Next, card);
    KeInitializeDpc(&card->watchDpc, Watch, card);
    KeInitializeTimer(&card->watch);
    KeInitializeSpinLock(&card->lock);
    return AfQueueInit(&card->queue, Cancelled, af);
}

static void Release(CARD *card)
{
    if (card->buffer)
        card->adapter->DmaOperations->FreeCommonBuffer(card->adapter, EDU_SIZE, card->logical, card->buffer, FALSE);
    card->buffer = NULL;
    if (card->adapter)
        card->adapter->DmaOperations->PutDmaAdapter(card->adapter);
    card->adapter = NULL;
    AfBusClose(&card->bus);
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    CARD *card = (CARD *)af;
    DEVICE_DESCRIPTION description;
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
    ULONG registers;

    RtlZeroMemory(&description, sizeof description);
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;                  /* less than 32 bits of address: the adapter keeps to 24 */
    description.ScatterGather = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = EDU_SIZE;
    AfBusOpen(af, &card->bus);
    card->adapter = IoGetDmaAdapter(af->pdo, &description, &registers);
    if (card->adapter)
        card->buffer = card->adapter->DmaOperations->AllocateCommonBuffer(card->adapter, EDU_SIZE, &card->logical, FALSE);
    if (card->buffer && (ULONGLONG)card->logical.QuadPart + EDU_SIZE <= EDU_REACH) {
        RtlZeroMemory(card->buffer, EDU_SIZE);
        card->busy = card->dead = FALSE;
        card->current = NULL;
        AfBusMaster(&card->bus, TRUE);
        status = AfEduStart(&card->edu, list);
    }
    if (!NT_SUCCESS(status))
        Release(card);
    return status;
}

/* A device that took too long may be at the common buffer still. */
static BOOLEAN Quiet(CARD *card)
{
    LARGE_INTEGER delay;
    ULONG i;

    delay.QuadPart = -100000;
    for (i = 0; i < 20; ++i) {
        ULONG command = AfRead32(card->edu.regs, EDU_COMMAND);

        if (command == 0xFFFFFFFF || !(command & DMA_START))
            return TRUE;
        KeDelayExecutionThread(KernelMode, FALSE, &delay);
    }
    return AfBusMaster(&card->bus, FALSE);
}

static void Stop(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    BOOLEAN quiet = TRUE;

    KeCancelTimer(&card->watch);
    if (card->dead && AfReachable(af))
        quiet = Quiet(card);
    AfEduStop(&card->edu);
    if (!quiet)
        card->buffer = NULL;                    /* the device is at it, and cannot be kept off it: it stays the device's */
    Release(card);
}

static void Flush(AF_DEVICE *af, FILE_OBJECT *file)
{
    AfQueueFlush(&((CARD *)af)->queue, file);
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;

    if (stack->MajorFunction != IRP_MJ_READ && stack->MajorFunction != IRP_MJ_WRITE) {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    if (Offset(irp) < 0 || Offset(irp) > EDU_SIZE || Length(irp) > EDU_SIZE - (ULONG)Offset(irp)) {
        AfFinish(af, irp, STATUS_INVALID_PARAMETER, 0);
        return;
    }
    if (Length(irp) == 0) {
        AfFinish(af, irp, STATUS_SUCCESS, 0);
        return;
    }
    AfStay(af);                                 /* the request may be gone as soon as it is in the queue */
    AfQueuePut(&card->queue, irp);
    KeInsertQueueDpc(&card->nextDpc, NULL, NULL);
    AfLeave(af);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .flags = DO_BUFFERED_IO, .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop,
    .flush = Flush, .suspend = AfEduSuspend, .resume = AfEduResume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
