/*
 * waitline: a waiting line on 16 channels. IOCTL_WL_WAIT draws a ticket and waits until
 * another program calls a value on its channel; IOCTL_WL_CALL serves the longest waiting
 * (or all) of a channel. The answer tells ticket and value. Waiting requests
 * can be cancelled at any time and are ended when their handle is cleaned up.
 *
 * The bug: the ticket number is written into the request's buffer after the request was put into the queue.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define CHANNELS 16
#define IOCTL_WL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA00, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WL_CALL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WL_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA02, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct { ULONG Channel, Ticket, Value; } WL_WAIT;       /* in: Channel; out: all */
typedef struct { ULONG Channel, Value, All; } WL_CALL;

typedef struct { PFILE_OBJECT File; LONG Channel; } WL_MATCH;    /* NULL, -1: any */

typedef struct {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY Line;
    ULONG Waiting[CHANNELS];
    volatile LONG Tickets;
} WL_EXT;

static UNICODE_STRING NameOfDevice = RTL_CONSTANT_STRING(L"\\Device\\WaitLine");
static UNICODE_STRING NameOfLink = RTL_CONSTANT_STRING(L"\\DosDevices\\WaitLine");

#define EXT_OF(csq) CONTAINING_RECORD(csq, WL_EXT, Csq)

static ULONG ChannelOf(PIRP Irp) { return (ULONG)(ULONG_PTR)Irp->Tail.Overlay.DriverContext[0]; }

static VOID NTAPI LineInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&EXT_OF(Csq)->Line, &Irp->Tail.Overlay.ListEntry);
    EXT_OF(Csq)->Waiting[ChannelOf(Irp)]++;
}
static VOID NTAPI LineRemove(PIO_CSQ Csq, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    EXT_OF(Csq)->Waiting[ChannelOf(Irp)]--;
}
static PIRP NTAPI LinePeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    WL_MATCH *m = Context;
    PLIST_ENTRY head = &EXT_OF(Csq)->Line;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : head->Flink;
    for (; e != head; e = e->Flink) {
        PIRP i = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (m && m->File && IoGetCurrentIrpStackLocation(i)->FileObject != m->File)
            continue;
        if (m && m->Channel >= 0 && ChannelOf(i) != (ULONG)m->Channel)
            continue;
        return i;
    }
    return NULL;
}
static VOID NTAPI LineAcquire(PIO_CSQ Csq, PKIRQL Irql) { KeAcquireSpinLock(&EXT_OF(Csq)->Lock, Irql); }
static VOID NTAPI LineRelease(PIO_CSQ Csq, KIRQL Irql) { KeReleaseSpinLock(&EXT_OF(Csq)->Lock, Irql); }

static NTSTATUS End(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}
static VOID NTAPI LineCancelled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    End(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Wait(WL_EXT *X, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    WL_WAIT *w = Irp->AssociatedIrp.SystemBuffer;
    if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
        Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(WL_WAIT))
        return End(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (w->Channel >= CHANNELS)
        return End(Irp, STATUS_INVALID_PARAMETER, 0);
    Irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)w->Channel;
#ifdef FIXED
    w->Ticket = (ULONG)InterlockedIncrement(&X->Tickets);
#endif
    IoCsqInsertIrp(&X->Csq, Irp, NULL);
#ifndef FIXED
    w->Ticket = (ULONG)InterlockedIncrement(&X->Tickets);
#endif
    return STATUS_PENDING;
}

static NTSTATUS Call(WL_EXT *X, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    WL_CALL c;
    WL_MATCH match;
    ULONG served = 0, limit;
    PIRP irp;

    if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof c ||
        Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return End(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    c = *(WL_CALL *)Irp->AssociatedIrp.SystemBuffer;
    if (c.Channel >= CHANNELS)
        return End(Irp, STATUS_INVALID_PARAMETER, 0);
    match.File = NULL;
    match.Channel = (LONG)c.Channel;
    limit = 1;
    if (c.All) {                /* those waiting now, not those that come back meanwhile */
        KIRQL irql;
        KeAcquireSpinLock(&X->Lock, &irql);
        limit = X->Waiting[c.Channel];
        KeReleaseSpinLock(&X->Lock, irql);
    }
    while (served < limit && (irp = IoCsqRemoveNextIrp(&X->Csq, &match)) != NULL) {
        WL_WAIT *w = irp->AssociatedIrp.SystemBuffer;
        w->Channel = c.Channel;
        w->Value = c.Value;
        End(irp, STATUS_SUCCESS, sizeof *w);
        served++;
    }
    *(ULONG *)Irp->AssociatedIrp.SystemBuffer = served;
    return End(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    WL_EXT *x = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WL_WAIT:
        return Wait(x, Irp, sp);
    case IOCTL_WL_CALL:
        return Call(x, Irp, sp);
    case IOCTL_WL_COUNT: {
        KIRQL irql;
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof x->Waiting)
            return End(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&x->Lock, &irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, x->Waiting, sizeof x->Waiting);
        KeReleaseSpinLock(&x->Lock, irql);
        return End(Irp, STATUS_SUCCESS, sizeof x->Waiting);
    }
    default:
        return End(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI Trivial(PDEVICE_OBJECT Dev, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Dev);
    return End(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    WL_EXT *x = Dev->DeviceExtension;
    WL_MATCH match = { IoGetCurrentIrpStackLocation(Irp)->FileObject, -1 };
    PIRP irp;
    while ((irp = IoCsqRemoveNextIrp(&x->Csq, &match)) != NULL)
        End(irp, STATUS_CANCELLED, 0);
    return End(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&NameOfLink);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT dev;
    WL_EXT *x;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Path);
    status = IoCreateDevice(Driver, sizeof *x, &NameOfDevice, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    x = dev->DeviceExtension;
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Line);
    status = IoCsqInitialize(&x->Csq, LineInsert, LineRemove, LinePeek, LineAcquire, LineRelease, LineCancelled);
    if (NT_SUCCESS(status))
        status = IoCreateSymbolicLink(&NameOfLink, &NameOfDevice);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = Trivial;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Trivial;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
