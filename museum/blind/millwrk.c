/*
 * millwrk: a mill that computes checksums (Adler-32) of blocks in a system thread of its own, so that callers with overlapped handles do not wait.
 *
 * The bug: the worker clears its notification event after it has emptied the queue instead of before; a block that is queued between the last look
 * into the queue and the clearing is not seen, its request (or the unload) waits for ever.
 *
 * Device: none
 * Rule: request-forgotten, deadlock
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define MAX_BLOCK (256 * 1024)

#define IOCTL_MILL_SUM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MILL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

typedef struct _MILL {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY Queue;
    KEVENT Work; /* notification event: something is in the queue, or Stop */
    volatile LONG Stop;
    volatile LONG Done;
    volatile LONG Queued;
    HANDLE Thread;
} MILL, *PMILL;

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\MillWrk");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI CsqInsert(PIO_CSQ csq, PIRP irp)
{
    PMILL mill = CONTAINING_RECORD(csq, MILL, Csq);

    InsertTailList(&mill->Queue, &irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI CsqRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI CsqPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PMILL mill = CONTAINING_RECORD(csq, MILL, Csq);
    PLIST_ENTRY entry = irp ? irp->Tail.Overlay.ListEntry.Flink : mill->Queue.Flink;

    for (; entry != &mill->Queue; entry = entry->Flink) {
        PIRP next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (!context || IoGetCurrentIrpStackLocation(next)->FileObject == context)
            return next;
    }
    return NULL;
}

static VOID NTAPI CsqAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, MILL, Csq)->Lock, irql);
}

static VOID NTAPI CsqRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, MILL, Csq)->Lock, irql);
}

static VOID NTAPI CsqCanceled(PIO_CSQ csq, PIRP irp)
{
    PMILL mill = CONTAINING_RECORD(csq, MILL, Csq);

    InterlockedDecrement(&mill->Queued);
    Finish(irp, STATUS_CANCELLED, 0);
}

static ULONG Sum(const UCHAR *data, ULONG length)
{
    ULONG a = 1, b = 0, i;

    for (i = 0; i < length; i++) {
        a = (a + data[i]) % 65521;
        b = (b + a) % 65521;
    }
    return (b << 16) | a;
}

static VOID Grind(PMILL mill)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&mill->Csq, NULL)) != NULL) {
        ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength;
        PVOID buffer = irp->AssociatedIrp.SystemBuffer;

        *(PULONG)buffer = Sum(buffer, length);
        InterlockedIncrement(&mill->Done);
        InterlockedDecrement(&mill->Queued);
        Finish(irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI Worker(PVOID context)
{
    PMILL mill = context;
    BOOLEAN stop;

    do {
        KeWaitForSingleObject(&mill->Work, Executive, KernelMode, FALSE, NULL);
#ifdef FIXED
        KeClearEvent(&mill->Work);
#endif
        stop = mill->Stop != 0;
        Grind(mill);
#ifndef FIXED
        KeClearEvent(&mill->Work);
#endif
    } while (!stop);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID StopWorker(PMILL mill)
{
    InterlockedExchange(&mill->Stop, 1);
    KeSetEvent(&mill->Work, IO_NO_INCREMENT, FALSE);
    ZwWaitForSingleObject(mill->Thread, FALSE, NULL);
    ZwClose(mill->Thread);
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT device, PIRP irp)
{
    PMILL mill = device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    PIRP mine;

    while ((mine = IoCsqRemoveNextIrp(&mill->Csq, file)) != NULL) {
        InterlockedDecrement(&mill->Queued);
        Finish(mine, STATUS_CANCELLED, 0);
    }
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT device, PIRP irp)
{
    PMILL mill = device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG inLength = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MILL_SUM:
        if (inLength == 0 || inLength > MAX_BLOCK || outLength < sizeof(ULONG))
            return Finish(irp, STATUS_INVALID_PARAMETER, 0);
        InterlockedIncrement(&mill->Queued);
        IoCsqInsertIrp(&mill->Csq, irp, NULL); /* marks it pending */
        KeSetEvent(&mill->Work, IO_NO_INCREMENT, FALSE);
        return STATUS_PENDING;

    case IOCTL_MILL_STATE:
        if (outLength < 2 * sizeof(ULONG))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        buffer[0] = (ULONG)mill->Queued;
        buffer[1] = (ULONG)mill->Done;
        return Finish(irp, STATUS_SUCCESS, 2 * sizeof(ULONG));
    }
    return Finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    PDEVICE_OBJECT device = driver->DeviceObject;

    IoDeleteSymbolicLink(&LinkName);
    StopWorker(device->DeviceExtension);
    IoDeleteDevice(device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\MillWrk");
    OBJECT_ATTRIBUTES attributes;
    PDEVICE_OBJECT device;
    PMILL mill;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(driver, sizeof(MILL), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    mill = device->DeviceExtension;
    RtlZeroMemory(mill, sizeof(*mill));
    KeInitializeSpinLock(&mill->Lock);
    InitializeListHead(&mill->Queue);
    KeInitializeEvent(&mill->Work, NotificationEvent, FALSE);
    status = IoCsqInitialize(&mill->Csq, CsqInsert, CsqRemove, CsqPeek, CsqAcquire, CsqRelease, CsqCanceled);
    if (!NT_SUCCESS(status))
        goto fail;
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&mill->Thread, THREAD_ALL_ACCESS, &attributes, NULL, NULL, Worker, mill);
    if (!NT_SUCCESS(status))
        goto fail;
    driver->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    status = IoCreateSymbolicLink(&LinkName, &name);
    if (NT_SUCCESS(status))
        return STATUS_SUCCESS;
    StopWorker(mill);
fail:
    IoDeleteDevice(device);
    return status;
}
