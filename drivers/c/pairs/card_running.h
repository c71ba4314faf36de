/* What the device of pairs_pnp.sys does with requests while it lives. */
#ifndef PAIRS_CARD_RUNNING_H
#define PAIRS_CARD_RUNNING_H

#include "card_adding.h"
#include "card_pofx.h"

#define USE_CARD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)

static NTSTATUS OnStart(PCARD Card, PIRP Irp)
{
    NTSTATUS Status = ForwardAndWait(Card, Irp);

    TakeTurn(Card);
    if (NT_SUCCESS(Status)) {
        Status = TakeResources(Card, IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated);
    }
    if (NT_SUCCESS(Status) && IsFx()) {
        Status = FxStart(Card);
    }
    Card->IsStarted = NT_SUCCESS(Status);
    if (Card->IsStarted) {
        IoSetDeviceInterfaceState(&Card->Interface, TRUE);
    } else {
        FxStop();
        Disconnect(Card);
        Unmap(Card);
    }
    GiveTurn(Card);
    return Complete(Irp, Status, 0);
}

/* The device gives back what it was started with; its card is there still, or is not. */
static VOID Quiet(PCARD Card, BOOLEAN IsThere)
{
    TakeTurn(Card);
    if (Is(NotClaimed) && IsThere && IsAwake(Card)) {
        *(volatile ULONG *)(Card->Registers + BENCH_ENABLE) = 0;
    }
    Card->IsStarted = FALSE;
    FxStop();
    Disconnect(Card);
    if (!IsWrong(StillMapped)) {
        Unmap(Card);
    }
    if (Card->HasBus && !IsWrong(InterfaceLeak)) {
        Card->HasBus = FALSE;
        Card->Bus.InterfaceDereference(Card->Bus.Context);
        if (IsWrong(InterfaceReference)) {
            Card->Bus.InterfaceDereference(Card->Bus.Context);
        }
    }
    GiveTurn(Card);
}

static NTSTATUS OnRemove(PCARD Card, PIRP Irp)
{
    PDEVICE_OBJECT Lower = Card->Lower;
    BOOLEAN IsHeld;
    NTSTATUS Status;

    FxIsRemoved = TRUE;
    if (!IsWrong(InterfaceStillEnabled)) {
        IoSetDeviceInterfaceState(&Card->Interface, FALSE);
    }
    if (!Is(UsedAfterRelease)) {
        Quiet(Card, TRUE);
    } else {
        Disconnect(Card);
        if (IsAwake(Card)) {
            Sink = *(volatile ULONG *)Card->Registers;
        }
        Card->IsStarted = FALSE;
    }
    RtlFreeUnicodeString(&Card->Interface);
    IoDeleteSymbolicLink(&CardLink);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (IsWrong(DeletedEarly)) {
        Unmap(Card);
        IoSkipCurrentIrpStackLocation(Irp);
        IoDetachDevice(Lower);
        IoDeleteDevice(Card->Self);
        return IoCallDriver(Lower, Irp);
    }
    IsHeld = HasLock() && NT_SUCCESS(IoAcquireRemoveLock(&Card->RemoveLock, Irp));
    Status = PassDown(Card, Irp);
    if (IsHeld && !IsWrong(LockNotAwaited)) {
        IoReleaseRemoveLockAndWait(&Card->RemoveLock, Irp);
    }
    if (IsWrong(UsedAfterRelease) && Card->Registers != NULL) {
        Sink = *(volatile ULONG *)Card->Registers;
    }
    Unmap(Card);
    if (!IsWrong(NotDetached)) {
        IoDetachDevice(Lower);
    }
    if (!IsWrong(NotDeleted)) {
        IoDeleteDevice(Card->Self);
    }
    return Status;
}

static VOID NTAPI CancelKeptRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCARD Card = Device->DeviceExtension;

    if (Card->Kept == Irp) {
        Card->Kept = NULL;
    }
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS KeepRequest(PCARD Card, PIRP Irp)
{
    KIRQL Old;

    IoAcquireCancelSpinLock(&Old);
    if (Irp->Cancel || Card->Kept != NULL || Card->IsGone) {
        IoReleaseCancelSpinLock(Old);
        return Complete(Irp, Irp->Cancel ? STATUS_CANCELLED : STATUS_DEVICE_BUSY, 0);
    }
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, CancelKeptRequest);
    Card->Kept = Irp;
    IoReleaseCancelSpinLock(Old);
    return STATUS_PENDING;
}

static VOID FailKept(PCARD Card)
{
    KIRQL Old;
    PIRP Irp;

    IoAcquireCancelSpinLock(&Old);
    Irp = Card->Kept;
    Card->Kept = NULL;
    if (Irp != NULL) {
        IoSetCancelRoutine(Irp, NULL);
    }
    IoReleaseCancelSpinLock(Old);
    if (Irp != NULL) {
        Complete(Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
}

static NTSTATUS OnSurprise(PCARD Card, PIRP Irp)
{
    NTSTATUS Status;
    KIRQL Old;

    IoSetDeviceInterfaceState(&Card->Interface, FALSE);
    IoAcquireCancelSpinLock(&Old);
    Card->IsGone = TRUE;
    IoReleaseCancelSpinLock(Old);
    if (!IsWrong(KeptWhenGone)) {
        FailKept(Card);
    }
    Quiet(Card, FALSE);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Status = PassDown(Card, Irp);
    if (IsWrong(DetachedInSurprise) || IsWrong(DeletedInSurprise)) {
        RtlFreeUnicodeString(&Card->Interface);
        IoDeleteSymbolicLink(&CardLink);
        IoDetachDevice(Card->Lower);
    }
    if (IsWrong(DeletedInSurprise)) {
        IoDeleteDevice(Card->Self);
    }
    return Status;
}

static NTSTATUS OnRequirements(PCARD Card, PIRP Irp)
{
    PIO_RESOURCE_REQUIREMENTS_LIST List;

    ForwardAndWait(Card, Irp);
    List = (PIO_RESOURCE_REQUIREMENTS_LIST)Irp->IoStatus.Information;
    if (List != NULL && IsWrong(BadRequirements)) {
        List->List[0].Count = 0x10000; /* more than ListSize has room for */
    }
    return Complete(Irp, STATUS_SUCCESS, (ULONG_PTR)List);
}

static NTSTATUS NTAPI GoOn(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
    return STATUS_CONTINUE_COMPLETION;
}

/* With a completion routine that keeps a device's driver loaded. */
static NTSTATUS PassDownSeen(PCARD Card, PIRP Irp)
{
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutineEx(IsWrong(RoutineDevice) ? Card->Lower : Card->Self, Irp, GoOn, NULL, TRUE, TRUE, TRUE);
    return IoCallDriver(Card->Lower, Irp);
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCARD Card = Device->DeviceExtension;
    UCHAR Minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    PDEVICE_OBJECT Lower = Card->Lower;
    NTSTATUS Status;

    if (Card->IsLower) {
        Status = PassDown(Card, Irp);
        if (Minor == IRP_MN_REMOVE_DEVICE) {
            IoDetachDevice(Lower);
            IoDeleteDevice(Device);
        }
        return Status;
    }
    if (Is(StackSizeLeft) && Minor != IRP_MN_REMOVE_DEVICE) {
        return PassDown(Card, Irp); /* which needs no stack location */
    }
    switch (Minor) {
    case IRP_MN_START_DEVICE:
        return OnStart(Card, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return OnRemove(Card, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        return OnSurprise(Card, Irp);
    case IRP_MN_FILTER_RESOURCE_REQUIREMENTS:
        return OnRequirements(Card, Irp);
    case IRP_MN_STOP_DEVICE:
        Quiet(Card, TRUE);
        if (IsWrong(NotPassedDown)) {
            return Complete(Irp, STATUS_SUCCESS, 0);
        }
        if (IsWrong(RequestFailed)) {
            return Complete(Irp, STATUS_UNSUCCESSFUL, 0);
        }
        break;
    case IRP_MN_QUERY_PNP_DEVICE_STATE:
        if (Is(RoutineDevice)) {
            return PassDownSeen(Card, Irp);
        }
        if (IsWrong(FailedPassedOn)) {
            Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        }
        if (IsWrong(MinorAnswered)) {
            return Complete(Irp, STATUS_NOT_SUPPORTED, 0);
        }
        return PassDown(Card, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        break;
    default:
        return PassDown(Card, Irp);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    return PassDown(Card, Irp);
}

/* What says that the card has no power, of what the request sets: the system's state or the device's. */
static PBOOLEAN HasNoPower(PCARD Card, PIO_STACK_LOCATION Stack)
{
    return Stack->Parameters.Power.Type == SystemPowerState ? &Card->SystemSleeps : &Card->IsOff;
}

static BOOLEAN Wakes(PIO_STACK_LOCATION Stack)
{
    POWER_STATE State = Stack->Parameters.Power.State;

    return Stack->Parameters.Power.Type == SystemPowerState ? State.SystemState == PowerSystemWorking
                                                            : State.DeviceState == PowerDeviceD0;
}

static NTSTATUS NTAPI HasWoken(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Context);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        *HasNoPower(Device->DeviceExtension, Stack) = FALSE;
        if (Fx != NULL && Stack->Parameters.Power.Type == SystemPowerState) {
            PoFxReportDevicePoweredOn(Fx);
        }
    }
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
    return STATUS_CONTINUE_COMPLETION;
}

/* It is asked at DISPATCH_LEVEL, where it could not wait, only by pairs that do not use the card. */
static VOID FallAsleep(PCARD Card, PIO_STACK_LOCATION Stack)
{
    BOOLEAN CanWait = KeGetCurrentIrql() < DISPATCH_LEVEL;

    if (CanWait) {
        TakeTurn(Card);
    }
    *HasNoPower(Card, Stack) = TRUE;
    if (CanWait) {
        GiveTurn(Card);
    }
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCARD Card = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    PoStartNextPowerIrp(Irp);
    if (IsWrong(SetPowerFailed) && Stack->MinorFunction == IRP_MN_SET_POWER &&
        Stack->Parameters.Power.Type == DevicePowerState) {
        return Complete(Irp, STATUS_UNSUCCESSFUL, 0);
    }
    if (IsWrong(PowerNotPassed) && Stack->MinorFunction == IRP_MN_SET_POWER) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    if (IsWrong(FailedPassedOn)) {
        Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER && Wakes(Stack) && !Card->IsLower) {
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, HasWoken, NULL, TRUE, TRUE, TRUE);
        return PoCallDriver(Card->Lower, Irp);
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        FallAsleep(Card, Stack);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    return PoCallDriver(Card->Lower, Irp);
}

static NTSTATUS NTAPI DispatchPass(PDEVICE_OBJECT Device, PIRP Irp)
{
    return PassDown(Device->DeviceExtension, Irp);
}

static VOID NTAPI PowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Block);
    KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
}

static VOID SetPower(PCARD Card)
{
    POWER_STATE State = {.DeviceState = PowerDeviceD0};
    KEVENT Done;
    PIRP Irp = NULL;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    if (PoRequestPowerIrp(Card->Pdo, IRP_MN_SET_POWER, State, PowerDone, &Done, IsWrong(RequestedPowerIrp) ? &Irp : NULL) ==
        STATUS_PENDING) {
        WaitFor(&Done);
    }
}

static BOOLEAN NTAPI Take(PVOID Lock)
{
    KeAcquireSpinLockAtDpcLevel(Lock);
    KeReleaseSpinLockFromDpcLevel(Lock);
    return TRUE;
}

static BOOLEAN NTAPI Stall(PVOID Microseconds)
{
    KeStallExecutionProcessor((ULONG)(ULONG_PTR)Microseconds);
    return TRUE;
}

/* The interrupt's lock within a lock of the driver's, then the other way about. */
static VOID TakeBoth(PCARD Card)
{
    static KSPIN_LOCK Own, Other;
    KIRQL Old;

    KeAcquireSpinLock(&Own, &Old);
    KeSynchronizeExecution(Card->Interrupt, Stall, NULL);
    KeReleaseSpinLock(&Own, Old);
    KeSynchronizeExecution(Card->Interrupt, Take, IsWrong(InterruptLockOrder) ? &Own : &Other);
}

static VOID NTAPI LetFifthThrough(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    volatile ULONG *Enable = (PVOID)(((PCARD)Context)->Registers + BENCH_ENABLE);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    *Enable |= 0x20;
    Sink = *Enable;
}

/* Two sources are let through: the DPC runs as soon as it is queued, between the read and the write of the fourth's or in front of them. */
static VOID LetTwoThrough(PCARD Card)
{
    static KDPC Dpc;
    volatile ULONG *Enable = (PVOID)(Card->Registers + BENCH_ENABLE);
    ULONG Value;

    KeInitializeDpc(&Dpc, LetFifthThrough, Card);
    if (!IsWrong(UpdateLost)) {
        KeInsertQueueDpc(&Dpc, NULL, NULL);
        KeFlushQueuedDpcs();
    }
    Value = *Enable;
    if (IsWrong(UpdateLost)) {
        KeInsertQueueDpc(&Dpc, NULL, NULL);
    }
    *Enable = Value | 0x10;
    KeFlushQueuedDpcs();
}

/* Whether the card has done what it was asked for, or does so soon. */
static BOOLEAN IsDone(volatile ULONG *Command)
{
    for (ULONG Looks = 0; Looks < 1000; Looks++) {
        if ((*Command & 1) == 0) {
            return TRUE;
        }
        KeStallExecutionProcessor(1);
    }
    return FALSE;
}

/* Two transfers of nothing: the second one is started while the first is under way, or when the card is done with that. */
static VOID StartTwoTransfers(PCARD Card)
{
    volatile ULONG *Command = (PVOID)(Card->Registers + BENCH_DMA_COMMAND);

    *(volatile ULONG *)(Card->Registers + BENCH_DMA_DELAY) = 10000;
    if (IsDone(Command)) {
        *Command = 1;
    }
    if (IsWrong(WriteIgnored) || IsDone(Command)) {
        *Command = 1;
    }
}

/* What a pair does with the card, which is awake. */
static VOID Use(PCARD Card)
{
    UCHAR Byte;

    if ((Is(InterfaceLeak) || Is(InterfaceContext) || Is(InterfaceReference)) && !Card->HasBus) {
        GetBus(Card);
    }
    if (Is(InterfaceContext) && Card->HasBus) {
        Card->Bus.GetBusData(IsWrong(InterfaceContext) ? (PVOID)Card : Card->Bus.Context, 0, &Byte, 0, sizeof(Byte));
    }
    if (IsFx() && Fx != NULL) {
        FxControl(Card);
    }
    if (Is(InterruptLockOrder)) {
        TakeBoth(Card);
    }
    if (Is(WriteIgnored)) {
        StartTwoTransfers(Card);
    }
    if (Is(NotClaimed)) {
        *(volatile ULONG *)(Card->Registers + BENCH_ENABLE) = 1;
        *(volatile ULONG *)(Card->Registers + BENCH_RAISE) = 1;
        Sink = *(volatile ULONG *)(Card->Registers + BENCH_RAISE);
    }
    if (Is(StallsAtLevel)) {
        KeSynchronizeExecution(Card->Interrupt, Stall, (PVOID)(ULONG_PTR)(IsWrong(StallsAtLevel) ? 30 : 20));
    }
    if (Is(UpdateLost)) {
        LetTwoThrough(Card);
    }
    if (Is(RegisterRefused)) {
        Sink = IsWrong(RegisterRefused) ? *(volatile UCHAR *)(Card->Registers + 1) : *(volatile ULONG *)Card->Registers;
    }
}

static LONG LastGiven; /* the number that was handed out last */

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCARD Card = Device->DeviceExtension;
    LARGE_INTEGER Limit;
    NTSTATUS Status;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode != USE_CARD) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Is(KeptWhenGone) || Is(Forgotten)) {
        Status = KeepRequest(Card, Irp);
        if (Is(Forgotten) && !IsWrong(Forgotten)) {
            FailKept(Card);
        }
        return Status;
    }
    if (Is(TimedOut)) {
        Limit.QuadPart = -10000000LL; /* a second, after which nothing has come, or the request is served after all */
        KeDelayExecutionThread(KernelMode, FALSE, &Limit);
        return Complete(Irp, IsWrong(TimedOut) ? STATUS_IO_TIMEOUT : STATUS_SUCCESS, 0);
    }
    if (Is(DependsOnUptime)) {
        Status = KeQueryInterruptTime() > 864000000000ULL ? STATUS_TIMEOUT : STATUS_SUCCESS; /* a day */
        return Complete(Irp, IsWrong(DependsOnUptime) ? Status : STATUS_SUCCESS, 0);
    }
    if (Is(EndedEarly)) {
        Limit.QuadPart = IsWrong(EndedEarly) ? -10000LL : -20000000LL; /* a thousandth of a second, or two */
        KeDelayExecutionThread(KernelMode, FALSE, &Limit);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    if (Is(GivenTwice) &&
        IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(ULONG)) {
        *(LONG *)Irp->AssociatedIrp.SystemBuffer = IsWrong(GivenTwice) ? 1 : InterlockedIncrement(&LastGiven);
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    if (Is(OfAnother) &&
        IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(ULONG)) {
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = IsWrong(OfAnother) ? 24 : 120;
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    if (Is(RequestRefused) || Is(StackSizeLeft)) { /* the latter has no resources */
        return Complete(Irp, IsWrong(RequestRefused) ? STATUS_DEVICE_BUSY : STATUS_SUCCESS, 0);
    }
    if (Is(SetPowerFailed) || Is(RequestedPowerIrp) || Is(PowerNotPassed) || Is(FailedPassedOn)) {
        SetPower(Card);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    TakeTurn(Card);
    Status = IsAwake(Card) ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    if (NT_SUCCESS(Status)) {
        Use(Card);
    }
    GiveTurn(Card);
    return Complete(Irp, Status, 0);
}

#endif
