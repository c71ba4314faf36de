/*
 * sexton: a store of short-lived notes. A program leaves a note of 32 bytes under a key for some time, any program may read it until then,
 * and a sweeper thread buries those whose time is over.
 *
 * The bug: DriverUnload waits for an event which the sweeper sets as the last thing it does, and not for the thread itself. The thread may still have
 * the rest of its routine before it when the driver's code is taken away.
 *
 * Device: none
 * Rule: unload-still-called, wild-call, bad-pointer, execute-of-data
 * Needs: schedule
 */
#include <ddk/wdm.h>
#define FRAME_DESK
#include "../include/park_frame.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Object, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define IOCTL_SEXTON_PUT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SEXTON_GET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SEXTON_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_NOTES 128

typedef struct _NOTE_PUT {
    ULONG Key;
    ULONG Milliseconds;
    UCHAR Text[32];
} NOTE_PUT;

typedef struct _NOTE {
    LIST_ENTRY Link;
    ULONG Key;
    ULONGLONG Due;
    UCHAR Text[32];
} NOTE;

static struct {
    DESK Desk;
    KSPIN_LOCK Lock;
    LIST_ENTRY Notes;
    ULONG Count, Buried;
    PKTHREAD Sweeper;
    KEVENT Stop, Swept;
} Yard;

/* Takes out those that are over, or all. */
static VOID Sweep(BOOLEAN All)
{
    LIST_ENTRY over;
    PLIST_ENTRY e, next;
    ULONGLONG now = KeQueryInterruptTime();
    KIRQL irql;
    InitializeListHead(&over);
    KeAcquireSpinLock(&Yard.Lock, &irql);
    for (e = Yard.Notes.Flink; e != &Yard.Notes; e = next) {
        next = e->Flink;
        if (All || CONTAINING_RECORD(e, NOTE, Link)->Due <= now) {
            RemoveEntryList(e);
            InsertTailList(&over, e);
            Yard.Count--;
            Yard.Buried++;
        }
    }
    KeReleaseSpinLock(&Yard.Lock, irql);
    while (!IsListEmpty(&over))
        YyPut(CONTAINING_RECORD(RemoveHeadList(&over), NOTE, Link));
}

static VOID NTAPI Sweeper(PVOID Context)
{
    LARGE_INTEGER interval;
    UNREFERENCED_PARAMETER(Context);
    interval.QuadPart = -1000000;   /* 100 ms */
    while (KeWaitForSingleObject(&Yard.Stop, Executive, KernelMode, FALSE, &interval) == STATUS_TIMEOUT)
        Sweep(FALSE);
    Sweep(TRUE);
    KeSetEvent(&Yard.Swept, IO_NO_INCREMENT, FALSE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NOTE *Find(ULONG Key)
{
    PLIST_ENTRY e;
    for (e = Yard.Notes.Flink; e != &Yard.Notes; e = e->Flink)
        if (CONTAINING_RECORD(e, NOTE, Link)->Key == Key)
            return CONTAINING_RECORD(e, NOTE, Link);
    return NULL;
}

static NTSTATUS Put(const NOTE_PUT *In)
{
    NOTE *fresh, *n;
    KIRQL irql;
    NTSTATUS status = STATUS_SUCCESS;
    if (!In->Milliseconds || In->Milliseconds > 3600000)
        return STATUS_INVALID_PARAMETER;
    fresh = YyGet(sizeof *fresh);
    if (!fresh)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&Yard.Lock, &irql);
    n = Find(In->Key);
    if (!n && Yard.Count < MOST_NOTES) {
        n = fresh;
        fresh = NULL;
        n->Key = In->Key;
        InsertTailList(&Yard.Notes, &n->Link);
        Yard.Count++;
    }
    if (n) {
        n->Due = KeQueryInterruptTime() + (ULONGLONG)In->Milliseconds * 10000;
        RtlCopyMemory(n->Text, In->Text, sizeof n->Text);
    } else {
        status = STATUS_QUOTA_EXCEEDED;
    }
    KeReleaseSpinLock(&Yard.Lock, irql);
    if (fresh)
        YyPut(fresh);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;
    ULONG_PTR info = 0;
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SEXTON_PUT:
        status = in >= sizeof(NOTE_PUT) ? Put(buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_SEXTON_GET: {
        NOTE *n;
        if (in < sizeof(ULONG) || out < sizeof n->Text) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&Yard.Lock, &irql);
        n = Find(*(ULONG *)buffer);
        if (n) {
            RtlCopyMemory(buffer, n->Text, sizeof n->Text);
            info = sizeof n->Text;
        }
        KeReleaseSpinLock(&Yard.Lock, irql);
        status = info ? STATUS_SUCCESS : STATUS_NOT_FOUND;
        break;
    }
    case IOCTL_SEXTON_COUNT:
        if (out < 2 * sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&Yard.Lock, &irql);
        ((ULONG *)buffer)[0] = Yard.Count;
        ((ULONG *)buffer)[1] = Yard.Buried;
        KeReleaseSpinLock(&Yard.Lock, irql);
        info = 2 * sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;
    }
    return YyEnd(Irp, status, info);
}

static NTSTATUS NTAPI Always(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return YyEnd(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DeskClose(&Yard.Desk);
    KeSetEvent(&Yard.Stop, IO_NO_INCREMENT, FALSE);
#ifndef FIXED
    KeWaitForSingleObject(&Yard.Swept, Executive, KernelMode, FALSE, NULL);
#else
    KeWaitForSingleObject(Yard.Sweeper, Executive, KernelMode, FALSE, NULL);
#endif
    ObDereferenceObject(Yard.Sweeper);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    HANDLE thread;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Path);
    KeInitializeSpinLock(&Yard.Lock);
    InitializeListHead(&Yard.Notes);
    KeInitializeEvent(&Yard.Stop, NotificationEvent, FALSE);
    KeInitializeEvent(&Yard.Swept, NotificationEvent, FALSE);
    status = DeskOpen(&Yard.Desk, Driver, L"\\Device\\Sexton", L"\\DosDevices\\Sexton", DO_BUFFERED_IO);
    if (!NT_SUCCESS(status))
        return status;
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, Sweeper, NULL);
    if (!NT_SUCCESS(status)) {
        DeskClose(&Yard.Desk);
        return status;
    }
    status = ObReferenceObjectByHandle(thread, SYNCHRONIZE, NULL, KernelMode, (PVOID *)&Yard.Sweeper, NULL);
    if (!NT_SUCCESS(status)) {
        KeSetEvent(&Yard.Stop, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(thread, FALSE, NULL);
        ZwClose(thread);
        DeskClose(&Yard.Desk);
        return status;
    }
    ZwClose(thread);
    Driver->MajorFunction[IRP_MJ_CREATE] = Always;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Always;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    DeskReady(&Yard.Desk);
    return STATUS_SUCCESS;
}
