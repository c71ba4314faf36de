/*
 * dimmer: a (simulated) lamp of 16 channels. After a time without requests, which is settable, the driver lets the
 * device go to D3; requests that come then are held, and the device is brought to D0 for them.
 * IOCTL_DIM_SET sets a channel, IOCTL_DIM_GET answers all, IOCTL_DIM_IDLE sets the idle time in seconds (0: never).
 *
 * The bug: a request that comes while the device is on its way to D3 is held, but no routine asks for D0 when the device
 * has got to D3.
 *
 * Device: ROOT\DIMMER
 * Rule: request-forgotten
 * Needs: power, schedule
 */
#define BQ_HELD
#include "../include/gated_device.h"

#define CHANNELS 16u
#define IOCTL_DIM_SET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DIM_GET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DIM_IDLE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x972, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef enum { DimUp, DimGoingDown, DimDown, DimGoingUp } DIM_STATE;

typedef struct _DIM_SET {
    ULONG Channel;
    ULONG Level;
} DIM_SET;

typedef struct _DIMMER {
    BQ_DEVICE Bq;
    KSPIN_LOCK Lock;                    /* all below */
    DIM_STATE State;
    ULONGLONG LastUse;
    ULONG IdleSeconds;
    ULONG Levels[CHANNELS];
    KTIMER Timer;
    KDPC Dpc;
} DIMMER, *PDIMMER;

static const GUID DimInterface = { 0xd4c1b9a7, 0x2e10, 0x4bb2, { 0x84, 0x3d, 0x66, 0x4f, 0x90, 0x1a, 0x05, 0x0c } };

static VOID DimFailHeld(PDIMMER D, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&D->Bq.HeldQueue, NULL)) != NULL)
        BqComplete(&D->Bq, irp, Status, 0);
}

static VOID DimSetState(PDIMMER D, DIM_STATE From, DIM_STATE To)
{
    KIRQL irql;

    KeAcquireSpinLock(&D->Lock, &irql);
    if (D->State == From)
        D->State = To;
    KeReleaseSpinLock(&D->Lock, irql);
}

static VOID NTAPI DimIsUp(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State, PVOID Context,
                          PIO_STATUS_BLOCK IoStatus)
{
    PDIMMER d = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    if (!NT_SUCCESS(IoStatus->Status)) {
        DimSetState(d, DimGoingUp, DimDown);
        DimFailHeld(d, STATUS_DEVICE_POWER_FAILURE);
    } else {
        DimSetState(d, DimGoingUp, DimUp);              /* if it was up already */
    }
    IoReleaseRemoveLock(&d->Bq.RemoveLock, &d->State);
}

/* Brings the device up if it is down and requests are held. At most at DISPATCH_LEVEL; the caller has a remove lock. */
static VOID DimWake(PDIMMER D)
{
    POWER_STATE power;
    BOOLEAN wake;
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&D->Lock, &irql);
    KeAcquireSpinLockAtDpcLevel(&D->Bq.GateLock);
    wake = D->State == DimDown && !D->Bq.Sleeping && !IsListEmpty(&D->Bq.Held);
    KeReleaseSpinLockFromDpcLevel(&D->Bq.GateLock);
    if (wake)
        D->State = DimGoingUp;
    KeReleaseSpinLock(&D->Lock, irql);
    if (!wake)
        return;

    status = IoAcquireRemoveLock(&D->Bq.RemoveLock, &D->State);
    if (NT_SUCCESS(status)) {
        power.DeviceState = PowerDeviceD0;
        status = PoRequestPowerIrp(D->Bq.Pdo, IRP_MN_SET_POWER, power, DimIsUp, D, NULL);
        if (status == STATUS_PENDING)
            return;
        IoReleaseRemoveLock(&D->Bq.RemoveLock, &D->State);
    }
    DimSetState(D, DimGoingUp, DimDown);
    DimFailHeld(D, STATUS_INSUFFICIENT_RESOURCES);
}

static VOID BqHeld(PBQ_DEVICE Dev) { DimWake((PDIMMER)Dev); }

static VOID NTAPI DimIsDown(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State, PVOID Context,
                            PIO_STATUS_BLOCK IoStatus)
{
    PDIMMER d = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(IoStatus);
    DimSetState(d, DimGoingDown, DimDown);
#ifdef FIXED
    DimWake(d);                                         /* for requests that came meanwhile */
#endif
    IoReleaseRemoveLock(&d->Bq.RemoveLock, &d->Timer);
}

static VOID NTAPI DimTick(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PDIMMER d = Context;
    POWER_STATE power;
    BOOLEAN down;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    down = d->State == DimUp && d->IdleSeconds != 0 && !d->Bq.Sleeping &&
           KeQueryInterruptTime() - d->LastUse >= d->IdleSeconds * 10000000ULL;
    if (down)
        d->State = DimGoingDown;
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    if (!down)
        return;
    if (NT_SUCCESS(IoAcquireRemoveLock(&d->Bq.RemoveLock, &d->Timer))) {
        power.DeviceState = PowerDeviceD3;
        if (PoRequestPowerIrp(d->Bq.Pdo, IRP_MN_SET_POWER, power, DimIsDown, d, NULL) == STATUS_PENDING)
            return;
        IoReleaseRemoveLock(&d->Bq.RemoveLock, &d->Timer);
    }
    DimSetState(d, DimGoingDown, DimUp);
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PDIMMER d = (PDIMMER)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR information = 0;
    ULONG in, out;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = sp->Parameters.DeviceIoControl.InputBufferLength;
    out = sp->Parameters.DeviceIoControl.OutputBufferLength;

    KeAcquireSpinLock(&d->Lock, &irql);
    d->LastUse = KeQueryInterruptTime();
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DIM_SET:
        if (in < sizeof(DIM_SET) || ((DIM_SET *)buffer)->Channel >= CHANNELS)
            status = STATUS_INVALID_PARAMETER;
        else
            d->Levels[((DIM_SET *)buffer)->Channel] = ((DIM_SET *)buffer)->Level;
        break;
    case IOCTL_DIM_GET:
        if (out < sizeof(d->Levels)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RtlCopyMemory(buffer, d->Levels, sizeof(d->Levels));
            information = sizeof(d->Levels);
        }
        break;
    case IOCTL_DIM_IDLE:
        if (in < sizeof(ULONG))
            status = STATUS_INVALID_PARAMETER;
        else
            d->IdleSeconds = *(PULONG)buffer;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    KeReleaseSpinLock(&d->Lock, irql);
    return BqComplete(Dev, Irp, status, information);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(File);
}

static VOID DimBegin(PDIMMER D)
{
    LARGE_INTEGER due;
    KIRQL irql;

    KeAcquireSpinLock(&D->Lock, &irql);
    D->State = DimUp;
    D->LastUse = KeQueryInterruptTime();
    KeReleaseSpinLock(&D->Lock, irql);
    due.QuadPart = -10000000;
    KeSetTimerEx(&D->Timer, due, 1000, &D->Dpc);
}

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    UNREFERENCED_PARAMETER(List);
    DimBegin((PDIMMER)Dev);
    return STATUS_SUCCESS;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    KeCancelTimer(&((PDIMMER)Dev)->Timer);
    KeFlushQueuedDpcs();
}

static VOID BqPowerDown(PBQ_DEVICE Dev)
{
    DimSetState((PDIMMER)Dev, DimUp, DimGoingDown);     /* when it is not by DimTick */
    KeCancelTimer(&((PDIMMER)Dev)->Timer);
    KeFlushQueuedDpcs();
}

static VOID BqPowerUp(PBQ_DEVICE Dev) { DimBegin((PDIMMER)Dev); }
static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    PDIMMER d = (PDIMMER)Dev;

    KeInitializeSpinLock(&d->Lock);
    KeInitializeTimer(&d->Timer);
    KeInitializeDpc(&d->Dpc, DimTick, d);
    d->IdleSeconds = 30;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(DIMMER), 0, &DimInterface);
    return STATUS_SUCCESS;
}
