/*
 * edustrip: the 4096 bytes of the edu card's own memory as a small file: reads and writes at an offset are moved by the card's DMA to and from
 * a buffer below 256 MiB. A transfer that is not over after two seconds is given up.
 *
 * The bug: behind a transfer that was given up the next one is started without a look whether the card is still at the old one. The card does
 * not take the new command; its end of the old transfer is taken for the end of the new one, and a reader gets the bytes of another request.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: device
 */
#include "../include/gated_queue.h"

#define REG_IDENT 0x00
#define REG_INT_STATUS 0x24
#define REG_INT_ACK 0x64
#define REG_DMA_SOURCE 0x80
#define REG_DMA_DEST 0x88
#define REG_DMA_COUNT 0x90
#define REG_DMA_COMMAND 0x98
#define DMA_RUN 1
#define DMA_TO_RAM 2
#define DMA_INTERRUPT 4
#define REGS_SIZE 0x1000
#define STRIP 0x40000
#define STRIP_SIZE 4096
#define HIGHEST 0x10000000 /* the card has 28 address bits */
#define ALL_ONES 0xFFFFFFFF
#define LIMIT_100NS (2 * 10 * 1000 * 1000)

static const GUID EdustripGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x11}};

typedef struct _EDUSTRIP {
    AK Ak;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN On; /* guarded by the interrupt's lock: the ISR may touch the card */
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS Address;
    KDPC Dpc;
    KTIMER Limit;
    KDPC LimitDpc;
    KSPIN_LOCK Lock; /* guards the two below and the DMA registers */
    PIRP Current;
    BOOLEAN Over; /* the current transfer is over, the limit's DPC is on its way and completes it */
} EDUSTRIP, *PEDUSTRIP;

static ULONG Get(PEDUSTRIP e, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(e->Regs + reg));
}

static VOID Put(PEDUSTRIP e, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(e->Regs + reg), value);
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDUSTRIP e = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!e->On)
        return FALSE;
    bits = Get(e, REG_INT_STATUS);
    if (bits == 0 || bits == ALL_ONES)
        return FALSE;
    Put(e, REG_INT_ACK, bits);
    KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN SyncOn(PVOID Context)
{
    PEDUSTRIP e = Context;

    Put(e, REG_INT_ACK, Get(e, REG_INT_STATUS));
    e->On = TRUE;
    return TRUE;
}

static BOOLEAN SyncOff(PVOID Context)
{
    PEDUSTRIP e = Context;

    e->On = FALSE;
    return TRUE;
}

static VOID Finish(PEDUSTRIP e, PIRP irp, NTSTATUS status)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG length = s->MajorFunction == IRP_MJ_WRITE ? s->Parameters.Write.Length : s->Parameters.Read.Length;

    if (NT_SUCCESS(status) && s->MajorFunction == IRP_MJ_READ)
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, e->Buffer, length);
    AkDone(&e->Ak, irp, status, NT_SUCCESS(status) ? length : 0);
}

/* The card has raised its interrupt. */
static VOID TransferDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PEDUSTRIP e = Context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&e->Lock);
    if (e->Current && !e->Over && !(Get(e, REG_DMA_COMMAND) & DMA_RUN)) {
        e->Over = TRUE;
        if (KeCancelTimer(&e->Limit)) {
            irp = e->Current;
            e->Current = NULL;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&e->Lock);
    if (irp)
        Finish(e, irp, STATUS_SUCCESS);
}

/* The time is over; or the transfer was over when this was already on its way. */
static VOID LimitDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PEDUSTRIP e = Context;
    NTSTATUS status = STATUS_SUCCESS;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&e->Lock);
    irp = e->Current;
    e->Current = NULL;
    if (irp && !e->Over && (Get(e, REG_DMA_COMMAND) & DMA_RUN))
        status = STATUS_IO_TIMEOUT;
    KeReleaseSpinLockFromDpcLevel(&e->Lock);
    if (irp)
        Finish(e, irp, status);
}

static VOID EdustripStartIo(PAK k, PIRP Irp)
{
    PEDUSTRIP e = (PEDUSTRIP)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = s->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? s->Parameters.Write.Length : s->Parameters.Read.Length;
    ULONG offset = (ULONG)(write ? s->Parameters.Write.ByteOffset.QuadPart : s->Parameters.Read.ByteOffset.QuadPart);
    NTSTATUS status = STATUS_SUCCESS;
    LARGE_INTEGER limit;
    ULONG state;
    KIRQL irql;

    KeAcquireSpinLock(&e->Lock, &irql);
    state = Get(e, REG_DMA_COMMAND);
    if (state == ALL_ONES) {
        status = STATUS_DEVICE_NOT_CONNECTED;
#ifdef FIXED
    } else if (state & DMA_RUN) {
        status = STATUS_DEVICE_BUSY;
#endif
    } else {
        if (write)
            RtlCopyMemory(e->Buffer, Irp->AssociatedIrp.SystemBuffer, length);
        Put(e, REG_DMA_SOURCE, write ? e->Address.LowPart : STRIP + offset);
        Put(e, REG_DMA_DEST, write ? STRIP + offset : e->Address.LowPart);
        Put(e, REG_DMA_COUNT, length);
        e->Current = Irp;
        e->Over = FALSE;
        limit.QuadPart = -(LONGLONG)LIMIT_100NS;
        KeSetTimer(&e->Limit, limit, &e->LimitDpc);
        Put(e, REG_DMA_COMMAND, DMA_RUN | DMA_INTERRUPT | (write ? 0 : DMA_TO_RAM));
    }
    KeReleaseSpinLock(&e->Lock, irql);
    if (!NT_SUCCESS(status))
        AkDone(k, Irp, status, 0);
}

static NTSTATUS EdustripIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    BOOLEAN write = s->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? s->Parameters.Write.Length : s->Parameters.Read.Length;
    LONGLONG offset = write ? s->Parameters.Write.ByteOffset.QuadPart : s->Parameters.Read.ByteOffset.QuadPart;

    if (s->MajorFunction == IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (length == 0)
        return STATUS_SUCCESS;
    if (offset < 0 || offset >= STRIP_SIZE || length > STRIP_SIZE - (ULONG)offset)
        return STATUS_INVALID_PARAMETER;
    return AkQueue(k, Irp);
}

/* Waits up to half a second until no transfer runs; TRUE: none does (or the card is gone). PASSIVE. */
static BOOLEAN WaitQuiet(PEDUSTRIP e)
{
    LARGE_INTEGER step;
    ULONG i, state;

    step.QuadPart = -10 * 1000 * 10;
    for (i = 0; i < 50; i++) {
        state = Get(e, REG_DMA_COMMAND);
        if (state == ALL_ONES || !(state & DMA_RUN))
            return TRUE;
        KeDelayExecutionThread(KernelMode, FALSE, &step);
    }
    return FALSE;
}

/* Takes the bus from the card, so that it reaches no memory any more. PASSIVE. */
static BOOLEAN BusMasterOff(PEDUSTRIP e)
{
    IO_STACK_LOCATION model;
    USHORT command = 0;

    RtlZeroMemory(&model, sizeof model);
    model.MinorFunction = IRP_MN_READ_CONFIG;
    model.Parameters.ReadWriteConfig.WhichSpace = PCI_WHICHSPACE_CONFIG;
    model.Parameters.ReadWriteConfig.Buffer = &command;
    model.Parameters.ReadWriteConfig.Offset = 4;
    model.Parameters.ReadWriteConfig.Length = sizeof command;
    if (!NT_SUCCESS(AkSendPnp(&e->Ak, &model, NULL)))
        return FALSE;
    command &= ~4;
    model.MinorFunction = IRP_MN_WRITE_CONFIG;
    return NT_SUCCESS(AkSendPnp(&e->Ak, &model, NULL));
}

static VOID Release(PEDUSTRIP e, BOOLEAN quiet)
{
    if (e->Interrupt) {
        IoDisconnectInterrupt(e->Interrupt);
        e->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (quiet) { /* else the card may still write into the buffer: it is left to it */
        if (e->Buffer)
            e->Adapter->DmaOperations->FreeCommonBuffer(e->Adapter, STRIP_SIZE, e->Address, e->Buffer, TRUE);
        if (e->Adapter)
            e->Adapter->DmaOperations->PutDmaAdapter(e->Adapter);
    }
    e->Buffer = NULL;
    e->Adapter = NULL;
    if (e->Regs) {
        MmUnmapIoSpace(e->Regs, REGS_SIZE);
        e->Regs = NULL;
    }
}

static NTSTATUS EdustripStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PEDUSTRIP e = (PEDUSTRIP)k;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = AkMemory(Translated, 0), line = AkLine(Translated);
    DEVICE_DESCRIPTION description;
    ULONG registers, ident;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Raw);
    if (!memory || !line || memory->u.Memory.Length < REGS_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    e->Regs = MmMapIoSpace(memory->u.Memory.Start, REGS_SIZE, MmNonCached);
    if (!e->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    ident = Get(e, REG_IDENT);
    status = STATUS_NO_SUCH_DEVICE;
    if ((ident & 0xFF) != 0xED || ident == ALL_ONES)
        goto failed;
    status = STATUS_DEVICE_BUSY;
    if (!WaitQuiet(e))
        goto failed;
    RtlZeroMemory(&description, sizeof description);
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = STRIP_SIZE;
    status = STATUS_INSUFFICIENT_RESOURCES;
    e->Adapter = IoGetDmaAdapter(k->Pdo, &description, &registers);
    if (!e->Adapter)
        goto failed;
    e->Buffer = e->Adapter->DmaOperations->AllocateCommonBuffer(e->Adapter, STRIP_SIZE, &e->Address, TRUE);
    if (!e->Buffer)
        goto failed;
    if (e->Address.QuadPart < 0 || e->Address.QuadPart > HIGHEST - STRIP_SIZE)
        goto failed;
    RtlZeroMemory(e->Buffer, STRIP_SIZE);
    Put(e, REG_INT_ACK, Get(e, REG_INT_STATUS)); /* it must not interrupt before the ISR knows it */
    status = AkConnect(line, Isr, e, &e->Interrupt);
    if (!NT_SUCCESS(status)) {
        e->Interrupt = NULL;
        goto failed;
    }
    KeSynchronizeExecution(e->Interrupt, SyncOn, e);
    return STATUS_SUCCESS;

failed:
    Release(e, TRUE);
    return status;
}

static VOID EdustripStop(PAK k, BOOLEAN Touch)
{
    PEDUSTRIP e = (PEDUSTRIP)k;
    BOOLEAN quiet = TRUE;

    if (Touch)
        quiet = WaitQuiet(e) || BusMasterOff(e); /* a transfer that was given up may still run */
    KeSynchronizeExecution(e->Interrupt, SyncOff, e);
    Release(e, quiet);
}

static VOID EdustripPowerDown(PAK k)
{
    KeSynchronizeExecution(((PEDUSTRIP)k)->Interrupt, SyncOff, k);
}

static VOID EdustripPowerUp(PAK k)
{
    KeSynchronizeExecution(((PEDUSTRIP)k)->Interrupt, SyncOn, k);
}

static NTSTATUS EdustripInit(PAK k)
{
    PEDUSTRIP e = (PEDUSTRIP)k;

    KeInitializeSpinLock(&e->Lock);
    KeInitializeDpc(&e->Dpc, TransferDpc, e);
    KeInitializeTimer(&e->Limit);
    KeInitializeDpc(&e->LimitDpc, LimitDpc, e);
    return STATUS_SUCCESS;
}

static const AK_OPS AkOps = {
    .Interface = &EdustripGuid,
    .ExtSize = sizeof(EDUSTRIP),
    .DeviceFlags = DO_BUFFERED_IO,
    .Init = EdustripInit,
    .Start = EdustripStart,
    .Stop = EdustripStop,
    .PowerDown = EdustripPowerDown,
    .PowerUp = EdustripPowerUp,
    .Io = EdustripIo,
    .StartIo = EdustripStartIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
