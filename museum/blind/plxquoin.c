/*
 * PLXQUOIN: a service driver for boards with a PLX PCI 9052: the maker's tool takes snapshots of the chip's registers and of the
 * board's memory behind the local spaces, and pokes single words, to see in the field what is wrong with a board.
 *
 * The bug: the number of bytes is given to a routine that takes a number of words: four times as much is read from
 * the board, and stored behind the buffer.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-access-past-mapping, pool-overrun, bad-pointer, wild-write, wild-read
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_QUOIN_SPACES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x981, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_QUOIN_SNAP   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x982, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_QUOIN_POKE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x983, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID QuoinFace = { 0x5b1d3c14, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x05 } };

#define SPACES 5                /* the chip and its local spaces, as far as they are memory */

typedef struct REGION {
    ULONG space;
    ULONG offset;
    ULONG bytes;
} REGION;

typedef struct POKE {
    ULONG space;
    ULONG offset;
    ULONG value;
} POKE;

typedef struct SIZES {
    ULONG count;
    ULONG bytes[SPACES];
} SIZES;

typedef struct QUOIN {
    CARD card;
    WINDOW *space[SPACES];      /* NULL: not there */
    ULONG spaces;
    FAST_MUTEX mutex;           /* one snapshot at a time */
} QUOIN;

static NTSTATUS QuoinSettle(STEAD *s)
{
    ExInitializeFastMutex(&OWN(s, QUOIN)->mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS QuoinBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    QUOIN *d = OWN(s, QUOIN);
    NTSTATUS status = STATUS_SUCCESS;
    WINDOW *w;

    UNREFERENCED_PARAMETER(raw);
    CardRead(&d->card, translated);
    d->spaces = 0;
    while (d->spaces < SPACES && (w = CardWindow(&d->card, FALSE, d->spaces)) != NULL) {
        status = CardMap(w, sizeof(ULONG));
        if (!NT_SUCCESS(status))
            break;
        d->space[d->spaces++] = w;
    }
    if (NT_SUCCESS(status) && d->spaces == 0)
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!NT_SUCCESS(status))
        CardUnmap(&d->card);
    return status;
}

static VOID QuoinEnd(STEAD *s, BOOLEAN touch)
{
    UNREFERENCED_PARAMETER(touch);
    CardUnmap(&OWN(s, QUOIN)->card);
}

static NTSTATUS QuoinSpaces(QUOIN *d, SIZES *out, ULONG length, ULONG_PTR *info)
{
    ULONG i;

    if (length < sizeof(SIZES))
        return STATUS_BUFFER_TOO_SMALL;
    RtlZeroMemory(out, sizeof(SIZES));
    out->count = d->spaces;
    for (i = 0; i < d->spaces; i++)
        out->bytes[i] = d->space[i]->bytes;
    *info = sizeof(SIZES);
    return STATUS_SUCCESS;
}

/* READ_REGISTER_BUFFER_ULONG, whose form in mingw's header writes to the card. */
static VOID QuoinRead(PULONG from, PULONG to, ULONG count)
{
    for (; count != 0; count--)
        *to++ = READ_REGISTER_ULONG(from++);
}

static NTSTATUS QuoinSnap(QUOIN *d, PVOID buffer, ULONG in, ULONG out, ULONG_PTR *info)
{
    REGION region;
    WINDOW *w;

    if (in < sizeof(REGION))
        return STATUS_BUFFER_TOO_SMALL;
    region = *(REGION *)buffer;
    if (region.space >= d->spaces)
        return STATUS_INVALID_PARAMETER;
    w = d->space[region.space];
    if (((region.offset | region.bytes) & 3) != 0)
        return STATUS_DATATYPE_MISALIGNMENT;
    if (region.bytes == 0 || region.bytes > w->bytes || region.offset > w->bytes - region.bytes)
        return STATUS_INVALID_PARAMETER;
    if (out < region.bytes)
        return STATUS_BUFFER_TOO_SMALL;
    ExAcquireFastMutex(&d->mutex);
#ifndef FIXED
    QuoinRead((PULONG)(w->at + region.offset), buffer, region.bytes);
#else
    QuoinRead((PULONG)(w->at + region.offset), buffer, region.bytes / sizeof(ULONG));
#endif
    ExReleaseFastMutex(&d->mutex);
    *info = region.bytes;
    return STATUS_SUCCESS;
}

static NTSTATUS QuoinPoke(QUOIN *d, const POKE *poke, ULONG in)
{
    WINDOW *w;

    if (in < sizeof(POKE))
        return STATUS_BUFFER_TOO_SMALL;
    /* the chip's own registers are looked at only: who writes there can turn the board into anything */
    if (poke->space == 0 || poke->space >= d->spaces)
        return STATUS_INVALID_PARAMETER;
    w = d->space[poke->space];
    if ((poke->offset & 3) != 0)
        return STATUS_DATATYPE_MISALIGNMENT;
    if (poke->offset > w->bytes - sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&d->mutex);
    WRITE_REGISTER_ULONG((PULONG)(w->at + poke->offset), poke->value);
    ExReleaseFastMutex(&d->mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS QuoinServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    QUOIN *d = OWN(s, QUOIN);
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QUOIN_SPACES:
        return QuoinSpaces(d, buffer, out, info);
    case IOCTL_QUOIN_SNAP:
        return QuoinSnap(d, buffer, in, out, info);
    case IOCTL_QUOIN_POKE:
        return QuoinPoke(d, buffer, in);
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT QuoinCraft = {
    .own = sizeof(QUOIN),
    .flags = DO_BUFFERED_IO,
    .face = &QuoinFace,
    .settle = QuoinSettle,
    .begin = QuoinBegin,
    .end = QuoinEnd,
    .serve = QuoinServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &QuoinCraft);
}
