/*
 * napreq: naps for programs: NAP is completed after so many milliseconds, or at once when the same handle says WAKE. Every nap has a timer of its own
 * in a block of pool.
 *
 * The bug: WAKE (and the cancelling) frees the block of the nap without looking whether KeCancelTimer still caught the timer; if its DPC is queued or
 * running already, it works with freed memory.
 *
 * Device: ROOT\NAPREQ
 * Rule: use-after-free, freed-queued-dpc
 * Needs: schedule
 */
#include "../include/served_by_ticks.h"

#define NAP_TAG 'qpaN'
#define MAX_NAPS 256
#define MAX_MS 60000

#define IOCTL_NAP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_NAP_WAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_NAP_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID NapInterface = { 0x6d1d0a55, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x05 } };

typedef struct _DEV {
    BF B;
    IO_CSQ Csq;
    KSPIN_LOCK NapLock; /* the following */
    LIST_ENTRY Naps;
    ULONG Number;
    BOOLEAN Shut;
} DEV, *PDEV;

/* Two references: the request and the timer. The block holds the remove lock. */
typedef struct _NAP {
    volatile LONG References;
    PDEV Dev;
    IO_CSQ_IRP_CONTEXT Place;
    LARGE_INTEGER Due;
    KTIMER Timer;
    KDPC Dpc;
} NAP, *PNAP;

#define NAP_OF(irp) ((PNAP)(irp)->Tail.Overlay.DriverContext[0])

static VOID FreeNap(PNAP nap)
{
    PDEV d = nap->Dev;

    ExFreePoolWithTag(nap, NAP_TAG);
    IoReleaseRemoveLock(&d->B.Rl, nap);
}

static VOID DropNap(PNAP nap)
{
    if (InterlockedDecrement(&nap->References) == 0)
        FreeNap(nap);
}

/* Ends a nap before its time; the request has been taken out of the queue. */
static VOID EndNap(PDEV d, PIRP irp, NTSTATUS st)
{
    PNAP nap = NAP_OF(irp);

    irp->IoStatus.Information = 0;
    BfEnd(&d->B, irp, st);
#ifdef FIXED
    if (KeCancelTimer(&nap->Timer))
        DropNap(nap);
    DropNap(nap);
#else
    KeCancelTimer(&nap->Timer);
    FreeNap(nap);
#endif
}

static VOID NTAPI NapOver(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PNAP nap = context;
    PDEV d = nap->Dev;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    irp = IoCsqRemoveIrp(&d->Csq, &nap->Place);
    if (irp) {
        irp->IoStatus.Information = 0;
        BfEnd(&d->B, irp, STATUS_SUCCESS);
        DropNap(nap);
    }
    DropNap(nap);
}

/* The timer is set under the lock of the queue: its DPC finds the request in it, or it is ended. */
static NTSTATUS NTAPI NapInsert(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PDEV d = CONTAINING_RECORD(csq, DEV, Csq);
    PNAP nap = NAP_OF(irp);

    UNREFERENCED_PARAMETER(context);
    if (d->Shut)
        return STATUS_DELETE_PENDING;
    if (d->Number >= MAX_NAPS)
        return STATUS_QUOTA_EXCEEDED;
    InsertTailList(&d->Naps, &irp->Tail.Overlay.ListEntry);
    d->Number++;
    KeSetTimer(&nap->Timer, nap->Due, &nap->Dpc);
    return STATUS_SUCCESS;
}

static VOID NTAPI NapRemove(PIO_CSQ csq, PIRP irp)
{
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    CONTAINING_RECORD(csq, DEV, Csq)->Number--;
}

static PIRP NTAPI NapPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PDEV d = CONTAINING_RECORD(csq, DEV, Csq);
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : d->Naps.Flink;

    for (; e != &d->Naps; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!context || IoGetCurrentIrpStackLocation(next)->FileObject == context)
            return next;
    }
    return NULL;
}

static VOID NTAPI NapAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, DEV, Csq)->NapLock, irql);
}

static VOID NTAPI NapRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, DEV, Csq)->NapLock, irql);
}

static VOID NTAPI NapCanceled(PIO_CSQ csq, PIRP irp)
{
    EndNap(CONTAINING_RECORD(csq, DEV, Csq), irp, STATUS_CANCELLED);
}

static NTSTATUS Nap(PDEV d, PIRP irp, ULONG ms)
{
    PNAP nap;
    NTSTATUS st;

    if (ms == 0 || ms > MAX_MS)
        return STATUS_INVALID_PARAMETER;
    nap = ExAllocatePoolWithTag(NonPagedPool, sizeof(*nap), NAP_TAG);
    if (!nap)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(nap, sizeof(*nap));
    nap->References = 2;
    nap->Dev = d;
    nap->Due.QuadPart = -(LONGLONG)ms * 10000;
    KeInitializeTimer(&nap->Timer);
    KeInitializeDpc(&nap->Dpc, NapOver, nap);
    st = IoAcquireRemoveLock(&d->B.Rl, nap);
    if (!NT_SUCCESS(st)) {
        ExFreePoolWithTag(nap, NAP_TAG);
        return st;
    }
    st = IoAcquireRemoveLock(&d->B.Rl, irp);
    if (!NT_SUCCESS(st)) {
        FreeNap(nap);
        return st;
    }
    irp->Tail.Overlay.DriverContext[0] = nap;
    IoMarkIrpPending(irp);
    st = IoCsqInsertIrpEx(&d->Csq, irp, &nap->Place, NULL);
    if (!NT_SUCCESS(st)) {
        FreeNap(nap); /* its timer was never set */
        BfEnd(&d->B, irp, st);
    }
    return STATUS_PENDING;
}

static ULONG Wake(PDEV d, PFILE_OBJECT file, NTSTATUS st)
{
    ULONG number = 0;
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&d->Csq, file)) != NULL) {
        EndNap(d, irp, st);
        number++;
    }
    return number;
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PDEV d = (PDEV)b;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    KIRQL q;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_NAP:
        if (in < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return Nap(d, irp, *buffer);
    case IOCTL_NAP_WAKE:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *buffer = Wake(d, sp->FileObject, STATUS_SUCCESS);
        irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    case IOCTL_NAP_COUNT:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&d->NapLock, &q);
        *buffer = d->Number;
        KeReleaseSpinLock(&d->NapLock, q);
        irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID Cleanup(PBF b, PFILE_OBJECT file)
{
    Wake((PDEV)b, file, STATUS_CANCELLED);
}

static VOID Gone(PBF b)
{
    PDEV d = (PDEV)b;
    KIRQL q;

    KeAcquireSpinLock(&d->NapLock, &q);
    d->Shut = TRUE;
    KeReleaseSpinLock(&d->NapLock, q);
    Wake(d, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS Add(PBF b)
{
    PDEV d = (PDEV)b;

    KeInitializeSpinLock(&d->NapLock);
    InitializeListHead(&d->Naps);
    return IoCsqInitializeEx(&d->Csq, NapInsert, NapRemove, NapPeek, NapAcquire, NapRelease, NapCanceled);
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &NapInterface,
    .Add = Add,
    .Io = Io,
    .Cleanup = Cleanup,
    .Gone = Gone,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
