/*
 * intlock: keeps the table of routes of a small railway's interlocking. Operators' programs set and release routes over sections of track; a supervisor, a work
 * item that a timer starts four times a second, releases routes whose time is over, and the driver puts all signals to danger when it is stopped.
 *
 * The bug: the stop holds the table's mutex, so that no route is set any more, while it waits for the supervisor to be done; a supervisor that is just
 * starting waits for that mutex.
 *
 * Device: Root\INTLOCK
 * Rule: deadlock, stuck
 * Needs: schedule, removal
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define ROUTES 32
#define TICK_MS 250

#define IOCTL_IL_SET     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_IL_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_IL_TABLE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID IntlockInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x02 } };

typedef struct _ROUTE {
    ULONG Sections;             /* one bit each; 0: not set */
    ULONG TicksLeft;
} ROUTE;

typedef struct _ROUTE_IN {
    ULONG Number;
    ULONG Sections;
    ULONG Seconds;
} ROUTE_IN;

typedef struct _INTERLOCK {
    struct fdev f;
    KMUTEX Table;               /* guards Route and Occupied */
    ROUTE Route[ROUTES];
    ULONG Occupied;

    KTIMER Timer;
    KDPC Dpc;
    PIO_WORKITEM Supervisor;
    KSPIN_LOCK Lock;            /* guards Queued and Stopped */
    BOOLEAN Queued, Stopped;
    KEVENT Done;                /* no supervisor is queued or runs */
} INTERLOCK;

static VOID Acquire(INTERLOCK *il)
{
    KeWaitForSingleObject(&il->Table, Executive, KernelMode, FALSE, NULL);
}

static VOID Release(INTERLOCK *il)
{
    KeReleaseMutex(&il->Table, FALSE);
}

static VOID ClearRoute(INTERLOCK *il, ULONG n)
{
    il->Occupied &= ~il->Route[n].Sections;
    il->Route[n].Sections = 0;
    il->Route[n].TicksLeft = 0;
}

static VOID NTAPI Supervise(PDEVICE_OBJECT Device, PVOID Context)
{
    INTERLOCK *il = Context;
    ULONG n;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Device);
    Acquire(il);
    for (n = 0; n < ROUTES; n++)
        if (il->Route[n].Sections && --il->Route[n].TicksLeft == 0)
            ClearRoute(il, n);
    Release(il);
    KeAcquireSpinLock(&il->Lock, &irql);
    il->Queued = FALSE;
    KeSetEvent(&il->Done, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&il->Lock, irql);
    ExReleaseRundownProtection(&il->f.life);
}

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    INTERLOCK *il = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&il->Lock);
    if (!il->Queued && !il->Stopped && ExAcquireRundownProtection(&il->f.life)) {
        il->Queued = TRUE;
        KeClearEvent(&il->Done);
        IoQueueWorkItem(il->Supervisor, Supervise, DelayedWorkQueue, il);
    }
    KeReleaseSpinLockFromDpcLevel(&il->Lock);
}

static NTSTATUS SetRoute(INTERLOCK *il, const ROUTE_IN *in)
{
    NTSTATUS status = STATUS_SUCCESS;

    if (in->Number >= ROUTES || in->Sections == 0 || in->Seconds == 0 || in->Seconds > 3600)
        return STATUS_INVALID_PARAMETER;
    Acquire(il);
    if (il->Route[in->Number].Sections || (il->Occupied & in->Sections)) {
        status = STATUS_DEVICE_BUSY;
    } else {
        il->Route[in->Number].Sections = in->Sections;
        il->Route[in->Number].TicksLeft = in->Seconds * (1000 / TICK_MS);
        il->Occupied |= in->Sections;
    }
    Release(il);
    return status;
}

static NTSTATUS Request(struct fdev *f, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    INTERLOCK *il = (INTERLOCK *)f;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_IL_SET:
        if (in < sizeof(ROUTE_IN))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return irp_end(Irp, SetRoute(il, buffer), 0);

    case IOCTL_IL_RELEASE: {
        ULONG n;

        if (in < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        n = *(PULONG)buffer;
        if (n >= ROUTES)
            return irp_end(Irp, STATUS_INVALID_PARAMETER, 0);
        Acquire(il);
        ClearRoute(il, n);
        Release(il);
        return irp_end(Irp, STATUS_SUCCESS, 0);
    }

    case IOCTL_IL_TABLE:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(il->Route))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Acquire(il);
        RtlCopyMemory(buffer, il->Route, sizeof(il->Route));
        Release(il);
        return irp_end(Irp, STATUS_SUCCESS, sizeof(il->Route));

    default:
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID Clock(INTERLOCK *il, BOOLEAN On)
{
    LARGE_INTEGER due;
    KIRQL irql;

    KeAcquireSpinLock(&il->Lock, &irql);
    il->Stopped = !On;
    KeReleaseSpinLock(&il->Lock, irql);
    due.QuadPart = -10000LL * TICK_MS;
    if (On)
        KeSetTimerEx(&il->Timer, due, TICK_MS, &il->Dpc);
    else
        KeCancelTimer(&il->Timer);
}

static NTSTATUS Start(struct fdev *f, PCM_RESOURCE_LIST List)
{
    UNREFERENCED_PARAMETER(List);
    Clock((INTERLOCK *)f, TRUE);
    return STATUS_SUCCESS;
}

/* All signals to danger. */
static VOID Quiet(struct fdev *f, BOOLEAN Touch)
{
    INTERLOCK *il = (INTERLOCK *)f;
    ULONG n;

    UNREFERENCED_PARAMETER(Touch);
    Acquire(il);
    for (n = 0; n < ROUTES; n++)
        ClearRoute(il, n);
#ifndef FIXED
    Clock(il, FALSE);
    KeFlushQueuedDpcs();
    KeWaitForSingleObject(&il->Done, Executive, KernelMode, FALSE, NULL);
    Release(il);
#else
    Release(il);
    Clock(il, FALSE);
    KeFlushQueuedDpcs();
    KeWaitForSingleObject(&il->Done, Executive, KernelMode, FALSE, NULL);
#endif
}

static VOID Sleep(struct fdev *f)
{
    Quiet(f, FALSE);
}

static VOID Wake(struct fdev *f)
{
    Clock((INTERLOCK *)f, TRUE);
}

static NTSTATUS Add(struct fdev *f)
{
    INTERLOCK *il = (INTERLOCK *)f;

    KeInitializeMutex(&il->Table, 0);
    KeInitializeSpinLock(&il->Lock);
    KeInitializeTimerEx(&il->Timer, NotificationTimer);
    KeInitializeDpc(&il->Dpc, Tick, il);
    KeInitializeEvent(&il->Done, NotificationEvent, TRUE);
    il->Stopped = TRUE;
    il->Supervisor = IoAllocateWorkItem(f->self);
    return il->Supervisor ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID Drop(struct fdev *f)
{
    IoFreeWorkItem(((INTERLOCK *)f)->Supervisor);
}

static const struct fops Ops = {
    .iface = &IntlockInterface, .bytes = sizeof(INTERLOCK), .flags = DO_BUFFERED_IO,
    .add = Add, .drop = Drop, .start = Start, .quiet = Quiet, .sleep = Sleep, .wake = Wake, .request = Request,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return fd_entry(DriverObject, &Ops);
}
