/*
 * hammock: a device without hardware that keeps a diary of when the computer goes to sleep and wakes up, for a program that shows it. It is its own power
 * policy owner, and notes each system power state before it asks for the device's.
 *
 * The bug: the completion routine of a system power request keeps the request and asks for a device power state. When that cannot be asked for (PoRequestPowerIrp
 * fails for want of memory), no one completes the system's request, and the system does not go to sleep.
 *
 * Device: Root\hammock
 * Rule: power-irp-overdue, irp-never-completed
 * Needs: failure, power
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"

#define PAGES 16

#define IOCTL_HAMMOCK_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_HAMMOCK_TEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_WRITE_DATA)

static const GUID HammockGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x02 } };

typedef struct _PAGE {
    LONGLONG Ticks;
    ULONG SystemState;
    ULONG Number;
} PAGE;

typedef struct _HAMMOCK {
    UNIT Unit;
    KSPIN_LOCK Lock;            /* of all below */
    ULONG Next;                 /* numbers of pages begin with 0 and go on for ever */
    ULONG First;                /* the oldest that has not been torn out */
    PAGE Page[PAGES];
} HAMMOCK;

static VOID Note(HAMMOCK *Hammock, SYSTEM_POWER_STATE State)
{
    LARGE_INTEGER Ticks = KeQueryPerformanceCounter(NULL);
    PAGE *Page;
    KIRQL Irql;

    KeAcquireSpinLock(&Hammock->Lock, &Irql);
    Page = &Hammock->Page[Hammock->Next % PAGES];
    Page->Ticks = Ticks.QuadPart;
    Page->SystemState = State;
    Page->Number = Hammock->Next++;
    if (Hammock->Next - Hammock->First > PAGES)
        Hammock->First = Hammock->Next - PAGES;
    KeReleaseSpinLock(&Hammock->Lock, Irql);
}

/* The device has got the state that was asked for, or not: the system's request goes on. */
static VOID NTAPI HammockDeviceDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PIRP Irp = Context;
    UNIT *U = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Block);
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&U->Guard, Irp);
}

static NTSTATUS NTAPI HammockSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNIT *U = Context;
    SYSTEM_POWER_STATE System = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;
    POWER_STATE State;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        PoStartNextPowerIrp(Irp);
        IoReleaseRemoveLock(&U->Guard, Irp);
        return STATUS_SUCCESS;
    }
    Note((HAMMOCK *)U, System);
    State.DeviceState = System == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
    Status = PoRequestPowerIrp(U->Pdo, IRP_MN_SET_POWER, State, HammockDeviceDone, Irp, NULL);
#ifdef FIXED
    if (!NT_SUCCESS(Status)) {
        /* the device stays as it is */
        PoStartNextPowerIrp(Irp);
        IoReleaseRemoveLock(&U->Guard, Irp);
        return STATUS_SUCCESS;
    }
#else
    UNREFERENCED_PARAMETER(Status);
#endif
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS HammockSystem(UNIT *U, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, HammockSystemDone, U, TRUE, TRUE, TRUE);
    PoCallDriver(U->Lower, Irp);
    return STATUS_PENDING;
}

static VOID HammockBorn(UNIT *U)
{
    KeInitializeSpinLock(&((HAMMOCK *)U)->Lock);
}

static NTSTATUS HammockControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    HAMMOCK *Hammock = (HAMMOCK *)U;
    ULONG Room = Sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(PAGE);
    PAGE *To = Irp->AssociatedIrp.SystemBuffer;
    ULONG Number, Given = 0;
    KIRQL Irql;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HAMMOCK_READ:
        if (!Room)
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&Hammock->Lock, &Irql);
        for (Number = Hammock->First; Number != Hammock->Next && Given < Room; Number++)
            To[Given++] = Hammock->Page[Number % PAGES];
        KeReleaseSpinLock(&Hammock->Lock, Irql);
        return Finish(&U->Guard, Irp, STATUS_SUCCESS, Given * sizeof(PAGE));
    case IOCTL_HAMMOCK_TEAR:
        KeAcquireSpinLock(&Hammock->Lock, &Irql);
        Hammock->First = Hammock->Next;
        KeReleaseSpinLock(&Hammock->Lock, Irql);
        return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);
    }
    return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const TRADE HammockTrade = {
    .Size = sizeof(HAMMOCK),
    .Interface = &HammockGuid,
    .Born = HammockBorn,
    .SystemPower = HammockSystem,
    .Control = HammockControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &HammockTrade);
}
