/*
 * shell.h: the function device of the set PP. A driver's own structure begins with a SHELL; what it does is in a SHELL_TRADE.
 *
 * Reads, writes and device controls pass a gate. It is open while the device is started and in D0. While it is held they wait at it
 * (and can be cancelled); once it is barred they are refused. `Serve` runs behind the gate and ends soon: it completes its request,
 * or puts it into a pen of the driver. Begin, End, Rest, Rouse, Desert and Quit have the `Turn`: no two of them run at a time, and no
 * Serve runs beside End, Rest and Desert.
 */
#ifndef PP_SHELL_H
#define PP_SHELL_H

#include "booth_or_shell.h"

typedef struct SHELL SHELL;

typedef struct SHELL_TRADE {
    ULONG Size;                                             /* of the driver's structure */
    const GUID *Interface;
    ULONG IoFlags;                                          /* DO_BUFFERED_IO, DO_DIRECT_IO or none */
    NTSTATUS (*Found)(SHELL *);                             /* in AddDevice; a failure leaves nothing behind */
    VOID (*Lost)(SHELL *);                                  /* undoes Found, before the device object is deleted */
    NTSTATUS (*Begin)(SHELL *, PCM_RESOURCE_LIST);          /* started; the list is that of translated resources, and may be NULL */
    VOID (*End)(SHELL *, BOOLEAN Present);                  /* undoes Begin; what is under way goes back to its pen. Present: the card may be touched */
    VOID (*Rest)(SHELL *);                                  /* D0 ends: what is under way goes back to its pen */
    VOID (*Rouse)(SHELL *);                                 /* D0 is there again */
    VOID (*Desert)(SHELL *);                                /* the device is gone: shut all pens */
    NTSTATUS (*Serve)(SHELL *, PIRP, PIO_STACK_LOCATION);   /* returns what it completed the request with, or STATUS_PENDING */
    NTSTATUS (*Open)(SHELL *, PFILE_OBJECT);                /* IRP_MJ_CREATE */
    VOID (*Quit)(SHELL *, PFILE_OBJECT);                    /* IRP_MJ_CLEANUP: end the requests of this file */
    VOID (*Close)(SHELL *, PFILE_OBJECT);                   /* IRP_MJ_CLOSE */
} SHELL_TRADE;

enum { GateHeld, GateOpen, GateBarred };

struct SHELL {
    const SHELL_TRADE *Trade;
    PDEVICE_OBJECT Self, Below, Pdo;
    UNICODE_STRING Link;
    IO_REMOVE_LOCK Removal;
    KEVENT Turn;                /* a synchronization event, set while no one has the turn */
    BOOLEAN Begun;              /* with the turn: Begin has succeeded, End has not been called */
    BOOLEAN Resting;            /* with the turn: Rest was called, Rouse has not been */
    BOOLEAN Gone;               /* with the turn: removed, in order or by surprise */
    BOOLEAN Enabled;            /* the interface; of Plug and Play requests only */
    volatile LONG Leaving;      /* between IRP_MN_QUERY_REMOVE_DEVICE and its outcome */
    PEN Held;                   /* its lock guards the next three, too */
    LONG Gate;
    NTSTATUS Verdict;
    ULONG Inside;
    KEVENT Empty;               /* no one is inside */
    PIO_WORKITEM RiseItem;
    PIRP Rising;                /* the request for D0 that RiseItem ends */
};

static const SHELL_TRADE *ShellTrade;

FRAME VOID ShellTurn(SHELL *Shell)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&Shell->Turn, Executive, KernelMode, FALSE, NULL);
}

FRAME VOID ShellTurnOver(SHELL *Shell)
{
    KeSetEvent(&Shell->Turn, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

/* STATUS_SUCCESS: inside, ShellLeave must follow. STATUS_PENDING: it waits at the gate. Else refused, and not completed. */
FRAME NTSTATUS ShellPass(SHELL *Shell, PIRP Irp)
{
    BOOLEAN marked = FALSE;
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&Shell->Held.Lock, &irql);
    if (Shell->Gate == GateOpen) {
        Shell->Inside++;
        status = STATUS_SUCCESS;
    } else if (Shell->Gate == GateBarred) {
        status = Shell->Verdict;
    } else {
        status = PenStow(&Shell->Held, Irp, FALSE, &marked);
    }
    KeReleaseSpinLock(&Shell->Held.Lock, irql);
    if (marked && status != STATUS_PENDING) {
        Settle(Irp, status, 0);
        status = STATUS_PENDING;
    }
    return status;
}

FRAME VOID ShellLeave(SHELL *Shell)
{
    KIRQL irql;

    KeAcquireSpinLock(&Shell->Held.Lock, &irql);
    if (--Shell->Inside == 0)
        KeSetEvent(&Shell->Empty, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Shell->Held.Lock, irql);
}

/* Holds or bars the gate. With Wait (at PASSIVE_LEVEL, with the turn) no one is inside when it returns. */
FRAME VOID ShellShut(SHELL *Shell, LONG Gate, NTSTATUS Verdict, BOOLEAN Wait)
{
    BOOLEAN busy;
    KIRQL irql;

    KeAcquireSpinLock(&Shell->Held.Lock, &irql);
    Shell->Gate = Gate;
    Shell->Verdict = Verdict;
    busy = Shell->Inside != 0;
    if (busy)
        KeClearEvent(&Shell->Empty);
    KeReleaseSpinLock(&Shell->Held.Lock, irql);
    if (Wait && busy)
        KeWaitForSingleObject(&Shell->Empty, Executive, KernelMode, FALSE, NULL);
    if (Gate == GateBarred)
        PenSweep(&Shell->Held, NULL, Verdict);
}

/* With the turn: serves what waits at the gate, in its order, and opens it. */
FRAME VOID ShellReopen(SHELL *Shell)
{
    PIRP irp;
    KIRQL irql;

    for (;;) {
        KeAcquireSpinLock(&Shell->Held.Lock, &irql);
        irp = PenNext(&Shell->Held, NULL);
        if (irp != NULL)
            Shell->Inside++;
        else
            Shell->Gate = GateOpen;
        KeReleaseSpinLock(&Shell->Held.Lock, irql);
        if (irp == NULL)
            return;
        Shell->Trade->Serve(Shell, irp, IoGetCurrentIrpStackLocation(irp));
        ShellLeave(Shell);
    }
}

/* Stopped: requests wait for the next start. */
FRAME VOID ShellHalt(SHELL *Shell)
{
    ShellTurn(Shell);
    if (!Shell->Gone)
        ShellShut(Shell, GateHeld, STATUS_SUCCESS, TRUE);
    if (Shell->Begun) {
        if (Shell->Trade->End != NULL)
            Shell->Trade->End(Shell, (BOOLEAN)!Shell->Resting);
        Shell->Begun = FALSE;
    }
    ShellTurnOver(Shell);
}

/* Removed: there will be no other start. */
FRAME VOID ShellVanish(SHELL *Shell, BOOLEAN Present)
{
    ShellTurn(Shell);
    if (!Shell->Gone) {
        Shell->Gone = TRUE;
        ShellShut(Shell, GateBarred, STATUS_DEVICE_REMOVED, TRUE);
        if (Shell->Begun) {
            if (Shell->Trade->End != NULL)
                Shell->Trade->End(Shell, (BOOLEAN)(Present && !Shell->Resting));
            Shell->Begun = FALSE;
        }
        if (Shell->Trade->Desert != NULL)
            Shell->Trade->Desert(Shell);
    }
    ShellTurnOver(Shell);
}

FRAME VOID ShellDoze(SHELL *Shell)
{
    ShellTurn(Shell);
    if (!Shell->Gone)
        ShellShut(Shell, GateHeld, STATUS_SUCCESS, TRUE);
    if (Shell->Begun && !Shell->Resting) {
        if (Shell->Trade->Rest != NULL)
            Shell->Trade->Rest(Shell);
        Shell->Resting = TRUE;
    }
    ShellTurnOver(Shell);
}

FRAME VOID ShellWake(SHELL *Shell)
{
    ShellTurn(Shell);
    if (Shell->Begun) {
        if (Shell->Resting) {
            if (Shell->Trade->Rouse != NULL)
                Shell->Trade->Rouse(Shell);
            Shell->Resting = FALSE;
        }
        ShellReopen(Shell);
    }
    ShellTurnOver(Shell);
}

/*---------------------------------------------------------------- requests */

static NTSTATUS NTAPI ShellRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    SHELL *shell = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&shell->Removal, Irp);

    if (!NT_SUCCESS(status))
        return Settle(Irp, status, 0);
    status = ShellPass(shell, Irp);
    if (status == STATUS_SUCCESS) {
        status = shell->Trade->Serve(shell, Irp, IoGetCurrentIrpStackLocation(Irp));
        ShellLeave(shell);
    } else if (status != STATUS_PENDING) {
        Settle(Irp, status, 0);
    }
    IoReleaseRemoveLock(&shell->Removal, Irp);
    return status;
}

static NTSTATUS NTAPI ShellCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    SHELL *shell = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&shell->Removal, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return Settle(Irp, status, 0);
    KeAcquireSpinLock(&shell->Held.Lock, &irql);
    if (shell->Gate == GateBarred)
        status = shell->Verdict;
    KeReleaseSpinLock(&shell->Held.Lock, irql);
    if (NT_SUCCESS(status) && InterlockedCompareExchange(&shell->Leaving, 0, 0) != 0)
        status = STATUS_DELETE_PENDING;
    if (NT_SUCCESS(status) && shell->Trade->Open != NULL)
        status = shell->Trade->Open(shell, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    Settle(Irp, status, 0);
    IoReleaseRemoveLock(&shell->Removal, Irp);
    return status;
}

static NTSTATUS NTAPI ShellCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    SHELL *shell = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    FileMarkLeft(file);
    if (NT_SUCCESS(IoAcquireRemoveLock(&shell->Removal, Irp))) {
        ShellTurn(shell);               /* ShellReopen is not moving requests meanwhile */
        PenSweep(&shell->Held, file, STATUS_CANCELLED);
        if (shell->Trade->Quit != NULL)
            shell->Trade->Quit(shell, file);
        ShellTurnOver(shell);
        IoReleaseRemoveLock(&shell->Removal, Irp);
    }
    return Settle(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI ShellClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    SHELL *shell = Device->DeviceExtension;

    if (shell->Trade->Close != NULL)
        shell->Trade->Close(shell, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return Settle(Irp, STATUS_SUCCESS, 0);
}

/* Passes a request down as it is. The remove lock is held with the request as the tag. */
FRAME NTSTATUS ShellPassDown(SHELL *Shell, PIRP Irp)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(Shell->Below, Irp);
    IoReleaseRemoveLock(&Shell->Removal, Irp);
    return status;
}

static NTSTATUS NTAPI ShellWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    SHELL *shell = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&shell->Removal, Irp);

    if (!NT_SUCCESS(status))
        return Settle(Irp, status, 0);
    return ShellPassDown(shell, Irp);
}

/*---------------------------------------------------------------- Plug and Play */

static NTSTATUS NTAPI ShellBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

FRAME NTSTATUS ShellSendAndWait(SHELL *Shell, PIRP Irp)
{
    KEVENT back;

    KeInitializeEvent(&back, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, ShellBack, &back, TRUE, TRUE, TRUE);
    if (IoCallDriver(Shell->Below, Irp) == STATUS_PENDING)
        KeWaitForSingleObject(&back, Executive, KernelMode, FALSE, NULL);
    return Irp->IoStatus.Status;
}

FRAME NTSTATUS ShellBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    NTSTATUS status = STATUS_SUCCESS;

    ShellTurn(Shell);
    if (Shell->Trade->Begin != NULL)
        status = Shell->Trade->Begin(Shell, Resources);
    if (NT_SUCCESS(status)) {
        Shell->Begun = TRUE;
        Shell->Resting = FALSE;
        ShellReopen(Shell);
    }
    ShellTurnOver(Shell);
    if (NT_SUCCESS(status) && !Shell->Enabled) {
        status = IoSetDeviceInterfaceState(&Shell->Link, TRUE);
        if (NT_SUCCESS(status))
            Shell->Enabled = TRUE;
        else
            ShellHalt(Shell);
    }
    return status;
}

FRAME VOID ShellHide(SHELL *Shell)
{
    if (Shell->Enabled) {
        IoSetDeviceInterfaceState(&Shell->Link, FALSE);
        Shell->Enabled = FALSE;
    }
}

static NTSTATUS NTAPI ShellPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    SHELL *shell = Device->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&shell->Removal, Irp);

    if (!NT_SUCCESS(status))
        return Settle(Irp, status, 0);
    switch (at->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = ShellSendAndWait(shell, Irp);
        if (NT_SUCCESS(status))
            status = ShellBegin(shell, at->Parameters.StartDevice.AllocatedResourcesTranslated);
        Settle(Irp, status, 0);
        IoReleaseRemoveLock(&shell->Removal, Irp);
        return status;

    case IRP_MN_STOP_DEVICE:
        ShellHalt(shell);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
        InterlockedExchange(&shell->Leaving, 1);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_REMOVE_DEVICE:
        InterlockedExchange(&shell->Leaving, 0);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (at->Parameters.UsageNotification.InPath) {      /* no paging, dump or hibernation file on these */
            status = Settle(Irp, STATUS_UNSUCCESSFUL, 0);
            IoReleaseRemoveLock(&shell->Removal, Irp);
            return status;
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        ShellVanish(shell, FALSE);
        ShellHide(shell);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        ShellVanish(shell, TRUE);
        ShellHide(shell);
        IoReleaseRemoveLockAndWait(&shell->Removal, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(shell->Below, Irp);
        IoDetachDevice(shell->Below);
        if (shell->Trade->Lost != NULL)
            shell->Trade->Lost(shell);
        RtlFreeUnicodeString(&shell->Link);
        IoFreeWorkItem(shell->RiseItem);
        IoDeleteDevice(Device);
        return status;
    }
    return ShellPassDown(shell, Irp);
}

/*---------------------------------------------------------------- power */

/* The device's request, which was asked for because of the system's (Context), is done. */
static VOID NTAPI ShellDeviceDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Result)
{
    PIRP system = Context;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(system);
    SHELL *shell = at->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    if (at->Parameters.Power.State.SystemState == PowerSystemWorking && !NT_SUCCESS(Result->Status))
        ShellShut(shell, GateBarred, STATUS_DEVICE_NOT_READY, FALSE);
    PoStartNextPowerIrp(system);
    Settle(system, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&shell->Removal, system);
}

static NTSTATUS NTAPI ShellSystemBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    SHELL *shell = Context;
    BOOLEAN up = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking;
    POWER_STATE want;

    UNREFERENCED_PARAMETER(Device);
    want.DeviceState = up ? PowerDeviceD0 : PowerDeviceD3;
    if (PoRequestPowerIrp(shell->Self, IRP_MN_SET_POWER, want, ShellDeviceDone, Irp, NULL) == STATUS_PENDING)
        return STATUS_MORE_PROCESSING_REQUIRED;
    if (up)                     /* nothing will wake the device: requests shall not wait for it */
        ShellShut(shell, GateBarred, STATUS_DEVICE_NOT_READY, FALSE);
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&shell->Removal, Irp);
    return STATUS_SUCCESS;
}

static VOID NTAPI ShellRise(PDEVICE_OBJECT Device, PVOID Context)
{
    SHELL *shell = Context;
    PIRP irp = shell->Rising;
    POWER_STATE state;

    ShellWake(shell);
    state.DeviceState = PowerDeviceD0;
    PoSetPowerState(Device, DevicePowerState, state);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&shell->Removal, irp);
}

static NTSTATUS NTAPI ShellDeviceBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    SHELL *shell = Context;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        shell->Rising = Irp;    /* there is one request for a device state at a time */
        IoQueueWorkItem(shell->RiseItem, ShellRise, DelayedWorkQueue, shell);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&shell->Removal, Irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI ShellPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    SHELL *shell = Device->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&shell->Removal, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return Settle(Irp, status, 0);
    }
    if (at->MinorFunction == IRP_MN_SET_POWER) {
        if (at->Parameters.Power.Type == SystemPowerState || at->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            BOOLEAN system = at->Parameters.Power.Type == SystemPowerState;
            if (system && at->Parameters.Power.State.SystemState != PowerSystemWorking)
                ShellDoze(shell);
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, system ? ShellSystemBack : ShellDeviceBack, shell, TRUE, TRUE, TRUE);
            PoCallDriver(shell->Below, Irp);
            return STATUS_PENDING;
        }
        ShellDoze(shell);
        PoSetPowerState(Device, DevicePowerState, at->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(shell->Below, Irp);
    IoReleaseRemoveLock(&shell->Removal, Irp);
    return status;
}

/*---------------------------------------------------------------- the driver */

static NTSTATUS NTAPI ShellAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    const SHELL_TRADE *trade = ShellTrade;
    PDEVICE_OBJECT device;
    SHELL *shell;
    NTSTATUS status;

    status = IoCreateDevice(Driver, trade->Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    shell = device->DeviceExtension;    /* zeroed */
    shell->Trade = trade;
    shell->Self = device;
    shell->Pdo = Pdo;
    shell->Gate = GateHeld;
    PenInit(&shell->Held);
    IoInitializeRemoveLock(&shell->Removal, 'lhSP', 0, 0);
    KeInitializeEvent(&shell->Turn, SynchronizationEvent, TRUE);
    KeInitializeEvent(&shell->Empty, NotificationEvent, TRUE);

    shell->RiseItem = IoAllocateWorkItem(device);
    if (shell->RiseItem == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_item;
    }
    status = trade->Found != NULL ? trade->Found(shell) : STATUS_SUCCESS;
    if (!NT_SUCCESS(status))
        goto not_found;
    status = IoRegisterDeviceInterface(Pdo, trade->Interface, NULL, &shell->Link);
    if (!NT_SUCCESS(status))
        goto no_interface;
    shell->Below = IoAttachDeviceToDeviceStack(device, Pdo);
    if (shell->Below == NULL) {
        status = STATUS_NO_SUCH_DEVICE;
        goto not_attached;
    }
    device->Flags |= trade->IoFlags | DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

not_attached:
    RtlFreeUnicodeString(&shell->Link);
no_interface:
    if (trade->Lost != NULL)
        trade->Lost(shell);
not_found:
    IoFreeWorkItem(shell->RiseItem);
no_item:
    IoDeleteDevice(device);
    return status;
}

static VOID NTAPI ShellUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

FRAME NTSTATUS ShellEntry(PDRIVER_OBJECT Driver, const SHELL_TRADE *Trade)
{
    ShellTrade = Trade;
    Driver->DriverExtension->AddDevice = ShellAdd;
    Driver->DriverUnload = ShellUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = ShellCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = ShellCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = ShellClose;
    Driver->MajorFunction[IRP_MJ_READ] = ShellRequest;
    Driver->MajorFunction[IRP_MJ_WRITE] = ShellRequest;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ShellRequest;
    Driver->MajorFunction[IRP_MJ_PNP] = ShellPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = ShellPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = ShellWmi;
    return STATUS_SUCCESS;
}

#endif
