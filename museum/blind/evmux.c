/*
 * Event multiplexer: each open file may register an event; a write to the device signals the events of all files.
 *
 * The bug: the handle is referenced without naming the object type, so any object that the caller may write to (a file,
 * say) passes for an event and the next write signals "it".
 *
 * Device: none
 * Rule: object-of-another-kind
 * Needs: ioctl
 * Symptom: KeSetEvent on a FILE_OBJECT or other object: corrupted object, crash in KeSetEvent or later when it is used.
 */
#include <ddk/wdm.h>

#define TAG 'xmvE'
#define IOCTL_EVMUX_REGISTER   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_EVMUX_UNREGISTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_READ_DATA)

/* The mingw header imports the variable itself, so its value is the type (the WDK's is a pointer to the variable). */
#define EVENT_OBJECT_TYPE ((POBJECT_TYPE)ExEventObjectType)

typedef struct _CLIENT {
    LIST_ENTRY Link;
    PKEVENT Event;
} CLIENT, *PCLIENT;

typedef struct _MUX {
    FAST_MUTEX Mutex;
    LIST_ENTRY Clients;
} MUX, *PMUX;

static NTSTATUS EvComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI EvCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PMUX mux = DeviceObject->DeviceExtension;
    PCLIENT client = ExAllocatePoolWithTag(PagedPool, sizeof(CLIENT), TAG);

    if (client == NULL) {
        return EvComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    client->Event = NULL;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext2 = client;
    ExAcquireFastMutex(&mux->Mutex);
    InsertTailList(&mux->Clients, &client->Link);
    ExReleaseFastMutex(&mux->Mutex);
    return EvComplete(Irp, STATUS_SUCCESS, 0);
}

/* Sets a client's event to another one, or to none, and drops the reference to the former one. */
static VOID EvReplace(PMUX Mux, PCLIENT Client, PKEVENT Event)
{
    PKEVENT old;

    ExAcquireFastMutex(&Mux->Mutex);
    old = Client->Event;
    Client->Event = Event;
    ExReleaseFastMutex(&Mux->Mutex);
    if (old != NULL) {
        ObDereferenceObject(old);
    }
}

static NTSTATUS NTAPI EvClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PMUX mux = DeviceObject->DeviceExtension;
    PCLIENT client = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext2;

    EvReplace(mux, client, NULL);
    ExAcquireFastMutex(&mux->Mutex);
    RemoveEntryList(&client->Link);
    ExReleaseFastMutex(&mux->Mutex);
    ExFreePoolWithTag(client, TAG);
    return EvComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI EvWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PMUX mux = DeviceObject->DeviceExtension;
    PLIST_ENTRY e;

    ExAcquireFastMutex(&mux->Mutex);
    for (e = mux->Clients.Flink; e != &mux->Clients; e = e->Flink) {
        PCLIENT client = CONTAINING_RECORD(e, CLIENT, Link);

        if (client->Event != NULL) {
            KeSetEvent(client->Event, IO_NO_INCREMENT, FALSE);
        }
    }
    ExReleaseFastMutex(&mux->Mutex);
    return EvComplete(Irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length);
}

static NTSTATUS NTAPI EvControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PMUX mux = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PCLIENT client = sp->FileObject->FsContext2;
    NTSTATUS status;
    HANDLE handle;
    PVOID event;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EVMUX_REGISTER:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONGLONG)) {
            return EvComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        handle = (HANDLE)(ULONG_PTR)*(PULONGLONG)Irp->AssociatedIrp.SystemBuffer;
#ifdef FIXED
        status = ObReferenceObjectByHandle(handle, EVENT_MODIFY_STATE, EVENT_OBJECT_TYPE,
                                           Irp->RequestorMode, &event, NULL);
#else
        status = ObReferenceObjectByHandle(handle, EVENT_MODIFY_STATE, NULL,
                                           Irp->RequestorMode, &event, NULL);
#endif
        if (NT_SUCCESS(status)) {
            EvReplace(mux, client, event);
        }
        return EvComplete(Irp, status, 0);
    case IOCTL_EVMUX_UNREGISTER:
        EvReplace(mux, client, NULL);
        return EvComplete(Irp, STATUS_SUCCESS, 0);
    default:
        return EvComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI EvUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\EvMux");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\EvMux");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\EvMux");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(MUX), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ExInitializeFastMutex(&((PMUX)device->DeviceExtension)->Mutex);
    InitializeListHead(&((PMUX)device->DeviceExtension)->Clients);
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = EvUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = EvCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = EvClose;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = EvWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EvControl;
    device->Flags |= DO_DIRECT_IO;
    return STATUS_SUCCESS;
}
