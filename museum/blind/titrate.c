/*
 * titrate: uses the edu card as a titrator's calculating unit: a program gives a number of drops, the card works out
 * the factorial that the indicator's table is made of, and the driver waits for the card to be ready.
 *
 * The bug: the wait for the card's busy bit, made under the spin lock, has no bound, so a card that was pulled out
 * (all ones) holds the processor for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: endless-loop
 * Needs: device, removal
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"

#define EDU_IDENT     0x00
#define EDU_LIVE      0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS    0x20
#define EDU_BUSY      0x01

#define IOCTL_TITRATE_COMPUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TITRATE_CHECK   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID TitrateInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x08 } };

typedef struct DEV {
    FDO F;
    PUCHAR Regs;
    SIZE_T RegBytes;
    KMUTEX Unit;                /* one computation at a time */
    ULONG Computations;
} DEV;

static ULONG Get(DEV *d, ULONG at) { return READ_REGISTER_ULONG((PULONG)(d->Regs + at)); }
static VOID Put(DEV *d, ULONG at, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(d->Regs + at), v); }

/* Under HwLock, live: waits a moment for the card; TRUE: it is busy still. */
static BOOLEAN TitBusy(DEV *d)
{
#ifdef FIXED
    ULONG n;
    for (n = 0; n < 20 && (Get(d, EDU_STATUS) & EDU_BUSY); n++)
        KeStallExecutionProcessor(1);
    return n == 20;
#else
    while (Get(d, EDU_STATUS) & EDU_BUSY)
        KeStallExecutionProcessor(1);
    return FALSE;
#endif
}

/* Waits up to a second for the card to be ready; returns with HwLock held if it is. */
static NTSTATUS TitReady(DEV *d, KIRQL *irql)
{
    ULONG i;

    for (i = 0; i < 1000; i++) {
        LARGE_INTEGER pause = { .QuadPart = -10000 };
        KeAcquireSpinLock(&d->F.HwLock, irql);
        if (!d->F.Live) {
            KeReleaseSpinLock(&d->F.HwLock, *irql);
            return STATUS_DEVICE_NOT_READY;
        }
        if (!TitBusy(d))
            return STATUS_SUCCESS;
        KeReleaseSpinLock(&d->F.HwLock, *irql);
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    return STATUS_IO_TIMEOUT;
}

static NTSTATUS TitCompute(DEV *d, ULONG drops, ULONG *result)
{
    KIRQL irql;
    NTSTATUS status;

    KeWaitForSingleObject(&d->Unit, Executive, KernelMode, FALSE, NULL);
    status = TitReady(d, &irql);
    if (NT_SUCCESS(status)) {
        Put(d, EDU_FACTORIAL, drops);
        KeReleaseSpinLock(&d->F.HwLock, irql);
        status = TitReady(d, &irql);
        if (NT_SUCCESS(status)) {
            *result = Get(d, EDU_FACTORIAL);
            d->Computations++;
            KeReleaseSpinLock(&d->F.HwLock, irql);
        }
    }
    KeReleaseMutex(&d->Unit, FALSE);
    return status;
}

static NTSTATUS TitRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    ULONG *buffer = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TITRATE_COMPUTE: {
        ULONG result;
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*buffer > 12)
            return STATUS_INVALID_PARAMETER;
        status = TitCompute(d, *buffer, &result);
        if (NT_SUCCESS(status)) {
            *buffer = result;
            irp->IoStatus.Information = sizeof(ULONG);
        }
        return status;
    }
    case IOCTL_TITRATE_CHECK: {
        ULONG echo;
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&f->HwLock, &irql);
        if (!f->Live) {
            KeReleaseSpinLock(&f->HwLock, irql);
            return STATUS_DEVICE_NOT_READY;
        }
        Put(d, EDU_LIVE, 0x13572468);
        echo = Get(d, EDU_LIVE);
        buffer[0] = echo == ~0x13572468u;
        buffer[1] = d->Computations;
        KeReleaseSpinLock(&f->HwLock, irql);
        irp->IoStatus.Information = 2 * sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID TitUnmap(FDO *f)
{
    DEV *d = (DEV *)f;

    if (d->Regs) {
        MmUnmapIoSpace(d->Regs, d->RegBytes);
        d->Regs = NULL;
    }
}

static NTSTATUS TitMap(FDO *f, PCM_RESOURCE_LIST resources)
{
    DEV *d = (DEV *)f;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR m = FdoFind(resources, CmResourceTypeMemory, 0);

    if (!m || m->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegBytes = m->u.Memory.Length;
    d->Regs = MmMapIoSpace(m->u.Memory.Start, d->RegBytes, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((Get(d, EDU_IDENT) & 0xFF) != 0xED)
        return STATUS_NO_SUCH_DEVICE;
    return STATUS_SUCCESS;
}

static VOID TitWake(FDO *f)
{
    DEV *d = (DEV *)f;
    Put(d, EDU_STATUS, 0);      /* no interrupt after a factorial */
}

static VOID TitQuiet(FDO *f, BOOLEAN present)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(present);
}

static VOID TitFlush(FDO *f, PFILE_OBJECT file)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(file);
}

static NTSTATUS TitInit(FDO *f)
{
    KeInitializeMutex(&((DEV *)f)->Unit, 0);
    return STATUS_SUCCESS;
}

static VOID TitFree(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_BUFFERED_IO, &TitrateInterface,
    TitInit, TitFree, TitMap, TitUnmap, TitWake, TitQuiet, TitFlush, TitRequest, NULL
};
