/*
 * plxskein: a yarn meter on the local bus of a PLX PCI 9052. The board counts; the driver looks at its counter every 20 ms
 * and tells the programs that wait how far the yarn has run since the last answer, each handle by itself.
 *
 * The bug: what a handle has (its last count) is freed at IRP_MJ_CLEANUP, when the DPC may have taken a request of
 * that handle out of the queue already and still looks its last count up.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: use-after-free, write-after-free, wild-read, wild-write, bad-pointer
 * Needs: ioctl, cancel, schedule
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_SKEIN_NEXT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8b0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SKEIN_ZERO    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8b1, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define COUNTER     0x0
#define LOOK_MS     20

typedef struct TELLER {
    ULONG last;
    ULONG given;
} TELLER;

typedef struct SKEIN_NEXT {
    ULONG count;
    ULONG run;          /* since the last answer to this handle */
    ULONG given;
} SKEIN_NEXT;

typedef struct SKEIN {
    FR_DEV fr;
    FR_WIN board;
    KTIMER timer;
    KDPC dpc;
    FR_QUEUE waiting;
    KSPIN_LOCK lock;
    ULONG count;
} SKEIN;

static VOID NTAPI Look(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    SKEIN *s = context;
    LIST_ENTRY due;
    ULONG count;
    PIRP irp;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);

    /* Who asks from now on is answered the next time. */
    InitializeListHead(&due);
    while ((irp = FrTake(&s->waiting, NULL)) != NULL)
        InsertTailList(&due, &irp->Tail.Overlay.ListEntry);

    KeAcquireSpinLockAtDpcLevel(&s->lock);
    count = s->count = FrRd(&s->board, COUNTER);
    KeReleaseSpinLockFromDpcLevel(&s->lock);

    while (!IsListEmpty(&due)) {
        SKEIN_NEXT *next;
        TELLER *teller;
        irp = CONTAINING_RECORD(RemoveHeadList(&due), IRP, Tail.Overlay.ListEntry);
        next = irp->AssociatedIrp.SystemBuffer;
        teller = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;
        KeAcquireSpinLockAtDpcLevel(&s->lock);
        next->count = count;
        next->run = count - teller->last;
        next->given = ++teller->given;
        teller->last = count;
        KeReleaseSpinLockFromDpcLevel(&s->lock);
        FrFinish(&s->fr, irp, STATUS_SUCCESS, sizeof *next);
    }
}

static NTSTATUS Make(FR_DEV *dev)
{
    SKEIN *s = (SKEIN *)dev;
    KeInitializeSpinLock(&s->lock);
    KeInitializeTimer(&s->timer);
    KeInitializeDpc(&s->dpc, Look, s);
    FrQueue(&s->waiting, dev);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    return FrMap(&((SKEIN *)dev)->board, list, 2, COUNTER + 4);
}

static void Release(FR_DEV *dev)
{
    FrUnmap(&((SKEIN *)dev)->board);
}

static void Run(FR_DEV *dev)
{
    SKEIN *s = (SKEIN *)dev;
    KeSetTimerEx(&s->timer, FrMs(LOOK_MS), LOOK_MS, &s->dpc);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    SKEIN *s = (SKEIN *)dev;
    UNREFERENCED_PARAMETER(present);
    KeCancelTimer(&s->timer);
    KeFlushQueuedDpcs();
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    FrSweep(&((SKEIN *)dev)->waiting, NULL, status);
}

static NTSTATUS Open(FR_DEV *dev, PFILE_OBJECT file)
{
    SKEIN *s = (SKEIN *)dev;
    TELLER *teller = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *teller, FR_TAG);
    KIRQL irql;
    if (!teller)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&s->lock, &irql);
    teller->last = s->count;
    teller->given = 0;
    KeReleaseSpinLock(&s->lock, irql);
    file->FsContext = teller;
    return STATUS_SUCCESS;
}

static void Forget(PFILE_OBJECT file)
{
    PVOID teller = file->FsContext;
    file->FsContext = NULL;
    ExFreePoolWithTag(teller, FR_TAG);
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    FrSweep(&((SKEIN *)dev)->waiting, file, STATUS_CANCELLED);
#ifndef FIXED
    Forget(file);
#endif
}

static void Close(FR_DEV *dev, PFILE_OBJECT file)
{
    UNREFERENCED_PARAMETER(dev);
#ifdef FIXED
    Forget(file);       /* all requests of the handle are completed by now */
#else
    UNREFERENCED_PARAMETER(file);
#endif
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    SKEIN *s = (SKEIN *)dev;
    TELLER *teller = at->FileObject->FsContext;
    KIRQL irql;
    UNREFERENCED_PARAMETER(info);
    if (at->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SKEIN_NEXT:
        if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SKEIN_NEXT))
            return STATUS_BUFFER_TOO_SMALL;
        FrPut(&s->waiting, irp);
        return STATUS_PENDING;
    case IOCTL_SKEIN_ZERO:
        KeAcquireSpinLock(&s->lock, &irql);
        teller->last = s->count;
        KeReleaseSpinLock(&s->lock, irql);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x0b } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(SKEIN), .flags = DO_BUFFERED_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .flush = Flush,
    .open = Open, .cleanup = Cleanup, .close = Close, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
