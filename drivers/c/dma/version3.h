/* The story of what version 3 has besides: requests at once or not at all, cancelled ones, chains of MDLs by offset. */
#ifndef DMA_VERSION3_H
#define DMA_VERSION3_H

#include "dma.h"
#include "lists.h"

static ULONG ExCalled;

static IO_ALLOCATION_ACTION NTAPI ExControl(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(MapRegisterBase);
    UNREFERENCED_PARAMETER(Context);
    ExCalled++;
    return DeallocateObject;
}

/* AllocateAdapterChannelEx at its level. */
static NTSTATUS AskEx(PDMA_ADAPTER Adapter, PVOID Context, ULONG Count, ULONG Flags, PDRIVER_CONTROL Routine, PVOID *Base)
{
    NTSTATUS Status;
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Status = OF3(Adapter)->AllocateAdapterChannelEx(Adapter, Pdo, Context, Count, Flags, Routine, NULL, Base);
    KeLowerIrql(Irql);
    return Status;
}

static ULONG Channel3(PDMA_ADAPTER Adapter, PMDL Mdl, ULONG Bytes)
{
    static DECLSPEC_ALIGN(16) UCHAR First[DMA_TRANSFER_CONTEXT_SIZE_V1], Second[DMA_TRANSFER_CONTEXT_SIZE_V1];
    static DECLSPEC_ALIGN(16) UCHAR Room[LIST_ROOM];
    PSCATTER_GATHER_LIST List = (PSCATTER_GATHER_LIST)Room;
    ULONG Length = Bytes - FROM;
    PVOID Base = NULL;
    KIRQL Irql;

    CHECK(AskEx(Adapter, First, 2, 0, ExControl, NULL) == STATUS_INVALID_PARAMETER); /* the context is none yet */
    CHECK(OF3(Adapter)->InitializeDmaTransferContext(Adapter, First) == STATUS_SUCCESS);
    CHECK(OF3(Adapter)->InitializeDmaTransferContext(Adapter, Second) == STATUS_SUCCESS);
    CHECK(AskEx(Adapter, First, 2, 0, ExControl, &Base) == STATUS_INVALID_PARAMETER);
    CHECK(AskEx(Adapter, First, 2, DMA_SYNCHRONOUS_CALLBACK, NULL, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(AskEx(Adapter, First, 4, DMA_SYNCHRONOUS_CALLBACK, NULL, &Base) == STATUS_SUCCESS && Base != NULL);
    CHECK(!OF3(Adapter)->CancelAdapterChannel(Adapter, Pdo, First)); /* it has what it asked for */

    /* The channel is in use: at once is not possible, later is, and that can be cancelled. */
    CHECK(AskEx(Adapter, Second, 1, DMA_SYNCHRONOUS_CALLBACK, ExControl, NULL) == STATUS_INSUFFICIENT_RESOURCES);
    ExCalled = 0;
    CHECK(OF3(Adapter)->InitializeDmaTransferContext(Adapter, Second) == STATUS_SUCCESS);
    CHECK(AskEx(Adapter, Second, 1, 0, ExControl, NULL) == STATUS_SUCCESS && ExCalled == 0);
    CHECK(OF3(Adapter)->CancelAdapterChannel(Adapter, Pdo, Second));
    CHECK(AskEx(Adapter, Second, 1, 0, ExControl, NULL) == STATUS_CANCELLED);
    CHECK(OF3(Adapter)->InitializeDmaTransferContext(Adapter, Second) == STATUS_SUCCESS);
    CHECK(AskEx(Adapter, Second, 1, 0, ExControl, NULL) == STATUS_SUCCESS && ExCalled == 0);
    OF3(Adapter)->FreeAdapterObject(Adapter, KeepObject);
    CHECK(ExCalled == 0);
    OF3(Adapter)->FreeAdapterObject(Adapter, DeallocateObjectKeepRegisters);
    CHECK(ExCalled == 1);

    /* The whole chain by its offset, with the map registers that were kept. */
    CHECK(OF3(Adapter)->MapTransferEx(Adapter, Mdl, Base, FROM, 0, &Length, TRUE, List, 16, NULL, NULL) ==
          STATUS_INVALID_PARAMETER);
    CHECK(OF3(Adapter)->MapTransferEx(Adapter, Mdl, Base, FROM, 0, &Length, TRUE, List, LIST_ROOM, NULL, NULL) ==
          STATUS_SUCCESS);
    CHECK(Length == Bytes - FROM && SumOf(List) == Length && List->NumberOfElements >= 2);
    CHECK(OF3(Adapter)->FlushAdapterBuffersEx(Adapter, Mdl, Base, FROM, Length, TRUE) == STATUS_SUCCESS);
    /* Only what lies in the second MDL. */
    Length = 50;
    CHECK(OF3(Adapter)->MapTransferEx(Adapter, Mdl, Base, PAGE_SIZE + 10, 0, &Length, TRUE, List, LIST_ROOM, NULL, NULL) ==
          STATUS_SUCCESS);
    CHECK(Length == 50 && List->NumberOfElements == 1 && List->Elements[0].Length == 50);
    CHECK(OF3(Adapter)->FlushAdapterBuffersEx(Adapter, Mdl, Base, PAGE_SIZE + 10, 50, TRUE) == STATUS_SUCCESS);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Adapter->DmaOperations->FreeMapRegisters(Adapter, Base, 4);
    KeLowerIrql(Irql);
    return 0;
}

static ULONG Extended(VOID)
{
    SETUP Setup = {3, 28, TRUE, 0x10000, 0};
    PUCHAR One = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, 'mdDi');
    PUCHAR Two = ExAllocatePoolWithTag(NonPagedPool, 100, 'mdDi');
    PMDL Mdl = IoAllocateMdl(One, PAGE_SIZE, FALSE, FALSE, NULL), Behind = IoAllocateMdl(Two, 100, FALSE, FALSE, NULL);
    static DECLSPEC_ALIGN(16) UCHAR Context[DMA_TRANSFER_CONTEXT_SIZE_V1];
    TRANSFER_INFO1 Info = {2, 0, 0, 0, 0};
    ADAPTER_INFO1 About = {9, 0, 0, 0, 0, 0};
    PHYSICAL_ADDRESS Highest, Logical;
    PSCATTER_GATHER_LIST List = NULL;
    PDMA_ADAPTER Adapter;
    PVOID Buffer;
    ULONG Most;
    KIRQL Irql;

    Adapter = Get(Pdo, &Setup, &Most);
    CHECK(Adapter != NULL && Adapter->DmaOperations->Size == 0x140 && Most == 17);
    CHECK(One != NULL && Two != NULL && Mdl != NULL && Behind != NULL);
    MmBuildMdlForNonPagedPool(Mdl);
    MmBuildMdlForNonPagedPool(Behind);
    Mdl->Next = Behind;

    CHECK(OF3(Adapter)->GetDmaAdapterInfo(Adapter, &About) == STATUS_NOT_SUPPORTED);
    About.Version = 1;
    CHECK(OF3(Adapter)->GetDmaAdapterInfo(Adapter, &About) == STATUS_SUCCESS && About.DmaAddressWidth == 28);
    CHECK(OF3(Adapter)->GetDmaTransferInfo(Adapter, Mdl, FROM, PAGE_SIZE + 100 - FROM, TRUE, &Info) == STATUS_SUCCESS);
    CHECK(Info.MapRegisterCount >= 2 && Info.LogicalPageCount >= 2);
    CHECK(Info.ScatterGatherListSize >= 16 + Info.ScatterGatherElementCount * sizeof(SCATTER_GATHER_ELEMENT));
    Highest.QuadPart = 0xFFFFFF;
    Buffer = OF3(Adapter)->AllocateCommonBufferEx(Adapter, &Highest, 3000, &Logical, FALSE, 0);
    CHECK(Buffer != NULL && Logical.QuadPart + 3000 <= 0x1000000);
    Adapter->DmaOperations->FreeCommonBuffer(Adapter, 3000, Logical, Buffer, FALSE);
    CHECK_ALL(Channel3(Adapter, Mdl, PAGE_SIZE + 100));

    /* A list at once, without a routine: the channel is the caller's until it is freed, the list until it is put. */
    CHECK(OF3(Adapter)->InitializeDmaTransferContext(Adapter, Context) == STATUS_SUCCESS);
    CHECK(OF3(Adapter)->GetScatterGatherListEx(Adapter, Pdo, Context, Mdl, FROM, PAGE_SIZE, 0, NULL, NULL, TRUE, NULL,
                                               NULL, &List) == STATUS_INVALID_PARAMETER);
    CHECK(OF3(Adapter)->GetScatterGatherListEx(Adapter, Pdo, Context, Mdl, FROM, PAGE_SIZE, DMA_SYNCHRONOUS_CALLBACK, NULL,
                                               NULL, TRUE, NULL, NULL, &List) == STATUS_INVALID_PARAMETER);
    CHECK(OF3(Adapter)->GetScatterGatherListEx(Adapter, Pdo, Context, Mdl, FROM, PAGE_SIZE - FROM + 1,
                                               DMA_SYNCHRONOUS_CALLBACK, NULL, NULL, TRUE, NULL, NULL,
                                               &List) == STATUS_SUCCESS);
    CHECK(List != NULL && SumOf(List) == PAGE_SIZE - FROM + 1);
    OF3(Adapter)->FreeAdapterObject(Adapter, DeallocateObject);
    Got = List;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Adapter->DmaOperations->PutScatterGatherList(Adapter, List, TRUE);
    KeLowerIrql(Irql);
    Adapter->DmaOperations->PutDmaAdapter(Adapter);
    IoFreeMdl(Behind);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Two, 'mdDi');
    ExFreePoolWithTag(One, 'mdDi');
    return 0;
}

/* Common buffers within bounds, and several by their index. */
static ULONG Bounds(VOID)
{
    SETUP Setup = {3, 32, TRUE, 0x10000, 0};
    PHYSICAL_ADDRESS Lowest, Highest, Logical, Other;
    PDMA_ADAPTER Adapter;
    PVOID Vector = NULL;
    PULONG Buffer, Last;
    ULONG Most, Index;

    Adapter = Get(Pdo, &Setup, &Most);
    CHECK(Adapter != NULL);
    Lowest.QuadPart = 0x10000000;
    Highest.QuadPart = 0x1FFFFFFF;
    Buffer = OF3(Adapter)->AllocateCommonBufferWithBounds(Adapter, &Lowest, &Highest, 5000, 0, NULL, 0, &Logical);
    CHECK(Buffer != NULL && Logical.QuadPart >= Lowest.QuadPart && Logical.QuadPart + 4999 <= Highest.QuadPart);
    Buffer[0] = Buffer[1249] = 1;
    Adapter->DmaOperations->FreeCommonBuffer(Adapter, 5000, Logical, Buffer, FALSE);
    CHECK(OF3(Adapter)->AllocateCommonBufferVector(Adapter, Lowest, Highest, MmCached, 0, 0, 0, 100, &Vector) ==
          STATUS_INVALID_PARAMETER);
    CHECK(OF3(Adapter)->AllocateCommonBufferVector(Adapter, Lowest, Highest, MmCached, 0, 0, 4, 100, &Vector) ==
          STATUS_SUCCESS);
    Other.QuadPart = 0;
    Last = NULL;
    for (Index = 0; Index < 4; Index++) {
        OF3(Adapter)->GetCommonBufferFromVectorByIndex(Adapter, Vector, Index, (PVOID *)&Buffer, &Logical);
        CHECK(Buffer != NULL && Buffer != Last && Logical.QuadPart != Other.QuadPart);
        CHECK(Logical.QuadPart >= Lowest.QuadPart && Logical.QuadPart <= Highest.QuadPart);
        Buffer[24] = Index;
        Last = Buffer;
        Other = Logical;
    }
    CHECK(Last[24] == 3);
    OF3(Adapter)->FreeCommonBufferFromVector(Adapter, Vector, 2);
    OF3(Adapter)->FreeCommonBufferVector(Adapter, Vector);
    Adapter->DmaOperations->PutDmaAdapter(Adapter);
    return 0;
}

/* Domains: adapters have their own, join another's and leave it, and memory for all of one is common. */
static ULONG Domains(VOID)
{
    SETUP Setup = {3, 32, TRUE, 0x10000, 0};
    ULONG Most;
    PDMA_ADAPTER One = Get(Pdo, &Setup, &Most), Two = Get(Pdo, &Setup, &Most);
    PHYSICAL_ADDRESS Highest, Logical;
    PULONG Buffer = NULL;
    HANDLE First, Second;
    PMDL Mdl;

    CHECK(One != NULL && Two != NULL);
    First = OF3(One)->GetDmaDomain(One);
    Second = OF3(Two)->GetDmaDomain(Two);
    CHECK(First != NULL && Second != NULL && First != Second);
    CHECK(OF3(Two)->LeaveDmaDomain(Two) == STATUS_UNSUCCESSFUL);
    CHECK(OF3(Two)->JoinDmaDomain(Two, &Most) == STATUS_INVALID_PARAMETER);
    CHECK(OF3(Two)->JoinDmaDomain(Two, First) == STATUS_SUCCESS && OF3(Two)->GetDmaDomain(Two) == First);
    Highest.QuadPart = 0xFFFFFFF;
    CHECK(OF3(Two)->AllocateDomainCommonBuffer(Two, &Most, &Highest, 5000, 0, NULL, 0, &Logical, (PVOID *)&Buffer) ==
          STATUS_INVALID_PARAMETER);
    CHECK(OF3(Two)->AllocateDomainCommonBuffer(Two, First, &Highest, 5000, 0, NULL, 0, &Logical, (PVOID *)&Buffer) ==
          STATUS_SUCCESS);
    CHECK(Buffer != NULL && Logical.QuadPart + 5000 <= 0x10000000);
    Buffer[0] = Buffer[1249] = 7;
    Mdl = IoAllocateMdl(Buffer, 5000, FALSE, FALSE, NULL);
    CHECK(Mdl != NULL);
    MmBuildMdlForNonPagedPool(Mdl);
    CHECK(OF3(Two)->FlushDmaBuffer(Two, Mdl, TRUE) == STATUS_SUCCESS && Buffer[1249] == 7);
    IoFreeMdl(Mdl);
    Two->DmaOperations->FreeCommonBuffer(Two, 5000, Logical, Buffer, TRUE);
    CHECK(OF3(Two)->LeaveDmaDomain(Two) == STATUS_SUCCESS && OF3(Two)->GetDmaDomain(Two) == Second);
    /* What is for system DMA alone. */
    CHECK(OF3(Two)->CancelMappedTransfer(Two, &Most) == STATUS_NOT_SUPPORTED);
    CHECK(OF3(Two)->ConfigureAdapterChannel(Two, 0, NULL) == STATUS_NOT_IMPLEMENTED);
    One->DmaOperations->PutDmaAdapter(One);
    Two->DmaOperations->PutDmaAdapter(Two);
    return 0;
}

/* The card moves so many bytes between its own memory and an address, and is waited for: no interrupt comes. */
static BOOLEAN CardMoves(ULONG64 Memory, ULONG Bytes, BOOLEAN ToMemory)
{
    volatile ULONG64 *Registers = (volatile ULONG64 *)Card->Registers;
    ULONG Turns;

    Registers[EDU_DMA_SOURCE / 8] = ToMemory ? EDU_BUFFER : Memory;
    Registers[EDU_DMA_DESTINATION / 8] = ToMemory ? Memory : EDU_BUFFER;
    Registers[EDU_DMA_COUNT / 8] = Bytes;
    Registers[EDU_DMA_COMMAND / 8] = EDU_DMA_START | (ToMemory ? EDU_DMA_TO_MEMORY : 0);
    for (Turns = 0; Turns < 1000; Turns++) {
        if (!(Registers[EDU_DMA_COMMAND / 8] & EDU_DMA_START)) {
            return TRUE;
        }
        KeStallExecutionProcessor(10);
    }
    return FALSE;
}

/* Memory that the driver has already becomes a common buffer: its pages lie apart, and the card sees them side by side. */
static ULONG FromMdl(VOID)
{
    SETUP Setup = {3, 32, TRUE, 0x10000, 0};
    BUFFER_CONFIGURATION Limits = {LIMITS_OF_BUFFER, {{{{0}}, {{0}}}}}, Part = {SUBSECTION_OF_BUFFER, {{{{0}}, {{0}}}}}, Two[2];
    PUCHAR Buffer = ExAllocatePoolWithTag(NonPagedPool, 3 * PAGE_SIZE, 'mdDi');
    PMDL Mdl = IoAllocateMdl(Buffer, 3 * PAGE_SIZE, FALSE, FALSE, NULL), Short = IoAllocateMdl(Buffer, 100, FALSE, FALSE, NULL);
    PHYSICAL_ADDRESS Logical, Other;
    PDMA_ADAPTER Adapter;
    ULONG Most, Index;

    Adapter = Get(Pdo, &Setup, &Most);
    CHECK(Adapter != NULL && Buffer != NULL && Mdl != NULL && Short != NULL);
    CHECK(OF3(Adapter)->CreateCommonBufferFromMdl(Adapter, Mdl, NULL, 0, &Logical) == STATUS_INVALID_PARAMETER);
    MmBuildMdlForNonPagedPool(Mdl);
    MmBuildMdlForNonPagedPool(Short);
    CHECK(OF3(Adapter)->CreateCommonBufferFromMdl(Adapter, Short, NULL, 0, &Logical) == STATUS_INVALID_PARAMETER);
    Two[0] = Two[1] = Limits;
    CHECK(OF3(Adapter)->CreateCommonBufferFromMdl(Adapter, Mdl, Two, 2, &Logical) == STATUS_INVALID_PARAMETER);
    Two[0].ConfigType = 17;
    CHECK(OF3(Adapter)->CreateCommonBufferFromMdl(Adapter, Mdl, Two, 1, &Logical) == STATUS_INVALID_PARAMETER);

    for (Index = 0; Index < 3 * PAGE_SIZE; Index++) {
        Buffer[Index] = (UCHAR)(Index / 16 * 5 + Index);
    }
    Limits.LogicalAddressLimits.MinimumAddress.QuadPart = 0x1000000;
    Limits.LogicalAddressLimits.MaximumAddress.QuadPart = 0xFFFFFFF;
    CHECK(OF3(Adapter)->CreateCommonBufferFromMdl(Adapter, Mdl, &Limits, 1, &Logical) == STATUS_SUCCESS);
    CHECK(Logical.QuadPart >= 0x1000000 && Logical.QuadPart + 3 * PAGE_SIZE <= 0x10000000);
    /* From the middle of the first page over the second one into the third, and back elsewhere, all in one piece. */
    CHECK(CardMoves(Logical.QuadPart + PAGE_SIZE - 100, PAGE_SIZE, FALSE));
    RtlZeroMemory(Buffer + PAGE_SIZE - 100, PAGE_SIZE);
    CHECK(CardMoves(Logical.QuadPart + PAGE_SIZE - 100, PAGE_SIZE, TRUE));
    for (Index = 0; Index < 3 * PAGE_SIZE; Index++) {
        if (Buffer[Index] != (UCHAR)(Index / 16 * 5 + Index)) {
            CHECK(Index == 3 * PAGE_SIZE);
        }
    }
    /* A part of it besides, for reading alone. */
    Part.SubSection.Offset = PAGE_SIZE;
    Part.SubSection.Length = PAGE_SIZE;
    Two[0] = Part;
    RtlZeroMemory(&Two[1], sizeof(Two[1]));
    Two[1].ConfigType = ACCESS_TO_BUFFER;
    CHECK(OF3(Adapter)->CreateCommonBufferFromMdl(Adapter, Mdl, Two, 2, &Other) == STATUS_SUCCESS);
    CHECK(Other.QuadPart != Logical.QuadPart && CardMoves(Other.QuadPart, PAGE_SIZE, FALSE));
    RtlZeroMemory(Buffer, PAGE_SIZE);
    CHECK(CardMoves(Logical.QuadPart, PAGE_SIZE, TRUE));
    CHECK(RtlCompareMemory(Buffer, Buffer + PAGE_SIZE, PAGE_SIZE) == PAGE_SIZE);
    Adapter->DmaOperations->FreeCommonBuffer(Adapter, PAGE_SIZE, Other, Buffer + PAGE_SIZE, TRUE);
    Adapter->DmaOperations->FreeCommonBuffer(Adapter, 3 * PAGE_SIZE, Logical, Buffer, TRUE);
    CHECK(Buffer[PAGE_SIZE] == (UCHAR)(PAGE_SIZE / 16 * 5 + PAGE_SIZE)); /* the memory is the driver's still */
    Adapter->DmaOperations->PutDmaAdapter(Adapter);
    IoFreeMdl(Short);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Buffer, 'mdDi');
    return 0;
}

#endif
