/* Address spaces: memory that a driver allocates in a process, threads that look at another's, memory that is secured. */
#include "sections.h"

NTSYSAPI NTSTATUS NTAPI ZwAllocateVirtualMemory(HANDLE Process, PVOID *Base, ULONG_PTR ZeroBits, PSIZE_T Size, ULONG Type,
                                                ULONG Protect);
NTSYSAPI NTSTATUS NTAPI ZwFreeVirtualMemory(HANDLE Process, PVOID *Base, PSIZE_T Size, ULONG Type);
NTKERNELAPI VOID NTAPI KeStackAttachProcess(PEPROCESS Process, PVOID State);
NTKERNELAPI VOID NTAPI KeUnstackDetachProcess(PVOID State);
NTKERNELAPI VOID NTAPI KeAttachProcess(PEPROCESS Process);
NTKERNELAPI VOID NTAPI KeDetachProcess(VOID);
NTKERNELAPI HANDLE NTAPI MmSecureVirtualMemory(PVOID Address, SIZE_T Size, ULONG Mode);
NTKERNELAPI VOID NTAPI MmUnsecureVirtualMemory(HANDLE Secured);
NTKERNELAPI HANDLE NTAPI PsGetCurrentProcessId(VOID);
NTKERNELAPI HANDLE NTAPI PsGetProcessId(PEPROCESS Process);
NTKERNELAPI NTSTATUS NTAPI PsLookupProcessByProcessId(HANDLE Id, PEPROCESS *Process);
NTSYSAPI NTSTATUS NTAPI ZwSetEvent(HANDLE Event, PLONG Previous);

extern __declspec(dllimport) PEPROCESS PsInitialSystemProcess;

typedef struct _ATTACH_STATE {
    ULONGLONG Words[6]; /* KAPC_STATE, opaque */
} ATTACH_STATE;

static NTSTATUS Allocate(PVOID *Base, SIZE_T *Size, ULONG Type, ULONG Protect)
{
    return ZwAllocateVirtualMemory(NtCurrentProcess(), Base, 0, Size, Type, Protect);
}

static NTSTATUS Free(PVOID Base, SIZE_T Size, ULONG Type)
{
    return ZwFreeVirtualMemory(NtCurrentProcess(), &Base, &Size, Type);
}

/* Reserved, committed, decommitted, released. */
static ULONG Allocates(VOID)
{
    PVOID Base = NULL, Part;
    SIZE_T Size = 0x12345;
    volatile UCHAR *Bytes;

    CHECK(Allocate(&Base, &Size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK((ULONG_PTR)Base % GRANULARITY == 0 && Size == 0x13000 && (ULONG_PTR)Base + Size <= MmUserProbeAddress);
    Bytes = Base;
    CHECK(Bytes[0] == 0 && Bytes[0x12FFF] == 0 && !MmIsAddressValid((PUCHAR)Base + 0x13000));
    Bytes[0x12345] = 7;
    CHECK(Bytes[0x12345] == 7);
    CHECK(Free((PUCHAR)Base + 0x2FFF, 2, MEM_DECOMMIT) == STATUS_SUCCESS);
    CHECK(MmIsAddressValid((PUCHAR)Base + 0x1FFF) && !MmIsAddressValid((PUCHAR)Base + 0x2000));
    CHECK(!MmIsAddressValid((PUCHAR)Base + 0x3FFF) && MmIsAddressValid((PUCHAR)Base + 0x4000));
    Size = 0;
    CHECK(ZwFreeVirtualMemory(NtCurrentProcess(), &Base, &Size, MEM_RELEASE) == STATUS_SUCCESS && Size == 0x13000);
    CHECK(!MmIsAddressValid(Base));

    Base = NULL;
    Size = 0x100000;
    CHECK(Allocate(&Base, &Size, MEM_RESERVE, PAGE_READWRITE) == STATUS_SUCCESS && Size == 0x100000);
    CHECK(!MmIsAddressValid(Base));
    Part = (PUCHAR)Base + 0x12FFF;
    Size = 2;
    CHECK(Allocate(&Part, &Size, MEM_COMMIT, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(Part == (PUCHAR)Base + 0x12000 && Size == 0x2000);
    *(volatile UCHAR *)Part = 9;
    /* Once more: it stays, and may only be read. */
    Size = 0x1000;
    CHECK(Allocate(&Part, &Size, MEM_COMMIT, PAGE_READONLY) == STATUS_SUCCESS && *(volatile UCHAR *)Part == 9);
    CHECK(Allocate(&Part, &Size, MEM_COMMIT, PAGE_NOACCESS) == STATUS_SUCCESS && !MmIsAddressValid(Part));
    CHECK(Allocate(&Part, &Size, MEM_COMMIT, PAGE_READWRITE) == STATUS_SUCCESS && *(volatile UCHAR *)Part == 9);
    CHECK(Allocate(&Part, &Size, MEM_RESET, PAGE_READWRITE) == STATUS_SUCCESS);
    /* The whole region is reserved again. */
    CHECK(Free(Base, 0, MEM_DECOMMIT) == STATUS_SUCCESS && !MmIsAddressValid(Part));
    Size = 0x1000;
    CHECK(Allocate(&Part, &Size, MEM_COMMIT, PAGE_READWRITE) == STATUS_SUCCESS && *(volatile UCHAR *)Part == 0);
    CHECK(Free(Base, 0, MEM_RELEASE) == STATUS_SUCCESS);

    /* Where the driver asks for it, again and again. */
    Part = (PUCHAR)Base + 0x12345;
    Size = 0x1000;
    CHECK(Allocate(&Part, &Size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(Part == (PUCHAR)Base + 0x10000 && Size == 0x4000);
    CHECK(Free(Part, 0, MEM_RELEASE) == STATUS_SUCCESS);
    return 0;
}

static ULONG RefusedAllocations(VOID)
{
    PVOID Base = NULL, Other, View;
    SIZE_T Size = 0x20000;
    HANDLE Section;

    CHECK(Allocate(&Base, &Size, 0, PAGE_READWRITE) == STATUS_INVALID_PARAMETER_5);
    CHECK(Allocate(&Base, &Size, MEM_RESERVE | MEM_RESET, PAGE_READWRITE) == STATUS_INVALID_PARAMETER_5);
    CHECK(Allocate(&Base, &Size, MEM_RESERVE | MEM_RELEASE, PAGE_READWRITE) == STATUS_INVALID_PARAMETER_5);
    CHECK(Allocate(&Base, &Size, MEM_RESERVE, 0) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(Allocate(&Base, &Size, MEM_RESERVE, PAGE_WRITECOPY) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(ZwAllocateVirtualMemory(NtCurrentProcess(), &Base, 21, &Size, MEM_RESERVE, PAGE_READWRITE) ==
          STATUS_INVALID_PARAMETER_3);
    CHECK(ZwAllocateVirtualMemory((HANDLE)0x7770, &Base, 0, &Size, MEM_RESERVE, PAGE_READWRITE) ==
          STATUS_INVALID_HANDLE);
    Size = 0;
    CHECK(Allocate(&Base, &Size, MEM_RESERVE, PAGE_READWRITE) == STATUS_INVALID_PARAMETER_4);
    Size = (SIZE_T)-1;
    CHECK(Allocate(&Base, &Size, MEM_RESERVE, PAGE_READWRITE) == STATUS_INVALID_PARAMETER_4);
    Size = 0x4000000000;
    CHECK(Allocate(&Base, &Size, MEM_RESERVE, PAGE_READWRITE) == STATUS_NO_MEMORY);
    Base = (PVOID)MmUserProbeAddress;
    Size = 0x1000;
    CHECK(Allocate(&Base, &Size, MEM_RESERVE, PAGE_READWRITE) == STATUS_INVALID_PARAMETER_2);

    Base = NULL;
    Size = 0x20000;
    CHECK(Allocate(&Base, &Size, MEM_RESERVE, PAGE_READWRITE) == STATUS_SUCCESS);
    Other = (PUCHAR)Base + 0x10000;
    CHECK(Allocate(&Other, &Size, MEM_RESERVE, PAGE_READWRITE) == STATUS_CONFLICTING_ADDRESSES);
    CHECK(Allocate(&Other, &Size, MEM_COMMIT, PAGE_READWRITE) == STATUS_CONFLICTING_ADDRESSES);
    CHECK(Allocate(&Other, &Size, MEM_RESET, PAGE_READWRITE) == STATUS_CONFLICTING_ADDRESSES);
    CHECK(Free(Other, 0, MEM_RELEASE) == STATUS_FREE_VM_NOT_AT_BASE);
    CHECK(Free(Other, 0, MEM_DECOMMIT) == STATUS_FREE_VM_NOT_AT_BASE);
    CHECK(Free(Other, 0x10001, MEM_DECOMMIT) == STATUS_UNABLE_TO_FREE_VM);
    CHECK(Free(Base, 0, MEM_RELEASE | MEM_DECOMMIT) == STATUS_INVALID_PARAMETER_4);
    CHECK(Free(Base, 0, 0) == STATUS_INVALID_PARAMETER_4);
    CHECK(Free(Base, 0, MEM_RELEASE) == STATUS_SUCCESS);
    CHECK(Free(Base, 0, MEM_RELEASE) == STATUS_MEMORY_NOT_ALLOCATED);

    /* A view is not allocated memory; one of a reserved section is committed so. */
    CHECK(Create(&Section, 0x10000, PAGE_READWRITE, SEC_COMMIT) == STATUS_SUCCESS);
    CHECK(MapAll(Section, &View, PAGE_READWRITE) == STATUS_SUCCESS);
    Size = 0x1000;
    CHECK(Allocate(&View, &Size, MEM_COMMIT, PAGE_READWRITE) == STATUS_ALREADY_COMMITTED);
    CHECK(Free(View, 0, MEM_RELEASE) == STATUS_UNABLE_TO_DELETE_SECTION);
    CHECK(Unmap(View) == STATUS_SUCCESS && ZwClose(Section) == STATUS_SUCCESS);
    CHECK(Create(&Section, 0x10000, PAGE_READWRITE, SEC_RESERVE) == STATUS_SUCCESS);
    CHECK(MapAll(Section, &View, PAGE_READWRITE) == STATUS_SUCCESS && !MmIsAddressValid((PUCHAR)View + 0x4000));
    Other = (PUCHAR)View + 0x4000;
    CHECK(Allocate(&Other, &Size, MEM_COMMIT, PAGE_READWRITE) == STATUS_SUCCESS);
    *(volatile UCHAR *)Other = 3;
    CHECK(!MmIsAddressValid((PUCHAR)View + 0x3000) && !MmIsAddressValid((PUCHAR)View + 0x5000));
    CHECK(Unmap(View) == STATUS_SUCCESS && ZwClose(Section) == STATUS_SUCCESS);
    return 0;
}

/* What a system thread does with the address where its own process and an application's have different memory. */
static struct {
    PEPROCESS Application;
    volatile ULONG *At;
    NTSTATUS Status;
    ULONG Own, Others, Again;
    KEVENT Ready, Go;
} Space;

static VOID NTAPI HasItsOwn(PVOID Context)
{
    PVOID Base = NULL;
    SIZE_T Size = 0x3000;
    ATTACH_STATE State;

    UNREFERENCED_PARAMETER(Context);
    Space.Status = Allocate(&Base, &Size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    Space.At = Base;
    *Space.At = 0x11111111;
    KeSetEvent(&Space.Ready, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(&Space.Go, Executive, KernelMode, FALSE, NULL);
    Space.Own = *Space.At;
    KeStackAttachProcess(Space.Application, &State);
    Space.Others = *Space.At;
    *Space.At = 0x33333333;
    KeUnstackDetachProcess(&State);
    Space.Again = *Space.At;
    Space.Status = Free(Base, 0, MEM_RELEASE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Two processes have different memory at one address, each its own when its thread runs. */
static ULONG OneAddress(VOID)
{
    OBJECT_ATTRIBUTES Attributes;
    LARGE_INTEGER Time = {.QuadPart = -10000};
    ATTACH_STATE State;
    PVOID Base, Thread;
    SIZE_T Size = 0x1000;
    HANDLE Handle;
    ULONG Seen;

    Space.Application = IoGetCurrentProcess();
    KeInitializeEvent(&Space.Ready, SynchronizationEvent, FALSE);
    KeInitializeEvent(&Space.Go, SynchronizationEvent, FALSE);
    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, HasItsOwn, NULL)));
    CHECK(NT_SUCCESS(ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KERNEL_MODE, &Thread, NULL)));
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    KeWaitForSingleObject(&Space.Ready, Executive, KernelMode, FALSE, NULL);
    CHECK(Space.Status == STATUS_SUCCESS);

    Base = (PVOID)Space.At;
    CHECK(Allocate(&Base, &Size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(Base == (PVOID)Space.At && *Space.At == 0);
    CHECK(!MmIsAddressValid((PUCHAR)Base + 0x2000)); /* only the other has it */
    *Space.At = 0x22222222;
    KeStackAttachProcess(PsInitialSystemProcess, &State);
    Seen = *Space.At;
    *Space.At = 0x44444444;
    KeUnstackDetachProcess(&State);
    CHECK(Seen == 0x11111111 && *Space.At == 0x22222222);
    KeSetEvent(&Space.Go, IO_NO_INCREMENT, FALSE);
    KeDelayExecutionThread(KernelMode, FALSE, &Time);
    CHECK(*Space.At == 0x33333333);
    CHECK(KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    ObDereferenceObject(Thread);
    CHECK(Space.Own == 0x44444444 && Space.Others == 0x22222222 && Space.Again == 0x44444444);
    CHECK(Space.Status == STATUS_SUCCESS && *Space.At == 0x33333333);
    CHECK(Free(Base, 0, MEM_RELEASE) == STATUS_SUCCESS && !MmIsAddressValid(Base));
    return 0;
}

/* An attached thread is in the other process, for memory and handles, and belongs to its own. */
static ULONG Attaches(VOID)
{
    PEPROCESS Own = IoGetCurrentProcess();
    HANDLE Id = PsGetCurrentProcessId(), Event;
    ATTACH_STATE First, Second;
    PEPROCESS Seen[4];
    HANDLE Ids[2];
    NTSTATUS Status;

    CHECK(ZwCreateEvent(&Event, EVENT_ALL_ACCESS, NULL, NotificationEvent, FALSE) == STATUS_SUCCESS);
    KeStackAttachProcess(PsInitialSystemProcess, &First);
    Seen[0] = IoGetCurrentProcess();
    Ids[0] = PsGetCurrentProcessId();
    Status = ZwSetEvent(Event, NULL);
    KeStackAttachProcess(Own, &Second);
    Seen[1] = IoGetCurrentProcess();
    Ids[1] = PsGetCurrentProcessId();
    KeUnstackDetachProcess(&Second);
    Seen[2] = IoGetCurrentProcess();
    KeUnstackDetachProcess(&First);
    CHECK(Seen[0] == PsInitialSystemProcess && Seen[1] == Own && Seen[2] == PsInitialSystemProcess);
    CHECK(IoGetCurrentProcess() == Own && Ids[0] == Id && Ids[1] == Id && PsGetProcessId(Own) == Id);
    CHECK(Status == STATUS_INVALID_HANDLE && ZwClose(Event) == STATUS_SUCCESS);
    KeAttachProcess(Own); /* it is there already */
    KeDetachProcess();
    KeAttachProcess(PsInitialSystemProcess);
    Seen[3] = IoGetCurrentProcess();
    KeDetachProcess();
    CHECK(Seen[3] == PsInitialSystemProcess && IoGetCurrentProcess() == Own);
    return 0;
}

/* Secured memory can neither be freed nor be protected further. */
static ULONG Secures(VOID)
{
    PVOID Base = NULL, View;
    SIZE_T Size = 0x4000;
    HANDLE Secured, Other, Section;

    CHECK(Allocate(&Base, &Size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) == STATUS_SUCCESS);
    Secured = MmSecureVirtualMemory((PUCHAR)Base + 0x1800, 0x1000, PAGE_READWRITE);
    CHECK(Secured != NULL);
    CHECK(Free(Base, 0, MEM_RELEASE) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(Free(Base, 0x1001, MEM_DECOMMIT) == STATUS_INVALID_PAGE_PROTECTION);
    Size = 0x2000;
    CHECK(Allocate(&Base, &Size, MEM_COMMIT, PAGE_READONLY) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(Free(Base, 0x1000, MEM_DECOMMIT) == STATUS_SUCCESS);
    Other = MmSecureVirtualMemory((PUCHAR)Base + 0x3000, 0x1000, PAGE_READONLY);
    CHECK(Other != NULL && Other != Secured);
    Size = 0x1000;
    View = (PUCHAR)Base + 0x3000;
    CHECK(Allocate(&View, &Size, MEM_COMMIT, PAGE_READONLY) == STATUS_SUCCESS);
    CHECK(Allocate(&View, &Size, MEM_COMMIT, PAGE_NOACCESS) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(MmSecureVirtualMemory(View, 1, PAGE_READWRITE) == NULL);
    CHECK(MmSecureVirtualMemory(Base, 1, PAGE_READONLY) == NULL); /* not committed */
    CHECK(MmSecureVirtualMemory(View, 0, PAGE_READONLY) == NULL && MmSecureVirtualMemory(View, 1, 77) == NULL);
    CHECK(MmSecureVirtualMemory((PVOID)&Space, 1, PAGE_READONLY) == NULL); /* no application's */
    MmUnsecureVirtualMemory(Secured);
    CHECK(Free(Base, 0, MEM_RELEASE) == STATUS_INVALID_PAGE_PROTECTION);
    MmUnsecureVirtualMemory(Other);
    CHECK(Free(Base, 0, MEM_RELEASE) == STATUS_SUCCESS);

    CHECK(Create(&Section, 0x10000, PAGE_READWRITE, SEC_COMMIT) == STATUS_SUCCESS);
    CHECK(MapAll(Section, &View, PAGE_READWRITE) == STATUS_SUCCESS && ZwClose(Section) == STATUS_SUCCESS);
    Secured = MmSecureVirtualMemory(View, 0x10000, PAGE_READWRITE);
    CHECK(Secured != NULL && Unmap(View) == STATUS_INVALID_PAGE_PROTECTION);
    MmUnsecureVirtualMemory(Secured);
    CHECK(Unmap(View) == STATUS_SUCCESS);
    return 0;
}

/* What mingw's headers lack. */
typedef struct _KNOWN_MEMORY { /* MEMORY_BASIC_INFORMATION */
    PVOID BaseAddress;
    PVOID AllocationBase;
    ULONG AllocationProtect;
    USHORT PartitionId;
    SIZE_T RegionSize;
    ULONG State;
    ULONG Protect;
    ULONG Type;
} KNOWN_MEMORY;
NTSYSAPI NTSTATUS NTAPI ZwQueryVirtualMemory(HANDLE Process, PVOID Base, ULONG Class, PVOID Information, SIZE_T Length, PSIZE_T Returned);

#define IS_FREE 0x10000
#define IS_PRIVATE 0x20000
#define IS_MAPPED 0x40000

static KNOWN_MEMORY Known;

/* Whether that is known of the page at Address: its state, its protection, and how many pages are alike. */
static BOOLEAN IsKnown(PVOID Address, ULONG State, ULONG Protect, SIZE_T Pages)
{
    SIZE_T Returned = 0;

    return ZwQueryVirtualMemory(NtCurrentProcess(), Address, 0, &Known, sizeof(Known), &Returned) == STATUS_SUCCESS && Returned == 48 &&
           Known.BaseAddress == (PVOID)((ULONG_PTR)Address & ~0xFFFull) && Known.State == State && Known.Protect == Protect &&
           Known.RegionSize == Pages * 0x1000;
}

static ULONG AddressesAreKnown(VOID)
{
    PVOID Base = NULL, Part, View = NULL, Low = NULL;
    SIZE_T Size = 0x8000, Length = 0x2000;
    HANDLE Section;

    CHECK(sizeof(Known) == 48);
    CHECK(Allocate(&Base, &Size, MEM_RESERVE, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(IsKnown(Base, MEM_RESERVE, 0, 8) && Known.AllocationBase == Base && Known.AllocationProtect == PAGE_READWRITE);
    CHECK(Known.Type == IS_PRIVATE);
    Part = (PUCHAR)Base + 0x2000;
    CHECK(Allocate(&Part, &Length, MEM_COMMIT, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(IsKnown(Base, MEM_RESERVE, 0, 2) && IsKnown((PUCHAR)Part + 0x123, MEM_COMMIT, PAGE_READWRITE, 2));
    CHECK(Known.AllocationBase == Base && IsKnown((PUCHAR)Base + 0x3000, MEM_COMMIT, PAGE_READWRITE, 1));
    Part = (PUCHAR)Base + 0x4000;
    Length = 0x1000;
    CHECK(Allocate(&Part, &Length, MEM_COMMIT, PAGE_READONLY) == STATUS_SUCCESS);
    CHECK(IsKnown(Part, MEM_COMMIT, PAGE_READONLY, 1) && Known.AllocationProtect == PAGE_READWRITE);
    CHECK(IsKnown((PUCHAR)Base + 0x2000, MEM_COMMIT, PAGE_READWRITE, 2) && IsKnown((PUCHAR)Base + 0x5000, MEM_RESERVE, 0, 3));
    CHECK(Free(Base, 0, MEM_RELEASE) == STATUS_SUCCESS);
    CHECK(ZwQueryVirtualMemory(NtCurrentProcess(), Base, 0, &Known, sizeof(Known), NULL) == STATUS_SUCCESS);
    CHECK(Known.State == IS_FREE && Known.Protect == PAGE_NOACCESS && Known.RegionSize >= 0x8000 && Known.AllocationBase == NULL);
    CHECK(Known.Type == 0);

    Size = 0x3000;
    Base = NULL;
    CHECK(Allocate(&Base, &Size, MEM_RESERVE | MEM_COMMIT, PAGE_EXECUTE_READWRITE) == STATUS_SUCCESS);
    CHECK(IsKnown(Base, MEM_COMMIT, PAGE_EXECUTE_READWRITE, 3));
    CHECK(Free(Base, 0, MEM_RELEASE) == STATUS_SUCCESS);

    CHECK(Create(&Section, 0x4000, PAGE_READWRITE, SEC_COMMIT) == STATUS_SUCCESS);
    Size = 0;
    CHECK(ZwMapViewOfSection(Section, NtCurrentProcess(), &View, 0, 0, NULL, &Size, ViewUnmap, 0, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(IsKnown(View, MEM_COMMIT, PAGE_READWRITE, 4) && Known.Type == IS_MAPPED && Known.AllocationBase == View);
    CHECK(ZwUnmapViewOfSection(NtCurrentProcess(), View) == STATUS_SUCCESS);
    ZwClose(Section);

    CHECK(ZwQueryVirtualMemory(NtCurrentProcess(), Low, 0, &Known, sizeof(Known), NULL) == STATUS_SUCCESS && Known.State == IS_FREE);
    CHECK(ZwQueryVirtualMemory(NtCurrentProcess(), Low, 1, &Known, sizeof(Known), NULL) == STATUS_INVALID_INFO_CLASS);
    CHECK(ZwQueryVirtualMemory(NtCurrentProcess(), Low, 0, &Known, 47, NULL) == STATUS_INFO_LENGTH_MISMATCH);
    CHECK(ZwQueryVirtualMemory(NtCurrentProcess(), (PVOID)-1, 0, &Known, sizeof(Known), NULL) == STATUS_INVALID_PARAMETER);
    CHECK(ZwQueryVirtualMemory((HANDLE)0x7770, Low, 0, &Known, sizeof(Known), NULL) == STATUS_INVALID_HANDLE);
    return 0;
}
