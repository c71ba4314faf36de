/*
 * A device above another: the ways in which a driver passes a request on. Each idiom sends the same requests, which the lower device
 * completes at once, in a timer's DPC, or in a work item, and each must come back with the lower device's answer.
 * Pages: Passing IRPs Down the Driver Stack, Handling IRPs, IoSetCompletionRoutine macro, IoForwardIrpSynchronously function.
 */
#ifndef FORWARDING_H
#define FORWARDING_H

#include "own_requests.h"

typedef NTSTATUS (*FORWARD)(PIRP Irp);

/* There while an idiom of this file runs. */
static PDEVICE_OBJECT Upper, Below;
static FORWARD Forward;
static IO_REMOVE_LOCK UpperLock;
static ULONG SentDown;

static NTSTATUS ForwardSkipped(PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Below, Irp);
}

static NTSTATUS ForwardCopied(PIRP Irp)
{
    IoCopyCurrentIrpStackLocationToNext(Irp);
    return IoCallDriver(Below, Irp);
}

/* What came back as pending stays pending on the way up. */
static NTSTATUS NTAPI PassesOn(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS ForwardObserved(PIRP Irp)
{
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, PassesOn, NULL, TRUE, TRUE, TRUE);
    return IoCallDriver(Below, Irp);
}

static KEVENT SentOn;

static NTSTATUS NTAPI PassesOnLate(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    if (Irp->PendingReturned && KeGetCurrentIrql() == PASSIVE_LEVEL) {
        WaitFor(&SentOn);
    }
    return PassesOn(Device, Irp, Context);
}

/* The dispatch routine returns while the completion routine, on a worker thread, has not marked the request yet. */
static NTSTATUS ForwardObservedLate(PIRP Irp)
{
    NTSTATUS Status;

    KeInitializeEvent(&SentOn, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, PassesOnLate, NULL, TRUE, TRUE, TRUE);
    Status = IoCallDriver(Below, Irp);
    KeSetEvent(&SentOn, IO_NO_INCREMENT, FALSE);
    return Status;
}

/* A routine that is not called leaves it to the I/O manager to say that the request pended. */
static NTSTATUS ForwardObservedOnError(PIRP Irp)
{
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, PassesOn, NULL, FALSE, TRUE, FALSE);
    return IoCallDriver(Below, Irp);
}

static NTSTATUS NTAPI Stops(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned) {
        KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
    }
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS ForwardAndWait(PIRP Irp)
{
    KEVENT Back;
    NTSTATUS Status;

    KeInitializeEvent(&Back, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, Stops, &Back, TRUE, TRUE, TRUE);
    Status = IoCallDriver(Below, Irp);
    if (Status == STATUS_PENDING) {
        WaitFor(&Back);
        Status = Irp->IoStatus.Status;
    }
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS ForwardSynchronously(PIRP Irp)
{
    NTSTATUS Status = STATUS_INVALID_DEVICE_REQUEST;

    if (IoForwardIrpSynchronously(Below, Irp)) {
        Status = Irp->IoStatus.Status;
    } else {
        Irp->IoStatus.Status = Status;
    }
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI Continues(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    return STATUS_CONTINUE_COMPLETION;
}

/* Marked before it goes: then nothing depends on what the lower device returns. */
static NTSTATUS ForwardPended(PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, Continues, NULL, TRUE, TRUE, TRUE);
    IoCallDriver(Below, Irp);
    return STATUS_PENDING;
}

/* In one stack location with the lower device, which so finds it marked: KMDF does so. */
static NTSTATUS ForwardPendedAndSkipped(PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    IoCallDriver(Below, Irp);
    return STATUS_PENDING;
}

typedef struct _DEFERRED {
    PIO_WORKITEM Item;
    PIRP Irp;
} DEFERRED;

static VOID NTAPI SendsLater(PDEVICE_OBJECT Device, PVOID Context)
{
    DEFERRED *Deferred = Context;
    PIRP Irp = Deferred->Irp;

    UNREFERENCED_PARAMETER(Device);
    IoFreeWorkItem(Deferred->Item);
    ExFreePoolWithTag(Deferred, TAG);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, Continues, NULL, TRUE, TRUE, TRUE);
    IoCallDriver(Below, Irp);
}

static NTSTATUS ForwardByWorkItem(PIRP Irp)
{
    DEFERRED *Deferred = Nonpaged(sizeof(*Deferred));

    if (Deferred == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Deferred->Irp = Irp;
    Deferred->Item = IoAllocateWorkItem(Upper);
    if (Deferred->Item == NULL) {
        ExFreePoolWithTag(Deferred, TAG);
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    IoMarkIrpPending(Irp);
    IoQueueWorkItem(Deferred->Item, SendsLater, DelayedWorkQueue, Deferred);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI AnswersTheOriginal(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PIRP Original = Context;

    UNREFERENCED_PARAMETER(Device);
    Original->IoStatus = Irp->IoStatus;
    IoFreeIrp(Irp);
    IoCompleteRequest(Original, IO_NO_INCREMENT);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* The original waits while another packet asks for it, in the same buffer. */
static NTSTATUS ForwardByAnotherPacket(PIRP Irp)
{
    PIRP Other = IoAllocateIrp(Below->StackSize, FALSE);
    PIO_STACK_LOCATION Mine = IoGetCurrentIrpStackLocation(Irp), Its;

    if (Other == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Other->AssociatedIrp.SystemBuffer = Irp->AssociatedIrp.SystemBuffer;
    Its = IoGetNextIrpStackLocation(Other);
    Its->MajorFunction = Mine->MajorFunction;
    Its->Parameters.DeviceIoControl = Mine->Parameters.DeviceIoControl;
    IoSetCompletionRoutine(Other, AnswersTheOriginal, Irp, TRUE, TRUE, TRUE);
    IoMarkIrpPending(Irp);
    IoCallDriver(Below, Other);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI ReleasesTheLock(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
    IoReleaseRemoveLock((PIO_REMOVE_LOCK)Context, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* The device above may not go while the one below has its request. */
static NTSTATUS ForwardUnderRemoveLock(PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&UpperLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, ReleasesTheLock, &UpperLock, TRUE, TRUE, TRUE);
    return IoCallDriver(Below, Irp);
}

/* Asks once more from the completion routine, and lets the second answer through. */
static NTSTATUS NTAPI SendsAgain(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    if (SentDown == 2) {
        return STATUS_CONTINUE_COMPLETION;
    }
    SentDown = 2;
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, SendsAgain, Context, TRUE, TRUE, TRUE);
    IoCallDriver(Below, Irp);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS ForwardTwice(PIRP Irp)
{
    SentDown = 1;
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, SendsAgain, NULL, TRUE, TRUE, TRUE);
    IoCallDriver(Below, Irp);
    return STATUS_PENDING;
}

static VOID TakeUpperAway(VOID)
{
    IoDetachDevice(Below);
    IoDeleteDevice(Upper);
    Upper = NULL;
}

/* Puts a device above the driver's own for as long as the requests take. */
static ULONG Through(FORWARD Way)
{
    static const ULONG Codes[] = {LOWER_AT_ONCE, LOWER_BY_TIMER, LOWER_BY_WORK_ITEM};
    ULONG Failed = 0;
    NTSTATUS Status = IoCreateDevice(TheDevice->DriverObject, 0, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Upper);

    CHECK(Status == STATUS_SUCCESS);
    Below = IoAttachDeviceToDeviceStack(Upper, TheDevice);
    if (Below == NULL) {
        IoDeleteDevice(Upper);
        CHECK(Below != NULL);
    }
    Forward = Way;
    IoInitializeRemoveLock(&UpperLock, TAG, 1, 0);
    Upper->Flags &= ~DO_DEVICE_INITIALIZING;
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Codes) && Failed == 0; Index++) {
        Failed = AskAndWait(Upper, Codes[Index]);
    }
    if (NT_SUCCESS(IoAcquireRemoveLock(&UpperLock, NULL))) {
        IoReleaseRemoveLockAndWait(&UpperLock, NULL);
    }
    TakeUpperAway();
    return Failed;
}

#define THROUGH(Idiom, Way)                                                                                            \
    static ULONG Idiom(VOID)                                                                                           \
    {                                                                                                                  \
        return Through(Way);                                                                                           \
    }

THROUGH(PassedOnWithoutLocation, ForwardSkipped)
THROUGH(PassedOn, ForwardCopied)
THROUGH(PassedOnAndObserved, ForwardObserved)
THROUGH(PassedOnAndObservedLate, ForwardObservedLate)
THROUGH(PassedOnAndObservedOnError, ForwardObservedOnError)
THROUGH(PassedOnAndWaitedFor, ForwardAndWait)
THROUGH(PassedOnSynchronously, ForwardSynchronously)
THROUGH(PassedOnAsPending, ForwardPended)
THROUGH(PassedOnAsPendingAndSkipped, ForwardPendedAndSkipped)
THROUGH(PassedOnByWorkItem, ForwardByWorkItem)
THROUGH(PassedOnByAnotherPacket, ForwardByAnotherPacket)
THROUGH(PassedOnUnderRemoveLock, ForwardUnderRemoveLock)
THROUGH(PassedOnTwice, ForwardTwice)

#define FORWARDING_IDIOMS                                                                                              \
    IDIOM(PassedOnWithoutLocation)                                                                                     \
    IDIOM(PassedOn)                                                                                                    \
    IDIOM(PassedOnAndObserved)                                                                                         \
    IDIOM(PassedOnAndObservedLate)                                                                                     \
    IDIOM(PassedOnAndObservedOnError)                                                                                  \
    IDIOM(PassedOnAndWaitedFor)                                                                                        \
    IDIOM(PassedOnSynchronously)                                                                                       \
    IDIOM(PassedOnAsPending)                                                                                           \
    IDIOM(PassedOnAsPendingAndSkipped)                                                                                 \
    IDIOM(PassedOnByWorkItem)                                                                                          \
    IDIOM(PassedOnByAnotherPacket)                                                                                     \
    IDIOM(PassedOnUnderRemoveLock)                                                                                     \
    IDIOM(PassedOnTwice)

#endif
