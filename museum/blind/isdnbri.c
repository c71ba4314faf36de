/*
 * isdnbri: a card with eight ISDN B channels, which programs take, give back, and set the gain of (channel -1: of all
 * they have taken); a handle's channels are released when it is closed.
 * Registers in BAR0 (4 KB, 32 bits wide): 0x00 ident 0x4E445349; for channel n at 0x100 + 0x10 * n: +0 state (0 idle,
 * 1 connected), +4 gain (0..63), +8 level (read only).
 *
 * The bug: the signed channel number is checked against the end only; numbers below -1 index in front of the tables.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: wild-read, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"

#define REG_IDENT    0x00
#define IDENT        0x4E445349
#define CHANNELS     8
#define REG_STATE(n) (0x100 + 0x10 * (n))
#define REG_GAIN(n)  (0x104 + 0x10 * (n))
#define REG_LEVEL(n) (0x108 + 0x10 * (n))
#define MAX_GAIN     63
#define ALL          (-1)

#define IOCTL_ISDN_TAKE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ISDN_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ISDN_GAIN    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ISDN_LEVELS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x913, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID IsdnInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x0E } };

typedef struct ISDN_GAIN { LONG Channel; ULONG Gain; } ISDN_GAIN;

typedef struct CHANNEL {
    PFILE_OBJECT Owner;         /* NULL: free */
    ULONG Gain;
} CHANNEL;

typedef struct DEV {
    FDO F;
    PUCHAR Regs;
    SIZE_T RegBytes;
    CHANNEL Channels[CHANNELS]; /* under HwLock */
} DEV;

static ULONG Get(DEV *d, ULONG at) { return READ_REGISTER_ULONG((PULONG)(d->Regs + at)); }
static VOID Put(DEV *d, ULONG at, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(d->Regs + at), v); }

/* Under HwLock. */
static VOID IsdnRelease(DEV *d, ULONG n)
{
    d->Channels[n].Owner = NULL;
    d->Channels[n].Gain = 0;
    if (d->F.Live) {
        Put(d, REG_GAIN(n), 0);
        Put(d, REG_STATE(n), 0);
    }
}

/* Under HwLock, live. */
static VOID IsdnSetGain(DEV *d, LONG n, ULONG gain)
{
    d->Channels[n].Gain = gain;
    Put(d, REG_GAIN(n), gain);
}

static NTSTATUS IsdnTake(DEV *d, PFILE_OBJECT file, ULONG *taken)
{
    ULONG n;

    if (!d->F.Live)
        return STATUS_DEVICE_NOT_READY;
    for (n = 0; n < CHANNELS; n++)
        if (!d->Channels[n].Owner) {
            d->Channels[n].Owner = file;
            Put(d, REG_STATE(n), 1);
            *taken = n;
            return STATUS_SUCCESS;
        }
    return STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS IsdnGain(DEV *d, PFILE_OBJECT file, const ISDN_GAIN *g)
{
    LONG n;

    if (g->Gain > MAX_GAIN)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (g->Channel < ALL || g->Channel >= CHANNELS)
#else
    if (g->Channel >= CHANNELS)
#endif
        return STATUS_INVALID_PARAMETER;
    if (!d->F.Live)
        return STATUS_DEVICE_NOT_READY;
    if (g->Channel == ALL) {
        for (n = 0; n < CHANNELS; n++)
            if (d->Channels[n].Owner == file)
                IsdnSetGain(d, n, g->Gain);
        return STATUS_SUCCESS;
    }
    if (d->Channels[g->Channel].Owner && d->Channels[g->Channel].Owner != file)
        return STATUS_ACCESS_DENIED;
    IsdnSetGain(d, g->Channel, g->Gain);
    return STATUS_SUCCESS;
}

static NTSTATUS IsdnRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    ULONG *buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG in, out, n;
    NTSTATUS status;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = sp->Parameters.DeviceIoControl.InputBufferLength;
    out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ISDN_TAKE:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&f->HwLock, &irql);
        status = IsdnTake(d, sp->FileObject, &n);
        KeReleaseSpinLock(&f->HwLock, irql);
        if (NT_SUCCESS(status)) {
            *buffer = n;
            irp->IoStatus.Information = sizeof(ULONG);
        }
        return status;
    case IOCTL_ISDN_RELEASE:
        if (in < sizeof(ULONG) || *buffer >= CHANNELS)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&f->HwLock, &irql);
        status = STATUS_ACCESS_DENIED;
        if (d->Channels[*buffer].Owner == sp->FileObject) {
            IsdnRelease(d, *buffer);
            status = STATUS_SUCCESS;
        }
        KeReleaseSpinLock(&f->HwLock, irql);
        return status;
    case IOCTL_ISDN_GAIN:
        if (in < sizeof(ISDN_GAIN))
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&f->HwLock, &irql);
        status = IsdnGain(d, sp->FileObject, (ISDN_GAIN *)buffer);
        KeReleaseSpinLock(&f->HwLock, irql);
        return status;
    case IOCTL_ISDN_LEVELS:
        if (out < CHANNELS * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&f->HwLock, &irql);
        status = f->Live ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
        for (n = 0; f->Live && n < CHANNELS; n++)
            buffer[n] = Get(d, REG_LEVEL(n));
        KeReleaseSpinLock(&f->HwLock, irql);
        if (NT_SUCCESS(status))
            irp->IoStatus.Information = CHANNELS * sizeof(ULONG);
        return status;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID IsdnUnmap(FDO *f)
{
    DEV *d = (DEV *)f;

    if (d->Regs) {
        MmUnmapIoSpace(d->Regs, d->RegBytes);
        d->Regs = NULL;
    }
}

static NTSTATUS IsdnMap(FDO *f, PCM_RESOURCE_LIST resources)
{
    DEV *d = (DEV *)f;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR m = FdoFind(resources, CmResourceTypeMemory, 0);

    if (!m || m->u.Memory.Length < 0x200)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegBytes = m->u.Memory.Length;
    d->Regs = MmMapIoSpace(m->u.Memory.Start, d->RegBytes, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    return Get(d, REG_IDENT) == IDENT ? STATUS_SUCCESS : STATUS_NO_SUCH_DEVICE;
}

/* Sets the channels up as they were. */
static VOID IsdnWake(FDO *f)
{
    DEV *d = (DEV *)f;
    ULONG n;

    for (n = 0; n < CHANNELS; n++) {
        Put(d, REG_GAIN(n), d->Channels[n].Gain);
        Put(d, REG_STATE(n), d->Channels[n].Owner ? 1 : 0);
    }
}

static VOID IsdnQuiet(FDO *f, BOOLEAN present)
{
    DEV *d = (DEV *)f;
    ULONG n;

    for (n = 0; present && n < CHANNELS; n++)
        Put(d, REG_STATE(n), 0);
}

/* The channels of a handle that is closed. */
static VOID IsdnFlush(FDO *f, PFILE_OBJECT file)
{
    DEV *d = (DEV *)f;
    ULONG n;
    KIRQL irql;

    KeAcquireSpinLock(&f->HwLock, &irql);
    for (n = 0; n < CHANNELS; n++)
        if (d->Channels[n].Owner && (!file || d->Channels[n].Owner == file))
            IsdnRelease(d, n);
    KeReleaseSpinLock(&f->HwLock, irql);
}

static NTSTATUS IsdnInit(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
    return STATUS_SUCCESS;
}

static VOID IsdnFree(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_BUFFERED_IO, &IsdnInterface,
    IsdnInit, IsdnFree, IsdnMap, IsdnUnmap, IsdnWake, IsdnQuiet, IsdnFlush, IsdnRequest, NULL
};
