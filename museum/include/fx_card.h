/*
 * A dimmer card: registers in BAR0, of which 0x00 is the brightness of a lamp. The driver registers the device with the power management framework (PoFx), with directed power
 * (PO_FX_DEVICE_V3, Windows 10 2004). The one component is active while the device is started, so only directed power and sleep take the device out of D0.
 * The import library has no PoFx routines: they are looked up. The driver has the routines DirectedDown and DirectedUp, a GUID FdoInterface.
 */
#ifndef FX_CARD_H
#define FX_CARD_H

#include "card.h"

#define IOCTL_LAMP_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LAMP_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define LAMP_BRIGHTNESS 0x00
#define LAMP_BRIGHTEST 255

#define FX_VERSION_3 3
#define FX_ASYNC_ONLY 0x2
#define FX_UNKNOWN_POWER 0xFFFFFFFF

typedef VOID(NTAPI *FX_DEVICE_POWER)(PVOID Context);
typedef VOID(NTAPI *FX_DIRECTED_POWER)(PVOID Context, ULONG Flags);

/* PO_FX_DEVICE_V3, which the kit does not have, with one component. */
typedef struct _FX_DEVICE {
    ULONG Version;
    ULONGLONG Flags;
    PPO_FX_COMPONENT_ACTIVE_CONDITION_CALLBACK ComponentActiveConditionCallback;
    PPO_FX_COMPONENT_IDLE_CONDITION_CALLBACK ComponentIdleConditionCallback;
    PPO_FX_COMPONENT_IDLE_STATE_CALLBACK ComponentIdleStateCallback;
    FX_DEVICE_POWER DevicePowerRequiredCallback;
    FX_DEVICE_POWER DevicePowerNotRequiredCallback;
    PPO_FX_POWER_CONTROL_CALLBACK PowerControlCallback;
    FX_DIRECTED_POWER DirectedPowerUpCallback;
    FX_DIRECTED_POWER DirectedPowerDownCallback;
    ULONG DirectedFxTimeoutInSeconds;
    PVOID DeviceContext;
    ULONG ComponentCount;
    PO_FX_COMPONENT_V2 Components[1];
} FX_DEVICE;

typedef struct _FX {
    FDO Fdo;
    POHANDLE Handle;       /* valid while Powers can be acquired, and in the framework's callbacks */
    EX_RUNDOWN_REF Powers; /* uses of Handle outside of callbacks, and power requests that the driver has asked for: they end before the device stops */
    KSPIN_LOCK Lock;       /* of Brightness, and of the register */
    ULONG Brightness;      /* the card forgets it in D3 */
} FX, *PFX;

/* A routine that the framework calls: the device is to go to D3, or to come back, whatever it is doing. */
static VOID NTAPI DirectedDown(PVOID Context, ULONG Flags);
static VOID NTAPI DirectedUp(PVOID Context, ULONG Flags);

static struct {
    NTSTATUS(NTAPI *RegisterDevice)(PDEVICE_OBJECT Pdo, PVOID Device, POHANDLE *Handle);
    VOID(NTAPI *StartDevicePowerManagement)(POHANDLE Handle);
    VOID(NTAPI *UnregisterDevice)(POHANDLE Handle);
    VOID(NTAPI *ActivateComponent)(POHANDLE Handle, ULONG Component, ULONG Flags);
    VOID(NTAPI *CompleteIdleCondition)(POHANDLE Handle, ULONG Component);
    VOID(NTAPI *CompleteDevicePowerNotRequired)(POHANDLE Handle);
    VOID(NTAPI *ReportDevicePoweredOn)(POHANDLE Handle);
    VOID(NTAPI *CompleteDirectedPowerDown)(POHANDLE Handle);
} PoFx;

SHARED NTSTATUS FxGoTo(PFX Fx, DEVICE_POWER_STATE Wanted, PREQUEST_POWER_COMPLETE Done)
{
    POWER_STATE State;

    State.DeviceState = Wanted;
    return PoRequestPowerIrp(Fx->Fdo.Pdo, IRP_MN_SET_POWER, State, Done, Fx, NULL);
}

/* ---- components, which have no states of their own ------------------------------------------------------------------------------------ */

static VOID NTAPI FxActive(PVOID Context, ULONG Component)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Component);
}

static VOID NTAPI FxIdle(PVOID Context, ULONG Component)
{
    PoFx.CompleteIdleCondition(((PFX)Context)->Handle, Component);
}

static VOID NTAPI FxIdleState(PVOID Context, ULONG Component, ULONG State)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Component);
    UNREFERENCED_PARAMETER(State);
}

/* The device stays in D0 all the same. */
static VOID NTAPI FxNotRequired(PVOID Context)
{
    PoFx.CompleteDevicePowerNotRequired(((PFX)Context)->Handle);
}

static VOID NTAPI FxRequired(PVOID Context)
{
    PoFx.ReportDevicePoweredOn(((PFX)Context)->Handle);
}

/* ---- the lamp -------------------------------------------------------------------------------------------------------------------------- */

static VOID FxShine(PFX Fx)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Fx->Lock, &OldIrql);
    CardWrite(&Fx->Fdo, LAMP_BRIGHTNESS, Fx->Brightness);
    KeReleaseSpinLock(&Fx->Lock, OldIrql);
}

static NTSTATUS NTAPI FxControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFX Fx = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    KIRQL OldIrql;

    if (!FdoBegin(&Fx->Fdo, Irp, &Status)) {
        return Status;
    }
    switch (CodeOf(Stack)) {
    case IOCTL_LAMP_SET:
        if (InputOf(Stack) < sizeof(ULONG) || *Buffer > LAMP_BRIGHTEST) {
            return FdoEnd(&Fx->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        }
        KeAcquireSpinLock(&Fx->Lock, &OldIrql);
        Fx->Brightness = *Buffer;
        CardWrite(&Fx->Fdo, LAMP_BRIGHTNESS, Fx->Brightness);
        KeReleaseSpinLock(&Fx->Lock, OldIrql);
        return FdoEnd(&Fx->Fdo, Irp, STATUS_SUCCESS, 0);
    case IOCTL_LAMP_GET:
        if (OutputOf(Stack) < sizeof(ULONG)) {
            return FdoEnd(&Fx->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *Buffer = CardRead(&Fx->Fdo, LAMP_BRIGHTNESS) & LAMP_BRIGHTEST;
        return FdoEnd(&Fx->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return FdoEnd(&Fx->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* ---- starting and stopping: power management begins when the device is started, and ends first ----------------------------------------- */

static NTSTATUS FxRegister(PFX Fx)
{
    PO_FX_COMPONENT_IDLE_STATE F0 = {0, 0, FX_UNKNOWN_POWER};
    FX_DEVICE Device;

    RtlZeroMemory(&Device, sizeof(Device));
    Device.Version = FX_VERSION_3;
    Device.ComponentActiveConditionCallback = FxActive;
    Device.ComponentIdleConditionCallback = FxIdle;
    Device.ComponentIdleStateCallback = FxIdleState;
    Device.DevicePowerRequiredCallback = FxRequired;
    Device.DevicePowerNotRequiredCallback = FxNotRequired;
    Device.DirectedPowerUpCallback = DirectedUp;
    Device.DirectedPowerDownCallback = DirectedDown;
    Device.DeviceContext = Fx;
    Device.ComponentCount = 1;
    Device.Components[0].IdleStateCount = 1;
    Device.Components[0].IdleStates = &F0;
    return PoFx.RegisterDevice(Fx->Fdo.Pdo, &Device, &Fx->Handle);
}

static NTSTATUS FxStart(PFX Fx, PIRP Irp)
{
    PCM_RESOURCE_LIST List = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS Status = FdoForwardAndWait(&Fx->Fdo, Irp);

    if (NT_SUCCESS(Status)) {
        Status = CardMap(&Fx->Fdo, List == NULL ? NULL : &List->List[0].PartialResourceList);
        if (NT_SUCCESS(Status)) {
            Status = FxRegister(Fx);
        }
        if (!NT_SUCCESS(Status)) {
            CardUnmap(&Fx->Fdo);
        }
    }
    if (NT_SUCCESS(Status)) {
        FxShine(Fx);
        Fx->Fdo.Started = TRUE;
        Fx->Fdo.Powered = TRUE;
        ExReInitializeRundownProtection(&Fx->Fdo.Gate);
        ExReInitializeRundownProtection(&Fx->Powers);
        PoFx.ActivateComponent(Fx->Handle, 0, FX_ASYNC_ONLY);
        PoFx.StartDevicePowerManagement(Fx->Handle);
        IoSetDeviceInterfaceState(&Fx->Fdo.Interface, TRUE);
    }
    return Complete(Irp, Status, Irp->IoStatus.Information);
}

static VOID FxStop(PFDO Fdo, BOOLEAN Present)
{
    PFX Fx = (PFX)Fdo;

    ExWaitForRundownProtectionRelease(&Fx->Powers);
    PoFx.UnregisterDevice(Fx->Handle); /* waits for callbacks that are running */
    if (Present) {
        CardWrite(Fdo, LAMP_BRIGHTNESS, 0);
    }
    CardUnmap(Fdo);
}

static VOID FxPowerUp(PFDO Fdo)
{
    FxShine((PFX)Fdo);
}

static NTSTATUS FxAdd(PFDO Fdo)
{
    PFX Fx = (PFX)Fdo;

    KeInitializeSpinLock(&Fx->Lock);
    ExInitializeRundownProtection(&Fx->Powers);
    ExWaitForRundownProtectionRelease(&Fx->Powers); /* there is nothing to use yet */
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI FxPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFX Fx = Device->DeviceExtension;
    NTSTATUS Status;

    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction != IRP_MN_START_DEVICE) {
        return FdoPnp(Device, Irp);
    }
    Status = IoAcquireRemoveLock(&Fx->Fdo.RemoveLock, Irp);
    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    Status = FxStart(Fx, Irp);
    IoReleaseRemoveLock(&Fx->Fdo.RemoveLock, Irp);
    return Status;
}

/* ---- requests for states of the system: as FdoPower has them, and behind S0 the framework gets to know that the device is on ----------- */

static VOID FxSystemDone(PFX Fx, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.State.SystemState == PowerSystemWorking &&
        ExAcquireRundownProtection(&Fx->Powers)) {
        PoFx.ReportDevicePoweredOn(Fx->Handle);
        ExReleaseRundownProtection(&Fx->Powers);
    }
    FdoPowerDone(&Fx->Fdo, Irp);
}

static VOID NTAPI FxFollowed(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PIRP Irp = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Irp->IoStatus.Status = Block->Status;
    FxSystemDone(IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension, Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI FxSystemBelow(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PFX Fx = Context;
    POWER_STATE State;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        State.DeviceState = Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(Fx->Fdo.Pdo, Stack->MinorFunction, State, FxFollowed, Irp, NULL);
        if (Status == STATUS_PENDING) {
            return STATUS_MORE_PROCESSING_REQUIRED;
        }
        Irp->IoStatus.Status = Status;
    }
    FxSystemDone(Fx, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FxPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFX Fx = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if ((Stack->MinorFunction != IRP_MN_SET_POWER && Stack->MinorFunction != IRP_MN_QUERY_POWER) ||
        Stack->Parameters.Power.Type != SystemPowerState) {
        return FdoPower(Device, Irp);
    }
    Status = IoAcquireRemoveLock(&Fx->Fdo.RemoveLock, Irp);
    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Complete(Irp, Status, 0);
    }
    return FdoPowerBelow(&Fx->Fdo, Irp, FxSystemBelow);
}

/* ---- the driver ------------------------------------------------------------------------------------------------------------------------ */

static const HOOKS Hooks = {.Add = FxAdd, .Stop = FxStop, .PowerUp = FxPowerUp};

static NTSTATUS NTAPI FxAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(FX), DO_BUFFERED_IO);
}

static PVOID FxRoutine(PCWSTR Name)
{
    UNICODE_STRING Text;

    RtlInitUnicodeString(&Text, Name);
    return MmGetSystemRoutineAddress(&Text);
}

SHARED NTSTATUS FxDriver(PDRIVER_OBJECT Driver)
{
    PoFx.RegisterDevice = FxRoutine(L"PoFxRegisterDevice");
    PoFx.StartDevicePowerManagement = FxRoutine(L"PoFxStartDevicePowerManagement");
    PoFx.UnregisterDevice = FxRoutine(L"PoFxUnregisterDevice");
    PoFx.ActivateComponent = FxRoutine(L"PoFxActivateComponent");
    PoFx.CompleteIdleCondition = FxRoutine(L"PoFxCompleteIdleCondition");
    PoFx.CompleteDevicePowerNotRequired = FxRoutine(L"PoFxCompleteDevicePowerNotRequired");
    PoFx.ReportDevicePoweredOn = FxRoutine(L"PoFxReportDevicePoweredOn");
    PoFx.CompleteDirectedPowerDown = FxRoutine(L"PoFxCompleteDirectedPowerDown");
    if (PoFx.RegisterDevice == NULL || PoFx.StartDevicePowerManagement == NULL || PoFx.UnregisterDevice == NULL || PoFx.ActivateComponent == NULL ||
        PoFx.CompleteIdleCondition == NULL || PoFx.CompleteDevicePowerNotRequired == NULL || PoFx.ReportDevicePoweredOn == NULL ||
        PoFx.CompleteDirectedPowerDown == NULL) {
        return STATUS_NOT_SUPPORTED;
    }
    FdoDriver(Driver, FxAddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FxControl;
    Driver->MajorFunction[IRP_MJ_PNP] = FxPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = FxPower;
    return STATUS_SUCCESS;
}

#endif
