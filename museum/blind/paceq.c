/*
 * Paces programs: a request takes as many milliseconds as it says, one after the other, and returns when its turn was.
 * A request of no milliseconds only asks for its place in the order.
 *
 * The bug: StartIo finishes requests of no milliseconds at once and calls IoStartNextPacket, which calls StartIo again,
 * inside it: one level of the stack for each such request that waits.
 * Shows by: one slow request, and behind it a few hundred asynchronous requests of 0 milliseconds.
 *
 * Device: none
 * Rule: start-io-recursion
 * Needs: ioctl
 */
#include "../include/shared_frame.h"

#define DEVICE_NAME L"\\Device\\PaceQ"
#define LINK_NAME   L"\\DosDevices\\PaceQ"

#define IOCTL_PACE       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG milliseconds; out: PACE_TURN */
#define IOCTL_PACE_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: ULONG */

#define PACE_MAXIMUM 200

typedef struct _PACE_TURN {
    ULONGLONG Time;
    ULONG Turn;
    ULONG Reserved;
} PACE_TURN;

typedef struct _EXTENSION {
    KTIMER Timer;
    KDPC Dpc;
    volatile LONG Turns;
} EXTENSION;

/* Ends the current request and starts the next. DISPATCH_LEVEL. */
static VOID EndTurn(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PACE_TURN *turn = Irp->AssociatedIrp.SystemBuffer;

    turn->Time = KeQueryInterruptTime();
    turn->Turn = (ULONG)InterlockedIncrement(&ext->Turns);
    turn->Reserved = 0;
    IoStartNextPacket(Device, TRUE);
    KitComplete(Irp, STATUS_SUCCESS, sizeof(*turn));
}

static VOID NTAPI TurnOver(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PDEVICE_OBJECT device = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    EndTurn(device, device->CurrentIrp);
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    ULONG milliseconds = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    LARGE_INTEGER due;
    KIRQL irql;

    /* From here on the request takes PACE_MAXIMUM at most, and is not cancelled. */
    IoAcquireCancelSpinLock(&irql);
    (void)IoSetCancelRoutine(Irp, NULL);
    IoReleaseCancelSpinLock(irql);

    if (milliseconds == 0) {
        EndTurn(Device, Irp);
        return;
    }
    due.QuadPart = -10000LL * milliseconds;
    KeSetTimer(&ext->Timer, due, &ext->Dpc);
}

static VOID NTAPI CancelQueued(PDEVICE_OBJECT Device, PIRP Irp)
{
    BOOLEAN queued = KeRemoveEntryDeviceQueue(&Device->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    if (queued) {
        KitComplete(Irp, STATUS_CANCELLED, 0);
    }
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PACE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || *(PULONG)Irp->AssociatedIrp.SystemBuffer > PACE_MAXIMUM) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        if (out < sizeof(PACE_TURN)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        IoMarkIrpPending(Irp);
        IoStartPacket(Device, Irp, NULL, CancelQueued);
        return STATUS_PENDING;
    case IOCTL_PACE_COUNT:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = (ULONG)ext->Turns;
        information = sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitComplete(Irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeFlushQueuedDpcs(); /* the DPC of the last request may still have its last instructions to do */
    KitDeleteControl(Driver->DeviceObject, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    status = KitCreateControl(Driver, DEVICE_NAME, LINK_NAME, sizeof(EXTENSION), &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    KeInitializeTimer(&ext->Timer);
    KeInitializeDpc(&ext->Dpc, TurnOver, device);
    Driver->DriverStartIo = StartIo;
#ifdef FIXED
    IoSetStartIoAttributes(device, TRUE, TRUE);
#else
    IoSetStartIoAttributes(device, FALSE, TRUE);
#endif
    Driver->MajorFunction[IRP_MJ_CREATE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
