/* Pairs of sections, their views, and handles. */
#ifndef PAIRS_SECTIONS_H
#define PAIRS_SECTIONS_H

#include "pairs.h"

NTKERNELAPI NTSTATUS NTAPI MmMapViewInSystemSpace(PVOID Section, PVOID *Base, PSIZE_T ViewSize);
NTKERNELAPI NTSTATUS NTAPI MmUnmapViewInSystemSpace(PVOID Base);

/* The object of a new section of a page, whose handle is closed already. */
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

    if (NT_SUCCESS(MmMapViewInSystemSpace(Object, &View, &Bytes)) && !Wrong) {
        MmUnmapViewInSystemSpace(View);
    }
    ObDereferenceObject(Object);
}

static VOID SystemViewUnmap(BOOLEAN Wrong)
{
    PVOID Object = NewSection(), View;
    SIZE_T Bytes = 0;

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
    LARGE_INTEGER Offset = MmGetPhysicalAddress(Wrong ? Block : Contiguous);
    SIZE_T Bytes = PAGE_SIZE;
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Section;

    InitializeObjectAttributes(&Attributes, &Name, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (NT_SUCCESS(ZwOpenSection(&Section, SECTION_ALL_ACCESS, &Attributes))) {
        if (NT_SUCCESS(ZwMapViewOfSection(Section, ZwCurrentProcess(), &View, 0, 0, &Offset, &Bytes, ViewShare, 0,
                                          PAGE_READWRITE))) {
            ZwUnmapViewOfSection(ZwCurrentProcess(), View);
        }
        ZwClose(Section);
    }
    MmFreeContiguousMemory(Contiguous);
    Free(Block);
}

#define SECTION_PAIRS                                                                                                  \
    PAIR("handle-leak", HandleLeak)                                                                                    \
    PAIR("not-a-section", NotASection)                                                                                 \
    PAIR("physical-memory-view", PhysicalMemoryView)                                                                   \
    PAIR("system-view-unmap", SystemViewUnmap)                                                                         \
    PAIR("view-leak", ViewLeak)

#endif
