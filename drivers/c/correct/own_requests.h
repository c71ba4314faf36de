/*
 * Requests that the driver makes itself, of its own device: built by the I/O manager or by hand, waited for or not, cancelled.
 *
 * The lower half of the device answers internal control codes: each code is one way to complete.
 */
#ifndef OWN_REQUESTS_H
#define OWN_REQUESTS_H

#include "gallery.h"

#define LOWER(Function) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900 + (Function), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define LOWER_AT_ONCE LOWER(0)
#define LOWER_BY_TIMER LOWER(1)
#define LOWER_BY_WORK_ITEM LOWER(2)
#define LOWER_UNTIL_CANCELLED LOWER(3)

/* One request at a time pends in the lower half. */
static KTIMER LowerTimer;
static KDPC LowerDpc;
static PIO_WORKITEM LowerItem;
static PIRP LowerPending;

static NTSTATUS CompleteLower(PIRP Irp, NTSTATUS Status)
{
    ULONG_PTR Information = 0;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (NT_SUCCESS(Status) && Stack->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(ULONG)) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = 0x600D;
        Information = sizeof(ULONG);
    }
    return Complete(Irp, Status, Information);
}

static VOID NTAPI LowerTimerFires(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    CompleteLower(LowerPending, STATUS_SUCCESS);
}

static VOID NTAPI LowerItemRuns(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    IoFreeWorkItem(LowerItem);
    CompleteLower(Context, STATUS_SUCCESS);
}

static VOID NTAPI LowerCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS PendUntilCancelled(PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, LowerCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        Complete(Irp, STATUS_CANCELLED, 0); /* it was cancelled before there was a routine, and no one has called it */
    }
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DispatchInternal(PDEVICE_OBJECT Device, PIRP Irp)
{
    switch (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode) {
    case LOWER_AT_ONCE:
        return CompleteLower(Irp, STATUS_SUCCESS);
    case LOWER_BY_TIMER:
        IoMarkIrpPending(Irp);
        LowerPending = Irp;
        KeInitializeTimer(&LowerTimer);
        KeInitializeDpc(&LowerDpc, LowerTimerFires, NULL);
        KeSetTimer(&LowerTimer, After(MILLISECONDS(2)), &LowerDpc);
        return STATUS_PENDING;
    case LOWER_BY_WORK_ITEM:
        LowerItem = IoAllocateWorkItem(Device);
        if (LowerItem == NULL) {
            return CompleteLower(Irp, STATUS_INSUFFICIENT_RESOURCES);
        }
        IoMarkIrpPending(Irp);
        IoQueueWorkItem(LowerItem, LowerItemRuns, DelayedWorkQueue, Irp);
        return STATUS_PENDING;
    case LOWER_UNTIL_CANCELLED:
        return PendUntilCancelled(Irp);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* Built by the I/O manager, waited for if it pends: the form that most drivers use. */
static ULONG AskAndWait(PDEVICE_OBJECT Device, ULONG Code)
{
    KEVENT Done;
    IO_STATUS_BLOCK Block;
    ULONG Answer = 0;
    NTSTATUS Status;
    PIRP Irp;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildDeviceIoControlRequest(Code, Device, NULL, 0, &Answer, sizeof(Answer), TRUE, &Done, &Block);
    CHECK(Irp != NULL);
    Status = IoCallDriver(Device, Irp);
    if (Status == STATUS_PENDING) {
        WaitFor(&Done);
        Status = Block.Status;
    }
    CHECK(Status == STATUS_SUCCESS && Block.Information == sizeof(Answer) && Answer == 0x600D);
    KeFlushQueuedDpcs(); /* the timer's DPC object is used again by the next */
    return 0;
}

static ULONG RequestAtOnce(VOID)
{
    return AskAndWait(TheDevice, LOWER_AT_ONCE);
}

static ULONG RequestByTimer(VOID)
{
    return AskAndWait(TheDevice, LOWER_BY_TIMER);
}

static ULONG RequestByWorkItem(VOID)
{
    return AskAndWait(TheDevice, LOWER_BY_WORK_ITEM);
}

/* Buffers that are optional are used only if they are there, whatever length stands beside them. */
static ULONG RequestWithoutBuffers(VOID)
{
    KEVENT Done;
    IO_STATUS_BLOCK Block;
    PIRP Irp;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildDeviceIoControlRequest(LOWER_BY_TIMER, TheDevice, NULL, 0, NULL, 0, TRUE, &Done, &Block);
    CHECK(Irp != NULL);
    CHECK(IoCallDriver(TheDevice, Irp) == STATUS_PENDING);
    WaitFor(&Done);
    CHECK(Block.Status == STATUS_SUCCESS && Block.Information == 0);
    KeFlushQueuedDpcs();
    return 0;
}

typedef struct _OWN {
    KEVENT Done;
    NTSTATUS Status;
    ULONG_PTR Information;
    ULONG Answer;
} OWN;

static NTSTATUS NTAPI KeepsIt(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    OWN *Own = Context;

    UNREFERENCED_PARAMETER(Device);
    Own->Status = Irp->IoStatus.Status;
    Own->Information = Irp->IoStatus.Information;
    KeSetEvent(&Own->Done, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static VOID AimAtLower(PIRP Irp, OWN *Own, ULONG Code, PIO_COMPLETION_ROUTINE Routine)
{
    PIO_STACK_LOCATION Next = IoGetNextIrpStackLocation(Irp);

    Next->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    Next->Parameters.DeviceIoControl.IoControlCode = Code;
    Next->Parameters.DeviceIoControl.OutputBufferLength = sizeof(Own->Answer);
    Irp->AssociatedIrp.SystemBuffer = &Own->Answer;
    IoSetCompletionRoutine(Irp, Routine, Own, TRUE, TRUE, TRUE);
}

/* A packet of the driver's own: its completion routine keeps it, and it is used again, then freed. */
static ULONG RequestOfItsOwn(VOID)
{
    PIRP Irp = IoAllocateIrp(TheDevice->StackSize, FALSE);
    OWN Own;

    CHECK(Irp != NULL);
    for (ULONG Round = 0; Round < 3; Round++) {
        RtlZeroMemory(&Own, sizeof(Own));
        KeInitializeEvent(&Own.Done, NotificationEvent, FALSE);
        if (Round > 0) {
            IoReuseIrp(Irp, STATUS_SUCCESS);
        }
        AimAtLower(Irp, &Own, Round == 1 ? LOWER_BY_TIMER : LOWER_AT_ONCE, KeepsIt);
        IoCallDriver(TheDevice, Irp); /* what it returns does not matter: the routine is called in any case */
        WaitFor(&Own.Done);
        CHECK(Own.Status == STATUS_SUCCESS && Own.Information == sizeof(ULONG) && Own.Answer == 0x600D);
    }
    IoFreeIrp(Irp);
    KeFlushQueuedDpcs();
    return 0;
}

static NTSTATUS NTAPI FreesIt(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    OWN *Own = Context;

    UNREFERENCED_PARAMETER(Device);
    Own->Status = Irp->IoStatus.Status;
    IoFreeIrp(Irp);
    KeSetEvent(&Own->Done, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED; /* there is no packet any more */
}

/* Sent and forgotten: the completion routine frees the packet. */
static ULONG RequestThatFreesItself(VOID)
{
    PIRP Irp = IoAllocateIrp(TheDevice->StackSize, FALSE);
    OWN Own = {.Status = STATUS_UNSUCCESSFUL};

    CHECK(Irp != NULL);
    KeInitializeEvent(&Own.Done, NotificationEvent, FALSE);
    AimAtLower(Irp, &Own, LOWER_BY_TIMER, FreesIt);
    IoCallDriver(TheDevice, Irp);
    WaitFor(&Own.Done);
    CHECK(Own.Status == STATUS_SUCCESS);
    KeFlushQueuedDpcs();
    return 0;
}

/* With a bound on the time: cancelled when it is over, and waited for all the same. */
static ULONG RequestThatIsCancelled(VOID)
{
    PIRP Irp = IoAllocateIrp(TheDevice->StackSize, FALSE);
    LARGE_INTEGER Limit = After(MILLISECONDS(3));
    OWN Own;

    CHECK(Irp != NULL);
    RtlZeroMemory(&Own, sizeof(Own));
    KeInitializeEvent(&Own.Done, NotificationEvent, FALSE);
    AimAtLower(Irp, &Own, LOWER_UNTIL_CANCELLED, KeepsIt);
    IoCallDriver(TheDevice, Irp);
    if (KeWaitForSingleObject(&Own.Done, Executive, KernelMode, FALSE, &Limit) == STATUS_TIMEOUT) {
        IoCancelIrp(Irp); /* it is ours, so it is still there */
        WaitFor(&Own.Done);
    }
    CHECK(Own.Status == STATUS_CANCELLED);
    IoFreeIrp(Irp);
    return 0;
}

/* A packet in memory of the driver's own. */
static ULONG RequestInOwnMemory(VOID)
{
    USHORT Size = IoSizeOfIrp(TheDevice->StackSize);
    PIRP Irp = Nonpaged(Size);
    OWN Own;

    CHECK(Irp != NULL);
    IoInitializeIrp(Irp, Size, TheDevice->StackSize);
    RtlZeroMemory(&Own, sizeof(Own));
    KeInitializeEvent(&Own.Done, NotificationEvent, FALSE);
    AimAtLower(Irp, &Own, LOWER_BY_WORK_ITEM, KeepsIt);
    IoCallDriver(TheDevice, Irp);
    WaitFor(&Own.Done);
    CHECK(Own.Status == STATUS_SUCCESS && Own.Answer == 0x600D);
    ExFreePoolWithTag(Irp, TAG);
    return 0;
}

#define OWN_REQUEST_IDIOMS                                                                                             \
    IDIOM(RequestAtOnce)                                                                                               \
    IDIOM(RequestByTimer)                                                                                              \
    IDIOM(RequestByWorkItem)                                                                                           \
    IDIOM(RequestWithoutBuffers)                                                                                       \
    IDIOM(RequestOfItsOwn)                                                                                             \
    IDIOM(RequestThatFreesItself)                                                                                      \
    IDIOM(RequestThatIsCancelled)                                                                                      \
    IDIOM(RequestInOwnMemory)

#endif
