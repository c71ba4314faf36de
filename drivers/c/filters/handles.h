/* Stories of routines that filter handles of processes and threads, and of handles that are passed on. */
#include "filters.h"

#define TERMINATE 0x0001 /* PROCESS_TERMINATE, THREAD_TERMINATE */
#define QUERY 0x0400     /* PROCESS_QUERY_INFORMATION */

NTSYSAPI NTSTATUS NTAPI ZwDuplicateObject(HANDLE SourceProcess, HANDLE Source, HANDLE TargetProcess, PHANDLE Target,
                                          ACCESS_MASK Access, ULONG Attributes, ULONG Options);
NTKERNELAPI HANDLE NTAPI PsGetCurrentProcessId(VOID);
NTKERNELAPI NTSTATUS NTAPI ObOpenObjectByPointer(PVOID Object, ULONG Attributes, PVOID State, ACCESS_MASK Access,
                                                 POBJECT_TYPE Type, KPROCESSOR_MODE Mode, PHANDLE Handle);
extern __declspec(dllimport) POBJECT_TYPE *PsProcessType;
extern __declspec(dllimport) POBJECT_TYPE *PsThreadType;
extern __declspec(dllimport) POBJECT_TYPE *ExEventObjectType;

typedef struct _GUARD {
    ULONG Who;
    ULONG Takes; /* access rights */
    PVOID Registration;
    ULONG Before, After;
    OB_OPERATION Operation;
    ACCESS_MASK Desired, Original, Granted;
    PVOID Object, Source, Target, Back;
    BOOLEAN Kernel;
} GUARD;

static ULONG Order[16], Ordered;

static OB_PREOP_CALLBACK_STATUS NTAPI BeforeHandle(PVOID Context, POB_PRE_OPERATION_INFORMATION Info)
{
    GUARD *Guard = Context;
    OB_PRE_DUPLICATE_HANDLE_INFORMATION *Access = &Info->Parameters->DuplicateHandleInformation;

    Guard->Before++;
    Guard->Operation = Info->Operation;
    Guard->Object = Info->Object;
    Guard->Kernel = (BOOLEAN)Info->KernelHandle;
    Guard->Desired = Access->DesiredAccess;
    Guard->Original = Access->OriginalDesiredAccess;
    if (Info->Operation == OB_OPERATION_HANDLE_DUPLICATE) {
        Guard->Source = Access->SourceProcess;
        Guard->Target = Access->TargetProcess;
    }
    Access->DesiredAccess &= ~Guard->Takes;
    Info->CallContext = Guard;
    Order[Ordered++ & 15] = Guard->Who;
    return OB_PREOP_SUCCESS;
}

static VOID NTAPI AfterHandle(PVOID Context, POB_POST_OPERATION_INFORMATION Info)
{
    GUARD *Guard = Context;

    Guard->After++;
    Guard->Back = Info->CallContext;
    Guard->Granted = Info->Parameters->CreateHandleInformation.GrantedAccess;
    Order[Ordered++ & 15] = Guard->Who + 10;
}

static NTSTATUS Guards(GUARD *Guard, PCWSTR Altitude, POBJECT_TYPE *Type, OB_OPERATION Operations)
{
    OB_OPERATION_REGISTRATION One = {Type, Operations, BeforeHandle, AfterHandle};
    OB_CALLBACK_REGISTRATION All = {OB_FLT_REGISTRATION_VERSION, 1, {0}, Guard, &One};

    RtlInitUnicodeString(&All.Altitude, Altitude);
    return ObRegisterCallbacks(&All, &Guard->Registration);
}

#define BOTH (OB_OPERATION_HANDLE_CREATE | OB_OPERATION_HANDLE_DUPLICATE)

static NTSTATUS OpenOwn(ULONG Attributes, ACCESS_MASK Access, PHANDLE Handle)
{
    CLIENT_ID Client = {PsGetCurrentProcessId(), NULL};
    OBJECT_ATTRIBUTES Object;

    InitializeObjectAttributes(&Object, NULL, Attributes, NULL, NULL);
    return ZwOpenProcess(Handle, Access, &Object, &Client);
}

static NTSTATUS Usable(HANDLE Handle, ACCESS_MASK Access, POBJECT_TYPE Type)
{
    PVOID Object;
    NTSTATUS Status = ObReferenceObjectByHandle(Handle, Access, Type, UserMode, &Object, NULL);

    if (NT_SUCCESS(Status)) {
        ObDereferenceObject(Object);
    }
    return Status;
}

static ULONG HandlesAreFiltered(VOID)
{
    static GUARD Upper = {.Who = 1}, Lower = {.Who = 2, .Takes = TERMINATE}, Threads = {.Who = 3, .Takes = TERMINATE};
    GUARD Refused = {.Who = 4};
    PVOID Thread = KeGetCurrentThread();
    HANDLE Handle, Copy;

    CHECK(ObGetFilterVersion() == OB_FLT_REGISTRATION_VERSION);
    CHECK(Guards(&Lower, L"100", PsProcessType, BOTH) == STATUS_SUCCESS);
    CHECK(Guards(&Upper, L"200", PsProcessType, BOTH) == STATUS_SUCCESS && Upper.Registration != Lower.Registration);
    CHECK(Guards(&Threads, L"300", PsThreadType, OB_OPERATION_HANDLE_CREATE) == STATUS_SUCCESS);
    CHECK(Guards(&Refused, L"200", PsProcessType, BOTH) == (NTSTATUS)0xC01C0011);
    CHECK(Guards(&Refused, L"400", ExEventObjectType, BOTH) == STATUS_INVALID_PARAMETER);
    CHECK(Guards(&Refused, L"400", PsProcessType, 0) == STATUS_INVALID_PARAMETER);
    CHECK(Guards(&Refused, L"high", PsProcessType, BOTH) == STATUS_INVALID_PARAMETER);

    /* The lower one takes a right away; the upper one sees what was wanted, and what was granted. */
    CHECK(OpenOwn(0, TERMINATE | QUERY, &Handle) == STATUS_SUCCESS);
    CHECK(Ordered == 4 && Order[0] == 1 && Order[1] == 2 && Order[2] == 12 && Order[3] == 11);
    CHECK(Upper.Desired == (TERMINATE | QUERY) && Lower.Original == (TERMINATE | QUERY) && !Upper.Kernel);
    CHECK(Upper.Operation == OB_OPERATION_HANDLE_CREATE && Upper.Object == PsGetCurrentProcess());
    CHECK(Upper.Granted == QUERY && Upper.Back == &Upper && Lower.Back == &Lower && Threads.Before == 0);
    CHECK(Usable(Handle, QUERY, *PsProcessType) == STATUS_SUCCESS);
    CHECK(Usable(Handle, TERMINATE, *PsProcessType) == STATUS_ACCESS_DENIED);

    /* A copy has what the first one has, and nothing more where that is taken away. */
    CHECK(ZwDuplicateObject(NtCurrentProcess(), Handle, NtCurrentProcess(), &Copy, 0, 0, DUPLICATE_SAME_ACCESS) ==
          STATUS_SUCCESS);
    CHECK(Copy != Handle && Upper.Operation == OB_OPERATION_HANDLE_DUPLICATE && Upper.Desired == QUERY);
    CHECK(Upper.Source == PsGetCurrentProcess() && Upper.Target == PsGetCurrentProcess());
    CHECK(Usable(Copy, QUERY, *PsProcessType) == STATUS_SUCCESS && ZwClose(Copy) == STATUS_SUCCESS);
    CHECK(ZwDuplicateObject(NtCurrentProcess(), Handle, NtCurrentProcess(), &Copy, TERMINATE | QUERY, 0,
                            DUPLICATE_CLOSE_SOURCE) == STATUS_SUCCESS);
    CHECK(Usable(Copy, TERMINATE, *PsProcessType) == STATUS_ACCESS_DENIED);
    CHECK(Copy == Handle || Usable(Handle, QUERY, *PsProcessType) == STATUS_INVALID_HANDLE);
    CHECK(ZwDuplicateObject(NtCurrentProcess(), (HANDLE)0x7770, NtCurrentProcess(), &Copy, 0, 0, 0) ==
          STATUS_INVALID_HANDLE);
    CHECK(ZwClose(Copy) == STATUS_SUCCESS);

    /* A thread's handle is the third's; a kernel handle is reported as one. */
    Ordered = 0;
    CHECK(ObOpenObjectByPointer(Thread, OBJ_KERNEL_HANDLE, NULL, TERMINATE | 2, *PsThreadType, KernelMode, &Handle) ==
          STATUS_SUCCESS);
    CHECK(Ordered == 2 && Order[0] == 3 && Order[1] == 13 && Threads.Kernel && Threads.Object == Thread);
    CHECK(Threads.Granted == 2 && ZwClose(Handle) == STATUS_SUCCESS);

    ObUnRegisterCallbacks(Lower.Registration);
    ObUnRegisterCallbacks(Threads.Registration);
    CHECK(OpenOwn(0, TERMINATE, &Handle) == STATUS_SUCCESS && Lower.Before == 3 && Upper.Before == 4);
    CHECK(Usable(Handle, TERMINATE, *PsProcessType) == STATUS_SUCCESS && ZwClose(Handle) == STATUS_SUCCESS);
    ObUnRegisterCallbacks(Upper.Registration);
    return 0;
}

/* As an image is refused that does not ask for its signature to be checked. */
static ULONG FiltersAreRefused(VOID)
{
    GUARD Guard = {.Who = 1};

    CHECK(Guards(&Guard, L"100", PsProcessType, BOTH) == STATUS_ACCESS_DENIED && Guard.Registration == NULL);
    return 0;
}

static ULONG StillFilters(VOID)
{
    static GUARD Guard = {.Who = 1};

    CHECK(Guards(&Guard, L"100", PsProcessType, BOTH) == STATUS_SUCCESS);
    return 0;
}

static ULONG StillFiltersTheRegistry(VOID)
{
    CHECK(Register(&Low, L"1000") == STATUS_SUCCESS);
    return 0;
}
