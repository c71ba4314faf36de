/* Stories of scatter/gather lists: what they say, what is copied, and what describes the copies. */
#ifndef DMA_LISTS_H
#define DMA_LISTS_H

#include "dma.h"

#define BUFFER (3 * PAGE_SIZE)
#define FROM 0x123
#define BYTES (2 * PAGE_SIZE + 5)

static PSCATTER_GATHER_LIST Got;

static VOID NTAPI Takes(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    UNREFERENCED_PARAMETER(Irp);
    if (Context == (PVOID)0x77 && Device == Pdo && KeGetCurrentIrql() == DISPATCH_LEVEL) {
        Got = List;
    }
}

static NTSTATUS GetList(PDMA_ADAPTER Adapter, PMDL Mdl, ULONG Length, BOOLEAN ToDevice)
{
    NTSTATUS Status;
    KIRQL Irql;

    Got = NULL;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Status = Adapter->DmaOperations->GetScatterGatherList(Adapter, Pdo, Mdl,
                                                          (PUCHAR)MmGetMdlVirtualAddress(Mdl) + FROM, Length, Takes,
                                                          (PVOID)0x77, ToDevice);
    KeLowerIrql(Irql);
    return Status;
}

static VOID PutList(PDMA_ADAPTER Adapter, BOOLEAN ToDevice)
{
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Adapter->DmaOperations->PutScatterGatherList(Adapter, Got, ToDevice);
    KeLowerIrql(Irql);
}

static ULONG SumOf(PSCATTER_GATHER_LIST List)
{
    ULONG Index, Sum = 0;

    for (Index = 0; Index < List->NumberOfElements; Index++) {
        Sum += List->Elements[Index].Length;
    }
    return Sum;
}

/* What lies in the memory that the list names; a mapping of Target shows it. */
static PUCHAR Shown(PDMA_ADAPTER Adapter, PMDL Mdl, PMDL *Target)
{
    NTSTATUS Status = Adapter->DmaOperations->BuildMdlFromScatterGatherList(Adapter, Got, Mdl, Target);

    if (!NT_SUCCESS(Status) || *Target == Mdl) {
        return NULL;
    }
    return MmMapLockedPagesSpecifyCache(*Target, KernelMode, MmCached, NULL, FALSE, NormalPagePriority);
}

static ULONG Lists(VOID)
{
    PUCHAR Buffer = ExAllocatePoolWithTag(NonPagedPool, BUFFER, 'mdDi'), Copy;
    PMDL Mdl = IoAllocateMdl(Buffer, BUFFER, FALSE, FALSE, NULL), Target = NULL;
    ULONG Most, Size, Count, Index;
    PDMA_ADAPTER Wide = Adapter(64, TRUE, 0x10000, &Most), Narrow = Adapter(24, TRUE, 0x10000, &Most),
                 Single = Adapter(64, FALSE, 2 * PAGE_SIZE, &Count);

    CHECK(Buffer != NULL && Mdl != NULL && Wide != NULL && Narrow != NULL && Single != NULL && Count == 3);
    MmBuildMdlForNonPagedPool(Mdl);
    for (Index = 0; Index < BUFFER; Index++) {
        Buffer[Index] = (UCHAR)(Index * 7);
    }

    /* How large it is. */
    CHECK(Wide->DmaOperations->CalculateScatterGatherList(Wide, Mdl, Buffer + FROM, BYTES, &Size, &Count) == STATUS_SUCCESS);
    CHECK(Count == 3 && Size >= FIELD_OFFSET(SCATTER_GATHER_LIST, Elements) + 3 * sizeof(SCATTER_GATHER_ELEMENT));
    CHECK(Wide->DmaOperations->CalculateScatterGatherList(Wide, NULL, Buffer + FROM, PAGE_SIZE, &Size, &Count) ==
          STATUS_SUCCESS);
    CHECK(Count == 2);
    CHECK(Wide->DmaOperations->CalculateScatterGatherList(Wide, Mdl, Buffer + FROM, BUFFER, &Size, NULL) ==
          STATUS_BUFFER_TOO_SMALL);
    CHECK(Wide->DmaOperations->CalculateScatterGatherList(Wide, NULL, Buffer, 64 * PAGE_SIZE, &Size, NULL) ==
          STATUS_INSUFFICIENT_RESOURCES);
    CHECK(GetList(Wide, Mdl, BUFFER, TRUE) == STATUS_BUFFER_TOO_SMALL && Got == NULL);
    CHECK(GetList(Single, Mdl, 2 * PAGE_SIZE + 0xE00, TRUE) == STATUS_SUCCESS && Got != NULL);
    CHECK(Got->NumberOfElements == 1); /* the device takes one run only */
    PutList(Single, TRUE);

    /* Page by page, each where it is. */
    CHECK(GetList(Wide, Mdl, BYTES, TRUE) == STATUS_SUCCESS && Got != NULL);
    CHECK(Got->NumberOfElements >= 1 && Got->NumberOfElements <= 3 && SumOf(Got) == BYTES);
    CHECK((Got->Elements[0].Address.LowPart & (PAGE_SIZE - 1)) == FROM);
    CHECK(Wide->DmaOperations->BuildMdlFromScatterGatherList(Wide, Got, Mdl, &Target) == STATUS_SUCCESS);
    CHECK(Target == Mdl);
    CHECK(Wide->DmaOperations->BuildMdlFromScatterGatherList(Wide, Got, NULL, &Target) == STATUS_INVALID_PARAMETER);
    PutList(Wide, TRUE);

    /* Beyond 24 bits: a copy, which has what the buffer has. */
    CHECK(GetList(Narrow, Mdl, BYTES, TRUE) == STATUS_SUCCESS && Got != NULL && SumOf(Got) == BYTES);
    for (Index = 0; Index < Got->NumberOfElements; Index++) {
        CHECK(Got->Elements[Index].Address.QuadPart + Got->Elements[Index].Length <= 0x1000000);
    }
    Copy = Shown(Narrow, Mdl, &Target);
    CHECK(Copy != NULL && MmGetMdlByteCount(Target) == BYTES);
    CHECK(RtlCompareMemory(Copy, Buffer + FROM, BYTES) == BYTES);
    CHECK(Narrow->DmaOperations->BuildMdlFromScatterGatherList(Narrow, Got, Mdl, &Target) == STATUS_NONE_MAPPED);
    Copy[0] ^= 0xFF;
    PutList(Narrow, TRUE);
    CHECK(Buffer[FROM] == (UCHAR)(FROM * 7)); /* nothing comes back of what goes to the device */

    /* What comes from the device lies in the copy until the list is put. */
    CHECK(GetList(Narrow, Mdl, BYTES, FALSE) == STATUS_SUCCESS && Got != NULL);
    Copy = Shown(Narrow, Mdl, &Target);
    CHECK(Copy != NULL);
    for (Index = 0; Index < BYTES; Index++) {
        Copy[Index] = (UCHAR)(Index * 3 + 1);
    }
    CHECK(Buffer[FROM + 9] == (UCHAR)((FROM + 9) * 7));
    PutList(Narrow, FALSE);
    for (Index = 0; Index < BYTES; Index++) {
        CHECK(Buffer[FROM + Index] == (UCHAR)(Index * 3 + 1));
    }
    CHECK(Buffer[FROM - 1] == (UCHAR)((FROM - 1) * 7) && Buffer[FROM + BYTES] == (UCHAR)((FROM + BYTES) * 7));
    Wide->DmaOperations->PutDmaAdapter(Wide);
    Narrow->DmaOperations->PutDmaAdapter(Narrow);
    Single->DmaOperations->PutDmaAdapter(Single);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Buffer, 'mdDi');
    return 0;
}

/* Two MDLs are one buffer. */
static ULONG Chained(VOID)
{
    PUCHAR First = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, 'mdDi');
    PUCHAR Second = ExAllocatePoolWithTag(NonPagedPool, 100, 'mdDi');
    PMDL Mdl = IoAllocateMdl(First, PAGE_SIZE, FALSE, FALSE, NULL);
    PMDL Behind = IoAllocateMdl(Second, 100, FALSE, FALSE, NULL);
    ULONG Most, Size, Count, Index;
    PDMA_ADAPTER Adapter_ = Adapter(24, TRUE, 0x10000, &Most);

    CHECK(First != NULL && Second != NULL && Mdl != NULL && Behind != NULL && Adapter_ != NULL);
    MmBuildMdlForNonPagedPool(Mdl);
    MmBuildMdlForNonPagedPool(Behind);
    Mdl->Next = Behind;
    CHECK(Adapter_->DmaOperations->CalculateScatterGatherList(Adapter_, Mdl, First + FROM, PAGE_SIZE - FROM + 100, &Size,
                                                              &Count) == STATUS_SUCCESS);
    CHECK(Count >= 2);
    CHECK(GetList(Adapter_, Mdl, PAGE_SIZE - FROM + 101, TRUE) == STATUS_BUFFER_TOO_SMALL);
    CHECK(GetList(Adapter_, Mdl, PAGE_SIZE - FROM + 100, TRUE) == STATUS_SUCCESS && Got != NULL);
    CHECK(SumOf(Got) == PAGE_SIZE - FROM + 100);
    for (Index = 0; Index < Got->NumberOfElements; Index++) {
        CHECK(Got->Elements[Index].Address.QuadPart + Got->Elements[Index].Length <= 0x1000000);
    }
    PutList(Adapter_, TRUE);
    Adapter_->DmaOperations->PutDmaAdapter(Adapter_);
    IoFreeMdl(Behind);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Second, 'mdDi');
    ExFreePoolWithTag(First, 'mdDi');
    return 0;
}

#endif
