/* Stories of what applications do that drivers want to know of: they map images, use the registry and open processes. */
#include "filters.h"

static struct {
    LARGE_INTEGER Cookie;
    PVOID Handles;
} Applications;

/* A line for each image that is not a driver's: whose it is, and whether its headers are there. */
static VOID NTAPI ImageMapped(PUNICODE_STRING Name, HANDLE Process, PIMAGE_INFO Info)
{
    const UCHAR *Base = Info->ImageBase;

    if (Process == NULL) {
        return;
    }
    DbgPrint("filters: image %wZ, %s, %s%s\n", Name, Process == PsGetCurrentProcessId() ? "its own" : "of another",
             Base[0] == 'M' && Base[1] == 'Z' ? "MZ" : "no headers", Info->SystemModeImage ? ", of the system" : "");
}

/* A line for each value that is set or asked for. */
static NTSTATUS NTAPI RegistryUsed(PVOID Context, PVOID Class, PVOID Argument)
{
    REG_SET_VALUE_KEY_INFORMATION *Set = Argument;
    REG_QUERY_VALUE_KEY_INFORMATION *Query = Argument;
    const char *Mode = ExGetPreviousMode() == UserMode ? "user" : "kernel";

    UNREFERENCED_PARAMETER(Context);
    if ((ULONG_PTR)Class == RegNtPreSetValueKey) {
        /* The data are captured; the buffer of an answer is the application's. */
        DbgPrint("filters: %s sets %wZ to %u bytes of type %u in %s memory\n", Mode, Set->ValueName, Set->DataSize, Set->Type,
                 (ULONG_PTR)Set->Data > (ULONG_PTR)MmHighestUserAddress ? "the system's" : "an application's");
    } else if ((ULONG_PTR)Class == RegNtPreQueryValueKey) {
        DbgPrint("filters: %s asks for %wZ in %s memory\n", Mode, Query->ValueName,
                 (ULONG_PTR)Query->KeyValueInformation > (ULONG_PTR)MmHighestUserAddress ? "the system's" : "an application's");
    }
    return STATUS_SUCCESS;
}

static OB_PREOP_CALLBACK_STATUS NTAPI ProcessOpened(PVOID Context, POB_PRE_OPERATION_INFORMATION Info)
{
    UNREFERENCED_PARAMETER(Context);
    DbgPrint("filters: a handle is %s with access 0x%x\n", Info->Operation == OB_OPERATION_HANDLE_CREATE ? "made" : "duplicated",
             Info->Parameters->CreateHandleInformation.DesiredAccess);
    return OB_PREOP_SUCCESS;
}

static ULONG ApplicationsAreWatched(VOID)
{
    OB_OPERATION_REGISTRATION One = {PsProcessType, OB_OPERATION_HANDLE_CREATE | OB_OPERATION_HANDLE_DUPLICATE, ProcessOpened, NULL};
    OB_CALLBACK_REGISTRATION All = {OB_FLT_REGISTRATION_VERSION, 1, RTL_CONSTANT_STRING(L"370020"), NULL, &One};
    UNICODE_STRING Altitude = RTL_CONSTANT_STRING(L"370021");

    CHECK(PsSetLoadImageNotifyRoutine(ImageMapped) == STATUS_SUCCESS);
    CHECK(CmRegisterCallbackEx(RegistryUsed, &Altitude, TheDriver, NULL, &Applications.Cookie, NULL) == STATUS_SUCCESS);
    CHECK(ObRegisterCallbacks(&All, &Applications.Handles) == STATUS_SUCCESS);
    return 0;
}

static ULONG ApplicationsAreLeftAlone(VOID)
{
    CHECK(PsRemoveLoadImageNotifyRoutine(ImageMapped) == STATUS_SUCCESS);
    CHECK(CmUnRegisterCallback(Applications.Cookie) == STATUS_SUCCESS);
    ObUnRegisterCallbacks(Applications.Handles);
    return 0;
}
