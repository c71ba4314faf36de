/*
 * keytab: a key/value table in the kernel (ERESOURCE, lookaside list) with a journal of the changes (fast mutex).
 *
 * The bug: a journal takes the mutex before the resource, and the others the resource before the mutex.
 *
 * Device: none
 * Rule: lock-order-inversion, irp-never-completed
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define IOCTL_KT_SET     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_KT_GET     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_KT_DELETE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_KT_JOURNAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x853, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'kKoB'
#define BUCKETS 64
#define MAX_KEYS 4096
#define KEY_SIZE 16
#define VALUE_SIZE 96
#define JOURNAL 64

typedef struct _KT_ITEM { /* what IOCTLs exchange */
    UCHAR Key[KEY_SIZE];
    ULONG Length;
    UCHAR Value[VALUE_SIZE];
} KT_ITEM;

typedef struct _KT_CHANGE {
    UCHAR Key[KEY_SIZE];
    ULONG Sequence;
    ULONG Action; /* 1 set, 2 deleted */
    ULONG StillThere;
} KT_CHANGE;

typedef struct _NODE {
    LIST_ENTRY Link;
    KT_ITEM Item;
} NODE, *PNODE;

typedef struct _TABLE {
    ERESOURCE Resource; /* the buckets */
    LIST_ENTRY Buckets[BUCKETS];
    ULONG Keys;
    NPAGED_LOOKASIDE_LIST Nodes;
    FAST_MUTEX JournalMutex; /* the journal */
    KT_CHANGE Journal[JOURNAL];
    ULONG Sequence;
} TABLE, *PTABLE;

DRIVER_INITIALIZE DriverEntry;
static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\KeyTab");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\KeyTab");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static ULONG Hash(const UCHAR *Key)
{
    ULONG h = 2166136261U, i;
    for (i = 0; i < KEY_SIZE; i++)
        h = (h ^ Key[i]) * 16777619U;
    return h % BUCKETS;
}

static PNODE Find(PTABLE T, const UCHAR *Key)
{
    PLIST_ENTRY Head = &T->Buckets[Hash(Key)], E;
    for (E = Head->Flink; E != Head; E = E->Flink) {
        PNODE N = CONTAINING_RECORD(E, NODE, Link);
        if (RtlEqualMemory(N->Item.Key, Key, KEY_SIZE))
            return N;
    }
    return NULL;
}

static VOID Log(PTABLE T, const UCHAR *Key, ULONG Action)
{
    KT_CHANGE *C;
    ExAcquireFastMutex(&T->JournalMutex);
    C = &T->Journal[T->Sequence % JOURNAL];
    RtlCopyMemory(C->Key, Key, KEY_SIZE);
    C->Sequence = T->Sequence++;
    C->Action = Action;
    C->StillThere = 0;
    ExReleaseFastMutex(&T->JournalMutex);
}

static NTSTATUS Set(PTABLE T, const KT_ITEM *Item)
{
    NTSTATUS Status = STATUS_SUCCESS;
    PNODE N, Spare;

    if (Item->Length > VALUE_SIZE)
        return STATUS_INVALID_PARAMETER;
    Spare = ExAllocateFromNPagedLookasideList(&T->Nodes);
    if (!Spare)
        return STATUS_INSUFFICIENT_RESOURCES;

    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&T->Resource, TRUE);
    N = Find(T, Item->Key);
    if (!N) {
        if (T->Keys >= MAX_KEYS) {
            Status = STATUS_QUOTA_EXCEEDED;
        } else {
            N = Spare;
            Spare = NULL;
            RtlZeroMemory(N, sizeof(*N));
            InsertTailList(&T->Buckets[Hash(Item->Key)], &N->Link);
            T->Keys++;
        }
    }
    if (NT_SUCCESS(Status)) {
        RtlCopyMemory(N->Item.Key, Item->Key, KEY_SIZE);
        N->Item.Length = Item->Length;
        RtlZeroMemory(N->Item.Value, VALUE_SIZE);
        RtlCopyMemory(N->Item.Value, Item->Value, Item->Length);
        Log(T, Item->Key, 1);
    }
    ExReleaseResourceLite(&T->Resource);
    KeLeaveCriticalRegion();

    if (Spare)
        ExFreeToNPagedLookasideList(&T->Nodes, Spare);
    return Status;
}

static NTSTATUS Get(PTABLE T, KT_ITEM *Item)
{
    PNODE N;
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&T->Resource, TRUE);
    N = Find(T, Item->Key);
    if (N)
        *Item = N->Item;
    ExReleaseResourceLite(&T->Resource);
    KeLeaveCriticalRegion();
    return N ? STATUS_SUCCESS : STATUS_NOT_FOUND;
}

static NTSTATUS Delete(PTABLE T, const UCHAR *Key)
{
    PNODE N;
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&T->Resource, TRUE);
    N = Find(T, Key);
    if (N) {
        RemoveEntryList(&N->Link);
        T->Keys--;
        Log(T, Key, 2);
    }
    ExReleaseResourceLite(&T->Resource);
    KeLeaveCriticalRegion();
    if (!N)
        return STATUS_NOT_FOUND;
    ExFreeToNPagedLookasideList(&T->Nodes, N);
    return STATUS_SUCCESS;
}

/* The newest changes, oldest first, each with whether its key is in the table now. */
static ULONG ReadJournal(PTABLE T, KT_CHANGE *Out, ULONG Room)
{
    ULONG Have, Seq, n = 0;

    KeEnterCriticalRegion();
#ifdef FIXED
    ExAcquireResourceSharedLite(&T->Resource, TRUE);
    ExAcquireFastMutex(&T->JournalMutex);
#else
    ExAcquireFastMutex(&T->JournalMutex);
    ExAcquireResourceSharedLite(&T->Resource, TRUE);
#endif
    Have = T->Sequence < JOURNAL ? T->Sequence : JOURNAL;
    if (Have > Room)
        Have = Room;
    for (Seq = T->Sequence - Have; n < Have; Seq++, n++) {
        Out[n] = T->Journal[Seq % JOURNAL];
        Out[n].StillThere = Find(T, Out[n].Key) != NULL;
    }
#ifdef FIXED
    ExReleaseFastMutex(&T->JournalMutex);
    ExReleaseResourceLite(&T->Resource);
#else
    ExReleaseResourceLite(&T->Resource);
    ExReleaseFastMutex(&T->JournalMutex);
#endif
    KeLeaveCriticalRegion();
    return n * sizeof(KT_CHANGE);
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTABLE T = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KT_SET:
        if (In < sizeof(KT_ITEM))
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        return Finish(Irp, Set(T, Buffer), 0);
    case IOCTL_KT_GET:
        if (In < KEY_SIZE || Out < sizeof(KT_ITEM))
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        Status = Get(T, Buffer);
        return Finish(Irp, Status, NT_SUCCESS(Status) ? sizeof(KT_ITEM) : 0);
    case IOCTL_KT_DELETE:
        if (In < KEY_SIZE)
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        return Finish(Irp, Delete(T, Buffer), 0);
    case IOCTL_KT_JOURNAL:
        if (Out < sizeof(KT_CHANGE))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Finish(Irp, STATUS_SUCCESS, ReadJournal(T, Buffer, Out / sizeof(KT_CHANGE)));
    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PTABLE T = Driver->DeviceObject->DeviceExtension;
    ULONG i;

    IoDeleteSymbolicLink(&LinkName);
    for (i = 0; i < BUCKETS; i++) {
        while (!IsListEmpty(&T->Buckets[i]))
            ExFreeToNPagedLookasideList(&T->Nodes, CONTAINING_RECORD(RemoveHeadList(&T->Buckets[i]), NODE, Link));
    }
    ExDeleteNPagedLookasideList(&T->Nodes);
    ExDeleteResourceLite(&T->Resource);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT Device;
    PTABLE T;
    NTSTATUS Status;
    ULONG i;

    UNREFERENCED_PARAMETER(Path);
    Status = IoCreateDevice(Driver, sizeof(TABLE), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    T = Device->DeviceExtension;
    RtlZeroMemory(T, sizeof(*T));
    for (i = 0; i < BUCKETS; i++)
        InitializeListHead(&T->Buckets[i]);
    ExInitializeFastMutex(&T->JournalMutex);
    Status = ExInitializeResourceLite(&T->Resource);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    ExInitializeNPagedLookasideList(&T->Nodes, NULL, NULL, 0, sizeof(NODE), TAG, 0);

    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        ExDeleteNPagedLookasideList(&T->Nodes);
        ExDeleteResourceLite(&T->Resource);
        IoDeleteDevice(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
