/* Blocks of special pool: where they lie, and who goes beyond them. `Chosen` says how the machine is set, or which mistake is made. */
#include "memory.h"

NTKERNELAPI PVOID NTAPI ExAllocatePool2(ULONG64 Flags, SIZE_T Bytes, ULONG Tag);

#define FLAG_PAGED 0x100ull
#define FLAG_NON_PAGED 0x40ull
#define FLAG_CACHE_ALIGNED 0x8ull
#define FLAG_SPECIAL_POOL 0x100000000ull

#define OTHER_TAG 0x7274784Fu /* Oxtr */

enum { AT_END, AT_START, NOT_SPECIAL }; /* of Chosen: how the machine is set */

/* The bytes up to the end of the page that a block of so many bytes ends in; 16 is an address's alignment. */
static ULONG_PTR Rest(PVOID Block, SIZE_T Bytes)
{
    return (PAGE_SIZE - (((ULONG_PTR)Block + ((Bytes + 15) & ~15ull)) & (PAGE_SIZE - 1))) & (PAGE_SIZE - 1);
}

static BOOLEAN LiesAs(ULONG Side, PVOID Block, SIZE_T Bytes)
{
    return Side == AT_END ? Rest(Block, Bytes) == 0 : Side == AT_START ? ((ULONG_PTR)Block & (PAGE_SIZE - 1)) == 0 : TRUE;
}

/* Allocates, fills and frees blocks, from the lists too, each used to its last byte. */
static ULONG SpecialBlocks(VOID)
{
    static const SIZE_T Sizes[] = {1, 16, 20, 1000, 4064, 4090, PAGE_SIZE, 5000, 2 * PAGE_SIZE, 70000};
    NPAGED_LOOKASIDE_LIST List;
    PUCHAR Block, Again;
    ULONG Index;

    for (Index = 0; Index < RTL_NUMBER_OF(Sizes); Index++) {
        Block = ExAllocatePoolWithTag(Index % 2 == 0 ? NonPagedPoolNx : PagedPool, Sizes[Index], MEMORY_TAG);
        CHECK(Block != NULL);
        CHECK(Sizes[Index] < PAGE_SIZE ? LiesAs(Chosen, Block, Sizes[Index]) : LiesAs(AT_START, Block, 0));
        RtlFillMemory(Block, Sizes[Index], (UCHAR)Index);
        CHECK(Block[0] == Index && Block[Sizes[Index] - 1] == Index);
        ExFreePoolWithTag(Block, MEMORY_TAG);
    }
    Block = ExAllocatePool2(FLAG_NON_PAGED | FLAG_CACHE_ALIGNED, 100, MEMORY_TAG);
    CHECK(Block != NULL && ((ULONG_PTR)Block & 63) == 0 && Block[99] == 0);
    CHECK(Chosen != AT_END || Rest(Block, 128) == 0);
    ExFreePoolWithTag(Block, MEMORY_TAG);

    /* A caller may ask for a side of its own, but not for special pool; with a flag it may. */
    Block = ExAllocatePoolWithTagPriority(NonPagedPoolNx, 40, MEMORY_TAG, NormalPoolPrioritySpecialPoolUnderrun);
    Again = ExAllocatePoolWithTagPriority(NonPagedPoolNx, 40, MEMORY_TAG, HighPoolPrioritySpecialPoolOverrun);
    CHECK(Block != NULL && Again != NULL);
    CHECK((LiesAs(AT_START, Block, 40) && LiesAs(AT_END, Again, 40)) == (Chosen != NOT_SPECIAL));
    ExFreePoolWithTag(Block, MEMORY_TAG);
    ExFreePoolWithTag(Again, MEMORY_TAG);
    Block = ExAllocatePool2(FLAG_PAGED | FLAG_SPECIAL_POOL, 40, OTHER_TAG);
    CHECK(Block != NULL && LiesAs(Chosen == AT_START ? AT_START : AT_END, Block, 40));
    ExFreePoolWithTag(Block, OTHER_TAG);

    /* What a list gets back it does not keep, if freed blocks are to be gone. */
    ExInitializeNPagedLookasideList(&List, NULL, NULL, 0, 64, MEMORY_TAG, 0);
    Block = ExAllocateFromNPagedLookasideList(&List);
    CHECK(Block != NULL && LiesAs(Chosen, Block, 64));
    ExFreeToNPagedLookasideList(&List, Block);
    Again = ExAllocateFromNPagedLookasideList(&List);
    CHECK(Again != NULL && (Again == Block) == (Chosen == NOT_SPECIAL));
    ExFreeToNPagedLookasideList(&List, Again);
    ExDeleteNPagedLookasideList(&List);
    return 0;
}

/* Where one mistake is made, by `Chosen`. */
__attribute__((noinline)) static VOID Put(volatile UCHAR *Byte)
{
    *Byte = 0x55;
}

__attribute__((noinline)) static UCHAR Get(volatile UCHAR *Byte)
{
    return *Byte;
}

static ULONG SpecialMistake(VOID)
{
    SIZE_T Bytes = Chosen == 2 ? 20 : Chosen == 7 ? 2 * PAGE_SIZE : 48;
    PUCHAR Block = ExAllocatePoolWithTag(Chosen == 7 ? PagedPool : NonPagedPoolNx, Bytes, MEMORY_TAG);
    ULONG_PTR Address = (ULONG_PTR)Block; /* through an integer, so that the compiler does not see it coming */
    NPAGED_LOOKASIDE_LIST List;
    KIRQL Old;

    CHECK(Block != NULL);
    switch (Chosen) {
    case 0: /* behind its end */
        Put((PUCHAR)(Address + Bytes));
        break;
    case 1: /* the same, read */
        ChecksHeld += Get((PUCHAR)(Address + Bytes + 7));
        break;
    case 2: /* behind its end, before the end of the page */
        Put((PUCHAR)(Address + Bytes));
        break;
    case 3: /* before it */
        Put((PUCHAR)(Address - 1));
        break;
    case 4: /* when it is freed */
        ExFreePoolWithTag(Block, MEMORY_TAG);
        ChecksHeld += Get((PUCHAR)(Address + 8));
        return 0;
    case 5: /* the same, at DISPATCH_LEVEL */
        ExFreePoolWithTag(Block, MEMORY_TAG);
        KeRaiseIrql(DISPATCH_LEVEL, &Old);
        Put((PUCHAR)(Address + 8));
        KeLowerIrql(Old);
        return 0;
    case 6: /* by the kernel, which was asked to */
        ExFreePoolWithTag(Block, MEMORY_TAG);
        KeSetEvent((PKEVENT)Address, IO_NO_INCREMENT, FALSE);
        return 0;
    case 7: /* behind two pages */
        Put((PUCHAR)(Address + Bytes));
        break;
    case 8: /* given back to a list */
        ExInitializeNPagedLookasideList(&List, NULL, NULL, 0, 64, MEMORY_TAG, 0);
        Address = (ULONG_PTR)ExAllocateFromNPagedLookasideList(&List);
        ExFreeToNPagedLookasideList(&List, (PVOID)Address);
        Put((PUCHAR)(Address + 32));
        ExDeleteNPagedLookasideList(&List);
        break;
    default:
        break;
    }
    ExFreePoolWithTag(Block, MEMORY_TAG);
    return 0;
}

/* Blocks that stay until the story runs once more, for a test that asks what is held meanwhile. */
static ULONG HeldBlocks(VOID)
{
    static PVOID Held[3];
    ULONG Index;

    for (Index = 0; Index < RTL_NUMBER_OF(Held); Index++) {
        if (Held[Index] != NULL) {
            ExFreePoolWithTag(Held[Index], OTHER_TAG);
            Held[Index] = NULL;
        } else {
            Held[Index] = ExAllocatePoolWithTag(Index == 0 ? PagedPool : NonPagedPool, 100 * (Index + 1), OTHER_TAG);
            CHECK(Held[Index] != NULL);
        }
    }
    return 0;
}

typedef struct _EXTENDED_PARAMETER { /* POOL_EXTENDED_PARAMETER, newer than mingw's headers */
    ULONG64 Type : 8, Optional : 1, Reserved : 55;
    ULONG64 Value;
} EXTENDED_PARAMETER;

NTKERNELAPI PVOID NTAPI ExAllocatePool3(ULONG64 Flags, SIZE_T Bytes, ULONG Tag, EXTENDED_PARAMETER *Parameters, ULONG Count);

enum { PRIORITY = 1, SECURE_POOL = 2, NODE = 3, ANY_NODE = 0x80000000 };

static BOOLEAN IsGiven(ULONG64 Flags, ULONG Count, EXTENDED_PARAMETER *Parameters)
{
    PVOID Block = ExAllocatePool3(Flags, 64, MEMORY_TAG, Parameters, Count);

    if (Block != NULL) {
        ExFreePoolWithTag(Block, MEMORY_TAG);
    }
    return Block != NULL;
}

/* A priority of the enumeration and a node that there is are heeded; whatever else is refused, unless it is optional. */
static ULONG ExtendedParameters(VOID)
{
    EXTENDED_PARAMETER Low = {PRIORITY, 0, 0, LowPoolPriority}, None = {PRIORITY, 0, 0, 17};
    EXTENDED_PARAMETER Node = {NODE, 0, 0, 0}, Far = {NODE, 0, 0, 5}, Any = {NODE, 0, 0, 5 | (ULONG64)ANY_NODE};
    EXTENDED_PARAMETER Secure = {SECURE_POOL, 0, 0, 0}, Unknown = {77, 0, 0, 0}, Invalid = {0, 0, 0, 0};
    EXTENDED_PARAMETER Both[] = {{PRIORITY, 0, 0, HighPoolPriority}, {NODE, 0, 0, 0}};

    CHECK(IsGiven(FLAG_NON_PAGED, 1, &Low) && !IsGiven(FLAG_NON_PAGED, 1, &None));
    CHECK(IsGiven(FLAG_NON_PAGED, 1, &Node) && !IsGiven(FLAG_NON_PAGED, 1, &Far) && IsGiven(FLAG_NON_PAGED, 1, &Any));
    CHECK(!IsGiven(FLAG_PAGED, 1, &Node)); /* only nonpaged pool has nodes */
    CHECK(IsGiven(FLAG_NON_PAGED, 2, Both));
    CHECK(!IsGiven(FLAG_PAGED, 1, &Secure) && !IsGiven(FLAG_PAGED, 1, &Unknown) && !IsGiven(FLAG_PAGED, 1, &Invalid));
    None.Optional = Far.Optional = Secure.Optional = Unknown.Optional = 1;
    CHECK(IsGiven(FLAG_NON_PAGED, 1, &None) && IsGiven(FLAG_NON_PAGED, 1, &Far));
    CHECK(IsGiven(FLAG_PAGED, 1, &Secure) && IsGiven(FLAG_PAGED, 1, &Unknown));
    return 0;
}

/* Takes nonpaged pool of one priority until there is no more, then asks for some of each; gives all back. */
static ULONG Priorities(VOID)
{
    static const EX_POOL_PRIORITY Order[] = {LowPoolPriority, NormalPoolPriority, HighPoolPriority};
    SIZE_T Bytes = 4 * PAGE_SIZE;
    PVOID *Last = NULL, *Block;
    ULONG Index, Counts[3] = {0};

    for (Index = 0; Index < 3; Index++) {
        while ((Block = ExAllocatePoolWithTagPriority(NonPagedPoolNx, Bytes, MEMORY_TAG, Order[Index])) != NULL) {
            *Block = Last;
            Last = (PVOID *)Block;
            Counts[Index]++;
        }
    }
    for (; Last != NULL; Last = Block) {
        Block = *Last;
        ExFreePoolWithTag(Last, MEMORY_TAG);
    }
    CHECK(Counts[0] > 0 && Counts[1] > 0 && Counts[2] > 0); /* each leaves some to the next */
    CHECK(Counts[0] > 2 * Counts[1] && Counts[1] > Counts[2]);
    return 0;
}

/* A packet of IoAllocateIrp that is used beyond its last stack location, or when it is freed: Chosen says which. */
static ULONG PacketMisused(VOID)
{
    PIRP Irp = IoAllocateIrp(2, FALSE);
    volatile ULONG *Word;

    CHECK(Irp != NULL);
    Word = (volatile ULONG *)((PUCHAR)Irp + IoSizeOfIrp(2) - sizeof(ULONG));
    Word[0] = 0;
    if (Chosen == 1) {
        Word[1] = 0;
    }
    IoFreeIrp(Irp);
    if (Chosen == 2) {
        Word[0] = 0;
    }
    return 0;
}
