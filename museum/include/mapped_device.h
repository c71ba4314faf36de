/* mapped_device.h: the common part of a function driver: AddDevice, PnP, power (as the policy owner), opening and closing. */
#ifndef FDO_H
#define FDO_H

#define FDO_MAPPED  1       /* has its resources */
#define FDO_POWERED 2       /* in D0 */
#define FDO_GONE    4       /* removed, or about to be */

struct FDO_HOOKS;

typedef struct FDO {
    PDEVICE_OBJECT Self, Pdo, Lower;
    const struct FDO_HOOKS *Hooks;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    KSPIN_LOCK HwLock;      /* guards State and Live, and every touch of the hardware */
    ULONG State;
    BOOLEAN Live;           /* mapped, in D0 and present: registers may be touched */
} FDO;

typedef struct FDO_HOOKS {
    ULONG Size;                                             /* of the device extension */
    ULONG Flags;                                            /* DO_BUFFERED_IO or DO_DIRECT_IO */
    const GUID *Interface;
    NTSTATUS (*Init)(FDO *f);                               /* once; what it makes, Free takes away */
    VOID (*Free)(FDO *f);
    NTSTATUS (*Map)(FDO *f, PCM_RESOURCE_LIST translated);  /* a failure is followed by Unmap */
    VOID (*Unmap)(FDO *f);                                  /* may be called again */
    VOID (*Wake)(FDO *f);                                   /* under HwLock; Live */
    VOID (*Quiet)(FDO *f, BOOLEAN present);                 /* under HwLock; no longer Live after it */
    VOID (*Flush)(FDO *f, PFILE_OBJECT file);               /* completes the waiting requests of a handle; NULL: all, for good */
    NTSTATUS (*Request)(FDO *f, PIRP irp, PIO_STACK_LOCATION sp);
    VOID (*Drain)(FDO *f);                                  /* or NULL: at PASSIVE_LEVEL, before a stop, D3 or removal */
} FDO_HOOKS;

static const FDO_HOOKS Hooks;       /* the driver's */

static VOID FdoChange(FDO *f, ULONG set, ULONG clear)
{
    KIRQL irql;
    BOOLEAN want;

    KeAcquireSpinLock(&f->HwLock, &irql);
    f->State = (f->State & ~clear) | set;
    want = (f->State & (FDO_MAPPED | FDO_POWERED | FDO_GONE)) == (FDO_MAPPED | FDO_POWERED);
    if (f->Live && !want) {
        f->Hooks->Quiet(f, !(f->State & FDO_GONE));
        f->Live = FALSE;
    } else if (!f->Live && want) {
        f->Live = TRUE;
        f->Hooks->Wake(f);
    }
    KeReleaseSpinLock(&f->HwLock, irql);
}

static NTSTATUS FdoComplete(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* The n-th translated resource of a type. */
static inline PCM_PARTIAL_RESOURCE_DESCRIPTOR FdoFind(PCM_RESOURCE_LIST list, UCHAR type, ULONG n)
{
    ULONG i;
    if (!list || list->Count == 0)
        return NULL;
    for (i = 0; i < list->List[0].PartialResourceList.Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = list->List[0].PartialResourceList.PartialDescriptors + i;
        if (d->Type == type && n-- == 0)
            return d;
    }
    return NULL;
}

static inline NTSTATUS FdoConnect(PCM_RESOURCE_LIST list, PKSERVICE_ROUTINE isr, PVOID context, PKINTERRUPT *interrupt)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = FdoFind(list, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    if (!d)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    status = IoConnectInterrupt(interrupt, isr, context, NULL, d->u.Interrupt.Vector, (KIRQL)d->u.Interrupt.Level,
        (KIRQL)d->u.Interrupt.Level, (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
        d->ShareDisposition == CmResourceShareShared, d->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status))
        *interrupt = NULL;
    return status;
}

static NTSTATUS NTAPI FdoCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    FDO *f = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = STATUS_SUCCESS;

    if (sp->MajorFunction == IRP_MJ_CREATE) {
        KIRQL irql;
        KeAcquireSpinLock(&f->HwLock, &irql);
        if (f->State & FDO_GONE)
            status = STATUS_DELETE_PENDING;
        KeReleaseSpinLock(&f->HwLock, irql);
    } else {        /* at closing once more, for what a request may have left behind the cleanup */
        NTSTATUS held = IoAcquireRemoveLock(&f->RemoveLock, irp);
        if (NT_SUCCESS(held)) {         /* otherwise nothing waits any more */
            f->Hooks->Flush(f, sp->FileObject);
            IoReleaseRemoveLock(&f->RemoveLock, irp);
        }
    }
    return FdoComplete(irp, status, 0);
}

static NTSTATUS NTAPI FdoRequest(PDEVICE_OBJECT dev, PIRP irp)
{
    FDO *f = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(irp, status, 0);
    irp->IoStatus.Information = 0;
    status = f->Hooks->Request(f, irp, IoGetCurrentIrpStackLocation(irp));
    if (status != STATUS_PENDING)
        FdoComplete(irp, status, NT_ERROR(status) ? 0 : irp->IoStatus.Information);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI FdoSystemControl(PDEVICE_OBJECT dev, PIRP irp)
{
    FDO *f = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(irp, status, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(f->Lower, irp);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return status;
}

/* The device's own power request has been done: so is the system's. */
static VOID NTAPI FdoDevicePowerDone(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK ios)
{
    PIRP irp = context;
    FDO *f = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    irp->IoStatus.Status = ios->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
}

static NTSTATUS NTAPI FdoSystemPowerBelowDone(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    FDO *f = context;
    POWER_STATE state;
    NTSTATUS status = irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(status)) {
        state.DeviceState = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State.SystemState == PowerSystemWorking
            ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(f->Pdo, IRP_MN_SET_POWER, state, FdoDevicePowerDone, irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = status;
    }
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FdoPoweredUp(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    FDO *f = context;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        POWER_STATE state;
        state.DeviceState = PowerDeviceD0;
        FdoChange(f, FDO_POWERED, 0);
        PoSetPowerState(f->Self, DevicePowerState, state);
    }
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FdoPower(PDEVICE_OBJECT dev, PIRP irp)
{
    FDO *f = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&f->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(irp, status, 0);
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        BOOLEAN system = sp->Parameters.Power.Type == SystemPowerState;
        if (system || sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(irp);
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp, system ? FdoSystemPowerBelowDone : FdoPoweredUp, f, TRUE, TRUE, TRUE);
            PoCallDriver(f->Lower, irp);
            return STATUS_PENDING;
        }
        if (f->Hooks->Drain)
            f->Hooks->Drain(f);
        FdoChange(f, 0, FDO_POWERED);
        PoSetPowerState(f->Self, DevicePowerState, sp->Parameters.Power.State);
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(f->Lower, irp);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI FdoPnp(PDEVICE_OBJECT dev, PIRP irp)
{
    FDO *f = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&f->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(irp, status, 0);
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        if (!IoForwardIrpSynchronously(f->Lower, irp))
            status = STATUS_UNSUCCESSFUL;
        else
            status = irp->IoStatus.Status;
        if (NT_SUCCESS(status)) {
            status = f->Hooks->Map(f, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
            if (NT_SUCCESS(status)) {
                FdoChange(f, FDO_MAPPED | FDO_POWERED, 0);
                IoSetDeviceInterfaceState(&f->Link, TRUE);
            } else {
                f->Hooks->Unmap(f);
            }
        }
        FdoComplete(irp, status, 0);
        IoReleaseRemoveLock(&f->RemoveLock, irp);
        return status;
    case IRP_MN_STOP_DEVICE:
        if (f->Hooks->Drain)
            f->Hooks->Drain(f);
        FdoChange(f, 0, FDO_MAPPED);
        f->Hooks->Unmap(f);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&f->Link, FALSE);
        FdoChange(f, FDO_GONE, 0);
        f->Hooks->Unmap(f);
        f->Hooks->Flush(f, NULL);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&f->Link, FALSE);
        if (f->Hooks->Drain)
            f->Hooks->Drain(f);
        FdoChange(f, 0, FDO_MAPPED);
        FdoChange(f, FDO_GONE, 0);
        f->Hooks->Unmap(f);
        f->Hooks->Flush(f, NULL);
        IoReleaseRemoveLockAndWait(&f->RemoveLock, irp);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(f->Lower, irp);
        f->Hooks->Free(f);
        RtlFreeUnicodeString(&f->Link);
        IoDetachDevice(f->Lower);
        IoDeleteDevice(f->Self);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(f->Lower, irp);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI FdoAddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    FDO *f;
    NTSTATUS status = IoCreateDevice(drv, Hooks.Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(status))
        return status;
    f = dev->DeviceExtension;
    RtlZeroMemory(f, Hooks.Size);
    f->Self = dev;
    f->Pdo = pdo;
    f->Hooks = &Hooks;
    KeInitializeSpinLock(&f->HwLock);
    IoInitializeRemoveLock(&f->RemoveLock, 'kodF', 0, 0);
    status = Hooks.Init(f);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    status = IoRegisterDeviceInterface(pdo, Hooks.Interface, NULL, &f->Link);
    if (NT_SUCCESS(status)) {
        f->Lower = IoAttachDeviceToDeviceStack(dev, pdo);
        if (!f->Lower) {
            RtlFreeUnicodeString(&f->Link);
            status = STATUS_NO_SUCH_DEVICE;
        }
    }
    if (!NT_SUCCESS(status)) {
        Hooks.Free(f);
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags |= Hooks.Flags | DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI FdoUnload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    drv->DriverExtension->AddDevice = FdoAddDevice;
    drv->DriverUnload = FdoUnload;
    drv->MajorFunction[IRP_MJ_CREATE] = FdoCreateClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = FdoCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = FdoCreateClose;
    drv->MajorFunction[IRP_MJ_READ] = FdoRequest;
    drv->MajorFunction[IRP_MJ_WRITE] = FdoRequest;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FdoRequest;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FdoSystemControl;
    drv->MajorFunction[IRP_MJ_POWER] = FdoPower;
    drv->MajorFunction[IRP_MJ_PNP] = FdoPnp;
    return STATUS_SUCCESS;
}

#endif
