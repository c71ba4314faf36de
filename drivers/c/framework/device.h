/*
 * Drivers and devices as the framework knows them, what a driver says of a device before it is created, and who is inside a device.
 */
#ifndef FRAMEWORK_DEVICE_H
#define FRAMEWORK_DEVICE_H

typedef struct _DRIVER {
    OBJECT Object;
    PDRIVER_OBJECT Wdm;
    WDF_DRIVER_CONFIG Config;
    PWSTR RegistryPath;
    struct _DEVICE **Adding; /* while EvtDriverDeviceAdd runs: gets the device that it creates */
    BOOLEAN Unloaded;
} DRIVER;

typedef struct _RESOURCES {
    OBJECT Object;
    PCM_PARTIAL_RESOURCE_LIST List; /* NULL: none */
} RESOURCES;

/* What a driver said of its device's callbacks, power policy and requests. */
typedef struct _SETTINGS {
    WDF_PNPPOWER_EVENT_CALLBACKS Power;
    BOOLEAN OwnsPowerPolicy;
    WDF_FILEOBJECT_CONFIG Files;
    WDF_OBJECT_ATTRIBUTES FileAttributes; /* Size 0: none */
    WDF_OBJECT_ATTRIBUTES RequestAttributes;
} SETTINGS;

struct _WDFDEVICE_INIT {
    CLIENT *Client;
    PDEVICE_OBJECT Pdo; /* NULL: a control device */
    BOOLEAN Exclusive;
    DEVICE_TYPE Type;
    WDF_DEVICE_IO_TYPE IoType;
    UNICODE_STRING Name;
    SETTINGS Settings;
};

typedef struct _DEVICE_INTERFACE {
    LIST_ENTRY Entry;
    UNICODE_STRING Link;
} DEVICE_INTERFACE;

typedef struct _DEVICE {
    OBJECT Object;
    OBJECT Target; /* the device below, as requests are sent to it */
    DRIVER *Driver;
    PDEVICE_OBJECT Wdm;
    PDEVICE_OBJECT Lower; /* NULL: a control device */
    PDEVICE_OBJECT Pdo;
    SETTINGS Settings;
    UNICODE_STRING Name;
    UNICODE_STRING Link;
    LIST_ENTRY Queues;
    LIST_ENTRY Interrupts;
    LIST_ENTRY Interfaces;
    struct _QUEUE *Default;
    RESOURCES *Raw; /* while its hardware is prepared */
    RESOURCES *Translated;
    KEVENT State; /* free: its state may be changed, by one thread at a time */
    BOOLEAN Started;
    BOOLEAN Prepared;
    BOOLEAN Powered;
    BOOLEAN SelfManaged; /* EvtDeviceSelfManagedIoInit has run */
    BOOLEAN Failed;
    volatile BOOLEAN Gone; /* requests are refused */
    BOOLEAN KeepsRequests;
    LONG Inside; /* dispatch routines and power requests, and 1 until it is removed */
    KEVENT Empty;
    PIO_WORKITEM PowerWork;
    PIRP PowerIrp;
} DEVICE;

static DEVICE *DeviceOf(PDEVICE_OBJECT Wdm)
{
    return *(DEVICE **)Wdm->DeviceExtension;
}

static VOID Leave(DEVICE *Device)
{
    if (InterlockedDecrement(&Device->Inside) == 0) {
        KeSetEvent(&Device->Empty, IO_NO_INCREMENT, FALSE);
    }
}

static BOOLEAN Enter(DEVICE *Device)
{
    InterlockedIncrement(&Device->Inside);
    if (Device->Gone) {
        Leave(Device);
        return FALSE;
    }
    return TRUE;
}

/* No one enters any more, and all have left. */
static VOID WaitUntilEmpty(DEVICE *Device)
{
    Device->Gone = TRUE;
    Leave(Device);
    KeWaitForSingleObject(&Device->Empty, Executive, KernelMode, FALSE, NULL);
}

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* The device that an object belongs to, or NULL. */
static DEVICE *DeviceAbove(OBJECT *Object)
{
    for (; Object != NULL; Object = Object->Parent) {
        if (Object->Kind == DeviceKind) {
            return (DEVICE *)Object;
        }
    }
    return NULL;
}

/* Timers, DPCs and work items are of a device, and have a callback. */
static NTSTATUS CheckCreation(PWDF_OBJECT_ATTRIBUTES Attributes, BOOLEAN HasCallback)
{
    if (Attributes == NULL || Attributes->ParentObject == NULL) {
        return STATUS_WDF_PARENT_NOT_SPECIFIED;
    }
    if (DeviceAbove(AnyObject(Attributes->ParentObject)) == NULL) {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    return HasCallback ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

/* A copy of what a client of an older version says in fewer bytes: the rest is 0. False if it is not of the size that its version has. */
static BOOLEAN Take(PVOID To, ULONG Most, const VOID *From, ULONG Expected)
{
    if (*(const ULONG *)From != Expected) {
        return FALSE;
    }
    RtlZeroMemory(To, Most);
    RtlCopyMemory(To, From, min(Most, Expected));
    return TRUE;
}

#endif
