/* Queue objects: what is put in and taken out, in which order, and how many threads run that take from one. */
#include "locks.h"

typedef struct _QUEUE_OBJECT { /* KQUEUE, which ntifs.h has */
    DISPATCHER_HEADER Header;
    LIST_ENTRY EntryListHead;
    volatile ULONG CurrentCount;
    ULONG MaximumCount;
    LIST_ENTRY ThreadListHead;
} QUEUE_OBJECT;

NTKERNELAPI VOID NTAPI KeInitializeQueue(QUEUE_OBJECT *Queue, ULONG Count);
NTKERNELAPI LONG NTAPI KeInsertQueue(QUEUE_OBJECT *Queue, PLIST_ENTRY Entry);
NTKERNELAPI LONG NTAPI KeInsertHeadQueue(QUEUE_OBJECT *Queue, PLIST_ENTRY Entry);
NTKERNELAPI PLIST_ENTRY NTAPI KeRemoveQueue(QUEUE_OBJECT *Queue, KPROCESSOR_MODE WaitMode, PLARGE_INTEGER Timeout);
NTKERNELAPI PLIST_ENTRY NTAPI KeRundownQueue(QUEUE_OBJECT *Queue);
NTKERNELAPI LONG NTAPI KeReadStateQueue(QUEUE_OBJECT *Queue);

#define IS_STATUS(Taken, Status) ((ULONG_PTR)(Taken) == (ULONG_PTR)(ULONG)(Status))

/* ---- steps ---- */

static QUEUE_OBJECT SharedQueue;
static volatile LONG ItemsIn, ItemsOut;

static NTSTATUS PutItem(VOID)
{
    PLIST_ENTRY Entry = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Entry), LOCKS_TAG);
    LONG Before;

    if (Entry == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    InterlockedIncrement(&ItemsIn);
    Before = KeInsertQueue(&SharedQueue, Entry);
    EXPECT(Before >= 0 && Before < 8);
    return STATUS_SUCCESS;
}

/* Of two that have taken one, the second one does so only when the first one's thread waits or ends. */
static NTSTATUS TakeItem(VOID)
{
    PLIST_ENTRY Entry = KeRemoveQueue(&SharedQueue, KernelMode, NULL);

    EXPECT(SharedQueue.CurrentCount == 1);
    EXPECT(InterlockedIncrement(&ItemsOut) <= ItemsIn);
    ExFreePoolWithTag(Entry, LOCKS_TAG); /* which it is once */
    return STATUS_SUCCESS;
}

/* ---- stories ---- */

static ULONG QueueOrder(VOID)
{
    QUEUE_OBJECT Queue;
    LIST_ENTRY First, Second, Third;
    LARGE_INTEGER Never = {.QuadPart = 0}, Soon = {.QuadPart = -20000};
    ULONGLONG Start;
    KIRQL Old;

    RtlFillMemory(&Queue, sizeof(Queue), 0xFF);
    KeInitializeQueue(&Queue, 0);
    CHECK(Queue.MaximumCount == PROCESSORS() && Queue.CurrentCount == 0);
    KeInitializeQueue(&Queue, 1);
    CHECK(Queue.MaximumCount == 1 && Queue.Header.SignalState == 0 && IsListEmpty(&Queue.EntryListHead));
    CHECK(IS_STATUS(KeRemoveQueue(&Queue, KernelMode, &Never), STATUS_TIMEOUT));
    CHECK(Queue.CurrentCount == 1); /* it is this thread's now, which runs */
    CHECK(KeInsertQueue(&Queue, &First) == 0);
    CHECK(Queue.EntryListHead.Flink == &First && First.Flink == &Queue.EntryListHead);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(KeInsertQueue(&Queue, &Second) == 1);
    CHECK(KeInsertHeadQueue(&Queue, &Third) == 2);
    CHECK(Queue.Header.SignalState == 3 && KeReadStateQueue(&Queue) == 3);
    CHECK(KeRemoveQueue(&Queue, KernelMode, &Never) == &Third);
    KeLowerIrql(Old);
    CHECK(KeRemoveQueue(&Queue, KernelMode, NULL) == &First);
    CHECK(KeRemoveQueue(&Queue, KernelMode, &Soon) == &Second);
    CHECK(Queue.Header.SignalState == 0 && Queue.CurrentCount == 1);
    Start = KeQueryInterruptTime();
    CHECK(IS_STATUS(KeRemoveQueue(&Queue, KernelMode, &Soon), STATUS_TIMEOUT));
    CHECK(KeQueryInterruptTime() - Start >= 20000);

    CHECK(KeInsertQueue(&Queue, &First) == 0 && KeInsertQueue(&Queue, &Second) == 1);
    CHECK(KeRundownQueue(&Queue) == &First);
    CHECK(First.Flink == &Second && Second.Flink == &First); /* a list without a head */
    CHECK(IS_STATUS(KeRemoveQueue(&Queue, KernelMode, NULL), STATUS_ABANDONED));
    CHECK(KeRundownQueue(&Queue) == NULL);
    KeInitializeQueue(&Queue, 2);
    CHECK(KeInsertQueue(&Queue, &First) == 0);
    CHECK(KeRemoveQueue(&Queue, KernelMode, NULL) == &First);
    CHECK(KeRundownQueue(&Queue) == NULL);
    return 0;
}

#define TASKS 4

typedef struct _TASK {
    LIST_ENTRY Entry;
    enum { Runs, Waits, Spins } Kind;
    volatile LONG Taker; /* the number of the worker that has it, from 1 on */
    volatile LONG Over;
    KEVENT Go;
} TASK;

typedef struct _POOL {
    QUEUE_OBJECT Queue;
    TASK Tasks[TASKS];
    volatile LONG Workers, Ended;
    volatile LONG MaySpin;
} POOL;

static VOID NTAPI WorkFromQueue(PVOID Context)
{
    POOL *Pool = Context;
    LONG Number = InterlockedIncrement(&Pool->Workers);
    PLIST_ENTRY Entry;

    while (!IS_STATUS(Entry = KeRemoveQueue(&Pool->Queue, KernelMode, NULL), STATUS_ABANDONED)) {
        TASK *Task = CONTAINING_RECORD(Entry, TASK, Entry);

        Task->Taker = Number;
        if (Task->Kind == Waits) {
            KeWaitForSingleObject(&Task->Go, Executive, KernelMode, FALSE, NULL);
        }
        while (Task->Kind == Spins && Pool->MaySpin) {
            YieldProcessor();
        }
        Task->Over = 1;
    }
    InterlockedIncrement(&Pool->Ended);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID Give(POOL *Pool, ULONG Index, ULONG Kind)
{
    TASK *Task = &Pool->Tasks[Index];

    Task->Kind = Kind;
    Task->Taker = Task->Over = 0;
    KeInitializeEvent(&Task->Go, NotificationEvent, FALSE);
    KeInsertQueue(&Pool->Queue, &Task->Entry);
    Delay(2);
}

static ULONG UseWorkers(POOL *Pool)
{
    /* Who began to wait last comes first; while that one waits for something else, the other one has a turn. */
    Give(Pool, 0, Waits);
    CHECK(Pool->Tasks[0].Taker == 2 && !Pool->Tasks[0].Over && Pool->Queue.CurrentCount == 0);
    Give(Pool, 1, Waits);
    CHECK(Pool->Tasks[1].Taker == 1 && !Pool->Tasks[1].Over);
    Give(Pool, 2, Runs);
    CHECK(Pool->Tasks[2].Taker == 0 && Pool->Queue.Header.SignalState == 1);
    KeSetEvent(&Pool->Tasks[1].Go, IO_NO_INCREMENT, FALSE);
    Delay(2);
    CHECK(Pool->Tasks[1].Over && Pool->Tasks[2].Taker == 1 && Pool->Tasks[2].Over);
    KeSetEvent(&Pool->Tasks[0].Go, IO_NO_INCREMENT, FALSE);
    Delay(2);
    CHECK(Pool->Tasks[0].Over && Pool->Queue.CurrentCount == 0);
    return 0;
}

/* One may run: while it does, an entry waits although a thread does. */
static ULONG KeepWorkersApart(POOL *Pool)
{
    Pool->MaySpin = 1;
    Give(Pool, 0, Spins);
    CHECK(Pool->Tasks[0].Taker != 0 && !Pool->Tasks[0].Over && Pool->Queue.CurrentCount == 1);
    Give(Pool, 1, Runs);
    CHECK(Pool->Tasks[1].Taker == 0 && Pool->Queue.Header.SignalState == 1);
    Pool->MaySpin = 0;
    Delay(2);
    CHECK(Pool->Tasks[1].Over && Pool->Tasks[1].Taker == Pool->Tasks[0].Taker);
    return 0;
}

static ULONG WithWorkers(ULONG (*Story)(POOL *Pool))
{
    POOL *Pool = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Pool), LOCKS_TAG);
    PVOID Threads[2];
    ULONG Index;

    CHECK(Pool != NULL);
    RtlZeroMemory(Pool, sizeof(*Pool));
    KeInitializeQueue(&Pool->Queue, 1);
    for (Index = 0; Index < RTL_NUMBER_OF(Threads); Index++) {
        CHECK(NT_SUCCESS(StartThread(WorkFromQueue, Pool, &Threads[Index])));
        Delay(2);
    }
    CHECK_ALL(Story(Pool));
    CHECK(Pool->Ended == 0);
    CHECK(KeRundownQueue(&Pool->Queue) == NULL); /* wakes those that wait */
    for (Index = 0; Index < RTL_NUMBER_OF(Threads); Index++) {
        CHECK(Join(Threads[Index]) == STATUS_SUCCESS);
    }
    CHECK(Pool->Ended == RTL_NUMBER_OF(Threads));
    ExFreePoolWithTag(Pool, LOCKS_TAG);
    return 0;
}

static ULONG QueueWorkers(VOID)
{
    return WithWorkers(UseWorkers);
}

static ULONG QueueLimit(VOID)
{
    return WithWorkers(KeepWorkersApart);
}
