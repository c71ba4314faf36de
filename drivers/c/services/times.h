/* Stories of clocks, calendars, processors and versions. */
#include "services.h"

static ULONG Clocks(VOID)
{
    LARGE_INTEGER Frequency, Before = KeQueryPerformanceCounter(&Frequency), Interval = After(MILLISECONDS(40)), Now;
    LARGE_INTEGER System, SystemLater, Ticks, TicksLater;
    ULONGLONG Interrupt = KeQueryInterruptTime(), Unbiased = KeQueryUnbiasedInterruptTime();
    ULONG64 Precise, Counter;
    ULONG Increment = KeQueryTimeIncrement();

    KeQuerySystemTime(&System);
    KeQueryTickCount(&Ticks);
    CHECK(Frequency.QuadPart > 0);
    CHECK(Increment >= 5000 && Increment <= 156250); /* a tick lasts 0.5 to 15.625 ms */
    CHECK(KeDelayExecutionThread(KernelMode, FALSE, &Interval) == STATUS_SUCCESS);
    Now = KeQueryPerformanceCounter(NULL);
    CHECK((Now.QuadPart - Before.QuadPart) * 1000 / Frequency.QuadPart >= 39);
    KeQuerySystemTime(&SystemLater);
    CHECK(SystemLater.QuadPart - System.QuadPart >= 390000);
    KeQueryTickCount(&TicksLater);
    CHECK((ULONGLONG)(TicksLater.QuadPart - Ticks.QuadPart) >= 400000 / Increment - 1);
    CHECK(KeQueryInterruptTime() - Interrupt >= 390000);
    CHECK(KeQueryUnbiasedInterruptTime() - Unbiased >= 390000);

    NtKeQueryInterruptTimePrecise(&Precise);
    CHECK(Precise >= Interrupt + 390000);
    NtKeQuerySystemTimePrecise(&Now);
    CHECK(Now.QuadPart >= SystemLater.QuadPart);
    Before = KeQueryPerformanceCounter(NULL);
    KeStallExecutionProcessor(30);
    Counter = (ULONG64)(KeQueryPerformanceCounter(NULL).QuadPart - Before.QuadPart);
    CHECK(Counter * 1000000 / (ULONG64)Frequency.QuadPart >= 29);
    return 0;
}

static ULONG Calendars(VOID)
{
    /* 2000-02-29 12:34:56.789, a Tuesday. */
    TIME_FIELDS Fields = {2000, 2, 29, 12, 34, 56, 789, 0}, Back;
    LARGE_INTEGER Time, Local;
    ULONG Seconds;

    CHECK(RtlTimeFieldsToTime(&Fields, &Time));
    CHECK(NtRtlTimeToSecondsSince1970(&Time, &Seconds) && Seconds == 951827696);
    RtlTimeToTimeFields(&Time, &Back);
    CHECK(Back.Weekday == 2);
    Fields.Weekday = Back.Weekday;
    CHECK(Same(&Fields, &Back, sizeof(Back)));
    NtRtlSecondsSince1970ToTime(0, &Time);
    CHECK(Time.QuadPart == 116444736000000000ll);
    Time.QuadPart--;
    CHECK(!NtRtlTimeToSecondsSince1970(&Time, &Seconds)); /* before 1970 */
    Fields.Year = 2001;
    CHECK(!RtlTimeFieldsToTime(&Fields, &Local)); /* which had no 29 February */
    ExSystemTimeToLocalTime(&Time, &Local);
    ExLocalTimeToSystemTime(&Local, &Local);
    CHECK(Local.QuadPart == Time.QuadPart);
    return 0;
}

static ULONG Groups(ULONG Count)
{
    GROUP_AFFINITY Wanted = {.Mask = 1}, Before;
    PROCESSOR_NUMBER Number;

    CHECK(KeQueryActiveGroupCount() == 1 && KeQueryMaximumGroupCount() >= 1);
    CHECK(KeQueryActiveProcessorCountEx(0) == Count && KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS) == Count);
    CHECK(KeQueryMaximumProcessorCountEx(0) >= Count);
    CHECK(KeQueryGroupAffinity(0) == KeQueryActiveProcessors());
    KeSetSystemGroupAffinityThread(&Wanted, &Before);
    CHECK(KeGetCurrentProcessorNumberEx(&Number) == 0);
    CHECK(Number.Group == 0 && Number.Number == 0);
    KeRevertToUserGroupAffinityThread(&Before);
    CHECK(NT_SUCCESS(KeGetProcessorNumberFromIndex(Count - 1, &Number)));
    CHECK(KeGetProcessorIndexFromNumber(&Number) == Count - 1);
    CHECK(KeGetProcessorNumberFromIndex(4096, &Number) == STATUS_INVALID_PARAMETER);
    Number.Number = 63;
    Number.Group = 1;
    CHECK(KeGetProcessorIndexFromNumber(&Number) == INVALID_PROCESSOR_INDEX);
    return 0;
}

/* One node for each group: here there is one. */
static ULONG Nodes(ULONG Count)
{
    GROUP_AFFINITY Affinity = {.Mask = 0};
    USHORT InNode = 0;

    CHECK(KeQueryHighestNodeNumber() == 0 && KeGetCurrentNodeNumber() == 0);
    CHECK(KeQueryNodeMaximumProcessorCount(0) >= Count && KeQueryNodeMaximumProcessorCount(1) == 0);
    KeQueryNodeActiveAffinity(0, &Affinity, &InNode);
    CHECK(Affinity.Group == 0 && Affinity.Mask == KeQueryActiveProcessors() && InNode == Count);
    KeQueryNodeActiveAffinity(1, NULL, &InNode);
    CHECK(InNode == 0);
    return 0;
}

static ULONG64 ReadRegister(ULONG Number)
{
    ULONG Low, High;

    __asm__ volatile("rdmsr" : "=a"(Low), "=d"(High) : "c"(Number));
    return (ULONG64)High << 32 | Low;
}

static ULONG64 ReadCounter(ULONG Number)
{
    ULONG Low, High;

    __asm__ volatile("rdpmc" : "=a"(Low), "=d"(High) : "c"(Number));
    return (ULONG64)High << 32 | Low;
}

/* What every processor of the kind has: machine check address and type, the microcode's revision, counters. */
static ULONG ProcessorRegisters(VOID)
{
    ULONG64 First = ReadCounter(0), Fixed = ReadCounter(0x40000000);

    CHECK(ReadRegister(0) == 0 && ReadRegister(1) == 0);
    CHECK((ULONG)ReadRegister(0x8B) == 0 && ReadRegister(0x8B) >> 32 != 0);
    CHECK(Fixed > First && ReadCounter(3) > Fixed && ReadCounter(3) >> 48 == 0);
    return 0;
}

static ULONG Processors(VOID)
{
    KAFFINITY Active = 0, Before;
    ULONG Count = KeQueryActiveProcessorCount(&Active);

    CHECK(Count >= 1 && Count <= KeQueryMaximumProcessorCount());
    CHECK(Active == KeQueryActiveProcessors() && (Active & 1) != 0);
    CHECK(Active == (Count == 64 ? ~(KAFFINITY)0 : ((KAFFINITY)1 << Count) - 1));
    Before = KeSetSystemAffinityThreadEx(1);
    CHECK(KeGetCurrentProcessorNumberEx(NULL) == 0);
    KeRevertToUserAffinityThreadEx(Before);
    KeSetSystemAffinityThread((KAFFINITY)1 << (Count - 1));
    CHECK(KeGetCurrentProcessorNumberEx(NULL) == Count - 1);
    KeRevertToUserAffinityThread();
    CHECK(ExIsProcessorFeaturePresent(PF_XMMI64_INSTRUCTIONS_AVAILABLE)); /* SSE2: every x64 has it */
    CHECK(!ExIsProcessorFeaturePresent(0x7FFFFFFF));
    CHECK_ALL(ProcessorRegisters());
    CHECK_ALL(Groups(Count));
    CHECK_ALL(Nodes(Count));
    return 0;
}

static ULONG Verified(RTL_OSVERSIONINFOEXW *Info, UCHAR Condition, NTSTATUS Expected)
{
    ULONGLONG Mask = VerSetConditionMask(VerSetConditionMask(0, VER_MAJORVERSION, Condition), VER_MINORVERSION,
                                         Condition);

    CHECK(RtlVerifyVersionInfo(Info, VER_MAJORVERSION | VER_MINORVERSION, Mask) == Expected);
    return 0;
}

static ULONG Versions(VOID)
{
    RTL_OSVERSIONINFOEXW Info;
    ULONG Major, Minor, Build;

    RtlZeroMemory(&Info, sizeof(Info));
    Info.dwOSVersionInfoSize = sizeof(Info);
    CHECK(RtlGetVersion(&Info) == STATUS_SUCCESS);
    CHECK(Info.dwMajorVersion >= 6 && Info.dwPlatformId == VER_PLATFORM_WIN32_NT);
    CHECK(!NtPsGetVersion(&Major, &Minor, &Build, NULL)); /* not a checked build */
    CHECK(Major == Info.dwMajorVersion && Minor == Info.dwMinorVersion && Build == Info.dwBuildNumber);
    CHECK_ALL(Verified(&Info, VER_EQUAL, STATUS_SUCCESS));
    CHECK_ALL(Verified(&Info, VER_GREATER_EQUAL, STATUS_SUCCESS));
    CHECK_ALL(Verified(&Info, VER_GREATER, STATUS_REVISION_MISMATCH));
    Info.dwMajorVersion++;
    CHECK_ALL(Verified(&Info, VER_GREATER_EQUAL, STATUS_REVISION_MISMATCH));
    CHECK_ALL(Verified(&Info, VER_LESS, STATUS_SUCCESS));
    CHECK(IoIsWdmVersionAvailable(1, 0x20)); /* Windows XP's, and so every later one's */
    CHECK(!IoIsWdmVersionAvailable(9, 0));
    return 0;
}

static ULONG Randoms(VOID)
{
    ULONG Seed = 7, Again = 7;
    ULONG First = NtRtlRandomEx(&Seed);

    CHECK(First < 0x7FFFFFFF);
    CHECK(Seed != 7);
    CHECK(NtRtlRandomEx(&Seed) != First);
    First = NtRtlRandom(&Again);
    CHECK(First < 0x7FFFFFFF && Again != 7);
    return 0;
}

static int __attribute__((format(printf, 1, 2))) PrintList(PCSTR Format, ...)
{
    va_list List;
    NTSTATUS Status;

    va_start(List, Format);
    Status = vDbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_ERROR_LEVEL, Format, List);
    va_end(List);
    if (NT_SUCCESS(Status)) {
        va_start(List, Format);
        Status = vDbgPrintExWithPrefix("services: ", DPFLTR_IHVDRIVER_ID, DPFLTR_ERROR_LEVEL, Format, List);
        va_end(List);
    }
    return Status;
}

static ULONG Debugger(VOID)
{
    UNICODE_STRING Known = RTL_CONSTANT_STRING(L"KeQueryInterruptTimePrecise");
    UNICODE_STRING Unknown = RTL_CONSTANT_STRING(L"KeDirqlDoesNotExist");
    VOID(NTAPI * Precise)(PULONG64);
    ULONG64 Counter, Time = 0;

    CHECK(NT_SUCCESS(DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_ERROR_LEVEL, "services: %s %u\n", "sent", 1)));
    CHECK(NT_SUCCESS(PrintList("in a list %d\n", 2)));
    CHECK(NT_SUCCESS(DbgSetDebugFilterState(DPFLTR_IHVDRIVER_ID, DPFLTR_INFO_LEVEL, FALSE)));
    CHECK(DbgQueryDebugFilterState(DPFLTR_IHVDRIVER_ID, DPFLTR_INFO_LEVEL) == FALSE);
    DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_INFO_LEVEL, "services: never sent\n");
    CHECK(NT_SUCCESS(DbgSetDebugFilterState(DPFLTR_IHVDRIVER_ID, DPFLTR_INFO_LEVEL, TRUE)));
    CHECK(DbgQueryDebugFilterState(DPFLTR_IHVDRIVER_ID, DPFLTR_INFO_LEVEL) == TRUE);
    CHECK(KdDisableDebugger() == STATUS_DEBUGGER_INACTIVE);
    CHECK(KdEnableDebugger() == STATUS_DEBUGGER_INACTIVE);
    CHECK(KdRefreshDebuggerNotPresent()); /* there is none */

    CHECK(MmGetSystemRoutineAddress(&Unknown) == NULL);
    Precise = (VOID(NTAPI *)(PULONG64))MmGetSystemRoutineAddress(&Known);
    CHECK(Precise != NULL);
    Precise(&Time);
    NtKeQueryInterruptTimePrecise(&Counter);
    CHECK(Time != 0 && Counter >= Time);
    return 0;
}
