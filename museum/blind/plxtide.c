/*
 * plxtide: a tide gauge behind a PLX PCI 9050. The first window of the local bus has the gauge's registers: 0 = level, 4 = acknowledge (LINTi2 is
 * active while a new level waits), 8 = interval in milliseconds. The driver collects the levels; programs read what has come in so far.
 *
 * The bug: when the device is stopped or removed the interrupt is disconnected and the window unmapped without waiting for a DPC that the last
 * interrupt has queued: the DPC reads a window that is not mapped any more, or runs in a device extension that is freed.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: freed-queued-dpc, device-memory-not-mapped, use-after-free
 * Needs: schedule
 */
#include "../include/gated_queue.h"

#define PLX_INTCSR 0x4C
#define INTCSR_LINT1_ENABLE 0x001
#define INTCSR_LINT2_ENABLE 0x008
#define INTCSR_LINT2_HIGH 0x010
#define INTCSR_LINT2_STATUS 0x020
#define INTCSR_PCI_ENABLE 0x040
#define INTCSR_SOFTWARE 0x080
#define INTCSR_LINT2_EDGE 0x200
#define PLX_SIZE 128
#define GAUGE_LEVEL 0
#define GAUGE_ACK 4
#define GAUGE_INTERVAL 8
#define GAUGE_SIZE 12
#define LEVELS 256
#define ALL_ONES 0xFFFFFFFF

#define IOCTL_PLXTIDE_INTERVAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PLXTIDE_LOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID PlxtideGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x22}};

typedef struct _PLXTIDE {
    AK Ak;
    PUCHAR Plx;
    PUCHAR Gauge;
    PKINTERRUPT Interrupt;
    BOOLEAN On; /* guarded by the interrupt's lock */
    KDPC Dpc;
    KSPIN_LOCK Lock; /* guards all below */
    ULONG Interval;
    ULONG First, Count, Lost;
    ULONG Level[LEVELS];
} PLXTIDE, *PPLXTIDE;

static ULONG Get(PUCHAR base, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(base + reg));
}

static VOID Put(PUCHAR base, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(base + reg), value);
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    const ULONG mine = INTCSR_PCI_ENABLE | INTCSR_LINT2_ENABLE | INTCSR_LINT2_STATUS;
    PPLXTIDE t = Context;
    ULONG csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!t->On)
        return FALSE;
    csr = Get(t->Plx, PLX_INTCSR);
    if (csr == ALL_ONES || (csr & mine) != mine)
        return FALSE;
    Put(t->Plx, PLX_INTCSR, csr & ~INTCSR_PCI_ENABLE); /* until the DPC has fetched the level */
    KeInsertQueueDpc(&t->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN SyncOn(PVOID Context)
{
    PPLXTIDE t = Context;
    ULONG csr = Get(t->Plx, PLX_INTCSR);

    csr &= ~(INTCSR_LINT1_ENABLE | INTCSR_LINT2_EDGE | INTCSR_SOFTWARE);
    t->On = TRUE;
    Put(t->Plx, PLX_INTCSR, csr | INTCSR_LINT2_HIGH | INTCSR_LINT2_ENABLE | INTCSR_PCI_ENABLE);
    return TRUE;
}

static BOOLEAN SyncOff(PVOID Context)
{
    PPLXTIDE t = Context;
    ULONG csr = Get(t->Plx, PLX_INTCSR);

    t->On = FALSE;
    if (csr != ALL_ONES)
        Put(t->Plx, PLX_INTCSR, csr & ~(INTCSR_LINT2_ENABLE | INTCSR_PCI_ENABLE));
    return TRUE;
}

static BOOLEAN SyncForget(PVOID Context)
{
    ((PPLXTIDE)Context)->On = FALSE;
    return TRUE;
}

static BOOLEAN SyncUnmask(PVOID Context)
{
    PPLXTIDE t = Context;
    ULONG csr;

    if (!t->On)
        return FALSE;
    csr = Get(t->Plx, PLX_INTCSR);
    if (csr != ALL_ONES)
        Put(t->Plx, PLX_INTCSR, csr | INTCSR_PCI_ENABLE);
    return TRUE;
}

/* Fetches the new level. */
static VOID LevelDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PPLXTIDE t = Context;
    BOOLEAN fetched = FALSE;
    ULONG level = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&t->Ak.HwLock); /* it is not powered down under us */
    if (t->On) {
        level = Get(t->Gauge, GAUGE_LEVEL);
        if (level != ALL_ONES) {
            Put(t->Gauge, GAUGE_ACK, 1);
            KeSynchronizeExecution(t->Interrupt, SyncUnmask, t);
            fetched = TRUE;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&t->Ak.HwLock);
    if (!fetched)
        return;
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    if (t->Count < LEVELS) {
        t->Level[(t->First + t->Count) % LEVELS] = level;
        t->Count++;
    } else {
        t->Level[t->First] = level; /* the oldest goes */
        t->First = (t->First + 1) % LEVELS;
        t->Lost++;
    }
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
}

static NTSTATUS ReadLevels(PPLXTIDE t, PIRP Irp, PIO_STACK_LOCATION s)
{
    ULONG room = s->Parameters.Read.Length / sizeof(ULONG), n = 0;
    PULONG out = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    KeAcquireSpinLock(&t->Lock, &irql);
    while (n < room && t->Count) {
        out[n++] = t->Level[t->First];
        t->First = (t->First + 1) % LEVELS;
        t->Count--;
    }
    KeReleaseSpinLock(&t->Lock, irql);
    Irp->IoStatus.Information = n * sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS SetInterval(PPLXTIDE t, ULONG interval)
{
    NTSTATUS status;
    KIRQL irql;

    if (interval == 0 || interval > 60000)
        return STATUS_INVALID_PARAMETER;
    status = AkEnter(&t->Ak);
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&t->Lock, &irql);
        t->Interval = interval;
        Put(t->Gauge, GAUGE_INTERVAL, interval);
        KeReleaseSpinLock(&t->Lock, irql);
        AkLeave(&t->Ak);
    }
    return status;
}

static NTSTATUS PlxtideIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    PPLXTIDE t = (PPLXTIDE)k;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (s->MajorFunction == IRP_MJ_READ)
        return ReadLevels(t, Irp, s);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PLXTIDE_INTERVAL:
        if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof *buffer)
            return STATUS_INVALID_PARAMETER;
        return SetInterval(t, *buffer);

    case IOCTL_PLXTIDE_LOST:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *buffer)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&t->Lock, &irql);
        *buffer = t->Lost;
        KeReleaseSpinLock(&t->Lock, irql);
        Irp->IoStatus.Information = sizeof *buffer;
        return STATUS_SUCCESS;

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID Unmap(PPLXTIDE t)
{
    if (t->Gauge)
        MmUnmapIoSpace(t->Gauge, GAUGE_SIZE);
    if (t->Plx)
        MmUnmapIoSpace(t->Plx, PLX_SIZE);
    t->Gauge = t->Plx = NULL;
}

/* Before the ISR is connected: the card must not interrupt yet. */
static NTSTATUS Quieten(PPLXTIDE t)
{
    ULONG csr = Get(t->Plx, PLX_INTCSR);

    if (csr == ALL_ONES)
        return STATUS_NO_SUCH_DEVICE;
    Put(t->Plx, PLX_INTCSR, csr & ~INTCSR_PCI_ENABLE);
    return STATUS_SUCCESS;
}

static NTSTATUS PlxtideStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PPLXTIDE t = (PPLXTIDE)k;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR plx = AkMemory(Translated, 0), gauge = AkMemory(Translated, 1), line = AkLine(Translated);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Raw);
    if (!plx || !gauge || !line || plx->u.Memory.Length < PLX_SIZE || gauge->u.Memory.Length < GAUGE_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    t->Plx = MmMapIoSpace(plx->u.Memory.Start, PLX_SIZE, MmNonCached);
    t->Gauge = MmMapIoSpace(gauge->u.Memory.Start, GAUGE_SIZE, MmNonCached);
    if (!t->Plx || !t->Gauge)
        status = STATUS_INSUFFICIENT_RESOURCES;
    else
        status = Quieten(t);
    if (NT_SUCCESS(status))
        status = AkConnect(line, Isr, t, &t->Interrupt);
    if (!NT_SUCCESS(status)) {
        Unmap(t);
        return status;
    }
    Put(t->Gauge, GAUGE_INTERVAL, t->Interval);
    KeSynchronizeExecution(t->Interrupt, SyncOn, t);
    return STATUS_SUCCESS;
}

static VOID PlxtideStop(PAK k, BOOLEAN Touch)
{
    PPLXTIDE t = (PPLXTIDE)k;

    KeSynchronizeExecution(t->Interrupt, Touch ? SyncOff : SyncForget, t);
#ifdef FIXED
    KeFlushQueuedDpcs(); /* the ISR queues no more */
#endif
    IoDisconnectInterrupt(t->Interrupt);
    t->Interrupt = NULL;
    Unmap(t);
}

static VOID PlxtidePowerDown(PAK k)
{
    KeSynchronizeExecution(((PPLXTIDE)k)->Interrupt, SyncOff, k);
}

static VOID PlxtidePowerUp(PAK k)
{
    PPLXTIDE t = (PPLXTIDE)k;

    Put(t->Gauge, GAUGE_INTERVAL, t->Interval);
    KeSynchronizeExecution(t->Interrupt, SyncOn, t);
}

static NTSTATUS PlxtideInit(PAK k)
{
    PPLXTIDE t = (PPLXTIDE)k;

    t->Interval = 1000;
    KeInitializeSpinLock(&t->Lock);
    KeInitializeDpc(&t->Dpc, LevelDpc, t);
    return STATUS_SUCCESS;
}

static const AK_OPS AkOps = {
    .Interface = &PlxtideGuid,
    .ExtSize = sizeof(PLXTIDE),
    .DeviceFlags = DO_BUFFERED_IO,
    .Init = PlxtideInit,
    .Start = PlxtideStart,
    .Stop = PlxtideStop,
    .PowerDown = PlxtidePowerDown,
    .PowerUp = PlxtidePowerUp,
    .Io = PlxtideIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
