/*
 * doorbits: the interrupt-raise register of QEMU's edu device as a set of 32 doorbells: IOCTL_RING rings some,
 * IOCTL_WAIT waits (cancelably) for any and returns those that rang since the last wait; IOCTL_FACTORIAL computes.
 * Registers: 0x04 inversion, 0x08 factorial, 0x20 status, 0x24 interrupt status, 0x60 raise, 0x64 acknowledge.
 *
 * The bug: the DPC reads the word of bits that the ISR collects and clears it in two steps, so bits that the ISR adds
 * between are lost and the request that waits for them stays.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race, request-forgotten
 * Needs: schedule, device
 */
#include "../include/gated_device.h"

#define REG_INVERT     0x04
#define REG_FACTORIAL  0x08
#define REG_STATUS     0x20
#define REG_IRQ_STATUS 0x24
#define REG_IRQ_RAISE  0x60
#define REG_IRQ_ACK    0x64
#define STATUS_BUSY_BIT 1u

#define IOCTL_RING      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WAIT      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_ALIVE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _DOOR {
    BQ_DEVICE Bq;
    PUCHAR Regs;
    SIZE_T RegsLength;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    volatile LONG Rung;             /* collected by the ISR */
    KSPIN_LOCK Lock;                /* Latched */
    ULONG Latched;                  /* not yet handed out */
    BQ_QUEUE Waiters;               /* its lock is taken inside Lock */
    FAST_MUTEX Arithmetic;
} DOOR, *PDOOR;

static const GUID DoorInterface = { 0x3b0fb3c7, 0x1d52, 0x4f1a, { 0xa1, 0x5e, 0x0c, 0x7b, 0x2e, 0x61, 0x9a, 0x02 } };

static ULONG Rd(PDOOR D, ULONG Reg) { return READ_REGISTER_ULONG((PULONG)(D->Regs + Reg)); }
static VOID Wr(PDOOR D, ULONG Reg, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(D->Regs + Reg), V); }

/* Hands latched bits to the first waiter. */
static VOID DoorDeliver(PDOOR D)
{
    PIRP irp = NULL;
    ULONG bits = 0;
    KIRQL irql;

    KeAcquireSpinLock(&D->Lock, &irql);
    if (D->Latched != 0)
        irp = IoCsqRemoveNextIrp(&D->Waiters.Csq, NULL);
    if (irp != NULL) {
        bits = D->Latched;
        D->Latched = 0;
    }
    KeReleaseSpinLock(&D->Lock, irql);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = bits;
        BqComplete(&D->Bq, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI DoorDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PDOOR d = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
#ifdef FIXED
    bits = (ULONG)InterlockedExchange(&d->Rung, 0);
#else
    bits = (ULONG)d->Rung;
    d->Rung = 0;
#endif
    if (bits == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    d->Latched |= bits;
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    DoorDeliver(d);
}

static BOOLEAN NTAPI DoorIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDOOR d = Context;
    ULONG status = Rd(d, REG_IRQ_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    /* All ones may be all bells, or a card that is away: then the status register reads ones, too. */
    if (status == 0 || (status == 0xFFFFFFFF && Rd(d, REG_STATUS) == 0xFFFFFFFF))
        return FALSE;
    Wr(d, REG_IRQ_ACK, status);
    InterlockedOr(&d->Rung, (LONG)status);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS DoorFactorial(PDOOR D, ULONG N, PULONG Result)
{
    LARGE_INTEGER wait;
    ULONG i;
    NTSTATUS status = STATUS_IO_TIMEOUT;

    wait.QuadPart = -10000;
    ExAcquireFastMutex(&D->Arithmetic);
    Wr(D, REG_FACTORIAL, N);
    for (i = 0; i < 200; i++) {
        ULONG s = Rd(D, REG_STATUS);

        if (s == 0xFFFFFFFF) {
            status = STATUS_DEVICE_NOT_CONNECTED;
            break;
        }
        if (!(s & STATUS_BUSY_BIT)) {
            *Result = Rd(D, REG_FACTORIAL);
            status = STATUS_SUCCESS;
            break;
        }
        KeDelayExecutionThread(KernelMode, FALSE, &wait);
    }
    ExReleaseFastMutex(&D->Arithmetic);
    return status;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PDOOR d = (PDOOR)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, out, value;
    NTSTATUS status;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = sp->Parameters.DeviceIoControl.InputBufferLength;
    out = sp->Parameters.DeviceIoControl.OutputBufferLength;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RING:
        if (in < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Wr(d, REG_IRQ_RAISE, *buffer);
        return BqComplete(Dev, Irp, STATUS_SUCCESS, 0);

    case IOCTL_WAIT:
        if (out < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        IoCsqInsertIrp(&d->Waiters.Csq, Irp, NULL);
        DoorDeliver(d);
        return STATUS_PENDING;

    case IOCTL_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = DoorFactorial(d, *buffer, &value);
        if (!NT_SUCCESS(status))
            return BqComplete(Dev, Irp, status, 0);
        *buffer = value;
        return BqComplete(Dev, Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_ALIVE:
        if (out < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&d->Arithmetic);
        Wr(d, REG_INVERT, 0x13572468);
        value = Rd(d, REG_INVERT);
        ExReleaseFastMutex(&d->Arithmetic);
        *buffer = value == ~0x13572468u;
        return BqComplete(Dev, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File) { BqQueueFlush(&((PDOOR)Dev)->Waiters, File); }

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    PDOOR d = (PDOOR)Dev;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = BqFind(List, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = BqFind(List, CmResourceTypeInterrupt, 0);
    NTSTATUS status;

    if (mem == NULL || irq == NULL || mem->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegsLength = 0x100;
    d->Regs = MmMapIoSpace(mem->u.Memory.Start, d->RegsLength, MmNonCached);
    if (d->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Wr(d, REG_STATUS, 0);
    Wr(d, REG_IRQ_ACK, Rd(d, REG_IRQ_STATUS));
    status = BqConnect(&d->Interrupt, DoorIsr, d, irq);
    if (!NT_SUCCESS(status)) {
        d->Interrupt = NULL;
        MmUnmapIoSpace(d->Regs, d->RegsLength);
        d->Regs = NULL;
    }
    return status;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    PDOOR d = (PDOOR)Dev;

    if (BqTouchable(Dev))
        Wr(d, REG_IRQ_ACK, 0xFFFFFFFF);             /* withdraws the line; nothing raises it any more */
    IoDisconnectInterrupt(d->Interrupt);
    d->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(d->Regs, d->RegsLength);
    d->Regs = NULL;
}

static VOID BqPowerDown(PBQ_DEVICE Dev) { Wr((PDOOR)Dev, REG_IRQ_ACK, 0xFFFFFFFF); }
static VOID BqPowerUp(PBQ_DEVICE Dev) { Wr((PDOOR)Dev, REG_STATUS, 0); }

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    PDOOR d = (PDOOR)Dev;

    KeInitializeSpinLock(&d->Lock);
    ExInitializeFastMutex(&d->Arithmetic);
    KeInitializeDpc(&d->Dpc, DoorDpc, d);
    return BqQueueInit(&d->Waiters, Dev);
}

static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(DOOR), 0, &DoorInterface);
    return STATUS_SUCCESS;
}
