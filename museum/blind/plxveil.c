/*
 * plxveil: a sampling board with a FIFO behind a PLX PCI 9050. The interrupt says that there are samples; the DPC moves them to a ring of 1024 from which reads
 * are served. While the DPC works the interrupt is masked at the bridge.
 *
 * The bug: the DPC takes the mask off again without asking whether the board is being stopped. A DPC that was queued when Stop masked the interrupt takes that mask
 * off too; once the interrupt is disconnected the shared line stays active with no one to answer it, and the machine hangs.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm
 * Needs: schedule
 */
#include "../include/ticking_card.h"

/* The board, in the first memory window that is large enough: */
#define FIFO_COUNT 0 /* samples in the FIFO, at most 4096; LINTi1 is active while it is not 0 */
#define FIFO_DATA 4  /* takes out the oldest */
#define FIFO_RESET 8 /* write 1: empties the FIFO */
#define FIFO_SIZE 12
#define FIFO_DEEP 4096

#define INTCSR 0x4c
#define LINT1_ENABLE 0x01u
#define LINT1_HIGH 0x02u
#define LINT1_STATUS 0x04u
#define LINT2_ENABLE 0x08u
#define PCI_ENABLE 0x40u
#define LINT1_EDGE 0x100u
#define ONES 0xffffffffu

#define RING 1024
#define AT_A_TIME 256

#define IOCTL_VEIL_STATUS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9e0, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID VEIL_GUID = {0x5d0b6c1a, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x0a}};

typedef struct _VEIL_STATUS {
    ULONG Present;
    ULONG Lost;
} VEIL_STATUS, *PVEIL_STATUS;

typedef struct _VEIL {
    ZDEV Dev;
    PUCHAR Bridge, Fifo;
    BOOLEAN Run; /* under the interrupt's lock */
    KSPIN_LOCK Lock;
    ULONG Ring[RING]; /* these under Lock */
    ULONG First, Count, Lost;
    ZLIST Reads;
} VEIL, *PVEIL;

static BOOLEAN VeilIsr(PZDEV d)
{
    PVEIL x = CONTAINING_RECORD(d, VEIL, Dev);
    ULONG Csr = ZRead(x->Bridge, INTCSR);

    if (Csr == ONES || (Csr & (LINT1_ENABLE | LINT1_STATUS | PCI_ENABLE)) != (LINT1_ENABLE | LINT1_STATUS | PCI_ENABLE))
        return FALSE;
    ZWrite(x->Bridge, INTCSR, Csr & ~PCI_ENABLE);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI Mask(PVOID Context)
{
    PVEIL x = Context;
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
    PVEIL x = Context;
    ULONG Csr = ZRead(x->Bridge, INTCSR);

#ifdef FIXED
    if (!x->Run)
        return FALSE;
#endif
    if (Csr != ONES)
        ZWrite(x->Bridge, INTCSR, (Csr & ~(LINT1_EDGE | LINT2_ENABLE)) | LINT1_ENABLE | LINT1_HIGH | PCI_ENABLE);
    return TRUE;
}

static BOOLEAN NTAPI Release(PVOID Context)
{
    ((PVEIL)Context)->Run = TRUE;
    return Unmask(Context);
}

/* Brings samples and reads together. */
static VOID Serve(PVEIL x)
{
    PIRP Irp;
    PULONG Out;
    ULONG n, Most;
    KIRQL Irql;

    for (;;) {
        KeAcquireSpinLock(&x->Lock, &Irql);
        Irp = x->Count ? IoCsqRemoveNextIrp(&x->Reads.Csq, NULL) : NULL;
        if (!Irp) {
            KeReleaseSpinLock(&x->Lock, Irql);
            return;
        }
        Out = Irp->AssociatedIrp.SystemBuffer;
        Most = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(ULONG);
        for (n = 0; n < Most && x->Count; n++) {
            Out[n] = x->Ring[x->First];
            x->First = (x->First + 1) % RING;
            x->Count--;
        }
        KeReleaseSpinLock(&x->Lock, Irql);
        ZComplete(Irp, STATUS_SUCCESS, n * sizeof(ULONG));
        IoReleaseRemoveLock(&x->Dev.Lock, Irp);
    }
}

static VOID VeilDpc(PZDEV d)
{
    PVEIL x = CONTAINING_RECORD(d, VEIL, Dev);
    ULONG n, Count, Sample;

    for (n = 0; n < AT_A_TIME; n++) {
        Count = ZRead(x->Fifo, FIFO_COUNT);
        if (!Count || Count > FIFO_DEEP) /* nothing, or no card */
            break;
        Sample = ZRead(x->Fifo, FIFO_DATA);
        KeAcquireSpinLockAtDpcLevel(&x->Lock);
        if (x->Count == RING) {
            x->First = (x->First + 1) % RING;
            x->Count--;
            x->Lost++;
        }
        x->Ring[(x->First + x->Count) % RING] = Sample;
        x->Count++;
        KeReleaseSpinLockFromDpcLevel(&x->Lock);
    }
    Serve(x);
    if (n) /* or else the line is active for nothing: then the tick will do, lest it come without end */
        KeSynchronizeExecution(d->Interrupt, Unmask, x);
}

static VOID VeilTick(PZDEV d)
{
    KeSynchronizeExecution(d->Interrupt, Unmask, CONTAINING_RECORD(d, VEIL, Dev));
}

static NTSTATUS VeilRequest(PZDEV d, PIRP Irp)
{
    PVEIL x = CONTAINING_RECORD(d, VEIL, Dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PVEIL_STATUS Out = Irp->AssociatedIrp.SystemBuffer;
    KIRQL Irql;

    if (sl->MajorFunction == IRP_MJ_READ) {
        if (sl->Parameters.Read.Length < sizeof(ULONG))
            return sl->Parameters.Read.Length ? STATUS_BUFFER_TOO_SMALL : STATUS_SUCCESS;
        ZPark(&x->Reads, Irp);
        Serve(x);
        return STATUS_PENDING;
    }
    if (sl->MajorFunction != IRP_MJ_DEVICE_CONTROL || sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_VEIL_STATUS)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(VEIL_STATUS))
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&x->Lock, &Irql);
    Out->Present = x->Count;
    Out->Lost = x->Lost;
    KeReleaseSpinLock(&x->Lock, Irql);
    Irp->IoStatus.Information = sizeof(VEIL_STATUS);
    return STATUS_SUCCESS;
}

static NTSTATUS VeilUp(PZDEV d)
{
    PVEIL x = CONTAINING_RECORD(d, VEIL, Dev);

    KeSynchronizeExecution(d->Interrupt, Mask, x);
    ZWrite(x->Fifo, FIFO_RESET, 1);
    if (ZRead(x->Bridge, INTCSR) == ONES || ZRead(x->Fifo, FIFO_COUNT) > FIFO_DEEP)
        return STATUS_NO_SUCH_DEVICE;
    ZHwOn(d);
    KeSynchronizeExecution(d->Interrupt, Release, x);
    return STATUS_SUCCESS;
}

static VOID VeilDown(PZDEV d)
{
    KeSynchronizeExecution(d->Interrupt, Mask, CONTAINING_RECORD(d, VEIL, Dev));
    ZHwOff(d);
}

static NTSTATUS VeilStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    PVEIL x = CONTAINING_RECORD(d, VEIL, Dev);
    NTSTATUS Status;
    ULONG w = 0;
    KIRQL Irql;

    Status = ZResources(d, List);
    if (NT_SUCCESS(Status))
        Status = ZMap(d, 0, 0x54);
    if (NT_SUCCESS(Status)) {
        for (w = 1; w < d->Bars && (d->Bar[w].Port || d->Bar[w].Length < FIFO_SIZE); w++)
            ;
        Status = ZMap(d, w, FIFO_SIZE);
    }
    if (NT_SUCCESS(Status)) {
        x->Bridge = d->Bar[0].Va;
        x->Fifo = d->Bar[w].Va;
        KeAcquireSpinLock(&x->Lock, &Irql);
        x->First = x->Count = x->Lost = 0;
        KeReleaseSpinLock(&x->Lock, Irql);
        Mask(x); /* before someone could be interrupted whom no one answers */
        Status = ZConnect(d);
    }
    if (NT_SUCCESS(Status))
        Status = VeilUp(d);
    if (!NT_SUCCESS(Status))
        ZReleaseHw(d);
    return Status;
}

static VOID VeilStop(PZDEV d, BOOLEAN Touch)
{
    if (Touch)
        VeilDown(d);
    ZReleaseHw(d);
}

static VOID VeilKill(PZDEV d)
{
    ZDrain(&CONTAINING_RECORD(d, VEIL, Dev)->Reads, NULL, ZRefusal(d));
}

static VOID VeilCleanup(PZDEV d, PFILE_OBJECT File)
{
    ZDrain(&CONTAINING_RECORD(d, VEIL, Dev)->Reads, File, STATUS_CANCELLED);
}

static NTSTATUS VeilAdd(PZDEV d)
{
    PVEIL x = CONTAINING_RECORD(d, VEIL, Dev);

    KeInitializeSpinLock(&x->Lock);
    ZListInit(&x->Reads, d);
    return STATUS_SUCCESS;
}

static const ZOPS VeilOps = {
    .Interface = &VEIL_GUID,
    .ExtensionSize = sizeof(VEIL),
    .Flags = DO_BUFFERED_IO,
    .Add = VeilAdd,
    .Start = VeilStart,
    .Stop = VeilStop,
    .Up = VeilUp,
    .Down = VeilDown,
    .Kill = VeilKill,
    .Cleanup = VeilCleanup,
    .Request = VeilRequest,
    .Isr = VeilIsr,
    .Dpc = VeilDpc,
    .Tick = VeilTick,
};

static NTSTATUS NTAPI VeilAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &VeilOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, VeilAddDevice);
}
