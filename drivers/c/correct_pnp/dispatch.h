/* The device's life: added, started, stopped, started again, removed; and what is asked of it by control codes. */
#ifndef CORRECT_PNP_DISPATCH_H
#define CORRECT_PNP_DISPATCH_H

#define CORRECT_CODE(Number, Method) CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE00 + (Number), Method, FILE_ANY_ACCESS)
#define IOCTL_WORK_SETS_EVENT CORRECT_CODE(0, METHOD_BUFFERED)
#define IOCTL_WORK_FREES_ITSELF CORRECT_CODE(1, METHOD_BUFFERED)
#define IOCTL_WORK_OF_DRIVER CORRECT_CODE(2, METHOD_BUFFERED)
#define IOCTL_NEITHER_ANSWERS_A_NUMBER CORRECT_CODE(3, METHOD_NEITHER)
#define IOCTL_INTERNAL_ANSWERS_A_NUMBER CORRECT_CODE(4, METHOD_BUFFERED)
#define IOCTL_INITIALIZED_IRP CORRECT_CODE(5, METHOD_BUFFERED)
/* Input: a ULONG, the flags of the next PNP_DEVICE_STATE. */
#define IOCTL_INVALIDATE_STATE CORRECT_CODE(6, METHOD_BUFFERED)
#define IOCTL_DIRECT_ANSWERS_A_NUMBER CORRECT_CODE(7, METHOD_OUT_DIRECT)

/* The routines of the function device, by major function. */
static PDRIVER_DISPATCH Function[IRP_MJ_MAXIMUM_FUNCTION + 1];

/* Every request of the driver's: to the filter's device, or to the function device. */
static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->IsFilter) {
        return FilterPass(Extension, Irp);
    }
    return Function[IoGetCurrentIrpStackLocation(Irp)->MajorFunction](Device, Irp);
}

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    DbgPrint("%s\n", IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CLOSE ? "close" : "cleanup");
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Control(PDEVICE_EXTENSION Extension, PIRP Irp, PULONG_PTR Information)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WORK_SETS_EVENT:
        return QueueAndSetEvent(Extension->Self);
    case IOCTL_WORK_FREES_ITSELF:
        return QueueAndForget(Extension->Self);
    case IOCTL_WORK_OF_DRIVER:
        return QueueOnDriver(Extension->Self);
    case IOCTL_NEITHER_ANSWERS_A_NUMBER:
    case IOCTL_DIRECT_ANSWERS_A_NUMBER:
        *Information = 0x10000;
        return STATUS_SUCCESS;
    case IOCTL_INTERNAL_ANSWERS_A_NUMBER:
        return AskInternally(Extension->Self);
    case IOCTL_INITIALIZED_IRP:
        return AskWithInitializedIrp(Extension);
    case IOCTL_INVALIDATE_STATE:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            return STATUS_INVALID_PARAMETER;
        }
        Extension->StateFlags = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        IoInvalidateDeviceState(Extension->Pdo);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG_PTR Information = 0;
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    Status = Control(Extension, Irp, &Information);
    Complete(Irp, Status, Information);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    return PassDown(Device->DeviceExtension, Irp);
}

/* ---- starting ---------------------------------------------------------------------------------------------------- */

/* The drivers below have started: the card is there. */
static NTSTATUS StartCard(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (Extension->Idioms & IDIOM_OPENS_EARLY) {
        OpenEarly();
    }
    if ((Extension->Idioms & IDIOM_NO_RESTART) && Extension->WasStopped) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (Extension->Registers != NULL) {
        UnmapWindow(Extension); /* a start without a stop: other resources */
    }
    Status = MapFirstWindow(Extension, Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (NT_SUCCESS(Status) && !Extension->Started) {
        EnableInterface(Extension);
    }
    if (NT_SUCCESS(Status)) {
        Extension->Started = TRUE;
        Extension->Stopped = FALSE;
    }
    return Status;
}

static VOID NTAPI StartLater(PDEVICE_OBJECT Device, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = StartCard(Extension, Context);

    Complete(Context, Status, 0);
    IoReleaseRemoveLock(&Extension->RemoveLock, Context);
}

static NTSTATUS NTAPI StartedBelow(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    IoQueueWorkItem(Extension->StartItem, StartLater, DelayedWorkQueue, Irp);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Keeps the remove lock until the request is completed. */
static NTSTATUS OnStart(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    NTSTATUS Status;

    if (Extension->Idioms & IDIOM_DEFERRED_START) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, StartedBelow, Extension, TRUE, TRUE, TRUE);
        IoCallDriver(Extension->Lower, Irp);
        return STATUS_PENDING;
    }
    Status = ForwardAndWait(Extension, Irp);
    if (NT_SUCCESS(Status)) {
        Status = StartCard(Extension, Irp);
    }
    Complete(Irp, Status, 0);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

/* ---- the other states -------------------------------------------------------------------------------------------- */

static NTSTATUS OnRemove(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PDEVICE_OBJECT Lower = Extension->Lower;
    NTSTATUS Status;

    DisableInterface(Extension);
    UnmapWindow(Extension);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Status = PassDown(Extension, Irp);
    IoReleaseRemoveLockAndWait(&Extension->RemoveLock, Irp);
    if (Extension->StartItem != NULL) {
        IoFreeWorkItem(Extension->StartItem);
    }
    ForgetInterface(Extension);
    IoUnregisterShutdownNotification(Extension->Self);
    IoDeleteSymbolicLink(&LinkName);
    IoDetachDevice(Lower);
    IoDeleteDevice(Extension->Self);
    return Status;
}

/* One refusal, as a driver whose last transfer has not ended. */
static BOOLEAN Refuses(PDEVICE_EXTENSION Extension)
{
    BOOLEAN First = (Extension->Idioms & IDIOM_REFUSES_ONCE) && !Extension->Refused;

    Extension->Refused = Extension->Refused || First;
    return First;
}

/* In a stopped device's state machine of the framework there are two ways on: of the requests that change the state all others stay. */
static BOOLEAN FrameworkKeeps(PDEVICE_EXTENSION Extension, UCHAR Minor)
{
    return (Extension->Idioms & IDIOM_FRAMEWORK) && Extension->Stopped && Minor >= IRP_MN_QUERY_REMOVE_DEVICE &&
           Minor <= IRP_MN_CANCEL_STOP_DEVICE;
}

static NTSTATUS OnQueryState(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    ULONG Flags = Extension->StateFlags;

    if (Flags != 0) {
        Extension->StateFlags = 0;
        Irp->IoStatus.Information |= Flags;
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    return PassDown(Extension, Irp);
}

static NTSTATUS Handle(PDEVICE_EXTENSION Extension, PIRP Irp, UCHAR Minor)
{
    switch (Minor) {
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (Refuses(Extension)) {
            return Complete(Irp, STATUS_UNSUCCESSFUL, 0);
        }
        break;
    case IRP_MN_STOP_DEVICE:
        UnmapWindow(Extension);
        Extension->Stopped = TRUE;
        Extension->WasStopped = TRUE;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        DisableInterface(Extension);
        UnmapWindow(Extension);
        Extension->Stopped = FALSE;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        break;
    case IRP_MN_QUERY_PNP_DEVICE_STATE:
        return OnQueryState(Extension, Irp);
    case IRP_MN_FILTER_RESOURCE_REQUIREMENTS:
        if (Extension->Idioms & (IDIOM_FILTER_IN_PLACE | IDIOM_FILTER_NEW_LIST)) {
            return FilterRequirements(Extension, Irp);
        }
        return PassDown(Extension, Irp);
    case IRP_MN_QUERY_CAPABILITIES:
        if (Extension->Idioms & IDIOM_CAPABILITIES) {
            return QueryCapabilities(Extension, Irp);
        }
        return PassDown(Extension, Irp);
    default:
        return PassDown(Extension, Irp);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    return PassDown(Extension, Irp);
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    UCHAR Minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    DbgPrint("pnp 0x%02x\n", Minor);
    if (FrameworkKeeps(Extension, Minor)) {
        IoMarkIrpPending(Irp);
        return STATUS_PENDING;
    }
    if (Minor == IRP_MN_START_DEVICE) {
        return OnStart(Extension, Irp);
    }
    if (Minor == IRP_MN_REMOVE_DEVICE) {
        return OnRemove(Extension, Irp);
    }
    Status = Handle(Extension, Irp, Minor);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

static ULONG ReadIdioms(PDEVICE_OBJECT Pdo)
{
    UCHAR Buffer[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    PKEY_VALUE_PARTIAL_INFORMATION Value = (PKEY_VALUE_PARTIAL_INFORMATION)Buffer;
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"Idioms");
    ULONG Idioms = 0;
    ULONG Length;
    HANDLE Key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key))) {
        return 0;
    }
    if (NT_SUCCESS(ZwQueryValueKey(Key, &Name, KeyValuePartialInformation, Value, sizeof(Buffer), &Length)) &&
        Value->Type == REG_DWORD) {
        RtlCopyMemory(&Idioms, Value->Data, sizeof(Idioms));
    }
    ZwClose(Key);
    return Idioms;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_EXTENSION Extension;
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), &DeviceName, FILE_DEVICE_UNKNOWN,
                                     FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Extension = Device->DeviceExtension;
    RtlZeroMemory(Extension, sizeof(*Extension));
    Extension->Self = Device;
    Extension->Pdo = Pdo;
    Extension->Idioms = ReadIdioms(Pdo);
    IoInitializeRemoveLock(&Extension->RemoveLock, CORRECT_TAG, 0, 0);
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Extension->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    if (Extension->Lower == NULL) {
        IoDeleteSymbolicLink(&LinkName);
        IoDeleteDevice(Device);
        return STATUS_NO_SUCH_DEVICE;
    }
    Extension->StartItem = IoAllocateWorkItem(Device);
    Status = IoRegisterDeviceInterface(Pdo, &InterfaceClass, NULL, &Extension->Interface);
    if (Extension->StartItem == NULL || !NT_SUCCESS(Status)) {
        if (Extension->StartItem != NULL) {
            IoFreeWorkItem(Extension->StartItem);
        }
        if (NT_SUCCESS(Status)) {
            RtlFreeUnicodeString(&Extension->Interface);
        }
        IoDetachDevice(Extension->Lower);
        IoDeleteSymbolicLink(&LinkName);
        IoDeleteDevice(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    IoRegisterShutdownNotification(Device);
    Device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    if (Extension->Idioms & IDIOM_FILTER) {
        AddFilter(Driver, Pdo);
    }
    return STATUS_SUCCESS;
}

#endif
