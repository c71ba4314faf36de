/*
 * Transfers to and from the buffer of the edu device, one request at a time, by scatter-gather lists. The driver supplies TransferDone,
 * which gives the list back, completes the request and has the next one begun.
 */
#pragma once
#include "bay_edu.h"

typedef struct TRANSFERS {
    AF_EDU edu;
    AF_BUS bus;
    PDMA_ADAPTER adapter;
    AF_QUEUE queue;                             /* those in it count as active */
    KDPC nextDpc, watchDpc;
    KTIMER watch;
    KSPIN_LOCK lock;                            /* of what follows */
    BOOLEAN busy, again, dead;
    IRP *beginning, *current;
    SCATTER_GATHER_LIST *list;
    BOOLEAN toDevice;
    ULONG element, offset, length;
    ULONGLONG deadline;
} TRANSFERS;

static void TransferDone(TRANSFERS *card, IRP *irp, SCATTER_GATHER_LIST *list, BOOLEAN toDevice, NTSTATUS status, ULONG length);

static inline void TransferQueued(void *context, IRP *irp)
{
    AfFinish(context, irp, STATUS_CANCELLED, 0);
}

/* The next element; with the lock held. */
static inline void TransferGo(TRANSFERS *card)
{
    SCATTER_GATHER_ELEMENT *element = &card->list->Elements[card->element];
    PUCHAR regs = card->edu.regs;
    LARGE_INTEGER due;

    AfWrite32(regs, card->toDevice ? EDU_SOURCE : EDU_TARGET, (ULONG)element->Address.QuadPart);
    AfWrite32(regs, (card->toDevice ? EDU_SOURCE : EDU_TARGET) + 4, 0);
    AfWrite32(regs, card->toDevice ? EDU_TARGET : EDU_SOURCE, EDU_BUFFER + card->offset);
    AfWrite32(regs, (card->toDevice ? EDU_TARGET : EDU_SOURCE) + 4, 0);
    AfWrite32(regs, EDU_LENGTH, element->Length);
    AfWrite32(regs, EDU_LENGTH + 4, 0);
    AfWrite32(regs, EDU_COMMAND, DMA_START | DMA_NOTIFY | (card->toDevice ? 0 : DMA_FROM));
    card->deadline = KeQueryInterruptTime() + 10000000;
    due.QuadPart = -10100000LL;
    KeSetTimer(&card->watch, due, &card->watchDpc);
}

static inline VOID NTAPI TransferListed(PDEVICE_OBJECT self, PIRP unused, PSCATTER_GATHER_LIST list, PVOID context)
{
    TRANSFERS *card = context;
    IRP *irp;
    BOOLEAN reached = TRUE, toDevice;
    ULONG i;

    UNREFERENCED_PARAMETER(self);
    UNREFERENCED_PARAMETER(unused);
    for (i = 0; i < list->NumberOfElements; ++i) {
        if ((ULONGLONG)list->Elements[i].Address.QuadPart + list->Elements[i].Length > EDU_REACH)
            reached = FALSE;
    }
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    irp = card->beginning;
    card->beginning = NULL;
    toDevice = card->toDevice;
    if (reached) {
        card->current = irp;
        card->list = list;
        card->element = 0;
        TransferGo(card);
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    if (!reached)
        TransferDone(card, irp, list, toDevice, STATUS_INVALID_ADDRESS, 0);
}

/* Begins the next request if none is under way. */
static inline VOID NTAPI TransferNext(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    TRANSFERS *card = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    for (;;) {
        IO_STACK_LOCATION *stack;
        NTSTATUS status = STATUS_DEVICE_HARDWARE_ERROR;
        BOOLEAN dead, toDevice, again;
        IRP *irp;

        KeAcquireSpinLockAtDpcLevel(&card->lock);
        if (card->busy) {
            card->again = TRUE;
            KeReleaseSpinLockFromDpcLevel(&card->lock);
            return;
        }
        card->busy = TRUE;
        dead = card->dead;
        KeReleaseSpinLockFromDpcLevel(&card->lock);
        irp = AfQueueGet(&card->queue, NULL);
        if (irp) {
            stack = IoGetCurrentIrpStackLocation(irp);
            toDevice = stack->MajorFunction == IRP_MJ_WRITE;
            if (!dead) {
                KeAcquireSpinLockAtDpcLevel(&card->lock);
                card->beginning = irp;
                card->toDevice = toDevice;
                card->length = toDevice ? stack->Parameters.Write.Length : stack->Parameters.Read.Length;
                card->offset = toDevice ? stack->Parameters.Write.ByteOffset.LowPart : stack->Parameters.Read.ByteOffset.LowPart;
                KeReleaseSpinLockFromDpcLevel(&card->lock);
                status = card->adapter->DmaOperations->GetScatterGatherList(card->adapter, card->edu.af.self, irp->MdlAddress,
                    MmGetMdlVirtualAddress(irp->MdlAddress), card->length, TransferListed, card, toDevice);
                if (NT_SUCCESS(status))
                    return;
            }
        }
        KeAcquireSpinLockAtDpcLevel(&card->lock);
        card->beginning = NULL;
        card->busy = FALSE;
        again = card->again;
        card->again = FALSE;
        KeReleaseSpinLockFromDpcLevel(&card->lock);
        /* A request that is being cancelled is in the queue still, and is not this routine's to wait for. */
        if (irp)
            AfFinish(&card->edu.af, irp, status, 0);
        else if (!again)
            return;
    }
}

static inline VOID NTAPI TransferDpc(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    TRANSFERS *card = context;
    SCATTER_GATHER_LIST *list = NULL;
    BOOLEAN toDevice = FALSE;
    ULONG length = 0;
    IRP *irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    if (!(AfEduRaised(&card->edu) & RAISED_DMA))
        return;
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    if (card->current && !(AfRead32(card->edu.regs, EDU_COMMAND) & DMA_START)) {
        card->offset += card->list->Elements[card->element].Length;
        if (++card->element < card->list->NumberOfElements) {
            TransferGo(card);
        } else {
            irp = card->current;
            card->current = NULL;
            list = card->list;
            toDevice = card->toDevice;
            length = card->length;
            KeCancelTimer(&card->watch);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    if (irp)
        TransferDone(card, irp, list, toDevice, STATUS_SUCCESS, length);
}

/* The device has taken too long: if it cannot be kept off the memory, the request goes on waiting. */
static inline VOID NTAPI TransferWatch(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    TRANSFERS *card = context;
    SCATTER_GATHER_LIST *list = NULL;
    BOOLEAN toDevice = FALSE;
    IRP *irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    if (card->current && KeQueryInterruptTime() >= card->deadline) {
        ULONG command = AfRead32(card->edu.regs, EDU_COMMAND);

        if (command == 0xFFFFFFFF || !(command & DMA_START) || AfBusMaster(&card->bus, FALSE)) {
            irp = card->current;
            card->current = NULL;
            card->dead = TRUE;
            list = card->list;
            toDevice = card->toDevice;
        } else {
            LARGE_INTEGER due;

            due.QuadPart = -10100000LL;
            KeSetTimer(&card->watch, due, &card->watchDpc);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    if (irp)
        TransferDone(card, irp, list, toDevice, STATUS_IO_TIMEOUT, 0);
}

static inline NTSTATUS TransferInit(AF_DEVICE *af)
{
    TRANSFERS *card = (TRANSFERS *)af;

    KeInitializeDpc(&card->edu.dpc, TransferDpc, card);
    KeInitializeDpc(&card->nextDpc, TransferNext, card);
    KeInitializeDpc(&card->watchDpc, TransferWatch, card);
    KeInitializeTimer(&card->watch);
    KeInitializeSpinLock(&card->lock);
    return AfQueueInit(&card->queue, TransferQueued, af);
}

static inline NTSTATUS TransferStart(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    TRANSFERS *card = (TRANSFERS *)af;
    DEVICE_DESCRIPTION description;
    NTSTATUS status;
    ULONG registers;

    RtlZeroMemory(&description, sizeof description);
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;                  /* less than 32 bits of address: the adapter keeps to 24 */
    description.ScatterGather = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = EDU_SIZE;
    card->adapter = IoGetDmaAdapter(af->pdo, &description, &registers);
    if (!card->adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    AfBusOpen(af, &card->bus);
    AfBusMaster(&card->bus, TRUE);
    card->busy = card->again = card->dead = FALSE;
    card->current = card->beginning = NULL;
    status = AfEduStart(&card->edu, list);
    if (NT_SUCCESS(status))
        return status;
    AfBusClose(&card->bus);
    card->adapter->DmaOperations->PutDmaAdapter(card->adapter);
    card->adapter = NULL;
    return status;
}

static inline void TransferStop(AF_DEVICE *af)
{
    TRANSFERS *card = (TRANSFERS *)af;

    KeCancelTimer(&card->watch);
    AfEduStop(&card->edu);
    AfBusClose(&card->bus);
    card->adapter->DmaOperations->PutDmaAdapter(card->adapter);
    card->adapter = NULL;
}

static inline void TransferServe(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    TRANSFERS *card = (TRANSFERS *)af;
    LONGLONG offset;
    ULONG length;

    if (stack->MajorFunction == IRP_MJ_READ) {
        offset = stack->Parameters.Read.ByteOffset.QuadPart;
        length = stack->Parameters.Read.Length;
    } else if (stack->MajorFunction == IRP_MJ_WRITE) {
        offset = stack->Parameters.Write.ByteOffset.QuadPart;
        length = stack->Parameters.Write.Length;
    } else {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    if (offset < 0 || offset > EDU_SIZE || length > EDU_SIZE - (ULONG)offset) {
        AfFinish(af, irp, STATUS_INVALID_PARAMETER, 0);
        return;
    }
    if (length == 0 || !irp->MdlAddress) {
        AfFinish(af, irp, length ? STATUS_INVALID_PARAMETER : STATUS_SUCCESS, 0);
        return;
    }
    AfStay(af);                                 /* the request may be gone as soon as it is in the queue */
    AfQueuePut(&card->queue, irp);
    KeInsertQueueDpc(&card->nextDpc, NULL, NULL);
    AfLeave(af);
}
