/*
 * vigil: an application puts processes on its watch list (one list for each handle) and asks now and then which
 * of them still live. The list holds references, so that no number can come to mean another process.
 *
 * The bug: when the process is on the list already, the reference just taken by PsLookupProcessByProcessId is not
 * given back.
 *
 * Device: none
 * Rule: object-reference-leak
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_VIGIL_ADD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_VIGIL_DROP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_VIGIL_LOOK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_READ_ACCESS)
#define VIGIL_TAG  'igiV'
#define VIGIL_MOST 64

NTSTATUS NTAPI PsLookupProcessByProcessId(HANDLE ProcessId, PEPROCESS *Process);

typedef struct _WATCHED {
    ULONG Id;
    BOOLEAN Alive;
    UCHAR Reserved[3];
} WATCHED;

typedef struct _WATCHLIST {
    FAST_MUTEX Lock;
    ULONG Count;
    struct {
        ULONG Id;
        PEPROCESS Process;
    } Item[VIGIL_MOST];
} WATCHLIST;

static NTSTATUS Add(WATCHLIST *List, ULONG Id)
{
    NTSTATUS status = STATUS_SUCCESS;
    PEPROCESS process;
    ULONG i;

    status = PsLookupProcessByProcessId((HANDLE)(ULONG_PTR)Id, &process);
    if (!NT_SUCCESS(status))
        return status;
    ExAcquireFastMutex(&List->Lock);
    for (i = 0; i < List->Count; i++) {
        if (List->Item[i].Process == process) {
            ExReleaseFastMutex(&List->Lock);
#ifdef FIXED
            ObDereferenceObject(process);
#endif
            return STATUS_SUCCESS;
        }
    }
    if (List->Count == VIGIL_MOST) {
        ExReleaseFastMutex(&List->Lock);
        ObDereferenceObject(process);
        return STATUS_QUOTA_EXCEEDED;
    }
    List->Item[List->Count].Id = Id;
    List->Item[List->Count].Process = process;
    List->Count++;
    ExReleaseFastMutex(&List->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS Drop(WATCHLIST *List, ULONG Id)
{
    PEPROCESS process = NULL;
    ULONG i;

    ExAcquireFastMutex(&List->Lock);
    for (i = 0; i < List->Count; i++) {
        if (List->Item[i].Id == Id) {
            process = List->Item[i].Process;
            List->Item[i] = List->Item[--List->Count];
            break;
        }
    }
    ExReleaseFastMutex(&List->Lock);
    if (!process)
        return STATUS_NOT_FOUND;
    ObDereferenceObject(process);
    return STATUS_SUCCESS;
}

static ULONG Look(WATCHLIST *List, WATCHED *Out, ULONG Room)
{
    LARGE_INTEGER now = { .QuadPart = 0 };
    ULONG i;

    ExAcquireFastMutex(&List->Lock);
    for (i = 0; i < List->Count && i < Room; i++) {
        RtlZeroMemory(&Out[i], sizeof(Out[i]));
        Out[i].Id = List->Item[i].Id;
        Out[i].Alive = KeWaitForSingleObject(List->Item[i].Process, Executive, KernelMode, FALSE, &now) == STATUS_TIMEOUT;
    }
    ExReleaseFastMutex(&List->Lock);
    return i;
}

static NTSTATUS NTAPI VigilControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    WATCHLIST *list = stack->FileObject->FsContext;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG_PTR info = 0;

    UNREFERENCED_PARAMETER(Device);
    switch (code) {
    case IOCTL_VIGIL_ADD:
    case IOCTL_VIGIL_DROP:
        if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG))
            status = STATUS_INVALID_PARAMETER;
        else if (code == IOCTL_VIGIL_ADD)
            status = Add(list, *(PULONG)buffer);
        else
            status = Drop(list, *(PULONG)buffer);
        break;
    case IOCTL_VIGIL_LOOK:
        if (out < sizeof(WATCHED)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            info = Look(list, buffer, out / sizeof(WATCHED)) * sizeof(WATCHED);
            status = STATUS_SUCCESS;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI VigilCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    WATCHLIST *list = ExAllocatePoolWithTag(NonPagedPool, sizeof(*list), VIGIL_TAG);
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;

    UNREFERENCED_PARAMETER(Device);
    if (list) {
        ExInitializeFastMutex(&list->Lock);
        list->Count = 0;
        IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = list;
        status = STATUS_SUCCESS;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI VigilClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    WATCHLIST *list = file->FsContext;

    UNREFERENCED_PARAMETER(Device);
    while (list->Count)
        ObDereferenceObject(list->Item[--list->Count].Process);
    file->FsContext = NULL;
    ExFreePoolWithTag(list, VIGIL_TAG);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI VigilUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Vigil");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Vigil");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Vigil");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = VigilCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = VigilClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = VigilControl;
    Driver->DriverUnload = VigilUnload;
    status = IoCreateDevice(Driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
