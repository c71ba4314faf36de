/*
 * plxwake: a pulse counter board behind a PLX 9050: every pulse is an edge on LINTi1. A program gives the count it knows and gets the next one, at
 * once or with the next pulse, or a time-out after two seconds.
 *
 * The bug: on the way back from D3 the interrupt control register, switched off on the way down, is not programmed again; no pulse is counted any more
 * until the device is started anew.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-timed-out, request-forgotten
 * Needs: power
 */
#include "../include/served_by_ticks.h"

#define LOCAL_REGS 0x54
#define INTCSR 0x4C

#define LINT1_ENABLE 0x001u
#define LINT1_HIGH 0x002u
#define LINT1_ACTIVE 0x004u
#define PCI_ENABLE 0x040u
#define LINT1_EDGE 0x100u
#define LINT1_CLEAR 0x400u
#define ARMED (LINT1_ENABLE | LINT1_HIGH | PCI_ENABLE | LINT1_EDGE)

#define IOCTL_PULSE_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC00, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PULSE_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC01, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID PulseInterface = { 0x6d1d0a59, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x09 } };

typedef struct _DEV {
    BF B;
    PVOID Regs;
    PKINTERRUPT Irq;
    KDPC Dpc;
    BOOLEAN Powered; /* this and New: with the interrupt held off */
    ULONG New;
    ULONG Pulses; /* under B.Lock */
} DEV, *PDEV;

static BOOLEAN NTAPI Isr(PKINTERRUPT irq, PVOID context)
{
    PDEV d = context;
    ULONG value;

    UNREFERENCED_PARAMETER(irq);
    if (!d->Powered)
        return FALSE;
    value = BfIn(d->Regs, INTCSR);
    if (value == ~0u || (value & (LINT1_ENABLE | LINT1_ACTIVE | PCI_ENABLE)) != (LINT1_ENABLE | LINT1_ACTIVE | PCI_ENABLE))
        return FALSE;
    BfOut(d->Regs, INTCSR, ARMED | LINT1_CLEAR);
    d->New++;
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI Disarm(PVOID context)
{
    PDEV d = context;

    if (d->Powered)
        BfOut(d->Regs, INTCSR, 0);
    d->Powered = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI Arm(PVOID context)
{
    PDEV d = context;

    d->Powered = TRUE;
    BfOut(d->Regs, INTCSR, ARMED | LINT1_CLEAR);
    return TRUE;
}

static BOOLEAN NTAPI TakeNew(PVOID context)
{
    PDEV d = context;

    d->Pulses += d->New; /* the caller has B.Lock */
    d->New = 0;
    return TRUE;
}

static VOID NTAPI IrqDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PDEV d = context;
    PBF b = &d->B;
    PIRP irp = NULL;
    ULONG before, pulses;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    before = d->Pulses;
    KeSynchronizeExecution(d->Irq, TakeNew, d);
    pulses = d->Pulses;
    if (b->Active && pulses != before) {
        irp = b->Active;
        b->Active = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    if (!irp)
        return;
    *(PULONG)irp->AssociatedIrp.SystemBuffer = pulses;
    BfDone(b, irp, STATUS_SUCCESS, sizeof(ULONG));
}

/*
 * The interrupt is connected while the card is quiet and armed afterwards: the first interrupt, and with it the first DPC, finds Irq set.
 */
static NTSTATUS Start(PBF b, PBF_RES res)
{
    PDEV d = (PDEV)b;
    PKINTERRUPT irq;
    NTSTATUS st;

    if (res->Windows < 1 || res->Window[0].Size < LOCAL_REGS)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Regs = MmMapIoSpace(res->Window[0].At, LOCAL_REGS, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (BfIn(d->Regs, INTCSR) == ~0u) {
        st = STATUS_DEVICE_NOT_CONNECTED;
        goto unmap;
    }
    BfOut(d->Regs, INTCSR, 0);
    d->Powered = FALSE;
    st = BfConnect(res, Isr, d, &irq);
    if (!NT_SUCCESS(st))
        goto unmap;
    d->Irq = irq;
    KeSynchronizeExecution(irq, Arm, d);
    return STATUS_SUCCESS;

unmap:
    MmUnmapIoSpace(d->Regs, LOCAL_REGS);
    d->Regs = NULL;
    return st;
}

static VOID Stop(PBF b)
{
    PDEV d = (PDEV)b;

    KeSynchronizeExecution(d->Irq, Disarm, d);
    KeFlushQueuedDpcs(); /* none is queued behind this: the DPC uses Irq */
    IoDisconnectInterrupt(d->Irq);
    d->Irq = NULL;
    MmUnmapIoSpace(d->Regs, LOCAL_REGS);
    d->Regs = NULL;
}

static VOID PowerDown(PBF b)
{
    PDEV d = (PDEV)b;

    KeSynchronizeExecution(d->Irq, Disarm, d);
}

static BOOLEAN NTAPI Awake(PVOID context)
{
#ifdef FIXED
    return Arm(context);
#else
    ((PDEV)context)->Powered = TRUE;
    return TRUE;
#endif
}

static VOID PowerUp(PBF b)
{
    PDEV d = (PDEV)b;

    KeSynchronizeExecution(d->Irq, Awake, d);
}

static NTSTATUS StartIo(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    PULONG known = irp->AssociatedIrp.SystemBuffer;

    if (*known == d->Pulses)
        return STATUS_PENDING; /* until the next one */
    *known = d->Pulses;
    irp->IoStatus.Information = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static VOID Expire(PBF b, PIRP irp)
{
    BfDone(b, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PDEV d = (PDEV)b;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL q;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PULSE_WAIT:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return BF_QUEUE;

    case IOCTL_PULSE_COUNT:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&b->Lock, &q);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = d->Pulses;
        KeReleaseSpinLock(&b->Lock, q);
        irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS Add(PBF b)
{
    PDEV d = (PDEV)b;

    KeInitializeDpc(&d->Dpc, IrqDpc, d);
    return STATUS_SUCCESS;
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &PulseInterface,
    .Limit = 20,
    .Add = Add,
    .Start = Start,
    .Stop = Stop,
    .PowerDown = PowerDown,
    .PowerUp = PowerUp,
    .StartIo = StartIo,
    .Expire = Expire,
    .Io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
