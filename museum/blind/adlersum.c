/*
 * adlersum: Adler-32 sums of buffers of a program, without copying them: IOCTL_ADLER (METHOD_NEITHER) locks the input buffer, sums it up and puts the
 * sum into the output buffer.
 *
 * The bug: when locking the caller's pages raises an exception the handler returns the error and forgets the MDL: every request with a bad address
 * costs its size in nonpaged pool until the machine has none left.
 *
 * Device: none
 * Rule: pool-leak, locked-pages-leak
 * Needs: ioctl
 * Compiler: clang
 */
#include "../include/try.h"
#include "../include/framed_by_calls.h"

#define IOCTL_ADLER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_ADLER_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define LINK L"\\DosDevices\\AdlerSum"
#define MAX_BYTES (8u * 1024 * 1024)
#define PRIME 65521u
#define RUN 5552u               /* so many bytes and no 32-bit overflow before the sums are reduced */

typedef struct _COUNTS {
    ULONGLONG Requests, Refused, Bytes;
} COUNTS;

typedef struct _DEV {
    PDEVICE_OBJECT Self;
    KSPIN_LOCK Lock;
    COUNTS Counts;
} DEV;

static DEV *TheDev;

static ULONG Adler(const volatile UCHAR *p, ULONG len)
{
    ULONG a = 1, b = 0, n;

    while (len) {
        n = len < RUN ? len : RUN;
        len -= n;
        while (n--) {
            a += *p++;
            b += a;
        }
        a %= PRIME;
        b %= PRIME;
    }
    return b << 16 | a;
}

/* The caller's pages stay locked while they are summed up, so that no exception can come from them (I/O errors of a mapped file included). */
static NTSTATUS SumUser(PVOID from, ULONG len, KPROCESSOR_MODE mode, PULONG sum)
{
    NTSTATUS st = STATUS_SUCCESS;
    PUCHAR p;
    PMDL mdl;

    if (!len) {
        *sum = Adler(NULL, 0);
        return STATUS_SUCCESS;
    }
    mdl = IoAllocateMdl(from, len, FALSE, FALSE, NULL);
    if (!mdl)
        return STATUS_INSUFFICIENT_RESOURCES;
    __try {
        MmProbeAndLockPages(mdl, mode, IoReadAccess);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        st = STATUS_ACCESS_VIOLATION;
    }
    if (!NT_SUCCESS(st)) {
#ifdef FIXED
        IoFreeMdl(mdl);
#endif
        return st;
    }
    p = MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority);
    if (p)
        *sum = Adler(p, len);
    else
        st = STATUS_INSUFFICIENT_RESOURCES;
    MmUnlockPages(mdl);
    IoFreeMdl(mdl);
    return st;
}

static NTSTATUS PutUser(PVOID to, ULONG sum, KPROCESSOR_MODE mode)
{
    NTSTATUS st = STATUS_SUCCESS;

    __try {
        if (mode != KernelMode)
            ProbeForWrite(to, sizeof(sum), 1);
        RtlCopyMemory(to, &sum, sizeof(sum));
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        st = STATUS_ACCESS_VIOLATION;
    }
    return st;
}

static NTSTATUS SumRequest(DEV *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    ULONG len = sp->Parameters.DeviceIoControl.InputBufferLength, sum = 0;
    NTSTATUS st;
    KIRQL irql;

    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(sum))
        st = STATUS_BUFFER_TOO_SMALL;
    else if (len > MAX_BYTES)
        st = STATUS_INVALID_BUFFER_SIZE;
    else
        st = SumUser(sp->Parameters.DeviceIoControl.Type3InputBuffer, len, irp->RequestorMode, &sum);
    if (NT_SUCCESS(st))
        st = PutUser(irp->UserBuffer, sum, irp->RequestorMode);

    KeAcquireSpinLock(&d->Lock, &irql);
    d->Counts.Requests++;
    if (NT_SUCCESS(st))
        d->Counts.Bytes += len;
    else
        d->Counts.Refused++;
    KeReleaseSpinLock(&d->Lock, irql);
    return EeDone(irp, st, NT_SUCCESS(st) ? sizeof(sum) : 0);
}

static NTSTATUS CountsRequest(DEV *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    COUNTS now;
    KIRQL irql;

    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(now))
        return EeDone(irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&d->Lock, &irql);
    now = d->Counts;
    KeReleaseSpinLock(&d->Lock, irql);
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &now, sizeof(now));
    return EeDone(irp, STATUS_SUCCESS, sizeof(now));
}

/* There is no driver above a control device: METHOD_NEITHER requests come in the caller's process, at PASSIVE_LEVEL. */
static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    DEV *d = dev->DeviceExtension;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ADLER:
        return SumRequest(d, irp, sp);
    case IOCTL_ADLER_COUNTS:
        return CountsRequest(d, irp, sp);
    default:
        return EeDone(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
    EeControlGone(TheDev->Self, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    NTSTATUS st;

    UNREFERENCED_PARAMETER(path);
    st = EeControl(drv, L"\\Device\\AdlerSum", LINK, sizeof(DEV), 0, &dev);
    if (!NT_SUCCESS(st))
        return st;
    TheDev = dev->DeviceExtension;
    RtlZeroMemory(TheDev, sizeof(*TheDev));
    TheDev->Self = dev;
    KeInitializeSpinLock(&TheDev->Lock);
    drv->DriverUnload = Unload;
    drv->MajorFunction[IRP_MJ_CREATE] = EeOk;
    drv->MajorFunction[IRP_MJ_CLOSE] = EeOk;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
