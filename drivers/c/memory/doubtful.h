/* What no driver should do, and Windows lets it, unless Driver Verifier watches: each goes on. */
#include "memory.h"

static ULONG ZeroBytes(VOID)
{
    PVOID One = ExAllocatePoolWithTag(NonPagedPool, 0, MEMORY_TAG), Two = ExAllocatePoolWithTag(PagedPool, 0, MEMORY_TAG);

    CHECK(One != NULL && Two != NULL && One != Two);
    ExFreePoolWithTag(One, MEMORY_TAG);
    ExFreePoolWithTag(Two, MEMORY_TAG);
    return 0;
}

/* MmNonCached, which is 0, in place of a protection. */
static ULONG WrongProtection(VOID)
{
    PHYSICAL_ADDRESS Video = {.QuadPart = 0xA0000};
    PVOID Right;

    CHECK(MmMapIoSpaceEx(Video, PAGE_SIZE, 0) == NULL);
    CHECK(MmMapIoSpaceEx(Video, PAGE_SIZE, PAGE_READONLY | PAGE_READWRITE) == NULL);
    Right = MmMapIoSpaceEx(Video, PAGE_SIZE, PAGE_READWRITE | PAGE_NOCACHE);
    CHECK(Right != NULL);
    MmUnmapIoSpace(Right, PAGE_SIZE);
    return 0;
}

static ULONG DescribedStack(VOID)
{
    UCHAR Buffer[64];
    PMDL Mdl = IoAllocateMdl(Buffer, sizeof(Buffer), FALSE, FALSE, NULL);

    CHECK(Mdl != NULL);
    MmBuildMdlForNonPagedPool(Mdl);
    CHECK(MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority) == (PVOID)Buffer);
    IoFreeMdl(Mdl);
    return 0;
}

/* Below 1 MiB, where the firmware of old left its tables, and a page without an owner. */
static ULONG LowRam(VOID)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0x9000};
    PULONG Mapped = MmMapIoSpace(Low, PAGE_SIZE, MmNonCached);

    CHECK(Mapped != NULL && MmIsAddressValid(Mapped));
    Mapped[3] = 77;
    CHECK(Mapped[3] == 77);
    MmUnmapIoSpace(Mapped, PAGE_SIZE);
    return 0;
}

static ULONG FreedWhileMapped(VOID)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0}, High = {.QuadPart = -1}, Skip = {.QuadPart = 0};
    PMDL Mdl = MmAllocatePagesForMdl(Low, High, Skip, PAGE_SIZE);

    CHECK(Mdl != NULL);
    CHECK(MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, NULL, FALSE, NormalPagePriority) != NULL);
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl);
    return 0;
}
