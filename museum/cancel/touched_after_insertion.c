/*
 * A queue of alarms (IoCsq), each with a number that IOCTL_ALARM_QUEUE gives; IOCTL_ALARM_RING ends them all.
 *
 * The bug: the request is looked at after IoCsqInsertIrp, when it may have been rung or cancelled, and freed, already. It shows with a schedule in which
 * that happens.
 *
 * Device: none
 * Rule: use-after-free, wild-read
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\AlarmQueue"
#define LINK_NAME L"\\DosDevices\\AlarmQueue"
#include "../include/irp_queue.h"
#include "../include/legacy.h"

#define IOCTL_ALARM_QUEUE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C8, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ALARM_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C9, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    IRP_QUEUE Alarms;
    ULONG Last;
} DEVICE, *PDEVICE;

static VOID Ended(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Queue);
    Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (CodeOf(Stack)) {
    case IOCTL_ALARM_QUEUE:
        if (InputOf(Stack) < sizeof(ULONG)) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
#ifdef FIXED
        Own->Last = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        IoCsqInsertIrp(&Own->Alarms.Csq, Irp, NULL);
#else
        IoCsqInsertIrp(&Own->Alarms.Csq, Irp, NULL);
        Own->Last = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
#endif
        return STATUS_PENDING;
    case IOCTL_ALARM_RING:
        QueueFlush(&Own->Alarms, NULL, STATUS_SUCCESS);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    QueueFlush(&Own->Alarms, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        QueueInitialize(&((PDEVICE)Device->DeviceExtension)->Alarms, Ended);
        Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
