/*
 * curfew: hands messages of eight bytes from programs that post them to programs that wait for one, each until a time limit of its own. Messages that
 * no one waits for are kept, sixteen at most.
 *
 * The bug: where a waiting request ends before its time (by a message, by being cancelled or closed) its record drops the timer's reference whether the
 * timer could be cancelled or not: if its DPC is queued or runs already, the DPC works with a record that has been freed.
 *
 * Device: none
 * Rule: use-after-free, freed-queued-dpc, write-after-free, double-free
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#define FRAME_PLAIN
#include "../include/yard_frame.h"

#define TAG         'fruC'
#define NAME        L"\\Device\\Curfew"
#define LINK        L"\\DosDevices\\Curfew"
#define KEPT        16
#define LONGEST     60000       /* ms */

#define IOCTL_CURFEW_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CURFEW_POST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEV {
    SHELF Shelf;
    KSPIN_LOCK Lock;            /* of what follows and of the records' flags; the shelf's lock may be taken within */
    ULONG First, Count;
    ULONGLONG Message[KEPT];
} DEV, *PDEV;

typedef struct _WAITER {
    LONG Refs;                  /* the request on the shelf; the timer; the dispatch routine, for a while */
    BOOLEAN Settled;            /* the request is not on the shelf any more */
    BOOLEAN Armed;              /* the timer has been set, and has a reference */
    ULONG_PTR Number;
    PDEV D;
    KTIMER Timer;
    KDPC Dpc;
} WAITER, *PWAITER;

#define WaiterOf(Irp) ((PWAITER)(Irp)->Tail.Overlay.DriverContext[2])

static PDEVICE_OBJECT Control;

static VOID Drop(PWAITER W)
{
    if (InterlockedDecrement(&W->Refs) == 0)
        ExFreePoolWithTag(W, TAG);
}

static VOID NTAPI Expired(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PWAITER w = Context;
    PDEV d = w->D;
    PIRP irp = ShelfTake(&d->Shelf, w->Number, NULL);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (irp) {
        Drop(w);                /* the request's */
        ShelfEnd(&d->Shelf, irp, STATUS_IO_TIMEOUT, 0);
    }
    Drop(w);                    /* the timer's */
}

/* Who has taken a request off the shelf before its time calls this before it is completed. */
static VOID Settle(PWAITER W)
{
    PDEV d = W->D;
    BOOLEAN armed;
    KIRQL irql;

    KeAcquireSpinLock(&d->Lock, &irql);
    W->Settled = TRUE;
    armed = W->Armed;
    KeReleaseSpinLock(&d->Lock, irql);
    if (armed) {
#ifndef FIXED
        KeCancelTimer(&W->Timer);
        Drop(W);
#else
        if (KeCancelTimer(&W->Timer))
            Drop(W);
#endif
    }
    Drop(W);
}

static VOID Dropped(PSHELF Shelf, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Shelf);
    Settle(WaiterOf(Irp));
}

/* Brings messages and waiters together. */
static VOID Match(PDEV D)
{
    PIRP irp;

    do {
        ULONGLONG message = 0;
        KIRQL irql;

        irp = NULL;
        KeAcquireSpinLock(&D->Lock, &irql);
        if (D->Count != 0 && (irp = ShelfTake(&D->Shelf, 0, NULL)) != NULL) {
            message = D->Message[D->First];
            D->First = (D->First + 1) % KEPT;
            D->Count--;
        }
        KeReleaseSpinLock(&D->Lock, irql);
        if (irp) {
            Settle(WaiterOf(irp));
            *(PULONGLONG)irp->AssociatedIrp.SystemBuffer = message;
            ShelfEnd(&D->Shelf, irp, STATUS_SUCCESS, sizeof message);
        }
    } while (irp);
}

static NTSTATUS Wait(PDEV D, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    LARGE_INTEGER due;
    PWAITER w;
    ULONG ms;
    KIRQL irql;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONGLONG))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    ms = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (ms == 0 || ms > LONGEST)
        return Ends(Irp, STATUS_INVALID_PARAMETER, 0);
    w = ExAllocatePoolWithTag(NonPagedPool, sizeof *w, TAG);
    if (!w)
        return Ends(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(w, sizeof *w);
    w->Refs = 2;
    w->D = D;
    KeInitializeTimer(&w->Timer);
    KeInitializeDpc(&w->Dpc, Expired, w);
    Irp->Tail.Overlay.DriverContext[2] = w;
    due.QuadPart = -10000LL * ms;

    w->Number = ShelfPut(&D->Shelf, Irp, 0);
    KeAcquireSpinLock(&D->Lock, &irql);
    if (!w->Settled) {
        InterlockedIncrement(&w->Refs);
        w->Armed = TRUE;
        KeSetTimer(&w->Timer, due, &w->Dpc);
    }
    KeReleaseSpinLock(&D->Lock, irql);
    Drop(w);
    Match(D);
    return STATUS_PENDING;
}

static NTSTATUS Post(PDEV D, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    BOOLEAN kept = FALSE;
    KIRQL irql;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONGLONG))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&D->Lock, &irql);
    if (D->Count < KEPT) {
        D->Message[(D->First + D->Count) % KEPT] = *(PULONGLONG)Irp->AssociatedIrp.SystemBuffer;
        D->Count++;
        kept = TRUE;
    }
    KeReleaseSpinLock(&D->Lock, irql);
    if (!kept)
        return Ends(Irp, STATUS_DEVICE_BUSY, 0);
    Match(D);
    return Ends(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Ioctl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CURFEW_WAIT:
        return Wait(Device->DeviceExtension, Irp, stack);
    case IOCTL_CURFEW_POST:
        return Post(Device->DeviceExtension, Irp, stack);
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    PIRP irp;

    while ((irp = ShelfTake(&d->Shelf, 0, IoGetCurrentIrpStackLocation(Irp)->FileObject)) != NULL) {
        Settle(WaiterOf(irp));
        ShelfEnd(&d->Shelf, irp, STATUS_CANCELLED, 0);
    }
    return Ends(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    PlainHide(LINK);
    KeFlushQueuedDpcs();        /* one that has found its request gone may still be about to drop its record */
    IoDeleteDevice(Control);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    PDEV d;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = PlainMake(Driver, NAME, sizeof(DEV), DO_BUFFERED_IO, &Control);
    if (!NT_SUCCESS(status))
        return status;
    d = Control->DeviceExtension;
    KeInitializeSpinLock(&d->Lock);
    status = ShelfInit(&d->Shelf, NULL);
    d->Shelf.Dropped = Dropped;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = PlainNod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = PlainNod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Ioctl;
    if (NT_SUCCESS(status))
        status = PlainShow(LINK, NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(Control);
    return status;
}
