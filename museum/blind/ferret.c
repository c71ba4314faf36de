/*
 * ferret: sends a program's frames to the bus below its root-enumerated device, as internal device controls that it makes itself, and hands the
 * answers back. A program that cancels its request has the driver cancel the one below, and gets its own back when that has ended.
 *
 * The bug: the completion routine does not look whether the cancel routine has been called already, and frees the request below (and
 * completes the program's) while that is about to cancel it.
 *
 * Device: Root\FERRET
 * Rule: use-after-free, not-an-irp, irp-in-use, irp-free, cancel-after-completion
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_FERRET_FRAME CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB11, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FERRET_TOTAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB12, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BUS_FRAME    CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0x820, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define FERRET_TAG  'rreF'
#define FERRET_MOST 1024

typedef struct FERRET {
    DEPOT *Depot;
    KSPIN_LOCK Lock;                         /* the list and the totals */
    LIST_ENTRY Errands;
    ULONG Sent, Failed;
} FERRET;

/* A request below. One share is its completion's, one the cancel routine's; one that cancels it besides has one, too. */
typedef struct ERRAND {
    LIST_ENTRY Entry;
    FERRET *Owner;
    PIRP Upper, Lower;
    LONG Shares;
    BOOLEAN Called;                          /* off, by a purge */
} ERRAND;

static const GUID FerretGuid = { 0xe2194d5b, 0xa86c, 0x4307, { 0x8f, 0xd1, 0x62, 0x0e, 0x7b, 0x3f, 0x02, 0x09 } };

static VOID ErrandDrop(ERRAND *e)
{
    DEPOT *d = e->Owner->Depot;
    PIRP upper = e->Upper, lower = e->Lower;
    NTSTATUS st;
    ULONG_PTR info = 0;

    if (InterlockedDecrement(&e->Shares) != 0)
        return;
    st = lower->IoStatus.Status;
    if (NT_SUCCESS(st)) {
        info = lower->IoStatus.Information;
        if (info > IrpHere(upper)->Parameters.DeviceIoControl.OutputBufferLength)
            info = IrpHere(upper)->Parameters.DeviceIoControl.OutputBufferLength;
    }
    IoFreeIrp(lower);
    ExFreePoolWithTag(e, FERRET_TAG);
    DepotEnd(d, upper, st, info);
}

static NTSTATUS NTAPI FerretDone(PDEVICE_OBJECT device, PIRP lower, PVOID context)
{
    ERRAND *e = context;
    FERRET *f = e->Owner;
    KIRQL irql;

    UNREFERENCED_PARAMETER(device);
    KeAcquireSpinLock(&f->Lock, &irql);
    RemoveEntryList(&e->Entry);
    if (!NT_SUCCESS(lower->IoStatus.Status))
        f->Failed++;
    KeReleaseSpinLock(&f->Lock, irql);
#ifndef FIXED
    IoSetCancelRoutine(e->Upper, NULL);
    ErrandDrop(e);
#else
    if (IoSetCancelRoutine(e->Upper, NULL) != NULL)
        ErrandDrop(e);                       /* the cancel routine's share: it will not come */
#endif
    ErrandDrop(e);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static VOID NTAPI FerretCancel(PDEVICE_OBJECT fdo, PIRP upper)
{
    ERRAND *e = upper->Tail.Overlay.DriverContext[0];

    UNREFERENCED_PARAMETER(fdo);
    IoReleaseCancelSpinLock(upper->CancelIrql);
    IoCancelIrp(e->Lower);
#ifdef FIXED
    ErrandDrop(e);
#endif
}

static NTSTATUS FerretSend(FERRET *f, PIRP upper, PIO_STACK_LOCATION sp)
{
    DEPOT *d = f->Depot;
    PIO_STACK_LOCATION next;
    ERRAND *e;
    PIRP lower;
    KIRQL irql;

    e = Alloc(sizeof(ERRAND), FERRET_TAG);
    if (e == NULL)
        return DepotEnd(d, upper, STATUS_INSUFFICIENT_RESOURCES, 0);
    lower = IoAllocateIrp(d->Below->StackSize, FALSE);
    if (lower == NULL) {
        ExFreePoolWithTag(e, FERRET_TAG);
        return DepotEnd(d, upper, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    e->Owner = f;
    e->Upper = upper;
    e->Lower = lower;
    e->Shares = 2;

    lower->AssociatedIrp.SystemBuffer = upper->AssociatedIrp.SystemBuffer;
    lower->IoStatus.Status = STATUS_NOT_SUPPORTED;
    next = IoGetNextIrpStackLocation(lower);
    next->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    next->Parameters.DeviceIoControl.IoControlCode = IOCTL_BUS_FRAME;
    next->Parameters.DeviceIoControl.InputBufferLength = sp->Parameters.DeviceIoControl.InputBufferLength;
    next->Parameters.DeviceIoControl.OutputBufferLength = sp->Parameters.DeviceIoControl.OutputBufferLength;
    IoSetCompletionRoutine(lower, FerretDone, e, TRUE, TRUE, TRUE);

    IoMarkIrpPending(upper);
    upper->Tail.Overlay.DriverContext[0] = e;
    KeAcquireSpinLock(&f->Lock, &irql);
    InsertTailList(&f->Errands, &e->Entry);
    f->Sent++;
    IoSetCancelRoutine(upper, FerretCancel);
    if (upper->Cancel && IoSetCancelRoutine(upper, NULL) != NULL) {
        RemoveEntryList(&e->Entry);
        f->Sent--;
        KeReleaseSpinLock(&f->Lock, irql);
        IoFreeIrp(lower);
        ExFreePoolWithTag(e, FERRET_TAG);
        DepotEnd(d, upper, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&f->Lock, irql);
    IoCallDriver(d->Below, lower);
    return STATUS_PENDING;
}

/* Calls off what is under way, and leaves it to its completion. An errand on the list has its completion's share still. */
static VOID FerretPurge(DEPOT *d, PFILE_OBJECT file, NTSTATUS st)
{
    FERRET *f = d->Own;
    PLIST_ENTRY l;
    ERRAND *e;
    KIRQL irql;

    UNREFERENCED_PARAMETER(st);
    do {
        e = NULL;
        KeAcquireSpinLock(&f->Lock, &irql);
        for (l = f->Errands.Flink; l != &f->Errands; l = l->Flink) {
            ERRAND *one = CONTAINING_RECORD(l, ERRAND, Entry);

            if (!one->Called && (file == NULL || IrpHere(one->Upper)->FileObject == file)) {
                e = one;
                e->Called = TRUE;
                InterlockedIncrement(&e->Shares);
                break;
            }
        }
        KeReleaseSpinLock(&f->Lock, irql);
        if (e != NULL) {
            IoCancelIrp(e->Lower);
            ErrandDrop(e);
        }
    } while (e != NULL);
}

static NTSTATUS FerretControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    FERRET *f = d->Own;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FERRET_FRAME:
        if (sp->Parameters.DeviceIoControl.InputBufferLength == 0 || sp->Parameters.DeviceIoControl.InputBufferLength > FERRET_MOST ||
            sp->Parameters.DeviceIoControl.OutputBufferLength > FERRET_MOST)
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        return FerretSend(f, irp, sp);
    case IOCTL_FERRET_TOTAL:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&f->Lock, &irql);
        buffer[0] = f->Sent;
        buffer[1] = f->Failed;
        KeReleaseSpinLock(&f->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, 2 * sizeof(ULONG));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS FerretPrepare(DEPOT *d)
{
    FERRET *f = d->Own;

    f->Depot = d;
    KeInitializeSpinLock(&f->Lock);
    InitializeListHead(&f->Errands);
    return STATUS_SUCCESS;
}

static NTSTATUS FerretUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    UNREFERENCED_PARAMETER(d);
    UNREFERENCED_PARAMETER(list);
    return STATUS_SUCCESS;
}

static VOID FerretDown(DEPOT *d, BOOLEAN reach)
{
    UNREFERENCED_PARAMETER(d);
    UNREFERENCED_PARAMETER(reach);
}

static const PLAN FerretPlan = {
    .Interface = &FerretGuid,
    .OwnSize = sizeof(FERRET),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = FerretPrepare,
    .Up = FerretUp,
    .Down = FerretDown,
    .Purge = FerretPurge,
    .Control = FerretControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &FerretPlan);
}
