/*
 * plxlamps: a panel of push buttons and lamps behind a PLX PCI 9050. Programs wait for the next press, set the lamps and choose the polarity of the
 * contact line. The first window of the local bus has the panel's registers: 0 = presses (a bit per button, written ones clear them; while one is
 * set LINTi1 is active), 4 = lamps.
 *
 * The bug: the polarity is changed by reading and writing INTCSR in the caller's thread, without the interrupt's lock. The ISR (which masks the
 * PCI interrupt there) and the DPC (which unmasks it) do the same to the register; if they come in between, the old value is written back and the
 * interrupt stays masked for ever: no press is reported any more.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-lost
 * Needs: schedule
 */
#include "../include/gated_queue.h"

#define PLX_INTCSR 0x4C
#define INTCSR_LINT1_ENABLE 0x001
#define INTCSR_LINT1_HIGH 0x002
#define INTCSR_LINT1_STATUS 0x004
#define INTCSR_LINT2_ENABLE 0x008
#define INTCSR_PCI_ENABLE 0x040
#define INTCSR_SOFTWARE 0x080
#define INTCSR_LINT1_EDGE 0x100
#define PLX_SIZE 128
#define PANEL_PRESSES 0
#define PANEL_LAMPS 4
#define PANEL_SIZE 8
#define ALL_ONES 0xFFFFFFFF
#define LIMIT_100NS (3 * 10 * 1000 * 1000)

#define IOCTL_PLXLAMPS_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PLXLAMPS_LAMPS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PLXLAMPS_POLARITY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID PlxlampsGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x21}};

/* output of WAIT; its input is the number of presses already seen */
typedef struct _PRESS {
    ULONG Number;
    ULONG Buttons;
} PRESS, *PPRESS;

typedef struct _PLXLAMPS {
    AK Ak;
    PUCHAR Plx;
    PUCHAR Panel;
    PKINTERRUPT Interrupt;
    BOOLEAN On;   /* guarded by the interrupt's lock; changed under Ak.HwLock too while the DPC may run */
    BOOLEAN High; /* guarded by the interrupt's lock */
    KDPC Dpc;
    KTIMER Limit;
    KDPC LimitDpc;
    KSPIN_LOCK Lock; /* guards all below */
    PIRP Current;
    BOOLEAN Over; /* a press has come, the limit's DPC is on its way and completes the request */
    PRESS Press;
    ULONG Lamps;
} PLXLAMPS, *PPLXLAMPS;

typedef struct _POLARITY {
    PPLXLAMPS Device;
    BOOLEAN High;
} POLARITY, *PPOLARITY;

static ULONG Get(PUCHAR base, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(base + reg));
}

static VOID Put(PUCHAR base, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(base + reg), value);
}

/* ---- everything that touches INTCSR ---- */

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    const ULONG mine = INTCSR_PCI_ENABLE | INTCSR_LINT1_ENABLE | INTCSR_LINT1_STATUS;
    PPLXLAMPS p = Context;
    ULONG csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!p->On)
        return FALSE;
    csr = Get(p->Plx, PLX_INTCSR);
    if (csr == ALL_ONES || (csr & mine) != mine)
        return FALSE;
    Put(p->Plx, PLX_INTCSR, csr & ~INTCSR_PCI_ENABLE); /* until the DPC has seen to the panel */
    KeInsertQueueDpc(&p->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN SyncOn(PVOID Context)
{
    PPLXLAMPS p = Context;
    ULONG csr = Get(p->Plx, PLX_INTCSR);

    csr &= ~(INTCSR_LINT2_ENABLE | INTCSR_LINT1_EDGE | INTCSR_SOFTWARE | INTCSR_LINT1_HIGH);
    csr |= INTCSR_LINT1_ENABLE | INTCSR_PCI_ENABLE | (p->High ? INTCSR_LINT1_HIGH : 0);
    p->On = TRUE;
    Put(p->Plx, PLX_INTCSR, csr);
    return TRUE;
}

static BOOLEAN SyncOff(PVOID Context)
{
    PPLXLAMPS p = Context;
    ULONG csr = Get(p->Plx, PLX_INTCSR);

    p->On = FALSE;
    if (csr != ALL_ONES)
        Put(p->Plx, PLX_INTCSR, csr & ~(INTCSR_LINT1_ENABLE | INTCSR_PCI_ENABLE));
    return TRUE;
}

static BOOLEAN SyncForget(PVOID Context)
{
    ((PPLXLAMPS)Context)->On = FALSE;
    return TRUE;
}

static BOOLEAN SyncUnmask(PVOID Context)
{
    PPLXLAMPS p = Context;
    ULONG csr = Get(p->Plx, PLX_INTCSR);

    if (p->On && csr != ALL_ONES)
        Put(p->Plx, PLX_INTCSR, csr | INTCSR_PCI_ENABLE);
    return TRUE;
}

static BOOLEAN SyncPolarity(PVOID Context)
{
    PPOLARITY polarity = Context;
    PPLXLAMPS p = polarity->Device;
    ULONG csr = Get(p->Plx, PLX_INTCSR);

    p->High = polarity->High;
    if (csr == ALL_ONES)
        return FALSE;
    csr &= ~INTCSR_LINT1_HIGH;
    Put(p->Plx, PLX_INTCSR, csr | (p->High ? INTCSR_LINT1_HIGH : 0));
    return TRUE;
}

/* ---- presses ---- */

static VOID PressDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PPLXLAMPS p = Context;
    PIRP irp = NULL;
    ULONG presses = 0;
    PRESS press;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&p->Ak.HwLock);
    if (p->On) {
        presses = Get(p->Panel, PANEL_PRESSES);
        if (presses == ALL_ONES) {
            presses = 0; /* pulled */
        } else {
            Put(p->Panel, PANEL_PRESSES, presses);
            KeSynchronizeExecution(p->Interrupt, SyncUnmask, p);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&p->Ak.HwLock);
    if (presses == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    p->Press.Number++;
    p->Press.Buttons = presses;
    press = p->Press;
    if (p->Current && !p->Over) {
        p->Over = TRUE;
        if (KeCancelTimer(&p->Limit)) {
            irp = p->Current;
            p->Current = NULL;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    if (irp) {
        *(PPRESS)irp->AssociatedIrp.SystemBuffer = press;
        AkDone(&p->Ak, irp, STATUS_SUCCESS, sizeof press);
    }
}

static VOID LimitDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PPLXLAMPS p = Context;
    BOOLEAN over;
    PRESS press;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    irp = p->Current;
    p->Current = NULL;
    over = p->Over;
    press = p->Press;
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    if (!irp)
        return;
    if (over)
        *(PPRESS)irp->AssociatedIrp.SystemBuffer = press;
    AkDone(&p->Ak, irp, over ? STATUS_SUCCESS : STATUS_IO_TIMEOUT, over ? sizeof press : 0);
}

/* A wait; one at a time, for three seconds at most. */
static VOID PlxlampsStartIo(PAK k, PIRP Irp)
{
    PPLXLAMPS p = (PPLXLAMPS)k;
    ULONG seen = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    BOOLEAN now = FALSE;
    LARGE_INTEGER limit;
    PRESS press;
    KIRQL irql;

    KeAcquireSpinLock(&p->Lock, &irql);
    press = p->Press;
    if (press.Number != seen) {
        now = TRUE;
    } else {
        p->Current = Irp;
        p->Over = FALSE;
        limit.QuadPart = -(LONGLONG)LIMIT_100NS;
        KeSetTimer(&p->Limit, limit, &p->LimitDpc);
    }
    KeReleaseSpinLock(&p->Lock, irql);
    if (now) {
        *(PPRESS)Irp->AssociatedIrp.SystemBuffer = press;
        AkDone(k, Irp, STATUS_SUCCESS, sizeof press);
    }
}

static NTSTATUS PlxlampsIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    PPLXLAMPS p = (PPLXLAMPS)k;
    PULONG in = Irp->AssociatedIrp.SystemBuffer;
    POLARITY polarity;
    NTSTATUS status;
    KIRQL irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PLXLAMPS_WAIT:
        if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof *in || s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PRESS))
            return STATUS_INVALID_PARAMETER;
        return AkQueue(k, Irp);

    case IOCTL_PLXLAMPS_LAMPS:
        if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof *in)
            return STATUS_INVALID_PARAMETER;
        status = AkEnter(k);
        if (NT_SUCCESS(status)) {
            KeAcquireSpinLock(&p->Lock, &irql);
            p->Lamps = *in;
            Put(p->Panel, PANEL_LAMPS, p->Lamps);
            KeReleaseSpinLock(&p->Lock, irql);
            AkLeave(k);
        }
        return status;

    case IOCTL_PLXLAMPS_POLARITY:
        if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof *in || *in > 1)
            return STATUS_INVALID_PARAMETER;
        polarity.Device = p;
        polarity.High = (BOOLEAN)*in;
        status = AkEnter(k);
        if (NT_SUCCESS(status)) {
#ifdef FIXED
            if (!KeSynchronizeExecution(p->Interrupt, SyncPolarity, &polarity))
                status = STATUS_DEVICE_NOT_CONNECTED;
#else
            if (!SyncPolarity(&polarity))
                status = STATUS_DEVICE_NOT_CONNECTED;
#endif
            AkLeave(k);
        }
        return status;

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID Unmap(PPLXLAMPS p)
{
    if (p->Panel)
        MmUnmapIoSpace(p->Panel, PANEL_SIZE);
    if (p->Plx)
        MmUnmapIoSpace(p->Plx, PLX_SIZE);
    p->Panel = p->Plx = NULL;
}

/* Before the ISR is connected: the card must not interrupt yet. */
static NTSTATUS Quieten(PPLXLAMPS p)
{
    ULONG csr = Get(p->Plx, PLX_INTCSR);

    if (csr == ALL_ONES)
        return STATUS_NO_SUCH_DEVICE;
    Put(p->Plx, PLX_INTCSR, csr & ~INTCSR_PCI_ENABLE);
    return STATUS_SUCCESS;
}

static NTSTATUS PlxlampsStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PPLXLAMPS p = (PPLXLAMPS)k;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR plx = AkMemory(Translated, 0), panel = AkMemory(Translated, 1), line = AkLine(Translated);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Raw);
    if (!plx || !panel || !line || plx->u.Memory.Length < PLX_SIZE || panel->u.Memory.Length < PANEL_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    p->Plx = MmMapIoSpace(plx->u.Memory.Start, PLX_SIZE, MmNonCached);
    p->Panel = MmMapIoSpace(panel->u.Memory.Start, PANEL_SIZE, MmNonCached);
    if (!p->Plx || !p->Panel)
        status = STATUS_INSUFFICIENT_RESOURCES;
    else
        status = Quieten(p);
    if (NT_SUCCESS(status))
        status = AkConnect(line, Isr, p, &p->Interrupt);
    if (!NT_SUCCESS(status)) {
        Unmap(p);
        return status;
    }
    Put(p->Panel, PANEL_LAMPS, p->Lamps);
    KeSynchronizeExecution(p->Interrupt, SyncOn, p);
    return STATUS_SUCCESS;
}

static VOID PlxlampsStop(PAK k, BOOLEAN Touch)
{
    PPLXLAMPS p = (PPLXLAMPS)k;
    KIRQL irql;

    KeAcquireSpinLock(&k->HwLock, &irql); /* so that no DPC is at the panel */
    KeSynchronizeExecution(p->Interrupt, Touch ? SyncOff : SyncForget, p);
    KeReleaseSpinLock(&k->HwLock, irql);
    IoDisconnectInterrupt(p->Interrupt);
    KeFlushQueuedDpcs();
    p->Interrupt = NULL;
    Unmap(p);
}

static VOID PlxlampsPowerDown(PAK k)
{
    KeSynchronizeExecution(((PPLXLAMPS)k)->Interrupt, SyncOff, k);
}

static VOID PlxlampsPowerUp(PAK k)
{
    PPLXLAMPS p = (PPLXLAMPS)k;

    Put(p->Panel, PANEL_LAMPS, p->Lamps);
    KeSynchronizeExecution(p->Interrupt, SyncOn, p);
}

static NTSTATUS PlxlampsInit(PAK k)
{
    PPLXLAMPS p = (PPLXLAMPS)k;

    KeInitializeSpinLock(&p->Lock);
    KeInitializeDpc(&p->Dpc, PressDpc, p);
    KeInitializeTimer(&p->Limit);
    KeInitializeDpc(&p->LimitDpc, LimitDpc, p);
    return STATUS_SUCCESS;
}

static const AK_OPS AkOps = {
    .Interface = &PlxlampsGuid,
    .ExtSize = sizeof(PLXLAMPS),
    .DeviceFlags = DO_BUFFERED_IO,
    .Init = PlxlampsInit,
    .Start = PlxlampsStart,
    .Stop = PlxlampsStop,
    .PowerDown = PlxlampsPowerDown,
    .PowerUp = PlxlampsPowerUp,
    .Io = PlxlampsIo,
    .StartIo = PlxlampsStartIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
