/*
 * factoria - factorials by hardware (QEMU "edu" card)
 *
 * IOCTL_FACT_COMPUTE queues a number; the card computes its factorial and
 * interrupts.  IOCTL_FACT_POKE makes the card raise interrupt causes of the
 * program's choice (bits 4..7), which the driver counts; IOCTL_FACT_COUNTS
 * returns the counts.
 *
 * The bug: the service routine stores the causes of the last interrupt over those of the one before.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: schedule, device
 */
#include <ddk/wdm.h>

static const GUID FactGuid =
    { 0x3d0a4f82, 0x6e19, 0x47b5, { 0xa7, 0x7c, 0x10, 0x8d, 0xe2, 0x45, 0xb9, 0x03 } };

#define CARD_TAG            'tcaF'
#define CARD_GUID           FactGuid
#include "../include/unit_kit.h"

#define EDU_ID              0x00
#define EDU_FACTORIAL       0x08
#define EDU_STATUS          0x20
#define   EDU_COMPUTING       0x01
#define   EDU_IRQ_WHEN_DONE   0x80
#define EDU_IRQ_STATUS      0x24
#define EDU_IRQ_RAISE       0x60
#define EDU_IRQ_ACK         0x64

#define CAUSE_FACTORIAL     0x00000001
#define CAUSE_POKE          0x000000F0

#define IOCTL_FACT_COMPUTE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FACT_POKE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FACT_COUNTS   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)

struct _EXT {
    CARD          Card;
    volatile LONG Causes;               /* ISR -> DPC */
    BOOLEAN       Busy;                 /* the card computes */
    ULONG         Computed;
    ULONG         Pokes[4];
};

static ULONG CardMinBytes(VOID)
{
    return 0x100;
}

static NTSTATUS CardProbe(PEXT x)
{
    if ((CardRead(&x->Card, EDU_ID) & 0xFFFF) != 0x00ED)
        return STATUS_NO_SUCH_DEVICE;
    CardWrite(&x->Card, EDU_STATUS, 0);
    return STATUS_SUCCESS;
}

static VOID CardRelease(PEXT x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID CardDrain(PEXT x, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Touch);
}

static VOID CardQuiesce(PEXT x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID CardUp(PEXT x)
{
    ULONG stale;

    CardWrite(&x->Card, EDU_STATUS, EDU_IRQ_WHEN_DONE);
    stale = CardRead(&x->Card, EDU_IRQ_STATUS);
    if (stale != 0 && stale != MAXULONG)
        CardWrite(&x->Card, EDU_IRQ_ACK, stale);
    /* a computation may have been left behind; its result is not wanted */
    x->Busy = (CardRead(&x->Card, EDU_STATUS) & EDU_COMPUTING) != 0;
    InterlockedExchange(&x->Causes, 0);
}

static VOID CardDown(PEXT x, BOOLEAN Touch)
{
    if (Touch)
        CardWrite(&x->Card, EDU_STATUS, 0);
}

static BOOLEAN NTAPI CardIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT x = Context;
    ULONG cause;

    UNREFERENCED_PARAMETER(Interrupt);

    if (!x->Card.Armed)
        return FALSE;
    cause = CardRead(&x->Card, EDU_IRQ_STATUS);
    if (cause == 0 || cause == MAXULONG)
        return FALSE;
    CardWrite(&x->Card, EDU_IRQ_ACK, cause);
#ifdef FIXED
    InterlockedOr(&x->Causes, (LONG)cause);
#else
    x->Causes = (LONG)cause;
#endif
    KeInsertQueueDpc(&x->Card.Dpc, NULL, NULL);
    return TRUE;
}

/* Lock held. */
static VOID FactStartNext(PEXT x)
{
    PIRP irp;

    if (!x->Card.Ready || x->Busy)
        return;
    irp = CardNext(&x->Card);
    if (irp) {
        x->Busy = TRUE;
        CardWrite(&x->Card, EDU_FACTORIAL, *(PULONG)irp->AssociatedIrp.SystemBuffer);
    }
}

static VOID NTAPI CardDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PEXT x = Context;
    PCARD c = &x->Card;
    ULONG causes = (ULONG)InterlockedExchange(&x->Causes, 0);
    PIRP irp = NULL;
    ULONG i;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    for (i = 0; i < 4; i++)
        if (causes & (0x10u << i))
            x->Pokes[i]++;

    if ((causes & CAUSE_FACTORIAL) && c->Ready && x->Busy && !(CardRead(c, EDU_STATUS) & EDU_COMPUTING)) {
        x->Busy = FALSE;
        x->Computed++;
        irp = CardTakeCurrent(c);
        if (irp)
            *(PULONG)irp->AssociatedIrp.SystemBuffer = CardRead(c, EDU_FACTORIAL);
        FactStartNext(x);
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);

    if (irp) {
        CardComplete(irp, STATUS_SUCCESS, sizeof(ULONG));
        IoReleaseRemoveLock(&c->RemoveLock, irp);
    }
}

static NTSTATUS FactCompute(PEXT x, PIRP Irp)
{
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&x->Card.Lock, &irql);
    status = CardEnqueue(&x->Card, Irp);
    if (status == STATUS_PENDING)
        FactStartNext(x);
    KeReleaseSpinLock(&x->Card.Lock, irql);
    return status;
}

static NTSTATUS FactPoke(PEXT x, ULONG Bits)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (Bits == 0 || (Bits & ~CAUSE_POKE))
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&x->Card.Lock, &irql);
    if (x->Card.Ready)
        CardWrite(&x->Card, EDU_IRQ_RAISE, Bits);
    else
        status = STATUS_DEVICE_NOT_READY;
    KeReleaseSpinLock(&x->Card.Lock, irql);
    return status;
}

static NTSTATUS NTAPI FactControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEXT x = CARD_EXT_OF(DeviceObject);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sl->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG data = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status;
    KIRQL irql;
    ULONG i;

    status = IoAcquireRemoveLock(&x->Card.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return CardComplete(Irp, status, 0);

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FACT_COMPUTE:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (data[0] > 12)
            status = STATUS_INVALID_PARAMETER;
        else
            status = FactCompute(x, Irp);
        if (status == STATUS_PENDING)
            return status;
        break;
    case IOCTL_FACT_POKE:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : FactPoke(x, data[0]);
        break;
    case IOCTL_FACT_COUNTS:
        if (out < 5 * sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Card.Lock, &irql);
        data[0] = x->Computed;
        for (i = 0; i < 4; i++)
            data[1 + i] = x->Pokes[i];
        KeReleaseSpinLock(&x->Card.Lock, irql);
        info = 5 * sizeof(ULONG);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    CardComplete(Irp, status, info);
    IoReleaseRemoveLock(&x->Card.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI FactAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
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
    CardDispatch(DriverObject, FactAddDevice);
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FactControl;
    return STATUS_SUCCESS;
}
