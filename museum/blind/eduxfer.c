/*
 * eduxfer: reads and writes the 4096 byte buffer of QEMU's edu device by DMA, one request at
 * a time, with the scatter/gather list of the request's pages (28 bit addresses).
 * Registers used (BAR0): 0x24 interrupt status, 0x64 acknowledge, 0x80 source,
 * 0x88 destination, 0x90 count, 0x98 command (1 start/running, 2 card to RAM, 4 interrupt
 * 0x100 at the end); the buffer is at 0x40000 for the DMA engine.
 *
 * The bug: the request is completed before its scatter/gather list is put back, which needs its MDL and copies the data.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-unlocked-while-mapped
 * Needs: device
 */
#include "../include/pausing_frame.h"

#define REG_ISTATUS 0x24
#define REG_IACK    0x64
#define REG_SRC     0x80
#define REG_DST     0x88
#define REG_COUNT   0x90
#define REG_CMD     0x98
#define CMD_RUN     1u
#define CMD_TO_RAM  2u
#define CMD_IRQ     4u
#define IRQ_DMA     0x100u
#define CARD_BUFFER 0x40000u
#define CARD_SIZE   4096u

#define IOCTL_EX_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D0, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID XferInterface = { 0x2f6e90a8, 0x5e0c, 0x47d5, { 0x8d, 0x41, 0x6c, 0x33, 0x0a, 0x1b, 0x72, 0x01 } };

/* DEVICE_DESCRIPTION as of version 3, which the headers of mingw don't have */
typedef struct {
    DEVICE_DESCRIPTION V2;
    ULONG DmaAddressWidth, DmaControllerInstance, DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DESCRIPTION3;
C_ASSERT(FIELD_OFFSET(DESCRIPTION3, DmaAddressWidth) == 40);

typedef struct { ULONG Requests, Elements, Failures, LateInterrupts; } EX_STATS;

typedef struct {
    FRAME Frame;
    FRQ Queue;
    PUCHAR Regs;
    SIZE_T RegsSize;
    PKINTERRUPT Interrupt;
    PDMA_ADAPTER Adapter;
    KDPC Dpc;
    KTIMER Watchdog;
    KDPC WatchdogDpc;
    KSPIN_LOCK Lock;        /* guards what follows */
    PIRP Current;           /* holds the gate */
    PSCATTER_GATHER_LIST List;
    ULONG Element;
    ULONG Done;             /* bytes of finished elements */
    EX_STATS Stats;
} XFER, *PXFER;

static inline ULONG Rd(PXFER X, ULONG R) { return READ_REGISTER_ULONG((PULONG)(X->Regs + R)); }
static inline VOID Wr(PXFER X, ULONG R, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(X->Regs + R), V); }

static BOOLEAN IsRead(PIRP Irp) { return IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_READ; }

static ULONG OffsetOf(PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    return sp->MajorFunction == IRP_MJ_READ ? sp->Parameters.Read.ByteOffset.LowPart : sp->Parameters.Write.ByteOffset.LowPart;
}

/* starts the next element; with the lock; FALSE when the address is out of the card's reach */
static BOOLEAN StartElement(PXFER X)
{
    SCATTER_GATHER_ELEMENT *e = &X->List->Elements[X->Element];
    BOOLEAN in = IsRead(X->Current);
    ULONG card = CARD_BUFFER + OffsetOf(X->Current) + X->Done;
    LARGE_INTEGER due;

    if ((ULONG64)e->Address.QuadPart + e->Length > 0x10000000ull)
        return FALSE;
    Wr(X, REG_SRC, in ? card : e->Address.LowPart);
    Wr(X, REG_DST, in ? e->Address.LowPart : card);
    Wr(X, REG_COUNT, e->Length);
    X->Stats.Elements++;
    due.QuadPart = -10000LL * 1000;
    KeSetTimer(&X->Watchdog, due, &X->WatchdogDpc);
    Wr(X, REG_CMD, CMD_RUN | CMD_IRQ | (in ? CMD_TO_RAM : 0));
    return TRUE;
}

/* ends the current request; DISPATCH_LEVEL, with the lock, which it releases */
static VOID FinishAndUnlock(PXFER X, NTSTATUS Status)
{
    PIRP irp = X->Current;
    PSCATTER_GATHER_LIST list = X->List;
    BOOLEAN in = IsRead(irp);
    irp->IoStatus.Information = NT_SUCCESS(Status) ? X->Done : 0;
    if (!NT_SUCCESS(Status))
        X->Stats.Failures++;
    X->List = NULL;
    KeReleaseSpinLockFromDpcLevel(&X->Lock);
#ifdef FIXED
    if (list)
        X->Adapter->DmaOperations->PutScatterGatherList(X->Adapter, list, !in);
    FrDone(&X->Frame, irp, Status);
#else
    FrDone(&X->Frame, irp, Status);
    if (list)
        X->Adapter->DmaOperations->PutScatterGatherList(X->Adapter, list, !in);
#endif
    KeAcquireSpinLockAtDpcLevel(&X->Lock);
    X->Current = NULL;
    KeReleaseSpinLockFromDpcLevel(&X->Lock);
    KeInsertQueueDpc(&X->Dpc, NULL, NULL);      /* for the next */
    FrLeave(&X->Frame);
}

static VOID ListReady(PDEVICE_OBJECT Dev, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Ctx)
{
    PXFER x = Ctx;
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(Irp);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    x->List = List;
    x->Element = 0;
    x->Done = 0;
    if (StartElement(x))
        KeReleaseSpinLockFromDpcLevel(&x->Lock);
    else
        FinishAndUnlock(x, STATUS_DEVICE_CONFIGURATION_ERROR);
}

static VOID StartNext(PXFER X)
{
    KIRQL irql;
    PIRP irp;
    PMDL mdl;
    NTSTATUS status;

    KeAcquireSpinLock(&X->Lock, &irql);
    if (X->Current || !FrTryEnter(&X->Frame)) {
        KeReleaseSpinLock(&X->Lock, irql);
        return;
    }
    irp = FrqTake(&X->Queue, NULL);
    if (!irp) {
        FrLeave(&X->Frame);
        KeReleaseSpinLock(&X->Lock, irql);
        return;
    }
    X->Current = irp;
    X->List = NULL;
    X->Stats.Requests++;
    KeReleaseSpinLockFromDpcLevel(&X->Lock);    /* stays at DISPATCH_LEVEL */
    mdl = irp->MdlAddress;
    status = X->Adapter->DmaOperations->GetScatterGatherList(X->Adapter, X->Frame.Self, mdl, MmGetMdlVirtualAddress(mdl),
                                                             MmGetMdlByteCount(mdl), ListReady, X, !IsRead(irp));
    if (!NT_SUCCESS(status)) {
        KeAcquireSpinLockAtDpcLevel(&X->Lock);
        FinishAndUnlock(X, status);
    }
    KeLowerIrql(irql);
}

/* looks how far the card is; DISPATCH_LEVEL */
static VOID Service(PXFER X, BOOLEAN Watchdog)
{
    ULONG cmd;
    KeAcquireSpinLockAtDpcLevel(&X->Lock);
    if (!X->Current || !X->List) {
        KeReleaseSpinLockFromDpcLevel(&X->Lock);
        return;
    }
    cmd = Rd(X, REG_CMD);
    if (cmd == 0xFFFFFFFF) {
        FinishAndUnlock(X, STATUS_DEVICE_NOT_CONNECTED);
        return;
    }
    if (cmd & CMD_RUN) {            /* it can't be called off: wait on */
        if (Watchdog) {
            LARGE_INTEGER due;
            due.QuadPart = -10000LL * 1000;
            KeSetTimer(&X->Watchdog, due, &X->WatchdogDpc);
        }
        KeReleaseSpinLockFromDpcLevel(&X->Lock);
        return;
    }
    if (Watchdog)
        X->Stats.LateInterrupts++;
    X->Done += X->List->Elements[X->Element].Length;
    if (++X->Element < X->List->NumberOfElements) {
        if (StartElement(X))
            KeReleaseSpinLockFromDpcLevel(&X->Lock);
        else
            FinishAndUnlock(X, STATUS_DEVICE_CONFIGURATION_ERROR);
        return;
    }
    KeCancelTimer(&X->Watchdog);
    FinishAndUnlock(X, STATUS_SUCCESS);
}

static VOID DpcRoutine(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    Service(Ctx, FALSE);
    StartNext(Ctx);
}

static VOID WatchdogRoutine(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    Service(Ctx, TRUE);
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Ctx)
{
    PXFER x = Ctx;
    ULONG status = Rd(x, REG_ISTATUS);
    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0 || status == 0xFFFFFFFF)
        return FALSE;
    Wr(x, REG_IACK, status);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static VOID Stop(PDEVICE_OBJECT Dev)
{
    PXFER x = Dev->DeviceExtension;
    if (x->Interrupt)
        IoDisconnectInterrupt(x->Interrupt);
    x->Interrupt = NULL;
    KeCancelTimer(&x->Watchdog);
    KeFlushQueuedDpcs();
    if (x->Adapter)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
    if (x->Regs)
        MmUnmapIoSpace(x->Regs, x->RegsSize);
    x->Regs = NULL;
}

static NTSTATUS Start(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw)
{
    PXFER x = Dev->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FrResource(Translated, CmResourceTypeInterrupt, 0);
    DESCRIPTION3 d;
    ULONG maps;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Raw);

    if (!mem || !irq || mem->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsSize = 0x100;
    x->Regs = MmMapIoSpace(mem->u.Memory.Start, x->RegsSize, MmNonCached);
    if (!x->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(&d, sizeof d);
    d.V2.Version = 3;
    d.V2.Master = TRUE;
    d.V2.ScatterGather = TRUE;
    d.V2.Dma32BitAddresses = TRUE;
    d.V2.InterfaceType = PCIBus;
    d.V2.MaximumLength = CARD_SIZE;
    d.DmaAddressWidth = 28;
    x->Adapter = IoGetDmaAdapter(x->Frame.Pdo, &d.V2, &maps);
    if (!x->Adapter || maps < 2) {
        Stop(Dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Wr(x, REG_IACK, Rd(x, REG_ISTATUS));
    status = FrConnect(&x->Interrupt, Isr, x, irq);
    if (!NT_SUCCESS(status)) {
        x->Interrupt = NULL;
        Stop(Dev);
    }
    return status;
}

static VOID Kick(PDEVICE_OBJECT Dev) { StartNext(Dev->DeviceExtension); }
static VOID Flush(PDEVICE_OBJECT Dev) { FrqShut(&((PXFER)Dev->DeviceExtension)->Queue); }
static VOID Cleanup(PDEVICE_OBJECT Dev, PFILE_OBJECT File) { FrqCancelFile(&((PXFER)Dev->DeviceExtension)->Queue, File); }

static NTSTATUS Io(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PXFER x = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG offset;
    ULONG length;
    KIRQL irql;
    NTSTATUS status;

    if (sp->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_EX_STATS)
            return STATUS_INVALID_DEVICE_REQUEST;
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(EX_STATS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&x->Lock, &irql);
        *(EX_STATS *)Irp->AssociatedIrp.SystemBuffer = x->Stats;
        KeReleaseSpinLock(&x->Lock, irql);
        Irp->IoStatus.Information = sizeof(EX_STATS);
        return STATUS_SUCCESS;
    }
    if (sp->MajorFunction == IRP_MJ_READ) {
        offset = sp->Parameters.Read.ByteOffset.QuadPart;
        length = sp->Parameters.Read.Length;
    } else {
        offset = sp->Parameters.Write.ByteOffset.QuadPart;
        length = sp->Parameters.Write.Length;
    }
    if (offset < 0 || offset > CARD_SIZE || length > CARD_SIZE - (ULONG)offset)
        return STATUS_INVALID_PARAMETER;
    if (length == 0)
        return STATUS_SUCCESS;
    status = FrqPut(&x->Queue, Irp);
    if (status == STATUS_PENDING)
        StartNext(x);
    return status;
}

static const FRAME_OPS Ops = { .Start = Start, .Stop = Stop, .Flush = Flush, .Kick = Kick, .Cleanup = Cleanup, .Io = Io };

static NTSTATUS Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PXFER x;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(XFER), &Ops, &XferInterface, DO_DIRECT_IO, &dev);
    if (!NT_SUCCESS(status))
        return status;
    x = dev->DeviceExtension;
    KeInitializeSpinLock(&x->Lock);
    KeInitializeDpc(&x->Dpc, DpcRoutine, x);
    KeInitializeDpc(&x->WatchdogDpc, WatchdogRoutine, x);
    KeInitializeTimer(&x->Watchdog);
    status = FrqInit(&x->Queue, &x->Frame);
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
