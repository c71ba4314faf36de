/*
 * sigpost - level switchboard.
 *
 * A measuring program posts levels to numbered lines; watching programs leave
 * an event with a threshold on a line and the driver sets the event each time
 * the posted level goes from below the threshold to or above it.  A watcher
 * belongs to the handle through which it was made and disappears with it.
 *
 * All IOCTLs are METHOD_BUFFERED; the layouts are the same for 32-bit callers.
 *
 * The bug: the handle of an event that a program gives is looked up with KernelMode.
 *
 * Device: none
 * Rule: user-handle-as-kernel
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define LINES        16
#define WATCHERS     32

#define IOCTL_SIGPOST_WATCH   CTL_CODE(0x8220, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SIGPOST_UNWATCH CTL_CODE(0x8220, 0x902, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SIGPOST_POST    CTL_CODE(0x8220, 0x903, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SIGPOST_LEVELS  CTL_CODE(0x8220, 0x904, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct { ULONG64 Event; ULONG Line; LONG Threshold; } WATCH_IN;     /* out: ULONG cookie */
typedef struct { ULONG Cookie; } UNWATCH_IN;
typedef struct { ULONG Line; LONG Level; } POST_IN;                        /* out: ULONG events set */

typedef struct {
    PKEVENT      Event;         /* referenced; NULL: the place is free */
    PFILE_OBJECT Owner;
    ULONG        Line;
    LONG         Threshold;
    ULONG        Cookie;
} WATCHER;

typedef struct {
    KSPIN_LOCK Lock;
    ULONG      NextCookie;
    LONG       Level[LINES];
    WATCHER    Watch[WATCHERS];
} POSTDATA;

static POSTDATA *Data(PDEVICE_OBJECT dev) { return (POSTDATA *)dev->DeviceExtension; }

static NTSTATUS do_watch(POSTDATA *pd, PIRP irp, PIO_STACK_LOCATION sl, ULONG_PTR *info)
{
    WATCH_IN in;
    PKEVENT event = NULL;
    NTSTATUS st;
    KIRQL irql;
    ULONG i, cookie;

    if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(in))
        return STATUS_INFO_LENGTH_MISMATCH;
    if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    in = *(WATCH_IN *)irp->AssociatedIrp.SystemBuffer;
    if (in.Line >= LINES)
        return STATUS_INVALID_PARAMETER;

    st = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)in.Event, EVENT_MODIFY_STATE, *ExEventObjectType,
#ifdef FIXED
                                   irp->RequestorMode,
#else
                                   KernelMode,
#endif
                                   (PVOID *)&event, NULL);
    if (!NT_SUCCESS(st))
        return st;

    KeAcquireSpinLock(&pd->Lock, &irql);
    for (i = 0; i < WATCHERS; i++)
        if (!pd->Watch[i].Event)
            break;
    if (i == WATCHERS) {
        KeReleaseSpinLock(&pd->Lock, irql);
        ObDereferenceObject(event);
        return STATUS_QUOTA_EXCEEDED;
    }
    cookie = ++pd->NextCookie;
    pd->Watch[i].Event = event;
    pd->Watch[i].Owner = sl->FileObject;
    pd->Watch[i].Line = in.Line;
    pd->Watch[i].Threshold = in.Threshold;
    pd->Watch[i].Cookie = cookie;
    KeReleaseSpinLock(&pd->Lock, irql);

    *(ULONG *)irp->AssociatedIrp.SystemBuffer = cookie;
    *info = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS do_unwatch(POSTDATA *pd, PIRP irp, PIO_STACK_LOCATION sl)
{
    ULONG i, cookie;
    PKEVENT event = NULL;
    KIRQL irql;

    if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(UNWATCH_IN))
        return STATUS_INFO_LENGTH_MISMATCH;
    cookie = ((UNWATCH_IN *)irp->AssociatedIrp.SystemBuffer)->Cookie;

    KeAcquireSpinLock(&pd->Lock, &irql);
    for (i = 0; i < WATCHERS; i++) {
        WATCHER *w = &pd->Watch[i];
        if (w->Event && w->Owner == sl->FileObject && w->Cookie == cookie) {
            event = w->Event;
            RtlZeroMemory(w, sizeof(*w));
            break;
        }
    }
    KeReleaseSpinLock(&pd->Lock, irql);
    if (!event)
        return STATUS_NOT_FOUND;
    ObDereferenceObject(event);
    return STATUS_SUCCESS;
}

static NTSTATUS do_post(POSTDATA *pd, PIRP irp, PIO_STACK_LOCATION sl, ULONG_PTR *info)
{
    POST_IN in;
    ULONG i, set = 0;
    LONG before;
    KIRQL irql;

    if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(in))
        return STATUS_INFO_LENGTH_MISMATCH;
    in = *(POST_IN *)irp->AssociatedIrp.SystemBuffer;
    if (in.Line >= LINES)
        return STATUS_INVALID_PARAMETER;

    KeAcquireSpinLock(&pd->Lock, &irql);
    before = pd->Level[in.Line];
    pd->Level[in.Line] = in.Level;
    for (i = 0; i < WATCHERS; i++) {
        WATCHER *w = &pd->Watch[i];
        if (w->Event && w->Line == in.Line && before < w->Threshold && in.Level >= w->Threshold) {
            KeSetEvent(w->Event, IO_NO_INCREMENT, FALSE);
            set++;
        }
    }
    KeReleaseSpinLock(&pd->Lock, irql);

    if (sl->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(ULONG)) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = set;
        *info = sizeof(ULONG);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS SigControl(PDEVICE_OBJECT dev, PIRP irp)
{
    POSTDATA *pd = Data(dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st;
    ULONG_PTR info = 0;
    KIRQL irql;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SIGPOST_WATCH:
        st = do_watch(pd, irp, sl, &info);
        break;
    case IOCTL_SIGPOST_UNWATCH:
        st = do_unwatch(pd, irp, sl);
        break;
    case IOCTL_SIGPOST_POST:
        st = do_post(pd, irp, sl, &info);
        break;
    case IOCTL_SIGPOST_LEVELS:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(pd->Level)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&pd->Lock, &irql);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, pd->Level, sizeof(pd->Level));
        KeReleaseSpinLock(&pd->Lock, irql);
        info = sizeof(pd->Level);
        st = STATUS_SUCCESS;
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

/*
 * The last handle to this open has gone: take its watchers away.  Runs for
 * CLOSE too, for the watcher of a request that was still on its way.
 */
static NTSTATUS SigCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    POSTDATA *pd = Data(dev);
    PFILE_OBJECT fo = IoGetCurrentIrpStackLocation(irp)->FileObject;
    ULONG i;

    for (i = 0; i < WATCHERS; i++) {
        PKEVENT event = NULL;
        KIRQL irql;

        KeAcquireSpinLock(&pd->Lock, &irql);
        if (pd->Watch[i].Event && pd->Watch[i].Owner == fo) {
            event = pd->Watch[i].Event;
            RtlZeroMemory(&pd->Watch[i], sizeof(WATCHER));
        }
        KeReleaseSpinLock(&pd->Lock, irql);
        if (event)
            ObDereferenceObject(event);
    }
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS SigOpen(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID SigUnload(PDRIVER_OBJECT drv)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, L"\\DosDevices\\SigPost");
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(drv->DeviceObject);      /* no handle is open: every watcher is gone */
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT dev;
    NTSTATUS st;

    (void)reg;
    RtlInitUnicodeString(&name, L"\\Device\\SigPost");
    RtlInitUnicodeString(&link, L"\\DosDevices\\SigPost");

    drv->DriverUnload = SigUnload;
    drv->MajorFunction[IRP_MJ_CREATE] = SigOpen;
    drv->MajorFunction[IRP_MJ_CLOSE] = SigCleanup;
    drv->MajorFunction[IRP_MJ_CLEANUP] = SigCleanup;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SigControl;

    st = IoCreateDevice(drv, sizeof(POSTDATA), &name, 0x8220, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(st))
        return st;
    RtlZeroMemory(dev->DeviceExtension, sizeof(POSTDATA));
    KeInitializeSpinLock(&Data(dev)->Lock);

    st = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
