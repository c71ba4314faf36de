/*
 * sable_wdm.h: the plumbing that the drivers of this set share: device object and interface, PnP, power, WMI, the
 * remove lock, a cancellable list of requests, the interrupt's switch.
 *
 * A driver's extension begins with a SABLE. The driver gives CardStart, CardStop, CardSleep, CardWake and CardFree.
 *
 * Locks: SABLE.Lock (spin lock) guards Started, Asleep, Gone, Interrupt and all lists of requests. Registers are used
 * under it, when SableLive says so, or in the interrupt's routine when IsrOn is set. IsrOn is changed with the
 * interrupt's own lock held.
 */
#ifndef SABLE_WDM_H
#define SABLE_WDM_H

#define SABLE_FN static __attribute__((unused))
#define SABLE_TAG 'lbaS'
#define SABLE_ONES 0xFFFFFFFFu

typedef struct _SABLE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Lower;
    PDEVICE_OBJECT Pdo;
    IO_REMOVE_LOCK Remove;
    KSPIN_LOCK Lock;
    UNICODE_STRING Link;
    BOOLEAN LinkOn;
    BOOLEAN Started;
    BOOLEAN Asleep;
    BOOLEAN Gone;
    volatile LONG IsrOn;
    PKINTERRUPT Interrupt;
    PIRP SystemIrp;
} SABLE, *PSABLE;

typedef struct _SABLE_RES {
    PHYSICAL_ADDRESS Mem[4];
    ULONG MemLen[4];
    ULONG MemCount;
    BOOLEAN HasIrq;
    BOOLEAN Latched;
    KIRQL Level;
    ULONG Vector;
    KAFFINITY Affinity;
} SABLE_RES, *PSABLE_RES;

/* Given by the driver. */
static NTSTATUS CardStart(PSABLE C, PSABLE_RES R);  /* PASSIVE_LEVEL; on failure CardStop is called by the caller */
static VOID CardStop(PSABLE C);                     /* PASSIVE_LEVEL; may be called at any time and more than once */
static VOID CardSleep(PSABLE C);                    /* PASSIVE_LEVEL; the device leaves D0 */
static VOID CardWake(PSABLE C);                     /* up to DISPATCH_LEVEL; the device is in D0 again */
static VOID CardFree(PSABLE C);                     /* PASSIVE_LEVEL; last call before the extension goes */

#define SableLive(C) ((C)->Started && !(C)->Asleep && !(C)->Gone)

/* ---- requests ---- */

SABLE_FN NTSTATUS SableFinish(PSABLE C, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&C->Remove, Irp);
    return Status;
}

/* For a request that could not get the remove lock. */
SABLE_FN NTSTATUS SableRefuse(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

SABLE_FN VOID NTAPI SableCancel(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSABLE C = Dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&C->Lock, &q);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&C->Lock, q);
    SableFinish(C, Irp, STATUS_CANCELLED, 0);
}

/* Lock held. STATUS_PENDING: it is in the list now. STATUS_CANCELLED: it is not, the caller ends it. */
SABLE_FN NTSTATUS SableQueue(PLIST_ENTRY List, PIRP Irp)
{
    IoSetCancelRoutine(Irp, SableCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL)
        return STATUS_CANCELLED;
    IoMarkIrpPending(Irp);
    InsertTailList(List, &Irp->Tail.Overlay.ListEntry);
    return STATUS_PENDING;
}

/* Lock held. Takes the first request (of that file) that is not being cancelled. */
SABLE_FN PIRP SableTake(PLIST_ENTRY List, PFILE_OBJECT File)
{
    PLIST_ENTRY e = List->Flink;

    while (e != List) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        PLIST_ENTRY next = e->Flink;

        if (!File || IoGetCurrentIrpStackLocation(irp)->FileObject == File) {
            RemoveEntryList(e);
            if (IoSetCancelRoutine(irp, NULL) != NULL)
                return irp;
            InitializeListHead(e);      /* the cancel routine waits for the lock and will end it */
        }
        e = next;
    }
    return NULL;
}

SABLE_FN VOID SableFlush(PSABLE C, PLIST_ENTRY List, PFILE_OBJECT File, NTSTATUS Status)
{
    for (;;) {
        KIRQL q;
        PIRP irp;

        KeAcquireSpinLock(&C->Lock, &q);
        irp = SableTake(List, File);
        KeReleaseSpinLock(&C->Lock, q);
        if (!irp)
            return;
        SableFinish(C, irp, Status, 0);
    }
}

/* ---- interrupt ---- */

SABLE_FN BOOLEAN NTAPI SableIsrOn(PVOID Context)
{
    ((PSABLE)Context)->IsrOn = 1;
    return TRUE;
}

SABLE_FN BOOLEAN NTAPI SableIsrOff(PVOID Context)
{
    ((PSABLE)Context)->IsrOn = 0;
    return TRUE;
}

/* Lock held. */
SABLE_FN VOID SableSync(PSABLE C, PKSYNCHRONIZE_ROUTINE Routine, PVOID Context)
{
    if (C->Interrupt)
        KeSynchronizeExecution(C->Interrupt, Routine, Context);
}

/* The card must be masked when this is called. */
SABLE_FN NTSTATUS SableConnect(PSABLE C, PSABLE_RES R, PKSERVICE_ROUTINE Isr)
{
    PKINTERRUPT interrupt = NULL;
    NTSTATUS status;
    KIRQL q;

    status = IoConnectInterrupt(&interrupt, Isr, C, NULL, R->Vector, R->Level, R->Level,
                                R->Latched ? Latched : LevelSensitive, TRUE, R->Affinity, FALSE);
    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&C->Lock, &q);
    C->Interrupt = interrupt;
    KeReleaseSpinLock(&C->Lock, q);
    return STATUS_SUCCESS;
}

/* After this no register is used, the interrupt is disconnected and no DPC runs. The card was masked before. */
SABLE_FN VOID SableDown(PSABLE C)
{
    PKINTERRUPT interrupt;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    C->Started = FALSE;
    SableSync(C, SableIsrOff, C);
    interrupt = C->Interrupt;
    C->Interrupt = NULL;
    KeReleaseSpinLock(&C->Lock, q);
    if (interrupt)
        IoDisconnectInterrupt(interrupt);
    KeFlushQueuedDpcs();
}

/* ---- PnP ---- */

SABLE_FN BOOLEAN SableParse(PCM_RESOURCE_LIST List, PSABLE_RES R)
{
    PCM_PARTIAL_RESOURCE_LIST part;
    ULONG i;

    RtlZeroMemory(R, sizeof *R);
    if (!List || List->Count == 0)
        return FALSE;
    part = &List->List[0].PartialResourceList;
    for (i = 0; i < part->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &part->PartialDescriptors[i];

        if (d->Type == CmResourceTypeMemory && R->MemCount < 4) {
            R->Mem[R->MemCount] = d->u.Memory.Start;
            R->MemLen[R->MemCount++] = d->u.Memory.Length;
        } else if (d->Type == CmResourceTypeInterrupt && !R->HasIrq) {
            R->HasIrq = TRUE;
            R->Latched = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0;
            R->Level = (KIRQL)d->u.Interrupt.Level;
            R->Vector = d->u.Interrupt.Vector;
            R->Affinity = d->u.Interrupt.Affinity;
        }
    }
    return TRUE;
}

SABLE_FN VOID SableInterface(PSABLE C, BOOLEAN On)
{
    if (C->LinkOn != On && NT_SUCCESS(IoSetDeviceInterfaceState(&C->Link, On)))
        C->LinkOn = On;
    else if (!On)
        C->LinkOn = FALSE;
}

SABLE_FN NTSTATUS SableStart(PSABLE C, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE d0;
    SABLE_RES res;
    NTSTATUS status;
    KIRQL q;

    CardStop(C);
    if (!IoForwardIrpSynchronously(C->Lower, Irp))
        return STATUS_UNSUCCESSFUL;
    if (!NT_SUCCESS(Irp->IoStatus.Status))
        return Irp->IoStatus.Status;
    if (!SableParse(s->Parameters.StartDevice.AllocatedResourcesTranslated, &res) || !res.HasIrq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    KeAcquireSpinLock(&C->Lock, &q);
    C->Asleep = FALSE;
    KeReleaseSpinLock(&C->Lock, q);
    status = CardStart(C, &res);
    if (!NT_SUCCESS(status)) {
        CardStop(C);
        return status;
    }
    d0.DeviceState = PowerDeviceD0;
    PoSetPowerState(C->Self, DevicePowerState, d0);
    SableInterface(C, TRUE);
    if (!C->LinkOn) {
        CardStop(C);
        return STATUS_UNSUCCESSFUL;
    }
    return STATUS_SUCCESS;
}

SABLE_FN NTSTATUS NTAPI SablePnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSABLE C = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&C->Remove, Irp);
    KIRQL q;

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, status);
    switch (s->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = SableStart(C, Irp);
        return SableFinish(C, Irp, status, 0);
    case IRP_MN_STOP_DEVICE:
        CardStop(C);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        KeAcquireSpinLock(&C->Lock, &q);
        C->Gone = TRUE;
        KeReleaseSpinLock(&C->Lock, q);
        CardStop(C);
        SableInterface(C, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        CardStop(C);
        SableInterface(C, FALSE);
        IoReleaseRemoveLockAndWait(&C->Remove, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(C->Lower, Irp);
        CardFree(C);
        IoDetachDevice(C->Lower);
        RtlFreeUnicodeString(&C->Link);
        IoDeleteDevice(Dev);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(C->Lower, Irp);
    IoReleaseRemoveLock(&C->Remove, Irp);
    return status;
}

/* ---- power ---- */

SABLE_FN VOID NTAPI SableSystemEnd(PDEVICE_OBJECT Dev, UCHAR Minor, POWER_STATE State, PVOID Context,
                                   PIO_STATUS_BLOCK Io)
{
    PSABLE C = Context;
    PIRP irp = C->SystemIrp;

    (void)Dev;
    (void)Minor;
    (void)State;
    C->SystemIrp = NULL;
    PoStartNextPowerIrp(irp);
    SableFinish(C, irp, Io->Status, 0);
}

SABLE_FN NTSTATUS NTAPI SableSystemDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PSABLE C = Context;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;

    (void)Dev;
    if (NT_SUCCESS(status)) {
        POWER_STATE state;

        state.DeviceState = s->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0
                                                                                        : PowerDeviceD3;
        C->SystemIrp = Irp;
        status = PoRequestPowerIrp(C->Pdo, IRP_MN_SET_POWER, state, SableSystemEnd, C, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        C->SystemIrp = NULL;
        Irp->IoStatus.Status = NT_SUCCESS(status) ? STATUS_UNSUCCESSFUL : status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&C->Remove, Irp);
    return STATUS_SUCCESS;
}

SABLE_FN NTSTATUS NTAPI SableD0Done(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PSABLE C = Context;

    (void)Dev;
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

        CardWake(C);
        PoSetPowerState(C->Self, DevicePowerState, s->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&C->Remove, Irp);
    return STATUS_SUCCESS;
}

SABLE_FN NTSTATUS NTAPI SablePower(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSABLE C = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&C->Remove, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return SableRefuse(Irp, status);
    }
    if (s->MinorFunction == IRP_MN_SET_POWER) {
        BOOLEAN system = s->Parameters.Power.Type == SystemPowerState;

        Irp->IoStatus.Status = STATUS_SUCCESS;
        if (system || s->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, system ? SableSystemDone : SableD0Done, C, TRUE, TRUE, TRUE);
            PoCallDriver(C->Lower, Irp);
            return STATUS_PENDING;
        }
        CardSleep(C);
        PoSetPowerState(C->Self, DevicePowerState, s->Parameters.Power.State);
    } else if (s->MinorFunction == IRP_MN_QUERY_POWER) {
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(C->Lower, Irp);
    IoReleaseRemoveLock(&C->Remove, Irp);
    return status;
}

/* ---- WMI, add, unload ---- */

SABLE_FN NTSTATUS NTAPI SableWmi(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSABLE C = Dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&C->Remove, Irp);

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, status);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(C->Lower, Irp);
    IoReleaseRemoveLock(&C->Remove, Irp);
    return status;
}

/* Create the device; the caller sets up its own fields and then calls SableAddEnd. */
SABLE_FN NTSTATUS SableAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG Size, const GUID *Guid, PSABLE *Out)
{
    PDEVICE_OBJECT dev;
    PSABLE C;
    NTSTATUS status;

    status = IoCreateDevice(Driver, Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    C = dev->DeviceExtension;
    RtlZeroMemory(C, Size);
    C->Self = dev;
    C->Pdo = Pdo;
    IoInitializeRemoveLock(&C->Remove, SABLE_TAG, 0, 0);
    KeInitializeSpinLock(&C->Lock);
    status = IoRegisterDeviceInterface(Pdo, Guid, NULL, &C->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    *Out = C;
    return STATUS_SUCCESS;
}

SABLE_FN NTSTATUS SableAddEnd(PSABLE C)
{
    PDEVICE_OBJECT dev = C->Self;

    C->Lower = IoAttachDeviceToDeviceStack(dev, C->Pdo);
    if (!C->Lower) {
        RtlFreeUnicodeString(&C->Link);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

SABLE_FN VOID NTAPI SableUnload(PDRIVER_OBJECT Driver)
{
    (void)Driver;
}

SABLE_FN VOID SableEntry(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE Add)
{
    Driver->DriverExtension->AddDevice = Add;
    Driver->DriverUnload = SableUnload;
    Driver->MajorFunction[IRP_MJ_PNP] = SablePnp;
    Driver->MajorFunction[IRP_MJ_POWER] = SablePower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SableWmi;
}

#endif
