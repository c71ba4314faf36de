/*
 * plxhush: counts the edges at local interrupt input 1 of a PLX PCI 9050 bridge; programs read the count
 * or wait for the next edge.
 *
 * The bug: stop and removal disconnect the interrupt without switching it off at the bridge first.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm
 * Needs: device
 */
#include "../include/kit_hooks.h"

static const GUID HushGuid = { 0x5d0f7a15, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x21, 0x05 } };

#define IOCTL_HUSH_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HUSH_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_READ_ACCESS)

#define INTCSR          0x4C
#define INT1_ENABLE     0x0001u
#define INT1_HIGH       0x0002u
#define INT1_STATUS     0x0004u
#define INT2_ENABLE     0x0008u
#define PCI_INT_ENABLE  0x0040u
#define SOFT_INT        0x0080u
#define INT1_EDGE       0x0100u
#define INT1_CLEAR      0x0400u
#define OFF_MASK        (INT1_ENABLE | INT2_ENABLE | PCI_INT_ENABLE | SOFT_INT)

typedef struct _HUSH {
    KIT Kit;
    KIT_QUEUE Waiters;
    PUCHAR Bridge;
    ULONG BridgeLength;
    PKINTERRUPT Interrupt;
    BOOLEAN On;             /* with the interrupt's lock */
    volatile LONG Edges;
    KDPC Dpc;
} HUSH, *PHUSH;

static BOOLEAN NTAPI HushIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PHUSH hush = Context;
    PULONG csr = (PULONG)(hush->Bridge + INTCSR);
    ULONG value;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!hush->On)
        return FALSE;
    value = READ_REGISTER_ULONG(csr);
    if (value == 0xFFFFFFFF || !(value & INT1_STATUS))
        return FALSE;
    WRITE_REGISTER_ULONG(csr, INT1_ENABLE | INT1_HIGH | INT1_EDGE | PCI_INT_ENABLE | INT1_CLEAR);
    READ_REGISTER_ULONG(csr);           /* the write has arrived */
    InterlockedIncrement(&hush->Edges);
    KeInsertQueueDpc(&hush->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI HushDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PHUSH hush = Context;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    while ((irp = IoCsqRemoveNextIrp(&hush->Waiters.Csq, NULL)) != NULL) {
        *(PLONG)irp->AssociatedIrp.SystemBuffer = hush->Edges;
        KitFinish(&hush->Kit, irp, STATUS_SUCCESS, sizeof(LONG));
    }
}

static BOOLEAN NTAPI HushOn(PVOID Context)
{
    PHUSH hush = Context;

    hush->On = TRUE;
    WRITE_REGISTER_ULONG((PULONG)(hush->Bridge + INTCSR), INT1_ENABLE | INT1_HIGH | INT1_EDGE | PCI_INT_ENABLE | INT1_CLEAR);
    return TRUE;
}

static BOOLEAN NTAPI HushOff(PVOID Context)
{
    PHUSH hush = Context;
    PULONG csr = (PULONG)(hush->Bridge + INTCSR);

    hush->On = FALSE;
    if (READ_REGISTER_ULONG(csr) == 0xFFFFFFFF)
        return TRUE;                    /* it is gone */
    WRITE_REGISTER_ULONG(csr, INT1_HIGH | INT1_EDGE | INT1_CLEAR);
    READ_REGISTER_ULONG(csr);
    return TRUE;
}

static BOOLEAN NTAPI HushDeaf(PVOID Context)
{
    ((PHUSH)Context)->On = FALSE;
    return TRUE;
}

static VOID HushRelease(PKIT Kit, BOOLEAN Reachable)
{
    PHUSH hush = (PHUSH)Kit;

#ifndef FIXED
    Reachable = FALSE;
#endif
    if (hush->Interrupt) {
        KeSynchronizeExecution(hush->Interrupt, Reachable ? HushOff : HushDeaf, hush);
        IoDisconnectInterrupt(hush->Interrupt);
        hush->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (hush->Bridge) {
        MmUnmapIoSpace(hush->Bridge, hush->BridgeLength);
        hush->Bridge = NULL;
    }
}

static NTSTATUS HushStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    PHUSH hush = (PHUSH)Kit;
    KIT_RESOURCES res;
    PULONG csr;
    NTSTATUS status;

    KitResources(Stack, &res);
    if (!res.HasInterrupt || !res.Memories || res.Memory[0].Length < 0x54)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    hush->BridgeLength = res.Memory[0].Length;
    hush->Bridge = MmMapIoSpace(res.Memory[0].Start, hush->BridgeLength, MmNonCached);
    if (!hush->Bridge)
        return STATUS_INSUFFICIENT_RESOURCES;
    csr = (PULONG)(hush->Bridge + INTCSR);
    WRITE_REGISTER_ULONG(csr, READ_REGISTER_ULONG(csr) & ~OFF_MASK);
    hush->On = FALSE;
    status = IoConnectInterrupt(&hush->Interrupt, HushIsr, hush, NULL, res.Vector, res.Level, res.Level, res.Mode, res.Shared, res.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        hush->Interrupt = NULL;
        HushRelease(Kit, FALSE);
        return status;
    }
    KeSynchronizeExecution(hush->Interrupt, HushOn, hush);
    return STATUS_SUCCESS;
}

static VOID HushSleep(PKIT Kit)
{
    PHUSH hush = (PHUSH)Kit;
    KeSynchronizeExecution(hush->Interrupt, HushOff, hush);
    KeFlushQueuedDpcs();
}

static VOID HushWake(PKIT Kit)
{
    PHUSH hush = (PHUSH)Kit;
    KeSynchronizeExecution(hush->Interrupt, HushOn, hush);
}

static VOID HushPrepare(PKIT Kit)
{
    PHUSH hush = (PHUSH)Kit;
    KitQueueInit(Kit, &hush->Waiters);
    KeInitializeDpc(&hush->Dpc, HushDpc, hush);
}

static VOID HushFlush(PKIT Kit)
{
    KitQueueFlush(&((PHUSH)Kit)->Waiters, NULL, STATUS_DELETE_PENDING);
}

static const KIT_HOOKS KitHooks = { sizeof(HUSH), 0, 'hsuH', &HushGuid, HushPrepare, HushStart, HushRelease, HushFlush, HushSleep, HushWake, NULL };

static NTSTATUS NTAPI HushControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PHUSH hush = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG_PTR information = 0;
    NTSTATUS status = IoAcquireRemoveLock(&hush->Kit.RemoveLock, hush);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (code != IOCTL_HUSH_COUNT && code != IOCTL_HUSH_WAIT)
        status = STATUS_INVALID_DEVICE_REQUEST;
    else if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
        status = STATUS_BUFFER_TOO_SMALL;
    else if (code == IOCTL_HUSH_WAIT)
        status = KitPend(&hush->Kit, &hush->Waiters, Irp);
    else {
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = hush->Edges;
        information = sizeof(LONG);
    }
    if (status != STATUS_PENDING)
        KitComplete(Irp, status, information);
    IoReleaseRemoveLock(&hush->Kit.RemoveLock, hush);
    return status;
}

static NTSTATUS NTAPI HushCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PHUSH hush = DeviceObject->DeviceExtension;
    KitQueueFlush(&hush->Waiters, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitDriver(DriverObject);
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = HushControl;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = HushCleanup;
    return STATUS_SUCCESS;
}
