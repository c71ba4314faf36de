/*
 * A virtual device whose jobs end at once, but while it holds them back: then they wait in a queue. Its base is function.h, whose gate it does
 * not use. An exhibit says when it holds, and when it goes on.
 */
#ifndef HOLDING_H
#define HOLDING_H

#include "function.h"
#include "irp_queue.h"

#define IOCTL_HOLDING_JOB CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA18, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _HOLDING {
    FDO Fdo;
    IRP_QUEUE Jobs;
    volatile LONG Held;
} HOLDING, *PHOLDING;

static VOID HoldingEnded(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    FdoEndPended(&CONTAINING_RECORD(Queue, HOLDING, Jobs)->Fdo, Irp, Status, 0);
}

SHARED VOID HoldingGoOn(PHOLDING Own)
{
    InterlockedExchange(&Own->Held, FALSE);
    QueueFlush(&Own->Jobs, NULL, STATUS_SUCCESS);
}

SHARED NTSTATUS HoldingAdd(PFDO Fdo)
{
    QueueInitialize(&((PHOLDING)Fdo)->Jobs, HoldingEnded);
    return STATUS_SUCCESS;
}

SHARED VOID HoldingFlush(PFDO Fdo)
{
    QueueFlush(&((PHOLDING)Fdo)->Jobs, NULL, STATUS_DEVICE_NOT_READY);
}

SHARED NTSTATUS NTAPI HoldingControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHOLDING Own = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Own->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_HOLDING_JOB || !Own->Fdo.Started) {
        Status = STATUS_INVALID_DEVICE_REQUEST;
        FdoEndPended(&Own->Fdo, Irp, Status, 0);
        return Status;
    }
    IoCsqInsertIrp(&Own->Jobs.Csq, Irp, NULL);
    if (!InterlockedOr(&Own->Held, 0)) {
        QueueFlush(&Own->Jobs, NULL, STATUS_SUCCESS);
    } else if (!Own->Fdo.Started) {
        HoldingFlush(&Own->Fdo); /* it was stopped meanwhile */
    }
    return STATUS_PENDING;
}

SHARED NTSTATUS NTAPI HoldingCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    QueueFlush(&((PHOLDING)Device->DeviceExtension)->Jobs, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

SHARED NTSTATUS NTAPI HoldingAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(HOLDING), DO_BUFFERED_IO);
}

SHARED VOID HoldingDriver(PDRIVER_OBJECT Driver)
{
    FdoDriver(Driver, HoldingAddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = HoldingCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = HoldingControl;
}

#endif
