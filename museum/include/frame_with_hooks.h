/*
 * what these drivers share: completion, guarded access to an application's memory, a cancel-safe queue,
 * creation of a legacy control device, and for PnP drivers the frame of PnP and power (one function device object per
 * device, remove lock, a gate that closes while the device is stopped, asleep or gone).
 */
#ifndef FRAME_H
#define FRAME_H

#ifndef NonPagedPoolNx
#define NonPagedPoolNx ((POOL_TYPE)512)
#endif

typedef char FrameAssert1[sizeof(CM_PARTIAL_RESOURCE_DESCRIPTOR) == 20 ? 1 : -1];

#define NOT_USED(x) ((void)(x))

static inline NTSTATUS Done(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Registers */

static inline ULONG RegRead(PUCHAR Base, ULONG Offset)
{
    return *(volatile ULONG *)(Base + Offset);
}

static inline void RegWrite(PUCHAR Base, ULONG Offset, ULONG Value)
{
    *(volatile ULONG *)(Base + Offset) = Value;
}

/* A call within __try and __except (EXCEPTION_EXECUTE_HANDLER): the function's result, or the exception's code */

#ifdef FRAME_GUARD
typedef NTSTATUS GUARDED(PVOID A, PVOID B, SIZE_T N);
NTSTATUS GuardedCall(GUARDED *Routine, PVOID A, PVOID B, SIZE_T N);
__asm__(
    "\t.text\n"
    "\t.p2align 4\n"
    "\t.def GuardedCall; .scl 2; .type 32; .endef\n"
    "\t.globl GuardedCall\n"
    "\t.seh_proc GuardedCall\n"
    "GuardedCall:\n"
    "\tsubq $40, %rsp\n"
    "\t.seh_stackalloc 40\n"
    "\t.seh_endprologue\n"
    "\t.seh_handler __C_specific_handler, @except\n"
    "\t.seh_handlerdata\n"
    "\t.long 1\n"
    "\t.rva .Lguard_start, .Lguard_end\n"
    "\t.long 1\n"
    "\t.rva .Lguard_handler\n"
    "\t.text\n"
    "\tmovq %rcx, %rax\n"
    "\tmovq %rdx, %rcx\n"
    "\tmovq %r8, %rdx\n"
    "\tmovq %r9, %r8\n"
    ".Lguard_start:\n"
    "\tcall *%rax\n"
    "\tnop\n"
    ".Lguard_end:\n"
    "\tnop\n"
    ".Lguard_handler:\n"
    "\taddq $40, %rsp\n"
    "\tret\n"
    "\t.seh_endproc\n");

static NTSTATUS GuardedIn(PVOID To, PVOID From, SIZE_T Bytes)
{
    ProbeForRead(From, Bytes, 1);
    RtlCopyMemory(To, From, Bytes);
    return STATUS_SUCCESS;
}

static NTSTATUS GuardedOut(PVOID To, PVOID From, SIZE_T Bytes)
{
    ProbeForWrite(To, Bytes, 1);
    RtlCopyMemory(To, From, Bytes);
    return STATUS_SUCCESS;
}

/* both in the application's context, at PASSIVE_LEVEL */
static inline NTSTATUS CopyFromUser(PVOID To, PVOID From, SIZE_T Bytes)
{
    return GuardedCall(GuardedIn, To, From, Bytes);
}

static inline NTSTATUS CopyToUser(PVOID To, PVOID From, SIZE_T Bytes)
{
    return GuardedCall(GuardedOut, To, From, Bytes);
}
#endif

/* A cancel-safe queue */

typedef struct RQ {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    BOOLEAN Shut;                       /* takes no more, and answers this: */
    NTSTATUS ShutStatus;
} RQ;

static inline NTSTATUS NTAPI RqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    RQ *q = CONTAINING_RECORD(Csq, RQ, Csq);

    NOT_USED(Context);
    if (q->Shut)
        return q->ShutStatus;
    InsertTailList(&q->List, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static inline VOID NTAPI RqRemove(PIO_CSQ Csq, PIRP Irp)
{
    NOT_USED(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static inline PIRP NTAPI RqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    RQ *q = CONTAINING_RECORD(Csq, RQ, Csq);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!File || IoGetCurrentIrpStackLocation(next)->FileObject == (PFILE_OBJECT)File)
            return next;
    }
    return NULL;
}

static inline VOID NTAPI RqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, RQ, Csq)->Lock, Irql);
}

static inline VOID NTAPI RqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, RQ, Csq)->Lock, Irql);
}

static inline VOID NTAPI RqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    NOT_USED(Csq);
    Done(Irp, STATUS_CANCELLED, 0);
}

static inline void RqInit(RQ *q)
{
    KeInitializeSpinLock(&q->Lock);
    InitializeListHead(&q->List);
    q->Shut = FALSE;
    q->ShutStatus = STATUS_SUCCESS;
    IoCsqInitializeEx(&q->Csq, RqInsert, RqRemove, RqPeek, RqAcquire, RqRelease, RqCancelled);
}

/* the request waits in the queue, or has been completed; the caller returns what this returns */
static inline NTSTATUS RqPut(RQ *q, PIRP Irp)
{
    NTSTATUS status;

    IoMarkIrpPending(Irp);
    status = IoCsqInsertIrpEx(&q->Csq, Irp, NULL, NULL);
    if (!NT_SUCCESS(status))
        Done(Irp, status, 0);
    return STATUS_PENDING;
}

/* the next request (of one handle), which no one can cancel any more, or NULL */
static inline PIRP RqTake(RQ *q, PFILE_OBJECT File)
{
    return IoCsqRemoveNextIrp(&q->Csq, File);
}

static inline void RqFlush(RQ *q, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = RqTake(q, File)) != NULL)
        Done(irp, Status, 0);
}

static inline void RqShut(RQ *q, NTSTATUS Status)
{
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    q->Shut = TRUE;
    q->ShutStatus = Status;
    KeReleaseSpinLock(&q->Lock, irql);
    RqFlush(q, NULL, Status);
}

/* Legacy control devices */

#ifdef FRAME_LEGACY
static NTSTATUS LegacyMake(PDRIVER_OBJECT Driver, PCWSTR Device, PCWSTR Link, ULONG Extension, PDEVICE_OBJECT *Made)
{
    UNICODE_STRING name, link;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Device);
    RtlInitUnicodeString(&link, Link);
    status = IoCreateDevice(Driver, Extension, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Made);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(*Made);
        *Made = NULL;
    }
    return status;
}

static void LegacyUnmake(PDEVICE_OBJECT Device, PCWSTR Link)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, Link);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Device);
}
#endif

/* PnP */

#ifdef FRAME_PNP
typedef struct FRAME FRAME;

typedef struct FRAME_OPS {
    NTSTATUS (*Init)(FRAME *F);                         /* AddDevice; what it made is Free's to take back */
    NTSTATUS (*Start)(FRAME *F, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated);
    void (*Stop)(FRAME *F);                             /* the gate is closed: gives hardware back */
    void (*Sleep)(FRAME *F);                            /* the gate is closed: the card is about to leave D0 */
    void (*Wake)(FRAME *F);                             /* the card is in D0 again; <= DISPATCH_LEVEL */
    void (*Awake)(FRAME *F);                            /* and the gate is open */
    void (*Gone)(FRAME *F);                             /* for good: ends what waits */
    void (*Free)(FRAME *F);                             /* the last call, before the device object is deleted */
} FRAME_OPS;

struct FRAME {                                          /* the device extension begins with it */
    PDEVICE_OBJECT Self, Pdo, Lower;
    const FRAME_OPS *Ops;
    UNICODE_STRING Link;
    BOOLEAN LinkOn;
    IO_REMOVE_LOCK RemoveLock;
    KSPIN_LOCK GateLock;                                /* guards what follows */
    LONG GateUsers;
    BOOLEAN Running, Surprised;
    DEVICE_POWER_STATE Power;
    KEVENT GateEmpty;
};

/* STATUS_SUCCESS: the device is started, awake and there until FrLeave */
static inline NTSTATUS FrEnter(FRAME *f)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&f->GateLock, &irql);
    if (f->Surprised)
        status = STATUS_DELETE_PENDING;
    else if (!f->Running || f->Power != PowerDeviceD0)
        status = STATUS_DEVICE_NOT_READY;
    else
        f->GateUsers++;
    KeReleaseSpinLock(&f->GateLock, irql);
    return status;
}

static inline void FrLeave(FRAME *f)
{
    KIRQL irql;

    KeAcquireSpinLock(&f->GateLock, &irql);
    if (--f->GateUsers == 0)
        KeSetEvent(&f->GateEmpty, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&f->GateLock, irql);
}

/* closes the gate, and waits until no one is within; TRUE if the device was started */
static inline BOOLEAN FrClose(FRAME *f, BOOLEAN Halt, BOOLEAN Surprised, DEVICE_POWER_STATE Power)
{
    BOOLEAN wait, was;
    KIRQL irql;

    KeAcquireSpinLock(&f->GateLock, &irql);
    was = f->Running;
    if (Halt)
        f->Running = FALSE;
    if (Surprised)
        f->Surprised = TRUE;
    if (Power != PowerDeviceUnspecified)
        f->Power = Power;
    wait = f->GateUsers != 0;
    if (wait)
        KeClearEvent(&f->GateEmpty);
    KeReleaseSpinLock(&f->GateLock, irql);
    if (wait)
        KeWaitForSingleObject(&f->GateEmpty, Executive, KernelMode, FALSE, NULL);
    return was;
}

static inline void FrOpen(FRAME *f, BOOLEAN Running, DEVICE_POWER_STATE Power)
{
    KIRQL irql;

    KeAcquireSpinLock(&f->GateLock, &irql);
    f->Running = Running;
    f->Power = Power;
    KeReleaseSpinLock(&f->GateLock, irql);
}

/* may Stop and others touch the card? */
static inline BOOLEAN FrTouchable(FRAME *f)
{
    BOOLEAN answer;
    KIRQL irql;

    KeAcquireSpinLock(&f->GateLock, &irql);
    answer = !f->Surprised && f->Power == PowerDeviceD0;
    KeReleaseSpinLock(&f->GateLock, irql);
    return answer;
}

static inline PCM_PARTIAL_RESOURCE_DESCRIPTOR FrResource(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Index)
{
    PCM_PARTIAL_RESOURCE_LIST part;
    ULONG i;

    if (!List || List->Count == 0)
        return NULL;
    part = &List->List[0].PartialResourceList;
    for (i = 0; i < part->Count; i++)
        if (part->PartialDescriptors[i].Type == Type && Index-- == 0)
            return &part->PartialDescriptors[i];
    return NULL;
}

static inline NTSTATUS FrConnect(FRAME *f, PCM_PARTIAL_RESOURCE_DESCRIPTOR d, PKSERVICE_ROUTINE Isr, PVOID Context,
    PKINTERRUPT *Object)
{
    IO_CONNECT_INTERRUPT_PARAMETERS p;

    RtlZeroMemory(&p, sizeof p);
    p.Version = CONNECT_FULLY_SPECIFIED;
    p.FullySpecified.PhysicalDeviceObject = f->Pdo;
    p.FullySpecified.InterruptObject = Object;
    p.FullySpecified.ServiceRoutine = Isr;
    p.FullySpecified.ServiceContext = Context;
    p.FullySpecified.SynchronizeIrql = (KIRQL)d->u.Interrupt.Level;
    p.FullySpecified.ShareVector = d->ShareDisposition == CmResourceShareShared;
    p.FullySpecified.Vector = d->u.Interrupt.Vector;
    p.FullySpecified.Irql = (KIRQL)d->u.Interrupt.Level;
    p.FullySpecified.InterruptMode = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
    p.FullySpecified.ProcessorEnableMask = d->u.Interrupt.Affinity;
    return IoConnectInterruptEx(&p);
}

static inline void FrDisconnect(PKINTERRUPT Object)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS p;

    RtlZeroMemory(&p, sizeof p);
    p.Version = CONNECT_FULLY_SPECIFIED;
    p.ConnectionContext.InterruptObject = Object;
    IoDisconnectInterruptEx(&p);
}

static NTSTATUS FrAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, const FRAME_OPS *Ops, ULONG Size, const GUID *Guid,
    ULONG Flags)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;
    FRAME *f;

    status = IoCreateDevice(Driver, Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    f = device->DeviceExtension;
    f->Self = device;
    f->Pdo = Pdo;
    f->Ops = Ops;
    f->Power = PowerDeviceD0;
    IoInitializeRemoveLock(&f->RemoveLock, 'marF', 0, 0);
    KeInitializeSpinLock(&f->GateLock);
    KeInitializeEvent(&f->GateEmpty, NotificationEvent, FALSE);
    if (Ops->Init) {
        status = Ops->Init(f);
        if (!NT_SUCCESS(status)) {
            IoDeleteDevice(device);
            return status;
        }
    }
    status = IoRegisterDeviceInterface(Pdo, Guid, NULL, &f->Link);
    if (NT_SUCCESS(status)) {
        f->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
        if (f->Lower) {
            device->Flags |= Flags | DO_POWER_PAGABLE;
            device->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        RtlFreeUnicodeString(&f->Link);
        status = STATUS_NO_SUCH_DEVICE;
    }
    if (Ops->Free)
        Ops->Free(f);
    IoDeleteDevice(device);
    return status;
}

static NTSTATUS NTAPI FrForwarded(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    NOT_USED(Device);
    if (Irp->PendingReturned)
        KeSetEvent((PKEVENT)Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS FrForward(FRAME *f, PIRP Irp)
{
    NTSTATUS status;
    KEVENT event;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, FrForwarded, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(f->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static void FrLinkOff(FRAME *f)
{
    if (f->LinkOn)
        IoSetDeviceInterfaceState(&f->Link, FALSE);
    f->LinkOn = FALSE;
}

static void FrHalt(FRAME *f, BOOLEAN Surprised, BOOLEAN Gone)
{
    BOOLEAN was = FrClose(f, TRUE, Surprised, PowerDeviceUnspecified);

    if (Gone && f->Ops->Gone)
        f->Ops->Gone(f);
    if (was && f->Ops->Stop)
        f->Ops->Stop(f);
}

static NTSTATUS NTAPI FrPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    FRAME *f = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PCM_RESOURCE_LIST raw, translated;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (s->MinorFunction) {
    case IRP_MN_START_DEVICE:
        raw = s->Parameters.StartDevice.AllocatedResources;
        translated = s->Parameters.StartDevice.AllocatedResourcesTranslated;
        status = FrForward(f, Irp);
        if (NT_SUCCESS(status)) {
            FrOpen(f, FALSE, PowerDeviceD0);
            status = f->Ops->Start ? f->Ops->Start(f, raw, translated) : STATUS_SUCCESS;
        }
        if (NT_SUCCESS(status)) {
            FrOpen(f, TRUE, PowerDeviceD0);
            if (f->Ops->Awake)
                f->Ops->Awake(f);
            if (!f->LinkOn)
                f->LinkOn = NT_SUCCESS(IoSetDeviceInterfaceState(&f->Link, TRUE));
        }
        Done(Irp, status, 0);
        IoReleaseRemoveLock(&f->RemoveLock, Irp);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (!s->Parameters.UsageNotification.InPath)
            break;
        status = Done(Irp, STATUS_UNSUCCESSFUL, 0);     /* no special files on such a device */
        IoReleaseRemoveLock(&f->RemoveLock, Irp);
        return status;

    case IRP_MN_STOP_DEVICE:
        FrHalt(f, FALSE, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        FrLinkOff(f);
        FrHalt(f, TRUE, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        FrLinkOff(f);
        FrHalt(f, FALSE, TRUE);
        IoReleaseRemoveLockAndWait(&f->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(f->Lower, Irp);
        IoDetachDevice(f->Lower);
        if (f->Ops->Free)
            f->Ops->Free(f);
        RtlFreeUnicodeString(&f->Link);
        IoDeleteDevice(Device);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

static VOID NTAPI FrDevicePowered(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
    PIO_STATUS_BLOCK Io)
{
    PIRP irp = Context;
    FRAME *f = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    NOT_USED(Device);
    NOT_USED(Minor);
    NOT_USED(State);
    NOT_USED(Io);
    irp->IoStatus.Status = STATUS_SUCCESS;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
}

static NTSTATUS NTAPI FrSystemPassed(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    FRAME *f = Context;
    POWER_STATE state;
    NTSTATUS status;

    NOT_USED(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        state.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking
            ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(f->Pdo, IRP_MN_SET_POWER, state, FrDevicePowered, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
    }
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FrPoweredUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    FRAME *f = Context;
    POWER_STATE state;
    BOOLEAN wake;
    KIRQL irql;

    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        KeAcquireSpinLock(&f->GateLock, &irql);
        wake = f->Running && !f->Surprised && f->Power != PowerDeviceD0;
        if (wake)
            f->GateUsers++;             /* a removal waits */
        KeReleaseSpinLock(&f->GateLock, irql);
        if (wake && f->Ops->Wake)
            f->Ops->Wake(f);
        KeAcquireSpinLock(&f->GateLock, &irql);
        f->Power = PowerDeviceD0;
        KeReleaseSpinLock(&f->GateLock, irql);
        state.DeviceState = PowerDeviceD0;
        PoSetPowerState(Device, DevicePowerState, state);
        if (wake && f->Ops->Awake)
            f->Ops->Awake(f);
        if (wake)
            FrLeave(f);
    }
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline NTSTATUS NTAPI FrPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    FRAME *f = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state = s->Parameters.Power.State;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    if (s->MinorFunction == IRP_MN_SET_POWER && s->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, FrSystemPassed, f, TRUE, TRUE, TRUE);
        PoCallDriver(f->Lower, Irp);
        return STATUS_PENDING;
    }
    if (s->MinorFunction == IRP_MN_SET_POWER && state.DeviceState == PowerDeviceD0) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, FrPoweredUp, f, TRUE, TRUE, TRUE);
        PoCallDriver(f->Lower, Irp);
        return STATUS_PENDING;
    }
    if (s->MinorFunction == IRP_MN_SET_POWER) {
        BOOLEAN sleep = FrTouchable(f);
        KIRQL irql;

        FrClose(f, FALSE, FALSE, state.DeviceState);
        KeAcquireSpinLock(&f->GateLock, &irql);
        sleep = sleep && f->Running;
        if (sleep)
            f->GateUsers++;             /* a removal waits */
        KeReleaseSpinLock(&f->GateLock, irql);
        if (sleep) {
            if (f->Ops->Sleep)
                f->Ops->Sleep(f);
            FrLeave(f);
        }
        PoSetPowerState(Device, DevicePowerState, state);
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI FrPassOn(PDEVICE_OBJECT Device, PIRP Irp)
{
    FRAME *f = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

static inline NTSTATUS NTAPI FrSucceed(PDEVICE_OBJECT Device, PIRP Irp)
{
    NOT_USED(Device);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI FrUnload(PDRIVER_OBJECT Driver)
{
    NOT_USED(Driver);
}

static void FrDriver(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE Add, PDRIVER_DISPATCH Power)
{
    Driver->DriverExtension->AddDevice = Add;
    Driver->DriverUnload = FrUnload;
    Driver->MajorFunction[IRP_MJ_PNP] = FrPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = Power;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FrPassOn;
}
#endif

#endif
