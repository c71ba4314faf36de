/*
 * sigfan: a fan-out of level changes. Applications register an event handle with
 * a threshold; a program that posts a level makes the driver signal the events of all
 * registrations at or below it. Registrations belong to the handle of the
 * device they were made with and go when that is cleaned up.
 *
 * The bug: a registration takes the handle without asking for the event type, so any object whose handle grants bit 1 becomes the "event".
 *
 * Device: none
 * Rule: object-of-another-kind
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define SF_TAG 'naFS'
#define SF_MAX_PER_HANDLE 64
#define IOCTL_SF_REGISTER   CTL_CODE(0x8001, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SF_UNREGISTER CTL_CODE(0x8001, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SF_POST       CTL_CODE(0x8001, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SF_STATS      CTL_CODE(0x8001, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct { ULONG64 Event; ULONG Threshold; ULONG Reserved; } SF_REGISTER;
typedef struct { ULONG Registrations, Posts, Signals, LastLevel; } SF_STATS;

typedef struct {
    LIST_ENTRY Link;
    PFILE_OBJECT Owner;
    PKEVENT Event;
    ULONG Threshold;
    ULONG Id;
} SF_ENTRY;

typedef struct {
    KSPIN_LOCK Lock;        /* guards all below */
    LIST_ENTRY Entries;
    ULONG NextId;
    SF_STATS Stats;
} SF_EXT;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\SigFan");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\SigFan");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS Register(SF_EXT *X, PFILE_OBJECT File, KPROCESSOR_MODE Mode, SF_REGISTER *In, ULONG *Id)
{
    SF_ENTRY *entry;
    PLIST_ENTRY e;
    PVOID object;
    KIRQL irql;
    NTSTATUS status;
    ULONG mine = 0;

    entry = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *entry, SF_TAG);
    if (!entry)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)In->Event, EVENT_MODIFY_STATE,
#ifdef FIXED
                                       *ExEventObjectType,
#else
                                       NULL,
#endif
                                       Mode, &object, NULL);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(entry, SF_TAG);
        return status;
    }
    entry->Owner = File;
    entry->Event = object;
    entry->Threshold = In->Threshold;

    KeAcquireSpinLock(&X->Lock, &irql);
    for (e = X->Entries.Flink; e != &X->Entries; e = e->Flink)
        if (CONTAINING_RECORD(e, SF_ENTRY, Link)->Owner == File)
            mine++;
    if (mine < SF_MAX_PER_HANDLE) {
        entry->Id = *Id = ++X->NextId;
        InsertTailList(&X->Entries, &entry->Link);
        X->Stats.Registrations++;
    } else
        status = STATUS_QUOTA_EXCEEDED;
    KeReleaseSpinLock(&X->Lock, irql);

    if (!NT_SUCCESS(status)) {
        ObDereferenceObject(object);
        ExFreePoolWithTag(entry, SF_TAG);
    }
    return status;
}

/* removes one (Id) or all registrations of a file; returns how many */
static ULONG Unregister(SF_EXT *X, PFILE_OBJECT File, BOOLEAN All, ULONG Id)
{
    ULONG n = 0;
    for (;;) {
        SF_ENTRY *found = NULL;
        PLIST_ENTRY e;
        KIRQL irql;
        KeAcquireSpinLock(&X->Lock, &irql);
        for (e = X->Entries.Flink; e != &X->Entries; e = e->Flink) {
            SF_ENTRY *c = CONTAINING_RECORD(e, SF_ENTRY, Link);
            if (c->Owner == File && (All || c->Id == Id)) {
                found = c;
                RemoveEntryList(&c->Link);
                X->Stats.Registrations--;
                break;
            }
        }
        KeReleaseSpinLock(&X->Lock, irql);
        if (!found)
            return n;
        ObDereferenceObject(found->Event);
        ExFreePoolWithTag(found, SF_TAG);
        n++;
        if (!All)
            return n;
    }
}

static VOID Post(SF_EXT *X, ULONG Level)
{
    PLIST_ENTRY e;
    KIRQL irql;
    KeAcquireSpinLock(&X->Lock, &irql);
    X->Stats.Posts++;
    X->Stats.LastLevel = Level;
    for (e = X->Entries.Flink; e != &X->Entries; e = e->Flink) {
        SF_ENTRY *c = CONTAINING_RECORD(e, SF_ENTRY, Link);
        if (c->Threshold <= Level) {
            KeSetEvent(c->Event, IO_NO_INCREMENT, FALSE);
            X->Stats.Signals++;
        }
    }
    KeReleaseSpinLock(&X->Lock, irql);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    SF_EXT *x = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status;
    ULONG id = 0;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SF_REGISTER:
        if (in < sizeof(SF_REGISTER) || out < sizeof(ULONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = Register(x, sp->FileObject, Irp->RequestorMode, buf, &id);
        if (!NT_SUCCESS(status))
            return Finish(Irp, status, 0);
        *(ULONG *)buf = id;
        return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_SF_UNREGISTER:
        if (in < sizeof(ULONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Finish(Irp, Unregister(x, sp->FileObject, FALSE, *(ULONG *)buf) ? STATUS_SUCCESS : STATUS_NOT_FOUND, 0);
    case IOCTL_SF_POST:
        if (in < sizeof(ULONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Post(x, *(ULONG *)buf);
        return Finish(Irp, STATUS_SUCCESS, 0);
    case IOCTL_SF_STATS: {
        KIRQL irql;
        if (out < sizeof(SF_STATS))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&x->Lock, &irql);
        *(SF_STATS *)buf = x->Stats;
        KeReleaseSpinLock(&x->Lock, irql);
        return Finish(Irp, STATUS_SUCCESS, sizeof(SF_STATS));
    }
    }
    return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    /* a registration that was under way while the last handle was closed came after the cleanup */
    if (sp->MajorFunction == IRP_MJ_CLOSE)
        Unregister(Dev->DeviceExtension, sp->FileObject, TRUE, 0);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    Unregister(Dev->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, TRUE, 0);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT dev;
    SF_EXT *x;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Path);

    status = IoCreateDevice(Driver, sizeof *x, &DeviceName, 0x8001, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    x = dev->DeviceExtension;
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Entries);
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
