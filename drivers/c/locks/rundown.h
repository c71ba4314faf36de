/* Run-down protection, plain and cache-aware. */
#include "locks.h"

static EX_RUNDOWN_REF Object;
static PEX_RUNDOWN_REF_CACHE_AWARE Aware;
static volatile LONG Users, Gone, Refused;

static VOID UseIt(LONG References)
{
    EXPECT(!Gone);
    InterlockedExchangeAdd(&Users, References);
    EXPECT(!Gone);
    InterlockedExchangeAdd(&Users, -References);
    EXPECT(!Gone);
}

static NTSTATUS Use(VOID)
{
    if (ExAcquireRundownProtection(&Object)) {
        UseIt(1);
        ExReleaseRundownProtection(&Object);
    } else {
        InterlockedIncrement(&Refused);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS UseMany(VOID)
{
    if (ExAcquireRundownProtectionEx(&Object, 3)) {
        UseIt(3);
        ExReleaseRundownProtectionEx(&Object, 2);
        UseIt(1);
        ExReleaseRundownProtection(&Object);
    } else {
        InterlockedIncrement(&Refused);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS RunDown(VOID)
{
    ExWaitForRundownProtectionRelease(&Object);
    EXPECT(Users == 0);
    Gone = 1;
    EXPECT(!ExAcquireRundownProtection(&Object));
    return STATUS_SUCCESS;
}

static NTSTATUS UseAware(VOID)
{
    if (ExAcquireRundownProtectionCacheAware(Aware)) {
        UseIt(1);
        ExReleaseRundownProtectionCacheAware(Aware);
    } else {
        InterlockedIncrement(&Refused);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS RunDownAware(VOID)
{
    ExWaitForRundownProtectionReleaseCacheAware(Aware);
    EXPECT(Users == 0);
    Gone = 1;
    EXPECT(!ExAcquireRundownProtectionCacheAware(Aware));
    return STATUS_SUCCESS;
}

/* ---- stories ---- */

typedef struct _OWNER {
    EX_RUNDOWN_REF Reference;
    volatile LONG Done;
} OWNER;

static VOID NTAPI WaitForUsers(PVOID Context)
{
    OWNER *Owner = Context;

    ExWaitForRundownProtectionRelease(&Owner->Reference);
    Owner->Done = 1;
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG Rundowns(VOID)
{
    OWNER Owner;
    PVOID Thread;
    KIRQL Old;

    Owner.Done = 0;
    ExInitializeRundownProtection(&Owner.Reference);
    CHECK(ExAcquireRundownProtection(&Owner.Reference));
    CHECK(ExAcquireRundownProtectionEx(&Owner.Reference, 2));
    CHECK(NT_SUCCESS(StartThread(WaitForUsers, &Owner, &Thread)));
    Delay(2);
    CHECK(!Owner.Done);
    CHECK(!ExAcquireRundownProtection(&Owner.Reference)); /* no more are given out */
    ExReleaseRundownProtectionEx(&Owner.Reference, 2);
    Delay(2);
    CHECK(!Owner.Done);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    ExReleaseRundownProtection(&Owner.Reference);
    KeLowerIrql(Old);
    CHECK(Join(Thread) == STATUS_SUCCESS && Owner.Done);

    ExWaitForRundownProtectionRelease(&Owner.Reference); /* again: it has no effect */
    CHECK(!ExAcquireRundownProtection(&Owner.Reference));
    ExRundownCompleted(&Owner.Reference);
    ExWaitForRundownProtectionRelease(&Owner.Reference);
    CHECK(!ExAcquireRundownProtectionEx(&Owner.Reference, 5));
    ExReInitializeRundownProtection(&Owner.Reference);
    CHECK(ExAcquireRundownProtection(&Owner.Reference));
    ExReleaseRundownProtection(&Owner.Reference);
    ExWaitForRundownProtectionRelease(&Owner.Reference); /* it is not in use: at once */
    CHECK(!ExAcquireRundownProtection(&Owner.Reference));

    RtlFillMemory(&Owner.Reference, sizeof(Owner.Reference), 0xFF);
    ExInitializeRundownProtection(&Owner.Reference);
    CHECK(ExAcquireRundownProtection(&Owner.Reference));
    ExReleaseRundownProtection(&Owner.Reference);
    ExRundownCompleted(&Owner.Reference); /* instead of a wait */
    CHECK(!ExAcquireRundownProtection(&Owner.Reference));
    return 0;
}

static ULONG CacheAware(PEX_RUNDOWN_REF_CACHE_AWARE Reference)
{
    CHECK(ExAcquireRundownProtectionCacheAware(Reference));
    CHECK(ExAcquireRundownProtectionCacheAwareEx(Reference, 3));
    ExReleaseRundownProtectionCacheAwareEx(Reference, 3);
    ExReleaseRundownProtectionCacheAware(Reference);
    ExWaitForRundownProtectionReleaseCacheAware(Reference);
    CHECK(!ExAcquireRundownProtectionCacheAware(Reference));
    ExRundownCompletedCacheAware(Reference);
    CHECK(!ExAcquireRundownProtectionCacheAwareEx(Reference, 2));
    ExReInitializeRundownProtectionCacheAware(Reference);
    CHECK(ExAcquireRundownProtectionCacheAware(Reference));
    ExReleaseRundownProtectionCacheAware(Reference);
    ExRundownCompletedCacheAware(Reference);
    CHECK(!ExAcquireRundownProtectionCacheAware(Reference));
    ExReInitializeRundownProtectionCacheAware(Reference);
    ExWaitForRundownProtectionReleaseCacheAware(Reference);
    return 0;
}

static ULONG CacheAwareRundowns(VOID)
{
    PEX_RUNDOWN_REF_CACHE_AWARE Reference = ExAllocateCacheAwareRundownProtection(NonPagedPool, LOCKS_TAG);
    SIZE_T Size = ExSizeOfRundownProtectionCacheAware();

    CHECK(Reference != NULL);
    CHECK_ALL(CacheAware(Reference));
    ExFreeCacheAwareRundownProtection(Reference);

    CHECK(Size >= sizeof(EX_RUNDOWN_REF));
    Reference = ExAllocatePoolWithTag(NonPagedPool, Size, LOCKS_TAG);
    CHECK(Reference != NULL);
    ExInitializeRundownProtectionCacheAware(Reference, Size);
    CHECK_ALL(CacheAware(Reference));
    ExFreePoolWithTag(Reference, LOCKS_TAG);
    return 0;
}
