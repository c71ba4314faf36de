/*
 * trigline - trigger counter board behind a PLX PCI 9052.
 *
 * The board latches trigger pulses on 16 channels.  As long as a latch is set
 * it drives the bridge's LINT1 input; the local configuration registers (BAR0)
 * decide whether the bridge passes that on to the PCI interrupt line, which
 * the slot shares with its neighbours.  The service routine closes the bridge,
 * the DPC reads and clears the latches and opens it again.
 *
 *   IOCTL_TRIG_ARM     in: ULONG mask of the channels to count
 *   IOCTL_TRIG_DISARM
 *   IOCTL_TRIG_COUNTS  out: ULONG[16]
 *
 * Local space 0 (BAR2): 00 latches, write 1 to clear; 04 board revision.
 *
 * The bug: the service routine claims by the state of the input, whether it may interrupt or not.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm
 * Needs: device
 */
#include <ddk/wdm.h>

#define CHANNELS 16

#define IOCTL_TRIG_ARM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_TRIG_DISARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_TRIG_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x903, METHOD_BUFFERED, FILE_READ_DATA)

#define LCR_INTCSR      0x4C
#define  INT_LINT1_EN   0x001
#define  INT_LINT1_ACT  0x004
#define  INT_LINT2_EN   0x008
#define  INT_PCI_EN     0x040
#define  INT_SOFT       0x080
#define LCR_LENGTH      0x54
#define BRD_LATCH       0x00
#define BRD_LENGTH      0x08
#define GONE            0xFFFFFFFFu

static const GUID TrigGuid = { 0x3c61d5fa, 0xe0b8, 0x4d34, { 0xb7, 0x5a, 0x06, 0xd2, 0x4e, 0x81, 0x9f, 0x17 } };

typedef struct _TRIG {
    PDEVICE_OBJECT Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;

    PUCHAR      Lcr, Brd;           /* mapped from START to STOP */
    ULONG       LcrLen, BrdLen;
    KDPC        Dpc;
    BOOLEAN     Listening;          /* interrupt lock: the card may be touched at DIRQL */
    BOOLEAN     Open;               /* interrupt lock: the bridge is to be open when the latches are clear */

    KSPIN_LOCK  Lock;               /* all below, and the board's registers */
    PKINTERRUPT Intr;
    BOOLEAN     Ready;              /* started and in D0 */
    BOOLEAN     Armed;              /* as the program wants it */
    ULONG       Mask;
    ULONG       Count[CHANNELS];
} TRIG, *PTRIG;

static NTSTATUS TrigComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ------------------------------------------------- the bridge, at DIRQL -- */

static ULONG IntCsr(PTRIG t) { return READ_REGISTER_ULONG((PULONG)(t->Lcr + LCR_INTCSR)); }

static VOID SetIntCsr(PTRIG t, ULONG v)
{
    WRITE_REGISTER_ULONG((PULONG)(t->Lcr + LCR_INTCSR), v);
    IntCsr(t);                                      /* has arrived */
}

static BOOLEAN NTAPI BridgeClose(PVOID Context)
{
    PTRIG t = Context;

    t->Open = FALSE;
    SetIntCsr(t, IntCsr(t) & ~(INT_LINT1_EN | INT_LINT2_EN | INT_PCI_EN | INT_SOFT));
    return TRUE;
}

static BOOLEAN NTAPI BridgeOpen(PVOID Context)
{
    PTRIG t = Context;

    t->Open = TRUE;
    SetIntCsr(t, IntCsr(t) | INT_LINT1_EN | INT_PCI_EN);
    return TRUE;
}

static BOOLEAN NTAPI BridgeReopen(PVOID Context)
{
    PTRIG t = Context;

    if (t->Listening && t->Open)
        SetIntCsr(t, IntCsr(t) | INT_LINT1_EN | INT_PCI_EN);
    return TRUE;
}

static BOOLEAN NTAPI Listen(PVOID Context)
{
    PTRIG t = Context;

    t->Listening = TRUE;
    return BridgeClose(t);
}

static BOOLEAN NTAPI Deafen(PVOID Context)
{
    PTRIG t = Context;

    BridgeClose(t);
    t->Listening = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI TrigIsr(PKINTERRUPT Intr, PVOID Context)
{
    PTRIG t = Context;
    ULONG v;

    UNREFERENCED_PARAMETER(Intr);
    if (!t->Listening)
        return FALSE;
    v = IntCsr(t);
    if (v == GONE)
        return FALSE;
#ifdef FIXED
    if ((v & (INT_LINT1_ACT | INT_LINT1_EN | INT_PCI_EN)) != (INT_LINT1_ACT | INT_LINT1_EN | INT_PCI_EN))
        return FALSE;
#else
    if ((v & INT_LINT1_ACT) == 0)
        return FALSE;
#endif
    SetIntCsr(t, v & ~INT_PCI_EN);
    KeInsertQueueDpc(&t->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI TrigDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PTRIG t = Context;
    ULONG latch, i;

    UNREFERENCED_PARAMETER(Dpc); UNREFERENCED_PARAMETER(A1); UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    if (t->Ready) {
        latch = READ_REGISTER_ULONG((PULONG)(t->Brd + BRD_LATCH));
        if (latch != GONE) {
            WRITE_REGISTER_ULONG((PULONG)(t->Brd + BRD_LATCH), latch);
            READ_REGISTER_ULONG((PULONG)(t->Brd + BRD_LATCH));
            for (i = 0; i < CHANNELS; i++)
                if (t->Armed && (latch & t->Mask & (1u << i)))
                    t->Count[i]++;
            KeSynchronizeExecution(t->Intr, BridgeReopen, t);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
}

/* -------------------------------------------- the card comes and goes -- */

static VOID TrigWake(PTRIG t)               /* <= DISPATCH_LEVEL */
{
    KIRQL irql;

    KeAcquireSpinLock(&t->Lock, &irql);
    if (t->Intr != NULL && !t->Ready) {
        t->Ready = TRUE;
        KeSynchronizeExecution(t->Intr, Listen, t);
        if (t->Armed)
            KeSynchronizeExecution(t->Intr, BridgeOpen, t);
    }
    KeReleaseSpinLock(&t->Lock, irql);
}

static VOID TrigSleep(PTRIG t)
{
    KIRQL irql;

    KeAcquireSpinLock(&t->Lock, &irql);
    if (t->Ready) {
        t->Ready = FALSE;
        KeSynchronizeExecution(t->Intr, Deafen, t);
    }
    KeReleaseSpinLock(&t->Lock, irql);
}

static VOID TrigRelease(PTRIG t)            /* PASSIVE_LEVEL */
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS dp;
    PKINTERRUPT intr;
    KIRQL irql;

    TrigSleep(t);
    KeAcquireSpinLock(&t->Lock, &irql);
    intr = t->Intr;
    t->Intr = NULL;
    KeReleaseSpinLock(&t->Lock, irql);
    if (intr != NULL) {
        RtlZeroMemory(&dp, sizeof(dp));
        dp.Version = CONNECT_FULLY_SPECIFIED;
        dp.ConnectionContext.InterruptObject = intr;
        IoDisconnectInterruptEx(&dp);
        KeFlushQueuedDpcs();
    }
    if (t->Brd != NULL)
        MmUnmapIoSpace(t->Brd, t->BrdLen);
    if (t->Lcr != NULL)
        MmUnmapIoSpace(t->Lcr, t->LcrLen);
    t->Brd = t->Lcr = NULL;
}

static NTSTATUS TrigStart(PTRIG t, PCM_RESOURCE_LIST rl)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, lcr = NULL, brd = NULL, irq = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS cp;
    PKINTERRUPT intr = NULL;
    KIRQL irql;
    NTSTATUS status;
    ULONG n;

    if (rl == NULL || rl->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d = rl->List[0].PartialResourceList.PartialDescriptors;
    for (n = rl->List[0].PartialResourceList.Count; n != 0; n--, d++) {
        if (d->Type == CmResourceTypeInterrupt)
            irq = d;
        else if (d->Type == CmResourceTypeMemory && lcr == NULL)
            lcr = d;
        else if (d->Type == CmResourceTypeMemory && brd == NULL)
            brd = d;
    }
    if (lcr == NULL || brd == NULL || irq == NULL ||
        lcr->u.Memory.Length < LCR_LENGTH || brd->u.Memory.Length < BRD_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    t->LcrLen = lcr->u.Memory.Length;
    t->Lcr = MmMapIoSpace(lcr->u.Memory.Start, t->LcrLen, MmNonCached);
    t->BrdLen = brd->u.Memory.Length;
    t->Brd = MmMapIoSpace(brd->u.Memory.Start, t->BrdLen, MmNonCached);
    if (t->Lcr == NULL || t->Brd == NULL) {
        TrigRelease(t);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    BridgeClose(t);                                 /* not connected yet */

    RtlZeroMemory(&cp, sizeof(cp));
    cp.Version = CONNECT_FULLY_SPECIFIED;
    cp.FullySpecified.PhysicalDeviceObject = t->Pdo;
    cp.FullySpecified.InterruptObject = &intr;
    cp.FullySpecified.ServiceRoutine = TrigIsr;
    cp.FullySpecified.ServiceContext = t;
    cp.FullySpecified.Irql = (KIRQL)irq->u.Interrupt.Level;
    cp.FullySpecified.SynchronizeIrql = (KIRQL)irq->u.Interrupt.Level;
    cp.FullySpecified.Vector = irq->u.Interrupt.Vector;
    cp.FullySpecified.ProcessorEnableMask = irq->u.Interrupt.Affinity;
    cp.FullySpecified.InterruptMode = (irq->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
    cp.FullySpecified.ShareVector = irq->ShareDisposition == CmResourceShareShared;
    status = IoConnectInterruptEx(&cp);
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&t->Lock, &irql);
        t->Intr = intr;
        KeReleaseSpinLock(&t->Lock, irql);
        status = IoSetDeviceInterfaceState(&t->Interface, TRUE);
    }
    if (!NT_SUCCESS(status)) {
        TrigRelease(t);
        return status;
    }
    TrigWake(t);
    return STATUS_SUCCESS;
}

/* ---------------------------------------------------------------- power -- */

/* The device power request that goes with a system power request is through. */
static VOID NTAPI TrigDevicePowerDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context,
                                   PIO_STATUS_BLOCK Io)
{
    PIRP sys = Context;
    PTRIG t = IoGetCurrentIrpStackLocation(sys)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Pdo); UNREFERENCED_PARAMETER(Minor); UNREFERENCED_PARAMETER(State);
    sys->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(sys);
    IoCompleteRequest(sys, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&t->RemoveLock, sys);
}

static NTSTATUS NTAPI TrigSystemPowerDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PTRIG t = Context;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    POWER_STATE ps;

    UNREFERENCED_PARAMETER(Dev);
    if (NT_SUCCESS(status)) {
        ps.DeviceState = sl->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(t->Pdo, sl->MinorFunction, ps, TrigDevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&t->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI TrigPowerUpDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PTRIG t = Context;

    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        PoSetPowerState(Dev, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        TrigWake(t);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&t->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS TrigPower(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PTRIG t = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN set = sl->MinorFunction == IRP_MN_SET_POWER;
    NTSTATUS status = IoAcquireRemoveLock(&t->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if ((set || sl->MinorFunction == IRP_MN_QUERY_POWER) && sl->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, TrigSystemPowerDone, t, TRUE, TRUE, TRUE);
        PoCallDriver(t->Lower, Irp);
        return STATUS_PENDING;
    }
    if (set && sl->Parameters.Power.State.DeviceState == PowerDeviceD0) {
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, TrigPowerUpDone, t, TRUE, TRUE, TRUE);
        return PoCallDriver(t->Lower, Irp);
    }
    if (set) {
        TrigSleep(t);
        PoSetPowerState(Dev, DevicePowerState, sl->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(t->Lower, Irp);
    IoReleaseRemoveLock(&t->RemoveLock, Irp);
    return status;
}

/* ------------------------------------------------------------- dispatch -- */

static NTSTATUS TrigControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PTRIG t = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = sl->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS status = IoAcquireRemoveLock(&t->RemoveLock, Irp);
    ULONG_PTR info = 0;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return TrigComplete(Irp, status, 0);
    KeAcquireSpinLock(&t->Lock, &irql);
    if (code == IOCTL_TRIG_COUNTS) {
        status = STATUS_BUFFER_TOO_SMALL;
        if (sl->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(t->Count)) {
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, t->Count, sizeof(t->Count));
            info = sizeof(t->Count);
            status = STATUS_SUCCESS;
        }
    } else if (code == IOCTL_TRIG_ARM) {
        if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            status = STATUS_INFO_LENGTH_MISMATCH;
        } else if (!t->Ready) {
            status = STATUS_DEVICE_NOT_READY;
        } else {
            t->Mask = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
            t->Armed = TRUE;
            KeSynchronizeExecution(t->Intr, BridgeOpen, t);
        }
    } else if (code == IOCTL_TRIG_DISARM) {
        t->Armed = FALSE;
        if (t->Ready)
            KeSynchronizeExecution(t->Intr, BridgeClose, t);
    } else {
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    KeReleaseSpinLock(&t->Lock, irql);
    TrigComplete(Irp, status, info);
    IoReleaseRemoveLock(&t->RemoveLock, Irp);
    return status;
}

static NTSTATUS TrigFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Dev);
    return TrigComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS TrigWmi(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PTRIG t = Dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&t->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return TrigComplete(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(t->Lower, Irp);
    IoReleaseRemoveLock(&t->RemoveLock, Irp);
    return status;
}

static NTSTATUS TrigPnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PTRIG t = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&t->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return TrigComplete(Irp, status, 0);
    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(t->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status))
            status = TrigStart(t, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        TrigComplete(Irp, status, 0);
        IoReleaseRemoveLock(&t->RemoveLock, Irp);
        return status;

    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&t->Interface, FALSE);
        IoReleaseRemoveLockAndWait(&t->RemoveLock, Irp);
        TrigRelease(t);
        RtlFreeUnicodeString(&t->Interface);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(t->Lower, Irp);
        IoDetachDevice(t->Lower);
        IoDeleteDevice(Dev);
        return status;

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&t->Interface, FALSE);
        /* fall through */
    case IRP_MN_STOP_DEVICE:
        TrigRelease(t);
        /* fall through */
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
    status = IoCallDriver(t->Lower, Irp);
    IoReleaseRemoveLock(&t->RemoveLock, Irp);
    return status;
}

static NTSTATUS TrigAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PTRIG t;
    NTSTATUS status;

    status = IoCreateDevice(Drv, sizeof(TRIG), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    t = dev->DeviceExtension;
    RtlZeroMemory(t, sizeof(*t));
    t->Pdo = Pdo;
    IoInitializeRemoveLock(&t->RemoveLock, 'girT', 0, 0);
    KeInitializeSpinLock(&t->Lock);
    KeInitializeDpc(&t->Dpc, TrigDpc, t);
    status = IoRegisterDeviceInterface(Pdo, &TrigGuid, NULL, &t->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    t->Lower = IoAttachDeviceToDeviceStack(dev, Pdo);
    if (t->Lower == NULL) {
        RtlFreeUnicodeString(&t->Interface);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID TrigUnload(PDRIVER_OBJECT Drv) { UNREFERENCED_PARAMETER(Drv); }

NTSTATUS DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Drv->DriverExtension->AddDevice = TrigAdd;
    Drv->DriverUnload = TrigUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = TrigFile;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = TrigFile;
    Drv->MajorFunction[IRP_MJ_CLOSE] = TrigFile;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TrigControl;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = TrigWmi;
    Drv->MajorFunction[IRP_MJ_POWER] = TrigPower;
    Drv->MajorFunction[IRP_MJ_PNP] = TrigPnp;
    return STATUS_SUCCESS;
}
