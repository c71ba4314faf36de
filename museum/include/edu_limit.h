/*
 * edu_raise.h, where a factorial may take two seconds, and then ends with STATUS_IO_TIMEOUT. An exhibit has a routine of its own in the place of one of these.
 */
#ifndef EDU_LIMIT_H
#define EDU_LIMIT_H

#include "edu_raise.h"

#define LIMIT (2 * 10000000LL)

typedef struct _LIMITED {
    RAISING Raising;
    KTIMER Timer;
    KDPC TimerDpc;
} LIMITED, *PLIMITED;

/* Whether the card is still at a factorial that was given up. */
SHARED BOOLEAN LimitedIsLate(PLIMITED Card)
{
    PEDU Edu = &Card->Raising.Edu;

    return Edu->Current == NULL && (CardRead(&Edu->Fdo, EDU_STATUS) & EDU_STATUS_COMPUTING);
}

/* The factorial that is begun, or is being computed, or waits until a late card is free, gets the time from now on. */
SHARED VOID LimitedBegin(PLIMITED Card)
{
    LARGE_INTEGER Limit;

    Limit.QuadPart = -LIMIT;
    if (!LimitedIsLate(Card)) {
        EduNext(&Card->Raising.Edu);
    }
    KeSetTimer(&Card->Timer, Limit, &Card->TimerDpc);
}

/* What waited for a late card as its time ended. */
SHARED PIRP LimitedTakeWaiting(PLIMITED Card)
{
    return LimitedIsLate(Card) ? QueueTake(&Card->Raising.Edu.Waiting) : NULL;
}

SHARED VOID NTAPI LimitedTooLate(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PLIMITED Card = Context;
    PIRP Irp = EduTakeCurrent(&Card->Raising.Edu);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (Irp == NULL) {
        Irp = LimitedTakeWaiting(Card);
    }
    if (Irp != NULL) {
        FdoEndPended(&Card->Raising.Edu.Fdo, Irp, STATUS_IO_TIMEOUT, 0);
        LimitedBegin(Card);
    }
}

SHARED NTSTATUS NTAPI LimitedControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLIMITED Card = Device->DeviceExtension;
    PEDU Edu = &Card->Raising.Edu;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_EDU_FACTORIAL) {
        return RaisingControl(Device, Irp);
    }
    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    IoCsqInsertIrp(&Edu->Waiting.Csq, Irp, NULL);
    LimitedBegin(Card);
    return FdoPend(&Edu->Fdo);
}

SHARED NTSTATUS LimitedAdd(PFDO Fdo)
{
    PLIMITED Card = (PLIMITED)Fdo;

    KeInitializeTimer(&Card->Timer);
    KeInitializeDpc(&Card->TimerDpc, LimitedTooLate, Card);
    return RaisingAdd(Fdo);
}

static VOID LimitedRest(PFDO Fdo)
{
    KeCancelTimer(&((PLIMITED)Fdo)->Timer);
    KeFlushQueuedDpcs();
}

SHARED VOID LimitedStop(PFDO Fdo, BOOLEAN Present)
{
    LimitedRest(Fdo);
    EduStop(Fdo, Present);
}

SHARED VOID LimitedPowerDown(PFDO Fdo)
{
    LimitedRest(Fdo);
    EduPowerDown(Fdo);
}

SHARED NTSTATUS NTAPI LimitedAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(LIMITED), DO_BUFFERED_IO);
}

SHARED VOID LimitedDriver(PDRIVER_OBJECT Driver)
{
    RaisingDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LimitedControl;
    Driver->DriverExtension->AddDevice = LimitedAddDevice;
}

#endif
