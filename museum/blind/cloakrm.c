/*
 * cloakrm: a cloakroom for small parcels of bytes. A program hands a parcel in and gets a ticket; who
 * shows the ticket gets the parcel back, once.
 *
 * The bug: a ticket that is not held is answered without releasing the remove lock, so the device's removal waits for
 * ever.
 *
 * Device: ROOT\CLOAKRM
 * Rule: deadlock
 * Needs: ioctl
 */
#include <ddk/wdm.h>

static const GUID CloakGuid = { 0x5d0f7a22, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x22, 0x02 } };

#define IOCTL_CLOAK_HAND_IN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x990, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CLOAK_TAKE_OUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x991, METHOD_BUFFERED, FILE_READ_ACCESS)

#define TAG 'kolC'
#define MAX_PARCEL 1024u
#define MAX_PARCELS 100u

typedef struct _PARCEL {
    LIST_ENTRY Link;
    ULONG Ticket;
    ULONG Length;
    UCHAR Data[1];
} PARCEL, *PPARCEL;

typedef struct _CLOAK {
    PDEVICE_OBJECT Pdo, Lower;
    UNICODE_STRING LinkName;
    BOOLEAN LinkOn;
    volatile LONG Gone;
    IO_REMOVE_LOCK RemoveLock;
    FAST_MUTEX Mutex;           /* guards the shelf */
    LIST_ENTRY Shelf;
    ULONG Parcels;
    ULONG NextTicket;
} CLOAK, *PCLOAK;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Completes a request that has the remove lock. */
static NTSTATUS FinishLocked(PCLOAK Cloak, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&Cloak->RemoveLock, Irp);
    return Status;
}

static NTSTATUS PassDown(PCLOAK Cloak, PIRP Irp, BOOLEAN Power)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(Irp);
    status = Power ? PoCallDriver(Cloak->Lower, Irp) : IoCallDriver(Cloak->Lower, Irp);
    IoReleaseRemoveLock(&Cloak->RemoveLock, Irp);
    return status;
}

static NTSTATUS CloakHandIn(PCLOAK Cloak, PVOID Buffer, ULONG In)
{
    PPARCEL parcel;

    parcel = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(PARCEL, Data) + In, TAG);
    if (!parcel)
        return STATUS_INSUFFICIENT_RESOURCES;
    parcel->Length = In;
    RtlCopyMemory(parcel->Data, Buffer, In);
    ExAcquireFastMutex(&Cloak->Mutex);
    if (Cloak->Parcels == MAX_PARCELS) {
        ExReleaseFastMutex(&Cloak->Mutex);
        ExFreePoolWithTag(parcel, TAG);
        return STATUS_QUOTA_EXCEEDED;
    }
    Cloak->Parcels++;
    parcel->Ticket = ++Cloak->NextTicket;
    InsertTailList(&Cloak->Shelf, &parcel->Link);
    *(PULONG)Buffer = parcel->Ticket;
    ExReleaseFastMutex(&Cloak->Mutex);
    return STATUS_SUCCESS;
}

/* Takes the parcel off the shelf if there is one of this ticket and it fits. */
static NTSTATUS CloakFind(PCLOAK Cloak, ULONG Ticket, ULONG Room, PPARCEL *Found)
{
    PLIST_ENTRY link;
    NTSTATUS status = STATUS_NOT_FOUND;

    ExAcquireFastMutex(&Cloak->Mutex);
    for (link = Cloak->Shelf.Flink; link != &Cloak->Shelf; link = link->Flink) {
        PPARCEL parcel = CONTAINING_RECORD(link, PARCEL, Link);
        if (parcel->Ticket != Ticket)
            continue;
        if (parcel->Length > Room) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        RemoveEntryList(link);
        Cloak->Parcels--;
        *Found = parcel;
        status = STATUS_SUCCESS;
        break;
    }
    ExReleaseFastMutex(&Cloak->Mutex);
    return status;
}

static NTSTATUS NTAPI CloakControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCLOAK cloak = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    PPARCEL parcel = NULL;
    ULONG length;
    NTSTATUS status = IoAcquireRemoveLock(&cloak->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Finish(Irp, status, 0);
    if (cloak->Gone)
        return FinishLocked(cloak, Irp, STATUS_DELETE_PENDING, 0);

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CLOAK_HAND_IN:
        if (in == 0 || in > MAX_PARCEL)
            return FinishLocked(cloak, Irp, STATUS_INVALID_PARAMETER, 0);
        if (out < sizeof(ULONG))
            return FinishLocked(cloak, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = CloakHandIn(cloak, buffer, in);
        return FinishLocked(cloak, Irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);

    case IOCTL_CLOAK_TAKE_OUT:
        if (in < sizeof(ULONG))
            return FinishLocked(cloak, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = CloakFind(cloak, *(PULONG)buffer, out, &parcel);
        if (status == STATUS_NOT_FOUND)
#ifdef FIXED
            return FinishLocked(cloak, Irp, status, 0);
#else
            return Finish(Irp, status, 0);
#endif
        if (!NT_SUCCESS(status))
            return FinishLocked(cloak, Irp, status, 0);
        length = parcel->Length;
        RtlCopyMemory(buffer, parcel->Data, length);
        ExFreePoolWithTag(parcel, TAG);
        return FinishLocked(cloak, Irp, STATUS_SUCCESS, length);
    }
    return FinishLocked(cloak, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID CloakEmpty(PCLOAK Cloak)
{
    while (!IsListEmpty(&Cloak->Shelf))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Cloak->Shelf), PARCEL, Link), TAG);
}

static VOID CloakLinkOff(PCLOAK Cloak)
{
    if (Cloak->LinkOn) {
        Cloak->LinkOn = FALSE;
        IoSetDeviceInterfaceState(&Cloak->LinkName, FALSE);
    }
}

static NTSTATUS NTAPI CloakStarted(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI CloakPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCLOAK cloak = DeviceObject->DeviceExtension;
    KEVENT started;
    NTSTATUS status = IoAcquireRemoveLock(&cloak->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        KeInitializeEvent(&started, NotificationEvent, FALSE);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, CloakStarted, &started, TRUE, TRUE, TRUE);
        if (IoCallDriver(cloak->Lower, Irp) == STATUS_PENDING)
            KeWaitForSingleObject(&started, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
        if (NT_SUCCESS(status) && NT_SUCCESS(IoSetDeviceInterfaceState(&cloak->LinkName, TRUE)))
            cloak->LinkOn = TRUE;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&cloak->RemoveLock, Irp);
        return status;

    case IRP_MN_REMOVE_DEVICE:
        CloakLinkOff(cloak);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(cloak->Lower, Irp);
        IoReleaseRemoveLockAndWait(&cloak->RemoveLock, Irp);
        CloakEmpty(cloak);
        IoDetachDevice(cloak->Lower);
        RtlFreeUnicodeString(&cloak->LinkName);
        IoDeleteDevice(DeviceObject);
        return status;

    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&cloak->Gone, 1);
        CloakLinkOff(cloak);
        /* fall through */
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    return PassDown(cloak, Irp, FALSE);
}

static NTSTATUS NTAPI CloakPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCLOAK cloak = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&cloak->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    return PassDown(cloak, Irp, TRUE);
}

static NTSTATUS NTAPI CloakSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCLOAK cloak = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&cloak->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    return PassDown(cloak, Irp, FALSE);
}

static NTSTATUS NTAPI CloakOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI CloakAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PCLOAK cloak;
    NTSTATUS status = IoCreateDevice(DriverObject, sizeof(CLOAK), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);

    if (!NT_SUCCESS(status))
        return status;
    cloak = device->DeviceExtension;
    RtlZeroMemory(cloak, sizeof(*cloak));
    cloak->Pdo = Pdo;
    IoInitializeRemoveLock(&cloak->RemoveLock, TAG, 0, 0);
    ExInitializeFastMutex(&cloak->Mutex);
    InitializeListHead(&cloak->Shelf);
    status = IoRegisterDeviceInterface(Pdo, &CloakGuid, NULL, &cloak->LinkName);
    if (NT_SUCCESS(status)) {
        cloak->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
        if (!cloak->Lower) {
            RtlFreeUnicodeString(&cloak->LinkName);
            status = STATUS_NO_SUCH_DEVICE;
        }
    }
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags |= DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI CloakUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverExtension->AddDevice = CloakAdd;
    DriverObject->DriverUnload = CloakUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = CloakOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = CloakOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CloakControl;
    DriverObject->MajorFunction[IRP_MJ_PNP] = CloakPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = CloakPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CloakSystemControl;
    return STATUS_SUCCESS;
}
