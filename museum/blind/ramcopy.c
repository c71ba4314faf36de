/*
 * ramcopy - moves blocks between programs and the 4 KB RAM of QEMU's "edu"
 * card, with the card's DMA engine and one common buffer.
 *
 *   IOCTL_RAM_STORE   in: ULONG offset; the MDL describes the bytes to store
 *   IOCTL_RAM_FETCH   in: ULONG offset; the MDL describes where they go
 *
 * One transfer at a time; a request is finished in the caller's thread (the
 * engine takes about a tenth of a second).
 *
 * The bug: a request that fills the caller's buffer is defined METHOD_IN_DIRECT.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: read-only-memory-written
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>

#define IOCTL_RAM_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_IN_DIRECT, FILE_WRITE_DATA)
#ifdef FIXED
#define IOCTL_RAM_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_OUT_DIRECT, FILE_READ_DATA)
#else
#define IOCTL_RAM_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_IN_DIRECT, FILE_READ_DATA)
#endif

#define EDU_STATUS    0x20
#define EDU_INTSTAT   0x24
#define EDU_INTACK    0x64
#define EDU_DMA_SRC   0x80
#define EDU_DMA_DST   0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_CMD   0x98
#define   CMD_RUN       0x1
#define   CMD_FROM_CARD 0x2
#define   CMD_IRQ       0x4
#define EDU_LENGTH    0xA0
#define EDU_RAM       0x40000
#define RAM_BYTES     4096u
#define GONE          0xFFFFFFFFu

static const GUID RamGuid = { 0xc2a5e0b7, 0x0d14, 0x4a6b, { 0x8e, 0x2d, 0x73, 0xf1, 0x9b, 0x50, 0x36, 0x0c } };

struct ram {
    PDEVICE_OBJECT pdo, lower;
    IO_REMOVE_LOCK rl;
    UNICODE_STRING ifname;

    /* Taken by everything that uses or takes away the card; PASSIVE_LEVEL. */
    KMUTEX         slot;
    PUCHAR         bar;
    ULONG          bar_len;
    KSPIN_LOCK     gate;        /* intr, and `up` on its way to 1 */
    PKINTERRUPT    intr;
    PDMA_ADAPTER   dma;
    PVOID          buf;
    PHYSICAL_ADDRESS buf_la;

    volatile LONG  up;          /* the card is started and in D0 */
    BOOLEAN        listen;      /* interrupt lock: the service routine may touch the card */
    KDPC           dpc;
    KEVENT         done;
};

static ULONG rd(struct ram *r, ULONG reg) { return READ_REGISTER_ULONG((PULONG)(r->bar + reg)); }
static void wr(struct ram *r, ULONG reg, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(r->bar + reg), v); }
static void take(struct ram *r) { KeWaitForSingleObject(&r->slot, Executive, KernelMode, FALSE, NULL); }
static void give(struct ram *r) { KeReleaseMutex(&r->slot, FALSE); }

static NTSTATUS complete(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

static BOOLEAN NTAPI ram_isr(PKINTERRUPT intr, PVOID ctx)
{
    struct ram *r = ctx;
    ULONG v;

    (void)intr;
    if (!r->listen)
        return FALSE;
    v = rd(r, EDU_INTSTAT);
    if (v == 0 || v == GONE)
        return FALSE;
    wr(r, EDU_INTACK, v);
    (void)rd(r, EDU_INTSTAT);
    KeInsertQueueDpc(&r->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI ram_dpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    (void)dpc; (void)a; (void)b;
    KeSetEvent(&((struct ram *)ctx)->done, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN NTAPI sync_listen(PVOID ctx)
{
    ((struct ram *)ctx)->listen = TRUE;
    return TRUE;
}

/* No interrupt is asked for without a transfer, so that acknowledging is enough. */
static BOOLEAN NTAPI sync_deaf(PVOID ctx)
{
    struct ram *r = ctx;
    ULONG v;

    wr(r, EDU_STATUS, 0);
    v = rd(r, EDU_INTSTAT);
    if (v != 0 && v != GONE) {
        wr(r, EDU_INTACK, v);
        (void)rd(r, EDU_INTSTAT);
    }
    r->listen = FALSE;
    return TRUE;
}

/* Slot held.  The engine cannot be stopped: waits until it has run down by itself. */
static NTSTATUS wait_engine(struct ram *r)
{
    LARGE_INTEGER t;
    ULONG i, v;

    t.QuadPart = -10 * 10000;
    for (i = 0; i < 500; i++) {
        v = rd(r, EDU_DMA_CMD);
        if (v == GONE)
            return STATUS_DEVICE_REMOVED;
        if (!(v & CMD_RUN))
            return STATUS_SUCCESS;
        KeDelayExecutionThread(KernelMode, FALSE, &t);
    }
    return STATUS_IO_TIMEOUT;
}

/* Slot held, the card up. */
static NTSTATUS run_engine(struct ram *r, ULONG off, ULONG len, int fetch)
{
    LARGE_INTEGER t;

    KeClearEvent(&r->done);
    wr(r, EDU_DMA_SRC, fetch ? EDU_RAM + off : r->buf_la.LowPart);
    wr(r, EDU_DMA_DST, fetch ? r->buf_la.LowPart : EDU_RAM + off);
    wr(r, EDU_DMA_COUNT, len);
    wr(r, EDU_DMA_CMD, CMD_RUN | CMD_IRQ | (fetch ? CMD_FROM_CARD : 0));

    t.QuadPart = -10000000;
    KeWaitForSingleObject(&r->done, Executive, KernelMode, FALSE, &t);
    return wait_engine(r);      /* the event is only the hint that it is worth looking */
}

static NTSTATUS transfer(struct ram *r, PIRP irp, PIO_STACK_LOCATION sl, int fetch, ULONG *moved)
{
    ULONG off, len;
    PVOID va;
    NTSTATUS st;

    if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
        return STATUS_INFO_LENGTH_MISMATCH;
    off = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
    len = sl->Parameters.DeviceIoControl.OutputBufferLength;
    if (off > RAM_BYTES || len > RAM_BYTES - off)
        return STATUS_INVALID_PARAMETER;
    if (len == 0 || irp->MdlAddress == NULL)
        return STATUS_SUCCESS;
    va = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
    if (va == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;

    take(r);
    if (!r->up) {
        st = STATUS_DEVICE_NOT_READY;
    } else if (fetch) {
        st = run_engine(r, off, len, 1);
        if (NT_SUCCESS(st))
            RtlCopyMemory(va, r->buf, len);
    } else {
        RtlCopyMemory(r->buf, va, len);
        st = run_engine(r, off, len, 0);
    }
    give(r);
    if (NT_SUCCESS(st))
        *moved = len;
    return st;
}

static NTSTATUS ram_control(PDEVICE_OBJECT dev, PIRP irp)
{
    struct ram *r = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    ULONG moved = 0;
    NTSTATUS st = IoAcquireRemoveLock(&r->rl, irp);

    if (!NT_SUCCESS(st))
        return complete(irp, st, 0);
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RAM_STORE: st = transfer(r, irp, sl, 0, &moved); break;
    case IOCTL_RAM_FETCH: st = transfer(r, irp, sl, 1, &moved); break;
    default:              st = STATUS_INVALID_DEVICE_REQUEST; break;
    }
    complete(irp, st, moved);
    IoReleaseRemoveLock(&r->rl, irp);
    return st;
}

static NTSTATUS ram_file(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return complete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS ram_wmi(PDEVICE_OBJECT dev, PIRP irp)
{
    struct ram *r = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&r->rl, irp);

    if (!NT_SUCCESS(st))
        return complete(irp, st, 0);
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(r->lower, irp);
    IoReleaseRemoveLock(&r->rl, irp);
    return st;
}

/* ---- the card comes and goes ---- */

static void ram_sleep(struct ram *r)
{
    take(r);
    if (InterlockedExchange(&r->up, 0)) {
        wait_engine(r);         /* left over from a transfer that ran into its time limit */
        KeSynchronizeExecution(r->intr, sync_deaf, r);
        KeFlushQueuedDpcs();
    }
    give(r);
}

/* On the way back from D0, at <= DISPATCH_LEVEL: no waiting for the slot. */
static void ram_wake(struct ram *r)
{
    KIRQL irql;

    KeAcquireSpinLock(&r->gate, &irql);
    if (r->intr != NULL && !r->up) {
        KeSynchronizeExecution(r->intr, sync_listen, r);
        InterlockedExchange(&r->up, 1);
    }
    KeReleaseSpinLock(&r->gate, irql);
}

static void ram_release(struct ram *r)
{
    PKINTERRUPT intr;
    KIRQL irql;

    ram_sleep(r);
    take(r);
    KeAcquireSpinLock(&r->gate, &irql);
    intr = r->intr;
    r->intr = NULL;
    InterlockedExchange(&r->up, 0);
    KeReleaseSpinLock(&r->gate, irql);
    if (intr != NULL) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS dp;

        RtlZeroMemory(&dp, sizeof(dp));
        dp.Version = CONNECT_FULLY_SPECIFIED;
        dp.ConnectionContext.InterruptObject = intr;
        IoDisconnectInterruptEx(&dp);
        KeFlushQueuedDpcs();
    }
    if (r->buf != NULL) {
        r->dma->DmaOperations->FreeCommonBuffer(r->dma, RAM_BYTES, r->buf_la, r->buf, FALSE);
        r->buf = NULL;
    }
    if (r->dma != NULL) {
        r->dma->DmaOperations->PutDmaAdapter(r->dma);
        r->dma = NULL;
    }
    if (r->bar != NULL) {
        MmUnmapIoSpace(r->bar, r->bar_len);
        r->bar = NULL;
    }
    give(r);
}

/* DEVICE_DESCRIPTION as of version 3, which these headers do not have yet. */
typedef struct {
    DEVICE_DESCRIPTION Old;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DEVICE_DESCRIPTION_3;

static NTSTATUS ram_start(struct ram *r, PCM_RESOURCE_LIST res)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, mem = NULL, irq = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS cp;
    DEVICE_DESCRIPTION_3 dd;
    PKINTERRUPT intr = NULL;
    ULONG i, maps;
    NTSTATUS st;

    if (res == NULL || res->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d = res->List[0].PartialResourceList.PartialDescriptors;
    for (i = res->List[0].PartialResourceList.Count; i != 0; i--, d++) {
        if (d->Type == CmResourceTypeMemory && !mem)
            mem = d;
        else if (d->Type == CmResourceTypeInterrupt && !irq)
            irq = d;
    }
    if (!mem || !irq || mem->u.Memory.Length < EDU_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    r->bar_len = mem->u.Memory.Length;
    r->bar = MmMapIoSpace(mem->u.Memory.Start, r->bar_len, MmNonCached);
    if (r->bar == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;

    RtlZeroMemory(&dd, sizeof(dd));
    dd.Old.Version = 3;
    dd.DmaAddressWidth = 28;        /* the card's */
    dd.Old.Master = TRUE;
    dd.Old.ScatterGather = TRUE;
    dd.Old.Dma32BitAddresses = TRUE;
    dd.Old.InterfaceType = PCIBus;
    dd.Old.MaximumLength = RAM_BYTES;
    r->dma = IoGetDmaAdapter(r->pdo, &dd.Old, &maps);
    if (r->dma == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    r->buf = r->dma->DmaOperations->AllocateCommonBuffer(r->dma, RAM_BYTES, &r->buf_la, FALSE);
    if (r->buf == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(r->buf, RAM_BYTES);

    wait_engine(r);
    sync_deaf(r);               /* not connected yet */

    RtlZeroMemory(&cp, sizeof(cp));
    cp.Version = CONNECT_FULLY_SPECIFIED;
    cp.FullySpecified.PhysicalDeviceObject = r->pdo;
    cp.FullySpecified.InterruptObject = &intr;
    cp.FullySpecified.ServiceRoutine = ram_isr;
    cp.FullySpecified.ServiceContext = r;
    cp.FullySpecified.Irql = (KIRQL)irq->u.Interrupt.Level;
    cp.FullySpecified.SynchronizeIrql = (KIRQL)irq->u.Interrupt.Level;
    cp.FullySpecified.Vector = irq->u.Interrupt.Vector;
    cp.FullySpecified.ProcessorEnableMask = irq->u.Interrupt.Affinity;
    cp.FullySpecified.InterruptMode = (irq->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
    cp.FullySpecified.ShareVector = irq->ShareDisposition == CmResourceShareShared;
    st = IoConnectInterruptEx(&cp);
    if (NT_SUCCESS(st))
        st = IoSetDeviceInterfaceState(&r->ifname, TRUE);
    r->intr = intr;             /* NULL if that was what failed */
    if (!NT_SUCCESS(st))
        return st;
    ram_wake(r);
    return STATUS_SUCCESS;
}

static VOID NTAPI ram_dpower_done(PDEVICE_OBJECT pdo, UCHAR minor, POWER_STATE state, PVOID ctx, PIO_STATUS_BLOCK io)
{
    PIRP s_irp = (PIRP)ctx;
    struct ram * r = IoGetCurrentIrpStackLocation(s_irp)->DeviceObject->DeviceExtension;

    (void)pdo; (void)minor; (void)state;
    s_irp->IoStatus.Status = io->Status;
    PoStartNextPowerIrp(s_irp);
    IoCompleteRequest(s_irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&r->rl, s_irp);
}

/* both directions come by here: system requests, and device requests to D0 */
static NTSTATUS NTAPI ram_power_back(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    struct ram * r = ctx;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = irp->IoStatus.Status;

    if (NT_SUCCESS(st) && sl->Parameters.Power.Type == SystemPowerState) {
        POWER_STATE want;

        want.DeviceState = PowerDeviceD3;
        if (sl->Parameters.Power.State.SystemState == PowerSystemWorking)
            want.DeviceState = PowerDeviceD0;
        st = PoRequestPowerIrp(r->pdo, sl->MinorFunction, want, ram_dpower_done, irp, NULL);
        if (NT_SUCCESS(st))
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = st;
    } else if (NT_SUCCESS(st)) {
        PoSetPowerState(dev, DevicePowerState, sl->Parameters.Power.State);
        ram_wake(r);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&r->rl, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS ram_power(PDEVICE_OBJECT dev, PIRP irp)
{
    struct ram * r = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    int set = sl->MinorFunction == IRP_MN_SET_POWER;
    int query = sl->MinorFunction == IRP_MN_QUERY_POWER;
    NTSTATUS st = IoAcquireRemoveLock(&r->rl, irp);

    if (!NT_SUCCESS(st)) {
        PoStartNextPowerIrp(irp);
        irp->IoStatus.Status = st;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return st;
    }
    if (((set || query) && sl->Parameters.Power.Type == SystemPowerState) ||
        (set && sl->Parameters.Power.State.DeviceState == PowerDeviceD0)) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, ram_power_back, r, TRUE, TRUE, TRUE);
        PoCallDriver(r->lower, irp);
        return STATUS_PENDING;
    }
    if (set) {      /* to sleep */
        ram_sleep(r);
        PoSetPowerState(dev, DevicePowerState, sl->Parameters.Power.State);
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    st = PoCallDriver(r->lower, irp);
    IoReleaseRemoveLock(&r->rl, irp);
    return st;
}

static NTSTATUS ram_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
    struct ram *r = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = IoAcquireRemoveLock(&r->rl, irp);

    if (!NT_SUCCESS(st))
        return complete(irp, st, 0);
    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = IoForwardIrpSynchronously(r->lower, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(st)) {
            st = ram_start(r, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
            if (!NT_SUCCESS(st))
                ram_release(r);
        }
        complete(irp, st, 0);
        IoReleaseRemoveLock(&r->rl, irp);
        return st;

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&r->ifname, FALSE);
        /* fall through */
    case IRP_MN_STOP_DEVICE:
        ram_release(r);
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&r->ifname, FALSE);
        IoReleaseRemoveLockAndWait(&r->rl, irp);
        ram_release(r);
        RtlFreeUnicodeString(&r->ifname);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        st = IoCallDriver(r->lower, irp);
        IoDetachDevice(r->lower);
        IoDeleteDevice(dev);
        return st;

    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(r->lower, irp);
    IoReleaseRemoveLock(&r->rl, irp);
    return st;
}

static NTSTATUS ram_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    struct ram *r;
    NTSTATUS st;

    st = IoCreateDevice(drv, sizeof(*r), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(st))
        return st;
    r = dev->DeviceExtension;
    RtlZeroMemory(r, sizeof(*r));
    r->pdo = pdo;
    IoInitializeRemoveLock(&r->rl, 'pcmR', 0, 0);
    KeInitializeMutex(&r->slot, 0);
    KeInitializeSpinLock(&r->gate);
    KeInitializeDpc(&r->dpc, ram_dpc, r);
    KeInitializeEvent(&r->done, NotificationEvent, FALSE);
    st = IoRegisterDeviceInterface(pdo, &RamGuid, NULL, &r->ifname);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
    r->lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (r->lower == NULL) {
        RtlFreeUnicodeString(&r->ifname);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_DIRECT_IO | DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID ram_unload(PDRIVER_OBJECT drv) { (void)drv; }

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    drv->DriverExtension->AddDevice = ram_add;
    drv->DriverUnload = ram_unload;
    drv->MajorFunction[IRP_MJ_CREATE] = ram_file;
    drv->MajorFunction[IRP_MJ_CLEANUP] = ram_file;
    drv->MajorFunction[IRP_MJ_CLOSE] = ram_file;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ram_control;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = ram_wmi;
    drv->MajorFunction[IRP_MJ_POWER] = ram_power;
    drv->MajorFunction[IRP_MJ_PNP] = ram_pnp;
    return STATUS_SUCCESS;
}
