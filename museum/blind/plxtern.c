/*
 * plxtern: four serial ports of a multiport board behind a PLX PCI 9052, which share LINTi1. One lock guards the board (which ports want to
 * send), one each port's rings; the DPC serves the ports in turn.
 *
 * The bug: the DPC takes the board's lock and then a port's, but sending takes the port's lock and then the board's: on two
 * processors each can come to wait for the other for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: lock-order-inversion, deadlock, spin-lock-deadlock
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_TERN_SEND    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TERN_RECEIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x962, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TERN_STATE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x963, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TERN_PORTS   4
#define TERN_RX      256
#define TERN_TX      64
#define TERN_BURST   8
#define UART_DATA(n) ((n) * 8 + 0)
#define UART_IER(n)  ((n) * 8 + 1)
#define UART_LSR(n)  ((n) * 8 + 5)
#define IER_RX       0x01
#define IER_TX       0x02
#define LSR_DATA     0x01
#define LSR_EMPTY    0x20

typedef struct PORT {
    KSPIN_LOCK Lock;
    UCHAR Rx[TERN_RX], Tx[TERN_TX];
    ULONG RxFirst, RxCount, TxCount;
    ULONG Lost;
} PORT;

typedef struct TERN {
    DEPOT *Depot;
    WINDOW Config, Local;
    WIRE Wire;
    KDPC Dpc;
    KSPIN_LOCK Lock;                         /* before a port's */
    BOOLEAN Lit;
    UCHAR Wanting;                           /* a bit for each port that has something to send */
    PORT Port[TERN_PORTS];
} TERN;

typedef struct TERN_STATE {
    ULONG Received, ToSend, Lost;
} TERN_STATE;

static const GUID TernGuid = { 0x3e9f0718, 0x15bb, 0x47d4, { 0x97, 0x3a, 0x6f, 0x1d, 0x90, 0x50, 0x93, 0x07 } };

static BOOLEAN TernIsr(PVOID context)
{
    TERN *t = context;
    ULONG csr = WindowGet(&t->Config, PLX_INTCSR);

    if (csr == 0xFFFFFFFF || !(csr & PLX_INT_PCI) || !(csr & PLX_INT1_STATUS))
        return FALSE;
    WindowPut(&t->Config, PLX_INTCSR, PLX_INT1_ENABLE | PLX_INT1_HIGH);     /* until the DPC has served the ports */
    KeInsertQueueDpc(&t->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI TernArm(PVOID context)
{
    TERN *t = context;

    WindowPut(&t->Config, PLX_INTCSR, PLX_INT1_ENABLE | PLX_INT1_HIGH | PLX_INT_PCI);
    return TRUE;
}

/* With both locks. */
static VOID TernServe(TERN *t, ULONG n)
{
    PORT *p = &t->Port[n];
    UCHAR lsr = WindowGet8(&t->Local, UART_LSR(n));
    ULONG i;

    for (i = 0; i < TERN_BURST && lsr != 0xFF && (lsr & LSR_DATA); i++) {
        UCHAR c = WindowGet8(&t->Local, UART_DATA(n));

        if (p->RxCount < TERN_RX)
            p->Rx[(p->RxFirst + p->RxCount++) % TERN_RX] = c;
        else
            p->Lost++;
        lsr = WindowGet8(&t->Local, UART_LSR(n));
    }
    if (lsr != 0xFF && (lsr & LSR_EMPTY) && p->TxCount != 0) {
        ULONG send = p->TxCount < TERN_BURST ? p->TxCount : TERN_BURST;

        for (i = 0; i < send; i++)
            WindowPut8(&t->Local, UART_DATA(n), p->Tx[i]);
        p->TxCount -= send;
        RtlMoveMemory(p->Tx, p->Tx + send, p->TxCount);
    }
    if (p->TxCount == 0 && (t->Wanting & (1 << n))) {
        t->Wanting &= (UCHAR)~(1 << n);
        WindowPut8(&t->Local, UART_IER(n), IER_RX);
    }
}

static VOID NTAPI TernDpc(PKDPC dpc, PVOID context, PVOID x, PVOID y)
{
    TERN *t = context;
    ULONG n;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(y);
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    if (t->Lit) {
        for (n = 0; n < TERN_PORTS; n++) {
            KeAcquireSpinLockAtDpcLevel(&t->Port[n].Lock);
            TernServe(t, n);
            KeReleaseSpinLockFromDpcLevel(&t->Port[n].Lock);
        }
        KeSynchronizeExecution(t->Wire.Object, TernArm, t);
    }
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
}

/* With the board's lock. */
static VOID TernWant(TERN *t, ULONG n)
{
    t->Wanting |= (UCHAR)(1 << n);
    WindowPut8(&t->Local, UART_IER(n), IER_RX | IER_TX);
}

static ULONG TernSend(TERN *t, ULONG n, const UCHAR *data, ULONG length)
{
    PORT *p = &t->Port[n];
    KIRQL irql;

#ifndef FIXED
    KeAcquireSpinLock(&p->Lock, &irql);
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
#else
    KeAcquireSpinLock(&t->Lock, &irql);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
#endif
    if (length > TERN_TX - p->TxCount)
        length = TERN_TX - p->TxCount;
    RtlCopyMemory(p->Tx + p->TxCount, data, length);
    p->TxCount += length;
    if (p->TxCount != 0)
        TernWant(t, n);
#ifndef FIXED
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
    KeReleaseSpinLock(&p->Lock, irql);
#else
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    KeReleaseSpinLock(&t->Lock, irql);
#endif
    return length;
}

static NTSTATUS TernControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    TERN *t = d->Own;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PUCHAR buffer = irp->AssociatedIrp.SystemBuffer;
    TERN_STATE *state;
    ULONG n, i;
    PORT *p;
    KIRQL irql;

    if (in < sizeof(ULONG) || buffer == NULL || (n = *(PULONG)buffer) >= TERN_PORTS)
        return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
    p = &t->Port[n];
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TERN_SEND:
        if (out < sizeof(ULONG))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PULONG)buffer = TernSend(t, n, buffer + sizeof(ULONG), in - sizeof(ULONG));
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_TERN_RECEIVE:
        KeAcquireSpinLock(&p->Lock, &irql);
        for (i = 0; i < out && p->RxCount != 0; i++) {
            buffer[i] = p->Rx[p->RxFirst];
            p->RxFirst = (p->RxFirst + 1) % TERN_RX;
            p->RxCount--;
        }
        KeReleaseSpinLock(&p->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, i);
    case IOCTL_TERN_STATE:
        if (out < sizeof(TERN_STATE))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        state = (TERN_STATE *)buffer;
        KeAcquireSpinLock(&p->Lock, &irql);
        state->Received = p->RxCount;
        state->ToSend = p->TxCount;
        state->Lost = p->Lost;
        KeReleaseSpinLock(&p->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(TERN_STATE));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID TernLight(TERN *t)
{
    KIRQL irql;
    ULONG n;

    KeAcquireSpinLock(&t->Lock, &irql);
    t->Lit = TRUE;
    for (n = 0; n < TERN_PORTS; n++)
        WindowPut8(&t->Local, UART_IER(n), (t->Wanting & (1 << n)) ? IER_RX | IER_TX : IER_RX);
    KeReleaseSpinLock(&t->Lock, irql);
    WireLive(&t->Wire, TRUE);
    KeSynchronizeExecution(t->Wire.Object, TernArm, t);
}

static VOID TernDark(TERN *t, BOOLEAN reach)
{
    KIRQL irql;
    ULONG n;

    KeAcquireSpinLock(&t->Lock, &irql);
    t->Lit = FALSE;
    KeReleaseSpinLock(&t->Lock, irql);
    if (reach) {
        WindowPut(&t->Config, PLX_INTCSR, 0);
        for (n = 0; n < TERN_PORTS; n++)
            WindowPut8(&t->Local, UART_IER(n), 0);
    }
    WireLive(&t->Wire, FALSE);
    if (reach)
        WindowPut(&t->Config, PLX_INTCSR, 0);        /* the ISR may have had it between */
    KeRemoveQueueDpc(&t->Dpc);
    KeFlushQueuedDpcs();
}

static NTSTATUS TernUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    TERN *t = d->Own;
    const RES *config = PlxConfig(list), *local = PlxLocal(list);
    NTSTATUS st;

    if (config == NULL || local == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!WindowOpen(&t->Config, config, 0x54))
        return STATUS_INSUFFICIENT_RESOURCES;
    if (!WindowOpen(&t->Local, local, TERN_PORTS * 8)) {
        WindowShut(&t->Config);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    WindowPut(&t->Config, PLX_INTCSR, 0);
    st = WireConnect(&t->Wire, ChartNth(list, FALSE, 0), TernIsr, t);
    if (!NT_SUCCESS(st)) {
        WindowShut(&t->Local);
        WindowShut(&t->Config);
        return st;
    }
    TernLight(t);
    return STATUS_SUCCESS;
}

static VOID TernDown(DEPOT *d, BOOLEAN reach)
{
    TERN *t = d->Own;

    TernDark(t, reach);
    WireCut(&t->Wire);
    WindowShut(&t->Local);
    WindowShut(&t->Config);
}

static VOID TernSleep(DEPOT *d)
{
    TernDark(d->Own, TRUE);
}

static VOID TernWake(DEPOT *d)
{
    TernLight(d->Own);
}

static NTSTATUS TernPrepare(DEPOT *d)
{
    TERN *t = d->Own;
    ULONG n;

    t->Depot = d;
    KeInitializeSpinLock(&t->Lock);
    for (n = 0; n < TERN_PORTS; n++)
        KeInitializeSpinLock(&t->Port[n].Lock);
    KeInitializeDpc(&t->Dpc, TernDpc, t);
    return STATUS_SUCCESS;
}

static const PLAN TernPlan = {
    .Interface = &TernGuid,
    .OwnSize = sizeof(TERN),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = TernPrepare,
    .Up = TernUp,
    .Down = TernDown,
    .Sleep = TernSleep,
    .Wake = TernWake,
    .Control = TernControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &TernPlan);
}
