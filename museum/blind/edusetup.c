/*
 * edusetup: factorials from an edu card with its interrupt; a poll ten times a second finds results whose interrupt was lost.
 *
 * The bug: when the interrupt cannot be connected, the start unmaps the registers but keeps the pointer; the removal that follows takes them for mapped
 * and unmaps them a second time.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: io-space-unmap
 * Needs: failure
 */
#include "../include/served_by_ticks.h"

#define EDU_ID 0x00
#define EDU_FACT 0x08
#define EDU_STATUS 0x20
#define EDU_IRQ 0x24
#define EDU_ACK 0x64
#define EDU_IS 0x010000edu
#define BUSY 0x01u
#define FACT_IRQ 0x80u
#define WINDOW 0x100

#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB10, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FACT_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB11, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID FactInterface = { 0x6d1d0a57, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x07 } };

typedef struct _DEV {
    BF B;
    PVOID Regs;
    PKINTERRUPT Irq;
    KDPC Dpc;
    volatile BOOLEAN Powered; /* changed with the interrupt held off */
    volatile LONG Done, Late;
} DEV, *PDEV;

static BOOLEAN NTAPI Isr(PKINTERRUPT irq, PVOID context)
{
    PDEV d = context;
    ULONG cause;

    UNREFERENCED_PARAMETER(irq);
    if (!d->Powered)
        return FALSE;
    cause = BfIn(d->Regs, EDU_IRQ);
    if (cause == 0 || cause == ~0u)
        return FALSE;
    BfOut(d->Regs, EDU_ACK, cause);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI Quiet(PVOID context)
{
    PDEV d = context;

    if (d->Powered) {
        BfOut(d->Regs, EDU_STATUS, 0);
        BfOut(d->Regs, EDU_ACK, ~0u);
    }
    d->Powered = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI Wake(PVOID context)
{
    PDEV d = context;

    d->Powered = TRUE;
    return TRUE;
}

/* From the interrupt and from the poll. */
static VOID Look(PBF b)
{
    PDEV d = (PDEV)b;
    PIRP irp = NULL;
    ULONG value = 0;

    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    if (b->Active && !(BfIn(d->Regs, EDU_STATUS) & BUSY)) {
        irp = b->Active;
        b->Active = NULL;
        value = BfIn(d->Regs, EDU_FACT);
    }
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    if (!irp)
        return;
    InterlockedIncrement(&d->Done);
    if (value == ~0u) {
        BfDone(b, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return;
    }
    *(PULONG)irp->AssociatedIrp.SystemBuffer = value;
    BfDone(b, irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI IrqDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    Look(context);
}

/* Gives back what there is. */
static VOID Release(PDEV d)
{
    if (d->Irq) {
        KeSynchronizeExecution(d->Irq, Quiet, d);
        IoDisconnectInterrupt(d->Irq);
        d->Irq = NULL;
        KeFlushQueuedDpcs();
    }
    if (d->Regs) {
        MmUnmapIoSpace(d->Regs, WINDOW);
        d->Regs = NULL;
    }
}

static NTSTATUS Start(PBF b, PBF_RES res)
{
    PDEV d = (PDEV)b;
    NTSTATUS st;

    if (res->Windows < 1 || res->Window[0].Size < WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Regs = MmMapIoSpace(res->Window[0].At, WINDOW, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (BfIn(d->Regs, EDU_ID) != EDU_IS) {
        Release(d);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    BfOut(d->Regs, EDU_STATUS, 0);
    BfOut(d->Regs, EDU_ACK, ~0u);
    d->Powered = TRUE;
    st = BfConnect(res, Isr, d, &d->Irq);
    if (!NT_SUCCESS(st)) {
        d->Irq = NULL;
        d->Powered = FALSE;
        MmUnmapIoSpace(d->Regs, WINDOW);
#ifdef FIXED
        d->Regs = NULL;
#endif
        return st;
    }
    return STATUS_SUCCESS;
}

static VOID Stop(PBF b)
{
    Release((PDEV)b);
}

static VOID Remove(PBF b)
{
    Release((PDEV)b);
}

static VOID PowerDown(PBF b)
{
    PDEV d = (PDEV)b;

    KeSynchronizeExecution(d->Irq, Quiet, d);
}

static VOID PowerUp(PBF b)
{
    PDEV d = (PDEV)b;

    KeSynchronizeExecution(d->Irq, Wake, d);
}

static NTSTATUS StartIo(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    ULONG status = BfIn(d->Regs, EDU_STATUS);

    if (status == ~0u)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (status & BUSY) /* still at one that was given up */
        return STATUS_DEVICE_BUSY;
    BfOut(d->Regs, EDU_STATUS, FACT_IRQ);
    BfOut(d->Regs, EDU_FACT, *(PULONG)irp->AssociatedIrp.SystemBuffer);
    return STATUS_PENDING;
}

static VOID Expire(PBF b, PIRP irp)
{
    InterlockedIncrement(&((PDEV)b)->Late);
    BfDone(b, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PDEV d = (PDEV)b;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*buffer > 12) /* more does not fit 32 bits */
            return STATUS_INVALID_PARAMETER;
        return BF_QUEUE;

    case IOCTL_FACT_COUNTS:
        if (out < 2 * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        buffer[0] = (ULONG)d->Done;
        buffer[1] = (ULONG)d->Late;
        irp->IoStatus.Information = 2 * sizeof(ULONG);
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
    .Interface = &FactInterface,
    .Limit = 20,
    .Add = Add,
    .Start = Start,
    .Stop = Stop,
    .PowerDown = PowerDown,
    .PowerUp = PowerUp,
    .StartIo = StartIo,
    .Poll = Look,
    .Expire = Expire,
    .Io = Io,
    .Remove = Remove,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
