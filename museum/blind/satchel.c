/*
 * SATCHEL: keeps named notes for applications until the driver is unloaded.  PUT stores a text
 * under a name (replacing an older one), GET returns it, DROP forgets it and LIST returns all
 * names, each with its terminator.
 *
 * The bug: a name may be as long as a UNICODE_STRING can count (0xFFFE bytes), but with room for
 * the terminator MaximumLength then wraps to 0; as it is what is allocated, the name is copied
 * over some 64 KB of paged pool that belong to others.
 *
 * Device: none
 * Rule: pool-overrun, pool-zero-bytes
 * Needs: ioctl
 */
#include "../include/jetty_base.h"

#define SATCHEL_DEVICE L"\\Device\\Satchel"
#define SATCHEL_LINK L"\\DosDevices\\SATCHEL"

#define IOCTL_SATCHEL_PUT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SATCHEL_GET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SATCHEL_DROP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SATCHEL_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x824, METHOD_BUFFERED, FILE_READ_ACCESS)

#define SATCHEL_NOTES 64
#define SATCHEL_TEXT 4096

/* The longest name, in bytes: what a UNICODE_STRING can hold. */
#ifdef FIXED
#define SATCHEL_NAME 0xFFFC
#else
#define SATCHEL_NAME 0xFFFE
#endif

/* Input of all but LIST: the name's characters, then (PUT) the text's bytes. */
typedef struct _SATCHEL_INPUT {
    ULONG NameBytes;
    ULONG TextBytes;
    UCHAR Data[1];
} SATCHEL_INPUT, *PSATCHEL_INPUT;

typedef struct _SATCHEL_NOTE {
    LIST_ENTRY Entry;
    UNICODE_STRING Name;        /* with a terminator, for LIST */
    ULONG TextBytes;
    UCHAR Text[1];
} SATCHEL_NOTE, *PSATCHEL_NOTE;

typedef struct _SATCHEL {
    FAST_MUTEX Mutex;
    LIST_ENTRY Notes;
    ULONG Count;
} SATCHEL, *PSATCHEL;

static BOOLEAN SatchelInput(PSATCHEL_INPUT Input, ULONG Length)
{
    if (Length < FIELD_OFFSET(SATCHEL_INPUT, Data))
        return FALSE;
    Length -= FIELD_OFFSET(SATCHEL_INPUT, Data);
    return Input->NameBytes != 0 && Input->NameBytes <= SATCHEL_NAME &&
           Input->NameBytes % sizeof(WCHAR) == 0 && Input->TextBytes <= SATCHEL_TEXT &&
           Input->NameBytes <= Length && Input->TextBytes <= Length - Input->NameBytes;
}

static VOID SatchelFree(PSATCHEL_NOTE Note)
{
    ExFreePoolWithTag(Note->Name.Buffer, JETTY_TAG);
    ExFreePoolWithTag(Note, JETTY_TAG);
}

/* The note of this name; with the mutex held. */
static PSATCHEL_NOTE SatchelFind(PSATCHEL c, const VOID *Name, ULONG NameBytes)
{
    PLIST_ENTRY e;

    for (e = c->Notes.Flink; e != &c->Notes; e = e->Flink) {
        PSATCHEL_NOTE note = CONTAINING_RECORD(e, SATCHEL_NOTE, Entry);

        if (note->Name.Length == NameBytes &&
            RtlCompareMemory(note->Name.Buffer, Name, NameBytes) == NameBytes)
            return note;
    }
    return NULL;
}

static NTSTATUS SatchelPut(PSATCHEL c, PSATCHEL_INPUT Input)
{
    PSATCHEL_NOTE note, old;

    note = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(SATCHEL_NOTE, Text) + Input->TextBytes,
                                 JETTY_TAG);
    if (!note)
        return STATUS_INSUFFICIENT_RESOURCES;
    note->TextBytes = Input->TextBytes;
    RtlCopyMemory(note->Text, Input->Data + Input->NameBytes, Input->TextBytes);

    note->Name.Length = (USHORT)Input->NameBytes;
    note->Name.MaximumLength = note->Name.Length + sizeof(WCHAR);
    note->Name.Buffer = ExAllocatePoolWithTag(PagedPool, note->Name.MaximumLength, JETTY_TAG);
    if (!note->Name.Buffer) {
        ExFreePoolWithTag(note, JETTY_TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(note->Name.Buffer, Input->Data, note->Name.Length);
    note->Name.Buffer[note->Name.Length / sizeof(WCHAR)] = L'\0';

    ExAcquireFastMutex(&c->Mutex);
    old = SatchelFind(c, note->Name.Buffer, note->Name.Length);
    if (old) {
        RemoveEntryList(&old->Entry);
        c->Count--;
    }
    if (c->Count < SATCHEL_NOTES) {
        InsertTailList(&c->Notes, &note->Entry);
        c->Count++;
        note = NULL;
    }
    ExReleaseFastMutex(&c->Mutex);

    if (old)
        SatchelFree(old);
    if (note) {
        SatchelFree(note);
        return STATUS_QUOTA_EXCEEDED;
    }
    return STATUS_SUCCESS;
}

/* The input is in the buffer that takes the output. */
static NTSTATUS SatchelGet(PSATCHEL c, PVOID Buffer, ULONG Out, PULONG_PTR Information)
{
    PSATCHEL_INPUT input = Buffer;
    PSATCHEL_NOTE note;
    NTSTATUS status;

    ExAcquireFastMutex(&c->Mutex);
    note = SatchelFind(c, input->Data, input->NameBytes);
    if (!note) {
        status = STATUS_OBJECT_NAME_NOT_FOUND;
    } else if (Out < note->TextBytes) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        RtlCopyMemory(Buffer, note->Text, note->TextBytes);
        *Information = note->TextBytes;
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&c->Mutex);
    return status;
}

static NTSTATUS SatchelDrop(PSATCHEL c, PSATCHEL_INPUT Input)
{
    PSATCHEL_NOTE note;

    ExAcquireFastMutex(&c->Mutex);
    note = SatchelFind(c, Input->Data, Input->NameBytes);
    if (note) {
        RemoveEntryList(&note->Entry);
        c->Count--;
    }
    ExReleaseFastMutex(&c->Mutex);
    if (!note)
        return STATUS_OBJECT_NAME_NOT_FOUND;
    SatchelFree(note);
    return STATUS_SUCCESS;
}

static NTSTATUS SatchelList(PSATCHEL c, PUCHAR Buffer, ULONG Out, PULONG_PTR Information)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG used = 0;
    PLIST_ENTRY e;

    ExAcquireFastMutex(&c->Mutex);
    for (e = c->Notes.Flink; e != &c->Notes; e = e->Flink) {
        PSATCHEL_NOTE note = CONTAINING_RECORD(e, SATCHEL_NOTE, Entry);
        ULONG bytes = note->Name.MaximumLength;

        if (bytes > Out - used) {
            status = STATUS_BUFFER_OVERFLOW;    /* as many as fit */
            break;
        }
        RtlCopyMemory(Buffer + used, note->Name.Buffer, bytes);
        used += bytes;
    }
    ExReleaseFastMutex(&c->Mutex);
    *Information = used;
    return status;
}

static NTSTATUS NTAPI SatchelControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSATCHEL c = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = s->Parameters.DeviceIoControl.IoControlCode;
    ULONG_PTR information = 0;
    NTSTATUS status;

    if (code != IOCTL_SATCHEL_PUT && code != IOCTL_SATCHEL_GET &&
        code != IOCTL_SATCHEL_DROP && code != IOCTL_SATCHEL_LIST)
        return JettyComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (code != IOCTL_SATCHEL_LIST && !SatchelInput(buffer, in))
        return JettyComplete(Irp, STATUS_INVALID_PARAMETER, 0);

    if (code == IOCTL_SATCHEL_PUT)
        status = SatchelPut(c, buffer);
    else if (code == IOCTL_SATCHEL_GET)
        status = SatchelGet(c, buffer, out, &information);
    else if (code == IOCTL_SATCHEL_DROP)
        status = SatchelDrop(c, buffer);
    else
        status = SatchelList(c, buffer, out, &information);
    return JettyComplete(Irp, status, information);
}

static NTSTATUS NTAPI SatchelCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI SatchelUnload(PDRIVER_OBJECT Driver)
{
    PSATCHEL c = Driver->DeviceObject->DeviceExtension;

    while (!IsListEmpty(&c->Notes))
        SatchelFree(CONTAINING_RECORD(RemoveHeadList(&c->Notes), SATCHEL_NOTE, Entry));
    JettyDropControlDevice(Driver->DeviceObject, SATCHEL_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PSATCHEL c;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = SatchelCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SatchelCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = SatchelCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SatchelControl;
    Driver->DriverUnload = SatchelUnload;

    status = JettyControlDevice(Driver, SATCHEL_DEVICE, SATCHEL_LINK, sizeof(SATCHEL), &device);
    if (!NT_SUCCESS(status))
        return status;
    c = device->DeviceExtension;
    ExInitializeFastMutex(&c->Mutex);
    InitializeListHead(&c->Notes);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
