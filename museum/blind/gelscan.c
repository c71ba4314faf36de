/*
 * gelscan: a scanner for electrophoresis gels, a driver brought over from NT 4 with its StartIo. A program, one at a time, has lanes scanned; the card
 * (`edu`) takes a lane's number, and has the lane's density when its interrupt comes.
 *
 * The bug: StartIo completes a request with a lane that there is not, and returns without IoStartNextPacket. The device's queue stays busy, and all requests that
 * follow wait in it for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: next-packet-not-started, stuck, irp-never-completed, request-forgotten
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define IOCTL_GS_SCAN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LANES 12
#define MODES 3

#define R_LANE   0x08
#define R_STATUS 0x20
#define R_CAUSE  0x24
#define R_ACK    0x64

static const GUID GelscanInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x06 } };

typedef struct _SCAN {
    ULONG Lane;             /* 1..LANES */
    ULONG Mode;             /* 0..MODES - 1 */
} SCAN, *PSCAN;

typedef struct _GELSCAN {
    struct fdev f;
    struct hw hw;
    struct win *Regs;
    LONG Opened;

    KSPIN_LOCK Lock;
    PIRP Active;            /* the current IRP, while the card has it; holds a reference of f.life, as all in the queue */
    PIRP Orphan;            /* the current IRP, which is left to its cancel routine */
    ULONG Lane;
    BOOLEAN Busy;           /* the card scans, even if it is not wanted any more */
    BOOLEAN Stale;          /* but not Lane: that is for later */
    BOOLEAN Up;
    BOOLEAN Closed, Dead;   /* what is in the queue is not wanted */
    KDPC Dpc;
    LONG Causes;
} GELSCAN, *PGELSCAN;

static VOID GsComplete(PGELSCAN gs, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    irp_end(Irp, Status, Info);
    ExReleaseRundownProtection(&gs->f.life);
}

static VOID GsStartNext(PGELSCAN gs)
{
    KIRQL irql;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    IoStartNextPacket(gs->f.self, TRUE);
    KeLowerIrql(irql);
}

/* Lock held. */
static VOID GsExpose(PGELSCAN gs)
{
    hw_w32(gs->Regs, R_STATUS, 0x80);
    hw_w32(gs->Regs, R_LANE, gs->Lane);
}

/*
 * Called with the cancel spin lock; it guards CurrentIrp, too. The current IRP is either with the card (Active), or left to this routine by the DPC
 * (Orphan), or StartIo has not seen it yet, and ends it when it does.
 */
static VOID NTAPI GsCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PGELSCAN gs = Device->DeviceExtension;
    BOOLEAN mine = FALSE;

    if (Irp == Device->CurrentIrp) {
        KeAcquireSpinLockAtDpcLevel(&gs->Lock);
        if (gs->Active == Irp) {
            gs->Active = NULL;              /* the card scans on in vain */
            mine = TRUE;
        } else if (gs->Orphan == Irp) {
            gs->Orphan = NULL;
            mine = TRUE;
        }
        KeReleaseSpinLockFromDpcLevel(&gs->Lock);
        IoReleaseCancelSpinLock(Irp->CancelIrql);
        if (!mine)
            return;
        GsStartNext(gs);
    } else {
        KeRemoveEntryDeviceQueue(&Device->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);
        IoReleaseCancelSpinLock(Irp->CancelIrql);
    }
    GsComplete(gs, Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI GsStartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PGELSCAN gs = Device->DeviceExtension;
    PSCAN scan = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_PENDING;
    KIRQL irql;

    IoAcquireCancelSpinLock(&irql);
    KeAcquireSpinLockAtDpcLevel(&gs->Lock);
    if (Irp->Cancel || gs->Closed)
        status = STATUS_CANCELLED;
    else if (gs->Dead)
        status = STATUS_NO_SUCH_DEVICE;
    else if (scan->Lane == 0 || scan->Lane > LANES || scan->Mode >= MODES)
        status = STATUS_INVALID_PARAMETER;
    if (status == STATUS_PENDING) {
        gs->Active = Irp;
        gs->Lane = scan->Lane;
        if (gs->Busy) {
            gs->Stale = TRUE;
        } else {
            gs->Busy = TRUE;
            if (gs->Up)
                GsExpose(gs);
        }
    } else {
        IoSetCancelRoutine(Irp, NULL);
    }
    KeReleaseSpinLockFromDpcLevel(&gs->Lock);
    IoReleaseCancelSpinLock(irql);
    if (status == STATUS_PENDING)
        return;
    GsComplete(gs, Irp, status, 0);
#ifndef FIXED
    if (status == STATUS_INVALID_PARAMETER)
        return;
#endif
    IoStartNextPacket(Device, TRUE);        /* which is done when this one has returned: IoSetStartIoAttributes */
}

static BOOLEAN GsIsr(PVOID Context)
{
    PGELSCAN gs = Context;
    ULONG cause = hw_r32(gs->Regs, R_CAUSE);

    if (cause == 0 || cause == 0xFFFFFFFF)
        return FALSE;
    hw_w32(gs->Regs, R_ACK, cause);
    InterlockedOr(&gs->Causes, (LONG)cause);
    KeInsertQueueDpc(&gs->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI GsDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PGELSCAN gs = Context;
    LONG causes = InterlockedExchange(&gs->Causes, 0);
    ULONG density = 0;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&gs->Lock);
    if ((causes & 1) && gs->Busy && gs->Up && !(hw_r32(gs->Regs, R_STATUS) & 1)) {
        density = hw_r32(gs->Regs, R_LANE);
        if (gs->Stale && gs->Active) {
            GsExpose(gs);
        } else {
            irp = gs->Active;
            gs->Active = NULL;
            gs->Busy = FALSE;
            if (irp && IoSetCancelRoutine(irp, NULL) == NULL) {
                gs->Orphan = irp;           /* the cancel routine goes on with it, and starts the next one */
                irp = NULL;
            }
        }
        gs->Stale = FALSE;
    }
    KeReleaseSpinLockFromDpcLevel(&gs->Lock);
    if (irp == NULL)
        return;
    *(PULONG)irp->AssociatedIrp.SystemBuffer = density;
    GsComplete(gs, irp, STATUS_SUCCESS, sizeof(ULONG));
    IoStartNextPacket(gs->f.self, TRUE);
}

/* Ends what is in the hands of the card; StartIo ends the others, as Closed or Dead is set. */
static VOID GsFlush(PGELSCAN gs, BOOLEAN Dead)
{
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&gs->Lock, &irql);
    if (Dead)
        gs->Dead = TRUE;
    else
        gs->Closed = TRUE;
    irp = gs->Active;
    gs->Active = NULL;
    if (irp && IoSetCancelRoutine(irp, NULL) == NULL) {
        gs->Orphan = irp;
        irp = NULL;
    }
    KeReleaseSpinLock(&gs->Lock, irql);
    if (irp == NULL)
        return;
    GsComplete(gs, irp, Dead ? STATUS_NO_SUCH_DEVICE : STATUS_CANCELLED, 0);
    GsStartNext(gs);
}

static NTSTATUS GsRequest(struct fdev *f, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL || Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_GS_SCAN)
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(SCAN) || Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (!ExAcquireRundownProtection(&f->life))
        return irp_end(Irp, STATUS_NO_SUCH_DEVICE, 0);
    IoMarkIrpPending(Irp);
    IoStartPacket(f->self, Irp, NULL, GsCancel);
    return STATUS_PENDING;
}

static void GsSilence(PVOID Context)
{
    PGELSCAN gs = Context;

    hw_w32(gs->Regs, R_STATUS, 0);
    hw_w32(gs->Regs, R_ACK, 0xFFFFFFFF);
    hw_r32(gs->Regs, R_STATUS);
}

static VOID GsOn(PGELSCAN gs)
{
    KIRQL irql;

    hw_turn(&gs->hw, TRUE, NULL);
    KeAcquireSpinLock(&gs->Lock, &irql);
    gs->Up = TRUE;
    gs->Dead = FALSE;
    gs->Stale = hw_r32(gs->Regs, R_STATUS) & 1;     /* it goes on with what it was at */
    gs->Busy = gs->Active != NULL || gs->Stale;
    if (gs->Stale)
        hw_w32(gs->Regs, R_STATUS, 0x80);
    else if (gs->Active)
        GsExpose(gs);                       /* once more */
    KeReleaseSpinLock(&gs->Lock, irql);
}

static VOID GsOff(PGELSCAN gs, BOOLEAN Touch)
{
    KIRQL irql;

    KeAcquireSpinLock(&gs->Lock, &irql);
    gs->Up = FALSE;
    KeReleaseSpinLock(&gs->Lock, irql);
    hw_turn(&gs->hw, FALSE, Touch ? GsSilence : NULL);
    KeFlushQueuedDpcs();
}

static VOID GsQuiet(struct fdev *f, BOOLEAN Touch)
{
    PGELSCAN gs = (PGELSCAN)f;

    GsOff(gs, Touch);
    hw_disconnect(&gs->hw);
    hw_unmap(&gs->hw);
}

static NTSTATUS GsStart(struct fdev *f, PCM_RESOURCE_LIST List)
{
    PGELSCAN gs = (PGELSCAN)f;
    NTSTATUS status = hw_claim(&gs->hw, List);

    if (!NT_SUCCESS(status))
        return status;
    gs->Regs = &gs->hw.w[0];
    if (gs->hw.n == 0 || gs->Regs->port || gs->Regs->len < 0x100) {
        hw_unmap(&gs->hw);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    GsSilence(gs);
    status = hw_connect(&gs->hw, GsIsr, gs);
    if (!NT_SUCCESS(status)) {
        hw_unmap(&gs->hw);
        return status;
    }
    GsOn(gs);
    return STATUS_SUCCESS;
}

static VOID GsSleep(struct fdev *f)
{
    GsOff((PGELSCAN)f, TRUE);
}

static VOID GsWake(struct fdev *f)
{
    GsOn((PGELSCAN)f);
}

static VOID GsGone(struct fdev *f)
{
    GsFlush((PGELSCAN)f, TRUE);
}

static NTSTATUS GsOpen(struct fdev *f, PFILE_OBJECT File)
{
    PGELSCAN gs = (PGELSCAN)f;
    KIRQL irql;

    UNREFERENCED_PARAMETER(File);
    if (InterlockedCompareExchange(&gs->Opened, 1, 0) != 0)
        return STATUS_SHARING_VIOLATION;
    KeAcquireSpinLock(&gs->Lock, &irql);
    gs->Closed = FALSE;
    KeReleaseSpinLock(&gs->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID GsCleanup(struct fdev *f, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(File);
    GsFlush((PGELSCAN)f, FALSE);
}

static VOID GsClose(struct fdev *f, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(File);
    InterlockedExchange(&((PGELSCAN)f)->Opened, 0);
}

static NTSTATUS GsAdd(struct fdev *f)
{
    PGELSCAN gs = (PGELSCAN)f;

    KeInitializeSpinLock(&gs->Lock);
    KeInitializeDpc(&gs->Dpc, GsDpc, gs);
    IoSetStartIoAttributes(f->self, TRUE, FALSE);
    return STATUS_SUCCESS;
}

static const struct fops GsOps = {
    .iface = &GelscanInterface, .bytes = sizeof(GELSCAN), .flags = DO_BUFFERED_IO,
    .add = GsAdd, .start = GsStart, .quiet = GsQuiet, .sleep = GsSleep, .wake = GsWake,
    .request = GsRequest, .gone = GsGone, .open = GsOpen, .cleanup = GsCleanup, .close = GsClose,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverStartIo = GsStartIo;
    return fd_entry(DriverObject, &GsOps);
}
