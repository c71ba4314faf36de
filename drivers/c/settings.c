/*
 * settings.sys: a driver without hardware whose registry says what it does. \\.\DirqlSettings exists if Parameters has no Disabled (REG_DWORD) but 0.
 *
 * Parameters of its service, all optional: Greeting (REG_SZ) is printed, each text of Ports (REG_MULTI_SZ), Span (REG_QWORD), and Once (any type), which is
 * deleted. When the driver is unloaded it counts its runs in Starts (REG_DWORD), leaves the Greeting backwards in Last (REG_SZ without its zero), and a key
 * that does not outlive the system, Session.
 *
 * Pages: RtlQueryRegistryValues function, ZwQueryValueKey function, ZwSetValueKey function, ZwCreateKey function.
 */
#include <ddk/wdm.h>

#define INIT_CODE __attribute__((section("INIT")))
#define ROOM 256 /* bytes of a value */
#define NAME_CAPACITY 200

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlSettings");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlSettings");
static UNICODE_STRING StartsName = RTL_CONSTANT_STRING(L"Starts");
static UNICODE_STRING LastName = RTL_CONSTANT_STRING(L"Last");

/* The path of Parameters. */
static WCHAR Path[NAME_CAPACITY];

typedef union _VALUE {
    KEY_VALUE_PARTIAL_INFORMATION Information;
    UCHAR Bytes[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + ROOM];
} VALUE;

static HANDLE OpenKey(PCWSTR Name, HANDLE Root, ULONG Options)
{
    OBJECT_ATTRIBUTES Attributes;
    UNICODE_STRING Text;
    HANDLE Key = NULL;

    RtlInitUnicodeString(&Text, Name);
    InitializeObjectAttributes(&Attributes, &Text, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, Root, NULL);
    return NT_SUCCESS(ZwCreateKey(&Key, KEY_ALL_ACCESS, &Attributes, 0, NULL, Options, NULL)) ? Key : NULL;
}

/* The value's type; REG_NONE, and no bytes, if it is not there. */
static ULONG Query(HANDLE Key, PCWSTR Name, VALUE *Value)
{
    UNICODE_STRING Text;
    ULONG Length;

    RtlZeroMemory(Value, sizeof(*Value));
    RtlInitUnicodeString(&Text, Name);
    if (!NT_SUCCESS(ZwQueryValueKey(Key, &Text, KeyValuePartialInformation, Value, sizeof(*Value), &Length))) {
        RtlZeroMemory(Value, sizeof(*Value));
    }
    return Value->Information.Type;
}

static ULONG Number(HANDLE Key, PCWSTR Name)
{
    VALUE Value;
    return Query(Key, Name, &Value) == REG_DWORD ? *(ULONG UNALIGNED *)Value.Information.Data : 0;
}

INIT_CODE static NTSTATUS NTAPI TellPort(PWSTR Name, ULONG Type, PVOID Data, ULONG Length, PVOID Context, PVOID EntryContext)
{
    UNREFERENCED_PARAMETER(Name);
    UNREFERENCED_PARAMETER(Length);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(EntryContext);
    if (Type == REG_SZ) {
        DbgPrint("settings: port %ws\n", (PWSTR)Data);
    }
    return STATUS_SUCCESS;
}

INIT_CODE static VOID TellPorts(VOID)
{
    RTL_QUERY_REGISTRY_TABLE Table[2] = {{0}};

    Table[0].QueryRoutine = TellPort;
    Table[0].Name = (PWSTR)L"Ports";
    RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, Path, Table, NULL, NULL);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    HANDLE Key = OpenKey(Path, NULL, REG_OPTION_NON_VOLATILE), Session;
    ULONG Starts, Index, Length;
    WCHAR Last[ROOM / sizeof(WCHAR)];
    VALUE Value;

    if (Driver->DeviceObject != NULL) {
        IoDeleteSymbolicLink(&LinkName);
        IoDeleteDevice(Driver->DeviceObject);
    }
    if (Key == NULL) {
        return;
    }
    Starts = Number(Key, L"Starts") + 1;
    ZwSetValueKey(Key, &StartsName, 0, REG_DWORD, &Starts, sizeof(Starts));
    if (Query(Key, L"Greeting", &Value) == REG_SZ && Value.Information.DataLength >= sizeof(WCHAR)) {
        Length = Value.Information.DataLength / sizeof(WCHAR) - 1;
        for (Index = 0; Index < Length; Index++) {
            Last[Index] = ((WCHAR UNALIGNED *)Value.Information.Data)[Length - 1 - Index];
        }
        ZwSetValueKey(Key, &LastName, 0, REG_SZ, Last, Length * sizeof(WCHAR));
    }
    Session = OpenKey(L"Session", Key, REG_OPTION_VOLATILE);
    if (Session != NULL) {
        ZwSetValueKey(Session, &StartsName, 0, REG_DWORD, &Starts, sizeof(Starts));
        ZwClose(Session);
    }
    ZwClose(Key);
}

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

INIT_CODE static NTSTATUS MakeDevice(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
    }
    return Status;
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static const WCHAR Parameters[] = L"\\Parameters";
    UNICODE_STRING Once = RTL_CONSTANT_STRING(L"Once");
    NTSTATUS Status = STATUS_SUCCESS;
    VALUE Value;
    HANDLE Key;

    if (RegistryPath->Length + sizeof(Parameters) > sizeof(Path)) {
        return STATUS_NAME_TOO_LONG;
    }
    RtlCopyMemory(Path, RegistryPath->Buffer, RegistryPath->Length);
    RtlCopyMemory((PUCHAR)Path + RegistryPath->Length, Parameters, sizeof(Parameters));
    Key = OpenKey(Path, NULL, REG_OPTION_NON_VOLATILE);
    if (Key == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    DbgPrint("settings: run %u\n", Number(Key, L"Starts") + 1);
    if (Query(Key, L"Greeting", &Value) == REG_SZ) {
        DbgPrint("settings: %ws\n", (PWSTR)Value.Information.Data);
    }
    if (Query(Key, L"Span", &Value) == REG_QWORD) {
        DbgPrint("settings: span %I64x\n", *(ULONGLONG UNALIGNED *)Value.Information.Data);
    }
    if (Query(Key, L"Once", &Value) != REG_NONE) {
        DbgPrint("settings: once, of type %u\n", Value.Information.Type);
        ZwDeleteValueKey(Key, &Once);
    }
    TellPorts();
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = Dispatch;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Dispatch;
    if (Number(Key, L"Disabled") == 0) {
        Status = MakeDevice(Driver);
    }
    ZwClose(Key);
    return Status;
}
