/*
 * what one author's drivers share:
 *
 *  - ending a request
 *  - a control device for NT4-style drivers
 *  - GuardedCall: a call with an exception handler around it (FRAME_GUARD)
 *  - a function driver's PnP and power dispatch (FRAME), with a gate that counts the requests which may use the hardware
 *  - a cancel-safe queue
 */
#ifndef FRAME_H
#define FRAME_H

#define FRAME_FN static __attribute__((unused))
#define FRAME_TAG 'marF'

FRAME_FN NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---------------------------------------------------------------- NT4 style */

FRAME_FN NTSTATUS ControlCreate(PDRIVER_OBJECT Driver, ULONG Extension, PCWSTR Name, PCWSTR Link, PDEVICE_OBJECT *Device)
{
    UNICODE_STRING name, link;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Name);
    RtlInitUnicodeString(&link, Link);
    status = IoCreateDevice(Driver, Extension, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(*Device);
        *Device = NULL;
    }
    return status;
}

FRAME_FN void ControlDelete(PDEVICE_OBJECT Device, PCWSTR Link)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, Link);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Device);
}

FRAME_FN NTSTATUS NTAPI DispatchOk(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* ---------------------------------------------------------------- an exception handler */

#ifdef FRAME_GUARD
/* Calls Routine(Context); STATUS_SUCCESS, or STATUS_ACCESS_VIOLATION when it raised. */
NTSTATUS GuardedCall(void (*Routine)(void *), void *Context);

__asm__(
    "\t.text\n"
    "\t.globl GuardedCall\n"
    "\t.def GuardedCall; .scl 2; .type 32; .endef\n"
    "\t.seh_proc GuardedCall\n"
    "GuardedCall:\n"
    "\tsubq $40, %rsp\n"
    "\t.seh_stackalloc 40\n"
    "\t.seh_endprologue\n"
    "\t.seh_handler __C_specific_handler, @except\n"
    "\t.seh_handlerdata\n"
    "\t.long 1\n"
    "\t.rva .Lguard1, .Lguard2\n"
    "\t.long 1\n"
    "\t.rva .Lguard3\n"
    "\t.text\n"
    ".Lguard1:\n"
    "\tmovq %rcx, %rax\n"
    "\tmovq %rdx, %rcx\n"
    "\tcall *%rax\n"
    "\tnop\n"
    ".Lguard2:\n"
    "\txorl %eax, %eax\n"
    "\tjmp .Lguard4\n"
    ".Lguard3:\n"
    "\tmovl $0xC0000005, %eax\n"
    ".Lguard4:\n"
    "\taddq $40, %rsp\n"
    "\tret\n"
    "\t.seh_endproc\n");
#endif

/* ---------------------------------------------------------------- PnP and power */

typedef struct _FRAME {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN InterfaceOn;

    KSPIN_LOCK Lock;
    BOOLEAN Started;            /* Start succeeded, Stop not yet called */
    BOOLEAN Powered;            /* D0 */
    BOOLEAN Gone;               /* surprise removed or removed */
    BOOLEAN Open;               /* requests may use the hardware */
    LONG Active;                /* requests that do */
    KEVENT Idle;

    NTSTATUS (*Start)(struct _FRAME *F, PCM_RESOURCE_LIST Translated);
    void (*Stop)(struct _FRAME *F);             /* Active is 0; PASSIVE_LEVEL; hardware only if FrameAlive */
    void (*Flush)(struct _FRAME *F);            /* the device is gone: end what is queued */
    void (*PowerDown)(struct _FRAME *F);        /* Active is 0; PASSIVE_LEVEL */
    void (*PowerUp)(struct _FRAME *F);          /* up to DISPATCH_LEVEL */
    void (*Resumed)(struct _FRAME *F);          /* the gate is open (again); up to DISPATCH_LEVEL */
    void (*Minor)(struct _FRAME *F, UCHAR Minor); /* QUERY_STOP before it is passed, CANCEL_STOP after it came back */
    void (*Free)(struct _FRAME *F);             /* before the device is deleted */
} FRAME;

FRAME_FN BOOLEAN FrameAlive(FRAME *F)
{
    KIRQL irql;
    BOOLEAN alive;

    KeAcquireSpinLock(&F->Lock, &irql);
    alive = F->Powered && !F->Gone;
    KeReleaseSpinLock(&F->Lock, irql);
    return alive;
}

FRAME_FN BOOLEAN FrameStarted(FRAME *F)
{
    KIRQL irql;
    BOOLEAN started;

    KeAcquireSpinLock(&F->Lock, &irql);
    started = F->Started;
    KeReleaseSpinLock(&F->Lock, irql);
    return started;
}

FRAME_FN BOOLEAN FrameEnter(FRAME *F)
{
    KIRQL irql;
    BOOLEAN open;

    KeAcquireSpinLock(&F->Lock, &irql);
    open = F->Open;
    if (open)
        F->Active++;
    KeReleaseSpinLock(&F->Lock, irql);
    return open;
}

FRAME_FN void FrameLeave(FRAME *F)
{
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    if (--F->Active == 0 && !F->Open)
        KeSetEvent(&F->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&F->Lock, irql);
}

/* Shuts the gate and waits for those who are within. */
FRAME_FN void FrameShut(FRAME *F)
{
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    F->Open = FALSE;
    if (F->Active == 0)
        KeSetEvent(&F->Idle, IO_NO_INCREMENT, FALSE);
    else
        KeClearEvent(&F->Idle);
    KeReleaseSpinLock(&F->Lock, irql);
    KeWaitForSingleObject(&F->Idle, Executive, KernelMode, FALSE, NULL);
}

/* A request comes in: remove lock and gate. Ends the request itself when it may not. */
FRAME_FN NTSTATUS FrameBegin(FRAME *F, PIRP Irp)
{
    NTSTATUS status = IoAcquireRemoveLock(&F->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    if (!FrameEnter(F)) {
        Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
        IoReleaseRemoveLock(&F->RemoveLock, Irp);
        return STATUS_DEVICE_NOT_READY;
    }
    return STATUS_SUCCESS;
}

FRAME_FN NTSTATUS FrameEnd(FRAME *F, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Complete(Irp, Status, Information);
    FrameLeave(F);
    IoReleaseRemoveLock(&F->RemoveLock, Irp);
    return Status;
}

/* The same for a request that does not hold the gate. */
FRAME_FN NTSTATUS FrameEndUngated(FRAME *F, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Complete(Irp, Status, Information);
    IoReleaseRemoveLock(&F->RemoveLock, Irp);
    return Status;
}

FRAME_FN NTSTATUS FrameForwardSync(FRAME *F, PIRP Irp)
{
    if (!IoForwardIrpSynchronously(F->Lower, Irp))
        return STATUS_UNSUCCESSFUL;
    return Irp->IoStatus.Status;
}

FRAME_FN void FrameHalt(FRAME *F, BOOLEAN Gone)
{
    KIRQL irql;
    BOOLEAN started;

    KeAcquireSpinLock(&F->Lock, &irql);
    started = F->Started;
    F->Started = FALSE;
    F->Open = FALSE;
    if (Gone)
        F->Gone = TRUE;
    KeReleaseSpinLock(&F->Lock, irql);
    if (Gone && F->Flush)
        F->Flush(F);
    FrameShut(F);
    if (started && F->Stop)
        F->Stop(F);
}

FRAME_FN void FrameInterfaceOff(FRAME *F)
{
    if (F->InterfaceOn) {
        IoSetDeviceInterfaceState(&F->Interface, FALSE);
        F->InterfaceOn = FALSE;
    }
}

FRAME_FN NTSTATUS NTAPI FramePnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    FRAME *f = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    UCHAR minor = sp->MinorFunction;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);

    switch (minor) {
    case IRP_MN_START_DEVICE:
        status = FrameForwardSync(f, Irp);
        if (NT_SUCCESS(status) && f->Start)
            status = f->Start(f, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(status)) {
            KeAcquireSpinLock(&f->Lock, &irql);
            f->Started = TRUE;
            f->Powered = TRUE;
            f->Open = TRUE;
            KeReleaseSpinLock(&f->Lock, irql);
            if (!f->InterfaceOn && NT_SUCCESS(IoSetDeviceInterfaceState(&f->Interface, TRUE)))
                f->InterfaceOn = TRUE;
            if (f->Resumed)
                f->Resumed(f);
        }
        Complete(Irp, status, 0);
        IoReleaseRemoveLock(&f->RemoveLock, Irp);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
        if (f->Minor)
            f->Minor(f, minor);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        if (f->Minor) {
            status = FrameForwardSync(f, Irp);
            f->Minor(f, minor);
            Complete(Irp, status, Irp->IoStatus.Information);
            IoReleaseRemoveLock(&f->RemoveLock, Irp);
            return status;
        }
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (sp->Parameters.UsageNotification.InPath) {
            Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);     /* no place for paging, dump or hibernation files */
            IoReleaseRemoveLock(&f->RemoveLock, Irp);
            return STATUS_INVALID_DEVICE_REQUEST;
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_STOP_DEVICE:
        FrameHalt(f, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        FrameInterfaceOff(f);
        FrameHalt(f, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        FrameInterfaceOff(f);
        FrameHalt(f, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(f->Lower, Irp);
        IoReleaseRemoveLockAndWait(&f->RemoveLock, Irp);
        if (f->Free)
            f->Free(f);
        IoDetachDevice(f->Lower);
        RtlFreeUnicodeString(&f->Interface);
        IoDeleteDevice(Device);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

FRAME_FN void NTAPI FrameDeviceDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Io)
{
    PIRP irp = Context;
    FRAME *f = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Io);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
}

FRAME_FN NTSTATUS NTAPI FrameSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    FRAME *f = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state;
    NTSTATUS status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(status)) {
        state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(f->Pdo, IRP_MN_SET_POWER, state, FrameDeviceDone, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

FRAME_FN NTSTATUS NTAPI FrameUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    FRAME *f = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN pin, open = FALSE;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        KeAcquireSpinLock(&f->Lock, &irql);
        pin = f->Started && !f->Powered;
        if (pin)
            f->Active++;
        KeReleaseSpinLock(&f->Lock, irql);
        if (pin && f->PowerUp)
            f->PowerUp(f);
        KeAcquireSpinLock(&f->Lock, &irql);
        f->Powered = TRUE;
        f->Open = open = f->Started;
        KeReleaseSpinLock(&f->Lock, irql);
        if (pin)
            FrameLeave(f);
        PoSetPowerState(f->Self, DevicePowerState, sp->Parameters.Power.State);
        if (open && f->Resumed)
            f->Resumed(f);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

FRAME_FN NTSTATUS NTAPI FramePower(PDEVICE_OBJECT Device, PIRP Irp)
{
    FRAME *f = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIO_COMPLETION_ROUTINE done = NULL;
    NTSTATUS status;
    KIRQL irql;
    BOOLEAN pin;

    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return Complete(Irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState) {
            if (FrameStarted(f))
                done = FrameSystemDone;
        } else if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            done = FrameUpDone;
        } else {
            FrameShut(f);
            KeAcquireSpinLock(&f->Lock, &irql);
            pin = f->Started && f->Powered;
            if (pin)
                f->Active++;
            KeReleaseSpinLock(&f->Lock, irql);
            if (pin && f->PowerDown)
                f->PowerDown(f);
            KeAcquireSpinLock(&f->Lock, &irql);
            f->Powered = FALSE;
            KeReleaseSpinLock(&f->Lock, irql);
            if (pin)
                FrameLeave(f);
            PoSetPowerState(Device, DevicePowerState, sp->Parameters.Power.State);
        }
    }
    if (done) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, done, f, TRUE, TRUE, TRUE);
        PoCallDriver(f->Lower, Irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

FRAME_FN NTSTATUS NTAPI FramePass(PDEVICE_OBJECT Device, PIRP Irp)
{
    FRAME *f = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Lower, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

FRAME_FN NTSTATUS NTAPI FrameCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    FRAME *f = Device->DeviceExtension;

    return Complete(Irp, FrameStarted(f) ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY, 0);
}

FRAME_FN void NTAPI FrameUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

/* The device, attached; the driver sets the routines and clears DO_DEVICE_INITIALIZING. The extension begins with a FRAME. */
FRAME_FN NTSTATUS FrameAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG Extension, const GUID *Class, ULONG Flags, FRAME **Out)
{
    PDEVICE_OBJECT device;
    FRAME *f;
    NTSTATUS status;

    status = IoCreateDevice(Driver, Extension, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    f = device->DeviceExtension;
    f->Self = device;
    f->Pdo = Pdo;
    KeInitializeSpinLock(&f->Lock);
    KeInitializeEvent(&f->Idle, NotificationEvent, TRUE);
    IoInitializeRemoveLock(&f->RemoveLock, FRAME_TAG, 0, 0);
    status = IoRegisterDeviceInterface(Pdo, Class, NULL, &f->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    f->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!f->Lower) {
        RtlFreeUnicodeString(&f->Interface);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= Flags | DO_POWER_PAGABLE;
    *Out = f;
    return STATUS_SUCCESS;
}

FRAME_FN void FrameDriver(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE Add)
{
    Driver->DriverExtension->AddDevice = Add;
    Driver->DriverUnload = FrameUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = FrameCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_PNP] = FramePnp;
    Driver->MajorFunction[IRP_MJ_POWER] = FramePower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FramePass;
}

/* ---------------------------------------------------------------- resources */

typedef struct _FRAME_RESOURCES {
    ULONG Memories;
    struct { PHYSICAL_ADDRESS Base; ULONG Length; } Memory[6];
    BOOLEAN HasInterrupt, Latched, Shared;
    ULONG Vector;
    KIRQL Level;
    KAFFINITY Affinity;
} FRAME_RESOURCES;

FRAME_FN void FrameResources(PCM_RESOURCE_LIST List, FRAME_RESOURCES *Out)
{
    PCM_PARTIAL_RESOURCE_LIST partial;
    ULONG i;

    RtlZeroMemory(Out, sizeof *Out);
    if (!List || List->Count == 0)
        return;
    partial = &List->List[0].PartialResourceList;
    for (i = 0; i < partial->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &partial->PartialDescriptors[i];

        if (d->Type == CmResourceTypeMemory && Out->Memories < 6) {
            Out->Memory[Out->Memories].Base = d->u.Memory.Start;
            Out->Memory[Out->Memories].Length = d->u.Memory.Length;
            Out->Memories++;
        } else if (d->Type == CmResourceTypeInterrupt && !Out->HasInterrupt) {
            Out->HasInterrupt = TRUE;
            Out->Latched = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0;
            Out->Shared = d->ShareDisposition == CmResourceShareShared;
            Out->Vector = d->u.Interrupt.Vector;
            Out->Level = (KIRQL)d->u.Interrupt.Level;
            Out->Affinity = d->u.Interrupt.Affinity;
        }
    }
}

FRAME_FN NTSTATUS FrameConnect(FRAME_RESOURCES *R, PKSERVICE_ROUTINE Isr, PVOID Context, PKINTERRUPT *Interrupt)
{
    return IoConnectInterrupt(Interrupt, Isr, Context, NULL, R->Vector, R->Level, R->Level,
                              R->Latched ? Latched : LevelSensitive, R->Shared, R->Affinity, FALSE);
}

FRAME_FN ULONG Rd(volatile UCHAR *Base, ULONG Offset)
{
    return READ_REGISTER_ULONG((volatile ULONG *)(Base + Offset));
}

FRAME_FN void Wr(volatile UCHAR *Base, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((volatile ULONG *)(Base + Offset), Value);
}

/* ---------------------------------------------------------------- a cancel-safe queue of a FRAME's requests */

typedef struct _FRAME_QUEUE {
    IO_CSQ Csq;
    LIST_ENTRY List;
    KSPIN_LOCK Lock;
    BOOLEAN Closed;
    BOOLEAN Gated;              /* its requests hold the gate, besides the remove lock */
    FRAME *F;
} FRAME_QUEUE;

FRAME_FN NTSTATUS NTAPI FrameQueueInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    FRAME_QUEUE *q = CONTAINING_RECORD(Csq, FRAME_QUEUE, Csq);

    UNREFERENCED_PARAMETER(Context);
    if (q->Closed)
        return STATUS_DELETE_PENDING;
    InsertTailList(&q->List, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

FRAME_FN void NTAPI FrameQueueRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

FRAME_FN PIRP NTAPI FrameQueuePeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    FRAME_QUEUE *q = CONTAINING_RECORD(Csq, FRAME_QUEUE, Csq);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!Context || IoGetCurrentIrpStackLocation(irp)->FileObject == Context)
            return irp;
    }
    return NULL;
}

FRAME_FN void NTAPI FrameQueueLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, FRAME_QUEUE, Csq)->Lock, Irql);
}

FRAME_FN void NTAPI FrameQueueUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, FRAME_QUEUE, Csq)->Lock, Irql);
}

FRAME_FN void FrameQueueEnd(FRAME_QUEUE *Q, PIRP Irp, NTSTATUS Status)
{
    if (Q->Gated)
        FrameEnd(Q->F, Irp, Status, 0);
    else
        FrameEndUngated(Q->F, Irp, Status, 0);
}

FRAME_FN void NTAPI FrameQueueCanceled(PIO_CSQ Csq, PIRP Irp)
{
    FrameQueueEnd(CONTAINING_RECORD(Csq, FRAME_QUEUE, Csq), Irp, STATUS_CANCELLED);
}

FRAME_FN void FrameQueueInit(FRAME_QUEUE *Q, FRAME *F, BOOLEAN Gated)
{
    InitializeListHead(&Q->List);
    KeInitializeSpinLock(&Q->Lock);
    Q->Closed = FALSE;
    Q->Gated = Gated;
    Q->F = F;
    IoCsqInitializeEx(&Q->Csq, FrameQueueInsert, FrameQueueRemove, FrameQueuePeek, FrameQueueLock, FrameQueueUnlock, FrameQueueCanceled);
}

/* Queues the request, or ends it when the queue is closed: the dispatch routine returns STATUS_PENDING either way. */
FRAME_FN NTSTATUS FrameQueuePut(FRAME_QUEUE *Q, PIRP Irp)
{
    NTSTATUS status;

    IoMarkIrpPending(Irp);
    status = IoCsqInsertIrpEx(&Q->Csq, Irp, NULL, NULL);
    if (!NT_SUCCESS(status))
        FrameQueueEnd(Q, Irp, status);
    return STATUS_PENDING;
}

FRAME_FN PIRP FrameQueueTake(FRAME_QUEUE *Q)
{
    return IoCsqRemoveNextIrp(&Q->Csq, NULL);
}

FRAME_FN void FrameQueueFlush(FRAME_QUEUE *Q, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&Q->Csq, File)) != NULL)
        FrameQueueEnd(Q, irp, Status);
}

FRAME_FN void FrameQueueClose(FRAME_QUEUE *Q)
{
    KIRQL irql;

    KeAcquireSpinLock(&Q->Lock, &irql);
    Q->Closed = TRUE;
    KeReleaseSpinLock(&Q->Lock, irql);
    FrameQueueFlush(Q, NULL, STATUS_DELETE_PENDING);
}

#endif
