/*
 * A device with a context for each handle, made when it is opened.
 *
 * The bug: the context is freed when the last handle goes (IRP_MJ_CLEANUP) and again when the file goes (IRP_MJ_CLOSE). It shows with the first handle.
 *
 * Device: none
 * Rule: double-free, use-after-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Contexts"
#define LINK_NAME L"\\DosDevices\\Contexts"
#include "../include/legacy.h"

#define CONTEXT_TAG 'xtnC'

typedef struct _CONTEXT_BLOCK {
    LONG Requests;
} CONTEXT_BLOCK, *PCONTEXT_BLOCK;

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCONTEXT_BLOCK Context = ExAllocatePoolWithTag(NonPagedPool, sizeof(CONTEXT_BLOCK), CONTEXT_TAG);

    UNREFERENCED_PARAMETER(Device);
    if (Context == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Context->Requests = 0;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = Context;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCONTEXT_BLOCK Context = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(Device);
#ifdef FIXED
    DbgPrint("contexts: %d requests\n", Context->Requests);
#else
    ExFreePoolWithTag(Context, CONTEXT_TAG);
#endif
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, CONTEXT_TAG);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCONTEXT_BLOCK Context = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(Device);
    InterlockedIncrement(&Context->Requests);
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
        Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
