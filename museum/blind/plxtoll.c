/*
 * plxtoll: the lane of a toll station on a PLX PCI 9052. LINTi1 says that a vehicle has come, LINTi2 that it has left. A program
 * reads a record of each, or waits for a passage: the next vehicle that comes, and leaves.
 *
 * The bug: at surprise removal the reads and the requests that wait for a vehicle are ended, but not those whose vehicle has come
 * and which wait for it to leave: they stay with the driver of a device that is gone.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-pending-after-surprise-removal, request-pending-after-remove, request-forgotten, irp-never-completed
 * Needs: ioctl, removal, device
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_TOLL_PASSAGE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a0, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define INTCSR  0x4c
#define   ENABLE1   0x001u
#define   HIGH1     0x002u
#define   ACTIVE1   0x004u
#define   ENABLE2   0x008u
#define   HIGH2     0x010u
#define   ACTIVE2   0x020u
#define   PCI       0x040u
#define   EDGE1     0x100u
#define   EDGE2     0x200u
#define   CLEAR1    0x400u
#define   CLEAR2    0x800u
#define   QUIET     (HIGH1 | HIGH2 | EDGE1 | EDGE2)
#define   LISTEN    (QUIET | ENABLE1 | ENABLE2 | PCI)

#define CAME    1u
#define LEFT    2u

#define RECORDS 32

typedef struct RECORD {
    LARGE_INTEGER when;
    ULONG what;
    ULONG number;
} RECORD;

typedef struct TOLL {
    FR_DEV fr;
    FR_WIN regs;
    FR_IRQ irq;
    KDPC dpc;
    volatile LONG pending;
    FR_QUEUE readers;       /* of records */
    FR_QUEUE passages;      /* FR_WAITS: for a vehicle to come, FR_WORKS: for it to leave */

    KSPIN_LOCK lock;
    RECORD record[RECORDS];
    ULONG first, count, number;
} TOLL;

static BOOLEAN Service(FR_DEV *dev)
{
    TOLL *t = (TOLL *)dev;
    ULONG csr = FrRd(&t->regs, INTCSR), clear = 0, pending = 0;
    if (csr == ~0u)
        return FALSE;
    if ((csr & (ENABLE1 | ACTIVE1)) == (ENABLE1 | ACTIVE1)) {
        pending |= CAME;
        clear |= CLEAR1;
    }
    if ((csr & (ENABLE2 | ACTIVE2)) == (ENABLE2 | ACTIVE2)) {
        pending |= LEFT;
        clear |= CLEAR2;
    }
    if (!pending)
        return FALSE;
    FrWr(&t->regs, INTCSR, LISTEN | clear);
    InterlockedOr(&t->pending, (LONG)pending);
    KeInsertQueueDpc(&t->dpc, NULL, NULL);
    return TRUE;
}

static void Arm(FR_DEV *dev, BOOLEAN on)
{
    TOLL *t = (TOLL *)dev;
    FrWr(&t->regs, INTCSR, (on ? LISTEN : QUIET) | CLEAR1 | CLEAR2);
}

/* Brings records and readers together. */
static void Pump(TOLL *t)
{
    KIRQL irql;
    PIRP irp;
    RECORD r;
    for (;;) {
        irp = NULL;
        KeAcquireSpinLock(&t->lock, &irql);
        if (t->count && (irp = FrTake(&t->readers, NULL)) != NULL) {
            r = t->record[t->first];
            t->first = (t->first + 1) % RECORDS;
            t->count--;
        }
        KeReleaseSpinLock(&t->lock, irql);
        if (!irp)
            return;
        *(RECORD *)irp->AssociatedIrp.SystemBuffer = r;
        FrFinish(&t->fr, irp, STATUS_SUCCESS, sizeof r);
    }
}

static void Note(TOLL *t, ULONG what)
{
    RECORD *r;
    KeAcquireSpinLockAtDpcLevel(&t->lock);
    if (t->count == RECORDS) {      /* the oldest goes */
        t->first = (t->first + 1) % RECORDS;
        t->count--;
    }
    r = &t->record[(t->first + t->count++) % RECORDS];
    KeQuerySystemTime(&r->when);
    r->what = what;
    r->number = ++t->number;
    KeReleaseSpinLockFromDpcLevel(&t->lock);
}

static VOID NTAPI Behind(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    TOLL *t = context;
    ULONG pending = (ULONG)InterlockedExchange(&t->pending, 0);
    PIRP irp;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    if (pending & LEFT) {           /* that is the one of before, if another has come */
        Note(t, LEFT);
        while ((irp = FrTakeStage(&t->passages, FR_WORKS)) != NULL) {
            *(PULONG)irp->AssociatedIrp.SystemBuffer = LEFT;
            FrFinish(&t->fr, irp, STATUS_SUCCESS, sizeof(ULONG));
        }
    }
    if (pending & CAME) {
        Note(t, CAME);
        while (FrStep(&t->passages, FR_WAITS, FR_WORKS, NULL, NULL))
            ;
    }
    Pump(t);
}

static NTSTATUS Make(FR_DEV *dev)
{
    TOLL *t = (TOLL *)dev;
    KeInitializeSpinLock(&t->lock);
    KeInitializeDpc(&t->dpc, Behind, t);
    FrQueue(&t->readers, dev);
    FrQueue(&t->passages, dev);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    TOLL *t = (TOLL *)dev;
    NTSTATUS status = FrMap(&t->regs, list, 0, INTCSR + 4);
    if (!NT_SUCCESS(status))
        return status;
    status = FrIrqConnect(&t->irq, dev, list, Service, Arm);
    if (!NT_SUCCESS(status))
        FrUnmap(&t->regs);
    return status;
}

static void Release(FR_DEV *dev)
{
    TOLL *t = (TOLL *)dev;
    FrIrqDisconnect(&t->irq);
    FrUnmap(&t->regs);
}

static void Run(FR_DEV *dev)
{
    FrIrqSwitch(&((TOLL *)dev)->irq, TRUE, TRUE);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    FrIrqSwitch(&((TOLL *)dev)->irq, FALSE, present);
    KeFlushQueuedDpcs();
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    TOLL *t = (TOLL *)dev;
    FrSweep(&t->readers, NULL, status);
#ifndef FIXED
    {
        PIRP irp;
        while ((irp = FrTakeStage(&t->passages, FR_WAITS)) != NULL)
            FrFinish(dev, irp, status, 0);
    }
#else
    FrSweep(&t->passages, NULL, status);
#endif
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    TOLL *t = (TOLL *)dev;
    FrSweep(&t->readers, file, STATUS_CANCELLED);
    FrSweep(&t->passages, file, STATUS_CANCELLED);
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    TOLL *t = (TOLL *)dev;
    UNREFERENCED_PARAMETER(info);
    switch (at->MajorFunction) {
    case IRP_MJ_READ:
        if (at->Parameters.Read.Length < sizeof(RECORD))
            return STATUS_BUFFER_TOO_SMALL;
        FrPut(&t->readers, irp);
        Pump(t);
        return STATUS_PENDING;
    case IRP_MJ_DEVICE_CONTROL:
        if (at->Parameters.DeviceIoControl.IoControlCode != IOCTL_TOLL_PASSAGE)
            break;
        if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        FrPut(&t->passages, irp);
        return STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x0a } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(TOLL), .flags = DO_BUFFERED_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .flush = Flush, .cleanup = Cleanup, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
