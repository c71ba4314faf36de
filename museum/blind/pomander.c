/*
 * POMANDER: notices for those who want them. Each handle is a listener; a program waits at its handle for the next notice, and a program that has one to give
 * sends it to one request of each listener.
 *
 * The bug: the sender goes through the list of listeners and lets the lock go to end each listener's request, with the next listener noted before. When that
 * one is closed meanwhile the walk goes on in memory that is freed.
 *
 * Device: none
 * Rule: use-after-free, list-corrupt, list-damaged, wild-read, wild-pointer, list-cycle
 * Needs: ioctl, schedule, cancel
 */
#include <ddk/wdm.h>
#define FRAME_DESK
#include "../include/desk_or_rig.h"

#define POMANDER_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define POMANDER_SEND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define POMANDER_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x853, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'amoP'

typedef struct _NOTICE {
    ULONG Number;
    ULONG Length;
    UCHAR Text[48];
} NOTICE;

typedef struct _LISTENER {
    LIST_ENTRY Link;
    ROW Waiting;
    ULONG Known;
} LISTENER;

static struct {
    KSPIN_LOCK Lock;
    LIST_ENTRY Listeners;
    ULONG Count;
    ULONG Sent;
} Hall;

/* What ends the requests: nothing of theirs is in a listener any more. */
static ROW Plain;

static VOID Give(PIRP irp, const NOTICE *notice)
{
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, notice, sizeof(*notice));
    RowFinish(&Plain, irp, STATUS_SUCCESS, sizeof(*notice));
}

static ULONG Send(NOTICE *notice)
{
    ULONG count = 0;
    PLIST_ENTRY entry, next;
    PIRP irp;
    KIRQL irql;
#ifdef FIXED
    LIST_ENTRY given;

    InitializeListHead(&given);
#endif
    KeAcquireSpinLock(&Hall.Lock, &irql);
    notice->Number = ++Hall.Sent;
    for (entry = Hall.Listeners.Flink; entry != &Hall.Listeners; entry = next) {
        LISTENER *listener = CONTAINING_RECORD(entry, LISTENER, Link);

        next = entry->Flink;
        irp = RowTake(&listener->Waiting, NULL);
        if (irp == NULL)
            continue;
        listener->Known++;
        count++;
#ifndef FIXED
        KeReleaseSpinLock(&Hall.Lock, irql);
        Give(irp, notice);
        KeAcquireSpinLock(&Hall.Lock, &irql);
#else
        InsertTailList(&given, &irp->Tail.Overlay.ListEntry);
#endif
    }
    KeReleaseSpinLock(&Hall.Lock, irql);
#ifdef FIXED
    while (!IsListEmpty(&given)) {
        entry = RemoveHeadList(&given);
        Give(CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry), notice);
    }
#endif
    return count;
}

static NTSTATUS PomanderOpen(TASK *task)
{
    LISTENER *listener = ExAllocatePoolWithTag(NonPagedPool, sizeof(LISTENER), TAG);
    KIRQL irql;

    if (listener == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(listener, sizeof(*listener));
    RowInit(&listener->Waiting, &Hall.Lock, NULL);
    task->File->FsContext = listener;
    KeAcquireSpinLock(&Hall.Lock, &irql);
    InsertTailList(&Hall.Listeners, &listener->Link);
    Hall.Count++;
    KeReleaseSpinLock(&Hall.Lock, irql);
    return STATUS_SUCCESS;
}

static VOID PomanderCleanup(PFILE_OBJECT file)
{
    LISTENER *listener = file->FsContext;

    RowEmpty(&listener->Waiting, NULL, STATUS_CANCELLED);
}

/* All its requests are ended by now. */
static VOID PomanderClose(PFILE_OBJECT file)
{
    LISTENER *listener = file->FsContext;
    KIRQL irql;

    KeAcquireSpinLock(&Hall.Lock, &irql);
    RemoveEntryList(&listener->Link);
    Hall.Count--;
    KeReleaseSpinLock(&Hall.Lock, irql);
    file->FsContext = NULL;
    ExFreePoolWithTag(listener, TAG);
}

static NTSTATUS PomanderControl(TASK *task)
{
    LISTENER *listener = task->File->FsContext;
    NOTICE notice;
    NTSTATUS status;
    ULONG count;
    KIRQL irql;

    switch (task->Code) {
    case POMANDER_WAIT:
        if (task->Out < sizeof(NOTICE))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&Hall.Lock, &irql);
        status = RowPut(&listener->Waiting, task->Irp);
        KeReleaseSpinLock(&Hall.Lock, irql);
        return status;

    case POMANDER_SEND:
        if (task->In == 0 || task->In > sizeof(notice.Text))
            return STATUS_INVALID_PARAMETER;
        RtlZeroMemory(&notice, sizeof(notice));
        notice.Length = task->In;
        RtlCopyMemory(notice.Text, task->Buffer, task->In);
        count = Send(&notice);
        if (task->Out >= sizeof(count)) {
            RtlCopyMemory(task->Buffer, &count, sizeof(count));
            task->Info = sizeof(count);
        }
        return STATUS_SUCCESS;

    case POMANDER_COUNT:
        if (task->Out < 2 * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&Hall.Lock, &irql);
        ((PULONG)task->Buffer)[0] = Hall.Count;
        ((PULONG)task->Buffer)[1] = listener->Known;
        KeReleaseSpinLock(&Hall.Lock, irql);
        task->Info = 2 * sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const DESK_OPS Ops = {
    .Open = PomanderOpen,
    .Cleanup = PomanderCleanup,
    .Close = PomanderClose,
    .Control = PomanderControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    KeInitializeSpinLock(&Hall.Lock);
    InitializeListHead(&Hall.Listeners);
    RowInit(&Plain, &Hall.Lock, NULL);
    return DeskOpen(driver, &Ops, L"\\Device\\Pomander", L"\\DosDevices\\Pomander");
}
