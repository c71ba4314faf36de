/*
 * SUBLET: sums up a block of bytes in parts (root device). IOCTL_SUM takes the number of parts, one to eight, and the bytes; every part
 * is summed by a work item of its own, and the last one to end completes the request with a sum for each part. IOCTL_TOTALS tells how
 * many requests and parts were done.
 *
 * The bug: when a part's work item cannot be had, only this part is taken off the count, not those after it as well; unless it was the
 * last part, the request is never completed.
 *
 * Device: ROOT\SUBLET
 * Rule: irp-never-completed, pool-leak
 * Needs: failure
 */
#include "../include/quay_pnp.h"

#define PARTS_MOST  8

#define IOCTL_SUM       AI_CTL(0, METHOD_BUFFERED)      /* in: ULONG parts, bytes; out: ULONG[parts] */
#define IOCTL_TOTALS    AI_CTL(1, METHOD_BUFFERED)      /* out: ULONG requests, ULONG parts */

static const GUID SubletGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x04 } };

typedef struct _HOUSE {
    AI_FDO F;
    volatile LONG Requests;
    volatile LONG Parts;
} HOUSE;

typedef struct _JOB JOB;

typedef struct _PART {
    JOB *Job;
    PIO_WORKITEM Item;
    PUCHAR Bytes;
    ULONG Length;
    ULONG Sum;
} PART;

struct _JOB {
    HOUSE *House;
    PIRP Irp;
    volatile LONG Left;             /* parts not done; what takes it to zero ends the job */
    volatile LONG Status;
    ULONG Parts;
    PART Part[PARTS_MOST];
};

/* takes n parts off the count */
static VOID Off(JOB *j, LONG n)
{
    HOUSE *h = j->House;
    PIRP irp = j->Irp;
    PULONG out = AiBuffer(irp);
    NTSTATUS s;
    ULONG i, parts;

    if (InterlockedExchangeAdd(&j->Left, -n) != n)
        return;
    s = j->Status;
    parts = j->Parts;
    if (NT_SUCCESS(s))
        for (i = 0; i < parts; i++)
            out[i] = j->Part[i].Sum;
    ExFreePoolWithTag(j, AI_TAG);
    InterlockedIncrement(&h->Requests);
    AiFinish(&h->F, irp, s, NT_SUCCESS(s) ? parts * sizeof(ULONG) : 0);
}

static VOID NTAPI PartWork(PDEVICE_OBJECT dev, PVOID context)
{
    PART *p = context;
    PIO_WORKITEM item = p->Item;
    ULONG i, sum = 0;

    UNREFERENCED_PARAMETER(dev);
    for (i = 0; i < p->Length; i++)
        sum = ((sum << 5) | (sum >> 27)) + p->Bytes[i];
    p->Sum = sum;
    InterlockedIncrement(&p->Job->House->Parts);
    IoFreeWorkItem(item);
    Off(p->Job, 1);
}

/* the request has passed the gate; it is left pending unless the job cannot be made */
static NTSTATUS Sum(HOUSE *h, PIRP irp)
{
    PUCHAR bytes = (PUCHAR)AiBuffer(irp) + sizeof(ULONG);
    ULONG length, parts, each, i;
    JOB *j;

    if (AiInLen(irp) <= sizeof(ULONG))
        return AiExit(&h->F, irp, STATUS_INVALID_PARAMETER, 0);
    parts = *(PULONG)AiBuffer(irp);
    length = AiInLen(irp) - sizeof(ULONG);
    if (parts == 0 || parts > PARTS_MOST || length < parts)
        return AiExit(&h->F, irp, STATUS_INVALID_PARAMETER, 0);
    if (AiOutLen(irp) < parts * sizeof(ULONG))
        return AiExit(&h->F, irp, STATUS_BUFFER_TOO_SMALL, 0);

    j = ExAllocatePoolWithTag(NonPagedPool, sizeof *j, AI_TAG);
    if (!j)
        return AiExit(&h->F, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(j, sizeof *j);
    j->House = h;
    j->Irp = irp;
    j->Left = (LONG)parts;
    j->Parts = parts;
    each = length / parts;
    for (i = 0; i < parts; i++) {
        j->Part[i].Job = j;
        j->Part[i].Bytes = bytes + i * each;
        j->Part[i].Length = i == parts - 1 ? length - i * each : each;
    }

    IoMarkIrpPending(irp);
    for (i = 0; i < parts; i++) {
        j->Part[i].Item = IoAllocateWorkItem(h->F.Self);
        if (!j->Part[i].Item) {
            j->Status = STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
            Off(j, (LONG)(parts - i));
#else
            Off(j, 1);
#endif
            break;
        }
        IoQueueWorkItem(j->Part[i].Item, PartWork, DelayedWorkQueue, &j->Part[i]);
    }
    AiLeaveGate(&h->F);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    HOUSE *h = dev->DeviceExtension;
    NTSTATUS s = AiEnter(&h->F, irp);
    PULONG v;

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_SUM:
        return Sum(h, irp);

    case IOCTL_TOTALS:
        if (AiOutLen(irp) < 2 * sizeof(ULONG))
            return AiExit(&h->F, irp, STATUS_BUFFER_TOO_SMALL, 0);
        v = AiBuffer(irp);
        v[0] = (ULONG)h->Requests;
        v[1] = (ULONG)h->Parts;
        return AiExit(&h->F, irp, STATUS_SUCCESS, 2 * sizeof(ULONG));

    default:
        return AiExit(&h->F, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* the parts end by themselves; removal waits for them on the remove lock */
static const AI_OPS Ops = { 0 };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(HOUSE), &Ops, &SubletGuid, 0, &p);

    if (NT_SUCCESS(s))
        AiReady(p);
    return s;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    AiEntry(drv, AddDevice, Control);
    return STATUS_SUCCESS;
}
