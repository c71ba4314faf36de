/* Pairs of pool, lookaside lists and what lies in blocks of pool. */
#ifndef PAIRS_POOL_H
#define PAIRS_POOL_H

#include "pairs.h"

static VOID FreePoolIfAny(PVOID Block)
{
    if (Block != NULL) {
        Free(Block);
    }
}

static VOID PoolWrite(SIZE_T Bytes, LONG_PTR At)
{
    volatile UCHAR *Block = Nonpaged(Bytes);

    if (Block != NULL) {
        Block[At] = 1;
        Free((PVOID)(ULONG_PTR)Block);
    }
}

static VOID PoolOverrun(BOOLEAN Wrong)
{
    PoolWrite(100, Wrong ? 100 : 99);
}

static VOID PoolUnderrun(BOOLEAN Wrong)
{
    PoolWrite(100, Wrong ? -1 : 0);
}

static VOID UseAfterFree(BOOLEAN Wrong)
{
    volatile ULONG *Block = Nonpaged(64);

    if (Block == NULL) {
        return;
    }
    if (!Wrong) {
        Sink = Block[0];
    }
    Free((PVOID)(ULONG_PTR)Block);
    if (Wrong) {
        Sink = Block[0];
    }
}

/* Where the machine is not checked byte by byte, this is seen when the block's memory is looked at again. */
static VOID WriteAfterFree(BOOLEAN Wrong)
{
    volatile ULONG *Block = Nonpaged(64);

    if (Block == NULL) {
        return;
    }
    if (!Wrong) {
        Block[0] = 1;
    }
    Free((PVOID)(ULONG_PTR)Block);
    if (Wrong) {
        Block[0] = 1;
    }
}

static VOID MemoryUsedUp(BOOLEAN Wrong)
{
    PVOID *First = NULL, *Block;
    ULONG Left = Wrong ? 4096 : 4;

    while (Left-- != 0 && (Block = ExAllocatePoolWithTag(NonPagedPoolNx, 1 << 20, TAG)) != NULL) {
        *Block = First;
        First = Block;
    }
    while (First != NULL) {
        Block = *First;
        Free(First);
        First = Block;
    }
}

static VOID DoubleFree(BOOLEAN Wrong)
{
    PVOID Block = Nonpaged(64);

    if (Block == NULL) {
        return;
    }
    Free(Block);
    if (!Wrong) {
        Block = Nonpaged(64);
    }
    FreePoolIfAny(Block);
}

static VOID BadFree(BOOLEAN Wrong)
{
    PUCHAR Block = Nonpaged(64);

    if (Block != NULL) {
        Free(Wrong ? Block + 16 : Block);
    }
}

static VOID PoolTagMismatch(BOOLEAN Wrong)
{
    PVOID Block = Nonpaged(64);

    if (Block != NULL) {
        ExFreePoolWithTag(Block, Wrong ? 0x726F6F50u : TAG);
    }
}

static VOID PoolTag(BOOLEAN Wrong)
{
    PVOID Block = ExAllocatePoolWithTag(NonPagedPoolNx, 64, Wrong ? 0 : TAG);

    if (Block != NULL) {
        ExFreePool(Block);
    }
}

static VOID ExecutablePool(BOOLEAN Wrong)
{
    FreePoolIfAny(ExAllocatePoolWithTag(Wrong ? NonPagedPool : NonPagedPoolNx, 64, TAG));
}

static VOID PoolLeak(BOOLEAN Wrong)
{
    PVOID Block = Nonpaged(64);

    if (Block != NULL && !Wrong) {
        Free(Block);
    }
}

static VOID PoolIrql(BOOLEAN Wrong)
{
    PVOID Block;
    KIRQL Old;

    KeRaiseIrql(Wrong ? DISPATCH_LEVEL : APC_LEVEL, &Old);
    Block = ExAllocatePoolWithTag(PagedPool, 64, TAG);
    KeLowerIrql(Old);
    FreePoolIfAny(Block);
}

static VOID PoolMustSucceed(BOOLEAN Wrong)
{
    FreePoolIfAny(ExAllocatePoolWithTag(Wrong ? NonPagedPoolMustSucceed : NonPagedPoolNx, 64, TAG));
}

static VOID PoolZeroBytes(BOOLEAN Wrong)
{
    FreePoolIfAny(ExAllocatePoolWithTag(NonPagedPoolNx, Wrong ? 0 : 1, TAG));
}

static VOID PagedAtRaisedIrql(BOOLEAN Wrong)
{
    volatile ULONG *Block = ExAllocatePoolWithTag(PagedPool, 64, TAG);
    KIRQL Old;

    if (Block == NULL) {
        return;
    }
    Block[0] = 1;
    KeRaiseIrql(Wrong ? DISPATCH_LEVEL : APC_LEVEL, &Old);
    Sink = Block[0];
    KeLowerIrql(Old);
    Free((PVOID)(ULONG_PTR)Block);
}

static VOID FreedWhileInUse(BOOLEAN Wrong)
{
    PERESOURCE Own = Nonpaged(sizeof(*Own));

    if (Own == NULL) {
        return;
    }
    ExInitializeResourceLite(Own);
    if (!Wrong) {
        ExDeleteResourceLite(Own);
    }
    Free(Own);
}

/* NULL if there is none. */
static PNPAGED_LOOKASIDE_LIST NewList(VOID)
{
    PNPAGED_LOOKASIDE_LIST List = Nonpaged(sizeof(*List));

    if (List != NULL) {
        ExInitializeNPagedLookasideList(List, NULL, NULL, 0, 48, TAG, 0);
    }
    return List;
}

static VOID LookasideInitializedTwice(BOOLEAN Wrong)
{
    PNPAGED_LOOKASIDE_LIST List = NewList();

    if (List == NULL) {
        return;
    }
    if (!Wrong) {
        ExDeleteNPagedLookasideList(List);
    }
    ExInitializeNPagedLookasideList(List, NULL, NULL, 0, 48, TAG, 0);
    ExDeleteNPagedLookasideList(List);
    Free(List);
}

/* In the driver's own data: in a block of pool it would be the block that is leaked, or freed with a list in it. */
static VOID LookasideLeak(BOOLEAN Wrong)
{
    static NPAGED_LOOKASIDE_LIST List;

    ExInitializeNPagedLookasideList(&List, NULL, NULL, 0, 48, TAG, 0);
    if (!Wrong) {
        ExDeleteNPagedLookasideList(&List);
    }
}

static VOID LookasidePageable(BOOLEAN Wrong)
{
    PNPAGED_LOOKASIDE_LIST List = ExAllocatePoolWithTag(Wrong ? PagedPool : NonPagedPoolNx, sizeof(*List), TAG);

    if (List == NULL) {
        return;
    }
    ExInitializeNPagedLookasideList(List, NULL, NULL, 0, 48, TAG, 0);
    ExDeleteNPagedLookasideList(List);
    Free(List);
}

static VOID LookasideSize(BOOLEAN Wrong)
{
    PNPAGED_LOOKASIDE_LIST List = Nonpaged(sizeof(*List));

    if (List == NULL) {
        return;
    }
    ExInitializeNPagedLookasideList(List, NULL, NULL, 0, Wrong ? 0 : 48, TAG, 0);
    ExDeleteNPagedLookasideList(List);
    Free(List);
}

static VOID LookasideUninitialized(BOOLEAN Wrong)
{
    PNPAGED_LOOKASIDE_LIST List = NewList();

    if (List == NULL) {
        return;
    }
    if (Wrong) {
        ExDeleteNPagedLookasideList(List);
    }
    ExDeleteNPagedLookasideList(List);
    Free(List);
}

static VOID ListCorrupt(BOOLEAN Wrong)
{
    static KSPIN_LOCK Own;
    static LIST_ENTRY Head, Entry;

    KeInitializeSpinLock(&Own);
    InitializeListHead(&Head);
    InsertTailList(&Head, &Entry);
    if (Wrong) {
        Entry.Blink = &Entry;
    }
    ExInterlockedRemoveHeadList(&Head, &Own);
}

NTKERNELAPI VOID NTAPI PsChargePoolQuota(PEPROCESS Process, POOL_TYPE Type, ULONG_PTR Bytes);
NTKERNELAPI VOID NTAPI PsReturnPoolQuota(PEPROCESS Process, POOL_TYPE Type, ULONG_PTR Bytes);

static VOID QuotaUnderflow(BOOLEAN Wrong)
{
    PEPROCESS Process = PsGetCurrentProcess();

    PsChargePoolQuota(Process, NonPagedPool, 100);
    PsReturnPoolQuota(Process, NonPagedPool, Wrong ? 101 : 100);
}

/* memcpy, where memmove is due. */
static VOID OverlappingCopy(BOOLEAN Wrong)
{
    PUCHAR Block = Nonpaged(64);
    volatile SIZE_T Bytes = 16;

    if (Block == NULL) {
        return;
    }
    memcpy(Block + (Wrong ? 1 : 32), Block, Bytes);
    Sink = Block[2];
    Free(Block);
}

static VOID ObjectInPageableMemory(BOOLEAN Wrong)
{
    PKEVENT Event = ExAllocatePoolWithTag(Wrong ? PagedPool : NonPagedPoolNx, sizeof(KEVENT), TAG);

    if (Event == NULL) {
        return;
    }
    KeInitializeEvent(Event, NotificationEvent, TRUE);
    WaitFor(Event);
    Free(Event);
}

#define POOL_PAIRS                                                                                                     \
    PAIR("bad-free", BadFree)                                                                                          \
    PAIR("double-free", DoubleFree)                                                                                    \
    PAIR("executable-pool", ExecutablePool)                                                                            \
    PAIR("freed-while-in-use", FreedWhileInUse)                                                                        \
    PAIR("list-corrupt", ListCorrupt)                                                                                  \
    PAIR("lookaside-initialized-twice", LookasideInitializedTwice)                                                     \
    PAIR("lookaside-leak", LookasideLeak)                                                                              \
    PAIR("lookaside-pageable", LookasidePageable)                                                                      \
    PAIR("lookaside-size", LookasideSize)                                                                              \
    PAIR("lookaside-uninitialized", LookasideUninitialized)                                                            \
    PAIR("memory-used-up", MemoryUsedUp)                                                                               \
    PAIR("paged-at-raised-irql", PagedAtRaisedIrql)                                                                    \
    PAIR("pool-irql", PoolIrql)                                                                                        \
    PAIR("pool-leak", PoolLeak)                                                                                        \
    PAIR("pool-must-succeed", PoolMustSucceed)                                                                         \
    PAIR("pool-overrun", PoolOverrun)                                                                                  \
    PAIR("pool-tag", PoolTag)                                                                                          \
    PAIR("pool-tag-mismatch", PoolTagMismatch)                                                                         \
    PAIR("pool-underrun", PoolUnderrun)                                                                                \
    PAIR("pool-zero-bytes", PoolZeroBytes)                                                                             \
    PAIR("object-in-pageable-memory", ObjectInPageableMemory)                                                          \
    PAIR("overlapping-copy", OverlappingCopy)                                                                          \
    PAIR("quota-underflow", QuotaUnderflow)                                                                            \
    PAIR("use-after-free", UseAfterFree)                                                                               \
    PAIR("write-after-free", WriteAfterFree)

#endif
