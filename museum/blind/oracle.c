/*
 * oracle: answers questions by a thread of its own, which ponders each for some milliseconds (a whitening hash over
 * many rounds, with pauses). IOCTL_ORACLE_ASK waits for its answer; the wait ends early when the asking thread is
 * alerted or terminated.
 *
 * The bug: when the wait ends early, the question is freed although it is still queued or the thread works on it.
 *
 * Device: ROOT\ORACLE
 * Rule: use-after-free
 * Needs: cancel
 */
#include "../include/gated_device.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define ORACLE_TAG 'carO'
#define PAUSES_MAX 50u
#define IOCTL_ORACLE_ASK   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_ORACLE_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _ASK {
    ULONG Seed;
    ULONG Pauses;                       /* of 10 ms, at most PAUSES_MAX */
} ASK;

typedef struct _QUESTION {
    LIST_ENTRY Link;
    BOOLEAN Queued;                     /* under the lock */
    BOOLEAN Withdrawn;
    KEVENT Done;
    ULONG Seed;
    ULONG Pauses;
    ULONG Answer;
} QUESTION, *PQUESTION;

typedef struct _ORACLE {
    BQ_DEVICE Bq;
    KSPIN_LOCK Lock;
    LIST_ENTRY Questions;
    KEVENT Wake;                        /* synchronization event */
    volatile LONG Ending;
    PKTHREAD Thread;
    volatile LONG Answered;
} ORACLE, *PORACLE;

static const GUID OracleInterface = { 0x8d1f6a05, 0x902b, 0x4f4e, { 0xa9, 0x6c, 0x12, 0xee, 0x5b, 0x30, 0x47, 0x0b } };

static PQUESTION OracleNext(PORACLE O)
{
    PQUESTION q = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&O->Lock, &irql);
    if (!IsListEmpty(&O->Questions)) {
        q = CONTAINING_RECORD(RemoveHeadList(&O->Questions), QUESTION, Link);
        q->Queued = FALSE;
    }
    KeReleaseSpinLock(&O->Lock, irql);
    return q;
}

static VOID OraclePonder(PORACLE O, PQUESTION Q)
{
    LARGE_INTEGER pause;
    ULONG x = Q->Seed | 1, i, j;

    pause.QuadPart = -100000;
    for (i = 0; i <= Q->Pauses; i++) {
        for (j = 0; j < 1000; j++) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
        }
        if (i < Q->Pauses && !Q->Withdrawn && *(volatile ULONG *)&O->Bq.Closed == 0)
            KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    Q->Answer = x;
}

static VOID NTAPI OracleThread(PVOID Context)
{
    PORACLE o = Context;
    PQUESTION q;

    for (;;) {
        KeWaitForSingleObject(&o->Wake, Executive, KernelMode, FALSE, NULL);
        while ((q = OracleNext(o)) != NULL) {
            OraclePonder(o, q);
            InterlockedIncrement(&o->Answered);
            KeSetEvent(&q->Done, IO_NO_INCREMENT, FALSE);   /* the question belongs to the asker again */
        }
        if (o->Ending)
            break;
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS OracleAsk(PORACLE O, const ASK *Ask, PULONG Answer)
{
    PQUESTION q;
    NTSTATUS status;
    KIRQL irql;

    if (Ask->Pauses > PAUSES_MAX)
        return STATUS_INVALID_PARAMETER;
    q = ExAllocatePoolWithTag(NonPagedPool, sizeof(*q), ORACLE_TAG);
    if (q == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeInitializeEvent(&q->Done, NotificationEvent, FALSE);
    q->Seed = Ask->Seed;
    q->Pauses = Ask->Pauses;
    q->Answer = 0;
    q->Withdrawn = FALSE;
    q->Queued = TRUE;
    KeAcquireSpinLock(&O->Lock, &irql);
    InsertTailList(&O->Questions, &q->Link);
    KeReleaseSpinLock(&O->Lock, irql);
    KeSetEvent(&O->Wake, IO_NO_INCREMENT, FALSE);

    status = KeWaitForSingleObject(&q->Done, UserRequest, UserMode, TRUE, NULL);
#ifdef FIXED
    if (status != STATUS_SUCCESS) {
        BOOLEAN queued;

        KeAcquireSpinLock(&O->Lock, &irql);
        queued = q->Queued;
        if (queued)
            RemoveEntryList(&q->Link);
        q->Withdrawn = TRUE;                            /* the thread hurries up */
        KeReleaseSpinLock(&O->Lock, irql);
        if (!queued)
            KeWaitForSingleObject(&q->Done, Executive, KernelMode, FALSE, NULL);
    }
#endif
    if (status == STATUS_SUCCESS)
        *Answer = q->Answer;
    else
        status = STATUS_CANCELLED;
    ExFreePoolWithTag(q, ORACLE_TAG);
    return status;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PORACLE o = (PORACLE)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG answer;
    NTSTATUS status;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ORACLE_ASK:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ASK) ||
            sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = OracleAsk(o, (const ASK *)buffer, &answer);
        if (!NT_SUCCESS(status))
            return BqComplete(Dev, Irp, status, 0);
        *buffer = answer;
        return BqComplete(Dev, Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_ORACLE_COUNT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *buffer = (ULONG)o->Answered;
        return BqComplete(Dev, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(Dev);                        /* nothing waits outside of the gate */
    UNREFERENCED_PARAMETER(File);
}

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    PORACLE o = (PORACLE)Dev;
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(List);
    o->Ending = 0;
    KeClearEvent(&o->Wake);
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, SYNCHRONIZE, &attributes, NULL, NULL, OracleThread, o);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, (PVOID *)&o->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        InterlockedExchange(&o->Ending, 1);
        KeSetEvent(&o->Wake, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
        o->Thread = NULL;
    }
    ZwClose(handle);
    return status;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    PORACLE o = (PORACLE)Dev;

    InterlockedExchange(&o->Ending, 1);
    KeSetEvent(&o->Wake, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(o->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(o->Thread);
    o->Thread = NULL;
}

static VOID BqPowerDown(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }
static VOID BqPowerUp(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }
static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    PORACLE o = (PORACLE)Dev;

    KeInitializeSpinLock(&o->Lock);
    InitializeListHead(&o->Questions);
    KeInitializeEvent(&o->Wake, SynchronizationEvent, FALSE);
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(ORACLE), 0, &OracleInterface);
    return STATUS_SUCCESS;
}
