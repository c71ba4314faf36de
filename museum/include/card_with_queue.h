/* card_with_queue.h: the frame shared by the card drivers: PnP, power, a gate that
 * holds requests while the card is stopped or asleep, and a remove lock. */
#pragma once
#include <ddk/wdm.h>
#include <initguid.h>

#define HOLD_STOP  1u
#define HOLD_POWER 2u

typedef struct _KIT KIT, *PKIT;

typedef struct _KIT_OPS {
    NTSTATUS (*Start)(PKIT K, PCM_PARTIAL_RESOURCE_LIST Res); /* map, connect; undone by Release */
    VOID (*Up)(PKIT K);                    /* card in D0: enable it (up to DISPATCH_LEVEL) */
    VOID (*Down)(PKIT K, BOOLEAN Present); /* quiesce; registers may be touched if Present */
    VOID (*Release)(PKIT K);               /* disconnect, unmap; may be called again */
    NTSTATUS (*Handle)(PKIT K, PIRP Irp);  /* gate held; up to DISPATCH_LEVEL */
    VOID (*Purge)(PKIT K, PFILE_OBJECT File, NTSTATUS Status); /* complete waiting requests (File NULL: all) */
} KIT_OPS;

struct _KIT {
    PDEVICE_OBJECT Self, Lower, Pdo;
    const KIT_OPS *Ops;
    IO_REMOVE_LOCK RemoveLock;
    KSPIN_LOCK Lock;            /* Alive, Hold, InFlight, HoldQueue */
    BOOLEAN Alive, Gone, Working, RemovePending, InterfaceOn;
    ULONG Hold, InFlight;
    KEVENT Idle;
    LIST_ENTRY HoldQueue;
    IO_CSQ Csq;
    UNICODE_STRING Link;
    DEVICE_POWER_STATE DState;
};

static const KIT_OPS CardOps;          /* each driver defines these */
static inline NTSTATUS KitSubmit(PKIT K, PIRP Irp);

/* ---- the queue of held requests ---- */
static inline VOID NTAPI KitCsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    PKIT K = CONTAINING_RECORD(Csq, KIT, Csq);
    InsertTailList(&K->HoldQueue, &Irp->Tail.Overlay.ListEntry);
}
static inline VOID NTAPI KitCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}
static inline PIRP NTAPI KitCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PKIT K = CONTAINING_RECORD(Csq, KIT, Csq);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : K->HoldQueue.Flink;
    for (; e != &K->HoldQueue; e = e->Flink) {
        PIRP c = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!File || IoGetCurrentIrpStackLocation(c)->FileObject == File)
            return c;
    }
    return NULL;
}
static inline VOID NTAPI KitCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, KIT, Csq)->Lock, Irql);
}
static inline VOID NTAPI KitCsqReleaseLock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, KIT, Csq)->Lock, Irql);
}

/* Completes a request that no longer holds the gate. */
static inline VOID KitComplete(PKIT K, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&K->RemoveLock, Irp);
}
static inline VOID NTAPI KitCsqCanceled(PIO_CSQ Csq, PIRP Irp)
{
    KitComplete(CONTAINING_RECORD(Csq, KIT, Csq), Irp, STATUS_CANCELLED, 0);
}

static inline VOID KitUngate(PKIT K)
{
    KIRQL irql;
    KeAcquireSpinLock(&K->Lock, &irql);
    if (--K->InFlight == 0)
        KeSetEvent(&K->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&K->Lock, irql);
}
/* Enters the gate without a request; FALSE when held or not alive. */
static inline BOOLEAN KitTryGate(PKIT K)
{
    KIRQL irql;
    BOOLEAN ok;
    KeAcquireSpinLock(&K->Lock, &irql);
    ok = K->Alive && !K->Hold;
    if (ok && K->InFlight++ == 0)
        KeClearEvent(&K->Idle);
    KeReleaseSpinLock(&K->Lock, irql);
    return ok;
}
/* Completes a request that holds the gate. The remove lock is held to the end. */
static inline VOID KitFinish(PKIT K, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    KitUngate(K);
    IoReleaseRemoveLock(&K->RemoveLock, Irp);
}

/* Leaves the gate with a request that waits, without bound, in a queue of the driver's. */
static inline NTSTATUS KitPark(PKIT K, PIRP Irp, PIO_CSQ Csq)
{
    NTSTATUS st = IoAcquireRemoveLock(&K->RemoveLock, Csq);
    if (!NT_SUCCESS(st)) {
        KitFinish(K, Irp, st, 0);
        return st;
    }
    IoMarkIrpPending(Irp);
    IoCsqInsertIrp(Csq, Irp, NULL);
    KitUngate(K);
    IoReleaseRemoveLock(&K->RemoveLock, Csq);
    return STATUS_PENDING;
}

/* Runs the held requests again as long as the gate is open (or the card dead). */
static inline VOID KitDrain(PKIT K)
{
    for (;;) {
        KIRQL irql;
        BOOLEAN hold;
        PIRP irp;
        KeAcquireSpinLock(&K->Lock, &irql);
        hold = K->Alive && K->Hold;
        KeReleaseSpinLock(&K->Lock, irql);
        if (hold)
            return;
        irp = IoCsqRemoveNextIrp(&K->Csq, NULL);
        if (!irp)
            return;
        (void)KitSubmit(K, irp);
    }
}

/* The request has the remove lock. */
static inline NTSTATUS KitSubmit(PKIT K, PIRP Irp)
{
    KIRQL irql;
    BOOLEAN alive, run = FALSE;
    NTSTATUS st;

    KeAcquireSpinLock(&K->Lock, &irql);
    alive = K->Alive;
    if (alive && !K->Hold) {
        run = TRUE;
        if (K->InFlight++ == 0)
            KeClearEvent(&K->Idle);
    }
    KeReleaseSpinLock(&K->Lock, irql);
    if (!alive) {
        KitComplete(K, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return STATUS_DEVICE_NOT_CONNECTED;
    }
    if (!run) {
        /* Inserted, the request may end at once; the extension must outlive the insertion. */
        st = IoAcquireRemoveLock(&K->RemoveLock, K);
        if (!NT_SUCCESS(st)) {
            KitComplete(K, Irp, st, 0);
            return st;
        }
        IoMarkIrpPending(Irp);
        IoCsqInsertIrp(&K->Csq, Irp, NULL);
        KitDrain(K);              /* the gate may have opened in between */
        IoReleaseRemoveLock(&K->RemoveLock, K);
        return STATUS_PENDING;
    }
    st = K->Ops->Handle(K, Irp);  /* completes the request itself unless it stays pending */
    return st;
}

static inline VOID KitHoldAndWait(PKIT K, ULONG Bit)
{
    KIRQL irql;
    KeAcquireSpinLock(&K->Lock, &irql);
    K->Hold |= Bit;
    KeReleaseSpinLock(&K->Lock, irql);
    KeWaitForSingleObject(&K->Idle, Executive, KernelMode, FALSE, NULL);
}
static inline VOID KitResume(PKIT K, ULONG Bit)
{
    KIRQL irql;
    KeAcquireSpinLock(&K->Lock, &irql);
    K->Hold &= ~Bit;
    KeReleaseSpinLock(&K->Lock, irql);
    KitDrain(K);
}
/* No more requests; those that wait end. */
static inline VOID KitKill(PKIT K, BOOLEAN Present)
{
    KIRQL irql;
    KeAcquireSpinLock(&K->Lock, &irql);
    K->Alive = FALSE;
    KeReleaseSpinLock(&K->Lock, irql);
    KitDrain(K);
    K->Ops->Purge(K, NULL, STATUS_DEVICE_NOT_CONNECTED);
    KeWaitForSingleObject(&K->Idle, Executive, KernelMode, FALSE, NULL);
    K->Ops->Purge(K, NULL, STATUS_DEVICE_NOT_CONNECTED);
    if (K->Working) {
        K->Working = FALSE;
        K->Ops->Down(K, Present && K->DState == PowerDeviceD0);
    }
    K->Ops->Release(K);
    if (K->InterfaceOn) {
        K->InterfaceOn = FALSE;
        IoSetDeviceInterfaceState(&K->Link, FALSE);
    }
}

/* ---- PnP ---- */
static inline NTSTATUS NTAPI KitSyncDone(PDEVICE_OBJECT D, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(D);
    if (Irp->PendingReturned)
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}
static inline NTSTATUS KitForwardWait(PKIT K, PIRP Irp)
{
    KEVENT ev;
    NTSTATUS st;
    KeInitializeEvent(&ev, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, KitSyncDone, &ev, TRUE, TRUE, TRUE);
    st = IoCallDriver(K->Lower, Irp);
    if (st == STATUS_PENDING) {
        KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
        st = Irp->IoStatus.Status;
    }
    return st;
}
static inline NTSTATUS KitPnpDone(PKIT K, PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&K->RemoveLock, Irp);
    return Status;
}

static inline NTSTATUS NTAPI KitPnp(PDEVICE_OBJECT D, PIRP Irp)
{
    PKIT K = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PCM_RESOURCE_LIST res;
    KIRQL irql;
    NTSTATUS st = IoAcquireRemoveLock(&K->RemoveLock, Irp);

    if (!NT_SUCCESS(st)) {
        Irp->IoStatus.Status = st;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return st;
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = KitForwardWait(K, Irp);
        if (NT_SUCCESS(st)) {
            res = sp->Parameters.StartDevice.AllocatedResourcesTranslated;
            if (!res || res->Count != 1)
                st = STATUS_DEVICE_CONFIGURATION_ERROR;
            else
                st = K->Ops->Start(K, &res->List[0].PartialResourceList);
            if (NT_SUCCESS(st)) {
                POWER_STATE ps;
                ps.DeviceState = PowerDeviceD0;
                K->DState = PowerDeviceD0;
                PoSetPowerState(K->Self, DevicePowerState, ps);
                K->Ops->Up(K);
                K->Working = TRUE;
                KeAcquireSpinLock(&K->Lock, &irql);
                K->Alive = TRUE;
                KeReleaseSpinLock(&K->Lock, irql);
                KitResume(K, HOLD_STOP | HOLD_POWER);
                if (!K->InterfaceOn && NT_SUCCESS(IoSetDeviceInterfaceState(&K->Link, TRUE)))
                    K->InterfaceOn = TRUE;
            }
        }
        if (!NT_SUCCESS(st))
            KitKill(K, FALSE);
        return KitPnpDone(K, Irp, st);

    case IRP_MN_QUERY_STOP_DEVICE:
        KitHoldAndWait(K, HOLD_STOP);
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
        (void)KitForwardWait(K, Irp);
        KitResume(K, HOLD_STOP);
        return KitPnpDone(K, Irp, STATUS_SUCCESS);
    case IRP_MN_STOP_DEVICE:
        KitHoldAndWait(K, HOLD_STOP);
        if (K->Working) {
            K->Working = FALSE;
            K->Ops->Down(K, K->DState == PowerDeviceD0);
        }
        K->Ops->Release(K);
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
        K->RemovePending = TRUE;
        break;
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        (void)KitForwardWait(K, Irp);
        K->RemovePending = FALSE;
        return KitPnpDone(K, Irp, STATUS_SUCCESS);
    case IRP_MN_SURPRISE_REMOVAL:
        K->Gone = TRUE;
        KitKill(K, FALSE);
        break;
    case IRP_MN_REMOVE_DEVICE:
        KitKill(K, !K->Gone);
        IoReleaseRemoveLockAndWait(&K->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        st = IoCallDriver(K->Lower, Irp);
        IoDetachDevice(K->Lower);
        RtlFreeUnicodeString(&K->Link);
        IoDeleteDevice(K->Self);
        return st;

    default:
        IoSkipCurrentIrpStackLocation(Irp);
        st = IoCallDriver(K->Lower, Irp);
        IoReleaseRemoveLock(&K->RemoveLock, Irp);
        return st;
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    st = IoCallDriver(K->Lower, Irp);
    IoReleaseRemoveLock(&K->RemoveLock, Irp);
    return st;
}

/* ---- power ---- */
static inline VOID NTAPI KitDPowerDone(PDEVICE_OBJECT D, UCHAR Minor, POWER_STATE State, PVOID Ctx, PIO_STATUS_BLOCK Iosb)
{
    PIRP sirp = Ctx;
    PKIT K = IoGetCurrentIrpStackLocation(sirp)->DeviceObject->DeviceExtension;
    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    sirp->IoStatus.Status = Iosb->Status;
    IoCompleteRequest(sirp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&K->RemoveLock, sirp);
}
static inline NTSTATUS NTAPI KitSPassed(PDEVICE_OBJECT D, PIRP Irp, PVOID Ctx)
{
    PKIT K = Ctx;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE ps;
    NTSTATUS st = Irp->IoStatus.Status;
    UNREFERENCED_PARAMETER(D);

    if (NT_SUCCESS(st)) {
        ps.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking
                         ? PowerDeviceD0 : PowerDeviceD3;
        st = PoRequestPowerIrp(K->Pdo, IRP_MN_SET_POWER, ps, KitDPowerDone, Irp, NULL);
        if (NT_SUCCESS(st))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = st;
    }
    IoReleaseRemoveLock(&K->RemoveLock, Irp);
    return STATUS_SUCCESS;
}
static inline NTSTATUS NTAPI KitD0Passed(PDEVICE_OBJECT D, PIRP Irp, PVOID Ctx)
{
    PKIT K = Ctx;
    UNREFERENCED_PARAMETER(D);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        POWER_STATE ps;
        BOOLEAN was = K->DState == PowerDeviceD0;
        ps.DeviceState = PowerDeviceD0;
        K->DState = PowerDeviceD0;
        PoSetPowerState(K->Self, DevicePowerState, ps);
        if (K->Working && !was)
            K->Ops->Up(K);
        KitResume(K, HOLD_POWER);
    }
    IoReleaseRemoveLock(&K->RemoveLock, Irp);
    return STATUS_SUCCESS;
}
static inline NTSTATUS NTAPI KitPower(PDEVICE_OBJECT D, PIRP Irp)
{
    PKIT K = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS st = IoAcquireRemoveLock(&K->RemoveLock, Irp);

    if (!NT_SUCCESS(st)) {
        Irp->IoStatus.Status = st;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return st;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, KitSPassed, K, TRUE, TRUE, TRUE);
            PoCallDriver(K->Lower, Irp);
            return STATUS_PENDING;
        }
        if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, KitD0Passed, K, TRUE, TRUE, TRUE);
            PoCallDriver(K->Lower, Irp);
            return STATUS_PENDING;
        }
        if (K->DState == PowerDeviceD0) {
            KitHoldAndWait(K, HOLD_POWER);
            if (K->Working)
                K->Ops->Down(K, !K->Gone);
            K->DState = sp->Parameters.Power.State.DeviceState;
            PoSetPowerState(K->Self, DevicePowerState, sp->Parameters.Power.State);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
    } else if (sp->MinorFunction == IRP_MN_QUERY_POWER) {
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    st = PoCallDriver(K->Lower, Irp);
    IoReleaseRemoveLock(&K->RemoveLock, Irp);
    return st;
}

/* ---- the rest ---- */
static inline NTSTATUS NTAPI KitWmi(PDEVICE_OBJECT D, PIRP Irp)
{
    PKIT K = D->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&K->RemoveLock, Irp);
    if (!NT_SUCCESS(st)) {
        Irp->IoStatus.Status = st;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return st;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    st = IoCallDriver(K->Lower, Irp);
    IoReleaseRemoveLock(&K->RemoveLock, Irp);
    return st;
}
static inline NTSTATUS NTAPI KitOpenClose(PDEVICE_OBJECT D, PIRP Irp)
{
    PKIT K = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS st = STATUS_SUCCESS;

    if (sp->MajorFunction == IRP_MJ_CREATE) {
        if (K->RemovePending || !K->Alive)
            st = STATUS_DELETE_PENDING;
        else if (sp->FileObject->FileName.Length != 0)
            st = STATUS_OBJECT_NAME_NOT_FOUND;
    } else if (sp->MajorFunction == IRP_MJ_CLEANUP) {
        PIRP irp;
        while ((irp = IoCsqRemoveNextIrp(&K->Csq, sp->FileObject)))
            KitComplete(K, irp, STATUS_CANCELLED, 0);
        K->Ops->Purge(K, sp->FileObject, STATUS_CANCELLED);
    }
    Irp->IoStatus.Status = st;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return st;
}
static inline NTSTATUS NTAPI KitIo(PDEVICE_OBJECT D, PIRP Irp)
{
    PKIT K = D->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&K->RemoveLock, Irp);
    if (!NT_SUCCESS(st)) {
        Irp->IoStatus.Status = st;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return st;
    }
    return KitSubmit(K, Irp);
}

/* Makes the device object; its extension of Size bytes begins with a KIT. */
static inline NTSTATUS KitAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo, ULONG Size, const GUID *Guid,
                              ULONG IoFlag, PKIT *Out)
{
    PDEVICE_OBJECT d;
    PKIT K;
    NTSTATUS st = IoCreateDevice(Drv, Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &d);
    if (!NT_SUCCESS(st))
        return st;
    K = d->DeviceExtension;
    RtlZeroMemory(K, Size);
    K->Self = d;
    K->Pdo = Pdo;
    K->Ops = &CardOps;
    K->DState = PowerDeviceUnspecified;
    KeInitializeSpinLock(&K->Lock);
    KeInitializeEvent(&K->Idle, NotificationEvent, TRUE);
    InitializeListHead(&K->HoldQueue);
    IoInitializeRemoveLock(&K->RemoveLock, 'tiKC', 0, 0);
    st = IoCsqInitialize(&K->Csq, KitCsqInsert, KitCsqRemove, KitCsqPeek, KitCsqAcquire,
                         KitCsqReleaseLock, KitCsqCanceled);
    if (NT_SUCCESS(st))
        st = IoRegisterDeviceInterface(Pdo, Guid, NULL, &K->Link);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(d);
        return st;
    }
    d->Flags |= IoFlag | DO_POWER_PAGABLE;
    *Out = K;
    return STATUS_SUCCESS;
}
/* The driver has initialized its own part; attach and open the device. */
static inline NTSTATUS KitAttach(PKIT K)
{
    K->Lower = IoAttachDeviceToDeviceStack(K->Self, K->Pdo);
    if (!K->Lower) {
        RtlFreeUnicodeString(&K->Link);
        IoDeleteDevice(K->Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    K->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
static inline VOID NTAPI KitUnload(PDRIVER_OBJECT Drv)
{
    UNREFERENCED_PARAMETER(Drv);
}
static inline VOID KitEntry(PDRIVER_OBJECT Drv, PDRIVER_ADD_DEVICE Add)
{
    Drv->DriverExtension->AddDevice = Add;
    Drv->DriverUnload = KitUnload;
    Drv->MajorFunction[IRP_MJ_PNP] = KitPnp;
    Drv->MajorFunction[IRP_MJ_POWER] = KitPower;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = KitWmi;
    Drv->MajorFunction[IRP_MJ_CREATE] = KitOpenClose;
    Drv->MajorFunction[IRP_MJ_CLOSE] = KitOpenClose;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = KitOpenClose;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = KitIo;
}
