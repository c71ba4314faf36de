/*
 * STORMLOG: a weather station's counter card: rain and lightning pulses, which it counts itself, and an interrupt per lightning. The
 * station has a name that a program gives it and that all others read.
 *
 * The bug: the name's length is put into the 16 bits of a UNICODE_STRING before memory for it is allocated; of a name of 64 KiB or
 * more only the rest is allocated, and all of it copied.
 *
 * Device: PCI\VEN_1D5A&DEV_0133
 * Rule: pool-overrun, pool-zero-bytes, bad-pointer, wild-write, zero-bytes
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_STORM_SET_NAME CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STORM_GET_NAME CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA02, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_STORM_COUNTS   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA03, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID StormFace = { 0x5b1d3c1c, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x0D } };

#define REG_RAIN   0x00
#define REG_FLASH  0x04
#define REG_CAUSE  0x08         /* ones clear */
#define REG_ENABLE 0x0C
#define REG_BYTES  0x10

#define CAUSES 0xFFFF

typedef struct COUNTS {
    ULONG rain;
    ULONG flashes;
    ULONG interrupts;
} COUNTS;

typedef struct STORM {
    CARD card;
    WINDOW *regs;
    LONG interrupts;
    FAST_MUTEX mutex;
    UNICODE_STRING name;
} STORM;

static BOOLEAN StormIsr(PVOID context)
{
    STORM *d = context;
    ULONG cause = CardGet(d->regs, REG_CAUSE);

    if (cause == 0xFFFFFFFF || cause == 0)
        return FALSE;
    CardPut(d->regs, REG_CAUSE, cause);
    InterlockedIncrement(&d->interrupts);
    return TRUE;
}

/* Some of these cards are strapped without an interrupt: the counters do as well. */
static VOID StormListen(STORM *d, BOOLEAN on)
{
    CardPut(d->regs, REG_ENABLE, on && d->card.irq != NULL ? CAUSES : 0);
    CardGet(d->regs, REG_ENABLE);
}

static NTSTATUS StormSetName(STORM *d, const WCHAR *in, ULONG length)
{
    UNICODE_STRING fresh, old;

    if ((length & 1) != 0)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (length > 0xFFFC)
        return STATUS_NAME_TOO_LONG;
#endif
    fresh.Length = (USHORT)length;
    fresh.MaximumLength = (USHORT)(length + sizeof(WCHAR));
    fresh.Buffer = ExAllocatePoolWithTag(PagedPool, fresh.MaximumLength, TAG_AC);
    if (fresh.Buffer == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (length != 0)
        RtlCopyMemory(fresh.Buffer, in, length);
    fresh.Buffer[length / sizeof(WCHAR)] = 0;
    ExAcquireFastMutex(&d->mutex);
    old = d->name;
    d->name = fresh;
    ExReleaseFastMutex(&d->mutex);
    if (old.Buffer != NULL)
        ExFreePoolWithTag(old.Buffer, TAG_AC);
    return STATUS_SUCCESS;
}

static NTSTATUS StormGetName(STORM *d, PVOID out, ULONG length, ULONG_PTR *info)
{
    NTSTATUS status = STATUS_SUCCESS;

    ExAcquireFastMutex(&d->mutex);
    if (length < d->name.Length) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else if (d->name.Length != 0) {
        RtlCopyMemory(out, d->name.Buffer, d->name.Length);
        *info = d->name.Length;
    }
    ExReleaseFastMutex(&d->mutex);
    return status;
}

static NTSTATUS StormSettle(STEAD *s)
{
    ExInitializeFastMutex(&OWN(s, STORM)->mutex);
    return STATUS_SUCCESS;
}

static VOID StormUnsettle(STEAD *s)
{
    STORM *d = OWN(s, STORM);

    if (d->name.Buffer != NULL)
        ExFreePoolWithTag(d->name.Buffer, TAG_AC);
    d->name.Buffer = NULL;
}

static NTSTATUS StormBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    STORM *d = OWN(s, STORM);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(raw);
    CardRead(&d->card, translated);
    if (d->card.windows == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->regs = &d->card.window[0];
    status = CardMap(d->regs, REG_BYTES);
    if (!NT_SUCCESS(status))
        return status;
    StormListen(d, FALSE);
    if (d->card.wired) {
        status = CardConnect(&d->card, StormIsr, d);
        if (!NT_SUCCESS(status)) {
            CardUnmap(&d->card);
            return status;
        }
    }
    StormListen(d, TRUE);
    return STATUS_SUCCESS;
}

static VOID StormEnd(STEAD *s, BOOLEAN touch)
{
    STORM *d = OWN(s, STORM);

    if (touch)
        StormListen(d, FALSE);
    CardDisconnect(&d->card);
    CardUnmap(&d->card);
}

static VOID StormDim(STEAD *s)
{
    STORM *d = OWN(s, STORM);

    StormListen(d, FALSE);
    CardDeafen(&d->card);
}

static VOID StormLit(STEAD *s)
{
    STORM *d = OWN(s, STORM);

    CardHear(&d->card);
    StormListen(d, TRUE);
}

static NTSTATUS StormServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    STORM *d = OWN(s, STORM);
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    COUNTS *counts = buffer;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STORM_SET_NAME:
        return StormSetName(d, buffer, sp->Parameters.DeviceIoControl.InputBufferLength);
    case IOCTL_STORM_GET_NAME:
        return StormGetName(d, buffer, sp->Parameters.DeviceIoControl.OutputBufferLength, info);
    case IOCTL_STORM_COUNTS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTS))
            return STATUS_BUFFER_TOO_SMALL;
        counts->rain = CardGet(d->regs, REG_RAIN);
        counts->flashes = CardGet(d->regs, REG_FLASH);
        counts->interrupts = (ULONG)InterlockedCompareExchange(&d->interrupts, 0, 0);
        *info = sizeof(COUNTS);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT StormCraft = {
    .own = sizeof(STORM),
    .flags = DO_BUFFERED_IO,
    .face = &StormFace,
    .settle = StormSettle,
    .unsettle = StormUnsettle,
    .begin = StormBegin,
    .end = StormEnd,
    .dim = StormDim,
    .lit = StormLit,
    .serve = StormServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &StormCraft);
}
