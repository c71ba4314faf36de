/*
 * A door with a delay: IOCTL_DOOR_OPEN opens it after as many milliseconds as the input says, at once for 0.
 *
 * The bug: the status is put into the request as STATUS_PENDING when it is queued, and the timer's routine completes it without setting another one. It
 * shows with the first opening that takes time.
 *
 * Device: none
 * Rule: completed-with-pending
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Door"
#define LINK_NAME L"\\DosDevices\\Door"
#include "../include/legacy.h"

#define IOCTL_DOOR_OPEN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KTIMER Timer;
    KDPC Dpc;
    PIRP Opening;
} DEVICE, *PDEVICE;

static VOID NTAPI Opened(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Door = Context;
    PIRP Irp = InterlockedExchangePointer((PVOID *)&Door->Opening, NULL);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (Irp != NULL) {
#ifdef FIXED
        Irp->IoStatus.Status = STATUS_SUCCESS;
#endif
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Door = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    LARGE_INTEGER Due;
    ULONG Delay;

    if (CodeOf(Stack) != IOCTL_DOOR_OPEN) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Delay = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (Delay == 0 || Delay > 5000) {
        return Complete(Irp, Delay == 0 ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER, 0);
    }
    Irp->IoStatus.Status = STATUS_PENDING;
    IoMarkIrpPending(Irp);
    if (InterlockedCompareExchangePointer((PVOID *)&Door->Opening, Irp, NULL) != NULL) {
        Complete(Irp, STATUS_DEVICE_BUSY, 0);
        return STATUS_PENDING;
    }
    Due.QuadPart = (LONGLONG)Delay * -10000;
    KeSetTimer(&Door->Timer, Due, &Door->Dpc);
    return STATUS_PENDING;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Door = Driver->DeviceObject->DeviceExtension;

    KeCancelTimer(&Door->Timer);
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Door;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Door = Device->DeviceExtension;
    KeInitializeTimer(&Door->Timer);
    KeInitializeDpc(&Door->Dpc, Opened, Door);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
