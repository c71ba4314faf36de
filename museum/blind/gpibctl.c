/*
 * gpibctl: an IEEE 488 (GPIB) controller on a PLX 9052 board whose interrupt was never wired. A timer's DPC looks every ten milliseconds whether an instrument
 * asks for service (SRQ), polls it, and hands its status byte to the program that has waited longest. Programs send command bytes.
 *
 * The bug: the timer is a single shot that its DPC sets again unless the device is being stopped, but it looks at that flag without the lock. If the stop raises the
 * flag and cancels the timer just behind that look, the DPC sets the timer once more: it fires when the board is unmapped, or the device gone.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped, freed-active-timer, use-after-free, unload-still-called, card-without-power, io-space-still-mapped
 * Needs: schedule, removal, power
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"
#include "../include/parked_plx.h"

#define IOCTL_GPIB_AWAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GPIB_COMMAND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GPIB_STATE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_BUFFERED, FILE_READ_ACCESS)

#define POLL_MS 10

/* the controller chip, in the local space */
#define G_STATUS  0x00
#define G_POLL    0x04
#define G_COMMAND 0x08
#define G_SIZE    0x10
#define G_SRQ     0x01

static const GUID GpibInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x09 } };

typedef struct _GPIB {
    struct fdev f;
    struct hw hw;
    struct win *Chip, *Gpib;
    struct wlist Waiting;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;            /* guards what follows */
    LONG Stopping;
    ULONG Polls, Services;
} GPIB;

static VOID GpibArm(GPIB *g)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * POLL_MS;
    KeSetTimer(&g->Timer, due, &g->Dpc);
}

static VOID NTAPI GpibPoll(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    GPIB *g = Context;
    ULONG status = hw_r32(g->Gpib, G_STATUS), byte = 0;
    BOOLEAN service = status != 0xFFFFFFFF && (status & G_SRQ);
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    if (service)
        byte = hw_r32(g->Gpib, G_POLL) & 0xFF;
    KeAcquireSpinLockAtDpcLevel(&g->Lock);
    g->Polls++;
    g->Services += service;
    KeReleaseSpinLockFromDpcLevel(&g->Lock);
    if (service && (irp = wl_take(&g->Waiting, NULL)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = byte;
        wl_end(&g->Waiting, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
#ifndef FIXED
    if (!InterlockedCompareExchange(&g->Stopping, 0, 0))
        GpibArm(g);
#else
    KeAcquireSpinLockAtDpcLevel(&g->Lock);
    if (!g->Stopping)
        GpibArm(g);
    KeReleaseSpinLockFromDpcLevel(&g->Lock);
#endif
}

static VOID GpibPolling(GPIB *g, BOOLEAN On)
{
#ifndef FIXED
    InterlockedExchange(&g->Stopping, !On);
    if (On)
        GpibArm(g);
    else
        KeCancelTimer(&g->Timer);
#else
    KIRQL irql;

    KeAcquireSpinLock(&g->Lock, &irql);
    g->Stopping = !On;
    if (On)
        GpibArm(g);
    else
        KeCancelTimer(&g->Timer);
    KeReleaseSpinLock(&g->Lock, irql);
#endif
}

static NTSTATUS GpibRequest(struct fdev *f, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    GPIB *g = (GPIB *)f;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength, out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL irql;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GPIB_AWAIT:
        if (out < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return wl_put(&g->Waiting, Irp);

    case IOCTL_GPIB_COMMAND:
        if (in < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*buffer > 0x7F)                             /* seven bits, the eighth is not for commands */
            return irp_end(Irp, STATUS_INVALID_PARAMETER, 0);
        hw_w32(g->Gpib, G_COMMAND, *buffer);
        return irp_end(Irp, STATUS_SUCCESS, 0);

    case IOCTL_GPIB_STATE:
        if (out < 2 * sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&g->Lock, &irql);
        buffer[0] = g->Polls;
        buffer[1] = g->Services;
        KeReleaseSpinLock(&g->Lock, irql);
        return irp_end(Irp, STATUS_SUCCESS, 2 * sizeof(ULONG));

    default:
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS GpibStart(struct fdev *f, PCM_RESOURCE_LIST List)
{
    GPIB *g = (GPIB *)f;
    NTSTATUS status = hw_claim(&g->hw, List);

    if (!NT_SUCCESS(status))
        return status;
    status = plx_find(&g->hw, G_SIZE, &g->Chip, &g->Gpib);
    if (!NT_SUCCESS(status)) {
        hw_unmap(&g->hw);
        return status;
    }
    hw_w32(g->Chip, PLX_INTCSR, 0);
    GpibPolling(g, TRUE);
    return STATUS_SUCCESS;
}

static VOID GpibSleep(struct fdev *f)
{
    GpibPolling((GPIB *)f, FALSE);
    KeFlushQueuedDpcs();
}

static VOID GpibQuiet(struct fdev *f, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(Touch);
    GpibSleep(f);
    hw_unmap(&((GPIB *)f)->hw);
}

static VOID GpibWake(struct fdev *f)
{
    GPIB *g = (GPIB *)f;

    hw_w32(g->Chip, PLX_INTCSR, 0);
    GpibPolling(g, TRUE);
}

static VOID GpibGone(struct fdev *f)
{
    wl_end_all(&((GPIB *)f)->Waiting, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID GpibCleanup(struct fdev *f, PFILE_OBJECT File)
{
    wl_end_all(&((GPIB *)f)->Waiting, File, STATUS_CANCELLED);
}

static NTSTATUS GpibAdd(struct fdev *f)
{
    GPIB *g = (GPIB *)f;

    KeInitializeSpinLock(&g->Lock);
    KeInitializeTimer(&g->Timer);
    KeInitializeDpc(&g->Dpc, GpibPoll, g);
    return wl_init(&g->Waiting, &f->life);
}

static const struct fops GpibOps = {
    .iface = &GpibInterface, .bytes = sizeof(GPIB), .flags = DO_BUFFERED_IO,
    .add = GpibAdd, .start = GpibStart, .quiet = GpibQuiet, .sleep = GpibSleep, .wake = GpibWake,
    .request = GpibRequest, .gone = GpibGone, .cleanup = GpibCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return fd_entry(DriverObject, &GpibOps);
}
