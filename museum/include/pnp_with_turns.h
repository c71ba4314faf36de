/* What one author's drivers share: completing requests, a cancel-safe queue, control devices, PnP and power. */
#ifndef FRAME_H
#define FRAME_H
#define FRFN static __attribute__((unused))
#define FR_UNUSED3(a, b, c) ((void)(a), (void)(b), (void)(c))

#define FR_TAG(a, b, c, d) ((ULONG)(a) | ((ULONG)(b) << 8) | ((ULONG)(c) << 16) | ((ULONG)(d) << 24))

FRFN NTSTATUS FrComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

FRFN NTSTATUS FrSucceed(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

/* ---- a cancel-safe queue ---- */
typedef struct _FR_QUEUE {
    IO_CSQ Csq;                                 /* first: the callbacks get its address */
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    VOID (*Done)(PVOID Context, PIRP Irp, NTSTATUS Status);   /* completes a request that is taken back */
    PVOID Context;
} FR_QUEUE, *PFR_QUEUE;

FRFN VOID NTAPI FrCsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&((PFR_QUEUE)Csq)->List, &Irp->Tail.Overlay.ListEntry);
}

FRFN VOID NTAPI FrCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* PeekContext: a file object, or NULL for any request */
FRFN PIRP NTAPI FrCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID PeekContext)
{
    PFR_QUEUE Queue = (PFR_QUEUE)Csq;
    PLIST_ENTRY Entry = Irp ? Irp->Tail.Overlay.ListEntry.Flink : Queue->List.Flink;
    for (; Entry != &Queue->List; Entry = Entry->Flink) {
        PIRP Next = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (!PeekContext || IoGetCurrentIrpStackLocation(Next)->FileObject == (PFILE_OBJECT)PeekContext)
            return Next;
    }
    return NULL;
}

FRFN VOID NTAPI FrCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&((PFR_QUEUE)Csq)->Lock, Irql);
}

FRFN VOID NTAPI FrCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&((PFR_QUEUE)Csq)->Lock, Irql);
}

FRFN VOID NTAPI FrCsqCanceled(PIO_CSQ Csq, PIRP Irp)
{
    ((PFR_QUEUE)Csq)->Done(((PFR_QUEUE)Csq)->Context, Irp, STATUS_CANCELLED);
}

FRFN VOID FrQueueInit(PFR_QUEUE Queue, VOID (*Done)(PVOID, PIRP, NTSTATUS), PVOID Context)
{
    KeInitializeSpinLock(&Queue->Lock);
    InitializeListHead(&Queue->List);
    Queue->Done = Done;
    Queue->Context = Context;
    IoCsqInitialize(&Queue->Csq, FrCsqInsert, FrCsqRemove, FrCsqPeek, FrCsqAcquire, FrCsqRelease, FrCsqCanceled);
}

/* marks the request pending; the caller returns STATUS_PENDING */
FRFN NTSTATUS FrQueuePut(PFR_QUEUE Queue, PIRP Irp)
{
    IoCsqInsertIrp(&Queue->Csq, Irp, NULL);
    return STATUS_PENDING;
}

FRFN PIRP FrQueueTake(PFR_QUEUE Queue, PFILE_OBJECT File)
{
    return IoCsqRemoveNextIrp(&Queue->Csq, File);
}

FRFN VOID FrQueueFlush(PFR_QUEUE Queue, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;
    while ((Irp = IoCsqRemoveNextIrp(&Queue->Csq, File)) != NULL)
        Queue->Done(Queue->Context, Irp, Status);
}

/* ---- control devices of drivers without PnP ---- */
FRFN NTSTATUS FrControlDevice(PDRIVER_OBJECT Driver, PCWSTR Name, PCWSTR Link, ULONG Size, ULONG Flags, PDEVICE_OBJECT *Device)
{
    UNICODE_STRING DeviceName, LinkName;
    NTSTATUS Status;
    RtlInitUnicodeString(&DeviceName, Name);
    RtlInitUnicodeString(&LinkName, Link);
    Status = IoCreateDevice(Driver, Size, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (!NT_SUCCESS(Status))
        return Status;
    (*Device)->Flags |= Flags;
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(*Device);
        *Device = NULL;
    }
    return Status;
}

FRFN VOID FrDeleteControl(PDEVICE_OBJECT Device, PCWSTR Link)
{
    UNICODE_STRING LinkName;
    RtlInitUnicodeString(&LinkName, Link);
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Device);
}

/* ---- copying from and to an application's addresses ---- */
#ifdef FR_GUARDED
NTSTATUS FrCopyIn(PVOID To, const VOID *User, SIZE_T Length);
NTSTATUS FrCopyOut(PVOID User, const VOID *From, SIZE_T Length);
#define FR_GUARD(NAME, PROBE, PROBED) \
    ".text\n\t.p2align 4\n" #NAME ":\n\t.seh_proc " #NAME "\n\t" \
    "pushq %rsi\n\t.seh_pushreg %rsi\n\tpushq %rdi\n\t.seh_pushreg %rdi\n\tpushq %rbx\n\t.seh_pushreg %rbx\n\t" \
    "subq $32, %rsp\n\t.seh_stackalloc 32\n\t.seh_endprologue\n\t" \
    "movq %rcx, %rdi\n\tmovq %rdx, %rsi\n\tmovq %r8, %rbx\n" \
    ".LB" #NAME ":\n\t" \
    "movq %" PROBED ", %rcx\n\tmovq %rbx, %rdx\n\tmovl $1, %r8d\n\tcall *__imp_" #PROBE "(%rip)\n\t" \
    "movq %rbx, %rcx\n\trep movsb\n\tnop\n" \
    ".LE" #NAME ":\n\txorl %eax, %eax\n" \
    ".LO" #NAME ":\n\taddq $32, %rsp\n\tpopq %rbx\n\tpopq %rdi\n\tpopq %rsi\n\tret\n" \
    ".LX" #NAME ":\n\tmovl $0xC0000005, %eax\n\tjmp .LO" #NAME "\n\t" \
    ".seh_handler __C_specific_handler, @except\n\t.seh_handlerdata\n\t.long 1\n\t" \
    ".rva .LB" #NAME ", .LE" #NAME "\n\t.long 1\n\t.rva .LX" #NAME "\n\t.text\n\t.seh_endproc\n"
__asm__(FR_GUARD(FrCopyIn, ProbeForRead, "rsi") FR_GUARD(FrCopyOut, ProbeForWrite, "rdi"));
#endif

/* ---- PnP ---- */
#define FR_STOPPED 1                            /* why the gate is shut */
#define FR_ASLEEP  2
#define FR_REMOVED 4

typedef struct _FR_RES {
    ULONG Memories, Ports;
    struct { PHYSICAL_ADDRESS Start; ULONG Length; } Memory[6], Port[6];
    BOOLEAN HasInterrupt;
    ULONG Vector;
    KIRQL Irql;
    KAFFINITY Affinity;
    KINTERRUPT_MODE Mode;
} FR_RES, *PFR_RES;

struct _FR_EXT;
typedef struct _FR_OPS {
    NTSTATUS (*Start)(struct _FR_EXT *Ext, PFR_RES Resources);  /* undoes what it did where it fails */
    VOID (*Stop)(struct _FR_EXT *Ext);          /* the gate is shut and no one is within: give the resources back */
    VOID (*Abort)(struct _FR_EXT *Ext);         /* the device goes: end all requests that wait */
    VOID (*PowerDown)(struct _FR_EXT *Ext);     /* PASSIVE_LEVEL, before the request goes down */
    VOID (*PowerUp)(struct _FR_EXT *Ext);       /* DISPATCH_LEVEL, under a lock: the device is in D0 again */
    VOID (*Free)(struct _FR_EXT *Ext);          /* just before the device object is deleted */
} FR_OPS;

typedef struct _FR_EXT {
    PDEVICE_OBJECT Self, Pdo, Lower;
    const FR_OPS *Ops;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN InterfaceOn;
    KSPIN_LOCK GateLock;                        /* GateShut, GateUsers */
    ULONG GateShut;
    LONG GateUsers;
    KEVENT GateIdle;
    KEVENT Turn;                                /* synchronization event: start, stop and power-down, one at a time */
    KSPIN_LOCK StartLock;                       /* Started, against power-up */
    BOOLEAN Started;
} FR_EXT, *PFR_EXT;

/* Between FrEnter and FrLeave the device is started and in D0. */
FRFN NTSTATUS FrEnter(PFR_EXT Ext)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;
    KeAcquireSpinLock(&Ext->GateLock, &Irql);
    if (Ext->GateShut & FR_REMOVED)
        Status = STATUS_DELETE_PENDING;
    else if (Ext->GateShut)
        Status = STATUS_DEVICE_NOT_READY;
    else if (Ext->GateUsers++ == 0)
        KeClearEvent(&Ext->GateIdle);
    KeReleaseSpinLock(&Ext->GateLock, Irql);
    return Status;
}

FRFN VOID FrLeave(PFR_EXT Ext)
{
    KIRQL Irql;
    KeAcquireSpinLock(&Ext->GateLock, &Irql);
    if (--Ext->GateUsers == 0)
        KeSetEvent(&Ext->GateIdle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Ext->GateLock, Irql);
}

FRFN VOID FrShut(PFR_EXT Ext, ULONG Why)
{
    KIRQL Irql;
    KeAcquireSpinLock(&Ext->GateLock, &Irql);
    Ext->GateShut |= Why;
    KeReleaseSpinLock(&Ext->GateLock, Irql);
    KeWaitForSingleObject(&Ext->GateIdle, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&Ext->GateLock, &Irql);   /* the one who has set the event is out of FrLeave then */
    KeReleaseSpinLock(&Ext->GateLock, Irql);
}

FRFN VOID FrOpen(PFR_EXT Ext, ULONG Why)
{
    KIRQL Irql;
    KeAcquireSpinLock(&Ext->GateLock, &Irql);
    Ext->GateShut &= ~Why;
    KeReleaseSpinLock(&Ext->GateLock, Irql);
}

FRFN VOID FrResources(PCM_RESOURCE_LIST List, PFR_RES Res)
{
    ULONG i;
    RtlZeroMemory(Res, sizeof(*Res));
    if (!List || List->Count == 0)
        return;
    for (i = 0; i < List->List[0].PartialResourceList.Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR First = List->List[0].PartialResourceList.PartialDescriptors, D = First + i;
        switch (D->Type) {
        case CmResourceTypeMemory:
            if (Res->Memories < 6) {
                Res->Memory[Res->Memories].Start = D->u.Memory.Start;
                Res->Memory[Res->Memories++].Length = D->u.Memory.Length;
            }
            break;
        case CmResourceTypePort:
            if (Res->Ports < 6) {
                Res->Port[Res->Ports].Start = D->u.Port.Start;
                Res->Port[Res->Ports++].Length = D->u.Port.Length;
            }
            break;
        case CmResourceTypeInterrupt:
            if (!Res->HasInterrupt) {
                Res->HasInterrupt = TRUE;
                Res->Vector = D->u.Interrupt.Vector;
                Res->Irql = (KIRQL)D->u.Interrupt.Level;
                Res->Affinity = D->u.Interrupt.Affinity;
                Res->Mode = (D->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
            }
            break;
        }
    }
}

FRFN NTSTATUS FrConnect(PFR_RES Res, PKSERVICE_ROUTINE Routine, PVOID Context, PKINTERRUPT *Interrupt)
{
    return IoConnectInterrupt(Interrupt, Routine, Context, NULL, Res->Vector, Res->Irql, Res->Irql, Res->Mode, TRUE, Res->Affinity, FALSE);
}

/* A bus master whose addresses have Width bits: the third version of the description says so. */
FRFN PDMA_ADAPTER FrDmaAdapter(PDEVICE_OBJECT Pdo, ULONG Length, ULONG Width, PULONG MapRegisters)
{
    struct {
        DEVICE_DESCRIPTION Old;
        ULONG DmaAddressWidth, DmaControllerInstance, DmaRequestLine;
        PHYSICAL_ADDRESS DeviceAddress;
    } Description;
    RtlZeroMemory(&Description, sizeof(Description));
    Description.Old.Version = 3;                /* DEVICE_DESCRIPTION_VERSION3 */
    Description.Old.Master = TRUE;
    Description.Old.ScatterGather = TRUE;
    Description.Old.Dma32BitAddresses = TRUE;
    Description.Old.InterfaceType = PCIBus;
    Description.Old.MaximumLength = Length;
    Description.DmaAddressWidth = Width;
    return IoGetDmaAdapter(Pdo, (PDEVICE_DESCRIPTION)&Description, MapRegisters);
}

/* Init is called before the device object is attached; it cannot fail. */
FRFN NTSTATUS FrAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG Size, ULONG Flags, const GUID *Guid, const FR_OPS *Ops, VOID (*Init)(PFR_EXT))
{
    PDEVICE_OBJECT Self;
    PFR_EXT Ext;
    NTSTATUS Status = IoCreateDevice(Driver, Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    Ext = (PFR_EXT)Self->DeviceExtension;
    RtlZeroMemory(Ext, Size);
    Ext->Self = Self;
    Ext->Pdo = Pdo;
    Ext->Ops = Ops;
    Ext->GateShut = FR_STOPPED;
    IoInitializeRemoveLock(&Ext->RemoveLock, FR_TAG('F', 'r', 'm', 'L'), 0, 0);
    KeInitializeSpinLock(&Ext->GateLock);
    KeInitializeSpinLock(&Ext->StartLock);
    KeInitializeEvent(&Ext->GateIdle, NotificationEvent, TRUE);
    KeInitializeEvent(&Ext->Turn, SynchronizationEvent, TRUE);
    if (Init)
        Init(Ext);
    Status = IoRegisterDeviceInterface(Pdo, Guid, NULL, &Ext->Interface);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Ext->Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (!Ext->Lower) {
        RtlFreeUnicodeString(&Ext->Interface);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= Flags | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

FRFN NTSTATUS FrPassDown(PFR_EXT Ext, PIRP Irp)     /* the caller holds the remove lock with Irp as its tag */
{
    NTSTATUS Status;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Ext->Lower, Irp);
    IoReleaseRemoveLock(&Ext->RemoveLock, Irp);
    return Status;
}

FRFN VOID FrHalt(PFR_EXT Ext)                       /* the gate is shut */
{
    BOOLEAN Started;
    KIRQL Irql;
    KeWaitForSingleObject(&Ext->Turn, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&Ext->StartLock, &Irql);
    Started = Ext->Started;
    Ext->Started = FALSE;
    KeReleaseSpinLock(&Ext->StartLock, Irql);
    if (Started && Ext->Ops->Stop)
        Ext->Ops->Stop(Ext);
    KeSetEvent(&Ext->Turn, IO_NO_INCREMENT, FALSE);
}

FRFN VOID FrGone(PFR_EXT Ext)                       /* surprise removal and removal */
{
    if (Ext->InterfaceOn) {
        IoSetDeviceInterfaceState(&Ext->Interface, FALSE);
        Ext->InterfaceOn = FALSE;
    }
    FrShut(Ext, FR_REMOVED);
    if (Ext->Ops->Abort)
        Ext->Ops->Abort(Ext);
    FrHalt(Ext);
}

FRFN NTSTATUS FrStart(PFR_EXT Ext, PIRP Irp)
{
    FR_RES Res;
    POWER_STATE Power;
    NTSTATUS Status;
    KIRQL Irql;
    PCM_RESOURCE_LIST List = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    IoCopyCurrentIrpStackLocationToNext(Irp);
    if (!IoForwardIrpSynchronously(Ext->Lower, Irp))
        return STATUS_UNSUCCESSFUL;
    Status = Irp->IoStatus.Status;
    if (!NT_SUCCESS(Status))
        return Status;
    FrResources(List, &Res);
    KeWaitForSingleObject(&Ext->Turn, Executive, KernelMode, FALSE, NULL);
    Status = Ext->Ops->Start ? Ext->Ops->Start(Ext, &Res) : STATUS_SUCCESS;
    if (NT_SUCCESS(Status)) {
        KeAcquireSpinLock(&Ext->StartLock, &Irql);
        Ext->Started = TRUE;
        KeReleaseSpinLock(&Ext->StartLock, Irql);
        Power.DeviceState = PowerDeviceD0;
        PoSetPowerState(Ext->Self, DevicePowerState, Power);
        FrOpen(Ext, FR_STOPPED | FR_ASLEEP);
    }
    KeSetEvent(&Ext->Turn, IO_NO_INCREMENT, FALSE);
    if (NT_SUCCESS(Status) && !Ext->InterfaceOn)
        Ext->InterfaceOn = NT_SUCCESS(IoSetDeviceInterfaceState(&Ext->Interface, TRUE));
    return Status;
}

FRFN NTSTATUS FrPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFR_EXT Ext = (PFR_EXT)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Ext->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = FrStart(Ext, Irp);
        FrComplete(Irp, Status, 0);
        IoReleaseRemoveLock(&Ext->RemoveLock, Irp);
        return Status;
    case IRP_MN_STOP_DEVICE:
        FrShut(Ext, FR_STOPPED);
        FrHalt(Ext);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (Stack->Parameters.UsageNotification.InPath) {       /* no special files here */
            FrComplete(Irp, STATUS_UNSUCCESSFUL, 0);
            IoReleaseRemoveLock(&Ext->RemoveLock, Irp);
            return STATUS_UNSUCCESSFUL;
        }
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        FrGone(Ext);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        FrGone(Ext);
        IoReleaseRemoveLockAndWait(&Ext->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Ext->Lower, Irp);
        IoDetachDevice(Ext->Lower);
        RtlFreeUnicodeString(&Ext->Interface);
        if (Ext->Ops->Free)
            Ext->Ops->Free(Ext);
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    return FrPassDown(Ext, Irp);
}

/* ---- power: the frame's drivers are the power policy owners of their devices ---- */
FRFN VOID FrPowerDown(PFR_EXT Ext, DEVICE_POWER_STATE State)        /* before the request for D1 to D3 goes down */
{
    POWER_STATE Power;
    BOOLEAN Started;
    KIRQL Irql;
    FrShut(Ext, FR_ASLEEP);
    KeWaitForSingleObject(&Ext->Turn, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&Ext->StartLock, &Irql);
    Started = Ext->Started;
    KeReleaseSpinLock(&Ext->StartLock, Irql);
    if (Started && Ext->Ops->PowerDown)
        Ext->Ops->PowerDown(Ext);
    Power.DeviceState = State;
    PoSetPowerState(Ext->Self, DevicePowerState, Power);
    KeSetEvent(&Ext->Turn, IO_NO_INCREMENT, FALSE);
}

FRFN NTSTATUS NTAPI FrD0Done(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PFR_EXT Ext = (PFR_EXT)Context;
    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        POWER_STATE Power;
        KIRQL Irql;
        KeAcquireSpinLock(&Ext->StartLock, &Irql);
        if (Ext->Started && Ext->Ops->PowerUp)
            Ext->Ops->PowerUp(Ext);
        KeReleaseSpinLock(&Ext->StartLock, Irql);
        Power.DeviceState = PowerDeviceD0;
        PoSetPowerState(Ext->Self, DevicePowerState, Power);
        FrOpen(Ext, FR_ASLEEP);
    }
    IoReleaseRemoveLock(&Ext->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

FRFN NTSTATUS FrDeviceSet(PFR_EXT Ext, PIRP Irp)    /* IRP_MN_SET_POWER of a device state; the remove lock is held */
{
    DEVICE_POWER_STATE State = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.DeviceState;
    if (State == PowerDeviceD0) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, FrD0Done, Ext, TRUE, TRUE, TRUE);
        IoCallDriver(Ext->Lower, Irp);
        return STATUS_PENDING;
    }
    FrPowerDown(Ext, State);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    return FrPassDown(Ext, Irp);
}

FRFN VOID NTAPI FrDeviceDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Io)
{
    PIRP Irp = (PIRP)Context;
    PFR_EXT Ext = (PFR_EXT)IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;
    UNREFERENCED_PARAMETER(Pdo);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Io);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&Ext->RemoveLock, Irp);
}

FRFN NTSTATUS NTAPI FrSystemDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PFR_EXT Ext = (PFR_EXT)Context;
    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        POWER_STATE Power;
        SYSTEM_POWER_STATE System = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;
        Power.DeviceState = System == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        if (PoRequestPowerIrp(Ext->Pdo, IRP_MN_SET_POWER, Power, FrDeviceDone, Irp, NULL) == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
    }
    IoReleaseRemoveLock(&Ext->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

FRFN NTSTATUS FrPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFR_EXT Ext = (PFR_EXT)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Ext->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        if (Stack->Parameters.Power.Type == DevicePowerState)
            return FrDeviceSet(Ext, Irp);
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, FrSystemDone, Ext, TRUE, TRUE, TRUE);
        IoCallDriver(Ext->Lower, Irp);
        return STATUS_PENDING;
    }
    return FrPassDown(Ext, Irp);
}

FRFN NTSTATUS FrSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFR_EXT Ext = (PFR_EXT)DeviceObject->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Ext->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    return FrPassDown(Ext, Irp);
}

FRFN VOID NTAPI FrUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

/* what all PnP drivers have; create, close, cleanup, read, write and control are the driver's own */
FRFN VOID FrPnpDriver(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE AddDevice)
{
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = FrUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_PNP] = FrPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = FrPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FrSystemControl;
}

/* ---- QEMU's edu card ---- */
#ifdef FR_EDU
enum { EDU_ID = 0x00, EDU_FACT = 0x08, EDU_STATUS = 0x20, EDU_IRQ = 0x24, EDU_ACK = 0x64,
       EDU_SRC = 0x80, EDU_DST = 0x88, EDU_COUNT = 0x90, EDU_COMMAND = 0x98, EDU_SPAN = 0xA0 };
#define EDU_STORE   4096                /* bytes of memory in the card */
#define EDU_AT      0x40000             /* where they lie, for DMA */
#define EDU_BUSY    0x01                /* of status, and of command */
#define EDU_FACTIRQ 0x80                /* of status */
#define EDU_TO_RAM  0x02                /* of command */
#define EDU_DMAIRQ  0x04
#define IRQ_FACT    0x001               /* of the interrupt status */
#define IRQ_DMA     0x100

typedef struct _FR_EDUCARD {
    PUCHAR Regs;
    ULONG RegsLength;
    PDMA_ADAPTER Adapter;
    PVOID Buffer;                       /* a common buffer of EDU_STORE bytes */
    PHYSICAL_ADDRESS BufferAt;
} FR_EDUCARD, *PFR_EDUCARD;

FRFN ULONG FrEduRead(PFR_EDUCARD Card, ULONG Register) { return READ_REGISTER_ULONG((PULONG)(Card->Regs + Register)); }
FRFN VOID FrEduWrite(PFR_EDUCARD Card, ULONG Register, ULONG Value) { WRITE_REGISTER_ULONG((PULONG)(Card->Regs + Register), Value); }

FRFN VOID FrEduClose(PFR_EDUCARD Card)
{
    if (Card->Buffer)
        Card->Adapter->DmaOperations->FreeCommonBuffer(Card->Adapter, EDU_STORE, Card->BufferAt, Card->Buffer, FALSE);
    if (Card->Adapter)
        Card->Adapter->DmaOperations->PutDmaAdapter(Card->Adapter);
    if (Card->Regs)
        MmUnmapIoSpace(Card->Regs, Card->RegsLength);
    RtlZeroMemory(Card, sizeof(*Card));
}

FRFN NTSTATUS FrEduOpen(PFR_EDUCARD Card, PDEVICE_OBJECT Pdo, PFR_RES Resources)
{
    ULONG MapRegisters;
    NTSTATUS Status = STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(Card, sizeof(*Card));
    if (Resources->Memories < 1 || Resources->Memory[0].Length < EDU_SPAN || !Resources->HasInterrupt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Card->RegsLength = Resources->Memory[0].Length;
    Card->Regs = MmMapIoSpace(Resources->Memory[0].Start, Card->RegsLength, MmNonCached);
    Card->Adapter = Card->Regs ? FrDmaAdapter(Pdo, EDU_STORE, 28, &MapRegisters) : NULL;
    if (Card->Adapter)
        Card->Buffer = Card->Adapter->DmaOperations->AllocateCommonBuffer(Card->Adapter, EDU_STORE, &Card->BufferAt, FALSE);
    if (Card->Buffer) {
        RtlZeroMemory(Card->Buffer, EDU_STORE);
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
        if (Card->BufferAt.QuadPart + EDU_STORE <= 1LL << 28 && (FrEduRead(Card, EDU_ID) & 0xFFFF) == 0x00ED) {
            FrEduWrite(Card, EDU_ACK, FrEduRead(Card, EDU_IRQ));
            return STATUS_SUCCESS;
        }
    }
    FrEduClose(Card);
    return Status;
}

/* Waits until the card's DMA is done, one second at most, or the card has gone. */
FRFN VOID FrEduRest(PFR_EDUCARD Card)
{
    LARGE_INTEGER Time;
    ULONG i, Command;
    for (i = 0; i < 100; i++) {
        Command = FrEduRead(Card, EDU_COMMAND);
        if (!(Command & EDU_BUSY) || Command == 0xFFFFFFFF)
            break;
        Time.QuadPart = -100000;
        KeDelayExecutionThread(KernelMode, FALSE, &Time);
    }
}
#endif
#endif
