/*
 * eduirq2: factorials and doorbells with QEMU's edu device. IOCTL_EI_FACTORIAL starts a
 * factorial and ends when the card interrupts; IOCTL_EI_RING raises doorbells (bits 9..31),
 * IOCTL_EI_WAIT waits for the next ones (its answer: the bits rung since the last answer).
 * Registers used (BAR0): 0x08 factorial, 0x20 status (1 computing, 0x80 interrupt at the
 * end), 0x24 interrupt status, 0x60 raise interrupt, 0x64 acknowledge. Interrupt bit 0: factorial.
 *
 * The bug: the interrupt service routine overwrites the causes which its DPC has not yet fetched.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten, irp-never-completed
 * Needs: schedule, device
 */
#include "../include/pausing_frame.h"

#define REG_FACT    0x08
#define REG_STATUS  0x20
#define REG_ISTATUS 0x24
#define REG_RAISE   0x60
#define REG_IACK    0x64
#define ST_COMPUTING 0x01u
#define ST_IRQFACT   0x80u
#define IRQ_FACT     0x01u
#define BELLS        0xFFFFFE00u

#define IOCTL_EI_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_EI_RING      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_EI_WAIT      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E2, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID IrqInterface = { 0x2f6e90a8, 0x5e0c, 0x47d5, { 0x8d, 0x41, 0x6c, 0x33, 0x0a, 0x1b, 0x72, 0x02 } };

typedef struct {
    FRAME Frame;
    FRQ Factorials;
    FRQ Waits;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    volatile LONG Causes;       /* from the ISR to the DPC */
    KSPIN_LOCK Lock;            /* guards what follows */
    PIRP Current;               /* factorial being computed; holds the gate */
    ULONG Rung;
} CARD, *PCARD;

static inline ULONG Rd(PCARD C, ULONG R) { return READ_REGISTER_ULONG((PULONG)(C->Regs + R)); }
static inline VOID Wr(PCARD C, ULONG R, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(C->Regs + R), V); }

static VOID StartNext(PCARD C)
{
    KIRQL irql;
    PIRP irp;
    KeAcquireSpinLock(&C->Lock, &irql);
    if (!C->Current && FrTryEnter(&C->Frame)) {
        irp = FrqTake(&C->Factorials, NULL);
        if (irp) {
            C->Current = irp;
            Wr(C, REG_STATUS, ST_IRQFACT);
            Wr(C, REG_FACT, *(ULONG *)irp->AssociatedIrp.SystemBuffer);
        } else
            FrLeave(&C->Frame);
    }
    KeReleaseSpinLock(&C->Lock, irql);
}

/* takes the current request away if there is one (and it is done, if asked so) and completes it */
static VOID EndCurrent(PCARD C, BOOLEAN IfDone, NTSTATUS Status)
{
    KIRQL irql;
    PIRP irp;
    ULONG status = 0, result = 0;
    KeAcquireSpinLock(&C->Lock, &irql);
    irp = C->Current;
    if (irp && IfDone) {
        status = Rd(C, REG_STATUS);
        result = Rd(C, REG_FACT);
        if (status == 0xFFFFFFFF)
            Status = STATUS_DEVICE_NOT_CONNECTED;
        else if (status & ST_COMPUTING)
            irp = NULL;
    }
    if (irp)
        C->Current = NULL;
    KeReleaseSpinLock(&C->Lock, irql);
    if (!irp)
        return;
    if (NT_SUCCESS(Status)) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = result;
        irp->IoStatus.Information = sizeof(ULONG);
    }
    FrDone(&C->Frame, irp, Status);
    FrLeave(&C->Frame);
}

/* gives the bells that were rung to a waiting request, if there are both */
static VOID Deliver(PCARD C, ULONG More)
{
    KIRQL irql;
    PIRP irp = NULL;
    ULONG bells = 0;
    KeAcquireSpinLock(&C->Lock, &irql);
    C->Rung |= More;
    if (C->Rung) {
        irp = FrqTake(&C->Waits, NULL);
        if (irp) {
            bells = C->Rung;
            C->Rung = 0;
        }
    }
    KeReleaseSpinLock(&C->Lock, irql);
    if (irp) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = bells;
        irp->IoStatus.Information = sizeof(ULONG);
        FrDone(&C->Frame, irp, STATUS_SUCCESS);
    }
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Ctx)
{
    PCARD c = Ctx;
    ULONG status = Rd(c, REG_ISTATUS);
    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0 || status == 0xFFFFFFFF)
        return FALSE;
    Wr(c, REG_IACK, status);
#ifdef FIXED
    InterlockedOr(&c->Causes, (LONG)status);
#else
    InterlockedExchange(&c->Causes, (LONG)status);
#endif
    KeInsertQueueDpc(&c->Dpc, NULL, NULL);
    return TRUE;
}

static VOID DpcRoutine(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    PCARD c = Ctx;
    ULONG causes = (ULONG)InterlockedExchange(&c->Causes, 0);
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    if (causes & IRQ_FACT) {
        EndCurrent(c, TRUE, STATUS_SUCCESS);
        StartNext(c);
    }
    if (causes & BELLS)
        Deliver(c, causes & BELLS);
}

/* the gate is closed: let the computation end, but not for ever */
static VOID Abort(PDEVICE_OBJECT Dev, BOOLEAN Gone)
{
    PCARD c = Dev->DeviceExtension;
    LARGE_INTEGER wait;
    ULONG i;
    wait.QuadPart = -10000LL * 10;
    for (i = 0; i < 100 && !Gone && c->Current; i++)
        KeDelayExecutionThread(KernelMode, FALSE, &wait);
    EndCurrent(c, FALSE, Gone ? STATUS_DEVICE_REMOVED : STATUS_IO_TIMEOUT);
}

static VOID Stop(PDEVICE_OBJECT Dev)
{
    PCARD c = Dev->DeviceExtension;
    if (c->Interrupt)
        IoDisconnectInterrupt(c->Interrupt);
    c->Interrupt = NULL;
    KeFlushQueuedDpcs();
    if (c->Regs)
        MmUnmapIoSpace(c->Regs, 0x100);
    c->Regs = NULL;
}

static NTSTATUS Start(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw)
{
    PCARD c = Dev->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FrResource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Raw);
    if (!mem || !irq || mem->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    c->Regs = MmMapIoSpace(mem->u.Memory.Start, 0x100, MmNonCached);
    if (!c->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    c->Causes = 0;
    Wr(c, REG_STATUS, 0);
    Wr(c, REG_IACK, Rd(c, REG_ISTATUS));
    status = FrConnect(&c->Interrupt, Isr, c, irq);
    if (!NT_SUCCESS(status)) {
        c->Interrupt = NULL;
        Stop(Dev);
    }
    return status;
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    PCARD c = Dev->DeviceExtension;
    Wr(c, REG_STATUS, 0);
    KeFlushQueuedDpcs();
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PCARD c = Dev->DeviceExtension;
    Wr(c, REG_STATUS, 0);       /* each factorial enables its interrupt anew */
}

static VOID Kick(PDEVICE_OBJECT Dev) { StartNext(Dev->DeviceExtension); }

static VOID Flush(PDEVICE_OBJECT Dev)
{
    PCARD c = Dev->DeviceExtension;
    FrqShut(&c->Factorials);
    FrqShut(&c->Waits);
}

static VOID Cleanup(PDEVICE_OBJECT Dev, PFILE_OBJECT File)
{
    PCARD c = Dev->DeviceExtension;
    FrqCancelFile(&c->Factorials, File);
    FrqCancelFile(&c->Waits, File);
}

static NTSTATUS Io(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PCARD c = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength, bells;
    NTSTATUS status;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EI_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*(ULONG *)Irp->AssociatedIrp.SystemBuffer > 12)
            return STATUS_INTEGER_OVERFLOW;
        status = FrqPut(&c->Factorials, Irp);
        if (status == STATUS_PENDING)
            StartNext(c);
        return status;
    case IOCTL_EI_RING:
        if (in < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        bells = *(ULONG *)Irp->AssociatedIrp.SystemBuffer & BELLS;
        if (!bells || bells == BELLS)
            return STATUS_INVALID_PARAMETER;
        status = FrEnter(&c->Frame);
        if (NT_SUCCESS(status)) {
            Wr(c, REG_RAISE, bells);
            FrLeave(&c->Frame);
        }
        return status;
    case IOCTL_EI_WAIT:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        status = FrqPut(&c->Waits, Irp);
        if (status == STATUS_PENDING)
            Deliver(c, 0);
        return status;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const FRAME_OPS Ops = {
    .Start = Start, .Stop = Stop, .Abort = Abort, .Flush = Flush, .PowerDown = PowerDown, .PowerUp = PowerUp,
    .Kick = Kick, .Cleanup = Cleanup, .Io = Io
};

static NTSTATUS Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PCARD c;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(CARD), &Ops, &IrqInterface, 0, &dev);
    if (!NT_SUCCESS(status))
        return status;
    c = dev->DeviceExtension;
    KeInitializeSpinLock(&c->Lock);
    KeInitializeDpc(&c->Dpc, DpcRoutine, c);
    status = FrqInit(&c->Factorials, &c->Frame);
    if (NT_SUCCESS(status))
        status = FrqInit(&c->Waits, &c->Frame);
    if (!NT_SUCCESS(status)) {
        FrUnadd(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    FrInit(Driver, Add);
    return STATUS_SUCCESS;
}
