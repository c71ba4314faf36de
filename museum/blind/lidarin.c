/*
 * lidarin - reads the echo FIFO of an LR-2 laser ranger (PCI, INTx).
 *
 * ReadFile on the device takes as many whole words as the FIFO has and the
 * buffer holds, straight into the caller's pages.  Buffers may be many
 * megabytes, so that a read maps them one page after the other.  The card
 * interrupts when its FIFO overruns; overruns are counted.
 *
 *   IOCTL_LIDAR_RUN    in: ULONG, 0 switches the laser off
 *   IOCTL_LIDAR_STATS  out: LIDAR_STATS
 *
 * BAR0: 00 id, 04 control (1 = laser), 08 words in the FIFO, 0C next word,
 * 10 status (1 = overrun; write 1 to clear), 14 interrupt enable.
 *
 * The bug: a partial MDL is built again without MmPrepareMdlForReuse.
 *
 * Device: PCI\VEN_1DA7&DEV_0B40
 * Rule: mdl-rebuilt-mapped, locked-pages-leak
 * Needs: device
 */
#include <ddk/wdm.h>

#define IOCTL_LIDAR_RUN   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_LIDAR_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_READ_DATA)

typedef struct _LIDAR_STATS {
    ULONG Overruns;
    ULONG Running;
    ULONG64 WordsRead;
} LIDAR_STATS;

#define LR_CONTROL 0x04
#define LR_LEVEL   0x08
#define LR_DATA    0x0C
#define LR_STATUS  0x10
#define LR_ENABLE  0x14
#define LR_LENGTH  0x20
#define LR_OVERRUN 1u
#define LR_ABSENT  0xFFFFFFFFu
#define BURST      128u             /* words that are read with the lock held */

static const GUID LidarGuid = { 0x5fd3c826, 0x91e7, 0x4a0d, { 0xb8, 0x33, 0x6e, 0x0f, 0x27, 0xc9, 0x1d, 0x94 } };

typedef struct _LIDAR {
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    PUCHAR         Base;
    ULONG          BaseLength;
    KDPC           Dpc;
    FAST_MUTEX     Reader;          /* one read at a time */

    BOOLEAN        Armed;           /* interrupt lock */

    KSPIN_LOCK     Lock;            /* the card and what follows */
    PKINTERRUPT    Interrupt;
    BOOLEAN        Awake;
    LIDAR_STATS    Stats;
} LIDAR, *PLIDAR;

static ULONG LrRead(PLIDAR l, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(l->Base + reg));
}

static VOID LrWrite(PLIDAR l, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(l->Base + reg), value);
}

static NTSTATUS LidarComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ------------------------------------------------------------- interrupt -- */

static BOOLEAN NTAPI LidarIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PLIDAR l = Context;
    ULONG status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!l->Armed)
        return FALSE;
    status = LrRead(l, LR_STATUS);
    if (status == LR_ABSENT || !(status & LR_OVERRUN))
        return FALSE;
    LrWrite(l, LR_STATUS, LR_OVERRUN);
    LrRead(l, LR_STATUS);
    KeInsertQueueDpc(&l->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI LidarDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PLIDAR l = Context;

    UNREFERENCED_PARAMETER(Dpc); UNREFERENCED_PARAMETER(A1); UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&l->Lock);
    l->Stats.Overruns++;
    KeReleaseSpinLockFromDpcLevel(&l->Lock);
}

static BOOLEAN NTAPI LidarArm(PVOID Context)
{
    PLIDAR l = Context;

    l->Armed = TRUE;
    LrWrite(l, LR_ENABLE, LR_OVERRUN);
    return TRUE;
}

static BOOLEAN NTAPI LidarDisarm(PVOID Context)
{
    PLIDAR l = Context;

    LrWrite(l, LR_CONTROL, 0);
    LrWrite(l, LR_ENABLE, 0);
    LrRead(l, LR_ENABLE);
    l->Armed = FALSE;
    return TRUE;
}

/* ------------------------------------------------------------------ read -- */

/* Up to `want` words to `to`; fewer when the FIFO runs empty. */
static NTSTATUS LidarPop(PLIDAR l, PUCHAR to, ULONG want, PULONG got)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG n, i, word;
    KIRQL irql;

    *got = 0;
    while (*got < want) {
        KeAcquireSpinLock(&l->Lock, &irql);
        n = l->Awake ? LrRead(l, LR_LEVEL) : 0;
        if (!l->Awake || n == LR_ABSENT) {
            status = STATUS_DEVICE_NOT_READY;
            n = 0;
        }
        if (n > want - *got)
            n = want - *got;
        if (n > BURST)
            n = BURST;
        for (i = 0; i < n; i++) {
            word = LrRead(l, LR_DATA);
            RtlCopyMemory(to + (*got + i) * sizeof(ULONG), &word, sizeof(word));
        }
        l->Stats.WordsRead += n;
        KeReleaseSpinLock(&l->Lock, irql);
        *got += n;
        if (n == 0)
            break;
    }
    return status;
}

static NTSTATUS LidarTransfer(PLIDAR l, PMDL mdl, ULONG length, PULONG done)
{
    PUCHAR base = MmGetMdlVirtualAddress(mdl);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG piece, got;
    PUCHAR va;
    PMDL part;

    *done = 0;
    /* Every piece begins at the same offset in its page, so one MDL serves for all. */
    part = IoAllocateMdl(base, PAGE_SIZE, FALSE, FALSE, NULL);
    if (part == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;

    while (*done < length) {
        piece = length - *done < PAGE_SIZE ? length - *done : PAGE_SIZE;
        IoBuildPartialMdl(mdl, part, base + *done, piece);
        va = MmGetSystemAddressForMdlSafe(part, NormalPagePriority);
        if (va == NULL) {
            status = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
        status = LidarPop(l, va, piece / sizeof(ULONG), &got);
#ifdef FIXED
        MmPrepareMdlForReuse(part);
#endif
        *done += got * sizeof(ULONG);
        if (!NT_SUCCESS(status) || got * sizeof(ULONG) < piece)
            break;
    }
    IoFreeMdl(part);
    return *done != 0 ? STATUS_SUCCESS : status;
}

static NTSTATUS LidarReadFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PLIDAR l = Dev->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length & ~(ULONG)(sizeof(ULONG) - 1);
    ULONG done = 0;
    NTSTATUS status = IoAcquireRemoveLock(&l->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return LidarComplete(Irp, status, 0);
    if (length != 0 && Irp->MdlAddress != NULL) {
        ExAcquireFastMutex(&l->Reader);
        status = LidarTransfer(l, Irp->MdlAddress, length, &done);
        ExReleaseFastMutex(&l->Reader);
    }
    LidarComplete(Irp, status, done);
    IoReleaseRemoveLock(&l->RemoveLock, Irp);
    return status;
}

/* --------------------------------------------------- the card comes and goes -- */

static VOID LidarWake(PLIDAR l)         /* <= DISPATCH_LEVEL */
{
    KIRQL irql;

    KeAcquireSpinLock(&l->Lock, &irql);
    if (l->Interrupt != NULL && !l->Awake) {
        l->Awake = TRUE;
        KeSynchronizeExecution(l->Interrupt, LidarArm, l);
        LrWrite(l, LR_CONTROL, l->Stats.Running);
    }
    KeReleaseSpinLock(&l->Lock, irql);
}

static VOID LidarSleep(PLIDAR l)
{
    KIRQL irql;

    KeAcquireSpinLock(&l->Lock, &irql);
    if (l->Awake) {
        l->Awake = FALSE;
        KeSynchronizeExecution(l->Interrupt, LidarDisarm, l);
    }
    KeReleaseSpinLock(&l->Lock, irql);
}

static VOID LidarRelease(PLIDAR l)      /* PASSIVE_LEVEL */
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS params;
    PKINTERRUPT interrupt;
    KIRQL irql;

    LidarSleep(l);
    KeAcquireSpinLock(&l->Lock, &irql);
    interrupt = l->Interrupt;
    l->Interrupt = NULL;
    KeReleaseSpinLock(&l->Lock, irql);
    if (interrupt != NULL) {
        RtlZeroMemory(&params, sizeof(params));
        params.Version = CONNECT_LINE_BASED;
        params.ConnectionContext.InterruptObject = interrupt;
        IoDisconnectInterruptEx(&params);
        KeFlushQueuedDpcs();
    }
    if (l->Base != NULL) {
        MmUnmapIoSpace(l->Base, l->BaseLength);
        l->Base = NULL;
    }
}

static NTSTATUS LidarStart(PLIDAR l, PCM_RESOURCE_LIST List)
{
    IO_CONNECT_INTERRUPT_PARAMETERS params;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    PHYSICAL_ADDRESS where;
    PKINTERRUPT interrupt = NULL;
    NTSTATUS status;
    ULONG n;
    KIRQL irql;

    where.QuadPart = 0;
    l->BaseLength = 0;
    if (List != NULL && List->Count != 0) {
        d = List->List[0].PartialResourceList.PartialDescriptors;
        for (n = List->List[0].PartialResourceList.Count; n != 0; n--, d++) {
            if (d->Type == CmResourceTypeMemory && l->BaseLength == 0) {
                where = d->u.Memory.Start;
                l->BaseLength = d->u.Memory.Length;
            }
        }
    }
    if (l->BaseLength < LR_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    l->Base = MmMapIoSpace(where, l->BaseLength, MmNonCached);
    if (l->Base == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    LidarDisarm(l);                     /* not connected yet */

    RtlZeroMemory(&params, sizeof(params));
    params.Version = CONNECT_LINE_BASED;
    params.LineBased.PhysicalDeviceObject = l->Pdo;
    params.LineBased.InterruptObject = &interrupt;
    params.LineBased.ServiceRoutine = LidarIsr;
    params.LineBased.ServiceContext = l;
    status = IoConnectInterruptEx(&params);
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&l->Lock, &irql);
        l->Interrupt = interrupt;
        KeReleaseSpinLock(&l->Lock, irql);
        status = IoSetDeviceInterfaceState(&l->Interface, TRUE);
    }
    if (!NT_SUCCESS(status)) {
        LidarRelease(l);
        return status;
    }
    LidarWake(l);
    return STATUS_SUCCESS;
}

/* ---------------------------------------------------------------- power -- */

/* The device power request that goes with a system power request is through. */
static VOID NTAPI LidarDevicePowerDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context,
                                   PIO_STATUS_BLOCK Io)
{
    PIRP sys = Context;
    PLIDAR l = IoGetCurrentIrpStackLocation(sys)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Pdo); UNREFERENCED_PARAMETER(Minor); UNREFERENCED_PARAMETER(State);
    sys->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(sys);
    IoCompleteRequest(sys, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&l->RemoveLock, sys);
}

static NTSTATUS NTAPI LidarSystemPowerDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PLIDAR l = Context;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    POWER_STATE ps;

    UNREFERENCED_PARAMETER(Dev);
    if (NT_SUCCESS(status)) {
        ps.DeviceState = sl->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(l->Pdo, sl->MinorFunction, ps, LidarDevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&l->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI LidarPowerUpDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PLIDAR l = Context;

    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        PoSetPowerState(Dev, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        LidarWake(l);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&l->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS LidarPower(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PLIDAR l = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN set = sl->MinorFunction == IRP_MN_SET_POWER;
    NTSTATUS status = IoAcquireRemoveLock(&l->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if ((set || sl->MinorFunction == IRP_MN_QUERY_POWER) && sl->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, LidarSystemPowerDone, l, TRUE, TRUE, TRUE);
        PoCallDriver(l->Lower, Irp);
        return STATUS_PENDING;
    }
    if (set && sl->Parameters.Power.State.DeviceState == PowerDeviceD0) {
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, LidarPowerUpDone, l, TRUE, TRUE, TRUE);
        return PoCallDriver(l->Lower, Irp);
    }
    if (set) {
        LidarSleep(l);
        PoSetPowerState(Dev, DevicePowerState, sl->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(l->Lower, Irp);
    IoReleaseRemoveLock(&l->RemoveLock, Irp);
    return status;
}

/* -------------------------------------------------------------- dispatch -- */

static NTSTATUS LidarControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PLIDAR l = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&l->RemoveLock, Irp);
    ULONG_PTR info = 0;
    LIDAR_STATS stats;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return LidarComplete(Irp, status, 0);
    if (sl->Parameters.DeviceIoControl.IoControlCode == IOCTL_LIDAR_RUN) {
        if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            status = STATUS_INFO_LENGTH_MISMATCH;
        } else {
            KeAcquireSpinLock(&l->Lock, &irql);
            l->Stats.Running = *(PULONG)Irp->AssociatedIrp.SystemBuffer != 0;
            if (l->Awake)
                LrWrite(l, LR_CONTROL, l->Stats.Running);
            KeReleaseSpinLock(&l->Lock, irql);
        }
    } else if (sl->Parameters.DeviceIoControl.IoControlCode == IOCTL_LIDAR_STATS) {
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(stats)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            KeAcquireSpinLock(&l->Lock, &irql);
            stats = l->Stats;
            KeReleaseSpinLock(&l->Lock, irql);
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &stats, sizeof(stats));
            info = sizeof(stats);
        }
    } else {
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    LidarComplete(Irp, status, info);
    IoReleaseRemoveLock(&l->RemoveLock, Irp);
    return status;
}

static NTSTATUS LidarFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Dev);
    return LidarComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS LidarDown(PLIDAR l, PIRP Irp)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(l->Lower, Irp);
    IoReleaseRemoveLock(&l->RemoveLock, Irp);
    return status;
}

static NTSTATUS LidarWmi(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PLIDAR l = Dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&l->RemoveLock, Irp);

    return NT_SUCCESS(status) ? LidarDown(l, Irp) : LidarComplete(Irp, status, 0);
}

static NTSTATUS LidarPnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PLIDAR l = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&l->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return LidarComplete(Irp, status, 0);

    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(l->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status))
            status = LidarStart(l, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        LidarComplete(Irp, status, 0);
        IoReleaseRemoveLock(&l->RemoveLock, Irp);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_STOP_DEVICE:
        LidarRelease(l);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&l->Interface, FALSE);
        LidarRelease(l);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&l->Interface, FALSE);
        IoReleaseRemoveLockAndWait(&l->RemoveLock, Irp);
        LidarRelease(l);
        RtlFreeUnicodeString(&l->Interface);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(l->Lower, Irp);
        IoDetachDevice(l->Lower);
        IoDeleteDevice(Dev);
        return status;

    default:
        break;
    }
    return LidarDown(l, Irp);
}

static NTSTATUS LidarAddDevice(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PLIDAR l;
    NTSTATUS status;

    status = IoCreateDevice(Drv, sizeof(LIDAR), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    l = dev->DeviceExtension;
    RtlZeroMemory(l, sizeof(*l));
    l->Pdo = Pdo;
    IoInitializeRemoveLock(&l->RemoveLock, 'rdiL', 0, 0);
    KeInitializeSpinLock(&l->Lock);
    ExInitializeFastMutex(&l->Reader);
    KeInitializeDpc(&l->Dpc, LidarDpc, l);
    status = IoRegisterDeviceInterface(Pdo, &LidarGuid, NULL, &l->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    l->Lower = IoAttachDeviceToDeviceStack(dev, Pdo);
    if (l->Lower == NULL) {
        RtlFreeUnicodeString(&l->Interface);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_DIRECT_IO | DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID LidarUnload(PDRIVER_OBJECT Drv) { UNREFERENCED_PARAMETER(Drv); }

NTSTATUS DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Drv->DriverExtension->AddDevice = LidarAddDevice;
    Drv->DriverUnload = LidarUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = LidarFile;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = LidarFile;
    Drv->MajorFunction[IRP_MJ_CLOSE] = LidarFile;
    Drv->MajorFunction[IRP_MJ_READ] = LidarReadFile;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LidarControl;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = LidarWmi;
    Drv->MajorFunction[IRP_MJ_POWER] = LidarPower;
    Drv->MajorFunction[IRP_MJ_PNP] = LidarPnp;
    return STATUS_SUCCESS;
}
