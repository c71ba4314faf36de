/*
 * Sessions of handles: IOCTL_SESSION_BEGIN makes one, with an inbox and an outbox; closing the handle ends it.
 *
 * The bug: where the outbox cannot be allocated, the session and its inbox are forgotten. It shows when that allocation fails.
 *
 * Device: none
 * Rule: pool-leak
 * Needs: ioctl, failure
 */
#define DEVICE_NAME L"\\Device\\Session"
#define LINK_NAME L"\\DosDevices\\Session"
#include "../include/legacy.h"

#define SESSION_TAG 'sseS'
#define BOX_BYTES 256
#define IOCTL_SESSION_BEGIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E8, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _SESSION {
    PVOID Inbox;
    PVOID Outbox;
} SESSION, *PSESSION;

static VOID End(PSESSION Session)
{
    if (Session->Outbox != NULL) {
        ExFreePoolWithTag(Session->Outbox, SESSION_TAG);
    }
    if (Session->Inbox != NULL) {
        ExFreePoolWithTag(Session->Inbox, SESSION_TAG);
    }
    ExFreePoolWithTag(Session, SESSION_TAG);
}

static NTSTATUS Begin(PFILE_OBJECT File)
{
    PSESSION Session = ExAllocatePoolWithTag(PagedPool, sizeof(SESSION), SESSION_TAG);

    if (Session == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Session, sizeof(SESSION));
    Session->Inbox = ExAllocatePoolWithTag(PagedPool, BOX_BYTES, SESSION_TAG);
    if (Session->Inbox == NULL) {
        End(Session);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Session->Outbox = ExAllocatePoolWithTag(PagedPool, BOX_BYTES, SESSION_TAG);
    if (Session->Outbox == NULL) {
#ifdef FIXED
        End(Session);
#endif
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (InterlockedCompareExchangePointer(&File->FsContext, Session, NULL) != NULL) {
        End(Session);
        return STATUS_DEVICE_BUSY;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_SESSION_BEGIN) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, Begin(Stack->FileObject), 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSESSION Session = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(Device);
    if (Session != NULL) {
        End(Session);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
