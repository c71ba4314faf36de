/*
 * rack_bus.h - device extensions of rackbus, and its child devices as the PnP
 * manager sees them
 */
#pragma once

typedef struct _RB_COMMON {
    BOOLEAN        IsBus;
    PDEVICE_OBJECT Self;
} RB_COMMON, *PRB_COMMON;

typedef struct _RB_BUS {
    RB_COMMON      Common;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN        Started;             /* RbLock */
    LIST_ENTRY     Blades;              /* RbLock */
} RB_BUS, *PRB_BUS;

typedef struct _RB_BLADE {
    RB_COMMON      Common;
    LIST_ENTRY     Link;                /* RbLock, like the rest */
    ULONG          Slot;
    BOOLEAN        Present;             /* in the rack */
    BOOLEAN        Known;               /* has been reported at least once */
    BOOLEAN        ReportedMissing;     /* has been left out of a report */
    BOOLEAN        SurpriseRemoved;
} RB_BLADE, *PRB_BLADE;

/* One lock for all racks: a blade that is open may outlive its rack. */
static FAST_MUTEX RbLock;

static NTSTATUS RbComplete(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS RbPagedCopy(PIRP Irp, const VOID *Data, ULONG Length)
{
    PVOID p = ExAllocatePoolWithTag(PagedPool, Length, RB_TAG);

    if (!p)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(p, Data, Length);
    Irp->IoStatus.Information = (ULONG_PTR)p;
    return STATUS_SUCCESS;
}

static NTSTATUS RbBladeId(PRB_BLADE Blade, PIRP Irp, BUS_QUERY_ID_TYPE Type)
{
    static const WCHAR deviceId[] = L"RACKBUS\\Blade";
    static const WCHAR hardware[] = L"RACKBUS\\Blade\0";
    static const WCHAR compatible[] = L"RACKBUS\\Generic\0";
    WCHAR instance[3];

    switch (Type) {
    case BusQueryDeviceID:
        return RbPagedCopy(Irp, deviceId, sizeof(deviceId));
    case BusQueryHardwareIDs:
        return RbPagedCopy(Irp, hardware, sizeof(hardware));
    case BusQueryCompatibleIDs:
        return RbPagedCopy(Irp, compatible, sizeof(compatible));
    case BusQueryInstanceID:
        instance[0] = (WCHAR)(L'0' + Blade->Slot / 10);
        instance[1] = (WCHAR)(L'0' + Blade->Slot % 10);
        instance[2] = 0;
        return RbPagedCopy(Irp, instance, sizeof(instance));
    default:
        return Irp->IoStatus.Status;
    }
}

static NTSTATUS RbBladePnp(PRB_BLADE Blade, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE_CAPABILITIES caps;
    PNP_BUS_INFORMATION info;
    DEVICE_RELATIONS self;
    BOOLEAN gone;
    NTSTATUS status = Irp->IoStatus.Status;
    ULONG i;

    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        ExAcquireFastMutex(&RbLock);
        Blade->SurpriseRemoved = TRUE;
        ExReleaseFastMutex(&RbLock);
        status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        ExAcquireFastMutex(&RbLock);
        gone = Blade->ReportedMissing;
        Blade->SurpriseRemoved = FALSE;
        if (gone) {
            RemoveEntryList(&Blade->Link);
            InitializeListHead(&Blade->Link);
        }
        ExReleaseFastMutex(&RbLock);
        if (gone)
            IoDeleteDevice(Blade->Common.Self);
        status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_CAPABILITIES:
        caps = sl->Parameters.DeviceCapabilities.Capabilities;
        if (caps->Version != 1 || caps->Size < sizeof(DEVICE_CAPABILITIES)) {
            status = STATUS_UNSUCCESSFUL;
            break;
        }
        caps->Removable = 1;
        caps->SurpriseRemovalOK = 1;
        caps->RawDeviceOK = 1;
        caps->Address = Blade->Slot;
        caps->UINumber = Blade->Slot;
        caps->DeviceState[PowerSystemWorking] = PowerDeviceD0;
        for (i = PowerSystemSleeping1; i < PowerSystemMaximum; i++)
            caps->DeviceState[i] = PowerDeviceD3;
        status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_ID:
        status = RbBladeId(Blade, Irp, sl->Parameters.QueryId.IdType);
        break;

    case IRP_MN_QUERY_DEVICE_TEXT:
        if (sl->Parameters.QueryDeviceText.DeviceTextType == DeviceTextDescription)
            status = RbPagedCopy(Irp, L"Rack blade", sizeof(L"Rack blade"));
        break;

    case IRP_MN_QUERY_BUS_INFORMATION:
        info.BusTypeGuid = RbBusGuid;
        info.LegacyBusType = PNPBus;
        info.BusNumber = 0;
        status = RbPagedCopy(Irp, &info, sizeof(info));
        break;

    case IRP_MN_QUERY_DEVICE_RELATIONS:
        if (sl->Parameters.QueryDeviceRelations.Type == TargetDeviceRelation) {
            RtlZeroMemory(&self, sizeof(self));
            self.Count = 1;
            self.Objects[0] = Blade->Common.Self;
            status = RbPagedCopy(Irp, &self, sizeof(self));
            if (NT_SUCCESS(status))
                ObReferenceObject(Blade->Common.Self);
        }
        break;
    }
    return RbComplete(Irp, status);
}
