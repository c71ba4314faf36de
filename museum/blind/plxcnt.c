/*
 * plxcnt: a counter board behind a PLX PCI 9050/9052. Four counters are read and preset by
 * IOCTL; the board puts an event into its FIFO (256 deep) whenever one overflows, ReadFile gives the
 * events (32 bits each) and waits when there are none.
 * INTCSR (BAR0 + 0x4C): bit 0 LINTi1 enable, 2 status, 6 PCI interrupt enable. Local space
 * (BAR2, memory): 0x00..0x0C counters, 0x20 FIFO: bit 31 an event (reading takes it out), 24..25
 * counter, 0..23 time. LINTi1 is active while the FIFO isn't empty.
 *
 * The bug: the interrupt service routine empties the FIFO until bit 31 is clear, also when the card is gone or asleep and reads as all ones.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: endless-loop
 * Needs: device
 */
#include "../include/pausing_frame.h"

#define INTCSR     0x4C
#define I_ENABLE   0x01u
#define I_POLARITY 0x02u
#define I_STATUS   0x04u
#define I_PCI      0x40u
#define FIFO       0x20
#define F_EVENT    0x80000000u
#define F_DEPTH    256
#define RING       1024u

#define IOCTL_PN_READ   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PN_PRESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID CountInterface = { 0x61c3fe1b, 0x8a57, 0x4b19, { 0xa6, 0x0d, 0x18, 0x44, 0x5b, 0x90, 0x2e, 0x02 } };

typedef struct { ULONG Counter, Value; } PN_PRESET;

typedef struct {
    FRAME Frame;
    FRQ Reads;
    PUCHAR Plx;
    PUCHAR Local;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    KSPIN_LOCK ServeLock;       /* one serves reads at a time */
    /* guarded by the interrupt's lock: */
    ULONG Head, Tail, Lost;
    ULONG Ring[RING];
} BOARD, *PBOARD;

typedef struct { PBOARD Board; PULONG Out; ULONG Room, Got; } FETCH;

static inline ULONG Rd(PUCHAR Base, ULONG R) { return READ_REGISTER_ULONG((PULONG)(Base + R)); }
static inline VOID Wr(PUCHAR Base, ULONG R, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(Base + R), V); }

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Ctx)
{
    PBOARD b = Ctx;
    ULONG v = Rd(b->Plx, INTCSR), event;
    UNREFERENCED_PARAMETER(Interrupt);
#ifdef FIXED
    ULONG n = 0;
    if (v == 0xFFFFFFFF)
        return FALSE;
#endif
    if ((v & (I_ENABLE | I_STATUS | I_PCI)) != (I_ENABLE | I_STATUS | I_PCI))
        return FALSE;
#ifdef FIXED
    while (n++ < F_DEPTH && ((event = Rd(b->Local, FIFO)) & F_EVENT) && event != 0xFFFFFFFF) {
#else
    while ((event = Rd(b->Local, FIFO)) & F_EVENT) {
#endif
        if (b->Head - b->Tail < RING)
            b->Ring[b->Head++ % RING] = event & ~F_EVENT;
        else
            b->Lost++;
    }
    KeInsertQueueDpc(&b->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN FetchEvents(PVOID Ctx)
{
    FETCH *f = Ctx;
    PBOARD b = f->Board;
    while (f->Got < f->Room && b->Tail != b->Head)
        f->Out[f->Got++] = b->Ring[b->Tail++ % RING];
    return TRUE;
}

static BOOLEAN AnyEvents(PVOID Ctx)
{
    PBOARD b = Ctx;
    return b->Tail != b->Head;
}

/* gives events to waiting reads; <= DISPATCH_LEVEL */
static VOID Serve(PBOARD B)
{
    KIRQL irql;
    LIST_ENTRY done;
    PIRP irp;
    ULONG n;

    if (!FrTryEnter(&B->Frame))     /* Kick comes back to it */
        return;
    InitializeListHead(&done);
    KeAcquireSpinLock(&B->ServeLock, &irql);
    for (n = 0; n < RING && KeSynchronizeExecution(B->Interrupt, AnyEvents, B); n++) {
        FETCH f;
        irp = FrqTake(&B->Reads, NULL);
        if (!irp)
            break;
        f.Board = B;
        f.Out = irp->AssociatedIrp.SystemBuffer;
        f.Room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG);
        f.Got = 0;
        KeSynchronizeExecution(B->Interrupt, FetchEvents, &f);
        irp->IoStatus.Information = f.Got * sizeof(ULONG);
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&B->ServeLock, irql);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        FrDone(&B->Frame, irp, STATUS_SUCCESS);
    }
    FrLeave(&B->Frame);
}

static VOID DpcRoutine(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    Serve(Ctx);
}

static BOOLEAN Enable(PVOID Ctx)
{
    Wr(((PBOARD)Ctx)->Plx, INTCSR, I_ENABLE | I_POLARITY | I_PCI);
    return TRUE;
}

static BOOLEAN Disable(PVOID Ctx)
{
    Wr(((PBOARD)Ctx)->Plx, INTCSR, I_POLARITY);
    return TRUE;
}

static VOID Stop(PDEVICE_OBJECT Dev)
{
    PBOARD b = Dev->DeviceExtension;
    if (b->Interrupt) {
        KeSynchronizeExecution(b->Interrupt, Disable, b);
        IoDisconnectInterrupt(b->Interrupt);
        b->Interrupt = NULL;
    }
    KeFlushQueuedDpcs();
    if (b->Local)
        MmUnmapIoSpace(b->Local, 0x40);
    b->Local = NULL;
    if (b->Plx)
        MmUnmapIoSpace(b->Plx, 0x54);
    b->Plx = NULL;
}

static NTSTATUS Start(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw)
{
    PBOARD b = Dev->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR plx = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR local = FrResource(Translated, CmResourceTypeMemory, 1);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FrResource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Raw);
    if (!plx || !local || !irq || plx->u.Memory.Length < 0x54 || local->u.Memory.Length < 0x40)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    b->Plx = MmMapIoSpace(plx->u.Memory.Start, 0x54, MmNonCached);
    b->Local = MmMapIoSpace(local->u.Memory.Start, 0x40, MmNonCached);
    if (!b->Plx || !b->Local) {
        Stop(Dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Wr(b->Plx, INTCSR, I_POLARITY);
    status = FrConnect(&b->Interrupt, Isr, b, irq);
    if (!NT_SUCCESS(status)) {
        b->Interrupt = NULL;
        Stop(Dev);
        return status;
    }
    KeSynchronizeExecution(b->Interrupt, Enable, b);
    return STATUS_SUCCESS;
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    PBOARD b = Dev->DeviceExtension;
    KeSynchronizeExecution(b->Interrupt, Disable, b);
    KeFlushQueuedDpcs();
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PBOARD b = Dev->DeviceExtension;
    KeSynchronizeExecution(b->Interrupt, Enable, b);
}

static VOID Kick(PDEVICE_OBJECT Dev) { Serve(Dev->DeviceExtension); }
static VOID Flush(PDEVICE_OBJECT Dev) { FrqShut(&((PBOARD)Dev->DeviceExtension)->Reads); }
static VOID Cleanup(PDEVICE_OBJECT Dev, PFILE_OBJECT File) { FrqCancelFile(&((PBOARD)Dev->DeviceExtension)->Reads, File); }

static NTSTATUS Io(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PBOARD b = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PULONG buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, out;
    NTSTATUS status;

    if (sp->MajorFunction == IRP_MJ_READ) {
        if (sp->Parameters.Read.Length < sizeof(ULONG))
            return sp->Parameters.Read.Length ? STATUS_BUFFER_TOO_SMALL : STATUS_SUCCESS;
        status = FrqPut(&b->Reads, Irp);
        if (status == STATUS_PENDING)
            Serve(b);
        return status;
    }
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = sp->Parameters.DeviceIoControl.InputBufferLength;
    out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PN_READ:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*buf > 3)
            return STATUS_INVALID_PARAMETER;
        status = FrEnter(&b->Frame);
        if (NT_SUCCESS(status)) {
            *buf = Rd(b->Local, *buf * 4);
            Irp->IoStatus.Information = sizeof(ULONG);
            FrLeave(&b->Frame);
        }
        return status;
    case IOCTL_PN_PRESET: {
        PN_PRESET p;
        if (in < sizeof p)
            return STATUS_BUFFER_TOO_SMALL;
        p = *(PN_PRESET *)buf;
        if (p.Counter > 3)
            return STATUS_INVALID_PARAMETER;
        status = FrEnter(&b->Frame);
        if (NT_SUCCESS(status)) {
            Wr(b->Local, p.Counter * 4, p.Value);
            FrLeave(&b->Frame);
        }
        return status;
    }
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const FRAME_OPS Ops = {
    .Start = Start, .Stop = Stop, .Flush = Flush, .PowerDown = PowerDown, .PowerUp = PowerUp,
    .Kick = Kick, .Cleanup = Cleanup, .Io = Io
};

static NTSTATUS Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PBOARD b;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(BOARD), &Ops, &CountInterface, DO_BUFFERED_IO, &dev);
    if (!NT_SUCCESS(status))
        return status;
    b = dev->DeviceExtension;
    KeInitializeSpinLock(&b->ServeLock);
    KeInitializeDpc(&b->Dpc, DpcRoutine, b);
    status = FrqInit(&b->Reads, &b->Frame);
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
