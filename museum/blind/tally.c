/*
 * tally.sys: counters that applications share by number.
 *
 * A handle attaches to the counter of a number (which is made if no handle has it), adds to it, and detaches; the last one that lets
 * go of a counter takes it out of the table and frees it. Any number of handles may have the same counter.
 *
 * The bug: CounterRelease counts down outside of the table's lock, and takes the lock only to unlink. In between the counter is
 * in the table with no reference: CounterFind finds it there and raises it from 0 to 1. Then both free it, and the one that has
 * attached uses what is freed.
 *
 * How it shows: one handle detaches (or is closed) as the last one of a number, while another attaches to the same number.
 *
 * Device: none
 * Rule: use-after-free, double-free, pool-overrun, bad-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

DRIVER_INITIALIZE DriverEntry;

#define IOCTL_TALLY_ATTACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TALLY_DETACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TALLY_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'yllT'
#define MAX_COUNTERS 128

typedef struct _COUNTER {
    LIST_ENTRY Link;
    LONG References;
    ULONG Number;
    LONG Value;
} COUNTER, *PCOUNTER;

/* What belongs to a handle. */
typedef struct _CLIENT {
    FAST_MUTEX Lock; /* Attached; taken before the table's */
    PCOUNTER Attached;
} CLIENT, *PCLIENT;

static struct {
    FAST_MUTEX Lock;
    LIST_ENTRY Head;
    ULONG Count;
} Table;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Tally");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Tally");

/* The counter of a number, with one reference more. */
static NTSTATUS CounterFind(ULONG Number, PCOUNTER *Found)
{
    PLIST_ENTRY Entry;
    PCOUNTER Counter;
    NTSTATUS Status = STATUS_SUCCESS;

    ExAcquireFastMutex(&Table.Lock);
    for (Entry = Table.Head.Flink; Entry != &Table.Head; Entry = Entry->Flink) {
        Counter = CONTAINING_RECORD(Entry, COUNTER, Link);
        if (Counter->Number == Number) {
            InterlockedIncrement(&Counter->References);
            *Found = Counter;
            goto Out;
        }
    }
    if (Table.Count >= MAX_COUNTERS) {
        Status = STATUS_QUOTA_EXCEEDED;
        goto Out;
    }
    Counter = ExAllocatePoolWithTag(PagedPool, sizeof(*Counter), TAG);
    if (Counter == NULL) {
        Status = STATUS_INSUFFICIENT_RESOURCES;
        goto Out;
    }
    Counter->References = 1;
    Counter->Number = Number;
    Counter->Value = 0;
    InsertTailList(&Table.Head, &Counter->Link);
    Table.Count++;
    *Found = Counter;
Out:
    ExReleaseFastMutex(&Table.Lock);
    return Status;
}

static VOID CounterRelease(PCOUNTER Counter)
{
#ifdef FIXED
    ExAcquireFastMutex(&Table.Lock);
    if (InterlockedDecrement(&Counter->References) != 0) {
        ExReleaseFastMutex(&Table.Lock);
        return;
    }
#else
    if (InterlockedDecrement(&Counter->References) != 0)
        return;
    ExAcquireFastMutex(&Table.Lock);
#endif
    RemoveEntryList(&Counter->Link);
    Table.Count--;
    ExReleaseFastMutex(&Table.Lock);
    ExFreePoolWithTag(Counter, TAG);
}

static NTSTATUS Attach(PCLIENT Client, ULONG Number)
{
    PCOUNTER Counter;
    NTSTATUS Status;

    ExAcquireFastMutex(&Client->Lock);
    if (Client->Attached != NULL) {
        Status = STATUS_ALREADY_COMMITTED;
    } else {
        Status = CounterFind(Number, &Counter);
        if (NT_SUCCESS(Status))
            Client->Attached = Counter;
    }
    ExReleaseFastMutex(&Client->Lock);
    return Status;
}

static NTSTATUS Detach(PCLIENT Client)
{
    PCOUNTER Counter;

    ExAcquireFastMutex(&Client->Lock);
    Counter = Client->Attached;
    Client->Attached = NULL;
    ExReleaseFastMutex(&Client->Lock);
    if (Counter == NULL)
        return STATUS_NOT_FOUND;
    CounterRelease(Counter);
    return STATUS_SUCCESS;
}

static NTSTATUS Add(PCLIENT Client, LONG Amount, PLONG Result)
{
    NTSTATUS Status = STATUS_NOT_FOUND;

    ExAcquireFastMutex(&Client->Lock);
    if (Client->Attached != NULL) {
        *Result = (LONG)((ULONG)InterlockedExchangeAdd(&Client->Attached->Value, Amount) + (ULONG)Amount);
        Status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Client->Lock);
    return Status;
}

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI TallyCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCLIENT Client = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Client), TAG);

    UNREFERENCED_PARAMETER(Device);
    if (Client == NULL)
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    ExInitializeFastMutex(&Client->Lock);
    Client->Attached = NULL;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = Client;
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TallyCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0); /* no request waits here; the rest when the last one is done */
}

static NTSTATUS NTAPI TallyClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCLIENT Client = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(Device);
    Detach(Client);
    ExFreePoolWithTag(Client, TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TallyControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PCLIENT Client = Stack->FileObject->FsContext;
    ULONG Input = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Output = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    LONG Result;

    UNREFERENCED_PARAMETER(Device);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TALLY_ATTACH:
        if (Input != sizeof(ULONG))
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        return Finish(Irp, Attach(Client, *Buffer), 0);
    case IOCTL_TALLY_DETACH:
        return Finish(Irp, Detach(Client), 0);
    case IOCTL_TALLY_ADD:
        if (Input != sizeof(LONG))
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        if (Output < sizeof(LONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Status = Add(Client, (LONG)*Buffer, &Result);
        if (!NT_SUCCESS(Status))
            return Finish(Irp, Status, 0);
        *Buffer = (ULONG)Result;
        return Finish(Irp, Status, sizeof(LONG));
    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI TallyUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    ExInitializeFastMutex(&Table.Lock);
    InitializeListHead(&Table.Head);
    Driver->MajorFunction[IRP_MJ_CREATE] = TallyCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TallyCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = TallyClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TallyControl;
    Driver->DriverUnload = TallyUnload;
    Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    return STATUS_SUCCESS;
}
