/*
 * pager.c - reminders.
 *
 * Every handle has one reminder.  ARM sets it, once or again and again; WAIT
 * ends with the next tick, or at once if ticks have come that no one waited
 * for; DISARM stops it, and sends those away who wait.  STATISTICS says how
 * the handle's reminder has done so far.
 *
 * The bug: CLOSE flushes DPCs only if KeCancelTimer says that the timer was not set; the DPC of a periodic
 * reminder sets it again at its beginning, and may still run when its context is freed.
 *
 * Device: Root\Pager
 * Rule: use-after-free, unload-still-called
 * Needs: ioctl, schedule
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef enum { PhaseAdded, PhaseStarted, PhaseStopped, PhaseSurprise, PhaseRemoved } PHASE;

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Next; /* the device below */
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING SymbolicName;
    volatile LONG Phase;
} COMMON;

static NTSTATUS CompleteIrp(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x3f20b101, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'egaP'
#define LONGEST_MS 60000
#define MOST_MISSED 64

#define IOCTL_ARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb10, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DISARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb11, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb12, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STATISTICS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb13, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG First;  /* milliseconds until the first tick */
    ULONG Period; /* and between the others; 0: there is but one */
    ULONG Cookie; /* is given back with each tick */
} ARM_REQUEST;

typedef struct {
    ULONG Cookie;
    ULONG Sequence;
    ULONG Missed; /* ticks that are still to be had */
} TICK;

typedef struct {
    ULONG Ticks;
    ULONG Delivered;
    ULONG Dropped;
    ULONG Armed;
    ULONGLONG Last; /* interrupt time of the last tick */
} STATISTICS;

typedef struct {
    COMMON Common;
    KSPIN_LOCK Lock; /* reminders and Gone; taken before WaitLock */
    BOOLEAN Gone;
    KSPIN_LOCK WaitLock;
    LIST_ENTRY WaitList;
} DEVICE_EXT;

/* What a handle has. */
typedef struct {
    DEVICE_EXT *Device;
    PFILE_OBJECT File;
    KTIMER Timer;
    KDPC Dpc;
    BOOLEAN Closing; /* the timer is not set any more */
    BOOLEAN Armed;
    ULONG Period;
    ULONG Cookie;
    ULONG Sequence;
    ULONG Missed;
    volatile LONG Delivered; /* counted without the lock */
    STATISTICS Statistics;
} REMINDER;

/* ---- requests that wait ---------------------------------------------------------- */

/* Each of them holds a remove lock. */
static VOID CompleteWaiter(DEVICE_EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    CompleteIrp(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
}

/* Is it of this file, or anyone's if there is none? */
static BOOLEAN IsWanted(PIRP Irp, PVOID Wanted)
{
    return Wanted == NULL || IoGetCurrentIrpStackLocation(Irp)->FileObject == Wanted;
}

static VOID NTAPI CancelWaiter(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->WaitLock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&x->WaitLock, Irql);
    CompleteWaiter(x, Irp, STATUS_CANCELLED, 0);
}

/* STATUS_PENDING: it waits; STATUS_CANCELLED: it has been cancelled already, and the caller is to end it. */
static NTSTATUS QueueWaiter(DEVICE_EXT *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_PENDING;
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    InsertTailList(&x->WaitList, &Irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(Irp, CancelWaiter);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        Status = STATUS_CANCELLED;
    } else {
        IoMarkIrpPending(Irp); /* no one ends it while the lock is held */
    }
    KeReleaseSpinLock(&x->WaitLock, Irql);
    return Status;
}

/* The first request that is wanted, which is the caller's from then on; or NULL. */
static PIRP TakeWaiter(DEVICE_EXT *x, PVOID Wanted)
{
    PLIST_ENTRY e, Following;
    PIRP Taken = NULL;
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    for (e = x->WaitList.Flink; e != &x->WaitList && Taken == NULL; e = Following) {
        PIRP Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        Following = e->Flink;
        if (!IsWanted(Irp, Wanted))
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(Irp, NULL) != NULL)
            Taken = Irp;
        else
            InitializeListHead(e); /* its cancel routine takes it off this one */
    }
    KeReleaseSpinLock(&x->WaitLock, Irql);
    return Taken;
}

static VOID FlushWaiters(DEVICE_EXT *x, PVOID Wanted, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = TakeWaiter(x, Wanted)) != NULL)
        CompleteWaiter(x, Irp, Status, 0);
}

static VOID InitWaiters(DEVICE_EXT *x)
{
    KeInitializeSpinLock(&x->WaitLock);
    InitializeListHead(&x->WaitList);
}

/* ---- ticks ---------------------------------------------------------------------- */

/* With the lock held. */
static VOID SetTimer(REMINDER *r, ULONG Milliseconds)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * Milliseconds;
    KeSetTimer(&r->Timer, Due, &r->Dpc);
}

/* With the lock held, or before anyone else can see the request. */
static VOID FillTick(REMINDER *r, PIRP Irp)
{
    TICK *t = Irp->AssociatedIrp.SystemBuffer;

    t->Cookie = r->Cookie;
    t->Sequence = r->Sequence;
    t->Missed = r->Missed;
}

static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    REMINDER *r = Context;
    DEVICE_EXT *x = r->Device;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (!r->Armed || r->Closing || x->Gone) {
        KeReleaseSpinLockFromDpcLevel(&x->Lock);
        return;
    }
    /* Set again first: how long the rest takes does not matter to the rhythm. */
    if (r->Period != 0)
        SetTimer(r, r->Period);
    else
        r->Armed = FALSE;
    r->Sequence++;
    r->Statistics.Ticks++;
    r->Statistics.Last = KeQueryInterruptTime();
    Irp = TakeWaiter(x, r->File);
    if (Irp != NULL)
        FillTick(r, Irp);
    else if (r->Missed < MOST_MISSED)
        r->Missed++;
    else
        r->Statistics.Dropped++;
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (Irp != NULL) {
        CompleteWaiter(x, Irp, STATUS_SUCCESS, sizeof(TICK));
        InterlockedIncrement(&r->Delivered);
    }
}

static NTSTATUS Arm(DEVICE_EXT *x, REMINDER *r, const ARM_REQUEST *a)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (a->First > LONGEST_MS || a->Period > LONGEST_MS)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Gone) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (r->Closing) {
        Status = STATUS_FILE_CLOSED;
    } else {
        r->Armed = TRUE;
        r->Period = a->Period;
        r->Cookie = a->Cookie;
        r->Missed = 0;
        SetTimer(r, a->First);
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

static VOID Disarm(DEVICE_EXT *x, REMINDER *r)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    r->Armed = FALSE;
    r->Missed = 0;
    KeCancelTimer(&r->Timer);
    KeReleaseSpinLock(&x->Lock, Irql);
    FlushWaiters(x, r->File, STATUS_REQUEST_ABORTED);
}

/* Ends the request, or queues it: then the handle is not to be touched any more. */
static NTSTATUS Wait(DEVICE_EXT *x, REMINDER *r, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Gone) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (r->Closing) {
        Status = STATUS_CANCELLED;
    } else if (r->Missed != 0) {
        r->Missed--;
        InterlockedIncrement(&r->Delivered);
        FillTick(r, Irp);
    } else {
        Status = QueueWaiter(x, Irp);
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Status != STATUS_PENDING)
        CompleteWaiter(x, Irp, Status, NT_SUCCESS(Status) ? sizeof(TICK) : 0);
    return Status;
}

/* ---- the device ------------------------------------------------------------------- */

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    KeInitializeSpinLock(&x->Lock);
    InitWaiters(x);
    return STATUS_SUCCESS;
}

static NTSTATUS DevStart(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

/* There is no hardware: reminders go on. */
static VOID DevStop(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevGone(DEVICE_EXT *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Gone = TRUE;
    KeReleaseSpinLock(&x->Lock, Irql);
    FlushWaiters(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static VOID DevFree(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* ---- Plug and Play, power ------------------------------------------------- */

static NTSTATUS ForwardAndRelease(DEVICE_EXT *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Common.Next, Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS PnpStart(DEVICE_EXT *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Common.Next, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = DevStart(x);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Common.Phase, PhaseStarted);
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, TRUE);
    }
    CompleteIrp(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS PnpRemove(DEVICE_EXT *x, PIRP Irp)
{
    PDEVICE_OBJECT Device = x->Common.Self;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Common.Phase, PhaseRemoved) != PhaseSurprise)
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, FALSE);
    DevGone(x);
    IoReleaseRemoveLockAndWait(&x->Common.RemoveLock, Irp);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Common.Next, Irp);
    DevFree(x);
    RtlFreeUnicodeString(&x->Common.SymbolicName);
    IoDetachDevice(x->Common.Next);
    IoDeleteDevice(Device);
    return Status;
}

static NTSTATUS DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return PnpStart(x, Irp);
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&x->Common.Phase, PhaseStopped);
        DevStop(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->Common.Phase, PhaseSurprise);
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, FALSE);
        DevGone(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return PnpRemove(x, Irp);
    default:
        return ForwardAndRelease(x, Irp);
    }
}

static NTSTATUS DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->Common.Next, Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? ForwardAndRelease(x, Irp) : CompleteIrp(Irp, Status, 0);
}

static NTSTATUS AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    NTSTATUS Status;
    DEVICE_EXT *x;

    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXT), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN,
                            FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->Common.Self = Self;
    x->Common.Pdo = Pdo;
    x->Common.Phase = PhaseAdded;
    IoInitializeRemoveLock(&x->Common.RemoveLock, POOL_TAG, 0, 0);
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Common.SymbolicName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    x->Common.Next = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Common.Next == NULL) {
        RtlFreeUnicodeString(&x->Common.SymbolicName);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Status = DevInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDetachDevice(x->Common.Next);
        RtlFreeUnicodeString(&x->Common.SymbolicName);
        IoDeleteDevice(Self);
        return Status;
    }
    Self->Flags |= DO_POWER_PAGABLE | DO_BUFFERED_IO;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* ---- requests ----------------------------------------------------------------- */

/* Keeps the device while a dispatch routine works on a request. */
static NTSTATUS Begin(DEVICE_EXT *x)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Begin);

    if (NT_SUCCESS(Status) && x->Common.Phase != PhaseStarted && x->Common.Phase != PhaseStopped) {
        IoReleaseRemoveLock(&x->Common.RemoveLock, Begin);
        Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    return Status;
}

static VOID End(DEVICE_EXT *x)
{
    IoReleaseRemoveLock(&x->Common.RemoveLock, Begin);
}

static NTSTATUS DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    NTSTATUS Status = Begin(x);
    REMINDER *r;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    r = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*r), POOL_TAG);
    if (r == NULL) {
        Status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        RtlZeroMemory(r, sizeof(*r));
        r->Device = x;
        r->File = File;
        KeInitializeTimer(&r->Timer);
        KeInitializeDpc(&r->Dpc, OnTick, r);
        File->FsContext = r;
    }
    CompleteIrp(Irp, Status, 0);
    End(x);
    return Status;
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    REMINDER *r = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    r->Closing = TRUE;
    KeReleaseSpinLock(&x->Lock, Irql);
    FlushWaiters(x, r->File, STATUS_CANCELLED);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    REMINDER *r = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(Device);
    /* It is Closing: no one sets the timer again. */
#ifdef FIXED
    KeCancelTimer(&r->Timer);
    KeFlushQueuedDpcs();
#else
    if (!KeCancelTimer(&r->Timer))
        KeFlushQueuedDpcs(); /* the routine may be under way */
#endif
    ExFreePoolWithTag(r, POOL_TAG);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    REMINDER *r = Stack->FileObject->FsContext;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = Begin(x);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ARM:
        Status = In < sizeof(ARM_REQUEST) ? STATUS_INVALID_PARAMETER : Arm(x, r, Buffer);
        break;
    case IOCTL_DISARM:
        Disarm(x, r);
        break;
    case IOCTL_WAIT:
        if (Out < sizeof(TICK)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = Wait(x, r, Irp);
        End(x);
        return Status;
    case IOCTL_STATISTICS:
        if (Out < sizeof(STATISTICS)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Lock, &Irql);
        r->Statistics.Armed = r->Armed;
        r->Statistics.Delivered = r->Delivered;
        RtlCopyMemory(Buffer, &r->Statistics, sizeof(STATISTICS));
        KeReleaseSpinLock(&x->Lock, Irql);
        Information = sizeof(STATISTICS);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    CompleteIrp(Irp, Status, Information);
    End(x);
    return Status;
}

#define GLOBALS
#define ENTRIES Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

static VOID Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    GLOBALS
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    ENTRIES
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    return STATUS_SUCCESS;
}
