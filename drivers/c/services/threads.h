/* Stories of what runs beside a request: system threads, DPCs, work items. */
#include "services.h"

/* What one thread tells another. */
typedef struct _THREAD_STORY {
    KEVENT Started;
    KEVENT MayEnd;
    ULONG Failed;
    PVOID Thread;
    HANDLE Id;
} THREAD_STORY;

static ULONG InsideThread(THREAD_STORY *Story)
{
    PKTHREAD Self = NtKeGetCurrentThread();
    LARGE_INTEGER Interval = After(MILLISECONDS(3));
    ULONGLONG Start = KeQueryInterruptTime();
    KPRIORITY Before = KeQueryPriorityThread(Self);

    CHECK(NtKeGetCurrentIrql() == PASSIVE_LEVEL);
    CHECK(NtPsGetCurrentThread() == Self);
    CHECK(NtPsIsSystemThread(Self));
    CHECK(IoIsSystemThread((PETHREAD)Self));
    CHECK(ExGetPreviousMode() == KernelMode);
    CHECK(KeDelayExecutionThread(KernelMode, FALSE, &Interval) == STATUS_SUCCESS);
    CHECK(KeQueryInterruptTime() - Start >= 30000);
    CHECK(KeSetPriorityThread(Self, LOW_REALTIME_PRIORITY + 1) == Before);
    CHECK(KeQueryPriorityThread(Self) == LOW_REALTIME_PRIORITY + 1);
    CHECK(KeSetPriorityThread(Self, Before) == LOW_REALTIME_PRIORITY + 1);
    CHECK(KeSetBasePriorityThread(Self, -2) == 0);
    CHECK(KeQueryPriorityThread(Self) == Before - 2);
    CHECK(KeSetBasePriorityThread(Self, 0) == -2 && KeQueryPriorityThread(Self) == Before);
    Story->Thread = Self;
    Story->Id = PsGetCurrentThreadId();
    return 0;
}

static VOID NTAPI ThreadOfStory(PVOID Context)
{
    THREAD_STORY *Story = Context;

    Story->Failed = InsideThread(Story);
    KeSetEvent(&Story->Started, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(&Story->MayEnd, Executive, KernelMode, FALSE, NULL);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG Threads(VOID)
{
    THREAD_STORY Story = {.Failed = 0};
    PVOID Thread;

    KeInitializeEvent(&Story.Started, NotificationEvent, FALSE);
    KeInitializeEvent(&Story.MayEnd, NotificationEvent, FALSE);
    CHECK(NT_SUCCESS(StartThread(ThreadOfStory, &Story, &Thread)));
    CHECK(KeWaitForSingleObject(&Story.Started, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    CHECK_ALL(Story.Failed);
    CHECK(Story.Thread == Thread);
    CHECK(Story.Id == PsGetThreadId(Thread) && Story.Id != PsGetCurrentThreadId());
    CHECK(Thread != NtPsGetCurrentThread());
    CHECK(Poll(Thread) == STATUS_TIMEOUT); /* a thread is signalled when it has ended */
    KeSetEvent(&Story.MayEnd, IO_NO_INCREMENT, FALSE);
    CHECK(Join(Thread) == STATUS_SUCCESS);
    return 0;
}

/* Threads of one priority on one processor: one that yields lets the other go first, and goes on if there is none. */
static VOID NTAPI Yields(PVOID Context)
{
    volatile LONG *Turns = Context;

    InterlockedIncrement(Turns);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG Yielding(VOID)
{
    volatile LONG Turns = 0;
    PVOID Thread;
    NTSTATUS Status;

    CHECK(ZwYieldExecution() == STATUS_NO_YIELD_PERFORMED);
    KeSetSystemAffinityThread(1); /* the thread inherits nothing of it, so it comes here or elsewhere */
    Status = StartThread(Yields, (PVOID)&Turns, &Thread);
    CHECK(NT_SUCCESS(Status));
    while (Turns == 0) {
        ZwYieldExecution();
    }
    CHECK(Join(Thread) == STATUS_SUCCESS);
    KeRevertToUserAffinityThread();
    return 0;
}

/* A routine that works on at DISPATCH_LEVEL sees that something waits, and not before. */
static VOID NTAPI Waiting(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    *(BOOLEAN *)Context = TRUE;
}

static ULONG ShouldYield(VOID)
{
    BOOLEAN Ran = FALSE, RanBefore;
    LOGICAL Before, After;
    KIRQL Old;
    KDPC Dpc;

    KeInitializeDpc(&Dpc, Waiting, &Ran);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Before = NtKeShouldYieldProcessor();
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    After = NtKeShouldYieldProcessor();
    RanBefore = Ran;
    KeLowerIrql(Old);
    CHECK(!Before && After && !RanBefore && Ran);
    return 0;
}

static ULONG YieldsAndShould(VOID)
{
    CHECK_ALL(Yielding());
    CHECK_ALL(ShouldYield());
    return 0;
}

static ULONG Processes(VOID)
{
    PEPROCESS Mine = NtPsGetCurrentProcess(), Found;

    CHECK(Mine != NULL && Mine == IoGetCurrentProcess());
    CHECK(PsGetProcessId(Mine) == PsGetCurrentProcessId());
    CHECK(NT_SUCCESS(NtPsLookupProcessByProcessId(PsGetCurrentProcessId(), &Found)));
    CHECK(Found == Mine);
    ObDereferenceObject(Found); /* the look-up has referenced it */
    CHECK(NtPsLookupProcessByProcessId((HANDLE)(ULONG_PTR)0x7FFFFFF0, &Found) == STATUS_INVALID_PARAMETER);
    return 0;
}

/* What a DPC saw. */
typedef struct _DPC_STORY {
    LONG Runs;
    LONG *Order; /* shared by several */
    LONG Place;  /* in that order */
    PVOID First;
    PVOID Second;
    KIRQL Irql;
    BOOLEAN InDpc;
} DPC_STORY;

static VOID NTAPI DpcOfStory(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    DPC_STORY *Story = Context;

    UNREFERENCED_PARAMETER(Dpc);
    Story->Runs++;
    Story->Place = ++*Story->Order;
    Story->First = First;
    Story->Second = Second;
    Story->Irql = NtKeGetCurrentIrql();
    /* A threaded one may be at PASSIVE_LEVEL, where that must not be asked. */
    Story->InDpc = Story->Irql == DISPATCH_LEVEL && NtKeIsExecutingDpc() != 0;
}

static ULONG QueuedAndRemoved(PKDPC Dpc, DPC_STORY *Story)
{
    KIRQL OldIrql = NtKeRaiseIrqlToDpcLevel();
    BOOLEAN Inserted = KeInsertQueueDpc(Dpc, NULL, NULL);
    BOOLEAN Twice = KeInsertQueueDpc(Dpc, NULL, NULL);
    BOOLEAN Removed = KeRemoveQueueDpc(Dpc);
    BOOLEAN Again = KeRemoveQueueDpc(Dpc);

    NtKeLowerIrql(OldIrql);
    KeFlushQueuedDpcs();
    CHECK(Inserted && !Twice); /* a DPC is in a queue once */
    CHECK(Removed && !Again);
    CHECK(Story->Runs == 0);
    return 0;
}

static ULONG Ordered(PKDPC Dpcs, DPC_STORY *Stories)
{
    KIRQL OldIrql;

    KeSetImportanceDpc(&Dpcs[1], HighImportance);
    OldIrql = NtKeRaiseIrqlToDpcLevel();
    KeInsertQueueDpc(&Dpcs[0], &Dpcs[0], &Stories[0]);
    KeInsertQueueDpc(&Dpcs[1], NULL, NULL);
    NtKeLowerIrql(OldIrql);
    KeFlushQueuedDpcs();
    CHECK(Stories[0].Runs == 1 && Stories[1].Runs == 1);
    CHECK(Stories[0].Irql == DISPATCH_LEVEL && Stories[0].InDpc);
    CHECK(Stories[0].First == &Dpcs[0] && Stories[0].Second == &Stories[0]);
    CHECK(Stories[1].Place == 1 && Stories[0].Place == 2); /* high importance goes to the head of the queue */
    return 0;
}

/* Entries leave a device queue in the order of their keys. */
static ULONG DeviceQueues(VOID)
{
    KDEVICE_QUEUE_ENTRY Entries[4];
    PKDEVICE_QUEUE_ENTRY Third, Second, First, None;
    BOOLEAN Idle, Late, Early;
    KDEVICE_QUEUE Queue;
    KIRQL OldIrql;

    KeInitializeDeviceQueue(&Queue);
    OldIrql = NtKeRaiseIrqlToDpcLevel();
    Idle = KeInsertByKeyDeviceQueue(&Queue, &Entries[0], 5); /* only makes the queue busy */
    Late = KeInsertByKeyDeviceQueue(&Queue, &Entries[3], 30);
    Early = KeInsertByKeyDeviceQueue(&Queue, &Entries[1], 10);
    KeInsertByKeyDeviceQueue(&Queue, &Entries[2], 20);
    Third = KeRemoveByKeyDeviceQueue(&Queue, 25); /* the first key not below */
    First = KeRemoveByKeyDeviceQueue(&Queue, 25); /* none is: the least key */
    Second = KeRemoveDeviceQueue(&Queue);
    None = KeRemoveDeviceQueue(&Queue);
    NtKeLowerIrql(OldIrql);
    CHECK(!Idle && Late && Early);
    CHECK(Third == &Entries[3] && First == &Entries[1] && Second == &Entries[2]);
    CHECK(None == NULL && !Queue.Busy);
    return 0;
}

static ULONG Dpcs(VOID)
{
    PROCESSOR_NUMBER Number = {0, 0, 0}, Absent = {0, 63, 0};
    DPC_STORY Stories[2];
    LONG Order = 0;
    KDPC Dpcs[2];
    ULONG Index;

    RtlZeroMemory(Stories, sizeof(Stories));
    for (Index = 0; Index < 2; Index++) {
        Stories[Index].Order = &Order;
        KeInitializeDpc(&Dpcs[Index], DpcOfStory, &Stories[Index]);
    }
    CHECK_ALL(QueuedAndRemoved(&Dpcs[0], &Stories[0]));
    CHECK_ALL(Ordered(Dpcs, Stories));

    KeSetTargetProcessorDpc(&Dpcs[0], 0);
    KeSetImportanceDpc(&Dpcs[0], LowImportance);
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    KeFlushQueuedDpcs();
    CHECK(Stories[0].Runs == 2);
    CHECK(NT_SUCCESS(KeSetTargetProcessorDpcEx(&Dpcs[0], &Number)));
    CHECK(KeSetTargetProcessorDpcEx(&Dpcs[0], &Absent) == STATUS_INVALID_PARAMETER);
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    KeFlushQueuedDpcs();
    CHECK(Stories[0].Runs == 3);

    KeInitializeThreadedDpc(&Dpcs[1], DpcOfStory, &Stories[1]);
    CHECK(KeInsertQueueDpc(&Dpcs[1], NULL, NULL));
    KeFlushQueuedDpcs();
    CHECK(Stories[1].Runs == 2);
    CHECK_ALL(DeviceQueues());
    return 0;
}

/* What a work item saw. */
typedef struct _WORK_STORY {
    KEVENT Done;
    PVOID Thread;
    PVOID Object;
    BOOLEAN System; /* asked there: the thread may be gone later */
    KIRQL Irql;
} WORK_STORY;

static VOID Work(WORK_STORY *Story, PVOID Object)
{
    Story->Thread = NtPsGetCurrentThread();
    Story->Object = Object;
    Story->System = NtPsIsSystemThread(Story->Thread);
    Story->Irql = NtKeGetCurrentIrql();
    KeSetEvent(&Story->Done, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI ExWork(PVOID Context)
{
    Work(Context, NULL);
}

static VOID NTAPI IoWork(PDEVICE_OBJECT Device, PVOID Context)
{
    Work(Context, Device);
}

static VOID NTAPI IoWorkEx(PVOID Object, PVOID Context, PIO_WORKITEM Item)
{
    UNREFERENCED_PARAMETER(Item);
    Work(Context, Object);
}

/* Waits for the work and judges where it ran. */
static ULONG Worked(WORK_STORY *Story, PVOID Object)
{
    CHECK(KeWaitForSingleObject(&Story->Done, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(Story->Irql == PASSIVE_LEVEL);
    CHECK(Story->Thread != NtPsGetCurrentThread());
    CHECK(Story->System);
    CHECK(Story->Object == Object);
    return 0;
}

static ULONG WorkItems(PDEVICE_OBJECT Device)
{
    WORK_QUEUE_ITEM Item;
    PIO_WORKITEM Allocated, Own;
    WORK_STORY Story;

    KeInitializeEvent(&Story.Done, SynchronizationEvent, FALSE);
    ExInitializeWorkItem(&Item, ExWork, &Story);
    ExQueueWorkItem(&Item, DelayedWorkQueue);
    CHECK_ALL(Worked(&Story, NULL));

    Allocated = IoAllocateWorkItem(Device);
    CHECK(Allocated != NULL);
    IoQueueWorkItem(Allocated, IoWork, CriticalWorkQueue, &Story);
    CHECK_ALL(Worked(&Story, Device));
    IoQueueWorkItemEx(Allocated, IoWorkEx, DelayedWorkQueue, &Story); /* it may be queued again once it has run */
    CHECK_ALL(Worked(&Story, Device));
    IoFreeWorkItem(Allocated);

    CHECK(IoSizeofWorkItem() >= sizeof(WORK_QUEUE_ITEM));
    Own = ExAllocatePoolWithTag(NonPagedPool, IoSizeofWorkItem(), SERVICES_TAG);
    CHECK(Own != NULL);
    IoInitializeWorkItem(Device, Own);
    IoQueueWorkItem(Own, IoWork, DelayedWorkQueue, &Story);
    CHECK_ALL(Worked(&Story, Device));
    IoUninitializeWorkItem(Own);
    ExFreePoolWithTag(Own, SERVICES_TAG);
    return 0;
}
