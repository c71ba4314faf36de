/*
 * chromat: a gas chromatograph's detector card: samples come into the card's FIFO, an interrupt tells that half of it
 * is full, the DPC takes them into a buffer of 1024 samples, and ReadFile gives them out, waiting for them if need be.
 * Registers in BAR0 (4 KB, 32 bits wide): 0x00 ident 0x4F524843; 0x04 control (bit 0 run, bit 1 interrupt enable);
 * 0x08 status (bit 0: the FIFO became half full; cleared by writing 1); 0x0C count, samples in the FIFO (0..512);
 * 0x10 FIFO (reading takes a sample).
 *
 * The bug: the number of samples is believed as the card's count register says it, so a wrong count (all ones, say)
 * overruns the buffer.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: pool-overrun
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"
#include "../include/waiting_requests.h"

#define REG_IDENT   0x00
#define REG_CONTROL 0x04
#define REG_STATUS  0x08
#define REG_COUNT   0x0C
#define REG_FIFO    0x10
#define IDENT       0x4F524843
#define CTL_RUN     1
#define CTL_IRQ     2
#define ST_HALF     1
#define FIFO_DEPTH  512
#define BATCH       1024

#define IOCTL_CHROMA_RUN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID ChromatInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x0D } };

typedef struct DEV {
    FDO F;
    PUCHAR Regs;
    SIZE_T RegBytes;
    PKINTERRUPT Interrupt;
    BOOLEAN IrqLive;            /* by KeSynchronizeExecution */
    KDPC Dpc;
    WAITQ Reads;
    /* under HwLock: */
    BOOLEAN Run;
    ULONG Count;
    ULONG Samples[BATCH];
} DEV;

static ULONG Get(DEV *d, ULONG at) { return READ_REGISTER_ULONG((PULONG)(d->Regs + at)); }
static VOID Put(DEV *d, ULONG at, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(d->Regs + at), v); }

static BOOLEAN NTAPI ChrIsr(PKINTERRUPT interrupt, PVOID context)
{
    DEV *d = context;
    ULONG status;

    UNREFERENCED_PARAMETER(interrupt);
    if (!d->IrqLive)
        return FALSE;
    status = Get(d, REG_STATUS);
    if (status == 0xFFFFFFFF || !(status & ST_HALF))
        return FALSE;
    Put(d, REG_STATUS, ST_HALF);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI ChrIrqOn(PVOID context)
{
    ((DEV *)context)->IrqLive = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI ChrIrqOff(PVOID context)
{
    ((DEV *)context)->IrqLive = FALSE;
    return TRUE;
}

/* Under HwLock, live: empties the FIFO if all of it has room. */
static VOID ChrFetch(DEV *d)
{
    ULONG i, n;

    if (d->Count > BATCH - FIFO_DEPTH)
        return;
    n = Get(d, REG_COUNT);
#ifdef FIXED
    if (n > FIFO_DEPTH)
        return;
#endif
    for (i = 0; i < n; i++)
        d->Samples[d->Count++] = Get(d, REG_FIFO);
}

/* Gives samples to reads as long as there are both. */
static VOID NTAPI ChrDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    DEV *d = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    for (;;) {
        PIRP irp = NULL;
        ULONG bytes = 0;

        KeAcquireSpinLockAtDpcLevel(&d->F.HwLock);
        if (d->F.Live)
            ChrFetch(d);
        if (d->Count)
            irp = WaitqTake(&d->Reads, NULL);
        if (irp) {
            ULONG n = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG);
            if (n > d->Count)
                n = d->Count;
            bytes = n * sizeof(ULONG);
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, d->Samples, bytes);
            d->Count -= n;
            RtlMoveMemory(d->Samples, d->Samples + n, d->Count * sizeof(ULONG));
        }
        KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
        if (!irp)
            break;
        WaitqFinish(&d->Reads, irp, STATUS_SUCCESS, bytes);
    }
}

/* Under HwLock, live. */
static VOID ChrControl(DEV *d)
{
    Put(d, REG_CONTROL, d->Run ? CTL_RUN | CTL_IRQ : 0);
}

static NTSTATUS ChrRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    switch (sp->MajorFunction) {
    case IRP_MJ_READ:
        if (sp->Parameters.Read.Length < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        status = WaitqPut(&d->Reads, irp);
        if (status == STATUS_PENDING)
            KeInsertQueueDpc(&d->Dpc, NULL, NULL);      /* perhaps there are some already */
        return status;
    case IRP_MJ_DEVICE_CONTROL:
        if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_CHROMA_RUN)
            return STATUS_INVALID_DEVICE_REQUEST;
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&f->HwLock, &irql);
        if (f->Live) {
            d->Run = *(ULONG *)irp->AssociatedIrp.SystemBuffer != 0;
            ChrControl(d);
        } else {
            status = STATUS_DEVICE_NOT_READY;
        }
        KeReleaseSpinLock(&f->HwLock, irql);
        return status;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID ChrWake(FDO *f)
{
    DEV *d = (DEV *)f;

    KeSynchronizeExecution(d->Interrupt, ChrIrqOn, d);
    ChrControl(d);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
}

static VOID ChrQuiet(FDO *f, BOOLEAN present)
{
    DEV *d = (DEV *)f;

    if (present)
        Put(d, REG_CONTROL, 0);
    KeSynchronizeExecution(d->Interrupt, ChrIrqOff, d);
}

static VOID ChrUnmap(FDO *f)
{
    DEV *d = (DEV *)f;

    if (d->Interrupt) {
        IoDisconnectInterrupt(d->Interrupt);
        d->Interrupt = NULL;
    }
    if (d->Regs) {
        MmUnmapIoSpace(d->Regs, d->RegBytes);
        d->Regs = NULL;
    }
}

static NTSTATUS ChrMap(FDO *f, PCM_RESOURCE_LIST resources)
{
    DEV *d = (DEV *)f;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR m = FdoFind(resources, CmResourceTypeMemory, 0);

    if (!m || m->u.Memory.Length < 0x20)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegBytes = m->u.Memory.Length;
    d->Regs = MmMapIoSpace(m->u.Memory.Start, d->RegBytes, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Get(d, REG_IDENT) != IDENT)
        return STATUS_NO_SUCH_DEVICE;
    Put(d, REG_CONTROL, 0);
    return FdoConnect(resources, ChrIsr, d, &d->Interrupt);
}

static VOID ChrFlush(FDO *f, PFILE_OBJECT file)
{
    DEV *d = (DEV *)f;

    if (file)
        WaitqDrain(&d->Reads, file, STATUS_CANCELLED);
    else
        WaitqClose(&d->Reads, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS ChrInit(FDO *f)
{
    DEV *d = (DEV *)f;

    KeInitializeDpc(&d->Dpc, ChrDpc, d);
    WaitqInit(&d->Reads, &f->RemoveLock);
    return STATUS_SUCCESS;
}

/* The DPC looks at the card only when live; here it ends for good. */
static VOID ChrFree(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
    KeFlushQueuedDpcs();
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_BUFFERED_IO, &ChromatInterface,
    ChrInit, ChrFree, ChrMap, ChrUnmap, ChrWake, ChrQuiet, ChrFlush, ChrRequest, NULL
};
