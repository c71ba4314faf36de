/* Stories of processes, threads and tokens by their handles, and of what is asked of them. */
#include "objects.h"

EXPORTED(NTSTATUS, PsLookupThreadByThreadId, (HANDLE, PKTHREAD *));
EXPORTED(HANDLE, PsGetProcessInheritedFromUniqueProcessId, (PEPROCESS));
EXPORTED(NTSTATUS, PsGetProcessExitStatus, (PEPROCESS));
EXPORTED(PCSTR, PsGetProcessImageFileName, (PEPROCESS));
EXPORTED(ULONG, PsGetProcessSessionId, (PEPROCESS));
EXPORTED(ULONG, PsGetProcessSessionIdEx, (PEPROCESS));
EXPORTED(PEPROCESS, PsGetCurrentThreadProcess, (VOID));
EXPORTED(HANDLE, PsGetCurrentThreadProcessId, (VOID));
EXPORTED(HANDLE, PsGetCurrentProcessId, (VOID));
EXPORTED(HANDLE, PsGetCurrentThreadId, (VOID));
EXPORTED(PEPROCESS, PsGetCurrentProcess, (VOID));
EXPORTED(PKTHREAD, PsGetCurrentThread, (VOID));
EXPORTED(NTSTATUS, NtOpenProcess, (PHANDLE, ACCESS_MASK, POBJECT_ATTRIBUTES, PVOID Client));
EXPORTED(NTSTATUS, ZwQueryInformationProcess, (HANDLE, ULONG Class, PVOID, ULONG, PULONG));
EXPORTED(NTSTATUS, NtQueryInformationProcess, (HANDLE, ULONG Class, PVOID, ULONG, PULONG));
EXPORTED(NTSTATUS, ZwSetInformationThread, (HANDLE, ULONG Class, PVOID, ULONG));
EXPORTED(NTSTATUS, NtSetInformationThread, (HANDLE, ULONG Class, PVOID, ULONG));
EXPORTED(LONG, KeQueryPriorityThread, (PKTHREAD));
EXPORTED(NTSTATUS, ZwOpenProcessToken, (HANDLE, ACCESS_MASK, PHANDLE));
EXPORTED(NTSTATUS, ZwOpenProcessTokenEx, (HANDLE, ACCESS_MASK, ULONG Attributes, PHANDLE));
EXPORTED(NTSTATUS, ZwOpenThreadToken, (HANDLE, ACCESS_MASK, BOOLEAN, PHANDLE));
EXPORTED(NTSTATUS, ZwOpenThreadTokenEx, (HANDLE, ACCESS_MASK, BOOLEAN, ULONG Attributes, PHANDLE));
EXPORTED(NTSTATUS, ZwQueryInformationToken, (HANDLE, ULONG Class, PVOID, ULONG, PULONG));
EXPORTED(NTSTATUS, PsImpersonateClient, (PKTHREAD, PVOID Token, BOOLEAN, BOOLEAN, ULONG Level));
EXPORTED(VOID, PsRevertToSelf, (VOID));
EXPORTED(PVOID, PsReferencePrimaryToken, (PEPROCESS));
EXPORTED(VOID, PsDereferencePrimaryToken, (PVOID));
EXPORTED(BOOLEAN, ObIsKernelHandle, (HANDLE));
EXPORTED(BOOLEAN, ObReferenceObjectSafe, (PVOID));
EXPORTED(VOID, ObDereferenceObjectDeferDeleteWithTag, (PVOID, ULONG Tag));
EXPORTED(PVOID, IoGetActivityIdThread, (VOID));
EXPORTED(PVOID, IoSetActivityIdThread, (PVOID));
EXPORTED(VOID, IoClearActivityIdThread, (PVOID));
EXPORTED(NTSTATUS, EtwActivityIdControl, (ULONG, GUID *));

typedef struct _BASIC_OF_PROCESS {
    NTSTATUS ExitStatus;
    PVOID Peb;
    ULONG_PTR Affinity;
    LONG Priority;
    ULONG_PTR Id, Parent;
} BASIC_OF_PROCESS;

/* On an application's thread. */
static ULONG ProcessesTellOfThemselves(VOID)
{
    struct {
        HANDLE Process, Thread;
    } Client = {NtPsGetCurrentProcessId(), NULL};
    OBJECT_ATTRIBUTES Attributes = {.Length = sizeof(Attributes), .Attributes = OBJ_KERNEL_HANDLE};
    PEPROCESS Own = NtPsGetCurrentProcess();
    PKTHREAD Thread = NULL;
    BASIC_OF_PROCESS Basic, Again;
    ULONG Session = 7, Length = 0;
    HANDLE Process;

    CHECK(NtPsLookupThreadByThreadId(NtPsGetCurrentThreadId(), &Thread) == STATUS_SUCCESS && Thread == NtPsGetCurrentThread());
    CHECK(NtObReferenceObjectSafe(Thread) && NtPsGetProcessExitStatus(Own) == STATUS_PENDING);
    NtObDereferenceObjectDeferDeleteWithTag(Thread, OBJECTS_TAG);
    ObDereferenceObject(Thread);
    CHECK(NtPsLookupThreadByThreadId((HANDLE)0x7770, &Thread) == STATUS_INVALID_PARAMETER);
    CHECK(NtPsGetCurrentThreadProcess() == Own && NtPsGetCurrentThreadProcessId() == NtPsGetCurrentProcessId());
    CHECK(NtPsGetProcessImageFileName(Own) != NULL && NtPsGetProcessImageFileName(Own)[0] != 0);
    CHECK(strcmp(NtPsGetProcessImageFileName(PsInitialSystemProcess), "System") == 0);
    CHECK(NtPsGetProcessSessionId(Own) == 1 && NtPsGetProcessSessionIdEx(Own) == 1);
    CHECK(NtPsGetProcessSessionId(PsInitialSystemProcess) == 0);
    CHECK(NtPsGetProcessInheritedFromUniqueProcessId(PsInitialSystemProcess) == NULL);

    CHECK(NtNtOpenProcess(&Process, 0x400, &Attributes, &Client) == STATUS_SUCCESS);
    CHECK(NtObIsKernelHandle(Process) && !NtObIsKernelHandle((HANDLE)4) && !NtObIsKernelHandle(NtCurrentProcess()));
    RtlFillMemory(&Basic, sizeof(Basic), 0xAA);
    CHECK(NtZwQueryInformationProcess(Process, 0, &Basic, sizeof(Basic), &Length) == STATUS_SUCCESS && Length == sizeof(Basic));
    CHECK(Basic.ExitStatus == STATUS_PENDING && Basic.Id == (ULONG_PTR)Client.Process && Basic.Affinity == 3 && Basic.Priority == 8);
    CHECK(Basic.Parent == (ULONG_PTR)NtPsGetProcessInheritedFromUniqueProcessId(Own));
    RtlFillMemory(&Again, sizeof(Again), 0xAA);
    CHECK(NtNtQueryInformationProcess(NtCurrentProcess(), 0, &Again, sizeof(Again), NULL) == STATUS_SUCCESS);
    CHECK(Again.Id == Basic.Id && Again.Peb == NULL);
    CHECK(NtZwQueryInformationProcess(Process, 0, &Basic, 8, &Length) == STATUS_INFO_LENGTH_MISMATCH);
    CHECK(NtZwQueryInformationProcess(Process, 24, &Session, 4, NULL) == STATUS_SUCCESS && Session == 1);
    CHECK(ZwClose(Process) == STATUS_SUCCESS);
    return 0;
}

static ULONG ThreadsAreChanged(VOID)
{
    static GUID First = {1, 2, 3, {4}}, Second = {5, 6, 7, {8}};
    PKTHREAD Own = NtPsGetCurrentThread();
    LONG Before = NtKeQueryPriorityThread(Own), Priority = 12;
    GUID Got;

    CHECK(NtZwSetInformationThread(NtCurrentThread(), 2, &Priority, sizeof(Priority)) == STATUS_SUCCESS);
    CHECK(NtKeQueryPriorityThread(Own) == 12);
    Priority = 2;
    CHECK(NtNtSetInformationThread(NtCurrentThread(), 3, &Priority, sizeof(Priority)) == STATUS_SUCCESS);
    CHECK(NtKeQueryPriorityThread(Own) == 10);
    CHECK(NtZwSetInformationThread(NtCurrentThread(), 2, &Priority, 8) == STATUS_INFO_LENGTH_MISMATCH);
    Priority = 77;
    CHECK(NtZwSetInformationThread(NtCurrentThread(), 2, &Priority, sizeof(Priority)) == STATUS_INVALID_PARAMETER);
    CHECK(NtZwSetInformationThread((HANDLE)0x7770, 2, &Priority, sizeof(Priority)) == STATUS_INVALID_HANDLE);
    CHECK(NtZwSetInformationThread(NtCurrentThread(), 2, &Before, sizeof(Before)) == STATUS_SUCCESS);

    CHECK(NtIoGetActivityIdThread() == NULL && NtIoSetActivityIdThread(&First) == NULL);
    CHECK(NtIoGetActivityIdThread() == &First && NtIoSetActivityIdThread(&Second) == &First);
    CHECK(NtEtwActivityIdControl(1, &Got) == STATUS_SUCCESS && Got.Data1 == 5);
    NtIoClearActivityIdThread(&First);
    CHECK(NtIoGetActivityIdThread() == &First && NtEtwActivityIdControl(1, &Got) == STATUS_SUCCESS && Got.Data1 == 1);
    NtIoClearActivityIdThread(NULL);
    CHECK(NtIoGetActivityIdThread() == NULL);
    return 0;
}

static ULONG TokensHaveHandles(VOID)
{
    UCHAR Own[64], Systems[64];
    PVOID System = NtPsReferencePrimaryToken(PsInitialSystemProcess);
    HANDLE Token, Same;
    ULONG Length = 0, Session = 7, Type = 0;

    CHECK(NtZwOpenThreadToken(NtCurrentThread(), 8, TRUE, &Token) == (NTSTATUS)0xC000007C);
    CHECK(NtZwOpenProcessTokenEx(NtCurrentProcess(), 8, OBJ_KERNEL_HANDLE, &Token) == STATUS_SUCCESS && NtObIsKernelHandle(Token));
    CHECK(NtZwOpenProcessToken(NtCurrentProcess(), 8, &Same) == STATUS_SUCCESS && Same != Token && !NtObIsKernelHandle(Same));
    CHECK(NtZwQueryInformationToken(Token, 1, NULL, 0, &Length) == STATUS_BUFFER_TOO_SMALL && Length > 16 && Length <= 64);
    CHECK(NtZwQueryInformationToken(Token, 1, Own, sizeof(Own), &Length) == STATUS_SUCCESS);
    CHECK(*(PUCHAR *)Own == Own + 16 && Own[16] == 1 && Own[17] == 5); /* S-1-5-21-... */
    CHECK(NtZwQueryInformationToken(Same, 12, &Session, sizeof(Session), &Length) == STATUS_SUCCESS && Session == 1 && Length == 4);
    CHECK(NtZwQueryInformationToken(Same, 8, &Type, sizeof(Type), &Length) == STATUS_SUCCESS && Type == 1);
    CHECK(ZwClose(Token) == STATUS_SUCCESS && ZwClose(Same) == STATUS_SUCCESS);

    /* Who acts for another has that one's token too. */
    CHECK(NtPsImpersonateClient(NtPsGetCurrentThread(), System, TRUE, FALSE, 2) == STATUS_SUCCESS);
    CHECK(NtZwOpenThreadTokenEx(NtCurrentThread(), 8, TRUE, OBJ_KERNEL_HANDLE, &Token) == STATUS_SUCCESS);
    CHECK(NtZwOpenThreadToken(NtCurrentThread(), 8, TRUE, &Same) == STATUS_SUCCESS && ZwClose(Same) == STATUS_SUCCESS);
    NtPsRevertToSelf();
    CHECK(NtZwQueryInformationToken(Token, 1, Systems, sizeof(Systems), &Length) == STATUS_SUCCESS && Systems[24] == 18); /* S-1-5-18 */
    CHECK(ZwClose(Token) == STATUS_SUCCESS);
    NtPsDereferencePrimaryToken(System);
    CHECK(NtZwQueryInformationToken(NtCurrentThread(), 1, Own, sizeof(Own), &Length) == STATUS_OBJECT_TYPE_MISMATCH);
    return 0;
}
