/*
 * edumead: computes factorials with QEMU's educational device for several programs, one number after the other. A number
 * that the card does not answer within 100 ms is given up, its program gets STATUS_IO_TIMEOUT.
 *
 * The bug: when a number is given up, the next is written to the card at once, which still computes and ignores it; what comes late
 * is taken for the next number's result.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: ioctl, device
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_MEAD_FACTORIAL    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MEAD_TOLD         CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_FACTORIAL   0x08
#define EDU_STATUS      0x20
#define   COMPUTING     0x01
#define   WHEN_DONE     0x80
#define EDU_IRQ_STATUS  0x24
#define EDU_IRQ_ACK     0x64

#define LIMIT_MS    100
#define LOOK_MS     20

typedef struct SAID {
    ULONG computed;
    ULONG given_up;
} SAID;

typedef struct MEAD {
    FR_DEV fr;
    FR_WIN regs;
    FR_IRQ irq;
    KDPC dpc, limit_dpc;
    KTIMER limit;
    FR_QUEUE queue;         /* of numbers; the one that works is with the card */

    KSPIN_LOCK lock;
    BOOLEAN running;
    BOOLEAN hw;             /* a number is with the card */
    BOOLEAN late;           /* and no program waits for it any more */
    ULONGLONG deadline;     /* in interrupt time */
    SAID said;
} MEAD;

static BOOLEAN Service(FR_DEV *dev)
{
    MEAD *m = (MEAD *)dev;
    ULONG causes = FrRd(&m->regs, EDU_IRQ_STATUS);
    if (causes == 0 || causes == ~0u)
        return FALSE;
    FrWr(&m->regs, EDU_IRQ_ACK, causes);
    KeInsertQueueDpc(&m->dpc, NULL, NULL);
    return TRUE;
}

/* At DIRQL: nothing of the card's stays asserted on the line behind it. */
static void Arm(FR_DEV *dev, BOOLEAN on)
{
    MEAD *m = (MEAD *)dev;
    FrWr(&m->regs, EDU_STATUS, on ? WHEN_DONE : 0);
    if (!on)
        FrWr(&m->regs, EDU_IRQ_ACK, ~0u);
}

static void Number(PIRP irp, PVOID context)
{
    *(PULONG)context = *(PULONG)irp->AssociatedIrp.SystemBuffer;
}

/* Gives the card the next number, if it has none. */
static void Next(MEAD *m)
{
    KIRQL irql;
    ULONG number;
    KeAcquireSpinLock(&m->lock, &irql);
    if (m->running && !m->hw && FrStep(&m->queue, FR_WAITS, FR_WORKS, Number, &number)) {
        m->hw = TRUE;
        m->late = FALSE;
        m->deadline = KeQueryInterruptTime() + LIMIT_MS * 10000ULL;
        FrWr(&m->regs, EDU_FACTORIAL, number);
        KeSetTimer(&m->limit, FrMs(LIMIT_MS), &m->limit_dpc);
    }
    KeReleaseSpinLock(&m->lock, irql);
}

static VOID NTAPI Done(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    MEAD *m = context;
    ULONG result;
    PIRP irp;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&m->lock);
    if (!m->running || !m->hw || (FrRd(&m->regs, EDU_STATUS) & COMPUTING)) {
        KeReleaseSpinLockFromDpcLevel(&m->lock);
        return;
    }
    result = FrRd(&m->regs, EDU_FACTORIAL);
    KeCancelTimer(&m->limit);
    irp = m->late ? NULL : FrTakeStage(&m->queue, FR_WORKS);     /* none: it was cancelled */
    if (irp)
        m->said.computed++;
    m->late = FALSE;
    m->hw = FALSE;
    KeReleaseSpinLockFromDpcLevel(&m->lock);

    if (irp) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
        FrFinish(&m->fr, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    Next(m);
}

static VOID NTAPI Limit(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    MEAD *m = context;
    BOOLEAN free;
    PIRP irp;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&m->lock);
    if (!m->running || !m->hw || (!m->late && KeQueryInterruptTime() + LIMIT_MS * 5000 < m->deadline)) {
        KeReleaseSpinLockFromDpcLevel(&m->lock);      /* of a number that was answered in time */
        return;
    }
    irp = m->late ? NULL : FrTakeStage(&m->queue, FR_WORKS);
    if (irp)
        m->said.given_up++;
#ifndef FIXED
    free = TRUE;
#else
    /* The card takes no other number as long as it computes. */
    free = !(FrRd(&m->regs, EDU_STATUS) & COMPUTING);
#endif
    if (free) {
        m->late = FALSE;
        m->hw = FALSE;
    } else {
        m->late = TRUE;
        KeSetTimer(&m->limit, FrMs(LOOK_MS), &m->limit_dpc);
    }
    KeReleaseSpinLockFromDpcLevel(&m->lock);

    if (irp)
        FrFinish(&m->fr, irp, STATUS_IO_TIMEOUT, 0);
    if (free)
        Next(m);
}

static NTSTATUS Make(FR_DEV *dev)
{
    MEAD *m = (MEAD *)dev;
    KeInitializeSpinLock(&m->lock);
    KeInitializeTimer(&m->limit);
    KeInitializeDpc(&m->dpc, Done, m);
    KeInitializeDpc(&m->limit_dpc, Limit, m);
    FrQueue(&m->queue, dev);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    MEAD *m = (MEAD *)dev;
    NTSTATUS status = FrMap(&m->regs, list, 0, 0x100);
    if (!NT_SUCCESS(status))
        return status;
    status = FrIrqConnect(&m->irq, dev, list, Service, Arm);
    if (!NT_SUCCESS(status))
        FrUnmap(&m->regs);
    return status;
}

static void Release(FR_DEV *dev)
{
    MEAD *m = (MEAD *)dev;
    FrIrqDisconnect(&m->irq);
    FrUnmap(&m->regs);
}

static void Run(FR_DEV *dev)
{
    MEAD *m = (MEAD *)dev;
    KIRQL irql;
    FrIrqSwitch(&m->irq, TRUE, TRUE);
    KeAcquireSpinLock(&m->lock, &irql);
    m->running = TRUE;
    m->late = FALSE;
    m->hw = (FrRd(&m->regs, EDU_STATUS) & COMPUTING) != 0;      /* it went on while we were stopped */
    if (m->hw) {
        m->late = TRUE;
        m->deadline = 0;
        KeSetTimer(&m->limit, FrMs(LOOK_MS), &m->limit_dpc);
    }
    KeReleaseSpinLock(&m->lock, irql);
    Next(m);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    MEAD *m = (MEAD *)dev;
    KIRQL irql;
    KeAcquireSpinLock(&m->lock, &irql);
    m->running = FALSE;
    KeReleaseSpinLock(&m->lock, irql);
    FrIrqSwitch(&m->irq, FALSE, present);
    KeCancelTimer(&m->limit);
    KeFlushQueuedDpcs();
    while (FrStep(&m->queue, FR_WORKS, FR_WAITS, NULL, NULL))       /* it is begun again */
        ;
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    MEAD *m = (MEAD *)dev;
    FrSweep(&m->queue, NULL, status);
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    MEAD *m = (MEAD *)dev;
    FrSweep(&m->queue, file, STATUS_CANCELLED);
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    MEAD *m = (MEAD *)dev;
    KIRQL irql;
    if (at->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MEAD_FACTORIAL:
        if (at->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)
            || at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        FrPut(&m->queue, irp);
        Next(m);
        return STATUS_PENDING;
    case IOCTL_MEAD_TOLD:
        if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SAID))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&m->lock, &irql);
        *(SAID *)irp->AssociatedIrp.SystemBuffer = m->said;
        KeReleaseSpinLock(&m->lock, irql);
        *info = sizeof(SAID);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x06 } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(MEAD), .flags = DO_BUFFERED_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .flush = Flush, .cleanup = Cleanup, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
