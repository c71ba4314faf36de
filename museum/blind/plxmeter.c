/*
 * plxmeter: counts the pulses of a flow meter that a PLX PCI 9052 board latches: each LINTi1 interrupt means that the
 * pulse FIFO at BAR2 (0x00 status: bit 0 not empty; 0x04 time stamp, read takes it out; 0x08 control: 1 run) has
 * entries. The ISR takes them into a ring; IOCTL_METER_READ copies counts and the latest stamps.
 * PLX: INTCSR (0x4C): bit 0 LINTi1 enable, 2 status, 6 PCI interrupt enable.
 *
 * The bug: the loop in the ISR that empties the FIFO has no bound and does not notice that a removed card reads as all
 * ones.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: endless-loop
 * Needs: device
 */
#include "../include/gated_device.h"

#define INTCSR        0x4C
#define INT_LINT1_EN  0x01u
#define INT_LINT1_ST  0x04u
#define INT_PCI_EN    0x40u
#define PLX_LENGTH    0x54
#define PF_STATUS     0x00
#define PF_STAMP      0x04
#define PF_CTRL       0x08
#define PF_LENGTH     0x0C
#define PF_NOT_EMPTY  1u
#define PF_DEPTH      64u
#define RING          32u

#define IOCTL_METER_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_METER_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _METER_READING {
    ULONG Pulses;
    ULONG Stamps;                   /* valid ones */
    ULONG Stamp[RING];              /* latest last */
} METER_READING;

typedef struct _METER {
    BQ_DEVICE Bq;
    PUCHAR Plx;
    PUCHAR Fifo;
    PKINTERRUPT Interrupt;
    ULONG Pulses;                   /* this and the ring: under the interrupt's lock */
    ULONG Next;
    ULONG Valid;
    ULONG Ring[RING];
} METER, *PMETER;

typedef struct _METER_CALL {
    PMETER Meter;
    METER_READING *Reading;
} METER_CALL;

static const GUID MeterInterface = { 0xc7a1d6c3, 0x0fd7, 0x4c9b, { 0x8a, 0x4e, 0x29, 0x61, 0x18, 0x70, 0xe0, 0x06 } };

static ULONG Rd(PUCHAR Base, ULONG Reg) { return READ_REGISTER_ULONG((PULONG)(Base + Reg)); }
static VOID Wr(PUCHAR Base, ULONG Reg, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(Base + Reg), V); }

static BOOLEAN NTAPI MeterIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PMETER m = Context;
    ULONG csr = Rd(m->Plx, INTCSR);
    ULONG status;
#ifdef FIXED
    ULONG n = 0;
#endif

    UNREFERENCED_PARAMETER(Interrupt);
    if (csr == 0xFFFFFFFF || !(csr & INT_PCI_EN) || !(csr & INT_LINT1_EN) || !(csr & INT_LINT1_ST))
        return FALSE;
    for (;;) {
        status = Rd(m->Fifo, PF_STATUS);
        if (!(status & PF_NOT_EMPTY))
            break;
#ifdef FIXED
        if (status == 0xFFFFFFFF || n++ == PF_DEPTH)
            break;                                      /* the card is away; or more comes, by another interrupt */
#endif
        m->Ring[m->Next] = Rd(m->Fifo, PF_STAMP);
        m->Next = (m->Next + 1) % RING;
        if (m->Valid < RING)
            m->Valid++;
        m->Pulses++;
    }
    return TRUE;
}

static BOOLEAN NTAPI MeterCopy(PVOID Context)
{
    METER_CALL *call = Context;
    PMETER m = call->Meter;
    ULONG i;

    call->Reading->Pulses = m->Pulses;
    call->Reading->Stamps = m->Valid;
    for (i = 0; i < m->Valid; i++)
        call->Reading->Stamp[i] = m->Ring[(m->Next + RING - m->Valid + i) % RING];
    return TRUE;
}

static BOOLEAN NTAPI MeterClear(PVOID Context)
{
    PMETER m = Context;

    m->Pulses = 0;
    m->Next = 0;
    m->Valid = 0;
    return TRUE;
}

static BOOLEAN NTAPI MeterOn(PVOID Context)
{
    PMETER m = Context;

    Wr(m->Fifo, PF_CTRL, 1);
    Wr(m->Plx, INTCSR, INT_LINT1_EN | INT_PCI_EN);
    return TRUE;
}

static BOOLEAN NTAPI MeterOff(PVOID Context)
{
    PMETER m = Context;

    Wr(m->Plx, INTCSR, 0);
    Wr(m->Fifo, PF_CTRL, 0);
    return TRUE;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PMETER m = (PMETER)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    METER_CALL call;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_METER_READ:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(METER_READING))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        call.Meter = m;
        call.Reading = Irp->AssociatedIrp.SystemBuffer;
        RtlZeroMemory(call.Reading, sizeof(METER_READING));
        KeSynchronizeExecution(m->Interrupt, MeterCopy, &call);
        return BqComplete(Dev, Irp, STATUS_SUCCESS, sizeof(METER_READING));

    case IOCTL_METER_CLEAR:
        KeSynchronizeExecution(m->Interrupt, MeterClear, m);
        return BqComplete(Dev, Irp, STATUS_SUCCESS, 0);
    }
    return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(File);
}

static VOID MeterUnmap(PMETER M)
{
    if (M->Fifo != NULL)
        MmUnmapIoSpace(M->Fifo, PF_LENGTH);
    M->Fifo = NULL;
    if (M->Plx != NULL)
        MmUnmapIoSpace(M->Plx, PLX_LENGTH);
    M->Plx = NULL;
}

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    PMETER m = (PMETER)Dev;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR plx = BqFind(List, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR fifo = BqFind(List, CmResourceTypeMemory, 1);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = BqFind(List, CmResourceTypeInterrupt, 0);
    NTSTATUS status;

    if (plx == NULL || fifo == NULL || irq == NULL || plx->u.Memory.Length < PLX_LENGTH ||
        fifo->u.Memory.Length < PF_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    m->Plx = MmMapIoSpace(plx->u.Memory.Start, PLX_LENGTH, MmNonCached);
    m->Fifo = MmMapIoSpace(fifo->u.Memory.Start, PF_LENGTH, MmNonCached);
    if (m->Plx == NULL || m->Fifo == NULL) {
        MeterUnmap(m);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Wr(m->Plx, INTCSR, 0);
    status = BqConnect(&m->Interrupt, MeterIsr, m, irq);
    if (!NT_SUCCESS(status)) {
        MeterUnmap(m);
        return status;
    }
    KeSynchronizeExecution(m->Interrupt, MeterOn, m);
    return STATUS_SUCCESS;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    PMETER m = (PMETER)Dev;

    if (BqTouchable(Dev))
        KeSynchronizeExecution(m->Interrupt, MeterOff, m);
    IoDisconnectInterrupt(m->Interrupt);
    m->Interrupt = NULL;
    MeterUnmap(m);
}

static VOID BqPowerDown(PBQ_DEVICE Dev) { KeSynchronizeExecution(((PMETER)Dev)->Interrupt, MeterOff, Dev); }
static VOID BqPowerUp(PBQ_DEVICE Dev) { KeSynchronizeExecution(((PMETER)Dev)->Interrupt, MeterOn, Dev); }
static NTSTATUS BqInit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); return STATUS_SUCCESS; }
static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(METER), 0, &MeterInterface);
    return STATUS_SUCCESS;
}
