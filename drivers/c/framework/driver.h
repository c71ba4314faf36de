/*
 * The driver's object, AddDevice and unloading, and devices from what is said of them before (WDFDEVICE_INIT) to their end.
 *
 * Pages: WdfDriverCreate, EvtDriverDeviceAdd, EvtDriverUnload, Creating KMDF Miniport Drivers, WdfDriverMiniportUnload, WdfDeviceCreate,
 * WdfDeviceInitAssignName, WdfDeviceCreateDeviceInterface, WdfDeviceCreateSymbolicLink, WdfControlDeviceInitAllocate, Creating Device Objects in a
 * Function Driver, Using Control Device Objects. Security descriptors (SDDL) are not applied; a device without a name has no symbolic link.
 */
#ifndef FRAMEWORK_DRIVER_H
#define FRAMEWORK_DRIVER_H

static CHAR DriverKey; /* its address names the driver object's extension */

static DRIVER *DriverOf(PDRIVER_OBJECT Wdm)
{
    return *(DRIVER **)IoGetDriverObjectExtension(Wdm, &DriverKey);
}

static PWSTR CopyString(PCUNICODE_STRING From)
{
    PWSTR Copy = ExAllocatePoolWithTag(NonPagedPool, From->Length + sizeof(WCHAR), FRAMEWORK_TAG);

    if (Copy != NULL) {
        RtlCopyMemory(Copy, From->Buffer, From->Length);
        Copy[From->Length / sizeof(WCHAR)] = L'\0';
    }
    return Copy;
}

static VOID FreeString(PUNICODE_STRING String)
{
    if (String->Buffer != NULL) {
        ExFreePoolWithTag(String->Buffer, FRAMEWORK_TAG);
        RtlInitUnicodeString(String, NULL);
    }
}

static NTSTATUS Assign(PUNICODE_STRING To, PCUNICODE_STRING From)
{
    FreeString(To);
    To->Buffer = CopyString(From);
    if (To->Buffer == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    To->Length = From->Length;
    To->MaximumLength = From->Length + sizeof(WCHAR);
    return STATUS_SUCCESS;
}

static VOID FreeInit(PWDFDEVICE_INIT Init)
{
    FreeString(&Init->Name);
    ExFreePoolWithTag(Init, FRAMEWORK_TAG);
}

static PWDFDEVICE_INIT NewInit(CLIENT *Client, PDEVICE_OBJECT Pdo)
{
    PWDFDEVICE_INIT Init = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Init), FRAMEWORK_TAG);

    if (Init != NULL) {
        RtlZeroMemory(Init, sizeof(*Init));
        Init->Client = Client;
        Init->Pdo = Pdo;
        Init->Type = FILE_DEVICE_UNKNOWN;
        Init->IoType = WdfDeviceIoBuffered;
        Init->Settings.OwnsPowerPolicy = Pdo != NULL;
    }
    return Init;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Wdm, PDEVICE_OBJECT Pdo)
{
    DRIVER *Driver = DriverOf(Wdm);
    PWDFDEVICE_INIT Init = NewInit(Driver->Object.Client, Pdo);
    DEVICE *Created = NULL;
    NTSTATUS Status;

    if (Init == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Driver->Adding = &Created;
    Status = Driver->Config.EvtDriverDeviceAdd(HandleOf(&Driver->Object), Init);
    Driver->Adding = NULL;
    if (Created == NULL) {
        FreeInit(Init);
        return NT_SUCCESS(Status) ? STATUS_SUCCESS : Status; /* a driver may decline by creating none */
    }
    if (NT_SUCCESS(Status)) {
        Created->Wdm->Flags &= ~DO_DEVICE_INITIALIZING;
    } else {
        Delete(&Created->Object);
    }
    return Status;
}

static VOID EndDriver(DRIVER *Driver)
{
    CLIENT *Client = Driver->Object.Client;

    if (Driver->Config.EvtDriverUnload != NULL && !Driver->Unloaded) {
        Driver->Unloaded = TRUE;
        Driver->Config.EvtDriverUnload(HandleOf(&Driver->Object));
    }
    Client->Driver = NULL;
    Client->Globals.Driver = NULL;
    Delete(&Driver->Object);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Wdm)
{
    EndDriver(DriverOf(Wdm));
}

static VOID DisposeDriver(OBJECT *Object)
{
    ExFreePoolWithTag(((DRIVER *)Object)->RegistryPath, FRAMEWORK_TAG);
}

/* The routines of the driver object, which a miniport's port driver has. */
static VOID TakeOver(PDRIVER_OBJECT Wdm, WDF_DRIVER_CONFIG *Config)
{
    ULONG Major;

    for (Major = 0; Major <= IRP_MJ_MAXIMUM_FUNCTION; Major++) {
        Wdm->MajorFunction[Major] = DispatchOther;
    }
    Wdm->MajorFunction[IRP_MJ_CREATE] = DispatchFile;
    Wdm->MajorFunction[IRP_MJ_CLEANUP] = DispatchFile;
    Wdm->MajorFunction[IRP_MJ_CLOSE] = DispatchFile;
    Wdm->MajorFunction[IRP_MJ_READ] = DispatchIo;
    Wdm->MajorFunction[IRP_MJ_WRITE] = DispatchIo;
    Wdm->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchIo;
    Wdm->MajorFunction[IRP_MJ_INTERNAL_DEVICE_CONTROL] = DispatchIo;
    Wdm->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Wdm->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Wdm->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    if (Config->EvtDriverDeviceAdd != NULL) {
        Wdm->DriverExtension->AddDevice = AddDevice;
    }
    if (Config->EvtDriverUnload != NULL || !(Config->DriverInitFlags & WdfDriverInitNonPnpDriver)) {
        Wdm->DriverUnload = Unload;
    }
}

static NTSTATUS DriverCreate(PWDF_DRIVER_GLOBALS Globals, PDRIVER_OBJECT Wdm, PCUNICODE_STRING RegistryPath,
                             PWDF_OBJECT_ATTRIBUTES Attributes, WDF_DRIVER_CONFIG *Config, WDFDRIVER *Created)
{
    CLIENT *Client = ClientOf(Globals);
    BOOLEAN NonPnp = (Config->DriverInitFlags & WdfDriverInitNonPnpDriver) != 0;
    BOOLEAN Miniport = (Config->DriverInitFlags & WdfDriverInitNoDispatchOverride) != 0;
    DRIVER **Extension;
    DRIVER *Driver;
    NTSTATUS Status;

    if (Config->Size != sizeof(*Config)) {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    if (Client->Driver != NULL) {
        return STATUS_DRIVER_INTERNAL_ERROR;
    }
    if (Miniport ? NonPnp : NonPnp == (Config->EvtDriverDeviceAdd != NULL)) {
        return STATUS_INVALID_PARAMETER;
    }
    Status = IoAllocateDriverObjectExtension(Wdm, &DriverKey, sizeof(*Extension), (PVOID *)&Extension);
    if (NT_SUCCESS(Status)) {
        Status = CreateObject(Client, DriverKind, sizeof(*Driver), Attributes, NULL, (PVOID *)&Driver);
    }
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Driver->Wdm = Wdm;
    Driver->Config = *Config;
    Driver->RegistryPath = CopyString(RegistryPath);
    if (Driver->RegistryPath == NULL) {
        Driver->Object.Deleted = TRUE;
        Release(&Driver->Object);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    *Extension = Driver;
    Status = Adopt(&Driver->Object, Attributes, DisposeDriver);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    if (!Miniport) {
        TakeOver(Wdm, Config);
    }
    Client->Driver = Driver;
    Note(Client, DRIVER_IS_CREATED, Config->DriverInitFlags);
    Client->Globals.Driver = HandleOf(&Driver->Object);
    Client->Globals.DriverFlags = Config->DriverInitFlags;
    Client->Globals.DriverTag = Config->DriverPoolTag != 0 ? Config->DriverPoolTag : Client->Globals.DriverTag;
    Client->Globals.DisplaceDriverUnload = TRUE; /* a miniport's too: so does Microsoft's of 1.7 */
    if (Created != NULL) {
        *Created = Client->Globals.Driver;
    }
    return STATUS_SUCCESS;
}

static PWSTR DriverGetRegistryPath(PWDF_DRIVER_GLOBALS Globals, WDFDRIVER Handle)
{
    DRIVER *Driver = ObjectOf(Handle, DriverKind);

    UNREFERENCED_PARAMETER(Globals);
    return Driver->RegistryPath;
}

static PDRIVER_OBJECT DriverWdmGetDriverObject(PWDF_DRIVER_GLOBALS Globals, WDFDRIVER Handle)
{
    DRIVER *Driver = ObjectOf(Handle, DriverKind);

    UNREFERENCED_PARAMETER(Globals);
    return Driver->Wdm;
}

/* In place of Unload, as the page says; Microsoft's framework of 1.7 does not call EvtDriverUnload. */
static VOID DriverMiniportUnload(PWDF_DRIVER_GLOBALS Globals, WDFDRIVER Handle)
{
    UNREFERENCED_PARAMETER(Globals);
    EndDriver(ObjectOf(Handle, DriverKind));
}

static VOID DeviceInitFree(PWDF_DRIVER_GLOBALS Globals, PWDFDEVICE_INIT Init)
{
    UNREFERENCED_PARAMETER(Globals);
    if (Init == NULL) {
        Violation(NULL_PARAMETER, 0, (ULONG_PTR)__builtin_return_address(0));
    }
    FreeInit(Init);
}

static VOID DeviceInitSetPnpPowerEventCallbacks(PWDF_DRIVER_GLOBALS Globals, PWDFDEVICE_INIT Init, WDF_PNPPOWER_EVENT_CALLBACKS *Given)
{
    ULONG Expected = PNPPOWER_EVENT_CALLBACKS_SIZE(ClientOf(Globals)->Minor);

    if (!Take(&Init->Settings.Power, sizeof(Init->Settings.Power), Given, Expected)) {
        Missing("a WDF_PNPPOWER_EVENT_CALLBACKS of another size than the client's version has");
    }
    if (Given->EvtDeviceUsageNotification != NULL || Given->EvtDeviceRelationsQuery != NULL) {
        Missing("EvtDeviceUsageNotification, EvtDeviceRelationsQuery");
    }
    if (Init->Settings.Power.EvtDeviceUsageNotificationEx != NULL) { /* older clients do not have it */
        Missing("EvtDeviceUsageNotificationEx");
    }
}

static VOID DeviceInitSetPowerPolicyOwnership(PWDF_DRIVER_GLOBALS Globals, PWDFDEVICE_INIT Init, BOOLEAN IsPowerPolicyOwner)
{
    UNREFERENCED_PARAMETER(Globals);
    Init->Settings.OwnsPowerPolicy = IsPowerPolicyOwner;
}

static VOID DeviceInitSetIoType(PWDF_DRIVER_GLOBALS Globals, PWDFDEVICE_INIT Init, WDF_DEVICE_IO_TYPE IoType)
{
    UNREFERENCED_PARAMETER(Globals);
    Init->IoType = IoType;
}

static VOID DeviceInitSetExclusive(PWDF_DRIVER_GLOBALS Globals, PWDFDEVICE_INIT Init, BOOLEAN Exclusive)
{
    UNREFERENCED_PARAMETER(Globals);
    Init->Exclusive = Exclusive;
}

static VOID DeviceInitSetDeviceType(PWDF_DRIVER_GLOBALS Globals, PWDFDEVICE_INIT Init, DEVICE_TYPE Type)
{
    UNREFERENCED_PARAMETER(Globals);
    Init->Type = Type;
}

static NTSTATUS DeviceInitAssignName(PWDF_DRIVER_GLOBALS Globals, PWDFDEVICE_INIT Init, PCUNICODE_STRING Name)
{
    UNREFERENCED_PARAMETER(Globals);
    if (Name == NULL) {
        FreeString(&Init->Name);
        return STATUS_SUCCESS;
    }
    return Assign(&Init->Name, Name);
}

static VOID DeviceInitSetFileObjectConfig(PWDF_DRIVER_GLOBALS Globals, PWDFDEVICE_INIT Init, WDF_FILEOBJECT_CONFIG *Config,
                                          PWDF_OBJECT_ATTRIBUTES Attributes)
{
    UNREFERENCED_PARAMETER(Globals);
    if (Config->Size != sizeof(*Config)) {
        Missing("a WDF_FILEOBJECT_CONFIG of another size");
    }
    Init->Settings.Files = *Config;
    if (Attributes != NULL) {
        Init->Settings.FileAttributes = *Attributes;
    }
}

static VOID DeviceInitSetRequestAttributes(PWDF_DRIVER_GLOBALS Globals, PWDFDEVICE_INIT Init, PWDF_OBJECT_ATTRIBUTES Attributes)
{
    UNREFERENCED_PARAMETER(Globals);
    Init->Settings.RequestAttributes = *Attributes;
}

static PWDFDEVICE_INIT ControlDeviceInitAllocate(PWDF_DRIVER_GLOBALS Globals, WDFDRIVER Handle, PCUNICODE_STRING Sddl)
{
    ObjectOf(Handle, DriverKind);
    if (Sddl == NULL) {
        Violation(NULL_PARAMETER, 0, (ULONG_PTR)__builtin_return_address(0));
    }
    return NewInit(ClientOf(Globals), NULL);
}

static VOID ControlFinishInitializing(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle)
{
    DEVICE *Device = ObjectOf(Handle, DeviceKind);

    UNREFERENCED_PARAMETER(Globals);
    Device->Wdm->Flags &= ~DO_DEVICE_INITIALIZING;
}

/* What is left of a device: a control device ends here too. Its children are gone. */
static VOID DisposeDevice(OBJECT *Object)
{
    DEVICE *Device = (DEVICE *)Object;

    if (Device->Lower == NULL) {
        WaitUntilEmpty(Device);
    }
    while (!IsListEmpty(&Device->Interfaces)) {
        DEVICE_INTERFACE *Interface = CONTAINING_RECORD(RemoveHeadList(&Device->Interfaces), DEVICE_INTERFACE, Entry);

        RtlFreeUnicodeString(&Interface->Link);
        ExFreePoolWithTag(Interface, FRAMEWORK_TAG);
    }
    if (Device->Link.Buffer != NULL) {
        IoDeleteSymbolicLink(&Device->Link);
    }
    FreeString(&Device->Link);
    FreeString(&Device->Name);
    if (Device->PowerWork != NULL) {
        IoFreeWorkItem(Device->PowerWork);
    }
    if (Device->Lower != NULL) {
        IoDetachDevice(Device->Lower);
    }
    IoDeleteDevice(Device->Wdm);
}

static NTSTATUS Attach(DEVICE *Device, PDEVICE_OBJECT Pdo)
{
    Device->PowerWork = IoAllocateWorkItem(Device->Wdm);
    if (Device->PowerWork == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Device->Pdo = Pdo;
    InitializeObject(&Device->Target, Device->Object.Client, TargetKind, &Device->Object);
    Device->Lower = IoAttachDeviceToDeviceStack(Device->Wdm, Pdo);
    if (Device->Lower == NULL) {
        return STATUS_NO_SUCH_DEVICE;
    }
    Device->Wdm->Flags |= Device->Lower->Flags & (DO_POWER_PAGABLE | DO_POWER_INRUSH);
    return STATUS_SUCCESS;
}

static VOID InitializeDevice(DEVICE *Device, PWDFDEVICE_INIT Init)
{
    Device->Driver = Init->Client->Driver;
    Device->KeepsRequests = Init->Pdo != NULL && !MmIsDriverVerifying(Init->Client->Wdm);
    Device->Settings = Init->Settings;
    Device->Name = Init->Name;
    RtlInitUnicodeString(&Init->Name, NULL);
    Device->Inside = 1;
    InitializeListHead(&Device->Queues);
    InitializeListHead(&Device->Interrupts);
    InitializeListHead(&Device->Interfaces);
    KeInitializeEvent(&Device->State, SynchronizationEvent, TRUE);
    KeInitializeEvent(&Device->Empty, NotificationEvent, FALSE);
    *(DEVICE **)Device->Wdm->DeviceExtension = Device;
    Device->Wdm->Flags |= Init->IoType == WdfDeviceIoDirect ? DO_DIRECT_IO : Init->IoType == WdfDeviceIoBuffered ? DO_BUFFERED_IO : 0;
}

static NTSTATUS DeviceCreate(PWDF_DRIVER_GLOBALS Globals, PWDFDEVICE_INIT *Given, PWDF_OBJECT_ATTRIBUTES Attributes, WDFDEVICE *Created)
{
    CLIENT *Client = ClientOf(Globals);
    PWDFDEVICE_INIT Init = *Given;
    UNICODE_STRING Name;
    PDEVICE_OBJECT Wdm;
    DEVICE *Device;
    NTSTATUS Status = CreateObject(Client, DeviceKind, sizeof(*Device), Attributes, Client->Driver, (PVOID *)&Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateDevice(Client->Wdm, sizeof(DEVICE *), Init->Name.Buffer == NULL ? NULL : &Init->Name, Init->Type,
                            FILE_DEVICE_SECURE_OPEN, Init->Exclusive, &Wdm);
    if (!NT_SUCCESS(Status)) {
        Device->Object.Deleted = TRUE;
        Release(&Device->Object);
        return Status;
    }
    Device->Wdm = Wdm;
    InitializeDevice(Device, Init);
    Name = Device->Name;
    Status = Adopt(&Device->Object, Attributes, DisposeDevice);
    if (!NT_SUCCESS(Status)) {
        Init->Name = Name;
        IoDeleteDevice(Wdm);
        return Status;
    }
    if (Init->Pdo != NULL) {
        Status = Attach(Device, Init->Pdo);
        if (!NT_SUCCESS(Status)) {
            Delete(&Device->Object);
            return Status;
        }
        *Client->Driver->Adding = Device;
    }
    Note(Client, DEVICE_IS_CREATED, Init->Type);
    FreeInit(Init);
    *Given = NULL;
    *Created = HandleOf(&Device->Object);
    return STATUS_SUCCESS;
}

static PDEVICE_OBJECT DeviceWdmGetDeviceObject(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle)
{
    DEVICE *Device = ObjectOf(Handle, DeviceKind);

    UNREFERENCED_PARAMETER(Globals);
    return Device->Wdm;
}

static PDEVICE_OBJECT DeviceWdmGetAttachedDevice(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle)
{
    DEVICE *Device = ObjectOf(Handle, DeviceKind);

    UNREFERENCED_PARAMETER(Globals);
    return Device->Lower;
}

static PDEVICE_OBJECT DeviceWdmGetPhysicalDevice(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle)
{
    DEVICE *Device = ObjectOf(Handle, DeviceKind);

    UNREFERENCED_PARAMETER(Globals);
    return Device->Pdo;
}

static WDFDEVICE WdmDeviceGetWdfDeviceHandle(PWDF_DRIVER_GLOBALS Globals, PDEVICE_OBJECT Wdm)
{
    UNREFERENCED_PARAMETER(Globals);
    return HandleOf(&DeviceOf(Wdm)->Object);
}

static NTSTATUS DeviceCreateDeviceInterface(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle, const GUID *Class, PCUNICODE_STRING Reference)
{
    DEVICE *Device = ObjectOf(Handle, DeviceKind);
    DEVICE_INTERFACE *Interface;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Globals);
    if (Device->Pdo == NULL) {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    Interface = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Interface), FRAMEWORK_TAG);
    if (Interface == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Status = IoRegisterDeviceInterface(Device->Pdo, Class, (PUNICODE_STRING)Reference, &Interface->Link);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Interface, FRAMEWORK_TAG);
        return Status;
    }
    InsertTailList(&Device->Interfaces, &Interface->Entry);
    if (Device->Started) {
        IoSetDeviceInterfaceState(&Interface->Link, TRUE);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS DeviceCreateSymbolicLink(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle, PCUNICODE_STRING Link)
{
    DEVICE *Device = ObjectOf(Handle, DeviceKind);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Globals);
    if (Device->Name.Buffer == NULL || Device->Link.Buffer != NULL) {
        return STATUS_INVALID_DEVICE_STATE;
    }
    Status = IoCreateSymbolicLink((PUNICODE_STRING)Link, &Device->Name);
    if (NT_SUCCESS(Status)) {
        Status = Assign(&Device->Link, Link);
        if (!NT_SUCCESS(Status)) {
            IoDeleteSymbolicLink((PUNICODE_STRING)Link);
        }
    }
    return Status;
}

static WDFQUEUE DeviceGetDefaultQueue(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle)
{
    DEVICE *Device = ObjectOf(Handle, DeviceKind);

    UNREFERENCED_PARAMETER(Globals);
    return Device->Default == NULL ? NULL : QueueHandle(Device->Default);
}

static WDFIOTARGET DeviceGetIoTarget(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle)
{
    DEVICE *Device = ObjectOf(Handle, DeviceKind);

    UNREFERENCED_PARAMETER(Globals);
    return Device->Lower == NULL ? NULL : HandleOf(&Device->Target);
}

static WDFDRIVER DeviceGetDriver(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle)
{
    DEVICE *Device = ObjectOf(Handle, DeviceKind);

    UNREFERENCED_PARAMETER(Globals);
    return HandleOf(&Device->Driver->Object);
}

#endif
