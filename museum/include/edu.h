/*
 * A driver for QEMU's educational device that does nothing wrong: IOCTL_EDU_FACTORIAL has the card compute a factorial, and ends when it interrupts.
 * Requests wait in a queue; one at a time is the card's. An exhibit has a routine of its own in the place of one of these.
 */
#ifndef EDU_H
#define EDU_H

#include "card.h"
#include "irp_queue.h"

#define IOCTL_EDU_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_IDENTIFICATION 0x00
#define EDU_LIVENESS 0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_STATUS_COMPUTING 0x01
#define EDU_STATUS_INTERRUPT 0x80 /* interrupts when a factorial is computed */
#define EDU_INTERRUPT_STATUS 0x24
#define EDU_INTERRUPT_RAISE 0x60
#define EDU_INTERRUPT_ACKNOWLEDGE 0x64
#define EDU_COMPUTED 0x001 /* the bit of a factorial */

typedef struct _EDU {
    FDO Fdo;
    KDPC Dpc;
    BOOLEAN Awake; /* the service routine may touch the card; changed in step with it */
    LONG Pending;  /* bits of the card's interrupt status, from the service routine to the DPC */
    KSPIN_LOCK Lock;
    PIRP Current; /* what the card computes */
    IRP_QUEUE Waiting;
    PVOID Own; /* an exhibit's own */
    KTIMER OwnTimer;
    KDPC OwnTimerDpc;
} EDU, *PEDU;

SHARED BOOLEAN NTAPI EduSleep(PVOID Context)
{
    ((PEDU)Context)->Awake = FALSE;
    return TRUE;
}

SHARED BOOLEAN NTAPI EduWake(PVOID Context)
{
    ((PEDU)Context)->Awake = TRUE;
    return TRUE;
}

/* Gives the card the next request, if it has none. */
SHARED VOID EduNext(PEDU Edu)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Edu->Lock, &OldIrql);
    if (Edu->Current == NULL) {
        Edu->Current = QueueTake(&Edu->Waiting);
        if (Edu->Current != NULL) {
            CardWrite(&Edu->Fdo, EDU_STATUS, EDU_STATUS_INTERRUPT);
            CardWrite(&Edu->Fdo, EDU_FACTORIAL, *(PULONG)Edu->Current->AssociatedIrp.SystemBuffer);
        }
    }
    KeReleaseSpinLock(&Edu->Lock, OldIrql);
}

SHARED PIRP EduTakeCurrent(PEDU Edu)
{
    PIRP Irp;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Edu->Lock, &OldIrql);
    Irp = Edu->Current;
    Edu->Current = NULL;
    KeReleaseSpinLock(&Edu->Lock, OldIrql);
    return Irp;
}

SHARED BOOLEAN NTAPI EduIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDU Edu = Context;
    ULONG Status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!Edu->Awake) {
        return FALSE;
    }
    Status = CardRead(&Edu->Fdo, EDU_INTERRUPT_STATUS);
    if (Status == 0 || Status == 0xFFFFFFFF) {
        return FALSE;
    }
    CardWrite(&Edu->Fdo, EDU_INTERRUPT_ACKNOWLEDGE, Status);
    InterlockedOr(&Edu->Pending, (LONG)Status);
    KeInsertQueueDpc(&Edu->Dpc, NULL, NULL);
    return TRUE;
}

SHARED VOID NTAPI EduDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PEDU Edu = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (!(InterlockedExchange(&Edu->Pending, 0) & EDU_COMPUTED)) {
        return;
    }
    Irp = EduTakeCurrent(Edu);
    if (Irp == NULL) {
        EduNext(Edu);
        return;
    }
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = CardRead(&Edu->Fdo, EDU_FACTORIAL);
    FdoEndPended(&Edu->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
    EduNext(Edu);
}

static VOID EduEnded(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    FdoEndPended(&CONTAINING_RECORD(Queue, EDU, Waiting)->Fdo, Irp, Status, 0);
}

SHARED NTSTATUS EduAdd(PFDO Fdo)
{
    PEDU Edu = (PEDU)Fdo;

    KeInitializeSpinLock(&Edu->Lock);
    KeInitializeDpc(&Edu->Dpc, EduDpc, Edu);
    QueueInitialize(&Edu->Waiting, EduEnded);
    return STATUS_SUCCESS;
}

SHARED NTSTATUS EduStartWith(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources, PKSERVICE_ROUTINE Isr)
{
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (NT_SUCCESS(Status) && (CardRead(Fdo, EDU_IDENTIFICATION) & 0xFFFF) != 0x00ED) {
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (NT_SUCCESS(Status)) {
        ((PEDU)Fdo)->Awake = TRUE;
        Status = CardConnect(Fdo, Isr);
    }
    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
    }
    return Status;
}

SHARED NTSTATUS EduStart(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, EduIsr);
}

/* What waits ends, and what the card computes: its result will not be awaited. */
SHARED VOID EduFlush(PFDO Fdo)
{
    PEDU Edu = (PEDU)Fdo;
    PIRP Irp;

    QueueFlush(&Edu->Waiting, NULL, STATUS_DEVICE_NOT_READY);
    Irp = EduTakeCurrent(Edu);
    if (Irp != NULL) {
        FdoEndPended(Fdo, Irp, STATUS_DEVICE_NOT_READY, 0);
    }
}

SHARED VOID EduQuiet(PFDO Fdo)
{
    CardWrite(Fdo, EDU_STATUS, 0);
    CardWrite(Fdo, EDU_INTERRUPT_ACKNOWLEDGE, CardRead(Fdo, EDU_INTERRUPT_STATUS));
}

SHARED VOID EduStop(PFDO Fdo, BOOLEAN Present)
{
    if (Present) {
        EduQuiet(Fdo);
    }
    CardDisconnect(Fdo);
    CardUnmap(Fdo);
}

SHARED VOID EduPowerDown(PFDO Fdo)
{
    EduQuiet(Fdo);
    KeSynchronizeExecution(Fdo->Interrupt, EduSleep, Fdo);
    KeFlushQueuedDpcs();
}

SHARED VOID EduPowerUp(PFDO Fdo)
{
    KeSynchronizeExecution(Fdo->Interrupt, EduWake, Fdo);
}

SHARED NTSTATUS NTAPI EduControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEDU Edu = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_EDU_FACTORIAL) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    IoCsqInsertIrp(&Edu->Waiting.Csq, Irp, NULL);
    EduNext(Edu);
    return FdoPend(&Edu->Fdo);
}

SHARED NTSTATUS NTAPI EduCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEDU Edu = Device->DeviceExtension;

    QueueFlush(&Edu->Waiting, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

SHARED NTSTATUS NTAPI EduAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(EDU), DO_BUFFERED_IO);
}

SHARED VOID EduDriver(PDRIVER_OBJECT Driver)
{
    FdoDriver(Driver, EduAddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = EduCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EduControl;
}

#define EDU_HOOKS .Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown, .PowerUp = EduPowerUp

#endif
