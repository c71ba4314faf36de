/*
 * geiger: a counter tube on the edu card: each interrupt is an impulse whose status value is its energy. The ISR puts
 * impulses into a list out of a stock of 64 records; the DPC hands them to waiting reads.
 *
 * The bug: the DPC takes records off the lists that the ISR works on holding only its own spin lock, not the
 * interrupt's.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race
 * Needs: device, schedule
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"
#include "../include/waiting_requests.h"

#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_RAISE  0x60
#define EDU_IRQ_ACK    0x64

#define IOCTL_GEIGER_TEST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define STOCK 64

static const GUID GeigerInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x09 } };

typedef struct IMPULSE {
    LIST_ENTRY Entry;
    ULONG Energy;
} IMPULSE;

typedef struct DEV {
    FDO F;
    PUCHAR Regs;
    SIZE_T RegBytes;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    WAITQ Reads;
    /* by the interrupt's lock: */
    BOOLEAN IrqLive;
    LIST_ENTRY Spare, Arrived;
    IMPULSE Stock[STOCK];
} DEV;

typedef struct TAKE { DEV *Dev; ULONG Energy; } TAKE;

static BOOLEAN NTAPI GeiIsr(PKINTERRUPT interrupt, PVOID context)
{
    DEV *d = context;
    ULONG bits;

    UNREFERENCED_PARAMETER(interrupt);
    if (!d->IrqLive)
        return FALSE;
    bits = READ_REGISTER_ULONG((PULONG)(d->Regs + EDU_IRQ_STATUS));
    if (bits == 0 || bits == 0xFFFFFFFF)
        return FALSE;
    WRITE_REGISTER_ULONG((PULONG)(d->Regs + EDU_IRQ_ACK), bits);
    if (!IsListEmpty(&d->Spare)) {      /* otherwise the tube is saturated */
        IMPULSE *i = CONTAINING_RECORD(RemoveHeadList(&d->Spare), IMPULSE, Entry);
        i->Energy = bits;
        InsertTailList(&d->Arrived, &i->Entry);
    }
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

/* Takes the oldest impulse off the list. */
static BOOLEAN NTAPI GeiTake(PVOID context)
{
    TAKE *t = context;
    DEV *d = t->Dev;
    IMPULSE *i;

    if (IsListEmpty(&d->Arrived))
        return FALSE;
    i = CONTAINING_RECORD(RemoveHeadList(&d->Arrived), IMPULSE, Entry);
    t->Energy = i->Energy;
    InsertTailList(&d->Spare, &i->Entry);
    return TRUE;
}

static BOOLEAN NTAPI GeiHasArrived(PVOID context)
{
    return !IsListEmpty(&((DEV *)context)->Arrived);
}

static BOOLEAN NTAPI GeiIrqOn(PVOID context)
{
    ((DEV *)context)->IrqLive = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI GeiIrqOff(PVOID context)
{
    ((DEV *)context)->IrqLive = FALSE;
    return TRUE;
}

/* Gives impulses to reads as long as there are both. */
static VOID NTAPI GeiDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    DEV *d = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    for (;;) {
        TAKE take = { d, 0 };
        PIRP irp = NULL;

        KeAcquireSpinLockAtDpcLevel(&d->F.HwLock);
        if (d->F.Live && KeSynchronizeExecution(d->Interrupt, GeiHasArrived, d)) {
            irp = WaitqTake(&d->Reads, NULL);
            if (irp)
#ifdef FIXED
                KeSynchronizeExecution(d->Interrupt, GeiTake, &take);
#else
                GeiTake(&take);
#endif
        }
        KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
        if (!irp)
            break;
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = take.Energy;
        WaitqFinish(&d->Reads, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS GeiRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    NTSTATUS status;
    KIRQL irql;

    switch (sp->MajorFunction) {
    case IRP_MJ_READ:
        if (sp->Parameters.Read.Length < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        status = WaitqPut(&d->Reads, irp);
        if (status == STATUS_PENDING)
            KeInsertQueueDpc(&d->Dpc, NULL, NULL);      /* perhaps there is one already */
        return status;
    case IRP_MJ_DEVICE_CONTROL:
        if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_GEIGER_TEST)
            return STATUS_INVALID_DEVICE_REQUEST;
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&f->HwLock, &irql);
        if (f->Live) {
            ULONG energy = *(ULONG *)irp->AssociatedIrp.SystemBuffer & 0xFF;
            WRITE_REGISTER_ULONG((PULONG)(d->Regs + EDU_IRQ_RAISE), energy);
            status = STATUS_SUCCESS;
        } else {
            status = STATUS_DEVICE_NOT_READY;
        }
        KeReleaseSpinLock(&f->HwLock, irql);
        return status;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID GeiWake(FDO *f)
{
    DEV *d = (DEV *)f;
    KeSynchronizeExecution(d->Interrupt, GeiIrqOn, d);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);      /* reads may have come in the meantime */
}

static VOID GeiQuiet(FDO *f, BOOLEAN present)
{
    DEV *d = (DEV *)f;
    KeSynchronizeExecution(d->Interrupt, GeiIrqOff, d);
    if (present)
        WRITE_REGISTER_ULONG((PULONG)(d->Regs + EDU_IRQ_ACK), READ_REGISTER_ULONG((PULONG)(d->Regs + EDU_IRQ_STATUS)));
}

static VOID GeiUnmap(FDO *f)
{
    DEV *d = (DEV *)f;

    if (d->Interrupt) {
        IoDisconnectInterrupt(d->Interrupt);
        KeFlushQueuedDpcs();
        d->Interrupt = NULL;
    }
    if (d->Regs) {
        MmUnmapIoSpace(d->Regs, d->RegBytes);
        d->Regs = NULL;
    }
}

static NTSTATUS GeiMap(FDO *f, PCM_RESOURCE_LIST resources)
{
    DEV *d = (DEV *)f;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR m = FdoFind(resources, CmResourceTypeMemory, 0);

    if (!m || m->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegBytes = m->u.Memory.Length;
    d->Regs = MmMapIoSpace(m->u.Memory.Start, d->RegBytes, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    WRITE_REGISTER_ULONG((PULONG)(d->Regs + EDU_IRQ_ACK), READ_REGISTER_ULONG((PULONG)(d->Regs + EDU_IRQ_STATUS)));
    return FdoConnect(resources, GeiIsr, d, &d->Interrupt);
}

static VOID GeiFlush(FDO *f, PFILE_OBJECT file)
{
    DEV *d = (DEV *)f;

    if (file)
        WaitqDrain(&d->Reads, file, STATUS_CANCELLED);
    else
        WaitqClose(&d->Reads, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS GeiInit(FDO *f)
{
    DEV *d = (DEV *)f;
    ULONG i;

    KeInitializeDpc(&d->Dpc, GeiDpc, d);
    WaitqInit(&d->Reads, &f->RemoveLock);
    InitializeListHead(&d->Spare);
    InitializeListHead(&d->Arrived);
    for (i = 0; i < STOCK; i++)
        InsertTailList(&d->Spare, &d->Stock[i].Entry);
    return STATUS_SUCCESS;
}

/* A read may have queued the DPC after the interrupt was disconnected. */
static VOID GeiFree(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
    KeFlushQueuedDpcs();
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_BUFFERED_IO, &GeigerInterface,
    GeiInit, GeiFree, GeiMap, GeiUnmap, GeiWake, GeiQuiet, GeiFlush, GeiRequest, NULL
};
