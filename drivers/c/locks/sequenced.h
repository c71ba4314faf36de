/* A sequenced list whose header inlined code and the exported routines change alike. */
#include "locks.h"

typedef struct _ENTRY {
    SLIST_ENTRY Link;
    ULONG Number;
} ENTRY;

static SLIST_HEADER Head;
static volatile LONG Popped, Pushed;

/* As a compiler inlines it from _InterlockedCompareExchange128; the header's third form is depth, sequence, and the
 * first entry's address in its upper 60 bits. */
static BOOLEAN Exchange(SLIST_HEADER *Header, ULONGLONG Low, ULONGLONG High, SLIST_HEADER *Seen)
{
    BOOLEAN Done;

    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(Done), "+m"(*Header), "+a"(Seen->Alignment), "+d"(Seen->Region)
                     : "b"(Low), "c"(High)
                     : "memory");
    return Done;
}

static ULONGLONG Next(ULONGLONG Low, LONG By)
{
    USHORT Depth = (USHORT)(Low + By);

    return (((Low >> 16) + 1) << 16) | Depth;
}

static VOID PushInline(SLIST_HEADER *Header, PSLIST_ENTRY Entry)
{
    SLIST_HEADER Seen = *Header;

    do {
        Entry->Next = (PSLIST_ENTRY)(Seen.Region & ~0xFULL);
    } while (!Exchange(Header, Next(Seen.Alignment, 1), (ULONGLONG)Entry | (Seen.Region & 0xF), &Seen));
}

static PSLIST_ENTRY PopInline(SLIST_HEADER *Header)
{
    SLIST_HEADER Seen = *Header;
    PSLIST_ENTRY Entry;

    do {
        Entry = (PSLIST_ENTRY)(Seen.Region & ~0xFULL);
        if (Entry == NULL) {
            return NULL;
        }
    } while (!Exchange(Header, Next(Seen.Alignment, -1), (ULONGLONG)Entry->Next | (Seen.Region & 0xF), &Seen));
    return Entry;
}

NTKERNELAPI PSLIST_ENTRY NTAPI PushExported(PSLIST_HEADER Header, PSLIST_ENTRY Entry) __asm__("ExpInterlockedPushEntrySList");
NTKERNELAPI PSLIST_ENTRY NTAPI PopExported(PSLIST_HEADER Header) __asm__("ExpInterlockedPopEntrySList");
NTKERNELAPI PSLIST_ENTRY NTAPI FlushExported(PSLIST_HEADER Header) __asm__("ExpInterlockedFlushSList");
NTKERNELAPI VOID NTAPI InitializeExported(PSLIST_HEADER Header) __asm__("InitializeSListHead");
NTKERNELAPI USHORT NTAPI DepthExported(PSLIST_HEADER Header) __asm__("ExQueryDepthSList");

static ENTRY ListEntries[8] __attribute__((aligned(16)));

/* Takes two entries and puts them back, one way each. */
static NTSTATUS Shuffle(VOID)
{
    PSLIST_ENTRY One = PopInline(&Head), Two = PopExported(&Head);

    EXPECT(One != NULL && Two != NULL && One != Two);
    InterlockedExchangeAdd(&Popped, 2);
    if (One != NULL) {
        PushExported(&Head, One);
    }
    if (Two != NULL) {
        PushInline(&Head, Two);
    }
    InterlockedExchangeAdd(&Pushed, 2);
    return STATUS_SUCCESS;
}

static VOID FillList(VOID)
{
    InitializeExported(&Head);
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(ListEntries); Index++) {
        ListEntries[Index].Number = Index;
        PushInline(&Head, &ListEntries[Index].Link);
    }
}

/* Every entry is in the list once. */
static VOID ExpectFull(VOID)
{
    ULONG Seen = 0;

    EXPECT(DepthExported(&Head) == RTL_NUMBER_OF(ListEntries) && Pushed == Popped);
    for (PSLIST_ENTRY At = (PSLIST_ENTRY)(Head.Region & ~0xFULL); At != NULL; At = At->Next) {
        ULONG Bit = 1u << CONTAINING_RECORD(At, ENTRY, Link)->Number;
        EXPECT(!(Seen & Bit));
        Seen |= Bit;
    }
    EXPECT(Seen == (1u << RTL_NUMBER_OF(ListEntries)) - 1);
}

static ULONG SequencedInline(VOID)
{
    static ENTRY Entries[3] __attribute__((aligned(16)));
    static SLIST_HEADER Header;

    InitializeExported(&Header);
    PushInline(&Header, &Entries[0].Link);
    CHECK(PushExported(&Header, &Entries[1].Link) == &Entries[0].Link);
    PushInline(&Header, &Entries[2].Link);
    CHECK(DepthExported(&Header) == 3 && (USHORT)Header.Alignment == 3);
    CHECK(Header.Alignment >> 16 == 3); /* the sequence counts every change */
    CHECK((Header.Region & ~0xFULL) == (ULONGLONG)&Entries[2].Link);
    CHECK(PopExported(&Header) == &Entries[2].Link);
    CHECK(PopInline(&Header) == &Entries[1].Link);
    CHECK(DepthExported(&Header) == 1 && Header.Alignment >> 16 == 5);
    PushInline(&Header, &Entries[1].Link);
    CHECK(FlushExported(&Header) == &Entries[1].Link && Entries[1].Link.Next == &Entries[0].Link);
    CHECK(DepthExported(&Header) == 0 && PopInline(&Header) == NULL && PopExported(&Header) == NULL);
    return 0;
}
