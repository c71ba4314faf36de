/*
 * Each request is worked at in its caller's thread, one at a time: a pulse waits for the card's
 * interrupt, a calibration measures at raised level how long the card takes to raise its second
 * source.
 *
 * The bug: the calibration polls STATUS for the second source without a limit and with a spin lock
 * held, so a card that does not raise it hangs the processor.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: endless-loop
 * Needs: device
 */
#include <ddk/wdm.h>

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define HOLD_STOP   1u      /* not started, or about to be stopped */
#define HOLD_POWER  2u      /* not in D0 */
static const GUID InterfaceGuid = { 0x82e4af9e, 0xf37a, 0x3f74, { 0x55, 0x9a, 0xb6, 0x3e, 0xbc, 0xb4, 0x45, 0x6e } };

typedef struct _DEV {
    PDEVICE_OBJECT Self, Lower, Pdo;
    IO_REMOVE_LOCK Remove;
    UNICODE_STRING Link;
    DEVICE_POWER_STATE Power;
    PIRP SystemIrp;
    BOOLEAN Gone;               /* surprise removed: registers are not there any more */
    PUCHAR Regs;
    ULONG RegsLength;
    PKINTERRUPT Int;
    BOOLEAN Live;               /* the card may interrupt; changed at the interrupt's level only */
    BOOLEAN Ready;              /* mapped and connected; under Lock */
    KSPIN_LOCK Lock;
    FAST_MUTEX Mutex;           /* who works at the card */
    volatile LONG Holds;        /* set with Mutex: why no request may begin */
    KEVENT Signal;
    KDPC IsrDpc;
} DEV, *PDEV;

static NTSTATUS Done(PIRP irp, NTSTATUS s, ULONG_PTR info)
{
    irp->IoStatus.Status = s;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return s;
}

/* completes a request that holds the remove lock */
static VOID Finish(PDEV d, PIRP irp, NTSTATUS s, ULONG_PTR info)
{
    Done(irp, s, info);
    IoReleaseRemoveLock(&d->Remove, irp);
}

/* registers in the first window; the card's memory is the last one */
#define ID          0x00
#define SOURCES     0x04
#define RAISE       0x08
#define STATUS      0x0C
#define ENABLE      0x14
#define DELAY       0x20

#define RD(d, r)    READ_REGISTER_ULONG((PULONG)((d)->Regs + (r)))
#define WR(d, r, v) WRITE_REGISTER_ULONG((PULONG)((d)->Regs + (r)), (v))
#define SOURCE      1u
#define POLLED      2u      /* source 1, which does not interrupt */
#define CODE(n)     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PULSE CODE(0)     /* nothing in, nothing out */
#define IOCTL_CALIBRATE CODE(1) /* out: ULONG, microseconds */
#define HOLD_DEAD   4u

static BOOLEAN NTAPI SyncOn(PVOID ctx)
{
    PDEV d = ctx;
    WR(d, ENABLE, 0);
    WR(d, STATUS, ~0u);
    WR(d, ENABLE, SOURCE);
    (void)RD(d, ENABLE);
    d->Live = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI SyncOff(PVOID ctx)
{
    PDEV d = ctx;
    d->Live = FALSE;
    if (!d->Gone) {
        WR(d, ENABLE, 0);
        WR(d, STATUS, ~0u);
        (void)RD(d, STATUS);    /* the writes have arrived */
    }
    return TRUE;
}

/* D0 or not */
static VOID HwPower(PDEV d, BOOLEAN on)
{
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    if (d->Ready && !d->Gone) KeSynchronizeExecution(d->Int, on ? SyncOn : SyncOff, d);
    KeReleaseSpinLock(&d->Lock, k);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT i, PVOID ctx)
{
    PDEV d = ctx;
    ULONG s = d->Live ? RD(d, STATUS) : 0;
    if (s == ~0u || !(s & SOURCE)) return FALSE;
    WR(d, STATUS, SOURCE);
    if (RD(d, STATUS) & SOURCE)
        WR(d, ENABLE, 0);       /* does not go away: off until the next request */
    KeInsertQueueDpc(&d->IsrDpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI IsrDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{ KeSetEvent(&((PDEV)ctx)->Signal, IO_NO_INCREMENT, FALSE); }

static VOID HwRelease(PDEV d)
{
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    d->Ready = FALSE;
    KeReleaseSpinLock(&d->Lock, k);
    if (d->Int) {
        KeSynchronizeExecution(d->Int, SyncOff, d);
        IoDisconnectInterrupt(d->Int);
    }
    d->Int = NULL;
    KeFlushQueuedDpcs();
    if (d->Regs) MmUnmapIoSpace(d->Regs, d->RegsLength);
    d->Regs = NULL;
}

static NTSTATUS HwStart(PDEV d, PCM_RESOURCE_LIST list)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR r, regs = NULL, line = NULL;
    PCM_PARTIAL_RESOURCE_LIST pl;
    NTSTATUS s;
    ULONG i;
    KIRQL k;
    if (!list || !list->Count) return STATUS_DEVICE_CONFIGURATION_ERROR;
    pl = &list->List[0].PartialResourceList;
    for (i = 0; i < pl->Count; i++) {
        r = &pl->PartialDescriptors[i];
        if (r->Type == CmResourceTypeMemory) {
            if (!regs) regs = r;
        } else if (r->Type == CmResourceTypeInterrupt && !line) line = r;
    }
    if (!regs || !line || regs->u.Memory.Length < 0x70) return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegsLength = regs->u.Memory.Length;
    d->Regs = MmMapIoSpace(regs->u.Memory.Start, d->RegsLength, MmNonCached);
    s = STATUS_INSUFFICIENT_RESOURCES;
    if (!d->Regs) goto fail;
    s = STATUS_DEVICE_DOES_NOT_EXIST;
    i = RD(d, SOURCES);
    if (i == ~0u || i < 2) goto fail;
    d->Live = FALSE;
    WR(d, ENABLE, 0);
    (void)RD(d, ENABLE);
    s = IoConnectInterrupt(&d->Int, Isr, d, NULL, line->u.Interrupt.Vector, (KIRQL)line->u.Interrupt.Level,
        (KIRQL)line->u.Interrupt.Level, line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
        line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(s)) {
        d->Int = NULL;
        goto fail;
    }
    KeAcquireSpinLock(&d->Lock, &k);
    KeSynchronizeExecution(d->Int, SyncOn, d);
    d->Ready = TRUE;
    KeReleaseSpinLock(&d->Lock, k);
    return STATUS_SUCCESS;
fail:
    HwRelease(d);
    return s;
}

/* none is at work when this returns, and none begins */
static VOID Hold(PDEV d, ULONG why)
{
    ExAcquireFastMutex(&d->Mutex);
    InterlockedOr(&d->Holds, (LONG)why);
    ExReleaseFastMutex(&d->Mutex);
}

static VOID Unhold(PDEV d, ULONG why) { InterlockedAnd(&d->Holds, ~(LONG)why); }
static VOID Kill(PDEV d) { Hold(d, HOLD_DEAD); }

/* both have the mutex */
static NTSTATUS Pulse(PDEV d)
{
    LARGE_INTEGER limit;
    limit.QuadPart = -100 * 10000ll;
    KeClearEvent(&d->Signal);
    WR(d, ENABLE, SOURCE);
    WR(d, DELAY, 20000);
    WR(d, RAISE, SOURCE);
    return KeWaitForSingleObject(&d->Signal, Executive, KernelMode, FALSE, &limit) == STATUS_SUCCESS ? STATUS_SUCCESS : STATUS_IO_TIMEOUT;
}

static NTSTATUS Calibrate(PDEV d, PULONG us)
{
    NTSTATUS s = STATUS_SUCCESS;
    ULONG n = 0, v;
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);    /* nothing else runs on this processor */
    WR(d, STATUS, POLLED);
    WR(d, DELAY, 3000);
    WR(d, RAISE, POLLED);
    while (!((v = RD(d, STATUS)) & POLLED)) {
#ifdef FIXED
        if (n >= 50) {
            s = STATUS_IO_TIMEOUT;
            break;
        }
#endif
        KeStallExecutionProcessor(1);
        n++;
    }
    if (v == ~0u) s = STATUS_DEVICE_DOES_NOT_EXIST;
    else WR(d, STATUS, POLLED);
    KeReleaseSpinLock(&d->Lock, k);
    *us = n;
    return s;
}

static NTSTATUS NTAPI Ioctl(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    ULONG code = sl->Parameters.DeviceIoControl.IoControlCode, us = 0;
    ULONG_PTR info = 0;
    NTSTATUS s = IoAcquireRemoveLock(&d->Remove, irp);
    if (!NT_SUCCESS(s)) return Done(irp, s, 0);
    if (code == IOCTL_CALIBRATE && sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) s = STATUS_BUFFER_TOO_SMALL;
    else if (code != IOCTL_CALIBRATE && code != IOCTL_PULSE) s = STATUS_INVALID_DEVICE_REQUEST;
    else {
        ExAcquireFastMutex(&d->Mutex);
        if (d->Holds) s = d->Holds & HOLD_DEAD ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY;
        else if (code == IOCTL_PULSE) s = Pulse(d);
        else s = Calibrate(d, &us);
        ExReleaseFastMutex(&d->Mutex);
        if (code == IOCTL_CALIBRATE && NT_SUCCESS(s)) {
            *(PULONG)irp->AssociatedIrp.SystemBuffer = us;
            info = sizeof(ULONG);
        }
    }
    Finish(d, irp, s, info);
    return s;
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT o, PIRP irp) { return Done(irp, STATUS_SUCCESS, 0); }

/* requests are short: what the card works at ends by itself */
static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT o, PIRP irp) { return Done(irp, STATUS_SUCCESS, 0); }

static NTSTATUS Setup(PDEV d)
{
    KeInitializeSpinLock(&d->Lock);
    ExInitializeFastMutex(&d->Mutex);
    KeInitializeEvent(&d->Signal, SynchronizationEvent, FALSE);
    KeInitializeDpc(&d->IsrDpc, IsrDpc, d);
    d->Holds = HOLD_STOP;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS s = IoAcquireRemoveLock(&d->Remove, irp);
    if (!NT_SUCCESS(s)) return Done(irp, s, 0);
    switch (sl->MajorFunction == IRP_MJ_PNP ? sl->MinorFunction : 0xFF) {   /* WMI's are passed on */
    case IRP_MN_START_DEVICE:
        s = IoForwardIrpSynchronously(d->Lower, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(s)) s = HwStart(d, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(s)) {
            d->Power = PowerDeviceD0;
            Unhold(d, HOLD_STOP | HOLD_POWER);
            IoSetDeviceInterfaceState(&d->Link, TRUE);
        }
        Finish(d, irp, s, 0);
        return s;
    case IRP_MN_CANCEL_STOP_DEVICE:
        IoForwardIrpSynchronously(d->Lower, irp);
        if (d->Ready) Unhold(d, HOLD_STOP);
        Finish(d, irp, STATUS_SUCCESS, 0);
        return STATUS_SUCCESS;
    case IRP_MN_QUERY_STOP_DEVICE: Hold(d, HOLD_STOP); break;
    case IRP_MN_STOP_DEVICE:
        Hold(d, HOLD_STOP);
        HwRelease(d);
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE: break;
    case IRP_MN_SURPRISE_REMOVAL:
        d->Gone = TRUE;
        IoSetDeviceInterfaceState(&d->Link, FALSE);
        Kill(d);
        HwRelease(d);
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&d->Link, FALSE);
        Kill(d);
        IoReleaseRemoveLockAndWait(&d->Remove, irp);
        HwRelease(d);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        s = IoCallDriver(d->Lower, irp);
        IoDetachDevice(d->Lower);
        RtlFreeUnicodeString(&d->Link);
        IoDeleteDevice(o);
        return s;
    default:
        goto pass;
    }
    irp->IoStatus.Status = STATUS_SUCCESS;
pass:
    IoSkipCurrentIrpStackLocation(irp);
    s = IoCallDriver(d->Lower, irp);
    IoReleaseRemoveLock(&d->Remove, irp);
    return s;
}

static VOID NTAPI DeviceStateSet(PDEVICE_OBJECT o, UCHAR minor, POWER_STATE state, PVOID ctx, PIO_STATUS_BLOCK io)
{
    PDEV d = ctx;
    Finish(d, d->SystemIrp, io->Status, 0);
}

static NTSTATUS NTAPI PowerDone(PDEVICE_OBJECT o, PIRP irp, PVOID ctx)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    PDEV d = ctx;
    POWER_STATE ps = { .DeviceState = PowerDeviceD0 };
    if (NT_SUCCESS(irp->IoStatus.Status) && sl->Parameters.Power.Type == SystemPowerState) {
        if (sl->Parameters.Power.State.SystemState != PowerSystemWorking) ps.DeviceState = PowerDeviceD3;
        d->SystemIrp = irp;
        irp->IoStatus.Status = PoRequestPowerIrp(d->Pdo, IRP_MN_SET_POWER, ps, DeviceStateSet, d, NULL);
        if (NT_SUCCESS(irp->IoStatus.Status)) return STATUS_MORE_PROCESSING_REQUIRED;
    } else if (NT_SUCCESS(irp->IoStatus.Status)) {
        d->Power = PowerDeviceD0;
        PoSetPowerState(d->Self, DevicePowerState, ps);
        HwPower(d, TRUE);
        Unhold(d, HOLD_POWER);
    }
    IoReleaseRemoveLock(&d->Remove, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI Power(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE ps = sl->Parameters.Power.State;
    BOOLEAN system = sl->Parameters.Power.Type == SystemPowerState, set = sl->MinorFunction == IRP_MN_SET_POWER;
    NTSTATUS s = IoAcquireRemoveLock(&d->Remove, irp);
    if (!NT_SUCCESS(s)) return Done(irp, s, 0);
    if (set && (system || (ps.DeviceState == PowerDeviceD0 && d->Power != PowerDeviceD0))) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, PowerDone, d, TRUE, TRUE, TRUE);
        PoCallDriver(d->Lower, irp);
        return STATUS_PENDING;
    }
    if (set && ps.DeviceState != PowerDeviceD0 && d->Power == PowerDeviceD0) {
        Hold(d, HOLD_POWER);
        HwPower(d, FALSE);
        d->Power = ps.DeviceState;
        PoSetPowerState(o, DevicePowerState, ps);
    }
    IoSkipCurrentIrpStackLocation(irp);
    s = PoCallDriver(d->Lower, irp);
    IoReleaseRemoveLock(&d->Remove, irp);
    return s;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT o;
    PDEV d;
    NTSTATUS s = IoCreateDevice(drv, sizeof(DEV), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &o);
    if (!NT_SUCCESS(s)) return s;
    d = o->DeviceExtension;
    RtlZeroMemory(d, sizeof(*d));
    d->Self = o;
    d->Pdo = pdo;
    d->Power = PowerDeviceD3;
    IoInitializeRemoveLock(&d->Remove, 'b__D', 0, 0);
    s = Setup(d);
    if (NT_SUCCESS(s)) {
        s = IoRegisterDeviceInterface(pdo, &InterfaceGuid, NULL, &d->Link);
        if (NT_SUCCESS(s)) {
            d->Lower = IoAttachDeviceToDeviceStack(o, pdo);
            if (d->Lower) {
                o->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
                o->Flags &= ~DO_DEVICE_INITIALIZING;
                return STATUS_SUCCESS;
            }
            RtlFreeUnicodeString(&d->Link);
            s = STATUS_NO_SUCH_DEVICE;
        }
    }
    IoDeleteDevice(o);
    return s;
}

static VOID NTAPI Unload(PDRIVER_OBJECT drv) { }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    drv->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Ioctl;
    drv->MajorFunction[IRP_MJ_PNP] = drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = Pnp;
    drv->MajorFunction[IRP_MJ_POWER] = Power;
    drv->DriverExtension->AddDevice = AddDevice;
    drv->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
