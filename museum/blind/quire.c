/*
 * quire: a root-enumerated driver that keeps eight pages of settings for the parts of a label printer's software. A page
 * is written whole and read by anybody; a program may wait until a page is written again (IOCTL_QUIRE_WATCH, pending).
 *
 * The bug: the request that reads a page answers as many bytes as the output buffer has, however short the page is: the
 * application gets what lay in the system buffer behind it.
 *
 * Device: ROOT\QUIRE
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define TAG 'riuQ'

#define IOCTL_QUIRE_WRITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8d0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_QUIRE_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8d1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_QUIRE_WATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8d2, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_QUIRE_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8d3, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PAGES 8
#define LARGEST_PAGE 2048

static const GUID QuireInterface = {0x71c4e3d8, 0x6a0f, 0x4e92, {0x8c, 0x55, 0xd0, 0x39, 0x12, 0xbb, 0x67, 0x05}};

typedef struct QUIRE_PAGE {             /* of _READ and _WATCH; of _WRITE with the page's bytes behind it */
    ULONG Page;
} QUIRE_PAGE;

typedef struct QUIRE_ENTRY {            /* of _LIST, one per page */
    ULONG Bytes;
    ULONG Version;                      /* how often it has been written */
} QUIRE_ENTRY;

typedef struct PAGE {
    ULONG Bytes;
    ULONG Version;
    PUCHAR Data;
} PAGE;

typedef struct QUIRE {
    FRAME F;
    FAST_MUTEX Mutex;                   /* guards the pages */
    PAGE Pages[PAGES];
    RQ Watchers[PAGES];
} QUIRE;

static NTSTATUS WritePage(QUIRE *q, ULONG Page, PVOID Bytes, ULONG Count)
{
    PUCHAR data = NULL, old;

    if (Count > LARGEST_PAGE)
        return STATUS_INVALID_BUFFER_SIZE;
    if (Count) {
        data = ExAllocatePoolWithTag(PagedPool, Count, TAG);
        if (!data)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlCopyMemory(data, Bytes, Count);
    }
    ExAcquireFastMutex(&q->Mutex);
    old = q->Pages[Page].Data;
    q->Pages[Page].Data = data;
    q->Pages[Page].Bytes = Count;
    q->Pages[Page].Version++;
    ExReleaseFastMutex(&q->Mutex);
    if (old)
        ExFreePoolWithTag(old, TAG);
    RqFlush(&q->Watchers[Page], NULL, STATUS_SUCCESS);
    return STATUS_SUCCESS;
}

static NTSTATUS ReadPage(QUIRE *q, ULONG Page, PVOID Buffer, ULONG Room, PULONG Stored)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG count;

    ExAcquireFastMutex(&q->Mutex);
    count = q->Pages[Page].Bytes;
    if (count > Room)
        status = STATUS_BUFFER_TOO_SMALL;
    else if (count)
        RtlCopyMemory(Buffer, q->Pages[Page].Data, count);
    ExReleaseFastMutex(&q->Mutex);
#ifdef FIXED
    *Stored = NT_SUCCESS(status) ? count : 0;
#else
    *Stored = NT_SUCCESS(status) ? Room : 0;
#endif
    return status;
}

static void List(QUIRE *q, QUIRE_ENTRY *To)
{
    ULONG i;

    ExAcquireFastMutex(&q->Mutex);
    for (i = 0; i < PAGES; i++) {
        To[i].Bytes = q->Pages[i].Bytes;
        To[i].Version = q->Pages[i].Version;
    }
    ExReleaseFastMutex(&q->Mutex);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = s->Parameters.DeviceIoControl.IoControlCode, page = 0, done = 0;
    QUIRE_PAGE *request = Irp->AssociatedIrp.SystemBuffer;
    QUIRE *q = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&q->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    if (code == IOCTL_QUIRE_WRITE || code == IOCTL_QUIRE_READ || code == IOCTL_QUIRE_WATCH) {
        if (in < sizeof *request) {
            status = STATUS_BUFFER_TOO_SMALL;
            goto out;
        }
        page = request->Page;
        if (page >= PAGES) {
            status = STATUS_INVALID_PARAMETER;
            goto out;
        }
    }
    switch (code) {
    case IOCTL_QUIRE_WRITE:
        status = WritePage(q, page, request + 1, in - sizeof *request);
        break;

    case IOCTL_QUIRE_READ:
        status = ReadPage(q, page, request, out, &done);
        break;

    case IOCTL_QUIRE_WATCH:
        status = RqPut(&q->Watchers[page], Irp);
        IoReleaseRemoveLock(&q->F.RemoveLock, Irp);
        return status;

    case IOCTL_QUIRE_LIST:
        if (out < PAGES * sizeof(QUIRE_ENTRY)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        List(q, Irp->AssociatedIrp.SystemBuffer);
        done = PAGES * sizeof(QUIRE_ENTRY);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
out:
    Done(Irp, status, done);
    IoReleaseRemoveLock(&q->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    QUIRE *q = Device->DeviceExtension;
    ULONG i;

    for (i = 0; i < PAGES; i++)
        RqFlush(&q->Watchers[i], IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Init(FRAME *f)
{
    QUIRE *q = (QUIRE *)f;
    ULONG i;

    ExInitializeFastMutex(&q->Mutex);
    for (i = 0; i < PAGES; i++)
        RqInit(&q->Watchers[i]);
    return STATUS_SUCCESS;
}

static void Gone(FRAME *f)
{
    QUIRE *q = (QUIRE *)f;
    ULONG i;

    for (i = 0; i < PAGES; i++)
        RqShut(&q->Watchers[i], STATUS_DELETE_PENDING);
}

static void Free(FRAME *f)
{
    QUIRE *q = (QUIRE *)f;
    ULONG i;

    for (i = 0; i < PAGES; i++)
        if (q->Pages[i].Data)
            ExFreePoolWithTag(q->Pages[i].Data, TAG);
}

static const FRAME_OPS Ops = { .Init = Init, .Gone = Gone, .Free = Free };

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(QUIRE), &QuireInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
