/*
 * A log for several programs: lines given to the driver are stamped and put into a journal by a system thread, in the
 * order they came; the end of the journal can be read back.
 *
 * The bug: DriverUnload waits for an event that the thread sets before it ends, not for the thread.
 * Shows by: the driver is unmapped while its thread is still inside KeSetEvent, by which it has set the event.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: schedule
 */
#include "../include/shared_frame.h"

#define DEVICE_NAME L"\\Device\\Scribe"
#define LINK_NAME   L"\\DosDevices\\Scribe"

#define IOCTL_SCRIBE_LINE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: CHAR[] */
#define IOCTL_SCRIBE_TAIL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: the end of the journal */

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define JOURNAL_SIZE 16384
#define LINE_MAXIMUM 512
#define LINES_QUEUED 64

typedef struct _LINE {
    LIST_ENTRY Entry;
    LARGE_INTEGER Time;
    ULONG Length;
    UCHAR Text[1];
} LINE;

typedef struct _EXTENSION {
    KSPIN_LOCK Lock;      /* Lines, Queued */
    LIST_ENTRY Lines;
    ULONG Queued;
    KEVENT Work;
    volatile LONG Stopping;
    FAST_MUTEX Mutex;     /* Journal, Used */
    PUCHAR Journal;
    ULONG Used;
#ifdef FIXED
    PVOID Thread;
#else
    KEVENT Done;
#endif
} EXTENSION;

static VOID Append(EXTENSION *Ext, LINE *Line)
{
    ULONG need = sizeof(Line->Time) + sizeof(Line->Length) + Line->Length;

    ExAcquireFastMutex(&Ext->Mutex);
    if (need > JOURNAL_SIZE - Ext->Used) {
        Ext->Used = 0; /* a new sheet */
    }
    RtlCopyMemory(Ext->Journal + Ext->Used, &Line->Time, sizeof(Line->Time));
    RtlCopyMemory(Ext->Journal + Ext->Used + sizeof(Line->Time), &Line->Length, sizeof(Line->Length));
    RtlCopyMemory(Ext->Journal + Ext->Used + sizeof(Line->Time) + sizeof(Line->Length), Line->Text, Line->Length);
    Ext->Used += need;
    ExReleaseFastMutex(&Ext->Mutex);
}

static LINE *Next(EXTENSION *Ext)
{
    LINE *line = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (!IsListEmpty(&Ext->Lines)) {
        line = CONTAINING_RECORD(RemoveHeadList(&Ext->Lines), LINE, Entry);
        Ext->Queued--;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    return line;
}

static VOID NTAPI ScribeThread(PVOID Context)
{
    EXTENSION *ext = Context;
    LINE *line;

    for (;;) {
        KeWaitForSingleObject(&ext->Work, Executive, KernelMode, FALSE, NULL);
        while ((line = Next(ext)) != NULL) {
            Append(ext, line);
            ExFreePoolWithTag(line, KIT_TAG);
        }
        if (ext->Stopping) {
            break;
        }
    }
#ifndef FIXED
    KeSetEvent(&ext->Done, IO_NO_INCREMENT, FALSE);
#endif
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS Write(EXTENSION *Ext, PVOID Buffer, ULONG InLength)
{
    NTSTATUS status = STATUS_SUCCESS;
    LINE *line;
    KIRQL irql;

    if (InLength == 0 || InLength > LINE_MAXIMUM) {
        return STATUS_INVALID_PARAMETER;
    }
    line = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(LINE, Text) + InLength, KIT_TAG);
    if (line == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    KeQuerySystemTime(&line->Time);
    line->Length = InLength;
    RtlCopyMemory(line->Text, Buffer, InLength);
    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (Ext->Queued == LINES_QUEUED) {
        status = STATUS_DEVICE_BUSY;
    } else {
        InsertTailList(&Ext->Lines, &line->Entry);
        Ext->Queued++;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(line, KIT_TAG);
        return status;
    }
    KeSetEvent(&Ext->Work, IO_NO_INCREMENT, FALSE);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG n = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SCRIBE_LINE:
        status = Write(ext, Irp->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.InputBufferLength);
        break;
    case IOCTL_SCRIBE_TAIL:
        ExAcquireFastMutex(&ext->Mutex);
        if (n > ext->Used) {
            n = ext->Used;
        }
        if (n != 0) {
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, ext->Journal + ext->Used - n, n);
        }
        ExReleaseFastMutex(&ext->Mutex);
        information = n;
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitComplete(Irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT device = Driver->DeviceObject;
    EXTENSION *ext = device->DeviceExtension;

    InterlockedExchange(&ext->Stopping, 1);
    KeSetEvent(&ext->Work, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    KeWaitForSingleObject(ext->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(ext->Thread);
#else
    KeWaitForSingleObject(&ext->Done, Executive, KernelMode, FALSE, NULL);
#endif
    ExFreePoolWithTag(ext->Journal, KIT_TAG);
    KitDeleteControl(device, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    OBJECT_ATTRIBUTES attributes;
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    HANDLE thread;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    status = KitCreateControl(Driver, DEVICE_NAME, LINK_NAME, sizeof(EXTENSION), &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Lines);
    KeInitializeEvent(&ext->Work, SynchronizationEvent, FALSE);
    ExInitializeFastMutex(&ext->Mutex);
    ext->Journal = ExAllocatePoolWithTag(PagedPool, JOURNAL_SIZE, KIT_TAG);
    if (ext->Journal == NULL) {
        KitDeleteControl(device, LINK_NAME);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
#ifndef FIXED
    KeInitializeEvent(&ext->Done, NotificationEvent, FALSE);
#endif
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, &attributes, NULL, NULL, ScribeThread, ext);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(ext->Journal, KIT_TAG);
        KitDeleteControl(device, LINK_NAME);
        return status;
    }
#ifdef FIXED
    status = ObReferenceObjectByHandle(thread, SYNCHRONIZE, NULL, KernelMode, &ext->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        InterlockedExchange(&ext->Stopping, 1);
        KeSetEvent(&ext->Work, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(thread, FALSE, NULL);
        ZwClose(thread);
        ExFreePoolWithTag(ext->Journal, KIT_TAG);
        KitDeleteControl(device, LINK_NAME);
        return status;
    }
#endif
    ZwClose(thread);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
