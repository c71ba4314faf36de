/*
 * Waits for edges of the local bus's LINTi1 and LINTi2, which the card latches: one wait for each line
 * at a time, with a time limit or without one; an edge for which no wait was there ends the next one.
 *
 * The bug: the interrupt routine clears the latches of both lines whichever it has seen, so an edge of
 * the other one that comes between its read and its write is lost.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten, request-timed-out
 * Needs: schedule, device
 */
#include <ddk/wdm.h>

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define HOLD_STOP   1u      /* not started, or about to be stopped */
#define HOLD_POWER  2u      /* not in D0 */
static const GUID InterfaceGuid = { 0xb7a244c3, 0x60e8, 0xb151, { 0x3a, 0xad, 0xea, 0x85, 0x38, 0x91, 0x3d, 0x19 } };

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
    ULONG Base, Csr;            /* INTCSR with all off; as it is to be, at the interrupt's level */
    BOOLEAN Dead;               /* under Lock, as all below */
    PIRP Waiting[2];            /* completed by who takes it from here and its cancel routine from it */
    ULONG Ticks[2];             /* 0: no limit */
    ULONG Edges;                /* bit n: line n has had one */
    ULONG Seen;                 /* at the interrupt's level: edges for the DPC */
    KTIMER Timer;               /* every 50 ms */
    KDPC TimerDpc, IsrDpc;
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

/* local configuration registers, in the first memory window */
#define INTCSR      0x4C
#define LINT1_EN    0x001u
#define LINT1_ACT   0x004u
#define LINT2_EN    0x008u
#define LINT2_ACT   0x020u
#define PCI_EN      0x040u
#define SOFT_INT    0x080u
#define LINT1_CLR   0x400u      /* of an edge; always read as 0 */
#define LINT2_CLR   0x800u
#define CNTRL       0x50

#define RD(d, r)    READ_REGISTER_ULONG((PULONG)((d)->Regs + (r)))
#define WR(d, r, v) WRITE_REGISTER_ULONG((PULONG)((d)->Regs + (r)), (v))
#define EDGES       0x312u      /* both lines: edges, active high */
#define CODE(n)     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WAIT  CODE(0)     /* in: WAIT */
#define MAX_WAIT    1000u

typedef struct _WAIT { ULONG Line, Limit; } WAIT, *PWAIT;       /* Line 0 or 1; Limit in ms, up to MAX_WAIT, 0 for none */

static BOOLEAN NTAPI SyncOn(PVOID ctx)
{
    PDEV d = ctx;
    d->Csr = d->Base | PCI_EN | LINT1_EN | LINT2_EN | EDGES;
    WR(d, INTCSR, d->Csr | LINT1_CLR | LINT2_CLR);
    (void)RD(d, INTCSR);
    d->Live = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI SyncOff(PVOID ctx)
{
    PDEV d = ctx;
    d->Live = FALSE;
    d->Csr = d->Base;
    if (!d->Gone) {
        WR(d, INTCSR, d->Csr);
        (void)RD(d, INTCSR);    /* the write has arrived */
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
    ULONG v = d->Live ? RD(d, INTCSR) : 0;
    if (v == ~0u || !(v & (LINT1_ACT | LINT2_ACT))) return FALSE;
#ifdef FIXED
    WR(d, INTCSR, d->Csr | (v & LINT1_ACT ? LINT1_CLR : 0) | (v & LINT2_ACT ? LINT2_CLR : 0));
#else
    WR(d, INTCSR, d->Csr | LINT1_CLR | LINT2_CLR);
#endif
    (void)RD(d, INTCSR);
    d->Seen |= (v & LINT1_ACT ? 1 : 0) | (v & LINT2_ACT ? 2 : 0);
    KeInsertQueueDpc(&d->IsrDpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI SyncFetch(PVOID ctx)
{
    PDEV d = ctx;
    d->Edges |= d->Seen;
    d->Seen = 0;
    return TRUE;
}

/* Lock is held: the line's wait, if its cancel routine has not got it */
static PIRP Take(PDEV d, ULONG n)
{
    PIRP irp = d->Waiting[n];
    if (!irp || !IoSetCancelRoutine(irp, NULL)) return NULL;
    d->Waiting[n] = NULL;
    return irp;
}

static VOID NTAPI IsrDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    PDEV d = ctx;
    PIRP irp[2] = { NULL, NULL };
    ULONG n;
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    if (d->Ready) KeSynchronizeExecution(d->Int, SyncFetch, d);
    for (n = 0; n < 2; n++)
        if ((d->Edges & (1u << n)) && (irp[n] = Take(d, n)) != NULL) d->Edges &= ~(1u << n);
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    for (n = 0; n < 2; n++)
        if (irp[n]) Finish(d, irp[n], STATUS_SUCCESS, 0);
}

static VOID NTAPI TimerDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    PDEV d = ctx;
    PIRP irp[2] = { NULL, NULL };
    ULONG n;
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    for (n = 0; n < 2; n++)
        if (d->Waiting[n] && d->Ticks[n] && --d->Ticks[n] == 0) irp[n] = Take(d, n);
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    for (n = 0; n < 2; n++)
        if (irp[n]) Finish(d, irp[n], STATUS_IO_TIMEOUT, 0);
}

static VOID NTAPI Cancel(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    ULONG n;
    KIRQL k;
    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&d->Lock, &k);
    for (n = 0; n < 2; n++)
        if (d->Waiting[n] == irp) d->Waiting[n] = NULL;
    KeReleaseSpinLock(&d->Lock, k);
    Finish(d, irp, STATUS_CANCELLED, 0);
}

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
    KeCancelTimer(&d->Timer);
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
    LARGE_INTEGER due;
    if (!list || !list->Count) return STATUS_DEVICE_CONFIGURATION_ERROR;
    pl = &list->List[0].PartialResourceList;
    for (i = 0; i < pl->Count; i++) {
        r = &pl->PartialDescriptors[i];
        if (r->Type == CmResourceTypeMemory) {
            if (!regs) regs = r;
        } else if (r->Type == CmResourceTypeInterrupt && !line) line = r;
    }
    if (!regs || !line || regs->u.Memory.Length < CNTRL + 4) return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegsLength = regs->u.Memory.Length;
    d->Regs = MmMapIoSpace(regs->u.Memory.Start, d->RegsLength, MmNonCached);
    s = STATUS_INSUFFICIENT_RESOURCES;
    if (!d->Regs) goto fail;
    s = STATUS_DEVICE_DOES_NOT_EXIST;
    d->Base = RD(d, INTCSR);
    if (d->Base == ~0u) goto fail;
    d->Live = FALSE;
    d->Base &= ~(LINT1_EN | LINT2_EN | PCI_EN | SOFT_INT | LINT1_CLR | LINT2_CLR);
    WR(d, INTCSR, d->Base);
    (void)RD(d, INTCSR);
    s = IoConnectInterrupt(&d->Int, Isr, d, NULL, line->u.Interrupt.Vector, (KIRQL)line->u.Interrupt.Level,
        (KIRQL)line->u.Interrupt.Level, line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
        line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(s)) {
        d->Int = NULL;
        goto fail;
    }
    due.QuadPart = -50 * 10000ll;
    KeSetTimerEx(&d->Timer, due, 50, &d->TimerDpc);
    KeAcquireSpinLock(&d->Lock, &k);
    KeSynchronizeExecution(d->Int, SyncOn, d);
    d->Ready = TRUE;
    KeReleaseSpinLock(&d->Lock, k);
    return STATUS_SUCCESS;
fail:
    HwRelease(d);
    return s;
}

/* waits need nothing of the card, so they stay while it sleeps or is moved */
static VOID Hold(PDEV d, ULONG why) { }
static VOID Unhold(PDEV d, ULONG why) { }

static VOID Flush(PDEV d, PFILE_OBJECT file, BOOLEAN dead, NTSTATUS s)
{
    PIRP irp[2] = { NULL, NULL };
    ULONG n;
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    d->Dead |= dead;
    for (n = 0; n < 2; n++)
        if (d->Waiting[n] && (!file || IoGetCurrentIrpStackLocation(d->Waiting[n])->FileObject == file)) irp[n] = Take(d, n);
    KeReleaseSpinLock(&d->Lock, k);
    for (n = 0; n < 2; n++)
        if (irp[n]) Finish(d, irp[n], s, 0);
}

static VOID Kill(PDEV d) { Flush(d, NULL, TRUE, STATUS_DELETE_PENDING); }

static NTSTATUS NTAPI Ioctl(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    PWAIT w = irp->AssociatedIrp.SystemBuffer;
    ULONG n;
    KIRQL k;
    NTSTATUS s = IoAcquireRemoveLock(&d->Remove, irp);
    if (!NT_SUCCESS(s)) return Done(irp, s, 0);
    if (sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_WAIT) s = STATUS_INVALID_DEVICE_REQUEST;
    else if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(WAIT)) s = STATUS_BUFFER_TOO_SMALL;
    else if (w->Line > 1 || w->Limit > MAX_WAIT) s = STATUS_INVALID_PARAMETER;
    if (NT_SUCCESS(s)) {
        n = w->Line;
        KeAcquireSpinLock(&d->Lock, &k);
        if (d->Dead) s = STATUS_DELETE_PENDING;
        else if (d->Waiting[n]) s = STATUS_DEVICE_BUSY;
        else if (d->Edges & (1u << n)) d->Edges &= ~(1u << n);
        else {
            IoSetCancelRoutine(irp, Cancel);
            if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) s = STATUS_CANCELLED;
            else {
                IoMarkIrpPending(irp);
                d->Waiting[n] = irp;
                d->Ticks[n] = w->Limit ? w->Limit / 50 + 2 : 0;
                s = STATUS_PENDING;
            }
        }
        KeReleaseSpinLock(&d->Lock, k);
    }
    if (s != STATUS_PENDING) Finish(d, irp, s, 0);
    return s;
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT o, PIRP irp) { return Done(irp, STATUS_SUCCESS, 0); }

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT o, PIRP irp)
{
    Flush(o->DeviceExtension, IoGetCurrentIrpStackLocation(irp)->FileObject, FALSE, STATUS_CANCELLED);
    return Done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Setup(PDEV d)
{
    KeInitializeSpinLock(&d->Lock);
    KeInitializeTimer(&d->Timer);
    KeInitializeDpc(&d->TimerDpc, TimerDpc, d);
    KeInitializeDpc(&d->IsrDpc, IsrDpc, d);
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
