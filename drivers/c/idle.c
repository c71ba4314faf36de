/*
 * idle.sys: a driver whose device is managed by the power management framework (`--device pci,id=abcd:0003,bar0=mem:128,irq,pm`); its device is
 * \\.\Idle. It has two components. When both are idle it goes to D3; requests for a component wait until that is active. BAR0:
 *   10, 14 VALUE   of component 0 and 1: what IOCTL_IDLE_WRITE writes and the reads read; the card loses it in D3, the driver does not
 *   20, 24 STATE   of component 0 and 1: the F-state that the driver has taken it to
 *
 * Built with VERSION 1 (idle.sys); with 2 (idle_depends.sys), where component 1 depends on component 0, or (KEEPS_F0, idle_kept.sys) component 0 is in F0
 * whenever the device goes to a lower state; and with 3 (idle_directed.sys), with directed power.
 *
 * Pages: Component-Level Power Management, PoFxRegisterDevice function and the callbacks it names, Introduction to the Directed Power Management
 * Framework.
 */
#include <ddk/wdm.h>
#include "control.h"
#include "pofx/pofx.h"

static VOID SystemDone(PIRP Irp);
#define POWER_DONE(Irp) SystemDone(Irp)
#include "function.h"

/* mingw's wdm.h has it in ntifs.h only. */
NTKERNELAPI HANDLE NTAPI PsGetCurrentThreadId(VOID);

#define CODE(Number) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (Number), METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a ULONG, the component, and a ULONG, the value, which is written when the component is active (PO_FX_FLAG_ASYNC_ONLY). */
#define IOCTL_IDLE_WRITE CODE(0)
/* Input: a ULONG, the component. Output: VALUE, read when the component is active (PO_FX_FLAG_ASYNC_ONLY). */
#define IOCTL_IDLE_READ CODE(1)
/* The same, by PO_FX_FLAG_BLOCKING. */
#define IOCTL_IDLE_READ_NOW CODE(2)
/* Input: a ULONG, the component, and a ULONG, PO_FX_FLAG_*: activates it; 0x20000000 at DISPATCH_LEVEL. */
#define IOCTL_IDLE_ACTIVATE CODE(3)
/* The same: takes that back. */
#define IOCTL_IDLE_IDLE CODE(4)
/*
 * Output: text, what was called since the last time: A active, I idle, S its F-state, each with the component, and * if another thread has called
 * it than the one whose request is dispatched; N power not required, R power required, d before a lower state, u in D0 again, D and U directed.
 */
#define IOCTL_IDLE_LOG CODE(5)
/* Input: ULONGs: what is set (0 latency, 1 residency, 2 wake, 3 idle timeout), of which component, and to what, in 100 ns. */
#define IOCTL_IDLE_SET CODE(6)
/* Input: a ULONG: from now on idle conditions and F-states are answered so many 100 ns later; 0: within the callback. */
#define IOCTL_IDLE_LATE CODE(7)
/* Input: a ULONG: 0 answers an idle condition that was not asked for, 1 an F-state, 2 that power is not required, 3 that it is on, 4 directed power. */
#define IOCTL_IDLE_ANSWER CODE(8)
/* The device was turned on beside another one, as its bus driver would tell. */
#define IOCTL_IDLE_SURPRISE CODE(9)

/* From now on directed power is not answered, or, with an input (1 down, 2 up), that way answered at once and not carried out: the driver is wrong. */
#define PRETENDS_DOWN 1
#define PRETENDS_UP 2
#define IOCTL_IDLE_KEEP CODE(10)

#define AT_DISPATCH 0x20000000
#define COMPONENTS 2
#define VALUE(Component) (0x10 + 4 * (Component))
#define STATE(Component) (0x20 + 4 * (Component))
#define MILLISECONDS 10000ull

#if VERSION == 1
typedef PO_FX_DEVICE_V1 FX_DEVICE;
typedef PO_FX_COMPONENT_V1 FX_COMPONENT;
#elif VERSION == 2
typedef PO_FX_DEVICE_V2 FX_DEVICE;
typedef PO_FX_COMPONENT_V2 FX_COMPONENT;
#else
typedef PO_FX_DEVICE_V3 FX_DEVICE;
typedef PO_FX_COMPONENT_V2 FX_COMPONENT;
#endif

/* Answers that come later. */
typedef struct _LATER {
    KTIMER Timer;
    KDPC Dpc;
    ULONG Component;
    BOOLEAN IsState;
} LATER, *PLATER;

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    POHANDLE Fx;           /* NULL while the device is not registered */
    EX_RUNDOWN_REF Users;  /* requests that use Fx */
    EX_RUNDOWN_REF Powers; /* power requests that the driver has asked for, which end before the device goes */
    KSPIN_LOCK Lock;      /* of all that follows, and of VALUE */
    BOOLEAN Powered; /* the device is in D0: while the system sleeps it is not, whatever its components are */
    BOOLEAN Active[COMPONENTS];
    LIST_ENTRY Held[COMPONENTS]; /* requests that wait for the component */
    ULONG Value[COMPONENTS];     /* what the card holds, or is to hold when it is in D0 again */
    LATER Later[COMPONENTS];
    ULONG Late;
    BOOLEAN Keeps;
    UCHAR Pretends;
    HANDLE Asker; /* the thread whose request is being dispatched */
    ULONG Logged;
    CHAR Log[512];
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static VOID Put(PDEVICE_EXTENSION Extension, CHAR Character)
{
    if (Extension->Logged < sizeof(Extension->Log)) {
        Extension->Log[Extension->Logged++] = Character;
    }
}

/* Digits of what there is none of are left out. */
static VOID LogCall(PDEVICE_EXTENSION Extension, CHAR What, LONG Component, LONG State)
{
    KIRQL Old;

    KeAcquireSpinLock(&Extension->Lock, &Old);
    Put(Extension, What);
    if (Component >= 0) {
        Put(Extension, (CHAR)('0' + Component));
    }
    if (State >= 0) {
        Put(Extension, (CHAR)('0' + State));
    }
    if (Component >= 0 && Extension->Asker != PsGetCurrentThreadId()) {
        Put(Extension, '*');
    }
    Put(Extension, ' ');
    KeReleaseSpinLock(&Extension->Lock, Old);
}

/* What a request for an active component does. */
static VOID Serve(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Component = Buffer[0];

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_IDLE_WRITE) {
        Extension->Value[Component] = Buffer[1];
        Write(&Extension->Function, VALUE(Component), Buffer[1]);
        Irp->IoStatus.Information = 0;
    } else {
        Buffer[0] = Read(&Extension->Function, VALUE(Component));
        Irp->IoStatus.Information = sizeof(ULONG);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
}

/* What has waited for a component is served, if it can be accessed. Each request has activated the component, and takes that back. */
static VOID ServeHeld(PDEVICE_EXTENSION Extension, ULONG Component)
{
    LIST_ENTRY Served;
    PLIST_ENTRY Entry;
    KIRQL Old;

    InitializeListHead(&Served);
    KeAcquireSpinLock(&Extension->Lock, &Old);
    while (Extension->Powered && Extension->Active[Component] && !IsListEmpty(&Extension->Held[Component])) {
        Entry = RemoveHeadList(&Extension->Held[Component]);
        Serve(Extension, CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry));
        InsertTailList(&Served, Entry);
    }
    KeReleaseSpinLock(&Extension->Lock, Old);
    while (!IsListEmpty(&Served)) {
        Entry = RemoveHeadList(&Served);
        IoCompleteRequest(CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry), IO_NO_INCREMENT);
        PoFxIdleComponent(Extension->Fx, Component, PO_FX_FLAG_ASYNC_ONLY);
    }
}

static VOID SetActive(PDEVICE_EXTENSION Extension, ULONG Component, BOOLEAN Active)
{
    KIRQL Old;

    KeAcquireSpinLock(&Extension->Lock, &Old);
    Extension->Active[Component] = Active;
    KeReleaseSpinLock(&Extension->Lock, Old);
}

static VOID NTAPI OnActive(PVOID Context, ULONG Component)
{
    PDEVICE_EXTENSION Extension = Context;

    LogCall(Extension, 'A', Component, -1);
    SetActive(Extension, Component, TRUE);
    ServeHeld(Extension, Component);
}

static VOID Answer(PDEVICE_EXTENSION Extension, ULONG Component, BOOLEAN IsState)
{
    if (IsState) {
        PoFxCompleteIdleState(Extension->Fx, Component);
    } else {
        PoFxCompleteIdleCondition(Extension->Fx, Component);
    }
}

static VOID NTAPI AnswerLater(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    PDEVICE_EXTENSION Extension = Context;
    PLATER Later = CONTAINING_RECORD(Dpc, LATER, Dpc);

    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    Answer(Extension, Later->Component, Later->IsState);
}

static VOID AnswerSoon(PDEVICE_EXTENSION Extension, ULONG Component, BOOLEAN IsState)
{
    PLATER Later = &Extension->Later[Component];
    LARGE_INTEGER Due;

    if (Extension->Late == 0) {
        Answer(Extension, Component, IsState);
        return;
    }
    Later->Component = Component;
    Later->IsState = IsState;
    Due.QuadPart = -(LONGLONG)Extension->Late;
    KeSetTimer(&Later->Timer, Due, &Later->Dpc);
}

static VOID NTAPI OnIdle(PVOID Context, ULONG Component)
{
    PDEVICE_EXTENSION Extension = Context;

    LogCall(Extension, 'I', Component, -1);
    SetActive(Extension, Component, FALSE);
    AnswerSoon(Extension, Component, FALSE);
}

static VOID NTAPI OnIdleState(PVOID Context, ULONG Component, ULONG State)
{
    PDEVICE_EXTENSION Extension = Context;

    LogCall(Extension, 'S', Component, State);
    Write(&Extension->Function, STATE(Component), State);
    AnswerSoon(Extension, Component, TRUE);
}

/* The device is in D0, or cannot come there: either way that is all it can do. */
static VOID NTAPI DeviceIsOn(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Block);
    PoFxReportDevicePoweredOn(Extension->Fx);
    ExReleaseRundownProtection(&Extension->Powers);
}

static NTSTATUS GoTo(PDEVICE_EXTENSION Extension, DEVICE_POWER_STATE Wanted, PREQUEST_POWER_COMPLETE Done)
{
    POWER_STATE State;

    State.DeviceState = Wanted;
    return PoRequestPowerIrp(Extension->Function.Pdo, IRP_MN_SET_POWER, State, Done, Extension, NULL);
}

/* The device is to be in D0, which the framework hears at the end. */
static VOID GoUp(PDEVICE_EXTENSION Extension)
{
    if (!ExAcquireRundownProtection(&Extension->Powers)) {
        PoFxReportDevicePoweredOn(Extension->Fx); /* the device is being stopped */
    } else if (GoTo(Extension, PowerDeviceD0, DeviceIsOn) != STATUS_PENDING) {
        PoFxReportDevicePoweredOn(Extension->Fx);
        ExReleaseRundownProtection(&Extension->Powers);
    }
}

static VOID NTAPI DeviceIsDown(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Block);
    ExReleaseRundownProtection(&Extension->Powers);
}

static VOID NTAPI OnPowerNotRequired(PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    LogCall(Extension, 'N', -1, -1);
    if (ExAcquireRundownProtection(&Extension->Powers) && GoTo(Extension, PowerDeviceD3, DeviceIsDown) != STATUS_PENDING) {
        ExReleaseRundownProtection(&Extension->Powers);
    }
    PoFxCompleteDevicePowerNotRequired(Extension->Fx);
}

static VOID NTAPI OnPowerRequired(PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    LogCall(Extension, 'R', -1, -1);
    GoUp(Extension);
}

#if VERSION == 3
static VOID NTAPI DirectedDown(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Block);
    PoFxCompleteDirectedPowerDown(Extension->Fx);
    ExReleaseRundownProtection(&Extension->Powers);
}

static VOID NTAPI OnDirectedDown(PVOID Context, ULONG Flags)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Flags);
    LogCall(Extension, 'D', -1, -1);
    if (Extension->Keeps) {
        return;
    }
    if (Extension->Pretends == PRETENDS_DOWN) {
        PoFxCompleteDirectedPowerDown(Extension->Fx);
        return;
    }
    if (!ExAcquireRundownProtection(&Extension->Powers)) {
        PoFxCompleteDirectedPowerDown(Extension->Fx);
    } else if (GoTo(Extension, PowerDeviceD3, DirectedDown) != STATUS_PENDING) {
        PoFxCompleteDirectedPowerDown(Extension->Fx);
        ExReleaseRundownProtection(&Extension->Powers);
    }
}

static VOID NTAPI OnDirectedUp(PVOID Context, ULONG Flags)
{
    UNREFERENCED_PARAMETER(Flags);
    LogCall(Context, 'U', -1, -1);
    if (((PDEVICE_EXTENSION)Context)->Pretends == PRETENDS_UP) {
        PoFxReportDevicePoweredOn(((PDEVICE_EXTENSION)Context)->Fx);
        return;
    }
    GoUp(Context);
}
#endif

/* A system's request ends: for S0 the device was asked for D0 before, and is there. */
static VOID SystemDone(PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE_EXTENSION Extension = Stack->DeviceObject->DeviceExtension;

    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.State.SystemState == PowerSystemWorking &&
        ExAcquireRundownProtection(&Extension->Powers)) {
        PoFxReportDevicePoweredOn(Extension->Fx);
        ExReleaseRundownProtection(&Extension->Powers);
    }
}

static NTSTATUS Register(PDEVICE_EXTENSION Extension)
{
    static PO_FX_COMPONENT_IDLE_STATE States[] = {
        {0, 0, PO_FX_UNKNOWN_POWER}, {1 * MILLISECONDS, 10 * MILLISECONDS, 100}, {10 * MILLISECONDS, 100 * MILLISECONDS, 10}};
    struct {
        FX_DEVICE Device;
        FX_COMPONENT Others[COMPONENTS - 1];
    } Fx;
    PPO_FX_COMPONENT_IDLE_STATE IdleStates = States;
    ULONG Index;

    RtlZeroMemory(&Fx, sizeof(Fx));
    Fx.Device.Version = VERSION;
    Fx.Device.ComponentCount = COMPONENTS;
    Fx.Device.ComponentActiveConditionCallback = OnActive;
    Fx.Device.ComponentIdleConditionCallback = OnIdle;
    Fx.Device.ComponentIdleStateCallback = OnIdleState;
    Fx.Device.DevicePowerRequiredCallback = OnPowerRequired;
    Fx.Device.DevicePowerNotRequiredCallback = OnPowerNotRequired;
    Fx.Device.DeviceContext = Extension;
    for (Index = 0; Index < COMPONENTS; Index++) {
        FX_COMPONENT *Component = Index == 0 ? &Fx.Device.Components[0] : &Fx.Others[Index - 1];

        Component->IdleStateCount = RTL_NUMBER_OF(States);
        Component->DeepestWakeableIdleState = 1;
        Component->IdleStates = IdleStates;
    }
#ifdef KEEPS_F0
    Fx.Device.Components[0].Flags = PO_FX_COMPONENT_FLAG_F0_ON_DX;
    Fx.Others[0].Flags = PO_FX_COMPONENT_FLAG_NO_DEBOUNCE;
#elif VERSION == 2
    static ULONG First;

    Fx.Others[0].ProviderCount = 1;
    Fx.Others[0].Providers = &First;
#endif
#if VERSION == 3
    Fx.Device.DirectedPowerUpCallback = OnDirectedUp;
    Fx.Device.DirectedPowerDownCallback = OnDirectedDown;
#endif
    return PoFxRegisterDevice(Extension->Function.Pdo, &Fx, &Extension->Fx);
}

/* A request that needs a component waits until that can be accessed. */
static NTSTATUS WhenActive(PDEVICE_EXTENSION Extension, PIRP Irp, ULONG Component)
{
    KIRQL Old;

    IoMarkIrpPending(Irp);
    PoFxActivateComponent(Extension->Fx, Component, PO_FX_FLAG_ASYNC_ONLY);
    KeAcquireSpinLock(&Extension->Lock, &Old);
    InsertTailList(&Extension->Held[Component], &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Extension->Lock, Old);
    ServeHeld(Extension, Component);
    return STATUS_PENDING;
}

static NTSTATUS ReadNow(PDEVICE_EXTENSION Extension, PIRP Irp, ULONG Component)
{
    BOOLEAN Powered;
    KIRQL Old;

    PoFxActivateComponent(Extension->Fx, Component, PO_FX_FLAG_BLOCKING);
    KeAcquireSpinLock(&Extension->Lock, &Old);
    Powered = Extension->Powered;
    if (Powered) {
        Serve(Extension, Irp);
    } else {
        IoMarkIrpPending(Irp);
        InsertTailList(&Extension->Held[Component], &Irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&Extension->Lock, Old);
    if (!Powered) {
        ServeHeld(Extension, Component);
        return STATUS_PENDING;
    }
    PoFxIdleComponent(Extension->Fx, Component, PO_FX_FLAG_BLOCKING);
    return Complete(Irp, Irp->IoStatus.Status, Irp->IoStatus.Information);
}

static VOID Change(PDEVICE_EXTENSION Extension, ULONG Component, ULONG Flags, BOOLEAN Activate)
{
    KIRQL Old = PASSIVE_LEVEL;

    if (Flags & AT_DISPATCH) {
        KeRaiseIrql(DISPATCH_LEVEL, &Old);
    }
    if (Activate) {
        PoFxActivateComponent(Extension->Fx, Component, Flags & ~AT_DISPATCH);
    } else {
        PoFxIdleComponent(Extension->Fx, Component, Flags & ~AT_DISPATCH);
    }
    if (Flags & AT_DISPATCH) {
        KeLowerIrql(Old);
    }
}

static NTSTATUS Set(PDEVICE_EXTENSION Extension, ULONG What, ULONG Component, ULONG To)
{
    switch (What) {
    case 0:
        PoFxSetComponentLatency(Extension->Fx, Component, To);
        return STATUS_SUCCESS;
    case 1:
        PoFxSetComponentResidency(Extension->Fx, Component, To);
        return STATUS_SUCCESS;
    case 2:
        PoFxSetComponentWake(Extension->Fx, Component, To != 0);
        return STATUS_SUCCESS;
    case 3:
        PoFxSetDeviceIdleTimeout(Extension->Fx, To);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_PARAMETER;
    }
}

static VOID AnswerNothing(PDEVICE_EXTENSION Extension, ULONG Which)
{
    switch (Which) {
    case 0:
        PoFxCompleteIdleCondition(Extension->Fx, 1);
        break;
    case 1:
        PoFxCompleteIdleState(Extension->Fx, 1);
        break;
    case 2:
        PoFxCompleteDevicePowerNotRequired(Extension->Fx);
        break;
    case 3:
        PoFxReportDevicePoweredOn(Extension->Fx);
        break;
    default:
        PoFxCompleteDirectedPowerDown(Extension->Fx);
        break;
    }
}

static ULONG TakeLog(PDEVICE_EXTENSION Extension, PCHAR To, ULONG Room)
{
    ULONG Length;
    KIRQL Old;

    KeAcquireSpinLock(&Extension->Lock, &Old);
    Length = Extension->Logged < Room ? Extension->Logged : Room;
    RtlCopyMemory(To, Extension->Log, Length);
    Extension->Logged = 0;
    KeReleaseSpinLock(&Extension->Lock, Old);
    return Length;
}

/* A request while the device is registered. */
static NTSTATUS Carry(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Room = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG Given = Stack->Parameters.DeviceIoControl.InputBufferLength / sizeof(ULONG);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Input[3] = {0};
    ULONG Index;

    for (Index = 0; Index < RTL_NUMBER_OF(Input) && Index < Given; Index++) {
        Input[Index] = Buffer[Index];
    }
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_IDLE_WRITE:
        if (Given < 2 || Input[0] >= COMPONENTS) {
            break;
        }
        return WhenActive(Extension, Irp, Input[0]);
    case IOCTL_IDLE_READ:
    case IOCTL_IDLE_READ_NOW:
        if (Given < 1 || Room < sizeof(ULONG) || Input[0] >= COMPONENTS) {
            break;
        }
        if (Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_IDLE_READ_NOW) {
            return ReadNow(Extension, Irp, Input[0]);
        }
        return WhenActive(Extension, Irp, Input[0]);
    case IOCTL_IDLE_ACTIVATE:
    case IOCTL_IDLE_IDLE:
        Change(Extension, Input[0], Input[1], Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_IDLE_ACTIVATE);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_IDLE_LOG:
        return Complete(Irp, STATUS_SUCCESS, TakeLog(Extension, (PCHAR)Buffer, Room));
    case IOCTL_IDLE_SET:
        return Complete(Irp, Set(Extension, Input[0], Input[1], Input[2]), 0);
    case IOCTL_IDLE_LATE:
        Extension->Late = Input[0];
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_IDLE_ANSWER:
        AnswerNothing(Extension, Input[0]);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_IDLE_KEEP:
        Extension->Keeps = Given == 0;
        Extension->Pretends = (UCHAR)Input[0];
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_IDLE_SURPRISE:
        PoFxNotifySurprisePowerOn(Extension->Function.Pdo);
        return Complete(Irp, STATUS_SUCCESS, 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status;

    if (!ExAcquireRundownProtection(&Extension->Users)) {
        return Complete(Irp, STATUS_DELETE_PENDING, 0);
    }
    Extension->Asker = PsGetCurrentThreadId();
    Status = Carry(Extension, Irp);
    Extension->Asker = NULL;
    ExReleaseRundownProtection(&Extension->Users);
    return Status;
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Component;

    KeInitializeSpinLock(&Extension->Lock);
    /* There is nothing to use yet. */
    ExInitializeRundownProtection(&Extension->Users);
    ExWaitForRundownProtectionRelease(&Extension->Users);
    ExInitializeRundownProtection(&Extension->Powers);
    ExWaitForRundownProtectionRelease(&Extension->Powers);
    for (Component = 0; Component < COMPONENTS; Component++) {
        InitializeListHead(&Extension->Held[Component]);
        KeInitializeTimer(&Extension->Later[Component].Timer);
        KeInitializeDpc(&Extension->Later[Component].Dpc, AnswerLater, Extension);
    }
}

static VOID SetPowered(PDEVICE_EXTENSION Extension, BOOLEAN Powered)
{
    KIRQL Old;

    KeAcquireSpinLock(&Extension->Lock, &Old);
    Extension->Powered = Powered;
    KeReleaseSpinLock(&Extension->Lock, Old);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = Register(Extension);
    ULONG Component;

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    for (Component = 0; Component < COMPONENTS; Component++) {
        SetActive(Extension, Component, TRUE);
        Write(&Extension->Function, VALUE(Component), Extension->Value[Component]);
    }
    SetPowered(Extension, TRUE);
    ExReInitializeRundownProtection(&Extension->Powers);
    ExReInitializeRundownProtection(&Extension->Users);
    PoFxStartDevicePowerManagement(Extension->Fx);
    return Connect(&Extension->Function);
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Component;

    LogCall(Extension, On ? 'u' : 'd', -1, -1);
    if (!On) {
        SetPowered(Extension, FALSE);
        return;
    }
    for (Component = 0; Component < COMPONENTS; Component++) {
        Write(&Extension->Function, VALUE(Component), Extension->Value[Component]);
    }
    SetPowered(Extension, TRUE);
    for (Component = 0; Component < COMPONENTS && ExAcquireRundownProtection(&Extension->Powers); Component++) {
        ServeHeld(Extension, Component);
        ExReleaseRundownProtection(&Extension->Powers);
    }
}

/* The framework is no longer used: the registration goes, and requests that waited for a component fail. */
static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Component;

    UNREFERENCED_PARAMETER(Present);
    if (Extension->Fx == NULL) {
        return;
    }
    ExWaitForRundownProtectionRelease(&Extension->Users);
    ExWaitForRundownProtectionRelease(&Extension->Powers);
    for (Component = 0; Component < COMPONENTS; Component++) {
        KeCancelTimer(&Extension->Later[Component].Timer);
    }
    KeFlushQueuedDpcs();
    PoFxUnregisterDevice(Extension->Fx);
    Extension->Fx = NULL;
    for (Component = 0; Component < COMPONENTS; Component++) {
        while (!IsListEmpty(&Extension->Held[Component])) {
            PLIST_ENTRY Entry = RemoveHeadList(&Extension->Held[Component]);

            Complete(CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry), STATUS_DELETE_PENDING, 0);
        }
    }
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
    return FALSE; /* it has none */
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Device = RTL_CONSTANT_STRING(L"\\Device\\Idle");
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Idle");

    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDevice = Device;
    FunctionLink = Link;
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}
