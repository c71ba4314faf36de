/*
 * A driver for the bench card that measures how the card's interrupt comes: it has source 0 raised after a delay and waits for the interrupt.
 *
 * The bug: back in D0 the card's interrupt is not enabled again, which D3 has lost, so that every measurement after a sleep times out.
 * Shows by: the device goes to D3 and back to D0, or the system sleeps and wakes, and a measurement is made then.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: request-timed-out
 * Needs: ioctl, power
 */
#include "../include/hold_card.h"

#define PROBE_TAG 'borP'
#define BEN_ID      0x00
#define BEN_RAISE   0x08
#define BEN_STATUS  0x0c
#define BEN_ENABLE  0x14
#define BEN_DELAY   0x20
#define BEN_BYTES   0x70u
#define BEN_SOURCE  1u                          /* source 0, the only one that this driver uses */
#define PROBE_LONGEST 10000u                    /* us */

#define IOCTL_PROBE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_ANY_ACCESS)          /* in: ULONG delay in us, out: ULONG interrupts so far */

typedef struct _PROBE {
    KIT Kit;
    PUCHAR Registers;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    FAST_MUTEX Mutex;                           /* one measurement at a time */
    KEVENT Raised;
    volatile LONG Count;
} PROBE, *PPROBE;

DRIVER_INITIALIZE DriverEntry;

static const GUID ProbeInterface = { 0x1f6bd2c1, 0x6a0e, 0x4d2b, { 0x9c, 0x11, 0x60, 0x2e, 0x7a, 0x55, 0x01, 0x14 } };

static ULONG ProbeRead(PPROBE Probe, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Probe->Registers + Offset));
}

static void ProbeWrite(PPROBE Probe, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Probe->Registers + Offset), Value);
}

static BOOLEAN NTAPI ProbeIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PPROBE probe = Context;
    ULONG status = ProbeRead(probe, BEN_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0xffffffff || !(status & BEN_SOURCE))
        return FALSE;                           /* another device's on the same line, or the card is gone */
    ProbeWrite(probe, BEN_STATUS, BEN_SOURCE);
    (void)ProbeRead(probe, BEN_STATUS);         /* the line falls before the routine returns */
    KeInsertQueueDpc(&probe->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI ProbeDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PPROBE probe = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    InterlockedIncrement(&probe->Count);
    KeSetEvent(&probe->Raised, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS ProbeMeasure(PPROBE Probe, ULONG Delay, PULONG Count)
{
    LARGE_INTEGER limit;
    NTSTATUS status;

    if (Delay > PROBE_LONGEST)
        return STATUS_INVALID_PARAMETER;
    limit.QuadPart = -10LL * Delay - 100 * 10000LL;
    ExAcquireFastMutex(&Probe->Mutex);
    KeClearEvent(&Probe->Raised);
    ProbeWrite(Probe, BEN_DELAY, Delay * 1000);
    ProbeWrite(Probe, BEN_RAISE, BEN_SOURCE);
    (void)ProbeRead(Probe, BEN_DELAY);          /* the writes have arrived */
    status = KeWaitForSingleObject(&Probe->Raised, Executive, KernelMode, FALSE, &limit);
    if (status == STATUS_TIMEOUT)
        status = STATUS_IO_TIMEOUT;
    *Count = (ULONG)Probe->Count;
    ExReleaseFastMutex(&Probe->Mutex);
    return status;
}

static NTSTATUS NTAPI ProbeControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PPROBE probe = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = KitEnter(&probe->Kit, Irp);
    ULONG count;

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_PROBE)
        return KitFinish(&probe->Kit, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return KitFinish(&probe->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    status = ProbeMeasure(probe, *(PULONG)Irp->AssociatedIrp.SystemBuffer, &count);
    if (!NT_SUCCESS(status))
        return KitFinish(&probe->Kit, Irp, status, 0);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = count;
    return KitFinish(&probe->Kit, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

/* The card as the driver needs it after a start. */
static void ProbePrepare(PPROBE Probe)
{
    ProbeWrite(Probe, BEN_STATUS, 0xffffffff);
    ProbeWrite(Probe, BEN_ENABLE, BEN_SOURCE);
    (void)ProbeRead(Probe, BEN_ENABLE);
}

/* It does not interrupt from here on. */
static void ProbeQuiet(PPROBE Probe)
{
    ProbeWrite(Probe, BEN_ENABLE, 0);
    (void)ProbeRead(Probe, BEN_ENABLE);
}

static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated)
{
    PPROBE probe = CONTAINING_RECORD(Kit, PROBE, Kit);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR window = HwWindow(Translated, 0, BEN_BYTES);
    NTSTATUS status = STATUS_NO_SUCH_DEVICE;

    if (window == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    probe->Registers = MmMapIoSpace(window->u.Memory.Start, BEN_BYTES, MmNonCached);
    if (probe->Registers == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (ProbeRead(probe, BEN_ID) != 0xffffffff) {
        ProbeQuiet(probe);
        status = HwConnect(Kit, &probe->Interrupt, ProbeIsr, probe);
    }
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(probe->Registers, BEN_BYTES);
        probe->Registers = NULL;
        return status;
    }
    ProbePrepare(probe);
    return STATUS_SUCCESS;
}

static void KitStop(PKIT Kit)
{
    PPROBE probe = CONTAINING_RECORD(Kit, PROBE, Kit);

    if (Kit->Power == PowerDeviceD0)            /* in D3 it is quiet, and loses what is written */
        ProbeQuiet(probe);
    HwDisconnect(probe->Interrupt);
    KeRemoveQueueDpc(&probe->Dpc);
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(probe->Registers, BEN_BYTES);
    probe->Registers = NULL;
}

static void KitDrain(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);                /* measurements wait in their dispatch routine */
}

static void KitSuspend(PKIT Kit)
{
    ProbeQuiet(CONTAINING_RECORD(Kit, PROBE, Kit));
}

static void KitResume(PKIT Kit)
{
#ifdef FIXED
    ProbePrepare(CONTAINING_RECORD(Kit, PROBE, Kit));
#else
    UNREFERENCED_PARAMETER(Kit);
#endif
}

static NTSTATUS NTAPI ProbeAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PPROBE probe;
    NTSTATUS status = KitAttach(Driver, Pdo, sizeof(PROBE), PROBE_TAG, &ProbeInterface, &device);

    if (!NT_SUCCESS(status))
        return status;
    probe = device->DeviceExtension;
    ExInitializeFastMutex(&probe->Mutex);
    KeInitializeEvent(&probe->Raised, SynchronizationEvent, FALSE);
    KeInitializeDpc(&probe->Dpc, ProbeDpc, probe);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI ProbeUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitInitialize(Driver, ProbeAddDevice, ProbeUnload);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ProbeControl;
    return STATUS_SUCCESS;
}
