/*
 * portnest - software bus of virtual test ports.
 *
 * A test program opens the bus by its interface and plugs ports in and out:
 *
 *   IOCTL_NEST_PLUG    out: ULONG serial number of the new port
 *   IOCTL_NEST_UNPLUG  in:  ULONG serial number
 *   IOCTL_NEST_COUNT   out: ULONG ports plugged in
 *
 * Every port is a device PORTNEST\VirtualPort, with its serial number as the
 * instance id, for which any function driver can be installed.
 *
 * The bug: a child that is unplugged is deleted by its removal though it was not missing yet in a list of the bus.
 *
 * Device: ROOT\PORTNEST
 * Rule: use-after-free
 * Needs: ioctl, removal
 */
#include <ddk/wdm.h>

#define NEST_TAG   'tseN'
#define NEST_LIMIT 32

#define IOCTL_NEST_PLUG   CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0x8D0, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_NEST_UNPLUG CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0x8D1, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_NEST_COUNT  CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0x8D2, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID GUID_NEST = { 0x90e7f4b3, 0x1a3d, 0x46b1, { 0xb2, 0x61, 0x8c, 0x77, 0x02, 0xe5, 0x4f, 0x29 } };

typedef struct _COMMON {
    BOOLEAN        IsBus;
    PDEVICE_OBJECT Self;
} COMMON, *PCOMMON;

typedef struct _BUS {
    COMMON         C;
    PDEVICE_OBJECT Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN        Started;         /* these under g_Lock */
    ULONG          Count;           /* in Ports */
    LIST_ENTRY     Ports;
} BUS, *PBUS;

typedef struct _PORT {
    COMMON     C;
    LIST_ENTRY Link;                /* these under g_Lock */
    PBUS       Bus;                 /* NULL: not in its list any more */
    BOOLEAN    Plugged;             /* the test program has not pulled it */
    BOOLEAN    Reported;            /* in the last list the PnP manager got */
    BOOLEAN    Surprised;
    ULONG      Serial;              /* constant */
} PORT, *PPORT;

static FAST_MUTEX g_Lock;
static ULONG g_Serial;

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---------------------------------------------------------------- ports -- */

static PWCHAR PortId(PPORT p, BUS_QUERY_ID_TYPE type)
{
    static const WCHAR id[] = L"PORTNEST\\VirtualPort\0";   /* and one more NUL: serves as a list, too */
    PWCHAR s;
    ULONG i, v = p->Serial;

    if (type == BusQueryDeviceID || type == BusQueryHardwareIDs) {
        s = ExAllocatePoolWithTag(PagedPool, sizeof(id), NEST_TAG);
        if (s != NULL)
            RtlCopyMemory(s, id, sizeof(id));
        return s;
    }
    s = ExAllocatePoolWithTag(PagedPool, 9 * sizeof(WCHAR), NEST_TAG);
    if (s != NULL) {
        for (i = 0; i < 8; i++, v <<= 4)
            s[i] = L"0123456789ABCDEF"[v >> 28];
        s[8] = 0;
    }
    return s;
}

static NTSTATUS PortRelations(PPORT p, PIRP Irp)
{
    PDEVICE_RELATIONS rel = ExAllocatePoolWithTag(PagedPool, sizeof(*rel), NEST_TAG);

    if (rel == NULL)
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    rel->Count = 1;
    rel->Objects[0] = p->C.Self;
    ObReferenceObject(p->C.Self);
    return Complete(Irp, STATUS_SUCCESS, (ULONG_PTR)rel);
}

static NTSTATUS PortRemove(PPORT p, PIRP Irp)
{
    BOOLEAN gone = FALSE;
    PDEVICE_OBJECT self = p->C.Self;

    ExAcquireFastMutex(&g_Lock);
    if (p->Bus == NULL) {
        gone = TRUE;
#ifdef FIXED
    } else if (!p->Plugged && !p->Reported) {
#else
    } else if (!p->Plugged) {
#endif
        RemoveEntryList(&p->Link);
        p->Bus->Count--;
        p->Bus = NULL;
        gone = TRUE;
    }
    p->Surprised = FALSE;
    ExReleaseFastMutex(&g_Lock);

    if (gone)
        IoDeleteDevice(self);       /* the request still holds a reference */
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS PortPnp(PPORT p, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE_CAPABILITIES caps;
    PWCHAR id;

    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        return Complete(Irp, STATUS_SUCCESS, 0);

    case IRP_MN_SURPRISE_REMOVAL:
        ExAcquireFastMutex(&g_Lock);
        p->Surprised = TRUE;
        ExReleaseFastMutex(&g_Lock);
        return Complete(Irp, STATUS_SUCCESS, 0);

    case IRP_MN_REMOVE_DEVICE:
        return PortRemove(p, Irp);

    case IRP_MN_QUERY_ID:
        switch (sl->Parameters.QueryId.IdType) {
        case BusQueryDeviceID:
        case BusQueryHardwareIDs:
        case BusQueryInstanceID:
            id = PortId(p, sl->Parameters.QueryId.IdType);
            return Complete(Irp, id ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES, (ULONG_PTR)id);
        default:
            break;
        }
        break;

    case IRP_MN_QUERY_CAPABILITIES:
        caps = sl->Parameters.DeviceCapabilities.Capabilities;
        if (caps->Version != 1 || caps->Size < sizeof(*caps))
            return Complete(Irp, STATUS_UNSUCCESSFUL, 0);
        caps->UniqueID = TRUE;
        caps->Removable = TRUE;
        caps->SurpriseRemovalOK = TRUE;
        caps->Address = p->Serial;
        caps->UINumber = p->Serial;
        caps->DeviceState[PowerSystemWorking] = PowerDeviceD0;
        caps->DeviceState[PowerSystemSleeping1] = PowerDeviceD3;
        caps->DeviceState[PowerSystemSleeping2] = PowerDeviceD3;
        caps->DeviceState[PowerSystemSleeping3] = PowerDeviceD3;
        caps->DeviceState[PowerSystemHibernate] = PowerDeviceD3;
        caps->DeviceState[PowerSystemShutdown] = PowerDeviceD3;
        return Complete(Irp, STATUS_SUCCESS, Irp->IoStatus.Information);

    case IRP_MN_QUERY_DEVICE_RELATIONS:
        if (sl->Parameters.QueryDeviceRelations.Type == TargetDeviceRelation)
            return PortRelations(p, Irp);
        break;

    default:
        break;
    }
    return Complete(Irp, Irp->IoStatus.Status, Irp->IoStatus.Information);
}

static NTSTATUS PortPower(PPORT p, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;

    if (sl->MinorFunction == IRP_MN_SET_POWER) {
        if (sl->Parameters.Power.Type == DevicePowerState)
            PoSetPowerState(p->C.Self, DevicePowerState, sl->Parameters.Power.State);
        status = STATUS_SUCCESS;
    } else if (sl->MinorFunction == IRP_MN_QUERY_POWER) {
        status = STATUS_SUCCESS;
    }
    PoStartNextPowerIrp(Irp);
    return Complete(Irp, status, Irp->IoStatus.Information);
}

/* ------------------------------------------------------------------ bus -- */

static NTSTATUS BusPlug(PBUS bus, PULONG serial)
{
    PDEVICE_OBJECT dev;
    PPORT p;
    NTSTATUS status;

    status = IoCreateDevice(bus->C.Self->DriverObject, sizeof(PORT), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_AUTOGENERATED_DEVICE_NAME | FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    p = dev->DeviceExtension;
    RtlZeroMemory(p, sizeof(*p));
    p->C.Self = dev;
    p->Bus = bus;
    p->Plugged = TRUE;
    dev->Flags |= DO_POWER_PAGABLE;

    ExAcquireFastMutex(&g_Lock);
    if (!bus->Started || bus->Count >= NEST_LIMIT) {
        ExReleaseFastMutex(&g_Lock);
        IoDeleteDevice(dev);
        return STATUS_DEVICE_NOT_READY;
    }
    *serial = p->Serial = ++g_Serial;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    InsertTailList(&bus->Ports, &p->Link);
    bus->Count++;
    ExReleaseFastMutex(&g_Lock);

    IoInvalidateDeviceRelations(bus->Pdo, BusRelations);
    return STATUS_SUCCESS;
}

static NTSTATUS BusUnplug(PBUS bus, ULONG serial)
{
    PLIST_ENTRY e;
    PDEVICE_OBJECT unknown = NULL;
    NTSTATUS status = STATUS_NOT_FOUND;

    ExAcquireFastMutex(&g_Lock);
    for (e = bus->Ports.Flink; e != &bus->Ports; e = e->Flink) {
        PPORT p = CONTAINING_RECORD(e, PORT, Link);
        if (p->Serial == serial && p->Plugged) {
            p->Plugged = FALSE;
            if (!p->Reported) {
                /* pulled before the PnP manager saw it: no removal will come */
                RemoveEntryList(&p->Link);
                bus->Count--;
                unknown = p->C.Self;
            }
            status = STATUS_SUCCESS;
            break;
        }
    }
    ExReleaseFastMutex(&g_Lock);
    if (unknown != NULL)
        IoDeleteDevice(unknown);
    else if (NT_SUCCESS(status))
        IoInvalidateDeviceRelations(bus->Pdo, BusRelations);
    return status;
}

static NTSTATUS BusControl(PBUS bus, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLen = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLen = sl->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    ULONG n = 0;
    PLIST_ENTRY e;
    NTSTATUS status = IoAcquireRemoveLock(&bus->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_NEST_PLUG:
        if (outLen < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = BusPlug(bus, &n);
        if (NT_SUCCESS(status)) {
            *buf = n;
            info = sizeof(ULONG);
        }
        break;
    case IOCTL_NEST_UNPLUG:
        status = inLen < sizeof(ULONG) ? STATUS_INFO_LENGTH_MISMATCH : BusUnplug(bus, *buf);
        break;
    case IOCTL_NEST_COUNT:
        if (outLen < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&g_Lock);
        for (e = bus->Ports.Flink; e != &bus->Ports; e = e->Flink)
            n += CONTAINING_RECORD(e, PORT, Link)->Plugged;
        ExReleaseFastMutex(&g_Lock);
        *buf = n;
        info = sizeof(ULONG);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    Complete(Irp, status, info);
    IoReleaseRemoveLock(&bus->RemoveLock, Irp);
    return status;
}

/* Adds our ports to the list in the request; the request goes on down if this succeeds. */
static NTSTATUS BusRelationsAdd(PBUS bus, PIRP Irp)
{
    PDEVICE_RELATIONS old = (PDEVICE_RELATIONS)Irp->IoStatus.Information, rel;
    ULONG have = old != NULL ? old->Count : 0, i;
    PDEVICE_OBJECT *from, *to;
    PLIST_ENTRY e;

    ExAcquireFastMutex(&g_Lock);
    rel = ExAllocatePoolWithTag(PagedPool, sizeof(*rel) + (have + bus->Count) * sizeof(PDEVICE_OBJECT), NEST_TAG);
    if (rel != NULL) {
        to = rel->Objects;
        for (i = 0, from = old != NULL ? old->Objects : NULL; i < have; i++)
            *to++ = *from++;
        for (e = bus->Ports.Flink; e != &bus->Ports; e = e->Flink) {
            PPORT p = CONTAINING_RECORD(e, PORT, Link);
            p->Reported = p->Plugged;
            if (p->Plugged) {
                ObReferenceObject(p->C.Self);
                *to++ = p->C.Self;
            }
        }
        rel->Count = (ULONG)(to - rel->Objects);
    } else {
        for (i = 0, from = old != NULL ? old->Objects : NULL; i < have; i++)
            ObDereferenceObject(*from++);
    }
    ExReleaseFastMutex(&g_Lock);

    if (old != NULL)
        ExFreePool(old);
    Irp->IoStatus.Information = (ULONG_PTR)rel;
    Irp->IoStatus.Status = rel != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
    return Irp->IoStatus.Status;
}

/* The bus goes: deletes the ports, except those which still await their own removal. */
static VOID BusDropPorts(PBUS bus)
{
    for (;;) {
        PPORT p = NULL;
        BOOLEAN waits = FALSE;

        ExAcquireFastMutex(&g_Lock);
        if (!IsListEmpty(&bus->Ports)) {
            p = CONTAINING_RECORD(RemoveHeadList(&bus->Ports), PORT, Link);
            bus->Count--;
            p->Bus = NULL;
            waits = p->Surprised;
        }
        ExReleaseFastMutex(&g_Lock);
        if (p == NULL)
            return;
        if (!waits)
            IoDeleteDevice(p->C.Self);
    }
}

static VOID BusSetStarted(PBUS bus, BOOLEAN started)
{
    ExAcquireFastMutex(&g_Lock);
    bus->Started = started;
    ExReleaseFastMutex(&g_Lock);
}

static NTSTATUS BusPnp(PBUS bus, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&bus->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(bus->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status))
            status = IoSetDeviceInterfaceState(&bus->Interface, TRUE);
        if (NT_SUCCESS(status)) {
            status = STATUS_SUCCESS;
            BusSetStarted(bus, TRUE);
        }
        Complete(Irp, status, 0);
        IoReleaseRemoveLock(&bus->RemoveLock, Irp);
        return status;

    case IRP_MN_QUERY_DEVICE_RELATIONS:
        if (sl->Parameters.QueryDeviceRelations.Type == BusRelations) {
            status = BusRelationsAdd(bus, Irp);
            if (!NT_SUCCESS(status)) {
                IoCompleteRequest(Irp, IO_NO_INCREMENT);
                IoReleaseRemoveLock(&bus->RemoveLock, Irp);
                return status;
            }
        }
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        BusSetStarted(bus, FALSE);
        IoSetDeviceInterfaceState(&bus->Interface, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        BusSetStarted(bus, FALSE);
        IoSetDeviceInterfaceState(&bus->Interface, FALSE);
        IoReleaseRemoveLockAndWait(&bus->RemoveLock, Irp);
        BusDropPorts(bus);
        RtlFreeUnicodeString(&bus->Interface);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(bus->Lower, Irp);
        IoDetachDevice(bus->Lower);
        IoDeleteDevice(bus->C.Self);
        return status;

    case IRP_MN_STOP_DEVICE:
        BusSetStarted(bus, FALSE);
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(bus->Lower, Irp);
    IoReleaseRemoveLock(&bus->RemoveLock, Irp);
    return status;
}

/* Power and WMI requests of the bus. */
static NTSTATUS BusPassOn(PBUS bus, PIRP Irp, BOOLEAN power)
{
    NTSTATUS status = IoAcquireRemoveLock(&bus->RemoveLock, Irp);

    if (power)
        PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = power ? PoCallDriver(bus->Lower, Irp) : IoCallDriver(bus->Lower, Irp);
    IoReleaseRemoveLock(&bus->RemoveLock, Irp);
    return status;
}

static NTSTATUS Dispatch(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PCOMMON c = Dev->DeviceExtension;

    switch (IoGetCurrentIrpStackLocation(Irp)->MajorFunction) {
    case IRP_MJ_PNP:
        return c->IsBus ? BusPnp((PBUS)c, Irp) : PortPnp((PPORT)c, Irp);
    case IRP_MJ_POWER:
        return c->IsBus ? BusPassOn((PBUS)c, Irp, TRUE) : PortPower((PPORT)c, Irp);
    case IRP_MJ_SYSTEM_CONTROL:
        if (c->IsBus)
            return BusPassOn((PBUS)c, Irp, FALSE);
        return Complete(Irp, Irp->IoStatus.Status, Irp->IoStatus.Information);
    case IRP_MJ_DEVICE_CONTROL:
        if (c->IsBus)
            return BusControl((PBUS)c, Irp);
        break;
    default:
        if (c->IsBus)
            return Complete(Irp, STATUS_SUCCESS, 0);
        break;
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS AddDevice(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PBUS bus;
    NTSTATUS status;

    status = IoCreateDevice(Drv, sizeof(BUS), NULL, FILE_DEVICE_BUS_EXTENDER, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    bus = dev->DeviceExtension;
    RtlZeroMemory(bus, sizeof(*bus));
    bus->C.IsBus = TRUE;
    bus->C.Self = dev;
    bus->Pdo = Pdo;
    IoInitializeRemoveLock(&bus->RemoveLock, NEST_TAG, 0, 0);
    InitializeListHead(&bus->Ports);
    status = IoRegisterDeviceInterface(Pdo, &GUID_NEST, NULL, &bus->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    bus->Lower = IoAttachDeviceToDeviceStack(dev, Pdo);
    if (bus->Lower == NULL) {
        RtlFreeUnicodeString(&bus->Interface);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID Unload(PDRIVER_OBJECT Drv) { UNREFERENCED_PARAMETER(Drv); }

NTSTATUS DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    ExInitializeFastMutex(&g_Lock);
    Drv->DriverExtension->AddDevice = AddDevice;
    Drv->DriverUnload = Unload;
    Drv->MajorFunction[IRP_MJ_CREATE] = Dispatch;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = Dispatch;
    Drv->MajorFunction[IRP_MJ_CLOSE] = Dispatch;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Dispatch;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = Dispatch;
    Drv->MajorFunction[IRP_MJ_POWER] = Dispatch;
    Drv->MajorFunction[IRP_MJ_PNP] = Dispatch;
    return STATUS_SUCCESS;
}
