/*
 * plxsonde: a measuring board with a PLX 9050: the first word of local space 0 is the converter's
 * last value. A timer reads it regularly into a ring, and IRP_MJ_READ takes values from the ring,
 * waiting until there is at least one.
 *
 * The bug: the timer goes on when the device goes to a lower power state: its DPC reads the board
 * while it has no power.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power
 * Needs: power, schedule
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID SondeInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x0B } };

#define IOCTL_SONDE_PERIOD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x990, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SONDE_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x991, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PLX_LAS0BA 0x14
#define PLX_INTCSR 0x4C
#define PLX_LENGTH 0x54
#define PLX_LAS0_ENABLE 0x1

#define SONDE_RING    512
#define SONDE_MIN_MS  10
#define SONDE_MAX_MS  10000

typedef struct _SONDE_STATE {
    ULONG PeriodMs;
    ULONG Waiting;
    ULONG Taken;
    ULONG Lost;
} SONDE_STATE;

typedef struct _SONDE_EXT {
    FR_DEV Frame;
    PUCHAR Local;
    ULONG LocalLength;
    PUCHAR Window;
    ULONG WindowLength;
    KTIMER Timer;
    KDPC Dpc;
    FR_QUEUE Reads;
    KSPIN_LOCK Lock; /* what follows; before the queue's lock */
    ULONG PeriodMs;
    ULONG Head;
    ULONG Count;
    ULONG Taken;
    ULONG Lost;
    ULONG Ring[SONDE_RING];
} SONDE_EXT, *PSONDE_EXT;

static VOID SondeServe(PSONDE_EXT x)
{
    for (;;) {
        PIRP irp = NULL;
        ULONG n = 0, i, *out;
        KIRQL irql;

        KeAcquireSpinLock(&x->Lock, &irql);
        if (x->Count && (irp = FrQueueGet(&x->Reads)) != NULL) {
            n = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG);
            if (n > x->Count)
                n = x->Count;
            out = irp->AssociatedIrp.SystemBuffer;
            for (i = 0; i < n; i++)
                out[i] = x->Ring[(x->Head + i) % SONDE_RING];
            x->Head = (x->Head + n) % SONDE_RING;
            x->Count -= n;
        }
        KeReleaseSpinLock(&x->Lock, irql);
        if (!irp)
            return;
        FrDone(&x->Frame, irp, STATUS_SUCCESS, n * sizeof(ULONG));
    }
}

static VOID NTAPI SondeDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PSONDE_EXT x = Context;
    ULONG value = READ_REGISTER_ULONG((PULONG)x->Window);

    FR_UNUSED_OF_DPC();
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Count == SONDE_RING) { /* the oldest goes */
        x->Head = (x->Head + 1) % SONDE_RING;
        x->Count--;
        x->Lost++;
    }
    x->Ring[(x->Head + x->Count) % SONDE_RING] = value;
    x->Count++;
    x->Taken++;
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    SondeServe(x);
}

static VOID SondeTimer(PSONDE_EXT x, BOOLEAN On)
{
    LARGE_INTEGER due;
    ULONG period;
    KIRQL irql;

    if (On) {
        KeAcquireSpinLock(&x->Lock, &irql);
        period = x->PeriodMs;
        KeReleaseSpinLock(&x->Lock, irql);
        due.QuadPart = -10000ll * period;
        KeSetTimerEx(&x->Timer, due, (LONG)period, &x->Dpc);
    } else {
        KeCancelTimer(&x->Timer);
        KeFlushQueuedDpcs();
    }
}

static NTSTATUS SondeControl(PSONDE_EXT x, PIRP Irp)
{
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;
    ULONG period;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SONDE_PERIOD:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        period = *(ULONG *)buffer;
        if (period < SONDE_MIN_MS || period > SONDE_MAX_MS)
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&x->Lock, &irql);
        x->PeriodMs = period;
        KeReleaseSpinLock(&x->Lock, irql);
        SondeTimer(x, TRUE);
        return FrDone(d, Irp, STATUS_SUCCESS, 0);
    case IOCTL_SONDE_STATE: {
        SONDE_STATE *out = buffer;
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&x->Lock, &irql);
        out->PeriodMs = x->PeriodMs;
        out->Waiting = x->Count;
        out->Taken = x->Taken;
        out->Lost = x->Lost;
        KeReleaseSpinLock(&x->Lock, irql);
        return FrDone(d, Irp, STATUS_SUCCESS, sizeof(*out));
    }
    default:
        return FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI SondeRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSONDE_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = FrBeginHeld(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (!NT_SUCCESS(status))
        FrDone(d, Irp, status, 0);
    else {
        if (s->MajorFunction != IRP_MJ_READ)
            status = SondeControl(x, Irp);
        else if (s->Parameters.Read.Length < sizeof(ULONG))
            status = FrDone(d, Irp, s->Parameters.Read.Length ? STATUS_BUFFER_TOO_SMALL : STATUS_SUCCESS, 0);
        else {
            status = FrQueuePut(&x->Reads, Irp);
            SondeServe(x);
        }
        FrLeave(d);
    }
    FrEnd(d);
    return status;
}

static NTSTATUS NTAPI SondeCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSONDE_EXT x = Device->DeviceExtension;
    NTSTATUS status = FrBegin(&x->Frame, Irp);

    if (!NT_SUCCESS(status))
        return status;
    FrQueueFlush(&x->Reads, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrDone(&x->Frame, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS SondeInit(PFR_DEV d)
{
    PSONDE_EXT x = (PSONDE_EXT)d;
    KeInitializeSpinLock(&x->Lock);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->Dpc, SondeDpc, x);
    FrQueueInit(&x->Reads, d);
    x->PeriodMs = 100;
    return STATUS_SUCCESS;
}

static VOID SondeSetUp(PSONDE_EXT x)
{
    ULONG base = READ_REGISTER_ULONG((PULONG)(x->Local + PLX_LAS0BA));

    WRITE_REGISTER_ULONG((PULONG)(x->Local + PLX_INTCSR), 0);
    if (base != ~0u && !(base & PLX_LAS0_ENABLE))
        WRITE_REGISTER_ULONG((PULONG)(x->Local + PLX_LAS0BA), base | PLX_LAS0_ENABLE);
}

static NTSTATUS SondeStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PSONDE_EXT x = (PSONDE_EXT)d;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR local = FrResource(Resources, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR window = FrResource(Resources, CmResourceTypeMemory, 1);

    if (!local || !window || local->u.Memory.Length < PLX_LENGTH || window->u.Memory.Length < sizeof(ULONG))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->LocalLength = local->u.Memory.Length;
    x->Local = MmMapIoSpace(local->u.Memory.Start, x->LocalLength, MmNonCached);
    if (!x->Local)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->WindowLength = window->u.Memory.Length;
    x->Window = MmMapIoSpace(window->u.Memory.Start, x->WindowLength, MmNonCached);
    if (!x->Window)
        return STATUS_INSUFFICIENT_RESOURCES;
    SondeSetUp(x);
    SondeTimer(x, TRUE);
    return STATUS_SUCCESS;
}

static VOID SondeStop(PFR_DEV d)
{
    PSONDE_EXT x = (PSONDE_EXT)d;

    SondeTimer(x, FALSE);
    if (x->Window)
        MmUnmapIoSpace(x->Window, x->WindowLength);
    if (x->Local)
        MmUnmapIoSpace(x->Local, x->LocalLength);
    x->Window = NULL;
    x->Local = NULL;
}

static VOID SondeFlush(PFR_DEV d, NTSTATUS Status)
{
    FrQueueFlush(&((PSONDE_EXT)d)->Reads, NULL, Status);
}

static VOID SondePowerDown(PFR_DEV d)
{
#ifdef FIXED
    SondeTimer((PSONDE_EXT)d, FALSE);
#else
    FR_UNUSED(d);
#endif
}

static VOID SondePowerUp(PFR_DEV d)
{
    PSONDE_EXT x = (PSONDE_EXT)d;
    SondeSetUp(x);
    SondeTimer(x, TRUE);
}

static const FR_OPS SondeOps = {
    sizeof(SONDE_EXT), &SondeInterface, DO_BUFFERED_IO, SondeInit, SondeStart, SondeStop, SondeFlush,
    SondePowerDown, SondePowerUp, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &SondeOps);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SondeCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = SondeRequest;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SondeRequest;
    return STATUS_SUCCESS;
}
