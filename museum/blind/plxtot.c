/*
 * plxtot: totals the pulses on the two local interrupt inputs of a PLX PCI 9050 card, which it sets to latched
 * edges; the totals are read, or read and cleared, and the polarity of each input can be chosen.
 *
 * The bug: on stop and removal the bridge's registers are unmapped before the interrupt is disconnected, whose ISR
 * reads them.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped
 * Needs: device, removal
 */
#include "../include/held_core.h"

#define IOCTL_TOT_READ     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TOT_TAKE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_TOT_POLARITY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x883, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define PLX_INTCSR 0x4C
#define PLX_SIZE   0x80

#define INT1_ENABLE 0x0001
#define INT1_HIGH   0x0002
#define INT1_ACTIVE 0x0004
#define INT2_ENABLE 0x0008
#define INT2_HIGH   0x0010
#define INT2_ACTIVE 0x0020
#define INT_PCI     0x0040
#define INT1_EDGE   0x0100
#define INT2_EDGE   0x0200
#define INT1_CLEAR  0x0400
#define INT2_CLEAR  0x0800

static const GUID InterfaceGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x02, 0x01 } };

typedef struct _TOTALS {
    ULONG64 Input[2];
} TOTALS;

typedef struct _DEV {
    CORE Core;
    PUCHAR Bridge;
    PKINTERRUPT Interrupt;
    FAST_MUTEX Gate;            /* held while a request uses the card */
    /* These under the interrupt's lock. */
    BOOLEAN Awake;
    ULONG Setting;              /* what INTCSR is to be */
    TOTALS Totals;
} DEV;

typedef struct _ARGS {
    DEV *Dev;
    ULONG Polarity;
    BOOLEAN Clear;
    TOTALS Totals;
} ARGS;

static BOOLEAN NTAPI TotIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    DEV *dev = Context;
    ULONG csr, clear = 0;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->Awake)
        return FALSE;
    csr = READ_REGISTER_ULONG((PULONG)(dev->Bridge + PLX_INTCSR));
    if (csr == 0xFFFFFFFF || !(csr & INT_PCI))
        return FALSE;
    if ((csr & INT1_ENABLE) && (csr & INT1_ACTIVE)) {
        dev->Totals.Input[0]++;
        clear |= INT1_CLEAR;
    }
    if ((csr & INT2_ENABLE) && (csr & INT2_ACTIVE)) {
        dev->Totals.Input[1]++;
        clear |= INT2_CLEAR;
    }
    if (!clear)
        return FALSE;
    WRITE_REGISTER_ULONG((PULONG)(dev->Bridge + PLX_INTCSR), dev->Setting | clear);
    return TRUE;
}

static BOOLEAN NTAPI SyncApply(PVOID Context)
{
    DEV *dev = Context;

    WRITE_REGISTER_ULONG((PULONG)(dev->Bridge + PLX_INTCSR), dev->Setting | INT1_CLEAR | INT2_CLEAR);
    dev->Awake = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI SyncMask(PVOID Context)
{
    WRITE_REGISTER_ULONG((PULONG)(((DEV *)Context)->Bridge + PLX_INTCSR), INT1_CLEAR | INT2_CLEAR);
    return TRUE;
}

static BOOLEAN NTAPI SyncSleep(PVOID Context)
{
    SyncMask(Context);
    ((DEV *)Context)->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI SyncTotals(PVOID Context)
{
    ARGS *args = Context;

    args->Totals = args->Dev->Totals;
    if (args->Clear)
        RtlZeroMemory(&args->Dev->Totals, sizeof(TOTALS));
    return TRUE;
}

static BOOLEAN NTAPI SyncPolarity(PVOID Context)
{
    ARGS *args = Context;
    ULONG setting = args->Dev->Setting & ~(ULONG)(INT1_HIGH | INT2_HIGH);

    if (args->Polarity & 1)
        setting |= INT1_HIGH;
    if (args->Polarity & 2)
        setting |= INT2_HIGH;
    args->Dev->Setting = setting;
    return SyncApply(args->Dev);
}

static NTSTATUS NTAPI TotControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = stack->Parameters.DeviceIoControl.IoControlCode;
    DEV *dev = Device->DeviceExtension;
    ARGS args = { .Dev = dev, .Clear = code == IOCTL_TOT_TAKE };
    NTSTATUS status = CoreEnter(&dev->Core, Irp);
    ULONG_PTR info = 0;

    if (!NT_SUCCESS(status))
        return status;
    if (code != IOCTL_TOT_READ && code != IOCTL_TOT_TAKE && code != IOCTL_TOT_POLARITY) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (code == IOCTL_TOT_POLARITY && (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG) ||
                                              *(PULONG)Irp->AssociatedIrp.SystemBuffer > 3)) {
        status = STATUS_INVALID_PARAMETER;
    } else if (code != IOCTL_TOT_POLARITY && stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TOTALS)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        ExAcquireFastMutex(&dev->Gate);
        if (dev->Core.Hold) {
            status = STATUS_DEVICE_NOT_READY;
        } else if (code == IOCTL_TOT_POLARITY) {
            args.Polarity = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
            KeSynchronizeExecution(dev->Interrupt, SyncPolarity, &args);
        } else {
            KeSynchronizeExecution(dev->Interrupt, SyncTotals, &args);
            *(TOTALS *)Irp->AssociatedIrp.SystemBuffer = args.Totals;
            info = sizeof(TOTALS);
        }
        ExReleaseFastMutex(&dev->Gate);
    }
    CoreComplete(&dev->Core, Irp, status, info);
    return status;
}

static VOID HwQuiesce(CORE *Core)
{
    DEV *dev = (DEV *)Core;

    ExAcquireFastMutex(&dev->Gate);     /* what saw no Hold bit is done after this */
    ExReleaseFastMutex(&dev->Gate);
}

static VOID HwKick(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwAbort(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwFini(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwSleep(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncSleep, Core); }
static VOID HwWake(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncApply, Core); }

static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bar = CoreResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = CoreResource(Translated, CmResourceTypeInterrupt, 0);
    DEV *dev = (DEV *)Core;
    NTSTATUS status;

    if (!bar || !irq || bar->u.Memory.Length < PLX_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    dev->Bridge = MmMapIoSpace(bar->u.Memory.Start, PLX_SIZE, MmNonCached);
    if (!dev->Bridge)
        return STATUS_INSUFFICIENT_RESOURCES;
    SyncMask(dev);                      /* not connected yet */
    dev->Awake = TRUE;
    status = CoreConnect(&dev->Interrupt, TotIsr, dev, irq);
    if (!NT_SUCCESS(status)) {
        dev->Interrupt = NULL;
        dev->Awake = FALSE;
        MmUnmapIoSpace(dev->Bridge, PLX_SIZE);
        dev->Bridge = NULL;
        return status;
    }
    KeSynchronizeExecution(dev->Interrupt, SyncApply, dev);
    return STATUS_SUCCESS;
}

static VOID HwStop(CORE *Core, BOOLEAN Touch)
{
    DEV *dev = (DEV *)Core;

    if (Touch)
        KeSynchronizeExecution(dev->Interrupt, SyncMask, dev);
#ifndef FIXED
    MmUnmapIoSpace(dev->Bridge, PLX_SIZE);
#endif
    IoDisconnectInterrupt(dev->Interrupt);
#ifdef FIXED
    MmUnmapIoSpace(dev->Bridge, PLX_SIZE);
#endif
    dev->Interrupt = NULL;
    dev->Bridge = NULL;
    dev->Awake = FALSE;
}

static NTSTATUS NTAPI TotAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    CORE *core;
    NTSTATUS status = CoreAdd(Driver, Pdo, sizeof(DEV), &InterfaceGuid, &core);

    if (NT_SUCCESS(status)) {
        ((DEV *)core)->Setting = INT1_ENABLE | INT1_HIGH | INT1_EDGE | INT2_ENABLE | INT2_HIGH | INT2_EDGE | INT_PCI;
        ExInitializeFastMutex(&((DEV *)core)->Gate);
        core->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    CoreEntry(Driver, TotAdd);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TotControl;
    return STATUS_SUCCESS;
}
