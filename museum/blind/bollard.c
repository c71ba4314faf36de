/*
 * bollard: numbered receipts, as a PnP device without hardware. A program hands in up to 64 bytes and gets a receipt with the next number
 * and a checksum. While the system asks whether the device may be stopped or removed, requests are held.
 *
 * The bug: when a removal that was asked for is called off after all, receipts are issued again, but the requests that were held
 * meanwhile are not taken up, as they are when a stop is called off. They wait until some other request comes.
 *
 * Device: Root\bollard
 * Rule: irp-never-completed, request-forgotten
 * Needs: ioctl, removal
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"

static const GUID BollardFace = { 0x35c6e80d, 0xf172, 0x4e5b, { 0x99, 0x04, 0x6a, 0xb3, 0xd8, 0x2c, 0x71, 0xef } };

#define IOCTL_BOLLARD_RECEIPT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8d8, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BOLLARD_ISSUED  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8d9, METHOD_BUFFERED, FILE_READ_ACCESS)

#define BOLLARD_MOST 64

typedef struct _RECEIPT {
    ULONG Number;
    ULONG Checksum;
} RECEIPT;

typedef struct _BOLLARD {
    STATION St;
    BOOLEAN Held;               /* these two under the lane's lock */
    ULONG Issued;
} BOLLARD;

static ULONG BollardChecksum(const UCHAR *Bytes, ULONG Count)
{
    ULONG a = 1, b = 0, i;

    for (i = 0; i < Count; i++) {
        a = (a + Bytes[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

/* The next number; 0 while requests are held. */
static ULONG BollardNumber(BOLLARD *b)
{
    ULONG number = 0;
    KIRQL irql;

    KeAcquireSpinLock(&b->St.Lane.Lock, &irql);
    if (!b->Held) {
        if (++b->Issued == 0)
            b->Issued = 1;
        number = b->Issued;
    }
    KeReleaseSpinLock(&b->St.Lane.Lock, irql);
    return number;
}

static BOOLEAN BollardHeld(BOLLARD *b)
{
    BOOLEAN held;
    KIRQL irql;

    KeAcquireSpinLock(&b->St.Lane.Lock, &irql);
    held = b->Held;
    KeReleaseSpinLock(&b->St.Lane.Lock, irql);
    return held;
}

static VOID BollardHold(BOLLARD *b, BOOLEAN Held)
{
    KIRQL irql;

    KeAcquireSpinLock(&b->St.Lane.Lock, &irql);
    b->Held = Held;
    KeReleaseSpinLock(&b->St.Lane.Lock, irql);
}

/* Serves all that wait, unless and until they are held. */
static VOID BollardServeAll(BOLLARD *b)
{
    RECEIPT receipt;
    PIRP irp;

    while (!BollardHeld(b) && (irp = lane_take(&b->St.Lane, PICK_ANY, NULL)) != NULL) {
        receipt.Number = BollardNumber(b);
        if (receipt.Number == 0) {
            lane_return(&b->St.Lane, irp);
            continue;
        }
        receipt.Checksum = BollardChecksum(irp->AssociatedIrp.SystemBuffer,
                                           IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength);
        *(RECEIPT *)irp->AssociatedIrp.SystemBuffer = receipt;
        lane_finish(&b->St.Lane, irp, STATUS_SUCCESS, sizeof(receipt));
    }
}

static NTSTATUS BollardPrepare(STATION *St)
{
    CONTAINING_RECORD(St, BOLLARD, St)->Held = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS BollardEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    BOLLARD *b = CONTAINING_RECORD(St, BOLLARD, St);

    UNREFERENCED_PARAMETER(Translated);
    BollardHold(b, FALSE);
    BollardServeAll(b);
    return STATUS_SUCCESS;
}

static VOID BollardRelease(STATION *St, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    BollardHold(CONTAINING_RECORD(St, BOLLARD, St), TRUE);
}

static VOID BollardPause(STATION *St)
{
    BollardHold(CONTAINING_RECORD(St, BOLLARD, St), TRUE);
}

/* The system has changed its mind. A device that was not running does not begin to. */
static VOID BollardResume(STATION *St, UCHAR Minor)
{
    BOLLARD *b = CONTAINING_RECORD(St, BOLLARD, St);

    if (!St->Engaged)
        return;
    BollardHold(b, FALSE);
#ifndef FIXED
    if (Minor == IRP_MN_CANCEL_STOP_DEVICE)
        BollardServeAll(b);
#else
    UNREFERENCED_PARAMETER(Minor);
    BollardServeAll(b);
#endif
}

static NTSTATUS BollardServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    BOLLARD *b = CONTAINING_RECORD(St, BOLLARD, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL irql;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BOLLARD_RECEIPT:
        if (in == 0 || in > BOLLARD_MOST || out < sizeof(RECEIPT))
            return STATUS_INVALID_PARAMETER;
        lane_park(&St->Lane, Irp);
        BollardServeAll(b);
        return STATUS_PENDING;
    case IOCTL_BOLLARD_ISSUED:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&St->Lane.Lock, &irql);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = b->Issued;
        KeReleaseSpinLock(&St->Lane.Lock, irql);
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const DUTIES BollardDuties = {
    .Bytes = sizeof(BOLLARD), .Face = &BollardFace, .Prepare = BollardPrepare, .Engage = BollardEngage, .Release = BollardRelease,
    .Pause = BollardPause, .Resume = BollardResume, .Serve = BollardServe,
};

STATION_DRIVER(BollardDuties)
