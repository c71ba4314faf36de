/*
 * loader.sys: a driver that is a framework, a class extension and a client of both, to show what the frameworks' loader does with what
 * it is given. Its framework is of version 1.15, and all its functions are one. The registry has to name its service, loader, for the components KmdfLibrary and
 * DirqlCx.
 */
#include <ddk/wdm.h>

#include "wdfldr/wdfldr.h"

#define STORIES "loader"
#include "control.h"

#define KEY L"\\Registry\\Machine\\System\\CurrentControlSet\\Services\\"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlLoader");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlLoader");
static UNICODE_STRING Path = RTL_CONSTANT_STRING(KEY L"loader");

static PDRIVER_OBJECT Own;

/* ---- the framework ---- */

static LONG Commissioned, Clients, Opened;
static NTSTATUS CommissionStatus;
static CLIENT_INFO Seen;
static WDF_COMPONENT_GLOBALS Globals;
typedef ULONG64(NTAPI *FUNCTION)(WDF_COMPONENT_GLOBALS *Of, ULONG64 B, ULONG64 C, ULONG64 D, ULONG64 E, ULONG64 F);
static PVOID ReturnedTo;

/* What every function is: all its arguments arrive. */
static ULONG64 NTAPI Function(WDF_COMPONENT_GLOBALS *Of, ULONG64 B, ULONG64 C, ULONG64 D, ULONG64 E, ULONG64 F)
{
    ReturnedTo = __builtin_return_address(0);
    return Of == &Globals ? B + 10 * C + 100 * D + 1000 * E + 10000 * F : 0;
}

/* What function 3 is: it finds an error of the client's. */
static ULONG64 NTAPI Violated(WDF_COMPONENT_GLOBALS *Of)
{
    UNREFERENCED_PARAMETER(Of);
    KeBugCheckEx(0x10D /* WDF_VIOLATION */, 4, 0, (ULONG_PTR)__builtin_return_address(0), 0);
}

/* The head of a structure with callbacks, and the callbacks of a queue and of a device's power that are called here. */
typedef struct _CALLBACKS {
    ULONG Size;
    ULONG Other[3];
    PVOID Default, Read, Write;
    VOID(NTAPI *DeviceControl)(PVOID Queue, PVOID Request, SIZE_T Out, SIZE_T In, ULONG Code);
} CALLBACKS;

/* WdfIoQueueCreate, 152: it calls back at once. */
static NTSTATUS NTAPI CreateQueue(WDF_COMPONENT_GLOBALS *Of, PVOID Device, const CALLBACKS *Config, PVOID Attributes, PVOID *Queue)
{
    UNREFERENCED_PARAMETER(Of);
    UNREFERENCED_PARAMETER(Attributes);
    *Queue = Device;
    Config->DeviceControl(Device, &Globals, 3, 4, 5);
    return Config->Read == NULL ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

static PCHAR Given;

/* WdfInterruptSynchronize, 143: what the callback returns comes back. */
static BOOLEAN NTAPI Synchronize(WDF_COMPONENT_GLOBALS *Of, PVOID Interrupt, BOOLEAN(NTAPI *Callback)(PVOID, PVOID), PVOID Context)
{
    UNREFERENCED_PARAMETER(Of);
    Given = (PCHAR)Callback;
    return Callback(Interrupt, Context);
}

#define LATER_FUNCTIONS 444 /* of 1.15: clients have the address of the framework's table */
static PVOID OwnFunctions[LATER_FUNCTIONS] = {
    [0 ... 2] = Function, [3] = Violated, [4 ... 142] = Function, [143] = Synchronize, [144 ... 151] = Function, [152] = CreateQueue,
    [153 ... LATER_FUNCTIONS - 1] = Function,
};

static NTSTATUS NTAPI Commission(VOID)
{
    if (NT_SUCCESS(CommissionStatus)) {
        Commissioned++;
    }
    return CommissionStatus;
}

static NTSTATUS NTAPI Decommission(VOID)
{
    DbgPrint("loader: decommissioned with %d clients\n", Clients);
    Commissioned--;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Register(WDF_BIND_INFO *Info, WDF_COMPONENT_GLOBALS **Out, PVOID *Context)
{
    WDF_BIND_INFO2 *More = (WDF_BIND_INFO2 *)Info;
    BOOLEAN IsHigher = Info->Version.Minor > 15 || Info->FuncCount > LATER_FUNCTIONS;

    if (IsHigher && (Info->Size < sizeof(*More) || *More->MinimumVersionRequired > 15)) {
        return STATUS_INVALID_PARAMETER;
    }
    Seen = *(CLIENT_INFO *)*Context;
    if (Info->FuncCount < LATER_FUNCTIONS) {
        RtlCopyMemory(Info->FuncTable, OwnFunctions, Info->FuncCount * sizeof(PVOID));
    } else {
        *(PVOID **)Info->FuncTable = OwnFunctions;
    }
    if (IsHigher) {
        *More->ClientVersionHigherThanFramework = TRUE;
        *More->FuncCountPtr = LATER_FUNCTIONS;
    }
    Clients++;
    *Out = &Globals;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Unregister(WDF_BIND_INFO *Info, WDF_COMPONENT_GLOBALS *Of)
{
    UNREFERENCED_PARAMETER(Info);
    Clients--;
    return Of == &Globals ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}

static WDF_LIBRARY_INFO Library = {
    sizeof(Library), Commission, Decommission, Register, Unregister, {1, 15, 0},
};

static NTSTATUS NTAPI DispatchOpen(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Opened++;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* ---- the class extension ---- */

static LONG Initialized, Bound;

static NTSTATUS NTAPI Initialize(VOID)
{
    Initialized++;
    return STATUS_SUCCESS;
}

static VOID NTAPI Deinitialize(VOID)
{
    DbgPrint("loader: the class is gone\n");
    Initialized--;
}

static NTSTATUS NTAPI BindClass(WDF_CLASS_BIND_INFO *Info, WDF_COMPONENT_GLOBALS *Of)
{
    if (Of != &Globals || Info->FunctionTableCount != 1) {
        return STATUS_INVALID_PARAMETER;
    }
    Info->FunctionTable[0] = DispatchSucceed;
    Bound++;
    return STATUS_SUCCESS;
}

static VOID NTAPI UnbindClass(WDF_CLASS_BIND_INFO *Info, WDF_COMPONENT_GLOBALS *Of)
{
    UNREFERENCED_PARAMETER(Of);
    Info->FunctionTable[0] = NULL;
    Bound--;
}

static WDF_CLASS_LIBRARY_INFO ClassLibrary = {
    sizeof(ClassLibrary), {1, 2, 0}, Initialize, Deinitialize, BindClass, UnbindClass,
};

/* ---- a client ---- */

static PVOID Functions[4];
static WDF_BIND_INFO Client = {
    sizeof(Client), L"KmdfLibrary", {1, 15, 0}, RTL_NUMBER_OF(Functions), Functions, NULL,
};

static NTSTATUS Bind(WDF_BIND_INFO *Info)
{
    WDF_COMPONENT_GLOBALS *Out = NULL;

    return WdfVersionBind(Own, &Path, Info, &Out);
}

/* ---- stories ---- */

static ULONG ALibraryIsRegisteredOnce(VOID)
{
    WDF_LIBRARY_INFO Short = Library;
    UNICODE_STRING Nowhere = RTL_CONSTANT_STRING(L"\\Device\\DirqlNowhere"), Empty = {0, 0, NULL};

    Short.Size = sizeof(Library) - 8;
    CHECK(WdfRegisterLibrary(&Short, &Path, &DeviceName) == STATUS_INVALID_PARAMETER);
    CHECK(WdfRegisterLibrary(NULL, &Path, &DeviceName) == STATUS_INVALID_PARAMETER);
    CHECK(WdfRegisterLibrary(&Library, &Empty, &DeviceName) == STATUS_INVALID_PARAMETER);
    CHECK(WdfRegisterLibrary(&Library, &Path, &Nowhere) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(Opened == 1); /* the test's own handle */
    CommissionStatus = STATUS_INSUFFICIENT_RESOURCES;
    CHECK(WdfRegisterLibrary(&Library, &Path, &DeviceName) == STATUS_INSUFFICIENT_RESOURCES);
    CHECK(Opened == 2);
    CHECK(Own->DeviceObject->ReferenceCount == 1);
    CommissionStatus = STATUS_SUCCESS;
    CHECK(WdfRegisterLibrary(&Library, &Path, &DeviceName) == STATUS_SUCCESS);
    CHECK(Commissioned == 1);
    CHECK(Opened == 3);
    CHECK(Own->DeviceObject->ReferenceCount == 2);
    CHECK(WdfRegisterLibrary(&Library, &Path, &DeviceName) == STATUS_OBJECT_NAME_COLLISION);
    CHECK(Commissioned == 1);
    return 0;
}

static ULONG AClientIsBoundByItsComponentAndVersion(VOID)
{
    WDF_COMPONENT_GLOBALS *Out = NULL;
    WDF_BIND_INFO Wrong = Client;

    Wrong.Size = sizeof(Wrong) - 8;
    CHECK(Bind(&Wrong) == STATUS_INVALID_PARAMETER);
    Wrong = Client;
    Wrong.Component = L"DirqlLibrary";
    CHECK(Bind(&Wrong) == STATUS_OBJECT_NAME_NOT_FOUND);
    Wrong = Client;
    Wrong.Version.Major = 2;
    CHECK(Bind(&Wrong) == STATUS_OBJECT_NAME_NOT_FOUND);
    Wrong = Client;
    Wrong.Version.Minor = 17; /* the framework itself refuses these two */
    CHECK(Bind(&Wrong) == STATUS_INVALID_PARAMETER);
    Wrong = Client;
    Wrong.FuncCount = LATER_FUNCTIONS + 2;
    CHECK(Bind(&Wrong) == STATUS_INVALID_PARAMETER);
    Wrong = Client;
    Wrong.FuncTable = NULL;
    CHECK(Bind(&Wrong) == STATUS_INVALID_PARAMETER);
    CHECK(WdfVersionBind(NULL, &Path, &Client, &Out) == STATUS_INVALID_PARAMETER);
    CHECK(WdfVersionBind(Own, NULL, &Client, &Out) == STATUS_INVALID_PARAMETER);
    CHECK(WdfVersionBind(Own, &Path, &Client, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(Clients == 0);
    CHECK(WdfVersionBind(Own, &Path, &Client, &Out) == STATUS_SUCCESS);
    CHECK(Out == &Globals);
    CHECK(Client.Module != NULL);
    CHECK(Seen.Size == sizeof(Seen) && Seen.DriverObject == Own && Seen.RegistryPath == &Path);
    CHECK(Functions[0] != NULL && Functions[3] != NULL);
    CHECK(Bind(&Client) == STATUS_INVALID_PARAMETER); /* bound already */
    return 0;
}

/* The code that calls it lies in this routine. */
static ULONG CallsArrive(FUNCTION Called)
{
    CHECK(Called(&Globals, 1, 2, 3, 4, 5) == 54321);
    CHECK((ULONG_PTR)ReturnedTo - (ULONG_PTR)CallsArrive < 0x100);
    return 0;
}

static ULONG ACallOfAFunctionArrivesAsTheClientMadeIt(VOID)
{
    CHECK(Functions[2] != Function); /* a call is seen on its way */
    return CallsArrive((FUNCTION)Functions[2]);
}

static ULONG AFunctionIsForPassiveLevel(VOID)
{
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    ((FUNCTION)Functions[1])(&Globals, 0, 0, 0, 0, 0); /* WdfChildListGetDevice, for every level up to this one */
    ((FUNCTION)Functions[0])(&Globals, 0, 0, 0, 0, 0); /* WdfChildListCreate, for PASSIVE_LEVEL alone */
    KeLowerIrql(Old);
    CHECK(TRUE);
    return 0;
}

static ULONG ALaterClientHasTheAddressOfATable(VOID)
{
    PVOID *Table = NULL;
    WDF_BIND_INFO Later = {sizeof(Later), L"kmdflibrary", {1, 15, 0}, LATER_FUNCTIONS, (PVOID *)&Table, NULL};
    WDF_COMPONENT_GLOBALS *Out;

    CHECK(WdfVersionBind(Own, &Path, &Later, &Out) == STATUS_SUCCESS);
    CHECK(Table != NULL && Table != OwnFunctions);
    CHECK(OwnFunctions[7] == Function && Table[7] != Function);
    CHECK_ALL(CallsArrive((FUNCTION)Table[LATER_FUNCTIONS - 1]));
    CHECK(WdfVersionUnbind(&Path, &Later, Out) == STATUS_SUCCESS);
    CHECK(Table == OwnFunctions);
    return 0;
}

static ULONG64 Sum;

static VOID NTAPI OnControl(PVOID Queue, PVOID Request, SIZE_T Out, SIZE_T In, ULONG Code)
{
    if (Queue == Own && Request == &Globals) {
        Sum = Out + 10 * In + 100 * Code;
    }
}

static BOOLEAN NTAPI OnSynchronize(PVOID Interrupt, PVOID Context)
{
    return Interrupt == Own && *(ULONG *)Context == 7;
}

/* The structure is constant: the framework gets a copy. */
static const CALLBACKS QueueCallbacks = {sizeof(QueueCallbacks), {1, 2, 3}, NULL, NULL, NULL, OnControl};

static ULONG ACallbackIsCalledAsTheFrameworkCallsIt(VOID)
{
    typedef NTSTATUS(NTAPI *CREATE)(WDF_COMPONENT_GLOBALS *, PVOID, const CALLBACKS *, PVOID, PVOID *);
    typedef BOOLEAN(NTAPI *SYNC)(WDF_COMPONENT_GLOBALS *, PVOID, PVOID, PVOID);
    PVOID *Table = NULL, Queue = NULL;
    WDF_BIND_INFO Later = {sizeof(Later), L"KmdfLibrary", {1, 15, 0}, LATER_FUNCTIONS, (PVOID *)&Table, NULL};
    WDF_COMPONENT_GLOBALS *Out;
    ULONG Seven = 7, Eight = 8;

    CHECK(WdfVersionBind(Own, &Path, &Later, &Out) == STATUS_SUCCESS);
    for (ULONG Times = 0; Times < 3; Times++) {
        Sum = 0;
        CHECK(((CREATE)Table[152])(Out, Own, &QueueCallbacks, NULL, &Queue) == STATUS_SUCCESS);
        CHECK(Sum == 543 && Queue == Own && QueueCallbacks.DeviceControl == OnControl);
    }
    CHECK(((SYNC)Table[143])(Out, Own, OnSynchronize, &Seven));
    CHECK(!((SYNC)Table[143])(Out, Own, OnSynchronize, &Eight));
    CHECK(WdfVersionUnbind(&Path, &Later, Out) == STATUS_SUCCESS);
    return 0;
}

static ULONG AClientMayBeNewerThanItsFramework(VOID)
{
    PVOID *Table = NULL;
    ULONG Minimum = 17, Functions = 458, Structures = 0;
    BOOLEAN IsHigher = FALSE;
    WDF_BIND_INFO2 Newer = {
        {sizeof(Newer), L"KmdfLibrary", {1, 33, 0}, 458, (PVOID *)&Table, NULL},
        &Minimum, &IsHigher, &Functions, &Structures, NULL,
    };
    WDF_COMPONENT_GLOBALS *Out;

    CHECK(Bind(&Newer.Info) == STATUS_INVALID_PARAMETER);
    Minimum = 15;
    CHECK(WdfVersionBind(Own, &Path, &Newer.Info, &Out) == STATUS_SUCCESS);
    CHECK(IsHigher && Functions == LATER_FUNCTIONS);
    CHECK_ALL(CallsArrive((FUNCTION)Table[LATER_FUNCTIONS - 1]));
    CHECK(WdfVersionUnbind(&Path, &Newer.Info, Out) == STATUS_SUCCESS);
    return 0;
}

static ULONG AClassIsBoundToAClientOfItsFramework(VOID)
{
    PVOID Table[1] = {NULL};
    WDF_CLASS_BIND_INFO Info = {
        sizeof(Info), L"DirqlCx", {1, 1, 0}, Table, RTL_NUMBER_OF(Table), NULL, NULL, NULL, NULL,
    };
    WDF_CLASS_LIBRARY_INFO Short = ClassLibrary;

    CHECK(WdfVersionBindClass(&Client, &Globals, &Info) == STATUS_OBJECT_NAME_NOT_FOUND);
    Short.Size -= 8;
    CHECK(WdfRegisterClassLibrary(&Short, &Path, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(WdfRegisterClassLibrary(&ClassLibrary, &Path, NULL) == STATUS_SUCCESS);
    CHECK(WdfRegisterClassLibrary(&ClassLibrary, &Path, NULL) == STATUS_OBJECT_NAME_COLLISION);
    CHECK(Initialized == 1);
    CHECK(WdfVersionBindClass(&Client, &Globals, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(WdfVersionBindClass(&Client, NULL, &Info) == STATUS_INVALID_PARAMETER);
    Info.Version.Minor = 3;
    CHECK(WdfVersionBindClass(&Client, &Globals, &Info) == STATUS_REVISION_MISMATCH);
    Info.Version.Minor = 2;
    Info.FunctionTableCount = 2;
    CHECK(WdfVersionBindClass(&Client, &Globals, &Info) == STATUS_INVALID_PARAMETER);
    Info.FunctionTableCount = 1;
    Info.Size = 8;
    CHECK(WdfVersionBindClass(&Client, &Globals, &Info) == STATUS_INVALID_PARAMETER);
    Info.Size = 0x78; /* of build 25 and later */
    CHECK(Bound == 0);
    CHECK(WdfVersionBindClass(&Client, &Globals, &Info) == STATUS_SUCCESS);
    CHECK(Bound == 1 && Table[0] == DispatchSucceed && Info.ClassModule != NULL);
    WdfVersionUnbindClass(&Client, &Globals, &Info);
    CHECK(Bound == 0 && Table[0] == NULL && Info.ClassModule == NULL);
    WdfVersionUnbindClass(&Client, &Globals, &Info);
    CHECK(Bound == 0);
    return 0;
}

static ULONG AClientIsUnboundOnce(VOID)
{
    CHECK(WdfVersionUnbind(&Path, &Client, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(WdfVersionUnbind(&Path, &Client, &Globals) == STATUS_SUCCESS);
    CHECK(Clients == 0 && Client.Module == NULL);
    CHECK(WdfVersionUnbind(&Path, &Client, &Globals) == STATUS_INVALID_PARAMETER);
    CHECK(Clients == 0);
    return 0;
}

/* Entries for callbacks have 32 bytes each: this one is of no callback. */
static VOID CallsAnEntryThatIsOfNoCallback(VOID)
{
    ACallbackIsCalledAsTheFrameworkCallsIt();
    ((FUNCTION)(Given + 32 * 100))(&Globals, 0, 0, 0, 0, 0);
}

static ULONG TheLoaderIsAnExportLibraryThatIsAlwaysThere(VOID)
{
    CHECK(DllInitialize(&Path) == STATUS_SUCCESS);
    CHECK(DllUnload() == STATUS_SUCCESS);
    return 0;
}

static VOID ViolatesItsFramework(VOID)
{
    ((FUNCTION)Functions[3])(&Globals, 0, 0, 0, 0, 0);
}

static VOID CallsAFunctionAfterItsUnbind(VOID)
{
    CallsArrive((FUNCTION)Functions[2]);
}

typedef struct _LOADER {
    WDF_LOADER_INTERFACE Known;
    ULONG_PTR Behind;
} LOADER;

static ULONG TheLoaderHasOneInterface(VOID)
{
    static const GUID Standard = {0x49215dff, 0xf5ac, 0x4901, {0x85, 0x88, 0xab, 0x3d, 0x54, 0x0f, 0x60, 0x21}};
    static const GUID Other = {0x49215dff, 0xf5ac, 0x4901, {0x85, 0x88, 0xab, 0x3d, 0x54, 0x0f, 0x60, 0x22}};
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"DbgPrintOn"), Text = RTL_CONSTANT_STRING(L"Text");
    UNICODE_STRING Nothing = RTL_CONSTANT_STRING(L"Nothing");
    LOADER All = {{{&Standard, FIELD_OFFSET(LOADER, Behind)}, NULL, NULL, NULL, NULL}, 7};
    WDF_LOADER_INTERFACE *Known = &All.Known;
    ULONG Value = 0;

    Known->Header.InterfaceSize--;
    CHECK(WdfLdrQueryInterface(&Known->Header) == STATUS_INVALID_PARAMETER);
    Known->Header.InterfaceSize++;
    Known->Header.InterfaceType = &Other;
    CHECK(WdfLdrQueryInterface(&Known->Header) == STATUS_NOINTERFACE);
    CHECK(Known->VersionBind == NULL);
    Known->Header.InterfaceType = &Standard;
    CHECK(WdfLdrQueryInterface(&Known->Header) == STATUS_SUCCESS);
    CHECK(Known->RegisterLibrary == WdfRegisterLibrary && Known->VersionBind == WdfVersionBind);
    CHECK(Known->VersionUnbind == WdfVersionUnbind && All.Behind == 7);
    CHECK(Known->DiagnosticsValueByNameAsULONG(&Name, &Value) == STATUS_SUCCESS && Value == 3);
    CHECK(WdfLdrDiagnosticsValueByNameAsULONG(&Nothing, &Value) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(WdfLdrDiagnosticsValueByNameAsULONG(&Text, &Value) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(WdfLdrDiagnosticsValueByNameAsULONG(NULL, &Value) == STATUS_INVALID_PARAMETER);
    CHECK(Value == 3);
    return 0;
}

static const STORY Stories[] = {
    STORY(ALibraryIsRegisteredOnce),
    STORY(AClientIsBoundByItsComponentAndVersion),
    STORY(ACallOfAFunctionArrivesAsTheClientMadeIt),
    STORY(AFunctionIsForPassiveLevel),
    STORY(ALaterClientHasTheAddressOfATable),
    STORY(ACallbackIsCalledAsTheFrameworkCallsIt),
    STORY(AClientMayBeNewerThanItsFramework),
    STORY(AClassIsBoundToAClientOfItsFramework),
    STORY(AClientIsUnboundOnce),
    BUG(ViolatesItsFramework),
    BUG(CallsAnEntryThatIsOfNoCallback),
    BUG(CallsAFunctionAfterItsUnbind),
    STORY(TheLoaderHasOneInterface),
    STORY(TheLoaderIsAnExportLibraryThatIsAlwaysThere),
};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    Own = Driver;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOpen;
    return Status;
}
