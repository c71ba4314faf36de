/*
 * A device that keeps a list of its open handles and how many requests each has made.
 *
 * The bug: closing frees the handle's node without taking it out of the list. It shows when another handle is opened or counted afterwards.
 *
 * Device: none
 * Rule: use-after-free, list-corrupt
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Register"
#define LINK_NAME L"\\DosDevices\\Register"
#include "../include/legacy.h"

#define NODE_TAG 'edoN'
#define IOCTL_REGISTER_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8EF, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _NODE {
    LIST_ENTRY Entry;
    ULONG Requests;
} NODE, *PNODE;

typedef struct _DEVICE {
    FAST_MUTEX Lock;
    LIST_ENTRY Nodes;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PNODE Node = ExAllocatePoolWithTag(PagedPool, sizeof(NODE), NODE_TAG);

    if (Node == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Node->Requests = 0;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = Node;
    ExAcquireFastMutex(&Own->Lock);
    InsertTailList(&Own->Nodes, &Node->Entry);
    ExReleaseFastMutex(&Own->Lock);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PNODE Node = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    ExAcquireFastMutex(&Own->Lock);
#ifdef FIXED
    RemoveEntryList(&Node->Entry);
#endif
    ExReleaseFastMutex(&Own->Lock);
    ExFreePoolWithTag(Node, NODE_TAG);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PLIST_ENTRY Entry;
    ULONG Sum = 0;

    if (CodeOf(Stack) != IOCTL_REGISTER_COUNT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    ExAcquireFastMutex(&Own->Lock);
    ((PNODE)Stack->FileObject->FsContext)->Requests++;
    for (Entry = Own->Nodes.Flink; Entry != &Own->Nodes; Entry = Entry->Flink) {
        Sum += CONTAINING_RECORD(Entry, NODE, Entry)->Requests;
    }
    ExReleaseFastMutex(&Own->Lock);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Sum;
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Lock);
        InitializeListHead(&((PDEVICE)Device->DeviceExtension)->Nodes);
        Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
