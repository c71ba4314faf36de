/*
 * A logger whose readers hand it a ring buffer of their own memory, into which records are written from requests and
 * from a heartbeat; a reader consumes them without calls and may make its ring smaller while it runs.
 *
 * The bug: the ring's capacity, which the reader may change, is checked and then fetched again from the shared header where a record's place is computed, so a record can be written beyond the reader's memory, or the division is by zero.
 * Shows by: a reader attaches its memory, and stores another capacity (0, or one larger than its memory when more than that has been logged) into the ring's header between the logger's check and its copy of a record.
 *
 * Device: none
 * Rule: divide-error, wild-write
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define LOG_TAG             'goLR'
#define LOG_MAGIC           0x474F4C52u
#define LOG_MIN_RING        256
#define LOG_MAX_RING        (1024 * 1024)
#define LOG_MAX_TEXT        512
#define LOG_MAX_PERIOD_MS   60000

#define IOCTL_LOG_ATTACH    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_OUT_DIRECT, FILE_READ_ACCESS)
#define IOCTL_LOG_DETACH    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_LOG_WAIT      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_LOG_HEARTBEAT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x923, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LOG_STATS     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x924, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifndef NonPagedPoolNx
#define NonPagedPoolNx ((POOL_TYPE)512)
#endif

/* Shared with the reader, at the beginning of its memory; records follow. Positions grow for ever. */
typedef struct _RING {
    ULONG Magic;
    ULONG Capacity;                     /* bytes that records may take; the reader may lower it while the ring is empty */
    ULONG Head;                         /* written by the logger */
    ULONG Tail;                         /* written by the reader */
    ULONG Dropped;
    ULONG Reserved[3];
    UCHAR Data[1];
} RING;

#define RING_HEADER         FIELD_OFFSET(RING, Data)

typedef struct _RECORD {
    ULONG Length;                       /* of the text */
    ULONG Sequence;
    ULONGLONG Time;
} RECORD;

typedef struct _LOG_STATS {
    ULONG Sequence;
    ULONG Readers;
    ULONG Written;
    ULONG Dropped;
} LOG_STATS;

typedef struct _READER {
    LIST_ENTRY Link;                    /* in Readers, while a ring is attached */
    BOOLEAN Closing;
    PIRP Ring;                          /* the request whose buffer is the ring, or NULL */
    volatile RING *Shared;
    ULONG Limit;                        /* bytes behind the header */
    ULONG Head;                         /* our own: what is shared is only for show */
    ULONG Seen;                         /* the sequence that the last wait ended with */
    LIST_ENTRY Waiting;
    ULONG Written;
    ULONG Dropped;
} READER, *PREADER;

static PDEVICE_OBJECT LogDevice;
static KSPIN_LOCK LogLock;              /* guards all of what follows, readers and their rings */
static LIST_ENTRY LogReaders;
static ULONG LogSequence;
static KTIMER LogTimer;
static KDPC LogDpc;

static NTSTATUS LogComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID LogCompleteAll(PLIST_ENTRY Done)
{
    while (!IsListEmpty(Done))
        IoCompleteRequest(CONTAINING_RECORD(RemoveHeadList(Done), IRP, Tail.Overlay.ListEntry), IO_NO_INCREMENT);
}

/* Writing */

/* With LogLock held: bytes to a position, around the end of the ring where that must be. */
static VOID RingCopy(volatile RING *Ring, ULONG Capacity, ULONG Position, const VOID *Bytes, ULONG Length)
{
#ifdef FIXED
    ULONG offset = Position % Capacity;
#else
    ULONG offset = Position % Ring->Capacity;
#endif
    ULONG first = Capacity - offset;

    if (first > Length) first = Length;
    RtlCopyMemory((PUCHAR)Ring->Data + offset, Bytes, first);
    RtlCopyMemory((PUCHAR)Ring->Data, (const UCHAR *)Bytes + first, Length - first);
}

/* With LogLock held. */
static VOID RingWrite(PREADER Reader, const RECORD *Record, const VOID *Text)
{
    volatile RING *ring = Reader->Shared;
    ULONG capacity = ring->Capacity;
    ULONG used = Reader->Head - ring->Tail;
    ULONG size = (sizeof(*Record) + Record->Length + 7) & ~7u;

    if (capacity < LOG_MIN_RING || capacity > Reader->Limit || (capacity & (capacity - 1)) || used > capacity || size > capacity - used) {
        Reader->Dropped++;
        ring->Dropped = Reader->Dropped;
        return;
    }
    RingCopy(ring, capacity, Reader->Head, Record, sizeof(*Record));
    RingCopy(ring, capacity, Reader->Head + sizeof(*Record), Text, Record->Length);
    Reader->Head += size;
    Reader->Written++;
    InterlockedExchange((volatile LONG *)&ring->Head, (LONG)Reader->Head);    /* behind the data */
}

/* With LogLock held: a waiting request that is not being cancelled. */
static PIRP TakeWaiting(PREADER Reader)
{
    while (!IsListEmpty(&Reader->Waiting)) {
        PLIST_ENTRY e = RemoveHeadList(&Reader->Waiting);
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        InitializeListHead(e);
        if (IoSetCancelRoutine(irp, NULL)) return irp;
    }
    return NULL;
}

static VOID LogRecord(const VOID *Text, ULONG Length)
{
    LIST_ENTRY done, *e;
    LARGE_INTEGER now;
    RECORD record;
    KIRQL irql;

    KeQuerySystemTime(&now);
    InitializeListHead(&done);
    KeAcquireSpinLock(&LogLock, &irql);
    record.Length = Length;
    record.Sequence = ++LogSequence;
    record.Time = now.QuadPart;
    for (e = LogReaders.Flink; e != &LogReaders; e = e->Flink) {
        PREADER reader = CONTAINING_RECORD(e, READER, Link);
        PIRP irp;
        RingWrite(reader, &record, Text);
        while ((irp = TakeWaiting(reader)) != NULL) {
            reader->Seen = LogSequence;
            *(PULONG)irp->AssociatedIrp.SystemBuffer = LogSequence;
            irp->IoStatus.Status = STATUS_SUCCESS;
            irp->IoStatus.Information = sizeof(ULONG);
            InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
        }
    }
    KeReleaseSpinLock(&LogLock, irql);
    LogCompleteAll(&done);
}

static VOID NTAPI LogHeartbeat(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    static const char text[] = "-- mark --";
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    LogRecord(text, sizeof(text) - 1);
}

/* Readers */

/* With LogLock held: the ring is the application's own again. */
static VOID DetachLocked(PREADER Reader)
{
    RemoveEntryList(&Reader->Link);
    Reader->Ring = NULL;
    Reader->Shared = NULL;
}

static VOID NTAPI LogCancelRing(PDEVICE_OBJECT Device, PIRP Irp)
{
    PREADER reader = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&LogLock, &irql);
    if (reader->Ring == Irp) DetachLocked(reader);
    KeReleaseSpinLock(&LogLock, irql);
    LogComplete(Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI LogCancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&LogLock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&LogLock, irql);
    LogComplete(Irp, STATUS_CANCELLED, 0);
}

/* With LogLock held: the request that is to be completed, or NULL. */
static PIRP TakeRing(PREADER Reader)
{
    PIRP irp = Reader->Ring;
    if (!irp) return NULL;
    DetachLocked(Reader);
    return IoSetCancelRoutine(irp, NULL) ? irp : NULL;
}

static NTSTATUS LogAttach(PREADER Reader, PIRP Irp, ULONG Length)
{
    NTSTATUS status = STATUS_PENDING;
    volatile RING *ring;
    ULONG limit;
    KIRQL irql;

    if (Length < RING_HEADER + LOG_MIN_RING || Length > LOG_MAX_RING || !Irp->MdlAddress)
        return LogComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    ring = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!ring) return LogComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    for (limit = LOG_MIN_RING; limit * 2 <= Length - RING_HEADER; limit *= 2) {}

    KeAcquireSpinLock(&LogLock, &irql);
    if (Reader->Closing) status = STATUS_CANCELLED;
    else if (Reader->Ring) status = STATUS_DEVICE_BUSY;
    else {
        ring->Capacity = limit;
        ring->Head = ring->Tail = ring->Dropped = 0;
        ring->Reserved[0] = ring->Reserved[1] = ring->Reserved[2] = 0;
        ring->Magic = LOG_MAGIC;
        IoMarkIrpPending(Irp);
        IoSetCancelRoutine(Irp, LogCancelRing);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
            KeReleaseSpinLock(&LogLock, irql);
            LogComplete(Irp, STATUS_CANCELLED, 0);
            return STATUS_PENDING;
        }
        if (!Irp->Cancel) {
            Reader->Ring = Irp;
            Reader->Shared = ring;
            Reader->Limit = limit;
            Reader->Head = Reader->Written = Reader->Dropped = 0;
            Reader->Seen = LogSequence;
            InsertTailList(&LogReaders, &Reader->Link);
        }
    }
    KeReleaseSpinLock(&LogLock, irql);
    return status == STATUS_PENDING ? status : LogComplete(Irp, status, 0);
}

static NTSTATUS LogWait(PREADER Reader, PIRP Irp, ULONG Room)
{
    NTSTATUS status = STATUS_PENDING;
    KIRQL irql;

    if (Room < sizeof(ULONG)) return LogComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&LogLock, &irql);
    if (Reader->Closing) status = STATUS_CANCELLED;
    else if (!Reader->Ring) status = STATUS_INVALID_DEVICE_STATE;
    else if (Reader->Seen != LogSequence) {
        Reader->Seen = LogSequence;
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = LogSequence;
        status = STATUS_SUCCESS;
    } else {
        IoMarkIrpPending(Irp);
        InsertTailList(&Reader->Waiting, &Irp->Tail.Overlay.ListEntry);
        IoSetCancelRoutine(Irp, LogCancelWait);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
            RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
            KeReleaseSpinLock(&LogLock, irql);
            LogComplete(Irp, STATUS_CANCELLED, 0);
            return STATUS_PENDING;
        }
    }
    KeReleaseSpinLock(&LogLock, irql);
    if (status == STATUS_PENDING) return status;
    return LogComplete(Irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);
}

/* Gives the ring back, and ends waits. */
static BOOLEAN LogDetach(PREADER Reader, BOOLEAN Closing)
{
    BOOLEAN attached;
    LIST_ENTRY done;
    PIRP irp;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&LogLock, &irql);
    if (Closing) Reader->Closing = TRUE;
    attached = Reader->Ring != NULL;
    irp = TakeRing(Reader);
    if (irp) {
        irp->IoStatus.Status = STATUS_SUCCESS;
        irp->IoStatus.Information = 0;
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    while ((irp = TakeWaiting(Reader)) != NULL) {
        irp->IoStatus.Status = STATUS_CANCELLED;
        irp->IoStatus.Information = 0;
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&LogLock, irql);
    LogCompleteAll(&done);
    return attached;
}

static NTSTATUS LogSetHeartbeat(ULONG Ms)
{
    LARGE_INTEGER due;
    KIRQL irql;

    if (Ms > LOG_MAX_PERIOD_MS || (Ms && Ms < 10)) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&LogLock, &irql);
    if (Ms) {
        due.QuadPart = -(LONGLONG)Ms * 10000;
        KeSetTimerEx(&LogTimer, due, Ms, &LogDpc);
    } else KeCancelTimer(&LogTimer);
    KeReleaseSpinLock(&LogLock, irql);
    return STATUS_SUCCESS;
}

static VOID LogGetStats(PREADER Reader, LOG_STATS *Stats)
{
    PLIST_ENTRY e;
    KIRQL irql;

    RtlZeroMemory(Stats, sizeof(*Stats));
    KeAcquireSpinLock(&LogLock, &irql);
    Stats->Sequence = LogSequence;
    Stats->Written = Reader->Written;
    Stats->Dropped = Reader->Dropped;
    for (e = LogReaders.Flink; e != &LogReaders; e = e->Flink) Stats->Readers++;
    KeReleaseSpinLock(&LogLock, irql);
}

static NTSTATUS NTAPI LogDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PREADER reader = sp->FileObject->FsContext;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    UNREFERENCED_PARAMETER(Device);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LOG_ATTACH:
        return LogAttach(reader, Irp, out);
    case IOCTL_LOG_DETACH:
        return LogComplete(Irp, LogDetach(reader, FALSE) ? STATUS_SUCCESS : STATUS_INVALID_DEVICE_STATE, 0);
    case IOCTL_LOG_WAIT:
        return LogWait(reader, Irp, out);
    case IOCTL_LOG_HEARTBEAT:
        if (in < sizeof(ULONG)) return LogComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        return LogComplete(Irp, LogSetHeartbeat(*(const ULONG *)buffer), 0);
    case IOCTL_LOG_STATS:
        if (out < sizeof(LOG_STATS)) return LogComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        LogGetStats(reader, buffer);
        return LogComplete(Irp, STATUS_SUCCESS, sizeof(LOG_STATS));
    default:
        return LogComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI LogWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    UNREFERENCED_PARAMETER(Device);

    if (length == 0 || length > LOG_MAX_TEXT) return LogComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    LogRecord(Irp->AssociatedIrp.SystemBuffer, length);
    return LogComplete(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI LogCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PREADER reader = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(READER), LOG_TAG);
    UNREFERENCED_PARAMETER(Device);

    if (!reader) return LogComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(reader, sizeof(*reader));
    InitializeListHead(&reader->Waiting);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = reader;
    return LogComplete(Irp, STATUS_SUCCESS, FILE_OPENED);
}

static NTSTATUS NTAPI LogCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    LogDetach(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, TRUE);
    return LogComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LogClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, LOG_TAG);
    return LogComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI LogUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\RingLog");
    UNREFERENCED_PARAMETER(Driver);

    IoDeleteSymbolicLink(&link);
    KeCancelTimer(&LogTimer);
    KeFlushQueuedDpcs();
    IoDeleteDevice(LogDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\RingLog"), link = RTL_CONSTANT_STRING(L"\\DosDevices\\RingLog");
    NTSTATUS status;
    UNREFERENCED_PARAMETER(RegistryPath);

    KeInitializeSpinLock(&LogLock);
    InitializeListHead(&LogReaders);
    KeInitializeTimer(&LogTimer);
    KeInitializeDpc(&LogDpc, LogHeartbeat, NULL);
    status = IoCreateDevice(Driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &LogDevice);
    if (!NT_SUCCESS(status)) return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(LogDevice);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = LogCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = LogCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = LogClose;
    Driver->MajorFunction[IRP_MJ_WRITE] = LogWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LogDeviceControl;
    Driver->DriverUnload = LogUnload;
    LogDevice->Flags |= DO_BUFFERED_IO;
    LogDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
