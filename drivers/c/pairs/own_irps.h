/* Pairs of IRPs that the driver makes itself. They go to its own device, which answers internal control codes. */
#ifndef PAIRS_OWN_IRPS_H
#define PAIRS_OWN_IRPS_H

#include "mdl.h"

NTKERNELAPI NTSTATUS NTAPI PoCallDriver(PDEVICE_OBJECT Device, PIRP Irp);

#define ANSWER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define KEEP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define DIRECT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_OUT_DIRECT, FILE_ANY_ACCESS)

#define RELAY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x903, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define START CTL_CODE(FILE_DEVICE_UNKNOWN, 0x904, METHOD_BUFFERED, FILE_ANY_ACCESS)

static PIRP Kept;
static BOOLEAN Skips;
static BOOLEAN SetsNothing; /* of the location below */
static PIRP Behind; /* that StartIo sends while it has the first one */

static NTSTATUS NTAPI PassMark(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
    return STATUS_CONTINUE_COMPLETION;
}

/* Sends it on with a completion routine, in a location of its own or not. */
static NTSTATUS Relay(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (SetsNothing) {
        return IoCallDriver(Device, Irp);
    }
    if (Skips) {
        IoSkipCurrentIrpStackLocation(Irp);
    } else {
        IoCopyCurrentIrpStackLocationToNext(Irp);
    }
    IoGetNextIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode = ANSWER;
    IoSetCompletionRoutine(Irp, PassMark, NULL, TRUE, TRUE, TRUE);
    return IoCallDriver(Device, Irp);
}

/* What the driver's device does with an internal control request. */
static NTSTATUS AnswerOwn(PDEVICE_OBJECT Device, PIRP Irp)
{
    switch (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode) {
    case KEEP:
        break;
    case RELAY:
        return Relay(Device, Irp);
    case START:
        IoMarkIrpPending(Irp);
        IoStartPacket(Device, Irp, NULL, NULL);
        return STATUS_PENDING;
    default:
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    Kept = Irp;
    IoMarkIrpPending(Irp);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI TakeBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    if (Context != NULL) { /* an event */
        KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
    }
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* NULL if there is no IRP. */
static PIRP Prepared(PIRP Irp, ULONG Code)
{
    PIO_STACK_LOCATION Next;

    if (Irp == NULL) {
        return NULL;
    }
    Next = IoGetNextIrpStackLocation(Irp);
    Next->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    Next->Parameters.DeviceIoControl.IoControlCode = Code;
    IoSetCompletionRoutine(Irp, TakeBack, NULL, TRUE, TRUE, TRUE);
    return Irp;
}

static PIRP NewIrp(ULONG Code)
{
    return Prepared(IoAllocateIrp(TheDevice->StackSize, FALSE), Code);
}

static VOID FreeIrpIfAny(PIRP Irp)
{
    if (Irp != NULL) {
        IoFreeIrp(Irp);
    }
}

#ifndef MDL_PAGE_CONTENTS_INVARIANT /* mingw's headers lack it */
#define MDL_PAGE_CONTENTS_INVARIANT 0x4000
#endif

/* Sends a request of IoBuild…, and waits for its end. */
static VOID SendAndWait(PIRP Irp, PKEVENT Done)
{
    if (IoCallDriver(TheDevice, Irp) == STATUS_PENDING) {
        WaitFor(Done);
    }
}

static BOOLEAN Scribbles;

/* What the driver's device does with a write. */
static NTSTATUS AnswerWrite(PIRP Irp)
{
    PMDL Mdl = Irp->MdlAddress;
    ULONG Written = Mdl != NULL ? MmGetMdlByteCount(Mdl) : 0;

    if (Scribbles) {
        *(volatile UCHAR *)Mdl->MappedSystemVa ^= 1;
    }
    return Complete(Irp, STATUS_SUCCESS, Written);
}

static VOID InvariantBufferChanged(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = PoolMdl(NonPagedPoolNx, 64, &Block);
    PIRP Irp;

    if (Mdl == NULL) {
        return;
    }
    Irp = NewIrp(0);
    if (Irp != NULL) {
        MmBuildMdlForNonPagedPool(Mdl);
        Mdl->MdlFlags |= MDL_PAGE_CONTENTS_INVARIANT;
        Irp->MdlAddress = Mdl;
        IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_WRITE;
        IoGetNextIrpStackLocation(Irp)->Parameters.Write.Length = 64;
        Scribbles = Wrong;
        IoCallDriver(TheDevice, Irp);
        Scribbles = FALSE;
        IoFreeIrp(Irp);
    }
    FreePoolMdl(Mdl, Block);
}

static VOID KernelRequestWithUserBuffer(BOOLEAN Wrong)
{
    PVOID Block = Nonpaged(64);
    PIRP Irp;

    if (Block == NULL) {
        return;
    }
    Irp = NewIrp(ANSWER);
    if (Irp != NULL) {
        Irp->UserBuffer = Wrong ? (PVOID)0x7FF00000 : Block;
        IoCallDriver(TheDevice, Irp);
        IoFreeIrp(Irp);
    }
    Free(Block);
}

static VOID RequestEventAlreadySet(BOOLEAN Wrong)
{
    IO_STATUS_BLOCK Status;
    KEVENT Done;
    PIRP Irp;

    KeInitializeEvent(&Done, NotificationEvent, Wrong);
    Irp = IoBuildDeviceIoControlRequest(KEEP, TheDevice, NULL, 0, NULL, 0, TRUE, &Done, &Status);
    if (Irp != NULL) {
        IoCallDriver(TheDevice, Irp);
        Complete(Kept, STATUS_SUCCESS, 0);
        WaitFor(&Done);
    }
}

static VOID AllocatedIrpCompleted(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(ANSWER);

    if (Irp == NULL) {
        return;
    }
    if (Wrong) {
        IoSetCompletionRoutine(Irp, NULL, NULL, FALSE, FALSE, FALSE);
    }
    IoCallDriver(TheDevice, Irp);
    IoFreeIrp(Irp);
}

static VOID IrpBadBuffer(BOOLEAN Wrong)
{
    PVOID Block = Nonpaged(64);
    IO_STATUS_BLOCK Status;
    KEVENT Done;
    PIRP Irp;

    if (Block == NULL) {
        return;
    }
    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildDeviceIoControlRequest(DIRECT, TheDevice, NULL, 0, Wrong ? (PVOID)0xFFFFF880DEAD0000 : Block, 64,
                                        TRUE, &Done, &Status);
    if (Irp != NULL) {
        SendAndWait(Irp, &Done);
    }
    Free(Block);
}

static VOID IrpDamaged(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(ANSWER);

    if (Irp == NULL) {
        return;
    }
    if (Wrong) {
        IoGetNextIrpStackLocation(Irp)->MajorFunction = 0x77;
    }
    IoCallDriver(TheDevice, Irp);
    IoFreeIrp(Irp);
}

static VOID IrpFree(BOOLEAN Wrong)
{
    PIRP Own = Nonpaged(IoSizeOfIrp(1)), Irp;

    if (Own == NULL) {
        return;
    }
    Irp = IoAllocateIrp(1, FALSE);
    if (Irp != NULL) {
        IoInitializeIrp(Own, IoSizeOfIrp(1), 1);
        IoFreeIrp(Wrong ? Own : Irp);
    }
    Free(Own);
}

static VOID IrpFreeThreaded(BOOLEAN Wrong)
{
    LARGE_INTEGER Offset = After(0);
    IO_STATUS_BLOCK Status;
    KEVENT Done;
    PIRP Irp, Own = IoAllocateIrp(1, FALSE);

    if (Own == NULL) {
        return;
    }
    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_FLUSH_BUFFERS, TheDevice, NULL, 0, &Offset, &Done, &Status);
    IoFreeIrp(Wrong && Irp != NULL ? Irp : Own);
    if (Irp != NULL) {
        SendAndWait(Irp, &Done);
    }
}

static NTSTATUS NTAPI FreeAtEnd(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    IoFreeIrp(Irp);
    return Context != NULL ? STATUS_SUCCESS : STATUS_MORE_PROCESSING_REQUIRED;
}

static VOID IrpFreedInCompletion(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(ANSWER);

    if (Irp == NULL) {
        return;
    }
    IoSetCompletionRoutine(Irp, FreeAtEnd, Wrong ? Irp : NULL, TRUE, TRUE, TRUE);
    IoCallDriver(TheDevice, Irp);
}

static VOID IrpInUse(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(KEEP);

    if (Irp == NULL) {
        return;
    }
    IoCallDriver(TheDevice, Irp);
    if (!Wrong) {
        Complete(Kept, STATUS_SUCCESS, 0);
    }
    IoFreeIrp(Irp);
}

static VOID IrpInitializedAgain(BOOLEAN Wrong)
{
    PIRP Own = Nonpaged(IoSizeOfIrp(1)), Irp;

    if (Own == NULL) {
        return;
    }
    Irp = IoAllocateIrp(1, FALSE);
    if (Irp != NULL) {
        IoInitializeIrp(Wrong ? Irp : Own, IoSizeOfIrp(1), 1);
        IoFreeIrp(Irp);
    }
    Free(Own);
}

static VOID IrpLeak(BOOLEAN Wrong)
{
    PIRP Irp = IoAllocateIrp(1, FALSE);

    if (Irp != NULL && !Wrong) {
        IoFreeIrp(Irp);
    }
}

static VOID IrpReuse(BOOLEAN Wrong)
{
    LARGE_INTEGER Offset = After(0);
    PIRP Irp = IoBuildAsynchronousFsdRequest(IRP_MJ_FLUSH_BUFFERS, TheDevice, NULL, 0, &Offset, NULL);
    PIRP Own = IoAllocateIrp(1, FALSE);

    if (Irp != NULL && Own != NULL) {
        IoReuseIrp(Wrong ? Irp : Own, STATUS_SUCCESS);
    }
    FreeIrpIfAny(Irp);
    FreeIrpIfAny(Own);
}

static VOID IrpToNoDevice(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(ANSWER);

    if (Irp == NULL) {
        return;
    }
    IoCallDriver(Wrong ? (PDEVICE_OBJECT)&Zero : TheDevice, Irp);
    IoFreeIrp(Irp);
}

static VOID IrpTooSmall(BOOLEAN Wrong)
{
    PIRP Own = Nonpaged(IoSizeOfIrp(2));

    if (Own != NULL) {
        IoInitializeIrp(Own, IoSizeOfIrp(Wrong ? 1 : 2), 2);
        Free(Own);
    }
}

static VOID NoStackLocation(BOOLEAN Wrong)
{
    PIRP Irp = IoAllocateIrp(Wrong ? 1 : 2, FALSE);

    if (Irp == NULL) {
        return;
    }
    IoSetNextIrpStackLocation(Irp);
    if (!Wrong) {
        Prepared(Irp, ANSWER);
    }
    IoCallDriver(TheDevice, Irp);
    IoFreeIrp(Irp);
}

static VOID NotAnIrp(BOOLEAN Wrong)
{
    PIRP Irp = IoAllocateIrp(1, FALSE);

    if (Irp == NULL) {
        return;
    }
    IoFreeIrp(Irp);
    if (!Wrong) {
        Irp = IoAllocateIrp(1, FALSE);
    }
    FreeIrpIfAny(Irp);
}

static VOID NTAPI CancelKept(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->IoStatus.Information == 0) {
        IoReleaseCancelSpinLock(Irp->CancelIrql);
        Complete(Irp, STATUS_CANCELLED, 0);
    } else {
        Complete(Irp, STATUS_CANCELLED, 0);
    }
}

static VOID CancelLockHeld(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(KEEP);

    if (Irp == NULL) {
        return;
    }
    IoCallDriver(TheDevice, Irp);
    Irp->IoStatus.Information = Wrong;
    IoSetCancelRoutine(Irp, CancelKept);
    IoCancelIrp(Irp);
    IoFreeIrp(Irp);
}

static VOID CancelAfterCompletion(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(KEEP);

    if (Irp == NULL) {
        return;
    }
    IoCallDriver(TheDevice, Irp);
    Complete(Kept, STATUS_SUCCESS, 0);
    if (Wrong) {
        IoSetCancelRoutine(Irp, CancelKept);
    }
    IoCancelIrp(Irp);
    IoFreeIrp(Irp);
}

static VOID CancellationMissed(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(KEEP);
    BOOLEAN IsCancelled;
    KIRQL Old;

    if (Irp == NULL) {
        return;
    }
    IoCallDriver(TheDevice, Irp);
    IoCancelIrp(Irp); /* which finds no routine */
    IoAcquireCancelSpinLock(&Old);
    IoSetCancelRoutine(Irp, CancelKept);
    IsCancelled = !Wrong && Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL;
    IoReleaseCancelSpinLock(Old);
    if (IsCancelled) {
        Complete(Kept, STATUS_CANCELLED, 0);
    }
    Delay(20);
    if (Wrong) {
        IoCancelIrp(Irp);
    }
    IoFreeIrp(Irp);
}

static VOID CompletionRoutineSkipped(BOOLEAN Wrong)
{
    PIRP Irp = Prepared(IoAllocateIrp(2, FALSE), RELAY);

    if (Irp == NULL) {
        return;
    }
    Skips = Wrong;
    IoCallDriver(TheDevice, Irp);
    IoFreeIrp(Irp);
}

static VOID IrpLocationNotSet(BOOLEAN Wrong)
{
    PIRP Irp = Prepared(IoAllocateIrp(2, FALSE), RELAY);

    if (Irp == NULL) {
        return;
    }
    SetsNothing = Wrong;
    IoCallDriver(TheDevice, Irp);
    IoFreeIrp(Irp);
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIRP Next = Behind;

    Behind = NULL;
    if (Next != NULL) {
        IoCallDriver(Device, Next); /* which waits in the queue */
    }
    Complete(Irp, STATUS_SUCCESS, 0);
    IoStartNextPacket(Device, FALSE);
}

static VOID StartIoRecursion(BOOLEAN Wrong)
{
    PIRP First = NewIrp(START), Second = NewIrp(START);
    KEVENT Done;

    if (First != NULL && Second != NULL) {
        KeInitializeEvent(&Done, NotificationEvent, FALSE);
        IoSetCompletionRoutine(Second, TakeBack, &Done, TRUE, TRUE, TRUE);
        TheDriver->DriverStartIo = StartIo;
        IoSetStartIoAttributes(TheDevice, !Wrong, FALSE);
        Behind = Second;
        IoCallDriver(TheDevice, First);
        WaitFor(&Done); /* First is complete before */
    }
    FreeIrpIfAny(First);
    FreeIrpIfAny(Second);
}

/* Sends a request that is kept, with an event and a status block on this routine's stack. */
static VOID SendAndKeep(BOOLEAN Wrong)
{
    IO_STATUS_BLOCK Status;
    KEVENT Done;
    PIRP Irp;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildDeviceIoControlRequest(KEEP, TheDevice, NULL, 0, NULL, 0, TRUE, &Done, &Status);
    if (Irp != NULL && IoCallDriver(TheDevice, Irp) == STATUS_PENDING && !Wrong) {
        Complete(Kept, STATUS_SUCCESS, 0);
        WaitFor(&Done);
    }
}

static VOID IrpOnDeadStack(BOOLEAN Wrong)
{
    VOID (*volatile Send)(BOOLEAN) = SendAndKeep; /* whose frame is its own */

    Send(Wrong);
    if (Wrong) {
        Complete(Kept, STATUS_SUCCESS, 0);
    }
}

static VOID IrpSentTooHigh(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(ANSWER);
    KIRQL Old;

    if (Irp == NULL) {
        return;
    }
    IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_FLUSH_BUFFERS;
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    if (!Wrong) {
        KeLowerIrql(Old);
    }
    IoCallDriver(TheDevice, Irp);
    if (Wrong) {
        KeLowerIrql(Old);
    }
    IoFreeIrp(Irp);
}

static VOID IrpStatusNotSet(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(ANSWER);

    if (Irp == NULL) {
        return;
    }
    IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_PNP;
    IoGetNextIrpStackLocation(Irp)->MinorFunction = IRP_MN_QUERY_DEVICE_RELATIONS;
    IoGetNextIrpStackLocation(Irp)->Parameters.QueryDeviceRelations.Type = TargetDeviceRelation;
    Irp->IoStatus.Status = Wrong ? STATUS_SUCCESS : STATUS_NOT_SUPPORTED;
    IoCallDriver(TheDevice, Irp);
    IoFreeIrp(Irp);
}

/* A power sequence: drivers have PoRequestPowerIrp make all other power IRPs. */
static VOID NotAPowerIrp(BOOLEAN Wrong)
{
    PIRP Irp = NewIrp(ANSWER);
    POWER_SEQUENCE Sequence;

    if (Irp == NULL) {
        return;
    }
    if (!Wrong) {
        IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_POWER;
        IoGetNextIrpStackLocation(Irp)->MinorFunction = IRP_MN_POWER_SEQUENCE;
        IoGetNextIrpStackLocation(Irp)->Parameters.PowerSequence.PowerSequence = &Sequence;
        Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    }
    PoCallDriver(TheDevice, Irp);
    IoFreeIrp(Irp);
}

#define OWN_IRP_PAIRS                                                                                                  \
    PAIR("allocated-irp-completed", AllocatedIrpCompleted)                                                             \
    PAIR("cancel-after-completion", CancelAfterCompletion)                                                             \
    PAIR("cancel-lock-held", CancelLockHeld)                                                                           \
    PAIR("cancellation-missed", CancellationMissed)                                                                    \
    PAIR("completion-routine-skipped", CompletionRoutineSkipped)                                                       \
    PAIR("invariant-buffer-changed", InvariantBufferChanged)                                                           \
    PAIR("irp-bad-buffer", IrpBadBuffer)                                                                               \
    PAIR("irp-damaged", IrpDamaged)                                                                                    \
    PAIR("irp-free", IrpFree)                                                                                          \
    PAIR("irp-free-threaded", IrpFreeThreaded)                                                                         \
    PAIR("irp-freed-in-completion", IrpFreedInCompletion)                                                              \
    PAIR("irp-in-use", IrpInUse)                                                                                       \
    PAIR("irp-initialized-again", IrpInitializedAgain)                                                                 \
    PAIR("irp-leak", IrpLeak)                                                                                          \
    PAIR("irp-location-not-set", IrpLocationNotSet)                                                                    \
    PAIR("irp-on-dead-stack", IrpOnDeadStack)                                                                          \
    PAIR("irp-reuse", IrpReuse)                                                                                        \
    PAIR("irp-sent-too-high", IrpSentTooHigh)                                                                          \
    PAIR("irp-status-not-set", IrpStatusNotSet)                                                                        \
    PAIR("irp-to-no-device", IrpToNoDevice)                                                                            \
    PAIR("irp-too-small", IrpTooSmall)                                                                                 \
    PAIR("kernel-request-with-user-buffer", KernelRequestWithUserBuffer)                                               \
    PAIR("no-stack-location", NoStackLocation)                                                                         \
    PAIR("not-a-power-irp", NotAPowerIrp)                                                                              \
    PAIR("not-an-irp", NotAnIrp)                                                                                       \
    PAIR("request-event-already-set", RequestEventAlreadySet)                                                          \
    PAIR("start-io-recursion", StartIoRecursion)

#endif
