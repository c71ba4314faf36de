/*
 * daqburst - burst digitizer behind a PLX PCI 9052
 *
 * BAR0 holds the bridge's configuration registers, BAR2 the digitizer:
 *
 *   0x00 STATUS   bit 0 data, bit 1 overrun, bits 16..27 words in the FIFO
 *   0x04 CONTROL  bit 0 run, bit 1 reset (hold for 20 us)
 *   0x08 DATA     takes a word out of the FIFO
 *
 * The digitizer interrupts through LINTi1 while there is data.  The DPC moves
 * the words to a ring in memory, from which ReadFile takes what there is.
 *
 * The bug: the DPC resets the board by the routine that waits, which was written for the start.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: irql-too-high
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/start_kit.h"

#define DQ_TAG              'bqaD'
#define DQ_RING             4096u           /* words, a power of two */
#define DQ_PER_DPC          512u

#define PLX_INTCSR          0x4C
#define   INTCSR_LINT1_ON     0x01u
#define   INTCSR_LINT1_HIGH   0x02u
#define   INTCSR_LINT1_NOW    0x04u
#define   INTCSR_PCI_ON       0x40u
#define   INTCSR_RUN          (INTCSR_LINT1_ON | INTCSR_LINT1_HIGH | INTCSR_PCI_ON)
#define PLX_LCR_BYTES       0x54

#define DAQ_STATUS          0x00
#define   STATUS_HAS_DATA     0x01u
#define   STATUS_OVERRUN      0x02u
#define   STATUS_LEVEL(s)     (((s) >> 16) & 0xFFFu)
#define DAQ_CONTROL         0x04
#define   CONTROL_RUN         0x01u
#define   CONTROL_RESET       0x02u
#define DAQ_DATA            0x08
#define DAQ_BYTES           0x0C

#define IOCTL_DAQ_STATE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _DAQ_STATE {
    ULONG Waiting;
    ULONG Overruns;
    ULONG Lost;
} DAQ_STATE;

typedef struct _DAQ {
    struct fdokit  Kit;

    PUCHAR         Lcr, Board;
    SIZE_T         LcrLength, BoardLength;
    PKINTERRUPT    Interrupt;
    KDPC           Dpc;
    BOOLEAN        IsrOn;                   /* interrupt lock */

    KSPIN_LOCK     Lock;
    BOOLEAN        Started, InD0, Online;   /* Online: Started and InD0 and set up */
    PULONG         Ring;
    ULONG          Head, Fill;
    ULONG          Overruns, Lost;
} DAQ, *PDAQ;

static const GUID DaqGuid =
    { 0x2c8f60e5, 0xba07, 0x4193, { 0x86, 0xd4, 0x0f, 0x53, 0x9b, 0xe8, 0x71, 0x2a } };

#define LCR_GET(x, r)       READ_REGISTER_ULONG((PULONG)((x)->Lcr + (r)))
#define LCR_PUT(x, r, v)    WRITE_REGISTER_ULONG((PULONG)((x)->Lcr + (r)), (v))
#define BRD_GET(x, r)       READ_REGISTER_ULONG((PULONG)((x)->Board + (r)))
#define BRD_PUT(x, r, v)    WRITE_REGISTER_ULONG((PULONG)((x)->Board + (r)), (v))

static VOID DqResetBoard(PDAQ x)
{
    BRD_PUT(x, DAQ_CONTROL, CONTROL_RESET);
#ifdef FIXED
    KeStallExecutionProcessor(20);
#else
    LARGE_INTEGER us20;

    us20.QuadPart = -20 * 10;
    KeDelayExecutionThread(KernelMode, FALSE, &us20);
#endif
    BRD_PUT(x, DAQ_CONTROL, 0);
}

static BOOLEAN NTAPI DqIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDAQ x = Context;
    ULONG csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->IsrOn)
        return FALSE;
    csr = LCR_GET(x, PLX_INTCSR);
    if (csr == MAXULONG || !(csr & INTCSR_PCI_ON) || !(csr & INTCSR_LINT1_ON) || !(csr & INTCSR_LINT1_NOW))
        return FALSE;
    /* level triggered: off until the DPC has emptied the FIFO */
    LCR_PUT(x, PLX_INTCSR, INTCSR_LINT1_ON | INTCSR_LINT1_HIGH);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI DqDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PDAQ x = Context;
    ULONG status, words, i;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Online) {
        status = BRD_GET(x, DAQ_STATUS);
        words = status == MAXULONG ? 0 : STATUS_LEVEL(status);
        if (words > DQ_PER_DPC)
            words = DQ_PER_DPC;
        for (i = 0; i < words; i++) {
            ULONG word = BRD_GET(x, DAQ_DATA);

            if (x->Fill == DQ_RING) {
                x->Lost++;
                continue;
            }
            x->Ring[(x->Head + x->Fill++) & (DQ_RING - 1)] = word;
        }
        if (status != MAXULONG && (status & STATUS_OVERRUN)) {
            x->Overruns++;
            DqResetBoard(x);
            BRD_PUT(x, DAQ_CONTROL, CONTROL_RUN);
        }
        LCR_PUT(x, PLX_INTCSR, INTCSR_RUN);
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
}

static BOOLEAN NTAPI DqIsrOn(PVOID Context)  { ((PDAQ)Context)->IsrOn = TRUE;  return TRUE; }
static BOOLEAN NTAPI DqIsrOff(PVOID Context) { ((PDAQ)Context)->IsrOn = FALSE; return TRUE; }

/* IRQL <= DISPATCH_LEVEL */
static VOID DqOnline(PDAQ x)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Started && x->InD0 && !x->Online) {
        KeSynchronizeExecution(x->Interrupt, DqIsrOn, x);
        x->Online = TRUE;
        BRD_PUT(x, DAQ_CONTROL, CONTROL_RUN);
        LCR_PUT(x, PLX_INTCSR, INTCSR_RUN);
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

static VOID DqOffline(PDAQ x, BOOLEAN Stopping, BOOLEAN Touch)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (Stopping)
        x->Started = FALSE;
    else
        x->InD0 = FALSE;
    if (x->Online) {
        x->Online = FALSE;
        KeSynchronizeExecution(x->Interrupt, DqIsrOff, x);
        if (Touch) {
            LCR_PUT(x, PLX_INTCSR, 0);
            BRD_PUT(x, DAQ_CONTROL, 0);
        }
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

static void DqPowerUp(void *Context)
{
    PDAQ x = Context;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->InD0 = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    DqOnline(x);
}

static void DqPowerDown(void *Context)
{
    DqOffline(Context, FALSE, TRUE);
}

static void DqRelease(PDAQ x)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS d;

    if (x->Interrupt) {
        RtlZeroMemory(&d, sizeof(d));
        d.Version = CONNECT_LINE_BASED;
        d.ConnectionContext.InterruptObject = x->Interrupt;
        IoDisconnectInterruptEx(&d);
        x->Interrupt = NULL;
    }
    KeRemoveQueueDpc(&x->Dpc);
    KeFlushQueuedDpcs();
    if (x->Board)
        MmUnmapIoSpace(x->Board, x->BoardLength);
    if (x->Lcr)
        MmUnmapIoSpace(x->Lcr, x->LcrLength);
    x->Board = x->Lcr = NULL;
}

static NTSTATUS DqMap(PDAQ x, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR r;
    ULONG i, n;

    n = List->List[0].PartialResourceList.Count;
    for (i = 0; i < n && !x->Board; i++) {
        r = &List->List[0].PartialResourceList.PartialDescriptors[i];
        if (r->Type != CmResourceTypeMemory)
            continue;
        if (!x->Lcr) {                      /* the first memory range is BAR0 */
            if (r->u.Memory.Length < PLX_LCR_BYTES)
                return STATUS_DEVICE_CONFIGURATION_ERROR;
            x->LcrLength = r->u.Memory.Length;
            x->Lcr = MmMapIoSpace(r->u.Memory.Start, x->LcrLength, MmNonCached);
            if (!x->Lcr)
                return STATUS_INSUFFICIENT_RESOURCES;
        } else {                            /* the second one is BAR2 */
            if (r->u.Memory.Length < DAQ_BYTES)
                return STATUS_DEVICE_CONFIGURATION_ERROR;
            x->BoardLength = r->u.Memory.Length;
            x->Board = MmMapIoSpace(r->u.Memory.Start, x->BoardLength, MmNonCached);
            if (!x->Board)
                return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    return x->Board ? STATUS_SUCCESS : STATUS_DEVICE_CONFIGURATION_ERROR;
}

static void DqStop(void *Context, BOOLEAN Touch)
{
    DqOffline(Context, TRUE, Touch);
    DqRelease(Context);
}

static NTSTATUS DqStart(void *Context, PCM_RESOURCE_LIST List)
{
    PDAQ x = Context;
    IO_CONNECT_INTERRUPT_PARAMETERS p;
    NTSTATUS status;
    KIRQL irql;

    status = DqMap(x, List);
    if (!NT_SUCCESS(status))
        goto fail;
    LCR_PUT(x, PLX_INTCSR, 0);
    DqResetBoard(x);

    RtlZeroMemory(&p, sizeof(p));
    p.Version = CONNECT_LINE_BASED;
    p.LineBased.PhysicalDeviceObject = x->Kit.pdo;
    p.LineBased.InterruptObject = &x->Interrupt;
    p.LineBased.ServiceRoutine = DqIsr;
    p.LineBased.ServiceContext = x;
    status = IoConnectInterruptEx(&p);
    if (!NT_SUCCESS(status)) {
        x->Interrupt = NULL;
        goto fail;
    }

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Started = x->InD0 = TRUE;
    x->Head = x->Fill = 0;
    KeReleaseSpinLock(&x->Lock, irql);
    DqOnline(x);
    return STATUS_SUCCESS;
fail:
    DqRelease(x);
    return status;
}

static NTSTATUS NTAPI DqRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDAQ x = DeviceObject->DeviceExtension;
    ULONG want = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(ULONG), n;
    PULONG out = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&x->Kit.lock, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return fdokit_complete(Irp, status, 0);
    KeAcquireSpinLock(&x->Lock, &irql);
    for (n = 0; n < want && x->Fill; n++) {
        out[n] = x->Ring[x->Head];
        x->Head = (x->Head + 1) & (DQ_RING - 1);
        x->Fill--;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    fdokit_complete(Irp, STATUS_SUCCESS, n * sizeof(ULONG));
    IoReleaseRemoveLock(&x->Kit.lock, Irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DqControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDAQ x = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    DAQ_STATE *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status = IoAcquireRemoveLock(&x->Kit.lock, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return fdokit_complete(Irp, status, 0);
    if (sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_DAQ_STATE) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        KeAcquireSpinLock(&x->Lock, &irql);
        out->Waiting = x->Fill;
        out->Overruns = x->Overruns;
        out->Lost = x->Lost;
        KeReleaseSpinLock(&x->Lock, irql);
        info = sizeof(*out);
    }
    fdokit_complete(Irp, status, info);
    IoReleaseRemoveLock(&x->Kit.lock, Irp);
    return status;
}

static void DqFreed(void *Context)
{
    ExFreePoolWithTag(((PDAQ)Context)->Ring, DQ_TAG);
}

static NTSTATUS NTAPI DqAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    struct fdokit *kit;
    NTSTATUS status;
    PULONG ring;
    PDAQ x;

    ring = ExAllocatePoolWithTag(NonPagedPool, DQ_RING * sizeof(ULONG), DQ_TAG);
    if (!ring)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = fdokit_add(DriverObject, Pdo, sizeof(DAQ), &DaqGuid, DQ_TAG, &kit);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(ring, DQ_TAG);
        return status;
    }
    x = (PDAQ)kit;
    x->Ring = ring;
    x->Kit.start = DqStart;
    x->Kit.stop = DqStop;
    x->Kit.up = DqPowerUp;
    x->Kit.down = DqPowerDown;
    x->Kit.freed = DqFreed;
    KeInitializeSpinLock(&x->Lock);
    KeInitializeDpc(&x->Dpc, DqDpc, x);
    x->Kit.self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    fdokit_entry(DriverObject, DqAddDevice);
    DriverObject->MajorFunction[IRP_MJ_READ] = DqRead;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DqControl;
    return STATUS_SUCCESS;
}
