/*
 * A device that is opened with a channel's number behind its name, \\.\Channels\0 to \\.\Channels\7.
 *
 * The bug: the context is allocated before the name is looked at; where the name is refused, IRP_MJ_CREATE fails, no IRP_MJ_CLOSE follows, and the context is lost.
 * It shows with a name that is refused.
 *
 * Device: none
 * Rule: pool-leak
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Channels"
#define LINK_NAME L"\\DosDevices\\Channels"
#include "../include/legacy.h"

#define CHANNEL_TAG 'nahC'

typedef struct _CHANNEL {
    ULONG Number;
} CHANNEL, *PCHANNEL;

/* \N, or nothing for channel 0. */
static BOOLEAN Number(PUNICODE_STRING Name, PULONG Channel)
{
    *Channel = 0;
    if (Name->Length == 0) {
        return TRUE;
    }
    if (Name->Length != 2 * sizeof(WCHAR) || Name->Buffer[1] < L'0' || Name->Buffer[1] > L'7') {
        return FALSE;
    }
    *Channel = Name->Buffer[1] - L'0';
    return TRUE;
}

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PCHANNEL Channel = ExAllocatePoolWithTag(PagedPool, sizeof(CHANNEL), CHANNEL_TAG);

    UNREFERENCED_PARAMETER(Device);
    if (Channel == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    if (!Number(&File->FileName, &Channel->Number)) {
#ifdef FIXED
        ExFreePoolWithTag(Channel, CHANNEL_TAG);
#endif
        return Complete(Irp, STATUS_OBJECT_NAME_NOT_FOUND, 0);
    }
    File->FsContext = Channel;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, CHANNEL_TAG);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    }
    return Status;
}
