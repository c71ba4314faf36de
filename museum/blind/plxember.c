/*
 * PLXEMBER: a flame guard for burners on a board with a PLX PCI 9052: LINTi1 says that a flame is lost. The driver keeps the times of
 * the last losses, which a program reads, and counts them.
 *
 * The bug: the pointer to the interrupt object is not cleared when the device is stopped. If the next start fails, the way back
 * disconnects the interrupt of the start before once more.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-not-connected, bad-pointer, use-after-free
 * Needs: failure, removal
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_EMBER_LOSSES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x991, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_EMBER_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x992, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID EmberFace = { 0x5b1d3c15, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x06 } };

#define INTCSR 0x4C
#define CSR_ARMED    (0x001 | 0x002 | 0x040 | 0x100)    /* LINTi1, active high, edge; to the bus */
#define CSR_DISARMED (0x002 | 0x100)
#define CSR_PENDING  (0x001 | 0x004)
#define CSR_CLEAR    0x400

#define HISTORY 128

typedef struct LOSSES {
    ULONG total;
    ULONG listed;
    ULONGLONG when[HISTORY];
} LOSSES;

typedef struct EMBER {
    PULONG csr;
    PVOID registers;
    ULONG registersLength;
    PKINTERRUPT interrupt;
    BOOLEAN asleep;             /* under the interrupt's lock */
    ULONG total;                /* under the interrupt's lock, as the ring */
    ULONGLONG *ring;
} EMBER;

/* What a program asks for is taken in one go, while the service routine stands still. */
typedef struct SNAPSHOT {
    EMBER *d;
    LOSSES *out;
    BOOLEAN forget;
} SNAPSHOT;

static BOOLEAN NTAPI EmberIsr(PKINTERRUPT interrupt, PVOID context)
{
    EMBER *d = context;
    ULONG csr;

    UNREFERENCED_PARAMETER(interrupt);
    if (d->asleep)
        return FALSE;
    csr = READ_REGISTER_ULONG(d->csr);
    if (csr == 0xFFFFFFFF || (csr & CSR_PENDING) != CSR_PENDING)
        return FALSE;
    WRITE_REGISTER_ULONG(d->csr, CSR_ARMED | CSR_CLEAR);
    d->ring[d->total % HISTORY] = KeQueryInterruptTime();
    d->total++;
    return TRUE;
}

static BOOLEAN NTAPI EmberSnap(PVOID context)
{
    SNAPSHOT *snap = context;
    EMBER *d = snap->d;
    ULONG i, first;

    if (snap->out != NULL) {
        snap->out->total = d->total;
        snap->out->listed = d->total < HISTORY ? d->total : HISTORY;
        first = d->total - snap->out->listed;
        for (i = 0; i < snap->out->listed; i++)
            snap->out->when[i] = d->ring[(first + i) % HISTORY];
    }
    if (snap->forget)
        d->total = 0;
    return TRUE;
}

static BOOLEAN NTAPI EmberSleep(PVOID context)
{
    EMBER *d = context;

    WRITE_REGISTER_ULONG(d->csr, CSR_DISARMED | CSR_CLEAR);
    READ_REGISTER_ULONG(d->csr);
    d->asleep = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI EmberWake(PVOID context)
{
    EMBER *d = context;

    d->asleep = FALSE;
    WRITE_REGISTER_ULONG(d->csr, CSR_DISARMED | CSR_CLEAR);
    WRITE_REGISTER_ULONG(d->csr, CSR_ARMED);
    return TRUE;
}

static VOID EmberRelease(EMBER *d)
{
    if (d->interrupt != NULL) {
        IoDisconnectInterrupt(d->interrupt);
#ifdef FIXED
        d->interrupt = NULL;
#endif
    }
    if (d->registers != NULL) {
        MmUnmapIoSpace(d->registers, d->registersLength);
        d->registers = NULL;
    }
    if (d->ring != NULL) {
        ExFreePoolWithTag(d->ring, TAG_AC);
        d->ring = NULL;
    }
}

static NTSTATUS EmberBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    EMBER *d = OWN(s, EMBER);
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
    PKINTERRUPT interrupt;
    WINDOW *w;
    CARD card;

    UNREFERENCED_PARAMETER(raw);
    CardRead(&card, translated);
    w = CardWindow(&card, FALSE, 0);
    if (w == NULL || w->bytes < INTCSR + sizeof(ULONG) || !card.wired)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->ring = ExAllocatePoolWithTag(NonPagedPool, HISTORY * sizeof(ULONGLONG), TAG_AC);
    if (d->ring == NULL)
        goto failed;
    RtlZeroMemory(d->ring, HISTORY * sizeof(ULONGLONG));
    d->total = 0;
    d->registersLength = w->bytes;
    d->registers = MmMapIoSpace(w->where, w->bytes, MmNonCached);
    if (d->registers == NULL)
        goto failed;
    d->csr = (PULONG)((PUCHAR)d->registers + INTCSR);
    d->asleep = FALSE;
    WRITE_REGISTER_ULONG(d->csr, CSR_DISARMED | CSR_CLEAR);
    status = IoConnectInterrupt(&interrupt, EmberIsr, d, NULL, card.vector, card.irql, card.irql,
                                card.latched ? Latched : LevelSensitive, card.shared, card.cpus, FALSE);
    if (!NT_SUCCESS(status))
        goto failed;
    d->interrupt = interrupt;
    WRITE_REGISTER_ULONG(d->csr, CSR_ARMED);
    return STATUS_SUCCESS;

failed:
    EmberRelease(d);
    return status;
}

static VOID EmberEnd(STEAD *s, BOOLEAN touch)
{
    EMBER *d = OWN(s, EMBER);

    if (touch)
        KeSynchronizeExecution(d->interrupt, EmberSleep, d);
    EmberRelease(d);
}

static VOID EmberDim(STEAD *s)
{
    EMBER *d = OWN(s, EMBER);

    KeSynchronizeExecution(d->interrupt, EmberSleep, d);
}

static VOID EmberLit(STEAD *s)
{
    EMBER *d = OWN(s, EMBER);

    KeSynchronizeExecution(d->interrupt, EmberWake, d);
}

static NTSTATUS EmberServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    EMBER *d = OWN(s, EMBER);
    SNAPSHOT snap;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    snap.d = d;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EMBER_LOSSES:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LOSSES))
            return STATUS_BUFFER_TOO_SMALL;
        snap.out = irp->AssociatedIrp.SystemBuffer;
        snap.forget = FALSE;
        RtlZeroMemory(snap.out, sizeof(LOSSES));
        KeSynchronizeExecution(d->interrupt, EmberSnap, &snap);
        *info = sizeof(LOSSES);
        return STATUS_SUCCESS;
    case IOCTL_EMBER_FORGET:
        snap.out = NULL;
        snap.forget = TRUE;
        KeSynchronizeExecution(d->interrupt, EmberSnap, &snap);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT EmberCraft = {
    .own = sizeof(EMBER),
    .flags = DO_BUFFERED_IO,
    .face = &EmberFace,
    .begin = EmberBegin,
    .end = EmberEnd,
    .dim = EmberDim,
    .lit = EmberLit,
    .serve = EmberServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &EmberCraft);
}
