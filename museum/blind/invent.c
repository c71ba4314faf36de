/*
 * invent: an inventory kept by the kernel. Items have a name, a quantity and a unit
 * price; applications with write access add, change and remove them, anybody
 * with a handle may list them and ask for the total value (checked for overflow).
 *
 * The bug: a new item is not cleared and only the used characters of its name are copied, but listing hands out the whole record.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IV_TAG 'vnIt'
#define IV_NAME 40
#define IV_MAX 1000

#define IOCTL_IV_ADD    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_IV_ADJUST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_IV_REMOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_IV_LIST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_IV_TOTAL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x824, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct { ULONG Quantity, Price; ULONG NameBytes; WCHAR Name[1]; } IV_ADD;
typedef struct { ULONG Id; LONG Change; } IV_ADJUST;
typedef struct { ULONG Id, Quantity, Price, NameChars; WCHAR Name[IV_NAME]; } IV_RECORD;

typedef struct _ITEM {
    struct _ITEM *Next;
    IV_RECORD Record;
} ITEM;

static struct {
    FAST_MUTEX Mutex;       /* guards all */
    ITEM *First;
    ULONG Count;
    ULONG LastId;
} Store;

static NTSTATUS Add(const IV_ADD *In, ULONG Length, ULONG *Id)
{
    ITEM *item;
    NTSTATUS status = STATUS_SUCCESS;

    if (Length < FIELD_OFFSET(IV_ADD, Name))
        return STATUS_BUFFER_TOO_SMALL;
    if (In->NameBytes == 0 || In->NameBytes % sizeof(WCHAR) || In->NameBytes > IV_NAME * sizeof(WCHAR) ||
        In->NameBytes > Length - FIELD_OFFSET(IV_ADD, Name))
        return STATUS_INVALID_PARAMETER;
    item = ExAllocatePoolWithTag(PagedPool, sizeof *item, IV_TAG);
    if (!item)
        return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
    RtlZeroMemory(item, sizeof *item);
#endif
    item->Record.Quantity = In->Quantity;
    item->Record.Price = In->Price;
    item->Record.NameChars = In->NameBytes / sizeof(WCHAR);
    RtlCopyMemory(item->Record.Name, In->Name, In->NameBytes);

    ExAcquireFastMutex(&Store.Mutex);
    if (Store.Count >= IV_MAX)
        status = STATUS_QUOTA_EXCEEDED;
    else {
        Store.Count++;
        item->Record.Id = *Id = ++Store.LastId;
        item->Next = Store.First;
        Store.First = item;
    }
    ExReleaseFastMutex(&Store.Mutex);
    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(item, IV_TAG);
    return status;
}

static NTSTATUS Adjust(const IV_ADJUST *In)
{
    ITEM *i;
    NTSTATUS status = STATUS_NOT_FOUND;
    ExAcquireFastMutex(&Store.Mutex);
    for (i = Store.First; i; i = i->Next)
        if (i->Record.Id == In->Id) {
            LONGLONG q = (LONGLONG)i->Record.Quantity + In->Change;
            if (q < 0 || q > 0xFFFFFFFFLL)
                status = STATUS_INTEGER_OVERFLOW;
            else {
                i->Record.Quantity = (ULONG)q;
                status = STATUS_SUCCESS;
            }
            break;
        }
    ExReleaseFastMutex(&Store.Mutex);
    return status;
}

static NTSTATUS Remove(ULONG Id)
{
    ITEM **p, *gone = NULL;
    ExAcquireFastMutex(&Store.Mutex);
    for (p = &Store.First; *p; p = &(*p)->Next)
        if ((*p)->Record.Id == Id) {
            gone = *p;
            *p = gone->Next;
            Store.Count--;
            break;
        }
    ExReleaseFastMutex(&Store.Mutex);
    if (!gone)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(gone, IV_TAG);
    return STATUS_SUCCESS;
}

/* as many records as fit; STATUS_BUFFER_OVERFLOW when there were more */
static NTSTATUS List(IV_RECORD *Out, ULONG Length, ULONG_PTR *Used)
{
    ULONG room = Length / sizeof *Out, n = 0;
    ITEM *i;
    ExAcquireFastMutex(&Store.Mutex);
    for (i = Store.First; i && n < room; i = i->Next)
        Out[n++] = i->Record;
    ExReleaseFastMutex(&Store.Mutex);
    *Used = n * sizeof *Out;
    return i ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
}

static NTSTATUS Total(ULONG64 *Sum)
{
    ITEM *i;
    ULONG64 sum = 0;
    NTSTATUS status = STATUS_SUCCESS;
    ExAcquireFastMutex(&Store.Mutex);
    for (i = Store.First; i; i = i->Next) {
        ULONG64 v = (ULONG64)i->Record.Quantity * i->Record.Price;
        if (sum + v < sum) {
            status = STATUS_INTEGER_OVERFLOW;
            break;
        }
        sum += v;
    }
    ExReleaseFastMutex(&Store.Mutex);
    *Sum = sum;
    return status;
}

static NTSTATUS NTAPI IvDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    UNREFERENCED_PARAMETER(Device);

    if (sp->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        PVOID buf = Irp->AssociatedIrp.SystemBuffer;
        ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
        ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_IV_ADD: {
            ULONG id;
            if (out < sizeof id) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            status = Add(buf, in, &id);
            if (NT_SUCCESS(status)) {
                *(ULONG *)buf = id;
                info = sizeof id;
            }
            break;
        }
        case IOCTL_IV_ADJUST:
            status = in < sizeof(IV_ADJUST) ? STATUS_BUFFER_TOO_SMALL : Adjust(buf);
            break;
        case IOCTL_IV_REMOVE:
            status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : Remove(*(ULONG *)buf);
            break;
        case IOCTL_IV_LIST:
            status = List(buf, out, &info);
            break;
        case IOCTL_IV_TOTAL: {
            ULONG64 sum;
            if (out < sizeof sum) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            status = Total(&sum);
            if (NT_SUCCESS(status)) {
                *(ULONG64 *)buf = sum;
                info = sizeof sum;
            }
            break;
        }
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
        }
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI IvUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link;
    RtlInitUnicodeString(&link, L"\\DosDevices\\Inventory");
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Driver->DeviceObject);
    while (Store.First) {
        ITEM *i = Store.First;
        Store.First = i->Next;
        ExFreePoolWithTag(i, IV_TAG);
    }
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT device;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Path);

    ExInitializeFastMutex(&Store.Mutex);
    RtlInitUnicodeString(&name, L"\\Device\\Inventory");
    RtlInitUnicodeString(&link, L"\\DosDevices\\Inventory");
    status = IoCreateDevice(Driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = IvDispatch;
    Driver->MajorFunction[IRP_MJ_CLOSE] = IvDispatch;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = IvDispatch;
    Driver->DriverUnload = IvUnload;
    return STATUS_SUCCESS;
}
