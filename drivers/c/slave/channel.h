/* Stories of the channel itself: who may have one, who shares it, what goes round and round, and what version 3 has besides. */
#ifndef SLAVE_CHANNEL_H
#define SLAVE_CHANNEL_H

#include "slave.h"

static VOID Ask(PDMA_ADAPTER Adapter, ULONG Index, ULONG Count)
{
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Adapter->DmaOperations->AllocateAdapterChannel(Adapter, Waiters[Index], Count, Notes, (PVOID)(ULONG_PTR)Index);
    KeLowerIrql(Irql);
}

static VOID GiveBack(PDMA_ADAPTER Adapter)
{
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Adapter->DmaOperations->FreeAdapterChannel(Adapter);
    KeLowerIrql(Irql);
}

/* Descriptions of channels that a PC has not. */
static ULONG Descriptions(VOID)
{
    static const struct {
        ULONG Channel, Width, Speed;
        BOOLEAN Good;
    } Cases[] = {
        {0, Width8Bits, Compatible, TRUE},   {3, Width8Bits, TypeF, TRUE},   {5, Width16Bits, TypeA, TRUE},
        {7, Width16Bits, TypeC, TRUE},       {4, Width16Bits, TypeA, FALSE}, {8, Width8Bits, TypeA, FALSE},
        {1, Width16Bits, TypeA, FALSE},      {6, Width8Bits, TypeA, FALSE},  {2, Width32Bits, TypeA, FALSE},
        {2, Width8Bits, MaximumDmaSpeed, FALSE},
    };
    DESCRIPTION3 Description;
    PDMA_ADAPTER Adapter;
    ULONG Index, Most;

    for (Index = 0; Index < RTL_NUMBER_OF(Cases); Index++) {
        Describe(&Description.Old, DEVICE_DESCRIPTION_VERSION2, Cases[Index].Channel, 0x100000);
        Description.Old.DmaWidth = Cases[Index].Width;
        Description.Old.DmaSpeed = Cases[Index].Speed;
        Adapter = IoGetDmaAdapter(Pdo, &Description.Old, &Most);
        CHECK((Adapter != NULL) == Cases[Index].Good);
        if (Adapter != NULL) {
            CHECK(Most == (Cases[Index].Channel > 4 ? 33u : 17u));
            CHECK(Adapter->DmaOperations->GetDmaAlignment(Adapter) == (Cases[Index].Channel > 4 ? 2u : 1u));
            CHECK(Adapter->DmaOperations->ReadDmaCounter(Adapter) == 0);
            Adapter->DmaOperations->PutDmaAdapter(Adapter);
        }
    }
    return 0;
}

/* One channel, whichever adapter it is asked for by, and in the order of asking. */
static ULONG Shared(VOID)
{
    ULONG Most;
    PDMA_ADAPTER One = Get(DEVICE_DESCRIPTION_VERSION, PAGE_SIZE, &Most), Two = Get(DEVICE_DESCRIPTION_VERSION2, PAGE_SIZE, &Most);

    CHECK(One != NULL && Two != NULL && One != Two && Most == 2);
    CHECK_ALL(MakeWaiters());
    Action = KeepObject;
    Ask(One, 0, 1);
    Ask(Two, 1, 1);
    Ask(One, 2, 2);
    Ask(Two, 3, 1);
    CHECK(Ordered == 1 && Order[0] == 0);
    GiveBack(One);
    CHECK(Ordered == 2 && Order[1] == 1);
    GiveBack(Two);
    CHECK(Ordered == 3 && Order[2] == 2);
    GiveBack(One);
    CHECK(Ordered == 4 && Order[3] == 3);
    GiveBack(Two);
    CHECK(Mistakes == 0);
    One->DmaOperations->PutDmaAdapter(One);
    Two->DmaOperations->PutDmaAdapter(Two);
    DeleteWaiters();
    return 0;
}

/* A common buffer that the channel goes through again and again: the driver reads it behind the counter, and flushes at the end. */
static ULONG RoundAndRound(VOID)
{
    enum { Bytes = 512 };
    DESCRIPTION3 Description;
    PHYSICAL_ADDRESS Logical;
    ULONG Most, Index, Length = Bytes, Before, Now, Rounds = 0;
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PMDL Mdl;

    Describe(&Description.Old, DEVICE_DESCRIPTION_VERSION1, Read(Card, SLAVE_CHANNEL), PAGE_SIZE);
    Description.Old.AutoInitialize = TRUE;
    Adapter = IoGetDmaAdapter(Pdo, &Description.Old, &Most);
    CHECK(Adapter != NULL);
    CHECK_ALL(MakeWaiters());
    Buffer = Adapter->DmaOperations->AllocateCommonBuffer(Adapter, Bytes, &Logical, FALSE);
    CHECK(Buffer != NULL && Logical.QuadPart + Bytes <= 0x1000000);
    Mdl = NewBuffer(Buffer, Bytes);
    CHECK(Mdl != NULL);
    for (Index = 0; Index < Bytes; Index++) {
        Buffer[Index] = (UCHAR)(Index ^ 0x5A);
    }
    Action = KeepObject;
    Ask(Adapter, 0, Most);
    CHECK(Ordered == 1);
    /* Once to the card, so that it has something to give. */
    Adapter->DmaOperations->MapTransfer(Adapter, Mdl, Bases[0], Buffer, &Length, TRUE);
    CHECK(Length == Bytes);
    StartCard(0);
    CHECK(CardDone());
    Adapter->DmaOperations->FlushAdapterBuffers(Adapter, Mdl, Bases[0], Buffer, Bytes, TRUE);
    RtlFillMemory(Buffer, Bytes, 0xEE);

    Adapter->DmaOperations->MapTransfer(Adapter, Mdl, Bases[0], Buffer, &Length, FALSE);
    StartCard(SLAVE_TO_MEMORY | SLAVE_CONTINUE);
    KeStallExecutionProcessor(35);
    Before = Adapter->DmaOperations->ReadDmaCounter(Adapter);
    CHECK(Before > 0 && Before < Bytes);
    /* What the channel has passed is there, flushed or not. */
    for (Index = 0; Index < Bytes; Index++) {
        if (Buffer[Index] != (Index < Bytes - Before ? (UCHAR)(Index ^ 0x5A) : 0xEE)) {
            CHECK(Index == Bytes);
        }
    }
    for (Index = 0; Index < 10000 && Rounds < 3; Index++) {
        KeStallExecutionProcessor(20);
        Now = Adapter->DmaOperations->ReadDmaCounter(Adapter);
        CHECK(Now > 0 && Now <= Bytes);
        Rounds += Now > Before;
        Before = Now;
    }
    CHECK(Rounds == 3 && Read(Card, SLAVE_MOVED) >= 3 * Bytes);
    /* The card goes on behind what it was given, where there are zeroes. */
    for (Index = 0; Index < Bytes; Index++) {
        if (Buffer[Index] != 0) {
            CHECK(Index == Bytes);
        }
    }
    Write(Card, SLAVE_COMMAND, 0);
    Now = Adapter->DmaOperations->ReadDmaCounter(Adapter);
    PassTime(200);
    CHECK(Adapter->DmaOperations->ReadDmaCounter(Adapter) == Now);
    Adapter->DmaOperations->FlushAdapterBuffers(Adapter, Mdl, Bases[0], Buffer, Bytes, FALSE);
    GiveBack(Adapter);
    IoFreeMdl(Mdl);
    Adapter->DmaOperations->FreeCommonBuffer(Adapter, Bytes, Logical, Buffer, FALSE);
    Adapter->DmaOperations->PutDmaAdapter(Adapter);
    CHECK(Mistakes == 0);
    DeleteWaiters();
    return 0;
}

static PVOID AskAtOnce(PDMA_ADAPTER Adapter, PVOID Context)
{
    PVOID Base = NULL;
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    OF3(Adapter)->AllocateAdapterChannelEx(Adapter, Pdo, Context, 2, DMA_SYNCHRONOUS_CALLBACK, NULL, NULL, &Base);
    KeLowerIrql(Irql);
    return Base;
}

/* Version 3: a transfer that is cancelled moves nothing more, and its context is good for no other. */
static ULONG Cancelled(VOID)
{
    static DECLSPEC_ALIGN(16) UCHAR Context[DMA_TRANSFER_CONTEXT_SIZE_V1], Other[DMA_TRANSFER_CONTEXT_SIZE_V1];
    static DECLSPEC_ALIGN(16) UCHAR Memory[4000];
    UCHAR Room[64];
    PSCATTER_GATHER_LIST List = (PSCATTER_GATHER_LIST)Room;
    ADAPTER_INFO1 About = {1, 0, 0, 0, 0, 0};
    PMDL Mdl = NewBuffer(Memory, sizeof(Memory));
    ULONG Most, Length = sizeof(Memory), Left;
    PDMA_ADAPTER Adapter = Get(3, PAGE_SIZE, &Most);
    PVOID Base;

    CHECK(Adapter != NULL && Mdl != NULL && Adapter->DmaOperations->Size == 0x140);
    CHECK(OF3(Adapter)->GetDmaAdapterInfo(Adapter, &About) == STATUS_SUCCESS);
    CHECK(About.ReadDmaCounterAvailable && About.ScatterGatherLimit == 1 && About.DmaAddressWidth == 24);
    CHECK(OF3(Adapter)->ConfigureAdapterChannel(Adapter, 1, NULL) == STATUS_NOT_IMPLEMENTED);
    CHECK(OF3(Adapter)->CancelMappedTransfer(Adapter, Other) == STATUS_INVALID_PARAMETER);
    CHECK(OF3(Adapter)->InitializeDmaTransferContext(Adapter, Context) == STATUS_SUCCESS);
    Base = AskAtOnce(Adapter, Context);
    CHECK(Base != NULL);
    CHECK(OF3(Adapter)->MapTransferEx(Adapter, Mdl, Base, 0, 0, &Length, TRUE, List, sizeof(Room), NULL, NULL) ==
          STATUS_SUCCESS);
    CHECK(Length == sizeof(Memory) && List->NumberOfElements == 1);
    StartCard(0);
    PassTime(200);
    CHECK(OF3(Adapter)->CancelMappedTransfer(Adapter, Context) == STATUS_SUCCESS);
    Left = Adapter->DmaOperations->ReadDmaCounter(Adapter);
    CHECK(Left > 0 && Left < sizeof(Memory));
    PassTime(500);
    CHECK(Adapter->DmaOperations->ReadDmaCounter(Adapter) == Left);
    CHECK(Read(Card, SLAVE_MOVED) == sizeof(Memory) - Left);
    Write(Card, SLAVE_COMMAND, 0);
    CHECK(OF3(Adapter)->FlushAdapterBuffersEx(Adapter, Mdl, Base, 0, sizeof(Memory), TRUE) == STATUS_SUCCESS);
    CHECK(OF3(Adapter)->MapTransferEx(Adapter, Mdl, Base, 0, 0, &Length, TRUE, List, sizeof(Room), NULL, NULL) ==
          STATUS_CANCELLED);
    OF3(Adapter)->FreeAdapterObject(Adapter, DeallocateObject);
    Adapter->DmaOperations->PutDmaAdapter(Adapter);
    IoFreeMdl(Mdl);
    return 0;
}

/* The controllers do not interrupt when they are done: version 3's completion routine says by its name that it is not there. */
static ULONG Absent(VOID)
{
    static DECLSPEC_ALIGN(16) UCHAR Context[DMA_TRANSFER_CONTEXT_SIZE_V1], Memory[16];
    UCHAR Room[64];
    PMDL Mdl = NewBuffer(Memory, sizeof(Memory));
    ULONG Most, Length = sizeof(Memory);
    PDMA_ADAPTER Adapter = Get(3, PAGE_SIZE, &Most);
    PVOID Base;

    CHECK(Adapter != NULL && Mdl != NULL);
    OF3(Adapter)->InitializeDmaTransferContext(Adapter, Context);
    Base = AskAtOnce(Adapter, Context);
    CHECK(Base != NULL);
    OF3(Adapter)->MapTransferEx(Adapter, Mdl, Base, 0, 0, &Length, TRUE, (PSCATTER_GATHER_LIST)Room, sizeof(Room), Absent,
                                NULL);
    return 0;
}

#endif
