/* Stories of notify routines: processes, threads and images that come and go. The routines print what they get once that is asked for. */
#include "system.h"

typedef VOID(NTAPI *PROCESS_NOTIFY)(HANDLE Parent, HANDLE Process, BOOLEAN Create);
typedef VOID(NTAPI *THREAD_NOTIFY)(HANDLE Process, HANDLE Thread, BOOLEAN Create);

/* IMAGE_INFO of ntddk.h. */
typedef struct _LOADED_IMAGE {
    ULONG Properties;
    PVOID ImageBase;
    ULONG ImageSelector;
    SIZE_T ImageSize;
    ULONG ImageSectionNumber;
} LOADED_IMAGE;

typedef VOID(NTAPI *IMAGE_NOTIFY)(PUNICODE_STRING Name, HANDLE Process, LOADED_IMAGE *Info);

NTKERNELAPI NTSTATUS NTAPI PsSetCreateProcessNotifyRoutine(PROCESS_NOTIFY Routine, BOOLEAN Remove);
NTKERNELAPI NTSTATUS NTAPI PsSetCreateThreadNotifyRoutine(THREAD_NOTIFY Routine);
NTKERNELAPI NTSTATUS NTAPI PsRemoveCreateThreadNotifyRoutine(THREAD_NOTIFY Routine);
NTKERNELAPI NTSTATUS NTAPI PsSetLoadImageNotifyRoutine(IMAGE_NOTIFY Routine);
NTKERNELAPI NTSTATUS NTAPI PsRemoveLoadImageNotifyRoutine(IMAGE_NOTIFY Routine);
NTKERNELAPI BOOLEAN NTAPI KeAreApcsDisabled(VOID);

static HANDLE ToldThread, ToldProcess;
static ULONG ThreadsBegun, ThreadsEnded;
static BOOLEAN ToldWrongly;

static VOID NTAPI TellsOfProcess(HANDLE Parent, HANDLE Process, BOOLEAN Create)
{
    DbgPrint("system: process %u of %u %s, seen in %u\n", HandleToULong(Process), HandleToULong(Parent),
             Create ? "begins" : "ends", HandleToULong(PsGetCurrentProcessId()));
    ToldWrongly |= KeGetCurrentIrql() != PASSIVE_LEVEL || !KeAreApcsDisabled();
}

static VOID NTAPI TellsOfThread(HANDLE Process, HANDLE Thread, BOOLEAN Create)
{
    ThreadsBegun += Create;
    ThreadsEnded += !Create;
    ToldThread = Thread;
    ToldProcess = Process;
    ToldWrongly |= KeGetCurrentIrql() != PASSIVE_LEVEL || !KeAreApcsDisabled();
    ToldWrongly |= !Create && Thread != PsGetCurrentThreadId();
}

static VOID NTAPI TellsOfImage(PUNICODE_STRING Name, HANDLE Process, LOADED_IMAGE *Info)
{
    DbgPrint("system: image %wZ in %u, properties %x, MZ %u\n", Name, HandleToULong(Process), Info->Properties,
             *(PUSHORT)Info->ImageBase == 0x5A4D && Info->ImageSize >= PAGE_SIZE);
}

static ULONG ToldOfThreads(VOID)
{
    CLIENT_ID Client;
    HANDLE Thread;
    PVOID Object;
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    CHECK(PsRemoveCreateThreadNotifyRoutine(TellsOfThread) == STATUS_PROCEDURE_NOT_FOUND);
    CHECK(PsSetCreateThreadNotifyRoutine(TellsOfThread) == STATUS_SUCCESS);
    CHECK(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, &Client, WaitsInVain, &Event) == STATUS_SUCCESS);
    CHECK(ToldThread == Client.UniqueThread && ToldProcess == (HANDLE)4 && ThreadsBegun == 1 && ThreadsEnded == 0);
    CHECK(ObReferenceObjectByHandle(Thread, THREAD_ALL_ACCESS, NULL, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    ZwClose(Thread);
    KeSetEvent(&Event, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Object);
    CHECK(ThreadsBegun == 1 && ThreadsEnded == 1 && ToldThread == Client.UniqueThread && !ToldWrongly);
    CHECK(PsRemoveCreateThreadNotifyRoutine(TellsOfThread) == STATUS_SUCCESS);
    CHECK(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, &Client, WaitsInVain, &Event) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Thread, THREAD_ALL_ACCESS, NULL, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    ZwClose(Thread);
    KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Object);
    CHECK(ThreadsBegun == 1 && ThreadsEnded == 1);
    return 0;
}

static ULONG ToldOfProcesses(VOID)
{
    CHECK(PsSetCreateProcessNotifyRoutine(TellsOfProcess, TRUE) == STATUS_PROCEDURE_NOT_FOUND);
    CHECK(PsSetCreateProcessNotifyRoutine(TellsOfProcess, FALSE) == STATUS_SUCCESS);
    CHECK(PsSetCreateProcessNotifyRoutine(TellsOfProcess, FALSE) == STATUS_INVALID_PARAMETER);
    return 0;
}

static ULONG NoLongerToldOfProcesses(VOID)
{
    CHECK(!ToldWrongly && PsSetCreateProcessNotifyRoutine(TellsOfProcess, TRUE) == STATUS_SUCCESS);
    return 0;
}
