/*
 * unit_kit.h - PnP, power and request queue for a card with registers in one
 * memory BAR and a line interrupt.
 *
 * The including driver defines CARD_TAG and CARD_GUID, a structure EXT whose
 * first member is "CARD Card", and the routines declared at "hooks" below.
 *
 * Card.Lock guards Ready, the queue, Current, and every access to the
 * registers outside the ISR: registers may be touched only while Ready is
 * TRUE.  The ISR may touch them while Armed is TRUE.
 */
#pragma once
#include <ddk/wdm.h>

typedef struct _CARD {
    PDEVICE_OBJECT Fdo, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING LinkName;

    PUCHAR         Regs;
    SIZE_T         RegsLength;
    PKINTERRUPT    Interrupt;
    KDPC           Dpc;
    BOOLEAN        Armed;

    KSPIN_LOCK     Lock;
    BOOLEAN        Started;             /* mapped and connected */
    BOOLEAN        Powered;             /* in D0 */
    BOOLEAN        Ready;               /* both, and set up */

    LIST_ENTRY     Queue;
    PIRP           Current;             /* off the queue, with the card */
} CARD, *PCARD;

typedef enum { CardSleeps, CardStops, CardIsGone } CARD_DOWN;

typedef struct _EXT EXT, *PEXT;

/* hooks */
static ULONG    CardMinBytes(VOID);
static NTSTATUS CardProbe(PEXT x);              /* PASSIVE; mapped, not connected; must leave the card's interrupts off */
static VOID     CardRelease(PEXT x);            /* PASSIVE; undoes CardProbe; may be called more than once */
static VOID     CardUp(PEXT x);                 /* Lock held; the ISR is not armed yet */
static VOID     CardDrain(PEXT x, BOOLEAN Touch);/* PASSIVE; may be Ready, will not become it: finish or stop what the card does */
static VOID     CardDown(PEXT x, BOOLEAN Touch);/* Lock held; was Ready; ISR disarmed */
static VOID     CardQuiesce(PEXT x);            /* PASSIVE, after CardDown: stop timers and the like; DPCs are flushed next */
static KSERVICE_ROUTINE   CardIsr;
static KDEFERRED_ROUTINE  CardDpc;

#define CARD_EXT_OF(dev) ((PEXT)(dev)->DeviceExtension)
#define CARD_OF(dev)     ((PCARD)(dev)->DeviceExtension)

static inline ULONG CardRead(PCARD c, ULONG At)
{
    return READ_REGISTER_ULONG((PULONG)(c->Regs + At));
}

static inline VOID CardWrite(PCARD c, ULONG At, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(c->Regs + At), Value);
}

static inline NTSTATUS CardComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ------------------------------------------------------------------ queue */

static VOID NTAPI CardCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCARD c = CARD_OF(DeviceObject);
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&c->Lock, &irql);
    if (c->Current == Irp)
        c->Current = NULL;
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&c->Lock, irql);
    CardComplete(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
}

/*
 * Lock held.  STATUS_PENDING: the IRP, and the remove lock taken for it, belong
 * to the queue.  Otherwise they are still the caller's.
 */
static inline NTSTATUS CardEnqueue(PCARD c, PIRP Irp)
{
    if (!c->Ready)
        return STATUS_DEVICE_NOT_READY;
    IoSetCancelRoutine(Irp, CardCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL)
        return STATUS_CANCELLED;
    IoMarkIrpPending(Irp);
    InsertTailList(&c->Queue, &Irp->Tail.Overlay.ListEntry);
    return STATUS_PENDING;
}

/* Lock held.  Makes the next request Current (still cancelable) and returns it. */
static inline PIRP CardNext(PCARD c)
{
    while (!IsListEmpty(&c->Queue)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&c->Queue), IRP, Tail.Overlay.ListEntry);

        InitializeListHead(&irp->Tail.Overlay.ListEntry);
        if (irp->Cancel)
            continue;                   /* its cancel routine waits for the lock */
        c->Current = irp;
        return irp;
    }
    return NULL;
}

/* Lock held.  The current request, for completion; NULL if it has been cancelled. */
static inline PIRP CardTakeCurrent(PCARD c)
{
    PIRP irp = c->Current;

    c->Current = NULL;
    if (irp && IoSetCancelRoutine(irp, NULL) == NULL)
        irp = NULL;
    return irp;
}

/* Lock held.  File NULL: everything. */
static inline VOID CardTakeAll(PCARD c, PFILE_OBJECT File, PLIST_ENTRY Out)
{
    PLIST_ENTRY e, next;
    PIRP irp;

    for (e = c->Queue.Flink; e != &c->Queue; e = next) {
        next = e->Flink;
        irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;
        RemoveEntryList(e);
        InsertTailList(Out, e);
    }
    irp = c->Current;
    if (irp && (!File || IoGetCurrentIrpStackLocation(irp)->FileObject == File)) {
        irp = CardTakeCurrent(c);
        if (irp)
            InsertTailList(Out, &irp->Tail.Overlay.ListEntry);
    }
}

static inline VOID CardCompleteAll(PCARD c, PLIST_ENTRY List, NTSTATUS Status)
{
    while (!IsListEmpty(List)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(List), IRP, Tail.Overlay.ListEntry);

        CardComplete(irp, Status, 0);
        IoReleaseRemoveLock(&c->RemoveLock, irp);
    }
}

static NTSTATUS NTAPI CardCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return CardComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI CardCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCARD c = CARD_OF(DeviceObject);
    LIST_ENTRY list;
    KIRQL irql;

    if (NT_SUCCESS(IoAcquireRemoveLock(&c->RemoveLock, Irp))) {
        InitializeListHead(&list);
        KeAcquireSpinLock(&c->Lock, &irql);
        CardTakeAll(c, IoGetCurrentIrpStackLocation(Irp)->FileObject, &list);
        KeReleaseSpinLock(&c->Lock, irql);
        CardCompleteAll(c, &list, STATUS_CANCELLED);
        IoReleaseRemoveLock(&c->RemoveLock, Irp);
    }
    return CardComplete(Irp, STATUS_SUCCESS, 0);
}

/* --------------------------------------------------------------- hardware */

static BOOLEAN NTAPI CardArm(PVOID Context)
{
    ((PCARD)Context)->Armed = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI CardDisarm(PVOID Context)
{
    ((PCARD)Context)->Armed = FALSE;
    return TRUE;
}

static VOID CardBringUp(PEXT x)
{
    PCARD c = (PCARD)x;
    KIRQL irql;

    KeAcquireSpinLock(&c->Lock, &irql);
    if (c->Started && c->Powered && !c->Ready) {
        KeSynchronizeExecution(c->Interrupt, CardArm, c);
        CardUp(x);
        c->Ready = TRUE;
    }
    KeReleaseSpinLock(&c->Lock, irql);
}

static VOID CardBringDown(PEXT x, CARD_DOWN Why)
{
    PCARD c = (PCARD)x;
    LIST_ENTRY list;
    KIRQL irql;

    KeAcquireSpinLock(&c->Lock, &irql);
    if (Why == CardSleeps)
        c->Powered = FALSE;
    else
        c->Started = FALSE;
    KeReleaseSpinLock(&c->Lock, irql);

    CardDrain(x, Why != CardIsGone);

    InitializeListHead(&list);
    KeAcquireSpinLock(&c->Lock, &irql);
    if (c->Ready) {
        c->Ready = FALSE;
        CardDown(x, Why != CardIsGone);
        KeSynchronizeExecution(c->Interrupt, CardDisarm, c);
    }
    CardTakeAll(c, NULL, &list);
    KeReleaseSpinLock(&c->Lock, irql);
    CardCompleteAll(c, &list, Why == CardIsGone ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY);
}

static VOID CardReleaseHardware(PEXT x)
{
    PCARD c = (PCARD)x;
    IO_DISCONNECT_INTERRUPT_PARAMETERS d;

    if (c->Interrupt) {
        RtlZeroMemory(&d, sizeof(d));
        d.Version = CONNECT_LINE_BASED;
        d.ConnectionContext.InterruptObject = c->Interrupt;
        IoDisconnectInterruptEx(&d);
        c->Interrupt = NULL;
    }
    CardQuiesce(x);
    KeRemoveQueueDpc(&c->Dpc);
    KeFlushQueuedDpcs();
    CardRelease(x);
    if (c->Regs) {
        MmUnmapIoSpace(c->Regs, c->RegsLength);
        c->Regs = NULL;
    }
}

static NTSTATUS CardStart(PEXT x, PCM_RESOURCE_LIST List)
{
    PCARD c = (PCARD)x;
    IO_CONNECT_INTERRUPT_PARAMETERS p;
    PCM_PARTIAL_RESOURCE_LIST res;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = NULL;
    NTSTATUS status;
    KIRQL irql;
    ULONG i;

    if (!List || List->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    res = &List->List[0].PartialResourceList;
    for (i = 0; i < res->Count && !mem; i++)
        if (res->PartialDescriptors[i].Type == CmResourceTypeMemory)
            mem = &res->PartialDescriptors[i];
    if (!mem || mem->u.Memory.Length < CardMinBytes())
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    c->RegsLength = mem->u.Memory.Length;
    c->Regs = MmMapIoSpace(mem->u.Memory.Start, c->RegsLength, MmNonCached);
    if (!c->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;

    status = CardProbe(x);
    if (NT_SUCCESS(status)) {
        RtlZeroMemory(&p, sizeof(p));
        p.Version = CONNECT_LINE_BASED;
        p.LineBased.PhysicalDeviceObject = c->Pdo;
        p.LineBased.InterruptObject = &c->Interrupt;
        p.LineBased.ServiceRoutine = CardIsr;
        p.LineBased.ServiceContext = x;
        status = IoConnectInterruptEx(&p);
        if (!NT_SUCCESS(status))
            c->Interrupt = NULL;
    }
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&c->Lock, &irql);
        c->Started = TRUE;
        c->Powered = TRUE;
        KeReleaseSpinLock(&c->Lock, irql);
        CardBringUp(x);
        status = IoSetDeviceInterfaceState(&c->LinkName, TRUE);
        if (!NT_SUCCESS(status))
            CardBringDown(x, CardStops);
    }
    if (!NT_SUCCESS(status)) {
        CardReleaseHardware(x);
        return status;
    }
    return STATUS_SUCCESS;
}

/* -------------------------------------------------------------------- PnP */

static NTSTATUS CardPassDown(PCARD c, PIRP Irp)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(c->Lower, Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI CardPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEXT x = CARD_EXT_OF(DeviceObject);
    PCARD c = (PCARD)x;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&c->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return CardComplete(Irp, status, 0);

    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(c->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status))
            status = CardStart(x, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        CardComplete(Irp, status, 0);
        IoReleaseRemoveLock(&c->RemoveLock, Irp);
        return status;
    case IRP_MN_STOP_DEVICE:
        CardBringDown(x, CardStops);
        CardReleaseHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&c->LinkName, FALSE);
        CardBringDown(x, CardIsGone);
        CardReleaseHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&c->LinkName, FALSE);
        CardBringDown(x, CardStops);
        CardReleaseHardware(x);
        IoReleaseRemoveLockAndWait(&c->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(c->Lower, Irp);
        IoDetachDevice(c->Lower);
        RtlFreeUnicodeString(&c->LinkName);
        IoDeleteDevice(DeviceObject);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    return CardPassDown(c, Irp);
}

static NTSTATUS NTAPI CardSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCARD c = CARD_OF(DeviceObject);
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return CardComplete(Irp, status, 0);
    return CardPassDown(c, Irp);
}

/* ------------------------------------------------------------------ power */

/* The device IRP that goes with a system IRP is done: so is the system IRP. */
static VOID NTAPI CardDeviceStateSet(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State,
                                     PVOID Context, PIO_STATUS_BLOCK IoStatus)
{
    PIRP irp = Context;
    PCARD c = CARD_OF(IoGetCurrentIrpStackLocation(irp)->DeviceObject);

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);

    PoStartNextPowerIrp(irp);
    CardComplete(irp, IoStatus->Status, 0);
    IoReleaseRemoveLock(&c->RemoveLock, irp);
}

static NTSTATUS NTAPI CardSystemStateSet(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PCARD c = Context;
    POWER_STATE state;
    NTSTATUS status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(DeviceObject);

    if (NT_SUCCESS(status)) {
        state.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState ==
                            PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(c->Pdo, IRP_MN_SET_POWER, state, CardDeviceStateSet, Irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI CardD0Reached(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PCARD c = Context;
    POWER_STATE state;
    KIRQL irql;

    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        state.DeviceState = PowerDeviceD0;
        PoSetPowerState(DeviceObject, DevicePowerState, state);
        KeAcquireSpinLock(&c->Lock, &irql);
        c->Powered = TRUE;
        KeReleaseSpinLock(&c->Lock, irql);
        CardBringUp((PEXT)c);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI CardPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCARD c = CARD_OF(DeviceObject);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PIO_COMPLETION_ROUTINE then = NULL;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&c->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return CardComplete(Irp, status, 0);
    }

    if (sl->MinorFunction == IRP_MN_SET_POWER) {
        if (sl->Parameters.Power.Type == SystemPowerState) {
            then = CardSystemStateSet;
        } else if (sl->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            then = CardD0Reached;
        } else {
            CardBringDown((PEXT)c, CardSleeps);
            PoSetPowerState(DeviceObject, DevicePowerState, sl->Parameters.Power.State);
        }
    }
    if (then) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, then, c, TRUE, TRUE, TRUE);
        PoCallDriver(c->Lower, Irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(c->Lower, Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return status;
}

/* ------------------------------------------------------------------ entry */

static NTSTATUS CardAttach(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo, ULONG ExtBytes, PEXT *Ext)
{
    PDEVICE_OBJECT fdo;
    PCARD c;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, ExtBytes, NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status))
        return status;
    c = CARD_OF(fdo);
    RtlZeroMemory(c, ExtBytes);
    c->Fdo = fdo;
    c->Pdo = Pdo;
    IoInitializeRemoveLock(&c->RemoveLock, CARD_TAG, 0, 0);
    KeInitializeSpinLock(&c->Lock);
    KeInitializeDpc(&c->Dpc, CardDpc, c);
    InitializeListHead(&c->Queue);

    status = IoRegisterDeviceInterface(Pdo, &CARD_GUID, NULL, &c->LinkName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    c->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (!c->Lower) {
        RtlFreeUnicodeString(&c->LinkName);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    *Ext = (PEXT)c;
    return STATUS_SUCCESS;          /* the caller clears DO_DEVICE_INITIALIZING */
}

static VOID NTAPI CardUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

static VOID CardDispatch(PDRIVER_OBJECT DriverObject, PDRIVER_ADD_DEVICE AddDevice)
{
    DriverObject->MajorFunction[IRP_MJ_CREATE] = CardCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = CardCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = CardCreateClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = CardPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = CardPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CardSystemControl;
    DriverObject->DriverExtension->AddDevice = AddDevice;
    DriverObject->DriverUnload = CardUnload;
}
