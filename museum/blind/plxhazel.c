/*
 * plxhazel: a journal in the battery-backed memory of a board behind a PLX PCI 9052. Programs append records of 32 bytes, get all of
 * them, start over, and can put back an image of the memory that they have saved.
 *
 * The bug: the number of records is believed as it stands in the board's memory. With a worn battery, or an image that is not one, it is
 * larger than the journal, and getting the records copies them behind the end of the driver's copy.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, device-access-past-mapping, wild-write, wild-read, bad-pointer
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_plx.h"

static const GUID HazelFace = { 0x7b3d91ec, 0x04f8, 0x4a2e, { 0xaf, 0x70, 0x26, 0x5b, 0xd4, 0x89, 0x13, 0xe0 } };

#define IOCTL_HAZEL_APPEND  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8b8, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_HAZEL_GET     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8b9, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_HAZEL_CLEAR   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8ba, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_HAZEL_RESTORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8bb, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define HAZEL_TAG 'lzaH'
#define HAZEL_MAGIC 0x6c7a6148u
#define HAZEL_MOST 64

typedef struct _HAZEL_RECORD {
    ULONG Words[8];
} HAZEL_RECORD;

/* In the window: magic, number of records, six words for later, records. */
#define HAZEL_AT_MAGIC 0
#define HAZEL_AT_COUNT 4
#define HAZEL_AT_RECORD(i) (32 + (i) * (ULONG)sizeof(HAZEL_RECORD))

typedef struct _HAZEL {
    STATION St;
    FAST_MUTEX Journal;
    BOOLEAN Ready;              /* these two under the lane's lock */
    BOOLEAN Mapped;
    PLX_WINDOW Window;
    ULONG Records;              /* that the window has room for */
    HAZEL_RECORD *Copy;         /* of HAZEL_MOST */
} HAZEL;

static BOOLEAN HazelPeek(HAZEL *h, ULONG Offset, ULONG *Value)
{
    BOOLEAN ready;
    KIRQL irql;

    KeAcquireSpinLock(&h->St.Lane.Lock, &irql);
    ready = h->Ready;
    if (ready)
        *Value = plx_peek(&h->Window, Offset);
    KeReleaseSpinLock(&h->St.Lane.Lock, irql);
    return ready;
}

static BOOLEAN HazelPoke(HAZEL *h, ULONG Offset, ULONG Value)
{
    BOOLEAN ready;
    KIRQL irql;

    KeAcquireSpinLock(&h->St.Lane.Lock, &irql);
    ready = h->Ready;
    if (ready)
        plx_poke(&h->Window, Offset, Value);
    KeReleaseSpinLock(&h->St.Lane.Lock, irql);
    return ready;
}

static NTSTATUS HazelCount(HAZEL *h, ULONG *Count)
{
    if (!HazelPeek(h, HAZEL_AT_COUNT, Count))
        return STATUS_DEVICE_NOT_READY;
#ifdef FIXED
    if (*Count > h->Records)
        return STATUS_DISK_CORRUPT_ERROR;
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS HazelAppend(HAZEL *h, const HAZEL_RECORD *Record)
{
    ULONG count, i;
    NTSTATUS status = HazelCount(h, &count);

    if (!NT_SUCCESS(status))
        return status;
    if (count >= h->Records)
        return STATUS_DISK_FULL;
    for (i = 0; i < 8; i++)
        if (!HazelPoke(h, HAZEL_AT_RECORD(count) + i * 4, Record->Words[i]))
            return STATUS_DEVICE_NOT_READY;
    return HazelPoke(h, HAZEL_AT_COUNT, count + 1) ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
}

/* All are copied first, so that those that are handed out belong together. */
static NTSTATUS HazelGet(HAZEL *h, PVOID Out, ULONG Room, ULONG_PTR *Information)
{
    ULONG count, i, w, n;
    NTSTATUS status = HazelCount(h, &count);

    if (!NT_SUCCESS(status))
        return status;
    for (i = 0; i < count; i++)
        for (w = 0; w < 8; w++)
            if (!HazelPeek(h, HAZEL_AT_RECORD(i) + w * 4, &h->Copy[i].Words[w]))
                return STATUS_DEVICE_NOT_READY;
    n = Room / sizeof(HAZEL_RECORD);
    if (n < count)
        status = STATUS_BUFFER_OVERFLOW;
    else
        n = count;
    if (n != 0)
        RtlCopyMemory(Out, h->Copy, n * sizeof(HAZEL_RECORD));
    *Information = n * sizeof(HAZEL_RECORD);
    return status;
}

static NTSTATUS HazelClear(HAZEL *h)
{
    return HazelPoke(h, HAZEL_AT_MAGIC, HAZEL_MAGIC) && HazelPoke(h, HAZEL_AT_COUNT, 0) ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
}

static NTSTATUS HazelRestore(HAZEL *h, const ULONG *Image, ULONG Bytes)
{
    ULONG i;

    if (Bytes < HAZEL_AT_RECORD(0) || Bytes % sizeof(ULONG) != 0 || Bytes > HAZEL_AT_RECORD(h->Records) || Image[0] != HAZEL_MAGIC)
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < Bytes / sizeof(ULONG); i++)
        if (!HazelPoke(h, i * sizeof(ULONG), Image[i]))
            return STATUS_DEVICE_NOT_READY;
    return STATUS_SUCCESS;
}

static NTSTATUS HazelPrepare(STATION *St)
{
    HAZEL *h = CONTAINING_RECORD(St, HAZEL, St);

    ExInitializeFastMutex(&h->Journal);
    h->Copy = ExAllocatePoolWithTag(NonPagedPoolNx, HAZEL_MOST * sizeof(HAZEL_RECORD), HAZEL_TAG);
    return h->Copy != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID HazelDispose(STATION *St)
{
    ExFreePoolWithTag(CONTAINING_RECORD(St, HAZEL, St)->Copy, HAZEL_TAG);
}

/* Memory that holds no journal, as on a new board, gets an empty one. */
static VOID HazelWake(STATION *St)
{
    HAZEL *h = CONTAINING_RECORD(St, HAZEL, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    if (h->Mapped) {
        if (plx_peek(&h->Window, HAZEL_AT_MAGIC) != HAZEL_MAGIC) {
            plx_poke(&h->Window, HAZEL_AT_COUNT, 0);
            plx_poke(&h->Window, HAZEL_AT_MAGIC, HAZEL_MAGIC);
        }
        h->Ready = TRUE;
    }
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static VOID HazelSleep(STATION *St)
{
    HAZEL *h = CONTAINING_RECORD(St, HAZEL, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    h->Ready = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static NTSTATUS HazelEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    HAZEL *h = CONTAINING_RECORD(St, HAZEL, St);
    NTSTATUS status = plx_open(Translated, &h->Window);
    ULONG records;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    if (h->Window.Bytes < HAZEL_AT_RECORD(1)) {
        plx_shut(&h->Window);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    records = (h->Window.Bytes - HAZEL_AT_RECORD(0)) / sizeof(HAZEL_RECORD);
    ExAcquireFastMutex(&h->Journal);
    h->Records = records < HAZEL_MOST ? records : HAZEL_MOST;
    ExReleaseFastMutex(&h->Journal);
    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    h->Mapped = TRUE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    HazelWake(St);
    return STATUS_SUCCESS;
}

static VOID HazelRelease(STATION *St, BOOLEAN Present)
{
    HAZEL *h = CONTAINING_RECORD(St, HAZEL, St);
    KIRQL irql;

    UNREFERENCED_PARAMETER(Present);
    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    h->Ready = FALSE;
    h->Mapped = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    plx_shut(&h->Window);
}

static NTSTATUS HazelServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    HAZEL *h = CONTAINING_RECORD(St, HAZEL, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    ExAcquireFastMutex(&h->Journal);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HAZEL_APPEND:
        status = in == sizeof(HAZEL_RECORD) ? HazelAppend(h, buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_HAZEL_GET:
        status = HazelGet(h, buffer, out, &Irp->IoStatus.Information);
        break;
    case IOCTL_HAZEL_CLEAR:
        status = HazelClear(h);
        break;
    case IOCTL_HAZEL_RESTORE:
        status = HazelRestore(h, buffer, in);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&h->Journal);
    return status;
}

static const DUTIES HazelDuties = {
    .Bytes = sizeof(HAZEL), .Face = &HazelFace, .Prepare = HazelPrepare, .Dispose = HazelDispose, .Engage = HazelEngage,
    .Release = HazelRelease, .Sleep = HazelSleep, .Wake = HazelWake, .Serve = HazelServe,
};

STATION_DRIVER(HazelDuties)
