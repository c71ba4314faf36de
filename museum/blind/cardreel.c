/*
 * cardreel: sends messages by a card that fetches them from a ring of sixteen slots in memory; a message is copied into a slot, and its request is
 * complete when it is there. Registers (BAR0, 32 bits each): 00 identity; 04 control, bit 0 runs (turned on, it begins with slot 0; reads as 1
 * until it has stopped); 08 and 0C address of the ring; 10 tail, the slot behind the last filled; 14 head, the slot it fetches
 * next; 18 status, bit 0 slots were fetched, cleared by a 1; 1C enables the interrupt by the same bits.
 *
 * The bug: the head that the card tells is believed; when the card has been pulled it is all ones, and the loop that goes through
 * the slots up to it never ends, with the lock held.
 *
 * Device: PCI\VEN_1DA7&DEV_0A11
 * Rule: endless-loop
 * Needs: ioctl, device, removal
 */
#include "../include/bay_own.h"
#include "../include/bay_bus.h"

#define R_CONTROL 0x04u
#define R_LOW     0x08u
#define R_HIGH    0x0Cu
#define R_TAIL    0x10u
#define R_HEAD    0x14u
#define R_STATUS  0x18u
#define R_ENABLE  0x1Cu

#define SLOTS 16u
#define ROOM 1020u

typedef struct SLOT {
    ULONG length;
    UCHAR data[ROOM];
} SLOT;

typedef struct CARD {
    AF_OWN own;
    AF_BUS bus;
    PKINTERRUPT interrupt;
    BOOLEAN powered;                            /* of the interrupt lock */
    KDPC dpc;
    PDMA_ADAPTER adapter;
    PHYSICAL_ADDRESS logical;
    AF_QUEUE queue;                             /* wait for a slot */
    KSPIN_LOCK lock;                            /* of what follows, and the slots */
    BOOLEAN runs, dead;
    ULONG head, tail;
    SLOT *slot;
} CARD;

static const GUID Guid = { 0xaf01000c, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x0c } };

static void Cancelled(void *context, IRP *irp)
{
    AfEnd(context, irp, STATUS_CANCELLED, 0);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT interrupt, PVOID context)
{
    CARD *card = context;
    ULONG status;

    UNREFERENCED_PARAMETER(interrupt);
    if (!card->powered)
        return FALSE;
    status = AfRead32(card->own.regs, R_STATUS);
    if (status == 0xFFFFFFFF || !(status & 1))
        return FALSE;
    AfWrite32(card->own.regs, R_STATUS, 1);
    KeInsertQueueDpc(&card->dpc, NULL, NULL);
    return TRUE;
}

/* Frees the slots that have been fetched; with the lock held. */
static void Reap(CARD *card)
{
    ULONG head = AfRead32(card->own.regs, R_HEAD);

#ifdef FIXED
    if (head >= SLOTS || (head - card->head) % SLOTS > (card->tail - card->head) % SLOTS) {
        card->dead = TRUE;
        return;
    }
#endif
    while (card->head != head) {
        card->slot[card->head].length = 0;
        card->head = (card->head + 1) % SLOTS;
    }
}

/* Puts messages into slots as long as there are both. */
static void Pump(CARD *card)
{
    for (;;) {
        NTSTATUS status = STATUS_SUCCESS;
        ULONG length = 0, next;
        IRP *irp = NULL;
        KIRQL irql;

        KeAcquireSpinLock(&card->lock, &irql);
        if (card->runs) {
            if (!card->dead)
                Reap(card);
            next = (card->tail + 1) % SLOTS;
            if (card->dead) {
                irp = AfQueueGet(&card->queue, NULL);
                status = STATUS_DEVICE_DOES_NOT_EXIST;
            } else if (next != card->head) {
                irp = AfQueueGet(&card->queue, NULL);
                if (irp) {
                    SLOT *slot = &card->slot[card->tail];

                    length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
                    RtlCopyMemory(slot->data, irp->AssociatedIrp.SystemBuffer, length);
                    slot->length = length;
                    card->tail = next;
                    AfBarrier();
                    AfWrite32(card->own.regs, R_TAIL, next);
                }
            }
        }
        KeReleaseSpinLock(&card->lock, irql);
        if (!irp)
            return;
        AfEnd(&card->own.af, irp, status, length);
    }
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    Pump(context);
}

static BOOLEAN NTAPI Up(PVOID context)
{
    CARD *card = context;

    AfWrite32(card->own.regs, R_STATUS, 1);
    AfWrite32(card->own.regs, R_ENABLE, 1);
    card->powered = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI Down(PVOID context)
{
    CARD *card = context;

    if (card->powered && AfReachable(&card->own.af))
        AfWrite32(card->own.regs, R_ENABLE, 0);
    card->powered = FALSE;
    return TRUE;
}

static void Run(CARD *card)
{
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    card->head = card->tail = 0;
    AfWrite32(card->own.regs, R_LOW, card->logical.LowPart);
    AfWrite32(card->own.regs, R_HIGH, (ULONG)card->logical.HighPart);
    AfWrite32(card->own.regs, R_CONTROL, 1);
    card->dead = FALSE;
    card->runs = TRUE;
    KeReleaseSpinLock(&card->lock, irql);
    KeSynchronizeExecution(card->interrupt, Up, card);
}

static BOOLEAN Drained(CARD *card)
{
    BOOLEAN drained;
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    if (!card->dead)
        Reap(card);
    drained = card->dead || card->head == card->tail;
    KeReleaseSpinLock(&card->lock, irql);
    return drained;
}

/* Lets the card send what it has (for a second at most) and stops it; FALSE if it may touch memory afterwards. */
static BOOLEAN Halt(CARD *card)
{
    BOOLEAN reachable = AfReachable(&card->own.af);
    LARGE_INTEGER delay;
    KIRQL irql;
    ULONG i;

    delay.QuadPart = -100000;
    for (i = 0; reachable && i < 100 && !Drained(card); ++i)
        KeDelayExecutionThread(KernelMode, FALSE, &delay);
    KeSynchronizeExecution(card->interrupt, Down, card);
    KeAcquireSpinLock(&card->lock, &irql);
    card->runs = FALSE;
    KeReleaseSpinLock(&card->lock, irql);
    if (!reachable)
        return TRUE;
    AfWrite32(card->own.regs, R_CONTROL, 0);
    for (i = 0; i < 10; ++i) {
        ULONG control = AfRead32(card->own.regs, R_CONTROL);

        if (control == 0xFFFFFFFF || !(control & 1))
            return TRUE;
        KeDelayExecutionThread(KernelMode, FALSE, &delay);
    }
    return AfBusMaster(&card->bus, FALSE);
}

static void Release(CARD *card)
{
    if (card->slot)
        card->adapter->DmaOperations->FreeCommonBuffer(card->adapter, SLOTS * sizeof(SLOT), card->logical, card->slot, TRUE);
    card->slot = NULL;
    if (card->adapter)
        card->adapter->DmaOperations->PutDmaAdapter(card->adapter);
    card->adapter = NULL;
    AfBusClose(&card->bus);
    AfOwnUnmap(&card->own);
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    KeInitializeDpc(&card->dpc, Dpc, card);
    KeInitializeSpinLock(&card->lock);
    return AfQueueInit(&card->queue, Cancelled, af);
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    CARD *card = (CARD *)af;
    CM_PARTIAL_RESOURCE_DESCRIPTOR *line = &card->own.line;
    DEVICE_DESCRIPTION description;
    NTSTATUS status = AfOwnMap(&card->own, list, R_ENABLE + sizeof(ULONG), 0);
    ULONG registers;

    if (!NT_SUCCESS(status))
        return status;
    status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (line->Type != CmResourceTypeInterrupt)
        goto release;
    AfBusOpen(af, &card->bus);
    AfBusMaster(&card->bus, TRUE);
    RtlZeroMemory(&description, sizeof description);
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = description.ScatterGather = TRUE;
    description.Dma32BitAddresses = description.Dma64BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = SLOTS * sizeof(SLOT);
    status = STATUS_INSUFFICIENT_RESOURCES;
    card->adapter = IoGetDmaAdapter(af->pdo, &description, &registers);
    if (!card->adapter)
        goto release;
    card->slot = card->adapter->DmaOperations->AllocateCommonBuffer(card->adapter, SLOTS * sizeof(SLOT), &card->logical, TRUE);
    if (!card->slot)
        goto release;
    RtlZeroMemory(card->slot, SLOTS * sizeof(SLOT));
    card->powered = FALSE;
    AfWrite32(card->own.regs, R_CONTROL, 0);
    AfWrite32(card->own.regs, R_ENABLE, 0);
    status = IoConnectInterrupt(&card->interrupt, Isr, card, NULL, line->u.Interrupt.Vector, (KIRQL)line->u.Interrupt.Level,
                                (KIRQL)line->u.Interrupt.Level,
                                line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        card->interrupt = NULL;
        goto release;
    }
    Run(card);
    Pump(card);
    return STATUS_SUCCESS;
release:
    Release(card);
    return status;
}

static void Stop(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    BOOLEAN quiet = Halt(card);

    IoDisconnectInterrupt(card->interrupt);
    KeFlushQueuedDpcs();
    card->interrupt = NULL;
    if (!quiet)
        card->slot = NULL;                      /* the card cannot be kept off it: it stays the card's */
    Release(card);
}

static void Suspend(AF_DEVICE *af)
{
    Halt((CARD *)af);
}

static void Resume(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    AfBusMaster(&card->bus, TRUE);
    Run(card);
    Pump(card);
}

static void Flush(AF_DEVICE *af, FILE_OBJECT *file)
{
    AfQueueFlush(&((CARD *)af)->queue, file);
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;

    if (stack->MajorFunction != IRP_MJ_WRITE) {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    if (stack->Parameters.Write.Length == 0 || stack->Parameters.Write.Length > ROOM) {
        AfFinish(af, irp, STATUS_INVALID_PARAMETER, 0);
        return;
    }
    AfQueuePut(&card->queue, irp);
    Pump(card);
    AfLeave(af);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .flags = DO_BUFFERED_IO, .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop,
    .flush = Flush, .suspend = Suspend, .resume = Resume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
