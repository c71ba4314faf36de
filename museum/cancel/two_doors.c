/*
 * Two doors: a program waits in front of one until another program opens it. One waits at each door at a time.
 *
 * The bug: the request that an open door lets through is noted in one place for both doors. It shows when both doors are opened at once while a request waits
 * at each: one request is completed twice, and the other never.
 *
 * Device: none
 * Rule: double-completion, request-forgotten, use-after-free
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\TwoDoors"
#define LINK_NAME L"\\DosDevices\\TwoDoors"
#include "../include/legacy.h"

#define DOORS 2
#define IOCTL_WAIT_AT(Door) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850 + (Door), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_OPEN(Door) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x858 + (Door), METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DOOR {
    KSPIN_LOCK Lock;
    PIRP Waiting;
} DOOR, *PDOOR;

typedef struct _HALL {
    DOOR Doors[DOORS];
#ifndef FIXED
    PIRP Passing;
#endif
} HALL, *PHALL;

static DRIVER_CANCEL CancelWait;

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHALL Hall = Device->DeviceExtension;
    ULONG Door;
    KIRQL OldIrql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    for (Door = 0; Door < DOORS; Door++) {
        KeAcquireSpinLock(&Hall->Doors[Door].Lock, &OldIrql);
        if (Hall->Doors[Door].Waiting == Irp) {
            Hall->Doors[Door].Waiting = NULL;
        }
        KeReleaseSpinLock(&Hall->Doors[Door].Lock, OldIrql);
    }
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS WaitAt(PDOOR Door, PIRP Irp)
{
    NTSTATUS Status = STATUS_PENDING;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Door->Lock, &OldIrql);
    if (Door->Waiting != NULL) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        IoSetCancelRoutine(Irp, CancelWait);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            Door->Waiting = Irp;
        }
    }
    KeReleaseSpinLock(&Door->Lock, OldIrql);
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

/* The request that waits at a door, of this file or of any; it is the caller's now. A request that is being cancelled stays the cancel routine's. */
static PIRP TakeFrom(PDOOR Door, PFILE_OBJECT File)
{
    PIRP Irp;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Door->Lock, &OldIrql);
    Irp = Door->Waiting;
    if (Irp != NULL && File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject != File) {
        Irp = NULL;
    }
    if (Irp != NULL && IoSetCancelRoutine(Irp, NULL) == NULL) {
        Irp = NULL;
    }
    if (Irp != NULL) {
        Door->Waiting = NULL;
    }
    KeReleaseSpinLock(&Door->Lock, OldIrql);
    return Irp;
}

static VOID OpenDoor(PHALL Hall, ULONG Door)
{
#ifdef FIXED
    PIRP Passing = TakeFrom(&Hall->Doors[Door], NULL);

    if (Passing != NULL) {
        Complete(Passing, STATUS_SUCCESS, 0);
    }
#else
    PIRP Taken = TakeFrom(&Hall->Doors[Door], NULL);

    if (Taken != NULL) {
        *(PIRP volatile *)&Hall->Passing = Taken;
        Complete(*(PIRP volatile *)&Hall->Passing, STATUS_SUCCESS, 0);
    }
#endif
}

static NTSTATUS NTAPI HallControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHALL Hall = Device->DeviceExtension;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_WAIT_AT(0):
        return WaitAt(&Hall->Doors[0], Irp);
    case IOCTL_WAIT_AT(1):
        return WaitAt(&Hall->Doors[1], Irp);
    case IOCTL_OPEN(0):
        OpenDoor(Hall, 0);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_OPEN(1):
        OpenDoor(Hall, 1);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI HallCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHALL Hall = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    ULONG Door;

    for (Door = 0; Door < DOORS; Door++) {
        PIRP Waiting = TakeFrom(&Hall->Doors[Door], File);

        if (Waiting != NULL) {
            Complete(Waiting, STATUS_CANCELLED, 0);
        }
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(HALL), DO_BUFFERED_IO, &Device);
    ULONG Door;

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    for (Door = 0; Door < DOORS; Door++) {
        KeInitializeSpinLock(&((PHALL)Device->DeviceExtension)->Doors[Door].Lock);
    }
    Driver->MajorFunction[IRP_MJ_CLEANUP] = HallCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = HallControl;
    return STATUS_SUCCESS;
}
