/*
 * fifochat: messages between programs: IOCTL_POST leaves a message of up to 512 bytes, IOCTL_FETCH takes the oldest, and waits for one for as many
 * milliseconds as it says when there is none.
 *
 * The bug: a fetch that has found the list empty gives the lock back and then clears the event before it waits. A message posted in between sets
 * the event too early: the fetch sleeps for its whole time with the message in the list, and reports that there was none.
 *
 * Device: none
 * Rule: wake-up-lost
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/framed_by_calls.h"

#define IOCTL_POST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define LINK L"\\DosDevices\\FifoChat"
#define MAX_TEXT 512u
#define MAX_MESSAGES 512
#define MAX_WAIT_MS 60000u

typedef struct _MESSAGE {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Text[MAX_TEXT];
} MESSAGE;

typedef struct _DEV {
    PDEVICE_OBJECT Self;
    KSPIN_LOCK Lock;
    LIST_ENTRY Messages;
    ULONG Count;
    KEVENT Arrived;             /* notification event: set while there are messages */
} DEV;

static DEV *TheDev;

static NTSTATUS Post(DEV *d, PIRP irp, ULONG in)
{
    MESSAGE *m;
    KIRQL irql;

    if (!in || in > MAX_TEXT)
        return EeDone(irp, STATUS_INVALID_PARAMETER, 0);
    m = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*m), EE_TAG);
    if (!m)
        return EeDone(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    m->Length = in;
    RtlCopyMemory(m->Text, irp->AssociatedIrp.SystemBuffer, in);
    KeAcquireSpinLock(&d->Lock, &irql);
    if (d->Count >= MAX_MESSAGES) {
        KeReleaseSpinLock(&d->Lock, irql);
        ExFreePoolWithTag(m, EE_TAG);
        return EeDone(irp, STATUS_QUOTA_EXCEEDED, 0);
    }
    InsertTailList(&d->Messages, &m->Link);
    d->Count++;
    KeSetEvent(&d->Arrived, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&d->Lock, irql);
    return EeDone(irp, STATUS_SUCCESS, 0);
}

/* The oldest message, when it fits. *st: success, none there, or it does not fit. */
static MESSAGE *TakeMessage(DEV *d, ULONG room, NTSTATUS *st)
{
    MESSAGE *m = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&d->Lock, &irql);
    if (IsListEmpty(&d->Messages)) {
        *st = STATUS_NO_MORE_ENTRIES;
#ifdef FIXED
        KeClearEvent(&d->Arrived);
#endif
    } else {
        m = CONTAINING_RECORD(d->Messages.Flink, MESSAGE, Link);
        if (m->Length > room) {
            m = NULL;
            *st = STATUS_BUFFER_TOO_SMALL;
        } else {
            RemoveEntryList(&m->Link);
            d->Count--;
            *st = STATUS_SUCCESS;
        }
    }
    KeReleaseSpinLock(&d->Lock, irql);
#ifndef FIXED
    if (*st == STATUS_NO_MORE_ENTRIES)
        KeClearEvent(&d->Arrived);
#endif
    return m;
}

/* Waits in the caller's thread, which can be ended meanwhile: the wait is a UserMode one. */
static NTSTATUS Fetch(DEV *d, PIRP irp, ULONG in, ULONG out)
{
    ULONGLONG now, until;
    LARGE_INTEGER left;
    NTSTATUS st;
    MESSAGE *m;
    ULONG ms;

    if (in < sizeof(ms))
        return EeDone(irp, STATUS_INVALID_PARAMETER, 0);
    RtlCopyMemory(&ms, irp->AssociatedIrp.SystemBuffer, sizeof(ms));
    if (ms > MAX_WAIT_MS)
        return EeDone(irp, STATUS_INVALID_PARAMETER, 0);
    until = KeQueryInterruptTime() + (ULONGLONG)ms * 10000;
    for (;;) {
        m = TakeMessage(d, out, &st);
        if (m || st != STATUS_NO_MORE_ENTRIES)
            break;
        now = KeQueryInterruptTime();
        if (now >= until || irp->Cancel) {
            st = irp->Cancel ? STATUS_CANCELLED : STATUS_IO_TIMEOUT;
            break;
        }
        left.QuadPart = -(LONGLONG)(until - now);
        st = KeWaitForSingleObject(&d->Arrived, Executive, UserMode, TRUE, &left);
        if (st == STATUS_TIMEOUT) {
            st = STATUS_IO_TIMEOUT;
            break;
        }
        if (st != STATUS_SUCCESS) {         /* alerted, or the thread is being ended */
            st = STATUS_CANCELLED;
            break;
        }
    }
    if (!m)
        return EeDone(irp, st, 0);
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, m->Text, m->Length);
    out = m->Length;
    ExFreePoolWithTag(m, EE_TAG);
    return EeDone(irp, STATUS_SUCCESS, out);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    DEV *d = dev->DeviceExtension;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_POST:
        return Post(d, irp, in);
    case IOCTL_FETCH:
        return Fetch(d, irp, in, out);
    default:
        return EeDone(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT drv)
{
    DEV *d = TheDev;

    UNREFERENCED_PARAMETER(drv);
    while (!IsListEmpty(&d->Messages))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&d->Messages), MESSAGE, Link), EE_TAG);
    EeControlGone(d->Self, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    NTSTATUS st;

    UNREFERENCED_PARAMETER(path);
    st = EeControl(drv, L"\\Device\\FifoChat", LINK, sizeof(DEV), 0, &dev);
    if (!NT_SUCCESS(st))
        return st;
    TheDev = dev->DeviceExtension;
    TheDev->Self = dev;
    TheDev->Count = 0;
    KeInitializeSpinLock(&TheDev->Lock);
    InitializeListHead(&TheDev->Messages);
    KeInitializeEvent(&TheDev->Arrived, NotificationEvent, FALSE);
    drv->DriverUnload = Unload;
    drv->MajorFunction[IRP_MJ_CREATE] = EeOk;
    drv->MajorFunction[IRP_MJ_CLOSE] = EeOk;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
