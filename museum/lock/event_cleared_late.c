/*
 * A measurement that a timer ends: IOCTL_MEASURE starts it and waits for its end.
 *
 * The bug: the event is cleared after the timer has been set: where the timer expires in between, its signal is lost, and the request waits for ever. It
 * shows with a schedule in which the timer's routine comes first.
 *
 * Device: none
 * Rule: stuck, deadlock, irp-never-completed
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Measure"
#define LINK_NAME L"\\DosDevices\\Measure"
#include "../include/legacy.h"

#define IOCTL_MEASURE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xF20, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FAST_MUTEX One;
    KTIMER Timer;
    KDPC Dpc;
    KEVENT Done;
    LONG Result;
} DEVICE, *PDEVICE;

static VOID NTAPI Measured(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Own = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    Own->Result++;
    KeSetEvent(&Own->Done, IO_NO_INCREMENT, FALSE);
}

static LONG Measure(PDEVICE Own)
{
    LARGE_INTEGER Due;
    LONG Result;

    Due.QuadPart = -10;
    ExAcquireFastMutex(&Own->One);
#ifdef FIXED
    KeClearEvent(&Own->Done);
    KeSetTimer(&Own->Timer, Due, &Own->Dpc);
#else
    KeSetTimer(&Own->Timer, Due, &Own->Dpc);
    KeClearEvent(&Own->Done);
#endif
    KeWaitForSingleObject(&Own->Done, Executive, KernelMode, FALSE, NULL);
    Result = Own->Result;
    ExReleaseFastMutex(&Own->One);
    return Result;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_MEASURE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(LONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Measure(Device->DeviceExtension);
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    ExInitializeFastMutex(&Own->One);
    KeInitializeTimer(&Own->Timer);
    KeInitializeDpc(&Own->Dpc, Measured, Own);
    KeInitializeEvent(&Own->Done, NotificationEvent, FALSE);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
