/* IRPs, their stack locations, cancel-safe queues and work items. */
#include "damage.h"

static PIRP TheIrp;

static NTSTATUS NTAPI TakeBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static PVOID PrepareIrp(VOID)
{
    TheIrp = IoAllocateIrp(3, FALSE);
    IoGetNextIrpStackLocation(TheIrp)->MajorFunction = IRP_MJ_READ;
    IoSetCompletionRoutine(TheIrp, TakeBack, NULL, TRUE, TRUE, TRUE);
    return TheIrp;
}
static PVOID PrepareNextLocation(VOID) { PrepareIrp(); return IoGetNextIrpStackLocation(TheIrp); }
static PVOID PrepareOwnRequest(VOID) { return OwnRequest; }
static PVOID PrepareOwnLocation(VOID) { return IoGetCurrentIrpStackLocation(OwnRequest); }

static VOID SendIrp(PVOID At) { UNREFERENCED_PARAMETER(At); IoCallDriver(TheDevice, TheIrp); }
static VOID FreeIrp(PVOID At) { UNREFERENCED_PARAMETER(At); IoFreeIrp(TheIrp); }
static VOID ReuseIrp(PVOID At) { UNREFERENCED_PARAMETER(At); IoReuseIrp(TheIrp, STATUS_SUCCESS); }
static VOID CancelTheIrp(PVOID At) { UNREFERENCED_PARAMETER(At); IoCancelIrp(TheIrp); }
static VOID FinishIrp(PVOID At) { UNREFERENCED_PARAMETER(At); IoCompleteRequest(TheIrp, IO_NO_INCREMENT); }
static VOID InitializeTheIrp(PVOID At) { UNREFERENCED_PARAMETER(At); IoInitializeIrp(TheIrp, IoSizeOfIrp(3), 3); }
static VOID AskIrp(PVOID At)
{
    UNREFERENCED_PARAMETER(At);
    IoGetRequestorProcess(TheIrp);
    IoGetRequestorProcessId(TheIrp);
    IoIsOperationSynchronous(TheIrp);
}
static VOID AssociateIrp(PVOID At)
{
    PIRP Irp;

    UNREFERENCED_PARAMETER(At);
    Irp = IoMakeAssociatedIrp(TheIrp, 2);
    if (Irp != NULL) {
        TheIrp->AssociatedIrp.IrpCount = 1;
        IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_READ;
        IoCallDriver(TheDevice, Irp);
    }
}
static VOID StartThePacket(PVOID At)
{
    UNREFERENCED_PARAMETER(At);
    IoStartPacket(TheDevice, TheIrp, NULL, NULL);
    IoStartNextPacket(TheDevice, FALSE);
}
static VOID DescribeIrp(PVOID At) { UNREFERENCED_PARAMETER(At); IoAllocateMdl(TheDriver, 16, TRUE, FALSE, TheIrp); }
static const USE IrpUses[] = {SendIrp, FreeIrp, ReuseIrp, CancelTheIrp, FinishIrp, InitializeTheIrp, AskIrp, AssociateIrp,
                              StartThePacket, DescribeIrp, NULL};

static VOID FinishOwn(PVOID At) { UNREFERENCED_PARAMETER(At); OwnRequestDone = TRUE; Complete(OwnRequest, STATUS_SUCCESS, 8); }
static VOID PassOwn(PVOID At)
{
    UNREFERENCED_PARAMETER(At);
    OwnRequestDone = TRUE;
    IoSkipCurrentIrpStackLocation(OwnRequest);
    IoGetNextIrpStackLocation(OwnRequest)->MajorFunction = IRP_MJ_READ;
    IoCallDriver(TheDevice, OwnRequest);
}
static VOID CancelOwn(PVOID At) { UNREFERENCED_PARAMETER(At); IoCancelIrp(OwnRequest); }
static VOID FailOwn(PVOID At) { UNREFERENCED_PARAMETER(At); OwnRequestDone = TRUE; Complete(OwnRequest, STATUS_UNSUCCESSFUL, 0); }
static const USE OwnRequestUses[] = {FinishOwn, PassOwn, CancelOwn, FailOwn, NULL};

static LIST_ENTRY Waiting;
static KSPIN_LOCK QueueLock;
static VOID NTAPI CsqInsert(PIO_CSQ Csq, PIRP Irp) { UNREFERENCED_PARAMETER(Csq); InsertTailList(&Waiting, &Irp->Tail.Overlay.ListEntry); }
static VOID NTAPI CsqRemove(PIO_CSQ Csq, PIRP Irp) { UNREFERENCED_PARAMETER(Csq); RemoveEntryList(&Irp->Tail.Overlay.ListEntry); }
static PIRP NTAPI CsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Csq);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    return IsListEmpty(&Waiting) ? NULL : CONTAINING_RECORD(Waiting.Flink, IRP, Tail.Overlay.ListEntry);
}
static VOID NTAPI CsqAcquire(PIO_CSQ Csq, PKIRQL Irql) { UNREFERENCED_PARAMETER(Csq); KeAcquireSpinLock(&QueueLock, Irql); }
static VOID NTAPI CsqRelease(PIO_CSQ Csq, KIRQL Irql) { UNREFERENCED_PARAMETER(Csq); KeReleaseSpinLock(&QueueLock, Irql); }
static VOID NTAPI CsqCancelled(PIO_CSQ Csq, PIRP Irp) { UNREFERENCED_PARAMETER(Csq); Complete(Irp, STATUS_CANCELLED, 0); }

static PVOID PrepareQueue(VOID)
{
    PIO_CSQ Queue = Fresh(sizeof(*Queue));

    InitializeListHead(&Waiting);
    KeInitializeSpinLock(&QueueLock);
    IoCsqInitialize(Queue, CsqInsert, CsqRemove, CsqPeek, CsqAcquire, CsqRelease, CsqCancelled);
    PrepareIrp();
    IoSetNextIrpStackLocation(TheIrp);
    IoCsqInsertIrp(Queue, TheIrp, NULL);
    return Queue;
}
static VOID PutIrp(PVOID At)
{
    PIRP Irp = PrepareIrp();

    IoSetNextIrpStackLocation(Irp);
    IoCsqInsertIrp(At, Irp, Fresh(sizeof(IO_CSQ_IRP_CONTEXT)));
}
static VOID TakeIrp(PVOID At) { IoCsqRemoveNextIrp(At, NULL); }
static VOID CancelQueued(PVOID At) { UNREFERENCED_PARAMETER(At); IoCancelIrp(TheIrp); }
static VOID TakeByContext(PVOID At)
{
    PIO_CSQ_IRP_CONTEXT Context = Fresh(sizeof(*Context));

    Context->Irp = At;
    Context->Csq = At;
    IoCsqRemoveIrp(At, Context);
}
static const USE QueueUses[] = {PutIrp, TakeIrp, CancelQueued, TakeByContext, NULL};

static VOID NTAPI Work(PVOID Context) { UNREFERENCED_PARAMETER(Context); }
static VOID NTAPI IoWork(PDEVICE_OBJECT Device, PVOID Context) { UNREFERENCED_PARAMETER(Device); UNREFERENCED_PARAMETER(Context); }
static PVOID PrepareWorkItem(VOID)
{
    PWORK_QUEUE_ITEM Item = Fresh(sizeof(*Item));

    ExInitializeWorkItem(Item, Work, NULL);
    return Item;
}
static VOID QueueWork(PVOID At) { ExQueueWorkItem(At, DelayedWorkQueue); Pause(1); }
static VOID QueueOddWork(PVOID At) { ExQueueWorkItem(At, (WORK_QUEUE_TYPE)77); Pause(1); }
static const USE WorkItemUses[] = {QueueWork, QueueOddWork, NULL};

static PVOID PrepareIoWorkItem(VOID) { return IoAllocateWorkItem(TheDevice); }
static VOID QueueIoWork(PVOID At) { IoQueueWorkItem(At, IoWork, DelayedWorkQueue, NULL); Pause(1); IoFreeWorkItem(At); }
static VOID FreeIoWork(PVOID At) { IoFreeWorkItem(At); }
static const USE IoWorkItemUses[] = {QueueIoWork, FreeIoWork, NULL};
