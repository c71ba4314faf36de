/*
 * STROBE: a controller for stroboscope lamps in printing machines. Of its memory window only the first registers are of use to
 * Windows; rate and pulse width are set there, and single flashes are fired. Ported from Linux, where a mapping is undone without a
 * length.
 *
 * The bug: the registers alone are mapped, but the length of the whole window is given back when the mapping is undone.
 *
 * Device: PCI\VEN_1D5A&DEV_0115
 * Rule: io-space-unmap, io-space-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_STROBE_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9E1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STROBE_FLASH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9E2, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STROBE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9E3, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID StrobeFace = { 0x5b1d3c1a, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x0B } };

#define REG_CONTROL 0x00
#define REG_RATE    0x04
#define REG_WIDTH   0x08
#define REG_FLASH   0x0C
#define REG_LAMP    0x10
#define REG_BYTES   0x14

#define CONTROL_ON  1

typedef struct SETTING {
    ULONG flashesPerMinute;     /* 0: off */
    ULONG microseconds;
} SETTING;

typedef struct STATE {
    SETTING setting;
    ULONG lamp;
    ULONG fired;
} STATE;

typedef struct STROBE {
    PUCHAR regs;
    ULONG window;               /* bytes */
    FAST_MUTEX mutex;           /* of setting, fired and the order of the registers */
    SETTING setting;
    ULONG fired;
} STROBE;

static VOID StrobeWrite(STROBE *d, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(d->regs + reg), value);
}

static VOID StrobeProgram(STROBE *d, const SETTING *setting)
{
    StrobeWrite(d, REG_CONTROL, 0);
    StrobeWrite(d, REG_RATE, setting->flashesPerMinute);
    StrobeWrite(d, REG_WIDTH, setting->microseconds);
    if (setting->flashesPerMinute != 0)
        StrobeWrite(d, REG_CONTROL, CONTROL_ON);
}

static VOID StrobeUnmap(STROBE *d)
{
#ifndef FIXED
    MmUnmapIoSpace(d->regs, d->window);
#else
    MmUnmapIoSpace(d->regs, REG_BYTES);
#endif
    d->regs = NULL;
}

static NTSTATUS StrobeSettle(STEAD *s)
{
    STROBE *d = OWN(s, STROBE);

    ExInitializeFastMutex(&d->mutex);
    d->setting.microseconds = 20;
    return STATUS_SUCCESS;
}

static NTSTATUS StrobeBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    STROBE *d = OWN(s, STROBE);
    WINDOW *w;
    CARD card;

    UNREFERENCED_PARAMETER(raw);
    CardRead(&card, translated);
    w = CardWindow(&card, FALSE, 0);
    if (w == NULL || w->bytes < REG_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->window = w->bytes;
    d->regs = MmMapIoSpace(w->where, REG_BYTES, MmNonCached);
    if (d->regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (READ_REGISTER_ULONG((PULONG)(d->regs + REG_CONTROL)) == 0xFFFFFFFF) {
        StrobeUnmap(d);         /* no device is there */
        return STATUS_NO_SUCH_DEVICE;
    }
    StrobeProgram(d, &d->setting);
    return STATUS_SUCCESS;
}

static VOID StrobeEnd(STEAD *s, BOOLEAN touch)
{
    STROBE *d = OWN(s, STROBE);

    if (touch)
        StrobeWrite(d, REG_CONTROL, 0);
    StrobeUnmap(d);
}

static VOID StrobeDim(STEAD *s)
{
    STROBE *d = OWN(s, STROBE);

    StrobeWrite(d, REG_CONTROL, 0);
    READ_REGISTER_ULONG((PULONG)(d->regs + REG_CONTROL));
}

static VOID StrobeLit(STEAD *s)
{
    STROBE *d = OWN(s, STROBE);

    StrobeProgram(d, &d->setting);      /* no request is served yet */
}

static NTSTATUS StrobeServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    STROBE *d = OWN(s, STROBE);
    SETTING *setting = irp->AssociatedIrp.SystemBuffer;
    STATE *state = irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STROBE_SET:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(SETTING))
            return STATUS_BUFFER_TOO_SMALL;
        /* a lamp that is lit for more than a hundredth of the time burns out */
        if (setting->flashesPerMinute > 30000 || setting->microseconds < 5 || setting->microseconds > 200
            || setting->flashesPerMinute * setting->microseconds > 600000)
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&d->mutex);
        d->setting = *setting;
        StrobeProgram(d, &d->setting);
        ExReleaseFastMutex(&d->mutex);
        return STATUS_SUCCESS;
    case IOCTL_STROBE_FLASH:
        ExAcquireFastMutex(&d->mutex);
        StrobeWrite(d, REG_FLASH, 1);
        d->fired++;
        ExReleaseFastMutex(&d->mutex);
        return STATUS_SUCCESS;
    case IOCTL_STROBE_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&d->mutex);
        state->setting = d->setting;
        state->lamp = READ_REGISTER_ULONG((PULONG)(d->regs + REG_LAMP));
        state->fired = d->fired;
        ExReleaseFastMutex(&d->mutex);
        *info = sizeof(STATE);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT StrobeCraft = {
    .own = sizeof(STROBE),
    .flags = DO_BUFFERED_IO,
    .face = &StrobeFace,
    .settle = StrobeSettle,
    .begin = StrobeBegin,
    .end = StrobeEnd,
    .dim = StrobeDim,
    .lit = StrobeLit,
    .serve = StrobeServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &StrobeCraft);
}
