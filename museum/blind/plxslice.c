/*
 * plxslice: feeds a pattern generator behind a PLX PCI 9050. A write of up to one megabyte (direct I/O) is copied slice by slice, 1024 bytes each, into the
 * board's window; the board interrupts when it has used a slice.
 *
 * The bug: one partial MDL is used for all slices, but it is not prepared for reuse. IoBuildPartialMdl overwrites it while the mapping of the slice before still
 * exists; the mapping is never undone, and long writes eat up the system's page table entries.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: mdl-rebuilt-mapped, locked-pages-leak
 * Needs: ioctl
 */
#include "../include/ticking_card.h"

/* The board, in the first memory window that is large enough: */
#define GEN_DATA 0x000   /* 1024 bytes */
#define GEN_GO 0x400     /* write the number of bytes: the board begins to use them */
#define GEN_STATUS 0x404 /* bit 0: busy; bit 1: slice used, write 1 to clear; LINTi1 is active while bit 1 is set */
#define GEN_RESET 0x408  /* write 1: ends everything, clears the status */
#define GEN_SIZE 0x40c
#define BUSY 1u
#define USED 2u

#define INTCSR 0x4c
#define LINT1_ENABLE 0x01u
#define LINT1_HIGH 0x02u
#define LINT1_STATUS 0x04u
#define LINT2_ENABLE 0x08u
#define PCI_ENABLE 0x40u
#define LINT1_EDGE 0x100u
#define ONES 0xffffffffu

#define SLICE 1024
#define LONGEST (1024 * 1024)
#define ALL_OF_IT (10 * 10000000ull) /* the time for a whole write */

static const GUID SLICE_GUID = {0x5d0b6c1b, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x0b}};

typedef struct _GEN {
    ZDEV Dev;
    PUCHAR Bridge, Board;
    BOOLEAN Run;      /* under the interrupt's lock */
    volatile LONG Used; /* set by the ISR */
    KSPIN_LOCK HwLock; /* publishing and starting a slice are one step for the DPC */
    PMDL Part;
    ULONG Length, Done, Slice;
    ULONG64 Deadline;
} GEN, *PGEN;

static BOOLEAN Alone(PGEN x)
{
    ULONG Status = ZRead(x->Board, GEN_STATUS);

    return Status == ONES || !(Status & BUSY);
}

/* What the ISR and the tick do: is a slice used? */
static BOOLEAN NTAPI LookAtBoard(PVOID Context)
{
    PGEN x = Context;
    ULONG Status;

    if (!x->Run)
        return FALSE;
    Status = ZRead(x->Board, GEN_STATUS);
    if (Status == ONES || !(Status & USED))
        return FALSE;
    ZWrite(x->Board, GEN_STATUS, USED);
    x->Used = 1;
    KeInsertQueueDpc(&x->Dev.Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN GenIsr(PZDEV d)
{
    PGEN x = CONTAINING_RECORD(d, GEN, Dev);
    ULONG Csr = ZRead(x->Bridge, INTCSR);

    if (Csr == ONES || (Csr & (LINT1_ENABLE | LINT1_STATUS | PCI_ENABLE)) != (LINT1_ENABLE | LINT1_STATUS | PCI_ENABLE))
        return FALSE;
    if (!LookAtBoard(x)) /* active for nothing: off until the tick */
        ZWrite(x->Bridge, INTCSR, Csr & ~LINT1_ENABLE);
    return TRUE;
}

static BOOLEAN NTAPI Mask(PVOID Context)
{
    PGEN x = Context;
    ULONG Csr = ZRead(x->Bridge, INTCSR);

    x->Run = FALSE;
    if (Csr != ONES) {
        ZWrite(x->Bridge, INTCSR, Csr & ~(LINT1_ENABLE | LINT2_ENABLE | PCI_ENABLE));
        ZRead(x->Bridge, INTCSR); /* the write has arrived */
    }
    return TRUE;
}

static BOOLEAN NTAPI Unmask(PVOID Context)
{
    PGEN x = Context;
    ULONG Csr = ZRead(x->Bridge, INTCSR);

    if (x->Run && Csr != ONES)
        ZWrite(x->Bridge, INTCSR, (Csr & ~(LINT1_EDGE | LINT2_ENABLE)) | LINT1_ENABLE | LINT1_HIGH | PCI_ENABLE);
    return TRUE;
}

static BOOLEAN NTAPI Release(PVOID Context)
{
    ((PGEN)Context)->Run = TRUE;
    return Unmask(Context);
}

/* In case that an interrupt was lost. */
static VOID GenTick(PZDEV d)
{
    PGEN x = CONTAINING_RECORD(d, GEN, Dev);

    KeSynchronizeExecution(d->Interrupt, LookAtBoard, x);
    KeSynchronizeExecution(d->Interrupt, Unmask, x);
}

/* Copies the next slice to the board and starts it; from then on the IRP is the DPC's or the tick's. Under HwLock. */
static NTSTATUS NextSlice(PGEN x, PIRP Irp)
{
    PUCHAR Data;

    x->Slice = x->Length - x->Done < SLICE ? x->Length - x->Done : SLICE;
    IoBuildPartialMdl(Irp->MdlAddress, x->Part, (PUCHAR)MmGetMdlVirtualAddress(Irp->MdlAddress) + x->Done, x->Slice);
    Data = MmGetSystemAddressForMdlSafe(x->Part, NormalPagePriority);
    if (!Data)
        return STATUS_INSUFFICIENT_RESOURCES;
    WRITE_REGISTER_BUFFER_UCHAR(x->Board + GEN_DATA, Data, x->Slice);
#ifdef FIXED
    MmPrepareMdlForReuse(x->Part);
#endif
    InterlockedExchange(&x->Used, 0);
    ZPublish(&x->Dev, Irp, 20);
    ZWrite(x->Board, GEN_GO, x->Slice);
    return STATUS_PENDING;
}

static NTSTATUS GenBegin(PZDEV d, PIRP Irp)
{
    PGEN x = CONTAINING_RECORD(d, GEN, Dev);
    NTSTATUS Status;

    if (ZRead(x->Board, GEN_STATUS) == ONES)
        return STATUS_NO_SUCH_DEVICE;
    ZWrite(x->Board, GEN_RESET, 1);
    if (!Alone(x))
        return STATUS_DEVICE_BUSY;
    KeAcquireSpinLockAtDpcLevel(&x->HwLock);
    x->Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    x->Done = 0;
    x->Deadline = KeQueryInterruptTime() + ALL_OF_IT;
    Status = NextSlice(x, Irp);
    KeReleaseSpinLockFromDpcLevel(&x->HwLock);
    return Status;
}

static VOID GenDpc(PZDEV d)
{
    PGEN x = CONTAINING_RECORD(d, GEN, Dev);
    NTSTATUS Status = STATUS_PENDING;
    PIRP Irp = NULL;

    KeAcquireSpinLockAtDpcLevel(&x->HwLock);
    if (InterlockedExchange(&x->Used, 0) && Alone(x))
        Irp = ZTake(d);
    if (Irp) {
        if (ZRead(x->Board, GEN_STATUS) == ONES) {
            Status = STATUS_NO_SUCH_DEVICE;
        } else {
            x->Done += x->Slice;
            if (x->Done == x->Length)
                Status = STATUS_SUCCESS;
            else if (Irp->Cancel)
                Status = STATUS_CANCELLED;
            else if (KeQueryInterruptTime() > x->Deadline)
                Status = STATUS_IO_TIMEOUT;
            else
                Status = NextSlice(x, Irp);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->HwLock);
    if (Status != STATUS_PENDING)
        ZFinish(d, Irp, Status, NT_SUCCESS(Status) ? x->Length : 0);
}

static VOID GenLimit(PZDEV d, PIRP Irp)
{
    PGEN x = CONTAINING_RECORD(d, GEN, Dev);
    NTSTATUS Status;

    KeAcquireSpinLockAtDpcLevel(&x->HwLock);
    Status = ZRead(x->Board, GEN_STATUS) == ONES ? STATUS_NO_SUCH_DEVICE : STATUS_IO_TIMEOUT;
    ZWrite(x->Board, GEN_RESET, 1);
    KeReleaseSpinLockFromDpcLevel(&x->HwLock);
    ZFinish(d, Irp, Status, 0);
}

static NTSTATUS GenRequest(PZDEV d, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);

    if (sl->MajorFunction != IRP_MJ_WRITE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (!sl->Parameters.Write.Length)
        return STATUS_SUCCESS;
    if (sl->Parameters.Write.Length > LONGEST || !Irp->MdlAddress)
        return STATUS_INVALID_PARAMETER;
    return ZSubmit(d, Irp);
}

static NTSTATUS GenUp(PZDEV d)
{
    PGEN x = CONTAINING_RECORD(d, GEN, Dev);

    KeSynchronizeExecution(d->Interrupt, Mask, x);
    ZWrite(x->Board, GEN_RESET, 1);
    if (ZRead(x->Bridge, INTCSR) == ONES || ZRead(x->Board, GEN_STATUS) != 0)
        return STATUS_NO_SUCH_DEVICE;
    InterlockedExchange(&x->Used, 0);
    ZHwOn(d);
    KeSynchronizeExecution(d->Interrupt, Release, x);
    return STATUS_SUCCESS;
}

static VOID GenDown(PZDEV d)
{
    PGEN x = CONTAINING_RECORD(d, GEN, Dev);

    KeSynchronizeExecution(d->Interrupt, Mask, x);
    ZWrite(x->Board, GEN_RESET, 1);
    ZHwOff(d);
}

static NTSTATUS GenStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    PGEN x = CONTAINING_RECORD(d, GEN, Dev);
    NTSTATUS Status;
    ULONG w = 0;

    Status = ZResources(d, List);
    if (NT_SUCCESS(Status))
        Status = ZMap(d, 0, 0x54);
    if (NT_SUCCESS(Status)) {
        for (w = 1; w < d->Bars && (d->Bar[w].Port || d->Bar[w].Length < GEN_SIZE); w++)
            ;
        Status = ZMap(d, w, GEN_SIZE);
    }
    if (NT_SUCCESS(Status)) {
        x->Bridge = d->Bar[0].Va;
        x->Board = d->Bar[w].Va;
        Mask(x); /* before someone could be interrupted whom no one answers */
        Status = ZConnect(d);
    }
    if (NT_SUCCESS(Status))
        Status = GenUp(d);
    if (!NT_SUCCESS(Status))
        ZReleaseHw(d);
    return Status;
}

static VOID GenStop(PZDEV d, BOOLEAN Touch)
{
    if (Touch)
        GenDown(d);
    ZReleaseHw(d);
}

static NTSTATUS GenAdd(PZDEV d)
{
    PGEN x = CONTAINING_RECORD(d, GEN, Dev);

    KeInitializeSpinLock(&x->HwLock);
    x->Part = IoAllocateMdl((PVOID)(ULONG_PTR)(PAGE_SIZE - 1), SLICE, FALSE, FALSE, NULL); /* room for a slice across two pages */
    return x->Part ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID GenFree(PZDEV d)
{
    PGEN x = CONTAINING_RECORD(d, GEN, Dev);

    if (x->Part)
        IoFreeMdl(x->Part);
    x->Part = NULL;
}

static const ZOPS GenOps = {
    .Interface = &SLICE_GUID,
    .ExtensionSize = sizeof(GEN),
    .Flags = DO_DIRECT_IO,
    .Add = GenAdd,
    .Free = GenFree,
    .Start = GenStart,
    .Stop = GenStop,
    .Up = GenUp,
    .Down = GenDown,
    .Request = GenRequest,
    .Begin = GenBegin,
    .Limit = GenLimit,
    .Isr = GenIsr,
    .Dpc = GenDpc,
    .Tick = GenTick,
};

static NTSTATUS NTAPI GenAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &GenOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, GenAddDevice);
}
