/*
 * PLXADZE: an alarm input and a horn on a PLX 9052. The alarm contact is wired
 * to LINTi1 and stays active for as long as it pleases; the driver keeps a
 * history of the alarms. IOCTL_ADZE_HISTORY answers it, newest last,
 * IOCTL_ADZE_HORN switches the horn on user pin 0, and IOCTL_ADZE_LEVEL tells
 * whether the contact is active now.
 *
 * The bug: when the history cannot be allocated, at the end of starting, the
 * interrupt is disconnected while the card still has it enabled; the next
 * alarm holds the shared line and there is no routine left to quiet it.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm
 * Needs: failure, device
 */
#include "../include/wharf_plx.h"

DEFINE_GUID(GUID_PLXADZE, 0x6d1c0b11, 0x2f0a, 0x4c55, 0x91, 0x07, 0x33, 0x5e, 0xd0, 0x18, 0x7a, 0x06);

#define IOCTL_ADZE_HISTORY \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ADZE_HORN \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ADZE_LEVEL \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x853, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _ADZE_ALARM {
    LARGE_INTEGER Time;         /* system time */
    LONGLONG Number;            /* from 1 since the start */
} ADZE_ALARM;

#define HISTORY 256
#define TICK_MS 50
#define ADZE_ON (PLX_PCI | PLX_HIGH1 | PLX_EN1)

typedef struct _CARD {
    WHARF W;
    LONGLONG Number;            /* Spin: alarms so far */
    ADZE_ALARM *History;        /* Spin: a ring, by Number */
    ULONG Fired;                /* interrupt lock: alarms not yet recorded */
    BOOLEAN Horn;               /* Spin */
    KDPC Dpc, TickDpc;
    KTIMER Tick;
} CARD;

#define CARD_GUID GUID_PLXADZE
#define CARD_IO   DO_BUFFERED_IO

static BOOLEAN NTAPI AdzeIsr(PKINTERRUPT intr, PVOID ctx)
{
    CARD *e = ctx;
    ULONG v;

    (void)intr;
    if (!e->W.IsrOn)
        return FALSE;
    v = WharfRd(&e->W, PLX_INTCSR);
    if (v == PLX_GONE ||
        (v & (PLX_EN1 | PLX_ST1)) != (PLX_EN1 | PLX_ST1))
        return FALSE;
    /* the contact cannot be acknowledged: off until it has gone back */
    WharfWr(&e->W, PLX_INTCSR, v & ~PLX_EN1);
    e->Fired++;
    KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI AdzeDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    LARGE_INTEGER now;
    ULONG n;
    KIRQL q, qi;

    (void)dpc; (void)a; (void)b;
    KeQuerySystemTime(&now);
    KeAcquireSpinLock(&e->W.Spin, &q);
    qi = KeAcquireInterruptSpinLock(e->W.Interrupt);
    n = e->Fired;
    e->Fired = 0;
    KeReleaseInterruptSpinLock(e->W.Interrupt, qi);
    while (n--) {
        e->Number++;
        if (e->History) {
            ADZE_ALARM *h = &e->History[e->Number % HISTORY];
            h->Time = now;
            h->Number = e->Number;
        }
    }
    KeReleaseSpinLock(&e->W.Spin, q);
}

/* listens again once the contact is at rest */
static VOID NTAPI AdzeTick(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    ULONG v;
    KIRQL q, qi;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live && e->W.Awake) {
        qi = KeAcquireInterruptSpinLock(e->W.Interrupt);
        v = WharfRd(&e->W, PLX_INTCSR);
        if (v != PLX_GONE && !(v & (PLX_EN1 | PLX_ST1)))
            WharfWr(&e->W, PLX_INTCSR, v | PLX_EN1);
        KeReleaseInterruptSpinLock(e->W.Interrupt, qi);
    }
    KeReleaseSpinLock(&e->W.Spin, q);
}

/* Spin is held, the card is awake */
static VOID AdzeHorn(CARD *e)
{
    ULONG v = WharfRd(&e->W, PLX_CNTRL);

    if (v == PLX_GONE)
        return;
    v |= PLX_USER0_OUT;
    v = e->Horn ? v | PLX_USER0_DATA : v & ~PLX_USER0_DATA;
    WharfWr(&e->W, PLX_CNTRL, v);
}

static ULONG AdzeCopy(CARD *e, ADZE_ALARM *to, ULONG room)
{
    LONGLONG i, first;
    ULONG n = 0;
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    first = e->Number - HISTORY + 1;
    if (first < e->Number - (LONGLONG)room + 1)
        first = e->Number - (LONGLONG)room + 1;
    if (first < 1)
        first = 1;
    if (e->History)
        for (i = first; i <= e->Number; i++)
            if (e->History[i % HISTORY].Number == i)
                to[n++] = e->History[i % HISTORY];
    KeReleaseSpinLock(&e->W.Spin, q);
    return n;
}

static NTSTATUS CardIo(CARD *e, PIRP irp, PIO_STACK_LOCATION s)
{
    ULONG in, out, v, *buf = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_DEVICE_NOT_READY;
    KIRQL q;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = s->Parameters.DeviceIoControl.InputBufferLength;
    out = s->Parameters.DeviceIoControl.OutputBufferLength;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ADZE_HISTORY:
        if (out < sizeof(ADZE_ALARM))
            return STATUS_BUFFER_TOO_SMALL;
        v = AdzeCopy(e, irp->AssociatedIrp.SystemBuffer,
                     out / sizeof(ADZE_ALARM));
        irp->IoStatus.Information = v * sizeof(ADZE_ALARM);
        return STATUS_SUCCESS;
    case IOCTL_ADZE_HORN:
        if (in != sizeof(ULONG) || *buf > 1)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->W.Live && e->W.Awake) {
            e->Horn = (BOOLEAN)*buf;
            AdzeHorn(e);
            st = STATUS_SUCCESS;
        }
        KeReleaseSpinLock(&e->W.Spin, q);
        return st;
    case IOCTL_ADZE_LEVEL:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->W.Live && e->W.Awake) {
            v = WharfRd(&e->W, PLX_INTCSR);
            st = v == PLX_GONE ? STATUS_NO_SUCH_DEVICE : STATUS_SUCCESS;
            *buf = (v & PLX_ST1) != 0;
        }
        KeReleaseSpinLock(&e->W.Spin, q);
        if (NT_SUCCESS(st))
            irp->IoStatus.Information = sizeof(ULONG);
        return st;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID CardCleanup(CARD *e, PFILE_OBJECT file)
{
    (void)e; (void)file;        /* nothing is ever left pending */
}

static VOID CardInit(CARD *e)
{
    KeInitializeDpc(&e->Dpc, AdzeDpc, e);
    KeInitializeDpc(&e->TickDpc, AdzeTick, e);
    KeInitializeTimer(&e->Tick);
}

static NTSTATUS CardStart(CARD *e, PCM_RESOURCE_LIST list)
{
    ADZE_ALARM *history;
    LARGE_INTEGER due;
    WHARF_RES r;
    KIRQL q;
    NTSTATUS st = WharfResources(list, &r);

    if (!NT_SUCCESS(st))
        return st;
    st = PlxMap(&e->W, &r);
    if (!NT_SUCCESS(st))
        return st;
    e->Number = 0;
    e->Fired = 0;
    e->Horn = FALSE;
    e->W.IsrOn = FALSE;
    st = WharfConnect(&e->W, &r, AdzeIsr);
    if (!NT_SUCCESS(st)) {
        e->W.Interrupt = NULL;
        goto unmap;
    }
    /* alarms count from now on; those before the history is there have no
       entry */
    PlxLoud(&e->W, ADZE_ON);

    history = ExAllocatePoolWithTag(NonPagedPool, HISTORY * sizeof(*history),
                                    'zdAW');
    if (!history) {
        st = STATUS_INSUFFICIENT_RESOURCES;
        goto disconnect;
    }
    RtlZeroMemory(history, HISTORY * sizeof(*history));
    KeAcquireSpinLock(&e->W.Spin, &q);
    e->History = history;
    e->W.Live = TRUE;
    e->W.Awake = TRUE;
    AdzeHorn(e);
    KeReleaseSpinLock(&e->W.Spin, q);
    due.QuadPart = -TICK_MS * 10000;
    KeSetTimerEx(&e->Tick, due, TICK_MS, &e->TickDpc);
    return STATUS_SUCCESS;

disconnect:
#ifdef FIXED
    PlxQuiet(&e->W, TRUE);
#endif
    KeFlushQueuedDpcs();
    WharfDisconnect(&e->W);
unmap:
    WharfUnmap(&e->W);
    return st;
}

static VOID CardStop(CARD *e, BOOLEAN present)
{
    ADZE_ALARM *history;
    BOOLEAN touch;
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Live = FALSE;
    touch = present && e->W.Awake;
    e->W.Awake = FALSE;
    e->Horn = FALSE;
    if (touch)
        AdzeHorn(e);
    KeReleaseSpinLock(&e->W.Spin, q);
    PlxQuiet(&e->W, touch);
    KeCancelTimer(&e->Tick);
    KeFlushQueuedDpcs();
    WharfDisconnect(&e->W);
    WharfUnmap(&e->W);
    KeAcquireSpinLock(&e->W.Spin, &q);
    history = e->History;
    e->History = NULL;
    KeReleaseSpinLock(&e->W.Spin, q);
    ExFreePoolWithTag(history, 'zdAW');
}

static VOID CardSleep(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Awake = FALSE;
    if (e->W.Live)
        PlxQuiet(&e->W, TRUE);
    KeReleaseSpinLock(&e->W.Spin, q);
}

/* a contact that is active on waking is an alarm, whenever it began */
static VOID CardWake(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live) {
        PlxLoud(&e->W, ADZE_ON);
        e->W.Awake = TRUE;
        AdzeHorn(e);
    }
    KeReleaseSpinLock(&e->W.Spin, q);
}

#include "../include/wharf_pnp.h"
