/*
 * races.sys: pairs of what two flows of control do to the same memory: right, with something that orders the two, and wrong, without it.
 * \\.\DirqlRaces; each is a story of control.h by its name. In none of them do the two meet: the second one begins when the first is over, and only
 * its order is left to chance. The `Wrong` ones wait without telling the kernel so: they look at a word by interlocked instructions of another one.
 *
 * It counts in words of pool that nothing else is in. Interrupts are in pciline.c.
 */
#include <ddk/wdm.h>

#define STORIES "races"
#include "control.h"

#define RACES_TAG 0x65636152u /* "Race" in pool listings */
#define INIT_CODE __attribute__((section("INIT")))
#define MILLISECONDS(Count) (-10000ll * (Count))

typedef struct _PAIR {
    volatile LONG Counter;  /* changed by load, add, store */
    LONG Plain;             /* changed by one instruction without `lock` */
    volatile LONG Flag;     /* stored whole, loaded whole */
    LONG Interlocked;
    LIST_ENTRY List;
    LIST_ENTRY Entries[2];
    ULONG64 Wide[4];        /* belong together */
    UCHAR Bytes[8];
} PAIR;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlRaces");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlRaces");
static PDEVICE_OBJECT Device;

/* What a story has its second flow do, and the objects by which it waits for that. */
typedef struct _STAGE {
    PAIR *Pair;
    VOID (*Act)(struct _STAGE *Stage);
    KSPIN_LOCK Lock;
    FAST_MUTEX FastMutex;
    KMUTEX Mutex;
    ERESOURCE Resource;
    KEVENT Done;
    KDPC Dpc;
    KTIMER Timer;
    PIO_WORKITEM Item;
    PKEVENT Signal; /* that the second flow signals when it is over */
} STAGE;

static STAGE *MakeStage(VOID)
{
    STAGE *Stage = ExAllocatePoolWithTag(NonPagedPool, sizeof(STAGE), RACES_TAG);

    if (Stage == NULL) {
        return NULL;
    }
    RtlZeroMemory(Stage, sizeof(*Stage));
    Stage->Pair = ExAllocatePoolWithTag(NonPagedPool, sizeof(PAIR), RACES_TAG);
    if (Stage->Pair == NULL) {
        ExFreePoolWithTag(Stage, RACES_TAG);
        return NULL;
    }
    RtlZeroMemory(Stage->Pair, sizeof(*Stage->Pair));
    InitializeListHead(&Stage->Pair->List);
    KeInitializeSpinLock(&Stage->Lock);
    ExInitializeFastMutex(&Stage->FastMutex);
    KeInitializeMutex(&Stage->Mutex, 0);
    ExInitializeResourceLite(&Stage->Resource);
    KeInitializeEvent(&Stage->Done, NotificationEvent, FALSE);
    KeInitializeTimer(&Stage->Timer);
    return Stage;
}

static VOID FreeStage(STAGE *Stage)
{
    ExDeleteResourceLite(&Stage->Resource);
    ExFreePoolWithTag(Stage->Pair, RACES_TAG);
    ExFreePoolWithTag(Stage, RACES_TAG);
}

static VOID Sleep(VOID)
{
    LARGE_INTEGER Time;

    Time.QuadPart = MILLISECONDS(50);
    KeDelayExecutionThread(KernelMode, FALSE, &Time);
}

/* ---- what the flows do ------------------------------------------------------------------------------------------ */

static VOID Count(STAGE *Stage)
{
    Stage->Pair->Counter = Stage->Pair->Counter + 1;
}

static VOID CountInOne(STAGE *Stage)
{
    __asm__ volatile("incl %0" : "+m"(Stage->Pair->Plain));
}

static VOID CountInterlocked(STAGE *Stage)
{
    InterlockedIncrement(&Stage->Pair->Interlocked);
}

static VOID CountOtherwise(STAGE *Stage)
{
    __asm__ volatile("incl %0" : "+m"(Stage->Pair->Interlocked));
}

static VOID CountUnderLock(STAGE *Stage)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Stage->Lock, &OldIrql);
    Count(Stage);
    KeReleaseSpinLock(&Stage->Lock, OldIrql);
}

static VOID CountUnderQueuedLock(STAGE *Stage)
{
    KLOCK_QUEUE_HANDLE Handle;

    KeAcquireInStackQueuedSpinLock(&Stage->Lock, &Handle);
    Count(Stage);
    KeReleaseInStackQueuedSpinLock(&Handle);
}

static VOID CountUnderFastMutex(STAGE *Stage)
{
    ExAcquireFastMutex(&Stage->FastMutex);
    Count(Stage);
    ExReleaseFastMutex(&Stage->FastMutex);
}

static VOID CountUnderMutex(STAGE *Stage)
{
    KeWaitForSingleObject(&Stage->Mutex, Executive, KernelMode, FALSE, NULL);
    Count(Stage);
    KeReleaseMutex(&Stage->Mutex, FALSE);
}

static VOID CountUnderResource(STAGE *Stage)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Stage->Resource, TRUE);
    Count(Stage);
    ExReleaseResourceLite(&Stage->Resource);
    KeLeaveCriticalRegion();
}

/* A shared lock orders none of those that share it. */
static VOID CountUnderSharedResource(STAGE *Stage)
{
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&Stage->Resource, TRUE);
    Count(Stage);
    ExReleaseResourceLite(&Stage->Resource);
    KeLeaveCriticalRegion();
}

static LIST_ENTRY *NextEntry(PAIR *Pair)
{
    return &Pair->Entries[InterlockedIncrement(&Pair->Interlocked) - 1];
}

static VOID Link(STAGE *Stage)
{
    InsertTailList(&Stage->Pair->List, NextEntry(Stage->Pair));
}

static VOID LinkUnderLock(STAGE *Stage)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Stage->Lock, &OldIrql);
    Link(Stage);
    KeReleaseSpinLock(&Stage->Lock, OldIrql);
}

static VOID LinkInterlocked(STAGE *Stage)
{
    ExInterlockedInsertTailList(&Stage->Pair->List, NextEntry(Stage->Pair), &Stage->Lock);
}

/* A flag, and what it says: each in one store. */
static VOID SetFlag(STAGE *Stage)
{
    Stage->Pair->Flag = 1;
}

static VOID CopyWide(STAGE *Stage)
{
    ULONG64 Values[4] = {1, 2, 3, 4};

    RtlCopyMemory(Stage->Pair->Wide, Values, sizeof(Values));
}

/* Each flow has bytes of its own in one word. */
static VOID CountOwnByte(STAGE *Stage)
{
    UCHAR *Byte = &Stage->Pair->Bytes[KeGetCurrentIrql() >= DISPATCH_LEVEL];

    __asm__ volatile("incb %0" : "+m"(*Byte));
}

/* ---- the second flow -------------------------------------------------------------------------------------------- */

static VOID Over(STAGE *Stage)
{
    if (Stage->Signal != NULL) {
        KeSetEvent(Stage->Signal, IO_NO_INCREMENT, FALSE);
    }
}

static VOID NTAPI Thread(PVOID Context)
{
    STAGE *Stage = Context;

    Stage->Act(Stage);
    Over(Stage);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI DpcRoutine(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    STAGE *Stage = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Stage->Act(Stage);
    Over(Stage);
}

static VOID NTAPI WorkItem(PDEVICE_OBJECT Object, PVOID Context)
{
    STAGE *Stage = Context;

    UNREFERENCED_PARAMETER(Object);
    Stage->Act(Stage);
    Over(Stage);
}

static PVOID StartThread(STAGE *Stage)
{
    PVOID Object = NULL;
    HANDLE Handle;

    if (NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Thread, Stage))) {
        ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, &Object, NULL);
        ZwClose(Handle);
    }
    return Object;
}

static VOID EndThread(PVOID Object)
{
    KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Object);
}

/* A thread does it, and this one after it has begun that: nothing but Act itself may order the two. */
static ULONG BesideThread(VOID (*Act)(STAGE *))
{
    STAGE *Stage = MakeStage();
    PVOID Object;

    CHECK(Stage != NULL);
    Stage->Act = Act;
    Object = StartThread(Stage);
    CHECK(Object != NULL);
    Sleep(); /* the thread is over by now, and nothing says so */
    Act(Stage);
    EndThread(Object);
    FreeStage(Stage);
    return 0;
}

/* A DPC that is queued at PASSIVE_LEVEL is over when the call returns. One that a timer queues is not. */
static VOID QueueLater(STAGE *Stage)
{
    LARGE_INTEGER Time;

    Time.QuadPart = MILLISECONDS(5);
    KeSetTimer(&Stage->Timer, Time, &Stage->Dpc);
}

static ULONG BesideDpc(VOID (*Act)(STAGE *), VOID (*ActInDpc)(STAGE *))
{
    STAGE *Stage = MakeStage();

    CHECK(Stage != NULL);
    Stage->Act = ActInDpc;
    KeInitializeDpc(&Stage->Dpc, DpcRoutine, Stage);
    QueueLater(Stage);
    Sleep();
    Act(Stage);
    KeFlushQueuedDpcs();
    FreeStage(Stage);
    return 0;
}

/* ---- stories: locks --------------------------------------------------------------------------------------------- */

static ULONG WrongCount(VOID) { return BesideThread(Count); }
static ULONG WrongCountInOne(VOID) { return BesideThread(CountInOne); }
static ULONG RightSpinLock(VOID) { return BesideThread(CountUnderLock); }
static ULONG RightQueuedLock(VOID) { return BesideThread(CountUnderQueuedLock); }
static ULONG RightFastMutex(VOID) { return BesideThread(CountUnderFastMutex); }
static ULONG RightMutex(VOID) { return BesideThread(CountUnderMutex); }
static ULONG RightResource(VOID) { return BesideThread(CountUnderResource); }
static ULONG WrongSharedResource(VOID) { return BesideThread(CountUnderSharedResource); }
static ULONG WrongList(VOID) { return BesideThread(Link); }
static ULONG RightList(VOID) { return BesideThread(LinkUnderLock); }
static ULONG RightListInterlocked(VOID) { return BesideThread(LinkInterlocked); }
static ULONG RightInterlocked(VOID) { return BesideThread(CountInterlocked); }
static ULONG WrongStructure(VOID) { return BesideThread(CopyWide); }
static ULONG AdviceFlag(VOID) { return BesideThread(SetFlag); }

/* One side by an interlocked instruction is not enough. */
static ULONG WrongInterlocked(VOID)
{
    STAGE *Stage = MakeStage();
    PVOID Object;

    CHECK(Stage != NULL);
    Stage->Act = CountInterlocked;
    Object = StartThread(Stage);
    CHECK(Object != NULL);
    Sleep();
    CountOtherwise(Stage);
    EndThread(Object);
    FreeStage(Stage);
    return 0;
}

/* Two locks are none. */
static ULONG WrongLock(VOID)
{
    STAGE *Stage = MakeStage();
    PVOID Object;

    CHECK(Stage != NULL);
    Stage->Act = CountUnderLock;
    Object = StartThread(Stage);
    CHECK(Object != NULL);
    Sleep();
    CountUnderFastMutex(Stage);
    EndThread(Object);
    FreeStage(Stage);
    return 0;
}

/* ---- stories: DPCs ---------------------------------------------------------------------------------------------- */

static ULONG WrongDpc(VOID) { return BesideDpc(Count, Count); }
static ULONG RightDpc(VOID) { return BesideDpc(CountUnderLock, CountUnderLock); }
static ULONG RightOwnBytes(VOID) { return BesideDpc(CountOwnByte, CountOwnByte); }

/* DISPATCH_LEVEL keeps the DPC off this processor, and off no other. */
static ULONG LevelAgainstDpc(VOID)
{
    STAGE *Stage = MakeStage();
    KIRQL OldIrql;

    CHECK(Stage != NULL);
    Stage->Act = Count;
    KeInitializeDpc(&Stage->Dpc, DpcRoutine, Stage);
    QueueLater(Stage);
    Sleep();
    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    Count(Stage);
    KeLowerIrql(OldIrql);
    KeFlushQueuedDpcs();
    FreeStage(Stage);
    return 0;
}

/* What comes before it is queued is before it; what comes behind the flush is behind it. */
static ULONG RightQueueAndFlush(VOID)
{
    STAGE *Stage = MakeStage();

    CHECK(Stage != NULL);
    Stage->Act = Count;
    KeInitializeDpc(&Stage->Dpc, DpcRoutine, Stage);
    Count(Stage);
    KeInsertQueueDpc(&Stage->Dpc, NULL, NULL);
    KeFlushQueuedDpcs();
    Count(Stage);
    FreeStage(Stage);
    return 0;
}

static ULONG RightDpcAtOnce(VOID)
{
    STAGE *Stage = MakeStage();

    CHECK(Stage != NULL);
    Stage->Act = Count;
    KeInitializeDpc(&Stage->Dpc, DpcRoutine, Stage);
    KeInsertQueueDpc(&Stage->Dpc, NULL, NULL);
    Count(Stage);
    KeFlushQueuedDpcs();
    FreeStage(Stage);
    return 0;
}

static ULONG RightTimer(VOID)
{
    STAGE *Stage = MakeStage();
    LARGE_INTEGER Time;

    CHECK(Stage != NULL);
    Stage->Act = Count;
    Stage->Signal = &Stage->Done;
    KeInitializeDpc(&Stage->Dpc, DpcRoutine, Stage);
    Count(Stage);
    Time.QuadPart = MILLISECONDS(5);
    KeSetTimer(&Stage->Timer, Time, &Stage->Dpc);
    KeWaitForSingleObject(&Stage->Done, Executive, KernelMode, FALSE, NULL);
    Count(Stage);
    KeFlushQueuedDpcs();
    FreeStage(Stage);
    return 0;
}

/* The timer's signal comes when its DPC is queued, not when that is over. */
static ULONG WrongTimer(VOID)
{
    STAGE *Stage = MakeStage();
    LARGE_INTEGER Time;

    CHECK(Stage != NULL);
    Stage->Act = Count;
    KeInitializeDpc(&Stage->Dpc, DpcRoutine, Stage);
    Time.QuadPart = MILLISECONDS(5);
    KeSetTimer(&Stage->Timer, Time, &Stage->Dpc);
    KeWaitForSingleObject(&Stage->Timer, Executive, KernelMode, FALSE, NULL);
    Sleep();
    Count(Stage);
    KeFlushQueuedDpcs();
    FreeStage(Stage);
    return 0;
}

/* ---- stories: work items, threads, events ----------------------------------------------------------------------- */

static ULONG WithWorkItem(BOOLEAN Early, BOOLEAN Waits)
{
    STAGE *Stage = MakeStage();

    CHECK(Stage != NULL);
    Stage->Item = IoAllocateWorkItem(Device);
    CHECK(Stage->Item != NULL);
    Stage->Act = Count;
    Stage->Signal = &Stage->Done;
    if (Early) {
        Count(Stage);
    }
    IoQueueWorkItem(Stage->Item, WorkItem, DelayedWorkQueue, Stage);
    if (!Waits) {
        Sleep();
        Count(Stage);
    }
    KeWaitForSingleObject(&Stage->Done, Executive, KernelMode, FALSE, NULL);
    if (Waits) {
        Count(Stage);
    }
    IoFreeWorkItem(Stage->Item);
    FreeStage(Stage);
    return 0;
}

static ULONG RightWorkItem(VOID) { return WithWorkItem(TRUE, TRUE); }
static ULONG WrongWorkItem(VOID) { return WithWorkItem(FALSE, FALSE); }

/* A thread's begin is behind what its maker did before, and its end before what those do who have waited for it. */
static ULONG RightThread(VOID)
{
    STAGE *Stage = MakeStage();
    PVOID Object;

    CHECK(Stage != NULL);
    Stage->Act = Count;
    Count(Stage);
    Object = StartThread(Stage);
    CHECK(Object != NULL);
    EndThread(Object);
    Count(Stage);
    FreeStage(Stage);
    return 0;
}

static VOID CountThenSignal(STAGE *Stage)
{
    Count(Stage);
    KeSetEvent(&Stage->Done, IO_NO_INCREMENT, FALSE);
}

static VOID SignalThenCount(STAGE *Stage)
{
    KeSetEvent(&Stage->Done, IO_NO_INCREMENT, FALSE);
    Sleep();
    Count(Stage);
}

static ULONG WithEvent(VOID (*Act)(STAGE *), BOOLEAN Late)
{
    STAGE *Stage = MakeStage();
    PVOID Object;

    CHECK(Stage != NULL);
    Stage->Act = Act;
    Object = StartThread(Stage);
    CHECK(Object != NULL);
    KeWaitForSingleObject(&Stage->Done, Executive, KernelMode, FALSE, NULL);
    if (Late) {
        Sleep();
    }
    Count(Stage);
    EndThread(Object);
    FreeStage(Stage);
    return 0;
}

static ULONG RightEvent(VOID) { return WithEvent(CountThenSignal, FALSE); }
static ULONG WrongEvent(VOID) { return WithEvent(SignalThenCount, FALSE); }
static ULONG WrongEventLate(VOID) { return WithEvent(SignalThenCount, TRUE); }

static VOID CountThenSetFlag(STAGE *Stage)
{
    Count(Stage);
    Stage->Pair->Flag = 1;
}

/* A word that is stored behind the data and loaded before it hands them over: x86 keeps the order of stores, and that of loads. */
static ULONG AdviceHandOver(VOID)
{
    STAGE *Stage = MakeStage();
    PVOID Object;

    CHECK(Stage != NULL);
    Stage->Act = CountThenSetFlag;
    Object = StartThread(Stage);
    CHECK(Object != NULL);
    while (Stage->Pair->Flag == 0) {
        Sleep();
    }
    Count(Stage);
    EndThread(Object);
    FreeStage(Stage);
    return 0;
}

/* ---- requests: what is counted in a block that outlives them ---------------------------------------------------- */

#define RACES_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)        /* nothing guards it */
#define RACES_COUNT_LOCKED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS) /* a spin lock does */
#define RACES_PEND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS) /* a timer's DPC counts, and completes it */

static STAGE *Common; /* from DriverEntry to unload */
static PIRP Pending;  /* under Common->Lock */

static VOID NTAPI CompletePending(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&Common->Lock);
    Irp = Pending;
    Pending = NULL;
    KeReleaseSpinLockFromDpcLevel(&Common->Lock);
    if (Irp != NULL) {
        __asm__ volatile("incl %0" : "+m"(*(LONG *)Irp->AssociatedIrp.SystemBuffer));
        Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
    }
}

static NTSTATUS Pend(PIRP Irp)
{
    LARGE_INTEGER Time;
    KIRQL OldIrql;

    *(LONG *)Irp->AssociatedIrp.SystemBuffer = 1;
    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&Common->Lock, &OldIrql);
    Pending = Irp;
    KeReleaseSpinLock(&Common->Lock, OldIrql);
    Time.QuadPart = MILLISECONDS(5);
    KeSetTimer(&Common->Timer, Time, &Common->Dpc);
    return STATUS_PENDING;
}

static const STORY Stories[] = {
    STORY(AdviceFlag),          STORY(AdviceHandOver),      STORY(LevelAgainstDpc),
    STORY(RightDpc),            STORY(RightDpcAtOnce),      STORY(RightEvent),
    STORY(RightFastMutex),      STORY(RightInterlocked),    STORY(RightList),
    STORY(RightListInterlocked),STORY(RightMutex),          STORY(RightOwnBytes),
    STORY(RightQueueAndFlush),  STORY(RightQueuedLock),     STORY(RightResource),
    STORY(RightSpinLock),       STORY(RightThread),         STORY(RightTimer),
    STORY(RightWorkItem),       STORY(WrongCount),          STORY(WrongCountInOne),
    STORY(WrongDpc),            STORY(WrongEvent),          STORY(WrongEventLate),
    STORY(WrongInterlocked),    STORY(WrongList),           STORY(WrongLock),
    STORY(WrongSharedResource), STORY(WrongStructure),      STORY(WrongTimer),
    STORY(WrongWorkItem),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Object, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Object);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case RACES_COUNT:
        Count(Common);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case RACES_COUNT_LOCKED:
        CountUnderLock(Common);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case RACES_PEND:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return Pend(Irp);
    default:
        return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeCancelTimer(&Common->Timer);
    KeFlushQueuedDpcs();
    FreeStage(Common);
    ControlUnload(Driver);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Common = MakeStage();
    if (Common == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    KeInitializeDpc(&Common->Dpc, CompletePending, NULL);
    Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
    if (!NT_SUCCESS(Status)) {
        FreeStage(Common);
        return Status;
    }
    Device = Driver->DeviceObject;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
