/*
 * frame.h: what the drivers of this set share. A driver of a PnP device describes itself by a TRADE and calls TradeEntry from its DriverEntry; its
 * device extension begins with a UNIT. A driver without hardware uses desk.h alone, which comes along.
 *
 * A UNIT is Ready from the end of its start to the beginning of its stop, and Live while it is Ready and in D0. Both change under Hw only: who
 * holds Hw and sees Live may touch the card. The service routine is called while the card is Live only.
 */
#ifndef RR_FRAME_H
#define RR_FRAME_H
#include "hall_lane.h"
#include "hall_desk.h"

#define UNIT_TAG 'tinU'
#define MAX_WINDOWS 6

typedef struct _UNIT UNIT;
typedef struct _TRADE TRADE;

typedef struct _WINDOW {
    PUCHAR Base;
    ULONG Length;
} WINDOW;

struct _UNIT {
    PDEVICE_OBJECT Self, Lower, Pdo;
    IO_REMOVE_LOCK Guard;
    UNICODE_STRING Interface;
    LONG InterfaceOn;
    LONG Gone;                  /* interlocked: removal has begun */
    LONG Special;               /* interlocked: paging and other special files on the device */
    KSPIN_LOCK Hw;
    BOOLEAN Ready, Live;        /* Hw */
    DEVICE_POWER_STATE Power;   /* Hw */
    BOOLEAN Prepared;           /* PnP requests only */
    BOOLEAN Attended;              /* the interrupt's lock: the service routine may look at the card */
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    PIO_WORKITEM SinkItem;
    PIRP SinkIrp;
    KEVENT SinkIdle;            /* no request for D3 is on its way through SinkItem */
    ULONG Windows;
    WINDOW Window[MAX_WINDOWS];
};

/* All members but Size may be NULL or zero. */
struct _TRADE {
    ULONG Size;                                 /* of the device extension */
    ULONG IoFlags;
    const GUID *Interface;
    ULONG Windows;                              /* how many windows of memory it needs, */
    ULONG Span;                                 /* and how long the first must be */
    VOID (*Born)(UNIT *);                       /* AddDevice */
    NTSTATUS (*Prepare)(UNIT *);                /* start, PASSIVE_LEVEL, windows are mapped */
    VOID (*Settle)(UNIT *);                     /* PASSIVE_LEVEL, before a stop of a device that is there: waits for what cannot be broken off */
    VOID (*Release)(UNIT *);                    /* stop, and behind a Prepare that has failed: takes back what is there */
    VOID (*On)(UNIT *);                         /* the card has power: Hw and the interrupt's lock are held */
    VOID (*Off)(UNIT *);                        /* the same before it loses power, or is stopped */
    VOID (*Resume)(UNIT *);                     /* behind On, nothing held, DISPATCH_LEVEL or below */
    VOID (*Paused)(UNIT *);                     /* behind Off, nothing held, DISPATCH_LEVEL or below */
    BOOLEAN (*Isr)(UNIT *);
    VOID (*Dpc)(UNIT *);
    BOOLEAN (*Hold)(UNIT *, PIRP);              /* TRUE: keeps the request for D3 and calls UnitSinkLater once */
    NTSTATUS (*SystemPower)(UNIT *, PIRP);      /* in place of the frame's way with a system power state that is set */
    VOID (*Abandon)(UNIT *);                    /* removal: ends what waits and what will come */
    VOID (*Dead)(UNIT *);                       /* before the device object is deleted */
    NTSTATUS (*Cleanup)(UNIT *, PIRP, PIO_STACK_LOCATION);
    NTSTATUS (*Read)(UNIT *, PIRP, PIO_STACK_LOCATION);
    NTSTATUS (*Write)(UNIT *, PIRP, PIO_STACK_LOCATION);
    NTSTATUS (*Control)(UNIT *, PIRP, PIO_STACK_LOCATION);
};

static const TRADE *Trade;

/* ---- registers ---- */

PART ULONG Peek(UNIT *U, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(U->Window[0].Base + Offset));
}

PART VOID Poke(UNIT *U, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(U->Window[0].Base + Offset), Value);
}

/* ---- on and off ---- */

typedef struct _SWITCH {
    UNIT *Unit;
    BOOLEAN Touch;
} SWITCH;

PART BOOLEAN NTAPI UnitSwitchOn(PVOID Context)
{
    SWITCH *Switch = Context;

    Switch->Unit->Attended = TRUE;
    if (Trade->On)
        Trade->On(Switch->Unit);
    return TRUE;
}

PART BOOLEAN NTAPI UnitSwitchOff(PVOID Context)
{
    SWITCH *Switch = Context;

    if (Switch->Touch && Trade->Off)
        Trade->Off(Switch->Unit);
    Switch->Unit->Attended = FALSE;
    return TRUE;
}

PART BOOLEAN UnitCall(UNIT *U, PKSYNCHRONIZE_ROUTINE Routine, PVOID Context)
{
    if (U->Interrupt)
        return KeSynchronizeExecution(U->Interrupt, Routine, Context);
    return Routine(Context);
}

/* Calls Routine beside the service routine, if the card is Live. */
PART BOOLEAN UnitSync(UNIT *U, PKSYNCHRONIZE_ROUTINE Routine, PVOID Context)
{
    KIRQL Irql;
    BOOLEAN Live;

    KeAcquireSpinLock(&U->Hw, &Irql);
    Live = U->Live;
    if (Live)
        UnitCall(U, Routine, Context);
    KeReleaseSpinLock(&U->Hw, Irql);
    return Live;
}

/* The power state is D0 now: with Start because the device has just been started. */
PART VOID UnitOn(UNIT *U, BOOLEAN Start)
{
    SWITCH Switch = { U, TRUE };
    BOOLEAN Now = FALSE;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    U->Power = PowerDeviceD0;
    if (Start)
        U->Ready = TRUE;
    if (U->Ready && !U->Live) {
        UnitCall(U, UnitSwitchOn, &Switch);
        U->Live = TRUE;
        Now = TRUE;
    }
    KeReleaseSpinLock(&U->Hw, Irql);
    if (Now && Trade->Resume)
        Trade->Resume(U);
}

PART VOID UnitOff(UNIT *U, BOOLEAN Stop, BOOLEAN Touch)
{
    SWITCH Switch = { U, Touch };
    BOOLEAN Now = FALSE;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    if (Stop)
        U->Ready = FALSE;
    else
        U->Power = PowerDeviceD3;
    if (U->Live) {
        U->Live = FALSE;
        UnitCall(U, UnitSwitchOff, &Switch);
        Now = TRUE;
    }
    KeReleaseSpinLock(&U->Hw, Irql);
    if (Now && Trade->Paused)
        Trade->Paused(U);
}

/* ---- interrupt ---- */

PART BOOLEAN NTAPI UnitIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    UNIT *U = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!U->Attended)
        return FALSE;
    return Trade->Isr(U);
}

PART VOID NTAPI UnitDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    Trade->Dpc(Context);
}

/* ---- start and stop ---- */

PART VOID UnitUnmap(UNIT *U)
{
    while (U->Windows) {
        U->Windows--;
        MmUnmapIoSpace(U->Window[U->Windows].Base, U->Window[U->Windows].Length);
        U->Window[U->Windows].Base = NULL;
    }
}

PART VOID UnitStop(UNIT *U, BOOLEAN Touch)
{
    if (Touch && Trade->Settle)
        Trade->Settle(U);
    UnitOff(U, TRUE, Touch);
    KeWaitForSingleObject(&U->SinkIdle, Executive, KernelMode, FALSE, NULL);
    if (U->Interrupt) {
        IoDisconnectInterrupt(U->Interrupt);
        U->Interrupt = NULL;
    }
    KeFlushQueuedDpcs();
    if (U->Prepared) {
        U->Prepared = FALSE;
        if (Trade->Release)
            Trade->Release(U);
    }
    UnitUnmap(U);
}

PART NTSTATUS UnitStart(UNIT *U, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Next, Part, Line = NULL;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG i;

    UnitStop(U, TRUE);          /* nothing, but for a start behind a start */
    if (List && List->Count) {
        Next = List->List[0].PartialResourceList.PartialDescriptors;
        for (i = 0; i < List->List[0].PartialResourceList.Count; i++) {
            Part = Next++;
            if (Part->Type == CmResourceTypeInterrupt) {
                Line = Part;
            } else if (Part->Type == CmResourceTypeMemory && U->Windows < MAX_WINDOWS && Part->u.Memory.Length) {
                U->Window[U->Windows].Base = MmMapIoSpace(Part->u.Memory.Start, Part->u.Memory.Length, MmNonCached);
                if (!U->Window[U->Windows].Base) {
                    Status = STATUS_INSUFFICIENT_RESOURCES;
                    break;
                }
                U->Window[U->Windows].Length = Part->u.Memory.Length;
                U->Windows++;
            }
        }
    }
    if (NT_SUCCESS(Status) &&
        (U->Windows < Trade->Windows || (Trade->Windows && U->Window[0].Length < Trade->Span) || (Trade->Isr && !Line)))
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (NT_SUCCESS(Status) && Trade->Prepare) {
        Status = Trade->Prepare(U);
        if (!NT_SUCCESS(Status) && Trade->Release)
            Trade->Release(U);
    }
    if (!NT_SUCCESS(Status)) {
        UnitUnmap(U);
        return Status;
    }
    U->Prepared = TRUE;
    if (Trade->Isr) {
        Status = IoConnectInterrupt(&U->Interrupt, UnitIsr, U, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level,
                                    (KIRQL)Line->u.Interrupt.Level,
                                    (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                                    (BOOLEAN)(Line->ShareDisposition == CmResourceShareShared), Line->u.Interrupt.Affinity, FALSE);
        if (!NT_SUCCESS(Status)) {
            U->Interrupt = NULL;
            UnitStop(U, TRUE);
            return Status;
        }
    }
    UnitOn(U, TRUE);
    return STATUS_SUCCESS;
}

/* ---- PnP ---- */

PART NTSTATUS NTAPI UnitWake(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Sends the request down and comes back when it does: it is the caller's again. */
PART NTSTATUS UnitForward(UNIT *U, PIRP Irp)
{
    KEVENT Event;
    NTSTATUS Status;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, UnitWake, &Event, TRUE, TRUE, TRUE);
    Status = IoCallDriver(U->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        Status = Irp->IoStatus.Status;
    }
    return Status;
}

PART NTSTATUS UnitPass(UNIT *U, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(U->Lower, Irp);
    IoReleaseRemoveLock(&U->Guard, Irp);
    return Status;
}

PART VOID UnitHide(UNIT *U)
{
    if (U->InterfaceOn) {
        U->InterfaceOn = FALSE;
        IoSetDeviceInterfaceState(&U->Interface, FALSE);
    }
}

PART NTSTATUS UnitRemove(UNIT *U, PIRP Irp)
{
    PDEVICE_OBJECT Self = U->Self;
    NTSTATUS Status;

    InterlockedExchange(&U->Gone, 1);
    UnitHide(U);
    if (Trade->Abandon)
        Trade->Abandon(U);
    UnitStop(U, TRUE);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(U->Lower, Irp);
    IoReleaseRemoveLockAndWait(&U->Guard, Irp);
    if (Trade->Dead)
        Trade->Dead(U);
    IoFreeWorkItem(U->SinkItem);
    IoDetachDevice(U->Lower);
    RtlFreeUnicodeString(&U->Interface);
    IoDeleteDevice(Self);
    return Status;
}

PART NTSTATUS NTAPI UnitPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNIT *U = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&U->Guard, Irp);
    BOOLEAN InPath;

    if (!NT_SUCCESS(Status))
        return Finish(NULL, Irp, STATUS_DELETE_PENDING, 0);
    switch (Sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = UnitForward(U, Irp);
        if (NT_SUCCESS(Status))
            Status = UnitStart(U, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status) && Trade->Interface && !U->InterfaceOn) {
            Status = IoSetDeviceInterfaceState(&U->Interface, TRUE);
            if (NT_SUCCESS(Status))
                U->InterfaceOn = TRUE;
            else
                UnitStop(U, TRUE);
        }
        return Finish(&U->Guard, Irp, Status, 0);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (InterlockedCompareExchange(&U->Special, 0, 0))
            return Finish(&U->Guard, Irp, STATUS_DEVICE_BUSY, 0);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return UnitPass(U, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return UnitPass(U, Irp);
    case IRP_MN_STOP_DEVICE:
        UnitStop(U, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return UnitPass(U, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&U->Gone, 1);
        UnitHide(U);
        if (Trade->Abandon)
            Trade->Abandon(U);
        UnitStop(U, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return UnitPass(U, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return UnitRemove(U, Irp);
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        InPath = Sp->Parameters.UsageNotification.InPath;
        Status = UnitForward(U, Irp);
        if (NT_SUCCESS(Status)) {
            if (InPath) {
                InterlockedIncrement(&U->Special);
                Device->Flags &= ~DO_POWER_PAGABLE;
            } else if (!InterlockedDecrement(&U->Special)) {
                Device->Flags |= U->Lower->Flags & DO_POWER_PAGABLE;
            }
        }
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&U->Guard, Irp);
        return Status;
    default:
        return UnitPass(U, Irp);
    }
}

PART NTSTATUS NTAPI UnitWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNIT *U = Device->DeviceExtension;

    if (!NT_SUCCESS(IoAcquireRemoveLock(&U->Guard, Irp)))
        return Finish(NULL, Irp, STATUS_DELETE_PENDING, 0);
    return UnitPass(U, Irp);
}

/* ---- power ---- */

/* Hands the request on for good. */
PART NTSTATUS UnitPowerPass(UNIT *U, PIRP Irp)
{
    NTSTATUS Status;

    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(U->Lower, Irp);
    IoReleaseRemoveLock(&U->Guard, Irp);
    return Status;
}

PART NTSTATUS NTAPI UnitPowerUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNIT *U = Context;
    POWER_STATE State;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        State.DeviceState = PowerDeviceD0;
        PoSetPowerState(U->Self, DevicePowerState, State);
        UnitOn(U, FALSE);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&U->Guard, Irp);
    return STATUS_SUCCESS;      /* pending was marked in the dispatch routine */
}

/* The card goes to sleep; the request has been marked pending, and its hold on the lock is left to the caller. */
PART VOID UnitSink(UNIT *U, PIRP Irp)
{
    POWER_STATE State = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State;

    UnitOff(U, FALSE, TRUE);
    PoSetPowerState(U->Self, DevicePowerState, State);
    PoStartNextPowerIrp(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    PoCallDriver(U->Lower, Irp);
}

PART VOID NTAPI UnitSinkWork(PDEVICE_OBJECT Device, PVOID Context)
{
    UNIT *U = Device->DeviceExtension;

    PIRP Irp = U->SinkIrp;

    UNREFERENCED_PARAMETER(Context);
    UnitSink(U, Irp);
    KeSetEvent(&U->SinkIdle, IO_NO_INCREMENT, FALSE);
    IoReleaseRemoveLock(&U->Guard, Irp);
}

/* What Hold has kept goes on; at any level up to DISPATCH_LEVEL. There is one such request at a time. */
PART VOID UnitSinkLater(UNIT *U, PIRP Irp)
{
    U->SinkIrp = Irp;
    KeClearEvent(&U->SinkIdle);
    IoQueueWorkItem(U->SinkItem, UnitSinkWork, DelayedWorkQueue, NULL);
}

PART VOID NTAPI UnitSystemEnd(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PIRP Irp = Context;
    UNIT *U = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Block);
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&U->Guard, Irp);
}

PART NTSTATUS NTAPI UnitSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNIT *U = Context;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE State;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        State.DeviceState = Sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        if (PoRequestPowerIrp(U->Pdo, IRP_MN_SET_POWER, State, UnitSystemEnd, Irp, NULL) == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        /* the device stays as it is; a system state that is set is not to be failed */
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&U->Guard, Irp);
    return STATUS_SUCCESS;
}

PART NTSTATUS NTAPI UnitPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNIT *U = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Ready;
    KIRQL Irql;

    if (!NT_SUCCESS(IoAcquireRemoveLock(&U->Guard, Irp))) {
        PoStartNextPowerIrp(Irp);
        return Finish(NULL, Irp, STATUS_DELETE_PENDING, 0);
    }
    if (Sp->MinorFunction == IRP_MN_QUERY_POWER)
        Irp->IoStatus.Status = STATUS_SUCCESS;
    if (Sp->MinorFunction != IRP_MN_SET_POWER)
        return UnitPowerPass(U, Irp);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (Sp->Parameters.Power.Type == SystemPowerState) {
        KeAcquireSpinLock(&U->Hw, &Irql);
        Ready = U->Ready;
        KeReleaseSpinLock(&U->Hw, Irql);
        if (!Ready)
            return UnitPowerPass(U, Irp);
        if (Trade->SystemPower)
            return Trade->SystemPower(U, Irp);
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, UnitSystemDone, U, TRUE, TRUE, TRUE);
        PoCallDriver(U->Lower, Irp);
        return STATUS_PENDING;
    }
    IoMarkIrpPending(Irp);
    if (Sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, UnitPowerUpDone, U, TRUE, TRUE, TRUE);
        PoCallDriver(U->Lower, Irp);
    } else if (!Trade->Hold || !Trade->Hold(U, Irp)) {
        if (KeGetCurrentIrql() > PASSIVE_LEVEL) {
            UnitSinkLater(U, Irp);      /* a device in the path of a paging file; there only D0 may be reported */
        } else {
            UnitSink(U, Irp);
            IoReleaseRemoveLock(&U->Guard, Irp);
        }
    }
    return STATUS_PENDING;
}

/* ---- files ---- */

PART NTSTATUS NTAPI UnitFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNIT *U = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    UCHAR Major = Sp->MajorFunction;
    BOOLEAN Leaving = Major == IRP_MJ_CLEANUP || Major == IRP_MJ_CLOSE;
    NTSTATUS (*Handler)(UNIT *, PIRP, PIO_STACK_LOCATION) = NULL;
    NTSTATUS Status;

    if (!NT_SUCCESS(IoAcquireRemoveLock(&U->Guard, Irp)))
        return Finish(NULL, Irp, Leaving ? STATUS_SUCCESS : STATUS_DELETE_PENDING, 0);
    if (!Leaving && InterlockedCompareExchange(&U->Gone, 0, 0))
        return Finish(&U->Guard, Irp, STATUS_DELETE_PENDING, 0);
    switch (Major) {
    case IRP_MJ_CLEANUP:
        Handler = Trade->Cleanup;
        break;
    case IRP_MJ_READ:
        Handler = Trade->Read;
        break;
    case IRP_MJ_WRITE:
        Handler = Trade->Write;
        break;
    case IRP_MJ_DEVICE_CONTROL:
        Handler = Trade->Control;
        break;
    }
    if (Handler) {
        /* the request may be over, and its hold on the lock with it, before its handler is */
        if (!NT_SUCCESS(IoAcquireRemoveLock(&U->Guard, U)))
            return Finish(&U->Guard, Irp, Leaving ? STATUS_SUCCESS : STATUS_DELETE_PENDING, 0);
        Status = Handler(U, Irp, Sp);
        IoReleaseRemoveLock(&U->Guard, U);
        return Status;
    }
    return Finish(&U->Guard, Irp, Leaving || Major == IRP_MJ_CREATE ? STATUS_SUCCESS : STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* ---- the driver ---- */

PART NTSTATUS NTAPI UnitAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    NTSTATUS Status;
    UNIT *U;

    Status = IoCreateDevice(Driver, Trade->Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    U = Self->DeviceExtension;
    RtlZeroMemory(U, Trade->Size);
    U->Self = Self;
    U->Pdo = Pdo;
    U->Power = PowerDeviceD0;
    IoInitializeRemoveLock(&U->Guard, UNIT_TAG, 0, 0);
    KeInitializeSpinLock(&U->Hw);
    KeInitializeDpc(&U->Dpc, UnitDpc, U);
    KeInitializeEvent(&U->SinkIdle, NotificationEvent, TRUE);
    U->SinkItem = IoAllocateWorkItem(Self);
    if (!U->SinkItem) {
        IoDeleteDevice(Self);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (Trade->Interface)
        Status = IoRegisterDeviceInterface(Pdo, Trade->Interface, NULL, &U->Interface);
    if (NT_SUCCESS(Status)) {
        if (Trade->Born)
            Trade->Born(U);
        Self->Flags |= Trade->IoFlags;
        U->Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
        if (U->Lower) {
            Self->Flags |= U->Lower->Flags & DO_POWER_PAGABLE;
            Self->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        Status = STATUS_NO_SUCH_DEVICE;
        RtlFreeUnicodeString(&U->Interface);
    }
    IoFreeWorkItem(U->SinkItem);
    IoDeleteDevice(Self);
    return Status;
}

PART VOID NTAPI UnitUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

PART NTSTATUS TradeEntry(PDRIVER_OBJECT Driver, const TRADE *Mine)
{
    Trade = Mine;
    Driver->DriverExtension->AddDevice = UnitAdd;
    Driver->DriverUnload = UnitUnload;
    Driver->MajorFunction[IRP_MJ_PNP] = UnitPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = UnitPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = UnitWmi;
    Driver->MajorFunction[IRP_MJ_CREATE] = UnitFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = UnitFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = UnitFile;
    if (Mine->Read)
        Driver->MajorFunction[IRP_MJ_READ] = UnitFile;
    if (Mine->Write)
        Driver->MajorFunction[IRP_MJ_WRITE] = UnitFile;
    if (Mine->Control)
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = UnitFile;
    return STATUS_SUCCESS;
}

#endif
