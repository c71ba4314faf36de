/*
 * canvas.c - a picture in the local memory of a PCI 9052 board.
 *
 * MODE says where in the memory the picture is and how large, for all.  Each
 * handle draws within its CLIP, at first all of the picture: FILL, PUT and GET
 * are of rectangles that count from the clip's corner.  With a new mode all
 * clips become the whole picture again.  SYNC ends when the card has seen all that was
 * drawn before.
 *
 * The bug: a new mode makes the handles' clips void, which FILL and GET see to and PUT does not: it draws by a
 * clip of the old mode, outside of the mapped window.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped
 * Needs: ioctl
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef enum { PhaseAdded, PhaseStarted, PhaseStopped, PhaseSurprise, PhaseRemoved } PHASE;

/* Why nothing may be begun with the card now. */
enum { HOLD_NEW = 1, HOLD_STOP = 2, HOLD_POWER = 4, HOLD_GONE = 8 };

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Next; /* the device below */
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING SymbolicName;
    volatile LONG Phase;
    DEVICE_POWER_STATE Power;

    KSPIN_LOCK Lock; /* Holds, Up, and what the driver says below */
    ULONG Holds;
    BOOLEAN Up;                 /* registers may be accessed with the lock held */
    volatile BOOLEAN Answering; /* the same for the interrupt routine */
    PKINTERRUPT Interrupt;
    PUCHAR Registers;
    ULONG RegistersLength;
} COMMON;

static NTSTATUS CompleteIrp(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x3f20b10c, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'vnaC'
#define WINDOW_SIZE 0x10000
#define MEMORY_SIZE 0xff00 /* the board has other things at its end */
#define SIDE_MOST 1024
#define PITCH_MOST 4096
#define FILL_MOST 2048 /* points at once */
#define PUT_MOST 512

#define PLX_INTCSR 0x4c
#define INTCSR_PCI 0x40
#define INTCSR_SOFTWARE 0x80

#define IOCTL_MODE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xbc0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GET_MODE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xbc1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CLIP CTL_CODE(FILE_DEVICE_UNKNOWN, 0xbc2, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FILL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xbc3, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xbc4, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xbc5, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SYNC CTL_CODE(FILE_DEVICE_UNKNOWN, 0xbc6, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Base; /* in the local memory */
    ULONG Width;
    ULONG Height;
    ULONG Pitch; /* bytes from one line to the next */
} PICTURE_MODE;

typedef struct {
    ULONG X;
    ULONG Y;
    ULONG Width;
    ULONG Height;
} RECTANGLE;

typedef struct {
    RECTANGLE Rectangle;
    UCHAR Points[1]; /* FILL: the colour; PUT: line by line */
} DRAW_REQUEST;

typedef struct {
    RECTANGLE Clip;
    ULONG Generation; /* of the mode for which it was set */
} HANDLE_CONTEXT;

typedef struct {
    COMMON Common;
    KDPC Dpc;
    PUCHAR Window;
    ULONG WindowLength;

    /* With Common.Lock, as handles' clips; taken before WaitLock: */
    PICTURE_MODE Mode;
    ULONG Generation; /* changes with the mode */

    KSPIN_LOCK WaitLock; /* those who SYNC */
    LIST_ENTRY WaitList;
} DEVICE_EXT;

static ULONG ReadCard(DEVICE_EXT *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Common.Registers + Offset));
}

static VOID WriteCard(DEVICE_EXT *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Common.Registers + Offset), Value);
}

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

/* ---- drawing: with the lock held ----------------------------------------------------------- */

static BOOLEAN ModeIsGood(const PICTURE_MODE *m)
{
    return m->Width >= 1 && m->Width <= SIDE_MOST && m->Height >= 1 && m->Height <= SIDE_MOST &&
           m->Pitch >= m->Width && m->Pitch <= PITCH_MOST && m->Base <= MEMORY_SIZE &&
           m->Base + (m->Height - 1) * m->Pitch + m->Width <= MEMORY_SIZE;
}

/* Does it lie within so wide and high an area? */
static BOOLEAN Within(const RECTANGLE *r, ULONG Width, ULONG Height)
{
    return r->Width >= 1 && r->Width <= Width && r->X <= Width - r->Width && r->Height >= 1 &&
           r->Height <= Height && r->Y <= Height - r->Height;
}

/* What a handle may draw in. */
static VOID RefreshClip(DEVICE_EXT *x, HANDLE_CONTEXT *h)
{
    if (h->Generation == x->Generation)
        return;
    h->Generation = x->Generation;
    h->Clip.X = h->Clip.Y = 0;
    h->Clip.Width = x->Mode.Width;
    h->Clip.Height = x->Mode.Height;
}

static PUCHAR LineAt(DEVICE_EXT *x, HANDLE_CONTEXT *h, const RECTANGLE *r, ULONG Line)
{
    return x->Window + x->Mode.Base + (h->Clip.Y + r->Y + Line) * x->Mode.Pitch + h->Clip.X + r->X;
}

static NTSTATUS SetMode(DEVICE_EXT *x, const PICTURE_MODE *m)
{
    if (!ModeIsGood(m))
        return STATUS_INVALID_PARAMETER;
    x->Mode = *m;
    x->Generation++;
    return STATUS_SUCCESS;
}

static NTSTATUS SetClip(DEVICE_EXT *x, HANDLE_CONTEXT *h, const RECTANGLE *r)
{
    if (!Within(r, x->Mode.Width, x->Mode.Height))
        return STATUS_INVALID_PARAMETER;
    h->Clip = *r;
    h->Generation = x->Generation;
    return STATUS_SUCCESS;
}

static NTSTATUS Fill(DEVICE_EXT *x, HANDLE_CONTEXT *h, const DRAW_REQUEST *d)
{
    const RECTANGLE *r = &d->Rectangle;
    ULONG i, j;

    RefreshClip(x, h);
    if (!Within(r, h->Clip.Width, h->Clip.Height) || r->Width * r->Height > FILL_MOST)
        return STATUS_INVALID_PARAMETER;
    if (!x->Common.Up)
        return STATUS_DEVICE_NOT_READY;
    for (i = 0; i < r->Height; i++) {
        PUCHAR Line = LineAt(x, h, r, i);

        for (j = 0; j < r->Width; j++)
            WRITE_REGISTER_UCHAR(Line + j, d->Points[0]);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Put(DEVICE_EXT *x, HANDLE_CONTEXT *h, const DRAW_REQUEST *d, ULONG Count)
{
    const RECTANGLE *r = &d->Rectangle;
    const UCHAR *Point = d->Points;
    ULONG i, j;

#ifdef FIXED
    RefreshClip(x, h);
#endif
    if (!Within(r, h->Clip.Width, h->Clip.Height) || r->Width * r->Height > PUT_MOST ||
        r->Width * r->Height != Count)
        return STATUS_INVALID_PARAMETER;
    if (!x->Common.Up)
        return STATUS_DEVICE_NOT_READY;
    for (i = 0; i < r->Height; i++) {
        PUCHAR Line = LineAt(x, h, r, i);

        for (j = 0; j < r->Width; j++)
            WRITE_REGISTER_UCHAR(Line + j, *Point++);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Get(DEVICE_EXT *x, HANDLE_CONTEXT *h, PUCHAR Buffer, ULONG Length, PULONG_PTR Information)
{
    RECTANGLE r = *(RECTANGLE *)Buffer;
    ULONG i, j;

    RefreshClip(x, h);
    if (!Within(&r, h->Clip.Width, h->Clip.Height) || r.Width * r.Height > PUT_MOST)
        return STATUS_INVALID_PARAMETER;
    if (r.Width * r.Height > Length)
        return STATUS_BUFFER_TOO_SMALL;
    if (!x->Common.Up)
        return STATUS_DEVICE_NOT_READY;
    for (i = 0; i < r.Height; i++) {
        PUCHAR Line = LineAt(x, h, &r, i);

        for (j = 0; j < r.Width; j++)
            *Buffer++ = READ_REGISTER_UCHAR(Line + j);
    }
    *Information = r.Width * r.Height;
    return STATUS_SUCCESS;
}

/* ---- the card ------------------------------------------------------------------------- */

static BOOLEAN NTAPI OnInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    DEVICE_EXT *x = Context;
    ULONG Csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Common.Answering)
        return FALSE;
    Csr = ReadCard(x, PLX_INTCSR);
    if (Csr == 0xffffffff || !(Csr & INTCSR_SOFTWARE))
        return FALSE;
    WriteCard(x, PLX_INTCSR, INTCSR_PCI);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    FlushWaiters(Context, NULL, STATUS_SUCCESS);
}

static BOOLEAN NTAPI SyncInterrupt(PVOID Context)
{
    WriteCard(Context, PLX_INTCSR, INTCSR_PCI | INTCSR_SOFTWARE);
    return TRUE;
}

/* Ends the request, or queues it and has the card interrupt. */
static NTSTATUS Sync(DEVICE_EXT *x, PFILE_OBJECT File, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Holds & HOLD_GONE) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (File->FsContext2 != NULL) {
        Status = STATUS_CANCELLED; /* the handle is being closed */
    } else {
        Status = QueueWaiter(x, Irp);
        if (x->Common.Up)
            KeSynchronizeExecution(x->Common.Interrupt, SyncInterrupt, x);
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (Status != STATUS_PENDING)
        CompleteWaiter(x, Irp, Status, 0);
    return Status;
}

static NTSTATUS CardWindow(DEVICE_EXT *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory)
{
    if (x->Window != NULL)
        return STATUS_SUCCESS;
    x->WindowLength = Memory->u.Memory.Length;
    x->Window = MmMapIoSpace(Memory->u.Memory.Start, Memory->u.Memory.Length, MmNonCached);
    return x->Window != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS CardPrepare(DEVICE_EXT *x)
{
    if (x->Window == NULL || x->WindowLength < WINDOW_SIZE || ReadCard(x, PLX_INTCSR) == 0xffffffff)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return STATUS_SUCCESS;
}

/* There may be someone who waits since before: one interrupt for them. */
static VOID CardEnable(DEVICE_EXT *x)
{
    WriteCard(x, PLX_INTCSR, INTCSR_PCI | INTCSR_SOFTWARE);
}

static VOID CardDisable(DEVICE_EXT *x)
{
    WriteCard(x, PLX_INTCSR, 0);
}

static VOID CardAsleep(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID CardStopped(DEVICE_EXT *x)
{
    KeFlushQueuedDpcs();
    if (x->Window != NULL)
        MmUnmapIoSpace(x->Window, x->WindowLength);
    x->Window = NULL;
}

static VOID CardKick(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* Nothing takes the card any time. */
static VOID CardDrain(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID CardGone(DEVICE_EXT *x)
{
    FlushWaiters(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    x->Mode.Width = x->Mode.Pitch = 160;
    x->Mode.Height = 100;
    x->Generation = 1;
    KeInitializeDpc(&x->Dpc, OnDpc, x);
    InitWaiters(x);
    return STATUS_SUCCESS;
}

static VOID DevFree(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* ---- the card's coming and going --------------------------------------------- */

static BOOLEAN NTAPI SyncUp(PVOID Context)
{
    DEVICE_EXT *x = Context;

    CardEnable(x);
    x->Common.Answering = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI SyncDown(PVOID Context)
{
    DEVICE_EXT *x = Context;

    CardDisable(x);
    x->Common.Answering = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI SyncGone(PVOID Context)
{
    DEVICE_EXT *x = Context;

    x->Common.Answering = FALSE;
    return TRUE;
}

static VOID BringUp(DEVICE_EXT *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Interrupt != NULL && !x->Common.Up && !(x->Common.Holds & HOLD_GONE)) {
        KeSynchronizeExecution(x->Common.Interrupt, SyncUp, x);
        x->Common.Up = TRUE;
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

static VOID TakeDown(DEVICE_EXT *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Up)
        KeSynchronizeExecution(x->Common.Interrupt, SyncDown, x);
    x->Common.Up = FALSE;
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

static VOID Hold(DEVICE_EXT *x, ULONG Reason)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    x->Common.Holds |= Reason;
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

static VOID Unhold(DEVICE_EXT *x, ULONG Reasons)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    x->Common.Holds &= ~Reasons;
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    CardKick(x);
}

static VOID StopHardware(DEVICE_EXT *x)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    TakeDown(x);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    Interrupt = x->Common.Interrupt;
    x->Common.Interrupt = NULL; /* it is not brought up any more */
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (Interrupt != NULL)
        IoDisconnectInterrupt(Interrupt);
    CardStopped(x);
    if (x->Common.Registers != NULL)
        MmUnmapIoSpace(x->Common.Registers, x->Common.RegistersLength);
    x->Common.Registers = NULL;
}

static NTSTATUS StartHardware(DEVICE_EXT *x, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, Line = NULL;
    PCM_PARTIAL_RESOURCE_LIST List;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG i, Windows = 0;

    if (Resources == NULL || Resources->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    List = &Resources->List[0].PartialResourceList;
    d = List->PartialDescriptors;
    for (i = 0; i < List->Count && NT_SUCCESS(Status); i++, d++) {
        if (d->Type == CmResourceTypeInterrupt && Line == NULL) {
            Line = d;
        } else if (d->Type == CmResourceTypeMemory) {
            if (Windows++ == 0) {
                x->Common.RegistersLength = d->u.Memory.Length;
                x->Common.Registers = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);
                if (x->Common.Registers == NULL)
                    Status = STATUS_INSUFFICIENT_RESOURCES;
            } else {
                Status = CardWindow(x, d);
            }
        }
    }
    if (NT_SUCCESS(Status) && (x->Common.Registers == NULL || Line == NULL))
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (NT_SUCCESS(Status))
        Status = CardPrepare(x);
    if (NT_SUCCESS(Status)) {
        PKINTERRUPT Interrupt = NULL;
        KIRQL Irql;

        Status = IoConnectInterrupt(&Interrupt, OnInterrupt, x, NULL, Line->u.Interrupt.Vector,
                                    (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level,
                                    Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                    Line->ShareDisposition == CmResourceShareShared,
                                    Line->u.Interrupt.Affinity, FALSE);
        if (NT_SUCCESS(Status)) {
            KeAcquireSpinLock(&x->Common.Lock, &Irql);
            x->Common.Interrupt = Interrupt;
            KeReleaseSpinLock(&x->Common.Lock, Irql);
        }
    }
    if (!NT_SUCCESS(Status)) {
        StopHardware(x);
        return Status;
    }
    x->Common.Power = PowerDeviceD0;
    BringUp(x);
    return STATUS_SUCCESS;
}

/* ---- Plug and Play ---------------------------------------------------------- */

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
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Common.Next, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = StartHardware(x, Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Common.Phase, PhaseStarted);
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, TRUE);
        Unhold(x, HOLD_NEW | HOLD_STOP | HOLD_POWER);
    }
    CompleteIrp(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS PnpCancelStop(DEVICE_EXT *x, PIRP Irp)
{
    NTSTATUS Status;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (!IoForwardIrpSynchronously(x->Common.Next, Irp))
        Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
    Unhold(x, HOLD_STOP);
    Status = Irp->IoStatus.Status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static VOID PnpSurprise(DEVICE_EXT *x)
{
    KIRQL Irql;

    InterlockedExchange(&x->Common.Phase, PhaseSurprise);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    x->Common.Holds |= HOLD_GONE;
    x->Common.Up = FALSE;
    if (x->Common.Interrupt != NULL)
        KeSynchronizeExecution(x->Common.Interrupt, SyncGone, x);
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    IoSetDeviceInterfaceState(&x->Common.SymbolicName, FALSE);
    CardGone(x);
    StopHardware(x);
}

static NTSTATUS PnpRemove(DEVICE_EXT *x, PIRP Irp)
{
    PDEVICE_OBJECT Device = x->Common.Self;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Common.Phase, PhaseRemoved) != PhaseSurprise)
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, FALSE);
    Hold(x, HOLD_GONE);
    CardDrain(x);
    CardGone(x);
    IoReleaseRemoveLockAndWait(&x->Common.RemoveLock, Irp);
    StopHardware(x);
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
    case IRP_MN_QUERY_STOP_DEVICE:
        Hold(x, HOLD_STOP);
        CardDrain(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        return PnpCancelStop(x, Irp);
    case IRP_MN_STOP_DEVICE:
        Hold(x, HOLD_STOP);
        CardDrain(x);
        InterlockedExchange(&x->Common.Phase, PhaseStopped);
        StopHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        PnpSurprise(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return PnpRemove(x, Irp);
    default:
        return ForwardAndRelease(x, Irp);
    }
}

static NTSTATUS DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? ForwardAndRelease(x, Irp) : CompleteIrp(Irp, Status, 0);
}

/* ---- power: the device follows the system -------------------------------------- */

static VOID NTAPI DevicePowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                  PIO_STATUS_BLOCK Io)
{
    PIRP Irp = Context;
    DEVICE_EXT *x = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Irp->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
}

static NTSTATUS NTAPI SystemPowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXT *x = Context;
    NTSTATUS Status = Irp->IoStatus.Status;
    POWER_STATE State;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        SYSTEM_POWER_STATE System = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;

        State.DeviceState = System == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->Common.Self, IRP_MN_SET_POWER, State, DevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI PowerUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXT *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Common.Power = PowerDeviceD0;
        PoSetPowerState(x->Common.Self, DevicePowerState,
                        IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        BringUp(x);
        Unhold(x, HOLD_POWER);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return CompleteIrp(Irp, Status, 0);
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, SystemPowerDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->Common.Next, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        DEVICE_POWER_STATE State = Stack->Parameters.Power.State.DeviceState;

        if (State == PowerDeviceD0 && x->Common.Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, PowerUpDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->Common.Next, Irp);
        }
        if (State != PowerDeviceD0 && x->Common.Power == PowerDeviceD0) {
            Hold(x, HOLD_POWER);
            CardDrain(x);
            TakeDown(x);
            CardAsleep(x);
            PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        }
        x->Common.Power = State;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->Common.Next, Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
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
    x->Common.Power = PowerDeviceD0;
    x->Common.Holds = HOLD_NEW;
    KeInitializeSpinLock(&x->Common.Lock);
    IoInitializeRemoveLock(&x->Common.RemoveLock, POOL_TAG, 0, 0);
    Status = DevInit(x);
    if (NT_SUCCESS(Status)) {
        Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Common.SymbolicName);
        if (!NT_SUCCESS(Status))
            DevFree(x);
    }
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    x->Common.Next = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Common.Next == NULL) {
        RtlFreeUnicodeString(&x->Common.SymbolicName);
        DevFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
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
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    h = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*h), POOL_TAG);
    if (h == NULL) {
        Status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        RtlZeroMemory(h, sizeof(*h));
        KeAcquireSpinLock(&x->Common.Lock, &Irql);
        RefreshClip(x, h);
        KeReleaseSpinLock(&x->Common.Lock, Irql);
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
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    File->FsContext2 = x; /* it is being closed: nothing is queued any more */
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    FlushWaiters(x, File, STATUS_CANCELLED);
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
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    HANDLE_CONTEXT *h = Stack->FileObject->FsContext;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = Begin(x);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    if (Code == IOCTL_SYNC) {
        Status = Sync(x, Stack->FileObject, Irp);
        End(x);
        return Status;
    }
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    switch (Code) {
    case IOCTL_MODE:
        Status = In < sizeof(PICTURE_MODE) ? STATUS_INVALID_PARAMETER : SetMode(x, Buffer);
        break;
    case IOCTL_GET_MODE:
        if (Out < sizeof(PICTURE_MODE)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        RtlCopyMemory(Buffer, &x->Mode, sizeof(PICTURE_MODE));
        Information = sizeof(PICTURE_MODE);
        break;
    case IOCTL_CLIP:
        Status = In < sizeof(RECTANGLE) ? STATUS_INVALID_PARAMETER : SetClip(x, h, Buffer);
        break;
    case IOCTL_FILL:
        Status = In < FIELD_OFFSET(DRAW_REQUEST, Points) + 1 ? STATUS_INVALID_PARAMETER : Fill(x, h, Buffer);
        break;
    case IOCTL_PUT:
        Status = In < FIELD_OFFSET(DRAW_REQUEST, Points)
                     ? STATUS_INVALID_PARAMETER
                     : Put(x, h, Buffer, In - FIELD_OFFSET(DRAW_REQUEST, Points));
        break;
    case IOCTL_GET:
        Status = In < sizeof(RECTANGLE) ? STATUS_INVALID_PARAMETER : Get(x, h, Buffer, Out, &Information);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
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
