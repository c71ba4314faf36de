/*
 * SPINDLE: a scratch store of 64 KB that survives the applications that use it.  It is read and
 * written at any offset, ERASE fills it with zeros, STATS counts.  Requests go through a queue
 * and are served one after the other; while Plug and Play considers stopping the device they wait.
 *
 * The bug: when the query-stop is cancelled, requests are let through again but those that have
 * come meanwhile are not looked at: they stay in the queue until another request comes.
 *
 * Device: ROOT\SPINDLE
 * Rule: request-forgotten
 * Needs: ioctl, removal
 */
#include "../include/jetty_pnp.h"
#include "../include/jetty_csq.h"

/* {6F0E5C62-7A0B-4B7F-9A53-2C1B6D0E8A11} */
static const GUID SpindleInterface =
    { 0x6f0e5c62, 0x7a0b, 0x4b7f, { 0x9a, 0x53, 0x2c, 0x1b, 0x6d, 0x0e, 0x8a, 0x11 } };

#define IOCTL_SPINDLE_ERASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SPINDLE_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define SPINDLE_BYTES 65536

typedef struct _SPINDLE_STATS {
    LONG Reads;
    LONG Writes;
    LONG Erased;
} SPINDLE_STATS, *PSPINDLE_STATS;

typedef struct _SPINDLE {
    JETTY_COMMON Common;
    JETTY_QUEUE Queue;
    FAST_MUTEX Serial;          /* one request at a time; Held and Gone */
    BOOLEAN Held;
    BOOLEAN Gone;
    PUCHAR Store;
    SPINDLE_STATS Stats;
} SPINDLE, *PSPINDLE;

static VOID SpindleFinish(PVOID Owner, PIRP Irp, NTSTATUS Status)
{
    JettyFinish(Owner, Irp, Status, 0);
}

/* Does one request; with Serial held. */
static NTSTATUS SpindleDo(PSPINDLE d, PIRP Irp, PULONG_PTR Information)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = s->MajorFunction == IRP_MJ_WRITE;
    LONGLONG offset;
    ULONG length;

    if (d->Gone)
        return STATUS_NO_SUCH_DEVICE;
    if (s->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        RtlZeroMemory(d->Store, SPINDLE_BYTES);
        d->Stats.Erased++;
        return STATUS_SUCCESS;
    }

    offset = write ? s->Parameters.Write.ByteOffset.QuadPart : s->Parameters.Read.ByteOffset.QuadPart;
    length = write ? s->Parameters.Write.Length : s->Parameters.Read.Length;
    if (offset < 0)
        return STATUS_INVALID_PARAMETER;
    if (length == 0)
        return STATUS_SUCCESS;
    if (offset >= SPINDLE_BYTES)
        return write ? STATUS_DISK_FULL : STATUS_END_OF_FILE;
    if (length > SPINDLE_BYTES - (ULONG)offset)
        length = SPINDLE_BYTES - (ULONG)offset;

    if (write) {
        RtlCopyMemory(d->Store + offset, Irp->AssociatedIrp.SystemBuffer, length);
        d->Stats.Writes++;
    } else {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, d->Store + offset, length);
        d->Stats.Reads++;
    }
    if (s->FileObject && (s->FileObject->Flags & FO_SYNCHRONOUS_IO))
        s->FileObject->CurrentByteOffset.QuadPart = offset + length;
    *Information = length;
    return STATUS_SUCCESS;
}

/* Serves the queue, unless it is held. */
static VOID SpindleServe(PVOID Owner)
{
    PSPINDLE d = Owner;

    for (;;) {
        ULONG_PTR information = 0;
        NTSTATUS status = STATUS_SUCCESS;
        PIRP irp = NULL;

        ExAcquireFastMutex(&d->Serial);
        if (!d->Held || d->Gone)
            irp = IoCsqRemoveNextIrp(&d->Queue.Csq, NULL);
        if (irp)
            status = SpindleDo(d, irp, &information);
        ExReleaseFastMutex(&d->Serial);
        if (!irp)
            break;
        JettyFinish(d, irp, status, information);
    }
}

static NTSTATUS SpindleAccept(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PSPINDLE d = Fdo->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&d->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return JettyComplete(Irp, status, 0);
    /* that hold goes with the request, which may be over before SpindleServe returns */
    status = IoAcquireRemoveLock(&d->Common.RemoveLock, Fdo);
    if (!NT_SUCCESS(status))
        return JettyFinish(d, Irp, status, 0);
    status = JettyPark(&d->Queue, Irp, SpindleServe);
    IoReleaseRemoveLock(&d->Common.RemoveLock, Fdo);
    return status;
}

static NTSTATUS NTAPI SpindleReadWrite(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    return SpindleAccept(Fdo, Irp);
}

static NTSTATUS NTAPI SpindleControl(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PSPINDLE d = Fdo->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SPINDLE_ERASE:
        return SpindleAccept(Fdo, Irp);

    case IOCTL_SPINDLE_STATS:
        status = IoAcquireRemoveLock(&d->Common.RemoveLock, Irp);
        if (!NT_SUCCESS(status))
            return JettyComplete(Irp, status, 0);
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SPINDLE_STATS))
            return JettyFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&d->Serial);
        *(PSPINDLE_STATS)Irp->AssociatedIrp.SystemBuffer = d->Stats;
        ExReleaseFastMutex(&d->Serial);
        return JettyFinish(d, Irp, STATUS_SUCCESS, sizeof(SPINDLE_STATS));

    default:
        return JettyComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI SpindleCleanup(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PSPINDLE d = Fdo->DeviceExtension;

    JettyHandleClosed(&d->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID SpindleInit(PVOID Ext)
{
    PSPINDLE d = Ext;

    ExInitializeFastMutex(&d->Serial);
    JettyQueueInit(&d->Queue, d, SpindleFinish, JettyCsqPeek);
    d->Held = TRUE;             /* until it is started */
}

static VOID SpindleSetHeld(PSPINDLE d, BOOLEAN Held)
{
    ExAcquireFastMutex(&d->Serial);
    d->Held = Held;
    ExReleaseFastMutex(&d->Serial);
}

static NTSTATUS SpindleStart(PVOID Ext, PCM_RESOURCE_LIST Translated)
{
    PSPINDLE d = Ext;

    UNREFERENCED_PARAMETER(Translated);
    if (!d->Store) {            /* not after a stop: the contents stay */
        d->Store = ExAllocatePoolWithTag(PagedPool, SPINDLE_BYTES, JETTY_TAG);
        if (!d->Store)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlZeroMemory(d->Store, SPINDLE_BYTES);
    }
    SpindleSetHeld(d, FALSE);
    SpindleServe(d);
    return STATUS_SUCCESS;
}

static VOID SpindleStop(PVOID Ext)
{
    SpindleSetHeld(Ext, TRUE);
}

/* A stop is asked for, or is not to be after all. */
static VOID SpindleHold(PVOID Ext, BOOLEAN Hold)
{
    PSPINDLE d = Ext;

    SpindleSetHeld(d, Hold);
#ifdef FIXED
    if (!Hold)
        SpindleServe(d);
#endif
}

static VOID SpindleGone(PVOID Ext)
{
    PSPINDLE d = Ext;

    ExAcquireFastMutex(&d->Serial);
    d->Gone = TRUE;
    ExReleaseFastMutex(&d->Serial);
    SpindleServe(d);
}

static VOID SpindleFree(PVOID Ext)
{
    PSPINDLE d = Ext;

    if (d->Store)
        ExFreePoolWithTag(d->Store, JETTY_TAG);
}

static const JETTY_HOOKS SpindleHooks = {
    .Init = SpindleInit,
    .Start = SpindleStart,
    .Stop = SpindleStop,
    .Gone = SpindleGone,
    .Free = SpindleFree,
    .Hold = SpindleHold,
};

static NTSTATUS NTAPI SpindleAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return JettyAdd(Driver, Pdo, sizeof(SPINDLE), &SpindleHooks, &SpindleInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    JettyDriver(Driver, SpindleAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SpindleCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = SpindleReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = SpindleReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SpindleControl;
    return STATUS_SUCCESS;
}
