/*
 * GAZEBO: a board of named values shared by applications.  SET stores a 64-bit value under a name,
 * GET returns it, WATCH pends until a name that begins with the given text is SET and then returns
 * that name and value.  Upper and lower case make no difference.
 *
 * The bug: the watchers' names are compared by RtlPrefixUnicodeString in the queue's peek routine,
 * that is with the queue's spin lock held; the function is pageable and reads pageable upcase
 * tables, so a SET with a WATCH outstanding stops the system if they happen to be paged out.
 *
 * Device: none
 * Rule: irql-too-high
 * Needs: ioctl
 */
#include "../include/jetty_csq.h"

#ifndef FIXED
/* not in wdm.h */
NTSYSAPI BOOLEAN NTAPI RtlPrefixUnicodeString(PCUNICODE_STRING Prefix, PCUNICODE_STRING String, BOOLEAN IgnoreCase);
#endif

#define GAZEBO_DEVICE L"\\Device\\Gazebo"
#define GAZEBO_LINK L"\\DosDevices\\GAZEBO"

#define IOCTL_GAZEBO_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GAZEBO_GET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GAZEBO_WATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x833, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define GAZEBO_CHARS 32
#define GAZEBO_KEYS 128

/* Input of all requests, output of GET and WATCH. */
typedef struct _GAZEBO_RECORD {
    LONG64 Value;
    ULONG Chars;
    ULONG Reserved;
    WCHAR Name[GAZEBO_CHARS];
} GAZEBO_RECORD, *PGAZEBO_RECORD;

typedef struct _GAZEBO_KEY {
    LIST_ENTRY Entry;
    GAZEBO_RECORD Record;
} GAZEBO_KEY, *PGAZEBO_KEY;

typedef struct _GAZEBO {
    JETTY_QUEUE Watchers;
    ERESOURCE Lock;             /* the keys */
    LIST_ENTRY Keys;
    ULONG Count;
} GAZEBO, *PGAZEBO;

static UNICODE_STRING GazeboName(PGAZEBO_RECORD Record)
{
    UNICODE_STRING name;

    name.Buffer = Record->Name;
    name.Length = name.MaximumLength = (USHORT)(Record->Chars * sizeof(WCHAR));
    return name;
}

/* A watcher whose text the name in match->Key begins with. */
static PIRP NTAPI GazeboPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PJETTY_QUEUE q = (PJETTY_QUEUE)Csq;
    PJETTY_MATCH match = Context;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP watcher = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (match && match->File &&
            IoGetCurrentIrpStackLocation(watcher)->FileObject != match->File)
            continue;
        if (match && match->Key) {
            UNICODE_STRING prefix = GazeboName(watcher->AssociatedIrp.SystemBuffer);
            UNICODE_STRING name = GazeboName(match->Key);

#ifdef FIXED
            if (prefix.Length > name.Length ||
                RtlCompareMemory(prefix.Buffer, name.Buffer, prefix.Length) != prefix.Length)
#else
            if (!RtlPrefixUnicodeString(&prefix, &name, TRUE))
#endif
                continue;
        }
        return watcher;
    }
    return NULL;
}

static VOID GazeboFinish(PVOID Owner, PIRP Irp, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Owner);
    JettyComplete(Irp, Status, 0);
}

/* The key of this name; with the lock held. */
static PGAZEBO_KEY GazeboFind(PGAZEBO g, PGAZEBO_RECORD Record)
{
    UNICODE_STRING wanted = GazeboName(Record);
    PLIST_ENTRY e;

    for (e = g->Keys.Flink; e != &g->Keys; e = e->Flink) {
        PGAZEBO_KEY key = CONTAINING_RECORD(e, GAZEBO_KEY, Entry);
        UNICODE_STRING name = GazeboName(&key->Record);

        if (RtlEqualUnicodeString(&name, &wanted, TRUE))
            return key;
    }
    return NULL;
}

static NTSTATUS GazeboSet(PGAZEBO g, PGAZEBO_RECORD Record)
{
    JETTY_MATCH match = { NULL, Record };
    NTSTATUS status = STATUS_SUCCESS;
    LIST_ENTRY fired;
    PGAZEBO_KEY key;
    PIRP irp;

    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&g->Lock, TRUE);
    key = GazeboFind(g, Record);
    if (key) {
        key->Record.Value = Record->Value;
    } else if (g->Count >= GAZEBO_KEYS) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        key = ExAllocatePoolWithTag(PagedPool, sizeof(*key), JETTY_TAG);
        if (key) {
            key->Record = *Record;
            InsertTailList(&g->Keys, &key->Entry);
            g->Count++;
        } else {
            status = STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    ExReleaseResourceLite(&g->Lock);
    KeLeaveCriticalRegion();
    if (!NT_SUCCESS(status))
        return status;

    /* first all out of the queue: who watches again at once is not answered twice by this SET */
    InitializeListHead(&fired);
    while ((irp = IoCsqRemoveNextIrp(&g->Watchers.Csq, &match)) != NULL)
        InsertTailList(&fired, &irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&fired)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&fired), IRP, Tail.Overlay.ListEntry);
        *(PGAZEBO_RECORD)irp->AssociatedIrp.SystemBuffer = *Record;
        JettyComplete(irp, STATUS_SUCCESS, sizeof(*Record));
    }
    return STATUS_SUCCESS;
}

static NTSTATUS GazeboGet(PGAZEBO g, PGAZEBO_RECORD Record)
{
    PGAZEBO_KEY key;

    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&g->Lock, TRUE);
    key = GazeboFind(g, Record);
    if (key)
        *Record = key->Record;
    ExReleaseResourceLite(&g->Lock);
    KeLeaveCriticalRegion();
    return key ? STATUS_SUCCESS : STATUS_OBJECT_NAME_NOT_FOUND;
}

/* Checks what an application sent, and clears what it left undefined. */
static BOOLEAN GazeboAccept(PGAZEBO_RECORD Record, BOOLEAN MayBeEmpty)
{
    ULONG i;

    if (Record->Chars > GAZEBO_CHARS || (Record->Chars == 0 && !MayBeEmpty))
        return FALSE;
    Record->Reserved = 0;
    for (i = Record->Chars; i < GAZEBO_CHARS; i++)
        Record->Name[i] = L'\0';
#ifdef FIXED
    for (i = 0; i < Record->Chars; i++)
        Record->Name[i] = RtlUpcaseUnicodeChar(Record->Name[i]);
#endif
    return TRUE;
}

static NTSTATUS NTAPI GazeboControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PGAZEBO g = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PGAZEBO_RECORD record = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = s->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS status;

    if (code != IOCTL_GAZEBO_SET && code != IOCTL_GAZEBO_GET && code != IOCTL_GAZEBO_WATCH)
        return JettyComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (in < sizeof(*record) || (code != IOCTL_GAZEBO_SET && out < sizeof(*record)))
        return JettyComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (!GazeboAccept(record, code == IOCTL_GAZEBO_WATCH))
        return JettyComplete(Irp, STATUS_INVALID_PARAMETER, 0);

    switch (code) {
    case IOCTL_GAZEBO_SET:
        status = GazeboSet(g, record);
        return JettyComplete(Irp, status, 0);

    case IOCTL_GAZEBO_GET:
        status = GazeboGet(g, record);
        return JettyComplete(Irp, status, NT_SUCCESS(status) ? sizeof(*record) : 0);

    default:
        return JettyPark(&g->Watchers, Irp, NULL);
    }
}

static NTSTATUS NTAPI GazeboCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI GazeboCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PGAZEBO g = Device->DeviceExtension;

    JettyHandleClosed(&g->Watchers, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI GazeboUnload(PDRIVER_OBJECT Driver)
{
    PGAZEBO g = Driver->DeviceObject->DeviceExtension;

    while (!IsListEmpty(&g->Keys))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&g->Keys), GAZEBO_KEY, Entry), JETTY_TAG);
    ExDeleteResourceLite(&g->Lock);
    JettyDropControlDevice(Driver->DeviceObject, GAZEBO_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PGAZEBO g;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = GazeboCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = GazeboCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = GazeboCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GazeboControl;
    Driver->DriverUnload = GazeboUnload;

    status = JettyControlDevice(Driver, GAZEBO_DEVICE, GAZEBO_LINK, sizeof(GAZEBO), &device);
    if (!NT_SUCCESS(status))
        return status;
    g = device->DeviceExtension;
    status = ExInitializeResourceLite(&g->Lock);
    if (!NT_SUCCESS(status)) {
        JettyDropControlDevice(device, GAZEBO_LINK);
        return status;
    }
    InitializeListHead(&g->Keys);
    JettyQueueInit(&g->Watchers, g, GazeboFinish, GazeboPeek);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
