/*
 * printshop.c - a line printer without a printer.
 *
 * Writes go one after the other through the device queue.  The one that is at
 * the printer is put on paper bit by bit, by a timer.  Requests end within a
 * fraction of a second, so that they have no cancel routines: one that was
 * cancelled ends when its turn comes, or with the next tick.
 *
 * The bug: CLEANUP ends the handle's write that is at the printer, and calls IoStartNextPacket at PASSIVE_LEVEL.
 *
 * Device: Root\Printshop
 * Rule: irql-too-low
 * Needs: ioctl
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef enum { StateAdded, StateStarted, StateStopped, StateGone, StateDeleted } PNP_STATE;

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    volatile LONG State;
} PNP_PART;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x9a41d702, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'nruT'
#define PAPER_SIZE 2048
#define WRITE_MOST 256
#define WRITES_MOST 32 /* that may be under way */

#define IOCTL_RATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc20, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PAPER CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc21, METHOD_OUT_DIRECT, FILE_READ_ACCESS)
#define IOCTL_SKIP CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc22, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc23, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Bytes;        /* each tick, 16 to 256 */
    ULONG Milliseconds; /* between ticks, 1 to 20 */
} RATE;

typedef struct {
    ULONG Printed; /* bytes */
    ULONG Writes;  /* that have ended */
    ULONG Skipped;
    ULONG UnderWay;
} STATE;

typedef struct {
    PNP_PART Pnp;

    KSPIN_LOCK Lock;
    BOOLEAN Closed;
    PIRP Current; /* at the printer: who makes it NULL ends it */
    PUCHAR Source;
    ULONG Length, Done;
    KTIMER Timer;
    KDPC Dpc;
    RATE Rate;
    STATE State;
    ULONG PaperHead, PaperUsed;
    UCHAR Paper[PAPER_SIZE];
} DEVICE_EXTENSION;

/* ---- the printer: with the lock held ------------------------------------------- */

static VOID TurnstileSetTimer(DEVICE_EXTENSION *x)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * x->Rate.Milliseconds;
    KeSetTimer(&x->Timer, Due, &x->Dpc);
}

static VOID TurnstilePrint(DEVICE_EXTENSION *x)
{
    ULONG n = x->Length - x->Done, i;

    if (n > x->Rate.Bytes)
        n = x->Rate.Bytes;
    for (i = 0; i < n; i++) {
        x->Paper[x->PaperHead] = x->Source[x->Done + i];
        x->PaperHead = (x->PaperHead + 1) % PAPER_SIZE;
        if (x->PaperUsed < PAPER_SIZE)
            x->PaperUsed++;
    }
    x->Done += n;
    x->State.Printed += n;
}

/* Takes the request from the printer, if it is this handle's (NULL: any one's). */
static PIRP TurnstileTake(DEVICE_EXTENSION *x, PFILE_OBJECT File, PULONG Done)
{
    PIRP Irp = x->Current;

    if (Irp == NULL || (File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject != File))
        return NULL;
    x->Current = NULL;
    x->State.Writes++;
    x->State.UnderWay--;
    *Done = x->Done;
    KeCancelTimer(&x->Timer);
    return Irp;
}

/* ---- the way of a request ----------------------------------------------------------- */

static VOID TurnstileEnd(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
}

static VOID NTAPI TurnstileStartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = STATUS_PENDING;

    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Closed)
        Status = STATUS_DEVICE_NOT_CONNECTED;
    else if (Irp->Cancel || IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext != NULL)
        Status = STATUS_CANCELLED;
    if (Status == STATUS_PENDING) {
        x->Current = Irp;
        x->Source = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority); /* mapped already */
        x->Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
        x->Done = 0;
        TurnstileSetTimer(x);
    } else {
        x->State.UnderWay--;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (Status != STATUS_PENDING) {
        IoStartNextPacket(Device, FALSE);
        TurnstileEnd(x, Irp, Status, 0);
    }
}

static VOID NTAPI TurnstileTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXTENSION *x = Context;
    NTSTATUS Status = STATUS_SUCCESS;
    PIRP Irp = NULL;
    ULONG Done = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Current != NULL) {
        if (x->Current->Cancel) {
            Status = STATUS_CANCELLED;
            Irp = TurnstileTake(x, NULL, &Done);
        } else {
            TurnstilePrint(x);
            if (x->Done == x->Length)
                Irp = TurnstileTake(x, NULL, &Done);
            else
                TurnstileSetTimer(x);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (Irp != NULL) {
        IoStartNextPacket(x->Pnp.Self, FALSE);
        TurnstileEnd(x, Irp, Status, Status == STATUS_CANCELLED ? 0 : Done);
    }
}

static VOID TurnstileNext(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    IoStartNextPacket(x->Pnp.Self, FALSE);
    KeLowerIrql(Irql);
}

/* ---- the device ----------------------------------------------------------------------- */

static NTSTATUS TurnstileInit(DEVICE_EXTENSION *x)
{
    KeInitializeSpinLock(&x->Lock);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->Dpc, TurnstileTick, x);
    x->Rate.Bytes = 32;
    x->Rate.Milliseconds = 2;
    IoSetStartIoAttributes(x->Pnp.Self, TRUE, FALSE);
    return STATUS_SUCCESS;
}

static NTSTATUS TurnstileStart(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

static VOID TurnstileDrop(DEVICE_EXTENSION *x)
{
    ULONG Done;
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Closed = TRUE;
    Irp = TurnstileTake(x, NULL, &Done);
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Irp != NULL) {
        TurnstileNext(x);
        TurnstileEnd(x, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
}

static VOID TurnstileFree(DEVICE_EXTENSION *x)
{
    KeCancelTimer(&x->Timer);
    KeFlushQueuedDpcs();
}

/* ---- Plug and Play, power ------------------------------------------------ */

static NTSTATUS TurnstilePassDown(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Pnp.Lower, Irp);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS TurnstilePnpStart(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Pnp.Lower, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = TurnstileStart(x);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Pnp.State, StateStarted);
        IoSetDeviceInterfaceState(&x->Pnp.Interface, TRUE);
    }
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS TurnstilePnpRemove(DEVICE_EXTENSION *x, PIRP Irp)
{
    LONG Previous = InterlockedExchange(&x->Pnp.State, StateDeleted);
    PDEVICE_OBJECT Lower = x->Pnp.Lower;
    NTSTATUS Status;

    if (Previous != StateGone) {
        IoSetDeviceInterfaceState(&x->Pnp.Interface, FALSE);
        TurnstileDrop(x);
    }
    IoReleaseRemoveLockAndWait(&x->Pnp.RemoveLock, Irp);
    TurnstileFree(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    RtlFreeUnicodeString(&x->Pnp.Interface);
    IoDetachDevice(Lower);
    IoDeleteDevice(x->Pnp.Self);
    return Status;
}

static NTSTATUS NTAPI TurnstileDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return TurnstilePnpStart(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return TurnstilePnpRemove(x, Irp);
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&x->Pnp.State, StateStopped);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->Pnp.State, StateGone);
        IoSetDeviceInterfaceState(&x->Pnp.Interface, FALSE);
        TurnstileDrop(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    return TurnstilePassDown(x, Irp);
}

static NTSTATUS NTAPI TurnstileDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->Pnp.Lower, Irp);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI TurnstileDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? TurnstilePassDown(x, Irp) : Finish(Irp, Status, Irp->IoStatus.Information);
}

/* Each request that comes in holds a remove lock until it ends. */
static NTSTATUS TurnstileEnter(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    if (NT_SUCCESS(Status) && x->Pnp.State != StateStarted) {
        Status = x->Pnp.State == StateStopped ? STATUS_DEVICE_NOT_READY : STATUS_DEVICE_NOT_CONNECTED;
        IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    }
    return Status;
}

static NTSTATUS TurnstileLeave(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

/* ---- requests ---------------------------------------------------------------------------- */

static NTSTATUS NTAPI TurnstileDispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = TurnstileEnter(x, Irp);

    return NT_SUCCESS(Status) ? TurnstileLeave(x, Irp, STATUS_SUCCESS, 0) : Finish(Irp, Status, 0);
}

static NTSTATUS NTAPI TurnstileDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    ULONG Done;
    KIRQL Irql;
    PIRP Mine;

    KeAcquireSpinLock(&x->Lock, &Irql);
    File->FsContext = File; /* those that wait are cancelled when their turn comes */
    Mine = TurnstileTake(x, File, &Done);
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Mine != NULL) {
#ifdef FIXED
        TurnstileNext(x);
#else
        IoStartNextPacket(Device, FALSE);
#endif
        TurnstileEnd(x, Mine, STATUS_CANCELLED, 0);
    }
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TurnstileDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TurnstileDispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS Status = TurnstileEnter(x, Irp);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (Length == 0)
        return TurnstileLeave(x, Irp, STATUS_SUCCESS, 0);
    if (Length > WRITE_MOST)
        return TurnstileLeave(x, Irp, STATUS_INVALID_PARAMETER, 0);
    if (MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority) == NULL)
        return TurnstileLeave(x, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    /* The device is kept until IoStartPacket is done, though the request may have ended by then. */
    Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, TurnstileDispatchWrite);
    if (!NT_SUCCESS(Status))
        return TurnstileLeave(x, Irp, Status, 0);
    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->State.UnderWay >= WRITES_MOST)
        Status = STATUS_DEVICE_BUSY;
    else
        x->State.UnderWay++;
    KeReleaseSpinLock(&x->Lock, Irql);
    if (NT_SUCCESS(Status)) {
        IoMarkIrpPending(Irp);
        IoStartPacket(Device, Irp, NULL, NULL);
        Status = STATUS_PENDING;
    } else {
        TurnstileLeave(x, Irp, Status, 0);
    }
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, TurnstileDispatchWrite);
    return Status;
}

static NTSTATUS TurnstileSkip(DEVICE_EXTENSION *x)
{
    ULONG Done;
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&x->Lock, &Irql);
    Irp = TurnstileTake(x, NULL, &Done);
    if (Irp != NULL)
        x->State.Skipped++;
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Irp == NULL)
        return STATUS_NOT_FOUND;
    TurnstileNext(x);
    TurnstileEnd(x, Irp, STATUS_SUCCESS, Done);
    return STATUS_SUCCESS;
}

/* The last that was printed. */
static NTSTATUS TurnstilePaper(DEVICE_EXTENSION *x, PIRP Irp, ULONG Room, PULONG_PTR Information)
{
    PUCHAR To;
    KIRQL Irql;
    ULONG i, n;

    if (Room == 0 || Irp->MdlAddress == NULL)
        return STATUS_BUFFER_TOO_SMALL;
    To = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (To == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&x->Lock, &Irql);
    n = x->PaperUsed < Room ? x->PaperUsed : Room;
    for (i = 0; i < n; i++)
        To[i] = x->Paper[(x->PaperHead + PAPER_SIZE - n + i) % PAPER_SIZE];
    KeReleaseSpinLock(&x->Lock, Irql);
    *Information = n;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI TurnstileDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = TurnstileEnter(x, Irp);
    ULONG_PTR Information = 0;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RATE: {
        RATE *r = Buffer;

        if (In != sizeof(RATE) || r->Bytes < 16 || r->Bytes > 256 || r->Milliseconds < 1 || r->Milliseconds > 20) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&x->Lock, &Irql);
        x->Rate = *r;
        KeReleaseSpinLock(&x->Lock, Irql);
        break;
    }
    case IOCTL_PAPER:
        Status = TurnstilePaper(x, Irp, Out, &Information);
        break;
    case IOCTL_SKIP:
        Status = TurnstileSkip(x);
        break;
    case IOCTL_STATE:
        if (Out < sizeof(STATE)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Lock, &Irql);
        RtlCopyMemory(Buffer, &x->State, sizeof(STATE));
        KeReleaseSpinLock(&x->Lock, Irql);
        Information = sizeof(STATE);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return TurnstileLeave(x, Irp, Status, Information);
}

static NTSTATUS NTAPI TurnstileAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    DEVICE_EXTENSION *x;
    NTSTATUS Status;

    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->Pnp.Self = Self;
    x->Pnp.Pdo = Pdo;
    x->Pnp.State = StateAdded;
    IoInitializeRemoveLock(&x->Pnp.RemoveLock, POOL_TAG, 0, 0);
    Status = TurnstileInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Pnp.Interface);
    if (!NT_SUCCESS(Status)) {
        TurnstileFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->Pnp.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Pnp.Lower == NULL) {
        RtlFreeUnicodeString(&x->Pnp.Interface);
        TurnstileFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_DIRECT_IO | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI TurnstileUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = TurnstileAddDevice;
    Driver->DriverUnload = TurnstileUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = TurnstileDispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TurnstileDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = TurnstileDispatchClose;
    Driver->DriverStartIo = TurnstileStartIo;
    Driver->MajorFunction[IRP_MJ_WRITE] = TurnstileDispatchWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TurnstileDispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = TurnstileDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = TurnstileDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = TurnstileDispatchSystemControl;
    return STATUS_SUCCESS;
}
