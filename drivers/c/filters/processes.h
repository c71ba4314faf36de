/* Stories of routines that are called when processes and threads are created, and may prevent it. */
#include "filters.h"

NTKERNELAPI NTSTATUS NTAPI PsSetCreateProcessNotifyRoutineEx2(ULONG Type, PVOID Information, BOOLEAN Remove);
NTKERNELAPI NTSTATUS NTAPI PsSetCreateThreadNotifyRoutineEx(ULONG Type, PVOID Information);
NTKERNELAPI HANDLE NTAPI PsGetProcessId(PEPROCESS Process);
NTKERNELAPI NTSTATUS NTAPI PsGetProcessExitStatus(PEPROCESS Process);

static ULONG Begun, Gone, Known, ThreadsKnown; /* processes of one routine, of the other, threads */
static BOOLEAN ToldBadly;
static HANDLE LastThread;

/* Prints who begins, and prevents evil.exe. */
static VOID NTAPI ProcessBegins(PEPROCESS Process, HANDLE Id, PPS_CREATE_NOTIFY_INFO Info)
{
    UNICODE_STRING Evil = RTL_CONSTANT_STRING(L"\\??\\C:\\evil.exe");
    PFILE_OBJECT File;

    ToldBadly |= KeGetCurrentIrql() != PASSIVE_LEVEL || !KeAreApcsDisabled() || PsGetProcessId(Process) != Id;
    ToldBadly |= PsGetProcessExitStatus(Process) != (Info == NULL ? STATUS_SUCCESS : STATUS_PENDING);
    if (Info == NULL) {
        Gone++;
        return;
    }
    Begun++;
    ToldBadly |= Info->Size != sizeof(*Info) || !Info->FileOpenNameAvailable || Info->CreationStatus != STATUS_SUCCESS;
    ToldBadly |= Info->CreatingThreadId.UniqueThread != PsGetCurrentThreadId();
    ToldBadly |= Info->CreatingThreadId.UniqueProcess != PsGetCurrentProcessId();
    ToldBadly |= Info->ParentProcessId != PsGetCurrentProcessId();
    File = Info->FileObject;
    ToldBadly |= File == NULL || File->Type != 5 || File->DeviceObject == NULL || File->FileName.Length == 0;
    DbgPrint("filters: %wZ as %wZ, %s\n", Info->ImageFileName, Info->CommandLine,
             File->Flags & FO_HANDLE_CREATED ? "open" : "not open");
    if (RtlEqualUnicodeString(Info->ImageFileName, &Evil, TRUE)) {
        Info->CreationStatus = STATUS_ACCESS_DENIED;
    }
}

static VOID NTAPI ProcessKnown(PEPROCESS Process, HANDLE Id, PPS_CREATE_NOTIFY_INFO Info)
{
    ToldBadly |= PsGetProcessId(Process) != Id;
    Known += Info != NULL;
}

/* On the new thread, which is not the system's. */
static VOID NTAPI ThreadKnown(HANDLE Process, HANDLE Thread, BOOLEAN Create)
{
    ToldBadly |= Create && (Thread != PsGetCurrentThreadId() || Process != PsGetCurrentProcessId());
    LastThread = Create ? Thread : LastThread;
    ThreadsKnown++;
}

static VOID NTAPI ThreadSeen(HANDLE Process, HANDLE Thread, BOOLEAN Create)
{
    UNREFERENCED_PARAMETER(Process);
    UNREFERENCED_PARAMETER(Thread);
    UNREFERENCED_PARAMETER(Create);
}

static ULONG ProcessesAreWatched(VOID)
{
    CHECK(PsSetCreateProcessNotifyRoutineEx(ProcessBegins, TRUE) == STATUS_PROCEDURE_NOT_FOUND);
    CHECK(PsSetCreateProcessNotifyRoutineEx(ProcessBegins, FALSE) == STATUS_SUCCESS);
    CHECK(PsSetCreateProcessNotifyRoutineEx(ProcessBegins, FALSE) == STATUS_INVALID_PARAMETER);
    CHECK(PsSetCreateProcessNotifyRoutineEx2(7, ProcessKnown, FALSE) == STATUS_INVALID_PARAMETER);
    CHECK(PsSetCreateProcessNotifyRoutineEx2(0, ProcessKnown, FALSE) == STATUS_SUCCESS);
    return 0;
}

static ULONG ProcessesWereTold(VOID)
{
    CHECK(!ToldBadly);
    CHECK(Begun == 3 && Known == 3 && Gone == 1);
    CHECK(PsSetCreateProcessNotifyRoutineEx2(0, ProcessKnown, TRUE) == STATUS_SUCCESS);
    CHECK(PsSetCreateProcessNotifyRoutineEx2(0, ProcessKnown, TRUE) == STATUS_PROCEDURE_NOT_FOUND);
    CHECK(PsSetCreateProcessNotifyRoutineEx(ProcessBegins, TRUE) == STATUS_SUCCESS);
    return 0;
}

static ULONG ProcessesAreNotTold(VOID)
{
    CHECK(PsSetCreateProcessNotifyRoutineEx(ProcessBegins, FALSE) == STATUS_ACCESS_DENIED);
    CHECK(PsSetCreateProcessNotifyRoutineEx2(0, ProcessKnown, FALSE) == STATUS_ACCESS_DENIED);
    return 0;
}

static VOID NTAPI EndsAtOnce(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG ThreadsAreWatched(VOID)
{
    HANDLE Thread;
    PVOID Object;

    CHECK(PsSetCreateThreadNotifyRoutineEx(7, ThreadKnown) == STATUS_INVALID_PARAMETER);
    CHECK(PsSetCreateThreadNotifyRoutineEx(0, ThreadKnown) == STATUS_SUCCESS);
    CHECK(PsSetCreateThreadNotifyRoutineEx(1, ThreadSeen) == STATUS_SUCCESS);
    CHECK(PsRemoveCreateThreadNotifyRoutine(ThreadSeen) == STATUS_SUCCESS);
    /* It is not called for a thread of the system's. */
    CHECK(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, EndsAtOnce, NULL) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Thread, THREAD_ALL_ACCESS, NULL, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    ZwClose(Thread);
    KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Object);
    CHECK(ThreadsKnown == 0 && !ToldBadly);
    return 0;
}

static ULONG ThreadsWereTold(VOID)
{
    CHECK(ThreadsKnown > 0 && !ToldBadly && LastThread != NULL);
    CHECK(PsRemoveCreateThreadNotifyRoutine(ThreadKnown) == STATUS_SUCCESS);
    return 0;
}
