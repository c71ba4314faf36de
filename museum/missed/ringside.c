/*
 * ringside: a packet monitor. The card writes the packets it hears into a ring of 16 slots in memory; the driver fetches them and hands one to
 * each read, which waits three seconds for one.
 *
 * The card (BAR0, 4096 bytes): 0x00 = identification 0x52494E47; 0x04 = control (bit 0 run; bit 1 reset: it stops, accesses no memory any more,
 * forgets all registers, its place in the ring is slot 0; clears itself); 0x08, 0x0C = address of the ring, low and high; 0x10 = the slot it will
 * write next (0 to 15); 0x14 = interrupt status (bit 0 packet; a one written clears it); 0x18 = interrupt mask (bit 0); 0x1C = the slot the driver
 * will read next; the card drops packets rather than catch up with it. A slot is a ULONG length (1 to 252) and 252 bytes. D3 resets the card.
 *
 * The bug: at a restart (or on the way back from D3) the card begins at slot 0 again, the driver goes on at the slot where it was. It takes all
 * slots from there up to the card's for new ones: reads bring old packets again, or whatever the new ring's memory contains.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: output-never-stored
 * Needs: power
 */
#include "../include/gated_queue.h"

#define REG_IDENT 0x00
#define REG_CONTROL 0x04
#define REG_RING_LOW 0x08
#define REG_RING_HIGH 0x0C
#define REG_PRODUCER 0x10
#define REG_INT_STATUS 0x14
#define REG_INT_MASK 0x18
#define REG_CONSUMER 0x1C
#define REGS_SIZE 0x1000
#define IDENT 0x52494E47
#define CONTROL_RUN 1
#define CONTROL_RESET 2
#define INT_PACKET 1
#define SLOTS 16
#define DATA_MAX 252
#define BACKLOG 32
#define ALL_ONES 0xFFFFFFFF
#define LIMIT_100NS (3 * 10 * 1000 * 1000)

#define IOCTL_RINGSIDE_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID RingsideGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x31}};

typedef struct _SLOT {
    ULONG Length;
    UCHAR Data[DATA_MAX];
} SLOT, *PSLOT;

typedef struct _COUNTS {
    ULONG Noticed;
    ULONG Bad;
    ULONG Dropped;
} COUNTS, *PCOUNTS;

typedef struct _RINGSIDE {
    AK Ak;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN On; /* guarded by the interrupt's lock; changed under Ak.HwLock too */
    PDMA_ADAPTER Adapter;
    volatile SLOT *Ring;
    PHYSICAL_ADDRESS RingAddress;
    ULONG Consumer; /* the slot that is read next; guarded by Ak.HwLock */
    KDPC Dpc;
    KTIMER Limit;
    KDPC LimitDpc;
    KSPIN_LOCK Lock; /* guards all below; may be taken under Ak.HwLock */
    PIRP Current;
    BOOLEAN Over; /* a packet is there, the limit's DPC is on its way and completes the request */
    COUNTS Counts;
    ULONG First, Count;
    SLOT Packet[BACKLOG];
} RINGSIDE, *PRINGSIDE;

static ULONG Get(PRINGSIDE r, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(r->Regs + reg));
}

static VOID Put(PRINGSIDE r, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(r->Regs + reg), value);
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PRINGSIDE r = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!r->On)
        return FALSE;
    bits = Get(r, REG_INT_STATUS);
    if (bits == ALL_ONES || !(bits & INT_PACKET))
        return FALSE;
    Put(r, REG_INT_STATUS, bits);
    KeInsertQueueDpc(&r->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN SyncOn(PVOID Context)
{
    PRINGSIDE r = Context;

    r->On = TRUE;
    Put(r, REG_INT_STATUS, INT_PACKET);
    Put(r, REG_INT_MASK, INT_PACKET);
    return TRUE;
}

static BOOLEAN SyncOff(PVOID Context)
{
    PRINGSIDE r = Context;

    r->On = FALSE;
    Put(r, REG_INT_MASK, 0);
    return TRUE;
}

static BOOLEAN SyncForget(PVOID Context)
{
    ((PRINGSIDE)Context)->On = FALSE;
    return TRUE;
}

/* The card accesses no memory any more behind this. */
static VOID Halt(PRINGSIDE r)
{
    Put(r, REG_CONTROL, CONTROL_RESET);
    (VOID)Get(r, REG_CONTROL); /* the write has arrived */
}

/* Lets the card run, from its beginning; under Ak.HwLock. */
static VOID Run(PRINGSIDE r)
{
    Halt(r);
#ifdef FIXED
    r->Consumer = 0;
#endif
    Put(r, REG_RING_LOW, r->RingAddress.LowPart);
    Put(r, REG_RING_HIGH, (ULONG)r->RingAddress.HighPart);
    Put(r, REG_CONSUMER, r->Consumer);
    KeSynchronizeExecution(r->Interrupt, SyncOn, r);
    Put(r, REG_CONTROL, CONTROL_RUN);
}

/* Puts the slot's packet into the backlog; the lock is held. */
static VOID Keep(PRINGSIDE r, volatile SLOT *slot)
{
    ULONG length = slot->Length, i;
    PSLOT packet;

    if (length == 0 || length > DATA_MAX) {
        r->Counts.Bad++;
    } else if (r->Count == BACKLOG) {
        r->Counts.Dropped++;
    } else {
        packet = &r->Packet[(r->First + r->Count) % BACKLOG];
        packet->Length = length;
        for (i = 0; i < length; i++)
            packet->Data[i] = slot->Data[i];
        r->Count++;
        r->Counts.Noticed++;
    }
}

/* Gives the oldest packet to the request; the lock is held. 0: there is none. */
static ULONG Hand(PRINGSIDE r, PIRP irp)
{
    PSLOT packet = &r->Packet[r->First];

    if (r->Count == 0)
        return 0;
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, packet->Data, packet->Length);
    r->First = (r->First + 1) % BACKLOG;
    r->Count--;
    return packet->Length;
}

static VOID PacketDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PRINGSIDE r = Context;
    ULONG producer, length = 0;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&r->Ak.HwLock);
    KeAcquireSpinLockAtDpcLevel(&r->Lock);
    if (r->On) {
        producer = Get(r, REG_PRODUCER);
        if (producer < SLOTS) { /* else it is gone */
            while (r->Consumer != producer) {
                Keep(r, &r->Ring[r->Consumer]);
                r->Consumer = (r->Consumer + 1) % SLOTS;
            }
            Put(r, REG_CONSUMER, r->Consumer);
        }
    }
    if (r->Current && !r->Over && r->Count) {
        if (KeCancelTimer(&r->Limit)) {
            irp = r->Current;
            r->Current = NULL;
            length = Hand(r, irp);
        } else {
            r->Over = TRUE;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&r->Lock);
    KeReleaseSpinLockFromDpcLevel(&r->Ak.HwLock);
    if (irp)
        AkDone(&r->Ak, irp, STATUS_SUCCESS, length);
}

static VOID LimitDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PRINGSIDE r = Context;
    ULONG length = 0;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&r->Lock);
    irp = r->Current;
    r->Current = NULL;
    if (irp)
        length = Hand(r, irp);
    KeReleaseSpinLockFromDpcLevel(&r->Lock);
    if (irp)
        AkDone(&r->Ak, irp, length ? STATUS_SUCCESS : STATUS_IO_TIMEOUT, length);
}

static VOID RingsideStartIo(PAK k, PIRP Irp)
{
    PRINGSIDE r = (PRINGSIDE)k;
    LARGE_INTEGER limit;
    ULONG length;
    KIRQL irql;

    KeAcquireSpinLock(&r->Lock, &irql);
    length = Hand(r, Irp);
    if (!length) {
        r->Current = Irp;
        r->Over = FALSE;
        limit.QuadPart = -(LONGLONG)LIMIT_100NS;
        KeSetTimer(&r->Limit, limit, &r->LimitDpc);
    }
    KeReleaseSpinLock(&r->Lock, irql);
    if (length)
        AkDone(k, Irp, STATUS_SUCCESS, length);
}

static NTSTATUS RingsideIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    PRINGSIDE r = (PRINGSIDE)k;
    KIRQL irql;

    switch (s->MajorFunction) {
    case IRP_MJ_READ:
        if (s->Parameters.Read.Length < DATA_MAX)
            return STATUS_BUFFER_TOO_SMALL;
        return AkQueue(k, Irp);

    case IRP_MJ_DEVICE_CONTROL:
        if (s->Parameters.DeviceIoControl.IoControlCode != IOCTL_RINGSIDE_COUNTS)
            return STATUS_INVALID_DEVICE_REQUEST;
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&r->Lock, &irql);
        *(PCOUNTS)Irp->AssociatedIrp.SystemBuffer = r->Counts;
        KeReleaseSpinLock(&r->Lock, irql);
        Irp->IoStatus.Information = sizeof(COUNTS);
        return STATUS_SUCCESS;

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID Release(PRINGSIDE r)
{
    if (r->Interrupt) {
        IoDisconnectInterrupt(r->Interrupt);
        r->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (r->Ring)
        r->Adapter->DmaOperations->FreeCommonBuffer(r->Adapter, SLOTS * sizeof(SLOT), r->RingAddress, (PVOID)r->Ring, TRUE);
    if (r->Adapter)
        r->Adapter->DmaOperations->PutDmaAdapter(r->Adapter);
    if (r->Regs)
        MmUnmapIoSpace(r->Regs, REGS_SIZE);
    r->Ring = NULL;
    r->Adapter = NULL;
    r->Regs = NULL;
}

static NTSTATUS RingsideStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PRINGSIDE r = (PRINGSIDE)k;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = AkMemory(Translated, 0), line = AkLine(Translated);
    DEVICE_DESCRIPTION description;
    NTSTATUS status;
    ULONG registers;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Raw);
    if (!memory || !line || memory->u.Memory.Length < REGS_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    r->Regs = MmMapIoSpace(memory->u.Memory.Start, REGS_SIZE, MmNonCached);
    if (!r->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = STATUS_NO_SUCH_DEVICE;
    if (Get(r, REG_IDENT) != IDENT)
        goto failed;
    Halt(r);
    Put(r, REG_INT_MASK, 0);
    RtlZeroMemory(&description, sizeof description);
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.Dma64BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = SLOTS * sizeof(SLOT);
    status = STATUS_INSUFFICIENT_RESOURCES;
    r->Adapter = IoGetDmaAdapter(k->Pdo, &description, &registers);
    if (!r->Adapter)
        goto failed;
    r->Ring = r->Adapter->DmaOperations->AllocateCommonBuffer(r->Adapter, SLOTS * sizeof(SLOT), &r->RingAddress, TRUE);
    if (!r->Ring)
        goto failed;
    status = AkConnect(line, Isr, r, &r->Interrupt);
    if (!NT_SUCCESS(status)) {
        r->Interrupt = NULL;
        goto failed;
    }
    KeAcquireSpinLock(&k->HwLock, &irql);
    Run(r);
    KeReleaseSpinLock(&k->HwLock, irql);
    return STATUS_SUCCESS;

failed:
    Release(r);
    return status;
}

static VOID RingsideStop(PAK k, BOOLEAN Touch)
{
    PRINGSIDE r = (PRINGSIDE)k;
    KIRQL irql;

    KeAcquireSpinLock(&k->HwLock, &irql); /* so that no DPC is at the card */
    KeSynchronizeExecution(r->Interrupt, Touch ? SyncOff : SyncForget, r);
    if (Touch)
        Halt(r);
    KeReleaseSpinLock(&k->HwLock, irql);
    Release(r);
}

static VOID RingsidePowerDown(PAK k)
{
    PRINGSIDE r = (PRINGSIDE)k;

    KeSynchronizeExecution(r->Interrupt, SyncOff, r);
    Halt(r);
}

static VOID RingsidePowerUp(PAK k)
{
    Run((PRINGSIDE)k);
}

static NTSTATUS RingsideInit(PAK k)
{
    PRINGSIDE r = (PRINGSIDE)k;

    KeInitializeSpinLock(&r->Lock);
    KeInitializeDpc(&r->Dpc, PacketDpc, r);
    KeInitializeTimer(&r->Limit);
    KeInitializeDpc(&r->LimitDpc, LimitDpc, r);
    return STATUS_SUCCESS;
}

static const AK_OPS AkOps = {
    .Interface = &RingsideGuid,
    .ExtSize = sizeof(RINGSIDE),
    .DeviceFlags = DO_BUFFERED_IO,
    .Init = RingsideInit,
    .Start = RingsideStart,
    .Stop = RingsideStop,
    .PowerDown = RingsidePowerDown,
    .PowerUp = RingsidePowerUp,
    .Io = RingsideIo,
    .StartIo = RingsideStartIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
