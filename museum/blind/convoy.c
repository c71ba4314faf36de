/*
 * convoy.c - tracks on which messages travel.
 *
 * A handle JOINs a track by its name, which gives it a seat; the track is there
 * as long as anyone needs it.  POST puts a message on a track, TAKE gets the
 * next one and waits for it.  LINK sends all that is posted on one track from
 * now on to another, which may be linked itself: it arrives at the last one.
 *
 * The bug: LINK that would make a circle is refused without giving back the reference to the track that was to
 * be linked to.
 *
 * Device: Root\Convoy
 * Rule: pool-leak
 * Needs: ioctl
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

DEFINE_GUID(INTERFACE_GUID, 0x3f20b106, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'vnoC'
#define NAME_SIZE 16
#define SEATS 8
#define MESSAGE_MOST 64
#define WAITING_MOST 8

#define IOCTL_JOIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb60, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LEAVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb61, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LINK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb62, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_UNLINK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb63, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_POST CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb64, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb65, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG From; /* seats of the handle */
    ULONG To;
} LINK_REQUEST;

typedef struct {
    ULONG Seat;
    UCHAR Data[1];
} POST_REQUEST;

typedef struct {
    LIST_ENTRY Entry;
    ULONG Length;
    UCHAR Data[MESSAGE_MOST];
} MESSAGE;

typedef struct TRACK {
    LIST_ENTRY Entry;
    LONG References; /* seats, requests that wait, links to it */
    UCHAR Name[NAME_SIZE];
    struct TRACK *Forward; /* with a reference */
    ULONG Waiting;
    LIST_ENTRY Messages;
} TRACK;

typedef struct {
    COMMON Common;
    KSPIN_LOCK Lock; /* tracks, seats, Gone; taken before WaitLock */
    BOOLEAN Gone;
    LIST_ENTRY Tracks;
    KSPIN_LOCK WaitLock;
    LIST_ENTRY WaitList;
} DEVICE_EXT;

typedef struct {
    BOOLEAN Closing;
    TRACK *Seats[SEATS];
} HANDLE_CONTEXT;

/* Which request is wanted: one for this track, or of this file, or any. */
typedef struct {
    TRACK *Track;
    PFILE_OBJECT File;
} WANTED;

#define TRACK_OF(Irp) ((TRACK *)(Irp)->Tail.Overlay.DriverContext[0])

/* ---- tracks: with the lock held ------------------------------------------------------ */

static VOID DereferenceTrack(TRACK *t)
{
    while (t != NULL && --t->References == 0) {
        TRACK *Forward = t->Forward;

        RemoveEntryList(&t->Entry);
        while (!IsListEmpty(&t->Messages))
            ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&t->Messages), MESSAGE, Entry), POOL_TAG);
        ExFreePoolWithTag(t, POOL_TAG);
        t = Forward;
    }
}

static TRACK *FindTrack(DEVICE_EXT *x, const UCHAR *Name)
{
    PLIST_ENTRY e;

    for (e = x->Tracks.Flink; e != &x->Tracks; e = e->Flink) {
        TRACK *t = CONTAINING_RECORD(e, TRACK, Entry);

        if (RtlCompareMemory(t->Name, Name, NAME_SIZE) == NAME_SIZE)
            return t;
    }
    return NULL;
}

/* The track in a seat with a reference for the caller. */
static NTSTATUS ReferenceSeat(HANDLE_CONTEXT *h, ULONG Seat, TRACK **Track)
{
    if (Seat >= SEATS)
        return STATUS_INVALID_PARAMETER;
    if (h->Closing || h->Seats[Seat] == NULL)
        return STATUS_NOT_FOUND;
    *Track = h->Seats[Seat];
    (*Track)->References++;
    return STATUS_SUCCESS;
}

/* ---- requests that wait ------------------------------------------------------------------ */

/* A request that waits has its track, and the device by a remove lock. */
static VOID CompleteWaiter(DEVICE_EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    DereferenceTrack(TRACK_OF(Irp));
    KeReleaseSpinLock(&x->Lock, Irql);
    CompleteIrp(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
}

static BOOLEAN IsWanted(PIRP Irp, PVOID Wanted)
{
    WANTED *w = Wanted;

    return w == NULL || (w->Track != NULL && TRACK_OF(Irp) == w->Track) ||
           (w->File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject == w->File);
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

static ULONG FillMessage(PIRP Irp, const MESSAGE *m)
{
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, m->Data, m->Length);
    return m->Length;
}

/* ---- what is asked -------------------------------------------------------------------- */

static NTSTATUS Join(DEVICE_EXT *x, HANDLE_CONTEXT *h, const UCHAR *Name, PULONG Seat)
{
    NTSTATUS Status = STATUS_SUCCESS;
    TRACK *t, *Spare;
    KIRQL Irql;
    ULONG i;

    if (Name[0] == 0)
        return STATUS_OBJECT_NAME_INVALID;
    Spare = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*Spare), POOL_TAG);
    if (Spare == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&x->Lock, &Irql);
    for (i = 0; i < SEATS && h->Seats[i] != NULL; i++)
        ;
    if (x->Gone) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (h->Closing) {
        Status = STATUS_FILE_CLOSED;
    } else if (i == SEATS) {
        Status = STATUS_QUOTA_EXCEEDED;
    } else {
        t = FindTrack(x, Name);
        if (t == NULL) {
            t = Spare;
            Spare = NULL;
            RtlZeroMemory(t, sizeof(*t));
            RtlCopyMemory(t->Name, Name, NAME_SIZE);
            InitializeListHead(&t->Messages);
            InsertTailList(&x->Tracks, &t->Entry);
        }
        t->References++;
        h->Seats[i] = t;
        *Seat = i;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Spare != NULL)
        ExFreePoolWithTag(Spare, POOL_TAG);
    return Status;
}

static NTSTATUS Leave(DEVICE_EXT *x, HANDLE_CONTEXT *h, ULONG Seat)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (Seat >= SEATS)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&x->Lock, &Irql);
    if (h->Seats[Seat] != NULL) {
        DereferenceTrack(h->Seats[Seat]);
        h->Seats[Seat] = NULL;
    } else {
        Status = STATUS_NOT_FOUND;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

static NTSTATUS Link(DEVICE_EXT *x, HANDLE_CONTEXT *h, const LINK_REQUEST *l)
{
    TRACK *From = NULL, *To = NULL, *t;
    NTSTATUS Status;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    Status = ReferenceSeat(h, l->From, &From);
    if (!NT_SUCCESS(Status))
        goto Out;
    Status = ReferenceSeat(h, l->To, &To);
    if (!NT_SUCCESS(Status))
        goto Out;
    if (From->Forward != NULL) {
        Status = STATUS_OBJECT_NAME_COLLISION;
        goto Refuse;
    }
    /* Nothing may come back to where it was posted. */
    for (t = To; t != NULL; t = t->Forward) {
        if (t == From) {
            Status = STATUS_INVALID_PARAMETER_MIX;
#ifdef FIXED
            goto Refuse;
#else
            goto Out;
#endif
        }
    }
    From->Forward = To; /* and the link has its reference */
    goto Out;
Refuse:
    DereferenceTrack(To);
Out:
    DereferenceTrack(From);
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

static NTSTATUS Unlink(DEVICE_EXT *x, HANDLE_CONTEXT *h, ULONG Seat)
{
    TRACK *From, *To;
    NTSTATUS Status;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    Status = ReferenceSeat(h, Seat, &From);
    if (NT_SUCCESS(Status)) {
        To = From->Forward;
        From->Forward = NULL;
        DereferenceTrack(To);
        DereferenceTrack(From);
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

static NTSTATUS Post(DEVICE_EXT *x, HANDLE_CONTEXT *h, const POST_REQUEST *p, ULONG Length)
{
    WANTED w = { NULL, NULL };
    PIRP Receiver = NULL;
    ULONG Count = 0;
    NTSTATUS Status;
    MESSAGE *m;
    TRACK *t;
    KIRQL Irql;

    if (Length < sizeof(ULONG) || Length - sizeof(ULONG) > MESSAGE_MOST)
        return STATUS_INVALID_PARAMETER;
    m = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*m), POOL_TAG);
    if (m == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    m->Length = Length - sizeof(ULONG);
    RtlCopyMemory(m->Data, p->Data, m->Length);
    KeAcquireSpinLock(&x->Lock, &Irql);
    if (p->Seat >= SEATS) {
        Status = STATUS_INVALID_PARAMETER;
    } else if (h->Closing || h->Seats[p->Seat] == NULL) {
        Status = STATUS_NOT_FOUND;
    } else {
        for (t = h->Seats[p->Seat]; t->Forward != NULL; t = t->Forward)
            ;
        Status = STATUS_SUCCESS;
        w.Track = t;
        Receiver = TakeWaiter(x, &w);
        if (Receiver != NULL) {
            Count = FillMessage(Receiver, m);
        } else if (t->Waiting == WAITING_MOST) {
            Status = STATUS_DEVICE_BUSY;
        } else {
            InsertTailList(&t->Messages, &m->Entry);
            t->Waiting++;
            m = NULL;
        }
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Receiver != NULL)
        CompleteWaiter(x, Receiver, STATUS_SUCCESS, Count);
    if (m != NULL)
        ExFreePoolWithTag(m, POOL_TAG);
    return Status;
}

/* Ends the request, or queues it: then the handle is not to be touched any more. */
static NTSTATUS Take(DEVICE_EXT *x, HANDLE_CONTEXT *h, PIRP Irp)
{
    ULONG Seat = *(PULONG)Irp->AssociatedIrp.SystemBuffer, Count = 0;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);
    TRACK *t = NULL;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    KeAcquireSpinLock(&x->Lock, &Irql);
    Status = x->Gone ? STATUS_DEVICE_NOT_CONNECTED : ReferenceSeat(h, Seat, &t);
    Irp->Tail.Overlay.DriverContext[0] = t;
    if (NT_SUCCESS(Status)) {
        if (t->Waiting != 0) {
            MESSAGE *m = CONTAINING_RECORD(RemoveHeadList(&t->Messages), MESSAGE, Entry);

            t->Waiting--;
            Count = FillMessage(Irp, m);
            ExFreePoolWithTag(m, POOL_TAG);
        } else {
            Status = QueueWaiter(x, Irp);
        }
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Status != STATUS_PENDING)
        CompleteWaiter(x, Irp, Status, Count);
    return Status;
}

/* ---- the device ------------------------------------------------------------------- */

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Tracks);
    InitWaiters(x);
    return STATUS_SUCCESS;
}

static NTSTATUS DevStart(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

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
    UNREFERENCED_PARAMETER(x); /* tracks have ended with the handles */
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
    NTSTATUS Status = Begin(x);
    HANDLE_CONTEXT *h;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    h = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*h), POOL_TAG);
    if (h == NULL) {
        Status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        RtlZeroMemory(h, sizeof(*h));
        IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = h;
    }
    CompleteIrp(Irp, Status, 0);
    End(x);
    return Status;
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    WANTED w = { NULL, File };
    HANDLE_CONTEXT *h = File->FsContext;
    KIRQL Irql;
    ULONG i;

    KeAcquireSpinLock(&x->Lock, &Irql);
    h->Closing = TRUE;
    for (i = 0; i < SEATS; i++) {
        DereferenceTrack(h->Seats[i]);
        h->Seats[i] = NULL;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    FlushWaiters(x, &w, STATUS_CANCELLED);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, POOL_TAG);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    HANDLE_CONTEXT *h = Stack->FileObject->FsContext;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = Begin(x);

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_JOIN:
        if (In < NAME_SIZE || Out < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = Join(x, h, Buffer, Buffer);
        Information = NT_SUCCESS(Status) ? sizeof(ULONG) : 0;
        break;
    case IOCTL_LEAVE:
        Status = In < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : Leave(x, h, *(PULONG)Buffer);
        break;
    case IOCTL_LINK:
        Status = In < sizeof(LINK_REQUEST) ? STATUS_INVALID_PARAMETER : Link(x, h, Buffer);
        break;
    case IOCTL_UNLINK:
        Status = In < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : Unlink(x, h, *(PULONG)Buffer);
        break;
    case IOCTL_POST:
        Status = Post(x, h, Buffer, In);
        break;
    case IOCTL_TAKE:
        if (In < sizeof(ULONG) || Out < MESSAGE_MOST) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = Take(x, h, Irp);
        End(x);
        return Status;
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
