/* Zones: the routines, and the macros over the header that they leave, as ntddk.h has them (mingw's wdm.h has neither). */
#include "memory.h"

typedef struct _ZONE_SEGMENT_HEADER {
    SINGLE_LIST_ENTRY SegmentList;
    PVOID Reserved;
} ZONE_SEGMENT_HEADER, *PZONE_SEGMENT_HEADER;

typedef struct _ZONE_HEADER {
    SINGLE_LIST_ENTRY FreeList;
    SINGLE_LIST_ENTRY SegmentList;
    ULONG BlockSize;
    ULONG TotalSegmentSize;
} ZONE_HEADER, *PZONE_HEADER;

NTKERNELAPI NTSTATUS NTAPI ExInitializeZone(PZONE_HEADER Zone, ULONG BlockSize, PVOID Segment, ULONG SegmentSize);
NTKERNELAPI NTSTATUS NTAPI ExExtendZone(PZONE_HEADER Zone, PVOID Segment, ULONG SegmentSize);
NTKERNELAPI NTSTATUS NTAPI ExInterlockedExtendZone(PZONE_HEADER Zone, PVOID Segment, ULONG SegmentSize, PKSPIN_LOCK Lock);

static inline PVOID ExAllocateFromZone(PZONE_HEADER Zone)
{
    PSINGLE_LIST_ENTRY Block = Zone->FreeList.Next;

    if (Block != NULL) {
        Zone->FreeList.Next = Block->Next;
    }
    return Block;
}

static inline PVOID ExFreeToZone(PZONE_HEADER Zone, PVOID Block)
{
    PSINGLE_LIST_ENTRY Entry = Block;

    Entry->Next = Zone->FreeList.Next;
    Zone->FreeList.Next = Entry;
    return Entry->Next;
}

#define ExInterlockedAllocateFromZone(Zone, Lock) ((PVOID)ExInterlockedPopEntryList(&(Zone)->FreeList, Lock))
#define ExInterlockedFreeToZone(Zone, Block, Lock)                                                                     \
    ExInterlockedPushEntryList(&(Zone)->FreeList, (PSINGLE_LIST_ENTRY)(Block), Lock)
#define ExIsFullZone(Zone) ((Zone)->FreeList.Next == NULL)
#define ExIsObjectInFirstZoneSegment(Zone, Object)                                                                     \
    ((PUCHAR)(Object) >= (PUCHAR)(Zone)->SegmentList.Next &&                                                           \
     (PUCHAR)(Object) < (PUCHAR)(Zone)->SegmentList.Next + (Zone)->TotalSegmentSize)

#define BLOCK 64u
#define FITS(Size) (((Size) - sizeof(ZONE_SEGMENT_HEADER)) / BLOCK)

/* Takes every block of a zone: how many there are within [Start, Start + Size), aligned, none twice; 0 where one is elsewhere. */
static ULONG TakeBlocks(PZONE_HEADER Zone, PUCHAR Start, ULONG Size)
{
    ULONG Taken = 0;

    while (!ExIsFullZone(Zone)) {
        PUCHAR Block = ExAllocateFromZone(Zone);

        if (Block < Start + sizeof(ZONE_SEGMENT_HEADER) || Block + BLOCK > Start + Size ||
            (Block - Start - sizeof(ZONE_SEGMENT_HEADER)) % BLOCK != 0) {
            return 0;
        }
        RtlFillMemory(Block, BLOCK, 0x5A); /* a block that came twice would lead the list astray */
        Taken++;
    }
    return Taken;
}

static ULONG Zones(VOID)
{
    static ZONE_HEADER Zone;
    PUCHAR First = ExAllocatePoolWithTag(NonPagedPool, 1024, MEMORY_TAG);
    PUCHAR Second = ExAllocatePoolWithTag(NonPagedPool, 512, MEMORY_TAG);
    PVOID One, Two;

    CHECK(sizeof(ZONE_HEADER) == 24 && sizeof(ZONE_SEGMENT_HEADER) == 16 && First != NULL && Second != NULL);
    CHECK(ExInitializeZone(&Zone, BLOCK, First, 1024) == STATUS_SUCCESS);
    CHECK(Zone.BlockSize == BLOCK && Zone.SegmentList.Next == (PVOID)First && Zone.TotalSegmentSize == 1024);
    One = ExAllocateFromZone(&Zone);
    Two = ExAllocateFromZone(&Zone);
    CHECK(One != NULL && Two != NULL && One != Two && !ExIsFullZone(&Zone));
    CHECK(ExIsObjectInFirstZoneSegment(&Zone, One) && !ExIsObjectInFirstZoneSegment(&Zone, &Zone));
    ExFreeToZone(&Zone, Two);
    CHECK(ExAllocateFromZone(&Zone) == Two); /* the one that came back last */
    ExFreeToZone(&Zone, Two);
    ExFreeToZone(&Zone, One);
    CHECK(TakeBlocks(&Zone, First, 1024) == FITS(1024));
    CHECK(ExIsFullZone(&Zone) && ExAllocateFromZone(&Zone) == NULL);

    CHECK(ExExtendZone(&Zone, Second, 512) == STATUS_SUCCESS);
    CHECK(ExIsObjectInFirstZoneSegment(&Zone, One) && !ExIsFullZone(&Zone));
    CHECK(TakeBlocks(&Zone, Second, 512) == FITS(512));
    ExFreeToZone(&Zone, One); /* of the initial segment, behind an extension */
    CHECK(ExAllocateFromZone(&Zone) == One && ExIsFullZone(&Zone));
    ExFreePoolWithTag(Second, MEMORY_TAG);
    ExFreePoolWithTag(First, MEMORY_TAG);
    return 0;
}

static ULONG ZonesWithLock(VOID)
{
    static ZONE_HEADER TheZone;
    static KSPIN_LOCK Lock;
    PZONE_HEADER Zone = &TheZone;
    PUCHAR First = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, MEMORY_TAG);
    PUCHAR Second = First + 1024;
    PVOID One, Two;
    KIRQL Old;

    CHECK(First != NULL);
    KeInitializeSpinLock(&Lock);
    CHECK(ExInitializeZone(Zone, BLOCK, First, sizeof(ZONE_SEGMENT_HEADER) + 2 * BLOCK) == STATUS_SUCCESS);
    One = ExInterlockedAllocateFromZone(Zone, &Lock);
    Two = ExInterlockedAllocateFromZone(Zone, &Lock);
    CHECK(One != NULL && Two != NULL && One != Two && ExInterlockedAllocateFromZone(Zone, &Lock) == NULL);
    CHECK(ExInterlockedFreeToZone(Zone, One, &Lock) == NULL); /* from no free blocks to one */
    CHECK(ExInterlockedFreeToZone(Zone, Two, &Lock) == One);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(ExInterlockedExtendZone(Zone, Second, 512, &Lock) == STATUS_SUCCESS);
    KeLowerIrql(Old);
    CHECK(Zone->SegmentList.Next == (PVOID)First && Zone->SegmentList.Next->Next == (PVOID)Second);
    CHECK(Zone->SegmentList.Next->Next->Next == NULL && Lock == 0);
    for (ULONG Count = 0; Count < FITS(512); Count++) {
        PUCHAR Block = ExInterlockedAllocateFromZone(Zone, &Lock);

        CHECK(Block > Second && Block + BLOCK <= Second + 512);
    }
    CHECK(ExInterlockedAllocateFromZone(Zone, &Lock) == Two && ExInterlockedAllocateFromZone(Zone, &Lock) == One);
    CHECK(ExIsFullZone(Zone));
    ExFreePoolWithTag(First, MEMORY_TAG);
    return 0;
}

/* What the pages refuse with STATUS_UNSUCCESSFUL leaves header and memory as they were. */
static ULONG ZonesRefused(VOID)
{
    static ZONE_HEADER Zone;
    static ULONGLONG Segment[32];
    PUCHAR At = (PUCHAR)Segment;

    CHECK(ExInitializeZone(&Zone, 12, At, sizeof(Segment)) == STATUS_UNSUCCESSFUL);
    CHECK(ExInitializeZone(&Zone, 16, At + 4, sizeof(Segment) - 8) == STATUS_UNSUCCESSFUL);
    CHECK(ExInitializeZone(&Zone, sizeof(Segment) + 8, At, sizeof(Segment)) == STATUS_UNSUCCESSFUL);
    CHECK(Zone.BlockSize == 0 && Zone.SegmentList.Next == NULL && Segment[0] == 0);
    CHECK(ExInitializeZone(&Zone, sizeof(Segment) / 2, At, sizeof(Segment) / 2) == STATUS_SUCCESS);
    CHECK(ExIsFullZone(&Zone)); /* the segment's header takes room too */
    CHECK(ExExtendZone(&Zone, &Segment[17], sizeof(Segment) / 2 - 8) == STATUS_UNSUCCESSFUL); /* less than a block */
    CHECK(ExExtendZone(&Zone, At + 130, 128) == STATUS_UNSUCCESSFUL);
    CHECK(ExIsFullZone(&Zone) && Zone.SegmentList.Next->Next == NULL);
    return 0;
}

#undef BLOCK
#undef FITS
