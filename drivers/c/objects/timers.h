/* Stories of timers with handles, of waits for several handles, of mutants, and of what is initialized once. */
#include "objects.h"

EXPORTED(NTSTATUS, ZwCreateTimer, (PHANDLE, ACCESS_MASK, POBJECT_ATTRIBUTES, ULONG Type));
EXPORTED(NTSTATUS, ZwOpenTimer, (PHANDLE, ACCESS_MASK, POBJECT_ATTRIBUTES));
EXPORTED(NTSTATUS, ZwSetTimer, (HANDLE, PLARGE_INTEGER Due, PVOID Routine, PVOID Context, BOOLEAN Resume, LONG Period, PBOOLEAN));
EXPORTED(NTSTATUS, ZwCancelTimer, (HANDLE, PBOOLEAN));
EXPORTED(NTSTATUS, ZwCreateEvent, (PHANDLE, ACCESS_MASK, POBJECT_ATTRIBUTES, EVENT_TYPE, BOOLEAN));
EXPORTED(NTSTATUS, ZwSetEvent, (HANDLE, PLONG));
EXPORTED(NTSTATUS, ZwWaitForSingleObject, (HANDLE, BOOLEAN, PLARGE_INTEGER));
EXPORTED(NTSTATUS, ZwWaitForMultipleObjects, (ULONG, PHANDLE, WAIT_TYPE, BOOLEAN, PLARGE_INTEGER));
EXPORTED(VOID, KeInitializeMutant, (PVOID, BOOLEAN Owned));
EXPORTED(LONG, KeReleaseMutant, (PVOID, LONG Increment, BOOLEAN Abandoned, BOOLEAN Wait));
EXPORTED(LONG, KeReadStateMutant, (PVOID));
EXPORTED(BOOLEAN, KeAreApcsDisabled, (VOID));
EXPORTED(NTSTATUS, RtlRunOnceExecuteOnce, (PVOID, ULONG(NTAPI *)(PVOID, PVOID, PVOID *), PVOID, PVOID *));

#ifndef TIMER_ALL_ACCESS
#define TIMER_ALL_ACCESS 0x1F0003
#endif

static LARGE_INTEGER Poll; /* a time-out of 0 */

static POBJECT_ATTRIBUTES Named(PCWSTR Text, ULONG Flags)
{
    static UNICODE_STRING Name;
    static OBJECT_ATTRIBUTES Attributes;

    RtlInitUnicodeString(&Name, Text);
    InitializeObjectAttributes(&Attributes, Text == NULL ? NULL : &Name, Flags | OBJ_KERNEL_HANDLE, NULL, NULL);
    return &Attributes;
}

static ULONG TimersHaveHandles(VOID)
{
    LARGE_INTEGER Due = {.QuadPart = MILLISECONDS(20)}, Long = {.QuadPart = MILLISECONDS(1000)};
    HANDLE Timer = NULL, Same = NULL, Periodic;
    BOOLEAN Was = TRUE;

    CHECK(NtZwCreateTimer(&Timer, TIMER_ALL_ACCESS, Named(L"\\BaseNamedObjects\\DirqlTimer", 0), 2) == STATUS_INVALID_PARAMETER_4);
    CHECK(NtZwCreateTimer(&Timer, TIMER_ALL_ACCESS, Named(L"\\DirqlTimer", 0), NotificationTimer) == STATUS_SUCCESS);
    CHECK(NtZwCreateTimer(&Same, TIMER_ALL_ACCESS, Named(L"\\DirqlTimer", 0), NotificationTimer) == STATUS_OBJECT_NAME_COLLISION);
    CHECK(NtZwOpenTimer(&Same, TIMER_ALL_ACCESS, Named(L"\\DirqlTimer", 0)) == STATUS_SUCCESS && Same != NULL && Same != Timer);
    CHECK(NtZwWaitForSingleObject(Timer, FALSE, &Poll) == STATUS_TIMEOUT);
    CHECK(NtZwSetTimer(Same, &Due, NULL, NULL, FALSE, 0, &Was) == STATUS_SUCCESS && !Was);
    CHECK(NtZwWaitForSingleObject(Timer, FALSE, &Poll) == STATUS_TIMEOUT);
    CHECK(NtZwWaitForSingleObject(Timer, FALSE, &Long) == STATUS_SUCCESS);
    CHECK(NtZwWaitForSingleObject(Timer, FALSE, &Poll) == STATUS_SUCCESS); /* it stays signaled */
    CHECK(NtZwSetTimer(Timer, &Due, NULL, NULL, FALSE, 0, &Was) == STATUS_SUCCESS && Was);
    CHECK(NtZwCancelTimer(Same, &Was) == STATUS_SUCCESS && !Was);
    CHECK(NtZwWaitForSingleObject(Timer, FALSE, &Long) == STATUS_TIMEOUT);
    CHECK(NtZwSetTimer(Timer, &Due, NULL, NULL, FALSE, -1, NULL) == STATUS_INVALID_PARAMETER_6);
    CHECK(ZwClose(Timer) == STATUS_SUCCESS && NtZwSetTimer(Same, &Due, NULL, NULL, FALSE, 0, NULL) == STATUS_SUCCESS);
    CHECK(ZwClose(Same) == STATUS_SUCCESS); /* and it is set no more */
    CHECK(NtZwOpenTimer(&Same, TIMER_ALL_ACCESS, Named(L"\\DirqlTimer", 0)) == STATUS_OBJECT_NAME_NOT_FOUND);

    CHECK(NtZwCreateTimer(&Periodic, TIMER_ALL_ACCESS, Named(NULL, 0), SynchronizationTimer) == STATUS_SUCCESS);
    CHECK(NtZwSetTimer(Periodic, &Due, NULL, NULL, FALSE, 20, NULL) == STATUS_SUCCESS);
    CHECK(NtZwWaitForSingleObject(Periodic, FALSE, &Long) == STATUS_SUCCESS);
    CHECK(NtZwWaitForSingleObject(Periodic, FALSE, &Poll) == STATUS_TIMEOUT);
    CHECK(NtZwWaitForSingleObject(Periodic, FALSE, &Long) == STATUS_SUCCESS && ZwClose(Periodic) == STATUS_SUCCESS);
    return 0;
}

static ULONG SeveralHandlesAreWaitedFor(VOID)
{
    LARGE_INTEGER Short = {.QuadPart = MILLISECONDS(20)};
    HANDLE Events[5], Key;
    ULONG Index;

    for (Index = 0; Index < 5; Index++) {
        CHECK(NtZwCreateEvent(&Events[Index], EVENT_ALL_ACCESS, Named(NULL, 0), SynchronizationEvent, FALSE) == STATUS_SUCCESS);
    }
    CHECK(NtZwWaitForMultipleObjects(5, Events, WaitAny, FALSE, &Poll) == STATUS_TIMEOUT);
    CHECK(NtZwSetEvent(Events[3], NULL) == STATUS_SUCCESS);
    CHECK(NtZwWaitForMultipleObjects(5, Events, WaitAny, FALSE, NULL) == STATUS_WAIT_0 + 3);
    CHECK(NtZwWaitForMultipleObjects(5, Events, WaitAll, FALSE, &Short) == STATUS_TIMEOUT);
    for (Index = 0; Index < 5; Index++) {
        CHECK(NtZwSetEvent(Events[Index], NULL) == STATUS_SUCCESS);
    }
    CHECK(NtZwWaitForMultipleObjects(5, Events, WaitAll, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(NtZwWaitForMultipleObjects(5, Events, WaitAny, FALSE, &Poll) == STATUS_TIMEOUT);
    CHECK(NtZwWaitForMultipleObjects(0, Events, WaitAny, FALSE, &Poll) == STATUS_INVALID_PARAMETER_1);
    CHECK(NtZwWaitForMultipleObjects(65, Events, WaitAny, FALSE, &Poll) == STATUS_INVALID_PARAMETER_1);
    CHECK(ZwOpenKey(&Key, KEY_READ, Named(L"\\Registry\\Machine", 0)) == STATUS_SUCCESS);
    CHECK(ZwClose(Events[1]) == STATUS_SUCCESS);
    Events[1] = Key;
    CHECK(NtZwWaitForMultipleObjects(5, Events, WaitAny, FALSE, &Poll) == STATUS_OBJECT_TYPE_MISMATCH);
    for (Index = 0; Index < 5; Index++) {
        CHECK(ZwClose(Events[Index]) == STATUS_SUCCESS);
    }
    return 0;
}

/* A thread that does something beside the story. */
typedef struct _BESIDE {
    VOID (*Does)(struct _BESIDE *Beside);
    PVOID Object;
    LONG Answer;
    NTSTATUS Status;
    PKTHREAD Thread;
    HANDLE Handle;
} BESIDE;

static VOID NTAPI RunsBeside(PVOID Context)
{
    BESIDE *Beside = Context;

    Beside->Does(Beside);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS StartBeside(BESIDE *Beside)
{
    NTSTATUS Status = PsCreateSystemThread(&Beside->Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, RunsBeside, Beside);

    if (NT_SUCCESS(Status)) {
        Status = ObReferenceObjectByHandle(Beside->Handle, SYNCHRONIZE, NULL, KernelMode, (PVOID *)&Beside->Thread, NULL);
    }
    return Status;
}

static VOID JoinBeside(BESIDE *Beside)
{
    KeWaitForSingleObject(Beside->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Beside->Thread);
    ZwClose(Beside->Handle);
}

static VOID TakesMutant(BESIDE *Beside)
{
    Beside->Status = KeWaitForSingleObject(Beside->Object, Executive, KernelMode, FALSE, &Poll);
    if (Beside->Status == STATUS_SUCCESS) {
        NtKeReleaseMutant(Beside->Object, 0, FALSE, FALSE);
    }
}

/* As a mutex, but its owner goes on to get procedure calls. */
static ULONG MutantsHaveOwners(VOID)
{
    KMUTANT Mutant;
    BESIDE Beside = {.Does = TakesMutant, .Object = &Mutant};

    NtKeInitializeMutant(&Mutant, TRUE);
    CHECK(NtKeReadStateMutant(&Mutant) == 0 && !NtKeAreApcsDisabled());
    CHECK(StartBeside(&Beside) == STATUS_SUCCESS);
    JoinBeside(&Beside);
    CHECK(Beside.Status == STATUS_TIMEOUT);
    CHECK(KeWaitForSingleObject(&Mutant, Executive, KernelMode, FALSE, &Poll) == STATUS_SUCCESS);
    CHECK(NtKeReadStateMutant(&Mutant) == -1 && NtKeReleaseMutant(&Mutant, 0, FALSE, FALSE) == -1);
    CHECK(NtKeReleaseMutant(&Mutant, 0, FALSE, FALSE) == 0 && NtKeReadStateMutant(&Mutant) == 1);
    CHECK(StartBeside(&Beside) == STATUS_SUCCESS);
    JoinBeside(&Beside);
    CHECK(Beside.Status == STATUS_SUCCESS && NtKeReadStateMutant(&Mutant) == 1);
    NtKeInitializeMutant(&Mutant, FALSE);
    CHECK(NtKeReadStateMutant(&Mutant) == 1);
    return 0;
}

static PVOID Once;
static LONG Initialized;

static ULONG NTAPI InitializesSlowly(PVOID RunOnce, PVOID Parameter, PVOID *Context)
{
    UNREFERENCED_PARAMETER(RunOnce);
    Sleep(20);
    InterlockedIncrement(&Initialized);
    *Context = Parameter;
    return TRUE;
}

static VOID InitializesToo(BESIDE *Beside)
{
    PVOID Left = NULL;

    Beside->Status = NtRtlRunOnceExecuteOnce(&Once, InitializesSlowly, Beside, &Left);
    Beside->Object = Left;
}

/* Who comes while another initializes it waits, and gets what that has left. */
static ULONG OneInitializesForAll(VOID)
{
    BESIDE Beside[3] = {{.Does = InitializesToo}, {.Does = InitializesToo}, {.Does = InitializesToo}};

    Once = NULL;
    Initialized = 0;
    for (ULONG Index = 0; Index < 3; Index++) {
        CHECK(StartBeside(&Beside[Index]) == STATUS_SUCCESS);
    }
    for (ULONG Index = 0; Index < 3; Index++) {
        JoinBeside(&Beside[Index]);
        CHECK(Beside[Index].Status == STATUS_SUCCESS && Beside[Index].Object == Beside[0].Object);
    }
    CHECK(Initialized == 1 && Beside[0].Object != NULL);
    return 0;
}
