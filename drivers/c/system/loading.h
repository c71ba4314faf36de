/* Stories of a driver that has others loaded and unloaded; tables.sys is given beside it. */
#include "system.h"

#define SERVICES L"\\Registry\\Machine\\System\\CurrentControlSet\\Services\\"

NTSYSAPI NTSTATUS NTAPI ZwLoadDriver(PUNICODE_STRING Service);
NTSYSAPI NTSTATUS NTAPI ZwUnloadDriver(PUNICODE_STRING Service);

static NTSTATUS Load(PCWSTR Name)
{
    UNICODE_STRING Service;

    RtlInitUnicodeString(&Service, Name);
    return ZwLoadDriver(&Service);
}

static NTSTATUS UnloadIt(PCWSTR Name)
{
    UNICODE_STRING Service;

    RtlInitUnicodeString(&Service, Name);
    return ZwUnloadDriver(&Service);
}

static BOOLEAN IsThere(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\DirqlTables");
    PFILE_OBJECT File;
    PDEVICE_OBJECT Device;

    if (IoGetDeviceObjectPointer(&Name, FILE_READ_DATA, &File, &Device) != STATUS_SUCCESS) {
        return FALSE;
    }
    ObDereferenceObject(File);
    return TRUE;
}

static ULONG ImagesToldOf;

static VOID NTAPI CountsImages(PUNICODE_STRING Name, HANDLE Process, PVOID Info)
{
    ImagesToldOf += Name != NULL && Process == NULL && Info != NULL;
}

static ULONG Loading(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\DirqlTables");
    NTSTATUS(NTAPI * Watch)(PVOID Routine, ULONG_PTR Flags) = Routine(L"PsSetLoadImageNotifyRoutineEx");
    NTSTATUS(NTAPI * Forget)(PVOID Routine) = Routine(L"PsRemoveLoadImageNotifyRoutine");
    PFILE_OBJECT File;
    PDEVICE_OBJECT Device;

    CHECK(Load(SERVICES L"absent") == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(UnloadIt(SERVICES L"absent") == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(IsThere() && Load(SERVICES L"tables") == STATUS_IMAGE_ALREADY_LOADED);
    CHECK(UnloadIt(SERVICES L"Tables") == STATUS_SUCCESS && !IsThere());
    CHECK(UnloadIt(SERVICES L"tables") == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(Watch(CountsImages, 2) == STATUS_INVALID_PARAMETER);
    CHECK(Watch(CountsImages, 1) == STATUS_SUCCESS);
    CHECK(Load(SERVICES L"tables") == STATUS_SUCCESS && IsThere());
    CHECK(Forget(CountsImages) == STATUS_SUCCESS && ImagesToldOf == 1);

    /* With a file open on its device it goes when that is closed. */
    CHECK(IoGetDeviceObjectPointer(&Name, FILE_READ_DATA, &File, &Device) == STATUS_SUCCESS);
    CHECK(UnloadIt(SERVICES L"tables") == STATUS_SUCCESS);
    CHECK(Load(SERVICES L"tables") == STATUS_IMAGE_ALREADY_LOADED);
    ObDereferenceObject(File);
    CHECK(UnloadIt(SERVICES L"tables") == STATUS_OBJECT_NAME_NOT_FOUND && !IsThere());
    return 0;
}

/* It stays until the system ends. */
static ULONG LoadedAgain(VOID)
{
    CHECK(Loading() == 0 && Load(SERVICES L"tables") == STATUS_SUCCESS && IsThere());
    return 0;
}

/* A service whose file is not there. */
static ULONG NotOnDisk(VOID)
{
    UNICODE_STRING Key = RTL_CONSTANT_STRING(SERVICES L"elsewhere");
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Handle;

    InitializeObjectAttributes(&Attributes, &Key, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwCreateKey(&Handle, KEY_ALL_ACCESS, &Attributes, 0, NULL, REG_OPTION_VOLATILE, NULL) == STATUS_SUCCESS);
    ZwClose(Handle);
    CHECK(ZwLoadDriver(&Key) == STATUS_OBJECT_NAME_NOT_FOUND);
    return 0;
}

static ULONG UnloadsItself(VOID)
{
    CHECK(UnloadIt(SERVICES L"system") == STATUS_SUCCESS);
    return 0;
}
