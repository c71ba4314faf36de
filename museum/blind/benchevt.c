/*
 * Event sources of the bench card: programs raise them and wait until each has been seen, and read how often each has come.
 *
 * The bug: the DPC takes the causes that the service routine has collected without the interrupt's lock, so a cause that comes between its read and its write is lost.
 * Shows by: an interrupt on another processor (or above the DPC on the same one) between the DPC's load of the causes and its store of zero; the raise then times out.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: data-race, request-timed-out
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/pnp_frame.h"
#include "../include/card_window.h"

#define IOCTL_EVT_RAISE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_EVT_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_READ_ACCESS)

#define BENCH_RAISE   0x08
#define BENCH_STATUS  0x0C
#define BENCH_ENABLE  0x14
#define BENCH_BYTES   0x70

#define EVT_SOURCES  8
#define EVT_LIMIT_MS 500

static const GUID EvtInterface = { 0x5a7d1be0, 0x7743, 0x4b19, { 0xb0, 0x2a, 0x6d, 0x91, 0x04, 0xee, 0x5c, 0x28 } };

typedef struct _DEVICE {
    FDO Fdo;
    HW_BAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN IrqOn;              /* the interrupt's lock */
    ULONG Causes;               /* the interrupt's lock: seen by the service routine, not yet by the DPC */
    KSPIN_LOCK Lock;            /* what follows */
    ULONG Expected;
    ULONG Counts[EVT_SOURCES];
    KEVENT AllSeen;
} DEVICE, *PDEVICE;

typedef struct _TAKE {
    PDEVICE Dev;
    ULONG Causes;
} TAKE, *PTAKE;

static DRIVER_DISPATCH EvtControl;
static DRIVER_ADD_DEVICE EvtAddDevice;
static DRIVER_UNLOAD EvtUnload;
static KSERVICE_ROUTINE EvtIsr;
static KDEFERRED_ROUTINE EvtDpc;
DRIVER_INITIALIZE DriverEntry;

static BOOLEAN NTAPI EvtIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEVICE dev = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->IrqOn)
        return FALSE;
    causes = HwRead(&dev->Regs, BENCH_STATUS);
    if (causes == 0xFFFFFFFF)
        return FALSE;
    causes &= (1u << EVT_SOURCES) - 1;
    if (causes == 0)
        return FALSE;
    HwWrite(&dev->Regs, BENCH_STATUS, causes);
    dev->Causes |= causes;
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI EvtTake(PVOID Context)
{
    PTAKE take = Context;

    take->Causes = take->Dev->Causes;
    take->Dev->Causes = 0;
    return TRUE;
}

static VOID NTAPI EvtDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE dev = Context;
    TAKE take;
    ULONG i;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);

    take.Dev = dev;
#ifdef FIXED
    KeSynchronizeExecution(dev->Interrupt, EvtTake, &take);
#else
    EvtTake(&take);
#endif

    KeAcquireSpinLockAtDpcLevel(&dev->Lock);
    for (i = 0; i < EVT_SOURCES; i++)
        if (take.Causes & (1u << i))
            dev->Counts[i]++;
    if (dev->Expected) {
        dev->Expected &= ~take.Causes;
        if (!dev->Expected)
            KeSetEvent(&dev->AllSeen, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLockFromDpcLevel(&dev->Lock);
}

static BOOLEAN NTAPI EvtIrqOn(PVOID Context)
{
    PDEVICE dev = Context;

    dev->Causes = 0;
    dev->IrqOn = TRUE;
    HwWrite(&dev->Regs, BENCH_STATUS, 0xFFFFFFFF);
    HwWrite(&dev->Regs, BENCH_ENABLE, (1u << EVT_SOURCES) - 1);
    return TRUE;
}

static BOOLEAN NTAPI EvtIrqOff(PVOID Context)
{
    PDEVICE dev = Context;

    dev->IrqOn = FALSE;
    HwWrite(&dev->Regs, BENCH_ENABLE, 0);
    HwRead(&dev->Regs, BENCH_ENABLE);
    return TRUE;
}

static NTSTATUS HwStart(PFDO F, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Raw);
    status = HwMapBar(Translated, 0, BENCH_BYTES, &dev->Regs);
    if (!NT_SUCCESS(status))
        return status;
    HwWrite(&dev->Regs, BENCH_ENABLE, 0);
    dev->IrqOn = FALSE;
    status = HwConnect(Translated, EvtIsr, dev, &dev->Interrupt);
    if (!NT_SUCCESS(status))
        HwUnmapBar(&dev->Regs);
    return status;
}

static VOID HwStop(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    /* The DPC uses the interrupt object: none is left behind when the object goes. */
    KeFlushQueuedDpcs();
    IoDisconnectInterrupt(dev->Interrupt);
    dev->Interrupt = NULL;
    HwUnmapBar(&dev->Regs);
}

static VOID HwUp(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    KeSynchronizeExecution(dev->Interrupt, EvtIrqOn, dev);
}

static VOID HwDown(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    KeSynchronizeExecution(dev->Interrupt, EvtIrqOff, dev);
}

static VOID HwFlush(PFDO F) { UNREFERENCED_PARAMETER(F); }

/* Under Gate, in D0: raises the sources one after the other and waits for all of them. */
static NTSTATUS EvtRaise(PDEVICE Dev, ULONG Mask)
{
    LARGE_INTEGER limit;
    ULONG i;
    KIRQL irql;
    NTSTATUS status;

    KeClearEvent(&Dev->AllSeen);
    KeAcquireSpinLock(&Dev->Lock, &irql);
    Dev->Expected = Mask;
    KeReleaseSpinLock(&Dev->Lock, irql);

    for (i = 0; i < EVT_SOURCES; i++)
        if (Mask & (1u << i))
            HwWrite(&Dev->Regs, BENCH_RAISE, 1u << i);

    limit.QuadPart = -10000LL * EVT_LIMIT_MS;
    status = KeWaitForSingleObject(&Dev->AllSeen, Executive, KernelMode, FALSE, &limit);
    if (status != STATUS_TIMEOUT)
        return STATUS_SUCCESS;
    KeAcquireSpinLock(&Dev->Lock, &irql);
    status = Dev->Expected ? STATUS_IO_TIMEOUT : STATUS_SUCCESS;
    Dev->Expected = 0;
    KeReleaseSpinLock(&Dev->Lock, irql);
    return status;
}

static NTSTATUS NTAPI EvtControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    ULONG mask;
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EVT_RAISE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        mask = *buffer;
        if (mask == 0 || mask >= (1u << EVT_SOURCES)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        ExAcquireFastMutex(&dev->Fdo.Gate);
        status = dev->Fdo.Up ? EvtRaise(dev, mask) : STATUS_DEVICE_NOT_READY;
        ExReleaseFastMutex(&dev->Fdo.Gate);
        break;
    case IOCTL_EVT_COUNTS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(dev->Counts)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&dev->Lock, &irql);
        RtlCopyMemory(buffer, dev->Counts, sizeof(dev->Counts));
        KeReleaseSpinLock(&dev->Lock, irql);
        information = sizeof(dev->Counts);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FdoComplete(Irp, status, information);
    IoReleaseRemoveLock(&dev->Fdo.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI EvtAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO f;
    PDEVICE dev;
    NTSTATUS status = FdoCreate(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO, &EvtInterface, &f);

    if (!NT_SUCCESS(status))
        return status;
    dev = CONTAINING_RECORD(f, DEVICE, Fdo);
    KeInitializeDpc(&dev->Dpc, EvtDpc, dev);
    KeInitializeSpinLock(&dev->Lock);
    KeInitializeEvent(&dev->AllSeen, NotificationEvent, FALSE);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI EvtUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoTable(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EvtControl;
    Driver->DriverExtension->AddDevice = EvtAddDevice;
    Driver->DriverUnload = EvtUnload;
    return STATUS_SUCCESS;
}
