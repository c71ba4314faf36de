/*
 * edulorry: makes the card's 4 KiB buffer a small store that programs read and write at an offset; the data travel by the card's DMA through a common
 * buffer, one transfer at a time, each with a time limit.
 *
 * The bug: after a transfer that ran into its time limit the next one is set up without looking whether the card is still busy. The card ignores the new
 * command, the late interrupt of the old one is taken for its end, and the program gets old data (or believes its own are written).
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define CARD_ID 0x010000edu
#define REG_ID 0x00
#define REG_LIVE 0x04
#define REG_IRQ 0x24
#define REG_ACK 0x64
#define REG_SOURCE 0x80
#define REG_TARGET 0x88
#define REG_COUNT 0x90
#define REG_COMMAND 0x98
#define REG_BYTES 0x100

#define COMMAND_RUN 1u
#define COMMAND_TO_RAM 2u
#define COMMAND_IRQ 4u
#define IRQ_DMA 0x100u

#define STORE_START 0x40000u
#define STORE_BYTES 4096u
#define HIGHEST_ADDRESS 0x0fffffffll
#define LIMIT_TICKS 10 /* of 100 ms */
#define ONES 0xffffffffu

DRIVER_INITIALIZE DriverEntry;

/* {A0B1C2D3-E4F5-4061-9273-84A5B6C7D806} */
static const GUID LorryGuid = {0xa0b1c2d3, 0xe4f5, 0x4061, {0x92, 0x73, 0x84, 0xa5, 0xb6, 0xc7, 0xd8, 0x06}};

typedef struct _LORRY {
    XF X;
    PUCHAR Regs;
    PDMA_ADAPTER Adapter;
    PVOID Buffer; /* STORE_BYTES */
    PHYSICAL_ADDRESS Address;
    PKINTERRUPT Interrupt;
    BOOLEAN Live; /* guarded by the interrupt's lock, as is the next */
    ULONG Seen;
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock; /* guards the rest */
    PIRP Current;
    ULONG Ticks;
} LORRY, *PLORRY;

static ULONG Get(PLORRY l, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(l->Regs + Register));
}

static VOID Put(PLORRY l, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(l->Regs + Register), Value);
}

/* Forgets interrupts of the past and lets the service routine look (or not). Only registers of a card that is there and awake. */
static VOID SetLive(PLORRY l, BOOLEAN Live, BOOLEAN Acknowledge)
{
    KIRQL Irql = KeAcquireInterruptSpinLock(l->Interrupt);
    ULONG Irq;

    l->Live = Live;
    l->Seen = 0;
    if (Acknowledge) {
        Irq = Get(l, REG_IRQ);
        if (Irq != 0 && Irq != ONES)
            Put(l, REG_ACK, Irq);
    }
    KeReleaseInterruptSpinLock(l->Interrupt, Irql);
}

static BOOLEAN NTAPI LorryIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PLORRY l = Context;
    ULONG Irq;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!l->Live)
        return FALSE;
    Irq = Get(l, REG_IRQ);
    if (Irq == 0 || Irq == ONES)
        return FALSE;
    Put(l, REG_ACK, Irq);
    l->Seen |= Irq;
    KeInsertQueueDpc(&l->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI LorryDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PLORRY l = Context;
    PIO_STACK_LOCATION s;
    PIRP Irp = NULL;
    ULONG Seen, Command = 0;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Irql = KeAcquireInterruptSpinLock(l->Interrupt);
    Seen = l->Seen;
    l->Seen = 0;
    KeReleaseInterruptSpinLock(l->Interrupt, Irql);
    if (!(Seen & IRQ_DMA))
        return;

    KeAcquireSpinLock(&l->Lock, &Irql);
    if (l->Current != NULL) {
        Command = Get(l, REG_COMMAND);
        if (Command == ONES || !(Command & COMMAND_RUN)) {
            Irp = l->Current;
            l->Current = NULL;
        }
    }
    KeReleaseSpinLock(&l->Lock, Irql);
    if (Irp == NULL)
        return;
    if (Command == ONES) {
        XfFinish(&l->X, Irp, STATUS_NO_SUCH_DEVICE, 0);
        return;
    }
    s = IoGetCurrentIrpStackLocation(Irp);
    if (s->MajorFunction == IRP_MJ_READ) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, l->Buffer, s->Parameters.Read.Length);
        XfFinish(&l->X, Irp, STATUS_SUCCESS, s->Parameters.Read.Length);
    } else {
        XfFinish(&l->X, Irp, STATUS_SUCCESS, s->Parameters.Write.Length);
    }
}

static VOID NTAPI LorryTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PLORRY l = Context;
    PIRP Irp = NULL;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&l->Lock, &Irql);
    if (l->Current != NULL && --l->Ticks == 0) {
        Irp = l->Current;
        l->Current = NULL;
    }
    KeReleaseSpinLock(&l->Lock, Irql);
    if (Irp != NULL)
        XfFinish(&l->X, Irp, STATUS_IO_TIMEOUT, 0);
}

static VOID DevIo(PXF x, PIRP Irp)
{
    PLORRY l = CONTAINING_RECORD(x, LORRY, X);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Read = s->MajorFunction == IRP_MJ_READ;
    ULONG Length = Read ? s->Parameters.Read.Length : s->Parameters.Write.Length;
    ULONG Offset = (ULONG)(Read ? s->Parameters.Read.ByteOffset.QuadPart : s->Parameters.Write.ByteOffset.QuadPart);
    ULONG Command = Get(l, REG_COMMAND);
    KIRQL Irql;

    if (Command == ONES) {
        XfFinish(x, Irp, STATUS_NO_SUCH_DEVICE, 0);
        return;
    }
#ifdef FIXED
    if (Command & COMMAND_RUN) {
        XfFinish(x, Irp, STATUS_DEVICE_BUSY, 0);
        return;
    }
#endif
    SetLive(l, TRUE, TRUE);
    if (!Read)
        RtlCopyMemory(l->Buffer, Irp->AssociatedIrp.SystemBuffer, Length);
    KeAcquireSpinLock(&l->Lock, &Irql);
    l->Current = Irp;
    l->Ticks = LIMIT_TICKS + 1;
    Put(l, REG_SOURCE, Read ? STORE_START + Offset : (ULONG)l->Address.QuadPart);
    Put(l, REG_TARGET, Read ? (ULONG)l->Address.QuadPart : STORE_START + Offset);
    Put(l, REG_COUNT, Length);
    Put(l, REG_COMMAND, COMMAND_RUN | COMMAND_IRQ | (Read ? COMMAND_TO_RAM : 0));
    KeReleaseSpinLock(&l->Lock, Irql);
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length;
    LONGLONG Offset;

    UNREFERENCED_PARAMETER(x);
    if (s->MajorFunction == IRP_MJ_READ) {
        Length = s->Parameters.Read.Length;
        Offset = s->Parameters.Read.ByteOffset.QuadPart;
    } else if (s->MajorFunction == IRP_MJ_WRITE) {
        Length = s->Parameters.Write.Length;
        Offset = s->Parameters.Write.ByteOffset.QuadPart;
    } else {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (Length == 0)
        return STATUS_SUCCESS;
    if (Offset < 0 || Offset >= STORE_BYTES || Length > STORE_BYTES - (ULONG)Offset)
        return STATUS_INVALID_PARAMETER;
    return STATUS_PENDING;
}

/* Waits a while for the card's last transfer, which may have outlived its request. TRUE: it is over. */
static BOOLEAN AwaitEnd(PLORRY l)
{
    LARGE_INTEGER Interval;
    ULONG i, Command;

    Interval.QuadPart = -10 * 10000LL;
    for (i = 0; i < 200; i++) {
        Command = Get(l, REG_COMMAND);
        if (Command == ONES || !(Command & COMMAND_RUN))
            return TRUE;
        KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    }
    return FALSE;
}

static VOID FreeBuffer(PLORRY l)
{
    if (l->Buffer != NULL)
        l->Adapter->DmaOperations->FreeCommonBuffer(l->Adapter, STORE_BYTES, l->Address, l->Buffer, FALSE);
    if (l->Adapter != NULL)
        l->Adapter->DmaOperations->PutDmaAdapter(l->Adapter);
    l->Buffer = NULL;
    l->Adapter = NULL;
}

static NTSTATUS MakeBuffer(PLORRY l)
{
    DEVICE_DESCRIPTION d;
    ULONG Registers;

    if (l->Buffer != NULL)
        return STATUS_SUCCESS; /* left from before a stop */
    RtlZeroMemory(&d, sizeof(d));
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = STORE_BYTES;
    l->Adapter = IoGetDmaAdapter(l->X.Pdo, &d, &Registers);
    if (l->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    l->Buffer = l->Adapter->DmaOperations->AllocateCommonBuffer(l->Adapter, STORE_BYTES, &l->Address, FALSE);
    if (l->Buffer != NULL && l->Address.QuadPart >= 0 && l->Address.QuadPart + STORE_BYTES - 1 <= HIGHEST_ADDRESS)
        return STATUS_SUCCESS;
    FreeBuffer(l); /* none, or out of the card's reach */
    return STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS DevInit(PXF x)
{
    PLORRY l = CONTAINING_RECORD(x, LORRY, X);

    KeInitializeSpinLock(&l->Lock);
    KeInitializeDpc(&l->Dpc, LorryDpc, l);
    KeInitializeTimer(&l->Timer);
    KeInitializeDpc(&l->TimerDpc, LorryTick, l);
    return STATUS_SUCCESS;
}

/* The bus driver has switched the card off: whatever it was still doing has ended. */
static VOID DevFree(PXF x)
{
    FreeBuffer(CONTAINING_RECORD(x, LORRY, X));
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PLORRY l = CONTAINING_RECORD(x, LORRY, X);
    BOOLEAN Over = TRUE;

    if (Alive)
        Over = AwaitEnd(l);
    SetLive(l, FALSE, Alive);
    KeCancelTimer(&l->Timer);
    KeFlushQueuedDpcs();
    IoDisconnectInterrupt(l->Interrupt);
    l->Interrupt = NULL;
    if (Over)
        FreeBuffer(l); /* else the next start uses it again, or DevFree frees it */
    MmUnmapIoSpace(l->Regs, REG_BYTES);
    l->Regs = NULL;
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PLORRY l = CONTAINING_RECORD(x, LORRY, X);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = XfResource(List, CmResourceTypeMemory, 0), Line = XfResource(List, CmResourceTypeInterrupt, 0);
    LARGE_INTEGER First;
    NTSTATUS Status;

    if (Memory == NULL || Line == NULL || Memory->u.Memory.Length < REG_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    l->Regs = MmMapIoSpace(Memory->u.Memory.Start, REG_BYTES, MmNonCached);
    if (l->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (Get(l, REG_ID) == CARD_ID) {
        Put(l, REG_LIVE, 0x12345678);
        if (Get(l, REG_LIVE) == ~0x12345678u)
            Status = MakeBuffer(l);
    }
    if (NT_SUCCESS(Status)) {
        Status = IoConnectInterrupt(&l->Interrupt, LorryIsr, l, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level,
                                    (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                                    Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
        if (!NT_SUCCESS(Status))
            l->Interrupt = NULL;
    }
    if (!NT_SUCCESS(Status)) {
        MmUnmapIoSpace(l->Regs, REG_BYTES);
        l->Regs = NULL;
        return Status; /* a buffer that is there stays for the next start or DevFree */
    }
    SetLive(l, TRUE, TRUE);
    First.QuadPart = -100 * 10000LL;
    KeSetTimerEx(&l->Timer, First, 100, &l->TimerDpc);
    return STATUS_SUCCESS;
}

static VOID DevUp(PXF x)
{
    SetLive(CONTAINING_RECORD(x, LORRY, X), TRUE, TRUE);
}

static VOID DevDown(PXF x)
{
    PLORRY l = CONTAINING_RECORD(x, LORRY, X);

    AwaitEnd(l);
    SetLive(l, FALSE, TRUE);
    KeFlushQueuedDpcs();
}

/* The time limit ends what is on its way. */
static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(LORRY), &LorryGuid, DO_BUFFERED_IO);
    return STATUS_SUCCESS;
}
