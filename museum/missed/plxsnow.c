/*
 * plxsnow: the four user pins of a PLX 9050 as outputs that applications set and read back, say for relays.
 *
 * The bug: before sleep the pins are not saved; what is written to CNTRL on waking is what it was at the start, so relays that were set since
 * then change with the sleep.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten
 * Needs: ioctl, power
 */
#include "../include/bay_plx.h"

#define IOCTL_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)       /* in: PINS */
#define IOCTL_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)       /* out: ULONG, a bit for each pin */

typedef struct PINS {
    ULONG which, up;                            /* a bit for each pin */
} PINS;

typedef struct CARD {
    AF_PLX plx;
    FAST_MUTEX mutex;                           /* of CNTRL */
    BOOLEAN known;
    ULONG saved;
} CARD;

static const GUID Guid = { 0xaf010002, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x02 } };

static NTSTATUS Init(AF_DEVICE *af)
{
    ExInitializeFastMutex(&((CARD *)af)->mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = AfPlxMap(&card->plx, list);

    if (!NT_SUCCESS(status))
        return status;
    if (card->known) {
        AfWrite32(card->plx.regs, PLX_CNTRL, card->saved);
    } else {
        card->saved = AfRead32(card->plx.regs, PLX_CNTRL);
        card->known = TRUE;
    }
    return STATUS_SUCCESS;
}

static void Save(CARD *card)
{
    ULONG value = AfRead32(card->plx.regs, PLX_CNTRL);

    if (value != 0xFFFFFFFF)
        card->saved = value;
}

static void Stop(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    if (AfReachable(af))
        Save(card);
    AfPlxUnmap(&card->plx);
}

static void Suspend(AF_DEVICE *af)
{
#ifndef FIXED
    UNREFERENCED_PARAMETER(af);
#else
    Save((CARD *)af);
#endif
}

static void Resume(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    AfWrite32(card->plx.regs, PLX_CNTRL, card->saved);
}

static NTSTATUS Set(CARD *card, const PINS *pins)
{
    NTSTATUS status = STATUS_DEVICE_DOES_NOT_EXIST;
    ULONG value, i;

    if ((pins->which | pins->up) & ~0xFu)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&card->mutex);
    value = AfRead32(card->plx.regs, PLX_CNTRL);
    if (value != 0xFFFFFFFF) {
        for (i = 0; i < 4; ++i) {
            if (!(pins->which >> i & 1))
                continue;
            value &= ~(7u << 3 * i);
            value |= 2u << 3 * i;               /* a pin of the user's, an output */
            if (pins->up >> i & 1)
                value |= 4u << 3 * i;
        }
        AfWrite32(card->plx.regs, PLX_CNTRL, value);
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&card->mutex);
    return status;
}

static NTSTATUS Get(CARD *card, ULONG *up)
{
    ULONG value = AfRead32(card->plx.regs, PLX_CNTRL), i;

    if (value == 0xFFFFFFFF)
        return STATUS_DEVICE_DOES_NOT_EXIST;
    for (*up = 0, i = 0; i < 4; ++i)
        *up |= (value >> (3 * i + 2) & 1) << i;
    return STATUS_SUCCESS;
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;
    ULONG information = 0;

    if (stack->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (stack->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_SET:
            status = STATUS_INVALID_PARAMETER;
            if (stack->Parameters.DeviceIoControl.InputBufferLength == sizeof(PINS))
                status = Set(card, irp->AssociatedIrp.SystemBuffer);
            break;
        case IOCTL_GET:
            status = STATUS_BUFFER_TOO_SMALL;
            if (stack->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(ULONG))
                status = Get(card, irp->AssociatedIrp.SystemBuffer);
            if (NT_SUCCESS(status))
                information = sizeof(ULONG);
            break;
        default:
            break;
        }
    }
    AfFinish(af, irp, status, information);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop,
    .suspend = Suspend, .resume = Resume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
