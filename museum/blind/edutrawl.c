/*
 * edutrawl: the 4096 byte buffer of QEMU's edu card as a device that is read and written, by DMA.
 * A common buffer mirrors the card's; a thread moves one request at a time between them, and copies
 * from and to the application's buffer.
 *
 * The bug: a request's offset and its length are each held against the buffer's size, but not their
 * sum: the copy and the DMA go past the end of the common buffer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: bad-pointer, dma-behind-mapping, wild-dma, pool-overrun, wild-write, wild-read
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID TrawlInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x07 } };

#define EDU_ID         0x00
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK    0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_TARGET 0x88
#define EDU_DMA_COUNT  0x90
#define EDU_DMA_CMD    0x98
#define EDU_DMA_RUN    0x01
#define EDU_DMA_TO_RAM 0x02
#define EDU_DMA_IRQ    0x04
#define EDU_BUFFER     0x40000
#define EDU_BUFFER_SIZE 4096
#define EDU_ADDRESSES  0x10000000ll /* 28 bits */

#define TRAWL_SLICE_MS 100
#define TRAWL_SLICES   10

/* DEVICE_DESCRIPTION of version 3, which the headers at hand do not have */
typedef struct _TRAWL_DESCRIPTION {
    DEVICE_DESCRIPTION Base;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} TRAWL_DESCRIPTION;

typedef struct _TRAWL_EXT {
    FR_DEV Frame;
    PUCHAR Regs;
    ULONG RegsLength;
    FR_IRQ Irq;
    KDPC Dpc;
    KEVENT Done; /* an interrupt has come */
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS Logical;
    PVOID Thread;
    KEVENT Work;
    KEVENT Stop;
    FR_QUEUE Queue;
} TRAWL_EXT, *PTRAWL_EXT;

static ULONG TrawlGet(PTRAWL_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID TrawlPut(PTRAWL_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

static BOOLEAN TrawlService(PVOID Context)
{
    PTRAWL_EXT x = Context;
    ULONG bits = TrawlGet(x, EDU_IRQ_STATUS);

    if (bits == 0 || bits == ~0u)
        return FALSE;
    TrawlPut(x, EDU_IRQ_ACK, bits);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI TrawlDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    FR_UNUSED_OF_DPC();
    KeSetEvent(&((PTRAWL_EXT)Context)->Done, IO_NO_INCREMENT, FALSE);
}

/* Waits until the card moves nothing. The event is only to wait less: what counts is the card's word. */
static NTSTATUS TrawlIdle(PTRAWL_EXT x)
{
    LARGE_INTEGER slice;
    ULONG i, command;

    slice.QuadPart = -(TRAWL_SLICE_MS * 10000ll);
    for (i = 0;; i++) {
        command = TrawlGet(x, EDU_DMA_CMD);
        if (command == ~0u)
            return STATUS_DEVICE_NOT_CONNECTED;
        if (!(command & EDU_DMA_RUN))
            return STATUS_SUCCESS;
        if (i == TRAWL_SLICES)
            return STATUS_IO_TIMEOUT;
        KeWaitForSingleObject(&x->Done, Executive, KernelMode, FALSE, &slice);
    }
}

/* Within the gate */
static VOID TrawlMove(PTRAWL_EXT x, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = s->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? s->Parameters.Write.Length : s->Parameters.Read.Length;
    ULONG offset = (ULONG)(write ? s->Parameters.Write.ByteOffset.QuadPart : s->Parameters.Read.ByteOffset.QuadPart);
    ULONG ram = x->Logical.LowPart + offset, card = EDU_BUFFER + offset;
    PUCHAR data = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority | MdlMappingNoExecute);
    NTSTATUS status;

    if (!data) {
        FrDone(&x->Frame, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        return;
    }
    status = TrawlIdle(x); /* a request before may have been given up */
    if (NT_SUCCESS(status)) {
        if (write)
            RtlCopyMemory(x->Common + offset, data, length);
        KeClearEvent(&x->Done);
        TrawlPut(x, EDU_DMA_SOURCE, write ? ram : card);
        TrawlPut(x, EDU_DMA_TARGET, write ? card : ram);
        TrawlPut(x, EDU_DMA_COUNT, length);
        TrawlPut(x, EDU_DMA_CMD, EDU_DMA_RUN | EDU_DMA_IRQ | (write ? 0 : EDU_DMA_TO_RAM));
        status = TrawlIdle(x);
    }
    if (NT_SUCCESS(status) && !write)
        RtlCopyMemory(data, x->Common + offset, length);
    FrDone(&x->Frame, Irp, status, NT_SUCCESS(status) ? length : 0);
}

static VOID NTAPI TrawlThread(PVOID Context)
{
    PTRAWL_EXT x = Context;
    PVOID events[2] = { &x->Stop, &x->Work };

    while (KeWaitForMultipleObjects(2, events, WaitAny, Executive, KernelMode, FALSE, NULL, NULL) != STATUS_WAIT_0) {
        while (NT_SUCCESS(FrEnter(&x->Frame))) {
            PIRP irp = FrQueueGet(&x->Queue);
            if (irp)
                TrawlMove(x, irp);
            FrLeave(&x->Frame);
            if (!irp)
                break;
        }
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS NTAPI TrawlReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRAWL_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = s->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? s->Parameters.Write.Length : s->Parameters.Read.Length;
    LONG64 offset = write ? s->Parameters.Write.ByteOffset.QuadPart : s->Parameters.Read.ByteOffset.QuadPart;
    NTSTATUS status = FrBeginHeld(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (NT_SUCCESS(status)) {
        if (length == 0)
            status = FrDone(d, Irp, STATUS_SUCCESS, 0);
        else if (offset < 0 || offset >= EDU_BUFFER_SIZE || length > EDU_BUFFER_SIZE)
            status = FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
#ifdef FIXED
        else if (length > EDU_BUFFER_SIZE - offset)
            status = FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
#endif
        else {
            status = FrQueuePut(&x->Queue, Irp);
            KeSetEvent(&x->Work, IO_NO_INCREMENT, FALSE);
        }
        FrLeave(d);
    } else
        FrDone(d, Irp, status, 0);
    FrEnd(d);
    return status;
}

static NTSTATUS NTAPI TrawlCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRAWL_EXT x = Device->DeviceExtension;
    NTSTATUS status = FrBegin(&x->Frame, Irp);

    if (!NT_SUCCESS(status))
        return status;
    FrQueueFlush(&x->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrDone(&x->Frame, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS TrawlInit(PFR_DEV d)
{
    PTRAWL_EXT x = (PTRAWL_EXT)d;
    KeInitializeDpc(&x->Dpc, TrawlDpc, x);
    KeInitializeEvent(&x->Done, SynchronizationEvent, FALSE);
    KeInitializeEvent(&x->Work, SynchronizationEvent, FALSE);
    KeInitializeEvent(&x->Stop, NotificationEvent, FALSE);
    FrQueueInit(&x->Queue, d);
    return STATUS_SUCCESS;
}

static NTSTATUS TrawlBuffer(PTRAWL_EXT x)
{
    TRAWL_DESCRIPTION description;
    ULONG registers;

    RtlZeroMemory(&description, sizeof(description));
    description.Base.Version = 3;
    description.Base.Master = TRUE;
    description.Base.ScatterGather = TRUE;
    description.Base.Dma32BitAddresses = TRUE;
    description.Base.InterfaceType = PCIBus;
    description.Base.MaximumLength = EDU_BUFFER_SIZE;
    description.DmaAddressWidth = 28;
    x->Adapter = IoGetDmaAdapter(x->Frame.Pdo, &description.Base, &registers);
    if (!x->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Common = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, EDU_BUFFER_SIZE, &x->Logical, FALSE);
    if (!x->Common || x->Logical.QuadPart + EDU_BUFFER_SIZE > EDU_ADDRESSES)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(x->Common, EDU_BUFFER_SIZE);
    return STATUS_SUCCESS;
}

static NTSTATUS TrawlThreadStart(PTRAWL_EXT x)
{
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    HANDLE thread;
    KeClearEvent(&x->Stop);
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, &attributes, NULL, NULL, TrawlThread, x);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(thread, SYNCHRONIZE, *PsThreadType, KernelMode, &x->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        x->Thread = NULL;
        KeSetEvent(&x->Stop, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(thread, FALSE, NULL);
    }
    ZwClose(thread);
    return status;
}

static NTSTATUS TrawlStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PTRAWL_EXT x = (PTRAWL_EXT)d;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Resources, CmResourceTypeMemory, 0);
    NTSTATUS status;

    if (!memory || memory->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLength = memory->u.Memory.Length;
    x->Regs = MmMapIoSpace(memory->u.Memory.Start, x->RegsLength, MmNonCached);
    if (!x->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((TrawlGet(x, EDU_ID) & 0xFFFF) != 0x00ED)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    status = TrawlBuffer(x);
    if (!NT_SUCCESS(status))
        return status;
    TrawlPut(x, EDU_IRQ_ACK, TrawlGet(x, EDU_IRQ_STATUS));
    status = FrIrqConnect(&x->Irq, Resources, TrawlService, x);
    if (!NT_SUCCESS(status))
        return status;
    return TrawlThreadStart(x);
}

/* Once the card moves nothing, and its interrupt is taken back, there is no other one. */
static VOID TrawlQuiet(PTRAWL_EXT x)
{
    TrawlIdle(x);
    TrawlPut(x, EDU_IRQ_ACK, TrawlGet(x, EDU_IRQ_STATUS));
}

static VOID TrawlStop(PFR_DEV d)
{
    PTRAWL_EXT x = (PTRAWL_EXT)d;

    if (x->Thread) {
        KeSetEvent(&x->Stop, IO_NO_INCREMENT, FALSE);
        KeWaitForSingleObject(x->Thread, Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(x->Thread);
        x->Thread = NULL;
    }
    if (x->Irq.Object) {
        if (FrPowered(d))
            TrawlQuiet(x);
        FrIrqDisconnect(&x->Irq);
        KeFlushQueuedDpcs();
    }
    if (x->Common) {
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, EDU_BUFFER_SIZE, x->Logical, x->Common, FALSE);
        x->Common = NULL;
    }
    if (x->Adapter)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
    if (x->Regs)
        MmUnmapIoSpace(x->Regs, x->RegsLength);
    x->Regs = NULL;
}

static VOID TrawlFlush(PFR_DEV d, NTSTATUS Status)
{
    FrQueueFlush(&((PTRAWL_EXT)d)->Queue, NULL, Status);
}

static VOID TrawlPowerDown(PFR_DEV d)
{
    TrawlQuiet((PTRAWL_EXT)d);
    FrIrqEnable(&((PTRAWL_EXT)d)->Irq, FALSE);
}

static VOID TrawlPowerUp(PFR_DEV d)
{
    PTRAWL_EXT x = (PTRAWL_EXT)d;
    TrawlPut(x, EDU_IRQ_ACK, TrawlGet(x, EDU_IRQ_STATUS));
    FrIrqEnable(&x->Irq, TRUE);
}

static VOID TrawlOpened(PFR_DEV d)
{
    KeSetEvent(&((PTRAWL_EXT)d)->Work, IO_NO_INCREMENT, FALSE);
}

static const FR_OPS TrawlOps = {
    sizeof(TRAWL_EXT), &TrawlInterface, DO_DIRECT_IO, TrawlInit, TrawlStart, TrawlStop, TrawlFlush,
    TrawlPowerDown, TrawlPowerUp, FrNothing, TrawlOpened,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &TrawlOps);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TrawlCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = TrawlReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = TrawlReadWrite;
    return STATUS_SUCCESS;
}
