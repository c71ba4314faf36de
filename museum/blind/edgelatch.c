/*
 * edgelatch - life-time edge counters on a PLX PCI 9052 input board.
 *
 * The board latches rising edges of 16 inputs and raises the bridge's LINT1
 * with them.  The driver counts the edges per input over the life of the
 * installation: the counts live in the device's hardware key and are written
 * back by a work item, after every 256 edges and when a program asks.
 *
 *   IOCTL_EDGE_COUNTS  out: ULONG[16]
 *   IOCTL_EDGE_SAVE
 *
 * Local space 0 (BAR2): 00 latches (write 1 to clear), 04 inputs,
 * 08 inputs that may interrupt.
 *
 * The bug: whether the work item is queued is tested and noted in two steps, by the DPC and by a request.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: work-item-queued
 * Needs: schedule, device
 */
#include <ddk/wdm.h>

#define IOCTL_EDGE_COUNTS CTL_CODE(0x8444, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_EDGE_SAVE   CTL_CODE(0x8444, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)

enum { INPUTS = 16, SAVE_EVERY = 256 };
enum { INTCSR = 0x4C, LCR_BYTES = 0x54, LATCH = 0x00, MASK = 0x08, LOC_BYTES = 0x10 };
enum { LINT1_EN = 0x01, LINT1_ACT = 0x04, LINT2_EN = 0x08, PCI_EN = 0x40, SOFT_INT = 0x80 };
#define ALL_ONES 0xFFFFFFFFu

static const GUID EdgeGuid = { 0x8a17f06d, 0x4e95, 0x4b3c, { 0x9d, 0x60, 0xe7, 0x28, 0x51, 0xbc, 0xaf, 0x43 } };

typedef struct edge {
    PDEVICE_OBJECT pdo, lower;
    IO_REMOVE_LOCK rl;
    UNICODE_STRING ifname;
    PUCHAR lcr, loc;
    ULONG lcr_len, loc_len;
    KDPC dpc;
    BOOLEAN loaded;                 /* the counts are those of the registry, and later */

    PIO_WORKITEM saver;
    volatile LONG save_queued;      /* the saver is in the system's queue; it holds rl then */

    /* interrupt lock */
    BOOLEAN listening;
    ULONG pending;                  /* edges for the DPC */

    KSPIN_LOCK lock;
    PKINTERRUPT intr;
    BOOLEAN ready;
    ULONG since_save;
    ULONG count[INPUTS];
} edge_t;

static ULONG rd(PUCHAR base, ULONG r) { return READ_REGISTER_ULONG((PULONG)(base + r)); }
static void wr(PUCHAR base, ULONG r, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(base + r), v); }

static NTSTATUS done(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

/* ---- the counts in the registry; PASSIVE_LEVEL ---- */

static void load_counts(edge_t *x)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"EdgeCounts");
    union {
        KEY_VALUE_PARTIAL_INFORMATION info;
        UCHAR bytes[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + INPUTS * sizeof(ULONG)];
    } v;
    HANDLE key;
    ULONG got;
    KIRQL irql;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(x->pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key)))
        return;
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, &v, sizeof(v), &got)) &&
        v.info.Type == REG_BINARY && v.info.DataLength == sizeof(x->count)) {
        KeAcquireSpinLock(&x->lock, &irql);
        RtlCopyMemory(x->count, v.bytes + FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data), sizeof(x->count));
        KeReleaseSpinLock(&x->lock, irql);
    }
    ZwClose(key);
}

static VOID NTAPI save_work(PDEVICE_OBJECT dev, PVOID ctx)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"EdgeCounts");
    edge_t *x = ctx;
    ULONG copy[INPUTS];
    HANDLE key;
    KIRQL irql;

    (void)dev;
    InterlockedExchange(&x->save_queued, 0);    /* what comes from here on is for the next time */
    KeAcquireSpinLock(&x->lock, &irql);
    RtlCopyMemory(copy, x->count, sizeof(copy));
    x->since_save = 0;
    KeReleaseSpinLock(&x->lock, irql);

    if (NT_SUCCESS(IoOpenDeviceRegistryKey(x->pdo, PLUGPLAY_REGKEY_DEVICE, KEY_WRITE, &key))) {
        ZwSetValueKey(key, &name, 0, REG_BINARY, copy, sizeof(copy));
        ZwClose(key);
    }
    IoReleaseRemoveLock(&x->rl, x);
}

/* <= DISPATCH_LEVEL */
static NTSTATUS queue_save(edge_t *x)
{
    NTSTATUS st = IoAcquireRemoveLock(&x->rl, x);

    if (!NT_SUCCESS(st))
        return st;
#ifdef FIXED
    if (InterlockedExchange(&x->save_queued, 1) == 0) {
#else
    if (x->save_queued == 0) {
        x->save_queued = 1;
#endif
        IoQueueWorkItem(x->saver, save_work, DelayedWorkQueue, x);
    } else {
        IoReleaseRemoveLock(&x->rl, x);
    }
    return STATUS_SUCCESS;
}

/* ---- the card ---- */

static BOOLEAN NTAPI edge_isr(PKINTERRUPT intr, PVOID ctx)
{
    const ULONG mine = LINT1_EN | LINT1_ACT | PCI_EN;
    edge_t *x = ctx;
    ULONG v, latch;

    (void)intr;
    if (!x->listening)
        return FALSE;
    v = rd(x->lcr, INTCSR);
    if (v == ALL_ONES || (v & mine) != mine)
        return FALSE;
    latch = rd(x->loc, LATCH);
    if (latch == ALL_ONES)
        return FALSE;
    wr(x->loc, LATCH, latch);
    (void)rd(x->loc, LATCH);
    x->pending |= latch;
    KeInsertQueueDpc(&x->dpc, NULL, NULL);
    return TRUE;
}

typedef struct { edge_t *x; ULONG taken; } take_t;

static BOOLEAN NTAPI sync_take(PVOID ctx)
{
    take_t *t = ctx;

    t->taken = t->x->pending;
    t->x->pending = 0;
    return TRUE;
}

static void card_mask(edge_t *x)
{
    wr(x->loc, MASK, 0);
    wr(x->lcr, INTCSR, rd(x->lcr, INTCSR) & ~(LINT1_EN | LINT2_EN | PCI_EN | SOFT_INT));
    (void)rd(x->lcr, INTCSR);
    (void)rd(x->loc, MASK);
}

static BOOLEAN NTAPI sync_wake(PVOID ctx)
{
    edge_t *x = ctx;

    x->pending = 0;
    x->listening = TRUE;
    wr(x->loc, LATCH, 0xFFFF);      /* what was latched while we were not looking */
    wr(x->loc, MASK, 0xFFFF);
    wr(x->lcr, INTCSR, rd(x->lcr, INTCSR) | LINT1_EN | PCI_EN);
    return TRUE;
}

static BOOLEAN NTAPI sync_sleep(PVOID ctx)
{
    edge_t *x = ctx;

    card_mask(x);
    x->listening = FALSE;
    return TRUE;
}

static VOID NTAPI edge_dpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    edge_t *x = ctx;
    take_t t = { x, 0 };
    BOOLEAN save = FALSE;
    ULONG i;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLockAtDpcLevel(&x->lock);
    if (x->intr != NULL)
        KeSynchronizeExecution(x->intr, sync_take, &t);
    for (i = 0; i < INPUTS; i++) {
        if (t.taken & (1u << i)) {
            x->count[i]++;
            save |= ++x->since_save >= SAVE_EVERY;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->lock);
    if (save)
        queue_save(x);
}

static void edge_wake(edge_t *x)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->lock, &irql);
    if (x->intr != NULL && !x->ready) {
        x->ready = TRUE;
        KeSynchronizeExecution(x->intr, sync_wake, x);
    }
    KeReleaseSpinLock(&x->lock, irql);
}

static void edge_sleep(edge_t *x)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->lock, &irql);
    if (x->ready) {
        x->ready = FALSE;
        KeSynchronizeExecution(x->intr, sync_sleep, x);
    }
    KeReleaseSpinLock(&x->lock, irql);
}

static void edge_release(edge_t *x)
{
    PKINTERRUPT intr;
    KIRQL irql;

    edge_sleep(x);
    KeAcquireSpinLock(&x->lock, &irql);
    intr = x->intr;
    x->intr = NULL;
    KeReleaseSpinLock(&x->lock, irql);
    if (intr) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS dp;

        RtlZeroMemory(&dp, sizeof(dp));
        dp.Version = CONNECT_LINE_BASED;
        dp.ConnectionContext.InterruptObject = intr;
        IoDisconnectInterruptEx(&dp);
        KeFlushQueuedDpcs();
    }
    if (x->loc)
        MmUnmapIoSpace(x->loc, x->loc_len);
    if (x->lcr)
        MmUnmapIoSpace(x->lcr, x->lcr_len);
    x->loc = x->lcr = NULL;
}

static NTSTATUS edge_start(edge_t *x, PCM_RESOURCE_LIST res)
{
    IO_CONNECT_INTERRUPT_PARAMETERS cp;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, mem[2] = { NULL, NULL };
    PKINTERRUPT intr = NULL;
    ULONG i, k = 0;
    KIRQL irql;
    NTSTATUS st;

    if (!res || !res->Count)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d = res->List[0].PartialResourceList.PartialDescriptors;
    for (i = 0; i < res->List[0].PartialResourceList.Count; i++, d++)
        if (d->Type == CmResourceTypeMemory && k < 2)
            mem[k++] = d;
    if (k < 2 || mem[0]->u.Memory.Length < LCR_BYTES || mem[1]->u.Memory.Length < LOC_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    x->lcr_len = mem[0]->u.Memory.Length;
    x->loc_len = mem[1]->u.Memory.Length;
    x->lcr = MmMapIoSpace(mem[0]->u.Memory.Start, x->lcr_len, MmNonCached);
    x->loc = MmMapIoSpace(mem[1]->u.Memory.Start, x->loc_len, MmNonCached);
    if (!x->lcr || !x->loc) {
        edge_release(x);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    card_mask(x);

    RtlZeroMemory(&cp, sizeof(cp));
    cp.Version = CONNECT_LINE_BASED;
    cp.LineBased.PhysicalDeviceObject = x->pdo;
    cp.LineBased.InterruptObject = &intr;
    cp.LineBased.ServiceRoutine = edge_isr;
    cp.LineBased.ServiceContext = x;
    st = IoConnectInterruptEx(&cp);
    if (NT_SUCCESS(st)) {
        KeAcquireSpinLock(&x->lock, &irql);
        x->intr = intr;
        KeReleaseSpinLock(&x->lock, irql);
        st = IoSetDeviceInterfaceState(&x->ifname, TRUE);
    }
    if (!NT_SUCCESS(st)) {
        edge_release(x);
        return st;
    }
    edge_wake(x);
    return STATUS_SUCCESS;
}

static VOID NTAPI edge_dpower_done(PDEVICE_OBJECT pdo, UCHAR minor, POWER_STATE state, PVOID ctx, PIO_STATUS_BLOCK io)
{
    PIRP s_irp = (PIRP)ctx;
    edge_t * x = IoGetCurrentIrpStackLocation(s_irp)->DeviceObject->DeviceExtension;

    (void)pdo; (void)minor; (void)state;
    s_irp->IoStatus.Status = io->Status;
    PoStartNextPowerIrp(s_irp);
    IoCompleteRequest(s_irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->rl, s_irp);
}

/* both directions come by here: system requests, and device requests to D0 */
static NTSTATUS NTAPI edge_power_back(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    edge_t * x = ctx;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = irp->IoStatus.Status;

    if (NT_SUCCESS(st) && sl->Parameters.Power.Type == SystemPowerState) {
        POWER_STATE want;

        want.DeviceState = PowerDeviceD3;
        if (sl->Parameters.Power.State.SystemState == PowerSystemWorking)
            want.DeviceState = PowerDeviceD0;
        st = PoRequestPowerIrp(x->pdo, sl->MinorFunction, want, edge_dpower_done, irp, NULL);
        if (NT_SUCCESS(st))
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = st;
    } else if (NT_SUCCESS(st)) {
        PoSetPowerState(dev, DevicePowerState, sl->Parameters.Power.State);
        edge_wake(x);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&x->rl, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS edge_power(PDEVICE_OBJECT dev, PIRP irp)
{
    edge_t * x = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    int set = sl->MinorFunction == IRP_MN_SET_POWER;
    int query = sl->MinorFunction == IRP_MN_QUERY_POWER;
    NTSTATUS st = IoAcquireRemoveLock(&x->rl, irp);

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
        IoSetCompletionRoutine(irp, edge_power_back, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->lower, irp);
        return STATUS_PENDING;
    }
    if (set) {      /* to sleep */
        edge_sleep(x);
        PoSetPowerState(dev, DevicePowerState, sl->Parameters.Power.State);
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    st = PoCallDriver(x->lower, irp);
    IoReleaseRemoveLock(&x->rl, irp);
    return st;
}

/* ---- dispatch ---- */

static NTSTATUS edge_control(PDEVICE_OBJECT dev, PIRP irp)
{
    edge_t *x = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    ULONG_PTR info = 0;
    KIRQL irql;
    NTSTATUS st = IoAcquireRemoveLock(&x->rl, irp);

    if (!NT_SUCCESS(st))
        return done(irp, st, 0);
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EDGE_COUNTS:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(x->count)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->lock, &irql);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, x->count, sizeof(x->count));
        KeReleaseSpinLock(&x->lock, irql);
        info = sizeof(x->count);
        break;
    case IOCTL_EDGE_SAVE:
        st = queue_save(x);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    done(irp, st, info);
    IoReleaseRemoveLock(&x->rl, irp);
    return st;
}

static NTSTATUS edge_file(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS edge_pass(edge_t *x, PIRP irp)
{
    NTSTATUS st;

    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(x->lower, irp);
    IoReleaseRemoveLock(&x->rl, irp);
    return st;
}

static NTSTATUS edge_wmi(PDEVICE_OBJECT dev, PIRP irp)
{
    edge_t *x = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&x->rl, irp);

    return NT_SUCCESS(st) ? edge_pass(x, irp) : done(irp, st, 0);
}

static NTSTATUS edge_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
    edge_t *x = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = IoAcquireRemoveLock(&x->rl, irp);

    if (!NT_SUCCESS(st))
        return done(irp, st, 0);
    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = IoForwardIrpSynchronously(x->lower, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(st)) {
            if (!x->loaded)
                load_counts(x);
            x->loaded = TRUE;
            st = edge_start(x, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        }
        done(irp, st, 0);
        IoReleaseRemoveLock(&x->rl, irp);
        return st;

    case IRP_MN_STOP_DEVICE:
        edge_release(x);
        queue_save(x);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&x->ifname, FALSE);
        edge_release(x);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&x->ifname, FALSE);
        IoReleaseRemoveLockAndWait(&x->rl, irp);        /* the saver, too */
        edge_release(x);
        IoFreeWorkItem(x->saver);
        RtlFreeUnicodeString(&x->ifname);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        st = IoCallDriver(x->lower, irp);
        IoDetachDevice(x->lower);
        IoDeleteDevice(dev);
        return st;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    return edge_pass(x, irp);
}

static NTSTATUS edge_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    edge_t *x;
    NTSTATUS st;

    st = IoCreateDevice(drv, sizeof(*x), NULL, 0x8444, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(st))
        return st;
    x = dev->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->pdo = pdo;
    IoInitializeRemoveLock(&x->rl, 'tlgE', 0, 0);
    KeInitializeSpinLock(&x->lock);
    KeInitializeDpc(&x->dpc, edge_dpc, x);
    x->saver = IoAllocateWorkItem(dev);
    if (!x->saver) {
        IoDeleteDevice(dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    st = IoRegisterDeviceInterface(pdo, &EdgeGuid, NULL, &x->ifname);
    if (NT_SUCCESS(st)) {
        x->lower = IoAttachDeviceToDeviceStack(dev, pdo);
        if (x->lower) {
            dev->Flags |= DO_POWER_PAGABLE;
            dev->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        RtlFreeUnicodeString(&x->ifname);
        st = STATUS_NO_SUCH_DEVICE;
    }
    IoFreeWorkItem(x->saver);
    IoDeleteDevice(dev);
    return st;
}

static VOID edge_unload(PDRIVER_OBJECT drv) { (void)drv; }

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    drv->DriverExtension->AddDevice = edge_add;
    drv->DriverUnload = edge_unload;
    drv->MajorFunction[IRP_MJ_CREATE] = edge_file;
    drv->MajorFunction[IRP_MJ_CLEANUP] = edge_file;
    drv->MajorFunction[IRP_MJ_CLOSE] = edge_file;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = edge_control;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = edge_wmi;
    drv->MajorFunction[IRP_MJ_POWER] = edge_power;
    drv->MajorFunction[IRP_MJ_PNP] = edge_pnp;
    return STATUS_SUCCESS;
}
