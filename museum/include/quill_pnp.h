/*
 * quill_pnp.h: the PnP, power and WMI part of a function driver for a root-enumerated software device.
 *
 * The driver's extension begins with a QUILL_DEVICE. The device has no resources, so a stop for rebalancing does not
 * bother the applications: requests are served between stop and start.
 *
 *   Init    in AddDevice, the extension is zero otherwise; a failing Init has undone what it did
 *   Start   at each IRP_MN_START_DEVICE; a failing Start has undone what it did
 *   Stop    undoes a Start that succeeded (stop, surprise removal, removal)
 *   Abort   the device goes: ends what is pending, lets nothing more pend; may be called twice
 *   Free    undoes Init, no request is in the driver any more
 */
#ifndef QUILL_PNP_H
#define QUILL_PNP_H

typedef struct _QUILL_DEVICE QUILL_DEVICE, *PQUILL_DEVICE;

typedef struct _QUILL_OPS {
    ULONG ExtensionSize;
    const GUID *Interface;
    NTSTATUS (*Init)(PQUILL_DEVICE Device);
    NTSTATUS (*Start)(PQUILL_DEVICE Device);
    VOID (*Stop)(PQUILL_DEVICE Device);
    VOID (*Abort)(PQUILL_DEVICE Device);
    VOID (*Free)(PQUILL_DEVICE Device);
} QUILL_OPS;

typedef enum _QUILL_STATE {
    QuillAdded,
    QuillStarted,
    QuillPaused,
    QuillLeaving,
    QuillFailed,
    QuillGone
} QUILL_STATE;

struct _QUILL_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    const QUILL_OPS *Ops;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    BOOLEAN LinkOn;
    BOOLEAN Running;
    volatile LONG State;
    LONG StateBefore;
};

static inline NTSTATUS QuillComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Takes the remove lock for a request, with the request as the tag, if the device can serve it. */
static inline NTSTATUS QuillEnter(PQUILL_DEVICE Device, PIRP Irp)
{
    NTSTATUS status = IoAcquireRemoveLock(&Device->RemoveLock, Irp);
    LONG state;

    if (!NT_SUCCESS(status))
        return status;
    state = Device->State;
    if (state == QuillStarted || state == QuillPaused || state == QuillLeaving)
        return STATUS_SUCCESS;
    IoReleaseRemoveLock(&Device->RemoveLock, Irp);
    return state == QuillGone ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY;
}

/* Ends a request that holds the remove lock. */
static inline NTSTATUS QuillLeave(PQUILL_DEVICE Device, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    QuillComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Device->RemoveLock, Irp);
    return Status;
}

/* May this create go on? The caller has entered. */
static inline NTSTATUS QuillMayOpen(PQUILL_DEVICE Device, PFILE_OBJECT File)
{
    if (Device->State == QuillLeaving)
        return STATUS_DELETE_PENDING;
    if (File == NULL)
        return STATUS_INVALID_PARAMETER;
    if (File->FileName.Length != 0)
        return STATUS_OBJECT_NAME_NOT_FOUND;
    return STATUS_SUCCESS;
}

static inline NTSTATUS QuillInterfaceOn(PQUILL_DEVICE Device)
{
    NTSTATUS status;

    if (Device->LinkOn)
        return STATUS_SUCCESS;
    status = IoSetDeviceInterfaceState(&Device->Link, TRUE);
    if (NT_SUCCESS(status))
        Device->LinkOn = TRUE;
    return status;
}

static inline NTSTATUS QuillPass(PQUILL_DEVICE Device, PIRP Irp)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(Device->Lower, Irp);
    IoReleaseRemoveLock(&Device->RemoveLock, Irp);
    return status;
}

/* Sends a PnP request down and waits until the lower drivers are done with it. */
static inline NTSTATUS QuillSendAndWait(PQUILL_DEVICE Device, PIRP Irp)
{
    if (!IoForwardIrpSynchronously(Device->Lower, Irp))
        return STATUS_UNSUCCESSFUL;
    return Irp->IoStatus.Status;
}

static inline VOID QuillShutDown(PQUILL_DEVICE Device)
{
    InterlockedExchange(&Device->State, QuillGone);
    if (Device->LinkOn) {
        Device->LinkOn = FALSE;
        IoSetDeviceInterfaceState(&Device->Link, FALSE);
    }
    Device->Ops->Abort(Device);
    if (Device->Running) {
        Device->Running = FALSE;
        Device->Ops->Stop(Device);
    }
}

static NTSTATUS NTAPI QuillPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PQUILL_DEVICE device = (PQUILL_DEVICE)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&device->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);

    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = QuillSendAndWait(device, Irp);
        if (NT_SUCCESS(status) && !device->Running) {
            status = device->Ops->Start(device);
            if (NT_SUCCESS(status))
                device->Running = TRUE;
        }
        InterlockedExchange(&device->State, NT_SUCCESS(status) ? QuillStarted : QuillFailed);
        return QuillLeave(device, Irp, status, Irp->IoStatus.Information);

    case IRP_MN_STOP_DEVICE:
        if (device->Running) {
            device->Running = FALSE;
            device->Ops->Stop(device);
        }
        InterlockedExchange(&device->State, QuillPaused);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return QuillPass(device, Irp);

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return QuillPass(device, Irp);

    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (device->State != QuillLeaving) {
            device->StateBefore = device->State;
            InterlockedExchange(&device->State, QuillLeaving);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return QuillPass(device, Irp);

    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        status = QuillSendAndWait(device, Irp);
        if (device->State == QuillLeaving)
            InterlockedExchange(&device->State, device->StateBefore);
        return QuillLeave(device, Irp, status, Irp->IoStatus.Information);

    case IRP_MN_SURPRISE_REMOVAL:
        QuillShutDown(device);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return QuillPass(device, Irp);

    case IRP_MN_REMOVE_DEVICE:
        QuillShutDown(device);
        IoReleaseRemoveLockAndWait(&device->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(device->Lower, Irp);
        IoDetachDevice(device->Lower);
        RtlFreeUnicodeString(&device->Link);
        device->Ops->Free(device);
        IoDeleteDevice(DeviceObject);
        return status;

    default:
        return QuillPass(device, Irp);
    }
}

static NTSTATUS NTAPI QuillPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PQUILL_DEVICE device = (PQUILL_DEVICE)DeviceObject->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&device->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return QuillComplete(Irp, status, 0);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(device->Lower, Irp);
    IoReleaseRemoveLock(&device->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI QuillWmi(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PQUILL_DEVICE device = (PQUILL_DEVICE)DeviceObject->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&device->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);
    return QuillPass(device, Irp);
}

static inline NTSTATUS QuillAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, const QUILL_OPS *Ops)
{
    PDEVICE_OBJECT fdo;
    PQUILL_DEVICE device;
    NTSTATUS status;

    status = IoCreateDevice(Driver, Ops->ExtensionSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                            &fdo);
    if (!NT_SUCCESS(status))
        return status;

    device = (PQUILL_DEVICE)fdo->DeviceExtension;
    RtlZeroMemory(device, Ops->ExtensionSize);
    device->Self = fdo;
    device->Pdo = Pdo;
    device->Ops = Ops;
    device->State = QuillAdded;
    IoInitializeRemoveLock(&device->RemoveLock, 'lliQ', 0, 0);

    status = Ops->Init(device);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    status = IoRegisterDeviceInterface(Pdo, Ops->Interface, NULL, &device->Link);
    if (!NT_SUCCESS(status)) {
        Ops->Free(device);
        IoDeleteDevice(fdo);
        return status;
    }
    device->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (device->Lower == NULL) {
        RtlFreeUnicodeString(&device->Link);
        Ops->Free(device);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= DO_BUFFERED_IO | (device->Lower->Flags & DO_POWER_PAGABLE);
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static inline VOID QuillHook(PDRIVER_OBJECT Driver)
{
    Driver->MajorFunction[IRP_MJ_PNP] = QuillPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = QuillPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = QuillWmi;
}

#endif
