/*
 * almanac: a small almanac of notes by day (1 to 366), which services write and all programs look up. A note is
 * a text of up to 200 bytes with the time at which it was written.
 *
 * The bug: a look-up reports the whole of the caller's output buffer as filled although only the note was written
 * there, so that the rest of the system buffer (old pool) is copied to the program.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_ALMANAC_WRITE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_ALMANAC_LOOKUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ALMANAC_ERASE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_WRITE_DATA)
#define TAG 'nmlA'
#define DAYS 366
#define LONGEST 200

typedef struct _NOTE_IN {
    ULONG Day;
    ULONG Length;
    CHAR Text[1];
} NOTE_IN, *PNOTE_IN;

typedef struct _NOTE_OUT {
    LARGE_INTEGER Written;
    ULONG Length;
    CHAR Text[1];
} NOTE_OUT, *PNOTE_OUT;

typedef struct _NOTE {
    LARGE_INTEGER Written;
    ULONG Length;
    CHAR Text[1];
} NOTE, *PNOTE;

static ERESOURCE Door;
static PNOTE Notes[DAYS];

static NTSTATUS Replace(ULONG day, PNOTE note)
{
    PNOTE old;

    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Door, TRUE);
    old = Notes[day];
    Notes[day] = note;
    ExReleaseResourceLite(&Door);
    KeLeaveCriticalRegion();
    if (old != NULL)
        ExFreePoolWithTag(old, TAG);
    return old == NULL && note == NULL ? STATUS_NOT_FOUND : STATUS_SUCCESS;
}

static NTSTATUS Write(PNOTE_IN in, ULONG length)
{
    const ULONG head = (ULONG)FIELD_OFFSET(NOTE_IN, Text);
    PNOTE note;

    if (length < head)
        return STATUS_BUFFER_TOO_SMALL;
    if (in->Day == 0 || in->Day > DAYS || in->Length == 0 || in->Length > LONGEST)
        return STATUS_INVALID_PARAMETER;
    if (in->Length > length - head)
        return STATUS_INVALID_BUFFER_SIZE;
    note = ExAllocatePoolWithTag(PagedPool, (ULONG)FIELD_OFFSET(NOTE, Text) + in->Length, TAG);
    if (note == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeQuerySystemTime(&note->Written);
    note->Length = in->Length;
    RtlCopyMemory(note->Text, in->Text, in->Length);
    Replace(in->Day - 1, note);
    return STATUS_SUCCESS;
}

static NTSTATUS LookUp(PVOID buffer, ULONG in, ULONG out, PULONG_PTR info)
{
    PNOTE_OUT answer = buffer;
    PNOTE note;
    ULONG day, need;
    NTSTATUS status;

    if (in < sizeof day)
        return STATUS_BUFFER_TOO_SMALL;
    day = *(PULONG)buffer;
    if (day == 0 || day > DAYS)
        return STATUS_INVALID_PARAMETER;

    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&Door, TRUE);
    note = Notes[day - 1];
    if (note == NULL) {
        status = STATUS_NOT_FOUND;
    } else {
        need = (ULONG)FIELD_OFFSET(NOTE_OUT, Text) + note->Length;
        if (out < need) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            answer->Written = note->Written;
            answer->Length = note->Length;
            RtlCopyMemory(answer->Text, note->Text, note->Length);
#ifdef FIXED
            *info = need;
#else
            *info = out;
#endif
            status = STATUS_SUCCESS;
        }
    }
    ExReleaseResourceLite(&Door);
    KeLeaveCriticalRegion();
    return status;
}

static NTSTATUS NTAPI AlmanacControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(dev);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ALMANAC_WRITE:
        status = Write(buffer, in);
        break;
    case IOCTL_ALMANAC_LOOKUP:
        status = LookUp(buffer, in, out, &info);
        break;
    case IOCTL_ALMANAC_ERASE:
        if (in < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (*(PULONG)buffer == 0 || *(PULONG)buffer > DAYS)
            status = STATUS_INVALID_PARAMETER;
        else
            status = Replace(*(PULONG)buffer - 1, NULL);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI AlmanacCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI AlmanacUnload(PDRIVER_OBJECT driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Almanac");
    ULONG day;

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(driver->DeviceObject);
    for (day = 0; day < DAYS; day++)
        Replace(day, NULL);
    ExDeleteResourceLite(&Door);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Almanac"), link = RTL_CONSTANT_STRING(L"\\DosDevices\\Almanac");
    PDEVICE_OBJECT dev;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = ExInitializeResourceLite(&Door);
    if (!NT_SUCCESS(status))
        return status;
    driver->MajorFunction[IRP_MJ_CREATE] = AlmanacCreateClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = AlmanacCreateClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AlmanacControl;
    driver->DriverUnload = AlmanacUnload;
    status = IoCreateDevice(driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (NT_SUCCESS(status)) {
        status = IoCreateSymbolicLink(&link, &name);
        if (!NT_SUCCESS(status))
            IoDeleteDevice(dev);
    }
    if (!NT_SUCCESS(status))
        ExDeleteResourceLite(&Door);
    return status;
}
