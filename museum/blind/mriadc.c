/*
 * mriadc: the receiver's converter of a magnetic resonance imaging scanner, a PCI card of the nineties whose bus master takes one address and one length, without
 * scatter/gather. Reads are transferred by the adapter's map registers, in as many parts as MapTransfer makes of them, and can be cancelled at any time.
 *
 * The bug: the map registers are counted as the read's bytes divided by the page size. A buffer that does not begin at a page's beginning can lie on one page more
 * than that, and is then mapped with a register too few.
 *
 * Device: PCI\VEN_1C41&DEV_9401
 * Rule: dma-too-few-map-registers
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define ADC_STATUS  0x00            /* ones clear */
#define ADC_MASK    0x04
#define ADC_ADDRESS 0x08
#define ADC_LENGTH  0x0C
#define ADC_CONTROL 0x10
#define ADC_GAIN    0x14
#define ADC_SIZE    0x18

#define ST_END      0x01
#define ST_OVERRUN  0x02
#define CTL_START   0x01
#define CTL_RESET   0x80

#define READ_MOST   (64u * 1024u)

#define IOCTL_ADC_GAIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E0, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID MriInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x0C } };

typedef enum _PHASE { Idle, Mapping, Mapped, Running } PHASE;

typedef struct _MRI {
    struct fdev f;
    struct hw hw;
    struct win *Regs;
    PDMA_ADAPTER Dma;
    ULONG Most;
    KDPC Dpc;
    LONG Causes;
    LONG Gain;

    struct engine e;
    PHASE Phase;                    /* with what follows: e.lock */
    PMDL Mdl;
    BOOLEAN Have;                   /* map registers, at Base */
    PVOID Base;
    ULONG Registers;
    PUCHAR Va;                      /* of the part that is transferred */
    ULONG Part, Left;               /* its bytes, and those of it and all behind it */
    PHYSICAL_ADDRESS Address;
    NTSTATUS Status;
    BOOLEAN Untouchable;
    LONG Calls;                     /* AllocateAdapterChannel, and AdapterControl, are still running */
    KEVENT Quiet;                   /* none of both is */
} MRI;

static MRI *MriOf(struct engine *e)
{
    return CONTAINING_RECORD(e, MRI, e);
}

/* Under the interrupt's lock. */
static void MriStartRegs(PVOID Context)
{
    MRI *m = Context;

    hw_w32(m->Regs, ADC_STATUS, ST_END | ST_OVERRUN);
    InterlockedExchange(&m->Causes, 0);
    hw_w32(m->Regs, ADC_ADDRESS, m->Address.LowPart);
    hw_w32(m->Regs, ADC_LENGTH, m->Part);
    hw_w32(m->Regs, ADC_CONTROL, CTL_START);
}

/* e.lock held: maps the next part, and has the card begin with it. */
static VOID MriPart(MRI *m)
{
    m->Part = m->Left;
    m->Address = m->Dma->DmaOperations->MapTransfer(m->Dma, m->Mdl, m->Base, m->Va, &m->Part, FALSE);
    hw_turn(&m->hw, TRUE, MriStartRegs);
}

/* e.lock held: the card is done with the part. */
static VOID MriFlush(MRI *m)
{
    m->Dma->DmaOperations->FlushAdapterBuffers(m->Dma, m->Mdl, m->Base, m->Va, m->Part, FALSE);
    m->Va += m->Part;
    m->Left -= m->Part;
}

/* e.lock held. */
static VOID MriRelease(MRI *m)
{
    if (m->Have)
        m->Dma->DmaOperations->FreeMapRegisters(m->Dma, m->Base, m->Registers);
    m->Have = FALSE;
    m->Mdl = NULL;
    m->Phase = Idle;
    m->e.busy = FALSE;
}

static BOOLEAN MriHalt(struct engine *e)
{
    MRI *m = MriOf(e);

    if (m->Phase == Mapping || m->Phase == Mapped)
        return FALSE;
    if (m->Phase == Running) {
        if (!m->Untouchable) {
            hw_w32(m->Regs, ADC_CONTROL, CTL_RESET);
            hw_r32(m->Regs, ADC_STATUS);    /* it has let go of the bus when this is back */
        }
        MriFlush(m);
        MriRelease(m);
    }
    return TRUE;
}

static void MriPrep(struct engine *e, PIRP Irp)
{
    MRI *m = MriOf(e);

    m->Mdl = Irp->MdlAddress;
    m->Va = MmGetMdlVirtualAddress(m->Mdl);
    m->Left = MmGetMdlByteCount(m->Mdl);
#ifndef FIXED
    m->Registers = BYTES_TO_PAGES(m->Left);
#else
    m->Registers = ADDRESS_AND_SIZE_TO_SPAN_PAGES(m->Va, m->Left);
#endif
    m->Have = FALSE;
    m->Phase = Mapping;
    m->Status = STATUS_REQUEST_ABORTED;
    m->Calls += 2;
    KeClearEvent(&m->Quiet);
}

/* When both are through: the transfer begins, or the read ends, if there are no registers, or it is not wanted any more. */
static VOID MriCallOver(MRI *m)
{
    NTSTATUS status = STATUS_SUCCESS;
    BOOLEAN cancelled = FALSE;
    PIRP irp = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&m->e.lock, &irql);
    if (--m->Calls == 0) {
        if (m->Have && m->e.up && !m->e.left && !m->e.unwanted) {
            m->Phase = Running;
            MriPart(m);
        } else {
            MriRelease(m);
            status = m->Status;
            irp = eng_end(&m->e, &cancelled);
            KeInsertQueueDpc(&m->Dpc, NULL, NULL);
        }
        KeSetEvent(&m->Quiet, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLock(&m->e.lock, irql);
    if (irp)
        wl_end(&m->e.wait, irp, cancelled ? STATUS_CANCELLED : status, 0);
}

static IO_ALLOCATION_ACTION NTAPI MriAdapterControl(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    MRI *m = Context;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeAcquireSpinLock(&m->e.lock, &irql);
    m->Base = MapRegisterBase;
    m->Have = TRUE;
    m->Phase = Mapped;
    KeReleaseSpinLock(&m->e.lock, irql);
    MriCallOver(m);
    return DeallocateObjectKeepRegisters;
}

static void MriGo(struct engine *e, PIRP Irp)
{
    MRI *m = MriOf(e);
    NTSTATUS status;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Irp);
    status = m->Dma->DmaOperations->AllocateAdapterChannel(m->Dma, m->f.self, m->Registers, MriAdapterControl, m);
    if (!NT_SUCCESS(status)) {
        KeAcquireSpinLock(&m->e.lock, &irql);
        m->Phase = Mapped;
        m->Status = status;
        KeReleaseSpinLock(&m->e.lock, irql);
        MriCallOver(m);                 /* in place of AdapterControl */
    }
    MriCallOver(m);
}

static BOOLEAN MriIsr(PVOID Context)
{
    MRI *m = Context;
    ULONG status = hw_r32(m->Regs, ADC_STATUS);

    if (status == 0xFFFFFFFF || !(status & (ST_END | ST_OVERRUN)))
        return FALSE;
    hw_w32(m->Regs, ADC_STATUS, status);
    InterlockedOr(&m->Causes, (LONG)status);
    KeInsertQueueDpc(&m->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI MriDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    MRI *m = Context;
    NTSTATUS status = STATUS_SUCCESS;
    BOOLEAN cancelled = FALSE;
    PIRP irp = NULL;
    ULONG causes;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&m->e.lock);
    causes = (ULONG)InterlockedExchange(&m->Causes, 0);
    if (causes && m->Phase == Running) {
        MriFlush(m);
        if (causes & ST_OVERRUN)
            status = STATUS_DATA_OVERRUN;
        if (m->Left && NT_SUCCESS(status)) {
            MriPart(m);
        } else {
            MriRelease(m);
            irp = eng_end(&m->e, &cancelled);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&m->e.lock);
    if (irp) {
        if (cancelled)
            status = STATUS_CANCELLED;
        wl_end(&m->e.wait, irp, status, NT_SUCCESS(status) ? MmGetMdlByteCount(irp->MdlAddress) : 0);
    }
    eng_next(&m->e);
}

static NTSTATUS MriRequest(struct fdev *f, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    MRI *m = (MRI *)f;

    if (Sp->MajorFunction == IRP_MJ_READ) {
        ULONG bytes = Sp->Parameters.Read.Length;
        NTSTATUS status;

        if (bytes == 0 || (bytes & 3) || bytes > m->Most || (MmGetMdlByteOffset(Irp->MdlAddress) & 3))
            return irp_end(Irp, STATUS_INVALID_PARAMETER, 0);
        status = wl_put(&m->e.wait, Irp);
        eng_next(&m->e);
        return status;
    }
    if (Sp->MajorFunction == IRP_MJ_DEVICE_CONTROL && Sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_ADC_GAIN) {
        ULONG gain;

        if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        gain = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        if (gain > 63)
            return irp_end(Irp, STATUS_INVALID_PARAMETER, 0);
        InterlockedExchange(&m->Gain, (LONG)gain);
        hw_w32(m->Regs, ADC_GAIN, gain);
        return irp_end(Irp, STATUS_SUCCESS, 0);
    }
    return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static void MriMask(PVOID Context)
{
    MRI *m = Context;

    hw_w32(m->Regs, ADC_MASK, 0);
    hw_r32(m->Regs, ADC_MASK);
}

static void MriUnmask(PVOID Context)
{
    MRI *m = Context;

    hw_w32(m->Regs, ADC_GAIN, (ULONG)InterlockedCompareExchange(&m->Gain, 0, 0));
    hw_w32(m->Regs, ADC_STATUS, ST_END | ST_OVERRUN);
    hw_w32(m->Regs, ADC_MASK, ST_END | ST_OVERRUN);
}

static VOID MriOn(MRI *m)
{
    hw_turn(&m->hw, TRUE, MriUnmask);
    eng_up(&m->e, TRUE);
    KeInsertQueueDpc(&m->Dpc, NULL, NULL);
}

static VOID MriOff(MRI *m, BOOLEAN Touch)
{
    KIRQL irql;

    eng_up(&m->e, FALSE);
    KeWaitForSingleObject(&m->Quiet, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&m->e.lock, &irql);
    m->Untouchable = !Touch;
    MriHalt(&m->e);
    KeReleaseSpinLock(&m->e.lock, irql);
    hw_turn(&m->hw, FALSE, Touch ? MriMask : NULL);
    KeFlushQueuedDpcs();
    eng_abandon(&m->e, STATUS_REQUEST_ABORTED);
}

static VOID MriQuiet(struct fdev *f, BOOLEAN Touch)
{
    MRI *m = (MRI *)f;

    MriOff(m, Touch);
    hw_disconnect(&m->hw);
    m->Dma->DmaOperations->PutDmaAdapter(m->Dma);
    m->Dma = NULL;
    hw_unmap(&m->hw);
}

static NTSTATUS MriStart(struct fdev *f, PCM_RESOURCE_LIST List)
{
    MRI *m = (MRI *)f;
    DEVICE_DESCRIPTION d;
    ULONG maps = 0;
    NTSTATUS status = hw_claim(&m->hw, List);

    if (!NT_SUCCESS(status))
        return status;
    m->Regs = &m->hw.w[0];
    if (m->hw.n == 0 || m->Regs->len < ADC_SIZE) {
        hw_unmap(&m->hw);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    RtlZeroMemory(&d, sizeof(d));
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = FALSE;
    d.Dma32BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = READ_MOST + PAGE_SIZE;
    m->Dma = IoGetDmaAdapter(f->pdo, &d, &maps);
    if (!m->Dma || maps < 2) {
        status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        m->Most = maps - 1 < READ_MOST / PAGE_SIZE ? (maps - 1) * PAGE_SIZE : READ_MOST;
        m->Untouchable = FALSE;
        MriMask(m);
        status = hw_connect(&m->hw, MriIsr, m);
    }
    if (!NT_SUCCESS(status)) {
        if (m->Dma)
            m->Dma->DmaOperations->PutDmaAdapter(m->Dma);
        m->Dma = NULL;
        hw_unmap(&m->hw);
        return status;
    }
    MriOn(m);
    return STATUS_SUCCESS;
}

static VOID MriSleep(struct fdev *f)
{
    MriOff((MRI *)f, TRUE);
}

static VOID MriWake(struct fdev *f)
{
    MriOn((MRI *)f);
}

static VOID MriGone(struct fdev *f)
{
    eng_abandon_all(&((MRI *)f)->e, STATUS_NO_SUCH_DEVICE);
}

static VOID MriCleanup(struct fdev *f, PFILE_OBJECT File)
{
    eng_drop_file(&((MRI *)f)->e, File);
}

static NTSTATUS MriAdd(struct fdev *f)
{
    MRI *m = (MRI *)f;

    KeInitializeDpc(&m->Dpc, MriDpc, m);
    KeInitializeEvent(&m->Quiet, NotificationEvent, TRUE);
    m->e.prep = MriPrep;
    m->e.go = MriGo;
    m->e.halt = MriHalt;
    return eng_init(&m->e, &f->life);
}

static const struct fops MriOps = {
    .iface = &MriInterface, .bytes = sizeof(MRI), .flags = DO_DIRECT_IO,
    .add = MriAdd, .start = MriStart, .quiet = MriQuiet, .sleep = MriSleep, .wake = MriWake,
    .request = MriRequest, .gone = MriGone, .cleanup = MriCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return fd_entry(DriverObject, &MriOps);
}
