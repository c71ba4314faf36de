/*
 * broker: hands messages round. What one writes to the device is put into the queue of every other open handle; the
 * bytes exist once and are counted by reference. A read takes the oldest message out of the handle's own queue
 * (STATUS_NO_MORE_ENTRIES if there is none); a message that does not fit is cut.
 *
 * The bug: the reference count is decremented and then read again to see whether it is zero, so that two who let go of
 * a message at the same time both free it.
 *
 * Device: none
 * Rule: use-after-free, double-free
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define BROKER_TAG  'korB'
#define MESSAGE_MAX 4096u
#define QUEUE_MAX   64u

typedef struct _MESSAGE {
    volatile LONG References;
    ULONG Length;
    UCHAR Bytes[1];
} MESSAGE, *PMESSAGE;

typedef struct _PARTY {
    LIST_ENTRY Link;
    FAST_MUTEX Mutex;               /* the queue; taken inside the list's mutex */
    ULONG First;
    ULONG Count;
    ULONG Dropped;
    PMESSAGE Queue[QUEUE_MAX];
} PARTY, *PPARTY;

typedef struct _BROKER {
    FAST_MUTEX Mutex;
    LIST_ENTRY Parties;
} BROKER, *PBROKER;

static VOID BrokerRelease(PMESSAGE M)
{
#ifdef FIXED
    if (InterlockedDecrement(&M->References) == 0)
        ExFreePoolWithTag(M, BROKER_TAG);
#else
    InterlockedDecrement(&M->References);
    if (M->References == 0)
        ExFreePoolWithTag(M, BROKER_TAG);
#endif
}

/* Adds a reference for the queue; the oldest message goes when the queue is full. */
static VOID BrokerQueue(PPARTY P, PMESSAGE M)
{
    PMESSAGE oldest = NULL;

    ExAcquireFastMutex(&P->Mutex);
    if (P->Count == QUEUE_MAX) {
        oldest = P->Queue[P->First];
        P->First = (P->First + 1) % QUEUE_MAX;
        P->Count--;
        P->Dropped++;
    }
    InterlockedIncrement(&M->References);
    P->Queue[(P->First + P->Count) % QUEUE_MAX] = M;
    P->Count++;
    ExReleaseFastMutex(&P->Mutex);
    if (oldest != NULL)
        BrokerRelease(oldest);
}

static PMESSAGE BrokerTake(PPARTY P)
{
    PMESSAGE m = NULL;

    ExAcquireFastMutex(&P->Mutex);
    if (P->Count != 0) {
        m = P->Queue[P->First];
        P->First = (P->First + 1) % QUEUE_MAX;
        P->Count--;
    }
    ExReleaseFastMutex(&P->Mutex);
    return m;
}

static NTSTATUS BrokerComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI BrokerCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBROKER b = DeviceObject->DeviceExtension;
    PPARTY p = ExAllocatePoolWithTag(NonPagedPool, sizeof(PARTY), BROKER_TAG);

    if (p == NULL)
        return BrokerComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(p, sizeof(*p));
    ExInitializeFastMutex(&p->Mutex);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = p;
    ExAcquireFastMutex(&b->Mutex);
    InsertTailList(&b->Parties, &p->Link);
    ExReleaseFastMutex(&b->Mutex);
    return BrokerComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BrokerClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBROKER b = DeviceObject->DeviceExtension;
    PPARTY p = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    PMESSAGE m;

    ExAcquireFastMutex(&b->Mutex);
    RemoveEntryList(&p->Link);
    ExReleaseFastMutex(&b->Mutex);
    while ((m = BrokerTake(p)) != NULL)
        BrokerRelease(m);
    ExFreePoolWithTag(p, BROKER_TAG);
    return BrokerComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BrokerWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBROKER b = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = sp->Parameters.Write.Length;
    PMESSAGE m;
    PLIST_ENTRY e;

    if (length == 0 || length > MESSAGE_MAX)
        return BrokerComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    m = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(MESSAGE, Bytes) + length, BROKER_TAG);
    if (m == NULL)
        return BrokerComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    m->References = 1;
    m->Length = length;
    RtlCopyMemory(m->Bytes, Irp->AssociatedIrp.SystemBuffer, length);

    ExAcquireFastMutex(&b->Mutex);
    for (e = b->Parties.Flink; e != &b->Parties; e = e->Flink) {
        PPARTY p = CONTAINING_RECORD(e, PARTY, Link);
        if (p != sp->FileObject->FsContext)
            BrokerQueue(p, m);
    }
    ExReleaseFastMutex(&b->Mutex);
    BrokerRelease(m);
    return BrokerComplete(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI BrokerRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = sp->Parameters.Read.Length;
    NTSTATUS status = STATUS_SUCCESS;
    PMESSAGE m;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (length == 0)
        return BrokerComplete(Irp, STATUS_SUCCESS, 0);
    m = BrokerTake(sp->FileObject->FsContext);
    if (m == NULL)
        return BrokerComplete(Irp, STATUS_NO_MORE_ENTRIES, 0);
    if (length < m->Length)
        status = STATUS_BUFFER_OVERFLOW;
    else
        length = m->Length;
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, m->Bytes, length);
    BrokerRelease(m);
    return BrokerComplete(Irp, status, length);
}

static VOID NTAPI BrokerUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Broker");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Broker");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Broker");
    PDEVICE_OBJECT device;
    PBROKER b;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(BROKER), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                            &device);
    if (!NT_SUCCESS(status))
        return status;
    b = device->DeviceExtension;
    ExInitializeFastMutex(&b->Mutex);
    InitializeListHead(&b->Parties);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = BrokerCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = BrokerClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = BrokerRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = BrokerWrite;
    DriverObject->DriverUnload = BrokerUnload;
    device->Flags |= DO_BUFFERED_IO;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
