/*
 * evmask: an alarm panel with 24 inputs. The card (BAR0, 256 bytes): 0x00 identification 0x1DA70003; 0x04 MASK (inputs that may raise the interrupt);
 * 0x08 EVENT (inputs that have changed; reading clears it and the interrupt; bits 24-31 read 0); 0x0C STATE of the inputs. A program waits for events
 * and gets all that came since the last time, or a time-out after two seconds.
 *
 * The bug: the DPC fetches the events the interrupt routine has gathered by reading and then zeroing the word without holding the interrupt off; events
 * that come between the two are lost.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: data-race
 * Needs: schedule
 */
#include "../include/served_by_ticks.h"

#define REG_ID 0x00
#define REG_MASK 0x04
#define REG_EVENT 0x08
#define REG_STATE 0x0C
#define CARD_IS 0x1DA70003u
#define INPUTS 0x00FFFFFFu
#define WINDOW 0x100

#define IOCTL_ALARM_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xD00, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ALARM_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xD01, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID AlarmInterface = { 0x6d1d0a5e, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x0e } };

typedef struct _DEV {
    BF B;
    PVOID Regs;
    PKINTERRUPT Irq;
    KDPC Dpc;
    BOOLEAN Powered;        /* this and Gathered: with the interrupt held off */
    volatile ULONG Gathered;
    ULONG Latched; /* what no reader has taken; under B.Lock */
} DEV, *PDEV;

/* With the interrupt held off. TRUE if there were events. */
static BOOLEAN NTAPI Gather(PVOID context)
{
    PDEV d = context;
    ULONG events;

    if (!d->Powered)
        return FALSE;
    events = BfIn(d->Regs, REG_EVENT);
    if (events == 0 || events == ~0u)
        return FALSE;
    d->Gathered |= events & INPUTS;
    return TRUE;
}

static BOOLEAN NTAPI Isr(PKINTERRUPT irq, PVOID context)
{
    PDEV d = context;

    UNREFERENCED_PARAMETER(irq);
    if (!Gather(d))
        return FALSE;
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI Disarm(PVOID context)
{
    PDEV d = context;

    if (d->Powered)
        BfOut(d->Regs, REG_MASK, 0);
    d->Powered = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI Arm(PVOID context)
{
    PDEV d = context;

    d->Powered = TRUE;
    BfOut(d->Regs, REG_MASK, INPUTS);
    return TRUE;
}

#ifdef FIXED
typedef struct _FETCH {
    PDEV Dev;
    ULONG Events;
} FETCH, *PFETCH;

static BOOLEAN NTAPI FetchGathered(PVOID context)
{
    PFETCH fetch = context;

    fetch->Events = fetch->Dev->Gathered;
    fetch->Dev->Gathered = 0;
    return TRUE;
}
#endif

static ULONG Fetch(PDEV d)
{
#ifdef FIXED
    FETCH fetch = { d, 0 };

    KeSynchronizeExecution(d->Irq, FetchGathered, &fetch);
    return fetch.Events;
#else
    ULONG events = d->Gathered;

    d->Gathered = 0;
    return events;
#endif
}

static VOID Deliver(PDEV d)
{
    PBF b = &d->B;
    PIRP irp = NULL;
    ULONG events = 0;

    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    d->Latched |= Fetch(d);
    if (b->Active && d->Latched) {
        irp = b->Active;
        b->Active = NULL;
        events = d->Latched;
        d->Latched = 0;
    }
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    if (!irp)
        return;
    *(PULONG)irp->AssociatedIrp.SystemBuffer = events;
    BfDone(b, irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI IrqDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    Deliver(context);
}

/* Finds events whose interrupt was lost. */
static VOID Poll(PBF b)
{
    PDEV d = (PDEV)b;

    if (KeSynchronizeExecution(d->Irq, Gather, d))
        Deliver(d);
}

static NTSTATUS Start(PBF b, PBF_RES res)
{
    PDEV d = (PDEV)b;
    PKINTERRUPT irq;
    NTSTATUS st = STATUS_DEVICE_CONFIGURATION_ERROR;

    if (res->Windows < 1 || res->Window[0].Size < WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Regs = MmMapIoSpace(res->Window[0].At, WINDOW, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (BfIn(d->Regs, REG_ID) != CARD_IS)
        goto unmap;
    BfOut(d->Regs, REG_MASK, 0);
    (void)BfIn(d->Regs, REG_EVENT);
    d->Powered = FALSE;
    st = BfConnect(res, Isr, d, &irq);
    if (!NT_SUCCESS(st))
        goto unmap;
    d->Irq = irq;
    KeSynchronizeExecution(irq, Arm, d);
    return STATUS_SUCCESS;

unmap:
    MmUnmapIoSpace(d->Regs, WINDOW);
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
    MmUnmapIoSpace(d->Regs, WINDOW);
    d->Regs = NULL;
}

static VOID PowerDown(PBF b)
{
    PDEV d = (PDEV)b;

    KeSynchronizeExecution(d->Irq, Disarm, d);
}

static VOID PowerUp(PBF b)
{
    PDEV d = (PDEV)b;

    KeSynchronizeExecution(d->Irq, Arm, d);
}

static NTSTATUS StartIo(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    PULONG out = irp->AssociatedIrp.SystemBuffer;

    if (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_ALARM_STATE) {
        *out = BfIn(d->Regs, REG_STATE);
        if (*out == ~0u)
            return STATUS_DEVICE_NOT_CONNECTED;
    } else {
        if (!d->Latched)
            return STATUS_PENDING; /* until the next event */
        *out = d->Latched;
        d->Latched = 0;
    }
    irp->IoStatus.Information = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static VOID Expire(PBF b, PIRP irp)
{
    BfDone(b, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    UNREFERENCED_PARAMETER(b);
    UNREFERENCED_PARAMETER(irp);
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ALARM_WAIT:
    case IOCTL_ALARM_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return BF_QUEUE;
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
    .Interface = &AlarmInterface,
    .Limit = 20,
    .Add = Add,
    .Start = Start,
    .Stop = Stop,
    .PowerDown = PowerDown,
    .PowerUp = PowerUp,
    .StartIo = StartIo,
    .Poll = Poll,
    .Expire = Expire,
    .Io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
