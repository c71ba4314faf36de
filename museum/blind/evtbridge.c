/*
 * evtbridge.sys - Sample threshold alerts
 *
 * A data source writes samples (channel, value); any number of clients ask to
 * be woken when a channel's value reaches a limit by handing in an event of
 * their own. Used by the alarm panel and the logger.
 *
 * The bug: the handle of any object is taken for that of an event: no type is named.
 *
 * Device: none
 * Rule: object-of-another-kind
 * Needs: ioctl
 */
#include <ddk/wdm.h>

/* With this compiler's headers the variable is imported as such: its value is the type already. */
#define EVENT_OBJECT_TYPE   ((POBJECT_TYPE)ExEventObjectType)

#define EVB_POOL            'BvEt'
#define EVB_CHANNELS        16
#define EVB_PER_CLIENT      32

#define IOCTL_EVB_SUBSCRIBE     ((ULONG)CTL_CODE(0x8300, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS))
#define IOCTL_EVB_UNSUBSCRIBE   ((ULONG)CTL_CODE(0x8300, 0x902, METHOD_BUFFERED, FILE_READ_ACCESS))
#define IOCTL_EVB_LAST          ((ULONG)CTL_CODE(0x8300, 0x903, METHOD_BUFFERED, FILE_READ_ACCESS))

typedef struct _EVB_SUBSCRIBE {
    ULONG64 Event;              /* handle */
    ULONG Channel;
    LONG Limit;
} EVB_SUBSCRIBE, *PEVB_SUBSCRIBE;

typedef struct _EVB_SAMPLE {
    ULONG Channel;
    LONG Value;
} EVB_SAMPLE, *PEVB_SAMPLE;

typedef struct _EVB_SUBSCRIPTION {
    LIST_ENTRY Link;
    PFILE_OBJECT Owner;
    PKEVENT Event;
    ULONG Channel;
    LONG Limit;
} EVB_SUBSCRIPTION, *PEVB_SUBSCRIPTION;

typedef struct _EVB_GLOBALS {
    PDEVICE_OBJECT Device;
    KSPIN_LOCK Lock;
    LIST_ENTRY Subscriptions;
    LONG Last[EVB_CHANNELS];
} EVB_GLOBALS;

static EVB_GLOBALS Evb;

DRIVER_INITIALIZE DriverEntry;

static NTSTATUS EvbSubscribe(PFILE_OBJECT File, PEVB_SUBSCRIBE In, KPROCESSOR_MODE Mode)
{
    PEVB_SUBSCRIPTION sub;
    PLIST_ENTRY e;
    ULONG mine = 0;
    NTSTATUS status;
    KIRQL irql;

    if (In->Channel >= EVB_CHANNELS)
        return STATUS_INVALID_PARAMETER;

    sub = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*sub), EVB_POOL);
    if (sub == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    sub->Owner = File;
    sub->Channel = In->Channel;
    sub->Limit = In->Limit;

    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)In->Event, EVENT_MODIFY_STATE,
#ifdef FIXED
                                       EVENT_OBJECT_TYPE,
#else
                                       NULL,
#endif
                                       Mode, (PVOID *)&sub->Event, NULL);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(sub, EVB_POOL);
        return status;
    }

    KeAcquireSpinLock(&Evb.Lock, &irql);
    for (e = Evb.Subscriptions.Flink; e != &Evb.Subscriptions; e = e->Flink) {
        if (CONTAINING_RECORD(e, EVB_SUBSCRIPTION, Link)->Owner == File)
            mine++;
    }
    /* FsContext is set once the handle has been cleaned up. */
    if (mine >= EVB_PER_CLIENT)
        status = STATUS_QUOTA_EXCEEDED;
    else if (File->FsContext != NULL)
        status = STATUS_FILE_CLOSED;
    else
        InsertTailList(&Evb.Subscriptions, &sub->Link);
    KeReleaseSpinLock(&Evb.Lock, irql);

    if (!NT_SUCCESS(status)) {
        ObDereferenceObject(sub->Event);
        ExFreePoolWithTag(sub, EVB_POOL);
    }
    return status;
}

/* Channel EVB_CHANNELS: all of them. */
static ULONG EvbRemove(PFILE_OBJECT File, ULONG Channel, BOOLEAN Closing)
{
    LIST_ENTRY gone;
    PLIST_ENTRY e, next;
    ULONG n = 0;
    KIRQL irql;

    InitializeListHead(&gone);
    KeAcquireSpinLock(&Evb.Lock, &irql);
    if (Closing)
        File->FsContext = &Evb;
    for (e = Evb.Subscriptions.Flink; e != &Evb.Subscriptions; e = next) {
        PEVB_SUBSCRIPTION sub = CONTAINING_RECORD(e, EVB_SUBSCRIPTION, Link);
        next = e->Flink;
        if (sub->Owner == File && (Channel == EVB_CHANNELS || sub->Channel == Channel)) {
            RemoveEntryList(e);
            InsertTailList(&gone, e);
        }
    }
    KeReleaseSpinLock(&Evb.Lock, irql);

    while (!IsListEmpty(&gone)) {
        PEVB_SUBSCRIPTION sub = CONTAINING_RECORD(RemoveHeadList(&gone), EVB_SUBSCRIPTION, Link);
        ObDereferenceObject(sub->Event);
        ExFreePoolWithTag(sub, EVB_POOL);
        n++;
    }
    return n;
}

static VOID EvbSample(PEVB_SAMPLE Sample)
{
    PLIST_ENTRY e;
    KIRQL irql;

    KeAcquireSpinLock(&Evb.Lock, &irql);
    Evb.Last[Sample->Channel] = Sample->Value;
    for (e = Evb.Subscriptions.Flink; e != &Evb.Subscriptions; e = e->Flink) {
        PEVB_SUBSCRIPTION sub = CONTAINING_RECORD(e, EVB_SUBSCRIPTION, Link);
        if (sub->Channel == Sample->Channel && Sample->Value >= sub->Limit)
            KeSetEvent(sub->Event, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLock(&Evb.Lock, irql);
}

static NTSTATUS NTAPI EvbDispatch(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    ULONG i, n, channel;

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
    case IRP_MJ_CLOSE:
        break;

    case IRP_MJ_CLEANUP:
        EvbRemove(sp->FileObject, EVB_CHANNELS, TRUE);
        break;

    case IRP_MJ_WRITE:
        n = sp->Parameters.Write.Length / sizeof(EVB_SAMPLE);
        if (n == 0 || sp->Parameters.Write.Length % sizeof(EVB_SAMPLE) != 0) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        for (i = 0; i < n; i++) {
            if (((PEVB_SAMPLE)buffer)[i].Channel >= EVB_CHANNELS)
                status = STATUS_INVALID_PARAMETER;
        }
        if (!NT_SUCCESS(status))
            break;
        for (i = 0; i < n; i++)
            EvbSample((PEVB_SAMPLE)buffer + i);
        info = sp->Parameters.Write.Length;
        break;

    case IRP_MJ_DEVICE_CONTROL:
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_EVB_SUBSCRIBE:
            if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(EVB_SUBSCRIBE))
                status = STATUS_BUFFER_TOO_SMALL;
            else
                status = EvbSubscribe(sp->FileObject, buffer, Irp->RequestorMode);
            break;
        case IOCTL_EVB_UNSUBSCRIBE:
        case IOCTL_EVB_LAST:
            if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            channel = *(PULONG)buffer;
            if (channel >= EVB_CHANNELS) {
                status = STATUS_INVALID_PARAMETER;
            } else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_EVB_UNSUBSCRIBE) {
                if (EvbRemove(sp->FileObject, channel, FALSE) == 0)
                    status = STATUS_NOT_FOUND;
            } else if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
                status = STATUS_BUFFER_TOO_SMALL;
            } else {
                *(PLONG)buffer = Evb.Last[channel];
                info = sizeof(LONG);
            }
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
        }
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }

    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI EvbUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\??\\EvtBridge");

    UNREFERENCED_PARAMETER(DriverObject);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Evb.Device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\EvtBridge");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\??\\EvtBridge");
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeSpinLock(&Evb.Lock);
    InitializeListHead(&Evb.Subscriptions);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++)
        DriverObject->MajorFunction[i] = EvbDispatch;
    DriverObject->DriverUnload = EvbUnload;

    status = IoCreateDevice(DriverObject, 0, &name, 0x8300, FILE_DEVICE_SECURE_OPEN, FALSE, &Evb.Device);
    if (!NT_SUCCESS(status))
        return status;
    Evb.Device->Flags |= DO_BUFFERED_IO;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(Evb.Device);
        return status;
    }
    Evb.Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
