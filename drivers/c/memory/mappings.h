/* What is done to MDLs and to their addresses: advanced, protected, mapped where addresses wait. */
#include "memory.h"

NTKERNELAPI PVOID NTAPI MmAllocateContiguousNodeMemory(SIZE_T Bytes, PHYSICAL_ADDRESS Lowest, PHYSICAL_ADDRESS Highest,
                                                       PHYSICAL_ADDRESS Boundary, ULONG Protect, ULONG Node);

/* So many pages of paged pool, each byte with the number of its page, locked. */
static PMDL LockedPages(PUCHAR Block, ULONG Offset, ULONG Pages)
{
    PMDL Mdl = IoAllocateMdl(Block + Offset, Pages * PAGE_SIZE - Offset, FALSE, FALSE, NULL);

    for (ULONG Page = 0; Page < Pages; Page++) {
        RtlFillMemory(Block + Page * PAGE_SIZE, PAGE_SIZE, 1 + Page);
    }
    MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    return Mdl;
}

/* What a system thread finds at an address of an application's. */
static PVOID SeenAt;
static BOOLEAN SeenValid;
static LONGLONG SeenPhysical;

static VOID NTAPI LookFromElsewhere(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    SeenValid = MmIsAddressValid(SeenAt);
    SeenPhysical = MmGetPhysicalAddress(SeenAt).QuadPart;
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Pages that are mapped for the application are there for it, and for a thread of the system's process they are not. */
static ULONG SeenFromElsewhere(VOID)
{
    PVOID Block = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, MEMORY_TAG), Object;
    PMDL Mdl = IoAllocateMdl(Block, PAGE_SIZE, FALSE, FALSE, NULL);
    HANDLE Thread;

    MmBuildMdlForNonPagedPool(Mdl);
    SeenAt = MmMapLockedPagesSpecifyCache(Mdl, UserMode, MmCached, NULL, FALSE, NormalPagePriority);
    CHECK(SeenAt != NULL && SeenAt < (PVOID)MmUserProbeAddress && MmIsAddressValid(SeenAt));
    CHECK(MmGetPhysicalAddress(SeenAt).QuadPart == MmGetPhysicalAddress(Block).QuadPart);
    SeenValid = TRUE;
    SeenPhysical = 1;
    CHECK(NT_SUCCESS(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, LookFromElsewhere, NULL)));
    CHECK(NT_SUCCESS(ObReferenceObjectByHandle(Thread, THREAD_ALL_ACCESS, NULL, KernelMode, &Object, NULL)));
    ZwClose(Thread);
    KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Object);
    CHECK(!SeenValid && SeenPhysical == 0);
    MmUnmapLockedPages(SeenAt, Mdl);
    CHECK(!MmIsAddressValid(SeenAt));
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, MEMORY_TAG);
    return 0;
}

/* An MDL of four pages, less 16 bytes at its beginning, whose beginning moves. */
static ULONG AdvancedMdl(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(PagedPool, 4 * PAGE_SIZE, MEMORY_TAG), Mapped;
    PMDL Mdl = LockedPages(Block, 16, 4);
    PFN_NUMBER Second = MmGetMdlPfnArray(Mdl)[1], Fourth = MmGetMdlPfnArray(Mdl)[3];

    Mapped = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    CHECK(Mapped != NULL && Mapped[0] == 1);
    CHECK(MmAdvanceMdl(Mdl, 4 * PAGE_SIZE - 15) == STATUS_INVALID_PARAMETER_2 && MmGetMdlByteOffset(Mdl) == 16);
    CHECK(MmAdvanceMdl(Mdl, 100) == STATUS_SUCCESS); /* within the page */
    CHECK(MmGetMdlByteCount(Mdl) == 4 * PAGE_SIZE - 116 && MmGetMdlVirtualAddress(Mdl) == Block + 116);
    CHECK(MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority) == (PVOID)(Mapped + 100));
    CHECK(MmAdvanceMdl(Mdl, PAGE_SIZE) == STATUS_SUCCESS); /* passes one */
    CHECK(MmGetMdlPfnArray(Mdl)[0] == Second && MmGetMdlVirtualAddress(Mdl) == Block + PAGE_SIZE + 116);
    CHECK(Mdl->StartVa == Block + PAGE_SIZE && MmGetMdlByteOffset(Mdl) == 116);
    CHECK(!MmIsAddressValid(Mapped) && *(PUCHAR)MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority) == 2);
    CHECK(MmAdvanceMdl(Mdl, 2 * PAGE_SIZE - 116) == STATUS_SUCCESS); /* to a page's beginning */
    CHECK(MmGetMdlByteCount(Mdl) == PAGE_SIZE && MmGetMdlByteOffset(Mdl) == 0 && MmGetMdlPfnArray(Mdl)[0] == Fourth);
    CHECK(*(PUCHAR)MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority) == 4);
    CHECK(MmAdvanceMdl(Mdl, PAGE_SIZE) == STATUS_SUCCESS && MmGetMdlByteCount(Mdl) == 0); /* all of it */
    CHECK(MmAdvanceMdl(Mdl, 1) == STATUS_INVALID_PARAMETER_2);
    MmUnlockPages(Mdl); /* of no pages any more */
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, MEMORY_TAG);
    return 0;
}

/* Half of an MDL is done; the rest is unlocked and unmapped as any. */
static ULONG AdvancedAndUnlocked(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(PagedPool, 4 * PAGE_SIZE, MEMORY_TAG), Mapped;
    PUCHAR Pool = ExAllocatePoolWithTag(NonPagedPool, 3 * PAGE_SIZE, MEMORY_TAG);
    PMDL Mdl = LockedPages(Block, 0, 4);

    Mapped = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    CHECK(Mapped != NULL && MmAdvanceMdl(Mdl, 2 * PAGE_SIZE) == STATUS_SUCCESS);
    CHECK(Mdl->MappedSystemVa == Mapped + 2 * PAGE_SIZE && Mapped[2 * PAGE_SIZE] == 3);
    MmUnmapLockedPages(Mapped + 2 * PAGE_SIZE, Mdl);
    CHECK(!MmIsAddressValid(Mapped + 2 * PAGE_SIZE) && (Mdl->MdlFlags & MDL_PAGES_LOCKED) != 0);
    Mapped = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    CHECK(Mapped != NULL && Mapped[0] == 3 && Mapped[PAGE_SIZE] == 4);
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, MEMORY_TAG);

    Mdl = IoAllocateMdl(Pool, 3 * PAGE_SIZE, FALSE, FALSE, NULL);
    MmBuildMdlForNonPagedPool(Mdl);
    CHECK(MmAdvanceMdl(Mdl, PAGE_SIZE + 8) == STATUS_SUCCESS && Mdl->MappedSystemVa == Pool + PAGE_SIZE + 8);
    CHECK(MmGetMdlPfnArray(Mdl)[0] == (PFN_NUMBER)MmGetPhysicalAddress(Pool + PAGE_SIZE).QuadPart / PAGE_SIZE);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Pool, MEMORY_TAG);
    return 0;
}

static ULONG ProtectedMapping(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(NonPagedPool, 2 * PAGE_SIZE, MEMORY_TAG), Mapped;
    PMDL Mdl = IoAllocateMdl(Block, 2 * PAGE_SIZE, FALSE, FALSE, NULL);

    MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    CHECK(MmProtectMdlSystemAddress(Mdl, PAGE_READONLY) == STATUS_NOT_MAPPED_VIEW);
    Mapped = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    CHECK(Mapped != NULL);
    CHECK(MmProtectMdlSystemAddress(Mdl, PAGE_READONLY | PAGE_READWRITE) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(MmProtectMdlSystemAddress(Mdl, PAGE_WRITECOPY) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(MmProtectMdlSystemAddress(Mdl, PAGE_READONLY) == STATUS_SUCCESS);
    Block[PAGE_SIZE] = 7; /* the pool is as it was */
    CHECK(Mapped[PAGE_SIZE] == 7);
    CHECK(MmProtectMdlSystemAddress(Mdl, PAGE_NOACCESS) == STATUS_SUCCESS);
    CHECK(MmProtectMdlSystemAddress(Mdl, PAGE_READWRITE) == STATUS_SUCCESS);
    Mapped[PAGE_SIZE] = 8;
    CHECK(Block[PAGE_SIZE] == 8);
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, MEMORY_TAG);
    return 0;
}

/* Read only, and written to all the same: Windows stops. */
static ULONG WrittenThoughReadOnly(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, MEMORY_TAG), Mapped;
    PMDL Mdl = IoAllocateMdl(Block, PAGE_SIZE, FALSE, FALSE, NULL);

    MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    Mapped = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    CHECK(Mapped != NULL && MmProtectMdlSystemAddress(Mdl, PAGE_READONLY) == STATUS_SUCCESS);
    *(volatile UCHAR *)Mapped = 1;
    return 1;
}

/* The same addresses show one buffer after the other, whatever else has memory. */
static ULONG ReservedAddresses(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(PagedPool, 4 * PAGE_SIZE, MEMORY_TAG), Mapped;
    PVOID Range = MmAllocateMappingAddress(2 * PAGE_SIZE + 1, MEMORY_TAG); /* three pages */
    PMDL Mdl, Large;
    KIRQL Old;

    CHECK(Range != NULL && BYTE_OFFSET(Range) == 0 && !MmIsAddressValid(Range));
    Mdl = LockedPages(Block, PAGE_SIZE + 40, 3); /* from the second page on */
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Mapped = MmMapLockedPagesWithReservedMapping(Range, MEMORY_TAG, Mdl, MmCached);
    KeLowerIrql(Old);
    CHECK(Mapped == (PUCHAR)Range + 40 && Mdl->MappedSystemVa == Mapped && Mapped[0] == 2);
    CHECK(MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority) == (PVOID)Mapped);
    Mapped[1] = 9;
    CHECK(Block[PAGE_SIZE + 41] == 9 && !MmIsAddressValid((PUCHAR)Range + 2 * PAGE_SIZE));
    MmUnmapReservedMapping(Mapped, MEMORY_TAG, Mdl);
    CHECK(!MmIsAddressValid(Range) && (Mdl->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA) == 0);
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);

    Mdl = LockedPages(Block, 0, 3);
    CHECK(MmMapLockedPagesWithReservedMapping(Range, MEMORY_TAG, Mdl, MmCached) == Range);
    CHECK(((PUCHAR)Range)[2 * PAGE_SIZE] == 3);
    MmUnmapReservedMapping(Range, MEMORY_TAG, Mdl);
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);

    Large = LockedPages(Block, 0, 4);
    CHECK(MmMapLockedPagesWithReservedMapping(Range, MEMORY_TAG, Large, MmCached) == NULL);
    CHECK((Large->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA) == 0 && !MmIsAddressValid(Range));
    MmUnlockPages(Large);
    IoFreeMdl(Large);
    MmFreeMappingAddress(Range, MEMORY_TAG);
    ExFreePoolWithTag(Block, MEMORY_TAG);
    return 0;
}

static ULONG ContiguousOfNode(VOID)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0x800000}, High = {.QuadPart = 0xFFFFFF}, None = {.QuadPart = 0};
    PUCHAR Block = MmAllocateContiguousNodeMemory(3 * PAGE_SIZE, Low, High, None, PAGE_READWRITE | PAGE_NOCACHE, 0);
    PHYSICAL_ADDRESS First;

    CHECK(Block != NULL);
    First = MmGetPhysicalAddress(Block);
    CHECK(First.QuadPart >= 0x800000 && First.QuadPart + 3 * PAGE_SIZE - 1 <= 0xFFFFFF);
    CHECK(MmGetPhysicalAddress(Block + 2 * PAGE_SIZE).QuadPart == First.QuadPart + 2 * PAGE_SIZE);
    Block[3 * PAGE_SIZE - 1] = 1;
    MmFreeContiguousMemory(Block);
    Block = MmAllocateContiguousNodeMemory(PAGE_SIZE, Low, High, None, PAGE_EXECUTE_READWRITE, 0x80000000);
    CHECK(Block != NULL);
    Block[0] = 0xC3;
    ((VOID (*)(VOID))Block)(); /* ret */
    MmFreeContiguousMemory(Block);
    return 0;
}

/* One mistake with a range of two pages, chosen by the caller; 0xDA each time, but for the last. */
static ULONG MisusedRange(VOID)
{
    PUCHAR Range = MmAllocateMappingAddress(2 * PAGE_SIZE, MEMORY_TAG), Block;
    PMDL Mdl, Other;
    ULONG Kind = Chosen;

    Block = ExAllocatePoolWithTag(PagedPool, 4 * PAGE_SIZE, MEMORY_TAG);
    Mdl = LockedPages(Block, 0, 2);
    Other = LockedPages(Block, 0, 1);
    switch (Kind) {
    case 1: MmAllocateMappingAddress(0, MEMORY_TAG); break;
    case 2: MmFreeMappingAddress(Range, MEMORY_TAG + 1); break;
    case 3: MmFreeMappingAddress(Range + PAGE_SIZE, MEMORY_TAG); break;
    case 4: MmMapLockedPagesWithReservedMapping(Range, MEMORY_TAG + 1, Mdl, MmCached); break;
    case 5: MmMapLockedPagesWithReservedMapping(Block, MEMORY_TAG, Mdl, MmCached); break;
    case 6: MmUnmapReservedMapping(Range, MEMORY_TAG, Mdl); break;
    default:
        MmMapLockedPagesWithReservedMapping(Range, MEMORY_TAG, Mdl, MmCached);
        switch (Kind) {
        case 7: MmFreeMappingAddress(Range, MEMORY_TAG); break;
        case 8: MmMapLockedPagesWithReservedMapping(Range, MEMORY_TAG, Other, MmCached); break;
        case 9: MmUnmapReservedMapping(Range, MEMORY_TAG + 1, Mdl); break;
        case 10: MmUnmapReservedMapping(Range, MEMORY_TAG, Other); break;
        default: MmUnmapLockedPages(Range, Mdl); break; /* goes on, and the range is free again */
        }
    }
    MmUnlockPages(Other);
    MmUnlockPages(Mdl);
    IoFreeMdl(Other);
    IoFreeMdl(Mdl);
    MmFreeMappingAddress(Range, MEMORY_TAG);
    ExFreePoolWithTag(Block, MEMORY_TAG);
    CHECK(Kind == 11);
    return 0;
}
