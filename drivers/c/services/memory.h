/* Stories of memory and lists: pool in all its variants, lookaside lists, interlocked and sequenced lists, bit maps. */
#include "services.h"

#define POOL2_UNINITIALIZED 0x2ull
#define POOL2_NON_PAGED 0x40ull
#define POOL2_PAGED 0x100ull

static BOOLEAN AllZero(const UCHAR *Bytes, SIZE_T Length)
{
    while (Length != 0 && Bytes[Length - 1] == 0) {
        Length--;
    }
    return Length == 0;
}

static ULONG Pool(VOID)
{
    PUCHAR Block = NtExAllocatePool2(POOL2_NON_PAGED, 100, SERVICES_TAG);

    CHECK(Block != NULL && ((ULONG_PTR)Block & 15) == 0);
    CHECK(AllZero(Block, 100)); /* ExAllocatePool2 zeroes */
    RtlFillMemory(Block, 100, 0xA5);
    NtExFreePool2(Block, SERVICES_TAG, NULL, 0);
    Block = NtExAllocatePool3(POOL2_PAGED, 200, SERVICES_TAG, NULL, 0);
    CHECK(Block != NULL && AllZero(Block, 200));
    ExFreePoolWithTag(Block, SERVICES_TAG);
    Block = NtExAllocatePool2(POOL2_NON_PAGED | POOL2_UNINITIALIZED, PAGE_SIZE, SERVICES_TAG);
    CHECK(Block != NULL && ((ULONG_PTR)Block & (PAGE_SIZE - 1)) == 0); /* a page or more is page-aligned */
    ExFreePool(Block);
    CHECK(NtExAllocatePool2(0, 100, SERVICES_TAG) == NULL); /* neither kind of pool */

    Block = ExAllocatePoolWithTagPriority(NonPagedPool, 24, SERVICES_TAG, NormalPoolPriority);
    CHECK(Block != NULL && ((ULONG_PTR)Block & 15) == 0);
    ExFreePoolWithTag(Block, SERVICES_TAG);
    Block = ExAllocatePoolWithQuotaTag(PagedPool, 24, SERVICES_TAG);
    CHECK(Block != NULL);
    ExFreePoolWithTag(Block, SERVICES_TAG);
    Block = (ExAllocatePoolWithQuota)(NonPagedPool, 24);
    CHECK(Block != NULL);
    ExFreePool(Block);
    Block = (ExAllocatePool)(NonPagedPool, 24);
    CHECK(Block != NULL);
    ExFreePool(Block);
    return 0;
}

static ULONG NonPagedLookaside(VOID)
{
    PNPAGED_LOOKASIDE_LIST List = ExAllocatePoolWithTag(NonPagedPool, sizeof(*List), SERVICES_TAG);
    PUCHAR First, Second;

    CHECK(List != NULL);
    ExInitializeNPagedLookasideList(List, NULL, NULL, 0, 64, SERVICES_TAG, 0);
    First = ExAllocateFromNPagedLookasideList(List);
    Second = NtExAllocateFromNPagedLookasideList(List); /* the export does what the header's inline code does */
    CHECK(First != NULL && Second != NULL && First != Second);
    RtlFillMemory(First, 64, 1);
    RtlFillMemory(Second, 64, 2);
    CHECK(First[63] == 1 && Second[0] == 2);
    ExFreeToNPagedLookasideList(List, First);
    NtExFreeToNPagedLookasideList(List, Second);
    CHECK(ExAllocateFromNPagedLookasideList(List) == Second); /* the last one freed is the first one given */
    ExFreeToNPagedLookasideList(List, Second);
    ExDeleteNPagedLookasideList(List);
    ExFreePoolWithTag(List, SERVICES_TAG);
    return 0;
}

static ULONG PagedLookaside(VOID)
{
    PPAGED_LOOKASIDE_LIST List = ExAllocatePoolWithTag(NonPagedPool, sizeof(*List), SERVICES_TAG);
    PVOID First, Second;

    CHECK(List != NULL);
    ExInitializePagedLookasideList(List, NULL, NULL, 0, 64, SERVICES_TAG, 0);
    First = ExAllocateFromPagedLookasideList(List);
    Second = NtExAllocateFromPagedLookasideList(List);
    CHECK(First != NULL && Second != NULL && First != Second);
    ExFreeToPagedLookasideList(List, First);
    NtExFreeToPagedLookasideList(List, Second);
    ExDeletePagedLookasideList(List);
    ExFreePoolWithTag(List, SERVICES_TAG);
    return 0;
}

static LONG OwnAllocations; /* not yet freed */
static ULONG OwnCalls;

static PVOID NTAPI OwnAllocate(POOL_TYPE Type, SIZE_T Bytes, ULONG Tag, PLOOKASIDE_LIST_EX List)
{
    UNREFERENCED_PARAMETER(List);
    OwnAllocations++;
    OwnCalls++;
    return ExAllocatePoolWithTag(Type, Bytes, Tag);
}

static VOID NTAPI OwnFree(PVOID Block, PLOOKASIDE_LIST_EX List)
{
    UNREFERENCED_PARAMETER(List);
    OwnAllocations--;
    ExFreePoolWithTag(Block, SERVICES_TAG);
}

static ULONG LookasideEx(VOID)
{
    PLOOKASIDE_LIST_EX List = ExAllocatePoolWithTag(NonPagedPool, sizeof(*List), SERVICES_TAG);
    PVOID Entry;

    CHECK(List != NULL);
    OwnAllocations = 0;
    OwnCalls = 0;
    CHECK(NT_SUCCESS(ExInitializeLookasideListEx(List, OwnAllocate, OwnFree, NonPagedPool, 0, 48, SERVICES_TAG, 0)));
    Entry = ExAllocateFromLookasideListEx(List);
    CHECK(Entry != NULL && OwnCalls == 1 && OwnAllocations == 1); /* an empty list asks the driver's routine */
    ExFreeToLookasideListEx(List, Entry);
    ExFlushLookasideListEx(List);
    CHECK(OwnAllocations == 0); /* flushing frees what the list kept */
    Entry = ExAllocateFromLookasideListEx(List);
    CHECK(Entry != NULL && OwnAllocations == 1);
    NtExFreeToLookasideListEx(List, Entry);
    CHECK(NtExAllocateFromLookasideListEx(List) == Entry && OwnCalls == 2); /* what it kept, without asking */
    ExFreeToLookasideListEx(List, Entry);
    ExDeleteLookasideListEx(List);
    CHECK(OwnAllocations == 0);
    ExFreePoolWithTag(List, SERVICES_TAG);
    return 0;
}

static ULONG Lookaside(VOID)
{
    CHECK_ALL(NonPagedLookaside());
    CHECK_ALL(PagedLookaside());
    CHECK_ALL(LookasideEx());
    return 0;
}

static ULONG DoublyLinked(PKSPIN_LOCK Lock)
{
    LIST_ENTRY Head, First, Second, Third;

    InitializeListHead(&Head);
    CHECK(ExInterlockedRemoveHeadList(&Head, Lock) == NULL);
    CHECK(ExInterlockedInsertTailList(&Head, &Second, Lock) == NULL); /* it was empty */
    CHECK(ExInterlockedInsertTailList(&Head, &Third, Lock) == &Second); /* its last entry before */
    CHECK(ExInterlockedInsertHeadList(&Head, &First, Lock) == &Second); /* its first entry before */
    CHECK(Head.Flink == &First && Head.Blink == &Third);
    CHECK(ExInterlockedRemoveHeadList(&Head, Lock) == &First);
    CHECK(ExInterlockedRemoveHeadList(&Head, Lock) == &Second);
    CHECK(ExInterlockedRemoveHeadList(&Head, Lock) == &Third);
    CHECK(IsListEmpty(&Head));
    return 0;
}

static ULONG Lists(VOID)
{
    SINGLE_LIST_ENTRY Single = {NULL}, First, Second;
    LARGE_INTEGER Large = After(0xFFFFFFFF);
    ULONG Small = 40;
    KSPIN_LOCK Lock;

    KeInitializeSpinLock(&Lock);
    CHECK_ALL(DoublyLinked(&Lock));
    CHECK(ExInterlockedPopEntryList(&Single, &Lock) == NULL);
    CHECK(ExInterlockedPushEntryList(&Single, &First, &Lock) == NULL);
    CHECK(ExInterlockedPushEntryList(&Single, &Second, &Lock) == &First);
    CHECK(ExInterlockedPopEntryList(&Single, &Lock) == &Second);
    CHECK(ExInterlockedPopEntryList(&Single, &Lock) == &First);
    CHECK(ExInterlockedAddUlong(&Small, 2, &Lock) == 40);
    CHECK(Small == 42);
    CHECK(ExInterlockedAddLargeInteger(&Large, After(1), &Lock).QuadPart == 0xFFFFFFFFll);
    CHECK(Large.QuadPart == 0x100000000ll);
    return 0;
}

static ULONG SequencedLists(VOID)
{
    SLIST_ENTRY Entries[3];
    SLIST_HEADER Head;
    PSLIST_ENTRY Flushed;

    InitializeSListHead(&Head);
    CHECK(ExQueryDepthSList(&Head) == 0);
    CHECK(ExpInterlockedPopEntrySList(&Head) == NULL);
    CHECK(ExpInterlockedPushEntrySList(&Head, &Entries[0]) == NULL);
    CHECK(ExpInterlockedPushEntrySList(&Head, &Entries[1]) == &Entries[0]);
    CHECK(ExpInterlockedPushEntrySList(&Head, &Entries[2]) == &Entries[1]);
    CHECK(ExQueryDepthSList(&Head) == 3);
    CHECK(ExpInterlockedPopEntrySList(&Head) == &Entries[2]);
    Flushed = ExpInterlockedFlushSList(&Head);
    CHECK(Flushed == &Entries[1] && Flushed->Next == &Entries[0] && Entries[0].Next == NULL);
    CHECK(ExQueryDepthSList(&Head) == 0);
    CHECK(ExpInterlockedFlushSList(&Head) == NULL);
    return 0;
}

static ULONG FoundBits(PRTL_BITMAP Map)
{
    CHECK(RtlFindClearBits(Map, 8, 0) == 0);
    CHECK(RtlFindClearBitsAndSet(Map, 5, 0) == 0);
    CHECK(RtlAreBitsSet(Map, 0, 5));
    CHECK(RtlFindClearBits(Map, 8, 0) == 14); /* 5 to 9 are too few: 10 to 13 are set */
    CHECK(RtlFindSetBits(Map, 4, 8) == 10);
    CHECK(RtlFindSetBits(Map, 20, 0) == 0xFFFFFFFF);
    RtlClearBits(Map, 0, 5);
    return 0;
}

static ULONG BitMaps(VOID)
{
    ULONG Bits[2] = {0xFFFFFFFF, 0xFFFFFFFF};
    RTL_BITMAP Map;

    RtlInitializeBitMap(&Map, Bits, 40);
    RtlClearAllBits(&Map);
    CHECK(RtlNumberOfSetBits(&Map) == 0);
    RtlSetBits(&Map, 10, 4);
    CHECK(Bits[0] == 0x3C00 && RtlNumberOfSetBits(&Map) == 4);
    CHECK(RtlAreBitsSet(&Map, 10, 4) && !RtlAreBitsSet(&Map, 9, 4));
    CHECK(RtlAreBitsClear(&Map, 0, 10) && !RtlAreBitsClear(&Map, 0, 11));
    CHECK_ALL(FoundBits(&Map));
    RtlSetBit(&Map, 35);
    CHECK(RtlTestBit(&Map, 35) && !RtlTestBit(&Map, 34));
    RtlClearBit(&Map, 35);
    CHECK(!RtlTestBit(&Map, 35));
    RtlSetAllBits(&Map);
    CHECK(RtlNumberOfSetBits(&Map) == 40);
    return 0;
}

static ULONG Bytes(VOID)
{
    char Text[16] = "abcdefgh", Other[16];

    NtRtlCopyMemory(Other, Text, 9);
    CHECK(RtlCompareMemory(Text, Other, 9) == 9);
    NtRtlMoveMemory(Text + 2, Text, 6); /* they overlap */
    CHECK(Same(Text, "ababcdef", 9));
    CHECK(RtlCompareMemory(Text, Other, 8) == 2); /* how many bytes are alike */
    memmove(Text, Text + 2, 7);
    CHECK(Same(Text, "abcdef", 7));
    NtRtlFillMemory(Other, 4, 'x');
    CHECK(Same(Other, "xxxxefgh", 9));
    NtRtlZeroMemory(Other, 8);
    CHECK(AllZero((const UCHAR *)Other, 9));
    RtlCopyMemoryNonTemporal(Other, Text, 7);
    CHECK(Same(Other, "abcdef", 7));
    CHECK(memcmp("abd", "abc", 3) > 0 && memcmp("abc", "abd", 3) < 0);
    CHECK(memchr(Text, 'd', 7) == Text + 3 && memchr(Text, 'z', 7) == NULL);
    return 0;
}
