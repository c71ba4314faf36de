/*
 * spectra - SP-256 line spectrometer (PCI, one MSI message or INTx).
 *
 * While it runs, the card exposes its 256 pixels again and again.  A finished
 * frame stays readable until its status bit is cleared; the next exposure
 * starts then.  The card asks for service as long as status & enable is not 0
 * (with MSI: one message each time that becomes so).
 *
 *   IOCTL_SPEC_RUN    in: ULONG exposure in us, 0 stops
 *   IOCTL_SPEC_FRAME  out (direct): SPEC_FRAME; pends until the next frame
 *
 * BAR0: 000 id, 004 control (1 = run), 008 status (1 = frame; write 1 to
 * clear), 00C enable, 010 exposure, 014 frame number, 400 pixels.
 *
 * The bug: the DPC fills the request at the head of the queue and takes it off afterwards.
 *
 * Device: PCI\VEN_1DA7&DEV_0A11
 * Rule: wild-write, use-after-free
 * Needs: cancel, schedule, device
 */
#include <ddk/wdm.h>

#define PIXELS 256

#define IOCTL_SPEC_RUN   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_SPEC_FRAME CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_OUT_DIRECT, FILE_READ_DATA)

typedef struct _SPEC_FRAME {
    ULONG Number;
    ULONG Pixel[PIXELS];
} SPEC_FRAME, *PSPEC_FRAME;

#define SP_CONTROL  0x004
#define SP_STATUS   0x008
#define SP_ENABLE   0x00C
#define SP_EXPOSURE 0x010
#define SP_NUMBER   0x014
#define SP_PIXELS   0x400
#define SP_LENGTH   0x800
#define BIT_FRAME   1u
#define NO_CARD     0xFFFFFFFFu

static const GUID SpecGuid = { 0x47e0a9c3, 0x2d7b, 0x4e61, { 0x8f, 0xb4, 0x30, 0x95, 0xd8, 0x1c, 0x6a, 0xe2 } };

typedef struct _SPEC {
    PDEVICE_OBJECT Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    PUCHAR     Regs;
    ULONG      RegsLength;
    KDPC       Dpc;
    ULONG      ConnectVersion;      /* how the interrupt was connected */
    PVOID      Connection;          /* table or interrupt object, accordingly */

    BOOLEAN    Listening;           /* interrupt lock */

    KSPIN_LOCK Lock;                /* card and state */
    PKINTERRUPT Intr;
    BOOLEAN    Ready;
    ULONG      Exposure;            /* 0: not running */

    KSPIN_LOCK QueueLock;
    BOOLEAN    Gone;
    LIST_ENTRY Queue;
    IO_CSQ     Csq;
} SPEC, *PSPEC;

static ULONG Get(PSPEC s, ULONG r) { return READ_REGISTER_ULONG((PULONG)(s->Regs + r)); }
static VOID Put(PSPEC s, ULONG r, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(s->Regs + r), v); }

static NTSTATUS SpecDone(PSPEC s, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    if (s != NULL)
        IoReleaseRemoveLock(&s->RemoveLock, Irp);
    return Status;
}

/* ------------------------------------------------------ waiting requests -- */

static NTSTATUS NTAPI QInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PSPEC s = CONTAINING_RECORD(Csq, SPEC, Csq);
    PFILE_OBJECT fo = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    UNREFERENCED_PARAMETER(Context);
    if (s->Gone)
        return STATUS_DELETE_PENDING;
    if (fo != NULL && fo->FsContext2 != NULL)
        return STATUS_CANCELLED;
    InsertTailList(&s->Queue, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI QRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI QPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PSPEC s = CONTAINING_RECORD(Csq, SPEC, Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : s->Queue.Flink;

    while (e != &s->Queue) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (File == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == File)
            return next;
        e = e->Flink;
    }
    return NULL;
}

static VOID NTAPI QAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, SPEC, Csq)->QueueLock, Irql);
}

static VOID NTAPI QRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, SPEC, Csq)->QueueLock, Irql);
}

static VOID NTAPI QCancelled(PIO_CSQ Csq, PIRP Irp)
{
    SpecDone(CONTAINING_RECORD(Csq, SPEC, Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID SpecDrain(PSPEC s, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&s->Csq, File)) != NULL)
        SpecDone(s, irp, Status, 0);
}

/* -------------------------------------------------------------- the card -- */

static BOOLEAN NTAPI SpecIsr(PKINTERRUPT Intr, PVOID Context)
{
    PSPEC s = Context;
    ULONG status;

    UNREFERENCED_PARAMETER(Intr);
    if (!s->Listening)
        return FALSE;
    status = Get(s, SP_STATUS);
    if (status == NO_CARD || (status & Get(s, SP_ENABLE) & BIT_FRAME) == 0)
        return FALSE;
    Put(s, SP_ENABLE, 0);               /* until the DPC has read the frame */
    Get(s, SP_ENABLE);
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI SpecMessage(PKINTERRUPT Intr, PVOID Context, ULONG Id)
{
    UNREFERENCED_PARAMETER(Id);
    return SpecIsr(Intr, Context);
}

static BOOLEAN NTAPI SyncEnable(PVOID Context)
{
    PSPEC s = Context;

    s->Listening = TRUE;
    Put(s, SP_ENABLE, BIT_FRAME);
    return TRUE;
}

static BOOLEAN NTAPI SyncSilence(PVOID Context)
{
    PSPEC s = Context;

    Put(s, SP_ENABLE, 0);
    Put(s, SP_CONTROL, 0);
    Get(s, SP_ENABLE);
    s->Listening = FALSE;
    return TRUE;
}

/* Lock held, card ready. */
static VOID SpecProgram(PSPEC s)
{
    Put(s, SP_EXPOSURE, s->Exposure);
    Put(s, SP_CONTROL, s->Exposure != 0);
}

static VOID NTAPI SpecDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PSPEC s = Context;
    NTSTATUS status = STATUS_SUCCESS;
    PIRP irp = NULL;
    ULONG i;

    UNREFERENCED_PARAMETER(Dpc); UNREFERENCED_PARAMETER(A1); UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&s->Lock);
    if (s->Ready) {
        if (Get(s, SP_STATUS) & BIT_FRAME) {
#ifdef FIXED
            irp = IoCsqRemoveNextIrp(&s->Csq, NULL);
#else
            KeAcquireSpinLockAtDpcLevel(&s->QueueLock);
            irp = QPeek(&s->Csq, NULL, NULL);
            KeReleaseSpinLockFromDpcLevel(&s->QueueLock);
#endif
            if (irp != NULL) {
                PSPEC_FRAME frame = irp->Tail.Overlay.DriverContext[0];

                frame->Number = Get(s, SP_NUMBER);
                for (i = 0; i < PIXELS; i++)
                    frame->Pixel[i] = Get(s, SP_PIXELS + i * sizeof(ULONG));
                if (Get(s, SP_STATUS) == NO_CARD)
                    status = STATUS_DEVICE_REMOVED;
            }
            Put(s, SP_STATUS, BIT_FRAME);       /* the next exposure begins */
        }
        KeSynchronizeExecution(s->Intr, SyncEnable, s);
    }
    KeReleaseSpinLockFromDpcLevel(&s->Lock);

#ifndef FIXED
    if (irp != NULL)
        irp = IoCsqRemoveNextIrp(&s->Csq, NULL);
#endif
    if (irp != NULL)
        SpecDone(s, irp, status, NT_SUCCESS(status) ? sizeof(SPEC_FRAME) : 0);
}

static VOID SpecWake(PSPEC s)           /* <= DISPATCH_LEVEL */
{
    KIRQL irql;

    KeAcquireSpinLock(&s->Lock, &irql);
    if (s->Intr != NULL && !s->Ready) {
        s->Ready = TRUE;
        SpecProgram(s);
        KeSynchronizeExecution(s->Intr, SyncEnable, s);
    }
    KeReleaseSpinLock(&s->Lock, irql);
}

static VOID SpecSleep(PSPEC s)
{
    KIRQL irql;

    KeAcquireSpinLock(&s->Lock, &irql);
    if (s->Ready) {
        s->Ready = FALSE;
        KeSynchronizeExecution(s->Intr, SyncSilence, s);
    }
    KeReleaseSpinLock(&s->Lock, irql);
}

static VOID SpecRelease(PSPEC s)        /* PASSIVE_LEVEL */
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS dp;
    KIRQL irql;

    SpecSleep(s);
    KeAcquireSpinLock(&s->Lock, &irql);
    s->Intr = NULL;
    KeReleaseSpinLock(&s->Lock, irql);
    if (s->Connection != NULL) {
        RtlZeroMemory(&dp, sizeof(dp));
        dp.Version = s->ConnectVersion;
        dp.ConnectionContext.Generic = s->Connection;
        IoDisconnectInterruptEx(&dp);
        s->Connection = NULL;
        KeFlushQueuedDpcs();
    }
    if (s->Regs != NULL)
        MmUnmapIoSpace(s->Regs, s->RegsLength);
    s->Regs = NULL;
}

static NTSTATUS SpecStart(PSPEC s, PCM_RESOURCE_LIST rl)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, mem = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS cp;
    PVOID connection = NULL;
    NTSTATUS status;
    ULONG n;
    KIRQL irql;

    if (rl == NULL || rl->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d = rl->List[0].PartialResourceList.PartialDescriptors;
    for (n = rl->List[0].PartialResourceList.Count; n != 0; n--, d++)
        if (d->Type == CmResourceTypeMemory && mem == NULL)
            mem = d;
    if (mem == NULL || mem->u.Memory.Length < SP_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    s->RegsLength = mem->u.Memory.Length;
    s->Regs = MmMapIoSpace(mem->u.Memory.Start, s->RegsLength, MmNonCached);
    if (s->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    SyncSilence(s);                     /* not connected yet */

    RtlZeroMemory(&cp, sizeof(cp));
    cp.Version = CONNECT_MESSAGE_BASED;
    cp.MessageBased.PhysicalDeviceObject = s->Pdo;
    cp.MessageBased.ConnectionContext.Generic = &connection;
    cp.MessageBased.MessageServiceRoutine = SpecMessage;
    cp.MessageBased.FallBackServiceRoutine = SpecIsr;
    cp.MessageBased.ServiceContext = s;
    status = IoConnectInterruptEx(&cp);
    if (NT_SUCCESS(status)) {
        s->ConnectVersion = cp.Version;
        s->Connection = connection;
        status = IoSetDeviceInterfaceState(&s->Interface, TRUE);
    }
    if (!NT_SUCCESS(status)) {
        SpecRelease(s);
        return status;
    }
    KeAcquireSpinLock(&s->Lock, &irql);
    s->Intr = s->ConnectVersion == CONNECT_MESSAGE_BASED
            ? ((PIO_INTERRUPT_MESSAGE_INFO)connection)->MessageInfo[0].InterruptObject
            : (PKINTERRUPT)connection;
    KeReleaseSpinLock(&s->Lock, irql);
    SpecWake(s);
    return STATUS_SUCCESS;
}

/* ---------------------------------------------------------------- power -- */

/* The device power request that goes with a system power request is through. */
static VOID NTAPI SpecDevicePowerDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context,
                                   PIO_STATUS_BLOCK Io)
{
    PIRP sys = Context;
    PSPEC s = IoGetCurrentIrpStackLocation(sys)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Pdo); UNREFERENCED_PARAMETER(Minor); UNREFERENCED_PARAMETER(State);
    sys->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(sys);
    IoCompleteRequest(sys, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&s->RemoveLock, sys);
}

static NTSTATUS NTAPI SpecSystemPowerDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PSPEC s = Context;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    POWER_STATE ps;

    UNREFERENCED_PARAMETER(Dev);
    if (NT_SUCCESS(status)) {
        ps.DeviceState = sl->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(s->Pdo, sl->MinorFunction, ps, SpecDevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&s->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI SpecPowerUpDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PSPEC s = Context;

    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        PoSetPowerState(Dev, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        SpecWake(s);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&s->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS SpecPower(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSPEC s = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN set = sl->MinorFunction == IRP_MN_SET_POWER;
    NTSTATUS status = IoAcquireRemoveLock(&s->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if ((set || sl->MinorFunction == IRP_MN_QUERY_POWER) && sl->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, SpecSystemPowerDone, s, TRUE, TRUE, TRUE);
        PoCallDriver(s->Lower, Irp);
        return STATUS_PENDING;
    }
    if (set && sl->Parameters.Power.State.DeviceState == PowerDeviceD0) {
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, SpecPowerUpDone, s, TRUE, TRUE, TRUE);
        return PoCallDriver(s->Lower, Irp);
    }
    if (set) {
        SpecSleep(s);
        PoSetPowerState(Dev, DevicePowerState, sl->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(s->Lower, Irp);
    IoReleaseRemoveLock(&s->RemoveLock, Irp);
    return status;
}

/* ------------------------------------------------------------- dispatch -- */

static NTSTATUS SpecControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSPEC s = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&s->RemoveLock, Irp);
    PVOID va;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return SpecDone(NULL, Irp, status, 0);

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SPEC_RUN:
        if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return SpecDone(s, Irp, STATUS_INFO_LENGTH_MISMATCH, 0);
        KeAcquireSpinLock(&s->Lock, &irql);
        s->Exposure = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        if (s->Ready)
            SpecProgram(s);             /* else when the card wakes up */
        KeReleaseSpinLock(&s->Lock, irql);
        return SpecDone(s, Irp, STATUS_SUCCESS, 0);

    case IOCTL_SPEC_FRAME:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SPEC_FRAME) || Irp->MdlAddress == NULL)
            return SpecDone(s, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        va = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
        if (va == NULL)
            return SpecDone(s, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        Irp->Tail.Overlay.DriverContext[0] = va;
        IoMarkIrpPending(Irp);
        status = IoCsqInsertIrpEx(&s->Csq, Irp, NULL, NULL);
        if (!NT_SUCCESS(status))
            SpecDone(s, Irp, status, 0);
        return STATUS_PENDING;
    }
    return SpecDone(s, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS SpecFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSPEC s = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    KIRQL irql;

    if (sl->MajorFunction == IRP_MJ_CLEANUP) {
        KeAcquireSpinLock(&s->QueueLock, &irql);
        sl->FileObject->FsContext2 = s;     /* takes no more requests */
        KeReleaseSpinLock(&s->QueueLock, irql);
        SpecDrain(s, sl->FileObject, STATUS_CANCELLED);
    }
    return SpecDone(NULL, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS SpecPass(PSPEC s, PIRP Irp)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(s->Lower, Irp);
    IoReleaseRemoveLock(&s->RemoveLock, Irp);
    return status;
}

static NTSTATUS SpecWmi(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSPEC s = Dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&s->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return SpecDone(NULL, Irp, status, 0);
    return SpecPass(s, Irp);
}

static VOID SpecEnd(PSPEC s)
{
    KIRQL irql;

    KeAcquireSpinLock(&s->QueueLock, &irql);
    s->Gone = TRUE;
    KeReleaseSpinLock(&s->QueueLock, irql);
    IoSetDeviceInterfaceState(&s->Interface, FALSE);
    SpecDrain(s, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS SpecPnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSPEC s = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&s->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return SpecDone(NULL, Irp, status, 0);
    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(s->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status))
            status = SpecStart(s, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        return SpecDone(s, Irp, status, 0);

    case IRP_MN_SURPRISE_REMOVAL:
        SpecEnd(s);
        /* fall through */
    case IRP_MN_STOP_DEVICE:
        SpecRelease(s);
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        SpecEnd(s);
        IoReleaseRemoveLockAndWait(&s->RemoveLock, Irp);
        SpecRelease(s);
        RtlFreeUnicodeString(&s->Interface);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(s->Lower, Irp);
        IoDetachDevice(s->Lower);
        IoDeleteDevice(Dev);
        return status;

    default:
        break;
    }
    return SpecPass(s, Irp);
}

static NTSTATUS SpecAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PSPEC s;
    NTSTATUS status;

    status = IoCreateDevice(Drv, sizeof(SPEC), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    s = dev->DeviceExtension;
    RtlZeroMemory(s, sizeof(*s));
    s->Pdo = Pdo;
    IoInitializeRemoveLock(&s->RemoveLock, 'cepS', 0, 0);
    KeInitializeSpinLock(&s->Lock);
    KeInitializeSpinLock(&s->QueueLock);
    KeInitializeDpc(&s->Dpc, SpecDpc, s);
    InitializeListHead(&s->Queue);
    status = IoCsqInitializeEx(&s->Csq, QInsert, QRemove, QPeek, QAcquire, QRelease, QCancelled);
    if (NT_SUCCESS(status))
        status = IoRegisterDeviceInterface(Pdo, &SpecGuid, NULL, &s->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    s->Lower = IoAttachDeviceToDeviceStack(dev, Pdo);
    if (s->Lower == NULL) {
        RtlFreeUnicodeString(&s->Interface);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID SpecUnload(PDRIVER_OBJECT Drv) { UNREFERENCED_PARAMETER(Drv); }

NTSTATUS DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Drv->DriverExtension->AddDevice = SpecAdd;
    Drv->DriverUnload = SpecUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = SpecFile;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = SpecFile;
    Drv->MajorFunction[IRP_MJ_CLOSE] = SpecFile;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SpecControl;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SpecWmi;
    Drv->MajorFunction[IRP_MJ_POWER] = SpecPower;
    Drv->MajorFunction[IRP_MJ_PNP] = SpecPnp;
    return STATUS_SUCCESS;
}
