/*
 * cryostat: a cryostat's thermometer card with up to eight sensors: once a second the driver reads those that are
 * fitted and keeps the lowest and highest value of each; programs ask for the state and set the heater.
 * Registers in BAR0 (4 KB, 32 bits wide): 0x00 ident 0x4F595243; 0x04 fitted, a bit per sensor; 0x08 heater (0..100);
 * 0x10 + 4 * n the temperature at sensor n in millikelvins.
 *
 * The bug: the answer to the state request is returned whole although only the entries of fitted sensors are filled
 * in, so old pool contents go out.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"

#define REG_IDENT   0x00
#define REG_FITTED  0x04
#define REG_HEATER  0x08
#define REG_TEMP(n) (0x10 + 4 * (n))
#define IDENT       0x4F595243
#define SENSORS     8

#define IOCTL_CRYO_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CRYO_HEATER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CRYO_RESET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID CryoInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x0F } };

typedef struct CRYO_SENSOR { ULONG Now, Lowest, Highest, Readings; } CRYO_SENSOR;

typedef struct CRYO_STATE {
    ULONG Fitted, Heater;
    CRYO_SENSOR Sensors[SENSORS];
} CRYO_STATE;

typedef struct DEV {
    FDO F;
    PUCHAR Regs;
    SIZE_T RegBytes;
    /* under HwLock: */
    ULONG Fitted, Heater;
    CRYO_SENSOR Sensors[SENSORS];
} DEV;

static ULONG Get(DEV *d, ULONG at) { return READ_REGISTER_ULONG((PULONG)(d->Regs + at)); }
static VOID Put(DEV *d, ULONG at, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(d->Regs + at), v); }

/* Under HwLock, live. */
static VOID CryoMeasure(DEV *d)
{
    ULONG n;

    for (n = 0; n < SENSORS; n++) {
        CRYO_SENSOR *s = &d->Sensors[n];
        ULONG v;
        if (!(d->Fitted & (1u << n)))
            continue;
        v = Get(d, REG_TEMP(n));
        if (v == 0xFFFFFFFF)
            continue;
        s->Now = v;
        if (s->Readings == 0 || v < s->Lowest)
            s->Lowest = v;
        if (s->Readings == 0 || v > s->Highest)
            s->Highest = v;
        s->Readings++;
    }
}

/* Once a second, at DISPATCH_LEVEL. */
static VOID NTAPI CryoTick(PDEVICE_OBJECT dev, PVOID context)
{
    DEV *d = context;

    UNREFERENCED_PARAMETER(dev);
    KeAcquireSpinLockAtDpcLevel(&d->F.HwLock);
    if (d->F.Live)
        CryoMeasure(d);
    KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
}

static VOID CryoState(DEV *d, CRYO_STATE *state)
{
    ULONG n;
    KIRQL irql;

#ifdef FIXED
    RtlZeroMemory(state, sizeof(*state));
#endif
    KeAcquireSpinLock(&d->F.HwLock, &irql);
    state->Fitted = d->Fitted;
    state->Heater = d->Heater;
    for (n = 0; n < SENSORS; n++)
        if (d->Fitted & (1u << n))
            state->Sensors[n] = d->Sensors[n];
    KeReleaseSpinLock(&d->F.HwLock, irql);
}

static NTSTATUS CryoRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CRYO_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CRYO_STATE))
            return STATUS_BUFFER_TOO_SMALL;
        CryoState(d, irp->AssociatedIrp.SystemBuffer);
        irp->IoStatus.Information = sizeof(CRYO_STATE);
        return STATUS_SUCCESS;
    case IOCTL_CRYO_HEATER: {
        ULONG heater;
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        heater = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
        if (heater > 100)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&f->HwLock, &irql);
        if (f->Live) {
            d->Heater = heater;
            Put(d, REG_HEATER, heater);
        } else {
            status = STATUS_DEVICE_NOT_READY;
        }
        KeReleaseSpinLock(&f->HwLock, irql);
        return status;
    }
    case IOCTL_CRYO_RESET:
        KeAcquireSpinLock(&f->HwLock, &irql);
        RtlZeroMemory(d->Sensors, sizeof(d->Sensors));
        KeReleaseSpinLock(&f->HwLock, irql);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID CryoUnmap(FDO *f)
{
    DEV *d = (DEV *)f;

    if (d->Regs) {
        IoStopTimer(f->Self);
        MmUnmapIoSpace(d->Regs, d->RegBytes);
        d->Regs = NULL;
    }
}

static NTSTATUS CryoMap(FDO *f, PCM_RESOURCE_LIST resources)
{
    DEV *d = (DEV *)f;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR m = FdoFind(resources, CmResourceTypeMemory, 0);

    if (!m || m->u.Memory.Length < 0x40)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegBytes = m->u.Memory.Length;
    d->Regs = MmMapIoSpace(m->u.Memory.Start, d->RegBytes, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    IoStartTimer(f->Self);      /* it measures only when live */
    return Get(d, REG_IDENT) == IDENT ? STATUS_SUCCESS : STATUS_NO_SUCH_DEVICE;
}

static VOID CryoWake(FDO *f)
{
    DEV *d = (DEV *)f;
    ULONG fitted = Get(d, REG_FITTED);

    d->Fitted = fitted == 0xFFFFFFFF ? 0 : fitted & 0xFF;
    Put(d, REG_HEATER, d->Heater);
}

static VOID CryoQuiet(FDO *f, BOOLEAN present)
{
    if (present)
        Put((DEV *)f, REG_HEATER, 0);
}

static VOID CryoFlush(FDO *f, PFILE_OBJECT file)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(file);
}

static NTSTATUS CryoInit(FDO *f)
{
    return IoInitializeTimer(f->Self, CryoTick, f);
}

static VOID CryoFree(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
    KeFlushQueuedDpcs();        /* a last tick may be under way */
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_BUFFERED_IO, &CryoInterface,
    CryoInit, CryoFree, CryoMap, CryoUnmap, CryoWake, CryoQuiet, CryoFlush, CryoRequest, NULL
};
