/*
 * bulkmov: a memory card with a scatter/gather mover: reads and writes of up to 1 MiB go straight between the program's pages and the card's memory.
 *
 * The card (PCI\VEN_1DA7&DEV_0001), BAR0, 32-bit registers:
 *   0x00 ID       0x564d4231
 *   0x04 CTRL     bit 0 GO, bit 1 direction (1: to RAM), bit 2 interrupt enable. Clearing GO stops the mover; when CTRL has been read back it issues no
 *                 further bus cycles and the status does not change any more.
 *   0x08 STATUS   bit 0 done, bit 1 bus error (both: write one to clear); the interrupt (level) is up while one of them is set and enabled
 *   0x0c/0x10     physical address of the descriptor table, low and high half
 *   0x14 COUNT    number of descriptors
 *   0x18 OFFSET   where in the card's memory (16 MiB) the transfer begins
 * A descriptor: 64-bit address of the memory, 16-bit length in bytes (0 is nothing), 48 bits zero.
 *
 * The bug: an element of the scatter/gather list is put into one descriptor whatever its length. Physically contiguous pages make elements of 64 KiB and
 * more, of which only the low 16 bits arrive in the descriptor: part of the data is not moved, and the request succeeds.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: dma-channel-leak
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define CARD_ID 0x564d4231u
#define REG_ID 0x00
#define REG_CTRL 0x04
#define REG_STATUS 0x08
#define REG_TABLE_LOW 0x0c
#define REG_TABLE_HIGH 0x10
#define REG_COUNT 0x14
#define REG_OFFSET 0x18
#define REG_BYTES 0x20u

#define CTRL_GO 1u
#define CTRL_TO_RAM 2u
#define CTRL_IRQ 4u
#define STATUS_DONE 1u
#define STATUS_BUS_ERROR 2u
#define ONES 0xffffffffu

#define CARD_MEMORY (16ll * 1024 * 1024)
#define LONGEST (1024u * 1024)
#define LONGEST_PIECE 0x8000u
#define DESCRIPTORS 512u
#define LIMIT_TICKS 20 /* of 100 ms */

DRIVER_INITIALIZE DriverEntry;

/* {1D2E3F40-5162-4738-B91A-2B3C4D5E6F0C} */
static const GUID MoverGuid = {0x1d2e3f40, 0x5162, 0x4738, {0xb9, 0x1a, 0x2b, 0x3c, 0x4d, 0x5e, 0x6f, 0x0c}};

typedef struct _DESCRIPTOR {
    ULONG64 Address;
    USHORT Length;
    USHORT Zero[3];
} DESCRIPTOR, *PDESCRIPTOR;

#define TABLE_BYTES (DESCRIPTORS * sizeof(DESCRIPTOR))

typedef struct _MOVER {
    XF X;
    PUCHAR Regs;
    PDMA_ADAPTER Adapter;
    PDESCRIPTOR Table;
    PHYSICAL_ADDRESS TableAddress;
    PKINTERRUPT Interrupt;
    BOOLEAN Live; /* guarded by the interrupt's lock, as is the next */
    ULONG Seen;
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    PIRP Preparing;  /* its list is being made; one request at a time */
    KSPIN_LOCK Lock; /* guards the rest */
    PIRP Current;    /* in the card */
    PSCATTER_GATHER_LIST List;
    ULONG Ticks;
} MOVER, *PMOVER;

static ULONG Get(PMOVER m, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(m->Regs + Register));
}

static VOID Put(PMOVER m, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(m->Regs + Register), Value);
}

static VOID Halt(PMOVER m)
{
    Put(m, REG_CTRL, 0);
    Get(m, REG_CTRL);
}

/* Lets the service routine look (or not), with a clean slate. Touch: the card is there and awake. */
static VOID SetLive(PMOVER m, BOOLEAN Live, BOOLEAN Touch)
{
    KIRQL Irql = KeAcquireInterruptSpinLock(m->Interrupt);

    m->Live = Live;
    m->Seen = 0;
    if (Touch) {
        Halt(m);
        Put(m, REG_STATUS, STATUS_DONE | STATUS_BUS_ERROR);
    }
    KeReleaseInterruptSpinLock(m->Interrupt, Irql);
}

static BOOLEAN NTAPI MoverIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PMOVER m = Context;
    ULONG Status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!m->Live)
        return FALSE;
    Status = Get(m, REG_STATUS);
    if (Status == ONES || !(Status & (STATUS_DONE | STATUS_BUS_ERROR)) || !(Get(m, REG_CTRL) & CTRL_IRQ))
        return FALSE;
    Status &= STATUS_DONE | STATUS_BUS_ERROR;
    Put(m, REG_STATUS, Status);
    m->Seen |= Status;
    KeInsertQueueDpc(&m->Dpc, NULL, NULL);
    return TRUE;
}

/* Ends a request that is not (or no longer) in the card. DISPATCH_LEVEL. */
static VOID EndRequest(PMOVER m, PIRP Irp, PSCATTER_GATHER_LIST List, NTSTATUS Status)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Write = s->MajorFunction == IRP_MJ_WRITE;
    ULONG Length = Write ? s->Parameters.Write.Length : s->Parameters.Read.Length;

    m->Adapter->DmaOperations->PutScatterGatherList(m->Adapter, List, Write);
    XfFinish(&m->X, Irp, Status, NT_SUCCESS(Status) ? Length : 0);
}

static VOID NTAPI MoverDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PMOVER m = Context;
    PSCATTER_GATHER_LIST List = NULL;
    PIRP Irp = NULL;
    ULONG Seen = 0;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&m->Lock);
    if (m->Current != NULL) {
        Irql = KeAcquireInterruptSpinLock(m->Interrupt);
        Seen = m->Seen;
        m->Seen = 0;
        KeReleaseInterruptSpinLock(m->Interrupt, Irql);
        if (Seen != 0) {
            Halt(m);
            Irp = m->Current;
            List = m->List;
            m->Current = NULL;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&m->Lock);
    if (Irp != NULL)
        EndRequest(m, Irp, List, (Seen & STATUS_BUS_ERROR) ? STATUS_IO_DEVICE_ERROR : STATUS_SUCCESS);
}

static VOID NTAPI MoverTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PMOVER m = Context;
    PSCATTER_GATHER_LIST List = NULL;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&m->Lock);
    if (m->Current != NULL && --m->Ticks == 0) {
        Halt(m);
        Irp = m->Current;
        List = m->List;
        m->Current = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&m->Lock);
    if (Irp != NULL)
        EndRequest(m, Irp, List, STATUS_IO_TIMEOUT);
}

/* Fills the table; 0: it does not fit. */
static ULONG FillTable(PMOVER m, PSCATTER_GATHER_LIST List)
{
    PSCATTER_GATHER_ELEMENT e = (PVOID)((PUCHAR)List + FIELD_OFFSET(SCATTER_GATHER_LIST, Elements));
    ULONG i, n = 0, Done, Piece;

    for (i = 0; i < List->NumberOfElements; i++, e++) {
        for (Done = 0; Done < e->Length; Done += Piece) {
            Piece = e->Length - Done;
#ifdef FIXED
            if (Piece > LONGEST_PIECE)
                Piece = LONGEST_PIECE;
#endif
            if (n == DESCRIPTORS)
                return 0;
            RtlZeroMemory(&m->Table[n], sizeof(DESCRIPTOR));
            m->Table[n].Address = (ULONG64)e->Address.QuadPart + Done;
            m->Table[n].Length = (USHORT)Piece;
            n++;
        }
    }
    return n;
}

/* The list is there: start the card. DISPATCH_LEVEL. */
static VOID NTAPI MoverListReady(PDEVICE_OBJECT Device, PIRP Unused, PSCATTER_GATHER_LIST List, PVOID Context)
{
    PMOVER m = Context;
    PIRP Irp = m->Preparing;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Write = s->MajorFunction == IRP_MJ_WRITE;
    ULONG Count = FillTable(m, List);
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Unused);
    if (Count == 0 || Get(m, REG_ID) != CARD_ID) {
        EndRequest(m, Irp, List, Count == 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_NO_SUCH_DEVICE);
        return;
    }
    KeAcquireSpinLock(&m->Lock, &Irql);
    SetLive(m, TRUE, TRUE);
    m->Current = Irp;
    m->List = List;
    m->Ticks = LIMIT_TICKS + 1;
    Put(m, REG_TABLE_LOW, (ULONG)m->TableAddress.QuadPart);
    Put(m, REG_TABLE_HIGH, (ULONG)((ULONG64)m->TableAddress.QuadPart >> 32));
    Put(m, REG_COUNT, Count);
    Put(m, REG_OFFSET, (ULONG)(Write ? s->Parameters.Write.ByteOffset.QuadPart : s->Parameters.Read.ByteOffset.QuadPart));
    Put(m, REG_CTRL, CTRL_GO | CTRL_IRQ | (Write ? 0 : CTRL_TO_RAM));
    KeReleaseSpinLock(&m->Lock, Irql);
}

static VOID DevIo(PXF x, PIRP Irp)
{
    PMOVER m = CONTAINING_RECORD(x, MOVER, X);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Write = s->MajorFunction == IRP_MJ_WRITE;
    NTSTATUS Status;

    m->Preparing = Irp;
    Status = m->Adapter->DmaOperations->GetScatterGatherList(m->Adapter, x->Self, Irp->MdlAddress, MmGetMdlVirtualAddress(Irp->MdlAddress),
                                                             Write ? s->Parameters.Write.Length : s->Parameters.Read.Length, MoverListReady, m, Write);
    if (!NT_SUCCESS(Status))
        XfFinish(x, Irp, Status, 0); /* the routine has not been called and will not be */
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
    if (Length == 0 || Irp->MdlAddress == NULL)
        return STATUS_SUCCESS;
    if (Length > LONGEST || Offset < 0 || Offset > CARD_MEMORY - Length)
        return STATUS_INVALID_PARAMETER;
    return STATUS_PENDING;
}

static NTSTATUS DevInit(PXF x)
{
    PMOVER m = CONTAINING_RECORD(x, MOVER, X);

    KeInitializeSpinLock(&m->Lock);
    KeInitializeDpc(&m->Dpc, MoverDpc, m);
    KeInitializeTimer(&m->Timer);
    KeInitializeDpc(&m->TimerDpc, MoverTick, m);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID FreeAll(PMOVER m)
{
    if (m->Table != NULL)
        m->Adapter->DmaOperations->FreeCommonBuffer(m->Adapter, TABLE_BYTES, m->TableAddress, m->Table, TRUE);
    if (m->Adapter != NULL)
        m->Adapter->DmaOperations->PutDmaAdapter(m->Adapter);
    if (m->Regs != NULL)
        MmUnmapIoSpace(m->Regs, REG_BYTES);
    m->Table = NULL;
    m->Adapter = NULL;
    m->Regs = NULL;
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PMOVER m = CONTAINING_RECORD(x, MOVER, X);

    SetLive(m, FALSE, Alive);
    KeCancelTimer(&m->Timer);
    KeFlushQueuedDpcs();
    IoDisconnectInterrupt(m->Interrupt);
    m->Interrupt = NULL;
    FreeAll(m);
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PMOVER m = CONTAINING_RECORD(x, MOVER, X);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = XfResource(List, CmResourceTypeMemory, 0), Line = XfResource(List, CmResourceTypeInterrupt, 0);
    DEVICE_DESCRIPTION d;
    LARGE_INTEGER First;
    ULONG Registers;
    NTSTATUS Status = STATUS_INSUFFICIENT_RESOURCES;

    if (Memory == NULL || Line == NULL || Memory->u.Memory.Length < REG_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&d, sizeof(d));
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.Dma64BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = LONGEST;
    m->Regs = MmMapIoSpace(Memory->u.Memory.Start, REG_BYTES, MmNonCached);
    m->Adapter = IoGetDmaAdapter(x->Pdo, &d, &Registers);
    if (m->Adapter != NULL)
        m->Table = m->Adapter->DmaOperations->AllocateCommonBuffer(m->Adapter, TABLE_BYTES, &m->TableAddress, TRUE);
    if (m->Regs != NULL && m->Table != NULL) {
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
        if (Get(m, REG_ID) == CARD_ID) {
            Halt(m);
            Status = IoConnectInterrupt(&m->Interrupt, MoverIsr, m, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level,
                                        (KIRQL)Line->u.Interrupt.Level, (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                                        Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
        }
    }
    if (!NT_SUCCESS(Status)) {
        m->Interrupt = NULL;
        FreeAll(m);
        return Status;
    }
    SetLive(m, TRUE, TRUE);
    First.QuadPart = -100 * 10000LL;
    KeSetTimerEx(&m->Timer, First, 100, &m->TimerDpc);
    return STATUS_SUCCESS;
}

static VOID DevUp(PXF x)
{
    SetLive(CONTAINING_RECORD(x, MOVER, X), TRUE, TRUE);
}

static VOID DevDown(PXF x)
{
    SetLive(CONTAINING_RECORD(x, MOVER, X), FALSE, TRUE);
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
    XfInit(Driver, sizeof(MOVER), &MoverGuid, DO_DIRECT_IO);
    return STATUS_SUCCESS;
}
