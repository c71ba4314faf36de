/*
 * barter.c - goods change hands.
 *
 * There are sixteen stores, each with its own mutex.  GIVE moves goods from one
 * to another.  With JOURNAL switched on every GIVE is written down, and UNDO
 * takes the last one back.
 *
 * The bug: UNDO takes the journal's lock before those of the stores, GIVE the other way round; it takes both
 * only while the journal is on.
 *
 * Device: Root\Barter
 * Rule: lock-order-inversion, deadlock
 * Needs: ioctl
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef struct EXT EXT;

enum { NEW_DEVICE, RUNNING, HALTED, PULLED, DELETED };

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK Remove;
    UNICODE_STRING Link;
    volatile LONG State;
} BASE;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, NT_SUCCESS(Status) ? IO_NO_INCREMENT + 1 : IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x7a1e0005, 0x51b2, 0x4f1d, 0x9c, 0x11, 0x20, 0x31, 0x42, 0x53, 0x64, 0x75);

#define POOL_TAG 'traB'
#define DEVICE_IO DO_BUFFERED_IO
#define STORES 16
#define JOURNAL_SIZE 64

#define IOCTL_GIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_UNDO CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_JOURNAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STOCK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x833, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct {
    ULONG From;
    ULONG To;
    ULONG Amount;
} GIVE;

typedef struct {
    ULONG Number;
    GIVE Give;
} NOTE;

typedef struct {
    FAST_MUTEX Mutex;
    ULONG Stock;
    ULONG Given;
    ULONG Taken;
} STORE;

struct EXT {
    BASE B;
    STORE Stores[STORES];
    FAST_MUTEX JournalMutex;
    NOTE *Journal; /* NULL while it is switched off */
    ULONG JournalCount;
    ULONG JournalNumber;
};

/* ---- stores ------------------------------------------------------------------------ */

/*
 * Two stores are always locked in the order of their numbers.
 */
static VOID LockStores(EXT *x, ULONG a, ULONG b)
{
    ExAcquireFastMutex(&x->Stores[a < b ? a : b].Mutex);
    ExAcquireFastMutex(&x->Stores[a < b ? b : a].Mutex);
}

static VOID UnlockStores(EXT *x, ULONG a, ULONG b)
{
    ExReleaseFastMutex(&x->Stores[a < b ? b : a].Mutex);
    ExReleaseFastMutex(&x->Stores[a < b ? a : b].Mutex);
}

static NTSTATUS Move(EXT *x, ULONG From, ULONG To, ULONG Amount)
{
    STORE *f = &x->Stores[From], *t = &x->Stores[To];

    if (f->Stock < Amount)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (t->Stock > MAXULONG - Amount)
        return STATUS_INTEGER_OVERFLOW;
    f->Stock -= Amount;
    f->Given += Amount;
    t->Stock += Amount;
    t->Taken += Amount;
    return STATUS_SUCCESS;
}

/* With the journal's mutex held. */
static VOID WriteDown(EXT *x, const GIVE *g)
{
    NOTE *n;

    if (x->Journal == NULL)
        return;
    if (x->JournalCount == JOURNAL_SIZE) {
        /* The oldest one is forgotten. */
        RtlMoveMemory(x->Journal, x->Journal + 1, (JOURNAL_SIZE - 1) * sizeof(NOTE));
        x->JournalCount--;
    }
    n = &x->Journal[x->JournalCount++];
    n->Number = ++x->JournalNumber;
    n->Give = *g;
}

static NTSTATUS Give(EXT *x, const GIVE *g)
{
    NTSTATUS Status;

    if (g->From >= STORES || g->To >= STORES || g->From == g->To)
        return STATUS_INVALID_PARAMETER;
    LockStores(x, g->From, g->To);
    Status = Move(x, g->From, g->To, g->Amount);
    if (NT_SUCCESS(Status)) {
        ExAcquireFastMutex(&x->JournalMutex);
        WriteDown(x, g);
        ExReleaseFastMutex(&x->JournalMutex);
    }
    UnlockStores(x, g->From, g->To);
    return Status;
}

#ifdef FIXED
/* The last note, if there is one. */
static BOOLEAN LastNote(EXT *x, NOTE *n)
{
    BOOLEAN Any = FALSE;

    ExAcquireFastMutex(&x->JournalMutex);
    if (x->Journal != NULL && x->JournalCount != 0) {
        *n = x->Journal[x->JournalCount - 1];
        Any = TRUE;
    }
    ExReleaseFastMutex(&x->JournalMutex);
    return Any;
}

/* Stores come before the journal: what it says has to be looked at again. */
static NTSTATUS Undo(EXT *x)
{
    NOTE n;

    while (LastNote(x, &n)) {
        NTSTATUS Status = STATUS_RETRY;

        LockStores(x, n.Give.From, n.Give.To);
        ExAcquireFastMutex(&x->JournalMutex);
        if (x->Journal != NULL && x->JournalCount != 0 &&
            x->Journal[x->JournalCount - 1].Number == n.Number) {
            Status = Move(x, n.Give.To, n.Give.From, n.Give.Amount);
            if (NT_SUCCESS(Status))
                x->JournalCount--;
        }
        ExReleaseFastMutex(&x->JournalMutex);
        UnlockStores(x, n.Give.From, n.Give.To);
        if (Status != STATUS_RETRY)
            return Status;
    }
    return STATUS_NO_MORE_ENTRIES;
}
#else
static NTSTATUS Undo(EXT *x)
{
    NTSTATUS Status = STATUS_NO_MORE_ENTRIES;
    NOTE n;

    ExAcquireFastMutex(&x->JournalMutex);
    if (x->Journal != NULL && x->JournalCount != 0) {
        n = x->Journal[x->JournalCount - 1];
        LockStores(x, n.Give.From, n.Give.To);
        Status = Move(x, n.Give.To, n.Give.From, n.Give.Amount);
        if (NT_SUCCESS(Status))
            x->JournalCount--;
        UnlockStores(x, n.Give.From, n.Give.To);
    }
    ExReleaseFastMutex(&x->JournalMutex);
    return Status;
}
#endif

static NTSTATUS SwitchJournal(EXT *x, BOOLEAN On)
{
    NTSTATUS Status = STATUS_SUCCESS;
    NOTE *New = NULL;

    if (On) {
        New = ExAllocatePoolWithTag(PagedPool, JOURNAL_SIZE * sizeof(NOTE), POOL_TAG);
        if (New == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlZeroMemory(New, JOURNAL_SIZE * sizeof(NOTE));
    }
    ExAcquireFastMutex(&x->JournalMutex);
    if (!On) {
        New = x->Journal;
        x->Journal = NULL;
        x->JournalCount = 0;
    } else if (x->Journal == NULL) {
        x->Journal = New;
        x->JournalCount = 0;
        New = NULL;
    }
    ExReleaseFastMutex(&x->JournalMutex);
    if (New != NULL)
        ExFreePoolWithTag(New, POOL_TAG);
    return Status;
}

/* ---- the device ---------------------------------------------------------------------- */

static NTSTATUS DevInit(EXT *x)
{
    ULONG i;

    for (i = 0; i < STORES; i++) {
        ExInitializeFastMutex(&x->Stores[i].Mutex);
        x->Stores[i].Stock = 100;
    }
    ExInitializeFastMutex(&x->JournalMutex);
    return STATUS_SUCCESS;
}

static NTSTATUS DevStart(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

static VOID DevGone(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevFree(EXT *x)
{
    if (x->Journal != NULL)
        ExFreePoolWithTag(x->Journal, POOL_TAG);
}

/* ---- Plug and Play ---------------------------------------------------- */

static NTSTATUS PassDown(EXT *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->B.Lower, Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static NTSTATUS DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = STATUS_UNSUCCESSFUL;
        if (IoForwardIrpSynchronously(x->B.Lower, Irp))
            Status = Irp->IoStatus.Status;
        if (NT_SUCCESS(Status))
            Status = DevStart(x);
        if (NT_SUCCESS(Status)) {
            InterlockedExchange(&x->B.State, RUNNING);
            IoSetDeviceInterfaceState(&x->B.Link, TRUE);
        }
        Finish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
        /* There is no hardware: requests go on across a rebalance. */
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->B.State, PULLED);
        IoSetDeviceInterfaceState(&x->B.Link, FALSE);
        DevGone(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        if (InterlockedExchange(&x->B.State, DELETED) != PULLED)
            IoSetDeviceInterfaceState(&x->B.Link, FALSE);
        DevGone(x);
        IoReleaseRemoveLockAndWait(&x->B.Remove, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(x->B.Lower, Irp);
        DevFree(x);
        RtlFreeUnicodeString(&x->B.Link);
        IoDetachDevice(x->B.Lower);
        IoDeleteDevice(Device);
        return Status;
    default:
        return PassDown(x, Irp);
    }
}

static NTSTATUS DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    return PassDown(x, Irp);
}
static NTSTATUS DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->B.Lower, Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}
static NTSTATUS AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    NTSTATUS Status;
    EXT *x;

    Status = IoCreateDevice(Driver, sizeof(EXT), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->B.Self = Self;
    x->B.Pdo = Pdo;
    x->B.State = NEW_DEVICE;
    IoInitializeRemoveLock(&x->B.Remove, POOL_TAG, 0, 0);
    Status = DevInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->B.Link);
    if (!NT_SUCCESS(Status)) {
        DevFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->B.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->B.Lower == NULL) {
        RtlFreeUnicodeString(&x->B.Link);
        DevFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_POWER_PAGABLE | DEVICE_IO;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* ---- requests ------------------------------------------------------------------------ */

/* A lock for the request, and one for the routine that may outlive it. */
static NTSTATUS Enter(EXT *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Status;
    Status = x->B.State == RUNNING ? IoAcquireRemoveLock(&x->B.Remove, Enter) : STATUS_DEVICE_NOT_CONNECTED;
    if (!NT_SUCCESS(Status))
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static VOID Leave(EXT *x)
{
    IoReleaseRemoveLock(&x->B.Remove, Enter);
}

/* The end of a request that Enter has let in. */
static NTSTATUS Done(EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static NTSTATUS DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = Enter(x, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    Done(x, Irp, Status, 0);
    Leave(x);
    return Status;
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = Enter(x, Irp);
    ULONG Information = 0, i;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GIVE:
        Status = In < sizeof(GIVE) ? STATUS_INVALID_PARAMETER : Give(x, (GIVE *)Buffer);
        break;
    case IOCTL_UNDO:
        Status = Undo(x);
        break;
    case IOCTL_JOURNAL:
        Status = In < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : SwitchJournal(x, Buffer[0] != 0);
        break;
    case IOCTL_STOCK:
        if (Out < STORES * sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        for (i = 0; i < STORES; i++) {
            ExAcquireFastMutex(&x->Stores[i].Mutex);
            Buffer[i] = x->Stores[i].Stock;
            ExReleaseFastMutex(&x->Stores[i].Mutex);
        }
        Information = STORES * sizeof(ULONG);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Done(x, Irp, Status, Information);
    Leave(x);
    return Status;
}

#define ENTRIES Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

static VOID Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
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
