/*
 * postbox.sys: tells applications that something was posted.
 *
 * IOCTL_POSTBOX_WAIT waits until one is posted (IOCTL_POSTBOX_POST) and yields the number of the post. A thread of the driver's
 * hands the posts out, so that who posts does not have to wait for it. IOCTL_POSTBOX_STATS says how many a handle has had.
 *
 * The bug: the thread counts the delivery in the handle's context after it has completed the request. From then on nothing holds
 * the file object any more: the application may have closed the handle, and IRP_MJ_CLOSE has freed the context.
 *
 * How it shows: a handle with a waiting request is closed by another thread of the application (or the process ends) just when a
 * post is handed out, or an application closes its handle at once when its request has ended.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define POSTBOX_CODE(n) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_POSTBOX_WAIT POSTBOX_CODE(0)
#define IOCTL_POSTBOX_POST POSTBOX_CODE(1)
#define IOCTL_POSTBOX_STATS POSTBOX_CODE(2)

#define POSTBOX_TAG 'xoBP'

typedef struct _READER {
    BOOLEAN closing; /* by the queue's lock */
    LONG delivered;
} READER;

typedef struct _POSTBOX {
    IO_CSQ csq;
    KSPIN_LOCK lock;
    LIST_ENTRY waiting;
    KEVENT posted;
    PETHREAD thread;
    volatile LONG stopping;
    volatile LONG posts;
} POSTBOX;

DRIVER_INITIALIZE DriverEntry;

/* not in mingw's wdm.h */
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE handle, BOOLEAN alertable, PLARGE_INTEGER timeout);

static UNICODE_STRING device_name = RTL_CONSTANT_STRING(L"\\Device\\Postbox");
static UNICODE_STRING link_name = RTL_CONSTANT_STRING(L"\\??\\Postbox");

static POSTBOX *box_of(PIO_CSQ csq) { return CONTAINING_RECORD(csq, POSTBOX, csq); }

static NTSTATUS NTAPI csq_insert(PIO_CSQ csq, PIRP irp, PVOID context)
{
    READER *reader = context;

    if (reader->closing)
        return STATUS_FILE_CLOSED;
    InsertTailList(&box_of(csq)->waiting, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI csq_remove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

/* The next one of a file object, or of any. */
static PIRP NTAPI csq_peek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PLIST_ENTRY head = &box_of(csq)->waiting;
    PLIST_ENTRY entry = irp == NULL ? head->Flink : irp->Tail.Overlay.ListEntry.Flink;

    for (; entry != head; entry = entry->Flink) {
        PIRP next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (context == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == context)
            return next;
    }
    return NULL;
}

static VOID NTAPI csq_lock(PIO_CSQ csq, PKIRQL irql) { KeAcquireSpinLock(&box_of(csq)->lock, irql); }

static VOID NTAPI csq_unlock(PIO_CSQ csq, KIRQL irql) { KeReleaseSpinLock(&box_of(csq)->lock, irql); }

static NTSTATUS finish(PIRP irp, NTSTATUS status, ULONG_PTR bytes)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = bytes;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI csq_cancelled(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    finish(irp, STATUS_CANCELLED, 0);
}

static VOID deliver(PIRP irp, LONG number)
{
    READER *reader = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;

    *(PLONG)irp->AssociatedIrp.SystemBuffer = number;
#ifdef FIXED
    InterlockedIncrement(&reader->delivered);
    finish(irp, STATUS_SUCCESS, sizeof(LONG));
#else
    finish(irp, STATUS_SUCCESS, sizeof(LONG));
    InterlockedIncrement(&reader->delivered);
#endif
}

static VOID NTAPI postman(PVOID context)
{
    POSTBOX *box = context;
    PIRP irp;

    for (;;) {
        KeWaitForSingleObject(&box->posted, Executive, KernelMode, FALSE, NULL);
        if (box->stopping)
            break;
        while ((irp = IoCsqRemoveNextIrp(&box->csq, NULL)) != NULL)
            deliver(irp, box->posts);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS NTAPI on_create(PDEVICE_OBJECT device, PIRP irp)
{
    READER *reader = ExAllocatePoolWithTag(NonPagedPool, sizeof(*reader), POSTBOX_TAG);

    UNREFERENCED_PARAMETER(device);
    if (reader == NULL)
        return finish(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(reader, sizeof(*reader));
    IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext = reader;
    return finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI on_cleanup(PDEVICE_OBJECT device, PIRP irp)
{
    POSTBOX *box = device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    READER *reader = file->FsContext;
    PIRP waiting;
    KIRQL irql;

    KeAcquireSpinLock(&box->lock, &irql);
    reader->closing = TRUE;
    KeReleaseSpinLock(&box->lock, irql);
    while ((waiting = IoCsqRemoveNextIrp(&box->csq, file)) != NULL)
        finish(waiting, STATUS_CANCELLED, 0);
    return finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI on_close(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext, POSTBOX_TAG);
    return finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI on_control(PDEVICE_OBJECT device, PIRP irp)
{
    POSTBOX *box = device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    READER *reader = stack->FileObject->FsContext;
    ULONG code = stack->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS status;

    if (code == IOCTL_POSTBOX_POST) {
        InterlockedIncrement(&box->posts);
        KeSetEvent(&box->posted, IO_NO_INCREMENT, FALSE);
        return finish(irp, STATUS_SUCCESS, 0);
    }
    if (code != IOCTL_POSTBOX_WAIT && code != IOCTL_POSTBOX_STATS)
        return finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
        return finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (code == IOCTL_POSTBOX_STATS) {
        *(PLONG)irp->AssociatedIrp.SystemBuffer = reader->delivered;
        return finish(irp, STATUS_SUCCESS, sizeof(LONG));
    }
    status = IoCsqInsertIrpEx(&box->csq, irp, NULL, reader);
    if (!NT_SUCCESS(status)) {
        IoMarkIrpPending(irp);
        finish(irp, status, 0);
    }
    return STATUS_PENDING;
}

static VOID NTAPI on_unload(PDRIVER_OBJECT driver)
{
    POSTBOX *box = driver->DeviceObject->DeviceExtension;

    InterlockedExchange(&box->stopping, 1);
    KeSetEvent(&box->posted, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(box->thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(box->thread);
    IoDeleteSymbolicLink(&link_name);
    IoDeleteDevice(driver->DeviceObject);
}

static NTSTATUS start_postman(POSTBOX *box)
{
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, postman, box);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, *PsThreadType, KernelMode, (PVOID *)&box->thread, NULL);
    if (!NT_SUCCESS(status)) {
        InterlockedExchange(&box->stopping, 1);
        KeSetEvent(&box->posted, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
    }
    ZwClose(handle);
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registry_path)
{
    PDEVICE_OBJECT device;
    POSTBOX *box;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(registry_path);
    driver->MajorFunction[IRP_MJ_CREATE] = on_create;
    driver->MajorFunction[IRP_MJ_CLEANUP] = on_cleanup;
    driver->MajorFunction[IRP_MJ_CLOSE] = on_close;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = on_control;
    driver->DriverUnload = on_unload;
    status = IoCreateDevice(driver, sizeof(*box), &device_name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    box = device->DeviceExtension;
    KeInitializeSpinLock(&box->lock);
    InitializeListHead(&box->waiting);
    KeInitializeEvent(&box->posted, SynchronizationEvent, FALSE);
    status = IoCsqInitializeEx(&box->csq, csq_insert, csq_remove, csq_peek, csq_lock, csq_unlock, csq_cancelled);
    if (NT_SUCCESS(status))
        status = IoCreateSymbolicLink(&link_name, &device_name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    status = start_postman(box);
    if (!NT_SUCCESS(status)) {
        IoDeleteSymbolicLink(&link_name);
        IoDeleteDevice(device);
    }
    return status;
}
