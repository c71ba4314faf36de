/*
 * The educational device's factorials by polling: IOCTL_EDU_POLLED waits in a loop until the card has computed.
 *
 * The bug: the loop has no bound. It shows with a card that was pulled out, whose busy bit reads as one for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: endless-loop, livelock, irp-never-completed, stuck
 * Needs: device, removal
 */
#include "../include/edu.h"

#define IOCTL_EDU_POLLED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)

static FAST_MUTEX OneAtATime;

static NTSTATUS Polled(PEDU Edu, PULONG Buffer)
{
#ifdef FIXED
    ULONG Tries = 1000;
#endif

    CardWrite(&Edu->Fdo, EDU_STATUS, 0);
    CardWrite(&Edu->Fdo, EDU_FACTORIAL, *Buffer);
    while (CardRead(&Edu->Fdo, EDU_STATUS) & EDU_STATUS_COMPUTING) {
#ifdef FIXED
        if (--Tries == 0) {
            return STATUS_IO_TIMEOUT;
        }
#endif
        KeStallExecutionProcessor(1);
    }
    *Buffer = CardRead(&Edu->Fdo, EDU_FACTORIAL);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEDU Edu = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_EDU_POLLED) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    KeEnterCriticalRegion();
    ExAcquireFastMutexUnsafe(&OneAtATime);
    Status = Polled(Edu, Irp->AssociatedIrp.SystemBuffer);
    ExReleaseFastMutexUnsafe(&OneAtATime);
    KeLeaveCriticalRegion();
    return FdoEnd(&Edu->Fdo, Irp, Status, Status == STATUS_SUCCESS ? sizeof(ULONG) : 0);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b011);
static const HOOKS Hooks = {.Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    ExInitializeFastMutex(&OneAtATime);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
