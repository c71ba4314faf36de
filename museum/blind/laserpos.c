/*
 * laserpos - position stream of a laser interferometer card (1DA7:0422)
 *
 * The card measures a position at a fixed rate and puts the readings in a FIFO
 * of 256 entries.  A read waits for the next watermark interrupt and returns
 * the readings that are in the FIFO then, as many as fit.
 *
 *   0x00 CAUSE    bit 0 watermark, bit 1 beam lost (write 1 to clear)
 *   0x04 ENABLE   same bits
 *   0x08 LEVEL    number of readings in the FIFO
 *   0x0C DATA     takes the oldest reading out of the FIFO
 *   0x10 CONTROL  bit 0 run, bit 1 flush FIFO
 *
 * The bug: as many readings as the card says are stored in the buffer, and cut to its length afterwards.
 *
 * Device: PCI\VEN_1DA7&DEV_0422
 * Rule: pool-overrun
 * Needs: device
 */
#include <ddk/wdm.h>

static const GUID laser_guid =
    { 0xd7714b0c, 0x88ea, 0x4f6d, { 0xa2, 0x3e, 0x5b, 0x9f, 0x40, 0x07, 0xc6, 0x81 } };

#define CARD_TAG    'psaL'
#define CARD_GUID   laser_guid
#include "../include/unit_kit.h"

enum laser_regs {
    REG_CAUSE   = 0x00,
    REG_ENABLE  = 0x04,
    REG_LEVEL   = 0x08,
    REG_DATA    = 0x0C,
    REG_CONTROL = 0x10,
    REG_END     = 0x14
};

#define CAUSE_WATERMARK     1u
#define CAUSE_BEAM_LOST     2u
#define CONTROL_RUN         1u
#define CONTROL_FLUSH       2u
#define FIFO_DEPTH          256u

#define IOCTL_LASER_STATE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_READ_ACCESS)

struct laser_state {
    ULONG running;
    ULONG beam_lost;
    ULONG readings;
};

struct _EXT {
    CARD          Card;
    volatile LONG causes;
    ULONG         beam_lost;            /* Card.Lock */
    ULONG         readings;             /* Card.Lock */
};

static ULONG CardMinBytes(VOID)
{
    return REG_END;
}

static NTSTATUS CardProbe(PEXT x)
{
    CardWrite(&x->Card, REG_ENABLE, 0);
    CardWrite(&x->Card, REG_CONTROL, CONTROL_FLUSH);
    return STATUS_SUCCESS;
}

static VOID CardRelease(PEXT x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID CardQuiesce(PEXT x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID CardDrain(PEXT x, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Touch);
}

static VOID CardUp(PEXT x)
{
    InterlockedExchange(&x->causes, 0);
    CardWrite(&x->Card, REG_CONTROL, CONTROL_FLUSH);
    CardWrite(&x->Card, REG_CAUSE, CAUSE_WATERMARK | CAUSE_BEAM_LOST);
    CardWrite(&x->Card, REG_ENABLE, CAUSE_WATERMARK | CAUSE_BEAM_LOST);
    CardWrite(&x->Card, REG_CONTROL, CONTROL_RUN);
}

static VOID CardDown(PEXT x, BOOLEAN Touch)
{
    if (Touch) {
        CardWrite(&x->Card, REG_ENABLE, 0);
        CardWrite(&x->Card, REG_CONTROL, 0);
    }
}

static BOOLEAN NTAPI CardIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT x = Context;
    ULONG cause;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Card.Armed)
        return FALSE;
    cause = CardRead(&x->Card, REG_CAUSE);
    if (cause == MAXULONG)
        return FALSE;
    cause &= CAUSE_WATERMARK | CAUSE_BEAM_LOST;
    if (cause == 0)
        return FALSE;
    CardWrite(&x->Card, REG_CAUSE, cause);
    InterlockedOr(&x->causes, (LONG)cause);
    KeInsertQueueDpc(&x->Card.Dpc, NULL, NULL);
    return TRUE;
}

/*
 * Lock held.  Moves readings from the FIFO into the buffer of a read and
 * returns the number of bytes.  After a removal that the driver does not know of
 * yet, LEVEL reads as all ones; it is clipped like any other nonsense.
 */
static ULONG laser_take_readings(PEXT x, PIRP irp)
{
    ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG);
    PULONG out = irp->AssociatedIrp.SystemBuffer;
    ULONG n, i;

    n = CardRead(&x->Card, REG_LEVEL);
    if (n > FIFO_DEPTH)
        n = FIFO_DEPTH;
#ifdef FIXED
    if (n > room)
        n = room;
    for (i = 0; i < n; i++)
        out[i] = CardRead(&x->Card, REG_DATA);
#else
    for (i = 0; i < n; i++)
        out[i] = CardRead(&x->Card, REG_DATA);
    if (n > room)
        n = room;
#endif
    x->readings += n;
    return n * sizeof(ULONG);
}

static VOID NTAPI CardDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PEXT x = Context;
    PCARD c = &x->Card;
    ULONG causes = (ULONG)InterlockedExchange(&x->causes, 0);
    ULONG bytes = 0;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    if (c->Ready) {
        if (causes & CAUSE_BEAM_LOST)
            x->beam_lost++;
        if (causes & CAUSE_WATERMARK) {
            while (CardNext(c) != NULL) {
                irp = CardTakeCurrent(c);
                if (irp)
                    break;
            }
            if (irp)
                bytes = laser_take_readings(x, irp);
            else
                CardWrite(c, REG_CONTROL, CONTROL_RUN | CONTROL_FLUSH);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);

    if (irp) {
        CardComplete(irp, STATUS_SUCCESS, bytes);
        IoReleaseRemoveLock(&c->RemoveLock, irp);
    }
}

static NTSTATUS NTAPI laser_read(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEXT x = CARD_EXT_OF(DeviceObject);
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&x->Card.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return CardComplete(Irp, status, 0);

    if (length < sizeof(ULONG) || length % sizeof(ULONG)) {
        status = STATUS_INVALID_BUFFER_SIZE;
    } else {
        KeAcquireSpinLock(&x->Card.Lock, &irql);
        status = CardEnqueue(&x->Card, Irp);
        KeReleaseSpinLock(&x->Card.Lock, irql);
        if (status == STATUS_PENDING)
            return status;
    }
    CardComplete(Irp, status, 0);
    IoReleaseRemoveLock(&x->Card.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI laser_control(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEXT x = CARD_EXT_OF(DeviceObject);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    struct laser_state *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&x->Card.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return CardComplete(Irp, status, 0);

    if (sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_LASER_STATE) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        KeAcquireSpinLock(&x->Card.Lock, &irql);
        out->running = x->Card.Ready;
        out->beam_lost = x->beam_lost;
        out->readings = x->readings;
        KeReleaseSpinLock(&x->Card.Lock, irql);
        info = sizeof(*out);
    }
    CardComplete(Irp, status, info);
    IoReleaseRemoveLock(&x->Card.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI laser_add_device(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PEXT x;
    NTSTATUS status = CardAttach(DriverObject, Pdo, sizeof(EXT), &x);

    if (!NT_SUCCESS(status))
        return status;
    x->Card.Fdo->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    x->Card.Fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    CardDispatch(DriverObject, laser_add_device);
    DriverObject->MajorFunction[IRP_MJ_READ] = laser_read;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = laser_control;
    return STATUS_SUCCESS;
}
