/*
 * plxalarm: an alarm panel behind a PLX PCI 9052: LINTi1 (level) says that alarms are active; the first word of the
 * local space at BAR2 holds them, the second acknowledges by ones. Reads wait (cancelably) for alarms.
 * PLX: INTCSR (0x4C): bit 0 LINTi1 enable, 2 status, 6 PCI interrupt enable. BAR0 is memory, BAR2 memory.
 *
 * The bug: the DPC enables the PCI interrupt again, which the ISR disabled, even when the device was stopped or powered
 * down meanwhile.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm
 * Needs: device, schedule
 */
#include "../include/gated_device.h"

#define INTCSR        0x4C
#define INT_LINT1_EN  0x01u
#define INT_LINT1_ST  0x04u
#define INT_PCI_EN    0x40u
#define PLX_LENGTH    0x54
#define LOC_ALARMS    0x00
#define LOC_ACK       0x04
#define LOC_LENGTH    0x08

#define IOCTL_ALARM_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _ALARM {
    BQ_DEVICE Bq;
    PUCHAR Plx;
    PUCHAR Local;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Enabled;                /* under the interrupt's lock */
    KSPIN_LOCK Lock;
    ULONG Alarms;
    LONG Count;
    BQ_QUEUE Readers;               /* its lock is taken inside Lock */
} ALARM, *PALARM;

static const GUID AlarmInterface = { 0x7fd0a3c2, 0x5a0b, 0x4a60, { 0xb3, 0x1f, 0x6d, 0x22, 0x10, 0x9f, 0x77, 0x04 } };

static ULONG Rd(PUCHAR Base, ULONG Reg) { return READ_REGISTER_ULONG((PULONG)(Base + Reg)); }
static VOID Wr(PUCHAR Base, ULONG Reg, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(Base + Reg), V); }

/* Three routines that KeSynchronizeExecution calls */
static BOOLEAN NTAPI AlarmEnable(PVOID Context)
{
    PALARM a = Context;

    a->Enabled = TRUE;
    Wr(a->Plx, INTCSR, INT_LINT1_EN | INT_PCI_EN);
    return TRUE;
}

static BOOLEAN NTAPI AlarmDisable(PVOID Context)
{
    PALARM a = Context;

    a->Enabled = FALSE;
    if (BqTouchable(&a->Bq))
        Wr(a->Plx, INTCSR, 0);
    return TRUE;
}

static BOOLEAN NTAPI AlarmResume(PVOID Context)
{
    PALARM a = Context;

#ifdef FIXED
    if (!a->Enabled)
        return FALSE;
#endif
    Wr(a->Plx, INTCSR, INT_LINT1_EN | INT_PCI_EN);
    return TRUE;
}

static VOID AlarmDeliver(PALARM A)
{
    PIRP irp = NULL;
    ULONG alarms = 0;
    KIRQL irql;

    KeAcquireSpinLock(&A->Lock, &irql);
    if (A->Alarms != 0)
        irp = IoCsqRemoveNextIrp(&A->Readers.Csq, NULL);
    if (irp != NULL) {
        alarms = A->Alarms;
        A->Alarms = 0;
    }
    KeReleaseSpinLock(&A->Lock, irql);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = alarms;
        BqComplete(&A->Bq, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI AlarmDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PALARM a = Context;
    ULONG alarms = Rd(a->Local, LOC_ALARMS);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    if (alarms == 0xFFFFFFFF && Rd(a->Plx, INTCSR) == 0xFFFFFFFF)
        return;                                         /* the card is away */
    Wr(a->Local, LOC_ACK, alarms);
    if (alarms != 0) {
        KeAcquireSpinLockAtDpcLevel(&a->Lock);
        a->Alarms |= alarms;
        KeReleaseSpinLockFromDpcLevel(&a->Lock);
        InterlockedIncrement(&a->Count);
        AlarmDeliver(a);
    }
    KeSynchronizeExecution(a->Interrupt, AlarmResume, a);
}

static BOOLEAN NTAPI AlarmIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PALARM a = Context;
    ULONG csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!a->Enabled)
        return FALSE;
    csr = Rd(a->Plx, INTCSR);
    if (csr == 0xFFFFFFFF || !(csr & INT_PCI_EN) || !(csr & INT_LINT1_EN) || !(csr & INT_LINT1_ST))
        return FALSE;
    Wr(a->Plx, INTCSR, INT_LINT1_EN);                   /* the level stays until the DPC has acknowledged */
    KeInsertQueueDpc(&a->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PALARM a = (PALARM)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    if (sp->MajorFunction == IRP_MJ_READ) {
        if (sp->Parameters.Read.Length < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        IoCsqInsertIrp(&a->Readers.Csq, Irp, NULL);
        AlarmDeliver(a);
        return STATUS_PENDING;
    }
    if (sp->MajorFunction == IRP_MJ_DEVICE_CONTROL &&
        sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_ALARM_COUNT) {
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = (ULONG)a->Count;
        return BqComplete(Dev, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File) { BqQueueFlush(&((PALARM)Dev)->Readers, File); }

static VOID AlarmUnmap(PALARM A)
{
    if (A->Local != NULL)
        MmUnmapIoSpace(A->Local, LOC_LENGTH);
    A->Local = NULL;
    if (A->Plx != NULL)
        MmUnmapIoSpace(A->Plx, PLX_LENGTH);
    A->Plx = NULL;
}

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    PALARM a = (PALARM)Dev;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR plx = BqFind(List, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR local = BqFind(List, CmResourceTypeMemory, 1);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = BqFind(List, CmResourceTypeInterrupt, 0);
    NTSTATUS status;

    if (plx == NULL || local == NULL || irq == NULL || plx->u.Memory.Length < PLX_LENGTH ||
        local->u.Memory.Length < LOC_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    a->Plx = MmMapIoSpace(plx->u.Memory.Start, PLX_LENGTH, MmNonCached);
    a->Local = MmMapIoSpace(local->u.Memory.Start, LOC_LENGTH, MmNonCached);
    if (a->Plx == NULL || a->Local == NULL) {
        AlarmUnmap(a);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    a->Enabled = FALSE;
    Wr(a->Plx, INTCSR, 0);
    status = BqConnect(&a->Interrupt, AlarmIsr, a, irq);
    if (!NT_SUCCESS(status)) {
        AlarmUnmap(a);
        return status;
    }
    KeSynchronizeExecution(a->Interrupt, AlarmEnable, a);
    return STATUS_SUCCESS;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    PALARM a = (PALARM)Dev;

    KeSynchronizeExecution(a->Interrupt, AlarmDisable, a);
    KeFlushQueuedDpcs();                                /* the DPC uses the interrupt object and the mappings */
    IoDisconnectInterrupt(a->Interrupt);
    a->Interrupt = NULL;
    AlarmUnmap(a);
}

static VOID BqPowerDown(PBQ_DEVICE Dev)
{
    KeSynchronizeExecution(((PALARM)Dev)->Interrupt, AlarmDisable, Dev);
    KeFlushQueuedDpcs();
}

static VOID BqPowerUp(PBQ_DEVICE Dev)
{
    KeSynchronizeExecution(((PALARM)Dev)->Interrupt, AlarmEnable, Dev);
}

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    PALARM a = (PALARM)Dev;

    KeInitializeSpinLock(&a->Lock);
    KeInitializeDpc(&a->Dpc, AlarmDpc, a);
    return BqQueueInit(&a->Readers, Dev);
}

static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(ALARM), DO_BUFFERED_IO, &AlarmInterface);
    return STATUS_SUCCESS;
}
