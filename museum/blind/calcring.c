/*
 * calcring - queue in front of the factorial unit of QEMU's "edu" card.
 *
 * IOCTL_CALC (in: ULONG n <= 1000, out: ULONG n! mod 2^32) is pended; the requests go
 * to the card one by one, in order, and are finished by its interrupt.  A
 * request stays in the cancel-safe queue until its result is there, so that
 * it can be cancelled at any time.  While the device is stopped for a
 * rebalance or asleep, requests wait in the queue.
 *
 * Registers (BAR0): 08 factorial, 20 status (01 busy, 80 interrupt when done),
 * 24 interrupt status, 64 interrupt acknowledge.
 *
 * The bug: the head of the queue is initialised again at every start, also while requests wait on it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten, request-pending-after-surprise-removal
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>

#define IOCTL_CALC CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E0, METHOD_BUFFERED, FILE_READ_DATA | FILE_WRITE_DATA)

#define R_FACT     0x08
#define R_STATUS   0x20
#define  ST_BUSY    0x01
#define  ST_IRQ     0x80
#define R_INTSTAT  0x24
#define R_INTACK   0x64
#define R_LENGTH   0x70
#define ALL_ONES   0xFFFFFFFFu
#define N_MAX      1000u        /* keeps a calculation below the time we wait for one */

static const GUID CalcGuid = { 0x6d0b2f18, 0x3ac5, 0x4f7e, { 0xa1, 0x99, 0x4b, 0x3c, 0x18, 0xee, 0x07, 0xd4 } };

typedef struct _CALC {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;

    PUCHAR     Regs;            /* START .. STOP/REMOVE */
    ULONG      RegsLength;
    BOOLEAN    Awake;           /* interrupt lock: the ISR may touch the card */
    KDPC       Dpc;
    KMUTEX     Serial;          /* shutting the gate, by PnP or power requests */

    KSPIN_LOCK Lock;            /* all below */
    PKINTERRUPT Intr;
    BOOLEAN    Ready;           /* the card may be given work */
    BOOLEAN    Gone;
    BOOLEAN    Active;          /* the card works on request ActiveTicket */
    ULONG_PTR  ActiveTicket;
    ULONG_PTR  NextTicket;
    LIST_ENTRY Queue;
    IO_CSQ     Csq;
} CALC, *PCALC;

typedef struct _PICK { PFILE_OBJECT File; ULONG_PTR Ticket; } PICK, *PPICK;    /* one of them is 0 */

#define TICKET(irp) ((ULONG_PTR)(irp)->Tail.Overlay.DriverContext[0])

static ULONG Rd(PCALC c, ULONG r) { return READ_REGISTER_ULONG((PULONG)(c->Regs + r)); }
static VOID Wr(PCALC c, ULONG r, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(c->Regs + r), v); }

static NTSTATUS Finish(PCALC c, PIRP Irp, NTSTATUS Status, ULONG_PTR Info, BOOLEAN Locked)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    if (Locked)
        IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return Status;
}

/* ---------------------------------------------------------------- queue -- */

static NTSTATUS NTAPI CsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PCALC c = CONTAINING_RECORD(Csq, CALC, Csq);
    PFILE_OBJECT fo = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    UNREFERENCED_PARAMETER(Context);
    if (c->Gone)
        return STATUS_DELETE_PENDING;
    if (fo != NULL && fo->FsContext2 != NULL)
        return STATUS_CANCELLED;                /* its handle is closed */
    Irp->Tail.Overlay.DriverContext[0] = (PVOID)++c->NextTicket;
    InsertTailList(&c->Queue, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI CsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI CsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PCALC c = CONTAINING_RECORD(Csq, CALC, Csq);
    PPICK pick = Context;
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : c->Queue.Flink;

    for (; e != &c->Queue; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (pick == NULL ||
            (pick->Ticket != 0 && TICKET(next) == pick->Ticket) ||
            (pick->File != NULL && IoGetCurrentIrpStackLocation(next)->FileObject == pick->File))
            return next;
    }
    return NULL;
}

static VOID NTAPI CsqLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, CALC, Csq)->Lock, Irql);
}

static VOID NTAPI CsqUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, CALC, Csq)->Lock, Irql);
}

static VOID NTAPI CsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    Finish(CONTAINING_RECORD(Csq, CALC, Csq), Irp, STATUS_CANCELLED, 0, TRUE);
}

static VOID CalcDrain(PCALC c, PPICK pick, NTSTATUS status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&c->Csq, pick)) != NULL)
        Finish(c, irp, status, 0, TRUE);
}

/* ----------------------------------------------------------------- card -- */

/* Gives the oldest request to the card if that is idle. */
static VOID CalcKick(PCALC c)
{
    KIRQL irql;

    KeAcquireSpinLock(&c->Lock, &irql);
    if (c->Ready && !c->Active && !IsListEmpty(&c->Queue)) {
        PIRP irp = CONTAINING_RECORD(c->Queue.Flink, IRP, Tail.Overlay.ListEntry);
        c->Active = TRUE;
        c->ActiveTicket = TICKET(irp);
        Wr(c, R_FACT, *(PULONG)irp->AssociatedIrp.SystemBuffer);
    }
    KeReleaseSpinLock(&c->Lock, irql);
}

static BOOLEAN NTAPI CalcIsr(PKINTERRUPT Intr, PVOID Context)
{
    PCALC c = Context;
    ULONG v;

    UNREFERENCED_PARAMETER(Intr);
    if (!c->Awake)
        return FALSE;
    v = Rd(c, R_INTSTAT);
    if (v == 0 || v == ALL_ONES)
        return FALSE;
    Wr(c, R_INTACK, v);
    Rd(c, R_INTSTAT);                           /* lets the write arrive */
    KeInsertQueueDpc(&c->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI CalcDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PCALC c = Context;
    PICK pick = { NULL, 0 };
    ULONG result = 0;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc); UNREFERENCED_PARAMETER(A1); UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    if (c->Ready && c->Active && (Rd(c, R_STATUS) & ST_BUSY) == 0) {
        result = Rd(c, R_FACT);
        pick.Ticket = c->ActiveTicket;
        c->Active = FALSE;
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);

    if (pick.Ticket != 0) {
        irp = IoCsqRemoveNextIrp(&c->Csq, &pick);       /* NULL: cancelled meanwhile */
        if (irp != NULL) {
            *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
            Finish(c, irp, STATUS_SUCCESS, sizeof(ULONG), TRUE);
        }
    }
    CalcKick(c);
}

static BOOLEAN NTAPI CalcWakeSync(PVOID Context)
{
    PCALC c = Context;

    c->Awake = TRUE;
    Wr(c, R_STATUS, ST_IRQ);
    return TRUE;
}

static BOOLEAN NTAPI CalcHushSync(PVOID Context)
{
    PCALC c = Context;
    ULONG v;

    Wr(c, R_STATUS, 0);
    v = Rd(c, R_INTSTAT);
    if (v != 0 && v != ALL_ONES) {
        Wr(c, R_INTACK, v);
        Rd(c, R_INTSTAT);
    }
    c->Awake = FALSE;
    return TRUE;
}

/* <= DISPATCH_LEVEL */
static VOID CalcOpenGate(PCALC c)
{
    KIRQL irql;

    KeAcquireSpinLock(&c->Lock, &irql);
    if (c->Intr != NULL && !c->Gone && !c->Ready) {
        KeSynchronizeExecution(c->Intr, CalcWakeSync, c);
        c->Active = FALSE;
        c->Ready = TRUE;
    }
    KeReleaseSpinLock(&c->Lock, irql);
    CalcKick(c);
}

/* Lets a calculation, and the interrupt it may still raise, come to an end. */
static VOID CalcWaitIdle(PCALC c)
{
    LARGE_INTEGER ms;
    ULONG i, v = 0;

    ms.QuadPart = -10000;
    for (i = 0; i < 50; i++) {
        v = Rd(c, R_STATUS);
        if (v == ALL_ONES || (v & ST_BUSY) == 0)
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &ms);
    }
    if (i != 0 && v != ALL_ONES)
        KeDelayExecutionThread(KernelMode, FALSE, &ms);
}

/* PASSIVE_LEVEL.  Afterwards the card is idle, silent and not touched any more. */
static VOID CalcShutGate(PCALC c)
{
    KIRQL irql;
    BOOLEAN was;

    KeWaitForSingleObject(&c->Serial, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&c->Lock, &irql);
    was = c->Ready;
    c->Ready = FALSE;                           /* nothing new from here on */
    c->Active = FALSE;
    KeReleaseSpinLock(&c->Lock, irql);
    if (was) {
        CalcWaitIdle(c);
        KeAcquireSpinLock(&c->Lock, &irql);
        if (c->Intr != NULL)
            KeSynchronizeExecution(c->Intr, CalcHushSync, c);
        KeReleaseSpinLock(&c->Lock, irql);
        KeFlushQueuedDpcs();
    }
    KeReleaseMutex(&c->Serial, FALSE);
}

static VOID CalcRelease(PCALC c)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS dp;
    PKINTERRUPT intr;
    KIRQL irql;

    KeWaitForSingleObject(&c->Serial, Executive, KernelMode, FALSE, NULL);
    CalcShutGate(c);
    KeAcquireSpinLock(&c->Lock, &irql);
    intr = c->Intr;
    c->Intr = NULL;
    KeReleaseSpinLock(&c->Lock, irql);
    if (intr != NULL) {
        RtlZeroMemory(&dp, sizeof(dp));
        dp.Version = CONNECT_LINE_BASED;
        dp.ConnectionContext.InterruptObject = intr;
        IoDisconnectInterruptEx(&dp);
        KeFlushQueuedDpcs();
    }
    if (c->Regs != NULL) {
        MmUnmapIoSpace(c->Regs, c->RegsLength);
        c->Regs = NULL;
    }
    KeReleaseMutex(&c->Serial, FALSE);
}

static NTSTATUS CalcStart(PCALC c, PIRP Irp)
{
    PCM_RESOURCE_LIST rl = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    IO_CONNECT_INTERRUPT_PARAMETERS cp;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    PKINTERRUPT intr = NULL;
    PHYSICAL_ADDRESS pa;
    ULONG i, len = 0;
    KIRQL irql;
    NTSTATUS status;

    pa.QuadPart = 0;
    if (rl == NULL || rl->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d = rl->List[0].PartialResourceList.PartialDescriptors;
    for (i = 0; i < rl->List[0].PartialResourceList.Count; i++, d++) {
        if (d->Type == CmResourceTypeMemory && len == 0) {
            pa = d->u.Memory.Start;
            len = d->u.Memory.Length;
        }
    }
    if (len < R_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    c->Regs = MmMapIoSpace(pa, len, MmNonCached);
    if (c->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    c->RegsLength = len;
#ifndef FIXED
    InitializeListHead(&c->Queue);
#endif
    CalcWaitIdle(c);
    CalcHushSync(c);                            /* not connected yet */

    RtlZeroMemory(&cp, sizeof(cp));
    cp.Version = CONNECT_LINE_BASED;
    cp.LineBased.PhysicalDeviceObject = c->Pdo;
    cp.LineBased.InterruptObject = &intr;
    cp.LineBased.ServiceRoutine = CalcIsr;
    cp.LineBased.ServiceContext = c;
    status = IoConnectInterruptEx(&cp);
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&c->Lock, &irql);
        c->Intr = intr;
        KeReleaseSpinLock(&c->Lock, irql);
        status = IoSetDeviceInterfaceState(&c->Interface, TRUE);
    }
    if (!NT_SUCCESS(status)) {
        CalcRelease(c);
        return status;
    }
    CalcOpenGate(c);
    return STATUS_SUCCESS;
}

/* ------------------------------------------------------------- dispatch -- */

static NTSTATUS CalcControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PCALC c = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Finish(c, Irp, status, 0, FALSE);
    if (sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_CALC)
        return Finish(c, Irp, STATUS_INVALID_DEVICE_REQUEST, 0, TRUE);
    if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
        sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return Finish(c, Irp, STATUS_INFO_LENGTH_MISMATCH, 0, TRUE);
    if (*(PULONG)Irp->AssociatedIrp.SystemBuffer > N_MAX)
        return Finish(c, Irp, STATUS_INVALID_PARAMETER, 0, TRUE);

    IoMarkIrpPending(Irp);
    status = IoCsqInsertIrpEx(&c->Csq, Irp, NULL, NULL);
    if (!NT_SUCCESS(status))
        Finish(c, Irp, status, 0, TRUE);
    else
        CalcKick(c);
    return STATUS_PENDING;
}

static NTSTATUS CalcFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PCALC c = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    KIRQL irql;

    if (sl->MajorFunction == IRP_MJ_CLEANUP) {
        PICK pick = { sl->FileObject, 0 };
        KeAcquireSpinLock(&c->Lock, &irql);
        sl->FileObject->FsContext2 = c;
        KeReleaseSpinLock(&c->Lock, irql);
        CalcDrain(c, &pick, STATUS_CANCELLED);
    }
    return Finish(c, Irp, STATUS_SUCCESS, 0, FALSE);
}

static NTSTATUS CalcWmi(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PCALC c = Dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Finish(c, Irp, status, 0, FALSE);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(c->Lower, Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return status;
}

/* ---------------------------------------------------------------- power -- */

/* The device power request that goes with a system power request is through. */
static VOID NTAPI CalcDevicePowerDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context,
                                   PIO_STATUS_BLOCK Io)
{
    PIRP sys = Context;
    PCALC c = IoGetCurrentIrpStackLocation(sys)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Pdo); UNREFERENCED_PARAMETER(Minor); UNREFERENCED_PARAMETER(State);
    sys->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(sys);
    IoCompleteRequest(sys, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&c->RemoveLock, sys);
}

static NTSTATUS NTAPI CalcSystemPowerDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PCALC c = Context;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    POWER_STATE ps;

    UNREFERENCED_PARAMETER(Dev);
    if (NT_SUCCESS(status)) {
        ps.DeviceState = sl->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(c->Pdo, sl->MinorFunction, ps, CalcDevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI CalcPowerUpDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PCALC c = Context;

    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        PoSetPowerState(Dev, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        CalcOpenGate(c);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS CalcPower(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PCALC c = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN set = sl->MinorFunction == IRP_MN_SET_POWER;
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if ((set || sl->MinorFunction == IRP_MN_QUERY_POWER) && sl->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, CalcSystemPowerDone, c, TRUE, TRUE, TRUE);
        PoCallDriver(c->Lower, Irp);
        return STATUS_PENDING;
    }
    if (set && sl->Parameters.Power.State.DeviceState == PowerDeviceD0) {
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, CalcPowerUpDone, c, TRUE, TRUE, TRUE);
        return PoCallDriver(c->Lower, Irp);
    }
    if (set) {
        CalcShutGate(c);
        PoSetPowerState(Dev, DevicePowerState, sl->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(c->Lower, Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return status;
}

static NTSTATUS CalcPnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PCALC c = Dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return Finish(c, Irp, status, 0, FALSE);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(c->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status))
            status = CalcStart(c, Irp);
        return Finish(c, Irp, status, 0, TRUE);

    case IRP_MN_STOP_DEVICE:
        CalcRelease(c);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
    case IRP_MN_REMOVE_DEVICE:
        KeAcquireSpinLock(&c->Lock, &irql);
        c->Gone = TRUE;
        KeReleaseSpinLock(&c->Lock, irql);
        IoSetDeviceInterfaceState(&c->Interface, FALSE);
        CalcDrain(c, NULL, STATUS_DELETE_PENDING);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_SURPRISE_REMOVAL) {
            CalcRelease(c);
            break;
        }
        IoReleaseRemoveLockAndWait(&c->RemoveLock, Irp);
        CalcRelease(c);
        RtlFreeUnicodeString(&c->Interface);
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(c->Lower, Irp);
        IoDetachDevice(c->Lower);
        IoDeleteDevice(Dev);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(c->Lower, Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return status;
}

static NTSTATUS CalcAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PCALC c;
    NTSTATUS status;

    status = IoCreateDevice(Drv, sizeof(CALC), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    c = dev->DeviceExtension;
    RtlZeroMemory(c, sizeof(*c));
    c->Self = dev;
    c->Pdo = Pdo;
    IoInitializeRemoveLock(&c->RemoveLock, 'claC', 0, 0);
    KeInitializeSpinLock(&c->Lock);
    KeInitializeDpc(&c->Dpc, CalcDpc, c);
    KeInitializeMutex(&c->Serial, 0);
    InitializeListHead(&c->Queue);
    status = IoCsqInitializeEx(&c->Csq, CsqInsert, CsqRemove, CsqPeek, CsqLock, CsqUnlock, CsqCancelled);
    if (NT_SUCCESS(status))
        status = IoRegisterDeviceInterface(Pdo, &CalcGuid, NULL, &c->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    c->Lower = IoAttachDeviceToDeviceStack(dev, Pdo);
    if (c->Lower == NULL) {
        RtlFreeUnicodeString(&c->Interface);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID CalcUnload(PDRIVER_OBJECT Drv) { UNREFERENCED_PARAMETER(Drv); }

NTSTATUS DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Drv->DriverExtension->AddDevice = CalcAdd;
    Drv->DriverUnload = CalcUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = CalcFile;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = CalcFile;
    Drv->MajorFunction[IRP_MJ_CLOSE] = CalcFile;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CalcControl;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CalcWmi;
    Drv->MajorFunction[IRP_MJ_POWER] = CalcPower;
    Drv->MajorFunction[IRP_MJ_PNP] = CalcPnp;
    return STATUS_SUCCESS;
}
