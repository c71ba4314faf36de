/* Memory: pool of each kind, lookaside lists, MDLs, contiguous memory, pages, user addresses behind __try. */
#ifndef MEMORY_H
#define MEMORY_H

#include "gallery.h"

static ULONG PoolOfEachKind(VOID)
{
    static const POOL_TYPE Kinds[] = {NonPagedPool, PagedPool, NonPagedPoolNx, NonPagedPoolCacheAligned};

    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Kinds); Index++) {
        PUCHAR Block = ExAllocatePoolWithTag(Kinds[Index], 100, TAG);

        CHECK(Block != NULL && ((ULONG_PTR)Block & 15) == 0);
        RtlFillMemory(Block, 100, 0x5A);
        CHECK(Block[99] == 0x5A);
        ExFreePool(Block); /* without its tag, as much code does */
    }
    return 0;
}

static ULONG PoolOfZeroBytes(VOID)
{
    PVOID Block = ExAllocatePoolWithTag(NonPagedPoolNx, 0, TAG);

    CHECK(Block != NULL);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

static ULONG PoolOfWholePages(VOID)
{
    PUCHAR Block = Nonpaged(2 * PAGE_SIZE);

    CHECK(Block != NULL && BYTE_OFFSET(Block) == 0);
    Block[2 * PAGE_SIZE - 1] = 1;
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

/* With quota it raises rather than giving NULL. */
static ULONG PoolWithQuota(VOID)
{
    PVOID volatile Block = NULL;

    __try {
        Block = ExAllocatePoolWithQuotaTag(PagedPool, 64, TAG);
    } __except (1) {
        CHECK(GetExceptionCode() == STATUS_INSUFFICIENT_RESOURCES);
    }
    CHECK(Block != NULL);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

static ULONG LookasideLists(VOID)
{
    NPAGED_LOOKASIDE_LIST *List = Nonpaged(sizeof(*List)); /* at a multiple of 16 */
    PAGED_LOOKASIDE_LIST *Paged = Nonpaged(sizeof(*Paged));
    PVOID Blocks[4];

    CHECK(List != NULL && Paged != NULL);
    ExInitializeNPagedLookasideList(List, NULL, NULL, 0, 48, TAG, 0);
    ExInitializePagedLookasideList(Paged, NULL, NULL, 0, 80, TAG, 0);
    for (ULONG Round = 0; Round < 2; Round++) {
        for (ULONG Index = 0; Index < 4; Index++) {
            Blocks[Index] = Index % 2 == 0 ? ExAllocateFromNPagedLookasideList(List)
                                           : ExAllocateFromPagedLookasideList(Paged);
            CHECK(Blocks[Index] != NULL);
            RtlZeroMemory(Blocks[Index], 48);
        }
        for (ULONG Index = 0; Index < 4; Index++) {
            if (Index % 2 == 0) {
                ExFreeToNPagedLookasideList(List, Blocks[Index]);
            } else {
                ExFreeToPagedLookasideList(Paged, Blocks[Index]);
            }
        }
    }
    ExDeleteNPagedLookasideList(List);
    ExDeletePagedLookasideList(Paged);
    ExFreePoolWithTag(List, TAG);
    ExFreePoolWithTag(Paged, TAG);
    return 0;
}

static LONG OwnAllocations;

static PVOID NTAPI OwnAllocate(POOL_TYPE Type, SIZE_T Bytes, ULONG Tag)
{
    InterlockedIncrement(&OwnAllocations);
    return ExAllocatePoolWithTag(Type, Bytes, Tag);
}

static VOID NTAPI OwnFree(PVOID Block)
{
    InterlockedDecrement(&OwnAllocations);
    ExFreePool(Block);
}

/* A list whose blocks come from routines of the driver's. */
static ULONG LookasideListOfOwnRoutines(VOID)
{
    NPAGED_LOOKASIDE_LIST *List = Nonpaged(sizeof(*List));
    PVOID Block;

    CHECK(List != NULL);
    OwnAllocations = 0;
    ExInitializeNPagedLookasideList(List, OwnAllocate, OwnFree, 0, 200, TAG, 0);
    Block = ExAllocateFromNPagedLookasideList(List);
    CHECK(Block != NULL && OwnAllocations == 1);
    ExFreeToNPagedLookasideList(List, Block);
    ExDeleteNPagedLookasideList(List);
    CHECK(OwnAllocations == 0);
    ExFreePoolWithTag(List, TAG);
    return 0;
}

/* An MDL of nonpaged pool is built, not locked; its system address is the block's own. */
static ULONG MdlOfPool(VOID)
{
    PUCHAR Block = Nonpaged(3 * PAGE_SIZE), Mapped;
    PMDL Mdl, Part;

    CHECK(Block != NULL);
    Mdl = IoAllocateMdl(Block + 16, 2 * PAGE_SIZE, FALSE, FALSE, NULL);
    Part = IoAllocateMdl(Block + 16, 2 * PAGE_SIZE, FALSE, FALSE, NULL);
    CHECK(Mdl != NULL && Part != NULL);
    MmBuildMdlForNonPagedPool(Mdl);
    Mapped = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    CHECK(Mapped == Block + 16 && MmGetMdlByteCount(Mdl) == 2 * PAGE_SIZE && MmGetMdlByteOffset(Mdl) == 16);
    IoBuildPartialMdl(Mdl, Part, (PUCHAR)MmGetMdlVirtualAddress(Mdl) + PAGE_SIZE, 100);
    Mapped = MmGetSystemAddressForMdlSafe(Part, NormalPagePriority);
    CHECK(Mapped != NULL);
    Mapped[0] = 0x77;
    CHECK(Block[16 + PAGE_SIZE] == 0x77);
    MmPrepareMdlForReuse(Part);
    IoFreeMdl(Part);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

/* Paged memory is locked before a DPC or a card gets it, and unlocked before it is freed. */
static ULONG MdlOfPagedPool(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(PagedPool, 6000, TAG), Mapped;
    PMDL Mdl;
    KIRQL Old;

    CHECK(Block != NULL);
    Mdl = IoAllocateMdl(Block, 6000, FALSE, FALSE, NULL);
    CHECK(Mdl != NULL);
    __try {
        MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    } __except (1) {
        return __LINE__;
    }
    Mapped = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority | MdlMappingNoExecute);
    CHECK(Mapped != NULL);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Mapped[5999] = 9;
    KeLowerIrql(Old);
    CHECK(Block[5999] == 9);
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

/* An MDL in memory of the driver's own. */
static ULONG MdlInOwnMemory(VOID)
{
    PUCHAR Block = Nonpaged(5000);
    PMDL Mdl = Nonpaged(MmSizeOfMdl(Block, 5000));

    CHECK(Block != NULL && Mdl != NULL);
    MmInitializeMdl(Mdl, Block, 5000);
    MmBuildMdlForNonPagedPool(Mdl);
    CHECK(MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority) == Block);
    CHECK(ADDRESS_AND_SIZE_TO_SPAN_PAGES(Block, 5000) * sizeof(PFN_NUMBER) + sizeof(MDL) == MmSizeOfMdl(Block, 5000));
    ExFreePoolWithTag(Mdl, TAG);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

static ULONG PagesForMdl(VOID)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0}, High = {.QuadPart = 0xFFFFFFFF}, Skip = {.QuadPart = 0};
    PMDL Mdl = MmAllocatePagesForMdl(Low, High, Skip, 4 * PAGE_SIZE);
    PUCHAR Mapped;

    CHECK(Mdl != NULL && MmGetMdlByteCount(Mdl) > 0); /* maybe fewer */
    Mapped = MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, NULL, FALSE, NormalPagePriority);
    CHECK(Mapped != NULL);
    Mapped[MmGetMdlByteCount(Mdl) - 1] = 1;
    MmUnmapLockedPages(Mapped, Mdl);
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl);
    return 0;
}

/* What a card reads in one piece; it may be mapped once more by its physical address. */
/* Not: io-space-ram */
static ULONG ContiguousMemory(VOID)
{
    PHYSICAL_ADDRESS Highest = {.QuadPart = 0xFFFFFFFF}, At;
    PUCHAR Block = MmAllocateContiguousMemory(3 * PAGE_SIZE, Highest), Again;

    CHECK(Block != NULL);
    At = MmGetPhysicalAddress(Block);
    CHECK(At.QuadPart + 3 * PAGE_SIZE - 1 <= Highest.QuadPart);
    CHECK(MmGetPhysicalAddress(Block + 2 * PAGE_SIZE).QuadPart == At.QuadPart + 2 * PAGE_SIZE);
    Block[PAGE_SIZE] = 0x3C;
    Again = MmMapIoSpace(At, 3 * PAGE_SIZE, MmCached);
    CHECK(Again != NULL && Again[PAGE_SIZE] == 0x3C);
    MmUnmapIoSpace(Again, 3 * PAGE_SIZE);
    MmFreeContiguousMemory(Block);
    return 0;
}

/* Device memory (the text screen's) for the application that asks: described by an MDL, mapped behind a __try, unmapped in its
 * process. */
/* Not: mdl-not-nonpaged, mdl-not-ram, io-space-outside */
static ULONG WindowForApplication(VOID)
{
    PHYSICAL_ADDRESS Screen = {.QuadPart = 0xB8000};
    PVOID Window = MmMapIoSpace(Screen, 2 * PAGE_SIZE, MmNonCached);
    PVOID volatile User = NULL;
    PMDL Mdl = IoAllocateMdl(Window, 2 * PAGE_SIZE, FALSE, FALSE, NULL);

    CHECK(Window != NULL && Mdl != NULL);
    MmBuildMdlForNonPagedPool(Mdl);
    CHECK((Mdl->MdlFlags & MDL_IO_SPACE) != 0 && MmGetMdlPfnArray(Mdl)[1] == 0xB9);
    __try {
        User = MmMapLockedPagesSpecifyCache(Mdl, UserMode, MmNonCached, NULL, FALSE, NormalPagePriority);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        User = NULL;
    }
    CHECK(User != NULL && (ULONG_PTR)User < MmUserProbeAddress);
    CHECK(MmIsAddressValid(User) && MmGetPhysicalAddress(User).QuadPart == 0xB8000);
    MmUnmapLockedPages(User, Mdl);
    IoFreeMdl(Mdl);
    MmUnmapIoSpace(Window, 2 * PAGE_SIZE);
    return 0;
}

/* A part of a locked buffer, mapped by an MDL of its own; the next part reuses it, and IoFreeMdl ends the last one's mapping. */
/* Not: mdl-partial-outside, mdl-target-too-small, mdl-rebuilt-mapped, mdl-freed-mapped, mdl-freed-locked, locked-pages-leak */
static ULONG PartsOfLockedBuffer(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(PagedPool, 4 * PAGE_SIZE, TAG);
    PMDL Whole = IoAllocateMdl(Block, 4 * PAGE_SIZE, FALSE, FALSE, NULL);
    PMDL Part = IoAllocateMdl(Block, PAGE_SIZE, FALSE, FALSE, NULL);

    CHECK(Block != NULL && Whole != NULL && Part != NULL);
    MmProbeAndLockPages(Whole, KernelMode, IoModifyAccess);
    for (ULONG Index = 0; Index < 4; Index++) {
        PUCHAR Mapped;

        IoBuildPartialMdl(Whole, Part, Block + Index * PAGE_SIZE, PAGE_SIZE);
        Mapped = MmGetSystemAddressForMdlSafe(Part, NormalPagePriority);
        CHECK(Mapped != NULL);
        Mapped[Index] = (UCHAR)(0x30 + Index);
        if (Index < 3)
            MmPrepareMdlForReuse(Part);
    }
    CHECK(Block[0] == 0x30 && Block[3 * PAGE_SIZE + 3] == 0x33);
    IoFreeMdl(Part);
    MmUnlockPages(Whole);
    IoFreeMdl(Whole);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

/* Nonpaged pool for an application to read only. */
static ULONG PoolForApplicationToRead(VOID)
{
    PUCHAR Block = Nonpaged(PAGE_SIZE);
    PMDL Mdl = IoAllocateMdl(Block, PAGE_SIZE, FALSE, FALSE, NULL);
    PUCHAR volatile User = NULL;
    BOOLEAN Raised = FALSE;

    CHECK(Block != NULL && Mdl != NULL);
    RtlZeroMemory(Block, PAGE_SIZE);
    Block[5] = 7;
    MmBuildMdlForNonPagedPool(Mdl);
    __try {
        User = MmMapLockedPagesSpecifyCache(Mdl, UserMode, MmCached, NULL, FALSE,
                                            NormalPagePriority | MdlMappingNoExecute | 0x80000000u);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return __LINE__;
    }
    CHECK(User != NULL && User[5] == 7);
    __try {
        ProbeForWrite(User, 1, 1); /* MdlMappingNoWrite */
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Raised = TRUE;
    }
    CHECK(Raised);
    MmUnmapLockedPages(User, Mdl);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

static VOID NTAPI CountInSystem(PVOID Context)
{
    PULONG Counter = Context;

    ++*Counter;
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* One page by two addresses: the application's is used in its context, the kernel's by a thread of the system. */
/* Not: user-memory-elsewhere, user-mapping-unmapped-elsewhere */
static ULONG PageForApplicationAndThread(VOID)
{
    PULONG Block = Nonpaged(PAGE_SIZE);
    PMDL Mdl = IoAllocateMdl(Block, PAGE_SIZE, FALSE, FALSE, NULL);
    PULONG volatile User = NULL;
    PKTHREAD Thread;

    CHECK(Block != NULL && Mdl != NULL);
    RtlZeroMemory(Block, PAGE_SIZE);
    MmBuildMdlForNonPagedPool(Mdl);
    __try {
        User = MmMapLockedPagesSpecifyCache(Mdl, UserMode, MmCached, NULL, FALSE, NormalPagePriority);
        ++*User;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return __LINE__;
    }
    Thread = StartThread(CountInSystem, Block);
    CHECK(Thread != NULL);
    JoinThread(Thread);
    CHECK(*User == 2 && *Block == 2);
    MmUnmapLockedPages(User, Mdl);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

static ULONG NoncachedMemory(VOID)
{
    PULONG Block = MmAllocateNonCachedMemory(PAGE_SIZE);

    CHECK(Block != NULL);
    Block[5] = 5;
    CHECK(Block[5] == 5);
    MmFreeNonCachedMemory(Block, PAGE_SIZE);
    return 0;
}

static ULONG AddressesThatAreValid(VOID)
{
    ULONG Local = 0;

    CHECK(MmIsAddressValid(&Local));
    CHECK(!MmIsAddressValid(NULL));
    CHECK(MmIsAddressValid((PVOID)(ULONG_PTR)AddressesThatAreValid));
    return 0;
}

/* A user address that is not there raises, and is caught. */
static ULONG UserAddressThatIsNotThere(VOID)
{
    volatile ULONG Caught = 0;

    __try {
        ProbeForRead((PVOID)(ULONG_PTR)0x10000, 16, 4);
        *(volatile ULONG *)(ULONG_PTR)0x10000;
    } __except (1) {
        Caught += GetExceptionCode() == STATUS_ACCESS_VIOLATION;
    }
    __try {
        ProbeForRead((PVOID)(LONG_PTR)-4096, 16, 4); /* an address of the kernel's */
    } __except (1) {
        Caught += GetExceptionCode() == STATUS_ACCESS_VIOLATION;
    }
    __try {
        ProbeForRead((PVOID)(ULONG_PTR)0x10001, 16, 4);
    } __except (1) {
        Caught += GetExceptionCode() == STATUS_DATATYPE_MISALIGNMENT;
    }
    __try {
        ProbeForRead(NULL, 0, 1); /* of no bytes, nothing is asked */
        Caught++;
    } __except (1) {
        return __LINE__;
    }
    CHECK(Caught == 4);
    return 0;
}

/* Strings that end before what was never written. */
static ULONG TextsThatEndEarly(VOID)
{
    PCHAR Text = Nonpaged(64);
    PWCHAR Wide = Nonpaged(64);

    CHECK(Text != NULL && Wide != NULL);
    RtlCopyMemory(Text, "card", 5);
    RtlCopyMemory(Wide, L"card", 10);
    CHECK(strcmp(Text, "cable") != 0 && strncmp(Text, "card", 64) == 0 && strlen(Text) == 4);
    CHECK(wcscmp(Wide, L"cable") != 0 && wcslen(Wide) == 4);
    ExFreePoolWithTag(Text, TAG);
    ExFreePoolWithTag(Wide, TAG);
    return 0;
}

#define MEMORY_IDIOMS                                                                                                  \
    IDIOM(PoolOfEachKind)                                                                                              \
    IDIOM(PoolOfZeroBytes)                                                                                             \
    IDIOM(ContiguousMemory)                                                                                            \
    IDIOM(WindowForApplication)                                                                                        \
    IDIOM(PartsOfLockedBuffer)                                                                                         \
    IDIOM(PoolForApplicationToRead)                                                                                    \
    IDIOM(PageForApplicationAndThread)                                                                                 \
    IDIOM(PoolOfWholePages)                                                                                            \
    IDIOM(PoolWithQuota)                                                                                               \
    IDIOM(LookasideLists)                                                                                              \
    IDIOM(LookasideListOfOwnRoutines)                                                                                  \
    IDIOM(MdlOfPool)                                                                                                   \
    IDIOM(MdlOfPagedPool)                                                                                              \
    IDIOM(MdlInOwnMemory)                                                                                              \
    IDIOM(PagesForMdl)                                                                                                 \
    IDIOM(NoncachedMemory)                                                                                             \
    IDIOM(AddressesThatAreValid)                                                                                       \
    IDIOM(UserAddressThatIsNotThere)                                                                                   \
    IDIOM(TextsThatEndEarly)

#endif
