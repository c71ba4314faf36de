/*
 * overdue: wakes programs. A request names a time in milliseconds and stays pending until it is over; each request has a timer of its own.
 *
 * The bug: when a request is cancelled, its timer is cancelled too, but the answer of KeCancelTimer is not looked at. If the timer has just expired, its DPC
 * still runs (or is about to) with the block of the request, which is freed here already.
 *
 * Device: ROOT\OVERDUE
 * Rule: use-after-free, freed-queued-dpc
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define OVD_TAG 'dvO '
#define OVD_LONGEST 3600000 /* ms */
#define OVD_MOST 1000       /* requests at a time */

#define IOCTL_OVERDUE_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_OVERDUE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID OvdInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x03}};

typedef struct _OVD_STATE {
    ULONG Waiting;
    ULONG Woken;
} OVD_STATE, *POVD_STATE;

typedef struct _OVD_EXT {
    YK Yk;
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    volatile BOOLEAN Shut;
    volatile LONG Blocks;
    volatile LONG Woken;
} OVD_EXT, *POVD_EXT;

/* Of a request. Two hold it: the timer until its DPC is through or is sure not to come, and the request as long as it is in the queue. */
typedef struct _OVD_BLOCK {
    volatile LONG Refs;
    POVD_EXT Owner;
    LARGE_INTEGER Due;
    KTIMER Timer;
    KDPC Dpc;
    IO_CSQ_IRP_CONTEXT Context;
} OVD_BLOCK, *POVD_BLOCK;

#define OVD_BLOCK_OF(i) ((POVD_BLOCK)(i)->Tail.Overlay.DriverContext[0])

DRIVER_INITIALIZE DriverEntry;

static VOID OvdLeave(POVD_BLOCK b)
{
    POVD_EXT x = b->Owner;

    if (InterlockedDecrement(&b->Refs) == 0) {
        ExFreePoolWithTag(b, OVD_TAG);
        InterlockedDecrement(&x->Blocks);
        IoReleaseRemoveLock(&x->Yk.RemoveLock, b);
    }
}

/* A request that was taken out of the queue before its time is ended. */
static VOID OvdEndEarly(POVD_EXT x, PIRP Irp, NTSTATUS Status)
{
    POVD_BLOCK b = OVD_BLOCK_OF(Irp);

#ifdef FIXED
    if (KeCancelTimer(&b->Timer))
        OvdLeave(b); /* for the DPC, which does not come */
#else
    KeCancelTimer(&b->Timer);
    OvdLeave(b);
#endif
    OvdLeave(b);
    YkFinish(&x->Yk, Irp, Status, 0);
}

static VOID NTAPI OvdExpired(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    POVD_BLOCK b = Context;
    POVD_EXT x = b->Owner;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Irp = IoCsqRemoveIrp(&x->Csq, &b->Context);
    if (Irp != NULL) {
        InterlockedIncrement(&x->Woken);
        YkFinish(&x->Yk, Irp, STATUS_SUCCESS, 0);
        OvdLeave(b);
    }
    OvdLeave(b);
}

/* The timer is set under the lock of the queue, so that a request in the queue always has a timer that was set. */
static VOID NTAPI OvdInsert(PIO_CSQ Csq, PIRP Irp)
{
    POVD_EXT x = CONTAINING_RECORD(Csq, OVD_EXT, Csq);
    POVD_BLOCK b = OVD_BLOCK_OF(Irp);

    InsertTailList(&x->List, &Irp->Tail.Overlay.ListEntry);
    KeSetTimer(&b->Timer, b->Due, &b->Dpc);
}

static VOID NTAPI OvdRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI OvdPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    POVD_EXT x = CONTAINING_RECORD(Csq, OVD_EXT, Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : x->List.Flink;

    for (; e != &x->List; e = e->Flink) {
        PIRP i = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (File == NULL || (PVOID)IoGetCurrentIrpStackLocation(i)->FileObject == File)
            return i;
    }
    return NULL;
}

static VOID NTAPI OvdAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, OVD_EXT, Csq)->Lock, Irql);
}

static VOID NTAPI OvdRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, OVD_EXT, Csq)->Lock, Irql);
}

static VOID NTAPI OvdCancelled(PIO_CSQ Csq, PIRP Irp)
{
    OvdEndEarly(CONTAINING_RECORD(Csq, OVD_EXT, Csq), Irp, STATUS_CANCELLED);
}

static VOID OvdDrain(POVD_EXT x, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL)
        OvdEndEarly(x, Irp, Status);
}

static NTSTATUS OvdWait(POVD_EXT x, PIRP Irp, PIO_STACK_LOCATION s)
{
    NTSTATUS Status;
    POVD_BLOCK b;
    ULONG Time;

    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
        return YkFinish(&x->Yk, Irp, STATUS_INVALID_PARAMETER, 0);
    Time = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (Time == 0 || Time > OVD_LONGEST)
        return YkFinish(&x->Yk, Irp, STATUS_INVALID_PARAMETER, 0);
    if (InterlockedIncrement(&x->Blocks) > OVD_MOST) {
        InterlockedDecrement(&x->Blocks);
        return YkFinish(&x->Yk, Irp, STATUS_QUOTA_EXCEEDED, 0);
    }
    b = ExAllocatePoolWithTag(NonPagedPool, sizeof(*b), OVD_TAG);
    if (b == NULL) {
        InterlockedDecrement(&x->Blocks);
        return YkFinish(&x->Yk, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Status = IoAcquireRemoveLock(&x->Yk.RemoveLock, b); /* for the block: its DPC may come after the end of the request */
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(b, OVD_TAG);
        InterlockedDecrement(&x->Blocks);
        return YkFinish(&x->Yk, Irp, Status, 0);
    }
    RtlZeroMemory(b, sizeof(*b));
    b->Refs = 2;
    b->Owner = x;
    b->Due.QuadPart = -(LONGLONG)Time * 10000;
    KeInitializeTimer(&b->Timer);
    KeInitializeDpc(&b->Dpc, OvdExpired, b);
    Irp->Tail.Overlay.DriverContext[0] = b;
    IoCsqInsertIrp(&x->Csq, Irp, &b->Context);
    if (x->Shut)
        OvdDrain(x, NULL, STATUS_DELETE_PENDING);
    return STATUS_PENDING;
}

static NTSTATUS OvdRequest(PYK d, PIRP Irp)
{
    POVD_EXT x = CONTAINING_RECORD(d, OVD_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    POVD_STATE State;

    if (s->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (s->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_OVERDUE_WAIT:
            return OvdWait(x, Irp, s);
        case IOCTL_OVERDUE_STATE:
            if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*State))
                return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
            State = Irp->AssociatedIrp.SystemBuffer;
            State->Waiting = (ULONG)x->Blocks;
            State->Woken = (ULONG)x->Woken;
            return YkFinish(d, Irp, STATUS_SUCCESS, sizeof(*State));
        }
    }
    return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS OvdInit(PYK d)
{
    POVD_EXT x = CONTAINING_RECORD(d, OVD_EXT, Yk);

    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->List);
    return IoCsqInitialize(&x->Csq, OvdInsert, OvdRemove, OvdPeek, OvdAcquire, OvdRelease, OvdCancelled);
}

static VOID OvdCleanup(PYK d, PFILE_OBJECT File)
{
    OvdDrain(CONTAINING_RECORD(d, OVD_EXT, Yk), File, STATUS_CANCELLED);
}

static VOID OvdGone(PYK d)
{
    POVD_EXT x = CONTAINING_RECORD(d, OVD_EXT, Yk);

    x->Shut = TRUE;
    OvdDrain(x, NULL, STATUS_DELETE_PENDING);
}

static const YK_OPS OvdOps = {
    .ExtensionSize = sizeof(OVD_EXT),
    .Interface = &OvdInterface,
    .Init = OvdInit,
    .Request = OvdRequest,
    .Cleanup = OvdCleanup,
    .Gone = OvdGone,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &OvdOps);
}
