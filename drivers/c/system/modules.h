/* Stories of modules: the list of them, the kernel's image, and exports that a driver looks up by itself. */
#include "system.h"

#define EXPORT_DIRECTORY 0
#define DEBUG_DIRECTORY 6

typedef LONG(NTAPI *READ_STATE)(PKEVENT Event);

/* The table of exports in an image. */
typedef struct _TABLE_OF_EXPORTS {
    ULONG Characteristics;
    ULONG TimeDateStamp;
    ULONG Version;
    ULONG Name;
    ULONG Base;
    ULONG NumberOfFunctions;
    ULONG NumberOfNames;
    ULONG AddressOfFunctions;
    ULONG AddressOfNames;
    ULONG AddressOfNameOrdinals;
} TABLE_OF_EXPORTS;

static PVOID BaseOfKernel(VOID)
{
    static MODULES Found;
    ULONG Length;

    return ZwQuerySystemInformation(11, &Found, sizeof(Found), &Length) == STATUS_SUCCESS ? Found.Modules[0].ImageBase
                                                                                          : NULL;
}

/* As drivers do that do not trust their imports: names are sorted. */
static PVOID ExportOf(PUCHAR Base, const char *Name)
{
    ULONG Size = 0;
    TABLE_OF_EXPORTS *Table = RtlImageDirectoryEntryToData(Base, TRUE, EXPORT_DIRECTORY, &Size);
    PULONG Names = (PULONG)(Base + Table->AddressOfNames);
    LONG Low = 0, High = (LONG)Table->NumberOfNames - 1;

    while (Low <= High) {
        LONG Middle = (Low + High) / 2, Order = strcmp(Name, (char *)Base + Names[Middle]);
        USHORT Ordinal = ((PUSHORT)(Base + Table->AddressOfNameOrdinals))[Middle];

        if (Order == 0) {
            return Base + ((PULONG)(Base + Table->AddressOfFunctions))[Ordinal];
        }
        Low = Order > 0 ? Middle + 1 : Low;
        High = Order > 0 ? High : Middle - 1;
    }
    return NULL;
}

static ULONG Modules(VOID)
{
    static MODULES Found;
    ULONG Length = 0, Index;
    PLIST_ENTRY Head = Routine(L"PsLoadedModuleList"), Entry;

    CHECK(ZwQuerySystemInformation(11, NULL, 0, &Length) == STATUS_INFO_LENGTH_MISMATCH);
    CHECK(Length == 8 + 2 * sizeof(MODULE));
    CHECK(ZwQuerySystemInformation(11, &Found, sizeof(Found), &Length) == STATUS_SUCCESS && Found.Count == 2);
    for (Index = 0; Index < Found.Count; Index++) {
        CHECK(Found.Modules[Index].LoadOrderIndex == Index && Found.Modules[Index].ImageSize % PAGE_SIZE == 0);
    }
    CHECK(IsText(Found.Modules[0].FullPathName, "\\SystemRoot\\system32\\ntoskrnl.exe"));
    CHECK(IsText(Found.Modules[0].FullPathName + Found.Modules[0].OffsetToFileName, "ntoskrnl.exe"));
    CHECK(IsText(Found.Modules[1].FullPathName + Found.Modules[1].OffsetToFileName, "system.sys"));
    CHECK(Found.Modules[1].ImageBase == TheDriver->DriverStart);
    CHECK(Found.Modules[1].ImageSize == TheDriver->DriverSize);

    /* The list that DriverSection is in has the same: DllBase at 30h, BaseDllName at 58h. */
    for (Entry = Head->Flink, Index = 0; Entry != Head; Entry = Entry->Flink, Index++) {
        CHECK(*(PVOID *)((PUCHAR)Entry + 0x30) == Found.Modules[Index].ImageBase);
        CHECK(*(PULONG)((PUCHAR)Entry + 0x40) == Found.Modules[Index].ImageSize);
    }
    CHECK(Index == 2 && (PVOID)Head->Flink->Flink == TheDriver->DriverSection);
    return 0;
}

static ULONG KernelImage(VOID)
{
    PUCHAR Base = BaseOfKernel();
    ULONG Size = 0;
    TABLE_OF_EXPORTS *Table = RtlImageDirectoryEntryToData(Base, TRUE, EXPORT_DIRECTORY, &Size);
    KEVENT Event;

    CHECK(RtlImageNtHeader(Base) == Base + *(PULONG)(Base + 0x3C));
    CHECK(*(PUSHORT)Base == 0x5A4D && *(PULONG)RtlImageNtHeader(Base) == 0x4550);
    CHECK(Table != NULL && (PUCHAR)Table > Base && Table->NumberOfNames > 1000 && Size > 40 * Table->NumberOfNames / 2);
    CHECK(IsText((char *)Base + Table->Name, "ntoskrnl.exe") && Table->NumberOfFunctions == Table->NumberOfNames);
    CHECK(RtlImageDirectoryEntryToData(Base, TRUE, DEBUG_DIRECTORY, &Size) == NULL);
    CHECK(RtlImageDirectoryEntryToData(Base, TRUE, 16, &Size) == NULL);
    CHECK(ExportOf(Base, "KeNothing") == NULL);
    CHECK(ExportOf(Base, "ZwClose") == Routine(L"ZwClose") && Routine(L"ZwClose") != NULL);
    CHECK(ExportOf(Base, "DbgPrint") == Routine(L"DbgPrint"));
    CHECK(ExportOf(Base, "RtlCaptureContext") == Routine(L"RtlCaptureContext"));
    CHECK(ExportOf(Base, "PsLoadedModuleList") == Routine(L"PsLoadedModuleList"));
    KeInitializeEvent(&Event, NotificationEvent, TRUE);
    CHECK(((READ_STATE)ExportOf(Base, "KeReadStateEvent"))(&Event) == 1);
    KeClearEvent(&Event);
    CHECK(((READ_STATE)ExportOf(Base, "KeReadStateEvent"))(&Event) == 0);
    return 0;
}

static ULONG OwnImage(VOID)
{
    PUCHAR Base = TheDriver->DriverStart, Header = RtlImageNtHeader(Base);
    ULONG Size = 0;
    PUCHAR File = ExAllocatePoolWithTag(NonPagedPool, 0x400, SYSTEM_TAG);

    CHECK(Header != NULL && *(PULONG)(Header + 0x50) == TheDriver->DriverSize && File != NULL);
    CHECK(RtlImageDirectoryEntryToData(Base, TRUE, 1, &Size) == Base + *(PULONG)(Header + 0x90) && Size > 0);
    CHECK(RtlImageNtHeader(NULL) == NULL && RtlImageNtHeader(Base + 2) == NULL);

    /* As in a file: a section's data is where its header says, and its RVA is another. */
    RtlCopyMemory(File, Base, 0x400);
    Header = RtlImageNtHeader(File);
    CHECK(Header == File + *(PULONG)(Base + 0x3C));
    *(PUSHORT)(Header + 6) = 1;
    *(PULONG)(Header + 0x88) = 0x12340;
    *(PULONG)(Header + 0x8C) = 0x20;
    *(PULONG)(Header + 0x108 + 0xC) = 0x12300;
    *(PULONG)(Header + 0x108 + 0x10) = 0x100;
    *(PULONG)(Header + 0x108 + 0x14) = 0x380;
    CHECK(RtlImageDirectoryEntryToData(File, FALSE, EXPORT_DIRECTORY, &Size) == File + 0x3C0 && Size == 0x20);
    CHECK(RtlImageDirectoryEntryToData(File + 1, TRUE, EXPORT_DIRECTORY, &Size) == File + 0x3C0);
    CHECK(RtlImageDirectoryEntryToData(File, TRUE, EXPORT_DIRECTORY, &Size) == File + 0x12340);
    *(PULONG)(Header + 0x88) = 0x12400;
    CHECK(RtlImageDirectoryEntryToData(File, FALSE, EXPORT_DIRECTORY, &Size) == NULL);
    ExFreePoolWithTag(File, SYSTEM_TAG);
    return 0;
}

/* What Windows exports and dirql does not have is found, and says its name when it is called. */
static ULONG WhatIsNotThere(VOID)
{
    NTSTATUS(NTAPI * Commit)(HANDLE, BOOLEAN) = ExportOf(BaseOfKernel(), "ZwCommitTransaction");

    CHECK(Commit != NULL);
    CHECK(Commit(NULL, TRUE) == STATUS_SUCCESS);
    return 0;
}
