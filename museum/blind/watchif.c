/*
 * watchif: watches the arrival and removal of device interfaces of a class that the
 * application names (IOCTL_WI_WATCH), keeps up to 64 of their link names for
 * IOCTL_WI_LIST, and lets requests wait for the next change (IOCTL_WI_CHANGE).
 *
 * The bug: the notification is unregistered (which waits for its callback) with the mutex held that the callback takes.
 *
 * Device: ROOT\WATCHIF
 * Rule: deadlock
 * Needs: schedule
 */
#include "../include/pausing_frame.h"
#include <ddk/wdmguid.h>

#define WI_TAG 'fIhW'
#define WI_MAX 64
#define WI_CHARS 200
#define IOCTL_WI_WATCH   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WI_UNWATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WI_LIST    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B2, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_WI_CHANGE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B3, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID WatchInterface = { 0x3c1e5f07, 0x6a1b, 0x4e67, { 0xb0, 0x0f, 0x55, 0x02, 0x1d, 0x9e, 0x3a, 0x77 } };
static const GUID Arrival = { 0xcb3a4004, 0x46f0, 0x11d0, { 0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f } };
static const GUID Removal = { 0xcb3a4005, 0x46f0, 0x11d0, { 0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f } };

typedef struct { USHORT Bytes; WCHAR Name[WI_CHARS]; } WI_NAME;

typedef struct {
    FRAME Frame;
    FRQ Changes;
    KEVENT Mutex;           /* synchronization event; guards what follows */
    PVOID Entry;
    BOOLEAN Turning;        /* being registered or unregistered */
    ULONG Count;
    ULONG Version;
    WI_NAME Names[WI_MAX];
} WATCH, *PWATCH;

static VOID Enter(PWATCH W)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&W->Mutex, Executive, KernelMode, FALSE, NULL);
}
static VOID Exit(PWATCH W)
{
    KeSetEvent(&W->Mutex, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static BOOLEAN SameGuid(const GUID *A, const GUID *B)
{
    return RtlCompareMemory(A, B, sizeof *A) == sizeof *A;
}

static LONG FindName(PWATCH W, PUNICODE_STRING S)
{
    ULONG i;
    for (i = 0; i < W->Count; i++)
        if (W->Names[i].Bytes == S->Length && RtlCompareMemory(W->Names[i].Name, S->Buffer, S->Length) == S->Length)
            return (LONG)i;
    return -1;
}

static NTSTATUS InterfaceChanged(PVOID Notification, PVOID Context)
{
    PDEVICE_INTERFACE_CHANGE_NOTIFICATION n = Notification;
    PWATCH w = Context;
    PUNICODE_STRING s = n->SymbolicLinkName;
    BOOLEAN changed = FALSE;
    ULONG version, limit;
    PIRP irp;
    LONG i;

    if (s->Length > WI_CHARS * sizeof(WCHAR))
        return STATUS_SUCCESS;
    Enter(w);
    i = FindName(w, s);
    if (SameGuid(&n->Event, &Arrival) && i < 0 && w->Count < WI_MAX) {
        w->Names[w->Count].Bytes = s->Length;
        RtlCopyMemory(w->Names[w->Count].Name, s->Buffer, s->Length);
        w->Count++;
        changed = TRUE;
    } else if (SameGuid(&n->Event, &Removal) && i >= 0) {
        w->Names[i] = w->Names[--w->Count];
        changed = TRUE;
    }
    if (changed)
        w->Version++;
    version = w->Version;
    Exit(w);
    for (limit = changed ? 1000 : 0; limit && (irp = FrqTake(&w->Changes, NULL)) != NULL; limit--) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = version;
        irp->IoStatus.Information = sizeof(ULONG);
        FrDone(&w->Frame, irp, STATUS_SUCCESS);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Watch(PWATCH W, const GUID *Class)
{
    PVOID entry = NULL;
    GUID guid = *Class;
    NTSTATUS status = STATUS_SUCCESS;

    Enter(W);
    if (W->Entry || W->Turning)
        status = STATUS_DEVICE_BUSY;
    else {
        W->Turning = TRUE;
        W->Count = 0;
    }
    Exit(W);
    if (!NT_SUCCESS(status))
        return status;
    /* calls back for those that are there */
    status = IoRegisterPlugPlayNotification(EventCategoryDeviceInterfaceChange, PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES,
                                            &guid, W->Frame.Self->DriverObject, InterfaceChanged, W, &entry);
    Enter(W);
    W->Turning = FALSE;
    if (NT_SUCCESS(status))
        W->Entry = entry;
    Exit(W);
    return status;
}

static NTSTATUS Unwatch(PWATCH W)
{
    PVOID entry;
    Enter(W);
    if (!W->Entry || W->Turning) {
        Exit(W);
        return STATUS_INVALID_DEVICE_STATE;
    }
    entry = W->Entry;
    W->Entry = NULL;
    W->Turning = TRUE;
#ifdef FIXED
    Exit(W);
    IoUnregisterPlugPlayNotificationEx(entry);
    Enter(W);
#else
    IoUnregisterPlugPlayNotificationEx(entry);
#endif
    W->Turning = FALSE;
    W->Count = 0;
    W->Version++;
    Exit(W);
    return STATUS_SUCCESS;
}

static NTSTATUS WiIo(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PWATCH w = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength, n;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WI_WATCH:
        return in < sizeof(GUID) ? STATUS_BUFFER_TOO_SMALL : Watch(w, buf);
    case IOCTL_WI_UNWATCH:
        return Unwatch(w);
    case IOCTL_WI_LIST: {       /* what fits of: USHORT bytes, then the name in 200 characters */
        WI_NAME *o = buf;
        out /= sizeof *o;
        Enter(w);
        for (n = 0; n < w->Count && n < out; n++) {
            RtlZeroMemory(&o[n], sizeof *o);
            o[n].Bytes = w->Names[n].Bytes;
            RtlCopyMemory(o[n].Name, w->Names[n].Name, w->Names[n].Bytes);
        }
        Irp->IoStatus.Information = n * sizeof *o;
        n = w->Count;
        Exit(w);
        return n > out ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
    }
    case IOCTL_WI_CHANGE:
        return out < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : FrqPut(&w->Changes, Irp);
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID WiCleanup(PDEVICE_OBJECT Dev, PFILE_OBJECT File) { FrqCancelFile(&((PWATCH)Dev->DeviceExtension)->Changes, File); }
static VOID WiFlush(PDEVICE_OBJECT Dev) { FrqShut(&((PWATCH)Dev->DeviceExtension)->Changes); }
static VOID WiFree(PDEVICE_OBJECT Dev) { Unwatch(Dev->DeviceExtension); }

static const FRAME_OPS WiOps = { .Flush = WiFlush, .Free = WiFree, .Cleanup = WiCleanup, .Io = WiIo };

static NTSTATUS WiAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PWATCH w;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(WATCH), &WiOps, &WatchInterface, 0, &dev);
    if (!NT_SUCCESS(status))
        return status;
    w = dev->DeviceExtension;
    KeInitializeEvent(&w->Mutex, SynchronizationEvent, TRUE);
    status = FrqInit(&w->Changes, &w->Frame);
    if (!NT_SUCCESS(status)) {
        FrUnadd(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    FrInit(Driver, WiAdd);
    return STATUS_SUCCESS;
}
