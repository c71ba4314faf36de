/*
 * Named bus: an application plugs children with a model name of its choice, which goes into their hardware IDs.
 *
 * The bug: the list of hardware IDs is made as a single string; the empty string that ends such a list is forgotten.
 *
 * Device: ROOT\BLIND25
 * Rule: pool-overrun
 * Needs: ioctl
 * Symptom: the PnP manager reads on behind the pool block (0x50 / special pool 0xCD), or garbage hardware IDs for the child.
 */
#include <ddk/wdm.h>

#define ID_TAG 'suBI'
#define MODEL_MAX 16

#define IOCTL_NAMED_PLUG   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC20, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_NAMED_UNPLUG CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC21, METHOD_BUFFERED, FILE_WRITE_DATA)

typedef struct _PLUG_REQUEST {
    ULONG Serial;
    CHAR Model[MODEL_MAX];      /* letters and digits, filled with NULs */
} PLUG_REQUEST;

static const GUID GUID_NAMEDBUS =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x25 } };

static const WCHAR Prefix[] = L"BLINDNAME\\";
#define PREFIX_CHARS (sizeof(Prefix) / sizeof(WCHAR) - 1)

/* What a dispatch routine finds in either kind of device. */
typedef struct _COMMON {
    BOOLEAN IsFdo;
    PDEVICE_OBJECT Self;
} COMMON;

typedef struct _BUS {
    BOOLEAN IsFdo;
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    FAST_MUTEX Mutex;           /* the list and the children's flags */
    LIST_ENTRY Children;
} BUS, *PBUS;

typedef struct _CHILD {
    BOOLEAN IsFdo;
    PDEVICE_OBJECT Self;
    PBUS Bus;                   /* NULL once the bus has gone */
    LIST_ENTRY Link;
    ULONG Serial;
    BOOLEAN Present;            /* plugged in */
    BOOLEAN Reported;           /* the PnP manager knows it */
    BOOLEAN Missing;            /* left out of a later report: the next removal is the last */
    BOOLEAN Surprised;
    ULONG ModelLength;
    WCHAR Model[MODEL_MAX];
} CHILD, *PCHILD;

static NTSTATUS NbFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI NbSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NbForwardAndWait(BUS *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, NbSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI NbPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    BUS *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return NbFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI NbSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    BUS *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return NbFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI NbCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    BUS *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return NbFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    NbFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI NbClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return NbFinish(Irp, STATUS_SUCCESS, 0);
}

/* ---- The children. ---- */

static PCHILD NbFind(PBUS Bus, ULONG Serial, BOOLEAN Leaving)
{
    PLIST_ENTRY e;

    for (e = Bus->Children.Flink; e != &Bus->Children; e = e->Flink) {
        PCHILD child = CONTAINING_RECORD(e, CHILD, Link);

        if (child->Serial == Serial && (child->Present || Leaving)) {
            return child;
        }
    }
    return NULL;
}

static NTSTATUS NbPlug(PBUS Bus, ULONG Serial, const CHAR *Model, ULONG ModelLength)
{
    PDEVICE_OBJECT device;
    PCHILD child;
    NTSTATUS status;

    status = IoCreateDevice(Bus->Self->DriverObject, sizeof(CHILD), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_AUTOGENERATED_DEVICE_NAME | FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    child = device->DeviceExtension;
    child->Self = device;
    child->Bus = Bus;
    child->Serial = Serial;
    child->Present = TRUE;
    for (child->ModelLength = 0; child->ModelLength < ModelLength; child->ModelLength++) {
        child->Model[child->ModelLength] = (UCHAR)Model[child->ModelLength];
    }
    device->Flags |= DO_POWER_PAGABLE;

    ExAcquireFastMutex(&Bus->Mutex);
    if (!Bus->Started) {
        status = STATUS_DELETE_PENDING;
    } else if (NbFind(Bus, Serial, TRUE) != NULL) {     /* also one that has not yet been removed */
        status = STATUS_OBJECT_NAME_COLLISION;
    } else {
        device->Flags &= ~DO_DEVICE_INITIALIZING;
        InsertTailList(&Bus->Children, &child->Link);
    }
    ExReleaseFastMutex(&Bus->Mutex);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
    }
    return status;
}

static NTSTATUS NbUnplug(PBUS Bus, ULONG Serial)
{
    PDEVICE_OBJECT unknown = NULL;
    PCHILD child;

    ExAcquireFastMutex(&Bus->Mutex);
    child = NbFind(Bus, Serial, FALSE);
    if (child != NULL) {
        child->Present = FALSE;
        if (!child->Reported) {         /* no one will ever remove it */
            RemoveEntryList(&child->Link);
            unknown = child->Self;
        }
    }
    ExReleaseFastMutex(&Bus->Mutex);
    if (unknown != NULL) {
        IoDeleteDevice(unknown);
    }
    return child != NULL ? STATUS_SUCCESS : STATUS_NO_SUCH_DEVICE;
}

/* The bus goes. Children that are still to be removed by the PnP manager look after themselves from now on. */
static VOID NbOrphan(PBUS Bus, BOOLEAN Surprise)
{
    for (;;) {
        PCHILD child = NULL;

        ExAcquireFastMutex(&Bus->Mutex);
        if (!IsListEmpty(&Bus->Children)) {
            child = CONTAINING_RECORD(RemoveHeadList(&Bus->Children), CHILD, Link);
            InitializeListHead(&child->Link);
            child->Bus = NULL;
        }
        ExReleaseFastMutex(&Bus->Mutex);
        if (child == NULL) {
            break;
        }
        if (Surprise ? !child->Reported : !child->Surprised) {
            IoDeleteDevice(child->Self);
        }
    }
}

static NTSTATUS NbRelations(PBUS Bus, PIRP Irp)
{
    PDEVICE_RELATIONS old = (PDEVICE_RELATIONS)Irp->IoStatus.Information;
    PDEVICE_RELATIONS relations;
    PLIST_ENTRY e;
    ULONG n = old != NULL ? old->Count : 0, i;

    ExAcquireFastMutex(&Bus->Mutex);
    for (e = Bus->Children.Flink; e != &Bus->Children; e = e->Flink) {
        n += CONTAINING_RECORD(e, CHILD, Link)->Present;
    }
    relations = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(DEVICE_RELATIONS, Objects) + (n + 1) * sizeof(PVOID), ID_TAG);
    if (relations == NULL) {
        ExReleaseFastMutex(&Bus->Mutex);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    relations->Count = 0;
    for (i = 0; old != NULL && i < old->Count; i++) {
        relations->Objects[relations->Count++] = old->Objects[i];
    }
    for (e = Bus->Children.Flink; e != &Bus->Children; e = e->Flink) {
        PCHILD child = CONTAINING_RECORD(e, CHILD, Link);

        if (child->Present) {
            ObReferenceObject(child->Self);
            relations->Objects[relations->Count++] = child->Self;
            child->Reported = TRUE;
        } else {
            child->Missing = TRUE;
        }
    }
    ExReleaseFastMutex(&Bus->Mutex);
    if (old != NULL) {
        ExFreePool(old);
    }
    Irp->IoStatus.Information = (ULONG_PTR)relations;
    Irp->IoStatus.Status = STATUS_SUCCESS;
    return STATUS_SUCCESS;
}

static NTSTATUS NbChildCapabilities(PCHILD Child, PDEVICE_CAPABILITIES Caps)
{
    ULONG i;

    if (Caps->Version != 1 || Caps->Size < sizeof(DEVICE_CAPABILITIES)) {
        return STATUS_UNSUCCESSFUL;
    }
    Caps->DeviceState[PowerSystemWorking] = PowerDeviceD0;
    for (i = PowerSystemSleeping1; i < PowerSystemMaximum; i++) {
        Caps->DeviceState[i] = PowerDeviceD3;
    }
    Caps->DeviceWake = PowerDeviceUnspecified;
    Caps->SystemWake = PowerSystemUnspecified;
    Caps->Removable = TRUE;
    Caps->UniqueID = FALSE;
    Caps->RawDeviceOK = TRUE;
    Caps->SilentInstall = TRUE;
    Caps->Address = Child->Serial;
    Caps->UINumber = Child->Serial;
    return STATUS_SUCCESS;
}

/* The strings are the PnP manager's to free. */
static NTSTATUS NbChildId(PCHILD Child, BUS_QUERY_ID_TYPE Type, NTSTATUS Status, PULONG_PTR Information)
{
    static const WCHAR digits[] = L"0123456789ABCDEF";
    ULONG chars, i;
    PWCHAR id;

    switch (Type) {
    case BusQueryDeviceID:
        chars = PREFIX_CHARS + Child->ModelLength + 1;
        break;
    case BusQueryHardwareIDs:
#ifdef FIXED
        chars = PREFIX_CHARS + Child->ModelLength + 2;
#else
        chars = PREFIX_CHARS + Child->ModelLength + 1;
#endif
        break;
    case BusQueryInstanceID:
        chars = 8 + 1;
        break;
    default:
        return Status;
    }
    id = ExAllocatePoolWithTag(PagedPool, chars * sizeof(WCHAR), ID_TAG);
    if (id == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(id, chars * sizeof(WCHAR));
    if (Type == BusQueryInstanceID) {
        for (i = 0; i < 8; i++) {
            id[i] = digits[(Child->Serial >> (28 - 4 * i)) & 15];
        }
    } else {
        RtlCopyMemory(id, Prefix, PREFIX_CHARS * sizeof(WCHAR));
        RtlCopyMemory(id + PREFIX_CHARS, Child->Model, Child->ModelLength * sizeof(WCHAR));
    }
    *Information = (ULONG_PTR)id;
    return STATUS_SUCCESS;
}

static NTSTATUS NbChildRelations(PCHILD Child, PULONG_PTR Information)
{
    PDEVICE_RELATIONS relations = ExAllocatePoolWithTag(PagedPool, sizeof(DEVICE_RELATIONS), ID_TAG);

    if (relations == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ObReferenceObject(Child->Self);
    relations->Count = 1;
    relations->Objects[0] = Child->Self;
    *Information = (ULONG_PTR)relations;
    return STATUS_SUCCESS;
}

static NTSTATUS NbChildText(DEVICE_TEXT_TYPE Type, NTSTATUS Status, PULONG_PTR Information)
{
    static const WCHAR text[] = L"Blind child device";
    PVOID copy;

    if (Type != DeviceTextDescription || *Information != 0) {
        return Status;
    }
    copy = ExAllocatePoolWithTag(PagedPool, sizeof(text), ID_TAG);
    if (copy == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(copy, text, sizeof(text));
    *Information = (ULONG_PTR)copy;
    return STATUS_SUCCESS;
}

static NTSTATUS NbChildBusInformation(PULONG_PTR Information)
{
    PPNP_BUS_INFORMATION info = ExAllocatePoolWithTag(PagedPool, sizeof(PNP_BUS_INFORMATION), ID_TAG);

    if (info == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    info->BusTypeGuid = GUID_NAMEDBUS;
    info->LegacyBusType = PNPBus;
    info->BusNumber = 0;
    *Information = (ULONG_PTR)info;
    return STATUS_SUCCESS;
}

/* The device has no driver above it that uses it any more. Deletes the child if this was its last removal. */
static VOID NbChildRemove(PCHILD Child)
{
    PBUS bus = Child->Bus;
    BOOLEAN last = TRUE;

    Child->Surprised = FALSE;
    if (bus != NULL) {
        ExAcquireFastMutex(&bus->Mutex);
        last = Child->Missing;
        if (last) {
            RemoveEntryList(&Child->Link);
        }
        ExReleaseFastMutex(&bus->Mutex);
    }
    if (last) {
        IoDeleteDevice(Child->Self);
    }
}

static NTSTATUS NbChildPnp(PCHILD Child, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    ULONG_PTR information = Irp->IoStatus.Information;

    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        Child->Surprised = TRUE;
        status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        NbChildRemove(Child);
        status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_CAPABILITIES:
        status = NbChildCapabilities(Child, sp->Parameters.DeviceCapabilities.Capabilities);
        break;
    case IRP_MN_QUERY_ID:
        status = NbChildId(Child, sp->Parameters.QueryId.IdType, status, &information);
        break;
    case IRP_MN_QUERY_DEVICE_TEXT:
        status = NbChildText(sp->Parameters.QueryDeviceText.DeviceTextType, status, &information);
        break;
    case IRP_MN_QUERY_BUS_INFORMATION:
        status = NbChildBusInformation(&information);
        break;
    case IRP_MN_QUERY_DEVICE_RELATIONS:
        if (sp->Parameters.QueryDeviceRelations.Type == TargetDeviceRelation) {
            status = NbChildRelations(Child, &information);
        }
        break;
    default:
        break;                  /* as it came */
    }
    return NbFinish(Irp, status, information);
}

static NTSTATUS NbChildDispatch(PCHILD Child, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;

    switch (sp->MajorFunction) {
    case IRP_MJ_PNP:
        return NbChildPnp(Child, Irp);
    case IRP_MJ_POWER:
        if (sp->MinorFunction == IRP_MN_SET_POWER) {
            if (sp->Parameters.Power.Type == DevicePowerState) {
                PoSetPowerState(Child->Self, DevicePowerState, sp->Parameters.Power.State);
            }
            status = STATUS_SUCCESS;
        } else if (sp->MinorFunction == IRP_MN_QUERY_POWER) {
            status = STATUS_SUCCESS;
        }
        PoStartNextPowerIrp(Irp);
        return NbFinish(Irp, status, Irp->IoStatus.Information);
    case IRP_MJ_SYSTEM_CONTROL:
        return NbFinish(Irp, status, Irp->IoStatus.Information);
    case IRP_MJ_CLEANUP:
    case IRP_MJ_CLOSE:
        return NbFinish(Irp, STATUS_SUCCESS, 0);
    default:
        return NbFinish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* ---- The bus. ---- */

static NTSTATUS NbStart(PBUS Bus)
{
    NTSTATUS status = IoSetDeviceInterfaceState(&Bus->Interface, TRUE);

    if (NT_SUCCESS(status)) {
        Bus->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

static NTSTATUS NTAPI NbPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    BUS *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return NbFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = NbForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = NbStart(ext);
        }
        NbFinish(Irp, status, 0);
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        return status;
    case IRP_MN_SURPRISE_REMOVAL:
        ext->Started = FALSE;
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
        NbOrphan(ext, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        ext->Started = FALSE;
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
        IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
        NbOrphan(ext, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(ext->Lower, Irp);
        IoDetachDevice(ext->Lower);
        RtlFreeUnicodeString(&ext->Interface);
        IoDeleteDevice(DeviceObject);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI NbBusPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBUS bus = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    if (sp->MinorFunction != IRP_MN_QUERY_DEVICE_RELATIONS
        || sp->Parameters.QueryDeviceRelations.Type != BusRelations) {
        return NbPnp(DeviceObject, Irp);
    }
    status = IoAcquireRemoveLock(&bus->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return NbFinish(Irp, status, 0);
    }
    status = NbRelations(bus, Irp);
    if (!NT_SUCCESS(status)) {
        NbFinish(Irp, status, Irp->IoStatus.Information);
    } else {
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(bus->Lower, Irp);
    }
    IoReleaseRemoveLock(&bus->RemoveLock, Irp);
    return status;
}

/* Gives the length of a model name, 0 if it is not a good one. */
static ULONG NbModelLength(const CHAR *Model)
{
    ULONG n;

    for (n = 0; n < MODEL_MAX && Model[n] != '\0'; n++) {
        CHAR c = Model[n];

        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))) {
            return 0;
        }
    }
    return n;
}

static NTSTATUS NTAPI NbControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBUS bus = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    PLUG_REQUEST *request = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG length;

    status = IoAcquireRemoveLock(&bus->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return NbFinish(Irp, status, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_NAMED_PLUG:
        length = in < sizeof(PLUG_REQUEST) ? 0 : NbModelLength(request->Model);
        status = length == 0 ? STATUS_INVALID_PARAMETER : NbPlug(bus, request->Serial, request->Model, length);
        break;
    case IOCTL_NAMED_UNPLUG:
        status = in < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : NbUnplug(bus, request->Serial);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    if (NT_SUCCESS(status)) {
        IoInvalidateDeviceRelations(bus->Pdo, BusRelations);
    }
    NbFinish(Irp, status, 0);
    IoReleaseRemoveLock(&bus->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI NbAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    BUS *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(BUS), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, ID_TAG, 0, 0);
    ext->IsFdo = TRUE;
    ExInitializeFastMutex(&ext->Mutex);
    InitializeListHead(&ext->Children);
    status = IoRegisterDeviceInterface(Pdo, &GUID_NAMEDBUS, NULL, &ext->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    ext->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (ext->Lower == NULL) {
        RtlFreeUnicodeString(&ext->Interface);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI NbDispatch(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    COMMON *common = DeviceObject->DeviceExtension;

    if (!common->IsFdo) {
        return NbChildDispatch(DeviceObject->DeviceExtension, Irp);
    }
    switch (IoGetCurrentIrpStackLocation(Irp)->MajorFunction) {
    case IRP_MJ_CREATE:
        return NbCreate(DeviceObject, Irp);
    case IRP_MJ_CLOSE:
        return NbClose(DeviceObject, Irp);
    case IRP_MJ_DEVICE_CONTROL:
        return NbControl(DeviceObject, Irp);
    case IRP_MJ_PNP:
        return NbBusPnp(DeviceObject, Irp);
    case IRP_MJ_POWER:
        return NbPower(DeviceObject, Irp);
    case IRP_MJ_SYSTEM_CONTROL:
        return NbSystemControl(DeviceObject, Irp);
    default:
        return NbFinish(Irp, STATUS_SUCCESS, 0);
    }
}

static VOID NTAPI NbUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = NbUnload;
    DriverObject->DriverExtension->AddDevice = NbAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = NbDispatch;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = NbDispatch;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = NbDispatch;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = NbDispatch;
    DriverObject->MajorFunction[IRP_MJ_PNP] = NbDispatch;
    DriverObject->MajorFunction[IRP_MJ_POWER] = NbDispatch;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = NbDispatch;
    return STATUS_SUCCESS;
}
