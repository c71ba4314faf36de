/*
 * carillon: strokes of a tower clock for programs. A stroke comes every 50 ms; a program asks to be woken after a number
 * of strokes, and the request waits until then, in a list with a cancel routine of the driver's own.
 *
 * The bug: requests whose stroke has come are moved to a list of the DPC's under the lock, but lose their cancel routine
 * only as they are completed, behind it: one that is cancelled in between is completed by its cancel routine, and the DPC goes on with it.
 *
 * Device: none
 * Rule: use-after-free, double-completion, list-corrupt, not-an-irp
 * Needs: ioctl, cancel, schedule
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_CARILLON_WAKE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CARILLON_STROKES  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define NAME L"\\Device\\Carillon"
#define LINK L"\\DosDevices\\Carillon"

typedef struct TOWER {
    KSPIN_LOCK lock;
    LIST_ENTRY sleepers;
    KTIMER timer;
    KDPC dpc;
    ULONG strokes;
} TOWER;

#define LEFT(irp_) ((irp_)->Tail.Overlay.DriverContext[0])      /* strokes that are left */

static PDEVICE_OBJECT Door;

static VOID NTAPI Cancelled(PDEVICE_OBJECT self, PIRP irp)
{
    TOWER *tower = self->DeviceExtension;
    KIRQL irql;
    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&tower->lock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&tower->lock, irql);
    FrFinish(NULL, irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI Stroke(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    TOWER *tower = context;
    LIST_ENTRY due, *e, *next;
    PIRP irp;
    ULONG now;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);

    InitializeListHead(&due);
    KeAcquireSpinLockAtDpcLevel(&tower->lock);
    now = ++tower->strokes;
    for (e = tower->sleepers.Flink; e != &tower->sleepers; e = next) {
        next = e->Flink;
        irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        LEFT(irp) = (PVOID)((ULONG_PTR)LEFT(irp) - 1);
        if (LEFT(irp))
            continue;
        RemoveEntryList(e);
#ifdef FIXED
        if (!IoSetCancelRoutine(irp, NULL)) {
            InitializeListHead(e);      /* its cancel routine waits for the lock, and takes it out of there */
            continue;
        }
#endif
        InsertTailList(&due, e);
    }
    KeReleaseSpinLockFromDpcLevel(&tower->lock);

    while (!IsListEmpty(&due)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&due), IRP, Tail.Overlay.ListEntry);
#ifndef FIXED
        if (!IoSetCancelRoutine(irp, NULL)) {
            InitializeListHead(&irp->Tail.Overlay.ListEntry);
            continue;
        }
#endif
        *(PULONG)irp->AssociatedIrp.SystemBuffer = now;
        FrFinish(NULL, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS Sleep(TOWER *tower, PIRP irp, ULONG strokes)
{
    KIRQL irql;
    LEFT(irp) = (PVOID)(ULONG_PTR)strokes;
    KeAcquireSpinLock(&tower->lock, &irql);
    IoMarkIrpPending(irp);
    IoSetCancelRoutine(irp, Cancelled);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {
        KeReleaseSpinLock(&tower->lock, irql);
        FrFinish(NULL, irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    InsertTailList(&tower->sleepers, &irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&tower->lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT self, PIRP irp)
{
    TOWER *tower = self->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status;
    KIRQL irql;

    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CARILLON_WAKE:
        if (at->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)
            || at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (*buffer < 1 || *buffer > 1000)
            status = STATUS_INVALID_PARAMETER;
        else
            return Sleep(tower, irp, *buffer);
        break;
    case IOCTL_CARILLON_STROKES:
        if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else {
            KeAcquireSpinLock(&tower->lock, &irql);
            *buffer = tower->strokes;
            KeReleaseSpinLock(&tower->lock, irql);
            info = sizeof(ULONG);
            status = STATUS_SUCCESS;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrFinish(NULL, irp, status, info);
    return status;
}

/* A handle's last reference in its process is closed: what waits on it ends. */
static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT self, PIRP irp)
{
    TOWER *tower = self->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    LIST_ENTRY gone, *e, *next;
    KIRQL irql;
    InitializeListHead(&gone);
    KeAcquireSpinLock(&tower->lock, &irql);
    for (e = tower->sleepers.Flink; e != &tower->sleepers; e = next) {
        PIRP sleeper = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if (IoGetCurrentIrpStackLocation(sleeper)->FileObject != file || !IoSetCancelRoutine(sleeper, NULL))
            continue;
        RemoveEntryList(e);
        InsertTailList(&gone, e);
    }
    KeReleaseSpinLock(&tower->lock, irql);
    while (!IsListEmpty(&gone))
        FrFinish(NULL, CONTAINING_RECORD(RemoveHeadList(&gone), IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    FrFinish(NULL, irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI File(PDEVICE_OBJECT self, PIRP irp)
{
    UNREFERENCED_PARAMETER(self);
    FrFinish(NULL, irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    TOWER *tower = Door->DeviceExtension;
    UNREFERENCED_PARAMETER(driver);
    KeCancelTimer(&tower->timer);
    KeFlushQueuedDpcs();
    FrDoorGone(Door, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    TOWER *tower;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(path);
    status = FrDoor(driver, NAME, LINK, sizeof(TOWER), &Door);
    if (!NT_SUCCESS(status))
        return status;
    tower = Door->DeviceExtension;
    KeInitializeSpinLock(&tower->lock);
    InitializeListHead(&tower->sleepers);
    KeInitializeTimer(&tower->timer);
    KeInitializeDpc(&tower->dpc, Stroke, tower);
    driver->MajorFunction[IRP_MJ_CREATE] = File;
    driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    driver->MajorFunction[IRP_MJ_CLOSE] = File;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    KeSetTimerEx(&tower->timer, FrMs(50), 50, &tower->dpc);
    return STATUS_SUCCESS;
}
