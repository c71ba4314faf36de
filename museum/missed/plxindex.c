/*
 * plxindex: a digital output board behind a PLX PCI 9050. The board's registers are reached by an index and a data register in the first memory window that is
 * large enough; its alarms come as an interrupt by LINTi1.
 *
 * The bug: requests use the pair of index and data register under a spin lock, but the interrupt routine uses the same pair and does not know the lock. An
 * interrupt between the index and the data sends the data to the wrong register of the board, or brings it from there.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-lost
 * Needs: schedule
 */
#include "../include/ticking_card.h"

/* The board, by index: */
#define REG_ID 0x00     /* reads BOARD_ID */
#define REG_CAUSE 0x01  /* alarms that have begun (latched); write ones to clear; the line is active while (cause & enable) is not 0 */
#define REG_ENABLE 0x02 /* alarms that interrupt */
#define REG_OUT 0x10    /* 16 outputs */
#define OUTPUTS 16
#define BOARD_ID 0x58444950
#define ALARMS 0xffffu

#define PAIR_INDEX 0
#define PAIR_DATA 4
#define PAIR_SIZE 8

#define INTCSR 0x4c
#define LINT1_ENABLE 0x01u
#define LINT1_HIGH 0x02u
#define LINT1_STATUS 0x04u
#define LINT2_ENABLE 0x08u
#define PCI_ENABLE 0x40u
#define LINT1_EDGE 0x100u
#define ONES 0xffffffffu

#define IOCTL_INDEX_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9d0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_INDEX_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9d1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_INDEX_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9d2, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID INDEX_GUID = {0x5d0b6c19, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x09}};

typedef struct _INDEX_SET {
    ULONG Output;
    ULONG Value;
} INDEX_SET, *PINDEX_SET;

typedef struct _INDEX {
    ZDEV Dev;
    PUCHAR Bridge, Pair;
    BOOLEAN Run, Masked; /* under the interrupt's lock */
    ULONG Events;        /* under the interrupt's lock */
    KSPIN_LOCK Lock;
    ULONG Pending; /* events no one has been informed of; under Lock */
    ZLIST Waiting;
} INDEX, *PINDEX;

typedef struct _ACCESS {
    PINDEX Board;
    ULONG Index, Value;
    BOOLEAN Write;
} ACCESS, *PACCESS;

static BOOLEAN NTAPI PairAccess(PVOID Context)
{
    PACCESS a = Context;

    ZWrite(a->Board->Pair, PAIR_INDEX, a->Index);
    if (a->Write)
        ZWrite(a->Board->Pair, PAIR_DATA, a->Value);
    else
        a->Value = ZRead(a->Board->Pair, PAIR_DATA);
    return TRUE;
}

/* For those that have the interrupt's lock, or to whom no interrupt can come. */
static ULONG PairRead(PINDEX x, ULONG Index)
{
    ACCESS a = {x, Index, 0, FALSE};

    PairAccess(&a);
    return a.Value;
}

static VOID PairWrite(PINDEX x, ULONG Index, ULONG Value)
{
    ACCESS a = {x, Index, Value, TRUE};

    PairAccess(&a);
}

static BOOLEAN IndexIsr(PZDEV d)
{
    PINDEX x = CONTAINING_RECORD(d, INDEX, Dev);
    ULONG Csr = ZRead(x->Bridge, INTCSR), Cause;

    if (Csr == ONES || (Csr & (LINT1_ENABLE | LINT1_STATUS | PCI_ENABLE)) != (LINT1_ENABLE | LINT1_STATUS | PCI_ENABLE))
        return FALSE;
    Cause = PairRead(x, REG_CAUSE);
    if (!(Cause & ALARMS) || Cause == ONES) {
        /* the line is active and we cannot quiet it: not more often than the tick */
        ZWrite(x->Bridge, INTCSR, Csr & ~LINT1_ENABLE);
        x->Masked = TRUE;
        return TRUE;
    }
    PairWrite(x, REG_CAUSE, Cause & ALARMS);
    x->Events |= Cause & ALARMS;
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI TakeEvents(PVOID Context)
{
    PACCESS a = Context;

    a->Value = a->Board->Events;
    a->Board->Events = 0;
    return TRUE;
}

static VOID Serve(PINDEX x)
{
    PIRP Irp;
    ULONG Events;
    KIRQL Irql;

    for (;;) {
        KeAcquireSpinLock(&x->Lock, &Irql);
        Irp = x->Pending ? IoCsqRemoveNextIrp(&x->Waiting.Csq, NULL) : NULL;
        if (!Irp) {
            KeReleaseSpinLock(&x->Lock, Irql);
            return;
        }
        Events = x->Pending;
        x->Pending = 0;
        KeReleaseSpinLock(&x->Lock, Irql);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Events;
        ZComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
        IoReleaseRemoveLock(&x->Dev.Lock, Irp);
    }
}

static VOID IndexDpc(PZDEV d)
{
    PINDEX x = CONTAINING_RECORD(d, INDEX, Dev);
    ACCESS a = {x, 0, 0, FALSE};

    KeSynchronizeExecution(d->Interrupt, TakeEvents, &a);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    x->Pending |= a.Value;
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    Serve(x);
}

static BOOLEAN NTAPI Mask(PVOID Context)
{
    PINDEX x = Context;
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
    PINDEX x = Context;
    ULONG Csr = ZRead(x->Bridge, INTCSR);

    if (x->Run && Csr != ONES) {
        x->Masked = FALSE;
        ZWrite(x->Bridge, INTCSR, (Csr & ~(LINT1_EDGE | LINT2_ENABLE)) | LINT1_ENABLE | LINT1_HIGH | PCI_ENABLE);
    }
    return TRUE;
}

static BOOLEAN NTAPI Release(PVOID Context)
{
    ((PINDEX)Context)->Run = TRUE;
    return Unmask(Context);
}

static VOID IndexTick(PZDEV d)
{
    PINDEX x = CONTAINING_RECORD(d, INDEX, Dev);

    if (*(volatile BOOLEAN *)&x->Masked)
        KeSynchronizeExecution(d->Interrupt, Unmask, x);
}

static NTSTATUS IndexBegin(PZDEV d, PIRP Irp)
{
    PINDEX x = CONTAINING_RECORD(d, INDEX, Dev);
    PINDEX_SET Buffer = Irp->AssociatedIrp.SystemBuffer;
    ACCESS a = {x, REG_OUT + Buffer->Output, 0, FALSE};

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_INDEX_SET) {
        a.Write = TRUE;
        a.Value = Buffer->Value;
    }
#ifdef FIXED
    KeSynchronizeExecution(d->Interrupt, PairAccess, &a);
#else
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    PairAccess(&a);
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
#endif
    if (ZRead(x->Bridge, INTCSR) == ONES)
        return STATUS_NO_SUCH_DEVICE;
    if (!a.Write) {
        *(PULONG)Buffer = a.Value;
        Irp->IoStatus.Information = sizeof(ULONG);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS IndexRequest(PZDEV d, PIRP Irp)
{
    PINDEX x = CONTAINING_RECORD(d, INDEX, Dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength, OutLength;

    if (sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    InLength = sl->Parameters.DeviceIoControl.InputBufferLength;
    OutLength = sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_INDEX_SET:
        if (InLength < sizeof(INDEX_SET))
            return STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_INDEX_GET:
        if (InLength < sizeof(ULONG) || OutLength < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_INDEX_WAIT:
        if (OutLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        ZPark(&x->Waiting, Irp);
        Serve(x);
        return STATUS_PENDING;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (((PINDEX_SET)Irp->AssociatedIrp.SystemBuffer)->Output >= OUTPUTS)
        return STATUS_INVALID_PARAMETER;
    return ZSubmit(d, Irp);
}

/* No interrupt is answered yet. */
static NTSTATUS IndexUp(PZDEV d)
{
    PINDEX x = CONTAINING_RECORD(d, INDEX, Dev);

    KeSynchronizeExecution(d->Interrupt, Mask, x);
    if (PairRead(x, REG_ID) != BOARD_ID)
        return STATUS_NO_SUCH_DEVICE;
    PairWrite(x, REG_CAUSE, ALARMS);
    PairWrite(x, REG_ENABLE, ALARMS);
    ZHwOn(d);
    KeSynchronizeExecution(d->Interrupt, Release, x);
    return STATUS_SUCCESS;
}

static VOID IndexDown(PZDEV d)
{
    KeSynchronizeExecution(d->Interrupt, Mask, CONTAINING_RECORD(d, INDEX, Dev));
    ZHwOff(d);
}

static NTSTATUS IndexStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    PINDEX x = CONTAINING_RECORD(d, INDEX, Dev);
    NTSTATUS Status;
    ULONG w = 0;

    Status = ZResources(d, List);
    if (NT_SUCCESS(Status))
        Status = ZMap(d, 0, 0x54);
    if (NT_SUCCESS(Status)) {
        for (w = 1; w < d->Bars && (d->Bar[w].Port || d->Bar[w].Length < PAIR_SIZE); w++)
            ;
        Status = ZMap(d, w, PAIR_SIZE);
    }
    if (NT_SUCCESS(Status)) {
        x->Bridge = d->Bar[0].Va;
        x->Pair = d->Bar[w].Va;
        x->Masked = FALSE;
        Mask(x); /* before someone could be interrupted whom no one answers */
        Status = ZConnect(d);
    }
    if (NT_SUCCESS(Status))
        Status = IndexUp(d);
    if (!NT_SUCCESS(Status))
        ZReleaseHw(d);
    return Status;
}

static VOID IndexStop(PZDEV d, BOOLEAN Touch)
{
    if (Touch)
        IndexDown(d);
    ZReleaseHw(d);
}

static VOID IndexKill(PZDEV d)
{
    ZDrain(&CONTAINING_RECORD(d, INDEX, Dev)->Waiting, NULL, ZRefusal(d));
}

static VOID IndexCleanup(PZDEV d, PFILE_OBJECT File)
{
    ZDrain(&CONTAINING_RECORD(d, INDEX, Dev)->Waiting, File, STATUS_CANCELLED);
}

static NTSTATUS IndexAdd(PZDEV d)
{
    PINDEX x = CONTAINING_RECORD(d, INDEX, Dev);

    KeInitializeSpinLock(&x->Lock);
    ZListInit(&x->Waiting, d);
    return STATUS_SUCCESS;
}

static const ZOPS IndexOps = {
    .Interface = &INDEX_GUID,
    .ExtensionSize = sizeof(INDEX),
    .Add = IndexAdd,
    .Start = IndexStart,
    .Stop = IndexStop,
    .Up = IndexUp,
    .Down = IndexDown,
    .Kill = IndexKill,
    .Cleanup = IndexCleanup,
    .Request = IndexRequest,
    .Begin = IndexBegin,
    .Isr = IndexIsr,
    .Dpc = IndexDpc,
    .Tick = IndexTick,
};

static NTSTATUS NTAPI IndexAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &IndexOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, IndexAddDevice);
}
