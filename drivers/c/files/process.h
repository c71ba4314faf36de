/* Objects and processes. Pages: ObReferenceObjectByPointer function, ObCloseHandle function, PsLookupProcessByProcessId
 * function. */
#include "files.h"

static ULONG Objects(VOID)
{
    PVOID File, Again;
    PEPROCESS Process = PsGetCurrentProcess();
    HANDLE Handle;

    CHECK(OpenLower(&Handle, GENERIC_READ, 0) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Handle, 0, OBJECT_TYPE_OF(IoFileObjectType), KernelMode, &File, NULL) ==
          STATUS_SUCCESS);
    /* The kernel's own callers are trusted with the type. */
    CHECK(ObReferenceObjectByPointer(File, 0, OBJECT_TYPE_OF(ExEventObjectType), KernelMode) == STATUS_SUCCESS);
    ObDereferenceObject(File);
    CHECK(ObReferenceObjectByPointer(File, 0, OBJECT_TYPE_OF(ExEventObjectType), UserMode) ==
          STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ObReferenceObjectByPointer(File, 0, OBJECT_TYPE_OF(IoFileObjectType), UserMode) == STATUS_SUCCESS);
    ObDereferenceObject(File);
    ObDereferenceObject(File);
    /* A kernel handle is none of an application's. */
    CHECK(ObCloseHandle(Handle, UserMode) == STATUS_INVALID_HANDLE);
    CHECK(ObReferenceObjectByHandle(Handle, 0, NULL, KernelMode, &Again, NULL) == STATUS_SUCCESS && Again == File);
    ObDereferenceObject(Again);
    CHECK(ObCloseHandle(Handle, KernelMode) == STATUS_SUCCESS);
    CHECK(PsGetProcessId(Process) != (HANDLE)4);
    return 0;
}

static ULONG SystemProcess(VOID)
{
    PEPROCESS Process;

    CHECK(PsInitialSystemProcess != NULL && PsInitialSystemProcess != PsGetCurrentProcess());
    CHECK(PsGetProcessId(PsInitialSystemProcess) == (HANDLE)4);
    CHECK(PsLookupProcessByProcessId((HANDLE)4, &Process) == STATUS_SUCCESS);
    CHECK(Process == PsInitialSystemProcess);
    ObDereferenceObject(Process);
    return 0;
}

static PVOID Watcher;
static PEPROCESS Watched;

/* The object of a process that has ended is there, and its id, as long as it is referenced. */
static VOID NTAPI Watch(PVOID Context)
{
    LARGE_INTEGER Zero = {.QuadPart = 0};
    HANDLE Id = PsGetProcessId(Watched);
    PEPROCESS Found;
    NTSTATUS Before = KeWaitForSingleObject(Watched, Executive, KernelMode, FALSE, &Zero), After;

    UNREFERENCED_PARAMETER(Context);
    KeWaitForSingleObject(Watched, Executive, KernelMode, FALSE, NULL);
    DbgPrint("files: %08x before, its id is %s\n", Before, PsGetProcessId(Watched) == Id ? "still known" : "lost");
    ObDereferenceObject(Watched);
    After = PsLookupProcessByProcessId(Id, &Found);
    DbgPrint("files: a lookup after the last reference: %08x\n", After);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS WatchProcess(VOID)
{
    Watched = PsGetCurrentProcess();
    ObReferenceObject(Watched);
    Watcher = StartThread(Watch, NULL);
    return Watcher == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static VOID StopWatching(VOID)
{
    if (Watcher != NULL) {
        Join(Watcher);
    }
}
