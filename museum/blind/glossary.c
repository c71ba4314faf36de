/*
 * glossary.c - words and what they mean, kept for all programs.
 *
 * DEFINE adds an entry or changes one, FORGET takes it away, LOOKUP gives the
 * meaning of a word and LIST all words with the lengths of their meanings.
 * Entries lie in an AVL tree under a resource: many may read, one may write.
 *
 * The bug: a LOOKUP that is too short is answered with the length of the whole meaning in Information, more than
 * the output buffer holds.
 *
 * Device: Root\Glossary
 * Rule: information-too-large
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

DEFINE_GUID(INTERFACE_GUID, 0x7a1e0004, 0x51b2, 0x4f1d, 0x9c, 0x11, 0x20, 0x31, 0x42, 0x53, 0x64, 0x75);

/* ntddk.h has these; this compiler's lacks them. */
typedef enum { GenericLessThan, GenericGreaterThan, GenericEqual } RTL_GENERIC_COMPARE_RESULTS;

typedef struct _RTL_BALANCED_LINKS {
    struct _RTL_BALANCED_LINKS *Parent, *LeftChild, *RightChild;
    CHAR Balance;
    UCHAR Reserved[3];
} RTL_BALANCED_LINKS;

typedef struct _RTL_AVL_TABLE RTL_AVL_TABLE;
typedef RTL_GENERIC_COMPARE_RESULTS(NTAPI *AVL_COMPARE)(RTL_AVL_TABLE *, PVOID, PVOID);
typedef PVOID(NTAPI *AVL_ALLOCATE)(RTL_AVL_TABLE *, CLONG);
typedef VOID(NTAPI *AVL_FREE)(RTL_AVL_TABLE *, PVOID);

struct _RTL_AVL_TABLE {
    RTL_BALANCED_LINKS BalancedRoot;
    PVOID OrderedPointer;
    ULONG WhichOrderedElement;
    ULONG NumberGenericTableElements;
    ULONG DepthOfTree;
    RTL_BALANCED_LINKS *RestartKey;
    ULONG DeleteCount;
    AVL_COMPARE CompareRoutine;
    AVL_ALLOCATE AllocateRoutine;
    AVL_FREE FreeRoutine;
    PVOID TableContext;
};

NTSYSAPI VOID NTAPI RtlInitializeGenericTableAvl(RTL_AVL_TABLE *, AVL_COMPARE, AVL_ALLOCATE, AVL_FREE, PVOID);
NTSYSAPI PVOID NTAPI RtlInsertElementGenericTableAvl(RTL_AVL_TABLE *, PVOID, CLONG, PBOOLEAN);
NTSYSAPI BOOLEAN NTAPI RtlDeleteElementGenericTableAvl(RTL_AVL_TABLE *, PVOID);
NTSYSAPI PVOID NTAPI RtlLookupElementGenericTableAvl(RTL_AVL_TABLE *, PVOID);
NTSYSAPI PVOID NTAPI RtlEnumerateGenericTableAvl(RTL_AVL_TABLE *, BOOLEAN);
NTSYSAPI PVOID NTAPI RtlEnumerateGenericTableWithoutSplayingAvl(RTL_AVL_TABLE *, PVOID *);

#define POOL_TAG 'solG'
#define DEVICE_IO DO_BUFFERED_IO
#define WORD_SIZE 16
#define MEANING_LIMIT 512
#define ENTRY_LIMIT 256

#define IOCTL_DEFINE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LOOKUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct {
    CHAR Word[WORD_SIZE];
    PVOID Meaning;
    ULONG Length;
} ENTRY;

/* LOOKUP: Length is that of the whole meaning, behind it comes what there is room for. */
typedef struct {
    ULONG Length;
    UCHAR Meaning[1];
} ANSWER;

typedef struct {
    ULONG Count;
    struct {
        CHAR Word[WORD_SIZE];
        ULONG Length;
    } Words[1];
} WORD_LIST;

struct EXT {
    BASE B;
    ERESOURCE Resource;
    RTL_AVL_TABLE Entries;
    ULONG Count;
};

/* ---- the table ----------------------------------------------------------------- */

static RTL_GENERIC_COMPARE_RESULTS NTAPI CompareEntries(RTL_AVL_TABLE *Table, PVOID First, PVOID Second)
{
    ENTRY *a = First, *b = Second;
    ULONG i;

    UNREFERENCED_PARAMETER(Table);
    for (i = 0; i < WORD_SIZE; i++) {
        if (a->Word[i] != b->Word[i])
            return a->Word[i] < b->Word[i] ? GenericLessThan : GenericGreaterThan;
    }
    return GenericEqual;
}

static PVOID NTAPI AllocateEntry(RTL_AVL_TABLE *Table, CLONG Size)
{
    UNREFERENCED_PARAMETER(Table);
    return ExAllocatePoolWithTag(PagedPool, Size, POOL_TAG);
}

static VOID NTAPI FreeEntry(RTL_AVL_TABLE *Table, PVOID Entry)
{
    UNREFERENCED_PARAMETER(Table);
    ExFreePoolWithTag(Entry, POOL_TAG);
}

static VOID LockForReading(EXT *x)
{
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&x->Resource, TRUE);
}

static VOID LockForWriting(EXT *x)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&x->Resource, TRUE);
}

static VOID Unlock(EXT *x)
{
    ExReleaseResourceLite(&x->Resource);
    KeLeaveCriticalRegion();
}

/* A word is padded with zeros, so that it compares as a whole. */
static BOOLEAN MakeKey(ENTRY *Key, const CHAR *Text, ULONG Length)
{
    ULONG i;

    RtlZeroMemory(Key, sizeof(*Key));
    if (Length < WORD_SIZE)
        return FALSE;
    for (i = 0; i < WORD_SIZE && Text[i] != 0; i++)
        Key->Word[i] = Text[i];
    return i > 0;
}

static NTSTATUS Define(EXT *x, const CHAR *In, ULONG Length)
{
    NTSTATUS Status = STATUS_SUCCESS;
    PVOID Meaning = NULL;
    BOOLEAN New;
    ENTRY Key, *e;

    if (!MakeKey(&Key, In, Length))
        return STATUS_INVALID_PARAMETER;
    Length -= WORD_SIZE;
    if (Length > MEANING_LIMIT)
        return STATUS_INVALID_BUFFER_SIZE;
    if (Length != 0) {
        Meaning = ExAllocatePoolWithTag(PagedPool, Length, POOL_TAG);
        if (Meaning == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlCopyMemory(Meaning, In + WORD_SIZE, Length);
    }
    LockForWriting(x);
    e = RtlLookupElementGenericTableAvl(&x->Entries, &Key);
    if (e != NULL) {
        PVOID Old = e->Meaning;

        e->Meaning = Meaning;
        e->Length = Length;
        Meaning = Old;
    } else if (x->Count == ENTRY_LIMIT) {
        Status = STATUS_QUOTA_EXCEEDED;
    } else {
        Key.Meaning = Meaning;
        Key.Length = Length;
        e = RtlInsertElementGenericTableAvl(&x->Entries, &Key, sizeof(Key), &New);
        if (e == NULL) {
            Status = STATUS_INSUFFICIENT_RESOURCES;
        } else {
            x->Count++;
            Meaning = NULL;
        }
    }
    Unlock(x);
    if (Meaning != NULL)
        ExFreePoolWithTag(Meaning, POOL_TAG);
    return Status;
}

static NTSTATUS Forget(EXT *x, const CHAR *In, ULONG Length)
{
    NTSTATUS Status = STATUS_NOT_FOUND;
    PVOID Meaning = NULL;
    ENTRY Key, *e;

    if (!MakeKey(&Key, In, Length))
        return STATUS_INVALID_PARAMETER;
    LockForWriting(x);
    e = RtlLookupElementGenericTableAvl(&x->Entries, &Key);
    if (e != NULL) {
        Meaning = e->Meaning;
        RtlDeleteElementGenericTableAvl(&x->Entries, e);
        x->Count--;
        Status = STATUS_SUCCESS;
    }
    Unlock(x);
    if (Meaning != NULL)
        ExFreePoolWithTag(Meaning, POOL_TAG);
    return Status;
}

static NTSTATUS Lookup(EXT *x, PVOID Buffer, ULONG In, ULONG Out, ULONG *Information)
{
    const ULONG Header = FIELD_OFFSET(ANSWER, Meaning);
    NTSTATUS Status = STATUS_NOT_FOUND;
    ANSWER *a = Buffer;
    ENTRY Key, *e;

    if (!MakeKey(&Key, Buffer, In))
        return STATUS_INVALID_PARAMETER;
    if (Out < Header)
        return STATUS_BUFFER_TOO_SMALL;
    LockForReading(x);
    e = RtlLookupElementGenericTableAvl(&x->Entries, &Key);
    if (e != NULL) {
        ULONG Room = Out - Header;
        ULONG Count = e->Length < Room ? e->Length : Room;

        a->Length = e->Length;
        if (Count != 0)
            RtlCopyMemory(a->Meaning, e->Meaning, Count);
#ifdef FIXED
        *Information = Header + Count;
#else
        *Information = Header + e->Length;
#endif
        Status = Count == e->Length ? STATUS_SUCCESS : STATUS_BUFFER_OVERFLOW;
    }
    Unlock(x);
    return Status;
}

static NTSTATUS List(EXT *x, WORD_LIST *List, ULONG Out, ULONG *Information)
{
    const ULONG Header = FIELD_OFFSET(WORD_LIST, Words);
    NTSTATUS Status = STATUS_SUCCESS;
    PVOID Restart = NULL;
    ULONG Count = 0;
    ENTRY *e;

    if (Out < Header)
        return STATUS_BUFFER_TOO_SMALL;
    LockForReading(x);
    while ((e = RtlEnumerateGenericTableWithoutSplayingAvl(&x->Entries, &Restart)) != NULL) {
        if ((Out - Header) / sizeof(List->Words[0]) <= Count) {
            Status = STATUS_BUFFER_OVERFLOW;
            break;
        }
        RtlCopyMemory(List->Words[Count].Word, e->Word, WORD_SIZE);
        List->Words[Count].Length = e->Length;
        Count++;
    }
    List->Count = x->Count;
    Unlock(x);
    *Information = Header + Count * sizeof(List->Words[0]);
    return Status;
}

/* ---- the device ------------------------------------------------------------------ */

static NTSTATUS DevInit(EXT *x)
{
    NTSTATUS Status = ExInitializeResourceLite(&x->Resource);

    if (NT_SUCCESS(Status))
        RtlInitializeGenericTableAvl(&x->Entries, CompareEntries, AllocateEntry, FreeEntry, x);
    return Status;
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
    ENTRY *e;

    while ((e = RtlEnumerateGenericTableAvl(&x->Entries, TRUE)) != NULL) {
        if (e->Meaning != NULL)
            ExFreePoolWithTag(e->Meaning, POOL_TAG);
        RtlDeleteElementGenericTableAvl(&x->Entries, e);
    }
    ExDeleteResourceLite(&x->Resource);
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

/* ---- requests -------------------------------------------------------------------- */

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
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = Enter(x, Irp);
    ULONG Information = 0;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DEFINE:
        Status = Define(x, Buffer, In);
        break;
    case IOCTL_FORGET:
        Status = Forget(x, Buffer, In);
        break;
    case IOCTL_LOOKUP:
        Status = Lookup(x, Buffer, In, Out, &Information);
        break;
    case IOCTL_LIST:
        Status = List(x, Buffer, Out, &Information);
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
