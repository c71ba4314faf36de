/*
 * reveille: wakes programs. A program asks to be woken in so many milliseconds; the request waits in a list which a timer goes through, and
 * answers how long it has really been.
 *
 * The bug: the timer's DPC takes the cancel routine away without looking whether it still was there. A request that is being cancelled at this moment is ended by the
 * DPC and by the cancel routine as well.
 *
 * Device: none
 * Rule: double-completion, list-corrupt, list-damaged, use-after-free, write-after-free
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#define FRAME_DESK
#include "../include/park_frame.h"

#define IOCTL_REVEILLE_WAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* milliseconds; answers a WOKEN */
#define IOCTL_REVEILLE_LOOK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers how many sleep */

typedef struct _WOKEN {
    ULONG Asked;
    ULONG Slept;
} WOKEN;

typedef struct _SLEEPER {   /* of a handle */
    BOOLEAN Closed;
} SLEEPER;

static struct {
    DESK Desk;
    KSPIN_LOCK Lock;
    LIST_ENTRY Irps;
    ULONG Count;
    KTIMER Timer;
    KDPC Dpc;
} Camp;

#define TICK (-50000LL)   /* 5 ms */
#define DUE(irp) ((irp)->Tail.Overlay.DriverContext[0])
#define SINCE(irp) ((irp)->Tail.Overlay.DriverContext[1])

static VOID SetTick(VOID)
{
    LARGE_INTEGER due;
    due.QuadPart = TICK;
    KeSetTimer(&Camp.Timer, due, &Camp.Dpc);
}

static VOID NTAPI Cancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Camp.Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    Camp.Count--;
    KeReleaseSpinLock(&Camp.Lock, irql);
    YyEnd(Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    LIST_ENTRY woken;
    PLIST_ENTRY e, next;
    ULONG_PTR now = (ULONG_PTR)(KeQueryInterruptTime() / 10000);
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    InitializeListHead(&woken);
    KeAcquireSpinLockAtDpcLevel(&Camp.Lock);
    for (e = Camp.Irps.Flink; e != &Camp.Irps; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if ((ULONG_PTR)DUE(irp) > now)
            continue;
#ifndef FIXED
        IoSetCancelRoutine(irp, NULL);
#else
        if (!IoSetCancelRoutine(irp, NULL))
            continue;   /* its cancel routine is on the way and takes it out */
#endif
        RemoveEntryList(e);
        InsertTailList(&woken, e);
        Camp.Count--;
    }
    if (!IsListEmpty(&Camp.Irps))
        SetTick();
    KeReleaseSpinLockFromDpcLevel(&Camp.Lock);
    while (!IsListEmpty(&woken)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&woken), IRP, Tail.Overlay.ListEntry);
        WOKEN *w = irp->AssociatedIrp.SystemBuffer;
        w->Asked = (ULONG)((ULONG_PTR)DUE(irp) - (ULONG_PTR)SINCE(irp));
        w->Slept = (ULONG)(now - (ULONG_PTR)SINCE(irp));
        YyEnd(irp, STATUS_SUCCESS, sizeof *w);
    }
}

static NTSTATUS Sleep(PIRP Irp, PIO_STACK_LOCATION Sp)
{
    SLEEPER *s = Sp->FileObject->FsContext;
    ULONG ms;
    ULONG_PTR now;
    KIRQL irql;
    if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof ms || Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(WOKEN))
        return YyEnd(Irp, STATUS_INVALID_PARAMETER, 0);
    ms = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
    if (!ms || ms > 600000)
        return YyEnd(Irp, STATUS_INVALID_PARAMETER, 0);
    now = (ULONG_PTR)(KeQueryInterruptTime() / 10000);
    DUE(Irp) = (PVOID)(now + ms);
    SINCE(Irp) = (PVOID)now;
    KeAcquireSpinLock(&Camp.Lock, &irql);
    if (s->Closed) {
        KeReleaseSpinLock(&Camp.Lock, irql);
        return YyEnd(Irp, STATUS_CANCELLED, 0);
    }
    IoSetCancelRoutine(Irp, Cancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&Camp.Lock, irql);
        return YyEnd(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    if (IsListEmpty(&Camp.Irps))
        SetTick();
    InsertTailList(&Camp.Irps, &Irp->Tail.Overlay.ListEntry);
    Camp.Count++;
    KeReleaseSpinLock(&Camp.Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_REVEILLE_WAKE:
        return Sleep(Irp, sp);
    case IOCTL_REVEILLE_LOOK:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return YyEnd(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&Camp.Lock, &irql);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = Camp.Count;
        KeReleaseSpinLock(&Camp.Lock, irql);
        return YyEnd(Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return YyEnd(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Device, PIRP Irp)
{
    SLEEPER *s = YyGet(sizeof *s);
    UNREFERENCED_PARAMETER(Device);
    if (!s)
        return YyEnd(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = s;
    return YyEnd(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LIST_ENTRY mine;
    PLIST_ENTRY e, next;
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);
    InitializeListHead(&mine);
    KeAcquireSpinLock(&Camp.Lock, &irql);
    ((SLEEPER *)file->FsContext)->Closed = TRUE;
    for (e = Camp.Irps.Flink; e != &Camp.Irps; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if (IoGetCurrentIrpStackLocation(irp)->FileObject != file || !IoSetCancelRoutine(irp, NULL))
            continue;
        RemoveEntryList(e);
        InsertTailList(&mine, e);
        Camp.Count--;
    }
    KeReleaseSpinLock(&Camp.Lock, irql);
    while (!IsListEmpty(&mine))
        YyEnd(CONTAINING_RECORD(RemoveHeadList(&mine), IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    return YyEnd(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    YyPut(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext);
    return YyEnd(Irp, STATUS_SUCCESS, 0);
}

/* No handle is open, so no one sleeps and the timer is not set again. */
static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DeskClose(&Camp.Desk);
    KeCancelTimer(&Camp.Timer);
    KeFlushQueuedDpcs();
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Path);
    KeInitializeSpinLock(&Camp.Lock);
    InitializeListHead(&Camp.Irps);
    KeInitializeTimer(&Camp.Timer);
    KeInitializeDpc(&Camp.Dpc, Tick, NULL);
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    status = DeskOpen(&Camp.Desk, Driver, L"\\Device\\Reveille", L"\\DosDevices\\Reveille", DO_BUFFERED_IO);
    if (NT_SUCCESS(status))
        DeskReady(&Camp.Desk);
    return status;
}
