/* Sections and address spaces: firmware's part of physical memory, memory shared with a thread and an application, a caller's memory. */
#ifndef SECTIONS_H
#define SECTIONS_H

#include "gallery.h"

NTKERNELAPI NTSTATUS NTAPI MmMapViewInSystemSpace(PVOID Section, PVOID *Base, PSIZE_T ViewSize);
NTKERNELAPI NTSTATUS NTAPI MmUnmapViewInSystemSpace(PVOID Base);
NTSYSAPI NTSTATUS NTAPI ZwAllocateVirtualMemory(HANDLE Process, PVOID *Base, ULONG_PTR ZeroBits, PSIZE_T Size, ULONG Type,
                                                ULONG Protect);
NTSYSAPI NTSTATUS NTAPI ZwFreeVirtualMemory(HANDLE Process, PVOID *Base, PSIZE_T Size, ULONG Type);
NTKERNELAPI VOID NTAPI KeStackAttachProcess(PEPROCESS Process, PVOID State);
NTKERNELAPI VOID NTAPI KeUnstackDetachProcess(PVOID State);

/* As utilities of mainboards do, byte for byte. The handle is closed at once: the view keeps the section. */
static ULONG FirmwareThroughPhysicalMemory(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\PhysicalMemory");
    LARGE_INTEGER Offset = {.QuadPart = 0xF0000};
    SIZE_T Bytes = 0x10000;
    OBJECT_ATTRIBUTES Attributes;
    PVOID Base = NULL;
    ULONG Sum = 0;
    HANDLE Section;
    NTSTATUS Status;

    InitializeObjectAttributes(&Attributes, &Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwOpenSection(&Section, SECTION_MAP_READ, &Attributes) == STATUS_SUCCESS);
    Status = ZwMapViewOfSection(Section, ZwCurrentProcess(), &Base, 0, Bytes, &Offset, &Bytes, ViewShare, 0, PAGE_READONLY);
    ZwClose(Section);
    CHECK(Status == STATUS_SUCCESS && Bytes >= 0x10000);
    for (ULONG Index = 0; Index < 64; Index++) {
        Sum += ((volatile UCHAR *)Base)[Index * 16];
    }
    CHECK(Sum != 0);
    CHECK(ZwUnmapViewOfSection(ZwCurrentProcess(), Base) == STATUS_SUCCESS);
    return 0;
}

typedef struct _SHARED {
    volatile LONG Count;
    KEVENT *Filled;
} SHARED;

static VOID NTAPI Fills(PVOID Context)
{
    SHARED *Shared = Context;

    InterlockedIncrement(&Shared->Count);
    KeSetEvent(Shared->Filled, IO_NO_INCREMENT, FALSE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* A thread of the driver's fills what the application reads: each by a view of its own. */
static ULONG SectionSharedWithAThread(VOID)
{
    LARGE_INTEGER Size = {.QuadPart = PAGE_SIZE};
    PKEVENT Filled = Nonpaged(sizeof(KEVENT));
    PVOID Object = NULL, System = NULL, Own = NULL;
    SIZE_T Bytes = 0, OwnBytes = 0;
    OBJECT_ATTRIBUTES Attributes;
    PKTHREAD Thread;
    HANDLE Section;

    CHECK(Filled != NULL);
    KeInitializeEvent(Filled, NotificationEvent, FALSE);
    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwCreateSection(&Section, SECTION_ALL_ACCESS, &Attributes, &Size, PAGE_READWRITE, SEC_COMMIT, NULL) ==
          STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Section, SECTION_ALL_ACCESS, NULL, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    CHECK(MmMapViewInSystemSpace(Object, &System, &Bytes) == STATUS_SUCCESS);
    CHECK(ZwMapViewOfSection(Section, ZwCurrentProcess(), &Own, 0, 0, NULL, &OwnBytes, ViewUnmap, 0, PAGE_READONLY) ==
          STATUS_SUCCESS);
    ((SHARED *)System)->Filled = Filled;
    Thread = StartThread(Fills, System);
    CHECK(Thread != NULL);
    WaitFor(Filled);
    CHECK(((SHARED *)Own)->Count == 1);
    JoinThread(Thread);
    CHECK(MmUnmapViewInSystemSpace(System) == STATUS_SUCCESS);
    CHECK(ZwUnmapViewOfSection(ZwCurrentProcess(), Own) == STATUS_SUCCESS);
    ObDereferenceObject(Object);
    ZwClose(Section);
    ExFreePoolWithTag(Filled, TAG);
    return 0;
}

typedef struct _CALLER {
    PEPROCESS Process;
    volatile LONG *Where;
} CALLER;

static VOID NTAPI AnswersItsCaller(PVOID Context)
{
    CALLER *Caller = Context;
    ULONGLONG State[6]; /* KAPC_STATE, opaque */

    KeStackAttachProcess(Caller->Process, State);
    *Caller->Where = 42;
    KeUnstackDetachProcess(State);
    ObDereferenceObject(Caller->Process);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* A system thread stores into memory that was allocated in the caller's process, attached to that. */
static ULONG MemoryOfTheCaller(VOID)
{
    PVOID Base = NULL;
    SIZE_T Bytes = 100;
    CALLER *Caller = Nonpaged(sizeof(*Caller));
    PKTHREAD Thread;

    CHECK(Caller != NULL);
    CHECK(ZwAllocateVirtualMemory(ZwCurrentProcess(), &Base, 0, &Bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) ==
          STATUS_SUCCESS);
    Caller->Process = IoGetCurrentProcess();
    Caller->Where = Base;
    ObReferenceObject(Caller->Process);
    Thread = StartThread(AnswersItsCaller, Caller);
    CHECK(Thread != NULL);
    JoinThread(Thread);
    CHECK(*(volatile LONG *)Base == 42);
    Bytes = 0;
    CHECK(ZwFreeVirtualMemory(ZwCurrentProcess(), &Base, &Bytes, MEM_RELEASE) == STATUS_SUCCESS);
    ExFreePoolWithTag(Caller, TAG);
    return 0;
}

#define SECTION_IDIOMS                                                                                                 \
    IDIOM(FirmwareThroughPhysicalMemory)                                                                               \
    IDIOM(SectionSharedWithAThread)                                                                                    \
    IDIOM(MemoryOfTheCaller)

#endif
