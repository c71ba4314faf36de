/* Pairs of sections, their views, handles and address spaces. */
#ifndef PAIRS_SECTIONS_H
#define PAIRS_SECTIONS_H

#include "pairs.h"

NTKERNELAPI NTSTATUS NTAPI MmMapViewInSystemSpace(PVOID Section, PVOID *Base, PSIZE_T ViewSize);
NTKERNELAPI NTSTATUS NTAPI MmUnmapViewInSystemSpace(PVOID Base);

NTKERNELAPI VOID NTAPI KeStackAttachProcess(PEPROCESS Process, PVOID State);
NTKERNELAPI VOID NTAPI KeUnstackDetachProcess(PVOID State);
NTKERNELAPI VOID NTAPI KeAttachProcess(PEPROCESS Process);
NTKERNELAPI VOID NTAPI KeDetachProcess(VOID);
NTKERNELAPI HANDLE NTAPI MmSecureVirtualMemory(PVOID Address, SIZE_T Size, ULONG Mode);
NTKERNELAPI VOID NTAPI MmUnsecureVirtualMemory(HANDLE Secured);

/* The object of a new section of a page, whose handle is closed already; NULL if there is none. */
static PVOID NewSection(VOID)
{
    OBJECT_ATTRIBUTES Attributes;
    LARGE_INTEGER Size = {.QuadPart = PAGE_SIZE};
    PVOID Object = NULL;
    HANDLE Section;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (NT_SUCCESS(ZwCreateSection(&Section, SECTION_ALL_ACCESS, &Attributes, &Size, PAGE_READWRITE, SEC_COMMIT, NULL))) {
        ObReferenceObjectByHandle(Section, SECTION_ALL_ACCESS, NULL, KernelMode, &Object, NULL);
        ZwClose(Section);
    }
    return Object;
}

static VOID HandleLeak(BOOLEAN Wrong)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\PhysicalMemory");
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Section;

    InitializeObjectAttributes(&Attributes, &Name, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (NT_SUCCESS(ZwOpenSection(&Section, SECTION_MAP_READ, &Attributes)) && !Wrong) {
        ZwClose(Section);
    }
}

static VOID ViewLeak(BOOLEAN Wrong)
{
    PVOID Object = NewSection(), View;
    SIZE_T Bytes = 0;

    if (Object == NULL) {
        return;
    }
    if (NT_SUCCESS(MmMapViewInSystemSpace(Object, &View, &Bytes)) && !Wrong) {
        MmUnmapViewInSystemSpace(View);
    }
    ObDereferenceObject(Object);
}

static VOID SystemViewUnmap(BOOLEAN Wrong)
{
    PVOID Object = NewSection(), View;
    SIZE_T Bytes = 0;

    if (Object == NULL) {
        return;
    }
    if (NT_SUCCESS(MmMapViewInSystemSpace(Object, &View, &Bytes))) {
        MmUnmapViewInSystemSpace(View);
        if (Wrong) {
            MmUnmapViewInSystemSpace(View);
        }
    }
    ObDereferenceObject(Object);
}

static VOID NotASection(BOOLEAN Wrong)
{
    PVOID Object = NewSection(), View;
    SIZE_T Bytes = 0;

    if (Object == NULL) {
        return;
    }
    if (NT_SUCCESS(MmMapViewInSystemSpace(Wrong ? (PVOID)TheDevice : Object, &View, &Bytes))) {
        MmUnmapViewInSystemSpace(View);
    }
    ObDereferenceObject(Object);
}

/* One page of memory: of pool, which may be given to another, or contiguous. */
static VOID PhysicalMemoryView(BOOLEAN Wrong)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\PhysicalMemory");
    PVOID Block = Nonpaged(PAGE_SIZE), Contiguous = MmAllocateContiguousMemory(PAGE_SIZE, Highest), View = NULL;
    LARGE_INTEGER Offset;
    SIZE_T Bytes = PAGE_SIZE;
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Section;

    InitializeObjectAttributes(&Attributes, &Name, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (Block != NULL && Contiguous != NULL && NT_SUCCESS(ZwOpenSection(&Section, SECTION_ALL_ACCESS, &Attributes))) {
        Offset = MmGetPhysicalAddress(Wrong ? Block : Contiguous);
        if (NT_SUCCESS(ZwMapViewOfSection(Section, ZwCurrentProcess(), &View, 0, 0, &Offset, &Bytes, ViewShare, 0,
                                          PAGE_READWRITE))) {
            ZwUnmapViewOfSection(ZwCurrentProcess(), View);
        }
        ZwClose(Section);
    }
    if (Contiguous != NULL) {
        MmFreeContiguousMemory(Contiguous);
    }
    if (Block != NULL) {
        Free(Block);
    }
}

typedef struct _ATTACH_STATE {
    ULONGLONG Words[6]; /* KAPC_STATE, opaque */
} ATTACH_STATE;

static VOID StillAttached(BOOLEAN Wrong)
{
    ATTACH_STATE State;

    KeStackAttachProcess(PsInitialSystemProcess, &State);
    if (!Wrong) {
        KeUnstackDetachProcess(&State);
    }
}

static VOID ProcessDetach(BOOLEAN Wrong)
{
    PEPROCESS Own = IoGetCurrentProcess();
    ATTACH_STATE First, Second;

    KeStackAttachProcess(PsInitialSystemProcess, &First);
    KeStackAttachProcess(Own, &Second);
    KeUnstackDetachProcess(Wrong ? &First : &Second);
    KeUnstackDetachProcess(Wrong ? &Second : &First);
}

static VOID ProcessAttach(BOOLEAN Wrong)
{
    PEPROCESS Own = IoGetCurrentProcess();

    KeAttachProcess(PsInitialSystemProcess);
    KeAttachProcess(Wrong ? Own : PsInitialSystemProcess);
    KeDetachProcess();
}

/* A view of a page, which a process may not take away meanwhile. */
static VOID NotSecured(BOOLEAN Wrong)
{
    OBJECT_ATTRIBUTES Attributes;
    LARGE_INTEGER Size = {.QuadPart = PAGE_SIZE};
    HANDLE Section, Secured;
    PVOID View = NULL;
    SIZE_T Bytes = 0;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (NT_SUCCESS(ZwCreateSection(&Section, SECTION_ALL_ACCESS, &Attributes, &Size, PAGE_READWRITE, SEC_COMMIT, NULL))) {
        if (NT_SUCCESS(ZwMapViewOfSection(Section, ZwCurrentProcess(), &View, 0, 0, NULL, &Bytes, ViewShare, 0,
                                          PAGE_READWRITE))) {
            Secured = MmSecureVirtualMemory(View, PAGE_SIZE, PAGE_READWRITE);
            if (Secured != NULL) {
                MmUnsecureVirtualMemory(Secured);
                if (Wrong) {
                    MmUnsecureVirtualMemory(Secured);
                }
            }
            ZwUnmapViewOfSection(ZwCurrentProcess(), View);
        }
        ZwClose(Section);
    }
}

#define SECTION_PAIRS                                                                                                  \
    PAIR("handle-leak", HandleLeak)                                                                                    \
    PAIR("not-a-section", NotASection)                                                                                 \
    PAIR("not-secured", NotSecured)                                                                                    \
    PAIR("physical-memory-view", PhysicalMemoryView)                                                                   \
    PAIR("process-attach", ProcessAttach)                                                                              \
    PAIR("process-detach", ProcessDetach)                                                                              \
    PAIR("still-attached", StillAttached)                                                                              \
    PAIR("system-view-unmap", SystemViewUnmap)                                                                         \
    PAIR("view-leak", ViewLeak)

#endif
