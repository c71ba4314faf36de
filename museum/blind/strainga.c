/*
 * STRAINGA: an amplifier card for strain gauges, sold with two, four or eight channels. How many there are stands in the registry, as
 * the card cannot tell; the installation tool writes it. Programs set the gain of a channel and read the gauges.
 *
 * The bug: the number of channels from the registry is taken as it is; with more than eight the gains behind the array, and registers
 * that the card does not have, are written.
 *
 * Device: PCI\VEN_1D5A&DEV_0155
 * Rule: pool-overrun, device-object-damaged, device-access-past-mapping, wild-write, bad-pointer
 * Needs: registry
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_STRAIN_GAIN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA21, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STRAIN_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA22, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_STRAIN_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA23, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID StrainFace = { 0x5b1d3c1e, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x0F } };

#define MOST_CHANNELS 8
#define USUAL_CHANNELS 4

#define REG_VALUE 0x00          /* one for each channel */
#define REG_GAIN  0x20          /* one for each channel */
#define REG_BYTES 0x40

typedef struct GAIN {
    ULONG channel;
    ULONG gain;
} GAIN;

typedef struct STRAIN {
    CARD card;
    WINDOW *regs;
    FAST_MUTEX mutex;
    ULONG channels;
    ULONG gain[MOST_CHANNELS];
} STRAIN;

static ULONG StrainChannels(STEAD *s)
{
    UCHAR space[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)] __attribute__((aligned(8)));
    PKEY_VALUE_PARTIAL_INFORMATION value = (PKEY_VALUE_PARTIAL_INFORMATION)space;
    ULONG channels = USUAL_CHANNELS, length;
    UNICODE_STRING name;
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(s->pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key)))
        return channels;
    RtlInitUnicodeString(&name, L"Channels");
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, value, sizeof(space), &length))
        && value->Type == REG_DWORD && value->DataLength == sizeof(ULONG))
        RtlCopyMemory(&channels, value->Data, sizeof(ULONG));
    ZwClose(key);
#ifdef FIXED
    if (channels == 0 || channels > MOST_CHANNELS)
        channels = USUAL_CHANNELS;
#endif
    return channels;
}

static NTSTATUS StrainBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    STRAIN *d = OWN(s, STRAIN);
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(raw);
    CardRead(&d->card, translated);
    if (d->card.windows == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->regs = &d->card.window[0];
    status = CardMap(d->regs, REG_BYTES);
    if (!NT_SUCCESS(status))
        return status;
    d->channels = StrainChannels(s);
    for (i = 0; i < d->channels; i++) {
        d->gain[i] = 1;
        CardPut(d->regs, REG_GAIN + 4 * i, 1);
    }
    return STATUS_SUCCESS;
}

static VOID StrainEnd(STEAD *s, BOOLEAN touch)
{
    UNREFERENCED_PARAMETER(touch);
    CardUnmap(&OWN(s, STRAIN)->card);
}

static VOID StrainLit(STEAD *s)
{
    STRAIN *d = OWN(s, STRAIN);
    ULONG i;

    for (i = 0; i < d->channels; i++)   /* no request is served yet */
        CardPut(d->regs, REG_GAIN + 4 * i, d->gain[i]);
}

static NTSTATUS StrainSettle(STEAD *s)
{
    ExInitializeFastMutex(&OWN(s, STRAIN)->mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS StrainServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    STRAIN *d = OWN(s, STRAIN);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG words = irp->AssociatedIrp.SystemBuffer;
    GAIN *gain = irp->AssociatedIrp.SystemBuffer;
    ULONG i;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STRAIN_GAIN:
        if (in < sizeof(GAIN))
            return STATUS_BUFFER_TOO_SMALL;
        if (gain->channel >= d->channels || gain->gain == 0 || gain->gain > 1000)
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&d->mutex);
        d->gain[gain->channel] = gain->gain;
        CardPut(d->regs, REG_GAIN + 4 * gain->channel, gain->gain);
        ExReleaseFastMutex(&d->mutex);
        return STATUS_SUCCESS;
    case IOCTL_STRAIN_READ:
        if (out / sizeof(ULONG) < d->channels)
            return STATUS_BUFFER_TOO_SMALL;
        for (i = 0; i < d->channels; i++)
            words[i] = CardGet(d->regs, REG_VALUE + 4 * i);
        *info = d->channels * sizeof(ULONG);
        return STATUS_SUCCESS;
    case IOCTL_STRAIN_COUNT:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *words = d->channels;
        *info = sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT StrainCraft = {
    .own = sizeof(STRAIN),
    .flags = DO_BUFFERED_IO,
    .face = &StrainFace,
    .settle = StrainSettle,
    .begin = StrainBegin,
    .end = StrainEnd,
    .lit = StrainLit,
    .serve = StrainServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &StrainCraft);
}
