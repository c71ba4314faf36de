/*
 * tarnix: a software sensor. A system thread takes ten samples a second; an application reads the last one, waits for
 * the next one, or hands in an event that is set each time the value rises over a threshold of its own.
 *
 * The bug: when enabling the device interface fails at the start, the start fails and leaves the sampling thread
 * running. The removal that follows only stops what a good start began, and frees the device under the thread.
 *
 * Device: ROOT\TARNIX
 * Rule: use-after-free
 * Needs: failure, removal
 */
#include <ddk/wdm.h>
#include "../include/quill_pnp.h"
#include "../include/quill_queue.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

/*
 * mingw's header has the exported type variables as dllimport and with one star too many: with it their value, without
 * a further indirection, is the object type.
 */
#define TARNIX_EVENT_TYPE  ((POBJECT_TYPE)ExEventObjectType)
#define TARNIX_THREAD_TYPE ((POBJECT_TYPE)PsThreadType)

#define TARNIX_TAG    'nraT'
#define TARNIX_PERIOD (100 * 10000)     /* 100 ms */
#define TARNIX_WAITS  256

#define IOCTL_TARNIX_LAST    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TARNIX_NEXT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TARNIX_WATCH   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TARNIX_UNWATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x853, METHOD_BUFFERED, FILE_READ_ACCESS)

/* {8E4D52B7-0A6C-4FD1-B3C8-72F1A9D4E605} */
static const GUID TarnixInterface =
    { 0x8e4d52b7, 0x0a6c, 0x4fd1, { 0xb3, 0xc8, 0x72, 0xf1, 0xa9, 0xd4, 0xe6, 0x05 } };

/* What IOCTL_TARNIX_LAST and IOCTL_TARNIX_NEXT give. */
typedef struct _TARNIX_SAMPLE {
    ULONG Serial;
    LONG Value;
} TARNIX_SAMPLE, *PTARNIX_SAMPLE;

/* The input of IOCTL_TARNIX_WATCH. */
typedef struct _TARNIX_WATCH {
    ULONG64 Event;
    LONG Threshold;
    ULONG Reserved;                 /* zero */
} TARNIX_WATCH, *PTARNIX_WATCH;

/* FsContext of a handle: in the device's list from create to close. */
typedef struct _TARNIX_USER {
    LIST_ENTRY Link;
    PKEVENT Event;                  /* referenced; NULL: no watch */
    LONG Threshold;
    BOOLEAN Over;                   /* the last sample was over the threshold */
    BOOLEAN Closed;                 /* cleanup has run */
} TARNIX_USER, *PTARNIX_USER;

typedef struct _TARNIX {
    QUILL_DEVICE Base;
    PVOID Thread;
    KEVENT Quit;
    QUILL_QUEUE Waits;              /* its lock protects all that follows */
    LIST_ENTRY Users;
    TARNIX_SAMPLE Last;
    ULONG Noise;
} TARNIX, *PTARNIX;

/* Takes one sample and passes it on. */
static VOID TarnixSample(PTARNIX Sensor)
{
    TARNIX_SAMPLE sample;
    PLIST_ENTRY entry;
    LIST_ENTRY list;
    KIRQL irql;

    InitializeListHead(&list);
    KeAcquireSpinLock(&Sensor->Waits.Lock, &irql);
    Sensor->Noise = Sensor->Noise * 1664525 + 1013904223;
    Sensor->Last.Serial++;
    Sensor->Last.Value = (LONG)(Sensor->Noise >> 16) % 1000;
    sample = Sensor->Last;

    for (entry = Sensor->Users.Flink; entry != &Sensor->Users; entry = entry->Flink) {
        PTARNIX_USER user = CONTAINING_RECORD(entry, TARNIX_USER, Link);
        BOOLEAN over = sample.Value > user->Threshold;

        if (user->Event == NULL)
            continue;
        if (over && !user->Over)
            KeSetEvent(user->Event, IO_NO_INCREMENT, FALSE);
        user->Over = over;
    }
    QuillQueueTakeAllLocked(&Sensor->Waits, NULL, NULL, &list);
    KeReleaseSpinLock(&Sensor->Waits.Lock, irql);

    while (!IsListEmpty(&list)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&list), IRP, Tail.Overlay.ListEntry);

        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &sample, sizeof(sample));
        QuillQueueEnd(&Sensor->Waits, irp, STATUS_SUCCESS, sizeof(sample));
    }
}

static VOID NTAPI TarnixThread(PVOID Context)
{
    PTARNIX sensor = (PTARNIX)Context;
    LARGE_INTEGER period;

    period.QuadPart = -TARNIX_PERIOD;
    while (KeWaitForSingleObject(&sensor->Quit, Executive, KernelMode, FALSE, &period) == STATUS_TIMEOUT)
        TarnixSample(sensor);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS TarnixStartThread(PTARNIX Sensor)
{
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

    KeClearEvent(&Sensor->Quit);
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, TarnixThread, Sensor);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, TARNIX_THREAD_TYPE, KernelMode, &Sensor->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        Sensor->Thread = NULL;
        KeSetEvent(&Sensor->Quit, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
    }
    ZwClose(handle);
    return status;
}

/* Waits for the thread itself, so that it has left our code. */
static VOID TarnixStopThread(PTARNIX Sensor)
{
    KeSetEvent(&Sensor->Quit, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Sensor->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Sensor->Thread);
    Sensor->Thread = NULL;
}

static NTSTATUS TarnixInit(PQUILL_DEVICE Device)
{
    PTARNIX sensor = CONTAINING_RECORD(Device, TARNIX, Base);

    QuillQueueInit(&sensor->Waits, &Device->RemoveLock, TARNIX_WAITS);
    InitializeListHead(&sensor->Users);
    KeInitializeEvent(&sensor->Quit, NotificationEvent, FALSE);
    sensor->Noise = 20011;
    return STATUS_SUCCESS;
}

static NTSTATUS TarnixStart(PQUILL_DEVICE Device)
{
    PTARNIX sensor = CONTAINING_RECORD(Device, TARNIX, Base);
    NTSTATUS status;

    status = TarnixStartThread(sensor);
    if (!NT_SUCCESS(status))
        return status;
    status = QuillInterfaceOn(Device);
#ifdef FIXED
    if (!NT_SUCCESS(status))
        TarnixStopThread(sensor);
#endif
    return status;
}

static VOID TarnixStop(PQUILL_DEVICE Device)
{
    TarnixStopThread(CONTAINING_RECORD(Device, TARNIX, Base));
}

static VOID TarnixAbort(PQUILL_DEVICE Device)
{
    QuillQueueClose(&CONTAINING_RECORD(Device, TARNIX, Base)->Waits);
}

static VOID TarnixFree(PQUILL_DEVICE Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static const QUILL_OPS TarnixOps = {
    sizeof(TARNIX), &TarnixInterface, TarnixInit, TarnixStart, TarnixStop, TarnixAbort, TarnixFree
};

/* Puts another event (NULL: none) in a handle's watch. Takes over the caller's reference. */
static NTSTATUS TarnixSetWatch(PTARNIX Sensor, PTARNIX_USER User, PKEVENT Event, LONG Threshold, BOOLEAN Closing)
{
    NTSTATUS status = STATUS_SUCCESS;
    PKEVENT old;
    KIRQL irql;

    KeAcquireSpinLock(&Sensor->Waits.Lock, &irql);
    if (User->Closed && Event != NULL) {
        status = STATUS_CANCELLED;
        old = Event;
    } else {
        old = User->Event;
        User->Event = Event;
        User->Threshold = Threshold;
        User->Over = FALSE;
    }
    if (Closing)
        User->Closed = TRUE;
    KeReleaseSpinLock(&Sensor->Waits.Lock, irql);

    if (old != NULL)
        ObDereferenceObject(old);
    return status;
}

static NTSTATUS NTAPI TarnixCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTARNIX sensor = (PTARNIX)DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PTARNIX_USER user;
    NTSTATUS status;
    KIRQL irql;

    status = QuillEnter(&sensor->Base, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);
    status = QuillMayOpen(&sensor->Base, file);
    if (!NT_SUCCESS(status))
        return QuillLeave(&sensor->Base, Irp, status, 0);

    user = (PTARNIX_USER)ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*user), TARNIX_TAG);
    if (user == NULL)
        return QuillLeave(&sensor->Base, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(user, sizeof(*user));
    file->FsContext = user;
    KeAcquireSpinLock(&sensor->Waits.Lock, &irql);
    InsertTailList(&sensor->Users, &user->Link);
    KeReleaseSpinLock(&sensor->Waits.Lock, irql);
    return QuillLeave(&sensor->Base, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TarnixCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTARNIX sensor = (PTARNIX)DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    TarnixSetWatch(sensor, (PTARNIX_USER)file->FsContext, NULL, 0, TRUE);
    QuillQueueCleanup(&sensor->Waits, file);
    return QuillComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TarnixClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTARNIX sensor = (PTARNIX)DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PTARNIX_USER user = (PTARNIX_USER)file->FsContext;
    KIRQL irql;

    KeAcquireSpinLock(&sensor->Waits.Lock, &irql);
    RemoveEntryList(&user->Link);
    KeReleaseSpinLock(&sensor->Waits.Lock, irql);
    file->FsContext = NULL;
    ExFreePoolWithTag(user, TARNIX_TAG);
    return QuillComplete(Irp, STATUS_SUCCESS, 0);
}

/* Sets up a watch. We are in the context of the caller, whose handle it is. */
static NTSTATUS TarnixWatch(PTARNIX Sensor, PTARNIX_USER User, PIRP Irp)
{
    TARNIX_WATCH watch;
    PVOID event;
    NTSTATUS status;

    RtlCopyMemory(&watch, Irp->AssociatedIrp.SystemBuffer, sizeof(watch));
    if (watch.Reserved != 0)
        return STATUS_INVALID_PARAMETER;
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)watch.Event, EVENT_MODIFY_STATE, TARNIX_EVENT_TYPE,
                                       Irp->RequestorMode, &event, NULL);
    if (!NT_SUCCESS(status))
        return status;
    return TarnixSetWatch(Sensor, User, (PKEVENT)event, watch.Threshold, FALSE);
}

static NTSTATUS NTAPI TarnixControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTARNIX sensor = (PTARNIX)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    TARNIX_SAMPLE sample;
    PTARNIX_USER user;
    NTSTATUS status;
    KIRQL irql;

    status = QuillEnter(&sensor->Base, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);
    if (stack->FileObject == NULL || stack->FileObject->FsContext == NULL)
        return QuillLeave(&sensor->Base, Irp, STATUS_INVALID_HANDLE, 0);
    user = (PTARNIX_USER)stack->FileObject->FsContext;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TARNIX_LAST:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(sample))
            return QuillLeave(&sensor->Base, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&sensor->Waits.Lock, &irql);
        sample = sensor->Last;
        KeReleaseSpinLock(&sensor->Waits.Lock, irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &sample, sizeof(sample));
        return QuillLeave(&sensor->Base, Irp, STATUS_SUCCESS, sizeof(sample));

    case IOCTL_TARNIX_NEXT:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(sample))
            return QuillLeave(&sensor->Base, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        IoMarkIrpPending(Irp);
        KeAcquireSpinLock(&sensor->Waits.Lock, &irql);
        status = QuillQueueInsertLocked(&sensor->Waits, Irp, NULL);
        KeReleaseSpinLock(&sensor->Waits.Lock, irql);
        if (!NT_SUCCESS(status))
            QuillQueueEnd(&sensor->Waits, Irp, status, 0);
        return STATUS_PENDING;

    case IOCTL_TARNIX_WATCH:
        if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(TARNIX_WATCH))
            return QuillLeave(&sensor->Base, Irp, STATUS_INVALID_PARAMETER, 0);
        return QuillLeave(&sensor->Base, Irp, TarnixWatch(sensor, user, Irp), 0);

    case IOCTL_TARNIX_UNWATCH:
        TarnixSetWatch(sensor, user, NULL, 0, FALSE);
        return QuillLeave(&sensor->Base, Irp, STATUS_SUCCESS, 0);

    default:
        return QuillLeave(&sensor->Base, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI TarnixAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return QuillAddDevice(Driver, Pdo, &TarnixOps);
}

static VOID NTAPI TarnixUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);

    QuillHook(Driver);
    Driver->MajorFunction[IRP_MJ_CREATE] = TarnixCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TarnixCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = TarnixClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TarnixControl;
    Driver->DriverExtension->AddDevice = TarnixAddDevice;
    Driver->DriverUnload = TarnixUnload;
    return STATUS_SUCCESS;
}
