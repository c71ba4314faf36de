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

/* A routine of version 3 that is not there. */
static ULONG Absent(VOID)
{
    SETUP Setup = {3, 28, TRUE, 0x10000, 0};
    ULONG Most;
    PDMA_ADAPTER Adapter = Get(Pdo, &Setup, &Most);

    CHECK(Adapter != NULL);
    OF3(Adapter)->CancelMappedTransfer(Adapter, NULL);
    return 0;
}

#endif
