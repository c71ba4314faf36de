/*
 * plxtrunk: a trunk line card (eight telephone lines) behind a PLX 9050: local space 0 (BAR2) has a byte per line,
 * its state, and at 0x10 a byte of changed lines, cleared by writing; LINTi1 interrupts when a line has changed.
 * Programs wait for changes and ring or release lines.
 *
 * The bug: on the shared interrupt line the ISR claims every interrupt, also those that the bridge says are not its
 * own.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"
#include "../include/waiting_requests.h"

#define PLX_INTCSR     0x4C
#define INT1_ENABLE    0x01
#define INT1_ACTIVE    0x04
#define PCI_INT_ENABLE 0x40
#define LINES          8
#define LOCAL_CHANGED  0x10

#define IOCTL_TRUNK_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TRUNK_AWAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID TrunkInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x0C } };

typedef struct TRUNK_SET { ULONG Line; UCHAR State; UCHAR Reserved[3]; } TRUNK_SET;
typedef struct TRUNK_CHANGE { UCHAR Changed; UCHAR State[LINES]; UCHAR Reserved[3]; } TRUNK_CHANGE;

typedef struct DEV {
    FDO F;
    PUCHAR Bridge, Local;
    SIZE_T BridgeBytes, LocalBytes;
    PKINTERRUPT Interrupt;
    BOOLEAN IrqLive;            /* by KeSynchronizeExecution */
    UCHAR Changed;              /* likewise */
    KDPC Dpc;
    WAITQ Awaiting;
} DEV;

static PULONG Intcsr(DEV *d) { return (PULONG)(d->Bridge + PLX_INTCSR); }

static BOOLEAN NTAPI TrunkIsr(PKINTERRUPT interrupt, PVOID context)
{
    DEV *d = context;
    ULONG csr;

    UNREFERENCED_PARAMETER(interrupt);
    if (!d->IrqLive)
        return FALSE;
    csr = READ_REGISTER_ULONG(Intcsr(d));
    if (csr == 0xFFFFFFFF)
        return FALSE;
    if (csr & INT1_ACTIVE) {
        UCHAR changed = READ_REGISTER_UCHAR(d->Local + LOCAL_CHANGED);
        WRITE_REGISTER_UCHAR(d->Local + LOCAL_CHANGED, changed);
        d->Changed |= changed;
        KeInsertQueueDpc(&d->Dpc, NULL, NULL);
#ifdef FIXED
        return TRUE;
    }
    return FALSE;
#else
    }
    return TRUE;
#endif
}

static BOOLEAN NTAPI TrunkTake(PVOID context)
{
    PVOID *p = context;
    DEV *d = p[0];

    *(UCHAR *)p[1] = d->Changed;
    d->Changed = 0;
    return TRUE;
}

static BOOLEAN NTAPI TrunkIrqOn(PVOID context)
{
    DEV *d = context;

    d->IrqLive = TRUE;
    WRITE_REGISTER_ULONG(Intcsr(d), INT1_ENABLE | PCI_INT_ENABLE);
    return TRUE;
}

/* The card is there. */
static BOOLEAN NTAPI TrunkIrqOff(PVOID context)
{
    DEV *d = context;

    d->IrqLive = FALSE;
    WRITE_REGISTER_ULONG(Intcsr(d), 0);
    return TRUE;
}

static BOOLEAN NTAPI TrunkIrqGone(PVOID context)
{
    ((DEV *)context)->IrqLive = FALSE;
    return TRUE;
}

static VOID NTAPI TrunkDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    DEV *d = context;
    TRUNK_CHANGE change = { 0 };
    PVOID take[2] = { d, &change.Changed };
    ULONG i;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&d->F.HwLock);
    if (d->F.Live) {
        KeSynchronizeExecution(d->Interrupt, TrunkTake, take);
        for (i = 0; i < LINES; i++)
            change.State[i] = READ_REGISTER_UCHAR(d->Local + i);
    }
    KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
    while (change.Changed && (irp = WaitqTake(&d->Awaiting, NULL)) != NULL) {
        *(TRUNK_CHANGE *)irp->AssociatedIrp.SystemBuffer = change;
        WaitqFinish(&d->Awaiting, irp, STATUS_SUCCESS, sizeof(change));
    }
}

static NTSTATUS TrunkRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TRUNK_SET: {
        TRUNK_SET *set = irp->AssociatedIrp.SystemBuffer;
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(*set) || set->Line >= LINES)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&f->HwLock, &irql);
        if (f->Live)
            WRITE_REGISTER_UCHAR(d->Local + set->Line, set->State);
        else
            status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&f->HwLock, irql);
        return status;
    }
    case IOCTL_TRUNK_AWAIT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TRUNK_CHANGE))
            return STATUS_BUFFER_TOO_SMALL;
        return WaitqPut(&d->Awaiting, irp);
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID TrunkWake(FDO *f)
{
    DEV *d = (DEV *)f;
    KeSynchronizeExecution(d->Interrupt, TrunkIrqOn, d);
}

static VOID TrunkQuiet(FDO *f, BOOLEAN present)
{
    DEV *d = (DEV *)f;
    KeSynchronizeExecution(d->Interrupt, present ? TrunkIrqOff : TrunkIrqGone, d);
}

static VOID TrunkUnmap(FDO *f)
{
    DEV *d = (DEV *)f;

    if (d->Interrupt) {
        IoDisconnectInterrupt(d->Interrupt);
        KeFlushQueuedDpcs();
        d->Interrupt = NULL;
    }
    if (d->Local) {
        MmUnmapIoSpace(d->Local, d->LocalBytes);
        d->Local = NULL;
    }
    if (d->Bridge) {
        MmUnmapIoSpace(d->Bridge, d->BridgeBytes);
        d->Bridge = NULL;
    }
}

static NTSTATUS TrunkMap(FDO *f, PCM_RESOURCE_LIST resources)
{
    DEV *d = (DEV *)f;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bridge = FdoFind(resources, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR local = FdoFind(resources, CmResourceTypeMemory, 1);

    if (!bridge || bridge->u.Memory.Length < 0x54 || !local || local->u.Memory.Length < 0x20)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->BridgeBytes = bridge->u.Memory.Length;
    d->Bridge = MmMapIoSpace(bridge->u.Memory.Start, d->BridgeBytes, MmNonCached);
    d->LocalBytes = local->u.Memory.Length;
    d->Local = MmMapIoSpace(local->u.Memory.Start, d->LocalBytes, MmNonCached);
    if (!d->Bridge || !d->Local)
        return STATUS_INSUFFICIENT_RESOURCES;
    WRITE_REGISTER_ULONG(Intcsr(d), 0);
    return FdoConnect(resources, TrunkIsr, d, &d->Interrupt);
}

static VOID TrunkFlush(FDO *f, PFILE_OBJECT file)
{
    DEV *d = (DEV *)f;

    if (file)
        WaitqDrain(&d->Awaiting, file, STATUS_CANCELLED);
    else
        WaitqClose(&d->Awaiting, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS TrunkInit(FDO *f)
{
    DEV *d = (DEV *)f;

    KeInitializeDpc(&d->Dpc, TrunkDpc, d);
    WaitqInit(&d->Awaiting, &f->RemoveLock);
    return STATUS_SUCCESS;
}

static VOID TrunkFree(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_BUFFERED_IO, &TrunkInterface,
    TrunkInit, TrunkFree, TrunkMap, TrunkUnmap, TrunkWake, TrunkQuiet, TrunkFlush, TrunkRequest, NULL
};
