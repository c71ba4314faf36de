/* What the parts of sections.sys share: declarations that mingw's wdm.h lacks, and short forms of the calls. */
#ifndef SECTIONS_H
#define SECTIONS_H

#include <ddk/wdm.h>

#define STORIES "sections"
#include "../control.h"

#define SECTIONS_TAG 0x74636553u /* Sect in pool listings */
#define SEC_IMAGE 0x01000000u
#define SEC_NOCACHE 0x10000000u
#define GRANULARITY 0x10000u
#define KERNEL_MODE 0
#define USER_MODE 1

NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID BaseAddress);
NTKERNELAPI BOOLEAN NTAPI MmIsAddressValid(PVOID Address);
NTKERNELAPI NTSTATUS NTAPI MmMapViewInSystemSpace(PVOID Section, PVOID *Base, PSIZE_T ViewSize);
NTKERNELAPI NTSTATUS NTAPI MmUnmapViewInSystemSpace(PVOID Base);
NTSYSAPI NTSTATUS NTAPI NtMapViewOfSection(HANDLE Section, HANDLE Process, PVOID *Base, ULONG_PTR ZeroBits, SIZE_T Commit,
                                           PLARGE_INTEGER Offset, PSIZE_T Bytes, ULONG Inherit, ULONG Type, ULONG Protect);
NTSYSAPI NTSTATUS NTAPI ZwQuerySection(HANDLE Section, ULONG Class, PVOID Buffer, SIZE_T Length, PSIZE_T Returned);
NTSYSAPI NTSTATUS NTAPI ZwCreateEvent(PHANDLE Event, ACCESS_MASK Access, POBJECT_ATTRIBUTES Object, EVENT_TYPE Type,
                                     BOOLEAN State);
NTKERNELAPI NTSTATUS NTAPI ObOpenObjectByPointer(PVOID Object, ULONG Attributes, PVOID State, ACCESS_MASK Access,
                                                 POBJECT_TYPE Type, KPROCESSOR_MODE Mode, PHANDLE Handle);

extern __declspec(dllimport) POBJECT_TYPE *MmSectionObjectType;
extern __declspec(dllimport) POBJECT_TYPE *PsProcessType;
extern __declspec(dllimport) POBJECT_TYPE *ExEventObjectType;
extern __declspec(dllimport) ULONG_PTR MmUserProbeAddress;

typedef struct _SECTION_BASIC_INFORMATION {
    PVOID BaseAddress;
    ULONG AllocationAttributes;
    LARGE_INTEGER MaximumSize;
} SECTION_BASIC_INFORMATION;

/* A section of the page file's without a name. */
static inline NTSTATUS Create(PHANDLE Section, LONGLONG Bytes, ULONG Protection, ULONG Attributes)
{
    OBJECT_ATTRIBUTES Object;
    LARGE_INTEGER Size = {.QuadPart = Bytes};

    InitializeObjectAttributes(&Object, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    return ZwCreateSection(Section, SECTION_ALL_ACCESS, &Object, &Size, Protection, Attributes, NULL);
}

/* A view of a part in the process that is current; Offset and Bytes become what they are. */
static inline NTSTATUS MapPart(HANDLE Section, PVOID *View, LONGLONG *Offset, SIZE_T *Bytes, ULONG Protection)
{
    LARGE_INTEGER At = {.QuadPart = *Offset};
    NTSTATUS Status;

    *View = NULL;
    Status = ZwMapViewOfSection(Section, NtCurrentProcess(), View, 0, 0, &At, Bytes, ViewUnmap, 0, Protection);
    *Offset = At.QuadPart;
    return Status;
}

/* A view of all of it. */
static inline NTSTATUS MapAll(HANDLE Section, PVOID *View, ULONG Protection)
{
    SIZE_T Bytes = 0;

    *View = NULL;
    return ZwMapViewOfSection(Section, NtCurrentProcess(), View, 0, 0, NULL, &Bytes, ViewShare, 0, Protection);
}

static inline NTSTATUS Unmap(PVOID View)
{
    return ZwUnmapViewOfSection(NtCurrentProcess(), View);
}

/* The section's object; to be given back with ObDereferenceObject. */
static inline PVOID ObjectOf(HANDLE Section)
{
    PVOID Object = NULL;

    ObReferenceObjectByHandle(Section, SECTION_ALL_ACCESS, *MmSectionObjectType, KERNEL_MODE, &Object, NULL);
    return Object;
}

static inline NTSTATUS OpenPhysicalMemory(PHANDLE Section)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\PhysicalMemory");
    OBJECT_ATTRIBUTES Object;

    InitializeObjectAttributes(&Object, &Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    return ZwOpenSection(Section, SECTION_ALL_ACCESS, &Object);
}

/* Runs a routine in a system thread, to its end. */
static inline NTSTATUS InSystemThread(PKSTART_ROUTINE Routine, PVOID Context)
{
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Handle;
    PVOID Thread;
    NTSTATUS Status;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, Routine, Context);
    if (NT_SUCCESS(Status)) {
        Status = ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KERNEL_MODE, &Thread, NULL);
        ZwClose(Handle);
        if (NT_SUCCESS(Status)) {
            Status = KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
            ObDereferenceObject(Thread);
        }
    }
    return Status;
}

#endif
