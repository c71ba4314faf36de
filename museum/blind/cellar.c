/*
 * cellar: an inventory shared by processes: IOCTL_CELLAR_PUT puts units of an article in, IOCTL_CELLAR_TAKE takes some
 * out, IOCTL_CELLAR_LIST lists. The inventory is guarded by an executive resource: lists share it.
 *
 * The bug: IOCTL_CELLAR_LIST acquires the resource without entering a critical region.
 *
 * Device: none
 * Rule: resource-apcs-enabled
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define CELLAR_TAG   'lleC'
#define ARTICLES_MAX 4096u

#define IOCTL_CELLAR_PUT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CELLAR_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CELLAR_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _UNITS {
    ULONG Article;
    ULONG Units;
} UNITS;

typedef struct _SHELF {
    LIST_ENTRY Link;
    UNITS Content;
} SHELF, *PSHELF;

static struct {
    PDEVICE_OBJECT Device;
    ERESOURCE Resource;
    LIST_ENTRY Shelves;
    ULONG Count;
} Cellar;

static PSHELF CellarFind(ULONG Article)
{
    PLIST_ENTRY e;

    for (e = Cellar.Shelves.Flink; e != &Cellar.Shelves; e = e->Flink) {
        PSHELF s = CONTAINING_RECORD(e, SHELF, Link);
        if (s->Content.Article == Article)
            return s;
    }
    return NULL;
}

static NTSTATUS CellarPut(const UNITS *Units)
{
    NTSTATUS status = STATUS_SUCCESS;
    PSHELF s;

    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Cellar.Resource, TRUE);
    s = CellarFind(Units->Article);
    if (s == NULL) {
        if (Cellar.Count >= ARTICLES_MAX)
            status = STATUS_QUOTA_EXCEEDED;
        else if ((s = ExAllocatePoolWithTag(PagedPool, sizeof(*s), CELLAR_TAG)) == NULL)
            status = STATUS_INSUFFICIENT_RESOURCES;
        else {
            s->Content = *Units;
            InsertTailList(&Cellar.Shelves, &s->Link);
            Cellar.Count++;
        }
    } else if (Units->Units > MAXULONG - s->Content.Units) {
        status = STATUS_INTEGER_OVERFLOW;
    } else {
        s->Content.Units += Units->Units;
    }
    ExReleaseResourceLite(&Cellar.Resource);
    KeLeaveCriticalRegion();
    return status;
}

static NTSTATUS CellarTake(const UNITS *Units)
{
    NTSTATUS status = STATUS_SUCCESS;
    PSHELF empty = NULL, s;

    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Cellar.Resource, TRUE);
    s = CellarFind(Units->Article);
    if (s == NULL || s->Content.Units < Units->Units) {
        status = STATUS_NOT_FOUND;
    } else {
        s->Content.Units -= Units->Units;
        if (s->Content.Units == 0) {
            RemoveEntryList(&s->Link);
            Cellar.Count--;
            empty = s;
        }
    }
    ExReleaseResourceLite(&Cellar.Resource);
    KeLeaveCriticalRegion();
    if (empty != NULL)
        ExFreePoolWithTag(empty, CELLAR_TAG);
    return status;
}

static NTSTATUS CellarList(UNITS *Answer, ULONG Length, PULONG_PTR Information)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG room = Length / sizeof(UNITS), n = 0;
    PLIST_ENTRY e;

#ifdef FIXED
    KeEnterCriticalRegion();
#endif
    ExAcquireResourceSharedLite(&Cellar.Resource, TRUE);
    for (e = Cellar.Shelves.Flink; e != &Cellar.Shelves; e = e->Flink) {
        if (n == room) {
            status = STATUS_BUFFER_OVERFLOW;
            break;
        }
        Answer[n++] = CONTAINING_RECORD(e, SHELF, Link)->Content;
    }
    ExReleaseResourceLite(&Cellar.Resource);
#ifdef FIXED
    KeLeaveCriticalRegion();
#endif
    *Information = n * sizeof(UNITS);
    return status;
}

static NTSTATUS NTAPI CellarDispatch(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR information = 0;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (sp->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;

        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_CELLAR_PUT:
            status = in < sizeof(UNITS) ? STATUS_INVALID_PARAMETER : CellarPut(buffer);
            break;
        case IOCTL_CELLAR_TAKE:
            status = in < sizeof(UNITS) ? STATUS_INVALID_PARAMETER : CellarTake(buffer);
            break;
        case IOCTL_CELLAR_LIST:
            status = CellarList(buffer, sp->Parameters.DeviceIoControl.OutputBufferLength, &information);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI CellarUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Cellar");

    UNREFERENCED_PARAMETER(DriverObject);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Cellar.Device);
    while (!IsListEmpty(&Cellar.Shelves))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Cellar.Shelves), SHELF, Link), CELLAR_TAG);
    ExDeleteResourceLite(&Cellar.Resource);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Cellar");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Cellar");
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    InitializeListHead(&Cellar.Shelves);
    status = ExInitializeResourceLite(&Cellar.Resource);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                            &Cellar.Device);
    if (!NT_SUCCESS(status)) {
        ExDeleteResourceLite(&Cellar.Resource);
        return status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = CellarDispatch;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = CellarDispatch;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CellarDispatch;
    DriverObject->DriverUnload = CellarUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(Cellar.Device);
        ExDeleteResourceLite(&Cellar.Resource);
    }
    return status;
}
