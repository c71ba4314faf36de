/* Code and data of the driver's that may be paged out, locked and unlocked; one mistake each, by `Chosen`, which a checked machine tells. */
#include "memory.h"

__attribute__((section("PAGEMEM"), noinline)) static ULONG PagedTriple(ULONG Number)
{
    return Number * 3;
}

__attribute__((section("PAGEVARS"))) static volatile ULONG PagedCount = 1;

/* Discarded where the section is discardable, for which this compiler has no word: the test sets the flag in the file. */
__attribute__((section("INIT"), noinline)) static ULONG OnlyAtStart(ULONG Number)
{
    return Number + 1;
}

/* Of a section that is resident unless the whole driver may be paged. */
__attribute__((section("RESIDENT"), noinline)) static ULONG Resident(ULONG Number)
{
    return Number * 5;
}

/* Calls a routine at DISPATCH_LEVEL; this one is resident in any case, as it is locked. */
NTKERNELAPI VOID NTAPI MmLockPagableSectionByHandle(PVOID Handle);

typedef ULONG (*TAKES_NUMBER)(ULONG);
__attribute__((noinline)) static ULONG AtDispatch(TAKES_NUMBER Routine, ULONG Number)
{
    KIRQL Old;
    ULONG Answer;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Answer = Routine(Number);
    KeLowerIrql(Old);
    return Answer;
}

static ULONG Counted(ULONG Number)
{
    return PagedCount += Number;
}

static ULONG PagedSections(VOID)
{
    PVOID Self = (PVOID)(ULONG_PTR)PagedSections, Code, Data, Own, OwnData;

    CHECK(PagedTriple(1) == 3 && PagedCount != 0); /* below DISPATCH_LEVEL it is there */
    Code = MmLockPagableDataSection((PVOID)(ULONG_PTR)PagedTriple);
    MmLockPagableSectionByHandle(Code);
    CHECK(Code != NULL && AtDispatch(PagedTriple, 2) == 6);
    MmUnlockPagableImageSection(Code);
    CHECK(AtDispatch(PagedTriple, 3) == 9); /* locked twice, unlocked once */
    Data = MmLockPagableDataSection((PVOID)&PagedCount);
    PagedCount = 1;
    CHECK(Data != NULL && Data != Code && AtDispatch(Counted, 4) == 5);

    /* All of the driver may be paged, but what it has locked: its code and its variables. */
    Own = MmLockPagableDataSection(Self);
    OwnData = MmLockPagableDataSection((PVOID)&ChecksHeld);
    CHECK(MmPageEntireDriver(Self) == TheDriver->DriverStart);
    CHECK(AtDispatch(PagedTriple, 4) == 12 && Resident(2) == 10);
    switch (Chosen) {
    case 1: /* what was unlocked as often as it was locked */
        MmUnlockPagableImageSection(Code);
        ChecksHeld += AtDispatch(PagedTriple, 1);
        break;
    case 2: /* the same, data */
        MmUnlockPagableImageSection(Data);
        ChecksHeld += AtDispatch(Counted, 1);
        break;
    case 3: /* what is resident as a rule */
        ChecksHeld += AtDispatch(Resident, 1);
        break;
    case 4: /* the same, which was locked and is not any more */
        MmUnlockPagableImageSection(MmLockPagableDataSection((PVOID)(ULONG_PTR)Resident));
        ChecksHeld += AtDispatch(Resident, 1);
        break;
    case 5: /* what has gone with the driver's start */
        ChecksHeld += OnlyAtStart(1);
        break;
    default:
        break;
    }
    MmResetDriverPaging(Self);
    CHECK(AtDispatch(Resident, 2) == 10 && AtDispatch(PagedTriple, 5) == 15);
    MmUnlockPagableImageSection(Own);
    MmUnlockPagableImageSection(OwnData);
    CHECK(AtDispatch(Resident, 3) == 15); /* .text is resident again, locked or not */
    MmUnlockPagableImageSection(Code);
    MmUnlockPagableImageSection(Data);
    CHECK(PagedTriple(6) == 18);
    if (Chosen == 6) {
        ChecksHeld += AtDispatch(PagedTriple, 1);
    }
    return 0;
}
