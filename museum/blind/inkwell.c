/*
 * inkwell: collects lines of text from several programs. Writers put lines into a queue; a thread
 * of the driver numbers them and appends them to a page, from which IRP_MJ_READ takes text.
 *
 * The bug: unload waits for an event that the thread sets as one of its last acts, not for the
 * thread itself: the driver may be gone from memory before the thread has left its code.
 *
 * Device: none
 * Rule: unload-still-called, execute-of-data, wild-call
 * Needs: schedule
 */
#include <ddk/wdm.h>
#define FR_LEGACY
#include "../include/entered_gate.h"

#define INK_NAME L"\\Device\\InkWell"
#define INK_LINK L"\\DosDevices\\InkWell"

#define IOCTL_INK_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_INK_WIPE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define INK_PAGE      8192
#define INK_LINE      200 /* longest line */
#define INK_MAX_QUEUE 128
#define INK_TAG       'knIK'

typedef struct _INK_STATS {
    ULONG Lines;
    ULONG Dropped;
    ULONG OnPage; /* bytes that can be read */
} INK_STATS;

typedef struct _LINE {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Text[INK_LINE];
} LINE, *PLINE;

typedef struct _INK_EXT {
    PVOID Thread;
    KEVENT Work; /* auto-reset */
    KEVENT Gone;
    FAST_MUTEX Lock; /* what follows */
    BOOLEAN Stop;
    LIST_ENTRY Queue;
    ULONG Queued;
    ULONG Lines;
    ULONG Dropped;
    ULONG Used;
    UCHAR Page[INK_PAGE];
} INK_EXT, *PINK_EXT;

/* "00001 text\n", or nothing where the page is full; with the lock held */
static VOID InkAppend(PINK_EXT x, PLINE Line)
{
    ULONG need = 6 + Line->Length + 1, number = ++x->Lines, i;
    UCHAR *at = x->Page + x->Used;

    if (need > INK_PAGE - x->Used) {
        x->Dropped++;
        return;
    }
    for (i = 5; i-- > 0; number /= 10)
        at[i] = (UCHAR)('0' + number % 10);
    at[5] = ' ';
    RtlCopyMemory(at + 6, Line->Text, Line->Length);
    at[6 + Line->Length] = '\n';
    x->Used += need;
}

static VOID NTAPI InkThread(PVOID Context)
{
    PINK_EXT x = Context;
    BOOLEAN stop;

    do {
        KeWaitForSingleObject(&x->Work, Executive, KernelMode, FALSE, NULL);
        ExAcquireFastMutex(&x->Lock);
        stop = x->Stop;
        while (!IsListEmpty(&x->Queue)) {
            PLINE line = CONTAINING_RECORD(RemoveHeadList(&x->Queue), LINE, Link);
            x->Queued--;
            InkAppend(x, line);
            ExFreePoolWithTag(line, INK_TAG);
        }
        ExReleaseFastMutex(&x->Lock);
    } while (!stop);
    KeSetEvent(&x->Gone, IO_NO_INCREMENT, FALSE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS NTAPI InkWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PINK_EXT x = Device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    BOOLEAN full;
    PLINE line;

    if (length == 0)
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    if (length > INK_LINE)
        return FrComplete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
    line = ExAllocatePoolWithTag(PagedPool, sizeof(LINE), INK_TAG);
    if (!line)
        return FrComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    line->Length = length;
    RtlCopyMemory(line->Text, Irp->AssociatedIrp.SystemBuffer, length);
    ExAcquireFastMutex(&x->Lock);
    full = x->Queued >= INK_MAX_QUEUE;
    if (full)
        x->Dropped++;
    else {
        InsertTailList(&x->Queue, &line->Link);
        x->Queued++;
    }
    ExReleaseFastMutex(&x->Lock);
    if (full) {
        ExFreePoolWithTag(line, INK_TAG);
        return FrComplete(Irp, STATUS_DEVICE_BUSY, 0);
    }
    KeSetEvent(&x->Work, IO_NO_INCREMENT, FALSE);
    return FrComplete(Irp, STATUS_SUCCESS, length);
}

/* Takes text from the page's beginning. */
static NTSTATUS NTAPI InkRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PINK_EXT x = Device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;

    if (length == 0)
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    ExAcquireFastMutex(&x->Lock);
    if (length > x->Used)
        length = x->Used;
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, x->Page, length);
    x->Used -= length;
    RtlMoveMemory(x->Page, x->Page + length, x->Used);
    ExReleaseFastMutex(&x->Lock);
    return FrComplete(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI InkControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PINK_EXT x = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_INK_STATS: {
        INK_STATS *out = Irp->AssociatedIrp.SystemBuffer;
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&x->Lock);
        out->Lines = x->Lines;
        out->Dropped = x->Dropped;
        out->OnPage = x->Used;
        ExReleaseFastMutex(&x->Lock);
        return FrComplete(Irp, STATUS_SUCCESS, sizeof(*out));
    }
    case IOCTL_INK_WIPE:
        ExAcquireFastMutex(&x->Lock);
        x->Used = 0;
        ExReleaseFastMutex(&x->Lock);
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    default:
        return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI InkCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    FR_UNUSED(Device);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID InkStop(PINK_EXT x)
{
    ExAcquireFastMutex(&x->Lock);
    x->Stop = TRUE;
    ExReleaseFastMutex(&x->Lock);
    KeSetEvent(&x->Work, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI InkUnload(PDRIVER_OBJECT Driver)
{
    PINK_EXT x = Driver->DeviceObject->DeviceExtension;

    InkStop(x);
#ifdef FIXED
    KeWaitForSingleObject(x->Thread, Executive, KernelMode, FALSE, NULL);
#else
    KeWaitForSingleObject(&x->Gone, Executive, KernelMode, FALSE, NULL);
#endif
    ObDereferenceObject(x->Thread);
    FrLegacyDelete(Driver->DeviceObject, INK_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    OBJECT_ATTRIBUTES attributes;
    HANDLE thread;
    PINK_EXT x;
    NTSTATUS status;

    FR_UNUSED(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = InkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = InkCreateClose;
    Driver->MajorFunction[IRP_MJ_READ] = InkRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = InkWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = InkControl;
    Driver->DriverUnload = InkUnload;
    status = FrLegacyCreate(Driver, INK_NAME, INK_LINK, sizeof(INK_EXT), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    x = device->DeviceExtension;
    KeInitializeEvent(&x->Work, SynchronizationEvent, FALSE);
    KeInitializeEvent(&x->Gone, NotificationEvent, FALSE);
    ExInitializeFastMutex(&x->Lock);
    InitializeListHead(&x->Queue);
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, &attributes, NULL, NULL, InkThread, x);
    if (NT_SUCCESS(status)) {
        status = ObReferenceObjectByHandle(thread, SYNCHRONIZE, *PsThreadType, KernelMode, &x->Thread, NULL);
        if (!NT_SUCCESS(status)) {
            InkStop(x);
            ZwWaitForSingleObject(thread, FALSE, NULL);
        }
        ZwClose(thread);
    }
    if (!NT_SUCCESS(status))
        FrLegacyDelete(device, INK_LINK);
    return status;
}
