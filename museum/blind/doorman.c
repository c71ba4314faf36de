/*
 * doorman: programs hand in events; a ring sets all events. Each handle may hand in one event;
 * it is given back when the handle is closed, or on demand.
 *
 * The bug: the handle of the event is referenced without the event type, so a handle of any object is taken and
 * treated as an event.
 *
 * Device: none
 * Rule: object-of-another-kind
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_DOOR_HAND_IN   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA40, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DOOR_TAKE_BACK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA41, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DOOR_RING      CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA42, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifdef FIXED
#define DOOR_TYPE (*ExEventObjectType)
#else
#define DOOR_TYPE NULL
#endif

typedef struct _DOOR_HAND_IN {
    ULONG64 Event;          /* a handle; 64 bits in every program */
} DOOR_HAND_IN;

typedef struct _GUEST {
    LIST_ENTRY Link;
    PKEVENT Event;          /* NULL: none */
    BOOLEAN Left;           /* the handle has been closed */
} GUEST, *PGUEST;

typedef struct _DOOR {
    KSPIN_LOCK Lock;        /* guards the guests and their events */
    LIST_ENTRY Guests;
} DOOR, *PDOOR;

static UNICODE_STRING DoorDevice = RTL_CONSTANT_STRING(L"\\Device\\Doorman");
static UNICODE_STRING DoorLink = RTL_CONSTANT_STRING(L"\\DosDevices\\Doorman");

static NTSTATUS DoorDone(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI DoorCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDOOR door = DeviceObject->DeviceExtension;
    PGUEST guest = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*guest), 'rooD');
    KIRQL irql;

    if (!guest)
        return DoorDone(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    guest->Event = NULL;
    guest->Left = FALSE;
    KeAcquireSpinLock(&door->Lock, &irql);
    InsertTailList(&door->Guests, &guest->Link);
    KeReleaseSpinLock(&door->Lock, irql);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = guest;
    return DoorDone(Irp, STATUS_SUCCESS, 0);
}

/* Takes the guest's event away; TRUE if there was one. */
static BOOLEAN DoorTakeBack(PDOOR Door, PGUEST Guest, BOOLEAN Leaves)
{
    PKEVENT event;
    KIRQL irql;

    KeAcquireSpinLock(&Door->Lock, &irql);
    event = Guest->Event;
    Guest->Event = NULL;
    if (Leaves)
        Guest->Left = TRUE;
    KeReleaseSpinLock(&Door->Lock, irql);
    if (event)
        ObDereferenceObject(event);
    return event != NULL;
}

static NTSTATUS NTAPI DoorCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DoorTakeBack(DeviceObject->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, TRUE);
    return DoorDone(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DoorClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDOOR door = DeviceObject->DeviceExtension;
    PGUEST guest = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL irql;

    KeAcquireSpinLock(&door->Lock, &irql);
    RemoveEntryList(&guest->Link);
    KeReleaseSpinLock(&door->Lock, irql);
    ExFreePoolWithTag(guest, 'rooD');
    return DoorDone(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DoorHandIn(PDOOR Door, PGUEST Guest, HANDLE Handle, KPROCESSOR_MODE Mode)
{
    PVOID event;
    KIRQL irql;
    NTSTATUS status = ObReferenceObjectByHandle(Handle, EVENT_MODIFY_STATE, DOOR_TYPE, Mode, &event, NULL);

    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&Door->Lock, &irql);
    if (Guest->Left)
        status = STATUS_FILE_CLOSED;
    else if (Guest->Event)
        status = STATUS_DEVICE_BUSY;
    else
        Guest->Event = event;
    KeReleaseSpinLock(&Door->Lock, irql);
    if (!NT_SUCCESS(status))
        ObDereferenceObject(event);
    return status;
}

static ULONG DoorRing(PDOOR Door)
{
    PLIST_ENTRY link;
    ULONG count = 0;
    KIRQL irql;

    KeAcquireSpinLock(&Door->Lock, &irql);
    for (link = Door->Guests.Flink; link != &Door->Guests; link = link->Flink) {
        PGUEST guest = CONTAINING_RECORD(link, GUEST, Link);
        if (guest->Event) {
            KeSetEvent(guest->Event, IO_NO_INCREMENT, FALSE);
            count++;
        }
    }
    KeReleaseSpinLock(&Door->Lock, irql);
    return count;
}

static NTSTATUS NTAPI DoorControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDOOR door = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PGUEST guest = stack->FileObject->FsContext;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DOOR_HAND_IN:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(DOOR_HAND_IN))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = DoorHandIn(door, guest, (HANDLE)(ULONG_PTR)((DOOR_HAND_IN *)Irp->AssociatedIrp.SystemBuffer)->Event, Irp->RequestorMode);
        break;
    case IOCTL_DOOR_TAKE_BACK:
        status = DoorTakeBack(door, guest, FALSE) ? STATUS_SUCCESS : STATUS_NOT_FOUND;
        break;
    case IOCTL_DOOR_RING:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = DoorRing(door);
        information = sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return DoorDone(Irp, status, information);
}

static VOID NTAPI DoorUnload(PDRIVER_OBJECT DriverObject)
{
    IoDeleteSymbolicLink(&DoorLink);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PDOOR door;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(DOOR), &DoorDevice, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    door = device->DeviceExtension;
    KeInitializeSpinLock(&door->Lock);
    InitializeListHead(&door->Guests);
    status = IoCreateSymbolicLink(&DoorLink, &DoorDevice);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = DoorCreate;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = DoorCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DoorClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DoorControl;
    DriverObject->DriverUnload = DoorUnload;
    return STATUS_SUCCESS;
}
