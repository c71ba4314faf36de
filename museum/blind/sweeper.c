/*
 * sweeper: a cache of named values for programs; a sweep, run by a timer by way of a work item, throws out what no program has asked for
 * during the last sweeps.
 *
 * The bug: when the device is stopped or removed the timer is cancelled and the sweep that is still running is awaited, but that sweep
 * sets the timer again at its end: it goes off in the freed device extension.
 *
 * Device: ROOT\SWEEPER
 * Rule: freed-active-timer, use-after-free
 * Needs: removal, schedule
 */
#define CK_HAS_UNDO
#include "../include/kept_in_order.h"

#define SW_TAG    'pwSS'
#define SW_NAME   16u
#define SW_VALUE  240u
#define SW_MOST   256u
#define SW_EVERY  250u                      /* milliseconds between sweeps */
#define SW_SWEEPS 20u                       /* an entry that has not been asked for during so many sweeps goes */

#define IOCTL_SW_PUT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x980, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SW_GET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x981, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SW_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x982, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID SwGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x03 } };

typedef struct _SW_ITEM {
    UCHAR Name[SW_NAME];
    UCHAR Value[SW_VALUE];
} SW_ITEM, *PSW_ITEM;

typedef struct _SW_COUNTS {
    ULONG Entries, Swept, Sweeps;
} SW_COUNTS, *PSW_COUNTS;

typedef struct _SW_ENTRY {
    LIST_ENTRY Link;
    ULONG Age;
    SW_ITEM Item;
} SW_ENTRY, *PSW_ENTRY;

typedef struct _SW_EXT {
    CK K;
    PIO_WORKITEM Sweep;
    KTIMER Timer;
    KDPC Dpc;
    KEVENT Still;                           /* no sweep is queued or running */
    KSPIN_LOCK Lock;                        /* all below */
    BOOLEAN On, Sweeping;
    LIST_ENTRY Entries;
    SW_COUNTS C;
} SW_EXT, *PSW_EXT;

static VOID SwSetTimer(PSW_EXT x)
{
    LARGE_INTEGER due;

    due.QuadPart = -(LONGLONG)SW_EVERY * 10000;
    KeSetTimer(&x->Timer, due, &x->Dpc);
}

/* At PASSIVE_LEVEL; the work item keeps the device object. */
static VOID NTAPI SwSweep(PDEVICE_OBJECT dev, PVOID context)
{
    PSW_EXT x = context;
    LIST_ENTRY out, *e, *next;
    PSW_ENTRY entry;
    KIRQL irql;

    UNREFERENCED_PARAMETER(dev);
    InitializeListHead(&out);
    KeAcquireSpinLock(&x->Lock, &irql);
    for (e = x->Entries.Flink; e != &x->Entries; e = next) {
        next = e->Flink;
        entry = CONTAINING_RECORD(e, SW_ENTRY, Link);
        if (++entry->Age > SW_SWEEPS) {
            RemoveEntryList(e);
            InsertTailList(&out, e);
            x->C.Entries--;
            x->C.Swept++;
        }
    }
    x->C.Sweeps++;
    KeReleaseSpinLock(&x->Lock, irql);

    while (!IsListEmpty(&out))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&out), SW_ENTRY, Link), SW_TAG);

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Sweeping = FALSE;
#ifdef FIXED
    if (x->On)
#endif
        SwSetTimer(x);
    KeSetEvent(&x->Still, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->Lock, irql);
}

static VOID NTAPI SwDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PSW_EXT x = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->On && !x->Sweeping) {
        x->Sweeping = TRUE;
        KeClearEvent(&x->Still);
        IoQueueWorkItem(x->Sweep, SwSweep, DelayedWorkQueue, x);
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PSW_EXT x = (PSW_EXT)k;
    KIRQL irql;

    UNREFERENCED_PARAMETER(r);
    KeAcquireSpinLock(&x->Lock, &irql);
    x->On = TRUE;
    SwSetTimer(x);
    KeReleaseSpinLock(&x->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    PSW_EXT x = (PSW_EXT)k;
    KIRQL irql;

    UNREFERENCED_PARAMETER(touch);
    KeAcquireSpinLock(&x->Lock, &irql);
    x->On = FALSE;
    KeReleaseSpinLock(&x->Lock, irql);
    KeCancelTimer(&x->Timer);
    KeFlushQueuedDpcs();
    KeWaitForSingleObject(&x->Still, Executive, KernelMode, FALSE, NULL);
}

static VOID HwUndo(PCK k)
{
    PSW_EXT x = (PSW_EXT)k;

    while (!IsListEmpty(&x->Entries))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&x->Entries), SW_ENTRY, Link), SW_TAG);
    IoFreeWorkItem(x->Sweep);
}

/* The lock is held. */
static PSW_ENTRY SwFind(PSW_EXT x, const UCHAR *name)
{
    PLIST_ENTRY e;

    for (e = x->Entries.Flink; e != &x->Entries; e = e->Flink) {
        PSW_ENTRY entry = CONTAINING_RECORD(e, SW_ENTRY, Link);

        if (RtlCompareMemory(entry->Item.Name, name, SW_NAME) == SW_NAME)
            return entry;
    }
    return NULL;
}

static NTSTATUS SwPut(PSW_EXT x, PSW_ITEM item)
{
    PSW_ENTRY fresh, entry;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    fresh = ExAllocatePoolWithTag(NonPagedPool, sizeof *fresh, SW_TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    fresh->Age = 0;
    fresh->Item = *item;
    KeAcquireSpinLock(&x->Lock, &irql);
    entry = SwFind(x, item->Name);
    if (entry != NULL) {
        entry->Item = *item;
        entry->Age = 0;
    } else if (x->C.Entries == SW_MOST) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        InsertTailList(&x->Entries, &fresh->Link);
        x->C.Entries++;
        fresh = NULL;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    if (fresh != NULL)
        ExFreePoolWithTag(fresh, SW_TAG);
    return status;
}

static NTSTATUS SwGet(PSW_EXT x, PSW_ITEM item)
{
    PSW_ENTRY entry;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    entry = SwFind(x, item->Name);
    if (entry != NULL) {
        entry->Age = 0;
        *item = entry->Item;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    return entry != NULL ? STATUS_SUCCESS : STATUS_NOT_FOUND;
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    PSW_EXT x = (PSW_EXT)k;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    KIRQL irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SW_PUT:
        return in < sizeof(SW_ITEM) ? STATUS_BUFFER_TOO_SMALL : SwPut(x, buffer);
    case IOCTL_SW_GET:
        if (in < SW_NAME || out < sizeof(SW_ITEM))
            return STATUS_BUFFER_TOO_SMALL;
        status = SwGet(x, buffer);
        *info = NT_SUCCESS(status) ? sizeof(SW_ITEM) : 0;
        return status;
    case IOCTL_SW_COUNTS:
        if (out < sizeof(SW_COUNTS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&x->Lock, &irql);
        *(PSW_COUNTS)buffer = x->C;
        KeReleaseSpinLock(&x->Lock, irql);
        *info = sizeof(SW_COUNTS);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(irp);
    UNREFERENCED_PARAMETER(info);
    return STATUS_INVALID_DEVICE_REQUEST;   /* nothing goes to the queue */
}

static NTSTATUS SwInit(PCK k)
{
    PSW_EXT x = (PSW_EXT)k;

    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Entries);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->Dpc, SwDpc, x);
    KeInitializeEvent(&x->Still, NotificationEvent, TRUE);
    x->Sweep = IoAllocateWorkItem(k->Fdo);
    return x->Sweep != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS NTAPI SwAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(SW_EXT), &SwGuid, DO_BUFFERED_IO, SwInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, SwAdd);
    return STATUS_SUCCESS;
}
