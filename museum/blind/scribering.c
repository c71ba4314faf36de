/*
 * scribering - keeps the last few kilobytes of application trace lines in memory.
 *
 * Programs write() records of up to 1000 bytes to \\.\Scribe; a collector
 * read()s them back, one record per read, oldest first.  Records of any
 * length are kept back to back in one ring of bytes.  A record never straddles
 * the end of the ring: if it does not fit there, the rest of the ring is
 * skipped and the record starts again at the bottom.  When the ring is full
 * the writer gets STATUS_DEVICE_BUSY.
 *
 *   IOCTL_SCRIBE_STATS   out: SCRIBE_STATS
 *   IOCTL_SCRIBE_CLEAR   drops everything that has not been collected
 *
 * The bug: where one to three bytes are left at the end of the ring, a mark of four is stored there.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define SCRIBE_TAG        'brcS'
#define RING_BYTES        6000
#define MAX_RECORD        1000
#define SKIP_MARK         0xFFFFu

#define IOCTL_SCRIBE_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_SCRIBE_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_WRITE_DATA)

typedef struct _SCRIBE_STATS {
    ULONG Waiting;      /* records not collected yet */
    ULONG Written;
    ULONG Collected;
    ULONG Refused;
} SCRIBE_STATS;

/* In front of every record; not aligned. */
typedef struct _REC_HEAD {
    USHORT Length;      /* of the payload, or SKIP_MARK */
    USHORT Serial;
} REC_HEAD;

typedef struct _SCRIBE {
    KSPIN_LOCK   Lock;
    PUCHAR       Ring;
    ULONG        Head;      /* the oldest record */
    ULONG        Tail;      /* first byte after the newest record */
    USHORT       Serial;
    SCRIBE_STATS Stats;     /* Stats.Waiting == 0: the ring is empty, Head == Tail == 0 */
} SCRIBE, *PSCRIBE;

static UNICODE_STRING g_DevName = RTL_CONSTANT_STRING(L"\\Device\\Scribe");
static UNICODE_STRING g_LnkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Scribe");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Finds room for `need` contiguous bytes, Lock held; FALSE if there is none. */
static BOOLEAN RingReserve(PSCRIBE s, ULONG need, PULONG where)
{
    ULONG room;

    if (s->Stats.Waiting == 0 || s->Tail > s->Head) {
        room = RING_BYTES - s->Tail;
        if (need <= room) {
            *where = s->Tail;
            return TRUE;
        }
        /* Not behind the newest record: is there room at the bottom? */
        if (need > s->Head)
            return FALSE;
#ifdef FIXED
        if (room >= sizeof(REC_HEAD)) {
#else
        if (room != 0) {
#endif
            REC_HEAD skip;
            skip.Length = SKIP_MARK;
            skip.Serial = 0;
            RtlCopyMemory(s->Ring + s->Tail, &skip, sizeof(skip));
        }
        *where = 0;
        return TRUE;
    }

    /* The writer is already below the reader. */
    if (need > s->Head - s->Tail)
        return FALSE;
    *where = s->Tail;
    return TRUE;
}

static NTSTATUS ScribeWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSCRIBE s = Device->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG len = sl->Parameters.Write.Length;
    ULONG at;
    KIRQL irql;
    REC_HEAD head;

    if (len == 0)
        return Finish(Irp, STATUS_SUCCESS, 0);
    if (len > MAX_RECORD)
        return Finish(Irp, STATUS_INVALID_BUFFER_SIZE, 0);

    KeAcquireSpinLock(&s->Lock, &irql);
    if (!RingReserve(s, sizeof(head) + len, &at)) {
        s->Stats.Refused++;
        KeReleaseSpinLock(&s->Lock, irql);
        return Finish(Irp, STATUS_DEVICE_BUSY, 0);
    }
    head.Length = (USHORT)len;
    head.Serial = s->Serial++;
    RtlCopyMemory(s->Ring + at, &head, sizeof(head));
    RtlCopyMemory(s->Ring + at + sizeof(head), Irp->AssociatedIrp.SystemBuffer, len);
    s->Tail = at + sizeof(head) + len;
    s->Stats.Waiting++;
    s->Stats.Written++;
    KeReleaseSpinLock(&s->Lock, irql);
    return Finish(Irp, STATUS_SUCCESS, len);
}

static NTSTATUS ScribeRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSCRIBE s = Device->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG room = sl->Parameters.Read.Length;
    KIRQL irql;
    REC_HEAD head;

    KeAcquireSpinLock(&s->Lock, &irql);
    if (s->Stats.Waiting == 0) {
        KeReleaseSpinLock(&s->Lock, irql);
        return Finish(Irp, STATUS_NO_MORE_ENTRIES, 0);
    }

    /* Too near the end for even a head, or a head that says "skip"? */
    if (RING_BYTES - s->Head < sizeof(head)) {
        s->Head = 0;
    } else {
        RtlCopyMemory(&head, s->Ring + s->Head, sizeof(head));
        if (head.Length == SKIP_MARK)
            s->Head = 0;
    }
    RtlCopyMemory(&head, s->Ring + s->Head, sizeof(head));

    if (head.Length > room) {
        KeReleaseSpinLock(&s->Lock, irql);
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, s->Ring + s->Head + sizeof(head), head.Length);
    s->Head += sizeof(head) + head.Length;
    s->Stats.Collected++;
    if (--s->Stats.Waiting == 0)
        s->Head = s->Tail = 0;
    KeReleaseSpinLock(&s->Lock, irql);
    return Finish(Irp, STATUS_SUCCESS, head.Length);
}

static NTSTATUS ScribeControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSCRIBE s = Device->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    SCRIBE_STATS stats;
    KIRQL irql;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SCRIBE_STATS:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(stats))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&s->Lock, &irql);
        stats = s->Stats;
        KeReleaseSpinLock(&s->Lock, irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &stats, sizeof(stats));
        return Finish(Irp, STATUS_SUCCESS, sizeof(stats));

    case IOCTL_SCRIBE_CLEAR:
        KeAcquireSpinLock(&s->Lock, &irql);
        s->Head = s->Tail = 0;
        s->Stats.Waiting = 0;
        KeReleaseSpinLock(&s->Lock, irql);
        return Finish(Irp, STATUS_SUCCESS, 0);
    }
    return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS ScribeOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID ScribeUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT dev = Driver->DeviceObject;
    PSCRIBE s = dev->DeviceExtension;

    IoDeleteSymbolicLink(&g_LnkName);
    ExFreePoolWithTag(s->Ring, SCRIBE_TAG);
    IoDeleteDevice(dev);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT dev;
    PSCRIBE s;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);

    status = IoCreateDevice(Driver, sizeof(SCRIBE), &g_DevName, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;

    s = dev->DeviceExtension;
    RtlZeroMemory(s, sizeof(*s));
    KeInitializeSpinLock(&s->Lock);
    s->Ring = ExAllocatePoolWithTag(NonPagedPoolNx, RING_BYTES, SCRIBE_TAG);
    if (s->Ring == NULL) {
        IoDeleteDevice(dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(s->Ring, RING_BYTES);

    Driver->MajorFunction[IRP_MJ_CREATE] = ScribeOpenClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = ScribeOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = ScribeOpenClose;
    Driver->MajorFunction[IRP_MJ_READ] = ScribeRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = ScribeWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ScribeControl;
    Driver->DriverUnload = ScribeUnload;
    dev->Flags |= DO_BUFFERED_IO;

    status = IoCreateSymbolicLink(&g_LnkName, &g_DevName);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(s->Ring, SCRIBE_TAG);
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
