/*
 * gongevt: a gong for one program: it hands over an event, a period and how often, and the driver's timer sets the event.
 *
 * The bug: when the gong is taken down, the reference on the event is given back before the timer's DPC is kept from using it (cancelling
 * the timer does not stop a DPC that runs): the DPC may set an event object that is freed.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define IOCTL_GG_HANG  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GG_DOWN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GG_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define GG_LEAST 10u                        /* milliseconds */
#define GG_MOST  60000u

typedef struct _GG_HANG {
    ULONG64 Event;
    ULONG Period;                           /* milliseconds */
    ULONG Times;                            /* 0: for ever */
} GG_HANG, *PGG_HANG;

typedef struct _GG_STATE {
    ULONG Hung, Rung, Left, Total;
} GG_STATE, *PGG_STATE;

typedef struct _GG_DEV {
    KMUTEX Change;                          /* who hangs it or takes it down */
    PFILE_OBJECT Owner;                     /* by Change */
    KSPIN_LOCK Lock;                        /* the rest, shared with the DPC */
    PKEVENT Event;
    ULONG Times, Rung, Total;
    KTIMER Timer;
    KDPC Dpc;
} GG_DEV, *PGG_DEV;

static const WCHAR GgLinkName[] = L"\\DosDevices\\Gong";
static const WCHAR GgDeviceName[] = L"\\Device\\Gong";

static NTSTATUS GgComplete(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI GgDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PGG_DEV d = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    if (d->Event != NULL && (d->Times == 0 || d->Rung < d->Times)) {
        KeSetEvent(d->Event, IO_NO_INCREMENT, FALSE);
        d->Rung++;
        d->Total++;
        if (d->Rung == d->Times)
            KeCancelTimer(&d->Timer);
    }
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
}

/* Takes the gong down; Change is held. */
static VOID GgDown(PGG_DEV d)
{
    PKEVENT event;
    KIRQL irql;

    KeCancelTimer(&d->Timer);
#ifdef FIXED
    KeAcquireSpinLock(&d->Lock, &irql);
    event = d->Event;
    d->Event = NULL;
    KeReleaseSpinLock(&d->Lock, irql);
    if (event != NULL)
        ObDereferenceObject(event);
#else
    event = d->Event;
    if (event != NULL)
        ObDereferenceObject(event);
    KeAcquireSpinLock(&d->Lock, &irql);
    d->Event = NULL;
    KeReleaseSpinLock(&d->Lock, irql);
#endif
    d->Owner = NULL;
}

static NTSTATUS GgHang(PGG_DEV d, PIRP irp, PIO_STACK_LOCATION s)
{
    GG_HANG hang;
    LARGE_INTEGER due;
    PVOID event;
    NTSTATUS status;
    KIRQL irql;

    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof hang)
        return STATUS_BUFFER_TOO_SMALL;
    hang = *(PGG_HANG)irp->AssociatedIrp.SystemBuffer;
    if (hang.Period < GG_LEAST || hang.Period > GG_MOST)
        return STATUS_INVALID_PARAMETER;
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)hang.Event, EVENT_MODIFY_STATE, *ExEventObjectType, irp->RequestorMode,
                                       &event, NULL);
    if (!NT_SUCCESS(status))
        return status;

    KeWaitForSingleObject(&d->Change, Executive, KernelMode, FALSE, NULL);
    if (d->Owner != NULL && d->Owner != s->FileObject) {
        KeReleaseMutex(&d->Change, FALSE);
        ObDereferenceObject(event);
        return STATUS_DEVICE_BUSY;
    }
    GgDown(d);                              /* the same owner's earlier gong */
    KeFlushQueuedDpcs();                    /* whose DPC must not ring the new one */
    d->Owner = s->FileObject;
    KeAcquireSpinLock(&d->Lock, &irql);
    d->Event = event;
    d->Times = hang.Times;
    d->Rung = 0;
    due.QuadPart = -(LONGLONG)hang.Period * 10000;
    KeSetTimerEx(&d->Timer, due, (LONG)hang.Period, &d->Dpc);
    KeReleaseSpinLock(&d->Lock, irql);
    KeReleaseMutex(&d->Change, FALSE);
    return STATUS_SUCCESS;
}

static NTSTATUS GgTakeDown(PGG_DEV d, PFILE_OBJECT file)
{
    NTSTATUS status = STATUS_SUCCESS;

    KeWaitForSingleObject(&d->Change, Executive, KernelMode, FALSE, NULL);
    if (d->Owner == NULL || d->Owner != file)
        status = STATUS_NOT_FOUND;
    else
        GgDown(d);
    KeReleaseMutex(&d->Change, FALSE);
    return status;
}

static NTSTATUS GgState(PGG_DEV d, PIRP irp, PIO_STACK_LOCATION s)
{
    GG_STATE state;
    KIRQL irql;

    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof state)
        return GgComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&d->Lock, &irql);
    state.Hung = d->Event != NULL;
    state.Rung = d->Rung;
    state.Left = d->Event != NULL && d->Times != 0 ? d->Times - d->Rung : 0;
    state.Total = d->Total;
    KeReleaseSpinLock(&d->Lock, irql);
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &state, sizeof state);
    return GgComplete(irp, STATUS_SUCCESS, sizeof state);
}

static NTSTATUS NTAPI GgControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PGG_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GG_HANG:
        return GgComplete(irp, GgHang(d, irp, s), 0);
    case IOCTL_GG_DOWN:
        return GgComplete(irp, GgTakeDown(d, s->FileObject), 0);
    case IOCTL_GG_STATE:
        return GgState(d, irp, s);
    }
    return GgComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI GgCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    GgTakeDown(dev->DeviceExtension, IoGetCurrentIrpStackLocation(irp)->FileObject);
    return GgComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI GgCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);

    /* a request that was under way when the handle was closed may have hung it again */
    if (s->MajorFunction == IRP_MJ_CLOSE)
        GgTakeDown(dev->DeviceExtension, s->FileObject);
    return GgComplete(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI GgUnload(PDRIVER_OBJECT drv)
{
    PGG_DEV d = drv->DeviceObject->DeviceExtension;
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, GgLinkName);
    IoDeleteSymbolicLink(&link);
    KeCancelTimer(&d->Timer);
    KeFlushQueuedDpcs();
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    PGG_DEV d;

    UNREFERENCED_PARAMETER(path);
    RtlInitUnicodeString(&name, GgDeviceName);
    RtlInitUnicodeString(&link, GgLinkName);
    status = IoCreateDevice(drv, sizeof(GG_DEV), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    d = dev->DeviceExtension;
    RtlZeroMemory(d, sizeof *d);
    KeInitializeMutex(&d->Change, 0);
    KeInitializeSpinLock(&d->Lock);
    KeInitializeTimer(&d->Timer);
    KeInitializeDpc(&d->Dpc, GgDpc, d);
    dev->Flags |= DO_BUFFERED_IO;
    drv->MajorFunction[IRP_MJ_CREATE] = GgCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = GgCreateClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = GgCleanup;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GgControl;
    drv->DriverUnload = GgUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(dev);
    return status;
}
