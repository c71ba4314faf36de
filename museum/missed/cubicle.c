/*
 * CUBICLE: sixteen scratch cubicles of one kilobyte, one for each open handle of \\.\Cubicle. A handle writes and reads its cubicle at
 * byte offsets like a small file; reading ends at the furthest byte written. IOCTL_TRUNCATE shortens it, IOCTL_STAT tells its length.
 *
 * The bug: writing beyond the furthest byte written leaves the gap as it is; it can then be read and holds what an earlier owner of the
 * cubicle has written there.
 *
 * Device: none
 * Rule: bytes of an earlier handle given to a later one (gap behind the end of the data not zeroed)
 * Needs: ioctl
 */
#include "../include/quay_base.h"

#define CUBICLES    16
#define ROOM        1024

#define IOCTL_TRUNCATE  AI_CTL(0, METHOD_BUFFERED)      /* in: ULONG length */
#define IOCTL_STAT      AI_CTL(1, METHOD_BUFFERED)      /* out: ULONG length, ULONG room */

typedef struct _BOOTH {
    FAST_MUTEX Mutex;               /* Used, Data */
    BOOLEAN Taken;                  /* the hall's mutex */
    ULONG Used;
    UCHAR Data[ROOM];
} BOOTH;

typedef struct _HALL {
    FAST_MUTEX Mutex;
    BOOTH Booths[CUBICLES];
} HALL;

static PDEVICE_OBJECT Device;

static NTSTATUS NTAPI Create(PDEVICE_OBJECT dev, PIRP irp)
{
    HALL *h = dev->DeviceExtension;
    BOOTH *b = NULL;
    ULONG i;

    ExAcquireFastMutex(&h->Mutex);
    for (i = 0; i < CUBICLES; i++) {
        if (!h->Booths[i].Taken) {
            b = &h->Booths[i];
            b->Taken = TRUE;
            break;
        }
    }
    ExReleaseFastMutex(&h->Mutex);
    if (!b)
        return AiDone(irp, STATUS_TOO_MANY_OPENED_FILES, 0);
    b->Used = 0;
    AiStack(irp)->FileObject->FsContext = b;
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT dev, PIRP irp)
{
    HALL *h = dev->DeviceExtension;
    BOOTH *b = AiStack(irp)->FileObject->FsContext;

    ExAcquireFastMutex(&h->Mutex);
    b->Taken = FALSE;
    ExReleaseFastMutex(&h->Mutex);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

/* a handle opened for synchronous use has a position of its own */
static VOID Advance(PFILE_OBJECT file, ULONG to)
{
    if (file->Flags & FO_SYNCHRONOUS_IO)
        file->CurrentByteOffset.QuadPart = to;
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sl = AiStack(irp);
    BOOTH *b = sl->FileObject->FsContext;
    LARGE_INTEGER at = sl->Parameters.Read.ByteOffset;
    ULONG n = sl->Parameters.Read.Length;
    NTSTATUS s = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(dev);
    if (at.QuadPart < 0)
        return AiDone(irp, STATUS_INVALID_PARAMETER, 0);
    if (n == 0)
        return AiDone(irp, STATUS_SUCCESS, 0);
    ExAcquireFastMutex(&b->Mutex);
    if (at.QuadPart >= (LONGLONG)b->Used) {
        s = STATUS_END_OF_FILE;
        n = 0;
    } else {
        if (n > b->Used - at.LowPart)
            n = b->Used - at.LowPart;
        RtlCopyMemory(AiBuffer(irp), b->Data + at.LowPart, n);
        Advance(sl->FileObject, at.LowPart + n);
    }
    ExReleaseFastMutex(&b->Mutex);
    return AiDone(irp, s, n);
}

static NTSTATUS NTAPI Write(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sl = AiStack(irp);
    BOOTH *b = sl->FileObject->FsContext;
    LARGE_INTEGER at = sl->Parameters.Write.ByteOffset;
    ULONG n = sl->Parameters.Write.Length;

    UNREFERENCED_PARAMETER(dev);
    if (at.QuadPart < 0)
        return AiDone(irp, STATUS_INVALID_PARAMETER, 0);
    if (n == 0)
        return AiDone(irp, STATUS_SUCCESS, 0);
    if (at.QuadPart >= ROOM || n > ROOM - at.LowPart)
        return AiDone(irp, STATUS_DISK_FULL, 0);
    ExAcquireFastMutex(&b->Mutex);
#ifdef FIXED
    if (at.LowPart > b->Used)
        RtlZeroMemory(b->Data + b->Used, at.LowPart - b->Used);
#endif
    RtlCopyMemory(b->Data + at.LowPart, AiBuffer(irp), n);
    if (at.LowPart + n > b->Used)
        b->Used = at.LowPart + n;
    Advance(sl->FileObject, at.LowPart + n);
    ExReleaseFastMutex(&b->Mutex);
    return AiDone(irp, STATUS_SUCCESS, n);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    BOOTH *b = AiStack(irp)->FileObject->FsContext;
    PULONG v = AiBuffer(irp);

    UNREFERENCED_PARAMETER(dev);
    switch (AiCode(irp)) {
    case IOCTL_TRUNCATE:
        if (AiInLen(irp) < sizeof(ULONG))
            return AiDone(irp, STATUS_INVALID_PARAMETER, 0);
        ExAcquireFastMutex(&b->Mutex);
        if (v[0] < b->Used)
            b->Used = v[0];
        ExReleaseFastMutex(&b->Mutex);
        return AiDone(irp, STATUS_SUCCESS, 0);

    case IOCTL_STAT:
        if (AiOutLen(irp) < 2 * sizeof(ULONG))
            return AiDone(irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&b->Mutex);
        v[0] = b->Used;
        ExReleaseFastMutex(&b->Mutex);
        v[1] = ROOM;
        return AiDone(irp, STATUS_SUCCESS, 2 * sizeof(ULONG));

    default:
        return AiDone(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
    AiDropControl(Device, L"\\DosDevices\\Cubicle");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    NTSTATUS s;
    HALL *h;
    ULONG i;

    UNREFERENCED_PARAMETER(path);
    drv->MajorFunction[IRP_MJ_CREATE] = Create;
    drv->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    drv->MajorFunction[IRP_MJ_CLOSE] = Close;
    drv->MajorFunction[IRP_MJ_READ] = Read;
    drv->MajorFunction[IRP_MJ_WRITE] = Write;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    drv->DriverUnload = Unload;
    s = AiMakeControl(drv, sizeof(HALL), L"\\Device\\Cubicle", L"\\DosDevices\\Cubicle", &Device);
    if (!NT_SUCCESS(s))
        return s;
    /* no one can open the device before DriverEntry is through */
    h = Device->DeviceExtension;
    ExInitializeFastMutex(&h->Mutex);
    for (i = 0; i < CUBICLES; i++)
        ExInitializeFastMutex(&h->Booths[i].Mutex);
    Device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}
