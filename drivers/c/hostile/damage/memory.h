/* Lists of free blocks, MDLs, bit maps. */
#include "damage.h"

static PVOID PrepareSequencedList(VOID)
{
    PSLIST_HEADER Head = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, DAMAGE_TAG); /* aligned */

    InitializeSListHead(Head);
    ExInterlockedPushEntrySList(Head, (PSLIST_ENTRY)((PUCHAR)Head + 0x100), NULL);
    ExInterlockedPushEntrySList(Head, (PSLIST_ENTRY)((PUCHAR)Head + 0x200), NULL);
    return Head;
}
static VOID Push(PVOID At) { ExInterlockedPushEntrySList(At, (PSLIST_ENTRY)((PUCHAR)At + 0x300), NULL); }
static VOID Pop(PVOID At) { ExInterlockedPopEntrySList(At, NULL); }
static VOID Flush(PVOID At) { ExInterlockedFlushSList(At); }
static VOID Depth(PVOID At) { ExQueryDepthSList(At); }
static const USE SequencedListUses[] = {Push, Pop, Flush, Depth, NULL};

static PVOID PrepareLookaside(VOID)
{
    PNPAGED_LOOKASIDE_LIST List = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, DAMAGE_TAG);

    ExInitializeNPagedLookasideList(List, NULL, NULL, 0, 64, DAMAGE_TAG, 0);
    ExFreeToNPagedLookasideList(List, ExAllocateFromNPagedLookasideList(List));
    return List;
}
static VOID TakeBlock(PVOID At)
{
    PVOID Block = ExAllocateFromNPagedLookasideList(At);

    if (Block != NULL) {
        ExFreeToNPagedLookasideList(At, Block);
    }
}
static VOID DeleteLookaside(PVOID At) { ExDeleteNPagedLookasideList(At); }
static const USE LookasideUses[] = {TakeBlock, DeleteLookaside, NULL};

PVOID NTAPI NtTakeEx(PLOOKASIDE_LIST_EX List) __asm__("ExAllocateFromLookasideListEx");
VOID NTAPI NtGiveEx(PLOOKASIDE_LIST_EX List, PVOID Block) __asm__("ExFreeToLookasideListEx");
static PVOID PrepareLookasideEx(VOID)
{
    PLOOKASIDE_LIST_EX List = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, DAMAGE_TAG);

    ExInitializeLookasideListEx(List, NULL, NULL, NonPagedPool, 0, 64, DAMAGE_TAG, 0);
    NtGiveEx(List, NtTakeEx(List));
    return List;
}
static VOID TakeBlockEx(PVOID At)
{
    PVOID Block = NtTakeEx(At);

    if (Block != NULL) {
        NtGiveEx(At, Block);
    }
}
static VOID FlushEx(PVOID At) { ExFlushLookasideListEx(At); }
static VOID DeleteEx(PVOID At) { ExDeleteLookasideListEx(At); }
static const USE LookasideExUses[] = {TakeBlockEx, FlushEx, DeleteEx, NULL};

static PVOID PrepareBuiltMdl(VOID)
{
    PMDL Mdl = IoAllocateMdl(Fresh(2 * PAGE_SIZE), 2 * PAGE_SIZE, FALSE, FALSE, NULL);

    MmBuildMdlForNonPagedPool(Mdl);
    return Mdl;
}
static PVOID PrepareLockedMdl(VOID)
{
    PMDL Mdl = IoAllocateMdl(ExAllocatePoolWithTag(PagedPool, 3 * PAGE_SIZE, DAMAGE_TAG), 3 * PAGE_SIZE, FALSE, FALSE, NULL);

    MmProbeAndLockPages(Mdl, KernelMode, IoWriteAccess);
    return Mdl;
}
static VOID MapMdl(PVOID At)
{
    PVOID Address = MmMapLockedPagesSpecifyCache(At, KernelMode, MmCached, NULL, FALSE, NormalPagePriority);

    if (Address != NULL) {
        MmUnmapLockedPages(Address, At);
    }
}
static VOID MapInline(PVOID At) { MmGetSystemAddressForMdlSafe((PMDL)At, NormalPagePriority); }
static VOID UnlockMdl(PVOID At) { MmUnlockPages(At); IoFreeMdl(At); }
static VOID FreeMdl(PVOID At) { IoFreeMdl(At); }
static VOID LockMdl(PVOID At) { MmProbeAndLockPages(At, KernelMode, IoReadAccess); }
static VOID BuildMdl(PVOID At) { MmBuildMdlForNonPagedPool(At); }
static VOID PartOfMdl(PVOID At)
{
    PMDL Part = IoAllocateMdl(NULL, 2 * PAGE_SIZE, FALSE, FALSE, NULL);

    IoBuildPartialMdl(At, Part, MmGetMdlVirtualAddress((PMDL)At), 0x100);
    IoBuildPartialMdl(Part, At, MmGetMdlVirtualAddress(Part), 0);
}
static VOID AdvanceIt(PVOID At) { MmAdvanceMdl(At, 0x800); }
static VOID ProtectMdl(PVOID At) { MapInline(At); MmProtectMdlSystemAddress(At, PAGE_READONLY); }
static VOID FreePages(PVOID At) { MmFreePagesFromMdl(At); }
static VOID UnmapMdl(PVOID At) { MmUnmapLockedPages(((PMDL)At)->MappedSystemVa, At); }
static VOID ChainMdl(PVOID At)
{
    PIRP Irp = IoAllocateIrp(1, FALSE);

    Irp->MdlAddress = At;
    IoAllocateMdl(TheDriver, 16, TRUE, FALSE, Irp);
}
static VOID CompleteWithMdl(PVOID At)
{
    IO_STATUS_BLOCK Block;
    KEVENT *Event = Fresh(sizeof(KEVENT));
    PIRP Irp;

    KeInitializeEvent(Event, NotificationEvent, FALSE);
    Irp = IoBuildDeviceIoControlRequest(0x22A000, TheDevice, NULL, 0, NULL, 0, TRUE, Event, &Block);
    if (Irp != NULL) {
        Irp->MdlAddress = At;
        IoCallDriver(TheDevice, Irp);
    }
}
static const USE MdlUses[] = {MapMdl, MapInline, UnlockMdl, FreeMdl, LockMdl, BuildMdl, PartOfMdl, AdvanceIt, ProtectMdl,
                              FreePages, UnmapMdl, ChainMdl, CompleteWithMdl, NULL};

static PVOID PrepareBitMap(VOID)
{
    PRTL_BITMAP Map = Fresh(sizeof(*Map));

    RtlInitializeBitMap(Map, Fresh(64), 500);
    return Map;
}
static VOID SetAll(PVOID At) { RtlSetAllBits(At); }
static VOID SetSome(PVOID At) { RtlSetBits(At, 3, 0x7FFFFFFF); RtlClearBits(At, 0xFFFFFFF0, 0x20); }
static VOID FindSome(PVOID At) { RtlFindClearBits(At, 0x7FFFFFFF, 5); RtlFindSetBits(At, 1, 0xFFFFFFFF); RtlFindClearBitsAndSet(At, 9, 0); }
static VOID CountSome(PVOID At) { RtlNumberOfSetBits(At); RtlAreBitsClear(At, 0xFFFFFFFF, 0xFFFFFFFF); RtlTestBit(At, 0xFFFFFFFF); }
static const USE BitMapUses[] = {SetAll, SetSome, FindSome, CountSome, NULL};
