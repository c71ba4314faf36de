/*
 * A port that one handle at a time owns: who asks for it while another one has it waits. A status request tells whose it is.
 *
 * The bug: a handle that is closed keeps the port, and who asks next looks at its context, which is freed. It shows when the owner closes its handle without
 * giving the port back, and another handle asks.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\OwnedPort"
#define LINK_NAME L"\\DosDevices\\OwnedPort"
#include "../include/irp_queue.h"
#include "../include/legacy.h"

#define OWNED_TAG 'nwOa'
#define IOCTL_PORT_ACQUIRE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F4, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PORT_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F5, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PORT_OWNER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F6, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _USER {
    ULONG Number;
    BOOLEAN Closing;
} USER, *PUSER;

typedef struct _DEVICE {
    KSPIN_LOCK Lock; /* the owner, and who is next; taken before the queue's */
    PUSER Owner;
    LONG Users;
    IRP_QUEUE Waiting;
} DEVICE, *PDEVICE;

static PUSER UserOf(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
}

static VOID Ended(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Queue);
    Complete(Irp, Status, 0);
}

static NTSTATUS Acquire(PDEVICE Own, PIRP Irp)
{
    NTSTATUS Status = STATUS_SUCCESS;
    PUSER User = UserOf(Irp);
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    if (User->Closing) {
        Status = STATUS_CANCELLED;
    } else if (Own->Owner == NULL) {
        Own->Owner = User;
    } else if (Own->Owner != User) {
        IoCsqInsertIrp(&Own->Waiting.Csq, Irp, NULL);
        Status = STATUS_PENDING;
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

/* The port goes to who has waited longest, if it is this one's. */
static NTSTATUS Release(PDEVICE Own, PUSER User)
{
    NTSTATUS Status = STATUS_INVALID_DEVICE_STATE;
    PIRP Next = NULL;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    if (Own->Owner == User) {
        Status = STATUS_SUCCESS;
        Next = QueueTake(&Own->Waiting);
        Own->Owner = Next == NULL ? NULL : UserOf(Next);
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    if (Next != NULL) {
        Complete(Next, STATUS_SUCCESS, 0);
    }
    return Status;
}

static NTSTATUS Tell(PDEVICE Own, PIRP Irp)
{
    PULONG Number = Irp->AssociatedIrp.SystemBuffer;
    KIRQL OldIrql;

    if (OutputOf(IoGetCurrentIrpStackLocation(Irp)) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    *Number = Own->Owner == NULL ? 0 : Own->Owner->Number;
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PUSER User = ExAllocatePoolWithTag(NonPagedPool, sizeof(USER), OWNED_TAG);

    if (User == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    User->Number = InterlockedIncrement(&Own->Users);
    User->Closing = FALSE;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = User;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    UserOf(Irp)->Closing = TRUE;
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    QueueFlush(&Own->Waiting, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
#ifdef FIXED
    Release(Own, UserOf(Irp));
#endif
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(UserOf(Irp), OWNED_TAG);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_PORT_ACQUIRE:
        return Acquire(Own, Irp);
    case IOCTL_PORT_RELEASE:
        return Complete(Irp, Release(Own, UserOf(Irp)), 0);
    case IOCTL_PORT_OWNER:
        return Tell(Own, Irp);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        PDEVICE Own = Device->DeviceExtension;

        KeInitializeSpinLock(&Own->Lock);
        QueueInitialize(&Own->Waiting, Ended);
        Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
        Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
