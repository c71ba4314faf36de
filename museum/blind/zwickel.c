/*
 * zwickel: an alarm clock. IOCTL_ZWICKEL_WAIT is a request that ends after the given number of milliseconds, each with
 * a timer of its own; it can be cancelled, and IOCTL_ZWICKEL_FLUSH ends all waits of the handle early.
 *
 * The bug: ending a wait early drops the timer's share of the wait without looking at what KeCancelTimer says.
 * When the timer has just run out, the DPC is still to come (or running) and works on freed memory.
 *
 * Device: ROOT\ZWICKEL
 * Rule: use-after-free, freed-queued-dpc
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/quill_pnp.h"

#define ZWICKEL_TAG     'kciZ'
#define ZWICKEL_WAITS   1024
#define ZWICKEL_LONGEST (60 * 60 * 1000)

#define IOCTL_ZWICKEL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ZWICKEL_FLUSH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ZWICKEL_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)

/* {C7A1D0F4-38C2-4B1B-8D53-6E20B5B7F012} */
static const GUID ZwickelInterface =
    { 0xc7a1d0f4, 0x38c2, 0x4b1b, { 0x8d, 0x53, 0x6e, 0x20, 0xb5, 0xb7, 0xf0, 0x12 } };

typedef struct _ZWICKEL {
    QUILL_DEVICE Base;
    KSPIN_LOCK Lock;
    LIST_ENTRY Waits;
    ULONG Count;
    BOOLEAN Closed;
} ZWICKEL, *PZWICKEL;

/*
 * One wait. Refs counts two shares: the list's (the one who takes it out of the list ends the request and then drops
 * this share) and the timer's (dropped by its DPC, or by the one who keeps the DPC from running).
 */
typedef struct _ZWICKEL_WAIT {
    LIST_ENTRY Link;
    KTIMER Timer;
    KDPC Dpc;
    PZWICKEL Clock;
    PIRP Irp;                       /* NULL: taken out of the list. Under the lock. */
    PVOID Tag;                      /* of the hold on the remove lock, given back with the last share */
    PFILE_OBJECT File;
    LONG Refs;
} ZWICKEL_WAIT, *PZWICKEL_WAIT;

static VOID ZwickelDrop(PZWICKEL_WAIT Wait)
{
    if (InterlockedDecrement(&Wait->Refs) == 0) {
        PZWICKEL clock = Wait->Clock;
        PVOID tag = Wait->Tag;

        ExFreePoolWithTag(Wait, ZWICKEL_TAG);
        IoReleaseRemoveLock(&clock->Base.RemoveLock, tag);
    }
}

/* Takes a wait out of the list; its request has no cancel routine any more. Under the lock. */
static PIRP ZwickelTakeLocked(PZWICKEL_WAIT Wait)
{
    PIRP irp = Wait->Irp;

    RemoveEntryList(&Wait->Link);
    Wait->Irp = NULL;
    Wait->Clock->Count--;
    return irp;
}

/* Ends a wait before its time. The caller has taken it out of the list. */
static VOID ZwickelEndEarly(PZWICKEL_WAIT Wait, PIRP Irp, NTSTATUS Status)
{
#ifdef FIXED
    if (KeCancelTimer(&Wait->Timer))
        ZwickelDrop(Wait);
#else
    KeCancelTimer(&Wait->Timer);
    ZwickelDrop(Wait);
#endif
    QuillComplete(Irp, Status, 0);
    ZwickelDrop(Wait);
}

static VOID NTAPI ZwickelDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PZWICKEL_WAIT wait = (PZWICKEL_WAIT)Context;
    PZWICKEL clock = wait->Clock;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);

    KeAcquireSpinLockAtDpcLevel(&clock->Lock);
    /* When the cancel routine is on its way already, the wait is left to it. */
    if (wait->Irp != NULL && IoSetCancelRoutine(wait->Irp, NULL) != NULL)
        irp = ZwickelTakeLocked(wait);
    KeReleaseSpinLockFromDpcLevel(&clock->Lock);

    if (irp != NULL) {
        QuillComplete(irp, STATUS_SUCCESS, 0);
        ZwickelDrop(wait);
    }
    ZwickelDrop(wait);
}

static VOID NTAPI ZwickelCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PZWICKEL_WAIT wait = (PZWICKEL_WAIT)Irp->Tail.Overlay.DriverContext[0];
    PZWICKEL clock = wait->Clock;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    IoReleaseCancelSpinLock(Irp->CancelIrql);

    KeAcquireSpinLock(&clock->Lock, &irql);
    ZwickelTakeLocked(wait);
    KeReleaseSpinLock(&clock->Lock, irql);
    ZwickelEndEarly(wait, Irp, STATUS_CANCELLED);
}

/* Ends all waits of a file (NULL: all there are) before their time. */
static VOID ZwickelEndAll(PZWICKEL Clock, PFILE_OBJECT File, BOOLEAN Last, NTSTATUS Status)
{
    ULONG left = ZWICKEL_WAITS;     /* there are no more than that; new ones during a flush need not be seen */
    PLIST_ENTRY entry;
    PZWICKEL_WAIT wait;
    PIRP irp;
    KIRQL irql;

    do {
        irp = NULL;
        KeAcquireSpinLock(&Clock->Lock, &irql);
        if (Last) {
            if (File != NULL)
                File->FsContext2 = Clock;       /* no wait is begun on this handle any more */
            else
                Clock->Closed = TRUE;
        }
        for (entry = Clock->Waits.Flink; entry != &Clock->Waits; entry = entry->Flink) {
            wait = CONTAINING_RECORD(entry, ZWICKEL_WAIT, Link);
            if (File != NULL && wait->File != File)
                continue;
            if (IoSetCancelRoutine(wait->Irp, NULL) == NULL)
                continue;                       /* being cancelled just now */
            irp = ZwickelTakeLocked(wait);
            break;
        }
        KeReleaseSpinLock(&Clock->Lock, irql);
        if (irp != NULL)
            ZwickelEndEarly(wait, irp, Status);
    } while (irp != NULL && --left != 0);
}

static NTSTATUS ZwickelInit(PQUILL_DEVICE Device)
{
    PZWICKEL clock = CONTAINING_RECORD(Device, ZWICKEL, Base);

    KeInitializeSpinLock(&clock->Lock);
    InitializeListHead(&clock->Waits);
    return STATUS_SUCCESS;
}

static NTSTATUS ZwickelStart(PQUILL_DEVICE Device)
{
    return QuillInterfaceOn(Device);
}

static VOID ZwickelStop(PQUILL_DEVICE Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static VOID ZwickelAbort(PQUILL_DEVICE Device)
{
    ZwickelEndAll(CONTAINING_RECORD(Device, ZWICKEL, Base), NULL, TRUE, STATUS_DELETE_PENDING);
}

/* All shares are dropped, since the remove lock was waited for; lets the last DPC get out of our code too. */
static VOID ZwickelFree(PQUILL_DEVICE Device)
{
    UNREFERENCED_PARAMETER(Device);
    KeFlushQueuedDpcs();
}

static const QUILL_OPS ZwickelOps = {
    sizeof(ZWICKEL), &ZwickelInterface, ZwickelInit, ZwickelStart, ZwickelStop, ZwickelAbort, ZwickelFree
};

/* Begins a wait. The request has entered. */
static NTSTATUS ZwickelWait(PZWICKEL Clock, PIRP Irp, PFILE_OBJECT File, ULONG Milliseconds)
{
    PZWICKEL_WAIT wait;
    LARGE_INTEGER due;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    wait = (PZWICKEL_WAIT)ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*wait), ZWICKEL_TAG);
    if (wait == NULL)
        return QuillLeave(&Clock->Base, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(wait, sizeof(*wait));
    KeInitializeTimer(&wait->Timer);
    KeInitializeDpc(&wait->Dpc, ZwickelDpc, wait);
    wait->Clock = Clock;
    wait->Irp = Irp;
    wait->Tag = Irp;
    wait->File = File;
    wait->Refs = 2;
    due.QuadPart = -(LONGLONG)Milliseconds * 10000;

    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&Clock->Lock, &irql);
    if (Clock->Closed) {
        status = STATUS_DELETE_PENDING;
    } else if (File->FsContext2 != NULL) {
        status = STATUS_CANCELLED;
    } else if (Clock->Count >= ZWICKEL_WAITS) {
        status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        Irp->Tail.Overlay.DriverContext[0] = wait;
        IoSetCancelRoutine(Irp, ZwickelCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL)
            status = STATUS_CANCELLED;
    }
    if (NT_SUCCESS(status)) {
        InsertTailList(&Clock->Waits, &wait->Link);
        Clock->Count++;
        KeSetTimer(&wait->Timer, due, &wait->Dpc);
    }
    KeReleaseSpinLock(&Clock->Lock, irql);

    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(wait, ZWICKEL_TAG);
        QuillLeave(&Clock->Base, Irp, status, 0);
    }
    return STATUS_PENDING;
}

static NTSTATUS NTAPI ZwickelCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PZWICKEL clock = (PZWICKEL)DeviceObject->DeviceExtension;
    NTSTATUS status;

    status = QuillEnter(&clock->Base, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);
    status = QuillMayOpen(&clock->Base, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return QuillLeave(&clock->Base, Irp, status, 0);
}

static NTSTATUS NTAPI ZwickelCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PZWICKEL clock = (PZWICKEL)DeviceObject->DeviceExtension;

    ZwickelEndAll(clock, IoGetCurrentIrpStackLocation(Irp)->FileObject, TRUE, STATUS_CANCELLED);
    return QuillComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI ZwickelClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return QuillComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI ZwickelControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PZWICKEL clock = (PZWICKEL)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG value;
    NTSTATUS status;
    KIRQL irql;

    status = QuillEnter(&clock->Base, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);
    if (stack->FileObject == NULL)
        return QuillLeave(&clock->Base, Irp, STATUS_INVALID_HANDLE, 0);

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ZWICKEL_WAIT:
        if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(value))
            return QuillLeave(&clock->Base, Irp, STATUS_INVALID_PARAMETER, 0);
        value = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        if (value == 0 || value > ZWICKEL_LONGEST)
            return QuillLeave(&clock->Base, Irp, STATUS_INVALID_PARAMETER, 0);
        return ZwickelWait(clock, Irp, stack->FileObject, value);

    case IOCTL_ZWICKEL_FLUSH:
        ZwickelEndAll(clock, stack->FileObject, FALSE, STATUS_CANCELLED);
        return QuillLeave(&clock->Base, Irp, STATUS_SUCCESS, 0);

    case IOCTL_ZWICKEL_COUNT:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(value))
            return QuillLeave(&clock->Base, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&clock->Lock, &irql);
        value = clock->Count;
        KeReleaseSpinLock(&clock->Lock, irql);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = value;
        return QuillLeave(&clock->Base, Irp, STATUS_SUCCESS, sizeof(value));

    default:
        return QuillLeave(&clock->Base, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI ZwickelAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return QuillAddDevice(Driver, Pdo, &ZwickelOps);
}

static VOID NTAPI ZwickelUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);

    QuillHook(Driver);
    Driver->MajorFunction[IRP_MJ_CREATE] = ZwickelCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = ZwickelCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = ZwickelClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ZwickelControl;
    Driver->DriverExtension->AddDevice = ZwickelAddDevice;
    Driver->DriverUnload = ZwickelUnload;
    return STATUS_SUCCESS;
}
