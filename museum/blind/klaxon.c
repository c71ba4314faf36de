/*
 * klaxon: lets programs wait for alarms. IOCTL_KLAXON_WAIT waits for any of the alarms in its mask; IOCTL_KLAXON_RAISE completes all waiting requests that
 * have one of the raised alarms in theirs.
 *
 * The bug: RAISE walks the list of waiting requests, lets the lock go to complete one, takes it again and goes on with the next entry it had noted before. In
 * between that one can have been cancelled, completed and freed; the walk goes on through freed memory.
 *
 * Device: ROOT\KLAXON
 * Rule: use-after-free
 * Needs: schedule
 */
#include "../include/ticking_card.h"

#define IOCTL_KLAXON_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_KLAXON_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_KLAXON_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x972, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID KLAXON_GUID = {0x5d0b6c12, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x02}};

typedef struct _KLAXON {
    ZDEV Dev;
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiting;
    ULONG Count;
} KLAXON, *PKLAXON;

/* A waiting request's mask. */
#define MASK(Irp) ((ULONG)(ULONG_PTR)(Irp)->Tail.Overlay.DriverContext[0])

static PIRP IrpOf(PLIST_ENTRY e)
{
    return CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
}

static VOID Done(PKLAXON x, PIRP Irp, NTSTATUS Status, ULONG Alarms)
{
    if (NT_SUCCESS(Status)) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Alarms;
        ZComplete(Irp, Status, sizeof(ULONG));
    } else {
        ZComplete(Irp, Status, 0);
    }
    IoReleaseRemoveLock(&x->Dev.Lock, Irp);
}

static VOID NTAPI KlaxonCancel(PDEVICE_OBJECT Self, PIRP Irp)
{
    PKLAXON x = CONTAINING_RECORD((PZDEV)Self->DeviceExtension, KLAXON, Dev);
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    x->Count--;
    KeReleaseSpinLock(&x->Lock, Irql);
    Done(x, Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Wait(PKLAXON x, PIRP Irp, ULONG Mask)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Dev.Dead) {
        KeReleaseSpinLock(&x->Lock, Irql);
        return ZRefusal(&x->Dev);
    }
    IoMarkIrpPending(Irp);
    Irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)Mask;
    InsertTailList(&x->Waiting, &Irp->Tail.Overlay.ListEntry);
    x->Count++;
    IoSetCancelRoutine(Irp, KlaxonCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        /* cancelled before, and no one calls the routine any more */
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        x->Count--;
        KeReleaseSpinLock(&x->Lock, Irql);
        Done(x, Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    return STATUS_PENDING;
}

static ULONG Raise(PKLAXON x, ULONG Alarms)
{
    PLIST_ENTRY e, Next;
    ULONG n = 0;
    KIRQL Irql;
#ifdef FIXED
    LIST_ENTRY Ready;

    InitializeListHead(&Ready);
#endif
    KeAcquireSpinLock(&x->Lock, &Irql);
    for (e = x->Waiting.Flink; e != &x->Waiting; e = Next) {
        PIRP Irp = IrpOf(e);

        Next = e->Flink;
        if (!(MASK(Irp) & Alarms) || !IoSetCancelRoutine(Irp, NULL))
            continue;
        RemoveEntryList(e);
        x->Count--;
        n++;
#ifdef FIXED
        InsertTailList(&Ready, e);
#else
        KeReleaseSpinLock(&x->Lock, Irql);
        Done(x, Irp, STATUS_SUCCESS, MASK(Irp) & Alarms);
        KeAcquireSpinLock(&x->Lock, &Irql);
#endif
    }
    KeReleaseSpinLock(&x->Lock, Irql);
#ifdef FIXED
    while (!IsListEmpty(&Ready)) {
        PIRP Irp = IrpOf(RemoveHeadList(&Ready));

        Done(x, Irp, STATUS_SUCCESS, MASK(Irp) & Alarms);
    }
#endif
    return n;
}

/* Ends the waiting requests of a file, or all. One at a time, from the beginning: the list may have changed. */
static VOID EndWaiting(PKLAXON x, PFILE_OBJECT File, NTSTATUS Status)
{
    PLIST_ENTRY e;
    PIRP Found;
    KIRQL Irql;

    do {
        Found = NULL;
        KeAcquireSpinLock(&x->Lock, &Irql);
        for (e = x->Waiting.Flink; e != &x->Waiting; e = e->Flink) {
            PIRP Irp = IrpOf(e);

            if ((!File || IoGetCurrentIrpStackLocation(Irp)->FileObject == File) && IoSetCancelRoutine(Irp, NULL)) {
                RemoveEntryList(e);
                x->Count--;
                Found = Irp;
                break;
            }
        }
        KeReleaseSpinLock(&x->Lock, Irql);
        if (Found)
            Done(x, Found, Status, 0);
    } while (Found);
}

static NTSTATUS KlaxonRequest(PZDEV d, PIRP Irp)
{
    PKLAXON x = CONTAINING_RECORD(d, KLAXON, Dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG InLength, OutLength;

    if (sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    InLength = sl->Parameters.DeviceIoControl.InputBufferLength;
    OutLength = sl->Parameters.DeviceIoControl.OutputBufferLength;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KLAXON_WAIT:
        if (InLength < sizeof(ULONG) || OutLength < sizeof(ULONG) || !*Buffer)
            return STATUS_INVALID_PARAMETER;
        return Wait(x, Irp, *Buffer);
    case IOCTL_KLAXON_RAISE:
        if (InLength < sizeof(ULONG) || OutLength < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        *Buffer = Raise(x, *Buffer);
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    case IOCTL_KLAXON_COUNT:
        if (OutLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *Buffer = *(volatile ULONG *)&x->Count;
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID KlaxonKill(PZDEV d)
{
    EndWaiting(CONTAINING_RECORD(d, KLAXON, Dev), NULL, ZRefusal(d));
}

static VOID KlaxonCleanup(PZDEV d, PFILE_OBJECT File)
{
    EndWaiting(CONTAINING_RECORD(d, KLAXON, Dev), File, STATUS_CANCELLED);
}

static NTSTATUS KlaxonAdd(PZDEV d)
{
    PKLAXON x = CONTAINING_RECORD(d, KLAXON, Dev);

    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Waiting);
    return STATUS_SUCCESS;
}

static const ZOPS KlaxonOps = {
    .Interface = &KLAXON_GUID,
    .ExtensionSize = sizeof(KLAXON),
    .Flags = DO_BUFFERED_IO,
    .Add = KlaxonAdd,
    .Kill = KlaxonKill,
    .Cleanup = KlaxonCleanup,
    .Request = KlaxonRequest,
};

static NTSTATUS NTAPI KlaxonAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &KlaxonOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, KlaxonAddDevice);
}
