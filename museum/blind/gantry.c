/*
 * gantry: steps four simulated axes of a gantry crane every 10 ms towards their targets, for programs that are tested without the crane. A program sets
 * targets, asks for positions and waits until an axis has arrived.
 *
 * The bug: the queued spin lock's handle is kept in the device extension instead of on the stack of each taker. When a second processor comes for the lock it
 * writes the same handle that the owner needs to let go: the lock is lost or never free again, and both processors hang.
 *
 * Device: ROOT\GANTRY
 * Rule: irql-changed-by-routine, irql-lowered-in-callback
 * Needs: schedule
 */
#include "../include/ticking_card.h"

#define AXES 4
#define REACH 1000000
#define FASTEST 1000

#define IOCTL_GANTRY_MOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x990, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GANTRY_WHERE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x991, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GANTRY_ARRIVED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x992, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GANTRY_HALT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x993, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID GANTRY_GUID = {0x5d0b6c14, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x04}};

typedef struct _GANTRY_MOVE {
    ULONG Axis;
    LONG Target;
    LONG Speed; /* steps in each 10 ms */
} GANTRY_MOVE, *PGANTRY_MOVE;

typedef struct _AXIS {
    LONG Position;
    LONG Target;
    LONG Speed;
} AXIS, *PAXIS;

typedef struct _GANTRY {
    ZDEV Dev;
    KSPIN_LOCK Lock;
#ifndef FIXED
    KLOCK_QUEUE_HANDLE Handle;
#endif
    AXIS Axis[AXES];
    ZLIST Waiting[AXES];
    KTIMER Timer;
    KDPC TimerDpc;
} GANTRY, *PGANTRY;

#ifdef FIXED
#define LOCK_HANDLE(g) KLOCK_QUEUE_HANDLE Own, *Handle = &Own
#else
#define LOCK_HANDLE(g) KLOCK_QUEUE_HANDLE *Handle = &(g)->Handle
#endif

/* Completes those that wait for an axis which stands still. */
static VOID Notify(PGANTRY g, ULONG Axis)
{
    LOCK_HANDLE(g);
    PIRP Irp;
    LONG Position;
    BOOLEAN Still;

    for (;;) {
        KeAcquireInStackQueuedSpinLock(&g->Lock, Handle);
        Position = g->Axis[Axis].Position;
        Still = Position == g->Axis[Axis].Target;
        KeReleaseInStackQueuedSpinLock(Handle);
        if (!Still)
            return;
        Irp = IoCsqRemoveNextIrp(&g->Waiting[Axis].Csq, NULL);
        if (!Irp)
            return;
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = Position;
        ZComplete(Irp, STATUS_SUCCESS, sizeof(LONG));
        IoReleaseRemoveLock(&g->Dev.Lock, Irp);
    }
}

static VOID NTAPI GantryStep(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PGANTRY g = Context;
    LOCK_HANDLE(g);
    ULONG Arrived = 0, i;

    (void)Dpc, (void)A, (void)B;
    KeAcquireInStackQueuedSpinLockAtDpcLevel(&g->Lock, Handle);
    for (i = 0; i < AXES; i++) {
        PAXIS a = &g->Axis[i];
        LONG Left = a->Target - a->Position;

        if (!Left)
            continue;
        if (Left > a->Speed)
            Left = a->Speed;
        if (Left < -a->Speed)
            Left = -a->Speed;
        a->Position += Left;
        if (a->Position == a->Target)
            Arrived |= 1u << i;
    }
    KeReleaseInStackQueuedSpinLockFromDpcLevel(Handle);
    for (i = 0; i < AXES; i++)
        if (Arrived & (1u << i))
            Notify(g, i);
}

static NTSTATUS Move(PGANTRY g, const GANTRY_MOVE *In)
{
    LOCK_HANDLE(g);

    if (In->Axis >= AXES || In->Target > REACH || In->Target < -REACH || In->Speed < 1 || In->Speed > FASTEST)
        return STATUS_INVALID_PARAMETER;
    KeAcquireInStackQueuedSpinLock(&g->Lock, Handle);
    g->Axis[In->Axis].Target = In->Target;
    g->Axis[In->Axis].Speed = In->Speed;
    KeReleaseInStackQueuedSpinLock(Handle);
    Notify(g, In->Axis); /* it may be there already */
    return STATUS_SUCCESS;
}

static VOID Where(PGANTRY g, PAXIS Out)
{
    LOCK_HANDLE(g);
    ULONG i;

    KeAcquireInStackQueuedSpinLock(&g->Lock, Handle);
    for (i = 0; i < AXES; i++)
        Out[i] = g->Axis[i];
    KeReleaseInStackQueuedSpinLock(Handle);
}

static VOID Halt(PGANTRY g)
{
    LOCK_HANDLE(g);
    ULONG i;

    KeAcquireInStackQueuedSpinLock(&g->Lock, Handle);
    for (i = 0; i < AXES; i++)
        g->Axis[i].Target = g->Axis[i].Position;
    KeReleaseInStackQueuedSpinLock(Handle);
    for (i = 0; i < AXES; i++)
        Notify(g, i);
}

static NTSTATUS GantryRequest(PZDEV d, PIRP Irp)
{
    PGANTRY g = CONTAINING_RECORD(d, GANTRY, Dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG InLength, OutLength, Axis;

    if (sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    InLength = sl->Parameters.DeviceIoControl.InputBufferLength;
    OutLength = sl->Parameters.DeviceIoControl.OutputBufferLength;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GANTRY_MOVE:
        if (InLength < sizeof(GANTRY_MOVE))
            return STATUS_INVALID_PARAMETER;
        return Move(g, Buffer);
    case IOCTL_GANTRY_WHERE:
        if (OutLength < AXES * sizeof(AXIS))
            return STATUS_BUFFER_TOO_SMALL;
        Where(g, Buffer);
        Irp->IoStatus.Information = AXES * sizeof(AXIS);
        return STATUS_SUCCESS;
    case IOCTL_GANTRY_ARRIVED:
        if (InLength < sizeof(ULONG) || OutLength < sizeof(LONG))
            return STATUS_INVALID_PARAMETER;
        Axis = *(PULONG)Buffer;
        if (Axis >= AXES)
            return STATUS_INVALID_PARAMETER;
        ZPark(&g->Waiting[Axis], Irp);
        Notify(g, Axis);
        return STATUS_PENDING;
    case IOCTL_GANTRY_HALT:
        Halt(g);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS GantryAdd(PZDEV d)
{
    PGANTRY g = CONTAINING_RECORD(d, GANTRY, Dev);
    ULONG i;

    KeInitializeSpinLock(&g->Lock);
    KeInitializeTimerEx(&g->Timer, NotificationTimer);
    KeInitializeDpc(&g->TimerDpc, GantryStep, g);
    for (i = 0; i < AXES; i++) {
        g->Axis[i].Speed = 1;
        ZListInit(&g->Waiting[i], d);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS GantryStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    PGANTRY g = CONTAINING_RECORD(d, GANTRY, Dev);
    LARGE_INTEGER Due;

    (void)List;
    Due.QuadPart = -100000;
    KeSetTimerEx(&g->Timer, Due, 10, &g->TimerDpc);
    return STATUS_SUCCESS;
}

static VOID GantryStop(PZDEV d, BOOLEAN Touch)
{
    (void)Touch;
    KeCancelTimer(&CONTAINING_RECORD(d, GANTRY, Dev)->Timer);
    KeFlushQueuedDpcs();
}

static VOID GantryKill(PZDEV d)
{
    ULONG i;

    for (i = 0; i < AXES; i++)
        ZDrain(&CONTAINING_RECORD(d, GANTRY, Dev)->Waiting[i], NULL, ZRefusal(d));
}

static VOID GantryCleanup(PZDEV d, PFILE_OBJECT File)
{
    ULONG i;

    for (i = 0; i < AXES; i++)
        ZDrain(&CONTAINING_RECORD(d, GANTRY, Dev)->Waiting[i], File, STATUS_CANCELLED);
}

static const ZOPS GantryOps = {
    .Interface = &GANTRY_GUID,
    .ExtensionSize = sizeof(GANTRY),
    .Flags = DO_BUFFERED_IO,
    .Add = GantryAdd,
    .Start = GantryStart,
    .Stop = GantryStop,
    .Kill = GantryKill,
    .Cleanup = GantryCleanup,
    .Request = GantryRequest,
};

static NTSTATUS NTAPI GantryAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &GantryOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, GantryAddDevice);
}
