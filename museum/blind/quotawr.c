/*
 * quotawr: a brake for chatty programs: writes are taken at 4096 bytes per 50 milliseconds; what is beyond that waits, in its order, for
 * one of the next ticks.
 *
 * The bug: a write that has to wait is put in the list without being marked pending, though STATUS_PENDING is returned: its completion
 * does not reach the program, which waits for ever (and the verifier stops the machine).
 *
 * Device: ROOT\QUOTAWR
 * Rule: pending-not-marked
 * Needs: ioctl
 */
#define CK_HAS_FLUSH
#include "../include/kept_in_order.h"

#define QW_QUOTA 4096u                      /* bytes per tick, and the longest write */
#define QW_TICK  50                         /* milliseconds */

#define IOCTL_QW_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x990, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QW_RESET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x991, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID QwGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x04 } };

typedef struct _QW_COUNTS {
    ULONG64 Bytes;
    ULONG AtOnce, Waited;                   /* writes */
    ULONG Sum;                              /* of all bytes that were taken */
    ULONG Left;                             /* of this tick's quota */
} QW_COUNTS, *PQW_COUNTS;

typedef struct _QW_EXT {
    CK K;
    KTIMER Timer;
    KDPC Dpc;
    CKQ Waiting;                            /* its lock guards the rest, too */
    ULONG Left;
    QW_COUNTS C;
} QW_EXT, *PQW_EXT;

static ULONG QwSum(PIRP irp, ULONG length)
{
    const UCHAR *data = irp->AssociatedIrp.SystemBuffer;
    ULONG sum = 0;

    while (length-- != 0)
        sum += *data++;
    return sum;
}

/* The lock is held. */
static VOID QwTaken(PQW_EXT x, ULONG length, ULONG sum)
{
    x->Left -= length;
    x->C.Bytes += length;
    x->C.Sum += sum;
}

static NTSTATUS NTAPI QwWrite(PDEVICE_OBJECT dev, PIRP irp)
{
    PQW_EXT x = dev->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length, sum;
    NTSTATUS status, refused = STATUS_SUCCESS;
    KIRQL irql;

    status = IoAcquireRemoveLock(&x->K.Rl, irp);
    if (!NT_SUCCESS(status))
        return CkComplete(irp, status, 0);
    if (length == 0 || length > QW_QUOTA) {
        status = length == 0 ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
        CkComplete(irp, status, 0);
        IoReleaseRemoveLock(&x->K.Rl, irp);
        return status;
    }
    sum = QwSum(irp, length);

    KeAcquireSpinLock(&x->Waiting.Lock, &irql);
    if (x->Waiting.Closed != STATUS_SUCCESS) {
        status = x->Waiting.Closed;
    } else if (IsListEmpty(&x->Waiting.List) && length <= x->Left) {
        QwTaken(x, length, sum);
        x->C.AtOnce++;
        status = STATUS_SUCCESS;
    } else {
#ifdef FIXED
        IoMarkIrpPending(irp);
#endif
        status = STATUS_PENDING;
        refused = CkqPutLocked(&x->Waiting, irp);
    }
    KeReleaseSpinLock(&x->Waiting.Lock, irql);

    if (status == STATUS_PENDING) {
        if (refused != STATUS_PENDING) {    /* it has been cancelled already */
            CkComplete(irp, refused, 0);
            IoReleaseRemoveLock(&x->K.Rl, irp);
        }
        return STATUS_PENDING;
    }
    CkComplete(irp, status, NT_SUCCESS(status) ? length : 0);
    IoReleaseRemoveLock(&x->K.Rl, irp);
    return status;
}

/* A new tick: as many of the waiting writes as its quota takes. */
static VOID NTAPI QwDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PQW_EXT x = context;
    LIST_ENTRY out, *e, *next;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    InitializeListHead(&out);
    KeAcquireSpinLockAtDpcLevel(&x->Waiting.Lock);
    x->Left = QW_QUOTA;
    for (e = x->Waiting.List.Flink; e != &x->Waiting.List; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;

        next = e->Flink;
        if (length > x->Left)
            break;                          /* none overtakes */
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;
        RemoveEntryList(e);
        InsertTailList(&out, e);
        QwTaken(x, length, QwSum(irp, length));
        x->C.Waited++;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Waiting.Lock);

    while (!IsListEmpty(&out)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&out), IRP, Tail.Overlay.ListEntry);

        CkComplete(irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length);
        IoReleaseRemoveLock(&x->K.Rl, irp);
    }
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PQW_EXT x = (PQW_EXT)k;
    LARGE_INTEGER due;

    UNREFERENCED_PARAMETER(r);
    due.QuadPart = -(LONGLONG)QW_TICK * 10000;
    KeSetTimerEx(&x->Timer, due, QW_TICK, &x->Dpc);
    return STATUS_SUCCESS;
}

/* What waits goes on waiting for a new start. */
static VOID HwStop(PCK k, BOOLEAN touch)
{
    PQW_EXT x = (PQW_EXT)k;

    UNREFERENCED_PARAMETER(touch);
    KeCancelTimer(&x->Timer);
    KeFlushQueuedDpcs();
}

static VOID HwFlush(PCK k, PFILE_OBJECT file, NTSTATUS status, BOOLEAN close)
{
    PQW_EXT x = (PQW_EXT)k;

    if (close)
        CkqClose(&x->Waiting, status);
    else
        CkqFlush(&x->Waiting, file, status);
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    PQW_EXT x = (PQW_EXT)k;
    PQW_COUNTS out = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QW_COUNTS:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *out)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&x->Waiting.Lock, &irql);
        *out = x->C;
        out->Left = x->Left;
        KeReleaseSpinLock(&x->Waiting.Lock, irql);
        *info = sizeof *out;
        return STATUS_SUCCESS;
    case IOCTL_QW_RESET:
        KeAcquireSpinLock(&x->Waiting.Lock, &irql);
        RtlZeroMemory(&x->C, sizeof x->C);
        KeReleaseSpinLock(&x->Waiting.Lock, irql);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(irp);
    UNREFERENCED_PARAMETER(info);
    return STATUS_INVALID_DEVICE_REQUEST;   /* nothing goes to the frame's queue */
}

static NTSTATUS QwInit(PCK k)
{
    PQW_EXT x = (PQW_EXT)k;

    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->Dpc, QwDpc, x);
    CkqInit(&x->Waiting, &k->Rl);
    x->Left = QW_QUOTA;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI QwAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(QW_EXT), &QwGuid, DO_BUFFERED_IO, QwInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, QwAdd);
    drv->MajorFunction[IRP_MJ_WRITE] = QwWrite;
    return STATUS_SUCCESS;
}
