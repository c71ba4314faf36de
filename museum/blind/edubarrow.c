/*
 * edubarrow: reads and writes the 4096 bytes of the edu card's buffer by DMA, through a common buffer (the card has 28
 * address bits). A read or write begins at its byte offset; requests wait in a queue, and one at a time is under way.
 * While the card is stopped or asleep requests are held.
 *
 * The bug: IRP_MN_STOP_DEVICE (and a removal) ends the request under way, but frees the common buffer without waiting
 * for the card's transfer, as the way into D3 does.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap, wild-dma
 * Needs: device, schedule
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define EDU_ID 0x00
#define EDU_STATUS 0x20
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK 0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_DESTINATION 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define DMA_RUN 0x01
#define DMA_FROM_CARD 0x02
#define DMA_INTERRUPT 0x04
#define CARD_BUFFER 0x40000
#define CARD_BYTES 4096
#define ALL_ONES 0xffffffff

#define LIMIT_MS 1000

static const GUID EdubarrowInterface = {0x94b06e2d, 0x7a51, 0x4dc8, {0xaf, 0x03, 0x5e, 0x81, 0x3c, 0x27, 0x9b, 0x07}};

/* a DEVICE_DESCRIPTION of version 3, which the headers lack */
typedef struct DESCRIPTION3 {
    DEVICE_DESCRIPTION D;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DESCRIPTION3;

typedef struct EDUBARROW {
    FRAME F;
    PUCHAR Registers;
    ULONG Length;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening;                  /* guarded by the interrupt's lock: may the service routine touch the card? */
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;                      /* CARD_BYTES */
    PHYSICAL_ADDRESS Logical;
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    RQ Queue;
    KSPIN_LOCK Lock;                    /* guards what follows and the buffer; acquired before the queue's own */
    BOOLEAN Open;
    PIRP Current;
    ULONGLONG Deadline;
} EDUBARROW;

static void RequestRange(PIRP Irp, PULONG Offset, PULONG Bytes, PBOOLEAN Read)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    *Read = s->MajorFunction == IRP_MJ_READ;
    *Bytes = *Read ? s->Parameters.Read.Length : s->Parameters.Write.Length;
    *Offset = *Read ? s->Parameters.Read.ByteOffset.LowPart : s->Parameters.Write.ByteOffset.LowPart;
}

/* gives the card the next request */
static void Next(EDUBARROW *x)
{
    ULONG command, offset, bytes;
    LARGE_INTEGER due;
    BOOLEAN read;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&x->Lock, &irql);
        irp = x->Open && !x->Current ? RqTake(&x->Queue, NULL) : NULL;
        if (!irp)
            break;
        command = RegRead(x->Registers, EDU_DMA_COMMAND);
        if (!(command & DMA_RUN)) {
            RequestRange(irp, &offset, &bytes, &read);
            if (!read)
                RtlCopyMemory(x->Buffer, irp->AssociatedIrp.SystemBuffer, bytes);
            x->Current = irp;
            due.QuadPart = -(LONGLONG)LIMIT_MS * 10000;
            x->Deadline = KeQueryInterruptTime() + LIMIT_MS * 10000;
            KeSetTimer(&x->Timer, due, &x->TimerDpc);
            RegWrite(x->Registers, EDU_DMA_SOURCE, read ? CARD_BUFFER + offset : x->Logical.LowPart);
            RegWrite(x->Registers, EDU_DMA_DESTINATION, read ? x->Logical.LowPart : CARD_BUFFER + offset);
            RegWrite(x->Registers, EDU_DMA_COUNT, bytes);
            RegWrite(x->Registers, EDU_DMA_COMMAND, DMA_RUN | DMA_INTERRUPT | (read ? DMA_FROM_CARD : 0));
            break;
        }
        KeReleaseSpinLock(&x->Lock, irql);
        Done(irp, command == ALL_ONES ? STATUS_DEVICE_NOT_CONNECTED : STATUS_DEVICE_BUSY, 0);
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

static BOOLEAN NTAPI Service(PKINTERRUPT Interrupt, PVOID Context)
{
    EDUBARROW *x = Context;
    ULONG cause;

    NOT_USED(Interrupt);
    if (!x->Listening)
        return FALSE;
    cause = RegRead(x->Registers, EDU_IRQ_STATUS);
    if (cause == 0 || cause == ALL_ONES)
        return FALSE;
    RegWrite(x->Registers, EDU_IRQ_ACK, cause);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Transferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EDUBARROW *x = Context;
    ULONG offset, bytes = 0;
    PIRP irp = NULL;
    BOOLEAN read;

    NOT_USED(Dpc);
    NOT_USED(Argument1);
    NOT_USED(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Open && x->Current && !(RegRead(x->Registers, EDU_DMA_COMMAND) & DMA_RUN)) {
        irp = x->Current;
        x->Current = NULL;
        KeCancelTimer(&x->Timer);
        RequestRange(irp, &offset, &bytes, &read);
        if (read)
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, x->Buffer, bytes);
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp) {
        Done(irp, STATUS_SUCCESS, bytes);
        Next(x);
    }
}

static VOID NTAPI TimedOut(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EDUBARROW *x = Context;
    LARGE_INTEGER due;
    PIRP irp = NULL;

    NOT_USED(Dpc);
    NOT_USED(Argument1);
    NOT_USED(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    due.QuadPart = (LONGLONG)(KeQueryInterruptTime() - x->Deadline);
    if (x->Current && due.QuadPart < 0) {       /* it was set for the request before: go on */
        KeSetTimer(&x->Timer, due, &x->TimerDpc);
    } else {
        irp = x->Current;
        x->Current = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp) {
        Done(irp, STATUS_IO_TIMEOUT, 0);
        Next(x);
    }
}

/* the card gets no more work, and the request under way is ended; its transfer may still run */
static void Quiet(EDUBARROW *x)
{
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Open = FALSE;
    irp = x->Current;
    x->Current = NULL;
    KeCancelTimer(&x->Timer);
    KeReleaseSpinLock(&x->Lock, irql);

    if (irp)
        Done(irp, STATUS_DEVICE_NOT_READY, 0);
}

/* waits until the card's transfer is over (about 100 ms) */
static void AwaitTransfer(EDUBARROW *x)
{
    LARGE_INTEGER time;
    ULONG command, i;

    time.QuadPart = -(LONGLONG)2 * 10000;
    for (i = 0; i < LIMIT_MS / 2; i++) {
        command = RegRead(x->Registers, EDU_DMA_COMMAND);
        if (!(command & DMA_RUN) || command == ALL_ONES)
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &time);
    }
}

/* the service routine touches the card no more, and the card does not interrupt */
static void Unlisten(EDUBARROW *x, BOOLEAN Touch)
{
    ULONG cause;
    KIRQL irql;

    irql = KeAcquireInterruptSpinLock(x->Interrupt);
    if (Touch && x->Listening) {
        cause = RegRead(x->Registers, EDU_IRQ_STATUS);
        if (cause != 0 && cause != ALL_ONES)
            RegWrite(x->Registers, EDU_IRQ_ACK, cause);
    }
    x->Listening = FALSE;
    KeReleaseInterruptSpinLock(x->Interrupt, irql);
}

static void Sleep(FRAME *f)
{
    EDUBARROW *x = (EDUBARROW *)f;

    Quiet(x);
    AwaitTransfer(x);
    Unlisten(x, TRUE);
}

static void Wake(FRAME *f)
{
    EDUBARROW *x = (EDUBARROW *)f;
    KIRQL irql;

    irql = KeAcquireInterruptSpinLock(x->Interrupt);
    x->Listening = TRUE;
    KeReleaseInterruptSpinLock(x->Interrupt, irql);
}

static void Awake(FRAME *f)
{
    EDUBARROW *x = (EDUBARROW *)f;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Open = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    Next(x);
}

static void ReleaseHardware(EDUBARROW *x)
{
    if (x->Buffer)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, CARD_BYTES, x->Logical, x->Buffer, TRUE);
    x->Buffer = NULL;
    if (x->Adapter)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
    MmUnmapIoSpace(x->Registers, x->Length);
    x->Registers = NULL;
}

static void Stop(FRAME *f)
{
    EDUBARROW *x = (EDUBARROW *)f;
    BOOLEAN touch = FrTouchable(f);

    Quiet(x);
#ifdef FIXED
    if (touch)
        AwaitTransfer(x);
#endif
    Unlisten(x, touch);
    FrDisconnect(x->Interrupt);
    x->Interrupt = NULL;
    KeFlushQueuedDpcs();
    ReleaseHardware(x);
}

static NTSTATUS GetBuffer(EDUBARROW *x)
{
    DESCRIPTION3 d;
    ULONG registers;

    RtlZeroMemory(&d, sizeof d);
    d.D.Version = 3;
    d.D.Master = TRUE;
    d.D.ScatterGather = TRUE;
    d.D.Dma32BitAddresses = TRUE;
    d.D.InterfaceType = PCIBus;
    d.D.MaximumLength = CARD_BYTES;
    d.DmaAddressWidth = 28;
    x->Adapter = IoGetDmaAdapter(x->F.Pdo, &d.D, &registers);
    if (!x->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Buffer = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, CARD_BYTES, &x->Logical, TRUE);
    if (!x->Buffer || x->Logical.QuadPart > 0x0fffffff - CARD_BYTES + 1)
        return STATUS_INSUFFICIENT_RESOURCES;
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FRAME *f, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR interrupt = FrResource(Translated, CmResourceTypeInterrupt, 0);
    EDUBARROW *x = (EDUBARROW *)f;
    NTSTATUS status;

    NOT_USED(Raw);
    if (!memory || !interrupt || memory->u.Memory.Length < CARD_BUFFER)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Length = memory->u.Memory.Length;
    x->Registers = MmMapIoSpace(memory->u.Memory.Start, x->Length, MmNonCached);
    if (!x->Registers)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((RegRead(x->Registers, EDU_ID) & 0xffff) != 0x00ed)
        status = STATUS_NO_SUCH_DEVICE;
    else
        status = GetBuffer(x);
    if (NT_SUCCESS(status)) {
        RegWrite(x->Registers, EDU_IRQ_ACK, RegRead(x->Registers, EDU_IRQ_STATUS));
        status = FrConnect(f, interrupt, Service, x, &x->Interrupt);
    }
    if (NT_SUCCESS(status))
        Wake(f);
    else
        ReleaseHardware(x);
    return status;
}

static NTSTATUS Init(FRAME *f)
{
    EDUBARROW *x = (EDUBARROW *)f;

    RqInit(&x->Queue);
    KeInitializeSpinLock(&x->Lock);
    KeInitializeDpc(&x->Dpc, Transferred, x);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->TimerDpc, TimedOut, x);
    return STATUS_SUCCESS;
}

static void Gone(FRAME *f)
{
    RqShut(&((EDUBARROW *)f)->Queue, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI ReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    EDUBARROW *x = Device->DeviceExtension;
    BOOLEAN read = s->MajorFunction == IRP_MJ_READ;
    ULONG bytes = read ? s->Parameters.Read.Length : s->Parameters.Write.Length;
    LONGLONG offset = read ? s->Parameters.Read.ByteOffset.QuadPart : s->Parameters.Write.ByteOffset.QuadPart;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&x->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    if (offset < 0 || offset > CARD_BYTES || bytes > CARD_BYTES - (ULONG)offset) {
        status = Done(Irp, STATUS_INVALID_PARAMETER, 0);
    } else if (bytes == 0) {
        status = Done(Irp, STATUS_SUCCESS, 0);
    } else {
        status = RqPut(&x->Queue, Irp);
        Next(x);
    }
    IoReleaseRemoveLock(&x->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EDUBARROW *x = Device->DeviceExtension;

    RqFlush(&x->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static const FRAME_OPS Ops = {
    .Init = Init, .Start = Start, .Stop = Stop, .Sleep = Sleep, .Wake = Wake, .Awake = Awake, .Gone = Gone
};

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(EDUBARROW), &EdubarrowInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_READ] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = ReadWrite;
    return STATUS_SUCCESS;
}
