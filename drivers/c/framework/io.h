/*
 * Requests that come to a device: those for its default queue, and the opening and closing of files.
 *
 * Pages: Dispatching IRPs to I/O Queues, Framework File Objects, EvtDeviceFileCreate, EvtFileCleanup, EvtFileClose, WdfIoQueueCreate (default queue).
 */
#ifndef FRAMEWORK_IO_H
#define FRAMEWORK_IO_H

typedef struct _FILE {
    OBJECT Object;
    DEVICE *Device;
    PFILE_OBJECT Wdm;
} FILE;

/* The file of a request's file object; NULL: the driver has asked for none. */
static FILE *FileOf(DEVICE *Device, PFILE_OBJECT Wdm)
{
    return Device->Settings.Files.Size == 0 || Wdm == NULL ? NULL : Wdm->FsContext;
}

static NTSTATUS NTAPI DispatchIo(PDEVICE_OBJECT Wdm, PIRP Irp)
{
    DEVICE *Device = DeviceOf(Wdm);
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Transfers = Stack->MajorFunction == IRP_MJ_READ || Stack->MajorFunction == IRP_MJ_WRITE;
    REQUEST *Request;
    QUEUE *Queue;

    if (!Enter(Device)) {
        return Complete(Irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    Queue = Device->Default;
    if (Queue == NULL || !Handles(Queue, Stack->MajorFunction)) {
        Leave(Device);
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Transfers && Stack->Parameters.Read.Length == 0 && !Queue->Config.AllowZeroLengthRequests) {
        Leave(Device);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    Request = NewRequest(Device, Irp);
    if (Request == NULL) {
        Leave(Device);
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Request->File = (OBJECT *)FileOf(Device, Stack->FileObject);
    Irp->IoStatus.Information = 0;
    IoMarkIrpPending(Irp);
    Insert(Queue, Request, FALSE);
    Leave(Device);
    return STATUS_PENDING;
}

static VOID ForgetFile(FILE *File)
{
    File->Wdm->FsContext = NULL;
    Delete(&File->Object);
}

/* The driver has answered EvtDeviceFileCreate, or will: a file that it refuses goes with the request. */
static NTSTATUS AskForFile(DEVICE *Device, PIRP Irp, FILE *File)
{
    REQUEST *Request = NewRequest(Device, Irp);

    if (Request == NULL) {
        ForgetFile(File);
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Request->File = &File->Object;
    IoMarkIrpPending(Irp);
    Device->Settings.Files.EvtDeviceFileCreate(HandleOf(&Device->Object), RequestHandle(Request), HandleOf(&File->Object));
    return STATUS_PENDING;
}

static NTSTATUS OpenFile(DEVICE *Device, PIRP Irp)
{
    PWDF_OBJECT_ATTRIBUTES Attributes = &Device->Settings.FileAttributes;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    FILE *File;
    NTSTATUS Status;

    if (Device->Settings.Files.Size == 0) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    Attributes = Attributes->Size == 0 ? NULL : Attributes;
    Status = CreateObject(Device->Object.Client, FileKind, sizeof(*File), Attributes, Device, (PVOID *)&File);
    if (NT_SUCCESS(Status)) {
        File->Device = Device;
        File->Wdm = Stack->FileObject;
        Status = Adopt(&File->Object, Attributes, NULL);
    }
    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    Stack->FileObject->FsContext = File;
    return Device->Settings.Files.EvtDeviceFileCreate == NULL ? Complete(Irp, STATUS_SUCCESS, 0) : AskForFile(Device, Irp, File);
}

static VOID CancelRequestsOf(DEVICE *Device, PFILE_OBJECT File)
{
    PLIST_ENTRY Entry;

    for (Entry = Device->Queues.Flink; Entry != &Device->Queues; Entry = Entry->Flink) {
        CancelOf(CONTAINING_RECORD(Entry, QUEUE, Entry), File);
    }
}

static NTSTATUS CloseFile(DEVICE *Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    FILE *File = FileOf(Device, Stack->FileObject);

    if (Stack->MajorFunction == IRP_MJ_CLEANUP) {
        CancelRequestsOf(Device, Stack->FileObject);
        if (File != NULL && Device->Settings.Files.EvtFileCleanup != NULL) {
            Device->Settings.Files.EvtFileCleanup(HandleOf(&File->Object));
        }
    } else if (File != NULL) {
        if (Device->Settings.Files.EvtFileClose != NULL) {
            Device->Settings.Files.EvtFileClose(HandleOf(&File->Object));
        }
        ForgetFile(File);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Wdm, PIRP Irp)
{
    DEVICE *Device = DeviceOf(Wdm);
    BOOLEAN Opens = IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE;
    NTSTATUS Status;

    if (!Enter(Device)) {
        return Complete(Irp, Opens ? STATUS_NO_SUCH_DEVICE : STATUS_SUCCESS, 0);
    }
    Status = Opens ? OpenFile(Device, Irp) : CloseFile(Device, Irp);
    Leave(Device);
    return Status;
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Wdm, PIRP Irp)
{
    DEVICE *Device = DeviceOf(Wdm);
    NTSTATUS Status;

    if (Device->Lower == NULL || !Enter(Device)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Device->Lower, Irp);
    Leave(Device);
    return Status;
}

static NTSTATUS NTAPI DispatchOther(PDEVICE_OBJECT Wdm, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Wdm);
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static PFILE_OBJECT FileObjectWdmGetFileObject(PWDF_DRIVER_GLOBALS Globals, WDFFILEOBJECT Handle)
{
    FILE *File = ObjectOf(Handle, FileKind);

    UNREFERENCED_PARAMETER(Globals);
    return File->Wdm;
}

static WDFDEVICE FileObjectGetDevice(PWDF_DRIVER_GLOBALS Globals, WDFFILEOBJECT Handle)
{
    FILE *File = ObjectOf(Handle, FileKind);

    UNREFERENCED_PARAMETER(Globals);
    return HandleOf(&File->Device->Object);
}

#endif
