/*
 * estate.c - who has which part of a range of numbers.
 *
 * Ports, minor numbers, channels: who needs some of the numbers below 2^20
 * asks for them here.  RESERVE takes a range for a handle, anywhere or at a
 * certain place; RELEASE gives a range back, which may be a part of what was
 * reserved, or several neighbours at once.  OWNER says who has a number, LIST
 * what a handle has.  What a handle has ends with it.
 *
 * There is one table, sorted by the first number; neighbours of the same owner
 * are one entry.
 *
 * The bug: releasing numbers out of the middle of a range makes two entries of one without looking for room:
 * where the table is exactly full one is stored behind it.
 *
 * Device: Root\Estate
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

DEFINE_GUID(INTERFACE_GUID, 0x3f20b102, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'atsE'
#define NUMBERS 0x100000
#define TABLE_STEP 8
#define TABLE_MOST 4096

#define IOCTL_RESERVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb20, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb21, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_OWNER CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb22, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb23, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define ANYWHERE 0xffffffff

typedef struct {
    ULONG First; /* or ANYWHERE */
    ULONG Count;
} RANGE;

typedef struct {
    ULONG Number;
    ULONG Mine;  /* of the handle that asks */
    ULONG First; /* of the whole range it is in */
    ULONG Count; /* 0: no one has it */
} OWNER_REPLY;

typedef struct {
    ULONG First;
    ULONG End; /* the first number behind it */
    PFILE_OBJECT Owner;
} EXTENT;

typedef struct {
    COMMON Common;
    FAST_MUTEX Mutex; /* all below */
    EXTENT *Table;
    ULONG Count;
    ULONG Capacity;
} DEVICE_EXT;

/* ---- the table: with the mutex held ---------------------------------------------- */

/* The first entry that ends behind a number, or Count. */
static ULONG Find(DEVICE_EXT *x, ULONG Number)
{
    ULONG Low = 0, High = x->Count;

    while (Low < High) {
        ULONG Middle = (Low + High) / 2;

        if (x->Table[Middle].End > Number)
            High = Middle;
        else
            Low = Middle + 1;
    }
    return Low;
}

/* Room for one more entry. */
static NTSTATUS MakeRoom(DEVICE_EXT *x)
{
    ULONG Capacity = x->Capacity + TABLE_STEP;
    EXTENT *Table;

    if (x->Count < x->Capacity)
        return STATUS_SUCCESS;
    if (Capacity > TABLE_MOST)
        return STATUS_QUOTA_EXCEEDED;
    Table = ExAllocatePoolWithTag(PagedPool, Capacity * sizeof(EXTENT), POOL_TAG);
    if (Table == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (x->Table != NULL) {
        RtlCopyMemory(Table, x->Table, x->Count * sizeof(EXTENT));
        ExFreePoolWithTag(x->Table, POOL_TAG);
    }
    x->Table = Table;
    x->Capacity = Capacity;
    return STATUS_SUCCESS;
}

static VOID InsertAt(DEVICE_EXT *x, ULONG Index, ULONG First, ULONG End, PFILE_OBJECT Owner)
{
    RtlMoveMemory(&x->Table[Index + 1], &x->Table[Index], (x->Count - Index) * sizeof(EXTENT));
    x->Table[Index].First = First;
    x->Table[Index].End = End;
    x->Table[Index].Owner = Owner;
    x->Count++;
}

static VOID RemoveAt(DEVICE_EXT *x, ULONG Index, ULONG Entries)
{
    RtlMoveMemory(&x->Table[Index], &x->Table[Index + Entries],
                  (x->Count - Index - Entries) * sizeof(EXTENT));
    x->Count -= Entries;
}

/* The lowest place for so many numbers, or NUMBERS. */
static ULONG FindGap(DEVICE_EXT *x, ULONG Count)
{
    ULONG Free = 0, i;

    for (i = 0; i < x->Count; i++) {
        if (x->Table[i].First - Free >= Count)
            return Free;
        Free = x->Table[i].End;
    }
    return NUMBERS - Free >= Count ? Free : NUMBERS;
}

static NTSTATUS Reserve(DEVICE_EXT *x, PFILE_OBJECT Owner, RANGE *r)
{
    ULONG First = r->First, End, i;
    BOOLEAN Left, Right;
    NTSTATUS Status;

    if (r->Count == 0 || r->Count > NUMBERS)
        return STATUS_INVALID_PARAMETER;
    if (First == ANYWHERE) {
        First = FindGap(x, r->Count);
        if (First == NUMBERS)
            return STATUS_INSUFFICIENT_RESOURCES;
    } else if (First > NUMBERS - r->Count) {
        return STATUS_INVALID_PARAMETER;
    }
    End = First + r->Count;
    i = Find(x, First);
    if (i < x->Count && x->Table[i].First < End)
        return STATUS_CONFLICTING_ADDRESSES;
    Left = i > 0 && x->Table[i - 1].Owner == Owner && x->Table[i - 1].End == First;
    Right = i < x->Count && x->Table[i].Owner == Owner && x->Table[i].First == End;
    if (Left && Right) {
        x->Table[i - 1].End = x->Table[i].End;
        RemoveAt(x, i, 1);
    } else if (Left) {
        x->Table[i - 1].End = End;
    } else if (Right) {
        x->Table[i].First = First;
    } else {
        Status = MakeRoom(x);
        if (!NT_SUCCESS(Status))
            return Status;
        InsertAt(x, i, First, End, Owner);
    }
    r->First = First;
    return STATUS_SUCCESS;
}

/* Nothing is given back if a part of it is not the handle's. */
static NTSTATUS Release(DEVICE_EXT *x, PFILE_OBJECT Owner, const RANGE *r)
{
    ULONG End, i, n, At;

    if (r->Count == 0 || r->Count > NUMBERS || r->First > NUMBERS - r->Count)
        return STATUS_INVALID_PARAMETER;
    End = r->First + r->Count;
    i = Find(x, r->First);
    /* Entries i to n - 1 have it, one behind the other. */
    for (n = i, At = r->First; At < End; n++) {
        if (n == x->Count || x->Table[n].First > At || x->Table[n].Owner != Owner)
            return STATUS_NOT_FOUND;
        At = x->Table[n].End;
    }
    n--;
    if (i == n && x->Table[i].First < r->First && x->Table[i].End > End) {
        /* Out of the middle: there are two behind it. */
        ULONG Old = x->Table[i].End;
#ifdef FIXED
        NTSTATUS Status = MakeRoom(x);

        if (!NT_SUCCESS(Status))
            return Status;
#endif
        x->Table[i].End = r->First;
        InsertAt(x, i + 1, End, Old, Owner);
        return STATUS_SUCCESS;
    }
    if (x->Table[i].First < r->First) {
        x->Table[i].End = r->First;
        i++;
    }
    if (n >= i && n < x->Count && x->Table[n].End > End) {
        x->Table[n].First = End;
        n--;
    }
    if (n + 1 > i)
        RemoveAt(x, i, n + 1 - i);
    return STATUS_SUCCESS;
}

static VOID ReleaseAll(DEVICE_EXT *x, PFILE_OBJECT Owner)
{
    ULONG i, Kept = 0;

    for (i = 0; i < x->Count; i++)
        if (x->Table[i].Owner != Owner)
            x->Table[Kept++] = x->Table[i];
    x->Count = Kept;
    if (Kept == 0 && x->Table != NULL) {
        ExFreePoolWithTag(x->Table, POOL_TAG);
        x->Table = NULL;
        x->Capacity = 0;
    }
}

static VOID Owner(DEVICE_EXT *x, PFILE_OBJECT File, ULONG Number, OWNER_REPLY *Reply)
{
    ULONG i = Find(x, Number);

    RtlZeroMemory(Reply, sizeof(*Reply));
    Reply->Number = Number;
    if (i == x->Count || x->Table[i].First > Number)
        return;
    Reply->Mine = x->Table[i].Owner == File;
    Reply->First = x->Table[i].First;
    Reply->Count = x->Table[i].End - x->Table[i].First;
}

/* How many ranges there are is said even if there is no room for all of them. */
static NTSTATUS List(DEVICE_EXT *x, PFILE_OBJECT File, PULONG Buffer, ULONG Length, PULONG_PTR Information)
{
    RANGE *Ranges = (RANGE *)(Buffer + 2);
    ULONG Room = (Length - 2 * sizeof(ULONG)) / sizeof(RANGE), Found = 0, i;

    for (i = 0; i < x->Count; i++) {
        if (x->Table[i].Owner != File)
            continue;
        if (Found < Room) {
            Ranges[Found].First = x->Table[i].First;
            Ranges[Found].Count = x->Table[i].End - x->Table[i].First;
        }
        Found++;
    }
    Buffer[0] = Found;
    Buffer[1] = Found < Room ? Found : Room;
    *Information = 2 * sizeof(ULONG) + Buffer[1] * sizeof(RANGE);
    return Found > Room ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
}

/* ---- the device ------------------------------------------------------------------- */

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    ExInitializeFastMutex(&x->Mutex);
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

/* No one waits for anything here. */
static VOID DevGone(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevFree(DEVICE_EXT *x)
{
    if (x->Table != NULL)
        ExFreePoolWithTag(x->Table, POOL_TAG);
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

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    CompleteIrp(Irp, STATUS_SUCCESS, 0);
    End(x);
    return STATUS_SUCCESS;
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

/* No request of the handle's is under way any more. */
static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;

    ExAcquireFastMutex(&x->Mutex);
    ReleaseAll(x, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    ExReleaseFastMutex(&x->Mutex);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = Begin(x);

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    ExAcquireFastMutex(&x->Mutex);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RESERVE:
        if (In < sizeof(RANGE) || Out < sizeof(RANGE)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = Reserve(x, Stack->FileObject, Buffer);
        Information = NT_SUCCESS(Status) ? sizeof(RANGE) : 0;
        break;
    case IOCTL_RELEASE:
        Status = In < sizeof(RANGE) ? STATUS_INVALID_PARAMETER : Release(x, Stack->FileObject, Buffer);
        break;
    case IOCTL_OWNER:
        if (In < sizeof(ULONG) || Out < sizeof(OWNER_REPLY)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Owner(x, Stack->FileObject, *(PULONG)Buffer, Buffer);
        Information = sizeof(OWNER_REPLY);
        break;
    case IOCTL_LIST:
        if (Out < 2 * sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = List(x, Stack->FileObject, Buffer, Out, &Information);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    ExReleaseFastMutex(&x->Mutex);
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
