/*
 * perch_pnp.h: PnP, power and WMI frame of a software function driver enumerated by the root. The driver's device
 * extension begins with a PERCH_BASE; the driver supplies the PerchOn... functions declared below.
 */
#ifndef PERCH_PNP_H
#define PERCH_PNP_H

#include <ddk/wdm.h>

#define PERCH_IDLE     0        /* added, not started yet */
#define PERCH_STARTED  1
#define PERCH_STOPPED  2
#define PERCH_GONE     3        /* surprise removal or removal */

typedef struct _PERCH_BASE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Lower;
    PDEVICE_OBJECT Pdo;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    BOOLEAN LinkOn;             /* changed by PnP requests only */
    volatile LONG State;
} PERCH_BASE, *PPERCH_BASE;

/* Prepares locks and lists; called once by AddDevice. On failure nothing stays behind. */
static NTSTATUS PerchOnAdd(PPERCH_BASE Base);
/* Every start, after the lower drivers; State is not yet PERCH_STARTED. */
static NTSTATUS PerchOnStart(PPERCH_BASE Base);
/* Stop, surprise removal, removal, with State already changed; ends all that is pending. May come more than once. */
static VOID PerchOnHalt(PPERCH_BASE Base);
/* Counterpart of PerchOnAdd; no request holds the remove lock any more. */
static VOID PerchOnDelete(PPERCH_BASE Base);

/* Ends a request that holds no remove lock. */
static inline NTSTATUS PerchComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Ends a request that holds the remove lock under its own address. */
static inline NTSTATUS PerchFinish(PPERCH_BASE Base, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    PerchComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Base->RemoveLock, Irp);
    return Status;
}

static inline NTSTATUS PerchStateStatus(PPERCH_BASE Base)
{
    LONG State = Base->State;

    if (State == PERCH_STARTED)
        return STATUS_SUCCESS;
    return State == PERCH_GONE ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY;
}

/* Takes the remove lock for a request and checks that the device runs. */
static inline NTSTATUS PerchEnter(PPERCH_BASE Base, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&Base->RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return STATUS_DELETE_PENDING;
    Status = PerchStateStatus(Base);
    if (!NT_SUCCESS(Status))
        IoReleaseRemoveLock(&Base->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI PerchStartDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    if (Irp->PendingReturned)
        KeSetEvent((PRKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline VOID PerchLinkOff(PPERCH_BASE Base)
{
    if (Base->LinkOn) {
        Base->LinkOn = FALSE;
        IoSetDeviceInterfaceState(&Base->Link, FALSE);
    }
}

static inline NTSTATUS PerchStart(PPERCH_BASE Base, PIRP Irp)
{
    KEVENT Event;
    NTSTATUS Status;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, PerchStartDone, &Event, TRUE, TRUE, TRUE);
    Status = IoCallDriver(Base->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        Status = Irp->IoStatus.Status;
    }
    if (!NT_SUCCESS(Status))
        return Status;
    Status = PerchOnStart(Base);
    if (!NT_SUCCESS(Status))
        return Status;
    InterlockedExchange(&Base->State, PERCH_STARTED);
    if (!Base->LinkOn) {
        Status = IoSetDeviceInterfaceState(&Base->Link, TRUE);
        if (!NT_SUCCESS(Status)) {
            InterlockedExchange(&Base->State, PERCH_STOPPED);
            PerchOnHalt(Base);
            return Status;
        }
        Base->LinkOn = TRUE;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI PerchPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPERCH_BASE Base = (PPERCH_BASE)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&Base->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, STATUS_DELETE_PENDING, 0);

    switch (Stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = PerchStart(Base, Irp);
        return PerchFinish(Base, Irp, Status, 0);

    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&Base->State, PERCH_STOPPED);
        PerchOnHalt(Base);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&Base->State, PERCH_GONE);
        PerchLinkOff(Base);
        PerchOnHalt(Base);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        InterlockedExchange(&Base->State, PERCH_GONE);
        PerchLinkOff(Base);
        PerchOnHalt(Base);
        IoReleaseRemoveLockAndWait(&Base->RemoveLock, Irp);
        PerchOnDelete(Base);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Base->Lower, Irp);
        IoDetachDevice(Base->Lower);
        RtlFreeUnicodeString(&Base->Link);
        IoDeleteDevice(DeviceObject);
        return Status;

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
    Status = IoCallDriver(Base->Lower, Irp);
    IoReleaseRemoveLock(&Base->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI PerchPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPERCH_BASE Base = (PPERCH_BASE)DeviceObject->DeviceExtension;
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&Base->RemoveLock, Irp);
    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, STATUS_DELETE_PENDING, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Base->Lower, Irp);
    IoReleaseRemoveLock(&Base->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI PerchWmi(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPERCH_BASE Base = (PPERCH_BASE)DeviceObject->DeviceExtension;
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&Base->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, STATUS_DELETE_PENDING, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Base->Lower, Irp);
    IoReleaseRemoveLock(&Base->RemoveLock, Irp);
    return Status;
}

/* The whole of AddDevice; Size is the size of the driver's device extension. */
static inline NTSTATUS PerchAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG Size, ULONG Tag, const GUID *Interface)
{
    PDEVICE_OBJECT Self;
    PPERCH_BASE Base;
    NTSTATUS Status;

    Status = IoCreateDevice(Driver, Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    Base = (PPERCH_BASE)Self->DeviceExtension;
    RtlZeroMemory(Base, Size);
    Base->Self = Self;
    Base->Pdo = Pdo;
    Base->State = PERCH_IDLE;
    IoInitializeRemoveLock(&Base->RemoveLock, Tag, 0, 0);

    Status = PerchOnAdd(Base);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, Interface, NULL, &Base->Link);
    if (!NT_SUCCESS(Status)) {
        PerchOnDelete(Base);
        IoDeleteDevice(Self);
        return Status;
    }
    Base->Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (Base->Lower == NULL) {
        RtlFreeUnicodeString(&Base->Link);
        PerchOnDelete(Base);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_BUFFERED_IO | (Base->Lower->Flags & DO_POWER_PAGABLE);
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI PerchUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

static inline VOID PerchDriver(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE AddDevice)
{
    Driver->MajorFunction[IRP_MJ_PNP] = PerchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = PerchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = PerchWmi;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = PerchUnload;
}

#endif
