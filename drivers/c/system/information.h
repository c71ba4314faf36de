/* Stories of ZwQuerySystemInformation. */
#include "system.h"

typedef struct _BASIC {
    ULONG Reserved;
    ULONG TimerResolution;
    ULONG PageSize;
    ULONG NumberOfPhysicalPages;
    ULONG LowestPhysicalPageNumber;
    ULONG HighestPhysicalPageNumber;
    ULONG AllocationGranularity;
    ULONG_PTR MinimumUserModeAddress;
    ULONG_PTR MaximumUserModeAddress;
    KAFFINITY ActiveProcessors;
    CCHAR NumberOfProcessors;
} BASIC;

typedef struct _TIME_OF_DAY {
    LARGE_INTEGER BootTime;
    LARGE_INTEGER CurrentTime;
    LARGE_INTEGER TimeZoneBias;
    ULONG TimeZoneId;
    ULONG Reserved;
    ULONGLONG BootTimeBias;
    ULONGLONG SleepTimeBias;
} TIME_OF_DAY;

typedef struct _THREAD_OF_LIST {
    LARGE_INTEGER Times[3];
    ULONG WaitTime;
    PVOID StartAddress;
    CLIENT_ID ClientId;
    LONG Priority;
    LONG BasePriority;
    ULONG ContextSwitches;
    ULONG ThreadState;
    ULONG WaitReason;
} THREAD_OF_LIST;

typedef struct _PROCESS_OF_LIST {
    ULONG NextEntryOffset;
    ULONG NumberOfThreads;
    LARGE_INTEGER Reserved[6];
    UNICODE_STRING ImageName;
    LONG BasePriority;
    HANDLE UniqueProcessId;
    HANDLE InheritedFrom;
    ULONG HandleCount;
    ULONG SessionId;
    ULONG_PTR Sizes[19];
    THREAD_OF_LIST Threads[1];
} PROCESS_OF_LIST;

C_ASSERT(sizeof(BASIC) == 0x40 && sizeof(TIME_OF_DAY) == 0x30 && sizeof(THREAD_OF_LIST) == 0x50);
C_ASSERT(FIELD_OFFSET(PROCESS_OF_LIST, Threads) == 0x100);

static ULONG Information(VOID)
{
    BASIC Basic;
    TIME_OF_DAY Time;
    LARGE_INTEGER Now;
    UCHAR Debugger[2] = {7, 7};
    ULONG Integrity[2] = {sizeof(Integrity), 0}, Length = 0;
    USHORT Processor[6];

    RtlFillMemory(&Basic, sizeof(Basic), 0xAA);
    CHECK(ZwQuerySystemInformation(0, &Basic, sizeof(Basic) - 1, &Length) == STATUS_INFO_LENGTH_MISMATCH);
    CHECK(Length == sizeof(Basic) && Basic.PageSize == 0xAAAAAAAA);
    CHECK(ZwQuerySystemInformation(0, &Basic, sizeof(Basic), NULL) == STATUS_SUCCESS);
    CHECK(Basic.PageSize == PAGE_SIZE && Basic.AllocationGranularity == 0x10000);
    CHECK(Basic.TimerResolution == KeQueryTimeIncrement());
    CHECK(Basic.MinimumUserModeAddress == 0x10000);
    CHECK(Basic.MaximumUserModeAddress == *(ULONG_PTR *)Routine(L"MmHighestUserAddress"));
    CHECK(Basic.ActiveProcessors == KeQueryActiveProcessors() && Basic.NumberOfProcessors == 2);
    CHECK(Basic.LowestPhysicalPageNumber == 1 && Basic.HighestPhysicalPageNumber > Basic.NumberOfPhysicalPages);

    KeQuerySystemTime(&Now);
    CHECK(ZwQuerySystemInformation(3, &Time, sizeof(Time), &Length) == STATUS_SUCCESS && Length == sizeof(Time));
    CHECK(Time.CurrentTime.QuadPart >= Now.QuadPart && Time.BootTime.QuadPart <= Now.QuadPart);
    CHECK((ULONGLONG)(Now.QuadPart - Time.BootTime.QuadPart) <= KeQueryInterruptTime());
    CHECK(Time.TimeZoneBias.QuadPart == 0);

    CHECK(ZwQuerySystemInformation(1, Processor, sizeof(Processor), NULL) == STATUS_SUCCESS && Processor[0] == 9);
    CHECK(ZwQuerySystemInformation(35, Debugger, sizeof(Debugger), NULL) == STATUS_SUCCESS);
    CHECK(Debugger[0] == *(PUCHAR)Routine(L"KdDebuggerEnabled"));
    CHECK(Debugger[1] == *(PUCHAR)Routine(L"KdDebuggerNotPresent"));
    CHECK(ZwQuerySystemInformation(103, Integrity, sizeof(Integrity), NULL) == STATUS_SUCCESS && Integrity[1] == 1);
    Integrity[0] = 4;
    CHECK(ZwQuerySystemInformation(103, Integrity, sizeof(Integrity), NULL) == STATUS_INFO_LENGTH_MISMATCH);
    return 0;
}

static VOID NTAPI WaitsInVain(PVOID Event)
{
    KeWaitForSingleObject(Event, Executive, KernelMode, FALSE, NULL);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static const THREAD_OF_LIST *ThreadOf(const PROCESS_OF_LIST *Process, HANDLE Id)
{
    for (ULONG Index = 0; Index < Process->NumberOfThreads; Index++) {
        if (Process->Threads[Index].ClientId.UniqueThread == Id) {
            return &Process->Threads[Index];
        }
    }
    return NULL;
}

static ULONG ListOfProcesses(VOID)
{
    PROCESS_OF_LIST *List, *Process, *Own = NULL, *System = NULL;
    const THREAD_OF_LIST *Waiting, *Current;
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"System");
    ULONG Length = 0, Again = 0, Count = 0;
    PVOID Object;
    CLIENT_ID Client;
    HANDLE Thread;
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    CHECK(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, &Client, WaitsInVain, &Event) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Thread, THREAD_ALL_ACCESS, NULL, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    ZwClose(Thread);
    CHECK(ZwQuerySystemInformation(5, NULL, 0, &Length) == STATUS_INFO_LENGTH_MISMATCH && Length > 0x300);
    List = ExAllocatePoolWithTag(PagedPool, Length, SYSTEM_TAG);
    CHECK(List != NULL);
    CHECK(ZwQuerySystemInformation(5, List, Length, &Again) == STATUS_SUCCESS && Again == Length);
    CHECK(List->UniqueProcessId == NULL && List->ImageName.Length == 0 && List->NumberOfThreads == 2);
    for (Process = List;; Process = (PVOID)((PUCHAR)Process + Process->NextEntryOffset)) {
        CHECK((PUCHAR)&Process->Threads[Process->NumberOfThreads] <= (PUCHAR)List + Length);
        CHECK((PUCHAR)Process->ImageName.Buffer + Process->ImageName.Length <= (PUCHAR)List + Length);
        Count++;
        if (Process->UniqueProcessId == PsGetCurrentProcessId()) {
            Own = Process;
        }
        if (Process->UniqueProcessId == (HANDLE)4) {
            System = Process;
        }
        if (Process->NextEntryOffset == 0) {
            break;
        }
    }
    CHECK(Count >= 3 && System != NULL && Own != NULL && Own != System);
    CHECK(RtlEqualUnicodeString(&System->ImageName, &Name, FALSE) && System->SessionId == 0);
    CHECK(Own->ImageName.Length > 0 && Own->SessionId == 1 && Own->HandleCount >= 1);
    Current = ThreadOf(Own, PsGetCurrentThreadId());
    CHECK(Current != NULL && Current->ThreadState == 2 && Current->ClientId.UniqueProcess == Own->UniqueProcessId);
    CHECK(Current->Priority == KeQueryPriorityThread(CurrentThread()));
    Waiting = ThreadOf(System, Client.UniqueThread);
    CHECK(Waiting != NULL && ThreadOf(Own, Client.UniqueThread) == NULL);
    ExFreePoolWithTag(List, SYSTEM_TAG);
    KeSetEvent(&Event, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Object);
    return 0;
}

/* Of a class that no page describes. */
static ULONG UnknownClass(VOID)
{
    UCHAR Buffer[8];

    CHECK(ZwQuerySystemInformation(64, Buffer, sizeof(Buffer), NULL) == STATUS_SUCCESS);
    return 0;
}
