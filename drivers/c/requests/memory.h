/* Memory descriptor lists, physical and contiguous memory, paged code. Pages: Using MDLs, IoBuildPartialMdl function,
 * MmProbeAndLockPages function, MmAllocatePagesForMdl function, MmAllocateContiguousMemory function,
 * MmLockPagableCodeSection macro. */

static VOID CheckNonPaged(REQUESTS_RESULT *Result)
{
    PUCHAR Bytes = ExAllocatePoolWithTag(NonPagedPool, 4 * PAGE_SIZE, REQUESTS_TAG);
    PMDL Mdl, Part;
    PPFN_NUMBER Frames;
    ULONG Index, Neighbours = 0;

    if (!CHECK(Bytes != NULL)) {
        return;
    }
    CHECK(((ULONG_PTR)Bytes & (PAGE_SIZE - 1)) == 0);
    CHECK(MmIsAddressValid(Bytes) && !MmIsAddressValid(NULL));
    CHECK(MmSizeOfMdl(Bytes + 1, PAGE_SIZE) == sizeof(MDL) + 2 * sizeof(PFN_NUMBER)); /* it crosses into a second */
    Mdl = IoAllocateMdl(Bytes, 4 * PAGE_SIZE, FALSE, FALSE, NULL);
    Part = IoAllocateMdl(Bytes + PAGE_SIZE + 16, 100, FALSE, FALSE, NULL);
    if (!CHECK(Mdl != NULL && Part != NULL)) {
        return;
    }
    CHECK(MmGetMdlVirtualAddress(Mdl) == Bytes && MmGetMdlByteCount(Mdl) == 4 * PAGE_SIZE);
    MmBuildMdlForNonPagedPool(Mdl);
    CHECK((Mdl->MdlFlags & MDL_SOURCE_IS_NONPAGED_POOL) != 0);
    CHECK(MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority) == Bytes);
    Frames = MmGetMdlPfnArray(Mdl);
    for (Index = 0; Index < 4; Index++) {
        CHECK(Frames[Index] == (PFN_NUMBER)(MmGetPhysicalAddress(Bytes + Index * PAGE_SIZE).QuadPart >> PAGE_SHIFT));
        Neighbours += Index > 0 && Frames[Index] == Frames[Index - 1] + 1;
    }
    CHECK(Neighbours < 3); /* a driver that takes them for contiguous is found out */
    CHECK(MmGetPhysicalAddress(Bytes + 123).QuadPart == MmGetPhysicalAddress(Bytes).QuadPart + 123);
    IoBuildPartialMdl(Mdl, Part, Bytes + PAGE_SIZE + 16, 100);
    CHECK((Part->MdlFlags & MDL_PARTIAL) != 0 && MmGetMdlByteCount(Part) == 100 && MmGetMdlByteOffset(Part) == 16);
    CHECK(MmGetMdlPfnArray(Part)[0] == Frames[1]);
    CHECK(MmGetSystemAddressForMdlSafe(Part, NormalPagePriority) == Bytes + PAGE_SIZE + 16);
    MmPrepareMdlForReuse(Part);
    IoFreeMdl(Part);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Bytes, REQUESTS_TAG);
}

static VOID CheckLocked(REQUESTS_RESULT *Result)
{
    PUCHAR Bytes = ExAllocatePoolWithTag(PagedPool, 2 * PAGE_SIZE, REQUESTS_TAG);
    PUCHAR Mapped;
    PMDL Mdl;
    KIRQL Irql;

    if (!CHECK(Bytes != NULL)) {
        return;
    }
    Mdl = IoAllocateMdl(Bytes + 8, PAGE_SIZE, FALSE, FALSE, NULL);
    if (!CHECK(Mdl != NULL)) {
        return;
    }
    MmProbeAndLockPages(Mdl, KernelMode, IoWriteAccess);
    CHECK((Mdl->MdlFlags & (MDL_PAGES_LOCKED | MDL_WRITE_OPERATION)) == (MDL_PAGES_LOCKED | MDL_WRITE_OPERATION));
    CHECK(MmGetMdlPfnArray(Mdl)[1] == (PFN_NUMBER)(MmGetPhysicalAddress(Bytes + PAGE_SIZE).QuadPart >> PAGE_SHIFT));
    Mapped = MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, NULL, FALSE, NormalPagePriority);
    if (CHECK(Mapped != NULL && Mapped != Bytes + 8)) {
        CHECK(((ULONG_PTR)Mapped & (PAGE_SIZE - 1)) == 8);
        CHECK((Mdl->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA) != 0 && Mdl->MappedSystemVa == Mapped);
        KeRaiseIrql(DISPATCH_LEVEL, &Irql); /* locked pages are there at every level */
        Fill(Mapped, PAGE_SIZE, 3);
        KeLowerIrql(Irql);
        CHECK(Filled(Bytes + 8, PAGE_SIZE, 3));
        CHECK(MmGetPhysicalAddress(Mapped + 5).QuadPart == MmGetPhysicalAddress(Bytes + 13).QuadPart);
        MmUnmapLockedPages(Mapped, Mdl);
        CHECK((Mdl->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA) == 0);
        CHECK(!MmIsAddressValid(Mapped));
    }
    MmUnlockPages(Mdl);
    CHECK((Mdl->MdlFlags & MDL_PAGES_LOCKED) == 0);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Bytes, REQUESTS_TAG);
}

static BOOLEAN Contiguous(PUCHAR Bytes, ULONG Pages)
{
    PHYSICAL_ADDRESS First = MmGetPhysicalAddress(Bytes);
    ULONG Index;

    for (Index = 1; Index < Pages; Index++) {
        if (MmGetPhysicalAddress(Bytes + Index * PAGE_SIZE).QuadPart != First.QuadPart + Index * PAGE_SIZE) {
            return FALSE;
        }
    }
    return TRUE;
}

static VOID CheckContiguous(REQUESTS_RESULT *Result)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0x100000}, High = {.QuadPart = 0xFFFFFF}, Boundary = {.QuadPart = 0x10000};
    PHYSICAL_ADDRESS Start;
    PUCHAR Bytes;

    Bytes = MmAllocateContiguousMemory(3 * PAGE_SIZE, High);
    if (CHECK(Bytes != NULL)) {
        CHECK(Contiguous(Bytes, 3) && MmGetPhysicalAddress(Bytes).QuadPart + 3 * PAGE_SIZE - 1 <= High.QuadPart);
        Fill(Bytes, 3 * PAGE_SIZE, 1);
        CHECK(Filled(Bytes, 3 * PAGE_SIZE, 1));
        MmFreeContiguousMemory(Bytes);
    }
    Bytes = MmAllocateContiguousMemorySpecifyCache(5 * PAGE_SIZE, Low, High, Boundary, MmNonCached);
    if (CHECK(Bytes != NULL)) {
        Start = MmGetPhysicalAddress(Bytes);
        CHECK(Contiguous(Bytes, 5) && Start.QuadPart >= Low.QuadPart);
        CHECK(Start.QuadPart + 5 * PAGE_SIZE - 1 <= High.QuadPart);
        CHECK((Start.QuadPart & 0xFFFF) + 5 * PAGE_SIZE <= 0x10000);
        MmFreeContiguousMemorySpecifyCache(Bytes, 5 * PAGE_SIZE, MmNonCached);
    }
    Boundary.QuadPart = 0;
    Bytes = MmAllocateContiguousMemorySpecifyCacheNode(2 * PAGE_SIZE, Low, High, Boundary, MmCached,
                                                       MM_ANY_NODE_OK);
    if (CHECK(Bytes != NULL)) {
        CHECK(Contiguous(Bytes, 2) && MmGetPhysicalAddress(Bytes).QuadPart >= Low.QuadPart);
        MmFreeContiguousMemorySpecifyCache(Bytes, 2 * PAGE_SIZE, MmCached);
    }
    High.QuadPart = PAGE_SIZE - 1; /* less room than asked for */
    CHECK(MmAllocateContiguousMemory(2 * PAGE_SIZE, High) == NULL);
    Bytes = MmAllocateNonCachedMemory(100);
    if (CHECK(Bytes != NULL)) {
        CHECK(((ULONG_PTR)Bytes & (PAGE_SIZE - 1)) == 0); /* whole pages */
        Fill(Bytes, 100, 7);
        CHECK(Filled(Bytes, 100, 7));
        MmFreeNonCachedMemory(Bytes, 100);
    }
}

static VOID CheckMdlPages(REQUESTS_RESULT *Result)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0}, High = {.QuadPart = 0x7FFFFFFF}, Skip = {.QuadPart = 0};
    PUCHAR Mapped;
    ULONG Index, Sum = 0, Bytes;
    PMDL Mdl = MmAllocatePagesForMdl(Low, High, Skip, 2 * PAGE_SIZE);

    if (CHECK(Mdl != NULL)) {
        Bytes = MmGetMdlByteCount(Mdl); /* there may be fewer than were asked for */
        CHECK(Bytes == PAGE_SIZE || Bytes == 2 * PAGE_SIZE);
        for (Index = 0; Index < Bytes / PAGE_SIZE; Index++) {
            CHECK(MmGetMdlPfnArray(Mdl)[Index] <= 0x7FFFF);
            CHECK(Index == 0 || MmGetMdlPfnArray(Mdl)[0] != MmGetMdlPfnArray(Mdl)[1]);
        }
        Mapped = MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, NULL, FALSE, NormalPagePriority);
        if (CHECK(Mapped != NULL)) {
            for (Index = 0; Index < Bytes; Index++) {
                Sum += Mapped[Index];
            }
            CHECK(Sum == 0); /* MmAllocatePagesForMdl zeroes */
            Mapped[Bytes - 1] = 1;
            MmUnmapLockedPages(Mapped, Mdl);
        }
        MmFreePagesFromMdl(Mdl);
        ExFreePool(Mdl);
    }
    Mdl = MmAllocatePagesForMdlEx(Low, High, Skip, PAGE_SIZE, MmCached, MM_ALLOCATE_FULLY_REQUIRED);
    if (CHECK(Mdl != NULL)) {
        CHECK(MmGetMdlByteCount(Mdl) == PAGE_SIZE);
        Mapped = MmMapLockedPages(Mdl, KernelMode);
        if (CHECK(Mapped != NULL)) {
            CHECK(MmGetPhysicalAddress(Mapped).QuadPart == (LONGLONG)(MmGetMdlPfnArray(Mdl)[0] << PAGE_SHIFT));
            MmUnmapLockedPages(Mapped, Mdl);
        }
        MmFreePagesFromMdl(Mdl);
        ExFreePool(Mdl);
    }
}

__attribute__((section("PAGE"), noinline)) static ULONG PagedRoutine(ULONG Number)
{
    return Number * 3 + 1;
}

static VOID CheckPaging(REQUESTS_RESULT *Result)
{
    UNICODE_STRING Known = RTL_CONSTANT_STRING(L"IoAllocateIrp");
    UNICODE_STRING Unknown = RTL_CONSTANT_STRING(L"IoDirqlDoesNotExist");
    PVOID Section = MmLockPagableDataSection((PVOID)(ULONG_PTR)PagedRoutine);
    KIRQL Irql;

    if (CHECK(Section != NULL)) {
        KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        CHECK(PagedRoutine(2) == 7);
        KeLowerIrql(Irql);
        MmUnlockPagableImageSection(Section);
        MmLockPagableSectionByHandle(Section);
        KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        CHECK(PagedRoutine(3) == 10);
        KeLowerIrql(Irql);
        MmUnlockPagableImageSection(Section);
    }
    CHECK(MmPageEntireDriver((PVOID)(ULONG_PTR)PagedRoutine) == TheDriver->DriverStart);
    MmResetDriverPaging((PVOID)(ULONG_PTR)PagedRoutine);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql); /* what is not in a PAGE section is there again */
    CHECK(Irql == PASSIVE_LEVEL);
    KeLowerIrql(Irql);
    CHECK(MmGetSystemRoutineAddress(&Known) == (PVOID)(ULONG_PTR)IoAllocateIrp);
    CHECK(MmGetSystemRoutineAddress(&Unknown) == NULL);
}

static VOID MemoryFamily(REQUESTS_RESULT *Result, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    CheckNonPaged(Result);
    CheckLocked(Result);
    CheckContiguous(Result);
    CheckMdlPages(Result);
    CheckPaging(Result);
}
