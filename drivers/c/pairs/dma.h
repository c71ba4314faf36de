/* Pairs of DMA adapters, channels, map registers, common buffers and scatter/gather lists. No card takes part: the adapter is of no device. */
#ifndef PAIRS_DMA_H
#define PAIRS_DMA_H

#include "pairs.h"

#define DMA_BUFFER (2 * PAGE_SIZE)
#define DMA_SEVERAL (2 * DMA_BUFFER - 8) /* of two buffers: a number that is no address */

static PVOID DmaBase;
static PSCATTER_GATHER_LIST DmaList;

static PDMA_ADAPTER NewAdapter(ULONG Version)
{
    union {
        DEVICE_DESCRIPTION Old;
        UCHAR Bytes[0x40]; /* of version 3 */
    } Description;
    ULONG MapRegisters;

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Old.Version = Version;
    Description.Old.Master = Description.Old.ScatterGather = Description.Old.Dma64BitAddresses = TRUE;
    Description.Old.InterfaceType = PCIBus;
    Description.Old.MaximumLength = 16 * PAGE_SIZE;
    return IoGetDmaAdapter(NULL, &Description.Old, &MapRegisters);
}

static IO_ALLOCATION_ACTION NTAPI DmaControl(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    DmaBase = MapRegisterBase;
    return *(IO_ALLOCATION_ACTION *)Context;
}

static VOID NTAPI DmaListControl(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    DmaList = List;
}

static VOID Ask(PDMA_ADAPTER Adapter, ULONG Count, ULONG Action)
{
    static IO_ALLOCATION_ACTION Wanted;
    KIRQL Old;

    Wanted = (IO_ALLOCATION_ACTION)Action;
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Adapter->DmaOperations->AllocateAdapterChannel(Adapter, TheDevice, Count, DmaControl, &Wanted);
    KeLowerIrql(Old);
}

static VOID FreeRegisters(PDMA_ADAPTER Adapter, ULONG Count)
{
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Adapter->DmaOperations->FreeMapRegisters(Adapter, DmaBase, Count);
    KeLowerIrql(Old);
}

static VOID FreeChannel(PDMA_ADAPTER Adapter)
{
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Adapter->DmaOperations->FreeAdapterChannel(Adapter);
    KeLowerIrql(Old);
}

/* A buffer of nonpaged pool with its MDL. */
static PMDL NewBuffer(BOOLEAN Built)
{
    PMDL Mdl = IoAllocateMdl(Nonpaged(DMA_BUFFER), DMA_BUFFER, FALSE, FALSE, NULL);

    if (Built) {
        MmBuildMdlForNonPagedPool(Mdl);
    }
    return Mdl;
}

static VOID FreeBuffer(PMDL Mdl)
{
    PVOID Buffer = MmGetMdlVirtualAddress(Mdl);

    IoFreeMdl(Mdl);
    Free(Buffer);
}

/* Maps a part of the buffer, and flushes it if that is asked for. */
static VOID MapPart(PDMA_ADAPTER Adapter, PMDL Mdl, ULONG Offset, ULONG Length, BOOLEAN Flush)
{
    PUCHAR Va = (PUCHAR)MmGetMdlVirtualAddress(Mdl) + Offset;

    Adapter->DmaOperations->MapTransfer(Adapter, Mdl, DmaBase, Va, &Length, TRUE);
    if (Flush) {
        Adapter->DmaOperations->FlushAdapterBuffers(Adapter, Mdl, DmaBase, Va, Length, TRUE);
    }
}

static VOID GetList(PDMA_ADAPTER Adapter, PMDL Mdl)
{
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Adapter->DmaOperations->GetScatterGatherList(Adapter, TheDevice, Mdl, MmGetMdlVirtualAddress(Mdl), DMA_BUFFER,
                                                 DmaListControl, NULL, TRUE);
    KeLowerIrql(Old);
}

static VOID PutListOf(PDMA_ADAPTER Adapter, BOOLEAN WriteToDevice)
{
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Adapter->DmaOperations->PutScatterGatherList(Adapter, DmaList, WriteToDevice);
    KeLowerIrql(Old);
}

static VOID PutList(PDMA_ADAPTER Adapter)
{
    PutListOf(Adapter, TRUE);
}

static VOID PutAdapter(PDMA_ADAPTER Adapter)
{
    Adapter->DmaOperations->PutDmaAdapter(Adapter);
}

static VOID AdapterControlResult(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    Ask(Adapter, 1, Wrong ? 7 : DeallocateObject);
    PutAdapter(Adapter);
}

static VOID BadCommonBufferFree(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PHYSICAL_ADDRESS Logical;
    PVOID Buffer = Adapter->DmaOperations->AllocateCommonBuffer(Adapter, 100, &Logical, FALSE);

    Adapter->DmaOperations->FreeCommonBuffer(Adapter, 100, Logical, Buffer, FALSE);
    if (!Wrong) {
        Buffer = Adapter->DmaOperations->AllocateCommonBuffer(Adapter, 100, &Logical, FALSE);
    }
    Adapter->DmaOperations->FreeCommonBuffer(Adapter, 100, Logical, Buffer, FALSE);
    PutAdapter(Adapter);
}

static VOID CommonBufferLeak(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PHYSICAL_ADDRESS Logical;
    PVOID Buffer = Adapter->DmaOperations->AllocateCommonBuffer(Adapter, 100, &Logical, FALSE);

    if (!Wrong) {
        Adapter->DmaOperations->FreeCommonBuffer(Adapter, 100, Logical, Buffer, FALSE);
    }
    PutAdapter(Adapter);
}

static VOID DmaAdapterLeak(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    if (!Wrong) {
        PutAdapter(Adapter);
    }
}

static VOID DmaAdapterReleased(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    if (Wrong) {
        PutAdapter(Adapter);
    }
    Sink = Adapter->DmaOperations->GetDmaAlignment(Adapter);
    if (!Wrong) {
        PutAdapter(Adapter);
    }
}

static VOID DmaChannelAskedTwice(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    Ask(Adapter, 1, KeepObject);
    Ask(Adapter, 1, KeepObject);
    if (Wrong) {
        Ask(Adapter, 1, KeepObject);
    }
    FreeChannel(Adapter);
    FreeChannel(Adapter);
    PutAdapter(Adapter);
}

static VOID DmaChannelLeak(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    Ask(Adapter, 1, KeepObject);
    if (!Wrong) {
        FreeChannel(Adapter);
    }
    PutAdapter(Adapter);
}

static VOID DmaChannelNotAllocated(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    Ask(Adapter, 1, KeepObject);
    FreeChannel(Adapter);
    if (Wrong) {
        FreeChannel(Adapter);
    }
    PutAdapter(Adapter);
}

static VOID DmaDescriptionVersion(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(Wrong ? 9 : 1);

    if (Adapter != NULL) {
        PutAdapter(Adapter);
    }
}

static VOID DmaFlushNotMapped(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL Mdl = NewBuffer(TRUE);

    Ask(Adapter, 2, DeallocateObjectKeepRegisters);
    MapPart(Adapter, Mdl, 0, 16, TRUE);
    if (Wrong) {
        Adapter->DmaOperations->FlushAdapterBuffers(Adapter, Mdl, DmaBase, MmGetMdlVirtualAddress(Mdl), 16, TRUE);
    }
    FreeRegisters(Adapter, 2);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID DmaMapRegistersCount(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    Ask(Adapter, 3, DeallocateObjectKeepRegisters);
    FreeRegisters(Adapter, Wrong ? 2 : 3);
    PutAdapter(Adapter);
}

static VOID DmaMapRegistersLeak(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    Ask(Adapter, 3, DeallocateObjectKeepRegisters);
    if (!Wrong) {
        FreeRegisters(Adapter, 3);
    }
    PutAdapter(Adapter);
}

static VOID DmaMapRegistersNotAllocated(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    Ask(Adapter, 3, DeallocateObjectKeepRegisters);
    FreeRegisters(Adapter, 3);
    if (Wrong) {
        FreeRegisters(Adapter, 3);
    }
    PutAdapter(Adapter);
}

static VOID DmaMdlNotLocked(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL Mdl = NewBuffer(!Wrong);

    Ask(Adapter, 2, DeallocateObjectKeepRegisters);
    MapPart(Adapter, Mdl, 0, 16, TRUE);
    FreeRegisters(Adapter, 2);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID DmaNotFlushed(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL Mdl = NewBuffer(TRUE);

    Ask(Adapter, 2, DeallocateObjectKeepRegisters);
    MapPart(Adapter, Mdl, 0, 16, !Wrong);
    FreeRegisters(Adapter, 2);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID DmaOutsideMdl(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL Mdl = NewBuffer(TRUE);

    Ask(Adapter, 2, DeallocateObjectKeepRegisters);
    MapPart(Adapter, Mdl, Wrong ? DMA_BUFFER : DMA_BUFFER - 16, 16, TRUE);
    FreeRegisters(Adapter, 2);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID DmaTooFewMapRegisters(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL Mdl = NewBuffer(TRUE);
    PVOID Va = MmGetMdlVirtualAddress(Mdl);

    Ask(Adapter, Wrong ? 1 : 2, DeallocateObjectKeepRegisters);
    MapPart(Adapter, Mdl, 0, 16, FALSE);
    MapPart(Adapter, Mdl, PAGE_SIZE, 16, FALSE);
    Adapter->DmaOperations->FlushAdapterBuffers(Adapter, Mdl, DmaBase, Va, DMA_BUFFER, TRUE);
    FreeRegisters(Adapter, Wrong ? 1 : 2);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID DmaWrongIrql(BOOLEAN Wrong)
{
    static IO_ALLOCATION_ACTION Wanted = DeallocateObject;
    PDMA_ADAPTER Adapter = NewAdapter(2);
    KIRQL Old = PASSIVE_LEVEL;

    if (!Wrong) {
        KeRaiseIrql(DISPATCH_LEVEL, &Old);
    }
    Adapter->DmaOperations->AllocateAdapterChannel(Adapter, TheDevice, 1, DmaControl, &Wanted);
    KeLowerIrql(Old);
    PutAdapter(Adapter);
}

static VOID DmaZeroLength(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL Mdl = NewBuffer(TRUE);

    Ask(Adapter, 2, DeallocateObjectKeepRegisters);
    MapPart(Adapter, Mdl, 0, Wrong ? 0 : 16, !Wrong);
    FreeRegisters(Adapter, 2);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

/* The routines of version 3 that mingw's DMA_OPERATIONS lacks. */
typedef NTSTATUS (NTAPI *ALLOCATE_VECTOR)(PDMA_ADAPTER, PHYSICAL_ADDRESS, PHYSICAL_ADDRESS, ULONG, ULONG, ULONG, ULONG,
                                          ULONGLONG, PVOID *);
typedef VOID (NTAPI *FREE_FROM_VECTOR)(PDMA_ADAPTER, PVOID, ULONG);
typedef VOID (NTAPI *FREE_VECTOR)(PDMA_ADAPTER, PVOID);

static VOID NotACommonBufferVector(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(3);
    PVOID *Operations = (PVOID *)Adapter->DmaOperations, Vector;
    PHYSICAL_ADDRESS Lowest, Highest;

    Lowest.QuadPart = 0;
    Highest.QuadPart = -1;
    ((ALLOCATE_VECTOR)Operations[0x118 / 8])(Adapter, Lowest, Highest, MmCached, 0, 0, 2, 100, &Vector);
    ((FREE_FROM_VECTOR)Operations[0x128 / 8])(Adapter, Vector, 0);
    ((FREE_FROM_VECTOR)Operations[0x128 / 8])(Adapter, Vector, Wrong ? 0 : 1);
    ((FREE_VECTOR)Operations[0x130 / 8])(Adapter, Vector);
    PutAdapter(Adapter);
}

static VOID NotADmaAdapter(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    Sink = Adapter->DmaOperations->GetDmaAlignment(Wrong ? (PDMA_ADAPTER)TheDevice : Adapter);
    PutAdapter(Adapter);
}

static VOID DmaWrongDirection(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL Mdl = NewBuffer(TRUE);

    GetList(Adapter, Mdl);
    PutListOf(Adapter, !Wrong);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID NotAScatterGatherList(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL Mdl = NewBuffer(TRUE);

    GetList(Adapter, Mdl);
    PutList(Adapter);
    if (Wrong) {
        PutList(Adapter);
    }
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID ScatterGatherListLeak(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL Mdl = NewBuffer(TRUE);

    GetList(Adapter, Mdl);
    if (!Wrong) {
        PutList(Adapter);
    }
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID DmaUnlockedWhileMapped(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PVOID Buffer = ExAllocatePoolWithTag(PagedPool, DMA_BUFFER, TAG);
    PMDL Mdl = IoAllocateMdl(Buffer, DMA_BUFFER, FALSE, FALSE, NULL);

    MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    GetList(Adapter, Mdl);
    if (Wrong) {
        MmUnlockPages(Mdl);
    }
    PutList(Adapter);
    if (!Wrong) {
        MmUnlockPages(Mdl);
    }
    IoFreeMdl(Mdl);
    Free(Buffer);
    PutAdapter(Adapter);
}

/* A device is given the first piece of a list by two registers: those of the screen. */
static VOID DmaLengthOfWhole(BOOLEAN Wrong)
{
    static const PHYSICAL_ADDRESS Registers = {.QuadPart = 0xB8000};
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL First = NewBuffer(TRUE), Between = NewBuffer(TRUE), Second = NewBuffer(TRUE);
    PULONG Window = MmMapIoSpace(Registers, PAGE_SIZE, MmNonCached);
    KIRQL Old;

    First->Next = Second;
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Adapter->DmaOperations->GetScatterGatherList(Adapter, TheDevice, First, MmGetMdlVirtualAddress(First),
                                                 DMA_SEVERAL, DmaListControl, NULL, TRUE);
    KeLowerIrql(Old);
    *(volatile ULONG64 *)Window = (ULONG64)DmaList->Elements[0].Address.QuadPart;
    WRITE_REGISTER_ULONG(&Window[2], Wrong ? DMA_SEVERAL : DmaList->Elements[0].Length);
    PutList(Adapter);
    MmUnmapIoSpace(Window, PAGE_SIZE);
    First->Next = NULL;
    FreeBuffer(First);
    FreeBuffer(Between);
    FreeBuffer(Second);
    PutAdapter(Adapter);
}

#define DMA_PAIRS                                                                                                      \
    PAIR("adapter-control-result", AdapterControlResult)                                                               \
    PAIR("bad-common-buffer-free", BadCommonBufferFree)                                                                \
    PAIR("common-buffer-leak", CommonBufferLeak)                                                                       \
    PAIR("dma-adapter-leak", DmaAdapterLeak)                                                                           \
    PAIR("dma-adapter-released", DmaAdapterReleased)                                                                   \
    PAIR("dma-channel-asked-twice", DmaChannelAskedTwice)                                                              \
    PAIR("dma-channel-leak", DmaChannelLeak)                                                                           \
    PAIR("dma-channel-not-allocated", DmaChannelNotAllocated)                                                          \
    PAIR("dma-description-version", DmaDescriptionVersion)                                                             \
    PAIR("dma-flush-not-mapped", DmaFlushNotMapped)                                                                    \
    PAIR("dma-length-of-whole", DmaLengthOfWhole)                                                                      \
    PAIR("dma-map-registers-count", DmaMapRegistersCount)                                                              \
    PAIR("dma-map-registers-leak", DmaMapRegistersLeak)                                                                \
    PAIR("dma-map-registers-not-allocated", DmaMapRegistersNotAllocated)                                               \
    PAIR("dma-mdl-not-locked", DmaMdlNotLocked)                                                                        \
    PAIR("dma-not-flushed", DmaNotFlushed)                                                                             \
    PAIR("dma-outside-mdl", DmaOutsideMdl)                                                                             \
    PAIR("dma-too-few-map-registers", DmaTooFewMapRegisters)                                                           \
    PAIR("dma-unlocked-while-mapped", DmaUnlockedWhileMapped)                                                          \
    PAIR("dma-wrong-direction", DmaWrongDirection)                                                                     \
    PAIR("dma-wrong-irql", DmaWrongIrql)                                                                               \
    PAIR("dma-zero-length", DmaZeroLength)                                                                             \
    PAIR("not-a-common-buffer-vector", NotACommonBufferVector)                                                         \
    PAIR("not-a-dma-adapter", NotADmaAdapter)                                                                          \
    PAIR("not-a-scatter-gather-list", NotAScatterGatherList)                                                           \
    PAIR("scatter-gather-list-leak", ScatterGatherListLeak)

#endif
