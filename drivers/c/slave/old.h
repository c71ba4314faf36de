/* The story of system DMA as drivers of Windows NT 4 did it, by the exports of those days alone. */
#ifndef SLAVE_OLD_H
#define SLAVE_OLD_H

#include "slave.h"

#define OLD_BYTES 3000

static NTSTATUS OldAsk(PDMA_ADAPTER Adapter, ULONG Index, ULONG Count)
{
    NTSTATUS Status;
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Status = OldAllocateAdapterChannel(Adapter, Waiters[Index], Count, Notes, (PVOID)(ULONG_PTR)Index);
    KeLowerIrql(Irql);
    return Status;
}

static VOID OldGiveBack(PDMA_ADAPTER Adapter)
{
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    OldFreeAdapterChannel(Adapter);
    KeLowerIrql(Irql);
}

/* One way, by the device that has the channel: the counter falls while the card moves, and ends at 0. */
static ULONG OldTransfer(PDMA_ADAPTER Adapter, ULONG Index, PMDL Mdl, BOOLEAN ToDevice)
{
    PUCHAR Va = MmGetMdlVirtualAddress(Mdl);
    ULONG Length = OLD_BYTES, First, Second;

    OldMapTransfer(Adapter, Mdl, Bases[Index], Va, &Length, ToDevice);
    CHECK(Length == OLD_BYTES && OldReadDmaCounter(Adapter) == OLD_BYTES);
    StartCard(ToDevice ? 0 : SLAVE_TO_MEMORY);
    PassTime(200);
    First = OldReadDmaCounter(Adapter);
    CHECK(First < OLD_BYTES && First > 0);
    PassTime(200);
    Second = OldReadDmaCounter(Adapter);
    CHECK(Second < First && Second > 0);
    CHECK(CardDone() && Read(Card, SLAVE_MOVED) == OLD_BYTES);
    CHECK(OldReadDmaCounter(Adapter) == 0);
    return 0;
}

/* Map registers that the device has kept go to the one that waits for them. */
static ULONG OldRegisters(VOID)
{
    DESCRIPTION3 Description;
    PVOID Kept[16];
    ULONG Most, Held = 0, Calls;
    PDMA_ADAPTER Adapter;
    KIRQL Irql;

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Old.Version = DEVICE_DESCRIPTION_VERSION1;
    Description.Old.Master = Description.Old.Dma32BitAddresses = TRUE;
    Description.Old.InterfaceType = PCIBus;
    Description.Old.MaximumLength = 0x10000;
    Adapter = OldGetAdapter(&Description.Old, &Most);
    CHECK(Adapter != NULL && Most == 17);
    Action = DeallocateObjectKeepRegisters;
    Ordered = 0;
    do {
        Calls = Ordered;
        CHECK(Held < RTL_NUMBER_OF(Kept) && OldAsk(Adapter, 0, Most) == STATUS_SUCCESS);
        Kept[Held++] = Bases[0];
    } while (Ordered > Calls);
    CHECK(Held >= 3);
    Held--; /* the last one waits */
    OldAsk(Adapter, 1, 1);
    CHECK(Ordered == Calls);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    OldFreeMapRegisters(Adapter, Kept[--Held], Most);
    KeLowerIrql(Irql);
    CHECK(Ordered >= Calls + 1 && Order[Calls] == 0);
    Kept[Held] = Bases[0];
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    OldFreeMapRegisters(Adapter, Kept[Held], Most);
    KeLowerIrql(Irql);
    CHECK(Ordered == Calls + 2 && Order[Calls + 1] == 1);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    OldFreeMapRegisters(Adapter, Bases[1], 1);
    while (Held > 0) {
        OldFreeMapRegisters(Adapter, Kept[--Held], Most);
    }
    KeLowerIrql(Irql);
    return 0;
}

static ULONG OldWay(VOID)
{
    static DECLSPEC_ALIGN(16) UCHAR Out[OLD_BYTES], In[OLD_BYTES];
    PMDL OutMdl = NewBuffer(Out, OLD_BYTES), InMdl = NewBuffer(In, OLD_BYTES);
    DESCRIPTION3 Description;
    PDMA_ADAPTER Adapter;
    ULONG Most, Index;

    CHECK(OutMdl != NULL && InMdl != NULL);
    CHECK_ALL(MakeWaiters());
    Describe(&Description.Old, DEVICE_DESCRIPTION_VERSION, Read(Card, SLAVE_CHANNEL), OLD_BYTES);
    Adapter = OldGetAdapter(&Description.Old, &Most);
    CHECK(Adapter != NULL && Most == 2);
    for (Index = 0; Index < OLD_BYTES; Index++) {
        Out[Index] = (UCHAR)(Index * 7 + 1);
        In[Index] = 0;
    }
    /* Device 0 keeps the channel; device 1 waits for it until it is freed. */
    Action = KeepObject;
    CHECK(OldAsk(Adapter, 0, Most) == STATUS_SUCCESS && OldAsk(Adapter, 1, Most) == STATUS_SUCCESS);
    CHECK(Ordered == 1 && Order[0] == 0);
    CHECK_ALL(OldTransfer(Adapter, 0, OutMdl, TRUE));
    CHECK(OldFlushAdapterBuffers(Adapter, OutMdl, Bases[0], Out, OLD_BYTES, TRUE));
    CHECK(Ordered == 1);
    OldGiveBack(Adapter);
    CHECK(Ordered == 2 && Order[1] == 1);
    CHECK_ALL(OldTransfer(Adapter, 1, InMdl, FALSE));
    /* The buffer is not where the controllers reach: what they moved arrives when it is flushed. */
    CHECK(In[0] == 0 && In[OLD_BYTES - 1] == 0);
    CHECK(OldFlushAdapterBuffers(Adapter, InMdl, Bases[1], In, OLD_BYTES, FALSE));
    CHECK(RtlCompareMemory(In, Out, OLD_BYTES) == OLD_BYTES);
    OldGiveBack(Adapter);
    CHECK_ALL(OldRegisters());
    CHECK(Mistakes == 0);
    DeleteWaiters();
    IoFreeMdl(InMdl);
    IoFreeMdl(OutMdl);
    return 0;
}

#endif
