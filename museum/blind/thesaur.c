/*
 * thesaur: keeps texts by key for the processes of a machine. IOCTL_THES_DEFINE sets or replaces a text (an empty one
 * removes it), IOCTL_THES_LOOKUP answers it, cut to the caller's buffer (STATUS_BUFFER_OVERFLOW), IOCTL_THES_COUNT
 * tells how many there are.
 *
 * The bug: when the text is cut, the number of bytes that is returned is the length of the whole text instead of what
 * was copied.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define THES_TAG   'sehT'
#define KEY_BYTES  16u
#define TEXT_MAX   8192u
#define TERMS_MAX  512u

#define IOCTL_THES_DEFINE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_THES_LOOKUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_THES_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _TERM {
    LIST_ENTRY Link;
    UCHAR Key[KEY_BYTES];
    ULONG Length;
    UCHAR Text[1];
} TERM, *PTERM;

typedef struct _THESAURUS {
    FAST_MUTEX Mutex;
    LIST_ENTRY Terms;
    ULONG Count;
} THESAURUS, *PTHESAURUS;

static PTERM ThesFind(PTHESAURUS T, const UCHAR *Key)
{
    PLIST_ENTRY e;

    for (e = T->Terms.Flink; e != &T->Terms; e = e->Flink) {
        PTERM term = CONTAINING_RECORD(e, TERM, Link);
        if (RtlCompareMemory(term->Key, Key, KEY_BYTES) == KEY_BYTES)
            return term;
    }
    return NULL;
}

static NTSTATUS ThesDefine(PTHESAURUS T, const UCHAR *Input, ULONG Length)
{
    PTERM term = NULL, old;
    NTSTATUS status = STATUS_SUCCESS;

    if (Length < KEY_BYTES || Length - KEY_BYTES > TEXT_MAX)
        return STATUS_INVALID_PARAMETER;
    Length -= KEY_BYTES;
    if (Length != 0) {
        term = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(TERM, Text) + Length, THES_TAG);
        if (term == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlCopyMemory(term->Key, Input, KEY_BYTES);
        term->Length = Length;
        RtlCopyMemory(term->Text, Input + KEY_BYTES, Length);
    }

    ExAcquireFastMutex(&T->Mutex);
    old = ThesFind(T, Input);
    if (old == NULL && term == NULL) {
        status = STATUS_NOT_FOUND;
    } else if (old == NULL && T->Count >= TERMS_MAX) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        if (old != NULL) {
            RemoveEntryList(&old->Link);
            T->Count--;
        }
        if (term != NULL) {
            InsertHeadList(&T->Terms, &term->Link);
            T->Count++;
            term = NULL;
        }
    }
    ExReleaseFastMutex(&T->Mutex);

    if (old != NULL)
        ExFreePoolWithTag(old, THES_TAG);
    if (term != NULL)
        ExFreePoolWithTag(term, THES_TAG);
    return status;
}

static NTSTATUS ThesLookup(PTHESAURUS T, PUCHAR Buffer, ULONG In, ULONG Out, PULONG_PTR Information)
{
    UCHAR key[KEY_BYTES];
    PTERM term;
    NTSTATUS status;

    if (In < KEY_BYTES)
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(key, Buffer, KEY_BYTES);              /* the answer overwrites it */
    ExAcquireFastMutex(&T->Mutex);
    term = ThesFind(T, key);
    if (term == NULL) {
        status = STATUS_NOT_FOUND;
    } else {
        ULONG n = term->Length < Out ? term->Length : Out;

        RtlCopyMemory(Buffer, term->Text, n);
        status = n < term->Length ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
#ifdef FIXED
        *Information = n;
#else
        *Information = term->Length;
#endif
    }
    ExReleaseFastMutex(&T->Mutex);
    return status;
}

static NTSTATUS NTAPI ThesControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTHESAURUS t = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_THES_DEFINE:
        status = ThesDefine(t, buffer, in);
        break;
    case IOCTL_THES_LOOKUP:
        status = ThesLookup(t, buffer, in, out, &information);
        break;
    case IOCTL_THES_COUNT:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&t->Mutex);
        *(PULONG)buffer = t->Count;
        ExReleaseFastMutex(&t->Mutex);
        information = sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI ThesOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI ThesUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Thesaurus");
    PTHESAURUS t = DriverObject->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&link);
    while (!IsListEmpty(&t->Terms))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&t->Terms), TERM, Link), THES_TAG);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Thesaurus");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Thesaurus");
    PDEVICE_OBJECT device;
    PTHESAURUS t;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(THESAURUS), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN,
                            FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    t = device->DeviceExtension;
    ExInitializeFastMutex(&t->Mutex);
    InitializeListHead(&t->Terms);
    t->Count = 0;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = ThesOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = ThesOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ThesControl;
    DriverObject->DriverUnload = ThesUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
