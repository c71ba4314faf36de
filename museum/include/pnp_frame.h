/*
 * A small function driver frame for WDM: Plug and Play, power and the remove lock, shared by the drivers of this folder.
 *
 * A driver's extension begins with FDO. The driver supplies:
 *   HwStart  at PASSIVE_LEVEL: take the resources (map, connect, allocate); undo all of it on failure
 *   HwStop   at PASSIVE_LEVEL: give them back
 *   HwUp     at APC_LEVEL, under Gate: the device is in D0, set its registers up
 *   HwDown   at APC_LEVEL, under Gate: the device is about to leave D0, make it quiet
 *   HwFlush  at PASSIVE_LEVEL: the device is gone, end the requests that wait
 */
#ifndef FDO_H
#define FDO_H

typedef struct _FDO {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Lower;
    PDEVICE_OBJECT Pdo;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    FAST_MUTEX Gate;            /* guards Up, and the registers of those who use them at PASSIVE_LEVEL */
    BOOLEAN Started;            /* has its resources; Plug and Play requests only */
    BOOLEAN Up;                 /* started and in D0 */
    BOOLEAN Registered;
    PIO_WORKITEM UpItem;
    PIRP UpIrp;
} FDO, *PFDO;

static NTSTATUS HwStart(PFDO F, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated);
static VOID HwStop(PFDO F);
static VOID HwUp(PFDO F);
static VOID HwDown(PFDO F);
static VOID HwFlush(PFDO F);

static NTSTATUS FdoComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI FdoSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    if (Irp->PendingReturned)
        KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS FdoForwardAndWait(PFDO F, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, FdoSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(F->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static VOID FdoQuiesce(PFDO F)
{
    ExAcquireFastMutex(&F->Gate);
    if (F->Up) {
        HwDown(F);
        F->Up = FALSE;
    }
    ExReleaseFastMutex(&F->Gate);
}

static VOID FdoInterface(PFDO F, BOOLEAN On)
{
    if (F->Interface.Buffer && F->Registered != On) {
        if (NT_SUCCESS(IoSetDeviceInterfaceState(&F->Interface, On)) || !On)
            F->Registered = On;
    }
}

static VOID FdoRelease(PFDO F)
{
    FdoInterface(F, FALSE);
    FdoQuiesce(F);
    if (F->Started) {
        HwStop(F);
        F->Started = FALSE;
    }
}

static NTSTATUS NTAPI FdoPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFDO f = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);

    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = FdoForwardAndWait(f, Irp);
        if (NT_SUCCESS(status))
            status = HwStart(f, sp->Parameters.StartDevice.AllocatedResources,
                             sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(status)) {
            f->Started = TRUE;
            ExAcquireFastMutex(&f->Gate);
            HwUp(f);
            f->Up = TRUE;
            ExReleaseFastMutex(&f->Gate);
            FdoInterface(f, TRUE);
        }
        FdoComplete(Irp, status, 0);
        IoReleaseRemoveLock(&f->RemoveLock, Irp);
        return status;

    case IRP_MN_STOP_DEVICE:
        FdoQuiesce(f);
        if (f->Started) {
            HwStop(f);
            f->Started = FALSE;
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        FdoRelease(f);
        HwFlush(f);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        FdoRelease(f);
        HwFlush(f);
        IoReleaseRemoveLockAndWait(&f->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(f->Lower, Irp);
        IoDetachDevice(f->Lower);
        if (f->Interface.Buffer)
            RtlFreeUnicodeString(&f->Interface);
        IoFreeWorkItem(f->UpItem);
        IoDeleteDevice(DeviceObject);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    default:
        break;
    }

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

static VOID NTAPI FdoUpWork(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PFDO f = Context;
    PIRP irp = f->UpIrp;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(DeviceObject);
    state.DeviceState = PowerDeviceD0;
    ExAcquireFastMutex(&f->Gate);
    if (f->Started && !f->Up) {
        HwUp(f);
        f->Up = TRUE;
    }
    ExReleaseFastMutex(&f->Gate);
    PoSetPowerState(f->Self, DevicePowerState, state);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
}

static NTSTATUS NTAPI FdoUpDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PFDO f = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        f->UpIrp = Irp;
        IoQueueWorkItem(f->UpItem, FdoUpWork, DelayedWorkQueue, f);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static VOID NTAPI FdoDeviceDone(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Status)
{
    PIRP irp = Context;
    PFDO f = (PFDO)IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    irp->IoStatus.Status = Status->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
}

static NTSTATUS NTAPI FdoSystemDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PFDO f = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state;
    NTSTATUS status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(status)) {
        state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(f->Pdo, IRP_MN_SET_POWER, state, FdoDeviceDone, Irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FdoPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFDO f = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return FdoComplete(Irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, FdoSystemDone, f, TRUE, TRUE, TRUE);
        PoCallDriver(f->Lower, Irp);
        return STATUS_PENDING;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == DevicePowerState) {
        if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, FdoUpDone, f, TRUE, TRUE, TRUE);
            PoCallDriver(f->Lower, Irp);
            return STATUS_PENDING;
        }
        FdoQuiesce(f);
        PoSetPowerState(f->Self, DevicePowerState, sp->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

/* System control: no WMI blocks of our own */
static NTSTATUS NTAPI FdoPass(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFDO f = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI FdoCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFDO f = DeviceObject->DeviceExtension;
    NTSTATUS status;

    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction != IRP_MJ_CREATE)
        return FdoComplete(Irp, STATUS_SUCCESS, 0);
    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    FdoComplete(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return STATUS_SUCCESS;
}

/* Makes and attaches the device object; the extension is zero. The caller clears DO_DEVICE_INITIALIZING. */
static NTSTATUS FdoCreate(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG ExtensionSize, ULONG IoFlags, const GUID *Interface, PFDO *Result)
{
    PDEVICE_OBJECT device;
    PFDO f;
    NTSTATUS status;

    status = IoCreateDevice(Driver, ExtensionSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    f = device->DeviceExtension;
    RtlZeroMemory(f, ExtensionSize);
    f->Self = device;
    f->Pdo = Pdo;
    IoInitializeRemoveLock(&f->RemoveLock, 'kcoL', 0, 0);
    ExInitializeFastMutex(&f->Gate);
    f->UpItem = IoAllocateWorkItem(device);
    if (!f->UpItem) {
        IoDeleteDevice(device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    status = IoRegisterDeviceInterface(Pdo, Interface, NULL, &f->Interface);
    if (!NT_SUCCESS(status)) {
        IoFreeWorkItem(f->UpItem);
        IoDeleteDevice(device);
        return status;
    }
    f->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!f->Lower) {
        RtlFreeUnicodeString(&f->Interface);
        IoFreeWorkItem(f->UpItem);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= IoFlags | DO_POWER_PAGABLE;
    *Result = f;
    return STATUS_SUCCESS;
}

static inline PCM_PARTIAL_RESOURCE_DESCRIPTOR FdoResource(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Index)
{
    PCM_PARTIAL_RESOURCE_LIST partial;
    ULONG i;

    if (!List || List->Count == 0)
        return NULL;
    partial = &List->List[0].PartialResourceList;
    for (i = 0; i < partial->Count; i++)
        if (partial->PartialDescriptors[i].Type == Type && Index-- == 0)
            return &partial->PartialDescriptors[i];
    return NULL;
}

static VOID FdoTable(PDRIVER_OBJECT Driver)
{
    Driver->MajorFunction[IRP_MJ_CREATE] = FdoCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FdoCreateClose;
    Driver->MajorFunction[IRP_MJ_PNP] = FdoPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = FdoPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FdoPass;
}

#endif
