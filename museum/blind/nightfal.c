/*
 * nightfal: a virtual lamp that goes out when the computer sleeps and burns as before when it wakes. It owns its power policy: for each state of
 * the system it asks for the device state the bus recommends, and it counts the nights.
 *
 * The bug: if PoRequestPowerIrp fails, the system's power request has already been kept back (STATUS_MORE_PROCESSING_REQUIRED) and no one is left
 * to complete it: the computer hangs on its way to sleep (or awake) until the watchdog bugchecks it, and the device can never be removed.
 *
 * Device: ROOT\NIGHTFAL
 * Rule: power-irp-overdue
 * Needs: power, failure
 */
#include "../include/gated_queue.h"

#define IOCTL_NIGHTFAL_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_NIGHTFAL_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_READ_ACCESS)

#define STATES (PowerSystemMaximum)

static const GUID NightfalGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x05}};

typedef struct _NIGHTFAL_STATE {
    ULONG Level;  /* what the lamp burns with at this moment */
    ULONG Wanted; /* what it burns with when it is on */
    ULONG Nights;
    ULONG Mornings;
    ULONG Failures;
} NIGHTFAL_STATE, *PNIGHTFAL_STATE;

typedef struct _NIGHTFAL {
    AK Ak;
    DEVICE_POWER_STATE Asleep[STATES]; /* the device's state for each of the system's; written by Start only */
    NIGHTFAL_STATE State;              /* guarded by Ak.HwLock */
} NIGHTFAL, *PNIGHTFAL;

/* Asks the bus which device states it recommends. */
static VOID LearnStates(PNIGHTFAL n)
{
    DEVICE_CAPABILITIES caps;
    IO_STACK_LOCATION model;
    BOOLEAN known;
    ULONG i;

    RtlZeroMemory(&caps, sizeof caps);
    caps.Size = sizeof caps;
    caps.Version = 1;
    caps.Address = (ULONG)-1;
    caps.UINumber = (ULONG)-1;
    RtlZeroMemory(&model, sizeof model);
    model.MinorFunction = IRP_MN_QUERY_CAPABILITIES;
    model.Parameters.DeviceCapabilities.Capabilities = &caps;
    known = NT_SUCCESS(AkSendPnp(&n->Ak, &model, NULL));
    for (i = 0; i < STATES; i++) {
        n->Asleep[i] = PowerDeviceD3;
        if (known && i < POWER_SYSTEM_MAXIMUM && caps.DeviceState[i] >= PowerDeviceD1 && caps.DeviceState[i] <= PowerDeviceD3)
            n->Asleep[i] = caps.DeviceState[i];
    }
}

static NTSTATUS NightfalStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Raw);
    UNREFERENCED_PARAMETER(Translated);
    LearnStates((PNIGHTFAL)k);
    return STATUS_SUCCESS;
}

/* Counts a change of the system's state, or one the device could not follow. */
static VOID CountNight(PNIGHTFAL n, BOOLEAN wake, BOOLEAN failed)
{
    KIRQL irql;

    KeAcquireSpinLock(&n->Ak.HwLock, &irql);
    if (failed)
        n->State.Failures++;
    else if (wake)
        n->State.Mornings++;
    else
        n->State.Nights++;
    KeReleaseSpinLock(&n->Ak.HwLock, irql);
}

/* The drivers below have dealt with the system's request; now the device follows. <= DISPATCH */
static NTSTATUS NightfalSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PNIGHTFAL n = Context;
    SYSTEM_POWER_STATE system = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;
    BOOLEAN wake = system == PowerSystemWorking;
    POWER_STATE power;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        if (wake)
            power.DeviceState = PowerDeviceD0;
        else
            power.DeviceState = (ULONG)system < STATES ? n->Asleep[system] : PowerDeviceD3;
        CountNight(n, wake, FALSE);
        status = PoRequestPowerIrp(n->Ak.Pdo, IRP_MN_SET_POWER, power, AkDeviceChanged, Irp, NULL);
#ifdef FIXED
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        CountNight(n, wake, TRUE);
        AkNoDevicePower(&n->Ak, wake);
#else
        if (!NT_SUCCESS(status))
            CountNight(n, wake, TRUE);
        return STATUS_MORE_PROCESSING_REQUIRED; /* AkDeviceChanged completes it */
#endif
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&n->Ak.Lock, Irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NightfalSystemPower(PAK k, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, NightfalSystemDone, k, TRUE, TRUE, TRUE);
    PoCallDriver(k->Lower, Irp);
    return STATUS_PENDING;
}

static NTSTATUS NightfalIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    PNIGHTFAL n = (PNIGHTFAL)k;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG level;
    KIRQL irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_NIGHTFAL_SET:
        if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof level)
            return STATUS_INVALID_PARAMETER;
        level = *(PULONG)buffer;
        if (level > 100)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&k->HwLock, &irql);
        n->State.Wanted = level;
        KeReleaseSpinLock(&k->HwLock, irql);
        return STATUS_SUCCESS;

    case IOCTL_NIGHTFAL_GET:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof n->State)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&k->HwLock, &irql);
        n->State.Level = k->HwReady && k->Awake ? n->State.Wanted : 0;
        *(PNIGHTFAL_STATE)buffer = n->State;
        KeReleaseSpinLock(&k->HwLock, irql);
        Irp->IoStatus.Information = sizeof n->State;
        return STATUS_SUCCESS;

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const AK_OPS AkOps = {
    .Interface = &NightfalGuid,
    .ExtSize = sizeof(NIGHTFAL),
    .DeviceFlags = DO_BUFFERED_IO,
    .Start = NightfalStart,
    .Io = NightfalIo,
    .SystemPower = NightfalSystemPower,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
