/*
 * plxpipe: a command processor behind a PLX PCI 9050/9052. IOCTL_PP_COMMAND hands it a command
 * with an argument and ends with the result when it interrupts; a watchdog resets the processor and
 * fails the command after two seconds.
 * INTCSR (BAR0 + 0x4C): bit 0 LINTi1 enable, 2 status, 6 PCI interrupt enable. Local space (BAR2,
 * memory): 0x00 argument, 0x04 command (writing starts it), 0x08 result, 0x0C state (1 busy, 2 done:
 * drives LINTi1, cleared by writing 2), 0x10 reset (write 1; reads 0 when done).
 *
 * The bug: the watchdog takes the request away only after the reset, so that the interrupt's DPC may complete it as well meanwhile.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: use-after-free, double-completion
 * Needs: device, schedule
 */
#include "../include/pausing_frame.h"

#define INTCSR     0x4C
#define I_ENABLE   0x01u
#define I_POLARITY 0x02u
#define I_STATUS   0x04u
#define I_PCI      0x40u
#define L_ARG      0x00
#define L_COMMAND  0x04
#define L_RESULT   0x08
#define L_STATE    0x0C
#define L_RESET    0x10
#define S_DONE     2u
#define LIMIT      (2 * 10000000ull)

#define IOCTL_PP_COMMAND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PP_STATS   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID PipeInterface = { 0x61c3fe1b, 0x8a57, 0x4b19, { 0xa6, 0x0d, 0x18, 0x44, 0x5b, 0x90, 0x2e, 0x03 } };

typedef struct { ULONG Command, Argument; } PP_COMMAND;
typedef struct { ULONG Commands, Timeouts; } PP_STATS;

typedef struct {
    FRAME Frame;
    FRQ Queue;
    PUCHAR Plx;
    PUCHAR Local;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock;        /* guards what follows */
    BOOLEAN Engaged;        /* a command is being executed or ended; holds the gate */
    PIRP Current;           /* who takes it completes it */
    ULONG64 Deadline;
    PP_STATS Stats;
} PIPE, *PPIPE;

static inline ULONG Rd(PUCHAR Base, ULONG R) { return READ_REGISTER_ULONG((PULONG)(Base + R)); }
static inline VOID Wr(PUCHAR Base, ULONG R, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(Base + R), V); }

static VOID ArmTimer(PPIPE P)
{
    LARGE_INTEGER due;
    due.QuadPart = -(LONGLONG)LIMIT;
    KeSetTimer(&P->Timer, due, &P->TimerDpc);
}

static VOID StartNext(PPIPE P)
{
    KIRQL irql;
    PIRP irp;
    KeAcquireSpinLock(&P->Lock, &irql);
    if (!P->Engaged && FrTryEnter(&P->Frame)) {
        irp = FrqTake(&P->Queue, NULL);
        if (irp) {
            PP_COMMAND *c = irp->AssociatedIrp.SystemBuffer;
            P->Engaged = TRUE;
            P->Current = irp;
            P->Deadline = KeQueryInterruptTime() + LIMIT;
            P->Stats.Commands++;
            ArmTimer(P);
            Wr(P->Local, L_ARG, c->Argument);
            Wr(P->Local, L_COMMAND, c->Command);
        } else
            FrLeave(&P->Frame);
    }
    KeReleaseSpinLock(&P->Lock, irql);
}

/* completes a request that the caller has taken away */
static VOID Finish(PPIPE P, PIRP Irp, NTSTATUS Status, ULONG Result)
{
    KIRQL irql;
    if (NT_SUCCESS(Status)) {
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = Result;
        Irp->IoStatus.Information = sizeof(ULONG);
    }
    FrDone(&P->Frame, Irp, Status);
    KeAcquireSpinLock(&P->Lock, &irql);
    P->Engaged = FALSE;
    KeReleaseSpinLock(&P->Lock, irql);
    StartNext(P);
    FrLeave(&P->Frame);
}

static VOID ResetProcessor(PPIPE P)
{
    ULONG i;
    Wr(P->Local, L_RESET, 1);
    for (i = 0; i < 20 && Rd(P->Local, L_RESET) != 0; i++)
        KeStallExecutionProcessor(2);
    Wr(P->Local, L_STATE, S_DONE);
}

static VOID DoneDpc(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    PPIPE p = Ctx;
    PIRP irp;
    ULONG result = 0;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    irp = p->Current;
    if (irp) {
        ULONG state = Rd(p->Local, L_STATE);
        if (state == 0xFFFFFFFF || (state & 1))
            irp = NULL;             /* gone, or an old interrupt */
        else {
            result = Rd(p->Local, L_RESULT);
            p->Current = NULL;
            KeCancelTimer(&p->Timer);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    if (irp)
        Finish(p, irp, STATUS_SUCCESS, result);
}

static VOID WatchdogDpc(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    PPIPE p = Ctx;
    PIRP irp;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    irp = p->Current;
    if (irp && KeQueryInterruptTime() < p->Deadline) {
        ArmTimer(p);                /* of the one before, or early by a tick */
        irp = NULL;
    }
    if (irp) {
        p->Stats.Timeouts++;
#ifdef FIXED
        p->Current = NULL;
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    if (!irp)
        return;
    ResetProcessor(p);
#ifndef FIXED
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    p->Current = NULL;
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
#endif
    Finish(p, irp, STATUS_IO_TIMEOUT, 0);
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Ctx)
{
    PPIPE p = Ctx;
    ULONG v = Rd(p->Plx, INTCSR);
    UNREFERENCED_PARAMETER(Interrupt);
    if (v == 0xFFFFFFFF || (v & (I_ENABLE | I_STATUS | I_PCI)) != (I_ENABLE | I_STATUS | I_PCI))
        return FALSE;
    Wr(p->Local, L_STATE, S_DONE);
    KeInsertQueueDpc(&p->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN Enable(PVOID Ctx)
{
    Wr(((PPIPE)Ctx)->Plx, INTCSR, I_ENABLE | I_POLARITY | I_PCI);
    return TRUE;
}

static BOOLEAN Disable(PVOID Ctx)
{
    Wr(((PPIPE)Ctx)->Plx, INTCSR, I_POLARITY);
    return TRUE;
}

/* the gate is closed: a command in execution ends or meets the watchdog; only a card that is gone won't answer */
static VOID Abort(PDEVICE_OBJECT Dev, BOOLEAN Gone)
{
    PPIPE p = Dev->DeviceExtension;
    KIRQL irql;
    PIRP irp;
    if (!Gone)
        return;
    KeAcquireSpinLock(&p->Lock, &irql);
    irp = p->Current;
    p->Current = NULL;
    KeReleaseSpinLock(&p->Lock, irql);
    if (irp)
        Finish(p, irp, STATUS_DEVICE_REMOVED, 0);
}

static VOID Stop(PDEVICE_OBJECT Dev)
{
    PPIPE p = Dev->DeviceExtension;
    if (p->Interrupt) {
        KeSynchronizeExecution(p->Interrupt, Disable, p);
        IoDisconnectInterrupt(p->Interrupt);
        p->Interrupt = NULL;
    }
    KeCancelTimer(&p->Timer);       /* no command is left that would set it again */
    KeFlushQueuedDpcs();
    if (p->Local)
        MmUnmapIoSpace(p->Local, 0x20);
    p->Local = NULL;
    if (p->Plx)
        MmUnmapIoSpace(p->Plx, 0x54);
    p->Plx = NULL;
}

static NTSTATUS Start(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw)
{
    PPIPE p = Dev->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR plx = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR local = FrResource(Translated, CmResourceTypeMemory, 1);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FrResource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Raw);
    if (!plx || !local || !irq || plx->u.Memory.Length < 0x54 || local->u.Memory.Length < 0x20)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    p->Plx = MmMapIoSpace(plx->u.Memory.Start, 0x54, MmNonCached);
    p->Local = MmMapIoSpace(local->u.Memory.Start, 0x20, MmNonCached);
    if (!p->Plx || !p->Local) {
        Stop(Dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Wr(p->Plx, INTCSR, I_POLARITY);
    ResetProcessor(p);
    status = FrConnect(&p->Interrupt, Isr, p, irq);
    if (!NT_SUCCESS(status)) {
        p->Interrupt = NULL;
        Stop(Dev);
        return status;
    }
    KeSynchronizeExecution(p->Interrupt, Enable, p);
    return STATUS_SUCCESS;
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    PPIPE p = Dev->DeviceExtension;
    KeSynchronizeExecution(p->Interrupt, Disable, p);
    KeFlushQueuedDpcs();
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PPIPE p = Dev->DeviceExtension;
    ResetProcessor(p);
    KeSynchronizeExecution(p->Interrupt, Enable, p);
}

static VOID Kick(PDEVICE_OBJECT Dev) { StartNext(Dev->DeviceExtension); }
static VOID Flush(PDEVICE_OBJECT Dev) { FrqShut(&((PPIPE)Dev->DeviceExtension)->Queue); }
static VOID Cleanup(PDEVICE_OBJECT Dev, PFILE_OBJECT File) { FrqCancelFile(&((PPIPE)Dev->DeviceExtension)->Queue, File); }

static NTSTATUS Io(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PPIPE p = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL irql;
    NTSTATUS status;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PP_COMMAND:
        if (in < sizeof(PP_COMMAND) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        status = FrqPut(&p->Queue, Irp);
        if (status == STATUS_PENDING)
            StartNext(p);
        return status;
    case IOCTL_PP_STATS:
        if (out < sizeof(PP_STATS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&p->Lock, &irql);
        *(PP_STATS *)Irp->AssociatedIrp.SystemBuffer = p->Stats;
        KeReleaseSpinLock(&p->Lock, irql);
        Irp->IoStatus.Information = sizeof(PP_STATS);
        return STATUS_SUCCESS;
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
    PPIPE p;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(PIPE), &Ops, &PipeInterface, 0, &dev);
    if (!NT_SUCCESS(status))
        return status;
    p = dev->DeviceExtension;
    KeInitializeSpinLock(&p->Lock);
    KeInitializeDpc(&p->Dpc, DoneDpc, p);
    KeInitializeDpc(&p->TimerDpc, WatchdogDpc, p);
    KeInitializeTimer(&p->Timer);
    status = FrqInit(&p->Queue, &p->Frame);
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
