/*
 * thermrack - eight-channel thermometer card (1DA7:0310)
 *
 * A conversion is started by writing a channel mask; the card interrupts when
 * the converters are done.  The results are scaled with gains from the
 * calibration certificate, which the installer stores as the binary value
 * "Gains" (one 16.16 fixed-point number per channel) in the driver key.
 *
 *   0x00 IRQ_CAUSE (write 1 to clear)     0x08 CONVERT (channel mask)
 *   0x04 IRQ_ENABLE                       0x40 RESULT[8] (signed)
 *
 * The bug: a value of the registry is copied with its own length.
 *
 * Device: PCI\VEN_1DA7&DEV_0310
 * Rule: pool-overrun
 * Needs: registry
 */
#include <ddk/wdm.h>

static const GUID ThermGuid =
    { 0x4f8e02b7, 0xd136, 0x4ba9, { 0x9e, 0x75, 0x33, 0xc0, 0x1a, 0x8b, 0xd5, 0x62 } };

#define CARD_TAG            'rmhT'
#define CARD_GUID           ThermGuid
#include "../include/unit_kit.h"

#define TR_IRQ_CAUSE        0x00
#define TR_IRQ_ENABLE       0x04
#define TR_CONVERT          0x08
#define TR_RESULT(n)        (0x40 + 4 * (n))
#define TR_IRQ_DONE         0x00000001
#define TR_CHANNELS         8
#define TR_UNITY            0x00010000

#define IOCTL_TR_SAMPLE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TR_GAINS      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_READ_ACCESS)

struct _EXT {
    CARD    Card;
    PULONG  Gains;                  /* TR_CHANNELS entries */
    BOOLEAN Busy;                   /* Card.Lock: a conversion is under way */
};

typedef struct _TR_SAMPLE {
    LONG Value[TR_CHANNELS];
} TR_SAMPLE, *PTR_SAMPLE;

static ULONG CardMinBytes(VOID)
{
    return TR_RESULT(TR_CHANNELS);
}

/* Missing or malformed values leave the defaults in place. */
static VOID TrReadGains(PEXT x)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"Gains");
    PKEY_VALUE_PARTIAL_INFORMATION info;
    const ULONG room = FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + 256;
    ULONG used, bytes;
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(x->Card.Pdo, PLUGPLAY_REGKEY_DRIVER, KEY_READ, &key)))
        return;
    info = ExAllocatePoolWithTag(PagedPool, room, CARD_TAG);
    if (info) {
        if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, info, room, &used)) &&
            info->Type == REG_BINARY) {
            bytes = info->DataLength & ~(ULONG)(sizeof(ULONG) - 1);
#ifdef FIXED
            if (bytes > TR_CHANNELS * sizeof(ULONG))
                bytes = TR_CHANNELS * sizeof(ULONG);
#endif
            RtlCopyMemory(x->Gains, info->Data, bytes);
        }
        ExFreePoolWithTag(info, CARD_TAG);
    }
    ZwClose(key);
}

static NTSTATUS CardProbe(PEXT x)
{
    ULONG i;

    CardWrite(&x->Card, TR_IRQ_ENABLE, 0);
    x->Gains = ExAllocatePoolWithTag(NonPagedPool, TR_CHANNELS * sizeof(ULONG), CARD_TAG);
    if (!x->Gains)
        return STATUS_INSUFFICIENT_RESOURCES;
    for (i = 0; i < TR_CHANNELS; i++)
        x->Gains[i] = TR_UNITY;
    TrReadGains(x);
    return STATUS_SUCCESS;
}

static VOID CardRelease(PEXT x)
{
    if (x->Gains)
        ExFreePoolWithTag(x->Gains, CARD_TAG);
    x->Gains = NULL;
}

static VOID CardUp(PEXT x)
{
    x->Busy = FALSE;
    CardWrite(&x->Card, TR_CONVERT, 0);
    CardWrite(&x->Card, TR_IRQ_CAUSE, TR_IRQ_DONE);
    CardWrite(&x->Card, TR_IRQ_ENABLE, TR_IRQ_DONE);
}

static VOID CardDrain(PEXT x, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Touch);
}

static VOID CardDown(PEXT x, BOOLEAN Touch)
{
    x->Busy = FALSE;
    if (Touch) {
        CardWrite(&x->Card, TR_IRQ_ENABLE, 0);
        CardWrite(&x->Card, TR_CONVERT, 0);
    }
}

static VOID CardQuiesce(PEXT x)
{
    UNREFERENCED_PARAMETER(x);
}

static BOOLEAN NTAPI CardIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT x = Context;
    ULONG cause;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Card.Armed)
        return FALSE;
    cause = CardRead(&x->Card, TR_IRQ_CAUSE);
    if (cause == MAXULONG || !(cause & TR_IRQ_DONE))
        return FALSE;
    CardWrite(&x->Card, TR_IRQ_CAUSE, TR_IRQ_DONE);
    KeInsertQueueDpc(&x->Card.Dpc, NULL, NULL);
    return TRUE;
}

/* Lock held. */
static VOID TrStartNext(PEXT x)
{
    PIRP irp;

    if (!x->Card.Ready || x->Busy)
        return;
    irp = CardNext(&x->Card);
    if (irp) {
        x->Busy = TRUE;
        CardWrite(&x->Card, TR_CONVERT, *(PULONG)irp->AssociatedIrp.SystemBuffer);
    }
}

static LONG TrScale(LONG Raw, ULONG Gain)
{
    LONG64 v = ((LONG64)Raw * (LONG64)Gain) >> 16;

    if (v > 0x7FFFFFFFLL)
        v = 0x7FFFFFFFLL;
    if (v < -0x80000000LL)
        v = -0x80000000LL;
    return (LONG)v;
}

static VOID NTAPI CardDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PEXT x = Context;
    PCARD c = &x->Card;
    PTR_SAMPLE out;
    PIRP irp = NULL;
    ULONG i, mask;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    if (c->Ready && x->Busy) {
        x->Busy = FALSE;
        irp = CardTakeCurrent(c);
        if (irp) {
            out = irp->AssociatedIrp.SystemBuffer;
            mask = *(PULONG)out;
            for (i = 0; i < TR_CHANNELS; i++)
                out->Value[i] = (mask & (1u << i)) ?
                    TrScale((LONG)CardRead(c, TR_RESULT(i)), x->Gains[i]) : 0;
        }
        TrStartNext(x);
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);

    if (irp) {
        CardComplete(irp, STATUS_SUCCESS, sizeof(TR_SAMPLE));
        IoReleaseRemoveLock(&c->RemoveLock, irp);
    }
}

static NTSTATUS TrSample(PEXT x, PIRP Irp)
{
    ULONG mask = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    KIRQL irql;

    if (mask == 0 || mask >= (1u << TR_CHANNELS))
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&x->Card.Lock, &irql);
    status = CardEnqueue(&x->Card, Irp);
    if (status == STATUS_PENDING)
        TrStartNext(x);
    KeReleaseSpinLock(&x->Card.Lock, irql);
    return status;
}

static NTSTATUS NTAPI TrControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEXT x = CARD_EXT_OF(DeviceObject);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sl->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR info = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&x->Card.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return CardComplete(Irp, status, 0);

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TR_SAMPLE:
        if (in < sizeof(ULONG) || out < sizeof(TR_SAMPLE))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = TrSample(x, Irp);
        if (status == STATUS_PENDING)
            return status;
        break;
    case IOCTL_TR_GAINS:
        if (out < TR_CHANNELS * sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Card.Lock, &irql);
        if (x->Card.Ready) {
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, x->Gains, TR_CHANNELS * sizeof(ULONG));
            info = TR_CHANNELS * sizeof(ULONG);
        } else {
            status = STATUS_DEVICE_NOT_READY;
        }
        KeReleaseSpinLock(&x->Card.Lock, irql);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    CardComplete(Irp, status, info);
    IoReleaseRemoveLock(&x->Card.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TrAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PEXT x;
    NTSTATUS status = CardAttach(DriverObject, Pdo, sizeof(EXT), &x);

    if (!NT_SUCCESS(status))
        return status;
    x->Card.Fdo->Flags |= DO_POWER_PAGABLE;
    x->Card.Fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    CardDispatch(DriverObject, TrAddDevice);
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TrControl;
    return STATUS_SUCCESS;
}
