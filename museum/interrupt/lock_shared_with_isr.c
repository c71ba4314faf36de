/*
 * The educational device's factorials, and how many interrupts there were, with a time: both are answered together.
 *
 * The bug: the two are guarded by an ordinary spin lock, which the service routine acquires, too, above DISPATCH_LEVEL. It shows where an
 * interrupt comes while a request has the lock.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irql-too-high, spin-lock-recursion
 * Needs: ioctl, schedule
 */
#include "../include/edu.h"

#define IOCTL_EDU_INTERRUPTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _COUNTED {
    ULONG64 Interrupts;
    ULONG64 Last;
} COUNTED, *PCOUNTED;

static COUNTED Counted;
#ifndef FIXED
static KSPIN_LOCK CountedLock;
#endif

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    BOOLEAN Own = EduIsr(Interrupt, Context);

#ifndef FIXED
    KeAcquireSpinLockAtDpcLevel(&CountedLock);
#endif
    Counted.Interrupts += Own;
    Counted.Last = KeQueryInterruptTime();
#ifndef FIXED
    KeReleaseSpinLockFromDpcLevel(&CountedLock);
#endif
    return Own;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

#ifdef FIXED
static BOOLEAN NTAPI Copy(PVOID Answer)
{
    *(PCOUNTED)Answer = Counted;
    return TRUE;
}
#endif

static VOID Count(PEDU Edu, PCOUNTED Answer)
{
#ifdef FIXED
    KeSynchronizeExecution(Edu->Fdo.Interrupt, Copy, Answer);
#else
    KIRQL OldIrql;

    UNREFERENCED_PARAMETER(Edu);
    KeAcquireSpinLock(&CountedLock, &OldIrql);
    *Answer = Counted;
    KeReleaseSpinLock(&CountedLock, OldIrql);
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEDU Edu = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_EDU_INTERRUPTS) {
        return EduControl(Device, Irp);
    }
    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (OutputOf(Stack) < sizeof(COUNTED)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Count(Edu, Irp->AssociatedIrp.SystemBuffer);
    return FdoEnd(&Edu->Fdo, Irp, STATUS_SUCCESS, sizeof(COUNTED));
}

static const GUID FdoInterface = FDO_GUID(0x10c3b005);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
