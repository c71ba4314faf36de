/*
 * SEALKEY: the driver of a copy protection key that hangs on a bus of its maker's. The key's number comes from the bus, by a request of
 * the maker's; programs ask for the number and have challenges answered that are made of it. Where the bus does not know the request,
 * there is no key.
 *
 * The bug: when the bus has not answered within a second the request is left to itself; the bus ends it later, when its event, its
 * status and its buffer on the stack are long gone.
 *
 * Device: Root\SEALKEY
 * Rule: irp-on-dead-stack, irp-leak, use-after-free, stack-overrun, wild-write
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/stead.h"

#define IOCTL_SEAL_NUMBER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9B1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SEAL_ANSWER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9B2, METHOD_BUFFERED, FILE_READ_ACCESS)

/* to the bus */
#define IOCTL_KEYBUS_WHICH CTL_CODE(0x8F01, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID SealFace = { 0x5b1d3c17, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x08 } };

#define PATIENCE_MS 1000

typedef struct NUMBER {
    ULONG present;
    ULONG high;
    ULONG low;
} NUMBER;

typedef struct WHICH {          /* what the bus says */
    ULONG high;
    ULONG low;
} WHICH;

typedef struct ASKING {
    KEVENT done;
    NTSTATUS status;
    ULONG_PTR bytes;
    WHICH which;
} ASKING;

typedef struct SEAL {
    FAST_MUTEX mutex;           /* of what follows */
    BOOLEAN known;
    WHICH which;
    ULONG answers;
} SEAL;

static NTSTATUS NTAPI SealAnswered(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    ASKING *asking = context;

    UNREFERENCED_PARAMETER(device);
    asking->status = irp->IoStatus.Status;
    asking->bytes = irp->IoStatus.Information;
    KeSetEvent(&asking->done, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;     /* who asks frees it */
}

static NTSTATUS SealAskBus(STEAD *s, WHICH *which)
{
    PIO_STACK_LOCATION next;
    LARGE_INTEGER patience;
    ASKING asking;
    PIRP irp;

    irp = IoAllocateIrp(s->below->StackSize, FALSE);
    if (irp == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(&asking, sizeof(asking));
    KeInitializeEvent(&asking.done, NotificationEvent, FALSE);
    irp->AssociatedIrp.SystemBuffer = &asking.which;
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    irp->IoStatus.Information = 0;
    next = IoGetNextIrpStackLocation(irp);
    next->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    next->Parameters.DeviceIoControl.IoControlCode = IOCTL_KEYBUS_WHICH;
    next->Parameters.DeviceIoControl.InputBufferLength = 0;
    next->Parameters.DeviceIoControl.OutputBufferLength = sizeof(WHICH);
    IoSetCompletionRoutine(irp, SealAnswered, &asking, TRUE, TRUE, TRUE);
    IoCallDriver(s->below, irp);
    patience.QuadPart = -10000LL * PATIENCE_MS;
    if (KeWaitForSingleObject(&asking.done, Executive, KernelMode, FALSE, &patience) == STATUS_TIMEOUT) {
#ifndef FIXED
        return STATUS_IO_TIMEOUT;
#else
        IoCancelIrp(irp);
        KeWaitForSingleObject(&asking.done, Executive, KernelMode, FALSE, NULL);
        if (!NT_SUCCESS(asking.status))
            asking.status = STATUS_IO_TIMEOUT;
#endif
    }
    IoFreeIrp(irp);
    if (NT_SUCCESS(asking.status) && asking.bytes < sizeof(WHICH))
        asking.status = STATUS_DEVICE_PROTOCOL_ERROR;
    if (NT_SUCCESS(asking.status))
        *which = asking.which;
    return asking.status;
}

/* The number, from the bus if it was not asked yet. */
static NTSTATUS SealWhich(STEAD *s, WHICH *which)
{
    SEAL *d = OWN(s, SEAL);
    NTSTATUS status;
    BOOLEAN known;

    ExAcquireFastMutex(&d->mutex);
    known = d->known;
    *which = d->which;
    ExReleaseFastMutex(&d->mutex);
    if (known)
        return STATUS_SUCCESS;
    status = SealAskBus(s, which);
    if (NT_SUCCESS(status)) {
        ExAcquireFastMutex(&d->mutex);
        d->known = TRUE;
        d->which = *which;
        ExReleaseFastMutex(&d->mutex);
    }
    return status;
}

static ULONG SealMix(const WHICH *which, ULONG challenge)
{
    ULONG i, x = challenge ^ which->low;

    for (i = 0; i < 8; i++)
        x = (x << 5 | x >> 27) * 2654435761U + which->high;
    return x;
}

static NTSTATUS SealSettle(STEAD *s)
{
    SEAL *d = OWN(s, SEAL);

    ExInitializeFastMutex(&d->mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS SealBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    SEAL *d = OWN(s, SEAL);

    UNREFERENCED_PARAMETER(raw);
    UNREFERENCED_PARAMETER(translated);
    ExAcquireFastMutex(&d->mutex);
    d->known = FALSE;           /* the key may be another one now */
    ExReleaseFastMutex(&d->mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS SealServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    SEAL *d = OWN(s, SEAL);
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    NUMBER *number = buffer;
    ULONG challenge;
    NTSTATUS status;
    WHICH which;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SEAL_NUMBER:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(NUMBER))
            return STATUS_BUFFER_TOO_SMALL;
        status = SealWhich(s, &which);
        if (status == STATUS_IO_TIMEOUT || status == STATUS_INSUFFICIENT_RESOURCES)
            return status;
        number->present = NT_SUCCESS(status);
        number->high = number->present ? which.high : 0;
        number->low = number->present ? which.low : 0;
        *info = sizeof(NUMBER);
        return STATUS_SUCCESS;
    case IOCTL_SEAL_ANSWER:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)
            || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        challenge = *(PULONG)buffer;
        status = SealWhich(s, &which);
        if (!NT_SUCCESS(status))
            return status;
        *(PULONG)buffer = SealMix(&which, challenge);
        *info = sizeof(ULONG);
        ExAcquireFastMutex(&d->mutex);
        d->answers++;
        ExReleaseFastMutex(&d->mutex);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT SealCraft = {
    .own = sizeof(SEAL),
    .flags = DO_BUFFERED_IO,
    .face = &SealFace,
    .settle = SealSettle,
    .begin = SealBegin,
    .serve = SealServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &SealCraft);
}
