/*
 * A doorbell card: its button is counted in a register of BAR0 (0x00 presses, 0x04 control, bit 0: the button works) and wakes the computer by PME#. While the device is started a request to
 * wait for that (IRP_MN_WAIT_WAKE) is at the bus driver; when it ends with success the device goes to D0, and the next one is sent.
 *
 * The bug: the request is cancelled together with what is done to the registers, where the card is there and has power. When it was pulled out, or is removed in D3, the request stays with the
 * bus driver. It shows when the device is pulled.
 *
 * Device: PCI\VEN_1DAA&DEV_0023
 * Rule: wait-wake-not-cancelled, use-after-free
 * Needs: removal
 */
#include "../include/card.h"

#define IOCTL_BELL_PRESSES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define BELL_PRESSES 0x00
#define BELL_CONTROL 0x04
#define BELL_ON 0x01

typedef struct _BELL {
    FDO Fdo;
    SYSTEM_POWER_STATE WakesFrom; /* the deepest state; PowerSystemUnspecified: it cannot wake the system */
    KSPIN_LOCK Lock;              /* of Waiting and Disarmed */
    PIRP Waiting;                 /* the request that is below; who cancels it takes it, and completes it when it is back */
    KEVENT Back;                  /* it is */
    BOOLEAN Disarmed;             /* none is passed on any more */
    EX_RUNDOWN_REF Requests;      /* power requests that the driver has asked for: they end before the device stops */
} BELL, *PBELL;

/* ---- the request that waits for the wake signal ---------------------------------------------------------------------------------------- */

static VOID NTAPI IsUp(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Block);
    ExReleaseRundownProtection(&((PBELL)Context)->Requests);
}

static VOID NTAPI WaitEnded(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block);

static VOID Ask(PBELL Bell, UCHAR Minor, POWER_STATE State, PREQUEST_POWER_COMPLETE Done)
{
    if (ExAcquireRundownProtection(&Bell->Requests) && PoRequestPowerIrp(Bell->Fdo.Pdo, Minor, State, Done, Bell, NULL) != STATUS_PENDING) {
        ExReleaseRundownProtection(&Bell->Requests);
    }
}

static VOID Arm(PBELL Bell)
{
    POWER_STATE Deepest;

    if (Bell->WakesFrom > PowerSystemWorking) {
        Deepest.SystemState = Bell->WakesFrom;
        Ask(Bell, IRP_MN_WAIT_WAKE, Deepest, WaitEnded);
    }
}

/* The button was pressed, or the request has been cancelled, or was refused. */
static VOID NTAPI WaitEnded(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PBELL Bell = Context;
    POWER_STATE Working;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    if (NT_SUCCESS(Block->Status)) {
        Working.DeviceState = PowerDeviceD0;
        Ask(Bell, IRP_MN_SET_POWER, Working, IsUp);
        Arm(Bell);
    }
    ExReleaseRundownProtection(&Bell->Requests);
}

static NTSTATUS NTAPI WaitIsBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PBELL Bell = Context;
    BOOLEAN Taken;
    KIRQL OldIrql;

    UNREFERENCED_PARAMETER(Device);
    KeAcquireSpinLock(&Bell->Lock, &OldIrql);
    Taken = Bell->Waiting != Irp;
    Bell->Waiting = NULL;
    KeReleaseSpinLock(&Bell->Lock, OldIrql);
    if (Taken) {
        KeSetEvent(&Bell->Back, IO_NO_INCREMENT, FALSE);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS PassWait(PBELL Bell, PIRP Irp)
{
    NTSTATUS Refused = STATUS_SUCCESS;
    KIRQL OldIrql;

    PoStartNextPowerIrp(Irp);
    KeAcquireSpinLock(&Bell->Lock, &OldIrql);
    if (Bell->Disarmed) {
        Refused = STATUS_CANCELLED;
    } else if (Bell->Waiting != NULL) {
        Refused = STATUS_DEVICE_BUSY;
    } else {
        Bell->Waiting = Irp;
    }
    KeReleaseSpinLock(&Bell->Lock, OldIrql);
    if (!NT_SUCCESS(Refused)) {
        return Complete(Irp, Refused, 0);
    }
    IoMarkIrpPending(Irp); /* who cancels it may complete it later */
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, WaitIsBack, Bell, TRUE, TRUE, TRUE);
    PoCallDriver(Bell->Fdo.Lower, Irp);
    return STATUS_PENDING;
}

/* Ends the request, if there is one; behind it there is none, and nothing that one has led to. */
static VOID Disarm(PBELL Bell)
{
    PIRP Irp;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Bell->Lock, &OldIrql);
    Bell->Disarmed = TRUE;
    Irp = Bell->Waiting;
    Bell->Waiting = NULL;
    KeReleaseSpinLock(&Bell->Lock, OldIrql);
    if (Irp != NULL) {
        IoCancelIrp(Irp);
        KeWaitForSingleObject(&Bell->Back, Executive, KernelMode, FALSE, NULL);
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
    ExWaitForRundownProtectionRelease(&Bell->Requests);
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBELL Bell = Device->DeviceExtension;
    NTSTATUS Status;

    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction != IRP_MN_WAIT_WAKE) {
        return FdoPower(Device, Irp);
    }
    Status = IoAcquireRemoveLock(&Bell->Fdo.RemoveLock, Irp);
    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Complete(Irp, Status, 0);
    }
    Status = PassWait(Bell, Irp);
    IoReleaseRemoveLock(&Bell->Fdo.RemoveLock, Irp); /* what is below ends before the device is removed: Disarm */
    return Status;
}

/* ---- the device ------------------------------------------------------------------------------------------------------------------------ */

static SYSTEM_POWER_STATE DeepestWake(PFDO Fdo)
{
    DEVICE_CAPABILITIES Capabilities;
    IO_STATUS_BLOCK Block;
    PIO_STACK_LOCATION Next;
    NTSTATUS Status;
    KEVENT Done;
    PIRP Irp;

    RtlZeroMemory(&Capabilities, sizeof(Capabilities));
    Capabilities.Size = sizeof(Capabilities);
    Capabilities.Version = 1;
    Capabilities.Address = MAXULONG;
    Capabilities.UINumber = MAXULONG;
    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Fdo->Lower, NULL, 0, NULL, &Done, &Block);
    if (Irp == NULL) {
        return PowerSystemUnspecified;
    }
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    Next = IoGetNextIrpStackLocation(Irp);
    Next->MinorFunction = IRP_MN_QUERY_CAPABILITIES;
    Next->Parameters.DeviceCapabilities.Capabilities = &Capabilities;
    Status = IoCallDriver(Fdo->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
    }
    return NT_SUCCESS(Status) ? Capabilities.SystemWake : PowerSystemUnspecified;
}

static NTSTATUS Add(PFDO Fdo)
{
    PBELL Bell = (PBELL)Fdo;

    KeInitializeSpinLock(&Bell->Lock);
    KeInitializeEvent(&Bell->Back, SynchronizationEvent, FALSE);
    Bell->Disarmed = TRUE;
    ExInitializeRundownProtection(&Bell->Requests);
    ExWaitForRundownProtectionRelease(&Bell->Requests);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PBELL Bell = (PBELL)Fdo;
    NTSTATUS Status = CardMap(Fdo, Resources);
    KIRQL OldIrql;

    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
        return Status;
    }
    CardWrite(Fdo, BELL_CONTROL, BELL_ON);
    Bell->WakesFrom = DeepestWake(Fdo);
    KeAcquireSpinLock(&Bell->Lock, &OldIrql);
    Bell->Disarmed = FALSE;
    KeReleaseSpinLock(&Bell->Lock, OldIrql);
    ExReInitializeRundownProtection(&Bell->Requests);
    Arm(Bell);
    return STATUS_SUCCESS;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
#ifdef FIXED
    Disarm((PBELL)Fdo);
    if (Present) {
        CardWrite(Fdo, BELL_CONTROL, 0);
    }
#else
    if (Present) {
        Disarm((PBELL)Fdo);
        CardWrite(Fdo, BELL_CONTROL, 0);
    }
#endif
    CardUnmap(Fdo);
}

static VOID PowerUp(PFDO Fdo)
{
    CardWrite(Fdo, BELL_CONTROL, BELL_ON);
}

static const GUID FdoInterface = FDO_GUID(0x10c3e023);
static const HOOKS Hooks = {.Add = Add, .Start = Start, .Stop = Stop, .PowerUp = PowerUp};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBELL Bell = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!FdoBegin(&Bell->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_BELL_PRESSES) {
        return FdoEnd(&Bell->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Bell->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = CardRead(&Bell->Fdo, BELL_PRESSES);
    return FdoEnd(&Bell->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(BELL), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
