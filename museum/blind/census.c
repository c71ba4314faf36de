/*
 * census: a register of running services. Each client enters its services with a name and a weight; anybody may ask for the list of all that
 * are entered, the heaviest first. What a client has entered goes with its handle.
 *
 * The bug: the list's size is taken from the count at the first look; the entries are copied at a second look under the lock. If entries
 * went in between, the tail of the answer is pool memory no one has written: old kernel data goes to user mode.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define TAG 'sneC'
#define NAME_MAX 24
#define ENTRIES_MAX 256

#define IOCTL_CENSUS_ENTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CENSUS_LEAVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CENSUS_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _PERSON {
    ULONG Weight;
    ULONG NameLength;
    UCHAR Name[NAME_MAX];
} PERSON, *PPERSON;

typedef struct _ENTRY {
    LIST_ENTRY Link;
    PFILE_OBJECT Owner;
    ULONG Id;
    PERSON Person;
} ENTRY, *PENTRY;

typedef struct _CENSUS_LIST {
    ULONG Count; /* persons that follow */
    ULONG Total; /* entered at this moment */
    PERSON Person[1];
} CENSUS_LIST, *PCENSUS_LIST;

typedef struct _CENSUS {
    KSPIN_LOCK Lock; /* guards all */
    LIST_ENTRY Entries;
    ULONG Count;
    ULONG LastId;
} CENSUS, *PCENSUS;

static const UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Census");
static const UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Census");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static BOOLEAN IdTaken(PCENSUS c, ULONG id)
{
    PLIST_ENTRY e;

    for (e = c->Entries.Flink; e != &c->Entries; e = e->Flink)
        if (CONTAINING_RECORD(e, ENTRY, Link)->Id == id)
            return TRUE;
    return FALSE;
}

/* input: a PERSON; output: the entry's number */
static NTSTATUS Enter(PCENSUS c, PIRP Irp, PIO_STACK_LOCATION s)
{
    PPERSON in = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    PENTRY entry;
    ULONG id = 0;
    KIRQL irql;

    if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof *in || in->NameLength == 0 || in->NameLength > NAME_MAX)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    entry = ExAllocatePoolWithTag(NonPagedPool, sizeof *entry, TAG);
    if (!entry)
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(entry, sizeof *entry);
    entry->Owner = s->FileObject;
    entry->Person.Weight = in->Weight;
    entry->Person.NameLength = in->NameLength;
    RtlCopyMemory(entry->Person.Name, in->Name, in->NameLength);
    KeAcquireSpinLock(&c->Lock, &irql);
    if (c->Count >= ENTRIES_MAX) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        do
            c->LastId++;
        while (c->LastId == 0 || IdTaken(c, c->LastId));
        id = entry->Id = c->LastId;
        InsertTailList(&c->Entries, &entry->Link);
        c->Count++;
    }
    KeReleaseSpinLock(&c->Lock, irql);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(entry, TAG);
        return Finish(Irp, status, 0);
    }
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = id;
    return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static PENTRY TakeEntry(PCENSUS c, PFILE_OBJECT owner, const ULONG *id)
{
    PENTRY found = NULL;
    PLIST_ENTRY e;
    KIRQL irql;

    KeAcquireSpinLock(&c->Lock, &irql);
    for (e = c->Entries.Flink; e != &c->Entries; e = e->Flink) {
        PENTRY entry = CONTAINING_RECORD(e, ENTRY, Link);

        if (entry->Owner == owner && (!id || entry->Id == *id)) {
            RemoveEntryList(e);
            c->Count--;
            found = entry;
            break;
        }
    }
    KeReleaseSpinLock(&c->Lock, irql);
    return found;
}

static NTSTATUS Leave(PCENSUS c, PIRP Irp, PIO_STACK_LOCATION s)
{
    PENTRY entry;
    ULONG id;

    if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof id)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    id = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    entry = TakeEntry(c, s->FileObject, &id);
    if (!entry)
        return Finish(Irp, STATUS_NOT_FOUND, 0);
    ExFreePoolWithTag(entry, TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID SortByWeight(PPERSON p, ULONG n)
{
    ULONG i, j;

    for (i = 1; i < n; i++) {
        PERSON moving = p[i];

        for (j = i; j && p[j - 1].Weight < moving.Weight; j--)
            p[j] = p[j - 1];
        p[j] = moving;
    }
}

static NTSTATUS List(PCENSUS c, PIRP Irp, PIO_STACK_LOCATION s)
{
    PCENSUS_LIST out = Irp->AssociatedIrp.SystemBuffer;
    ULONG room = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG count, copied = 0, total;
    PPERSON scratch;
    PLIST_ENTRY e;
    KIRQL irql;

    if (room < (ULONG)FIELD_OFFSET(CENSUS_LIST, Person))
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    room = (room - (ULONG)FIELD_OFFSET(CENSUS_LIST, Person)) / sizeof(PERSON);

    /* first look: how much memory for the sorting */
    KeAcquireSpinLock(&c->Lock, &irql);
    count = c->Count;
    KeReleaseSpinLock(&c->Lock, irql);
    if (count == 0) {
        out->Count = 0;
        out->Total = 0;
        return Finish(Irp, STATUS_SUCCESS, FIELD_OFFSET(CENSUS_LIST, Person));
    }
    scratch = ExAllocatePoolWithTag(NonPagedPool, count * sizeof *scratch, TAG);
    if (!scratch)
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);

    /* second look: the entries themselves */
    KeAcquireSpinLock(&c->Lock, &irql);
    for (e = c->Entries.Flink; e != &c->Entries && copied < count; e = e->Flink)
        scratch[copied++] = CONTAINING_RECORD(e, ENTRY, Link)->Person;
    total = c->Count;
    KeReleaseSpinLock(&c->Lock, irql);
#ifdef FIXED
    count = copied;
#endif
    SortByWeight(scratch, count);
    if (count > room)
        count = room;
    out->Count = count;
    out->Total = total;
    RtlCopyMemory((PUCHAR)out + FIELD_OFFSET(CENSUS_LIST, Person), scratch, count * sizeof *scratch);
    ExFreePoolWithTag(scratch, TAG);
    return Finish(Irp, STATUS_SUCCESS, FIELD_OFFSET(CENSUS_LIST, Person) + count * sizeof(PERSON));
}

static NTSTATUS CensusControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCENSUS c = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CENSUS_ENTER:
        return Enter(c, Irp, s);
    case IOCTL_CENSUS_LEAVE:
        return Leave(c, Irp, s);
    case IOCTL_CENSUS_LIST:
        return List(c, Irp, s);
    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS CensusOpen(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS CensusClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PENTRY entry;

    while ((entry = TakeEntry(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, NULL)) != NULL)
        ExFreePoolWithTag(entry, TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID CensusUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink((PUNICODE_STRING)&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PCENSUS c;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverUnload = CensusUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = CensusOpen;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = CensusOpen;
    Driver->MajorFunction[IRP_MJ_CLOSE] = CensusClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CensusControl;
    status = IoCreateDevice(Driver, sizeof *c, (PUNICODE_STRING)&DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    c = device->DeviceExtension;
    RtlZeroMemory(c, sizeof *c);
    KeInitializeSpinLock(&c->Lock);
    InitializeListHead(&c->Entries);
    status = IoCreateSymbolicLink((PUNICODE_STRING)&LinkName, (PUNICODE_STRING)&DeviceName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
