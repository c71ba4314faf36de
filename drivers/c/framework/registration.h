/*
 * The framework as its loader knows it: a library that clients of its major version and of its minor version or an older one bind, and those of a newer
 * one that say that an older one will do (WDF_BIND_INFO2, from 1.25).
 *
 * Which status a client gets that fits not is not documented: STATUS_INVALID_PARAMETER for sizes and counts that no version has,
 * STATUS_REVISION_MISMATCH for a version that is not served.
 */
#ifndef FRAMEWORK_REGISTRATION_H
#define FRAMEWORK_REGISTRATION_H

#define FIRST_WITH_MINIMUM 25

#define OWN_FUNCTIONS FUNCTION_COUNT_OF(KMDF_MINOR)

#define SIZE_OF(Name) [INDEX_##Name] = sizeof(Name)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"

static const SIZE_T StructureSizes[STRUCTURE_COUNT] = {
    [0 ... STRUCTURE_COUNT - 1] = (SIZE_T)-1, /* not here */
    SIZE_OF(WDF_DPC_CONFIG),
    SIZE_OF(WDF_DRIVER_CONFIG),
    SIZE_OF(WDF_DRIVER_GLOBALS),
    SIZE_OF(WDF_FILEOBJECT_CONFIG),
    SIZE_OF(WDF_INTERRUPT_CONFIG),
    SIZE_OF(WDF_IO_QUEUE_CONFIG),
    SIZE_OF(WDF_OBJECT_ATTRIBUTES),
    SIZE_OF(WDF_OBJECT_CONTEXT_TYPE_INFO),
    SIZE_OF(WDF_PNPPOWER_EVENT_CALLBACKS),
    SIZE_OF(WDF_REQUEST_PARAMETERS),
    SIZE_OF(WDF_TIMER_CONFIG),
    SIZE_OF(WDF_WORKITEM_CONFIG),
};

#pragma GCC diagnostic pop

static NTSTATUS NTAPI Commission(VOID)
{
    DbgPrint("framework 1.%u: commissioned\n", KMDF_MINOR);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Decommission(VOID)
{
    DbgPrint("framework 1.%u: decommissioned\n", KMDF_MINOR);
    return STATUS_SUCCESS;
}

/* Whether it is served, and whether it is newer than the framework. */
static NTSTATUS CheckVersion(WDF_BIND_INFO *Info, PBOOLEAN Newer)
{
    WDF_BIND_INFO2 *Info2 = (WDF_BIND_INFO2 *)Info;

    if (Info->Size != sizeof(WDF_BIND_INFO) && Info->Size != sizeof(WDF_BIND_INFO2)) {
        return STATUS_INVALID_PARAMETER;
    }
    *Newer = Info->Version.Minor > KMDF_MINOR;
    if (Info->Version.Major != 1) {
        return STATUS_REVISION_MISMATCH;
    }
    if (*Newer && (Info->Size != sizeof(WDF_BIND_INFO2) || *Info2->MinimumVersionRequired < FIRST_WITH_MINIMUM ||
                   *Info2->MinimumVersionRequired > KMDF_MINOR)) {
        return STATUS_REVISION_MISMATCH;
    }
    return Info->FuncCount == FUNCTION_COUNT_OF(Info->Version.Minor) && Info->FuncTable != NULL ? STATUS_SUCCESS
                                                                                             : STATUS_INVALID_PARAMETER;
}

static VOID GiveTable(WDF_BIND_INFO *Info, BOOLEAN Newer)
{
    WDF_BIND_INFO2 *Info2 = (WDF_BIND_INFO2 *)Info;

    if (Info->FuncCount <= FUNCTIONS_IN_OWN_ARRAY) {
        RtlCopyMemory(Info->FuncTable, Table, Info->FuncCount * sizeof(Table[0]));
        return;
    }
    *(const WDFFUNC **)Info->FuncTable = Table;
    if (Info->Size == sizeof(*Info2)) {
        *Info2->ClientVersionHigherThanFramework = Newer;
        if (Newer) {
            *Info2->FuncCountPtr = OWN_FUNCTIONS;
            *Info2->StructCountPtr = STRUCTURE_COUNT;
            *Info2->StructTable = (PVOID)StructureSizes;
        }
    }
}

/* The last part of a path, in the 31 characters that the globals have for it. */
static VOID NameClient(CLIENT *Client, PUNICODE_STRING Path)
{
    ULONG Length = Path->Length / sizeof(WCHAR), First = Length, Index;

    while (First > 0 && Path->Buffer[First - 1] != L'\\') {
        First--;
    }
    for (Index = 0; First + Index < Length && Index < sizeof(Client->Globals.DriverName) - 1; Index++) {
        Client->Globals.DriverName[Index] = (CHAR)Path->Buffer[First + Index];
    }
}

static NTSTATUS NTAPI RegisterClient(WDF_BIND_INFO *Info, PWDF_DRIVER_GLOBALS *Globals, PVOID *Context)
{
    const CLIENT_INFO *ClientInfo = *Context;
    BOOLEAN Newer;
    CLIENT *Client;
    NTSTATUS Status = CheckVersion(Info, &Newer);

    if (!NT_SUCCESS(Status)) {
        DbgPrint("framework 1.%u: no client of %u.%u with %u functions\n", KMDF_MINOR, Info->Version.Major, Info->Version.Minor,
                 Info->FuncCount);
        return Status;
    }
    if (ClientInfo->Size != sizeof(*ClientInfo)) {
        return STATUS_INVALID_PARAMETER;
    }
    Client = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Client), FRAMEWORK_TAG);
    if (Client == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Client, sizeof(*Client));
    Client->Minor = min(Info->Version.Minor, KMDF_MINOR);
    Client->Wdm = ClientInfo->DriverObject;
    Client->Globals.DriverTag = FRAMEWORK_TAG;
    KeInitializeSpinLock(&Client->Lock);
    NameClient(Client, ClientInfo->RegistryPath);
    StartLog(Client);
    Note(Client, CLIENT_IS_BOUND, Info->Version.Minor);
    GiveTable(Info, Newer);
    *Globals = &Client->Globals;
    *Context = Client;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI UnregisterClient(WDF_BIND_INFO *Info, PWDF_DRIVER_GLOBALS Globals)
{
    CLIENT *Client = ClientOf(Globals);

    UNREFERENCED_PARAMETER(Info);
    if (Client->Driver != NULL) {
        Client->Driver->Unloaded = TRUE; /* its entry routine has failed: EvtDriverUnload is not called */
        EndDriver(Client->Driver);
    }
    if (Client->Kept != NULL) {
        FreeMemory(Client, Client->Kept);
    }
    if (Client->Objects != 0) {
        DbgPrint("framework: %s leaves %d objects\n", Client->Globals.DriverName, Client->Objects);
    }
    StopLog(Client);
    ExFreePoolWithTag(Client, FRAMEWORK_TAG);
    return STATUS_SUCCESS;
}

static WDF_LIBRARY_INFO Library = {sizeof(Library), Commission, Decommission, RegisterClient, UnregisterClient, {1, KMDF_MINOR, 0}};

#endif
