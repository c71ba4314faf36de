/*
 * mudlark: collects notes of programs. A thread of the driver's own takes them from a list and sorts them into a summary by severity, so that who writes a note
 * need not wait for it; a program can ask for the summary and for the last notes.
 *
 * The bug: DriverUnload does not wait for the thread, but for an event that the thread sets as its last but one step. The thread still has to return from
 * KeSetEvent and to call PsTerminateSystemThread when the image may be gone already.
 *
 * Device: none
 * Rule: unload-still-called, wild-call, use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define IOCTL_SUMMARY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LAST    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define DEVICE_NAME L"\\Device\\Mudlark"
#define LINK_NAME   L"\\DosDevices\\Mudlark"

#define SEVERITIES  4
#define TEXT_BYTES  56
#define KEPT        16
#define WAITING     128                       /* notes that the thread has not seen yet */

typedef struct _NOTE {
    ULONG Severity;
    ULONG Bytes;
    CHAR Text[TEXT_BYTES];
} NOTE;

typedef struct _ENTRY {
    LIST_ENTRY Link;
    NOTE Note;
} ENTRY;

typedef struct _SUMMARY {
    ULONG Count[SEVERITIES];
    ULONGLONG Bytes;
} SUMMARY;

typedef struct _DESK {
    KSPIN_LOCK Lock;                          /* of all that follows */
    LIST_ENTRY Notes;
    ULONG Waiting;
    SUMMARY Summary;
    NOTE Kept[KEPT];
    ULONG Next, Held;
    volatile LONG Stop;
    KEVENT Wake;
#ifndef FIXED
    KEVENT Done;
#else
    HANDLE Thread;
#endif
} DESK;

static PDEVICE_OBJECT Control;

static ENTRY *TakeNote(DESK *d)
{
    ENTRY *e = NULL;
    KIRQL irql;
    KeAcquireSpinLock(&d->Lock, &irql);
    if (!IsListEmpty(&d->Notes)) {
        e = CONTAINING_RECORD(RemoveHeadList(&d->Notes), ENTRY, Link);
        d->Waiting--;
    }
    KeReleaseSpinLock(&d->Lock, irql);
    return e;
}

static VOID NTAPI Sorter(PVOID context)
{
    DESK *d = context;
    ENTRY *e;
    KIRQL irql;

    for (;;) {
        KeWaitForSingleObject(&d->Wake, Executive, KernelMode, FALSE, NULL);
        while ((e = TakeNote(d)) != NULL) {
            KeAcquireSpinLock(&d->Lock, &irql);
            d->Summary.Count[e->Note.Severity]++;
            d->Summary.Bytes += e->Note.Bytes;
            d->Kept[d->Next] = e->Note;
            d->Next = (d->Next + 1) % KEPT;
            if (d->Held < KEPT)
                d->Held++;
            KeReleaseSpinLock(&d->Lock, irql);
            ExFreePoolWithTag(e, WW_TAG);
        }
        if (d->Stop)
            break;
    }
#ifndef FIXED
    KeSetEvent(&d->Done, IO_NO_INCREMENT, FALSE);
#endif
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS NTAPI MudlarkWrite(PDEVICE_OBJECT device, PIRP irp)
{
    DESK *d = device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
    const ULONG *from = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ENTRY *e;
    KIRQL irql;

    if (length < sizeof(ULONG) || length > sizeof(ULONG) + TEXT_BYTES)
        return Answer(irp, STATUS_INVALID_PARAMETER, 0);
    if (from[0] >= SEVERITIES)
        return Answer(irp, STATUS_INVALID_PARAMETER, 0);
    e = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *e, WW_TAG);
    if (!e)
        return Answer(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(e, sizeof *e);
    e->Note.Severity = from[0];
    e->Note.Bytes = length - sizeof(ULONG);
    RtlCopyMemory(e->Note.Text, from + 1, e->Note.Bytes);

    KeAcquireSpinLock(&d->Lock, &irql);
    if (d->Waiting < WAITING) {
        d->Waiting++;
        InsertTailList(&d->Notes, &e->Link);
        e = NULL;
    }
    KeReleaseSpinLock(&d->Lock, irql);
    if (e) {
        ExFreePoolWithTag(e, WW_TAG);
        status = STATUS_DEVICE_BUSY;
        length = 0;
    } else
        KeSetEvent(&d->Wake, IO_NO_INCREMENT, FALSE);
    return Answer(irp, status, length);
}

static NTSTATUS NTAPI MudlarkControl(PDEVICE_OBJECT device, PIRP irp)
{
    DESK *d = device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG n, many;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SUMMARY:
        if (out < sizeof(SUMMARY))
            return Answer(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&d->Lock, &irql);
        *(SUMMARY *)buffer = d->Summary;
        KeReleaseSpinLock(&d->Lock, irql);
        return Answer(irp, STATUS_SUCCESS, sizeof(SUMMARY));
    case IOCTL_LAST:
        many = out / sizeof(NOTE);
        if (many == 0)
            return Answer(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&d->Lock, &irql);
        if (many > d->Held)
            many = d->Held;
        for (n = 0; n < many; n++)
            ((NOTE *)buffer)[n] = d->Kept[(d->Next + KEPT - 1 - n) % KEPT];
        KeReleaseSpinLock(&d->Lock, irql);
        return Answer(irp, STATUS_SUCCESS, many * sizeof(NOTE));
    default:
        return Answer(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI MudlarkUnload(PDRIVER_OBJECT driver)
{
    DESK *d = Control->DeviceExtension;
    UNREFERENCED_PARAMETER(driver);
    InterlockedExchange(&d->Stop, 1);
    KeSetEvent(&d->Wake, IO_NO_INCREMENT, FALSE);
#ifndef FIXED
    KeWaitForSingleObject(&d->Done, Executive, KernelMode, FALSE, NULL);
#else
    ZwWaitForSingleObject(d->Thread, FALSE, NULL);
    ZwClose(d->Thread);
#endif
    BoothShut(Control, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    OBJECT_ATTRIBUTES about;
    HANDLE thread;
    DESK *d;
    NTSTATUS status = BoothOpen(driver, DEVICE_NAME, LINK_NAME, sizeof(DESK), DO_BUFFERED_IO, &Control);
    UNREFERENCED_PARAMETER(path);
    if (!NT_SUCCESS(status))
        return status;
    d = Control->DeviceExtension;
    KeInitializeSpinLock(&d->Lock);
    InitializeListHead(&d->Notes);
    KeInitializeEvent(&d->Wake, SynchronizationEvent, FALSE);
#ifndef FIXED
    KeInitializeEvent(&d->Done, NotificationEvent, FALSE);
#endif
    InitializeObjectAttributes(&about, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, &about, NULL, NULL, Sorter, d);
    if (!NT_SUCCESS(status)) {
        BoothShut(Control, LINK_NAME);
        return status;
    }
#ifndef FIXED
    ZwClose(thread);
#else
    d->Thread = thread;
#endif
    driver->DriverUnload = MudlarkUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = BoothNod;
    driver->MajorFunction[IRP_MJ_CLEANUP] = BoothNod;
    driver->MajorFunction[IRP_MJ_CLOSE] = BoothNod;
    driver->MajorFunction[IRP_MJ_WRITE] = MudlarkWrite;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MudlarkControl;
    BoothServe(Control);
    return STATUS_SUCCESS;
}
