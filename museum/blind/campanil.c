/*
 * campanil: bell scheduler of a church tower control. A program sends a request with a delay in milliseconds, and the request comes back
 * when that bell is to be struck. One timer serves the earliest of them.
 *
 * The bug: the timer's DPC takes requests that are due without looking whether IoSetCancelRoutine still found the cancel routine: a request
 * that is being cancelled at that moment is completed by both.
 *
 * Device: none
 * Rule: double-completion, cancel-after-completion, use-after-free, list-corrupt
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define LINK L"\\DosDevices\\Campanil"

#define IOCTL_CAMPANIL_STRIKE_AFTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CAMPANIL_STATE        CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CAMPANIL_SILENCE      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define DELAY_MAX (60 * 60 * 1000)

typedef struct {
    ULONG Bell;
    ULONG Delay;                /* ms */
} STRIKE;

typedef struct {
    ULONG Waiting;
    ULONG Struck;
} STATE;

typedef struct {
    KSPIN_LOCK Lock;
    LIST_ENTRY Strikes;         /* IRPs, in no order; DriverContext[0] is when */
    KTIMER Timer;
    KDPC Dpc;
    ULONG Struck;
} TOWER;

static PDEVICE_OBJECT Control;

static ULONGLONG *DueOf(PIRP Irp)
{
    return (ULONGLONG *)&Irp->Tail.Overlay.DriverContext[0];
}

/* Sets the timer for the earliest strike, if there is one. Lock held. */
static void Arm(TOWER *Tower)
{
    ULONGLONG now = KeQueryInterruptTime(), first = ~0ULL;
    LARGE_INTEGER due;
    PLIST_ENTRY e;

    for (e = Tower->Strikes.Flink; e != &Tower->Strikes; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (*DueOf(irp) < first)
            first = *DueOf(irp);
    }
    if (first == ~0ULL)
        return;
    due.QuadPart = first > now ? -(LONGLONG)(first - now) : -10000;
    KeSetTimer(&Tower->Timer, due, &Tower->Dpc);
}

static void EndAll(PLIST_ENTRY List, NTSTATUS Status)
{
    while (!IsListEmpty(List))
        Complete(CONTAINING_RECORD(RemoveHeadList(List), IRP, Tail.Overlay.ListEntry), Status, 0);
}

static void NTAPI TimerDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    TOWER *tower = Context;
    ULONGLONG now = KeQueryInterruptTime();
    LIST_ENTRY done;
    PLIST_ENTRY e, next;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&tower->Lock);
    for (e = tower->Strikes.Flink; e != &tower->Strikes; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (*DueOf(irp) > now)
            continue;
        RemoveEntryList(e);
#ifdef FIXED
        if (!IoSetCancelRoutine(irp, NULL)) {
            InitializeListHead(e);      /* its cancel routine waits for our lock, and completes it */
            continue;
        }
#else
        IoSetCancelRoutine(irp, NULL);
#endif
        InsertTailList(&done, e);
        tower->Struck++;
    }
    Arm(tower);
    KeReleaseSpinLockFromDpcLevel(&tower->Lock);
    EndAll(&done, STATUS_SUCCESS);
}

static void NTAPI CancelStrike(PDEVICE_OBJECT Device, PIRP Irp)
{
    TOWER *tower = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&tower->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&tower->Lock, irql);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS StrikeAfter(TOWER *Tower, PIRP Irp, ULONG Delay)
{
    KIRQL irql;

    *DueOf(Irp) = KeQueryInterruptTime() + (ULONGLONG)Delay * 10000;
    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&Tower->Lock, &irql);
    IoSetCancelRoutine(Irp, CancelStrike);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&Tower->Lock, irql);
        Complete(Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    InsertTailList(&Tower->Strikes, &Irp->Tail.Overlay.ListEntry);
    Arm(Tower);
    KeReleaseSpinLock(&Tower->Lock, irql);
    return STATUS_PENDING;
}

/* Ends the strikes of a file, or all. */
static void Silence(TOWER *Tower, PFILE_OBJECT File)
{
    LIST_ENTRY done;
    PLIST_ENTRY e, next;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&Tower->Lock, &irql);
    for (e = Tower->Strikes.Flink; e != &Tower->Strikes; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(irp, NULL))
            InsertTailList(&done, e);
        else
            InitializeListHead(e);
    }
    KeReleaseSpinLock(&Tower->Lock, irql);
    EndAll(&done, STATUS_CANCELLED);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    Silence(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    TOWER *tower = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    STRIKE *strike = Irp->AssociatedIrp.SystemBuffer;
    STATE *state = Irp->AssociatedIrp.SystemBuffer;
    PLIST_ENTRY e;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CAMPANIL_STRIKE_AFTER:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(STRIKE))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (strike->Bell >= 12 || strike->Delay > DELAY_MAX)
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        return StrikeAfter(tower, Irp, strike->Delay);

    case IOCTL_CAMPANIL_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&tower->Lock, &irql);
        state->Waiting = 0;
        for (e = tower->Strikes.Flink; e != &tower->Strikes; e = e->Flink)
            state->Waiting++;
        state->Struck = tower->Struck;
        KeReleaseSpinLock(&tower->Lock, irql);
        return Complete(Irp, STATUS_SUCCESS, sizeof(STATE));

    case IOCTL_CAMPANIL_SILENCE:
        Silence(tower, NULL);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static void NTAPI Unload(PDRIVER_OBJECT Driver)
{
    TOWER *tower = Control->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    /* No handle is open any more, so the list is empty; a last DPC may be on its way. */
    KeCancelTimer(&tower->Timer);
    KeFlushQueuedDpcs();
    ControlDelete(Control, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    TOWER *tower;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = ControlCreate(Driver, sizeof(TOWER), L"\\Device\\Campanil", LINK, &Control);
    if (!NT_SUCCESS(status))
        return status;
    tower = Control->DeviceExtension;
    KeInitializeSpinLock(&tower->Lock);
    InitializeListHead(&tower->Strikes);
    KeInitializeTimer(&tower->Timer);
    KeInitializeDpc(&tower->Dpc, TimerDpc, tower);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
