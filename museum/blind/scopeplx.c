/*
 * scopeplx: a storage oscilloscope behind a PLX 9050: the bridge's registers in BAR0, the sample memory (16-bit
 * samples) in local space 0, BAR2. USER0 (CNTRL bit 2) arms the sampler; ReadFile copies samples out.
 *
 * The bug: releasing the resources unmaps the sample memory without forgetting its address, so a removal after a stop
 * (or a surprise) unmaps it twice.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: io-space-unmap
 * Needs: removal, failure
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"

#define PLX_INTCSR  0x4C
#define PLX_CNTRL   0x50
#define USER0_OUT   0x02        /* the pin is an output */
#define USER0_DATA  0x04
#define USER0_WAIT  0x01        /* 1: the pin is WAITO# */

#define IOCTL_SCOPE_ARM  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SCOPE_PEAK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_READ_ACCESS)

#define CHUNK 256               /* samples copied under the spin lock at a time */

static const GUID ScopeInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x0A } };

typedef struct SCOPE_PEAK { ULONG Samples, Highest, At, Armed; } SCOPE_PEAK;

typedef struct DEV {
    FDO F;
    PUCHAR Bridge;
    SIZE_T BridgeBytes;
    PUCHAR Samples;
    SIZE_T SampleBytes;
    BOOLEAN Armed;              /* under HwLock */
} DEV;

static PULONG BridgeReg(DEV *d, ULONG at) { return (PULONG)(d->Bridge + at); }

/* Under HwLock, live. */
static VOID ScopeArm(DEV *d, BOOLEAN armed)
{
    ULONG v = READ_REGISTER_ULONG(BridgeReg(d, PLX_CNTRL));

    v = (v & ~(USER0_WAIT | USER0_DATA)) | USER0_OUT;
    if (armed)
        v |= USER0_DATA;
    WRITE_REGISTER_ULONG(BridgeReg(d, PLX_CNTRL), v);
    d->Armed = armed;
}

static NTSTATUS ScopeRead(DEV *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    ULONG length = sp->Parameters.Read.Length;
    LONGLONG offset = sp->Parameters.Read.ByteOffset.QuadPart;
    PUSHORT to;
    ULONG done, samples;

    if (length == 0)
        return STATUS_SUCCESS;
    if ((length | (ULONG)offset) & 1)
        return STATUS_INVALID_PARAMETER;
    to = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
    if (!to)
        return STATUS_INSUFFICIENT_RESOURCES;
    samples = length / 2;
    for (done = 0; done < samples; ) {
        ULONG i, n = samples - done < CHUNK ? samples - done : CHUNK;
        NTSTATUS status = STATUS_SUCCESS;
        KIRQL irql;

        KeAcquireSpinLock(&d->F.HwLock, &irql);
        if (!d->F.Live)
            status = STATUS_DEVICE_NOT_READY;
        else if (offset < 0 || (ULONGLONG)offset > d->SampleBytes || length > d->SampleBytes - (SIZE_T)offset)
            status = STATUS_END_OF_FILE;
        else
            for (i = 0; i < n; i++)
                to[done + i] = READ_REGISTER_USHORT((PUSHORT)(d->Samples + (SIZE_T)offset) + done + i);
        KeReleaseSpinLock(&d->F.HwLock, irql);
        if (!NT_SUCCESS(status))
            return status;
        done += n;
    }
    irp->IoStatus.Information = length;
    return STATUS_SUCCESS;
}

static NTSTATUS ScopePeak(DEV *d, SCOPE_PEAK *peak)
{
    SIZE_T at;
    KIRQL irql;

    RtlZeroMemory(peak, sizeof(*peak));
    for (at = 0; ; at += CHUNK) {
        SIZE_T i, total;

        KeAcquireSpinLock(&d->F.HwLock, &irql);
        if (!d->F.Live) {
            KeReleaseSpinLock(&d->F.HwLock, irql);
            return STATUS_DEVICE_NOT_READY;
        }
        total = d->SampleBytes / 2;
        for (i = at; i < total && i < at + CHUNK; i++) {
            USHORT v = READ_REGISTER_USHORT((PUSHORT)d->Samples + i);
            if (v > peak->Highest) {
                peak->Highest = v;
                peak->At = (ULONG)i;
            }
        }
        peak->Samples = (ULONG)total;
        peak->Armed = d->Armed;
        KeReleaseSpinLock(&d->F.HwLock, irql);
        if (at + CHUNK >= total)
            return STATUS_SUCCESS;
    }
}

static NTSTATUS ScopeRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    NTSTATUS status;
    KIRQL irql;

    if (sp->MajorFunction == IRP_MJ_READ)
        return ScopeRead(d, irp, sp);
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SCOPE_ARM:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&f->HwLock, &irql);
        status = f->Live ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
        if (f->Live)
            ScopeArm(d, *(ULONG *)irp->AssociatedIrp.SystemBuffer != 0);
        KeReleaseSpinLock(&f->HwLock, irql);
        return status;
    case IOCTL_SCOPE_PEAK:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SCOPE_PEAK))
            return STATUS_BUFFER_TOO_SMALL;
        status = ScopePeak(d, irp->AssociatedIrp.SystemBuffer);
        if (NT_SUCCESS(status))
            irp->IoStatus.Information = sizeof(SCOPE_PEAK);
        return status;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID ScopeUnmap(FDO *f)
{
    DEV *d = (DEV *)f;

    if (d->Samples) {
        MmUnmapIoSpace(d->Samples, d->SampleBytes);
#ifdef FIXED
        d->Samples = NULL;
#endif
    }
    if (d->Bridge) {
        MmUnmapIoSpace(d->Bridge, d->BridgeBytes);
        d->Bridge = NULL;
    }
}

static NTSTATUS ScopeMap(FDO *f, PCM_RESOURCE_LIST resources)
{
    DEV *d = (DEV *)f;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bridge = FdoFind(resources, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR samples = FdoFind(resources, CmResourceTypeMemory, 1);

    if (!bridge || bridge->u.Memory.Length < 0x54 || !samples || samples->u.Memory.Length < 2)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->BridgeBytes = bridge->u.Memory.Length;
    d->Bridge = MmMapIoSpace(bridge->u.Memory.Start, d->BridgeBytes, MmNonCached);
    if (!d->Bridge)
        return STATUS_INSUFFICIENT_RESOURCES;
    d->SampleBytes = samples->u.Memory.Length;
    d->Samples = MmMapIoSpace(samples->u.Memory.Start, d->SampleBytes, MmNonCached);
    if (!d->Samples)
        return STATUS_INSUFFICIENT_RESOURCES;
    return STATUS_SUCCESS;
}

static VOID ScopeWake(FDO *f)
{
    DEV *d = (DEV *)f;

    WRITE_REGISTER_ULONG(BridgeReg(d, PLX_INTCSR), 0);      /* no interrupts: the driver uses none */
    ScopeArm(d, d->Armed);
}

static VOID ScopeQuiet(FDO *f, BOOLEAN present)
{
    DEV *d = (DEV *)f;
    BOOLEAN armed = d->Armed;

    if (present) {
        ScopeArm(d, FALSE);
        d->Armed = armed;       /* for when it wakes up */
    }
}

static VOID ScopeFlush(FDO *f, PFILE_OBJECT file)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(file);
}

static NTSTATUS ScopeInit(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
    return STATUS_SUCCESS;
}

static VOID ScopeFree(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_DIRECT_IO, &ScopeInterface,
    ScopeInit, ScopeFree, ScopeMap, ScopeUnmap, ScopeWake, ScopeQuiet, ScopeFlush, ScopeRequest, NULL
};
