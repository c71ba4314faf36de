/*
 * The educational device's factorials, by a service routine at PASSIVE_LEVEL. IOCTL_EDU_AWAKE says whether that routine may touch the card.
 *
 * The bug: that is looked at under the interrupt's spin lock, which an interrupt with such a routine has not: Windows stops. It shows with the first such request.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: passive-interrupt-spin-lock
 * Needs: ioctl
 */
#include "../include/edu.h"

#define IOCTL_EDU_AWAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x814, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _SLOW {
    EDU Edu;
    LONG Listens; /* the service routine may touch the card */
} SLOW, *PSLOW;

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    return InterlockedCompareExchange(&((PSLOW)Context)->Listens, 0, 0) && EduIsr(Interrupt, Context);
}

static NTSTATUS Connect(PFDO Fdo)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Line = &Fdo->Line;
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;

    if (Line->Type == 0) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    RtlZeroMemory(&Parameters, sizeof(Parameters));
    Parameters.Version = CONNECT_FULLY_SPECIFIED;
    Parameters.FullySpecified.PhysicalDeviceObject = Fdo->Pdo;
    Parameters.FullySpecified.InterruptObject = &Fdo->Interrupt;
    Parameters.FullySpecified.ServiceRoutine = Isr;
    Parameters.FullySpecified.ServiceContext = Fdo;
    Parameters.FullySpecified.Irql = PASSIVE_LEVEL;
    Parameters.FullySpecified.SynchronizeIrql = PASSIVE_LEVEL;
    Parameters.FullySpecified.ShareVector = TRUE;
    Parameters.FullySpecified.Vector = Line->u.Interrupt.Vector;
    Parameters.FullySpecified.InterruptMode = LevelSensitive;
    Parameters.FullySpecified.ProcessorEnableMask = Line->u.Interrupt.Affinity;
    return IoConnectInterruptEx(&Parameters);
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (NT_SUCCESS(Status) && (CardRead(Fdo, EDU_IDENTIFICATION) & 0xFFFF) != 0x00ED) {
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (NT_SUCCESS(Status)) {
        ((PEDU)Fdo)->Awake = TRUE;
        InterlockedExchange(&((PSLOW)Fdo)->Listens, TRUE);
        Status = Connect(Fdo);
    }
    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
    }
    return Status;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters;

    if (Present) {
        EduQuiet(Fdo);
    }
    Parameters.Version = CONNECT_FULLY_SPECIFIED;
    Parameters.ConnectionContext.InterruptObject = Fdo->Interrupt;
    IoDisconnectInterruptEx(&Parameters);
    Fdo->Interrupt = NULL;
    KeFlushQueuedDpcs();
    CardUnmap(Fdo);
}

/* The routine does not run. */
static BOOLEAN NTAPI Between(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    return TRUE;
}

static VOID PowerDown(PFDO Fdo)
{
    EduQuiet(Fdo);
    InterlockedExchange(&((PSLOW)Fdo)->Listens, FALSE);
    KeSynchronizeExecution(Fdo->Interrupt, Between, NULL);
    KeFlushQueuedDpcs();
}

static VOID PowerUp(PFDO Fdo)
{
    InterlockedExchange(&((PSLOW)Fdo)->Listens, TRUE);
}

#ifdef FIXED
static BOOLEAN NTAPI Look(PVOID Context)
{
    return InterlockedCompareExchange(&((PSLOW)Context)->Listens, 0, 0) != 0;
}
#endif

static ULONG Awake(PSLOW Slow)
{
    PKINTERRUPT Interrupt = Slow->Edu.Fdo.Interrupt;
#ifdef FIXED
    return KeSynchronizeExecution(Interrupt, Look, Slow);
#else
    KIRQL OldIrql = KeAcquireInterruptSpinLock(Interrupt);
    ULONG Awake = Slow->Listens != 0;

    KeReleaseInterruptSpinLock(Interrupt, OldIrql);
    return Awake;
#endif
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PSLOW Slow = Device->DeviceExtension;
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_EDU_AWAKE) {
        return EduControl(Device, Irp);
    }
    if (!FdoBegin(&Slow->Edu.Fdo, Irp, &Status)) {
        return Status;
    }
    if (OutputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Slow->Edu.Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Awake(Slow);
    return FdoEnd(&Slow->Edu.Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(SLOW), DO_BUFFERED_IO);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b016);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = Stop, .PowerDown = PowerDown, .PowerUp = PowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
