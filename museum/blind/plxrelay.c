/*
 * plxrelay: a relay board behind a PLX PCI 9052.  IOCTL_RELAY_PULSE closes relays for some milliseconds and completes
 * when they are open again; pulses are done one after the other, and wait while the device is being stopped or asleep.
 *
 * Local space (second memory BAR): 00 relays (one bit each), 04 their sense lines.
 *
 * The bug: requests that were queued while the device was stopped stay queued when it is pulled.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-pending-after-surprise-removal
 * Needs: removal, device
 */
#include "../include/dkit.h"

#define IOCTL_RELAY_PULSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RELAY_SENSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PLX_INTCSR  0x4C
#define PLX_SPAN    0x80
#define RELAY_SET   0x00
#define RELAY_SENSE 0x04
#define RELAY_SPAN  0x10
#define RELAYS      0x00FFFFFF
#define MAX_PULSE   5000

typedef struct _PULSE {
    ULONG Mask;
    ULONG Milliseconds;
} PULSE;

typedef struct _RELAY {
    DK Dk;
    DKQ Queue;
    KSPIN_LOCK Lock;
    PUCHAR Plx;
    PUCHAR Io;
    DKTIMER Timer;
    KEVENT Idle;
    PIRP Current;
    BOOLEAN Started;
    BOOLEAN Powered;
    BOOLEAN Held; /* a stop has been asked for */
    ULONG Pulses;
} RELAY, *PRELAY;

DRIVER_INITIALIZE DriverEntry;
static const GUID RelayClass = {0xb7d4092e, 0x2f51, 0x4a8d, {0x83, 0x66, 0x9a, 0x1e, 0xc0, 0x37, 0x5b, 0x01}};

static ULONG Rd(PUCHAR Base, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Base + Offset));
}

static VOID Wr(PUCHAR Base, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Base + Offset), Value);
}

static VOID TryStart(PRELAY R)
{
    PULSE *P;
    KIRQL Irql;

    KeAcquireSpinLock(&R->Lock, &Irql);
    if (R->Started && R->Powered && !R->Held && !R->Current &&
        (R->Current = IoCsqRemoveNextIrp(&R->Queue.Csq, NULL)) != NULL) {
        KeClearEvent(&R->Idle);
        P = R->Current->AssociatedIrp.SystemBuffer;
        Wr(R->Io, RELAY_SET, P->Mask);
        DkArm(&R->Timer, 10000LL * P->Milliseconds);
    }
    KeReleaseSpinLock(&R->Lock, Irql);
}

/* Opens the relays and takes the current pulse off; its remove lock goes to the caller.  With the lock. */
static PIRP Detach(PRELAY R)
{
    PIRP Irp = R->Current;
    if (Irp) {
        Wr(R->Io, RELAY_SET, 0);
        R->Current = NULL;
        R->Pulses++;
    }
    KeSetEvent(&R->Idle, IO_NO_INCREMENT, FALSE);
    return Irp;
}

static VOID NTAPI PulseDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PRELAY R = Context;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&R->Lock);
    if (DkExpired(&R->Timer))
        Irp = Detach(R);
    KeReleaseSpinLockFromDpcLevel(&R->Lock);
    if (Irp) {
        DkFinish(Irp, STATUS_SUCCESS, 0);
        TryStart(R);
        IoReleaseRemoveLock(&R->Dk.Lock, Irp);
    }
}

/* Ends the pulse under way at once. */
static VOID Break(PRELAY R)
{
    PIRP Irp;
    KIRQL Irql;
    KeAcquireSpinLock(&R->Lock, &Irql);
    DkDisarm(&R->Timer);
    Irp = Detach(R);
    KeReleaseSpinLock(&R->Lock, Irql);
    if (Irp) {
        DkFinish(Irp, STATUS_DEVICE_NOT_READY, 0);
        IoReleaseRemoveLock(&R->Dk.Lock, Irp);
    }
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PRELAY R = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    PULSE *P = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Info = 0;
    KIRQL Irql;
    NTSTATUS Status = IoAcquireRemoveLock(&R->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RELAY_PULSE:
        if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(*P) || !P->Mask || (P->Mask & ~RELAYS) ||
            !P->Milliseconds || P->Milliseconds > MAX_PULSE) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = IoAcquireRemoveLock(&R->Dk.Lock, Dev); /* for TryStart: the request may be gone by then */
        if (!NT_SUCCESS(Status))
            break;
        Status = IoCsqInsertIrpEx(&R->Queue.Csq, Irp, NULL, NULL);
        if (NT_SUCCESS(Status))
            TryStart(R);
        IoReleaseRemoveLock(&R->Dk.Lock, Dev);
        if (NT_SUCCESS(Status))
            return STATUS_PENDING;
        break;
    case IOCTL_RELAY_SENSE:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = STATUS_DEVICE_NOT_READY;
        KeAcquireSpinLock(&R->Lock, &Irql);
        if (R->Started && R->Powered) {
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = Rd(R->Io, RELAY_SENSE) & RELAYS;
            Info = sizeof(ULONG);
            Status = STATUS_SUCCESS;
        }
        KeReleaseSpinLock(&R->Lock, Irql);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    DkFinish(Irp, Status, Info);
    IoReleaseRemoveLock(&R->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PRELAY R = Dev->DeviceExtension;
    if (!NT_SUCCESS(IoAcquireRemoveLock(&R->Dk.Lock, Irp)))
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    DkqCleanup(&R->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    DkFinish(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&R->Dk.Lock, Irp);
    return STATUS_SUCCESS;
}

static VOID SetFlag(PRELAY R, PBOOLEAN Flag, BOOLEAN Value)
{
    KIRQL Irql;
    KeAcquireSpinLock(&R->Lock, &Irql);
    *Flag = Value;
    KeReleaseSpinLock(&R->Lock, Irql);
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    PRELAY R = Dev->DeviceExtension;
    SetFlag(R, &R->Powered, FALSE);
    Break(R);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PRELAY R = Dev->DeviceExtension;
    KIRQL Irql;
    KeAcquireSpinLock(&R->Lock, &Irql);
    R->Powered = TRUE;
    if (R->Started)
        Wr(R->Io, RELAY_SET, 0);
    KeReleaseSpinLock(&R->Lock, Irql);
    TryStart(R);
}

static VOID StopBoard(PRELAY R)
{
    SetFlag(R, &R->Started, FALSE);
    Break(R);
    KeFlushQueuedDpcs();
    if (R->Io)
        MmUnmapIoSpace(R->Io, RELAY_SPAN);
    if (R->Plx)
        MmUnmapIoSpace(R->Plx, PLX_SPAN);
    R->Io = NULL;
    R->Plx = NULL;
}

static NTSTATUS StartBoard(PRELAY R, PCM_RESOURCE_LIST List)
{
    DKRES Res;
    KIRQL Irql;

    DkParse(List, &Res);
    if (Res.Bars < 2 || Res.Len[0] < PLX_SPAN || Res.Len[1] < RELAY_SPAN)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    R->Plx = MmMapIoSpace(Res.Base[0], PLX_SPAN, MmNonCached);
    R->Io = MmMapIoSpace(Res.Base[1], RELAY_SPAN, MmNonCached);
    if (!R->Plx || !R->Io) {
        StopBoard(R);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Wr(R->Plx, PLX_INTCSR, 0); /* no interrupts */
    Wr(R->Io, RELAY_SET, 0);
    KeAcquireSpinLock(&R->Lock, &Irql);
    R->Started = TRUE;
    R->Powered = TRUE;
    R->Held = FALSE;
    KeReleaseSpinLock(&R->Lock, Irql);
    TryStart(R);
    return STATUS_SUCCESS;
}

/* The device is gone for good: what is queued is done no more. */
static VOID Retire(PRELAY R)
{
#ifndef FIXED
    if (!R->Started)
        return;
#endif
    DkqSetClosed(&R->Queue, STATUS_DELETE_PENDING);
    DkqFlush(&R->Queue, NULL, STATUS_DELETE_PENDING);
    StopBoard(R);
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PRELAY R = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&R->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&R->Dk, Irp);
        if (NT_SUCCESS(Status))
            Status = StartBoard(R, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status))
            IoSetDeviceInterfaceState(&R->Dk.Link, TRUE);
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&R->Dk.Lock, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE: /* the pulse under way may end, new ones wait */
        SetFlag(R, &R->Held, TRUE);
        KeWaitForSingleObject(&R->Idle, Executive, KernelMode, FALSE, NULL);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
        SetFlag(R, &R->Held, FALSE);
        TryStart(R);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        StopBoard(R);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&R->Dk.Link, FALSE);
        Retire(R);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Retire(R);
        DkRemoveWait(&R->Dk, Irp);
        KeFlushQueuedDpcs();
        return DkRemoveFinish(&R->Dk, Irp);
    }
    return DkPassRelease(&R->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PRELAY R;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(RELAY), &RelayClass, PowerDown, PowerUp, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    R = Dev->DeviceExtension;
    DkqInit(&R->Queue, &R->Dk.Lock);
    KeInitializeSpinLock(&R->Lock);
    DkInitTimer(&R->Timer, PulseDpc, R);
    KeInitializeEvent(&R->Idle, NotificationEvent, TRUE);
    Dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DkSystemControl;
    Driver->MajorFunction[IRP_MJ_POWER] = DkPower;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
