/*
 * factmill: factorials by QEMU's edu card: requests are queued, the card works on one at a time and
 * interrupts when it is done; a timer ends a request that the card does not answer within a time.
 *
 * The bug: the timer's DPC looks at the current request, and takes it, without the lock that the
 * interrupt's DPC takes it under: where both come at once, both complete it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, data-race, use-after-free, not-an-irp
 * Needs: schedule, device
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID MillInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x06 } };

#define IOCTL_MILL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MILL_STATS     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_ID         0x00
#define EDU_FACTORIAL  0x08
#define EDU_STATUS     0x20
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK    0x64
#define EDU_BUSY       0x01
#define EDU_IRQ_WHEN_DONE 0x80

#define MILL_MAX_N    12 /* 13! needs more than 32 bits */
#define MILL_LIMIT_MS 400

typedef struct _MILL_STATS {
    ULONG Done;
    ULONG TimedOut;
    ULONG Refused;
} MILL_STATS;

typedef struct _MILL_EXT {
    FR_DEV Frame;
    PUCHAR Regs;
    ULONG RegsLength;
    FR_IRQ Irq;
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    FR_QUEUE Queue;
    KSPIN_LOCK Lock; /* what follows; before the queue's lock */
    BOOLEAN Running;
    PIRP Current;
    ULONG64 Deadline; /* interrupt time; a little before the timer's, whose clock may be coarser */
    MILL_STATS Stats;
} MILL_EXT, *PMILL_EXT;

static ULONG MillRead(PMILL_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID MillWrite(PMILL_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

static BOOLEAN MillService(PVOID Context)
{
    PMILL_EXT x = Context;
    ULONG bits = MillRead(x, EDU_IRQ_STATUS);

    if (bits == 0 || bits == ~0u)
        return FALSE;
    MillWrite(x, EDU_IRQ_ACK, bits);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* Gives the card the next request, unless it has one. */
static VOID MillNext(PMILL_EXT x)
{
    LARGE_INTEGER due;

    for (;;) {
        KIRQL irql;
        ULONG status;
        PIRP irp;

        KeAcquireSpinLock(&x->Lock, &irql);
        if (!x->Running || x->Current || (irp = FrQueueGet(&x->Queue)) == NULL) {
            KeReleaseSpinLock(&x->Lock, irql);
            return;
        }
        status = MillRead(x, EDU_STATUS);
        if (status == ~0u || (status & EDU_BUSY)) {
            x->Stats.Refused++;
            KeReleaseSpinLock(&x->Lock, irql);
            FrDone(&x->Frame, irp, status == ~0u ? STATUS_DEVICE_NOT_CONNECTED : STATUS_DEVICE_BUSY, 0);
            continue;
        }
        x->Current = irp;
        x->Deadline = KeQueryInterruptTime() + (MILL_LIMIT_MS - 20) * 10000ull;
        MillWrite(x, EDU_STATUS, EDU_IRQ_WHEN_DONE);
        MillWrite(x, EDU_FACTORIAL, *(ULONG *)irp->AssociatedIrp.SystemBuffer);
        due.QuadPart = -(MILL_LIMIT_MS * 10000ll);
        KeSetTimer(&x->Timer, due, &x->TimerDpc);
        KeReleaseSpinLock(&x->Lock, irql);
        return;
    }
}

static VOID NTAPI MillDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PMILL_EXT x = Context;
    PIRP irp = NULL;
    ULONG status, result = 0;

    FR_UNUSED_OF_DPC();
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Current) {
        status = MillRead(x, EDU_STATUS);
        /* Busy: the interrupt was of a request before, which was given up. */
        if (status != ~0u && !(status & EDU_BUSY)) {
            irp = x->Current;
            x->Current = NULL;
            result = MillRead(x, EDU_FACTORIAL);
            x->Stats.Done++;
            KeCancelTimer(&x->Timer);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = result;
        FrDone(&x->Frame, irp, STATUS_SUCCESS, sizeof(ULONG));
        MillNext(x);
    }
}

static VOID NTAPI MillTimerDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PMILL_EXT x = Context;
    PIRP irp = NULL;

    FR_UNUSED_OF_DPC();
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
#endif
    /* Not over: the timer was of a request before, and the DPC had been queued already. */
    if (x->Current && KeQueryInterruptTime() >= x->Deadline) {
        irp = x->Current;
        x->Current = NULL;
        x->Stats.TimedOut++;
    }
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
#endif
    if (irp) {
        FrDone(&x->Frame, irp, STATUS_IO_TIMEOUT, 0);
        MillNext(x);
    }
}

/*
 * Gives the card nothing more, and ends what it does; where it can be accessed it is let end its
 * work (the timer bounds that), and keeps quiet from then on.
 */
static VOID MillQuiet(PMILL_EXT x, BOOLEAN Accessible, NTSTATUS Status)
{
    LARGE_INTEGER pause;
    BOOLEAN busy = TRUE;
    ULONG tries;
    KIRQL irql;
    PIRP irp;

    pause.QuadPart = -10 * 10000ll;
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Running = FALSE;
    KeReleaseSpinLock(&x->Lock, irql);
    for (tries = 0; Accessible && busy && tries < 2 * MILL_LIMIT_MS / 10; tries++) {
        KeAcquireSpinLock(&x->Lock, &irql);
        busy = x->Current != NULL;
        KeReleaseSpinLock(&x->Lock, irql);
        if (busy)
            KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    KeAcquireSpinLock(&x->Lock, &irql);
    irp = x->Current;
    x->Current = NULL;
    KeReleaseSpinLock(&x->Lock, irql);
    KeCancelTimer(&x->Timer);
    if (Accessible)
        MillWrite(x, EDU_STATUS, 0);
    FrIrqEnable(&x->Irq, FALSE);
    if (Accessible)
        MillWrite(x, EDU_IRQ_ACK, MillRead(x, EDU_IRQ_STATUS));
    KeFlushQueuedDpcs();
    if (irp)
        FrDone(&x->Frame, irp, Status, 0);
}

static NTSTATUS NTAPI MillRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMILL_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = FrBeginHeld(d, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (!NT_SUCCESS(status)) {
        FrDone(d, Irp, status, 0);
        FrEnd(d);
        return status;
    }
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MILL_FACTORIAL:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || outLength < sizeof(ULONG))
            status = FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        else if (*(ULONG *)buffer > MILL_MAX_N)
            status = FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        else {
            status = FrQueuePut(&x->Queue, Irp);
            MillNext(x);
        }
        break;
    case IOCTL_MILL_STATS:
        if (outLength < sizeof(MILL_STATS)) {
            status = FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
            break;
        }
        KeAcquireSpinLock(&x->Lock, &irql);
        *(MILL_STATS *)buffer = x->Stats;
        KeReleaseSpinLock(&x->Lock, irql);
        status = FrDone(d, Irp, STATUS_SUCCESS, sizeof(MILL_STATS));
        break;
    default:
        status = FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        break;
    }
    FrLeave(d);
    FrEnd(d);
    return status;
}

static NTSTATUS NTAPI MillCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMILL_EXT x = Device->DeviceExtension;
    NTSTATUS status = FrBegin(&x->Frame, Irp);

    if (!NT_SUCCESS(status))
        return status;
    FrQueueFlush(&x->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrDone(&x->Frame, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS MillInit(PFR_DEV d)
{
    PMILL_EXT x = (PMILL_EXT)d;
    KeInitializeSpinLock(&x->Lock);
    KeInitializeDpc(&x->Dpc, MillDpc, x);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->TimerDpc, MillTimerDpc, x);
    FrQueueInit(&x->Queue, d);
    return STATUS_SUCCESS;
}

static VOID MillGo(PMILL_EXT x)
{
    KIRQL irql;
    MillWrite(x, EDU_STATUS, EDU_IRQ_WHEN_DONE);
    FrIrqEnable(&x->Irq, TRUE);
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Running = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    MillNext(x); /* what has waited in the meantime */
}

static NTSTATUS MillStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PMILL_EXT x = (PMILL_EXT)d;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Resources, CmResourceTypeMemory, 0);
    NTSTATUS status;

    if (!memory || memory->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLength = memory->u.Memory.Length;
    x->Regs = MmMapIoSpace(memory->u.Memory.Start, x->RegsLength, MmNonCached);
    if (!x->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((MillRead(x, EDU_ID) & 0xFFFF) != 0x00ED)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    MillWrite(x, EDU_STATUS, 0);
    MillWrite(x, EDU_IRQ_ACK, MillRead(x, EDU_IRQ_STATUS));
    status = FrIrqConnect(&x->Irq, Resources, MillService, x);
    if (NT_SUCCESS(status))
        MillGo(x);
    return status;
}

static VOID MillStop(PFR_DEV d)
{
    PMILL_EXT x = (PMILL_EXT)d;

    if (!x->Regs)
        return;
    MillQuiet(x, FrPowered(d), STATUS_CANCELLED);
    FrIrqDisconnect(&x->Irq);
    MmUnmapIoSpace(x->Regs, x->RegsLength);
    x->Regs = NULL;
}

static VOID MillFlush(PFR_DEV d, NTSTATUS Status)
{
    FrQueueFlush(&((PMILL_EXT)d)->Queue, NULL, Status);
}

static VOID MillPowerDown(PFR_DEV d)
{
    MillQuiet((PMILL_EXT)d, TRUE, STATUS_CANCELLED);
}

static VOID MillPowerUp(PFR_DEV d)
{
    MillGo((PMILL_EXT)d);
}

static const FR_OPS MillOps = {
    sizeof(MILL_EXT), &MillInterface, DO_BUFFERED_IO, MillInit, MillStart, MillStop, MillFlush,
    MillPowerDown, MillPowerUp, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &MillOps);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = MillCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MillRequest;
    return STATUS_SUCCESS;
}
