/*
 * locket: a root-enumerated store for secrets. Each open file has a locket of its own into which its program puts
 * a secret; later it asks whether a text is the same, with a slow comparison. The locket goes with the file.
 *
 * The bug: the file's locket is freed when its last handle is closed (cleanup), while requests of other threads on
 * that file may still be at work with it; it ought to be freed at close.
 *
 * Device: ROOT\LOCKET
 * Rule: use-after-free
 * Needs: schedule
 */
#define FRAME_NO_HARDWARE
#include "../include/caller_frame.h"

#define IOCTL_LOCKET_PUT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LOCKET_MATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define TAG 'tkcL'
#define LONGEST 256

typedef struct _LOCKET {
    FAST_MUTEX Mutex;
    ULONG Length;
    ULONG Tries;
    UCHAR Secret[LONGEST];
} LOCKET, *PLOCKET;

static const GUID LocketClass = {0x6c1e2a04, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x04}};

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    UNREFERENCED_PARAMETER(dev);        /* nothing waits */
}

static NTSTATUS Put(PLOCKET l, PUCHAR text, ULONG length)
{
    if (length == 0 || length > LONGEST)
        return STATUS_INVALID_BUFFER_SIZE;
    ExAcquireFastMutex(&l->Mutex);
    RtlZeroMemory(l->Secret, sizeof l->Secret);
    RtlCopyMemory(l->Secret, text, length);
    l->Length = length;
    l->Tries = 0;
    ExReleaseFastMutex(&l->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS Match(PLOCKET l, PUCHAR text, ULONG length, PULONG same)
{
    UCHAR padded[LONGEST];
    LARGE_INTEGER pause;
    ULONG i, different, tries;

    if (length == 0 || length > LONGEST)
        return STATUS_INVALID_BUFFER_SIZE;
    RtlZeroMemory(padded, sizeof padded);
    RtlCopyMemory(padded, text, length);

    ExAcquireFastMutex(&l->Mutex);
    tries = ++l->Tries;
    ExReleaseFastMutex(&l->Mutex);
    /* Guessers are made to wait, the longer the more they guess. */
    pause.QuadPart = -10000LL * (tries < 50 ? tries : 50);
    KeDelayExecutionThread(KernelMode, FALSE, &pause);

    ExAcquireFastMutex(&l->Mutex);
    different = l->Length ^ length;
    for (i = 0; i < LONGEST; i++)
        different |= (ULONG)(l->Secret[i] ^ padded[i]);
    if (l->Length != 0 && different == 0)
        l->Tries = 0;
    *same = l->Length != 0 && different == 0;
    ExReleaseFastMutex(&l->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI LocketControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PFRAME f = FR(dev);
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    PLOCKET l = stack->FileObject->FsContext;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength, same;
    ULONG_PTR info = 0;
    NTSTATUS status = IoAcquireRemoveLock(&f->Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (f->Gone) {
        status = STATUS_DELETE_PENDING;
    } else switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LOCKET_PUT:
        status = Put(l, buffer, in);
        break;
    case IOCTL_LOCKET_MATCH:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof same) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = Match(l, buffer, in, &same);
        if (NT_SUCCESS(status)) {
            *(PULONG)buffer = same;
            info = sizeof same;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    FrameComplete(irp, status, info);
    IoReleaseRemoveLock(&f->Remove, irp);
    return status;
}

static VOID FreeLocket(PFILE_OBJECT file)
{
    PLOCKET l = file->FsContext;

    RtlSecureZeroMemory(l->Secret, sizeof l->Secret);
    ExFreePoolWithTag(l, TAG);
}

static NTSTATUS NTAPI LocketCreate(PDEVICE_OBJECT dev, PIRP irp)
{
    PFRAME f = FR(dev);
    PLOCKET l;
    NTSTATUS status = IoAcquireRemoveLock(&f->Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (f->Gone) {
        status = STATUS_DELETE_PENDING;
    } else {
        l = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *l, TAG);
        if (l == NULL) {
            status = STATUS_INSUFFICIENT_RESOURCES;
        } else {
            RtlZeroMemory(l, sizeof *l);
            ExInitializeFastMutex(&l->Mutex);
            IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext = l;
        }
    }
    FrameComplete(irp, status, 0);
    IoReleaseRemoveLock(&f->Remove, irp);
    return status;
}

static NTSTATUS NTAPI LocketCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
#ifndef FIXED
    FreeLocket(IoGetCurrentIrpStackLocation(irp)->FileObject);
#endif
    return FrameComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LocketClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
#ifdef FIXED
    FreeLocket(IoGetCurrentIrpStackLocation(irp)->FileObject);
#endif
    return FrameComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LocketAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status = FrameAdd(driver, pdo, &LocketClass, sizeof(FRAME), DO_BUFFERED_IO, &dev);

    if (NT_SUCCESS(status))
        dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, LocketAdd);
    driver->MajorFunction[IRP_MJ_CREATE] = LocketCreate;
    driver->MajorFunction[IRP_MJ_CLEANUP] = LocketCleanup;
    driver->MajorFunction[IRP_MJ_CLOSE] = LocketClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LocketControl;
    return STATUS_SUCCESS;
}
