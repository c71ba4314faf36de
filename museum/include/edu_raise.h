/*
 * The educational device's factorials, and requests that end when the card interrupts because the driver has it do so: IOCTL_EDU_RAISE. An exhibit has a
 * service routine of its own.
 */
#ifndef EDU_RAISE_H
#define EDU_RAISE_H

#include "edu.h"

#define IOCTL_EDU_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define EDU_RAISED 0x002 /* the bit of what was raised */

typedef struct _RAISING {
    EDU Edu;
    IRP_QUEUE Raised;
} RAISING, *PRAISING;

static VOID RaisedEnded(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    FdoEndPended(&CONTAINING_RECORD(Queue, RAISING, Raised)->Edu.Fdo, Irp, Status, 0);
}

/* Bits are what the service routine has noted: each of these two ends its part. */
SHARED VOID RaisedEnd(PRAISING Card, LONG Bits)
{
    if (Bits & EDU_RAISED) {
        QueueFlush(&Card->Raised, NULL, STATUS_SUCCESS);
    }
}

SHARED VOID FactorialEnd(PRAISING Card, LONG Bits)
{
    PEDU Edu = &Card->Edu;
    PIRP Irp = Bits & EDU_COMPUTED ? EduTakeCurrent(Edu) : NULL;

    if (Irp != NULL) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = CardRead(&Edu->Fdo, EDU_FACTORIAL);
        FdoEndPended(&Edu->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
        EduNext(Edu);
    }
}

SHARED VOID NTAPI RaisingDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PRAISING Card = Context;
    LONG Bits = InterlockedExchange(&Card->Edu.Pending, 0);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    FactorialEnd(Card, Bits);
    RaisedEnd(Card, Bits);
}

SHARED NTSTATUS RaisingAdd(PFDO Fdo)
{
    PRAISING Card = (PRAISING)Fdo;

    EduAdd(Fdo);
    KeInitializeDpc(&Card->Edu.Dpc, RaisingDpc, Card);
    QueueInitialize(&Card->Raised, RaisedEnded);
    return STATUS_SUCCESS;
}

SHARED VOID RaisingFlush(PFDO Fdo)
{
    EduFlush(Fdo);
    QueueFlush(&((PRAISING)Fdo)->Raised, NULL, STATUS_DEVICE_NOT_READY);
}

SHARED NTSTATUS NTAPI RaisingControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PRAISING Card = Device->DeviceExtension;
    NTSTATUS Status;

    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_EDU_RAISE) {
        return EduControl(Device, Irp);
    }
    if (!FdoBegin(&Card->Edu.Fdo, Irp, &Status)) {
        return Status;
    }
    IoCsqInsertIrp(&Card->Raised.Csq, Irp, NULL);
    CardWrite(&Card->Edu.Fdo, EDU_INTERRUPT_RAISE, EDU_RAISED);
    return FdoPend(&Card->Edu.Fdo);
}

SHARED NTSTATUS NTAPI RaisingCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    QueueFlush(&((PRAISING)Device->DeviceExtension)->Raised, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return EduCleanup(Device, Irp);
}

SHARED NTSTATUS NTAPI RaisingAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(RAISING), DO_BUFFERED_IO);
}

SHARED VOID RaisingDriver(PDRIVER_OBJECT Driver)
{
    FdoDriver(Driver, RaisingAddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = RaisingCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RaisingControl;
}

#endif
