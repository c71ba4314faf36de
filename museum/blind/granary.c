/*
 * granary.c - a store of small items on 16 shelves, with a limit for all.
 *
 * Each shelf has a mutex of its own, and so has the account of what lies on
 * the shelves.  When there is more than the limit allows, the oldest items of
 * the shelves go, one shelf after the other.
 *
 * The bug: when the limit is exceeded the trimming takes a shelf's mutex with the account's mutex held; all
 * others take the shelf's first.
 *
 * Device: Root\Granary
 * Rule: lock-order-inversion
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

DEFINE_GUID(INTERFACE_GUID, 0x9a41d703, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'narG'
#define SHELVES 16
#define ITEM_MOST 512
#define LIMIT_DEFAULT 4096
#define LIMIT_LEAST 64
#define LIMIT_MOST 65536

#define IOCTL_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc30, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc31, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc32, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_LIMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc33, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SUMMARY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc34, METHOD_OUT_DIRECT, FILE_READ_ACCESS)
#define IOCTL_MOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc35, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct {
    ULONG Shelf;
    ULONG Key;
    UCHAR Bytes[1]; /* PUT: the rest of the buffer */
} ADDRESS;

#define ADDRESS_SIZE FIELD_OFFSET(ADDRESS, Bytes)

typedef struct {
    ULONG From, To, Key;
} MOVE;

typedef struct {
    ULONG Total, Limit, Trimmed;
    ULONG Used[SHELVES];
} SUMMARY;

typedef struct {
    LIST_ENTRY Link;
    ULONG Key;
    ULONG Length;
    UCHAR Bytes[1];
} ITEM;

typedef struct {
    FAST_MUTEX Mutex;
    LIST_ENTRY Items; /* the oldest first */
} SHELF;

typedef struct {
    PNP_PART Pnp;
    SHELF Shelves[SHELVES];

    FAST_MUTEX Account; /* what is below */
    ULONG Used[SHELVES];
    ULONG Total, Limit, Trimmed;
    ULONG Turn; /* the shelf that is to give next */
} DEVICE_EXTENSION;

/* ---- shelves: with their mutex ------------------------------------------------ */

static ITEM *GranaryFind(SHELF *s, ULONG Key)
{
    PLIST_ENTRY e;

    for (e = s->Items.Flink; e != &s->Items; e = e->Flink)
        if (CONTAINING_RECORD(e, ITEM, Link)->Key == Key)
            return CONTAINING_RECORD(e, ITEM, Link);
    return NULL;
}

/* ---- the account: in it what a shelf, which the caller has, gains and loses -------------- */

static BOOLEAN GranaryBook(DEVICE_EXTENSION *x, ULONG Shelf, ULONG Gained, ULONG Lost)
{
    BOOLEAN Over;

    ExAcquireFastMutex(&x->Account);
    x->Used[Shelf] += Gained - Lost;
    x->Total += Gained - Lost;
    Over = x->Total > x->Limit;
    ExReleaseFastMutex(&x->Account);
    return Over;
}

/* The next shelf with something on it; with the account's mutex. */
static ULONG GranaryVictim(DEVICE_EXTENSION *x)
{
    ULONG i;

    for (i = 0; i < SHELVES; i++) {
        ULONG Shelf = (x->Turn + i) % SHELVES;

        if (x->Used[Shelf] != 0) {
            x->Turn = (Shelf + 1) % SHELVES;
            return Shelf;
        }
    }
    return SHELVES;
}

/* The oldest items go until the limit is kept. */
static VOID GranaryTrim(DEVICE_EXTENSION *x)
{
    for (;;) {
        ITEM *Gone = NULL;
        ULONG Shelf = SHELVES;
        SHELF *s;

        ExAcquireFastMutex(&x->Account);
        if (x->Total > x->Limit)
            Shelf = GranaryVictim(x);
        if (Shelf == SHELVES) {
            ExReleaseFastMutex(&x->Account);
            break;
        }
        s = &x->Shelves[Shelf];
#ifdef FIXED
        ExReleaseFastMutex(&x->Account);
        ExAcquireFastMutex(&s->Mutex);
        if (!IsListEmpty(&s->Items))
            Gone = CONTAINING_RECORD(RemoveHeadList(&s->Items), ITEM, Link);
        ExAcquireFastMutex(&x->Account);
#else
        ExAcquireFastMutex(&s->Mutex);
        if (!IsListEmpty(&s->Items))
            Gone = CONTAINING_RECORD(RemoveHeadList(&s->Items), ITEM, Link);
#endif
        if (Gone != NULL) {
            x->Used[Shelf] -= Gone->Length;
            x->Total -= Gone->Length;
            x->Trimmed++;
        }
#ifdef FIXED
        ExReleaseFastMutex(&x->Account);
        ExReleaseFastMutex(&s->Mutex);
#else
        ExReleaseFastMutex(&s->Mutex);
        ExReleaseFastMutex(&x->Account);
#endif
        if (Gone != NULL)
            ExFreePoolWithTag(Gone, POOL_TAG);
    }
}

/* ---- what can be asked ------------------------------------------------------------------- */

static NTSTATUS GranaryPut(DEVICE_EXTENSION *x, ADDRESS *a, ULONG Length)
{
    ITEM *New, *Old;
    BOOLEAN Over;
    SHELF *s;

    if (a->Shelf >= SHELVES || Length == 0 || Length > ITEM_MOST)
        return STATUS_INVALID_PARAMETER;
    New = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(ITEM, Bytes) + Length, POOL_TAG);
    if (New == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    New->Key = a->Key;
    New->Length = Length;
    RtlCopyMemory(New->Bytes, a->Bytes, Length);
    s = &x->Shelves[a->Shelf];
    ExAcquireFastMutex(&s->Mutex);
    Old = GranaryFind(s, a->Key);
    if (Old != NULL)
        RemoveEntryList(&Old->Link);
    InsertTailList(&s->Items, &New->Link);
    Over = GranaryBook(x, a->Shelf, Length, Old != NULL ? Old->Length : 0);
    ExReleaseFastMutex(&s->Mutex);
    if (Old != NULL)
        ExFreePoolWithTag(Old, POOL_TAG);
    if (Over)
        GranaryTrim(x);
    return STATUS_SUCCESS;
}

/* a is in the buffer that the item is copied to. */
static NTSTATUS GranaryGet(DEVICE_EXTENSION *x, ADDRESS *a, BOOLEAN Take, ULONG Room, PULONG_PTR Information)
{
    NTSTATUS Status = STATUS_NOT_FOUND;
    ULONG Shelf = a->Shelf, Key = a->Key;
    ITEM *Item;
    SHELF *s;

    if (Shelf >= SHELVES)
        return STATUS_INVALID_PARAMETER;
    s = &x->Shelves[Shelf];
    ExAcquireFastMutex(&s->Mutex);
    Item = GranaryFind(s, Key);
    if (Item != NULL && Item->Length > Room) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else if (Item != NULL) {
        RtlCopyMemory(a, Item->Bytes, Item->Length);
        *Information = Item->Length;
        Status = STATUS_SUCCESS;
        if (Take) {
            RemoveEntryList(&Item->Link);
            GranaryBook(x, Shelf, 0, Item->Length);
        }
    }
    ExReleaseFastMutex(&s->Mutex);
    if (Take && NT_SUCCESS(Status))
        ExFreePoolWithTag(Item, POOL_TAG);
    return Status;
}

/* From one shelf to another: the lower one's mutex is taken first. */
static NTSTATUS GranaryMove(DEVICE_EXTENSION *x, MOVE *m)
{
    NTSTATUS Status = STATUS_SUCCESS;
    SHELF *From, *To, *First, *Second;
    ITEM *Item;

    if (m->From >= SHELVES || m->To >= SHELVES || m->From == m->To)
        return STATUS_INVALID_PARAMETER;
    From = &x->Shelves[m->From];
    To = &x->Shelves[m->To];
    First = From < To ? From : To;
    Second = From < To ? To : From;
    ExAcquireFastMutex(&First->Mutex);
    ExAcquireFastMutex(&Second->Mutex);
    Item = GranaryFind(From, m->Key);
    if (Item == NULL) {
        Status = STATUS_NOT_FOUND;
    } else if (GranaryFind(To, m->Key) != NULL) {
        Status = STATUS_OBJECT_NAME_COLLISION;
    } else {
        RemoveEntryList(&Item->Link);
        InsertTailList(&To->Items, &Item->Link);
        ExAcquireFastMutex(&x->Account);
        x->Used[m->From] -= Item->Length;
        x->Used[m->To] += Item->Length;
        ExReleaseFastMutex(&x->Account);
    }
    ExReleaseFastMutex(&Second->Mutex);
    ExReleaseFastMutex(&First->Mutex);
    return Status;
}

static NTSTATUS GranaryLimit(DEVICE_EXTENSION *x, ULONG Limit)
{
    BOOLEAN Over;

    if (Limit < LIMIT_LEAST || Limit > LIMIT_MOST)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&x->Account);
    x->Limit = Limit;
    Over = x->Total > Limit;
    ExReleaseFastMutex(&x->Account);
    if (Over)
        GranaryTrim(x);
    return STATUS_SUCCESS;
}

static NTSTATUS GranarySummary(DEVICE_EXTENSION *x, PIRP Irp, ULONG Room, PULONG_PTR Information)
{
    SUMMARY s;
    PVOID To;

    if (Room < sizeof(SUMMARY) || Irp->MdlAddress == NULL)
        return STATUS_BUFFER_TOO_SMALL;
    To = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (To == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExAcquireFastMutex(&x->Account);
    s.Total = x->Total;
    s.Limit = x->Limit;
    s.Trimmed = x->Trimmed;
    RtlCopyMemory(s.Used, x->Used, sizeof(s.Used));
    ExReleaseFastMutex(&x->Account);
    RtlCopyMemory(To, &s, sizeof(s));
    *Information = sizeof(s);
    return STATUS_SUCCESS;
}

/* ---- the device ------------------------------------------------------------------------------ */

static NTSTATUS GranaryInit(DEVICE_EXTENSION *x)
{
    ULONG i;

    for (i = 0; i < SHELVES; i++) {
        ExInitializeFastMutex(&x->Shelves[i].Mutex);
        InitializeListHead(&x->Shelves[i].Items);
    }
    ExInitializeFastMutex(&x->Account);
    x->Limit = LIMIT_DEFAULT;
    return STATUS_SUCCESS;
}

/* The limit may be in the driver's part of the registry. */
static NTSTATUS GranaryStart(DEVICE_EXTENSION *x)
{
    RTL_QUERY_REGISTRY_TABLE Table[2];
    ULONG Limit = LIMIT_DEFAULT;
    HANDLE Key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(x->Pnp.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key)))
        return STATUS_SUCCESS;
    RtlZeroMemory(Table, sizeof(Table));
    Table[0].Flags = RTL_QUERY_REGISTRY_DIRECT | 0x100; /* RTL_QUERY_REGISTRY_TYPECHECK */
    Table[0].Name = L"Limit";
    Table[0].EntryContext = &Limit;
    Table[0].DefaultType = (REG_DWORD << 24) | REG_NONE;
    if (NT_SUCCESS(RtlQueryRegistryValues(RTL_REGISTRY_HANDLE, (PCWSTR)Key, Table, NULL, NULL)) &&
        Limit >= LIMIT_LEAST && Limit <= LIMIT_MOST) {
        ExAcquireFastMutex(&x->Account);
        x->Limit = Limit;
        ExReleaseFastMutex(&x->Account);
        GranaryTrim(x);
    }
    ZwClose(Key);
    return STATUS_SUCCESS;
}

static VOID GranaryDrop(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID GranaryFree(DEVICE_EXTENSION *x)
{
    ULONG i;

    for (i = 0; i < SHELVES; i++)
        while (!IsListEmpty(&x->Shelves[i].Items))
            ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&x->Shelves[i].Items), ITEM, Link), POOL_TAG);
}

/* ---- Plug and Play, power ------------------------------------------------ */

static NTSTATUS GranaryPassDown(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Pnp.Lower, Irp);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS GranaryPnpStart(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Pnp.Lower, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = GranaryStart(x);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Pnp.State, StateStarted);
        IoSetDeviceInterfaceState(&x->Pnp.Interface, TRUE);
    }
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS GranaryPnpRemove(DEVICE_EXTENSION *x, PIRP Irp)
{
    LONG Previous = InterlockedExchange(&x->Pnp.State, StateDeleted);
    PDEVICE_OBJECT Lower = x->Pnp.Lower;
    NTSTATUS Status;

    if (Previous != StateGone) {
        IoSetDeviceInterfaceState(&x->Pnp.Interface, FALSE);
        GranaryDrop(x);
    }
    IoReleaseRemoveLockAndWait(&x->Pnp.RemoveLock, Irp);
    GranaryFree(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    RtlFreeUnicodeString(&x->Pnp.Interface);
    IoDetachDevice(Lower);
    IoDeleteDevice(x->Pnp.Self);
    return Status;
}

static NTSTATUS NTAPI GranaryDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return GranaryPnpStart(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return GranaryPnpRemove(x, Irp);
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&x->Pnp.State, StateStopped);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->Pnp.State, StateGone);
        IoSetDeviceInterfaceState(&x->Pnp.Interface, FALSE);
        GranaryDrop(x);
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
    return GranaryPassDown(x, Irp);
}

static NTSTATUS NTAPI GranaryDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
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

static NTSTATUS NTAPI GranaryDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? GranaryPassDown(x, Irp) : Finish(Irp, Status, Irp->IoStatus.Information);
}

/* Each request that comes in holds a remove lock until it ends. */
static NTSTATUS GranaryEnter(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    if (NT_SUCCESS(Status) && x->Pnp.State != StateStarted) {
        Status = x->Pnp.State == StateStopped ? STATUS_DEVICE_NOT_READY : STATUS_DEVICE_NOT_CONNECTED;
        IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    }
    return Status;
}

static NTSTATUS GranaryLeave(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

/* ---- requests ---------------------------------------------------------------------------------- */

static NTSTATUS NTAPI GranaryDispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = GranaryEnter(x, Irp);

    return NT_SUCCESS(Status) ? GranaryLeave(x, Irp, STATUS_SUCCESS, 0) : Finish(Irp, Status, 0);
}

static NTSTATUS NTAPI GranaryDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI GranaryDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI GranaryDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = GranaryEnter(x, Irp);
    ULONG_PTR Information = 0;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Code) {
    case IOCTL_PUT:
        Status = In <= ADDRESS_SIZE ? STATUS_INVALID_PARAMETER : GranaryPut(x, Buffer, In - ADDRESS_SIZE);
        break;
    case IOCTL_GET:
    case IOCTL_TAKE:
        if (In != ADDRESS_SIZE)
            Status = STATUS_INVALID_PARAMETER;
        else
            Status = GranaryGet(x, Buffer, Code == IOCTL_TAKE, Out, &Information);
        break;
    case IOCTL_LIMIT:
        Status = In != sizeof(ULONG) ? STATUS_INVALID_PARAMETER : GranaryLimit(x, *(PULONG)Buffer);
        break;
    case IOCTL_SUMMARY:
        Status = GranarySummary(x, Irp, Out, &Information);
        break;
    case IOCTL_MOVE:
        Status = In != sizeof(MOVE) ? STATUS_INVALID_PARAMETER : GranaryMove(x, Buffer);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return GranaryLeave(x, Irp, Status, Information);
}

static NTSTATUS NTAPI GranaryAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
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
    Status = GranaryInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Pnp.Interface);
    if (!NT_SUCCESS(Status)) {
        GranaryFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->Pnp.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Pnp.Lower == NULL) {
        RtlFreeUnicodeString(&x->Pnp.Interface);
        GranaryFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI GranaryUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = GranaryAddDevice;
    Driver->DriverUnload = GranaryUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = GranaryDispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = GranaryDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = GranaryDispatchClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GranaryDispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = GranaryDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = GranaryDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = GranaryDispatchSystemControl;
    return STATUS_SUCCESS;
}
