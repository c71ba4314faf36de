/*
 * ropeway: drive of a material ropeway on a PCI card of its own (a memory BAR). Every request goes through one queue, which is held while the
 * device is about to be stopped, is stopped or sleeps, and runs on afterwards.
 *
 * The bug: when the stop is called off (IRP_MN_CANCEL_STOP_DEVICE) the queue is open again, but nothing sets it going: what was held waits
 * until a program sends another request, or for ever.
 *
 * Device: PCI\VEN_1DA7&DEV_0062
 * Rule: irp-never-completed, request-timed-out, request-forgotten, stuck
 * Needs: removal, ioctl
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define IOCTL_ROPE_DRIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9c0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ROPE_BRAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9c1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ROPE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9c2, METHOD_BUFFERED, FILE_READ_ACCESS)

#define ROPE_SPEED 0x00
#define ROPE_DIRECTION 0x04
#define ROPE_LOAD 0x08
#define ROPE_BRAKE 0x0c
#define ROPE_BYTES 0x10
#define GONE 0xffffffffu

static const GUID RopeClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x0d } };

typedef struct {
    ULONG Speed;                /* cm/s, at most 500 */
    ULONG Downhill;
} DRIVE;

typedef struct {
    ULONG Speed, Downhill, Load, Braked;
} STATE;

typedef struct {
    FRAME Frame;
    FRAME_QUEUE Queue;
    volatile UCHAR *Regs;
    ULONG RegsLength;
    volatile LONG StopPending;

    KSPIN_LOCK Lock;            /* of the registers and of what follows */
    DRIVE Drive;
    BOOLEAN Braked;
} ROPEWAY;

/* Lock held. */
static void SetDrive(ROPEWAY *R)
{
    Wr(R->Regs, ROPE_BRAKE, R->Braked);
    Wr(R->Regs, ROPE_DIRECTION, R->Drive.Downhill ? 1 : 0);
    Wr(R->Regs, ROPE_SPEED, R->Braked ? 0 : R->Drive.Speed);
}

/* One request, to its end. Within the gate; up to DISPATCH_LEVEL. */
static void Process(ROPEWAY *R, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    DRIVE *drive = Irp->AssociatedIrp.SystemBuffer;
    STATE *state = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR information = 0;
    ULONG load;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROPE_DRIVE:
        if (in < sizeof(DRIVE)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else if (drive->Speed > 500 || drive->Downhill > 1) {
            status = STATUS_INVALID_PARAMETER;
        } else {
            KeAcquireSpinLock(&R->Lock, &irql);
            R->Drive = *drive;
            R->Braked = FALSE;
            SetDrive(R);
            KeReleaseSpinLock(&R->Lock, irql);
        }
        break;

    case IOCTL_ROPE_BRAKE:
        KeAcquireSpinLock(&R->Lock, &irql);
        R->Braked = TRUE;
        SetDrive(R);
        KeReleaseSpinLock(&R->Lock, irql);
        break;

    case IOCTL_ROPE_STATE:
        if (out < sizeof(STATE)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&R->Lock, &irql);
        load = Rd(R->Regs, ROPE_LOAD);
        state->Speed = R->Drive.Speed;
        state->Downhill = R->Drive.Downhill;
        state->Load = load & 0xffff;
        state->Braked = R->Braked;
        KeReleaseSpinLock(&R->Lock, irql);
        if (load == GONE)
            status = STATUS_DEVICE_NOT_CONNECTED;
        else
            information = sizeof(STATE);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    FrameEndUngated(&R->Frame, Irp, status, information);
}

/* Works off the queue, unless it is held. The caller has the remove lock. */
static void Pump(ROPEWAY *R)
{
    PIRP irp;

    do {
        if (InterlockedCompareExchange(&R->StopPending, 0, 0) || !FrameEnter(&R->Frame))
            return;
        irp = FrameQueueTake(&R->Queue);
        if (irp)
            Process(R, irp);
        FrameLeave(&R->Frame);
    } while (irp);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    ROPEWAY *r = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&r->Frame.RemoveLock, r);     /* for this call, which the request may not outlast */
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    status = IoAcquireRemoveLock(&r->Frame.RemoveLock, Irp);
    if (NT_SUCCESS(status)) {
        status = FrameQueuePut(&r->Queue, Irp);
        Pump(r);
    } else {
        Complete(Irp, status, 0);
    }
    IoReleaseRemoveLock(&r->Frame.RemoveLock, r);
    return status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    ROPEWAY *r = Device->DeviceExtension;

    FrameQueueFlush(&r->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    ROPEWAY *r = (ROPEWAY *)F;
    FRAME_RESOURCES res;
    KIRQL irql;

    FrameResources(Translated, &res);
    if (res.Memories == 0 || res.Memory[0].Length < ROPE_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    r->RegsLength = res.Memory[0].Length;
    r->Regs = MmMapIoSpace(res.Memory[0].Base, r->RegsLength, MmNonCached);
    if (!r->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&r->Lock, &irql);
    r->Braked = TRUE;           /* people may be at the rope */
    SetDrive(r);
    KeReleaseSpinLock(&r->Lock, irql);
    InterlockedExchange(&r->StopPending, 0);
    return STATUS_SUCCESS;
}

static void Brake(ROPEWAY *R)
{
    KIRQL irql;

    KeAcquireSpinLock(&R->Lock, &irql);
    R->Braked = TRUE;
    SetDrive(R);
    KeReleaseSpinLock(&R->Lock, irql);
}

static void Stop(FRAME *F)
{
    ROPEWAY *r = (ROPEWAY *)F;

    if (FrameAlive(F))
        Brake(r);
    MmUnmapIoSpace((PVOID)r->Regs, r->RegsLength);
    r->Regs = NULL;
}

static void Flush(FRAME *F)
{
    FrameQueueClose(&((ROPEWAY *)F)->Queue);
}

static void Minor(FRAME *F, UCHAR Minor)
{
    ROPEWAY *r = (ROPEWAY *)F;

    if (Minor == IRP_MN_QUERY_STOP_DEVICE) {
        InterlockedExchange(&r->StopPending, 1);
    } else {
        InterlockedExchange(&r->StopPending, 0);
#ifdef FIXED
        Pump(r);
#endif
    }
}

static void Resumed(FRAME *F)
{
    Pump((ROPEWAY *)F);
}

static void PowerDown(FRAME *F)
{
    Brake((ROPEWAY *)F);
}

static void PowerUp(FRAME *F)
{
    Brake((ROPEWAY *)F);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    ROPEWAY *r;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(ROPEWAY), &RopeClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    r = (ROPEWAY *)f;
    f->Start = Start;
    f->Stop = Stop;
    f->Flush = Flush;
    f->Minor = Minor;
    f->Resumed = Resumed;
    f->PowerDown = PowerDown;
    f->PowerUp = PowerUp;
    FrameQueueInit(&r->Queue, f, FALSE);
    KeInitializeSpinLock(&r->Lock);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrameDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    return STATUS_SUCCESS;
}
