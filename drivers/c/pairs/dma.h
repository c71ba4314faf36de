/* Pairs of DMA adapters, channels, map registers, common buffers and scatter/gather lists. No card takes part: the adapter is of no device. */
#ifndef PAIRS_DMA_H
#define PAIRS_DMA_H

#include "pairs.h"

#define DMA_BUFFER (2 * PAGE_SIZE)
#define DMA_SEVERAL (2 * DMA_BUFFER - 8) /* of two buffers: a number that is no address */

static PVOID DmaBase;
static PSCATTER_GATHER_LIST DmaList;
static KEVENT DmaGiven; /* what was asked for */

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
    KeSetEvent(&DmaGiven, IO_NO_INCREMENT, FALSE);
    return *(IO_ALLOCATION_ACTION *)Context;
}

static VOID NTAPI DmaListControl(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    DmaList = List;
    KeSetEvent(&DmaGiven, IO_NO_INCREMENT, FALSE);
}

/* Whether it will be given, or is already: DmaGiven is set then. */
static BOOLEAN Ask(PDMA_ADAPTER Adapter, ULONG Count, ULONG Action, KIRQL Level)
{
    static IO_ALLOCATION_ACTION Wanted;
    NTSTATUS Status;
    KIRQL Old;

    Wanted = (IO_ALLOCATION_ACTION)Action;
    KeInitializeEvent(&DmaGiven, SynchronizationEvent, FALSE);
    KeRaiseIrql(Level, &Old);
    Status = Adapter->DmaOperations->AllocateAdapterChannel(Adapter, TheDevice, Count, DmaControl, &Wanted);
    KeLowerIrql(Old);
    return NT_SUCCESS(Status);
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

/* A buffer of nonpaged pool with its MDL, or neither. */
static PMDL NewBuffer(BOOLEAN Built)
{
    PVOID Buffer = Nonpaged(DMA_BUFFER);
    PMDL Mdl;

    if (Buffer == NULL) {
        return NULL;
    }
    Mdl = IoAllocateMdl(Buffer, DMA_BUFFER, FALSE, FALSE, NULL);
    if (Mdl == NULL) {
        Free(Buffer);
    } else if (Built) {
        MmBuildMdlForNonPagedPool(Mdl);
    }
    return Mdl;
}

static VOID FreeBuffer(PMDL Mdl)
{
    PVOID Buffer;

    if (Mdl != NULL) {
        Buffer = MmGetMdlVirtualAddress(Mdl);
        IoFreeMdl(Mdl);
        Free(Buffer);
    }
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

/* Whether there is a DmaList now. */
static BOOLEAN GetList(PDMA_ADAPTER Adapter, PMDL Mdl, ULONG Length)
{
    NTSTATUS Status;
    KIRQL Old;

    KeInitializeEvent(&DmaGiven, SynchronizationEvent, FALSE);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Status = Adapter->DmaOperations->GetScatterGatherList(Adapter, TheDevice, Mdl, MmGetMdlVirtualAddress(Mdl), Length,
                                                          DmaListControl, NULL, TRUE);
    KeLowerIrql(Old);
    if (!NT_SUCCESS(Status)) {
        return FALSE;
    }
    WaitFor(&DmaGiven);
    return TRUE;
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

/* An adapter whose channel and registers have been given, as the action says; or NULL. */
static PDMA_ADAPTER NewGiven(ULONG Count, ULONG Action)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    if (Adapter == NULL) {
        return NULL;
    }
    if (!Ask(Adapter, Count, Action, DISPATCH_LEVEL)) {
        PutAdapter(Adapter);
        return NULL;
    }
    WaitFor(&DmaGiven);
    return Adapter;
}

/* A buffer, an adapter and map registers of it, or nothing. */
static PMDL NewTransfer(PDMA_ADAPTER *Adapter, BOOLEAN Built, ULONG Registers)
{
    PMDL Mdl;

    *Adapter = NewGiven(Registers, DeallocateObjectKeepRegisters);
    if (*Adapter == NULL) {
        return NULL;
    }
    Mdl = NewBuffer(Built);
    if (Mdl == NULL) {
        FreeRegisters(*Adapter, Registers);
        PutAdapter(*Adapter);
    }
    return Mdl;
}

/* A buffer, an adapter and the list of the one for the other, or nothing. */
static PMDL NewListed(PDMA_ADAPTER *Adapter)
{
    PMDL Mdl;

    *Adapter = NewAdapter(2);
    if (*Adapter == NULL) {
        return NULL;
    }
    Mdl = NewBuffer(TRUE);
    if (Mdl != NULL && GetList(*Adapter, Mdl, DMA_BUFFER)) {
        return Mdl;
    }
    PutAdapter(*Adapter);
    FreeBuffer(Mdl);
    return NULL;
}

static VOID AdapterControlResult(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewGiven(1, Wrong ? 7 : DeallocateObject);

    if (Adapter != NULL) {
        PutAdapter(Adapter);
    }
}

static VOID BadCommonBufferFree(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PHYSICAL_ADDRESS Logical;
    PVOID Buffer;

    if (Adapter == NULL) {
        return;
    }
    Buffer = Adapter->DmaOperations->AllocateCommonBuffer(Adapter, 100, &Logical, FALSE);
    if (Buffer != NULL) {
        Adapter->DmaOperations->FreeCommonBuffer(Adapter, 100, Logical, Buffer, FALSE);
        if (!Wrong) {
            Buffer = Adapter->DmaOperations->AllocateCommonBuffer(Adapter, 100, &Logical, FALSE);
        }
    }
    if (Buffer != NULL) {
        Adapter->DmaOperations->FreeCommonBuffer(Adapter, 100, Logical, Buffer, FALSE);
    }
    PutAdapter(Adapter);
}

static VOID CommonBufferLeak(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PHYSICAL_ADDRESS Logical;
    PVOID Buffer;

    if (Adapter == NULL) {
        return;
    }
    Buffer = Adapter->DmaOperations->AllocateCommonBuffer(Adapter, 100, &Logical, FALSE);
    if (!Wrong && Buffer != NULL) {
        Adapter->DmaOperations->FreeCommonBuffer(Adapter, 100, Logical, Buffer, FALSE);
    }
    PutAdapter(Adapter);
}

static VOID DmaAdapterLeak(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    if (!Wrong && Adapter != NULL) {
        PutAdapter(Adapter);
    }
}

static VOID DmaAdapterReleased(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    if (Adapter == NULL) {
        return;
    }
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
    PDMA_ADAPTER Adapter = NewGiven(1, KeepObject);
    BOOLEAN IsAsked;

    if (Adapter == NULL) {
        return;
    }
    IsAsked = Ask(Adapter, 1, KeepObject, DISPATCH_LEVEL);
    if (Wrong) {
        Ask(Adapter, 1, KeepObject, DISPATCH_LEVEL);
    }
    FreeChannel(Adapter);
    if (IsAsked) {
        WaitFor(&DmaGiven);
        FreeChannel(Adapter);
    }
    PutAdapter(Adapter);
}

static VOID DmaChannelLeak(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewGiven(1, KeepObject);

    if (Adapter == NULL) {
        return;
    }
    if (!Wrong) {
        FreeChannel(Adapter);
    }
    PutAdapter(Adapter);
}

static VOID DmaChannelNotAllocated(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewGiven(1, KeepObject);

    if (Adapter == NULL) {
        return;
    }
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
    PDMA_ADAPTER Adapter;
    PMDL Mdl = NewTransfer(&Adapter, TRUE, 2);

    if (Mdl == NULL) {
        return;
    }
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
    PDMA_ADAPTER Adapter = NewGiven(3, DeallocateObjectKeepRegisters);

    if (Adapter == NULL) {
        return;
    }
    FreeRegisters(Adapter, Wrong ? 2 : 3);
    PutAdapter(Adapter);
}

static VOID DmaMapRegistersLeak(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewGiven(3, DeallocateObjectKeepRegisters);

    if (Adapter == NULL) {
        return;
    }
    if (!Wrong) {
        FreeRegisters(Adapter, 3);
    }
    PutAdapter(Adapter);
}

static VOID DmaMapRegistersNotAllocated(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewGiven(3, DeallocateObjectKeepRegisters);

    if (Adapter == NULL) {
        return;
    }
    FreeRegisters(Adapter, 3);
    if (Wrong) {
        FreeRegisters(Adapter, 3);
    }
    PutAdapter(Adapter);
}

static VOID DmaMdlNotLocked(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter;
    PMDL Mdl = NewTransfer(&Adapter, !Wrong, 2);

    if (Mdl == NULL) {
        return;
    }
    MapPart(Adapter, Mdl, 0, 16, TRUE);
    FreeRegisters(Adapter, 2);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID DmaNotFlushed(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter;
    PMDL Mdl = NewTransfer(&Adapter, TRUE, 2);

    if (Mdl == NULL) {
        return;
    }
    MapPart(Adapter, Mdl, 0, 16, !Wrong);
    FreeRegisters(Adapter, 2);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID DmaOutsideMdl(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter;
    PMDL Mdl = NewTransfer(&Adapter, TRUE, 2);

    if (Mdl == NULL) {
        return;
    }
    MapPart(Adapter, Mdl, Wrong ? DMA_BUFFER : DMA_BUFFER - 16, 16, TRUE);
    FreeRegisters(Adapter, 2);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID DmaTooFewMapRegisters(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter;
    PMDL Mdl = NewTransfer(&Adapter, TRUE, Wrong ? 1 : 2);

    if (Mdl == NULL) {
        return;
    }
    MapPart(Adapter, Mdl, 0, PAGE_SIZE, FALSE);
    MapPart(Adapter, Mdl, PAGE_SIZE, PAGE_SIZE, FALSE);
    Adapter->DmaOperations->FlushAdapterBuffers(Adapter, Mdl, DmaBase, MmGetMdlVirtualAddress(Mdl), DMA_BUFFER, TRUE);
    FreeRegisters(Adapter, Wrong ? 1 : 2);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID DmaWrongIrql(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    if (Adapter == NULL) {
        return;
    }
    if (Ask(Adapter, 1, DeallocateObject, Wrong ? PASSIVE_LEVEL : DISPATCH_LEVEL)) {
        WaitFor(&DmaGiven);
    }
    PutAdapter(Adapter);
}

static VOID DmaZeroLength(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter;
    PMDL Mdl = NewTransfer(&Adapter, TRUE, 2);

    if (Mdl == NULL) {
        return;
    }
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
    PHYSICAL_ADDRESS Lowest, Highest;
    PVOID *Operations, Vector;

    if (Adapter == NULL) {
        return;
    }
    Operations = (PVOID *)Adapter->DmaOperations;
    Lowest.QuadPart = 0;
    Highest.QuadPart = -1;
    if (NT_SUCCESS(((ALLOCATE_VECTOR)Operations[0x118 / 8])(Adapter, Lowest, Highest, MmCached, 0, 0, 2, 100, &Vector))) {
        ((FREE_FROM_VECTOR)Operations[0x128 / 8])(Adapter, Vector, 0);
        ((FREE_FROM_VECTOR)Operations[0x128 / 8])(Adapter, Vector, Wrong ? 0 : 1);
        ((FREE_VECTOR)Operations[0x130 / 8])(Adapter, Vector);
    }
    PutAdapter(Adapter);
}

static VOID NotADmaAdapter(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);

    if (Adapter == NULL) {
        return;
    }
    Sink = Adapter->DmaOperations->GetDmaAlignment(Wrong ? (PDMA_ADAPTER)TheDevice : Adapter);
    PutAdapter(Adapter);
}

static VOID DmaWrongDirection(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter;
    PMDL Mdl = NewListed(&Adapter);

    if (Mdl == NULL) {
        return;
    }
    PutListOf(Adapter, !Wrong);
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID NotAScatterGatherList(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter;
    PMDL Mdl = NewListed(&Adapter);

    if (Mdl == NULL) {
        return;
    }
    PutList(Adapter);
    if (Wrong) {
        PutList(Adapter);
    }
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID ScatterGatherListLeak(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter;
    PMDL Mdl = NewListed(&Adapter);

    if (Mdl == NULL) {
        return;
    }
    if (!Wrong) {
        PutList(Adapter);
    }
    PutAdapter(Adapter);
    FreeBuffer(Mdl);
}

static VOID LockAndList(PDMA_ADAPTER Adapter, PMDL Mdl, BOOLEAN Wrong)
{
    BOOLEAN HasList;

    MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    HasList = GetList(Adapter, Mdl, DMA_BUFFER);
    if (Wrong) {
        MmUnlockPages(Mdl);
    }
    if (HasList) {
        PutList(Adapter);
    }
    if (!Wrong) {
        MmUnlockPages(Mdl);
    }
}

static VOID DmaUnlockedWhileMapped(BOOLEAN Wrong)
{
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PVOID Buffer = ExAllocatePoolWithTag(PagedPool, DMA_BUFFER, TAG);
    PMDL Mdl = Buffer != NULL ? IoAllocateMdl(Buffer, DMA_BUFFER, FALSE, FALSE, NULL) : NULL;

    if (Adapter != NULL && Mdl != NULL) {
        LockAndList(Adapter, Mdl, Wrong);
    }
    if (Mdl != NULL) {
        IoFreeMdl(Mdl);
    }
    if (Buffer != NULL) {
        Free(Buffer);
    }
    if (Adapter != NULL) {
        PutAdapter(Adapter);
    }
}

/* A device is given the first piece of a list by two registers. */
static VOID GiveFirstPiece(PULONG Registers, BOOLEAN Wrong)
{
    *(volatile ULONG64 *)Registers = (ULONG64)DmaList->Elements[0].Address.QuadPart;
    WRITE_REGISTER_ULONG(&Registers[2], Wrong ? DMA_SEVERAL : DmaList->Elements[0].Length);
}

/* The registers are those of the screen. */
static VOID DmaLengthOfWhole(BOOLEAN Wrong)
{
    static const PHYSICAL_ADDRESS Registers = {.QuadPart = 0xB8000};
    PDMA_ADAPTER Adapter = NewAdapter(2);
    PMDL First = NewBuffer(TRUE), Between = NewBuffer(TRUE), Second = NewBuffer(TRUE);
    PULONG Window = MmMapIoSpace(Registers, PAGE_SIZE, MmNonCached);

    if (Adapter != NULL && First != NULL && Between != NULL && Second != NULL && Window != NULL) {
        First->Next = Second;
        if (GetList(Adapter, First, DMA_SEVERAL)) {
            GiveFirstPiece(Window, Wrong);
            PutList(Adapter);
        }
        First->Next = NULL;
    }
    if (Window != NULL) {
        MmUnmapIoSpace(Window, PAGE_SIZE);
    }
    FreeBuffer(First);
    FreeBuffer(Between);
    FreeBuffer(Second);
    if (Adapter != NULL) {
        PutAdapter(Adapter);
    }
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
