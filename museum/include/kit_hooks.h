/*
 * kit_hooks.h: what the drivers of this set have in common: a gate before the hardware, plug and play,
 * power (as the owner of the device's power policy), queues that can be cancelled, resources.
 *
 * The gate: a request enters it before it touches the hardware and leaves it afterwards. Stop, sleep and
 * removal shut it and wait until no one is within.
 */
#ifndef WDMKIT_H
#define WDMKIT_H
#include <ddk/wdm.h>

#define KITFN static __attribute__((unused))

#define KIT_UNSTARTED 1u
#define KIT_ASLEEP    2u
#define KIT_GONE      4u

typedef struct _KIT {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    KSPIN_LOCK GateLock;
    ULONG GateShutBy;               /* KIT_ bits; 0 is open */
    LONG GateUsers;
    KEVENT GateEmpty;
    DEVICE_POWER_STATE Power;
    BOOLEAN InterfaceOn;
    PIRP SystemIrp;                 /* the system power request whose device request is on its way */
} KIT, *PKIT;

typedef struct _KIT_HOOKS {
    ULONG ExtensionSize;
    ULONG DeviceFlags;
    ULONG Tag;
    const GUID *Interface;
    VOID (*Prepare)(PKIT Kit);                                          /* once, in AddDevice */
    NTSTATUS (*Start)(PKIT Kit, PIO_STACK_LOCATION Stack);              /* undoes its work if it fails */
    VOID (*Release)(PKIT Kit, BOOLEAN Reachable);                       /* gate shut; may come more than once */
    VOID (*Flush)(PKIT Kit);                                            /* ends the waiting requests */
    VOID (*Sleep)(PKIT Kit);                                            /* PASSIVE_LEVEL, still in D0 */
    VOID (*Wake)(PKIT Kit);                                             /* <= DISPATCH_LEVEL, in D0 again */
    VOID (*Kick)(PKIT Kit);                                             /* the gate has been opened */
} KIT_HOOKS;

static const KIT_HOOKS KitHooks;    /* each driver defines it */

typedef struct _KIT_QUEUE {
    IO_CSQ Csq;
    LIST_ENTRY List;
    KSPIN_LOCK Lock;
    PKIT Kit;
} KIT_QUEUE, *PKIT_QUEUE;

/* ---- the gate ---- */

KITFN NTSTATUS KitEnter(PKIT Kit)
{
    KIRQL irql;
    NTSTATUS status = STATUS_SUCCESS;

    KeAcquireSpinLock(&Kit->GateLock, &irql);
    if (Kit->GateShutBy & KIT_GONE)
        status = STATUS_DELETE_PENDING;
    else if (Kit->GateShutBy)
        status = STATUS_DEVICE_NOT_READY;
    else if (Kit->GateUsers++ == 0)
        KeClearEvent(&Kit->GateEmpty);
    KeReleaseSpinLock(&Kit->GateLock, irql);
    return status;
}

KITFN VOID KitLeave(PKIT Kit)
{
    KIRQL irql;

    KeAcquireSpinLock(&Kit->GateLock, &irql);
    if (--Kit->GateUsers == 0)
        KeSetEvent(&Kit->GateEmpty, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Kit->GateLock, irql);
}

/* Shuts the gate, waits until it is empty; returns what had shut it before. */
KITFN ULONG KitShut(PKIT Kit, ULONG Why)
{
    KIRQL irql;
    ULONG before;

    KeAcquireSpinLock(&Kit->GateLock, &irql);
    before = Kit->GateShutBy;
    Kit->GateShutBy |= Why;
    KeReleaseSpinLock(&Kit->GateLock, irql);
    KeWaitForSingleObject(&Kit->GateEmpty, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&Kit->GateLock, &irql);   /* the last one out has released the lock */
    KeReleaseSpinLock(&Kit->GateLock, irql);
    return before;
}

KITFN VOID KitOpen(PKIT Kit, ULONG Why)
{
    KIRQL irql;

    KeAcquireSpinLock(&Kit->GateLock, &irql);
    Kit->GateShutBy &= ~Why;
    KeReleaseSpinLock(&Kit->GateLock, irql);
}

/* Enters the gate for the work of falling asleep or waking up: only where sleep alone has shut it. */
KITFN BOOLEAN KitEnterAsleep(PKIT Kit)
{
    KIRQL irql;
    BOOLEAN in = FALSE;

    KeAcquireSpinLock(&Kit->GateLock, &irql);
    if (Kit->GateShutBy == KIT_ASLEEP) {
        in = TRUE;
        if (Kit->GateUsers++ == 0)
            KeClearEvent(&Kit->GateEmpty);
    }
    KeReleaseSpinLock(&Kit->GateLock, irql);
    return in;
}

KITFN BOOLEAN KitGone(PKIT Kit)
{
    KIRQL irql;
    BOOLEAN gone;

    KeAcquireSpinLock(&Kit->GateLock, &irql);
    gone = (Kit->GateShutBy & KIT_GONE) != 0;
    KeReleaseSpinLock(&Kit->GateLock, irql);
    return gone;
}

/* ---- requests ---- */

KITFN NTSTATUS KitComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, NT_SUCCESS(Status) && Information ? IO_DISK_INCREMENT : IO_NO_INCREMENT);
    return Status;
}

/* Ends a request that had been put in a queue (it has the remove lock). */
KITFN VOID KitFinish(PKIT Kit, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    KitComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Kit->RemoveLock, Irp);
}

static VOID NTAPI KitCsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    PKIT_QUEUE queue = CONTAINING_RECORD(Csq, KIT_QUEUE, Csq);
    InsertTailList(&queue->List, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI KitCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI KitCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PKIT_QUEUE queue = CONTAINING_RECORD(Csq, KIT_QUEUE, Csq);
    PLIST_ENTRY entry = Irp ? Irp->Tail.Overlay.ListEntry.Flink : queue->List.Flink;

    for (; entry != &queue->List; entry = entry->Flink) {
        PIRP next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        if (!Context || IoGetCurrentIrpStackLocation(next)->FileObject == Context)
            return next;
    }
    return NULL;
}

static VOID NTAPI KitCsqLock(PIO_CSQ Csq, PKIRQL Irql)
{
    PKIT_QUEUE queue = CONTAINING_RECORD(Csq, KIT_QUEUE, Csq);
    KeAcquireSpinLock(&queue->Lock, Irql);
}

static VOID NTAPI KitCsqUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    PKIT_QUEUE queue = CONTAINING_RECORD(Csq, KIT_QUEUE, Csq);
    KeReleaseSpinLock(&queue->Lock, Irql);
}

static VOID NTAPI KitCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PKIT_QUEUE queue = CONTAINING_RECORD(Csq, KIT_QUEUE, Csq);
    KitFinish(queue->Kit, Irp, STATUS_CANCELLED, 0);
}

KITFN VOID KitQueueInit(PKIT Kit, PKIT_QUEUE Queue)
{
    Queue->Kit = Kit;
    InitializeListHead(&Queue->List);
    KeInitializeSpinLock(&Queue->Lock);
    IoCsqInitialize(&Queue->Csq, KitCsqInsert, KitCsqRemove, KitCsqPeek, KitCsqLock, KitCsqUnlock, KitCsqCancelled);
}

KITFN VOID KitQueueFlush(PKIT_QUEUE Queue, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;
    while ((irp = IoCsqRemoveNextIrp(&Queue->Csq, File)) != NULL)
        KitFinish(Queue->Kit, irp, Status, 0);
}

/* Puts a request in a queue. The caller has the remove lock for itself. STATUS_PENDING: it is in; otherwise it is still the caller's. */
KITFN NTSTATUS KitPend(PKIT Kit, PKIT_QUEUE Queue, PIRP Irp)
{
    NTSTATUS status;

    if (KitGone(Kit))
        return STATUS_DELETE_PENDING;
    status = IoAcquireRemoveLock(&Kit->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return status;
    IoCsqInsertIrp(&Queue->Csq, Irp, NULL);     /* marks it pending */
    if (KitGone(Kit))                           /* the flush may have gone before it */
        KitQueueFlush(Queue, NULL, STATUS_DELETE_PENDING);
    return STATUS_PENDING;
}

/* ---- resources ---- */

typedef struct _KIT_RANGE {
    PHYSICAL_ADDRESS Start;
    ULONG Length;
} KIT_RANGE;

typedef struct _KIT_RESOURCES {
    KIT_RANGE Memory[6], Port[6];
    ULONG Memories, Ports;
    BOOLEAN HasInterrupt, Shared;
    ULONG Vector;
    KIRQL Level;
    KAFFINITY Affinity;
    KINTERRUPT_MODE Mode;
} KIT_RESOURCES;

KITFN VOID KitResources(PIO_STACK_LOCATION Stack, KIT_RESOURCES *Out)
{
    PCM_RESOURCE_LIST list = Stack->Parameters.StartDevice.AllocatedResourcesTranslated;
    PCM_PARTIAL_RESOURCE_LIST partial;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR first;
    ULONG i;

    RtlZeroMemory(Out, sizeof(*Out));
    if (!list || list->Count == 0)
        return;
    partial = &list->List[0].PartialResourceList;
    first = (PCM_PARTIAL_RESOURCE_DESCRIPTOR)((PUCHAR)partial + FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors));
    for (i = 0; i < partial->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = first + i;
        switch (d->Type) {
        case CmResourceTypeMemory:
            if (Out->Memories < 6) {
                Out->Memory[Out->Memories].Start = d->u.Memory.Start;
                Out->Memory[Out->Memories++].Length = d->u.Memory.Length;
            }
            break;
        case CmResourceTypePort:
            if (Out->Ports < 6) {
                Out->Port[Out->Ports].Start = d->u.Port.Start;
                Out->Port[Out->Ports++].Length = d->u.Port.Length;
            }
            break;
        case CmResourceTypeInterrupt:
            if (!Out->HasInterrupt) {
                Out->HasInterrupt = TRUE;
                Out->Vector = d->u.Interrupt.Vector;
                Out->Level = (KIRQL)d->u.Interrupt.Level;
                Out->Affinity = d->u.Interrupt.Affinity;
                Out->Mode = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
                Out->Shared = d->ShareDisposition == CmResourceShareShared;
            }
            break;
        }
    }
}

/* ---- plug and play ---- */

static VOID KitInterfaceOff(PKIT Kit)
{
    if (Kit->InterfaceOn) {
        Kit->InterfaceOn = FALSE;
        IoSetDeviceInterfaceState(&Kit->Link, FALSE);
    }
}

/* Refuses a plug and play, power or WMI request of a device that is being removed. */
static NTSTATUS KitRefuse(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI KitPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PKIT kit = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&kit->RemoveLock, kit);
    ULONG before;

    if (!NT_SUCCESS(status))
        return KitRefuse(Irp, status);

    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        if (!IoForwardIrpSynchronously(kit->Lower, Irp))
            status = STATUS_UNSUCCESSFUL;
        else
            status = Irp->IoStatus.Status;
        if (NT_SUCCESS(status)) {
            status = KitHooks.Start(kit, stack);
            if (NT_SUCCESS(status)) {
                kit->Power = PowerDeviceD0;
                KitOpen(kit, KIT_UNSTARTED | KIT_ASLEEP);
                if (KitHooks.Kick)
                    KitHooks.Kick(kit);
                if (NT_SUCCESS(IoSetDeviceInterfaceState(&kit->Link, TRUE)))
                    kit->InterfaceOn = TRUE;
            }
        }
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&kit->RemoveLock, kit);
        return status;

    case IRP_MN_STOP_DEVICE:
        before = KitShut(kit, KIT_UNSTARTED);
        KitHooks.Release(kit, before == 0);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        KitInterfaceOff(kit);
        before = KitShut(kit, KIT_GONE);
        if (KitHooks.Flush)
            KitHooks.Flush(kit);
        KitHooks.Release(kit, before == 0);      /* it may still be there; the hook looks for all ones */
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        KitInterfaceOff(kit);
        before = KitShut(kit, KIT_GONE);
        if (KitHooks.Flush)
            KitHooks.Flush(kit);
        KitHooks.Release(kit, before == 0);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(kit->Lower, Irp);
        IoReleaseRemoveLockAndWait(&kit->RemoveLock, kit);
        IoDetachDevice(kit->Lower);
        RtlFreeUnicodeString(&kit->Link);
        IoDeleteDevice(DeviceObject);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(kit->Lower, Irp);
    IoReleaseRemoveLock(&kit->RemoveLock, kit);
    return status;
}

static NTSTATUS NTAPI KitAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    PKIT kit;
    NTSTATUS status = IoCreateDevice(DriverObject, KitHooks.ExtensionSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);

    if (!NT_SUCCESS(status))
        return status;
    kit = fdo->DeviceExtension;
    RtlZeroMemory(kit, KitHooks.ExtensionSize);
    kit->Self = fdo;
    kit->Pdo = Pdo;
    kit->Power = PowerDeviceD3;
    IoInitializeRemoveLock(&kit->RemoveLock, KitHooks.Tag, 0, 0);
    KeInitializeSpinLock(&kit->GateLock);
    kit->GateShutBy = KIT_UNSTARTED;
    KeInitializeEvent(&kit->GateEmpty, NotificationEvent, TRUE);
    if (KitHooks.Prepare)
        KitHooks.Prepare(kit);
    status = IoRegisterDeviceInterface(Pdo, KitHooks.Interface, NULL, &kit->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    kit->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (!kit->Lower) {
        RtlFreeUnicodeString(&kit->Link);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= KitHooks.DeviceFlags | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* ---- power ---- */

static VOID NTAPI KitDevicePowered(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK IoStatus)
{
    PKIT kit = Context;
    PIRP irp = kit->SystemIrp;

    UNREFERENCED_PARAMETER(Pdo);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    kit->SystemIrp = NULL;
    irp->IoStatus.Status = IoStatus->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&kit->RemoveLock, irp);
}

static NTSTATUS NTAPI KitSystemPassed(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PKIT kit = Context;
    POWER_STATE state;
    NTSTATUS status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(status)) {
        state.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        kit->SystemIrp = Irp;
        status = PoRequestPowerIrp(kit->Pdo, IRP_MN_SET_POWER, state, KitDevicePowered, kit, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        kit->SystemIrp = NULL;
        Irp->IoStatus.Status = status;
    }
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI KitPoweredUp(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PKIT kit = Context;

    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        POWER_STATE state;
        state.DeviceState = PowerDeviceD0;
        if (kit->Power != PowerDeviceD0) {
            if (KitEnterAsleep(kit)) {
                if (KitHooks.Wake)
                    KitHooks.Wake(kit);
                KitLeave(kit);
            }
            kit->Power = PowerDeviceD0;
            PoSetPowerState(DeviceObject, DevicePowerState, state);
            KitOpen(kit, KIT_ASLEEP);
            if (KitHooks.Kick)
                KitHooks.Kick(kit);
        }
    }
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI KitPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PKIT kit = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&kit->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return KitRefuse(Irp, status);
    if (stack->MinorFunction == IRP_MN_SET_POWER) {
        POWER_STATE state = stack->Parameters.Power.State;

        if (stack->Parameters.Power.Type == SystemPowerState) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, KitSystemPassed, kit, TRUE, TRUE, TRUE);
            PoCallDriver(kit->Lower, Irp);
            return STATUS_PENDING;
        }
        if (state.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, KitPoweredUp, kit, TRUE, TRUE, TRUE);
            PoCallDriver(kit->Lower, Irp);
            return STATUS_PENDING;
        }
        if (kit->Power == PowerDeviceD0) {
            KitShut(kit, KIT_ASLEEP);
            if (KitEnterAsleep(kit)) {
                if (KitHooks.Sleep)
                    KitHooks.Sleep(kit);
                KitLeave(kit);
            }
        }
        kit->Power = state.DeviceState;
        PoSetPowerState(DeviceObject, DevicePowerState, state);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(kit->Lower, Irp);
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI KitSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PKIT kit = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&kit->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return KitRefuse(Irp, status);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(kit->Lower, Irp);
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI KitCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PKIT kit = DeviceObject->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;

    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && KitGone(kit))
        status = STATUS_DELETE_PENDING;
    return KitComplete(Irp, status, 0);
}

static VOID NTAPI KitUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

KITFN VOID KitDriver(PDRIVER_OBJECT DriverObject)
{
    DriverObject->DriverExtension->AddDevice = KitAddDevice;
    DriverObject->DriverUnload = KitUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = KitPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = KitPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = KitSystemControl;
}
#endif
