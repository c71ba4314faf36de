/*
 * The educational device's factorials.
 *
 * The bug: requests that come while the device has no power are given to the card. It shows with a request in D3.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power, ioctl
 */
#include "../include/edu.h"

#define IOCTL_EDU_LIVENESS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)

static KEVENT StateLock; /* who has it may use the registers */

static VOID Lock(VOID)
{
    KeWaitForSingleObject(&StateLock, Executive, KernelMode, FALSE, NULL);
}

static VOID Unlock(VOID)
{
    KeSetEvent(&StateLock, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS Liveness(PEDU Edu, PULONG Buffer)
{
    NTSTATUS Status = STATUS_DEVICE_NOT_READY;

    Lock();
#ifdef FIXED
    if (ExAcquireRundownProtection(&Edu->Fdo.Gate)) {
        CardWrite(&Edu->Fdo, EDU_LIVENESS, *Buffer);
        *Buffer = CardRead(&Edu->Fdo, EDU_LIVENESS);
        Status = STATUS_SUCCESS;
        ExReleaseRundownProtection(&Edu->Fdo.Gate);
    }
#else
    if (Edu->Fdo.Registers != NULL) {
        CardWrite(&Edu->Fdo, EDU_LIVENESS, *Buffer);
        *Buffer = CardRead(&Edu->Fdo, EDU_LIVENESS);
        Status = STATUS_SUCCESS;
    }
#endif
    Unlock();
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEDU Edu = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_EDU_LIVENESS) {
        return EduControl(Device, Irp);
    }
    Status = IoAcquireRemoveLock(&Edu->Fdo.RemoveLock, Irp);
    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        Status = STATUS_INVALID_PARAMETER;
    } else {
        Status = Liveness(Edu, Irp->AssociatedIrp.SystemBuffer);
    }
    FdoEndPended(&Edu->Fdo, Irp, Status, Status == STATUS_SUCCESS ? sizeof(ULONG) : 0);
    return Status;
}

static NTSTATUS Add(PFDO Fdo)
{
    KeInitializeEvent(&StateLock, SynchronizationEvent, TRUE);
    return EduAdd(Fdo);
}

/* Nothing uses the registers any more when they go. */
static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    Lock();
    EduStop(Fdo, Present);
    Unlock();
}

static const GUID FdoInterface = FDO_GUID(0x10c3b019);
static const HOOKS Hooks = {.Add = Add, .Start = EduStart, .Flush = EduFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
