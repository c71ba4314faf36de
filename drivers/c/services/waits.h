/* Stories of what a thread can wait for: events, semaphores, mutexes, timers, and several of them at once. */
#include "services.h"

static ULONG Events(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\BaseNamedObjects\\DirqlServices");
    HANDLE Handle;
    PKEVENT Named;
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    CHECK(KeReadStateEvent(&Event) == 0);
    CHECK(Poll(&Event) == STATUS_TIMEOUT);
    CHECK(KeSetEvent(&Event, IO_NO_INCREMENT, FALSE) == 0);
    CHECK(KeSetEvent(&Event, IO_NO_INCREMENT, FALSE) != 0);
    CHECK(Poll(&Event) == STATUS_SUCCESS);
    CHECK(KeReadStateEvent(&Event) != 0); /* a notification event stays set */
    CHECK(KeResetEvent(&Event) != 0);
    CHECK(KeResetEvent(&Event) == 0);
    KeSetEvent(&Event, IO_NO_INCREMENT, FALSE);
    KeClearEvent(&Event);
    CHECK(KeReadStateEvent(&Event) == 0);
    CHECK(KePulseEvent(&Event, IO_NO_INCREMENT, FALSE) == 0);
    CHECK(KeReadStateEvent(&Event) == 0);
    KeSetEvent(&Event, IO_NO_INCREMENT, FALSE);
    CHECK(KePulseEvent(&Event, IO_NO_INCREMENT, FALSE) != 0 && KeReadStateEvent(&Event) == 0);

    KeInitializeEvent(&Event, SynchronizationEvent, TRUE);
    CHECK(Poll(&Event) == STATUS_SUCCESS);
    CHECK(Poll(&Event) == STATUS_TIMEOUT); /* one wait takes a synchronization event */

    Named = IoCreateNotificationEvent(&Name, &Handle);
    CHECK(Named != NULL);
    CHECK(KeReadStateEvent(Named) != 0); /* as documented, created signalled */
    CHECK(NT_SUCCESS(ZwClose(Handle)));
    Name.Length -= sizeof(WCHAR);
    Named = IoCreateSynchronizationEvent(&Name, &Handle);
    CHECK(Named != NULL);
    CHECK(Poll(Named) == STATUS_SUCCESS);
    CHECK(Poll(Named) == STATUS_TIMEOUT);
    CHECK(NT_SUCCESS(ZwClose(Handle)));
    return 0;
}

static ULONG Semaphores(VOID)
{
    KSEMAPHORE Semaphore;

    KeInitializeSemaphore(&Semaphore, 2, 3);
    CHECK(KeReadStateSemaphore(&Semaphore) == 2);
    CHECK(Poll(&Semaphore) == STATUS_SUCCESS);
    CHECK(KeReadStateSemaphore(&Semaphore) == 1);
    CHECK(Poll(&Semaphore) == STATUS_SUCCESS);
    CHECK(Poll(&Semaphore) == STATUS_TIMEOUT);
    CHECK(KeReleaseSemaphore(&Semaphore, IO_NO_INCREMENT, 2, FALSE) == 0);
    CHECK(KeReleaseSemaphore(&Semaphore, IO_NO_INCREMENT, 1, FALSE) == 2);
    CHECK(KeReadStateSemaphore(&Semaphore) == 3);
    return 0;
}

static VOID NTAPI TryMutex(PVOID Context)
{
    PsTerminateSystemThread(Poll(Context) == STATUS_TIMEOUT ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL);
}

static ULONG Mutexes(VOID)
{
    PVOID Other;
    KMUTEX Mutex;

    KeInitializeMutex(&Mutex, 0);
    CHECK(KeReadStateMutex(&Mutex) == 1);
    CHECK(!KeAreApcsDisabled());
    CHECK(NtKeWaitForMutexObject(&Mutex, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(KeReadStateMutex(&Mutex) == 0);
    CHECK(KeAreApcsDisabled()); /* while a mutex is owned no normal kernel APC is delivered */
    CHECK(Poll(&Mutex) == STATUS_SUCCESS); /* its owner may take it again */
    CHECK(NT_SUCCESS(StartThread(TryMutex, &Mutex, &Other)));
    CHECK(Join(Other) == STATUS_SUCCESS);
    CHECK(KeReleaseMutex(&Mutex, FALSE) != 0); /* still owned */
    CHECK(KeReleaseMutex(&Mutex, FALSE) == 0); /* free */
    CHECK(KeReadStateMutex(&Mutex) == 1);
    CHECK(!KeAreApcsDisabled());
    return 0;
}

static VOID NTAPI CountTimer(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    InterlockedIncrement(Context);
}

static ULONG OneShots(PKTIMER Timer)
{
    CHECK(!KeReadStateTimer(Timer));
    CHECK(!KeSetTimer(Timer, After(MILLISECONDS(50)), NULL)); /* it was not in the timer queue */
    CHECK(KeSetTimer(Timer, After(MILLISECONDS(50)), NULL));  /* now it was */
    CHECK(KeCancelTimer(Timer));
    CHECK(!KeCancelTimer(Timer));
    CHECK(Poll(Timer) == STATUS_TIMEOUT);
    CHECK(!KeSetTimer(Timer, After(MILLISECONDS(2)), NULL));
    CHECK(KeWaitForSingleObject(Timer, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(KeReadStateTimer(Timer)); /* a notification timer stays set */
    CHECK(!KeSetCoalescableTimer(Timer, After(MILLISECONDS(2)), 0, 5, NULL));
    CHECK(!KeReadStateTimer(Timer)); /* setting clears it */
    CHECK(KeWaitForSingleObject(Timer, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    return 0;
}

static ULONG Timers(VOID)
{
    LONG volatile Count = 0;
    ULONG Turn;
    KTIMER Timer;
    KDPC Dpc;

    KeInitializeTimer(&Timer);
    CHECK_ALL(OneShots(&Timer));

    KeInitializeTimerEx(&Timer, SynchronizationTimer);
    KeInitializeDpc(&Dpc, CountTimer, (PVOID)&Count);
    CHECK(!KeSetTimerEx(&Timer, After(MILLISECONDS(20)), 20, &Dpc));
    for (Turn = 0; Turn < 3; Turn++) {
        CHECK(KeWaitForSingleObject(&Timer, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    }
    CHECK(Poll(&Timer) == STATUS_TIMEOUT); /* each period lets one wait through */
    CHECK(KeCancelTimer(&Timer));          /* a periodic timer is in the queue until cancelled */
    KeFlushQueuedDpcs();
    CHECK(Count == 3);
    return 0;
}

static ULONG TwoAtOnce(PKEVENT First, PKEVENT Second)
{
    LARGE_INTEGER Now = After(0), Soon = After(MILLISECONDS(2));
    PVOID Both[2] = {First, Second};
    ULONGLONG Start = KeQueryInterruptTime();

    CHECK(KeWaitForMultipleObjects(2, Both, WaitAny, Executive, KernelMode, FALSE, &Soon, NULL) == STATUS_TIMEOUT);
    CHECK(KeQueryInterruptTime() - Start >= 20000);
    KeSetEvent(Second, IO_NO_INCREMENT, FALSE);
    CHECK(KeWaitForMultipleObjects(2, Both, WaitAll, Executive, KernelMode, FALSE, &Now, NULL) == STATUS_TIMEOUT);
    CHECK(KeReadStateEvent(Second) != 0); /* a wait for all takes all or none */
    CHECK(KeWaitForMultipleObjects(2, Both, WaitAny, Executive, KernelMode, FALSE, NULL, NULL) == STATUS_WAIT_1);
    CHECK(KeReadStateEvent(Second) == 0);
    KeSetEvent(First, IO_NO_INCREMENT, FALSE);
    KeSetEvent(Second, IO_NO_INCREMENT, FALSE);
    CHECK(KeWaitForMultipleObjects(2, Both, WaitAll, Executive, KernelMode, FALSE, NULL, NULL) == STATUS_SUCCESS);
    CHECK(KeReadStateEvent(First) == 0 && KeReadStateEvent(Second) == 0);
    return 0;
}

/* A wait for all that a mutex is among makes the thread its owner. */
static ULONG WithMutex(PKEVENT Event)
{
    KMUTEX Mutex;
    PVOID Both[2] = {Event, &Mutex};

    KeInitializeMutex(&Mutex, 0);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    CHECK(KeWaitForMultipleObjects(2, Both, WaitAll, Executive, KernelMode, FALSE, NULL, NULL) == STATUS_SUCCESS);
    CHECK(KeReadStateEvent(Event) == 0 && KeReadStateMutex(&Mutex) == 0);
    CHECK(KeReleaseMutex(&Mutex, FALSE) == 0 && KeReadStateMutex(&Mutex) == 1);
    return 0;
}

static ULONG Waits(VOID)
{
    LARGE_INTEGER Past = After(1); /* an absolute time long gone: no wait */
    KWAIT_BLOCK Blocks[4];
    KEVENT Events[4];
    PVOID All[4];
    ULONG Index;

    for (Index = 0; Index < 4; Index++) {
        KeInitializeEvent(&Events[Index], SynchronizationEvent, FALSE);
        All[Index] = &Events[Index];
    }
    CHECK_ALL(TwoAtOnce(&Events[0], &Events[1]));
    CHECK_ALL(WithMutex(&Events[0]));
    /* More than THREAD_WAIT_OBJECTS want wait blocks of the caller's. */
    CHECK(KeWaitForMultipleObjects(4, All, WaitAny, Executive, KernelMode, FALSE, &Past, Blocks) == STATUS_TIMEOUT);
    KeSetEvent(&Events[3], IO_NO_INCREMENT, FALSE);
    CHECK(KeWaitForMultipleObjects(4, All, WaitAny, Executive, KernelMode, FALSE, NULL, Blocks) == STATUS_WAIT_3);
    return 0;
}
