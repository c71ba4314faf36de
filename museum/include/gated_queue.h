/*
 * the frame of the PnP drivers by one author: AddDevice, PnP, power and a cancel-safe request queue that is shut by gates.
 *
 * A driver has one AK_OPS named AkOps; its extension begins with an AK. Requests that need the device go through AkQueue; they are given to
 * StartIo one after the other, and each ends with AkDone. While a request is served (or while a thread is between AkEnter and AkLeave) stop,
 * removal and power-down wait; so everything that is served must end within a time limit of its own.
 */
#ifndef AKIT_H
#define AKIT_H

#include <ddk/wdm.h>

#define AKFN static __attribute__((unused))
#define AK_TAG 'tikA'

#define AG_COLD 0x01    /* not started yet */
#define AG_STOP 0x02    /* stop asked for, or stopped */
#define AG_REMOVE 0x04  /* removal asked for */
#define AG_POWER 0x08   /* not in D0 */
#define AG_DEAD 0x10    /* did not come back to D0 */
#define AG_GONE 0x20    /* pulled, removed or not startable */
#define AG_REFUSE (AG_COLD | AG_DEAD | AG_GONE)

typedef struct _AK {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Lower;
    PDEVICE_OBJECT Pdo;
    IO_REMOVE_LOCK Lock;
    UNICODE_STRING Link;
    BOOLEAN LinkOn;

    KSPIN_LOCK QLock; /* guards all down to Csq */
    volatile ULONG Gates;
    ULONG Active; /* the request in StartIo and the threads in AkEnter */
    KEVENT Idle;  /* set while Active is 0 */
    BOOLEAN Serving;
    BOOLEAN Pumping;
    BOOLEAN Again;
    LIST_ENTRY Queue;
    IO_CSQ Csq;

    KSPIN_LOCK HwLock; /* guards the two below; PowerDown and PowerUp are called with it */
    BOOLEAN HwReady;   /* Start has succeeded, Stop has not begun */
    BOOLEAN Awake;     /* in D0 */
} AK, *PAK;

typedef struct _AK_OPS {
    const GUID *Interface;
    ULONG ExtSize;
    ULONG DeviceFlags;
    NTSTATUS (*Init)(PAK k);                                                     /* PASSIVE, before anything else */
    VOID (*Uninit)(PAK k);                                                       /* PASSIVE, nothing runs any more */
    NTSTATUS (*Start)(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated); /* PASSIVE; undoes all if it fails */
    VOID (*Stop)(PAK k, BOOLEAN Touch);                                          /* PASSIVE; Touch: in D0, but perhaps pulled */
    VOID (*Gone)(PAK k);                                                         /* PASSIVE, may come twice: end all that waits */
    VOID (*PowerDown)(PAK k);                                                    /* DISPATCH, under HwLock */
    VOID (*PowerUp)(PAK k);                                                      /* DISPATCH, under HwLock */
    NTSTATUS (*Create)(PAK k, PIO_STACK_LOCATION s);
    VOID (*Cleanup)(PAK k, PFILE_OBJECT File);
    NTSTATUS (*Io)(PAK k, PIRP Irp, PIO_STACK_LOCATION s); /* other than STATUS_PENDING: the frame completes */
    VOID (*StartIo)(PAK k, PIRP Irp);                      /* <= DISPATCH */
    NTSTATUS (*SystemPower)(PAK k, PIRP Irp);              /* instead of AkSystemPower */
} AK_OPS;

static const AK_OPS AkOps;

AKFN VOID AkComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

/* ---- activity ---- */

static VOID AkUp(PAK k)
{
    if (k->Active++ == 0)
        KeClearEvent(&k->Idle);
}

static VOID AkDown(PAK k)
{
    if (--k->Active == 0)
        KeSetEvent(&k->Idle, IO_NO_INCREMENT, FALSE);
}

AKFN VOID AkWaitIdle(PAK k)
{
    KeWaitForSingleObject(&k->Idle, Executive, KernelMode, FALSE, NULL);
}

AKFN NTSTATUS AkEnter(PAK k)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&k->QLock, &irql);
    if (k->Gates & AG_REFUSE)
        status = STATUS_DEVICE_NOT_CONNECTED;
    else if (k->Gates)
        status = STATUS_DEVICE_NOT_READY;
    else
        AkUp(k);
    KeReleaseSpinLock(&k->QLock, irql);
    return status;
}

/* For one who has entered already (or is in StartIo) and may be left by its request before it returns; AkLeave ends it. */
AKFN VOID AkHold(PAK k)
{
    KIRQL irql;

    KeAcquireSpinLock(&k->QLock, &irql);
    AkUp(k);
    KeReleaseSpinLock(&k->QLock, irql);
}

AKFN VOID AkLeave(PAK k)
{
    KIRQL irql;

    KeAcquireSpinLock(&k->QLock, &irql);
    AkDown(k);
    KeReleaseSpinLock(&k->QLock, irql);
}

/* ---- queue ---- */

static NTSTATUS AkCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PAK k = CONTAINING_RECORD(Csq, AK, Csq);

    UNREFERENCED_PARAMETER(Context);
    if (k->Gates & AG_REFUSE)
        return STATUS_DEVICE_NOT_CONNECTED;
    InsertTailList(&k->Queue, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID AkCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP AkPeek(PLIST_ENTRY Head, PIRP Irp, PVOID File)
{
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : Head->Flink;

    for (; e != Head; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!File || IoGetCurrentIrpStackLocation(next)->FileObject == File)
            return next;
    }
    return NULL;
}

static PIRP AkCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    return AkPeek(&CONTAINING_RECORD(Csq, AK, Csq)->Queue, Irp, Context);
}

static VOID AkCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, AK, Csq)->QLock, Irql);
}

static VOID AkCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, AK, Csq)->QLock, Irql);
}

static VOID AkCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PAK k = CONTAINING_RECORD(Csq, AK, Csq);

    AkComplete(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&k->Lock, Irp);
}

/* The caller holds the remove lock. */
static VOID AkPump(PAK k)
{
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&k->QLock, &irql);
    if (k->Pumping) {
        k->Again = TRUE;
        KeReleaseSpinLock(&k->QLock, irql);
        return;
    }
    k->Pumping = TRUE;
    for (;;) {
        k->Again = FALSE;
        if (k->Gates || k->Serving)
            break;
        k->Serving = TRUE;
        AkUp(k);
        KeReleaseSpinLock(&k->QLock, irql);
        irp = IoCsqRemoveNextIrp(&k->Csq, NULL);
        if (irp && AkOps.StartIo)
            AkOps.StartIo(k, irp);
        KeAcquireSpinLock(&k->QLock, &irql);
        if (!irp) {
            k->Serving = FALSE;
            AkDown(k);
            if (!k->Again)
                break;
        }
    }
    k->Pumping = FALSE;
    KeReleaseSpinLock(&k->QLock, irql);
}

/* Puts a request into the queue; the frame's Io must return what this returns. */
AKFN NTSTATUS AkQueue(PAK k, PIRP Irp)
{
    NTSTATUS status;

    IoMarkIrpPending(Irp);
    status = IoAcquireRemoveLock(&k->Lock, Irp);
    if (!NT_SUCCESS(status)) {
        AkComplete(Irp, status, 0);
        return STATUS_PENDING;
    }
    status = IoCsqInsertIrpEx(&k->Csq, Irp, NULL, NULL);
    if (NT_SUCCESS(status)) {
        AkPump(k);
    } else {
        AkComplete(Irp, status, 0);
        IoReleaseRemoveLock(&k->Lock, Irp);
    }
    return STATUS_PENDING;
}

/* Ends the request StartIo was given. Nothing of the device may be touched behind it. */
AKFN VOID AkDone(PAK k, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    KIRQL irql;

    AkComplete(Irp, Status, Information);
    KeAcquireSpinLock(&k->QLock, &irql);
    k->Serving = FALSE;
    AkDown(k);
    KeReleaseSpinLock(&k->QLock, irql);
    AkPump(k);
    IoReleaseRemoveLock(&k->Lock, Irp);
}

static VOID AkDrain(PAK k, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&k->Csq, File)) != NULL) {
        AkComplete(irp, Status, 0);
        IoReleaseRemoveLock(&k->Lock, irp);
    }
}

static VOID AkShut(PAK k, ULONG Gate)
{
    KIRQL irql;

    KeAcquireSpinLock(&k->QLock, &irql);
    k->Gates |= Gate;
    KeReleaseSpinLock(&k->QLock, irql);
}

static VOID AkOpen(PAK k, ULONG Gate)
{
    KIRQL irql;

    KeAcquireSpinLock(&k->QLock, &irql);
    k->Gates &= ~Gate;
    KeReleaseSpinLock(&k->QLock, irql);
    AkPump(k);
}

/* ---- helpers for the lower driver ---- */

static NTSTATUS AkForwarded(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS AkForward(PAK k, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, AkForwarded, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(k->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS AkSent(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* A PnP request of our own to the stack below; Next is filled in by the caller through the model. PASSIVE. */
AKFN NTSTATUS AkSendPnp(PAK k, const IO_STACK_LOCATION *Model, PULONG_PTR Information)
{
    KEVENT event;
    PIRP irp = IoAllocateIrp(k->Lower->StackSize, FALSE);
    PIO_STACK_LOCATION next;
    NTSTATUS status;

    if (!irp)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeInitializeEvent(&event, NotificationEvent, FALSE);
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    irp->IoStatus.Information = 0;
    next = IoGetNextIrpStackLocation(irp);
    next->MajorFunction = IRP_MJ_PNP;
    next->MinorFunction = Model->MinorFunction;
    next->Parameters = Model->Parameters;
    IoSetCompletionRoutine(irp, AkSent, &event, TRUE, TRUE, TRUE);
    IoCallDriver(k->Lower, irp);
    KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
    status = irp->IoStatus.Status;
    if (Information)
        *Information = irp->IoStatus.Information;
    IoFreeIrp(irp);
    return status;
}

/* ---- resources ---- */

AKFN PCM_PARTIAL_RESOURCE_DESCRIPTOR AkFirst(PCM_RESOURCE_LIST List, PULONG Count)
{
    PUCHAR p;

    *Count = 0;
    if (!List || List->Count == 0)
        return NULL;
    p = (PUCHAR)List + FIELD_OFFSET(CM_RESOURCE_LIST, List) + FIELD_OFFSET(CM_FULL_RESOURCE_DESCRIPTOR, PartialResourceList);
    *Count = ((PCM_PARTIAL_RESOURCE_LIST)p)->Count;
    return (PCM_PARTIAL_RESOURCE_DESCRIPTOR)(p + FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors));
}

/* The memory window number Index (0 = the first one), or NULL. */
AKFN PCM_PARTIAL_RESOURCE_DESCRIPTOR AkMemory(PCM_RESOURCE_LIST List, ULONG Index)
{
    ULONG n;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = AkFirst(List, &n);

    for (; n; n--, d++)
        if (d->Type == CmResourceTypeMemory && Index-- == 0)
            return d;
    return NULL;
}

AKFN PCM_PARTIAL_RESOURCE_DESCRIPTOR AkLine(PCM_RESOURCE_LIST List)
{
    ULONG n;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = AkFirst(List, &n);

    for (; n; n--, d++)
        if (d->Type == CmResourceTypeInterrupt)
            return d;
    return NULL;
}

AKFN NTSTATUS AkConnect(PCM_PARTIAL_RESOURCE_DESCRIPTOR d, PKSERVICE_ROUTINE Isr, PVOID Context, PKINTERRUPT *Interrupt)
{
    return IoConnectInterrupt(Interrupt, Isr, Context, NULL, d->u.Interrupt.Vector, (KIRQL)d->u.Interrupt.Level, (KIRQL)d->u.Interrupt.Level,
                              (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              (BOOLEAN)(d->ShareDisposition == CmResourceShareShared), d->u.Interrupt.Affinity, FALSE);
}

/* ---- hardware on and off ---- */

static VOID AkHwOff(PAK k, BOOLEAN Touch)
{
    KIRQL irql;
    BOOLEAN was, awake;

    KeAcquireSpinLock(&k->HwLock, &irql);
    was = k->HwReady;
    awake = k->Awake;
    k->HwReady = FALSE;
    KeReleaseSpinLock(&k->HwLock, irql);
    if (was && AkOps.Stop)
        AkOps.Stop(k, Touch && awake);
}

static VOID AkGone(PAK k, BOOLEAN Touch)
{
    AkShut(k, AG_GONE);
    if (k->LinkOn) {
        k->LinkOn = FALSE;
        IoSetDeviceInterfaceState(&k->Link, FALSE);
    }
    AkDrain(k, NULL, STATUS_DEVICE_NOT_CONNECTED);
    if (AkOps.Gone)
        AkOps.Gone(k);
    AkWaitIdle(k);
    AkHwOff(k, Touch);
}

static NTSTATUS AkStart(PAK k, PIO_STACK_LOCATION s)
{
    NTSTATUS status = STATUS_SUCCESS;
    POWER_STATE power;
    KIRQL irql;

    AkHwOff(k, TRUE); /* a start without a stop before it */
    if (AkOps.Start)
        status = AkOps.Start(k, s->Parameters.StartDevice.AllocatedResources, s->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&k->HwLock, &irql);
        k->HwReady = TRUE;
        k->Awake = TRUE;
        KeReleaseSpinLock(&k->HwLock, irql);
        power.DeviceState = PowerDeviceD0;
        PoSetPowerState(k->Self, DevicePowerState, power);
        AkOpen(k, AG_COLD | AG_STOP | AG_REMOVE | AG_POWER | AG_DEAD);
        if (!k->LinkOn) {
            status = IoSetDeviceInterfaceState(&k->Link, TRUE);
            if (NT_SUCCESS(status)) {
                k->LinkOn = TRUE;
                status = STATUS_SUCCESS;
            }
        }
    }
    if (!NT_SUCCESS(status))
        AkGone(k, TRUE);
    return status;
}

/* ---- dispatch ---- */

static NTSTATUS AkPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PAK k = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE_OBJECT lower;
    NTSTATUS status = IoAcquireRemoveLock(&k->Lock, Irp);

    if (!NT_SUCCESS(status)) {
        AkComplete(Irp, status, 0);
        return status;
    }
    switch (s->MinorFunction) {
    case IRP_MN_START_DEVICE:
        AkShut(k, AG_STOP);
        AkWaitIdle(k);
        status = AkForward(k, Irp);
        if (NT_SUCCESS(status))
            status = AkStart(k, s);
        else
            AkGone(k, FALSE);
        AkComplete(Irp, status, 0);
        IoReleaseRemoveLock(&k->Lock, Irp);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
        AkShut(k, AG_STOP);
        AkWaitIdle(k);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
        AkShut(k, AG_REMOVE);
        AkWaitIdle(k);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE: {
        ULONG gate = s->MinorFunction == IRP_MN_CANCEL_STOP_DEVICE ? AG_STOP : AG_REMOVE;

        AkForward(k, Irp);
        AkOpen(k, gate);
        AkComplete(Irp, STATUS_SUCCESS, 0);
        IoReleaseRemoveLock(&k->Lock, Irp);
        return STATUS_SUCCESS;
    }

    case IRP_MN_STOP_DEVICE:
        AkShut(k, AG_STOP);
        AkWaitIdle(k);
        AkHwOff(k, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        AkGone(k, TRUE); /* it may still be there; if it is not, all ones are read and writes go nowhere */
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        AkGone(k, TRUE); /* behind a surprise removal nothing is left to be touched */
        IoReleaseRemoveLockAndWait(&k->Lock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        lower = k->Lower;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(lower, Irp);
        IoDetachDevice(lower);
        if (AkOps.Uninit)
            AkOps.Uninit(k);
        RtlFreeUnicodeString(&k->Link);
        IoDeleteDevice(Device);
        return status;

    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(k->Lower, Irp);
    IoReleaseRemoveLock(&k->Lock, Irp);
    return status;
}

static NTSTATUS AkD0Done(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PAK k = Context;
    POWER_STATE power;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        KeAcquireSpinLock(&k->HwLock, &irql);
        if (k->HwReady && !k->Awake && AkOps.PowerUp)
            AkOps.PowerUp(k);
        k->Awake = TRUE;
        KeReleaseSpinLock(&k->HwLock, irql);
        power.DeviceState = PowerDeviceD0;
        PoSetPowerState(k->Self, DevicePowerState, power);
        AkOpen(k, AG_POWER | AG_DEAD);
    } else {
        AkShut(k, AG_DEAD);
        AkDrain(k, NULL, STATUS_DEVICE_POWER_FAILURE);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&k->Lock, Irp);
    return STATUS_SUCCESS;
}

static NTSTATUS AkDevicePower(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    POWER_STATE power = s->Parameters.Power.State;
    KIRQL irql;
    NTSTATUS status;

    if (power.DeviceState == PowerDeviceD0) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, AkD0Done, k, TRUE, TRUE, TRUE);
        PoCallDriver(k->Lower, Irp);
        return STATUS_PENDING;
    }
    AkShut(k, AG_POWER);
    AkWaitIdle(k); /* DO_POWER_PAGABLE: we are at PASSIVE_LEVEL */
    KeAcquireSpinLock(&k->HwLock, &irql);
    if (k->HwReady && k->Awake && AkOps.PowerDown)
        AkOps.PowerDown(k);
    k->Awake = FALSE;
    KeReleaseSpinLock(&k->HwLock, irql);
    PoSetPowerState(k->Self, DevicePowerState, power);
    PoStartNextPowerIrp(Irp);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(k->Lower, Irp);
    IoReleaseRemoveLock(&k->Lock, Irp);
    return status;
}

/* The device's own power request, asked for on behalf of the system's, is over. */
AKFN VOID AkDeviceChanged(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Iosb)
{
    PIRP irp = Context;
    PAK k = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Pdo);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Iosb);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&k->Lock, irp);
}

/* No request for the device's power could be made. To sleep: the card will lose its power all the same. To wake: it stays as it is. */
AKFN VOID AkNoDevicePower(PAK k, BOOLEAN Wake)
{
    KIRQL irql;

    if (Wake) {
        AkShut(k, AG_DEAD);
        AkDrain(k, NULL, STATUS_DEVICE_POWER_FAILURE);
        return;
    }
    AkShut(k, AG_POWER);
    KeAcquireSpinLock(&k->HwLock, &irql);
    if (k->HwReady && k->Awake && AkOps.PowerDown)
        AkOps.PowerDown(k);
    k->Awake = FALSE;
    KeReleaseSpinLock(&k->HwLock, irql);
}

static NTSTATUS AkSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PAK k = Context;
    BOOLEAN wake = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking;
    POWER_STATE power;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        power.DeviceState = wake ? PowerDeviceD0 : PowerDeviceD3;
        if (NT_SUCCESS(PoRequestPowerIrp(k->Pdo, IRP_MN_SET_POWER, power, AkDeviceChanged, Irp, NULL)))
            return STATUS_MORE_PROCESSING_REQUIRED;
        AkNoDevicePower(k, wake);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&k->Lock, Irp);
    return STATUS_SUCCESS;
}

AKFN NTSTATUS AkSystemPower(PAK k, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, AkSystemDone, k, TRUE, TRUE, TRUE);
    PoCallDriver(k->Lower, Irp);
    return STATUS_PENDING;
}

static NTSTATUS AkPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PAK k = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&k->Lock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        AkComplete(Irp, status, 0);
        return status;
    }
    if (s->MinorFunction == IRP_MN_SET_POWER && !(k->Gates & (AG_COLD | AG_GONE))) {
        if (s->Parameters.Power.Type == DevicePowerState)
            return AkDevicePower(k, Irp, s);
        return AkOps.SystemPower ? AkOps.SystemPower(k, Irp) : AkSystemPower(k, Irp);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(k->Lower, Irp);
    IoReleaseRemoveLock(&k->Lock, Irp);
    return status;
}

static NTSTATUS AkPass(PDEVICE_OBJECT Device, PIRP Irp)
{
    PAK k = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&k->Lock, Irp);

    if (!NT_SUCCESS(status)) {
        AkComplete(Irp, status, 0);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(k->Lower, Irp);
    IoReleaseRemoveLock(&k->Lock, Irp);
    return status;
}

static NTSTATUS AkFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PAK k = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS, held = IoAcquireRemoveLock(&k->Lock, (PVOID)AkFile);

    if (s->MajorFunction == IRP_MJ_CREATE) {
        if (!NT_SUCCESS(held) || (k->Gates & (AG_REFUSE | AG_REMOVE)))
            status = STATUS_DEVICE_NOT_CONNECTED;
        else if (AkOps.Create)
            status = AkOps.Create(k, s);
    } else if (s->MajorFunction == IRP_MJ_CLEANUP && NT_SUCCESS(held)) {
        AkDrain(k, s->FileObject, STATUS_CANCELLED);
        if (AkOps.Cleanup)
            AkOps.Cleanup(k, s->FileObject);
    }
    AkComplete(Irp, status, 0);
    if (NT_SUCCESS(held))
        IoReleaseRemoveLock(&k->Lock, (PVOID)AkFile);
    return status;
}

static NTSTATUS AkIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PAK k = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&k->Lock, (PVOID)AkIo);

    if (!NT_SUCCESS(status)) {
        AkComplete(Irp, status, 0);
        return status;
    }
    Irp->IoStatus.Information = 0;
    if (k->Gates & AG_REFUSE)
        status = STATUS_DEVICE_NOT_CONNECTED;
    else
        status = AkOps.Io(k, Irp, IoGetCurrentIrpStackLocation(Irp));
    if (status != STATUS_PENDING) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
    IoReleaseRemoveLock(&k->Lock, (PVOID)AkIo);
    return status;
}

static NTSTATUS AkAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PAK k;
    NTSTATUS status = IoCreateDevice(Driver, AkOps.ExtSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);

    if (!NT_SUCCESS(status))
        return status;
    k = device->DeviceExtension;
    RtlZeroMemory(k, AkOps.ExtSize);
    k->Self = device;
    k->Pdo = Pdo;
    k->Gates = AG_COLD;
    IoInitializeRemoveLock(&k->Lock, AK_TAG, 0, 0);
    KeInitializeSpinLock(&k->QLock);
    KeInitializeSpinLock(&k->HwLock);
    KeInitializeEvent(&k->Idle, NotificationEvent, TRUE);
    InitializeListHead(&k->Queue);
    status = IoCsqInitializeEx(&k->Csq, AkCsqInsert, AkCsqRemove, AkCsqPeek, AkCsqAcquire, AkCsqRelease, AkCsqCancelled);
    if (NT_SUCCESS(status) && AkOps.Init)
        status = AkOps.Init(k);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    status = IoRegisterDeviceInterface(Pdo, AkOps.Interface, NULL, &k->Link);
    if (NT_SUCCESS(status)) {
        k->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
        if (k->Lower) {
            device->Flags |= AkOps.DeviceFlags | DO_POWER_PAGABLE;
            device->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        RtlFreeUnicodeString(&k->Link);
        status = STATUS_NO_SUCH_DEVICE;
    }
    if (AkOps.Uninit)
        AkOps.Uninit(k);
    IoDeleteDevice(device);
    return status;
}

static VOID AkUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

AKFN NTSTATUS AkEntry(PDRIVER_OBJECT Driver)
{
    Driver->DriverExtension->AddDevice = AkAddDevice;
    Driver->DriverUnload = AkUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = AkFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = AkFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = AkFile;
    Driver->MajorFunction[IRP_MJ_READ] = AkIo;
    Driver->MajorFunction[IRP_MJ_WRITE] = AkIo;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AkIo;
    Driver->MajorFunction[IRP_MJ_PNP] = AkPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = AkPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = AkPass;
    return STATUS_SUCCESS;
}

#endif
