/* Stories of routines that are called when the system stops. */
#include "system.h"

static KBUGCHECK_CALLBACK_RECORD Stop;
static KBUGCHECK_REASON_CALLBACK_RECORD Dump, Pages;
extern __declspec(dllimport) ULONG_PTR KiBugCheckData[5];
static UCHAR StopBuffer[16];
static ULONG PagesAsked;

/* At HIGH_LEVEL nothing can be reported: what is wrong is an access that faults. */
static VOID Insist(BOOLEAN Right)
{
    static volatile UCHAR *volatile Nowhere;

    if (!Right) {
        *Nowhere = 1;
    }
}

static VOID NTAPI OnStop(PVOID Buffer, ULONG Length)
{
    Insist(KiBugCheckData[0] != 0 && (KiBugCheckData[0] != 0xE2 || (KiBugCheckData[1] == 1 && KiBugCheckData[4] == 4)));
    Insist(KeGetCurrentIrql() == HIGH_LEVEL && Length == sizeof(StopBuffer) && Stop.State == 2);
    RtlFillMemory(Buffer, Length, 0x5A);
}

static VOID NTAPI OnReason(KBUGCHECK_CALLBACK_REASON Reason, PKBUGCHECK_REASON_CALLBACK_RECORD Record, PVOID Data,
                           ULONG Length)
{
    Insist(Stop.State == 3 && StopBuffer[0] == 0x5A && KeGetCurrentIrql() == HIGH_LEVEL);
    if (Reason == KbCallbackSecondaryDumpData) {
        KBUGCHECK_SECONDARY_DUMP_DATA *Into = Data;

        Insist(Record == &Dump && Length == sizeof(*Into) && Into->InBufferLength == PAGE_SIZE);
        RtlFillMemory(Into->InBuffer, Into->InBufferLength, 0x5A);
    } else {
        KBUGCHECK_ADD_PAGES *Add = Data;

        Insist(Reason == KbCallbackAddPages && Record == &Pages && Length == sizeof(*Add) && Add->BugCheckCode != 0);
        Add->Flags = ++PagesAsked < 3 ? 0x80000000 : 0;
    }
}

static VOID NTAPI OnStopBadly(PVOID Buffer, ULONG Length)
{
    UNREFERENCED_PARAMETER(Length);
    **(volatile UCHAR *volatile *)Buffer = 1; /* the buffer is zeros, and no pointer */
}

static ULONG RecordsOfBugChecks(VOID)
{
    Stop.State = 0;
    CHECK(KeRegisterBugCheckCallback(&Stop, OnStop, StopBuffer, sizeof(StopBuffer), (PUCHAR) "system"));
    CHECK(!KeRegisterBugCheckCallback(&Stop, OnStop, StopBuffer, sizeof(StopBuffer), (PUCHAR) "system"));
    CHECK(Stop.State == 1 && Stop.Buffer == StopBuffer && Stop.Length == sizeof(StopBuffer));
    CHECK(Stop.Checksum == (ULONG_PTR)Stop.CallbackRoutine + (ULONG_PTR)Stop.Buffer + Stop.Length + (ULONG_PTR)Stop.Component);
    CHECK(KeDeregisterBugCheckCallback(&Stop) && Stop.State == 0 && !KeDeregisterBugCheckCallback(&Stop));
    Dump.State = 0;
    CHECK(KeRegisterBugCheckReasonCallback(&Dump, OnReason, KbCallbackSecondaryDumpData, (PUCHAR) "system"));
    CHECK(!KeRegisterBugCheckReasonCallback(&Dump, OnReason, KbCallbackAddPages, (PUCHAR) "system"));
    CHECK(Dump.Reason == KbCallbackSecondaryDumpData && Dump.State == 1);
    CHECK(KeDeregisterBugCheckReasonCallback(&Dump) && !KeDeregisterBugCheckReasonCallback(&Dump));
    return 0;
}

static ULONG Register(PKBUGCHECK_CALLBACK_ROUTINE Routine)
{
    Stop.State = Dump.State = Pages.State = 0;
    CHECK(KeRegisterBugCheckCallback(&Stop, Routine, StopBuffer, sizeof(StopBuffer), (PUCHAR) "system"));
    CHECK(KeRegisterBugCheckReasonCallback(&Dump, OnReason, KbCallbackSecondaryDumpData, (PUCHAR) "system"));
    CHECK(KeRegisterBugCheckReasonCallback(&Pages, OnReason, KbCallbackAddPages, (PUCHAR) "system"));
    return 0;
}

static ULONG StopsWithCallbacks(VOID)
{
    CHECK_ALL(Register(OnStop));
    KeBugCheckEx(0xE2, 1, 2, 3, 4);
    return 0;
}

static ULONG StopsAndFails(VOID)
{
    CHECK_ALL(Register(OnStopBadly));
    KeBugCheckEx(0xE2, 1, 2, 3, 4);
    return 0;
}

static VOID NTAPI StopInDpc(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    *(volatile ULONG *)Context = 1; /* freed by now */
    ExFreePoolWithTag(Context, SYSTEM_TAG);
}

/* The system stops in a DPC, on whatever thread that runs. */
static ULONG StopsInDpc(VOID)
{
    static KDPC Dpc;
    LARGE_INTEGER Interval = {.QuadPart = -1000000};
    PVOID Freed = ExAllocatePoolWithTag(NonPagedPool, 64, SYSTEM_TAG);

    CHECK_ALL(Register(OnStop));
    ExFreePoolWithTag(Freed, SYSTEM_TAG);
    KeInitializeDpc(&Dpc, StopInDpc, Freed);
    KeSetTargetProcessorDpc(&Dpc, 1);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    return 0;
}
