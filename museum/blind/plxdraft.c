/*
 * plxdraft: an anemometer board behind a PLX 9050: each turn of the wheel raises LINTi1, and the board's latch has the time
 * since the turn before. The service routine masks the interrupt, its DPC collects latches into a ring; a program reads
 * them, and waits where there are none.
 *
 * The bug: where the start fails behind the connection of the interrupt (no memory for the ring), the mappings are
 * given back, but the interrupt stays connected.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-still-connected, device-memory-not-mapped
 * Needs: failure
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define TAG 'frdP'

/* the chip's own registers, BAR0 */
#define PLX_INTCSR 0x4c
#define PLX_BYTES 0x54
#define LINT1_ENABLE 0x01
#define LINT1_HIGH 0x02
#define LINT1_ACTIVE 0x04
#define PCI_ENABLE 0x40
#define ALL_ONES 0xffffffff

/* the board's, BAR2 */
#define DRAFT_STATUS 0x00
#define DRAFT_LATCH 0x04
#define DRAFT_CLEAR 0x08
#define DRAFT_BYTES 0x10

#define RING 256

static const GUID PlxdraftInterface = {0xc5027f19, 0x6e8d, 0x4bd3, {0xb0, 0x74, 0x38, 0x1a, 0xe6, 0x9f, 0x25, 0x0b}};

typedef struct PLXDRAFT {
    FRAME F;
    PUCHAR Chip, Board;
    ULONG ChipBytes, BoardBytes;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening;                  /* guarded by the interrupt's lock, as is INTCSR */
    KDPC Dpc;
    RQ Reads;
    KSPIN_LOCK Lock;                    /* guards what follows, and is acquired before the queue's own */
    PULONG Ring;                        /* RING of them */
    ULONG First, Count;
} PLXDRAFT;

static BOOLEAN NTAPI Service(PKINTERRUPT Interrupt, PVOID Context)
{
    PLXDRAFT *x = Context;
    ULONG value;

    NOT_USED(Interrupt);
    if (!x->Listening)
        return FALSE;
    value = RegRead(x->Chip, PLX_INTCSR);
    if (value == ALL_ONES || !(value & LINT1_ENABLE) || !(value & LINT1_ACTIVE))
        return FALSE;
    RegWrite(x->Chip, PLX_INTCSR, value & ~LINT1_ENABLE);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* hands latches to waiting reads */
static void Serve(PLXDRAFT *x)
{
    ULONG room, done, *to;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&x->Lock, &irql);
        irp = x->Count ? RqTake(&x->Reads, NULL) : NULL;
        if (!irp)
            break;
        to = irp->AssociatedIrp.SystemBuffer;
        room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG);
        for (done = 0; done < room && x->Count; done++) {
            to[done] = x->Ring[x->First];
            x->First = (x->First + 1) % RING;
            x->Count--;
        }
        KeReleaseSpinLock(&x->Lock, irql);
        Done(irp, STATUS_SUCCESS, done * sizeof(ULONG));
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

/* a sleep or a stop waits for it before the card goes */
static VOID NTAPI Turned(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PLXDRAFT *x = Context;
    ULONG status, latch;
    KIRQL irql;

    NOT_USED(Dpc);
    NOT_USED(Argument1);
    NOT_USED(Argument2);
    status = RegRead(x->Board, DRAFT_STATUS);
    latch = RegRead(x->Board, DRAFT_LATCH);
    RegWrite(x->Board, DRAFT_CLEAR, status);

    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Count == RING) {             /* the oldest is lost */
        x->First = (x->First + 1) % RING;
        x->Count--;
    }
    x->Ring[(x->First + x->Count) % RING] = latch;
    x->Count++;
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    Serve(x);

    irql = KeAcquireInterruptSpinLock(x->Interrupt);
    if (x->Listening)
        RegWrite(x->Chip, PLX_INTCSR, LINT1_ENABLE | LINT1_HIGH | PCI_ENABLE);
    KeReleaseInterruptSpinLock(x->Interrupt, irql);
}

static void Wake(FRAME *f)
{
    PLXDRAFT *x = (PLXDRAFT *)f;
    KIRQL irql;

    irql = KeAcquireInterruptSpinLock(x->Interrupt);
    x->Listening = TRUE;
    RegWrite(x->Chip, PLX_INTCSR, LINT1_ENABLE | LINT1_HIGH | PCI_ENABLE);
    KeReleaseInterruptSpinLock(x->Interrupt, irql);
}

static void Quiet(PLXDRAFT *x, BOOLEAN Touch)
{
    KIRQL irql;

    irql = KeAcquireInterruptSpinLock(x->Interrupt);
    if (Touch && x->Listening)
        RegWrite(x->Chip, PLX_INTCSR, LINT1_HIGH);
    x->Listening = FALSE;
    KeReleaseInterruptSpinLock(x->Interrupt, irql);
    KeFlushQueuedDpcs();
}

static void Sleep(FRAME *f)
{
    Quiet((PLXDRAFT *)f, TRUE);
}

static void Unmap(PLXDRAFT *x)
{
    if (x->Board)
        MmUnmapIoSpace(x->Board, x->BoardBytes);
    if (x->Chip)
        MmUnmapIoSpace(x->Chip, x->ChipBytes);
    x->Board = x->Chip = NULL;
}

static void Stop(FRAME *f)
{
    PLXDRAFT *x = (PLXDRAFT *)f;

    Quiet(x, FrTouchable(f));
    FrDisconnect(x->Interrupt);
    x->Interrupt = NULL;
    Unmap(x);
    ExFreePoolWithTag(x->Ring, TAG);
    x->Ring = NULL;
    x->First = x->Count = 0;
}

static NTSTATUS Start(FRAME *f, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR chip = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR board = FrResource(Translated, CmResourceTypeMemory, 1);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR interrupt = FrResource(Translated, CmResourceTypeInterrupt, 0);
    PLXDRAFT *x = (PLXDRAFT *)f;
    NTSTATUS status;

    NOT_USED(Raw);
    if (!chip || chip->u.Memory.Length < PLX_BYTES || !board || board->u.Memory.Length < DRAFT_BYTES || !interrupt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->ChipBytes = chip->u.Memory.Length;
    x->BoardBytes = board->u.Memory.Length;
    x->Chip = MmMapIoSpace(chip->u.Memory.Start, x->ChipBytes, MmNonCached);
    x->Board = MmMapIoSpace(board->u.Memory.Start, x->BoardBytes, MmNonCached);
    if (!x->Chip || !x->Board) {
        Unmap(x);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RegWrite(x->Chip, PLX_INTCSR, LINT1_HIGH);
    status = FrConnect(f, interrupt, Service, x, &x->Interrupt);
    if (!NT_SUCCESS(status)) {
        Unmap(x);
        return status;
    }
    x->Ring = ExAllocatePoolWithTag(NonPagedPoolNx, RING * sizeof(ULONG), TAG);
    if (!x->Ring) {
#ifdef FIXED
        FrDisconnect(x->Interrupt);
        x->Interrupt = NULL;
#endif
        Unmap(x);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Wake(f);
    return STATUS_SUCCESS;
}

static NTSTATUS Init(FRAME *f)
{
    PLXDRAFT *x = (PLXDRAFT *)f;

    RqInit(&x->Reads);
    KeInitializeSpinLock(&x->Lock);
    KeInitializeDpc(&x->Dpc, Turned, x);
    return STATUS_SUCCESS;
}

static void Gone(FRAME *f)
{
    RqShut(&((PLXDRAFT *)f)->Reads, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLXDRAFT *x = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&x->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    status = FrEnter(&x->F);
    if (!NT_SUCCESS(status)) {
        Done(Irp, status, 0);
    } else {
        if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(ULONG)) {
            status = Done(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        } else {
            status = RqPut(&x->Reads, Irp);
            Serve(x);
        }
        FrLeave(&x->F);
    }
    IoReleaseRemoveLock(&x->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLXDRAFT *x = Device->DeviceExtension;

    RqFlush(&x->Reads, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static const FRAME_OPS Ops = {
    .Init = Init, .Start = Start, .Stop = Stop, .Sleep = Sleep, .Wake = Wake, .Gone = Gone
};

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(PLXDRAFT), &PlxdraftInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    return STATUS_SUCCESS;
}
