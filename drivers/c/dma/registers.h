/* Stories of map registers and channels: who waits, and in which order they get what they wait for. */
#ifndef DMA_REGISTERS_H
#define DMA_REGISTERS_H

#include "dma.h"

#define WAITERS 6

#include "../waiters.h"

static PVOID Bases[WAITERS];

static IO_ALLOCATION_ACTION NTAPI Notes(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    ULONG Index = (ULONG)(ULONG_PTR)Context;

    Mistakes += Index >= WAITERS || Device != Waiters[Index] || Irp != NumberOf(Index) ||
                MapRegisterBase == NULL || KeGetCurrentIrql() != DISPATCH_LEVEL;
    Bases[Index] = MapRegisterBase;
    Order[Ordered++] = Index;
    return Action;
}

static NTSTATUS AskFor(PDMA_ADAPTER Adapter, ULONG Index, ULONG Count)
{
    return Adapter->DmaOperations->AllocateAdapterChannel(Adapter, Waiters[Index], Count, Notes, (PVOID)(ULONG_PTR)Index);
}

static VOID GiveBack(PDMA_ADAPTER Adapter, ULONG Index, ULONG Count)
{
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Adapter->DmaOperations->FreeMapRegisters(Adapter, Bases[Index], Count);
    KeLowerIrql(Irql);
}

/* Who waits for map registers gets them in the order of asking, also if there are enough for one behind. */
static ULONG InOrder(VOID)
{
    ULONG Most, Held = 0, Calls, Round;
    PDMA_ADAPTER Adapter_ = Adapter(32, TRUE, 0x10000, &Most);
    static PVOID Many[64];
    NTSTATUS Status;
    KIRQL Irql;

    CHECK(Adapter_ != NULL && Most == 17);
    CHECK_ALL(MakeWaiters());
    Action = DeallocateObjectKeepRegisters;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Status = AskFor(Adapter_, 0, Most + 1);
    KeLowerIrql(Irql);
    CHECK(Status == STATUS_INSUFFICIENT_RESOURCES && Ordered == 0);
    /* As many as there are: device 0 takes them by the most that it may, until it has to wait. */
    for (;;) {
        Calls = Ordered;
        KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        Status = AskFor(Adapter_, 0, Most);
        KeLowerIrql(Irql);
        CHECK(Status == STATUS_SUCCESS);
        if (Ordered == Calls) {
            break;
        }
        Ordered = 0;
        CHECK(Held < RTL_NUMBER_OF(Many));
        Many[Held++] = Bases[0];
    }
    CHECK(Held >= 2);
    Ordered = 0;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    AskFor(Adapter_, 3, 1);
    AskFor(Adapter_, 1, Most);
    AskFor(Adapter_, 2, 1);
    KeLowerIrql(Irql);
    CHECK(Ordered == 0); /* device 0 is the first, and there are not enough for it */
    Bases[5] = Many[0];
    GiveBack(Adapter_, 5, Most);
    CHECK(Ordered >= 2 && Order[0] == 0 && Order[1] == 3);
    Round = 1;
    while (Ordered < 4) {
        CHECK(Round < Held);
        Bases[5] = Many[Round++];
        GiveBack(Adapter_, 5, Most);
    }
    CHECK(Order[2] == 1 && Order[3] == 2 && Mistakes == 0);
    while (Round < Held) {
        Bases[5] = Many[Round++];
        GiveBack(Adapter_, 5, Most);
    }
    GiveBack(Adapter_, 0, Most);
    GiveBack(Adapter_, 1, Most);
    GiveBack(Adapter_, 2, 1);
    GiveBack(Adapter_, 3, 1);
    CHECK(Ordered == 4);
    Adapter_->DmaOperations->PutDmaAdapter(Adapter_);
    DeleteWaiters();
    return 0;
}

/* A channel that is kept makes the others wait; one that is given back goes to the next at once. */
static ULONG Channels(VOID)
{
    ULONG Most;
    PDMA_ADAPTER Adapter_ = Adapter(64, TRUE, 0x10000, &Most);
    KIRQL Irql;

    CHECK(Adapter_ != NULL);
    CHECK_ALL(MakeWaiters());
    Action = KeepObject;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    AskFor(Adapter_, 4, 2);
    AskFor(Adapter_, 0, 2);
    AskFor(Adapter_, 1, 2);
    KeLowerIrql(Irql);
    CHECK(Ordered == 1 && Order[0] == 4);
    CHECK(Waiters[0]->Queue.Wcb.DeviceRoutine == Notes && Waiters[0]->Queue.Wcb.NumberOfMapRegisters == 2);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Adapter_->DmaOperations->FreeAdapterChannel(Adapter_);
    KeLowerIrql(Irql);
    CHECK(Ordered == 2 && Order[1] == 0);
    Action = DeallocateObject;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    AskFor(Adapter_, 2, 1);
    Adapter_->DmaOperations->FreeAdapterChannel(Adapter_);
    KeLowerIrql(Irql);
    CHECK(Ordered == 4 && Order[2] == 1 && Order[3] == 2);
    Action = KeepObject;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    AskFor(Adapter_, 3, Most);
    OldFreeAdapterChannel(Adapter_);
    KeLowerIrql(Irql);
    CHECK(Ordered == 5 && Mistakes == 0);
    Adapter_->DmaOperations->PutDmaAdapter(Adapter_);
    DeleteWaiters();
    return 0;
}

/* Parts of one page that are mapped one by one take one map register together, and can be flushed together. */
static ULONG Parts(VOID)
{
    static DECLSPEC_ALIGN(4096) UCHAR Page[PAGE_SIZE];
    PMDL Mdl = IoAllocateMdl(Page, PAGE_SIZE, FALSE, FALSE, NULL);
    PHYSICAL_ADDRESS Logical[8];
    ULONG Most, Index, Length;
    PDMA_ADAPTER Adapter_ = Adapter(32, TRUE, 0x10000, &Most);
    KIRQL Irql;

    CHECK(Adapter_ != NULL && Mdl != NULL);
    CHECK_ALL(MakeWaiters());
    MmBuildMdlForNonPagedPool(Mdl);
    Action = DeallocateObjectKeepRegisters;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    AskFor(Adapter_, 0, 1);
    KeLowerIrql(Irql);
    CHECK(Ordered == 1 && Mistakes == 0);
    for (Index = 0; Index < 8; Index++) {
        Length = 512;
        Logical[Index] = Adapter_->DmaOperations->MapTransfer(Adapter_, Mdl, Bases[0], Page + 512 * Index, &Length, TRUE);
        CHECK(Length == 512 && (Logical[Index].LowPart & (PAGE_SIZE - 1)) == 512 * Index);
    }
    CHECK(Adapter_->DmaOperations->FlushAdapterBuffers(Adapter_, Mdl, Bases[0], Page, PAGE_SIZE, TRUE));
    GiveBack(Adapter_, 0, 1);
    Adapter_->DmaOperations->PutDmaAdapter(Adapter_);
    IoFreeMdl(Mdl);
    DeleteWaiters();
    return 0;
}

#endif
