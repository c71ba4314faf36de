/*
 * Watches the registry for a support tool: the tool names a key, and the driver counts how often keys at or under it are
 * opened and created, and keeps the name of the last one.
 *
 * The bug: the callback uses the key object of a post-notification without looking whether the open succeeded.
 * Shows by: any program tries to open a key that does not exist (or that it may not open) while a watch is set.
 *
 * Device: none
 * Rule: bad-pointer
 * Needs: ioctl
 */
#include "../include/shared_frame.h"

NTSYSAPI BOOLEAN NTAPI RtlPrefixUnicodeString(PCUNICODE_STRING Prefix, PCUNICODE_STRING String, BOOLEAN IgnoreCase);

#define DEVICE_NAME L"\\Device\\KeyGuard"
#define LINK_NAME   L"\\DosDevices\\KeyGuard"

#define IOCTL_WATCH_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: WCHAR[], full path of the key */
#define IOCTL_WATCH_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WATCH_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: WATCH_REPORT */

#define WATCH_CHARS 200

typedef struct _WATCH_REPORT {
    ULONG Opened;
    ULONG Created;
    ULONG LastChars;
    WCHAR Last[WATCH_CHARS];
} WATCH_REPORT;

typedef struct _EXTENSION {
    ERESOURCE Lock;
    LARGE_INTEGER Cookie;
    BOOLEAN Watching;
    UNICODE_STRING Prefix;
    WCHAR PrefixBuffer[WATCH_CHARS];
    WATCH_REPORT Report;
} EXTENSION;

/* The watch may be looked at without the lock to save time in the common case that there is none. */
static VOID Note(EXTENSION *Ext, PVOID Key, BOOLEAN Created)
{
    PCUNICODE_STRING name = NULL;
    ULONG chars;

    if (!NT_SUCCESS(CmCallbackGetKeyObjectID(&Ext->Cookie, Key, NULL, &name)) || name == NULL) {
        return;
    }
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Ext->Lock, TRUE);
    if (Ext->Watching && RtlPrefixUnicodeString(&Ext->Prefix, name, TRUE)) {
        if (Created) {
            Ext->Report.Created++;
        } else {
            Ext->Report.Opened++;
        }
        chars = name->Length / sizeof(WCHAR);
        if (chars > WATCH_CHARS) {
            chars = WATCH_CHARS;
        }
        RtlZeroMemory(Ext->Report.Last, sizeof(Ext->Report.Last));
        RtlCopyMemory(Ext->Report.Last, name->Buffer, chars * sizeof(WCHAR));
        Ext->Report.LastChars = chars;
    }
    ExReleaseResourceLite(&Ext->Lock);
    KeLeaveCriticalRegion();
}

static NTSTATUS NTAPI RegistryCallback(PVOID Context, PVOID Class, PVOID Info)
{
    EXTENSION *ext = Context;
    PREG_POST_OPERATION_INFORMATION post = Info;
    REG_NOTIFY_CLASS class = (REG_NOTIFY_CLASS)(ULONG_PTR)Class;

    if (class != RegNtPostOpenKeyEx && class != RegNtPostCreateKeyEx) {
        return STATUS_SUCCESS;
    }
    if (!*(volatile BOOLEAN *)&ext->Watching) {
        return STATUS_SUCCESS;
    }
#ifdef FIXED
    if (post->Status != STATUS_SUCCESS) {
        return STATUS_SUCCESS;
    }
#endif
    Note(ext, post->Object, (BOOLEAN)(class == RegNtPostCreateKeyEx));
    return STATUS_SUCCESS;
}

static NTSTATUS Set(EXTENSION *Ext, PVOID Buffer, ULONG InLength)
{
    if (InLength == 0 || InLength > sizeof(Ext->PrefixBuffer) || (InLength & 1) != 0) {
        return STATUS_INVALID_PARAMETER;
    }
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Ext->Lock, TRUE);
    RtlCopyMemory(Ext->PrefixBuffer, Buffer, InLength);
    Ext->Prefix.Buffer = Ext->PrefixBuffer;
    Ext->Prefix.Length = (USHORT)InLength;
    Ext->Prefix.MaximumLength = sizeof(Ext->PrefixBuffer);
    RtlZeroMemory(&Ext->Report, sizeof(Ext->Report));
    Ext->Watching = TRUE;
    ExReleaseResourceLite(&Ext->Lock);
    KeLeaveCriticalRegion();
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status = STATUS_SUCCESS;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WATCH_SET:
        status = Set(ext, buffer, sp->Parameters.DeviceIoControl.InputBufferLength);
        break;
    case IOCTL_WATCH_CLEAR:
        KeEnterCriticalRegion();
        ExAcquireResourceExclusiveLite(&ext->Lock, TRUE);
        ext->Watching = FALSE;
        ExReleaseResourceLite(&ext->Lock);
        KeLeaveCriticalRegion();
        break;
    case IOCTL_WATCH_QUERY:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(WATCH_REPORT)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeEnterCriticalRegion();
        ExAcquireResourceSharedLite(&ext->Lock, TRUE);
        *(WATCH_REPORT *)buffer = ext->Report;
        ExReleaseResourceLite(&ext->Lock);
        KeLeaveCriticalRegion();
        information = sizeof(WATCH_REPORT);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitComplete(Irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    EXTENSION *ext = Driver->DeviceObject->DeviceExtension;

    (void)CmUnRegisterCallback(ext->Cookie); /* waits for callbacks that are running */
    ExDeleteResourceLite(&ext->Lock);
    KitDeleteControl(Driver->DeviceObject, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING altitude;
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    status = KitCreateControl(Driver, DEVICE_NAME, LINK_NAME, sizeof(EXTENSION), &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    status = ExInitializeResourceLite(&ext->Lock);
    if (!NT_SUCCESS(status)) {
        KitDeleteControl(device, LINK_NAME);
        return status;
    }
    RtlInitUnicodeString(&altitude, L"385201.7");
    status = CmRegisterCallbackEx(RegistryCallback, &altitude, Driver, ext, &ext->Cookie, NULL);
    if (!NT_SUCCESS(status)) {
        ExDeleteResourceLite(&ext->Lock);
        KitDeleteControl(device, LINK_NAME);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
