/* What the parts of correct_pnp.sys share: the device's extension, and requests that are passed down and waited for. */
#ifndef CORRECT_PNP_H
#define CORRECT_PNP_H

/* Takes the list of IRP_MN_FILTER_RESOURCE_REQUIREMENTS from the status block and changes it where it lies … */
#define IDIOM_FILTER_IN_PLACE 0x001
/* … or gives a longer one back and frees the one that it was given. */
#define IDIOM_FILTER_NEW_LIST 0x002
/* Leaves its device interface enabled when it is removed. */
#define IDIOM_KEEPS_INTERFACE 0x004
/* A stopped device waits for a start or a surprise removal and takes no other change of its state, as the framework does. */
#define IDIOM_FRAMEWORK 0x008
/* Does not start again once it was stopped. */
#define IDIOM_NO_RESTART 0x010
/* Pends IRP_MN_START_DEVICE and completes it in a work item, as the page recommends. */
#define IDIOM_DEFERRED_START 0x020
/* Refuses the first IRP_MN_QUERY_REMOVE_DEVICE and the first IRP_MN_QUERY_STOP_DEVICE. */
#define IDIOM_REFUSES_ONCE 0x040
/* Adds a capability on the way down and looks for it on the way up. */
#define IDIOM_CAPABILITIES 0x080
/* Owns the power policy: a system request is answered when the device request that it asked for is. */
#define IDIOM_POWER_OWNER 0x100
/* Tries to open itself before it is started. */
#define IDIOM_OPENS_EARLY 0x200
/* Has an upper filter above itself. */
#define IDIOM_FILTER 0x400

#define CORRECT_TAG 0x72726F43u /* Corr in pool listings */

typedef struct _DEVICE_EXTENSION {
    BOOLEAN IsFilter; /* of the upper filter's device: of what follows it has the first four, and the lock */
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    ULONG Idioms;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    PUCHAR Registers;
    ULONG Length;
    PIO_WORKITEM StartItem;
    BOOLEAN Started;
    BOOLEAN Stopped;
    BOOLEAN WasStopped;
    BOOLEAN Refused;
    ULONG StateFlags; /* for the next IRP_MN_QUERY_PNP_DEVICE_STATE, which takes them */
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\CorrectPnp");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\CorrectPnp");

static NTSTATUS NTAPI SignalAndKeep(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned) {
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    }
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Passes the request down and waits until the drivers below have completed it. */
static NTSTATUS ForwardAndWait(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    NTSTATUS Status;
    KEVENT Done;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, SignalAndKeep, &Done, TRUE, TRUE, TRUE);
    Status = IoCallDriver(Extension->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Irp->IoStatus.Status;
    }
    return Status;
}

static NTSTATUS PassDown(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Extension->Lower, Irp);
}

#endif
