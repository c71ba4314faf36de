/* System threads: stopped by an event, made when first needed, fed by a queue; and what may be asked of one that has ended. */
#ifndef THREADS_H
#define THREADS_H

#include "gallery.h"

typedef struct _WORKER {
    KEVENT Stop;
    KSEMAPHORE Work;
    LIST_ENTRY Queue;
    KSPIN_LOCK Lock;
    LONG Done;
} WORKER;

typedef struct _JOB {
    LIST_ENTRY Link;
    LONG Weight;
} JOB;

static VOID NTAPI WaitsForStop(PVOID Context)
{
    WORKER *Worker = Context;

    WaitFor(&Worker->Stop);
    Worker->Done = 1;
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID PrepareWorker(WORKER *Worker)
{
    KeInitializeEvent(&Worker->Stop, NotificationEvent, FALSE);
    KeInitializeSemaphore(&Worker->Work, 0, MAXLONG);
    InitializeListHead(&Worker->Queue);
    KeInitializeSpinLock(&Worker->Lock);
    Worker->Done = 0;
}

/* Start, tell it to stop, wait for its object. */
static ULONG ThreadStopped(VOID)
{
    WORKER Worker;
    PKTHREAD Thread;

    PrepareWorker(&Worker);
    Thread = StartThread(WaitsForStop, &Worker);
    CHECK(Thread != NULL);
    KeSetEvent(&Worker.Stop, IO_NO_INCREMENT, FALSE);
    JoinThread(Thread);
    CHECK(Worker.Done == 1);
    return 0;
}

static VOID NTAPI Returns(PVOID Context)
{
    InterlockedIncrement(Context); /* a system thread may also just return */
}

/* Its handle is enough to wait with, too. */
static ULONG ThreadByHandle(VOID)
{
    HANDLE Handle;
    LONG Ran = 0;

    CHECK(NT_SUCCESS(PsCreateSystemThread(&Handle, SYNCHRONIZE, NULL, NULL, NULL, Returns, &Ran)));
    CHECK(ZwWaitForSingleObject(Handle, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(NT_SUCCESS(ZwClose(Handle)));
    CHECK(Ran == 1);
    return 0;
}

static VOID NTAPI TakesJobs(PVOID Context)
{
    WORKER *Worker = Context;

    for (;;) {
        PLIST_ENTRY Link;
        JOB *Job;
        LONG Weight;

        WaitFor(&Worker->Work);
        Link = ExInterlockedRemoveHeadList(&Worker->Queue, &Worker->Lock);
        Job = CONTAINING_RECORD(Link, JOB, Link);
        Weight = Job->Weight;
        ExFreePoolWithTag(Job, TAG);
        if (Weight == 0) {
            PsTerminateSystemThread(STATUS_SUCCESS);
        }
        InterlockedExchangeAdd(&Worker->Done, Weight);
    }
}

static BOOLEAN GiveJob(WORKER *Worker, LONG Weight)
{
    JOB *Job = Nonpaged(sizeof(*Job));

    if (Job == NULL) {
        return FALSE;
    }
    Job->Weight = Weight;
    ExInterlockedInsertTailList(&Worker->Queue, &Job->Link, &Worker->Lock);
    KeReleaseSemaphore(&Worker->Work, IO_NO_INCREMENT, 1, FALSE);
    return TRUE;
}

/* Jobs in a list, counted by a semaphore; the last says that there are no more. */
static ULONG ThreadFedByAQueue(VOID)
{
    WORKER Worker;
    PKTHREAD Thread;

    PrepareWorker(&Worker);
    Thread = StartThread(TakesJobs, &Worker);
    CHECK(Thread != NULL);
    for (LONG Weight = 1; Weight <= 5; Weight++) {
        CHECK(GiveJob(&Worker, Weight));
    }
    CHECK(GiveJob(&Worker, 0));
    JoinThread(Thread);
    CHECK(Worker.Done == 15 && IsListEmpty(&Worker.Queue));
    return 0;
}

typedef struct _LAZY {
    PKTHREAD volatile Thread;
    KEVENT Stop;
    LONG Served;
} LAZY;

static VOID NTAPI ServesUntilStopped(PVOID Context)
{
    LAZY *Lazy = Context;

    WaitFor(&Lazy->Stop);
    Lazy->Served++;
}

/* The first caller makes the thread; a caller that finds one already there ends its own. */
static BOOLEAN EnsureThread(LAZY *Lazy)
{
    PKTHREAD Made;

    if (Lazy->Thread != NULL) {
        return TRUE;
    }
    Made = StartThread(ServesUntilStopped, Lazy);
    if (Made == NULL) {
        return FALSE;
    }
    if (InterlockedCompareExchangePointer((PVOID volatile *)&Lazy->Thread, Made, NULL) != NULL) {
        JoinThread(Made);
    }
    return TRUE;
}

static ULONG ThreadMadeWhenNeeded(VOID)
{
    LAZY Lazy = {.Thread = NULL};

    KeInitializeEvent(&Lazy.Stop, NotificationEvent, FALSE);
    CHECK(EnsureThread(&Lazy));
    CHECK(EnsureThread(&Lazy));
    KeSetEvent(&Lazy.Stop, IO_NO_INCREMENT, FALSE);
    JoinThread(Lazy.Thread);
    CHECK(Lazy.Served == 1);
    return 0;
}

typedef struct _POLLER {
    KEVENT Stop;
    KEVENT Polled;
    LONG Polls;
} POLLER;

static VOID NTAPI Polls(PVOID Context)
{
    POLLER *Poller = Context;
    LARGE_INTEGER Period = After(MILLISECONDS(2));

    while (KeWaitForSingleObject(&Poller->Stop, Executive, KernelMode, FALSE, &Period) == STATUS_TIMEOUT) {
        if (InterlockedIncrement(&Poller->Polls) == 3) {
            KeSetEvent(&Poller->Polled, IO_NO_INCREMENT, FALSE);
        }
    }
}

/* A loop whose wait is its pause and its end. */
static ULONG ThreadThatPolls(VOID)
{
    POLLER Poller = {.Polls = 0};
    PKTHREAD Thread;

    KeInitializeEvent(&Poller.Stop, NotificationEvent, FALSE);
    KeInitializeEvent(&Poller.Polled, NotificationEvent, FALSE);
    Thread = StartThread(Polls, &Poller);
    CHECK(Thread != NULL);
    CHECK(WaitFor(&Poller.Polled) == STATUS_SUCCESS);
    KeSetEvent(&Poller.Stop, IO_NO_INCREMENT, FALSE);
    JoinThread(Thread);
    CHECK(Poller.Polls >= 3);
    return 0;
}

/* Several objects at once: the answer says which. */
static ULONG WaitForAnyAndAll(VOID)
{
    KEVENT One, Two;
    PVOID Objects[] = {&One, &Two};
    KWAIT_BLOCK Blocks[2];

    KeInitializeEvent(&One, SynchronizationEvent, FALSE);
    KeInitializeEvent(&Two, SynchronizationEvent, TRUE);
    CHECK(KeWaitForMultipleObjects(2, Objects, WaitAny, Executive, KernelMode, FALSE, NULL, Blocks) == STATUS_WAIT_1);
    KeSetEvent(&One, IO_NO_INCREMENT, FALSE);
    KeSetEvent(&Two, IO_NO_INCREMENT, FALSE);
    CHECK(KeWaitForMultipleObjects(2, Objects, WaitAll, Executive, KernelMode, FALSE, NULL, NULL) == STATUS_SUCCESS);
    CHECK(KeReadStateEvent(&One) == 0 && KeReadStateEvent(&Two) == 0);
    return 0;
}

/* A thread goes to a processor that is there; bits of absent ones have no effect. */
static ULONG AffinityOfAbsentProcessors(VOID)
{
    KAFFINITY Before = KeSetSystemAffinityThreadEx(~(KAFFINITY)0);

    KeRevertToUserAffinityThreadEx(Before);
    Before = KeSetSystemAffinityThreadEx(1);
    CHECK(KeGetCurrentProcessorNumberEx(NULL) == 0);
    KeRevertToUserAffinityThreadEx(Before);
    return 0;
}

static VOID NTAPI RaisesItself(PVOID Context)
{
    KPRIORITY Old = KeSetPriorityThread(KeGetCurrentThread(), LOW_REALTIME_PRIORITY);

    *(LONG *)Context = Old < LOW_REALTIME_PRIORITY && KeQueryPriorityThread(KeGetCurrentThread()) == LOW_REALTIME_PRIORITY;
}

static ULONG ThreadRaisesItsPriority(VOID)
{
    LONG Right = 0;
    PKTHREAD Thread = StartThread(RaisesItself, &Right);

    CHECK(Thread != NULL);
    JoinThread(Thread);
    CHECK(Right);
    return 0;
}

/* A thread object that is referenced is there, whether its thread still runs or not. */
static ULONG ThreadThatHasEnded(VOID)
{
    LONG Ran = 0;
    PKTHREAD Thread = StartThread(Returns, &Ran);

    CHECK(Thread != NULL);
    KeSetPriorityThread(Thread, LOW_REALTIME_PRIORITY); /* before, while or after it runs */
    WaitFor(Thread);
    KeSetPriorityThread(Thread, LOW_REALTIME_PRIORITY + 1);
    CHECK(KeQueryPriorityThread(Thread) >= 0);
    CHECK(PsGetThreadId((PETHREAD)Thread) != NULL);
    ObDereferenceObject(Thread);
    return 0;
}

#define THREAD_IDIOMS                                                                                                  \
    IDIOM(ThreadThatHasEnded)                                                                                          \
    IDIOM(ThreadStopped)                                                                                               \
    IDIOM(ThreadByHandle)                                                                                              \
    IDIOM(ThreadFedByAQueue)                                                                                           \
    IDIOM(ThreadMadeWhenNeeded)                                                                                        \
    IDIOM(ThreadThatPolls)                                                                                             \
    IDIOM(ThreadRaisesItsPriority)                                                                                     \
    IDIOM(WaitForAnyAndAll)                                                                                            \
    IDIOM(AffinityOfAbsentProcessors)

#endif
