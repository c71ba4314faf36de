/*
 * reed_wdm.h: the common frame of the small card drivers: device object, plug and play, power, remove lock,
 * queues of requests that may be cancelled, resources of a PCI card. A driver puts a REED first in its extension.
 */
#ifndef REED_WDM_H
#define REED_WDM_H

#define POOL_TAGGING 1
#include <ddk/wdm.h>

#define REED_FN static __attribute__((unused))
#define REED_TAG 'deeR'

typedef struct _REED REED, *PREED;

typedef struct _REED_OPS {
    ULONG Size;                                     /* of the whole extension */
    const GUID *Guid;                               /* the device interface */
    VOID (*Setup)(PREED x);                         /* once, in AddDevice */
    NTSTATUS (*Start)(PREED x, PCM_RESOURCE_LIST r);/* PASSIVE_LEVEL; after a failure Stop is called */
    VOID (*Stop)(PREED x);                          /* PASSIVE_LEVEL; may be called when already stopped */
    VOID (*Sleep)(PREED x);                         /* PASSIVE_LEVEL, the card still has power */
    VOID (*Wake)(PREED x);                          /* up to DISPATCH_LEVEL, the card has power again */
} REED_OPS;

typedef struct _REED_BAR {
    PUCHAR Va;
    SIZE_T Size;
} REED_BAR;

struct _REED {
    const REED_OPS *Ops;
    PDEVICE_OBJECT Self, Pdo, Lower;
    UNICODE_STRING Link;
    IO_REMOVE_LOCK Remove;
    KEVENT Gate;                    /* one of Start, Stop, Sleep at a time */
    BOOLEAN Started;

    KSPIN_LOCK Lock;                /* guards all below but Pending, and the driver's own state */
    BOOLEAN Live;                   /* started: requests are taken, the registers are mapped */
    volatile LONG Awake;            /* the card has power; also read by the ISR */
    volatile LONG Pending;          /* causes collected by the ISR for the DPC */
    KDPC Dpc;
    PKINTERRUPT Interrupt;
    REED_BAR Bar[2];                /* the memory ranges in their order */
    ULONG Vector;
    KIRQL Level;
    KAFFINITY Affinity;
    BOOLEAN Latched, Share;
};

/* ---- registers ---- */

REED_FN ULONG ReedGet(PREED x, ULONG Bar, ULONG Reg)
{
    return READ_REGISTER_ULONG((volatile ULONG *)(x->Bar[Bar].Va + Reg));
}

REED_FN VOID ReedSet(PREED x, ULONG Bar, ULONG Reg, ULONG Value)
{
    WRITE_REGISTER_ULONG((volatile ULONG *)(x->Bar[Bar].Va + Reg), Value);
}

/* ---- requests ---- */

/* Ends a request that was let in by ReedEnter, or was pended since. */
REED_FN VOID ReedEnd(PREED x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->Remove, Irp);
}

/* Two references: one for the request's life, one for the dispatch routine's. */
REED_FN NTSTATUS ReedEnter(PREED x, PIRP Irp)
{
    NTSTATUS st = IoAcquireRemoveLock(&x->Remove, Irp);

    if (NT_SUCCESS(st)) {
        st = IoAcquireRemoveLock(&x->Remove, x);
        if (!NT_SUCCESS(st))
            IoReleaseRemoveLock(&x->Remove, Irp);
    }
    if (!NT_SUCCESS(st)) {
        Irp->IoStatus.Status = st;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
    return st;
}

REED_FN NTSTATUS ReedLeave(PREED x, NTSTATUS Status)
{
    IoReleaseRemoveLock(&x->Remove, x);
    return Status;
}

REED_FN VOID NTAPI ReedCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PREED x = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&x->Lock, irql);
    ReedEnd(x, Irp, STATUS_CANCELLED, 0);
}

/* Lock held. The request is pending afterwards; FALSE: already cancelled, the caller has to end it. */
REED_FN BOOLEAN ReedPut(PLIST_ENTRY List, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    InsertTailList(List, &Irp->Tail.Overlay.ListEntry);
    (VOID)IoSetCancelRoutine(Irp, ReedCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        return FALSE;
    }
    return TRUE;
}

/* Lock held. Takes a request out of its list; FALSE: its cancel routine is on the way and ends it. */
REED_FN BOOLEAN ReedPull(PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    if (IoSetCancelRoutine(Irp, NULL) != NULL)
        return TRUE;
    InitializeListHead(&Irp->Tail.Overlay.ListEntry);
    return FALSE;
}

REED_FN PIRP ReedTake(PLIST_ENTRY List)
{
    while (!IsListEmpty(List)) {
        PIRP irp = CONTAINING_RECORD(List->Flink, IRP, Tail.Overlay.ListEntry);

        if (ReedPull(irp))
            return irp;
    }
    return NULL;
}

/* Lock held. Takes the requests of one handle (NULL: all) out of From and chains them to Done. */
REED_FN VOID ReedSift(PLIST_ENTRY From, PFILE_OBJECT File, PLIST_ENTRY Done)
{
    PLIST_ENTRY e, next;

    for (e = From->Flink; e != From; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        if (ReedPull(irp))
            InsertTailList(Done, &irp->Tail.Overlay.ListEntry);
    }
}

/* No lock held. */
REED_FN VOID ReedEndAll(PREED x, PLIST_ENTRY Done, NTSTATUS Status)
{
    while (!IsListEmpty(Done)) {
        PLIST_ENTRY e = RemoveHeadList(Done);

        ReedEnd(x, CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry), Status, 0);
    }
}

/* The requests of Done carry status and length already. */
REED_FN VOID ReedEndEach(PREED x, PLIST_ENTRY Done)
{
    while (!IsListEmpty(Done)) {
        PLIST_ENTRY e = RemoveHeadList(Done);
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        ReedEnd(x, irp, irp->IoStatus.Status, irp->IoStatus.Information);
    }
}

/* ---- resources ---- */

REED_FN NTSTATUS ReedMap(PREED x, PCM_RESOURCE_LIST List, const ULONG *Need, ULONG Bars)
{
    PCM_PARTIAL_RESOURCE_LIST part;
    ULONG i, bars = 0, irqs = 0;

    if (List == NULL || List->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    part = &List->List[0].PartialResourceList;
    for (i = 0; i < part->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &part->PartialDescriptors[i];

        if (d->Type == CmResourceTypeMemory && bars < Bars) {
            if (d->u.Memory.Length < Need[bars])
                return STATUS_DEVICE_CONFIGURATION_ERROR;
            x->Bar[bars].Va = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);
            if (x->Bar[bars].Va == NULL)
                return STATUS_INSUFFICIENT_RESOURCES;
            x->Bar[bars].Size = d->u.Memory.Length;
            bars++;
        } else if (d->Type == CmResourceTypeInterrupt && irqs == 0) {
            x->Vector = d->u.Interrupt.Vector;
            x->Level = (KIRQL)d->u.Interrupt.Level;
            x->Affinity = d->u.Interrupt.Affinity;
            x->Latched = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0;
            x->Share = d->ShareDisposition == CmResourceShareShared;
            irqs++;
        }
    }
    return bars == Bars && irqs == 1 ? STATUS_SUCCESS : STATUS_DEVICE_CONFIGURATION_ERROR;
}

REED_FN NTSTATUS ReedConnect(PREED x, PKSERVICE_ROUTINE Isr)
{
    NTSTATUS st;

    x->Pending = 0;
    st = IoConnectInterrupt(&x->Interrupt, Isr, x, NULL, x->Vector, x->Level, x->Level,
                            x->Latched ? Latched : LevelSensitive, x->Share, x->Affinity, FALSE);
    if (!NT_SUCCESS(st))
        x->Interrupt = NULL;
    return st;
}

/* Live is FALSE and the card is masked: no one but the ISR looks at the registers. */
REED_FN VOID ReedRelease(PREED x)
{
    ULONG i;

    if (x->Interrupt != NULL) {
        IoDisconnectInterrupt(x->Interrupt);
        x->Interrupt = NULL;
    }
    x->Awake = 0;
    KeFlushQueuedDpcs();
    for (i = 0; i < 2; i++) {
        if (x->Bar[i].Va != NULL)
            MmUnmapIoSpace(x->Bar[i].Va, x->Bar[i].Size);
        x->Bar[i].Va = NULL;
        x->Bar[i].Size = 0;
    }
}

REED_FN BOOLEAN NTAPI ReedNothing(PVOID Context)
{
    (VOID)Context;
    return TRUE;
}

/* PASSIVE_LEVEL under the gate: afterwards no ISR is left that saw Awake set. */
REED_FN VOID ReedFence(PREED x)
{
    if (x->Interrupt != NULL)
        KeSynchronizeExecution(x->Interrupt, ReedNothing, NULL);
}

/* ---- plug and play ---- */

REED_FN VOID ReedLock(PREED x)
{
    KeWaitForSingleObject(&x->Gate, Executive, KernelMode, FALSE, NULL);
}

REED_FN VOID ReedUnlock(PREED x)
{
    KeSetEvent(&x->Gate, IO_NO_INCREMENT, FALSE);
}

REED_FN VOID ReedHalt(PREED x)
{
    ReedLock(x);
    x->Started = FALSE;
    x->Ops->Stop(x);
    ReedUnlock(x);
}

REED_FN NTSTATUS ReedStart(PREED x, PIRP Irp)
{
    NTSTATUS st;

    if (!IoForwardIrpSynchronously(x->Lower, Irp))
        return STATUS_UNSUCCESSFUL;
    st = Irp->IoStatus.Status;
    if (!NT_SUCCESS(st))
        return st;
    ReedLock(x);
    st = x->Ops->Start(x, IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (NT_SUCCESS(st)) {
        x->Started = TRUE;              /* an application may come as soon as the interface is there */
        st = IoSetDeviceInterfaceState(&x->Link, TRUE);
        if (NT_SUCCESS(st))             /* also STATUS_OBJECT_NAME_EXISTS, after a stop */
            st = STATUS_SUCCESS;
    }
    if (!NT_SUCCESS(st)) {
        x->Started = FALSE;
        x->Ops->Stop(x);
    }
    ReedUnlock(x);
    return st;
}

REED_FN NTSTATUS NTAPI ReedPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PREED x = Device->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&x->Remove, Irp);

    if (!NT_SUCCESS(st)) {
        Irp->IoStatus.Status = st;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return st;
    }
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = ReedStart(x, Irp);
        ReedEnd(x, Irp, st, 0);
        return st;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        ReedHalt(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&x->Link, FALSE);
        ReedHalt(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&x->Link, FALSE);
        ReedHalt(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        st = IoCallDriver(x->Lower, Irp);
        IoReleaseRemoveLockAndWait(&x->Remove, Irp);
        IoDetachDevice(x->Lower);
        RtlFreeUnicodeString(&x->Link);
        IoDeleteDevice(Device);
        return st;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    st = IoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->Remove, Irp);
    return st;
}

/* ---- power: owner of the policy, D0 in S0 and D3 otherwise ---- */

REED_FN NTSTATUS NTAPI ReedPowerUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PREED x = Context;

    (VOID)Device;
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        POWER_STATE state;

        state.DeviceState = PowerDeviceD0;
        x->Ops->Wake(x);
        PoSetPowerState(x->Self, DevicePowerState, state);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

REED_FN VOID NTAPI ReedDeviceDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context,
                                  PIO_STATUS_BLOCK Ios)
{
    PIRP irp = Context;                 /* the system's request, held since ReedSystemDone */
    PREED x = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    (VOID)Pdo;
    (VOID)Minor;
    (VOID)State;
    irp->IoStatus.Status = Ios->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->Remove, irp);
}

REED_FN NTSTATUS NTAPI ReedSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PREED x = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    (VOID)Device;
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        POWER_STATE state;
        NTSTATUS st;

        state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0
                                                                                         : PowerDeviceD3;
        st = PoRequestPowerIrp(x->Pdo, IRP_MN_SET_POWER, state, ReedDeviceDone, Irp, NULL);
        if (NT_SUCCESS(st))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = st;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

REED_FN NTSTATUS NTAPI ReedPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PREED x = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS st = IoAcquireRemoveLock(&x->Remove, Irp);

    if (!NT_SUCCESS(st)) {
        PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = st;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return st;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && x->Started) {
        BOOLEAN up = sp->Parameters.Power.State.DeviceState == PowerDeviceD0;

        if (sp->Parameters.Power.Type == SystemPowerState || up) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, sp->Parameters.Power.Type == SystemPowerState ? ReedSystemDone : ReedPowerUp,
                                   x, TRUE, TRUE, TRUE);
            PoCallDriver(x->Lower, Irp);
            return STATUS_PENDING;
        }
        ReedLock(x);
        x->Ops->Sleep(x);
        ReedUnlock(x);
        PoSetPowerState(x->Self, DevicePowerState, sp->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    st = PoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->Remove, Irp);
    return st;
}

/* ---- the rest ---- */

REED_FN NTSTATUS NTAPI ReedWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    PREED x = Device->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&x->Remove, Irp);

    if (!NT_SUCCESS(st)) {
        Irp->IoStatus.Status = st;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return st;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    st = IoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->Remove, Irp);
    return st;
}

/* Create and close of a driver without state of its own per handle. */
REED_FN NTSTATUS NTAPI ReedOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PREED x = Device->DeviceExtension;
    NTSTATUS st = STATUS_SUCCESS;

    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && !x->Started)
        st = STATUS_DEVICE_NOT_READY;
    Irp->IoStatus.Status = st;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return st;
}

REED_FN NTSTATUS ReedAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, const REED_OPS *Ops)
{
    PDEVICE_OBJECT dev;
    NTSTATUS st;
    PREED x;

    st = IoCreateDevice(Driver, Ops->Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(st))
        return st;
    x = dev->DeviceExtension;
    x->Ops = Ops;
    x->Self = dev;
    x->Pdo = Pdo;
    IoInitializeRemoveLock(&x->Remove, REED_TAG, 0, 0);
    KeInitializeSpinLock(&x->Lock);
    KeInitializeEvent(&x->Gate, SynchronizationEvent, TRUE);
    Ops->Setup(x);
    st = IoRegisterDeviceInterface(Pdo, Ops->Guid, NULL, &x->Link);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
    x->Lower = IoAttachDeviceToDeviceStack(dev, Pdo);
    if (x->Lower == NULL) {
        RtlFreeUnicodeString(&x->Link);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_POWER_PAGABLE | DO_BUFFERED_IO;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

REED_FN VOID NTAPI ReedUnload(PDRIVER_OBJECT Driver)
{
    (VOID)Driver;
}

REED_FN VOID ReedDriver(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE Add)
{
    Driver->DriverExtension->AddDevice = Add;
    Driver->DriverUnload = ReedUnload;
    Driver->MajorFunction[IRP_MJ_PNP] = ReedPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = ReedPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = ReedWmi;
    Driver->MajorFunction[IRP_MJ_CREATE] = ReedOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = ReedOpenClose;
}

#endif
