/*
 * A driver of two devices, one above the other: the upper one, which has the link, sends what it is asked, or requests of its own, to the lower one. That one
 * answers a control code with a number: at once where the input is 0, else by a timer after 20 ms.
 *
 * The driver has UpperControl for control codes to the upper device, and calls StackedEntry. What it sends to Layer->Lower has input and output of a ULONG.
 */
#ifndef STACKED_H
#define STACKED_H

#include "irp_queue.h"
#include "legacy.h"

typedef struct _LAYER {
    PDEVICE_OBJECT Lower; /* NULL: this is the lower device */
    LONG Sent;
    KSPIN_LOCK Lock;
} LAYER, *PLAYER;

typedef struct _PORT {
    LAYER Layer;
    IRP_QUEUE Waiting;
    KTIMER Timer;
    KDPC Dpc;
} PORT, *PPORT;

#define IOCTL_STACKED_ASK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PORT_NUMBER CTL_CODE(FILE_DEVICE_UNKNOWN, 0xF01, METHOD_BUFFERED, FILE_ANY_ACCESS)

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp);

static VOID PortEnded(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Queue);
    Complete(Irp, Status, 0);
}

static VOID NTAPI PortAnswers(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PPORT Port = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    while ((Irp = QueueTake(&Port->Waiting)) != NULL) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer += 1000;
        Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS PortControl(PPORT Port, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    LARGE_INTEGER Due;

    if (CodeOf(Stack) != IOCTL_PORT_NUMBER && CodeOf(Stack) != IOCTL_STACKED_ASK) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (*(PULONG)Irp->AssociatedIrp.SystemBuffer == 0) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = 1000;
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    IoCsqInsertIrp(&Port->Waiting.Csq, Irp, NULL);
    Due.QuadPart = -200000;
    KeSetTimer(&Port->Timer, Due, &Port->Dpc);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI StackedControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;

    return Layer->Lower == NULL ? PortControl(Device->DeviceExtension, Irp) : UpperControl(Device, Irp);
}

/* Opening, cleaning up and closing: both have nothing to do. */
static NTSTATUS NTAPI StackedFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;

    if (Layer->Lower == NULL) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Layer->Lower, Irp);
}

static VOID NTAPI StackedUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT Upper = Driver->DeviceObject, Lower;
    PPORT Port;

    if (((PLAYER)Upper->DeviceExtension)->Lower == NULL) {
        Upper = Upper->NextDevice;
    }
    Lower = ((PLAYER)Upper->DeviceExtension)->Lower;
    Port = Lower->DeviceExtension;
    KeCancelTimer(&Port->Timer);
    KeFlushQueuedDpcs();
    LegacyDelete(Upper);
    IoDeleteDevice(Lower);
}

static NTSTATUS StackedPort(PDRIVER_OBJECT Driver, PDEVICE_OBJECT *Lower)
{
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(PORT), NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, Lower);
    PPORT Port;

    if (NT_SUCCESS(Status)) {
        Port = (*Lower)->DeviceExtension;
        QueueInitialize(&Port->Waiting, PortEnded);
        KeInitializeTimer(&Port->Timer);
        KeInitializeDpc(&Port->Dpc, PortAnswers, Port);
        (*Lower)->Flags |= DO_BUFFERED_IO;
        (*Lower)->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return Status;
}

static NTSTATUS StackedEntry(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT Upper, Lower;
    PLAYER Layer;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(LAYER), DO_BUFFERED_IO, &Upper);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = StackedPort(Driver, &Lower);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Upper);
        return Status;
    }
    Layer = Upper->DeviceExtension;
    KeInitializeSpinLock(&Layer->Lock);
    Layer->Lower = Lower; /* not attached: a driver is not unloaded while one of its devices is attached */
    Upper->StackSize = Lower->StackSize + 1;
    Driver->MajorFunction[IRP_MJ_CREATE] = StackedFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = StackedFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = StackedFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = StackedControl;
    Driver->DriverUnload = StackedUnload;
    return STATUS_SUCCESS;
}

#endif
