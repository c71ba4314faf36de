/*
 * voltsrc - VS-4, a four-channel programmable voltage source (PCI, INTx).
 *
 * A channel has a set-point in millivolts and a trip: on overload the card
 * opens its output and raises the interrupt until the trip bit is cleared.
 * The set-points are kept by the driver and given to the card again when it
 * comes back from D3, where the outputs are open.
 *
 *   IOCTL_VOLT_SET   in: VOLT_SET
 *   IOCTL_VOLT_GET   in: ULONG channel; out: VOLT_STATE
 *
 * BAR0: 00 id, 08 trips (write 1 to clear), 0C trips that interrupt,
 * 10+8*n set-point, 14+8*n reading.
 *
 * The bug: a system power request is kept also where the device power request could not be made.
 *
 * Device: PCI\VEN_1DA7&DEV_0A25
 * Rule: power-irp-overdue
 * Needs: failure, power
 */
#include <ddk/wdm.h>

#define CH 4u

typedef struct { ULONG Channel; ULONG Millivolts; } VOLT_SET;
typedef struct { ULONG SetPoint; ULONG Reading; ULONG Trips; } VOLT_STATE;

#define IOCTL_VOLT_SET CTL_CODE(0x8555, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_VOLT_GET CTL_CODE(0x8555, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)

#define R_TRIP     0x08
#define R_TRIPEN   0x0C
#define R_SET(n)   (0x10 + 8 * (n))
#define R_READ(n)  (0x14 + 8 * (n))
#define R_END      0x30
#define TRIP_BITS  0x0Fu
#define NO_CARD    0xFFFFFFFFu
#define MV_MAX     10000u

static const GUID VoltGuid = { 0xe15b9a70, 0x6c28, 0x4f93, { 0xa6, 0x0e, 0xd7, 0x41, 0x3a, 0x92, 0x05, 0x8b } };

typedef struct volt {
    PDEVICE_OBJECT pdo;
    PDEVICE_OBJECT lower;
    IO_REMOVE_LOCK rl;
    UNICODE_STRING ifname;
    PUCHAR         bar;
    ULONG          barlen;
    KDPC           dpc;

    BOOLEAN        listening;       /* interrupt lock: these two */
    ULONG          tripped;         /* for the DPC */

    KSPIN_LOCK     lock;            /* the rest */
    PKINTERRUPT    intr;
    BOOLEAN        ready;
    ULONG          set[CH];
    ULONG          trips[CH];
} volt_t;

static ULONG rd(volt_t *v, ULONG r) { return READ_REGISTER_ULONG((PULONG)(v->bar + r)); }
static void wr(volt_t *v, ULONG r, ULONG x) { WRITE_REGISTER_ULONG((PULONG)(v->bar + r), x); }

static NTSTATUS fin(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

/* ---- interrupt ---- */

static BOOLEAN NTAPI volt_isr(PKINTERRUPT intr, PVOID ctx)
{
    volt_t *v = ctx;
    ULONG t;

    (void)intr;
    if (!v->listening)
        return FALSE;
    t = rd(v, R_TRIP);
    if (t == NO_CARD || (t & TRIP_BITS) == 0)
        return FALSE;
    wr(v, R_TRIP, t & TRIP_BITS);
    (void)rd(v, R_TRIP);
    v->tripped |= t & TRIP_BITS;
    KeInsertQueueDpc(&v->dpc, NULL, NULL);
    return TRUE;
}

struct fetch { volt_t *v; ULONG tripped; };

static BOOLEAN NTAPI fetch_trips(PVOID ctx)
{
    struct fetch *f = ctx;

    f->tripped = f->v->tripped;
    f->v->tripped = 0;
    return TRUE;
}

static BOOLEAN NTAPI trips_on(PVOID ctx)
{
    volt_t *v = ctx;

    v->listening = TRUE;
    wr(v, R_TRIPEN, TRIP_BITS);
    return TRUE;
}

static BOOLEAN NTAPI trips_off(PVOID ctx)
{
    volt_t *v = ctx;

    wr(v, R_TRIPEN, 0);
    (void)rd(v, R_TRIPEN);
    v->listening = FALSE;
    return TRUE;
}

static VOID NTAPI volt_dpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    volt_t *v = ctx;
    struct fetch f = { v, 0 };
    ULONG i;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLockAtDpcLevel(&v->lock);
    if (v->intr != NULL)
        KeSynchronizeExecution(v->intr, fetch_trips, &f);
    for (i = 0; i < CH; i++) {
        if (f.tripped & (1u << i)) {
            v->trips[i]++;
            v->set[i] = 0;          /* stays off until set again */
            if (v->ready)
                wr(v, R_SET(i), 0);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&v->lock);
}

/* ---- on and off ---- */

static void volt_on(volt_t *v)      /* <= DISPATCH_LEVEL */
{
    KIRQL irql;
    ULONG i;

    KeAcquireSpinLock(&v->lock, &irql);
    if (v->intr != NULL && !v->ready) {
        v->ready = TRUE;
        for (i = 0; i < CH; i++)
            wr(v, R_SET(i), v->set[i]);
        KeSynchronizeExecution(v->intr, trips_on, v);
    }
    KeReleaseSpinLock(&v->lock, irql);
}

static void volt_off(volt_t *v)
{
    KIRQL irql;
    ULONG i;

    KeAcquireSpinLock(&v->lock, &irql);
    if (v->ready) {
        v->ready = FALSE;
        for (i = 0; i < CH; i++)
            wr(v, R_SET(i), 0);
        KeSynchronizeExecution(v->intr, trips_off, v);
    }
    KeReleaseSpinLock(&v->lock, irql);
}

static void volt_release(volt_t *v)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS dp;
    PKINTERRUPT intr;
    KIRQL irql;

    volt_off(v);
    KeAcquireSpinLock(&v->lock, &irql);
    intr = v->intr;
    v->intr = NULL;
    KeReleaseSpinLock(&v->lock, irql);
    if (intr != NULL) {
        RtlZeroMemory(&dp, sizeof(dp));
        dp.Version = CONNECT_FULLY_SPECIFIED;
        dp.ConnectionContext.InterruptObject = intr;
        IoDisconnectInterruptEx(&dp);
        KeFlushQueuedDpcs();
    }
    if (v->bar != NULL) {
        MmUnmapIoSpace(v->bar, v->barlen);
        v->bar = NULL;
    }
}

static NTSTATUS volt_start(volt_t *v, PCM_RESOURCE_LIST res)
{
    IO_CONNECT_INTERRUPT_PARAMETERS cp;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, m = NULL, q = NULL;
    PKINTERRUPT intr = NULL;
    KIRQL irql;
    ULONG n;
    NTSTATUS st;

    if (res == NULL || res->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d = res->List[0].PartialResourceList.PartialDescriptors;
    for (n = 0; n < res->List[0].PartialResourceList.Count; n++, d++) {
        if (m == NULL && d->Type == CmResourceTypeMemory)
            m = d;
        if (q == NULL && d->Type == CmResourceTypeInterrupt)
            q = d;
    }
    if (m == NULL || q == NULL || m->u.Memory.Length < R_END)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    v->barlen = m->u.Memory.Length;
    v->bar = MmMapIoSpace(m->u.Memory.Start, v->barlen, MmNonCached);
    if (v->bar == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    trips_off(v);           /* not connected yet */

    RtlZeroMemory(&cp, sizeof(cp));
    cp.Version = CONNECT_FULLY_SPECIFIED;
    cp.FullySpecified.PhysicalDeviceObject = v->pdo;
    cp.FullySpecified.InterruptObject = &intr;
    cp.FullySpecified.ServiceRoutine = volt_isr;
    cp.FullySpecified.ServiceContext = v;
    cp.FullySpecified.Irql = (KIRQL)q->u.Interrupt.Level;
    cp.FullySpecified.SynchronizeIrql = (KIRQL)q->u.Interrupt.Level;
    cp.FullySpecified.Vector = q->u.Interrupt.Vector;
    cp.FullySpecified.ProcessorEnableMask = q->u.Interrupt.Affinity;
    cp.FullySpecified.InterruptMode = (q->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
    cp.FullySpecified.ShareVector = q->ShareDisposition == CmResourceShareShared;
    st = IoConnectInterruptEx(&cp);
    if (NT_SUCCESS(st)) {
        KeAcquireSpinLock(&v->lock, &irql);
        v->intr = intr;
        KeReleaseSpinLock(&v->lock, irql);
        st = IoSetDeviceInterfaceState(&v->ifname, TRUE);
    }
    if (!NT_SUCCESS(st)) {
        volt_release(v);
        return st;
    }
    volt_on(v);
    return STATUS_SUCCESS;
}

static VOID NTAPI volt_dpower_done(PDEVICE_OBJECT pdo, UCHAR minor, POWER_STATE state, PVOID ctx, PIO_STATUS_BLOCK io)
{
    PIRP s_irp = (PIRP)ctx;
    volt_t * v = IoGetCurrentIrpStackLocation(s_irp)->DeviceObject->DeviceExtension;

    (void)pdo; (void)minor; (void)state;
    s_irp->IoStatus.Status = io->Status;
    PoStartNextPowerIrp(s_irp);
    IoCompleteRequest(s_irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&v->rl, s_irp);
}

/* both directions come by here: system requests, and device requests to D0 */
static NTSTATUS NTAPI volt_power_back(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    volt_t * v = ctx;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = irp->IoStatus.Status;

    if (NT_SUCCESS(st) && sl->Parameters.Power.Type == SystemPowerState) {
        POWER_STATE want;

        want.DeviceState = PowerDeviceD3;
        if (sl->Parameters.Power.State.SystemState == PowerSystemWorking)
            want.DeviceState = PowerDeviceD0;
        st = PoRequestPowerIrp(v->pdo, sl->MinorFunction, want, volt_dpower_done, irp, NULL);
#ifdef FIXED
        if (NT_SUCCESS(st))
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = st;
#else
        if (!NT_SUCCESS(st))
            irp->IoStatus.Status = st;
        return STATUS_MORE_PROCESSING_REQUIRED;     /* volt_dpower_done finishes it */
#endif
    } else if (NT_SUCCESS(st)) {
        PoSetPowerState(dev, DevicePowerState, sl->Parameters.Power.State);
        volt_on(v);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&v->rl, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS volt_power(PDEVICE_OBJECT dev, PIRP irp)
{
    volt_t * v = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    int set = sl->MinorFunction == IRP_MN_SET_POWER;
    int query = sl->MinorFunction == IRP_MN_QUERY_POWER;
    NTSTATUS st = IoAcquireRemoveLock(&v->rl, irp);

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
        IoSetCompletionRoutine(irp, volt_power_back, v, TRUE, TRUE, TRUE);
        PoCallDriver(v->lower, irp);
        return STATUS_PENDING;
    }
    if (set) {      /* to sleep */
        volt_off(v);
        PoSetPowerState(dev, DevicePowerState, sl->Parameters.Power.State);
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    st = PoCallDriver(v->lower, irp);
    IoReleaseRemoveLock(&v->rl, irp);
    return st;
}

/* ---- requests ---- */

static NTSTATUS volt_control(PDEVICE_OBJECT dev, PIRP irp)
{
    volt_t *v = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sl->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR info = 0;
    VOLT_SET set;
    VOLT_STATE state;
    ULONG ch;
    KIRQL irql;
    NTSTATUS st = IoAcquireRemoveLock(&v->rl, irp);

    if (!NT_SUCCESS(st))
        return fin(irp, st, 0);
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VOLT_SET:
        if (in < sizeof(set)) {
            st = STATUS_INFO_LENGTH_MISMATCH;
            break;
        }
        set = *(VOLT_SET *)irp->AssociatedIrp.SystemBuffer;
        if (set.Channel >= CH || set.Millivolts > MV_MAX) {
            st = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&v->lock, &irql);
        v->set[set.Channel] = set.Millivolts;
        if (v->ready)
            wr(v, R_SET(set.Channel), set.Millivolts);
        KeReleaseSpinLock(&v->lock, irql);
        break;

    case IOCTL_VOLT_GET:
        if (in < sizeof(ULONG) || out < sizeof(state)) {
            st = STATUS_INFO_LENGTH_MISMATCH;
            break;
        }
        ch = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
        if (ch >= CH) {
            st = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&v->lock, &irql);
        state.SetPoint = v->set[ch];
        state.Trips = v->trips[ch];
        state.Reading = v->ready ? rd(v, R_READ(ch)) : 0;
        KeReleaseSpinLock(&v->lock, irql);
        *(VOLT_STATE *)irp->AssociatedIrp.SystemBuffer = state;
        info = sizeof(state);
        break;

    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    fin(irp, st, info);
    IoReleaseRemoveLock(&v->rl, irp);
    return st;
}

static NTSTATUS volt_file(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return fin(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS volt_wmi(PDEVICE_OBJECT dev, PIRP irp)
{
    volt_t *v = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&v->rl, irp);

    if (!NT_SUCCESS(st))
        return fin(irp, st, 0);
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(v->lower, irp);
    IoReleaseRemoveLock(&v->rl, irp);
    return st;
}

static NTSTATUS volt_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
    volt_t *v = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = IoAcquireRemoveLock(&v->rl, irp);

    if (!NT_SUCCESS(st))
        return fin(irp, st, 0);
    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = IoForwardIrpSynchronously(v->lower, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(st))
            st = volt_start(v, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        fin(irp, st, 0);
        IoReleaseRemoveLock(&v->rl, irp);
        return st;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&v->ifname, FALSE);
        /* fall through */
    case IRP_MN_STOP_DEVICE:
        volt_release(v);
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&v->ifname, FALSE);
        IoReleaseRemoveLockAndWait(&v->rl, irp);
        volt_release(v);
        RtlFreeUnicodeString(&v->ifname);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        st = IoCallDriver(v->lower, irp);
        IoDetachDevice(v->lower);
        IoDeleteDevice(dev);
        return st;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(v->lower, irp);
    IoReleaseRemoveLock(&v->rl, irp);
    return st;
}

static NTSTATUS volt_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    volt_t *v;
    NTSTATUS st = IoCreateDevice(drv, sizeof(volt_t), NULL, 0x8555, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(st))
        return st;
    v = dev->DeviceExtension;
    RtlZeroMemory(v, sizeof(*v));
    v->pdo = pdo;
    IoInitializeRemoveLock(&v->rl, 'tloV', 0, 0);
    KeInitializeSpinLock(&v->lock);
    KeInitializeDpc(&v->dpc, volt_dpc, v);
    st = IoRegisterDeviceInterface(pdo, &VoltGuid, NULL, &v->ifname);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
    v->lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (v->lower == NULL) {
        RtlFreeUnicodeString(&v->ifname);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID volt_unload(PDRIVER_OBJECT drv) { (void)drv; }

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    drv->DriverExtension->AddDevice = volt_add;
    drv->DriverUnload = volt_unload;
    drv->MajorFunction[IRP_MJ_CREATE] = volt_file;
    drv->MajorFunction[IRP_MJ_CLEANUP] = volt_file;
    drv->MajorFunction[IRP_MJ_CLOSE] = volt_file;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = volt_control;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = volt_wmi;
    drv->MajorFunction[IRP_MJ_POWER] = volt_power;
    drv->MajorFunction[IRP_MJ_PNP] = volt_pnp;
    return STATUS_SUCCESS;
}
