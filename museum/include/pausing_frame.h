/*
 * pausing_frame.h: PnP and power frame with a hardware gate and a cancel-safe queue,
 * of several drivers. Windows 10 and later.
 *
 * A driver's extension begins with a FRAME. The frame completes whatever
 * Io returns unless it is STATUS_PENDING; pending requests are ended by FrDone
 * (they keep the remove lock until then).
 */
#include <ddk/wdm.h>

#define FR_STOPPED 1u   /* no resources */
#define FR_ASLEEP  2u   /* not in D0 */
#define FR_GONE    4u   /* surprise removed or being removed */
#define FR_PAUSED  8u   /* between query-stop and stop or cancel-stop */
#define FR_TAG 'marF'

typedef struct _FRAME_OPS {
    /* all at PASSIVE_LEVEL except PowerUp and Kick (<= DISPATCH_LEVEL); any may be NULL except Io */
    NTSTATUS (*Start)(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw);
    VOID (*Stop)(PDEVICE_OBJECT Dev);                 /* give resources back; may be called twice */
    VOID (*Abort)(PDEVICE_OBJECT Dev, BOOLEAN Gone);  /* end requests that hold the gate */
    VOID (*Flush)(PDEVICE_OBJECT Dev);                /* device is gone: end all waiting requests */
    VOID (*Free)(PDEVICE_OBJECT Dev);                 /* last call before the device is deleted */
    VOID (*PowerDown)(PDEVICE_OBJECT Dev);
    VOID (*PowerUp)(PDEVICE_OBJECT Dev);
    VOID (*Kick)(PDEVICE_OBJECT Dev);                 /* gate has opened */
    NTSTATUS (*Open)(PDEVICE_OBJECT Dev, PIO_STACK_LOCATION Sp);
    VOID (*Cleanup)(PDEVICE_OBJECT Dev, PFILE_OBJECT File);
    VOID (*Close)(PDEVICE_OBJECT Dev, PFILE_OBJECT File);
    NTSTATUS (*Io)(PDEVICE_OBJECT Dev, PIRP Irp);
    NTSTATUS (*Wmi)(PDEVICE_OBJECT Dev, PIRP Irp);    /* owns the request; lock is held around it */
} FRAME_OPS;

typedef struct _FRAME {
    PDEVICE_OBJECT Self, Pdo, Lower;
    const FRAME_OPS *Ops;
    IO_REMOVE_LOCK Lock;
    UNICODE_STRING Link;
    BOOLEAN Started;
    BOOLEAN Removing;
    KSPIN_LOCK GateLock;
    ULONG Closed;
    ULONG Busy;
    KEVENT Ready;       /* set when open or gone */
    KEVENT Idle;        /* set when Busy is 0 */
    DEVICE_POWER_STATE Power;
    PIRP SysIrp;
} FRAME, *PFRAME;

#define FRAMEOF(dev) ((PFRAME)(dev)->DeviceExtension)

/* ---- the gate ---- */

static inline BOOLEAN FrGrab(PFRAME F, ULONG Unless)
{
    KIRQL irql;
    BOOLEAN ok = FALSE;
    KeAcquireSpinLock(&F->GateLock, &irql);
    if (!(F->Closed & Unless)) {
        if (F->Busy++ == 0)
            KeClearEvent(&F->Idle);
        ok = TRUE;
    }
    KeReleaseSpinLock(&F->GateLock, irql);
    return ok;
}

static inline BOOLEAN FrTryEnter(PFRAME F) { return FrGrab(F, ~0u); }

static inline VOID FrLeave(PFRAME F)
{
    KIRQL irql;
    KeAcquireSpinLock(&F->GateLock, &irql);
    if (--F->Busy == 0)
        KeSetEvent(&F->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&F->GateLock, irql);
}

/* PASSIVE_LEVEL: waits while the device is stopped or asleep */
static inline NTSTATUS FrEnter(PFRAME F)
{
    NTSTATUS status;
    for (;;) {
        if (FrTryEnter(F))
            return STATUS_SUCCESS;
        if (F->Closed & FR_GONE)
            return STATUS_DEVICE_REMOVED;
        status = KeWaitForSingleObject(&F->Ready, Executive, UserMode, FALSE, NULL);
        if (status != STATUS_SUCCESS)
            return STATUS_CANCELLED;
    }
}

static inline VOID FrShut(PFRAME F, ULONG Bits)
{
    KIRQL irql;
    KeAcquireSpinLock(&F->GateLock, &irql);
    F->Closed |= Bits;
    if (F->Closed & FR_GONE)
        KeSetEvent(&F->Ready, IO_NO_INCREMENT, FALSE);
    else
        KeClearEvent(&F->Ready);
    KeReleaseSpinLock(&F->GateLock, irql);
    if (F->Ops->Abort)
        F->Ops->Abort(F->Self, (Bits & FR_GONE) != 0);
    KeWaitForSingleObject(&F->Idle, Executive, KernelMode, FALSE, NULL);
}

static inline VOID FrOpen(PFRAME F, ULONG Bits)
{
    KIRQL irql;
    BOOLEAN open;
    KeAcquireSpinLock(&F->GateLock, &irql);
    F->Closed &= ~Bits;
    open = F->Closed == 0;
    if (open)
        KeSetEvent(&F->Ready, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&F->GateLock, irql);
    if (open && F->Ops->Kick)
        F->Ops->Kick(F->Self);
}

/* ---- requests ---- */

static inline VOID FrDone(PFRAME F, PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    if (!NT_SUCCESS(Status) && Status != STATUS_BUFFER_OVERFLOW)
        Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&F->Lock, Irp);
}

static NTSTATUS FrIo(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFRAME f = FRAMEOF(Dev);
    NTSTATUS status = IoAcquireRemoveLock(&f->Lock, Irp);
    Irp->IoStatus.Information = 0;
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    status = f->Ops->Io(Dev, Irp);
    if (status != STATUS_PENDING)
        FrDone(f, Irp, status);
    return status;
}

static NTSTATUS FrCreate(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFRAME f = FRAMEOF(Dev);
    NTSTATUS status = IoAcquireRemoveLock(&f->Lock, Irp);
    Irp->IoStatus.Information = 0;
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (!f->Started || f->Removing || (f->Closed & FR_GONE))
        status = STATUS_NO_SUCH_DEVICE;
    else if (f->Ops->Open)
        status = f->Ops->Open(Dev, IoGetCurrentIrpStackLocation(Irp));
    FrDone(f, Irp, status);
    return status;
}

static NTSTATUS FrCleanupClose(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFRAME f = FRAMEOF(Dev);
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    if (sp->MajorFunction == IRP_MJ_CLEANUP) {
        if (f->Ops->Cleanup)
            f->Ops->Cleanup(Dev, sp->FileObject);
    } else if (f->Ops->Close)
        f->Ops->Close(Dev, sp->FileObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS FrSystemControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFRAME f = FRAMEOF(Dev);
    NTSTATUS status = IoAcquireRemoveLock(&f->Lock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (f->Ops->Wmi)
        status = f->Ops->Wmi(Dev, Irp);
    else {
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(f->Lower, Irp);
    }
    IoReleaseRemoveLock(&f->Lock, Irp);
    return status;
}

/* ---- plug and play ---- */

static NTSTATUS FrSignal(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Dev);
    if (Irp->PendingReturned)
        KeSetEvent((PKEVENT)Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS FrForwardWait(PFRAME F, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;
    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, FrSignal, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(F->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static inline VOID FrLeaveBus(PFRAME F)
{
    FrShut(F, FR_GONE);
    if (F->Link.Buffer)
        IoSetDeviceInterfaceState(&F->Link, FALSE);
    if (F->Ops->Flush)
        F->Ops->Flush(F->Self);
    if (F->Ops->Stop)
        F->Ops->Stop(F->Self);
}

static NTSTATUS FrPnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFRAME f = FRAMEOF(Dev);
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&f->Lock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = FrForwardWait(f, Irp);
        if (NT_SUCCESS(status) && f->Ops->Start)
            status = f->Ops->Start(Dev, sp->Parameters.StartDevice.AllocatedResourcesTranslated,
                                   sp->Parameters.StartDevice.AllocatedResources);
        if (NT_SUCCESS(status)) {
            f->Power = PowerDeviceD0;
            f->Started = TRUE;
            f->Removing = FALSE;
            FrOpen(f, FR_STOPPED | FR_PAUSED | FR_ASLEEP);
            IoSetDeviceInterfaceState(&f->Link, TRUE);
        }
        Irp->IoStatus.Information = 0;
        goto done;
    case IRP_MN_CANCEL_STOP_DEVICE:
        status = FrForwardWait(f, Irp);
        FrOpen(f, FR_PAUSED);
        goto done;
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        status = FrForwardWait(f, Irp);
        f->Removing = FALSE;
        goto done;
    case IRP_MN_QUERY_STOP_DEVICE:
        FrShut(f, FR_PAUSED);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        FrShut(f, FR_STOPPED);
        if (f->Ops->Stop)
            f->Ops->Stop(Dev);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
        f->Removing = TRUE;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        FrLeaveBus(f);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        FrLeaveBus(f);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(f->Lower, Irp);
        IoReleaseRemoveLockAndWait(&f->Lock, Irp);
        if (f->Ops->Free)
            f->Ops->Free(Dev);
        RtlFreeUnicodeString(&f->Link);
        IoDetachDevice(f->Lower);
        IoDeleteDevice(Dev);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->Lock, Irp);
    return status;
done:
    Irp->IoStatus.Status = status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&f->Lock, Irp);
    return status;
}

/* ---- power ---- */

static VOID FrDevicePowered(PDEVICE_OBJECT Dev, UCHAR Minor, POWER_STATE State, PVOID Ctx, PIO_STATUS_BLOCK Ios)
{
    PFRAME f = Ctx;
    PIRP irp = f->SysIrp;
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    f->SysIrp = NULL;
    irp->IoStatus.Status = Ios->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&f->Lock, irp);
}

static NTSTATUS FrSystemPowered(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Ctx)
{
    PFRAME f = Ctx;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state;
    NTSTATUS status = Irp->IoStatus.Status;
    UNREFERENCED_PARAMETER(Dev);
    if (NT_SUCCESS(status)) {
        state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        f->SysIrp = Irp;
        status = PoRequestPowerIrp(f->Pdo, IRP_MN_SET_POWER, state, FrDevicePowered, f, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        f->SysIrp = NULL;
        Irp->IoStatus.Status = status;
    }
    IoReleaseRemoveLock(&f->Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS FrPoweredUp(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Ctx)
{
    PFRAME f = Ctx;
    POWER_STATE state;
    UNREFERENCED_PARAMETER(Dev);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        if (FrGrab(f, FR_STOPPED | FR_GONE)) {
            if (f->Ops->PowerUp)
                f->Ops->PowerUp(f->Self);
            FrLeave(f);
        }
        state.DeviceState = f->Power = PowerDeviceD0;
        PoSetPowerState(f->Self, DevicePowerState, state);
        FrOpen(f, FR_ASLEEP);
    }
    IoReleaseRemoveLock(&f->Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS FrPower(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFRAME f = FRAMEOF(Dev);
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&f->Lock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, FrSystemPowered, f, TRUE, TRUE, TRUE);
        IoCallDriver(f->Lower, Irp);
        return STATUS_PENDING;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == DevicePowerState) {
        POWER_STATE state = sp->Parameters.Power.State;
        if (state.DeviceState == PowerDeviceD0 && f->Power != PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, FrPoweredUp, f, TRUE, TRUE, TRUE);
            IoCallDriver(f->Lower, Irp);
            return STATUS_PENDING;
        }
        if (state.DeviceState > PowerDeviceD0 && f->Power == PowerDeviceD0) {
            FrShut(f, FR_ASLEEP);
            if (FrGrab(f, FR_STOPPED | FR_GONE)) {
                if (f->Ops->PowerDown)
                    f->Ops->PowerDown(Dev);
                FrLeave(f);
            }
            PoSetPowerState(Dev, DevicePowerState, state);
            f->Power = state.DeviceState;
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->Lock, Irp);
    return status;
}

/* ---- set-up ---- */

static NTSTATUS FrAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG ExtSize, const FRAME_OPS *Ops,
                      const GUID *Interface, ULONG Flags, PDEVICE_OBJECT *Out)
{
    PDEVICE_OBJECT dev;
    PFRAME f;
    NTSTATUS status = IoCreateDevice(Driver, ExtSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    f = FRAMEOF(dev);
    RtlZeroMemory(f, ExtSize);
    f->Self = dev;
    f->Pdo = Pdo;
    f->Ops = Ops;
    f->Closed = FR_STOPPED;
    f->Power = PowerDeviceD0;
    IoInitializeRemoveLock(&f->Lock, FR_TAG, 0, 0);
    KeInitializeSpinLock(&f->GateLock);
    KeInitializeEvent(&f->Ready, NotificationEvent, FALSE);
    KeInitializeEvent(&f->Idle, NotificationEvent, TRUE);
    status = IoRegisterDeviceInterface(Pdo, Interface, NULL, &f->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    f->Lower = IoAttachDeviceToDeviceStack(dev, Pdo);
    if (!f->Lower) {
        RtlFreeUnicodeString(&f->Link);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= Flags | DO_POWER_PAGABLE;
    *Out = dev;             /* the caller clears DO_DEVICE_INITIALIZING */
    return STATUS_SUCCESS;
}

/* undoes FrAdd when the rest of AddDevice fails */
static inline VOID FrUnadd(PDEVICE_OBJECT Dev)
{
    PFRAME f = FRAMEOF(Dev);
    RtlFreeUnicodeString(&f->Link);
    IoDetachDevice(f->Lower);
    IoDeleteDevice(Dev);
}

static VOID FrUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

static VOID FrInit(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE Add)
{
    Driver->DriverExtension->AddDevice = Add;
    Driver->DriverUnload = FrUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = FrCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrCleanupClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrCleanupClose;
    Driver->MajorFunction[IRP_MJ_READ] = FrIo;
    Driver->MajorFunction[IRP_MJ_WRITE] = FrIo;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FrIo;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FrSystemControl;
    Driver->MajorFunction[IRP_MJ_PNP] = FrPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = FrPower;
}

/* ---- resources ---- */

/* the n-th (from 0) descriptor of a type, or NULL */
static inline PCM_PARTIAL_RESOURCE_DESCRIPTOR FrResource(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Nth)
{
    PCM_PARTIAL_RESOURCE_LIST p;
    ULONG i;
    if (!List || List->Count < 1)
        return NULL;
    p = &List->List[0].PartialResourceList;
    for (i = 0; i < p->Count; i++)
        if (p->PartialDescriptors[i].Type == Type && Nth-- == 0)
            return &p->PartialDescriptors[i];
    return NULL;
}

static inline NTSTATUS FrConnect(PKINTERRUPT *Out, PKSERVICE_ROUTINE Isr, PVOID Ctx, PCM_PARTIAL_RESOURCE_DESCRIPTOR D)
{
    return IoConnectInterrupt(Out, Isr, Ctx, NULL, D->u.Interrupt.Vector,
                              (KIRQL)D->u.Interrupt.Level, (KIRQL)D->u.Interrupt.Level,
                              (D->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              D->ShareDisposition == CmResourceShareShared,
                              D->u.Interrupt.Affinity, FALSE);
}

/* ---- cancel-safe queue ---- */

typedef struct _FRQ {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY Head;
    ULONG Count;
    BOOLEAN Shut;
    PFRAME Frame;
} FRQ, *PFRQ;

static NTSTATUS FrqInsertEx(PIO_CSQ Csq, PIRP Irp, PVOID Ctx)
{
    PFRQ q = CONTAINING_RECORD(Csq, FRQ, Csq);
    UNREFERENCED_PARAMETER(Ctx);
    if (q->Shut)
        return STATUS_DEVICE_REMOVED;
    InsertTailList(&q->Head, &Irp->Tail.Overlay.ListEntry);
    q->Count++;
    return STATUS_SUCCESS;
}
static VOID FrqRemoveIrp(PIO_CSQ Csq, PIRP Irp)
{
    CONTAINING_RECORD(Csq, FRQ, Csq)->Count--;
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}
static PIRP FrqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Ctx)
{
    PFRQ q = CONTAINING_RECORD(Csq, FRQ, Csq);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : q->Head.Flink;
    for (; e != &q->Head; e = e->Flink) {
        PIRP i = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!Ctx || IoGetCurrentIrpStackLocation(i)->FileObject == (PFILE_OBJECT)Ctx)
            return i;
    }
    return NULL;
}
static VOID FrqAcquire(PIO_CSQ Csq, PKIRQL Irql) { KeAcquireSpinLock(&CONTAINING_RECORD(Csq, FRQ, Csq)->Lock, Irql); }
static VOID FrqRelease(PIO_CSQ Csq, KIRQL Irql) { KeReleaseSpinLock(&CONTAINING_RECORD(Csq, FRQ, Csq)->Lock, Irql); }
static VOID FrqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    Irp->IoStatus.Information = 0;
    FrDone(CONTAINING_RECORD(Csq, FRQ, Csq)->Frame, Irp, STATUS_CANCELLED);
}

static inline NTSTATUS FrqInit(PFRQ Q, PFRAME F)
{
    KeInitializeSpinLock(&Q->Lock);
    InitializeListHead(&Q->Head);
    Q->Frame = F;
    Q->Shut = FALSE;
    Q->Count = 0;
    return IoCsqInitializeEx(&Q->Csq, FrqInsertEx, FrqRemoveIrp, FrqPeek, FrqAcquire, FrqRelease, FrqCancelled);
}
/* STATUS_PENDING: queued (the request may be gone already); otherwise the caller still owns it */
static inline NTSTATUS FrqPut(PFRQ Q, PIRP Irp)
{
    NTSTATUS status = IoCsqInsertIrpEx(&Q->Csq, Irp, NULL, NULL);
    return NT_SUCCESS(status) ? STATUS_PENDING : status;
}
static inline PIRP FrqTake(PFRQ Q, PFILE_OBJECT File) { return IoCsqRemoveNextIrp(&Q->Csq, File); }
static inline VOID FrqCancelFile(PFRQ Q, PFILE_OBJECT File)
{
    PIRP irp;
    while ((irp = FrqTake(Q, File)) != NULL)
        FrDone(Q->Frame, irp, STATUS_CANCELLED);
}
static inline VOID FrqShut(PFRQ Q)
{
    KIRQL irql;
    PIRP irp;
    KeAcquireSpinLock(&Q->Lock, &irql);
    Q->Shut = TRUE;
    KeReleaseSpinLock(&Q->Lock, irql);
    while ((irp = FrqTake(Q, NULL)) != NULL)
        FrDone(Q->Frame, irp, STATUS_DEVICE_REMOVED);
}
