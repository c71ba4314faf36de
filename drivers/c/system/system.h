/* What the stories of system.sys share. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <ddk/wdm.h>

#define STORIES "system"
#include "../control.h"

#define SYSTEM_TAG 0x74737953u /* "Syst" in pool listings */

static PDRIVER_OBJECT TheDriver;

/* What is documented for applications, and what drivers rely on without a page. */
NTSYSAPI NTSTATUS NTAPI ZwQuerySystemInformation(ULONG Class, PVOID Information, ULONG Length, PULONG Returned);
NTSYSAPI PVOID NTAPI RtlImageNtHeader(PVOID Base);
NTSYSAPI PVOID NTAPI RtlImageDirectoryEntryToData(PVOID Base, BOOLEAN Mapped, USHORT Directory, PULONG Size);

NTKERNELAPI HANDLE NTAPI PsGetCurrentProcessId(VOID);
NTKERNELAPI HANDLE NTAPI PsGetCurrentThreadId(VOID);
/* As the export is: wdm.h makes a macro of it. */
NTKERNELAPI PKTHREAD NTAPI CurrentThread(VOID) __asm__("PsGetCurrentThread");

/* The module of the kernel, RTL_PROCESS_MODULE_INFORMATION. */
typedef struct _MODULE {
    HANDLE Section;
    PVOID MappedBase;
    PVOID ImageBase;
    ULONG ImageSize;
    ULONG Flags;
    USHORT LoadOrderIndex;
    USHORT InitOrderIndex;
    USHORT LoadCount;
    USHORT OffsetToFileName;
    CHAR FullPathName[256];
} MODULE;

typedef struct _MODULES {
    ULONG Count;
    MODULE Modules[16];
} MODULES;

static inline PVOID Routine(PCWSTR Name)
{
    UNICODE_STRING String;

    RtlInitUnicodeString(&String, Name);
    return MmGetSystemRoutineAddress(&String);
}

static inline BOOLEAN IsText(const char *Text, const char *Expected)
{
    return strcmp(Text, Expected) == 0;
}

#endif
