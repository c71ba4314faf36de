/*
 * Stories of what is asked of objects whose thread or process has ended, of processors and features that are not there, and of what
 * is harmless although it looks odd: none of it is the driver's fault.
 */
#include "services.h"

NTKERNELAPI PEPROCESS NTAPI IoThreadToProcess(PETHREAD Thread);
NTKERNELAPI KAFFINITY NTAPI KeSetSystemAffinityThreadEx(KAFFINITY Affinity);
NTKERNELAPI VOID NTAPI KeRevertToUserAffinityThreadEx(KAFFINITY Affinity);
NTKERNELAPI KAFFINITY NTAPI KeQueryActiveProcessors(VOID);
NTSYSAPI ULONG64 NTAPI RtlGetEnabledExtendedFeatures(ULONG64 Mask);
NTKERNELAPI NTSTATUS NTAPI ObOpenObjectByPointer(PVOID Object, ULONG Attributes, PVOID State, ACCESS_MASK Access,
                                                 PVOID Type, KPROCESSOR_MODE Mode, PHANDLE Handle);

static VOID NTAPI EndAtOnce(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* A thread that has ended has its object, and its priority, as long as that is referenced. Not: not-a-thread, not-a-process */
static ULONG EndedThreads(VOID)
{
    PVOID Thread;
    HANDLE Id;

    CHECK(NT_SUCCESS(StartThread(EndAtOnce, NULL, &Thread)));
    CHECK(KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(KeQueryPriorityThread(Thread) == 8);
    CHECK(KeSetPriorityThread(Thread, 12) == 8 && KeQueryPriorityThread(Thread) == 12);
    CHECK(KeSetBasePriorityThread(Thread, 1) == 4 && KeQueryPriorityThread(Thread) == 9);
    Id = PsGetThreadId(Thread);
    CHECK(Id != NULL && NtPsIsSystemThread(Thread) && IoIsSystemThread(Thread));
    CHECK(PsGetProcessId(IoThreadToProcess(Thread)) == (HANDLE)4);
    ObDereferenceObject(Thread);
    return 0;
}

/* Processors that are not there: no effect, and no fault. */
static ULONG AbsentProcessors(VOID)
{
    KAFFINITY All = KeQueryActiveProcessors(), Absent = ~All;
    GROUP_AFFINITY Wanted = {0}, Before;

    CHECK(All != 0);
    if (Absent != 0) {
        CHECK(KeSetSystemAffinityThreadEx(Absent) == 0);
        CHECK(KeSetSystemAffinityThreadEx(Absent | 1) == 0); /* nor with one that is there among them */
        CHECK(KeSetSystemAffinityThreadEx(1) == 0); /* so none was set */
        CHECK(KeSetSystemAffinityThreadEx(Absent) == 0);
        CHECK(KeSetSystemAffinityThreadEx(All) == 1); /* and what was set stayed */
        KeRevertToUserAffinityThreadEx(Absent | 1);
        CHECK(KeSetSystemAffinityThreadEx(1) == All);
        KeRevertToUserAffinityThreadEx(0);
    }
    Wanted.Mask = 1;
    Wanted.Group = 7;
    RtlFillMemory(&Before, sizeof(Before), 0xFF);
    KeSetSystemGroupAffinityThread(&Wanted, &Before);
    CHECK(Before.Mask == 0 && Before.Group == 0 && Before.Reserved[0] == 0);
    Wanted.Group = 0;
    KeSetSystemGroupAffinityThread(&Wanted, &Before);
    CHECK(Before.Mask == 0);
    KeRevertToUserGroupAffinityThread(&Before);
    KeSetSystemGroupAffinityThread(&Wanted, &Before);
    CHECK(Before.Mask == 0); /* not the 1 that was set before */
    KeRevertToUserGroupAffinityThread(&Before);
    return 0;
}

/* Whether it is in a DPC may be asked anywhere. */
static ULONG HarmlessQuestions(VOID)
{
    CHECK(NtKeGetCurrentIrql() == PASSIVE_LEVEL && !NtKeIsExecutingDpc());
    return 0;
}

/* Texts that differ early, with nothing behind that: no routine reads on. Not: pool-overrun, bad-pointer */
static ULONG UntidyTexts(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(NonPagedPool, 2, SERVICES_TAG);
    PWCH Wide = ExAllocatePoolWithTag(NonPagedPool, 4, SERVICES_TAG);

    CHECK(Block != NULL && Wide != NULL);
    Block[0] = 'a';
    Block[1] = 'b'; /* no zero */
    Wide[0] = L'a';
    Wide[1] = L'b';
    CHECK(strcmp((char *)Block, "ax") < 0 && strcmp("b", (char *)Block) > 0);
    CHECK(strncmp((char *)Block, "abc", 2) == 0 && Nt_stricmp((char *)Block, "AA") > 0);
    CHECK(wcscmp(Wide, L"ax") < 0 && Nt_wcsicmp(Wide, L"AA") > 0);
    CHECK(RtlCompareMemory(Block, "ax", 100) == 1);
    CHECK(memcmp(Block, "b", 100) < 0);
    CHECK(strchr((char *)Block, 'b') == (char *)Block + 1);
    CHECK(strstr((char *)Block, "ab") == (char *)Block);
    CHECK(memchr(Block, 'b', 100) == Block + 1);
    Block[0] = '7';
    Block[1] = 'x';
    CHECK(Ntatoi((char *)Block) == 7);
    ExFreePoolWithTag(Wide, SERVICES_TAG);
    ExFreePoolWithTag(Block, SERVICES_TAG);
    return 0;
}

typedef struct _SHARER {
    PERESOURCE Resource;
    KEVENT Go;
    BOOLEAN Exclusive;
    volatile BOOLEAN Has;
} SHARER;

static VOID NTAPI Sharer(PVOID Context)
{
    SHARER *Sharer = Context;

    KeEnterCriticalRegion();
    if (Sharer->Exclusive) {
        ExAcquireResourceExclusiveLite(Sharer->Resource, TRUE);
    } else {
        ExAcquireResourceSharedLite(Sharer->Resource, TRUE);
    }
    Sharer->Has = TRUE;
    KeWaitForSingleObject(&Sharer->Go, Executive, KernelMode, FALSE, NULL);
    ExReleaseResourceLite(Sharer->Resource);
    KeLeaveCriticalRegion();
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* An owner that makes its resource a shared one lets in all that wait to share it, past those that want it alone. */
static ULONG ConvertedResource(VOID)
{
    PERESOURCE Resource = ExAllocatePoolWithTag(NonPagedPool, sizeof(ERESOURCE), SERVICES_TAG);
    SHARER *Sharers = ExAllocatePoolWithTag(NonPagedPool, 3 * sizeof(SHARER), SERVICES_TAG);
    LARGE_INTEGER Interval = After(MILLISECONDS(2));
    PVOID Threads[3];

    CHECK(Resource != NULL && Sharers != NULL && NT_SUCCESS(ExInitializeResourceLite(Resource)));
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(Resource, TRUE);
    for (ULONG i = 0; i < 3; i++) { /* to share it, to have it alone, to share it */
        Sharers[i].Resource = Resource;
        Sharers[i].Exclusive = i == 1;
        Sharers[i].Has = FALSE;
        KeInitializeEvent(&Sharers[i].Go, NotificationEvent, FALSE);
        CHECK(NT_SUCCESS(StartThread(Sharer, &Sharers[i], &Threads[i])));
        KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    }
    CHECK(ExGetSharedWaiterCount(Resource) == 2 && ExGetExclusiveWaiterCount(Resource) == 1);
    ExConvertExclusiveToSharedLite(Resource);
    KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    CHECK(Sharers[0].Has && !Sharers[1].Has && Sharers[2].Has);
    ExReleaseResourceLite(Resource);
    KeLeaveCriticalRegion();
    for (ULONG i = 0; i < 3; i++) {
        KeSetEvent(&Sharers[i].Go, IO_NO_INCREMENT, FALSE);
    }
    for (ULONG i = 0; i < 3; i++) {
        CHECK(Join(Threads[i]) == STATUS_SUCCESS);
    }
    CHECK(Sharers[1].Has);
    ExDeleteResourceLite(Resource);
    ExFreePoolWithTag(Sharers, SERVICES_TAG);
    ExFreePoolWithTag(Resource, SERVICES_TAG);
    return 0;
}

typedef struct _PATIENT {
    KEVENT Event;
    LONGLONG Until;
    NTSTATUS Status;
} PATIENT;

static VOID NTAPI Patient(PVOID Context)
{
    PATIENT *Patient = Context;
    LARGE_INTEGER Until = After(Patient->Until);

    Patient->Status = KeWaitForSingleObject(&Patient->Event, Executive, KernelMode, FALSE, &Until);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* "For ever" as drivers write it. */
static ULONG FarAway(VOID)
{
    static const LONGLONG Ever[] = {(LONGLONG)0x7FFFFFFFFFFFFFFF, (LONGLONG)0x8000000000000000, -(LONGLONG)0x7FFFFFFFFFFFFFFF,
                                    -(LONGLONG)0x0FFFFFFFFFFFFFFF};
    LARGE_INTEGER Interval = After(MILLISECONDS(20));
    PATIENT *Patients = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Patients), SERVICES_TAG);
    PKTIMER Timer = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Timer), SERVICES_TAG);

    CHECK(Patients != NULL && Timer != NULL);
    KeInitializeTimer(Timer);
    for (ULONG i = 0; i < RTL_NUMBER_OF(Ever); i++) {
        PVOID Thread;

        CHECK(!KeSetTimer(Timer, After(Ever[i]), NULL));
        KeInitializeEvent(&Patients->Event, SynchronizationEvent, FALSE);
        Patients->Until = Ever[i];
        CHECK(NT_SUCCESS(StartThread(Patient, Patients, &Thread)));
        KeDelayExecutionThread(KernelMode, FALSE, &Interval);
        KeSetEvent(&Patients->Event, IO_NO_INCREMENT, FALSE);
        CHECK(Join(Thread) == STATUS_SUCCESS && Patients->Status == STATUS_SUCCESS);
        CHECK(!KeReadStateTimer(Timer) && KeCancelTimer(Timer)); /* it was set all the while */
    }
    ExFreePoolWithTag(Timer, SERVICES_TAG);
    ExFreePoolWithTag(Patients, SERVICES_TAG);
    return 0;
}

/* A lock that the driver sets by hand, as some do with InterlockedExchange: it may be looked at. Not: spin-lock-damaged */
static ULONG HandMadeLocks(VOID)
{
    KSPIN_LOCK Lock = 0;

    CHECK(KeTestSpinLock(&Lock));
    Lock = 1;
    CHECK(!KeTestSpinLock(&Lock));
    Lock = 0;
    CHECK(KeTestSpinLock(&Lock));
    return 0;
}

/* A thread of a driver's in an application's process is a system thread all the same; the application's own is none. */
static ULONG SystemThreads(VOID)
{
    PEPROCESS Process = NtPsGetCurrentProcess();
    HANDLE Own, Handle;
    PVOID Thread;

    CHECK(PsGetProcessId(Process) != (HANDLE)4);
    CHECK(!NtPsIsSystemThread(NtKeGetCurrentThread()) && !IoIsSystemThread((PETHREAD)NtKeGetCurrentThread()));
    CHECK(NT_SUCCESS(ObOpenObjectByPointer(Process, OBJ_KERNEL_HANDLE, NULL, PROCESS_ALL_ACCESS, NULL, KernelMode, &Own)));
    CHECK(NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, Own, NULL, EndAtOnce, NULL)));
    CHECK(NT_SUCCESS(ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, &Thread, NULL)));
    CHECK(IoThreadToProcess(Thread) == Process);
    CHECK(NtPsIsSystemThread(Thread) && IoIsSystemThread(Thread));
    ZwClose(Handle);
    ZwClose(Own);
    CHECK(Join(Thread) == STATUS_SUCCESS);
    return 0;
}

/* An error, by its page, but one that Windows goes on after. */
static ULONG IdleQueues(VOID)
{
    KDEVICE_QUEUE Queue;
    KDEVICE_QUEUE_ENTRY Entry;
    KIRQL Old;

    KeInitializeDeviceQueue(&Queue);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(!KeInsertDeviceQueue(&Queue, &Entry)); /* busy now */
    CHECK(KeRemoveDeviceQueue(&Queue) == NULL); /* and free */
    CHECK(KeRemoveDeviceQueue(&Queue) == NULL); /* which is a finding */
    KeLowerIrql(Old);
    return 0;
}

/* What is enabled by XSAVE is what the shared page says. */
static ULONG Features(VOID)
{
    ULONG64 Enabled = *(volatile ULONG64 *)0xFFFFF780000003D8ull;
    static const ULONG Present[] = {2, 3, 6, 8, 9, 10, 11, 12, 13, 14, 23, 32};

    CHECK(RtlGetEnabledExtendedFeatures(~0ull) == Enabled);
    CHECK(RtlGetEnabledExtendedFeatures(3) == (Enabled & 3));
    for (ULONG i = 0; i < RTL_NUMBER_OF(Present); i++) {
        CHECK(ExIsProcessorFeaturePresent(Present[i]));
    }
    CHECK(ExIsProcessorFeaturePresent(17) == (Enabled != 0));
    return 0;
}

static PEPROCESS Held;
static HANDLE HeldId;

/* Keeps the application's process object beyond the application's end. */
static ULONG HeldProcess(VOID)
{
    PEPROCESS Found;

    Held = NtPsGetCurrentProcess();
    HeldId = PsGetProcessId(Held);
    CHECK(NT_SUCCESS(NtPsLookupProcessByProcessId(HeldId, &Found)) && Found == Held);
    CHECK(Poll(Held) == STATUS_TIMEOUT); /* it is not over */
    return 0; /* the reference of the lookup stays */
}

static VOID TellOfHeldProcess(VOID)
{
    PEPROCESS Found;

    if (Held == NULL) {
        return;
    }
    DbgPrint("process over: %d, found: %d, same id: %d\n", Poll(Held) == STATUS_SUCCESS,
             NT_SUCCESS(NtPsLookupProcessByProcessId(HeldId, &Found)), PsGetProcessId(Held) == HeldId);
    ObDereferenceObject(Held);
}

static VOID NTAPI NeverRuns(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
}

/* Ends the run: a processor number that was overwritten. */
static ULONG DamagedDpc(VOID)
{
    KDPC Dpc;

    KeInitializeDpc(&Dpc, NeverRuns, NULL);
    Dpc.Number = 0x800 + 77;
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    return 0;
}

/* Findings, no errors: for a mutex WaitMode must be KernelMode; a semaphore is released with Wait TRUE at PASSIVE_LEVEL only. */
static ULONG UserModeMutex(VOID)
{
    LARGE_INTEGER Now = After(0);
    static KMUTEX Mutex;
    KSEMAPHORE Semaphore;
    KIRQL Old;

    KeInitializeMutex(&Mutex, 0);
    CHECK(KeWaitForSingleObject(&Mutex, UserRequest, UserMode, FALSE, NULL) == STATUS_SUCCESS);
    KeReleaseMutex(&Mutex, FALSE);
    KeInitializeSemaphore(&Semaphore, 0, 2);
    KeRaiseIrql(APC_LEVEL, &Old);
    CHECK(KeReleaseSemaphore(&Semaphore, IO_NO_INCREMENT, 1, TRUE) == 0);
    CHECK(KeWaitForSingleObject(&Semaphore, Executive, KernelMode, FALSE, &Now) == STATUS_SUCCESS);
    KeLowerIrql(Old);
    return 0;
}
