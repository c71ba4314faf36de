/*
 * The educational device's factorials, and a snapshot of the card's registers that IOCTL_EDU_SNAPSHOT takes while the service routine cannot run.
 *
 * The bug: the routine that KeSynchronizeExecution calls allocates the snapshot's memory itself, at the card's level. It shows with the first snapshot.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: pool-irql, irql-too-high
 * Needs: ioctl
 */
#include "../include/edu.h"

#define SNAPSHOT_TAG 'panS'
#define IOCTL_EDU_SNAPSHOT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _SNAPSHOT {
    PEDU Edu;
    PULONG Registers;
} SNAPSHOT, *PSNAPSHOT;

static VOID Allocate(PSNAPSHOT Snapshot)
{
    Snapshot->Registers = ExAllocatePoolWithTag(NonPagedPool, 4 * sizeof(ULONG), SNAPSHOT_TAG);
}

static BOOLEAN NTAPI Take(PVOID Context)
{
    PSNAPSHOT Snapshot = Context;
    ULONG Index;

#ifndef FIXED
    Allocate(Snapshot);
#endif
    for (Index = 0; Snapshot->Registers != NULL && Index < 4; Index++) {
        Snapshot->Registers[Index] = CardRead(&Snapshot->Edu->Fdo, Index == 3 ? EDU_STATUS : Index * 4);
    }
    return Snapshot->Registers != NULL;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEDU Edu = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    SNAPSHOT Snapshot = {Edu, NULL};
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_EDU_SNAPSHOT) {
        return EduControl(Device, Irp);
    }
    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (OutputOf(Stack) < 4 * sizeof(ULONG)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
#ifdef FIXED
    Allocate(&Snapshot);
#endif
    if (!KeSynchronizeExecution(Edu->Fdo.Interrupt, Take, &Snapshot)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Snapshot.Registers, 4 * sizeof(ULONG));
    ExFreePoolWithTag(Snapshot.Registers, SNAPSHOT_TAG);
    return FdoEnd(&Edu->Fdo, Irp, STATUS_SUCCESS, 4 * sizeof(ULONG));
}

static const GUID FdoInterface = FDO_GUID(0x10c3b010);
static const HOOKS Hooks = {.Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
