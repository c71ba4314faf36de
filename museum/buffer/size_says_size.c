/*
 * A bus of 8 bays: one code puts a module into a bay, one takes it out. Both want a structure whose first field is its own size, and the number of a bay,
 * from 1 on. What is not so is answered with the status of an unknown code.
 *
 * The bug: the code that takes a module out uses the number as an index without comparing it with the number of bays. It shows with a structure that says
 * its size and names a bay that the bus does not have.
 *
 * Device: none
 * Rule: wild-read, wild-write, pool-overrun, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\BayBus"
#define LINK_NAME L"\\DosDevices\\BayBus"
#include "../include/legacy.h"

#define IOCTL_BAY_INSERT CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0xE10, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BAY_TAKE_OUT CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0xE11, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define BAYS 8

/* What an application gives. */
typedef struct _BAY_REQUEST {
    ULONG Size;
    ULONG Serial;
    ULONG Kind;
    ULONG Reserved;
} BAY_REQUEST, *PBAY_REQUEST;

typedef struct _BAY {
    BOOLEAN Present;
    ULONG Kind;
    ULONG64 Since;
} BAY, *PBAY;

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    ULONG Modules;
    BAY Bays[BAYS];
} DEVICE, *PDEVICE;

static BOOLEAN IsSound(PBAY_REQUEST Request, ULONG Length)
{
    return Length == sizeof(BAY_REQUEST) && Request->Size == sizeof(BAY_REQUEST) && Request->Serial != 0;
}

static NTSTATUS Insert(PDEVICE Own, PBAY_REQUEST Request)
{
    PBAY Bay;

    if (Request->Serial > BAYS || Own->Bays[Request->Serial - 1].Present) {
        return STATUS_INVALID_PARAMETER;
    }
    Bay = &Own->Bays[Request->Serial - 1];
    Bay->Present = TRUE;
    Bay->Kind = Request->Kind;
    Bay->Since = KeQueryInterruptTime();
    Own->Modules++;
    return STATUS_SUCCESS;
}

static NTSTATUS TakeOut(PDEVICE Own, PBAY_REQUEST Request)
{
    PBAY Bay;

#ifdef FIXED
    if (Request->Serial > BAYS) {
        return STATUS_INVALID_PARAMETER;
    }
#endif
    Bay = &Own->Bays[Request->Serial - 1];
    if (!Bay->Present) {
        return STATUS_INVALID_PARAMETER;
    }
    RtlZeroMemory(Bay, sizeof(BAY));
    Own->Modules--;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PBAY_REQUEST Request = Irp->AssociatedIrp.SystemBuffer;
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status = STATUS_INVALID_PARAMETER;

    ExAcquireFastMutex(&Own->Mutex);
    switch (CodeOf(Stack)) {
    case IOCTL_BAY_INSERT:
        if (IsSound(Request, InputOf(Stack))) {
            Status = Insert(Own, Request);
        }
        break;
    case IOCTL_BAY_TAKE_OUT:
        if (IsSound(Request, InputOf(Stack))) {
            Status = TakeOut(Own, Request);
        }
        break;
    default:
        break;
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Complete(Irp, Status, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Mutex);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
