/* Push locks. */
#include "locks.h"

static PUSH_LOCK Push;
static volatile LONG PushReaders, PushWriters, PushCount, PushWritten;

static NTSTATUS PushRead(VOID)
{
    KeEnterCriticalRegion();
    ExAcquirePushLockSharedEx(&Push, 0);
    InterlockedIncrement(&PushReaders);
    EXPECT(PushWriters == 0);
    InterlockedExchangeAdd(&PushCount, 0);
    EXPECT(PushWriters == 0);
    InterlockedDecrement(&PushReaders);
    ExReleasePushLockSharedEx(&Push, 0);
    KeLeaveCriticalRegion();
    return STATUS_SUCCESS;
}

static NTSTATUS PushWrite(VOID)
{
    KeEnterCriticalRegion();
    ExAcquirePushLockExclusiveEx(&Push, 0);
    EXPECT(InterlockedIncrement(&PushWriters) == 1 && PushReaders == 0);
    LONG Seen = PushCount;
    InterlockedIncrement(&PushWritten);
    PushCount = Seen + 1;
    EXPECT(InterlockedDecrement(&PushWriters) == 0 && PushReaders == 0);
    ExReleasePushLockExclusiveEx(&Push, 0);
    KeLeaveCriticalRegion();
    return STATUS_SUCCESS;
}

/* ---- stories ---- */

/* Who gets a lock, in the order of getting it. */
typedef struct _ORDER {
    PUSH_LOCK Lock;
    volatile LONG Place;
    volatile LONG Writer, Reader;
    BOOLEAN TriedShared, TriedExclusive;
} ORDER;

static VOID NTAPI OrderedWriter(PVOID Context)
{
    ORDER *Order = Context;

    KeEnterCriticalRegion();
    ExAcquirePushLockExclusiveEx(&Order->Lock, 0);
    Order->Writer = ++Order->Place;
    Delay(1);
    EXPECT(Order->Reader == 0);
    ExReleasePushLockEx(&Order->Lock, 0);
    KeLeaveCriticalRegion();
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI OrderedReader(PVOID Context)
{
    ORDER *Order = Context;

    KeEnterCriticalRegion();
    Order->TriedShared = ExTryAcquirePushLockSharedEx(&Order->Lock, 0);
    Order->TriedExclusive = ExTryAcquirePushLockExclusiveEx(&Order->Lock, 0);
    ExAcquirePushLockSharedEx(&Order->Lock, 0);
    Order->Reader = ++Order->Place;
    ExReleasePushLockEx(&Order->Lock, 0);
    KeLeaveCriticalRegion();
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG PushLocks(VOID)
{
    ORDER Order = {.Place = 0, .TriedShared = TRUE, .TriedExclusive = TRUE};
    PVOID Writer, Reader;
    LONG Were = Wrong;

    ExInitializePushLock(&Order.Lock);
    KeEnterCriticalRegion();
    CHECK(ExTryAcquirePushLockExclusiveEx(&Order.Lock, 0));
    CHECK(!ExTryAcquirePushLockSharedEx(&Order.Lock, 0));
    ExReleasePushLockExclusiveEx(&Order.Lock, 0);
    CHECK(Order.Lock == 0);
    CHECK(ExTryAcquirePushLockSharedEx(&Order.Lock, 0));
    CHECK(!ExTryAcquirePushLockExclusiveEx(&Order.Lock, 0));
    ExAcquirePushLockSharedEx(&Order.Lock, 0); /* who shares it may share it again */
    ExReleasePushLockSharedEx(&Order.Lock, 0);

    /* A reader that comes while a writer waits waits behind it. */
    CHECK(NT_SUCCESS(StartThread(OrderedWriter, &Order, &Writer)));
    Delay(2);
    CHECK(NT_SUCCESS(StartThread(OrderedReader, &Order, &Reader)));
    Delay(2);
    CHECK(Order.Place == 0 && !Order.TriedShared && !Order.TriedExclusive);
    ExReleasePushLockSharedEx(&Order.Lock, 0);
    KeLeaveCriticalRegion();
    CHECK(Join(Writer) == STATUS_SUCCESS && Join(Reader) == STATUS_SUCCESS);
    CHECK(Order.Writer == 1 && Order.Reader == 2 && Order.Lock == 0 && Wrong == Were);

    KeRaiseIrql(APC_LEVEL, &(KIRQL){0}); /* where no APC is delivered either */
    ExAcquirePushLockExclusiveEx(&Order.Lock, 0);
    ExReleasePushLockEx(&Order.Lock, 0);
    KeLowerIrql(PASSIVE_LEVEL);
    return 0;
}
