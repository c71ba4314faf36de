/*
 * drovik: alarm clock for applications. Each open handle has one alarm: IOCTL_DROVIK_ARM sets it (and replaces the one
 * that is set), IOCTL_DROVIK_DISARM takes it back, IOCTL_DROVIK_WAIT is pended until the alarm goes off.
 *
 * The bug: when an alarm is replaced, its timer is cancelled but the block is left to its DPC, which will not run any
 * more; the block and its references to the handle's state and to the remove lock stay, and the removal never ends.
 *
 * Device: ROOT\DROVIK
 * Rule: deadlock
 * Needs: ioctl, removal
 */
#include "../include/perch_pnp.h"

#define DROVIK_TAG          'vorD'
#define DROVIK_MAX_MS       86400000u
#define DROVIK_MAX_UNREAD   1000u

#define IOCTL_DROVIK_ARM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DROVIK_DISARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DROVIK_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x903, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* {6B0E6B52-2C1D-4B6A-9E0B-5C9A3F7D1101} */
static const GUID DrovikInterface = { 0x6b0e6b52, 0x2c1d, 0x4b6a, { 0x9e, 0x0b, 0x5c, 0x9a, 0x3f, 0x7d, 0x11, 0x01 } };

typedef struct _DROVIK_ARM {            /* input of IOCTL_DROVIK_ARM */
    ULONG Milliseconds;
    ULONG Cookie;
} DROVIK_ARM, *PDROVIK_ARM;

typedef struct _DROVIK_EVENT {          /* output of IOCTL_DROVIK_WAIT */
    ULONG Cookie;                       /* of the last alarm that went off */
    ULONG Unread;                       /* alarms that went off and were not waited for yet */
} DROVIK_EVENT, *PDROVIK_EVENT;

typedef struct _DROVIK_EXT {
    PERCH_BASE Base;
    KSPIN_LOCK Lock;                    /* handles, their alarms and their waits */
    LIST_ENTRY Handles;
} DROVIK_EXT, *PDROVIK_EXT;

/* One reference by the file object, one by every alarm. */
typedef struct _DROVIK_HANDLE {
    LIST_ENTRY Link;
    PDROVIK_EXT Ext;
    volatile LONG Refs;
    BOOLEAN Closed;
    struct _DROVIK_ALARM *Current;
    LIST_ENTRY Waits;
    ULONG Unread;
    ULONG LastCookie;
} DROVIK_HANDLE, *PDROVIK_HANDLE;

/* Holds a reference to its handle and the remove lock; ended by its DPC or by the one who cancels its timer. */
typedef struct _DROVIK_ALARM {
    LIST_ENTRY Link;
    PDROVIK_HANDLE Handle;
    ULONG Cookie;
    KTIMER Timer;
    KDPC Dpc;
} DROVIK_ALARM, *PDROVIK_ALARM;

static VOID DrovikRelease(PDROVIK_HANDLE Handle)
{
    if (InterlockedDecrement(&Handle->Refs) == 0)
        ExFreePoolWithTag(Handle, DROVIK_TAG);
}

/* The alarm is no longer current and its timer and DPC are idle. */
static VOID DrovikAlarmDone(PDROVIK_ALARM Alarm)
{
    PDROVIK_HANDLE Handle = Alarm->Handle;
    PDROVIK_EXT Ext = Handle->Ext;

    DrovikRelease(Handle);
    ExFreePoolWithTag(Alarm, DROVIK_TAG);
    IoReleaseRemoveLock(&Ext->Base.RemoveLock, Alarm);
}

/* Lock held. Takes the current alarm off; it is put on List if it is the caller's to end. */
static VOID DrovikStopLocked(PDROVIK_HANDLE Handle, PLIST_ENTRY List)
{
    PDROVIK_ALARM Alarm = Handle->Current;

    if (Alarm == NULL)
        return;
    Handle->Current = NULL;
    if (KeCancelTimer(&Alarm->Timer))
        InsertTailList(List, &Alarm->Link);
}

/* Lock held. Moves all waits that are not being cancelled to List. */
static VOID DrovikTakeWaits(PDROVIK_HANDLE Handle, PLIST_ENTRY List)
{
    PLIST_ENTRY Entry;
    PIRP Irp;

    while (!IsListEmpty(&Handle->Waits)) {
        Entry = RemoveHeadList(&Handle->Waits);
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (IoSetCancelRoutine(Irp, NULL) != NULL)
            InsertTailList(List, Entry);
        else
            InitializeListHead(Entry);          /* its cancel routine ends it */
    }
}

/* Lock held. The oldest wait that is not being cancelled, or NULL. */
static PIRP DrovikTakeWait(PDROVIK_HANDLE Handle)
{
    PLIST_ENTRY Entry;
    PIRP Irp;

    while (!IsListEmpty(&Handle->Waits)) {
        Entry = RemoveHeadList(&Handle->Waits);
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (IoSetCancelRoutine(Irp, NULL) != NULL)
            return Irp;
        InitializeListHead(Entry);
    }
    return NULL;
}

static VOID DrovikEndLists(PDROVIK_EXT Ext, PLIST_ENTRY Alarms, PLIST_ENTRY Waits, NTSTATUS Status)
{
    PLIST_ENTRY Entry;

    while (!IsListEmpty(Waits)) {
        Entry = RemoveHeadList(Waits);
        PerchFinish(&Ext->Base, CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry), Status, 0);
    }
    while (!IsListEmpty(Alarms)) {
        Entry = RemoveHeadList(Alarms);
        DrovikAlarmDone(CONTAINING_RECORD(Entry, DROVIK_ALARM, Link));
    }
}

static VOID NTAPI DrovikCancelWait(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDROVIK_EXT Ext = (PDROVIK_EXT)DeviceObject->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    PerchFinish(&Ext->Base, Irp, STATUS_CANCELLED, 0);
}

static ULONG DrovikReport(PIRP Irp, ULONG Cookie, ULONG Unread)
{
    PDROVIK_EVENT Event = (PDROVIK_EVENT)Irp->AssociatedIrp.SystemBuffer;

    Event->Cookie = Cookie;
    Event->Unread = Unread;
    return sizeof(*Event);
}

static VOID NTAPI DrovikDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDROVIK_ALARM Alarm = (PDROVIK_ALARM)Context;
    PDROVIK_HANDLE Handle = Alarm->Handle;
    PDROVIK_EXT Ext = Handle->Ext;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);

    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    if (Handle->Current == Alarm) {
        Handle->Current = NULL;
        Irp = DrovikTakeWait(Handle);
        if (Irp == NULL) {
            Handle->LastCookie = Alarm->Cookie;
            if (Handle->Unread < DROVIK_MAX_UNREAD)
                Handle->Unread++;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);

    if (Irp != NULL)
        PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, DrovikReport(Irp, Alarm->Cookie, 0));
    DrovikAlarmDone(Alarm);
}

static NTSTATUS DrovikArm(PDROVIK_EXT Ext, PDROVIK_HANDLE Handle, const DROVIK_ARM *Request)
{
    PDROVIK_ALARM Alarm, Old = NULL;
    LARGE_INTEGER Due;
    NTSTATUS Status;
    KIRQL Irql;

    if (Request->Milliseconds == 0 || Request->Milliseconds > DROVIK_MAX_MS)
        return STATUS_INVALID_PARAMETER;
    Alarm = (PDROVIK_ALARM)ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*Alarm), DROVIK_TAG);
    if (Alarm == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Alarm->Handle = Handle;
    Alarm->Cookie = Request->Cookie;
    KeInitializeTimer(&Alarm->Timer);
    KeInitializeDpc(&Alarm->Dpc, DrovikDpc, Alarm);
    Due.QuadPart = -10000LL * Request->Milliseconds;

    Status = IoAcquireRemoveLock(&Ext->Base.RemoveLock, Alarm);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Alarm, DROVIK_TAG);
        return STATUS_DELETE_PENDING;
    }

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Status = Handle->Closed ? STATUS_FILE_CLOSED : PerchStateStatus(&Ext->Base);
    if (NT_SUCCESS(Status)) {
        Old = Handle->Current;
#ifdef FIXED
        if (Old != NULL && !KeCancelTimer(&Old->Timer))
            Old = NULL;                         /* its DPC is under way and ends it */
#else
        if (Old != NULL) {
            KeCancelTimer(&Old->Timer);
            Old = NULL;                         /* its DPC sees that it was replaced and ends it */
        }
#endif
        InterlockedIncrement(&Handle->Refs);
        Handle->Current = Alarm;
        KeSetTimer(&Alarm->Timer, Due, &Alarm->Dpc);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);

    if (Old != NULL)
        DrovikAlarmDone(Old);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Alarm, DROVIK_TAG);
        IoReleaseRemoveLock(&Ext->Base.RemoveLock, Alarm);
    }
    return Status;
}

static VOID DrovikDisarm(PDROVIK_EXT Ext, PDROVIK_HANDLE Handle)
{
    LIST_ENTRY Alarms, Waits;
    KIRQL Irql;

    InitializeListHead(&Alarms);
    InitializeListHead(&Waits);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    DrovikStopLocked(Handle, &Alarms);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    DrovikEndLists(Ext, &Alarms, &Waits, STATUS_SUCCESS);
}

/* Called with the remove lock held for Irp; ends the request or pends it. */
static NTSTATUS DrovikWait(PDROVIK_EXT Ext, PDROVIK_HANDLE Handle, PIRP Irp)
{
    NTSTATUS Status;
    ULONG Cookie;
    ULONG Unread;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Status = Handle->Closed ? STATUS_FILE_CLOSED : PerchStateStatus(&Ext->Base);
    if (!NT_SUCCESS(Status)) {
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return PerchFinish(&Ext->Base, Irp, Status, 0);
    }
    if (Handle->Unread != 0) {
        Unread = --Handle->Unread;
        Cookie = Handle->LastCookie;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, DrovikReport(Irp, Cookie, Unread));
    }
    IoSetCancelRoutine(Irp, DrovikCancelWait);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return PerchFinish(&Ext->Base, Irp, STATUS_CANCELLED, 0);
    }
    /* If a cancel routine is under way it waits for the lock. */
    IoMarkIrpPending(Irp);
    InsertTailList(&Handle->Waits, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DrovikControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDROVIK_EXT Ext = (PDROVIK_EXT)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDROVIK_HANDLE Handle;
    DROVIK_ARM Request;
    NTSTATUS Status;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    Handle = Stack->FileObject != NULL ? (PDROVIK_HANDLE)Stack->FileObject->FsContext : NULL;
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_PARAMETER, 0);

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DROVIK_ARM:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(DROVIK_ARM)) {
            Status = STATUS_INVALID_BUFFER_SIZE;
            break;
        }
        Request = *(PDROVIK_ARM)Irp->AssociatedIrp.SystemBuffer;
        Status = DrovikArm(Ext, Handle, &Request);
        break;

    case IOCTL_DROVIK_DISARM:
        DrovikDisarm(Ext, Handle);
        break;

    case IOCTL_DROVIK_WAIT:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(DROVIK_EVENT)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        return DrovikWait(Ext, Handle, Irp);

    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return PerchFinish(&Ext->Base, Irp, Status, 0);
}

static NTSTATUS NTAPI DrovikCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDROVIK_EXT Ext = (PDROVIK_EXT)DeviceObject->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PDROVIK_HANDLE Handle;
    NTSTATUS Status;
    KIRQL Irql;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    if (File == NULL || File->FileName.Length != 0)
        return PerchFinish(&Ext->Base, Irp, STATUS_OBJECT_NAME_INVALID, 0);
    Handle = (PDROVIK_HANDLE)ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*Handle), DROVIK_TAG);
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(Handle, sizeof(*Handle));
    Handle->Ext = Ext;
    Handle->Refs = 1;
    InitializeListHead(&Handle->Waits);
    File->FsContext = Handle;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    InsertTailList(&Ext->Handles, &Handle->Link);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DrovikCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDROVIK_EXT Ext = (PDROVIK_EXT)DeviceObject->DeviceExtension;
    PDROVIK_HANDLE Handle = (PDROVIK_HANDLE)IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    LIST_ENTRY Alarms, Waits;
    KIRQL Irql;

    InitializeListHead(&Alarms);
    InitializeListHead(&Waits);
    if (Handle != NULL) {
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        if (!Handle->Closed) {
            Handle->Closed = TRUE;
            RemoveEntryList(&Handle->Link);
            DrovikStopLocked(Handle, &Alarms);
            DrovikTakeWaits(Handle, &Waits);
        }
        KeReleaseSpinLock(&Ext->Lock, Irql);
        DrovikEndLists(Ext, &Alarms, &Waits, STATUS_CANCELLED);
    }
    return PerchComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DrovikClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PDROVIK_HANDLE Handle = (PDROVIK_HANDLE)File->FsContext;

    UNREFERENCED_PARAMETER(DeviceObject);
    File->FsContext = NULL;
    if (Handle != NULL)
        DrovikRelease(Handle);
    return PerchComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS PerchOnAdd(PPERCH_BASE Base)
{
    PDROVIK_EXT Ext = (PDROVIK_EXT)Base;

    KeInitializeSpinLock(&Ext->Lock);
    InitializeListHead(&Ext->Handles);
    return STATUS_SUCCESS;
}

static NTSTATUS PerchOnStart(PPERCH_BASE Base)
{
    UNREFERENCED_PARAMETER(Base);
    return STATUS_SUCCESS;
}

static VOID PerchOnHalt(PPERCH_BASE Base)
{
    PDROVIK_EXT Ext = (PDROVIK_EXT)Base;
    LIST_ENTRY Alarms, Waits;
    PLIST_ENTRY Entry;
    PDROVIK_HANDLE Handle;
    NTSTATUS Status;
    KIRQL Irql;

    InitializeListHead(&Alarms);
    InitializeListHead(&Waits);
    Status = Base->State == PERCH_GONE ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    for (Entry = Ext->Handles.Flink; Entry != &Ext->Handles; Entry = Entry->Flink) {
        Handle = CONTAINING_RECORD(Entry, DROVIK_HANDLE, Link);
        DrovikStopLocked(Handle, &Alarms);
        DrovikTakeWaits(Handle, &Waits);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    DrovikEndLists(Ext, &Alarms, &Waits, Status);
}

static VOID PerchOnDelete(PPERCH_BASE Base)
{
    UNREFERENCED_PARAMETER(Base);
    KeFlushQueuedDpcs();                        /* a DPC may have given its lock back and not have returned yet */
}

static NTSTATUS NTAPI DrovikAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return PerchAdd(Driver, Pdo, sizeof(DROVIK_EXT), DROVIK_TAG, &DrovikInterface);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    PerchDriver(Driver, DrovikAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = DrovikCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DrovikCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DrovikClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DrovikControl;
    return STATUS_SUCCESS;
}
