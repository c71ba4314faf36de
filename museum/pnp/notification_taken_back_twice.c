/*
 * A virtual switchboard that is notified of each device of the mouse class that comes or goes, while it is started.
 *
 * The bug: the registration is taken back when the device is stopped and once more when it is removed, as the pointer to it stays. It shows when the device is removed.
 *
 * Device: Root\SecondSwitchboard
 * Rule: not-a-notification
 * Needs: nothing
 */
#include "../include/function.h"

/* Windows 7; the kit knows it for that only. */
NTKERNELAPI NTSTATUS NTAPI IoUnregisterPlugPlayNotificationEx(PVOID NotificationEntry);

typedef struct _DEVICE {
    FDO Fdo;
    PVOID Notification;
    LONG Changes;
} DEVICE, *PDEVICE;

static GUID MouseInterface = {0x378de44c, 0x56ef, 0x11d1, {0xbc, 0x8c, 0x00, 0xa0, 0xc9, 0x14, 0x05, 0xdd}};

static NTSTATUS NTAPI Changed(PVOID Structure, PVOID Context)
{
    UNREFERENCED_PARAMETER(Structure);
    InterlockedIncrement(&((PDEVICE)Context)->Changes);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    UNREFERENCED_PARAMETER(Resources);
    return IoRegisterPlugPlayNotification(EventCategoryDeviceInterfaceChange, 0, &MouseInterface, Fdo->Self->DriverObject, Changed,
                                          Fdo, &((PDEVICE)Fdo)->Notification);
}

static VOID TakeBack(PDEVICE Own)
{
    if (Own->Notification != NULL) {
        IoUnregisterPlugPlayNotificationEx(Own->Notification); /* afterwards the callback does not run */
#ifdef FIXED
        Own->Notification = NULL;
#endif
    }
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    TakeBack((PDEVICE)Fdo);
}

/* Where it was never stopped. */
static VOID Removed(PFDO Fdo)
{
    TakeBack((PDEVICE)Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d011);
static const HOOKS Hooks = {.Removed = Removed, .Start = Start, .Stop = Stop};

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(LONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Own->Changes;
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(LONG));
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    return STATUS_SUCCESS;
}
