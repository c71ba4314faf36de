/*
 * watcher.sys: a driver that watches another's device by Plug and Play notification: that of correct_pnp.sys. Its device is \\.\DirqlWatcher. Control codes
 * CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), each with one byte of input:
 *   0 watches the interfaces of that class; 1: those that are there, too; 2: with a second registration beside
 *   1 opens the device and watches it; the byte is one of the MANNER_ numbers
 *   2 takes all registrations back; 1: those of interfaces only; 2: in another thread, while a callback may run
 *   3 reports an event of its own about the device: 0 and waits until all callbacks have run; 1 and is called then; 2 at DISPATCH_LEVEL; 3 one of the system's; 4 too short
 *   4 registers for what makes no sense
 *   5 takes a registration back twice
 *   6 properties of the device; 7 another interface of its own
 *   8 opens its own device and watches that: it says that the other's stands behind it; the byte is a MANNER_
 * It prints its notifications. Built with -DEARLY (watcher_early.sys) it watches interfaces, with two registrations, from its DriverEntry on.
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include <ddk/wdmguid.h>
#include "control.h"
#include "waits.h"

#define FIRST_FUNCTION 0x800
#define TAG 0x68637457u /* "Wtch" in pool listings */

/* What it does when the device is to be removed. */
#define MANNER_CLOSES 0
#define MANNER_REFUSES 1
#define MANNER_KEEPS 2   /* agrees, and leaves its file open */
#define MANNER_LEAVES 3  /* closes its file, and takes its registration back in the callback */
#define MANNER_FORGETS 4 /* keeps its registration for ever */

DRIVER_INITIALIZE DriverEntry;

/* mingw's wdm.h has them elsewhere. */
NTKERNELAPI PDEVICE_OBJECT NTAPI IoGetDeviceAttachmentBaseRef(PDEVICE_OBJECT DeviceObject);
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

/* Of correct_pnp.sys. */
NTKERNELAPI NTSTATUS NTAPI IoSetDeviceInterfacePropertyData(PUNICODE_STRING Link, const DEVPROPKEY *Key, LCID Locale, ULONG Flags,
                                                            DEVPROPTYPE Type, ULONG Size, PVOID Data);
NTKERNELAPI NTSTATUS NTAPI IoGetDeviceInterfacePropertyData(PUNICODE_STRING Link, const DEVPROPKEY *Key, LCID Locale, ULONG Flags,
                                                            ULONG Size, PVOID Data, PULONG Needed, DEVPROPTYPE *Type);
NTKERNELAPI NTSTATUS NTAPI IoGetDeviceNumaNode(PDEVICE_OBJECT Pdo, PUSHORT Node);

static const GUID InterfaceClass = {0xD5A1E2B4, 0x6C37, 0x4F09, {0x8E, 0x5D, 0x21, 0xC0, 0x7B, 0x94, 0xA3, 0xF6}};
/* An event of a driver's own. */
static const GUID OwnEvent = {0xD1B0C0DE, 0x0001, 0x4000, {0x80, 0, 0, 0, 0, 0, 0, 1}};

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlWatcher");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlWatcher");
static UNICODE_STRING OtherName = RTL_CONSTANT_STRING(L"\\DosDevices\\CorrectPnp");
static PDRIVER_OBJECT TheDriver;
static PVOID Interfaces[2]; /* registrations */
static PVOID Target;
static PFILE_OBJECT File; /* on the device; NULL while it is closed */
static PDEVICE_OBJECT Pdo; /* referenced while it is known */
static UCHAR Manner;
static PVOID LastTarget;

static NTSTATUS NTAPI OnTarget(PVOID Notification, PVOID Context);

static NTSTATUS NTAPI OnInterface(PVOID Notification, PVOID Context)
{
    PDEVICE_INTERFACE_CHANGE_NOTIFICATION Own = Notification;

    if (Own->Version != 1 || Own->Size != sizeof(*Own) || !IsEqualGUID(&Own->InterfaceClassGuid, &InterfaceClass)) {
        DbgPrint("watcher: what is that?\n");
        return STATUS_SUCCESS;
    }
    DbgPrint("watcher: %c %s %wZ at IRQL %u\n", *(PCHAR)Context,
             IsEqualGUID(&Own->Event, &GUID_DEVICE_INTERFACE_ARRIVAL)   ? "arrival"
             : IsEqualGUID(&Own->Event, &GUID_DEVICE_INTERFACE_REMOVAL) ? "removal"
                                                                        : "something",
             Own->SymbolicLinkName, KeGetCurrentIrql());
    return STATUS_SUCCESS;
}

static VOID CloseFile(VOID)
{
    if (File != NULL) {
        ObDereferenceObject(File);
        File = NULL;
    }
}

static VOID ForgetDevice(VOID)
{
    if (Pdo != NULL) {
        ObDereferenceObject(Pdo);
        Pdo = NULL;
    }
}

static NTSTATUS OpenAndWatch(PUNICODE_STRING Name)
{
    PDEVICE_OBJECT Top;
    NTSTATUS Status = IoGetDeviceObjectPointer(Name, FILE_READ_DATA, &File, &Top);

    if (!NT_SUCCESS(Status)) {
        File = NULL;
        return Status;
    }
    Status = IoRegisterPlugPlayNotification(EventCategoryTargetDeviceChange, 0, File, TheDriver, OnTarget, &Manner, &Target);
    if (NT_SUCCESS(Status)) {
        ForgetDevice();
        Pdo = IoGetDeviceAttachmentBaseRef(Top);
    } else {
        CloseFile();
    }
    return Status;
}

static NTSTATUS QueryRemove(VOID)
{
    DbgPrint("watcher: may it go?\n");
    switch (Manner) {
    case MANNER_REFUSES:
        return STATUS_UNSUCCESSFUL;
    case MANNER_KEEPS:
        return STATUS_SUCCESS;
    case MANNER_LEAVES:
        CloseFile();
        IoUnregisterPlugPlayNotificationEx(Target);
        Target = NULL;
        return STATUS_SUCCESS;
    default:
        CloseFile();
        return STATUS_SUCCESS;
    }
}

/* As the page of this event has it: a new file, and a new registration on it. */
static VOID RemoveCancelled(VOID)
{
    DbgPrint("watcher: it stays\n");
    if (File == NULL) {
        IoUnregisterPlugPlayNotification(Target);
        Target = NULL;
        if (!NT_SUCCESS(OpenAndWatch(&OtherName))) {
            DbgPrint("watcher: cannot open it again\n");
        }
    }
}

static VOID RemoveComplete(VOID)
{
    DbgPrint("watcher: it is gone\n");
    CloseFile();
    ForgetDevice();
    if (Manner != MANNER_FORGETS) {
        IoUnregisterPlugPlayNotificationEx(Target);
        Target = NULL;
    }
}

static NTSTATUS NTAPI OnTarget(PVOID Notification, PVOID Context)
{
    PTARGET_DEVICE_REMOVAL_NOTIFICATION Own = Notification;
    PTARGET_DEVICE_CUSTOM_NOTIFICATION Custom = Notification;

    if (Context != &Manner || Own->Version != 1 || KeGetCurrentIrql() != PASSIVE_LEVEL || (File != NULL && Own->FileObject != File)) {
        DbgPrint("watcher: what is that?\n");
        return STATUS_SUCCESS;
    }
    if (IsEqualGUID(&Own->Event, &GUID_TARGET_DEVICE_QUERY_REMOVE)) {
        return QueryRemove();
    }
    if (IsEqualGUID(&Own->Event, &GUID_TARGET_DEVICE_REMOVE_CANCELLED)) {
        RemoveCancelled();
    } else if (IsEqualGUID(&Own->Event, &GUID_TARGET_DEVICE_REMOVE_COMPLETE)) {
        RemoveComplete();
    } else if (IsEqualGUID(&Own->Event, &OwnEvent)) {
        DbgPrint("watcher: own event %u, %d\n", Custom->CustomDataBuffer[0], Custom->NameBufferOffset);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS WatchInterfaces(UCHAR How)
{
    static CHAR Names[2] = {'a', 'b'};
    ULONG Flags = How == 1 ? PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES : 0, Index;
    NTSTATUS Status = STATUS_SUCCESS;

    for (Index = 0; Index < (How == 2 ? 2u : 1u) && NT_SUCCESS(Status); Index++) {
        Status = IoRegisterPlugPlayNotification(EventCategoryDeviceInterfaceChange, Flags, (PVOID)&InterfaceClass, TheDriver,
                                                OnInterface, &Names[Index], &Interfaces[Index]);
    }
    return Status;
}

static VOID LeaveInterfaces(VOID)
{
    ULONG Index;

    for (Index = 0; Index < 2; Index++) {
        PVOID Own = InterlockedExchangePointer(&Interfaces[Index], NULL);

        if (Own != NULL) {
            IoUnregisterPlugPlayNotificationEx(Own);
        }
    }
}

static VOID LeaveTarget(VOID)
{
    LastTarget = InterlockedExchangePointer(&Target, NULL);
    if (LastTarget != NULL) {
        IoUnregisterPlugPlayNotificationEx(LastTarget);
    }
    CloseFile();
    ForgetDevice();
}

static VOID NTAPI Notified(PVOID Context)
{
    DbgPrint("watcher: all have run, at IRQL %u\n", KeGetCurrentIrql());
    UNREFERENCED_PARAMETER(Context);
}

static NTSTATUS Report(UCHAR How)
{
    static TARGET_DEVICE_CUSTOM_NOTIFICATION Event;
    NTSTATUS Status;
    KIRQL Old;

    if (Pdo == NULL) {
        return STATUS_NO_SUCH_DEVICE;
    }
    Event.Version = 1;
    Event.Size = How == 4 ? 8 : sizeof(Event);
    Event.Event = How == 3 ? GUID_TARGET_DEVICE_REMOVE_COMPLETE : OwnEvent;
    Event.FileObject = NULL;
    Event.NameBufferOffset = -1;
    Event.CustomDataBuffer[0] = (UCHAR)(40 + How);
    if (How == 0) {
        return IoReportTargetDeviceChange(Pdo, &Event);
    }
    if (How != 2) {
        return IoReportTargetDeviceChangeAsynchronous(Pdo, &Event, Notified, NULL);
    }
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Status = IoReportTargetDeviceChangeAsynchronous(Pdo, &Event, Notified, NULL);
    KeLowerIrql(Old);
    return Status;
}

/* The first answer that is not as it should be. */
static NTSTATUS WithoutSense(VOID)
{
    static FILE_OBJECT NoFile;
    PVOID Entry;

    if (IoRegisterPlugPlayNotification(EventCategoryReserved, 0, (PVOID)&InterfaceClass, TheDriver, OnInterface, NULL, &Entry) !=
            STATUS_INVALID_PARAMETER ||
        IoRegisterPlugPlayNotification(EventCategoryDeviceInterfaceChange, 0, NULL, TheDriver, OnInterface, NULL, &Entry) !=
            STATUS_INVALID_PARAMETER ||
        IoRegisterPlugPlayNotification(EventCategoryHardwareProfileChange, 0, (PVOID)&InterfaceClass, TheDriver, OnInterface, NULL,
                                       &Entry) != STATUS_INVALID_PARAMETER ||
        NT_SUCCESS(IoRegisterPlugPlayNotification(EventCategoryTargetDeviceChange, 0, &NoFile, TheDriver, OnTarget, NULL, &Entry))) {
        return STATUS_UNSUCCESSFUL;
    }
    if (!NT_SUCCESS(IoRegisterPlugPlayNotification(EventCategoryHardwareProfileChange, 0, NULL, TheDriver, OnInterface, NULL, &Entry))) {
        return STATUS_UNSUCCESSFUL;
    }
    return IoUnregisterPlugPlayNotification(Entry);
}

static NTSTATUS Properties(VOID)
{
    static const DEVPROPKEY Own = {{0xD1B0C0DE, 0x0002, 0x4000, {0x80, 0, 0, 0, 0, 0, 0, 1}}, 2};
    static const DEVPROPKEY Enumerator = {{0xA45C254E, 0xDF1C, 0x4EFD, {0x80, 0x20, 0x67, 0xD1, 0x46, 0xA8, 0x50, 0xE0}}, 24};
    ULONG Value = 7, Size = 0, Read = 0;
    DEVPROPTYPE Type = 0;
    WCHAR Name[8];

    if (Pdo == NULL || IoGetDevicePropertyData(Pdo, &Own, 0, 0, 0, NULL, &Size, &Type) != STATUS_OBJECT_NAME_NOT_FOUND ||
        IoSetDevicePropertyData(Pdo, &Own, 0, PLUGPLAY_PROPERTY_PERSISTENT, 7, sizeof(Value), &Value) != STATUS_SUCCESS ||
        IoGetDevicePropertyData(Pdo, &Own, 0, 0, 2, &Read, &Size, &Type) != STATUS_BUFFER_TOO_SMALL || Size != sizeof(Value) ||
        IoGetDevicePropertyData(Pdo, &Own, 0, 0, sizeof(Read), &Read, &Size, &Type) != STATUS_SUCCESS || Read != 7 || Type != 7 ||
        IoGetDevicePropertyData(Pdo, &Own, 0x409, 0, sizeof(Read), &Read, &Size, &Type) != STATUS_OBJECT_NAME_NOT_FOUND ||
        IoSetDevicePropertyData(Pdo, &Own, 0, 0, 0, 0, NULL) != STATUS_SUCCESS ||
        IoSetDevicePropertyData(Pdo, &Own, 0, 0, 0, 0, NULL) != STATUS_OBJECT_NAME_NOT_FOUND ||
        IoGetDevicePropertyData(Pdo, &Enumerator, 0, 0, sizeof(Name), Name, &Size, &Type) != STATUS_SUCCESS || Type != 0x12 || Size != 8 ||
        RtlCompareMemory(Name, L"PCI", 8) != 8) {
        return STATUS_UNSUCCESSFUL;
    }
    return STATUS_SUCCESS;
}

/* Properties of an interface, and where its device is. */
static NTSTATUS OfInterface(PUNICODE_STRING Link)
{
    static const DEVPROPKEY Name = {{0x026E516E, 0xB814, 0x414B, {0x83, 0xCD, 0x85, 0x6D, 0x6F, 0xEF, 0x48, 0x22}}, 2};
    static const DEVPROPKEY Enabled = {{0x026E516E, 0xB814, 0x414B, {0x83, 0xCD, 0x85, 0x6D, 0x6F, 0xEF, 0x48, 0x22}}, 3};
    static const DEVPROPKEY Class = {{0x026E516E, 0xB814, 0x414B, {0x83, 0xCD, 0x85, 0x6D, 0x6F, 0xEF, 0x48, 0x22}}, 4};
    static WCHAR Friendly[] = L"Watched";
    UNICODE_STRING None = RTL_CONSTANT_STRING(L"\\??\\Nothing");
    WCHAR Read[16];
    DEVPROPTYPE Type = 0;
    ULONG Size = 0;
    UCHAR Value = 7;
    USHORT Node = 7;
    GUID Guid;

    if (IoGetDeviceInterfacePropertyData(&None, &Enabled, 0, 0, 1, &Value, &Size, &Type) != STATUS_OBJECT_NAME_NOT_FOUND ||
        IoSetDeviceInterfacePropertyData(&None, &Name, 0, 0, 0x12, sizeof(Friendly), Friendly) != STATUS_OBJECT_NAME_NOT_FOUND ||
        IoGetDeviceInterfacePropertyData(Link, &Enabled, 0, 0, 1, &Value, &Size, &Type) != STATUS_SUCCESS || Type != 0x11 || Value != 0xFF ||
        IoGetDeviceInterfacePropertyData(Link, &Class, 0, 0, sizeof(Guid), &Guid, &Size, &Type) != STATUS_SUCCESS || Type != 0xD ||
        !IsEqualGUID(&Guid, &InterfaceClass) ||
        IoGetDeviceInterfacePropertyData(Link, &Name, 0, 0, 0, NULL, &Size, &Type) != STATUS_OBJECT_NAME_NOT_FOUND ||
        IoSetDeviceInterfacePropertyData(Link, &Name, 0, 0, 0x12, sizeof(Friendly), Friendly) != STATUS_SUCCESS ||
        IoGetDeviceInterfacePropertyData(Link, &Name, 0, 0, 2, Read, &Size, &Type) != STATUS_BUFFER_TOO_SMALL || Size != sizeof(Friendly) ||
        IoGetDeviceInterfacePropertyData(Link, &Name, 0, 0, sizeof(Read), Read, &Size, &Type) != STATUS_SUCCESS || Type != 0x12 ||
        RtlCompareMemory(Read, Friendly, sizeof(Friendly)) != sizeof(Friendly) ||
        IoSetDeviceInterfacePropertyData(Link, &Name, 0, 0, 0, 0, NULL) != STATUS_SUCCESS ||
        IoSetDeviceInterfacePropertyData(Link, &Name, 0, 0, 0, 0, NULL) != STATUS_OBJECT_NAME_NOT_FOUND ||
        IoGetDeviceNumaNode(NULL, &Node) != STATUS_INVALID_PARAMETER || Node != 7 ||
        IoGetDeviceNumaNode(Pdo, &Node) != STATUS_SUCCESS || Node != 0) {
        return STATUS_UNSUCCESSFUL;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Alias(VOID)
{
    static const GUID Second = {0xD1B0C0DE, 0x0003, 0x4000, {0x80, 0, 0, 0, 0, 0, 0, 1}};
    UNICODE_STRING First, Other, None = RTL_CONSTANT_STRING(L"\\??\\Nothing"), Found;
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (Pdo == NULL || !NT_SUCCESS(IoRegisterDeviceInterface(Pdo, &InterfaceClass, NULL, &First))) {
        return Status;
    }
    if (IoGetDeviceInterfaceAlias(&First, &Second, &Found) == STATUS_OBJECT_NAME_NOT_FOUND &&
        IoGetDeviceInterfaceAlias(&None, &Second, &Found) == STATUS_INVALID_HANDLE &&
        NT_SUCCESS(IoRegisterDeviceInterface(Pdo, &Second, NULL, &Other))) {
        if (IoGetDeviceInterfaceAlias(&First, &Second, &Found) == STATUS_SUCCESS) {
            Status = RtlEqualUnicodeString(&Found, &Other, TRUE) ? OfInterface(&First) : STATUS_UNSUCCESSFUL;
            RtlFreeUnicodeString(&Found);
        }
        RtlFreeUnicodeString(&Other);
    }
    RtlFreeUnicodeString(&First);
    return Status;
}

static VOID NTAPI LeaveInThread(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    LeaveInterfaces();
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS Leave(UCHAR How)
{
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Thread;
    NTSTATUS Status;

    if (How == 2) {
        InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
        Status = PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, LeaveInThread, NULL);
        if (NT_SUCCESS(Status)) {
            ZwWaitForSingleObject(Thread, FALSE, NULL);
            ZwClose(Thread);
        }
        return Status;
    }
    LeaveInterfaces();
    if (How == 0) {
        LeaveTarget();
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    UCHAR How = Stack->Parameters.DeviceIoControl.InputBufferLength < 1 ? 0 : *(PUCHAR)Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = STATUS_INVALID_DEVICE_REQUEST;

    UNREFERENCED_PARAMETER(Device);
    switch (((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION) {
    case 0:
        Status = WatchInterfaces(How);
        break;
    case 1:
        Manner = How;
        Status = OpenAndWatch(&OtherName);
        break;
    case 2:
        Status = Leave(How);
        break;
    case 3:
        Status = Report(How);
        break;
    case 4:
        Status = WithoutSense();
        break;
    case 5:
        LeaveTarget();
        Status = IoUnregisterPlugPlayNotificationEx(LastTarget); /* a mistake */
        break;
    case 6:
        Status = Properties();
        break;
    case 7:
        Status = Alias();
        break;
    case 8:
        Manner = How;
        Status = OpenAndWatch(&DeviceName);
        break;
    }
    return Complete(Irp, Status, 0);
}

/* As the page of IRP_MN_QUERY_DEVICE_RELATIONS has it for a stack without Plug and Play: the stack that stands behind it is asked. */
static NTSTATUS AskBehind(PIRP Irp)
{
    PIO_STACK_LOCATION Next;
    IO_STATUS_BLOCK Block;
    PDEVICE_OBJECT Top;
    PFILE_OBJECT Behind;
    NTSTATUS Status = IoGetDeviceObjectPointer(&OtherName, FILE_READ_DATA, &Behind, &Top);
    KEVENT Done;
    PIRP Asked;

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Asked = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Top, NULL, 0, NULL, &Done, &Block);
    if (Asked == NULL) {
        ObDereferenceObject(Behind);
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Asked->IoStatus.Status = STATUS_NOT_SUPPORTED;
    Next = IoGetNextIrpStackLocation(Asked);
    Next->MinorFunction = IRP_MN_QUERY_DEVICE_RELATIONS;
    Next->Parameters.QueryDeviceRelations.Type = TargetDeviceRelation;
    Next->FileObject = Behind;
    Status = IoCallDriver(Top, Asked);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
    }
    ObDereferenceObject(Behind);
    /* The list, and the reference in it, are the caller's. */
    return Complete(Irp, Status, NT_SUCCESS(Status) ? Block.Information : 0);
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (Stack->MinorFunction != IRP_MN_QUERY_DEVICE_RELATIONS || Stack->Parameters.QueryDeviceRelations.Type != TargetDeviceRelation) {
        return Complete(Irp, Irp->IoStatus.Status, Irp->IoStatus.Information);
    }
    DbgPrint("watcher: who stands behind this %s?\n", Stack->FileObject != NULL ? "file" : "device");
    return AskBehind(Irp);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    LeaveInterfaces();
    if (Manner == MANNER_FORGETS) {
        CloseFile();
        ForgetDevice();
    } else {
        LeaveTarget();
    }
    ControlUnload(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    TheDriver = Driver;
    if (NT_SUCCESS(Status)) {
        Driver->DriverUnload = Unload;
        Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
#ifdef EARLY
        WatchInterfaces(2);
#endif
    }
    return Status;
}
