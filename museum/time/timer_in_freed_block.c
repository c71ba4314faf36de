/*
 * Alarms that a handle sets: IOCTL_ALARM_SET makes one for as many milliseconds as the input says; closing the handle lets go of it.
 *
 * The bug: closing frees the block that the alarm's timer lies in while the timer is set. It shows when the handle is closed before the alarm.
 *
 * Device: none
 * Rule: freed-active-timer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Alarms"
#define LINK_NAME L"\\DosDevices\\Alarms"
#include "../include/legacy.h"

#define ALARM_TAG 'ralA'
#define IOCTL_ALARM_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x829, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    LONG Rung;
} DEVICE, *PDEVICE;

typedef struct _ALARM {
    KTIMER Timer;
    KDPC Dpc;
    PDEVICE Own;
} ALARM, *PALARM;

static VOID NTAPI Ring(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PALARM Alarm = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    InterlockedIncrement(&Alarm->Own->Rung);
}

static NTSTATUS Set(PDEVICE Own, PFILE_OBJECT File, ULONG Milliseconds)
{
    PALARM Alarm = File->FsContext;
    LARGE_INTEGER Due;

    Due.QuadPart = (LONGLONG)Milliseconds * -10000;
    if (Alarm == NULL) {
        Alarm = ExAllocatePoolWithTag(NonPagedPool, sizeof(ALARM), ALARM_TAG);
        if (Alarm == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        Alarm->Own = Own;
        KeInitializeTimer(&Alarm->Timer);
        KeInitializeDpc(&Alarm->Dpc, Ring, Alarm);
        if (InterlockedCompareExchangePointer(&File->FsContext, Alarm, NULL) != NULL) {
            ExFreePoolWithTag(Alarm, ALARM_TAG);
            return STATUS_DEVICE_BUSY;
        }
    }
    KeSetTimer(&Alarm->Timer, Due, &Alarm->Dpc);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_ALARM_SET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    return Complete(Irp, Set(Device->DeviceExtension, Stack->FileObject, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PALARM Alarm = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(Device);
    if (Alarm != NULL) {
#ifdef FIXED
        KeCancelTimer(&Alarm->Timer);
        KeFlushQueuedDpcs();
#endif
        ExFreePoolWithTag(Alarm, ALARM_TAG);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
