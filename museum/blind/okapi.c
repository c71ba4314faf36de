/*
 * okapi: a sampling card. Each sample raises an interrupt; the service routine takes it from the card into a store of 64,
 * from which programs read as many as there are.
 *
 * The bug: the interrupt is connected before the store is allocated: where the line is asserted by then (by another card that
 * shares it while this one's status shows something, or by this card), the service routine stores to nothing.
 *
 * Device: PCI\VEN_5A1F&DEV_0110
 * Rule: wild-write, wild-read, bad-pointer
 * Needs: device, schedule
 */
#include "../include/gate_and_turnstile.h"

#define CONTROL     0x00
#define   SAMPLE        1u
#define ENABLE      0x04
#define STATUS      0x08    /* ones clear */
#define DATA        0x10

#define SAMPLES     64

typedef struct STORE {
    ULONG first, count, lost;
    ULONG sample[SAMPLES];
} STORE;

typedef struct OKAPI {
    FR_DEV fr;
    FR_WIN regs;
    PKINTERRUPT line;
    BOOLEAN asleep;         /* the card is without power, or will be: changed at DIRQL */
    BOOLEAN touch;
    STORE *store;           /* guarded by the line's lock */
    KDPC dpc;
    FR_QUEUE readers;
    KSPIN_LOCK lock;
} OKAPI;

typedef struct TAKE {
    OKAPI *okapi;
    PULONG out;             /* NULL: only how many there are */
    ULONG room, count;
} TAKE;

static BOOLEAN NTAPI Service(PKINTERRUPT line, PVOID context)
{
    OKAPI *o = context;
    ULONG status;
    UNREFERENCED_PARAMETER(line);
    if (o->asleep)
        return FALSE;
    status = FrRd(&o->regs, STATUS);
    if (status == 0 || status == ~0u)
        return FALSE;
    FrWr(&o->regs, STATUS, status);
    {
        STORE *s = o->store;
        ULONG value = FrRd(&o->regs, DATA);
        if (s->count < SAMPLES)
            s->sample[(s->first + s->count++) % SAMPLES] = value;
        else
            s->lost++;
    }
    KeInsertQueueDpc(&o->dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI Take(PVOID context)
{
    TAKE *t = context;
    STORE *s = t->okapi->store;
    if (!t->out) {
        t->count = s->count;
        return TRUE;
    }
    for (t->count = 0; t->count < t->room && s->count; t->count++) {
        t->out[t->count] = s->sample[s->first];
        s->first = (s->first + 1) % SAMPLES;
        s->count--;
    }
    return TRUE;
}

static BOOLEAN NTAPI Wake(PVOID context)
{
    OKAPI *o = context;
    o->asleep = FALSE;
    FrWr(&o->regs, CONTROL, SAMPLE);
    FrWr(&o->regs, ENABLE, 1);
    return TRUE;
}

static BOOLEAN NTAPI Sleep(PVOID context)
{
    OKAPI *o = context;
    if (o->touch) {
        ULONG status;
        FrWr(&o->regs, ENABLE, 0);
        FrWr(&o->regs, CONTROL, 0);
        status = FrRd(&o->regs, STATUS);
        FrWr(&o->regs, STATUS, status);
    }
    o->asleep = TRUE;
    return TRUE;
}

/* Gives samples to who waits. */
static void Pump(OKAPI *o)
{
    KIRQL irql;
    PIRP irp;
    TAKE t;
    for (;;) {
        irp = NULL;
        if (FrEmpty(&o->readers))       /* before the first start is over there are none, and no line to ask by */
            return;
        RtlZeroMemory(&t, sizeof t);
        t.okapi = o;
        KeAcquireSpinLock(&o->lock, &irql);
        KeSynchronizeExecution(o->line, Take, &t);
        if (t.count && (irp = FrTake(&o->readers, NULL)) != NULL) {
            t.out = irp->AssociatedIrp.SystemBuffer;
            t.room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG);
            KeSynchronizeExecution(o->line, Take, &t);
        }
        KeReleaseSpinLock(&o->lock, irql);
        if (!irp)
            return;
        FrFinish(&o->fr, irp, STATUS_SUCCESS, t.count * sizeof(ULONG));
    }
}

static VOID NTAPI Behind(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    Pump(context);
}

static NTSTATUS Make(FR_DEV *dev)
{
    OKAPI *o = (OKAPI *)dev;
    KeInitializeSpinLock(&o->lock);
    KeInitializeDpc(&o->dpc, Behind, o);
    FrQueue(&o->readers, dev);
    return STATUS_SUCCESS;
}

static void Release(FR_DEV *dev)
{
    OKAPI *o = (OKAPI *)dev;
    FrUnline(&o->line);
    KeFlushQueuedDpcs();
    if (o->store)
        ExFreePoolWithTag(o->store, FR_TAG);
    o->store = NULL;
    FrUnmap(&o->regs);
}

static NTSTATUS Store(OKAPI *o)
{
    STORE *s = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *s, FR_TAG);
    if (!s)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(s, sizeof *s);
    o->store = s;
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    OKAPI *o = (OKAPI *)dev;
    NTSTATUS status = FrMap(&o->regs, list, 0, DATA + 4);
    if (!NT_SUCCESS(status))
        return status;
#ifndef FIXED
    status = FrLine(dev, list, Service, o, &o->line);
    if (NT_SUCCESS(status))
        status = Store(o);
#else
    status = Store(o);
    if (NT_SUCCESS(status))
        status = FrLine(dev, list, Service, o, &o->line);
#endif
    if (!NT_SUCCESS(status))
        Release(dev);
    return status;
}

static void Run(FR_DEV *dev)
{
    OKAPI *o = (OKAPI *)dev;
    KeSynchronizeExecution(o->line, Wake, o);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    OKAPI *o = (OKAPI *)dev;
    o->touch = present;
    KeSynchronizeExecution(o->line, Sleep, o);
    KeFlushQueuedDpcs();
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    FrSweep(&((OKAPI *)dev)->readers, NULL, status);
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    FrSweep(&((OKAPI *)dev)->readers, file, STATUS_CANCELLED);
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    OKAPI *o = (OKAPI *)dev;
    UNREFERENCED_PARAMETER(info);
    if (at->MajorFunction != IRP_MJ_READ)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (at->Parameters.Read.Length < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    FrPut(&o->readers, irp);
    Pump(o);
    return STATUS_PENDING;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x0f } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(OKAPI), .flags = DO_BUFFERED_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .flush = Flush, .cleanup = Cleanup, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
