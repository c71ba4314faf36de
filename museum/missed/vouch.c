/*
 * vouch: keeps small accounts for programs. Every handle is an account that opens with a fixed credit; a program may give units to another account by passing
 * that account's handle, and may leave a remark there.
 *
 * The bug: the handle that is passed is only checked to be a file's. The file of another driver passes too, and its FsContext, whatever it is, is taken for
 * an account: foreign memory is changed.
 *
 * Device: none
 * Rule: wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define YK_LEGACY
#include "../include/queue_kit.h"

#define VOU_TAG 'uoV '
#define VOU_CREDIT 1000
#define VOU_REMARK 32

#define IOCTL_VOUCH_GIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_VOUCH_BALANCE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _VOU_GIVE {
    ULONGLONG To; /* a handle */
    ULONG Units;
    UCHAR Remark[VOU_REMARK];
} VOU_GIVE, *PVOU_GIVE;

typedef struct _VOU_BALANCE {
    ULONG Units;
    ULONG Received; /* how often */
    UCHAR Remark[VOU_REMARK];
} VOU_BALANCE, *PVOU_BALANCE;

typedef struct _VOU_ACCOUNT {
    BOOLEAN Closed;
    VOU_BALANCE Balance;
} VOU_ACCOUNT, *PVOU_ACCOUNT;

typedef struct _VOU_EXT {
    KSPIN_LOCK Lock; /* of all accounts */
    ULONGLONG Given;
} VOU_EXT, *PVOU_EXT;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING VouLink = {sizeof(L"\\DosDevices\\Vouch") - sizeof(WCHAR), sizeof(L"\\DosDevices\\Vouch"), (PWSTR)L"\\DosDevices\\Vouch"};
static UNICODE_STRING VouName = {sizeof(L"\\Device\\Vouch") - sizeof(WCHAR), sizeof(L"\\Device\\Vouch"), (PWSTR)L"\\Device\\Vouch"};

static NTSTATUS VouMove(PVOU_EXT x, PVOU_ACCOUNT From, PVOU_ACCOUNT To, const VOU_GIVE *g)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    if (To->Closed)
        Status = STATUS_FILE_CLOSED;
    else if (To == From)
        Status = STATUS_INVALID_PARAMETER;
    else if (From->Balance.Units < g->Units)
        Status = STATUS_QUOTA_EXCEEDED;
    else if (To->Balance.Units > MAXULONG - g->Units)
        Status = STATUS_INTEGER_OVERFLOW;
    if (NT_SUCCESS(Status)) {
        From->Balance.Units -= g->Units;
        To->Balance.Units += g->Units;
        To->Balance.Received++;
        RtlCopyMemory(To->Balance.Remark, g->Remark, VOU_REMARK);
        x->Given += g->Units;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

static NTSTATUS VouGive(PDEVICE_OBJECT DeviceObject, PIRP Irp, PIO_STACK_LOCATION s)
{
    PVOU_EXT x = DeviceObject->DeviceExtension;
    PFILE_OBJECT Other;
    PVOID Object;
    VOU_GIVE g;
    NTSTATUS Status;

    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(g))
        return YkReply(Irp, STATUS_INVALID_PARAMETER, 0);
    RtlCopyMemory(&g, Irp->AssociatedIrp.SystemBuffer, sizeof(g));
    if (g.Units == 0)
        return YkReply(Irp, STATUS_INVALID_PARAMETER, 0);
    Status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)g.To, FILE_WRITE_DATA, *IoFileObjectType, Irp->RequestorMode, &Object, NULL);
    if (!NT_SUCCESS(Status))
        return YkReply(Irp, Status, 0);
    Other = Object;
#ifdef FIXED
    if (Other->DeviceObject != DeviceObject) {
        ObDereferenceObject(Other);
        return YkReply(Irp, STATUS_OBJECT_TYPE_MISMATCH, 0);
    }
#endif
    /* The account lives as long as its file object. */
    Status = Other->FsContext != NULL ? VouMove(x, s->FileObject->FsContext, Other->FsContext, &g) : STATUS_INVALID_HANDLE;
    ObDereferenceObject(Other);
    return YkReply(Irp, Status, 0);
}

static NTSTATUS NTAPI VouCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PVOU_ACCOUNT a;

    UNREFERENCED_PARAMETER(DeviceObject);
    a = ExAllocatePoolWithTag(NonPagedPool, sizeof(*a), VOU_TAG);
    if (a == NULL)
        return YkReply(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(a, sizeof(*a));
    a->Balance.Units = VOU_CREDIT;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = a;
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI VouCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PVOU_EXT x = DeviceObject->DeviceExtension;
    PVOU_ACCOUNT a = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    a->Closed = TRUE;
    KeReleaseSpinLock(&x->Lock, Irql);
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI VouClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, VOU_TAG);
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI VouControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PVOU_EXT x = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVOU_ACCOUNT a = s->FileObject->FsContext;
    VOU_BALANCE b;
    KIRQL Irql;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VOUCH_GIVE:
        return VouGive(DeviceObject, Irp, s);
    case IOCTL_VOUCH_BALANCE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(b))
            return YkReply(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&x->Lock, &Irql);
        b = a->Balance;
        KeReleaseSpinLock(&x->Lock, Irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &b, sizeof(b));
        return YkReply(Irp, STATUS_SUCCESS, sizeof(b));
    }
    return YkReply(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI VouUnload(PDRIVER_OBJECT DriverObject)
{
    IoDeleteSymbolicLink(&VouLink);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT DeviceObject;
    PVOU_EXT x;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Status = IoCreateDevice(DriverObject, sizeof(VOU_EXT), &VouName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &DeviceObject);
    if (!NT_SUCCESS(Status))
        return Status;
    x = DeviceObject->DeviceExtension;
    KeInitializeSpinLock(&x->Lock);
    x->Given = 0;
    Status = IoCreateSymbolicLink(&VouLink, &VouName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = VouCreate;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = VouCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = VouClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = VouControl;
    DriverObject->DriverUnload = VouUnload;
    DeviceObject->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
