/*
 * The bus driver of a software bus: a program plugs boxes in and out by serial number (as a virtual hub or an emulator
 * does), and each becomes a child device of the bus.
 *
 * The bug: the answer to the query for bus relations is allocated for the children counted before, with the lock
 * dropped in between, and then filled with the children that are there now.
 * Shows by: a box is plugged in on another thread between the count and the filling.
 *
 * Device: root\berth
 * Rule: pool-overrun
 * Needs: ioctl, schedule
 */
#include "../include/shared_frame.h"

#define IOCTL_BERTH_PLUG   CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG serial */
#define IOCTL_BERTH_UNPLUG CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG serial */
#define IOCTL_BERTH_LIST   CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: ULONG[] */

static const GUID BerthInterface = {0x6a3c11d0, 0x55f1, 0x4e2b, {0x9c, 0x1e, 0x20, 0x7a, 0x6b, 0x31, 0x0c, 0x01}};
static const GUID BerthBusType = {0x6a3c11d0, 0x55f1, 0x4e2b, {0x9c, 0x1e, 0x20, 0x7a, 0x6b, 0x31, 0x0c, 0x02}};

typedef struct _BUS {
    KIT Kit;
    LIST_ENTRY Children;
    BOOLEAN Closed;
} BUS;

/* A child's extension; Kit.Lower is NULL, which the bus has not. */
typedef struct _CHILD {
    KIT Kit;
    LIST_ENTRY Entry;
    BUS *Bus;             /* NULL: the bus has gone before */
    ULONG Serial;
    BOOLEAN Present;      /* plugged in */
    BOOLEAN Known;        /* has been reported to PnP */
    BOOLEAN Missing;      /* has been reported as gone since */
    BOOLEAN Surprised;
} CHILD;

static FAST_MUTEX BerthMutex; /* all lists of children, and their flags */

/* ---- children ---- */

static PWSTR CopyId(PCWSTR Text, ULONG Bytes)
{
    PWSTR id = ExAllocatePoolWithTag(PagedPool, Bytes, KIT_TAG);

    if (id != NULL) {
        RtlCopyMemory(id, Text, Bytes);
    }
    return id;
}

static NTSTATUS ChildId(CHILD *Child, PIRP Irp, BUS_QUERY_ID_TYPE Type)
{
    static const WCHAR device[] = L"BERTH\\Box", hardware[] = L"BERTH\\Box\0"; /* the second ends with two zeros */
    WCHAR instance[9];
    PWSTR id;
    ULONG i;

    switch (Type) {
    case BusQueryDeviceID:
        id = CopyId(device, sizeof(device));
        break;
    case BusQueryHardwareIDs:
        id = CopyId(hardware, sizeof(hardware));
        break;
    case BusQueryInstanceID:
        for (i = 0; i < 8; i++) {
            instance[i] = L"0123456789ABCDEF"[(Child->Serial >> (28 - 4 * i)) & 15];
        }
        instance[8] = 0;
        id = CopyId(instance, sizeof(instance));
        break;
    default:
        return Irp->IoStatus.Status;
    }
    Irp->IoStatus.Information = (ULONG_PTR)id;
    return id == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static VOID RemoveChild(PDEVICE_OBJECT Device, CHILD *Child)
{
    BOOLEAN gone;

    ExAcquireFastMutex(&BerthMutex);
    gone = (BOOLEAN)(Child->Missing || Child->Bus == NULL);
    Child->Surprised = FALSE;
    if (gone && Child->Bus != NULL) {
        RemoveEntryList(&Child->Entry);
    }
    ExReleaseFastMutex(&BerthMutex);
    if (gone) {
        IoDeleteDevice(Device);
    }
}

static NTSTATUS ChildPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    CHILD *child = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    PDEVICE_CAPABILITIES caps;
    PDEVICE_RELATIONS relations;
    PPNP_BUS_INFORMATION bus;
    ULONG i;

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
        ExAcquireFastMutex(&BerthMutex);
        child->Surprised = TRUE;
        ExReleaseFastMutex(&BerthMutex);
        status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        RemoveChild(Device, child);
        status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_CAPABILITIES:
        caps = sp->Parameters.DeviceCapabilities.Capabilities;
        if (caps->Version != 1 || caps->Size < sizeof(*caps)) {
            status = STATUS_UNSUCCESSFUL;
            break;
        }
        caps->Removable = 1;
        caps->UniqueID = 0;
        caps->SilentInstall = 1;
        caps->RawDeviceOK = 1;
        caps->SurpriseRemovalOK = 1;
        caps->Address = child->Serial;
        caps->DeviceState[PowerSystemWorking] = PowerDeviceD0;
        for (i = PowerSystemSleeping1; i <= PowerSystemShutdown; i++) {
            caps->DeviceState[i] = PowerDeviceD3;
        }
        status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_ID:
        status = ChildId(child, Irp, sp->Parameters.QueryId.IdType);
        break;
    case IRP_MN_QUERY_DEVICE_TEXT:
        if (sp->Parameters.QueryDeviceText.DeviceTextType == DeviceTextDescription) {
            Irp->IoStatus.Information = (ULONG_PTR)CopyId(L"Box on a berth", sizeof(L"Box on a berth"));
            status = Irp->IoStatus.Information == 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
        }
        break;
    case IRP_MN_QUERY_BUS_INFORMATION:
        bus = ExAllocatePoolWithTag(PagedPool, sizeof(*bus), KIT_TAG);
        status = STATUS_INSUFFICIENT_RESOURCES;
        if (bus != NULL) {
            bus->BusTypeGuid = BerthBusType;
            bus->LegacyBusType = PNPBus;
            bus->BusNumber = 0;
            Irp->IoStatus.Information = (ULONG_PTR)bus;
            status = STATUS_SUCCESS;
        }
        break;
    case IRP_MN_QUERY_DEVICE_RELATIONS:
        if (sp->Parameters.QueryDeviceRelations.Type == TargetDeviceRelation) {
            relations = ExAllocatePoolWithTag(PagedPool, sizeof(*relations), KIT_TAG);
            status = STATUS_INSUFFICIENT_RESOURCES;
            if (relations != NULL) {
                ObReferenceObject(Device);
                relations->Count = 1;
                relations->Objects[0] = Device;
                Irp->IoStatus.Information = (ULONG_PTR)relations;
                status = STATUS_SUCCESS;
            }
        }
        break;
    default:
        break;
    }
    Irp->IoStatus.Status = status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

/* ---- the bus ---- */

/* Mutex held. */
static ULONG CountPresent(BUS *Bus)
{
    PLIST_ENTRY e;
    ULONG n = 0;

    for (e = Bus->Children.Flink; e != &Bus->Children; e = e->Flink) {
        if (CONTAINING_RECORD(e, CHILD, Entry)->Present) {
            n++;
        }
    }
    return n;
}

static NTSTATUS BusRelationsOf(BUS *Bus, PIRP Irp)
{
    PDEVICE_RELATIONS old = (PDEVICE_RELATIONS)Irp->IoStatus.Information, relations;
    ULONG before = old == NULL ? 0 : old->Count, count, n;
    PLIST_ENTRY e;

    for (;;) {
        ExAcquireFastMutex(&BerthMutex);
        count = CountPresent(Bus);
        ExReleaseFastMutex(&BerthMutex);

        /* Not with the mutex held: an allocation can wait for the disk. */
        relations = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(DEVICE_RELATIONS, Objects) + (before + count) * sizeof(PDEVICE_OBJECT), KIT_TAG);
        if (relations == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        ExAcquireFastMutex(&BerthMutex);
#ifdef FIXED
        if (CountPresent(Bus) > count) {
            ExReleaseFastMutex(&BerthMutex);
            ExFreePoolWithTag(relations, KIT_TAG);
            continue;
        }
#endif
        break;
    }
    for (n = 0; n < before; n++) {
        relations->Objects[n] = old->Objects[n];
    }
    for (e = Bus->Children.Flink; e != &Bus->Children; e = e->Flink) {
        CHILD *child = CONTAINING_RECORD(e, CHILD, Entry);

        if (child->Present) {
            ObReferenceObject(child->Kit.Self);
            relations->Objects[n++] = child->Kit.Self;
            child->Known = TRUE;
        } else {
            child->Missing = TRUE;
        }
    }
    relations->Count = n;
    ExReleaseFastMutex(&BerthMutex);
    if (old != NULL) {
        ExFreePool(old);
    }
    Irp->IoStatus.Information = (ULONG_PTR)relations;
    return STATUS_SUCCESS;
}

static NTSTATUS Plug(BUS *Bus, ULONG Serial)
{
    NTSTATUS status;
    PDEVICE_OBJECT device;
    PLIST_ENTRY e;
    CHILD *child;

    status = IoCreateDevice(Bus->Kit.Self->DriverObject, sizeof(CHILD), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_AUTOGENERATED_DEVICE_NAME | FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    child = device->DeviceExtension;
    child->Kit.Self = device;
    child->Bus = Bus;
    child->Serial = Serial;
    child->Present = TRUE;
    device->Flags |= DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;

    ExAcquireFastMutex(&BerthMutex);
    if (Bus->Closed) {
        status = STATUS_DELETE_PENDING;
    }
    for (e = Bus->Children.Flink; e != &Bus->Children; e = e->Flink) {
        if (CONTAINING_RECORD(e, CHILD, Entry)->Serial == Serial) {
            status = STATUS_OBJECT_NAME_COLLISION;
        }
    }
    if (NT_SUCCESS(status)) {
        InsertTailList(&Bus->Children, &child->Entry);
    }
    ExReleaseFastMutex(&BerthMutex);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    IoInvalidateDeviceRelations(Bus->Kit.Pdo, BusRelations);
    return STATUS_SUCCESS;
}

static NTSTATUS Unplug(BUS *Bus, ULONG Serial)
{
    PDEVICE_OBJECT unknown = NULL;
    NTSTATUS status = STATUS_NOT_FOUND;
    PLIST_ENTRY e;

    ExAcquireFastMutex(&BerthMutex);
    for (e = Bus->Children.Flink; e != &Bus->Children; e = e->Flink) {
        CHILD *child = CONTAINING_RECORD(e, CHILD, Entry);

        if (child->Serial == Serial && child->Present) {
            child->Present = FALSE;
            if (!child->Known) { /* PnP does not know it and will not ask to remove it */
                RemoveEntryList(e);
                unknown = child->Kit.Self;
            }
            status = STATUS_SUCCESS;
            break;
        }
    }
    ExReleaseFastMutex(&BerthMutex);
    if (unknown != NULL) {
        IoDeleteDevice(unknown);
    } else if (NT_SUCCESS(status)) {
        IoInvalidateDeviceRelations(Bus->Kit.Pdo, BusRelations);
    }
    return status;
}

static NTSTATUS List(BUS *Bus, PULONG Out, ULONG Room, ULONG_PTR *Information)
{
    NTSTATUS status = STATUS_SUCCESS;
    PLIST_ENTRY e;
    ULONG n = 0;

    ExAcquireFastMutex(&BerthMutex);
    for (e = Bus->Children.Flink; e != &Bus->Children; e = e->Flink) {
        CHILD *child = CONTAINING_RECORD(e, CHILD, Entry);

        if (child->Present) {
            if (n == Room) {
                status = STATUS_BUFFER_OVERFLOW;
                break;
            }
            Out[n++] = child->Serial;
        }
    }
    ExReleaseFastMutex(&BerthMutex);
    *Information = n * sizeof(ULONG);
    return status;
}

static NTSTATUS BusStart(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated)
{
    BUS *bus = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Translated);
    bus->Closed = FALSE;
    return STATUS_SUCCESS;
}

static VOID BusDrain(PDEVICE_OBJECT Device)
{
    BUS *bus = Device->DeviceExtension;

    ExAcquireFastMutex(&BerthMutex);
    bus->Closed = TRUE;
    ExReleaseFastMutex(&BerthMutex);
    if (bus->Kit.State != KitRemoved) {
        return;
    }
    /* The bus goes: its children have been removed before it, or wait for their last handle. */
    for (;;) {
        PDEVICE_OBJECT device = NULL;

        ExAcquireFastMutex(&BerthMutex);
        if (!IsListEmpty(&bus->Children)) {
            CHILD *child = CONTAINING_RECORD(RemoveHeadList(&bus->Children), CHILD, Entry);

            device = child->Kit.Self;
            if (child->Surprised) {
                child->Bus = NULL; /* it deletes itself */
                ExReleaseFastMutex(&BerthMutex);
                continue;
            }
        }
        ExReleaseFastMutex(&BerthMutex);
        if (device == NULL) {
            break;
        }
        IoDeleteDevice(device);
    }
}

static VOID BusStop(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Present);
}

static const KIT_OPS BusOps = {BusStart, BusDrain, BusStop, NULL, NULL};

/* ---- dispatch ---- */

static BOOLEAN IsChild(PDEVICE_OBJECT Device)
{
    return (BOOLEAN)(((KIT *)Device->DeviceExtension)->Lower == NULL);
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    BUS *bus = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    if (IsChild(Device)) {
        return ChildPnp(Device, Irp);
    }
    if (sp->MinorFunction == IRP_MN_QUERY_DEVICE_RELATIONS && sp->Parameters.QueryDeviceRelations.Type == BusRelations) {
        status = BusRelationsOf(bus, Irp);
        Irp->IoStatus.Status = status;
        if (!NT_SUCCESS(status)) {
            IoCompleteRequest(Irp, IO_NO_INCREMENT);
            return status;
        }
    }
    return KitPnp(Device, Irp);
}

static NTSTATUS NTAPI Power(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;

    if (!IsChild(Device)) {
        return KitPowerPass(Device, Irp);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        if (sp->Parameters.Power.Type == DevicePowerState) {
            PoSetPowerState(Device, DevicePowerState, sp->Parameters.Power.State);
        }
        status = STATUS_SUCCESS;
    } else if (sp->MinorFunction == IRP_MN_QUERY_POWER) {
        status = STATUS_SUCCESS;
    }
    PoStartNextPowerIrp(Irp);
    Irp->IoStatus.Status = status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI SystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    NTSTATUS status = Irp->IoStatus.Status;

    if (!IsChild(Device)) {
        return KitPass(Device, Irp);
    }
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI Open(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (IsChild(Device)) {
        return KitComplete(Irp, STATUS_SUCCESS, 0); /* a raw device: it can be opened, and does nothing */
    }
    return KitOpen(Device, Irp);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    BUS *bus = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    BOOLEAN serial = (BOOLEAN)(sp->Parameters.DeviceIoControl.InputBufferLength >= sizeof(ULONG));
    ULONG_PTR information = 0;
    NTSTATUS status;

    if (IsChild(Device)) {
        return KitComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    status = IoAcquireRemoveLock(&bus->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BERTH_PLUG:
        status = serial ? Plug(bus, *buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_BERTH_UNPLUG:
        status = serial ? Unplug(bus, *buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_BERTH_LIST:
        status = List(bus, buffer, sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(ULONG), &information);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitFinish(&bus->Kit, Irp, status, information);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;
    BUS *bus;

    status = KitAdd(Driver, Pdo, sizeof(BUS), &BusOps, &BerthInterface, 0, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    bus = device->DeviceExtension;
    InitializeListHead(&bus->Children);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    ExInitializeFastMutex(&BerthMutex);
    KitDriver(Driver, AddDevice, Control, FALSE);
    Driver->MajorFunction[IRP_MJ_CREATE] = Open;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->MajorFunction[IRP_MJ_POWER] = Power;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SystemControl;
    return STATUS_SUCCESS;
}
