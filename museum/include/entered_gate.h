/*
 * What one author's drivers share.
 *
 *  always        FrComplete, the cancel-safe queue (FR_QUEUE)
 *  FR_GUARDED    FrGuard: calls a routine under an exception handler (for METHOD_NEITHER)
 *  FR_LEGACY     control device with a symbolic link
 *  FR_PNP        a function driver's PnP and power, with a remove lock and a gate:
 *                what touches the device is between FrEnter and FrLeave; the gate is closed, and
 *                those inside are waited for, before the device is stopped, goes to sleep or goes
 */
#ifndef FRAME_H
#define FRAME_H

#define FR_UNUSED(x) ((void)(x))
#define FR_UNUSED_OF_DPC() ((void)Dpc, (void)Argument1, (void)Argument2)

#ifndef MdlMappingNoExecute
#define MdlMappingNoExecute 0x40000000
#endif
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#ifdef FR_PNP
typedef struct _FR_DEV FR_DEV, *PFR_DEV;
static inline NTSTATUS FrDone(PFR_DEV d, PIRP Irp, NTSTATUS Status, ULONG_PTR Information);
#endif

static inline NTSTATUS FrComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---- a cancel-safe queue ------------------------------------------------------------------ */

typedef struct _FR_QUEUE {
    IO_CSQ Csq;
    LIST_ENTRY List;
    KSPIN_LOCK Lock;
    PVOID Dev; /* the FR_DEV whose remove lock each IRP holds; NULL: none */
} FR_QUEUE, *PFR_QUEUE;

typedef BOOLEAN (*FR_MATCH)(PIRP Irp, PVOID Context);

typedef struct _FR_PEEK {
    FR_MATCH Match;
    PVOID Context;
} FR_PEEK;

static inline PFR_QUEUE FrQueueOf(PIO_CSQ Csq)
{
    return CONTAINING_RECORD(Csq, FR_QUEUE, Csq);
}

static inline VOID NTAPI FrCsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&FrQueueOf(Csq)->List, &Irp->Tail.Overlay.ListEntry);
}

static inline VOID NTAPI FrCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    FR_UNUSED(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static inline PIRP NTAPI FrCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID PeekContext)
{
    PFR_QUEUE q = FrQueueOf(Csq);
    FR_PEEK *peek = PeekContext;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!peek || peek->Match(next, peek->Context))
            return next;
    }
    return NULL;
}

static inline VOID NTAPI FrCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&FrQueueOf(Csq)->Lock, Irql);
}

static inline VOID NTAPI FrCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&FrQueueOf(Csq)->Lock, Irql);
}

static inline VOID NTAPI FrCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
#ifdef FR_PNP
    if (FrQueueOf(Csq)->Dev) {
        FrDone(FrQueueOf(Csq)->Dev, Irp, STATUS_CANCELLED, 0);
        return;
    }
#else
    FR_UNUSED(Csq);
#endif
    FrComplete(Irp, STATUS_CANCELLED, 0);
}

static inline VOID FrQueueInit(PFR_QUEUE q, PVOID Dev)
{
    InitializeListHead(&q->List);
    KeInitializeSpinLock(&q->Lock);
    q->Dev = Dev;
    IoCsqInitialize(&q->Csq, FrCsqInsert, FrCsqRemove, FrCsqPeek, FrCsqAcquire, FrCsqRelease, FrCsqCancelled);
}

/* Marks the IRP pending; it may be completed before this returns, and no lock may be held. */
static inline NTSTATUS FrQueuePut(PFR_QUEUE q, PIRP Irp)
{
    IoCsqInsertIrp(&q->Csq, Irp, NULL);
    return STATUS_PENDING;
}

static inline PIRP FrQueueGet(PFR_QUEUE q)
{
    return IoCsqRemoveNextIrp(&q->Csq, NULL);
}

static inline PIRP FrQueueGetIf(PFR_QUEUE q, FR_MATCH Match, PVOID Context)
{
    FR_PEEK peek = { Match, Context };
    return IoCsqRemoveNextIrp(&q->Csq, &peek);
}

static inline BOOLEAN FrOfFile(PIRP Irp, PVOID Context)
{
    return IoGetCurrentIrpStackLocation(Irp)->FileObject == Context;
}

/* File == NULL: all */
static inline VOID FrQueueFlush(PFR_QUEUE q, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;
    while ((irp = File ? FrQueueGetIf(q, FrOfFile, File) : FrQueueGet(q)) != NULL) {
#ifdef FR_PNP
        if (q->Dev) {
            FrDone(q->Dev, irp, Status, 0);
            continue;
        }
#endif
        FrComplete(irp, Status, 0);
    }
}

/* ---- a call under an exception handler ---------------------------------------------------- */

#ifdef FR_GUARDED
/* Returns what Routine returned, or the code of the exception that it raised. */
NTSTATUS FrGuard(NTSTATUS (*Routine)(PVOID), PVOID Context);
__asm__(
    "\t.text\n"
    "\t.p2align 4\n"
    "\t.globl FrGuard\n"
    "\t.def FrGuard; .scl 2; .type 32; .endef\n"
    "\t.seh_proc FrGuard\n"
    "FrGuard:\n"
    "\tsubq $40, %rsp\n"
    "\t.seh_stackalloc 40\n"
    "\t.seh_endprologue\n"
    "\tmovq %rcx, %rax\n"
    "\tmovq %rdx, %rcx\n"
    ".Lguard_begin:\n"
    "\tcall *%rax\n"
    "\tnop\n"
    ".Lguard_end:\n"
    "\tnop\n"
    ".Lguard_target:\n"
    "\taddq $40, %rsp\n"
    "\tret\n"
    "\t.seh_handler __C_specific_handler, @except\n"
    "\t.seh_handlerdata\n"
    "\t.long 1\n"
    "\t.rva .Lguard_begin, .Lguard_end\n"
    "\t.long 1\n" /* EXCEPTION_EXECUTE_HANDLER */
    "\t.rva .Lguard_target\n"
    "\t.text\n"
    "\t.seh_endproc\n");
#endif

/* ---- legacy ------------------------------------------------------------------------------- */

#ifdef FR_LEGACY
static inline NTSTATUS FrLegacyCreate(PDRIVER_OBJECT Driver, PCWSTR Name, PCWSTR Link, ULONG ExtensionSize, ULONG Flags,
                                      PDEVICE_OBJECT *Device)
{
    UNICODE_STRING name, link;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Name);
    RtlInitUnicodeString(&link, Link);
    status = IoCreateDevice(Driver, ExtensionSize, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (!NT_SUCCESS(status))
        return status;
    (*Device)->Flags |= Flags;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(*Device);
        *Device = NULL;
    }
    return status;
}

static inline VOID FrLegacyDelete(PDEVICE_OBJECT Device, PCWSTR Link)
{
    UNICODE_STRING link;
    RtlInitUnicodeString(&link, Link);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Device);
}
#endif

/* ---- PnP ---------------------------------------------------------------------------------- */

#ifdef FR_PNP

#define FR_GATE_INIT  0x01 /* not started, or stopped */
#define FR_GATE_QUERY 0x02 /* asked whether it may be stopped or removed */
#define FR_GATE_POWER 0x04 /* not in D0 */
#define FR_GATE_GONE  0x08 /* removed, or surprised */
#define FR_GATE_LOST  0x10 /* surprised: no hardware any more */

typedef struct _FR_OPS {
    ULONG ExtensionSize;
    const GUID *Interface;
    ULONG Io;                                                  /* DO_BUFFERED_IO, DO_DIRECT_IO */
    NTSTATUS (*Init)(PFR_DEV d);                               /* once, in AddDevice */
    NTSTATUS (*Start)(PFR_DEV d, PCM_RESOURCE_LIST Resources); /* translated; may be NULL */
    VOID (*Stop)(PFR_DEV d);                                   /* gives back what Start took; also behind a Start that failed, and again */
    VOID (*Flush)(PFR_DEV d, NTSTATUS Status);                 /* ends all requests that wait */
    VOID (*PowerDown)(PFR_DEV d);                              /* PASSIVE_LEVEL, the gate closed */
    VOID (*PowerUp)(PFR_DEV d);                                /* <= DISPATCH_LEVEL, in D0, the gate closed */
    VOID (*Destroy)(PFR_DEV d);                                /* counterpart of Init */
    VOID (*Opened)(PFR_DEV d);                                 /* <= DISPATCH_LEVEL, the gate is open (again); may be NULL */
} FR_OPS;

struct _FR_DEV {
    PDEVICE_OBJECT Self, Pdo, Lower;
    const FR_OPS *Ops;
    IO_REMOVE_LOCK Remove;
    UNICODE_STRING Link;
    BOOLEAN LinkOn;
    KSPIN_LOCK GateLock;
    ULONG GateClosed;
    ULONG GateUsers;
    KEVENT GateIdle;
};

static const FR_OPS *FrOps;

static inline VOID FrNothing(PFR_DEV d) /* for FR_OPS */
{
    FR_UNUSED(d);
}

/* Each IRP acquires the remove lock once (FrBegin), and FrDone or FrPass gives it back. */
static inline NTSTATUS FrBegin(PFR_DEV d, PIRP Irp)
{
    NTSTATUS status = IoAcquireRemoveLock(&d->Remove, Irp);
    if (!NT_SUCCESS(status))
        FrComplete(Irp, status, 0);
    return status;
}

/* As FrBegin; and the device stays until FrEnd, also when the IRP is completed before. */
static inline NTSTATUS FrBeginHeld(PFR_DEV d, PIRP Irp)
{
    NTSTATUS status = IoAcquireRemoveLock(&d->Remove, &FrOps);
    if (!NT_SUCCESS(status)) {
        FrComplete(Irp, status, 0);
        return status;
    }
    status = FrBegin(d, Irp);
    if (!NT_SUCCESS(status))
        IoReleaseRemoveLock(&d->Remove, &FrOps);
    return status;
}

static inline VOID FrEnd(PFR_DEV d)
{
    IoReleaseRemoveLock(&d->Remove, &FrOps);
}

static inline NTSTATUS FrDone(PFR_DEV d, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    FrComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&d->Remove, Irp);
    return Status;
}

static inline NTSTATUS FrPass(PFR_DEV d, PIRP Irp)
{
    NTSTATUS status;
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(d->Lower, Irp);
    IoReleaseRemoveLock(&d->Remove, Irp);
    return status;
}

static inline ULONG FrGateBits(PFR_DEV d)
{
    KIRQL irql;
    ULONG bits;
    KeAcquireSpinLock(&d->GateLock, &irql);
    bits = d->GateClosed;
    KeReleaseSpinLock(&d->GateLock, irql);
    return bits;
}

/* Whether registers may be accessed outside of the gate (in Stop) */
static inline BOOLEAN FrPowered(PFR_DEV d)
{
    return (FrGateBits(d) & (FR_GATE_POWER | FR_GATE_LOST)) == 0;
}

/* Only with the remove lock (FrBeginHeld, unless the IRP is completed behind FrLeave) */
static inline NTSTATUS FrEnter(PFR_DEV d)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;
    KeAcquireSpinLock(&d->GateLock, &irql);
    if (d->GateClosed == 0) {
        if (d->GateUsers++ == 0)
            KeClearEvent(&d->GateIdle);
    } else
        status = d->GateClosed & FR_GATE_GONE ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY;
    KeReleaseSpinLock(&d->GateLock, irql);
    return status;
}

static inline VOID FrLeave(PFR_DEV d)
{
    KIRQL irql;
    KeAcquireSpinLock(&d->GateLock, &irql);
    if (--d->GateUsers == 0)
        KeSetEvent(&d->GateIdle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&d->GateLock, irql);
}

static inline ULONG FrGateClose(PFR_DEV d, ULONG Bits)
{
    KIRQL irql;
    ULONG old;
    KeAcquireSpinLock(&d->GateLock, &irql);
    old = d->GateClosed;
    d->GateClosed |= Bits;
    KeReleaseSpinLock(&d->GateLock, irql);
    KeWaitForSingleObject(&d->GateIdle, Executive, KernelMode, FALSE, NULL);
    return old;
}

static inline VOID FrGateOpen(PFR_DEV d, ULONG Bits)
{
    KIRQL irql;
    BOOLEAN open;
    KeAcquireSpinLock(&d->GateLock, &irql);
    d->GateClosed &= ~Bits;
    open = d->GateClosed == 0;
    KeReleaseSpinLock(&d->GateLock, irql);
    if (open && d->Ops->Opened)
        d->Ops->Opened(d);
}

static inline PCM_PARTIAL_RESOURCE_DESCRIPTOR FrResource(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Index)
{
    ULONG i;
    if (!List || List->Count == 0)
        return NULL;
    for (i = 0; i < List->List[0].PartialResourceList.Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR first = List->List[0].PartialResourceList.PartialDescriptors, p = first + i;
        if (p->Type == Type && Index-- == 0)
            return p;
    }
    return NULL;
}

/* ---- an interrupt that can be turned away while the card sleeps ---- */

typedef struct _FR_IRQ {
    PKINTERRUPT Object;
    BOOLEAN (*Service)(PVOID Context);
    PVOID Context;
    BOOLEAN On; /* under the interrupt's lock */
} FR_IRQ, *PFR_IRQ;

static inline BOOLEAN NTAPI FrIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PFR_IRQ q = Context;
    FR_UNUSED(Interrupt);
    return q->On ? q->Service(q->Context) : FALSE;
}

static inline BOOLEAN NTAPI FrIrqOn(PVOID Context)
{
    ((PFR_IRQ)Context)->On = TRUE;
    return TRUE;
}

static inline BOOLEAN NTAPI FrIrqOff(PVOID Context)
{
    ((PFR_IRQ)Context)->On = FALSE;
    return TRUE;
}

static inline VOID FrIrqEnable(PFR_IRQ q, BOOLEAN On)
{
    if (q->Object)
        KeSynchronizeExecution(q->Object, On ? FrIrqOn : FrIrqOff, q);
}

static inline NTSTATUS FrIrqConnect(PFR_IRQ q, PCM_RESOURCE_LIST Resources, BOOLEAN (*Service)(PVOID), PVOID Context)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR p = FrResource(Resources, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    if (!p)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    q->Service = Service;
    q->Context = Context;
    q->On = FALSE;
    status = IoConnectInterrupt(&q->Object, FrIsr, q, NULL, p->u.Interrupt.Vector, (KIRQL)p->u.Interrupt.Level,
                                (KIRQL)p->u.Interrupt.Level,
                                p->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive, TRUE,
                                p->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        q->Object = NULL;
        return status;
    }
    FrIrqEnable(q, TRUE);
    return status;
}

static inline VOID FrIrqDisconnect(PFR_IRQ q)
{
    if (q->Object) {
        FrIrqEnable(q, FALSE);
        IoDisconnectInterrupt(q->Object);
        q->Object = NULL;
    }
}

/* ---- dispatch routines ---- */

static NTSTATUS NTAPI FrSyncDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    FR_UNUSED(Device);
    if (Irp->PendingReturned)
        KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS FrForwardWait(PFR_DEV d, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, FrSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(d->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static inline VOID FrLinkSet(PFR_DEV d, BOOLEAN On)
{
    if (d->LinkOn != On && NT_SUCCESS(IoSetDeviceInterfaceState(&d->Link, On)))
        d->LinkOn = On;
}

static NTSTATUS NTAPI FrPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFR_DEV d = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = FrBegin(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    switch (s->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = FrForwardWait(d, Irp);
        if (NT_SUCCESS(status)) {
            status = d->Ops->Start(d, s->Parameters.StartDevice.AllocatedResourcesTranslated);
            if (NT_SUCCESS(status)) {
                FrGateOpen(d, FR_GATE_INIT | FR_GATE_QUERY | FR_GATE_POWER);
                FrLinkSet(d, TRUE);
            } else
                d->Ops->Stop(d);
        }
        return FrDone(d, Irp, status, 0);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        FrGateClose(d, FR_GATE_QUERY);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return FrPass(d, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        FrForwardWait(d, Irp);
        FrGateOpen(d, FR_GATE_QUERY);
        return FrDone(d, Irp, STATUS_SUCCESS, 0);
    case IRP_MN_STOP_DEVICE:
        FrGateClose(d, FR_GATE_INIT);
        d->Ops->Stop(d);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return FrPass(d, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        FrGateClose(d, FR_GATE_GONE | FR_GATE_LOST);
        FrLinkSet(d, FALSE);
        d->Ops->Stop(d);
        d->Ops->Flush(d, STATUS_DEVICE_NOT_CONNECTED);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return FrPass(d, Irp);
    case IRP_MN_REMOVE_DEVICE:
        FrGateClose(d, FR_GATE_GONE);
        FrLinkSet(d, FALSE);
        d->Ops->Stop(d);
        d->Ops->Flush(d, STATUS_DELETE_PENDING);
        IoReleaseRemoveLockAndWait(&d->Remove, Irp);
        d->Ops->Destroy(d);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(d->Lower, Irp);
        IoDetachDevice(d->Lower);
        RtlFreeUnicodeString(&d->Link);
        IoDeleteDevice(Device);
        return status;
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (s->Parameters.UsageNotification.InPath)
            return FrDone(d, Irp, STATUS_UNSUCCESSFUL, 0);
        return FrPass(d, Irp);
    default:
        return FrPass(d, Irp);
    }
}

static VOID NTAPI FrSystemPowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PIRP irp = Context;
    PFR_DEV d = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;
    FR_UNUSED(Device);
    FR_UNUSED(Minor);
    FR_UNUSED(State);
    FR_UNUSED(Block);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&d->Remove, irp);
}

static NTSTATUS NTAPI FrSystemPower(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PFR_DEV d = Context;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state;

    FR_UNUSED(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        state.DeviceState = s->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        if (PoRequestPowerIrp(d->Pdo, IRP_MN_SET_POWER, state, FrSystemPowerDone, Irp, NULL) == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&d->Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FrDevicePower(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PFR_DEV d = Context;
    POWER_STATE state;

    FR_UNUSED(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        ULONG bits = FrGateBits(d);
        if ((bits & FR_GATE_POWER) && !(bits & (FR_GATE_INIT | FR_GATE_GONE)))
            d->Ops->PowerUp(d);
        state.DeviceState = PowerDeviceD0;
        PoSetPowerState(d->Self, DevicePowerState, state);
        FrGateOpen(d, FR_GATE_POWER);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&d->Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FrPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFR_DEV d = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&d->Remove, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return FrComplete(Irp, status, 0);
    }
    if (s->MinorFunction == IRP_MN_SET_POWER) {
        BOOLEAN system = s->Parameters.Power.Type == SystemPowerState;
        if (system || s->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, system ? FrSystemPower : FrDevicePower, d, TRUE, TRUE, TRUE);
            PoCallDriver(d->Lower, Irp);
            return STATUS_PENDING;
        }
        if (!(FrGateClose(d, FR_GATE_POWER) & (FR_GATE_INIT | FR_GATE_POWER | FR_GATE_GONE)))
            d->Ops->PowerDown(d);
        PoSetPowerState(d->Self, DevicePowerState, s->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(d->Lower, Irp);
    IoReleaseRemoveLock(&d->Remove, Irp);
    return status;
}

static NTSTATUS NTAPI FrSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFR_DEV d = Device->DeviceExtension;
    NTSTATUS status = FrBegin(d, Irp);
    return NT_SUCCESS(status) ? FrPass(d, Irp) : status;
}

/* For IRP_MJ_CREATE, IRP_MJ_CLOSE and IRP_MJ_CLEANUP where there is nothing to do */
static inline NTSTATUS NTAPI FrSucceed(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFR_DEV d = Device->DeviceExtension;
    NTSTATUS status = FrBegin(d, Irp);
    return NT_SUCCESS(status) ? FrDone(d, Irp, STATUS_SUCCESS, 0) : status;
}

static NTSTATUS NTAPI FrAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PFR_DEV d;
    NTSTATUS status = IoCreateDevice(Driver, FrOps->ExtensionSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);

    if (!NT_SUCCESS(status))
        return status;
    d = device->DeviceExtension;
    d->Self = device;
    d->Pdo = Pdo;
    d->Ops = FrOps;
    d->GateClosed = FR_GATE_INIT;
    KeInitializeSpinLock(&d->GateLock);
    KeInitializeEvent(&d->GateIdle, NotificationEvent, TRUE);
    IoInitializeRemoveLock(&d->Remove, 'rFkK', 0, 0);
    status = IoRegisterDeviceInterface(Pdo, FrOps->Interface, NULL, &d->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    status = FrOps->Init(d);
    if (!NT_SUCCESS(status)) {
        RtlFreeUnicodeString(&d->Link);
        IoDeleteDevice(device);
        return status;
    }
    d->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!d->Lower) {
        FrOps->Destroy(d);
        RtlFreeUnicodeString(&d->Link);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= FrOps->Io | DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI FrUnload(PDRIVER_OBJECT Driver)
{
    FR_UNUSED(Driver);
}

static inline NTSTATUS FrInit(PDRIVER_OBJECT Driver, const FR_OPS *Ops)
{
    FrOps = Ops;
    Driver->DriverUnload = FrUnload;
    Driver->DriverExtension->AddDevice = FrAddDevice;
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_PNP] = FrPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = FrPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FrSystemControl;
    return STATUS_SUCCESS;
}
#endif

#endif
