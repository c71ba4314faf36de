/*
 * buoy: a clock for the control programs of a winch: a program waits until a number of ticks of 20 ms has passed
 * (IOCTL_BUOY_WAIT, which stays pending and can be cancelled), and asks for the ticks since the driver was loaded.
 *
 * The bug: the timer's DPC takes a wait off the list without looking whether its cancel routine is already under way,
 * so that both complete it.
 *
 * Device: none
 * Rule: double-completion, list-corrupt, not-an-irp, use-after-free
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>
#define FRAME_LEGACY
#include "../include/frame_with_hooks.h"

#define DEVICE_NAME L"\\Device\\Buoy"
#define LINK_NAME L"\\DosDevices\\Buoy"

#define IOCTL_BUOY_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BUOY_NOW CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BUOY_HURRY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TICK_MS 20
#define LONGEST_WAIT (60 * 1000 / TICK_MS)
#define MOST_WAITS 256

#define DUE(Irp) ((Irp)->Tail.Overlay.DriverContext[0])

typedef struct BUOY_WAIT {
    ULONG Ticks;
} BUOY_WAIT;

typedef struct BUOY {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;                    /* guards what follows */
    LIST_ENTRY Waits;
    ULONG Count;
    ULONG Now;
} BUOY;

static PDEVICE_OBJECT TheDevice;

/*
 * Within the lock: takes a wait off the list, unless its cancel routine runs and will do it
 */
static BOOLEAN Claim(BUOY *b, PIRP Irp)
{
    if (IoSetCancelRoutine(Irp, NULL) == NULL)
        return FALSE;
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    b->Count--;
    return TRUE;
}

static void CompleteAll(PLIST_ENTRY List, NTSTATUS Status)
{
    while (!IsListEmpty(List))
        Done(CONTAINING_RECORD(RemoveHeadList(List), IRP, Tail.Overlay.ListEntry), Status, 0);
}

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    BUOY *b = Context;
    LIST_ENTRY due, *e;

    NOT_USED(Dpc);
    NOT_USED(Argument1);
    NOT_USED(Argument2);
    InitializeListHead(&due);
    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    b->Now++;
    for (e = b->Waits.Flink; e != &b->Waits;) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        e = e->Flink;
        if ((LONG)(b->Now - (ULONG)(ULONG_PTR)DUE(irp)) < 0)
            continue;
#ifdef FIXED
        if (!Claim(b, irp))
            continue;
#else
        IoSetCancelRoutine(irp, NULL);
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        b->Count--;
#endif
        InsertTailList(&due, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    CompleteAll(&due, STATUS_SUCCESS);
}

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    BUOY *b = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&b->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    b->Count--;
    KeReleaseSpinLock(&b->Lock, irql);
    Done(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Wait(BUOY *b, PIRP Irp, ULONG Ticks)
{
    KIRQL irql;

    KeAcquireSpinLock(&b->Lock, &irql);
    if (b->Count >= MOST_WAITS) {
        KeReleaseSpinLock(&b->Lock, irql);
        return Done(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    IoMarkIrpPending(Irp);
    DUE(Irp) = (PVOID)(ULONG_PTR)(ULONG)(b->Now + Ticks);
    InsertTailList(&b->Waits, &Irp->Tail.Overlay.ListEntry);
    b->Count++;
    IoSetCancelRoutine(Irp, CancelWait);
    if (Irp->Cancel && Claim(b, Irp)) {
        KeReleaseSpinLock(&b->Lock, irql);
        Done(Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&b->Lock, irql);
    return STATUS_PENDING;
}

/* ends the waits of one handle at once */
static void End(BUOY *b, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY ended, *e;
    KIRQL irql;

    InitializeListHead(&ended);
    KeAcquireSpinLock(&b->Lock, &irql);
    for (e = b->Waits.Flink; e != &b->Waits;) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        e = e->Flink;
        if (IoGetCurrentIrpStackLocation(irp)->FileObject == File && Claim(b, irp))
            InsertTailList(&ended, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&b->Lock, irql);
    CompleteAll(&ended, Status);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BUOY *b = Device->DeviceExtension;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG ticks;
    KIRQL irql;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BUOY_WAIT:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(BUOY_WAIT))
            return Done(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ticks = ((BUOY_WAIT *)buffer)->Ticks;
        if (ticks == 0 || ticks > LONGEST_WAIT)
            return Done(Irp, STATUS_INVALID_PARAMETER, 0);
        return Wait(b, Irp, ticks);

    case IOCTL_BUOY_NOW:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return Done(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&b->Lock, &irql);
        *(PULONG)buffer = b->Now;
        KeReleaseSpinLock(&b->Lock, irql);
        return Done(Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_BUOY_HURRY:
        End(b, s->FileObject, STATUS_REQUEST_ABORTED);
        return Done(Irp, STATUS_SUCCESS, 0);
    }
    return Done(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI OpenCleanupClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    if (s->MajorFunction == IRP_MJ_CLEANUP)
        End(Device->DeviceExtension, s->FileObject, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    BUOY *b = TheDevice->DeviceExtension;

    NOT_USED(Driver);
    KeCancelTimer(&b->Timer);
    KeFlushQueuedDpcs();
    LegacyUnmake(TheDevice, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    LARGE_INTEGER due;
    NTSTATUS status;
    BUOY *b;

    NOT_USED(RegistryPath);
    status = LegacyMake(Driver, DEVICE_NAME, LINK_NAME, sizeof(BUOY), &TheDevice);
    if (!NT_SUCCESS(status))
        return status;
    b = TheDevice->DeviceExtension;
    KeInitializeSpinLock(&b->Lock);
    InitializeListHead(&b->Waits);
    KeInitializeDpc(&b->Dpc, Tick, b);
    KeInitializeTimer(&b->Timer);

    Driver->MajorFunction[IRP_MJ_CREATE] = OpenCleanupClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = OpenCleanupClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenCleanupClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    due.QuadPart = -(LONGLONG)TICK_MS * 10000;
    KeSetTimerEx(&b->Timer, due, TICK_MS, &b->Dpc);
    return STATUS_SUCCESS;
}
