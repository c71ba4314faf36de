/*
 * livepoll - health monitor for a QEMU "edu" card
 *
 * Ten times a second the liveness register of the card is written with a new
 * pattern and read back; the card must return the complement.  Programs read
 * the statistics, and can ask for an interrupt round trip (IOCTL_LP_PING),
 * which is also counted.
 *
 * The bug: the timer goes on polling a card that is in D3.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power
 */
#include <ddk/wdm.h>

static const GUID lp_guid =
    { 0x0b6e1d9f, 0xc58a, 0x4e02, { 0xb3, 0x94, 0x7a, 0x25, 0xf8, 0x61, 0xce, 0x40 } };

#define CARD_TAG        'lopL'
#define CARD_GUID       lp_guid
#include "../include/unit_kit.h"

#define R_ID            0x00
#define R_LIVENESS      0x04
#define R_STATUS        0x20
#define R_IRQ_STATUS    0x24
#define R_IRQ_RAISE     0x60
#define R_IRQ_ACK       0x64

#define PING_CAUSE      0x00000800
#define POLL_MS         100

#define IOCTL_LP_STATS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_LP_PING   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_READ_ACCESS)

struct lp_stats {
    ULONG polls;
    ULONG failures;
    ULONG pings;
    ULONG interrupts;
};

struct _EXT {
    CARD            Card;
    KTIMER          timer;
    KDPC            timer_dpc;
    ULONG           pattern;
    struct lp_stats stats;              /* Card.Lock, except interrupts */
    volatile LONG   interrupts;
    BOOLEAN         ping_out;           /* Card.Lock: an interrupt has been asked for */
};

static ULONG CardMinBytes(VOID)
{
    return 0x100;
}

static NTSTATUS CardProbe(PEXT x)
{
    if ((CardRead(&x->Card, R_ID) & 0xFFFF) != 0x00ED)
        return STATUS_NO_SUCH_DEVICE;
    CardWrite(&x->Card, R_STATUS, 0);
    return STATUS_SUCCESS;
}

static VOID CardRelease(PEXT x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID lp_arm_timer(PEXT x)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * POLL_MS;
    KeSetTimerEx(&x->timer, due, POLL_MS, &x->timer_dpc);
}

static VOID CardUp(PEXT x)
{
    ULONG stale = CardRead(&x->Card, R_IRQ_STATUS);

    if (stale != 0 && stale != MAXULONG)
        CardWrite(&x->Card, R_IRQ_ACK, stale);
    x->ping_out = FALSE;
    lp_arm_timer(x);
}

static VOID CardDrain(PEXT x, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Touch);
}

/* The timer keeps its pace while the card sleeps; CardQuiesce stops it. */
static VOID CardDown(PEXT x, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(Touch);
    x->ping_out = FALSE;
}

static VOID CardQuiesce(PEXT x)
{
    KeCancelTimer(&x->timer);
    KeRemoveQueueDpc(&x->timer_dpc);
}

static VOID NTAPI lp_poll(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PEXT x = Context;
    PCARD c = &x->Card;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    KeAcquireSpinLockAtDpcLevel(&c->Lock);
#ifdef FIXED
    if (c->Ready) {
#else
    if (c->Started) {
#endif
        x->pattern = x->pattern * 1664525u + 1013904223u;
        CardWrite(c, R_LIVENESS, x->pattern);
        x->stats.polls++;
        if (CardRead(c, R_LIVENESS) != ~x->pattern)
            x->stats.failures++;
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);
}

static BOOLEAN NTAPI CardIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT x = Context;
    ULONG cause;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Card.Armed)
        return FALSE;
    cause = CardRead(&x->Card, R_IRQ_STATUS);
    if (cause == 0 || cause == MAXULONG)
        return FALSE;
    CardWrite(&x->Card, R_IRQ_ACK, cause);
    InterlockedIncrement(&x->interrupts);
    if (cause & PING_CAUSE)
        KeInsertQueueDpc(&x->Card.Dpc, NULL, NULL);
    return TRUE;
}

/* One ping interrupt answers everybody who waits. */
static VOID NTAPI CardDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PEXT x = Context;
    PCARD c = &x->Card;
    LIST_ENTRY list;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    InitializeListHead(&list);
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    if (c->Ready && x->ping_out) {
        x->ping_out = FALSE;
        x->stats.pings++;
        CardTakeAll(c, NULL, &list);
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);
    CardCompleteAll(c, &list, STATUS_SUCCESS);
}

static NTSTATUS lp_ping(PEXT x, PIRP Irp)
{
    PCARD c = &x->Card;
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&c->Lock, &irql);
    status = CardEnqueue(c, Irp);
    if (status == STATUS_PENDING && !x->ping_out) {
        x->ping_out = TRUE;
        CardWrite(c, R_IRQ_RAISE, PING_CAUSE);
    }
    KeReleaseSpinLock(&c->Lock, irql);
    return status;
}

static NTSTATUS NTAPI lp_control(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEXT x = CARD_EXT_OF(DeviceObject);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    struct lp_stats *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&x->Card.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return CardComplete(Irp, status, 0);

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LP_STATS:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Card.Lock, &irql);
        *out = x->stats;
        KeReleaseSpinLock(&x->Card.Lock, irql);
        out->interrupts = (ULONG)InterlockedExchangeAdd(&x->interrupts, 0);
        info = sizeof(*out);
        break;
    case IOCTL_LP_PING:
        status = lp_ping(x, Irp);
        if (status == STATUS_PENDING)
            return status;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    CardComplete(Irp, status, info);
    IoReleaseRemoveLock(&x->Card.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI lp_add_device(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PEXT x;
    NTSTATUS status = CardAttach(DriverObject, Pdo, sizeof(EXT), &x);

    if (!NT_SUCCESS(status))
        return status;
    x->pattern = 0x1d872b41;
    KeInitializeTimer(&x->timer);
    KeInitializeDpc(&x->timer_dpc, lp_poll, x);
    x->Card.Fdo->Flags |= DO_POWER_PAGABLE;
    x->Card.Fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    CardDispatch(DriverObject, lp_add_device);
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = lp_control;
    return STATUS_SUCCESS;
}
