/*
 * trkcirc: reads the track circuits of a shunting yard: a PCI card with 32 inputs that interrupts when a section becomes occupied or free. Programs read the
 * sections' states, and wait for changes. The driver counts how often the yard's computer was put to sleep, for which it has a system power handler of its own.
 *
 * The bug: that handler does not look whether PoRequestPowerIrp has succeeded. If there was no memory for the device's power IRP, its completion callback, which
 * would go on with the system's power IRP, never comes, and the system waits for that IRP for ever.
 *
 * Device: PCI\VEN_1F3A&DEV_4C01
 * Rule: power-irp-overdue, irp-never-completed, stuck, irp-leak
 * Needs: failure, power
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define IOCTL_TC_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TC_CHANGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_ACCESS)

#define TC_INPUTS  0x00
#define TC_ENABLE  0x04
#define TC_CHANGED 0x08             /* ones clear */
#define TC_SIZE    0x0C

static const GUID TrackInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x0F } };

typedef struct _TRACK_STATE {
    ULONG Occupied;
    ULONG Changes;
    ULONG Sleeps;
} TRACK_STATE;

typedef struct _TRACK {
    struct fdev f;
    struct hw hw;
    struct win *Regs;
    struct wlist Waiting;
    KDPC Dpc;
    LONG Causes;
    LONG Changes;
    LONG Sleeps;
} TRACK;

static BOOLEAN TcIsr(PVOID Context)
{
    TRACK *t = Context;
    ULONG changed = hw_r32(t->Regs, TC_CHANGED);

    if (changed == 0)
        return FALSE;
    if (changed == 0xFFFFFFFF && hw_r32(t->Regs, TC_ENABLE) != 0x7FFFFFFF)
        return FALSE;                           /* pulled */
    hw_w32(t->Regs, TC_CHANGED, changed);
    InterlockedOr(&t->Causes, (LONG)changed);
    KeInsertQueueDpc(&t->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI TcDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    TRACK *t = Context;
    ULONG changed = (ULONG)InterlockedExchange(&t->Causes, 0);
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    if (!changed)
        return;
    InterlockedIncrement(&t->Changes);
    while ((irp = wl_take(&t->Waiting, NULL)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = changed;
        wl_end(&t->Waiting, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS TcRequest(struct fdev *f, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    TRACK *t = (TRACK *)f;
    TRACK_STATE *state = Irp->AssociatedIrp.SystemBuffer;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TC_STATE:
        if (out < sizeof(TRACK_STATE))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        state->Occupied = hw_r32(t->Regs, TC_INPUTS);
        state->Changes = (ULONG)InterlockedCompareExchange(&t->Changes, 0, 0);
        state->Sleeps = (ULONG)InterlockedCompareExchange(&t->Sleeps, 0, 0);
        return irp_end(Irp, STATUS_SUCCESS, sizeof(TRACK_STATE));
    case IOCTL_TC_CHANGE:
        if (out < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return wl_put(&t->Waiting, Irp);
    default:
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* ---- the system's power ---- */

/* The drivers below have seen the system's IRP: now the device's state that belongs to it. */
static NTSTATUS NTAPI TcSystemBelow(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    TRACK *t = Context;
    POWER_STATE want;
    BOOLEAN working;

    UNREFERENCED_PARAMETER(Device);
    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        PoStartNextPowerIrp(Irp);
        ExReleaseRundownProtection(&t->f.life);
        return STATUS_CONTINUE_COMPLETION;
    }
    working = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking;
    if (!working)
        InterlockedIncrement(&t->Sleeps);
    want.DeviceState = working ? PowerDeviceD0 : PowerDeviceD3;
    t->f.s_irp = Irp;
#ifndef FIXED
    PoRequestPowerIrp(t->f.pdo, IRP_MN_SET_POWER, want, fd_d_done, &t->f, NULL);
#else
    if (!NT_SUCCESS(PoRequestPowerIrp(t->f.pdo, IRP_MN_SET_POWER, want, fd_d_done, &t->f, NULL)))
        IoQueueWorkItem(t->f.hand_item, fd_by_hand, CriticalWorkQueue, &t->f);
#endif
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI TcPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    TRACK *t = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    if (sp->MinorFunction != IRP_MN_SET_POWER || sp->Parameters.Power.Type != SystemPowerState)
        return fd_power(Device, Irp);
    if (!ExAcquireRundownProtection(&t->f.life)) {
        PoStartNextPowerIrp(Irp);
        return irp_end(Irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, TcSystemBelow, t, TRUE, TRUE, TRUE);
    PoCallDriver(t->f.lower, Irp);
    return STATUS_PENDING;
}

/* ---- the card ---- */

static void TcMask(PVOID Context)
{
    TRACK *t = Context;

    hw_w32(t->Regs, TC_ENABLE, 0);
    hw_r32(t->Regs, TC_ENABLE);
}

static void TcUnmask(PVOID Context)
{
    TRACK *t = Context;

    hw_w32(t->Regs, TC_CHANGED, 0xFFFFFFFF);
    hw_w32(t->Regs, TC_ENABLE, 0x7FFFFFFF);     /* input 31 is not wired */
}

static VOID TcOff(TRACK *t, BOOLEAN Touch)
{
    hw_turn(&t->hw, FALSE, Touch ? TcMask : NULL);
    KeFlushQueuedDpcs();
}

static VOID TcQuiet(struct fdev *f, BOOLEAN Touch)
{
    TRACK *t = (TRACK *)f;

    TcOff(t, Touch);
    hw_disconnect(&t->hw);
    hw_unmap(&t->hw);
}

static NTSTATUS TcStart(struct fdev *f, PCM_RESOURCE_LIST List)
{
    TRACK *t = (TRACK *)f;
    NTSTATUS status = hw_claim(&t->hw, List);

    if (!NT_SUCCESS(status))
        return status;
    t->Regs = &t->hw.w[0];
    if (t->hw.n == 0 || t->Regs->len < TC_SIZE) {
        hw_unmap(&t->hw);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    TcMask(t);
    status = hw_connect(&t->hw, TcIsr, t);
    if (!NT_SUCCESS(status)) {
        hw_unmap(&t->hw);
        return status;
    }
    hw_turn(&t->hw, TRUE, TcUnmask);
    return STATUS_SUCCESS;
}

static VOID TcSleep(struct fdev *f)
{
    TcOff((TRACK *)f, TRUE);
}

static VOID TcWake(struct fdev *f)
{
    hw_turn(&((TRACK *)f)->hw, TRUE, TcUnmask);
}

static VOID TcGone(struct fdev *f)
{
    wl_end_all(&((TRACK *)f)->Waiting, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID TcCleanup(struct fdev *f, PFILE_OBJECT File)
{
    wl_end_all(&((TRACK *)f)->Waiting, File, STATUS_CANCELLED);
}

static NTSTATUS TcAdd(struct fdev *f)
{
    TRACK *t = (TRACK *)f;

    KeInitializeDpc(&t->Dpc, TcDpc, t);
    return wl_init(&t->Waiting, &f->life);
}

static const struct fops TcOps = {
    .iface = &TrackInterface, .bytes = sizeof(TRACK), .flags = DO_BUFFERED_IO,
    .add = TcAdd, .start = TcStart, .quiet = TcQuiet, .sleep = TcSleep, .wake = TcWake,
    .request = TcRequest, .gone = TcGone, .cleanup = TcCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status = fd_entry(DriverObject, &TcOps);

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_POWER] = TcPower;
    return status;
}
