/*
 * ibex: the logger of a mountain station. The card interrupts with each reading, the driver keeps the last 64 with their running
 * number, and a program reads on from a number that it says: it gets the number to go on with, and the readings.
 *
 * The bug: a number that is yet to come is taken as if there were any number of readings behind it: the second of the two
 * pieces in which the store is copied is as long as the program's buffer is, and reaches beyond the store.
 *
 * Device: PCI\VEN_5A1F&DEV_0670
 * Rule: pool-overrun, wild-read
 * Needs: ioctl
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_IBEX_READ_ON  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_IBEX_NEWEST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CONTROL     0x00
#define   LOG           1u
#define ENABLE      0x04
#define STATUS      0x08    /* ones clear */
#define READING     0x0c

#define READINGS    64u

typedef struct IBEX_READ_ON {
    ULONGLONG next;             /* in: from which on; out: from which on there is more */
    ULONG reading[1];
} IBEX_READ_ON;

typedef struct IBEX {
    FR_DEV fr;
    FR_WIN regs;
    FR_IRQ irq;
    KDPC dpc;
    KSPIN_LOCK lock;
    PULONG store;               /* reading n is at n % READINGS */
    ULONGLONG head;             /* the number of the next reading */
} IBEX;

static BOOLEAN Service(FR_DEV *dev)
{
    IBEX *x = (IBEX *)dev;
    ULONG status = FrRd(&x->regs, STATUS);
    if (status == 0 || status == ~0u)
        return FALSE;
    FrWr(&x->regs, STATUS, status);
    KeInsertQueueDpc(&x->dpc, NULL, NULL);
    return TRUE;
}

static void Arm(FR_DEV *dev, BOOLEAN on)
{
    IBEX *x = (IBEX *)dev;
    ULONG status;
    FrWr(&x->regs, CONTROL, on ? LOG : 0);
    FrWr(&x->regs, ENABLE, on ? 1 : 0);
    if (!on) {
        status = FrRd(&x->regs, STATUS);
        FrWr(&x->regs, STATUS, status);
    }
}

static VOID NTAPI Behind(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    IBEX *x = context;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->lock);
    x->store[x->head % READINGS] = FrRd(&x->regs, READING);
    x->head++;
    KeReleaseSpinLockFromDpcLevel(&x->lock);
}

static NTSTATUS ReadOn(IBEX *x, IBEX_READ_ON *io, ULONG room, PULONG_PTR info)
{
    ULONGLONG from = io->next, there;
    ULONG count, first, at;
    KIRQL irql;
    room = (room - FIELD_OFFSET(IBEX_READ_ON, reading)) / sizeof(ULONG);
    KeAcquireSpinLock(&x->lock, &irql);
#ifdef FIXED
    if (from > x->head) {
        KeReleaseSpinLock(&x->lock, irql);
        return STATUS_INVALID_PARAMETER;
    }
#endif
    if (x->head > READINGS && from < x->head - READINGS)
        from = x->head - READINGS;      /* what is older is lost */
    there = x->head - from;
    count = there < room ? (ULONG)there : room;
    at = (ULONG)(from % READINGS);
    first = count < READINGS - at ? count : READINGS - at;
    RtlCopyMemory(io->reading, x->store + at, first * sizeof(ULONG));
    RtlCopyMemory(io->reading + first, x->store, (count - first) * sizeof(ULONG));
    KeReleaseSpinLock(&x->lock, irql);
    io->next = from + count;
    *info = FIELD_OFFSET(IBEX_READ_ON, reading) + count * sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS Make(FR_DEV *dev)
{
    IBEX *x = (IBEX *)dev;
    KeInitializeSpinLock(&x->lock);
    KeInitializeDpc(&x->dpc, Behind, x);
    x->store = ExAllocatePoolWithTag(NonPagedPoolNx, READINGS * sizeof(ULONG), FR_TAG);
    if (!x->store)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(x->store, READINGS * sizeof(ULONG));
    return STATUS_SUCCESS;
}

static void Unmake(FR_DEV *dev)
{
    ExFreePoolWithTag(((IBEX *)dev)->store, FR_TAG);
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    IBEX *x = (IBEX *)dev;
    NTSTATUS status = FrMap(&x->regs, list, 0, READING + 4);
    if (!NT_SUCCESS(status))
        return status;
    status = FrIrqConnect(&x->irq, dev, list, Service, Arm);
    if (!NT_SUCCESS(status))
        FrUnmap(&x->regs);
    return status;
}

static void Release(FR_DEV *dev)
{
    IBEX *x = (IBEX *)dev;
    FrIrqDisconnect(&x->irq);
    FrUnmap(&x->regs);
}

static void Run(FR_DEV *dev)
{
    FrIrqSwitch(&((IBEX *)dev)->irq, TRUE, TRUE);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    FrIrqSwitch(&((IBEX *)dev)->irq, FALSE, present);
    KeFlushQueuedDpcs();
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    IBEX *x = (IBEX *)dev;
    ULONG in, room;
    KIRQL irql;
    if (at->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = at->Parameters.DeviceIoControl.InputBufferLength;
    room = at->Parameters.DeviceIoControl.OutputBufferLength;
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_IBEX_READ_ON:
        if (in < sizeof(ULONGLONG) || room < (ULONG)FIELD_OFFSET(IBEX_READ_ON, reading))
            return STATUS_BUFFER_TOO_SMALL;
        return ReadOn(x, irp->AssociatedIrp.SystemBuffer, room, info);
    case IOCTL_IBEX_NEWEST:
        if (room < sizeof(ULONGLONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&x->lock, &irql);
        *(PULONGLONG)irp->AssociatedIrp.SystemBuffer = x->head;
        KeReleaseSpinLock(&x->lock, irql);
        *info = sizeof(ULONGLONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x14 } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(IBEX), .flags = DO_BUFFERED_IO, .make = Make, .unmake = Unmake,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
